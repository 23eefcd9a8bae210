//! The decision as an operation: one question or many, with reasons, and with rows where they are asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::features::permissions;
use crate::features::permissions::import::DEFAULT_APP;
use crate::kernel::app::App;
use crate::kernel::app::evaluate::{Evaluation, HOST_FACTS, NOW_MS, PluginAnswer, RequestFacts, has_authorizers};
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

/// A question: exactly one of method and path, permission, or scope_type, scope_id, module and action; or instead of
/// all that up to 100 `questions`
#[derive(Object)]
struct CheckRequest {
    /// The member
    #[oai(validator(max_length = 64))]
    uid: Option<String>,
    #[oai(validator(max_length = 64))]
    method: Option<String>,
    #[oai(validator(max_length = 8_192))]
    path: Option<String>,
    /// The application of the path; `main` when absent
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
    /// Facts for the organization's plugins: text, numbers, truth values, or lists of them. `now_ms` is the moment of
    /// the question, ours when absent; `question`, `base`, `app`, `permission`, `org_code`, `scope_type`, `scope_id` and
    /// `module` are told by the server
    context: Option<BTreeMap<String, Any<Value>>>,
    /// Say why, naming rows
    explain: Option<bool>,
    /// Decide at this epoch or a newer one
    min_epoch: Option<u64>,
    /// Several questions, answered in order; they have none of their own
    #[oai(validator(min_items = 1, max_items = 100))]
    questions: Option<Vec<CheckRequest>>,
}

/// A role that is held, that allows, or that would have
#[derive(Object)]
#[oai(rename = "CheckRole", skip_serializing_if_is_none)]
struct MatchedRoleView {
    organization_id: OrganizationId,
    role_id: RoleId,
    role_key: String,
    /// The permission by which it allows
    permission: Option<String>,
    /// Where the member's assignment comes from
    sources: Vec<String>,
}

/// One step of a decision
#[derive(Object)]
struct Stage {
    /// `gate`, `base` or `plugin`
    stage: String,
    /// `pass`, `not_asked`, or a reason; of `plugin` also `none_bound`, `not_covered`, `abstain`, and `allow` where base
    /// had allowed already
    verdict: String,
}

/// One of the organization's plugins in a decision
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct AskedPlugin {
    name: String,
    version: u32,
    /// Of the component
    sha256: String,
    /// `enforce`, or `shadow`: asked, and without effect
    mode: String,
    /// `allow`, `deny`, `abstain`, or why it has no answer: `trap`, `fuel`, `deadline`, `memory`, `stack`, `output`,
    /// `rule_error`, `input`, `busy`, `quarantined`, `unavailable`; `not_covered` for a watched one that leaves out what
    /// the version in force does not
    outcome: String,
    /// Why it denied, in its own words
    reason: Option<String>,
    /// What went wrong; only for who may see plugins
    fault: Option<String>,
    /// Would the answer have been another one, had it been in force? Of watched ones
    differed: Option<bool>,
    duration_us: u64,
    /// Instructions used
    fuel: u64,
}

/// Why a question was answered as it was
#[derive(Object)]
#[oai(rename = "Explanation", skip_serializing_if_is_none)]
struct ExplanationView {
    stages: Vec<Stage>,
    /// Plugins that were asked, in their order; watched ones last
    plugins: Vec<AskedPlugin>,
    /// The template that decided
    template: Option<String>,
    /// Permissions of which any one answers
    permissions: Vec<String>,
    /// Roles the member holds in the organization
    roles: Vec<MatchedRoleView>,
    /// Those that allow
    allowed_by: Vec<MatchedRoleView>,
    /// Direct grants of which each one allows
    grant_ids: Vec<GrantId>,
    /// For a denial: roles of the organization that would have allowed it
    would_allow: Vec<MatchedRoleView>,
}

/// The answer to one question, or `decisions` for several
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct CheckAnswer {
    allow: Option<bool>,
    /// One of a closed set of words
    reason: Option<String>,
    /// The epoch of the policy that decided
    epoch: Option<u64>,
    /// Why a plugin denied, in its own words: for people
    message: Option<String>,
    because: Option<ExplanationView>,
    decisions: Option<Vec<CheckAnswer>>,
}

