//! How many clicks and keys the tasks of the manual take, in Chromium. Moving between fields with Tab is not counted.

use std::cell::Cell;
use std::path::Path;

use serde_json::json;

use super::sign_in;
use crate::harness::browser::Browser;
use crate::harness::organizations::{Member, Organization};
use crate::harness::receiver::{Answer, Receiver, webhook};
use crate::harness::site::{ADMIN, Site};
use crate::harness::waiting::eventually;
use crate::webhooks::outbox::QUICK;

/// What a click and a key cost, for the seconds in the manual: measured by others on people who know a program.
const CLICK_S: f64 = 1.3;
const KEY_S: f64 = 0.28;

/// Somebody who does a task, and what that took.
struct Hands<'b> {
    browser: &'b Browser,
    site: &'b Site,
    clicks: Cell<u32>,
    keys: Cell<u32>,
}

impl<'b> Hands<'b> {
    fn new(browser: &'b Browser, site: &'b Site) -> Self {
        Self { browser, site, clicks: Cell::new(0), keys: Cell::new(0) }
    }

    /// Begins a task at this address, where the one who does it already is.
    async fn begin(&self, path: &str) {
        self.clicks.set(0);
        self.keys.set(0);
        self.browser.open(&format!("{}{path}", self.site.url)).await;
    }

    fn clicked(&self) {
        self.clicks.set(self.clicks.get() + 1);
    }

    async fn link(&self, text: &str) {
        self.browser.click_link(text).await;
        self.clicked();
    }

    /// Clicks on a button, named by its text or a selector.
    async fn button(&self, button: &str) {
        self.browser.submit(button).await;
        self.clicked();
    }

    /// Chooses an option, a box or a file.
    async fn choose(&self, name: &str, value: &str) {
        self.browser.fill(name, value).await;
        self.clicked();
    }

    async fn fill(&self, name: &str, text: &str) {
        self.browser.fill(name, text).await;
        self.keys.set(self.keys.get() + count(text));
    }

    /// Opens what the palette finds for this text.
    async fn find(&self, text: &str) {
        self.browser.press("Control+k").await;
        self.browser.type_text(text).await;
        eventually("a result", async || {
            self.browser.texts("dialog[open] a").await.iter().any(|found| !found.is_empty()).then_some(())
        })
        .await;
        let before = self.browser.url().await;
        self.browser.press("Enter").await;
        eventually("the page of the result", async || (self.browser.url().await != before).then_some(())).await;
        self.browser.text("h1").await;
        self.keys.set(self.keys.get() + 2 + count(text));
    }

    /// The row of the manual: what was done, clicks, keys, seconds.
    fn row(&self, task: &str) -> String {
        let (clicks, keys) = (self.clicks.get(), self.keys.get());
        let seconds = f64::from(clicks) * CLICK_S + f64::from(keys) * KEY_S;
        format!("| {task} | {clicks} | {keys} | {seconds:.1} |")
    }
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).expect("a short text")
}

/// An organization with a plugin-worthy past: Kim Lee, who was denied, and an owner.
async fn prepared(site: &Site) -> (Organization<'_>, Member<'_>, Member<'_>) {
    site.import(json!([
        {"name": "film"},
        {"name": "film.delete", "parent": "film", "http_methods": "DELETE", "http_path": "/films/:id"},
    ]))
    .await;
    let acme = site.organization("acme").await;
    let (owner, kim) = (acme.member_with_role("tenant_owner").await, acme.member().await);
    let body = json!({"display_name": "Kim Lee", "email": "kim.lee@harbour.example.org"});
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), body).await.done();
    acme.role("cutter", &[]).await;
    // What members can get at most is what the organization has.
    acme.admin()
        .patch(&format!("/admin/organizations/{}/quota", acme.id), json!({"size": 1_000_000_000_000_i64}))
        .await
        .done();
    acme.check(json!({"uid": kim.uid, "method": "DELETE", "path": "/films/7"})).await;
    (acme, owner, kim)
}

/// Where an owner begins.
const HOME: &str = "/console/o/acme";

/// What the owner of an organization does with people.
async fn tasks_with_people(hands: &Hands<'_>, acme: &Organization<'_>, kim: &Member<'_>, rows: &mut Vec<String>) {
    let browser = hands.browser;
    hands.begin(HOME).await;
    hands.link("Invitations").await;
    hands.fill("email", "lee@example.org").await;
    hands.choose("role_id", "Viewer").await;
    hands.button("Create the link").await;
    hands.button("[data-copy]").await;
    assert!(browser.text("main").await.contains("/invitation?token="));
    rows.push(hands.row("Invite somebody with a role, and copy the link"));

    hands.begin(HOME).await;
    hands.find("harb").await;
    assert_eq!(browser.text("h1").await, "Kim Lee");
    rows.push(hands.row("Open a member by a part of the e-mail"));

    hands.begin(HOME).await;
    hands.find("harb").await;
    hands.choose("role_id", "cutter").await;
    hands.button("Give").await;
    let held = acme.admin().get(&format!("/api/v1/permissions/users/{}/roles", kim.uid)).await.data();
    assert_eq!(held["user_roles"][0]["role_key"], "cutter");
    rows.push(hands.row("Give a member a role"));

    hands.begin(HOME).await;
    hands.find("harb").await;
    hands.button("Suspend").await;
    eventually("a suspended member", async || {
        let member = acme.site.admin().get(&format!("/admin/members/{}", kim.uid)).await.data();
        (member["status"] == "suspended").then_some(())
    })
    .await;
    rows.push(hands.row("Suspend a member; everything ends at once"));
    browser.submit("Undo").await;

    hands.begin(HOME).await;
    hands.find("harb").await;
    hands.link("Reset the second factor").await;
    hands.button("form.confirm button").await;
    assert!(browser.text(".notice").await.contains("has no second factor"), "{}", browser.text("main").await);
    rows.push(hands.row("Take a lost second factor away"));

    hands.begin(HOME).await;
    hands.find("harb").await;
    hands.link("Quota").await;
    hands.fill("size", "20 GB").await;
    hands.button("Save the size").await;
    let quotas = acme.admin().get("/admin/quotas").await.data();
    assert!(quotas.to_string().contains("20000000000"), "{quotas}");
    rows.push(hands.row("Raise a quota"));
}

