//! The permission check operation: decides one or several access requests, with reasons and optional explanations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::features::permissions;
use crate::features::permissions::import::DEFAULT_APP;
use crate::kernel::app::App;
use crate::kernel::app::evaluate::{Evaluation, HOST_FACTS, NOW_MS, PluginResult, RequestFacts};
use crate::kernel::authn::caller::CheckCaller;
use crate::kernel::authz;
use crate::kernel::authz::decide::{AccessRequest, Explanation, MatchedRole, Reason, Target, explain};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::plugin::Mode;
use crate::kernel::authz::snapshot::{Right, Snapshot};
use crate::kernel::error::{Error, Field, Result};
use crate::kernel::http::{Body, RenderedReply, Tag, rendered};
use crate::kernel::ids::{GrantId, MemberId, OrganizationId, RoleId};
use crate::kernel::sandbox::Claim;
use crate::kernel::sandbox::input::values_of;

/// An access request: exactly one of `method` and `path`; `permission`; or `scope_type`, `scope_id`, `module` and
/// `action`. Or up to 100 access requests in `questions`, without other fields
#[derive(Object)]
struct CheckRequest {
    /// The id of the member
    #[oai(validator(max_length = 64))]
    uid: Option<String>,
    #[oai(validator(max_length = 64))]
    method: Option<String>,
    #[oai(validator(max_length = 8_192))]
    path: Option<String>,
    /// The application of the path; `main` by default
    #[oai(validator(max_length = 64))]
    app: Option<String>,
    #[oai(validator(max_length = 190))]
    permission: Option<String>,
    #[oai(validator(max_length = 64))]
    scope_type: Option<String>,
    #[oai(validator(max_length = 128))]
    scope_id: Option<String>,
    #[oai(validator(max_length = 64))]
    module: Option<String>,
    #[oai(validator(max_length = 64))]
    action: Option<String>,
    /// Facts for the organization's plugins: strings, numbers, booleans, or lists of them. `now_ms` is the time of the
    /// request, by default the server's time. The server sets `question`, `base`, `app`, `permission`, `org_code`,
    /// `scope_type`, `scope_id` and `module`
    context: Option<BTreeMap<String, Any<Value>>>,
    /// Add an explanation to the answer, with roles and grants
    explain: Option<bool>,
    /// Decide with the policy of this epoch or a newer one
    min_epoch: Option<u64>,
    /// Several access requests, answered in order; they cannot contain `questions` themselves
    #[oai(validator(min_items = 1, max_items = 100))]
    questions: Option<Vec<CheckRequest>>,
}

/// A role in an explanation
#[derive(Object)]
#[oai(rename = "CheckRole", skip_serializing_if_is_none)]
struct MatchedRoleView {
    organization_id: OrganizationId,
    role_id: RoleId,
    role_key: String,
    /// The permission of the role that allows the request
    permission: Option<String>,
    /// The sources of the member's assignments of this role
    sources: Vec<String>,
}

/// One step of a decision
#[derive(Object)]
struct Stage {
    /// `gate`, `base` or `plugin`
    stage: String,
    /// `pass`, `not_asked`, or a reason; for the stage `plugin` also `none_bound`, `not_covered`, `abstain`, and
    /// `allow` if `base` had already allowed
    verdict: String,
}

/// A plugin call in a decision
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct AskedPlugin {
    name: String,
    version: u32,
    /// SHA-256 of the component, in hexadecimal
    sha256: String,
    /// `enforce`, or `shadow`: called, but without effect on the decision
    mode: String,
    /// `allow`, `deny`, `abstain`, or the kind of failure: `trap`, `fuel`, `deadline`, `memory`, `stack`, `output`,
    /// `rule_error`, `input`, `busy`, `quarantined`, `unavailable`; `not_covered` for a shadow version whose filter
    /// does not cover a request that the enforced version covers
    outcome: String,
    /// The reason of a denial, as the plugin returned it
    reason: Option<String>,
    /// The failure; only for callers who may read plugins
    fault: Option<String>,
    /// Whether the decision would have been different if this shadow plugin had been enforced; absent for enforced
    /// plugins
    differed: Option<bool>,
    duration_us: u64,
    /// Fuel used, in instructions
    fuel: u64,
}

