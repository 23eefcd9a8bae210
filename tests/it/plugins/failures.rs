//! Plugins that fail, are quarantined, or switch versions during checks.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{activate, deactivate, enforce, get_plugin, in_force, put, rollback, states, three_versions, upload};
use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::wasm_fixtures::{authorizer, denying, trapping};

#[tokio::test]
async fn a_quarantine_ends_with_an_activation_or_a_rollback() {
    let mut site = Site::start().await;
    let acme = site.organization("acme").await;
    let (owner_token, id) = (acme.owner_token.clone(), acme.id.clone());
    three_versions(&acme).await;
    activate(&acme.owner(), "hours", enforce(1)).await.done();
    activate(&acme.owner(), "hours", enforce(2)).await.done();
    site.while_stopped("update plugin_versions set quarantined_at = 7 where version <= 2", []);
    let owner = site.bearer(&owner_token).with("x-tenant-id", &id);
    let plugin = get_plugin(&owner, "hours").await;
    assert_eq!(states(&plugin), ["quarantined", "quarantined", "tested"]);
    assert_eq!(
        (&plugin["activations"][0]["quarantined"], &plugin["versions"][1]["quarantined_at"]),
        (&json!(true), &json!(7))
    );
    assert_eq!(owner.get("/api/v1/plugins").await.data()["items"][0]["quarantined"], true);
    let metrics = site.metrics();
    assert!(metrics.contains("\nroster_plugins_in_force 1\n") && metrics.contains("\nroster_plugins_quarantined 1\n"));
    let again = activate(&owner, "hours", enforce(2)).await.data();
    assert_eq!(
        (states(&again), in_force(&again)),
        (vec!["quarantined", "active", "tested"], (vec![(2, "enforce")], vec![1]))
    );
    assert_eq!(again["activations"][0]["quarantined"], false);
    let back = rollback(&owner, "hours").await.data();
    assert_eq!((states(&back), in_force(&back)), (vec!["active", "tested", "tested"], (vec![(1, "enforce")], vec![])));
}

/// A catalog with one permission, and the uid of a member of the organization who holds it.
async fn reader(acme: &Organization<'_>) -> String {
    let read = json!({"name": "doc.read", "http_methods": "GET", "http_path": "/docs/:id"});
    acme.site.import(json!([read])).await;
    acme.member_with(&["doc.read"]).await.uid
}

fn may_read(uid: &str) -> Value {
    json!({"uid": uid, "permission": "doc.read", "explain": true})
}

#[tokio::test]
async fn every_check_sees_either_the_old_or_the_new_version_during_a_switch() {
    const SWITCHES: usize = 30;
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let uid = reader(&acme).await;
    three_versions(&acme).await;
    let owner = acme.owner();
    let first = activate(&owner, "hours", enforce(1)).await.epoch();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let switching = async {
        let mut switched = vec![(first, 1)];
        for n in 0..SWITCHES {
            let version = [2, 1][n % 2];
            switched.push((activate(&owner, "hours", enforce(version)).await.epoch(), u64::from(version)));
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        switched
    };
    let asking = async {
        let mut seen = Vec::new();
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            let decision = acme.check(may_read(&uid)).await;
            assert_eq!(decision["reason"], "plugin_denied", "{decision}");
            let asked = &decision["because"]["plugins"];
            assert_eq!(asked.as_array().map(Vec::len), Some(1), "{decision}");
            seen.push((
                decision["epoch"].as_u64().expect("an epoch"),
                asked[0]["version"].as_u64().expect("a version"),
            ));
        }
        seen
    };
    let (switched, seen) = tokio::join!(switching, asking);
    assert!(seen.len() > SWITCHES / 2, "{}", seen.len());
    for (epoch, version) in seen {
        let in_force = switched.iter().rev().find(|(since, _)| *since <= epoch).expect("a switch before");
        assert_eq!(version, in_force.1, "at epoch {epoch}");
    }
}

#[tokio::test]
async fn a_version_that_keeps_failing_is_quarantined_until_the_owner_rolls_back() {
    let mut site = Site::with("[plugins]\nfailures = 3").await;
    let acme = site.organization("acme").await;
    let (owner_token, id) = (acme.owner_token.clone(), acme.id.clone());
    let uid = reader(&acme).await;
    let owner = acme.owner();
    upload(&owner, "hours", denying("closed")).await.done();
    upload(&owner, "hours", trapping()).await.done();
    activate(&owner, "hours", enforce(1)).await.done();
    assert_eq!(acme.check(may_read(&uid)).await["reason"], "plugin_denied");
    activate(&owner, "hours", enforce(2)).await.done();
    for n in 1..=4 {
        assert_eq!(acme.check(may_read(&uid)).await["reason"], "plugin_failed");
        let plugin = get_plugin(&owner, "hours").await;
        assert_eq!(states(&plugin), ["retired", if n < 3 { "active" } else { "quarantined" }], "after {n}");
        assert_eq!(plugin["activations"][0]["figures"]["calls"]["trap"], json!(n.min(3)));
    }
    let log = owner.get("/api/v1/plugins/hours/log").await.data();
    assert!(log["total"].as_u64() >= Some(3), "{log}");
    assert_eq!((&log["items"][0]["level"], &log["items"][0]["version"]), (&json!("error"), &json!(2)));
    let written = async {
        loop {
            let entry = site.admin().get("/admin/audit?limit=1&action=plugin.quarantine").await.data();
            if entry["total"] == 1 {
                break entry["items"][0].clone();
            }
        }
    };
    let entry = tokio::time::timeout(std::time::Duration::from_secs(10), written).await.expect("an entry");
    assert_eq!((&entry["target"], &entry["after"]["version"]), (&json!("plugin hours"), &json!(2)));
    site.restart().await;
    site.admin_token = site.token(crate::harness::site::ADMIN, crate::harness::site::PASSWORD).await;
    let (owner, admin) = (site.bearer(&owner_token), site.admin().with("x-tenant-id", &id));
    let check = async || admin.post("/api/v1/permissions/check", may_read(&uid)).await.data()["reason"].clone();
    assert_eq!(states(&get_plugin(&owner, "hours").await), ["retired", "quarantined"]);
    assert_eq!(check().await, "plugin_failed");
    assert_eq!(states(&rollback(&owner, "hours").await.data()), ["active", "quarantined"]);
    assert_eq!(check().await, "plugin_denied");
    deactivate(&owner, "hours").await.done();
    assert_eq!(check().await, "ok_role");
    let metrics = site.metrics();
    assert!(metrics.contains("\nroster_plugins_in_force 0\n"));
}

