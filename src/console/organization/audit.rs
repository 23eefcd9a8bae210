//! The audit log of an organization.

use maud::Markup;
use serde_json::Value;

use crate::console::audit;
use crate::console::visit::{View, Visit};
use crate::kernel::error::Result;

/// Shows the entries of the organization.
pub async fn list(visit: &Visit) -> Result<View> {
    audit::show(visit).await
}

/// The result of `verify_audit`, for the page of its task.
pub fn task_result(visit: &Visit, task: &Value) -> Markup {
    audit::task_result(visit, task)
}