/// The explanation of a decision
#[derive(Object)]
#[oai(rename = "Explanation", skip_serializing_if_is_none)]
struct ExplanationView {
    stages: Vec<Stage>,
    /// The plugins that were called, in order; shadow plugins last
    plugins: Vec<AskedPlugin>,
    /// The path template that matched
    template: Option<String>,
    /// The permissions of which any one allows the request
    permissions: Vec<String>,
    /// The roles that the member holds in the organization
    roles: Vec<MatchedRoleView>,
    /// The roles of the member that allow the request
    allowed_by: Vec<MatchedRoleView>,
    /// The direct grants of the member that allow the request
    grant_ids: Vec<GrantId>,
    /// For a denial: the roles of the organization that would allow the request
    would_allow: Vec<MatchedRoleView>,
}

/// The decision of one access request, or `decisions` for several
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct CheckAnswer {
    allow: Option<bool>,
    /// A word of a fixed set, for example `ok_role` or `no_permission`
    reason: Option<String>,
    /// The epoch of the policy that made the decision
    epoch: Option<u64>,
    /// The reason of a denial by a plugin, as the plugin returned it; to be shown to users
    message: Option<String>,
    because: Option<ExplanationView>,
    decisions: Option<Vec<CheckAnswer>>,
}

crate::document! {
    check_permission: [EpochNotReached];

    "CheckRequest": r#"{"uid":"019abcde-0000-7000-8000-000000000002","method":"DELETE","path":"/videos/7","explain":true}"#;
    "CheckAnswer": r#"{"allow":true,"reason":"ok_role","epoch":42}"#;
}

