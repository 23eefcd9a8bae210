//! The search page, the suggestions for fields, and the palette, which is the search in a dialog.

use serde_json::{Value, json};

use super::{sign_in, signed_in};
use crate::harness::browser::Browser as Chromium;
use crate::harness::console::{Element, Page, encoded};
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;

const SEARCH: &str = "/console/search";
const PAYLOAD: &str = "<img src=x onerror=xss()>";

/// An organization with an owner and Kim Lee, whose e-mail holds `harb`.
async fn prepared(site: &Site) -> (Organization<'_>, Member<'_>, Member<'_>) {
    let acme = site.organization("acme").await;
    let (owner, kim) = (acme.member_with_role("tenant_owner").await, acme.member().await);
    let body = json!({"display_name": "Kim Lee", "email": "kim.lee@harbour.example.org"});
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), body).await.done();
    (acme, owner, kim)
}

/// Headings of the answer, each with its links: address and text.
fn groups(page: &Page) -> Vec<(String, Vec<(String, String)>)> {
    let region = page.every_element().into_iter().find(|one| one.attribute("id") == Some("found")).expect("a region");
    let link = |a: &Element| (a.attributes["href"].clone(), a.text());
    let lists = region.elements("ul");
    let links = lists.iter().map(|list| list.elements("a").iter().map(link).collect());
    region.elements("h2").iter().map(Element::text).zip(links).collect()
}

fn group(page: &Page, title: &str) -> Vec<(String, String)> {
    groups(page).into_iter().find(|(known, _)| known == title).map(|(_, links)| links).unwrap_or_default()
}

#[tokio::test]
async fn pages_actions_people_and_things_are_links() {
    let site = Site::start().await;
    let (acme, owner, kim) = prepared(&site).await;
    let role = acme.role("member_of_crew", &[]).await;
    let browser = signed_in(&site, &owner.username).await;
    let empty = browser.get(&format!("{SEARCH}?org=acme")).await;
    assert_eq!((empty.status, empty.h1().as_str()), (200, "Search"));
    let pages = group(&empty, "Pages");
    assert!(pages.contains(&("/console/o/acme/members".into(), "Members".into())), "{pages:?}");
    assert!(!pages.iter().any(|(href, _)| href.starts_with("/console/site")), "{pages:?}");
    let page = browser.get(&format!("{SEARCH}?org=acme&q=MEMBER")).await;
    assert!(group(&page, "Pages").contains(&("/console/o/acme/members".into(), "Members".into())));
    assert!(group(&page, "Actions").contains(&("/console/o/acme/members/new".into(), "New member".into())));
    let roles = group(&page, "Roles");
    assert!(roles.contains(&(format!("/console/o/acme/roles/{role}"), "member_of_crew".into())), "{roles:?}");
    let person = browser.get(&format!("{SEARCH}?org=acme&q=harb")).await;
    let kim_page = (format!("/console/o/acme/members/{}", kim.uid), "Kim Lee".to_owned());
    assert_eq!(groups(&person), [("Members".to_owned(), vec![kim_page.clone()])]);
    assert!(person.main().contains("kim.lee@harbour.example.org"), "{}", person.main());
    assert_eq!(browser.get(&kim_page.0).await.h1(), "Kim Lee");
    // Every link leads to a page.
    for (href, _) in groups(&page).into_iter().chain(groups(&empty)).flat_map(|(_, links)| links) {
        if !href.contains("export=1") {
            assert_eq!(browser.get(&href).await.status, 200, "{href}");
        }
    }
    let nothing = browser.get(&format!("{SEARCH}?org=acme&q={}", encoded(PAYLOAD))).await;
    assert_eq!((nothing.status, nothing.with_class("empty").len()), (200, 1));
    assert_eq!(nothing.value("q").as_deref(), Some(PAYLOAD));
    nothing.require_escaped(PAYLOAD);
}

