//! Operations on role assignments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use poem_openapi::param::Path;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};

use super::AssignmentSource;
use crate::features::permissions::mappers::{self, MapperCall, SourceClaims, SourceFacts, TRIES};
use crate::features::permissions::role_claims::{self, Found, RoleClaim};
use crate::features::permissions::role_claims::{COUNT_MAX, is_key};
use crate::features::permissions::sync::{SyncOutcome, plan, reconcile};
use crate::features::permissions::{Assignment, Source, get_role_in_snapshot, require_not_last, store};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{GatewayCaller, GatewayOrClient};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, delegation};
use crate::kernel::config::providers::Provider;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, EmptyReply, Reply, Tag, done, ok};
use crate::kernel::ids::{AssignmentId, MemberId, OrganizationId, RoleId};

crate::text! {
    /// A group, role or claim value of an external source
    ExternalKey 1..=256 "^[^\\x00-\\x1f\\x7f]+$";
}

/// A role assignment: a role that a member holds from one source
#[derive(Object)]
#[oai(rename = "UserRole")]
struct UserRoleView {
    id: AssignmentId,
    tenant_id: OrganizationId,
    uid: MemberId,
    role_id: RoleId,
    role_key: String,
    role_display_name: String,
    source: String,
    /// Unix milliseconds
    create_at: i64,
    /// Unix milliseconds
    update_at: i64,
}

impl From<Assignment> for UserRoleView {
    fn from(assignment: Assignment) -> Self {
        Self {
            id: assignment.id,
            tenant_id: assignment.organization,
            uid: assignment.member,
            role_id: assignment.role,
            role_key: assignment.role_key,
            role_display_name: assignment.role_display_name,
            source: assignment.source.as_str().into(),
            create_at: assignment.created_at.0,
            update_at: assignment.updated_at.0,
        }
    }
}

/// The role assignments of a member
#[derive(Object)]
struct UserRoleList {
    user_roles: Vec<UserRoleView>,
}

/// The role to assign
#[derive(Object)]
struct AssignUserRole {
    role_id: RoleId,
    /// `manual` by default; other sources need the permission to sync
    source: Option<AssignmentSource>,
}

/// The external keys and claims of a member at an external source
#[derive(Object)]
struct SyncUserRoles {
    source: AssignmentSource,
    /// The member's groups or roles at the source; an empty list removes all roles of this source
    #[oai(validator(max_items = 1_000))]
    external_keys: Vec<ExternalKey>,
    /// Other claims, for role mapper plugins. Their values are external keys only if the source is `oidc` or `zitadel`
    /// and the claim is one of the setting `role_claims`
    claims: Option<BTreeMap<String, Any<Value>>>,
    /// Reports what would happen without changing anything
    dry_run: Option<bool>,
}

/// The result of a sync, as role keys
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct SyncResult {
    added: Vec<String>,
    removed: Vec<String>,
    kept: Vec<String>,
    /// External keys without a mapping
    unknown: Vec<String>,
    /// Role keys that a plugin returned but cannot assign: unknown, closed or protected roles; absent without plugins
    ignored: Option<Vec<String>>,
    /// True if a plugin failed, so that the roles of this source stay unchanged; absent otherwise
    failed: Option<bool>,
    /// The enforced role mappers that were called, in order; the last one determines the roles. Absent if there are
    /// none
    plugins: Option<Vec<MapperAnswer>>,
}

/// The call of a role mapper
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct MapperAnswer {
    name: String,
    version: u32,
    /// SHA-256 of the component, in hexadecimal
    sha256: String,
    /// `roles`, or the kind of failure: `trap`, `fuel`, `deadline`, `memory`, `stack`, `output`, `rule_error`, `input`,
    /// `busy`, `quarantined` or `unavailable`
    outcome: String,
    /// Fuel used, in instructions
    fuel: u64,
    /// The reason of the failure; only for callers who may read plugins
    message: Option<String>,
}

impl MapperAnswer {
    fn of(call: MapperCall, may_see_plugins: bool) -> Self {
        let MapperCall { name, version, sha256, fuel, fault } = call;
        Self {
            name: name.to_string(),
            version,
            sha256: hex::encode(sha256),
            outcome: fault.as_ref().map_or("roles", |fault| fault.kind.as_str()).into(),
            fuel,
            message: fault.filter(|_| may_see_plugins).map(|fault| fault.message),
        }
    }
}

impl SyncResult {
    fn of(synced: SyncOutcome, may_see_plugins: bool) -> Self {
        let SyncOutcome { source: _, added, removed, kept, unknown, ignored, asked } = synced;
        let failed = asked.iter().any(|call| call.fault.is_some()).then_some(true);
        let plugins: Vec<MapperAnswer> =
            asked.into_iter().map(|call| MapperAnswer::of(call, may_see_plugins)).collect();
        let by_plugin = !plugins.is_empty();
        let (ignored, plugins) = (by_plugin.then_some(ignored), by_plugin.then_some(plugins));
        Self { added, removed, kept, unknown, ignored, failed, plugins }
    }
}

