//! A provider that misbehaves in every way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roster::kernel::authn::token::{StoredKey, new_key};
use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{AUDIENCE, BINDING, REDIRECT, authorize_url, block, me, people, returned, roles};
use crate::harness::callers::Reply;
use crate::harness::counterparts::{CLIENT_SECRET, query};
use crate::harness::site::Site;
use crate::harness::wasm_fixtures;
use crate::permissions::mappers::enforce;

#[derive(Clone)]
pub enum Behaviour {
    Json(Value),
    Raw(u16, &'static str, Vec<u8>),
    /// Accepts the request and never answers.
    Silence,
}

/// A provider that answers as configured, path by path.
pub struct Rogue {
    pub issuer: String,
    pub key: StoredKey,
    pub answers: Arc<Mutex<HashMap<String, Behaviour>>>,
}

impl Rogue {
    /// Starts as a correct provider with an EdDSA key.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = format!("http://{}", listener.local_addr().expect("an address"));
        let answers: Arc<Mutex<HashMap<String, Behaviour>>> = Arc::default();
        let shared = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        let rogue = Self { issuer, key: new_key().expect("a key"), answers };
        rogue.set("/.well-known/openid-configuration", Behaviour::Json(rogue.document()));
        rogue.set("/jwks", Behaviour::Json(json!({"keys": [rogue.jwk(&rogue.key)]})));
        rogue
    }

    pub fn set(&self, path: &str, behaviour: Behaviour) {
        self.answers.lock().expect("lock").insert(path.to_owned(), behaviour);
    }

    pub fn document(&self) -> Value {
        let at = |path: &str| format!("{}/{path}", self.issuer);
        json!({
            "issuer": self.issuer, "authorization_endpoint": at("auth"), "token_endpoint": at("token"),
            "jwks_uri": at("jwks"), "userinfo_endpoint": at("me"), "response_types_supported": ["code"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
        })
    }

    pub fn jwk(&self, key: &StoredKey) -> Value {
        let x = URL_SAFE_NO_PAD.encode(&key.public_key);
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x})
    }

    pub fn claims(&self, nonce: &str) -> Value {
        let now_s = Timestamp::now().0 / 1_000;
        json!({"iss": self.issuer, "aud": "roster", "sub": "eve", "iat": now_s, "exp": now_s + 60, "nonce": nonce})
    }

    pub fn signed(&self, key: &StoredKey, claims: &Value) -> String {
        let header = Header { kid: Some(self.key.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&key.private_key)).expect("a token")
    }

    /// Sets the next response of the token endpoint.
    pub fn give(&self, id_token: &str) {
        let answer = json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": id_token});
        self.set("/token", Behaviour::Json(answer));
    }

    pub async fn site(&self, settings: &str, more: &str) -> Site {
        let relaxed = "neighbours.timeout_ms = 1000\nneighbours.failures = 1000\nneighbours.answer_bytes = 65536";
        Site::with(&format!("{relaxed}\n{settings}\n{}", block("lab", &self.issuer, more))).await
    }
}

async fn serve(mut stream: tokio::net::TcpStream, answers: Arc<Mutex<HashMap<String, Behaviour>>>) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let path = loop {
        let Ok(read @ 1..) = stream.read(&mut piece).await else { return };
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break head.split(' ').nth(1).expect("a path").to_owned();
        }
    };
    let behaviour = answers.lock().expect("lock").get(&path).cloned();
    let (status, kind, body) = match behaviour {
        Some(Behaviour::Json(value)) => (200, "application/json", value.to_string().into_bytes()),
        Some(Behaviour::Raw(status, kind, body)) => (status, kind, body),
        Some(Behaviour::Silence) => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            return;
        }
        None => (404, "text/plain", b"not found".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}

/// Far shorter than the provider's silence and than several consecutive timeouts.
const WAIT_MAX: Duration = Duration::from_secs(10);

fn html() -> Behaviour {
    Behaviour::Raw(200, "text/html", b"<html>Maintenance</html>".to_vec())
}

/// Begins a sign-in, makes `id_token` for its nonce, and completes it.
pub async fn exchanged(rogue: &Rogue, site: &Site, id_token: impl FnOnce(&str) -> String) -> Reply {
    let url = authorize_url(&site.nobody(), "lab").await;
    let (nonce, state) = (query(&url, "nonce").expect("a nonce"), query(&url, "state").expect("a state"));
    rogue.give(&id_token(&nonce));
    site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await
}

