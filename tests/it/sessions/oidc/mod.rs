//! Sign-in with OpenID Connect providers.

mod claims;
mod invalid_requests;
mod misbehaviour;
mod provider_tokens;
mod sign_in;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::counterparts::{CLIENT_SECRET, Oidc, query};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;

pub const REDIRECT: &str = "http://127.0.0.1:9/callback";
/// The binding value of the sign-ins in these tests, which no browser makes.
pub const BINDING: &str = "a-value-that-the-program-of-a-portal-keeps";
pub const AUDIENCE: &str = "https://roster.example.org";

/// A file with the client's secret, which every command on a site's directory reads.
fn secret_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc-client.secret");
        std::fs::write(
            &path,
            format!(
                "{CLIENT_SECRET}
"
            ),
        )
        .expect("written");
        path
    })
}

/// A block of settings; `more` are further lines of it.
pub fn block(name: &str, issuer: &str, more: &str) -> String {
    format!(
        "[[oidc]]\nname = {name:?}\nissuer = {issuer:?}\nclient_id = \"roster\"\nclient_secret_file = {:?}\n\
         redirect_uris = [{REDIRECT:?}]\n{more}\n",
        secret_file()
    )
}

/// A certified provider, and a site that is configured for it as `lab`.
pub async fn lab(mut config: Value, settings: &str, more: &str) -> (Oidc, Site) {
    config["clients"] = json!([{"client_id": "roster", "redirect_uris": [REDIRECT]}]);
    let oidc = Oidc::start(config);
    let site = Site::with(&format!("{settings}\n{}", block("lab", &oidc.issuer, more))).await;
    (oidc, site)
}

pub async fn authorize_url(site: &As<'_>, provider: &str) -> String {
    let path = format!("/auth/oidc/url?provider={provider}&redirect_uri={REDIRECT}&binding={BINDING}");
    site.get(&path).await.data()["authorize_url"].as_str().expect("a URL").to_owned()
}

pub fn returned(provider: &str, code: &str, state: &str) -> Value {
    json!({"provider": provider, "code": code, "state": state, "redirect_uri": REDIRECT, "binding": BINDING})
}

/// The parameters of the callback after `login` signed in at the provider.
pub async fn come_back(oidc: &Oidc, site: &Site, login: &str) -> Value {
    let url = authorize_url(&site.nobody(), "lab").await;
    let callback = oidc.sign_in(&url, login, REDIRECT).await;
    returned("lab", &query(&callback, "code").expect("a code"), &query(&callback, "state").expect("a state"))
}

pub async fn sign_in(oidc: &Oidc, site: &Site, login: &str) -> Reply {
    site.nobody().post("/auth/oidc/exchange", come_back(oidc, site, login).await).await
}

pub async fn me(site: &Site, token: &str) -> Value {
    site.bearer(token).get("/me").await.data()
}

/// The numbers of members and identities.
pub fn people(site: &Site) -> (i64, i64) {
    let count = |table: &str| {
        site.rows().query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).expect("a number")
    };
    (count("members"), count("identities"))
}

pub fn audit_rows(site: &Site) -> i64 {
    site.rows().query_row("select count(*) from audit", [], |row| row.get(0)).expect("a number")
}

/// The roles that a member holds in an organization, as `source:key`.
pub async fn roles(organization: &Organization<'_>, uid: &Value) -> Vec<String> {
    let path = format!("/api/v1/permissions/users/{}/roles", uid.as_str().expect("uid"));
    let held = organization.admin().get(&path).await.data()["user_roles"].as_array().expect("roles").clone();
    let text = |role: &Value, name: &str| role[name].as_str().expect("text").to_owned();
    let mut found: Vec<String> =
        held.iter().map(|role| format!("{}:{}", text(role, "source"), text(role, "role_key"))).collect();
    found.sort();
    found
}
