//! Operations on API keys: the caller's own, those of members, and those of services. API keys cannot manage or list
//! keys.

use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::api_keys::{self, CreatedKey, KeyRow, NewKey, store};
use crate::features::members;
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::key::{self, Owner};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach, delegation};
use crate::kernel::db::{PageRequest, Reader};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, EmptyReply, Page, Reply, Tag, done, like, ok};
use crate::kernel::http::{ClientName, ClientScope, scope_names};
use crate::kernel::ids::{ApiKeyId, MemberId, Timestamp};
use crate::kernel::secret::Hash;

crate::text! {
    /// The name of a service: letters, digits and . _ -
    ServiceName 1..=64 "^[A-Za-z0-9][A-Za-z0-9._-]*$";
    /// The SHA-256 digest of an imported key, in hexadecimal
    KeyHash 64..=64 "^[0-9a-fA-F]+$";
}

/// The type of a member's API key
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum MemberKeyType {
    /// For the member's own programs; valid for up to 90 days
    Muser,
    /// For another system that acts for the member; valid for up to 30 days
    Mint,
    /// For an emergency; valid for one request within 24 hours
    Memg,
}

/// The type of a service's API key
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ServiceKeyType {
    /// For a service; valid for up to 180 days
    Msvc,
    /// For the system itself; valid for up to 365 days
    Msys,
}

/// A scope of a member's API key; it limits the member's own rights. A write scope includes reading
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
enum MemberKeyScope {
    /// Read the member's profile and rights
    #[oai(rename = "me:read")]
    MeRead,
    #[oai(rename = "permissions:check")]
    PermissionsCheck,
    #[oai(rename = "videos:read")]
    VideosRead,
    #[oai(rename = "videos:write")]
    VideosWrite,
    #[oai(rename = "quotas:read")]
    QuotasRead,
    #[oai(rename = "quotas:write")]
    QuotasWrite,
    #[oai(rename = "jobs:read")]
    JobsRead,
    #[oai(rename = "jobs:write")]
    JobsWrite,
    /// All scopes
    #[oai(rename = "*")]
    All,
}

/// An API key, without its secret text
#[derive(Object)]
#[oai(rename = "ApiKey")]
struct KeyView {
    id: ApiKeyId,
    /// `muser`, `mint`, `memg`, `msvc` or `msys`; also the prefix of the key's text
    #[oai(rename = "type")]
    kind: String,
    name: String,
    /// The owner, if it is a member
    #[oai(nullable)]
    member_id: Option<MemberId>,
    /// The owner, if it is a service
    #[oai(nullable)]
    service_name: Option<String>,
    scopes: Vec<String>,
    /// Whether the key was created elsewhere and imported by its hash
    is_imported: bool,
    /// Unix milliseconds
    expires_at: i64,
    /// Whether the key expires soon and should be rotated
    expires_soon: bool,
    /// Until when the previous text remains valid after a rotation, in Unix milliseconds
    #[oai(nullable)]
    former_valid_until: Option<i64>,
    /// Whether it is an emergency key that was used
    spent: bool,
    /// Unix milliseconds; updated once a minute
    #[oai(nullable)]
    last_used_at: Option<i64>,
    #[oai(nullable)]
    last_used_address: Option<String>,
    /// Unix milliseconds
    created_at: i64,
}

/// An API key with its text, which is returned only in this answer
#[derive(Object)]
struct ApiKeySecret {
    id: ApiKeyId,
    /// Sent as `X-API-Key` or as a bearer token; Roster stores only its hash. Null for an imported key
    #[oai(nullable)]
    api_key: Option<String>,
    #[oai(rename = "type")]
    kind: String,
    name: String,
    scopes: Vec<String>,
    /// Unix milliseconds
    expires_at: i64,
    /// Until when the previous text remains valid, in Unix milliseconds
    #[oai(nullable)]
    former_valid_until: Option<i64>,
}

impl From<(KeyRow, Option<String>)> for ApiKeySecret {
    fn from((key, text): (KeyRow, Option<String>)) -> Self {
        Self {
            id: key.id,
            api_key: text,
            kind: key.kind.prefix.into(),
            name: key.name,
            scopes: key.scopes,
            expires_at: key.expires_at.0,
            former_valid_until: key.former_ends_at.map(|at| at.0),
        }
    }
}

