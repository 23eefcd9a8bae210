//! Self-registration.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::features::sessions::registration::{Registration, register, verify};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::http::{Body, DisplayName, Email, EmptyReply, Password, Reply, Tag, Username, done, ok};

crate::text! {
    /// The six digits from the mail
    EmailCode 6..=6 "^[0-9]{6}$";
}

/// A self-registration
#[derive(Object)]
struct RegisterRequest {
    email: Email,
    password: Password,
    username: Option<Username>,
    display_name: Option<DisplayName>,
}

/// The registration was accepted; a code may have been mailed
#[derive(Object)]
struct RegisterAnswer {
    /// Lifetime of a code in seconds
    expires_in: u64,
}

/// The code from the mail
#[derive(Object)]
struct VerifyRequest {
    email: Email,
    code: EmailCode,
}

crate::document! {
    register: [
        RegistrationClosed, TooManyFailures, MailNotConfigured, EmailExists, UsernameExists, SiteFull,
    ];
    verify_registration: [InvalidCode, RegistrationClosed, TooManyFailures, EmailExists, UsernameExists, SiteFull];

    "RegisterRequest": r#"{"email":"kim@example.org","password":"Correct-horse-7","username":"kim","display_name":"Kim"}"#;
    "RegisterAnswer": r#"{"expires_in":900}"#;
    "VerifyRequest": r#"{"email":"kim@example.org","code":"204613"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/auth/register", tag = "Tag::Sessions")]
impl Api {
    /// Register an account
    ///
    /// Available when `auth.registration` is on. The answer is the same whether or not the e-mail address is known: the
    /// mail contains a code, or says that an account exists. At most one mail is sent per minute. Registering again
    /// replaces a registration that is not yet confirmed.
    #[oai(path = "/", method = "post", operation_id = "register")]
    async fn register(&self, visitor: Visitor, body: Body<RegisterRequest>) -> Reply<RegisterAnswer> {
        let RegisterRequest { email, password, username, display_name } = body.0;
        let registration = Registration {
            email: email.0,
            password: password.0,
            username: username.map(|text| text.0),
            display_name: display_name.map(|text| text.0),
        };
        register(&self.app, &visitor, registration).await?;
        Ok(ok(RegisterAnswer { expires_in: self.app.config.email_code_ttl_s }))
    }

    /// Confirm the e-mail address
    ///
    /// Makes the member active, without roles. The member must then sign in.
    #[oai(path = "/verify", method = "post", operation_id = "verify_registration")]
    async fn verify_registration(&self, visitor: Visitor, body: Body<VerifyRequest>) -> EmptyReply {
        let VerifyRequest { email, code } = body.0;
        verify(&self.app, &visitor, email.0, code.0).await?;
        Ok(done())
    }
}
