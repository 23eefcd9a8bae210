//! Role mappers in the sync.

mod answers;
mod changes_during_a_call;
mod failures;
mod sign_ins;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::permissions::{P, sync_url};
use crate::plugins::put;

pub const PLUGINS: &str = "/api/v1/plugins";

/// Uploads and enforces a component. Returns the epoch of the activation.
pub async fn enforce(organization: &Organization<'_>, plugin: &str, component: &[u8]) -> u64 {
    put(&organization.owner(), plugin, component.to_vec(), json!({"mode": "enforce"})).await
}

/// The metrics of an enforced or watched plugin since its activation.
pub async fn figures(organization: &Organization<'_>, plugin: &str, mode: &str) -> Value {
    let plugin = organization.owner().get(&format!("{PLUGINS}/{plugin}")).await.data();
    let activations = plugin["activations"].as_array().expect("activations");
    activations.iter().find(|activation| activation["mode"] == mode).expect("an activation")["figures"].clone()
}

pub fn sha256(component: &[u8]) -> String {
    hex::encode(Sha256::digest(component))
}

/// Syncs the source `ldap` as the owner.
pub async fn sync(organization: &Organization<'_>, uid: &str, keys: Value) -> Value {
    let body = json!({"source": "ldap", "external_keys": keys});
    organization.owner().post(&sync_url(uid), body).await.data()
}

/// The roles of a member, as `source:key`.
pub async fn roles(organization: &Organization<'_>, uid: &str) -> Vec<String> {
    let held = organization.admin().get(&format!("{P}/users/{uid}/roles")).await.data();
    let text = |role: &Value, name: &str| role[name].as_str().expect("text").to_owned();
    let held = held["user_roles"].as_array().expect("roles").clone();
    let mut found: Vec<String> =
        held.iter().map(|role| format!("{}:{}", text(role, "source"), text(role, "role_key"))).collect();
    found.sort();
    found
}

/// An organization with these roles, which hold no permissions.
pub async fn organization<'s>(site: &'s Site, org_code: &str, keys: &[&str]) -> Organization<'s> {
    let organization = site.organization(org_code).await;
    for key in keys {
        organization.role(key, &[]).await;
    }
    organization
}

/// The outcome of the newest plugin call.
pub fn outcome(synced: &Value) -> &str {
    let plugins = synced["plugins"].as_array().unwrap_or_else(|| panic!("no plugins: {synced}"));
    plugins.last().expect("a plugin")["outcome"].as_str().expect("a word")
}
