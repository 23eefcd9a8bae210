//! A load test: clients that use up resources, while a signed-in member is served.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::{Site, http_client, rounds};
use crate::harness::storm_clients::{self, Answers, Asked};
use crate::harness::wasm_fixtures;
use crate::plugins::put;
use crate::videos::registration::service;

/// The longest time that a member waits for a response.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest time until the memory is free again; it takes about as long as the server waits for the slowest readers.
const CALM: Duration = Duration::from_secs(180);
/// Additional resident memory that is accepted after the load.
const KEPT_KIB: u64 = 30 * 1024;
/// Rows of the organization that causes the load, so that its lists are expensive.
const VIDEOS: i64 = 20_000;

/// A request of the member, and the expected response.
struct Question {
    method: Method,
    path: &'static str,
    body: Option<Value>,
    right: Value,
}

/// A member that makes requests in turn, each with one correct response.
struct SignedIn<'s> {
    site: &'s Site,
    token: String,
    questions: Vec<Question>,
    took: Vec<Duration>,
    client: reqwest::Client,
}

impl<'s> SignedIn<'s> {
    async fn of(site: &'s Site, bolt: &Organization<'s>) -> Self {
        let member = bolt.member_with(&["videos.read"]).await;
        let route = |method: &str| json!({"uid": member.uid, "method": method, "path": "/videos/1"});
        let check = "/api/v1/permissions/check";
        // Without a kept connection each request needs a new one. It comes from another address than the load, because
        // connections are limited per address.
        let client = http_client().timeout(PATIENCE).pool_max_idle_per_host(0);
        let client = client.local_address(IpAddr::from([127, 0, 0, 2])).build().expect("a client");
        let questions = vec![
            (Method::GET, "/me", None),
            (Method::POST, check, Some(route("GET"))),
            (Method::POST, check, Some(route("DELETE"))),
            (Method::GET, "/api/v1/permissions/roles", None),
            (Method::GET, "/admin/members?limit=5", None),
        ];
        let mut own = Self { site, token: bolt.owner_token.clone(), questions: vec![], took: vec![], client };
        for (method, path, body) in questions {
            let mut question = Question { method, path, body, right: Value::Null };
            question.right = own.answer(&question).await;
            own.questions.push(question);
        }
        assert_eq!((&own.questions[1].right["allow"], &own.questions[2].right["allow"]), (&json!(true), &json!(false)));
        own
    }

    async fn answer(&self, question: &Question) -> Value {
        let Question { method, path, body, .. } = question;
        let request = self.client.request(method.clone(), format!("{}{path}", self.site.url)).bearer_auth(&self.token);
        let request = body.iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await.unwrap_or_else(|e| panic!("{path}: {e:?} after {}", self.took.len()));
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a text"));
        assert_eq!(status, 200, "{path} after {}: {text}", self.took.len());
        serde_json::from_str::<Value>(&text).expect("JSON")["data"].take()
    }

    async fn asks_all(&mut self) {
        for n in 0..self.questions.len() {
            let began = Instant::now();
            let answer = self.answer(&self.questions[n]).await;
            self.took.push(began.elapsed());
            assert_eq!(answer, self.questions[n].right, "{} after {}", self.questions[n].path, self.took.len());
        }
    }

