//! The decision as an operation: one question or many, with reasons, and with rows where they are asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::access;
use crate::access::caller::Asker;
use crate::access::decide::{Ask, Cited, Question, Reason, Witness, decide, explain};
use crate::access::permission::Permission;
use crate::access::snapshot::{Right, Snapshot};
use crate::app::App;
use crate::error::{Error, Field, Result};
use crate::ids::{GrantId, MemberId, OrganizationId, RoleId};
use crate::permissions::import::DEFAULT_APP;
use crate::permissions::store;
use crate::wire::{Body, RenderedReply, Tag, rendered};

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
    /// Facts for the organization's own rules
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
struct Because {
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
    verdict: String,
}

/// Why a question was answered as it was
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct Explanation {
    stages: Vec<Stage>,
    /// The template that decided
    template: Option<String>,
    /// Permissions of which any one answers
    permissions: Vec<String>,
    /// Roles the member holds in the organization
    roles: Vec<Because>,
    /// Those that allow
    allowed_by: Vec<Because>,
    /// Direct grants of which each one allows
    grant_ids: Vec<GrantId>,
    /// For a denial: roles of the organization that would have allowed it
    would_allow: Vec<Because>,
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
    because: Option<Explanation>,
    decisions: Option<Vec<CheckAnswer>>,
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Permissions")]
impl Api {
    /// Ask whether a member may do something
    ///
    /// The organization is the caller's own, or the one that `X-Tenant-ID` names. A denial is an answer, not a
    /// failure: 200 with `allow:false` and the reason, also for odd methods and paths. A program that names no
    /// organization asks about direct grants only.
    #[oai(path = "/check", method = "post", operation_id = "check_permission")]
    async fn check_permission(&self, caller: Asker, body: Body<CheckRequest>) -> RenderedReply<CheckAnswer> {
        let snapshot = self.app.guard.snapshot.load();
        access::require(&snapshot, &caller, Permission::POLICY_CHECK)?;
        let questions = questions(body.0)?;
        let tenant = match (caller.member(), caller.named_tenant) {
            (None, None) if questions.list.iter().all(CheckRequest::is_about_a_grant) => None,
            _ => Some(caller.tenant(&snapshot)?),
        };
        drop(snapshot);
        if let Some(epoch) = questions.list.iter().filter_map(|question| question.min_epoch).max() {
            self.app.wait_for_epoch(epoch).await?;
        }
        if questions.list.iter().any(|question| question.explain.unwrap_or(false)) {
            return self.explained(tenant, questions).await;
        }
        // One snapshot answers all questions of a request.
        let snapshot = self.app.guard.snapshot.load();
        let mut json = String::with_capacity(64 * questions.list.len());
        for question in &questions.list {
            let decision = decide(&snapshot, &question.asked(tenant));
            self.app.figures.count_decision(decision.reason.word());
            let comma = if json.is_empty() { "" } else { "," };
            let _ = write!(
                json,
                r#"{comma}{{"allow":{},"reason":"{}","epoch":{}}}"#,
                decision.allow,
                decision.reason.word(),
                decision.epoch
            );
        }
        Ok(rendered(if questions.is_batch { format!(r#"{{"decisions":[{json}]}}"#) } else { json }))
    }
}

/// The questions of a request, and whether it was written as a list.
struct Questions {
    list: Vec<CheckRequest>,
    is_batch: bool,
}

fn questions(mut request: CheckRequest) -> Result<Questions> {
    let batch = request.questions.take();
    let is_batch = batch.is_some();
    if is_batch && !request.is_empty() {
        return Err(Error::field("questions", "stands alone: put the other fields into each question"));
    }
    let list = batch.unwrap_or_else(|| vec![request]);
    let mut faults = Vec::new();
    for (n, question) in list.iter().enumerate() {
        let place = n.to_string();
        let location: &[&str] = if is_batch { &["body", "questions", &place] } else { &["body"] };
        faults.extend(question.fault().map(|message| Field::at(location, message)));
    }
    if faults.is_empty() { Ok(Questions { list, is_batch }) } else { Err(Error::fields(faults)) }
}

impl CheckRequest {
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

    fn asked(&self, tenant: Option<OrganizationId>) -> Question<'_> {
        let ask = match (&self.permission, &self.scope_type) {
            (Some(permission), _) => Ask::Permission(permission),
            (None, Some(scope_type)) => Ask::Grant(Right {
                scope_type,
                scope_id: self.scope_id.as_deref().unwrap_or_default(),
                module: self.module.as_deref().unwrap_or_default(),
                action: self.action.as_deref().unwrap_or_default(),
            }),
            (None, None) => Ask::Route {
                app: self.app.as_deref().unwrap_or(DEFAULT_APP),
                method: self.method.as_deref().unwrap_or_default(),
                path: self.path.as_deref().unwrap_or_default(),
            },
        };
        Question { tenant, member: MemberId::of(self.uid.as_deref().unwrap_or_default()), with_platform: true, ask }
    }
}

impl Api {
    async fn explained(&self, tenant: Option<OrganizationId>, questions: Questions) -> RenderedReply<CheckAnswer> {
        let cell = self.app.guard.snapshot.clone();
        let is_batch = questions.is_batch;
        let answers = self
            .app
            .read(move |r| {
                let snapshot = cell.load_full();
                questions
                    .list
                    .iter()
                    .map(|question| explained(r, &snapshot, tenant, question))
                    .collect::<Result<Vec<_>>>()
            })
            .await?;
        for answer in &answers {
            self.app.figures.count_decision(answer.reason.as_deref().unwrap_or_default());
        }
        let single = |mut answers: Vec<CheckAnswer>| answers.pop().map(|answer| answer.to_json_string());
        let json = if is_batch {
            CheckAnswer { allow: None, reason: None, epoch: None, because: None, decisions: Some(answers) }
                .to_json_string()
        } else {
            single(answers).unwrap_or_default()
        };
        Ok(rendered(json))
    }
}

fn explained(
    r: &crate::db::Reader<'_>,
    snapshot: &Snapshot,
    tenant: Option<OrganizationId>,
    question: &CheckRequest,
) -> Result<CheckAnswer> {
    let asked = question.asked(tenant);
    let decision = decide(snapshot, &asked);
    let because = match question.explain {
        Some(true) => Some(explanation(r, snapshot, &asked, explain(snapshot, &asked), decision.reason)?),
        _ => None,
    };
    Ok(CheckAnswer {
        allow: Some(decision.allow),
        reason: Some(decision.reason.word().into()),
        epoch: Some(decision.epoch),
        because,
        decisions: None,
    })
}

fn explanation(
    r: &crate::db::Reader<'_>,
    snapshot: &Snapshot,
    asked: &Question<'_>,
    witness: Witness,
    reason: Reason,
) -> Result<Explanation> {
    let platform = snapshot.platform().map(|platform| platform.id);
    let mut assignments = Vec::new();
    for organization in asked.tenant.into_iter().chain(platform.filter(|id| asked.tenant != Some(*id))) {
        assignments.extend(store::list_assignments(r, organization, asked.member)?);
    }
    let sources = |role: RoleId| -> Vec<String> {
        assignments.iter().filter(|held| held.role == role).map(|held| held.source.word().to_owned()).collect()
    };
    let cite = |cited: Cited| Because {
        organization_id: cited.organization,
        sources: sources(cited.role),
        role_id: cited.role,
        role_key: cited.role_key.to_string(),
        permission: Some(cited.permission.to_string()),
    };
    let mut roles = Vec::new();
    if let Some(tenant) = asked.tenant.and_then(|id| snapshot.tenant(id)) {
        for role in witness.held.iter().filter_map(|id| tenant.role(*id)) {
            roles.push(Because {
                organization_id: tenant.id,
                role_id: role.id,
                role_key: role.key.to_string(),
                permission: None,
                sources: sources(role.id),
            });
        }
    }
    let is_gate = matches!(
        reason,
        Reason::MemberInactive | Reason::NotAMember | Reason::TenantInactive | Reason::PathNotCanonical
    );
    let stage = |stage: &str, verdict: &str| Stage { stage: stage.into(), verdict: verdict.into() };
    let (gate, base) = if is_gate { (reason.word(), "not_asked") } else { ("pass", reason.word()) };
    Ok(Explanation {
        stages: vec![stage("gate", gate), stage("base", base), stage("plugin", "none_bound")],
        template: witness.template,
        permissions: witness.permissions.iter().map(ToString::to_string).collect(),
        roles,
        allowed_by: witness.allowed_by.into_iter().map(cite).collect(),
        grant_ids: witness.grants,
        would_allow: witness.would_allow.into_iter().filter(|_| !reason.allows()).map(cite).collect(),
    })
}
