//! An HTTP server that answers as a test determines: for responses that no real counterpart gives on demand, and for
//! external systems that cannot be installed here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use poem::listener::TcpAcceptor;
use poem::{Endpoint, Request, Response, Server};

/// An address at which nothing listens.
pub const NOWHERE: &str = "http://127.0.0.1:9";

/// A server on loopback that lives as long as the test.
pub struct StubServer {
    pub url: String,
    asked: Arc<AtomicUsize>,
}

struct Answers<F> {
    answer: F,
    asked: Arc<AtomicUsize>,
}

/// A request as a test sees it: method, path with query, headers by name, body.
#[derive(Debug)]
pub struct StubRequest {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub authorization: String,
    pub body: String,
}

impl<F: Fn(StubRequest) -> Response + Send + Sync> Endpoint for Answers<F> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let body = request.take_body().into_string().await.expect("text");
        let asked = StubRequest {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.params().expect("a query"),
            authorization: request.header("authorization").unwrap_or_default().to_owned(),
            body,
        };
        Ok((self.answer)(asked))
    }
}

impl StubServer {
    pub fn start(answer: impl Fn(StubRequest) -> Response + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        listener.set_nonblocking(true).expect("a socket that does not block");
        let asked = Arc::new(AtomicUsize::new(0));
        let acceptor = TcpAcceptor::from_std(listener).expect("a listener");
        tokio::spawn(Server::new_with_acceptor(acceptor).run(Answers { answer, asked: asked.clone() }));
        Self { url, asked }
    }

    /// The number of requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

pub fn json(status: u16, body: &serde_json::Value) -> Response {
    let status = poem::http::StatusCode::from_u16(status).expect("a status");
    Response::builder().status(status).content_type("application/json").body(body.to_string())
}
