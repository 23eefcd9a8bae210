//! Sign-in and access tokens: which tokens are accepted, and everything that only resembles one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roster::kernel::authn::token::{StoredKey, new_key};
use roster::kernel::encryption::{Encryption, SecretLocation};
use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};

use crate::harness::site::{ADMIN, PASSWORD, Site};

fn login(login: &str, password: &str) -> Value {
    json!({"login": login, "password": password})
}

/// The key with which the site signs.
fn signing_key(site: &Site) -> StoredKey {
    let sql = "select id, private_key, public_key, created_at from signing_keys order by created_at desc";
    let key = |row: &rusqlite::Row<'_>| {
        Ok(StoredKey {
            id: row.get(0)?,
            private_key: row.get(1)?,
            public_key: row.get(2)?,
            created_at: Timestamp(row.get(3)?),
        })
    };
    let mut key = site.rows().query_row(sql, [], key).expect("a key");
    let encryption = Encryption::open(&site.path().join("encryption.key")).expect("its key");
    key.private_key = encryption.decrypt(SecretLocation::signing_key(&key.id), &key.private_key).expect("decrypted");
    key
}

fn header(key: &StoredKey) -> Header {
    Header { typ: Some("at+jwt".into()), kid: Some(key.id.clone()), ..Header::new(Algorithm::EdDSA) }
}

fn signed(header: &Header, claims: &Value, key: &StoredKey) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_ed_der(&key.private_key)).expect("a token")
}

/// The claims of a token, read without verification.
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("claims");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

async fn is_refused(site: &Site, token: &str, why: &str) {
    let reply = site.bearer(token).get("/me").await;
    assert_eq!(reply.is(28_501_000).word(), "invalid_bearer_token", "{why}");
}

// ── signing in ──

#[tokio::test]
async fn a_sign_in_with_a_password_returns_an_access_token() {
    let site = Site::start().await;

    let reply = site.nobody().post("/auth/login", login(ADMIN, PASSWORD)).await;

    let token = reply.data();
    assert_eq!((&token["token_type"], &token["expires_in"]), (&json!("Bearer"), &json!(600)));
    let claims = claims(token["access_token"].as_str().unwrap());
    let names: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "sid", "sub"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
}

#[tokio::test]
async fn an_unknown_login_a_wrong_password_and_a_suspended_member_answer_alike() {
    let site = Site::start().await;
    let (active, suspended) = (site.member().await, site.member().await);
    site.admin().post(&format!("/admin/members/{}/deactivate", suspended.uid), json!({})).await.done();
    let erased = site.member().await;
    site.admin().delete(&format!("/admin/members/{}", erased.uid)).await.done();
    site.admin().post("/admin/members", json!({"username": "no-password"})).await.done();

    let first = site.nobody().post("/auth/login", login("nobody@example.org", PASSWORD)).await;

    assert_eq!(first.is(28_501_000).word(), "invalid_login");
    for (name, password) in [
        (active.username.as_str(), "Wrong-horse-7"),
        (&active.username, &PASSWORD.to_lowercase()),
        (&active.username, &format!("{PASSWORD} ")),
        (&suspended.username, PASSWORD),
        (&erased.username, PASSWORD),
        ("no-password", PASSWORD),
        ("%", PASSWORD),
        (&active.username, &"x".repeat(1_024)),
    ] {
        let reply = site.nobody().post("/auth/login", login(name, password)).await;
        assert_eq!((reply.status, reply.lasting()), (401, first.lasting()), "{name}");
    }
}

#[tokio::test]
async fn a_login_is_case_insensitive() {
    let site = Site::start().await;
    let body = json!({"username": "Kim", "email": "Kim@example.org", "password": PASSWORD});
    site.admin().post("/admin/members", body).await.done();

    for name in ["kim", "KIM", "kim@example.org", "KIM@EXAMPLE.ORG"] {
        site.token(name, PASSWORD).await;
    }
}

