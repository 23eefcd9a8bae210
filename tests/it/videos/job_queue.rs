//! Claims on queues of any size: what a claim reads, the order among members, held jobs, and waiting workers.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::join;
use uuid::Uuid;

use super::jobs::{claim, claim_one, queue, report, steps, text, worker};
use super::registration::service;
use crate::harness::callers::As;
use crate::harness::site::Site;
use crate::harness::waiting::eventually;

const CLAIM: &str = "/api/v1/jobs/claim";
/// Far longer than any step of these tests. A worker that is not woken before that gets nothing.
const LONG_S: u64 = 30;

fn none() -> Vec<Value> {
    Vec::new()
}

/// The number of changes by the writer since the start.
fn changes(site: &Site) -> u64 {
    site.metric("roster_writer_jobs")
}

async fn until_waiting(site: &Site, count: u64) {
    eventually("the claims wait", async || site.metric("roster_jobs_waiting") == count).await;
}

/// Starts a claim that waits.
async fn wait(worker: &As<'_>, mut body: Value) -> Vec<Value> {
    body["wait_s"] = json!(LONG_S);
    claim(worker, body).await
}

/// A service that registers videos in the folder `kim` of this member.
async fn uploads<'s>(site: &'s Site, uid: &str) -> As<'s> {
    site.admin().patch(&format!("/admin/users/{uid}"), json!({"sftpgo_username": "kim"})).await.done();
    service(site, &["videos:write"]).await.with("x-sftpgo-user", "kim")
}

async fn set_status(site: &Site, what: &str, status: &str) {
    site.admin().post(&format!("{what}/{status}"), json!({})).await.done();
}

#[test]
fn the_statements_of_claims_and_leases_use_an_index_and_do_not_sort() {
    let connection = rusqlite::Connection::open_in_memory().expect("memory");
    connection.execute_batch(roster::kernel::db::schema::SCHEMA).expect("schema.sql");
    // Statements of single jobs, of lists and of statistics.
    const OTHERS: [&str; 7] =
        ["INSERT_JOB", "FIND_JOB", "COUNT_JOBS", "COUNT_JOBS_IN", "COUNT_JOBS_OF", "COUNT_CREATED", "COUNT_CREATED_IN"];
    let mut seen = 0;
    for (name, sql) in crate::rules::schema::statements() {
        let is_other = OTHERS.iter().any(|other| name.ends_with(&format!(": {other}")));
        if !name.contains("/jobs/store.rs") || is_other {
            continue;
        }
        seen += 1;
        let mut plan = connection.prepare(&format!("explain query plan {sql}")).expect("plan");
        let mut rows = plan.raw_query();
        while let Some(row) = rows.next().expect("row") {
            let step: String = row.get(3).expect("step");
            let is_small =
                ["SCAN found", "SCAN CONSTANT ROW", "SCAN (subquery"].iter().any(|small| step.starts_with(small));
            assert!(is_small || !step.starts_with("SCAN"), "{name}: {step}");
            assert!(!step.contains("TEMP B-TREE"), "{name}: {step}");
        }
    }
    assert_eq!(seen, 23, "statements of claims and leases");
}

#[tokio::test]
async fn a_claim_without_a_result_does_not_use_the_writer() {
    let site = Site::with("jobs.backoff_s = 3600").await;
    let bolt = site.organization("bolt").await;
    let (held, late, seen) = (site.member().await, bolt.member().await, site.member().await);
    queue(&site, &held.uid, None, 2);
    set_status(&site, &format!("/admin/members/{}", held.uid), "deactivate").await;
    queue(&site, &late.uid, Some(&bolt.id), 1);
    let key = worker(&site).await;
    let job = claim_one(&key).await;
    report(&key, &job, "fail", json!({"error": "later"})).await.done();
    let gone = queue(&site, &seen.uid, None, 1).remove(0);
    let gone = Uuid::parse_str(&gone).expect("an id").into_bytes();
    site.write_rows(|rows| rows.execute("delete from jobs where id = ?1", [gone]));
    // The first claim sets aside jobs that cannot be claimed.
    assert_eq!(claim(&key, json!({})).await, none());
    queue(&site, &late.uid, Some(&bolt.id), 1);

    let before = changes(&site);
    for _ in 0..20 {
        assert_eq!(claim(&key, json!({"processors": ["pose"], "count": 5})).await, none());
        assert_eq!(claim(&key, json!({"processors": ["face", "ocr"]})).await, none());
    }
    assert_eq!(changes(&site), before);
    assert_eq!(claim(&key, json!({})).await.len(), 1);
    assert_eq!(changes(&site), before + 1);
}

