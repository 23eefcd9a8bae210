//! Operations to manage members and their memberships.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::{MemberOrder, MemberOrganization, MemberView, PasswordHash};
use crate::features::members::limits::{MemberLimits, require_capacity_of};
use crate::features::members::list_store::{self, Filter};
use crate::features::members::store;
use crate::features::members::{
    self, AUTHENTIK, Guesser, Member, NewMember, bounded_guesses, changed, create, get_not_erased, member_event,
    password, require_capacity, require_may_touch, require_not_self, require_visible, set_active, set_password, writes,
};
use crate::features::permissions;
use crate::kernel::app::{App, Changed, Committed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::AdminCaller;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::delegation::{self, Delegable, MemberPart};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{
    Body, DisplayName, Email, EmptyReply, Page, Password, Reply, Subject, Tag, Username, done, like, ok,
    require_version,
};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::EventKind;

/// A new member
#[derive(Object)]
struct CreateMember {
    username: Option<Username>,
    email: Option<Email>,
    display_name: Option<DisplayName>,
    /// The subject at Authentik
    authentik_sub: Option<Subject>,
    /// The id of the account at Authentik
    authentik_user_id: Option<Subject>,
    /// For members who sign in with a password
    password: Option<Password>,
    /// Instead of `password`: the password hash from another system; only for platform administrators
    password_hash: Option<PasswordHash>,
    /// True by default
    is_active: Option<bool>,
}

/// The fields of a member to change
#[derive(Object)]
struct UpdateMember {
    /// Null removes it
    #[oai(nullable)]
    username: MaybeUndefined<Username>,
    /// Whether the site vouches for the username: then it is also the name of the member's folder, and imports find the
    /// member by it. Only the platform can set it
    username_by_site: Option<bool>,
    /// Null removes it
    #[oai(nullable)]
    email: MaybeUndefined<Email>,
    /// Null removes it
    #[oai(nullable)]
    display_name: MaybeUndefined<DisplayName>,
    /// The id of the account at Authentik, if the member has an Authentik subject
    authentik_user_id: Option<Subject>,
    /// A new password ends all sessions of the member
    password: Option<Password>,
    /// Instead of `password`: the password hash from another system; only for platform administrators
    password_hash: Option<PasswordHash>,
    is_active: Option<bool>,
}

crate::text! {
    /// An organization by id or org_code
    OrganizationName 1..=64 "";
}

/// The organization to add the member to
#[derive(Object)]
struct LinkMember {
    /// Its id or org_code
    organization: OrganizationName,
}

/// The membership of a member in an organization
#[derive(Object)]
struct MembershipView {
    member_id: MemberId,
    organization_id: OrganizationId,
    /// Unix milliseconds
    created_at: i64,
}

/// The number of deleted memberships
#[derive(Object)]
struct Deleted {
    deleted: u64,
}

crate::document! {
    create_member: [
        MemberExists, SftpgoNameExists, EmailExists, UsernameExists, SiteFull, TooManyFailures,
    ] ["etag", "x-policy-epoch"];
    get_member: [MemberNotFound] ["etag"];
    update_member: [
        NotHeld, MemberNotFound, MemberExists, EmailExists, UsernameExists, LastAdministrator, MemberDeleted,
        LastOwner, TooManyFailures,
    ] ["etag", "x-policy-epoch"];
    activate_member: [NotHeld, MemberNotFound, MemberDeleted] ["etag", "x-policy-epoch"];
    deactivate_member: [NotHeld, MemberNotFound, LastAdministrator, LastOwner] ["etag", "x-policy-epoch"];
    delete_member: [NotHeld, MemberNotFound, LastAdministrator, MemberDeleted, LastOwner] ["x-policy-epoch"];
    list_member_organizations: [MemberNotFound];
    link_member: [NotHeld, MemberNotFound, MemberDeleted] ["x-policy-epoch"];
    link_member_by_name: [NotHeld, MemberNotFound, MemberDeleted] ["x-policy-epoch"];
    unlink_member: [NotHeld, MemberNotFound, LastOwner] ["x-policy-epoch"];

    "CreateMember": r#"{"username":"kim","email":"kim@example.org","display_name":"Kim","password":"Correct-horse-7"}"#;
    "UpdateMember": r#"{"display_name":"Kim L.","is_active":true}"#;
    "LinkMember": r#"{"organization":"acme"}"#;
    "Member": r#"{"id":"019abcde-0000-7000-8000-000000000002","uid":"019abcde-0000-7000-8000-000000000002","authentik_sub":"a1b2c3","authentik_user_id":null,"username":"kim","email":"kim@example.org","display_name":"Kim","status":"active","is_active":true,"created_at":1763740800000,"updated_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/members", tag = "Tag::Members")]
impl Api {
    /// List members
    ///
    /// The platform and API clients get all members, others those of their organization. With filters that match few of
    /// many, a page can be short or empty although there is a `next`.
    #[oai(path = "/", method = "get", operation_id = "list_members")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list_members(
        &self,
        caller: AdminCaller,
        /// Only members with this text in the username, e-mail or display name
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        is_active: Query<Option<bool>>,
        /// `created_at` by default
        sort: Query<Option<MemberOrder>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<MemberView>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_LIST)?;
        let (sort, direction) = MemberOrder::of(sort.0);
        let keyword = like(keyword.0.as_deref());
        let filter = Filter { organization: reach.organization(), is_active: is_active.0, keyword, sort };
        let window = PageRequest::new(limit.0, offset.0, after.0)?.toward(direction);
        Ok(ok(self.app.read(move |r| list_store::list_members(r, &filter, &window)).await?.into()))
    }

    /// Create a member
    ///
    /// If an administrator of an organization creates the member, it belongs to that organization.
    #[oai(path = "/", method = "post", operation_id = "create_member")]
    async fn create_member(&self, caller: AdminCaller, body: Body<CreateMember>) -> Reply<MemberView> {
        let body = body.0;
        let limits = MemberLimits::of(&self.app.config);
        // Checked before hashing: a caller without the permission must not cause that work.
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_CREATE)?;
        if body.username.is_none() && body.email.is_none() && body.authentik_sub.is_none() {
            return Err(Error::field("username", "a member needs a username, an e-mail or an authentik_sub").into());
        }
        if body.authentik_user_id.is_some() && body.authentik_sub.is_none() {
            return Err(Error::field("authentik_user_id", "requires an authentik_sub").into());
        }
        let is_imported = body.password_hash.is_some();
        let mut new = NewMember {
            username: body.username.map(|text| text.0),
            username_by_site: false,
            email: body.email.map(|text| text.0),
            display_name: body.display_name.map(|text| text.0),
            authentik_sub: body.authentik_sub.map(|text| text.0),
            authentik_user_id: body.authentik_user_id.map(|text| text.0),
            password_hash: self.stored_hash(body.password, body.password_hash).await?,
            is_suspended: body.is_active == Some(false),
        };
        let imported = new.password_hash.clone().filter(|_| is_imported);
        let names = [new.username.clone(), new.email.clone()];
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_CREATE)?;
            new.username_by_site = reach == Reach::Site;
            let capacity = match reach {
                Reach::Site => require_capacity(t.snapshot(), limits.members_max)?,
                Reach::Tenant(organization) => require_capacity_of(t, organization, limits)?,
            };
            if reach != Reach::Site && new.authentik_sub.is_some() {
                // A caller who can set a subject before its owner signs in would control the account.
                let message = "only the platform, or the first sign-in of the user, can link an external identity";
                return Err(Error::new(ErrorCode::Forbidden).with_message(message));
            }
            if is_imported {
                require_importer(caller, reach)?;
            }
            let id = create(t, capacity, &new)?;
            store::set_password_maker(t, id, &Grantor::from_caller(caller))?;
            let mut entry = Entry::new("member", id).after(json!({"fields": new.fields()}));
            let mut changes = vec![authz::store::member_state(t, id)?];
            if let Reach::Tenant(organization) = reach {
                writes::insert_membership(t, organization, id)?;
                changes.push(authz::store::membership(t, organization, id)?);
                entry = entry.within(organization);
            }
            let created = member_event(t, EventKind::MemberCreated, id).within(reach.organization());
            Ok(Changed::new(MemberView::from(store::get_member(t, id)?), entry)
                .with_policy_changes(changes)
                .with_events([created]))
        };
        let making = self.app.create(&caller, "member.create", Permission::MEMBER_CREATE, make);
        let made = bounded_guesses(&self.app, Guesser::from_caller(&caller, reach), names, making).await?;
        imported.iter().for_each(|hash| password::add_hash_kind(&self.app.hash_kinds, hash));
        Ok(ok(made.answer).version(1).epoch(made.epoch))
    }

    /// Get a member
    ///
    /// A caller of an organization can read only its members.
    #[oai(path = "/:id", method = "get", operation_id = "get_member")]
    async fn get_member(&self, caller: AdminCaller, id: Path<MemberId>) -> Reply<MemberView> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_GET)?;
        let member = self.read_visible(reach, id.0, move |r| store::get_member(r, id.0)).await?;
        let version = member.version;
        Ok(ok(member.into()).version(version))
    }

    /// Update a member
    ///
    /// For the platform, and for administrators of the only organization that the member belongs to. The member must
    /// not hold more than the caller. An API client cannot update an owner, an administrator, or a member who can do
    /// more with Roster's own operations than the scopes of the client allow.
    #[oai(path = "/:id", method = "patch", operation_id = "update_member")]
    async fn update_member(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateMember>,
    ) -> Reply<MemberView> {
        let mut edit = body.0;
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::MEMBER_UPDATE)?;
        let is_imported = edit.password_hash.is_some();
        let password_hash = self.stored_hash(edit.password.take(), edit.password_hash.take()).await?;
        let imported = password_hash.clone().filter(|_| is_imported);
        let names = [edit.username.value().map(|text| text.0.clone()), edit.email.value().map(|text| text.0.clone())];
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_UPDATE)?;
            require_visible(t.snapshot(), reach, id.0)?;
            let former = get_not_erased(t, id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let mut member = former.clone();
            rename(&mut member, reach, edit.username, edit.username_by_site)?;
            edited(&mut member.email, edit.email, |text| text.0);
            edited(&mut member.display_name, edit.display_name, |text| text.0);
            let account = edit.authentik_user_id.map(|text| text.0);
            let account = account.filter(|text| former.authentik_user_id.as_ref() != Some(text));
            let is_active = edit.is_active.filter(|is_active| *is_active != former.is_active());
            let is_account = password_hash.is_some() || account.is_some();
            let touch = if is_account { MemberPart::Account } else { member.touch_since(&former) };
            // Members can change their own profile without a session of Roster.
            let is_others = member != former && caller.member() != Some(id.0);
            if touch == MemberPart::Account || is_active.is_some() || is_others {
                require_may_touch(t, caller, reach, id.0, touch)?;
            }
            password_hash.as_ref().map_or(Ok(()), |_| require_not_self(caller, id.0))?;
            if is_imported {
                require_importer(caller, reach)?;
            }
            is_active.map_or(Ok(()), |on| authz::require(t.snapshot(), caller, status_permission(on)).map(drop))?;
            if account.is_some() && reach != Reach::Site {
                let message = "only the platform can link an external identity";
                return Err(Error::new(ErrorCode::Forbidden).with_message(message));
            }
            let mut fields = Vec::new();
            if let Some(account) = &account {
                if former.authentik_sub.is_none() {
                    return Err(Error::field("authentik_user_id", "this member has no authentik_sub"));
                }
                store::set_account_id(t, id.0, AUTHENTIK, account)?;
                fields.push("authentik_user_id");
            }
            if member != former || account.is_some() {
                fields.extend(member.fields_changed_since(&former));
                writes::update_names(t, &member)?;
            }
            // Names have no effect on decisions: the policy changes with status and credentials only.
            let mut changes = Vec::new();
            if let Some(hash) = &password_hash {
                set_password(t, id.0, (hash, Some(&Grantor::from_caller(caller))), None)?;
                fields.push("password");
            }
            if let Some(is_active) = is_active {
                changes.extend(set_active(t, id.0, is_active)?);
                fields.push("is_active");
            }
            finish(t, reach, &former, fields, changes)
        };
        let updating = self.app.change(&caller, "member.update", update);
        let updated = bounded_guesses(&self.app, Guesser::from_caller(&caller, reach), names, updating).await?;
        imported.iter().for_each(|hash| password::add_hash_kind(&self.app.hash_kinds, hash));
        answer(updated)
    }

    /// Activate a member
    ///
    /// A suspended or pending member can sign in again. Repeating it changes nothing.
    #[oai(path = "/:id/activate", method = "post", operation_id = "activate_member")]
    async fn activate_member(&self, caller: AdminCaller, id: Path<MemberId>) -> Reply<MemberView> {
        let activate = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_ACTIVATE)?;
            switch(t, caller, reach, id.0, true)
        };
        answer(self.app.change(&caller, "member.activate", activate).await?)
    }

    /// Suspend a member
    ///
    /// From the next request on, the member's credentials are refused. No data is deleted.
    #[oai(path = "/:id/deactivate", method = "post", operation_id = "deactivate_member")]
    async fn deactivate_member(&self, caller: AdminCaller, id: Path<MemberId>) -> Reply<MemberView> {
        let deactivate = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_DEACTIVATE)?;
            switch(t, caller, reach, id.0, false)
        };
        answer(self.app.change(&caller, "member.deactivate", deactivate).await?)
    }

    /// Erase a member
    ///
    /// Deletes all personal data, memberships, roles and grants permanently. The id stays, for the audit log.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_member")]
    async fn delete_member(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let erase = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_DELETE)?;
            require_visible(t.snapshot(), reach, id.0)?;
            let former = get_not_erased(t, id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            require_may_touch(t, caller, reach, id.0, MemberPart::Standing)?;
            members::erase(t, reach, &former)
        };
        let erased = self.app.change(&caller, "member.delete", erase).await?;
        self.app.forget_decisions(id.0).await?;
        Ok(done().epoch(erased.epoch))
    }

    /// List a member's organizations
    ///
    /// The platform gets all organizations of the member, a caller of an organization only its own.
    #[oai(path = "/:id/organizations", method = "get", operation_id = "list_member_organizations")]
    async fn list_member_organizations(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<MemberOrganization>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::MEMBERSHIP_LIST)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let list = move |r: &crate::kernel::db::Reader<'_>| {
            store::get_member(r, id.0)?;
            store::list_memberships(r, id.0, reach.organization(), &window)
        };
        Ok(ok(self.read_visible(reach, id.0, list).await?.into()))
    }

    /// Add a member to an organization
    ///
    /// Assigns no role. Repeating it changes nothing.
    #[oai(path = "/:id/organizations/:org_id", method = "post", operation_id = "link_member")]
    async fn link_member(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        org_id: Path<OrganizationId>,
    ) -> Reply<MembershipView> {
        self.link(caller, id.0, Permission::MEMBERSHIP_CREATE, move |_| Ok(org_id.0)).await
    }

    /// Add a member to an organization by id or code
    ///
    /// The body names the organization. Assigns no role. Repeating it changes nothing.
    #[oai(path = "/:id/organizations", method = "post", operation_id = "link_member_by_name")]
    async fn link_member_by_name(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        body: Body<LinkMember>,
    ) -> Reply<MembershipView> {
        let named = body.0.organization.0;
        let find = move |snapshot: &Snapshot| {
            snapshot.tenant_named(&named).map(|tenant| tenant.id).ok_or_else(|| ErrorCode::OrganizationNotFound.into())
        };
        self.link(caller, id.0, Permission::MEMBERSHIP_ADD, find).await
    }

    /// Remove a member from an organization
    ///
    /// Also removes its roles there. The last owner cannot be removed.
    #[oai(path = "/:id/organizations/:org_id", method = "delete", operation_id = "unlink_member")]
    async fn unlink_member(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        org_id: Path<OrganizationId>,
    ) -> Reply<Deleted> {
        let unlink = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::MEMBERSHIP_DELETE)?;
            require_visible(t.snapshot(), reach, id.0)?;
            store::get_member(t, id.0)?;
            let tenant = t
                .snapshot()
                .tenant(org_id.0)
                .filter(|tenant| reach.includes(tenant.id))
                .ok_or(ErrorCode::OrganizationNotFound)?;
            for role in tenant.roles_of(id.0) {
                delegation::require_may_revoke(t.snapshot(), caller, tenant.id, role)?;
            }
            let roles = permissions::held_keys(t.snapshot(), org_id.0, id.0);
            permissions::delete_all_roles(t, org_id.0, id.0)?;
            let deleted = writes::delete_membership(t, org_id.0, id.0)? as u64;
            if deleted == 0 {
                return Ok(Changed::unchanged(Deleted { deleted }));
            }
            let entry = Entry::new("member", id.0).within(org_id.0).before(json!({"roles": roles}));
            let change = authz::store::membership(t, org_id.0, id.0)?;
            Ok(Changed::new(Deleted { deleted }, entry).with_policy_changes([change]))
        };
        let unlinked = self.app.change(&caller, "member.unlink", unlink).await?;
        Ok(ok(unlinked.answer).epoch(unlinked.epoch))
    }
}

