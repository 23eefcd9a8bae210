//! Catalogs imported from OpenAPI documents of services: the resulting permissions, which operation a request matches,
//! and what an import requires before it removes entries.

use reqwest::Method;
use serde_json::{Value, json};

use super::{BAD_CATALOG, NO_ORGANIZATION, NOT_HELD, P};
use crate::harness::callers::Reply;
use crate::harness::organizations::Organization;
use crate::harness::site::Site;

const OF_ANOTHER: u64 = 31_309_000;

async fn import(site: &Site, query: &str, text: &str) -> Reply {
    let url = format!("{P}/catalog{query}");
    site.admin().send_raw(Method::PUT, &url, "application/yaml", text.as_bytes().to_vec()).await
}

/// An OpenAPI document with these lines of YAML below its title.
fn document(rest: &str) -> String {
    format!("openapi: 3.0.3\ninfo: {{title: lab, version: '1'}}\n{rest}")
}

fn paths(lines: &[&str]) -> String {
    document(&format!("paths:\n{}", lines.iter().map(|line| format!("  {line}\n")).collect::<String>()))
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().expect("text")).collect()
}

/// The decision about an owner's request: the reason, and the one permission that it rests on.
async fn answer(acme: &Organization<'_>, uid: &str, method: &str, path: &str) -> String {
    let asked = json!({"uid": uid, "method": method, "path": path, "explain": true});
    let answer = acme.check(asked).await;
    let permissions = texts(&answer["because"]["permissions"]).join(" ");
    format!("{} {permissions}", answer["reason"].as_str().expect("a reason")).trim_end().to_owned()
}

/// What a document is about, its text, and requests with the expected answers.
type Case = (&'static str, String, &'static [(&'static str, &'static str)]);

fn templates() -> Vec<Case> {
    vec![
        (
            "text around a parameter",
            paths(&[
                "'/Videos/{id}/stream': {get: {operationId: plain}}",
                "'/Videos/{id}/stream.{container}': {get: {operationId: stream}}",
                "'/clips/{id}': {get: {operationId: clip}}",
                "'/clips/{id}.json': {get: {operationId: clipJson}}",
                "/clips: {get: {operationId: clips}}",
                "'/v1/tasks/{id}': {get: {operationId: get}}",
                "'/v1/tasks/{id}:cancel': {post: {operationId: cancel}}",
                "'/thumbs/{w}x{h}.png': {get: {operationId: thumb}}",
                "'/odata/users(id={id})': {get: {operationId: user}}",
            ]),
            &[
                ("GET /Videos/7/stream.mp4", "ok_role untagged.stream"),
                ("GET /Videos/7/stream", "ok_role untagged.plain"),
                ("GET /Videos/7/stream.", "unmapped_route"),
                ("GET /clips/7.json", "ok_role untagged.clipjson"),
                ("GET /clips/7", "ok_role untagged.clip"),
                ("GET /clips", "ok_role untagged.clips"),
                ("POST /v1/tasks/9:cancel", "ok_role untagged.cancel"),
                ("GET /v1/tasks/9", "ok_role untagged.get"),
                ("POST /v1/tasks/9", "method_not_mapped"),
                ("GET /v1/tasks/9:cancel", "method_not_mapped"),
                ("GET /thumbs/80x60.png", "ok_role untagged.thumb"),
                ("GET /thumbs/80.png", "unmapped_route"),
                ("GET /odata/users(id=7)", "ok_role untagged.user"),
            ],
        ),
        (
            "text beyond ASCII, and names of any text",
            paths(&[
                "'/使用者/{id}': {get: {operationId: u}}",
                "'/%E6%9C%83%E5%93%A1': {get: {operationId: m}}",
                "'/u/{編號}': {get: {operationId: n}}",
                "'/v/{user id}': {get: {operationId: v}}",
                "'/a b': {get: {operationId: blank}}",
            ]),
            &[
                ("GET /%E4%BD%BF%E7%94%A8%E8%80%85/7", "ok_role untagged.u"),
                ("GET /%e4%bd%bf%e7%94%a8%e8%80%85/7", "ok_role untagged.u"),
                ("GET /使用者/7", "path_not_canonical"),
                ("GET /%E6%9C%83%E5%93%A1", "ok_role untagged.m"),
                ("GET /u/7", "ok_role untagged.n"),
                ("GET /v/7", "ok_role untagged.v"),
                ("GET /a%20b", "ok_role untagged.blank"),
            ],
        ),
    ]
}

