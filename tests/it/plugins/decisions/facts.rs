//! Facts of the caller, and the limit on the input of a plugin.

use serde_json::{Value, json};

use super::{Fixture, admin, bind, check, documents, enforced, explained, permission, plugin_outcomes};
use crate::harness::site::Site;
use crate::harness::wasm_fixtures;
use crate::permissions::checks::route;
use crate::permissions::{BAD_INPUT, CHECK};

#[tokio::test]
async fn facts_of_the_caller_reach_the_plugin() {
    let site = Site::start().await;
    site.import(documents()).await;
    let (acme, path) = (Fixture::new(&site, "acme").await, Fixture::new(&site, "path").await);
    bind(
        &site,
        vec![
            (&acme.id, enforced("tells", wasm_fixtures::denying_with_last_fact())),
            (&path.id, enforced("tells", wasm_fixtures::denying_with_path())),
        ],
    )
    .await;
    let told = async |context: Value| {
        let mut question = permission(&acme.holder, "doc.read");
        question["context"] = context;
        check(&site, &acme.id, question).await["message"].as_str().map(str::to_owned)
    };
    for (value, text) in [
        (json!("kim"), "kim"),
        (json!(7), "7"),
        (json!(true), "true"),
        (json!(["a", "b"]), "a"),
        (json!({"a": 1}), "{\"a\":1}"),
    ] {
        assert_eq!(told(json!({"zoo": value})).await.as_deref(), Some(text));
    }
    // Without facts of the caller, the last fact is the current time; the caller may give another one.
    let now: i64 = told(json!({})).await.expect("a moment").parse().expect("a number");
    assert!(now > 1_600_000_000_000);
    assert_eq!(told(json!({"now_ms": 86_400_000})).await.as_deref(), Some("86400000"));

    let decision = check(&site, &path.id, route(&path.holder, "GET", "/docs/a%20b/?token=x")).await;
    assert_eq!(decision["message"], "/docs/a b");
}

#[tokio::test]
async fn facts_with_the_host_s_names_are_refused_and_facts_have_a_limit() {
    let site = Site::with("[plugins]\ninput_bytes = 2048").await;
    site.import(documents()).await;
    let acme = Fixture::new(&site, "acme").await;
    let with = |context: Value| {
        let mut question = permission(&acme.holder, "doc.read");
        question["context"] = context;
        question
    };
    let asked = async |body: Value| admin(&site, &acme.id).post(CHECK, body).await;
    let reply =
        asked(with(json!({"base": "allow", "org_code": "x", "question": [], "owner": "kim", "now_ms": "soon"}))).await;
    assert_eq!(
        reply.is(BAD_INPUT).fields(),
        ["body.context.base", "body.context.now_ms", "body.context.org_code", "body.context.question"]
    );
    for name in ["app", "permission", "scope_type", "scope_id", "module"] {
        assert_eq!(asked(with(json!({name: "x"}))).await.is(BAD_INPUT).fields(), [format!("body.context.{name}")]);
    }
    let batch = json!({"questions": [with(json!({"a": 1})), with(json!({"base": 1}))]});
    assert_eq!(asked(batch).await.is(BAD_INPUT).fields(), ["body.questions.1.context.base"]);
    for bad in [json!(-1), json!(1.5), json!("1"), json!(null), json!(u64::MAX)] {
        assert_eq!(asked(with(json!({"now_ms": bad}))).await.is(BAD_INPUT).fields(), ["body.context.now_ms"]);
    }
    assert_eq!(asked(with(json!({"a": "x".repeat(2_047)}))).await.data()["reason"], "ok_role");
    assert_eq!(asked(with(json!({"a": "x".repeat(2_048)}))).await.is(BAD_INPUT).fields(), ["body.context"]);
}

#[tokio::test]
async fn an_input_that_is_too_long_for_the_plugin_denies() {
    let site = Site::with("[plugins]\ninput_bytes = 2048").await;
    site.import(documents()).await;
    let acme = Fixture::new(&site, "acme").await;
    bind(&site, vec![(&acme.id, enforced("silent", wasm_fixtures::abstaining()))]).await;
    let mut question = permission(&acme.holder, "doc.read");
    question["context"] = json!({"a": "x".repeat(2_000)});
    let decision = explained(&site, &acme.id, question).await;
    assert_eq!(
        (decision["reason"].as_str(), plugin_outcomes(&decision)),
        (Some("plugin_failed"), vec!["silent 1 enforce input".to_owned()])
    );
}
