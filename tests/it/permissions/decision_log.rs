//! The decision log: which decisions it records, which it omits, and that it never blocks a check.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CHECK, DECISIONS, FORBIDDEN};
use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::wasm_fixtures;
use crate::plugins::decisions::{bind, documents, enforced, permission, watched};

// ── helpers ──

/// Asks the same question this many times, a hundred per request.
async fn ask(caller: &As<'_>, question: &Value, times: usize) {
    let mut left = times;
    while left > 0 {
        let some = left.min(100);
        let body = json!({"questions": vec![question.clone(); some]});
        let answers = caller.post(CHECK, body).await.data();
        assert_eq!(answers["decisions"].as_array().expect("decisions").len(), some);
        left -= some;
    }
}

async fn list(caller: &As<'_>, query: &str) -> Value {
    caller.get(&format!("{DECISIONS}?{query}")).await.data()
}

fn reasons(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().map(|item| item["reason"].as_str().expect("a reason")).collect()
}

/// A member who holds `doc.read` in an organization, and one without permissions.
async fn people(acme: &Organization<'_>) -> (String, String) {
    (acme.member_with(&["doc.read"]).await.uid, acme.member().await.uid)
}

// ── what is recorded ──

#[tokio::test]
async fn all_denials_are_logged_and_a_sample_of_the_allows() {
    for (every, expected) in [(0, 0), (1, 25), (10, 2)] {
        let site = Site::with(&format!("[decisions]\nallow_every = {every}")).await;
        site.import(documents()).await;
        let acme = site.organization("acme").await;
        let (holder, other) = people(&acme).await;
        ask(&acme.admin(), &permission(&holder, "doc.read"), 25).await;
        ask(&acme.admin(), &permission(&other, "doc.read"), 7).await;
        assert_eq!(list(&acme.admin(), "allow=true").await["total"], expected, "every {every}");
        assert_eq!(list(&acme.admin(), "allow=false").await["total"], 7);
        assert_eq!(list(&acme.admin(), "").await["dropped"], 0);
    }
}

#[tokio::test]
async fn a_row_holds_the_question_and_the_decision() {
    let site = Site::with("[decisions]\nallow_every = 1").await;
    site.import(documents()).await;
    let (id, owner_token, holder) = {
        let acme = site.organization("acme").await;
        let holder = acme.member_with(&["doc.read"]).await.uid;
        (acme.id.clone(), acme.owner_token.clone(), holder)
    };
    bind(
        &site,
        vec![
            (&id, enforced("rule", wasm_fixtures::denying("shut"))),
            (&id, watched("next", wasm_fixtures::abstaining())),
        ],
    )
    .await;
    let acme = Organization { site: &site, id, owner_token };
    let question =
        json!({"uid": holder, "method": "GET", "path": "/docs/7/?secret=1", "context": {"owner": "kim", "now_ms": 5}});
    let decision = acme.check(question).await;

    let page = list(&acme.owner(), "").await;
    assert_eq!((&page["total"], &page["limit"], &page["offset"]), (&json!(1), &json!(50), &json!(0)));
    let row = &page["items"][0];
    for (name, value) in [
        ("epoch", decision["epoch"].clone()),
        ("uid", json!(holder)),
        ("kind", json!("route")),
        ("base", json!("ok_role")),
        ("allow", json!(false)),
        ("reason", json!("plugin_denied")),
        ("asks_plugins", json!(true)),
        ("left_out", json!([])),
        ("differed", json!(false)),
    ] {
        assert_eq!(row[name], value, "{name}: {row}");
    }
    let input = &row["input"];
    assert_eq!((&input["tenant"], &input["subject"]), (&json!(acme.id), &json!(holder)));
    assert_eq!((&input["action"], &input["path"]), (&json!("GET"), &json!("/docs/7")));
    assert_eq!(input["roles"].as_array().expect("roles").len(), 1);
    let facts: Vec<(&str, &Value)> = input["context"]
        .as_array()
        .expect("facts")
        .iter()
        .map(|fact| (fact["name"].as_str().expect("a name"), &fact["values"][0]))
        .collect();
    let (code, app) = (json!("acme"), json!("main"));
    let told: [(&str, &Value); 7] = [
        ("question", &json!("route")),
        ("base", &json!("allow")),
        ("app", &app),
        ("permission", &json!("doc.read")),
        ("org_code", &code),
        ("now_ms", &json!("5")),
        ("owner", &json!("kim")),
    ];
    assert_eq!(facts, told);
    let plugins = row["plugins"].as_array().expect("plugins");
    assert_eq!(plugins.iter().map(|p| p["name"].as_str().expect("name")).collect::<Vec<_>>(), ["rule", "next"]);
    assert_eq!(plugins.iter().map(|p| p["outcome"].as_str().expect("word")).collect::<Vec<_>>(), ["deny", "abstain"]);
    assert!(plugins[0]["fuel"].as_u64().expect("fuel") > 0);
    assert_eq!(plugins[0]["sha256"].as_str().expect("a digest").len(), 64);
    assert!(!page.to_string().contains("shut"), "a plugin's reason may contain names: {page}");
}

