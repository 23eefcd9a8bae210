//! Mappings of external keys to roles, and the sync of a member's roles.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    BAD_INPUT, NO_ORGANIZATION, NOT_FOUND, P, SYSTEM, each, fields, keys_of, map, role_url, roles_url, sync_url, videos,
};
use crate::harness::site::Site;

// ── mappings ──

#[tokio::test]
async fn a_mapping_has_the_fields_of_the_definition_and_is_replaced_not_duplicated() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (editor, author) = (acme.role("editor", &[]).await, acme.role("author", &[]).await);
    acme.owner().get(&role_url(&editor)).await.done();

    let first = map(&acme, "zitadel", "staff", "editor").await.data();
    let second = map(&acme, "zitadel", "staff", "author").await.data();

    let all = [
        "create_at",
        "external_key",
        "external_source",
        "id",
        "internal_role_id",
        "internal_role_key",
        "tenant_id",
        "update_at",
    ];
    assert_eq!(fields(&first), all);
    assert_eq!((&first["external_source"], &first["external_key"]), (&json!("zitadel"), &json!("staff")));
    assert_eq!((&first["internal_role_key"], &first["internal_role_id"]), (&json!("editor"), &json!(editor)));
    assert_eq!((&second["id"], &second["create_at"]), (&first["id"], &first["create_at"]));
    assert_eq!((&second["internal_role_key"], &second["internal_role_id"]), (&json!("author"), &json!(author)));
    let list = acme.owner().get(&format!("{P}/role-mappings")).await.data();
    assert_eq!(list, json!({"mappings": [second], "total": 1, "offset": 0, "limit": 50}));
}

#[tokio::test]
async fn mappings_are_listed_by_source_and_in_pages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    for (source, key) in [("ldap", "a"), ("ldap", "b"), ("ldap", "c"), ("scim", "a"), ("zitadel", "a")] {
        map(&acme, source, key, "editor").await.done();
    }
    let get = async |query: &str| acme.owner().get(&format!("{P}/role-mappings?{query}")).await;

    let page = get("source=ldap&limit=2&offset=1").await.data();
    assert_eq!(each(&page["mappings"], "external_key"), ["b", "c"]);
    assert_eq!((&page["total"], &page["offset"], &page["limit"]), (&json!(3), &json!(1), &json!(2)));
    assert_eq!(get("").await.data()["total"], json!(5));
    assert_eq!(get("limit=1000").await.data()["limit"], json!(200));
    assert_eq!(get("source=fax&limit=x").await.is(BAD_INPUT).fields(), ["query.limit", "query.source"]);
}

#[tokio::test]
async fn a_mapping_is_deleted_by_body_or_by_query() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    map(&acme, "ldap", "a b&c", "editor").await.done();
    map(&acme, "ldap", "d", "editor").await.done();
    let (owner, url) = (acme.owner(), format!("{P}/role-mappings"));
    let body = json!({"external_source": "ldap", "external_key": "d"});

    owner.delete(&format!("{url}?external_source=ldap&external_key=a%20b%26c")).await.done();
    owner.send(Method::DELETE, &url, Some(body.clone())).await.done();
    let gone = owner.send(Method::DELETE, &url, Some(body)).await;
    assert_eq!(gone.is(NOT_FOUND).word(), "mapping_not_found");
    assert_eq!(owner.get(&url).await.data()["total"], json!(0));
    owner.delete(&url).await.is(BAD_INPUT);
    let faulty = owner.send(Method::DELETE, &url, Some(json!({"external_source": "fax", "x": 1}))).await;
    assert_eq!(faulty.is(BAD_INPUT).fields(), ["body.external_key", "body.external_source", "body.x"]);
}

#[tokio::test]
async fn a_mapping_names_neither_the_owner_role_nor_an_unknown_role() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    map(&acme, "ldap", "boss", "tenant_owner").await.is(SYSTEM);
    assert_eq!(map(&acme, "ldap", "boss", "nowhere").await.is(NOT_FOUND).word(), "role_not_found");
    assert_eq!(map(&acme, "manual", "staff", "viewer").await.is(BAD_INPUT).fields(), ["body.external_source"]);
    assert_eq!(acme.owner().get(&format!("{P}/role-mappings")).await.data()["total"], json!(0));
}

// ── sync ──

