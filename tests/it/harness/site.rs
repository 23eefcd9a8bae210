//! The harness: the real binary on a real socket with a real file, and one site per test.
//!
//! A site is a copy of a data directory that `roster init` created once. Set-up goes through the API. When a site is
//! dropped, it is stopped with SIGTERM and checked: no panic was counted, the database is sound, the audit chain is
//! valid, and every policy epoch has an audit row.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::rows::open_rows;

pub const ADMIN: &str = "admin@example.org";
pub const PASSWORD: &str = "Correct-horse-7";
pub const INTERNAL_SECRET: &str = "an-internal-secret-for-tests";

/// Cheap password hashes. All other settings have their defaults.
const SETTINGS: &str = "[password]\nmemory_kib = 64\niterations = 1\n";

/// The number of rounds of a test: few in every run, many in `tests/run --full`.
pub fn rounds(short: u32, full: u32) -> u32 {
    if std::env::var("TEST_TIER").is_ok_and(|tier| tier == "full") { full } else { short }
}
const QUEUED_WITHOUT_A_QUEUE: &str = "
    select group_concat(hex(j.id) || ' of ' || hex(coalesce(j.member_id, '')), ', ')
    from jobs j
    where state = 'queued'
      and not exists (select 1 from job_queues q
                      where q.member_id = coalesce(j.member_id, x'') and q.organization_id = coalesce(j.organization_id, x'')
                        and q.ready = j.ready and q.since <= j.run_at)";

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_roster"))
}

/// A client that accepts every certificate: what a server presents is tested with a client of its own.
pub fn http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true)
}

/// A running site.
pub struct Site {
    directory: TempDir,
    listen: String,
    child: Option<Child>,
    pub url: String,
    pub http: reqwest::Client,
    /// The platform administrator's access token.
    pub admin_token: String,
    began: Counts,
    /// Shell commands that run before the shell executes the server.
    before: String,
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    epoch: i64,
    done: i64,
}

impl Site {
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// Starts a site with more lines of `roster.toml`.
    pub async fn with(settings: &str) -> Self {
        Self::begin("127.0.0.1:0", settings, "").await
    }

    /// Also sets limits of the operating system with the shell's `ulimit`.
    pub async fn with_limits(settings: &str, ulimit: &str) -> Self {
        Self::begin("127.0.0.1:0", settings, ulimit).await
    }

    /// Starts a site that listens on another address than loopback.
    pub async fn at(listen: &str, settings: &str) -> Self {
        Self::begin(listen, settings, "").await
    }

    async fn begin(listen: &str, settings: &str, ulimit: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for file in std::fs::read_dir(template()).expect("template") {
            let file = file.expect("file");
            std::fs::copy(file.path(), directory.path().join(file.file_name())).expect("copy");
        }
        std::fs::write(directory.path().join("roster.toml"), format!("{settings}\n{SETTINGS}")).expect("settings");
        let began = counts(directory.path());
        let http = http_client().build().expect("client");
        // A write past the file size limit must fail and not kill the server; the server inherits the ignored signal
        // from the shell.
        let before = if ulimit.is_empty() { String::new() } else { format!("ulimit {ulimit}; ") };
        let before = format!("trap '' XFSZ; {before}");
        let (listen, url, admin_token) = (listen.to_owned(), String::new(), String::new());
        let mut site = Self { directory, listen, child: None, url, http, admin_token, began, before };
        site.launch();
        site.admin_token = site.token(ADMIN, PASSWORD).await;
        site
    }

    /// Stops the server with SIGTERM and starts it again on the same directory.
    pub async fn restart(&mut self) {
        self.stop("TERM");
        self.launch();
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.stop("KILL");
    }

    pub fn start_again(&mut self) {
        self.launch();
    }

    /// Starts the server with a file size limit of 0, which acts like a full disk.
    pub fn start_again_without_space(&mut self) {
        self.launch_after("ulimit -S -f 0");
    }