fn documents() -> Vec<Case> {
    vec![
        (
            "many segments",
            paths(&[
                "'/contents/{path}': {get: {operationId: contents, parameters: [{name: path, in: path, required: true, x-multi-segment: true, schema: {type: string}}]}}",
                "'/contents/readme': {put: {operationId: readme}}",
                "'/proxy/{proxy+}': {post: {operationId: proxy}}",
                "'/raw/{path:.*}': {get: {operationId: raw}}",
            ]),
            &[
                ("GET /contents/docs/a.md", "ok_role untagged.contents"),
                ("GET /contents/a.md", "ok_role untagged.contents"),
                ("GET /contents", "unmapped_route"),
                // A template with a parameter for many segments is not an umbrella: it adds nothing to a more specific
                // template.
                ("PUT /contents/readme", "ok_role untagged.readme"),
                ("GET /contents/readme", "method_not_mapped"),
                ("POST /proxy/a/b/c", "ok_role untagged.proxy"),
                ("GET /raw/a/b", "ok_role untagged.raw"),
                ("GET /raw/a/../b", "path_not_canonical"),
            ],
        ),
        (
            "a server with variables",
            document("servers: [{url: 'https://files.example.org/{base}/v2', variables: {base: {default: api}}}]\npaths:\n  /a: {get: {operationId: a}}\n"),
            &[("GET /api/v2/a", "ok_role untagged.a"), ("GET /a", "unmapped_route")],
        ),
        (
            "a server without a scheme",
            document("servers: [{url: '//files.example.org/v2'}]\npaths:\n  /a: {get: {operationId: a}}\n"),
            &[("GET /v2/a", "ok_role untagged.a")],
        ),
        (
            "a relative server",
            document("servers: [{url: ./v2/}]\npaths:\n  /a: {get: {operationId: a}}\n"),
            &[("GET /v2/a", "ok_role untagged.a")],
        ),
        (
            "references",
            document("paths:\n  /a: {$ref: '#/components/pathItems/A'}\n  /b: {get: {$ref: 'b.yml#/get'}, put: {operationId: b}}\ncomponents: {pathItems: {A: {get: {operationId: a}}}}\n"),
            &[
                ("GET /a", "ok_role untagged.a"),
                ("PUT /b", "ok_role untagged.b"),
                ("GET /b", "method_not_mapped"),
            ],
        ),
        (
            "YAML as it comes",
            "\u{feff}openapi: 3.1\ninfo: {title: lab, version: 1}\nx-common: &c\n  delete: {operationId: drop}\npaths:\n  /things:\n    <<: *c\n    get: {operationId: list, parameters: [{name: seed, in: query, schema: {minimum: -9223372036854776000}}]}\n".to_owned(),
            &[("DELETE /things", "ok_role untagged.drop"), ("GET /things", "ok_role untagged.list")],
        ),
    ]
}

#[tokio::test]
async fn requests_match_the_operations_of_imported_documents() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    for (what, text, answers) in templates().into_iter().chain(documents()) {
        import(&site, "", &text).await.done();
        for (request, expected) in answers {
            let (method, path) = request.split_once(' ').expect("a request");
            assert_eq!(answer(&acme, &owner.uid, method, path).await, *expected, "{what}: {request}");
        }
    }
}

