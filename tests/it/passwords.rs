//! Passwords: change, reset, imported hashes, rehashing, and login throttling.

use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use serde_json::{Value, json};

use crate::counterparts::Smtp;
use crate::site::{ADMIN, As, Member, PASSWORD, Reply, Site};

const OTHER: &str = "Another-horse-8";

/// Settings for mail by this server, without TLS.
pub fn mailing(smtp: &Smtp) -> String {
    format!(
        "mail.host = \"127.0.0.1\"\nmail.port = {}\nmail.security = \"none\"\nmail.from = \"Roster <roster@example.org>\"\n",
        smtp.port
    )
}

pub fn plain_smtp() -> Smtp {
    Smtp::start(json!({"tls": "none"}))
}

/// A response body without the fields that differ for every request.
pub fn lasting(reply: &Reply) -> Value {
    let mut body = reply.body.clone();
    body["request_id"] = Value::Null;
    body
}

/// Changes rows beside the server.
pub fn meddle(site: &Site, sql: &str) {
    let rows = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    rows.busy_timeout(Duration::from_secs(5)).expect("a timeout");
    rows.execute_batch(sql).expect("the change");
}

/// Waits until the condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn login(caller: &As<'_>, login: &str, password: &str) -> Reply {
    caller.post("/auth/login", json!({"login": login, "password": password})).await
}

fn stored_hash(site: &Site, uid: &str) -> String {
    let id = uuid::Uuid::parse_str(uid).expect("an id").into_bytes().to_vec();
    site.rows().query_row("select password_hash from members where id = ?", [id], |row| row.get(0)).expect("a hash")
}

/// A member with an e-mail who can sign in.
async fn member_with_email(site: &Site, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD});
    site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned()
}

async fn link_for(caller: &As<'_>, uid: &str) -> Value {
    caller.post(&format!("/admin/members/{uid}/password-link"), json!({})).await.data()
}

async fn reset(site: &Site, token: &Value, password: &str) -> Reply {
    site.nobody().post("/auth/password/reset", json!({"token": token, "new_password": password})).await
}

fn token_in(text: &str) -> Value {
    let token = text.split("/reset?token=").nth(1).expect("a link");
    json!(token.split_whitespace().next().expect("a token"))
}

// ── rules for passwords ──

#[tokio::test]
async fn a_common_password_is_refused_by_every_operation_that_sets_one() {
    let site = Site::start().await;
    let member = site.member().await;
    let token = link_for(&site.admin(), &member.uid).await["token"].clone();

    let change = json!({"old_password": PASSWORD, "new_password": "Password1"});
    for (reply, field) in [
        (
            site.admin().post("/admin/members", json!({"username": "x", "password": "Welcome123!"})).await,
            "body.password",
        ),
        (member.caller().post("/me/password", change).await, "body.new_password"),
        (reset(&site, &token, "Qwerty123").await, "body.new_password"),
    ] {
        assert_eq!(reply.is(10_101_000).fields(), [field]);
    }
    reset(&site, &token, OTHER).await.done();
}

// ── a member's own password ──

async fn change(member: &Member<'_>, old: &str, new: &str) -> Reply {
    member.caller().post("/me/password", json!({"old_password": old, "new_password": new})).await
}

