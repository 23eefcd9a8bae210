//! Statistics: what is counted, in which bucket, for whom, and for how long a period.

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::videos::jobs::{claim_one, queue, report, worker};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

async fn statistics(caller: &As<'_>, query: &str) -> Value {
    caller.get(&format!("/admin/statistics?{query}")).await.data()
}

/// The present time of the site, and the start of the day (UTC) that was three days ago.
fn times(site: &Site) -> (i64, i64) {
    let now = site.number("select cast(unixepoch('subsec') * 1000 as integer)");
    (now, (now / DAY_MS - 3) * DAY_MS)
}

/// The numbers that are not zero, with their bucket.
fn counted(list: &Value) -> Vec<(usize, i64)> {
    let numbers = list.as_array().expect("a list").iter().map(|number| number.as_i64().expect("a number"));
    numbers.enumerate().filter(|(_, number)| *number != 0).collect()
}

fn sum(list: &Value) -> i64 {
    counted(list).into_iter().map(|(_, number)| number).sum()
}

fn bytes(id: &str) -> [u8; 16] {
    Uuid::parse_str(id).expect("an id").into_bytes()
}

/// A row of the ledger at this time.
fn post(site: &Site, (uid, org_id): (&str, &str), at: i64, cause: &str, delta: i64) {
    site.write_rows(|rows| {
        rows.execute(
            "insert into quota_ledger (at, member_id, organization_id, cause, delta, used_after, request_id)
             values (?1, ?2, ?3, ?4, ?5, 0, 'made')",
            params![at, bytes(uid), bytes(org_id), cause, delta],
        )
    });
}

#[tokio::test]
async fn the_ledger_is_counted_by_hour_and_day_up_to_the_edges() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let (kim, lee) = (acme.member().await, globex.member().await);
    let (_, day) = times(&site);
    for (at, cause, delta) in [
        (day - 1, "register", 100),
        (day, "register", 1_000),
        (day + HOUR_MS - 1, "claim", 10),
        (day + HOUR_MS - 1, "replace", -3),
        (day + HOUR_MS, "delete", -5),
        (day + DAY_MS - 1, "transfer", 7),
        (day + DAY_MS, "register", 1),
    ] {
        post(&site, (&kim.uid, &acme.id), at, cause, delta);
    }
    post(&site, (&lee.uid, &globex.id), day, "register", 50);
    post(&site, (&lee.uid, &globex.id), day + DAY_MS - 1, "transfer", -7);

    let hours = format!("by=hour&from={day}&to={}", day + DAY_MS);
    let of_acme = statistics(&acme.owner(), &hours).await;
    assert_eq!((&of_acme["from"], &of_acme["to"], &of_acme["by"]), (&json!(day), &json!(day + DAY_MS), &json!("hour")));
    let starts: Vec<i64> = (0..24).map(|hour| day + hour * HOUR_MS).collect();
    assert_eq!((&of_acme["buckets"], &of_acme["organization_id"]), (&json!(starts), &json!(acme.id)));
    let storage = &of_acme["storage"];
    assert_eq!(counted(&storage["added_bytes"]), [(0, 1_010)]);
    assert_eq!(counted(&storage["removed_bytes"]), [(0, 3), (1, 5)]);
    assert_eq!(counted(&storage["transferred_bytes"]), [(23, 7)]);
    assert_eq!(counted(&storage["videos_added"]), [(0, 2)]);
    assert_eq!(counted(&storage["videos_removed"]), [(1, 1)]);

    // A bucket counts whole, also if the period touches it in one millisecond only.
    let days = format!("from={}&to={}", day - 1, day + DAY_MS + 1);
    let of_acme = statistics(&acme.owner(), &days).await;
    assert_eq!((&of_acme["by"], of_acme["buckets"].as_array().map(Vec::len)), (&json!("day"), Some(3)));
    assert_eq!(of_acme["storage"]["added_bytes"], json!([100, 1_010, 1]));

    // The site has everything, and a transfer within it adds nothing.
    let of_site = statistics(&site.admin(), &hours).await;
    assert_eq!(of_site["organization_id"], Value::Null);
    assert_eq!(counted(&of_site["storage"]["added_bytes"]), [(0, 1_060)]);
    assert!(counted(&of_site["storage"]["transferred_bytes"]).is_empty());
    let of_globex = statistics(&globex.owner(), &hours).await;
    assert_eq!(counted(&of_globex["storage"]["added_bytes"]), [(0, 50)]);
    assert_eq!(counted(&of_globex["storage"]["transferred_bytes"]), [(23, -7)]);
    assert_eq!(statistics(&globex.admin(), &hours).await["storage"], of_globex["storage"]);
}

