//! The pages of API clients.

use serde_json::json;

use super::signed_in;
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::site::{ADMIN, Site};

const LIST: &str = "/console/site/clients";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>\"'";

/// The secret of an answer that shows one.
fn secret(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}", page.main());
    page.with_class("secret")[0].elements("code")[0].text()
}

/// The status of a list of members with this client.
async fn with_client(site: &Site, key: &str, secret: &str) -> u16 {
    site.nobody().with("x-client-key", key).with("x-api-key", secret).get("/admin/members").await.status
}

/// Creates a client on the page and returns its key and secret.
async fn created(browser: &Browser, name: &str) -> (String, String) {
    let once = browser.get(LIST).await.value("once").expect("a key");
    let fields = [("act", "create"), ("name", name), ("scopes", "members:read"), ("once", once.as_str())];
    let made = browser.post(LIST, &fields).await;
    (made.with_class("facts")[0].elements("code")[0].text(), secret(&made))
}

#[tokio::test]
async fn a_client_is_created_once_and_its_secret_is_in_one_answer() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let empty = browser.get(LIST).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("API clients".into(), 1));
    // Each scope is explained.
    let scopes: Vec<_> =
        empty.elements("input").into_iter().filter(|one| one.attribute("name") == Some("scopes")).collect();
    let choices = empty.elements("fieldset");
    let explained = choices.iter().find(|set| set.attribute("id") == Some("scopes")).expect("scopes").elements("small");
    assert_eq!((scopes.len(), explained.len()), (16, 16));
    let once = empty.value("once").expect("a key");
    let fields = [
        ("act", "create"),
        ("name", PAYLOAD),
        ("scopes", "members:read"),
        ("scopes", "permissions:check"),
        ("rate_limit_per_min", "600"),
        ("allowed_ips", "127.0.0.0/8\r\n ::1 \r\n"),
        ("once", once.as_str()),
    ];
    let made = browser.post(LIST, &fields).await;
    made.require_escaped(PAYLOAD);
    let (key, text) = (made.with_class("facts")[0].elements("code")[0].text(), secret(&made));
    assert_eq!(with_client(&site, &key, &text).await, 200);
    let line = made.elements("pre").into_iter().map(|block| block.text()).find(|block| block.starts_with("curl "));
    let line = line.expect("a command");
    assert!(line.contains(&format!("'X-Client-Key: {key}'")) && line.contains("/admin/members?limit=1'"), "{line}");
    let twice = browser.post(LIST, &fields).await;
    assert_eq!(
        (twice.status, twice.with_class("secret").len(), twice.notices().len()),
        (409, 0, 1),
        "{}",
        twice.main()
    );
    let list = browser.get(LIST).await;
    list.require_escaped(PAYLOAD);
    assert_eq!(list.texts("row-link"), [PAYLOAD]);
    let one = browser.get(&format!("{LIST}/{key}")).await;
    assert_eq!((one.h1(), one.value("allowed_ips").as_deref()), (PAYLOAD.into(), Some("127.0.0.0/8\n::1")));
    assert!(!list.text.contains(&text) && !one.text.contains(&text), "the secret is shown once");
    let client = site.admin().get(&format!("/admin/api-clients/{key}")).await.data();
    assert_eq!(client["rate_limit_per_min"], 600);
    assert_eq!(client["scopes"], json!(["members:read", "permissions:check"]));
}

#[tokio::test]
async fn wrong_input_keeps_what_was_typed_and_names_the_entry() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let none = browser.post(LIST, &[("act", "create"), ("name", PAYLOAD)]).await;
    assert_eq!((none.status, none.faults()[0].0.as_str()), (400, "scopes"), "{}", none.main());
    assert_eq!(none.value("name").as_deref(), Some(PAYLOAD));
    none.require_escaped(PAYLOAD);
    let fields = [
        ("act", "create"),
        ("name", "portal"),
        ("scopes", "members:read"),
        ("allowed_ips", "10.0.0.0/8\r\nhere <b>"),
        ("expires_at", "2999-12-31"),
    ];
    let wrong = browser.post(LIST, &fields).await;
    let fault = ("allowed_ips".to_owned(), "here <b>: This is not an IP address or a CIDR range.".to_owned());
    assert_eq!((wrong.status, wrong.faults()), (400, vec![fault]), "{}", wrong.main());
    let kept = ["name", "allowed_ips", "expires_at"].map(|name| wrong.value(name).expect("a value").replace('\r', ""));
    assert_eq!(kept, ["portal", "10.0.0.0/8\nhere <b>", "2999-12-31"]);
    let checked = |page: &Page| -> Vec<String> {
        let boxes = page.elements("input").into_iter().filter(|one| one.attribute("checked").is_some());
        boxes.filter_map(|one| one.attribute("value").map(str::to_owned)).collect()
    };
    assert_eq!(checked(&wrong), ["members:read"]);
    let past =
        browser.post(LIST, &[("act", "create"), ("name", "x"), ("scopes", "*"), ("expires_at", "2001-01-01")]).await;
    assert_eq!((past.status, past.faults()[0].0.as_str()), (400, "expires_at"), "{}", past.main());
    assert_eq!(browser.post(LIST, &[("act", "x")]).await.status, 400);
    assert_eq!(site.admin().get("/admin/api-clients").await.data()["total"], 0);
}