impl Api {
    async fn link(
        &self,
        caller: AdminCaller,
        member: MemberId,
        permission: Permission,
        find: impl FnOnce(&Snapshot) -> Result<OrganizationId> + Send + 'static,
    ) -> Reply<MembershipView> {
        let link = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, permission)?;
            let organization = find(t.snapshot())?;
            get_not_erased(t, member)?;
            t.snapshot()
                .tenant(organization)
                .filter(|t| reach.includes(t.id))
                .ok_or(ErrorCode::OrganizationNotFound)?;
            if t.snapshot().is_platform(organization) {
                delegation::require_any(caller, Delegable::PlatformSeat)?;
            }
            let view = |since: Timestamp| MembershipView {
                member_id: member,
                organization_id: organization,
                created_at: since.0,
            };
            if let Some(since) = store::find_membership(t, organization, member)? {
                return Ok(Changed::unchanged(view(since)));
            }
            // Rules of the organization, such as the second factor, then apply to the member everywhere. So the check
            // uses the reach of the site, even if the caller acts in one organization.
            require_may_touch(t, caller, Reach::Site, member, MemberPart::Standing)?;
            writes::insert_membership(t, organization, member)?;
            let entry = Entry::new("member", member).within(organization).after(json!({"organization": organization}));
            let change = authz::store::membership(t, organization, member)?;
            Ok(Changed::new(view(t.now()), entry).with_policy_changes([change]))
        };
        let made = self.app.change(&caller, "member.link", link).await?;
        Ok(ok(made.answer).epoch(made.epoch))
    }

    /// Hashes a new password outside of any transaction, or returns the imported hash in stored form.
    async fn stored_hash(&self, password: Option<Password>, hash: Option<PasswordHash>) -> Result<Option<String>> {
        match (password, hash) {
            (None, hash) => Ok(hash.map(|hash| password::stored_form(&hash))),
            (Some(password), None) => password::hash(&self.app, password.0).await.map(Some),
            (Some(_), Some(_)) => Err(Error::field("password_hash", "send either password or password_hash, not both")),
        }
    }

    /// Runs a query about a member, if the caller may see the member.
    async fn read_visible<T: Send + 'static>(
        &self,
        reach: Reach,
        id: MemberId,
        query: impl FnOnce(&crate::kernel::db::Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        require_visible(&self.app.snapshot(), reach, id)?;
        self.app.read(query).await
    }
}

