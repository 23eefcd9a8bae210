//! The pages of the connections: what is wrong is found, and what the page says mends it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::signed_in;
use crate::harness::console::{Element, Page};
use crate::harness::counterparts::{Sftpgo, WordPress};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::stub_server::NOWHERE;
use crate::harness::waiting::eventually;
use crate::integrations::sftpgo::accounts::kim;

const LIST: &str = "/console/site/connections";
const SFTPGO: &str = "/console/site/connections/sftpgo";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

/// The card with this heading.
fn card(page: &Page, title: &str) -> Element {
    let heading = |card: &Element| card.elements("h2").first().map(Element::text);
    let found = page.with_class("card").into_iter().find(|card| heading(card).as_deref() == Some(title));
    found.unwrap_or_else(|| panic!("no card {title}: {}", page.main()))
}

/// The state of a connection in its card, or on its page.
fn state(part: &Element) -> String {
    let badges = part.elements("span").into_iter().filter(|span| span.has_class("badge"));
    badges.map(|badge| badge.text()).next().unwrap_or_default()
}

/// Names and values.
fn facts(part: &Element) -> BTreeMap<String, String> {
    let of = |row: Element| (row.elements("dt")[0].text(), row.elements("dd")[0].text());
    part.elements("dl").iter().flat_map(|list| list.elements("div")).map(of).collect()
}

fn rows(page: &Page) -> Vec<Vec<String>> {
    let bodies = page.with_class("list").into_iter().flat_map(|table| table.elements("tbody"));
    let rows = bodies.flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(Element::text).collect()).collect()
}

#[tokio::test]
async fn a_new_site_shows_the_lines_that_set_each_up_in_both_languages() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let page = browser.get(LIST).await;
    let titles: Vec<String> = page.with_class("card").iter().map(|card| card.elements("h2")[0].text()).collect();
    assert_eq!(titles, ["WordPress", "SFTPGo", "OpenID Connect", "Authentik", "Mail", "Webhooks"]);
    for title in &titles[..5] {
        let card = card(&page, title);
        assert_eq!(state(&card), "not set up", "{title}");
        let lines = card.elements("details")[0].elements("pre");
        assert_eq!((lines.len(), card.elements("form").len()), (3, 0), "{title}");
    }
    // The secret comes first and lies in this site's data directory, and a check precedes the restart.
    let data = site.path().display().to_string();
    let steps: Vec<String> = card(&page, "SFTPGo").elements("pre").iter().map(Element::text).collect();
    assert_eq!(steps[0], format!("install -m 600 /dev/stdin {data}/sftpgo.secret"));
    assert!(steps[1].contains(&format!("secret_file = \"{data}/sftpgo.secret\"")), "{steps:?}");
    assert_eq!(steps[2], format!("roster config check --data {data}"));
    assert_eq!(page.elements("button").iter().filter(|one| one.attribute("value") == Some("test_all")).count(), 0);
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, PASSWORD).await;
    let page = chinese.get(LIST).await;
    assert_eq!((page.h1(), state(&card(&page, "郵件"))), ("連線".into(), "尚未設定".into()));
    assert_eq!(browser.get(&format!("{LIST}/nowhere")).await.status, 404);
    assert_eq!(browser.post(LIST, &[("act", "x")]).await.status, 400);
    assert_eq!(browser.post(SFTPGO, &[("act", "x")]).await.status, 400);
    // The first steps lead here.
    assert!(browser.get("/console/site/first-steps").await.links().contains(&LIST.to_owned()));
}

