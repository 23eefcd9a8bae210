//! Below a path that a proxy strips: every address of every page has it.

use std::net::TcpListener;

use roster::console::pages::{Page as Row, all};

use super::{Things, whole_pages};
use crate::harness::browser::Browser as Chromium;
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::nginx::{Nginx, port};
use crate::harness::site::{ADMIN, PASSWORD, Site};

/// The path of the site at the proxy.
const BELOW: &str = "/id";

/// A site behind an nginx, whose public address has a path.
struct Proxied {
    site: Site,
    _nginx: Nginx,
    /// For example `http://127.0.0.1:4567`.
    origin: String,
}

impl Proxied {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = format!("http://127.0.0.1:{}", port(&listener));
        let site = Site::with(&format!("public_url = \"{origin}{BELOW}\"")).await;
        let _nginx = Nginx::start(listener, BELOW, &site.url, "proxy_set_header Host $http_host;");
        Self { site, _nginx, origin }
    }

    /// A browser of the public address. Its paths have the path of the site.
    fn visitor(&self) -> Browser {
        Browser::new(&self.origin)
    }

    async fn signed_in(&self, login: &str) -> Browser {
        let browser = self.visitor();
        let fields = [("login", login), ("password", PASSWORD)];
        let page = browser.post(&format!("{BELOW}/console/sign-in"), &fields).await;
        assert_eq!((page.status, page.location()), (303, Some("/id/console")), "{}", page.text);
        browser
    }
}

fn below(path: &str) -> String {
    format!("{BELOW}{path}")
}

/// The addresses of a page that do not lie below the path, and cookies that other sites of the host would get.
fn faults_of(page: &Page) -> Vec<String> {
    let mut faults = Vec::new();
    for element in page.every_element() {
        for (name, value) in &element.attributes {
            let is_address =
                ["href", "src", "action", "formaction", "data-picker", "data-poll-href"].contains(&name.as_str());
            let is_relative = value.is_empty() || value.starts_with('?') || value.starts_with('#');
            if is_address && !is_relative && !value.starts_with("/id/") {
                faults.push(format!("<{} {name}={value:?}>", element.name));
            }
        }
    }
    if let Some(to) = page.location()
        && to != BELOW
        && !to.starts_with("/id/")
    {
        faults.push(format!("leads to {to}"));
    }
    for cookie in page.headers.get_all("set-cookie") {
        let cookie = cookie.to_str().expect("text");
        if !cookie.contains("; Path=/id;") && !cookie.ends_with("; Path=/id") {
            faults.push(format!("the cookie {cookie}"));
        }
    }
    faults
}

