//! What the script adds, in Chromium: lists that change without loading the page, copying, local times, and the question
//! before typed text is lost.

use chrono::{DateTime, Duration};
use serde_json::{Value, json};

use super::sign_in;
use crate::harness::browser::Browser;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{PASSWORD, Site};
use crate::harness::waiting::eventually;

const LIST: &str = "/console/o/acme/members";

/// An organization with its owner and 30 members, one of whom is called Kim Lee.
async fn prepared(site: &Site) -> (Organization<'_>, Member<'_>, Member<'_>) {
    let acme = site.organization("acme").await;
    let (owner, kim) = (acme.member_with_role("tenant_owner").await, acme.member().await);
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": "Kim Lee"})).await.done();
    for n in 0..30 {
        let body = json!({"username": format!("p{n}"), "display_name": format!("Person {n:02}"), "password": PASSWORD});
        acme.owner().post("/admin/members", body).await.done();
    }
    (acme, owner, kim)
}

async fn opened(site: &Site, owner: &Member<'_>, path: &str) -> Browser {
    let browser = Browser::start().await;
    browser.size(1_280, 900).await;
    sign_in(&browser, site, &owner.username).await;
    browser.open(&format!("{}{path}", site.url)).await;
    browser
}

/// Marks the document: a page that is loaded anew has no mark.
async fn mark(browser: &Browser) {
    browser.script("window.isMarked = true", json!([])).await;
}

async fn is_marked(browser: &Browser) -> bool {
    browser.script("return window.isMarked === true", json!([])).await == true
}

/// The names in the list, as soon as they are these.
async fn listed(browser: &Browser, names: &[&str]) {
    eventually(&format!("{names:?} are listed"), async || browser.texts(".row-link").await == names).await;
}

/// Waits until screen readers are told this.
async fn said(browser: &Browser, text: &str) {
    let all = "return [...document.querySelectorAll('body > [role=status]')].map((box) => box.textContent)";
    eventually(text, async || browser.script(all, json!([])).await == json!([text])).await;
}

async fn count(browser: &Browser, css: &str) -> usize {
    browser.texts(css).await.len()
}

// ── lists ──

#[tokio::test]
async fn a_search_replaces_the_list_and_keeps_the_page_the_focus_and_the_text() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = opened(&site, &owner, LIST).await;
    mark(&browser).await;
    browser.press("/").await;
    browser.type_text("kim l").await;
    listed(&browser, &["Kim Lee"]).await;
    // Typing goes on where it was.
    browser.press("Backspace Backspace").await;
    browser.type_text(" lee").await;
    eventually("the address names the search", async || browser.url().await.contains("keyword=kim+lee")).await;
    listed(&browser, &["Kim Lee"]).await;
    assert_eq!(browser.focused().await, "input[name=keyword]");
    let field = "const field = document.activeElement; return [field.value, field.selectionStart]";
    assert_eq!(browser.script(field, json!([])).await, json!(["kim lee", 7]));
    assert!(is_marked(&browser).await, "the page was loaded anew");
    let busy = "return document.getElementById('members').getAttribute('aria-busy')";
    assert_eq!(browser.script(busy, json!([])).await, Value::Null);
    // Screen readers are told how many there are.
    said(&browser, "1–1 of 1").await;
    // Nothing found is said in the same place, and an empty search shows everybody again.
    browser.type_text(" nobody").await;
    eventually("nobody is found", async || count(&browser, "#members .empty").await == 1).await;
    said(&browser, "Nobody was found").await;
    browser.press("Control+a Backspace").await;
    eventually("everybody is listed", async || count(&browser, ".row-link").await > 30).await;
    assert!(is_marked(&browser).await);
    assert_eq!(browser.console_log().await, [""; 0]);
}

