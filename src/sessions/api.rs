//! Operations of sign-in.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use super::sign_in;
use crate::app::App;
use crate::wire::{Body, Reply, Tag, ok};

crate::text! {
    /// An e-mail or a username
    LoginName 1..=254 "";
    /// As it was set
    LoginPassword 1..=1024 "";
}

/// Who wants to sign in
#[derive(Object)]
struct LoginRequest {
    login: LoginName,
    password: LoginPassword,
}

/// An access token
#[derive(Object)]
struct TokenAnswer {
    /// For `Authorization: Bearer …`
    access_token: String,
    /// Always `Bearer`
    token_type: String,
    /// Seconds
    expires_in: i64,
}

/// Examples of this area's schemas, for the document.
pub const EXAMPLES: &[(&str, &str)] =
    &[("LoginRequest", r#"{"login":"kim@example.org","password":"Correct-horse-7"}"#)];

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/auth", tag = "Tag::Sessions")]
impl Api {
    /// Sign in with a password
    ///
    /// Unknown logins, suspended members and wrong passwords get the same answer.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(&self, body: Body<LoginRequest>) -> Reply<TokenAnswer> {
        let signed_in = sign_in(&self.app, body.0.login.0, body.0.password.0).await?;
        Ok(ok(TokenAnswer {
            access_token: signed_in.access_token,
            token_type: "Bearer".into(),
            expires_in: signed_in.expires_in_s,
        }))
    }
}
