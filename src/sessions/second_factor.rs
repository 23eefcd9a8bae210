//! The second factor: one-time codes of an authenticator app, and recovery codes.

use serde_json::json;

use super::store;
use crate::access::secret;
use crate::app::{Transaction, ms};
use crate::config::Config;
use crate::db::Reader;
use crate::error::{Cause, Error, Result};
use crate::ids::MemberId;

/// Has the member a second factor that works?
pub fn is_confirmed(r: &Reader<'_>, member: MemberId) -> Result<bool> {
    store::has_second_factor(r, member)
}

/// Remembers a sign-in that waits for its second factor.
pub fn insert_challenge(
    t: &Transaction<'_>,
    challenge: &str,
    member: MemberId,
    method: &str,
    config: &Config,
) -> Result<()> {
    let data = json!({"method": method}).to_string();
    let until = t.now().plus_ms(ms(config.second_factor_wait_s));
    store::insert_token(t, &secret::hash(challenge), "second_factor", Some(member), Some(&data), until)
}

/// What is answered instead of tokens.
pub fn due(challenge: String, is_enrolled: bool) -> Error {
    let cause = if is_enrolled { Cause::SecondFactorRequired } else { Cause::EnrolmentRequired };
    Error::new(cause).challenge(challenge)
}