#[tokio::test]
async fn jobs_are_counted_when_they_are_created_and_when_they_end() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let kim = acme.member().await;
    let (now, day) = times(&site);
    let ids = queue(&site, &kim.uid, Some(&acme.id), 4);
    for (id, at) in ids.iter().zip([day - 1, day, day + HOUR_MS - 1, day + HOUR_MS]) {
        // The time is also the first part of an id.
        let mut made = bytes(id);
        made[..6].copy_from_slice(&at.to_be_bytes()[2..]);
        site.write_rows(|rows| {
            let sql = "update jobs set id = ?1, created_at = ?2 where id = ?3";
            rows.execute(sql, params![made, at, bytes(id)])
        });
    }
    let hours = format!("by=hour&from={day}&to={}", day + DAY_MS);
    for (caller, expected) in
        [(acme.owner(), vec![(0, 2), (1, 1)]), (site.admin(), vec![(0, 2), (1, 1)]), (globex.owner(), vec![])]
    {
        assert_eq!(counted(&statistics(&caller, &hours).await["jobs"]["created"]), expected);
    }

    let key = worker(&site).await;
    let job = claim_one(&key).await;
    report(&key, &job, "complete", json!({})).await.done();
    let job = claim_one(&key).await;
    report(&key, &job, "fail", json!({"error": "broken", "retry": false})).await.done();
    let job = claim_one(&key).await;
    report(&key, &job, "fail", json!({"error": "busy"})).await.done();
    let today = format!("by=hour&from={now}");
    for (caller, ends) in [(acme.owner(), (1, 1)), (site.admin(), (1, 1)), (globex.owner(), (0, 0))] {
        let jobs = statistics(&caller, &today).await["jobs"].clone();
        assert_eq!((sum(&jobs["done"]), sum(&jobs["dead"])), ends);
    }
    assert_eq!(sum(&statistics(&acme.owner(), &hours).await["jobs"]["done"]), 0);
}

/// Sign-ins by password, and failed ones, since the day began.
async fn sign_ins(caller: &As<'_>, since: i64) -> (i64, i64) {
    let found = statistics(caller, &format!("by=hour&from={since}")).await["sign_ins"].clone();
    let ways = found["ways"].as_array().expect("ways").iter();
    (ways.filter(|way| way["way"] == "password").map(|way| sum(&way["counts"])).sum(), sum(&found["failed"]))
}

#[tokio::test]
async fn sign_ins_of_an_organization_are_those_of_its_members() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let kim = acme.member().await;
    let (now, _) = times(&site);
    let callers = [acme.owner(), globex.owner(), site.admin()];
    let mut before = Vec::new();
    for caller in &callers {
        before.push(sign_ins(caller, now).await);
    }
    for _ in 0..2 {
        site.token(&kim.username, PASSWORD).await;
    }
    for login in [kim.username.as_str(), "nobody@example.org"] {
        let body = json!({"login": login, "password": "wrong-password-1"});
        assert_eq!(site.nobody().post("/auth/login", body).await.word(), "invalid_login");
    }
    for ((caller, before), more) in callers.iter().zip(before).zip([(2, 1), (0, 0), (2, 2)]) {
        let after = sign_ins(caller, now).await;
        assert_eq!((after.0 - before.0, after.1 - before.1), more);
    }
    // Who left is not counted any more.
    let left = format!("/admin/members/{}/organizations/{}", kim.uid, acme.id);
    site.admin().delete(&left).await.done();
    let (of_site, of_acme) = (sign_ins(&site.admin(), now).await, sign_ins(&acme.owner(), now).await);
    assert!(of_acme.0 < of_site.0 && of_acme.1 == 0, "{of_acme:?} of {of_site:?}");
}

/// Writes decisions into the log, which has at least one.
fn log(site: &Site, rows: &[(&str, i64, bool, &str, bool)]) {
    let file = Connection::open(site.path().join("decisions.db")).expect("the log");
    file.busy_timeout(std::time::Duration::from_secs(10)).expect("patience");
    for (org_id, at, allow, reason, differed) in rows {
        let plugins = if *differed { r#"[{"name":"ownership"}]"# } else { "[]" };
        let sql =
            "insert into decisions (at, epoch, organization_id, member_id, kind, input, left_out, asks_plugins, base,
                                          allow, reason, plugins, differed)
                   values (?1, 1, ?2, zeroblob(16), 'route', '{}', '[]', 0, ?4, ?3, ?4, ?5, ?6)";
        file.execute(sql, params![at, bytes(org_id), allow, reason, plugins, differed]).expect("a row");
    }
}

/// Whether it allows, a reason, and the buckets with their numbers.
type Counted = (bool, String, Vec<(usize, i64)>);

/// The reasons with their numbers.
fn reasons(found: &Value) -> Vec<Counted> {
    let reasons = found["decisions"]["reasons"].as_array().expect("reasons").iter();
    let of = |one: &Value| {
        (one["allow"] == true, one["reason"].as_str().expect("a reason").to_owned(), counted(&one["counts"]))
    };
    reasons.map(of).collect()
}

async fn asked(acme: &Organization<'_>) {
    let uid = acme.member().await.uid;
    acme.check(json!({"uid": uid, "method": "GET", "path": "/nowhere"})).await;
    // The list waits until the decision is written.
    assert_eq!(acme.admin().get("/api/v1/permissions/decisions").await.data()["total"], 1);
}