#[tokio::test]
async fn members_alternate_within_one_claim_and_across_processors() {
    let site = Site::start().await;
    let (many, few) = (site.member().await, site.member().await);
    let first = queue(&site, &many.uid, None, 2_000);
    let late = queue(&site, &few.uid, None, 2);
    let key = worker(&site).await;
    let ids = |jobs: &[Value]| -> Vec<String> { jobs.iter().map(|job| text(&job["id"])).collect() };
    let got = claim(&key, json!({"count": 5})).await;
    assert_eq!(ids(&got), [&first[0], &late[0], &first[1], &late[1], &first[2]].map(Clone::clone));

    // Jobs that wait for another processor are in another queue of the same member, but the order among members covers
    // both queues.
    for job in &got[..2] {
        steps(&key, job, &[("cut", "completed")]).await.done();
        report(&key, job, "fail", json!({"error": "asr is broken"})).await.done();
    }
    site.write_rows(|rows| {
        rows.execute("update jobs set run_at = 0 where state = 'queued' and attempts > 0", [])?;
        rows.execute("update job_queues set since = 0 where ready <> 3", [])
    });
    let got = claim(&key, json!({"count": 3, "processors": ["cut", "pose"]})).await;
    assert_eq!(ids(&got), [&late[0], &first[0], &first[3]].map(Clone::clone));
}

#[tokio::test]
async fn jobs_of_suspended_members_and_inactive_organizations_are_skipped_and_return() {
    const MEMBERS: usize = 520;
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let ids: Vec<[u8; 16]> = (0..MEMBERS).map(|_| Uuid::now_v7().into_bytes()).collect();
    site.write_rows(|rows| {
        ids.iter().try_for_each(|id| {
            let statement = "insert into members (id, status, created_at, updated_at) values (?1, 'active', 1, 1)";
            rows.execute(statement, [id]).map(drop)
        })
    });
    for id in &ids {
        queue(&site, &Uuid::from_bytes(*id).to_string(), Some(&acme.id), 1);
    }
    let free = site.member().await;
    let last = queue(&site, &free.uid, None, 1).remove(0);
    let key = worker(&site).await;
    let organization = format!("/admin/organizations/{}", acme.id);
    let states = || -> BTreeMap<String, i64> {
        let rows = site.rows();
        let mut all = rows.prepare("select state, count(*) from job_queues group by state").expect("queues");
        all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows").map(|row| row.expect("row")).collect()
    };

    // One claim skips all closed queues, although it may not read that many at once.
    set_status(&site, &organization, "deactivate").await;
    assert_eq!(claim_one(&key).await["id"], json!(last));
    assert_eq!(claim(&key, json!({})).await, none());
    assert_eq!(states(), BTreeMap::from([("closed".to_owned(), MEMBERS as i64)]));
    let before = changes(&site);
    assert_eq!(claim(&key, json!({})).await, none());
    assert_eq!(changes(&site), before);

    // Most jobs return in the change itself, the rest soon after.
    set_status(&site, &organization, "activate").await;
    assert_eq!(claim(&key, json!({"count": 5})).await.len(), 5);
    eventually("all jobs are ready", async || states() == BTreeMap::from([("open".to_owned(), MEMBERS as i64 - 5)]))
        .await;

    // The same for members, each of whom is activated separately.
    site.write_rows(|rows| rows.execute("update members set status = 'suspended' where created_at = 1", []));
    assert_eq!(claim(&key, json!({})).await, none());
    assert_eq!(states(), BTreeMap::from([("held".to_owned(), MEMBERS as i64 - 5)]));
    let uid = Uuid::from_bytes(ids[MEMBERS - 1]).to_string();
    set_status(&site, &format!("/admin/members/{uid}"), "activate").await;
    assert_eq!(claim_one(&key).await["member_id"], json!(uid));
}

