//! Quotas: used, freed, warnings, changes of the limit, and recounts.

use serde_json::{Value, json};

use super::registration::{Media, drift, quota, register, service, set_quota};
use crate::harness::callers::Reply;
use crate::harness::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_parallel_registrations_never_exceed_a_quota() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let (kim, lee) = (acme.member().await, acme.member().await);
    set_quota(&kim, 1_000).await;
    site.admin().patch(&format!("/admin/organizations/{}/quota", acme.id), json!({"size": 1_500})).await.done();

    // 50 files of 47 bytes each for two members: one member's quota has space for 21 of them, the organization's limit
    // for 31 in all.
    let mut requests = Vec::new();
    for n in 0..50 {
        for member in [&kim, &lee] {
            let path = media.file_of(member, &format!("{n}.mp4"), 47);
            let caller = member.caller();
            requests.push(async move { register(&caller, &path).await });
        }
    }
    let replies: Vec<Reply> = futures_util::future::join_all(requests).await;

    let made = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(made, 31, "{}", quota(&kim).await);
    for refused in replies.iter().filter(|reply| reply.status != 200) {
        assert!(["quota_exceeded", "organization_quota_exceeded"].contains(&refused.word()), "{refused:?}");
        assert_eq!(refused.body["error"]["category"], 506);
    }
    let used = [quota(&kim).await["used"].as_i64(), quota(&lee).await["used"].as_i64()].map(|used| used.expect("used"));
    assert!(used[0] <= 1_000, "{used:?}");
    assert_eq!(used[0] + used[1], 31 * 47);
    let videos: i64 = site.rows().query_row("select sum(size) from videos", [], |row| row.get(0)).expect("a sum");
    assert_eq!(videos, 31 * 47);
    assert_eq!(drift(&site), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_parallel_registrations_of_one_file_count_once() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    let path = media.file_of(&kim, "a.mp4", 30);
    let service_key = service(&site, &["videos:write"]).await.with("x-sftpgo-user", &kim.username);
    let requests = (0..50).map(|n| {
        let caller = if n % 2 == 0 { kim.caller() } else { service_key.clone() };
        let path = path.clone();
        async move { register(&caller, &path).await.data() }
    });
    let answers = futures_util::future::join_all(requests).await;
    assert_eq!(answers.iter().filter(|answer| answer["already_exists"] == false).count(), 1);
    assert!(answers.iter().all(|answer| answer["uuid"] == answers[0]["uuid"]));
    assert_eq!(quota(&kim).await["used"], 30);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_quota_is_used_to_its_last_byte_and_a_refusal_leaves_an_event_and_nothing_else() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    set_quota(&kim, 100).await;

    let refused = register(&kim.caller(), &media.file_of(&kim, "large.mp4", 101)).await;
    assert_eq!((refused.status, refused.is(33_506_000).word()), (403, "quota_exceeded"));
    for table in ["videos", "jobs", "quota_ledger"] {
        let rows: i64 =
            site.rows().query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).expect("count");
        assert_eq!(rows, 0, "{table}");
    }
    let exceeded = site.events("quota.exceeded");
    assert_eq!((exceeded.len(), &exceeded[0]["bytes"], &exceeded[0]["uid"]), (1, &json!(101), &json!(kim.uid)));
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["after"]["bytes"]), (&json!("quota.exceed"), &json!(101)));

    // The last byte fits. After it only empty files do.
    let whole = register(&kim.caller(), &media.file_of(&kim, "whole.mp4", 100)).await;
    assert_eq!(whole.header("x-quota-warning"), Some("95"));
    let full = site.events("quota.full");
    assert_eq!((full.len(), &full[0]["free"], &full[0]["percent"]), (1, &json!(0), &json!(100)));
    assert_eq!(site.events("quota.warning").len(), 1);
    let uuid = whole.data()["uuid"].as_str().expect("uuid").to_owned();
    register(&kim.caller(), &media.file_of(&kim, "empty.mp4", 0)).await.done();
    assert_eq!(register(&kim.caller(), &media.file_of(&kim, "byte.mp4", 1)).await.word(), "quota_exceeded");
    assert_eq!(quota(&kim).await, json!({"size": 100, "used": 100, "reserved": 0, "free": 0, "percent": 100}));

    kim.caller().delete(&format!("/api/v1/videos/{uuid}")).await.done();
    let freed = site.events("quota.freed");
    assert_eq!((freed.len(), &freed[0]["free"]), (1, &json!(100)));
    assert_eq!(site.events("video.deleted").len(), 1);
    register(&kim.caller(), &format!("{}/byte.mp4", kim.username)).await.done();
    assert_eq!(site.events("quota.full").len(), 1);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn the_last_byte_of_a_ceiling_is_an_event_too() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let (kim, lee) = (acme.member().await, acme.member().await);
    site.admin().patch(&format!("/admin/organizations/{}/quota", acme.id), json!({"size": 100})).await.done();
    register(&kim.caller(), &media.file_of(&kim, "a.mp4", 60)).await.done();
    assert_eq!(site.events("quota.full").len(), 0);
    register(&lee.caller(), &media.file_of(&lee, "b.mp4", 40)).await.done();
    let full = site.events("quota.full");
    assert_eq!((full.len(), &full[0]["uid"]), (1, &json!(lee.uid)));
    // A reservation alone makes nothing full: its bytes are still to be written.
    let far = site.member().await;
    set_quota(&far, 100).await;
    far.caller().post("/api/v1/quota/reservations", json!({"size": 100})).await.done();
    assert_eq!(site.events("quota.full").len(), 1);
}

