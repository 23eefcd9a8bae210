//! Requests to identity providers and external systems: one HTTP client with limits on time and length, which follows
//! no redirects, and a circuit breaker per host.
//!
//! URLs come from the settings only, never from a request.

pub mod connection;
pub mod mail;
pub mod own_secrets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Request};
use serde_json::Value;

use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use connection::{ConnectionFailure, ConnectionRecords, FailureCause};
use own_secrets::{LooksSecret, OwnSecrets};

/// What an answer 401 or 403 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The credentials of the settings, so it is a failure of the connection.
    OfSettings,
    /// This request only: the credentials of a member, or a token that may have expired.
    OfRequest,
}

/// A response of an external system, not validated yet.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    /// Parses the body as JSON. A byte order mark before it is ignored, because some WordPress plugins send one.
    pub fn json(&self) -> Result<Value> {
        let body = self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body);
        serde_json::from_slice(body).map_err(|e| failed(format!("status {}, not JSON: {e}", self.status)))
    }
}

/// The circuit breaker of one host: its consecutive failures.
#[derive(Debug, Default, Clone, Copy)]
struct Breaker {
    failures: u64,
    /// When it opened: no requests are sent for the pause after it.
    opened_at: Option<Timestamp>,
}

/// A cached access token of an external system. The lock is held while the token is renewed, so that only one task
/// does.
pub type Token = Arc<tokio::sync::Mutex<Option<String>>>;

/// The HTTP client, the circuit breakers and the cached tokens.
pub struct Outbound {
    client: OnceLock<Client>,
    timeout: Duration,
    answer_bytes_max: u64,
    failures_max: u64,
    pause_s: u64,
    /// By origin; their number is bounded by the settings.
    breakers: Mutex<HashMap<String, Breaker>>,
    /// By the name of the external system.
    tokens: Mutex<HashMap<&'static str, Token>>,
    /// How the last requests went.
    pub records: ConnectionRecords,
    pub secrets: Arc<OwnSecrets>,
}

impl Outbound {
    pub fn new(config: &Config, looks_secret: LooksSecret) -> Self {
        let secrets = Arc::new(OwnSecrets::new(config, looks_secret));
        Self {
            client: OnceLock::new(),
            timeout: Duration::from_millis(config.neighbour_timeout_ms),
            answer_bytes_max: config.neighbour_answer_bytes,
            failures_max: config.neighbour_failures,
            pause_s: config.neighbour_pause_s,
            breakers: Mutex::default(),
            tokens: Mutex::default(),
            records: ConnectionRecords::new(secrets.clone()),
            secrets,
        }
    }

    /// Returns the token shared by all requests to this external system.
    pub fn token_at(&self, system: &'static str) -> Token {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.entry(system).or_default().clone()
    }

    /// Returns the client, to build requests with.
    pub fn client(&self) -> Result<&Client> {
        get_or_build(&self.client, || builder(self.timeout))
    }

    /// Sends a request to an external system, and records how it went. Fails with `neighbour_failed` if there is no
    /// complete response in time, it is too long, or the breaker is open. Only these failures and 5xx responses count
    /// for the breaker.
    pub async fn send(&self, system: &str, request: Request, refusal: Refusal) -> Result<Response> {
        let origin = request.url().origin().ascii_serialization();
        self.require_closed_breaker(&origin)?;
        let outcome = self.exchange(request).await;
        let is_success = outcome.as_ref().is_ok_and(|answer| answer.status < 500);
        self.count(&origin, is_success);
        self.record(system, &outcome, refusal);
        outcome.map_err(|failure| failed(format!("{origin}: {}", failure.message)))
    }

    /// Sends the request of a connection test, also while the breaker is open. A success closes the breaker; a failure
    /// does not count for it. Every answer but 2xx with JSON is a failure.
    pub async fn probe(&self, request: Request) -> Result<Response, ConnectionFailure> {
        let origin = request.url().origin().ascii_serialization();
        let answer = self.exchange(request).await?;
        if answer.status < 500 {
            self.count(&origin, true);
        }
        ConnectionFailure::of_response(&answer).map_or(Ok(answer), Err)
    }

    /// Records a request. Answers about what was asked, such as 404 and 409, show that the connection works.
    fn record(&self, system: &str, outcome: &Result<Response, ConnectionFailure>, refusal: Refusal) {
        let failure = match outcome {
            Err(failure) => failure.clone(),
            Ok(answer) if matches!(answer.status, 401 | 403) && refusal == Refusal::OfRequest => return,
            Ok(answer) if matches!(answer.status, 401 | 403) => match ConnectionFailure::of_response(answer) {
                Some(failure) => failure,
                None => return,
            },
            Ok(answer) => match ConnectionFailure::of_status(answer) {
                Some(failure) if !is_about_the_question(answer) => failure,
                _ => return self.records.record_success(system),
            },
        };
        self.records.record_failure(system, failure);
    }

