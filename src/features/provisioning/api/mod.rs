//! Operations on users: members together with their external accounts and quota, in the shape that provisioning
//! programs expect.

pub mod import;

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::api_keys::{self, NewKey};
use crate::features::members::{self, Filter, MemberOrder, require_may_touch, require_visible};
use crate::features::provisioning::{self, Edit, NewUser, User};
use crate::features::quotas::{self, QuotaSettings};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::AdminCaller;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::delegation::{self, Delegable, MemberPart};
use crate::kernel::authz::key::{self, Owner};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::MemberStatus;
use crate::kernel::http::{
    Body, DisplayName, Email, EmptyReply, Page, Reply, Tag, Username, done, like, ok, require_version,
};
use crate::kernel::ids::{ApiKeyId, MemberId, OrganizationId};

crate::text! {
    /// The name of the member's video folder and SFTPGo account
    SftpgoName 3..=60 "^[a-z0-9][a-z0-9._-]{2,59}$";
    /// The `org_code` or id of an organization
    OrgCode 1..=64 "";
    /// Why a member is suspended
    StatusReason 1..=200 "^[^\\x00-\\x1f\\x7f]+$";
}

/// A new user
#[derive(Object)]
struct CreateUser {
    username: Username,
    email: Email,
    #[oai(nullable)]
    display_name: Option<DisplayName>,
    /// The number of the WordPress account
    #[oai(nullable, validator(minimum(value = "1")))]
    wordpress_id: Option<i64>,
    /// In bytes; the default of the organization or the site when absent
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    quota_size: Option<i64>,
    /// The username when absent
    #[oai(nullable)]
    sftpgo_username: Option<SftpgoName>,
    /// The organization that the user joins; none when absent
    #[oai(nullable)]
    org_code: Option<OrgCode>,
    /// `active` when absent
    #[oai(nullable)]
    status: Option<UserStatus>,
    /// Send a mail with a one-time link; by default only if mail is configured and the user is active
    #[oai(nullable)]
    welcome: Option<bool>,
}

/// Changes of a user
#[derive(Object)]
struct UpdateUser {
    email: Option<Email>,
    display_name: Option<DisplayName>,
    /// In bytes; null resets it to the default
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    quota_size: MaybeUndefined<i64>,
    /// Null removes it
    #[oai(nullable, validator(minimum(value = "1")))]
    wordpress_id: MaybeUndefined<i64>,
    /// Only for a member that has none: folders are never renamed
    sftpgo_username: Option<SftpgoName>,
    status: Option<UserStatus>,
    /// Why it is suspended; allowed only with `status` `suspended`
    reason: Option<StatusReason>,
}

/// A status that can be set
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum UserStatus {
    Active,
    /// From the next request on, its credentials are rejected; its jobs are held
    Suspended,
}

/// A member with its external accounts and quota
#[derive(Object)]
#[oai(rename = "User")]
struct UserView {
    /// The uid
    id: MemberId,
    #[oai(nullable)]
    wordpress_id: Option<i64>,
    #[oai(nullable)]
    username: Option<String>,
    #[oai(nullable)]
    email: Option<String>,
    #[oai(nullable)]
    display_name: Option<String>,
    /// The effective size of the quota, in bytes
    quota_size: i64,
    /// The bytes in use
    quota_used: i64,
    #[oai(nullable)]
    sftpgo_username: Option<String>,
    /// The only organization it belongs to
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    status: MemberStatus,
    /// Why it is suspended, if a reason was given
    #[oai(nullable)]
    status_reason: Option<String>,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let User { member, status_reason, wordpress_id, sftpgo_username, organization, account } = user;
        Self {
            id: member.id,
            wordpress_id: wordpress_id.and_then(|text| text.parse().ok()),
            quota_size: account.size,
            quota_used: account.used,
            sftpgo_username,
            organization_id: organization,
            status: member.status.into(),
            status_reason,
            created_at: member.created_at.0,
            updated_at: member.updated_at.0,
            username: member.username,
            email: member.email,
            display_name: member.display_name,
        }
    }
}

