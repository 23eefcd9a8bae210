//! Self-registration.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::features::sessions::registration::{Registration, register, verify};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::http::{Body, DisplayName, Done, Email, Password, Reply, Tag, Username, done, ok};

crate::text! {
    /// Six digits, as they were mailed
    EmailCode 6..=6 "^[0-9]{6}$";
}

/// Who wants to become a member
#[derive(Object)]
struct RegisterRequest {
    email: Email,
    password: Password,
    username: Option<Username>,
    display_name: Option<DisplayName>,
}

/// A code is on its way, if it should be
#[derive(Object)]
struct RegisterAnswer {
    /// How long a code is good, in seconds
    expires_in: u64,
}

/// The code that was mailed
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
    /// Register oneself
    ///
    /// Where `auth.registration` is on. The answer is the same whether or not the e-mail is known: its owner gets a code,
    /// or is told of the account there is. One mail a minute at most; registering again replaces what was not proved yet.
    #[oai(path = "/", method = "post", operation_id = "register")]
    async fn register(&self, visitor: Visitor, body: Body<RegisterRequest>) -> Reply<RegisterAnswer> {
        let RegisterRequest { email, password, username, display_name } = body.0;
        let wanted = Registration {
            email: email.0,
            password: password.0,
            username: username.map(|text| text.0),
            display_name: display_name.map(|text| text.0),
        };
        register(&self.app, &visitor, wanted).await?;
        Ok(ok(RegisterAnswer { expires_in: self.app.config.email_code_ttl_s }))
    }

    /// Prove the e-mail
    ///
    /// Makes the member active, without any role. Sign in afterwards.
    #[oai(path = "/verify", method = "post", operation_id = "verify_registration")]
    async fn verify_registration(&self, visitor: Visitor, body: Body<VerifyRequest>) -> Done {
        let VerifyRequest { email, code } = body.0;
        verify(&self.app, &visitor, email.0, code.0).await?;
        Ok(done())
    }
}
