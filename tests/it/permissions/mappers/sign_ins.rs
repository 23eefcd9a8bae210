//! Role mappers at sign-ins.

use serde_json::{Value, json};

use super::{enforce, figures, organization, roles, sha256};
use crate::harness::counterparts::{CLIENT_SECRET, Oidc, query};
use crate::harness::site::Site;
use crate::harness::stub_server::{self, StubServer};
use crate::harness::wasm_fixtures;
use crate::sessions::oidc::REDIRECT;

/// A certified provider, and a site that is configured for it as `lab` with the role claim `groups`.
async fn lab(users: Value) -> (Oidc, Site) {
    let oidc = Oidc::start(json!({"users": users, "clients": [{"client_id": "roster", "redirect_uris": [REDIRECT]}]}));
    let secret = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("mapping-client.secret");
    std::fs::write(&secret, CLIENT_SECRET).expect("written");
    let site = Site::with(&format!(
        "[[oidc]]\nname = \"lab\"\nissuer = {:?}\nclient_id = \"roster\"\nclient_secret_file = {secret:?}\n\
         redirect_uris = [{REDIRECT:?}]\norganization = \"acme\"\nrole_claims = [\"groups\"]\n",
        oidc.issuer
    ))
    .await;
    (oidc, site)
}

/// Signs in with the provider and returns the member's uid.
async fn sign_in(oidc: &Oidc, site: &Site, login: &str) -> String {
    let binding = "a-value-that-the-program-of-a-portal-keeps";
    let url = format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={binding}");
    let url = site.nobody().get(&url).await.data()["authorize_url"].as_str().expect("a URL").to_owned();
    let callback = oidc.sign_in(&url, login, REDIRECT).await;
    let body = json!({
        "code": query(&callback, "code"), "state": query(&callback, "state"), "redirect_uri": REDIRECT,
        "binding": binding,
    });
    let tokens = site.nobody().post("/auth/oidc/exchange", body).await.data();
    let me = site.bearer(tokens["access_token"].as_str().expect("a token")).get("/me").await.data();
    me["uid"].as_str().expect("uid").to_owned()
}

#[tokio::test]
async fn a_sign_in_with_a_provider_calls_the_mappers_of_each_organization() {
    let alice = json!({"groups": ["roster:film", "staff"], "name": "Alice", "preferred_username": "alice",
        "email": "alice@example.org", "email_verified": true, "department": "sound"});
    let (oidc, site) = lab(json!({"alice": alice})).await;
    let acme = organization(&site, "acme", &["film", "sound", "by-table"]).await;
    let globex = organization(&site, "globex", &["by-table"]).await;
    acme.map("oidc", "staff", "by-table").await;
    globex.map("oidc", "staff", "by-table").await;
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/group-mapper/group-mapper.wasm");
    let shipped = std::fs::read(shipped).expect("the example");
    enforce(&acme, "groups", &shipped).await;

    // The first sign-in calls the mapper too, before the member exists.
    let uid = sign_in(&oidc, &site, "alice").await;
    assert_eq!(roles(&acme, &uid).await, ["oidc:by-table", "oidc:film"]);
    let after: String = site
        .rows()
        .query_row("select after from audit where action = 'member.arrive' and after like '%plugins%'", [], |row| {
            row.get(0)
        })
        .expect("an entry");
    let after: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!((&after["added"], &after["plugins"][0]["name"]), (&json!(["by-table", "film"]), &json!("groups")));
    assert_eq!(after["plugins"][0]["sha256"], sha256(&shipped));

    // The mapper gets every claim of the provider; another organization of the member uses its own table.
    globex.link(&uid).await;
    enforce(&acme, "groups", &wasm_fixtures::naming_claim("department", 9, 0)).await;
    assert_eq!(sign_in(&oidc, &site, "alice").await, uid);
    assert_eq!(roles(&acme, &uid).await, ["oidc:sound"]);
    assert_eq!(roles(&globex, &uid).await, ["oidc:by-table"]);

    // A failing mapper does not prevent the sign-in and removes no role here; in the other organization the table still
    // applies.
    oidc.set_user("alice", json!({"groups": []})).await;
    enforce(&acme, "groups", &wasm_fixtures::trapping_mapper()).await;
    assert_eq!(sign_in(&oidc, &site, "alice").await, uid);
    assert_eq!(roles(&acme, &uid).await, ["oidc:sound"]);
    assert_eq!(roles(&globex, &uid).await, [""; 0]);
    site.logged("a role mapper failed");
}

#[tokio::test]
async fn a_sign_in_with_wordpress_calls_no_mapper_of_an_inactive_organization() {
    let stub = StubServer::start(|_| {
        stub_server::json(200, &json!({"id": 7, "username": "kim", "name": "Kim", "roles": ["author", "editor"]}))
    });
    let settings = format!("wordpress.url = {:?}\nwordpress.organization = \"acme\"", stub.url);
    let site = Site::with(&settings).await;
    let acme = organization(&site, "acme", &["author", "editor"]).await;
    enforce(&acme, "first", &wasm_fixtures::naming_claim("roles", 1, 0)).await;
    let sign_in = async || {
        let body = json!({"username": "kim", "application_password": "x"});
        let tokens = site.nobody().post("/auth/wordpress", body).await.data();
        let me = site.bearer(tokens["access_token"].as_str().expect("a token")).get("/me").await.data();
        me["uid"].as_str().expect("uid").to_owned()
    };
    let status = async |word: &str| {
        site.admin().post(&format!("/admin/organizations/{}/{word}", acme.id), json!({})).await.done();
    };

    let uid = sign_in().await;
    assert_eq!(roles(&acme, &uid).await, ["wordpress:author"]);

    enforce(&acme, "first", &wasm_fixtures::naming(&["editor"])).await;
    status("deactivate").await;
    assert_eq!(sign_in().await, uid);
    status("activate").await;
    assert_eq!(roles(&acme, &uid).await, ["wordpress:author"]);
    assert_eq!(figures(&acme, "first", "enforce").await["calls"], json!({}));

    assert_eq!(sign_in().await, uid);
    assert_eq!(roles(&acme, &uid).await, ["wordpress:editor"]);
}
