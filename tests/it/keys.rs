//! API keys of members and services: authentication, expiry, rotation, revocation.

use reqwest::Method;
use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::{Value, json};

use crate::passwords::{mailing, plain_smtp, until};
use crate::site::{As, Member, Reply, Site};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A new key: its id and its text.
struct Key {
    id: String,
    text: String,
}

fn key_of(made: &Value) -> Key {
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    Key { id: text("id"), text: text("api_key") }
}

/// A new key that the member creates for itself.
async fn own(member: &Member<'_>, body: Value) -> Key {
    key_of(&member.caller().post("/me/api-keys", body).await.data())
}

async fn plain(member: &Member<'_>) -> Key {
    own(member, json!({"name": "laptop"})).await
}

/// A new key of a service.
async fn of_service(site: &Site, scopes: &[&str]) -> Key {
    let body = json!({"service_name": "transcoder", "scopes": scopes});
    key_of(&site.admin().post("/admin/api-keys", body).await.data())
}

fn with<'s>(site: &'s Site, text: &str) -> As<'s> {
    site.nobody().with("x-api-key", text)
}

async fn me(site: &Site, text: &str) -> Reply {
    with(site, text).get("/me").await
}

async fn is_refused(site: &Site, text: &str, why: &str) {
    let reply = me(site, text).await;
    assert_eq!((reply.is(32_501_000).status, reply.word()), (401, "invalid_key"), "{why}");
}

// ── authentication ──

#[tokio::test]
async fn a_key_authenticates_its_member_as_header_and_as_bearer() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let key = plain(&member).await;

    for path in ["/me", "/me/permissions/snapshot", "/api/v1/permissions/me"] {
        for caller in [with(&site, &key.text), site.bearer(&key.text)] {
            assert_eq!(caller.get(path).await.data()["uid"], json!(member.uid), "{path}");
        }
    }
    let seen = with(&site, &key.text).get("/api/v1/permissions/me").await.data();
    assert_eq!(seen, member.caller().get("/api/v1/permissions/me").await.data());
}

