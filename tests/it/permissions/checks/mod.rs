//! Decisions over HTTP: `POST /check`.

mod explanations;
mod gates;
mod questions;
mod routes;

use serde_json::{Value, json};

use crate::harness::organizations::Organization;
use crate::harness::site::Site;

/// A question about a route.
pub fn route(uid: &str, method: &str, path: &str) -> Value {
    json!({"uid": uid, "method": method, "path": path})
}

pub fn right(uid: &str, scope_type: &str, scope_id: &str) -> Value {
    json!({"uid": uid, "scope_type": scope_type, "scope_id": scope_id, "module": "cameras", "action": "view"})
}

pub async fn reason(organization: &Organization<'_>, question: Value) -> String {
    let decision = organization.check(question).await;
    let word = decision["reason"].as_str().expect("a reason").to_owned();
    assert_eq!(decision["allow"], json!(word.starts_with("ok_")), "{decision}");
    word
}

pub async fn reasons(organization: &Organization<'_>, uid: &str, questions: &[(&str, &str, &str)]) {
    let mut answers = Vec::new();
    for (method, path, _) in questions {
        answers.push((*method, *path, reason(organization, route(uid, method, path)).await));
    }
    let answers: Vec<(&str, &str, &str)> =
        answers.iter().map(|(method, path, reason)| (*method, *path, reason.as_str())).collect();
    assert_eq!(answers, questions);
}

pub async fn grant(site: &Site, body: Value) {
    site.admin().post("/admin/permissions/grant", body).await.done();
}

/// A catalog with a specific template under an umbrella.
pub fn files() -> Value {
    json!([
        {"name": "one", "http_methods": "GET", "http_path": "/files/:id"},
        {"name": "export", "http_methods": "POST", "http_path": "/files/export"},
        {"name": "all", "http_methods": "GET|POST|DELETE", "http_path": "/files/*rest"},
        {"name": "star", "http_methods": "*", "http_path": "/dav/{name}"},
        {"name": "probe", "http_methods": "HEAD", "http_path": "/probe"},
        {"name": "read", "http_methods": "GET", "http_path": "/probe"},
        {"name": "root", "http_methods": "GET", "http_path": "/"},
    ])
}
