//! Texts that try to run code, in everything that pages show: no page has one as markup, and no browser runs one.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;

use super::{Things, sign_in, signed_in, whole_pages};
use crate::harness::browser::Browser as Chromium;
use crate::harness::console::Page;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures::denying;
use crate::plugins::{enforce, put};
use crate::videos::jobs;

/// Each sets `xss` of the window if it runs, or loads something.
const PAYLOADS: [&str; 48] = [
    // Elements.
    "<script>window.xss=1</script>",
    "<ScRiPt>window.xss=1</sCrIpT>",
    "<scr<script>ipt>window.xss=1</scr</script>ipt>",
    "<img src=x onerror=window.xss=1>",
    "<svg onload=window.xss=1>",
    "<svg/onload=window.xss=1//",
    "<svg><script>window.xss=1</script></svg>",
    "<svg><animate onbegin=window.xss=1 attributeName=x dur=1s>",
    "<svg><a xlink:href=\"javascript:window.xss=1\"><text y=9>x</text></a></svg>",
    "<math><mi xlink:href=\"javascript:window.xss=1\">x</mi></math>",
    "<body onload=window.xss=1>",
    "<iframe src=javascript:parent.xss=1></iframe>",
    "<iframe srcdoc=\"<script>parent.xss=1</script>\"></iframe>",
    "<object data=javascript:window.xss=1></object>",
    "<embed src=javascript:window.xss=1>",
    "<details open ontoggle=window.xss=1>",
    "<video><source onerror=window.xss=1></video>",
    "<audio src=x onerror=window.xss=1>",
    "<input autofocus onfocus=window.xss=1>",
    "<select autofocus onfocus=window.xss=1>",
    "<marquee onstart=window.xss=1>x</marquee>",
    "<a href=javascript:window.xss=1>x</a>",
    "<form action=javascript:window.xss=1><button>x</button></form>",
    "<button formaction=javascript:window.xss=1>x</button>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=\"0;url=javascript:window.xss=1\">",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import'//evil.example/x.css';</style>",
    "<template><script>window.xss=1</script></template>",
    // Ends of what they may stand in.
    "</title><script>window.xss=1</script>",
    "</textarea><script>window.xss=1</script>",
    "</script><script>window.xss=1</script>",
    "--><script>window.xss=1</script><!--",
    "\"><img src=x onerror=window.xss=1>",
    "'><img src=x onerror=window.xss=1>",
    // Attributes.
    "\" autofocus onfocus=window.xss=1 x=\"",
    "' autofocus onfocus=window.xss=1 x='",
    "` onmouseover=window.xss=1 `",
    // What becomes markup when it is decoded once too often.
    "&lt;script&gt;window.xss=2&lt;/script&gt;",
    "&#60;img src=x onerror=window.xss=1&#62;",
    // Addresses.
    "javascript:window.xss=1",
    "JaVa\tScRiPt:window.xss=1//",
    "data:text/html,<script>window.xss=1</script>",
    // Templates.
    "{{constructor.constructor('window.xss=1')()}}",
    "${window.xss=1}<%= window.xss=1 %>",
    // Signs that change the direction of text, and the end of a text in other languages.
    "\u{202e}<img src=x onerror=window.xss=1>\u{202c}",
    "\u{2066}<svg onload=window.xss=1>\u{2069}",
    "<img src=x\0 onerror=window.xss=1>",
];

/// A tag of the longest name.
fn long() -> String {
    format!("<img alt={} src=x onerror=window.xss=1>", "x".repeat(161))
}

/// Elements that no page has, and that payloads would make.
const NEVER: [&str; 15] = [
    "iframe", "object", "embed", "base", "style", "marquee", "math", "video", "audio", "source", "animate", "template",
    "img", "mi", "scr",
];

/// Where texts are shown: the address, and the texts that must be there.
type Shown = BTreeMap<String, Vec<String>>;

