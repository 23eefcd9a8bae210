//! Idempotency keys.

use serde_json::json;

use crate::harness::site::Site;

#[tokio::test]
async fn a_repeat_gets_the_same_answer_and_changes_nothing() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    let body = json!({"org_code": "acme", "name": "Acme"});

    let first = caller.post("/admin/organizations", body.clone()).await.data();
    let second = caller.post("/admin/organizations", body).await.data();

    assert_eq!(first, second);
    assert_eq!(site.admin().get("/admin/audit?action=organization.create").await.data()["total"], 1);
}

#[tokio::test]
async fn parallel_repeats_are_one_request() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    let posts = (0..8).map(|_| caller.post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})));

    let replies = futures_util::future::join_all(posts).await;

    let first = replies[0].data();
    assert!(replies.iter().all(|reply| reply.data() == first));
    assert_eq!(site.admin().get("/admin/organizations?keyword=acme").await.data()["total"], 1);
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_request() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    caller.post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})).await.done();

    let reused = caller.post("/admin/organizations", json!({"org_code": "globex", "name": "Globex"})).await;

    assert_eq!(reused.is(10_309_000).word(), "idempotency_key_reused");
    // Another operation and another caller may use the same key.
    caller.post("/admin/members", json!({"username": "kim"})).await.done();
    let client = site.client(&["*"]).await.with("idempotency-key", "k1");
    client.post("/admin/organizations", json!({"org_code": "globex", "name": "Globex"})).await.done();
}

#[tokio::test]
async fn an_idempotency_key_of_one_tenant_returns_nothing_in_another() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let body = json!({"key": "editor"});

    let first = acme.admin().with("idempotency-key", "k1").post("/api/v1/permissions/roles", body.clone()).await.data();
    let second = globex.admin().with("idempotency-key", "k1").post("/api/v1/permissions/roles", body).await;

    // Refused as another request, or created in the second tenant; never the response of the first tenant.
    assert_ne!(second.body["data"]["id"], first["id"]);
}

#[tokio::test]
async fn a_failure_is_not_stored_for_a_repeat() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();

    let taken = caller.post("/admin/members", json!({"username": "KIM"})).await;
    let bad = caller.post("/admin/members", json!({"username": "-"})).await;
    let free = caller.post("/admin/members", json!({"username": "lee"})).await;

    assert_eq!(taken.is(29_303_000).word(), "username_exists");
    assert_eq!(bad.is(10_101_000).fields(), ["body.username"]);
    free.done();
}

#[tokio::test]
async fn a_response_with_a_secret_is_not_repeated() {
    let site = Site::start().await;
    let caller = site.admin().with("idempotency-key", "k1");
    let body = json!({"name": "portal", "scopes": ["*"]});
    let made = caller.post("/admin/api-clients", body.clone()).await.data();
    let rotate = format!("/admin/api-clients/{}/rotate", made["client_key"].as_str().unwrap());
    caller.post(&rotate, json!({})).await.done();

    for (path, body) in [("/admin/api-clients", body), (rotate.as_str(), json!({}))] {
        assert_eq!(caller.post(path, body).await.is(32_309_000).word(), "secret_not_kept", "{path}");
    }
    let other = caller.post("/admin/api-clients", json!({"name": "other", "scopes": ["*"]})).await;
    assert_eq!(other.is(10_309_000).word(), "idempotency_key_reused");
    assert_eq!(site.admin().get("/admin/api-clients").await.data()["total"], 1);
}

#[tokio::test]
async fn a_repeat_requires_the_permission_again() {
    let site = Site::start().await;
    let client = site.client(&["organizations:write"]).await.with("idempotency-key", "k1");
    let made = site.last_audit_entry().await["target"].as_str().unwrap().replace("client ", "");
    let body = json!({"org_code": "acme", "name": "Acme"});
    client.post("/admin/organizations", body.clone()).await.done();

    site.admin().patch(&format!("/admin/api-clients/{made}"), json!({"scopes": ["audit:read"]})).await.done();

    assert_eq!(client.post("/admin/organizations", body).await.is(32_505_000).word(), "scope_not_allowed");
}

#[tokio::test]
async fn an_idempotency_key_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    let post = async |key: &str| {
        let body = json!({"username": format!("u{}", uuid::Uuid::now_v7().simple())});
        site.admin().with("idempotency-key", key).post("/admin/members", body).await
    };

    post("k").await.done();
    post(&"k".repeat(128)).await.done();
    for bad in [String::new(), "k".repeat(129)] {
        assert_eq!(post(&bad).await.is(10_101_000).fields(), ["header.Idempotency-Key"], "{bad}");
    }
}

#[tokio::test]
async fn an_idempotency_key_survives_a_restart() {
    let mut site = Site::start().await;
    let body = json!({"org_code": "acme", "name": "Acme"});
    let first = site.admin().with("idempotency-key", "k1").post("/admin/organizations", body.clone()).await.data();

    site.restart().await;

    let again = site.admin().with("idempotency-key", "k1").post("/admin/organizations", body).await;
    assert_eq!(again.data(), first);
}
