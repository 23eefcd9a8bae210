//! Request bodies: read only after the caller is authenticated, within their size limits, and within a limit on all
//! bodies in flight.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::connections::connect_from;
use super::http::{Plain, connect, exchange, head};
use crate::harness::callers::As;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::Site;
use crate::permissions::deferred_grants::second_administrator;

const MIB: usize = 1_024 * 1_024;

/// A request with its head and this many bytes of its body.
fn begun(line: &str, headers: &str, length: usize, sent: usize) -> Vec<u8> {
    let mut request = head(line, &format!("{headers}content-length: {length}\r\n"));
    request.resize(request.len() + sent, b' ');
    request
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

const JSON: &str = "content-type: application/json\r\n";

/// Whether the server closes the connection without sending more.
fn is_over(mut stream: TcpStream) -> bool {
    stream.read(&mut [0]).unwrap_or(0) == 0
}

/// Every operation that takes a body: its id, request line, and whether it requires a credential.
fn with_body(document: &Value) -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            if operation.get("requestBody").is_some() {
                let path = path.replace(['{', '}'], "");
                let query = if path == "/plugins" { "?name=x" } else { "" };
                let line = format!("{} /api/v1{path}{query}", method.to_uppercase());
                let id = operation["operationId"].as_str().expect("id").to_owned();
                found.push((id, line, operation["security"].as_array().is_some_and(|list| !list.is_empty())));
            }
        }
    }
    found
}

#[tokio::test]
async fn the_body_of_an_unauthenticated_caller_is_not_waited_for() {
    let site = Site::start().await;
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    let operations = with_body(&document);
    assert!(operations.len() > 50);

    for (id, line, is_guarded) in operations {
        for headers in [JSON, "content-type: application/json\r\nexpect: 100-continue\r\n"] {
            let mut stream = connect(&site);
            // Nothing of the announced 8 MiB is sent.
            let answer = exchange(&mut stream, &begun(&line, headers, 8 * MIB, 0));
            let expected: &[u16] = match id.as_str() {
                "authenticate_for_sftpgo" | "take_wordpress_hint" => &[501],
                _ if is_guarded => &[401],
                _ => &[413],
            };
            assert!(expected.contains(&answer.status), "{id}: {} {}", answer.status, answer.body);
            assert_eq!(answer.header("connection"), Some("close"), "{id}");
        }
    }
    assert_eq!(site.metric("roster_body_bytes"), 0);
}