/// A new API key of the caller
#[derive(Object)]
struct CreateMyApiKey {
    name: ClientName,
    /// Defaults to `muser`
    #[oai(rename = "type")]
    kind: Option<MemberKeyType>,
    /// Defaults to all scopes
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Option<Vec<MemberKeyScope>>,
    /// In Unix milliseconds; defaults to the maximum lifetime of the type, and cannot be later
    expires_at: Option<i64>,
}

/// A new API key of a member
#[derive(Object)]
struct CreateMemberApiKey {
    name: ClientName,
    /// Defaults to `muser`
    #[oai(rename = "type")]
    kind: Option<MemberKeyType>,
    /// Defaults to all scopes
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Option<Vec<MemberKeyScope>>,
    /// In Unix milliseconds; defaults to the maximum lifetime of the type, and cannot be later
    expires_at: Option<i64>,
    /// Imports a key that was created elsewhere, by its hash
    key_hash: Option<KeyHash>,
}

/// A new API key of a service
#[derive(Object)]
struct CreateApiKey {
    service_name: ServiceName,
    /// Defaults to the name of the service
    name: Option<ClientName>,
    /// Defaults to `msvc`
    #[oai(rename = "type")]
    kind: Option<ServiceKeyType>,
    /// For example `permissions:check`; `*` means all scopes
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Vec<ClientScope>,
    /// In Unix milliseconds; defaults to the maximum lifetime of the type, and cannot be later
    expires_at: Option<i64>,
    /// Imports a key that was created elsewhere, by its hash
    key_hash: Option<KeyHash>,
}

