//! The pages of plugins: upload, dry run, activation, rollback, and what they say when something is wrong.

use serde_json::json;

use super::{sign_in, signed_in};
use crate::harness::browser::Browser as Chromium;
use crate::harness::console::{Browser, Element, Page, borrowed};
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures::{allowing, authorizer, denying, denying_actions_of, naming, trapping};
use crate::plugins::decisions::documents;
use crate::plugins::{enforce, get_plugin, in_force, put, three_versions, upload};

const LIST: &str = "/console/o/acme/plugins";
const HOURS: &str = "/console/o/acme/plugins/hours";
const ASK: &str = "/console/o/acme/plugins/hours/dry-run";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

async fn owner(acme: &Organization<'_>) -> Browser {
    let owner = acme.member_with_role("tenant_owner").await;
    signed_in(acme.site, &owner.username).await
}

/// The page of the task that an upload began, after its end.
async fn uploaded(browser: &Browser, fields: &[(&str, &str)], file: &str, component: &[u8]) -> Page {
    let begun = browser.post_file(LIST, fields, ("component", file, component)).await;
    assert_eq!(begun.status, 303, "{}", begun.main());
    eventually("the upload ends", async || {
        let page = browser.follow(&begun).await;
        let is_running = page.every_element().iter().any(|element| element.attributes.contains_key("data-poll"));
        (!is_running).then_some(page)
    })
    .await
}

/// The cells of the rows of all lists.
fn rows(page: &Page) -> Vec<Vec<String>> {
    let tables = page.with_class("list");
    let rows = tables.iter().flat_map(|table| table.elements("tbody")).flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(|cell| cell.text()).collect()).collect()
}

/// The texts of the buttons that a form offers.
fn buttons(page: &Page) -> Vec<String> {
    page.elements("main")[0].elements("button").iter().map(Element::text).filter(|text| !text.is_empty()).collect()
}

/// What the form of a version offers.
fn offered(page: &Page) -> Vec<String> {
    let all = buttons(page).into_iter();
    all.filter(|text| ["Save", "Watch", "Enforce"].iter().any(|verb| text.starts_with(verb))).collect()
}

/// The fields of the form that the notice offers for an undo.
fn undo(page: &Page) -> Vec<(String, String)> {
    page.with_class("notice-undo")[0].elements("form")[0].fields()
}

async fn may_read(acme: &Organization<'_>, uid: &str) -> serde_json::Value {
    acme.check(json!({"uid": uid, "method": "GET", "path": "/docs/7"})).await["reason"].clone()
}

