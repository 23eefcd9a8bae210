//! Pages of lists: by `offset`, and by `after` with the `next` cursor of the previous page.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::{Site, binary};
use crate::permissions::BAD_INPUT;

#[test]
fn every_list_with_offset_accepts_after_and_returns_next() {
    let output = Command::new(binary()).arg("openapi").output().expect("roster openapi");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut lists = 0;
    for operation in roster::kernel::http::openapi::operations(&document) {
        let takes = |name: &str| operation.parameters(&document).any(|parameter| parameter["name"] == name);
        assert_eq!(takes("offset"), takes("after"), "{}", operation.id);
        if !takes("after") {
            continue;
        }
        lists += 1;
        let named = |value: &Value| {
            let path = value["$ref"].as_str().map(|path| path.trim_start_matches('#').to_owned());
            path.map_or_else(|| value.clone(), |path| document.pointer(&path).expect("a name of the document").clone())
        };
        let answer = named(&operation.value["responses"]["200"]);
        let envelope = named(&answer["content"]["application/json"]["schema"]);
        let page = named(&envelope["allOf"][1]["properties"]["data"]);
        // Properties that all pages share are in a common schema.
        let page = page.get("allOf").map_or_else(|| page.clone(), |parts| named(&parts[0]));
        assert_eq!(page["properties"]["next"]["type"], "string", "{}", operation.id);
        let required = page["required"].as_array().expect("required");
        assert!(required.contains(&json!("offset")) && !required.contains(&json!("next")), "{}", operation.id);
    }
    assert!(lists > 20, "{lists}");
}

/// A site with some rows of every list.
async fn filled(site: &Site) -> String {
    let acme = site.organization("acme").await;
    site.organization("bolt").await;
    site.organization("core").await;
    let role = acme.role("editor", &[]).await;
    for _ in 0..5 {
        let member = acme.member().await;
        acme.assign(&member.uid, &role).await;
    }
    for _ in 0..3 {
        site.client(&["members:read"]).await;
    }
    site.write_rows(|rows| {
        rows.execute_batch(
            "insert into videos (number, id, path, size, created_at, updated_at)
             select value, printf('%016x', value), 'nobody/' || value, value, 1, 1 from json_each('[1,2,3,4,5,6,7]');
             insert into jobs (video_number, id, kind, state, run_at, steps, created_at, updated_at)
             select number, unhex(printf('%032x', number * 7919 % 97)), 'auto_ingestion', iif(number % 2, 'done', 'dead'),
                    1, '[]', 1, 1
             from videos;
             update site_usage set videos = 7;
             insert or ignore into quotas (member_id, organization_id, used, created_at, updated_at)
             select member_id, organization_id, row_number() over (order by member_id) % 3, 1, 1
             from memberships
             where organization_id = (select id from organizations where org_code = 'acme') limit 4;",
        )
    });
    role
}

/// A new owner of an organization.
async fn owner_of<'s>(site: &'s Site, org_code: &str) -> As<'s> {
    let id = site.admin().get("/admin/organizations").await.data()["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|organization| organization["org_code"] == org_code)
        .expect("the organization")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    Organization { site, id, owner_token: String::new() }.member_with_role("tenant_owner").await.caller()
}

async fn page(caller: &As<'_>, path: &str, more: &str) -> Value {
    let sign = if path.contains('?') { '&' } else { '?' };
    caller.get(&format!("{path}{sign}{more}")).await.data()
}

fn rows(page: &Value) -> Vec<Value> {
    page["items"].as_array().expect("items").clone()
}

