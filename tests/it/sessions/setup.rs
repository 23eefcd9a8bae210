//! The one-time set-up link: its holder creates the first administrator, once.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::console::{Browser, Page};
use crate::harness::rows::open_rows;
use crate::harness::site::{PASSWORD, binary};

/// A server on a directory without an administrator.
struct Fresh {
    directory: TempDir,
    child: Child,
    url: String,
    /// The token of the link that the server printed.
    token: String,
    http: reqwest::Client,
}

fn json_of(page: &Page) -> Value {
    serde_json::from_str(&page.text).expect("JSON")
}

fn has_form(page: &Page) -> bool {
    page.form("/setup").is_some()
}

impl Fresh {
    fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = format!("{settings}\n[password]\nmemory_kib = 64\niterations = 1\n");
        std::fs::write(directory.path().join("roster.toml"), settings).expect("settings");
        let log = std::fs::File::create(directory.path().join("log")).expect("log");
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--data"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("roster serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let url = format!("http://{}", ready["listening"].as_str().expect("listening"));
        let link = ready["setup_url"].as_str().expect("a link");
        let token = link.strip_prefix(&format!("{url}/setup?token=")).expect("a link to this server").to_owned();
        let http = crate::harness::site::http_client().build().expect("client");
        Self { directory, child, url, token, http }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Page { status, headers, text: response.text().await.expect("text") }
    }

    /// A new browser without cookies.
    fn visitor(&self) -> Browser {
        Browser::new(&self.url)
    }

    async fn get(&self, path: &str) -> Page {
        self.visitor().get(path).await
    }

    async fn submit(&self, token: &str, login: &str, password: &str) -> Page {
        self.visitor().post("/setup", &fields(token, login, password)).await
    }

    async fn login(&self, login: &str, password: &str) -> Page {
        let request = self.http.post(format!("{}/auth/login", self.url)).header("content-type", "application/json");
        self.send(request.body(json!({"login": login, "password": password}).to_string())).await
    }

    fn command(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(binary())
            .args(arguments)
            .args(["--json", "--data"])
            .arg(self.directory.path())
            .output()
            .expect("roster")
    }

    fn members(&self) -> i64 {
        let rows = open_rows(self.directory.path());
        rows.query_row("select count(*) from members", [], |row| row.get(0)).expect("a number")
    }
}

fn fields<'t>(token: &'t str, login: &'t str, password: &'t str) -> [(&'static str, &'t str); 4] {
    [("token", token), ("login", login), ("password", password), ("again", password)]
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let status = self.child.wait().expect("status");
        if !std::thread::panicking() {
            assert!(status.success());
            assert_eq!(self.command(&["audit", "verify"]).status.code(), Some(0));
        }
    }
}

// ── access to the page ──

#[tokio::test]
async fn without_its_token_the_page_shows_nothing() {
    let fresh = Fresh::start("");
    let truncated = &fresh.token[1..];

    for query in ["", "?token=", "?token=x", &format!("?token={truncated}"), &format!("?Token={}", fresh.token)] {
        let page = fresh.get(&format!("/setup{query}")).await;
        assert_eq!((page.status, has_form(&page)), (401, false), "{query}");
    }
    for token in ["", "x", truncated] {
        assert_eq!(fresh.submit(token, "kim", PASSWORD).await.status, 401, "{token}");
    }
    assert_eq!(fresh.members(), 0);
}

