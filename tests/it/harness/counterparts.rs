//! The real programs that Roster talks to: an OpenID provider, an SMTP server, a WordPress with our plugin, and a
//! browser.
//!
//! Each is a program of `tests/counterparts` on a free port of loopback. It runs until its standard input closes. This
//! process holds the other end, so that the counterparts end with the tests, however these end.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::site::{Site, http_client};
use super::waiting::eventually;

/// The secret of every client of the provider, unless a test sets another.
pub const CLIENT_SECRET: &str = "a-client-secret-for-tests";

/// A counterpart's process, and the folder for its files.
struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts a Node program and returns the JSON that it prints when it is ready.
    fn node(script: &str, arguments: impl FnOnce(&Path) -> Vec<String>) -> (Self, Value) {
        let folder = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(folder.path().join("log")).expect("log");
        let mut command = Command::new("node");
        command.arg(script).args(arguments(folder.path())).stderr(log);
        let (child, line) = spawn(&mut command);
        let process = Self { child, folder };
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{script}: {e}: {}", process.log()));
        (process, ready)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("a counterpart's log:\n{}", self.log());
        }
        drop(self.child.stdin.take());
        // Node sometimes hangs on exit.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long a counterpart may take to get ready; WordPress creates its database first.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Starts a program of `tests/counterparts` and returns its first line, which is empty when it failed.
///
/// Node sometimes hangs on start; then the program is started again.
pub fn spawn(command: &mut Command) -> (Child, String) {
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    for _ in 0..3 {
        let mut child = command.spawn().expect("a counterpart (tests/counterparts/install)");
        let mut output = BufReader::new(child.stdout.take().expect("stdout"));
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = output.read_line(&mut line);
            // The receiver is gone when the program was given up.
            let _ = say.send(read.map(|_| line));
        });
        if let Ok(line) = said.recv_timeout(READY_WITHIN) {
            return (child, line.expect("a line"));
        }
        child.kill().expect("killed");
        child.wait().expect("over");
    }
    panic!("{command:?} is not ready after {READY_WITHIN:?}, three times");
}

/// An HTTP client that follows no redirects, because the tests inspect each one.
pub fn http() -> reqwest::Client {
    let builder = http_client().redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(20)).build().expect("client")
}

// ── the OpenID provider ──

/// A certified OpenID provider. Its settings are in `oidc_provider.mjs`; it knows the client `roster` by default.
pub struct Oidc {
    _process: Process,
    http: reqwest::Client,
    pub issuer: String,
}

impl Oidc {
    pub fn start(config: Value) -> Self {
        let (process, ready) = Process::node("oidc_provider.mjs", |_| vec![config.to_string()]);
        Self { _process: process, http: http(), issuer: ready["issuer"].as_str().expect("issuer").to_owned() }
    }

    /// Replaces the signing key. Signatures of the old key are no longer valid.
    pub async fn rotate_keys(&self) {
        self.control("rotate-keys", Value::Null).await;
    }

    /// Sets the user's claims; null removes the user. The login name is the subject.
    pub async fn set_user(&self, login: &str, claims: Value) {
        self.control(&format!("users/{login}"), claims).await;
    }

    /// Changes or creates a client: `{"redirect_uris": [...]}`.
    pub async fn set_client(&self, client_id: &str, changes: Value) {
        self.control(&format!("clients/{client_id}"), changes).await;
    }