#[tokio::test]
async fn the_text_of_a_key_has_five_parts_and_is_stored_nowhere() {
    let site = Site::with("log.level = \"trace\"").await;
    let member = site.member().await;
    let made = member.caller().post("/me/api-keys", json!({"name": "laptop"})).await.data();
    let key = key_of(&made);
    me(&site, &key.text).await.done();

    let parts: Vec<&str> = key.text.split('_').collect();
    assert_eq!((parts.len(), parts[0], parts[1]), (5, "muser", key.id.replace('-', "").as_str()));
    let made_s: i64 = parts[2].parse().unwrap();
    assert!((Timestamp::now().0 / 1_000 - made_s).abs() < 60);
    assert!(parts[3].len() >= 43 && parts[3].bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", parts[3]);
    let (checked, checksum) = key.text.rsplit_once('_').unwrap();
    assert_eq!(checksum, &hex(&secret::hash(checked))[..8]);
    assert_eq!((&made["type"], &made["scopes"], &made["name"]), (&json!("muser"), &json!(["*"]), &json!("laptop")));
    for file in ["log", "roster.db", "roster.db-wal"] {
        let bytes = std::fs::read(site.path().join(file)).unwrap();
        assert!(!bytes.windows(parts[3].len()).any(|window| window == parts[3].as_bytes()), "{file}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_client_key_header_makes_x_api_key_a_client_secret() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let key = plain(&member).await;
    let client = site.admin().post("/admin/api-clients", json!({"name": "office", "scopes": ["*"]})).await.data();
    let text = |name: &str| client[name].as_str().unwrap().to_owned();
    let (client_key, client_secret) = (text("client_key"), text("api_key"));
    let question = json!({"uid": member.uid, "permission": "roster.role.list"});
    let check = "/api/v1/permissions/check";

    // Together with a client key it is read as the client's secret and as nothing else.
    let both = with(&site, &key.text).with("x-client-key", &client_key);
    assert_eq!(both.post(check, question.clone()).await.word(), "invalid_api_key");
    assert_eq!(both.get("/me").await.is(28_501_000).word(), "missing_bearer_token");
    // Alone it is read as an API key, and a client's secret is not one.
    assert_eq!(with(&site, &key.text).post(check, question.clone()).await.data()["allow"], true);
    assert_eq!(with(&site, &client_secret).post(check, question.clone()).await.is(31_501_000).word(), "invalid_key");
    let right = with(&site, &client_secret).with("x-client-key", &client_key).with("x-tenant-id", "acme");
    assert_eq!(right.post(check, question).await.data()["allow"], true);
}

#[tokio::test]
async fn a_key_is_limited_to_its_scopes() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("viewer").await;
    let reads = own(&member, json!({"name": "reads", "scopes": ["me:read"]})).await;
    let checks = own(&member, json!({"name": "checks", "scopes": ["permissions:check", "videos:write"]})).await;
    let question = json!({"uid": member.uid, "permission": "roster.role.list"});

    me(&site, &reads.text).await.done();
    with(&site, &checks.text).post("/api/v1/permissions/check", question.clone()).await.done();
    for path in ["/me", "/me/permissions/snapshot"] {
        assert_eq!(with(&site, &checks.text).get(path).await.is(32_505_000).word(), "scope_not_allowed", "{path}");
    }
    let own_rights = with(&site, &checks.text).get("/api/v1/permissions/me").await;
    assert_eq!(own_rights.is(31_505_000).word(), "scope_not_allowed");
    let asked = with(&site, &reads.text).post("/api/v1/permissions/check", question).await;
    assert_eq!(asked.is(31_505_000).word(), "scope_not_allowed");
}

#[tokio::test]
async fn a_key_never_exceeds_the_rights_of_its_member() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (plain_member, viewer) = (acme.member().await, acme.member_with_role("viewer").await);
    let question = json!({"uid": viewer.uid, "permission": "roster.role.list"});
    let key = plain(&plain_member).await;

    let refused = with(&site, &key.text).post("/api/v1/permissions/check", question.clone()).await;
    assert_eq!(refused.is(31_505_000).word(), "forbidden");
    let foreign = with(&site, &plain(&viewer).await.text).with("x-tenant-id", "platform");
    assert_eq!(foreign.post("/api/v1/permissions/check", question).await.word(), "organization_not_found");
}

#[tokio::test]
async fn a_key_neither_creates_nor_lists_keys() {
    let site = Site::start().await;
    let member = site.member().await;
    let key = plain(&member).await;
    let at = format!("/me/api-keys/{}", key.id);
    let of_member = format!("/admin/members/{}/api-keys", member.uid);

    for (method, path) in [
        (Method::GET, "/me/api-keys"),
        (Method::POST, "/me/api-keys"),
        (Method::DELETE, &at),
        (Method::POST, &format!("{at}/rotate")),
        (Method::GET, &of_member),
        (Method::POST, &of_member),
        (Method::GET, "/admin/api-keys"),
        (Method::PATCH, "/me"),
        (Method::GET, "/me/sessions"),
    ] {
        let body = Some(json!({"name": "another"}));
        let bearer = site.bearer(&key.text).send(method.clone(), path, body.clone()).await;
        assert_eq!((bearer.status, bearer.word()), (403, "forbidden"), "{path}");
        let header = with(&site, &key.text).send(method, path, body).await;
        assert_eq!((header.status, header.word()), (401, "missing_bearer_token"), "{path}");
    }
    me(&site, &key.text).await.done();
}

// ── invalid keys ──

#[tokio::test]
async fn forged_and_malformed_keys_are_refused() {
    let site = Site::start().await;
    let member = site.member().await;
    let key = plain(&member).await;
    let other = plain(&member).await;
    let parts: Vec<&str> = key.text.split('_').collect();
    let others: Vec<&str> = other.text.split('_').collect();
    // Correct in every part except the secret, with a valid checksum.
    let forged = format!("muser_{}_{}_{}", parts[1], parts[2], "0".repeat(64));
    let forged = format!("{forged}_{}", &hex(&secret::hash(&forged))[..8]);

    for (text, why) in [
        ("x", "a letter"),
        ("muser_", "its prefix"),
        ("muser____", "only underscores"),
        (&key.text[..key.text.len() - 1], "cut"),
        (&key.text[..key.text.len() - 9], "without its checksum"),
        (&key.text[1..], "without its first letter"),
        (&format!("{}0", key.text), "a digit too many"),
        (&format!("{}_0", key.text), "a part too many"),
        (&key.text.to_uppercase(), "another case"),
        (&key.text.replacen("muser", "msys", 1), "another type"),
        (&key.text.replacen(parts[1], others[1], 1), "another key's id"),
        (&key.text.replacen(parts[3], others[3], 1), "another key's secret"),
        (&forged, "a guessed secret"),
        (&format!("muser_{}", "0".repeat(250)), "as long as is looked at"),
        (&format!("muser_{}", "0".repeat(251)), "longer than is looked at"),
    ] {
        is_refused(&site, text, why).await;
        if text.contains('_') && text.starts_with('m') {
            assert_eq!(site.bearer(text).get("/me").await.is(32_501_000).word(), "invalid_key", "{why}");
        }
    }
    let mistyped = me(&site, &key.text.replacen(parts[3], &parts[3].replace(&parts[3][..1], "x"), 1)).await;
    assert!(mistyped.body["message"].as_str().unwrap().contains("mistyped"), "{mistyped:?}");
    me(&site, &key.text).await.done();
}

// ── expiry ──

#[tokio::test]
async fn each_of_the_five_types_has_its_lifetime() {
    let site = Site::start().await;
    let member = site.member().await;
    for (kind, days) in [("muser", 90), ("mint", 30), ("memg", 1), ("msvc", 180), ("msys", 365)] {
        let before = Timestamp::now().0;
        let made = match kind {
            "msvc" | "msys" => {
                let body = json!({"service_name": "transcoder", "type": kind, "scopes": ["jobs:read"]});
                site.admin().post("/admin/api-keys", body).await.data()
            }
            _ => member.caller().post("/me/api-keys", json!({"name": "k", "type": kind})).await.data(),
        };
        let life_ms = made["expires_at"].as_i64().unwrap() - before;
        assert!((days * DAY_MS..days * DAY_MS + 60_000).contains(&life_ms), "{kind} {life_ms}");
        assert!(key_of(&made).text.starts_with(&format!("{kind}_")));
        assert_eq!(made["type"], kind);
    }
}

#[tokio::test]
async fn members_and_services_have_types_of_their_own() {
    let site = Site::start().await;
    let member = site.member().await;
    for kind in ["msys", "msvc", "other", ""] {
        let reply = member.caller().post("/me/api-keys", json!({"name": "k", "type": kind})).await;
        assert_eq!(reply.is(10_101_000).fields(), ["body.type"], "{kind}");
    }
    for kind in ["muser", "mint", "memg"] {
        let body = json!({"service_name": "transcoder", "type": kind, "scopes": ["jobs:read"]});
        assert_eq!(site.admin().post("/admin/api-keys", body).await.is(10_101_000).fields(), ["body.type"], "{kind}");
    }
}

#[tokio::test]
async fn an_expiry_is_in_the_future_and_within_the_lifetime_of_the_type() {
    let site = Site::start().await;
    let member = site.member().await;
    let now = Timestamp::now().0;
    for (expires_at, is_right) in [
        (now - 1, false),
        (now + HOUR_MS, true),
        (now + 30 * DAY_MS, true),
        (now + 30 * DAY_MS + 60_000, false),
        (i64::MAX, false),
    ] {
        let body = json!({"name": "k", "type": "mint", "expires_at": expires_at});
        let reply = member.caller().post("/me/api-keys", body).await;
        match is_right {
            true => assert_eq!(reply.data()["expires_at"], expires_at),
            false => assert_eq!(reply.is(10_101_000).fields(), ["body.expires_at"]),
        }
    }
}

#[tokio::test]
async fn a_key_expires() {
    let site = Site::start().await;
    let member = site.member().await;
    let end = Timestamp::now().0 + 3_000;
    let key = own(&member, json!({"name": "short", "expires_at": end})).await;

    me(&site, &key.text).await.done();
    while Timestamp::now().0 < end {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    is_refused(&site, &key.text, "over").await;
}

#[tokio::test]
async fn all_bad_fields_of_a_key_are_reported_together() {
    let site = Site::start().await;
    let member = site.member().await;

    let body = json!({"name": "", "type": "x", "scopes": [], "expires_at": "soon", "key_hash": "0".repeat(64)});
    let own = member.caller().post("/me/api-keys", body).await;
    let scopes = member.caller().post("/me/api-keys", json!({"name": "k", "scopes": ["members:write"]})).await;
    let service = site.admin().post("/admin/api-keys", json!({"service_name": "a b", "key_hash": "xyz"})).await;

    let all = ["body.expires_at", "body.key_hash", "body.name", "body.scopes", "body.type"];
    assert_eq!(own.is(10_101_000).fields(), all);
    assert_eq!(scopes.is(10_101_000).fields(), ["body.scopes.0"]);
    let fields = service.is(10_101_000).fields();
    assert_eq!(
        (&fields[..2], fields.last().unwrap().as_str()),
        (&["body.key_hash".to_owned(), "body.key_hash".to_owned()][..], "body.service_name")
    );
}

// ── rotation ──

#[tokio::test]
async fn a_rotated_key_keeps_its_id_and_the_former_text_works_during_the_grace_period() {
    let mut site = Site::start().await;
    for (kind, grace_hours, days) in [("muser", 24, 90), ("mint", 24, 30), ("msvc", 48, 180), ("msys", 72, 365)] {
        let admin = site.admin();
        let made = if kind.starts_with("ms") {
            let body = json!({"service_name": "transcoder", "type": kind, "scopes": ["permissions:check"]});
            admin.post("/admin/api-keys", body).await.data()
        } else {
            admin.post("/me/api-keys", json!({"name": "k", "type": kind})).await.data()
        };
        let (key, before) = (key_of(&made), Timestamp::now().0);

        let rotated = admin.post(&format!("/admin/api-keys/{}/rotate", key.id), json!({})).await.data();

        let next = key_of(&rotated);
        assert_eq!((&next.id, next.text == key.text), (&key.id, false));
        let grace_ms = rotated["former_valid_until"].as_i64().unwrap() - before;
        assert!((grace_hours * HOUR_MS..grace_hours * HOUR_MS + 60_000).contains(&grace_ms), "{kind} {grace_ms}");
        assert!(rotated["expires_at"].as_i64().unwrap() >= before + days * DAY_MS, "{kind}");
        let path = if kind.starts_with("ms") { "/api/v1/permissions/check" } else { "/me" };
        let ask = async |site: &Site, text: &str| {
            let question = json!({"uid": "x", "scope_type": "a", "scope_id": "b", "module": "c", "action": "d"});
            match path {
                "/me" => with(site, text).get(path).await.status,
                _ => with(site, text).post(path, question).await.status,
            }
        };
        assert_eq!([ask(&site, &key.text).await, ask(&site, &next.text).await], [200, 200], "{kind}");

        site.restart().await;
        assert_eq!([ask(&site, &key.text).await, ask(&site, &next.text).await], [200, 200], "{kind}");
        let id = uuid::Uuid::parse_str(&key.id).unwrap();
        let now = Timestamp::now().0;
        site.while_stopped("update api_keys set previous_expires_at = ?1 where id = ?2", (now, id.as_bytes()));
        assert_eq!([ask(&site, &key.text).await, ask(&site, &next.text).await], [401, 200], "{kind}");
    }
}

#[tokio::test]
async fn a_second_rotation_ends_the_first_text() {
    let site = Site::start().await;
    let member = site.member().await;
    let first = plain(&member).await;
    let at = format!("/me/api-keys/{}/rotate", first.id);

    let second = key_of(&member.caller().post(&at, json!({})).await.data());
    let third = key_of(&member.caller().post(&at, json!({})).await.data());

    is_refused(&site, &first.text, "two rotations ago").await;
    me(&site, &second.text).await.done();
    me(&site, &third.text).await.done();
}

#[tokio::test]
async fn a_rotation_never_extends_the_expiry_of_the_former_text() {
    let site = Site::start().await;
    let member = site.member().await;
    let end = Timestamp::now().0 + HOUR_MS;
    let key = own(&member, json!({"name": "short", "expires_at": end})).await;

    let rotated = member.caller().post(&format!("/me/api-keys/{}/rotate", key.id), json!({})).await.data();

    assert_eq!(rotated["former_valid_until"], end);
}

// ── emergency keys ──

#[tokio::test]
async fn an_emergency_key_works_once_and_is_not_rotated() {
    let mut site = Site::start().await;
    let (id, text, token) = {
        let member = site.member().await;
        let key = own(&member, json!({"name": "glass", "type": "memg"})).await;
        let rotate = member.caller().post(&format!("/me/api-keys/{}/rotate", key.id), json!({})).await;
        assert_eq!(rotate.is(32_309_000).word(), "emergency_key");
        (key.id, key.text, member.token)
    };
    // An operation that accepts no keys does not consume it.
    assert_eq!(site.bearer(&text).get("/me/api-keys").await.status, 403);

    me(&site, &text).await.done();

    is_refused(&site, &text, "used").await;
    let spent = site.bearer(&token).get("/me/api-keys").await.data()["items"][0].clone();
    assert_eq!((&spent["spent"], &spent["id"]), (&json!(true), &json!(id)));
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["target"]), (&json!("api_key.spend"), &json!(format!("api_key {id}"))));
    site.restart().await;
    is_refused(&site, &text, "used before the restart").await;
}

