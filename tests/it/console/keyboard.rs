//! The console with keys alone, in Chromium: three tasks, the order of the focus, and the keys of the script.

use serde_json::{Value, json};

use super::{Things, sign_in, whole_pages};
use crate::harness::browser::Browser;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;

/// More stops than any page of these tests has.
const STOPS_MAX: usize = 200;

const WIDTH: u32 = 1_280;

/// An organization with Kim Lee, who holds no role, and its owner.
async fn prepared(site: &Site) -> (Organization<'_>, Member<'_>, Member<'_>) {
    site.import(json!([
        {"name": "film"},
        {"name": "film.delete", "parent": "film", "http_methods": "DELETE", "http_path": "/films/:id"},
    ]))
    .await;
    let acme = site.organization("acme").await;
    let (owner, kim) = (acme.member_with_role("tenant_owner").await, acme.member().await);
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": "Kim Lee"})).await.done();
    (acme, owner, kim)
}

/// Presses Tab until this has the focus.
async fn tab_to(browser: &Browser, wanted: &str) {
    let mut passed = Vec::new();
    for _ in 0..STOPS_MAX {
        browser.press("Tab").await;
        let focused = browser.focused().await;
        if focused == wanted {
            return;
        }
        passed.push(focused);
    }
    panic!("{wanted} gets no focus: {passed:?}");
}

async fn value(browser: &Browser) -> Value {
    browser.script("return document.activeElement.value", json!([])).await
}

fn at(site: &Site, path: &str) -> String {
    format!("{}{path}", site.url)
}

// ── three tasks ──

#[tokio::test]
async fn signing_in_and_reaching_the_members() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    browser.open(&at(&site, "/console/sign-in")).await;
    assert_eq!(browser.focused().await, "input[name=login]");
    browser.type_text(&owner.username).await;
    tab_to(&browser, "input[name=password]").await;
    browser.type_text(PASSWORD).await;
    browser.press("Enter").await;
    assert_eq!(browser.url().await, at(&site, "/console/o/acme"));
    browser.open(&at(&site, "/console/me")).await;
    let own = browser.text("details.switcher > summary").await;
    tab_to(&browser, &format!("summary \"{own}\"")).await;
    browser.press("Enter").await;
    tab_to(&browser, "a \"acme\"").await;
    browser.press("Enter").await;
    assert_eq!(browser.url().await, at(&site, "/console/o/acme"));
    // The navigation leads on from there.
    tab_to(&browser, "a \"Roles\"").await;
    browser.press("Enter").await;
    assert_eq!(browser.url().await, at(&site, "/console/o/acme/roles"));
    tab_to(&browser, "a \"Members\"").await;
    browser.press("Enter").await;
    assert_eq!((browser.text("h1").await, browser.console_log().await), ("Members".into(), Vec::new()));
}

#[tokio::test]
async fn searching_a_member_and_opening_them() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&at(&site, "/console/o/acme/members")).await;
    browser.press("/").await;
    assert_eq!(browser.focused().await, "input[name=keyword]");
    browser.type_text("kim").await;
    eventually("the list is narrowed", async || browser.texts(".row-link").await == ["Kim Lee"]).await;
    assert_eq!((browser.focused().await.as_str(), value(&browser).await), ("input[name=keyword]", json!("kim")));
    tab_to(&browser, "a \"Kim Lee\"").await;
    browser.press("Enter").await;
    assert_eq!(browser.url().await, at(&site, &format!("/console/o/acme/members/{}", kim.uid)));
    assert_eq!(browser.text("h1").await, "Kim Lee");
    assert_eq!(browser.console_log().await, [""; 0]);
}

#[tokio::test]
async fn asking_why_and_reading_the_verdict() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&at(&site, "/console/o/acme/roles")).await;
    tab_to(&browser, "a \"Why?\"").await;
    browser.press("Enter").await;
    tab_to(&browser, "input[name=uid]").await;
    browser.type_text(&kim.username).await;
    tab_to(&browser, "select[name=method]").await;
    browser.type_text("D").await;
    tab_to(&browser, "input[name=path]").await;
    browser.type_text("/films/7").await;
    assert_eq!(value(&browser).await, "/films/7", "the slash is typed, and searches nothing");
    browser.press("Enter").await;
    let verdict = browser.text(".verdict").await;
    assert!(verdict.contains("No") && verdict.contains("no_permission"), "{verdict}");
    let url = browser.url().await;
    assert!(url.contains("method=DELETE") && url.contains("path=%2Ffilms%2F7"), "{url}");
    assert_eq!(browser.console_log().await, [""; 0]);
}

// ── the order of the focus ──

/// Where the focus is: its place in the document, its landmark, its box on the page, and what it is.
const STOP: &str = "
    const element = document.activeElement;
    if (!element || element === document.body) return null;
    const box = element.getBoundingClientRect();
    const landmark = element.closest('nav, main, header, footer, dialog');
    return {
      place: [...document.querySelectorAll('*')].indexOf(element),
      landmark: landmark ? [...document.querySelectorAll('*')].indexOf(landmark) : -1,
      top: box.top + scrollY, bottom: box.bottom + scrollY, left: box.left, right: box.right,
      what: element.outerHTML.slice(0, 120),
    };";

