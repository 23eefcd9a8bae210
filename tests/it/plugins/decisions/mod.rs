//! Decisions with the plugins of the organization.

mod effects;
mod facts;

use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::permissions::CHECK;
use crate::plugins::put;

/// A plugin to upload and activate.
pub struct Plug {
    pub name: &'static str,
    pub component: Vec<u8>,
    pub is_enforced: bool,
    pub may_grant: bool,
    pub filter: Value,
}

/// Enforced, without a filter, without the right to grant.
pub fn enforced(name: &'static str, component: Vec<u8>) -> Plug {
    Plug { name, component, is_enforced: true, may_grant: false, filter: json!({}) }
}

pub fn watched(name: &'static str, component: Vec<u8>) -> Plug {
    Plug { is_enforced: false, ..enforced(name, component) }
}

pub fn filtered(filter: Value, plug: Plug) -> Plug {
    Plug { filter, ..plug }
}

/// Uploads and activates plugins of organizations in this order. A plugin whose name exists becomes its next version.
pub async fn bind(site: &Site, plugs: Vec<(&str, Plug)>) {
    for (organization, plug) in plugs {
        let mode = if plug.is_enforced { "enforce" } else { "shadow" };
        let how = json!({"mode": mode, "may_grant": plug.may_grant, "filter": plug.filter});
        put(&admin(site, organization), plug.name, plug.component, how).await;
    }
}

pub fn permission(uid: &str, name: &str) -> Value {
    json!({"uid": uid, "permission": name})
}

/// Checks in an organization as the platform administrator.
pub async fn check(site: &Site, organization: &str, question: Value) -> Value {
    admin(site, organization).post(CHECK, question).await.data()
}

pub fn admin<'s>(site: &'s Site, organization: &str) -> As<'s> {
    site.admin().with("x-tenant-id", organization)
}

pub async fn explained(site: &Site, organization: &str, mut question: Value) -> Value {
    question["explain"] = json!(true);
    check(site, organization, question).await
}

/// Each plugin of an explanation as `name version outcome`.
pub fn plugin_outcomes(decision: &Value) -> Vec<String> {
    let text = |asked: &Value| {
        let word = |name: &str| asked[name].as_str().expect("text").to_owned();
        format!("{} {} {} {}", word("name"), asked["version"], word("mode"), word("outcome"))
    };
    decision["because"]["plugins"].as_array().expect("plugins").iter().map(text).collect()
}

/// A catalog with one closed entry.
pub fn documents() -> Value {
    json!([
        {"name": "doc"},
        {"name": "doc.read", "parent": "doc", "http_methods": "GET", "http_path": "/docs/:id"},
        {"name": "doc.edit", "parent": "doc", "http_methods": "PUT", "http_path": "/docs/:id"},
        {"name": "doc.old", "http_methods": "GET", "http_path": "/old", "status": "close"},
    ])
}

/// The ids of an organization, of a member who holds `doc.read` there, and of one without permissions.
pub struct Fixture {
    pub id: String,
    pub holder: String,
    pub other: String,
}

impl Fixture {
    pub async fn new(site: &Site, org_code: &str) -> Self {
        let organization = site.organization(org_code).await;
        let (holder, other) = (organization.member_with(&["doc.read"]).await.uid, organization.member().await.uid);
        Self { id: organization.id, holder, other }
    }

    pub fn organization<'s>(&self, site: &'s Site) -> Organization<'s> {
        Organization { site, id: self.id.clone(), owner_token: String::new() }
    }
}
