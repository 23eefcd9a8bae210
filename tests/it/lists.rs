//! Pages of lists: by `offset` as ever, and by `after` from the `next` of the page before.

use std::process::Command;

use serde_json::{Value, json};

use crate::site::{As, Site, binary};

const BAD_INPUT: u64 = 10_101_000;

#[test]
fn every_list_that_takes_an_offset_takes_after_and_answers_next() {
    let output = Command::new(binary()).arg("openapi").output().expect("roster openapi");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut lists = 0;
    for operation in roster::kernel::http::document::operations(&document) {
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
        assert_eq!(page["properties"]["next"]["type"], "string", "{}", operation.id);
        let required = page["required"].as_array().expect("required");
        assert!(required.contains(&json!("offset")) && !required.contains(&json!("next")), "{}", operation.id);
    }
    assert!(lists > 20, "{lists}");
}

/// A site with some of everything.
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
             update site set videos = 7;
             insert or ignore into quotas (member_id, organization_id, used, created_at, updated_at)
             select member_id, organization_id, row_number() over (order by member_id) % 3, 1, 1
             from memberships
             where organization_id = (select id from organizations where org_code = 'acme') limit 4;",
        )
    });
    role
}

async fn page(caller: &As<'_>, path: &str, more: &str) -> Value {
    let sign = if path.contains('?') { '&' } else { '?' };
    caller.get(&format!("{path}{sign}{more}")).await.data()
}

fn rows(page: &Value) -> Vec<Value> {
    page["items"].as_array().expect("items").clone()
}

#[tokio::test]
async fn pages_by_after_are_the_list() {
    let site = Site::start().await;
    let role = filled(&site).await;
    let acme = site.organization("delta").await;
    let (admin, owner) = (site.admin(), acme.owner());
    let in_acme = site.admin().with("x-tenant-id", "acme");
    let holders = format!("/api/v1/permissions/roles/{role}/users");
    let of_admin = [
        "/admin/members",
        "/admin/members?is_active=true",
        "/admin/members?keyword=example",
        "/admin/members?keyword=e",
        "/admin/members?keyword=EXAMPLE.org",
        "/admin/users",
        "/admin/organizations",
        "/admin/organizations?keyword=o",
        "/admin/organizations?status=active",
        "/admin/api-clients",
        "/admin/audit",
        "/admin/audit?outcome=done",
        "/admin/audit?action=member.create",
        "/admin/quotas",
        "/admin/quotas?keyword=example",
        "/admin/deliveries",
        "/api/v1/videos",
        "/api/v1/videos?ownerless=true",
        "/api/v1/videos?keyword=NOBODY",
        "/api/v1/jobs",
        "/api/v1/jobs?state=dead",
        "/api/v1/jobs?state=done",
    ];
    let mut longer = 0;
    for (caller, path) in
        of_admin.iter().map(|path| (&admin, *path)).chain([(&owner, "/admin/members"), (&in_acme, &*holders)])
    {
        let all = caller.get(path).await.data();
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
            assert!(walked.len() < all_rows.len(), "{path}: there is nothing behind {more}");
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
async fn a_cursor_that_is_none_of_this_list_is_bad_input() {
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
async fn a_member_is_found_by_its_names_as_they_are_now() {
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
