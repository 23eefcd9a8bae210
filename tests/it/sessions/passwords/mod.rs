//! Passwords.

mod changes;
mod hashes;
mod links;
mod throttling;

use std::time::Duration;

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

/// Changes rows beside the server.
pub fn meddle(site: &Site, sql: &str) {
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    rows.execute_batch(sql).expect("the change");
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
