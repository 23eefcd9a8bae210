//! How API keys begin and end: expiry, rotation, emergency keys, revocation.

use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};

use super::{DAY_MS, HOUR_MS, Key, is_refused, key_of, me, of_service, own, plain, with};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::sessions::passwords::{mailing, plain_smtp};

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
    eventually("the notice is noted", async || is_noted(&site)).await;
    let past = Timestamp::now().0 - 31 * DAY_MS;
    site.while_stopped("update api_keys set expires_at = ?1 where id = ?2", (past, id(&over)));

    // The first housekeeping runs in parallel with the first requests.
    eventually("the expired key is deleted", async || shown(&site).await.len() <= 1).await;
    assert_eq!(shown(&site).await, [(true, soon.id.clone())]);
    site.restart().await;
    assert_eq!(announced(&site), 1);
    let mail = smtp.next_mail_to("kim@example.org").await;
    assert_eq!((mail.subject.as_str(), smtp.mails().len()), ("Your API key ends soon", 1));
    assert!(mail.text.contains(&soon.id.replace('-', "")) && !mail.text.contains(&soon.text), "{}", mail.text);
    assert!(site.log().contains(&soon.id) && !site.log().contains(&soon.text));
    me(&site, &soon.text).await.done();
}
