//! Connections to external systems: what each is, and how the last requests to it went since the start of the server.
//!
//! **Invariant.** There is at most one record for each system of the settings, and no record holds a secret or the name
//! of a member.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::StatusCode;
use reqwest::header::{AGE, DATE};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::own_secrets::OwnSecrets;
use super::{Response, explained};
use crate::kernel::error::Error;
use crate::kernel::ids::Timestamp;

/// The kind of an external system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionKind {
    Wordpress,
    Sftpgo,
    Oidc,
    Authentik,
    Mail,
    Webhooks,
}

/// A setting of a connection, without its value, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSetting {
    pub name: String,
    pub is_set: bool,
}

/// An external system, as the settings describe it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Identifies it, in the API and in the records.
    pub name: String,
    pub kind: ConnectionKind,
    pub is_configured: bool,
    /// Its URL, or host and port; empty if there is none.
    pub url: String,
    pub settings: Vec<ConnectionSetting>,
}

impl Connection {
    pub fn new(name: impl Into<String>, kind: ConnectionKind, url: impl Into<String>) -> Self {
        let url = url.into();
        Self { name: name.into(), kind, is_configured: !url.is_empty(), url, settings: Vec::new() }
    }

    /// Adds a setting.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, is_set: bool) -> Self {
        self.settings.push(ConnectionSetting { name: name.into(), is_set });
        self
    }

    /// Host and port, without credentials, path and query.
    pub fn address(&self) -> Option<String> {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        (!host.is_empty()).then(|| host.to_owned())
    }
}

/// Why a request to an external system failed, as far as it decides what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// The credentials are wrong.
    Unauthorized,
    /// The account lacks a permission.
    Forbidden,
    /// Nothing is at this address.
    NotFound,
    /// It answered with a redirect, which is not followed.
    Redirected,
    /// It refuses more requests for now.
    RateLimited,
    /// It failed itself.
    ServerError,
    /// It answered something that this system does not answer.
    UnexpectedAnswer,
    /// TLS failed, mostly because its certificate is not trusted.
    Certificate,
    /// Its clock and the one of this machine differ.
    Clock,
    /// The name of the host is unknown.
    NameNotResolved,
    /// Nothing listens at its port.
    Refused,
    /// The connection failed in another way.
    Unreachable,
    /// It did not answer in time.
    Timeout,
}

/// A failed request to an external system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionFailure {
    pub cause: FailureCause,
    /// In the words of the other side as far as there are any.
    pub message: String,
    /// The status of the answer.
    pub status: Option<u16>,
}

/// The length of a message, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// The largest difference of two clocks, in seconds. Tickets of WordPress are valid for as long.
const CLOCK_DIFFERENCE_MAX_S: i64 = 60;

impl ConnectionFailure {
    pub fn new(cause: FailureCause, message: impl AsRef<str>) -> Self {
        Self { cause, message: bounded(message.as_ref()), status: None }
    }

    /// A request that got no complete answer.
    pub(super) fn of_request(error: reqwest::Error) -> Self {
        let cause = if error.is_timeout() { Some(FailureCause::Timeout) } else { cause_of(&error) };
        let other = if error.is_connect() { FailureCause::Unreachable } else { FailureCause::UnexpectedAnswer };
        Self::new(cause.unwrap_or(other), explained(error))
    }

    /// The failure that an answer is, by its status; `None` for 2xx with JSON. The message has no text of the body.
    pub fn of_status(response: &Response) -> Option<Self> {
        let cause = match response.status {
            200..=299 if is_json(response) => return None,
            200..=299 => FailureCause::UnexpectedAnswer,
            300..=399 => FailureCause::Redirected,
            401 => FailureCause::Unauthorized,
            403 => FailureCause::Forbidden,
            404 | 410 => FailureCause::NotFound,
            429 => FailureCause::RateLimited,
            500.. => FailureCause::ServerError,
            _ => FailureCause::UnexpectedAnswer,
        };
        let reason = StatusCode::from_u16(response.status).ok().and_then(|status| status.canonical_reason());
        let mut message = format!("{} {}", response.status, reason.unwrap_or_default()).trim_end().to_owned();
        if !is_json(response) && (200..=299).contains(&response.status) {
            message.push_str(", but the answer is not JSON");
        }
        Some(Self { status: Some(response.status), ..Self::new(cause, message) })
    }

    /// The same with what the answer says.
    pub fn of_response(response: &Response) -> Option<Self> {
        let failure = Self::of_status(response)?;
        let body: Value = response.json().unwrap_or_default();
        let said = ["message", "error_description", "detail", "error"].iter().filter_map(|key| body[*key].as_str());
        let said = said.map(without_tags).find(|text| !text.is_empty());
        Some(match said {
            Some(said) if said != failure.message => {
                let message = bounded(&format!("{}: {said}", failure.message));
                Self { message, ..failure }
            }
            _ => failure,
        })
    }

