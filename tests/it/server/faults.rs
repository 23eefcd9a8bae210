//! Faults around a server: its log, its terminal, its signals, its disk, and the files in its directory.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use roster::kernel::db::{Writer, mark, schema};
use serde_json::{Value, json};

use crate::harness::callers::As;
use crate::harness::rows::{get_locally, metric, open_rows};
use crate::harness::site::{ADMIN, PASSWORD, Site, binary, http_client};
use crate::harness::waiting::eventually;

// ── a server or a command with pipes of its own ──

struct Server {
    child: Child,
    url: String,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts a server on a new site. The first line of its standard output is read.
    fn start(change: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"]).arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().expect("roster serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let url = format!("http://{}", ready["listening"].as_str().expect("an address"));
        Self { child, url, directory }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let http = http_client().build().expect("client");
        let answer = http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    fn log_lines_dropped(&self) -> u64 {
        metric(&get_locally(self.directory.path(), "/metrics"), "roster_log_dropped_total")
    }

    fn stop(mut self) {
        terminate(&mut self.child);
    }
}

fn terminate(child: &mut Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().expect("kill").success());
    assert!(child.wait().expect("status").success());
}

fn roster(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::null());
    command
}

/// The message of a start on this directory that requires action by an operator.
fn refusal(data: &Path) -> String {
    let output = roster(&["serve", "--listen", "127.0.0.1:0"], data).output().expect("roster serve");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    said
}

/// The codes of the faults in the health report.
async fn faults(site: &Site) -> (u16, Vec<String>) {
    let reply = site.nobody().get("/healthz").await;
    let word = |fault: &Value| fault["fault"].as_str().expect("a word").to_owned();
    (reply.status, reply.body["faults"].as_array().into_iter().flatten().map(word).collect())
}

async fn has_fault(site: &Site, status: u16, word: &str) {
    eventually(word, async || {
        let (found, words) = faults(site).await;
        found == status && words.iter().any(|found| found == word)
    })
    .await;
}

async fn is_well(site: &Site) {
    eventually("health", async || faults(site).await == (200, Vec::new())).await;
}

async fn organization(caller: &As<'_>, n: usize) -> crate::harness::callers::Reply {
    caller.post("/admin/organizations", json!({"org_code": format!("o{n}"), "name": "O"})).await
}

// ── the log and the terminal ──

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_on_a_full_disk_does_not_block_the_server() {
    let site = Site::start().await;
    site.refuse_writes();
    for n in 0..20 {
        assert_eq!(organization(&site.admin(), n).await.word(), "database_full");
        assert_eq!(site.nobody().get("/me").await.status, 401);
    }
    has_fault(&site, 200, "database_full").await;
    assert!(faults(&site).await.1.contains(&"log_drops".to_owned()));
    let dropped = site.metric("roster_log_dropped_total");
    assert!(dropped >= 20, "{dropped}");
    site.unlimit_file_size();
    for n in 0..20 {
        organization(&site.admin(), n).await.done();
    }
    site.nobody().get("/me").await;
    is_well(&site).await;
    site.logged("log lines could not be written");
}

#[tokio::test]
async fn a_log_pipe_without_a_reader_does_not_block_the_server() {
    let mut server = Server::start(|command| {
        command.stderr(Stdio::piped()).env("ROSTER_LOG_LEVEL", "debug");
    });
    drop(server.child.stderr.take());
    for _ in 0..20 {
        let (status, body) = server.get("/me").await;
        assert_eq!(status, 401);
        assert!(body.contains("missing_bearer_token") || body.contains("unauthenticated"), "{body}");
    }
    assert!(server.log_lines_dropped() > 0);
    server.stop();
}

#[tokio::test]
async fn an_unread_log_pipe_does_not_block_the_server() {
    let mut server = Server::start(|command| {
        command.stderr(Stdio::piped()).env("ROSTER_LOG_LEVEL", "trace").env("ROSTER_LOG_QUEUE", "8");
    });
    let _unread = server.child.stderr.take();
    eventually("lines are dropped", async || {
        assert_eq!(server.get("/me").await.0, 401);
        server.log_lines_dropped() > 0
    })
    .await;
    server.stop();
}

