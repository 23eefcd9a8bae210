//! Passwords.

pub mod changes;
pub mod hashes;
pub mod links;
pub mod throttling;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::counterparts::Smtp;
use crate::harness::site::Site;

pub const OTHER: &str = "Another-horse-8";

/// Settings for mail by this server, without TLS.
pub fn mailing(smtp: &Smtp) -> String {
    format!(
        "mail.host = \"127.0.0.1\"\nmail.port = {}\nmail.security = \"none\"\nmail.from = \"Roster <roster@example.org>\"\n",
        smtp.port
    )
}

pub fn plain_smtp() -> Smtp {
    Smtp::start(json!({"tls": "none"}))
}

/// A response body without the fields that differ for every request.
pub fn lasting(reply: &Reply) -> Value {
    let mut body = reply.body.clone();
    body["request_id"] = Value::Null;
    body
}

/// Changes rows beside the server.
pub fn meddle(site: &Site, sql: &str) {
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    rows.execute_batch(sql).expect("the change");
}

/// Waits until the condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn login(caller: &As<'_>, login: &str, password: &str) -> Reply {
    caller.post("/auth/login", json!({"login": login, "password": password})).await
}

pub async fn link_for(caller: &As<'_>, uid: &str) -> Value {
    caller.post(&format!("/admin/members/{uid}/password-link"), json!({})).await.data()
}

pub async fn reset(site: &Site, token: &Value, password: &str) -> Reply {
    site.nobody().post("/auth/password/reset", json!({"token": token, "new_password": password})).await
}
