//! Connections: time limits, the limit on their number, and which one is closed when it is reached.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::site::Site;
use crate::harness::waiting::eventually;

/// Longest wait for something that happens at once or never.
const PATIENCE: Duration = Duration::from_secs(30);
const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: site\r\n\r\n";

fn address(site: &Site) -> SocketAddr {
    site.url.strip_prefix("http://").expect("http").parse().expect("an address")
}

fn connect(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(address(site)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// A connection from another loopback address.
pub async fn connect_from(own: [u8; 4], site: &Site) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::from(own), 0).into()).expect("an address of this machine");
    let stream = socket.connect(address(site)).await.expect("a connection").into_std().expect("a stream");
    stream.set_nonblocking(false).expect("a socket that blocks");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

/// Reads the next response: status, head and body.
fn read_answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a plain head").to_lowercase();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (status, head, body)
}

/// Makes a request that is answered 200, and keeps the connection.
fn ask(stream: &mut TcpStream) {
    stream.write_all(GET).expect("a request");
    assert_eq!(read_answer(stream).0, 200);
}

/// Whether the server has closed the connection, or closes it within its time limit.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(e) if e.kind() == ErrorKind::WouldBlock => false,
        Err(_) => true,
    }
}

fn system_limit(site: &Site, name: &str) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", site.process())).expect("limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

// ── slow clients ──

#[tokio::test]
async fn a_head_that_does_not_end_and_an_idle_connection_are_closed() {
    let site = Site::with("limits.head_wait_ms = 200\nlimits.idle_wait_ms = 300").await;
    let half = b"GET / HTTP/1.1\r\nhost: x\r\nx: ".as_slice();
    for (what, requests, rest) in [
        ("nothing at all", 0, b"".as_slice()),
        ("half a head", 0, half),
        ("idle", 1, b""),
        ("half a second head", 1, half),
        ("half a third head", 2, half),
        ("only the end of a line", 1, b"\r\n"),
    ] {
        let mut stream = connect(&site);
        for _ in 0..requests {
            ask(&mut stream);
        }
        stream.write_all(rest).expect("some of a head");
        assert!(is_closed(&mut stream), "{what}");
    }
    let text = eventually("a report", async || Some(site.log()).filter(|log| log.contains("slow_heads="))).await;
    assert!(text.contains("connections were closed"), "{text}");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_answered_and_the_connection_closed() {
    let site = Site::with("limits.body_rate_bytes_s = 1000").await;
    let mut stream = connect(&site);
    let head =
        "POST /auth/login HTTP/1.1\r\nhost: site\r\ncontent-type: application/json\r\ncontent-length: 6000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("a head");
    // One byte less than five seconds at the minimum rate.
    stream.write_all(&[b' '; 4_999]).expect("some of a body");

    let (status, ..) = read_answer(&mut stream);

    assert_eq!(status, 408);
    assert!(is_closed(&mut stream));
}

#[tokio::test]
async fn a_client_that_does_not_read_its_responses_is_disconnected() {
    let site = Site::with("limits.answer_wait_ms = 200").await;
    let mut stream = connect(&site);
    let request = b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: site\r\n\r\n";
    stream.write_all(request).expect("a request");
    let length = read_answer(&mut stream).2.len();
    // More than the socket buffers hold.
    let count = 64 * 1024 * 1024 / length;
    stream.write_all(&request.repeat(count)).expect("requests");

    eventually("a report", async || Some(site.log()).filter(|log| log.contains("slow_readers=1"))).await;

    let mut taken = Vec::new();
    let _ = stream.read_to_end(&mut taken);
    assert!(taken.len() < count * length);
}

#[tokio::test]
async fn a_head_holds_at_its_limit_and_not_one_past_it() {
    const HEAD_BYTES_MAX: usize = 8_192;
    let site = Site::with(&format!("limits.head_bytes = {HEAD_BYTES_MAX}")).await;
    for (bytes, wanted) in [(HEAD_BYTES_MAX, 200), (HEAD_BYTES_MAX + 1, 431)] {
        let mut head = b"GET /healthz HTTP/1.1\r\nhost: site\r\nx: ".to_vec();
        head.resize(bytes - 4, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        let mut stream = connect(&site);
        stream.write_all(&head).expect("a head");
        assert_eq!(read_answer(&mut stream).0, wanted, "{bytes}");
    }
}

#[tokio::test]
async fn only_http_1_is_supported() {
    let site = Site::start().await;
    let mut stream = connect(&site);
    // The preface of HTTP/2, its settings, and a request.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86]);
    stream.write_all(&bytes).expect("a preface");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
}

#[tokio::test]
async fn a_client_whose_body_is_not_read_still_gets_the_response() {
    let site = Site::start().await;
    let mut stream = connect(&site);
    // A path without an operation for this method: a GET with a body, as a proxy may send it.
    let length = 4 * 1024 * 1024;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: site\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a head");
    stream.write_all(&vec![b'x'; length]).expect("a body");
    assert_eq!(read_answer(&mut stream).0, 200);
    assert!(is_closed(&mut stream));
}

// ── limits on their number ──

#[tokio::test]
async fn one_connection_past_the_limit_closes_the_one_idle_longest() {
    let site = Site::with("limits.connections = 3").await;
    // The connection of the site's own client is the third one, and the oldest.
    let [mut first, mut second] = [connect(&site), connect(&site)];
    ask(&mut second);
    ask(&mut first);
    let mut third = connect(&site);
    ask(&mut third);
    let mut fourth = connect(&site);
    ask(&mut fourth);
    assert!(is_closed(&mut second), "it was idle longest");
    [&mut third, &mut first, &mut fourth].into_iter().for_each(ask);
}

#[tokio::test]
async fn many_connections_from_one_address_do_not_displace_another_before_its_head() {
    let site = Site::with("limits.connections = 32").await;
    let crowd = [127, 0, 0, 2];
    let slow =
        b"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{";
    let mut streams = Vec::new();
    let mut come = async |bytes: &[u8]| {
        let mut stream = connect_from(crowd, &site).await;
        // The server may have closed it by now.
        let _ = stream.write_all(bytes);
        streams.push(stream);
    };
    for _ in 0..40 {
        come(slow).await;
    }
    let mut served = 0;
    for n in 0..4 {
        let mut member = connect_from([127, 0, 0, 3 + n], &site).await;
        for _ in 0..40 {
            come(b"GET / HT").await;
        }
        ask(&mut member);
        served += 1;
    }
    assert_eq!(served, 4);
}

#[tokio::test]
async fn one_address_cannot_take_the_connections_of_another() {
    let site = Site::with("limits.connections_per_address = 2").await;
    let mut other = connect(&site);
    ask(&mut other);
    let own = [127, 0, 0, 2];
    let mut streams = [connect_from(own, &site).await, connect_from(own, &site).await];
    streams.iter_mut().for_each(ask);
    let [mut first, mut second] = streams;
    ask(&mut first);
    let mut third = connect_from(own, &site).await;
    ask(&mut third);
    assert!(is_closed(&mut second), "it was idle longest");
    [&mut first, &mut third, &mut other].into_iter().for_each(ask);
}

#[tokio::test]
async fn a_trusted_proxy_has_no_limit_per_address() {
    let site = Site::with("trusted_proxies = [\"127.0.0.2\"]\nlimits.connections_per_address = 1").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(connect_from([127, 0, 0, 2], &site).await);
    }
    for _ in 0..2 {
        streams.iter_mut().for_each(ask);
    }
}

#[tokio::test]
async fn one_connection_past_the_limit_is_refused_while_all_others_are_in_use() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "a-token-of-the-tests").expect("a file");
    let (at, token) = (silent.local_addr().expect("an address"), token.display());
    let site = Site::with(&format!(
        "limits.connections = 1\nauthentik.url = \"http://{at}\"\nauthentik.token_file = \"{token}\"\nneighbours.timeout_ms = 20000"
    ))
    .await;
    let internal = site.internal();
    let (_, ()) = tokio::join!(internal.post("/internal/authentik/users/ensure", json!({"username": "kim"})), async {
        let working = tokio::task::spawn_blocking(move || silent.accept().expect("a request").0).await;
        let mut stream = connect(&site);
        stream.write_all(GET).expect("a request");
        let (status, head, body) = read_answer(&mut stream);
        assert_eq!(status, 503);
        assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&body["code"], &body["detail"]), (&json!(35_606_000), &json!("busy")));
        assert!(is_closed(&mut stream));
        // Commands use the local socket.
        assert_eq!(site.command(&["audit", "verify"])["ok"], true);
        // Closes the connection to Authentik, and so ends the request to Roster.
        drop(working);
    });
    ask(&mut connect(&site));
}

