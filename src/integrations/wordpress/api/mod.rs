//! Operations for sign-in with a WordPress account.

pub mod compare;
pub mod events;

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::features::sessions::token_answer::{TokenAnswer, answer, require_own_site};
use crate::integrations::wordpress::sign_in::{sign_in, sign_in_with_ticket};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::http::{Body, Reply, Tag};

crate::text! {
    /// A WordPress username or e-mail
    WordPressLogin 1..=254 "^[^:\\x00-\\x1f\\x7f]+$";
    /// The application password as shown by WordPress; blanks are ignored
    ApplicationPassword 1..=256 "^[^\\x00-\\x1f\\x7f]+$";
    /// A ticket from the must-use plugin
    WordPressTicket 1..=8192 "";
}

/// Credentials for sign-in with WordPress
#[derive(Object)]
struct WordPressLoginRequest {
    username: WordPressLogin,
    /// An application password from the WordPress profile page, not the account's password
    application_password: ApplicationPassword,
    /// Also sends the tokens as cookies
    cookies: Option<bool>,
}

/// A ticket for sign-in with WordPress
#[derive(Object)]
struct WordPressTicketRequest {
    ticket: WordPressTicket,
    /// Also sends the tokens as cookies
    cookies: Option<bool>,
}

crate::document! {
    login_with_wordpress: [
        InvalidLogin, SecondFactorRequired, EnrolmentRequired, TooManyFailures, CrossSite, WordPressNotConfigured,
        ExternalSystemFailed, SiteFull,
    ];
    login_with_wordpress_ticket: [
        InvalidLogin, SecondFactorRequired, EnrolmentRequired, InvalidTicket, TooManyFailures, CrossSite,
        WordPressNotConfigured, Forbidden, SiteFull,
    ];

    "WordPressLoginRequest": r#"{"username":"kim","application_password":"abcd EFGH 1234 ijkl MNOP 5678"}"#;
    "WordPressTicketRequest": r#"{"ticket":"eyJ2IjoxfQ.3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/auth/wordpress", tag = "Tag::Sessions")]
impl Api {
    /// Sign in with a WordPress application password
    ///
    /// WordPress checks the credentials each time. A new user becomes a member; WordPress roles are mapped by the role
    /// mappings of the source `wordpress`. 502 `neighbour_failed` when WordPress fails or its answer is unexpected.
    #[oai(path = "/", method = "post", operation_id = "login_with_wordpress")]
    async fn login_with_wordpress(&self, visitor: Visitor, body: Body<WordPressLoginRequest>) -> Reply<TokenAnswer> {
        let WordPressLoginRequest { username, application_password, cookies } = body.0;
        require_own_site(&visitor, cookies)?;
        let tokens = sign_in(&self.app, &visitor, &username, &application_password).await?;
        answer(&self.app, &visitor, tokens, cookies)
    }

    /// Sign in with a WordPress ticket
    ///
    /// The must-use plugin signs a ticket for users that are signed in at WordPress. It is valid for one minute and can
    /// be used once.
    #[oai(path = "/ticket", method = "post", operation_id = "login_with_wordpress_ticket")]
    async fn login_with_wordpress_ticket(
        &self,
        visitor: Visitor,
        body: Body<WordPressTicketRequest>,
    ) -> Reply<TokenAnswer> {
        let WordPressTicketRequest { ticket, cookies } = body.0;
        require_own_site(&visitor, cookies)?;
        let tokens = sign_in_with_ticket(&self.app, &visitor, &ticket).await?;
        answer(&self.app, &visitor, tokens, cookies)
    }
}
