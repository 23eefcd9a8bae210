//! Operations on the catalog, one's own rights, and the decision itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object, OpenApi};
use serde_json::{Value, json};

use super::{OpenClose, PermissionNode, PermissionType, flat, tree};
use crate::access::caller::{Gate, GateOrClient, Identity, Person, Who};
use crate::access::catalog::Slot;
use crate::access::decide::{Ask, Question, Witness, decide, effective, explain};
use crate::access::permission::Permission;
use crate::access::snapshot::{Right, Snapshot};
use crate::access::{self, Reach};
use crate::app::{App, Changed, Transaction};
use crate::error::{Cause, Error, Field, Result};
use crate::ids::{MemberId, OrganizationId, Timestamp};
use crate::journal::Entry;
use crate::permissions::import::{self, DEFAULT_APP};
use crate::permissions::store;
use crate::wire::{Body, RenderedReply, Reply, Tag, ok, rendered};

/// The catalog, in the form that was asked for
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct PermissionCatalog {
    tree: Option<Vec<PermissionNode>>,
    list: Option<Vec<PermissionNode>>,
}

/// What an import did, by name
#[derive(Object)]
struct CatalogDifference {
    added: Vec<String>,
    changed: Vec<String>,
    /// Names of this application that the import does not have; kept for the roles that tick them, but closed
    orphaned: Vec<String>,
}

/// The member's own rights in the organization
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct MyPermissions {
    uid: MemberId,
    tenant_id: OrganizationId,
    /// Keys of the roles held, but for closed ones
    roles: Vec<String>,
    /// Name → `open`, of all that is in force
    permissions: BTreeMap<String, String>,
    tree: Option<Vec<PermissionNode>>,
}

/// Which organizations to rebuild
#[derive(Object)]
struct PolicyReload {
    /// All that the caller reaches when absent
    tenant_id: Option<String>,
}

/// What a rebuild found
#[derive(Object)]
struct PolicyReloaded {
    /// The organization, or `*`
    tenant: String,
    /// Unix milliseconds
    ts: i64,
    old_epoch: u64,
    new_epoch: u64,
    /// Did the policy in memory differ from the database?
    changed: bool,
}

/// A question: exactly one of method and path, permission, or scope_type, scope_id, module and action
#[derive(Object)]
struct CheckQuestion {
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
}

/// One question, or up to 100
#[derive(Object)]
struct CheckRequest {
    #[oai(flatten)]
    one: CheckQuestion,
    /// Instead of all the others: several questions, answered in order
    #[oai(validator(min_items = 1, max_items = 100))]
    questions: Option<Vec<CheckQuestion>>,
}

/// A role that allows
#[derive(Object)]
struct Because {
    organization_id: OrganizationId,
    role_id: crate::ids::RoleId,
    role_key: String,
    permission: String,
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
    /// The direct grant that allows
    grant_id: Option<crate::ids::GrantId>,
    /// Roles of the organization that would have allowed it
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
    /// See the catalog
    ///
    /// As a list, or as a tree. Entries that no import names any more are left out.
    #[oai(path = "/catalog", method = "get", operation_id = "get_permission_catalog")]
    async fn get_permission_catalog(
        &self,
        _caller: Gate,
        status: Query<Option<OpenClose>>,
        #[oai(name = "type")] user_type: Query<Option<PermissionType>>,
        #[oai(name = "tree")] as_tree: Query<Option<bool>>,
        /// Only the entries of this application
        #[oai(validator(max_length = 64))]
        app: Query<Option<String>>,
    ) -> Reply<PermissionCatalog> {
        let catalog = self.app.snapshot().catalog.clone();
        let wanted = catalog
            .iter()
            .filter(|node| !node.orphaned)
            .filter(|node| status.0.is_none_or(|status| status.is_open() == node.is_open))
            .filter(|node| app.0.as_deref().is_none_or(|app| app == &*node.app))
            .filter(|node| user_type.0.is_none_or(|wanted| wanted == PermissionType::of(node)))
            .map(|node| node.slot);
        Ok(ok(if as_tree.0.unwrap_or(false) {
            PermissionCatalog { tree: Some(tree(&catalog, wanted)), list: None }
        } else {
            PermissionCatalog { tree: None, list: Some(flat(&catalog, wanted)) }
        }))
    }