#[tokio::test]
async fn a_repeated_request_returns_the_warning_of_the_first() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    set_quota(&kim, 100).await;
    let path = media.file_of(&kim, "a.mp4", 90);
    let reserve = async || {
        let caller = kim.caller().with("idempotency-key", "one");
        caller.post("/api/v1/quota/reservations", json!({"size": 10})).await
    };
    register(&kim.caller().with("idempotency-key", "two"), &path).await.done();
    let reserved = reserve().await;
    let id = reserved.data()["id"].as_str().expect("id").to_owned();
    let commit = json!({"path": media.file_of(&kim, "b.mp4", 10)});
    let commit = async || kim.caller().post(&format!("/api/v1/quota/reservations/{id}/commit"), commit.clone()).await;
    let committed = commit().await;
    assert_eq!(quota(&kim).await["percent"], 100);

    for (what, reply, warning) in [
        ("the same request again", register(&kim.caller().with("idempotency-key", "two"), &path).await, "80"),
        ("the same reservation again", reserve().await, "80"),
        ("a video that is known", register(&kim.caller(), &path).await, "95"),
        ("a commit", committed, "95"),
        ("the same commit again", commit().await, "95"),
    ] {
        reply.done();
        assert_eq!(reply.header("x-quota-warning"), Some(warning), "{what}");
        assert_eq!(reply.data()["warning"], Value::Null, "{what}");
    }
}