#[tokio::test]
async fn secrets_are_recognized_by_parts_of_names_and_by_their_form() {
    let site = Site::start().await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let key = member.caller().post("/me/api-keys", json!({"name": "x", "scopes": ["me:read"]})).await.data();
    let key = key["api_key"].as_str().expect("a key");
    let mut question = permission(&member.uid, "doc.read");
    question["context"] = json!({
        "jwt": "s3cret-a", "userPin": 1234, "oneTime": {"otp": "s3cret-b"}, "note": member.token, "list": ["fine", key],
        "header": format!("Bearer {}", member.token), "opinion": "kept", "author": "kept too",
    });
    acme.check(question.clone()).await;
    acme.check(json!({"uid": member.uid, "method": "GET", "path": format!("/docs/{}/x", member.token)})).await;

    let page = list(&acme.admin(), "").await;
    assert_eq!(page["items"][1]["left_out"], json!(["header", "jwt", "list", "note", "oneTime", "userPin"]));
    assert_eq!(page["items"][0]["input"]["path"], "/docs/***/x");
    assert_eq!(page["items"][0]["left_out"], json!(["path"]));
    let text = page.to_string();
    assert!(text.contains("kept too") && !text.contains("s3cret") && !text.contains("1234"), "{text}");
    assert!(!text.contains(&member.token) && !text.contains(key));
    for file in ["decisions.db", "decisions.db-wal"] {
        let bytes = std::fs::read(site.path().join(file)).expect("the file");
        for secret in ["s3cret", &member.token, key] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{file}");
        }
    }
}

#[tokio::test]
async fn secrets_that_an_older_version_logged_are_not_shown() {
    let mut site = Site::start().await;
    site.import(documents()).await;
    let (id, uid) = {
        let acme = site.organization("acme").await;
        let uid = acme.member().await.uid;
        let mut question = permission(&uid, "doc.read");
        question["context"] = json!({"note": "kept"});
        acme.check(question).await;
        (acme.id.clone(), uid)
    };
    site.between_runs(|data| {
        let rows = rusqlite::Connection::open(data.join("decisions.db")).expect("the log");
        let changed = rows.execute("update decisions set input = replace(input, '\"note\"', '\"jwt\"')", []);
        assert_eq!(changed.expect("a change"), 1);
    });
    let acme = Organization { site: &site, id, owner_token: String::new() };
    let page = list(&acme.admin(), &format!("uid={uid}")).await;
    assert_eq!(page["items"][0]["left_out"], json!(["jwt"]));
    assert!(!page.to_string().contains("kept"), "{page}");
}

#[tokio::test]
async fn secrets_and_queries_of_paths_are_left_out() {
    let site = Site::start().await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let other = acme.member().await.uid;
    let mut question = permission(&other, "doc.read");
    question["context"] = json!({
        "owner": "kim", "X-Access-Token": "s3cret-a", "password": "s3cret-b", "session_cookie": ["s3cret-c"],
        "Authorization": "s3cret-d", "api_key": {"a": "s3cret-e"}, "clientSecret": "s3cret-f",
    });
    acme.check(question).await;
    acme.check(json!({"uid": other, "method": "GET", "path": "/docs/7?token=s3cret-g"})).await;
    acme.check(json!({"uid": other, "method": "GET", "path": "/docs/../7?token=s3cret-h"})).await;
    // A secret in another encoding is still recognized.
    let escaped = "/docs/eyJhbGciOiJub25lIn0%2EeyJzdWIiOiJraW0ifQ%2Es3cret-i";
    acme.check(json!({"uid": other, "method": "GET", "path": escaped})).await;
    assert_eq!(list(&acme.admin(), "limit=1").await["items"][0]["input"]["path"], "/docs/***");
    let page = list(&acme.admin(), "limit=3&offset=1").await;
    assert_eq!(page["total"], 4);
    assert_eq!(
        page["items"][2]["left_out"],
        json!(["Authorization", "X-Access-Token", "api_key", "clientSecret", "password", "session_cookie"])
    );
    let paths = [&page["items"][0]["input"]["path"], &page["items"][1]["input"]["path"]];
    assert_eq!(paths, [&json!("/docs/../7"), &json!("/docs/7")]);
    assert_eq!(page["items"][0]["asks_plugins"], false);
    assert!(page.to_string().contains("kim") && !page.to_string().contains("s3cret"), "{page}");
    for file in ["decisions.db", "decisions.db-wal"] {
        let bytes = std::fs::read(site.path().join(file)).expect("the file");
        assert!(!bytes.windows(6).any(|part| part == b"s3cret"), "{file}");
    }
}