crate::document! {
    list_user_roles: [SubjectNotFound];
    assign_user_role: [NotHeld, RoleNotFound, SubjectNotFound, RoleAlreadyAssigned, SystemRole] ["x-policy-epoch"];
    revoke_user_role: [NotHeld, RoleNotFound, AssignmentNotFound, SubjectNotFound, LastOwner] ["x-policy-epoch"];
    sync_user_roles: [NotHeld, SubjectNotFound] ["x-policy-epoch"];

    "AssignUserRole": r#"{"role_id":"019abcde-0000-7000-8000-000000000001","source":"manual"}"#;
    "SyncUserRoles": r#"{"source":"zitadel","external_keys":["editors"],"dry_run":true}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Permissions")]
impl Api {
    /// List a member's roles
    ///
    /// A role from two sources is listed twice. An unknown member has no roles.
    #[oai(path = "/users/:uid/roles", method = "get", operation_id = "list_user_roles")]
    async fn list_user_roles(&self, caller: GatewayCaller, uid: Path<MemberId>) -> Reply<UserRoleList> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::ASSIGNMENT_LIST)?;
        let held = self.app.read(move |r| store::list_assignments(r, tenant, uid.0)).await?;
        Ok(ok(UserRoleList { user_roles: held.into_iter().map(Into::into).collect() }))
    }

    /// Assign a role to a member
    ///
    /// The member must belong to the organization, and the caller must hold all permissions of the role.
    #[oai(path = "/users/:uid/roles", method = "post", operation_id = "assign_user_role")]
    async fn assign_user_role(
        &self,
        caller: GatewayCaller,
        uid: Path<MemberId>,
        body: Body<AssignUserRole>,
    ) -> Reply<UserRoleView> {
        let source: Source = body.0.source.unwrap_or(AssignmentSource::Manual).into();
        let assign = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::ASSIGNMENT_CREATE)?;
            if source != Source::Manual {
                authz::require(t.snapshot(), caller, Permission::ASSIGNMENT_SYNC)?;
            }
            let role = store::get_role(t, tenant, body.0.role_id)?;
            require_in(t.snapshot(), tenant, uid.0)?;
            if role.is_protected() && source != Source::Manual {
                // The next sync of that source could remove the role, and with it the last owner.
                return Err(Error::new(ErrorCode::SystemRole)
                    .with_message("an owner or a platform administrator can only be assigned manually"));
            }
            delegation::require_held(
                t.snapshot(),
                caller,
                tenant,
                get_role_in_snapshot(t.snapshot(), tenant, role.id)?,
            )?;
            store::insert_assignment(t, tenant, uid.0, role.id, source)?;
            let made = store::list_assignments(t, tenant, uid.0)?
                .into_iter()
                .find(|held| held.role == role.id && held.source == source)
                .ok_or(ErrorCode::AssignmentNotFound)?;
            let entry =
                Entry::new("member", uid.0).within(tenant).after(json!({"role": role.key, "source": source.as_str()}));
            let change = authz::store::membership(t, tenant, uid.0)?;
            Ok(Changed::new(UserRoleView::from(made), entry).with_policy_changes([change]))
        };
        let made = self.app.create(&caller, "assignment.create", Permission::ASSIGNMENT_CREATE, assign).await?;
        Ok(ok(made.answer).epoch(made.epoch))
    }

    /// Revoke a role of a member
    ///
    /// Deletes the assignments from all sources; the next sync of a source can add the role again. The role of the last
    /// owner cannot be revoked, and a caller cannot revoke a role with permissions that it does not hold.
    #[oai(path = "/users/:uid/roles/:role_id", method = "delete", operation_id = "revoke_user_role")]
    async fn revoke_user_role(&self, caller: GatewayCaller, uid: Path<MemberId>, role_id: Path<RoleId>) -> EmptyReply {
        let revoke = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::ASSIGNMENT_DELETE)?;
            let held = store::list_assignments(t, tenant, uid.0)?.into_iter().find(|held| held.role == role_id.0);
            let role = store::get_role(t, tenant, held.ok_or(ErrorCode::AssignmentNotFound)?.role)?;
            delegation::require_may_revoke(
                t.snapshot(),
                caller,
                tenant,
                get_role_in_snapshot(t.snapshot(), tenant, role.id)?,
            )?;
            if role.is_protected() {
                require_not_last(t, tenant, uid.0)?;
            }
            store::delete_assignments(t, tenant, uid.0, role.id)?;
            let entry = Entry::new("member", uid.0).within(tenant).before(json!({"role": role.key}));
            let change = authz::store::membership(t, tenant, uid.0)?;
            Ok(Changed::new((), entry).with_policy_changes([change]))
        };
        let revoked = self.app.change(&caller, "assignment.delete", revoke).await?;
        Ok(done().epoch(revoked.epoch))
    }

    /// Sync a member's roles with an external source
    ///
    /// Role mappings map the external keys to roles. The organization's role mapper plugins, if any, get the keys, the
    /// claims and these roles, and return the final ones. Only assignments of this source change, and none if a plugin
    /// fails. `manual` cannot be synced. Fails with 503 `busy` if plugins or mappings change during every attempt.
    #[oai(path = "/users/:uid/roles/sync", method = "post", operation_id = "sync_user_roles")]
    async fn sync_user_roles(
        &self,
        caller: GatewayOrClient,
        uid: Path<MemberId>,
        body: Body<SyncUserRoles>,
    ) -> Reply<SyncResult> {
        let dry_run = body.0.dry_run.unwrap_or(false);
        let sync_source = Arc::new(SyncSource::of(body.0, &self.app.config.providers)?);
        for _ in 0..TRIES {
            let tenant = may_sync(&self.app.snapshot(), &caller, uid.0, sync_source.source)?;
            let mapped = mappers::call_mappers(&self.app, (tenant, uid.0), sync_source.source_claims()).await?;
            let sync_source = sync_source.clone();
            let synchronize = move |t: &Transaction<'_>, caller: &Identity| {
                let tenant = may_sync(t.snapshot(), caller, uid.0, sync_source.source)?;
                let plan =
                    if tenant == mapped.organization { plan(t, sync_source.source_claims(), &mapped)? } else { None };
                let Some(plan) = plan else { return Ok(Changed::unchanged(None)) };
                let synced = reconcile(t, caller, (tenant, uid.0), plan, dry_run)?;
                if dry_run || !synced.is_change() {
                    return Ok(Changed::unchanged(Some(synced)));
                }
                let entry = Entry::new("member", uid.0).within(tenant).after(synced.record());
                let change = authz::store::membership(t, tenant, uid.0)?;
                Ok(Changed::new(Some(synced), entry).with_policy_changes([change]))
            };
            let done = self.app.change(&caller, "assignment.sync", synchronize).await?;
            if let Some(synced) = done.answer {
                let may_see_plugins = authz::require(&self.app.snapshot(), &caller, Permission::PLUGIN_GET).is_ok();
                return Ok(ok(SyncResult::of(synced, may_see_plugins)).epoch(done.epoch));
            }
        }
        Err(mappers::mappers_changed().into())
    }
}