#[tokio::test]
async fn exactly_one_of_many_parallel_uses_of_an_emergency_key_succeeds() {
    const USES: usize = 16;
    let site = Site::start().await;
    let key = own(&site.member().await, json!({"name": "glass", "type": "memg"})).await;

    let uses = (0..USES).map(|_| me(&site, &key.text));
    let replies = futures_util::future::join_all(uses).await;

    let served = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(served, 1);
    assert!(replies.iter().filter(|reply| reply.status != 200).all(|reply| reply.word() == "invalid_key"));
}

// ── revocation ──

#[tokio::test]
async fn a_revoked_key_is_refused_on_the_next_request() {
    let site = Site::start().await;
    let member = site.member().await;
    let (key, kept) = (plain(&member).await, plain(&member).await);
    me(&site, &key.text).await.done();
    let at = format!("/me/api-keys/{}", key.id);

    member.caller().delete(&at).await.done();

    is_refused(&site, &key.text, "revoked").await;
    me(&site, &kept.text).await.done();
    assert_eq!(member.caller().delete(&at).await.is(32_301_000).word(), "api_key_not_found");
    assert_eq!(member.caller().get("/me/api-keys").await.data()["total"], 1);
}

#[tokio::test]
async fn a_suspended_members_key_is_refused_until_activation_and_an_erased_members_key_is_deleted() {
    let site = Site::start().await;
    let member = site.member().await;
    let key = plain(&member).await;
    let at = format!("/admin/members/{}", member.uid);

    site.admin().post(&format!("{at}/deactivate"), json!({})).await.done();
    for path in ["/me", "/me/quota", "/api/v1/videos"] {
        let asleep = site.nobody().with("x-api-key", &key.text).get(path).await;
        assert_eq!((asleep.status, asleep.word()), (403, "member_suspended"), "{path}");
        let wrong = site.nobody().with("x-api-key", &format!("{}x", key.text)).get(path).await;
        assert_eq!((wrong.status, wrong.word()), (401, "invalid_key"), "without the key nothing is revealed");
    }
    site.admin().post(&format!("{at}/activate"), json!({})).await.done();
    me(&site, &key.text).await.done();
    site.admin().delete(&at).await.done();
    is_refused(&site, &key.text, "erased").await;

    let left: i64 = site.rows().query_row("select count(*) from api_keys", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    let anew = site.admin().post(&format!("{at}/api-keys"), json!({"name": "k"})).await;
    assert_eq!(anew.is(29_309_000).word(), "member_deleted");
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let mut site = Site::start().await;
    let key = plain(&site.member().await).await;
    let service = of_service(&site, &["permissions:check"]).await;

    site.restart().await;

    me(&site, &key.text).await.done();
    let question = json!({"uid": "x", "scope_type": "a", "scope_id": "b", "module": "c", "action": "d"});
    with(&site, &service.text).post("/api/v1/permissions/check", question).await.done();
}

#[tokio::test]
async fn an_expiring_key_is_announced_once_and_deleted_long_after_its_expiry() {
    let smtp = plain_smtp();
    let mut site = Site::with(&mailing(&smtp)).await;
    let (soon, over, token) = {
        let member = site.member().await;
        let path = format!("/admin/members/{}", member.uid);
        site.admin().patch(&path, json!({"email": "kim@example.org"})).await.done();
        (plain(&member).await, plain(&member).await, member.token)
    };
    let id = |key: &Key| *uuid::Uuid::parse_str(&key.id).unwrap().as_bytes();
    let shown = async |site: &Site| -> Vec<(bool, String)> {
        let list = site.bearer(&token).get("/me/api-keys").await.data()["items"].clone();
        let item = |item: &Value| (item["expires_soon"] == true, item["id"].as_str().unwrap().to_owned());
        list.as_array().unwrap().iter().map(item).collect()
    };
    assert_eq!(shown(&site).await, [(false, soon.id.clone()), (false, over.id.clone())]);
    let announced = |site: &Site| site.log().matches("an API key ends soon").count();

    let end = Timestamp::now().0 + 6 * DAY_MS;
    site.while_stopped("update api_keys set expires_at = ?1, updated_at = 0 where id = ?2", (end, id(&soon)));
    let is_noted = |site: &Site| {
        let sql = "select count(*) from api_keys where notified_at is not null";
        site.rows().query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number") == 1
    };
    until("the notice is noted", async || is_noted(&site)).await;
    let past = Timestamp::now().0 - 31 * DAY_MS;
    site.while_stopped("update api_keys set expires_at = ?1 where id = ?2", (past, id(&over)));

    // The first housekeeping runs in parallel with the first requests.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while shown(&site).await.len() > 1 {
        assert!(std::time::Instant::now() < deadline, "the expired key was not deleted");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(shown(&site).await, [(true, soon.id.clone())]);
    site.restart().await;
    assert_eq!(announced(&site), 1);
    let mail = smtp.next_mail_to("kim@example.org").await;
    assert_eq!((mail.subject.as_str(), smtp.mails().len()), ("Your API key ends soon", 1));
    assert!(mail.text.contains(&soon.id.replace('-', "")) && !mail.text.contains(&soon.text), "{}", mail.text);
    assert!(site.log().contains(&soon.id) && !site.log().contains(&soon.text));
    me(&site, &soon.text).await.done();
}

// ── ownership ──

#[tokio::test]
async fn a_foreign_members_key_is_answered_like_a_missing_one() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, other) = (acme.member().await, acme.member().await);
    let key = plain(&member).await;

    for caller in [other.caller(), site.admin()] {
        let revoked = caller.delete(&format!("/me/api-keys/{}", key.id)).await;
        assert_eq!(revoked.is(32_301_000).word(), "api_key_not_found");
        let rotated = caller.post(&format!("/me/api-keys/{}/rotate", key.id), json!({})).await;
        assert_eq!(rotated.is(32_301_000).word(), "api_key_not_found");
    }
    let by_other = format!("/admin/members/{}/api-keys/{}", other.uid, key.id);
    assert_eq!(acme.owner().delete(&by_other).await.is(32_301_000).word(), "api_key_not_found");
    let foreign = format!("/admin/members/{}/api-keys", member.uid);
    assert_eq!(bolt.owner().get(&foreign).await.is(29_301_000).word(), "member_not_found");
    assert_eq!(bolt.owner().delete(&format!("{foreign}/{}", key.id)).await.word(), "member_not_found");
    assert_eq!(other.caller().get("/me/api-keys").await.data()["total"], 0);
    me(&site, &key.text).await.done();
}

