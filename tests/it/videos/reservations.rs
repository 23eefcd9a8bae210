//! Reservations: bytes reserved for an upload, and how they end.

use serde_json::{Value, json};

use super::registration::{Media, drift, quota, service, set_quota};
use crate::harness::callers::{As, Reply};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;

async fn reserve(caller: &As<'_>, size: i64) -> Reply {
    caller.post("/api/v1/quota/reservations", json!({"size": size})).await
}

async fn commit(caller: &As<'_>, id: &Value, path: &str) -> Reply {
    let id = id.as_str().expect("an id");
    caller.post(&format!("/api/v1/quota/reservations/{id}/commit"), json!({"path": path})).await
}

async fn release(caller: &As<'_>, id: &Value) -> Reply {
    let id = id.as_str().expect("an id");
    caller.post(&format!("/api/v1/quota/reservations/{id}/release"), json!({})).await
}

fn figures(quota: &Value) -> [i64; 3] {
    ["used", "reserved", "free"].map(|name| quota[name].as_i64().expect(name))
}

#[tokio::test]
async fn a_commit_replaces_the_reservation_by_the_size_of_the_file() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    set_quota(&kim, 100).await;
    let made = reserve(&kim.caller(), 60).await.data();
    assert_eq!((&made["size"], &made["state"], &made["uuid"]), (&json!(60), &json!("open"), &Value::Null));
    assert!(made["expires_at"].as_i64() > made["created_at"].as_i64());
    assert_eq!(figures(&quota(&kim).await), [0, 60, 40]);
    assert_eq!(reserve(&kim.caller(), 41).await.is(33_506_000).word(), "quota_exceeded");

    // A file smaller than the reservation: the rest is free again.
    let path = media.file_of(&kim, "a.mp4", 45);
    let video = commit(&kim.caller(), &made["id"], &path).await;
    assert_eq!(video.data()["already_exists"], false);
    assert_eq!(figures(&quota(&kim).await), [45, 0, 55]);
    assert_eq!(commit(&kim.caller(), &made["id"], &path).await.data()["uuid"], video.data()["uuid"]);
    assert_eq!(figures(&quota(&kim).await), [45, 0, 55]);
    let other = media.file_of(&kim, "b.mp4", 1);
    assert_eq!(commit(&kim.caller(), &made["id"], &other).await.is(33_309_000).word(), "reservation_over");
    assert_eq!(release(&kim.caller(), &made["id"]).await.word(), "reservation_over");

    // A larger file: the difference must fit, otherwise the reservation stays.
    let second = reserve(&kim.caller(), 50).await.data();
    let large = media.file_of(&kim, "large.mp4", 56);
    assert_eq!(commit(&kim.caller(), &second["id"], &large).await.is(33_506_000).word(), "quota_exceeded");
    assert_eq!(figures(&quota(&kim).await), [45, 50, 5]);
    media.file_of(&kim, "large.mp4", 55);
    let fits = commit(&kim.caller(), &second["id"], &large).await;
    assert_eq!(fits.header("x-quota-warning"), Some("95"));
    assert_eq!(figures(&quota(&kim).await), [100, 0, 0]);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_reservation_holds_when_the_quota_shrinks_and_a_known_file_uses_no_bytes() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    set_quota(&kim, 100).await;
    let made = reserve(&kim.caller(), 60).await.data();
    set_quota(&kim, 10).await;
    let path = media.file_of(&kim, "a.mp4", 60);
    commit(&kim.caller(), &made["id"], &path).await.done();
    assert_eq!(figures(&quota(&kim).await), [60, 0, 0]);
    set_quota(&kim, 100).await;
    let again = reserve(&kim.caller(), 40).await.data();
    assert_eq!(commit(&kim.caller(), &again["id"], &path).await.data()["already_exists"], true);
    assert_eq!(figures(&quota(&kim).await), [60, 0, 40]);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_reservation_is_released_once_and_only_by_its_owner() {
    let site = Site::start().await;
    let (kim, lee) = (site.member().await, site.member().await);
    let made = reserve(&kim.caller(), 60).await.data();
    for refused in [release(&lee.caller(), &made["id"]).await, release(&kim.caller(), &json!("none")).await] {
        assert_eq!(refused.is(33_301_000).word(), "reservation_not_found");
    }
    let path = format!("{}/a.mp4", lee.username);
    assert_eq!(commit(&lee.caller(), &made["id"], &path).await.word(), "reservation_not_found");
    for _ in 0..2 {
        assert_eq!(release(&kim.caller(), &made["id"]).await.data()["state"], "released");
        assert_eq!(quota(&kim).await["reserved"], 0);
    }
    assert_eq!(commit(&kim.caller(), &made["id"], &format!("{}/a.mp4", kim.username)).await.word(), "reservation_over");
    let for_lee = service(&site, &["videos:write"]).await.with("x-sftpgo-user", &lee.username);
    let of_lee = reserve(&for_lee, 7).await.data();
    assert_eq!(quota(&lee).await["reserved"], 7);
    assert_eq!(release(&for_lee, &of_lee["id"]).await.data()["state"], "released");
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn an_expired_reservation_never_causes_a_refusal() {
    let media = Media::new();
    let settings = format!("{}[quota]\nreservation_ttl_s = 1\nreservations = 2\n", media.settings());
    let site = Site::with(&settings).await;
    let acme = site.organization("acme").await;
    let (kim, lee) = (acme.member().await, acme.member().await);
    set_quota(&kim, 100).await;
    site.admin().patch(&format!("/admin/organizations/{}/quota", acme.id), json!({"size": 120})).await.done();
    let first = reserve(&kim.caller(), 90).await.data();
    reserve(&kim.caller(), 10).await.done();
    assert_eq!(reserve(&kim.caller(), 1).await.is(33_309_000).word(), "reservations_full");
    assert_eq!(reserve(&lee.caller(), 21).await.is(33_506_000).word(), "organization_quota_exceeded");
    reserve(&lee.caller(), 20).await.done();

    // Reservations expire by themselves and count as free from then on.
    eventually("the reservations expire", async || {
        quota(&kim).await["reserved"] == 0 && quota(&lee).await["reserved"] == 0
    })
    .await;
    let path = media.file_of(&lee, "a.mp4", 120);
    let done = lee.caller().post("/api/v1/register", json!({"path": path})).await;
    done.done();
    assert_eq!(quota(&kim).await["free"], 100);
    let own = media.file_of(&kim, "a.mp4", 1);
    assert_eq!(commit(&kim.caller(), &first["id"], &own).await.is(33_309_000).word(), "reservation_over");
    assert_eq!(release(&kim.caller(), &first["id"]).await.data()["state"], "expired");
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn many_expired_reservations_of_others_do_not_slow_down_a_registration() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let (kim, lee) = (acme.member().await, acme.member().await);
    site.admin().patch(&format!("/admin/organizations/{}/quota", acme.id), json!({"size": 10_000})).await.done();
    reserve(&lee.caller(), 1).await.done();
    site.write_rows(|rows| {
        let (member, organization) = (lee.uid.replace('-', ""), acme.id.replace('-', ""));
        rows.execute_batch(&format!(
            "insert into quota_reservations (id, member_id, organization_id, size, state, expires_at, created_at, updated_at)
             with n (n) as (values (1) union all select n + 1 from n where n < 9000)
             select unhex(printf('%032x', n)), x'{member}', x'{organization}', 1, 'open', 1, 1, 1 from n;
             update quotas set reserved = 9001 where member_id = x'{member}';
             update organization_quotas set reserved = 9001 where organization_id = x'{organization}';"
        ))
    });
    let path = media.file_of(&kim, "a.mp4", 9_999);

    kim.caller().post("/api/v1/register", json!({"path": path})).await.done();

    let other = media.file_of(&kim, "b.mp4", 1);
    let refused = kim.caller().post("/api/v1/register", json!({"path": other})).await;
    assert_eq!(refused.is(33_506_000).word(), "organization_quota_exceeded");
    site.require_small_changes();
    assert_eq!(figures(&quota(&lee).await)[..2], [0, 1]);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn sizes_of_reservations_are_valid_numbers_of_bytes() {
    let site = Site::start().await;
    let kim = site.member().await;
    for size in [json!(0), json!(-1), json!(9_000_000_000_000_001_i64), json!(u64::MAX), json!(1.5), json!(null)] {
        let refused = kim.caller().post("/api/v1/quota/reservations", json!({"size": size})).await;
        assert_eq!(refused.is(10_101_000).fields(), ["body.size"], "{size}");
    }
    assert_eq!(reserve(&kim.caller(), 9_000_000_000_000_000).await.word(), "quota_exceeded");
    set_quota(&kim, 9_000_000_000_000_000).await;
    reserve(&kim.caller(), 9_000_000_000_000_000).await.done();
    assert_eq!(quota(&kim).await["free"], 0);
    assert_eq!(reserve(&kim.caller(), 1).await.word(), "quota_exceeded");
    // A repeat of the same request creates one reservation.
    set_quota(&kim, 9_000_000_000_000_000).await;
    let lee = site.member().await;
    let once = lee.caller().with("idempotency-key", "upload-1");
    assert_eq!(reserve(&once, 5).await.data()["id"], reserve(&once, 5).await.data()["id"]);
    assert_eq!(quota(&lee).await["reserved"], 5);
}