#[tokio::test]
async fn an_id_token_is_accepted_only_when_every_part_is_valid() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    let before = people(&site);
    let other = new_key().expect("a key");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let by_secret = |secret: &[u8], claims: &Value| {
        let header = Header { kid: Some(rogue.key.id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).expect("a token")
    };
    let now_s = Timestamp::now().0 / 1_000;

    let changes: [(&str, Value); 13] = [
        ("iss", json!(format!("{}/", rogue.issuer))),
        ("iss", json!("https://id.example.org")),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("aud", json!(["roster", "another"])),
        ("azp", json!("another")),
        ("nonce", json!("another")),
        ("nonce", Value::Null),
        ("exp", json!(now_s - 1)),
        ("nbf", json!(now_s + 40)),
        ("sub", json!("")),
        ("sub", json!("x".repeat(256))),
        ("sub", json!("a\nb")),
    ];
    for (name, value) in changes {
        let reply = exchanged(&rogue, &site, |nonce| {
            let mut claims = rogue.claims(nonce);
            claims[name] = value.clone();
            rogue.signed(&rogue.key, &claims)
        })
        .await;
        assert_eq!(reply.is(28_501_000).word(), "oidc_refused", "{name} {value}");
    }
    type Forger<'f> = Box<dyn Fn(&str) -> String + 'f>;
    let forged: [(&str, Forger<'_>); 4] = [
        ("another key", Box::new(|nonce| rogue.signed(&other, &rogue.claims(nonce)))),
        ("alg none", Box::new(|nonce| format!("{}.{}.", part(&json!({"alg": "none"})), part(&rogue.claims(nonce))))),
        ("HS256 by the public key", Box::new(|nonce| by_secret(&rogue.key.public_key, &rogue.claims(nonce)))),
        ("HS256 by the client's secret", Box::new(|nonce| by_secret(CLIENT_SECRET.as_bytes(), &rogue.claims(nonce)))),
    ];
    for (what, token) in forged {
        let reply = exchanged(&rogue, &site, token).await;
        assert_eq!(reply.is(28_501_000).word(), "oidc_refused", "{what}");
    }
    assert_eq!(people(&site), before);

    for (name, value) in [("azp", json!("roster")), ("nbf", json!(now_s - 5)), ("sub", json!("x".repeat(255)))] {
        let reply = exchanged(&rogue, &site, |nonce| {
            let mut claims = rogue.claims(nonce);
            claims["aud"] = if name == "azp" { json!(["roster", "another"]) } else { json!("roster") };
            claims[name] = value;
            rogue.signed(&rogue.key, &claims)
        })
        .await;
        reply.done();
    }
}

#[tokio::test]
async fn a_provider_that_misbehaves_before_a_sign_in_causes_a_clear_error_within_the_timeout() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    let before = people(&site);
    let path = "/.well-known/openid-configuration";
    let changed = |name: &str, value: Value| {
        let mut document = rogue.document();
        document[name] = value;
        Behaviour::Json(document)
    };
    let huge = Behaviour::Raw(200, "application/json", vec![b' '; 65_537]);
    let wrong = [
        (path, Behaviour::Silence),
        (path, html()),
        (path, huge.clone()),
        (path, Behaviour::Raw(500, "application/json", b"{}".to_vec())),
        (path, Behaviour::Raw(302, "text/plain", Vec::new())),
        (path, Behaviour::Raw(200, "application/json", b"{".to_vec())),
        (path, changed("issuer", json!("https://id.example.org"))),
        (path, changed("issuer", json!(format!("{}/", rogue.issuer)))),
        (path, changed("token_endpoint", Value::Null)),
        (path, changed("token_endpoint", json!("http://evil.example/token"))),
        (path, changed("jwks_uri", json!("http://evil.example/jwks"))),
        (path, changed("userinfo_endpoint", json!("ftp://127.0.0.1/me"))),
        (path, changed("authorization_endpoint", json!("javascript:alert(1)"))),
        ("/jwks", Behaviour::Silence),
        ("/jwks", html()),
        ("/jwks", huge),
    ];
    for (n, (path, behaviour)) in wrong.into_iter().enumerate() {
        let good = rogue.answers.lock().expect("lock").get(path).cloned().expect("an answer");
        rogue.set(path, behaviour);
        let began = Instant::now();
        let reply = site.nobody().get(&format!("/auth/oidc/url?redirect_uri={REDIRECT}&binding={BINDING}")).await;
        assert_eq!(reply.is(28_602_000).word(), "neighbour_failed", "{n}");
        assert!(began.elapsed() < WAIT_MAX, "{n}");
        rogue.set(path, good);
    }
    assert_eq!(people(&site), before);
    authorize_url(&site.nobody(), "lab").await;
}