#[tokio::test]
async fn a_members_keys_are_created_by_callers_that_may_change_its_credentials() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, admin) = (acme.member().await, acme.member_with_role("tenant_admin").await);
    let manager = acme.member_with_role("member_manager").await;
    let both = acme.member().await;
    bolt.link(&both.uid).await;
    let at = |uid: &str| format!("/admin/members/{uid}/api-keys");
    let body = json!({"name": "station", "type": "mint", "scopes": ["videos:write"]});

    let made = admin.caller().post(&at(&member.uid), body.clone()).await.data();
    assert_eq!((&made["type"], &made["scopes"]), (&json!("mint"), &json!(["videos:write"])));
    let entry = acme.owner().get("/admin/audit?limit=1").await.data()["items"][0].clone();
    assert_eq!((&entry["action"], &entry["after"]["member"]), (&json!("api_key.create"), &json!(member.uid)));
    let key = key_of(&made);
    let rotated = admin.caller().post(&format!("{}/{}/rotate", at(&member.uid), key.id), json!({})).await.data();
    assert_eq!(admin.caller().get(&at(&member.uid)).await.data()["items"][0]["id"], rotated["id"]);

    let owner = acme.member_with_role("tenant_owner").await;
    for (caller, uid, word) in [
        (manager.caller(), &member.uid, "forbidden"),
        (member.caller(), &member.uid, "forbidden"),
        (admin.caller(), &owner.uid, "not_held"),
        (admin.caller(), &both.uid, "forbidden"),
    ] {
        assert_eq!(caller.post(&at(uid), body.clone()).await.is(29_505_000).word(), word);
    }
    // An organization does not see the names and scopes of the keys that a shared member created itself.
    both.caller().post("/me/api-keys", json!({"name": "bolt"})).await.done();
    for caller in [admin.caller(), owner.caller()] {
        assert_eq!(caller.get(&at(&both.uid)).await.is(29_505_000).word(), "forbidden");
    }
    assert_eq!(site.admin().get(&at(&both.uid)).await.data()["items"][0]["name"], "bolt");
    let missing = site.admin().post(&at("019abcde-0000-7000-8000-00000000dead"), body).await;
    assert_eq!(missing.is(29_301_000).word(), "member_not_found");
    admin.caller().delete(&format!("{}/{}", at(&member.uid), key.id)).await.done();
}

