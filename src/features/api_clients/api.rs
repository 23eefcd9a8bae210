//! Operations on API clients. A client cannot manage clients.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use crate::features::api_clients::{ApiClient, store};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz::deferred_grant::{self, Grantor};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Change;
use crate::kernel::authz::{self, delegation};
use crate::kernel::db::PageRequest;
use crate::kernel::error::{Error, Result};
use crate::kernel::http::{ActiveInactive, Body, EmptyReply, Page, Reply, Tag, done, like, ok, require_version};
use crate::kernel::http::{ClientName, ClientScope, scope_names};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret;

crate::text! {
    /// An exact origin, for example `https://office.example.org`
    Origin 1..=256 "" as "client-origin";
    /// An IP address or a CIDR range
    Network 1..=64 "" as "client-network";
    /// A path below the base path; `/admin/*` matches every path below `/admin/`
    AllowedPath 1..=256 "" as "client-path";
}

/// An API client, without its secret
#[derive(Object)]
#[oai(rename = "ApiClient")]
struct ClientView {
    client_key: String,
    name: String,
    status: ActiveInactive,
    scopes: Vec<String>,
    /// Origins that may send requests; empty allows all
    allowed_origins: Vec<String>,
    /// IP addresses and CIDR ranges that may send requests; empty allows all
    allowed_ips: Vec<String>,
    /// Paths that the client may call; empty allows all paths that its scopes cover
    allowed_paths: Vec<String>,
    #[oai(nullable)]
    rate_limit_per_min: Option<u32>,
    /// Unix milliseconds
    #[oai(nullable)]
    expires_at: Option<i64>,
    /// Unix milliseconds; updated once a minute
    #[oai(nullable)]
    last_used_at: Option<i64>,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<ApiClient> for ClientView {
    fn from(client: ApiClient) -> Self {
        Self {
            client_key: client.client_key,
            name: client.name,
            status: ActiveInactive::of(client.is_active),
            scopes: client.scopes,
            allowed_origins: client.allowed_origins,
            allowed_ips: client.allowed_ips,
            allowed_paths: client.allowed_paths,
            rate_limit_per_min: client.rate_limit_per_min,
            expires_at: client.expires_at.map(|at| at.0),
            last_used_at: client.last_used_at.map(|at| at.0),
            created_at: client.created_at.0,
            updated_at: client.updated_at.0,
        }
    }
}

/// An API client with its secret, which is returned only in this answer
#[derive(Object)]
struct ClientSecret {
    client_key: String,
    /// Sent as `X-API-Key`; Roster stores only its hash
    api_key: String,
    name: String,
    scopes: Vec<String>,
    /// Until when the previous secret remains valid, in Unix milliseconds
    #[oai(nullable)]
    former_valid_until: Option<i64>,
}

/// A new API client
#[derive(Object)]
struct CreateClient {
    name: ClientName,
    /// For example `members:read`; `*` means all scopes
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Vec<ClientScope>,
    #[oai(validator(max_items = 100))]
    allowed_origins: Option<Vec<Origin>>,
    /// IP addresses or CIDR ranges
    #[oai(validator(max_items = 100))]
    allowed_ips: Option<Vec<Network>>,
    /// Paths below the base path; `/admin/*` matches every path below `/admin/`
    #[oai(validator(max_items = 100))]
    allowed_paths: Option<Vec<AllowedPath>>,
    #[oai(validator(minimum(value = "1"), maximum(value = "1000000")))]
    rate_limit_per_min: Option<u32>,
    /// Unix milliseconds
    expires_at: Option<i64>,
}

/// The fields of an API client to change
#[derive(Object)]
struct UpdateClient {
    name: Option<ClientName>,
    status: Option<ActiveInactive>,
    #[oai(validator(min_items = 1, max_items = 16))]
    scopes: Option<Vec<ClientScope>>,
    #[oai(validator(max_items = 100))]
    allowed_origins: Option<Vec<Origin>>,
    #[oai(validator(max_items = 100))]
    allowed_ips: Option<Vec<Network>>,
    #[oai(validator(max_items = 100))]
    allowed_paths: Option<Vec<AllowedPath>>,
    /// Null removes the limit
    #[oai(nullable, validator(minimum(value = "1"), maximum(value = "1000000")))]
    rate_limit_per_min: MaybeUndefined<u32>,
    /// Unix milliseconds; null removes the expiry
    #[oai(nullable)]
    expires_at: MaybeUndefined<i64>,
}

crate::document! {
    create_api_client: [NotHeld, SecretNotKept] ["etag", "x-policy-epoch"];
    get_api_client: [ClientNotFound] ["etag"];
    update_api_client: [NotHeld, ClientNotFound] ["etag", "x-policy-epoch"];
    delete_api_client: [ClientNotFound] ["x-policy-epoch"];
    rotate_api_client: [NotHeld, ClientNotFound, SecretNotKept] ["x-policy-epoch"];

    "CreateClient": r#"{"name":"portal","scopes":["members:read","permissions:check"],"allowed_ips":["10.0.0.0/8"],"rate_limit_per_min":600}"#;
    "UpdateClient": r#"{"status":"inactive"}"#;
    "ApiClient": r#"{"client_key":"rc_3q2-7w","name":"portal","status":"active","scopes":["members:read"],"allowed_origins":[],"allowed_ips":["10.0.0.0/8"],"allowed_paths":[],"rate_limit_per_min":600,"expires_at":null,"last_used_at":null,"created_at":1763740800000,"updated_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/api-clients", tag = "Tag::ApiClients")]
impl Api {
    /// List API clients
    ///
    /// Returns the clients in the order of their creation, without their secrets.
    #[oai(path = "/", method = "get", operation_id = "list_api_clients")]
    async fn list_api_clients(
        &self,
        caller: MemberCaller,
        /// Matches part of the name or the client key
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<ClientView>> {
        authz::require(&self.app.snapshot(), &caller, Permission::CLIENT_LIST)?;
        let (keyword, window) = (like(keyword.0.as_deref()), PageRequest::new(limit.0, offset.0, after.0)?);
        Ok(ok(self.app.read(move |r| store::list_clients(r, keyword.as_deref(), &window)).await?.into()))
    }

    /// Create an API client
    ///
    /// The secret is returned only in this answer.
    #[oai(path = "/", method = "post", operation_id = "create_api_client")]
    async fn create_api_client(&self, caller: MemberCaller, body: Body<CreateClient>) -> Reply<ClientSecret> {
        let body = body.0;
        let clients_max = self.app.config.clients_max;
        let (client_key, api_key) = (new_client_key()?, secret::token("rs_")?);
        let make = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::CLIENT_CREATE)?;
            if t.snapshot().clients().count() as u64 >= clients_max {
                return Err(Error::field(
                    "name",
                    format!("the limit of {clients_max} API clients is reached (limits.api_clients)"),
                ));
            }
            let client = ApiClient {
                client_key,
                name: body.name.0,
                is_active: true,
                scopes: scope_names(body.scopes),
                allowed_origins: texts(body.allowed_origins, |entry| entry.0),
                allowed_ips: texts(body.allowed_ips, |entry| entry.0),
                allowed_paths: texts(body.allowed_paths, |entry| entry.0),
                rate_limit_per_min: body.rate_limit_per_min,
                expires_at: body.expires_at.map(Timestamp),
                last_used_at: None,
                version: 1,
                created_at: t.now(),
                updated_at: t.now(),
            };
            require_future(client.expires_at, t.now())?;
            delegation::require_scopes_held(t.snapshot(), caller, &client.scopes)?;
            store::insert_client(t, &client, &secret::hash(&api_key))?;
            store::set_client_maker(t, &client.client_key, &Grantor::from_caller(caller))?;
            let entry = Entry::new("client", &client.client_key).after(described(&client));
            let change = authz::store::client(t, &client.client_key)?;
            let ApiClient { client_key, name, scopes, .. } = client;
            Ok(Changed::new(ClientSecret { client_key, api_key, name, scopes, former_valid_until: None }, entry)
                .with_policy_changes([change]))
        };
        let made = self.app.create_secret(&caller, "client.create", Permission::CLIENT_CREATE, make).await?;
        Ok(ok(made.answer).version(1).epoch(made.epoch))
    }

    /// Get an API client
    ///
    /// Returns its scopes, its limits and the time of last use, but not its secret.
    #[oai(path = "/:client_key", method = "get", operation_id = "get_api_client")]
    async fn get_api_client(&self, caller: MemberCaller, client_key: Path<String>) -> Reply<ClientView> {
        authz::require(&self.app.snapshot(), &caller, Permission::CLIENT_GET)?;
        let client = self.app.read(move |r| store::get_client(r, &client_key.0)).await?;
        let version = client.version;
        Ok(ok(client.into()).version(version))
    }

    /// Update an API client
    ///
    /// Only the fields that are sent change. The caller must hold every right that the scopes open.
    #[oai(path = "/:client_key", method = "patch", operation_id = "update_api_client")]
    async fn update_api_client(
        &self,
        caller: MemberCaller,
        client_key: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateClient>,
    ) -> Reply<ClientView> {
        let edit = body.0;
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::CLIENT_UPDATE)?;
            let former = store::get_client(t, &client_key.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let client = edited(former.clone(), edit);
            if client == former {
                return Ok(Changed::unchanged(former));
            }
            // An expiry in the past may stay unchanged; a new one must be in the future.
            if client.expires_at != former.expires_at {
                require_future(client.expires_at, t.now())?;
            }
            delegation::require_scopes_held(t.snapshot(), caller, &former.scopes)?;
            delegation::require_scopes_held(t.snapshot(), caller, &client.scopes)?;
            // The client still depends on the rights of its maker, who knows its secret.
            store::update_client(t, &client)?;
            let entry = Entry::new("client", &client.client_key).before(described(&former)).after(described(&client));
            let change = authz::store::client(t, &client.client_key)?;
            Ok(Changed::new(store::get_client(t, &client.client_key)?, entry).with_policy_changes([change]))
        };
        let updated = self.app.change(&caller, "client.update", update).await?;
        let version = updated.answer.version;
        Ok(ok(updated.answer.into()).version(version).epoch(updated.epoch))
    }