fn answer(committed: Committed<Member>) -> Reply<MemberView> {
    let version = committed.answer.version;
    Ok(ok(committed.answer.into()).version(version).epoch(committed.epoch))
}

/// Returns the permission to activate or to suspend a member.
fn status_permission(is_active: bool) -> Permission {
    if is_active { Permission::MEMBER_ACTIVATE } else { Permission::MEMBER_DEACTIVATE }
}

/// Fails unless the caller may import a password hash. A hash bypasses the password rules and sets the work of a
/// sign-in.
fn require_importer(caller: &Identity, reach: Reach) -> Result<()> {
    delegation::require_any(caller, Delegable::PasswordHash)?;
    if reach == Reach::Site {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Forbidden).with_message("only the platform can import a password hash"))
}

/// Changes the username, and whether the site vouches for it, which only the site can set.
fn rename(member: &mut Member, reach: Reach, username: MaybeUndefined<Username>, by_site: Option<bool>) -> Result<()> {
    if !username.is_undefined() {
        member.name(reach, username.take().map(|text| text.0));
    }
    let Some(by_site) = by_site else { return Ok(()) };
    if reach != Reach::Site {
        return Err(Error::new(ErrorCode::Forbidden).with_message("only the platform can set username_by_site"));
    }
    if member.username.is_none() {
        return Err(Error::field("username_by_site", "this member has no username"));
    }
    member.username_by_site = by_site;
    Ok(())
}

