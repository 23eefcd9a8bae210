//! Jobs: claims, leases, their order, and their results.

use std::collections::BTreeSet;
use std::process::Command;

use futures_util::future::join_all;
use rusqlite::params;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::callers::{As, Reply};
use crate::harness::site::{Site, binary};
use crate::harness::waiting::eventually;

const NOW: &str = "cast(unixepoch('subsec') * 1000 as integer)";

/// Queues a job for each of several new videos of a member. Returns their ids, the oldest first.
pub fn queue(site: &Site, uid: &str, org_id: Option<&str>, count: usize) -> Vec<String> {
    let member = Uuid::parse_str(uid).expect("uid").into_bytes();
    let organization = org_id.map(|id| Uuid::parse_str(id).expect("id").into_bytes());
    let steps: Vec<Value> = ["asr", "cut", "yolo", "ocr", "face", "pose"]
        .iter()
        .map(|processor| {
            let state = if ["asr", "cut"].contains(processor) { "ready" } else { "waiting" };
            json!({"processor": processor, "state": state, "progress_percent": 0, "error": null})
        })
        .collect();
    let steps = json!(steps).to_string();
    site.write_rows(|rows| {
        let mut ids = Vec::new();
        for _ in 0..count {
            let (id, video) = (Uuid::now_v7(), Uuid::now_v7().simple().to_string()[16..].to_owned());
            rows.execute(
                &format!(
                    "insert into videos (id, path, member_id, organization_id, size, created_at, updated_at)
                     values (?1, 'kim/' || ?1 || '.mp4', ?2, ?3, 0, {NOW}, {NOW})"
                ),
                params![video, member, organization],
            )?;
            rows.execute(
                &format!(
                    "insert into jobs (id, video_number, member_id, organization_id, kind, state, run_at, steps, ready, created_at, updated_at)
                     values (?1, (select number from videos where id = ?2), ?3, ?4, 'auto_ingestion', 'queued', {NOW}, ?5, 3, {NOW}, {NOW})"
                ),
                params![id.as_bytes(), video, member, organization, steps],
            )?;
            rows.execute(
                "insert into job_queues (member_id, organization_id, ready, state, turn, since)
                     values (?1, coalesce(?2, x''), 3, 'open',
                             1000 * coalesce((select max(leased_at) from jobs where member_id = ?1), 0),
                             (select run_at from jobs where id = ?3))
                     on conflict do update
                     set since = min(since, excluded.since), state = iif(state = 'later', 'open', state)",
                params![member, organization, id.as_bytes()],
            )?;
            ids.push(id.to_string());
        }
        Ok(ids)
    })
}

/// A service that claims jobs.
pub async fn worker(site: &Site) -> As<'_> {
    let body = json!({"service_name": "worker", "scopes": ["jobs:write"]});
    let made = site.admin().post("/admin/api-keys", body).await.data();
    site.nobody().with("x-api-key", made["api_key"].as_str().expect("a key"))
}

pub async fn claim(worker: &As<'_>, body: Value) -> Vec<Value> {
    worker.post("/api/v1/jobs/claim", body).await.data()["jobs"].as_array().expect("jobs").clone()
}

