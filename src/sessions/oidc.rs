//! Sign-in with OpenID Connect providers.

use std::sync::Arc;

use crate::access::caller::Exchange;
use crate::app::App;
use crate::error::{Cause, Result};
use crate::ids::MemberId;

/// The member of a provider's own access token.
pub async fn member_of_bearer(_app: &App, _exchange: &Arc<Exchange>, _token: &str) -> Result<MemberId> {
    Err(Cause::InvalidBearer.into())
}