#[tokio::test]
async fn a_provider_that_misbehaves_during_a_sign_in_causes_a_clear_error_and_creates_no_member() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "").await;
    let before = people(&site);
    let refusal = |word: &str| Behaviour::Raw(400, "application/json", json!({"error": word}).to_string().into_bytes());
    for (behaviour, code, word) in [
        (Behaviour::Silence, 28_602_000, "neighbour_failed"),
        (html(), 28_602_000, "neighbour_failed"),
        (Behaviour::Raw(200, "application/json", vec![b' '; 65_537]), 28_602_000, "neighbour_failed"),
        (
            Behaviour::Raw(503, "application/json", b"{\"error\":\"invalid_grant\"}".to_vec()),
            28_602_000,
            "neighbour_failed",
        ),
        (Behaviour::Raw(400, "text/html", b"<html>".to_vec()), 28_602_000, "neighbour_failed"),
        (Behaviour::Json(json!({"access_token": "x", "token_type": "Bearer"})), 28_602_000, "neighbour_failed"),
        (
            Behaviour::Json(json!({"access_token": "x", "token_type": "Bearer", "id_token": "x.y.z"})),
            28_602_000,
            "neighbour_failed",
        ),
        (refusal("invalid_client"), 28_602_000, "neighbour_failed"),
        (refusal("invalid_grant"), 28_501_000, "oidc_refused"),
    ] {
        let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");
        rogue.set("/token", behaviour);
        let began = Instant::now();
        let reply = site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await;
        assert_eq!(reply.is(code).word(), word);
        assert!(began.elapsed() < WAIT_MAX);
        assert!(!site.log().contains(CLIENT_SECRET));
    }
    assert_eq!(people(&site), before);
}

#[tokio::test]
async fn roles_stay_when_userinfo_cannot_be_read_and_userinfo_of_another_subject_is_ignored() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "organization = \"acme\"\nrole_claims = [\"groups\"]").await;
    let acme = site.organization("acme").await;
    acme.role("staffer", &[]).await;
    acme.map("oidc", "staff", "staffer").await;
    let sign_in = async || exchanged(&rogue, &site, |nonce| rogue.signed(&rogue.key, &rogue.claims(nonce))).await;

    rogue.set("/me", Behaviour::Json(json!({"sub": "eve", "groups": ["staff"], "name": "Eve"})));
    let member = me(&site, &sign_in().await.access_token()).await;
    assert_eq!(
        (&member["display_name"], roles(&acme, &member["uid"]).await),
        (&json!("Eve"), vec!["oidc:staffer".into()])
    );
    for unreadable in [
        Behaviour::Silence,
        html(),
        Behaviour::Raw(500, "application/json", b"{}".to_vec()),
        Behaviour::Raw(401, "application/json", b"{}".to_vec()),
        Behaviour::Json(json!({"sub": "adam", "groups": [], "preferred_username": "adam"})),
        Behaviour::Json(json!({"groups": []})),
    ] {
        rogue.set("/me", unreadable);
        sign_in().await.done();
        assert_eq!(roles(&acme, &member["uid"]).await, ["oidc:staffer"]);
    }
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    let last = me(&site, &sign_in().await.access_token()).await;
    assert_eq!((&last["username"], roles(&acme, &member["uid"]).await), (&Value::Null, Vec::new()));
}

#[tokio::test]
async fn a_role_mapper_is_called_only_when_all_claims_could_be_read() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", "organization = \"acme\"\nrole_claims = [\"groups\"]").await;
    let acme = site.organization("acme").await;
    acme.role("staffer", &[]).await;
    enforce(&acme, "mapper", &wasm_fixtures::naming_claim("department", 9, 0)).await;
    let claims = |nonce: &str| {
        let mut claims = rogue.claims(nonce);
        claims["groups"] = json!([]);
        rogue.signed(&rogue.key, &claims)
    };
    let sign_in = async || exchanged(&rogue, &site, claims).await;

    rogue.set("/me", Behaviour::Json(json!({"sub": "eve", "department": "staffer"})));
    let member = me(&site, &sign_in().await.access_token()).await;
    assert_eq!(roles(&acme, &member["uid"]).await, ["oidc:staffer"]);
    rogue.set("/me", html());
    sign_in().await.done();
    assert_eq!(roles(&acme, &member["uid"]).await, ["oidc:staffer"]);
    rogue.set("/me", Behaviour::Json(json!({"sub": "eve"})));
    sign_in().await.done();
    assert_eq!(roles(&acme, &member["uid"]).await, [""; 0]);
}