#[tokio::test]
async fn a_changed_password_ends_every_other_session_and_keeps_this_one() {
    let site = Site::start().await;
    let member = site.member().await;
    let elsewhere = site.token(&member.username, PASSWORD).await;

    change(&member, PASSWORD, OTHER).await.done();

    member.caller().get("/me").await.done();
    assert_eq!(site.bearer(&elsewhere).get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    login(&site.nobody(), &member.username, PASSWORD).await.is(28_501_000);
    site.token(&member.username, OTHER).await;
    let sql = "select after from audit where action = 'password.change'";
    let after: String = site.rows().query_row(sql, [], |row| row.get(0)).expect("an entry");
    assert_eq!(serde_json::from_str::<Value>(&after).unwrap(), json!({"fields": ["password"], "sessions_ended": 1}));
}

#[tokio::test]
async fn the_current_password_must_be_right_and_the_new_one_different() {
    let site = Site::start().await;
    let member = site.member().await;

    let wrong = change(&member, OTHER, "Third-horse-9").await;
    let same = change(&member, PASSWORD, PASSWORD).await;
    let weak = change(&member, PASSWORD, "weak").await;

    assert_eq!((wrong.is(28_101_000).word(), wrong.fields()), ("wrong_password", vec!["body.old_password".to_owned()]));
    assert_eq!(same.is(10_101_000).fields(), ["body.new_password"]);
    assert_eq!(weak.is(10_101_000).fields(), vec!["body.new_password"; 3]);
    site.token(&member.username, PASSWORD).await;
}

#[tokio::test]
async fn a_stolen_session_cannot_guess_the_password() {
    let site = Site::start().await;
    let member = site.member().await;

    for _ in 0..10 {
        assert_eq!(change(&member, OTHER, "Third-horse-9").await.is(28_101_000).word(), "wrong_password");
    }

    let refused = change(&member, PASSWORD, OTHER).await;
    assert_eq!(refused.is(28_604_000).word(), "too_many_failures");
}

#[tokio::test]
async fn a_member_without_a_password_is_told_how_to_get_one() {
    let site = Site::start().await;
    let member = site.member().await;
    meddle(&site, &format!("update members set password_hash = null where username = '{}'", member.username));

    let reply = change(&member, PASSWORD, OTHER).await;

    assert_eq!(reply.is(28_101_000).word(), "wrong_password");
    assert!(reply.body["fields"][0]["message"].as_str().unwrap().contains("ask for a link"));
}

// ── hashes ──

#[tokio::test]
async fn a_password_is_rehashed_at_sign_in_when_the_settings_require_more() {
    let mut site = Site::start().await;
    let (uid, username, token) = {
        let member = site.member().await;
        (member.uid, member.username, member.token)
    };
    let former = stored_hash(&site, &uid);
    assert!(former.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{former}");
    let settings = "[password]\nmemory_kib = 64\niterations = 2\n";
    std::fs::write(site.path().join("roster.toml"), settings).expect("settings");
    site.restart().await;

    login(&site.nobody(), &username, OTHER).await.is(28_501_000);
    assert_eq!(stored_hash(&site, &uid), former);
    site.token(&username, PASSWORD).await;

    let renewed = stored_hash(&site, &uid);
    assert!(renewed.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{renewed}");
    site.bearer(&token).get("/me").await.done();
    site.token(&username, PASSWORD).await;
    assert_eq!(stored_hash(&site, &uid), renewed);
}

/// From the tests of bcrypt in crypt_blowfish: the password is `U*U`.
const BCRYPT_TAIL: &str = "$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

fn argon2_of_work(work: Params, password: &str) -> String {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, work);
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(password.as_bytes(), b"somesalt").expect("a hash");
    hash.to_string()
}

fn argon2_of(algorithm: Algorithm, password: &str) -> String {
    let argon2 = Argon2::new(algorithm, Version::V0x13, Params::new(64, 1, 1, None).expect("parameters"));
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(password.as_bytes(), b"somesalt").expect("a hash");
    hash.to_string()
}

#[tokio::test]
async fn an_imported_hash_signs_in_and_becomes_argon2id_at_once() {
    let site = Site::start().await;

    for (n, (hash, password)) in [
        (format!("$2a{BCRYPT_TAIL}"), "U*U"),
        (format!("$2b{BCRYPT_TAIL}"), "U*U"),
        (format!("$2y{BCRYPT_TAIL}"), "U*U"),
        (argon2_of(Algorithm::Argon2i, PASSWORD), PASSWORD),
        (argon2_of(Algorithm::Argon2d, PASSWORD), PASSWORD),
    ]
    .into_iter()
    .enumerate()
    {
        let username = format!("kim{n}");
        let new = json!({"username": username, "password_hash": hash});
        let made = site.admin().post("/admin/members", new).await.data();
        let uid = made["uid"].as_str().expect("uid");
        assert_eq!(stored_hash(&site, uid), hash);

        login(&site.nobody(), &username, "U*V").await.is(28_501_000);
        assert_eq!(stored_hash(&site, uid), hash);
        site.token(&username, password).await;

        assert!(stored_hash(&site, uid).starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        site.token(&username, password).await;
    }
}

#[tokio::test]
async fn hashes_of_wordpress_django_and_crypt_sign_in_and_become_argon2id_at_once() {
    const PASSWORD: &str = "Winter-Tide-42";
    let site = Site::start().await;
    for (n, (hash, stored)) in [
        ("$P$BsaltsaltyvayDBu39pLoTeW858tf7.", None),
        ("$wp$2y$04$aVR9NlBb6NJSs/gsntOU0umMUTUTDEztSVX0BqTQ2IPLb3FDRvkHm", None),
        ("pbkdf2_sha256$1000$seasalt$A/qYSI/6VPY8l4w9zxxJg7lAt8AkAAf+wTv/TnJR+wo=", None),
        ("bcrypt_sha256$$2b$04$dAqiswnMInZFIIiFV9Tmj.DXGaHzjWDvtPZ2QhOAxvjfHb04Z31ZW", None),
        (
            "bcrypt$$2y$04$uoFwTBVRokjNqthd8OggbepPMvyGksC7BJQ5ZQcX6GGU1y1K5vcnS",
            Some("$2y$04$uoFwTBVRokjNqthd8OggbepPMvyGksC7BJQ5ZQcX6GGU1y1K5vcnS"),
        ),
        (
            "{CRYPT}$5$rounds=1000$saltstring$N30lMTMheT6.vyG4hUQCYfJf5NuUkIyv.6dbNwBqpp3",
            Some("$5$rounds=1000$saltstring$N30lMTMheT6.vyG4hUQCYfJf5NuUkIyv.6dbNwBqpp3"),
        ),
        (
            "$6$rounds=1000$saltstring$amH9lQzdtrh2ZI0inOQf2M5iSHHvrc/3..GVEjT3s6DWgxci7rasoqBgVeacE7b9kGmbdhIcCEXXOXrt9TcWj1",
            None,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let username = format!("kim{n}");
        let body = json!({"username": username, "password_hash": hash});
        let made = site.admin().post("/admin/members", body).await.data();
        let uid = made["uid"].as_str().expect("uid");
        assert_eq!(stored_hash(&site, uid), stored.unwrap_or(hash));

        login(&site.nobody(), &username, "Winter-Tide-43").await.is(28_501_000);
        site.token(&username, PASSWORD).await;

        assert!(stored_hash(&site, uid).starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        site.token(&username, PASSWORD).await;
    }
}

#[tokio::test]
async fn a_password_longer_than_bcrypt_reads_is_not_rehashed() {
    // Of 100 bytes, made by PHP.
    const HASH: &str = "$2y$04$m3aAjtnP1MVa8hT.CW0q7OgtoniJYWD2f9OPeX8FNSIfUUX2tqJzu";
    let right = &"Long-Tail-9".repeat(10)[..100];
    let site = Site::start().await;
    let made = site.admin().post("/admin/members", json!({"username": "kim", "password_hash": HASH})).await.data();
    let uid = made["uid"].as_str().expect("uid");
    let other_tail = format!("{}-another-tail", &right[..72]);

    for password in [other_tail.as_str(), &right[..72], right] {
        site.token("kim", password).await;
        assert_eq!(stored_hash(&site, uid), HASH);
    }
    login(&site.nobody(), "kim", &right[..71]).await.is(28_501_000);
    // A new password is hashed as a whole.
    let caller = site.bearer(&site.token("kim", right).await);
    let body = json!({"old_password": right, "new_password": "Another-horse-8"});
    caller.post("/me/password", body).await.done();
    assert!(stored_hash(&site, uid).starts_with("$argon2id$"));
}

/// The median duration of several sign-ins with a wrong password.
async fn time_of_refusal(site: &Site, name: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        login(&site.nobody(), name, "Wrong-horse-9").await.is(28_501_000);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn the_duration_of_a_refusal_reveals_nothing_of_the_hash() {
    // Compares the order of magnitude only; unit tests of the planning compare the exact work.
    const RATIO_MAX: f64 = 3.0;
    let mut site = Site::start().await;
    let plain = site.member().await.username;
    let quick = time_of_refusal(&site, "nobody-1").await;
    let costly = argon2_of_work(Params::new(32_768, 2, 1, None).expect("parameters"), PASSWORD);
    for (name, hash) in [("bcrypt", format!("$2b{BCRYPT_TAIL}").replace("$05$", "$09$")), ("argon", costly)] {
        let made = site.admin().post("/admin/members", json!({"username": name, "password_hash": hash})).await;
        made.done();
    }
    let same = async |site: &Site, round: u8| {
        let mut times = Vec::new();
        for name in [&format!("nobody-{round}"), "bcrypt", "argon", plain.as_str()] {
            times.push(time_of_refusal(site, name).await.as_secs_f64());
        }
        let (least, most) = (times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max));
        assert!(most / least < RATIO_MAX, "{times:?}");
        assert!(least > 3.0 * quick.as_secs_f64(), "{times:?} {quick:?}");
    };
    same(&site, 2).await;
    // After a restart the stored kinds of hashes are read again, and a kind counts no more after its last hash is gone.
    site.restart().await;
    same(&site, 3).await;
    for name in ["bcrypt", "argon"] {
        site.while_stopped("update members set password_hash = null where username = ?1", [name]);
    }
    assert!(time_of_refusal(&site, "nobody-4").await.as_secs_f64() < 3.0 * quick.as_secs_f64());
}

#[tokio::test]
async fn a_refused_hash_import_does_not_slow_down_sign_ins() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let quick = time_of_refusal(&site, "nobody-1").await;
    let hash = format!("$2b{BCRYPT_TAIL}").replace("$05$", "$12$");
    let new = json!({"username": "new", "password_hash": hash});

    acme.owner().post("/admin/members", new.clone()).await.is(29_505_000);
    site.client(&["members:write"]).await.post("/admin/members", new).await.is(29_505_000);
    // A hash in a request that fails for another reason has no effect either.
    let taken = json!({"username": acme.member().await.username, "password_hash": hash});
    assert_eq!(site.admin().post("/admin/members", taken.clone()).await.word(), "username_exists");
    let renamed = format!("/admin/members/{}", acme.member().await.uid);
    assert_eq!(site.admin().patch(&renamed, taken).await.word(), "username_exists");

    assert!(time_of_refusal(&site, "nobody-2").await.as_secs_f64() < 20.0 * quick.as_secs_f64());
}

#[tokio::test]
async fn a_hash_set_later_replaces_the_password_and_ends_all_sessions() {
    let site = Site::start().await;
    let member = site.member().await;

    let body = json!({"password_hash": format!("$2b{BCRYPT_TAIL}")});
    site.admin().patch(&format!("/admin/members/{}", member.uid), body).await.done();

    member.caller().get("/me").await.is(28_501_000);
    login(&site.nobody(), &member.username, PASSWORD).await.is(28_501_000);
    site.token(&member.username, "U*U").await;
}

#[tokio::test]
async fn only_the_platform_imports_hashes_and_only_valid_ones() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let at = format!("/admin/members/{}", member.uid);
    let hash = format!("$2b{BCRYPT_TAIL}");
    let new = |hash: &str| json!({"username": "new", "password_hash": hash});

    acme.owner().post("/admin/members", new(&hash)).await.is(29_505_000);
    acme.owner().patch(&at, json!({"password_hash": hash})).await.is(29_505_000);
    let client = site.client(&["*"]).await;
    for program in [client.clone(), client.with("x-tenant-id", "acme")] {
        program.post("/admin/members", new(&hash)).await.is(29_505_000);
        program.patch(&at, json!({"password_hash": hash})).await.is(29_505_000);
    }
    for bad in [
        "5f4dcc3b5aa765d61d8327deb882cf99".to_owned(),
        hash.replace("$05$", "$03$"),
        hash.replace("$05$", "$13$"),
        hash[..59].to_owned(),
        "$argon2id$v=19$m=262145,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG".to_owned(),
    ] {
        assert_eq!(
            site.admin().post("/admin/members", new(&bad)).await.is(10_101_000).fields(),
            ["body.password_hash"]
        );
    }
    let both = json!({"username": "new", "password": PASSWORD, "password_hash": hash});
    assert_eq!(site.admin().post("/admin/members", both).await.is(10_101_000).fields(), ["body.password_hash"]);
    site.admin().post("/admin/members", new(&hash)).await.done();
}

// ── links by mail ──

#[tokio::test]
async fn a_mailed_link_sets_a_new_password_once() {
    let smtp = plain_smtp();
    let site = Site::with(&format!("public_url = \"https://roster.example.org\"\n{}", mailing(&smtp))).await;
    let uid = member_with_email(&site, "kim@example.org").await;
    let session = site.token("kim@example.org", PASSWORD).await;

    let ask = site.nobody().with("x-forwarded-host", "evil.example").with("host", "evil.example");
    ask.post("/auth/password/forgot", json!({"login": "KIM@example.org"})).await.done();

    let mail = smtp.next_mail_to("kim@example.org").await;
    assert_eq!((mail.subject.as_str(), mail.from.as_str()), ("Your new password", "roster@example.org"));
    assert!(mail.text.contains("\nhttps://roster.example.org/reset?token=pr_"), "{}", mail.text);
    assert!(!mail.text.contains("evil"));
    let token = token_in(&mail.text);
    assert_eq!(reset(&site, &token, "weak").await.is(10_101_000).fields(), vec!["body.new_password"; 3]);

    let done = reset(&site, &token, OTHER).await;

    assert_eq!((done.data(), done.header("set-cookie")), (Value::Null, None));
    site.bearer(&session).get("/me").await.is(28_501_000);
    login(&site.nobody(), "kim@example.org", PASSWORD).await.is(28_501_000);
    site.token("kim@example.org", OTHER).await;
    assert_eq!(reset(&site, &token, "Third-horse-9").await.is(28_501_000).word(), "invalid_link");
    site.token("kim@example.org", OTHER).await;
    let told = [site.log(), site.admin().get("/admin/audit?limit=200").await.body.to_string()].concat();
    assert!(!told.contains(token.as_str().unwrap()) && !told.contains("kim@example.org"));
    let sql = "select actor_kind, target from audit where action in ('password.forgot', 'password.reset')";
    let rows = site.rows();
    let mut statement = rows.prepare(sql).unwrap();
    let entries = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let entries: Vec<(String, String)> = entries.map(Result::unwrap).collect();
    assert_eq!(entries, vec![("visitor".to_owned(), format!("member {uid}")); 2]);
}

#[tokio::test]
async fn a_request_for_a_link_is_answered_alike_for_every_login() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    member_with_email(&site, "kim@example.org").await;
    let suspended = member_with_email(&site, "sus@example.org").await;
    site.admin().post(&format!("/admin/members/{suspended}/deactivate"), json!({})).await.done();
    let nameless = site.member().await;
    let ask = async |login: &str| {
        let reply = site.nobody().post("/auth/password/forgot", json!({"login": login})).await;
        (reply.status, lasting(&reply))
    };

    let first = ask("nobody@example.org").await;

    assert_eq!(first, (200, json!({"code": 102_000, "message": "ok", "request_id": null})));
    for login in ["sus@example.org", &nameless.username, "kim@example.org", "kim@example.org", "%"] {
        assert_eq!(ask(login).await, first, "{login}");
    }
    // Kim requested two links within a minute.
    smtp.next_mail_to("kim@example.org").await;
    assert_eq!(ask(ADMIN).await, first);
    smtp.next_mail_to(ADMIN).await;
    assert_eq!(smtp.mails().len(), 2);
}

#[tokio::test]
async fn a_member_gets_one_mail_per_minute_which_voids_the_former_link() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    member_with_email(&site, "kim@example.org").await;
    let ask = async || site.nobody().post("/auth/password/forgot", json!({"login": "kim@example.org"})).await.done();
    ask().await;
    let first = token_in(&smtp.next_mail_to("kim@example.org").await.text);

    until("the delivery is stored", async || {
        site.admin().get("/admin/deliveries?state=delivered").await.data()["total"] == 1
    })
    .await;
    meddle(&site, "update one_time_tokens set created_at = created_at - 60000");
    ask().await;

    let second = token_in(&smtp.next_mail_to("kim@example.org").await.text);
    assert_eq!(reset(&site, &first, OTHER).await.is(28_501_000).word(), "invalid_link");
    reset(&site, &second, OTHER).await.done();
}

#[tokio::test]
async fn repeated_requests_for_links_are_throttled() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    let ask = async |login: &str| site.nobody().post("/auth/password/forgot", json!({"login": login})).await;

    for _ in 0..10 {
        ask("nobody@example.org").await.done();
    }

    let refused = ask("nobody@example.org").await;
    assert_eq!(refused.is(28_604_000).word(), "too_many_failures");
    assert!(refused.header("retry-after").is_some());
    ask("somebody@example.org").await.done();
    // Sign-ins are not throttled by it.
    site.token(ADMIN, PASSWORD).await;
}

