//! API keys of members and services.

use std::sync::Arc;

use crate::access::caller::Exchange;
use crate::access::key::ApiKey;
use crate::app::App;
use crate::error::{Cause, Result};

/// Uses an emergency key up; the second of two at the same time is refused.
pub async fn spend(_app: &App, _exchange: &Arc<Exchange>, _key: &ApiKey) -> Result<()> {
    Err(Cause::InvalidKey.into())
}
