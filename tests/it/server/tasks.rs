//! Tasks: long operations in the background, their progress, their limits and their end.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::gated_wordpress::{GatedWordPress, LISTED};
use crate::harness::site::{Site, binary};
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures::{allowing, denying};
use crate::plugins::upload;
use crate::videos::registration::{Media, register};

const TASKS: &str = "/api/v1/tasks";
const SYNC: &str = "/admin/wordpress/sync?background=true";

/// The task that an operation answered with.
pub fn started(reply: &Reply) -> Value {
    assert_eq!((reply.status, &reply.body["code"]), (202, &json!(102_000)), "{reply:?}");
    reply.body["data"].clone()
}

pub fn address(task: &Value) -> String {
    format!("{TASKS}/{}", task["id"].as_str().expect("an id"))
}

async fn now(caller: &As<'_>, task: &Value) -> Value {
    caller.get(&address(task)).await.data()
}

/// The task after its end.
pub async fn ended(caller: &As<'_>, reply: &Reply) -> Value {
    let task = started(reply);
    eventually("the end of the task", async || {
        let seen = now(caller, &task).await;
        (seen["state"] != "running").then_some(seen)
    })
    .await
}

/// Waits until something of the task is done.
pub async fn begun(caller: &As<'_>, task: &Value) {
    eventually("progress", async || now(caller, task).await["done"].as_u64() > Some(0)).await;
}

/// A request that can run in the background.
struct Long {
    method: Method,
    path: &'static str,
    content: (&'static str, String),
}

impl Long {
    fn new(path: &'static str, body: Value) -> Self {
        Self { method: Method::POST, path, content: ("application/json", body.to_string()) }
    }

    async fn send(&self, caller: &As<'_>, is_background: bool) -> Reply {
        let sign = if self.path.contains('?') { '&' } else { '?' };
        let path = if is_background { format!("{}{sign}background=true", self.path) } else { self.path.to_owned() };
        let (kind, body) = &self.content;
        caller.send_raw(self.method.clone(), &path, kind, body.clone().into_bytes()).await
    }
}

fn csv(rows: usize) -> String {
    (0..rows).fold("username,email\n".to_owned(), |file, n| file + &format!("user{n},user{n}@example.org\n"))
}

#[tokio::test]
async fn the_result_of_a_task_is_what_the_operation_answers() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    register(&kim.caller(), &media.file_of(&kim, "a.mp4", 7)).await.done();
    let admin = site.admin();
    let users = Long {
        method: Method::POST,
        path: "/api/v1/admin/users/import?dry_run=true",
        content: ("text/csv", "username,email\nlee,lee@example.org\nno name,\n".into()),
    };
    let verify = Long { method: Method::GET, ..Long::new("/admin/audit/verify", json!({})) };
    for (operation, step, long) in [
        ("recount_quotas", "members", Long::new("/admin/quotas/recount", json!({}))),
        ("import_videos", "files", Long::new("/api/v1/videos/import", json!({"dry_run": true}))),
        ("import_users", "rows", users),
        ("verify_audit", "entries", verify),
    ] {
        let at_once = long.send(&admin, false).await.data();
        let task = ended(&admin, &long.send(&admin, true).await).await;
        assert_eq!(
            (&task["state"], &task["error"], &task["step"]),
            (&json!("done"), &Value::Null, &Value::Null),
            "{task}"
        );
        assert_eq!((&task["operation"], &task["result"]), (&json!(operation), &at_once), "{operation}");
        let steps = task["steps"].as_array().expect("steps");
        assert_eq!((steps.len(), &steps[0]["name"]), (1, &json!(step)), "{operation}");
        assert_eq!((&steps[0]["done"], &steps[0]["total"]), (&task["done"], &task["total"]), "{operation}");
        assert!(task["done"].as_u64() > Some(0) && steps[0]["ms"].is_u64(), "{task}");
        assert!(task["total"].is_null() || task["total"] == task["done"], "{task}");
        let moment = |name: &str| task[name].as_i64().expect("a moment");
        assert!(moment("finished_at") >= moment("created_at"), "{task}");
    }
}