    async fn sees_health(&self) {
        let answer = self.client.get(format!("{}/healthz", self.site.url)).send().await.expect("an answer");
        assert_eq!(answer.text().await.expect("a text"), r#"{"status":"ok"}"#);
    }

    fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

/// Makes a request, reads the beginning of the response, and stops. Its socket has a small receive buffer.
async fn reader_who_stops(address: SocketAddr, path: &str, encoding: &str) -> TcpStream {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: {encoding}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut began = [0; 15];
    stream.read_exact(&mut began).await.expect("an answer");
    assert_eq!(&began, b"HTTP/1.1 200 OK");
    stream
}

/// A request as bytes.
fn request(caller: &As<'_>, method: &str, path: &str, body: &str) -> Arc<Vec<u8>> {
    let headers: String = caller.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let length = body.len();
    Arc::new(
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}{kind}content-length: {length}\r\n\r\n{body}")
            .into_bytes(),
    )
}

/// All load of one organization and its clients.
async fn stormers<'s>(site: &'s Site, acme: &Organization<'s>) -> Vec<Asked> {
    let (owner, member) = (acme.owner(), acme.member_with(&["videos.read"]).await);
    put(&owner, "endless", wasm_fixtures::looping(), json!({"mode": "enforce"})).await;
    let worker = service(site, &["jobs:write"]).await;
    let list = "/api/v1/videos?keyword=9&limit=200";
    let check = json!({"uid": member.uid, "method": "GET", "path": "/videos/1"}).to_string();
    // Bodies that are read completely and then found invalid.
    let long = json!({"username": "x".repeat(900_000)}).to_string();
    let asked = |what, callers, request, read| Asked { what, callers, request, read };
    vec![
        asked("lists", 24, request(&owner, "GET", list, ""), true),
        asked("deep lists", 8, request(&owner, "GET", "/api/v1/videos?offset=19000&limit=200", ""), true),
        asked("members", 8, request(&owner, "GET", "/admin/members?keyword=u&limit=200", ""), true),
        asked("audit", 8, request(&owner, "GET", "/admin/audit?limit=200", ""), true),
        asked("hostile plugin", 8, request(&owner, "POST", "/api/v1/permissions/check", &check), true),
        asked("jobs", 110, request(&worker, "POST", "/api/v1/jobs/claim", r#"{"wait_s":1}"#), true),
        asked("reloads", 2, request(&owner, "POST", "/api/v1/permissions/policy/reload", ""), true),
        asked("bodies", 8, request(&owner, "POST", "/admin/members", &long), true),
        asked("unread docs", 60, request(&site.nobody(), "GET", "/api/v1/docs", ""), false),
        asked("unread lists", 30, request(&owner, "GET", list, ""), false),
    ]
}

/// Videos of one organization without owners, which count against no quota.
fn fill(site: &Site, acme: &Organization<'_>) {
    let organization = uuid::Uuid::parse_str(&acme.id).expect("an id").into_bytes();
    let statement = "with recursive n (i) as (select 1 union all select i + 1 from n where i < ?2)
        insert into videos (id, path, organization_id, size, created_at, updated_at)
        select printf('%016x', i), 'acme/' || i || '.mp4', ?1, 0, i, i from n";
    site.write_rows(|rows| rows.execute(statement, rusqlite::params![organization, VIDEOS]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_served_while_other_clients_use_up_resources() {
    // With these settings no rate limit applies, and a guest that does not end is not quarantined.
    let began = Instant::now();
    let settings = "limits.head_wait_ms = 4000\nlimits.answer_wait_ms = 5000\nplugins.failures = 10000";
    let site = Site::with_limits(settings, "-n 1024").await;
    let address = site.url.strip_prefix("http://").expect("http").parse().expect("an address");
    let route = |name: &str, method: &str| json!({"name": name, "http_methods": method, "http_path": "/videos/:id"});
    site.import(json!([route("videos.read", "GET"), route("videos.delete", "DELETE")])).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let stormers = stormers(&site, &acme).await;
    fill(&site, &acme);
    // The last step of the set-up: responses contain the policy epoch, which does not change from here on.
    let mut own = SignedIn::of(&site, &bolt).await;
    storm_clients::raise_open_files();
    // Memory that these requests need in general is allocated before the load begins: each was made alone, and now all
    // in parallel.
    for asked in stormers.iter().filter(|asked| asked.read) {
        let alone = Asked { callers: 1, ..asked.clone() };
        let (mut answers, began) = (Answers::new(), Instant::now());
        while !answers.keys().any(|(_, status, _)| *status < 500) {
            assert!(began.elapsed() < CALM, "no answer to {}: {answers:?}", asked.what);
            answers = asked_for(2, address, std::slice::from_ref(&alone)).await;
        }
    }
    asked_for(3, address, &stormers).await;
    let before = site.resident_kib();

    let until = Instant::now() + Duration::from_secs(rounds(10, 60).into());
    let mut storm = storm_clients::start(address, until, &stormers);
    let (mut answers, mut commands) = (Vec::<Answers>::new(), 0);
    while !storm.is_empty() {
        own.asks_all().await;
        if commands == 0 && own.took.len() > 20 {
            let command = tokio::task::block_in_place(|| site.command(&["audit", "verify"]));
            assert_eq!(command["ok"], true, "the command line uses the local socket");
            commands += 1;
        }
        own.sees_health().await;
        while let Some(ended) = storm.try_join_next() {
            answers.push(ended.expect("a client"));
        }
    }
    eprintln!("in the storm: {} answers, 99 of 100 within {:?}", own.took.len(), own.p99());
    let answers = storm_clients::summed(answers);
    assert!(storm_clients::faults(&answers).is_empty(), "{answers:?}");
    eprintln!("{answers:?}");

    own.asks_all().await;
    site.admin().post("/admin/members", json!({"username": "kim"})).await.done();
    let log = site.log();
    assert!(log.contains("connections were closed"), "{log}");
    let reports = log.matches("connections were closed").count();
    let most = began.elapsed().as_secs() / 4 + 2;
    assert!(reports as u64 <= most, "reports are aggregated: {reports}");
    comes_back(&site, before).await;
}

async fn asked_for(seconds: u64, address: SocketAddr, asked: &[Asked]) -> Answers {
    let mut all = tokio::task::JoinSet::new();
    storm_clients::ask(&mut all, address, Instant::now() + Duration::from_secs(seconds), asked);
    storm_clients::summed(all.join_all().await)
}

/// Waits until the server uses no more memory than before, except for the accepted difference.
async fn comes_back(site: &Site, before: u64) {
    let (began, peak) = (Instant::now(), site.peak_memory_kb());
    let mut now = site.resident_kib();
    while now > before + KEPT_KIB {
        assert!(began.elapsed() < CALM, "{before} KiB before, {peak} at the most, and now {now}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        now = site.resident_kib();
    }
    eprintln!("{before} KiB before, {peak} at the most, {now} after {:?}", began.elapsed());
}

#[tokio::test]
async fn clients_that_do_not_read_use_no_more_memory_than_their_sockets() {
    const READERS: usize = 300;
    const GROWTH_KIB_MAX: u64 = 40 * 1024;
    let site = Site::start().await;
    let address = site.url.strip_prefix("http://").expect("http").parse().expect("an address");
    storm_clients::raise_open_files();
    for path in ["/api/v1/docs", "/api/v1/openapi.json"] {
        let page = site.http.get(format!("{}{path}", site.url)).send().await.expect("an answer");
        assert!(page.bytes().await.expect("a page").len() > 400_000, "{path}");
        for encoding in ["identity", "gzip"] {
            let before = site.resident_kib();
            let mut readers = Vec::new();
            for _ in 0..READERS {
                readers.push(reader_who_stops(address, path, encoding).await);
            }
            let grown = site.resident_kib().saturating_sub(before);
            assert!(grown < GROWTH_KIB_MAX, "{path} {encoding}: {grown} KiB");
        }
    }
}
