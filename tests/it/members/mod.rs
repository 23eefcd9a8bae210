//! Members and their organizations.

mod activity;
mod erasing;
mod import;
mod invitations;
mod limits;
mod memberships;
mod organizations;
mod search;
mod seen;
mod services;
mod updates;
mod users;
mod visibility;

use serde_json::Value;

use crate::harness::site::Site;

/// A valid id that no row has.
pub const NOBODYS_ID: &str = "019abcde-0000-7000-8000-00000000dead";

pub async fn audit_total(site: &Site, action: &str) -> Value {
    site.admin().get(&format!("/admin/audit?action={action}")).await.data()["total"].clone()
}