#[tokio::test]
async fn an_upload_reports_its_seven_steps() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let path = "/api/v1/plugins?name=hours&background=true";
    let send = async |component: Vec<u8>| owner.send_raw(Method::POST, path, "application/wasm", component).await;
    let task = ended(&owner, &send(allowing()).await).await;
    assert_eq!((&task["state"], &task["organization_id"]), (&json!("done"), &json!(acme.id)), "{task}");
    let steps = task["steps"].as_array().expect("steps");
    let names: Vec<&str> = steps.iter().filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names, ["received", "component", "interfaces", "structure", "compiled", "started", "vectors"]);
    assert!(steps.iter().all(|step| step["ms"].is_u64()), "{task}");
    assert_eq!((&task["done"], &task["total"]), (&json!(7), &json!(7)));
    // The same bytes are the same version.
    assert_eq!(task["result"], upload(&owner, "hours", allowing()).await.data());

    let module = b"\0asm\x01\0\0\0".to_vec();
    let refused = upload(&owner, "hours", module.clone()).await;
    let failed = ended(&owner, &send(module).await).await;
    let error = json!({"error_code": refused.word(), "message": refused.body["message"]});
    assert_eq!((&failed["state"], &failed["error"], &failed["result"]), (&json!("failed"), &error, &Value::Null));
    assert_eq!((refused.word(), &failed["step"]), ("not_a_component", &json!("component")));
    let took: Vec<bool> = failed["steps"].as_array().expect("steps").iter().map(|step| step["ms"].is_u64()).collect();
    assert_eq!(took, [true, false, false, false, false, false, false]);
    let versions = owner.get("/api/v1/plugins/hours").await.data()["versions"].as_array().expect("versions").len();
    assert_eq!(versions, 1);
}

#[tokio::test]
async fn what_is_refused_at_once_is_refused_before_a_task_begins() {
    let site = Site::with("plugins.per_organization = 1\n").await;
    let acme = site.organization("acme").await;
    let (admin, owner, plain) = (site.admin(), acme.owner(), acme.member().await);
    upload(&owner, "hours", allowing()).await.done();
    let file = |text: &str| ("text/csv", text.to_owned());
    let users = |text: &str| Long { method: Method::POST, path: "/api/v1/admin/users/import", content: file(text) };
    let component = |path| Long { method: Method::POST, path, content: ("application/wasm", "x".into()) };
    let verify = Long { method: Method::GET, ..Long::new("/admin/audit/verify", json!({})) };
    let plain = plain.caller();
    for (word, caller, long) in [
        ("bad_input", &admin, users("username,nonsense\nkim,1\n")),
        ("media_type", &admin, Long::new("/api/v1/plugins?name=x", json!({}))),
        ("bad_input", &admin, Long::new("/admin/quotas/recount", json!({"repair": "x"}))),
        ("wordpress_not_configured", &admin, Long::new("/admin/wordpress/sync", json!({}))),
        ("sftpgo_not_configured", &admin, Long::new("/admin/sftpgo/reconcile", json!({}))),
        ("media_root_not_configured", &admin, Long::new("/api/v1/videos/import", json!({}))),
        ("plugin_name", &owner, component("/api/v1/plugins?name=No")),
        ("plugins_full", &owner, component("/api/v1/plugins?name=other")),
        ("forbidden", &plain, component("/api/v1/plugins?name=other")),
        ("forbidden", &plain, users("username\nkim\n")),
        ("forbidden", &plain, verify),
    ] {
        let (at_once, background) = (long.send(caller, false).await, long.send(caller, true).await);
        assert_eq!((at_once.word(), background.status), (word, at_once.status), "{}", long.path);
        assert_eq!(background.lasting(), at_once.lasting(), "{}", long.path);
    }
    assert_eq!(admin.get(TASKS).await.data()["total"], 0);
}