// ── reading ──

#[tokio::test]
async fn the_list_is_newest_first_narrowed_and_paged() {
    let site = Site::with("[decisions]\nallow_every = 1").await;
    site.import(documents()).await;
    let (id, holder, other) = {
        let acme = site.organization("acme").await;
        let (holder, other) = people(&acme).await;
        (acme.id.clone(), holder, other)
    };
    bind(&site, vec![(&id, watched("next", wasm_fixtures::denying("shut")))]).await;
    let acme = Organization { site: &site, id, owner_token: String::new() };
    acme.check(permission(&holder, "doc.read")).await;
    acme.check(permission(&other, "doc.read")).await;
    acme.check(json!({"uid": holder, "method": "GET", "path": "/nowhere"})).await;
    let all = list(&acme.admin(), "").await;
    assert_eq!(reasons(&all), ["unmapped_route", "no_permission", "ok_role"]);
    let at: Vec<i64> =
        all["items"].as_array().expect("items").iter().map(|item| item["at"].as_i64().expect("at")).collect();
    for (query, expected) in [
        ("allow=true", vec!["ok_role"]),
        ("allow=false", vec!["unmapped_route", "no_permission"]),
        ("reason=no_permission", vec!["no_permission"]),
        ("reason=nonsense", vec![]),
        ("plugin=next", vec!["ok_role"]),
        ("plugin=other", vec![]),
        ("differed=true", vec!["ok_role"]),
        ("differed=false", vec!["unmapped_route", "no_permission"]),
        ("limit=1", vec!["unmapped_route"]),
        ("limit=1&offset=2", vec!["ok_role"]),
        ("offset=3", vec![]),
        (&format!("uid={other}"), vec!["no_permission"]),
        ("uid=no-id", vec![]),
        (&format!("to={}", at[2]), vec![]),
        (&format!("from={}", at[0] + 1), vec![]),
        (&format!("from={}&to={}", at[2], at[0] + 1), vec!["unmapped_route", "no_permission", "ok_role"]),
    ] {
        assert_eq!(reasons(&list(&acme.admin(), query).await), expected, "{query}");
    }
    assert_eq!(list(&acme.admin(), "limit=1&allow=false").await["total"], 2);
}