pub async fn claim_one(worker: &As<'_>) -> Value {
    let mut jobs = claim(worker, json!({})).await;
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

pub async fn report(worker: &As<'_>, job: &Value, what: &str, mut body: Value) -> Reply {
    body["lease_id"] = job["lease_id"].clone();
    worker.post(&format!("/api/v1/jobs/{}/{what}", text(&job["id"])), body).await
}

pub async fn steps(worker: &As<'_>, job: &Value, steps: &[(&str, &str)]) -> Reply {
    let steps: Vec<Value> = steps.iter().map(|(name, state)| json!({"processor": name, "state": state})).collect();
    report(worker, job, "heartbeat", json!({"steps": steps})).await
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn get_job(site: &Site, id: &Value) -> Value {
    site.admin().get(&format!("/api/v1/jobs/{}", text(id))).await.data()
}

fn state_of<'v>(job: &'v Value, processor: &str) -> &'v str {
    let steps = job["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["processor"] == processor).expect("the step")["state"].as_str().expect("state")
}

#[tokio::test]
async fn twenty_workers_get_two_hundred_jobs_each_once() {
    const JOBS: usize = 200;
    let site = Site::start().await;
    let members = [site.member().await, site.member().await, site.member().await, site.member().await];
    let mut queued = BTreeSet::new();
    for member in &members {
        queued.extend(queue(&site, &member.uid, None, JOBS / members.len()));
    }
    let key = worker(&site).await;

    let all = join_all((0..20).map(|n| {
        let key = &key;
        async move {
            let mut mine = Vec::new();
            loop {
                let got = claim(key, json!({"count": 1 + n % 3})).await;
                if got.is_empty() {
                    break mine;
                }
                mine.extend(got.iter().map(|job| text(&job["id"])));
            }
        }
    }))
    .await;

    let claimed: Vec<String> = all.into_iter().flatten().collect();
    assert_eq!(claimed.len(), JOBS);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), queued);
}

