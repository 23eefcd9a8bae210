//! The pages of webhooks and deliveries.

use serde_json::{Value, json};

use super::signed_in;
use crate::harness::console::{Browser, Page};
use crate::harness::organizations::Organization;
use crate::harness::receiver::{Answer, Receiver, webhook};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::webhooks::outbox::QUICK;

const LIST: &str = "/console/o/acme/webhooks";
const DELIVERIES: &str = "/console/o/acme/deliveries";
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

/// The fields of the form for a new webhook.
fn new<'f>(url: &'f str, kinds: &[&'f str], once: &'f str) -> Vec<(&'f str, &'f str)> {
    let first = [("act", "create"), ("name", "n8n"), ("url", url), ("once", once)];
    first.into_iter().chain(kinds.iter().map(|kind| ("kinds", *kind))).collect()
}

async fn webhooks(acme: &Organization<'_>) -> Vec<Value> {
    acme.owner().get("/admin/webhooks").await.data()["items"].as_array().expect("items").clone()
}

async fn deliveries(acme: &Organization<'_>, state: &str) -> Vec<Value> {
    let found = acme.owner().get(&format!("/admin/deliveries?limit=200&state={state}")).await.data();
    found["items"].as_array().expect("items").clone()
}

/// Creates a member, which is an event of the organization.
async fn event(acme: &Organization<'_>, username: &str) {
    acme.owner().post("/admin/members", json!({"username": username})).await.done();
}

#[tokio::test]
async fn a_webhook_is_made_once_and_its_secret_is_in_one_answer_only() {
    let site = Site::with(QUICK).await;
    let acme = site.organization("acme").await;
    let receiver = Receiver::willing();
    let browser = owner(&acme).await;
    let empty = browser.get(LIST).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("Webhooks".into(), 1));
    assert_eq!(empty.elements("main")[0].elements("ol")[0].elements("li").len(), 3, "{}", empty.main());
    let kinds = empty.form(LIST).expect("the form").elements("input");
    let kinds: Vec<_> = kinds.iter().filter(|input| input.attribute("name") == Some("kinds")).collect();
    assert_eq!(kinds.len(), roster::kernel::outbox::EventKind::ALL.len() + 1);
    let made = browser.post(LIST, &new(&receiver.url, &["member.created", "job.dead"], "a")).await;
    assert_eq!((made.status, made.with_class("secret").len()), (200, 1), "{}", made.main());
    let secret = made.with_class("secret")[0].elements("code")[0].text();
    assert!(secret.starts_with("whsec_"), "{secret}");
    // The second click of a double click.
    let again = browser.post(LIST, &new(&receiver.url, &["member.created", "job.dead"], "a")).await;
    assert_eq!((again.status, again.with_class("secret").len()), (409, 0), "{}", again.main());
    assert!(again.notices()[0].starts_with("This form was sent already"), "{}", again.main());
    let all = webhooks(&acme).await;
    assert_eq!((all.len(), &all[0]["kinds"]), (1, &json!(["job.dead", "member.created"])));
    let detail = format!("{LIST}/{}", all[0]["id"].as_str().expect("id"));
    for address in [LIST, DELIVERIES, &detail] {
        let page = browser.get(address).await;
        assert!(page.status == 200 && !page.text.contains(&secret), "{address}");
    }
    assert!(!site.log().contains(&secret));
    let listed = rows(&browser.get(LIST).await);
    assert_eq!(listed[0][..4], ["n8n", "127.0.0.1", "Job given up and 1 more", "Active"].map(String::from));
}

