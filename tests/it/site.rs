//! The harness: the real binary on a real socket with a real file, and one site per test.
//!
//! A site is a copy of a data directory that `roster init` created once. Set-up goes through the API. When a site is
//! dropped, it is stopped with SIGTERM and checked: no panic was counted, the database is sound, the audit chain is
//! valid, and every policy epoch has an audit row.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

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

/// A client with a TLS provider, which reqwest requires although the tests use no TLS.
pub fn http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
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
        self.url = format!("http://{}", ready["listening"].as_str().expect("listening"));
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

    /// Resident memory of the server.
    pub fn resident_kib(&self) -> u64 {
        let pid = self.child.as_ref().expect("a server").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The metrics, read from the local socket.
    pub fn metrics(&self) -> String {
        get_locally(self.path(), "/metrics")
    }

    /// The value of one metric.
    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.metrics(), name)
    }

    /// The peak resident memory of the server, in kB.
    pub fn peak_memory_kb(&self) -> u64 {
        let pid = self.child.as_ref().expect("a server").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// A read-only connection to the database beside the server.
    pub fn rows(&self) -> rusqlite::Connection {
        open_rows(self.directory.path())
    }

    /// Changes rows beside the running server, where no operation makes such rows.
    pub fn write_rows<T>(&self, change: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> T {
        let rows = rusqlite::Connection::open(self.path().join("roster.db")).expect("the file");
        rows.busy_timeout(Duration::from_secs(10)).expect("patience");
        rows.execute_batch("pragma foreign_keys = on; begin immediate").expect("a transaction");
        let answer = change(&rows).expect("a change");
        rows.execute_batch("commit").expect("a commit");
        answer
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

    pub async fn token(&self, login: &str, password: &str) -> String {
        let reply = self.nobody().post("/auth/login", json!({"login": login, "password": password})).await;
        reply.data()["access_token"].as_str().expect("a token").to_owned()
    }

    // ── callers ──

    pub fn nobody(&self) -> As<'_> {
        As { site: self, headers: Vec::new() }
    }

    /// The platform administrator.
    pub fn admin(&self) -> As<'_> {
        self.bearer(&self.admin_token)
    }

    pub fn bearer(&self, token: &str) -> As<'_> {
        self.nobody().with("authorization", &format!("Bearer {token}"))
    }

    /// A service of this site, with the internal secret.
    pub fn internal(&self) -> As<'_> {
        self.nobody().with("x-internal-secret", INTERNAL_SECRET)
    }

    /// A new API client with these scopes.
    pub async fn client(&self, scopes: &[&str]) -> As<'_> {
        self.client_of(json!({"name": "test", "scopes": scopes})).await
    }

    /// A new API client created with this body.
    pub async fn client_of(&self, body: Value) -> As<'_> {
        let made = self.admin().post("/admin/api-clients", body).await.data();
        let text = |name: &str| made[name].as_str().expect("text").to_owned();
        self.nobody().with("x-client-key", &text("client_key")).with("x-api-key", &text("api_key"))
    }

    // ── set-up ──

    /// Creates an organization with an owner.
    pub async fn organization(&self, org_code: &str) -> Organization<'_> {
        let made =
            self.admin().post("/admin/organizations", json!({"org_code": org_code, "name": org_code})).await.data();
        let id = made["id"].as_str().expect("id").to_owned();
        let mut organization = Organization { site: self, id, owner_token: String::new() };
        organization.owner_token = organization.member_with_role("tenant_owner").await.token;
        organization
    }

    /// Creates a member without a membership, who can sign in.
    pub async fn member(&self) -> Member<'_> {
        let username = format!("u{}", uuid::Uuid::now_v7().simple());
        let body = json!({"username": username, "password": PASSWORD});
        let made = self.admin().post("/admin/members", body).await.data();
        let uid = made["uid"].as_str().expect("uid").to_owned();
        let token = self.token(&username, PASSWORD).await;
        Member { site: self, uid, username, token }
    }

    /// Imports a catalog in our own form and returns the differences.
    pub async fn import(&self, permissions: Value) -> Value {
        self.admin().put("/api/v1/permissions/catalog", json!({"permissions": permissions})).await.data()
    }

    pub async fn last_audit_entry(&self) -> Value {
        self.admin().get("/admin/audit?limit=1").await.data()["items"][0].clone()
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

/// A caller that makes requests.
#[derive(Clone)]
pub struct As<'s> {
    pub site: &'s Site,
    headers: Vec<(String, String)>,
}