#[tokio::test]
async fn without_mail_every_request_is_answered_alike() {
    let site = Site::start().await;

    for login in [ADMIN, "nobody@example.org"] {
        let reply = site.nobody().post("/auth/password/forgot", json!({"login": login})).await;
        assert_eq!(reply.is(28_605_000).word(), "mail_not_configured");
    }
}

#[tokio::test]
async fn mail_uses_tls_with_the_configured_certificate_authority() {
    let smtp = Smtp::start(json!({"auth": "roster:Mail-pass-7"}));
    let folder = tempfile::tempdir().expect("a directory");
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "Mail-pass-7\n").expect("a file");
    let settings = mailing(&smtp).replace("\"none\"", "\"starttls\"")
        + &format!("mail.username = \"roster\"\nmail.password_file = \"{}\"\n", password_file.display());
    let ca = format!("mail.ca_file = \"{}\"\n", smtp.ca.as_ref().expect("an authority").display());
    let ask = async |site: &Site| site.nobody().post("/auth/password/forgot", json!({"login": ADMIN})).await.done();

    let strict = Site::with(&settings).await;
    ask(&strict).await;
    until("a failure in the log", async || strict.log().contains("a mail was not delivered")).await;
    assert_eq!(smtp.mails().len(), 0);
    assert!(!strict.log().contains(ADMIN));
    let trusting = Site::with(&(settings + &ca)).await;
    ask(&trusting).await;

    let mail = smtp.next_mail_to(ADMIN).await;
    assert_eq!((mail.secure, mail.user.as_deref()), (true, Some("roster")));
}

