//! Decisions with plugins: first the policy, then the organization's authorizer plugins.
//!
//! `kernel::authz::decide` makes the base decision from one snapshot. Then the plugins that the same snapshot binds are
//! called in their order, and `kernel::authz::decide::combine_deny_overrides` combines the results. Every access
//! request is evaluated by [`App::evaluate_with_plugins`], or by [`App::evaluate_policy`] if no plugin is bound, so
//! that every decision is counted and logged in the same way.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use super::log_entry::LogEntry;
use crate::kernel::authz::decide::{AccessRequest, Decision, PluginEffect, Reason, combine_deny_overrides, decide};
use crate::kernel::authz::plugin::{Binding, Mode, PluginOutcome};
use crate::kernel::authz::resolved_request::ResolvedRequest;
use crate::kernel::authz::snapshot::{Snapshot, Tenant};
use crate::kernel::ids::Timestamp;
use crate::kernel::sandbox::{AccessInput, AuthorizeResult, Claim, Fault, Spent};
use crate::kernel::secret::Hash;

/// Names of facts that only the host can set.
pub const HOST_FACTS: [&str; 8] =
    ["question", "base", "app", "permission", "org_code", "scope_type", "scope_id", "module"];
/// The fact with the time of the request: the caller's value if given, so that a decision can be replayed.
pub const NOW_MS: &str = "now_ms";

/// Facts: context values that the caller passes to the plugins.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts(pub Vec<Claim>);

impl RequestFacts {
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Claim::bytes).sum()
    }
}

/// The overall result of the plugins in one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginStage {
    /// No plugin is enforced.
    NoneBound,
    /// The filters of all enforced plugins exclude the request.
    NotCovered,
    /// No plugin was called: a precondition denied, no route matched, the permission is built in, or no plugin may
    /// grant.
    NotCalled,
    /// All plugins that were called abstained.
    Abstain,
    /// Some plugin allowed, which changed nothing: the base decision allowed already.
    Allow,
    /// The result of a plugin decided, with this reason.
    Decided(Reason),
}

impl PluginStage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoneBound => "none_bound",
            Self::NotCovered => "not_covered",
            Self::NotCalled => "not_asked",
            Self::Abstain => "abstain",
            Self::Allow => "allow",
            Self::Decided(reason) => reason.as_str(),
        }
    }
}

/// The part of one plugin in a decision.
#[derive(Debug, Clone)]
pub struct PluginResult {
    pub name: Arc<str>,
    pub version: u32,
    pub sha256: Hash,
    pub mode: Mode,
    /// `None` for a shadow plugin that was not called, because its filter excludes the request.
    pub outcome: Option<Result<AuthorizeResult, Fault>>,
    pub duration: Duration,
    pub fuel: u64,
    /// Whether it would have changed the decision in enforce mode. Only set for shadow plugins.
    pub differed: bool,
    may_grant: bool,
}

impl PluginResult {
    pub fn outcome(&self) -> PluginOutcome {
        match &self.outcome {
            Some(Ok(ruling)) => ruling.into(),
            Some(Err(fault)) => PluginOutcome::Failed(fault.kind),
            None => PluginOutcome::NotCovered,
        }
    }

    /// The plugin's message for people, if it denied.
    pub fn deny_message(&self) -> Option<&str> {
        match &self.outcome {
            Some(Ok(AuthorizeResult::Deny(sentence))) => Some(sentence),
            _ => None,
        }
    }

    fn effect(&self) -> Option<PluginEffect> {
        self.outcome.as_ref().map(|outcome| match outcome {
            Ok(AuthorizeResult::Allow) => PluginEffect::Allow { may_grant: self.may_grant },
            Ok(AuthorizeResult::Deny(_)) => PluginEffect::Deny,
            Ok(AuthorizeResult::Abstain) => PluginEffect::Abstain,
            Err(_) => PluginEffect::Failed,
        })
    }
}

/// A decision with the base decision and the plugin results that led to it.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub decision: Decision,
    /// The reason of the policy without plugins.
    pub base: Reason,
    pub stage: PluginStage,
    pub plugins: Vec<PluginResult>,
}

impl Evaluation {
    fn without_plugins(base: Decision, stage: PluginStage) -> Self {
        Self { decision: base, base: base.reason, stage, plugins: Vec::new() }
    }

    /// The message for people of the plugin that denied, if one did.
    pub fn message(&self) -> Option<&str> {
        let enforced = self.plugins.iter().filter(|answer| answer.mode == Mode::Enforce);
        let mut sentences = enforced.filter_map(PluginResult::deny_message);
        if self.decision.reason == Reason::PluginDenied { sentences.next() } else { None }
    }
}

impl App {
    /// Decides a request of an organization without authorizer plugins ([`Snapshot::has_authorizers`]), without a lock.
    pub fn evaluate_policy(
        &self,
        snapshot: &Arc<Snapshot>,
        request: &AccessRequest<'_>,
        facts: &RequestFacts,
    ) -> Decision {
        let decision = decide(snapshot, request);
        self.metrics.count_decision(decision.reason);
        if self.is_logged(decision.allow, false) {
            let evaluation = Evaluation::without_plugins(decision, PluginStage::NoneBound);
            self.decisions.put(request.tenant, LogEntry::new(snapshot, request, facts, Timestamp::now(), &evaluation));
        }
        decision
    }