#[tokio::test]
async fn members_are_warned_once_at_80_and_once_at_95_per_cent() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    set_quota(&kim, 100).await;
    let mut last = String::new();
    let mut headers = Vec::new();
    for (n, bytes) in [79, 1, 1, 14, 1].into_iter().enumerate() {
        let reply = register(&kim.caller(), &media.file_of(&kim, &format!("{n}.mp4"), bytes)).await;
        headers.push(reply.header("x-quota-warning").map(str::to_owned));
        last = reply.data()["uuid"].as_str().expect("uuid").to_owned();
    }
    let word = |percent: &str| Some(percent.to_owned());
    assert_eq!(headers, [None, word("80"), word("80"), word("95"), word("95")]);
    let warned = |site: &Site| -> Vec<Value> {
        site.events("quota.warning").iter().map(|event| event["warning"].clone()).collect()
    };
    assert_eq!(warned(&site), [json!(80), json!(95)]);
    // Only a member whose usage fell below the threshold is warned again.
    kim.caller().delete(&format!("/api/v1/videos/{last}")).await.done();
    register(&kim.caller(), &media.file_of(&kim, "again.mp4", 1)).await.done();
    assert_eq!(warned(&site), [json!(80), json!(95)]);
    set_quota(&kim, 1_000).await;
    set_quota(&kim, 110).await;
    assert_eq!(warned(&site), [json!(80), json!(95), json!(80)]);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn quota_sizes_come_from_the_member_its_organization_or_the_site() {
    let site = Site::with("[quota]\ndefault_bytes = 500\n").await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let kim = acme.member().await;
    let own = format!("/admin/members/{}/quota", kim.uid);
    let of_acme = format!("/admin/organizations/{}/quota", acme.id);
    assert_eq!(quota(&kim).await["size"], 500);
    let ceiling = site.admin().patch(&of_acme, json!({"member_size": 400})).await.data();
    assert_eq!(
        ceiling,
        json!({"organization_id": acme.id, "size": null, "member_size": 400, "used": 0, "reserved": 0, "free": null,
               "percent": null})
    );
    assert_eq!(quota(&kim).await["size"], 400);
    let set = site.admin().patch(&own, json!({"size": 300})).await;
    assert_eq!((&set.data()["size"], &set.data()["own_size"]), (&json!(300), &json!(300)));
    let etag = set.header("etag").expect("an etag").to_owned();
    site.admin().with("if-match", &etag).patch(&own, json!({"size": 301})).await.done();
    assert_eq!(site.admin().with("if-match", &etag).patch(&own, json!({"size": 302})).await.word(), "version_stale");
    assert_eq!(site.admin().patch(&own, json!({"size": null})).await.data()["size"], 400);
    for size in [json!(-1), json!(9_000_000_000_000_001_i64), json!("x")] {
        assert_eq!(site.admin().patch(&own, json!({"size": size})).await.fields(), ["body.size"]);
    }
    site.admin().patch(&own, json!({"size": 9_000_000_000_000_000_i64})).await.done();

    // An organization's administrator cannot set more than the organization has.
    assert_eq!(acme.owner().patch(&own, json!({"size": 401})).await.is(29_505_000).word(), "forbidden");
    acme.owner().patch(&own, json!({"size": 400})).await.done();
    assert_eq!(acme.owner().patch(&of_acme, json!({"size": 9})).await.is(29_505_000).word(), "forbidden");
    site.admin().patch(&of_acme, json!({"size": 600})).await.done();
    acme.owner().patch(&own, json!({"size": 600})).await.done();
    assert_eq!(acme.owner().patch(&own, json!({"size": 601})).await.word(), "forbidden");
    assert_eq!(bolt.owner().patch(&own, json!({"size": 1})).await.is(29_301_000).word(), "member_not_found");
    bolt.link(&kim.uid).await;
    assert_eq!(acme.owner().patch(&own, json!({"size": 1})).await.word(), "forbidden");
    assert!(site.events("quota.changed").len() >= 7);
}

