//! The pages of processing jobs.

use serde_json::json;

use super::signed_in;
use crate::harness::console::{Browser, Page};
use crate::harness::organizations::Organization;
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::videos::jobs::{claim, queue, report, steps, text, worker};

const LIST: &str = "/console/o/acme/jobs";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

async fn owner(acme: &Organization<'_>) -> Browser {
    let owner = acme.member_with_role("tenant_owner").await;
    signed_in(acme.site, &owner.username).await
}

/// The cells of all rows.
fn rows(page: &Page) -> Vec<Vec<String>> {
    let tables = page.with_class("list");
    let rows = tables.iter().flat_map(|table| table.elements("tbody")).flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(|cell| cell.text()).collect()).collect()
}

/// The texts of the tabs.
fn tabs(page: &Page) -> Vec<String> {
    page.with_class("tabs")[0].elements("a").iter().map(|tab| tab.text()).collect()
}

async fn state(acme: &Organization<'_>, id: &str) -> String {
    text(&acme.admin().get(&format!("/api/v1/jobs/{id}")).await.data()["state"])
}

#[tokio::test]
async fn jobs_are_counted_by_state_and_an_empty_list_tells_how_to_run_a_worker() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let empty = browser.get(LIST).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("Jobs".into(), 1));
    // Only the site makes keys for workers.
    assert_eq!(empty.with_class("copyable").len(), 0);
    assert!(empty.main().contains("Only administrators of the site make the key"), "{}", empty.main());
    let admin = signed_in(&site, ADMIN).await;
    let command = admin.get(LIST).await.with_class("copyable")[0].elements("code")[0].text();
    assert!(command.contains("/api/v1/jobs/claim"), "{command}");
    let kim = acme.member().await;
    queue(&site, &kim.uid, Some(&acme.id), 3);
    let waiting = browser.get(LIST).await;
    assert_eq!(tabs(&waiting), ["All 3", "Queued 3", "Running 0", "On hold 0", "Done 0", "Given up 0"]);
    // Nobody takes them.
    assert!(waiting.main().contains("Ask an administrator of the site"), "{}", waiting.main());
    assert_eq!(admin.get(LIST).await.with_class("copyable").len(), 1);
    assert!(waiting.main().contains("The oldest waiting job was queued"), "{}", waiting.main());
    let key = worker(&site).await;
    let job = claim(&key, json!({})).await.remove(0);
    steps(&key, &job, &[("cut", "completed")]).await.done();
    let running = browser.get(LIST).await;
    assert_eq!(tabs(&running)[1..3], ["Queued 2", "Running 1"]);
    assert_eq!(running.with_class("copyable").len(), 0);
    assert_eq!(rows(&running)[0][1], kim.username);
    let count = async |query: &str| rows(&browser.get(&format!("{LIST}?{query}")).await).len();
    assert_eq!((count("state=leased").await, count("state=dead").await, count("state=nothing").await), (1, 0, 3));
    assert_eq!((count("processor=cut").await, count("processor=asr").await), (2, 3));
    let none = browser.get(&format!("{LIST}?state=dead")).await;
    assert_eq!(none.with_class("empty").len(), 1, "{}", none.main());
}

#[tokio::test]
async fn a_dead_job_shows_why_and_is_tried_again() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let id = queue(&site, &kim.uid, Some(&acme.id), 1).remove(0);
    let browser = owner(&acme).await;
    let address = format!("{LIST}/{id}");
    let waiting = browser.get(&address).await;
    assert!(waiting.elements("div").iter().any(|part| part.attributes.contains_key("data-poll")), "{}", waiting.text);
    // Only a dead job is tried again.
    let early = browser.post(&address, &[("act", "retry")]).await;
    assert_eq!((early.status, early.with_class("notice").len()), (409, 1), "{}", early.main());
    let key = worker(&site).await;
    let job = claim(&key, json!({})).await.remove(0);
    steps(&key, &job, &[("cut", "completed")]).await.done();
    report(&key, &job, "fail", json!({"error": PAYLOAD, "retry": false})).await.done();
    let page = browser.get(&address).await;
    page.require_escaped(PAYLOAD);
    assert_eq!(page.elements("pre")[0].text(), PAYLOAD);
    let done: Vec<String> = page.with_class("rail")[0]
        .elements("li")
        .into_iter()
        .filter(|step| step.has_class("done"))
        .map(|step| step.text())
        .collect();
    assert_eq!(done, ["Shot detection : Done"]);
    assert_eq!(page.with_class("rail")[0].elements("li").len(), 6);
    let list = browser.get(&format!("{LIST}?state=dead")).await;
    list.require_escaped(PAYLOAD);
    let buttons = list.elements("button").into_iter().filter(|button| button.attribute("form") == Some("selected"));
    let values: Vec<String> = buttons.filter_map(|button| button.attribute("value").map(str::to_owned)).collect();
    assert_eq!(values, [format!("retry {id}")]);
    let again = browser.post(&address, &[("act", "retry")]).await;
    assert_eq!((again.status, again.location()), (303, Some(address.as_str())), "{}", again.main());
    assert_eq!(browser.follow(&again).await.notices(), ["The job is queued again."]);
    assert_eq!(state(&acme, &id).await, "queued");
    assert_eq!(browser.post(&address, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn several_dead_jobs_are_tried_again_at_once() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let ids = queue(&site, &kim.uid, Some(&acme.id), 3);
    let key = worker(&site).await;
    for job in claim(&key, json!({"count": 2})).await {
        report(&key, &job, "fail", json!({"error": "no sound", "retry": false})).await.done();
    }
    let browser = owner(&acme).await;
    let fields: Vec<(&str, &str)> =
        std::iter::once(("act", "retry")).chain(ids.iter().map(|id| ("id", id.as_str()))).collect();
    let some = browser.post(LIST, &fields).await;
    assert_eq!((some.status, some.with_class("results")[0].elements("li").len()), (200, 1), "{}", some.main());
    for id in &ids {
        assert_eq!(state(&acme, id).await, "queued");
    }
    let none = browser.post(LIST, &fields).await;
    assert_eq!((none.status, none.with_class("results")[0].elements("li").len()), (409, 3), "{}", none.main());
    let select = browser.post(LIST, &[("act", "retry")]).await;
    assert_eq!((select.status, select.notices()), (400, vec!["Select at least one job first.".into()]));
}

#[tokio::test]
async fn who_may_only_look_tries_nothing_again_and_sees_no_foreign_job() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (kim, foreigner) = (acme.member().await, bolt.member().await);
    let foreign = queue(&site, &foreigner.uid, Some(&bolt.id), 1).remove(0);
    let id = queue(&site, &kim.uid, Some(&acme.id), 1).remove(0);
    let reader = acme.member_with(&["roster.job.list", "roster.job.get"]).await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&reader.username, PASSWORD).await;
    let list = browser.get(LIST).await;
    assert_eq!((list.h1(), rows(&list).len()), ("工作".into(), 1));
    assert_eq!(browser.get(&format!("{LIST}/{id}")).await.status, 200);
    assert_eq!(browser.get(&format!("{LIST}/{foreign}")).await.status, 404);
    assert_eq!(browser.post(&format!("{LIST}/{id}"), &[("act", "retry")]).await.status, 403);
    let plain = signed_in(&site, &kim.username).await.get(LIST).await;
    assert!(plain.status == 403 && plain.main().contains("roster.job.list"), "{}", plain.main());
}