    #[must_use]
    pub fn with_cause(self, cause: FailureCause) -> Self {
        Self { cause, ..self }
    }
}

impl From<Error> for ConnectionFailure {
    fn from(error: Error) -> Self {
        Self::new(FailureCause::UnexpectedAnswer, error.source.as_deref().unwrap_or(error.message()))
    }
}

/// Fails if the clock of the other side, by the `Date` of its answer, differs too much. An answer of a cache says with
/// `Age` how old it is.
pub fn require_same_clock(response: &Response, now: Timestamp) -> Result<(), ConnectionFailure> {
    let text = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
    let date = text(DATE).and_then(|text| httpdate::parse_http_date(text).ok());
    let Some(since) = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok()) else { return Ok(()) };
    let age_s: i64 = text(AGE).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let there_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_add(age_s);
    let ahead_s = there_s.saturating_sub(now.0 / 1_000);
    if ahead_s.abs() <= CLOCK_DIFFERENCE_MAX_S {
        return Ok(());
    }
    let direction = if ahead_s > 0 { "ahead of" } else { "behind" };
    let message = format!("its clock is {} seconds {direction} the one of this machine", ahead_s.unsigned_abs());
    Err(ConnectionFailure::new(FailureCause::Clock, message))
}

fn is_json(response: &Response) -> bool {
    let body = response.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&response.body);
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// The text in one line without control characters, at most so long as a message may be.
fn bounded(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() > MESSAGE_CHARS_MAX {
        words = words.chars().take(MESSAGE_CHARS_MAX - 1).chain(['…']).collect();
    }
    words
}

/// The text without HTML tags, which WordPress writes into its messages.
fn without_tags(text: &str) -> String {
    let mut plain = String::new();
    let mut is_inside = false;
    for c in text.chars() {
        match c {
            '<' => is_inside = true,
            '>' if is_inside => is_inside = false,
            _ if !is_inside => plain.push(c),
            _ => {}
        }
    }
    bounded(&plain)
}

/// The cause that an error or one of its sources names.
pub(super) fn cause_of(error: &(dyn StdError + 'static)) -> Option<FailureCause> {
    let mut next = Some(error);
    while let Some(one) = next {
        if let Some(cause) = cause_in(one) {
            return Some(cause);
        }
        next = one.source();
    }
    None
}

fn cause_in(error: &(dyn StdError + 'static)) -> Option<FailureCause> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(match tls {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidYet | rustls::CertificateError::NotValidYetContext { .. },
            ) => FailureCause::Clock,
            _ => FailureCause::Certificate,
        });
    }
    let io = error.downcast_ref::<std::io::Error>()?;
    // An error inside is not among the sources of an I/O error.
    if let Some(cause) = io.get_ref().and_then(|inner| cause_of(inner)) {
        return Some(cause);
    }
    match io.kind() {
        ErrorKind::ConnectionRefused => Some(FailureCause::Refused),
        ErrorKind::TimedOut => Some(FailureCause::Timeout),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(FailureCause::Unreachable),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => {
            Some(FailureCause::Unreachable)
        }
        _ if io.to_string().contains("lookup address") => Some(FailureCause::NameNotResolved),
        _ => None,
    }
}

/// How the last requests to a system went.
#[derive(Debug, Clone, Default)]
pub struct ConnectionRecord {
    pub succeeded_at: Option<Timestamp>,
    /// The first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// The last failure, also if a success followed.
    pub failure: Option<(Timestamp, ConnectionFailure)>,
}

/// The records of all systems, by their names in the settings.
#[derive(Default)]
pub struct ConnectionRecords {
    all: Mutex<BTreeMap<String, ConnectionRecord>>,
    secrets: Arc<OwnSecrets>,
}