/// A new user with its API key, which is created_key only once
#[derive(Object)]
struct CreatedUser {
    /// The uid
    id: MemberId,
    /// For `X-API-Key` or as a bearer token; only its hash is stored
    api_key: String,
    api_key_id: ApiKeyId,
    /// Unix milliseconds
    api_key_expires_at: i64,
    #[oai(nullable)]
    wordpress_id: Option<i64>,
    username: String,
    email: String,
    /// The effective size of the quota, in bytes
    quota_size: i64,
    quota_used: i64,
    sftpgo_username: String,
    /// The organization it belongs to
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    status: MemberStatus,
    /// Unix milliseconds
    created_at: i64,
}

crate::document! {
    create_user: [
        MemberExists, WordPressIdExists, SftpgoNameExists, EmailExists, UsernameExists, SiteFull, SecretNotKept,
    ] ["x-policy-epoch"];
    get_user: [MemberNotFound] ["etag"];
    update_user: [
        NotHeld, MemberNotFound, WordPressIdExists, SftpgoNameExists, EmailExists, UsernameExists, LastAdministrator,
        MemberDeleted, LastOwner,
    ] ["etag", "x-policy-epoch"];
    delete_user: [NotHeld, MemberNotFound, LastAdministrator, MemberDeleted, LastOwner] ["x-policy-epoch"];

    "CreateUser": r#"{"wordpress_id":17,"username":"kim","email":"kim@example.org","quota_size":10737418240,"sftpgo_username":"kim","org_code":"acme"}"#;
    "UpdateUser": r#"{"quota_size":21474836480,"status":"suspended","reason":"left the company"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/users", tag = "Tag::Members")]
impl Api {
    /// List users
    ///
    /// The shape that upload services expect: account, quota and folder in one object. For a member that also
    /// belongs to other organizations, an organization sees no external names, and sizes of 0.
    #[oai(path = "/", method = "get", operation_id = "list_users")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list_users(
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
    ) -> Reply<Page<UserView>> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::USER_LIST)?;
        let keyword = like(keyword.0.as_deref());
        let (sort, direction) = MemberOrder::of(sort.0);
        let filter = Filter { organization: reach.organization(), is_active: is_active.0, keyword, sort };
        let window = PageRequest::new(limit.0, offset.0, after.0)?.toward(direction);
        let rules = QuotaSettings::from_config(&self.app.config);
        let list = move |r: &crate::kernel::db::Reader<'_>| {
            let found = members::list_members(r, &filter, &window)?;
            let complete = |member| {
                let user = provisioning::load_user(r, &snapshot, &rules, member)?;
                Ok(UserView::from(user.seen(&snapshot, reach)))
            };
            found.try_map(complete)
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Create a user
    ///
    /// Creates the member, its WordPress and SFTPGo names, a quota, an organization membership and an API key, all or
    /// nothing. The key is created_key only in this response; its scopes are `me:read`, `videos:write`, `quotas:read`
    /// and `jobs:read`. If other members have any of the names, the response is a 409 that lists every such field.
    #[oai(path = "/", method = "post", operation_id = "create_user")]
    async fn create_user(&self, caller: AdminCaller, body: Body<CreateUser>) -> Reply<CreatedUser> {
        let body = body.0;
        let (config, rules) = (&self.app.config, QuotaSettings::from_config(&self.app.config));
        let (members_max, keys_max, has_mail) = (config.members_max, config.api_keys_max, !config.mail_host.is_empty());
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            require_site(t, caller, Permission::USER_CREATE, body.quota_size.is_some())?;
            let organization =
                body.org_code.as_ref().map(|named| organization(t.snapshot(), caller, named)).transpose()?;
            let is_suspended = body.status == Some(UserStatus::Suspended);
            let welcomes = body.welcome.unwrap_or(has_mail && !is_suspended);
            let new =
                NewUser { welcome: welcomes.then(|| Grantor::from_caller(caller)), ..new_user(body, organization) };
            let mut made = provisioning::create_user(t, &rules, &new, members_max)?;
            let id = made.answer;
            if is_suspended {
                made = made.merge(provisioning::set_active(t, Reach::Site, id, false, None)?);
            }
            let key = NewKey {
                kind: &key::USER,
                name: "first key".into(),
                owner: Owner::Member(id),
                scopes: FIRST_KEY_SCOPES.map(str::to_owned).into(),
                expires_at: None,
                imported: None,
            };
            let created_key = api_keys::create(t, caller, &key, keys_max)?;
            let user = provisioning::get(t, t.snapshot(), &rules, id)?;
            let created = CreatedUser {
                id,
                api_key: created_key.text.unwrap_or_default(),
                api_key_id: created_key.key.id,
                api_key_expires_at: created_key.key.expires_at.0,
                wordpress_id: user.wordpress_id.and_then(|text| text.parse().ok()),
                username: new.username.clone(),
                email: new.email.clone(),
                quota_size: user.account.size,
                quota_used: user.account.used,
                sftpgo_username: new.sftpgo_username().to_owned(),
                organization_id: organization,
                status: user.member.status.into(),
                created_at: user.member.created_at.0,
            };
            Ok(made.map(|_| created).with_policy_changes([created_key.change]))
        };
        let mut made = self.app.create_secret(&caller, "user.create", Permission::USER_CREATE, make).await?;
        // The organization's default size applies only now: the membership is in the snapshot since the commit.
        let (snapshot, id) = (self.app.snapshot(), made.answer.id);
        let account = self.app.read(move |r| quotas::account(r, &rules, &snapshot, id)).await?;
        made.answer.quota_size = account.size;
        Ok(ok(made.answer).epoch(made.epoch))
    }

    /// Get a user
    ///
    /// The shape that upload services expect: account, quota and folder in one object. For a member that also
    /// belongs to other organizations, an organization sees no external names, and sizes of 0.
    #[oai(path = "/:id", method = "get", operation_id = "get_user")]
    async fn get_user(&self, caller: AdminCaller, id: Path<MemberId>) -> Reply<UserView> {
        let (snapshot, rules) = (self.app.snapshot(), QuotaSettings::from_config(&self.app.config));
        let reach = authz::require(&snapshot, &caller, Permission::USER_GET)?;
        require_visible(&snapshot, reach, id.0)?;
        let get = move |r: &crate::kernel::db::Reader<'_>| {
            Ok(provisioning::get(r, &snapshot, &rules, id.0)?.seen(&snapshot, reach))
        };
        let user = self.app.read(get).await?;
        let version = user.member.version;
        Ok(ok(UserView::from(user)).version(version))
    }

    /// Update a user
    ///
    /// Suspending ends its sessions and holds its queued jobs; running jobs continue.
    #[oai(path = "/:id", method = "patch", operation_id = "update_user")]
    async fn update_user(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateUser>,
    ) -> Reply<UserView> {
        let UpdateUser { email, display_name, quota_size, wordpress_id, sftpgo_username, status, reason } = body.0;
        if reason.is_some() && status != Some(UserStatus::Suspended) {
            return Err(Error::field("reason", "goes with the status `suspended`").into());
        }
        let rules = QuotaSettings::from_config(&self.app.config);
        let edit = Edit {
            email: email.map(|text| text.0),
            display_name: display_name.map(|text| text.0),
            quota_size: maybe(quota_size),
            wordpress_id: maybe(wordpress_id).map(|id| id.map(i64::unsigned_abs)),
            sftpgo_username: sftpgo_username.map(|text| text.0),
            join: None,
        };
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = require_site(t, caller, Permission::USER_UPDATE, edit.quota_size.is_some())?;
            let previous = members::get_not_erased(t, id.0)?;
            require_version(if_match.0.as_deref(), previous.version)?;
            let user = provisioning::get(t, t.snapshot(), &rules, id.0)?;
            require_may_touch(t, caller, reach, id.0, provisioning::touch_of(&edit.fields(&user, t.snapshot())))?;
            let mut changed = provisioning::update_user(t, &rules, reach, &user, &edit)?.map(drop);
            if let Some(status) = status {
                let is_active = status == UserStatus::Active;
                let needed = if is_active { Permission::MEMBER_ACTIVATE } else { Permission::MEMBER_DEACTIVATE };
                authz::require(t.snapshot(), caller, needed)?;
                changed = changed.merge(provisioning::set_active(t, reach, id.0, is_active, reason.as_deref())?);
            }
            let user = provisioning::get(t, t.snapshot(), &rules, id.0)?;
            Ok(changed.map(|()| user))
        };
        let changed = self.app.change(&caller, "user.update", update).await?;
        let version = changed.answer.member.version;
        Ok(ok(UserView::from(changed.answer)).version(version).epoch(changed.epoch))
    }

    /// Erase a user, here and in external systems
    ///
    /// The same as at `/admin/members`: all personal data, memberships, roles and keys are deleted permanently.
    #[oai(path = "/:id", method = "delete", operation_id = "delete_user")]
    async fn delete_user(
        &self,
        caller: AdminCaller,
        id: Path<MemberId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let erase = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = require_site(t, caller, Permission::USER_DELETE, false)?;
            let previous = members::get_not_erased(t, id.0)?;
            require_version(if_match.0.as_deref(), previous.version)?;
            require_may_touch(t, caller, reach, id.0, MemberPart::Standing)?;
            members::erase(t, reach, &previous)
        };
        let erased = self.app.change(&caller, "user.delete", erase).await?;
        self.app.forget_decisions(id.0).await?;
        Ok(done().epoch(erased.epoch))
    }
}

