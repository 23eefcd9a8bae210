//! The search over everything that a caller may list, and the names of people in the audit and decision logs.

use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::Site;
use crate::harness::waiting::eventually;

/// Kind and name of what is found.
async fn found(caller: &As<'_>, text: &str) -> Vec<(String, String)> {
    let data = caller.get(&format!("/api/v1/search?q={text}")).await.data();
    let pair = |item: &Value| (text_of(item, "kind"), text_of(item, "name"));
    data["items"].as_array().expect("items").iter().map(pair).collect()
}

fn text_of(item: &Value, name: &str) -> String {
    item[name].as_str().unwrap_or_else(|| panic!("no {name}: {item}")).to_owned()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect()
}

/// Something of each kind whose name contains `harbour`.
async fn furnished(site: &Site) -> Organization<'_> {
    site.import(json!([{"name": "harbour"}, {"name": "harbour.enter", "parent": "harbour"}])).await;
    let acme = site.organization("harbour-works").await;
    let member = json!({"username": "kim", "email": "kim@harbour.example.org", "display_name": "Kim Lee"});
    acme.admin().post("/admin/members", member).await.done();
    acme.role("harbour_master", &[]).await;
    let webhook = json!({"name": "tide", "url": "https://harbour.example.org/1", "kinds": ["job.dead"]});
    acme.owner().post("/admin/webhooks", webhook).await.done();
    site.admin().post("/admin/api-clients", json!({"name": "Harbour portal", "scopes": ["members:read"]})).await.done();
    let id = uuid::Uuid::parse_str(&acme.id).expect("an id");
    site.write_rows(|rows| {
        rows.execute(
            "insert into plugins (id, organization_id, name, created_at, updated_at) values (?1, ?2, 'harbour', 0, 0)",
            (uuid::Uuid::now_v7().as_bytes(), id.as_bytes()),
        )?;
        rows.execute(
            "insert into videos (number, id, path, organization_id, size, created_at, updated_at)
             values (1, '0123456789abcdef', 'kim/harbour.mp4', ?1, 0, 0, 0)",
            [id.as_bytes()],
        )
    });
    acme
}

#[tokio::test]
async fn an_owner_finds_everything_of_the_organization() {
    let site = Site::start().await;
    let acme = furnished(&site).await;
    let everything = pairs(&[
        ("member", "Kim Lee"),
        ("organization", "harbour-works"),
        ("role", "harbour_master"),
        ("permission", "harbour"),
        ("permission", "harbour.enter"),
        ("plugin", "harbour"),
        ("video", "kim/harbour.mp4"),
        ("webhook", "tide"),
    ]);
    assert_eq!(found(&acme.owner(), "HARBOUR").await, everything);
    let data = acme.owner().get("/api/v1/search?q=kim@h").await.data();
    let kim = &data["items"][0];
    let is_named = (text_of(kim, "detail"), text_of(kim, "org_code"), text_of(kim, "organization_id"));
    assert_eq!(is_named, ("kim@harbour.example.org".into(), "harbour-works".into(), acme.id.clone()));
    assert_eq!(found(&acme.owner(), "nothing-of-this-name").await, []);
    // The rows of the test are part of no sum.
    site.write_rows(|rows| rows.execute_batch("delete from videos; delete from plugins"));
}

/// The operations with a text to search for: their paths and parameters, as the document has them.
async fn searches(site: &Site) -> Vec<(String, &'static str)> {
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for parameter in item["get"]["parameters"].as_array().into_iter().flatten() {
            let reference = parameter["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
            let parameter =
                reference.map_or(Some(parameter), |pointer| document.pointer(pointer)).expect("a parameter");
            let known = ["keyword", "q"].into_iter().find(|name| parameter["name"] == *name);
            all.extend(known.map(|name| (format!("/api/v1{path}"), name)));
        }
    }
    all
}

#[tokio::test]
async fn control_characters_find_nothing_in_any_list() {
    let site = Site::start().await;
    let _acme = furnished(&site).await;
    site.admin().post("/admin/api-keys", json!({"service_name": "harbour", "scopes": ["*"]})).await.done();
    let all = searches(&site).await;
    assert!(all.len() >= 9, "{all:?}");
    for (path, name) in all {
        let caller = if path.contains("/internal/") { site.internal() } else { site.admin() };
        let found = async |text: &str| {
            let data = caller.get(&format!("{path}?{name}={text}")).await.data();
            data["items"].as_array().unwrap_or_else(|| panic!("no items: {path}: {data}")).len()
        };
        assert!(found("harbour").await > 0, "{path} finds nothing at all");
        for text in ["%00%00", "%00harbour", "harbour%00", "h%00r", "%09%0A", "%1F%7F", "har%C2%85bour"] {
            assert_eq!(found(text).await, 0, "{path}: {text}");
        }
    }
    site.write_rows(|rows| rows.execute_batch("delete from videos; delete from plugins"));
}

#[tokio::test]
async fn only_what_the_caller_may_list_is_searched() {
    let site = Site::start().await;
    let acme = furnished(&site).await;
    let reader = acme.member_with(&["roster.role.list", "roster.outbox.list_webhooks"]).await;
    assert_eq!(found(&reader.caller(), "harbour").await, pairs(&[("role", "harbour_master"), ("webhook", "tide")]));
    let plain = acme.member().await;
    assert_eq!(found(&plain.caller(), "harbour").await, []);
    let nobody = site.member().await;
    assert_eq!(found(&nobody.caller(), "harbour").await, []);
    assert_eq!(site.nobody().get("/api/v1/search?q=harbour").await.status, 401);
    site.write_rows(|rows| rows.execute_batch("delete from videos; delete from plugins"));
}