// ── limits of the operating system ──

#[tokio::test]
async fn the_limit_of_open_files_is_raised_to_its_maximum_and_limits_the_connections() {
    let raised = Site::with_limits("limits.connections = 400", "-Sn 300").await;
    assert_eq!(system_limit(&raised, "Max open files")[0], "656");
    assert!(!raised.log().contains("the limit of open files allows"));

    let low = Site::with_limits("limits.connections = 500", "-n 300").await;
    assert_eq!(system_limit(&low, "Max open files"), ["300", "300"]);
    let log = low.log();
    assert!(log.contains("the limit of open files allows") && log.contains("connections=150"), "{log}");
    let mut streams: Vec<_> = (0..400).map(|_| connect(&low)).collect();
    ask(streams.last_mut().expect("a stream"));
    assert!(is_closed(&mut streams[0]));
    assert_eq!(low.command(&["audit", "verify"])["ok"], true);
}

#[tokio::test]
async fn accepting_pauses_without_free_descriptors_and_resumes_afterwards() {
    let site = Site::with("log.level = \"info,roster=debug\"").await;
    // Fewer descriptors than it has open: the next accept fails.
    assert!(site.set_limit("--nofile=8:"));
    let mut stream = connect(&site);
    stream.write_all(GET).expect("a request");
    let failed = || site.log().matches("no connection can be accepted").count();
    eventually("it fails", async || (failed() > 3).then_some(())).await;
    assert!(failed() < 50, "it does not rest: {}", failed());
    assert!(site.set_limit("--nofile=1024:"));
    assert_eq!(read_answer(&mut stream).0, 200);
}

#[tokio::test]
async fn the_server_writes_no_core_dumps() {
    let mut site = Site::start().await;
    assert_eq!(system_limit(&site, "Max core file size"), ["0", "0"]);
    // Where this user may raise the limit again, the dumpable flag is still tested.
    let _ = site.set_limit("--core=unlimited:unlimited");
    let status = site.end("ABRT").expect("a server");
    assert!(status.signal() == Some(6) && !status.core_dumped(), "{status}");
    site.start_again();
}