#[tokio::test]
async fn a_list_shows_everything_of_a_key_except_its_secret() {
    let mut site = Site::start().await;
    let (key, token) = {
        let member = site.member().await;
        (plain(&member).await, member.token)
    };
    me(&site, &key.text).await.done();

    // The last use is written in batches, at the latest when the server stops.
    site.restart().await;

    let shown = site.bearer(&token).get("/me/api-keys").await.data()["items"][0].clone();
    let mut names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names.join(" "),
        "created_at expires_at expires_soon former_valid_until id is_imported last_used_address last_used_at member_id \
         name scopes service_name spent type"
    );
    assert_eq!(shown["last_used_address"], "127.0.0.1");
    assert!((Timestamp::now().0 - shown["last_used_at"].as_i64().unwrap()).abs() < 60_000);
}

#[tokio::test]
async fn a_repeated_creation_creates_no_second_key_and_shows_no_secret_again() {
    let site = Site::start().await;
    let member = site.member().await;
    let caller = member.caller().with("idempotency-key", "once");

    caller.post("/me/api-keys", json!({"name": "laptop"})).await.done();
    let again = caller.post("/me/api-keys", json!({"name": "laptop"})).await;

    assert_eq!(again.is(32_309_000).word(), "secret_not_kept");
    assert_eq!(member.caller().get("/me/api-keys").await.data()["total"], 1);
}

