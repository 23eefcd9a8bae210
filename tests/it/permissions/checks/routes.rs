//! Questions about routes: which catalog entry a path matches.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use roster::kernel::authz::path::canonical;
use serde_json::{Value, json};

use super::{files, reason, reasons, route};
use crate::harness::site::Site;

// ── routes ──

#[tokio::test]
async fn a_route_is_allowed_denied_unmapped_or_not_mapped_for_the_method() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (holder, other) = (acme.member_with(&["one", "root"]).await, acme.member().await);

    let decision = acme.check(route(&holder.uid, "GET", "/files/7")).await;
    assert_eq!(decision.as_object().expect("a decision").keys().collect::<Vec<_>>(), ["allow", "epoch", "reason"]);
    reasons(
        &acme,
        &holder.uid,
        &[
            ("GET", "/files/7", "ok_role"),
            ("GET", "/files/7/", "ok_role"),
            ("GET", "/files/7?x=/../y", "ok_role"),
            ("GET", "/files/caf%C3%A9", "ok_role"),
            ("GET", "/", "ok_role"),
            ("GET", "/nowhere", "unmapped_route"),
            ("GET", "/Files/7", "unmapped_route"),
            ("GET", "/files", "unmapped_route"),
            ("PATCH", "/files/7", "method_not_mapped"),
            ("get", "/files/7", "method_not_mapped"),
            ("GET|POST", "/files/7", "method_not_mapped"),
            ("", "/files/7", "method_not_mapped"),
            ("*", "/files/7", "method_not_mapped"),
            ("GET", "/files/7/pages", "no_permission"),
        ],
    )
    .await;
    assert_eq!(reason(&acme, route(&other.uid, "GET", "/files/7")).await, "no_permission");
    assert_eq!(reason(&acme, json!({"uid": holder.uid, "permission": "one"})).await, "ok_role");
    assert_eq!(reason(&acme, json!({"uid": holder.uid, "permission": "nowhere"})).await, "no_permission");
}

#[tokio::test]
async fn a_path_that_is_not_canonical_is_denied_and_never_normalized() {
    let site = Site::start().await;
    site.import(json!([{"name": "all", "http_methods": "*", "http_path": "/*rest"}, {"name": "root", "http_methods": "*", "http_path": "/"}])).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["all", "root"]).await;
    let mut taken = Vec::new();

    for path in [
        "",
        "a",
        "*",
        "http://h/a",
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/a/../b",
        "/a/..",
        "/a/.",
        "/./a",
        "/a/%2e",
        "/%2e%2e/a",
        "/%2E%2E",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a;v=1",
        "/a%3bv",
        "/a#b",
        "/a%23",
        "/a%00",
        "/a%0a",
        "/a%7f",
        "/a%252e",
        "/a%25",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%ff",
        "/a%c3",
        "/a%3f",
        "/a\u{7f}",
        "/a\tb",
        "/a b",
        "/é",
        "/a\u{0}",
    ] {
        if reason(&acme, route(&member.uid, "GET", path)).await != "path_not_canonical" {
            taken.push(path);
        }
    }
    assert_eq!(taken, [""; 0]);
    for path in ["/", "/?", "/a", "/a/", "/a%40b", "/a%20b", "/...", "/a/..b", "/a?b//c#d%zz", "/%41"] {
        assert_eq!(reason(&acme, route(&member.uid, "GET", path)).await, "ok_role", "{path:?}");
    }
}

#[tokio::test]
async fn head_is_covered_by_get_unless_it_is_listed() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let (one, read, probe) =
        (acme.member_with(&["one"]).await, acme.member_with(&["read"]).await, acme.member_with(&["probe"]).await);

    reasons(&acme, &one.uid, &[("HEAD", "/files/7", "ok_role"), ("HEAD", "/files/export", "method_not_mapped")]).await;
    reasons(&acme, &read.uid, &[("GET", "/probe", "ok_role"), ("HEAD", "/probe", "no_permission")]).await;
    reasons(&acme, &probe.uid, &[("GET", "/probe", "no_permission"), ("HEAD", "/probe", "ok_role")]).await;
}

#[tokio::test]
async fn head_listed_by_an_umbrella_is_not_covered_by_its_get() {
    let site = Site::start().await;
    site.import(json!([
        {"name": "any", "http_methods": "*", "http_path": "/a/:id"},
        {"name": "umbrella.get", "http_methods": "GET", "http_path": "/a/*rest"},
        {"name": "umbrella.head", "http_methods": "HEAD", "http_path": "/a/*rest"},
    ]))
    .await;
    let acme = site.organization("acme").await;
    let getter = acme.member_with(&["umbrella.get"]).await;
    reasons(&acme, &getter.uid, &[("GET", "/a/1", "ok_role"), ("HEAD", "/a/1", "no_permission")]).await;
}