    /// Seconds until requests are sent to the origin of this URL again; `None` if the breaker is closed.
    pub fn pause_s(&self, url: &str) -> Option<u64> {
        let origin = reqwest::Url::parse(url).ok()?.origin().ascii_serialization();
        Some(self.pause_of(&origin)).filter(|seconds| *seconds > 0)
    }

    async fn exchange(&self, request: Request) -> Result<Response, ConnectionFailure> {
        let mut response = self.client()?.execute(request).await.map_err(ConnectionFailure::of_request)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(ConnectionFailure::of_request)? {
            if (body.len() + piece.len()) as u64 > self.answer_bytes_max {
                let message = format!("the response is longer than {} bytes", self.answer_bytes_max);
                return Err(ConnectionFailure::new(FailureCause::UnexpectedAnswer, message));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Response { status, headers, body })
    }

    /// Seconds until requests are sent to this origin again.
    fn pause_of(&self, origin: &str) -> u64 {
        let Ok(breakers) = self.breakers.lock() else { return 0 };
        let pause_ms = i64::try_from(self.pause_s * 1_000).unwrap_or(i64::MAX);
        let until = breakers.get(origin).and_then(|b| b.opened_at).map(|at| at.plus_ms(pause_ms));
        let wait_ms = until.map_or(0, |until| until.0 - Timestamp::now().0);
        u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000)
    }

    fn require_closed_breaker(&self, origin: &str) -> Result<()> {
        let seconds = self.pause_of(origin);
        if seconds == 0 {
            return Ok(());
        }
        Err(failed(format!(
            "{origin} failed {} times in a row: no requests are sent to it for a while",
            self.failures_max
        ))
        .retry_after(seconds))
    }

    fn count(&self, origin: &str, is_success: bool) {
        let Ok(mut breakers) = self.breakers.lock() else { return };
        if is_success {
            breakers.remove(origin);
            return;
        }
        let breaker = breakers.entry(origin.to_owned()).or_default();
        breaker.failures += 1;
        if breaker.failures >= self.failures_max {
            // After the pause a request is tried again; if it fails too, the breaker opens again.
            breaker.opened_at = Some(Timestamp::now());
            tracing::warn!(
                origin,
                failures = breaker.failures,
                "an external system fails: no requests are sent to it for a while"
            );
        }
    }
}

/// The common configuration of all HTTP clients.
pub fn builder(timeout: Duration) -> ClientBuilder {
    // Fails if a provider is installed already, which is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(timeout)
        .user_agent(concat!("roster/", env!("CARGO_PKG_VERSION")))
}

/// Returns the client in `cell`, and builds it at first use: its certificates take memory that most sites do not need.
pub fn get_or_build(cell: &OnceLock<Client>, builder: impl FnOnce() -> ClientBuilder) -> Result<&Client> {
    if let Some(client) = cell.get() {
        return Ok(client);
    }
    let client = builder().build().map_err(|e| Error::internal(format!("the HTTP client cannot be built: {e}")))?;
    Ok(cell.get_or_init(|| client))
}

/// The delay in seconds of a `Retry-After` header: a number, or an HTTP date that is not in the past.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let until = || httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok();
    text.parse().ok().or_else(|| until()?.as_secs().checked_sub(u64::try_from(now.0).ok()? / 1_000))
}

// ── JSON of external systems ──

/// Converts a string, number or boolean to text.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(word) => Some(word.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether the value is `true`, or that as text.
pub fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|text| text.trim().eq_ignore_ascii_case("true")))
}

/// Whether an answer is about what was asked: there is no such thing, or it is not possible. A page of a proxy in between
/// is not JSON.
fn is_about_the_question(answer: &Response) -> bool {
    (400..500).contains(&answer.status) && answer.status != 429 && answer.json().is_ok()
}

fn failed(why: String) -> Error {
    Error::new(ErrorCode::ExternalSystemFailed).with_source(why)
}

/// The error with its causes, because its first line says only that there was one. Without the URL, which may contain a
/// member's name and would be stored in rows that outlive the member.
fn explained(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date_not_in_the_past() {
        let now = Timestamp(784_111_777_000);
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait(" 0 "), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:36 GMT"), None);
        for nothing in ["-1", "soon", "", "Sun, 06 Nov 1994 08:50:37", "Sun, 06 Foo 1994 08:50:37 GMT"] {
            assert_eq!(wait(nothing), None, "{nothing}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
