//! Callers of a site, their requests, and the responses.
//!
//! Every response is checked for what holds for all: a request id, and for failures an envelope whose category matches
//! the status.

use reqwest::Method;
use serde_json::{Value, json};

use super::site::{INTERNAL_SECRET, Site};

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

    /// The access token of a sign-in.
    pub fn access_token(&self) -> String {
        self.data()["access_token"].as_str().expect("a token").to_owned()
    }

    /// The body without the fields that differ for every request.
    pub fn lasting(&self) -> Value {
        let mut body = self.body.clone();
        body["request_id"] = Value::Null;
        body
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

impl Site {
    pub async fn token(&self, login: &str, password: &str) -> String {
        let reply = self.nobody().post("/auth/login", json!({"login": login, "password": password})).await;
        reply.access_token()
    }

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
}
