//! Decisions with plugins: first the policy, then the organization's authorizer plugins.
//!
//! `kernel::authz::decide` answers first, from one snapshot; the plugins that the same snapshot binds are asked in their order;
//! `kernel::authz::decide::combine_deny_overrides` combines the results. Code that answers an access request calls [`App::evaluate_with_plugins`], or
//! [`App::evaluate_policy`] where no plugin is bound, so that every decision is counted and logged in the same way.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::log_entry::LogEntry;
use crate::kernel::authz::decide::{AccessRequest, Decision, PluginEffect, Reason, combine_deny_overrides, decide};
use crate::kernel::authz::plugin::{Binding, Mode};
use crate::kernel::authz::resolved_request::ResolvedRequest;
use crate::kernel::authz::snapshot::{Snapshot, Tenant};
use crate::kernel::ids::{OrganizationId, Timestamp};
use crate::kernel::sandbox::{AccessInput, Claim, Fault, Ruling, Spent};
use crate::kernel::secret::Hash;

/// Names of facts that only the host gives.
pub const HOST_FACTS: [&str; 8] =
    ["question", "base", "app", "permission", "org_code", "scope_type", "scope_id", "module"];
/// The time of the request: the caller's `now_ms` if given, so that a decision can be replayed.
pub const NOW_MS: &str = "now_ms";

/// Context values that the caller passes to the plugins.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts(pub Vec<Claim>);

impl RequestFacts {
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Claim::bytes).sum()
    }
}

/// What became of the plugins as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginStage {
    /// None is in force.
    NoneBound,
    /// The filters of all that are in force leave the question out.
    NotCovered,
    /// No plugin was called: a gate denied, no route matched, the permission is built in, or no plugin may grant.
    NotAsked,
    Abstain,
    /// Some allowed, which changed nothing: base had allowed already.
    Allow,
    /// The result of a plugin decided.
    Settled(Reason),
}

impl PluginStage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoneBound => "none_bound",
            Self::NotCovered => "not_covered",
            Self::NotAsked => "not_asked",
            Self::Abstain => "abstain",
            Self::Allow => "allow",
            Self::Settled(reason) => reason.as_str(),
        }
    }
}

/// A plugin in a decision.
#[derive(Debug, Clone)]
pub struct PluginAnswer {
    pub name: Arc<str>,
    pub version: u32,
    pub sha256: Hash,
    pub mode: Mode,
    /// `None` for a watched one that leaves out what the version in force does not.
    pub outcome: Option<Result<Ruling, Fault>>,
    pub duration: Duration,
    pub fuel: u64,
    /// Would it have changed the decision in enforce mode? Only set for shadow plugins.
    pub differed: bool,
    may_grant: bool,
}

impl PluginAnswer {
    /// `allow`, `deny`, `abstain`, the word of a fault, or `not_covered`.
    pub fn as_str(&self) -> &'static str {
        match &self.outcome {
            Some(Ok(ruling)) => ruling.as_str(),
            Some(Err(fault)) => fault.kind.as_str(),
            None => "not_covered",
        }
    }

    /// Why it denied, for people.
    pub fn sentence(&self) -> Option<&str> {
        match &self.outcome {
            Some(Ok(Ruling::Deny(sentence))) => Some(sentence),
            _ => None,
        }
    }

    fn said(&self) -> Option<PluginEffect> {
        self.outcome.as_ref().map(|outcome| match outcome {
            Ok(Ruling::Allow) => PluginEffect::Allow { may_grant: self.may_grant },
            Ok(Ruling::Deny(_)) => PluginEffect::Deny,
            Ok(Ruling::Abstain) => PluginEffect::Abstain,
            Err(_) => PluginEffect::Failed,
        })
    }
}

/// An answer with all that led to it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub decision: Decision,
    /// What the policy said without plugins.
    pub base: Reason,
    pub stage: PluginStage,
    pub plugins: Vec<PluginAnswer>,
}

impl Evaluation {
    fn without_plugins(base: Decision, stage: PluginStage) -> Self {
        Self { decision: base, base: base.reason, stage, plugins: Vec::new() }
    }