#[tokio::test]
async fn a_wrong_form_keeps_its_texts_and_shows_the_fault_at_its_field() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    for (url, kinds, status, fields) in [
        ("http://10.0.0.1/x", &["job.dead"][..], None, &["url"][..]),
        ("ftp://example.org/x", &["job.dead"][..], Some(400), &["url"][..]),
        ("https://example.org/x", &[][..], Some(400), &["kinds"][..]),
        ("https://example.org/x", &["nothing"][..], Some(400), &["kinds"][..]),
    ] {
        let expected = match status {
            Some(status) => status,
            None => acme.owner().post("/admin/webhooks", json!({"name": "x", "url": url, "kinds": kinds})).await.status,
        };
        let wrong = browser.post(LIST, &new(url, kinds, "a")).await;
        let faults: Vec<String> = wrong.faults().into_iter().map(|(field, _)| field).collect();
        assert_eq!((wrong.status, faults), (expected, fields.iter().map(ToString::to_string).collect()), "{url}");
        assert_eq!((wrong.value("url").as_deref(), wrong.value("name").as_deref()), (Some(url), Some("n8n")));
        let boxes = wrong.elements("input").into_iter().filter(|input| input.attributes.contains_key("checked"));
        let checked: Vec<String> = boxes.filter_map(|one| one.attribute("value").map(str::to_owned)).collect();
        assert_eq!(
            checked,
            kinds.iter().filter(|kind| **kind != "nothing").map(ToString::to_string).collect::<Vec<_>>()
        );
    }
    assert_eq!(webhooks(&acme).await.len(), 0);
    assert_eq!(browser.post(LIST, &[("act", "x")]).await.status, 400);
    let full = Site::with("limits.webhooks = 1").await;
    let bolt = full.organization("acme").await;
    let browser = owner(&bolt).await;
    let (first, second) = (new("https://example.org/", &["*"], "a"), new("https://example.org/", &["*"], "b"));
    assert_eq!(browser.post(LIST, &first).await.status, 200);
    let refused = browser.post(LIST, &second).await;
    assert_eq!((refused.status, refused.value("url").as_deref()), (409, Some("https://example.org/")));
}

#[tokio::test]
async fn a_test_shows_what_the_receiver_answered() {
    let site = Site::with(QUICK).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    for (receiver, told) in [
        (Receiver::willing(), "The receiver accepted the test: it answered 200"),
        (Receiver::start(|_, _| Answer::Status(418)), "The receiver did not accept the test: it answered 418"),
        (Receiver::start(|_, _| Answer::Hang), "There was no answer: it took longer than 400 ms."),
    ] {
        let (id, _) = webhook(&acme.owner(), &receiver.url, &["job.dead"]).await;
        let address = format!("{LIST}/{id}");
        let sent = browser.post(&address, &[("act", "test")]).await;
        assert_eq!((sent.status, sent.location()), (303, Some(address.as_str())), "{}", sent.main());
        let tried = browser.follow(&sent).await;
        let is_bad = tried.with_class("notice")[0].has_class("bad");
        assert_eq!(is_bad, !told.starts_with("The receiver accepted"), "{}", tried.main());
        assert!(tried.notices()[0].starts_with(told), "{}", tried.main());
        // The form of the settings still shows what is stored.
        assert_eq!(tried.value("url").as_deref(), Some(receiver.url.as_str()));
    }
}