#[tokio::test]
async fn unsupported_operations_are_listed_with_their_line_and_refused_by_strict() {
    let site = Site::start().await;
    let text = paths(&[
        "/fine: {get: {operationId: fine}}",
        "'/{a}{b}':",
        "  get: {operationId: pair}",
        "/elsewhere: {$ref: other.yaml}",
    ]);
    let refused = import(&site, "?strict=true", &text).await;
    assert_eq!(refused.is(BAD_CATALOG).fields(), ["body.paths./elsewhere", "body.paths./{a}{b}.get"]);
    let done = import(&site, "", &text).await.data();
    assert_eq!(done["added"], json!(["untagged", "untagged.fine"]));
    let skipped = done["skipped"].as_array().expect("a list");
    let places: Vec<Value> = skipped.iter().map(|one| json!([one["path"], one["method"], one["line"]])).collect();
    assert_eq!(places, [json!(["/elsewhere", null, 7]), json!(["/{a}{b}", "GET", 6])]);
    assert!(skipped[1]["reason"].as_str().expect("text").contains("adjacent parameters"), "{done}");
    // The same as JSON on one line.
    let as_json = json!({"openapi": "3.0.3", "info": {"title": "lab"}, "paths": {"/fine": {"get": {"operationId": "fine"}}, "/{a}{b}": {"get": {}}}});
    let done = site.admin().put(&format!("{P}/catalog?dry_run=true"), as_json).await.data();
    assert_eq!((&done["skipped"][0]["line"], &done["changed"]), (&json!(1), &json!([])));
    // A document without any supported operation is refused: it would orphan every existing entry.
    assert_eq!(import(&site, "", &paths(&["'/{a}{b}': {get: {}}"])).await.is(BAD_CATALOG).fields().len(), 1);
}

#[tokio::test]
async fn a_duplicate_key_is_reported_with_its_line() {
    let site = Site::start().await;
    let text = paths(&["/a: {get: {operationId: g}}", "/a: {post: {operationId: p}}"]);
    let reply = import(&site, "", &text).await;
    let message = reply.is(10_101_000).body["message"].as_str().expect("a message");
    assert!(message.contains("\"/a\" twice (line 5"), "{message}");
}

#[tokio::test]
async fn the_same_document_gives_the_same_names_in_any_order() {
    let site = Site::start().await;
    let lines = [
        "/a: {get: {tags: [x], operationId: list}}",
        "/b: {get: {tags: [x], operationId: list}}",
        "'/users/{id}': {get: {}}",
        "/users/id: {get: {}}",
        "/m: {get: {tags: [會員], operationId: 查詢}}",
        "/v: {get: {tags: [影片], operationId: 刪除}}",
    ];
    let first = import(&site, "", &paths(&lines)).await.data();
    let added = texts(&first["added"]);
    assert_eq!(added.len(), 10, "four categories and six operations: {added:?}");
    let reversed: Vec<&str> = lines.iter().rev().copied().collect();
    let again = import(&site, "", &paths(&reversed)).await.data();
    assert_eq!(again, json!({"added": [], "changed": [], "orphaned": []}));
}

#[tokio::test]
async fn an_operation_with_another_name_is_renamed_and_roles_keep_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let former = ["/a: {get: {tags: [x], operationId: list}}", "/b: {get: {tags: [x], operationId: show}}"];
    import(&site, "", &paths(&former)).await.done();
    let member = acme.member_with(&["x.list"]).await;

    // The tag and the operation id change.
    let next = ["/a: {get: {tags: [y], operationId: listAll}}", "/b: {get: {tags: [y], operationId: show}}"];
    let done = import(&site, "", &paths(&next)).await.data();
    let pair = |from: &str, to: &str| json!({"from": from, "to": to});
    assert_eq!(done["renamed"], json!([pair("x", "y"), pair("x.list", "y.listall"), pair("x.show", "y.show")]));
    assert_eq!((&done["added"], &done["changed"], &done["orphaned"]), (&json!([]), &json!([]), &json!([])));
    assert_eq!(answer(&acme, &member.uid, "GET", "/a").await, "ok_role y.listall");

    // When names change places, nobody's rights follow the name: a duplicate id is numbered in the order of the paths.
    let twice = [
        "/a: {get: {tags: [y], operationId: listAll}}",
        "/Z: {get: {tags: [y], operationId: listAll}}",
        "/b: {get: {tags: [y], operationId: show}}",
    ];
    let done = import(&site, "", &paths(&twice)).await.data();
    assert_eq!(done["renamed"], json!([pair("y.listall", "y.listall_2")]));
    assert_eq!(done["added"], json!(["y.listall"]));
    assert_eq!(answer(&acme, &member.uid, "GET", "/a").await, "ok_role y.listall_2");
    assert_eq!(answer(&acme, &member.uid, "GET", "/Z").await, "no_permission y.listall");

    // The same for two operations that swap their names.
    let swapped = [
        "/a: {get: {tags: [y], operationId: show}}",
        "/Z: {get: {tags: [y], operationId: z}}",
        "/b: {get: {tags: [y], operationId: listAll}}",
    ];
    let done = import(&site, "", &paths(&swapped)).await.data();
    assert_eq!(done["renamed"].as_array().map(Vec::len), Some(3), "{done}");
    assert_eq!(answer(&acme, &member.uid, "GET", "/a").await, "ok_role y.show");
    assert_eq!(answer(&acme, &member.uid, "GET", "/b").await, "no_permission y.listall");
}

