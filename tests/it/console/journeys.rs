//! What people do, in a real browser: every page as it looks, and the first tasks of an owner and a member.

use serde_json::json;

use super::{Things, sign_in, whole_pages};
use crate::harness::browser::Browser;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, PASSWORD, Site};

/// Names that break careless pages: markup, another direction of writing, signs of several bytes, and the longest.
const NAMES: [&str; 4] = [
    "<img src=x onerror=alert(1)>",
    "שלום עולם",
    "👩‍🎨 Kim",
    "A name of very many characters without any blank 0123456789",
];

/// Puts something on every list.
pub(super) async fn furnish<'s>(site: &'s Site, acme: &Organization<'s>) -> Member<'s> {
    site.import(json!([{"name": "film"}, {"name": "film.delete", "parent": "film", "http_methods": "DELETE", "http_path": "/films/:id"}]))
        .await;
    let long = format!("{}{}", NAMES[3], "x".repeat(200 - NAMES[3].len()));
    for name in NAMES[..3].iter().copied().chain([long.as_str()]) {
        let member = acme.member().await;
        acme.admin().patch(&format!("/admin/members/{}", member.uid), json!({"display_name": name})).await.done();
    }
    let cutter = acme.role("cutter", &["film.delete"]).await;
    let kim = acme.member_with_role("viewer").await;
    acme.assign(&kim.uid, &cutter).await;
    acme.map("ldap", "cutters", "cutter").await;
    acme.admin().post("/admin/invitations", json!({"email": "lee@example.org", "role_key": "viewer"})).await.done();
    acme.check(json!({"uid": kim.uid, "method": "GET", "path": "/films"})).await;
    kim.caller().post("/me/api-keys", json!({"name": "laptop"})).await.done();
    kim
}

/// What is wrong with the page that the browser shows.
async fn faults(browser: &Browser, is_phone: bool) -> Vec<String> {
    let mut faults = browser.axe().await;
    faults.extend(browser.console_log().await);
    if browser.overflow().await {
        faults.extend(browser.sticking_out().await.into_iter().map(|one| format!("scrolls sideways: {one}")));
    }
    if is_phone {
        faults.extend(browser.small_targets().await.into_iter().map(|one| format!("too small: {one}")));
    }
    faults
}

/// A look: width, dark, language.
type Look = (u32, bool, &'static str);
const LOOKS: [Look; 2] = [(1280, false, "en"), (360, true, "zh-TW")];
const FURTHER_LOOKS: [Look; 6] = [
    (320, false, "en"),
    (360, false, "en"),
    (768, false, "zh-TW"),
    (768, true, "en"),
    (1280, true, "zh-TW"),
    (1280, true, "en"),
];

#[tokio::test]
async fn every_page_is_sound_on_a_desk_and_on_a_phone() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = furnish(&site, &acme).await;
    let things = Things { role_id: acme.role_id("cutter").await, ..Things::of(&acme, &kim).await };
    let browser = Browser::start().await;
    sign_in(&browser, &site, ADMIN).await;
    let is_full = std::env::var("TEST_TIER").is_ok_and(|tier| tier == "full");
    let looks: Vec<Look> = LOOKS.into_iter().chain(FURTHER_LOOKS.into_iter().filter(|_| is_full)).collect();
    let mut found = Vec::new();
    for (width, is_dark, language) in looks {
        browser.size(width, 900).await;
        browser.dark(is_dark).await;
        browser.language(language).await;
        for page in whole_pages() {
            let path = things.address(page, "acme");
            browser.open(&format!("{}{path}", site.url)).await;
            browser.text("h1").await;
            let name = page.path.trim_start_matches('/').replace(['/', '{', '}'], "_");
            let theme = if is_dark { "dark" } else { "light" };
            if is_full {
                browser.screenshot(&format!("{name}-{width}-{theme}-{language}")).await;
            }
            let here = faults(&browser, width < 600).await;
            found.extend(here.into_iter().map(|fault| format!("{path} at {width} {theme} {language}: {fault}")));
        }
    }
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

#[tokio::test]
async fn pages_for_strangers_are_sound() {
    let site = Site::start().await;
    let browser = Browser::start().await;
    let mut found = Vec::new();
    for (width, is_dark, language) in LOOKS {
        browser.size(width, 900).await;
        browser.dark(is_dark).await;
        browser.language(language).await;
        for path in [
            "/console/sign-in",
            "/console/forgot",
            "/console/nowhere",
            "/invitation?token=x",
            "/reset?token=x",
            "/setup?token=x",
        ] {
            browser.open(&format!("{}{path}", site.url)).await;
            browser.text("h1").await;
            let name = path.split('?').next().unwrap_or_default().trim_matches('/').replace('/', "_");
            browser.screenshot(&format!("{name}-{width}-{language}")).await;
            let here = faults(&browser, width < 600).await;
            found.extend(here.into_iter().map(|fault| format!("{path} at {width} {language}: {fault}")));
        }
    }
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

/// The owner makes an organization and an invitation; the invited member accepts it on a phone. With and without script.
async fn from_the_first_organization_to_the_first_member(is_with_script: bool) {
    let site = Site::start().await;
    let browser = Browser::start().await;
    if !is_with_script {
        browser.without_script().await;
    }
    sign_in(&browser, &site, ADMIN).await;
    assert!(browser.url().await.ends_with("/console/site/first-steps"), "{}", browser.url().await);
    browser.fill("name", "Acme Studios").await;
    browser.fill("org_code", "acme").await;
    browser.submit("Create organization").await;
    assert!(browser.url().await.ends_with("/console/o/acme/invitations"), "{}", browser.url().await);
    browser.fill("email", "kim@example.org").await;
    browser.submit("Create the link").await;
    let text = browser.text("main").await;
    let link = text.split_whitespace().find(|word| word.contains("/invitation?token=")).expect("a link").to_owned();
    browser.submit("details.account > summary").await;
    browser.submit("form[action$=sign-out] button").await;
    browser.size(360, 740).await;
    browser.open(&link).await;
    browser.fill("password", PASSWORD).await;
    browser.fill("again", PASSWORD).await;
    browser.submit("main button").await;
    assert!(browser.url().await.contains("/console/me"), "{}", browser.url().await);
    assert_eq!(browser.console_log().await, [""; 0]);
    let members = site.admin().with("x-tenant-id", "acme").get("/admin/users").await.data();
    assert_eq!(members["items"][0]["email"], "kim@example.org");
}

#[tokio::test]
async fn an_owner_invites_the_first_member() {
    from_the_first_organization_to_the_first_member(true).await;
}

#[tokio::test]
async fn an_owner_invites_the_first_member_without_script() {
    from_the_first_organization_to_the_first_member(false).await;
}