#[tokio::test]
async fn all_bad_fields_of_a_login_are_reported_together() {
    let site = Site::start().await;

    let missing = site.nobody().post("/auth/login", json!({"user": "kim"})).await;
    let bad = site.nobody().post("/auth/login", json!({"login": "", "password": 7, "cookies": "x"})).await;

    assert_eq!(missing.is(10_101_000).fields(), ["body.login", "body.password", "body.user"]);
    assert_eq!(bad.is(10_101_000).fields()[1..], ["body.login", "body.password"]);
}

#[tokio::test]
async fn a_login_holds_at_its_limits_and_not_one_past_them() {
    let site = Site::start().await;

    for (name, password, fields) in [
        ("k".repeat(254), "x".repeat(1_024), vec![]),
        ("k".repeat(255), "x".repeat(1_024), vec!["body.login"]),
        ("k".repeat(254), "x".repeat(1_025), vec!["body.password"]),
    ] {
        let reply = site.nobody().post("/auth/login", login(&name, &password)).await;
        match fields.is_empty() {
            true => assert_eq!(reply.is(28_501_000).word(), "invalid_login"),
            false => assert_eq!(reply.is(10_101_000).fields(), fields),
        }
    }
}

#[tokio::test]
async fn the_longest_password_is_accepted_and_its_prefix_is_not() {
    let site = Site::start().await;
    let longest = format!("A1{}", "x".repeat(254));
    site.admin().post("/admin/members", json!({"username": "kim", "password": longest})).await.done();

    site.token("kim", &longest).await;

    for wrong in [&longest[..255], &format!("{longest}x")] {
        assert_eq!(site.nobody().post("/auth/login", login("kim", wrong)).await.word(), "invalid_login");
    }
}

#[tokio::test]
async fn neither_passwords_nor_tokens_reach_the_log_or_the_rows() {
    let site = Site::with("log.level = \"trace\"\ndebug = true").await;
    let secret = "Unheard-of-horse-9";
    site.admin().post("/admin/members", json!({"username": "kim", "password": secret})).await.done();
    let token = site.token("kim", secret).await;
    site.bearer(&token).patch("/me", json!({"display_name": "Kim"})).await.done();
    site.nobody().post("/auth/login", login("kim", "Unheard-of-horse-8")).await.is(28_501_000);
    site.bearer("Unheard-of-horse-7").get("/me").await.is(28_501_000);

    let files: Vec<Vec<u8>> =
        ["log", "roster.db", "roster.db-wal"].map(|file| std::fs::read(site.path().join(file)).unwrap()).into();
    let signature = token.rsplit('.').next().unwrap();
    for secret in ["Unheard-of-horse", signature, PASSWORD] {
        assert!(!files.iter().any(|bytes| bytes.windows(secret.len()).any(|w| w == secret.as_bytes())), "{secret}");
    }
}

// ── invalid tokens ──

#[tokio::test]
async fn without_a_token_a_member_is_asked_for_one() {
    let site = Site::start().await;

    let reply = site.nobody().get("/me").await;

    assert_eq!(
        (reply.is(28_501_000).word(), reply.header("www-authenticate")),
        ("missing_bearer_token", Some("Bearer"))
    );
}

#[tokio::test]
async fn malformed_tokens_are_refused() {
    let site = Site::start().await;
    let token = site.admin_token.clone();

    for (garbage, why) in [
        ("", "empty"),
        ("x", "a letter"),
        ("..", "three empty parts"),
        (&"a".repeat(4_096), "as long as is looked at"),
        (&"a".repeat(4_097), "longer than is looked at"),
        (&format!("{token}.x"), "four parts"),
        (&format!("{token}="), "padded"),
        (&token.to_lowercase(), "another case"),
        (&token.replacen('.', "..", 1), "a part too many"),
    ] {
        is_refused(&site, garbage, why).await;
    }
    for scheme in ["Basic", "Token", "Bearer,"] {
        let reply = site.nobody().with("authorization", &format!("{scheme} {token}")).get("/me").await;
        assert_eq!(reply.is(28_501_000).word(), "invalid_bearer_token", "{scheme}");
    }
    site.nobody().with("authorization", &format!("bearer {token}")).get("/me").await.done();
}

