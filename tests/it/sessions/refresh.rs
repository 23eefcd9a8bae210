//! The life of a session: refresh tokens, cookies, the list of a member's sessions, signing keys.

use rusqlite::params;
use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::site::{INTERNAL_SECRET, PASSWORD, Site};

/// The tokens of a sign-in, as a program or a browser keeps them.
#[derive(Clone)]
struct Tokens {
    access: String,
    refresh: String,
    session: String,
}

impl Tokens {
    fn of(data: &Value) -> Self {
        let text = |name: &str| data[name].as_str().expect(name).to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), session: text("session_id") }
    }

    fn body(&self) -> Value {
        json!({"refresh_token": self.refresh, "session_id": self.session})
    }

    /// The cookies as a browser sends them.
    fn cookies(&self) -> String {
        let Self { access, refresh, session } = self;
        format!("other=1; access_token={access}; refresh_token={refresh}; session_id={session}")
    }
}

async fn sign_in(site: &Site, username: &str) -> Tokens {
    let reply = site.nobody().post("/auth/login", json!({"login": username, "password": PASSWORD})).await;
    Tokens::of(&reply.data())
}

async fn refresh(site: &Site, kept: &Tokens) -> Reply {
    site.nobody().post("/auth/refresh", kept.body()).await
}

fn browser<'s>(site: &'s Site, kept: &Tokens) -> As<'s> {
    site.nobody().with("cookie", &kept.cookies()).with("sec-fetch-site", "same-origin")
}

/// The values of the response's `Set-Cookie` headers, by name.
fn set_cookies(reply: &Reply) -> Vec<(String, String, String)> {
    let lines = reply.headers.get_all("set-cookie").iter().map(|line| line.to_str().expect("text"));
    let parted = lines.map(|line| {
        let (name, rest) = line.split_once('=').expect("a name");
        let (value, rest) = rest.split_once(';').expect("a value");
        (name.to_owned(), value.to_owned(), rest.trim().to_owned())
    });
    parted.collect()
}

fn kept_of_cookies(reply: &Reply) -> Tokens {
    let all = set_cookies(reply);
    let value = |name: &str| all.iter().find(|(n, _, _)| n == name).expect(name).1.clone();
    Tokens { access: value("access_token"), refresh: value("refresh_token"), session: value("session_id") }
}

