//! The grid of permissions and roles: what it shows, what a preview says, and what applying changes.

use serde_json::{Value, json};

use super::roles::{owner, undo};
use crate::harness::console::{Browser, Element, Page};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::permissions::{ticks, ticks_url, videos};

const GRID: &str = "/console/o/acme/grid";
const OF_SITE: &str =
    "roster.organization.create for editor, locked: only roles of the organization platform can have it";

/// The boxes of the page: label, whether it is checked, and its element.
fn boxes(page: &Page) -> Vec<(String, bool, Element)> {
    let inputs = page.with_class("cell").into_iter();
    inputs.map(|cell| (cell.attributes["aria-label"].clone(), cell.attributes.contains_key("checked"), cell)).collect()
}

fn find(page: &Page, label: &str) -> (bool, Element) {
    let found = boxes(page).into_iter().find(|(known, ..)| known == label);
    found.map(|(_, is_on, cell)| (is_on, cell)).unwrap_or_else(|| panic!("no box {label}"))
}

/// What a browser sends for the form of the page, with these boxes turned over.
fn sent(page: &Page, turned: &[&str]) -> Vec<(String, String)> {
    let form = page.elements("form").into_iter().find(|form| form.attribute("id") == Some("grid")).expect("the form");
    let hidden = form.elements("input").into_iter().filter(|input| input.attribute("type") == Some("hidden"));
    let pair = |input: &Element| (input.attributes["name"].clone(), input.attributes["value"].clone());
    let mut fields: Vec<(String, String)> = hidden.map(|input| pair(&input)).collect();
    for (label, is_on, cell) in boxes(page) {
        assert_eq!(cell.attribute("form"), Some("grid"));
        let is_turned = turned.contains(&label.as_str());
        assert!(!is_turned || !cell.attributes.contains_key("disabled"), "{label} is locked");
        if is_on != is_turned && !cell.attributes.contains_key("disabled") {
            fields.push(pair(&cell));
        }
    }
    fields
}

async fn submit(browser: &Browser, address: &str, page: &Page, act: &str, turned: &[&str]) -> Page {
    let mut fields = sent(page, turned);
    fields.push(("act".to_owned(), act.to_owned()));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    browser.post(address, &fields).await
}

#[tokio::test]
async fn a_box_tells_whether_a_role_holds_a_permission_and_who_may_change_it() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    acme.role("editor", &["video.item.delete", "report.read"]).await;

    // Roster's own permissions are left out where there are others, and one link away.
    let page = browser.get(&format!("{GRID}?role=editor&role=tenant_owner")).await;
    assert!(boxes(&page).iter().all(|(label, ..)| !label.starts_with("roster.")));
    let all = page.links().into_iter().find(|link| link.contains("all=1")).expect("a link to all");
    let page = browser.get(&all).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Roles and permissions"));
    let heads: Vec<String> =
        page.with_class("grid")[0].elements("thead")[0].elements("th").iter().map(Element::text).collect();
    assert_eq!(heads, ["Permission", "editor", "Owner"]);
    let protected = "locked: this role is protected: it holds everything";
    for (label, is_on, classes, is_locked) in [
        ("video.item.delete for editor".to_owned(), true, "cell", false),
        ("video.item for editor, implied".to_owned(), false, "cell implied", false),
        ("report.read for editor, asleep".to_owned(), true, "cell asleep", false),
        ("video.list for editor".to_owned(), false, "cell", false),
        (format!("video.list for Owner, {protected}"), true, "cell", true),
    ] {
        let (checked, cell) = find(&page, &label);
        let seen = (checked, cell.attribute("class"), cell.attributes.contains_key("disabled"));
        assert_eq!(seen, (is_on, Some(classes), is_locked), "{label}");
    }
    assert!(!find(&page, OF_SITE).0);
    assert_eq!(page.notices(), [""; 0], "an owner can give everything");
    // Categories fold without script.
    let folds: Vec<String> = page.with_class("fold").iter().map(|fold| fold.attributes["aria-label"].clone()).collect();
    assert!(folds.contains(&"Fold video".to_owned()) && folds.contains(&"Fold roster.role".to_owned()), "{folds:?}");
    assert!(page.with_class("fold").iter().all(|fold| fold.attribute("name").is_none()), "folding is not sent");
}

