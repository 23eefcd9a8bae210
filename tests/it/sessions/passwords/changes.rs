//! Rules for passwords, and the change of a member's own one.

use serde_json::{Value, json};

use super::{OTHER, link_for, login, meddle, reset};
use crate::harness::callers::Reply;
use crate::harness::organizations::Member;
use crate::harness::site::{PASSWORD, Site};

// ── rules for passwords ──

#[tokio::test]
async fn a_common_password_is_refused_by_every_operation_that_sets_one() {
    let site = Site::start().await;
    let member = site.member().await;
    let token = link_for(&site.admin(), &member.uid).await["token"].clone();

    let change = json!({"old_password": PASSWORD, "new_password": "Password1"});
    for (reply, field) in [
        (
            site.admin().post("/admin/members", json!({"username": "x", "password": "Welcome123!"})).await,
            "body.password",
        ),
        (member.caller().post("/me/password", change).await, "body.new_password"),
        (reset(&site, &token, "Qwerty123").await, "body.new_password"),
    ] {
        assert_eq!(reply.is(10_101_000).fields(), [field]);
    }
    reset(&site, &token, OTHER).await.done();
}

// ── a member's own password ──

async fn change(member: &Member<'_>, old: &str, new: &str) -> Reply {
    member.caller().post("/me/password", json!({"old_password": old, "new_password": new})).await
}

#[tokio::test]
async fn a_changed_password_ends_every_other_session_and_keeps_this_one() {
    let site = Site::start().await;
    let member = site.member().await;
    let elsewhere = site.token(&member.username, PASSWORD).await;

    change(&member, PASSWORD, OTHER).await.done();

    member.caller().get("/me").await.done();
    assert_eq!(site.bearer(&elsewhere).get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    login(&site.nobody(), &member.username, PASSWORD).await.is(28_501_000);
    site.token(&member.username, OTHER).await;
    let sql = "select after from audit where action = 'password.change'";
    let after: String = site.rows().query_row(sql, [], |row| row.get(0)).expect("an entry");
    assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), json!({"fields": ["password"], "sessions_ended": 1}));
}

#[tokio::test]
async fn the_current_password_must_be_right_and_the_new_one_different() {
    let site = Site::start().await;
    let member = site.member().await;

    let wrong = change(&member, OTHER, "Third-horse-9").await;
    let same = change(&member, PASSWORD, PASSWORD).await;
    let weak = change(&member, PASSWORD, "weak").await;

    assert_eq!((wrong.is(28_101_000).word(), wrong.fields()), ("wrong_password", vec!["body.old_password".to_owned()]));
    assert_eq!(same.is(10_101_000).fields(), ["body.new_password"]);
    assert_eq!(weak.is(10_101_000).fields(), vec!["body.new_password"; 3]);
    site.token(&member.username, PASSWORD).await;
}

#[tokio::test]
async fn a_stolen_session_cannot_guess_the_password() {
    let site = Site::start().await;
    let member = site.member().await;

    for _ in 0..10 {
        assert_eq!(change(&member, OTHER, "Third-horse-9").await.is(28_101_000).word(), "wrong_password");
    }

    let refused = change(&member, PASSWORD, OTHER).await;
    assert_eq!(refused.is(28_604_000).word(), "too_many_failures");
}

#[tokio::test]
async fn a_member_without_a_password_is_told_how_to_get_one() {
    let site = Site::start().await;
    let member = site.member().await;
    meddle(&site, &format!("update members set password_hash = null where username = '{}'", member.username));

    let reply = change(&member, PASSWORD, OTHER).await;

    assert_eq!(reply.is(28_101_000).word(), "wrong_password");
    assert!(reply.body["fields"][0]["message"].as_str().unwrap().contains("ask for a link"));
}