#[tokio::test]
async fn administrators_see_quotas_ledger_and_usage_of_their_organization_only() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (kim, far) = (acme.member().await, bolt.member().await);
    set_quota(&kim, 200).await;
    for (member, bytes) in [(&kim, 50), (&far, 70)] {
        register(&member.caller(), &media.file_of(member, "a.mp4", bytes)).await.done();
    }
    let quotas = acme.owner().get("/admin/quotas").await.data();
    // The owner has stored nothing yet.
    assert_eq!(quotas["total"], 2);
    assert_eq!(
        quotas["items"][0],
        json!({"uid": kim.uid, "username": kim.username, "organization_id": acme.id, "own_size": 200, "size": 200,
               "used": 50, "reserved": 0, "free": 150, "percent": 25})
    );
    let of_site = site.admin().get(&format!("/admin/quotas?keyword={}", far.username)).await.data();
    assert_eq!((&of_site["total"], &of_site["items"][0]["used"]), (&json!(1), &json!(70)));
    let ledger = acme.owner().get(&format!("/admin/quotas/{}/ledger", kim.uid)).await.data();
    let line = &ledger["items"][0];
    assert_eq!(
        (&ledger["total"], &line["cause"], &line["delta"], &line["used_after"]),
        (&json!(1), &json!("register"), &json!(50), &json!(50))
    );
    let foreign = acme.owner().get(&format!("/admin/quotas/{}/ledger", far.uid)).await;
    assert_eq!(foreign.word(), "member_not_found");
    let usage = acme.owner().get("/admin/usage").await.data();
    assert_eq!(usage["site"], Value::Null);
    assert_eq!(usage["organizations"].as_array().expect("list").len(), 1);
    assert_eq!((&usage["organizations"][0]["used"], &usage["organizations"][0]["videos"]), (&json!(50), &json!(1)));
    assert_eq!(usage["top"][0]["uid"], kim.uid);
    let usage = site.admin().get("/admin/usage").await.data();
    assert_eq!(
        usage["site"],
        json!({"used": 120, "reserved": 0, "videos": 2, "ownerless_videos": 0, "ownerless_bytes": 0})
    );
    assert_eq!(usage["top"][0]["uid"], far.uid);
}

#[tokio::test]
async fn after_a_change_of_organization_new_videos_count_against_the_new_ceiling() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let kim = acme.member().await;
    let first = register(&kim.caller(), &media.file_of(&kim, "a.mp4", 10)).await.data();
    site.admin().delete(&format!("/admin/members/{}/organizations/{}", kim.uid, acme.id)).await.done();
    bolt.link(&kim.uid).await;
    site.admin().patch(&format!("/admin/organizations/{}/quota", bolt.id), json!({"size": 25})).await.done();
    register(&kim.caller(), &media.file_of(&kim, "b.mp4", 20)).await.done();
    let refused = register(&kim.caller(), &media.file_of(&kim, "c.mp4", 6)).await;
    assert_eq!(refused.word(), "organization_quota_exceeded");
    let used = |usage: &Value, code: &str| {
        let list = usage["organizations"].as_array().expect("list").clone();
        list.into_iter().find(|o| o["org_code"] == code).expect("it")["used"].clone()
    };
    let usage = site.admin().get("/admin/usage").await.data();
    assert_eq!((used(&usage, "acme"), used(&usage, "bolt")), (json!(10), json!(20)));
    assert_eq!(quota(&kim).await["used"], 30);
    kim.caller().delete(&format!("/api/v1/videos/{}", first["uuid"].as_str().expect("uuid"))).await.done();
    let usage = site.admin().get("/admin/usage").await.data();
    assert_eq!((used(&usage, "acme"), used(&usage, "bolt")), (json!(0), json!(20)));
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_quota_set_by_an_organization_applies_only_there() {
    let site = Site::with("[quota]\ndefault_bytes = 500\n").await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    site.admin().patch(&format!("/admin/organizations/{}/quota", acme.id), json!({"size": 9_000})).await.done();
    let (kim, lee) = (acme.member().await, acme.member().await);
    for member in [&kim, &lee] {
        acme.owner().patch(&format!("/admin/members/{}/quota", member.uid), json!({"size": 9_000})).await.done();
        assert_eq!(quota(member).await["size"], 9_000);
    }
    // A member who leaves, or who also belongs to another organization, is under no organization's limit and has the
    // site's quota.
    acme.owner().delete(&format!("/admin/members/{}/organizations/{}", kim.uid, acme.id)).await.done();
    bolt.link(&lee.uid).await;
    for member in [&kim, &lee] {
        assert_eq!(quota(member).await["size"], 500);
    }
    acme.link(&kim.uid).await;
    assert_eq!(quota(&kim).await["size"], 9_000);
    // A quota set by the site applies everywhere.
    site.admin().patch(&format!("/admin/members/{}/quota", lee.uid), json!({"size": 700})).await.done();
    assert_eq!(quota(&lee).await["size"], 700);
}

