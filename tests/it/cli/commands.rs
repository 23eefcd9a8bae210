//! The command line: the real binary in fresh directories.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::rows::open_rows;
use crate::harness::site::{PASSWORD, Site, binary};

pub fn roster(arguments: &[&str], data: &Path, input: &str) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("roster");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("input");
    child.wait_with_output().expect("output")
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The response to a client with these credentials that lists members.
async fn status(site: &Site, made: &Value) -> u16 {
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let caller = site.nobody().with("x-client-key", &text("client_key")).with("x-api-key", &text("api_key"));
    caller.get("/admin/members").await.status
}

fn init(data: &Path) -> Output {
    roster(&["init", "--admin", "kim", "--password-stdin", "--json"], data, PASSWORD)
}

#[test]
fn init_creates_a_private_directory_and_a_first_administrator() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("site");
    let uid = answer(&init(&data))["uid"].as_str().expect("uid").to_owned();
    let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for entry in std::fs::read_dir(&data).expect("folder") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let settings = std::fs::read_to_string(data.join("roster.toml")).expect("settings");
    assert!(settings.lines().all(|line| line.is_empty() || line.starts_with('#')));
    let held: String = open_rows(&data)
        .query_row("select r.key from role_assignments a join roles r on r.id = a.role_id", [], |row| row.get(0))
        .expect("a role");
    assert_eq!((held.as_str(), uid.len()), ("platform_admin", 36));
}

#[test]
fn init_refuses_a_directory_that_holds_a_site() {
    let directory = tempfile::tempdir().expect("a directory");
    answer(&init(directory.path()));
    assert!(complaint(&init(directory.path())).contains("already"));
}

#[test]
fn init_with_a_weak_password_reports_every_fault_and_creates_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("site");
    let said = complaint(&roster(&["init", "--admin", "kim", "--password-stdin"], &data, "weak\n"));
    assert_eq!(said.matches("\n  password: must").count(), 3, "{said}");
    assert!(!data.exists());
}

#[tokio::test]
async fn a_client_is_created_with_the_server_running_or_stopped() {
    let mut site = Site::start().await;
    let make = ["client", "create", "portal", "--scopes", "members:read,members:write"];
    let online = site.command(&make);
    assert_eq!(online["scopes"], json!(["members:read", "members:write"]));
    assert_eq!(status(&site, &online).await, 200);
    let offline = site.command_while_stopped(&make);
    assert_eq!(status(&site, &offline).await, 200);
    site.restart().await;
    assert_eq!(status(&site, &online).await, 200);
}

#[tokio::test]
async fn the_scope_star_is_accepted_and_printed() {
    let site = Site::start().await;
    let made = site.command(&["client", "create", "all", "--scopes", "*"]);
    assert_eq!(made["scopes"], json!(["*"]));
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let site = Site::start().await;
    let said = complaint(&roster(&["serve", "--listen", "127.0.0.1:0"], site.path(), ""));
    assert!(said.contains("another Roster serves"), "{said}");
    assert_eq!(site.nobody().get("/healthz").await.status, 200);
}

#[tokio::test]
async fn members_and_organizations_by_command() {
    let site = Site::start().await;
    let acme = site.command(&["org", "create", "acme", "Acme Studios"]);
    let kim = site.command(&["member", "create", "--username", "kim", "--email", "kim@example.org"]);
    let uid = kim["uid"].as_str().expect("uid");
    site.command(&["member", "link", uid, "acme", "--role", "viewer"]);
    site.command(&["member", "deactivate", uid]);
    assert_eq!(site.command(&["member", "show", uid])["status"], "suspended");
    assert_eq!(site.command(&["org", "show", "acme"]), acme);
    assert_eq!(site.command(&["member", "list", "--keyword", "KIM@"])["total"], 1);
}

#[tokio::test]
async fn a_catalog_is_compared_imported_and_exported_by_command() {
    let site = Site::start().await;
    let file = site.path().join("catalog.yaml");
    std::fs::write(&file, "permissions:\n  - name: video\n  - name: video.list\n    parent: video\n    http_methods: GET\n    http_path: /videos\n").expect("file");
    let name = file.display().to_string();
    let difference = roster(&["catalog", "diff", &name, "--json"], site.path(), "");
    assert_eq!(difference.status.code(), Some(1));
    assert_eq!(site.command(&["catalog", "import", &name])["added"], json!(["video", "video.list"]));
    assert_eq!(site.command(&["catalog", "diff", &name])["added"], json!([]));
    let exported = site.command(&["catalog", "export"]);
    std::fs::write(site.path().join("again.json"), exported.to_string()).expect("file");
    let again = site.command(&["catalog", "import", &site.path().join("again.json").display().to_string()]);
    assert_eq!(again, json!({"added": [], "changed": [], "orphaned": []}));
}

#[test]
fn config_check_reports_every_fault_and_config_show_hides_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("roster.toml"), "colour = 1\nlisten = \"here\"\n").expect("settings");
    let said = complaint(&roster(&["config", "check"], directory.path(), ""));
    assert!(said.contains("colour is not a setting") && said.contains("listen must be like"), "{said}");
    std::fs::write(directory.path().join("roster.toml"), "auth.access_token_ttl_s = 60\n").expect("settings");
    let output = Command::new(binary())
        .args(["config", "show", "--data"])
        .arg(directory.path())
        .env("ROSTER_INTERNAL_SECRET", "a-secret-that-must-not-show")
        .env("ROSTER_LOG_LEVEL", "warn")
        .output()
        .expect("roster");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(shown.contains("auth.access_token_ttl_s = 60\n") && shown.contains("log.level = \"warn\"\n"), "{shown}");
    assert!(!shown.contains("must-not-show"));
}

#[test]
fn serve_on_an_empty_directory_prints_where_it_listens_and_a_set_up_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(directory.path().join("new"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("roster");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines().map(|line| line.expect("line"));
    let first = lines.next().expect("a line");
    let url = first.rsplit(' ').next().expect("an address").to_owned();
    let link = lines.find(|line| line.contains("/setup?token=")).expect("a link");
    assert!(url.starts_with("http://127.0.0.1:") && link.trim().starts_with(&url), "{first} {link}");
    Command::new("kill").arg(child.id().to_string()).status().expect("kill");
    assert!(child.wait().expect("status").success());
}

#[test]
fn a_command_without_a_site_prints_the_next_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let said = complaint(&roster(&["member", "list"], directory.path(), ""));
    assert!(said.contains("roster init"), "{said}");
}

#[test]
fn a_directory_with_a_long_name_gets_a_short_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("x".repeat(120));
    answer(&init(&data));
    let mut child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("roster");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    let members = answer(&roster(&["member", "list", "--json"], &data, ""));
    assert_eq!(members["total"], 1);
    Command::new("kill").arg(child.id().to_string()).status().expect("kill");
    assert!(child.wait().expect("status").success());
}