#[tokio::test]
async fn an_expired_state_is_refused() {
    let rogue = Rogue::start().await;
    let site = rogue.site("auth.oidc_state_ttl_s = 1", "").await;
    let state = query(&authorize_url(&site.nobody(), "lab").await, "state").expect("a state");

    tokio::time::sleep(Duration::from_millis(1_001)).await;

    let reply = site.nobody().post("/auth/oidc/exchange", returned("lab", "code", &state)).await;
    assert_eq!(reply.is(28_501_000).word(), "invalid_state");
}

#[tokio::test]
async fn a_provider_s_access_token_is_accepted_only_when_every_part_is_valid() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", &format!("audience = {AUDIENCE:?}")).await;
    let before = people(&site);
    let other = new_key().expect("a key");
    let now_s = Timestamp::now().0 / 1_000;
    let good = json!({"iss": rogue.issuer, "aud": AUDIENCE, "sub": "eve", "exp": now_s + 60, "scope": "openid"});
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        rogue.signed(&rogue.key, &claims)
    };
    let by_secret = |header: Header| {
        let header = Header { kid: Some(rogue.key.id.clone()), ..header };
        jsonwebtoken::encode(&header, &good, &EncodingKey::from_secret(&rogue.key.public_key)).expect("a token")
    };
    let none = json!({"alg": "none", "kid": rogue.key.id});
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(none.to_string()), URL_SAFE_NO_PAD.encode(good.to_string()));
    let right = rogue.signed(&rogue.key, &good);

    let mut id_token = good.clone();
    id_token.as_object_mut().expect("claims").remove("scope");
    id_token["nonce"] = json!("n");
    for (what, token) in [
        ("cut", right[..right.len() - 4].to_owned()),
        ("garbage", "x.y.z".to_owned()),
        ("expired", changed("exp", json!(now_s - 31))),
        ("without an end", changed("exp", Value::Null)),
        ("not yet valid", changed("nbf", json!(now_s + 40))),
        ("another issuer", changed("iss", json!("https://id.example.org"))),
        ("another audience", changed("aud", json!("roster"))),
        ("no audience", changed("aud", Value::Null)),
        ("no subject", changed("sub", Value::Null)),
        ("an endless subject", changed("sub", json!("x".repeat(256)))),
        ("a program", changed("client_id", json!("eve"))),
        ("an id token", rogue.signed(&rogue.key, &id_token)),
        ("another key", rogue.signed(&other, &good)),
        ("alg none", unsigned),
        ("HS256 by the public key", by_secret(Header::new(Algorithm::HS256))),
    ] {
        assert_eq!(site.bearer(&token).get("/me").await.is(28_501_000).word(), "invalid_bearer_token", "{what}");
    }
    assert_eq!(people(&site), before);
    site.bearer(&right).get("/me").await.done();
    // Other operations accept it as its member, who has no rights there.
    assert_eq!(site.bearer(&right).get("/admin/members").await.status, 403);
}

#[tokio::test]
async fn requests_with_tokens_of_a_silent_provider_fail_within_the_timeout() {
    let rogue = Rogue::start().await;
    let site = rogue.site("", &format!("audience = {AUDIENCE:?}")).await;
    rogue.set("/.well-known/openid-configuration", Behaviour::Silence);
    let now_s = Timestamp::now().0 / 1_000;
    let claims = json!({"iss": rogue.issuer, "aud": AUDIENCE, "sub": "eve", "exp": now_s + 60});
    let bearer = site.bearer(&rogue.signed(&rogue.key, &claims));

    let began = Instant::now();
    let replies = futures_util::future::join_all((0..20).map(|_| bearer.get("/me"))).await;

    assert!(replies.iter().all(|reply| reply.word() == "neighbour_failed"));
    assert!(began.elapsed() < WAIT_MAX, "{:?}", began.elapsed());
}
