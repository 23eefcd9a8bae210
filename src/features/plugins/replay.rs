//! Evaluates recorded decisions again with a candidate version of a plugin, and finds those that would change.
//!
//! The candidate's result replaces the recorded result of the plugin with its name, or, if it has no name yet, of all
//! plugins. The results of roles, grants and other plugins are taken from the record. The time comes from the record
//! too, so the result does not depend on when the replay runs.

use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer};

use crate::kernel::app::log_entry::PluginTrace;
use crate::kernel::authz::decide::{PluginEffect, Reason, combine_deny_overrides};
use crate::kernel::authz::plugin::{Filter, FilterInput, Mode, PluginOutcome};
use crate::kernel::authz::resolved_request::RequestKind;
use crate::kernel::decision_log::Row;
use crate::kernel::sandbox::{AccessInput, AuthorizeResult, CallContext, CallResult, FaultKind, Host};

/// Default number of decisions to evaluate.
pub const RECORDED_DEFAULT: u32 = 1_000;
/// Maximum number of changed decisions that are listed; further ones are only counted.
pub const LISTED_MAX: usize = 200;

/// A decision from the decision log.
#[derive(Debug, Clone, Deserialize)]
pub struct Recorded {
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    pub input: AccessInput,
    pub left_out: Vec<String>,
    pub asks_plugins: bool,
    #[serde(deserialize_with = "read_reason")]
    pub base: Reason,
    pub allow: bool,
    #[serde(deserialize_with = "read_reason")]
    pub reason: Reason,
    pub plugins: Vec<PluginTrace>,
}

fn read_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    let word = String::deserialize(deserializer)?;
    Reason::of(&word).ok_or_else(|| serde::de::Error::custom(format!("{word:?} is not a reason")))
}

/// A candidate version and the activation that it would have.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    /// The plugin that it replaces; `None` replaces all plugins.
    pub name: Option<String>,
    pub may_grant: bool,
    pub filter: Filter,
}

/// A decision that would change.
#[derive(Debug, Clone)]
pub struct ChangedDecision {
    pub recorded: Recorded,
    pub allow: bool,
    pub reason: Reason,
    /// The candidate's reason for a denial, or its failure.
    pub said: Option<String>,
}

/// The result of a replay.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// Number of decisions examined.
    pub decisions: u64,
    /// Number of decisions for which the candidate was called.
    pub asked: u64,
    /// Number of decisions that cannot be recomputed, because the log omits a part of their input.
    pub left_out: u64,
    /// Number of decisions not evaluated: the time limit passed, or the host was busy.
    pub unreached: u64,
    /// Number of calls in which the candidate failed.
    pub failed: u64,
    pub changed: u64,
    pub fuel: u64,
    pub memory_bytes: u64,
    pub duration: Duration,
    /// The first [`LISTED_MAX`] decisions that would change, in input order.
    pub changes: Vec<ChangedDecision>,
}

impl Recorded {
    /// Reads a row of the decision log; `None` if it cannot be parsed.
    pub fn of(id: i64, row: Row) -> Option<Self> {
        Some(Self {
            id,
            at: row.at.0,
            input: serde_json::from_str(&row.input).ok()?,
            left_out: serde_json::from_str(&row.left_out).ok()?,
            asks_plugins: row.asks_plugins,
            base: row.base,
            allow: row.allow,
            reason: row.reason,
            plugins: serde_json::from_str(&row.plugins).ok()?,
        })
    }

    /// `route`, `permission` or `grant`; empty if the record does not say.
    pub fn kind(&self) -> &str {
        self.facts("question").first().copied().unwrap_or_default()
    }

    fn facts(&self, name: &str) -> Vec<&str> {
        let found = self.input.context.iter().filter(|fact| fact.name == name);
        found.flat_map(|fact| &fact.values).map(String::as_str).collect()
    }

    fn need(&self, candidate: &Candidate) -> Need {
        match () {
            () if !self.asks(candidate) => Need::Nothing,
            () if !self.left_out.is_empty() => Need::LeftOut,
            () => Need::Ask,
        }
    }

