//! API keys of members and services.

mod authentication;
mod ownership;
mod validity;

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::organizations::Member;
use crate::harness::site::Site;

pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// A new key: its id and its text.
pub struct Key {
    pub id: String,
    pub text: String,
}

pub fn key_of(made: &Value) -> Key {
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    Key { id: text("id"), text: text("api_key") }
}

/// A new key that the member creates for itself.
pub async fn own(member: &Member<'_>, body: Value) -> Key {
    key_of(&member.caller().post("/me/api-keys", body).await.data())
}

pub async fn plain(member: &Member<'_>) -> Key {
    own(member, json!({"name": "laptop"})).await
}

/// A new key of a service.
pub async fn of_service(site: &Site, scopes: &[&str]) -> Key {
    let body = json!({"service_name": "transcoder", "scopes": scopes});
    key_of(&site.admin().post("/admin/api-keys", body).await.data())
}

pub fn with<'s>(site: &'s Site, text: &str) -> As<'s> {
    site.nobody().with("x-api-key", text)
}

pub async fn me(site: &Site, text: &str) -> Reply {
    with(site, text).get("/me").await
}

pub async fn is_refused(site: &Site, text: &str, why: &str) {
    let reply = me(site, text).await;
    assert_eq!((reply.is(32_501_000).status, reply.word()), (401, "invalid_key"), "{why}");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
