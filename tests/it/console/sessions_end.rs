//! Forms that meet trouble: the session ended, the object changed, the form came twice, in pieces, or too large. Nothing
//! that was typed is lost, and nothing is done twice or by half.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use roster::console::pages::all;

use super::{Things, signed_in};
use crate::harness::console::{Browser, Element, Page, borrowed, encoded};
use crate::harness::counterparts::query;
use crate::harness::site::{ADMIN, PASSWORD, Site};

const SIGN_IN: &str = "/console/sign-in";

/// A filled-in form: where it is sent, and what it sends.
type Filled = (String, Vec<(String, String)>);

/// The form of the page that has the first of these fields, filled in with them.
fn filled(page: &Page, typed: &[(&str, &str)]) -> Filled {
    let has_it = |form: &Element| {
        form.attribute("method") == Some("post") && form.fields().iter().any(|(name, _)| name == typed[0].0)
    };
    let form = page.elements("form").into_iter().find(has_it).unwrap_or_else(|| panic!("no form: {}", page.text));
    let mut fields = form.fields();
    fields.retain(|(name, _)| !typed.iter().any(|(known, _)| known == name));
    fields.extend(typed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    // Of a list where something must be chosen, the first.
    let boxes = form.elements("input");
    let scope = boxes.iter().find(|input| input.attribute("name") == Some("scopes"));
    if let Some(scope) = scope.filter(|_| !fields.iter().any(|(name, _)| name == "scopes")) {
        fields.push(("scopes".into(), scope.attribute("value").expect("a value").to_owned()));
    }
    // What the form does is told by its button, if not by a hidden field.
    let buttons = form.elements("button");
    if let Some(button) = buttons.iter().find(|button| button.attribute("name").is_some()) {
        let sent = |name: &str| button.attribute(name).unwrap_or_default().to_owned();
        fields.push((sent("name"), sent("value")));
    }
    (form.attribute("action").expect("an action").to_owned(), fields)
}

async fn send(browser: &Browser, form: &Filled) -> Page {
    browser.post(&form.0, &borrowed(&form.1)).await
}

/// What must not change: policy, audit, members.
fn state(site: &Site) -> [i64; 3] {
    [site.number("select epoch from site"), site.count("audit"), site.count("members")]
}

// ── the session ends ──

#[tokio::test]
async fn a_form_of_an_ended_session_shows_what_was_typed_and_can_be_sent_after_signing_in() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (owner, kim) = (acme.member_with_role("tenant_owner").await, acme.member().await);
    let text = "Kim \"Lee\" <b> & co";
    let profile = format!("/console/o/acme/members/{}", kim.uid);
    let cases: [(&str, &[(&str, &str)]); 4] = [
        (&profile, &[("display_name", text), ("email", "kim@example.org")]),
        ("/console/o/acme/roles/new", &[("key", "film-cutter"), ("display_name", text)]),
        ("/console/o/acme/invitations", &[("email", "lee@example.org")]),
        ("/console/me/profile", &[("display_name", text)]),
    ];
    for (address, typed) in cases {
        let browser = signed_in(&site, &owner.username).await;
        let form = filled(&browser.get(address).await, typed);
        site.admin().delete(&format!("/admin/members/{}/sessions", owner.uid)).await.done();
        let before = state(&site);

        let ended = send(&browser, &form).await;

        assert_eq!((ended.status, ended.h1().as_str()), (401, "Your session has ended"), "{address}");
        assert_eq!(state(&site), before, "{address}");
        let shown: Vec<String> = ended.elements("pre").iter().map(|text| text.text()).collect();
        for (name, value) in typed {
            assert!(shown.iter().any(|text| text == value), "{address}: {name} is not among {shown:?}");
        }
        ended.require_without(text);
        assert!(ended.elements("nav").is_empty(), "{address}: nobody is signed in");
        // The link leads to the sign-in, and that back to the page, whose form still holds.
        let link = ended.links().into_iter().find(|link| link.starts_with(SIGN_IN)).expect("a link");
        let page = browser.get(&link).await;
        let carried = page.value("r").expect("a hidden field");
        let fields = [("login", owner.username.as_str()), ("password", PASSWORD), ("r", carried.as_str())];
        let back = browser.post(SIGN_IN, &fields).await;
        assert_eq!((back.status, back.location()), (303, Some(address)));
        assert_eq!(browser.follow(&back).await.status, 200, "{address}");
        let done = send(&browser, &form).await;
        assert!([200, 303].contains(&done.status), "{address}: {} {}", done.status, done.main());
    }
}