#[tokio::test]
async fn a_task_is_of_its_caller_and_of_administrators() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (one, other) = (acme.member_with_role("tenant_owner").await, acme.member_with_role("tenant_owner").await);
    let (one, other, client) = (one.caller(), other.caller(), site.client(&["members:write"]).await);
    let path = "/api/v1/plugins?name=hours&background=true";
    let task = ended(&one, &one.send_raw(Method::POST, path, "application/wasm", allowing()).await).await;
    let users = "/api/v1/admin/users/import?dry_run=true&background=true";
    let of_client = ended(&client, &client.send_raw(Method::POST, users, "text/csv", csv(1).into()).await).await;
    assert_eq!((&of_client["actor_kind"], &of_client["state"]), (&json!("client"), &json!("done")));

    let missing = one.get(&format!("{TASKS}/{}", uuid::Uuid::now_v7())).await;
    assert_eq!((missing.status, missing.word()), (404, "task_not_found"));
    for (caller, foreign) in [(&other, &task), (&client, &task), (&bolt.owner(), &task), (&one, &of_client)] {
        for reply in [caller.get(&address(foreign)).await, caller.delete(&address(foreign)).await] {
            assert_eq!(reply.lasting(), missing.lasting());
        }
    }
    assert_eq!(one.get(&format!("{TASKS}/none")).await.lasting(), missing.lasting());

    let ids = async |caller: &As<'_>, query: &str| -> Vec<Value> {
        let page = caller.get(&format!("{TASKS}{query}")).await.data();
        let items = page["items"].as_array().expect("items").clone();
        assert!(items.iter().all(|task| task["result"].is_null() && task["state"] == "done"), "{page}");
        items.into_iter().map(|task| task["id"].clone()).collect()
    };
    let (first, second) = (task["id"].clone(), of_client["id"].clone());
    assert_eq!(ids(&one, "").await, std::slice::from_ref(&first));
    assert_eq!(ids(&client, "?own=true").await, std::slice::from_ref(&second));
    assert_eq!((ids(&other, "").await.len(), ids(&one, "?state=running").await.len()), (0, 0));
    let admin = site.admin();
    assert_eq!(ids(&admin, "").await, [second.clone(), first.clone()]);
    assert_eq!((ids(&admin, "?own=true").await.len(), ids(&admin, "?state=done&limit=1").await), (0, vec![second]));
    assert_eq!(now(&admin, &task).await, task);
    assert_eq!(admin.delete(&address(&task)).await.data(), task, "a finished task stays as it is");
}

/// Revokes the only role of a member of this organization.
pub async fn demote(admin: &As<'_>, uid: &str) {
    let path = format!("/api/v1/permissions/users/{uid}/roles");
    let held = admin.get(&path).await.data();
    let role = held["user_roles"][0]["role_id"].as_str().unwrap_or_else(|| panic!("no role: {held}"));
    admin.delete(&format!("{path}/{role}")).await.done();
}

/// The task without what it was or is allowed to show of the outcome.
fn without_outcome(task: &Value) -> Value {
    let mut rest = task.clone();
    for name in ["result", "error", "result_hidden"] {
        assert!(rest.as_object_mut().expect("a task").remove(name).is_some(), "{task}");
    }
    rest
}

#[tokio::test]
async fn the_outcome_of_an_own_task_is_shown_only_with_the_permission_of_its_operation() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    let in_platform = site.admin().with("x-tenant-id", platform.as_str().expect("an id"));
    let admin = site.admin();

    // A list of people, of somebody who may import no more.
    let importer = site.platform_member(&["roster.user.import"]).await;
    let users = "/api/v1/admin/users/import?dry_run=true&background=true";
    let rows = "username,email\nlee,lee@example.org\nno name,\n";
    let sent = importer.caller().send_raw(Method::POST, users, "text/csv", rows.into()).await;
    let imported = ended(&importer.caller(), &sent).await;
    assert_eq!((&imported["result_hidden"], imported["result"].is_object()), (&json!(false), true), "{imported}");

    // A failure in one organization, of somebody who may still upload in another.
    let owner = acme.member_with_role("tenant_owner").await;
    bolt.link(&owner.uid).await;
    bolt.assign(&owner.uid, &bolt.role_id("tenant_owner").await).await;
    let (in_acme, in_bolt) =
        (owner.caller().with("x-tenant-id", &acme.id), owner.caller().with("x-tenant-id", &bolt.id));
    let path = "/api/v1/plugins?name=hours&background=true";
    let sent = in_acme.send_raw(Method::POST, path, "application/wasm", b"\0asm\x01\0\0\0".to_vec()).await;
    let uploaded = ended(&in_bolt, &sent).await;
    assert_eq!(
        (&uploaded["error"]["error_code"], &uploaded["result_hidden"]),
        (&json!("not_a_component"), &json!(false))
    );

    demote(&in_platform, &importer.uid).await;
    demote(&acme.admin(), &owner.uid).await;
    for (caller, before) in [(importer.caller(), &imported), (in_acme, &uploaded), (in_bolt, &uploaded)] {
        let listed = caller.get(&format!("{TASKS}?own=true")).await.data()["items"][0].clone();
        for task in [now(&caller, before).await, listed, caller.delete(&address(before)).await.data()] {
            let outcome = (&task["result"], &task["error"], &task["result_hidden"]);
            assert_eq!(outcome, (&Value::Null, &Value::Null, &json!(true)));
            assert_eq!(without_outcome(&task), without_outcome(before), "the progress stays visible");
        }
        assert_eq!(now(&admin, before).await, *before, "administrators of the site hold it");
    }

    // To see the tasks of others is not yet to see what they answer.
    let watcher = site.platform_member(&["roster.task.get"]).await.caller();
    assert_eq!(now(&watcher, &imported).await["result_hidden"], true);
}

