//! TLS on the server itself: with files, with an authority of its own, and with clients that misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustls::ProtocolVersion;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::site::{ADMIN, PASSWORD, Site, binary, rounds};
use crate::harness::tls::{Pair, TlsClient, ask, certificate_file, certificate_in, key_file, replace, settings};
use crate::harness::waiting::eventually;

const HEALTH: &str = "/healthz";

/// A site with the files of a new pair, and the folder of these files.
async fn site_with(more: &str) -> (Site, TempDir, Pair) {
    let (folder, pair) = (tempfile::tempdir().expect("a folder"), Pair::new());
    pair.put(folder.path());
    let site = Site::with(&format!("{}{more}", settings(folder.path()))).await;
    (site, folder, pair)
}

fn address(site: &Site) -> SocketAddr {
    site.url.strip_prefix("https://").expect("https").parse().expect("an address")
}

fn raw(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(address(site)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
    stream
}

/// Whether the server has closed the connection, or closes it within its time limit.
fn is_closed(stream: &mut impl Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(e) => e.kind() != ErrorKind::WouldBlock,
    }
}

fn roster(arguments: &[&str], data: &Path) -> Output {
    Command::new(binary()).args(arguments).arg("--data").arg(data).stdin(Stdio::null()).output().expect("roster")
}

/// What a command that fails says.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// ── files ──

#[tokio::test]
async fn both_versions_of_tls_are_served_to_clients_that_trust_the_certificate() {
    let (site, _folder, pair) = site_with("").await;
    let at = address(&site);
    for (versions, wanted) in
        [(&[&rustls::version::TLS12], ProtocolVersion::TLSv1_2), (&[&rustls::version::TLS13], ProtocolVersion::TLSv1_3)]
    {
        let client = TlsClient::with_versions([&pair.certificate], versions);
        let mut stream = client.connect(at, "localhost").expect("a handshake");
        assert_eq!(stream.conn.protocol_version(), Some(wanted));
        assert_eq!(stream.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
        // The connection is kept.
        for _ in 0..2 {
            assert_eq!(ask(&mut stream, HEALTH).expect("an answer"), (200, json!({"status": "ok"}).to_string()));
        }
    }
    let other = Pair::new();
    assert!(TlsClient::trusting([&other.certificate]).connect(at, "localhost").is_err());
}

#[tokio::test]
async fn links_are_https_and_cookies_are_secure() {
    let (site, folder, _) = site_with("").await;
    let body = json!({"login": ADMIN, "password": PASSWORD, "cookies": true});
    let answer = site.http.post(format!("{}/auth/login", site.url)).json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let cookies: Vec<&str> =
        answer.headers().get_all("set-cookie").iter().map(|value| value.to_str().expect("text")).collect();
    assert_eq!(cookies.len(), 3, "{cookies:?}");
    for cookie in cookies {
        assert!(cookie.starts_with("__Host-") && cookie.split("; ").any(|part| part == "Secure"), "{cookie}");
    }
    // A new site prints its set-up link.
    let data = folder.path().join("site");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(data.join("roster.toml"), settings(folder.path())).expect("settings");
    let mut fresh = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("roster serve");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(fresh.stdout.take().expect("stdout"));
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    fresh.kill().expect("killed");
    fresh.wait().expect("a status");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let url = format!("https://{}", ready["listening"].as_str().expect("an address"));
    assert_eq!(ready["url"], url);
    let link = ready["setup_url"].as_str().expect("a link");
    assert_eq!(link.split_once("/setup?token=").map(|(site, _)| site), Some(url.as_str()));
}

#[tokio::test]
async fn a_replaced_pair_is_presented_and_one_that_does_not_match_is_refused() {
    let (site, folder, first) = site_with("").await;
    let (at, second, third) = (address(&site), Pair::new(), Pair::new());
    let client = TlsClient::trusting([&first, &second, &third].map(|pair| &pair.certificate));
    let presented = async || client.presented(at).expect("a handshake");
    let health = async || site.nobody().get(HEALTH).await.body;
    assert_eq!(presented().await, first.certificate);

    second.put(folder.path());
    site.signal("HUP");
    eventually("the second certificate", async || presented().await == second.certificate).await;

    // The key is still the second one.
    third.put_certificate(folder.path());
    site.signal("HUP");
    eventually("a fault", async || health().await["status"] == "degraded").await;
    let faults = health().await["faults"].clone();
    assert_eq!(
        (&faults[0]["part"], &faults[0]["fault"], &faults[1]),
        (&json!("tls"), &json!("certificate"), &Value::Null)
    );
    assert_eq!(presented().await, second.certificate);
    site.logged("does not belong to the certificate");

    for nonsense in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        replace(&certificate_file(folder.path()), nonsense);
        site.signal("HUP");
        site.signal("HUP");
        assert_eq!(presented().await, second.certificate);
    }

    third.put(folder.path());
    site.signal("HUP");
    eventually("the third certificate", async || presented().await == third.certificate).await;
    eventually("health", async || health().await == json!({"status": "ok"})).await;
}