/// Lists that a platform administrator reads, with filters and orders.
const OF_ADMIN: [&str; 36] = [
    "/admin/members",
    "/admin/members?is_active=true",
    "/admin/members?keyword=example",
    "/admin/members?keyword=e",
    "/admin/members?keyword=EXAMPLE.org",
    "/admin/members?sort=-created_at",
    "/admin/members?sort=name",
    "/admin/members?sort=-name",
    "/admin/members?sort=name&is_active=true",
    "/admin/members?sort=-name&keyword=e",
    "/admin/users",
    "/admin/users?sort=-name",
    "/admin/organizations",
    "/admin/organizations?keyword=o",
    "/admin/organizations?status=active",
    "/admin/api-clients",
    "/admin/audit",
    "/admin/audit?outcome=done",
    "/admin/audit?action=member.create",
    "/admin/quotas",
    "/admin/quotas?keyword=example",
    "/admin/quotas?sort=used",
    "/admin/quotas?sort=used&keyword=example",
    "/admin/deliveries",
    "/api/v1/videos",
    "/api/v1/videos?ownerless=true",
    "/api/v1/videos?keyword=NOBODY",
    "/api/v1/videos?sort=created_at",
    "/api/v1/videos?sort=size",
    "/api/v1/videos?sort=-size&ownerless=true",
    "/api/v1/videos?sort=-size&keyword=nobody",
    "/api/v1/jobs",
    "/api/v1/jobs?sort=created_at",
    "/api/v1/jobs?state=dead",
    "/api/v1/jobs?state=dead&sort=created_at",
    "/api/v1/jobs?state=done",
];

#[tokio::test]
async fn pages_by_after_together_equal_the_list() {
    let site = Site::start().await;
    let role = filled(&site).await;
    let acme = site.organization("delta").await;
    let (admin, owner) = (site.admin(), acme.owner());
    let in_acme = site.admin().with("x-tenant-id", "acme");
    let of_acme = owner_of(&site, "acme").await;
    let holders = format!("/api/v1/permissions/roles/{role}/users");
    let mut longer = 0;
    for (caller, path) in OF_ADMIN.iter().map(|path| (&admin, *path)).chain([
        (&owner, "/admin/members"),
        (&of_acme, "/admin/members?sort=name"),
        (&of_acme, "/admin/users?sort=-name&is_active=true"),
        (&of_acme, "/admin/quotas?sort=used"),
        (&of_acme, "/me/activity"),
        (&in_acme, &*holders),
    ]) {
        let all = page(caller, path, "limit=200").await;
        let (all_rows, total) = (rows(&all), all["total"].as_u64().expect("a total"));
        assert_eq!((all_rows.len() as u64, all.get("next")), (total, None), "{path}");
        longer += usize::from(total > 2);
        let (mut walked, mut more) = (Vec::new(), "limit=2".to_owned());
        loop {
            let one = page(caller, path, &more).await;
            walked.extend(rows(&one));
            assert_eq!(one["total"].as_u64(), Some(total), "{path} {more}");
            assert_eq!(one["offset"], json!(0), "{path}");
            let Some(next) = one["next"].as_str() else { break };
            assert!(walked.len() < all_rows.len(), "{path}: no page after {more}");
            more = format!("limit=2&after={next}");
        }
        assert_eq!(walked, all_rows, "{path}");
        let mut placed = Vec::new();
        for offset in (0..total).step_by(2) {
            let one = page(caller, path, &format!("limit=2&offset={offset}")).await;
            assert_eq!((one["total"].as_u64(), one["offset"].as_u64()), (Some(total), Some(offset)), "{path}");
            placed.extend(rows(&one));
        }
        assert_eq!(placed, all_rows, "{path}");
        let behind = page(caller, path, &format!("offset={total}")).await;
        assert_eq!((rows(&behind).len(), behind["total"].as_u64()), (0, Some(total)), "{path}");
    }
    assert!(longer > 15, "{longer}");
}