fn edited<T>(field: &mut Option<String>, edit: MaybeUndefined<T>, text: impl FnOnce(T) -> String) {
    match edit {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => *field = None,
        MaybeUndefined::Value(value) => *field = Some(text(value)),
    }
}

fn switch(
    t: &Transaction<'_>,
    caller: &Identity,
    reach: Reach,
    id: MemberId,
    is_active: bool,
) -> Result<Changed<Member>> {
    require_visible(t.snapshot(), reach, id)?;
    let former = get_not_erased(t, id)?;
    require_may_touch(t, caller, reach, id, MemberPart::Standing)?;
    if former.is_active() == is_active {
        return Ok(Changed::unchanged(former));
    }
    let changes = set_active(t, id, is_active)?;
    finish(t, reach, &former, vec!["is_active"], changes)
}

fn finish(
    t: &Transaction<'_>,
    reach: Reach,
    former: &Member,
    fields: Vec<&'static str>,
    changes: Vec<Change>,
) -> Result<Changed<Member>> {
    let member = store::get_member(t, former.id)?;
    if fields.is_empty() {
        return Ok(Changed::unchanged(member));
    }
    let entry = Entry::new("member", member.id)
        .within(reach.organization())
        .after(json!({"fields": &fields, "status": member.status.as_str()}));
    let events = changed(t, former, &member);
    Ok(Changed::new(member, entry).with_policy_changes(changes).with_events(events))
}