impl ConnectionRecords {
    pub fn new(secrets: Arc<OwnSecrets>) -> Self {
        Self { all: Mutex::default(), secrets }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, ConnectionRecord>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of this system; an empty one if there was no request.
    pub fn get(&self, system: &str) -> ConnectionRecord {
        self.all().get(system).cloned().unwrap_or_default()
    }

    pub fn record_success(&self, system: &str) {
        let mut all = self.all();
        if let Some(record) = all.get_mut(system) {
            (record.succeeded_at, record.failing_since) = (Some(Timestamp::now()), None);
        } else {
            let record = ConnectionRecord { succeeded_at: Some(Timestamp::now()), ..ConnectionRecord::default() };
            all.insert(system.to_owned(), record);
        }
    }

    /// Records a failure. Our own secrets are hidden in its message, because it can have words of the other side.
    pub fn record_failure(&self, system: &str, mut failure: ConnectionFailure) {
        failure.message = self.secrets.hide(&failure.message);
        let now = Timestamp::now();
        let mut all = self.all();
        let record = all.entry(system.to_owned()).or_default();
        record.failing_since.get_or_insert(now);
        record.failure = Some((now, failure));
    }

    pub fn record(&self, system: &str, outcome: &Result<(), ConnectionFailure>) {
        match outcome {
            Ok(()) => self.record_success(system),
            Err(failure) => self.record_failure(system, failure.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderValue};

    use super::*;

    fn response(status: u16, body: &str) -> Response {
        Response { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn an_address_has_no_credentials_and_no_path() {
        for (url, address) in [
            ("https://files.example.org/api/v2", Some("files.example.org")),
            ("http://127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("https://kim:secret@example.org?a", Some("example.org")),
            ("mail.example.org:587", Some("mail.example.org:587")),
            ("", None),
        ] {
            let connection = Connection::new("x", ConnectionKind::Mail, url);
            assert_eq!((connection.address().as_deref(), connection.is_configured), (address, address.is_some()));
        }
    }

    #[test]
    fn an_answer_is_judged_by_its_status_and_quoted_in_bounds() {
        let judged = |status, body: &str| ConnectionFailure::of_response(&response(status, body));
        assert_eq!(judged(200, "{}"), None);
        for (status, body, cause, message) in [
            (200, "<p>", FailureCause::UnexpectedAnswer, "200 OK, but the answer is not JSON"),
            (301, "", FailureCause::Redirected, "301 Moved Permanently"),
            (401, r#"{"message":"<b>Error:</b> no"}"#, FailureCause::Unauthorized, "401 Unauthorized: Error: no"),
            (403, r#"{"detail":"a\nb"}"#, FailureCause::Forbidden, "403 Forbidden: a b"),
            (404, r#"{"message":"","error":"gone"}"#, FailureCause::NotFound, "404 Not Found: gone"),
            (418, "", FailureCause::UnexpectedAnswer, "418 I'm a teapot"),
            (429, "[]", FailureCause::RateLimited, "429 Too Many Requests"),
            (500, "", FailureCause::ServerError, "500 Internal Server Error"),
        ] {
            let found = judged(status, body).expect("a failure");
            assert_eq!((found.cause, found.message.as_str(), found.status), (cause, message, Some(status)));
        }
        let long = judged(400, &format!(r#"{{"error":"{}"}}"#, "x".repeat(400))).expect("a failure").message;
        assert_eq!((long.chars().count(), long.ends_with('…')), (MESSAGE_CHARS_MAX, true));
    }

    #[test]
    fn clocks_may_differ_up_to_the_limit() {
        let now = Timestamp(784_111_777_000);
        let cause = |date: &str, age: Option<&'static str>| {
            let mut response = response(200, "{}");
            response.headers.insert(DATE, date.parse().expect("a header"));
            age.map(|age| response.headers.insert(AGE, HeaderValue::from_static(age)));
            require_same_clock(&response, now).err().map(|failure| failure.message)
        };
        assert_eq!(cause("Sun, 06 Nov 1994 08:50:37 GMT", None), None);
        assert_eq!(cause("Sun, 06 Nov 1994 08:48:37 GMT", None), None);
        assert_eq!(
            cause("Sun, 06 Nov 1994 08:50:38 GMT", None).as_deref(),
            Some("its clock is 61 seconds ahead of the one of this machine")
        );
        assert_eq!(
            cause("Sun, 06 Nov 1994 08:48:36 GMT", None).as_deref(),
            Some("its clock is 61 seconds behind the one of this machine")
        );
        assert_eq!(cause("Sun, 06 Nov 1994 08:48:36 GMT", Some("60")), None);
        assert_eq!(cause("soon", None), None);
        assert_eq!(require_same_clock(&response(200, "{}"), now), Ok(()));
    }

    #[test]
    fn causes_are_found_inside_of_errors() {
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let early = rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidYet);
        for (error, cause) in [
            (std::io::Error::other(inner), Some(FailureCause::Certificate)),
            (std::io::Error::other(early), Some(FailureCause::Clock)),
            (std::io::Error::from(ErrorKind::ConnectionRefused), Some(FailureCause::Refused)),
            (
                std::io::Error::other("failed to lookup address information: Name or service not known"),
                Some(FailureCause::NameNotResolved),
            ),
            (std::io::Error::other("else"), None),
        ] {
            assert_eq!(cause_of(&error), cause, "{error}");
        }
    }

    #[test]
    fn a_success_ends_a_failure_and_its_beginning_is_kept() {
        let records = ConnectionRecords::default();
        assert!(records.get("x").succeeded_at.is_none());
        records.record_failure("x", ConnectionFailure::new(FailureCause::Refused, "no"));
        let since = records.get("x").failing_since;
        records.record_failure("x", ConnectionFailure::new(FailureCause::Timeout, "slow"));
        let record = records.get("x");
        assert_eq!((record.failing_since, record.failure.map(|(_, f)| f.cause)), (since, Some(FailureCause::Timeout)));
        records.record_success("x");
        let record = records.get("x");
        assert!(record.failing_since.is_none() && record.succeeded_at.is_some() && record.failure.is_some());
        assert!(records.get("y").failure.is_none());
    }
}