#[tokio::test]
async fn a_webhook_is_changed_paused_rotated_and_deleted() {
    let site = Site::with(QUICK).await;
    let acme = site.organization("acme").await;
    let receiver = Receiver::willing();
    let browser = owner(&acme).await;
    browser.post(LIST, &new(&receiver.url, &["job.dead"], "a")).await;
    let id = webhooks(&acme).await[0]["id"].as_str().expect("id").to_owned();
    let detail = format!("{LIST}/{id}");
    let version = browser.get(&detail).await.value("version").expect("a version");
    let change = |name, kinds: &[&'static str]| -> Vec<(&str, &str)> {
        let first = [("act", "update"), ("name", name), ("url", receiver.url.as_str()), ("version", version.as_str())];
        first.into_iter().chain(kinds.iter().map(|kind| ("kinds", *kind))).collect()
    };
    let saved = browser.post(&detail, &change(PAYLOAD, &["quota.full", "job.dead"])).await;
    assert_eq!((saved.status, saved.location()), (303, Some(detail.as_str())), "{}", saved.main());
    let page = browser.follow(&saved).await;
    page.require_escaped(PAYLOAD);
    assert_eq!(
        (page.h1(), webhooks(&acme).await[0]["kinds"].clone()),
        (PAYLOAD.into(), json!(["job.dead", "quota.full"]))
    );
    let stale = browser.post(&detail, &change("mine", &["*"])).await;
    assert_eq!((stale.status, stale.value("name").as_deref()), (412, Some("mine")), "{}", stale.main());
    let differing: Vec<String> =
        stale.with_class("difference")[0].elements("th").iter().skip(3).map(|th| th.text()).collect();
    assert_eq!(differing, ["Name", "Events"]);
    assert_ne!(stale.value("version").as_deref(), Some(version.as_str()));
    for (name, kinds, field) in [("", &["*"][..], "name"), ("n8n", &[][..], "kinds")] {
        let fields: Vec<(&str, &str)> =
            change(name, kinds).into_iter().filter(|(name, _)| *name != "version").collect();
        let wrong = browser.post(&detail, &fields).await;
        assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, field), "{}", wrong.main());
    }
    let paused = browser.post(&detail, &[("act", "pause")]).await;
    let undo = browser.follow(&paused).await.with_class("notice")[0].elements("form").remove(0);
    assert_eq!(webhooks(&acme).await[0]["status"], "inactive");
    let fields = undo.fields();
    browser.post(undo.attribute("action").expect("an action"), &crate::harness::console::borrowed(&fields)).await;
    assert_eq!(webhooks(&acme).await[0]["status"], "active");
    let asked = browser.get(&format!("{detail}?confirm=rotate")).await;
    let confirm = asked.with_class("confirm")[0].fields();
    let rotated = browser.post(&detail, &crate::harness::console::borrowed(&confirm)).await;
    assert_eq!((rotated.status, rotated.with_class("secret").len()), (200, 1), "{}", rotated.main());
    let secret = rotated.with_class("secret")[0].elements("code")[0].text();
    let twice = browser.post(&detail, &crate::harness::console::borrowed(&confirm)).await;
    assert!(twice.status >= 400 && twice.with_class("secret").is_empty(), "{}", twice.main());
    assert!(!browser.get(&detail).await.text.contains(&secret));
    let question = format!("{detail}?confirm=delete");
    let wrong = browser.post(&question, &[("act", "delete"), ("typed", "n8n")]).await;
    assert_eq!((wrong.status, wrong.with_class("confirm").len(), webhooks(&acme).await.len()), (400, 1, 1));
    let gone = browser.post(&question, &[("act", "delete"), ("typed", PAYLOAD)]).await;
    assert_eq!((gone.status, gone.location()), (303, Some(LIST)), "{}", gone.main());
    assert_eq!((webhooks(&acme).await.len(), browser.get(&detail).await.status), (0, 404));
}

