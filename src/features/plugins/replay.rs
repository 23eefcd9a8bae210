//! Recorded decisions, asked again of a candidate: which of them would have ended otherwise.
//!
//! A candidate speaks in place of what the plugin of its name said then, or, where it has no name yet, of all that were
//! in force. What roles and grants said, and what other plugins said, is as it was recorded. Time comes from the record,
//! so that the answer is the same whenever it is asked.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::kernel::app::log_entry::PluginTrace;
use crate::kernel::authz::decide::{PluginEffect, Reason, combine_deny_overrides};
use crate::kernel::authz::plugin::{Filter, Mode, Topic};
use crate::kernel::authz::resolved_request::Kind;
use crate::kernel::decision_log::Row;
use crate::kernel::sandbox::{AccessInput, CallContext, CallResult, FaultKind, Host, Ruling};

/// Decisions that are looked at when nobody says how many.
pub const RECORDED_DEFAULT: u32 = 1_000;
/// Decisions that are listed one by one; more are only counted.
pub const LISTED_MAX: usize = 200;

/// A decision as the log has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Recorded {
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    pub input: AccessInput,
    pub left_out: Vec<String>,
    pub asks_plugins: bool,
    pub base: String,
    pub allow: bool,
    pub reason: String,
    pub plugins: Vec<PluginTrace>,
}

/// What is to be tried, and how it would be bound.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    /// Whose place it takes; everybody's when absent.
    pub name: Option<String>,
    pub may_grant: bool,
    pub filter: Filter,
}

/// A decision that would end otherwise.
#[derive(Debug, Clone)]
pub struct Change {
    pub recorded: Recorded,
    pub allow: bool,
    pub reason: Reason,
    /// What the candidate said: the sentence of a denial, or of its failure.
    pub said: Option<String>,
}

/// What came of a replay.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// Decisions that were looked at.
    pub decisions: u64,
    /// Of these, the candidate was asked about so many.
    pub asked: u64,
    /// So many cannot be recomputed: something of the question was left out.
    pub left_out: u64,
    /// So many were not reached in time.
    pub unreached: u64,
    /// The candidate failed so often.
    pub failed: u64,
    pub changed: u64,
    pub fuel: u64,
    pub memory_bytes: u64,
    pub duration: Duration,
    /// The first of those that would end otherwise, in the order they were given.
    pub changes: Vec<Change>,
}

impl Recorded {
    /// A row of the log; `None` for one that cannot be read any more.
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

    fn facts(&self, name: &str) -> Vec<&str> {
        let found = self.input.context.iter().filter(|fact| fact.name == name);
        found.flat_map(|fact| &fact.values).map(String::as_str).collect()
    }

    fn need(&self, candidate: &Candidate) -> Need {
        match Reason::of(&self.base) {
            None => Need::LeftOut,
            Some(base) if !self.asks(candidate, base) => Need::Nothing,
            Some(_) if !self.left_out.is_empty() => Need::LeftOut,
            Some(_) => Need::Ask,
        }
    }

    /// Would the candidate be asked about this?
    fn asks(&self, candidate: &Candidate, base: Reason) -> bool {
        let is_route = self.facts("question") == [Kind::Route.as_str()];
        let topic = Topic {
            permissions: &self.facts("permission"),
            route: is_route.then_some((&self.input.action, &self.input.path)),
            module: self.facts("module").first().copied(),
        };
        self.asks_plugins && (base.allows() || candidate.may_grant) && candidate.filter.covers(&topic)
    }

    /// What the others said. One that allowed what base denied had the right to, or it would not have been asked.
    fn others<'r>(&'r self, candidate: &'r Candidate) -> impl Iterator<Item = PluginEffect> + 'r {
        let is_other = |heard: &&PluginTrace| {
            heard.mode == Mode::Enforce.as_str() && candidate.name.as_ref().is_some_and(|name| *name != heard.name)
        };
        self.plugins.iter().filter(is_other).map(|heard| match heard.outcome.as_str() {
            "allow" => PluginEffect::Allow { may_grant: true },
            "deny" => PluginEffect::Deny,
            "abstain" => PluginEffect::Abstain,
            _ => PluginEffect::Failed,
        })
    }
}

/// What a recorded decision needs to be recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The candidate's word.
    Ask,
    /// Nothing: the candidate is not asked about such a question.
    Nothing,
    /// What the log does not have.
    LeftOut,
}

/// Asks a candidate about all of these, for at most so long.
pub async fn replay(
    recorded: impl IntoIterator<Item = Recorded>,
    candidate: &Candidate,
    time_max: Duration,
    host: &Host,
    turn: &CallContext,
) -> Replay {
    let began = Instant::now();
    let mut replay = Replay::default();
    for recorded in recorded {
        replay.decisions += 1;
        match recorded.need(candidate) {
            Need::LeftOut => replay.left_out += 1,
            Need::Nothing => replay.settle(recorded, candidate, None),
            Need::Ask if began.elapsed() > time_max => replay.unreached += 1,
            Need::Ask => {
                let called = host.authorize(turn.clone(), recorded.input.clone()).await;
                match &called.outcome {
                    // That says nothing of the candidate.
                    Err(fault) if fault.kind == FaultKind::Busy => replay.unreached += 1,
                    _ => replay.settle(recorded, candidate, Some(called)),
                }
            }
        }
    }
    replay
}

