//! The settings of an organization.

use serde_json::{Value, json};

use super::signed_in;
use crate::harness::console::{Browser, borrowed};
use crate::harness::organizations::Organization;
use crate::harness::site::{ADMIN, Site};

const SETTINGS: &str = "/console/o/acme/settings";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

async fn owner(acme: &Organization<'_>) -> Browser {
    let owner = acme.member_with_role("tenant_owner").await;
    signed_in(acme.site, &owner.username).await
}

async fn stored(acme: &Organization<'_>) -> Value {
    let found = acme.site.admin().get(&format!("/admin/organizations/{}", acme.id)).await.data();
    json!([found["name"], found["tax_id"], found["second_factor_required"]])
}

#[tokio::test]
async fn an_owner_changes_the_settings_and_undoes_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let page = browser.get(SETTINGS).await;
    assert_eq!((page.h1(), page.value("name").as_deref()), ("Organization settings".into(), Some("acme")));
    let form = page.form(SETTINGS).expect("the form").fields();
    let with = |name: &str, tax_id: &str| -> Vec<(String, String)> {
        let kept = form.iter().filter(|(name, _)| !["name", "tax_id"].contains(&name.as_str())).cloned();
        kept.chain([("name".into(), name.into()), ("tax_id".into(), tax_id.into())]).collect()
    };
    let saved = browser.post(SETTINGS, &borrowed(&with(PAYLOAD, "12345678"))).await;
    assert_eq!((saved.status, saved.location()), (303, Some(SETTINGS)), "{}", saved.main());
    let page = browser.follow(&saved).await;
    page.require_escaped(PAYLOAD);
    assert_eq!(stored(&acme).await, json!([PAYLOAD, "12345678", false]));
    let undo = page.with_class("notice")[0].elements("form").remove(0);
    assert_eq!(undo.attribute("action"), Some(SETTINGS));
    let undone = browser.post(SETTINGS, &borrowed(&undo.fields())).await;
    assert_eq!((undone.status, stored(&acme).await), (303, json!(["acme", null, false])), "{}", undone.main());
    // Takes the notice, whose form has fields of the same names.
    browser.follow(&undone).await;
    // The form of before is stale now, and shows both states.
    let stale = browser.post(SETTINGS, &borrowed(&with("Acme Films", ""))).await;
    assert_eq!((stale.status, stale.value("name").as_deref()), (412, Some("Acme Films")), "{}", stale.main());
    let difference = stale.with_class("difference").remove(0);
    assert_eq!(
        (difference.elements("del")[0].text(), difference.elements("ins")[0].text()),
        ("acme".into(), "Acme Films".into())
    );
    let wrong = browser.post(SETTINGS, &[("act", "update"), ("name", "")]).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "name"), "{}", wrong.main());
    assert_eq!(browser.post(SETTINGS, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn a_required_second_factor_holds_from_the_next_request_on() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let fields = [
        ("act", "update"),
        ("name", "acme"),
        ("second_factor_required.shown", "1"),
        ("second_factor_required", "true"),
    ];
    let saved = browser.post(SETTINGS, &fields).await;
    assert_eq!(saved.status, 303, "{}", saved.main());
    assert_eq!(stored(&acme).await[2], true);
    let next = browser.get(SETTINGS).await;
    assert_eq!(next.status, 303, "{}", next.main());
    assert!(next.location().is_some_and(|to| to.starts_with("/console/sign-in?r=")), "{:?}", next.location());
}

#[tokio::test]
async fn the_ceiling_is_shown_and_others_than_owners_see_nothing() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    assert!(browser.get(SETTINGS).await.main().contains("0 B, without a ceiling"));
    let path = format!("/admin/organizations/{}/quota", acme.id);
    site.admin().patch(&path, json!({"size": 4_000_000_000_u64})).await.done();
    let page = browser.get(SETTINGS).await;
    assert_eq!(page.texts("meter"), ["0 B of 4 GB"], "{}", page.main());
    let admin = signed_in(&site, ADMIN).await;
    assert_eq!(admin.get(SETTINGS).await.status, 200);
    for role in ["tenant_admin", "viewer"] {
        let member = acme.member_with_role(role).await;
        let denied = signed_in(&site, &member.username).await.get(SETTINGS).await;
        assert!(denied.status == 403 && denied.main().contains("roster.organization.update"), "{}", denied.main());
    }
}