/// A site whose texts are payloads.
struct Planted<'s> {
    acme: Organization<'s>,
    kim: Member<'s>,
    /// A member of all organizations.
    lee: Member<'s>,
    shown: Shown,
}

async fn planted(site: &Site) -> Planted<'_> {
    site.import(json!([
        {"name": "film"},
        {"name": "film.delete", "parent": "film", "http_methods": "DELETE", "http_path": "/films/:id"},
    ]))
    .await;
    let acme = site.organization("acme").await;
    let (kim, lee) = (acme.member_with_role("viewer").await, acme.member().await);
    let mut shown = Shown::new();
    shown.insert("/console/o/acme/members?limit=200".into(), members(&acme).await);
    shown.insert("/console/o/acme/roles?limit=200".into(), roles(&acme).await);
    shown.insert("/console/o/acme/mappings?limit=200".into(), mappings(&acme).await);
    shown.insert("/console/o/acme/invitations?limit=200".into(), invitations(&acme).await);
    shown.insert("/console/site/organizations?limit=200".into(), organizations(site, &lee).await);
    shown.insert(format!("/console/o/acme/members/{}/keys?limit=200", kim.uid), keys(&kim).await);
    shown.insert("/console/o/acme/jobs?limit=200&state=dead".into(), failures(&acme, &kim).await);
    shown.insert("/console/o/acme/webhooks?limit=200".into(), webhooks(&acme).await);
    shown.insert(format!("/console/o/acme/members/{}/sessions", kim.uid), sessions(&kim).await);
    // The member whose pages are looked at, the organization, and the plugin's own words.
    let named = json!({"display_name": long()});
    site.admin().patch(&format!("/admin/members/{}", kim.uid), named).await.done();
    site.admin().patch(&format!("/admin/organizations/{}", acme.id), json!({"name": PAYLOADS[33]})).await.done();
    let cutter = acme.role("cutter", &["film.delete"]).await;
    acme.assign(&kim.uid, &cutter).await;
    put(&acme.owner(), "hours", denying(PAYLOADS[3]), enforce(1)).await;
    for path in PAYLOADS {
        let asked = json!({"uid": kim.uid, "method": "DELETE", "path": format!("/films/{path}")});
        acme.admin().post("/api/v1/permissions/check", asked).await;
    }
    Planted { acme, kim, lee, shown }
}

/// The payloads that the API takes. `send` tells whether it took one.
async fn taken(least: usize, mut send: impl AsyncFnMut(usize, &str) -> bool) -> Vec<String> {
    let mut all = Vec::new();
    for (n, payload) in PAYLOADS.into_iter().enumerate() {
        if send(n, payload).await {
            all.push(payload.to_owned());
        }
    }
    assert!(all.len() >= least, "only {} texts were taken", all.len());
    all
}

async fn members(acme: &Organization<'_>) -> Vec<String> {
    taken(40, async |n, name| {
        let body = json!({"username": format!("k{n}"), "display_name": name, "password": PASSWORD});
        acme.owner().post("/admin/members", body).await.status == 200
    })
    .await
}

async fn roles(acme: &Organization<'_>) -> Vec<String> {
    taken(40, async |n, name| {
        let body = json!({"key": format!("role{n}"), "display_name": name});
        acme.admin().post("/api/v1/permissions/roles", body).await.status == 200
    })
    .await
}

async fn mappings(acme: &Organization<'_>) -> Vec<String> {
    taken(40, async |_, key| {
        let body = json!({"external_source": "ldap", "external_key": key, "internal_role_key": "viewer"});
        acme.admin().put("/api/v1/permissions/role-mappings", body).await.status == 200
    })
    .await
}

/// Addresses hold neither angle brackets nor blanks, so few are taken.
async fn invitations(acme: &Organization<'_>) -> Vec<String> {
    taken(2, async |_, name| {
        let body = json!({"email": format!("{name}@example.org")});
        acme.admin().post("/admin/invitations", body).await.status == 200
    })
    .await
}

