//! What remains of an erased member.

use reqwest::Method;
use serde_json::{Value, json};

use super::NOBODYS_ID;
use crate::harness::site::Site;

#[tokio::test]
async fn an_erased_member_leaves_its_id_and_nothing_else() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let body =
        json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim Example", "authentik_sub": "sub-1"});
    let kim = site.admin().post("/admin/members", body.clone()).await.data();
    let at = format!("/admin/members/{}", kim["uid"].as_str().unwrap());
    acme.link(kim["uid"].as_str().unwrap()).await;

    let erased = site.admin().delete(&at).await;

    assert_eq!(erased.body, json!({"code": 102_000, "message": "ok"}));
    let left = site.admin().get(&at).await.data();
    let names = ["username", "email", "display_name", "authentik_sub", "authentik_user_id"];
    assert_eq!(
        (names.map(|name| left[name].clone()), &left["status"]),
        ([const { Value::Null }; 5], &json!("deleted"))
    );
    assert_eq!(site.admin().get(&format!("{at}/organizations")).await.data()["total"], 0);
    assert_eq!(rows_that_name(&site, &["kim@example.org", "Kim Example", "sub-1"]), [""; 0]);
    site.admin().post("/admin/members", body).await.done();
}

#[tokio::test]
async fn an_erased_member_stays_erased() {
    let site = Site::start().await;
    let member = site.member().await;
    let at = format!("/admin/members/{}", member.uid);
    site.admin().delete(&at).await.done();

    for (method, path) in [
        (Method::PATCH, at.clone()),
        (Method::DELETE, at.clone()),
        (Method::POST, format!("{at}/activate")),
        (Method::POST, format!("{at}/organizations/{NOBODYS_ID}")),
    ] {
        let reply = site.admin().send(method, &path, Some(json!({}))).await;
        assert_eq!(reply.is(29_309_000).word(), "member_deleted", "{path}");
    }
    assert_eq!(member.caller().get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    assert_eq!(site.admin().get(&format!("/admin/members?keyword={}", member.username)).await.data()["total"], 0);
}

#[tokio::test]
async fn stored_responses_of_idempotency_keys_are_erased_with_the_member() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim Example"});
    let once = site.admin().with("idempotency-key", "k1");
    let kim = once.post("/admin/members", body).await.data();

    site.admin().delete(&format!("/admin/members/{}", kim["uid"].as_str().unwrap())).await.done();

    assert_eq!(rows_that_name(&site, &["kim@example.org", "Kim Example"]), [""; 0]);
}

#[tokio::test]
async fn stored_responses_that_name_an_erased_member_are_not_returned() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "display_name": "Kim Example"});
    let once = site.admin().with("idempotency-key", "k1");
    let kim = once.post("/admin/members", body.clone()).await.data();
    let uid = kim["uid"].as_str().unwrap();
    assert_eq!(once.post("/admin/members", body.clone()).await.data(), kim);
    // More responses than one batch reads; every third names the member.
    site.write_rows(|rows| {
        rows.execute_batch(&format!(
            "insert into idempotency_keys (caller, action, key, fingerprint, answer, created_at)
             with n (n) as (values (1) union all select n + 1 from n where n < 6000)
             select 'test', 'test', n, x'', iif(n % 3, '{{\"uid\":\"other\"}}', '{{\"uid\":\"{uid}\"}}'),
                    unixepoch() * 1000
             from n;
             insert into erased_names (name) values ('{uid}');"
        ))
    });
    // The state right after the erasure: the response is still stored, and nobody gets it.
    assert_eq!(once.post("/admin/members", body).await.word(), "email_exists");

    site.admin().delete(&format!("/admin/members/{uid}")).await.done();

    let left = |what: &str| -> i64 {
        site.rows().query_row(&format!("select count(*) from {what}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(left(&format!("idempotency_keys where instr(answer, '{uid}') > 0")), 0);
    assert_eq!((left("idempotency_keys where caller = 'test'"), left("erased_names")), (4_000, 0));
}

/// Tables with a row that contains one of these texts.
fn rows_that_name(site: &Site, texts: &[&str]) -> Vec<String> {
    let rows = site.rows();
    let mut tables = rows.prepare("select name from sqlite_schema where type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let names = |table: &String| {
        let mut all = rows.prepare(&format!("select * from {table}")).unwrap();
        let columns = all.column_count();
        let mut found = all.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            for column in 0..columns {
                let value = row.get_ref(column).unwrap();
                if value.as_str().is_ok_and(|value| texts.iter().any(|text| value.contains(text))) {
                    return true;
                }
            }
        }
        false
    };
    tables.into_iter().filter(names).collect()
}