#[tokio::test]
async fn a_server_continues_when_its_standard_output_is_not_read() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = roster(&["serve", "--listen", &free], directory.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("roster serve");
    drop(child.stdout.take());
    let http = http_client().build().expect("client");
    let url = format!("http://{free}/healthz");
    eventually("an answer", async || http.get(&url).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    terminate(&mut child);
}

#[tokio::test]
async fn commands_end_quietly_on_a_closed_pipe_and_fail_when_writes_fail() {
    let site = Site::start().await;
    for arguments in
        [&["openapi"][..], &["config", "show"], &["member", "list"], &["org", "list", "--json"], &["version"]]
    {
        let mut command = roster(arguments, site.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("roster");
        drop(child.stdout.take());
        let Output { status, stderr, .. } = child.wait_with_output().expect("output");
        assert!(status.success() && stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        if cfg!(target_os = "linux") {
            let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
            let output = roster(arguments, site.path()).stdout(full).output().expect("roster");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            assert!(said.contains("standard output cannot be written"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_hangup_reloads_what_can_be_reloaded() {
    let site = Site::with("log.level = \"info\"").await;
    let settings = site.path().join("roster.toml");
    let before = std::fs::read_to_string(&settings).expect("settings");
    std::fs::write(&settings, before.replace("info", "debug") + "\n[limits]\nroles = 7\n").expect("settings");
    site.signal("HUP");
    site.logged("the settings were read again");
    site.logged("this setting has changed and needs a restart setting=\"limits.roles\"");
    site.nobody().with("x-request-id", "after-the-hangup").get("/healthz").await;
    site.logged("answered request_id=\"after-the-hangup\"");
    std::fs::write(&settings, "colour = 1").expect("settings");
    site.signal("HUP");
    site.logged("the settings were not applied");
    assert_eq!(site.nobody().get("/healthz").await.status, 200);
    std::fs::write(&settings, before).expect("settings");
}

// ── the files ──

#[tokio::test]
async fn a_database_that_is_moved_while_the_server_runs_takes_no_changes() {
    let site = Site::start().await;
    for name in ["roster.db", "roster.db-wal"] {
        let (file, aside) = (site.path().join(name), site.path().join("aside"));
        std::fs::rename(&file, &aside).expect("moved");
        assert_eq!(organization(&site.admin(), 1).await.word(), "database_lost");
        has_fault(&site, 503, "database_lost").await;
        assert_eq!(site.nobody().get("/readyz").await.status, 503);
        std::fs::rename(&aside, &file).expect("put back");
        is_well(&site).await;
    }
    organization(&site.admin(), 1).await.done();
}

/// Moves the database and what belongs to it.
fn move_database(from: &Path, to: &Path) {
    for name in ["roster.db", "roster.db-wal", "roster.db-shm"] {
        match std::fs::rename(from.join(name), to.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{name}: {e}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn no_site_is_created_where_one_was() {
    let mut site = Site::start().await;
    let aside = tempfile::tempdir().expect("a directory");
    site.between_runs(|data| {
        move_database(data, aside.path());
        let said = refusal(data);
        assert!(said.contains("database_missing") && said.contains("roster.db is missing"), "{said}");
        assert!(said.contains("restore a backup") && said.contains("remove") && said.contains("roster.mark"), "{said}");
        for arguments in [&["member", "list"][..], &["init", "--admin", "kim", "--password-file", "password"]] {
            std::fs::write(data.join("password"), PASSWORD).expect("a password");
            let output = roster(arguments, data).current_dir(data).output().expect("roster");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains("database_missing"), "{arguments:?}: {said}");
        }
        // An empty file is not a database either.
        std::fs::write(data.join("roster.db"), "").expect("a file");
        assert!(refusal(data).contains("database_missing"));
        std::fs::remove_file(data.join("roster.db")).expect("gone");
        move_database(aside.path(), data);
    });
    assert_eq!(site.admin().get("/admin/members").await.data()["total"], 1);
}

#[tokio::test]
async fn a_database_that_was_set_back_is_refused_until_the_mark_is_removed() {
    let mut site = Site::start().await;
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    site.between_runs(|data| {
        std::fs::copy(data.join("roster.db"), old.path().join("roster.db")).expect("a copy");
    });
    organization(&site.admin(), 1).await.done();
    site.between_runs(|data| {
        move_database(data, new.path());
        std::fs::copy(old.path().join("roster.db"), data.join("roster.db")).expect("an older file");
        let said = refusal(data);
        assert!(said.contains("database_went_back") && said.contains("audit entry"), "{said}");
        std::fs::remove_file(data.join("roster.mark")).expect("a mark");
    });
    assert_eq!(site.admin().get("/admin/organizations?keyword=o1").await.data()["total"], 0);
    site.between_runs(|data| {
        std::fs::remove_file(data.join("roster.db")).expect("gone");
        move_database(new.path(), data);
    });
    assert_eq!(site.admin().get("/admin/organizations?keyword=o1").await.data()["total"], 1);
}

#[tokio::test]
async fn a_lost_write_ahead_log_is_detected_after_a_kill() {
    let mut site = Site::start().await;
    for n in 0..50 {
        organization(&site.admin(), n).await.done();
    }
    let mark = site.path().join("roster.mark");
    let marked = || -> Value { serde_json::from_slice(&std::fs::read(&mark).expect("a mark")).expect("JSON") };
    let entries = site.last_audit_entry().await["id"].as_i64().expect("an id");
    eventually("the mark", async || marked()["state"] == "writing" || marked()["audit_id"] == entries).await;
    site.kill();
    let (log, aside) = (site.path().join("roster.db-wal"), site.path().join("aside"));
    std::fs::rename(&log, &aside).expect("a log");
    let said = refusal(site.path());
    assert!(said.contains("database_log_lost") || said.contains("database_went_back"), "{said}");
    // The refused start changed nothing, and with the log in place everything works.
    std::fs::rename(&aside, &log).expect("put back");
    site.start_again();
    assert_eq!(site.admin().get("/admin/organizations?keyword=o&limit=200").await.data()["total"], 51);
}

#[tokio::test]
async fn a_write_ahead_log_checkpointed_by_another_program_is_accepted() {
    let mut site = Site::start().await;
    organization(&site.admin(), 1).await.done();
    site.kill();
    let other = rusqlite::Connection::open(site.path().join("roster.db")).expect("the file");
    other.query_row("select count(*) from organizations", [], |_| Ok(())).expect("a row");
    drop(other);
    assert!(!site.path().join("roster.db-wal").exists(), "SQLite removes the log when the last program is done");
    site.start_again();
    assert_eq!(site.admin().get("/admin/organizations?keyword=o1").await.data()["total"], 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_starts_on_a_full_disk_reads_and_recovers() {
    let mut site = Site::start().await;
    organization(&site.admin(), 0).await.done();
    for (n, is_killed) in [(1, false), (2, true)] {
        if is_killed {
            site.kill();
        } else {
            site.stop_for(|_| {});
        }
        // Another file may use its space now.
        drop(std::fs::remove_file(site.path().join("roster.db-shm")));
        site.start_again_without_space();
        has_fault(&site, 200, "database_full").await;
        assert!(site.nobody().get("/healthz").await.body["faults"].to_string().contains("the disk is full"));
        assert_eq!(site.admin().get("/admin/organizations?keyword=o0").await.data()["total"], 1);
        assert_eq!(organization(&site.admin(), n).await.word(), "database_full");
        assert_eq!(site.command(&["org", "list", "--keyword", "o0"])["total"], 1, "the socket is still found");
        site.unlimit_file_size();
        is_well(&site).await;
        organization(&site.admin(), n).await.done();
        site.logged("this fault is over");
        site.restart().await;
        assert_eq!(site.admin().get("/admin/organizations?keyword=o").await.data()["total"], n + 2);
    }
}

#[test]
fn the_write_that_tests_the_disk_reaches_the_write_ahead_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let connection = schema::open_writer(&file).expect("created");
    connection.execute_batch("pragma wal_checkpoint(truncate)").expect("an empty log");
    let log_bytes = || std::fs::metadata(file.with_extension("db-wal")).expect("a log").len();
    for is_touched in [false, true] {
        connection.execute_batch("begin immediate; savepoint job").expect("begun");
        if is_touched {
            mark::touch(&Writer::new(&connection)).expect("touched");
        }
        connection.execute_batch("release job; commit").expect("committed");
        assert_eq!(log_bytes() > 0, is_touched);
    }
    let version: i64 = connection.pragma_query_value(None, schema::VERSION, |row| row.get(0)).expect("a version");
    assert_eq!(version, schema::version());
}

/// Which page is damaged.
enum Page {
    /// The root page of a table or an index.
    Of(&'static str),
    /// The page with this text.
    With(&'static str),
}

/// Overwrites a page and returns the whole file as it was.
fn damage(data: &Path, page: &Page) -> Vec<u8> {
    const BYTES: usize = 4_096;
    let path = data.join("roster.db");
    let number = match page {
        Page::Of(object) => {
            let find = "select rootpage - 1 from (select 'sqlite_schema' as name, 1 as rootpage union all
                        select name, rootpage from sqlite_schema) where name = ?";
            let number: i64 = open_rows(data).query_row(find, [object], |row| row.get(0)).expect("the object");
            usize::try_from(number).expect("a page")
        }
        Page::With(text) => {
            let bytes = std::fs::read(&path).expect("the file");
            bytes.windows(text.len()).position(|found| found == text.as_bytes()).expect("the text") / BYTES
        }
    };
    let before = std::fs::read(&path).expect("the file");
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    // The first page begins with the file header, which is kept.
    file.write_all_at(&[0xa5; BYTES - 100], (number * BYTES + 100) as u64).expect("damage");
    if number > 0 {
        file.write_all_at(&[0xa5; 100], (number * BYTES) as u64).expect("damage");
    }
    before
}

#[tokio::test]
async fn a_damaged_page_is_reported_at_start_or_by_the_request_that_reads_it() {
    let mut site = Site::start().await;
    let file: PathBuf = site.path().join("roster.db");
    for n in 0..60 {
        organization(&site.admin().with("x-request-id", &format!("request-{n}-of-many")), n).await.done();
    }
    let cases = [
        (Page::With("request-9-of-many"), Some("/admin/audit/verify")),
        (Page::Of("members_email_folded"), Some("/auth/login")),
        // Pages of the policy and of indexes that every lookup uses.
        (Page::Of("roles"), None),
        (Page::Of("sqlite_schema"), None),
    ];
    for (page, meets) in cases {
        let mut whole = Vec::new();
        site.stop_for(|data| whole = damage(data, &page));
        if let Some(meets) = meets {
            site.start_again();
            has_fault(&site, 503, "database_damaged").await;
            site.logged(&format!("{} is damaged: stop Roster and restore a backup", file.display()));
            let reply = match meets {
                "/auth/login" => site.nobody().post(meets, json!({"login": ADMIN, "password": PASSWORD})).await,
                _ => site.admin().get(meets).await,
            };
            assert_eq!((reply.status, reply.word()), (500, "database_damaged"), "{meets}");
            assert!(reply.body["message"].as_str().expect("text").contains("restore a backup"), "{meets}");
            site.stop_for(|_| {});
        } else {
            let said = refusal(site.path());
            assert!(said.contains("roster.db is damaged: stop Roster and restore a backup"), "{said}");
        }
        for side in ["roster.db-wal", "roster.db-shm"] {
            drop(std::fs::remove_file(site.path().join(side)));
        }
        std::fs::File::create(&file).and_then(|mut file| file.write_all(&whole)).expect("the whole file");
        drop(std::fs::remove_file(site.path().join("roster.mark")));
        site.start_again();
        is_well(&site).await;
    }
}

// ── one server per directory ──

#[tokio::test]
async fn a_lock_file_that_is_removed_lets_no_second_server_in() {
    let mut site = Site::start().await;
    std::fs::remove_file(site.path().join("roster.lock")).expect("a lock");
    let output = roster(&["serve", "--listen", "127.0.0.1:0"], site.path()).output().expect("roster serve");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("another Roster serves"), "{said}");
    assert!(!site.path().join("roster.lock").exists(), "a server without the directory creates nothing in it");
    assert_eq!(faults(&site).await, (200, vec!["lock_lost".to_owned()]));
    assert_eq!(site.command(&["member", "list"])["total"], 1);
    site.restart().await;
    is_well(&site).await;
}

#[test]
fn the_short_folder_of_a_socket_is_used_again_and_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("x".repeat(120));
    let start = || {
        let mut command = roster(&["serve", "--listen", "127.0.0.1:0", "--json"], &data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("roster serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        (child, PathBuf::from(std::fs::read_to_string(data.join("roster.lock")).expect("a path")))
    };
    let (mut child, first) = start();
    child.kill().expect("killed");
    child.wait().expect("status");
    assert!(first.starts_with("/tmp") && first.exists());
    let (mut child, second) = start();
    assert_eq!(second, first);
    terminate(&mut child);
    assert!(!first.parent().expect("a folder").exists());
}