#[tokio::test]
async fn a_renamed_category_that_was_closed_stays_closed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    import(&site, "", &paths(&["/a: {get: {tags: [x], operationId: list}}"])).await.done();
    let mut own = site.admin().get(&format!("{P}/catalog?app=main")).await.data()["list"].clone();
    for entry in own.as_array_mut().expect("a list") {
        entry.as_object_mut().expect("an object").remove("id");
    }
    own[0]["status"] = json!("close");
    site.import(own).await;
    assert_eq!(answer(&acme, &owner.uid, "GET", "/a").await, "no_permission x.list");
    let done = import(&site, "", &paths(&["/a: {get: {tags: [y], operationId: list}}"])).await.data();
    assert_eq!(done["renamed"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer(&acme, &owner.uid, "GET", "/a").await, "no_permission y.list");
    // The operation moves out of the closed category.
    let next = ["/a: {get: {tags: [z], operationId: list}}", "/b: {get: {tags: [y], operationId: other}}"];
    import(&site, "", &paths(&next)).await.done();
    assert_eq!(answer(&acme, &owner.uid, "GET", "/a").await, "no_permission z.list");
}

#[tokio::test]
async fn entries_of_another_document_are_orphaned_only_on_demand() {
    let site = Site::start().await;
    site.import(json!([{"name": "video"}, {"name": "video.list", "http_methods": "GET", "http_path": "/videos"}]))
        .await;
    let files = paths(&["/a: {get: {operationId: a}}"]);
    let other = files.replace("title: lab", "title: other");

    let reply = import(&site, "", &files).await;
    assert_eq!(reply.is(OF_ANOTHER).word(), "catalog_of_another_document");
    let message = reply.body["message"].as_str().expect("a message");
    for part in ["2 entries of the application main", "Roster's own form", "\"lab\"", "--app", "replace"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let dry = import(&site, "?dry_run=true", &files).await.data();
    assert_eq!((&dry["replaces"], texts(&dry["orphaned"]).len()), (&json!("a catalog in Roster's own format"), 2));
    assert_eq!(
        site.admin().get(&format!("{P}/catalog?app=main")).await.data()["list"].as_array().map(Vec::len),
        Some(2)
    );

    // The document gets an application of its own, and then its next version.
    import(&site, "?app=files", &files).await.done();
    import(&site, "?app=files", &paths(&["/a: {put: {operationId: b}}"])).await.done();
    import(&site, "?app=files", &other).await.is(OF_ANOTHER);
    assert_eq!(import(&site, "?app=files&replace=true", &other).await.data()["orphaned"], json!(["untagged.b"]));
    import(&site, "?app=files", &files.replace("/a", "/c")).await.is(OF_ANOTHER);
    // A catalog in our own form may add entries, and the document is still recognized as the same.
    let own = json!({"app": "files", "permissions": [
        {"name": "untagged"},
        {"name": "untagged.a", "parent": "untagged", "http_methods": "GET", "http_path": "/a"},
        {"name": "untagged.more"},
    ]});
    site.admin().put(&format!("{P}/catalog"), own).await.done();
    let done = import(&site, "?app=files", &other).await.data();
    assert_eq!(done["orphaned"], json!(["untagged.more"]));
    assert!(texts(&done["notes"])[0].contains("roles keep them"), "{done}");
    // The same when the default application is named.
    let done = import(&site, "?replace=true&prefix=lab", &files).await.data();
    assert_eq!(done["orphaned"], json!(["video", "video.list"]));
}

#[tokio::test]
async fn a_new_application_belongs_to_every_owner_unless_the_import_restricts_it() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (of_acme, of_bolt) = (acme.member_with_role("tenant_owner").await, bolt.member_with_role("tenant_owner").await);
    let text = paths(&["/a: {get: {operationId: a}}"]);
    let reasons =
        async || [answer(&acme, &of_acme.uid, "GET", "/a").await, answer(&bolt, &of_bolt.uid, "GET", "/a").await];
    let (ok, no) = ("ok_role untagged.a", "no_permission untagged.a");

    let done = import(&site, "", &text).await.data();
    assert!(texts(&done["notes"]).iter().any(|note| note.contains("owners of every organization")), "{done}");
    assert_eq!(reasons().await, [ok, ok]);

    import(&site, "?organizations=acme,nowhere", &text).await.is(NO_ORGANIZATION);
    let done = import(&site, "?organizations=acme", &text).await.data();
    assert_eq!(done["organizations"], json!(["acme"]));
    assert_eq!(reasons().await, [ok, no]);
    // Its visibility stays until another import changes it, also after a reload of the policy.
    import(&site, "", &text).await.done();
    let reloaded = site.admin().post(&format!("{P}/policy/reload"), json!({})).await.data();
    assert_eq!((reasons().await, &reloaded["changed"]), ([ok.to_owned(), no.to_owned()], &json!(false)));
    // In other organizations nobody can tick its permissions, and no list of rights contains them.
    let role = bolt.admin().post(&format!("{P}/roles"), json!({"key": "readers"})).await.data();
    let url = format!("{P}/roles/{}/permissions", role["id"].as_str().expect("an id"));
    bolt.admin().put(&url, json!({"permission_ids": ["untagged.a"]})).await.is(NOT_HELD);
    import(&site, "?organizations=*", &text).await.done();
    assert_eq!(reasons().await, [ok, ok]);
    bolt.admin().put(&url, json!({"permission_ids": ["untagged.a"]})).await.done();
    let member = bolt.member_with(&["untagged.a"]).await;
    assert_eq!(answer(&bolt, &member.uid, "GET", "/a").await, ok);
    import(&site, "?organizations=acme", &text).await.done();
    assert_eq!(answer(&bolt, &member.uid, "GET", "/a").await, no, "earlier ticks have no effect");

    // Visible to nobody until an import in our own form opens it.
    let more = paths(&["/a: {get: {operationId: a}}", "/b: {get: {operationId: b}}"]);
    import(&site, "?closed=true", &more).await.done();
    assert_eq!(answer(&acme, &of_acme.uid, "GET", "/b").await, "no_permission untagged.b");
    assert_eq!(reasons().await, [ok, no], "existing entries are unchanged");
}