#[tokio::test]
async fn with_its_token_the_page_shows_the_form_and_loads_nothing_from_elsewhere() {
    let fresh = Fresh::start("");

    let page = fresh.get(&format!("/setup?token={}", fresh.token)).await;

    assert_eq!((page.status, has_form(&page), page.faults().len()), (200, true, 0));
    assert_eq!(page.value("token").as_deref(), Some(fresh.token.as_str()));
    assert_eq!((page.header("cache-control"), page.header("referrer-policy")), (Some("no-store"), Some("no-referrer")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none';"));
    for (element, attribute) in [("script", "src"), ("link", "href"), ("a", "href"), ("img", "src")] {
        let all = page.elements(element);
        let own = all.iter().all(|one| one.attribute(attribute).is_some_and(|to| to.starts_with(['/', '#'])));
        assert!(own && all.iter().all(|one| !one.attribute(attribute).unwrap().starts_with("//")), "{element}");
    }
}

#[tokio::test]
async fn before_the_first_administrator_nobody_can_sign_in() {
    let fresh = Fresh::start("");

    for (login, password) in [("admin", "admin"), ("admin", "password"), ("root", ""), ("admin@example.org", PASSWORD)]
    {
        let page = fresh.login(login, password).await;
        assert!(page.status == 401 || json_of(&page)["detail"] == "bad_input", "{login}");
    }
    assert_eq!(fresh.members(), 0);
}

// ── the form ──

#[tokio::test]
async fn the_link_creates_the_first_administrator_once() {
    let fresh = Fresh::start("");

    let browser = fresh.visitor();
    let made = browser.post("/setup", &fields(&fresh.token, "kim@example.org", PASSWORD)).await;
    let again = fresh.submit(&fresh.token, "lee@example.org", PASSWORD).await;
    let shown = fresh.get(&format!("/setup?token={}", fresh.token)).await;

    assert_eq!((made.status, made.location()), (303, Some("/console/site/first-steps")));
    assert_eq!((again.status, shown.status, has_form(&shown)), (401, 401, false));
    assert!(shown.main().contains("administrator exists already, so sign in"), "{}", shown.text);
    assert!(!shown.text.contains("setup-link"), "{}", shown.text);
    assert_eq!(fresh.members(), 1);
    assert_eq!(fresh.login("kim@example.org", PASSWORD).await.status, 200);
    // The browser is signed in.
    let token = browser.cookie("access_token").expect("a session");
    let organizations = fresh.http.get(format!("{}/admin/organizations", fresh.url)).bearer_auth(token);
    assert_eq!(json_of(&fresh.send(organizations).await)["data"]["items"][0]["org_code"], "platform");
}

#[tokio::test]
async fn one_of_many_parallel_uses_of_the_link_creates_an_administrator() {
    let fresh = Fresh::start("");
    let logins: Vec<String> = (0..8).map(|n| format!("kim{n}@example.org")).collect();

    let pages =
        futures_util::future::join_all(logins.iter().map(|login| fresh.submit(&fresh.token, login, PASSWORD))).await;

    assert_eq!(pages.iter().filter(|page| page.status == 303).count(), 1);
    assert!(pages.iter().all(|page| matches!(page.status, 303 | 401 | 409)));
    assert_eq!(fresh.members(), 1);
}

#[tokio::test]
async fn a_weak_password_shows_all_its_faults_and_keeps_the_link() {
    let fresh = Fresh::start("");

    for (password, faults) in [
        ("short", 3),
        ("", 3),
        ("alllowercase", 2),
        ("Abcdefgh", 1),
        ("abcdefg1", 1),
        (&format!("A1{}", "x".repeat(255)), 1),
    ] {
        let page = fresh.submit(&fresh.token, "kim@example.org", password).await;
        assert_eq!((page.status, page.faults().len(), has_form(&page)), (400, faults, true), "{password}");
        assert!(password.is_empty() || !page.text.contains(&format!("value=\"{password}\"")));
    }
    assert_eq!(fresh.members(), 0);
    assert_eq!(fresh.submit(&fresh.token, "kim@example.org", &format!("A1{}", "x".repeat(254))).await.status, 303);
}

#[tokio::test]
async fn both_passwords_must_match_and_the_summary_of_faults_has_the_focus() {
    let fresh = Fresh::start("");
    let once = [("token", fresh.token.as_str()), ("login", "kim"), ("password", PASSWORD)];
    let twice = [once[0], once[1], once[2], ("again", "Another-horse-9")];

    let once = fresh.visitor().post("/setup", &once).await;
    let differing = fresh.visitor().post("/setup", &twice).await;
    let weak = fresh.submit(&fresh.token, "kim", "short").await;

    assert_eq!((once.status, differing.status, differing.faults().len(), weak.faults().len()), (400, 400, 1, 3));
    for (page, field) in [(&differing, "again"), (&weak, "password")] {
        let summary = page.with_class("faults");
        let links: Vec<String> =
            summary[0].elements("a").iter().map(|link| link.attribute("href").expect("an id").to_owned()).collect();
        assert!(summary[0].attributes.contains_key("data-focus"));
        assert!(links.iter().all(|link| *link == format!("#{field}")), "{field}: {links:?}");
        assert!(!page.elements("input").iter().any(|input| input.attributes.contains_key("autofocus")));
    }
    assert_eq!(fresh.members(), 0);
}

#[tokio::test]
async fn init_creates_the_first_administrator_while_the_server_runs_and_no_second_one() {
    let fresh = Fresh::start("");
    let password = fresh.directory.path().join("password");
    std::fs::write(&password, PASSWORD).expect("a file");
    let init =
        |login: &str| fresh.command(&["init", "--admin", login, "--password-file", &password.display().to_string()]);

    let made = init("kim@example.org");
    let again = init("lee@example.org");

    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!((again.status.code(), fresh.members()), (Some(1), 1));
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("`roster member link LOGIN platform --role platform_admin`")
    );
    assert_eq!(fresh.login("kim@example.org", PASSWORD).await.status, 200);
    assert_ne!(fresh.get(&format!("/setup?token={}", fresh.token)).await.status, 200, "the link has ended");
    // The network listener has no such path.
    let asked = fresh.http.post(format!("{}/setup/administrator", fresh.url));
    let body = json!({"login": "lee", "password": PASSWORD}).to_string();
    let stranger = fresh.send(asked.header("content-type", "application/json").body(body)).await;
    assert_eq!((stranger.status, fresh.members()), (404, 1));
}

#[tokio::test]
async fn submitted_text_is_escaped() {
    let fresh = Fresh::start("");
    let login = "\"><script>alert('1')</script>&amp;@example.org";

    let page = fresh.submit(&fresh.token, login, "short").await;

    assert_eq!((page.status, has_form(&page)), (400, true));
    assert_eq!(page.value("login").as_deref(), Some(login));
    page.require_escaped("<script>alert");
}

#[tokio::test]
async fn markup_in_a_token_is_escaped() {
    let fresh = Fresh::start("");

    let page = fresh.get("/setup?token=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").await;

    assert_eq!(page.status, 401);
    page.require_without("<script>alert");
}

#[tokio::test]
async fn the_first_administrators_login_has_the_rules_of_every_login() {
    for login in [
        "",
        " ",
        "a b",
        "-",
        "<b>",
        "a@@example.org",
        "@example.org",
        "kim@",
        &"k".repeat(65),
        &format!("{}@example.org", "k".repeat(250)),
    ] {
        let fresh = Fresh::start("");
        let page = fresh.submit(&fresh.token, login, PASSWORD).await;
        assert_eq!((page.status, page.faults().len(), fresh.members()), (400, 1, 0), "{login:?}");
    }
}

#[tokio::test]
async fn a_bad_login_and_a_weak_password_are_shown_together() {
    let fresh = Fresh::start("");

    let page = fresh.submit(&fresh.token, "a b", "short").await;

    assert_eq!((page.status, page.faults().len()), (400, 4));
}

#[tokio::test]
async fn a_cross_site_form_is_refused() {
    let fresh = Fresh::start("");

    for (site, status) in [("cross-site", 403), ("same-site", 403), ("", 403), ("none", 303)] {
        let sent = fields(&fresh.token, "kim@example.org", PASSWORD);
        let page = fresh.visitor().post_with("/setup", &sent, &[("sec-fetch-site", site)]).await;
        assert_eq!(page.status, status, "{site}");
    }
    assert_eq!(fresh.members(), 1);
}

#[tokio::test]
async fn a_form_with_something_missing_is_refused() {
    let fresh = Fresh::start("");
    let post = |content_type: &str, body: String| {
        let request = fresh.http.post(format!("{}/setup", fresh.url)).header("content-type", content_type);
        request.header("sec-fetch-site", "same-origin").body(body)
    };
    let form = "application/x-www-form-urlencoded";

    let without = fresh.send(post(form, format!("token={}&login=kim", fresh.token))).await;
    let twice = format!("token={0}&token={0}&login=kim&password={PASSWORD}&again={PASSWORD}", fresh.token);
    let twice = fresh.send(post(form, twice)).await;
    let other = fresh
        .send(post("application/json", json!({"token": fresh.token, "login": "kim", "password": PASSWORD}).to_string()))
        .await;

    assert_eq!((without.status, twice.status, other.status), (400, 400, 415));
    assert_eq!(fresh.members(), 0);
}

#[tokio::test]
async fn without_an_administrator_the_console_says_how_to_get_the_link() {
    let fresh = Fresh::start("");
    let browser = fresh.visitor();

    let led = browser.get("/console").await;
    let shown = browser.follow(&led).await;
    let sent = browser.post("/console/sign-in", &[("login", "admin"), ("password", "admin")]).await;

    for page in [&shown, &sent] {
        assert_eq!((page.status, page.h1().as_str()), (200, "This site has no administrator yet"));
        assert!(page.form("/console/sign-in").is_none());
        assert!(page.elements("pre")[0].text().starts_with("roster setup-link"));
    }
}

#[tokio::test]
async fn the_page_speaks_chinese_too() {
    let fresh = Fresh::start("");
    let browser = fresh.visitor().in_chinese();

    let page = browser.get(&format!("/setup?token={}", fresh.token)).await;
    let weak = browser.post("/setup", &fields(&fresh.token, "kim", "abcdefg1")).await;

    assert_eq!((page.h1().as_str(), page.elements("html")[0].attribute("lang")), ("歡迎使用 Roster", Some("zh-TW")));
    assert_eq!(weak.faults(), [("password".to_owned(), "需要至少一個大寫字母。".to_owned())]);
}

// ── replacement and expiry of the link ──

#[tokio::test]
async fn a_new_link_voids_the_old_one() {
    let fresh = Fresh::start("");

    let output = fresh.command(&["setup-link"]);

    let link: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &link["expires_in"]), (Some(0), &json!(1_800)));
    let token = link["setup_url"].as_str().unwrap().split_once("/setup?token=").unwrap().1;
    assert_eq!(fresh.get(&format!("/setup?token={}", fresh.token)).await.status, 401);
    assert_eq!(fresh.submit(&fresh.token, "mallory", PASSWORD).await.status, 401);
    assert_eq!(fresh.submit(token, "kim@example.org", PASSWORD).await.status, 303);
}