#[tokio::test]
async fn the_number_of_keys_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::with("limits.api_keys_per_member = 2\nlimits.service_keys = 1").await;
    let (member, other) = (site.member().await, site.member().await);
    let first = plain(&member).await;
    plain(&member).await;

    let third = member.caller().post("/me/api-keys", json!({"name": "k"})).await;

    assert_eq!(third.is(10_101_000).fields(), ["body.name"]);
    plain(&other).await;
    member.caller().delete(&format!("/me/api-keys/{}", first.id)).await.done();
    plain(&member).await;
    of_service(&site, &["jobs:read"]).await;
    let body = json!({"service_name": "other", "scopes": ["jobs:read"]});
    assert_eq!(site.admin().post("/admin/api-keys", body).await.is(10_101_000).fields(), ["body.name"]);
}

// ── services ──

#[tokio::test]
async fn a_services_key_checks_permissions_in_the_tenant_it_names_and_has_no_profile() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    let key = of_service(&site, &["permissions:check"]).await;
    let question = json!({"uid": viewer.uid, "permission": "roster.role.list"});
    let check = "/api/v1/permissions/check";

    let here = with(&site, &key.text).with("x-tenant-id", "acme").post(check, question.clone()).await;
    assert_eq!(here.data()["allow"], true);
    let nowhere = site.bearer(&key.text).post(check, question.clone()).await;
    assert_eq!(nowhere.is(10_101_000).fields(), ["header.X-Tenant-ID"]);
    let lacking = of_service(&site, &["members:write"]).await;
    let lacking = with(&site, &lacking.text).with("x-tenant-id", "acme").post(check, question).await;
    assert_eq!(lacking.is(31_505_000).word(), "scope_not_allowed");
    let everything = of_service(&site, &["*"]).await;
    for path in ["/me", "/me/permissions/snapshot"] {
        assert_eq!(with(&site, &everything.text).get(path).await.is(29_505_000).word(), "forbidden", "{path}");
    }
    assert_eq!(site.bearer(&everything.text).get("/admin/members").await.is(29_505_000).word(), "forbidden");
}