    /// The sentence for people with which a plugin denied.
    pub fn message(&self) -> Option<&str> {
        let in_force = self.plugins.iter().filter(|asked| asked.mode == Mode::Enforce);
        let mut sentences = in_force.filter_map(PluginAnswer::sentence);
        if self.decision.reason == Reason::PluginDenied { sentences.next() } else { None }
    }
}

/// Has the organization rules of its own that are asked, or watched?
pub fn has_authorizers(snapshot: &Snapshot, tenant: Option<OrganizationId>) -> bool {
    let tenant = tenant.and_then(|id| snapshot.tenant(id));
    tenant.is_some_and(|tenant| tenant.plugins().iter().any(|binding| binding.exports.authorizer))
}

impl App {
    /// The decision where the organization has no rules of its own ([`has_authorizers`]): at once, without a lock.
    pub fn evaluate_policy(
        &self,
        snapshot: &Arc<Snapshot>,
        question: &AccessRequest<'_>,
        facts: &RequestFacts,
    ) -> Decision {
        let decision = decide(snapshot, question);
        self.metrics.count_decision(decision.reason.as_str());
        if self.is_logged(decision.allow, false) {
            let evaluation = Evaluation::without_plugins(decision, PluginStage::NoneBound);
            self.decisions
                .put(question.tenant, LogEntry::new(snapshot, question, facts, Timestamp::now(), &evaluation));
        }
        decision
    }

    /// The decision with the organization's plugins.
    ///
    /// Base and bindings come from this one snapshot, whose epoch the answer has. `spent` is the same for all questions of
    /// a request. Never within a transaction.
    pub async fn evaluate_with_plugins(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        question: &AccessRequest<'_>,
        facts: &RequestFacts,
        spent: &Arc<Spent>,
    ) -> Evaluation {
        let base = decide(snapshot, question);
        let now = Timestamp::now();
        let tenant = question.tenant.filter(|_| has_authorizers(snapshot, question.tenant));
        let evaluation = match tenant.and_then(|id| snapshot.tenant(id)) {
            Some(tenant) => self.consult_plugins(snapshot, tenant, question, base, (facts, now, spent)).await,
            None => Evaluation::without_plugins(base, PluginStage::NoneBound),
        };
        self.metrics.count_decision(evaluation.decision.reason.as_str());
        if self.is_logged(evaluation.decision.allow, evaluation.plugins.iter().any(|asked| asked.differed)) {
            self.decisions.put(question.tenant, LogEntry::new(snapshot, question, facts, now, &evaluation));
        }
        evaluation
    }

    async fn consult_plugins(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        tenant: &Tenant,
        question: &AccessRequest<'_>,
        base: Decision,
        (facts, now, spent): (&RequestFacts, Timestamp, &Arc<Spent>),
    ) -> Evaluation {
        let resolved = ResolvedRequest::resolve(snapshot, question);
        let rules = || tenant.plugins().iter().filter(|binding| binding.exports.authorizer);
        let in_force = || rules().filter(|binding| binding.mode == Mode::Enforce);
        let is_covered = in_force().any(|binding| resolved.is_covered_by(binding));
        let idle = match in_force().next() {
            None => PluginStage::NoneBound,
            Some(_) if !resolved.consults_plugins(base.reason) => PluginStage::NotAsked,
            Some(_) if !is_covered => PluginStage::NotCovered,
            Some(_) => PluginStage::NotAsked,
        };
        if !resolved.consults_plugins(base.reason) {
            return Evaluation::without_plugins(base, idle);
        }
        let input = input_of(snapshot, question, &resolved, base.reason, facts, now);
        // A quarantined plugin is not called: in shadow mode it is skipped, in enforce mode it denies.
        let watched: Vec<&Binding> =
            rules().filter(|binding| binding.mode == Mode::Shadow && !binding.live.is_quarantined()).collect();
        let mut asked: Vec<(&Binding, PluginAnswer)> = Vec::new();
        for binding in in_force().filter(|binding| resolved.consults(base.reason, binding)) {
            let answer = self.call_authorizer(tenant, binding, &input, spent).await;
            let settles = matches!(answer.said(), Some(PluginEffect::Deny | PluginEffect::Failed));
            asked.push((binding, answer));
            // Shadow plugins need the results of all enforced plugins for comparison.
            if settles && watched.is_empty() {
                break;
            }
        }
        let reason = combine_deny_overrides(base.reason, asked.iter().filter_map(|(_, answer)| answer.said()));
        let decision = Decision { allow: reason.allows(), reason, epoch: base.epoch };
        let stage = match () {
            () if asked.is_empty() => idle,
            () if reason != base.reason => PluginStage::Settled(reason),
            () if asked.iter().all(|(_, answer)| answer.said() == Some(PluginEffect::Abstain)) => PluginStage::Abstain,
            () => PluginStage::Allow,
        };
        let mut plugins: Vec<PluginAnswer> = Vec::new();
        for binding in watched {
            let mut answer = match resolved.consults(base.reason, binding) {
                true => self.call_authorizer(tenant, binding, &input, spent).await,
                false => uncalled(binding),
            };
            let others = asked.iter().filter(|(other, _)| other.plugin != binding.plugin);
            let would_say = others.map(|(_, other)| other).chain([&answer]).filter_map(PluginAnswer::said);
            answer.differed = combine_deny_overrides(base.reason, would_say).allows() != decision.allow;
            if answer.differed {
                binding.live.count(|seen| seen.differed += 1);
            }
            if answer.differed || answer.outcome.is_some() {
                plugins.push(answer);
            }
        }
        let mut all: Vec<PluginAnswer> = asked.into_iter().map(|(_, answer)| answer).collect();
        all.append(&mut plugins);
        Evaluation { decision, base: base.reason, stage, plugins: all }
    }