#[tokio::test]
async fn mail_uses_implicit_tls_when_configured() {
    let smtp = Smtp::start(json!({"tls": "implicit"}));
    let ca = smtp.ca.as_ref().expect("an authority").display().to_string();
    let settings = mailing(&smtp).replace("\"none\"", "\"tls\"") + &format!("mail.ca_file = \"{ca}\"\n");
    let site = Site::with(&settings).await;

    site.nobody().post("/auth/password/forgot", json!({"login": ADMIN})).await.done();

    assert!(smtp.next_mail_to(ADMIN).await.secure);
}

#[tokio::test]
async fn a_mail_that_is_refused_is_logged_without_its_address() {
    let smtp = Smtp::start(json!({"tls": "none", "reject": [ADMIN]}));
    let site = Site::with(&mailing(&smtp)).await;

    site.nobody().post("/auth/password/forgot", json!({"login": ADMIN})).await.done();

    until("a failure in the log", async || site.log().contains("a mail was not delivered")).await;
    let log = site.log();
    assert!(log.contains("the server answered 550") && !log.contains(ADMIN), "{log}");
}

// ── links by an administrator ──

#[tokio::test]
async fn an_administrators_link_works_once_and_only_the_newest_is_valid() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;

    let first = link_for(&acme.owner(), &member.uid).await;
    let second = link_for(&acme.owner(), &member.uid).await;

    let token = second["token"].as_str().expect("a token");
    assert_eq!(second["url"], format!("{}/reset?token={token}", site.url));
    assert!(second["expires_at"].as_i64().unwrap() > roster::kernel::ids::Timestamp::now().0 + 3_590_000);
    member.caller().get("/me").await.done();
    assert_eq!(reset(&site, &first["token"], OTHER).await.is(28_501_000).word(), "invalid_link");
    reset(&site, &second["token"], OTHER).await.done();
    member.caller().get("/me").await.is(28_501_000);
    site.token(&member.username, OTHER).await;
    let audit = site.admin().get("/admin/audit?limit=200").await.body.to_string();
    assert!(audit.contains("member.password_link") && !audit.contains(token));
}