#[tokio::test]
async fn the_command_prints_skipped_operations_and_confirmations() {
    let site = Site::start().await;
    let file = site.path().join("lab.yaml");
    let name = file.display().to_string();
    std::fs::write(
        &file,
        paths(&[
            "/a: {get: {operationId: a}}",
            "'/{a}{b}': {get: {operationId: b}}",
            "'/c/{p}': {get: {operationId: c}}",
        ]),
    )
    .expect("a file");
    let run = |arguments: &[&str]| {
        let all: Vec<&str> = ["catalog", "import", &name].into_iter().chain(arguments.iter().copied()).collect();
        crate::cli::commands::roster(&all, site.path(), "")
    };
    let refused = run(&["--app", "lab", "--strict"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("adjacent parameters"));
    let done = run(&["--app", "lab", "--prefix", "lab", "--closed", "--multi-segment", "p"]);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert!(
        said.contains("! line 5: GET /{a}{b}: ")
            && said.contains("4 added, 0 changed, 0 renamed, 0 orphaned, 1 skipped"),
        "{said}"
    );
    let list = site.admin().get(&format!("{P}/catalog?app=lab")).await.data();
    let seen: Vec<(&Value, &Value)> =
        list["list"].as_array().expect("a list").iter().map(|node| (&node["http_path"], &node["status"])).collect();
    assert!(seen.contains(&(&json!("/c/{p+}"), &json!("close"))), "{seen:?}");
    std::fs::write(&file, document("paths: {/x: {get: {operationId: x}}}\n").replace("lab", "other")).expect("a file");
    let refused = run(&["--app", "lab"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--app"));
    assert!(run(&["--app", "lab", "--replace"]).status.success());
}
