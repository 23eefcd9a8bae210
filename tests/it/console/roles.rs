//! Roles: the list, a new role, a role's page, and deleting one.

use serde_json::json;

use crate::harness::console::{Browser, Page};
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::permissions::videos;

const ROLES: &str = "/console/o/acme/roles";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

/// A browser of an owner of this organization.
pub async fn owner(acme: &Organization<'_>) -> Browser {
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = acme.site.visitor();
    browser.sign_in(&owner.username, PASSWORD).await;
    browser
}

/// Presses Undo in the notice of the page, and returns the next page.
pub async fn undo(browser: &Browser, page: &Page) -> Page {
    let notice =
        page.with_class("notice-undo").into_iter().next().unwrap_or_else(|| panic!("no Undo: {}", page.main()));
    let form = notice.elements("form").remove(0);
    let fields: Vec<(String, String)> = form
        .elements("input")
        .iter()
        .map(|input| (input.attributes["name"].clone(), input.attributes["value"].clone()))
        .collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let done = browser.post(form.attribute("action").expect("an action"), &fields).await;
    assert_eq!(done.status, 303, "{}", done.main());
    browser.follow(&done).await
}

/// The rows of the table of this caption, each as the texts of its cells.
pub fn rows(page: &Page, caption: &str) -> Vec<Vec<String>> {
    let tables = page.elements("table").into_iter();
    let mut named = tables.filter(|table| table.elements("caption").iter().any(|found| found.text() == caption));
    let table = named.next().unwrap_or_else(|| panic!("no table {caption}: {}", page.main()));
    let body = table.elements("tbody").remove(0);
    body.elements("tr").iter().map(|row| row.elements("td").iter().map(|cell| cell.text()).collect()).collect()
}

fn role_page(id: &str) -> String {
    format!("{ROLES}/{id}")
}

#[tokio::test]
async fn the_list_counts_members_and_permissions_and_can_be_narrowed() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let editor = acme.role("editor", &["video.item.delete", "video.list"]).await;
    acme.assign(&acme.member().await.uid, &editor).await;

    let page = browser.get(&format!("{ROLES}?q=edit")).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Roles"));
    assert_eq!(rows(&page, "Roles"), [["editor", "editor", "Open", "1", "2"]], "implied permissions are not counted");
    assert!(page.links().contains(&role_page(&editor)));
    let all = browser.get(ROLES).await;
    let keys: Vec<String> = rows(&all, "Roles").into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(
        keys,
        [
            "member System role",
            "member_manager System role",
            "tenant_admin System role",
            "tenant_owner Protected",
            "viewer System role",
            "editor"
        ]
    );
    let none = browser.get(&format!("{ROLES}?q=nothing-of-this-name")).await;
    assert_eq!((none.status, none.texts("empty").len()), (200, 1));
    let closed = browser.get(&format!("{ROLES}?status=close")).await;
    assert_eq!(closed.texts("empty").len(), 1);
}

#[tokio::test]
async fn a_new_role_keeps_what_was_typed_until_its_key_is_right() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let address = format!("{ROLES}/new");
    let form = browser.get(&address).await;
    let once = form.value("once").expect("a key");

    let send = async |key: &str, name: &str| {
        browser.post(&address, &[("once", &once), ("key", key), ("display_name", name)]).await
    };
    let wrong = send("Not a key", "Cutters").await;
    assert_eq!((wrong.status, wrong.value("display_name").as_deref()), (400, Some("Cutters")));
    assert_eq!(wrong.faults()[0].0, "key");
    let taken = send("viewer", "Cutters").await;
    assert_eq!((taken.status, taken.faults()[0].0.as_str()), (409, "key"));
    let made = send("cutter", PAYLOAD).await;
    let id = acme.role_id("cutter").await;
    assert_eq!((made.status, made.location()), (303, Some(role_page(&id).as_str())), "{}", made.main());
    let page = browser.follow(&made).await;
    page.require_escaped(PAYLOAD);
    assert_eq!((page.h1().as_str(), page.notices().len()), (PAYLOAD, 1));
    // The same form again creates nothing.
    assert_eq!(send("cutter", PAYLOAD).await.status, 303);
}