/// Waits until a short-lived access token has expired.
async fn until_ended(site: &Site, kept: &Tokens) {
    for _ in 0..100 {
        if site.bearer(&kept.access).get("/me").await.status == 401 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the token did not expire");
}

/// Changes rows while the server is stopped, to simulate the passing of time.
fn change_while_stopped(site: &mut Site, sql: &str) {
    site.kill();
    rusqlite::Connection::open(site.path().join("roster.db")).expect("open").execute(sql, params![]).expect("aged");
    site.start_again();
}

// ── refresh ──

#[tokio::test]
async fn a_refresh_gives_a_new_pair_for_the_same_session() {
    let site = Site::start().await;
    let member = site.member().await;
    let first = sign_in(&site, &member.username).await;

    let reply = refresh(&site, &first).await;

    let second = Tokens::of(&reply.data());
    assert_eq!(second.session, first.session);
    assert_ne!((&second.refresh, &second.access), (&first.refresh, &first.access));
    assert_eq!(reply.data()["refresh_expires_in"], json!(604_800));
    site.bearer(&second.access).get("/me").await.done();
    let third = Tokens::of(&refresh(&site, &second).await.data());
    assert_ne!(third.refresh, second.refresh);
}

#[tokio::test]
async fn within_the_grace_the_same_token_gives_the_same_successor() {
    let site = Site::start().await;
    let first = sign_in(&site, &site.member().await.username).await;
    let second = Tokens::of(&refresh(&site, &first).await.data());

    for _ in 0..3 {
        assert_eq!(Tokens::of(&refresh(&site, &first).await.data()).refresh, second.refresh);
    }

    refresh(&site, &second).await.done();
}

#[tokio::test]
async fn parallel_refreshes_of_one_token_all_get_the_same_successor() {
    let site = Site::start().await;
    let first = sign_in(&site, &site.member().await.username).await;

    let all = futures_util::future::join_all((0..30).map(|_| refresh(&site, &first))).await;

    let mut successors: Vec<String> = all.iter().map(|reply| Tokens::of(&reply.data()).refresh).collect();
    successors.dedup();
    assert_eq!(successors.len(), 1);
}

#[tokio::test]
async fn a_reused_token_after_the_grace_period_ends_the_session() {
    let mut site = Site::start().await;
    let first = sign_in(&site, &site.member().await.username).await;
    let second = Tokens::of(&refresh(&site, &first).await.data());
    site.while_stopped("update sessions set rotated_at = rotated_at - 20000", []);

    let stolen = refresh(&site, &first).await;

    assert_eq!(stolen.is(28_501_000).word(), "refresh_token_reused");
    assert_eq!(refresh(&site, &second).await.is(28_501_000).word(), "invalid_refresh_token");
    assert_eq!(site.bearer(&second.access).get("/me").await.word(), "invalid_bearer_token");
    let entry = site.last_audit_entry().await;
    assert_eq!(
        (entry["action"].as_str(), entry["target"].as_str()),
        (Some("session.end_reused"), Some(format!("session {}", first.session).as_str()))
    );
}

#[tokio::test]
async fn an_older_token_ends_the_session_even_within_the_grace_period() {
    let site = Site::start().await;
    let first = sign_in(&site, &site.member().await.username).await;
    let second = Tokens::of(&refresh(&site, &first).await.data());
    let third = Tokens::of(&refresh(&site, &second).await.data());

    assert_eq!(refresh(&site, &first).await.word(), "refresh_token_reused");

    assert_eq!(refresh(&site, &third).await.word(), "invalid_refresh_token");
}

#[tokio::test]
async fn an_invalid_refresh_token_ends_no_session() {
    let site = Site::start().await;
    let (kept, other) =
        (sign_in(&site, &site.member().await.username).await, sign_in(&site, &site.member().await.username).await);

    for token in ["x", "rt_", &"x".repeat(128), &kept.refresh[..20], &other.refresh, &kept.access[..100]] {
        let wrong = Tokens { refresh: token.to_owned(), ..kept.clone() };
        assert_eq!(refresh(&site, &wrong).await.is(28_501_000).word(), "invalid_refresh_token", "{token}");
    }
    let without = Tokens { session: String::new(), ..kept.clone() };
    assert_eq!(refresh(&site, &without).await.is(10_101_000).fields(), ["body.session_id"]);
    for session in ["x", &other.session, "019abcde-0000-7000-8000-00000000dead"] {
        let wrong = Tokens { session: session.to_owned(), ..kept.clone() };
        assert_eq!(refresh(&site, &wrong).await.word(), "invalid_refresh_token", "{session}");
    }
    assert_eq!(
        site.nobody()
            .post("/auth/refresh", json!({"refresh_token": "x".repeat(129), "session_id": "x"}))
            .await
            .is(10_101_000)
            .fields(),
        ["body.refresh_token"]
    );
    refresh(&site, &kept).await.done();
}

#[tokio::test]
async fn refresh_tokens_are_nowhere_in_the_data_directory() {
    let site = Site::with("log.level = \"trace\"").await;
    let first = sign_in(&site, &site.member().await.username).await;
    let second = Tokens::of(&refresh(&site, &first).await.data());

    for file in std::fs::read_dir(site.path()).expect("folder") {
        let file = file.expect("file").path();
        let bytes = std::fs::read(&file).unwrap_or_default();
        for secret in [&first.refresh, &second.refresh, &first.access, &second.access] {
            let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{}", file.display());
        }
    }
}

#[tokio::test]
async fn a_session_ends_after_its_idle_time_and_after_its_maximum_age() {
    let mut site = Site::with("auth.session_idle_s = 100\nauth.session_ttl_s = 150").await;
    let username = site.member().await.username;
    let kept = sign_in(&site, &username).await;
    let reply = refresh(&site, &kept).await;
    assert_eq!(reply.data()["refresh_expires_in"], json!(100));
    let kept = Tokens::of(&reply.data());
    change_while_stopped(&mut site, "update sessions set ends_at = ends_at - 100000");
    let reply = refresh(&site, &kept).await;
    assert!(reply.data()["refresh_expires_in"].as_i64().expect("seconds") <= 50, "the maximum age limits it");
    let kept = Tokens::of(&reply.data());

    change_while_stopped(&mut site, "update sessions set expires_at = created_at");

    assert_eq!(refresh(&site, &kept).await.word(), "invalid_refresh_token");
    assert_eq!(site.bearer(&kept.access).get("/me").await.word(), "invalid_bearer_token");
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let mut site = Site::start().await;
    let kept = sign_in(&site, &site.member().await.username).await;

    site.restart().await;

    site.bearer(&kept.access).get("/me").await.done();
    let next = Tokens::of(&refresh(&site, &kept).await.data());
    site.restart().await;
    assert_eq!(Tokens::of(&refresh(&site, &kept).await.data()).refresh, next.refresh);
}

#[tokio::test]
async fn a_suspended_member_can_neither_refresh_nor_use_its_session() {
    let site = Site::start().await;
    let member = site.member().await;
    let kept = sign_in(&site, &member.username).await;

    site.admin().post(&format!("/admin/members/{}/deactivate", member.uid), json!({})).await.done();

    assert_eq!(site.bearer(&kept.access).get("/me").await.word(), "invalid_bearer_token");
    assert_eq!(refresh(&site, &kept).await.word(), "invalid_refresh_token");
    site.admin().post(&format!("/admin/members/{}/activate", member.uid), json!({})).await.done();
    assert_eq!(refresh(&site, &kept).await.word(), "invalid_refresh_token");
}

// ── cookies ──

#[tokio::test]
async fn cookies_are_set_only_on_request_and_are_http_only() {
    let site = Site::start().await;
    let login = json!({"login": site.member().await.username, "password": PASSWORD});

    let without = site.nobody().post("/auth/login", login.clone()).await;
    let mut login = login;
    login["cookies"] = json!(true);
    let with = site.nobody().post("/auth/login", login).await;

    assert!(set_cookies(&without).is_empty());
    let names: Vec<String> = set_cookies(&with).into_iter().map(|(name, _, _)| name).collect();
    assert_eq!(names, ["access_token", "refresh_token", "session_id"]);
    for (_, _, rest) in set_cookies(&with) {
        assert_eq!(rest, "Path=/; Max-Age=604800; HttpOnly; SameSite=Lax");
    }
    browser(&site, &kept_of_cookies(&with)).get("/me").await.done();
}

#[tokio::test]
async fn behind_https_the_cookies_have_the_host_prefix() {
    let site = Site::with("public_url = \"https://id.example.org\"").await;
    let login = json!({"login": site.member().await.username, "password": PASSWORD, "cookies": true});

    let reply = site.nobody().post("/auth/login", login).await;

    let cookies = set_cookies(&reply);
    for (name, _, rest) in &cookies {
        assert!(name.starts_with("__Host-"), "{name}");
        assert_eq!(rest, "Path=/; Max-Age=604800; HttpOnly; SameSite=Lax; Secure");
    }
    let line = |prefix: &str| {
        let pairs = cookies.iter().map(|(name, value, _)| format!("{}={value}", name.replace("__Host-", prefix)));
        pairs.collect::<Vec<_>>().join("; ")
    };
    site.nobody().with("cookie", &line("__Host-")).get("/me").await.done();
    // A sibling host could set a cookie without the prefix.
    assert_eq!(site.nobody().with("cookie", &line("")).get("/me").await.word(), "missing_bearer_token");
}

#[tokio::test]
async fn a_request_with_an_expired_access_cookie_is_served_and_gets_new_cookies() {
    let site = Site::with("auth.access_token_ttl_s = 1").await;
    let kept = sign_in(&site, &site.member().await.username).await;
    until_ended(&site, &kept).await;

    let replies =
        futures_util::future::join_all((0..12).map(|_| async { browser(&site, &kept).get("/me").await })).await;

    let renewed: Vec<Tokens> = replies
        .iter()
        .map(|reply| {
            reply.done();
            kept_of_cookies(reply)
        })
        .collect();
    assert!(renewed.iter().all(|one| one.refresh == renewed[0].refresh && one.session == kept.session));
    assert_ne!(renewed[0].refresh, kept.refresh);
    browser(&site, &renewed[0]).get("/me").await.done();
    // The access cookie may be missing: browsers drop expired cookies.
    let line = format!("refresh_token={}; session_id={}", renewed[0].refresh, kept.session);
    site.nobody().with("cookie", &line).get("/me").await.done();
}

#[tokio::test]
async fn a_valid_access_cookie_is_not_renewed() {
    let site = Site::start().await;
    let kept = sign_in(&site, &site.member().await.username).await;

    let reply = browser(&site, &kept).get("/me").await;

    reply.done();
    assert!(set_cookies(&reply).is_empty());
}

#[tokio::test]
async fn cookies_that_are_no_longer_valid_are_deleted() {
    let site = Site::with("auth.access_token_ttl_s = 1").await;
    let kept = sign_in(&site, &site.member().await.username).await;
    browser(&site, &kept).delete("/me/sessions").await.done();

    let reply = browser(&site, &kept).get("/me").await;
    until_ended(&site, &kept).await;
    let later = browser(&site, &kept).get("/me").await;

    assert_eq!(reply.is(28_501_000).word(), "invalid_refresh_token");
    assert_eq!(later.is(28_501_000).word(), "invalid_refresh_token");
    assert!(set_cookies(&later).iter().all(|(_, value, rest)| value.is_empty() && rest.contains("Max-Age=0")));
    assert_eq!(set_cookies(&later).len(), 3);
}

#[tokio::test]
async fn a_cross_site_request_with_cookies_changes_nothing() {
    let site = Site::with("cors.origins = [\"https://portal.example.org\"]\nauth.access_token_ttl_s = 1").await;
    // The administrator's own token expires before the end of the test.
    let (one, other) = (site.member().await, site.member().await);
    let kept = sign_in(&site, &one.username).await;
    let with = |name: &str, value: &str| site.nobody().with("cookie", &kept.cookies()).with(name, value);
    let host = site.url.trim_start_matches("http://").to_owned();

    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", &format!("http://{host}.evil.example")),
        ("origin", "https://portal.example.org.evil.example"),
    ] {
        let reply = with(name, value).patch("/me", json!({"display_name": "Owned"})).await;
        assert_eq!(reply.is(28_505_000).word(), "cross_site", "{name}: {value}");
        assert!(set_cookies(&reply).is_empty(), "nothing is renewed for another site");
        let reply = with(name, value).post("/auth/logout", json!({})).await;
        assert_eq!(reply.word(), "cross_site");
        let reply = site
            .nobody()
            .with("cookie", &kept.cookies())
            .with(name, value)
            .send(reqwest::Method::POST, "/auth/refresh", None)
            .await;
        assert_eq!(reply.word(), "cross_site");
    }
    let login = json!({"login": "x", "password": "x", "cookies": true});
    assert_eq!(
        site.nobody().with("sec-fetch-site", "cross-site").post("/auth/login", login).await.word(),
        "cross_site"
    );
    for (name, value) in [
        ("sec-fetch-site", "same-origin"),
        ("origin", &format!("http://{host}")),
        ("origin", "https://portal.example.org"),
    ] {
        with(name, value).patch("/me", json!({"display_name": "Own"})).await.done();
    }
    // A bearer token is not a cookie: no page sends one by itself.
    let fresh = Tokens::of(&refresh(&site, &sign_in(&site, &other.username).await).await.data());
    site.bearer(&fresh.access)
        .with("origin", "https://evil.example")
        .patch("/me", json!({"display_name": "X"}))
        .await
        .done();
}

