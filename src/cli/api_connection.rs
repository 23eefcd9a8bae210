//! The connection of a command to the API: the server's local socket, or an in-process endpoint.

use std::io::IsTerminal;
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use poem::http::Method;
use poem::{Body, Endpoint, Request};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::commands::segment;
use super::help::Spelling;
use super::{Common, Failed, Site, data_dir, open, output};
use crate::kernel::authn::caller::FromCommandLine;
use crate::kernel::db::mark;
use crate::kernel::error::ErrorCode;

/// How often, and at what interval, a command tries to lock a data directory that another process has locked.
const LOCK_ATTEMPTS_MAX: u32 = 200;
const LOCK_RETRY_WAIT: std::time::Duration = std::time::Duration::from_millis(50);

/// The interval at which a command looks at its task.
const TASK_WAIT: std::time::Duration = std::time::Duration::from_millis(250);

/// An open connection to the API.
pub struct ApiConnection {
    transport: Transport,
    spelling: Spelling,
}

enum Transport {
    Server(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    InProcess { site: Box<Site>, _lock: data_dir::Lock },
}

impl ApiConnection {
    /// Connects to the API of an existing data directory.
    pub async fn open(common: &Common) -> Result<Self, Failed> {
        // If there is a mark but no database, opening the database reports the loss and says what to do.
        if !data_dir::exists(&common.data)? && !mark::has_mark(&common.data.join("roster.db")) {
            let data = common.data.display();
            return Err(Failed(format!(
                "{data} is not a Roster data directory: create one with `roster init --data {data} --admin LOGIN`, or \
                 name yours with --data"
            )));
        }
        Self::open_or_create(common).await
    }

    /// Like [`Self::open`], but creates a site if the directory has none yet.
    pub async fn open_or_create(common: &Common) -> Result<Self, Failed> {
        let spelling = common.spelling.clone();
        // Another command, or a server that is starting, holds the lock for a short time only.
        let mut last_failure = None;
        for _ in 0..LOCK_ATTEMPTS_MAX {
            match data_dir::lock(&common.data)? {
                data_dir::Owner::ThisProcess(lock) => {
                    let site = open(common.load(None)?).await?;
                    let transport = Transport::InProcess { site: Box::new(site), _lock: lock };
                    return Ok(Self { transport, spelling });
                }
                data_dir::Owner::Server(socket) if !socket.as_os_str().is_empty() => match Transport::to(&socket).await
                {
                    Ok(transport) => return Ok(Self { transport, spelling }),
                    // A killed server may have left this socket while another one is starting.
                    Err(failed) => last_failure = Some(failed),
                },
                data_dir::Owner::Server(_) => {}
            }
            tokio::time::sleep(LOCK_RETRY_WAIT).await;
        }
        Err(last_failure.unwrap_or_else(|| data_dir::lock_timeout(&common.data, LOCK_RETRY_WAIT * LOCK_ATTEMPTS_MAX)))
    }

    /// Calls an operation with an optional JSON body. Returns the `data` of the answer.
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

    /// Like [`Self::call`], with a body of any content type.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        content_type: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Value, Failed> {
        let bytes = match &mut self.transport {
            Transport::Server(sender) => {
                let mut request = hyper::Request::builder().method(method).uri(path).header("host", "local");
                request = request.header("content-type", content_type);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request = request
                    .body(Full::new(Bytes::from(body.unwrap_or_default())))
                    .map_err(|e| Failed(e.to_string()))?;
                // The connection may still be busy with the previous request.
                sender.ready().await.map_err(|e| connection_lost(true, &e))?;
                let answer = sender.send_request(request).await.map_err(|e| connection_lost(e.is_canceled(), &e))?;
                answer.into_body().collect().await.map_err(|e| connection_lost(false, &e))?.to_bytes()
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
        Err(Failed(failure_message(&answer, &self.spelling)))
    }

    /// Like [`Self::send`] with POST, for an operation that can run in the background. If standard error is a terminal, it
    /// shows the progress there, and Ctrl-C cancels the task.
    pub async fn follow(
        &mut self,
        common: &Common,
        path: &str,
        headers: &[(&str, &str)],
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Value, Failed> {
        if !std::io::stderr().is_terminal() {
            return self.send(Method::POST, path, headers, content_type, Some(body)).await;
        }
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}background=true");
        let tasks = format!("{}/tasks", common.load(None)?.base_path);
        let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| Failed(e.to_string()))?;
        let mut task = self.send(Method::POST, &path, headers, content_type, Some(body)).await?;
        let address = format!("{tasks}/{}", segment(task["id"].as_str().unwrap_or_default()));
        while task["state"] == "running" {
            output::progress(&progress_of(&task));
            let method = tokio::select! {
                () = tokio::time::sleep(TASK_WAIT) => Method::GET,
                _ = interrupts.recv() => Method::DELETE,
            };
            let seen = self.call(method, &address, &[], None).await;
            output::progress("");
            task = seen?;
        }
        let error = &task["error"];
        match task["state"].as_str() {
            Some("failed") => {
                let answer = json!({"detail": error["error_code"], "message": error["message"]});
                Err(Failed(failure_message(&answer, &self.spelling)))
            }
            Some("cancelled") => Err(Failed("cancelled: what was done until then stays".into())),
            _ if task["result"].is_null() => {
                Err(Failed("it is done, but its result is longer than tasks.bytes and was not kept".into()))
            }
            _ => Ok(task["result"].take()),
        }
    }