#[tokio::test]
async fn every_operation_authenticates_before_it_reads_the_body() {
    let site = Site::start().await;
    let document = site.nobody().get("/api/v1/openapi.json").await.body;

    // A body that is not JSON, has a wrong type or is empty tells an unauthenticated caller nothing about the
    // operation.
    for (id, line, _) in with_body(&document).into_iter().filter(|(_, _, is_guarded)| *is_guarded) {
        let (method, path) = line.split_once(' ').expect("two words");
        for (content_type, body) in [("application/json", "{"), ("text/plain", "x"), ("application/wasm", "")] {
            let method: Method = method.parse().expect("a method");
            let reply = site.nobody().send_raw(method, path, content_type, body.into()).await;
            assert!([401, 501].contains(&reply.status), "{id}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_public_body_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::with("limits.public_body_bytes = 2048").await;
    let padded = |length: usize| {
        let mut body = json!({"login": "kim", "password": "x"}).to_string().into_bytes();
        body.resize(length, b' ');
        body
    };
    let post = async |path: &str, content_type: &str, length: usize| {
        let own = site.nobody().with("sec-fetch-site", "same-origin");
        own.send_raw(Method::POST, path, content_type, padded(length)).await.status
    };

    for (path, at_limit) in [("/auth/login", 401), ("/auth/password/forgot", 400), ("/api/v1/hooks/wordpress", 501)] {
        let beyond = if at_limit == 501 { 501 } else { 413 };
        assert_eq!((post(path, "application/json", 2_048).await, path), (at_limit, path));
        assert_eq!((post(path, "application/json", 2_049).await, path), (beyond, path));
    }
    let form = "application/x-www-form-urlencoded";
    for page in ["/setup", "/reset", "/invitation"] {
        assert_ne!((post(page, form, 2_048).await, page), (413, page));
        assert_eq!((post(page, form, 2_049).await, page), (413, page));
    }
    // An authenticated caller may send more.
    let known = site.admin().send_raw(Method::POST, "/admin/members", "application/json", padded(2_049)).await;
    assert_eq!(known.word(), "bad_input");
}

/// The operations with a long body: name, request line, a media type, and the answer to a body of blanks.
const LARGE: [(&str, &str, &str, &str); 3] = [
    ("import_catalog", "PUT /api/v1/permissions/catalog", "application/json", "malformed_body"),
    ("import_users", "POST /admin/users/import", "application/json", "malformed_body"),
    ("upload_plugin", "POST /api/v1/plugins?name=x", "application/wasm", "not_a_component"),
];

#[tokio::test]
async fn a_long_body_is_read_only_from_a_caller_with_the_permission() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (plain, client, lacking) =
        (acme.member().await, site.client(&["members:write"]).await, site.client(&["audit:read"]).await);
    let header = |caller: &As<'_>| caller.headers().iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect::<String>();
    // A caller with the permission, and callers who are refused.
    let callers = [
        ("nobody", String::new(), [Err(401), Err(401), Err(401)]),
        ("a wrong token", bearer("x.y.z"), [Err(401), Err(401), Err(401)]),
        ("a member", header(&plain.caller()), [Err(403), Err(403), Err(403)]),
        ("an owner", header(&acme.owner()), [Err(403), Err(403), Ok(())]),
        ("a client with the scope", header(&client), [Err(401), Ok(()), Err(401)]),
        ("a client without it", header(&lacking), [Err(401), Err(403), Err(401)]),
        ("a platform administrator", header(&site.admin()), [Ok(()), Ok(()), Ok(())]),
    ];
    for (who, headers, expected) in callers {
        for ((id, line, media, word), expected) in LARGE.into_iter().zip(expected) {
            let named = if id == "upload_plugin" { format!("x-tenant-id: {}\r\n", acme.id) } else { String::new() };
            let headers = format!("{headers}{named}content-type: {media}\r\n");
            let mut stream = connect(&site);
            match expected {
                // The answer comes before the body is read.
                Err(status) => {
                    let answer = exchange(&mut stream, &begun(line, &headers, 2 * MIB, 0));
                    assert_eq!(answer.status, status, "{who} {id}: {}", answer.body);
                }
                Ok(()) => {
                    let answer = exchange(&mut stream, &begun(line, &headers, 2 * MIB, 2 * MIB));
                    assert_eq!(
                        (&answer.body["detail"], answer.header("connection")),
                        (&json!(word), None),
                        "{who} {id}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_catalog_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::with("limits.catalog_bytes = 2000000").await;
    let put = async |length: usize| {
        let blanks = vec![b' '; length];
        site.admin().send_raw(Method::PUT, "/api/v1/permissions/catalog", "application/json", blanks).await
    };

    assert_eq!(put(2_000_000).await.word(), "malformed_body");
    assert_eq!(put(2_000_001).await.is(10_113_000).word(), "too_large");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_after_authentication() {
    let site = Site::start().await;
    let mut stream = connect(&site);
    let body = json!({"username": "kim"}).to_string();
    let headers = format!("{}{JSON}expect: 100-continue\r\n", bearer(&site.admin_token));
    stream.write_all(&begun("POST /admin/members", &headers, body.len(), 0)).expect("a head");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).expect("an answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

    let answer = exchange(&mut stream, body.as_bytes());

    assert_eq!((answer.status, &answer.body["data"]["username"]), (200, &json!("kim")));
}

#[tokio::test]
async fn an_unread_short_body_is_drained_and_the_connection_stays_usable() {
    let site = Site::start().await;
    // A short body of an unauthenticated caller, one of an operation without a body, and one of a GET: the next request
    // on the connection is answered.
    for (line, headers, length) in [
        ("POST /admin/members", JSON.to_owned(), 100_000),
        ("POST /nowhere", JSON.to_owned(), 100_000),
        ("POST /auth/logout", JSON.to_owned(), 2),
        ("GET /me", bearer(&site.admin_token), 1_000),
        ("POST /admin/signing-keys/rotate", bearer(&site.admin_token), 8 * MIB),
    ] {
        let mut stream = connect(&site);
        let first = exchange(&mut stream, &begun(line, &headers, length, length));
        let next = exchange(&mut stream, &head("GET /api/v1/version", ""));
        assert_eq!((first.header("connection"), next.status), (None, 200), "{line}");
    }
}

#[tokio::test]
async fn little_of_the_long_body_of_an_unauthenticated_caller_is_drained() {
    let site = Site::start().await;
    for (coding, frame) in [
        (format!("content-length: {}\r\n", 8 * MIB), String::new()),
        ("transfer-encoding: chunked\r\n".to_owned(), format!("{:x}\r\n", 8 * MIB)),
    ] {
        let mut stream = connect(&site);
        let mut request = head("PUT /api/v1/permissions/catalog", &format!("{JSON}{coding}"));
        request.extend(frame.bytes());
        request.resize(request.len() + 1_000, b' ');

        let answer = exchange(&mut stream, &request);

        assert_eq!((answer.status, answer.header("connection")), (401, Some("close")), "{coding}");
        // The connection is closed when more bytes come.
        let blanks = [b' '; 65_536];
        let sent = (0..128).take_while(|_| stream.write_all(&blanks).is_ok()).count();
        assert!(sent < 128 || is_over(stream), "{coding}");
    }
}

/// Small limits, so that a few bodies reach them.
const NARROW: &str = "[limits]\nbytes_in_flight = 16384\npublic_body_bytes = 1024\nbody_bytes = 16384\n\
                      catalog_bytes = 16384\nimport_bytes = 16384\n[plugins]\nfile_bytes = 16384\n";

/// Begins a body and waits until the server holds all of the bytes that were sent.
fn hold(site: &Site, line: &str, headers: &str, (length, sent): (usize, usize), in_all: u64) -> TcpStream {
    hold_on(connect(site), site, &begun(line, headers, length, sent), in_all)
}

fn hold_on(mut stream: TcpStream, site: &Site, bytes: &[u8], in_all: u64) -> TcpStream {
    stream.write_all(bytes).expect("a part of a request");
    wait_until_held(site, in_all);
    stream
}

fn wait_until_held(site: &Site, bytes: u64) {
    let began = Instant::now();
    while site.metric("roster_body_bytes") != bytes {
        assert!(began.elapsed().as_secs() < 20, "{} instead of {bytes}", site.metric("roster_body_bytes"));
        std::thread::yield_now();
    }
}

fn finish(mut stream: TcpStream, missing: usize) -> Plain {
    exchange(&mut stream, &vec![b' '; missing])
}

#[tokio::test]
async fn bytes_in_flight_hold_at_their_limit_and_not_one_past_it() {
    let site = Site::with(NARROW).await;
    let headers = format!("{}{JSON}", bearer(&site.admin_token));
    let post = |length: usize| exchange(&mut connect(&site), &begun("POST /admin/members", &headers, length, length));
    let held = hold(&site, "POST /admin/members", &headers, (16_384, 8_000), 8_000);

    let (at_limit, beyond) = (post(8_384), post(8_385));

    assert_eq!((at_limit.status, &at_limit.body["detail"]), (400, &json!("malformed_body")));
    assert_eq!((beyond.status, &beyond.body["detail"]), (503, &json!("busy")));
    assert_eq!(beyond.header("retry-after"), Some("1"));
    // Requests without a body are served meanwhile, and bodies are accepted again later.
    site.admin().get("/me").await.done();
    assert_eq!(finish(held, 8_384).body["detail"], "malformed_body");
    wait_until_held(&site, 0);
    assert_eq!(post(16_384).body["detail"], "malformed_body");
}

#[tokio::test]
async fn slow_bodies_of_one_organization_do_not_keep_out_those_of_another() {
    let site = Site::with(NARROW).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (loud, quiet) = (acme.member().await, bolt.member().await);
    let header = |caller: &As<'_>| caller.headers().iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect::<String>();
    let (loud, quiet) = (header(&loud.caller()) + JSON, header(&quiet.caller()) + JSON);
    let mut held: Vec<_> = (1..=4).map(|n| hold(&site, "PATCH /me", &loud, (4_096, 4_000), n * 4_000)).collect();
    let send =
        |headers: &str, length: usize| exchange(&mut connect(&site), &begun("PATCH /me", headers, length, length));

    assert_eq!(send(&quiet, 384).body["detail"], "malformed_body", "at the limit");
    wait_until_held(&site, 16_000);
    // One more body of the other organization ends the oldest body of the first, even though the new one is larger.
    assert_eq!(send(&quiet, 8_000).body["detail"], "malformed_body");
    for gone in &mut held[..2] {
        let cut = exchange(gone, b"");
        assert_eq!((cut.status, &cut.body["detail"]), (503, &json!("busy")));
    }
    wait_until_held(&site, 8_000);
    // The first organization gets the bytes that are free, at no cost for the other.
    let of_quiet = hold(&site, "PATCH /me", &quiet, (8_192, 8_000), 16_000);
    assert_eq!(send(&loud, 4_000).body["detail"], "busy");
    assert_eq!(finish(of_quiet, 192).body["detail"], "malformed_body");
}

#[tokio::test]
async fn the_bytes_of_a_closed_connection_are_freed() {
    let site = Site::with(NARROW).await;
    let headers = format!("{}{JSON}", bearer(&site.admin_token));
    let held = hold(&site, "POST /admin/members", &headers, (16_384, 16_000), 16_000);

    held.shutdown(Shutdown::Both).expect("gone");

    wait_until_held(&site, 0);
}

#[tokio::test]
async fn unauthenticated_callers_fill_a_quarter_and_keep_nobody_out() {
    let site = Site::with(NARROW).await;
    let login = |length: usize| exchange(&mut connect(&site), &begun("POST /auth/login", JSON, length, length));
    let long = begun("POST /auth/login", JSON, 1_024, 1_000);
    let mut held = Vec::new();
    for n in 1..=4 {
        let stream = connect_from([127, 0, 0, 1 + n], &site).await;
        held.push(hold_on(stream, &site, &long, u64::from(n) * 1_000));
    }

    assert_eq!(login(96).body["detail"], "malformed_body", "at the limit");
    wait_until_held(&site, 4_000);
    // Authenticated callers have their own share, and a small body takes the space of the oldest of the largest bodies.
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();
    assert_eq!(login(97).body["detail"], "malformed_body");
    let cut = exchange(&mut held[0], b"");
    assert_eq!((cut.status, &cut.body["detail"]), (503, &json!("busy")));
    wait_until_held(&site, 3_000);
    held[0] = hold_on(connect_from([127, 0, 0, 6], &site).await, &site, &long, 4_000);
    // A body as large as the others displaces none of them.
    let late = exchange(&mut connect_from([127, 0, 0, 7], &site).await, &long);
    assert_eq!((late.status, &late.body["detail"]), (503, &json!("busy")));
    drop(held);
    wait_until_held(&site, 0);
    assert_eq!(login(1_024).body["detail"], "malformed_body");
}

#[tokio::test]
async fn sign_in_bodies_hold_at_their_limit_and_not_one_past_it() {
    let site = Site::with("limits.sign_in_bytes = 1024\nlimits.public_body_bytes = 2048").await;
    let form = "application/x-www-form-urlencoded";
    for (path, media, is_sign_in) in [
        ("/auth/login", "application/json", true),
        ("/auth/password/forgot", "application/json", true),
        ("/setup", form, true),
        ("/reset", form, true),
        ("/invitation", form, true),
        ("/register", "application/json", false),
    ] {
        let own = site.nobody().with("sec-fetch-site", "same-origin");
        let post = async |length| own.send_raw(Method::POST, path, media, vec![b' '; length]).await.status;
        assert_ne!((post(1_024).await, path), (413, path));
        assert_eq!((post(1_025).await == 413, path), (is_sign_in, path));
    }
}

#[tokio::test]
async fn every_body_limit_fits_into_the_bytes_in_flight() {
    for (name, others) in [
        ("limits.body_bytes", "[limits]\nbody_bytes = 67108864\nbytes_in_flight = 67108863"),
        ("limits.catalog_bytes", "[limits]\nbytes_in_flight = 8388607"),
        ("limits.import_bytes", "[limits]\nbytes_in_flight = 8388607"),
        ("plugins.file_bytes", "[limits]\nbytes_in_flight = 4194303"),
        ("plugins.large.file_bytes", "[limits]\nbytes_in_flight = 25165823\n[plugins]\nlarge_organizations = [\"*\"]"),
        ("four times limits.public_body_bytes", "[limits]\nbytes_in_flight = 1048575"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("roster.toml"), others).expect("settings");
        let check = ["config", "check", "--data"];
        let output =
            std::process::Command::new(crate::harness::site::binary()).args(check).arg(directory.path()).output();
        let output = output.expect("roster");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.code() == Some(1) && said.contains(&format!("less than {name},")), "{name}: {said}");
    }
}

#[tokio::test]
async fn many_large_bodies_of_unauthenticated_callers_use_no_memory() {
    const STRANGERS: usize = 60;
    let site = Site::start().await;
    let before = site.peak_memory_kb();
    let request = begun("PUT /api/v1/permissions/catalog", JSON, 8 * MIB, 8 * MIB);

    std::thread::scope(|scope| {
        for _ in 0..STRANGERS {
            // They keep sending after the answer, until the connection is closed.
            scope.spawn(|| drop(connect(&site).write_all(&request)));
        }
    });
    site.admin().get("/me").await.done();

    let grown = site.peak_memory_kb() - before;
    assert!(grown < 64 * 1_024, "{grown} kB");
    assert_eq!(site.metric("roster_body_bytes"), 0);
}

// ── a credential that ends while its request is being received ──

/// Each kind of credential, with the events that happen while a body is held back, and whether the request is still
/// carried out.
const HELD: [(&str, &[(&str, bool)]); 8] = [
    ("token", &OF_SESSIONS),
    ("cookie", &OF_SESSIONS),
    ("gateway", &[("nothing", true), ("suspended", false), ("erased", false), ("demoted", false)]),
    (
        "own key",
        &[
            ("nothing", true),
            ("rotated", true),
            ("rotated twice", false),
            ("revoked", false),
            ("suspended", false),
            ("erased", false),
        ],
    ),
    ("emergency key", &[("nothing", true), ("revoked", false), ("suspended", false), ("erased", false)]),
    ("given key", &[("nothing", true), ("revoked", false), ("reset", false), ("maker demoted", false)]),
    (
        "service key",
        &[
            ("nothing", true),
            ("rotated", true),
            ("rotated twice", false),
            ("revoked", false),
            ("taken over", false),
            ("maker demoted", false),
        ],
    ),
    (
        "client",
        &[
            ("nothing", true),
            ("rotated", true),
            ("rotated twice", false),
            ("deleted", false),
            ("inactive", false),
            ("narrowed", false),
            ("other addresses", false),
            ("other paths", false),
            ("taken over", false),
            ("maker demoted", false),
        ],
    ),
];
const OF_SESSIONS: [(&str, bool); 7] = [
    ("nothing", true),
    ("signed out", false),
    ("reset", false),
    ("suspended", false),
    ("erased", false),
    ("demoted", false),
    ("two factors", false),
];

/// A credential in use, and what is needed to end it.
struct Credential<'s> {
    caller: As<'s>,
    line: &'static str,
    body: Value,
    member: Member<'s>,
    /// The path of the key or client.
    path: String,
    maker: As<'s>,
    /// The path of the role assignment that gives the creator the right.
    assignment_path: String,
}

async fn credential_of<'s>(organization: &Organization<'s>, kind: &str) -> Credential<'s> {
    let site = organization.site;
    let member = organization.member_with_role("tenant_owner").await;
    let (maker, assignment_path) = second_administrator(site).await;
    let text = |made: &Value, name: &str| made[name].as_str().expect("text").to_owned();
    let own = member.caller();
    let make = async |caller: &As<'_>, path: &str, body: Value| {
        let made = caller.post(path, body).await.data();
        (site.nobody().with("x-api-key", &text(&made, "api_key")), format!("{path}/{}", text(&made, "id")))
    };
    let given = format!("/admin/members/{}/api-keys", member.uid);
    let (caller, path) = match kind {
        "token" => (own, String::new()),
        "cookie" => (site.nobody().with("cookie", &format!("access_token={}", member.token)), String::new()),
        "gateway" => (site.internal().with("x-uid", &member.uid).with("x-tenant-id", &organization.id), String::new()),
        "own key" => make(&own, "/me/api-keys", json!({"name": "laptop"})).await,
        "emergency key" => make(&own, "/me/api-keys", json!({"name": "laptop", "type": "memg"})).await,
        "given key" => make(&maker, &given, json!({"name": "station"})).await,
        "service key" => {
            make(&maker, "/admin/api-keys", json!({"service_name": "gpu", "scopes": ["jobs:write"]})).await
        }
        _ => {
            let made =
                maker.post("/admin/api-clients", json!({"name": "shop", "scopes": ["members:write"]})).await.data();
            let key = text(&made, "client_key");
            let caller = site.nobody().with("x-client-key", &key).with("x-api-key", &text(&made, "api_key"));
            (caller, format!("/admin/api-clients/{key}"))
        }
    };
    let name = format!("n{}", &uuid::Uuid::now_v7().simple().to_string()[16..]);
    let (line, body) = match kind {
        "gateway" => ("POST /api/v1/permissions/roles", json!({"key": name})),
        "service key" => ("POST /api/v1/jobs/claim", json!({})),
        _ if kind.ends_with("key") => ("POST /api/v1/quota/reservations", json!({"size": 1})),
        _ => ("POST /admin/members", json!({"username": name})),
    };
    Credential { caller, line, body, member, path, maker, assignment_path }
}

/// Makes this event happen to the credential.
async fn end_credential(organization: &Organization<'_>, credential: &Credential<'_>, what: &str) {
    let (site, uid) = (organization.site, &credential.member.uid);
    let (admin, at) = (site.admin(), format!("/admin/members/{uid}"));
    let owner = if credential.path.starts_with("/me") { credential.member.caller() } else { credential.maker.clone() };
    match what {
        "nothing" => {}
        "signed out" => credential.member.caller().post("/auth/logout", json!({})).await.done(),
        "reset" => admin.patch(&at, json!({"password": "Another-horse-8"})).await.done(),
        "suspended" => admin.post(&format!("{at}/deactivate"), json!({})).await.done(),
        "erased" => admin.delete(&at).await.done(),
        "demoted" => {
            let role = organization.role_id("tenant_owner").await;
            let held = format!("/api/v1/permissions/users/{uid}/roles/{role}");
            organization.admin().delete(&held).await.done();
        }
        "two factors" => {
            let rule = json!({"second_factor_required": true});
            admin.patch(&format!("/admin/organizations/{}", organization.id), rule).await.done();
        }
        "rotated" => owner.post(&format!("{}/rotate", credential.path), json!({})).await.done(),
        "rotated twice" => {
            for _ in 0..2 {
                owner.post(&format!("{}/rotate", credential.path), json!({})).await.done();
            }
        }
        "taken over" => admin.post(&format!("{}/rotate", credential.path), json!({})).await.done(),
        "revoked" | "deleted" => owner.delete(&credential.path).await.done(),
        "inactive" => admin.patch(&credential.path, json!({"status": "inactive"})).await.done(),
        "narrowed" => admin.patch(&credential.path, json!({"scopes": ["members:read"]})).await.done(),
        "other addresses" => admin.patch(&credential.path, json!({"allowed_ips": ["192.0.2.0/24"]})).await.done(),
        "other paths" => admin.patch(&credential.path, json!({"allowed_paths": ["/me"]})).await.done(),
        "maker demoted" => admin.with("x-tenant-id", "platform").delete(&credential.assignment_path).await.done(),
        _ => panic!("{what}"),
    }
}

#[tokio::test]
async fn a_held_back_body_changes_nothing_after_its_credential_has_ended() {
    let site = Site::start().await;
    let cases = HELD.iter().flat_map(|(kind, ways)| ways.iter().map(move |(what, is_done)| (*kind, *what, *is_done)));
    for (n, (kind, what, is_done)) in cases.enumerate() {
        let organization = site.organization(&format!("o{n}")).await;
        let credential = credential_of(&organization, kind).await;
        let body = credential.body.to_string();
        let headers: String =
            credential.caller.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut stream = connect(&site);
        let request = begun(credential.line, &format!("{headers}{JSON}expect: 100-continue\r\n"), body.len(), 0);
        stream.write_all(&request).expect("a head");
        // The server sends `100 Continue` after the caller is authenticated.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).expect("an answer");
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n", "{kind}: {what}");

        end_credential(&organization, &credential, what).await;
        let before = site.last_audit_entry().await["id"].clone();
        let answer = exchange(&mut stream, body.as_bytes());

        let why = format!("{kind}: {what}: {} {}", answer.status, answer.body);
        if is_done {
            assert_eq!(answer.status, 200, "{why}");
            continue;
        }
        assert!([401, 403].contains(&answer.status), "{why}");
        let since = site.admin().get("/admin/audit?limit=10").await.data();
        let done = since["items"]
            .as_array()
            .expect("entries")
            .iter()
            .filter(|entry| entry["id"].as_i64() > before.as_i64() && entry["outcome"] == "done");
        assert_eq!(done.count(), 0, "{why}");
    }
}