crate::document! {
    check_permission: [EpochNotReached];

    "CheckRequest": r#"{"uid":"019abcde-0000-7000-8000-000000000002","method":"DELETE","path":"/videos/7","explain":true}"#;
    "CheckAnswer": r#"{"allow":true,"reason":"ok_role","epoch":42}"#;
}

/// Questions that are answered without letting other requests of the thread have it in between, where no plugin is asked.
const QUESTIONS_AT_ONCE: usize = 16;

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Decisions")]
impl Api {
    /// Ask whether a member may do something
    ///
    /// The organization is the caller's own, or the one that `X-Tenant-ID` names. A denial is an answer, not a
    /// failure: 200 with `allow:false` and the reason, also for odd methods and paths. A program that names no
    /// organization asks about direct grants only. To an organization's own people, rights over the site and grants in
    /// other organizations do not exist.
    ///
    /// Where the organization has plugins in force, they are asked after roles and grants: one that denies or fails
    /// denies (`plugin_denied`, `plugin_failed`), one that allows opens what no role does, if it was given that right
    /// (`ok_plugin`). They have no say in Roster's own permissions. `explain` lists who was asked and what came of it.
    /// All questions of a request are answered by one epoch.
    #[oai(path = "/check", method = "post", operation_id = "check_permission")]
    async fn check_permission(&self, caller: CheckCaller, body: Body<CheckRequest>) -> RenderedReply<CheckAnswer> {
        let snapshot = self.app.snapshot();
        authz::require(&snapshot, &caller, Permission::POLICY_CHECK)?;
        let (bytes, input_bytes_max) = (caller.context.body.bytes().len(), self.app.config.plugin_input_bytes);
        let questions = self.app.intake.read_long(bytes, || questions(body.0, input_bytes_max)).await?;
        let tenant = match (caller.member(), caller.named_tenant) {
            (None, None) if questions.list.iter().all(CheckRequest::is_about_a_grant) => None,
            _ => Some(caller.tenant(&snapshot)?),
        };
        drop(snapshot);
        if let Some(epoch) = questions.list.iter().filter_map(|question| question.min_epoch).max() {
            self.app.wait_for_epoch(epoch).await?;
        }
        // One snapshot answers all questions of a request.
        let snapshot = self.app.snapshot();
        let asks_for_site = authz::asks_for_site(&snapshot, &caller, tenant);
        if has_authorizers(&snapshot, tenant) || questions.list.iter().any(CheckRequest::is_explained) {
            return self.judged(&caller, snapshot, (tenant, asks_for_site), questions).await;
        }
        let mut json = String::with_capacity(64 * questions.list.len());
        for (n, question) in questions.list.iter().enumerate() {
            if n % QUESTIONS_AT_ONCE == QUESTIONS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let asked = question.asked(tenant, asks_for_site);
            let decision = self.app.evaluate_policy(&snapshot, &asked, questions.facts(n));
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

/// The questions of a request, and whether it was written as a list.
struct Questions {
    list: Vec<CheckRequest>,
    /// One for each question; empty where no question has any.
    facts: Vec<RequestFacts>,
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
        return Err(Error::field("questions", "stands alone: put the other fields into each question"));
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

/// The facts of a question, and what is wrong with them.
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
            fault(&name, "is told by the server: give the fact another name");
        }
        if name == NOW_MS && value.as_u64().is_none_or(|ms| i64::try_from(ms).is_err()) {
            fault(&name, "must be a moment in Unix milliseconds");
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

    /// Why it is not exactly one question.
    fn fault(&self) -> Option<&'static str> {
        if self.questions.is_some() {
            return Some("is one question, and has no questions of its own");
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
        (self.app.is_some() && !begun[0]).then_some("has an app, which only a method and path have")
    }

    fn asked(&self, tenant: Option<OrganizationId>, with_platform: bool) -> AccessRequest<'_> {
        let ask = match (&self.permission, &self.scope_type) {
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
        AccessRequest {
            tenant,
            member: MemberId::of(self.uid.as_deref().unwrap_or_default()),
            with_platform,
            target: ask,
        }
    }
}

impl Api {
    /// Asks plugins where there are some, and explains where it is wanted.
    async fn judged(
        &self,
        caller: &CheckCaller,
        snapshot: Arc<Snapshot>,
        (tenant, asks_for_site): (Option<OrganizationId>, bool),
        questions: Questions,
    ) -> RenderedReply<CheckAnswer> {
        let mut verdicts = Vec::with_capacity(questions.list.len());
        let spent = Arc::default();
        for (n, question) in questions.list.iter().enumerate() {
            if n > 0 {
                tokio::task::yield_now().await;
            }
            let asked = question.asked(tenant, asks_for_site);
            verdicts.push(self.app.evaluate_with_plugins(&snapshot, &asked, questions.facts(n), &spent).await);
        }
        let is_batch = questions.is_batch;
        let mut answers: Vec<CheckAnswer> = verdicts.iter().map(answer).collect();
        if questions.list.iter().any(CheckRequest::is_explained) {
            let may_look = authz::require(&snapshot, caller, Permission::PLUGIN_GET).is_ok();
            let explain_all = move |r: &crate::kernel::db::Reader<'_>| {
                for ((question, evaluation), answer) in questions.list.iter().zip(&verdicts).zip(&mut answers) {
                    if question.is_explained() {
                        let asked = question.asked(tenant, asks_for_site);
                        answer.because = Some(explanation_view(r, &snapshot, &asked, evaluation, may_look)?);
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

fn asked_view(asked: &PluginAnswer, may_look: bool) -> AskedPlugin {
    let fault = asked.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
    AskedPlugin {
        name: asked.name.to_string(),
        version: asked.version,
        sha256: hex::encode(asked.sha256),
        mode: asked.mode.as_str().into(),
        outcome: asked.as_str().into(),
        // Who is only watched says nothing to people yet.
        reason: asked.sentence().filter(|_| may_look || asked.mode == Mode::Enforce).map(str::to_owned),
        fault: fault.filter(|_| may_look).map(|fault| fault.message.clone()),
        differed: (asked.mode == Mode::Shadow).then_some(asked.differed),
        duration_us: u64::try_from(asked.duration.as_micros()).unwrap_or(u64::MAX),
        fuel: asked.fuel,
    }
}

fn explanation_view(
    r: &crate::kernel::db::Reader<'_>,
    snapshot: &Snapshot,
    asked: &AccessRequest<'_>,
    evaluation: &Evaluation,
    may_look: bool,
) -> Result<ExplanationView> {
    let explanation: Explanation = explain(snapshot, asked);
    let platform = snapshot.platform().filter(|_| asked.with_platform).map(|platform| platform.id);
    let mut assignments = Vec::new();
    for organization in asked.tenant.into_iter().chain(platform.filter(|id| asked.tenant != Some(*id))) {
        assignments.extend(permissions::list_assignments(r, organization, asked.member)?);
    }
    let sources = |role: RoleId| -> Vec<String> {
        assignments.iter().filter(|held| held.role == role).map(|held| held.source.as_str().to_owned()).collect()
    };
    let cite = |matched: MatchedRole| MatchedRoleView {
        organization_id: matched.organization,
        sources: sources(matched.role),
        role_id: matched.role,
        role_key: matched.role_key.to_string(),
        permission: Some(matched.permission.to_string()),
    };
    let mut roles = Vec::new();
    if let Some(tenant) = asked.tenant.and_then(|id| snapshot.tenant(id)) {
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
        plugins: evaluation.plugins.iter().map(|asked| asked_view(asked, may_look)).collect(),
        template: explanation.template,
        permissions: explanation.permissions.iter().map(ToString::to_string).collect(),
        roles,
        allowed_by: explanation.allowed_by.into_iter().map(cite).collect(),
        grant_ids: explanation.grants,
        would_allow: explanation.would_allow.into_iter().filter(|_| is_denied).map(cite).collect(),
    })
}