#[tokio::test]
async fn an_invalid_cookie_is_unauthenticated() {
    let site = Site::start().await;

    for line in ["access_token", "access_token=", ";;=;", "access_token=garbage", "session_id=x", "\u{e9}=1"] {
        let reply = site.nobody().with("cookie", line).get("/me").await;
        assert_eq!(reply.status, 401, "{line}");
    }
}

#[tokio::test]
async fn an_authorization_header_takes_precedence_over_a_cookie() {
    let site = Site::start().await;
    let kept = sign_in(&site, &site.member().await.username).await;

    assert_eq!(
        browser(&site, &kept).with("authorization", "Bearer garbage").get("/me").await.word(),
        "invalid_bearer_token"
    );
    let asserted =
        browser(&site, &kept).with("x-internal-secret", INTERNAL_SECRET).with("x-uid", "x").with("x-tenant-id", "x");
    assert_eq!(asserted.get("/api/v1/permissions/me").await.is(31_501_000).word(), "unauthenticated");
}

// ── a member's own sessions ──

#[tokio::test]
async fn a_member_sees_and_ends_only_its_own_sessions() {
    let site = Site::start().await;
    let (kim, lee) = (site.member().await, site.member().await);
    let phone = site.nobody().with("user-agent", "Mozilla/5.0 (iPhone) Version/18.0 Safari/604.1");
    let on_phone =
        Tokens::of(&phone.post("/auth/login", json!({"login": kim.username, "password": PASSWORD})).await.data());
    let here = sign_in(&site, &kim.username).await;
    let theirs = sign_in(&site, &lee.username).await;

    let list = site.bearer(&here.access).get("/me/sessions").await.data()["items"].clone();

    let list = list.as_array().expect("items");
    assert_eq!(list.len(), 3, "the harness signed in too");
    let of = |kept: &Tokens| list.iter().find(|one| one["id"] == kept.session.as_str()).cloned().unwrap_or_default();
    assert_eq!((&of(&on_phone)["device"], &of(&on_phone)["is_current"]), (&json!("Safari on iPhone"), &json!(false)));
    assert_eq!((&of(&here)["is_current"], &of(&here)["address"]), (&json!(true), &json!("127.0.0.1")));
    assert_eq!(of(&here)["method"], "password");
    let foreign = site.bearer(&here.access).delete(&format!("/me/sessions/{}", theirs.session)).await;
    assert_eq!(foreign.is(28_301_000).word(), "session_not_found");
    site.bearer(&theirs.access).get("/me").await.done();
    site.bearer(&here.access).delete(&format!("/me/sessions/{}", on_phone.session)).await.done();
    assert_eq!(site.bearer(&on_phone.access).get("/me").await.word(), "invalid_bearer_token");
    assert_eq!(refresh(&site, &on_phone).await.word(), "invalid_refresh_token");
}