    /// Whether the candidate would be called for this decision.
    fn asks(&self, candidate: &Candidate) -> bool {
        let is_route = self.facts("question") == [RequestKind::Route.as_str()];
        let topic = FilterInput {
            permissions: &self.facts("permission"),
            route: is_route.then_some((&self.input.action, &self.input.path)),
            module: self.facts("module").first().copied(),
        };
        self.asks_plugins && (self.base.allows() || candidate.may_grant) && candidate.filter.covers(&topic)
    }

    /// The recorded results of the other plugins. A plugin that allowed what the base decision denied had `may_grant`,
    /// or it would not have been called.
    fn others<'r>(&'r self, candidate: &'r Candidate) -> impl Iterator<Item = PluginEffect> + 'r {
        let is_other = |trace: &&PluginTrace| {
            trace.mode == Mode::Enforce && candidate.name.as_ref().is_some_and(|name| *name != trace.name)
        };
        self.plugins.iter().filter(is_other).map(|trace| match trace.outcome {
            PluginOutcome::Allow => PluginEffect::Allow { may_grant: true },
            PluginOutcome::Deny => PluginEffect::Deny,
            PluginOutcome::Abstain => PluginEffect::Abstain,
            PluginOutcome::Roles | PluginOutcome::NotCovered | PluginOutcome::Failed(_) => PluginEffect::Failed,
        })
    }
}

/// What a recorded decision needs to be recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The candidate's result.
    Ask,
    /// Nothing: the candidate is not called for such a request.
    Nothing,
    /// Input that the log omits.
    LeftOut,
}

/// Evaluates recorded decisions with a candidate, for at most `time_max`.
pub async fn replay(
    recorded: impl IntoIterator<Item = Recorded>,
    candidate: &Candidate,
    time_max: Duration,
    host: &Host,
    call: &CallContext,
) -> Replay {
    let started = Instant::now();
    let mut replay = Replay::default();
    for recorded in recorded {
        replay.decisions += 1;
        match recorded.need(candidate) {
            Need::LeftOut => replay.left_out += 1,
            Need::Nothing => replay.recompute(recorded, candidate, None),
            Need::Ask if started.elapsed() > time_max => replay.unreached += 1,
            Need::Ask => {
                let called = host.authorize(call.clone(), recorded.input.clone()).await;
                match &called.outcome {
                    // Not a failure of the candidate.
                    Err(fault) if fault.kind == FaultKind::Busy => replay.unreached += 1,
                    _ => replay.recompute(recorded, candidate, Some(called)),
                }
            }
        }
    }
    replay
}

impl Replay {
    /// Recomputes a decision with the candidate's result, if it was called.
    fn recompute(&mut self, recorded: Recorded, candidate: &Candidate, called: Option<CallResult<AuthorizeResult>>) {
        let mut effects: Vec<PluginEffect> = recorded.others(candidate).collect();
        effects.extend(called.as_ref().map(|called| self.count(called, candidate.may_grant)));
        let reason = combine_deny_overrides(recorded.base, effects);
        if reason.allows() == recorded.allow {
            return;
        }
        self.changed += 1;
        if self.changes.len() < LISTED_MAX {
            let said = match called.map(|called| called.outcome) {
                Some(Ok(AuthorizeResult::Deny(reason))) => Some(reason),
                Some(Err(fault)) => Some(format!("{}: {}", fault.kind.as_str(), fault.message)),
                Some(Ok(AuthorizeResult::Allow | AuthorizeResult::Abstain)) | None => None,
            };
            self.changes.push(ChangedDecision { allow: reason.allows(), reason, said, recorded });
        }
    }