    /// Delete an API client
    ///
    /// Its secret stops working before the answer is sent. Its audit entries remain.
    #[oai(path = "/:client_key", method = "delete", operation_id = "delete_api_client")]
    async fn delete_api_client(
        &self,
        caller: MemberCaller,
        client_key: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::CLIENT_DELETE)?;
            let client = store::get_client(t, &client_key.0)?;
            require_version(if_match.0.as_deref(), client.version)?;
            store::delete_client(t, &client.client_key)?;
            let entry = Entry::new("client", &client.client_key).before(described(&client));
            Ok(Changed::new((), entry).with_policy_changes([Change::ClientDeleted(client.client_key.into())]))
        };
        let deleted = self.app.change(&caller, "client.delete", delete).await?;
        Ok(done().epoch(deleted.epoch))
    }

    /// Rotate the secret of an API client
    ///
    /// The previous secret remains valid for `auth.client_rotation_overlap_s`; an even older one becomes invalid now. A
    /// client depends on the rights of the principal who created it or last rotated it: once they may no longer give
    /// its scopes, the client is denied everything until it is rotated. If another principal rotates it, or it was
    /// denied everything, the previous secret becomes invalid now.
    #[oai(path = "/:client_key/rotate", method = "post", operation_id = "rotate_api_client")]
    async fn rotate_api_client(
        &self,
        caller: MemberCaller,
        client_key: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> Reply<ClientSecret> {
        let overlap_ms = i64::try_from(self.app.config.client_rotation_overlap_s * 1_000).unwrap_or(i64::MAX);
        let api_key = secret::token("rs_")?;
        let rotate = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::CLIENT_ROTATE)?;
            let client = store::get_client(t, &client_key.0)?;
            require_version(if_match.0.as_deref(), client.version)?;
            delegation::require_scopes_held(t.snapshot(), caller, &client.scopes)?;
            let maker = Grantor::from_caller(caller);
            let former = t.snapshot().client(&client.client_key);
            let former_maker =
                former.map(|former| (&former.maker, former.require_grantor_authorized(t.snapshot(), t.now()).is_ok()));
            let grace_ms = former_maker.map_or(0, |former| deferred_grant::grace_ms(former, &maker, overlap_ms));
            let former_ends_at = t.now().plus_ms(grace_ms);
            store::rotate_client(t, &client.client_key, &secret::hash(&api_key), former_ends_at)?;
            store::set_client_maker(t, &client.client_key, &maker)?;
            let former_valid_until = (grace_ms > 0).then_some(former_ends_at.0);
            let entry =
                Entry::new("client", &client.client_key).after(json!({"former_valid_until": former_valid_until}));
            let change = authz::store::client(t, &client.client_key)?;
            let ApiClient { client_key, name, scopes, .. } = client;
            let answer = ClientSecret { client_key, api_key, name, scopes, former_valid_until };
            Ok(Changed::new(answer, entry).with_policy_changes([change]))
        };
        let rotated = self.app.create_secret(&caller, "client.rotate", Permission::CLIENT_ROTATE, rotate).await?;
        Ok(ok(rotated.answer).epoch(rotated.epoch))
    }
}