    async fn control(&self, what: &str, body: Value) {
        let url = format!("{}/test/{what}", self.issuer);
        let answer = self.http.post(url).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 204, "{}", answer.text().await.expect("text"));
    }

    /// The number of requests for a path, such as `/jwks` or `/me`, which is userinfo.
    pub async fn requests_to(&self, path: &str) -> u64 {
        let answer = self.http.get(format!("{}/test/requests", self.issuer)).send().await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")[path].as_u64().unwrap_or(0)
    }

    /// Signs in with a new browser: follows `authorize_url`, signs in and consents. Returns the first URL that begins
    /// with `stop_prefix`, without opening it. For a flow that sets cookies use `Browser::sign_in`.
    pub async fn sign_in(&self, authorize_url: &str, login: &str, stop_prefix: &str) -> String {
        Browser::new().sign_in(authorize_url, login, stop_prefix).await
    }

    /// Acts as a client with PKCE. Returns the response of the token endpoint after `login` signed in.
    pub async fn tokens(&self, client_id: &str, login: &str, scope: &str) -> Value {
        // The pair of RFC 7636, appendix B.
        const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        const REDIRECT_URI: &str = "http://127.0.0.1:9/tokens";
        let mut url = Url::parse(&format!("{}/auth", self.issuer)).expect("URL");
        url.query_pairs_mut().extend_pairs([
            ("client_id", client_id),
            ("response_type", "code"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", scope),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            // Without it the provider issues no refresh token for `offline_access`.
            ("prompt", "consent"),
        ]);
        let callback = self.sign_in(url.as_str(), login, REDIRECT_URI).await;
        let code = query(&callback, "code").unwrap_or_else(|| panic!("no code: {callback}"));
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let request = self.http.post(format!("{}/token", self.issuer)).basic_auth(client_id, Some(CLIENT_SECRET));
        let answer = request.form(&form).send().await.expect("an answer").json::<Value>().await.expect("JSON");
        assert!(answer["access_token"].is_string(), "{answer}");
        answer
    }
}

/// A query parameter of a URL.
pub fn query(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).expect("URL");
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

// ── the browser ──

/// A browser without scripts: it keeps cookies and makes one request at a time.
pub struct Browser {
    http: reqwest::Client,
    cookies: Vec<Cookie>,
}

/// A cookie. Cookies are bound to a host but not to a port, as in every browser.
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// A response as a browser shows it.
#[derive(Debug)]
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Page {
    /// The target of a redirect.
    pub fn location(&self) -> Option<String> {
        let location = self.headers.get("location")?.to_str().expect("text");
        Some(self.url.join(location).expect("URL").into())
    }

    fn between(&self, before: &str, after: &str) -> Option<String> {
        let (_, rest) = self.body.split_once(before)?;
        Some(rest.split_once(after)?.0.replace("&amp;", "&"))
    }
}

impl Browser {
    pub fn new() -> Self {
        Self { http: http(), cookies: Vec::new() }
    }

    pub async fn get(&mut self, url: &str) -> Page {
        self.send(Method::GET, url, &[], &[]).await
    }

    /// Submits a form.
    pub async fn submit(&mut self, url: &str, form: &[(&str, &str)]) -> Page {
        self.send(Method::POST, url, &[], form).await
    }

    pub async fn send(&mut self, method: Method, url: &str, headers: &[(&str, &str)], form: &[(&str, &str)]) -> Page {
        let mut request = self.http.request(method.clone(), url).header("cookie", self.cookies(url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method != Method::GET {
            request = request.form(form);
        }
        let response = request.send().await.unwrap_or_else(|e| panic!("{url}: {e}"));
        let (url, status, headers) = (response.url().clone(), response.status().as_u16(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            self.keep(&url, cookie.to_str().expect("text"));
        }
        Page { url, status, headers, body: response.text().await.expect("text") }
    }

    /// The Cookie header for a URL.
    pub fn cookies(&self, url: &str) -> String {
        let url = Url::parse(url).expect("URL");
        let fits = |cookie: &&Cookie| {
            url.host_str() == Some(&cookie.host)
                && url
                    .path()
                    .strip_prefix(&*cookie.path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie.path.ends_with('/'))
        };
        let pairs = self.cookies.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value));
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, url: &Url, set_cookie: &str) {
        let mut parts = set_cookie.split(';').map(|part| part.trim().split_once('=').unwrap_or((part.trim(), "")));
        let (name, value) = parts.next().expect("a pair");
        let (mut path, mut dead) = ("/", false);
        for (attribute, text) in parts {
            match &*attribute.to_ascii_lowercase() {
                "path" => path = text,
                "max-age" => dead |= text.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                // A server that deletes a cookie only by its date uses the start of the epoch.
                "expires" => dead |= text.contains("1970"),
                _ => {}
            }
        }
        let host = url.host_str().expect("host").to_owned();
        self.cookies.retain(|c| (&*c.host, &*c.path, &*c.name) != (&*host, path, name));
        if !dead {
            self.cookies.push(Cookie { host, path: path.to_owned(), name: name.to_owned(), value: value.to_owned() });
        }
    }

    /// Follows redirects from `url`, signs in as `login`, and consents where the provider asks for it. Returns the
    /// first URL that begins with `stop_prefix`, without opening it.
    pub async fn sign_in(&mut self, url: &str, login: &str, stop_prefix: &str) -> String {
        const STEPS_MAX: usize = 20;
        let mut page = self.get(url).await;
        for _ in 0..STEPS_MAX {
            if let Some(next) = page.location() {
                if next.starts_with(stop_prefix) {
                    return next;
                }
                page = self.get(&next).await;
                continue;
            }
            let form = (page.between("action=\"", "\""), page.between("name=\"prompt\" value=\"", "\""));
            let (Some(action), Some(prompt)) = form else { panic!("neither a redirect nor a form: {page:?}") };
            let action = page.url.join(&action).expect("URL");
            let fields = [("prompt", &*prompt), ("login", login), ("password", "any")];
            page = self.submit(action.as_str(), &fields).await;
        }
        panic!("more than {STEPS_MAX} steps: {page:?}");
    }
}

// ── the SMTP server ──

/// A received mail. `from` and `to` come from the SMTP commands, not from the headers.
#[derive(Debug, Clone, Deserialize)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// By lower-case name.
    pub headers: HashMap<String, String>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The authenticated SMTP user.
    pub user: Option<String>,
    pub raw: String,
}