#[tokio::test]
async fn organizations_do_not_find_each_other() {
    let site = Site::start().await;
    let acme = furnished(&site).await;
    let globex = site.organization("globex").await;
    assert_eq!(
        found(&globex.owner(), "harbour").await,
        pairs(&[("permission", "harbour"), ("permission", "harbour.enter")])
    );
    let foreign = globex.owner().with("x-tenant-id", &acme.id).get("/api/v1/search?q=harbour").await;
    assert_eq!(foreign.is(29_301_000).word(), "organization_not_found");
    // The site finds what all organizations have, but roles and plugins of one at a time.
    let kinds = |all: Vec<(String, String)>| all.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    let of_site = kinds(found(&site.admin(), "harbour").await);
    assert_eq!(of_site, ["member", "organization", "permission", "permission", "video", "webhook", "api_client"]);
    let inside = kinds(found(&acme.admin(), "harbour").await);
    assert!(inside.contains(&"role".to_owned()) && inside.contains(&"plugin".to_owned()), "{inside:?}");
    site.write_rows(|rows| rows.execute_batch("delete from videos; delete from plugins"));
}

#[tokio::test]
async fn a_login_comes_first_and_each_kind_has_its_limit() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    for n in 0..9 {
        acme.admin().post("/admin/members", json!({"username": format!("kim{n}")})).await.done();
    }
    acme.admin().post("/admin/members", json!({"username": "kim", "email": "kim@example.org"})).await.done();
    let names: Vec<String> = found(&acme.owner(), "kim").await.into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["kim", "kim0", "kim1", "kim2", "kim3", "kim4", "kim5", "kim6"]);
    // Two characters suffice, and 200 are the most.
    assert_eq!(found(&acme.owner(), "ki").await.len(), 8);
    for text in ["k".to_owned(), String::new(), "k".repeat(201)] {
        let refused = acme.owner().get(&format!("/api/v1/search?q={text}")).await;
        assert_eq!((refused.status, refused.fields()), (400, vec!["query.q".to_owned()]), "{text}");
    }
    assert_eq!(found(&acme.owner(), &"k".repeat(200)).await, []);
}

#[tokio::test]
async fn the_command_searches_too() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    acme.admin().post("/admin/members", json!({"username": "kim", "display_name": "Kim Lee"})).await.done();
    let everywhere = site.command(&["search", "kim"]);
    assert_eq!(
        (text_of(&everywhere["items"][0], "name"), text_of(&everywhere["items"][0], "org_code")),
        ("Kim Lee".into(), "acme".into())
    );
    let inside = site.command(&["search", "owner", "--org", "acme"]);
    assert_eq!(text_of(&inside["items"][0], "name"), "Owner");
}

// ── names in the logs ──

#[tokio::test]
async fn the_logs_name_people_as_their_reader_may_see_them() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let rename = json!({"display_name": "Kim Lee"});
    acme.owner().patch(&format!("/admin/members/{}", kim.uid), rename).await.done();
    let role = acme.role("cutter", &[]).await;
    acme.assign(&kim.uid, &role).await;
    acme.check(json!({"uid": kim.uid, "permission": "roster.member.list"})).await;
    let entry = async |caller: &As<'_>, action: &str| {
        caller.get(&format!("/admin/audit?action={action}")).await.data()["items"][0].clone()
    };
    let owner = acme.owner();
    let updated = entry(&owner, "member.update").await;
    assert_eq!((text_of(&updated, "target_name"), updated["actor_name"].is_string()), ("Kim Lee".into(), true));
    assert_eq!(text_of(&entry(&owner, "role.create").await, "target_name"), "cutter");
    // The administrator of the site is not a member of the organization.
    assert_eq!(entry(&owner, "assignment.create").await.get("actor_name"), None);
    for caller in [site.admin(), acme.admin()] {
        assert!(entry(&caller, "assignment.create").await["actor_name"].is_string());
    }
    assert_eq!(text_of(&entry(&site.admin(), "organization.create").await, "target_name"), "acme");
    let decision = async |caller: &As<'_>| {
        let page = caller.get(&format!("/api/v1/permissions/decisions?uid={}", kim.uid)).await.data();
        page["items"].get(0).cloned()
    };
    let logged = eventually("the decision is logged", async || decision(&owner).await).await;
    assert_eq!(text_of(&logged, "name"), "Kim Lee");
    // Of somebody who left, an organization sees the id only.
    acme.owner().delete(&format!("/admin/members/{}/organizations/{}", kim.uid, acme.id)).await.done();
    assert_eq!(entry(&owner, "member.update").await.get("target_name"), None);
    assert_eq!(decision(&owner).await.expect("it").get("name"), None);
    assert_eq!(text_of(&entry(&site.admin(), "member.update").await, "target_name"), "Kim Lee");
    // An erased member has no name.
    site.admin().delete(&format!("/admin/members/{}", kim.uid)).await.done();
    assert_eq!(entry(&site.admin(), "member.update").await.get("target_name"), None);
}
