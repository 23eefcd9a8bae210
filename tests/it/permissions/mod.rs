//! Permissions: the fifteen operations of the gateway definition, and ours.

mod assignments;
mod catalog;
pub mod checks;
mod decision_log;
mod decisions;
pub mod deferred_grants;
mod delegation;
mod grants;
pub mod mappers;
mod mappings;
mod no_more_than_held;
mod previews;
mod reload;
mod roles;
mod service_catalogs;
mod tenants;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::callers::Reply;
use crate::harness::organizations::Organization;

pub const P: &str = "/api/v1/permissions";

pub const CHECK: &str = "/api/v1/permissions/check";
pub const DECISIONS: &str = "/api/v1/permissions/decisions";
pub const NOT_FOUND: u64 = 31_301_000;
pub const EXISTS: u64 = 31_303_000;
pub const SYSTEM: u64 = 31_309_000;
pub const FORBIDDEN: u64 = 31_505_000;
pub const BAD_INPUT: u64 = 10_101_000;
pub const NOT_HELD: u64 = 31_505_000;
pub const BAD_CATALOG: u64 = 31_101_000;
pub const NO_ORGANIZATION: u64 = 31_301_000;
pub const UNKNOWN_TENANT: u64 = 31_501_000;

/// The names of an object's fields, sorted.
pub fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// One field of each item of a list.
pub fn each<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list.as_array().expect("a list").iter().map(|item| item[field].as_str().expect("text")).collect()
}

pub fn role_url(id: &str) -> String {
    format!("{P}/roles/{id}")
}

pub fn ticks_url(role: &str) -> String {
    format!("{P}/roles/{role}/permissions")
}

pub fn roles_url(uid: &str) -> String {
    format!("{P}/users/{uid}/roles")
}

pub fn sync_url(uid: &str) -> String {
    format!("{P}/users/{uid}/roles/sync")
}

/// A small catalog: two categories with their permissions.
pub fn videos() -> Value {
    json!([
        {"name": "video"},
        {"name": "video.list", "parent": "video", "http_methods": "GET", "http_path": "/videos", "type": "frontend_user"},
        {"name": "video.item", "parent": "video", "http_methods": "GET", "http_path": "/videos/:id"},
        {"name": "video.item.delete", "parent": "video.item", "http_methods": "DELETE", "http_path": "/videos/:id"},
        {"name": "report"},
        {"name": "report.read", "parent": "report", "http_methods": "GET", "http_path": "/reports", "status": "close"},
    ])
}

pub async fn ticks(organization: &Organization<'_>, role: &str) -> BTreeSet<String> {
    let held = organization.admin().get(&ticks_url(role)).await.data();
    each(&held["permissions"], "id").into_iter().map(str::to_owned).collect()
}

pub async fn keys_of(organization: &Organization<'_>, uid: &str) -> BTreeSet<(String, String)> {
    let held = organization.admin().get(&roles_url(uid)).await.data();
    let text = |role: &Value, field: &str| role[field].as_str().expect("text").to_owned();
    held["user_roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|role| (text(role, "role_key"), text(role, "source")))
        .collect()
}

pub async fn holds(organization: &Organization<'_>, uid: &str, permission: &str) -> bool {
    organization.check(json!({"uid": uid, "permission": permission})).await["allow"] == true
}

pub async fn map(organization: &Organization<'_>, source: &str, key: &str, role: &str) -> Reply {
    let body = json!({"external_source": source, "external_key": key, "internal_role_key": role});
    organization.admin().put(&format!("{P}/role-mappings"), body).await
}
