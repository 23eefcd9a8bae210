//! The catalog: its list, imports of it, and permissions that are closed and opened.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{BAD_CATALOG, BAD_INPUT, EXISTS, FORBIDDEN, P, each, fields, holds, role_url, ticks, videos};
use crate::harness::callers::{As, Reply};
use crate::harness::site::Site;

fn sorted<'v>(list: &'v Value, field: &str) -> BTreeSet<&'v str> {
    each(list, field).into_iter().collect()
}

async fn import(caller: &As<'_>, query: &str, document: Value) -> Reply {
    caller.put(&format!("{P}/catalog{query}"), document).await
}

// ── catalog ──

#[tokio::test]
async fn the_catalog_is_a_list_or_a_tree_and_can_be_filtered() {
    let site = Site::start().await;
    site.import(videos()).await;
    let anybody = site.member().await;
    let get = async |query: &str| anybody.caller().get(&format!("{P}/catalog?app=main&{query}")).await.data();

    let list = get("").await;
    assert_eq!(fields(&list), ["list"]);
    assert_eq!(
        each(&list["list"], "id"),
        ["video", "video.list", "video.item", "video.item.delete", "report", "report.read"]
    );
    assert_eq!(
        list["list"][1],
        json!({"id": "video.list", "parent": "video", "name": "video.list", "http_methods": "GET", "http_path": "/videos",
            "status": "open", "type": "frontend_user"})
    );
    assert_eq!(list["list"][0], json!({"id": "video", "name": "video", "status": "open", "type": "backend_user"}));
    assert_eq!(each(&get("status=close").await["list"], "id"), ["report.read"]);
    assert_eq!(each(&get("type=frontend_user&status=open").await["list"], "id"), ["video.list"]);

    let tree = get("tree=true").await;
    assert_eq!(fields(&tree), ["tree"]);
    assert_eq!(each(&tree["tree"], "id"), ["video", "report"]);
    assert_eq!(each(&tree["tree"][0]["children"], "id"), ["video.list", "video.item"]);
    assert_eq!(tree["tree"][0]["children"][1]["children"][0]["id"], "video.item.delete");
}

#[tokio::test]
async fn all_faults_of_a_catalog_filter_are_reported_together() {
    let site = Site::start().await;
    let reply = site.admin().get(&format!("{P}/catalog?status=ajar&type=robot&tree=perhaps")).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["query.status", "query.tree", "query.type"]);
}

// ── closing and opening ──

#[tokio::test]
async fn closed_permissions_have_no_effect_until_they_are_opened_again() {
    let site = Site::start().await;
    let all_open_but = |closed: &str| {
        let mut entries = videos();
        for entry in entries.as_array_mut().expect("a list") {
            entry["status"] = if entry["name"] == closed { json!("close") } else { json!("open") };
        }
        entries
    };
    site.import(all_open_but("")).await;
    let acme = site.organization("acme").await;
    let (role, member) = (acme.role("editor", &["video.item.delete", "video.list"]).await, acme.member().await);
    acme.assign(&member.uid, &role).await;
    let held =
        async || (holds(&acme, &member.uid, "video.item.delete").await, holds(&acme, &member.uid, "video.list").await);
    let listed = ticks(&acme, &role).await;

    assert_eq!(held().await, (true, true));
    acme.owner().patch(&role_url(&role), json!({"status": "close"})).await.done();
    assert_eq!(held().await, (false, false), "the role");
    acme.owner().patch(&role_url(&role), json!({"status": "open"})).await.done();
    for (name, expected) in [
        ("video.list", (true, false)),
        ("video.item", (false, true)),
        ("video", (false, false)),
        ("report", (true, true)),
    ] {
        site.import(all_open_but(name)).await;
        assert_eq!(held().await, expected, "{name}");
        assert_eq!(ticks(&acme, &role).await, listed, "ticks stay");
        site.import(all_open_but("")).await;
        assert_eq!(held().await, (true, true), "{name} open again");
    }
}

#[tokio::test]
async fn an_import_without_a_status_leaves_it_unchanged() {
    let site = Site::start().await;
    site.import(json!([{"name": "a", "status": "close"}, {"name": "b"}])).await;
    assert_eq!(
        site.import(json!([{"name": "a"}, {"name": "b"}])).await,
        json!({"added": [], "changed": [], "orphaned": []})
    );
    let closed = site.admin().get(&format!("{P}/catalog?app=main&status=close")).await.data();
    assert_eq!(each(&closed["list"], "id"), ["a"]);
}