    fn count(&mut self, called: &CallResult<AuthorizeResult>, may_grant: bool) -> PluginEffect {
        self.asked += 1;
        self.fuel = self.fuel.saturating_add(called.fuel);
        self.memory_bytes = self.memory_bytes.max(called.memory_bytes);
        self.duration += called.duration;
        match called.outcome {
            Ok(AuthorizeResult::Allow) => PluginEffect::Allow { may_grant },
            Ok(AuthorizeResult::Deny(_)) => PluginEffect::Deny,
            Ok(AuthorizeResult::Abstain) => PluginEffect::Abstain,
            Err(_) => {
                self.failed += 1;
                PluginEffect::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded(base: &str, allow: bool, plugins: &[(&str, &str, &str)]) -> Recorded {
        let trace = |(name, mode, outcome): &(&str, &str, &str)| {
            json!({"name": name, "version": 1, "sha256": "", "mode": mode, "outcome": outcome, "fuel": 1,
                   "duration_us": 1, "differed": false})
        };
        serde_json::from_value(json!({
            "id": 1, "at": 1, "left_out": [], "asks_plugins": true, "base": base, "allow": allow, "reason": base,
            "input": {"action": "GET", "path": "/a", "context": {"question": "route", "permission": ["a.read"]}},
            "plugins": plugins.iter().map(trace).collect::<Vec<_>>(),
        }))
        .expect("a record")
    }

    fn named(name: &str) -> Candidate {
        Candidate { name: Some(name.into()), ..Candidate::default() }
    }

    /// Replays one decision with this result of the candidate.
    fn run(recorded: Recorded, candidate: &Candidate, ruling: AuthorizeResult) -> Replay {
        let called = CallResult {
            outcome: Ok(ruling),
            fuel: 2,
            duration: Duration::ZERO,
            memory_bytes: 3,
            log: Vec::new(),
            log_dropped: 0,
            is_slow: false,
            is_aside: false,
        };
        let mut replay = Replay::default();
        match recorded.need(candidate) {
            Need::Ask => replay.recompute(recorded, candidate, Some(called)),
            Need::Nothing => replay.recompute(recorded, candidate, None),
            Need::LeftOut => replay.left_out += 1,
        }
        replay
    }

    #[test]
    fn a_candidate_replaces_the_recorded_result_of_its_plugin() {
        let deny = || AuthorizeResult::Deny("no".into());
        let open = Candidate { may_grant: true, ..Candidate::default() };
        let elsewhere = Candidate { filter: Filter { modules: vec!["m".into()], ..Filter::default() }, ..named("a") };
        let cases = [
            (recorded("ok_role", true, &[]), named("a"), deny(), 1, 1),
            (recorded("ok_role", true, &[]), named("a"), AuthorizeResult::Abstain, 1, 0),
            (recorded("ok_role", false, &[("a", "enforce", "deny")]), named("a"), AuthorizeResult::Abstain, 1, 1),
            (recorded("ok_role", false, &[("b", "enforce", "deny")]), named("a"), AuthorizeResult::Allow, 1, 0),
            (
                recorded("ok_role", false, &[("b", "enforce", "trap")]),
                Candidate::default(),
                AuthorizeResult::Allow,
                1,
                1,
            ),
            (recorded("ok_role", true, &[("b", "shadow", "deny")]), named("a"), AuthorizeResult::Allow, 1, 0),
            (recorded("no_permission", false, &[]), named("a"), AuthorizeResult::Allow, 0, 0),
            (recorded("no_permission", false, &[]), open.clone(), AuthorizeResult::Allow, 1, 1),
            (recorded("no_permission", true, &[("b", "enforce", "allow")]), named("a"), AuthorizeResult::Allow, 0, 0),
            (recorded("no_permission", true, &[("a", "enforce", "allow")]), named("a"), AuthorizeResult::Allow, 0, 1),
            // The candidate no longer covers the request, so the recorded denial of its plugin is dropped.
            (recorded("ok_role", false, &[("a", "enforce", "deny")]), elsewhere, deny(), 0, 1),
        ];
        for (n, (recorded, candidate, ruling, asked, changed)) in cases.into_iter().enumerate() {
            let replay = run(recorded, &candidate, ruling);
            assert_eq!((replay.asked, replay.changed), (asked, changed), "case {n}");
            assert_eq!(replay.changes.len() as u64, changed);
        }
    }

    #[test]
    fn decisions_with_omitted_input_are_counted_and_not_recomputed() {
        let mut partial = recorded("ok_role", true, &[]);
        partial.left_out = vec!["token".into()];
        let replay = run(partial.clone(), &named("a"), AuthorizeResult::Deny("no".into()));
        assert_eq!((replay.left_out, replay.asked, replay.changed), (1, 0, 0));
        partial.asks_plugins = false;
        let replay = run(partial, &named("a"), AuthorizeResult::Deny("no".into()));
        assert_eq!((replay.left_out, replay.asked, replay.changed), (0, 0, 0));
    }
}