fn example(name: &str) -> Vec<u8> {
    let path = format!("{}/plugins/{name}/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("a built example")
}

// ── from the upload to the rollback ──

#[tokio::test]
async fn a_plugin_is_uploaded_asked_watched_enforced_and_rolled_back() {
    let site = Site::with("decisions.allow_every = 1").await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let (browser, kim) = (owner(&acme).await, acme.member_with(&["doc.read"]).await);
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": "Kim Lee"})).await.done();
    let empty = browser.get(LIST).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("Plugins".into(), 1), "{}", empty.main());
    assert!(empty.main().contains("roster plugin new --lang rust hours"), "{}", empty.main());
    assert_eq!(may_read(&acme, &kim.uid).await, "ok_role");

    // The plugin is named like its file.
    let done = uploaded(&browser, &[("name", "")], "Hours.wasm", &denying("we are closed")).await;
    let steps = done.with_class("rail")[0].elements("li");
    assert_eq!((steps.len(), steps.iter().filter(|step| step.has_class("done")).count()), (7, 7), "{}", done.main());
    assert_eq!(done.notices(), ["hours v1 passed all checks. It has no effect yet."]);
    assert_eq!(buttons(&done), ["Ask past decisions", "Watch v1", "Enforce v1"]);

    let mut fields = done.form(ASK).expect("a form").fields();
    fields.push(("limit".into(), "1000".into()));
    let asked = browser.post(ASK, &borrowed(&fields)).await;
    assert_eq!(asked.notices(), ["1 looked at, 1 asked, 1 would end otherwise"], "{}", asked.main());
    let row = &rows(&asked)[0];
    let cells = ["Kim Lee", "GET /docs/7", "Allowed ok_role", "Denied plugin_denied", "we are closed", "Why?"];
    assert_eq!(row[1..], cells);
    let why = format!("/console/o/acme/why?uid={}&method=GET&path=%2Fdocs%2F7", kim.uid);
    assert!(asked.links().contains(&why), "{:?}", asked.links());

    let keep = [("act", "activate"), ("keep", "true"), ("number", "1")];
    let watched = browser.post(HOURS, &[&keep[..], &[("mode", "shadow")]].concat()).await;
    let watched = browser.follow(&watched).await;
    assert_eq!(watched.notices()[0], "v1 is watched now: called and counted, without effect. Undo");
    assert_eq!(may_read(&acme, &kim.uid).await, "ok_role");
    let page = browser.get(HOURS).await;
    assert!(page.main().contains("Would have ended otherwise 1"), "{}", page.main());
    assert_eq!(offered(&page), ["Save settings", "Enforce v1"]);
    let enforced = browser.post(HOURS, &[&keep[..], &[("mode", "enforce")]].concat()).await;
    assert_eq!(may_read(&acme, &kim.uid).await, "plugin_denied");
    // Back to where it was: watched, and nothing enforced.
    browser.post(HOURS, &borrowed(&undo(&browser.follow(&enforced).await))).await;
    assert_eq!(in_force(&get_plugin(&acme.owner(), "hours").await), (vec![(1, "shadow")], vec![]));

    browser.post(HOURS, &[&keep[..], &[("mode", "enforce")]].concat()).await;
    uploaded(&browser, &[("name", "hours")], "x.wasm", &allowing()).await;
    let second = [("act", "activate"), ("keep", "true"), ("number", "2"), ("mode", "enforce")];
    assert_eq!(browser.post(HOURS, &second).await.status, 303);
    assert_eq!(may_read(&acme, &kim.uid).await, "ok_role");
    let page = browser.get(HOURS).await;
    assert!(buttons(&page).contains(&"Roll back to v1".into()), "{:?}", buttons(&page));
    assert_eq!(offered(&page), ["Save settings"]);
    let back = browser.post(HOURS, &[("act", "roll_back")]).await;
    assert_eq!(may_read(&acme, &kim.uid).await, "plugin_denied");
    // The page is about the version in force, though another is newer.
    let page = browser.follow(&back).await;
    assert_eq!(offered(&page), ["Save settings"]);
    assert!(page.main().contains("Version 2 is newer.") && page.main().contains("Version 1"), "{}", page.main());
    let undone = browser.post(HOURS, &borrowed(&undo(&page))).await;
    assert_eq!((undone.status, may_read(&acme, &kim.uid).await), (303, json!("ok_role")));
    assert_eq!(in_force(&get_plugin(&acme.owner(), "hours").await), (vec![(2, "enforce")], vec![1]));
}

#[tokio::test]
async fn settings_decide_what_is_covered_and_are_kept_by_later_versions() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    three_versions(&acme).await;
    let form = |permissions: &'static str, version: &'static str| {
        let fields = [("act", "activate"), ("number", version), ("mode", "enforce"), ("permissions", permissions)];
        [&fields[..], &[("routes", "PUT /docs/:id\r\n"), ("deadline_ms", "10"), ("may_grant", "true")]].concat()
    };
    let wrong = browser.post(HOURS, &form("doc.*\r\na*b", "1")).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "permissions"), "{}", wrong.main());
    let typed = ["permissions", "routes", "deadline_ms"].map(|name| wrong.value(name).expect("a value"));
    assert_eq!(typed, ["doc.*\na*b", "PUT /docs/:id", "10"]);
    assert_eq!(browser.post(HOURS, &form("doc.*", "1")).await.status, 303);
    let kept = [("act", "activate"), ("keep", "true"), ("number", "2"), ("mode", "enforce")];
    assert_eq!(browser.post(HOURS, &kept).await.status, 303);
    let plugin = get_plugin(&acme.owner(), "hours").await;
    assert_eq!(in_force(&plugin), (vec![(2, "enforce")], vec![1]));
    let present = &plugin["activations"][0];
    let filter = json!({"permissions": ["doc.*"], "routes": ["PUT /docs/:id"], "modules": []});
    assert_eq!(
        (&present["filter"], &present["deadline_ms"], &present["may_grant"]),
        (&filter, &json!(10), &json!(true))
    );
    let page = browser.get(HOURS).await;
    assert!(page.main().contains("doc.*, PUT /docs/:id"), "{}", page.main());
    // Somebody else changes it meanwhile.
    let mut stale = page.form(HOURS).expect("a form").fields();
    stale.retain(|(name, _)| name == "version");
    assert_eq!(browser.post(HOURS, &[("act", "roll_back")]).await.status, 303);
    let mut fields = borrowed(&stale);
    fields.extend(kept);
    let refused = browser.post(HOURS, &fields).await;
    assert_eq!((stale.len(), refused.status), (1, 412), "{}", refused.main());
    assert_eq!(in_force(&get_plugin(&acme.owner(), "hours").await), (vec![(1, "enforce")], vec![]));
}