#[tokio::test]
async fn a_filter_is_sent_by_choosing_and_the_list_of_a_fast_typist_is_the_last_one() {
    let site = Site::start().await;
    let (acme, owner, kim) = prepared(&site).await;
    acme.admin().post(&format!("/admin/members/{}/deactivate", kim.uid), json!({})).await.done();
    let browser = opened(&site, &owner, LIST).await;
    mark(&browser).await;
    browser.fill("is_active", "false").await;
    listed(&browser, &["Kim Lee"]).await;
    assert!(browser.url().await.ends_with("?is_active=false"), "{}", browser.url().await);
    browser.fill("is_active", "").await;
    eventually("everybody is listed", async || count(&browser, ".row-link").await > 30).await;
    // Requests that were overtaken change nothing.
    browser.script("document.activeElement.blur()", json!([])).await;
    browser.press("/").await;
    for letter in ["p", "e", "r", "s", "o", "n", " ", "0", "7"] {
        browser.type_text(letter).await;
    }
    listed(&browser, &["Person 07"]).await;
    assert!(browser.url().await.ends_with("?keyword=person+07"), "{}", browser.url().await);
    assert!(is_marked(&browser).await);
    assert_eq!(browser.console_log().await, [""; 0]);
}

#[tokio::test]
async fn a_swap_keeps_selected_rows_and_what_is_open() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = opened(&site, &owner, &format!("{LIST}?keyword=kim")).await;
    let select = format!("input[name=uid][value='{}']", kim.uid);
    browser.submit(&select).await;
    assert_eq!(browser.text("[data-count]").await, "1 selected");
    browser.submit("details.menu > summary").await;
    browser.press("/").await;
    browser.press("End").await;
    browser.type_text(" lee").await;
    eventually("the address names the search", async || browser.url().await.contains("kim+lee")).await;
    let kept = format!("return document.querySelector({select:?}).checked");
    eventually("the row is still selected", async || browser.script(&kept, json!([])).await == true).await;
    assert_eq!(browser.text("[data-count]").await, "1 selected");
    assert_eq!(count(&browser, "details.menu[open]").await, 1, "the menu stays open");
}

#[tokio::test]
async fn rows_are_counted_and_all_of_the_page_are_selected_at_once() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = opened(&site, &owner, &format!("{LIST}?limit=20")).await;
    let disabled = "return [...document.querySelectorAll('form.bulk button')].every((button) => button.disabled)";
    assert_eq!(browser.script(disabled, json!([])).await, true, "without a selection there is nothing to do");
    browser.submit("[data-all]").await;
    assert_eq!(browser.text("[data-count]").await, "20 selected");
    assert_eq!(browser.script(disabled, json!([])).await, false);
    browser.submit("[data-all]").await;
    assert_eq!(browser.text("[data-count]").await, "0 selected");
}

#[tokio::test]
async fn the_back_button_returns_to_the_search() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = opened(&site, &owner, "/console/o/acme/roles").await;
    browser.click_link("Members").await;
    browser.press("/").await;
    browser.type_text("kim").await;
    listed(&browser, &["Kim Lee"]).await;
    browser.click_link("Kim Lee").await;
    assert_eq!(browser.url().await, format!("{}{LIST}/{}", site.url, kim.uid));
    let back = async |ends_with: &str| {
        browser.script("history.back()", json!([])).await;
        eventually(ends_with, async || browser.url().await.ends_with(ends_with)).await;
    };
    back("/members?keyword=kim").await;
    listed(&browser, &["Kim Lee"]).await;
    assert_eq!(browser.script("return document.querySelector('[data-search]').value", json!([])).await, "kim");
    // The letters of the search are no pages of their own.
    back("/console/o/acme/roles").await;
    assert_eq!(browser.text("h1").await, "Roles");
}

#[tokio::test]
async fn a_list_whose_session_ended_leads_to_the_sign_in() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = opened(&site, &owner, LIST).await;
    site.admin().delete(&format!("/admin/members/{}/sessions", owner.uid)).await.done();
    browser.press("/").await;
    browser.type_text("kim").await;
    eventually("the sign-in is shown", async || browser.url().await.contains("/console/sign-in?r=")).await;
    browser.fill("login", &owner.username).await;
    browser.fill("password", PASSWORD).await;
    browser.submit("Sign in").await;
    listed(&browser, &["Kim Lee"]).await;
    assert!(browser.url().await.ends_with("/members?keyword=kim"), "{}", browser.url().await);
}

#[tokio::test]
async fn suggestions_are_fetched_while_somebody_types() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = opened(&site, &owner, "/console/o/acme/why").await;
    browser.fill("uid", "kim l").await;
    let suggested = "return [...document.querySelectorAll('datalist option')].map((option) => option.value)";
    eventually("Kim is suggested", async || browser.script(suggested, json!([])).await == json!([kim.uid])).await;
    assert_eq!(browser.console_log().await, [""; 0]);
}