#[tokio::test]
async fn an_organization_reads_its_own_decisions_and_needs_the_permission() {
    let site = Site::start().await;
    site.import(documents()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (_, other) = people(&acme).await;
    acme.check(permission(&other, "doc.read")).await;
    assert_eq!(list(&acme.owner(), "").await["total"], 1);
    assert_eq!(list(&bolt.owner(), "").await["total"], 0);
    assert_eq!(acme.owner().with("x-tenant-id", &bolt.id).get(DECISIONS).await.word(), "organization_not_found");
    let viewer = acme.member_with_role("viewer").await;
    viewer.caller().get(DECISIONS).await.is(FORBIDDEN);
    assert_eq!(site.client(&["*"]).await.with("x-tenant-id", &acme.id).get(DECISIONS).await.status, 401);
}

#[tokio::test]
async fn an_erased_member_is_erased_from_the_log() {
    let site = Site::start().await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let (holder, other) = people(&acme).await;
    for uid in [&holder, &other] {
        acme.check(permission(uid, "doc.edit")).await;
    }
    site.admin().delete(&format!("/admin/members/{other}")).await.done();
    let left = list(&acme.admin(), "").await;
    assert_eq!((&left["total"], &left["items"][0]["uid"]), (&json!(1), &json!(holder)));
}

// ── its limits ──

#[tokio::test]
async fn the_log_drops_its_oldest_rows_past_its_limit() {
    let site = Site::with("[decisions]\nrows = 100").await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let (_, other) = people(&acme).await;
    ask(&acme.admin(), &permission(&other, "doc.read"), 100).await;
    assert_eq!(list(&acme.admin(), "reason=no_permission").await["total"], 100);
    acme.check(json!({"uid": other, "method": "GET", "path": "/nowhere"})).await;
    assert_eq!(list(&acme.admin(), "reason=no_permission").await["total"], 99);
    assert_eq!(list(&acme.admin(), "").await["total"], 100);
    ask(&acme.admin(), &permission(&other, "doc.edit"), 250).await;
    assert_eq!(list(&acme.admin(), "").await["total"], 100);
}

#[tokio::test]
async fn rows_past_their_retention_are_deleted() {
    let mut site = Site::with("[decisions]\nttl_s = 3600").await;
    site.import(documents()).await;
    let (id, other) = {
        let acme = site.organization("acme").await;
        (acme.id.clone(), acme.member().await.uid)
    };
    for _ in 0..3 {
        site.admin().with("x-tenant-id", &id).post(CHECK, permission(&other, "doc.read")).await.done();
    }
    site.between_runs(|data| {
        let rows = rusqlite::Connection::open(data.join("decisions.db")).expect("the file");
        rows.execute("update decisions set at = at - 3600000 where id = 1", []).expect("aged");
        rows.execute("update decisions set at = at - 3500000 where id = 2", []).expect("aged");
    });
    let list = site.admin().with("x-tenant-id", &id).get(DECISIONS).await.data();
    assert_eq!(list["total"], 2, "one entry is past its retention: {list}");
}

#[tokio::test]
async fn entries_past_the_queue_limit_are_counted_and_no_check_waits() {
    let site = Site::with("[decisions]\nqueue = 1").await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let bolt = site.organization("bolt").await;
    let (_, other) = people(&acme).await;
    let began = Instant::now();
    ask(&acme.admin(), &permission(&other, "doc.read"), 100).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let page = list(&acme.admin(), "").await;
    let (total, dropped) = (page["total"].as_u64().expect("total"), page["dropped"].as_u64().expect("dropped"));
    assert_eq!(total + dropped, 100, "{page}");
    assert!(total >= 1 && dropped >= 1, "{page}");
    assert_eq!(site.metric("roster_decisions_dropped_total"), dropped);
    assert_eq!(list(&bolt.admin(), "").await["dropped"], 0, "an organization sees only its own dropped entries");
}

// ── its file ──

#[tokio::test]
async fn the_log_outlives_a_restart_and_is_its_owner_s_alone() {
    let mut site = Site::start().await;
    site.import(documents()).await;
    let (id, other) = {
        let acme = site.organization("acme").await;
        (acme.id.clone(), acme.member().await.uid)
    };
    // The server stops at once: queued entries are written.
    site.admin().with("x-tenant-id", &id).post(CHECK, permission(&other, "doc.read")).await.done();
    site.restart().await;
    assert_eq!(list(&site.admin().with("x-tenant-id", &id), "").await["total"], 1);
    site.admin().with("x-tenant-id", &id).post(CHECK, permission(&other, "doc.read")).await.done();
    assert_eq!(list(&site.admin().with("x-tenant-id", &id), "").await["total"], 2);
    for file in ["decisions.db", "decisions.db-wal"] {
        let mode = std::fs::metadata(site.path().join(file)).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    site.kill();
    site.start_again();
    assert_eq!(list(&site.admin().with("x-tenant-id", &id), "").await["total"], 2);
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_a_new_one_begins() {
    let mut site = Site::start().await;
    site.import(documents()).await;
    let (id, other) = {
        let acme = site.organization("acme").await;
        (acme.id.clone(), acme.member().await.uid)
    };
    let question = permission(&other, "doc.read");
    let newer = "pragma user_version = 99";
    for (n, damage) in ["noise", "newer"].into_iter().enumerate() {
        ask(&site.admin().with("x-tenant-id", &id), &question, 3).await;
        assert_eq!(list(&site.admin().with("x-tenant-id", &id), "").await["total"], 3, "{damage}");
        site.between_runs(|data| {
            let file = data.join("decisions.db");
            if n == 0 {
                std::fs::write(&file, "this is no database ".repeat(1_000)).expect("noise");
            } else {
                rusqlite::Connection::open(&file).expect("the file").execute_batch(newer).expect("newer");
            }
        });
        assert_eq!(list(&site.admin().with("x-tenant-id", &id), "").await["total"], 0, "{damage}");
        assert!(site.path().join("decisions.db.damaged").exists(), "{damage}");
        site.logged("moved aside");
    }
    // A file that cannot be searched for a member is deleted when a member is erased.
    site.admin().delete(&format!("/admin/members/{other}")).await.done();
    assert!(!site.path().join("decisions.db.damaged").exists());
    site.admin_token = site.token(ADMIN, PASSWORD).await;
}

#[tokio::test]
async fn a_full_disk_drops_rows_and_stops_no_check() {
    let site = Site::start().await;
    site.import(documents()).await;
    let acme = site.organization("acme").await;
    let (_, other) = people(&acme).await;
    ask(&acme.admin(), &permission(&other, "doc.read"), 1).await;
    site.limit_file_size(0);
    ask(&acme.admin(), &permission(&other, "doc.read"), 2_000).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while site.metric("roster_decisions_dropped_total") == 0 {
        assert!(Instant::now() < deadline, "{}", site.log());
        ask(&acme.admin(), &permission(&other, "doc.read"), 2_000).await;
    }
    site.unlimit_file_size();
    let before = list(&acme.admin(), "").await["total"].as_u64().expect("total");
    ask(&acme.admin(), &permission(&other, "doc.read"), 5).await;
    assert_eq!(list(&acme.admin(), "").await["total"], before + 5, "the log continues: {}", site.log());
}