#[tokio::test]
async fn deactivating_and_deleting_are_undone_or_confirmed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    three_versions(&acme).await;
    let activate = |version: &'static str, mode: &'static str| {
        [("act", "activate"), ("number", version), ("mode", mode), ("routes", "/docs/:id")]
    };
    browser.post(HOURS, &activate("1", "enforce")).await;
    browser.post(HOURS, &activate("3", "shadow")).await;
    let before = get_plugin(&acme.owner(), "hours").await;
    let refused = browser.post(HOURS, &[("act", "delete"), ("typed", "hours")]).await;
    assert_eq!(refused.status, 409, "{}", refused.main());
    let off = browser.post(HOURS, &[("act", "deactivate")]).await;
    assert_eq!(in_force(&get_plugin(&acme.owner(), "hours").await), (vec![], vec![]));
    browser.post(HOURS, &borrowed(&undo(&browser.follow(&off).await))).await;
    let after = get_plugin(&acme.owner(), "hours").await;
    assert_eq!(in_force(&after), in_force(&before));
    assert_eq!(after["activations"][0]["filter"], before["activations"][0]["filter"]);

    assert_eq!(browser.post(HOURS, &[("act", "version"), ("number", "1")]).await.status, 409);
    let asked = browser.get(&format!("{HOURS}?version=2&confirm=version")).await;
    let fields = asked.form(HOURS).expect("a question").fields();
    assert_eq!(browser.post(HOURS, &borrowed(&fields)).await.status, 303);
    assert_eq!(get_plugin(&acme.owner(), "hours").await["versions"].as_array().map(Vec::len), Some(2));
    browser.post(HOURS, &[("act", "deactivate")]).await;
    let asked = browser.get(&format!("{HOURS}?confirm=delete")).await;
    assert!(asked.with_class("confirm")[0].text().contains("Type hours to confirm"), "{}", asked.main());
    let mistyped = browser.post(HOURS, &[("act", "delete"), ("typed", "hour")]).await;
    assert_eq!((mistyped.status, mistyped.with_class("confirm").len()), (400, 1), "{}", mistyped.main());
    let gone = browser.post(HOURS, &[("act", "delete"), ("typed", "hours")]).await;
    assert_eq!((gone.status, gone.location()), (303, Some(LIST)));
    assert_eq!(browser.get(HOURS).await.status, 404);
}

// ── refusals ──

