//! *Why?* and the decision log.

use serde_json::json;

use crate::harness::console::Browser;
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::harness::waiting::eventually;

const VIDEOS: &str = "/api/videos/:id";

/// A site with a catalog, and a browser of an owner of `acme`.
async fn prepared(site: &Site) -> (Organization<'_>, Browser) {
    site.import(json!([{"name": "film"}, {"name": "film.delete", "parent": "film", "http_methods": "DELETE", "http_path": VIDEOS}]))
        .await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = site.visitor();
    browser.sign_in(&owner.username, PASSWORD).await;
    (acme, browser)
}

fn question(uid: &str) -> String {
    format!("/console/o/acme/why?uid={uid}&method=DELETE&path=/api/videos/7")
}

#[tokio::test]
async fn a_denial_names_its_reason_and_what_would_change_it() {
    let site = Site::start().await;
    let (acme, browser) = prepared(&site).await;
    let kim = acme.member_with_role("viewer").await;
    acme.role("cutter", &["film.delete"]).await;
    let page = browser.get(&question(&kim.uid)).await;
    let verdict = page.with_class("verdict").remove(0);
    assert!(page.status == 200 && verdict.has_class("no"), "{}", page.text);
    assert!(verdict.text().contains("no_permission") && verdict.text().contains(&kim.username), "{}", verdict.text());
    assert_eq!(page.value("uid").as_deref(), Some(kim.uid.as_str()));
    assert!(page.main().contains(VIDEOS) && page.main().contains("film.delete"), "{}", page.main());
    // The role is offered, and assigning it turns the answer. Undo turns it back.
    let offer = page.elements("form").into_iter().find(|form| form.inner.contains("role_id")).expect("an offer");
    let fields: Vec<(String, String)> = offer
        .elements("input")
        .iter()
        .map(|input| (input.attributes["name"].clone(), input.attributes["value"].clone()))
        .collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let done = browser.post(&question(&kim.uid), &fields).await;
    let after = browser.follow(&done).await;
    assert!(after.with_class("verdict")[0].has_class("yes"), "{}", after.main());
    let undo = after.with_class("notice")[0].elements("input");
    let undo: Vec<(&str, &str)> =
        undo.iter().map(|input| (input.attributes["name"].as_str(), input.attributes["value"].as_str())).collect();
    browser.post(&question(&kim.uid), &undo).await;
    assert!(browser.get(&question(&kim.uid)).await.with_class("verdict")[0].has_class("no"));
}

#[tokio::test]
async fn people_are_found_by_their_login_and_compared() {
    let site = Site::start().await;
    let (acme, browser) = prepared(&site).await;
    let role = acme.role("cutter", &["film.delete"]).await;
    let (kim, lee) = (acme.member().await, acme.member().await);
    acme.assign(&lee.uid, &role).await;
    let page = browser.get(&format!("{}&with={}", question(&kim.username), lee.uid)).await;
    let verdicts: Vec<bool> = page.with_class("verdict").iter().map(|verdict| verdict.has_class("yes")).collect();
    assert_eq!((page.status, verdicts), (200, vec![false, true]), "{}", page.text);
    let unknown = browser.get(&question("nobody-of-this-name")).await;
    assert_eq!((unknown.status, unknown.value("path").as_deref()), (400, Some("/api/videos/7")), "{}", unknown.text);
}

#[tokio::test]
async fn odd_paths_are_answers_and_half_questions_are_told() {
    let site = Site::start().await;
    let (acme, browser) = prepared(&site).await;
    let kim = acme.member().await;
    for (path, reason) in [("/api/../x", "path_not_canonical"), ("/nowhere", "unmapped_route")] {
        let page = browser.get(&format!("/console/o/acme/why?uid={}&method=GET&path={path}", kim.uid)).await;
        assert!(page.with_class("verdict")[0].text().contains(reason), "{}", page.main());
    }
    let half = browser.get(&format!("/console/o/acme/why?uid={}&scope_type=organization", kim.uid)).await;
    assert_eq!(half.status, 400, "{}", half.main());
    let empty = browser.get("/console/o/acme/why").await;
    assert_eq!((empty.status, empty.with_class("empty").len()), (200, 1));
    let payload = "<script>alert(1)</script>";
    let page = browser
        .get(&format!("/console/o/acme/why?uid={}&method=GET&path=%3Cscript%3Ealert(1)%3C/script%3E", kim.uid))
        .await;
    page.require_escaped(payload);
}

#[tokio::test]
async fn decisions_lead_to_why() {
    let site = Site::start().await;
    let (acme, browser) = prepared(&site).await;
    let empty = browser.get("/console/o/acme/decisions").await;
    assert_eq!(empty.with_class("empty").len(), 1, "{}", empty.main());
    let kim = acme.member().await;
    acme.check(json!({"uid": kim.uid, "method": "DELETE", "path": "/api/videos/7"})).await;
    let page = eventually("the decision is logged", async || {
        let page = browser.get("/console/o/acme/decisions?allow=false").await;
        page.links().iter().any(|link| link.contains("/why?uid=")).then_some(page)
    })
    .await;
    // The reason is in words, with its code for pointers; the filter has the same words.
    let reason = page.elements("span").into_iter().find(|span| span.attribute("title") == Some("no_permission"));
    assert_eq!(reason.expect("a reason").text(), "No role has the permission");
    let option = page.elements("option").into_iter().find(|option| option.attribute("value") == Some("no_permission"));
    assert_eq!(option.expect("a choice").text(), "No role has the permission");
    let why = page.links().into_iter().find(|link| link.contains("/why?uid=")).expect("a link");
    assert!(browser.get(&why).await.with_class("verdict")[0].text().contains("no_permission"));
    let allowed = browser.get("/console/o/acme/decisions?allow=true").await;
    assert!(!allowed.links().iter().any(|link| link.contains("/why?uid=")), "{}", allowed.main());
}