// ── import ──

/// An OpenAPI document with this many operations, in the form that services publish.
fn openapi(operations: usize) -> Value {
    let mut paths = Map::new();
    for n in 0..operations {
        let (tag, path) = (["Users", "Event Manager", "Shares"][n % 3], format!("/things{}/{{id}}", n / 2));
        let method = if n % 2 == 0 { "get" } else { "delete" };
        let operation =
            json!({"tags": [tag], "operationId": format!("op{n}-ById"), "responses": {"200": {"description": "ok"}}});
        paths.entry(path).or_insert_with(|| json!({"parameters": [{"name": "id", "in": "path"}]}))[method] = operation;
    }
    json!({"openapi": "3.0.3", "info": {"title": "Files", "version": "2"}, "servers": [{"url": "https://files.example.org/api/v2"}], "paths": paths})
}

/// A document as YAML. JSON is YAML too, but real documents use indented blocks.
fn yaml(value: &Value, indent: usize) -> String {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().map(|(key, value)| format!("\n{pad}{}:{}", json!(key), yaml(value, indent + 1))).collect()
        }
        Value::Array(list) if !list.is_empty() => list.iter().map(|value| format!("\n{pad}- {value}")).collect(),
        other => format!(" {other}"),
    }
}

#[tokio::test]
async fn an_import_is_idempotent_and_reports_its_changes() {
    let site = Site::start().await;
    let first = site.import(videos()).await;
    assert_eq!(
        first["added"],
        json!(["report", "report.read", "video", "video.item", "video.item.delete", "video.list"])
    );
    assert_eq!((&first["changed"], &first["orphaned"]), (&json!([]), &json!([])));
    let epoch = site.admin().get(&format!("{P}/catalog")).await;
    assert_eq!(epoch.status, 200);
    let entry = site.last_audit_entry().await;
    assert_eq!(site.import(videos()).await, json!({"added": [], "changed": [], "orphaned": []}));
    assert_eq!(site.last_audit_entry().await, entry, "nothing changed");

    let next = json!([
        {"name": "video"},
        {"name": "video.list", "parent": "video", "http_methods": "GET|POST", "http_path": "/videos"},
        {"name": "video.new", "parent": "video", "http_methods": "PUT", "http_path": "/videos"},
    ]);
    let orphaned = json!(["report", "report.read", "video.item", "video.item.delete"]);
    let mut done = site.import(next).await;
    let notes = done.as_object_mut().expect("an object").remove("notes");
    let codes = done.as_object_mut().expect("an object").remove("note_codes");
    assert_eq!(codes, Some(json!(["orphaned_kept"])));
    assert_eq!(done, json!({"added": ["video.new"], "changed": ["video.list"], "orphaned": orphaned}));
    assert!(notes.is_some_and(|notes| notes[0].as_str().is_some_and(|note| note.contains("roles keep them"))));
}

#[tokio::test]
async fn an_orphan_allows_nothing_until_an_import_contains_it_again() {
    let site = Site::start().await;
    site.import(videos()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["video.list"]).await;
    assert!(holds(&acme, &member.uid, "video.list").await);

    site.import(json!([{"name": "video"}])).await;
    assert!(!holds(&acme, &member.uid, "video.list").await);
    assert_eq!(
        acme.check(json!({"uid": member.uid, "method": "GET", "path": "/videos"})).await["reason"],
        json!("unmapped_route")
    );
    let list = site.admin().get(&format!("{P}/catalog?app=main")).await.data();
    assert_eq!(each(&list["list"], "id"), ["video"]);

    assert_eq!(site.import(videos()).await["added"], json!([]));
    assert!(holds(&acme, &member.uid, "video.list").await, "the permission is still ticked");
}

#[tokio::test]
async fn an_import_changes_only_its_own_application() {
    let site = Site::start().await;
    site.import(videos()).await;
    let admin = site.admin();
    let body = json!({"app": "files", "prefix": "f", "permissions": [{"name": "a"}, {"name": "b", "parent": "a"}]});

    assert_eq!(
        import(&admin, "", body.clone()).await.data(),
        json!({"added": ["f.a", "f.b"], "changed": [], "orphaned": []})
    );
    let moved = import(&admin, "?prefix=g", body).await.data();
    assert_eq!((&moved["added"], &moved["orphaned"]), (&json!(["g.a", "g.b"]), &json!(["f.a", "f.b"])));
    assert_eq!(site.import(videos()).await, json!({"added": [], "changed": [], "orphaned": []}));
    let reply = import(&admin, "?app=files", json!({"permissions": [{"name": "video"}]})).await;
    assert_eq!(reply.is(EXISTS).word(), "permission_exists");
}

