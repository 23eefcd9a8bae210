//! The first five minutes of a new operator: the README and the manual as they are, and what the command line prints
//! when something is wrong.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use roster::console::manual::PAGES;
use serde_json::{Value, json};

use crate::harness::site::{PASSWORD, Site, binary};

fn roster(arguments: &[&str], data: &Path) -> Output {
    Command::new(binary()).args(arguments).arg("--data").arg(data).stdin(Stdio::null()).output().expect("roster")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that ends with its test.
struct Server(Child);

impl Server {
    fn start(data: &Path, more: &[&str]) -> (Self, Value) {
        let mut child = Command::new(binary())
            .args(["serve", "--json", "--data"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("roster serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let server = Self(child);
        (server, serde_json::from_str(&line).expect("JSON"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

// ── the README and the manual ──

/// The code blocks of a page that are marked `sh`.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        match line {
            "```sh" => {
                is_inside = true;
                blocks.push(String::new());
            }
            "```" => is_inside = false,
            line if is_inside => blocks.last_mut().expect("a block").push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    blocks
}

/// Variables that these blocks set.
fn variables(blocks: &[String]) -> BTreeSet<String> {
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let words = blocks.iter().flat_map(|block| block.split_whitespace());
    words.filter_map(|word| word.split_once('=').map(|(name, _)| name)).filter(is_name).map(str::to_owned).collect()
}

/// The blocks of the README, without the two that build the program, followed by those of each page of the manual. A
/// page can use variables of the README, but not of other pages.
fn script() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let mut first = blocks(&readme);
    let all = first.len();
    first.retain(|block| !block.starts_with("cargo "));
    assert_eq!(all - first.len(), 2, "the set-up commands");
    let known = variables(&first);
    let (mut script, mut pages) = (first.join("\necho ---\n"), 0);
    for page in PAGES {
        let blocks = blocks(page.text);
        if blocks.is_empty() {
            continue;
        }
        pages += 1;
        let own: Vec<String> = variables(&blocks).difference(&known).cloned().collect();
        script.push_str(&format!("\necho '--- {}'\n{}\n", page.name, blocks.join("\necho ---\n")));
        if !own.is_empty() {
            script.push_str(&format!("\nunset {}\n", own.join(" ")));
        }
    }
    assert!(pages > 7, "{pages}");
    script
}

#[test]
fn the_blocks_of_the_readme_and_of_the_manual_work_in_order_in_one_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    // A failing command ends the script. The test has a port of its own. A trap ends a server that is still running.
    let before = "set -euo pipefail\ntrap 'kill ${SERVER:-} 2>/dev/null || true' EXIT\n\
                  curl() { command curl --fail-with-body --show-error \"$@\" && echo; }\n";
    let script = script().replace(":8480", &format!(":{port}"));
    let script = format!("{before}{script}\nkill $SERVER; wait $SERVER\n");
    let path = format!("{}:{}", binary().parent().expect("a folder").display(), std::env::var("PATH").expect("PATH"));
    let output = Command::new("bash")
        .arg("-c")
        .arg(&script)
        .current_dir(folder.path())
        .env("PATH", path)
        .env("ROSTER_LISTEN", format!("127.0.0.1:{port}"))
        .output()
        .expect("bash");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), said(&output));
    assert!(output.status.success(), "{out}\n--- standard error\n{err}");
    for wanted in [
        r#""data":{"allow":true,"because":"#,
        r#""reason":"ok_role""#,
        r#""refresh_token":"rt_"#,
        r#""secret":"whsec_"#,
        r#""username":"lee""#,
        r#""already_exists":false"#,
        "20 GB",
        r#""progress_percent":40,"state":"running""#,
        "+ max",
        r#""status":"ok""#,
        "drift",
        "last_hash",
    ] {
        assert!(out.contains(wanted), "{wanted}: {out}\n--- standard error\n{err}");
    }
}

// ── starting ──

#[test]
fn a_starting_server_waits_for_a_command_but_not_for_another_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("site");
    std::fs::create_dir(&data).expect("a folder");
    // A running command holds the lock and has no socket.
    let held = std::fs::File::open(&data).expect("the folder");
    held.try_lock().expect("the lock");
    let mut child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("roster serve");
    let mut out = BufReader::new(child.stdout.take().expect("stdout"));
    let settings = data.join("roster.toml");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !settings.exists() {
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::yield_now();
    }
    assert!(child.try_wait().expect("a state").is_none() && !data.join("roster.db").exists());
    drop(held);
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    let first = Server(child);
    let ready: Value = serde_json::from_str(&line).expect("it serves");
    assert!(ready["setup_url"].is_string());
    let second = roster(&["serve", "--listen", "127.0.0.1:0"], &data);
    assert!(said(&second).contains("another Roster serves"), "{}", said(&second));
    drop(first);
}

#[test]
fn a_wildcard_address_is_printed_as_one_that_a_browser_can_open() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (_server, ready) = Server::start(folder.path(), &["--listen", listen]);
        let (url, setup) = (ready["url"].as_str().expect("url"), ready["setup_url"].as_str().expect("a link"));
        let address = url.strip_prefix("http://").expect("http");
        let address: std::net::SocketAddr = address.parse().expect("an address");
        assert!(!address.ip().is_unspecified() && address.port() != 0, "{url}");
        assert!(setup.starts_with(&format!("{url}/setup?token=")), "{setup}");
        let mut stream = std::net::TcpStream::connect(address).expect("somebody answers there");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("password"), PASSWORD).expect("a file");
    let password = folder.path().join("password").display().to_string();
    let data = folder.path().join("site");
    printed(&roster(&["init", "--admin", "kim", "--password-file", &password], &data));
    for command in [
        &["plugin", "wit"][..],
        &["openapi"],
        &["config", "show"],
        &["member", "list"],
        &["member", "show", "kim", "--json"],
        &["--help"],
        &["version"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let child = Command::new(binary())
            .args(command)
            .env("ROSTER_DATA", &data)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("roster");
        let output = child.wait_with_output().expect("output");
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""), "{command:?}");
    }
}