#[tokio::test]
async fn a_link_is_created_for_active_members_that_the_caller_may_change() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let manager = acme.member_with_role("tenant_admin").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let member = acme.member().await;
    let ask =
        async |caller: &As<'_>, uid: &str| caller.post(&format!("/admin/members/{uid}/password-link"), json!({})).await;

    assert_eq!(ask(&bolt.owner(), &member.uid).await.is(29_301_000).word(), "member_not_found");
    assert_eq!(ask(&manager.caller(), &owner.uid).await.is(29_505_000).word(), "not_held");
    ask(&manager.caller(), &member.uid).await.done();
    ask(&member.caller(), &member.uid).await.is(29_505_000);
    site.admin().post(&format!("/admin/members/{}/deactivate", member.uid), json!({})).await.done();
    assert_eq!(ask(&acme.owner(), &member.uid).await.is(29_309_000).word(), "member_not_active");
    site.admin().delete(&format!("/admin/members/{}", member.uid)).await.done();
    assert_eq!(ask(&site.admin(), &member.uid).await.is(29_309_000).word(), "member_deleted");
}

#[tokio::test]
async fn the_secret_of_a_link_is_shown_once() {
    let site = Site::start().await;
    let member = site.member().await;
    let caller = site.admin().with("idempotency-key", "once");
    let at = format!("/admin/members/{}/password-link", member.uid);

    let token = caller.post(&at, json!({})).await.data()["token"].clone();

    assert_eq!(caller.post(&at, json!({})).await.is(32_309_000).word(), "secret_not_kept");
    reset(&site, &token, OTHER).await.done();
}

