//! Direct grants: finding a member, granting and revoking with Undo, and granting to somebody unknown.

use serde_json::{Value, json};

use super::roles::{rows, undo};
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::site::{ADMIN, PASSWORD, Site};

const GRANTS: &str = "/console/site/grants";

async fn administrator(site: &Site) -> Browser {
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    browser
}

/// The grants of a member as the API has them: scope type, scope id, module, action.
async fn held(site: &Site, uid: &str) -> Vec<String> {
    let list = site.admin().get(&format!("/admin/permissions/grants?member={uid}")).await.data();
    let text = |one: &Value| {
        ["scope_type", "scope_id", "module", "action"].map(|name| one[name].as_str().unwrap_or_default()).join(" ")
    };
    list["items"].as_array().expect("items").iter().map(text).collect()
}

fn right<'a>(uid: &'a str, scope_id: &'a str) -> [(&'a str, &'a str); 6] {
    [
        ("act", "grant"),
        ("uid", uid),
        ("scope_type", "site"),
        ("scope_id", scope_id),
        ("module", "cameras"),
        ("action", "view"),
    ]
}

/// The value of the button in the row that has this text.
fn revoke_button(page: &Page, text: &str) -> String {
    let row = page.elements("tr").into_iter().find(|row| row.text().contains(text)).expect("the row");
    let button = row.elements("button").remove(0);
    assert_eq!((button.attribute("name"), button.attribute("form")), (Some("act"), Some("rows")));
    button.attribute("value").expect("a value").to_owned()
}

#[tokio::test]
async fn the_page_of_a_member_leads_to_its_grants_for_who_may_list_them() {
    let site = Site::start().await;
    let member = site.member().await;
    let page = format!("/console/site/members/{}", member.uid);
    let address = format!("{GRANTS}?member={}", member.uid);
    let browser = administrator(&site).await;
    assert!(browser.get(&page).await.links().contains(&address));
    assert_eq!(browser.get(&address).await.h1(), format!("Direct grants of {}", member.username));
    let reader = site.platform_member(&["roster.user.get"]).await;
    let browser = site.visitor();
    browser.sign_in(&reader.username, PASSWORD).await;
    let shown = browser.get(&page).await;
    assert_eq!((shown.status, shown.links().contains(&address)), (200, false), "{}", shown.main());
}

#[tokio::test]
async fn a_right_is_granted_and_revoked_at_once_and_each_can_be_undone() {
    let site = Site::start().await;
    let member = site.member().await;
    let browser = administrator(&site).await;
    let address = format!("{GRANTS}?member={}", member.uid);
    let empty = browser.get(&address).await;
    assert_eq!((empty.status, empty.texts("empty").len()), (200, 1));
    assert_eq!(empty.h1(), format!("Direct grants of {}", member.username));
    // What browsers say when a pattern does not match.
    let inputs = empty.elements("input").into_iter().filter(|input| input.attribute("pattern").is_some());
    let titled = inputs.filter(|input| input.attribute("title").is_some_and(|title| title.contains("lower-case")));
    let titled: Vec<String> = titled.filter_map(|input| input.attribute("name").map(str::to_owned)).collect();
    assert_eq!(titled, ["scope_type", "module", "action"]);

    let granted = browser.post(GRANTS, &right(&member.uid, "north side 7")).await;
    assert_eq!((granted.status, granted.location()), (303, Some(address.as_str())), "{}", granted.main());
    let page = browser.follow(&granted).await;
    assert_eq!(held(&site, &member.uid).await, ["site north side 7 cameras view"]);
    assert_eq!(rows(&page, "Direct grants")[0][..4], ["site", "north side 7", "cameras", "view"]);
    undo(&browser, &page).await;
    assert!(held(&site, &member.uid).await.is_empty());

    browser.post(GRANTS, &right(&member.uid, "north side 7")).await;
    browser.post(GRANTS, &right(&member.uid, "*")).await;
    let page = browser.get(&address).await;
    assert_eq!(rows(&page, "Direct grants")[0][1], "all");
    let act = revoke_button(&page, "north side 7");
    let revoked = browser.post(GRANTS, &[("act", &act), ("uid", &member.uid)]).await;
    assert_eq!((revoked.status, revoked.location()), (303, Some(address.as_str())));
    assert_eq!(held(&site, &member.uid).await, ["site * cameras view"]);
    undo(&browser, &browser.follow(&revoked).await).await;
    assert_eq!(held(&site, &member.uid).await, ["site * cameras view", "site north side 7 cameras view"]);
    // Revoked twice, it says so and offers no Undo.
    browser.post(GRANTS, &[("act", &act), ("uid", &member.uid)]).await;
    let again = browser.post(GRANTS, &[("act", &act), ("uid", &member.uid)]).await;
    let page = browser.follow(&again).await;
    assert!(page.notices()[0].contains("did not have") && page.with_class("notice-undo").is_empty());
}