#[tokio::test]
async fn a_claimed_job_lists_its_steps() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let ids = queue(&site, &member.uid, Some(&acme.id), 1);
    let key = worker(&site).await;

    let job = claim_one(&key).await;

    assert_eq!(job["id"], json!(ids[0]));
    assert_eq!(job["sftpgo_username"], "kim");
    assert_eq!(job["path"], json!(format!("kim/{}.mp4", text(&job["video_id"]))));
    assert_eq!((&job["member_id"], &job["organization_id"]), (&json!(member.uid), &json!(acme.id)));
    assert_eq!(job["attempts"], 0);
    let names: Vec<&str> =
        job["steps"].as_array().unwrap().iter().map(|step| step["processor"].as_str().unwrap()).collect();
    assert_eq!(names, ["asr", "cut", "yolo", "ocr", "face", "pose"]);
    assert_eq!(job["steps"][2]["needs"], json!(["cut"]));
    assert_eq!(claim(&key, json!({})).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_video_of_a_new_user_is_a_job_for_a_worker() {
    let media = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(media.path().join("kim")).expect("a folder");
    std::fs::write(media.path().join("kim/a.mp4"), "video").expect("a file");
    let site = Site::with(&format!("media_root = {:?}", media.path())).await;
    let body = json!({"username": "Kim.L", "email": "kim@example.org", "sftpgo_username": "kim"});
    let user = site.admin().post("/api/v1/admin/users", body).await.data();
    let own = site.nobody().with("x-api-key", &text(&user["api_key"]));

    let video = own.post("/api/v1/register", json!({"path": "kim/a.mp4"})).await.data();
    own.post("/api/v1/register", json!({"path": "kim/a.mp4"})).await.done();

    let key = worker(&site).await;
    let job = claim_one(&key).await;
    assert_eq!((&job["video_id"], &job["path"]), (&video["uuid"], &json!("kim/a.mp4")));
    assert_eq!((&job["sftpgo_username"], &job["member_id"]), (&json!("kim"), &user["id"]));
    assert_eq!(claim(&key, json!({})).await, Vec::<Value>::new());
    let seen = site.admin().get(&format!("/api/v1/admin/users/{}", text(&user["id"]))).await.data();
    assert_eq!(seen["quota_used"], 5);
    // Deleting the video deletes its job, even while a worker holds it.
    own.delete(&format!("/api/v1/videos/{}", text(&video["uuid"]))).await.done();
    assert_eq!(report(&key, &job, "complete", json!({})).await.is(33_301_000).word(), "job_not_found");
}

#[tokio::test]
async fn steps_wait_for_their_dependencies_and_at_most_two_run() {
    let site = Site::start().await;
    let member = site.member().await;
    queue(&site, &member.uid, None, 1);
    let key = worker(&site).await;
    let job = claim_one(&key).await;

    let early = steps(&key, &job, &[("yolo", "running")]).await;
    assert_eq!(early.is(33_309_000).word(), "step_state");
    steps(&key, &job, &[("asr", "running"), ("cut", "running")]).await.done();
    let seen = steps(&key, &job, &[("cut", "completed")]).await.data();
    assert_eq!(["yolo", "ocr", "face", "pose"].map(|name| state_of(&seen, name)), ["ready"; 4]);
    // At the limit of two, and one past it, which changes nothing.
    steps(&key, &job, &[("yolo", "running")]).await.done();
    assert_eq!(steps(&key, &job, &[("ocr", "running")]).await.is(33_309_000).word(), "processors_busy");
    assert_eq!(state_of(&get_job(&site, &job["id"]).await, "ocr"), "ready");
    let half = json!({"steps": [{"processor": "asr", "state": "running", "progress_percent": 50}]});
    let seen = report(&key, &job, "heartbeat", half).await.data();
    assert_eq!(seen["progress_percent"], 150 / 6);
    // A finished step cannot start again.
    assert_eq!(steps(&key, &job, &[("cut", "running")]).await.word(), "step_state");
    let last = [("yolo", "completed"), ("ocr", "skipped"), ("face", "completed"), ("pose", "completed")];
    steps(&key, &job, &last).await.done();
    let done = steps(&key, &job, &[("asr", "skipped")]).await.data();
    assert_eq!((&done["state"], &done["progress_percent"]), (&json!("done"), &json!(100)));
    // A repeated report changes nothing.
    report(&key, &job, "complete", json!({})).await.done();
    steps(&key, &job, &[("asr", "skipped")]).await.done();
}

#[tokio::test]
async fn a_claim_for_some_processors_leaves_the_other_steps() {
    let site = Site::start().await;
    let member = site.member().await;
    queue(&site, &member.uid, None, 1);
    let key = worker(&site).await;

    assert_eq!(claim(&key, json!({"processors": ["yolo"]})).await, Vec::<Value>::new());
    let job = claim(&key, json!({"processors": ["asr"]})).await.remove(0);
    assert_eq!(steps(&key, &job, &[("cut", "running")]).await.word(), "step_state");
    let left = report(&key, &job, "complete", json!({})).await.data();
    assert_eq!(
        (&left["state"], state_of(&left, "asr"), state_of(&left, "cut")),
        (&json!("queued"), "completed", "ready")
    );
    assert_eq!(claim(&key, json!({"processors": ["asr"]})).await, Vec::<Value>::new());
    let rest = claim_one(&key).await;
    // The first worker's lease has ended.
    assert_eq!(report(&key, &job, "complete", json!({})).await.is(33_309_000).word(), "lease_lost");
    assert_eq!(report(&key, &rest, "complete", json!({})).await.data()["state"], "done");
}

#[tokio::test]
async fn an_expired_lease_counts_as_an_attempt_and_the_last_one_leaves_the_job_dead() {
    let site = Site::with("jobs.backoff_s = 0\njobs.attempts = 2").await;
    let member = site.member().await;
    let id = queue(&site, &member.uid, None, 1).remove(0);
    let key = worker(&site).await;
    let first = claim(&key, json!({"lease_s": 1})).await.remove(0);
    steps(&key, &first, &[("cut", "completed"), ("asr", "running")]).await.done();

    let second = eventually("the job is claimed again", async || claim(&key, json!({"lease_s": 1})).await.pop()).await;
    assert_eq!((&second["id"], &second["attempts"]), (&json!(id), &json!(1)));
    assert_ne!(second["lease_id"], first["lease_id"]);
    for what in ["heartbeat", "complete"] {
        assert_eq!(report(&key, &first, what, json!({})).await.is(33_309_000).word(), "lease_lost", "{what}");
    }
    assert_eq!(report(&key, &first, "fail", json!({"error": "late"})).await.word(), "lease_lost");
    // Finished steps stay finished; a running step starts again.
    let seen = get_job(&site, &json!(id)).await;
    assert_eq!((state_of(&seen, "cut"), state_of(&seen, "asr")), ("completed", "ready"));

    eventually("dead", async || {
        assert_eq!(claim(&key, json!({})).await, Vec::<Value>::new());
        get_job(&site, &json!(id)).await["state"] == "dead"
    })
    .await;
    let told = site.events("job.dead");
    assert_eq!((told.len(), &told[0]["job"], &told[0]["attempts"]), (1, &json!(id), &json!(2)));

    let retry = format!("/api/v1/jobs/{id}/retry");
    let queued = site.admin().post(&retry, json!({})).await.data();
    assert_eq!((&queued["state"], &queued["attempts"]), (&json!("queued"), &json!(0)));
    assert_eq!(site.admin().post(&retry, json!({})).await.is(33_309_000).word(), "job_not_dead");
    assert_eq!(claim_one(&key).await["id"], json!(id));
}

#[tokio::test]
async fn a_failed_job_waits_twice_as_long_each_time_and_a_repeated_failure_counts_once() {
    let site = Site::with("jobs.backoff_s = 600\njobs.attempts = 3").await;
    let member = site.member().await;
    let id = queue(&site, &member.uid, None, 1).remove(0);
    let key = worker(&site).await;
    let due = |site: &Site| {
        let statement = "update jobs set run_at = 0 where id = ?1 and state = 'queued'";
        let id = Uuid::parse_str(&id).unwrap().into_bytes();
        site.write_rows(|rows| {
            rows.execute(statement, [id])?;
            rows.execute("update job_queues set since = 0", [])
        });
    };
    for (attempt, wait_ms) in [(1, 600_000), (2, 1_200_000)] {
        let job = claim_one(&key).await;
        let why = json!({"error": "no decoder"});
        let failed = report(&key, &job, "fail", why.clone()).await.data();
        assert_eq!((&failed["state"], &failed["attempts"]), (&json!("queued"), &json!(attempt)));
        assert_eq!(failed["last_error"], "no decoder");
        assert_eq!(failed["run_at"].as_i64().unwrap() - failed["updated_at"].as_i64().unwrap(), wait_ms);
        assert_eq!(report(&key, &job, "fail", why).await.data(), failed);
        assert_eq!(report(&key, &job, "complete", json!({})).await.word(), "lease_lost");
        assert_eq!(claim(&key, json!({})).await, Vec::<Value>::new());
        due(&site);
    }
    let job = claim_one(&key).await;
    assert_eq!(report(&key, &job, "fail", json!({"error": "again"})).await.data()["state"], "dead");
    assert_eq!(site.events("job.dead").len(), 1);
}

#[tokio::test]
async fn a_permanent_failure_leaves_the_job_dead_at_once() {
    let site = Site::start().await;
    let member = site.member().await;
    queue(&site, &member.uid, None, 1);
    let key = worker(&site).await;
    let job = claim_one(&key).await;
    steps(&key, &job, &[("asr", "running")]).await.done();
    let dead = report(&key, &job, "fail", json!({"error": "not a video", "retry": false})).await.data();
    assert_eq!((&dead["state"], state_of(&dead, "asr")), (&json!("dead"), "failed"));
    assert_eq!(site.events("job.dead")[0]["error"], "not a video");
}

#[tokio::test]
async fn jobs_of_inactive_members_are_held_and_running_ones_continue() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    queue(&site, &member.uid, Some(&acme.id), 2);
    let key = worker(&site).await;
    let running = claim_one(&key).await;
    let (suspended, inactive) = (format!("/admin/members/{}", member.uid), format!("/admin/organizations/{}", acme.id));

    for (what, close) in [(suspended, "deactivate"), (inactive, "deactivate")] {
        site.admin().post(&format!("{what}/{close}"), json!({})).await.done();
        assert_eq!(claim(&key, json!({})).await, Vec::<Value>::new(), "{what}");
        let counts = site.admin().get("/api/v1/jobs/counts").await.data();
        assert_eq!((&counts["queued"], &counts["held"], &counts["leased"]), (&json!(0), &json!(1), &json!(1)));
        let held = site.admin().get("/api/v1/jobs?state=held").await.data();
        assert_eq!((&held["total"], &held["items"][0]["state"]), (&json!(1), &json!("held")));
        report(&key, &running, "heartbeat", json!({})).await.done();
        let before = site.last_audit_entry().await;
        site.admin().post(&format!("{what}/activate"), json!({})).await.done();
        assert_eq!(site.last_audit_entry().await["id"].as_i64(), before["id"].as_i64().map(|id| id + 1));
    }

    site.admin().post(&format!("/admin/members/{}/deactivate", member.uid), json!({})).await.done();
    assert_eq!(report(&key, &running, "complete", json!({})).await.data()["state"], "done");
    site.admin().post(&format!("/admin/members/{}/activate", member.uid), json!({})).await.done();
    claim_one(&key).await;
}

