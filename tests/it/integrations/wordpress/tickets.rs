//! Sign-in with WordPress by tickets of our plugin.

use reqwest::Method;
use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};

use super::{SECRET, issue, map, redeem, roles, sealed, sign_in, site_at, site_of};
use crate::harness::callers::Reply;
use crate::harness::counterparts::{Browser, WordPress, query};
use crate::harness::stub_server::NOWHERE;

#[tokio::test]
async fn a_ticket_of_the_plugin_signs_in_once() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "wordpress.organization = \"acme\"").await;
    let acme = site.organization("acme").await;
    map(&acme, "editor", "press").await;
    let editor = wordpress.person("editor");
    let mut browser = wordpress.browser_sign_in("editor", &editor.password).await;

    let ticket = wordpress.ticket(&mut browser).await;
    let reply = redeem(&site, &ticket).await;

    let token = reply.access_token();
    let me = site.bearer(&token).get("/me").await.data();
    assert_eq!((&me["username"], &me["email"]), (&json!("editor"), &json!(editor.email)));
    assert_eq!(roles(&acme, &token).await, ["press"]);
    assert_eq!(redeem(&site, &ticket).await.is(28_501_000).word(), "invalid_ticket");
    // The same member by application password and by the next ticket.
    let by_password = sign_in(&site, "editor", &editor.application_password).await.data()["access_token"].clone();
    let by_ticket = redeem(&site, &wordpress.ticket(&mut browser).await).await.data()["access_token"].clone();
    for token in [by_password, by_ticket] {
        assert_eq!(site.bearer(token.as_str().expect("a token")).get("/me").await.data()["uid"], me["uid"]);
    }
}

#[tokio::test]
async fn a_browser_returns_from_wordpress_with_a_ticket_that_sets_cookies() {
    let wordpress = WordPress::start();
    let site = site_at(wordpress, "").await;
    let person = wordpress.person("name with space");
    let url = format!("{}/wp-admin/admin-post.php?action=roster_sign_in&state=s1", wordpress.url);
    let mut url = reqwest::Url::parse(&url).expect("URL");
    url.query_pairs_mut().append_pair("return_to", &wordpress.return_url);

    let mut browser = Browser::new();
    let page = browser.get(url.as_str()).await;
    let login_page = page.location().expect("the way to the form");
    let back = query(&login_page, "redirect_to").expect("the way back");
    browser.get(&login_page).await;
    let form = [("log", "name with space"), ("pwd", &*person.password), ("redirect_to", &*back)];
    let page = browser.submit(&format!("{}/wp-login.php", wordpress.url), &form).await;
    let page = browser.get(&page.location().expect("back to the plugin")).await;
    let returned = page.location().expect("the way to Roster");
    let fragment = returned.strip_prefix(&format!("{}#ticket=", wordpress.return_url)).expect("a ticket");
    let ticket = fragment.strip_suffix("&state=s1").expect("the state");

    let body = json!({"ticket": ticket, "cookies": true});
    let same_site = site.nobody().with("sec-fetch-site", "same-origin");
    let reply = same_site.send(Method::POST, "/auth/wordpress/ticket", Some(body)).await;

    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 3, "{reply:?}");
    let me = site.bearer(&reply.access_token()).get("/me").await.data();
    assert_eq!(me["email"], person.email);
}

#[tokio::test]
async fn forged_foreign_and_old_tickets_create_no_member() {
    let site = site_of(NOWHERE, "").await;
    let now = Timestamp::now().0 / 1_000;
    let with = |changes: Value| issue(&changes);
    let good = with(json!({}));
    let (body, signature) = good.split_once('.').expect("a point");
    let mut flipped = body.to_owned().into_bytes();
    flipped[10] ^= 1;
    let flipped = String::from_utf8(flipped).expect("text");

    for (why, ticket) in [
        ("another key", sealed(&json!({"v": 1}), "another-secret-of-32-characters-or-more")),
        ("no signature", format!("{body}.")),
        ("half a signature", format!("{body}.{}", &signature[..32])),
        ("another body", format!("{flipped}.{signature}")),
        ("garbage", "garbage".into()),
        ("a point", ".".into()),
        ("signed garbage", sealed(&json!("x"), SECRET)),
        ("another version", with(json!({"v": 2}))),
        ("another site", with(json!({"site": "http://127.0.0.1:1"}))),
        ("over", with(json!({"iat": now - 61, "exp": now - 1}))),
        ("too long a life", with(json!({"exp": now + 61}))),
        ("from the future", with(json!({"iat": now + 30, "exp": now + 60}))),
        ("nobody", with(json!({"id": 0}))),
        ("without a name of its own", with(json!({"jti": ""}))),
    ] {
        let reply = redeem(&site, &ticket).await;
        assert_eq!((reply.status, reply.is(28_501_000).word()), (401, "invalid_ticket"), "{why}");
    }
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 1);
    let reply = site.nobody().post("/auth/wordpress/ticket", json!({"ticket": "x".repeat(8_193)})).await;
    assert_eq!(reply.fields(), ["body.ticket"]);
    redeem(&site, &good).await.done();
}