/// An SMTP server. Its settings are in `smtp_server.mjs`.
pub struct Smtp {
    _process: Process,
    pub port: u16,
    /// The certificate of its authority, for `SSL_CERT_FILE`; `None` without TLS.
    pub ca: Option<PathBuf>,
    mails: PathBuf,
    /// The number of mails per address that `next_mail_to` has returned.
    taken: Mutex<HashMap<String, usize>>,
}

impl Smtp {
    pub fn start(config: Value) -> Self {
        let arguments = |folder: &Path| vec![folder.display().to_string(), config.to_string()];
        let (process, ready) = Process::node("smtp_server.mjs", arguments);
        Self {
            _process: process,
            port: ready["port"].as_u64().and_then(|port| port.try_into().ok()).expect("port"),
            ca: ready["ca"].as_str().map(PathBuf::from),
            mails: ready["mails"].as_str().expect("mails").into(),
            taken: Mutex::default(),
        }
    }

    /// All mails so far, in order.
    pub fn mails(&self) -> Vec<Mail> {
        let text = std::fs::read_to_string(&self.mails).expect("mails");
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a mail")).collect()
    }

    /// Waits for the next mail to an address and returns it.
    pub async fn next_mail_to(&self, address: &str) -> Mail {
        let nth = {
            let mut taken = self.taken.lock().expect("no panic");
            let taken = taken.entry(address.to_owned()).or_default();
            *taken += 1;
            *taken - 1
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let found = self.mails().into_iter().filter(|mail| mail.to.iter().any(|to| to == address)).nth(nth);
            if let Some(mail) = found {
                return mail;
            }
            assert!(Instant::now() < deadline, "no mail to {address}: {:?}", self.mails());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

// ── WordPress ──

/// A WordPress with the plugin of `packaging/wordpress`. All tests share it, so a test creates the accounts that it
/// changes.
#[derive(Deserialize)]
pub struct WordPress {
    pub url: String,
    /// The secret with which the plugin signs tickets.
    pub ticket_secret: String,
    /// The only URL to which the plugin redirects a browser. Nothing listens there.
    pub return_url: String,
    /// The key with which the plugin signs its events.
    pub events_key: String,
    /// The file that tells the plugin where to send its events.
    pub events_url: PathBuf,
    people: HashMap<String, Person>,
}

/// An account of WordPress.
#[derive(Deserialize)]
pub struct Person {
    pub id: i64,
    pub email: String,
    /// For wp-login.php.
    pub password: String,
    /// For the REST API, by HTTP Basic.
    pub application_password: String,
}

impl WordPress {
    /// Starts WordPress unless it is running, which takes some seconds.
    pub fn start() -> &'static Self {
        // The process is kept for its standard input, which closes when this process ends.
        static WORDPRESS: OnceLock<(Child, WordPress)> = OnceLock::new();
        let (_, wordpress) = WORDPRESS.get_or_init(|| {
            let (child, line) = spawn(&mut Command::new("./start_wordpress.sh"));
            (child, serde_json::from_str(&line).expect("WordPress (tests/counterparts/install)"))
        });
        wordpress
    }

    /// `admin`, `editor`, `subscriber`, `name with space`, or `dot.at@host`, who has no role.
    pub fn person(&self, login: &str) -> &Person {
        &self.people[login]
    }

    /// Signs in by the form and returns the browser with its cookies.
    pub async fn browser_sign_in(&self, login: &str, password: &str) -> Browser {
        let mut browser = Browser::new();
        let url = format!("{}/wp-login.php", self.url);
        browser.get(&url).await; // Sets the test cookie with which WordPress detects cookie support.
        let page = browser.submit(&url, &[("log", login), ("pwd", password)]).await;
        assert_eq!(page.status, 302, "{page:?}");
        browser
    }

    /// A ticket, requested as a page's script requests it.
    pub async fn ticket(&self, browser: &mut Browser) -> String {
        let nonce = browser.get(&format!("{}/wp-admin/admin-ajax.php?action=rest-nonce", self.url)).await.body;
        let url = format!("{}/wp-json/roster/v1/ticket", self.url);
        let page = browser.send(Method::POST, &url, &[("x-wp-nonce", &nonce)], &[]).await;
        let body: Value = serde_json::from_str(&page.body).expect("JSON");
        assert_eq!((page.status, &body["expires_in"]), (200, &json!(60)), "{page:?}");
        body["ticket"].as_str().expect("a ticket").to_owned()
    }
}

// ── SFTPGo ──

/// A stub server that behaves like SFTPGo; the real one cannot be installed here.
pub struct Sftpgo {
    process: Process,
    pub url: String,
}

impl Sftpgo {
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let log = std::fs::File::create(folder.path().join("log")).expect("log");
        std::fs::write(folder.path().join("password"), "labpass").expect("written");
        std::fs::write(folder.path().join("key"), "labkeyid.labsecret").expect("written");
        std::fs::write(folder.path().join("hook"), HOOK_KEY).expect("written");
        let mut command = Command::new("python3");
        let (child, line) = spawn(command.args(["fake_sftpgo.py", "0"]).args(arguments).stderr(log));
        let ready: Value = serde_json::from_str(&line).expect("a line of JSON");
        Self { process: Process { child, folder }, url: ready["url"].as_str().expect("a URL").to_owned() }
    }

    /// The settings with which a site connects to it.
    pub fn settings(&self) -> String {
        let file = |name: &str| self.process.folder.path().join(name);
        format!(
            "sftpgo.url = \"{}/api/v2\"\nsftpgo.username = \"admin\"\nsftpgo.secret_file = {:?}\n\
             hooks.sftpgo_key_file = {:?}\nsftpgo.home = \"/srv/media/{{username}}\"\n\
             outbox.backoff_s = 0\nneighbours.timeout_ms = 500\nneighbours.failures = 1000\n",
            self.url,
            file("password"),
            file("hook")
        )
    }

    /// The same with an API key.
    pub fn settings_by_key(&self) -> String {
        let file = |name: &str| format!("{:?}", self.process.folder.path().join(name));
        self.settings()
            .replace("sftpgo.username = \"admin\"", "sftpgo.username = \"\"")
            .replace(&file("password"), &file("key"))
    }

    pub async fn lab(&self, what: &str, body: Value) -> (u16, Value) {
        let answer = http().post(format!("{}/lab/{what}", self.url)).body(body.to_string()).send().await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.expect("text")).expect("JSON"))
    }

    /// Makes it call a site's hooks for logins and file events.
    pub async fn call(&self, site: &Site) {
        let hook = |name: &str| format!("{}/api/v1/hooks/sftpgo/{name}", site.url);
        let hooks = json!({"external_auth": hook("auth"), "actions": hook("events"),
            "execute_on": "pre-upload,upload,rename,delete", "header": [format!("X-Hook-Key:{HOOK_KEY}")]});
        self.lab("behave", json!({"hooks": hooks})).await;
    }

    /// The user of this name, or null.
    pub async fn user(&self, name: &str) -> Value {
        self.lab("users", json!({})).await.1[name].clone()
    }

    /// Waits until the user satisfies the condition.
    pub async fn eventually(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(name, async || Some(self.user(name).await).filter(&is_so)).await
    }
}

/// The key of SFTPGo's hooks.
pub const HOOK_KEY: &str = "a-hook-key-for-tests-of-32-signs";
