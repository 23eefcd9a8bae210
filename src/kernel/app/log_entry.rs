//! Selects which decisions are logged and builds their rows, on the decision log's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::App;
use super::evaluate::{Evaluation, HOST_FACTS, NOW_MS, RequestFacts, authorizer_input};
use crate::kernel::app::redact;
use crate::kernel::authz::decide::{AccessRequest, Reason, Target, decide};
use crate::kernel::authz::plugin::{Mode, PluginOutcome};
use crate::kernel::authz::resolved_request::ResolvedRequest;
use crate::kernel::authz::snapshot::{Right, Snapshot};
use crate::kernel::decision_log::Row;
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::sandbox::{AccessInput, Claim};

/// The most bytes of facts that are kept of one decision. Facts that are left out as secrets count too.
const FACTS_BYTES_MAX: usize = 8_192;
/// The longest path that is kept; longer ones are cut.
const PATH_BYTES_MAX: usize = 2_048;
/// The names of facts that were left out are cut to this length.
const NAME_CHARS_MAX: usize = 64;
/// The most such names that are kept.
const LEFT_OUT_MAX: usize = 32;

/// The part of one plugin in a decision, as it is stored and listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginTrace {
    pub name: String,
    pub version: u32,
    pub sha256: String,
    pub mode: Mode,
    pub outcome: PluginOutcome,
    pub fuel: u64,
    pub duration_us: u64,
    pub differed: bool,
}

/// A decision that is queued for the log.
pub struct LogEntry {
    at: Timestamp,
    snapshot: Arc<Snapshot>,
    tenant: Option<OrganizationId>,
    member: MemberId,
    target: OwnedTarget,
    /// Without facts past the length limit. Secrets are searched for and removed on the log's thread.
    facts: RequestFacts,
    /// Names of the facts that were left out.
    left_out: Vec<String>,
    base: Reason,
    allow: bool,
    reason: Reason,
    plugins: Vec<PluginTrace>,
    /// Whether it depends on platform rights, which the tenant's administrators cannot see. The row then has no
    /// organization.
    is_of_site: bool,
}

/// A [`Target`] that owns its strings.
enum OwnedTarget {
    Route { app: String, method: String, path: String },
    Permission(String),
    Operation(String),
    Grant([String; 4]),
}

impl OwnedTarget {
    fn of(target: Target<'_>) -> Self {
        match target {
            Target::Route { app, method, path } => {
                Self::Route { app: app.to_owned(), method: method.to_owned(), path: path.to_owned() }
            }
            Target::Permission(name) => Self::Permission(name.to_owned()),
            Target::Builtin(permission) => Self::Permission(permission.builtin().name.to_owned()),
            Target::Operation(name) => Self::Operation(name.to_owned()),
            Target::Grant(right) => {
                Self::Grant([right.scope_type, right.scope_id, right.module, right.action].map(str::to_owned))
            }
        }
    }

    /// Hides what looks like a secret and cuts a long path; returns the names of the parts that were changed.
    fn shorten(&mut self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        match self {
            Self::Route { path, .. } => {
                if let Some(hidden) = redact::without_secrets(path) {
                    *path = hidden;
                    changed.push("path");
                }
                if path.len() > PATH_BYTES_MAX {
                    let end = (0..=PATH_BYTES_MAX).rev().find(|at| path.is_char_boundary(*at)).unwrap_or_default();
                    path.truncate(end);
                    changed.push("path");
                }
            }
            Self::Permission(name) if redact::is_secret(name) => {
                redact::HIDDEN.clone_into(name);
                changed.push("permission");
            }
            Self::Grant(parts) => {
                for (part, name) in parts.iter_mut().zip(["scope_type", "scope_id", "module", "action"]) {
                    if redact::is_secret(part) {
                        redact::HIDDEN.clone_into(part);
                        changed.push(name);
                    }
                }
            }
            Self::Permission(_) | Self::Operation(_) => {}
        }
        changed.dedup();
        changed
    }

