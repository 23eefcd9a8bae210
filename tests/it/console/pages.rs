//! Every page of the table: who may see it, what every page has in common, and that it names real operations.

use std::collections::HashSet;

use roster::console::pages::{Area, all};
use serde_json::Value;

use super::{Things, closed_pages, signed_in, whole_pages};
use crate::harness::console::Element;
use crate::harness::site::{ADMIN, PASSWORD, Site};

#[tokio::test]
async fn nobody_sees_a_page_before_signing_in() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let things = Things::of(&acme, &acme.member().await).await;
    for page in closed_pages() {
        let address = things.address(page, "acme");
        let answer = site.visitor().get(&address).await;
        assert_eq!(answer.status, 303, "{address}");
        assert!(answer.location().is_some_and(|to| to.starts_with("/console/sign-in?r=")), "{address}");
    }
}

#[tokio::test]
async fn pages_are_for_those_whom_the_table_names() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    site.organization("globex").await;
    let plain = acme.member().await;
    let owner = acme.member_with_role("tenant_owner").await;
    let things = Things::of(&acme, &plain).await;
    let (as_plain, as_owner, as_admin) = (
        signed_in(&site, &plain.username).await,
        signed_in(&site, &owner.username).await,
        signed_in(&site, ADMIN).await,
    );
    for page in closed_pages() {
        let address = things.address(page, "acme");
        let shown = |status: u16| status == 200 || (page.path == "/o/{org}" && status == 303);
        assert!(shown(as_admin.get(&address).await.status), "{address} as administrator");
        let (of_plain, of_owner) = (as_plain.get(&address).await, as_owner.get(&address).await);
        match page.area {
            // An object of somebody else is missing.
            Area::Own if page.path.contains('{') => {
                assert_eq!((of_plain.status, of_owner.status), (404, 404), "{address}");
            }
            Area::Own => assert_eq!((of_plain.status, of_owner.status), (200, 200), "{address}"),
            Area::Site => assert_eq!((of_plain.status, of_owner.status), (403, 403), "{address}"),
            Area::Organization => {
                assert!(shown(of_owner.status), "{address} as owner: {} {}", of_owner.status, of_owner.main());
                if !page.needs.is_empty() {
                    assert_eq!(of_plain.status, 403, "{address} as a plain member");
                    assert!(of_plain.main().contains("roster."), "{address} names no permission: {}", of_plain.main());
                }
                for foreign in ["globex", "nowhere"] {
                    let elsewhere = things.address(page, foreign);
                    assert_eq!(as_owner.get(&elsewhere).await.status, 404, "{elsewhere}");
                }
            }
            Area::Public => unreachable!("closed pages only"),
        }
    }
}

/// What must not be on a page: it would be inline code or style, or come from elsewhere.
fn faults_of(text: &str, elements: &[Element]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ids = HashSet::new();
    for element in elements {
        for (name, value) in &element.attributes {
            let is_inline = name == "style" || (name.starts_with("on") && name.len() > 2);
            let is_address = ["href", "src", "action"].contains(&name.as_str());
            let is_own =
                value.starts_with('/') && !value.starts_with("//") || value.starts_with('#') || value.starts_with('?');
            if is_inline || (is_address && !is_own) {
                faults.push(format!("<{} {name}={value:?}>", element.name));
            }
            if name == "id" && !ids.insert(value.clone()) {
                faults.push(format!("the id {value} stands twice"));
            }
        }
        if element.name == "script" && !element.attributes.contains_key("src") {
            faults.push("a script in the page".into());
        }
    }
    if text.contains("<style") {
        faults.push("a style in the page".into());
    }
    faults
}

#[tokio::test]
async fn every_page_has_the_frame_in_both_languages_and_nothing_inline() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let things = Things::of(&acme, &member).await;
    for (language, browser) in [("en", site.visitor()), ("zh-TW", site.visitor().in_chinese())] {
        browser.sign_in(ADMIN, PASSWORD).await;
        for page in whole_pages() {
            let address = things.address(page, "acme");
            let shown = browser.get(&address).await;
            let html = &shown.elements("html")[0];
            assert_eq!((shown.status, html.attribute("lang")), (200, Some(language)), "{address}");
            assert!(!shown.h1().is_empty() && shown.elements("main").len() == 1, "{address}");
            assert_eq!(shown.title(), format!("{} · Roster", shown.h1()), "{address}");
            let policy = shown.header("content-security-policy").unwrap_or_default();
            assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{address}: {policy}");
            assert_eq!(shown.header("cache-control"), Some("no-store"), "{address}");
            let everything: Vec<Element> = NAMES.iter().flat_map(|name| shown.elements(name)).collect();
            let faults = faults_of(&shown.text, &everything);
            assert!(faults.is_empty(), "{address}: {faults:?}");
            let current: Vec<Element> =
                shown.elements("a").into_iter().filter(|link| link.attribute("aria-current") == Some("page")).collect();
            assert!(page.entry.is_none() || !current.is_empty(), "{address} is not marked in the navigation");
        }
    }
}

/// The elements whose attributes are looked at.
const NAMES: [&str; 26] = [
    "html", "head", "link", "script", "body", "header", "nav", "main", "footer", "section", "div", "form", "input",
    "button", "select", "textarea", "a", "p", "h1", "h2", "table", "tr", "td", "details", "svg", "label",
];

