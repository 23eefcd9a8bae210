//! What members see of their own actions.

use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::site::{PASSWORD, Site};

async fn activity(caller: &As<'_>, query: &str) -> Value {
    caller.get(&format!("/me/activity{query}")).await.data()
}

fn actions(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("items").iter().map(|item| item["action"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn members_see_their_own_actions_and_sign_ins_only() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (member, other) = (acme.member_with_role("tenant_admin").await, acme.member().await);
    assert_eq!(actions(&activity(&member.caller(), "").await), ["session.create"]);

    member.caller().patch("/me", json!({"display_name": "Kim"})).await.done();
    member.caller().post(&format!("/admin/members/{}/deactivate", other.uid), json!({})).await.done();
    site.token(&member.username, PASSWORD).await;
    // An action of others on the member is not its own.
    site.admin().patch(&format!("/admin/members/{}", member.uid), json!({"display_name": "Lee"})).await.done();

    let page = activity(&member.caller(), "").await;
    assert_eq!(actions(&page), ["session.create", "member.deactivate", "member.update_self", "session.create"]);
    assert_eq!(page["total"], 4);
    let done = &page["items"][1];
    assert_eq!(done["target"], json!(format!("member {}", other.uid)));
    assert_eq!((&done["outcome"], &done["address"]), (&json!("done"), &json!("127.0.0.1")));
    let mut names: Vec<&String> = done.as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(names, ["action", "address", "at", "outcome", "target"]);
    assert!(activity(&site.admin(), "").await["total"].as_u64() > Some(4));
}

#[tokio::test]
async fn the_pages_of_an_activity_together_equal_the_list() {
    let site = Site::start().await;
    let member = site.member().await;
    for n in 0..4 {
        member.caller().patch("/me", json!({"display_name": format!("Kim {n}")})).await.done();
    }
    let all = activity(&member.caller(), "").await;
    let (mut found, mut more) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = activity(&member.caller(), &more).await;
        found.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next"].as_str() else { break };
        more = format!("?limit=2&after={next}");
    }
    assert_eq!(json!(found), all["items"]);
    assert_eq!(found.len(), 5);
}

#[tokio::test]
async fn keys_and_programs_have_no_activity() {
    let site = Site::start().await;
    let member = site.member().await;
    let key = member.caller().post("/me/api-keys", json!({"name": "laptop", "scopes": ["me:read"]})).await.data();
    let by_key = site.bearer(key["api_key"].as_str().expect("a key"));
    assert_eq!(by_key.get("/me/activity").await.status, 403);
    for caller in [site.nobody(), site.client(&["audit:read"]).await] {
        assert_eq!(caller.get("/me/activity").await.status, 401);
    }
}