#[tokio::test]
async fn no_request_fails_while_the_pair_is_replaced() {
    let (site, folder, first) = site_with("").await;
    let at = address(&site);
    let pairs: Vec<Pair> = (0..rounds(8, 100)).map(|_| Pair::new()).collect();
    let client = TlsClient::trusting(pairs.iter().chain([&first]).map(|pair| &pair.certificate));
    let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let (client, is_over, answered) = (client.clone(), is_over.clone(), answered.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    assert_eq!(client.status(at, HEALTH).expect("an answer"), 200);
                    answered.fetch_add(1, Ordering::AcqRel);
                }
            })
        })
        .collect();
    for pair in &pairs {
        let before = answered.load(Ordering::Acquire);
        pair.put(folder.path());
        site.signal("HUP");
        eventually("the certificate", async || client.presented(at).expect("a handshake") == pair.certificate).await;
        eventually("requests", async || answered.load(Ordering::Acquire) > before + 2).await;
    }
    is_over.store(true, Ordering::Release);
    asking.into_iter().for_each(|thread| thread.join().expect("no request failed"));
}

#[test]
fn a_pair_that_cannot_be_used_ends_the_start_with_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (certificate_file(folder.path()), key_file(folder.path()));
    let data = folder.path().join("site");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(data.join("roster.toml"), settings(folder.path())).expect("settings");
    let (one, other) = (Pair::new(), Pair::new());
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    type Change<'c> = &'c dyn Fn(&Path);
    let table: [(Change<'_>, String); 5] = [
        (&|_| {}, format!("{cert} cannot be read: ")),
        (&|folder| replace(&certificate_file(folder), "nothing"), format!("{cert} has no certificate: ")),
        (&|folder| one.put_certificate(folder), format!("{key} cannot be read: ")),
        (&|folder| replace(&key_file(folder), "nothing"), format!("{key} has no private key that can be read: ")),
        (
            &|folder| {
                other.put(folder);
                one.put_certificate(folder);
            },
            format!("the key in {key} does not belong to the certificate in {cert}"),
        ),
    ];
    for (change, why) in table {
        change(folder.path());
        for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
            let said = complaint(&roster(command, &data));
            assert!(said.starts_with(&format!("roster: {why}")), "{said}");
        }
    }
    one.put(folder.path());
    assert!(roster(&["config", "check"], &data).status.success());
}

// ── clients ──

#[tokio::test]
async fn a_handshake_that_does_not_end_is_closed_and_delays_nobody() {
    let (site, _folder, pair) = site_with("limits.handshake_wait_ms = 500\n").await;
    let client = TlsClient::trusting([&pair.certificate]);
    let mut waiting = Vec::new();
    // Nothing, the head of a record, and the beginning of a hello that does not follow.
    for bytes in [&b""[..], &[0x16, 3, 1], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]] {
        for _ in 0..20 {
            let mut stream = raw(&site);
            stream.write_all(bytes).expect("some of a handshake");
            waiting.push(stream);
        }
    }
    assert_eq!(client.status(address(&site), HEALTH).expect("an answer"), 200);
    assert!(waiting.iter_mut().all(is_closed));
    eventually("a report", async || site.log().contains("slow_handshakes=")).await;
}