#[tokio::test]
async fn lists_are_in_the_requested_order() {
    let site = Site::start().await;
    filled(&site).await;
    for body in [
        json!({"username": "Zoe", "email": "b1@example.org"}),
        json!({"username": "anna", "email": "b2@example.org"}),
        json!({"email": "Mia@example.org"}),
    ] {
        site.admin().post("/admin/members", body).await.done();
    }
    let of_acme = owner_of(&site, "acme").await;
    let admin = site.admin();
    let name = |row: &Value| {
        let text = row["username"].as_str().or(row["email"].as_str()).unwrap_or_default();
        (text.to_lowercase(), row["id"].as_str().expect("an id").to_owned())
    };
    for (caller, path) in [(&admin, "/admin/members"), (&admin, "/admin/users"), (&of_acme, "/admin/members")] {
        let by_name: Vec<_> = rows(&page(caller, path, "sort=name").await).iter().map(name).collect();
        assert!(by_name.len() > 5 && by_name.is_sorted(), "{path}: {by_name:?}");
        let mut reversed: Vec<_> = rows(&page(caller, path, "sort=-name").await).iter().map(name).collect();
        reversed.reverse();
        assert_eq!(reversed, by_name, "{path}");
        let oldest = rows(&page(caller, path, "sort=created_at").await);
        assert_eq!(oldest, rows(&page(caller, path, "limit=50").await), "{path}");
        let mut newest = rows(&page(caller, path, "sort=-created_at").await);
        newest.reverse();
        assert_eq!(newest, oldest, "{path}");
    }
    for (path, field, default) in [("/api/v1/videos", "size", "-created_at"), ("/admin/quotas", "used", "-used")] {
        let mut sizes: Vec<i64> = Vec::new();
        for row in rows(&page(&admin, path, &format!("sort={field}")).await) {
            sizes.push(row[field].as_i64().expect("a number"));
        }
        assert!(sizes.len() > 5 && sizes.is_sorted(), "{path}: {sizes:?}");
        assert_eq!(rows(&page(&admin, path, &format!("sort={default}")).await), rows(&page(&admin, path, "").await));
    }
    let (oldest, mut newest) =
        (page(&admin, "/api/v1/jobs", "sort=created_at").await, rows(&page(&admin, "/api/v1/jobs", "").await));
    newest.reverse();
    assert_eq!(rows(&oldest), newest);
    assert_eq!(rows(&page(&admin, "/api/v1/videos", "sort=-size").await)[0]["size"], 7);
}