#[tokio::test]
async fn a_return_that_was_altered_leads_to_the_start_page_with_a_sentence() {
    let site = Site::start().await;
    let kim = site.member().await;
    let asked = site.visitor().get("/console/me/sessions?limit=20").await;
    let own = query(&format!("http://x{}", asked.location().expect("a redirect")), "r").expect("a signed value");
    assert!(own.starts_with('A'), "the value begins with the time");
    for value in [
        own[1..].to_owned(),
        format!("B{}", &own[1..]),
        format!("{own}{own}"),
        "https://example.org/".into(),
        "/console/me/keys".into(),
        "\"><script>alert(1)</script>".into(),
    ] {
        let browser = site.visitor();
        let form = browser.get(&format!("{SIGN_IN}?r={}", encoded(&value))).await;
        form.require_without("<script>alert");
        let fields = [("login", kim.username.as_str()), ("password", PASSWORD), ("r", value.as_str())];
        let done = browser.post(SIGN_IN, &fields).await;
        assert_eq!((done.status, done.location()), (303, Some("/console")), "{value}");
        let start = browser.follow(&done).await;
        let page = browser.follow(&start).await;
        let told = "You are signed in. The page that you came from is no longer known, so this is your start page.";
        assert_eq!((page.status, page.notices()), (200, vec![told.to_owned()]), "{value}");
        assert!(browser.get("/console/me").await.notices().is_empty(), "it is told once");
    }
    let browser = site.visitor();
    let fields = [("login", kim.username.as_str()), ("password", PASSWORD), ("r", own.as_str())];
    assert_eq!(browser.post(SIGN_IN, &fields).await.location(), Some("/console/me/sessions?limit=20"));
}

// ── twice, and too late ──

#[tokio::test]
async fn a_form_that_is_sent_twice_makes_one_thing() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let browser = signed_in(&site, ADMIN).await;
    let keys = format!("/console/o/acme/members/{}/keys", kim.uid);
    type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], &'c str);
    let cases: [Case<'_>; 6] = [
        ("/console/site/organizations", &[("org_code", "globex"), ("name", "Globex")], "organizations"),
        ("/console/o/acme/members/new", &[("username", "lee"), ("display_name", "Lee")], "members"),
        ("/console/o/acme/roles/new", &[("key", "cutter"), ("display_name", "Cutter")], "roles"),
        ("/console/o/acme/invitations", &[("email", "lee@example.org")], "invitations"),
        ("/console/me/keys?new=1", &[("name", "laptop")], "api_keys"),
        (&keys, &[("name", "desk")], "api_keys"),
    ];
    for (address, typed, table) in cases {
        let form = filled(&browser.get(address).await, typed);
        assert!(form.1.iter().any(|(name, value)| name == "once" && !value.is_empty()), "{address} has no key");
        let before = site.count(table);

        // Both at once, as after a double click, and again later.
        let (one, two) = tokio::join!(send(&browser, &form), send(&browser, &form));
        let three = send(&browser, &form).await;

        let made = [&one, &two].iter().filter(|page| [200, 303].contains(&page.status)).count();
        assert!(made >= 1, "{address}: {} {}", one.main(), two.main());
        assert!([&one, &two, &three].iter().all(|page| page.status < 500), "{address}");
        // A secret is shown in one answer only.
        let secrets = [&one, &two, &three].iter().filter(|page| !page.with_class("secret").is_empty()).count();
        assert_eq!(secrets, usize::from(matches!(table, "api_keys" | "invitations")), "{address}");
        assert_eq!(site.count(table), before + 1, "{address}");
        // The same key for something else makes nothing.
        let mut other = form.clone();
        for (name, value) in &mut other.1 {
            if name == typed[0].0 {
                value.insert(0, 'x');
            }
        }
        let refused = send(&browser, &other).await;
        assert!((400..500).contains(&refused.status), "{address}: {} {}", refused.status, refused.main());
        assert_eq!(site.count(table), before + 1, "{address}");
    }
}

#[tokio::test]
async fn a_stale_form_keeps_what_was_typed_and_changes_nothing() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let role = acme.role("cutter", &[]).await;
    let browser = signed_in(&site, ADMIN).await;
    let (member, role) = (format!("/console/o/acme/members/{}", kim.uid), format!("/console/o/acme/roles/{role}"));
    let organization = format!("/console/site/organizations/{}", acme.id);
    for (address, field) in [
        (member.as_str(), "display_name"),
        (role.as_str(), "display_name"),
        (organization.as_str(), "name"),
        ("/console/me/profile", "display_name"),
    ] {
        let (theirs, mine, long) = ("Theirs", "Mine <b>", "x".repeat(201));
        let opened = browser.get(address).await;
        let version = opened.value("version").expect("a version");
        let saved = send(&browser, &filled(&opened, &[(field, theirs)])).await;
        assert_eq!(saved.status, 303, "{address}: {}", saved.main());

        // A fault does not give the form the version of a state that nobody has seen.
        let faulty = send(&browser, &filled(&opened, &[(field, &long)])).await;
        assert_eq!((faulty.status, faulty.value("version")), (400, Some(version)), "{address}: {}", faulty.main());
        let stale = send(&browser, &filled(&opened, &[(field, mine)])).await;

        assert_eq!((stale.status, stale.value(field).as_deref()), (412, Some(mine)), "{address}: {}", stale.main());
        stale.require_escaped(mine);
        assert_eq!(browser.get(address).await.value(field).as_deref(), Some(theirs), "{address}");
        // Sent again, after both were seen, it is saved.
        let again = send(&browser, &filled(&stale, &[(field, mine)])).await;
        assert_eq!(again.status, 303, "{address}: {}", again.main());
        assert_eq!(browser.get(address).await.value(field).as_deref(), Some(mine), "{address}");
    }
}

