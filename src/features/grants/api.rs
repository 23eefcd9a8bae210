//! Operations on direct grants, and the operations that return all rights of a member.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::ToJSON;
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use crate::features::grants::{self, Grant, OwnedRight};
use crate::features::members::{self, Member, NewMember};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{AdminCaller, InternalCaller, MemberOrKey};
use crate::kernel::authz::decide::is_of_inactive_organization;
use crate::kernel::authz::key::ME_READ;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach, delegation};
use crate::kernel::db::{PageRequest, Reader};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, DisplayName, Email, Page, Reply, Subject, Tag, is_known, ok, unchanged};
use crate::kernel::ids::{GrantId, MemberId, OrganizationId};
use crate::kernel::outbox::EventKind;
use crate::kernel::secret;

crate::text! {
    /// The scope type, module or action of a grant
    ScopeWord 1..=64 "^[a-z0-9][a-z0-9._-]{0,63}$";
    /// The id of the object of a grant; `*` for all objects of the scope type
    ScopeId 1..=128 "^[^\\x00-\\x1f\\x7f]+$";
}

/// The grant to create; an unknown `authentik_sub` creates a member
#[derive(Object)]
struct GrantRequest {
    /// The subject at Authentik; or use `uid`
    authentik_sub: Option<Subject>,
    /// The id of the member; or use `authentik_sub`
    uid: Option<MemberId>,
    /// The e-mail of a new member
    email: Option<Email>,
    /// The display name of a new member
    display_name: Option<DisplayName>,
    scope_type: ScopeWord,
    scope_id: ScopeId,
    module: ScopeWord,
    action: ScopeWord,
}

/// The grant to revoke
#[derive(Object)]
struct RevokeRequest {
    /// The subject at Authentik; or use `uid`
    authentik_sub: Option<Subject>,
    /// The id of the member; or use `authentik_sub`
    uid: Option<MemberId>,
    scope_type: ScopeWord,
    scope_id: ScopeId,
    module: ScopeWord,
    action: ScopeWord,
}

/// The new or existing grant
#[derive(Object)]
struct Granted {
    /// Granting the same right again returns the same id
    permission_id: GrantId,
    /// Always `granted`
    result: String,
}

/// The result of a revocation
#[derive(Object)]
struct Revoked {
    /// The number of revoked grants: 1, or 0 if the member did not have the grant
    deleted: u64,
    /// Always `revoked`
    result: String,
}

/// A direct grant
#[derive(Object)]
struct RightView {
    scope_type: String,
    scope_id: String,
    module: String,
    action: String,
}

/// A direct grant as stored
#[derive(Object)]
#[oai(rename = "Grant")]
struct GrantView {
    /// The id that granting it returned
    permission_id: GrantId,
    scope_type: String,
    scope_id: String,
    module: String,
    action: String,
    /// False while the organization that it is scoped to is inactive
    in_effect: bool,
    /// Unix milliseconds
    created_at: i64,
}

/// A role held in an organization
#[derive(Object)]
struct HeldRole {
    organization_id: OrganizationId,
    org_code: String,
    role_key: String,
}

/// All effective grants and roles of a member
#[derive(Object)]
struct RightsSnapshot {
    #[oai(nullable)]
    authentik_sub: Option<String>,
    uid: MemberId,
    permissions: Vec<RightView>,
    roles: Vec<HeldRole>,
    /// The epoch of the policy at the time of reading
    epoch: u64,
}