#[tokio::test]
async fn a_cursor_belongs_to_one_order() {
    let site = Site::start().await;
    filled(&site).await;
    for (path, order, others) in [
        ("/admin/members", "name", &["-name", "created_at", "-created_at"][..]),
        ("/admin/users", "-created_at", &["name", "-name", "created_at"][..]),
        ("/api/v1/videos", "size", &["-size", "created_at", "-created_at"][..]),
        ("/api/v1/jobs", "created_at", &["-created_at"][..]),
        ("/admin/quotas", "used", &["-used"][..]),
    ] {
        let first = page(&site.admin(), path, &format!("sort={order}&limit=1")).await;
        let next = first["next"].as_str().expect("a next page").to_owned();
        for other in others {
            let refused = site.admin().get(&format!("{path}?sort={other}&after={next}")).await;
            assert_eq!(refused.is(BAD_INPUT).fields(), ["query.after"], "{path} {other}");
        }
        let unknown = site.admin().get(&format!("{path}?sort=share")).await;
        assert_eq!(unknown.is(BAD_INPUT).fields(), ["query.sort"], "{path}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_is_bad_input() {
    let site = Site::start().await;
    filled(&site).await;
    let next = page(&site.admin(), "/admin/members", "limit=1").await["next"].as_str().expect("a next page").to_owned();
    let bad = |path: &'static str, query: String| {
        let caller = site.admin();
        async move { caller.get(&format!("{path}?{query}")).await.is(BAD_INPUT).fields() }
    };
    for after in
        ["x", "%21", "bnVsbA", "WyJtZW1iZXJzIixbXV0", "WyJtZW1iZXJzIixbbnVsbF1d", &next[1..], &next[..next.len() - 1]]
    {
        assert_eq!(bad("/admin/members", format!("after={after}")).await, ["query.after"], "{after}");
    }
    for other in [
        "/admin/organizations",
        "/admin/audit",
        "/admin/quotas",
        "/api/v1/videos",
        "/api/v1/jobs",
        "/admin/api-clients",
    ] {
        assert_eq!(bad(other, format!("after={next}")).await, ["query.after"], "{other}");
    }
    assert_eq!(bad("/admin/members", format!("after={next}&offset=0")).await, ["query.after"]);
    assert_eq!(rows(&page(&site.admin(), "/admin/members", "limit=1&after=").await).len(), 1);
}

#[tokio::test]
async fn a_member_is_found_by_its_current_names_only() {
    let site = Site::start().await;
    let names = json!({
        "username": "quentin.ahre",
        "email": "Quentin.Odd@example.org",
        "display_name": "Qu\u{ef}ntin \"Q\" 100%_x"
    });
    let uid = site.admin().post("/admin/members", names).await.data()["uid"].as_str().expect("an id").to_owned();
    let found = async |keyword: &str| {
        let url =
            reqwest::Url::parse_with_params("http://x/admin/members", [("keyword", keyword)]).expect("an address");
        let page = site.admin().get(&format!("/admin/members?{}", url.query().unwrap_or_default())).await.data();
        rows(&page).iter().any(|row| row["uid"] == *uid)
    };
    for keyword in ["quentin.ahre", "QUENTIN.A", "odd@EXAMPLE", "\"q\" 1", "q", "Qu\u{ef}", "0%_x", "tin \"Q"] {
        assert!(found(keyword).await, "{keyword}");
    }
    for keyword in ["quentin.b", "0%x", "%%", "Q_\"", "qu\u{cf}x", "ahre\nquentin"] {
        assert!(!found(keyword).await, "{keyword}");
    }
    site.admin().patch(&format!("/admin/members/{uid}"), json!({"display_name": "Zacharias"})).await.data();
    assert!(found("zachar").await && !found("100%").await && found("quentin.odd").await);
    site.admin().delete(&format!("/admin/members/{uid}")).await.done();
    assert!(!found("zachar").await && !found("quentin").await);
}

/// Rows of each kind: more than two requests read. Three of them match.
const ROWS: u32 = 9_000;
/// `:owner` and `:tenant` are the ids of an owner and of the organization, in hex.
const FEW_OF_MANY: &str = "
    create temp table n as
        with n (n) as (values (1) union all select n + 1 from n where n < :rows)
        select n, n in (5, 4500, 8999) as fits, unixepoch() * 1000 as now from n;
    insert into videos (number, id, path, size, created_at, updated_at)
    select n, printf('%016x', n), 'nobody/' || n || iif(fits, 'zq', ''), n, now, now from n;
    insert into jobs (video_number, id, kind, state, run_at, steps, created_at, updated_at)
    select n, unhex(printf('%032x', n)), 'auto_ingestion', 'dead', 1,
           iif(fits, '[{\"processor\":\"asr\",\"state\":\"failed\",\"progress_percent\":0}]', '[]'), now, now
    from n;
    update site_usage set videos = :rows;
    insert into audit (at, actor_kind, actor, action, target, organization_id, outcome, request_id, address, hash)
    select now + n, 'cli', 'test', iif(fits, 'test.rare', 'test.frequent'), 'thing one', x':tenant',
           iif(fits, 'denied', 'done'), '', '', zeroblob(32)
    from n;
    insert into events (id, at, kind, organization_id, data, request_id)
    select 100000 + n, now, iif(fits, 'video.deleted', 'member.created'), x':tenant', '{}', '' from n;
    insert into deliveries (target, event_id, state, next_at, updated_at)
    select 'mail ' || lower(hex(x':owner')), 100000 + n, 'delivered', 1, now from n;
    insert into quota_ledger (at, member_id, organization_id, cause, delta, used_after, request_id)
    select now, x':owner', iif(fits, x':tenant', null), 'register', 0, 0, '' from n;
    insert into members (id, username, username_folded, display_name, status, created_at, updated_at)
    select unhex(printf('000000000000700080000000%08x', n)), 'user' || n, 'user' || n, iif(fits, 'Zq', 'Kim'), 'active', 1, 1
    from n;
    insert into memberships (organization_id, member_id, created_at)
    select x':tenant', unhex(printf('000000000000700080000000%08x', n)), 1 from n;
    drop table n;";

#[tokio::test]
async fn few_matching_rows_are_found_in_parts_by_after_and_at_once_by_offset() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (owner, tenant) = (acme.member_with_role("tenant_owner").await, acme.id.replace('-', ""));
    site.write_rows(|rows| {
        let sql = FEW_OF_MANY.replace(":rows", &ROWS.to_string()).replace(":tenant", &tenant);
        rows.execute_batch(&sql.replace(":owner", &owner.uid.replace('-', "")))
    });
    let (admin, of_acme) = (site.admin(), owner.caller());
    let action = format!("/admin/audit?action=test.rare&organization={}", acme.id);
    let of_actor = "/admin/audit?action=test.rare&actor=test".to_owned();
    let ledger = format!("/admin/quotas/{}/ledger", owner.uid);
    for (caller, path) in [
        (&admin, "/api/v1/videos?keyword=zq"),
        (&admin, "/api/v1/jobs?processor=asr"),
        (&admin, "/admin/audit?outcome=denied"),
        (&admin, &*action),
        (&admin, &*of_actor),
        (&of_acme, "/admin/audit?action=test.rare"),
        (&admin, "/admin/deliveries?kind=video.deleted"),
        (&of_acme, "/admin/deliveries?kind=video.deleted"),
        (&of_acme, &*ledger),
        (&admin, "/admin/members?keyword=zq"),
        (&of_acme, "/admin/members?keyword=ZQ"),
        (&admin, "/admin/members?keyword=zq&sort=name"),
        (&of_acme, "/admin/users?keyword=zq&sort=-name"),
        (&admin, "/api/v1/videos?keyword=zq&sort=size"),
        (&admin, "/api/v1/jobs?processor=asr&sort=created_at"),
        (&admin, "/admin/quotas?keyword=zq"),
        (&of_acme, "/admin/quotas?keyword=zq"),
    ] {
        let all = page(caller, path, "offset=0").await;
        assert_eq!((rows(&all).len(), &all["total"], all.get("next")), (3, &json!(3), None), "{path}");
        let (mut found, mut answers, mut more) = (Vec::new(), 0, "limit=50".to_owned());
        loop {
            let one = page(caller, path, &more).await;
            let is_first = answers == 0;
            found.extend(rows(&one));
            answers += 1;
            assert!(answers < 9, "{path} has no end");
            let Some(next) = one["next"].as_str() else { break };
            // A client that continues by offset finds the remaining rows.
            assert!(!is_first || one["total"].as_u64() > Some(found.len() as u64), "{path}");
            more = format!("limit=50&after={next}");
        }
        assert_eq!(found, rows(&all), "{path}");
        assert!(answers > 2, "{path}: {answers} answers read everything");
        let rest = page(caller, path, "offset=1&limit=1").await;
        assert_eq!((rows(&rest), &rest["total"]), (vec![found[1].clone()], &json!(3)), "{path}");
    }
    // A filter with an index needs no scan in parts.
    let rare = site.admin().get("/admin/audit?action=test.rare").await.data();
    assert_eq!((rows(&rare).len(), &rare["total"], rare.get("next")), (3, &json!(3), None));
    // An export does not end early either.
    let exported = site.admin().get("/admin/audit/export?action=test.rare").await;
    assert_eq!(exported.body.to_string().matches("test.rare").count(), 3);
    // These entries are not part of the chain.
    site.write_rows(|rows| rows.execute_batch("delete from audit where actor = 'test'"));
}