/// The scopes of a new member's first key: its own videos, quota and jobs. It cannot request decisions or change
/// anything of others, regardless of the rights that the member gets later.
const FIRST_KEY_SCOPES: [&str; 4] = ["me:read", "videos:write", "quotas:read", "jobs:read"];

/// Fails unless the caller acts for the whole site: users have accounts at external systems. Setting a quota also
/// requires that permission.
pub fn require_site(t: &Transaction<'_>, caller: &Identity, permission: Permission, sets_quota: bool) -> Result<Reach> {
    let reach = authz::require(t.snapshot(), caller, permission)?;
    if sets_quota {
        delegation::require_any(caller, Delegable::Quota)?;
        authz::require(t.snapshot(), caller, Permission::QUOTA_UPDATE)?;
    }
    let message = "users belong to the site: omit X-Tenant-ID, and name the organization in org_code";
    if reach == Reach::Site { Ok(reach) } else { Err(Error::new(ErrorCode::Forbidden).with_message(message)) }
}

/// Returns the organization that the user joins.
fn organization(snapshot: &Snapshot, caller: &Identity, named: &str) -> Result<OrganizationId> {
    let id = snapshot.tenant_named(named).map(|tenant| tenant.id).ok_or(ErrorCode::OrganizationNotFound)?;
    if snapshot.is_platform(id) {
        delegation::require_any(caller, Delegable::PlatformSeat)?;
    }
    Ok(id)
}

fn new_user(body: CreateUser, organization: Option<OrganizationId>) -> NewUser {
    NewUser {
        username: body.username.0,
        email: body.email.0,
        display_name: body.display_name.map(|text| text.0),
        wordpress_id: body.wordpress_id.map(i64::unsigned_abs),
        sftpgo_username: body.sftpgo_username.map(|text| text.0),
        quota_size: body.quota_size,
        organization,
        welcome: None,
    }
}

/// Converts to `None` for no change and `Some(None)` for null.
fn maybe<T>(edit: MaybeUndefined<T>) -> Option<Option<T>> {
    match edit {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}
