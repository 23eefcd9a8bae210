//! Accepting an invitation: one request creates the account and its first session.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use crate::features::invitations::{self, InvitedMember};
use crate::features::sessions::token_answer::{TokenAnswer, answer, require_own_site};
use crate::features::sessions::{VerifiedFactors, open_session};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::http::{Body, DisplayName, Email, LinkToken, Password, Reply, Tag, Username};

/// A request to accept an invitation
#[derive(Object)]
struct AcceptInvitation {
    token: LinkToken,
    username: Option<Username>,
    /// Defaults to the e-mail address of the invitation
    email: Option<Email>,
    display_name: Option<DisplayName>,
    password: Password,
    /// Also sets the tokens as cookies
    cookies: Option<bool>,
}

crate::document! {
    accept_invitation: [
        SecondFactorRequired, EnrolmentRequired, InvalidLink, EmailExists, UsernameExists, SiteFull, TooManyFailures,
    ];

    "AcceptInvitation": r#"{"token":"inv_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","username":"kim","display_name":"Kim","password":"Correct-horse-7"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/auth", tag = "Tag::Invitations")]
impl Api {
    /// Accept an invitation
    ///
    /// Creates an account in the inviting organization, with the role of the invitation, and signs it in. Only success
    /// consumes the link. If the organization requires a second factor, the account is created and the answer is 401
    /// `second_factor_enrolment_required` with a `challenge`.
    #[oai(path = "/invitations/accept", method = "post", operation_id = "accept_invitation")]
    async fn accept_invitation(&self, visitor: Visitor, body: Body<AcceptInvitation>) -> Reply<TokenAnswer> {
        let AcceptInvitation { token, username, email, display_name, password, cookies } = body.0;
        require_own_site(&visitor, cookies)?;
        let invited = InvitedMember {
            username: username.map(|text| text.0),
            email: email.map(|text| text.0),
            display_name: display_name.map(|text| text.0),
            password: password.0,
        };
        let member = invitations::accept(&self.app, &visitor.context, &token, invited).await?;
        let tokens = open_session(&self.app, &visitor, member, "invitation", VerifiedFactors::OneFactor).await?;
        answer(&self.app, &visitor, tokens, cookies)
    }
}