#[tokio::test]
async fn only_what_the_visitor_may_open_is_offered() {
    let site = Site::start().await;
    let (acme, ..) = prepared(&site).await;
    site.organization("globex").await;
    let plain = signed_in(&site, &acme.member().await.username).await;
    let page = plain.get(&format!("{SEARCH}?q=member")).await;
    assert_eq!((page.status, groups(&page).len()), (200, 0), "{}", page.main());
    let own = group(&plain.get(SEARCH).await, "Pages");
    assert!(
        !own.is_empty() && own.iter().all(|(href, _)| href.starts_with("/console/me") || href == "/console/o/acme"),
        "{own:?}"
    );
    assert_eq!(plain.get(&format!("{SEARCH}?org=globex&q=member")).await.status, 404);
    let reader = signed_in(&site, &acme.member_with(&["roster.user.list"]).await.username).await;
    let actions = group(&reader.get(&format!("{SEARCH}?q=new")).await, "Actions");
    assert!(!actions.iter().any(|(_, text)| text == "New member"), "{actions:?}");
    let admin = signed_in(&site, ADMIN).await;
    let everywhere = admin.get(&format!("{SEARCH}?q=organization")).await;
    assert!(group(&everywhere, "Pages").contains(&("/console/site/organizations".into(), "Organizations".into())));
    let person = group(&admin.get(&format!("{SEARCH}?q=harb")).await, "Members");
    assert!(person[0].0.starts_with("/console/site/members/"), "{person:?}");
}

#[tokio::test]
async fn pages_of_own_organizations_are_offered_if_the_address_names_none() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let admin = signed_in(&site, ADMIN).await;
    let invitations = "/console/o/platform/invitations";
    let found = admin.get(&format!("{SEARCH}?q=invit")).await;
    for (title, text) in [("Pages", "Invitations · "), ("Actions", "Invite somebody · ")] {
        let links = group(&found, title);
        assert!(links.iter().any(|(href, shown)| href == invitations && shown.starts_with(text)), "{links:?}");
    }
    let in_acme = group(&admin.get(&format!("{SEARCH}?org=acme&q=invit")).await, "Pages");
    assert_eq!(in_acme, [("/console/o/acme/invitations".to_owned(), "Invitations".to_owned())]);
    // Acts by their verbs, as far as they are allowed.
    let key = ("/console/site/signing-keys".to_owned(), "Rotate the signing key".to_owned());
    for text in ["rotate", "輪替"] {
        let links = group(&admin.get(&format!("{SEARCH}?q={}", encoded(text))).await, "Actions");
        assert!(links.contains(&key), "{links:?}");
    }
    let browser = signed_in(&site, &owner.username).await;
    let links = group(&browser.get(&format!("{SEARCH}?org=acme&q=suspend")).await, "Actions");
    assert_eq!(links, [("/console/o/acme/members".to_owned(), "Suspend a member".to_owned())]);
}

#[tokio::test]
async fn the_button_names_the_keys_of_the_visitors_keyboard() {
    let site = Site::start().await;
    for (agent, keys) in
        [("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", "⌘K"), ("Mozilla/5.0 (X11; Linux)", "Ctrl K")]
    {
        let browser = site.visitor().with("user-agent", agent);
        browser.sign_in(ADMIN, PASSWORD).await;
        assert_eq!(browser.get("/console/me").await.elements("kbd")[0].text(), keys);
    }
}

#[tokio::test]
async fn both_languages_find_a_page_and_built_in_roles_have_chinese_names() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&owner.username, PASSWORD).await;
    for text in ["members", "成員"] {
        let pages = group(&browser.get(&format!("{SEARCH}?q={}", encoded(text))).await, "頁面");
        assert!(pages.contains(&("/console/o/acme/members".into(), "成員".into())), "{pages:?}");
    }
    let roles = group(&browser.get(&format!("{SEARCH}?q=tenant_owner")).await, "角色");
    assert_eq!(roles[0].1, "擁有者");
    for page in ["/console/o/acme/roles", "/console/o/acme/grid", "/console/me/rights"] {
        let shown = browser.get(page).await;
        assert!(shown.main().contains("擁有者") && !shown.main().contains("Owner"), "{page}: {}", shown.main());
    }
}