async fn organizations(site: &Site, member: &Member<'_>) -> Vec<String> {
    taken(40, async |n, name| {
        let made = site.admin().post("/admin/organizations", json!({"org_code": format!("x{n}"), "name": name})).await;
        if made.status != 200 {
            return false;
        }
        let id = made.data()["id"].as_str().expect("id").to_owned();
        let link = format!("/admin/members/{}/organizations/{id}", member.uid);
        site.admin().post(&link, json!({})).await.done();
        true
    })
    .await
}

async fn keys(kim: &Member<'_>) -> Vec<String> {
    taken(40, async |_, name| kim.caller().post("/me/api-keys", json!({"name": name})).await.status == 200).await
}

async fn webhooks(acme: &Organization<'_>) -> Vec<String> {
    taken(40, async |_, name| {
        let body = json!({"name": name, "url": "https://hooks.example.org/1", "kinds": ["plugin.quarantined"]});
        acme.owner().post("/admin/webhooks", body).await.status == 200
    })
    .await
}

/// Jobs that a worker gave up, with the reason.
async fn failures(acme: &Organization<'_>, kim: &Member<'_>) -> Vec<String> {
    let worker = jobs::worker(acme.site).await;
    jobs::queue(acme.site, &kim.uid, Some(&acme.id), PAYLOADS.len());
    taken(40, async |_, error| {
        let job = jobs::claim_one(&worker).await;
        jobs::report(&worker, &job, "fail", json!({"error": error, "retry": false})).await.status == 200
    })
    .await
}

/// Headers hold printable ASCII only. What they say of the device is shown up to 64 characters.
async fn sessions(kim: &Member<'_>) -> Vec<String> {
    let is_header = |text: &str| text.chars().all(|c| c.is_ascii() && !c.is_control());
    let all = taken(40, async |_, agent| {
        let body = json!({"login": kim.username, "password": PASSWORD});
        is_header(agent) && kim.site.nobody().with("user-agent", agent).post("/auth/login", body).await.status == 200
    })
    .await;
    all.iter().map(|agent| agent.chars().take(64).collect()).collect()
}

/// The text as it must stand in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What a payload made of the page, if it made something.
fn faults_of(page: &Page) -> Vec<String> {
    let long = long();
    let texts = PAYLOADS.into_iter().chain([long.as_str()]);
    // Written as it is, such a text would be markup.
    let written = texts.filter(|text| text.contains(['<', '>', '"', '&']) && page.text.contains(*text));
    let mut faults: Vec<String> = written.map(|text| format!("unescaped: {text}")).collect();
    for element in page.every_element() {
        if NEVER.contains(&element.name.as_str()) {
            faults.push(format!("an element {}", element.name));
        }
        if element.name == "script" && !(element.attributes.contains_key("src") && element.inner.is_empty()) {
            faults.push(format!("a script {}", element.inner));
        }
        for (name, value) in &element.attributes {
            let scheme: String = value.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
            let scheme = scheme.to_lowercase();
            let is_code = ["javascript:", "vbscript:", "data:"].iter().any(|code| scheme.starts_with(code));
            let is_address = ["href", "src", "action", "formaction", "data", "content"].contains(&name.as_str());
            let is_inline = name.starts_with("on") || ["style", "srcdoc", "formaction"].contains(&name.as_str());
            if is_inline || name.contains(':') || (is_address && is_code) {
                faults.push(format!("<{} {name}={value:?}>", element.name));
            }
        }
    }
    faults
}