#[tokio::test]
async fn members_alternate_however_many_jobs_one_has() {
    let site = Site::start().await;
    let (many, few) = (site.member().await, site.member().await);
    let first = queue(&site, &many.uid, None, 5);
    let late = queue(&site, &few.uid, None, 2);
    let key = worker(&site).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(text(&claim_one(&key).await["id"]));
    }
    assert_eq!(order, [&first[0], &late[0], &first[1]].map(Clone::clone));
    let rest = claim(&key, json!({"count": 4})).await;
    let rest: Vec<String> = rest.iter().map(|job| text(&job["id"])).collect();
    assert_eq!(rest, [&late[1], &first[2], &first[3], &first[4]].map(Clone::clone));
}

#[tokio::test]
async fn a_claim_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::with("jobs.claim = 2").await;
    let member = site.member().await;
    queue(&site, &member.uid, None, 4);
    let key = worker(&site).await;
    assert_eq!(claim(&key, json!({"count": 2})).await.len(), 2);
    assert_eq!(claim(&key, json!({"count": 3})).await.len(), 2);
    let reply = key.post("/api/v1/jobs/claim", json!({"count": 0, "processors": [], "lease_s": 0, "x": 1})).await;
    assert_eq!(reply.is(10_101_000).fields(), ["body.count", "body.lease_s", "body.processors", "body.x"]);
}

