//! The pages of tasks: a member's own, and those of the site.

use reqwest::Method;
use serde_json::json;

use super::signed_in;
use crate::harness::console::{Element, Page};
use crate::harness::gated_wordpress::GatedWordPress;
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures::allowing;
use crate::server::tasks::{ended, started};

const OWN: &str = "/console/me/tasks";
const OF_SITE: &str = "/console/site/tasks";
const UPLOAD: &str = "/api/v1/plugins?name=hours&background=true";

/// The part that is replaced while the page waits.
fn region(page: &Page, id: &str) -> Element {
    let found = page.elements("div").into_iter().find(|element| element.attribute("id") == Some(id));
    found.unwrap_or_else(|| panic!("no region {id}: {}", page.text))
}

fn rows(page: &Page) -> Vec<Vec<String>> {
    let rows = page.elements("tbody").into_iter().flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(Element::text).collect()).collect()
}

/// The states of the steps of a rail.
fn steps(page: &Page) -> Vec<String> {
    let steps = page.with_class("rail").into_iter().flat_map(|rail| rail.elements("li"));
    steps.map(|step| step.attribute("class").unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_running_task_shows_its_progress_and_stops_when_it_is_cancelled() {
    let wordpress = GatedWordPress::start();
    let site = Site::with(&wordpress.settings()).await;
    let browser = signed_in(&site, ADMIN).await;
    let empty = browser.get(OWN).await;
    assert_eq!((empty.h1().as_str(), empty.with_class("empty").len()), ("Tasks", 1), "{}", empty.main());
    assert_eq!(region(&empty, "tasks").attribute("data-poll"), None);

    let reply = site.admin().post("/admin/wordpress/sync?background=true", json!({"dry_run": true})).await;
    let address = format!("{OWN}/{}", started(&reply)["id"].as_str().expect("an id"));
    eventually("the second list", async || wordpress.is_waiting()).await;
    let page = browser.get(&address).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Comparison with WordPress"));
    assert_eq!((page.texts("badge"), page.notices()), (vec!["Running".to_owned()], Vec::new()));
    assert_eq!(region(&page, "task").attribute("data-poll"), Some("1000"));
    let without_script = page.elements("noscript").into_iter().flat_map(|part| part.elements("meta"));
    let refreshes: Vec<_> = without_script.filter_map(|meta| meta.attribute("http-equiv").map(str::to_owned)).collect();
    assert_eq!(refreshes, ["refresh"]);
    assert!(region(&page, "task").text().contains("100 so far"), "{}", page.main());
    let listed = browser.get(OWN).await;
    assert_eq!(
        (rows(&listed)[0][1].as_str(), region(&listed, "tasks").attribute("data-poll")),
        ("Running", Some("3000"))
    );
    // Other pages say that it runs.
    let elsewhere = browser.get("/console/me").await;
    let told: Vec<String> =
        elsewhere.with_class("notice").iter().map(|notice| notice.elements("p")[0].text()).collect();
    assert_eq!(told, ["1 task runs in the background."]);
    assert!(elsewhere.with_class("notice")[0].elements("a")[0].attribute("href") == Some(OWN));

    assert_eq!(browser.post(&address, &[("act", "other")]).await.status, 400);
    let done = browser.post(&address, &[("act", "cancel")]).await;
    assert_eq!((done.status, done.location()), (303, Some(address.as_str())), "{}", done.main());
    let asked = browser.get(&address).await;
    assert_eq!(asked.notices(), ["The task stops at its next step. What it has done stays."]);
    assert!(asked.form(&address).is_none() && asked.main().contains("Stops at its next step"), "{}", asked.main());
    wordpress.open();
    let ended = eventually("the end", async || {
        let page = browser.get(&address).await;
        (page.texts("badge") == ["Cancelled"]).then_some(page)
    })
    .await;
    assert_eq!((region(&ended, "task").attribute("data-poll"), ended.elements("noscript").len()), (None, 0));
    assert_eq!(ended.notices()[0], "The task was cancelled. What was done until then stays.");
    let headings = ended.with_class("card").into_iter().flat_map(|card| card.elements("h2"));
    let headings: Vec<String> = headings.map(|heading| heading.text()).collect();
    assert!(headings.contains(&"What was done until then".to_owned()), "{headings:?}");
    let late = browser.post(&address, &[("act", "cancel")]).await;
    assert_eq!((late.status, late.location()), (303, Some(address.as_str())));
    assert_eq!(browser.get("/console/me").await.notices(), Vec::<String>::new());
}

#[tokio::test]
async fn members_see_their_own_tasks_and_administrators_of_the_site_all() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (owner, other) = (acme.member_with_role("tenant_owner").await, acme.member_with_role("tenant_owner").await);
    let caller = owner.caller();
    let task = ended(&caller, &caller.send_raw(Method::POST, UPLOAD, "application/wasm", allowing()).await).await;
    let id = task["id"].as_str().expect("an id");
    let (own, of_site) = (format!("{OWN}/{id}"), format!("{OF_SITE}/{id}"));

    let browser = signed_in(&site, &owner.username).await;
    let listed = browser.get(OWN).await;
    assert_eq!(rows(&listed)[0][..3], ["Upload of a plugin", "Done", "7 of 7"], "{}", listed.main());
    assert!(listed.links().contains(&own), "{:?}", listed.links());
    let page = browser.get(&own).await;
    assert_eq!(
        (page.h1().as_str(), steps(&page)),
        ("Upload of a plugin", vec!["done".to_owned(); 7]),
        "{}",
        page.main()
    );
    assert_eq!((browser.get(OF_SITE).await.status, browser.get(&of_site).await.status), (403, 403));

    let stranger = signed_in(&site, &other.username).await;
    let foreign = stranger.get(&own).await;
    assert_eq!((foreign.status, foreign.h1().as_str()), (404, "This task is not known any more"));
    assert_eq!(stranger.get(&format!("{OWN}/none")).await.h1(), foreign.h1());
    assert_eq!(
        (stranger.post(&own, &[("act", "cancel")]).await.status, rows(&stranger.get(OWN).await).len()),
        (404, 0)
    );

    let admin = signed_in(&site, ADMIN).await;
    assert_eq!(rows(&admin.get(OWN).await).len(), 0);
    let all = admin.get(OF_SITE).await;
    assert_eq!(rows(&all)[0][3], owner.username, "{}", all.main());
    assert!(all.links().contains(&of_site), "{:?}", all.links());
    let shown = admin.get(&of_site).await;
    assert!(
        shown.status == 200 && shown.main().contains(&owner.username) && shown.main().contains("acme"),
        "{}",
        shown.main()
    );
    let person = format!("/console/site/members/{}", owner.uid);
    assert!(all.links().contains(&person) && shown.links().contains(&person), "{:?}", shown.links());
    // Who may see tasks but no members sees the id.
    let watcher = site.platform_member(&["roster.task.list", "roster.task.get"]).await;
    let plain = signed_in(&site, &watcher.username).await.get(OF_SITE).await;
    assert_eq!(rows(&plain)[0][3], format!("Member {}", owner.uid), "{}", plain.main());

    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&owner.username, PASSWORD).await;
    let page = chinese.get(&own).await;
    assert_eq!((chinese.get(OWN).await.h1(), page.h1()), ("背景工作".into(), "上傳外掛".into()));
    assert_eq!(page.texts("badge")[0], "完成", "{}", page.main());
}