// ── suggestions ──

#[tokio::test]
async fn misspelled_settings_commands_flags_scopes_and_roles_get_a_suggestion() {
    let site = Site::start().await;
    site.command(&["org", "create", "acme", "Acme"]);
    site.command(&["member", "create", "--username", "kim"]);
    let settings = tempfile::tempdir().expect("a folder");
    std::fs::write(settings.path().join("roster.toml"), "listne = \"127.0.0.1:1\"\nport = 1\n").expect("settings");
    let setting = said(&roster(&["config", "check"], settings.path()));
    assert!(setting.contains("(did you mean listen?)") && setting.contains("(did you mean mail.port?)"), "{setting}");
    let variable = Command::new(binary())
        .args(["config", "check", "--data"])
        .arg(site.path())
        .env("ROSTER_PUBLIC_ULR", "x")
        .output()
        .expect("roster");
    assert!(said(&variable).contains("(did you mean ROSTER_PUBLIC_URL?)"), "{}", said(&variable));
    let cases: [(&[&str], &str); 7] = [
        (&["membre", "list"], "'member'"),
        (&["member", "lst"], "'list'"),
        (&["member", "list", "--keywrd", "kim"], "'--keyword'"),
        (&["org", "second-factor", "acme", "of"], "'off'"),
        (&["client", "create", "portal", "--scopes", "member:read"], "(did you mean members:read?)"),
        (&["key", "create", "x", "--service", "x", "--scopes", "job:write"], "(did you mean jobs:write?)"),
        (&["member", "link", "kim", "acme", "--role", "tenant_ower"], "(did you mean tenant_owner?)"),
    ];
    for (arguments, meant) in cases {
        let output = roster(arguments, site.path());
        assert!(!output.status.success() && said(&output).contains(meant), "{arguments:?}: {}", said(&output));
    }
}