#[tokio::test]
async fn a_dead_sftpgo_is_found_and_what_the_page_says_mends_it() {
    let sftpgo = Sftpgo::start(&[]);
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("secret");
    std::fs::write(&file, "the former password").expect("written");
    let settings = format!(
        "sftpgo.url = \"{}/api/v2\"\nsftpgo.username = \"admin\"\nsftpgo.secret_file = {:?}\n",
        sftpgo.url,
        file.display().to_string()
    );
    let mut site = Site::with(&settings).await;
    let browser = signed_in(&site, ADMIN).await;
    assert_eq!(state(&card(&browser.get(LIST).await, "SFTPGo")), "not used yet");

    let tested = browser.post(LIST, &[("act", "test"), ("name", "sftpgo")]).await;
    assert_eq!((tested.status, tested.location()), (303, Some(LIST)));
    let page = browser.follow(&tested).await;
    assert_eq!(page.notices(), ["The test of SFTPGo failed: 401 Unauthorized: Unauthorized"]);
    let found = card(&page, "SFTPGo");
    assert_eq!(state(&found), "failing");
    assert_eq!(found.elements("q")[0].text(), "401 Unauthorized: Unauthorized");
    let todo = facts(&found)["What to do"].clone();
    assert!(todo.contains("into the file of sftpgo.secret_file, and restart Roster"), "{todo}");

    std::fs::write(&file, "labpass").expect("written");
    site.restart().await;
    let browser = signed_in(&site, ADMIN).await;
    let tested = browser.post(SFTPGO, &[("act", "test")]).await;
    assert_eq!((tested.status, tested.location()), (303, Some(SFTPGO)));
    let page = browser.follow(&tested).await;
    assert_eq!((page.h1(), state(&page.with_class("card")[0])), ("SFTPGo".into(), "working".into()));
    assert!(!facts(&page.with_class("card")[0]).contains_key("What to do"), "{}", page.main());
}

#[tokio::test]
async fn all_connections_are_tested_at_once() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}wordpress.url = \"{NOWHERE}\"\n", sftpgo.settings())).await;
    let browser = signed_in(&site, ADMIN).await;
    let tested = browser.post(LIST, &[("act", "test_all")]).await;
    let page = browser.follow(&tested).await;
    assert_eq!(page.notices(), ["Tested 2: 1 working, 1 failing."]);
    let (works, fails) = (card(&page, "SFTPGo"), card(&page, "WordPress"));
    assert_eq!((state(&works), state(&fails)), ("working".into(), "failing".into()));
    let todo = facts(&fails)["What to do"].clone();
    assert!(todo.starts_with("Nothing listens there.") && todo.contains("wordpress.url"), "{todo}");
}

#[tokio::test]
async fn accounts_of_sftpgo_are_compared_and_brought_in_line() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings()).await;
    kim(&site, 1_000).await;
    sftpgo.eventually("kim", |user| user["quota_size"] == 1_000).await;
    let browser = signed_in(&site, ADMIN).await;
    let compared = format!("{SFTPGO}?compare=1");
    let same = browser.get(&compared).await;
    assert_eq!(same.texts("empty")[0], "Nothing differs Accounts and members agree.", "{}", same.main());

    let mut user = sftpgo.user("kim").await;
    user["quota_size"] = json!(7);
    sftpgo.lab("put", user).await;
    let foreign = json!({"username": PAYLOAD, "status": 1, "home_dir": "/srv/x", "permissions": {"/": ["*"]}});
    sftpgo.lab("put", foreign).await;
    let differs = browser.get(&compared).await;
    differs.require_escaped(PAYLOAD);
    let shown = rows(&differs);
    assert_eq!(shown[0], ["kim", "quota_size", "1000", "7", "is set to our value"], "{shown:?}");
    assert_eq!(shown[1][..2], [PAYLOAD.to_owned(), "belongs to no member".to_owned()]);

    let question = browser.get(&format!("{SFTPGO}?confirm=bring")).await;
    let form = question.with_class("confirm").remove(0);
    assert_eq!((form.attribute("action"), form.elements("li").len()), (Some(SFTPGO), 3));
    assert_eq!(form.fields(), [("act".to_owned(), "bring".to_owned())]);
    let begun = browser.post(SFTPGO, &[("act", "bring")]).await;
    let task = begun.location().expect("a task").to_owned();
    assert!(begun.status == 303 && task.starts_with("/console/me/tasks/"), "{task}");
    sftpgo.eventually("kim", |user| user["quota_size"] == 1_000).await;
    let done = eventually("done", async || {
        let page = browser.get(&task).await;
        page.links().contains(&SFTPGO.to_owned()).then_some(page)
    })
    .await;
    assert_eq!(rows(&done), [["kim", "quota_size", "Brought in line"]], "{}", done.main());
}

