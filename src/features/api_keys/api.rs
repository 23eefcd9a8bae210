//! Operations on API keys: a member's own, those of members, those of services. No key makes or sees keys.

use std::sync::Arc;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::api_keys::{self, CreatedKey, KeyRow, NewKey, store};
use crate::features::members;
use crate::kernel::app::{App, Changed, Transaction, ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::key::{self, Owner};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach, delegation};
use crate::kernel::db::{Reader, Window};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::scopes::{ClientName, ClientScope, words};
use crate::kernel::http::{Body, Done, Page, Reply, Tag, done, like, ok};
use crate::kernel::ids::{ApiKeyId, MemberId, Timestamp};
use crate::kernel::secret::Hash;

crate::text! {
    /// The name of a service: letters, digits, and . _ -
    ServiceName 1..=64 "^[A-Za-z0-9][A-Za-z0-9._-]*$";
    /// The SHA-256 of a key that was made elsewhere, in hexadecimal
    KeyHash 64..=64 "^[0-9a-fA-F]+$";
}

/// What a member's key can be
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum MemberKeyType {
    /// For the member's own programs: 90 days
    Muser,
    /// For another system that acts for the member: 30 days
    Mint,
    /// For an emergency: one request within 24 hours
    Memg,
}

/// What a service's key can be
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ServiceKeyType {
    /// A service: 180 days
    Msvc,
    /// The system itself: 365 days
    Msys,
}

/// What a member's key may do of what its member may; writing includes reading
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
enum MemberKeyScope {
    /// See who the member is and what it may do
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
    /// All that keys may do
    #[oai(rename = "*")]
    All,
}

/// An API key, without its text
#[derive(Object)]
#[oai(rename = "ApiKey")]
struct KeyView {
    id: ApiKeyId,
    /// `muser`, `mint`, `memg`, `msvc` or `msys`: what its text begins with
    #[oai(rename = "type")]
    kind: String,
    name: String,
    /// Whose it is, if it is a member's
    #[oai(nullable)]
    member_id: Option<MemberId>,
    /// Whose it is, if it is a service's
    #[oai(nullable)]
    service_name: Option<String>,
    scopes: Vec<String>,
    /// Was it made elsewhere?
    is_imported: bool,
    /// Unix milliseconds
    expires_at: i64,
    /// Is it time to rotate it?
    expires_soon: bool,
    /// Until when the text before the last rotation works too, in Unix milliseconds
    #[oai(nullable)]
    former_valid_until: Option<i64>,
    /// Was it an emergency key, and was it used?
    spent: bool,
    /// Unix milliseconds; written every minute
    #[oai(nullable)]
    last_used_at: Option<i64>,
    #[oai(nullable)]
    last_used_address: Option<String>,
    /// Unix milliseconds
    created_at: i64,
}