#[tokio::test]
async fn a_member_is_found_by_name_and_faults_keep_what_was_typed() {
    let site = Site::start().await;
    for name in ["Kim Lee", "Kim Park"] {
        let username = name.to_lowercase().replace(' ', "-");
        site.admin().post("/admin/members", json!({"username": username, "display_name": name})).await.done();
    }
    let browser = administrator(&site).await;
    let found = browser.get(&format!("{GRANTS}?q=kim")).await;
    let mut names: Vec<String> = found.texts("row-link");
    names.sort();
    assert_eq!(names, ["Kim Lee", "Kim Park"]);
    let href = found.with_class("row-link")[0].attribute("href").expect("a link").to_owned();
    assert_eq!(browser.get(&href).await.status, 200);
    assert_eq!(browser.get(&format!("{GRANTS}?q=nobody-of-this-name")).await.texts("empty").len(), 1);

    let uid = href.rsplit('=').next().expect("an id").to_owned();
    let mut wrong = right(&uid, "north");
    wrong[2].1 = "Site!";
    let faulty = browser.post(GRANTS, &wrong).await;
    assert_eq!((faulty.status, faulty.faults()[0].0.as_str()), (400, "scope_type"), "{}", faulty.main());
    assert_eq!(faulty.value("scope_id").as_deref(), Some("north"));
    for (address, status) in [(format!("{GRANTS}?member=nobody"), 404), (GRANTS.to_owned(), 200)] {
        assert_eq!(browser.get(&address).await.status, status, "{address}");
    }
    for act in ["explode", "revoke ", "revoke a b"] {
        assert_eq!(browser.post(GRANTS, &[("act", act), ("uid", &uid)]).await.status, 400, "{act}");
    }
}

#[tokio::test]
async fn somebody_unknown_gets_a_right_before_the_first_sign_in_once() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let form = browser.get(GRANTS).await;
    let once = form.value("once").expect("a key");
    let fields = [
        ("act", "grant"),
        ("once", once.as_str()),
        ("authentik_sub", "sub-1"),
        ("email", "kim@example.org"),
        ("display_name", ""),
        ("scope_type", "site"),
        ("scope_id", "north"),
        ("module", "cameras"),
        ("action", "view"),
    ];
    let first = browser.post(GRANTS, &fields).await;
    let second = browser.post(GRANTS, &fields).await;
    assert_eq!((first.status, first.location()), (303, Some("/console/site/grants?q=kim%40example.org")));
    assert_eq!((second.status, second.location()), (303, first.location()));
    assert_eq!(site.admin().get("/admin/audit?action=grant.create").await.data()["total"], 1);
    let page = browser.follow(&second).await;
    assert_eq!(page.with_class("row-link").len(), 1);
    let uid =
        page.with_class("row-link")[0].attribute("href").and_then(|href| href.rsplit('=').next().map(str::to_owned));
    let uid = uid.expect("an id");
    assert_eq!(held(&site, &uid).await, ["site north cameras view"]);
    undo(&browser, &page).await;
    assert!(held(&site, &uid).await.is_empty());
    let mut taken = fields;
    taken[1].1 = "another-key-of-the-form";
    taken[2].1 = "sub-2";
    let taken = browser.post(GRANTS, &taken).await;
    assert_eq!((taken.status, taken.value("authentik_sub").as_deref()), (409, Some("sub-2")), "{}", taken.main());
}

#[tokio::test]
async fn grants_are_for_administrators_of_the_site_in_both_languages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let payload = "<img src=x onerror=alert(1)>";
    let member = acme.member().await;
    let granter = site.platform_member(&["roster.grant.list", "roster.user.get"]).await;
    let administrator = administrator(&site).await;
    administrator.post(GRANTS, &right(&member.uid, payload)).await;
    let address = format!("{GRANTS}?member={}", member.uid);
    administrator.get(&address).await.require_escaped(payload);
    let act = revoke_button(&administrator.get(&address).await, payload);
    let fields = [("act".to_owned(), act), ("uid".to_owned(), member.uid.clone())];
    assert_eq!(administrator.post(GRANTS, &borrowed(&fields)).await.status, 303);
    assert!(held(&site, &member.uid).await.is_empty(), "texts of odd signs are revoked too");

    // What one may not do is not offered, and refused.
    let reader = site.visitor().in_chinese();
    reader.sign_in(&granter.username, PASSWORD).await;
    let page = reader.get(&address).await;
    assert_eq!((page.status, page.form(GRANTS).is_none()), (200, true), "{}", page.main());
    assert_eq!(page.h1(), format!("{} 的直接授權", member.username));
    assert_eq!(reader.post(GRANTS, &right(&member.uid, "north")).await.status, 403);
    // A right that the granter does not hold.
    let other = site.platform_member(&["roster.grant.list", "roster.user.get", "roster.grant.create"]).await;
    let browser = site.visitor();
    browser.sign_in(&other.username, PASSWORD).await;
    let refused = browser.post(GRANTS, &right(&member.uid, "north")).await;
    assert_eq!((refused.status, refused.value("scope_id").as_deref()), (403, Some("north")), "{}", refused.main());
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = site.visitor();
    browser.sign_in(&owner.username, PASSWORD).await;
    assert_eq!(browser.get(&address).await.status, 403);
}