#[tokio::test]
async fn only_the_holder_of_a_lease_reports() {
    let site = Site::start().await;
    let member = site.member().await;
    queue(&site, &member.uid, None, 1);
    let (key, other) = (worker(&site).await, worker(&site).await);
    let job = claim_one(&key).await;
    for (what, body) in [("heartbeat", json!({})), ("complete", json!({})), ("fail", json!({"error": "x"}))] {
        assert_eq!(report(&other, &job, what, body.clone()).await.is(33_309_000).word(), "lease_lost", "{what}");
        let nowhere = json!({"id": Uuid::now_v7().to_string(), "lease_id": job["lease_id"]});
        assert_eq!(report(&key, &nowhere, what, body).await.is(33_301_000).word(), "job_not_found", "{what}");
    }
    // A member's own key cannot claim jobs.
    let made = member.caller().post("/me/api-keys", json!({"name": "own"})).await.data();
    let own = site.nobody().with("x-api-key", &text(&made["api_key"]));
    own.post("/api/v1/jobs/claim", json!({})).await.is(33_505_000);
    // A client with the scope can, and a service without it cannot.
    assert_eq!(claim(&site.client(&["jobs:write"]).await, json!({})).await, Vec::<Value>::new());
    site.client(&["jobs:read"]).await.post("/api/v1/jobs/claim", json!({})).await.is(32_505_000);
    report(&key, &job, "complete", json!({})).await.done();
}