/// A key with its text, which is shown this once
#[derive(Object)]
struct ApiKeySecret {
    id: ApiKeyId,
    /// For `X-API-Key` or as a bearer; only its hash is kept. Null for a key that was made elsewhere
    #[oai(nullable)]
    api_key: Option<String>,
    #[oai(rename = "type")]
    kind: String,
    name: String,
    scopes: Vec<String>,
    /// Unix milliseconds
    expires_at: i64,
    /// Until when the former text works too, in Unix milliseconds
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

/// A new key of one's own
#[derive(Object)]
struct CreateMyApiKey {
    name: ClientName,
    /// `muser` when absent
    #[oai(rename = "type")]
    kind: Option<MemberKeyType>,
    /// All that keys may do when absent
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Option<Vec<MemberKeyScope>>,
    /// In Unix milliseconds; the end of its type's life when absent, and never later
    expires_at: Option<i64>,
}

/// A new key of a member
#[derive(Object)]
struct CreateMemberApiKey {
    name: ClientName,
    /// `muser` when absent
    #[oai(rename = "type")]
    kind: Option<MemberKeyType>,
    /// All that keys may do when absent
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Option<Vec<MemberKeyScope>>,
    /// In Unix milliseconds; the end of its type's life when absent, and never later
    expires_at: Option<i64>,
    /// Takes over a key that was made elsewhere, by its hash
    key_hash: Option<KeyHash>,
}

/// A new key of a service
#[derive(Object)]
struct CreateApiKey {
    service_name: ServiceName,
    /// The service's name when absent
    name: Option<ClientName>,
    /// `msvc` when absent
    #[oai(rename = "type")]
    kind: Option<ServiceKeyType>,
    /// Such as `permissions:check`; `*` is all of them
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Vec<ClientScope>,
    /// In Unix milliseconds; the end of its type's life when absent, and never later
    expires_at: Option<i64>,
    /// Takes over a key that was made elsewhere, by its hash
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
    /// List one's own API keys
    ///
    /// Without their secrets, with when each was last used.
    #[oai(path = "/me/api-keys", method = "get", operation_id = "list_my_api_keys")]
    async fn list_my_api_keys(
        &self,
        caller: MemberCaller,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<KeyView>> {
        let member = caller.signed_in()?;
        self.list(Some(member), None, Window::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an API key of one's own
    ///
    /// Its text is in this answer and nowhere else. As long as somebody else chose the password, the key ends with that one's
    /// rights.
    #[oai(path = "/me/api-keys", method = "post", operation_id = "create_my_api_key")]
    async fn create_my_api_key(&self, caller: MemberCaller, body: Body<CreateMyApiKey>) -> Reply<ApiKeySecret> {
        let CreateMyApiKey { name, kind, scopes, expires_at } = body.0;
        let member = caller.signed_in()?;
        let new = key_of_member(member, CreateMemberApiKey { name, kind, scopes, expires_at, key_hash: None })?;
        self.create(caller, Whose::Own(member), new).await
    }

    /// Revoke one of one's own API keys
    ///
    /// The key stops working with this answer.
    #[oai(path = "/me/api-keys/:id", method = "delete", operation_id = "delete_my_api_key")]
    async fn delete_my_api_key(&self, caller: MemberCaller, id: Path<ApiKeyId>) -> Done {
        let member = caller.signed_in()?;
        self.revoke(caller, Whose::Own(member), id.0).await
    }

    /// Give one of one's own API keys a new text
    ///
    /// It lives as long as a new one; the former text works on for its type's grace. Emergency keys are not rotated.
    #[oai(path = "/me/api-keys/:id/rotate", method = "post", operation_id = "rotate_my_api_key")]
    async fn rotate_my_api_key(&self, caller: MemberCaller, id: Path<ApiKeyId>) -> Reply<ApiKeySecret> {
        let member = caller.signed_in()?;
        self.rotate(caller, Whose::Own(member), id.0).await
    }

    /// List a member's API keys
    ///
    /// Without their secrets, with when each was last used. By the platform, or by an administrator of the only organization
    /// that the member belongs to.
    #[oai(path = "/admin/members/:id/api-keys", method = "get", operation_id = "list_member_api_keys")]
    async fn list_member_api_keys(
        &self,
        caller: MemberCaller,
        id: Path<MemberId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<KeyView>> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::MEMBER_KEY_LIST)?;
        members::require_visible(&snapshot, reach, id.0)?;
        delegation::require_whole(&snapshot, reach, id.0)?;
        self.app.read(move |r| members::get(r, id.0)).await?;
        self.list(Some(id.0), None, Window::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an API key for a member
    ///
    /// By who may change the member's credentials. It ends when its maker may not do so any more, when the member leaves,
    /// comes to hold more than its maker, or gets a new password from somebody else. With `key_hash` it is a key that was
    /// made elsewhere.
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
    /// The key stops working with this answer.
    #[oai(path = "/admin/members/:id/api-keys/:key_id", method = "delete", operation_id = "delete_member_api_key")]
    async fn delete_member_api_key(&self, caller: MemberCaller, id: Path<MemberId>, key_id: Path<ApiKeyId>) -> Done {
        self.revoke(caller, Whose::Member(id.0, Permission::MEMBER_KEY_DELETE), key_id.0).await
    }

    /// Give a member's API key a new text
    ///
    /// The former one works on for its type's grace.
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
    /// Keys that belong to a service, not to a member; without their secrets.
    #[oai(path = "/admin/api-keys", method = "get", operation_id = "list_api_keys")]
    async fn list_api_keys(
        &self,
        caller: MemberCaller,
        /// Found in the names of key and service
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<KeyView>> {
        authz::require(&self.app.snapshot(), &caller, Permission::KEY_LIST)?;
        self.list(None, like(keyword.0.as_deref()), Window::new(limit.0, offset.0, after.0)?).await
    }

    /// Create an API key for a service
    ///
    /// Its text is in this answer and nowhere else. Nobody gives it scopes that open more than they hold themselves.
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
            scopes: words(body.scopes),
            expires_at: body.expires_at.map(Timestamp),
            imported: body.key_hash.map(hash_of).transpose()?,
        };
        self.create(caller, Whose::Services(Permission::KEY_CREATE, None), new).await
    }

    /// Revoke an API key of a service
    ///
    /// Or of a member, for anyone who may revoke that one too: so a key that leaked goes by its id alone.
    #[oai(path = "/admin/api-keys/:key_id", method = "delete", operation_id = "delete_api_key")]
    async fn delete_api_key(&self, caller: MemberCaller, key_id: Path<ApiKeyId>) -> Done {
        let whose = Whose::Services(Permission::KEY_DELETE, Some(Permission::MEMBER_KEY_DELETE));
        self.revoke(caller, whose, key_id.0).await
    }

    /// Give an API key of a service a new text
    ///
    /// Or of a member, for anyone who may rotate that one too. The former text works on for its type's grace.
    #[oai(path = "/admin/api-keys/:key_id/rotate", method = "post", operation_id = "rotate_api_key")]
    async fn rotate_api_key(&self, caller: MemberCaller, key_id: Path<ApiKeyId>) -> Reply<ApiKeySecret> {
        let whose = Whose::Services(Permission::KEY_ROTATE, Some(Permission::MEMBER_KEY_ROTATE));
        self.rotate(caller, whose, key_id.0).await
    }
}

/// Whose keys an operation is about, and what it takes to change them.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Own(MemberId),
    Member(MemberId, Permission),
    /// Services' keys; with a second permission members' too, which are then as hard to change as by their own address.
    Services(Permission, Option<Permission>),
}

impl Whose {
    fn permission(self) -> Option<Permission> {
        match self {
            Self::Own(_) => None,
            Self::Member(_, permission) | Self::Services(permission, _) => Some(permission),
        }
    }

    /// May the caller change these keys? A key is a credential: it is changed by anyone who may change the member's.
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
        if members::get(t, member)?.status == "deleted" {
            return Err(ErrorCode::MemberDeleted.into());
        }
        members::require_may_change(t, caller, reach, member)?;
        Ok(reach)
    }

    /// One of these keys, if the caller may change it.
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
    async fn list(&self, member: Option<MemberId>, keyword: Option<String>, window: Window) -> Reply<Page<KeyView>> {
        let list = move |r: &Reader<'_>| store::list_keys(r, member, keyword.as_deref(), &window);
        let found = self.app.read(list).await?;
        let (now, notice_ms) = (Timestamp::now(), ms(self.app.config.api_key_notice_s));
        Ok(ok(found.map(|key| view(key, notice_ms, now)).into()))
    }

    async fn create(&self, caller: MemberCaller, whose: Whose, new: NewKey) -> Reply<ApiKeySecret> {
        let most = match new.owner {
            Owner::Member(_) => self.app.config.api_keys_max,
            Owner::Service(_) => self.app.config.service_keys_max,
        };
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = whose.require(t, caller)?;
            if let Owner::Service(_) = new.owner {
                delegation::require_scopes_held(t.snapshot(), caller, &new.scopes)?;
            }
            Ok(shown(api_keys::create(t, caller, &new, most)?, reach))
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
            Ok(shown(api_keys::rotate(t, caller, &key)?, reach))
        };
        let rotated = self.app.create_secret(&caller, "api_key.rotate", whose.permission(), rotate).await?;
        Ok(ok(rotated.answer).epoch(rotated.epoch))
    }

