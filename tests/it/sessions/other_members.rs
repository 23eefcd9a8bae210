//! Sessions of a member that administrators see and end.

use serde_json::{Value, json};

use crate::harness::organizations::Member;
use crate::harness::site::{PASSWORD, Site};

const NOT_VISIBLE: u64 = 29_301_000;
const FORBIDDEN: u64 = 29_505_000;

fn sessions_of(member: &Member<'_>) -> String {
    format!("/admin/members/{}/sessions", member.uid)
}

fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn an_administrator_sees_the_sessions_that_the_member_sees() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    site.token(&member.username, PASSWORD).await;
    let admin = acme.member_with_role("tenant_admin").await;

    let mut own = member.caller().get("/me/sessions").await.data();
    for caller in [admin.caller(), acme.owner(), site.admin()] {
        let mut seen = caller.get(&sessions_of(&member)).await.data();
        assert_eq!(ids(&seen), ids(&own));
        for list in [&mut seen, &mut own] {
            list["items"].as_array_mut().expect("items").iter_mut().for_each(|item| item["is_current"] = json!(false));
        }
        assert_eq!(seen, own);
    }
    assert_eq!(ids(&own).len(), 2);
}

#[tokio::test]
async fn an_administrator_ends_one_session_or_all() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (member, other) = (acme.member().await, acme.member().await);
    let second = site.token(&member.username, PASSWORD).await;
    let first_id = {
        let own = member.caller().get("/me/sessions").await.data();
        let current = own["items"].as_array().expect("items").iter().find(|item| item["is_current"] == true).cloned();
        current.expect("the current one")["id"].as_str().expect("an id").to_owned()
    };
    let foreign = ids(&other.caller().get("/me/sessions").await.data()).remove(0);
    let path = sessions_of(&member);

    let not_theirs = acme.owner().delete(&format!("{path}/{foreign}")).await;
    assert_eq!(not_theirs.is(28_301_000).word(), "session_not_found");
    acme.owner().delete(&format!("{path}/{first_id}")).await.done();
    assert_eq!(member.caller().get("/me").await.status, 401);
    site.bearer(&second).get("/me").await.done();
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["organization_id"]), (&json!("session.end"), &json!(acme.id)));
    assert_eq!(entry["target"], json!(format!("session {first_id}")));

    assert_eq!(acme.owner().delete(&path).await.data(), json!({"ended": 1}));
    assert_eq!(site.bearer(&second).get("/me").await.status, 401);
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["after"]), (&json!("session.end_all"), &json!({"sessions_ended": 1})));
    assert_eq!(acme.owner().delete(&path).await.data(), json!({"ended": 0}));
    assert_eq!(site.last_audit_entry().await["id"], entry["id"], "nothing ended, nothing recorded");
    other.caller().get("/me").await.done();
}

#[tokio::test]
async fn only_those_who_may_change_the_member_end_its_sessions() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let member = acme.member().await;
    let id = ids(&member.caller().get("/me/sessions").await.data()).remove(0);
    let path = sessions_of(&member);
    let one = format!("{path}/{id}");

    let manager = acme.member_with_role("member_manager").await;
    for refused in [manager.caller().get(&path).await, manager.caller().delete(&path).await] {
        refused.is(FORBIDDEN);
    }
    manager.caller().delete(&one).await.is(FORBIDDEN);
    for caller in [bolt.owner(), bolt.member_with_role("tenant_admin").await.caller()] {
        for reply in [caller.get(&path).await, caller.delete(&path).await, caller.delete(&one).await] {
            assert_eq!(reply.is(NOT_VISIBLE).word(), "member_not_found");
        }
    }
    // A member who holds more than the caller.
    let (admin, owner) = (acme.member_with_role("tenant_admin").await, acme.member_with_role("tenant_owner").await);
    let more = admin.caller().delete(&sessions_of(&owner)).await;
    assert_eq!((more.status, more.word()), (403, "not_held"));
    // A member of two organizations is the platform's.
    bolt.link(&member.uid).await;
    assert_eq!(acme.owner().get(&path).await.status, 403);
    assert_eq!(acme.owner().delete(&path).await.status, 403);
    assert_eq!(acme.owner().delete(&one).await.status, 403);
    member.caller().get("/me").await.done();
    site.admin().delete(&one).await.done();
    assert_eq!(member.caller().get("/me").await.status, 401);
}

#[tokio::test]
async fn the_command_line_lists_and_ends_sessions() {
    let site = Site::start().await;
    let member = site.member().await;
    site.token(&member.username, PASSWORD).await;
    let listed = site.command(&["member", "sessions", &member.username]);
    let all = ids(&listed);
    assert_eq!(all.len(), 2);
    assert_eq!(site.command(&["member", "end-sessions", &member.uid, "--session", &all[0]]), json!({"ended": 1}));
    assert_eq!(ids(&site.command(&["member", "sessions", &member.uid])), all[1..]);
    assert_eq!(site.command(&["member", "end-sessions", &member.username]), json!({"ended": 1}));
    assert_eq!(member.caller().get("/me").await.status, 401);
}