crate::document! {
    grant_right: [NotHeld, UserNotFound, EmailExists, SiteFull] ["x-policy-epoch"];
    revoke_right: [NotHeld, UserNotFound] ["x-policy-epoch"];
    list_rights: [UserNotFound];
    get_my_rights: [] ["etag"];
    get_rights_by_sub: [UserNotFound] ["etag"];

    "GrantRequest": r#"{"authentik_sub":"a1b2c3","email":"kim@example.org","display_name":"Kim","scope_type":"site","scope_id":"north","module":"cameras","action":"view"}"#;
    "RevokeRequest": r#"{"authentik_sub":"a1b2c3","scope_type":"site","scope_id":"north","module":"cameras","action":"view"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Grants")]
impl Api {
    /// Grant a right to a member
    ///
    /// Granting the same right again returns the existing grant. An unknown `authentik_sub` creates an active member.
    /// The caller must hold the right.
    #[oai(path = "/admin/permissions/grant", method = "post", operation_id = "grant_right")]
    async fn grant_right(&self, caller: AdminCaller, body: Body<GrantRequest>) -> Reply<Granted> {
        let body = body.0;
        let (grants_max, members_max) = (self.app.config.grants_max, self.app.config.members_max);
        let right = OwnedRight {
            scope_type: body.scope_type.0,
            scope_id: body.scope_id.0,
            module: body.module.0,
            action: body.action.0,
        };
        let new = NewMember {
            email: body.email.map(|text| text.0),
            display_name: body.display_name.map(|text| text.0),
            authentik_sub: body.authentik_sub.as_ref().map(|text| text.0.clone()),
            ..NewMember::default()
        };
        let grant = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::GRANT_CREATE)?;
            delegation::require_right_held(t.snapshot(), caller, &right.as_right())?;
            let mut changes = Vec::new();
            let mut is_new = false;
            let member = match find(t, body.authentik_sub.as_deref(), body.uid)? {
                Some(member) => member.id,
                None if new.authentik_sub.is_some() => {
                    let id = members::create(t, members::require_capacity(t.snapshot(), members_max)?, &new)?;
                    changes.push(authz::store::member_state(t, id)?);
                    is_new = true;
                    id
                }
                None => return Err(ErrorCode::UserNotFound.into()),
            };
            let (id, change) = grants::grant(t, member, &right.as_right())?;
            if change.is_some() && t.snapshot().grants() as u64 >= grants_max {
                return Err(Error::field(
                    "scope_id",
                    format!("the site already has {grants_max} grants (limits.grants)"),
                ));
            }
            let answer = Granted { permission_id: id, result: "granted".into() };
            let Some(change) = change else { return Ok(Changed::unchanged(answer)) };
            changes.push(change);
            let mut after = described(&right, id);
            after["member_created"] = is_new.into();
            let entry = Entry::new("member", member).after(after);
            let created = is_new.then(|| members::member_event(t, EventKind::MemberCreated, member));
            Ok(Changed::new(answer, entry).with_policy_changes(changes).with_events(created))
        };
        let granted = self.app.create(&caller, "grant.create", Permission::GRANT_CREATE, grant).await?;
        Ok(ok(granted.answer).epoch(granted.epoch))
    }

    /// Revoke a right of a member
    ///
    /// The fields must equal those of the grant. Revoking a right that the member does not have is not an error:
    /// `deleted` is 0.
    #[oai(path = "/admin/permissions/revoke", method = "post", operation_id = "revoke_right")]
    async fn revoke_right(&self, caller: AdminCaller, body: Body<RevokeRequest>) -> Reply<Revoked> {
        let body = body.0;
        let right = OwnedRight {
            scope_type: body.scope_type.0,
            scope_id: body.scope_id.0,
            module: body.module.0,
            action: body.action.0,
        };
        let revoke = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::GRANT_DELETE)?;
            delegation::require_right_held(t.snapshot(), caller, &right.as_right())?;
            let member = find(t, body.authentik_sub.as_deref(), body.uid)?.ok_or(ErrorCode::UserNotFound)?;
            let answer = |deleted| Revoked { deleted, result: "revoked".into() };
            let Some((id, change)) = grants::revoke(t, member.id, &right.as_right())? else {
                return Ok(Changed::unchanged(answer(0)));
            };
            let entry = Entry::new("member", member.id).before(described(&right, id));
            Ok(Changed::new(answer(1), entry).with_policy_changes([change]))
        };
        let revoked = self.app.change(&caller, "grant.delete", revoke).await?;
        Ok(ok(revoked.answer).epoch(revoked.epoch))
    }

    /// List the direct grants of a member
    ///
    /// As stored, ordered by scope type, scope id, module and action. Rights from roles are not included.
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    #[oai(path = "/admin/permissions/grants", method = "get", operation_id = "list_rights")]
    async fn list_rights(
        &self,
        caller: AdminCaller,
        /// The id of the member
        member: Query<MemberId>,
        #[oai(validator(max_length = 64))] scope_type: Query<Option<String>>,
        #[oai(validator(max_length = 64))] module: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<GrantView>> {
        let snapshot = self.app.snapshot();
        authz::require(&snapshot, &caller, Permission::GRANT_LIST)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let list = move |r: &Reader<'_>| {
            let member = members::find(r, member.0)?.filter(|member| !member.is_erased());
            let member = member.ok_or(ErrorCode::UserNotFound)?;
            grants::list(r, member.id, (scope_type.0.as_deref(), module.0.as_deref()), &window)
        };
        let found = self.app.read(list).await?;
        Ok(ok(found.map(|grant| GrantView::of(grant, &snapshot)).into()))
    }

    /// Get the caller's grants and roles
    ///
    /// For caching, send the ETag as `If-None-Match`: the answer is 304 while nothing has changed.
    #[oai(path = "/me/permissions/snapshot", method = "get", operation_id = "get_my_rights")]
    async fn get_my_rights(
        &self,
        caller: MemberOrKey,
        #[oai(validator(max_length = 64))] scope_type: Query<Option<String>>,
        #[oai(validator(max_length = 64))] module: Query<Option<String>>,
        #[oai(name = "If-None-Match")] if_none_match: Header<Option<String>>,
    ) -> Reply<RightsSnapshot> {
        let id = authz::require_own(&caller, ME_READ)?;
        let found = self.rights(move |r| members::get(r, id).map(Some), Reach::Site, (scope_type.0, module.0)).await?;
        ok_or_unchanged(found, if_none_match.0.as_deref())
    }

    /// Get the grants and roles of a subject, for the services of this site
    ///
    /// A service that acts in an organization gets only the rights that apply there.
    #[oai(path = "/internal/permissions/:authentik_sub/snapshot", method = "get", operation_id = "get_rights_by_sub")]
    async fn get_rights_by_sub(
        &self,
        caller: InternalCaller,
        authentik_sub: Path<String>,
        #[oai(validator(max_length = 64))] scope_type: Query<Option<String>>,
        #[oai(validator(max_length = 64))] module: Query<Option<String>>,
        #[oai(name = "If-None-Match")] if_none_match: Header<Option<String>>,
    ) -> Reply<RightsSnapshot> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::POLICY_CHECK)?;
        let find = move |r: &crate::kernel::db::Reader<'_>| {
            let found = members::find_by_sub(r, &authentik_sub.0)?;
            Ok(found.filter(|member| members::require_visible(&snapshot, reach, member.id).is_ok()))
        };
        let found = self.rights(find, reach, (scope_type.0, module.0)).await?;
        ok_or_unchanged(found, if_none_match.0.as_deref())
    }
}