// ── copying, times, unsaved text ──

#[tokio::test]
async fn a_button_copies_the_text_beside_it() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = opened(&site, &owner, &format!("{LIST}/{}", kim.uid)).await;
    let beside = "return document.querySelector('main [data-copy]').parentElement.querySelector('code').textContent";
    assert_eq!(browser.script(beside, json!([])).await, Value::from(kim.uid.as_str()));
    browser.submit("main [data-copy]").await;
    browser.text("main [data-copy].done").await;
    said(&browser, "Copied").await;
    // Pasted, it is the same text.
    browser.fill("display_name", "x").await;
    browser.press("Control+a Control+v").await;
    let pasted = "return document.querySelector('[name=display_name]').value";
    assert_eq!(browser.script(pasted, json!([])).await, Value::from(kim.uid.as_str()));
    assert_eq!(browser.console_log().await, [""; 0]);
}

#[tokio::test]
async fn times_are_those_of_the_reader() {
    const ALL: &str = "return [...document.querySelectorAll('main time[data-local-time=full]')]
        .map((time) => [time.dateTime, time.textContent, time.title])";
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let path = format!("{LIST}/{}", kim.uid);
    let browser = opened(&site, &owner, &path).await;
    // Taipei and Kathmandu have no summer time.
    for (zone, minutes) in [("Asia/Taipei", 480), ("Asia/Kathmandu", 345), ("UTC", 0)] {
        browser.time_zone(zone).await;
        browser.open(&format!("{}{path}", site.url)).await;
        let shown = browser.script(ALL, json!([])).await;
        let times = shown.as_array().expect("times");
        assert!(!times.is_empty(), "{zone}");
        for time in times {
            let at = DateTime::parse_from_rfc3339(time[0].as_str().expect("a time")).expect("a time");
            let local = (at.naive_utc() + Duration::minutes(minutes)).format("%Y-%m-%d %H:%M").to_string();
            let in_utc = at.naive_utc().format("%Y-%m-%d %H:%M UTC").to_string();
            assert_eq!((time[1].as_str(), time[2].as_str()), (Some(local.as_str()), Some(in_utc.as_str())), "{zone}");
        }
    }
    browser.open(&format!("{}{LIST}", site.url)).await;
    let ago = browser.texts("time[data-local-time=ago]").await;
    assert!(!ago.is_empty() && ago.iter().all(|text| text.ends_with("ago") || text == "now"), "{ago:?}");
    // Times that came with a swap are local too.
    browser.fill("keyword", "kim").await;
    listed(&browser, &["Kim Lee"]).await;
    let ago = browser.texts("time[data-local-time=ago]").await;
    assert!(ago.len() == 1 && !ago[0].contains("UTC"), "{ago:?}");
}

#[tokio::test]
async fn typed_text_is_not_lost_by_leaving_but_can_be_sent() {
    const ASKS: &str = "
        const event = new Event('beforeunload', { cancelable: true });
        dispatchEvent(event);
        return event.defaultPrevented";
    // The last listener sees whether an earlier one holds the browser back.
    const NOTE: &str =
        "addEventListener('beforeunload', (event) => { sessionStorage.heldBack = event.defaultPrevented; })";
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = opened(&site, &owner, &format!("{LIST}/{}", kim.uid)).await;
    assert_eq!(browser.script(ASKS, json!([])).await, false, "nothing was typed");
    browser.fill("display_name", "Kim L.").await;
    assert_eq!(browser.script(ASKS, json!([])).await, true);
    browser.script(NOTE, json!([])).await;
    browser.submit("Save").await;
    assert_eq!(browser.text("h1").await, "Kim L.");
    assert_eq!(browser.script("return sessionStorage.heldBack", json!([])).await, "false", "sending is not leaving");
    assert_eq!(browser.script(ASKS, json!([])).await, false);
    // A search is no text that could be lost.
    browser.open(&format!("{}{LIST}", site.url)).await;
    browser.fill("keyword", "kim").await;
    assert_eq!(browser.script(ASKS, json!([])).await, false);
    assert_eq!(browser.console_log().await, [""; 0]);
}