#[tokio::test]
async fn a_link_ends_by_expiry_suspension_and_a_changed_e_mail() {
    let site = Site::with("auth.reset_link_ttl_s = 1").await;
    let member = site.member().await;
    let token = link_for(&site.admin(), &member.uid).await["token"].clone();
    let page = format!("/reset?token={}", token.as_str().unwrap());
    until("the link ends", async || site.nobody().get(&page).await.status == 401).await;
    assert_eq!(reset(&site, &token, OTHER).await.is(28_501_000).word(), "invalid_link");
    drop(site);

    let site = Site::start().await;
    for body in [json!({"is_active": false}), json!({"email": "new@example.org"}), json!({"password": OTHER})] {
        let member = site.member().await;
        let token = link_for(&site.admin(), &member.uid).await["token"].clone();
        site.admin().patch(&format!("/admin/members/{}", member.uid), body.clone()).await.done();
        assert_eq!(reset(&site, &token, "Third-horse-9").await.is(28_501_000).word(), "invalid_link", "{body}");
    }
    for token in [json!("pr_"), json!("%"), json!("x".repeat(128))] {
        assert_eq!(reset(&site, &token, OTHER).await.is(28_501_000).word(), "invalid_link");
    }
    assert_eq!(reset(&site, &json!("x".repeat(129)), OTHER).await.is(10_101_000).fields(), ["body.token"]);
}

