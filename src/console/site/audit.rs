//! The audit log of the whole site, and the verification of its hash chain.

use crate::console::audit;
use crate::console::visit::{View, Visit};
use crate::kernel::error::Result;

/// Shows the entries of all organizations.
pub async fn list(visit: &Visit) -> Result<View> {
    audit::show(visit).await
}

/// Verifies the hash chain.
pub async fn act(visit: &Visit) -> Result<View> {
    audit::act(visit).await
}