#[tokio::test]
async fn a_dry_import_changes_nothing() {
    let site = Site::start().await;
    let reply = import(&site.admin(), "?dry_run=true", json!({"permissions": [{"name": "a"}]})).await;
    assert_eq!((&reply.data()["added"], reply.data().get("requests")), (&json!(["a"]), None));
    let one = json!({"permissions": [{"name": "b", "http_methods": "GET|PUT", "http_path": "/b"}]});
    let reply = import(&site.admin(), "?dry_run=true", one).await;
    assert_eq!(reply.data()["requests"], json!([{"name": "b", "http_methods": "GET|PUT", "http_path": "/b"}]));
    assert_eq!(site.admin().get(&format!("{P}/catalog?app=main")).await.data()["list"], json!([]));
}

#[tokio::test]
async fn a_dry_import_names_the_roles_that_would_lose_something() {
    let site = Site::start().await;
    site.import(videos()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let cutter = acme.role("cutter", &["video.item.delete", "video.list", "roster.role.list"]).await;
    let clerk = bolt.role("clerk", &["video.list"]).await;
    bolt.role("guard", &["roster.role.list", "report.read"]).await;
    let kim = acme.member().await;
    acme.assign(&kim.uid, &cutter).await;
    let losing = async |query: &str, document: Value| {
        let answer = import(&site.admin(), &format!("?dry_run=true{query}"), document).await.data();
        let view = |role: &Value| {
            let mut names: Vec<String> = each_text(&role["permissions"]);
            names.sort();
            (
                role["role_id"].as_str().expect("an id").to_owned(),
                role["members"].as_u64().expect("a number"),
                role["count"].as_u64().expect("a number"),
                names.join(" "),
            )
        };
        let mut found: Vec<_> = answer["losing_roles"].as_array().into_iter().flatten().map(view).collect();
        assert_eq!(answer["losing_roles_total"].as_u64().unwrap_or_default(), found.len() as u64);
        found.sort();
        found
    };
    let row = |role: &String, members: u64, names: &str| {
        (role.clone(), members, names.split(' ').count() as u64, names.to_owned())
    };
    let sorted = |mut rows: Vec<(String, u64, u64, String)>| {
        rows.sort();
        rows
    };

    // Nothing is lost by the same document, nor by a closed permission that was closed before.
    assert!(losing("", json!({"permissions": videos()})).await.is_empty());
    // Orphaned.
    let without = json!({"permissions": [{"name": "video"}]});
    let both = sorted(vec![row(&cutter, 1, "video.item.delete video.list"), row(&clerk, 0, "video.list")]);
    assert_eq!(losing("", without.clone()).await, both);
    // A closed category takes all below it.
    let mut closed = videos();
    closed[0]["status"] = json!("close");
    assert_eq!(losing("", json!({"permissions": closed})).await, both);
    // An organization that no longer has the application.
    assert_eq!(losing("&organizations=acme", json!({"permissions": videos()})).await, [row(&clerk, 0, "video.list")]);
    // Only a dry run tells it, and it changes nothing.
    assert!(holds(&acme, &kim.uid, "video.list").await);
    let done = import(&site.admin(), "", without).await.data();
    assert_eq!((done.get("losing_roles"), done.get("losing_roles_total")), (None, None));
}

#[tokio::test]
async fn a_dry_import_of_an_old_version_is_refused() {
    let site = Site::start().await;
    let admin = site.admin();
    let version = admin.get(&format!("{P}/catalog?app=main")).await.header("etag").expect("a version").to_owned();
    site.import(videos()).await;
    let stale = import(&admin.clone().with("if-match", &version), "?dry_run=true", json!({"permissions": []})).await;
    assert_eq!((stale.status, stale.word()), (412, "version_stale"));
}

/// The texts of a list.
fn each_text(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|one| one.as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn an_openapi_document_of_a_service_is_a_catalog() {
    let site = Site::start().await;
    let (admin, document) = (site.admin(), openapi(140));
    let url = format!("{P}/catalog?app=files&prefix=Files");

    let imported = admin.put(&url, document.clone()).await.data();
    let as_yaml = admin.send_raw(Method::PUT, &url, "application/yaml", yaml(&document, 0).into_bytes()).await.data();

    assert_eq!(imported["added"].as_array().map(Vec::len), Some(144), "operations, tags, and the top");
    assert_eq!(as_yaml, json!({"added": [], "changed": [], "orphaned": []}), "the same as YAML");
    let list = admin.get(&format!("{P}/catalog?app=files")).await.data();
    let names = sorted(&list["list"], "id");
    for name in [
        "files",
        "files.users",
        "files.event_manager",
        "files.shares",
        "files.users.op0_byid",
        "files.event_manager.op1_byid",
    ] {
        assert!(names.contains(name), "{name}");
    }
    let op = list["list"]
        .as_array()
        .expect("list")
        .iter()
        .find(|node| node["id"] == "files.event_manager.op1_byid")
        .expect("op");
    assert_eq!((&op["http_methods"], &op["http_path"]), (&json!("DELETE"), &json!("/api/v2/things0/{id}")));
    assert_eq!(op["parent"], json!("files.event_manager"));
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["files.event_manager.op1_byid"]).await;
    let asked = json!({"uid": member.uid, "app": "files", "method": "DELETE", "path": "/api/v2/things0/9"});
    assert_eq!(acme.check(asked).await["allow"], json!(true));
}

#[tokio::test]
async fn our_own_catalog_form_is_accepted_as_yaml() {
    let site = Site::start().await;
    let text = "# ours\napp: files\npermissions:\n  - name: a\n  - name: a.read\n    parent: a\n    http_methods: GET|POST\n    http_path: /a/*rest\n";
    for kind in ["application/yaml", "application/x-yaml", "text/yaml; charset=utf-8"] {
        site.admin().send_raw(Method::PUT, &format!("{P}/catalog"), kind, text.into()).await.done();
    }
    let list = site.admin().get(&format!("{P}/catalog?app=files")).await.data();
    assert_eq!(each(&list["list"], "id"), ["a", "a.read"]);
}

#[tokio::test]
async fn an_ambiguous_import_is_refused_and_both_entries_are_named() {
    let site = Site::start().await;
    let entries = json!([
        {"name": "a.one", "http_methods": "GET|POST", "http_path": "/a/:id"},
        {"name": "a.two", "http_methods": "POST", "http_path": "/a/{key}"},
    ]);

    let reply = import(&site.admin(), "", json!({"permissions": entries})).await;

    assert_eq!(reply.is(BAD_CATALOG).word(), "ambiguous_catalog");
    assert_eq!(reply.fields(), ["body.permissions.1"]);
    let message = reply.body["fields"][0]["message"].as_str().expect("a message");
    assert!(message.contains("a.one") && message.contains("a.two"), "{message}");
    assert_eq!(site.admin().get(&format!("{P}/catalog?app=main")).await.data()["list"], json!([]));
    // In two applications the same route is two routes.
    import(&site.admin(), "?app=x", json!({"permissions": [entries[0]]})).await.done();
    import(&site.admin(), "?app=y", json!({"permissions": [entries[1]]})).await.done();
}

#[tokio::test]
async fn a_catalog_that_cannot_be_read_is_refused_with_the_reason() {
    let site = Site::start().await;
    let admin = site.admin();
    let url = format!("{P}/catalog");
    let raw = async |kind: &str, body: &str| admin.send_raw(Method::PUT, &url, kind, body.into()).await;

    for (document, faults) in [
        (json!({"app": "roster", "permissions": []}), vec!["body.app"]),
        (json!({"app": "a b", "permissions": []}), vec!["body.app"]),
        (
            json!({"permissions": [{"name": "roster.role.list"}, {"name": "roster.new"}]}),
            vec!["body.permissions.0", "body.permissions.1"],
        ),
        (json!({"permissions": [{"name": "a", "parent": "nowhere"}]}), vec!["body.permissions.0"]),
        (
            json!({"permissions": [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}]}),
            vec!["body.permissions.0", "body.permissions.1"],
        ),
        (json!({"permissions": [{"name": "a"}, {"name": "a"}]}), vec!["body.permissions.1"]),
        (json!({"permissions": [{"name": "a", "http_path": "/a"}]}), vec!["body.permissions.0"]),
        (
            json!({"permissions": [{"name": "a", "http_methods": "get", "http_path": "/a//b"}]}),
            vec!["body.permissions.0", "body.permissions.0"],
        ),
        (
            json!({"permissions": [{"name": "a", "status": "ajar", "type": "robot", "x": 1}]}),
            vec!["body.permissions.0.status", "body.permissions.0.type", "body.permissions.0.x"],
        ),
        (json!({"colour": "red"}), vec!["body.colour", "body.permissions"]),
        (json!({"openapi": "2.9", "paths": {}}), vec!["body.openapi"]),
        (json!({"swagger": "2.0", "paths": {}}), vec!["body.swagger"]),
    ] {
        assert_eq!(import(&admin, "", document.clone()).await.is(BAD_CATALOG).fields(), faults, "{document}");
    }
    for kind in ["text/plain", "application/xml", "application/octet-stream", ""] {
        raw(kind, "{\"permissions\":[]}").await.is(10_115_000);
    }
    for body in ["", "{", "- a\n- b\n", "a: [", "{\"app\":\"x\",\"app\":\"y\",\"permissions\":[]}"] {
        assert_eq!(raw("application/yaml", body).await.is(BAD_INPUT).word(), "malformed_body", "{body}");
    }
}

