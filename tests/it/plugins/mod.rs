//! Plugins of an organization.

mod activation;
mod commands;
pub mod decisions;
mod failures;
mod hostile;
mod replay;
mod uploads;

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::organizations::Organization;
use crate::harness::wasm_fixtures::{allowing, denying};

/// Uploads a component.
pub async fn upload(caller: &As<'_>, name: &str, component: Vec<u8>) -> Reply {
    let path = format!("/api/v1/plugins?name={name}");
    caller.send_raw(reqwest::Method::POST, &path, "application/wasm", component).await
}

pub async fn activate(caller: &As<'_>, name: &str, body: Value) -> Reply {
    caller.post(&format!("/api/v1/plugins/{name}/activate"), body).await
}

/// Uploads a component and activates it with this body. Returns the epoch of the activation.
pub async fn put(caller: &As<'_>, name: &str, component: Vec<u8>, mut how: Value) -> u64 {
    how["version"] = upload(caller, name, component).await.data()["version"].take();
    let activated = activate(caller, name, how).await;
    activated.done();
    activated.epoch()
}

pub async fn rollback(caller: &As<'_>, name: &str) -> Reply {
    caller.post(&format!("/api/v1/plugins/{name}/rollback"), json!({})).await
}

pub async fn deactivate(caller: &As<'_>, name: &str) -> Reply {
    caller.post(&format!("/api/v1/plugins/{name}/deactivate"), json!({})).await
}

pub async fn dry_run(caller: &As<'_>, name: &str, body: Value) -> Reply {
    caller.post(&format!("/api/v1/plugins/{name}/dry-run"), body).await
}

pub async fn get_plugin(caller: &As<'_>, name: &str) -> Value {
    caller.get(&format!("/api/v1/plugins/{name}")).await.data()
}

pub fn enforce(version: u32) -> Value {
    json!({"version": version, "mode": "enforce"})
}

/// The states of all versions.
pub fn states(plugin: &Value) -> Vec<&str> {
    plugin["versions"].as_array().expect("versions").iter().map(|v| v["state"].as_str().expect("state")).collect()
}

/// The versions in force with their modes, and the versions kept for a rollback.
pub fn in_force(plugin: &Value) -> (Vec<(u64, &str)>, Vec<u64>) {
    let number = |activation: &Value| activation["version"].as_u64().expect("a version");
    let bound = plugin["activations"].as_array().expect("activations").iter();
    (
        bound.map(|one| (number(one), one["mode"].as_str().expect("mode"))).collect(),
        plugin["history"].as_array().expect("history").iter().map(number).collect(),
    )
}

pub async fn three_versions(acme: &Organization<'_>) {
    for guest in [denying("one"), denying("two"), allowing()] {
        upload(&acme.owner(), "hours", guest).await.done();
    }
}
