//! Replays of recorded decisions: with a version by dry run, with a component by the command line.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::decisions::{bind, documents, enforced, filtered};
use super::{dry_run, upload};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::wasm_fixtures;
use crate::permissions::CHECK;

/// Records four decisions: a denial by the plugin, one for a missing permission, one by a gate, and one with a secret
/// in its facts.
async fn decided<'s>(site: &'s Site, acme: &Organization<'s>) -> (String, String) {
    site.import(documents()).await;
    let (holder, other) = (acme.member_with(&["doc.read"]).await.uid, acme.member().await.uid);
    bind(site, vec![(&acme.id, enforced("rule", wasm_fixtures::denying("shut")))]).await;
    let questions = json!({"questions": [
        {"uid": holder, "permission": "doc.read"},
        {"uid": other, "permission": "doc.read"},
        {"uid": holder, "method": "GET", "path": "/nowhere"},
        {"uid": holder, "method": "GET", "path": "/docs/7", "context": {"token": "s3cret"}},
    ]});
    let reasons = acme.admin().post(CHECK, questions).await.data();
    let reasons: Vec<&Value> =
        reasons["decisions"].as_array().expect("decisions").iter().map(|one| &one["reason"]).collect();
    assert_eq!(reasons, ["plugin_denied", "no_permission", "unmapped_route", "plugin_denied"]);
    (holder, other)
}

#[tokio::test]
async fn a_version_shows_which_recorded_decisions_it_would_change() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (holder, _) = decided(&site, &acme).await;
    upload(&acme.admin(), "rule", wasm_fixtures::abstaining()).await.done();

    let found = dry_run(&acme.owner(), "rule", json!({"version": 2, "recorded": {}})).await.data();
    assert_eq!((&found["version"], &found["outcome"]), (&json!(2), &json!("replayed")));
    let counts = |found: &Value| {
        let names = ["decisions", "asked", "left_out", "unreached", "failed", "changed"];
        names.map(|name| found["replay"][name].as_u64().expect("a number"))
    };
    assert_eq!(counts(&found), [4, 1, 1, 0, 0, 1]);
    let change = &found["replay"]["changes"][0];
    assert_eq!((&change["uid"], &change["action"]), (&json!(holder), &json!("doc.read")));
    let name = acme.owner().get(&format!("/admin/users/{holder}")).await.data()["username"].clone();
    assert_eq!((&change["name"], &change["kind"]), (&name, &json!("permission")));
    assert_eq!((&change["was_allow"], &change["was_reason"]), (&json!(false), &json!("plugin_denied")));
    assert_eq!((&change["would_allow"], &change["would_reason"]), (&json!(true), &json!("ok_role")));
    // The version in force decides as recorded.
    let same = dry_run(&acme.owner(), "rule", json!({"recorded": {}})).await.data();
    assert_eq!(counts(&same), [4, 1, 1, 0, 0, 0]);
    // The latest two: the one with a secret, and one for which no plugin is called.
    let some = dry_run(&acme.owner(), "rule", json!({"version": 2, "recorded": {"limit": 2}})).await.data();
    assert_eq!(counts(&some), [2, 0, 1, 0, 0, 0]);
    let none = dry_run(&acme.owner(), "rule", json!({"version": 2, "recorded": {"to": 1}})).await.data();
    assert_eq!(counts(&none), [0, 0, 0, 0, 0, 0]);
    // The replay counts no failure of the version and logs no decision.
    let logged = acme.owner().get("/api/v1/permissions/decisions").await.data();
    assert_eq!(logged["total"], 4);
}

#[tokio::test]
async fn an_invalid_replay_is_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    decided(&site, &acme).await;
    let both = json!({"recorded": {}, "input": {"action": "x"}});
    assert_eq!(dry_run(&acme.owner(), "rule", both).await.fields(), ["body.input"]);
    for (limit, is_right) in [(0, false), (1, true), (2_000, true), (2_001, false)] {
        let reply = dry_run(&acme.owner(), "rule", json!({"recorded": {"limit": limit}})).await;
        assert_eq!(reply.status == 200, is_right, "{limit}: {reply:?}");
    }
    let runner = acme.member_with(&["roster.plugin.run"]).await;
    assert_eq!(dry_run(&runner.caller(), "rule", json!({"recorded": {}})).await.status, 403);
    let component = wasm_fixtures::naming(&["viewer"]);
    let mapper = upload(&acme.admin(), "rule", component).await.data();
    let reply = dry_run(&acme.owner(), "rule", json!({"version": mapper["version"], "recorded": {}})).await;
    assert_eq!((reply.word(), reply.fields()), ("plugin_input", vec!["body.recorded".to_owned()]));
}

