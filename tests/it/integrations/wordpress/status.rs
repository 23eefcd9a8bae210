//! WordPress is told which members are suspended and which are active again.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{administer, new_person};
use crate::harness::counterparts::{Browser, Page, WordPress, http};
use crate::harness::site::Site;
use crate::harness::stub_server::{self, StubRequest, StubServer};

/// A stub of WordPress that records requests and answers as configured.
#[derive(Clone, Default)]
struct StubWordPress {
    bodies: Arc<Mutex<Vec<(String, Value)>>>,
    status: Arc<Mutex<u16>>,
    knows_suspensions: Arc<Mutex<bool>>,
}

impl StubWordPress {
    fn start(&self) -> StubServer {
        let told = self.clone();
        StubServer::start(move |asked| told.answer(&asked))
    }

    fn answer(&self, asked: &StubRequest) -> poem::Response {
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        self.bodies.lock().expect("no panic").push((format!("{} {}", asked.method, asked.path), body.clone()));
        match *self.status.lock().expect("no panic") {
            404 => stub_server::json(404, &json!({"code": "rest_user_invalid_id"})),
            status @ 400.. => stub_server::json(status, &json!({"code": "rest_cannot_edit"})),
            _ if *self.knows_suspensions.lock().expect("no panic") => {
                stub_server::json(200, &json!({"meta": body["meta"]}))
            }
            _ => stub_server::json(200, &json!({"meta": {}})),
        }
    }

    fn answer_with(&self, status: u16, knows_suspensions: bool) {
        *self.status.lock().expect("no panic") = status;
        *self.knows_suspensions.lock().expect("no panic") = knows_suspensions;
    }
}

/// The state and the error of the newest delivery to WordPress, once no attempt is in progress.
async fn delivered(site: &Site, count: u64) -> (String, String) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let page = site.admin().get("/admin/deliveries?target=wordpress").await.data();
        let newest = &page["items"][0];
        if page["total"] == count && newest["attempts"].as_u64() > Some(0) {
            let text = |name: &str| newest[name].as_str().unwrap_or_default().to_owned();
            return (text("state"), text("last_error"));
        }
        assert!(std::time::Instant::now() < deadline, "{page}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_suspension_and_an_activation_are_sent_to_the_account_of_the_member() {
    let told = StubWordPress::default();
    let (wordpress, secrets) = (told.start(), tempfile::tempdir().expect("a folder"));
    let file = secrets.path().join("password");
    std::fs::write(&file, "x").expect("a secret");
    let account = format!("wordpress.username = \"admin\"\nwordpress.password_file = \"{}\"\n", file.display());
    let site = Site::with(&format!("wordpress.url = \"{}\"\n{account}", wordpress.url)).await;
    let user = json!({"username": "kim", "email": "kim@example.org", "wordpress_id": 17});
    let kim = site.admin().post("/admin/users", user).await.data()["id"].as_str().expect("id").to_owned();
    let stranger = site.member().await.uid;
    let say = async |uid: &str, what: &str| {
        site.admin().post(&format!("/admin/members/{uid}/{what}"), json!({})).await.done();
    };

    for (n, (what, status, knows, state, error)) in [
        ("deactivate", 200, true, "delivered", ""),
        ("activate", 200, true, "delivered", ""),
        ("deactivate", 200, false, "dead", "roster-events.php"),
        ("activate", 403, true, "delivered", "may not edit users"),
        ("deactivate", 404, true, "delivered", "no such account"),
        ("activate", 503, true, "pending", "503"),
    ]
    .into_iter()
    .enumerate()
    {
        told.answer_with(status, knows);
        say(&kim, what).await;
        let (found, said) = delivered(&site, n as u64 + 1).await;
        assert!(found == state && said.contains(error), "{what} {status}: {found} {said}");
        let (asked, body) = told.bodies.lock().expect("no panic").last().cloned().expect("told");
        assert_eq!(asked, "POST /wp-json/wp/v2/users/17");
        assert_eq!(body, json!({"meta": {"roster_suspended": what == "deactivate"}}), "nothing else is changed");
    }
    let before = told.bodies.lock().expect("no panic").len();
    say(&stranger, "deactivate").await;
    assert_eq!(delivered(&site, 7).await, ("delivered".into(), "the member has no account at WordPress".into()));
    let after =
        told.bodies.lock().expect("no panic").iter().skip(before).filter(|(asked, _)| !asked.ends_with("/17")).count();
    assert_eq!(after, 0);
}

// ── a real WordPress, with the must-use plugin of `packaging/wordpress` ──

