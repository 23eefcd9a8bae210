//! The page of service keys.

use serde_json::json;

use super::signed_in;
use crate::harness::console::{Page, borrowed};
use crate::harness::site::{ADMIN, Site};

const LIST: &str = "/console/site/keys";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>\"'";

/// The status of a list of jobs with this key.
async fn with_key(site: &Site, key: &str) -> u16 {
    site.nobody().with("x-api-key", key).get("/api/v1/jobs").await.status
}

fn secret(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}", page.main());
    page.with_class("secret")[0].elements("code")[0].text()
}

#[tokio::test]
async fn a_key_of_a_preset_is_created_once_rotated_and_deleted() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let empty = browser.get(LIST).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("Service keys".into(), 1));
    let preset = empty.links().into_iter().find(|link| link.contains("?for=worker")).expect("a preset");
    let form = browser.get(preset.split('#').next().expect("an address")).await;
    let form = form.elements("form").into_iter().find(|form| form.inner.contains("value=\"create\"")).expect("a form");
    let mut fields = form.fields();
    let sent = |name: &str| fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect();
    let (service, scopes, kind): (Vec<String>, Vec<String>, Vec<String>) =
        (sent("service_name"), sent("scopes"), sent("type"));
    assert_eq!((service, scopes, kind), (vec!["worker".into()], vec!["jobs:write".into()], vec!["msvc".to_owned()]));
    for (name, value) in &mut fields {
        match name.as_str() {
            "name" => *value = PAYLOAD.into(),
            "expires_at" => *value = "30d".into(),
            _ => {}
        }
    }
    let made = browser.post(LIST, &borrowed(&fields)).await;
    made.require_escaped(PAYLOAD);
    let text = secret(&made);
    assert_eq!(with_key(&site, &text).await, 200);
    let twice = browser.post(LIST, &borrowed(&fields)).await;
    assert_eq!(
        (twice.status, twice.with_class("secret").len(), twice.notices().len()),
        (409, 0, 1),
        "{}",
        twice.main()
    );
    let list = browser.get(LIST).await;
    list.require_escaped(PAYLOAD);
    let rows = list.elements("tbody")[0].elements("tr");
    assert!(rows.len() == 1 && !list.text.contains(&text), "{}", list.main());
    let to: Vec<String> = rows[0].elements("a").iter().filter_map(|a| a.attribute("href").map(str::to_owned)).collect();
    let question = browser.get(&to[0]).await;
    let rotated = browser.post(LIST, &borrowed(&question.hidden(LIST))).await;
    let fresh = secret(&rotated);
    assert_eq!((with_key(&site, &text).await, with_key(&site, &fresh).await), (200, 200));
    let question = browser.get(&to[1]).await;
    let deleted = browser.post(LIST, &borrowed(&question.hidden(LIST))).await;
    assert_eq!((deleted.status, deleted.location(), with_key(&site, &fresh).await), (303, Some(LIST), 401));
    assert_eq!(browser.get(&to[0]).await.status, 404);
}

#[tokio::test]
async fn wrong_input_keeps_what_was_typed() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let none = browser.post(LIST, &[("act", "create"), ("service_name", "worker")]).await;
    assert_eq!((none.status, none.faults()[0].0.as_str()), (400, "scopes"), "{}", none.main());
    let fields = [("act", "create"), ("service_name", PAYLOAD), ("scopes", "jobs:read"), ("type", "msys")];
    let wrong = browser.post(LIST, &fields).await;
    wrong.require_escaped(PAYLOAD);
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "service_name"), "{}", wrong.main());
    assert_eq!(wrong.value("service_name").as_deref(), Some(PAYLOAD));
    let kept: Vec<_> =
        wrong.elements("input").into_iter().filter(|input| input.attribute("checked").is_some()).collect();
    let kept: Vec<Option<&str>> = kept.iter().map(|input| input.attribute("value")).collect();
    assert_eq!(kept, [Some("msys"), Some("jobs:read")]);
    // A key of another system is known by its hash, and has no text to show.
    let hash = "a".repeat(64);
    let imported = [("act", "create"), ("service_name", "old"), ("scopes", "jobs:read"), ("key_hash", hash.as_str())];
    let imported = browser.post(LIST, &imported).await;
    assert_eq!((imported.status, imported.with_class("secret").len()), (200, 0), "{}", imported.main());
    assert_eq!(browser.post(LIST, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn who_may_only_list_sees_the_keys_only() {
    let site = Site::start().await;
    let key = json!({"service_name": "gate", "scopes": ["permissions:check"]});
    site.admin().post("/admin/api-keys", key).await.done();
    let reader = site.platform_member(&["roster.api_key.list"]).await;
    let browser = signed_in(&site, &reader.username).await;
    let list = browser.get(LIST).await;
    let rows = list.elements("tbody")[0].elements("tr");
    assert_eq!((list.status, rows.len(), rows[0].elements("a").len()), (200, 1, 0), "{}", list.main());
    assert_eq!(list.value("service_name"), None);
    let fields = [("act", "create"), ("service_name", "x"), ("scopes", "*")];
    assert_eq!(browser.post(LIST, &fields).await.status, 403);
}
