//! Tasks whose caller loses the right while they run, and what the audit log has of changes outside.

use serde_json::{Value, json};

use super::tasks::{address, ended, started};
use crate::harness::callers::{As, Reply};
use crate::harness::gated_sftpgo::GatedSftpgo;
use crate::harness::gated_wordpress::{GatedWordPress, LISTED};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::integrations::sftpgo::accounts::until_settled;

const RECONCILE: &str = "/admin/sftpgo/reconcile?background=true";
const SYNC: &str = "/admin/wordpress/sync?background=true";

/// Withdraws the only role that a member has in `platform`.
async fn demote(site: &Site, uid: &str) {
    super::tasks::demote(&site.admin().with("x-tenant-id", "platform"), uid).await;
}

async fn suspend(site: &Site, uid: &str) {
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
}

/// A site with three members that have a name at SFTPGo and no user there.
async fn site_of(sftpgo: &GatedSftpgo) -> Site {
    let mut site = Site::with(&sftpgo.settings()).await;
    let mut uids = Vec::new();
    for name in ["kim", "lee", "nora"] {
        let made = site.admin().post("/admin/members", json!({"username": name})).await.data();
        uids.push(uuid::Uuid::parse_str(made["uid"].as_str().expect("uid")).expect("an id"));
    }
    // In the rows and without an event that waits, so that only the reconciliation creates users.
    until_settled(&site).await;
    site.while_stopped(
        "insert into identities (provider, subject, member_id, created_at)
         select 'sftpgo', 'at-' || hex(value), value, 0 from (select ?1 as value union select ?2 union select ?3)",
        rusqlite::params![uids[0].as_bytes(), uids[1].as_bytes(), uids[2].as_bytes()],
    );
    site
}

/// Starts a reconciliation that waits for its first user.
async fn begin(sftpgo: &GatedSftpgo, caller: &As<'_>) -> (Reply, Value) {
    let reply = caller.post(RECONCILE, json!({})).await;
    let task = started(&reply);
    eventually("the first user", async || sftpgo.created() == 1).await;
    (reply, task)
}

/// The entries of reconciliations, the oldest first: kind of actor, request, and what was done.
async fn audited(site: &Site) -> Vec<(String, String, Value)> {
    let found = site.admin().get("/admin/audit?action=sftpgo.reconcile").await.data();
    let text = |entry: &Value, name: &str| entry[name].as_str().expect("text").to_owned();
    let items = found["items"].as_array().expect("items").iter().rev();
    items.map(|one| (text(one, "actor_kind"), text(one, "request_id"), one["after"].clone())).collect()
}

/// The entries of a reconciliation that began one user and ended so.
fn both(kind: &str, task: &Value, outcome: &str, mended: u64) -> Vec<(String, String, Value)> {
    let request = task["request_id"].as_str().expect("an id").to_owned();
    let end = json!({"phase": "end", "outcome": outcome, "begun": 1, "mended": mended, "failed": 0, "scans": 0});
    vec![
        (kind.to_owned(), request.clone(), json!({"phase": "begin", "accounts": 3, "scans": 0})),
        ("cli".to_owned(), request, end),
    ]
}

#[tokio::test]
async fn a_reconciliation_stops_before_the_next_user_when_its_caller_loses_the_right() {
    for (is_suspended, word) in [(true, "unauthenticated"), (false, "forbidden")] {
        let sftpgo = GatedSftpgo::start();
        let site = site_of(&sftpgo).await;
        let caller = site.platform_member(&["roster.neighbour.sftpgo_reconcile"]).await;
        let (reply, task) = begin(&sftpgo, &caller.caller()).await;
        match is_suspended {
            true => suspend(&site, &caller.uid).await,
            false => demote(&site, &caller.uid).await,
        }
        sftpgo.open();
        let admin = site.admin();
        let seen = ended(&admin, &reply).await;
        assert_eq!((&seen["state"], &seen["error"]["error_code"]), (&json!("failed"), &json!(word)), "{seen}");
        let result = &seen["result"];
        let drift = result["drift"]["missing"].as_array().map(Vec::len);
        assert_eq!(
            (result["mended"].as_array().map(Vec::len), drift, sftpgo.created()),
            (Some(1), Some(3), 1),
            "{seen}"
        );
        assert_eq!(audited(&site).await, both("member", &task, word, 1));
        // Only a lost permission is a denied change; a credential that ended is a failed authentication.
        let denied = admin.get("/admin/audit?outcome=denied&action=reconcile_sftpgo").await.data();
        assert_eq!(denied["total"], u64::from(!is_suspended), "{denied}");
    }
}

#[tokio::test]
async fn a_cancelled_and_an_aborted_reconciliation_have_their_end_in_the_audit_log() {
    let sftpgo = GatedSftpgo::start();
    let site = site_of(&sftpgo).await;
    let admin = site.admin();
    let (reply, task) = begin(&sftpgo, &admin).await;
    admin.delete(&address(&task)).await.done();
    sftpgo.open();
    assert_eq!(ended(&admin, &reply).await["state"], "cancelled");
    assert_eq!(audited(&site).await, both("member", &task, "cancelled", 1));

    let sftpgo = GatedSftpgo::start();
    let mut site = site_of(&sftpgo).await;
    let (_, task) = begin(&sftpgo, &site.admin()).await;
    site.restart().await;
    assert!(site.log().contains("a task did not end in time and is aborted"), "{}", site.log());
    assert_eq!(audited(&site).await, both("member", &task, "aborted", 0));
}

#[tokio::test]
async fn a_comparison_with_wordpress_changes_nothing_more_when_its_caller_loses_the_right() {
    // A second list without users is refused before the next one, one with users in its changes.
    for (second, is_dry, next) in [(0, true, "known 0"), (1, false, "page 2"), (1, true, "page 2")] {
        let wordpress = GatedWordPress::with_second_list(second);
        let site = Site::with(&wordpress.settings()).await;
        let caller = site.platform_member(&["roster.neighbour.wordpress_sync"]).await;
        let reply = caller.caller().post(SYNC, json!({"dry_run": is_dry})).await;
        eventually("the second list", async || wordpress.is_waiting()).await;
        let admin = site.admin();
        let members = admin.get("/admin/members").await.data()["total"].clone();
        demote(&site, &caller.uid).await;
        wordpress.open();
        let seen = ended(&admin, &reply).await;
        assert_eq!((&seen["state"], &seen["error"]["error_code"]), (&json!("failed"), &json!("forbidden")), "{seen}");
        let (result, new) = (&seen["result"], seen["result"]["new"].as_array().map(Vec::len));
        assert_eq!((&result["next"], new), (&json!(next), usize::try_from(LISTED).ok()), "{seen}");
        assert_eq!(admin.get("/admin/members").await.data()["total"], members);
        let denied = admin.get("/admin/audit?outcome=denied&action=sync_wordpress").await.data();
        assert_eq!(denied["total"], 1, "{denied}");
    }
}