#[tokio::test]
async fn an_umbrella_adds_to_what_it_covers_and_decides_alone_elsewhere() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["all"]).await;
    reasons(
        &acme,
        &member.uid,
        &[
            ("GET", "/files/7", "ok_role"),
            ("HEAD", "/files/7", "ok_role"),
            ("POST", "/files/export", "ok_role"),
            ("GET", "/files/7/pages", "ok_role"),
            ("DELETE", "/files/7/pages/3", "ok_role"),
            ("GET", "/files", "unmapped_route"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_most_specific_template_decides_without_falling_through() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["one", "all", "export"]).await;
    reasons(
        &acme,
        &member.uid,
        &[
            ("DELETE", "/files/7", "method_not_mapped"),
            ("GET", "/files/export", "method_not_mapped"),
            ("DELETE", "/files/export", "method_not_mapped"),
            ("POST", "/files/export", "ok_role"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_star_matches_every_method_that_is_a_token() {
    let site = Site::start().await;
    site.import(files()).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["star"]).await;
    reasons(
        &acme,
        &member.uid,
        &[
            ("PROPFIND", "/dav/x", "ok_role"),
            ("HEAD", "/dav/x", "ok_role"),
            ("propfind", "/dav/x", "method_not_mapped"),
            ("*", "/dav/x", "method_not_mapped"),
            ("GET POST", "/dav/x", "method_not_mapped"),
        ],
    )
    .await;
}

#[tokio::test]
async fn paths_belong_to_an_application() {
    let site = Site::start().await;
    for app in ["main", "files"] {
        let entry = json!({"name": format!("{app}.read"), "http_methods": "GET", "http_path": "/api/things"});
        site.admin()
            .put(&format!("/api/v1/permissions/catalog?app={app}"), json!({"permissions": [entry]}))
            .await
            .done();
    }
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["files.read"]).await;
    let ask = async |app: &str| {
        reason(&acme, json!({"uid": member.uid, "method": "GET", "path": "/api/things", "app": app})).await
    };

    assert_eq!(ask("files").await, "ok_role");
    assert_eq!(ask("main").await, "no_permission");
    assert_eq!(ask("nowhere").await, "unmapped_route");
    assert_eq!(reason(&acme, route(&member.uid, "GET", "/api/things")).await, "no_permission");
}

// ── paths ──

/// A path segment: plain, encoded, irregular or hostile.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-c]{1,2}",
        2 => "[a-zA-Z0-9._~@:$&+,=!-]{1,6}",
        1 => prop::sample::select(vec!["%41", "%2e", "%2f", "%252e", ".", "..", "...", "", ";x", "a;b", "%", "%zz", "\\", "é", "%C3%A9", "{a}", ":a", "*", "%20", "a%00"])
            .prop_map(str::to_owned),
    ]
}

fn raw_path() -> impl Strategy<Value = String> {
    (prop::collection::vec(segment(), 0..5), prop::sample::select(vec!["", "/", "?q=1", "/?a/../b", "#x"]))
        .prop_map(|(segments, end)| format!("/{}{end}", segments.join("/")))
}

#[test]
fn a_canonical_path_is_idempotent_and_never_odd() {
    let mut runner = TestRunner::new(Config {
        cases: crate::harness::site::rounds(20_000, 1_000_000),
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&prop_oneof![raw_path(), "\\PC{0,12}", "/[ -~]{0,10}"], |raw| {
            let Some(once) = canonical(&raw) else { return Ok(()) };
            prop_assert!(once.starts_with('/'));
            prop_assert!(&*once == "/" || !once[1..].split('/').any(|segment| matches!(segment, "" | "." | "..")));
            prop_assert!(!once.contains(['%', '?', '#', ';', '\\']) && !once.chars().any(|c| c.is_ascii_control()));
            // Encoded for a request, the path is its own canonical form.
            let mut written = String::new();
            for byte in once.bytes() {
                match byte {
                    b'!'..=b'~' => written.push(char::from(byte)),
                    _ => written.push_str(&format!("%{byte:02X}")),
                }
            }
            let twice = canonical(&written);
            prop_assert_eq!(twice.as_deref(), Some(&*once));
            Ok(())
        })
        .expect("every path");
}

/// Templates of one tree, most specific first where they overlap.
const TEMPLATES: [&str; 10] =
    ["/", "/a", "/a/b", "/a/:x", "/a/:x/c", "/a/b/c", "/b/:x/:y", "/c/*rest", "/c/a", "/c/:x/b"];

#[tokio::test]
async fn poem_s_own_router_agrees_on_which_template_matches() {
    use poem::endpoint::make_sync;
    use poem::{Endpoint, EndpointExt, Route};
    let named = |template: &'static str| make_sync(move |_| template.to_owned()).boxed();
    let theirs = TEMPLATES.iter().fold(Route::new(), |route, template| route.at(*template, named(template)));
    let site = Site::start().await;
    let names: Vec<Value> = TEMPLATES
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("t{n}"), "http_methods": "GET", "http_path": path}))
        .collect();
    site.import(json!(names)).await;
    let acme = site.organization("acme").await;
    let owner = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    let mut runner = TestRunner::new_with_rng(
        Config { failure_persistence: None, ..Config::default() },
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let sample = |runner: &mut TestRunner| raw_path().new_tree(runner).expect("a path").current();

    for _ in 0..20 {
        let raws: Vec<String> = (0..100).map(|_| sample(&mut runner)).collect();
        let questions: Vec<Value> =
            raws.iter().map(|raw| json!({"uid": owner, "method": "GET", "path": raw, "explain": true})).collect();
        let ours = acme.check(json!({"questions": questions})).await;
        for (raw, decision) in raws.iter().zip(ours["decisions"].as_array().expect("decisions")) {
            let Some(path) = canonical(raw) else {
                assert_eq!(decision["reason"], json!("path_not_canonical"), "{raw}");
                continue;
            };
            let Ok(uri) = raw.parse::<poem::http::Uri>() else { continue };
            // poem's router gets the canonical path, encoded for the wire again.
            let wire = path
                .bytes()
                .map(|b| if b.is_ascii_graphic() { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect::<String>();
            let request = poem::Request::builder().uri(wire.parse().unwrap_or(uri)).finish();
            let matched = theirs.call(request).await.ok().map(|response| response.into_body());
            let matched = match matched {
                Some(body) => Some(body.into_string().await.expect("text")),
                None => None,
            };
            assert_eq!(decision["because"]["template"].as_str(), matched.as_deref(), "{raw} as {path}");
        }
    }
}