#[tokio::test]
async fn decisions_are_counted_by_outcome_and_reason() {
    let site = Site::with("[decisions]\nallow_every = 10").await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let empty = statistics(&acme.owner(), "").await["decisions"].clone();
    assert_eq!((&empty["since"], &empty["reasons"], &empty["allow_every"]), (&Value::Null, &json!([]), &json!(10)));
    asked(&acme).await;
    let (_, day) = times(&site);
    log(
        &site,
        &[
            (&acme.id, day - 1, false, "no_permission", false),
            (&acme.id, day, false, "no_permission", false),
            (&acme.id, day + HOUR_MS - 1, false, "no_permission", true),
            (&acme.id, day + HOUR_MS, false, "not_a_member", false),
            (&acme.id, day + 5 * HOUR_MS, true, "ok_role", true),
            (&globex.id, day, false, "no_permission", false),
            (&acme.id, day + DAY_MS, true, "ok_role", false),
        ],
    );
    let hours = format!("by=hour&from={day}&to={}", day + DAY_MS);
    let found = statistics(&acme.owner(), &hours).await;
    let expected = |no_permission: i64| {
        vec![
            (false, "no_permission".to_owned(), vec![(0, no_permission)]),
            (false, "not_a_member".to_owned(), vec![(1, 1)]),
            (true, "ok_role".to_owned(), vec![(5, 1)]),
        ]
    };
    let mut sorted = reasons(&found);
    sorted.sort();
    assert_eq!(sorted, expected(2));
    assert_eq!(counted(&found["decisions"]["differed"]), [(0, 1), (5, 1)]);
    assert_eq!(found["decisions"]["dropped"], 0);
    let mut of_site = reasons(&statistics(&site.admin(), &hours).await);
    of_site.sort();
    assert_eq!(of_site, expected(3));

    let of_plugin = statistics(&acme.owner(), &format!("{hours}&plugin=ownership")).await;
    let mut asked_plugin = reasons(&of_plugin);
    asked_plugin.sort();
    assert_eq!(
        asked_plugin,
        [(false, "no_permission".to_owned(), vec![(0, 1)]), (true, "ok_role".to_owned(), vec![(5, 1)])]
    );
    assert!(reasons(&statistics(&globex.owner(), &format!("{hours}&plugin=ownership")).await).is_empty());
    let refused = site.admin().get("/admin/statistics?plugin=ownership").await;
    assert_eq!((refused.status, refused.fields()), (400, vec!["query.plugin".to_owned()]));
}

#[tokio::test]
async fn a_damaged_decision_log_leaves_the_other_figures() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    std::fs::write(site.path().join("decisions.db"), "this is no database ".repeat(1_000)).expect("noise");
    let found = statistics(&acme.owner(), "").await;
    assert_eq!((&found["decisions"], found["buckets"].as_array().map(Vec::len)), (&Value::Null, Some(7)));
    assert!(found["sign_ins"]["ways"].as_array().is_some_and(|ways| !ways.is_empty()), "{found}");
}

#[tokio::test]
async fn a_period_is_counted_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    let day = times(&site).1;
    for (by, step, most) in [("hour", HOUR_MS, 744), ("day", DAY_MS, 400)] {
        let from = day - most * step;
        let whole = statistics(&site.admin(), &format!("by={by}&from={from}&to={day}")).await;
        assert_eq!(whole["buckets"].as_array().map(Vec::len), usize::try_from(most).ok());
        for (from, to, field) in
            [(from, day + 1, "from"), (from - 1, day, "from"), (day, day, "to"), (day, day - 1, "to")]
        {
            let refused = site.admin().get(&format!("/admin/statistics?by={by}&from={from}&to={to}")).await;
            assert_eq!((refused.status, refused.fields()), (400, vec![format!("query.{field}")]), "{by} {from} {to}");
        }
    }
    for query in ["by=week", "from=-1", "to=253402300800000", "from=x"] {
        assert_eq!(site.admin().get(&format!("/admin/statistics?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn the_command_prints_the_figures_of_the_operation() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let (_, day) = times(&site);
    post(&site, (&kim.uid, &acme.id), day, "register", 1_000);
    let (from, to) = (day.to_string(), (day + DAY_MS).to_string());
    let period = ["statistics", "--since", &from, "--until", &to];
    let printed = site.command(&[&period[..], &["--org", "acme"]].concat());
    let expected = statistics(&acme.owner(), &format!("from={from}&to={to}")).await;
    assert_eq!((&printed["storage"], &printed["buckets"]), (&expected["storage"], &json!([day])));
    assert_eq!(site.command(&period)["organization_id"], Value::Null);
}

#[tokio::test]
async fn viewers_see_statistics_and_plain_members_do_not() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let (viewer, plain) = (acme.member_with_role("viewer").await, acme.member().await);
    assert_eq!(statistics(&viewer.caller(), "").await["organization_id"], acme.id.as_str());
    assert_eq!(plain.caller().get("/admin/statistics").await.is(35_505_000).word(), "forbidden");
    let foreign = viewer.caller().with("x-tenant-id", &globex.id).get("/admin/statistics").await;
    assert_eq!((foreign.status, foreign.word()), (404, "organization_not_found"));
}