#[tokio::test]
async fn a_new_link_names_the_address_of_the_running_server() {
    let fresh = Fresh::start("");

    let output = fresh.command(&["setup-link"]);

    let link: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(link["setup_url"].as_str().unwrap().split_once("/setup?").map(|(url, _)| url), Some(fresh.url.as_str()));
}

#[tokio::test]
async fn after_the_first_administrator_there_are_no_more_links() {
    let fresh = Fresh::start("");
    fresh.submit(&fresh.token, "kim@example.org", PASSWORD).await;

    let output = fresh.command(&["setup-link"]);

    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

#[tokio::test]
async fn a_link_expires() {
    let fresh = Fresh::start("auth.setup_link_ttl_s = 1");
    let path = format!("/setup?token={}", fresh.token);

    let mut tries = 0;
    while fresh.get(&path).await.status == 200 {
        tries += 1;
        assert!(tries < 300, "the link does not expire");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    let late = fresh.submit(&fresh.token, "kim@example.org", PASSWORD).await;
    assert_eq!((late.status, fresh.members()), (401, 0));
}

#[tokio::test]
async fn the_links_token_and_the_password_are_neither_logged_nor_stored() {
    let fresh = Fresh::start("log.level = \"trace\"\ndebug = true");
    fresh.get(&format!("/setup?token={}", fresh.token)).await;
    fresh.submit(&fresh.token, "kim@example.org", "Unheard-of-horse-9").await;

    for file in ["log", "roster.db", "roster.db-wal"] {
        let bytes = std::fs::read(fresh.directory.path().join(file)).unwrap();
        for secret in [fresh.token.as_str(), "Unheard-of-horse"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
        }
    }
}

#[tokio::test]
async fn the_creation_of_the_first_administrator_is_recorded_without_a_name() {
    let fresh = Fresh::start("");
    fresh.submit(&fresh.token, "kim@example.org", PASSWORD).await;

    let rows = open_rows(fresh.directory.path());
    // The sign-in that follows is the last entry.
    let sql = "select action, after from audit order by id desc limit 1 offset 1";
    let last: (String, String) = rows.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();

    assert_eq!(
        (last.0.as_str(), last.1.as_str()),
        ("member.create_first_administrator", "{\"role\":\"platform_admin\"}")
    );
}

// ── internal secrets, read from the environment at start ──

#[tokio::test]
async fn two_internal_secrets_are_accepted_during_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secrets");
    std::fs::write(&file, "the-newer-internal-secret\nthe-older-internal-secret\n").unwrap();
    let fresh = Fresh::start(&format!("internal_secret_file = {file:?}"));
    let asked = async |secret: &str| {
        let request = fresh.http.get(format!("{}/internal/members", fresh.url)).header("x-internal-secret", secret);
        json_of(&fresh.send(request).await)["code"].clone()
    };

    assert_eq!(asked("the-newer-internal-secret").await, 102_000);
    assert_eq!(asked("the-older-internal-secret").await, 102_000);
    assert_eq!(asked("the-oldest-internal-secret").await, 29_501_000);
}

#[tokio::test]
async fn without_an_internal_secret_every_secret_is_refused() {
    let fresh = Fresh::start("");

    for secret in ["", "x"] {
        let request = fresh.http.get(format!("{}/internal/members", fresh.url)).header("x-internal-secret", secret);
        let reply = fresh.send(request).await;
        assert_eq!(
            (reply.status, &json_of(&reply)["detail"]),
            (501, &json!("internal_secret_not_configured")),
            "{secret}"
        );
    }
}

#[tokio::test]
async fn a_short_internal_secret_and_a_third_one_are_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let (settings, file) = (directory.path().join("roster.toml"), directory.path().join("secrets"));
    std::fs::write(&settings, format!("internal_secret_file = {file:?}")).unwrap();
    let checked = |secrets: &str| {
        std::fs::write(&file, secrets).unwrap();
        Command::new(binary()).args(["config", "check", "--data"]).arg(directory.path()).output().unwrap().status.code()
    };

    assert_eq!(checked(&"a".repeat(8)), Some(0));
    assert_eq!(checked(&"a".repeat(7)), Some(1));
    assert_eq!(checked("first-secret-of-the-site\nsecond-secret-of-the-site\n"), Some(0));
    assert_eq!(checked("first-secret-of-the-site\nsecond-secret-of-the-site\nthird-secret-of-the-site\n"), Some(1));
}