#[tokio::test]
async fn a_catalog_over_its_limits_is_refused_as_a_whole() {
    let site = Site::with("[limits]\ncatalog_entries = 200\ncatalog_bytes = 4096\n").await;
    let own = site.admin().get(&format!("{P}/catalog")).await.data()["list"].as_array().map(Vec::len).expect("entries");
    let entries = |count: usize| -> Value { (0..count).map(|n| json!({"name": format!("p{n}")})).collect() };

    let reply = import(&site.admin(), "", json!({"permissions": entries(201 - own)})).await;
    assert_eq!(reply.is(BAD_INPUT).fields(), ["body"]);
    assert_eq!(site.import(entries(200 - own)).await["added"].as_array().map(Vec::len), Some(200 - own));
    let large = json!({"permissions": [{"name": "x".repeat(4096)}]});
    import(&site.admin(), "", large).await.is(10_113_000);
}

#[tokio::test]
async fn only_the_platform_imports_catalogs() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let body = json!({"permissions": []});
    import(&acme.owner(), "", body.clone()).await.is(FORBIDDEN);
    import(&site.client(&["*"]).await, "", body.clone()).await.is(31_501_000);
    import(&site.platform_member(&["roster.policy.import_catalog"]).await.caller(), "", body).await.done();
}

#[tokio::test]
async fn the_limits_of_a_document_hold_for_json_and_yaml() {
    let site = Site::with("limits.document_depth = 4\nlimits.document_nodes = 12\n").await;
    let put = async |kind: &str, body: String| {
        let url = format!("{P}/catalog?dry_run=true");
        site.admin().send_raw(Method::PUT, &url, kind, body.into_bytes()).await
    };
    // The object, its list, and a permission with its name: four values and a depth of three.
    let names = |count: usize| (0..count).map(|n| json!({"name": format!("n{n}")})).collect::<Vec<_>>();
    let deep = |levels: usize| format!("{}\"x\"{}", "[".repeat(levels), "]".repeat(levels));
    for (fits, body, word) in [
        (true, json!({"permissions": names(5)}).to_string(), ""),
        (false, json!({"permissions": names(6)}).to_string(), "limits.document_nodes"),
        (false, format!("{{\"permissions\": {}}}", deep(4)), "limits.document_depth"),
    ] {
        for (kind, body) in [("application/json", body.clone()), ("application/yaml", format!("# YAML\n{body}"))] {
            let reply = put(kind, body.clone()).await;
            if fits {
                reply.done();
                continue;
            }
            assert_eq!(reply.is(BAD_INPUT).word(), "malformed_body");
            assert!(reply.body["message"].as_str().expect("a message").contains(word), "{kind}: {body}: {reply:?}");
        }
    }
    // A document of the maximum depth fails by its form, not by its depth.
    for kind in ["application/json", "application/yaml"] {
        let reply = put(kind, format!("{{\"permissions\": {}}}", deep(3))).await;
        assert_ne!(reply.word(), "malformed_body", "{kind}: {reply:?}");
    }
    // Documents that a parser would take very long to read or expand.
    let bomb = (1..30).fold("a0: &a0 [x]\n".to_owned(), |all, n| all + &format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
    for body in
        ["[".repeat(200_000), format!("a: {}", "[".repeat(200_000)), "- ".repeat(100_000), "{a: ".repeat(50_000), bomb]
    {
        assert_eq!(put("application/yaml", body).await.is(BAD_INPUT).word(), "malformed_body");
    }
}