#[tokio::test]
async fn a_preview_changes_nothing_and_applying_can_be_undone() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &["video.list"]).await;
    let kim = acme.member().await;
    acme.assign(&kim.uid, &role).await;
    let before = ticks(&acme, &role).await;
    let address = format!("{GRID}?role=editor");
    let turned = ["video.list for editor", "video.item.delete for editor"];

    let page = browser.get(&address).await;
    let preview = submit(&browser, &address, &page, "preview", &turned).await;
    assert_eq!(preview.status, 200, "{}", preview.main());
    let report =
        preview.elements("section").into_iter().find(|part| part.attribute("id") == Some("preview")).expect("it");
    let lines: Vec<String> = report.elements("ul")[0].elements("li").iter().map(Element::text).collect();
    assert_eq!(lines, ["+ video.item.delete", "◩ video.item (implied)", "− video.list"]);
    let text = report.text();
    assert!(text.contains("Members who gain a right: 1") && text.contains("Members who lose a right: 1"), "{text}");
    assert!(text.contains(&kim.username), "{text}");
    let why = format!("/console/o/acme/why?uid={}&permission=video.item.delete", kim.uid);
    assert!(preview.links().contains(&why), "{:?}", preview.links());
    assert_eq!(ticks(&acme, &role).await, before);
    assert!(find(&preview, "video.item.delete for editor").0, "the form keeps what was checked");

    let buttons: Vec<String> = preview.elements("button").iter().map(Element::text).collect();
    assert!(buttons.contains(&"Apply to 1 role".to_owned()), "{buttons:?}");
    let applied = submit(&browser, &address, &preview, "apply", &[]).await;
    assert_eq!((applied.status, applied.location()), (303, Some(address.as_str())), "{}", applied.main());
    let after: Vec<String> = ticks(&acme, &role).await.into_iter().collect();
    assert_eq!(after, ["video", "video.item", "video.item.delete"]);
    let notified = browser.follow(&applied).await;
    undo(&browser, &notified).await;
    assert_eq!(ticks(&acme, &role).await, before);
}

#[tokio::test]
async fn each_role_is_reported_and_a_stale_one_keeps_no_other_from_changing() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let (editor, writer) = (acme.role("editor", &[]).await, acme.role("writer", &[]).await);
    let address = format!("{GRID}?role=editor&role=writer");
    let page = browser.get(&address).await;
    acme.owner().put(&ticks_url(&editor), json!({"permission_ids": ["report.read"]})).await.done();

    let turned = ["video.list for editor", "video.list for writer"];
    let answer = submit(&browser, &address, &page, "apply", &turned).await;
    assert_eq!(answer.status, 412);
    let cards: Vec<String> = answer.texts("card");
    assert!(cards.iter().any(|card| card.starts_with("writer") && card.contains("Saved")), "{cards:?}");
    assert!(cards.iter().any(|card| card.starts_with("editor") && card.contains("version_stale")), "{cards:?}");
    assert_eq!(ticks(&acme, &writer).await.len(), 2);
    assert!(!ticks(&acme, &editor).await.contains("video.list"));
    // The page shows the present state, so that the form can be sent again.
    let again = submit(&browser, &address, &answer, "apply", &[]).await;
    assert_eq!(again.status, 303, "{}", again.main());
    assert!(ticks(&acme, &editor).await.contains("video.list"));
}