#[tokio::test]
async fn after_the_handshake_the_limits_of_requests_hold() {
    let more = "limits.handshake_wait_ms = 60000\nlimits.head_wait_ms = 200\nlimits.idle_wait_ms = 300\n";
    let (site, _folder, pair) = site_with(more).await;
    let client = TlsClient::trusting([&pair.certificate]);
    for (what, requests, rest) in [("no head", 0, ""), ("half a head", 0, "GET / HTTP/1.1\r\nx: "), ("idle", 1, "")] {
        let mut stream = client.connect(address(&site), "localhost").expect("a handshake");
        for _ in 0..requests {
            assert_eq!(ask(&mut stream, HEALTH).expect("an answer").0, 200);
        }
        stream.write_all(rest.as_bytes()).expect("some of a head");
        assert!(is_closed(&mut stream), "{what}");
    }
}

#[tokio::test]
async fn a_connection_without_a_handshake_counts_and_is_closed_for_others() {
    let (site, _folder, pair) = site_with("limits.connections = 3\n").await;
    let client = TlsClient::trusting([&pair.certificate]);
    // The connection of the site's own client is the fourth one, and the oldest.
    let mut silent = [raw(&site), raw(&site), raw(&site)];
    let mut fourth = client.connect(address(&site), "localhost").expect("a handshake");
    assert!(is_closed(&mut silent[0]), "it has waited longest");
    assert_eq!(ask(&mut fourth, HEALTH).expect("an answer").0, 200);
}

#[tokio::test]
async fn http_without_tls_is_answered_with_the_https_address() {
    let (site, _folder, _pair) = site_with("").await;
    let mut stream = raw(&site);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: site\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(head.lines().next(), Some("HTTP/1.1 400 Bad Request"));
    assert_eq!(body, format!("This port accepts only https: use {}\n", site.url));
    // Commands use the local socket, which has no TLS.
    assert_eq!(site.command(&["audit", "verify"])["ok"], true);
}

#[tokio::test]
async fn a_server_in_the_network_without_tls_warns() {
    const WARNING: &str = "other computers reach this server without TLS";
    assert!(Site::at("0.0.0.0:0", "").await.log().contains(WARNING));
    assert!(!Site::at("0.0.0.0:0", "trusted_proxies = [\"192.0.2.1\"]").await.log().contains(WARNING));
    assert!(!Site::start().await.log().contains(WARNING));
    let (folder, pair) = (tempfile::tempdir().expect("a folder"), Pair::new());
    pair.put(folder.path());
    assert!(!Site::at("0.0.0.0:0", &settings(folder.path())).await.log().contains(WARNING));
}

// ── an authority of its own ──

fn authority(site: &Site) -> std::path::PathBuf {
    site.path().join("tls/authority.crt")
}

/// Sets `tls.mode` to `local` and restarts.
fn use_local(site: &mut Site) {
    site.between_runs(|data| {
        let file = data.join("roster.toml");
        let settings = std::fs::read_to_string(&file).expect("settings");
        std::fs::write(file, format!("tls.mode = \"local\"\n{settings}")).expect("written");
    });
}