    fn as_target(&self) -> Target<'_> {
        match self {
            Self::Route { app, method, path } => Target::Route { app, method, path },
            Self::Permission(name) => Target::Permission(name),
            Self::Operation(name) => Target::Operation(name),
            Self::Grant([scope_type, scope_id, module, action]) => {
                Target::Grant(Right { scope_type, scope_id, module, action })
            }
        }
    }
}

/// Counts allowed decisions, of which every n-th is logged.
#[derive(Debug, Default)]
pub struct AllowedCounter(AtomicU64);

impl App {
    /// Whether a decision is logged: always for denials and shadow differences, otherwise every
    /// `decisions.allow_every`-th.
    pub fn is_logged(&self, is_allowed: bool, has_differed: bool) -> bool {
        if !is_allowed || has_differed {
            return true;
        }
        match self.config.decisions_allow_every {
            0 => false,
            1 => true,
            every => self.allowed.0.fetch_add(1, Ordering::Relaxed) % every == every - 1,
        }
    }
}

impl LogEntry {
    pub fn new(
        snapshot: &Arc<Snapshot>,
        request: &AccessRequest<'_>,
        facts: &RequestFacts,
        at: Timestamp,
        evaluation: &Evaluation,
    ) -> Self {
        let plugins = evaluation.plugins.iter().map(|answer| PluginTrace {
            name: answer.name.to_string(),
            version: answer.version,
            sha256: hex::encode(answer.sha256),
            mode: answer.mode,
            outcome: answer.outcome(),
            fuel: answer.fuel,
            duration_us: u64::try_from(answer.duration.as_micros()).unwrap_or(u64::MAX),
            differed: answer.differed,
        });
        let of_tenant = AccessRequest { with_platform: false, ..*request };
        let is_of_site = request.with_platform && decide(snapshot, &of_tenant).reason != evaluation.base;
        let (facts, left_out) = within_bytes(facts);
        Self {
            at,
            snapshot: snapshot.clone(),
            tenant: request.tenant,
            member: request.member,
            target: OwnedTarget::of(request.target),
            facts,
            left_out,
            base: evaluation.base,
            allow: evaluation.decision.allow,
            reason: evaluation.decision.reason,
            plugins: plugins.collect(),
            is_of_site,
        }
    }

    /// Builds the row. The request is resolved with the snapshot that decided, so the row shows the policy of that
    /// time.
    pub fn row(mut self) -> Row {
        let (facts, secrets) = without_secrets(self.facts);
        (self.facts, self.left_out) = (facts, [self.left_out, secrets].concat());
        self.left_out.truncate(LEFT_OUT_MAX);
        self.left_out.extend(self.target.shorten().into_iter().map(str::to_owned));
        let request = AccessRequest {
            tenant: self.tenant,
            member: self.member,
            with_platform: true,
            target: self.target.as_target(),
        };
        let resolved = ResolvedRequest::resolve(&self.snapshot, &request);
        let input = authorizer_input(&self.snapshot, &request, &resolved, self.base, &self.facts, self.at);
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_else(|_| "[]".into());
        Row {
            at: self.at,
            epoch: self.snapshot.epoch,
            organization: self.tenant.filter(|_| !self.is_of_site),
            member: self.member,
            kind: resolved.kind,
            input: json(serde_json::to_string(&input)),
            left_out: json(serde_json::to_string(&self.left_out)),
            asks_plugins: resolved.consults_plugins(self.base),
            base: self.base,
            allow: self.allow,
            reason: self.reason,
            differed: self.plugins.iter().any(|plugin| plugin.differed),
            plugins: json(serde_json::to_string(&self.plugins)),
        }
    }
}

