//! The connection of a command to the API: the server's local socket, or an in-process endpoint.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use poem::http::Method;
use poem::{Body, Endpoint, Request};
use serde_json::Value;

use super::help::Spelling;
use super::{Common, Failed, Site, data_dir, open};
use crate::kernel::authn::caller::FromCommandLine;
use crate::kernel::db::mark;
use crate::kernel::error::ErrorCode;

/// How often, and after how long, a directory that another process has is tried again.
const PATIENCE: u32 = 200;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// An open connection to the API.
pub struct ApiConnection {
    way: Transport,
    spelling: Spelling,
}

enum Transport {
    Server(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    InProcess { site: Box<Site>, _lock: data_dir::Lock },
}

impl ApiConnection {
    /// Connects to the API of an existing data directory.
    pub async fn open(common: &Common) -> Result<Self, Failed> {
        // Beside a mark the database must be there: opening it says what to do.
        if !data_dir::exists(&common.data)? && !mark::is_founded(&common.data.join("roster.db")) {
            let data = common.data.display();
            return Err(Failed(format!(
                "{data} is not a Roster data directory: make one with `roster init --data {data} --admin LOGIN`, or \
                 name yours with --data"
            )));
        }
        Self::open_or_make(common).await
    }

    /// The same for a directory in which there may be no site yet: one is made.
    pub async fn open_or_make(common: &Common) -> Result<Self, Failed> {
        let spelling = common.spelling.clone();
        // Another command, or a server that is about to answer, is done in a moment.
        let mut silent = None;
        for _ in 0..PATIENCE {
            match data_dir::lock(&common.data)? {
                data_dir::Owner::Us(lock) => {
                    let site = open(common.load(None)?).await?;
                    return Ok(Self { way: Transport::InProcess { site: Box::new(site), _lock: lock }, spelling });
                }
                data_dir::Owner::Server(socket) if !socket.as_os_str().is_empty() => match Transport::to(&socket).await
                {
                    Ok(way) => return Ok(Self { way, spelling }),
                    // One that was killed may have left this socket, and another one is starting.
                    Err(failed) => silent = Some(failed),
                },
                data_dir::Owner::Server(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(silent.unwrap_or_else(|| data_dir::held(&common.data, PAUSE * PATIENCE)))
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
        let bytes = match &mut self.way {
            Transport::Server(sender) => {
                let mut request = hyper::Request::builder().method(method).uri(path).header("host", "local");
                request = request.header("content-type", content_type);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request = request
                    .body(Full::new(Bytes::from(body.unwrap_or_default())))
                    .map_err(|e| Failed(e.to_string()))?;
                // The request before this one may not have let go of the connection yet.
                sender.ready().await.map_err(|e| broken_off(true, &e))?;
                let answer = sender.send_request(request).await.map_err(|e| broken_off(e.is_canceled(), &e))?;
                answer.into_body().collect().await.map_err(|e| broken_off(false, &e))?.to_bytes()
            }
            Transport::InProcess { site, .. } => {
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
        Err(Failed(explained(&answer, &self.spelling)))
    }

    /// Does a server answer, or this process?
    pub fn is_served(&self) -> bool {
        matches!(self.way, Transport::Server(_))
    }

    /// Finishes what was begun.
    pub async fn close(self) {
        if let Transport::InProcess { site, .. } = self.way {
            site.app.close().await;
        }
    }
}

impl Transport {
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
}

/// What is known of a request to a server that went away.
fn broken_off(is_unsent: bool, error: &hyper::Error) -> Failed {
    Failed(match is_unsent {
        true => format!("the server stopped before it was asked ({error}): this was not done. Run the command again"),
        false => format!(
            "the server stopped before it answered ({error}): this may have been done or not. Look before you repeat it, \
             such as with `roster member list` after a `roster member create`"
        ),
    })
}

/// What failures say on a command line, where the API's words are about headers and addresses.
const SAID_HERE: [(&str, &str); 14] = [
    ("bad_input", "not all of this can be used as it is written"),
    ("route_not_found", "the server that runs does not know this command: it is of another version than this program"),
    (
        "setup_done",
        "there is an administrator already: sign in, or make another one with `roster member link LOGIN platform --role \
         platform_admin`",
    ),
    ("member_not_found", "there is no such member: `roster member list` shows them"),
    ("organization_not_found", "there is no such organization: `roster org list` shows them"),
    ("client_not_found", "there is no such API client: `roster client list` shows them"),
    ("api_key_not_found", "there is no such API key: `roster key list` shows them"),
    ("invitation_not_found", "there is no such invitation: `roster invite list` shows them"),
    ("job_not_found", "there is no such job: `roster job list` shows them"),
    ("delivery_not_found", "there is no such delivery: `roster outbox list` shows them"),
    ("plugin_not_found", "there is no such plugin: `roster plugin list` shows them"),
    ("mail_not_configured", "set mail.host and mail.from in roster.toml, and restart the server"),
    ("sftpgo_not_configured", "set sftpgo.url and sftpgo.secret_file in roster.toml, and restart the server"),
    ("media_root_not_configured", "set media_root in roster.toml, and restart the server"),
];

/// A failure's envelope as text for people at a command line.
fn explained(answer: &Value, spelling: &Spelling) -> String {
    let word = answer["detail"].as_str().unwrap_or_default();
    let message = answer["message"].as_str().unwrap_or("it failed, and did not say why");
    let is_of_table = ErrorCode::ALL.iter().any(|cause| cause.as_str() == word && cause.message() == message);
    // A sentence that was made for this one failure says more than the table.
    let said = SAID_HERE.iter().find(|(of, _)| is_of_table && *of == word).map(|(_, said)| *said);
    let mut text = said.unwrap_or(message).to_owned();
    for field in answer["fields"].as_array().into_iter().flatten() {
        let location: Vec<&str> =
            field["location"].as_array().into_iter().flatten().skip(1).filter_map(Value::as_str).collect();
        text.push_str(&format!("\n  {}", fault(spelling, &location, field["message"].as_str().unwrap_or_default())));
    }
    text
}

/// A bad field, as it is written on this command line; of a list or a file also which part of it.
fn fault(spelling: &Spelling, location: &[&str], message: &str) -> String {
    let (name, inner) = location.split_first().map_or(("", location), |(name, inner)| (*name, inner));
    let inner: String = inner.iter().map(|part| format!(".{part}")).collect();
    format!("{}{inner}: {message}", spelling.field(name))
}

/// What is wrong with a command before anything is asked of a site.
pub fn refused(error: &crate::kernel::error::Error, common: &Common) -> Failed {
    let faults = error.fields.iter().map(|field| {
        let location: Vec<&str> = field.location.iter().skip(1).map(String::as_str).collect();
        format!("\n  {}", fault(&common.spelling, &location, &field.message))
    });
    let said = SAID_HERE.iter().find(|(of, _)| *of == error.cause.as_str()).map_or(error.message(), |(_, said)| *said);
    Failed(format!("{said}{}", faults.collect::<String>()))
}