#[tokio::test]
async fn signing_out_everywhere_ends_all_or_all_others() {
    let site = Site::start().await;
    let kim = site.member().await;
    let (here, there) = (sign_in(&site, &kim.username).await, sign_in(&site, &kim.username).await);

    let ended = site.bearer(&here.access).delete("/me/sessions?keep_current=true").await.data();
    assert_eq!(ended, json!({"ended": 2}));
    site.bearer(&here.access).get("/me").await.done();
    assert_eq!(site.bearer(&there.access).get("/me").await.word(), "invalid_bearer_token");

    let ended = site.bearer(&here.access).delete("/me/sessions").await.data();
    assert_eq!(ended, json!({"ended": 1}));
    assert_eq!(site.bearer(&here.access).get("/me").await.word(), "invalid_bearer_token");
}

#[tokio::test]
async fn signing_out_ends_the_session_and_its_cookies() {
    let site = Site::start().await;
    let kim = site.member().await;
    let (here, there) = (sign_in(&site, &kim.username).await, sign_in(&site, &kim.username).await);

    let reply = browser(&site, &here).post("/auth/logout", json!({})).await;

    reply.done();
    assert_eq!(set_cookies(&reply).len(), 3);
    assert_eq!(browser(&site, &here).get("/me").await.status, 401);
    assert_eq!(refresh(&site, &here).await.word(), "invalid_refresh_token");
    site.bearer(&there.access).get("/me").await.done();
}