#[tokio::test]
async fn services_keys_are_created_by_the_platform_with_scopes_that_the_caller_holds() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    let platform =
        crate::site::Organization { site: &site, id: platform.as_str().unwrap().into(), owner_token: String::new() };
    let keeper = platform
        .member_with(&[
            "roster.api_key.create",
            "roster.api_key.rotate",
            "roster.audit.list",
            "roster.audit.export",
            "roster.audit.verify",
        ])
        .await;
    let body = |scope: &str| json!({"service_name": "transcoder", "scopes": [scope]});

    assert_eq!(acme.owner().post("/admin/api-keys", body("audit:read")).await.is(32_505_000).word(), "forbidden");
    assert_eq!(keeper.caller().post("/admin/api-keys", body("members:write")).await.is(32_505_000).word(), "not_held");
    let made = keeper.caller().post("/admin/api-keys", body("audit:read")).await.data();
    assert_eq!((&made["type"], &made["name"]), (&json!("msvc"), &json!("transcoder")));
    let strong = of_service(&site, &["*"]).await;
    let rotated = keeper.caller().post(&format!("/admin/api-keys/{}/rotate", strong.id), json!({})).await;
    assert_eq!(rotated.is(32_505_000).word(), "not_held");
    let own = format!("/admin/api-keys/{}", key_of(&made).id);
    keeper.caller().post(&format!("{own}/rotate"), json!({})).await.done();
    assert_eq!(keeper.caller().delete(&own).await.is(32_505_000).word(), "forbidden");
    // This operation protects a member's key like the one below its member.
    let members = plain(&acme.member().await).await;
    let at = format!("/admin/api-keys/{}/rotate", members.id);
    assert_eq!(keeper.caller().post(&at, json!({})).await.is(32_505_000).word(), "forbidden");
    let list = site.admin().get("/admin/api-keys?keyword=TRANS").await.data();
    assert_eq!((&list["total"], &list["items"][0]["service_name"]), (&json!(2), &json!("transcoder")));
    site.admin().delete(&own).await.done();
    site.admin().delete(&format!("/admin/api-keys/{}", members.id)).await.done();
    is_refused(&site, &members.text, "revoked by its id alone").await;
}

