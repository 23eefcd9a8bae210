//! A real browser: Chromium or Chrome, driven through chromedriver. One chromedriver serves the whole test process; each
//! test has a session of its own, with a new profile.
//!
//! Chromedriver speaks WebDriver, which is JSON over HTTP, so the client is a few lines over the HTTP client of the other
//! tests. The crate thirtyfour (0.38) is no alternative: it turns on `preserve_order` of `serde_json`, and Cargo would
//! then build the program under test with it too, whose JSON has another order than that of the program that is shipped.
//!
//! Nothing sleeps: what a test asks of a page is asked again until the page shows it. Numbers and lists that may be
//! empty are answered at once; wait for something on the page first, with [`Browser::text`] or `eventually`.

use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::counterparts::spawn;
use super::site::http_client;
use super::waiting::eventually;

/// Browsers that run at the same time. A test that starts two at once can wait for itself for ever, so it starts one.
const BROWSERS_MAX: usize = 2;
static PERMITS: Semaphore = Semaphore::const_new(BROWSERS_MAX);

/// The functions that look at a page from inside.
const CHECKS: &str = include_str!("../../counterparts/page_checks.js");

/// Only loopback has names and addresses, so that no page can depend on the internet.
const ARGUMENTS: [&str; 6] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

/// The key under which WebDriver writes a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Up to this width the window is that of a phone, where a page without a viewport declaration is shrunk.
const PHONE_WIDTH_MAX_PX: u32 = 600;

/// What chromedriver answers while a page changes.
const CHANGING: [&str; 6] = [
    "element click intercepted",
    "element not interactable",
    "javascript error",
    "no such element",
    "stale element reference",
    "unknown error",
];

/// A failure as WebDriver words it.
struct Fault {
    word: String,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word, self.message)
    }
}

/// A browser with one window and no cookies.
pub struct Browser {
    http: reqwest::Client,
    /// The URL of the session.
    session: String,
    is_script_off: AtomicBool,
    /// The URLs of the pages that were shown.
    shown: Mutex<HashSet<String>>,
    /// The last failure while waiting, for the report of a failed test.
    trouble: Mutex<Option<Fault>>,
    _permit: SemaphorePermit<'static>,
}

/// Starts chromedriver unless it is running.
fn driver() -> &'static str {
    // The process is kept for its standard input, which closes when this process ends.
    static DRIVER: OnceLock<(Child, String)> = OnceLock::new();
    let (_, url) = DRIVER.get_or_init(|| {
        let (child, line) = spawn(&mut Command::new("./start_chromedriver.sh"));
        let ready: Value = serde_json::from_str(&line).expect("chromedriver (tests/counterparts/install)");
        (child, ready["url"].as_str().expect("a URL").to_owned())
    });
    url
}

impl Browser {
    /// Starts a browser as soon as fewer than [`BROWSERS_MAX`] run. It accepts every certificate.
    pub async fn start() -> Self {
        let permit = PERMITS.acquire().await.expect("never closed");
        let http = http_client().timeout(Duration::from_secs(120)).build().expect("client");
        let (is_script_off, shown, trouble) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let session = format!("{}/session", driver());
        let mut browser = Self { http, session, is_script_off, shown, trouble, _permit: permit };
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": ARGUMENTS},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = browser.post("", wanted).await.unwrap_or_else(|fault| panic!("no browser: {fault}"));
        browser.session = format!("{}/{}", browser.session, made["sessionId"].as_str().expect("an id"));
        browser
    }

    // ── the window and its user ──