#[tokio::test]
async fn fields_get_suggestions() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = signed_in(&site, &owner.username).await;
    let options = async |query: &str| -> Vec<(String, String)> {
        let page = browser.get(&format!("{SEARCH}?as=options&org=acme&{query}")).await;
        assert!(page.status == 200 && page.elements("main").is_empty(), "{}", page.text);
        page.elements("option").iter().map(|one| (one.attributes["value"].clone(), one.text())).collect()
    };
    let login = "kim.lee@harbour.example.org";
    assert_eq!(options("kind=member&q=harb").await, [(login.to_owned(), format!("Kim Lee · {login}"))]);
    assert_eq!(options("kind=role&q=harb").await, []);
    assert_eq!(options("kind=role&q=tenant_ow").await[0].1, "Owner · tenant_owner");
    assert_eq!(options("q=h").await, []);
    assert_eq!(options("kind=action&q=signed+out").await[0], ("Signed out".to_owned(), "session.end".to_owned()));
    // What was picked filters the decisions by that member, who is named.
    let uid = kim.uid.as_str();
    let body = json!({"uid": uid, "permission": "roster.member.list"});
    owner.caller().post("/api/v1/permissions/check", body).await.done();
    let decisions = eventually("the decision is logged", async || {
        let page = browser.get(&format!("/console/o/acme/decisions?uid={}", encoded(login))).await;
        page.links().contains(&format!("/console/o/acme/members/{uid}")).then_some(page)
    })
    .await;
    let why = format!("/console/o/acme/why?uid={uid}&permission=roster.member.list");
    assert!(decisions.links().contains(&why) && decisions.main().contains("Kim Lee"), "{}", decisions.main());
    assert_eq!(decisions.value("uid").as_deref(), Some(login));
    let nobody = browser.get("/console/o/acme/decisions?uid=nobody-i-know").await;
    assert_eq!((nobody.status, nobody.faults()[0].0.as_str()), (200, "uid"), "{}", nobody.main());
}

// ── the palette ──

async fn focus(browser: &Chromium) -> Value {
    browser.script("return [document.activeElement.name ?? '', document.querySelector('dialog').open]", json!([])).await
}

#[tokio::test]
async fn a_member_is_opened_with_the_palette_by_a_part_of_the_e_mail() {
    let site = Site::start().await;
    let (_acme, owner, kim) = prepared(&site).await;
    let browser = Chromium::start().await;
    browser.size(1_280, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&format!("{}/console/o/acme/roles", site.url)).await;
    browser.press("Control+k").await;
    assert_eq!(focus(&browser).await, json!(["q", true]));
    browser.type_text("harb").await;
    browser.press("Enter").await;
    let there = format!("{}/console/o/acme/members/{}", site.url, kim.uid);
    eventually("the member is shown", async || browser.url().await == there).await;
    assert_eq!((browser.text("h1").await, browser.console_log().await), ("Kim Lee".into(), Vec::new()));
}

#[tokio::test]
async fn arrow_keys_choose_and_escape_returns_the_focus() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = Chromium::start().await;
    browser.size(1_280, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&format!("{}/console/o/acme/roles", site.url)).await;
    browser.press("/").await;
    let before = browser.focused().await;
    assert_eq!(before, "input[name=q]");
    browser.press("Control+k").await;
    assert_eq!(focus(&browser).await, json!(["q", true]));
    browser.press("Escape").await;
    let is_own = "return [document.activeElement.closest('main') !== null, document.querySelector('dialog').open]";
    assert_eq!(browser.script(is_own, json!([])).await, json!([true, false]), "{before}");
    browser.press("Control+k").await;
    browser.type_text("new member").await;
    eventually("the action is found", async || browser.texts("dialog .results a").await == ["New member"]).await;
    assert_eq!(browser.axe().await, [""; 0]);
    browser.press("ArrowDown").await;
    assert_eq!(browser.focused().await, "a \"New member\"");
    browser.press("ArrowUp").await;
    assert_eq!(focus(&browser).await, json!(["q", true]));
    browser.press("ArrowDown Enter").await;
    assert_eq!(browser.url().await, format!("{}/console/o/acme/members/new", site.url));
    assert_eq!(browser.console_log().await, [""; 0]);
}

#[tokio::test]
async fn the_button_opens_it_and_without_script_it_is_a_page() {
    let site = Site::start().await;
    let (_acme, owner, _) = prepared(&site).await;
    let browser = Chromium::start().await;
    browser.size(1_280, 900).await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&format!("{}/console/o/acme/members", site.url)).await;
    browser.submit("a[data-palette]").await;
    assert_eq!(focus(&browser).await, json!(["q", true]));
    browser.press("Escape").await;
    browser.without_script().await;
    browser.open(&format!("{}/console/o/acme/members", site.url)).await;
    browser.submit("a[data-palette]").await;
    assert_eq!(browser.url().await, format!("{}{SEARCH}?org=acme", site.url));
    browser.fill("q", "harb").await;
    browser.submit("Search").await;
    browser.click_link("Kim Lee").await;
    assert_eq!(browser.text("h1").await, "Kim Lee");
}