    /// Import a catalog
    ///
    /// Our own form or any service's OpenAPI 3 document, as JSON or YAML. It is the whole of one application: what it
    /// does not name any more is orphaned. Refused as a whole when two entries answer the same method and path.
    #[oai(path = "/catalog", method = "put", operation_id = "import_catalog")]
    async fn import_catalog(
        &self,
        caller: Person,
        /// The application whose entries these are
        app: Query<Option<String>>,
        /// What the names begin with
        prefix: Query<Option<String>>,
        /// The path before every path of an OpenAPI document, instead of its first server's
        base: Query<Option<String>>,
        /// Only say what would be done
        dry_run: Query<Option<bool>>,
        document: CatalogDocument,
    ) -> Reply<CatalogDifference> {
        access::require(&self.app.snapshot(), &caller, Permission::CATALOG_IMPORT)?;
        let options = import::Options { app: app.0, prefix: prefix.0, base: base.0 };
        let dry_run = dry_run.0.unwrap_or(false);
        let entries_max = self.app.config.catalog_entries_max;
        let read = move || import::read(&import::parse(&document.0)?, &options);
        let import = tokio::task::spawn_blocking(read).await.map_err(|e| Error::internal(e.to_string()))??;
        let write = move |t: &Transaction<'_>, caller: &Identity| {
            access::require(t.snapshot(), caller, Permission::CATALOG_IMPORT)?;
            let (imported, change) = import::write(t, &import, entries_max, dry_run)?;
            let Some(change) = change else { return Ok(Changed::nothing(imported)) };
            let entry = Entry::new("catalog", &import.app)
                .after(json!({"added": imported.added, "changed": imported.changed, "orphaned": imported.orphaned}));
            Ok(Changed::new(imported, entry).policy([change]))
        };
        let done = self.app.change(&caller, "catalog.import", write).await?;
        let import::Imported { added, changed, orphaned } = done.answer;
        Ok(ok(CatalogDifference { added, changed, orphaned }).epoch(done.epoch))
    }

    /// See one's own roles and permissions in the organization
    ///
    /// For menus: `include_tree` adds the tree of what is held, with the ancestors it hangs on.
    #[oai(path = "/me", method = "get", operation_id = "get_my_permissions")]
    async fn get_my_permissions(
        &self,
        caller: Gate,
        include_tree: Query<Option<bool>>,
    ) -> RenderedReply<MyPermissions> {
        let snapshot = self.app.guard.snapshot.load();
        let tenant = caller.tenant(&snapshot)?;
        let member = caller.member().ok_or(Cause::Unauthenticated)?;
        let slots = effective(&snapshot, tenant, member, matches!(caller.who, Who::Member(_)));
        let mut json = rendered_rights(&snapshot, tenant, member, &slots);
        if include_tree.0.unwrap_or(false) {
            let catalog = &snapshot.catalog;
            let shown: std::collections::BTreeSet<Slot> =
                slots.iter().flat_map(|slot| std::iter::once(*slot).chain(catalog.ancestors(*slot))).collect();
            // The object is closed again behind the tree.
            json.pop();
            let _ = write!(json, ",\"tree\":{}}}", tree(catalog, shown.into_iter()).to_json_string());
        }
        Ok(rendered(json))
    }

    /// Rebuild the policy from the database
    ///
    /// Off the path of decisions; swapped in only where it differs, which it never should.
    #[oai(path = "/policy/reload", method = "post", operation_id = "reload_policy")]
    async fn reload_policy(&self, caller: Gate, body: Body<PolicyReload>) -> Reply<PolicyReloaded> {
        let snapshot = self.app.snapshot();
        let reach = access::require(&snapshot, &caller, Permission::POLICY_RELOAD)?;
        let tenant = match (&body.0.tenant_id, reach) {
            (Some(named), _) => {
                let tenant = snapshot.tenant_named(named).filter(|tenant| reach.includes(tenant.id));
                tenant.ok_or(Cause::OrganizationNotFound)?.id.to_string()
            }
            (None, Reach::Site) => "*".to_owned(),
            (None, Reach::Tenant(tenant)) => tenant.to_string(),
        };
        let found = self.app.reload().await?;
        let ts = Timestamp::now().0;
        Ok(ok(PolicyReloaded {
            tenant,
            ts,
            old_epoch: found.old_epoch,
            new_epoch: found.new_epoch,
            changed: found.changed,
        }))
    }

    /// Ask whether a member may do something
    ///
    /// The organization is the caller's own, or the one that `X-Tenant-ID` names. A denial is an answer, not a
    /// failure: 200 with `allow:false` and the reason, also for odd methods and paths. An API client that names no
    /// organization asks about direct grants only.
    #[oai(path = "/check", method = "post", operation_id = "check_permission")]
    async fn check_permission(&self, caller: GateOrClient, body: Body<CheckRequest>) -> RenderedReply<CheckAnswer> {
        let snapshot = self.app.guard.snapshot.load();
        access::require(&snapshot, &caller, Permission::POLICY_CHECK)?;
        let questions = questions(body.0)?;
        let tenant = match (&caller.who, caller.named_tenant) {
            (Who::Client(_) | Who::CommandLine, None) if questions.list.iter().all(CheckQuestion::is_about_a_grant) => {
                None
            }
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
            self.app.figures.count_decision(decision.reason);
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
    list: Vec<CheckQuestion>,
    is_batch: bool,
}

fn questions(request: CheckRequest) -> Result<Questions> {
    let is_batch = request.questions.is_some();
    if is_batch && !request.one.is_empty() {
        return Err(Error::field("questions", "stands alone: put the other fields into each question"));
    }
    let list = request.questions.unwrap_or_else(|| vec![request.one]);
    let mut faults = Vec::new();
    for (n, question) in list.iter().enumerate() {
        let place = n.to_string();
        let location: &[&str] = if is_batch { &["body", "questions", &place] } else { &["body"] };
        faults.extend(question.fault().map(|message| Field::at(location, message)));
    }
    if faults.is_empty() { Ok(Questions { list, is_batch }) } else { Err(Error::fields(faults)) }
}

impl CheckQuestion {
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
    question: &CheckQuestion,
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
    reason: crate::access::decide::Reason,
) -> Result<Explanation> {
    use crate::access::decide::{Cited, Reason};
    let sources = |organization: OrganizationId, role: crate::ids::RoleId| -> Result<Vec<String>> {
        let held = store::list_assignments(r, organization, asked.member)?;
        Ok(held.iter().filter(|held| held.role == role).map(|held| held.source.word().to_owned()).collect())
    };
    let cite = |cited: Cited| -> Result<Because> {
        Ok(Because {
            organization_id: cited.organization,
            sources: sources(cited.organization, cited.role)?,
            role_id: cited.role,
            role_key: cited.role_key.to_string(),
            permission: cited.permission.to_string(),
        })
    };
    let mut roles = Vec::new();
    if let Some(tenant) = asked.tenant.and_then(|id| snapshot.tenant(id)) {
        for role in witness.held.iter().filter_map(|id| tenant.role(*id)) {
            roles.push(Because {
                organization_id: tenant.id,
                role_id: role.id,
                role_key: role.key.to_string(),
                permission: String::new(),
                sources: sources(tenant.id, role.id)?,
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
        allowed_by: witness.allowed_by.into_iter().map(cite).collect::<Result<_>>()?,
        grant_id: witness.grant,
        would_allow: witness.would_allow.into_iter().map(cite).collect::<Result<_>>()?,
    })
}

/// `MyPermissions` without its tree, as JSON. Names and keys hold nothing that JSON would escape.
fn rendered_rights(snapshot: &Snapshot, tenant: OrganizationId, member: MemberId, slots: &[Slot]) -> String {
    let mut json = String::with_capacity(256 + 48 * slots.len());
    let _ = write!(json, r#"{{"uid":"{member}","tenant_id":"{tenant}","roles":["#);
    let mut roles: Vec<&str> = Vec::new();
    if let Some(tenant) = snapshot.tenant(tenant) {
        roles.extend(tenant.roles_of(member).filter(|role| role.is_open).map(|role| &*role.key));
    }
    roles.sort_unstable();
    for (n, key) in roles.iter().enumerate() {
        let _ = write!(json, r#"{}"{key}""#, if n == 0 { "" } else { "," });
    }
    json.push_str(r#"],"permissions":{"#);
    for (n, node) in slots.iter().filter_map(|slot| snapshot.catalog.get(*slot)).enumerate() {
        let _ = write!(json, r#"{}"{}":"open""#, if n == 0 { "" } else { "," }, node.name);
    }
    json.push_str("}}");
    json
}

/// A catalog to import, as JSON or YAML.
pub struct CatalogDocument(Vec<u8>);

const CATALOG_TYPES: [&str; 5] =
    ["application/json", "application/yaml", "application/x-yaml", "text/yaml", "application/openapi+yaml"];

/// A catalog in our own form; an OpenAPI 3 document is taken as well
#[derive(Object)]
#[oai(rename = "Catalog")]
struct CatalogForm {
    /// `main` when absent; the query wins
    app: Option<String>,
    /// What all names begin with; the query wins
    prefix: Option<String>,
    permissions: Vec<CatalogEntry>,
}

/// One permission of a catalog
#[derive(Object)]
struct CatalogEntry {
    /// Unique on the site
    name: String,
    /// The name of the category that holds it
    parent: Option<String>,
    /// Methods joined with `|`, or `*`; absent for a category
    http_methods: Option<String>,
    /// `/videos/:id`, `/files/*rest`; absent for a category
    http_path: Option<String>,
    status: Option<OpenClose>,
    #[oai(rename = "type")]
    user_type: Option<PermissionType>,
}

impl<'a> ApiExtractor<'a> for CatalogDocument {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut poem_openapi::registry::Registry) {
        <CatalogForm as poem_openapi::types::Type>::register(registry);
    }

    fn request_meta() -> Option<poem_openapi::registry::MetaRequest> {
        let media = |content_type| poem_openapi::registry::MetaMediaType {
            content_type,
            schema: <CatalogForm as poem_openapi::types::Type>::schema_ref(),
        };
        Some(poem_openapi::registry::MetaRequest {
            description: Some("A catalog, or an OpenAPI 3 document"),
            content: vec![media("application/json"), media("application/yaml")],
            required: true,
        })
    }

    async fn from_request(
        request: &'a poem::Request,
        body: &mut poem::RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let essence =
            request.content_type().and_then(|text| text.split(';').next()).unwrap_or("").trim().to_ascii_lowercase();
        if !CATALOG_TYPES.contains(&essence.as_str()) {
            let message = "send the catalog as application/json or application/yaml";
            return Err(Error::new(Cause::MediaType).saying(message).into());
        }
        Ok(Self(body.take()?.into_vec().await?))
    }
}