#[tokio::test]
async fn the_command_line_creates_a_link_with_the_server_running_or_stopped() {
    let mut site = Site::start().await;
    let (uid, username) = {
        let member = site.member().await;
        (member.uid, member.username)
    };

    let stopped = site.command_while_stopped(&["member", "password-link", &uid]);
    let running = site.command(&["member", "password-link", &uid]);

    reset(&site, &stopped["token"], OTHER).await.is(28_501_000);
    assert!(running["url"].as_str().unwrap().starts_with(&format!("{}/reset?token=", site.url)));
    reset(&site, &running["token"], OTHER).await.done();
    site.token(&username, OTHER).await;
}

// ── the page ──

async fn submit(site: &Site, token: &str, password: &str, again: &str, from: &str) -> (u16, String) {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let body = format!("token={}&password={}&again={}", escape(token), escape(password), escape(again));
    let request = site.http.post(format!("{}/reset", site.url)).header("sec-fetch-site", from);
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("text"))
}

#[tokio::test]
async fn the_page_of_a_link_sets_the_password() {
    let site = Site::start().await;
    let member = site.member().await;
    let link = link_for(&site.admin(), &member.uid).await;
    let token = link["token"].as_str().unwrap();

    let shown = site.nobody().get(&format!("/reset?token={token}")).await;

    assert_eq!(shown.status, 200);
    let text = shown.body.as_str().unwrap();
    assert!(text.contains("<form method=\"post\" action=\"/reset\">") && !text.contains(&member.username));
    assert_eq!(
        (shown.header("referrer-policy"), shown.header("cache-control")),
        (Some("no-referrer"), Some("no-store"))
    );
    assert!(shown.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    for (password, again, faults) in [("weak", "weak", 3), ("Password1", "Password1", 1), (OTHER, "Another-horse-9", 1)]
    {
        let (status, text) = submit(&site, token, password, again, "same-origin").await;
        assert_eq!((status, text.matches("class=\"fault\"").count()), (400, faults), "{password}");
    }
    assert_eq!(submit(&site, token, OTHER, OTHER, "cross-site").await.0, 403);

    let (status, text) = submit(&site, token, OTHER, OTHER, "same-origin").await;

    assert_eq!(status, 200);
    assert!(text.contains("<h1>Done</h1>"), "{text}");
    site.token(&member.username, OTHER).await;
    assert_eq!(submit(&site, token, OTHER, OTHER, "same-origin").await.0, 401);
    for path in ["/reset", "/reset?token=", "/reset?token=%22%3E%3Cscript%3E", &format!("/reset?token={token}")] {
        let refused = site.nobody().get(path).await;
        assert_eq!(refused.status, 401);
        assert!(!refused.body.as_str().unwrap().contains("<form"));
    }
    assert!(!site.log().contains(token));
}

// ── login throttling ──

#[tokio::test]
async fn ten_wrong_passwords_throttle_a_login_whether_it_exists_or_not() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut answers = Vec::new();

    for name in [member.username.as_str(), "nobody@example.org"] {
        for _ in 0..10 {
            assert_eq!(login(&site.nobody(), name, OTHER).await.is(28_501_000).word(), "invalid_login");
        }
        // The right password is refused too; otherwise the response would reveal it.
        let refused = login(&site.nobody(), name, PASSWORD).await;
        assert_eq!(refused.is(28_604_000).word(), "too_many_failures");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((880..=900).contains(&wait), "{wait}");
        answers.push(lasting(&refused));
    }
    assert_eq!(answers[0], answers[1]);
    member.caller().get("/me").await.done();
}

#[tokio::test]
async fn below_a_public_path_the_link_and_its_form_use_this_path() {
    let site = Site::with("public_url = \"https://home.example.org/id\"").await;
    let link = link_for(&site.admin(), &site.member().await.uid).await;
    let token = link["token"].as_str().expect("a token");

    let page = site.nobody().get(&format!("/reset?token={token}")).await;

    assert_eq!(link["url"], format!("https://home.example.org/id/reset?token={token}"));
    assert!(page.body.as_str().expect("a page").contains("<form method=\"post\" action=\"/id/reset\">"));
}

