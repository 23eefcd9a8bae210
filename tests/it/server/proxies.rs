//! Behind a real nginx that strips a path, every URL works at the address that browsers use.

use std::net::TcpListener;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::counterparts::{Browser, CLIENT_SECRET, Oidc, http, query};
use crate::harness::nginx::{Nginx, port};
use crate::harness::site::{ADMIN, PASSWORD, Site};

/// The path that the proxy strips.
const STRIPPED: &str = "/api/v1";

/// The Host headers that a proxy may send to the server behind it.
const HOSTS: [(&str, &str); 3] = [
    ("as the browser does", "proxy_set_header Host $http_host;"),
    ("by the address it connects to", ""),
    ("by no name", "proxy_http_version 1.1; proxy_set_header Host \"\";"),
];

/// A site behind an nginx, and the public origin of both.
struct Proxied {
    site: Site,
    _nginx: Nginx,
    url: String,
    origin: String,
    http: Client,
}

impl Proxied {
    async fn start(host: &str, settings: impl FnOnce(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = format!("http://127.0.0.1:{}", port(&listener));
        let url = format!("{origin}{STRIPPED}");
        let site = Site::with(&format!("base_path = \"/\"\npublic_url = {url:?}\n{}", settings(&origin))).await;
        let _nginx = Nginx::start(listener, STRIPPED, &site.url, host);
        Self { site, _nginx, url, origin, http: http() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// The administrator's cookies, as a browser sends them to every path below the stripped one.
    async fn cookies(&self) -> String {
        let body = json!({"login": ADMIN, "password": PASSWORD, "cookies": true});
        let answer = self.request(Method::POST, "/auth/login").header("origin", &self.origin).json(&body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        let set = answer.headers().get_all("set-cookie").iter().map(|value| value.to_str().expect("text"));
        let cookies: Vec<&str> = set
            .map(|cookie| {
                assert!(cookie.contains(&format!("; Path={STRIPPED};")), "{cookie}");
                cookie.split(';').next().expect("a pair")
            })
            .collect();
        assert_eq!(cookies.len(), 3, "{cookies:?}");
        cookies.join("; ")
    }
}

async fn value(answer: Response) -> Value {
    answer.json().await.expect("JSON")
}

#[tokio::test]
async fn sign_in_by_cookie_works_with_every_host_header_of_the_proxy() {
    for (case, host) in HOSTS {
        let proxied = Proxied::start(host, |_| String::new()).await;
        let cookies = proxied.cookies().await;

        let me = proxied.request(Method::GET, "/me").header("cookie", &cookies).send().await.expect("an answer");
        assert_eq!(value(me).await["data"]["email"], ADMIN, "{case}");
        for (origin, code) in [(&*proxied.origin, 102_000), ("https://evil.example", 28_505_000), ("null", 28_505_000)]
        {
            let rename = proxied.request(Method::PATCH, "/me").header("cookie", &cookies).header("origin", origin);
            let answer = rename.json(&json!({"display_name": "Kim"})).send().await.expect("an answer");
            assert_eq!(value(answer).await["code"], code, "{case}: {origin}");
        }
    }
}

#[tokio::test]
async fn every_operation_the_docs_page_and_the_links_work_below_the_stripped_path() {
    let proxied = Proxied::start(HOSTS[0].1, |_| String::new()).await;

    let document = value(proxied.request(Method::GET, "/openapi.json").send().await.expect("an answer")).await;
    assert_eq!(document["servers"], json!([{"url": STRIPPED}]));
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys().filter(|name| *name != "parameters") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = proxied.request(method.clone(), path).send().await.expect("an answer");
            assert_ne!(answer.status(), 405, "{method} {path}");
            let told = value(answer).await;
            assert_ne!(told["detail"], "route_not_found", "{method} {path}");
        }
    }
    let page = proxied.request(Method::GET, "/docs").send().await.expect("an answer");
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert!(page.text().await.expect("text").contains(r#""servers":[{"url":"/api/v1"}]"#));
    let nowhere = value(proxied.request(Method::GET, "/nowhere").send().await.expect("an answer")).await;
    assert_eq!(nowhere["message"], "there is nothing at this address: see /api/v1/docs");
    for (path, status) in [("/healthz", 200), ("/.well-known/jwks.json", 200), ("/metrics", 501)] {
        assert_eq!(proxied.request(Method::GET, path).send().await.expect("an answer").status(), status, "{path}");
    }
    let wrong = proxied.request(Method::DELETE, "/admin/members").send().await.expect("an answer");
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"]), (405, &"GET, POST".parse().unwrap()));
    // Other paths are answered by the front end.
    let front = proxied.http.get(format!("{}/me", proxied.origin)).send().await.expect("an answer");
    assert_eq!(front.text().await.expect("text"), "the front end");

    // An invitation's link, its form, and the target of the form.
    let body = json!({"org_code": "acme", "name": "Acme"});
    proxied.site.admin().post("/admin/organizations", body).await.done();
    let inviting = proxied.site.admin().with("x-tenant-id", "acme");
    let invited = inviting.post("/admin/invitations", json!({"email": "kim@example.org"})).await.data();
    let link = invited["url"].as_str().expect("a link").to_owned();
    assert!(link.starts_with(&format!("{}/invitation?token=", proxied.url)), "{link}");
    let mut browser = Browser::new();
    let form = browser.get(&link).await;
    assert!(form.body.contains(r#"action="/api/v1/invitation""#), "{}", form.body);
    let token = query(&link, "token").expect("a token");
    let typed = [
        ("token", &*token),
        ("login", "kim@example.org"),
        ("display_name", ""),
        ("password", PASSWORD),
        ("again", PASSWORD),
    ];
    let done = browser.submit(&format!("{}/invitation", proxied.url), &typed).await;
    assert!(done.body.contains(r#"href="/api/v1/docs""#), "{}", done.body);
}

#[tokio::test]
async fn a_provider_s_callback_carries_the_cookie_of_the_sign_in() {
    let mut oidc = None;
    let proxied = Proxied::start(HOSTS[2].1, |origin| {
        let back = format!("{origin}/signed-in");
        let clients = json!([{"client_id": "roster", "redirect_uris": [back]}]);
        let provider = Oidc::start(json!({"users": {"alice": {}}, "clients": clients}));
        let secret = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxied-client.secret");
        std::fs::write(&secret, format!("{CLIENT_SECRET}\n")).expect("written");
        let issuer = provider.issuer.clone();
        oidc = Some(provider);
        format!(
            "[[oidc]]\nname = \"lab\"\nissuer = {issuer:?}\nclient_id = \"roster\"\nclient_secret_file = {secret:?}\n\
             redirect_uris = [{back:?}]\n"
        )
    })
    .await;
    let back = format!("{}/signed-in", proxied.origin);

    let mut browser = Browser::new();
    let begin = format!("{}/auth/oidc/url?provider=lab&redirect_uri={back}", proxied.url);
    let begun = browser.send(Method::GET, &begin, &[("sec-fetch-site", "same-origin")], &[]).await;
    let begun: Value = serde_json::from_str(&begun.body).expect("JSON");
    let authorize = begun["data"]["authorize_url"].as_str().expect("a URL").to_owned();
    let callback = browser.sign_in(&authorize, "alice", &back).await;
    let returned = |name| query(&callback, name).expect(name);
    let body = json!({"provider": "lab", "redirect_uri": back, "code": returned("code"), "state": returned("state"), "cookies": true});
    let exchange = proxied.request(Method::POST, "/auth/oidc/exchange").header("origin", &proxied.origin);
    let kept = browser.cookies(&format!("{}/auth/oidc/exchange", proxied.url));
    let answer = exchange.header("cookie", kept).json(&body).send().await.expect("an answer");

    let told = value(answer).await;
    assert_eq!(told["code"], 102_000, "{told}");
    drop(oidc);
}

#[tokio::test]
async fn without_a_proxy_an_empty_base_path_serves_everything_at_the_root() {
    for base_path in ["", "/"] {
        let site = Site::with(&format!("base_path = {base_path:?}")).await;
        site.admin().post("/admin/organizations", json!({"org_code": "acme", "name": "Acme"})).await.done();
        site.admin().with("x-tenant-id", "acme").get("/permissions/roles").await.done();
        site.nobody().get("/version").await.done();
        assert_eq!(site.nobody().get("/permissions/me").await.is(31_501_000).word(), "unauthenticated");
        assert_eq!(site.nobody().get("/openapi.json").await.body["servers"], json!([{"url": "/"}]));
        let nowhere = site.nobody().get("/api/v1/permissions/roles").await;
        assert_eq!(nowhere.is(10_301_000).body["message"], "there is nothing at this address: see /docs");
        assert_eq!(site.nobody().get("/nowhere").await.is(10_301_000).word(), "route_not_found");
        let wrong = site.nobody().delete("/admin/members").await;
        assert_eq!(wrong.is(10_105_000).header("allow"), Some("GET, POST"));
    }
}
