//! A site of 10,000 members on the release binary: created through the API, then restarted and measured.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::driver;
use crate::metrics::{Figures, progress};
use crate::process::Process;

pub const CHECK: &str = "/api/v1/permissions/check";
pub const MY_PERMISSIONS: &str = "/api/v1/permissions/me";
pub const ME: &str = "/me";
const REFRESH: &str = "/api/v1/auth/refresh";
const GRANT: &str = "/admin/permissions/grant";
const REGISTER: &str = "/api/v1/register";
/// The paths of the measured operations; the bare server answers under the same ones.
pub const PATHS: [&str; 4] = [CHECK, MY_PERMISSIONS, ME, GRANT];

const MEMBERS: usize = 10_000;
const ADMIN: &str = "admin@example.org";
const PASSWORD: &str = "Correct-horse-7";
/// Cheap password hashes for a quick set-up, and no quarantine for guests that do not end. All other settings have
/// their defaults.
const SETTINGS: &str = "[password]\nmemory_kib = 64\niterations = 1\n[plugins]\nfailures = 10000\n";
/// The media root. It holds no files, so the sizes in the requests are used.
const MEDIA: &str = "media";
const STARTS: usize = 5;
/// After this time a fresh server has finished its background work.
const SETTLING: Duration = Duration::from_secs(3);

/// The data directory and the credentials that are known in it.
pub struct Site {
    directory: PathBuf,
    /// Header lines of an API client with every scope.
    pub client: String,
    /// The same, in the one organization.
    pub client_in_tenant: String,
    /// Header line of a service that registers videos.
    service: String,
    /// Header line of a member of the organization.
    pub bearer: String,
    pub uids: Vec<String>,
}

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_roster"))
}

/// A caller that makes single requests while the site is set up.
pub struct Setup {
    address: SocketAddr,
    admin: String,
    tenant: String,
}

impl Site {
    pub fn make(directory: &Path) -> Self {
        progress("a site of 10 000 members");
        init(directory);
        let server = launch(directory);
        let address = server.address;
        let mut setup = Setup { address, admin: String::new(), tenant: String::new() };
        setup.admin = setup.signed_in(ADMIN);
        let client = setup.client();
        let service = json!({"service_name": "uploads", "scopes": ["videos:write"]});
        let service = setup.send("POST", "/admin/api-keys", &service);
        let service = format!("x-api-key: {}\r\n", text(&service["api_key"]));
        let made = setup.send("POST", "/admin/organizations", &json!({"org_code": "acme", "name": "Acme"}));
        setup.tenant = format!("x-tenant-id: {}\r\n", text(&made["id"]));
        let role = setup.role();
        let client_in_tenant = format!("{client}{}", setup.tenant);
        let uids = members(address, &client_in_tenant);
        setup.assign(&uids, &role);
        let bearer = setup.signed_in("u0");
        server.stop();
        // The organization's client created the members. Registrations need folders, so this marks their usernames as
        // given by the site.
        let rows = rusqlite::Connection::open(directory.join("roster.db")).expect("the file");
        rows.execute("update members set username_by_site = 1", []).expect("an update");
        drop(rows);
        Self { directory: directory.to_owned(), client, client_in_tenant, service, bearer, uids }
    }

    /// The uid of one of the members.
    pub fn uid(&self, n: u64) -> &str {
        &self.uids[usize::try_from(n * 7_919 % MEMBERS as u64).unwrap_or_default()]
    }

    pub fn launch(&self) -> Process {
        launch(&self.directory)
    }

    /// Copies the data directory of the stopped site.
    pub fn copy_to(&self, other: &Path) {
        std::fs::create_dir(other).expect("a folder");
        for entry in std::fs::read_dir(&self.directory).expect("the site") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_file() {
                std::fs::copy(entry.path(), other.join(entry.file_name())).expect("copied");
            }
        }
    }

    /// Launches the server with a limit on open files.
    pub fn launch_with_files(&self, files: u32) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(binary());
        served(command, &self.directory)
    }

    /// A caller for more set-up on the running server.
    pub fn setup(&self, address: SocketAddr) -> Setup {
        let mut setup = Setup { address, admin: String::new(), tenant: String::new() };
        setup.admin = setup.signed_in(ADMIN);
        setup.tenant = "x-tenant-id: acme\r\n".into();
        setup
    }

    /// Starts the finished site several times.
    pub fn start(&self, figures: &mut Figures) {
        progress("starting it");
        let mut best = Duration::MAX;
        for _ in 1..STARTS {
            let server = launch(&self.directory);
            best = best.min(server.started_in);
            server.stop();
        }
        let server = self.launch_settled();
        figures.add("start_ms", best.min(server.started_in).as_secs_f64() * 1e3);
        figures.add("idle_mb", server.resident_mb());
        server.stop();
        let size = std::fs::metadata(binary()).expect("the binary").len();
        figures.add("binary_mb", size as f64 / 1e6);
    }

    /// Starts it and waits until its background work is over.
    pub fn launch_settled(&self) -> Process {
        let server = launch(&self.directory);
        std::thread::sleep(SETTLING);
        server
    }

    /// The number of grants and of their audit rows in the file.
    pub fn granted(&self) -> (u64, u64) {
        let audited = "select count(*) from audit where action = 'grant.create' and outcome = 'done'";
        (self.count("select count(*) from grants"), self.count(audited))
    }

    /// The number of videos, of their jobs, and of bytes in their owners' usage.
    pub fn registered(&self) -> [u64; 3] {
        ["select count(*) from videos", "select count(*) from jobs", "select sum(used) from quotas"]
            .map(|sql| self.count(sql))
    }

    fn count(&self, sql: &str) -> u64 {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let rows = rusqlite::Connection::open_with_flags(self.directory.join("roster.db"), flags).expect("the file");
        rows.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number").cast_unsigned()
    }
}

