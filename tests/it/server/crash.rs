//! Power cuts: the server is killed while it writes. Every acknowledged write survives, and no write is partial.
//!
//! Every run includes a short form; `tests/run --full` runs a long one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::receiver::{Receiver, webhook};
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::webhooks::outbox::QUICK;

const WRITERS: usize = 8;

/// Creates grants one after another until the server is killed. Returns the acknowledged ones by `scope_id`.
async fn grant_until_gone(
    url: String,
    headers: Vec<(String, String)>,
    uid: String,
    name: String,
    stop: Arc<AtomicBool>,
) -> Vec<String> {
    let http = crate::harness::site::http_client().build().expect("client");
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let scope_id = format!("{name}-{n}");
        let body =
            json!({"uid": uid, "scope_type": "site", "scope_id": scope_id, "module": "camera", "action": "view"});
        let mut request = http.post(format!("{url}/admin/permissions/grant")).json(&body);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        match request.send().await {
            Ok(answer) if answer.status() == 200 => acknowledged.push(scope_id),
            Ok(answer) => panic!("{}", answer.status()),
            Err(_) => break,
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_no_acknowledged_write_and_keeps_no_partial_one() {
    let kills = crate::harness::site::rounds(4, 200);
    let mut site = Site::start().await;
    let made = site.command(&["client", "create", "writer", "--scopes", "*"]);
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let headers = vec![("x-client-key".to_owned(), text("client_key")), ("x-api-key".to_owned(), text("api_key"))];
    let member = site.admin().post("/admin/members", json!({"username": "kim"})).await.data();
    let uid = member["uid"].as_str().expect("uid").to_owned();
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for round in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                tokio::spawn(grant_until_gone(
                    site.url.clone(),
                    headers.clone(),
                    uid.clone(),
                    format!("{round}-{n}"),
                    stop.clone(),
                ))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(u64::from(150 + 37 * (round % 20)))).await;
        site.kill();
        for writer in writers {
            acknowledged.extend(writer.await.expect("a writer"));
        }
        site.start_again();
        let rows = site.rows();
        let mut all = rows.prepare("select scope_id from grants").expect("grants");
        let kept: BTreeSet<String> =
            all.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("row")).collect();
        let lost: Vec<&String> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "lost after kill {round}: {lost:?}");
        let audited: i64 = rows
            .query_row("select count(*) from audit where action = 'grant.create' and outcome = 'done'", [], |row| {
                row.get(0)
            })
            .expect("count");
        assert_eq!(audited as usize, kept.len(), "a grant without its audit row, or vice versa");
        assert_eq!(site.command(&["audit", "verify"])["ok"], true);
        let reloaded = site.admin().post("/api/v1/permissions/policy/reload", json!({})).await.data();
        assert_eq!(reloaded["changed"], Value::Bool(false));
    }
    assert!(acknowledged.len() > WRITERS, "the test wrote nothing");
}

/// Registers one file after another until the server is killed. Returns the acknowledged ids.
async fn register_until_gone(url: String, key: String, name: String) -> Vec<String> {
    let http = crate::harness::site::http_client().build().expect("client");
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let request =
            http.post(format!("{url}/api/v1/register")).header("x-api-key", &key).header("x-sftpgo-user", "kim");
        match request.json(&json!({"path": format!("kim/{name}-{n}.mp4"), "size": 10})).send().await {
            Ok(answer) if answer.status() == 200 => {
                let Ok(answer) = answer.json::<Value>().await else { break };
                acknowledged.push(answer["data"]["uuid"].as_str().expect("uuid").to_owned());
            }
            Ok(answer) => panic!("{}", answer.status()),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_during_registrations_and_deliveries_loses_and_duplicates_nothing() {
    let kills = crate::harness::site::rounds(3, 60);
    let receiver = Receiver::willing();
    let mut site = Site::with(QUICK).await;
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();
    webhook(&site.admin(), &receiver.url, &["video.registered"]).await;
    let body = json!({"service_name": "uploads", "scopes": ["videos:write"]});
    let made = site.admin().post("/admin/api-keys", body).await.data();
    let key = made["api_key"].as_str().expect("a key").to_owned();
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for round in 0..kills {
        let before = receiver.all().len();
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| tokio::spawn(register_until_gone(site.url.clone(), key.clone(), format!("{round}-{n}"))))
            .collect();
        // Deliveries are also in progress when the server is killed.
        receiver.wait_for(before + 5 + round as usize % 7).await;
        site.kill();
        for writer in writers {
            acknowledged.extend(writer.await.expect("a writer"));
        }
        site.start_again();
        let list = |sql: &str| -> Vec<String> {
            let rows = site.rows();
            let mut found = rows.prepare(sql).expect("a statement");
            found.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("row")).collect()
        };
        let videos = list("select id from videos order by id");
        let kept: BTreeSet<String> = videos.iter().cloned().collect();
        let lost: Vec<&String> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "lost after kill {round}: {lost:?}");
        for (what, sql) in [
            ("ledger", "select video_id from quota_ledger where cause = 'register' order by video_id"),
            ("event", "select data ->> 'uuid' from events where kind = 'video.registered' order by data ->> 'uuid'"),
            ("job", "select v.id from jobs j join videos v on v.number = j.video_number order by v.id"),
        ] {
            assert_eq!(list(sql), videos, "each video has one {what}");
        }
        assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
        assert_eq!(site.command(&["audit", "verify"])["ok"], true);
    }
    eventually("all are delivered", async || {
        site.admin().get("/admin/deliveries?state=pending").await.data()["total"] == 0
    })
    .await;
    let told: BTreeSet<String> = receiver
        .all()
        .iter()
        .map(|received| received.body["data"]["uuid"].as_str().expect("uuid").to_owned())
        .collect();
    let missed: Vec<&String> = acknowledged.difference(&told).collect();
    assert!(missed.is_empty() && acknowledged.len() > WRITERS, "never delivered: {missed:?}");
}

// Linux can lower the limit of a running process; elsewhere the same code runs without this test.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_changes_and_still_reads() {
    let site = Site::start().await;
    let member = site.admin().post("/admin/members", json!({"username": "kim"})).await.data();
    site.limit_file_size(0);
    // The write-ahead log may have some space left; it is full after a bounded number of changes.
    let mut refused = None;
    for n in 0..2_000 {
        let reply = site
            .admin()
            .post("/admin/organizations", json!({"org_code": format!("o{n}"), "name": "x".repeat(200)}))
            .await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("the disk was never full");
    assert_eq!(refused.status, 500);
    assert_eq!(refused.word(), "database_full");
    let read = site.admin().get(&format!("/admin/members/{}", member["uid"].as_str().expect("uid"))).await.data();
    assert_eq!(read["username"], "kim");
    site.unlimit_file_size();
    site.admin().post("/admin/organizations", json!({"org_code": "after", "name": "After"})).await.done();
}