/// A component with other bytes in the place of these.
fn replaced(component: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut bytes = component.to_vec();
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from.as_bytes() {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

#[tokio::test]
async fn a_refused_upload_says_which_step_failed_and_what_to_do_in_both_languages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let (english, chinese) = (site.visitor(), site.visitor().in_chinese());
    for browser in [&english, &chinese] {
        browser.sign_in(&owner.username, crate::harness::site::PASSWORD).await;
    }
    let good = denying("no");
    let network = wat::parse_str("(component (import \"wasi:sockets/tcp@0.2.0\" (instance)))").expect("a component");
    let (component, interfaces) = (("A component", "是元件"), ("Imports and exports", "匯入與匯出"));
    let empty = wat::parse_str("(component)").expect("a component");
    let (check, wit) = ("roster plugin check hours.wasm", "roster plugin wit > policy.wit");
    let pack = "roster plugin pack core.wasm -o hours.wasm";
    for (bytes, step, cures, command) in [
        (b"hello".to_vec(), component, ("Choose the .wasm file", "這個檔案不是 WebAssembly；外掛必須是元件。"), check),
        (b"\0asm\x01\0\0\0".to_vec(), component, ("Pack it as a component", "封裝成元件"), pack),
        (good[..good.len() / 2].to_vec(), component, ("Build it again", "重新建置"), check),
        (network, interfaces, ("no files, network, clock", "不能使用檔案、網路"), check),
        (empty, interfaces, ("Export roster:policy/authorizer@1.0.0", "請完全依照介面定義"), wit),
        (replaced(&good, "@1.0.0", "@2.0.0"), interfaces, ("interface of this server", "這台伺服器的介面"), wit),
    ] {
        for (browser, step, cure) in [(&english, step.0, cures.0), (&chinese, step.1, cures.1)] {
            let page = uploaded(browser, &[("name", "hours")], "hours.wasm", &bytes).await;
            let steps = page.with_class("rail")[0].elements("li");
            let failed: Vec<String> = steps.iter().filter(|one| one.has_class("failed")).map(Element::text).collect();
            assert!(failed.len() == 1 && failed[0].starts_with(step), "{step}: {}", page.main());
            assert!(page.with_class("notice")[0].has_class("bad") && page.main().contains(cure), "{}", page.main());
            assert_eq!(page.with_class("copyable")[0].elements("code")[0].text(), command);
        }
    }
    assert_eq!(acme.owner().get("/api/v1/plugins").await.data()["total"], 0);
}

#[tokio::test]
async fn what_is_refused_before_the_checks_is_told_on_the_form() {
    let site = Site::with("plugins.file_bytes = 8192\nplugins.per_organization = 1\nplugins.uploads_per_min = 3").await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let send = async |name: &str, bytes: &[u8]| {
        browser.post_file(LIST, &[("name", name)], ("component", "停.wasm", bytes)).await
    };
    // Past the whole form, and past the file alone: nothing of it is kept, and only the latter counts as an upload.
    for bytes in [vec![0; 200_000], vec![0; 8_193]] {
        let large = send("hours", &bytes).await;
        assert!(large.status == 400 && large.main().contains("plugins.large_organizations"), "{}", large.main());
        assert_eq!(large.with_class("block")[0].elements("code")[0].text(), "plugins.large_organizations = [\"acme\"]");
    }
    let none = browser.post_file(LIST, &[("name", "hours")], ("component", "", b"")).await;
    assert!(none.status == 400 && none.main().contains("Choose a file."), "{}", none.main());
    for name in ["Bad Name", ""] {
        let named = send(name, &denying("no")).await;
        assert_eq!((named.status, named.faults()[0].0.as_str()), (400, "name"), "{}", named.main());
        assert_eq!(named.value("name").as_deref(), Some(name));
    }
    upload(&acme.owner(), "first", denying("no")).await.done();
    let full = send("second", &denying("no")).await;
    assert!(full.status == 409 && full.main().contains("Delete plugins or versions"), "{}", full.main());
    let limited = send("second", &denying("no")).await;
    assert!(limited.status == 429 && limited.main().contains("Wait a minute"), "{}", limited.main());
}

#[tokio::test]
async fn a_version_that_fails_its_vectors_is_stored_and_cannot_be_activated() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let vectors =
        format!("[{{\"name\": \"{PAYLOAD}\", \"authorize\": {{\"action\": \"GET\"}}, \"expect\": \"allow\"}}]");
    let name = roster::kernel::sandbox::vectors::SECTION;
    let byte = |number: usize| u8::try_from(number).expect("a byte");
    let mut section = vec![byte(name.len())];
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(vectors.as_bytes());
    let mut bytes = denying("closed");
    bytes.push(0);
    // The length as a variable-length number of two bytes.
    bytes.extend([byte(section.len() & 0x7f) | 0x80, byte(section.len() >> 7)]);
    bytes.extend(section);
    let page = uploaded(&browser, &[("name", "hours")], "hours.wasm", &bytes).await;
    assert!(page.notices()[0].contains("fails 1 of its own test vectors"), "{}", page.main());
    page.require_escaped(PAYLOAD);
    assert_eq!(rows(&page)[0][0], PAYLOAD);
    let shown = browser.get(HOURS).await;
    assert!(!buttons(&shown).iter().any(|text| text.starts_with("Enforce")), "{:?}", buttons(&shown));
    assert!(shown.main().contains("0 of 1 passed"), "{}", shown.main());
    shown.require_escaped(PAYLOAD);
    let kept = [("act", "activate"), ("keep", "true"), ("number", "1"), ("mode", "enforce")];
    assert_eq!(browser.post(HOURS, &kept).await.status, 409);
}