#[tokio::test]
async fn a_truncated_token_is_refused_wherever_it_was_cut() {
    let site = Site::start().await;
    let token = site.admin_token.clone();
    let parts: Vec<&str> = token.split('.').collect();

    for cut in [1, parts[0].len(), parts[0].len() + 1, token.len() / 2, token.len() - parts[2].len(), token.len() - 1] {
        is_refused(&site, &token[..cut], &format!("cut after {cut}")).await;
    }
    is_refused(&site, &format!("{}.{}.", parts[0], parts[1]), "without its signature").await;
}

#[tokio::test]
async fn a_token_chooses_neither_its_algorithm_nor_its_key() {
    let site = Site::start().await;
    let (ours, claims) = (signing_key(&site), claims(&site.admin_token));
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let theirs = StoredKey { id: ours.id.clone(), ..new_key().unwrap() };
    let unknown = new_key().unwrap();

    for alg in ["none", "None", "NONE", "", "HS256", "EdDSA"] {
        let head = encoded(&json!({"typ": "at+jwt", "alg": alg, "kid": ours.id}));
        is_refused(&site, &format!("{head}.{}.", encoded(&claims)), alg).await;
    }
    // The public key is public: a verifier that used it as a shared secret would accept this token.
    let shared = Header { typ: Some("at+jwt".into()), kid: Some(ours.id.clone()), ..Header::new(Algorithm::HS256) };
    let confused = jsonwebtoken::encode(&shared, &claims, &EncodingKey::from_secret(&ours.public_key)).unwrap();
    is_refused(&site, &confused, "the public key as a shared secret").await;
    is_refused(&site, &signed(&header(&theirs), &claims, &theirs), "another key under our id").await;
    is_refused(&site, &signed(&header(&unknown), &claims, &unknown), "another key under its own id").await;
    is_refused(&site, &signed(&Header { kid: None, ..header(&ours) }, &claims, &ours), "no key id").await;
    site.bearer(&signed(&header(&ours), &claims, &ours)).get("/me").await.done();
}

#[tokio::test]
async fn every_claim_of_a_token_is_checked() {
    let site = Site::start().await;
    let (key, ours) = (signing_key(&site), claims(&site.admin_token));
    let now = Timestamp::now().0 / 1_000;
    for (name, value) in [
        ("iss", json!("https://elsewhere.example.org")),
        ("iss", json!(null)),
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", json!(null)),
        ("sub", json!("019abcde-0000-7000-8000-00000000dead")),
        ("sub", json!("")),
        ("sub", json!(ours["sub"].as_str().unwrap().to_uppercase())),
        ("exp", json!(now - 1)),
        ("exp", json!(null)),
        ("exp", json!("never")),
        ("iat", json!(now + 60)),
        ("nbf", json!(now + 60)),
        ("sid", json!("019abcde-0000-7000-8000-00000000dead")),
        ("sid", json!("")),
    ] {
        let mut claims = ours.clone();
        claims[name] = value.clone();
        is_refused(&site, &signed(&header(&key), &claims, &key), &format!("{name} {value}")).await;
    }
    for name in ["iss", "aud", "sub", "exp", "iat", "sid"] {
        let mut claims = ours.clone();
        claims.as_object_mut().unwrap().remove(name);
        is_refused(&site, &signed(&header(&key), &claims, &key), &format!("no {name}")).await;
    }
}

#[tokio::test]
async fn only_an_access_token_is_accepted_as_one() {
    let site = Site::start().await;
    let (key, claims) = (signing_key(&site), claims(&site.admin_token));

    for typ in [None, Some("JWT"), Some("refresh"), Some("")] {
        let header = Header { typ: typ.map(str::to_owned), ..header(&key) };
        is_refused(&site, &signed(&header, &claims, &key), typ.unwrap_or("no type")).await;
    }
}