    /// Decides a request with the organization's plugins.
    ///
    /// Base decision and bindings come from this one snapshot, whose epoch the decision has. `spent` is shared by all
    /// access requests of one HTTP request. Must not be called within a transaction.
    pub async fn evaluate_with_plugins(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        request: &AccessRequest<'_>,
        facts: &RequestFacts,
        spent: &Arc<Spent>,
    ) -> Evaluation {
        let base = decide(snapshot, request);
        let now = Timestamp::now();
        let tenant = request.tenant.filter(|_| snapshot.has_authorizers(request.tenant));
        let evaluation = match tenant.and_then(|id| snapshot.tenant(id)) {
            Some(tenant) => self.consult_plugins(snapshot, tenant, request, base, (facts, now, spent)).await,
            None => Evaluation::without_plugins(base, PluginStage::NoneBound),
        };
        self.metrics.count_decision(evaluation.decision.reason);
        if self.is_logged(evaluation.decision.allow, evaluation.plugins.iter().any(|answer| answer.differed)) {
            self.decisions.put(request.tenant, LogEntry::new(snapshot, request, facts, now, &evaluation));
        }
        evaluation
    }

    async fn consult_plugins(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        tenant: &Tenant,
        request: &AccessRequest<'_>,
        base: Decision,
        (facts, now, spent): (&RequestFacts, Timestamp, &Arc<Spent>),
    ) -> Evaluation {
        let resolved = ResolvedRequest::resolve(snapshot, request);
        let authorizers = || tenant.plugins().iter().filter(|binding| binding.exports.authorizer);
        let enforced = || authorizers().filter(|binding| binding.mode == Mode::Enforce);
        let is_covered = enforced().any(|binding| resolved.is_covered_by(binding));
        let uncalled_stage = match enforced().next() {
            None => PluginStage::NoneBound,
            Some(_) if !resolved.consults_plugins(base.reason) => PluginStage::NotCalled,
            Some(_) if !is_covered => PluginStage::NotCovered,
            Some(_) => PluginStage::NotCalled,
        };
        if !resolved.consults_plugins(base.reason) {
            return Evaluation::without_plugins(base, uncalled_stage);
        }
        let input = authorizer_input(snapshot, request, &resolved, base.reason, facts, now);
        // A quarantined plugin is not called: in shadow mode it is skipped, in enforce mode it denies.
        let shadow: Vec<&Binding> = authorizers()
            .filter(|binding| binding.mode == Mode::Shadow && !binding.run_state.is_quarantined())
            .collect();
        let mut enforced_answers: Vec<(&Binding, PluginResult)> = Vec::new();
        for binding in enforced().filter(|binding| resolved.consults(base.reason, binding)) {
            let answer = self.call_authorizer(tenant, binding, &input, spent).await;
            let is_final = matches!(answer.effect(), Some(PluginEffect::Deny | PluginEffect::Failed));
            enforced_answers.push((binding, answer));
            // Shadow plugins need the results of all enforced plugins for comparison.
            if is_final && shadow.is_empty() {
                break;
            }
        }
        let reason =
            combine_deny_overrides(base.reason, enforced_answers.iter().filter_map(|(_, answer)| answer.effect()));
        let decision = Decision { allow: reason.allows(), reason, epoch: base.epoch };
        let stage = match () {
            () if enforced_answers.is_empty() => uncalled_stage,
            () if reason != base.reason => PluginStage::Decided(reason),
            () if enforced_answers.iter().all(|(_, answer)| answer.effect() == Some(PluginEffect::Abstain)) => {
                PluginStage::Abstain
            }
            () => PluginStage::Allow,
        };
        let mut shadow_answers: Vec<PluginResult> = Vec::new();
        for binding in shadow {
            let mut answer = match resolved.consults(base.reason, binding) {
                true => self.call_authorizer(tenant, binding, &input, spent).await,
                false => uncalled(binding),
            };
            let others = enforced_answers.iter().filter(|(other, _)| other.plugin != binding.plugin);
            let effects = others.map(|(_, other)| other).chain([&answer]).filter_map(PluginResult::effect);
            answer.differed = combine_deny_overrides(base.reason, effects).allows() != decision.allow;
            if answer.differed {
                binding.run_state.count(|stats| stats.differed += 1);
            }
            if answer.differed || answer.outcome.is_some() {
                shadow_answers.push(answer);
            }
        }
        let mut plugins: Vec<PluginResult> = enforced_answers.into_iter().map(|(_, answer)| answer).collect();
        plugins.append(&mut shadow_answers);
        Evaluation { decision, base: base.reason, stage, plugins }
    }

    async fn call_authorizer(
        self: &Arc<Self>,
        tenant: &Tenant,
        binding: &Binding,
        input: &AccessInput,
        spent: &Arc<Spent>,
    ) -> PluginResult {
        let called = self.ask_authorizer(tenant.id, binding, input.clone(), spent).await;
        PluginResult {
            outcome: Some(called.outcome),
            duration: called.duration,
            fuel: called.fuel,
            ..uncalled(binding)
        }
    }
}

/// The answer of a plugin that was not called.
fn uncalled(binding: &Binding) -> PluginResult {
    PluginResult {
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

/// The input of an authorizer for an access request, as `plugins/wit` defines it.
pub fn authorizer_input(
    snapshot: &Snapshot,
    request: &AccessRequest<'_>,
    resolved: &ResolvedRequest<'_>,
    base: Reason,
    facts: &RequestFacts,
    now: Timestamp,
) -> AccessInput {
    let tenant = request.tenant.and_then(|id| snapshot.tenant(id));
    let open = tenant.into_iter().flat_map(|tenant| tenant.roles_of(request.member)).filter(|role| role.is_open);
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
        tenant: request.tenant.map(|id| id.to_string()).unwrap_or_default(),
        subject: request.member.to_string(),
        roles,
        action: resolved.action.to_owned(),
        path: resolved.path.to_string(),
        context,
    }
}