    /// Sets the size of the page's area, in CSS pixels.
    pub async fn size(&self, width: u32, height: u32) {
        let is_phone = width <= PHONE_WIDTH_MAX_PX;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Whether the user prefers dark pages; by default no preference is set.
    pub async fn dark(&self, is_dark: bool) {
        self.media(&[("prefers-color-scheme", if is_dark { "dark" } else { "light" })]).await;
    }

    /// Sets these media features, such as `forced-colors`, and resets the others.
    pub async fn media(&self, features: &[(&str, &str)]) {
        let features: Vec<Value> = features.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// The language that the user prefers, for the pages opened from now on.
    pub async fn language(&self, language: &str) {
        let agent = self.script("return navigator.userAgent", json!([])).await;
        let names = json!({"userAgent": agent, "acceptLanguage": language});
        self.devtools("Emulation.setUserAgentOverride", names).await;
    }

    /// Sets the time zone of the user, such as `Asia/Taipei`.
    pub async fn time_zone(&self, name: &str) {
        self.devtools("Emulation.setTimezoneOverride", json!({"timezoneId": name})).await;
    }

    /// From now on no page runs its scripts. All methods but those of axe still work.
    pub async fn without_script(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
        self.is_script_off.store(true, Ordering::SeqCst);
    }

    /// The value of a cookie of this page.
    pub async fn cookie(&self, name: &str) -> Option<String> {
        match self.get(&format!("/cookie/{name}")).await {
            Ok(cookie) => Some(cookie["value"].as_str().expect("text").to_owned()),
            Err(fault) if fault.word == "no such cookie" => None,
            Err(fault) => panic!("{name}: {fault}"),
        }
    }

    /// Sets a cookie for the host of this page.
    pub async fn set_cookie(&self, name: &str, value: &str) {
        let cookie = json!({"cookie": {"name": name, "value": value, "path": "/", "httpOnly": true}});
        self.done("/cookie", cookie).await;
    }

    // ── what a user does ──

    /// Opens a URL and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.done("/url", json!({"url": url})).await;
        self.settled("the page").await;
    }

    /// Fills in the field of this name, in a form of `main` if there is one. In a list `text` is an option's text or value,
    /// in radio buttons and checkboxes the value of the one to choose, in a file field a path.
    pub async fn fill(&self, name: &str, text: &str) {
        let field = format!("a field {name} for {text:?}");
        self.seen(&field, async || {
            let mut fields = self.find(&format!("main form [name={name:?}]")).await?;
            if fields.is_empty() {
                fields = self.find(&format!("form [name={name:?}]")).await?;
            }
            if fields.is_empty() {
                return Ok(None);
            }
            let entry = self.check("entry(...arguments)", json!([fields, text])).await?;
            let at = element_path(&entry["element"]);
            match entry["how"].as_str() {
                Some("click") => drop(self.post(&format!("{at}/click"), json!({})).await?),
                Some("type") => drop(self.post(&format!("{at}/value"), json!({"text": text})).await?),
                Some("replace") => {
                    self.post(&format!("{at}/clear"), json!({})).await?;
                    self.post(&format!("{at}/value"), json!({"text": text})).await?;
                }
                Some(_) => {}
                None => return Ok(None),
            }
            Ok(Some(()))
        })
        .await;
    }

    /// Clicks on the button that says this, in `main` if there is one, or on the element of this selector. If the page is
    /// left, waits until the next one is loaded.
    pub async fn submit(&self, button: &str) {
        self.click_on(&format!("a button {button:?}"), "button(arguments[0])", button).await;
    }

    /// Clicks on the visible link that says this, and waits as [`Self::submit`] does.
    pub async fn click_link(&self, text: &str) {
        self.click_on(&format!("a link {text:?}"), "link(arguments[0])", text).await;
    }

    async fn click_on(&self, what: &str, search: &str, text: &str) {
        self.seen(what, async || {
            let element = self.check(search, json!([text])).await?;
            if element.is_null() {
                return Ok(None);
            }
            self.watch(&element).await?;
            self.post(&format!("{}/click", element_path(&element)), json!({})).await.map(Some)
        })
        .await;
        self.settled(&format!("the page after {what}")).await;
    }

    /// Presses keys, one after the other: `Tab Tab Enter`, `Control+k`, `/`. Enter and Space wait as [`Self::submit`] does.
    pub async fn press(&self, keys: &str) {
        for chord in keys.split_whitespace() {
            let leaves = ["Enter", "Space"].iter().any(|key| chord.ends_with(key));
            if leaves {
                let focused = must("the focus", self.get("/element/active").await);
                must("watching", self.watch(&focused).await);
            }
            let keys: Vec<&str> = if chord == "+" { vec![chord] } else { chord.split('+').map(key).collect() };
            self.act(strokes(&keys)).await;
            if leaves {
                self.settled(&format!("the page after {chord}")).await;
            }
        }
    }

    /// Types into the element that has the focus.
    pub async fn type_text(&self, text: &str) {
        self.act(text.chars().flat_map(|character| strokes(&[character.encode_utf8(&mut [0; 4])])).collect()).await;
    }

    async fn act(&self, strokes: Vec<Value>) {
        self.done("/actions", json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]})).await;
    }

    // ── what a user sees ──

    /// The visible text of the first such element; waits until there is one.
    pub async fn text(&self, css: &str) -> String {
        self.seen(css, async || {
            let found = self.find(css).await?;
            let Some(first) = found.first() else { return Ok(None) };
            self.visible_text(first).await.map(Some)
        })
        .await
    }

    /// The visible texts of all such elements that there are now.
    pub async fn texts(&self, css: &str) -> Vec<String> {
        self.seen(css, async || {
            let mut texts = Vec::new();
            for element in self.find(css).await? {
                texts.push(self.visible_text(&element).await?);
            }
            Ok(Some(texts))
        })
        .await
    }

    /// The document as it is now.
    pub async fn html(&self) -> String {
        text_of(&must("the page", self.get("/source").await))
    }

    pub async fn url(&self) -> String {
        text_of(&must("the URL", self.get("/url").await))
    }

    /// The element that has the focus: `input[name=login]`, `button#menu`, `a "Members"`, or `body` if none has it.
    pub async fn focused(&self) -> String {
        text_of(&must("the focus", self.check("focused()", json!([])).await))
    }

    /// Writes a picture of the whole page to `target/console/NAME.png`, for people.
    pub async fn screenshot(&self, name: &str) {
        let layout = self.devtools("Page.getLayoutMetrics", json!({})).await;
        let size = &layout["cssContentSize"];
        let clip = json!({"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1});
        let whole = json!({"captureBeyondViewport": true, "clip": clip});
        write_picture(name, &self.devtools("Page.captureScreenshot", whole).await["data"]);
    }

    // ── checks of a page ──

    /// Violations that axe-core finds by the rules of WCAG 2.2 A and AA and by its best practices: one line per element.
    pub async fn axe(&self) -> Vec<String> {
        self.accessibility("violations").await
    }

    /// What axe-core cannot decide, in the same form.
    pub async fn axe_undecided(&self) -> Vec<String> {
        self.accessibility("incomplete").await
    }

    async fn accessibility(&self, kind: &str) -> Vec<String> {
        static AXE: OnceLock<String> = OnceLock::new();
        assert!(!self.is_script_off.load(Ordering::SeqCst), "axe-core needs scripts");
        if self.script("return typeof axe === 'undefined'", json!([])).await == json!(true) {
            let axe = AXE.get_or_init(|| {
                let file = "tests/counterparts/node_modules/axe-core/axe.min.js";
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                std::fs::read_to_string(file).expect("axe-core (tests/counterparts/install)")
            });
            self.script(axe, json!([])).await;
        }
        lines(&must("axe-core", self.check("accessibility(...arguments)", json!([kind])).await))
    }

    /// Whether the document scrolls sideways.
    pub async fn overflow(&self) -> bool {
        must("the layout", self.check("overflows()", json!([])).await) == json!(true)
    }

    /// The elements that make it scroll sideways.
    pub async fn sticking_out(&self) -> Vec<String> {
        lines(&must("the layout", self.check("stickingOut()", json!([])).await))
    }

    /// The visible controls of less than 24 × 24 pixels, without links in a sentence.
    pub async fn small_targets(&self) -> Vec<String> {
        lines(&must("the layout", self.check("smallTargets()", json!([])).await))
    }

    /// What the browser logged as an error since the last call: blocked by the policy, failed to load, thrown by a script.
    /// Left out is the status of the page itself, since a page of an error is a page, and of its icon, which the browser
    /// asks for when it likes.
    pub async fn console_log(&self) -> Vec<String> {
        let entries = must("the log", self.post("/se/log", json!({"type": "browser"})).await);
        let shown = self.shown.lock().expect("no panic");
        let counts = |entry: &&Value| {
            let url = entry["message"].as_str().and_then(|message| message.split(" - ").next()).unwrap_or_default();
            let is_expected = shown.contains(url) || url.ends_with("/favicon.ico");
            entry["level"] == "SEVERE" && !(entry["source"] == "network" && is_expected)
        };
        let entries = entries.as_array().expect("a list").iter().filter(counts);
        entries.map(|entry| format!("{}: {}", text_of(&entry["source"]), text_of(&entry["message"]))).collect()
    }

    /// Runs the body of a JavaScript function in the page, and returns what it returns or promises.
    pub async fn script(&self, body: &str, arguments: Value) -> Value {
        must(body.get(..80).unwrap_or(body), self.run(body, arguments).await)
    }

    // ── WebDriver ──

    /// Calls a function of [`CHECKS`].
    async fn check(&self, call: &str, arguments: Value) -> Result<Value, Fault> {
        self.run(&format!("const checks = {};\nreturn checks.{call};", CHECKS.trim_end()), arguments).await
    }

    async fn run(&self, body: &str, arguments: Value) -> Result<Value, Fault> {
        self.post("/execute/sync", json!({"script": body, "args": arguments})).await
    }

    /// Notes whether what follows on this element makes the browser leave the page; [`Self::settled`] waits for it.
    /// Chromedriver does not always wait itself, least of all where scripts are off.
    async fn watch(&self, element: &Value) -> Result<Value, Fault> {
        let is_script_off = self.is_script_off.load(Ordering::SeqCst);
        self.check("watch(...arguments)", json!([element, is_script_off])).await
    }

    async fn settled(&self, what: &str) {
        self.seen(what, async || self.settled_now().await).await;
        let url = self.url().await;
        self.shown.lock().expect("no panic").insert(url);
    }

    async fn settled_now(&self) -> Result<Option<()>, Fault> {
        Ok((self.check("isSettled()", json!([])).await? == json!(true)).then_some(()))
    }

    async fn find(&self, css: &str) -> Result<Vec<Value>, Fault> {
        let found = self.post("/elements", json!({"using": "css selector", "value": css})).await?;
        Ok(found.as_array().expect("a list").clone())
    }

    async fn visible_text(&self, element: &Value) -> Result<String, Fault> {
        self.get(&format!("{}/text", element_path(element))).await.map(|text| text_of(&text))
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        must(command, self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await)
    }

    async fn done(&self, path: &str, body: Value) {
        must(path, self.post(path, body).await);
    }

    /// Looks until the page shows it.
    async fn seen<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>, Fault>) -> T {
        eventually(what, async || match look().await {
            Ok(seen) => seen,
            Err(fault) if CHANGING.contains(&fault.word.as_str()) => {
                *self.trouble.lock().expect("no panic") = Some(fault);
                None
            }
            Err(fault) => panic!("{what}: {fault}"),
        })
        .await
    }

    async fn get(&self, path: &str) -> Result<Value, Fault> {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, Fault> {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Fault> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("chromedriver, {path}: {e}"));
        let is_fault = !answer.status().is_success();
        let mut answer: Value = answer.json().await.unwrap_or_else(|e| panic!("chromedriver, {path}: {e}"));
        let value = answer["value"].take();
        if is_fault {
            return Err(Fault { word: text_of(&value["error"]), message: text_of(&value["message"]) });
        }
        Ok(value)
    }

    /// The same without a runtime, which is ending when a browser is dropped.
    fn ask_now(&self, method: &str, path: &str) -> std::io::Result<Value> {
        let address = self.session.trim_start_matches("http://");
        let (host, session) = address.split_once('/').expect("a path");
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(stream, "{method} /{session}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while answer.read_line(&mut line)? > 2 {
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().map_err(std::io::Error::other)?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        let mut body: Value = serde_json::from_slice(&body)?;
        Ok(body["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let url = self.ask_now("GET", "/url").unwrap_or_default();
            eprintln!("the browser was at {url}");
            if let Ok(trouble) = self.trouble.lock()
                && let Some(fault) = trouble.as_ref()
            {
                eprintln!("the last failure while it waited: {fault}");
            }
            let picture = self.ask_now("GET", "/screenshot").unwrap_or_default();
            if picture.is_string() {
                let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
                eprintln!("what it showed: {}", write_picture(&format!("failed/{test}"), &picture).display());
            }
        }
        let _ = self.ask_now("DELETE", "");
    }
}

/// Writes a picture in base64 and returns its file.
fn write_picture(name: &str, picture: &Value) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/console").join(format!("{name}.png"));
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    std::fs::write(&file, STANDARD.decode(picture.as_str().expect("text")).expect("base64")).expect("written");
    file
}

fn element_path(element: &Value) -> String {
    format!("/element/{}", element[ELEMENT].as_str().unwrap_or_default())
}

/// The value, or the end of the test.
fn must(what: &str, answer: Result<Value, Fault>) -> Value {
    answer.unwrap_or_else(|fault| panic!("{what}: {fault}"))
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn lines(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(text_of).collect()
}

/// Presses keys together.
fn strokes(chord: &[&str]) -> Vec<Value> {
    let down = chord.iter().map(|key| json!({"type": "keyDown", "value": key}));
    let up = chord.iter().rev().map(|key| json!({"type": "keyUp", "value": key}));
    down.chain(up).collect()
}

/// The character that WebDriver has for a key; a key of one character is that character.
fn key(name: &str) -> &str {
    match name {
        "Backspace" => "\u{e003}",
        "Tab" => "\u{e004}",
        "Enter" => "\u{e007}",
        "Shift" => "\u{e008}",
        "Control" => "\u{e009}",
        "Alt" => "\u{e00a}",
        "Escape" => "\u{e00c}",
        "Space" => " ",
        "PageUp" => "\u{e00e}",
        "PageDown" => "\u{e00f}",
        "End" => "\u{e010}",
        "Home" => "\u{e011}",
        "ArrowLeft" => "\u{e012}",
        "ArrowUp" => "\u{e013}",
        "ArrowRight" => "\u{e014}",
        "ArrowDown" => "\u{e015}",
        "Delete" => "\u{e017}",
        "Meta" => "\u{e03d}",
        _ => {
            assert_eq!(name.chars().count(), 1, "no key is called {name}");
            name
        }
    }
}