    /// Sends a signal that does not end the server.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("a server").id().to_string();
        assert!(Command::new("kill").args([format!("-{signal}"), pid]).status().expect("kill").success());
    }

    /// Waits until the log contains this text.
    pub fn logged(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "never logged: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a command while no server runs, and starts the server again.
    pub fn command_while_stopped(&mut self, arguments: &[&str]) -> Value {
        self.stop("TERM");
        let answer = self.command(arguments);
        self.launch();
        answer
    }

    /// Changes rows while the server is stopped, for example to simulate the passing of time.
    pub fn while_stopped(&mut self, statement: &str, parameters: impl rusqlite::Params) {
        self.stop("TERM");
        let rows = rusqlite::Connection::open(self.path().join("roster.db")).expect("the file");
        assert_ne!(rows.execute(statement, parameters).expect("a change"), 0, "{statement}");
        drop(rows);
        self.launch();
    }

    /// Changes the data directory while the server is stopped, and starts it again.
    pub fn between_runs(&mut self, work: impl FnOnce(&Path)) {
        self.stop("TERM");
        work(self.directory.path());
        self.launch();
    }

    /// Stops the server and changes the data directory; [`Self::start_again`] starts it.
    pub fn stop_for(&mut self, work: impl FnOnce(&Path)) {
        self.stop("TERM");
        work(self.directory.path());
    }

    /// From now on the server can extend no file beyond the size of its longest one plus this many bytes, which acts
    /// like a full disk.
    pub fn limit_file_size(&self, more: u64) {
        let files = std::fs::read_dir(self.path()).expect("folder");
        let longest = files.map(|file| file.expect("file").metadata().expect("metadata").len()).max().expect("a file");
        self.set_file_size_limit(&(longest + more).to_string());
    }

    /// From now on every write of the server to a file fails.
    pub fn refuse_writes(&self) {
        self.set_file_size_limit("0");
    }

    pub fn unlimit_file_size(&self) {
        self.set_file_size_limit("unlimited");
    }

    fn set_file_size_limit(&self, bytes: &str) {
        assert!(self.set_limit(&format!("--fsize={bytes}:unlimited")));
    }

    fn launch(&mut self) {
        self.launch_after(":");
    }

    fn launch_after(&mut self, command: &str) {
        let mut child = Command::new("sh")
            .args(["-c", &format!("{}{command}; exec \"$0\" \"$@\"", self.before)])
            .arg(binary())
            .args(["serve", "--listen", &self.listen, "--json", "--data"])
            .arg(self.directory.path())
            .env("ROSTER_INTERNAL_SECRET", INTERNAL_SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(self.directory.path().join("log"))
                    .expect("log"),
            )
            .spawn()
            .expect("roster serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}: {}", self.log()));
        let settings = std::fs::read_to_string(self.path().join("roster.toml")).unwrap_or_default();
        let scheme = if settings.lines().any(|line| line.starts_with("tls.mode")) { "https" } else { "http" };
        self.url = format!("{scheme}://{}", ready["listening"].as_str().expect("listening"));
        self.child = Some(child);
    }

    fn stop(&mut self, signal: &str) {
        if let Some(status) = self.end(signal) {
            assert!(signal == "KILL" || status.success(), "{status}: {}", self.log());
        }
    }

    /// Sends the server a signal and waits until it exits.
    pub fn end(&mut self, signal: &str) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let kill = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().expect("kill");
        assert!(kill.success());
        Some(child.wait().expect("status"))
    }

    /// The process id of the server.
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("a server").id()
    }

    /// Sets a limit of the running server in the syntax of `prlimit`. Returns false if this user may not.
    pub fn set_limit(&self, limit: &str) -> bool {
        let status = Command::new("prlimit").args(["--pid", &self.process().to_string(), limit]).status();
        status.expect("prlimit (util-linux)").success()
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs a command of the binary on this data directory and returns its JSON output.
    pub fn command(&self, arguments: &[&str]) -> Value {
        let output = Command::new(binary())
            .args(arguments)
            .args(["--json", "--data"])
            .arg(self.path())
            .output()
            .expect("roster");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the site's log:\n{}", self.log());
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            return;
        }
        let metrics = self.metrics();
        for counter in ["roster_panics_total", "roster_writer_panics"] {
            assert!(metrics.contains(&format!("\n{counter} 0\n")), "{counter} is not 0: {}", self.log());
        }
        self.stop("TERM");
        let rows = self.rows();
        let sound: String = rows.query_row("pragma integrity_check", [], |row| row.get(0)).expect("check");
        assert_eq!(sound, "ok");
        let orphans: i64 =
            rows.query_row("select count(*) from pragma_foreign_key_check", [], |row| row.get(0)).expect("check");
        assert_eq!(orphans, 0);
        let lost: Option<String> = rows.query_row(QUEUED_WITHOUT_A_QUEUE, [], |row| row.get(0)).expect("check");
        assert_eq!(lost, None, "queued jobs that no claim finds");
        let ended = counts(self.path());
        assert!(
            ended.epoch - self.began.epoch <= ended.done - self.began.done,
            "a policy change without an audit row: {ended:?} {:?}",
            self.began
        );
        assert_eq!(self.command(&["audit", "verify"])["ok"], true);
    }
}

/// A data directory that `roster init` creates once per run.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = TEMPLATE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("site");
        std::fs::create_dir(&path).expect("a folder");
        std::fs::write(path.join("roster.toml"), SETTINGS).expect("settings");
        let mut child = Command::new(binary())
            .args(["init", "--admin", ADMIN, "--password-stdin", "--json", "--data"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("roster init");
        writeln!(child.stdin.take().expect("stdin"), "{PASSWORD}").expect("write");
        assert!(child.wait().expect("status").success());
        (directory, path)
    });
    path
}

fn counts(data: &Path) -> Counts {
    let rows = open_rows(data);
    let one = |sql: &str| rows.query_row(sql, [], |row| row.get(0)).expect("a number");
    Counts { epoch: one("select epoch from site"), done: one("select count(*) from audit where outcome = 'done'") }
}