/// The most access requests that are decided without yielding to other tasks, if no plugin is called.
const QUESTIONS_AT_ONCE: usize = 16;

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Decisions")]
impl Api {
    /// Check whether a member may do something
    ///
    /// The organization is the caller's own, or the one that `X-Tenant-ID` names. A denial is a successful answer: 200
    /// with `allow:false` and the reason, also for unusual methods and paths. A program that names no organization can
    /// check direct grants only. For members of an organization, rights over the site and grants in other organizations
    /// do not count.
    ///
    /// If the organization has enforced plugins, they are called after roles and grants are evaluated. A plugin that
    /// denies or fails denies the request (`plugin_denied`, `plugin_failed`). A plugin that allows can allow what no
    /// role does, if it was given that right (`ok_plugin`). Plugins do not affect Roster's own permissions. `explain`
    /// lists the plugins that were called and their results. All access requests of one call are decided with the same
    /// epoch.
    #[oai(path = "/check", method = "post", operation_id = "check_permission")]
    async fn check_permission(&self, caller: CheckCaller, body: Body<CheckRequest>) -> RenderedReply<CheckAnswer> {
        let snapshot = self.app.snapshot();
        authz::require(&snapshot, &caller, Permission::POLICY_CHECK)?;
        let (bytes, input_bytes_max) = (caller.context.body.bytes().len(), self.app.config.plugin_input_bytes);
        let questions = self.app.intake.parse_long(bytes, || questions(body.0, input_bytes_max)).await?;
        let tenant = match (caller.member(), caller.named_tenant) {
            (None, None) if questions.list.iter().all(CheckRequest::is_about_a_grant) => None,
            _ => Some(caller.tenant(&snapshot)?),
        };
        drop(snapshot);
        if let Some(epoch) = questions.list.iter().filter_map(|question| question.min_epoch).max() {
            self.app.wait_for_epoch(epoch).await?;
        }
        // One snapshot decides all access requests of a call.
        let snapshot = self.app.snapshot();
        let asks_for_site = authz::includes_site_rights(&snapshot, &caller, tenant);
        if snapshot.has_authorizers(tenant) || questions.list.iter().any(CheckRequest::is_explained) {
            return self.check_with_plugins(&caller, snapshot, (tenant, asks_for_site), questions).await;
        }
        let mut json = String::with_capacity(64 * questions.list.len());
        for (n, question) in questions.list.iter().enumerate() {
            if n % QUESTIONS_AT_ONCE == QUESTIONS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let access_request = question.access_request(tenant, asks_for_site);
            let decision = self.app.evaluate_policy(&snapshot, &access_request, questions.facts(n));
            let comma = if json.is_empty() { "" } else { "," };
            let _ = write!(
                json,
                r#"{comma}{{"allow":{},"reason":"{}","epoch":{}}}"#,
                decision.allow,
                decision.reason.as_str(),
                decision.epoch
            );
        }
        Ok(rendered(if questions.is_batch { format!(r#"{{"decisions":[{json}]}}"#) } else { json }))
    }
}

/// The access requests of a call.
struct Questions {
    list: Vec<CheckRequest>,
    /// One for each access request; empty if none has facts.
    facts: Vec<RequestFacts>,
    /// Whether the call had the field `questions`.
    is_batch: bool,
}

impl Questions {
    fn facts(&self, n: usize) -> &RequestFacts {
        static NONE: RequestFacts = RequestFacts(Vec::new());
        self.facts.get(n).unwrap_or(&NONE)
    }
}

fn questions(mut request: CheckRequest, input_bytes_max: u64) -> Result<Questions> {
    let batch = request.questions.take();
    let is_batch = batch.is_some();
    if is_batch && !request.is_empty() {
        return Err(Error::field("questions", "cannot be combined with other fields: put them into each question"));
    }
    let mut list = batch.unwrap_or_else(|| vec![request]);
    let has_facts = list.iter().any(|question| question.context.is_some());
    let (mut faults, mut facts) = (Vec::new(), Vec::new());
    for (n, question) in list.iter_mut().enumerate() {
        let place = n.to_string();
        let location: &[&str] = if is_batch { &["body", "questions", &place] } else { &["body"] };
        faults.extend(question.fault().map(|message| Field::at(location, message)));
        if has_facts {
            facts.push(facts_of(question.context.take(), input_bytes_max, location, &mut faults));
        }
    }
    if faults.is_empty() { Ok(Questions { list, facts, is_batch }) } else { Err(Error::fields(faults)) }
}

/// Returns the facts of an access request; adds what is invalid to `faults`.
fn facts_of(
    context: Option<BTreeMap<String, Any<Value>>>,
    bytes_max: u64,
    location: &[&str],
    faults: &mut Vec<Field>,
) -> RequestFacts {
    let place = [location, &["context"]].concat();
    let mut fault = |name: &str, message: &str| faults.push(Field::at(&[&place[..], &[name]].concat(), message));
    let mut facts = RequestFacts::default();
    for (name, Any(value)) in context.into_iter().flatten() {
        if HOST_FACTS.contains(&name.as_str()) {
            fault(&name, "is set by the server: use another name");
        }
        if name == NOW_MS && value.as_u64().is_none_or(|ms| i64::try_from(ms).is_err()) {
            fault(&name, "must be a time in Unix milliseconds");
        }
        facts.0.push(Claim { values: values_of(&value), name });
    }
    if facts.bytes() as u64 > bytes_max {
        faults.push(Field::at(&place, format!("must have at most {bytes_max} bytes, names and values together")));
    }
    facts
}

impl CheckRequest {
    fn is_explained(&self) -> bool {
        self.explain.unwrap_or(false)
    }

    fn is_about_a_grant(&self) -> bool {
        self.scope_type.is_some()
    }

    fn is_empty(&self) -> bool {
        let texts = [
            &self.uid,
            &self.method,
            &self.path,
            &self.app,
            &self.permission,
            &self.scope_type,
            &self.scope_id,
            &self.module,
            &self.action,
        ];
        texts.iter().all(|text| text.is_none())
            && self.context.is_none()
            && self.explain.is_none()
            && self.min_epoch.is_none()
    }

    /// Returns why this is not exactly one access request.
    fn fault(&self) -> Option<&'static str> {
        if self.questions.is_some() {
            return Some("cannot contain questions itself");
        }
        if self.uid.is_none() {
            return Some("must have the uid of a member");
        }
        let route = [self.method.is_some(), self.path.is_some()];
        let grant = [self.scope_type.is_some(), self.scope_id.is_some(), self.module.is_some(), self.action.is_some()];
        let begun = [route.contains(&true), self.permission.is_some(), grant.contains(&true)];
        let whole = [!route.contains(&false), self.permission.is_some(), !grant.contains(&false)];
        let is_one = begun == whole && begun.iter().filter(|kind| **kind).count() == 1;
        if !is_one {
            return Some("must have method and path, or permission, or scope_type, scope_id, module and action");
        }
        (self.app.is_some() && !begun[0]).then_some("has an app, which is only valid with method and path")
    }

    fn access_request(&self, tenant: Option<OrganizationId>, with_platform: bool) -> AccessRequest<'_> {
        let target = match (&self.permission, &self.scope_type) {
            (Some(permission), _) => Target::Permission(permission),
            (None, Some(scope_type)) => Target::Grant(Right {
                scope_type,
                scope_id: self.scope_id.as_deref().unwrap_or_default(),
                module: self.module.as_deref().unwrap_or_default(),
                action: self.action.as_deref().unwrap_or_default(),
            }),
            (None, None) => Target::Route {
                app: self.app.as_deref().unwrap_or(DEFAULT_APP),
                method: self.method.as_deref().unwrap_or_default(),
                path: self.path.as_deref().unwrap_or_default(),
            },
        };
        AccessRequest { tenant, member: MemberId::of(self.uid.as_deref().unwrap_or_default()), with_platform, target }
    }
}

impl Api {
    /// Decides with the organization's plugins, and adds the explanations that were requested.
    async fn check_with_plugins(
        &self,
        caller: &CheckCaller,
        snapshot: Arc<Snapshot>,
        (tenant, asks_for_site): (Option<OrganizationId>, bool),
        questions: Questions,
    ) -> RenderedReply<CheckAnswer> {
        let mut evaluations = Vec::with_capacity(questions.list.len());
        let spent = Arc::default();
        for (n, question) in questions.list.iter().enumerate() {
            if n > 0 {
                tokio::task::yield_now().await;
            }
            let access_request = question.access_request(tenant, asks_for_site);
            evaluations
                .push(self.app.evaluate_with_plugins(&snapshot, &access_request, questions.facts(n), &spent).await);
        }
        let is_batch = questions.is_batch;
        let mut answers: Vec<CheckAnswer> = evaluations.iter().map(answer).collect();
        if questions.list.iter().any(CheckRequest::is_explained) {
            let may_see_plugins = authz::require(&snapshot, caller, Permission::PLUGIN_GET).is_ok();
            let explain_all = move |r: &crate::kernel::db::Reader<'_>| {
                for ((question, evaluation), answer) in questions.list.iter().zip(&evaluations).zip(&mut answers) {
                    if question.is_explained() {
                        let access_request = question.access_request(tenant, asks_for_site);
                        answer.because =
                            Some(explanation_view(r, &snapshot, &access_request, evaluation, may_see_plugins)?);
                    }
                }
                Ok(answers)
            };
            answers = self.app.read(explain_all).await?;
        }
        let json = if is_batch {
            CheckAnswer {
                allow: None,
                reason: None,
                epoch: None,
                message: None,
                because: None,
                decisions: Some(answers),
            }
            .to_json_string()
        } else {
            answers.pop().map(|answer| answer.to_json_string()).unwrap_or_default()
        };
        Ok(rendered(json))
    }
}

fn answer(evaluation: &Evaluation) -> CheckAnswer {
    CheckAnswer {
        allow: Some(evaluation.decision.allow),
        reason: Some(evaluation.decision.reason.as_str().into()),
        epoch: Some(evaluation.decision.epoch),
        message: evaluation.message().map(str::to_owned),
        because: None,
        decisions: None,
    }
}

fn plugin_view(answer: &PluginResult, may_see_plugins: bool) -> AskedPlugin {
    let fault = answer.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
    AskedPlugin {
        name: answer.name.to_string(),
        version: answer.version,
        sha256: hex::encode(answer.sha256),
        mode: answer.mode.as_str().into(),
        outcome: answer.outcome().as_str().into(),
        // The reason of a shadow plugin is only for callers who may read plugins.
        reason: answer.deny_message().filter(|_| may_see_plugins || answer.mode == Mode::Enforce).map(str::to_owned),
        fault: fault.filter(|_| may_see_plugins).map(|fault| fault.message.clone()),
        differed: (answer.mode == Mode::Shadow).then_some(answer.differed),
        duration_us: u64::try_from(answer.duration.as_micros()).unwrap_or(u64::MAX),
        fuel: answer.fuel,
    }
}

fn explanation_view(
    r: &crate::kernel::db::Reader<'_>,
    snapshot: &Snapshot,
    access_request: &AccessRequest<'_>,
    evaluation: &Evaluation,
    may_see_plugins: bool,
) -> Result<ExplanationView> {
    let explanation: Explanation = explain(snapshot, access_request);
    let platform = snapshot.platform().filter(|_| access_request.with_platform).map(|platform| platform.id);
    let mut assignments = Vec::new();
    for organization in
        access_request.tenant.into_iter().chain(platform.filter(|id| access_request.tenant != Some(*id)))
    {
        assignments.extend(permissions::list_assignments(r, organization, access_request.member)?);
    }
    let sources = |role: RoleId| -> Vec<String> {
        assignments.iter().filter(|held| held.role == role).map(|held| held.source.as_str().to_owned()).collect()
    };
    let role_view = |matched: MatchedRole| MatchedRoleView {
        organization_id: matched.organization,
        sources: sources(matched.role),
        role_id: matched.role,
        role_key: matched.role_key.to_string(),
        permission: Some(matched.permission.to_string()),
    };
    let mut roles = Vec::new();
    if let Some(tenant) = access_request.tenant.and_then(|id| snapshot.tenant(id)) {
        for role in explanation.held.iter().filter_map(|id| tenant.role(*id)) {
            roles.push(MatchedRoleView {
                organization_id: tenant.id,
                role_id: role.id,
                role_key: role.key.to_string(),
                permission: None,
                sources: sources(role.id),
            });
        }
    }
    let base = evaluation.base;
    let is_gate =
        matches!(base, Reason::MemberInactive | Reason::NotAMember | Reason::TenantInactive | Reason::PathNotCanonical);
    let stage = |stage: &str, verdict: &str| Stage { stage: stage.into(), verdict: verdict.into() };
    let (gate, by_base) = if is_gate { (base.as_str(), "not_asked") } else { ("pass", base.as_str()) };
    let is_denied = !base.allows() && !evaluation.decision.allow;
    Ok(ExplanationView {
        stages: vec![stage("gate", gate), stage("base", by_base), stage("plugin", evaluation.stage.as_str())],
        plugins: evaluation.plugins.iter().map(|answer| plugin_view(answer, may_see_plugins)).collect(),
        template: explanation.template,
        permissions: explanation.permissions.iter().map(ToString::to_string).collect(),
        roles,
        allowed_by: explanation.allowed_by.into_iter().map(role_view).collect(),
        grant_ids: explanation.grants,
        would_allow: explanation.would_allow.into_iter().filter(|_| is_denied).map(role_view).collect(),
    })
}