#[tokio::test]
async fn a_role_shows_its_members_and_what_it_holds_implies_and_keeps_asleep() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &["video.item.delete", "report.read"]).await;
    let kim = acme.member().await;
    acme.assign(&kim.uid, &role).await;

    let page = browser.get(&role_page(&role)).await;
    let members: Vec<String> = rows(&page, "Members").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(members, [kim.username.as_str()]);
    assert!(page.links().contains(&format!("/console/o/acme/members/{}", kim.uid)));
    let implied = "Implied, for menus only";
    assert_eq!(
        rows(&page, "Permissions"),
        [
            ["video", "", implied],
            ["video.item", "GET /videos/:id", implied],
            ["video.item.delete", "DELETE /videos/:id", "Held"],
            ["report", "", implied],
            ["report.read", "GET /reports", "Asleep: it or a parent is closed"],
        ]
    );
    assert!(page.links().contains(&"/console/o/acme/grid?role=editor".to_owned()));
    let empty = browser.get(&role_page(&acme.role("nothing", &[]).await)).await;
    assert_eq!(empty.texts("empty").len(), 2, "{}", empty.main());
}

#[tokio::test]
async fn renaming_is_refused_when_somebody_else_was_faster() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &[]).await;
    let address = role_page(&role);
    let rename = async |page: &Page, name: &str| {
        let version = page.value("version").expect("a version");
        browser.post(&address, &[("act", "rename"), ("version", &version), ("display_name", name)]).await
    };
    let read = browser.get(&address).await;
    acme.admin().patch(&format!("/api/v1/permissions/roles/{role}"), json!({"display_name": "Theirs"})).await.done();

    let stale = rename(&read, "Ours").await;
    assert_eq!((stale.status, stale.value("display_name").as_deref()), (412, Some("Ours")));
    assert_eq!(stale.h1(), "Theirs", "the present state is shown");
    assert_eq!(stale.notices().len(), 1, "{:?}", stale.notices());
    let saved = rename(&stale, "Ours").await;
    assert_eq!(browser.follow(&saved).await.h1(), "Ours");
}

#[tokio::test]
async fn a_role_is_closed_at_once_and_undo_opens_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &[]).await;
    let address = role_page(&role);
    let status = async || acme.admin().get(&format!("/api/v1/permissions/roles/{role}")).await.data()["status"].clone();

    let done = browser.post(&address, &[("act", "close")]).await;
    assert_eq!(status().await, "close");
    let page = browser.follow(&done).await;
    undo(&browser, &page).await;
    assert_eq!(status().await, "open");
    let system = role_page(&acme.role_id("viewer").await);
    assert_eq!(browser.post(&system, &[("act", "close")]).await.status, 409, "a system role stays open");
    assert_eq!(browser.post(&address, &[("act", "explode")]).await.status, 400);
}

#[tokio::test]
async fn a_role_in_use_says_by_whom_and_an_unused_one_is_deleted_by_its_key() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let role = acme.role("editor", &[]).await;
    let kim = acme.member().await;
    acme.assign(&kim.uid, &role).await;
    acme.map("oidc", "editors", "editor").await;
    let (address, confirm) = (role_page(&role), format!("{}?confirm=delete", role_page(&role)));

    let used = browser.get(&confirm).await;
    assert!(used.main().contains(&kim.username) && used.main().contains("editors"), "{}", used.main());
    assert!(used.main().contains("Held by 1 member. "), "{}", used.main());
    assert!(used.with_class("confirm").is_empty());
    let delete = async |typed: &str| browser.post(&address, &[("act", "delete"), ("typed", typed)]).await;
    let refused = delete("editor").await;
    assert_eq!(refused.status, 409);
    assert!(refused.main().contains(&kim.username), "{}", refused.main());

    acme.admin().delete(&format!("/api/v1/permissions/users/{}/roles/{role}", kim.uid)).await.done();
    acme.admin().delete("/api/v1/permissions/role-mappings?external_source=oidc&external_key=editors").await.done();
    assert_eq!(browser.get(&confirm).await.with_class("confirm").len(), 1);
    assert_eq!(delete("edito").await.status, 400);
    let done = delete("editor").await;
    assert_eq!((done.status, done.location()), (303, Some(ROLES)));
    assert_eq!(browser.get(&address).await.status, 404);
}

#[tokio::test]
async fn roles_are_for_those_who_may_see_them_in_both_languages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    site.organization("globex").await;
    let plain = acme.member_with(&["roster.role.list"]).await;
    let browser = site.visitor();
    browser.sign_in(&plain.username, PASSWORD).await;
    let list = browser.get(ROLES).await;
    assert_eq!(list.status, 200);
    assert!(!list.links().contains(&format!("{ROLES}/new")), "what one may not do is not offered");
    let denied = browser.get(&format!("{ROLES}/new")).await;
    assert_eq!(denied.status, 403);
    assert!(denied.main().contains("roster.role.create"), "{}", denied.main());
    assert_eq!(browser.get("/console/o/globex/roles").await.status, 404);

    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&plain.username, PASSWORD).await;
    assert_eq!(chinese.get(ROLES).await.h1(), "角色");
}