#[tokio::test]
async fn as_many_of_a_party_run_as_the_setting_and_a_cancelled_one_keeps_what_it_has_done() {
    let wordpress = GatedWordPress::start();
    let site = Site::with(&format!("tasks.running = 1\n{}", wordpress.settings())).await;
    let acme = site.organization("acme").await;
    let admin = site.admin();
    let running = admin.post(SYNC, json!({"dry_run": true})).await;
    let task = started(&running);
    assert_eq!((&task["state"], &task["operation"]), (&json!("running"), &json!("sync_wordpress")));
    eventually("the second list", async || wordpress.is_waiting()).await;
    assert_eq!(now(&admin, &task).await["done"], LISTED);

    let refused = admin.get("/admin/audit/verify?background=true").await;
    assert_eq!((refused.status, refused.word()), (429, "tasks_limited"));
    assert!(refused.header("retry-after").is_some());
    admin.get("/admin/audit/verify").await.done();
    // Another organization has its own limit.
    let path = "/api/v1/plugins?name=hours&background=true";
    let owner = acme.owner();
    ended(&owner, &owner.send_raw(Method::POST, path, "application/wasm", denying("no")).await).await;

    // The first request is in the audit log; a repeat changes nothing.
    let other = site.platform_member(&["roster.task.cancel"]).await;
    for caller in [&other.caller(), &admin] {
        let asked = caller.delete(&address(&task)).await.data();
        assert_eq!((&asked["state"], &asked["cancel_requested"]), (&json!("running"), &json!(true)));
    }
    let audited = admin.get("/admin/audit?action=task.cancel").await.data();
    let entry = &audited["items"][0];
    assert_eq!((&audited["total"], &entry["actor"]), (&json!(1), &json!(other.uid)), "{audited}");
    assert_eq!(entry["target"], format!("task {}", task["id"].as_str().expect("an id")));
    let about = json!({"operation": "sync_wordpress", "actor_kind": task["actor_kind"], "actor": task["actor"]});
    assert_eq!(entry["after"], about);
    wordpress.open();
    let cancelled = ended(&admin, &running).await;
    assert_eq!((&cancelled["state"], &cancelled["error"]), (&json!("cancelled"), &Value::Null), "{cancelled}");
    let result = &cancelled["result"];
    assert_eq!((&result["looked_at"], &result["next"]), (&json!(LISTED), &json!("known 0")), "{cancelled}");
    assert_eq!((&cancelled["step"], &cancelled["done"]), (&json!("accounts"), &json!(LISTED)));
    let after = ended(&admin, &admin.get("/admin/audit/verify?background=true").await).await;
    assert_eq!(after["state"], "done");
    // To cancel a finished one is no event.
    admin.delete(&address(&after)).await.done();
    assert_eq!(admin.get("/admin/audit?action=task.cancel").await.data()["total"], 1);
}

