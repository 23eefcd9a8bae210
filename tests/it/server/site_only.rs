//! Operations that belong to the site: no API client carries them out on behalf of a tenant.

use roster::kernel::authz::permission::BUILTIN_PERMISSIONS;
use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::site::Site;
use crate::videos::registration::{Media, service};

const NOWHERE: &str = "019abcde-0000-7000-8000-000000000009";

/// A valid request of an operation that only the site carries out, about a member of another organization.
fn request(name: &str, uid: &str, acme: &str) -> (String, Value) {
    let right = json!({"uid": uid, "scope_type": "organization", "scope_id": "bolt", "module": "a", "action": "b"});
    let (path, body) = match name {
        "roster.member.link" => (format!("/admin/members/{uid}/organizations/{acme}"), json!({})),
        "roster.member.link_by_name" => {
            (format!("/admin/members/{uid}/organizations"), json!({"organization": "acme"}))
        }
        "roster.organization.create" => ("/admin/organizations".into(), json!({"org_code": "core", "name": "Core"})),
        "roster.organization.activate" => (format!("/admin/organizations/{acme}/activate"), json!({})),
        "roster.organization.deactivate" => (format!("/admin/organizations/{acme}/deactivate"), json!({})),
        "roster.grant.list" => (format!("/admin/permissions/grants?member={uid}"), Value::Null),
        "roster.grant.create" => ("/admin/permissions/grant".into(), right),
        "roster.grant.delete" => ("/admin/permissions/revoke".into(), right),
        "roster.video.claim" => ("/api/v1/videos/claim".into(), json!({})),
        "roster.video.import" => ("/api/v1/videos/import".into(), json!({})),
        "roster.quota.set_ceiling" => (format!("/admin/organizations/{acme}/quota"), json!({"size": 1})),
        "roster.job.claim" => ("/api/v1/jobs/claim".into(), json!({})),
        "roster.job.heartbeat" => (format!("/api/v1/jobs/{NOWHERE}/heartbeat"), json!({})),
        "roster.job.complete" => (format!("/api/v1/jobs/{NOWHERE}/complete"), json!({})),
        "roster.job.fail" => (format!("/api/v1/jobs/{NOWHERE}/fail"), json!({"error": "x"})),
        "roster.user.create" => ("/admin/users".into(), json!({"username": "lee", "email": "lee@example.org"})),
        "roster.user.import" => {
            ("/admin/users/import".into(), json!({"users": [{"username": "lee", "email": "lee@example.org"}]}))
        }
        "roster.user.update" => (format!("/admin/users/{uid}"), json!({"display_name": "Other"})),
        "roster.user.delete" => (format!("/admin/users/{uid}"), Value::Null),
        "roster.audit.head" => ("/admin/audit/head".into(), Value::Null),
        "roster.audit.verify" => ("/admin/audit/verify".into(), Value::Null),
        _ => panic!("{name} has no row"),
    };
    (path, body)
}

#[tokio::test]
async fn no_client_of_a_tenant_carries_out_operations_of_the_site() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let uid = bolt.member().await.uid;
    let (client, key) = (site.client(&["*"]).await, service(&site, &["*"]).await);
    let done = || -> i64 {
        let sql = "select count(*) from audit where outcome = 'done'";
        site.rows().query_row(sql, [], |row| row.get(0)).expect("a number")
    };
    let before = done();
    let mut visited = 0;
    for own in BUILTIN_PERMISSIONS.iter().filter(|own| own.site_only) {
        if own.scope.is_none() {
            continue;
        }
        visited += 1;
        let (path, body) = request(own.name, &uid, &acme.id);
        let takes_keys = ["videos", "quotas", "jobs"].iter().any(|area| own.scope.is_some_and(|s| s.starts_with(area)));
        let mut programs: Vec<(&str, As<'_>)> = vec![("a client", client.clone())];
        if takes_keys {
            programs.push(("a service's key", key.clone()));
        }
        for (who, program) in programs {
            for tenant in [acme.id.as_str(), "acme", "bolt"] {
                let caller = program.clone().with("x-tenant-id", tenant);
                let body = Some(body.clone()).filter(|body| !body.is_null());
                let reply = caller.send(own.method.parse().expect("a method"), &path, body).await;
                assert_eq!(
                    (reply.status, reply.word()),
                    (403, "forbidden"),
                    "{}: {who} in {tenant}: {reply:?}",
                    own.name
                );
                let message = reply.body["message"].as_str().expect("a message");
                assert!(message.contains("X-Tenant-ID"), "{}: {message}", own.name);
            }
        }
    }
    assert!(visited >= 19, "{visited}");
    assert_eq!(done(), before, "nothing was done");
    // On behalf of the site the same client may.
    client.post(&format!("/admin/members/{uid}/organizations/{}", acme.id), json!({})).await.done();
}

#[tokio::test]
async fn a_client_of_a_tenant_reaches_no_member_of_another_by_any_operation() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let made = site
        .admin()
        .post("/admin/members", json!({"username": "kim", "email": "kim@example.org", "authentik_sub": "sub-1"}))
        .await
        .data();
    let uid = made["uid"].as_str().expect("uid").to_owned();
    bolt.link(&uid).await;
    let client = site.client(&["*"]).await.with("x-tenant-id", "acme");

    for (path, body) in [
        (format!("/admin/members/{uid}/organizations/{}", acme.id), json!({})),
        (format!("/admin/members/{uid}/organizations"), json!({"organization": "acme"})),
        ("/internal/users/upsert-by-sub".into(), json!({"sub": "sub-1"})),
        ("/internal/users/upsert-by-sub".into(), json!({"sub": "sub-1", "display_name": "Mine"})),
    ] {
        let reply = client.post(&path, body).await;
        assert!([403, 404].contains(&reply.status), "{path}: {reply:?}");
        assert!(!reply.body.to_string().contains("kim@example.org"), "{path}");
    }
    assert_eq!(client.get(&format!("/admin/members/{uid}")).await.status, 404);
    let organizations = site.admin().get(&format!("/admin/members/{uid}/organizations")).await.data();
    assert_eq!(organizations["total"], 1);
    // An invitation is allowed, because the person can decline it.
    let invited = client.post("/admin/invitations", json!({"email": "kim@example.org"})).await.data();
    assert!(invited["url"].is_string());
}