#[tokio::test]
async fn the_number_of_sessions_is_limited_and_the_oldest_is_ended() {
    let site = Site::with("limits.sessions_per_member = 3").await;
    let kim = site.member().await;
    let first = sign_in(&site, &kim.username).await;
    let second = sign_in(&site, &kim.username).await;
    site.bearer(&first.access).get("/me").await.done();
    site.bearer(&kim.token).get("/me").await.done();

    let third = sign_in(&site, &kim.username).await;

    assert_eq!(site.bearer(&kim.token).get("/me").await.word(), "invalid_bearer_token");
    for kept in [&first, &second, &third] {
        site.bearer(&kept.access).get("/me").await.done();
    }
}

// ── signing keys ──

#[tokio::test]
async fn external_systems_can_verify_our_tokens_before_and_after_a_rotation() {
    let mut site = Site::start().await;
    let before = sign_in(&site, &site.member().await.username).await;
    let verified = |keys: &Value, token: &str| {
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys.clone()).expect("a key set");
        let kid = jsonwebtoken::decode_header(token).expect("header").kid.expect("kid");
        let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&kid).expect("published")).expect("usable");
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
        rules.set_audience(&["roster"]);
        jsonwebtoken::decode::<Value>(token, &key, &rules).expect("verified").claims
    };
    let published = site.nobody().get("/.well-known/jwks.json").await;
    assert_eq!(published.body["keys"].as_array().expect("keys").len(), 1);
    assert_eq!(published.body["keys"][0].get("d"), None);
    verified(&published.body, &before.access);

    let list = site.admin().post("/admin/signing-keys/rotate", json!({})).await.data();

    let signs: Vec<bool> = list["items"].as_array().expect("items").iter().map(|key| key["signs"] == true).collect();
    assert_eq!(signs, [true, false]);
    let after = sign_in(&site, &site.member().await.username).await;
    let published = site.nobody().get("/.well-known/jwks.json").await.body;
    let kid = |token: &str| jsonwebtoken::decode_header(token).expect("header").kid;
    assert_ne!(kid(&before.access), kid(&after.access));
    for kept in [&before, &after] {
        verified(&published, &kept.access);
        site.bearer(&kept.access).get("/me").await.done();
    }
    site.restart().await;
    site.bearer(&before.access).get("/me").await.done();
    // A day later the former key is removed, and its tokens are no longer valid.
    change_while_stopped(&mut site, "update signing_keys set created_at = created_at - 90000000");
    for _ in 0..100 {
        if site.nobody().get("/.well-known/jwks.json").await.body["keys"].as_array().expect("keys").len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(site.bearer(&before.access).get("/me").await.word(), "invalid_bearer_token");
    site.bearer(&after.access).get("/me").await.done();
}

#[tokio::test]
async fn an_old_signing_key_is_rotated_automatically() {
    let mut site = Site::start().await;
    let first = site.nobody().get("/.well-known/jwks.json").await.body["keys"][0]["kid"].clone();

    change_while_stopped(&mut site, "update signing_keys set created_at = created_at - 7776000000");

    for _ in 0..100 {
        let keys = site.nobody().get("/.well-known/jwks.json").await.body["keys"].clone();
        if keys.as_array().expect("keys").len() == 2 {
            assert_ne!(keys[0]["kid"], first);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no new key");
}