#[tokio::test]
async fn a_reused_wordpress_id_does_not_lead_to_the_former_member() {
    let site = site_of(NOWHERE, "").await;
    let ticket =
        |login: &str, email: &str| issue(&json!({"id": 7, "login": login, "email": email, "roles": ["editor"]}));
    let first = redeem(&site, &ticket("kim", "kim@example.org")).await;
    let uid = site.bearer(&first.access_token()).get("/me").await.data()["uid"].clone();

    for (login, email) in [("lee", "lee@example.org"), ("lee", ""), ("KIM", "lee@example.org")] {
        let reply = redeem(&site, &ticket(login, email)).await;
        assert_eq!((reply.status, reply.is(28_505_000).word()), (403, "forbidden"), "{login} {email}");
    }
    // A user who changed only the login or only the e-mail is still the same person.
    for (login, email) in [("kim", "new@example.org"), ("renamed", "Kim@example.org"), ("kim", "")] {
        let reply = redeem(&site, &ticket(login, email)).await;
        assert_eq!(site.bearer(&reply.access_token()).get("/me").await.data()["uid"], uid, "{login} {email}");
    }
}

#[tokio::test]
async fn a_full_site_creates_no_member_and_a_missing_organization_prevents_no_sign_in() {
    let site = site_of(NOWHERE, "limits.members = 2\nwordpress.organization = \"nowhere\"").await;
    let ticket = |id: u64| issue(&json!({"id": id, "login": format!("p{id}")}));

    redeem(&site, &ticket(1)).await.done();
    assert_eq!(redeem(&site, &ticket(2)).await.is(29_309_000).word(), "site_full");
    redeem(&site, &ticket(1)).await.done();
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 2);
    assert!(site.log().contains("name an organization that does not exist"), "{}", site.log());
}

#[test]
fn a_ticket_secret_that_could_be_guessed_is_refused_at_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("secret");
    let settings = format!("wordpress.url = \"{NOWHERE}\"\nwordpress.ticket_secret_file = \"{}\"\n", file.display());
    std::fs::write(folder.path().join("roster.toml"), settings).expect("settings");
    for (length, is_taken) in [(31, false), (32, true)] {
        std::fs::write(&file, "s".repeat(length)).expect("the secret");
        let output = std::process::Command::new(crate::harness::site::binary())
            .args(["config", "check", "--data"])
            .arg(folder.path())
            .output()
            .expect("roster");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_taken, "{length}: {said}");
        assert_eq!(said.contains("wordpress.ticket_secret_file"), !is_taken, "{length}: {said}");
    }
}

#[tokio::test]
async fn many_requests_with_one_ticket_give_one_session() {
    let site = site_of(NOWHERE, "").await;
    let ticket = issue(&json!({"id": 4_000_001, "login": "racer"}));

    let (a, b, c, d) =
        tokio::join!(redeem(&site, &ticket), redeem(&site, &ticket), redeem(&site, &ticket), redeem(&site, &ticket));

    let mut statuses = [a.status, b.status, c.status, d.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401]);
    // Several tickets of one new user at once create one member.
    let tickets: Vec<String> = (0..4).map(|_| issue(&json!({"id": 4_000_002, "login": "twins"}))).collect();
    let replies = tokio::join!(
        redeem(&site, &tickets[0]),
        redeem(&site, &tickets[1]),
        redeem(&site, &tickets[2]),
        redeem(&site, &tickets[3])
    );
    [replies.0, replies.1, replies.2, replies.3].iter().for_each(Reply::done);
    assert_eq!(site.admin().get("/admin/members?keyword=twins").await.data()["total"], 1);
}

#[tokio::test]
async fn a_required_second_factor_applies_to_sign_ins_with_wordpress() {
    let mut site = site_of(NOWHERE, "").await;
    let ticket = |n: u64| issue(&json!({"id": 4_000_010 + n, "login": "strict"}));
    redeem(&site, &ticket(0)).await.done();
    let uid = {
        let acme = site.organization("strict").await;
        let found = site.admin().get("/admin/members?keyword=strict").await.data();
        let uid = found["items"][0]["uid"].as_str().expect("uid").to_owned();
        acme.link(&uid).await;
        uid
    };
    site.kill();
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.execute("update organizations set second_factor_required = 1 where org_code = 'strict'", []).expect("update");
    drop(rows);
    site.start_again();

    let reply = redeem(&site, &ticket(0)).await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_enrolment_required", "{uid}");
    assert!(reply.body["challenge"].is_string());
}
