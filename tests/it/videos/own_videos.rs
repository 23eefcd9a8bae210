//! What members do with their own videos, how their organization's plugins decide on it, and the organization's storage
//! limit.

use serde_json::json;

use super::registration::{Media, drift, quota, register, service};
use crate::harness::callers::As;
use crate::harness::organizations::Member;
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures;
use crate::plugins::decisions::{bind, enforced, filtered, watched};

fn videos(site: &Site) -> i64 {
    site.rows().query_row("select count(*) from videos", [], |row| row.get(0)).expect("a number")
}

pub async fn commit(caller: &As<'_>, path: &str) -> crate::harness::callers::Reply {
    let reserved = caller.post("/api/v1/quota/reservations", json!({"size": 2_000})).await.data();
    let id = reserved["id"].as_str().expect("id");
    caller.post(&format!("/api/v1/quota/reservations/{id}/commit"), json!({"path": path})).await
}

// ── plugins ──

#[tokio::test]
async fn a_registration_calls_the_plugins_of_the_owners_organization() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (kim, lee, nobody) = (acme.member().await, bolt.member().await, site.member().await);
    let uploads = service(&site, &["videos:write"]).await.with("x-sftpgo-user", &kim.username);
    let covering =
        filtered(json!({"permissions": ["video.register"]}), enforced("rule", wasm_fixtures::denying_with_last_fact()));
    let other = filtered(json!({"permissions": ["video.delete"]}), enforced("rule", wasm_fixtures::denying("other")));
    bind(&site, vec![("acme", covering), ("bolt", other)]).await;
    let file = |member: &Member<'_>, name: &str| media.file_of(member, name, 1_000);

    // Registrations by members, registrations by services for them, and reservations ask the same question with the
    // same facts.
    for refused in [
        register(&kim.caller(), &file(&kim, "a.mp4")).await,
        register(&uploads, &file(&kim, "b.mp4")).await,
        commit(&kim.caller(), &file(&kim, "c.mp4")).await,
    ] {
        assert_eq!((refused.status, refused.word()), (403, "forbidden"));
        let message = refused.body["message"].as_str().expect("a sentence");
        assert!(
            message.starts_with("a rule of your organization denies this: ") && message.contains("1000"),
            "{message}"
        );
    }
    assert_eq!((videos(&site), quota(&kim).await["used"].clone()), (0, json!(0)));
    assert_eq!(site.last_audit_entry().await["outcome"], "denied");
    // Another organization's plugin, a filter that does not match, and an owner without an organization do not affect
    // it.
    register(&lee.caller(), &file(&lee, "a.mp4")).await.done();
    register(&nobody.caller(), &file(&nobody, "a.mp4")).await.done();
    let logged = async || site.admin().with("x-tenant-id", "acme").get("/api/v1/permissions/decisions").await.data();
    eventually("the denials are in the decision log", async || logged().await["total"] == 3).await;
    let denied = logged().await;
    let row = &denied["items"][0];
    assert_eq!(
        (&row["input"]["action"], &row["base"], &row["reason"]),
        (&json!("video.register"), &json!("ok_role"), &json!("plugin_denied"))
    );
}

#[tokio::test]
async fn a_failing_plugin_denies_a_registration_and_a_watched_one_does_not() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    bind(&site, vec![("acme", watched("rule", wasm_fixtures::denying("never")))]).await;
    let path = media.file_of(&kim, "a.mp4", 1_000);
    register(&kim.caller(), &path).await.done();
    bind(&site, vec![("acme", enforced("trap", wasm_fixtures::trapping()))]).await;
    let refused = register(&kim.caller(), &media.file_of(&kim, "b.mp4", 1_000)).await;
    assert_eq!((refused.status, refused.word()), (403, "forbidden"));
    // A known video uses no bytes, and no plugin is called.
    assert_eq!(register(&kim.caller(), &path).await.data()["already_exists"], true);
    assert_eq!((videos(&site), drift(&site)), (1, json!(0)));
}

// ── a member's own videos ──