// ── error messages ──

#[test]
fn a_directory_that_cannot_be_used_is_reported_and_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    for command in [&["member", "list"][..], &["serve"], &["init", "--admin", "kim", "--password-stdin"]] {
        let output = roster(command, &file);
        assert!(said(&output).contains("is a file, not a data directory"), "{command:?}: {}", said(&output));
    }
    // Root can open every directory, so tests that run as root switch to another user.
    let data = folder.path().join("closed");
    std::fs::create_dir(&data).expect("a folder");
    std::fs::write(data.join("roster.db"), "x").expect("a file");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o000)).expect("closed");
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let copy = folder.path().join("roster");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
    std::fs::copy(binary(), &copy).expect("a copy");
    // The server of the directory's owner makes its own directory accessible again.
    let commands: [&[&str]; 3] = [&["member", "list"], &["setup-link"], &["serve"]];
    for command in commands.into_iter().take(if is_root { 3 } else { 2 }) {
        let mut run = Command::new(if is_root { Path::new("setpriv") } else { &copy });
        if is_root {
            run.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy);
        }
        let output = run.args(command).arg("--data").arg(&data).output().expect("roster");
        let wanted = if is_root { "you are user 65534" } else { "is not accessible to you, its owner" };
        assert!(said(&output).contains(wanted), "{command:?}: {}", said(&output));
    }
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("open");
}

#[tokio::test]
async fn a_wrong_key_names_its_file_and_the_remedy() {
    let mut site = Site::start().await;
    let key = site.path().join("encryption.key");
    let right = std::fs::read(&key).expect("the key");
    site.stop_for(|_| ());
    for (content, wanted) in [("ab".repeat(32), "contains another key"), ("rubbish".to_owned(), "encryption.key")] {
        std::fs::write(&key, content).expect("a key");
        let output = roster(&["member", "list"], site.path());
        assert!(said(&output).contains(wanted) && !output.status.success(), "{}", said(&output));
    }
    std::fs::write(&key, right).expect("the key");
    site.start_again();
}

// ── input as people write it ──

#[tokio::test]
async fn members_dates_and_sizes_are_accepted_in_common_forms() {
    let site = Site::start().await;
    site.command(&["org", "create", "acme", "Acme"]);
    let kim = site.command(&["member", "create", "--username", "kim", "--email", "kim@example.org"]);
    site.command(&["member", "create", "--username", "kim-2"]);
    for named in ["kim", "KIM", "kim@example.org", kim["uid"].as_str().expect("uid")] {
        assert_eq!(site.command(&["member", "show", named])["uid"], kim["uid"], "{named}");
    }
    let nobody = roster(&["member", "show", "ki"], site.path());
    assert!(said(&nobody).contains("there is no member ki"), "{}", said(&nobody));
    site.command(&["member", "link", "kim", "acme", "--role", "viewer"]);

    site.command(&["key", "create", "laptop", "--member", "kim", "--expires-at", "30d"]);
    assert_eq!(site.command(&["key", "list", "--member", "kim"])["total"], 1);
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis() as i64;
    let invited = site.command(&["invite", "create", "acme", "--expires-at", "3d"]);
    let days = (invited["expires_at"].as_i64().expect("a moment") - now) / 86_400_000;
    assert!((2..=3).contains(&days), "{invited}");
    let wrong = roster(&["invite", "create", "acme", "--expires-at", "soon"], site.path());
    assert!(said(&wrong).contains("2026-12-31"), "{}", said(&wrong));

    for (size, own) in [("20GB", json!(20_000_000_000_i64)), ("0", json!(0)), ("default", Value::Null)] {
        assert_eq!(site.command(&["quota", "set", "kim", size])["own_size"], own, "{size}");
    }
    site.command(&["quota", "set", "kim", "unlimited"]);
    site.command(&["quota", "set", "acme", "1.5TB", "--org"]);
    let table = printed(&roster(&["quota", "list"], site.path()));
    let row = table.lines().find(|line| line.contains(" kim ")).expect("kim");
    assert!(row.contains("unlimited") && row.contains("0 B"), "{table}");
    let shown = printed(&roster(&["member", "show", "kim"], site.path()));
    let made = shown.lines().find(|line| line.starts_with("created_at")).expect("a date");
    assert!(made.contains("-") && made.contains(":"), "{made}");
}

