//! Sign-in with an account of the WordPress site.

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
    /// A username or an e-mail of WordPress
    WordPressLogin 1..=254 "^[^:\\x00-\\x1f\\x7f]+$";
    /// As WordPress showed it; blanks do not matter
    ApplicationPassword 1..=256 "^[^\\x00-\\x1f\\x7f]+$";
    /// As the must-use plugin gave it
    WordPressTicket 1..=8192 "";
}

/// Who wants to sign in with WordPress
#[derive(Object)]
struct WordPressLoginRequest {
    username: WordPressLogin,
    /// Not the password: one that the profile page of WordPress makes for a program
    application_password: ApplicationPassword,
    /// Sends the tokens as cookies too
    cookies: Option<bool>,
}

/// Who is signed in at WordPress
#[derive(Object)]
struct WordPressTicketRequest {
    ticket: WordPressTicket,
    /// Sends the tokens as cookies too
    cookies: Option<bool>,
}

crate::document! {
    login_with_wordpress: [
        InvalidLogin, SecondFactorRequired, EnrolmentRequired, TooManyFailures, CrossSite, WordPressNotConfigured,
        NeighbourFailed, SiteFull,
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
    /// Sign in with an application password of WordPress
    ///
    /// The site is asked each time. Who is new becomes a member; the roles there go through the mappings of the source
    /// `wordpress`. 502 `neighbour_failed` when WordPress does not answer as it should.
    #[oai(path = "/", method = "post", operation_id = "login_with_wordpress")]
    async fn login_with_wordpress(&self, visitor: Visitor, body: Body<WordPressLoginRequest>) -> Reply<TokenAnswer> {
        let WordPressLoginRequest { username, application_password, cookies } = body.0;
        require_own_site(&visitor, cookies)?;
        let tokens = sign_in(&self.app, &visitor, &username, &application_password).await?;
        answer(&self.app, &visitor, tokens, cookies)
    }

    /// Sign in with a ticket of WordPress
    ///
    /// Our must-use plugin signs one for anyone who is signed in there. It is good for a minute, and once.
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