#[tokio::test]
async fn a_job_follows_its_video_to_another_owner() {
    let site = Site::start().await;
    let (from, to) = (site.member().await, site.member().await);
    let id = queue(&site, &from.uid, None, 1).remove(0);
    let video = text(&site.admin().get(&format!("/api/v1/jobs/{id}")).await.data()["video_id"]);
    let body = json!({"uid": to.uid});
    site.admin().post(&format!("/api/v1/videos/{video}/transfer"), body).await.done();
    set_status(&site, &format!("/admin/members/{}", from.uid), "deactivate").await;
    assert_eq!(claim_one(&worker(&site).await).await["member_id"], json!(to.uid));
}

#[tokio::test]
async fn a_waiting_claim_is_woken_by_everything_that_makes_a_job_ready() {
    let site = Site::with("jobs.backoff_s = 1").await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let uploads = uploads(&site, &member.uid).await;
    let key = worker(&site).await;

    // A registration.
    let (jobs, ()) = join!(wait(&key, json!({"processors": ["cut"]})), async {
        until_waiting(&site, 1).await;
        uploads.post("/api/v1/register", json!({"path": "kim/a.mp4", "size": 1})).await.done();
    });
    let job = jobs[0].clone();

    // A completed step.
    let (jobs, ()) = join!(wait(&key, json!({"processors": ["yolo"], "lease_s": 1})), async {
        until_waiting(&site, 1).await;
        report(&key, &job, "complete", json!({})).await.done();
    });
    assert_eq!(jobs[0]["id"], job["id"]);

    // An expired lease, followed by the wait before the next attempt.
    let jobs = wait(&key, json!({})).await;
    assert_eq!((&jobs[0]["id"], &jobs[0]["attempts"]), (&job["id"], &json!(1)));
    report(&key, &jobs[0], "fail", json!({"error": "broken", "retry": false})).await.done();

    // A retry.
    let (mut jobs, ()) = join!(wait(&key, json!({})), async {
        until_waiting(&site, 1).await;
        site.admin().post(&format!("/api/v1/jobs/{}/retry", text(&job["id"])), json!({})).await.done();
    });

    // The activation of a member, and of an organization.
    for what in [format!("/admin/members/{}", member.uid), format!("/admin/organizations/{}", acme.id)] {
        report(&key, &jobs[0], "fail", json!({"error": "once more"})).await.done();
        set_status(&site, &what, "deactivate").await;
        jobs = join!(wait(&key, json!({})), async {
            until_waiting(&site, 1).await;
            set_status(&site, &what, "activate").await;
        })
        .0;
        assert_eq!(jobs[0]["id"], job["id"], "{what}");
    }
}