    async fn call_authorizer(
        self: &Arc<Self>,
        tenant: &Tenant,
        binding: &Binding,
        input: &AccessInput,
        spent: &Arc<Spent>,
    ) -> PluginAnswer {
        let called = self.ask_authorizer(tenant.id, binding, input.clone(), spent).await;
        PluginAnswer {
            outcome: Some(called.outcome),
            duration: called.duration,
            fuel: called.fuel,
            ..uncalled(binding)
        }
    }
}

fn uncalled(binding: &Binding) -> PluginAnswer {
    PluginAnswer {
        name: binding.name.clone(),
        version: binding.version,
        sha256: binding.sha256,
        mode: binding.mode,
        outcome: None,
        duration: Duration::ZERO,
        fuel: 0,
        differed: false,
        may_grant: binding.may_grant,
    }
}

/// The question as an authorizer gets it; `plugins/wit` says what stands where.
pub fn input_of(
    snapshot: &Snapshot,
    question: &AccessRequest<'_>,
    resolved: &ResolvedRequest<'_>,
    base: Reason,
    facts: &RequestFacts,
    now: Timestamp,
) -> AccessInput {
    let tenant = question.tenant.and_then(|id| snapshot.tenant(id));
    let open = tenant.into_iter().flat_map(|tenant| tenant.roles_of(question.member)).filter(|role| role.is_open);
    let mut roles: Vec<String> = open.map(|role| role.key.to_string()).collect();
    roles.sort_unstable();
    let mut context = Vec::with_capacity(8 + facts.0.len());
    let mut add = |name: &str, values: Vec<String>| context.push(Claim { name: name.to_owned(), values });
    add("question", vec![resolved.kind.as_str().to_owned()]);
    add("base", vec![if base.allows() { "allow" } else { "deny" }.to_owned()]);
    if let Some(app) = &resolved.app {
        add("app", vec![app.to_string()]);
    }
    if !resolved.permissions.is_empty() {
        add("permission", resolved.permissions.iter().map(ToString::to_string).collect());
    }
    if let Some(tenant) = tenant {
        add("org_code", vec![tenant.org_code.to_string()]);
    }
    if let Some(right) = &resolved.right {
        add("scope_type", vec![right.scope_type.to_owned()]);
        add("scope_id", vec![right.scope_id.to_owned()]);
        add("module", vec![right.module.to_owned()]);
    }
    if !facts.0.iter().any(|fact| fact.name == NOW_MS) {
        add(NOW_MS, vec![now.0.to_string()]);
    }
    context.extend_from_slice(&facts.0);
    AccessInput {
        tenant: question.tenant.map(|id| id.to_string()).unwrap_or_default(),
        subject: question.member.to_string(),
        roles,
        action: resolved.action.to_owned(),
        path: resolved.path.to_string(),
        context,
    }
}