// ── quarantine, log, texts of plugins ──

#[tokio::test]
async fn a_quarantine_is_told_with_what_is_denied_and_what_to_do() {
    let mut site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await.username;
    three_versions(&acme).await;
    put(&acme.owner(), "hours", trapping(), enforce(4)).await;
    put(&acme.owner(), "hours", denying("five"), json!({"mode": "enforce", "filter": {"permissions": ["doc.*"]}}))
        .await;
    site.while_stopped("update plugin_versions set quarantined_at = 7 where version = 5", []);
    for (browser, state, denied, to_do) in [
        (site.visitor(), "In quarantine", "is denied with “plugin_failed”: doc.*", "What to do:"),
        (site.visitor().in_chinese(), "隔離中", "一律以「plugin_failed」拒絕：doc.*", "處理方式："),
    ] {
        browser.sign_in(&owner, crate::harness::site::PASSWORD).await;
        let list = browser.get(LIST).await;
        assert!(rows(&list)[0][1].starts_with(state), "{:?}", rows(&list));
        let page = browser.get(HOURS).await;
        let notice = page.with_class("notice").remove(0);
        assert!(notice.has_class("bad"), "{}", page.main());
        assert!(notice.text().contains(denied) && notice.text().contains(to_do), "{}", notice.text());
        assert!(buttons(&page).iter().any(|text| text.contains("v4")), "{:?}", buttons(&page));
    }
}

#[tokio::test]
async fn texts_of_plugins_are_escaped_in_answers_and_the_log_is_filtered() {
    let site = Site::with("decisions.allow_every = 1").await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let (browser, kim) = (owner(&acme).await, acme.member_with(&["doc.read"]).await);
    may_read(&acme, &kim.uid).await;
    let data = format!("(data (i32.const 1024) {PAYLOAD:?})");
    let length = PAYLOAD.len();
    let body = format!(
        "(call $log (i32.const 2) (i32.const 1024) (i32.const {length}))
         (call $deny (i32.const 1024) (i32.const {length}))"
    );
    put(&acme.owner(), "hours", authorizer(&data, &body), enforce(1)).await;
    let one = browser.post(ASK, &[("act", "one"), ("action", "GET"), ("path", "/docs/7")]).await;
    assert!(one.status == 200 && one.main().contains(PAYLOAD), "{}", one.main());
    one.require_escaped(PAYLOAD);
    let past = browser.post(ASK, &[("act", "past")]).await;
    assert_eq!(rows(&past)[0][5], PAYLOAD, "{}", past.main());
    past.require_escaped(PAYLOAD);
    assert_eq!(may_read(&acme, &kim.uid).await, "plugin_denied");
    for address in [HOURS.to_owned(), format!("{HOURS}/log"), format!("{HOURS}/log?level=warn")] {
        let page = browser.get(&address).await;
        page.require_escaped(PAYLOAD);
        assert!(rows(&page).iter().any(|row| row.contains(&PAYLOAD.to_owned())), "{address}: {}", page.main());
    }
    let none = browser.get(&format!("{HOURS}/log?level=error")).await;
    assert_eq!((rows(&none).len(), none.with_class("empty").len()), (0, 1), "{}", none.main());
    let reply = acme.owner().get("/api/v1/plugins/hours/log?level=loud").await;
    assert_eq!((reply.status, reply.fields()), (400, vec!["query.level".to_owned()]));
}

#[tokio::test]
async fn one_made_up_request_is_answered_by_authorizers_and_mappers() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (browser, kim) = (owner(&acme).await, acme.member().await);
    upload(&acme.owner(), "ownership", example("ownership")).await.done();
    let ask = "/console/o/acme/plugins/ownership/dry-run";
    let facts = format!("owner={}", kim.uid);
    for (member, facts, outcome) in
        [("", "owner=lee", "Denied"), (kim.username.as_str(), facts.as_str(), "Allowed"), (&kim.uid, "", "Denied")]
    {
        let fields = [("act", "one"), ("member", member), ("action", "PUT"), ("path", "/videos/7"), ("facts", facts)];
        let page = browser.post(ask, &fields).await;
        let badges = page.texts("badge");
        assert_eq!((page.status, badges.first().map(String::as_str)), (200, Some(outcome)), "{}", page.main());
        assert_eq!(page.value("path").as_deref(), Some("/videos/7"));
    }
    let nobody = browser.post(ask, &[("act", "one"), ("member", "nobody"), ("action", "PUT")]).await;
    assert_eq!(nobody.status, 400, "{}", nobody.main());
    upload(&acme.owner(), "groups", naming(&["editor", "viewer"])).await.done();
    let ask = "/console/o/acme/plugins/groups/dry-run";
    let page = browser.post(ask, &[("act", "one"), ("source", "oidc"), ("groups", "a\r\nb")]).await;
    assert!(page.main().contains("Roles editor, viewer"), "{}", page.main());
    assert!(page.main().contains("Only for plugins that decide requests."), "{}", page.main());
}