impl Replay {
    /// Recomputes a decision with what the candidate said, where it was asked.
    fn settle(&mut self, recorded: Recorded, candidate: &Candidate, called: Option<CallResult<Ruling>>) {
        let Some(base) = Reason::of(&recorded.base) else { return };
        let mut said: Vec<PluginEffect> = recorded.others(candidate).collect();
        said.extend(called.as_ref().map(|called| self.count(called, candidate.may_grant)));
        let reason = combine_deny_overrides(base, said);
        if reason.allows() == recorded.allow {
            return;
        }
        self.changed += 1;
        if self.changes.len() < LISTED_MAX {
            let sentence = match called.map(|called| called.outcome) {
                Some(Ok(Ruling::Deny(reason))) => Some(reason),
                Some(Err(fault)) => Some(format!("{}: {}", fault.kind.as_str(), fault.message)),
                Some(Ok(Ruling::Allow | Ruling::Abstain)) | None => None,
            };
            self.changes.push(Change { allow: reason.allows(), reason, said: sentence, recorded });
        }
    }

    fn count(&mut self, called: &CallResult<Ruling>, may_grant: bool) -> PluginEffect {
        self.asked += 1;
        self.fuel = self.fuel.saturating_add(called.fuel);
        self.memory_bytes = self.memory_bytes.max(called.memory_bytes);
        self.duration += called.duration;
        match called.outcome {
            Ok(Ruling::Allow) => PluginEffect::Allow { may_grant },
            Ok(Ruling::Deny(_)) => PluginEffect::Deny,
            Ok(Ruling::Abstain) => PluginEffect::Abstain,
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
        let heard = |(name, mode, outcome): &(&str, &str, &str)| {
            json!({"name": name, "version": 1, "sha256": "", "mode": mode, "outcome": outcome, "fuel": 1,
                   "duration_us": 1, "differed": false})
        };
        serde_json::from_value(json!({
            "id": 1, "at": 1, "left_out": [], "asks_plugins": true, "base": base, "allow": allow, "reason": "",
            "input": {"action": "GET", "path": "/a", "context": {"question": "route", "permission": ["a.read"]}},
            "plugins": plugins.iter().map(heard).collect::<Vec<_>>(),
        }))
        .expect("a record")
    }

    fn named(name: &str) -> Candidate {
        Candidate { name: Some(name.into()), ..Candidate::default() }
    }

    /// What comes of one decision, when the candidate says this.
    fn run(recorded: Recorded, candidate: &Candidate, ruling: Ruling) -> Replay {
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
            Need::Ask => replay.settle(recorded, candidate, Some(called)),
            Need::Nothing => replay.settle(recorded, candidate, None),
            Need::LeftOut => replay.left_out += 1,
        }
        replay
    }

    #[test]
    fn a_candidate_takes_the_place_of_its_own_former_self() {
        let deny = || Ruling::Deny("no".into());
        let open = Candidate { may_grant: true, ..Candidate::default() };
        let elsewhere = Candidate { filter: Filter { modules: vec!["m".into()], ..Filter::default() }, ..named("a") };
        let cases = [
            (recorded("ok_role", true, &[]), named("a"), deny(), 1, 1),
            (recorded("ok_role", true, &[]), named("a"), Ruling::Abstain, 1, 0),
            (recorded("ok_role", false, &[("a", "enforce", "deny")]), named("a"), Ruling::Abstain, 1, 1),
            (recorded("ok_role", false, &[("b", "enforce", "deny")]), named("a"), Ruling::Allow, 1, 0),
            (recorded("ok_role", false, &[("b", "enforce", "trap")]), Candidate::default(), Ruling::Allow, 1, 1),
            (recorded("ok_role", true, &[("b", "shadow", "deny")]), named("a"), Ruling::Allow, 1, 0),
            (recorded("no_permission", false, &[]), named("a"), Ruling::Allow, 0, 0),
            (recorded("no_permission", false, &[]), open.clone(), Ruling::Allow, 1, 1),
            (recorded("no_permission", true, &[("b", "enforce", "allow")]), named("a"), Ruling::Allow, 0, 0),
            (recorded("no_permission", true, &[("a", "enforce", "allow")]), named("a"), Ruling::Allow, 0, 1),
            // Covering it no longer, the candidate lets pass what its former self denied.
            (recorded("ok_role", false, &[("a", "enforce", "deny")]), elsewhere, deny(), 0, 1),
        ];
        for (n, (recorded, candidate, ruling, asked, changed)) in cases.into_iter().enumerate() {
            let replay = run(recorded, &candidate, ruling);
            assert_eq!((replay.asked, replay.changed), (asked, changed), "case {n}");
            assert_eq!(replay.changes.len() as u64, changed);
        }
    }

    #[test]
    fn what_was_left_out_is_counted_and_never_guessed() {
        let mut partial = recorded("ok_role", true, &[]);
        partial.left_out = vec!["token".into()];
        let replay = run(partial.clone(), &named("a"), Ruling::Deny("no".into()));
        assert_eq!((replay.left_out, replay.asked, replay.changed), (1, 0, 0));
        partial.asks_plugins = false;
        let replay = run(partial, &named("a"), Ruling::Deny("no".into()));
        assert_eq!((replay.left_out, replay.asked, replay.changed), (0, 0, 0));
    }
}