#[tokio::test]
async fn the_videos_of_an_erased_member_stay_and_its_usage_stays_correct() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    let made = register(&kim.caller(), &media.file_of(&kim, "a.mp4", 10)).await.data();
    kim.caller().post("/api/v1/quota/reservations", json!({"size": 5})).await.done();
    site.admin().delete(&format!("/admin/members/{}", kim.uid)).await.done();
    let video = format!("/api/v1/videos/{}", made["uuid"].as_str().expect("uuid"));
    assert_eq!(site.admin().get(&video).await.data()["uid"], kim.uid);
    let usage = site.admin().get("/admin/usage").await.data();
    assert_eq!((&usage["site"]["used"], &usage["site"]["reserved"]), (&json!(10), &json!(0)));
    assert_eq!(drift(&site), 0);
    let lee = site.member().await;
    site.admin().post(&format!("{video}/transfer"), json!({"uid": lee.uid})).await.done();
    assert_eq!(quota(&lee).await["used"], 10);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_recount_finds_every_drift_and_repairs_it_with_ledger_entries() {
    let media = Media::new();
    let mut site = Site::with(&media.settings()).await;
    let path = {
        let acme = site.organization("acme").await;
        let kim = acme.member().await;
        register(&kim.caller(), &media.file_of(&kim, "a.mp4", 10)).await.done();
        register(&kim.caller(), &media.file_of(&kim, "b.mp4", 20)).await.done();
        kim.caller().post("/api/v1/quota/reservations", json!({"size": 5})).await.done();
        format!("/admin/quotas/{}/ledger", kim.uid)
    };
    assert_eq!(drift(&site), 0);
    for (statement, drifts) in [
        ("update quotas set used = used + 3 where used > 0", 1),
        ("update quotas set reserved = 0 where reserved > 0", 1),
        ("update organization_quotas set used = 1 where used > 0", 1),
        ("update videos set size = size + 1", 2),
        ("update quota_ledger set delta = 0 where delta = 10", 2),
        ("update site_usage set videos = 7", 1),
    ] {
        site.while_stopped(statement, []);
        let found = std::process::Command::new(crate::harness::site::binary())
            .args(["quota", "recount", "--json", "--data"])
            .arg(site.path())
            .output()
            .expect("roster");
        assert_eq!(found.status.code(), Some(1), "{statement}");
        let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
        assert_eq!((&found["drift"], &found["repaired"]), (&json!(drifts), &json!(false)), "{statement}: {found}");
        let repaired = site.command(&["quota", "recount", "--repair"]);
        assert_eq!((&repaired["drift"], &repaired["repaired"]), (&json!(drifts), &json!(true)), "{statement}");
        assert_eq!(drift(&site), 0, "{statement}");
    }
    // The ledger contains the repairs, and its sum is the usage: 32 bytes now.
    let ledger = site.admin().get(&path).await.data();
    let lines = ledger["items"].as_array().expect("items");
    assert!(lines.iter().any(|line| line["cause"] == "repair" && line["delta"] == 2), "{ledger}");
    assert_eq!(lines.iter().map(|line| line["delta"].as_i64().expect("delta")).sum::<i64>(), 32);
    assert_eq!(lines[0]["used_after"], 32);
    // Without a running server the command works on the directory itself.
    assert_eq!(site.command_while_stopped(&["quota", "recount"])["drift"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_during_registrations_every_usage_is_correct() {
    let kills = crate::harness::site::rounds(3, 100);
    let media = Media::new();
    let mut site = Site::with(&media.settings()).await;
    let uploads = ParallelRegistrations::prepare(&site).await;
    let mut acknowledged: i64 = 0;
    for round in 0..kills {
        let writers = uploads.begin(&site, round);
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(150 + 37 * (round % 20)))).await;
        site.kill();
        for writer in writers {
            let (registered, refused) = writer.await.expect("a writer");
            assert_eq!(refused, None);
            acknowledged += registered;
        }
        site.start_again();
        let kept = whole_videos(&site);
        assert!(kept >= acknowledged, "{kept} of {acknowledged} are left after kill {round}");
    }
    assert!(acknowledged > 8, "the test registered nothing");
}

// Linux can lower the limit of a running process; elsewhere the same code runs without this test.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_only_acknowledged_registrations_are_kept() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let uploads = ParallelRegistrations::prepare(&site).await;
    let mut acknowledged: i64 = 0;
    for round in 0..3 {
        site.limit_file_size(1_000_000);
        for writer in uploads.begin(&site, round) {
            let (registered, refused) = writer.await.expect("a writer");
            assert_eq!(refused.expect("the disk was never full")["detail"], "database_full");
            acknowledged += registered;
        }
        site.unlimit_file_size();
        assert_eq!(whole_videos(&site), acknowledged);
    }
    assert!(acknowledged > 8, "the test registered nothing");
}