/// The addresses of all pages of the site, with their lists as long as they can be.
fn addresses(planted: &Planted<'_>, things: &Things) -> Vec<String> {
    let question = format!("uid={}&method=DELETE&path=/films/7", planted.kim.uid);
    let mut all: Vec<String> =
        whole_pages().map(|page| format!("{}?limit=200", things.address(page, "acme"))).collect();
    all.push(format!("/console/o/acme/why?{question}"));
    all.push(format!("/console/o/acme/why/members?q={}", "x"));
    for payload in [PAYLOADS[33], PAYLOADS[35], PAYLOADS[40]] {
        let text = crate::harness::console::encoded(payload);
        for page in ["members?keyword", "roles?q", "decisions?uid", "invitations?email", "mappings?source", "why?uid"] {
            all.push(format!("/console/o/acme/{page}={text}"));
        }
        all.push(format!("/console/sign-in?r={text}"));
        all.push(format!("/console/{text}"));
        all.push(format!("/invitation?token={text}"));
    }
    all.extend(planted.shown.keys().cloned());
    all
}

#[tokio::test]
async fn no_page_shows_a_text_as_markup() {
    let site = Site::with(&format!("signin.title = {:?}", PAYLOADS[3])).await;
    let planted = planted(&site).await;
    let things =
        Things { role_id: planted.acme.role_id("role33").await, ..Things::of(&planted.acme, &planted.kim).await };
    let browser = signed_in(&site, ADMIN).await;
    let decided = eventually("the decisions are logged", async || {
        let page = browser.get("/console/o/acme/decisions?limit=200").await;
        PAYLOADS.iter().any(|payload| page.text.contains(&escaped(payload))).then_some(page)
    })
    .await;
    let mut faults = faults_of(&decided);
    for address in addresses(&planted, &things) {
        let page = browser.get(&address).await;
        assert!(page.status < 500, "{address}: {} {}", page.status, page.text);
        faults.extend(faults_of(&page).into_iter().map(|fault| format!("{address}: {fault}")));
    }
    // The lists have every text, as text.
    for (address, texts) in &planted.shown {
        let page = browser.get(address).await;
        let missing: HashSet<&String> = texts.iter().filter(|text| !page.text.contains(&escaped(text))).collect();
        assert!(missing.is_empty(), "{address} does not show {missing:?}");
    }
    let why = browser.get(&format!("/console/o/acme/why?uid={}&method=DELETE&path=/films/7", planted.kim.uid)).await;
    assert!(why.text.contains(&escaped(PAYLOADS[3])), "the plugin's reason: {}", why.main());
    for member in [&planted.kim, &planted.lee] {
        let own = signed_in(&site, &member.username).await;
        for page in whole_pages() {
            let address = things.address(page, "acme");
            let shown = own.get(&address).await;
            faults.extend(faults_of(&shown).into_iter().map(|fault| format!("{address} of a member: {fault}")));
        }
    }
    let switcher = signed_in(&site, &planted.lee.username).await.get("/console/me").await;
    assert!(switcher.text.contains(&escaped(PAYLOADS[0])), "the names of organizations: {}", switcher.text);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn chromium_runs_none_of_them() {
    let site = Site::with(&format!("signin.title = {:?}", PAYLOADS[3])).await;
    let planted = planted(&site).await;
    let things =
        Things { role_id: planted.acme.role_id("role33").await, ..Things::of(&planted.acme, &planted.kim).await };
    let browser = Chromium::start().await;
    sign_in(&browser, &site, ADMIN).await;
    let mut faults = Vec::new();
    for address in addresses(&planted, &things) {
        browser.open(&format!("{}{address}", site.url)).await;
        let state = browser.script("return [typeof window.xss, document.forms.length > 0]", json!([])).await;
        if state[0] != "undefined" {
            faults.push(format!("{address}: a text ran"));
        }
        // Blocked by the policy, it would still be in the log.
        faults.extend(browser.console_log().await.into_iter().map(|line| format!("{address}: {line}")));
    }
    // What opens when somebody uses the page.
    browser.open(&format!("{}/console/o/acme/members?limit=200", site.url)).await;
    browser.script("document.querySelectorAll('details').forEach((box) => { box.open = true; })", json!([])).await;
    browser.press("/ o n Escape Tab Tab").await;
    assert_eq!(browser.script("return typeof window.xss", json!([])).await, "undefined");
    faults.extend(browser.console_log().await);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