#[tokio::test]
async fn a_member_sees_its_own_jobs_and_a_tenant_only_those_of_its_members() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, colleague) = (acme.member().await, acme.member().await);
    let (viewer, stranger) = (acme.member_with_role("viewer").await, bolt.member_with_role("tenant_admin").await);
    let id = queue(&site, &member.uid, Some(&acme.id), 1).remove(0);
    queue(&site, &stranger.uid, Some(&bolt.id), 1);
    let total = async |caller: As<'_>| caller.get("/api/v1/jobs").await.data()["total"].clone();
    let path = format!("/api/v1/jobs/{id}");

    assert_eq!(total(site.admin()).await, 2);
    for caller in [member.caller(), viewer.caller()] {
        assert_eq!(total(caller.clone()).await, 1);
        assert_eq!(caller.get(&path).await.data()["id"], json!(id));
        assert_eq!(caller.get("/api/v1/jobs/counts").await.data()["queued"], 1);
    }
    for caller in [colleague.caller(), stranger.caller()] {
        assert_eq!(caller.get(&path).await.is(33_301_000).word(), "job_not_found");
    }
    assert_eq!(total(colleague.caller()).await, 0);
    assert_eq!(total(stranger.caller()).await, 1);
    assert_eq!(stranger.caller().post(&format!("{path}/retry"), json!({})).await.word(), "job_not_found");
    // No filter gives access to the jobs of others.
    let others = format!("/api/v1/jobs?member={}", member.uid);
    assert_eq!(colleague.caller().get(&others).await.data()["total"], 0);
    // A key sees jobs only within its scopes.
    let key = async |scopes: &[&str]| {
        let body = json!({"name": "own", "scopes": scopes});
        let made = member.caller().post("/me/api-keys", body).await.data();
        site.nobody().with("x-api-key", &text(&made["api_key"]))
    };
    assert_eq!(total(key(&["jobs:read"]).await).await, 1);
    key(&["me:read"]).await.get("/api/v1/jobs").await.is(32_505_000);
    // Workers belong to the site: none claims jobs on behalf of one organization.
    let worker = worker(&site).await.with("x-tenant-id", "bolt");
    worker.post("/api/v1/jobs/claim", json!({"count": 5})).await.is(33_505_000);
}

#[tokio::test]
async fn lists_are_narrowed_by_state_member_video_and_processor() {
    let site = Site::start().await;
    let (kim, lee) = (site.member().await, site.member().await);
    queue(&site, &kim.uid, None, 2);
    queue(&site, &lee.uid, None, 1);
    let key = worker(&site).await;
    let job = claim_one(&key).await;
    steps(&key, &job, &[("asr", "completed")]).await.done();
    let total = async |query: &str| {
        site.admin().get(&format!("/api/v1/jobs?{query}")).await.data()["total"].as_i64().expect("total")
    };
    assert_eq!(total("state=leased").await, 1);
    assert_eq!(total("state=queued").await, 2);
    assert_eq!(total(&format!("member={}", kim.uid)).await, 2);
    assert_eq!(total(&format!("video={}", text(&job["video_id"]))).await, 1);
    assert_eq!(total("processor=asr").await, 2);
    assert_eq!(total("processor=cut").await, 3);
    assert_eq!(site.admin().get("/api/v1/jobs?state=lost").await.is(10_101_000).fields(), ["query.state"]);
}