impl As<'_> {
    /// The same caller with one more header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        match body {
            Some(body) => self.send_raw(method, path, "application/json", body.to_string().into_bytes()).await,
            None => self.reply(self.request(method, path)).await,
        }
    }

    /// Sends a body that need not be JSON.
    pub async fn send_raw(&self, method: Method, path: &str, content_type: &str, body: Vec<u8>) -> Reply {
        self.reply(self.request(method, path).header("content-type", content_type).body(body)).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.site.http.request(method, format!("{}{path}", self.site.url));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
    }

    async fn reply(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("text");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let reply = Reply { status, headers, body };
        reply.require_sound();
        reply
    }
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Reply {
    /// Asserts what holds for every response: a request id, and for failures an envelope whose category matches the
    /// status.
    fn require_sound(&self) {
        assert!(self.header("x-request-id").is_some(), "{self:?}");
        if self.status < 400
            || !self.header("content-type").is_some_and(|kind| kind.starts_with("application/json"))
            || self.body.get("status").is_some()
        {
            return;
        }
        let code = self.body["code"].as_u64().unwrap_or_else(|| panic!("no code: {self:?}"));
        let fits: &[u16] = match code / 1_000 % 1_000 {
            101 => &[400],
            105 => &[405],
            109 => &[408],
            113 => &[413],
            115 => &[415],
            301 => &[404],
            303 | 309 | 312 => &[409],
            310 => &[412],
            501 => &[401],
            505 | 506 => &[403],
            602 => &[502],
            604 => &[429],
            605 => &[501],
            606 => &[503],
            201 | 601 => &[500],
            _ => &[],
        };
        assert!(fits.contains(&self.status), "{self:?}");
        assert_eq!(self.body["error"]["biz_code"], code.to_string());
        assert_eq!(self.body["request_id"].as_str(), self.header("x-request-id"));
        assert!(self.body["message"].is_string() && self.body["detail"].is_string(), "{self:?}");
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The `data` of a success.
    pub fn data(&self) -> Value {
        assert_eq!((self.status, &self.body["code"]), (200, &json!(102_000)), "{self:?}");
        self.body["data"].clone()
    }

    /// Asserts a success.
    pub fn done(&self) {
        self.data();
    }

    /// Asserts a failure with this code.
    pub fn is(&self, code: u64) -> &Self {
        assert_eq!(self.body["code"], json!(code), "{self:?}");
        self
    }

    /// The stable error code of a failure, as text.
    pub fn word(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_else(|| panic!("no word: {self:?}"))
    }

    /// Names of the bad fields, as `place.name`, sorted.
    pub fn fields(&self) -> Vec<String> {
        let location = |field: &Value| {
            let parts = field["location"].as_array().expect("location").iter();
            parts.map(|part| part.as_str().expect("part").to_owned()).collect::<Vec<_>>().join(".")
        };
        let mut fields: Vec<String> = self.body["fields"].as_array().expect("fields").iter().map(location).collect();
        fields.sort();
        fields
    }

    pub fn epoch(&self) -> u64 {
        self.header("x-policy-epoch").expect("an epoch").parse().expect("a number")
    }
}

/// An organization of a test.
pub struct Organization<'s> {
    pub site: &'s Site,
    pub id: String,
    pub owner_token: String,
}

impl<'s> Organization<'s> {
    /// Its first owner as a caller.
    pub fn owner(&self) -> As<'s> {
        self.site.bearer(&self.owner_token)
    }

    /// Creates a member of it without a role.
    pub async fn member(&self) -> Member<'s> {
        let member = self.site.member().await;
        self.link(&member.uid).await;
        member
    }

    pub async fn link(&self, uid: &str) {
        self.site.admin().post(&format!("/admin/members/{uid}/organizations/{}", self.id), json!({})).await.done();
    }

    /// Creates a member of it with one of its roles.
    pub async fn member_with_role(&self, role_key: &str) -> Member<'s> {
        let member = self.member().await;
        self.assign(&member.uid, &self.role_id(role_key).await).await;
        member
    }

    /// Creates a member of it with exactly these permissions, by a role of its own.
    pub async fn member_with(&self, permissions: &[&str]) -> Member<'s> {
        let member = self.member().await;
        let role = self.role(&format!("r{}", &uuid::Uuid::now_v7().simple().to_string()[20..]), permissions).await;
        self.assign(&member.uid, &role).await;
        member
    }

    /// Creates a role with these permissions and returns its id.
    pub async fn role(&self, key: &str, permissions: &[&str]) -> String {
        let admin = self.admin();
        let role = admin.post("/api/v1/permissions/roles", json!({"key": key})).await.data();
        let id = role["id"].as_str().expect("id").to_owned();
        admin
            .put(&format!("/api/v1/permissions/roles/{id}/permissions"), json!({"permission_ids": permissions}))
            .await
            .done();
        id
    }

    pub async fn role_id(&self, key: &str) -> String {
        let roles = self.admin().get("/api/v1/permissions/roles").await.data();
        let role =
            roles["roles"].as_array().expect("roles").iter().find(|role| role["key"] == key).expect("the role").clone();
        role["id"].as_str().expect("id").to_owned()
    }

    pub async fn assign(&self, uid: &str, role_id: &str) {
        self.admin().post(&format!("/api/v1/permissions/users/{uid}/roles"), json!({"role_id": role_id})).await.done();
    }

    /// The platform administrator, acting in this organization.
    pub fn admin(&self) -> As<'s> {
        self.site.admin().with("x-tenant-id", &self.id)
    }

    /// Checks in this organization as the platform administrator.
    pub async fn check(&self, question: Value) -> Value {
        self.admin().post("/api/v1/permissions/check", question).await.data()
    }
}

/// A member of a test, signed in.
pub struct Member<'s> {
    pub site: &'s Site,
    pub uid: String,
    pub username: String,
    pub token: String,
}

impl<'s> Member<'s> {
    pub fn caller(&self) -> As<'s> {
        self.site.bearer(&self.token)
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

pub fn open_rows(data: &Path) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    rusqlite::Connection::open_with_flags(data.join("roster.db"), flags).expect("the file")
}

fn counts(data: &Path) -> Counts {
    let rows = open_rows(data);
    let one = |sql: &str| rows.query_row(sql, [], |row| row.get(0)).expect("a number");
    Counts { epoch: one("select epoch from site"), done: one("select count(*) from audit where outcome = 'done'") }
}

/// The value of a metric.
pub fn metric(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}: {metrics}"))
}

/// A response from the server's local socket, read without an async runtime because it is needed in `drop`.
pub fn get_locally(data: &Path, path: &str) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(data.join("roster.sock")).expect("the local socket");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: local\r\nconnection: close\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}