impl Api {
    async fn rights(
        &self,
        find: impl FnOnce(&crate::kernel::db::Reader<'_>) -> Result<Option<Member>> + Send + 'static,
        reach: Reach,
        (scope_type, module): (Option<String>, Option<String>),
    ) -> Result<RightsSnapshot> {
        let snapshot = self.app.snapshot();
        self.app
            .read(move |r| {
                let member = find(r)?.ok_or(ErrorCode::UserNotFound)?;
                let rights = match member.is_active() {
                    true => {
                        let subject = (member.id, reach);
                        grants::list_effective(r, &snapshot, subject, scope_type.as_deref(), module.as_deref())?
                    }
                    false => Vec::new(),
                };
                Ok(RightsSnapshot {
                    authentik_sub: member.authentik_sub.clone(),
                    uid: member.id,
                    permissions: rights.into_iter().map(Into::into).collect(),
                    roles: if member.is_active() { held_roles(&snapshot, member.id, reach) } else { Vec::new() },
                    epoch: snapshot.epoch,
                })
            })
            .await
    }
}

impl GrantView {
    fn of(grant: Grant, snapshot: &Snapshot) -> Self {
        let in_effect = !is_of_inactive_organization(snapshot, &grant.right.as_right());
        let OwnedRight { scope_type, scope_id, module, action } = grant.right;
        let (permission_id, created_at) = (grant.id, grant.created_at.0);
        Self { permission_id, scope_type, scope_id, module, action, in_effect, created_at }
    }
}

impl From<OwnedRight> for RightView {
    fn from(right: OwnedRight) -> Self {
        Self { scope_type: right.scope_type, scope_id: right.scope_id, module: right.module, action: right.action }
    }
}

fn held_roles(snapshot: &Snapshot, member: MemberId, reach: Reach) -> Vec<HeldRole> {
    let mut held = Vec::new();
    for tenant in snapshot.tenants().filter(|tenant| tenant.is_active && reach.includes(tenant.id)) {
        held.extend(tenant.roles_of(member).filter(|role| role.is_open).map(|role| HeldRole {
            organization_id: tenant.id,
            org_code: tenant.org_code.to_string(),
            role_key: role.key.to_string(),
        }));
    }
    held
}

/// Answers 304 if the caller's copy is current. The ETag is a digest of the answer without the epoch, so a change
/// elsewhere on the site does not invalidate every cache.
fn ok_or_unchanged(found: RightsSnapshot, if_none_match: Option<&str>) -> Reply<RightsSnapshot> {
    let content = format!("{}{}{}", found.uid, found.permissions.to_json_string(), found.roles.to_json_string());
    let etag = format!("\"{}\"", hex::encode(&secret::hash(&content)[..12]));
    if is_known(if_none_match, &etag) {
        return Ok(unchanged().etag(&etag));
    }
    Ok(ok(found).etag(&etag))
}

fn find(t: &Transaction<'_>, subject: Option<&str>, uid: Option<MemberId>) -> Result<Option<Member>> {
    match (subject, uid) {
        (Some(subject), None) => members::find_by_sub(t, subject),
        (None, Some(uid)) => Ok(members::find(t, uid)?.filter(|member| !member.is_erased())),
        _ => Err(Error::field("authentik_sub", "send either authentik_sub or uid, not both")),
    }
}

fn described(right: &OwnedRight, id: GrantId) -> serde_json::Value {
    json!({
        "grant": id,
        "scope_type": right.scope_type,
        "scope_id": right.scope_id,
        "module": right.module,
        "action": right.action,
    })
}