#[tokio::test]
async fn a_device_that_trusts_the_authority_reaches_the_hosts_of_its_certificate() {
    let mut site = Site::start().await;
    let made = site.command(&["tls", "local", "--host", "localhost", "--host", "127.0.0.1"]);
    assert_eq!(made["hosts"], json!(["localhost", "127.0.0.1"]));
    assert_eq!(made["authority_file"], authority(&site).display().to_string());
    assert_eq!(made["is_new_authority"], true);
    for (file, wanted) in [("", 0o700), ("authority.key", 0o600), ("server.pem", 0o600)] {
        let found = std::fs::metadata(site.path().join("tls").join(file)).expect("a file").permissions().mode();
        assert_eq!(found & 0o777, wanted, "{file}");
    }
    use_local(&mut site);
    let client = TlsClient::trusting([&certificate_in(&authority(&site))]);
    for host in ["localhost", "127.0.0.1"] {
        let mut stream = client.connect(address(&site), host).expect("a handshake");
        assert_eq!(ask(&mut stream, HEALTH).expect("an answer").0, 200);
    }
    assert!(client.connect(address(&site), "nas.local").is_err());

    // Another host: the same authority, and the running server takes the certificate.
    let again = site.command(&["tls", "local", "--host", "nas.local"]);
    assert_eq!((&again["is_new_authority"], &again["sha256"]), (&json!(false), &made["sha256"]));
    site.signal("HUP");
    eventually("nas.local", async || client.connect(address(&site), "nas.local").is_ok()).await;
    assert!(client.connect(address(&site), "localhost").is_err());
}

#[test]
fn the_command_prints_how_each_system_trusts_the_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let print = || {
        let output = roster(&["tls", "local", "--host", "nas.local", "--host", "192.168.1.5"], folder.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let first = print();
    assert!(first.starts_with("The certificate holds for nas.local, 192.168.1.5 until "), "{first}");
    let has_line = |text: &str, begin: &str| text.lines().any(|line| line.starts_with(begin));
    for system in ["macOS", "iOS, iPadOS", "Windows", "Linux", "Android"] {
        assert!(has_line(&first, &format!("  {system} ")), "{system}: {first}");
    }
    let file = folder.path().join("tls/authority.crt");
    assert!(has_line(&first, &format!("  {}", file.display())), "{first}");
    let hash = |text: &str| text.lines().find_map(|line| line.strip_prefix("  SHA-256 ").map(str::to_owned));
    let openssl =
        Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&file).output();
    if let Ok(shown) = openssl {
        let shown = String::from_utf8(shown.stdout).expect("text");
        assert_eq!(shown.trim().split_once('=').map(|(_, hash)| hash), hash(&first).as_deref());
    }
    let second = print();
    assert!(hash(&first).is_some() && hash(&first) == hash(&second), "{second}");
    assert!(has_line(&second, "Devices that trust it already need nothing."), "{second}");

    let said = complaint(&roster(&["tls", "local", "--host", "https://nas.local"], folder.path()));
    assert!(said.contains("\"https://nas.local\" is not a host"), "{said}");
}

#[test]
fn without_an_authority_the_start_says_how_to_make_one() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("roster.toml"), "tls.mode = \"local\"\n").expect("settings");
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["config", "check"]] {
        let said = complaint(&roster(command, folder.path()));
        assert!(said.starts_with("roster: tls.mode is local, and there is no certificate yet"), "{said}");
        assert!(said.contains("`roster tls local --host NAME`"), "{said}");
    }
}

#[tokio::test]
async fn openssl_verifies_the_server() {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let mut site = Site::start().await;
    site.command(&["tls", "local", "--host", "localhost"]);
    use_local(&mut site);
    for version in ["-tls1_2", "-tls1_3"] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address(&site).to_string(), "-servername", "localhost", version])
            .args(["-verify_hostname", "localhost", "-verify_return_error", "-alpn", "h2,http/1.1", "-CAfile"])
            .arg(authority(&site))
            .stdin(Stdio::null())
            .output()
            .expect("openssl");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let has_line = |wanted: &str| said.lines().any(|line| line.trim() == wanted);
        assert!(has_line("Verify return code: 0 (ok)") && has_line("ALPN protocol: http/1.1"), "{said}");
    }
    let old = Command::new("openssl")
        .args(["s_client", "-connect", &address(&site).to_string(), "-tls1_1"])
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    assert!(!old.status.success());
}