#[tokio::test]
async fn a_sync_changes_only_assignments_of_its_own_source() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    for key in ["one", "two", "three"] {
        let role = acme.role(key, &[]).await;
        map(&acme, "ldap", key, key).await.done();
        for source in ["manual", "scim"] {
            acme.owner().post(&roles_url(&member.uid), json!({"role_id": role, "source": source})).await.done();
        }
    }
    let others = keys_of(&acme, &member.uid).await;
    let sync = async |keys: Value| {
        acme.owner().post(&sync_url(&member.uid), json!({"source": "ldap", "external_keys": keys})).await.data()
    };

    assert_eq!(
        sync(json!(["one", "two"])).await,
        json!({"added": ["one", "two"], "removed": [], "kept": [], "unknown": []})
    );
    assert_eq!(
        sync(json!(["two", "three"])).await,
        json!({"added": ["three"], "removed": ["one"], "kept": ["two"], "unknown": []})
    );
    assert_eq!(sync(json!([])).await, json!({"added": [], "removed": ["three", "two"], "kept": [], "unknown": []}));
    assert_eq!(keys_of(&acme, &member.uid).await, others);
}

#[tokio::test]
async fn a_dry_sync_reports_the_changes_and_makes_none() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("one", &[]).await, acme.member().await);
    acme.role("two", &[]).await;
    map(&acme, "scim", "two", "two").await.done();
    acme.owner().post(&roles_url(&member.uid), json!({"role_id": role, "source": "scim"})).await.done();
    let before = site.last_audit_entry().await["id"].clone();

    let body = json!({"source": "scim", "external_keys": ["two"], "dry_run": true});
    let synced = acme.owner().post(&sync_url(&member.uid), body).await.data();

    assert_eq!(synced, json!({"added": ["two"], "removed": ["one"], "kept": [], "unknown": []}));
    assert_eq!(keys_of(&acme, &member.uid).await, [("one".into(), "scim".into())].into());
    assert_eq!(site.last_audit_entry().await["id"], before);
}

#[tokio::test]
async fn a_sync_skips_closed_roles() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("one", &[]).await, acme.member().await);
    map(&acme, "oidc", "one", "one").await.done();
    acme.owner().patch(&role_url(&role), json!({"status": "close"})).await.done();

    let synced =
        acme.owner().post(&sync_url(&member.uid), json!({"source": "oidc", "external_keys": ["one"]})).await.data();

    assert_eq!(synced, json!({"added": [], "removed": [], "kept": [], "unknown": []}));
    assert_eq!(keys_of(&acme, &member.uid).await.len(), 0);
}

#[tokio::test]
async fn a_client_with_the_scope_syncs_in_the_tenant_it_names() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    acme.role("one", &["video.list"]).await;
    map(&acme, "ldap", "one", "one").await.done();
    let client = site.client(&["permissions:write"]).await;
    let body = json!({"source": "ldap", "external_keys": ["one"]});

    assert_eq!(
        client.clone().post(&sync_url(&member.uid), body.clone()).await.is(BAD_INPUT).fields(),
        ["header.X-Tenant-ID"]
    );
    client.clone().with("x-tenant-id", "nowhere").post(&sync_url(&member.uid), body.clone()).await.is(NO_ORGANIZATION);
    client.with("x-tenant-id", "acme").post(&sync_url(&member.uid), body).await.done();
    assert_eq!(keys_of(&acme, &member.uid).await, [("one".into(), "ldap".into())].into());
}

#[tokio::test]
async fn invalid_syncs_are_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let sync = async |uid: &str, body: Value| acme.owner().post(&sync_url(uid), body).await;

    assert_eq!(
        sync(&member.uid, json!({"source": "manual", "external_keys": []})).await.is(BAD_INPUT).fields(),
        ["body.source"]
    );
    assert_eq!(
        sync("no-id", json!({"source": "ldap", "external_keys": []})).await.is(NOT_FOUND).word(),
        "subject_not_found"
    );
    assert_eq!(sync(&member.uid, json!({"source": "ldap"})).await.is(BAD_INPUT).fields(), ["body.external_keys"]);
    let many: Vec<String> = (0..1_001).map(|n| format!("key{n}")).collect();
    sync(&member.uid, json!({"source": "ldap", "external_keys": many})).await.is(BAD_INPUT);
    assert_eq!(
        sync(&member.uid, json!({"source": "ldap", "external_keys": many[1..]})).await.data()["unknown"]
            .as_array()
            .map(Vec::len),
        Some(1_000)
    );
}