/// The stops of Tab inside one control, such as the parts of a date.
const PARTS_MAX: usize = 5;

/// Everything that Tab reaches, in order, until the focus leaves the page.
async fn stops(browser: &Browser) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    let mut parts = 0;
    for _ in 0..STOPS_MAX {
        browser.press("Tab").await;
        let stop = browser.script(STOP, json!([])).await;
        let is_same = |other: Option<&Value>| other.is_some_and(|other| other["place"] == stop["place"]);
        if !stop.is_null() && is_same(found.last()) {
            parts += 1;
            assert!(parts < PARTS_MAX, "a trap: {stop}");
            continue;
        }
        parts = 0;
        // The focus left the page, or begins again.
        if stop.is_null() || is_same(found.first()) {
            return found;
        }
        found.push(stop);
    }
    panic!("the focus never leaves the page: {:?}", found.last());
}

/// Whether the second of two stops stands above the first, in the same column.
fn is_back(one: &Value, next: &Value) -> bool {
    let number = |stop: &Value, name: &str| stop[name].as_f64().expect("a number");
    one["landmark"] == next["landmark"]
        && number(next, "bottom") <= number(one, "top")
        && number(next, "left") < number(one, "right")
        && number(one, "left") < number(next, "right")
}

#[tokio::test]
async fn the_focus_follows_the_reading_order_and_is_never_trapped() {
    let site = Site::start().await;
    let (acme, _, kim) = prepared(&site).await;
    let things = Things::of(&acme, &kim).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    sign_in(&browser, &site, ADMIN).await;
    let mut faults = Vec::new();
    for page in whole_pages().filter(|page| page.path != "/o/{org}/grid") {
        let address = things.address(page, "acme");
        browser.open(&at(&site, &address)).await;
        let all = stops(&browser).await;
        assert!(all.len() > 5, "{address}: {all:?}");
        for pair in all.windows(2) {
            if pair[0]["place"].as_u64() > pair[1]["place"].as_u64() || is_back(&pair[0], &pair[1]) {
                faults.push(format!("{address}: {} comes before {}", pair[0]["what"], pair[1]["what"]));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn the_skip_link_leads_past_the_navigation() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&at(&site, "/console/o/acme/members")).await;
    browser.press("Tab").await;
    assert_eq!(browser.focused().await, "a \"Skip to the content\"");
    let seen = "const box = document.activeElement.getBoundingClientRect(); return box.width > 20 && box.top >= 0";
    assert_eq!(browser.script(seen, json!([])).await, true, "it is seen while it has the focus");
    browser.press("Enter Tab").await;
    assert_eq!(browser.url().await, at(&site, "/console/o/acme/members#main"));
    let is_inside = "return document.querySelector('main').contains(document.activeElement)";
    assert_eq!(browser.script(is_inside, json!([])).await, true, "{}", browser.focused().await);
}

// ── the keys of the script ──

#[tokio::test]
async fn escape_closes_what_is_open_and_returns_the_focus() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&at(&site, "/console/o/acme/members")).await;
    let own = browser.text("details.switcher > summary").await;
    for summary in [format!("summary \"{own}\""), "summary \"More about Kim Lee\"".to_owned()] {
        tab_to(&browser, &summary).await;
        browser.press("Enter Tab").await;
        let open = "return document.querySelectorAll('details[open]').length";
        assert_eq!(browser.script(open, json!([])).await, 1, "{summary}");
        assert_ne!(browser.focused().await, summary);
        browser.press("Escape").await;
        assert_eq!(browser.script(open, json!([])).await, 0, "{summary}");
        assert_eq!(browser.focused().await, summary);
    }
}

#[tokio::test]
async fn the_slash_searches_but_not_while_somebody_types() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = Browser::start().await;
    browser.size(WIDTH, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&at(&site, "/console/o/acme/members")).await;
    browser.press("/").await;
    browser.type_text("a/b").await;
    assert_eq!((browser.focused().await.as_str(), value(&browser).await), ("input[name=keyword]", json!("a/b")));
    // Pressed again from elsewhere, what was typed is selected and can be typed over.
    tab_to(&browser, "select[name=is_active]").await;
    browser.press("/").await;
    assert_eq!(browser.focused().await, "select[name=is_active]", "keys belong to a list that has the focus");
    browser.script("document.activeElement.blur()", json!([])).await;
    browser.press("/").await;
    browser.type_text("k").await;
    assert_eq!((browser.focused().await.as_str(), value(&browser).await), ("input[name=keyword]", json!("k")));
    // Where there is no search, and with another key held, nothing happens.
    browser.open(&at(&site, &format!("/console/o/acme/members/{}", kim.uid))).await;
    browser.press("/").await;
    assert_eq!(browser.focused().await, "body");
}