/// Operations that no page needs: programs call them, or a page has a better one.
const FOR_PROGRAMS: [(&str, &str); 24] = [
    ("authenticate_for_sftpgo", "SFTPGo asks it at each sign-in"),
    ("prepare_for_sftpgo", "SFTPGo asks it before each sign-in"),
    ("tell_of_sftpgo_file", "SFTPGo tells of files"),
    ("take_wordpress_hint", "WordPress tells of changes"),
    ("claim_jobs", "workers take jobs"),
    ("heartbeat_job", "workers report progress"),
    ("complete_job", "workers report the end"),
    ("fail_job", "workers report the end"),
    ("register_video", "what uploads a file registers it"),
    ("create_reservation", "what uploads a file reserves its space first"),
    ("commit_reservation", "what uploads a file says that it is there"),
    ("release_reservation", "what uploads a file says that it gave up"),
    ("list_members_internal", "for services of the site"),
    ("get_member_by_sub", "for services of the site"),
    ("list_member_organizations_internal", "for services of the site"),
    ("list_organizations_internal", "for services of the site"),
    ("get_organization_by_code", "for services of the site"),
    ("get_rights_by_sub", "for services of the site"),
    ("upsert_member_by_sub", "for services of the site"),
    ("ensure_authentik_user", "for services of the site"),
    ("refresh", "cookies are renewed with any request"),
    ("reset_password", "the page of the link sets the password before it signs in, which is one step"),
    ("list_members", "pages call list_users, which answers the same and the quotas"),
    ("get_version", "for programs that depend on a version"),
];

/// The operations of the document.
fn documented(document: &Value) -> HashSet<&str> {
    let paths = document["paths"].as_object().expect("paths").values();
    let operations = paths.flat_map(|item| item.as_object().expect("operations").values());
    operations.filter_map(|operation| operation["operationId"].as_str()).collect()
}

#[test]
fn every_operation_has_a_page_or_a_reason_to_have_none() {
    let document: Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).expect("json");
    let known = documented(&document);
    let on_pages: HashSet<&str> = all().flat_map(|page| page.needs.iter().chain(page.uses)).copied().collect();
    let for_programs: HashSet<&str> = FOR_PROGRAMS.iter().map(|(id, _)| *id).collect();
    let sorted = |ids: HashSet<&str>| {
        let mut ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    };
    let missing = known.iter().copied().filter(|id| !on_pages.contains(id) && !for_programs.contains(id)).collect();
    assert_eq!(sorted(missing), [""; 0], "no page calls these");
    let superfluous = for_programs.into_iter().filter(|id| on_pages.contains(id) || !known.contains(id)).collect();
    assert_eq!(sorted(superfluous), [""; 0], "a page calls these, or they do not exist");
}

#[test]
fn pages_name_operations_of_the_document() {
    let document: Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).expect("json");
    let known = documented(&document);
    let named = || all().flat_map(|page| page.needs.iter().chain(page.uses).map(move |id| (page.path, *id)));
    let missing: Vec<_> = named().filter(|(_, id)| !known.contains(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let mut paths = HashSet::new();
    assert!(all().all(|page| paths.insert(page.path)), "two pages have the same address");
}

#[tokio::test]
async fn the_root_leads_to_the_console_and_unknown_addresses_are_a_page() {
    let site = Site::start().await;
    let browser = site.visitor();
    let root = browser.get("/").await;
    assert_eq!((root.status, root.location()), (303, Some("/console")));
    let unknown = browser.get("/console/nowhere").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("text/html; charset=utf-8")));
    browser.sign_in(ADMIN, PASSWORD).await;
    assert_eq!(browser.get("/console/nowhere").await.status, 404);
    assert_eq!(browser.post("/console/me", &[("a", "b")]).await.status, 405);
}

#[tokio::test]
async fn a_form_from_elsewhere_changes_nothing() {
    let site = Site::start().await;
    let origin = site.url.clone();
    for (name, value, is_taken) in [
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("origin", origin.as_str(), true),
        ("origin", "https://example.org", false),
        ("origin", "null", false),
        ("x-nothing", "x", false),
    ] {
        // An empty value leaves the header out.
        let browser = site.visitor().with("sec-fetch-site", "").with(name, value);
        let answer = browser.post("/console/sign-in", &[("login", ADMIN), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, if is_taken { 303 } else { 403 }, "{name}: {value}");
        assert_eq!(browser.cookie("access_token").is_some(), is_taken, "{name}: {value}");
    }
}

#[tokio::test]
async fn language_and_theme_are_kept_in_cookies() {
    let site = Site::start().await;
    let browser = site.visitor();
    let page = browser.get("/console/sign-in").await;
    assert_eq!(page.elements("html")[0].attribute("lang"), Some("en"));
    let fields = [("back", "/console/sign-in"), ("lang", "zh-TW")];
    assert_eq!(browser.post("/console/preferences", &fields).await.location(), Some("/console/sign-in"));
    browser.post("/console/preferences", &[("theme", "dark")]).await;
    let html = browser.get("/console/sign-in").await.elements("html")[0].clone();
    assert_eq!((html.attribute("lang"), html.attribute("data-theme")), (Some("zh-TW"), Some("dark")));
    for elsewhere in ["https://example.org", "//example.org", "/\\example.org"] {
        let answer = browser.post("/console/preferences", &[("back", elsewhere), ("theme", "light")]).await;
        assert_eq!(answer.location(), Some("/console"), "{elsewhere}");
    }
}
