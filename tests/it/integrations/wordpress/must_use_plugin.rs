//! The must-use plugin in a real WordPress.

use serde_json::{Value, json};

use super::comparison::{compare, numbers};
use super::events::{HOOK, KEY, SiteWithSecrets, find, roles, site_of, status};
use super::map;
use crate::harness::counterparts::WordPress;
use crate::harness::stub_server::NOWHERE;
use crate::harness::waiting::eventually;

/// Serializes the tests that receive events of the WordPress that all tests share.
static EVENTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn site_at(wordpress: &WordPress) -> SiteWithSecrets {
    let password = &wordpress.person("admin").application_password;
    site_of(&wordpress.url, &wordpress.events_key, Some(password), "wordpress.organization = \"acme\"").await
}

fn send_events_to(wordpress: &WordPress, url: &str) {
    std::fs::write(&wordpress.events_url, url).expect("the file");
}

async fn administer(wordpress: &WordPress, method: reqwest::Method, path: &str, body: Value, quiet: bool) -> Value {
    let url = format!("{}/wp-json/wp/v2/users{path}", wordpress.url);
    let admin = &wordpress.person("admin").application_password;
    let mut request =
        crate::harness::counterparts::http().request(method, url).basic_auth("admin", Some(admin)).json(&body);
    if quiet {
        request = request.header("x-roster-quiet", "1");
    }
    let answer = request.send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("text"));
    answer.json().await.expect("JSON")
}

async fn new_person(wordpress: &WordPress, roles: &[&str], quiet: bool) -> (String, u64) {
    let login = format!("p{}", uuid::Uuid::now_v7().simple());
    let body = json!({"username": login, "email": format!("{login}@example.org"), "password": "Pass-word-7",
        "name": "New Person", "roles": roles});
    let made = administer(wordpress, reqwest::Method::POST, "", body, quiet).await;
    (login, made["id"].as_u64().expect("id"))
}

#[tokio::test]
async fn members_follow_users_created_changed_and_deleted_at_wordpress() {
    let wordpress = WordPress::start();
    let _turn = EVENTS.lock().await;
    let site = site_at(wordpress).await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    map(&acme, "author", "writers").await;
    send_events_to(wordpress, &format!("{}{HOOK}", site.url));

    let (login, id) = new_person(wordpress, &["editor"], false).await;
    let member = eventually("a new user becomes a member", async || find(&site, &login).await).await;
    let uid = member["uid"].as_str().expect("uid").to_owned();
    assert_eq!(member["email"], format!("{login}@example.org"));
    eventually("its role follows", async || (roles(&acme, &uid).await == ["press"]).then_some(())).await;

    let body = json!({"roles": ["author"], "email": format!("new-{login}@example.org")});
    administer(wordpress, reqwest::Method::POST, &format!("/{id}"), body, false).await;
    eventually("another role follows", async || (roles(&acme, &uid).await == ["writers"]).then_some(())).await;
    assert_eq!(find(&site, &login).await.expect("the member")["email"], format!("{login}@example.org"));

    // A user that another program reports itself causes no event of its own; an event about another user is sent.
    let (quiet, _) = new_person(wordpress, &["editor"], true).await;
    let (loud, _) = new_person(wordpress, &["editor"], false).await;
    eventually("the event of the next user arrives", async || find(&site, &loud).await).await;
    assert_eq!(find(&site, &quiet).await, None);

    let path = format!("/{id}?force=true&reassign=false");
    administer(wordpress, reqwest::Method::DELETE, &path, json!({}), false).await;
    eventually("the deleted user is suspended", async || (status(&site, &uid).await == "suspended").then_some(()))
        .await;
    assert_eq!(roles(&acme, &uid).await, Vec::<String>::new());
    send_events_to(wordpress, "");
}

#[tokio::test]
async fn events_that_roster_could_not_receive_are_sent_again() {
    let wordpress = WordPress::start();
    let _turn = EVENTS.lock().await;
    let site = site_at(wordpress).await;
    site.organization("acme").await;
    send_events_to(wordpress, &format!("{NOWHERE}{HOOK}"));
    let (login, _) = new_person(wordpress, &[], false).await;
    assert_eq!(find(&site, &login).await, None);

    send_events_to(wordpress, &format!("{}{HOOK}", site.url));
    let cron = format!("{}/wp-cron.php?doing_wp_cron", wordpress.url);
    eventually("the cron job sends the event", async || {
        crate::harness::counterparts::http().get(&cron).send().await.expect("an answer");
        find(&site, &login).await
    })
    .await;
    send_events_to(wordpress, "");
}

#[tokio::test]
async fn all_users_of_a_real_wordpress_are_compared() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress).await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let (login, id) = new_person(wordpress, &["editor"], false).await;

    let dry = site.command(&["sync", "wordpress", "--dry-run"]);
    assert!(numbers(&dry, "new").contains(&id), "{dry}");
    assert_eq!(find(&site, &login).await, None);
    let report = site.command(&["sync", "wordpress"]);
    let row = report["new"].as_array().expect("new").iter().find(|row| row["wordpress_id"] == id).expect("a row");
    let uid = row["uid"].as_str().expect("uid");
    assert_eq!(roles(&acme, uid).await, ["press"]);

    let path = format!("/{id}?force=true&reassign=false");
    administer(wordpress, reqwest::Method::DELETE, &path, json!({}), false).await;
    assert!(numbers(&compare(&site, json!({})).await, "gone").contains(&id));
    assert_eq!(status(&site, uid).await, "suspended");
    // With a wrong password WordPress would answer as to an anonymous visitor.
    let wrong = site_of(&wordpress.url, KEY, Some("abcd EFGH 1234 ijkl MNOP 5678"), "").await;
    let reply = wrong.admin().post("/admin/wordpress/sync", json!({})).await;
    assert_eq!((reply.status, reply.word()), (502, "neighbour_failed"));
}