#[tokio::test]
async fn a_stale_form_keeps_what_somebody_else_changed() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &["video.list"]).await;
    let address = format!("{GRID}?role=editor");
    let page = browser.get(&address).await;
    let theirs = json!({"permission_ids": ["video.list", "video.item.delete"]});
    acme.owner().put(&ticks_url(&role), theirs).await.done();

    let stale = submit(&browser, &address, &page, "preview", &["video.list for editor"]).await;
    assert_eq!((stale.status, stale.notices().len()), (412, 1), "{}", stale.main());
    let boxes_of = |page: &Page| (find(page, "video.list for editor").0, find(page, "video.item.delete for editor").0);
    assert_eq!(boxes_of(&stale), (false, true));
    let stale = submit(&browser, &address, &page, "apply", &["video.list for editor"]).await;
    assert_eq!((stale.status, boxes_of(&stale)), (412, (false, true)), "{}", stale.main());
    let again = submit(&browser, &address, &stale, "apply", &[]).await;
    assert_eq!(again.status, 303, "{}", again.main());
    let held: Vec<String> = ticks(&acme, &role).await.into_iter().collect();
    assert_eq!(held, ["video", "video.item", "video.item.delete"]);
}

#[tokio::test]
async fn what_no_role_here_can_have_is_locked_and_a_new_application_says_who_can_give_it() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    acme.role("editor", &[]).await;
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    let page = browser.get(&format!("{GRID}?role=editor&all=1")).await;
    assert!(find(&page, OF_SITE).1.attributes.contains_key("disabled"));
    assert!(!find(&page, "video.list for editor").1.attributes.contains_key("disabled"));
    site.platform_member(&["roster.role.list"]).await;
    let page = browser.get("/console/o/platform/grid").await;
    let of_platform: Vec<(String, bool, Element)> =
        boxes(&page).into_iter().filter(|(label, ..)| label.starts_with("roster.organization.create for r")).collect();
    assert_eq!(of_platform.len(), 1);
    assert!(!of_platform[0].2.attributes.contains_key("disabled"), "{}", of_platform[0].0);

    let administrator = acme.member_with_role("tenant_admin").await;
    let browser = site.visitor();
    browser.sign_in(&administrator.username, PASSWORD).await;
    let notices = browser.get(&format!("{GRID}?role=editor")).await.notices();
    assert_eq!(notices.len(), 1);
    assert!(
        notices[0].starts_with("You hold no permission of these applications") && notices[0].ends_with(": video"),
        "{notices:?}"
    );
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_hold_and_forged_boxes_change_nothing() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &["video.list"]).await;
    let rights = ["roster.role.list", "roster.role.list_permissions", "roster.role.grant", "video.item.delete"];
    let lee = acme.member_with(&rights).await;
    let browser = site.visitor();
    browser.sign_in(&lee.username, PASSWORD).await;
    let address = format!("{GRID}?role=editor");

    let page = browser.get(&address).await;
    let why = "locked: you do not hold this permission yourself";
    let (is_on, locked) = find(&page, &format!("video.list for editor, {why}"));
    assert!(is_on && locked.attributes.contains_key("disabled"));
    let mut forged = sent(&page, &[]);
    forged.retain(|(name, _)| name != "shown");
    forged.extend(
        [("shown", "video.list report.read"), ("c0", "report.read"), ("act", "apply")]
            .map(|(n, v)| (n.to_owned(), v.to_owned())),
    );
    let fields: Vec<(&str, &str)> = forged.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    browser.post(&address, &fields).await;
    assert!(ticks(&acme, &role).await.contains("video.list"));

    let reader = acme.member_with(&rights[..2]).await;
    let browser = site.visitor();
    browser.sign_in(&reader.username, PASSWORD).await;
    let page = browser.get(&address).await;
    assert!(boxes(&page).iter().all(|(.., cell)| cell.attributes.contains_key("disabled")));
    assert!(!page.elements("button").iter().any(|button| button.attribute("value") == Some("preview")));
}