#[tokio::test]
async fn a_cancelled_import_reports_exactly_the_rows_that_it_wrote() {
    const ROWS: usize = 4_000;
    let site = Site::start().await;
    let admin = site.admin();
    let before = admin.get("/admin/members").await.data()["total"].as_u64().expect("a number");
    let path = "/api/v1/admin/users/import?background=true";
    let reply = admin.send_raw(Method::POST, path, "text/csv", csv(ROWS).into()).await;
    let task = started(&reply);
    begun(&admin, &task).await;
    admin.delete(&address(&task)).await.done();
    let task = ended(&admin, &reply).await;
    assert_eq!((&task["state"], &task["total"]), (&json!("cancelled"), &json!(ROWS)), "{}", task["done"]);
    let written = task["result"]["created"].as_array().expect("rows").len() as u64;
    let total = admin.get("/admin/members").await.data()["total"].as_u64().expect("a number");
    assert!(written < ROWS as u64, "{written}");
    assert_eq!((&task["done"], &task["result"]["rows"], total - before), (&json!(written), &json!(written), written));
}

#[tokio::test]
async fn a_task_loses_its_rights_with_its_caller() {
    const ROWS: usize = 4_000;
    let site = Site::start().await;
    let (admin, importer) = (site.admin(), site.platform_member(&["roster.user.import"]).await);
    let made = admin.post("/admin/api-clients", json!({"name": "office", "scopes": ["members:write"]})).await.data();
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let office = site.nobody().with("x-client-key", &text("client_key")).with("x-api-key", &text("api_key"));
    let total = async || admin.get("/admin/members?limit=1").await.data()["total"].as_u64().expect("a number");
    let path = "/api/v1/admin/users/import?background=true";
    for (word, caller, prefix) in [("unauthenticated", importer.caller(), "a"), ("scope_not_allowed", office, "b")] {
        let file = csv(ROWS).replace("\nu", &format!("\n{prefix}")).replace(",u", &format!(",{prefix}"));
        let before = total().await;
        let reply = caller.send_raw(Method::POST, path, "text/csv", file.into()).await;
        begun(&admin, &started(&reply)).await;
        if word == "unauthenticated" {
            admin.post(&format!("/admin/members/{}/deactivate", importer.uid), json!({})).await.done();
        } else {
            let address = format!("/admin/api-clients/{}", text("client_key"));
            admin.patch(&address, json!({"scopes": ["members:read"]})).await.done();
        }
        let task = ended(&admin, &reply).await;
        let rows = |kind: &str| task["result"][kind].as_array().expect("rows").len();
        assert_eq!(
            (&task["state"], &task["error"]["error_code"]),
            (&json!("failed"), &json!(word)),
            "{}",
            task["error"]
        );
        let left = task["result"]["not_attempted"].as_u64().expect("a number");
        assert_eq!((rows("created") as u64 + left, rows("failed")), (ROWS as u64, 0));
        assert!(rows("created") > 0 && left > 0, "{} {left}", rows("created"));
        let message = task["error"]["message"].as_str().expect("a message");
        let told = format!(" ({} of {ROWS} rows were written before)", rows("created"));
        assert!(message.ends_with(&told), "{message}");
        assert_eq!(total().await - before, rows("created") as u64, "exactly the rows of the result are written");
    }
    let denied = admin.get("/admin/audit?outcome=denied&action=import_users").await.data();
    let words: Vec<&Value> =
        denied["items"].as_array().expect("items").iter().map(|one| &one["after"]["detail"]).collect();
    assert_eq!(words, ["scope_not_allowed", "unauthenticated"], "each is recorded once");
}

#[tokio::test]
async fn tasks_are_kept_within_their_number_and_their_time() {
    let site = Site::with("tasks.kept = 2\n").await;
    let admin = site.admin();
    let verify = async |caller: &As<'_>| ended(caller, &caller.get("/admin/audit/verify?background=true").await).await;
    let tasks = [verify(&admin).await, verify(&admin).await, verify(&admin).await];
    assert_eq!(admin.get(TASKS).await.data()["total"], 2);
    for (task, status) in tasks.iter().zip([404, 200, 200]) {
        assert_eq!(admin.get(&address(task)).await.status, status);
    }

    let site = Site::with("tasks.ttl_s = 1\n").await;
    let admin = site.admin();
    let task = verify(&admin).await;
    eventually("forgotten", async || admin.get(&address(&task)).await.status == 404).await;
}

