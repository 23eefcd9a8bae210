//! Requests to identity providers and external systems: one HTTP client with limits on time and length, which follows
//! no redirects, and a circuit breaker per host.
//!
//! URLs come from the settings only, never from a request.

pub mod mail;

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
}

impl Outbound {
    pub fn new(config: &Config) -> Self {
        Self {
            client: OnceLock::new(),
            timeout: Duration::from_millis(config.neighbour_timeout_ms),
            answer_bytes_max: config.neighbour_answer_bytes,
            failures_max: config.neighbour_failures,
            pause_s: config.neighbour_pause_s,
            breakers: Mutex::default(),
            tokens: Mutex::default(),
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

    /// Sends a request. Fails with `neighbour_failed` if there is no complete response in time, it is too long, or the
    /// breaker is open. Only these failures and 5xx responses count for the breaker.
    pub async fn send(&self, request: Request) -> Result<Response> {
        let origin = request.url().origin().ascii_serialization();
        self.require_closed_breaker(&origin)?;
        let outcome = self.exchange(request).await;
        let is_success = outcome.as_ref().is_ok_and(|answer| answer.status < 500);
        self.count(&origin, is_success);
        outcome.map_err(|e| {
            let why = format!("{origin}: {}", e.source.as_deref().unwrap_or_default());
            e.with_source(why)
        })
    }

    async fn exchange(&self, request: Request) -> Result<Response> {
        let mut response = self.client()?.execute(request).await.map_err(|e| failed(explained(e)))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| failed(explained(e)))? {
            if (body.len() + piece.len()) as u64 > self.answer_bytes_max {
                return Err(failed(format!("the response is longer than {} bytes", self.answer_bytes_max)));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Response { status, headers, body })
    }

    fn require_closed_breaker(&self, origin: &str) -> Result<()> {
        let Ok(breakers) = self.breakers.lock() else { return Ok(()) };
        let pause_ms = i64::try_from(self.pause_s * 1_000).unwrap_or(i64::MAX);
        let until = breakers.get(origin).and_then(|b| b.opened_at).map(|at| at.plus_ms(pause_ms));
        let wait_ms = until.map_or(0, |until| until.0 - Timestamp::now().0);
        if wait_ms <= 0 {
            return Ok(());
        }
        let seconds = u64::try_from(wait_ms).unwrap_or_default().div_ceil(1_000);
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