/// A site with credentials of a user at the real WordPress. The site reads its secret until it ends, so the folder is
/// declared before the site and dropped after it.
async fn site_at(wordpress: &WordPress, login: &str) -> (tempfile::TempDir, Site) {
    let secrets = tempfile::tempdir().expect("a folder");
    let file = secrets.path().join("password");
    std::fs::write(&file, &wordpress.person(login).application_password).expect("a secret");
    let settings = format!(
        "wordpress.url = \"{}\"\nwordpress.username = \"{login}\"\nwordpress.password_file = \"{}\"\n\
         neighbours.timeout_ms = 20000\n",
        wordpress.url,
        file.display()
    );
    (secrets, Site::with(&settings).await)
}

async fn member_with_number(site: &Site, number: i64) -> String {
    let user = json!({"username": "kim", "email": "kim@example.org", "wordpress_id": number});
    site.admin().post("/admin/users", user).await.data()["id"].as_str().expect("id").to_owned()
}

/// The response of the sign-in form: a redirect for a user who signed in.
async fn sign_in(wordpress: &WordPress, login: &str, password: &str) -> Page {
    let (mut browser, url) = (Browser::new(), format!("{}/wp-login.php", wordpress.url));
    browser.get(&url).await;
    browser.submit(&url, &[("log", login), ("pwd", password)]).await
}

async fn is_signed_in(wordpress: &WordPress, browser: &mut Browser) -> bool {
    browser.get(&format!("{}/wp-admin/admin-ajax.php?action=rest-nonce", wordpress.url)).await.status == 200
}

/// The status that an application password gets for a request about its own user.
async fn by_application_password(wordpress: &WordPress, login: &str, password: &str, body: Option<Value>) -> u16 {
    let url = format!("{}/wp-json/wp/v2/users/me?context=edit", wordpress.url);
    let request = match body {
        None => http().get(url),
        Some(body) => http().post(url).json(&body),
    };
    request.basic_auth(login, Some(password)).send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_real_wordpress_refuses_a_suspended_user_until_it_is_active_again() {
    let wordpress = WordPress::start();
    let (_secrets, site) = site_at(wordpress, "admin").await;
    let (login, person) = new_person(wordpress, "subscriber").await;
    let kim = member_with_number(&site, person.id).await;
    let say = async |what: &str| {
        site.admin().post(&format!("/admin/members/{kim}/{what}"), json!({})).await.done();
    };
    let asks = async |body: Option<Value>| {
        by_application_password(wordpress, &login, &person.application_password, body).await
    };
    let mut browser = wordpress.browser_sign_in(&login, &person.password).await;
    assert!(is_signed_in(wordpress, &mut browser).await);
    assert_eq!(asks(None).await, 200);

    say("deactivate").await;
    assert_eq!(delivered(&site, 1).await, ("delivered".into(), String::new()));

    assert!(!is_signed_in(wordpress, &mut browser).await, "open sessions are ended");
    let refused = sign_in(wordpress, &login, &person.password).await;
    assert_eq!(refused.status, 200, "{refused:?}");
    assert!(refused.body.contains("This account is suspended."), "{refused:?}");
    assert_eq!(asks(None).await, 401);

    say("activate").await;
    assert_eq!(delivered(&site, 2).await, ("delivered".into(), String::new()));

    assert!(!is_signed_in(wordpress, &mut browser).await, "an old cookie stays invalid");
    let mut browser = wordpress.browser_sign_in(&login, &person.password).await;
    assert!(is_signed_in(wordpress, &mut browser).await);
    assert_eq!(asks(None).await, 200);
    let found = administer(wordpress, &format!("/{}?context=edit", person.id), json!({})).await;
    assert_eq!(
        (&found["email"], &found["roles"], &found["meta"]["roster_suspended"]),
        (&json!(person.email), &json!(["subscriber"]), &json!(false))
    );
    // A user without the permission to edit users cannot set or end a suspension, not even its own.
    assert_eq!(asks(Some(json!({"meta": {"roster_suspended": true}}))).await, 403);
    assert_eq!(asks(None).await, 200);
}

#[tokio::test]
async fn a_real_wordpress_reports_unknown_users_and_callers_without_permission() {
    let wordpress = WordPress::start();
    let (_, person) = new_person(wordpress, "subscriber").await;
    for (teller, number, error) in
        [("admin", 4_000_000, "there is no such account"), ("editor", person.id, "may not edit users")]
    {
        let (_secrets, site) = site_at(wordpress, teller).await;
        let kim = member_with_number(&site, number).await;
        site.admin().post(&format!("/admin/members/{kim}/deactivate"), json!({})).await.done();
        let (state, said) = delivered(&site, 1).await;
        assert!(state == "delivered" && said.contains(error), "{teller}: {state} {said}");
    }
}