#[tokio::test]
async fn every_address_of_every_page_has_the_path() {
    let proxied = Proxied::start().await;
    let acme = proxied.site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let things = Things::of(&acme, &member).await;
    let stranger = proxied.visitor();
    let mut faults = Vec::new();
    let mut look = |address: &str, page: &Page| {
        faults.extend(faults_of(page).into_iter().map(|fault| format!("{address}: {fault}")));
    };
    let is_addressable = |page: &&Row| !page.path.contains("{name}");
    for page in all().filter(is_addressable) {
        let address = below(&things.address(page, "acme"));
        let shown = stranger.get(&address).await;
        assert!(shown.status < 500 || shown.status == 501, "{address}: {}", shown.status);
        look(&address, &shown);
    }
    let browser = proxied.signed_in(ADMIN).await;
    for page in whole_pages() {
        let address = below(&things.address(page, "acme"));
        let shown = browser.get(&address).await;
        assert_eq!(shown.status, 200, "{address}");
        look(&address, &shown);
        // Pagers and filters write the address of the page with a query.
        let part = format!("{address}?limit=20&offset=50");
        let shown = browser.get(&part).await;
        assert!(shown.status < 500, "{part}: {}", shown.status);
        look(&part, &shown);
    }
    for path in ["/console", "/", "/console/nowhere", "/console/o/acme", "/console/sign-out"] {
        let address = below(path);
        look(&address, &browser.get(&address).await);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    // What the pages load and lead to is there.
    let page = browser.get(&below("/console/me")).await;
    let mut leads: Vec<String> = page.links();
    leads.extend(page.elements("link").iter().filter_map(|link| link.attribute("href").map(str::to_owned)));
    leads.extend(page.elements("script").iter().filter_map(|script| script.attribute("src").map(str::to_owned)));
    for to in leads.iter().filter(|to| to.starts_with('/')) {
        assert!([200, 303].contains(&browser.get(to).await.status), "{to}");
    }
}

#[tokio::test]
async fn signing_in_changing_something_and_signing_out_stay_below_the_path() {
    let proxied = Proxied::start().await;
    let acme = proxied.site.organization("acme").await;
    let kim = acme.member_with_role("viewer").await;
    let profile = below(&format!("/console/o/acme/members/{}", kim.uid));
    // A page that asks for a sign-in returns to itself.
    let visitor = proxied.visitor();
    let asked = visitor.get(&profile).await;
    let to = asked.location().expect("the sign-in").to_owned();
    assert!(to.starts_with("/id/console/sign-in?r="), "{to}");
    let form = visitor.get(&to).await;
    let hidden = form.hidden("/id/console/sign-in");
    let typed = [("login", ADMIN), ("password", PASSWORD)];
    let fields: Vec<(&str, &str)> = borrowed(&hidden).into_iter().chain(typed).collect();
    let done = visitor.post("/id/console/sign-in", &fields).await;
    assert_eq!((done.status, done.location()), (303, Some(profile.as_str())));
    assert_eq!(faults_of(&done), [""; 0]);
    // Suspend, and undo it.
    let suspended = visitor.post(&profile, &[("act", "suspend")]).await;
    assert_eq!((suspended.status, suspended.location()), (303, Some(profile.as_str())));
    assert_eq!(faults_of(&suspended), [""; 0]);
    let notice = visitor.follow(&suspended).await.with_class("notice-undo").remove(0).elements("form").remove(0);
    assert_eq!(notice.attribute("action"), Some(profile.as_str()));
    let undone = visitor.post(&profile, &borrowed(&notice.fields())).await;
    assert_eq!(undone.location(), Some(profile.as_str()));
    let status = proxied.site.admin().get(&format!("/admin/members/{}", kim.uid)).await.data()["status"].clone();
    assert_eq!(status, "active");
    // Language and theme return to the page.
    let preferences = visitor.get(&profile).await.form("/id/console/preferences").expect("a form");
    let chosen: Vec<(String, String)> =
        preferences.fields().into_iter().chain([("theme".to_owned(), "dark".to_owned())]).collect();
    let kept = visitor.post("/id/console/preferences", &borrowed(&chosen)).await;
    assert_eq!((kept.status, kept.location()), (303, Some(profile.as_str())));
    assert_eq!(faults_of(&kept), [""; 0]);
    let out = visitor.post("/id/console/sign-out", &[]).await;
    assert_eq!(faults_of(&out), [""; 0]);
    assert_eq!((out.status, visitor.cookie("access_token")), (303, None));
    // The links of mails and invitations lead here too.
    let invited = proxied.site.admin().with("x-tenant-id", &acme.id);
    let body = serde_json::json!({"email": "lee@example.org"});
    let link = invited.post("/admin/invitations", body).await.data()["url"].as_str().expect("a link").to_owned();
    assert!(link.starts_with(&format!("{}/id/invitation?token=", proxied.origin)), "{link}");
    let invitation = proxied.visitor().get(&link).await;
    assert_eq!((invitation.status, faults_of(&invitation)), (200, Vec::new()), "{}", invitation.text);
}

#[tokio::test]
async fn chromium_works_below_the_path() {
    let proxied = Proxied::start().await;
    let acme = proxied.site.organization("acme").await;
    let kim = acme.member_with_role("viewer").await;
    let named = serde_json::json!({"display_name": "Kim Lee"});
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), named).await.done();
    let browser = Chromium::start().await;
    browser.open(&format!("{}/id/console/o/acme/members", proxied.origin)).await;
    browser.fill("login", ADMIN).await;
    browser.fill("password", PASSWORD).await;
    browser.submit("Sign in").await;
    assert_eq!(browser.url().await, format!("{}/id/console/o/acme/members", proxied.origin));
    browser.fill("keyword", "Kim Lee").await;
    browser.click_link("Kim Lee").await;
    assert_eq!(browser.url().await, format!("{}/id/console/o/acme/members/{}", proxied.origin, kim.uid));
    browser.fill("display_name", "Kim").await;
    browser.submit("Save").await;
    assert_eq!(browser.text("h1").await, "Kim");
    assert!(browser.cookie("access_token").await.is_some());
    assert_eq!(browser.console_log().await, [""; 0]);
    // Other services of the host get no cookie.
    browser.open(&format!("{}/elsewhere", proxied.origin)).await;
    assert_eq!(browser.cookie("access_token").await, None);
}