#[tokio::test]
async fn failing_deliveries_are_shown_and_delivered_again() {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&sftpgo.settings().replace("outbox.backoff_s = 0", "outbox.backoff_s = 3600")).await;
    sftpgo.lab("behave", json!({"fail": 1000})).await;
    kim(&site, 1_000).await;
    let browser = signed_in(&site, ADMIN).await;
    let failing = eventually("a failed delivery", async || {
        let page = browser.get(SFTPGO).await;
        rows(&page).first().is_some_and(|row| row[2] == "1").then_some(page)
    })
    .await;
    assert_eq!(facts(&failing.with_class("card")[0])["Deliveries"], "2 waiting", "{}", failing.main());
    // The newer one waits for the one that fails, which stands above it.
    let (first, second) = (&rows(&failing)[0], &rows(&failing)[1]);
    assert!(first[4].starts_with("it answered 500") && first[5] == "Deliver again", "{first:?}");
    assert_eq!((second[2].as_str(), second[4..].concat()), ("0", String::new()), "{second:?}");
    let overview = browser.get("/console/site").await;
    let tiles = overview.texts("tile");
    let tile = tiles.iter().find(|tile| tile.starts_with("Deliveries given up")).expect("a tile");
    assert!(tile.contains("1 failing") && tile.ends_with("2 deliveries wait"), "{tile}");
    assert!(overview.links().contains(&SFTPGO.to_owned()), "{tile}");
    let form = failing.elements("tbody")[0].elements("form").remove(0);
    let mut fields: Vec<(String, String)> = form.fields();
    fields.push(("act".into(), "retry".into()));

    sftpgo.lab("behave", json!({"fail": 0})).await;
    let retried = browser.post(SFTPGO, &crate::harness::console::borrowed(&fields)).await;
    assert_eq!((retried.status, retried.location()), (303, Some(SFTPGO)));
    sftpgo.eventually("kim", Value::is_object).await;
    let given_up = browser.get(&format!("{SFTPGO}?state=dead")).await;
    assert_eq!(given_up.texts("empty"), ["No such deliveries Nothing waits here."]);
    let unknown = browser.post(SFTPGO, &[("act", "retry"), ("id", "1.mail.x")]).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn accounts_of_wordpress_are_compared_and_become_members() {
    const WORDPRESS: &str = "/console/site/connections/wordpress";
    let wordpress = WordPress::start();
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("password");
    std::fs::write(&file, &wordpress.person("admin").application_password).expect("written");
    let settings = format!(
        "wordpress.url = \"{}\"\nwordpress.username = \"admin\"\nwordpress.password_file = {:?}\n",
        wordpress.url,
        file.display().to_string()
    );
    let site = Site::with(&settings).await;
    let browser = signed_in(&site, ADMIN).await;
    let compared = browser.post(WORDPRESS, &[("act", "compare")]).await;
    let shown = rows(&compared);
    let editor = format!("#{}", wordpress.person("editor").id);
    let of_editor = shown.iter().find(|row| row[0] == editor).unwrap_or_else(|| panic!("{shown:?}"));
    assert_eq!(of_editor[1..], ["has no member", "a member is created"]);
    let members = site.admin().get("/admin/members").await.data()["total"].clone();
    assert_eq!(members, 1, "a comparison changes nothing");
    assert!(compared.links().contains(&format!("{WORDPRESS}?confirm=bring")));
    let question = browser.get(&format!("{WORDPRESS}?confirm=bring")).await;
    assert_eq!(question.with_class("confirm").len(), 1);
    assert_eq!(browser.post(WORDPRESS, &[("act", "bring")]).await.status, 303);
    eventually("members", async || {
        let found = site.admin().get("/admin/members?keyword=editor").await.data();
        found["total"].as_u64() >= Some(1)
    })
    .await;
}

#[tokio::test]
async fn a_comparison_that_fails_says_so_on_the_page() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("secret");
    std::fs::write(&file, "x").expect("written");
    let file = file.display().to_string();
    let site = Site::with(&format!("sftpgo.url = \"{NOWHERE}/api/v2\"\nsftpgo.secret_file = {file:?}\n")).await;
    let browser = signed_in(&site, ADMIN).await;
    let failed = browser.get(&format!("{SFTPGO}?compare=1")).await;
    assert_eq!((failed.status, failed.notices().len()), (502, 1), "{}", failed.main());
    assert_eq!(state(&failed.with_class("card")[0]), "failing");
    let todo = facts(&failed.with_class("card")[0])["What to do"].clone();
    assert!(todo.contains("sftpgo.url"), "{todo}");
}
