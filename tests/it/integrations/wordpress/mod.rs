//! WordPress.

mod application_passwords;
pub mod comparison;
mod events;
mod must_use_plugin;
mod status;
mod tickets;

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::{Value, json};

use crate::harness::callers::Reply;
use crate::harness::counterparts::{Person, WordPress};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::stub_server::NOWHERE;

pub const SECRET: &str = "a-ticket-secret-for-tests-without-a-site";

/// A site that is configured for a WordPress that does not exist or misbehaves.
pub async fn site_of(url: &str, more: &str) -> Site {
    site_with(url, SECRET, more).await
}

/// A site that is configured for the real WordPress.
pub async fn site_at(wordpress: &WordPress, more: &str) -> Site {
    site_with(&wordpress.url, &wordpress.ticket_secret, more).await
}

async fn site_with(url: &str, secret: &str, more: &str) -> Site {
    // Read at every start of a server, so it must exist until all tests are over.
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a directory"));
    let file = folder.path().join(hex::encode(&secret::hash(secret)[..8]));
    // Another server may read the file at the same time, so it is replaced atomically.
    let written = tempfile::NamedTempFile::new_in(folder.path()).expect("a file");
    std::fs::write(written.path(), secret).expect("the secret");
    written.persist(&file).expect("in its place");
    let file = file.display();
    Site::with(&format!("wordpress.url = \"{url}\"\nwordpress.ticket_secret_file = \"{file}\"\n{more}")).await
}

pub async fn sign_in(site: &Site, login: &str, password: &str) -> Reply {
    site.nobody().post("/auth/wordpress", json!({"username": login, "application_password": password})).await
}

pub async fn redeem(site: &Site, ticket: &str) -> Reply {
    site.nobody().post("/auth/wordpress/ticket", json!({"ticket": ticket})).await
}

pub async fn map(organization: &Organization<'_>, external_key: &str, role: &str) {
    organization.role(role, &[]).await;
    organization.map("wordpress", external_key, role).await;
}

/// Keys of the roles that the member with this token holds in an organization.
pub async fn roles(organization: &Organization<'_>, token: &str) -> Vec<String> {
    let me = organization.site.bearer(token).get("/me").await.data();
    let uid = me["uid"].as_str().expect("uid").to_owned();
    let path = format!("/api/v1/permissions/users/{uid}/roles");
    let held = organization.admin().get(&path).await.data();
    let mut keys: Vec<String> = held["user_roles"]
        .as_array()
        .expect("roles")
        .iter()
        .map(|r| r["role_key"].as_str().expect("key").to_owned())
        .collect();
    keys.sort();
    keys
}

/// Creates an account at WordPress as its administrator.
pub async fn new_person(wordpress: &WordPress, role: &str) -> (String, Person) {
    let login = format!("p{}", uuid::Uuid::now_v7().simple());
    let email = format!("{login}@example.org");
    let password = "Pass-word-7";
    let body = json!({"username": login, "email": email, "password": password, "name": "New Person", "roles": [role]});
    let made = administer(wordpress, "", body).await;
    let id = made["id"].as_i64().expect("id");
    let made = administer(wordpress, &format!("/{id}/application-passwords"), json!({"name": "roster"})).await;
    let application_password = made["password"].as_str().expect("password").to_owned();
    (login, Person { id, email, password: password.into(), application_password })
}

pub async fn administer(wordpress: &WordPress, path: &str, body: Value) -> Value {
    let url = format!("{}/wp-json/wp/v2/users{path}", wordpress.url);
    let admin = &wordpress.person("admin").application_password;
    let request = crate::harness::counterparts::http().post(url).basic_auth("admin", Some(admin)).json(&body);
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("text"));
    answer.json().await.expect("JSON")
}

/// A ticket like the plugin's, with changes.
pub fn issue(changes: &Value) -> String {
    let now = Timestamp::now().0 / 1_000;
    let mut claims = json!({"v": 1, "site": NOWHERE, "id": 4_000_000, "login": "forger", "email": "", "name": "",
        "roles": [], "iat": now, "exp": now + 60, "jti": uuid::Uuid::now_v7().simple().to_string()});
    for (name, value) in changes.as_object().expect("changes") {
        claims[name] = value.clone();
    }
    sealed(&claims, SECRET)
}

pub fn sealed(claims: &Value, key: &str) -> String {
    let body = URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("{body}.{}", hex::encode(secret::signature(key, &body)))
}