#[tokio::test]
async fn all_names_of_an_account_share_one_throttle() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "password": PASSWORD});
    site.admin().post("/admin/members", body).await.done();

    for name in ["kim", "kim@example.org", "KIM", "Kim@Example.org", " kim "].into_iter().cycle().take(10) {
        assert_eq!(login(&site.nobody(), name, OTHER).await.is(28_501_000).word(), "invalid_login", "{name}");
    }

    for name in ["kim", "kim@example.org"] {
        assert_eq!(login(&site.nobody(), name, PASSWORD).await.is(28_604_000).word(), "too_many_failures", "{name}");
    }
}

#[tokio::test]
async fn an_access_token_alone_cannot_reset_its_own_password() {
    let site = Site::start().await;
    let own = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();

    let set = site.admin().patch(&format!("/admin/members/{own}"), json!({"password": "Stolen-parrot-4"})).await;
    let link = site.admin().post(&format!("/admin/members/{own}/password-link"), json!({})).await;

    assert_eq!((set.is(29_505_000).word(), link.is(29_505_000).word()), ("forbidden", "forbidden"));
    login(&site.nobody(), ADMIN, PASSWORD).await.done();
}

#[tokio::test]
async fn a_sign_in_with_the_former_password_gets_no_lasting_session() {
    // Slow hashes, so that the change happens during the sign-ins.
    let site = Site::start().await;
    let member = site.member().await;
    for round in 0..5 {
        let (old, new) = (format!("Racing-parrot-{round}"), format!("Winning-parrot-{round}"));
        let path = format!("/admin/members/{}", member.uid);
        site.admin().patch(&path, json!({"password": old})).await.done();
        let logins = (0..6).map(|_| async { login(&site.nobody(), &member.username, &old).await });
        let change = async { site.admin().patch(&path, json!({"password": new})).await.done() };
        let (replies, ()) = tokio::join!(futures_util::future::join_all(logins), change);
        // A session from before the change is ended, and none is opened after it.
        for reply in replies.iter().filter(|reply| reply.status == 200) {
            let token = reply.data()["access_token"].as_str().expect("a token").to_owned();
            assert_eq!(site.bearer(&token).get("/me").await.word(), "invalid_bearer_token", "round {round}");
        }
    }
}

#[tokio::test]
async fn fifty_wrong_passwords_throttle_an_address_for_all_accounts() {
    let site = Site::start().await;

    for n in 0..50 {
        let reply = login(&site.nobody(), &format!("nobody{n}"), OTHER).await;
        assert_eq!(reply.is(28_501_000).word(), "invalid_login", "{n}");
    }

    assert_eq!(login(&site.nobody(), ADMIN, PASSWORD).await.is(28_604_000).word(), "too_many_failures");
}

#[tokio::test]
async fn a_member_signs_in_from_another_address_while_somebody_guesses() {
    let site = Site::with("trusted_proxies = [\"127.0.0.1/32\"]").await;
    let member = site.member().await;
    let from = |address: &str| site.nobody().with("x-forwarded-for", address);
    for _ in 0..10 {
        login(&from("203.0.113.7"), &member.username, OTHER).await.is(28_501_000);
    }

    login(&from("203.0.113.7"), &member.username, PASSWORD).await.is(28_604_000);

    // An unknown address has a few attempts; the address of the member's session has all of them.
    login(&from("198.51.100.1"), &member.username, PASSWORD).await.done();
    for _ in 0..3 {
        login(&from("198.51.100.2"), &member.username, OTHER).await.is(28_501_000);
    }
    login(&from("198.51.100.2"), &member.username, PASSWORD).await.is(28_604_000);
    for _ in 0..5 {
        login(&from("198.51.100.1"), &member.username, OTHER).await.is(28_501_000);
    }
    login(&from("198.51.100.1"), &member.username, PASSWORD).await.done();
}

#[tokio::test]
async fn a_throttled_caller_may_try_again_after_the_wait() {
    let site = Site::with("auth.slow_window_s = 1\nauth.slow_account_failures = 1").await;
    let member = site.member().await;
    let mut slowed = 0;

    for _ in 0..3 {
        login(&site.nobody(), &member.username, OTHER).await;
        let refused = login(&site.nobody(), &member.username, PASSWORD).await;
        slowed += u32::from(refused.status == 429);
        until("the wait ends", async || login(&site.nobody(), &member.username, PASSWORD).await.status == 200).await;
    }

    assert!(slowed > 0);
}