#[tokio::test]
async fn errors_name_flags_and_commands() {
    let site = Site::start().await;
    site.command(&["member", "create", "--username", "kim"]);
    site.command(&["org", "create", "acme", "Acme"]);
    let cases: [(&[&str], &str); 11] = [
        (&["member", "link", "kim", "acme", "--role", "owner"], "acme has no role `owner`; it has `member`, "),
        (&["member", "create", "--name", "Kim"], "--username or --email"),
        (&["invite", "create", "acme", "--expires-at", "2020-01-01"], "is in the past"),
        (&["invite", "create", "nowhere"], "there is no organization nowhere: `roster org list` shows them"),
        (&["member", "create", "--username", "a b"], "--username: must begin with a letter"),
        (&["member", "create", "--username", "lee", "--name", ""], "--name: "),
        (&["org", "create", "A B", "x"], "ORG_CODE: "),
        (&["client", "create", "x", "--scopes", "*", "--ips", "here"], "--ips.0: "),
        (&["org", "show", "nowhere"], "`roster org list`"),
        (&["key", "revoke", "019abcde-0000-7000-8000-000000000004"], "`roster key list`"),
        (&["init", "--admin", "a b", "--password-stdin"], "--admin: "),
    ];
    for (arguments, wanted) in cases {
        let output = roster(arguments, site.path());
        assert!(said(&output).contains(wanted), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn a_port_in_use_and_a_missing_directory_name_the_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let output = roster(&["serve", "--listen", &address.to_string()], &folder.path().join("site"));
    let next = format!("try --listen 127.0.0.1:{}", address.port().wrapping_add(1));
    assert!(address.port() == u16::MAX || said(&output).contains(&next), "{}", said(&output));
    let output = roster(&["config", "check"], &folder.path().join("nothere"));
    assert!(!output.status.success() && said(&output).contains("nothere is no directory"), "{}", said(&output));
}

#[test]
fn a_setting_that_names_a_file_is_named_when_the_file_cannot_be_read() {
    let data = tempfile::tempdir().expect("a folder");
    for name in ["internal_secret_file", "metrics_token_file", "mail.password_file", "sftpgo.secret_file"] {
        std::fs::write(data.path().join("roster.toml"), format!("{name} = \"/nope\"\n")).expect("settings");
        let output = roster(&["config", "check"], data.path());
        assert!(said(&output).contains(&format!("{name}: /nope cannot be read")), "{}", said(&output));
    }
}

#[tokio::test]
async fn an_import_prints_lines_and_members_and_that_no_mail_is_sent() {
    let site = Site::start().await;
    let file = site.path().join("members.csv");
    std::fs::write(&file, "sep=,\r\nusername,email\r\n\r\nkim,kim@example.org\r\neve,no-address\r\n").expect("a file");
    let output = roster(&["member", "import", "--welcome", &file.display().to_string()], site.path());
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("! line 5 (eve): email: ") && out.contains("1 created"), "{out}");
    let err = said(&output);
    assert!(err.contains("No welcome is mailed") && err.contains("1 row failed"), "{err}");
    let help = printed(&Command::new(binary()).args(["member", "import", "--help"]).output().expect("roster"));
    for column in roster::features::provisioning::import::COLUMNS {
        assert!(help.contains(column), "{column}: {help}");
    }
}

#[tokio::test]
async fn commands_print_notes_beside_their_results() {
    let site = Site::start().await;
    site.command(&["org", "create", "acme", "Acme"]);
    site.command(&["member", "create", "--email", "lee@example.org"]);
    let linked = site.command(&["member", "link", "lee@example.org", "acme", "--role", "viewer"]);
    assert_eq!(linked["roles"], json!(["viewer"]));
    let table = printed(&roster(&["quota", "list"], site.path()));
    assert!(table.contains(" username ") && table.contains(" lee@example.org "), "{table}");
    for command in [
        &["key", "create", "x", "--service", "x", "--scopes", "jobs:write"][..],
        &["client", "create", "x", "--scopes", "*"],
        &["invite", "create", "acme"],
    ] {
        let output = roster(command, site.path());
        assert!(said(&output).contains("shown only once"), "{command:?}: {}", said(&output));
        let as_json = [command, &["--json"]].concat();
        assert_eq!(said(&roster(&as_json, site.path())), "", "{command:?}");
    }
    let listed = roster(&["key", "list"], site.path());
    assert_eq!(said(&listed), "");
}

#[tokio::test]
async fn erasing_a_member_asks_for_confirmation_on_a_terminal_only() {
    let site = Site::start().await;
    for username in ["kim", "lee", "max"] {
        site.command(&["member", "create", "--username", username]);
    }
    let status =
        |username: &str| site.command(&["member", "list", "--keyword", username])["items"][0]["status"].clone();
    let on_terminal = |arguments: &str, answer: &str| {
        let line = format!("{} member delete {arguments} --data {}", binary().display(), site.path().display());
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script");
        child.stdin.take().expect("stdin").write_all(answer.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&child.wait_with_output().expect("output").stdout).into_owned()
    };
    let refused = on_terminal("kim", "no\n");
    assert!(refused.contains("Erase kim for good") && refused.contains("nothing was done"), "{refused}");
    assert_eq!(status("kim"), "active");
    assert!(on_terminal("kim", "yes\n").contains("deleted"));
    assert!(!on_terminal("lee --yes", "\n").contains("Erase"));
    assert_eq!(printed(&roster(&["member", "delete", "max"], site.path())).matches("deleted").count(), 1);
}

#[test]
fn a_lost_connection_is_reported_as_possibly_done() {
    let data = tempfile::tempdir().expect("a folder");
    std::fs::write(data.path().join("roster.db"), "").expect("a file");
    let held = std::fs::File::open(data.path()).expect("the folder");
    held.try_lock().expect("the lock");
    let socket = data.path().join("roster.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    std::fs::write(data.path().join("roster.lock"), socket.display().to_string()).expect("a file");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a command");
        assert!(stream.read(&mut [0; 1_024]).expect("a request") > 0);
    });
    let output = roster(&["audit", "verify"], data.path());
    server.join().expect("it was asked");
    assert!(said(&output).contains("may have been done or not"), "{}", said(&output));
}

#[test]
fn every_command_describes_its_arguments_and_has_a_valid_example() {
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            let path = format!("{path} {}", inner.get_name());
            if inner.has_subcommands() {
                leaves(inner, &path, found);
            } else {
                found.push((path, inner.clone()));
            }
        }
    }
    let program = roster::cli::command();
    let mut all = Vec::new();
    leaves(&program, "roster", &mut all);
    assert!(all.len() > 60, "{}", all.len());
    for (path, command) in all {
        let undescribed = command.get_arguments().find(|argument| argument.get_help().is_none());
        assert!(undescribed.is_none(), "{path}: {}", undescribed.expect("an argument").get_id());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = help.strip_prefix("Example:\n  ").unwrap_or_else(|| panic!("{path} has no example"));
        assert!(example == path || example.starts_with(&format!("{path} ")), "{path}: {example}");
        // Single quotes enclose one argument.
        let words = example.split('\'').enumerate().flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().collect::<Vec<_>>(),
            _ => vec![part],
        });
        let matches = program.clone().try_get_matches_from(words);
        assert!(matches.is_ok(), "{example}: {}", matches.expect_err("a failure"));
    }
}