// ── rights ──

#[tokio::test]
async fn who_may_only_read_gets_no_forms_and_sends_no_file() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    put(&acme.owner(), "hours", denying_actions_of(3), enforce(1)).await;
    let viewer = acme.member_with(&["roster.plugin.list", "roster.plugin.get"]).await;
    let browser = signed_in(&site, &viewer.username).await;
    for address in [LIST, HOURS] {
        let page = browser.get(address).await;
        assert_eq!((page.status, buttons(&page).iter().any(|text| text != "Copy")), (200, false), "{}", page.main());
    }
    let sent = browser.post_file(LIST, &[("name", "x")], ("component", "x.wasm", &denying("no"))).await;
    assert!(sent.status == 403 && sent.main().contains("roster.plugin.upload"), "{}", sent.main());
    assert_eq!(site.last_audit_entry().await["outcome"], "denied");
    for act in ["activate", "roll_back", "deactivate", "delete"] {
        let fields = [("act", act), ("number", "1"), ("mode", "enforce"), ("typed", "hours")];
        assert_eq!(browser.post(HOURS, &fields).await.status, 403, "{act}");
    }
    let denied = browser.get(ASK).await;
    assert!(denied.status == 403 && denied.main().contains("roster.plugin.run"), "{}", denied.main());
    // An administrator may upload and roll back, and only an owner may enforce what grants.
    let helper = acme.member_with(&["roster.plugin.get", "roster.plugin.activate"]).await;
    let browser = signed_in(&site, &helper.username).await;
    let granting = [("act", "activate"), ("number", "1"), ("mode", "enforce"), ("may_grant", "true")];
    let refused = browser.post(HOURS, &granting).await;
    assert!(refused.status == 403 && refused.main().contains("Only an owner"), "{}", refused.main());
}

#[tokio::test]
async fn files_are_read_only_from_own_forms_of_pages_that_take_them() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let elsewhere = browser.post_file("/console/o/acme/invitations", &[("act", "create")], ("f", "a", b"x")).await;
    assert_eq!(elsewhere.status, 415, "{}", elsewhere.main());
    let broken = browser.post_raw(LIST, "multipart/form-data; boundary=X", b"--X\r\nno".to_vec()).await;
    assert_eq!(broken.status, 400, "{}", broken.main());
    let unnamed = browser.post_raw(LIST, "multipart/form-data", b"--X--".to_vec()).await;
    assert_eq!(unnamed.status, 400, "{}", unnamed.main());
    let nobody = site.visitor().post_file(LIST, &[], ("component", "a.wasm", &denying("no"))).await;
    assert!(nobody.status == 303 && nobody.location().is_some_and(|to| to.starts_with("/console/sign-in")));
    let member = acme.member_with_role("tenant_owner").await;
    let foreign = signed_in(&site, &member.username).await.with("sec-fetch-site", "cross-site");
    assert_eq!(foreign.post_file(LIST, &[], ("component", "a.wasm", &denying("no"))).await.status, 403);
    assert_eq!(acme.owner().get("/api/v1/plugins").await.data()["total"], 0);
}

// ── in a browser ──

#[tokio::test]
async fn a_file_dropped_anywhere_on_the_page_is_uploaded() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = Chromium::start().await;
    sign_in(&browser, &site, &owner.username).await;
    browser.open(&format!("{}{LIST}", site.url)).await;
    let drop = "const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(arguments[0])], 'hours.wasm'));
        document.querySelector('h1').dispatchEvent(
          new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));";
    browser.script(drop, json!([denying("closed")])).await;
    eventually("the upload ends", async || browser.text("main").await.contains("hours v1 passed all checks")).await;
}