#[tokio::test]
async fn a_token_expires_without_leeway() {
    let site = Site::with("auth.access_token_ttl_s = 1").await;
    let mut token = String::new();
    // The second may end before the first use, because expiry has a resolution of one second.
    for _ in 0..50 {
        let answer = site.nobody().post("/auth/login", login(ADMIN, PASSWORD)).await.data();
        assert_eq!(answer["expires_in"], 1);
        token = answer["access_token"].as_str().unwrap().to_owned();
        if site.bearer(&token).get("/me").await.status == 200 {
            break;
        }
    }

    let end = claims(&token)["exp"].as_i64().unwrap() * 1_000;
    assert!(end - Timestamp::now().0 <= 1_000);
    while Timestamp::now().0 < end {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    is_refused(&site, &token, "expired").await;
}

#[tokio::test]
async fn a_token_outlives_a_restart_and_a_wrong_one_stays_wrong() {
    let mut site = Site::start().await;
    let member = site.member().await.token;

    site.restart().await;

    // The issuer is the public URL, or else the configured listening address, independent of the port in use.
    site.bearer(&member).get("/me").await.done();
    is_refused(&site, &member[1..], "cut").await;
}

// ── revocation ──

#[tokio::test]
async fn a_suspended_members_token_is_refused_on_the_next_request() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let at = format!("/admin/members/{}", member.uid);
    member.caller().get("/admin/members").await.done();

    site.admin().post(&format!("{at}/deactivate"), json!({})).await.done();

    for path in ["/me", "/admin/members", "/me/permissions/snapshot", "/api/v1/permissions/me"] {
        let reply = member.caller().get(path).await;
        assert_eq!((reply.status, reply.word()), (401, "invalid_bearer_token"), "{path}");
    }
    site.admin().post(&format!("{at}/activate"), json!({})).await.done();
    is_refused(&site, &member.token, "issued before the suspension").await;
    site.bearer(&site.token(&member.username, PASSWORD).await).get("/me").await.done();
}

#[tokio::test]
async fn a_new_password_ends_every_token_and_the_former_password() {
    let site = Site::start().await;
    let member = site.member().await;
    let second = site.token(&member.username, PASSWORD).await;

    let body = json!({"password": "Another-horse-8"});
    site.admin().patch(&format!("/admin/members/{}", member.uid), body).await.done();

    is_refused(&site, &member.token, "issued before").await;
    is_refused(&site, &second, "issued before").await;
    let former = site.nobody().post("/auth/login", login(&member.username, PASSWORD)).await;
    assert_eq!(former.is(28_501_000).word(), "invalid_login");
    let third = site.token(&member.username, "Another-horse-8").await;
    site.bearer(&third).get("/me").await.done();
}

#[tokio::test]
async fn an_erased_members_token_is_refused_on_the_next_request() {
    let site = Site::start().await;
    let member = site.member().await;

    site.admin().delete(&format!("/admin/members/{}", member.uid)).await.done();

    is_refused(&site, &member.token, "erased").await;
}

#[tokio::test]
async fn renaming_a_member_ends_no_session() {
    let site = Site::start().await;
    let member = site.member().await;

    site.admin().patch(&format!("/admin/members/{}", member.uid), json!({"username": "kim"})).await.done();

    assert_eq!(member.caller().get("/me").await.data()["username"], "kim");
    let former = site.nobody().post("/auth/login", login(&member.username, PASSWORD)).await;
    assert_eq!(former.is(28_501_000).word(), "invalid_login");
}

#[tokio::test]
async fn a_token_carries_identity_and_no_rights() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    assert_eq!(member.caller().get("/admin/members").await.is(29_505_000).word(), "forbidden");

    acme.assign(&member.uid, &acme.role_id("viewer").await).await;

    member.caller().get("/admin/members").await.done();
}