    /// Whether a running server answers, not this process.
    pub fn is_served(&self) -> bool {
        matches!(self.transport, Transport::Server(_))
    }

    /// Closes the connection. In process, this completes pending writes and closes the database.
    pub async fn close(self) {
        if let Transport::InProcess { site, .. } = self.transport {
            site.app.close().await;
        }
    }
}

impl Transport {
    async fn to(socket: &Path) -> Result<Self, Failed> {
        let busy = |e: &dyn std::fmt::Display| {
            Failed(format!(
                "another Roster has locked this data directory but does not answer on {}: {e}",
                socket.display()
            ))
        };
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| busy(&e))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| busy(&e))?;
        tokio::spawn(connection);
        Ok(Self::Server(sender))
    }
}

/// The line of a running task: its step, and how much is done.
fn progress_of(task: &Value) -> String {
    let step = task["step"].as_str().unwrap_or("starting");
    let total = task["total"].as_u64().map(|total| format!(" of {total}")).unwrap_or_default();
    let note = if task["cancel_requested"] == true { "; stopping" } else { "" };
    format!("{step}: {}{total}{note}", task["done"])
}

/// The failure of a request during which the server stopped. `is_unsent`: the server did not receive the request.
fn connection_lost(is_unsent: bool, error: &hyper::Error) -> Failed {
    Failed(match is_unsent {
        true => format!(
            "the server stopped before it received the request ({error}): nothing was done. Run the command again"
        ),
        false => format!(
            "the server stopped before it answered ({error}): this may have been done or not. Check before you repeat it, \
             for example with `roster member list` after `roster member create`"
        ),
    })
}

/// Messages by error word that replace those of the API on the command line, because the API's messages name headers
/// and URLs.
const COMMAND_LINE_MESSAGES: [(&str, &str); 15] = [
    ("bad_input", "some of these arguments are not valid"),
    ("route_not_found", "the running server does not know this command: its version differs from that of this program"),
    (
        "setup_done",
        "there is already an administrator: sign in, or create another one with `roster member link LOGIN platform --role \
         platform_admin`",
    ),
    ("member_not_found", "there is no such member: `roster member list` shows them"),
    ("organization_not_found", "there is no such organization: `roster org list` shows them"),
    ("client_not_found", "there is no such API client: `roster client list` shows them"),
    ("api_key_not_found", "there is no such API key: `roster key list` shows them"),
    ("invitation_not_found", "there is no such invitation: `roster invite list` shows them"),
    ("job_not_found", "there is no such job: `roster job list` shows them"),
    ("task_not_found", "there is no such task: `roster task list` shows those of the running server"),
    ("delivery_not_found", "there is no such delivery: `roster outbox list` shows them"),
    ("plugin_not_found", "there is no such plugin: `roster plugin list` shows them"),
    ("mail_not_configured", "set mail.host and mail.from in roster.toml, and restart the server"),
    ("sftpgo_not_configured", "set sftpgo.url and sftpgo.secret_file in roster.toml, and restart the server"),
    ("media_root_not_configured", "set media_root in roster.toml, and restart the server"),
];

/// The text of a failed answer for the terminal: its message, then one line per invalid field.
fn failure_message(answer: &Value, spelling: &Spelling) -> String {
    let word = answer["detail"].as_str().unwrap_or_default();
    let message = answer["message"].as_str().unwrap_or("it failed without a message");
    let is_default_message = ErrorCode::ALL.iter().any(|cause| cause.as_str() == word && cause.message() == message);
    // A message that was written for this failure is more specific than the table.
    let replacement = COMMAND_LINE_MESSAGES.iter().find(|(of, _)| is_default_message && *of == word);
    let mut text = replacement.map_or(message, |(_, text)| *text).to_owned();
    for field in answer["fields"].as_array().into_iter().flatten() {
        let location: Vec<&str> =
            field["location"].as_array().into_iter().flatten().skip(1).filter_map(Value::as_str).collect();
        text.push_str(&format!("\n  {}", fault(spelling, &location, field["message"].as_str().unwrap_or_default())));
    }
    text
}

/// The line for an invalid field: the flag of this command, the path inside it for lists and files, and the message.
fn fault(spelling: &Spelling, location: &[&str], message: &str) -> String {
    let (name, inner) = location.split_first().map_or(("", location), |(name, inner)| (*name, inner));
    let inner: String = inner.iter().map(|part| format!(".{part}")).collect();
    format!("{}{inner}: {message}", spelling.field(name))
}

/// Converts an error that was found before any request was sent.
pub fn invalid_input(error: &crate::kernel::error::Error, common: &Common) -> Failed {
    let faults = error.fields.iter().map(|field| {
        let location: Vec<&str> = field.location.iter().skip(1).map(String::as_str).collect();
        format!("\n  {}", fault(&common.spelling, &location, &field.message))
    });
    let replacement = COMMAND_LINE_MESSAGES.iter().find(|(of, _)| *of == error.code.as_str());
    let message = replacement.map_or(error.message(), |(_, text)| *text);
    Failed(format!("{message}{}", faults.collect::<String>()))
}