crate::document! {
    create_my_api_key: [ApiKeyExists, NotHeld, SecretNotKept] ["x-policy-epoch"];
    delete_my_api_key: [ApiKeyNotFound] ["x-policy-epoch"];
    rotate_my_api_key: [ApiKeyNotFound, EmergencyKey, NotHeld, SecretNotKept] ["x-policy-epoch"];
    list_member_api_keys: [MemberNotFound];
    create_member_api_key: [ApiKeyExists, NotHeld, MemberNotFound, MemberDeleted, SecretNotKept] ["x-policy-epoch"];
    delete_member_api_key: [ApiKeyNotFound, MemberNotFound] ["x-policy-epoch"];
    rotate_member_api_key: [ApiKeyNotFound, EmergencyKey, NotHeld, MemberNotFound, SecretNotKept] ["x-policy-epoch"];
    create_api_key: [ApiKeyExists, NotHeld, SecretNotKept] ["x-policy-epoch"];
    delete_api_key: [ApiKeyNotFound] ["x-policy-epoch"];
    rotate_api_key: [ApiKeyNotFound, EmergencyKey, NotHeld, SecretNotKept] ["x-policy-epoch"];

    "CreateMyApiKey": r#"{"name":"laptop","scopes":["me:read","videos:write"]}"#;
    "CreateMemberApiKey": r#"{"name":"upload station","type":"mint","scopes":["videos:write"]}"#;
    "CreateApiKey": r#"{"service_name":"transcoder","scopes":["jobs:write","permissions:check"]}"#;
    "ApiKey": r#"{"id":"019abcde-0000-7000-8000-000000000004","type":"muser","name":"laptop","member_id":"019abcde-0000-7000-8000-000000000002","service_name":null,"scopes":["me:read"],"is_imported":false,"expires_at":1771516800000,"expires_soon":false,"former_valid_until":null,"spent":false,"last_used_at":null,"last_used_address":null,"created_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::ApiKeys")]
impl Api {
    /// List your API keys
    ///
    /// Returns the keys without their secrets, with the time of last use.
    #[oai(path = "/me/api-keys", method = "get", operation_id = "list_my_api_keys")]
    async fn list_my_api_keys(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<KeyView>> {
        let member = caller.signed_in()?;
        self.list(Some(member), None, PageRequest::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an API key for yourself
    ///
    /// The key's text is returned only in this answer. While the caller's password was set by somebody else, the key is
    /// revoked when that principal loses the right to set it.
    #[oai(path = "/me/api-keys", method = "post", operation_id = "create_my_api_key")]
    async fn create_my_api_key(&self, caller: MemberCaller, body: Body<CreateMyApiKey>) -> Reply<ApiKeySecret> {
        let CreateMyApiKey { name, kind, scopes, expires_at } = body.0;
        let member = caller.signed_in()?;
        let new = key_of_member(member, CreateMemberApiKey { name, kind, scopes, expires_at, key_hash: None })?;
        self.create(caller, Whose::Own(member), new).await
    }

    /// Revoke one of your API keys
    ///
    /// The key stops working before the answer is sent.
    #[oai(path = "/me/api-keys/:id", method = "delete", operation_id = "delete_my_api_key")]
    async fn delete_my_api_key(&self, caller: MemberCaller, id: Path<ApiKeyId>) -> EmptyReply {
        let member = caller.signed_in()?;
        self.revoke(caller, Whose::Own(member), id.0).await
    }

    /// Rotate one of your API keys
    ///
    /// The key gets a new text and the lifetime of a new key. The previous text remains valid for the grace period of
    /// its type. Emergency keys cannot be rotated.
    #[oai(path = "/me/api-keys/:id/rotate", method = "post", operation_id = "rotate_my_api_key")]
    async fn rotate_my_api_key(&self, caller: MemberCaller, id: Path<ApiKeyId>) -> Reply<ApiKeySecret> {
        let member = caller.signed_in()?;
        self.rotate(caller, Whose::Own(member), id.0).await
    }

    /// List a member's API keys
    ///
    /// Returns the keys without their secrets, with the time of last use. Allowed for platform administrators, and for
    /// administrators of the only organization that the member belongs to.
    #[oai(path = "/admin/members/:id/api-keys", method = "get", operation_id = "list_member_api_keys")]
    async fn list_member_api_keys(
        &self,
        caller: MemberCaller,
        id: Path<MemberId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<KeyView>> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::MEMBER_KEY_LIST)?;
        members::require_visible(&snapshot, reach, id.0)?;
        delegation::require_sole_organization(&snapshot, reach, id.0)?;
        self.app.read(move |r| members::get(r, id.0)).await?;
        self.list(Some(id.0), None, PageRequest::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an API key for a member
    ///
    /// Requires the right to change the member's credentials. The key is revoked when its creator loses that right, or
    /// when the member leaves, comes to hold more rights than the creator, or gets a new password from somebody else.
    /// `key_hash` imports a key that was created elsewhere.
    #[oai(path = "/admin/members/:id/api-keys", method = "post", operation_id = "create_member_api_key")]
    async fn create_member_api_key(
        &self,
        caller: MemberCaller,
        id: Path<MemberId>,
        body: Body<CreateMemberApiKey>,
    ) -> Reply<ApiKeySecret> {
        let new = key_of_member(id.0, body.0)?;
        self.create(caller, Whose::Member(id.0, Permission::MEMBER_KEY_CREATE), new).await
    }

    /// Revoke a member's API key
    ///
    /// The key stops working before the answer is sent.
    #[oai(path = "/admin/members/:id/api-keys/:key_id", method = "delete", operation_id = "delete_member_api_key")]
    async fn delete_member_api_key(
        &self,
        caller: MemberCaller,
        id: Path<MemberId>,
        key_id: Path<ApiKeyId>,
    ) -> EmptyReply {
        self.revoke(caller, Whose::Member(id.0, Permission::MEMBER_KEY_DELETE), key_id.0).await
    }

    /// Rotate a member's API key
    ///
    /// The key gets a new text. The previous text remains valid for the grace period of its type.
    #[oai(path = "/admin/members/:id/api-keys/:key_id/rotate", method = "post", operation_id = "rotate_member_api_key")]
    async fn rotate_member_api_key(
        &self,
        caller: MemberCaller,
        id: Path<MemberId>,
        key_id: Path<ApiKeyId>,
    ) -> Reply<ApiKeySecret> {
        self.rotate(caller, Whose::Member(id.0, Permission::MEMBER_KEY_ROTATE), key_id.0).await
    }

    /// List API keys of services
    ///
    /// Returns the keys that belong to a service, not to a member, without their secrets.
    #[oai(path = "/admin/api-keys", method = "get", operation_id = "list_api_keys")]
    async fn list_api_keys(
        &self,
        caller: MemberCaller,
        /// Matches part of the name of the key or the service
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<KeyView>> {
        authz::require(&self.app.snapshot(), &caller, Permission::KEY_LIST)?;
        self.list(None, like(keyword.0.as_deref()), PageRequest::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an API key for a service
    ///
    /// The key's text is returned only in this answer. The caller must hold every right that the scopes open.
    #[oai(path = "/admin/api-keys", method = "post", operation_id = "create_api_key")]
    async fn create_api_key(&self, caller: MemberCaller, body: Body<CreateApiKey>) -> Reply<ApiKeySecret> {
        let body = body.0;
        let new = NewKey {
            kind: match body.kind {
                Some(ServiceKeyType::Msys) => &key::SYSTEM,
                Some(ServiceKeyType::Msvc) | None => &key::SERVICE,
            },
            name: body.name.map_or_else(|| body.service_name.0.clone(), |name| name.0),
            owner: Owner::Service(body.service_name.0.into()),
            scopes: scope_names(body.scopes),
            expires_at: body.expires_at.map(Timestamp),
            imported: body.key_hash.map(hash_of).transpose()?,
        };
        self.create(caller, Whose::Services(Permission::KEY_CREATE, None), new).await
    }

    /// Revoke an API key by its id
    ///
    /// Revokes a key of a service, or a key of a member if the caller may revoke that one too. So a leaked key can be
    /// revoked with its id alone.
    #[oai(path = "/admin/api-keys/:key_id", method = "delete", operation_id = "delete_api_key")]
    async fn delete_api_key(&self, caller: MemberCaller, key_id: Path<ApiKeyId>) -> EmptyReply {
        let whose = Whose::Services(Permission::KEY_DELETE, Some(Permission::MEMBER_KEY_DELETE));
        self.revoke(caller, whose, key_id.0).await
    }

    /// Rotate an API key by its id
    ///
    /// Rotates a key of a service, or a key of a member if the caller may rotate that one too. The previous text
    /// remains valid for the grace period of its type.
    #[oai(path = "/admin/api-keys/:key_id/rotate", method = "post", operation_id = "rotate_api_key")]
    async fn rotate_api_key(&self, caller: MemberCaller, key_id: Path<ApiKeyId>) -> Reply<ApiKeySecret> {
        let whose = Whose::Services(Permission::KEY_ROTATE, Some(Permission::MEMBER_KEY_ROTATE));
        self.rotate(caller, whose, key_id.0).await
    }
}

/// The keys that an operation may change, and the permission that this requires.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Own(MemberId),
    Member(MemberId, Permission),
    /// Keys of services, with the first permission. With a second permission also keys of members, under the same
    /// checks as in `Member`.
    Services(Permission, Option<Permission>),
}

impl Whose {
    fn permission(self) -> Option<Permission> {
        match self {
            Self::Own(_) => None,
            Self::Member(_, permission) | Self::Services(permission, _) => Some(permission),
        }
    }

    /// Fails unless the caller may change these keys. A member's key is a credential, so it requires the right to
    /// change the member's credentials.
    fn require(self, t: &Transaction<'_>, caller: &Identity) -> Result<Reach> {
        let (member, reach) = match self {
            Self::Services(permission, _) => return authz::require(t.snapshot(), caller, permission),
            Self::Own(member) => (member, Reach::Site),
            Self::Member(member, permission) => {
                let reach = authz::require(t.snapshot(), caller, permission)?;
                members::require_visible(t.snapshot(), reach, member)?;
                (member, reach)
            }
        };
        if members::get(t, member)?.is_erased() {
            return Err(ErrorCode::MemberDeleted.into());
        }
        members::require_may_change(t, caller, reach, member)?;
        Ok(reach)
    }

    /// Returns one of these keys. Fails unless the caller may change it.
    fn find(self, t: &Transaction<'_>, caller: &Identity, id: ApiKeyId) -> Result<(KeyRow, Reach)> {
        let reach = self.require(t, caller)?;
        let key = store::find_key(t, id)?.ok_or(ErrorCode::ApiKeyNotFound)?;
        match (self, &key.owner) {
            (Self::Own(member) | Self::Member(member, _), Owner::Member(owner)) if member == *owner => {}
            (Self::Services(..), Owner::Service(_)) => {}
            (Self::Services(_, Some(permission)), Owner::Member(owner)) => {
                Self::Member(*owner, permission).require(t, caller)?;
            }
            _ => return Err(ErrorCode::ApiKeyNotFound.into()),
        }
        Ok((key, reach))
    }
}

impl Api {
    async fn list(
        &self,
        member: Option<MemberId>,
        keyword: Option<String>,
        window: PageRequest,
    ) -> Reply<Page<KeyView>> {
        let list = move |r: &Reader<'_>| store::list_keys(r, member, keyword.as_deref(), &window);
        let found = self.app.read(list).await?;
        let (now, notice_ms) = (Timestamp::now(), seconds_to_ms(self.app.config.api_key_notice_s));
        Ok(ok(found.map(|key| view(key, notice_ms, now)).into()))
    }

    async fn create(&self, caller: MemberCaller, whose: Whose, new: NewKey) -> Reply<ApiKeySecret> {
        let keys_max = match new.owner {
            Owner::Member(_) => self.app.config.api_keys_max,
            Owner::Service(_) => self.app.config.service_keys_max,
        };
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = whose.require(t, caller)?;
            if let Owner::Service(_) = new.owner {
                delegation::require_scopes_held(t.snapshot(), caller, &new.scopes)?;
            }
            Ok(answer(api_keys::create(t, caller, &new, keys_max)?, reach))
        };
        let made = self.app.create_secret(&caller, "api_key.create", whose.permission(), make).await?;
        Ok(ok(made.answer).epoch(made.epoch))
    }

    async fn rotate(&self, caller: MemberCaller, whose: Whose, id: ApiKeyId) -> Reply<ApiKeySecret> {
        let rotate = move |t: &Transaction<'_>, caller: &Identity| {
            let (key, reach) = whose.find(t, caller, id)?;
            if let Owner::Service(_) = key.owner {
                delegation::require_scopes_held(t.snapshot(), caller, &key.scopes)?;
            }
            Ok(answer(api_keys::rotate(t, caller, &key)?, reach))
        };
        let rotated = self.app.create_secret(&caller, "api_key.rotate", whose.permission(), rotate).await?;
        Ok(ok(rotated.answer).epoch(rotated.epoch))
    }

    async fn revoke(&self, caller: MemberCaller, whose: Whose, id: ApiKeyId) -> EmptyReply {
        let revoke = move |t: &Transaction<'_>, caller: &Identity| {
            let (key, reach) = whose.find(t, caller, id)?;
            let entry = entry(&key, reach).before(api_keys::described(&key));
            Ok(Changed::new((), entry).with_policy_changes([api_keys::revoke(t, id)?]))
        };
        let revoked = self.app.change(&caller, "api_key.delete", revoke).await?;
        Ok(done().epoch(revoked.epoch))
    }
}

fn answer(created: CreatedKey, reach: Reach) -> Changed<ApiKeySecret> {
    let entry = entry(&created.key, reach).after(api_keys::described(&created.key));
    let CreatedKey { key, text, change } = created;
    Changed::new(ApiKeySecret::from((key, text)), entry).with_policy_changes([change])
}

fn entry(key: &KeyRow, reach: Reach) -> Entry {
    Entry::new("api_key", key.id).within(reach.organization())
}

fn key_of_member(member: MemberId, body: CreateMemberApiKey) -> Result<NewKey> {
    Ok(NewKey {
        kind: match body.kind {
            Some(MemberKeyType::Mint) => &key::INTEGRATION,
            Some(MemberKeyType::Memg) => &key::EMERGENCY,
            Some(MemberKeyType::Muser) | None => &key::USER,
        },
        name: body.name.0,
        owner: Owner::Member(member),
        scopes: body.scopes.map_or_else(|| vec!["*".to_owned()], scope_names),
        expires_at: body.expires_at.map(Timestamp),
        imported: body.key_hash.map(hash_of).transpose()?,
    })
}

fn hash_of(text: KeyHash) -> Result<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(&text.0, &mut hash)
        .map_err(|e| Error::field("key_hash", "must be 64 hexadecimal digits").with_source(e.to_string()))?;
    Ok(hash)
}

fn view(key: KeyRow, notice_ms: i64, now: Timestamp) -> KeyView {
    let (member_id, service_name) = match &key.owner {
        Owner::Member(id) => (Some(*id), None),
        Owner::Service(name) => (None, Some(name.to_string())),
    };
    KeyView {
        id: key.id,
        kind: key.kind.prefix.into(),
        member_id,
        service_name,
        is_imported: key.is_imported,
        expires_at: key.expires_at.0,
        expires_soon: key.expires_soon(notice_ms, now),
        former_valid_until: key.former_ends_at.filter(|at| *at > now).map(|at| at.0),
        spent: key.spent_at.is_some(),
        last_used_at: key.last_used_at.map(|at| at.0),
        last_used_address: key.last_used_address,
        created_at: key.created_at.0,
        name: key.name,
        scopes: key.scopes,
    }
}