#[tokio::test]
async fn a_stop_ends_running_tasks_and_a_start_knows_none() {
    let wordpress = GatedWordPress::start();
    let mut site = Site::with(&wordpress.settings()).await;
    let task = started(&site.admin().post(SYNC, json!({})).await);
    eventually("the second list", async || wordpress.is_waiting()).await;
    // It waits for WordPress, and is aborted.
    site.restart().await;
    let log = site.log();
    assert!(log.contains("a task did not end in time and is aborted") && !log.contains("panicked"), "{log}");
    assert_eq!(site.admin().get(&address(&task)).await.word(), "task_not_found");
    assert_eq!(site.admin().get(TASKS).await.data()["total"], 0);

    let path = "/api/v1/admin/users/import?background=true";
    let import = site.admin().send_raw(Method::POST, path, "text/csv", csv(4_000).into()).await;
    begun(&site.admin(), &started(&import)).await;
    site.restart().await;
    let log = site.log();
    assert_eq!(log.matches("a task did not end in time").count(), 1, "an import stops between two rows: {log}");
    assert!(log.contains("state=Cancelled"), "{log}");
    site.admin().get("/admin/members").await.done();
}

#[tokio::test]
async fn a_repeat_with_the_same_key_gets_the_same_task() {
    let site = Site::start().await;
    let admin = site.admin().with("idempotency-key", "one");
    let recount = async |body: Value| admin.post("/admin/quotas/recount?background=true", body).await;
    let [first, again] = [recount(json!({})).await, recount(json!({})).await];
    assert_eq!(started(&first)["id"], started(&again)["id"]);
    assert_eq!(recount(json!({"repair": false})).await.word(), "idempotency_key_reused");
    assert_eq!(site.admin().get(TASKS).await.data()["total"], 1);
}

#[tokio::test]
async fn the_command_line_lists_shows_and_cancels_tasks() {
    let site = Site::start().await;
    let admin = site.admin();
    let task = ended(&admin, &admin.get("/admin/audit/verify?background=true").await).await;
    let id = task["id"].as_str().expect("an id");
    let listed = site.command(&["task", "list"]);
    assert_eq!((&listed["total"], &listed["items"][0]["id"]), (&json!(1), &task["id"]));
    assert_eq!(site.command(&["task", "show", id]), task);
    assert_eq!(site.command(&["task", "cancel", id]), task);
}

/// Whether a command that ran in a terminal succeeded, and what the terminal shows.
fn shown(child: Child) -> (bool, String) {
    let output = child.wait_with_output().expect("an end");
    (output.status.success(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[tokio::test]
async fn a_terminal_shows_the_progress_and_ctrl_c_cancels_the_task() {
    const CLEARED: &str = "\r\u{1b}[K";
    let site = Site::start().await;
    let admin = site.admin();
    let folder = tempfile::tempdir().expect("a folder");
    // `script` runs a command in a terminal.
    let import = |rows: usize, options: &str| {
        let file = folder.path().join("members.csv");
        std::fs::write(&file, csv(rows)).expect("a file");
        let (binary, file, data) = (binary().display(), file.display(), site.path().display());
        let command = format!("{binary} member import {file} {options} --data {data}");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        script.spawn().expect("script")
    };
    let (is_done, text) = shown(import(2, "--dry-run"));
    let lines: Vec<&str> = text.rsplit(CLEARED).next().expect("a part").lines().collect();
    let told = "would be: 2 created, 0 changed, 0 unchanged, 0 failed; nothing was done";
    assert_eq!((is_done, lines), (true, vec!["+ user0", "+ user1", told]), "{text:?}");

    let mut running = import(4_000, "");
    let task = eventually("progress", async || {
        let newest = admin.get(TASKS).await.data()["items"][0].clone();
        (newest["state"] == "running" && newest["done"].as_u64() > Some(0)).then_some(newest)
    })
    .await;
    running.stdin.as_mut().expect("a keyboard").write_all(b"\x03").expect("Ctrl-C");
    let (is_done, text) = shown(running);
    assert!(!is_done && text.matches(CLEARED).count() >= 2, "{text:?}");
    assert!(text.trim_end().ends_with("cancelled: what was done until then stays"), "{text:?}");
    assert_eq!(now(&admin, &task).await["state"], "cancelled");
    // Without a terminal there is no task.
    let before = admin.get(TASKS).await.data()["total"].clone();
    let file = folder.path().join("members.csv");
    let printed = site.command(&["member", "import", &file.display().to_string(), "--dry-run"]);
    assert_eq!((&printed["dry_run"], &admin.get(TASKS).await.data()["total"]), (&json!(true), &before));
}