#[tokio::test]
async fn a_lease_survives_a_restart() {
    let mut site = Site::start().await;
    let member = site.member().await;
    queue(&site, &member.uid, None, 2);
    let made = site.command(&["key", "create", "worker", "--service", "worker", "--scopes", "jobs:write"]);
    let key = text(&made["api_key"]);
    let job = claim_one(&site.nobody().with("x-api-key", &key)).await;

    site.kill();
    site.start_again();
    let worker = site.nobody().with("x-api-key", &key);
    steps(&worker, &job, &[("cut", "completed")]).await.done();
    let other = claim(&worker, json!({"count": 5})).await;
    assert_eq!(other.len(), 1);
    assert_ne!(other[0]["id"], job["id"]);
    site.restart().await;
    let worker = site.nobody().with("x-api-key", &key);
    assert_eq!(report(&worker, &job, "complete", json!({})).await.data()["state"], "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_claim_is_lost_or_given_twice_when_the_server_is_killed() {
    const JOBS: usize = 300;
    let mut site = Site::start().await;
    let member = site.member().await.uid;
    queue(&site, &member, None, JOBS);
    let made = site.command(&["key", "create", "worker", "--service", "worker", "--scopes", "jobs:write"]);
    let key = text(&made["api_key"]);
    let mut answered: Vec<String> = Vec::new();
    for round in 0..3_u64 {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (url, key) = (site.url.clone(), key.clone());
                tokio::spawn(async move {
                    let http = crate::harness::site::http_client().build().expect("client");
                    let mut mine = Vec::new();
                    for _ in 0..JOBS {
                        let request = http.post(format!("{url}/api/v1/jobs/claim")).header("x-api-key", &key);
                        let Ok(answer) = request.json(&json!({"lease_s": 3600})).send().await else { break };
                        let Ok(answer) = answer.json::<Value>().await else { break };
                        mine.extend(
                            answer["data"]["jobs"].as_array().expect("jobs").iter().map(|job| text(&job["id"])),
                        );
                    }
                    mine
                })
            })
            .collect();
        tokio::time::sleep(std::time::Duration::from_millis(60 + 40 * round)).await;
        site.kill();
        for worker in workers {
            answered.extend(worker.await.expect("a worker"));
        }
        site.start_again();
        let rows = site.rows();
        let mut leased = rows.prepare("select lower(hex(id)) from jobs where state = 'leased'").expect("jobs");
        let leased: BTreeSet<String> =
            leased.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("row")).collect();
        let once: BTreeSet<String> = answered.iter().map(|id| id.replace('-', "")).collect();
        assert_eq!(once.len(), answered.len(), "given twice");
        assert!(once.is_subset(&leased), "lost after kill {round}");
    }
    assert!(!answered.is_empty(), "the test claimed nothing");
}

#[tokio::test]
async fn finished_jobs_are_deleted_after_their_retention() {
    let mut site = Site::with("jobs.keep_s = 1000").await;
    let member = site.member().await;
    let old = queue(&site, &member.uid, None, 1).remove(0);
    let young = queue(&site, &member.uid, None, 1).remove(0);
    site.write_rows(|rows| {
        for (id, age_ms) in [(&old, 1_000_000), (&young, 900_000)] {
            rows.execute(
                &format!("update jobs set state = 'done', updated_at = {NOW} - ?2 where id = ?1"),
                params![Uuid::parse_str(id).unwrap().as_bytes(), age_ms],
            )?;
        }
        Ok(())
    });
    site.restart().await;
    let left = async || site.admin().get("/api/v1/jobs").await.data()["items"].clone();
    eventually("forgotten", async || left().await.as_array().unwrap().len() == 1).await;
    assert_eq!(left().await[0]["id"], json!(young));
}

#[tokio::test]
async fn the_command_line_lists_counts_and_retries() {
    let site = Site::start().await;
    let member = site.member().await;
    let id = queue(&site, &member.uid, None, 1).remove(0);
    let key = worker(&site).await;
    let job = claim_one(&key).await;
    report(&key, &job, "fail", json!({"error": "broken", "retry": false})).await.done();

    assert_eq!(site.command(&["job", "list", "--state", "dead"])["items"][0]["id"], json!(id));
    let expected = json!({"queued": 0, "held": 0, "leased": 0, "done": 0, "dead": 1});
    assert_eq!(site.command(&["job", "counts"]), expected);
    assert_eq!(site.command(&["job", "retry", &id])["state"], "queued");
    let again = Command::new(binary()).args(["job", "retry", &id, "--data"]).arg(site.path()).output().unwrap();
    assert!(!again.status.success());
    assert_eq!(String::from_utf8(again.stderr).unwrap(), "roster: only a dead job can be retried\n");
}
