//! The pages of the site: organizations and first steps.

use crate::harness::console::{Browser, borrowed};
use crate::harness::site::{ADMIN, PASSWORD, Site};

async fn administrator(site: &Site) -> Browser {
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    browser
}

const LIST: &str = "/console/site/organizations";

#[tokio::test]
async fn an_organization_is_created_once_and_leads_to_its_invitations() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let form = browser.get(LIST).await;
    let once = form.value("once").expect("a key");
    let fields = [("org_code", "acme"), ("name", "Acme <b>Studios"), ("once", once.as_str())];
    let first = browser.post(LIST, &fields).await;
    assert_eq!((first.status, first.location()), (303, Some("/console/o/acme/invitations")), "{}", first.main());
    let page = browser.follow(&first).await;
    assert_eq!((page.status, page.notices().len()), (200, 1));
    // Sent twice, it is created once.
    let second = browser.post(LIST, &fields).await;
    assert_eq!((second.status, second.location()), (303, first.location()));
    let list = browser.get(&format!("{LIST}?keyword=acme")).await;
    list.require_escaped("Acme <b>Studios");
    assert_eq!(list.with_class("row-link").len(), 1, "{}", list.main());
    let taken = browser.post(LIST, &[("org_code", "acme"), ("name", "Another")]).await;
    assert_eq!((taken.status, taken.value("name").as_deref()), (409, Some("Another")), "{}", taken.main());
    let wrong = browser.post(LIST, &[("org_code", "A b"), ("name", "Another")]).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "org_code"), "{}", wrong.text);
}

#[tokio::test]
async fn an_organization_is_changed_and_a_stale_form_is_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = administrator(&site).await;
    let address = format!("{LIST}/{}", acme.id);
    let version = browser.get(&address).await.value("version").expect("a version");
    let change = |name| [("act", "update"), ("name", name), ("version", version.as_str())];
    let saved = browser.post(&address, &change("Acme Studios")).await;
    assert_eq!(browser.follow(&saved).await.h1(), "Acme Studios");
    let stale = browser.post(&address, &change("Acme Films")).await;
    assert_eq!((stale.status, stale.value("name").as_deref()), (412, Some("Acme Films")), "{}", stale.main());
    let closed = browser.post(&address, &[("act", "deactivate")]).await;
    let page = browser.follow(&closed).await;
    let undo = page.with_class("notice")[0].elements("form").remove(0);
    assert_eq!(undo.attribute("action"), Some(address.as_str()));
    browser.post(&address, &[("act", "activate")]).await;
    let status = site.admin().get(&format!("/admin/organizations/{}", acme.id)).await.data()["status"].clone();
    assert_eq!(status, "active");
    assert_eq!(browser.post(&address, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn first_steps_show_what_is_done_and_lead_to_the_import_of_a_catalog() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let steps = "/console/site/first-steps";
    assert_eq!(browser.get("/console").await.location(), Some(steps));
    let page = browser.get(steps).await;
    assert_eq!(page.with_class("rail")[0].elements("li").len(), 5, "{}", page.main());
    let document =
        "openapi: 3.0.3\ninfo: {title: Films, version: '1'}\npaths:\n  /films:\n    get: {operationId: list_films}\n";
    // The forms of the last step are those of the catalog page.
    let catalog = "/console/site/catalog";
    let forms = page.elements("section").into_iter().find(|part| part.attribute("id") == Some("protect")).expect("it");
    let forms = forms.elements("form");
    assert!(forms.iter().all(|form| form.attribute("action") == Some(catalog)) && !forms.is_empty(), "{}", page.main());
    let sent = [("act", "preview"), ("app", "films"), ("document", document)];
    let preview = browser.post(catalog, &sent).await;
    let form = preview.elements("form").into_iter().find(|form| form.has_class("card")).expect("the form to apply");
    let mut fields = form.fields();
    fields.push(("act".into(), "apply".into()));
    let imported = browser.post(catalog, &borrowed(&fields)).await;
    assert_eq!(imported.status, 303, "{}", imported.main());
    let step = browser.get(steps).await.with_class("rail")[0].elements("li").remove(4);
    assert!(step.text().contains("done"), "{}", step.text());
    let broken = browser.post(catalog, &[("act", "preview"), ("app", "films"), ("document", "{")]).await;
    assert_eq!((broken.status, broken.faults().len()), (400, 1), "{}", broken.main());
}

#[tokio::test]
async fn the_start_page_and_the_switcher_lead_to_the_organizations() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let acme = site.organization("acme").await;
    assert_eq!(browser.get("/console").await.location(), Some("/console/site"));
    for address in ["/console/me", "/console/site", "/console/o/acme/members"] {
        let links = browser.get(address).await.links();
        let has = |start: &str| links.iter().any(|link| link.starts_with(start));
        assert!(has("/console/o/acme") && has(LIST), "{address}: {links:?}");
    }
    let page = browser.get(&format!("{LIST}/{}", acme.id)).await;
    let links = page.links();
    assert!(["/console/o/acme", "/console/o/acme/usage"].iter().all(|link| links.iter().any(|one| one == link)));
    // Each member starts where there is something to see.
    for (role, start) in [("tenant_owner", "/console/o/acme"), ("member", "/console/me")] {
        let visitor = site.visitor();
        visitor.sign_in(&acme.member_with_role(role).await.username, PASSWORD).await;
        assert_eq!(visitor.get("/console").await.location(), Some(start), "{role}");
        assert!(!visitor.get("/console/me").await.links().contains(&LIST.to_owned()), "{role}");
    }
}

#[tokio::test]
async fn the_first_member_is_invited_as_the_owner() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let fields = [("org_code", "first"), ("name", "First"), ("once", "k")];
    let made = browser.post(LIST, &fields).await;
    let form = browser.follow(&made).await;
    let select = form.elements("select").into_iter().find(|one| one.attribute("name") == Some("role_id")).expect("it");
    let proposed = form.value("role_id");
    let chosen = select.elements("option").into_iter().find(|one| one.attribute("value") == proposed.as_deref());
    assert_eq!(chosen.expect("a proposed role").text(), "Owner");
}