#[tokio::test]
async fn many_organizations_of_a_member_are_listed_in_order() {
    let site = Site::start().await;
    let kim = site.member().await;
    site.write_rows(|rows| {
        rows.execute_batch(&format!(
            "create temp table n as with n (n) as (values (1) union all select n + 1 from n where n < 700) select n from n;
             insert into organizations (id, org_code, name, status, created_at, updated_at)
             select unhex(printf('000000000000700080000000%08x', n)), printf('many-%04d', n * 7919 % 1000), 'Many', 'active',
                    1, 1
             from n;
             insert into memberships (organization_id, member_id, created_at)
             select unhex(printf('000000000000700080000000%08x', n)), x'{}', 1 from n where n % 7 <> 0;
             drop table n;",
            kim.uid.replace('-', "")
        ))
    });
    let path = format!("/admin/members/{}/organizations", kim.uid);
    let (mut codes, mut more) = (Vec::new(), "limit=200".to_owned());
    loop {
        let one = page(&site.admin(), &path, &more).await;
        assert_eq!(one["total"], 600);
        let placed = page(&site.admin(), &path, &format!("limit=200&offset={}", codes.len())).await;
        assert_eq!(rows(&placed), rows(&one));
        codes.extend(rows(&one).iter().map(|row| row["org_code"].as_str().expect("a code").to_owned()));
        let Some(next) = one["next"].as_str() else { break };
        more = format!("limit=200&after={next}");
    }
    assert_eq!(codes.len(), 600);
    assert!(codes.is_sorted());
}

