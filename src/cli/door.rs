//! How a command reaches the operations: the server's local socket, or an endpoint in this process.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use poem::http::Method;
use poem::{Body, Endpoint, Request};
use serde_json::Value;

use super::{Common, Failed, Site, directory, open};
use crate::access::caller::FromCommandLine;
use crate::db::mark;

/// How often, and after how long, a directory that another process has is tried again.
const PATIENCE: u32 = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// An open door.
pub enum Door {
    Server(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Here { site: Box<Site>, _lock: directory::Lock },
}

impl Door {
    /// Opens the door of an existing data directory.
    pub async fn open(common: &Common) -> Result<Self, Failed> {
        // Beside a mark the database must be there: opening it says what to do.
        if !directory::exists(&common.data) && !mark::is_founded(&common.data.join("roster.db")) {
            let data = common.data.display();
            return Err(Failed(format!(
                "{data} is not a Roster data directory: make one with `roster init --data {data} --admin LOGIN`"
            )));
        }
        // Another command, or a server that is about to answer, is done in a moment.
        let mut silent = None;
        for _ in 0..PATIENCE {
            match directory::lock(&common.data)? {
                directory::Owner::Us(lock) => {
                    let site = open(common.load(None)?).await?;
                    return Ok(Self::Here { site: Box::new(site), _lock: lock });
                }
                directory::Owner::Server(socket) if !socket.as_os_str().is_empty() => match Self::to(&socket).await {
                    Ok(door) => return Ok(door),
                    // One that was killed may have left this socket, and another one is starting.
                    Err(failed) => silent = Some(failed),
                },
                directory::Owner::Server(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(silent.unwrap_or_else(|| {
            Failed(format!("another Roster keeps {} to itself: is it hanging?", common.data.display()))
        }))
    }

    async fn to(socket: &Path) -> Result<Self, Failed> {
        let busy = |e: &dyn std::fmt::Display| {
            Failed(format!("another Roster has this data directory, but does not answer on {}: {e}", socket.display()))
        };
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| busy(&e))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| busy(&e))?;
        tokio::spawn(connection);
        Ok(Self::Server(sender))
    }

    /// Asks an operation; answers its `data`.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Value, Failed> {
        let body = body.map(|value| value.to_string().into_bytes());
        self.send(method, path, headers, "application/json", body).await
    }

    /// The same with a body of another kind.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        content_type: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Value, Failed> {
        let bytes = match self {
            Self::Server(sender) => {
                let mut request = hyper::Request::builder().method(method).uri(path).header("host", "local");
                request = request.header("content-type", content_type);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request = request
                    .body(Full::new(Bytes::from(body.unwrap_or_default())))
                    .map_err(|e| Failed(e.to_string()))?;
                // The request before this one may not have let go of the connection yet.
                sender.ready().await.map_err(|e| Failed(format!("the server hung up: {e}")))?;
                let answer = sender
                    .send_request(request)
                    .await
                    .map_err(|e| Failed(format!("the server did not answer: {e}")))?;
                answer
                    .into_body()
                    .collect()
                    .await
                    .map_err(|e| Failed(format!("the server's answer broke off: {e}")))?
                    .to_bytes()
            }
            Self::Here { site, .. } => {
                let mut request = Request::builder().method(method).uri_str(path).content_type(content_type);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let mut request = request.body(Body::from(body.unwrap_or_default()));
                request.extensions_mut().insert(FromCommandLine);
                let answer = site.endpoint.call(request).await.map_err(|e| Failed(e.to_string()))?;
                answer.into_body().into_bytes().await.map_err(|e| Failed(e.to_string()))?
            }
        };
        let answer: Value =
            serde_json::from_slice(&bytes).map_err(|e| Failed(format!("the answer is not JSON: {e}")))?;
        if answer["code"] == 102_000 {
            return Ok(answer["data"].clone());
        }
        Err(Failed(explained(&answer)))
    }

    /// Finishes what was begun.
    pub async fn close(self) {
        if let Self::Here { site, .. } = self {
            site.app.close().await;
        }
    }
}

/// A failure's envelope as text for people.
fn explained(answer: &Value) -> String {
    let mut text = answer["message"].as_str().unwrap_or("it failed, and did not say why").to_owned();
    for field in answer["fields"].as_array().into_iter().flatten() {
        let location: Vec<&str> =
            field["location"].as_array().into_iter().flatten().skip(1).filter_map(Value::as_str).collect();
        text.push_str(&format!("\n  {}: {}", location.join("."), field["message"].as_str().unwrap_or_default()));
    }
    text
}