/// The facts that fit into the length limit, and the names of the others.
fn within_bytes(facts: &RequestFacts) -> (RequestFacts, Vec<String>) {
    let (mut kept, mut left_out, mut bytes) = (Vec::new(), Vec::new(), 0);
    for fact in &facts.0 {
        if bytes + fact.bytes() <= FACTS_BYTES_MAX {
            bytes += fact.bytes();
            kept.push(fact.clone());
        } else if left_out.len() < LEFT_OUT_MAX {
            left_out.push(name_left_out(&fact.name));
        }
    }
    (RequestFacts(kept), left_out)
}

/// The facts that do not look like secrets, and the names of the others.
fn without_secrets(facts: RequestFacts) -> (RequestFacts, Vec<String>) {
    let is_secret = |fact: &Claim| redact::is_secret_fact(&fact.name, &fact.values);
    let (secret, kept): (Vec<Claim>, Vec<Claim>) = facts.0.into_iter().partition(is_secret);
    (RequestFacts(kept), secret.iter().map(|fact| name_left_out(&fact.name)).collect())
}

/// The name of a fact that is left out. It is hidden if it looks like a secret itself.
fn name_left_out(name: &str) -> String {
    let name = if redact::is_secret(name) { redact::HIDDEN } else { name };
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// A row of the log as it can be shown and replayed: without the facts that today's rules leave out, even if the row is
/// older, and without any facts of the caller if its member is not visible to the reader.
pub fn redacted_row(mut row: Row, is_visible: bool) -> Row {
    let read = |text: &str| Some((serde_json::from_str(text).ok()?, serde_json::from_str(&row.left_out).ok()?));
    let Some((mut input, mut left_out)): Option<(AccessInput, Vec<String>)> = read(&row.input) else { return row };
    let count = left_out.len();
    input.context.retain(|fact| {
        let is_of_host = HOST_FACTS.contains(&fact.name.as_str()) || fact.name == NOW_MS;
        let is_kept = is_of_host || (is_visible && !redact::is_secret_fact(&fact.name, &fact.values));
        if !is_kept {
            left_out.push(name_left_out(&fact.name));
        }
        is_kept
    });
    if left_out.len() > count
        && let (Ok(input), Ok(left_out)) = (serde_json::to_string(&input), serde_json::to_string(&left_out))
    {
        (row.input, row.left_out) = (input, left_out);
    }
    row
}

impl App {
    /// Deletes an erased member from the decision log and from the stored answers of idempotent requests. This
    /// completes even if the caller disconnects.
    pub async fn forget_decisions(self: &Arc<Self>, id: MemberId) -> Result<()> {
        let app = self.clone();
        let forgotten = tokio::spawn(async move {
            app.decisions.forget(id).await;
            app.forget_erased().await
        });
        forgotten.await.map_err(|e| Error::internal(e.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(facts: &[(&str, usize)]) -> RequestFacts {
        let claim =
            |(name, bytes): &(&str, usize)| Claim { name: (*name).to_owned(), values: vec!["x".repeat(*bytes)] };
        RequestFacts(facts.iter().map(claim).collect())
    }

    #[test]
    fn facts_named_like_secrets_are_left_out() {
        let secrets = ["Password", "x-auth-TOKEN", "client_secret", "authorization", "set-cookie", "api_key"];
        let mut all = vec![("owner", 3), ("now_ms", 3)];
        all.extend(secrets.map(|name| (name, 3)));
        let (kept, left_out) = without_secrets(facts(&all));
        assert_eq!(left_out, secrets);
        assert_eq!(kept.0.iter().map(|fact| fact.name.as_str()).collect::<Vec<_>>(), ["owner", "now_ms"]);
    }

    #[test]
    fn facts_are_kept_up_to_the_length_limit_and_left_out_one_past_it() {
        assert_eq!(within_bytes(&facts(&[("a", FACTS_BYTES_MAX - 1)])).1, [""; 0]);
        let (rest, left_out) = within_bytes(&facts(&[("a", FACTS_BYTES_MAX), ("b", 1)]));
        assert_eq!((left_out, rest.0.len()), (vec!["a".to_owned()], 1));
    }
}
