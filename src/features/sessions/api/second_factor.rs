//! Operations on second factors: during sign-in, for the signed-in member, and for administrators.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::LoginPassword;
use crate::features::members::{self, require_may_change, require_visible};
use crate::features::sessions::second_factor::{self, NewSecret};
use crate::features::sessions::token_answer::{TokenAnswer, require_own_site, token_answer};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{MemberCaller, Visitor};
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Body, EmptyReply, OptionalBody, Reply, Tag, done, ok};
use crate::kernel::ids::MemberId;

crate::text! {
    /// The `challenge` from the 401 answer of the sign-in
    Challenge 1..=128 "";
    /// Six digits from the authenticator app, or a recovery code
    FactorCode 6..=64 "";
}

/// The second step of a sign-in
#[derive(Object)]
struct SecondFactorRequest {
    challenge: Challenge,
    code: FactorCode,
    /// Also sets the tokens as cookies
    cookies: Option<bool>,
    /// Sets a cookie with which later sign-ins on this device need no second factor, for `signin.remember_s`. Has no
    /// effect with a recovery code
    remember: Option<bool>,
}

/// Enrolment during a sign-in that requires a second factor
#[derive(Object)]
struct EnrolRequest {
    challenge: Challenge,
}

/// The tokens of a session
#[derive(Object)]
struct SecondFactorAnswer {
    #[oai(flatten)]
    tokens: TokenAnswer,
    /// Present when the code activated the second factor; returned only in this answer, and each code works once
    #[oai(skip_serializing_if_is_none)]
    recovery_codes: Option<Vec<String>>,
}

/// The secret for an authenticator app
#[derive(Object)]
struct FactorSecret {
    /// In Base32, for manual entry
    secret: String,
    /// The same secret as a URL for a QR code
    otpauth_url: String,
}

impl From<NewSecret> for FactorSecret {
    fn from(new: NewSecret) -> Self {
        Self { secret: new.secret, otpauth_url: new.otpauth_url }
    }
}

/// The member's second factor
#[derive(Object)]
#[oai(rename = "SecondFactor")]
struct SecondFactorView {
    enabled: bool,
    /// Unix milliseconds
    #[oai(nullable)]
    confirmed_at: Option<i64>,
    recovery_codes_left: u64,
    /// Whether one of the member's organizations requires a second factor
    required: bool,
}

/// A request to set up a second factor
#[derive(Object)]
struct BeginSecondFactor {
    /// The member's current password; required if the member has one
    password: Option<LoginPassword>,
}

/// A code of the second factor
#[derive(Object)]
struct SecondFactorCode {
    code: FactorCode,
}

/// Recovery codes for a lost authenticator; returned only in this answer, and each code works once
#[derive(Object)]
struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