/// Callers that register at the same time, for members of one organization.
struct ParallelRegistrations {
    key: String,
    folders: Vec<String>,
}

impl ParallelRegistrations {
    async fn prepare(site: &Site) -> Self {
        let acme = site.organization("acme").await;
        let mut folders = Vec::new();
        for _ in 0..4 {
            folders.push(acme.member().await.username);
        }
        let service = json!({"service_name": "up", "scopes": ["videos:write"]});
        let made = site.admin().post("/admin/api-keys", service).await.data();
        Self { key: made["api_key"].as_str().expect("key").to_owned(), folders }
    }

    /// Starts them. Each ends when the server is gone or refuses a request.
    fn begin(&self, site: &Site, round: u32) -> Vec<tokio::task::JoinHandle<(i64, Option<Value>)>> {
        let folders = self.folders.iter().cycle().take(8).enumerate();
        folders
            .map(|(n, folder)| {
                let name = format!("{folder}/{round}-{n}");
                tokio::spawn(register_until_stopped(site.url.clone(), self.key.clone(), folder.clone(), name))
            })
            .collect()
    }
}

/// Registers one file after another. Returns the number of acknowledged ones, and the refusal if there was one.
async fn register_until_stopped(url: String, key: String, folder: String, name: String) -> (i64, Option<Value>) {
    let http = crate::harness::site::http_client().build().expect("client");
    let mut acknowledged = 0;
    loop {
        let body = json!({"path": format!("{name}-{acknowledged}.mp4"), "size": 11});
        let request = http.post(format!("{url}/api/v1/register")).json(&body);
        match request.header("x-api-key", &key).header("x-sftpgo-user", &folder).send().await {
            Ok(answer) if answer.status() == 200 => acknowledged += 1,
            Ok(answer) => return (acknowledged, Some(answer.json().await.expect("JSON"))),
            Err(_) => return (acknowledged, None),
        }
    }
}

/// The number of videos, each with all of its rows.
fn whole_videos(site: &Site) -> i64 {
    assert_eq!(drift(site), 0);
    let count = |sql: &str| site.rows().query_row(sql, [], |row| row.get::<_, i64>(0)).expect("count");
    let videos = count("select count(*) from videos");
    for (what, sql) in [
        ("a job", "select count(*) from jobs"),
        ("a ledger row", "select count(*) from quota_ledger"),
        ("an event", "select count(*) from events where kind = 'video.registered'"),
        ("an audit row", "select count(*) from audit where action = 'video.register'"),
    ] {
        assert_eq!(count(sql), videos, "a video without {what}, or vice versa");
    }
    videos
}