// ── bodies that are no forms ──

/// Asserts that the answer is a page that says what is wrong.
fn require_page_of_an_error(page: &Page, status: u16, word: &str, what: &str) {
    assert_eq!((page.status, page.header("content-type")), (status, Some("text/html; charset=utf-8")), "{what}");
    assert_eq!(page.elements("main").len(), 1, "{what}: {}", page.text);
    assert!(!page.h1().is_empty(), "{what}");
    let report = page.with_class("report").first().map(|report| report.text()).unwrap_or_default();
    assert!(report.contains(word), "{what}: {report}");
}

#[tokio::test]
async fn a_body_of_another_kind_gets_a_page_that_says_so() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let things = Things::of(&acme, &acme.member().await).await;
    let browser = signed_in(&site, ADMIN).await;
    let before = state(&site);
    for page in all().filter(|page| page.post.is_some()) {
        let address = things.address(page, "acme");
        for (kind, body) in [("application/json", "{\"act\":\"delete\"}"), ("text/plain", "act=delete")] {
            let answer = browser.post_raw(&address, kind, body.into()).await;
            require_page_of_an_error(&answer, 415, "media_type", &format!("{address} {kind}"));
        }
    }
    assert_eq!(state(&site), before);
}

#[tokio::test]
async fn a_body_over_its_limit_gets_a_page_that_says_so() {
    let limits = "limits.body_bytes = 4096\nlimits.public_body_bytes = 2048\nlimits.sign_in_bytes = 1024";
    let site = Site::with(limits).await;
    site.organization("acme").await;
    let (browser, stranger) = (signed_in(&site, ADMIN).await, site.visitor());
    let before = state(&site);
    let form = "application/x-www-form-urlencoded";
    let padded = |bytes: usize| [b"act=unknown&x=".as_slice(), &vec![b'x'; bytes - 14]].concat();
    for (browser, address, bytes_max) in [
        (&browser, "/console/o/acme/members/new", 4_096),
        (&browser, "/console/o/acme/roles/new", 4_096),
        (&browser, "/console/me/security", 4_096),
        (&stranger, "/console/forgot", 2_048),
        (&stranger, "/console/o/acme/roles/new", 2_048),
        (&stranger, SIGN_IN, 1_024),
    ] {
        let within = browser.post_raw(address, form, padded(bytes_max)).await;
        assert_ne!(within.status, 413, "{address}");
        let beyond = browser.post_raw(address, form, padded(bytes_max + 1)).await;
        require_page_of_an_error(&beyond, 413, "too_large", address);
    }
    assert_eq!(state(&site), before);
    assert_eq!(browser.get("/console/me").await.status, 200);
}

/// Sends these bytes and then no more, and waits until the server has answered or hung up.
fn send_and_stop(site: &Site, bytes: &[u8]) {
    let mut stream = TcpStream::connect(site.url.trim_start_matches("http://")).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream.write_all(bytes).expect("a request");
    stream.shutdown(Shutdown::Write).expect("half a connection");
    // An answer is not asked for: whether one comes is up to the server.
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let is_reset = read.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(read.is_ok() || is_reset, "{read:?}");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(!answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 3"), "{answer}");
}

#[tokio::test]
async fn a_form_that_is_cut_off_changes_nothing() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = signed_in(&site, ADMIN).await;
    let address = "/console/o/acme/members/new";
    let typed = [("username", "lee"), ("display_name", "Lee"), ("email", "lee@example.org")];
    let form = filled(&browser.get(address).await, &typed);
    let pairs = form.1.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    let cookie = browser.cookie("access_token").expect("signed in");
    let head = format!(
        "POST {address} HTTP/1.1\r\nhost: {}\r\ncookie: access_token={cookie}\r\nsec-fetch-site: same-origin\r\n\
         content-type: application/x-www-form-urlencoded\r\n",
        site.url.trim_start_matches("http://")
    );
    let before = state(&site);
    for sent in [0, 1, body.len() / 2, body.len() - 1] {
        let whole = format!("{head}content-length: {}\r\n\r\n{}", body.len(), &body[..sent]);
        send_and_stop(&site, whole.as_bytes());
        // In pieces of a known size, without the last one.
        let piece = if sent == 0 { String::new() } else { format!("{sent:x}\r\n{}\r\n", &body[..sent]) };
        send_and_stop(&site, format!("{head}transfer-encoding: chunked\r\n\r\n{piece}").as_bytes());
        assert_eq!(state(&site), before, "after {sent} of {} bytes", body.len());
    }
    assert_eq!(send(&browser, &form).await.status, 303);
    assert_eq!(site.count("members"), before[2] + 1);
}