    async fn revoke(&self, caller: MemberCaller, whose: Whose, id: ApiKeyId) -> Done {
        let revoke = move |t: &Transaction<'_>, caller: &Identity| {
            let (key, reach) = whose.find(t, caller, id)?;
            let entry = entry(&key, reach).before(api_keys::described(&key));
            Ok(Changed::new((), entry).policy([api_keys::revoke(t, id)?]))
        };
        let gone = self.app.change(&caller, "api_key.delete", revoke).await?;
        Ok(done().epoch(gone.epoch))
    }
}

fn shown(shown: CreatedKey, reach: Reach) -> Changed<ApiKeySecret> {
    let entry = entry(&shown.key, reach).after(api_keys::described(&shown.key));
    let CreatedKey { key, text, change } = shown;
    Changed::new(ApiKeySecret::from((key, text)), entry).policy([change])
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
        scopes: body.scopes.map_or_else(|| vec!["*".to_owned()], words),
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
        expires_soon: key.ends_soon(notice_ms, now),
        former_valid_until: key.former_ends_at.filter(|at| *at > now).map(|at| at.0),
        spent: key.spent_at.is_some(),
        last_used_at: key.last_used_at.map(|at| at.0),
        last_used_address: key.last_used_address,
        created_at: key.created_at.0,
        name: key.name,
        scopes: key.scopes,
    }
}