fn written(site: &Site, name: &str, bytes: &[u8]) -> PathBuf {
    let file = site.path().join(name);
    std::fs::write(&file, bytes).expect("written");
    file
}

#[tokio::test]
async fn a_component_is_replayed_on_recorded_decisions_before_its_upload() {
    let mut site = Site::start().await;
    let (holder, page) = {
        let acme = site.organization("acme").await;
        let (holder, _) = decided(&site, &acme).await;
        (holder, acme.owner().get("/api/v1/permissions/decisions").await.body)
    };
    let candidate = written(&site, "candidate.wasm", &wasm_fixtures::abstaining());
    let candidate = candidate.to_str().expect("text");
    let list = written(&site, "decisions.json", page.to_string().as_bytes());
    let bare = written(&site, "bare.json", page["data"]["items"].to_string().as_bytes());
    let by_server = ["plugin", "replay", "--from", "0", "--org", "acme", "--candidate", candidate];
    let running = site.command(&by_server);
    assert_eq!((&running["decisions"], &running["left_out"], &running["changed"]), (&json!(4), &json!(1), &json!(1)));
    let change = &running["changes"][0];
    assert_eq!(
        (&change["uid"], &change["was"], &change["would_be"]),
        (&json!(holder), &json!("plugin_denied"), &json!("ok_role"))
    );
    for file in [&list, &bare] {
        let of_file =
            site.command(&["plugin", "replay", "--from", file.to_str().expect("text"), "--candidate", candidate]);
        assert_eq!(of_file, running);
    }
    // The list of changes has a limit; the count includes all.
    let items = page["data"]["items"].as_array().expect("items");
    let changing = items.iter().find(|item| item["id"] == change["id"]).expect("the decision");
    for (decisions, listed) in [(200, 200), (201, 200)] {
        let many = written(&site, "many.json", json!(vec![changing; decisions]).to_string().as_bytes());
        let many =
            site.command(&["plugin", "replay", "--from", many.to_str().expect("text"), "--candidate", candidate]);
        assert_eq!((&many["changed"], many["changes"].as_array().map(Vec::len)), (&json!(decisions), Some(listed)));
    }
    assert_eq!(site.command_while_stopped(&by_server), running);
    // A denial by another plugin is not changed.
    let other = [&by_server[..], &["--in-place-of", "another"]].concat();
    assert_eq!(site.command(&other)["changed"], 0);
    let narrow = [&by_server[..], &["--permissions", "doc.edit"]].concat();
    let narrow = site.command(&narrow);
    assert_eq!((&narrow["asked"], &narrow["changed"]), (&json!(0), &json!(2)), "uncovered questions are allowed");
    let opening = written(&site, "opening.wasm", &wasm_fixtures::allowing());
    let opening = opening.to_str().expect("text").to_owned();
    let open = ["plugin", "replay", "--from", "0", "--org", "acme", "--may-grant", "--candidate", &opening];
    let words: Vec<Value> =
        site.command(&open)["changes"].as_array().expect("changes").iter().map(|one| one["would_be"].clone()).collect();
    assert_eq!(words, ["ok_plugin", "ok_role"], "the newest first");
}

#[tokio::test]
async fn a_filter_that_can_never_match_is_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    upload(&acme.admin(), "rule", wasm_fixtures::denying("shut")).await.done();
    let refused = async |filter: Value| {
        let body = json!({"version": 1, "mode": "enforce", "filter": filter});
        crate::plugins::activate(&acme.admin(), "rule", body).await.fields()
    };
    assert_eq!(
        refused(json!({"permissions": ["doc.*", "*", "doc*"]})).await,
        ["body.filter.permissions.1", "body.filter.permissions.2"]
    );
    assert_eq!(refused(json!({"routes": ["/docs", "docs"]})).await, ["body.filter.routes.1"]);
    bind(
        &site,
        vec![(&acme.id, filtered(json!({"permissions": ["doc.*"]}), enforced("other", wasm_fixtures::allowing())))],
    )
    .await;
}