/// What the owner of an organization does with rights, and when something is wrong.
async fn tasks_with_rights(hands: &Hands<'_>, acme: &Organization<'_>, kim: &Member<'_>, rows: &mut Vec<String>) {
    let browser = hands.browser;
    hands.begin(HOME).await;
    hands.link("Decisions").await;
    hands.button("main a[href*='/why?uid=']").await;
    assert!(browser.text("main").await.contains("no_permission"));
    rows.push(hands.row("See why something was denied"));

    hands.begin(HOME).await;
    hands.link("Roles and permissions").await;
    hands.button("[aria-label='film.delete for cutter']").await;
    hands.button("Preview").await;
    assert!(browser.text("main").await.contains("Kim Lee"));
    hands.button("Apply to 1 role").await;
    let verdict = acme.check(json!({"uid": kim.uid, "method": "DELETE", "path": "/films/7"})).await;
    assert_eq!(verdict["reason"], "ok_role");
    rows.push(hands.row("Change what a role may do, seeing whom it touches"));

    let component = format!("{}/plugins/business-hours/business-hours.wasm", env!("CARGO_MANIFEST_DIR"));
    assert!(Path::new(&component).exists());
    hands.begin(HOME).await;
    hands.link("Plugins").await;
    hands.choose("component", &component).await;
    hands.button("Upload").await;
    eventually("the upload ends", async || {
        browser.texts("main button").await.iter().any(|text| text == "Ask past decisions").then_some(())
    })
    .await;
    hands.button("Ask past decisions").await;
    hands.button("Enforce v1").await;
    assert_eq!(acme.owner().get("/api/v1/plugins/business-hours").await.data()["versions"][0]["state"], "active");
    rows.push(hands.row("Upload a plugin, ask past decisions, enforce it"));

    hands.begin(HOME).await;
    hands.link("Deliveries").await;
    hands.button("Deliver again").await;
    rows.push(hands.row("See a failing delivery, and deliver again"));
}

/// What the administrator of the site does.
async fn tasks_of_an_administrator(hands: &Hands<'_>, site: &Site, rows: &mut Vec<String>) {
    hands.begin("/console/site/first-steps").await;
    hands.fill("name", "Acme Studios").await;
    hands.fill("org_code", "acme").await;
    hands.button("Create organization").await;
    hands.fill("email", "kim@example.org").await;
    hands.button("Create the link").await;
    hands.button("[data-copy]").await;
    rows.push(hands.row("Make an organization, and invite its first member"));

    hands.begin("/console/site").await;
    hands.link("API clients").await;
    hands.fill("name", "portal").await;
    hands.choose("scopes", "members:read").await;
    hands.button("Create the client").await;
    hands.button("[data-copy]").await;
    assert_eq!(site.admin().get("/admin/api-clients").await.data()["items"][0]["name"], "portal");
    rows.push(hands.row("Create an API client with a scope, and copy its secret"));
}

const MANUAL: &str = include_str!("../../../packaging/manual/console.md");

#[tokio::test]
async fn tasks_take_the_clicks_that_the_manual_says() {
    let receiver = Receiver::start(|_, _| Answer::Status(500));
    let mut rows = Vec::new();
    let browser = Browser::start().await;
    browser.size(1_280, 900).await;

    let fresh = Site::start().await;
    sign_in(&browser, &fresh, ADMIN).await;
    tasks_of_an_administrator(&Hands::new(&browser, &fresh), &fresh, &mut rows).await;

    let site = Site::with(QUICK).await;
    let (acme, owner, kim) = prepared(&site).await;
    webhook(&acme.owner(), &receiver.url, &["member.created"]).await;
    acme.owner().post("/admin/members", json!({"username": "lee"})).await.done();
    receiver.wait_for(1).await;
    sign_in(&browser, &site, &owner.username).await;
    let hands = Hands::new(&browser, &site);
    tasks_with_people(&hands, &acme, &kim, &mut rows).await;
    tasks_with_rights(&hands, &acme, &kim, &mut rows).await;
    assert_eq!(browser.console_log().await, [""; 0]);

    let missing: Vec<&String> = rows.iter().filter(|row| !MANUAL.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "the manual says something else than:\n{}", rows.join("\n"));
}