/// The source of a sync request, with its external keys and claims.
struct SyncSource {
    source: Source,
    keys: BTreeSet<String>,
    facts: SourceFacts,
}

impl SyncSource {
    fn of(request: SyncUserRoles, providers: &[Provider]) -> Result<Self> {
        let source: Source = request.source.into();
        let claims: serde_json::Map<String, Value> =
            request.claims.into_iter().flatten().map(|(name, claim)| (name, claim.0)).collect();
        let mut keys: BTreeSet<String> = request.external_keys.into_iter().map(|key| key.0).collect();
        for configured in role_claims::of_source(providers, source) {
            match RoleClaim::of(configured).find(std::iter::once(&claims)) {
                Found::Keys(found) => keys.extend(found.into_iter().filter(|key| is_key(key))),
                Found::Absent => {}
                Found::Unknown(reason) => {
                    let message = format!("{configured} is a role claim of the settings: {reason}");
                    return Err(Error::field("claims", message));
                }
            }
        }
        if keys.len() > COUNT_MAX {
            return Err(Error::field("claims", format!("has more than {COUNT_MAX} keys")));
        }
        let facts = if claims.is_empty() { SourceFacts::default() } else { SourceFacts::of_json(&claims) };
        Ok(Self { source, keys, facts })
    }

    fn source_claims(&self) -> SourceClaims<'_> {
        SourceClaims { source: self.source, keys: &self.keys, facts: &self.facts }
    }
}

/// Returns the organization in which the caller may sync this member with this source. Fails if it may not.
fn may_sync(snapshot: &Snapshot, caller: &Identity, member: MemberId, source: Source) -> Result<OrganizationId> {
    let tenant = authz::require_in_tenant(snapshot, caller, Permission::ASSIGNMENT_SYNC)?;
    if source == Source::Manual {
        return Err(Error::field("source", "must be an external source"));
    }
    require_in(snapshot, tenant, member)?;
    Ok(tenant)
}

/// Fails with `SubjectNotFound` for a member outside the organization, as for one that does not exist.
fn require_in(snapshot: &Snapshot, tenant: OrganizationId, member: MemberId) -> Result<()> {
    let is_in = snapshot.tenant(tenant).is_some_and(|tenant| tenant.set_of(member).is_some());
    if is_in { Ok(()) } else { Err(ErrorCode::SubjectNotFound.into()) }
}