#[tokio::test]
async fn a_failed_task_shows_the_step_and_the_reason_and_foreign_text_stays_text() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let (caller, browser) = (owner.caller(), signed_in(&site, &owner.username).await);
    let module = b"\0asm\x01\0\0\0".to_vec();
    let failed = ended(&caller, &caller.send_raw(Method::POST, UPLOAD, "application/wasm", module).await).await;
    let page = browser.get(&format!("{OWN}/{}", failed["id"].as_str().expect("an id"))).await;
    let mut expected = vec!["done", "failed"];
    expected.extend(["skipped"; 5]);
    assert_eq!(
        (steps(&page), page.texts("badge")),
        (expected.into_iter().map(str::to_owned).collect(), vec!["Failed".to_owned()])
    );
    assert!(page.notices()[0].contains("core module"), "{}", page.main());

    let payload = "<img src=x onerror=window.xss=1>";
    let admin = site.admin();
    let path = "/api/v1/admin/users/import?dry_run=true&background=true";
    let users = json!({"users": [{"username": payload, "email": payload}]}).to_string().into_bytes();
    let import = ended(&admin, &admin.send_raw(Method::POST, path, "application/json", users).await).await;
    let browser = signed_in(&site, ADMIN).await;
    browser.get(OWN).await.require_without(payload);
    browser.get(&format!("{OWN}/{}", import["id"].as_str().expect("an id"))).await.require_escaped(payload);
}

#[tokio::test]
async fn without_the_permission_of_the_operation_the_page_says_why_there_is_no_outcome() {
    const WHY: &str = "The outcome is not shown, because you do not hold the permission that this task needs.";
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let caller = owner.caller();
    let module = b"\0asm\x01\0\0\0".to_vec();
    let mut pages = Vec::new();
    for component in [module, allowing()] {
        let task = ended(&caller, &caller.send_raw(Method::POST, UPLOAD, "application/wasm", component).await).await;
        pages.push(format!("{OWN}/{}", task["id"].as_str().expect("an id")));
    }
    let browser = signed_in(&site, &owner.username).await;
    for address in &pages {
        let page = browser.get(address).await;
        assert!(!page.notices().contains(&WHY.to_owned()), "{}", page.main());
    }
    let role = acme.role_id("tenant_owner").await;
    acme.admin().delete(&format!("/api/v1/permissions/users/{}/roles/{role}", owner.uid)).await.done();
    for address in &pages {
        let page = browser.get(address).await;
        assert_eq!(
            (page.status, page.notices(), steps(&page).len()),
            (200, vec![WHY.to_owned()], 7),
            "{}",
            page.main()
        );
        assert!(!page.main().contains("core module"), "{}", page.main());
    }
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&owner.username, PASSWORD).await;
    assert_eq!(chinese.get(&pages[0]).await.notices(), ["您沒有這項工作所需的權限，因此不顯示結果與錯誤。"]);
}