#[tokio::test]
async fn members_transfer_their_own_videos_within_their_organization() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (kim, lee, far, nobody) = (acme.member().await, acme.member().await, bolt.member().await, site.member().await);
    let made = register(&kim.caller(), &media.file_of(&kim, "a.mp4", 100)).await.data();
    let path = format!("/api/v1/videos/{}/transfer", made["uuid"].as_str().expect("uuid"));
    let to = async |caller: &As<'_>, uid: &str| caller.post(&path, json!({"uid": uid})).await;

    assert_eq!(to(&lee.caller(), &lee.uid).await.word(), "video_not_found");
    for stranger in [&far.uid, &nobody.uid] {
        assert_eq!(to(&kim.caller(), stranger).await.word(), "member_not_found");
    }
    assert_eq!(to(&kim.caller(), &lee.uid).await.data()["uid"], lee.uid);
    assert_eq!((quota(&kim).await["used"].clone(), quota(&lee).await["used"].clone()), (json!(0), json!(100)));
    assert_eq!(to(&kim.caller(), &kim.uid).await.word(), "video_not_found", "it is no longer kim's");

    let own = register(&nobody.caller(), &media.file_of(&nobody, "a.mp4", 100)).await.data();
    let path = format!("/api/v1/videos/{}/transfer", own["uuid"].as_str().expect("uuid"));
    let refused = nobody.caller().post(&path, json!({"uid": kim.uid})).await;
    assert_eq!((refused.status, refused.word()), (403, "forbidden"));
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn members_claim_the_videos_in_their_own_folder() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    for (folder, name) in [("kim", "a.mp4"), ("kim", "b/c.mp4"), ("kim-2", "a.mp4"), ("kin", "a.mp4")] {
        media.file(&format!("{folder}/{name}"), 100);
    }
    site.admin().post("/api/v1/videos/import", json!({})).await.done();
    let body = json!({"username": "kim", "password": crate::harness::site::PASSWORD});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned();
    acme.link(&uid).await;
    let kim = site.bearer(&site.token("kim", crate::harness::site::PASSWORD).await);
    let claim = async |dry_run: bool| kim.post("/api/v1/videos/claim", json!({"dry_run": dry_run})).await.data();

    let (foreseen, done, again) = (claim(true).await, claim(false).await, claim(false).await);

    assert_eq!((&foreseen["claimed"], &foreseen["bytes"]), (&json!(2), &json!(200)));
    assert_eq!((&done["claimed"], &done["bytes"], &done["ownerless"]), (&json!(2), &json!(200), &json!(0)));
    assert_eq!(again["claimed"], 0);
    let owned: i64 = site
        .rows()
        .query_row("select count(*) from videos where member_id is not null", [], |row| row.get(0))
        .expect("a number");
    assert_eq!((owned, drift(&site)), (2, json!(0)));
}

// ── the storage limit of an organization ──

#[tokio::test]
async fn a_ceiling_warns_once_per_crossing_and_again_after_it_was_changed() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let (kim, lee) = (acme.member().await, acme.member().await);
    let ceiling = format!("/admin/organizations/{}/quota", acme.id);
    site.admin().patch(&ceiling, json!({"size": 1_000})).await.done();
    let warnings = || {
        let all = site.events("quota.ceiling_warning");
        all.iter().map(|event| (event["warning"].as_i64(), event["percent"].as_i64())).collect::<Vec<_>>()
    };
    let pair = |warning: i64, percent: i64| (Some(warning), Some(percent));

    register(&kim.caller(), &media.file_of(&kim, "a.mp4", 799)).await.done();
    assert!(warnings().is_empty());
    register(&lee.caller(), &media.file_of(&lee, "a.mp4", 1)).await.done();
    register(&lee.caller(), &media.file_of(&lee, "b.mp4", 100)).await.done();
    assert_eq!(warnings(), [pair(80, 80)]);
    let last = register(&kim.caller(), &media.file_of(&kim, "b.mp4", 50)).await.data();
    assert_eq!(warnings(), [pair(80, 80), pair(95, 95)]);
    // Usage that falls below both thresholds and rises again crosses them again.
    kim.caller().delete(&format!("/api/v1/videos/{}", last["uuid"].as_str().expect("uuid"))).await.done();
    register(&kim.caller(), &media.file_of(&kim, "c.mp4", 60)).await.done();
    assert_eq!(warnings(), [pair(80, 80), pair(95, 95), pair(95, 96)]);
    site.admin().patch(&ceiling, json!({"size": 2_000})).await.done();
    register(&kim.caller(), &media.file_of(&kim, "d.mp4", 640)).await.done();
    assert_eq!(warnings().last(), Some(&pair(80, 80)));
    assert!(site.events("quota.ceiling_warning").iter().all(|event| event.get("uid").is_none()));
}