/// The counts of jobs, counted from the rows.
const RECOUNTED: &str = "
    select coalesce(j.organization_id, x''), sum(j.state = 'queued'),
           sum(j.state = 'queued' and coalesce(m.status, 'active') <> 'active'), sum(j.state = 'leased'),
           sum(j.state = 'done'), sum(j.state = 'dead')
    from jobs j
    left join members m on m.id = j.member_id
    group by 1";
const KEPT: &str = "
    select organization_id, queued, held, leased, done, dead
    from job_counts
    where queued + held + leased + done + dead > 0";

#[test]
fn stored_counts_of_jobs_equal_the_counted_rows() {
    let connection = rusqlite::Connection::open_in_memory().expect("memory");
    connection.execute_batch(roster::kernel::db::schema::SCHEMA).expect("schema.sql");
    connection
        .execute_batch(
            "create temp table n as with n (n) as (values (0) union all select n + 1 from n where n < 39) select n from n;
             insert into members (id, status, created_at, updated_at)
             select unhex(printf('%032x', n)), iif(n % 3, 'active', 'suspended'), 1, 1 from n where n < 5;
             insert into videos (number, id, path, size, created_at, updated_at)
             select n, printf('%016x', n), 'a/' || n, 1, 1, 1 from n;",
        )
        .expect("rows");
    let all = |sql: &str| -> Vec<(Vec<u8>, [i64; 5])> {
        let mut statement = connection.prepare(&format!("{sql} order by 1")).expect("a statement");
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]))
        };
        statement.query_map([], row).expect("rows").map(|row| row.expect("a row")).collect()
    };
    let id = |n: u64| format!("iif({n} % 6 = 5, null, unhex(printf('%032x', {n} % 6)))");
    let state = |n: u64| ["queued", "leased", "done", "dead", "queued"][(n % 5) as usize];
    let mut seed = 7_u64;
    let mut next = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut held = 0;
    for step in 0..600 {
        let (what, video, who, whose, word) = (next(7), next(40), next(6), next(4), state(next(5)));
        let change = match what {
            0 | 1 => format!(
                "insert or ignore into jobs (video_number, id, member_id, organization_id, kind, state, run_at, steps,
                                             created_at, updated_at)
                 values ({video}, randomblob(16), {}, iif({whose} = 3, null, zeroblob({whose} + 1)), 'auto_ingestion',
                         '{word}', 1, '[]', 1, 1)",
                id(who)
            ),
            2 => format!("update jobs set state = '{word}', run_at = run_at + 1 where video_number % 5 = {video} % 5"),
            3 => format!("update jobs set organization_id = zeroblob({whose} + 1) where video_number = {video}"),
            4 => format!("update jobs set member_id = {} where video_number = {video}", id(who)),
            5 => format!(
                "update members set status = iif(status = 'active', 'suspended', 'active') where id is {}",
                id(who)
            ),
            _ => format!("delete from jobs where video_number = {video}"),
        };
        connection.execute_batch(&change).unwrap_or_else(|e| panic!("{e}: {change}"));
        let kept = all(KEPT);
        assert_eq!(kept, all(RECOUNTED), "step {step}: {change}");
        held += kept.iter().map(|(_, counts)| counts[1]).sum::<i64>();
    }
    assert!(held > 100, "{held}");
}