#[tokio::test]
async fn a_failing_delivery_comes_first_and_is_delivered_again_by_its_button() {
    let site = Site::with(&format!("{QUICK}outbox.attempts = 1\n").replace("outbox.attempts = 3\n", "")).await;
    let acme = site.organization("acme").await;
    let refusing = Receiver::start(|_, nth| Answer::Status(if nth == 1 { 503 } else { 200 }));
    webhook(&acme.owner(), &refusing.url, &["member.created"]).await;
    let browser = owner(&acme).await;
    let none = browser.get(DELIVERIES).await;
    assert!(none.with_class("empty").len() == 1, "{}", none.main());
    event(&acme, "kim").await;
    eventually("it is given up", async || deliveries(&acme, "dead").await.len() == 1).await;
    event(&acme, "lee").await;
    eventually("the next is delivered", async || deliveries(&acme, "delivered").await.len() == 1).await;
    let page = browser.get(DELIVERIES).await;
    let all = rows(&page);
    assert_eq!(all.len(), 2, "{}", page.main());
    assert_eq!((all[0][1].as_str(), all[0][2].as_str()), ("Member created · kim", "test"));
    assert_eq!((all[0][3].as_str(), all[0][4].as_str()), ("Given up it answered 503", "1"));
    assert_eq!(all[1].iter().filter(|cell| *cell == "Delivered").count(), 1, "{all:?}");
    let headings: Vec<String> = page.elements("main")[0].elements("h2").iter().map(|one| one.text()).collect();
    assert_eq!(headings[..2], ["Failing", "Others"]);
    let button = page.elements("button").into_iter().find(|one| one.attribute("form") == Some("selected"));
    let button = button.expect("a button in the row");
    assert_eq!(button.text(), "Deliver again");
    let sent = browser.post(DELIVERIES, &[("act", button.attribute("value").expect("a value"))]).await;
    assert_eq!((sent.status, sent.location()), (303, Some(DELIVERIES)), "{}", sent.main());
    assert_eq!(browser.follow(&sent).await.notices(), ["Queued: it is sent now."]);
    eventually("it is delivered", async || deliveries(&acme, "delivered").await.len() == 2).await;
    // What is delivered already is refused with the reason.
    let id = deliveries(&acme, "delivered").await[0]["id"].as_str().expect("id").to_owned();
    let refused = browser.post(DELIVERIES, &[("act", "retry"), ("id", &id)]).await;
    assert_eq!((refused.status, refused.with_class("results").len()), (409, 1), "{}", refused.main());
    let select = browser.post(DELIVERIES, &[("act", "retry")]).await;
    assert_eq!((select.status, select.notices()), (400, vec!["Select at least one delivery first.".into()]));
    assert_eq!(browser.post(DELIVERIES, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn what_waits_for_the_next_attempt_is_delivered_at_once() {
    let quick = QUICK.replace("outbox.backoff_s = 0", "outbox.backoff_s = 3600");
    let site = Site::with(&quick).await;
    let acme = site.organization("acme").await;
    let receiver = Receiver::start(|_, nth| Answer::Status(if nth == 1 { 500 } else { 200 }));
    webhook(&acme.owner(), &receiver.url, &["member.created"]).await;
    event(&acme, "kim").await;
    eventually("it failed", async || {
        deliveries(&acme, "pending").await.first().is_some_and(|one| one["attempts"] == 1)
    })
    .await;
    // The next event waits for the one before it, and is not failing.
    event(&acme, "lee").await;
    let browser = owner(&acme).await;
    let page = browser.get(DELIVERIES).await;
    let all = rows(&page);
    assert_eq!(all.len(), 2, "{}", page.main());
    assert_eq!(
        (all[0][1].as_str(), all[0][3].as_str()),
        ("Member created · kim", "Failed, tried again it answered 500")
    );
    assert!(all[1].contains(&"Waiting".to_owned()), "{all:?}");
    let button = page.elements("button").into_iter().find(|one| one.attribute("form") == Some("selected"));
    let act = button.expect("a button in the row").attributes["value"].clone();
    let sent = browser.post(DELIVERIES, &[("act", &act)]).await;
    assert_eq!(sent.status, 303, "{}", sent.main());
    eventually("both are delivered", async || deliveries(&acme, "delivered").await.len() == 2).await;
    assert_eq!(receiver.all().len(), 3);
    let done = browser.get(DELIVERIES).await;
    assert_eq!((rows(&done).len(), done.with_class("bulk").len()), (2, 0), "{}", done.main());
}

#[tokio::test]
async fn several_deliveries_are_made_again_at_once_and_filters_narrow_the_list() {
    let site = Site::with(&format!("{QUICK}outbox.attempts = 1\n").replace("outbox.attempts = 3\n", "")).await;
    let acme = site.organization("acme").await;
    let refusing = Receiver::start(|_, nth| Answer::Status(if nth <= 3 { 500 } else { 200 }));
    let (id, _) = webhook(&acme.owner(), &refusing.url, &["member.created"]).await;
    for name in ["kim", "lee", "max"] {
        event(&acme, name).await;
    }
    let dead = eventually("all are given up", async || {
        let dead = deliveries(&acme, "dead").await;
        (dead.len() == 3).then_some(dead)
    })
    .await;
    let ids: Vec<&str> = dead.iter().map(|one| one["id"].as_str().expect("id")).collect();
    let browser = owner(&acme).await;
    assert!(rows(&browser.get(LIST).await)[0][3].ends_with("3 failing"));
    let count = async |query: &str| rows(&browser.get(&format!("{DELIVERIES}?{query}")).await).len();
    assert_eq!((count("state=dead").await, count("state=delivered").await, count("kind=job.dead").await), (3, 0, 0));
    assert_eq!((count(&format!("target={id}")).await, count("target=mail").await), (3, 0));
    let filtered = format!("{DELIVERIES}?state=dead");
    let fields = [("act", "retry"), ("id", ids[0]), ("id", ids[1]), ("id", "17.webhook.gone")];
    let some = browser.post(&filtered, &fields).await;
    assert_eq!(some.status, 200, "{}", some.main());
    let results = some.with_class("results")[0].elements("li");
    assert_eq!((results.len(), results[0].elements("code")[0].text()), (1, "17.webhook.gone".into()));
    assert_eq!(some.notices(), ["2 done, 1 not done:"]);
    eventually("two are delivered", async || deliveries(&acme, "delivered").await.len() == 2).await;
    let last = browser.post(&filtered, &[("act", "retry"), ("id", ids[2])]).await;
    assert_eq!((last.status, last.location()), (303, Some(filtered.as_str())));
    eventually("all are delivered", async || deliveries(&acme, "delivered").await.len() == 3).await;
    let many: Vec<(&str, &str)> =
        std::iter::once(("act", "retry")).chain(std::iter::repeat_n(("id", "x"), 1)).collect();
    assert_eq!(browser.post(DELIVERIES, &many).await.status, 404);
}

#[tokio::test]
async fn at_most_a_page_of_rows_is_acted_on() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    for (count, status) in [(200, 404), (201, 413)] {
        let ids: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let fields: Vec<(&str, &str)> =
            std::iter::once(("act", "retry")).chain(ids.iter().map(|id| ("id", id.as_str()))).collect();
        let answer = browser.post(DELIVERIES, &fields).await;
        assert_eq!(answer.status, status, "{count}");
    }
}

#[tokio::test]
async fn who_may_only_look_sees_no_buttons_and_the_site_has_pages_of_its_own() {
    let site = Site::with(&format!("{QUICK}outbox.attempts = 1\n").replace("outbox.attempts = 3\n", "")).await;
    let acme = site.organization("acme").await;
    let refusing = Receiver::start(|_, _| Answer::Status(500));
    webhook(&acme.owner(), &refusing.url, &["member.created"]).await;
    event(&acme, "kim").await;
    eventually("it is given up", async || deliveries(&acme, "dead").await.len() == 1).await;
    let reader = acme.member_with(&["roster.outbox.list", "roster.outbox.list_webhooks"]).await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&reader.username, PASSWORD).await;
    let page = browser.get(DELIVERIES).await;
    assert_eq!((page.status, page.h1(), page.with_class("bulk").len()), (200, "傳送紀錄".into(), 0));
    assert_eq!(rows(&page).len(), 1);
    assert_eq!(browser.get(&format!("{LIST}?new=1")).await.form(LIST).map(|_| ()), None);
    let id = deliveries(&acme, "dead").await[0]["id"].as_str().expect("id").to_owned();
    assert_eq!(browser.post(DELIVERIES, &[("act", "retry"), ("id", &id)]).await.status, 403);
    assert_eq!(browser.post(LIST, &new("https://example.org/", &["*"], "a")).await.status, 403);
    let admin = signed_in(&site, ADMIN).await;
    let listed = admin.get("/console/site/deliveries").await;
    assert_eq!((listed.status, listed.with_class("bulk").len()), (200, 1), "{}", listed.main());
    let fields = new(&refusing.url, &["*"], "s");
    let made = admin.post("/console/site/webhooks", &fields).await;
    assert_eq!((made.status, made.with_class("secret").len()), (200, 1), "{}", made.main());
    let all = site.admin().get("/admin/webhooks").await.data();
    let of_site: Vec<&Value> =
        all["items"].as_array().expect("items").iter().filter(|one| one["organization_id"].is_null()).collect();
    assert_eq!(of_site.len(), 1);
    let detail = format!("/console/site/webhooks/{}", of_site[0]["id"].as_str().expect("id"));
    assert_eq!(admin.get(&detail).await.status, 200);
    let paused = admin.post(&detail, &[("act", "pause")]).await;
    assert_eq!((paused.status, paused.location()), (303, Some(detail.as_str())));
    assert_eq!(signed_in(&site, &reader.username).await.get("/console/site/deliveries").await.status, 403);
}
