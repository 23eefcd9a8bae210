//! A webhook receiver whose behaviour a test determines: the external system at the other end of the outbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use poem::http::StatusCode;
use poem::listener::TcpAcceptor;
use poem::{Endpoint, Request, Response, Server};
use serde_json::{Value, json};

use super::callers::As;

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub text: String,
    pub body: Value,
    pub at: Instant,
}

impl Received {
    pub fn event(&self) -> i64 {
        self.body["id"].as_i64().expect("an event's id")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// How it answers a request.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(u16),
    With(u16, Vec<(&'static str, String)>, String),
    /// Never answers during the test.
    Hang,
    /// Waits this long, then answers 200.
    Slow(Duration),
}

type Rule = Arc<dyn Fn(&Received, usize) -> Answer + Send + Sync>;

struct Ear {
    received: Arc<Mutex<Vec<Received>>>,
    rule: Rule,
}

impl Endpoint for Ear {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let text = request.take_body().into_string().await.expect("text");
        let header = |(name, value): (&poem::http::HeaderName, &poem::http::HeaderValue)| {
            (name.to_string(), value.to_str().expect("text").to_owned())
        };
        let received = Received {
            path: request.original_uri().to_string(),
            headers: request.headers().iter().map(header).collect(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
            at: Instant::now(),
        };
        let nth = {
            let mut all = self.received.lock().expect("no panic");
            all.push(received.clone());
            all.len()
        };
        let status = |status: u16| Response::builder().status(StatusCode::from_u16(status).expect("a status"));
        Ok(match (self.rule)(&received, nth) {
            Answer::Status(code) => status(code).finish(),
            Answer::With(code, headers, body) => {
                headers.into_iter().fold(status(code), |answer, (name, value)| answer.header(name, value)).body(body)
            }
            Answer::Hang => {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                status(500).finish()
            }
            Answer::Slow(wait) => {
                tokio::time::sleep(wait).await;
                status(200).finish()
            }
        })
    }
}

/// A receiver on loopback that lives as long as the test.
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Receiver {
    pub fn start(rule: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", rule)
    }

    /// Accepts everything.
    pub fn willing() -> Self {
        Self::start(|_, _| Answer::Status(200))
    }

    pub fn at(address: &str, rule: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        listener.set_nonblocking(true).expect("a socket that does not block");
        let received = Arc::new(Mutex::default());
        let acceptor = TcpAcceptor::from_std(listener).expect("a listener");
        let ear = Ear { received: Arc::clone(&received), rule: Arc::new(rule) };
        Self { url, received, serving: tokio::spawn(Server::new_with_acceptor(acceptor).run(ear)) }
    }

    pub fn all(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    /// Waits until this many requests were received.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let all = self.all();
            if all.len() >= count {
                return all;
            }
            assert!(Instant::now() < deadline, "{} of {count} came: {all:?}", all.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Creates a webhook for events of these kinds. Returns its id and secret.
pub async fn webhook(caller: &As<'_>, url: &str, kinds: &[&str]) -> (String, String) {
    let made = caller.post("/admin/webhooks", json!({"name": "test", "url": url, "kinds": kinds})).await.data();
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    (text("id"), text("secret"))
}