fn new_client_key() -> Result<String> {
    Ok(format!("rc_{}", hex::encode(&secret::random()?[..12])))
}

fn texts<T>(list: Option<Vec<T>>, text: fn(T) -> String) -> Vec<String> {
    list.into_iter().flatten().map(text).collect()
}

fn require_future(expires_at: Option<Timestamp>, now: Timestamp) -> Result<()> {
    if expires_at.is_some_and(|at| at <= now) {
        return Err(Error::field("expires_at", "must be in the future, in Unix milliseconds"));
    }
    Ok(())
}

fn edited(mut client: ApiClient, edit: UpdateClient) -> ApiClient {
    if let Some(scopes) = edit.scopes {
        client.scopes = scope_names(scopes);
    }
    if edit.allowed_origins.is_some() {
        client.allowed_origins = texts(edit.allowed_origins, |entry| entry.0);
    }
    if edit.allowed_ips.is_some() {
        client.allowed_ips = texts(edit.allowed_ips, |entry| entry.0);
    }
    if edit.allowed_paths.is_some() {
        client.allowed_paths = texts(edit.allowed_paths, |entry| entry.0);
    }
    if let Some(name) = edit.name {
        client.name = name.0;
    }
    if let Some(status) = edit.status {
        client.is_active = status.is_active();
    }
    match edit.rate_limit_per_min {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => client.rate_limit_per_min = None,
        MaybeUndefined::Value(rate) => client.rate_limit_per_min = Some(rate),
    }
    match edit.expires_at {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => client.expires_at = None,
        MaybeUndefined::Value(at) => client.expires_at = Some(Timestamp(at)),
    }
    client
}

fn described(client: &ApiClient) -> serde_json::Value {
    json!({
        "name": client.name,
        "is_active": client.is_active,
        "scopes": client.scopes,
        "allowed_origins": client.allowed_origins,
        "allowed_ips": client.allowed_ips,
        "allowed_paths": client.allowed_paths,
        "rate_limit_per_min": client.rate_limit_per_min,
        "expires_at": client.expires_at.map(|at| at.0),
    })
}