#[tokio::test]
async fn one_waiting_claim_is_woken_per_job_and_the_number_of_waiting_claims_is_limited() {
    const WAITING: usize = 5;
    let mut site = Site::with(&format!("jobs.waiting = {WAITING}")).await;
    let member = site.member().await.uid;
    let made = site.command(&["key", "create", "worker", "--service", "worker", "--scopes", "jobs:write"]);
    let key = text(&made["api_key"]);
    let (url, http) = (site.url.clone(), site.http.clone());
    let claims: Vec<_> = (0..WAITING)
        .map(|_| {
            let request = http.post(format!("{url}{CLAIM}")).header("x-api-key", &key).json(&json!({"wait_s": LONG_S}));
            tokio::spawn(async move { request.send().await.expect("an answer").json::<Value>().await.expect("JSON") })
        })
        .collect();
    until_waiting(&site, WAITING as u64).await;
    let one_more = site.nobody().with("x-api-key", &key).post(CLAIM, json!({"wait_s": LONG_S})).await;
    assert_eq!((one_more.status, one_more.word(), one_more.header("retry-after")), (503, "busy", Some("1")));
    // A claim that does not wait is not counted.
    assert_eq!(claim(&site.nobody().with("x-api-key", &key), json!({"wait_s": 0})).await, none());

    // One job wakes one claim, by one change; the others do not use the writer.
    let uploads_key = uploads(&site, &member).await;
    let before = changes(&site);
    uploads_key.post("/api/v1/register", json!({"path": "kim/a.mp4", "size": 1})).await.done();
    until_waiting(&site, WAITING as u64 - 1).await;
    assert_eq!(changes(&site), before + 2);
    for n in 1..3 {
        uploads_key.post("/api/v1/register", json!({"path": format!("kim/{n}.mp4"), "size": 1})).await.done();
    }
    until_waiting(&site, WAITING as u64 - 3).await;
    assert_eq!(changes(&site), before + 2 + 2 * 2);

    // A revoked key gets nothing, however long it has waited.
    let other = site.command(&["key", "create", "other", "--service", "other", "--scopes", "jobs:write"]);
    let request = http.post(format!("{url}{CLAIM}")).header("x-api-key", text(&other["api_key"]));
    let late = request.json(&json!({"wait_s": LONG_S, "processors": ["pose"]}));
    let late = tokio::spawn(async move { late.send().await.expect("an answer").status().as_u16() });
    until_waiting(&site, WAITING as u64 - 2).await;
    site.command(&["key", "revoke", &text(&other["id"])]);
    assert_eq!(late.await.expect("a claim"), 401);

    // A stop ends every wait.
    site.restart().await;
    let mut counts = Vec::new();
    for claim in claims {
        counts.push(claim.await.expect("a claim")["data"]["jobs"].as_array().expect("jobs").len());
    }
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 1, 1, 1]);
}

#[tokio::test]
async fn one_client_cannot_take_every_waiting_slot() {
    let mut site = Site::with("jobs.waiting = 5\njobs.waiting_per_caller = 3").await;
    let key = |name: &str| {
        text(&site.command(&["key", "create", name, "--service", name, "--scopes", "jobs:write"])["api_key"])
    };
    let (loud, quiet) = (key("loud"), key("quiet"));
    let (url, http) = (site.url.clone(), site.http.clone());
    let wait = |key: &str| {
        let request = http.post(format!("{url}{CLAIM}")).header("x-api-key", key).json(&json!({"wait_s": LONG_S}));
        tokio::spawn(async move { request.send().await.expect("an answer").status().as_u16() })
    };
    let mut claims: Vec<_> = (0..3).map(|_| wait(&loud)).collect();
    until_waiting(&site, 3).await;

    let one_more = site.nobody().with("x-api-key", &loud).post(CLAIM, json!({"wait_s": LONG_S})).await;
    claims.extend((0..2).map(|_| wait(&quiet)));
    until_waiting(&site, 5).await;

    assert_eq!((one_more.status, one_more.word()), (503, "busy"));
    // After the restart all slots are free again.
    site.restart().await;
    for claim in claims {
        assert_eq!(claim.await.expect("a claim"), 200);
    }
}

#[tokio::test]
async fn a_wait_ends_at_its_timeout_which_the_settings_limit() {
    let site = Site::with("jobs.wait_s = 1").await;
    let key = worker(&site).await;
    assert_eq!(claim(&key, json!({"wait_s": 3_600})).await, none());
    assert_eq!(key.post(CLAIM, json!({"wait_s": 3_601})).await.is(10_101_000).fields(), ["body.wait_s"]);
}