crate::document! {
    answer_second_factor: [InvalidChallenge, InvalidCode, TooManyFailures, CrossSite];
    enrol_second_factor: [InvalidChallenge, InvalidCode, TooManyFailures, SecondFactorOn];
    begin_my_second_factor: [InvalidCode, WrongPassword, TooManyFailures, SecondFactorOn];
    confirm_my_second_factor: [InvalidCode, TooManyFailures, SecondFactorOn, SecondFactorOff];
    renew_my_recovery_codes: [InvalidCode, TooManyFailures, SecondFactorOff];
    remove_my_second_factor: [InvalidCode, TooManyFailures, SecondFactorOff, SecondFactorKept];
    reset_second_factor: [SecondFactorOff, NotHeld, MemberNotFound] ["x-policy-epoch"];

    "SecondFactorRequest": r#"{"challenge":"ch_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","code":"287082"}"#;
    "EnrolRequest": r#"{"challenge":"ch_3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
    "BeginSecondFactor": r#"{"password":"Correct-horse-7"}"#;
    "SecondFactorCode": r#"{"code":"287082"}"#;
    "SecondFactor": r#"{"enabled":true,"confirmed_at":1763740800000,"recovery_codes_left":10,"required":false}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Sessions")]
impl Api {
    /// Complete a sign-in with the second factor
    ///
    /// Send a code from the authenticator app, or a recovery code; each works once. A wrong code gets 401
    /// `invalid_code`; after `auth.second_factor_tries` wrong codes the member must start the sign-in again. The first
    /// code of a new second factor activates it, and the answer then contains the recovery codes. With `remember`, later
    /// sign-ins on this device need only the first factor.
    #[oai(path = "/auth/second-factor", method = "post", operation_id = "answer_second_factor")]
    async fn answer_second_factor(
        &self,
        visitor: Visitor,
        body: Body<SecondFactorRequest>,
    ) -> Reply<SecondFactorAnswer> {
        let SecondFactorRequest { challenge, code, cookies, remember } = body.0;
        let remembers = remember == Some(true);
        require_own_site(&visitor, Some(cookies == Some(true) || remembers))?;
        let presented = (challenge.0.as_str(), code.0);
        let (tokens, recovery_codes) =
            second_factor::complete_sign_in(&self.app, &visitor, presented, remembers).await?;
        let tokens = token_answer(&self.app, &visitor, tokens, cookies);
        Ok(ok(SecondFactorAnswer { tokens, recovery_codes }))
    }

    /// Set up a second factor while signing in
    ///
    /// For members whose organization requires a second factor and who have none. Each call invalidates the previous
    /// secret.
    #[oai(path = "/auth/second-factor/enrol", method = "post", operation_id = "enrol_second_factor")]
    async fn enrol_second_factor(&self, visitor: Visitor, body: Body<EnrolRequest>) -> Reply<FactorSecret> {
        Ok(ok(second_factor::enrol(&self.app, &visitor, &body.0.challenge).await?.into()))
    }

    /// Get your second factor
    ///
    /// Whether a second factor is set up, and how many recovery codes are left.
    #[oai(path = "/me/second-factor", method = "get", operation_id = "get_my_second_factor")]
    async fn get_my_second_factor(&self, caller: MemberCaller) -> Reply<SecondFactorView> {
        let member = caller.signed_in()?;
        let state = self.app.read(move |r| second_factor::state(r, member)).await?;
        Ok(ok(SecondFactorView {
            enabled: state.confirmed_at.is_some(),
            confirmed_at: state.confirmed_at.map(|at| at.0),
            recovery_codes_left: state.recovery_codes_left,
            required: self.app.snapshot().requires_second_factor(member),
        }))
    }

    /// Set up a second factor
    ///
    /// The second factor becomes active when `/me/second-factor/confirm` receives a first code. Each call invalidates
    /// the previous secret.
    #[oai(path = "/me/second-factor", method = "post", operation_id = "begin_my_second_factor")]
    async fn begin_my_second_factor(
        &self,
        request: &Request,
        caller: MemberCaller,
        body: OptionalBody<BeginSecondFactor>,
    ) -> Reply<FactorSecret> {
        let member = caller.signed_in()?;
        let password = body.read(request).await?.and_then(|body| body.password).map(|text| text.0);
        Ok(ok(second_factor::begin(&self.app, &caller, member, password).await?.into()))
    }

    /// Activate your second factor
    ///
    /// Send the first code of the authenticator app. Ends every other session of the member.
    #[oai(path = "/me/second-factor/confirm", method = "post", operation_id = "confirm_my_second_factor")]
    async fn confirm_my_second_factor(
        &self,
        caller: MemberCaller,
        body: Body<SecondFactorCode>,
    ) -> Reply<RecoveryCodes> {
        let member = caller.signed_in()?;
        let recovery_codes = second_factor::confirm(&self.app, &caller, member, body.0.code.0).await?;
        Ok(ok(RecoveryCodes { recovery_codes }))
    }

    /// Replace your recovery codes
    ///
    /// Creates new recovery codes and invalidates the previous ones.
    #[oai(path = "/me/second-factor/recovery-codes", method = "post", operation_id = "renew_my_recovery_codes")]
    async fn renew_my_recovery_codes(
        &self,
        caller: MemberCaller,
        body: Body<SecondFactorCode>,
    ) -> Reply<RecoveryCodes> {
        let member = caller.signed_in()?;
        let recovery_codes = second_factor::renew_recovery_codes(&self.app, &caller, member, body.0.code.0).await?;
        Ok(ok(RecoveryCodes { recovery_codes }))
    }

    /// Remove your second factor
    ///
    /// Rejected while an organization of the member requires one. Ends every other session of the member.
    #[oai(path = "/me/second-factor/remove", method = "post", operation_id = "remove_my_second_factor")]
    async fn remove_my_second_factor(&self, caller: MemberCaller, body: Body<SecondFactorCode>) -> EmptyReply {
        second_factor::remove(&self.app, &caller, caller.signed_in()?, body.0.code.0).await?;
        Ok(done())
    }

    /// Remove a member's second factor
    ///
    /// For members who lost their authenticator and recovery codes. Ends all sessions of the member. Allowed for
    /// platform administrators, and for administrators of the only organization that the member belongs to. Rejected
    /// for a member who holds more rights than the caller, and for the caller's own second factor.
    #[oai(path = "/admin/members/:id/second-factor", method = "delete", operation_id = "reset_second_factor")]
    async fn reset_second_factor(&self, caller: MemberCaller, id: Path<MemberId>) -> EmptyReply {
        let reset = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_RESET_FACTOR)?;
            require_visible(t.snapshot(), reach, id.0)?;
            members::get(t, id.0)?;
            if caller.member() == Some(id.0) {
                // A stolen token must not be enough to remove the second factor that protects the account.
                let message = "remove your own second factor with a code, at /me/second-factor/remove";
                return Err(Error::new(ErrorCode::Forbidden).with_message(message));
            }
            require_may_change(t, caller, reach, id.0)?;
            let changes = second_factor::reset(t, id.0)?;
            let after = json!({"sessions_ended": changes.len()});
            let entry = Entry::new("member", id.0).within(reach.organization()).after(after);
            Ok(Changed::new((), entry).with_policy_changes(changes))
        };
        let removed = self.app.change(&caller, "second_factor.reset", reset).await?;
        Ok(done().epoch(removed.epoch))
    }
}