// ── imported keys ──

/// A key as the predecessor of Roster created them: without a secret part of its own.
const OLD: &str = "muser_0123456789abcdef0123456789abcdef_1700000000_89abcdef";

#[tokio::test]
async fn an_imported_key_works_by_its_hash() {
    let mut site = Site::start().await;
    let (uid, token) = {
        let member = site.member().await;
        (member.uid, member.token)
    };
    let at = format!("/admin/members/{uid}/api-keys");
    let body = json!({"name": "old", "key_hash": hex(&secret::hash(OLD))});
    is_refused(&site, OLD, "not known yet").await;

    let made = site.admin().post(&at, body.clone()).await.data();

    assert_eq!(made["api_key"], Value::Null);
    assert_eq!(me(&site, OLD).await.data()["uid"], json!(uid));
    site.bearer(OLD).get("/me").await.done();
    is_refused(&site, &OLD.replace('8', "9"), "another").await;
    let again = site.admin().post(&at, body).await;
    assert_eq!(again.is(32_303_000).word(), "api_key_exists");
    let late = json!({"name": "old", "key_hash": hex(&secret::hash("muser_x")), "expires_at": Timestamp::now().0 + 91 * DAY_MS});
    assert_eq!(site.admin().post(&at, late).await.is(10_101_000).fields(), ["body.expires_at"]);

    // It is rotated into a key of Roster's form, and accepted during the grace period, also after a restart.
    let rotate = format!("{at}/{}/rotate", made["id"].as_str().unwrap());
    let key = key_of(&site.admin().post(&rotate, json!({})).await.data());
    for _ in 0..2 {
        me(&site, OLD).await.done();
        me(&site, &key.text).await.done();
        site.restart().await;
    }
    site.bearer(&token).delete(&format!("/me/api-keys/{}", key.id)).await.done();
    is_refused(&site, OLD, "revoked").await;
}

// ── command line ──

#[tokio::test]
async fn keys_by_command() {
    let mut site = Site::start().await;
    let uid = site.member().await.uid;

    let made = site.command(&["key", "create", "laptop", "--member", &uid, "--type", "mint", "--scopes", "me:read"]);
    let key = key_of(&made);
    assert_eq!((&made["type"], &made["scopes"]), (&json!("mint"), &json!(["me:read"])));
    me(&site, &key.text).await.done();
    // The id without hyphens, as in the text, names the key too.
    let rotated = key_of(&site.command(&["key", "rotate", &key.id.replace('-', "")]));
    me(&site, &rotated.text).await.done();
    assert_eq!(site.command(&["key", "list", "--member", &uid])["items"][0]["id"], json!(key.id));
    site.command(&["key", "revoke", &key.id]);
    is_refused(&site, &rotated.text, "revoked").await;

    let service = site.command_while_stopped(&["key", "create", "jobs", "--service", "transcoder", "--scopes", "*"]);
    assert_eq!((&service["type"], &service["name"]), (&json!("msvc"), &json!("jobs")));
    assert_eq!(site.command(&["key", "list"])["total"], 1);
    site.command(&["key", "import", "old", "--member", &uid, "--hash", &hex(&secret::hash(OLD))]);
    assert_eq!(me(&site, OLD).await.data()["uid"], json!(uid));
}

#[tokio::test]
async fn signing_keys_by_command() {
    let site = Site::start().await;
    let before = site.command(&["signing-key", "list"])["items"].clone();

    let after = site.command(&["signing-key", "rotate"])["items"].clone();

    assert_eq!((before.as_array().unwrap().len(), after.as_array().unwrap().len()), (1, 2));
    assert_eq!((&after[0]["signs"], &after[1]["id"]), (&json!(true), &before[0]["id"]));
    site.admin().get("/me").await.done();
    assert_ne!(after[0]["id"], before[0]["id"]);
}