#[tokio::test]
async fn scopes_and_limits_are_changed_and_a_conflict_shows_both_states() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let (key, text) = created(&browser, "portal").await;
    let address = format!("{LIST}/{key}");
    let version = browser.get(&address).await.value("version").expect("a version");
    let change = |name: &'static str, scope: &'static str, version: &str| {
        let fields = [("act", "update"), ("name", name), ("scopes", scope), ("version", version)];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let saved = browser.post(&address, &borrowed(&change("office", "videos:read", &version))).await;
    assert_eq!((saved.status, with_client(&site, &key, &text).await), (303, 403), "{}", saved.main());
    let stale = browser.post(&address, &borrowed(&change("portal 2", "members:read", &version))).await;
    assert_eq!(stale.status, 412, "{}", stale.main());
    let difference = stale.with_class("difference").remove(0);
    let texts = |name| difference.elements(name).iter().map(|one| one.text()).collect::<Vec<_>>();
    assert_eq!(
        (texts("del"), texts("ins")),
        (vec!["office".into(), "videos:read".into()], vec!["portal 2".into(), "members:read".to_owned()])
    );
    let again = stale.value("version").expect("the new version");
    assert_eq!(browser.post(&address, &borrowed(&change("portal 2", "members:read", &again))).await.status, 303);
    assert_eq!((browser.get(&address).await.h1(), with_client(&site, &key, &text).await), ("portal 2".into(), 200));
    // An end that the form shows as a day stays the moment that it is.
    let end = json!({"expires_at": 4_102_444_800_000_i64});
    site.admin().patch(&format!("/admin/api-clients/{key}"), end.clone()).await.done();
    let fields =
        browser.get(&address).await.elements("form").into_iter().find(|form| form.inner.contains("value=\"update\""));
    let fields = fields.expect("the form").fields();
    assert_eq!(browser.post(&address, &borrowed(&fields)).await.status, 303);
    let client = site.admin().get(&format!("/admin/api-clients/{key}")).await.data();
    assert_eq!(client["expires_at"], end["expires_at"]);
}

#[tokio::test]
async fn a_client_is_disabled_undone_rotated_and_deleted_by_its_name() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let (key, first) = created(&browser, "portal").await;
    let address = format!("{LIST}/{key}");
    let disabled = browser.post(&address, &[("act", "disable")]).await;
    assert_eq!((disabled.status, with_client(&site, &key, &first).await), (303, 401), "{}", disabled.main());
    let undo = browser.follow(&disabled).await.with_class("notice-undo")[0].elements("form").remove(0);
    let undone = browser.post(&address, &borrowed(&undo.fields())).await;
    assert_eq!((undone.status, with_client(&site, &key, &first).await), (303, 200), "{}", undone.main());
    // Takes the notice, whose form has the same address as the next ones.
    browser.follow(&undone).await;
    let question = browser.get(&format!("{address}?confirm=rotate")).await;
    let fields = question.hidden(&address);
    let rotated = browser.post(&address, &borrowed(&fields)).await;
    let second = secret(&rotated);
    // The old one works on for a while.
    assert_eq!((with_client(&site, &key, &first).await, with_client(&site, &key, &second).await), (200, 200));
    let twice = browser.post(&address, &borrowed(&fields)).await;
    assert_eq!((twice.status, twice.with_class("secret").len()), (409, 0), "{}", twice.main());
    assert_eq!(twice.value("name").as_deref(), Some("portal"));
    let question = browser.get(&format!("{address}?confirm=delete")).await;
    let mut fields = question.hidden(&address);
    fields.push(("typed".into(), "porta".into()));
    let wrong = browser.post(&address, &borrowed(&fields)).await;
    assert_eq!((wrong.status, with_client(&site, &key, &second).await), (400, 200), "{}", wrong.main());
    fields.last_mut().expect("a field").1 = "portal".into();
    let deleted = browser.post(&address, &borrowed(&fields)).await;
    assert_eq!((deleted.status, deleted.location()), (303, Some(LIST)), "{}", deleted.main());
    assert_eq!((with_client(&site, &key, &second).await, browser.get(&address).await.status), (401, 404));
}

#[tokio::test]
async fn who_may_only_look_sees_no_forms() {
    let site = Site::start().await;
    site.admin().post("/admin/api-clients", json!({"name": "portal", "scopes": ["*"]})).await.done();
    let reader = site.platform_member(&["roster.client.list", "roster.client.get"]).await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&reader.username, crate::harness::site::PASSWORD).await;
    let list = browser.get(LIST).await;
    assert_eq!((list.status, list.h1(), list.value("name")), (200, "API 用戶端".into(), None), "{}", list.main());
    let one = list.links().into_iter().find(|link| link.starts_with(&format!("{LIST}/"))).expect("a link");
    let page = browser.get(&one).await;
    assert_eq!((page.status, page.h1(), page.with_class("act").len()), (200, "portal".into(), 0), "{}", page.main());
    for fields in [vec![("act", "disable")], vec![("act", "rotate")], vec![("act", "delete"), ("typed", "portal")]] {
        assert_eq!(browser.post(&one, &fields).await.status, 403, "{fields:?}");
    }
    let create = [("act", "create"), ("name", "x"), ("scopes", "*")];
    assert_eq!(browser.post(LIST, &create).await.status, 403);
}