#[tokio::test]
async fn a_call_without_a_free_slot_denies_and_is_no_failure_of_the_plugin() {
    let site = Site::with(
        "[plugins]\nfailures = 1\ncalls_per_organization = 1\nwait_ms = 1\nlog_kept = 2
         authorize_ms = 10000\nauthorize_fuel = 10000000000",
    )
    .await;
    let acme = site.organization("acme").await;
    let uid = reader(&acme).await;
    let slow = authorizer(
        "",
        "(local $n i64) (local.set $n (i64.const 200000000))
         (loop $spin (local.set $n (i64.sub (local.get $n) (i64.const 1))) (br_if $spin (i64.ne (local.get $n) (i64.const 0))))
         (call $allow)",
    );
    put(&acme.owner(), "slow", slow, json!({"mode": "enforce"})).await;
    let decisions = join_all((0..5).map(|_| acme.check(may_read(&uid)))).await;
    let outcomes = |word: &str, reason: &str| {
        let is = |decision: &&Value| {
            (&decision["because"]["plugins"][0]["outcome"], &decision["reason"]) == (&json!(word), &json!(reason))
        };
        decisions.iter().filter(is).count()
    };
    let (allowed, busy) = (outcomes("allow", "ok_role"), outcomes("busy", "plugin_failed"));
    assert!(allowed + busy == 5 && allowed > 0 && busy > 2, "{decisions:?}");
    let plugin = get_plugin(&acme.owner(), "slow").await;
    assert_eq!(
        (states(&plugin), &plugin["activations"][0]["figures"]["calls"]["busy"]),
        (vec!["active"], &json!(busy))
    );
    assert_eq!(acme.owner().get("/api/v1/plugins/slow/log").await.data()["total"], 2, "the latest lines");
    assert_eq!(acme.check(may_read(&uid)).await["reason"], "ok_role");
}

#[tokio::test]
async fn a_failure_in_watch_mode_does_not_affect_the_enforced_version() {
    let mut site = Site::with("[plugins]\nfailures = 2").await;
    let acme = site.organization("acme").await;
    let owner_token = acme.owner_token.clone();
    let uid = reader(&acme).await;
    let owner = acme.owner();
    upload(&owner, "hours", trapping()).await.done();
    let elsewhere = json!({"version": 1, "mode": "enforce", "filter": {"permissions": ["doc.write"]}});
    activate(&owner, "hours", elsewhere).await.done();
    activate(&owner, "hours", json!({"version": 1, "mode": "shadow"})).await.done();
    for _ in 0..3 {
        assert_eq!(acme.check(may_read(&uid)).await["reason"], "ok_role");
    }
    let quarantined = async |owner: &As<'_>| {
        let plugin = get_plugin(owner, "hours").await;
        [0, 1].map(|n| plugin["activations"][n]["quarantined"] == true)
    };
    assert_eq!(quarantined(&owner).await, [false, true]);
    activate(&owner, "hours", json!({"version": 1, "mode": "shadow"})).await.done();
    assert_eq!(quarantined(&owner).await, [false, false]);
    for _ in 0..3 {
        acme.check(may_read(&uid)).await;
    }
    assert_eq!(quarantined(&owner).await, [false, true]);
    site.restart().await;
    assert_eq!(quarantined(&site.bearer(&owner_token)).await, [false, false]);
}

#[tokio::test]
async fn plugins_of_an_inactive_organization_are_not_called() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let uid = reader(&acme).await;
    three_versions(&acme).await;
    activate(&acme.owner(), "hours", enforce(3)).await.done();
    site.admin().post(&format!("/admin/organizations/{}/deactivate", acme.id), json!({})).await.done();
    let client = site.client(&["permissions:check"]).await.with("x-tenant-id", &acme.id);
    let decision = client.post("/api/v1/permissions/check", may_read(&uid)).await.data();
    let because = &decision["because"];
    assert_eq!(
        (&decision["reason"], &because["plugins"], &because["stages"][2]["verdict"]),
        (&json!("tenant_inactive"), &json!([]), &json!("not_asked")),
        "{decision}"
    );
    assert_eq!(acme.owner().get("/api/v1/plugins/hours").await.status, 403);
    site.admin().post(&format!("/admin/organizations/{}/activate", acme.id), json!({})).await.done();
    assert_eq!(in_force(&get_plugin(&acme.owner(), "hours").await), (vec![(3, "enforce")], vec![]));
    assert_eq!(acme.check(may_read(&uid)).await["because"]["plugins"][0]["outcome"], "allow");
}
