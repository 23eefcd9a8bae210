//! Denied changes in the audit log: each kind once a minute, with the number of repeats in between.

use std::borrow::Cow;
use std::net::IpAddr;

use super::App;
use super::repeats::RepeatLimiter;
use crate::kernel::app::redact;
use crate::kernel::audit_log::{self, Entry, Outcome};
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// Denials of one caller, operation and tenant within this time are one audit row. Refusals of one caller and address
/// with one error code are one line of the log.
const COALESCED_MS: i64 = 60_000;
/// Kinds of denials or refusals beyond this number are only counted, in one entry for all.
const KINDS_MAX: usize = 4_096;
/// Longer paths are cut to this length in log lines and audit rows.
const PATH_CHARACTERS_MAX: usize = 200;

/// Recent denials, by caller, operation and tenant. The key holds nothing that a caller can choose freely.
pub type Denials = RepeatLimiter<(String, String, Option<OrganizationId>)>;
/// Recent refusals, by error word, kind and name of the caller, and address.
pub type Refusals = RepeatLimiter<(&'static str, &'static str, String, Option<IpAddr>)>;

pub fn denials() -> Denials {
    RepeatLimiter::new(COALESCED_MS, KINDS_MAX, ("others".to_owned(), String::new(), None))
}

pub fn refusals() -> Refusals {
    RepeatLimiter::new(COALESCED_MS, KINDS_MAX, ("others", "others", String::new(), None))
}

/// A path as it is logged: without secrets, and cut to a maximum length.
pub fn loggable_path(path: &str) -> Cow<'_, str> {
    let path = redact::without_secrets(path).map_or(Cow::Borrowed(path), Cow::Owned);
    match path.char_indices().nth(PATH_CHARACTERS_MAX) {
        Some((end, _)) => Cow::Owned(path[..end].to_owned()),
        None => path,
    }
}

impl App {
    /// Logs a failure. The level depends on its status. Repeated failures of one caller are logged once a minute.
    pub fn log_failure(&self, failure: &Error, context: &RequestContext) {
        let path = loggable_path(&context.path);
        let (cause, request_id, path) = (failure.code, &context.request_id, &*path);
        let (word, mut source) = (cause.as_str(), Cow::Borrowed(failure.source.as_deref().unwrap_or("")));
        if cause == ErrorCode::ExternalSystemFailed {
            // It can have words of the other side.
            source = Cow::Owned(self.outbound.secrets.hide(&source));
        }
        let source = &*source;
        let (kind, name) = context.actor();
        if cause == ErrorCode::Internal {
            // Logged every time, because the answer refers to this log line.
            return tracing::error!(request_id, path, word, source, kind, name, "failed");
        }
        let status = cause.status();
        let is_counted = matches!(status, 401 | 403 | 429 | 500..);
        let key = (word, kind, name.clone(), context.address);
        let repeats = if is_counted { self.refusals.count(key, Timestamp::now()) } else { None };
        match (status, repeats) {
            (_, None) => tracing::debug!(request_id, path, word, source, kind, name, "refused"),
            // A feature that is not configured is not a server fault.
            (401 | 403 | 429 | 501, Some(repeats)) => {
                tracing::info!(request_id, path, word, source, kind, name, repeats, "refused");
            }
            (502 | 503, Some(repeats)) => {
                tracing::warn!(request_id, path, word, source, kind, name, repeats, "failed");
            }
            (_, Some(repeats)) => tracing::error!(request_id, path, word, source, kind, name, repeats, "failed"),
        }
    }

    /// Writes an audit entry for a denied change; repeats within a minute are one row.
    pub async fn record_denial(&self, context: &RequestContext, action: &str, word: &str) -> Result<()> {
        let (kind, name) = context.actor();
        let tenant = context.tenant.get().copied();
        let Some(repeats) = self.denials.count((format!("{kind} {name}"), action.to_owned(), tenant), Timestamp::now())
        else {
            return Ok(());
        };
        let (request_id, action) = (context.request_id.clone(), action.to_owned());
        let address = context.address.map_or_else(|| "unknown".into(), |address| address.to_string());
        let after = serde_json::json!({"detail": word, "repeats_before": repeats});
        let entry = Entry::new("path", loggable_path(&context.path)).within(tenant).after(after);
        self.write_unaudited(move |w| {
            audit_log::record(w, (kind, &name), (&request_id, &address), &action, Outcome::Denied, &entry)
        })
        .await
    }

    /// Like `record_denial` for a credential that ended in the midst of an operation, which neither requests nor tasks
    /// record. Other errors are left out.
    pub async fn record_lost_credential(&self, context: &RequestContext, action: &str, error: &Error) {
        if error.code.status() != 401 {
            return;
        }
        if let Err(e) = self.record_denial(context, action, error.code.as_str()).await {
            tracing::error!(error = %e, "a denial could not be recorded");
        }
    }

    /// Records the repeats of denials and refusals whose minute is over, so that none is lost.
    pub async fn flush_denials(&self) -> Result<()> {
        let unreported = self.refusals.take_expired(Timestamp::now());
        if !unreported.is_empty() {
            let repeats: u64 = unreported.iter().map(|(_, count)| count).sum();
            tracing::info!(kinds = unreported.len(), repeats, "repeated refusals and failures");
        }
        let over = self.denials.take_expired(Timestamp::now());
        if over.is_empty() {
            return Ok(());
        }
        self.write_each_unaudited(over, |w, ((actor, action, tenant), count)| {
            let (kind, name) = actor.split_once(' ').unwrap_or((actor, ""));
            let after = serde_json::json!({"repeats": count});
            let entry = Entry::new("denials", "repeated").within(*tenant).after(after);
            audit_log::record(w, (kind, name), ("", "unknown"), action, Outcome::Denied, &entry)
        })
        .await
    }
}