#[tokio::test]
async fn a_filtered_grid_leaves_what_it_does_not_show() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &["video.item.delete"]).await;
    let address = format!("{GRID}?role=editor&q=report");

    let page = browser.get(&address).await;
    let labels: Vec<String> = boxes(&page).into_iter().map(|(label, ..)| label).collect();
    assert_eq!(labels, ["report for editor", "report.read for editor"]);
    submit(&browser, &address, &page, "apply", &["report.read for editor"]).await;
    let held: Vec<String> = ticks(&acme, &role).await.into_iter().collect();
    assert_eq!(held, ["report", "report.read", "video", "video.item", "video.item.delete"]);
    let none = browser.get(&format!("{GRID}?q=nothing-of-this-name")).await;
    assert_eq!((none.status, none.texts("empty").len()), (200, 1));
    let unchanged = submit(&browser, &address, &browser.get(&address).await, "preview", &[]).await;
    assert!(unchanged.texts("notice")[0].contains("Nothing is changed yet"), "{}", unchanged.main());
}

#[tokio::test]
async fn two_roles_are_compared_and_one_is_copied_into_the_other() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    acme.role("editor", &["video.item.delete", "video.list"]).await;
    let writer = acme.role("writer", &["video.list", "report.read"]).await;
    let of = |view: &str| format!("{GRID}?role=editor&role=writer&view={view}");

    let page = browser.get(&of("differences")).await;
    let rows: Vec<String> = page.with_class("grid")[0]
        .elements("tbody")
        .iter()
        .flat_map(|body| body.elements("input"))
        .filter(|input| input.attribute("name") == Some("c0"))
        .map(|input| input.attributes["value"].clone())
        .collect();
    assert_eq!(rows, ["video", "video.item", "video.item.delete", "report", "report.read"]);

    let page = browser.get(&of("copy")).await;
    assert_eq!(page.with_class("changed").len(), 2, "one is added and one is removed");
    let done = submit(&browser, &of("copy"), &page, "apply", &[]).await;
    assert_eq!(done.status, 303, "{}", done.main());
    let held: Vec<String> = ticks(&acme, &writer).await.into_iter().collect();
    assert_eq!(held, ["video", "video.item", "video.item.delete", "video.list"]);
    let same = browser.get(&of("differences")).await;
    assert_eq!(same.texts("empty").len(), 1);
}

#[tokio::test]
async fn a_large_grid_shows_twelve_roles_and_every_box_once() {
    let site = Site::start().await;
    let permission = |n: usize| json!({"name": format!("big.p{n}"), "parent": "big", "http_methods": "GET", "http_path": format!("/big/{n}")});
    let entries: Vec<Value> = std::iter::once(json!({"name": "big"})).chain((0..200).map(permission)).collect();
    site.import(json!(entries)).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    for n in 0..9 {
        acme.role(&format!("role{n}"), &["big.p7"]).await;
    }
    let page = browser.get(&format!("{GRID}?q=big.")).await;
    assert_eq!(page.with_class("grid")[0].elements("thead")[0].elements("th").len(), 1 + 12);
    let mut labels: Vec<String> = boxes(&page).into_iter().map(|(label, ..)| label).collect();
    labels.sort();
    labels.dedup();
    assert_eq!(labels.len(), 12 * 201);
}

#[tokio::test]
async fn the_grid_is_for_those_who_see_roles_in_both_languages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    site.organization("globex").await;
    let payload = "<script>alert(1)</script>";
    let role = acme.role("editor", &[]).await;
    acme.owner().patch(&format!("/api/v1/permissions/roles/{role}"), json!({"display_name": payload})).await.done();
    let browser = owner(&acme).await;
    browser.get(GRID).await.require_escaped(payload);
    assert_eq!(browser.get("/console/o/globex/grid").await.status, 404);

    let plain = acme.member_with(&["roster.role.list"]).await;
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&plain.username, PASSWORD).await;
    let denied = chinese.get(GRID).await;
    assert!(denied.status == 403 && denied.main().contains("roster.role.list_permissions"), "{}", denied.main());
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&acme.member_with_role("viewer").await.username, PASSWORD).await;
    let page = chinese.get(GRID).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "角色與權限"));
}