fn init(directory: &Path) {
    let mut child = Command::new(binary())
        .args(["init", "--admin", ADMIN, "--password-stdin", "--json", "--data"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("roster init");
    writeln!(child.stdin.take().expect("stdin"), "{PASSWORD}").expect("write");
    assert!(child.wait().expect("status").success());
    let media = directory.join(MEDIA);
    std::fs::create_dir(&media).expect("a folder");
    let settings = format!("media_root = {:?}\n{SETTINGS}", media.display().to_string());
    std::fs::write(directory.join("roster.toml"), settings).expect("settings");
}

/// Signs the first administrator in and returns the header line.
pub fn administrator(server: &Process) -> String {
    let setup = Setup { address: server.address, admin: String::new(), tenant: String::new() };
    setup.signed_in(ADMIN)
}

/// Creates a site with an API client that has every scope. Returns the client's header lines.
pub fn founded(directory: &Path) -> String {
    init(directory);
    let server = launch(directory);
    let setup = Setup { address: server.address, admin: administrator(&server), tenant: String::new() };
    let client = setup.client();
    server.stop();
    client
}

pub fn launch(directory: &Path) -> Process {
    served(Command::new(binary()), directory)
}

pub fn served(mut command: Command, directory: &Path) -> Process {
    command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"]).arg(directory);
    Process::start(&mut command, &directory.join("log"))
}

impl Setup {
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let headers = format!("{}{}", self.admin, self.tenant);
        let request = driver::request(method, path, &headers, &body.to_string());
        data(&driver::all(self.address, &[request])[0])
    }

    /// Signs in and returns the header line.
    fn signed_in(&self, login: &str) -> String {
        let tokens = self.send("POST", "/auth/login", &json!({"login": login, "password": PASSWORD}));
        format!("authorization: Bearer {}\r\n", text(&tokens["access_token"]))
    }

    /// Creates an API client with every scope and returns its header lines.
    fn client(&self) -> String {
        let made = self.send("POST", "/admin/api-clients", &json!({"name": "bench", "scopes": ["*"]}));
        format!("x-client-key: {}\r\nx-api-key: {}\r\n", text(&made["client_key"]), text(&made["api_key"]))
    }

    /// Creates a small catalog and a role that ticks all of its read permissions.
    fn role(&self) -> String {
        let mut entries = Vec::new();
        for area in ["videos", "albums", "comments", "orders", "reports"] {
            for (word, method, rest) in [
                ("list", "GET", ""),
                ("read", "GET", "/:id"),
                ("write", "PUT|PATCH", "/:id"),
                ("delete", "DELETE", "/:id"),
            ] {
                let (name, path) = (format!("{area}.{word}"), format!("/{area}{rest}"));
                entries.push(json!({"name": name, "http_methods": method, "http_path": path}));
            }
        }
        let names: Vec<&Value> =
            entries.iter().filter(|entry| entry["http_methods"] == "GET").map(|entry| &entry["name"]).collect();
        let ticks = json!({"permission_ids": names});
        self.send("PUT", "/api/v1/permissions/catalog", &json!({"permissions": entries}));
        let role = self.send("POST", "/api/v1/permissions/roles", &json!({"key": "reader"}));
        let id = text(&role["id"]).to_owned();
        self.send("PUT", &format!("/api/v1/permissions/roles/{id}/permissions"), &ticks);
        id
    }

    /// The same caller in a new organization.
    pub fn in_organization(&self, org_code: &str) -> Self {
        self.send("POST", "/admin/organizations", &json!({"org_code": org_code, "name": org_code}));
        Self { address: self.address, admin: self.admin.clone(), tenant: format!("x-tenant-id: {org_code}\r\n") }
    }

    /// Header line that names the organization.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Header lines of the administrator in the organization.
    pub fn administrator(&self) -> String {
        format!("{}{}", self.admin, self.tenant)
    }

    /// Creates a member with this username who may read videos.
    pub fn member_with_role(&self, username: &str) -> String {
        let role = self.send("POST", "/api/v1/permissions/roles", &json!({"key": "reader"}));
        let ticks = json!({"permission_ids": ["videos.read"]});
        self.send("PUT", &format!("/api/v1/permissions/roles/{}/permissions", text(&role["id"])), &ticks);
        let member = self.send("POST", "/admin/members", &json!({"username": username}));
        let uid = text(&member["uid"]).to_owned();
        self.assign(std::slice::from_ref(&uid), text(&role["id"]));
        uid
    }

    /// Uploads and activates a component.
    pub fn put_in_force(&self, name: &str, component: &[u8]) {
        let headers = self.administrator();
        let length = component.len();
        let mut request = format!(
            "POST /api/v1/plugins?name={name} HTTP/1.1\r\nhost: bench\r\n{headers}content-type: application/wasm\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(component);
        let version = data(&driver::all(self.address, &[request])[0])["version"].clone();
        let activation = json!({"version": version, "mode": "enforce"});
        self.send("POST", &format!("/api/v1/plugins/{name}/activate"), &activation);
    }

    fn assign(&self, uids: &[String], role: &str) {
        let headers = format!("{}{}", self.admin, self.tenant);
        let body = json!({"role_id": role}).to_string();
        let path = |uid: &String| format!("/api/v1/permissions/users/{uid}/roles");
        let requests: Vec<_> = uids.iter().map(|uid| driver::request("POST", &path(uid), &headers, &body)).collect();
        driver::all(self.address, &requests);
    }
}

/// Creates members of the organization; the first one can sign in.
fn members(address: SocketAddr, client_in_tenant: &str) -> Vec<String> {
    let body = |n: usize| match n {
        0 => json!({"username": "u0", "password": PASSWORD}),
        _ => json!({"username": format!("u{n}")}),
    };
    let request = |n| driver::request("POST", "/admin/members", client_in_tenant, &body(n).to_string());
    let made = driver::all(address, &(0..MEMBERS).map(request).collect::<Vec<_>>());
    made.iter().map(|body| text(&data(body)["uid"]).to_owned()).collect()
}

/// A check of one of the members that the role allows.
pub fn check_request(site: &Site, n: u64, request: &mut Vec<u8>) {
    let uid = site.uid(n);
    let body = format!(r#"{{"uid":"{uid}","method":"GET","path":"/videos/{n}"}}"#);
    request.extend(driver::request("POST", CHECK, &site.client_in_tenant, &body));
}

/// A grant that does not exist yet; `series` separates the runs.
pub fn grant_request(site: &Site, series: usize, n: u64, request: &mut Vec<u8>) {
    let uid = &site.uids[usize::try_from(n % MEMBERS as u64).unwrap_or_default()];
    let mut body = String::with_capacity(160);
    let _ = write!(body, r#"{{"uid":"{uid}","scope_type":"project","scope_id":"p{series}-{n}","#);
    body.push_str(r#""module":"videos","action":"edit"}"#);
    request.extend(driver::request("POST", GRANT, &site.client, &body));
}

/// A registration of a new video of one of the members.
pub fn register_request(site: &Site, series: usize, n: u64, request: &mut Vec<u8>) {
    let owner = n % MEMBERS as u64;
    let headers = format!("{}x-sftpgo-user: u{owner}\r\n", site.service);
    let body = format!(r#"{{"path":"u{owner}/v{series}-{n}.mp4","size":1}}"#);
    request.extend(driver::request("POST", REGISTER, &headers, &body));
}

/// Signs one member in this many times and returns the responses.
pub fn sessions(address: SocketAddr, count: usize) -> Vec<Vec<u8>> {
    let body = json!({"login": "u0", "password": PASSWORD}).to_string();
    let login = driver::request("POST", "/auth/login", "", &body);
    driver::all(address, &vec![login; count])
}

/// The next refresh of a session, with the token of the previous response.
pub fn refresh_request(last: &[u8], request: &mut Vec<u8>) {
    let last = String::from_utf8_lossy(last);
    let said = |name: &str| {
        let (_, rest) = last.split_once(&format!("\"{name}\":\"")).expect("a token");
        rest.split('"').next().expect("its end")
    };
    let (token, session) = (said("refresh_token"), said("session_id"));
    let body = format!(r#"{{"refresh_token":"{token}","session_id":"{session}"}}"#);
    request.extend(driver::request("POST", REFRESH, "", &body));
}

fn data(body: &[u8]) -> Value {
    let answer: Value = serde_json::from_slice(body).expect("JSON");
    answer["data"].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
