//! Extractors that identify the caller of a request. `identify` tries the kinds of credentials in a fixed order. The
//! first credential that is present and that the operation accepts decides, valid or not: an invalid one never falls
//! through to a weaker one.

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use poem::http::Method;
use poem::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN, USER_AGENT};
use poem::http::uri::Authority;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::kernel::authn::cookie::{self, Cookies, Provenance};
use crate::kernel::authn::login_throttle::Throttle;
use crate::kernel::authn::token::{Keys, TokenSubject};
use crate::kernel::authz::client::{self, Client, PresentedCredential};
use crate::kernel::authz::key::{self, ApiKey};
use crate::kernel::authz::principal::{Actor, Credential, Idempotency, Identity, Principal, RequestContext};
use crate::kernel::authz::require_one_factor_enough;
use crate::kernel::authz::snapshot::{MemberStatus, Snapshot};
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, SessionId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// A member by access token or session cookies.
pub const MEMBER: u8 = 1;
/// An API client by key and secret.
pub const CLIENT: u8 = 2;
/// An internal service by the shared secret.
pub const INTERNAL: u8 = 4;
/// A member whom a trusted gateway asserts.
pub const GATEWAY: u8 = 8;
/// The owner of an API key.
pub const KEY: u8 = 16;

/// Administrative operations: members with the permission, and API clients.
pub type AdminCaller = Caller<{ MEMBER | CLIENT }>;
/// Administrative operations that programs must not call.
pub type MemberCaller = Caller<MEMBER>;
/// Operations for members, also with their own API keys.
pub type MemberOrKey = Caller<{ MEMBER | KEY }>;
/// Administrative operations that API keys of members and services can call too.
pub type AdminOrKey = Caller<{ MEMBER | CLIENT | KEY }>;
/// Operations on roles and permissions.
pub type GatewayCaller = Caller<{ MEMBER | GATEWAY }>;
/// Operations on roles and permissions that a member's own API keys can call too.
pub type GatewayOrKey = Caller<{ MEMBER | GATEWAY | KEY }>;
/// Operations on roles and permissions that API clients can call too.
pub type GatewayOrClient = Caller<{ MEMBER | CLIENT | GATEWAY }>;
/// Callers that may request decisions.
pub type CheckCaller = Caller<{ MEMBER | CLIENT | GATEWAY | KEY }>;
/// Internal operations: services of this site, and API clients.
pub type InternalCaller = Caller<{ INTERNAL | CLIENT }>;

/// The security schemes of the OpenAPI document, each with its bit; `+` joins headers that are required together.
const SCHEMES: [(u8, &str); 6] = [
    (MEMBER, "bearer"),
    (MEMBER, "session_cookie"),
    (KEY, "api_key"),
    (CLIENT, "client_key+client_secret"),
    (INTERNAL, "internal_secret"),
    (GATEWAY, "gateway_tenant+gateway_uid+internal_secret"),
];

/// The extractor. `TAKES` is the set of credentials that an operation accepts; the OpenAPI document is derived from it.
#[derive(Debug, Clone)]
pub struct Caller<const TAKES: u8>(pub Identity);

impl<const TAKES: u8> std::ops::Deref for Caller<TAKES> {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

/// The state that is needed to authenticate a request without the database.
pub struct Guard {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub keys: ArcSwap<Keys>,
    pub cookies: Cookies,
    /// Counts failed sign-ins.
    pub login_throttle: Throttle,
    /// Counts mails that unauthenticated callers trigger, and wrong guesses of mailed codes.
    pub mail_throttle: Throttle,
    internal_secrets: Vec<Hash>,
    /// The key that SFTPGo's hooks must send.
    hook_key: Option<Hash>,
    gateways: Vec<ipnet::IpNet>,
    base_path: String,
}

impl Guard {
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, keys: Keys, config: &Config) -> Self {
        Self {
            login_throttle: Throttle::new(config).with_policy(snapshot.clone()),
            snapshot,
            keys: ArcSwap::from_pointee(keys),
            cookies: Cookies::new(config),
            mail_throttle: Throttle::new(config),
            internal_secrets: config.internal_secrets.iter().map(|text| secret::hash(text)).collect(),
            hook_key: config.hook_sftpgo_key.as_deref().map(secret::hash),
            gateways: config.gateways.clone(),
            base_path: config.base_path.clone(),
        }
    }

    /// Fails unless `offered` is one of the internal secrets.
    pub fn require_internal(&self, offered: &str) -> Result<()> {
        if self.internal_secrets.is_empty() {
            return Err(ErrorCode::InternalSecretNotConfigured.into());
        }
        if self.is_internal(offered) { Ok(()) } else { Err(ErrorCode::InvalidInternalSecret.into()) }
    }

    /// Whether `offered` is the key of SFTPGo's hooks; `None` if no key is configured.
    pub fn is_hook_key(&self, offered: Option<&str>) -> Option<bool> {
        self.hook_key.map(|known| offered.is_some_and(|offered| secret::equal(&secret::hash(offered), &known)))
    }

    /// Whether `offered` is one of the internal secrets. Compares all of them, so that the time does not show which
    /// matches.
    fn is_internal(&self, offered: &str) -> bool {
        let offered = secret::hash(offered);
        self.internal_secrets.iter().fold(false, |found, known| found | secret::equal(&offered, known))
    }
}

/// Authentication steps that need a write or a request to a provider. Implemented by the `sessions` feature.
pub trait SessionBackend: Send + Sync {
    /// Renews the access token of a session.
    fn renew<'a>(
        &'a self,
        context: &'a Arc<RequestContext>,
        session: SessionId,
        refresh: &'a str,
    ) -> BoxFuture<'a, TokenSubject>;
    /// Returns the member that an identity provider's access token identifies.
    fn member_of_provider_token<'a>(
        &'a self,
        context: &'a Arc<RequestContext>,
        token: &'a str,
    ) -> BoxFuture<'a, MemberId>;
    /// Consumes an emergency key, which works once.
    fn consume_emergency_key<'a>(&'a self, context: &'a Arc<RequestContext>, key: &'a Arc<ApiKey>)
    -> BoxFuture<'a, ()>;
}

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Marks a request that the command line made, over the local socket or in this process.
#[derive(Debug, Clone, Copy)]
pub struct FromCommandLine;

/// Marks a request that a page of the console makes for its visitor, who was authenticated with the request of the page.
/// Only `console/client.rs` makes it. The session is checked again.
#[derive(Debug, Clone)]
pub struct PreAuthenticated(pub Identity);

/// Authenticates the visitor of a page by the session cookies; `None` if there are none.
pub async fn identify_member(guard: &Guard, request: &Request) -> Result<Option<Identity>> {
    let context = context_of(request)?;
    let Some(named) = by_cookie(guard, request, &context, MEMBER).await? else { return Ok(None) };
    let principal = Principal::Member(named.member);
    let _ = context.actor.set(Actor::Known(principal.clone()));
    let mut identity = Identity::new(principal, context);
    (identity.credential, identity.session) = (Credential::Token, Some(named.session));
    Ok(Some(identity))
}

/// Whether a form comes from a page of this site. Every current browser sends `Sec-Fetch-Site` or `Origin` with a form, so a
/// request with neither is rejected.
pub fn is_own_form(guard: &Guard, request: &Request) -> bool {
    let from = provenance(request);
    (from.fetch_site.is_some() || from.origin.is_some())
        && !guard.cookies.is_cross_site(from)
        && guard.cookies.require_own_host(from).is_ok()
}

/// Whether the request names the public address of the site, so that cookies are accepted with it.
pub fn is_own_host(guard: &Guard, request: &Request) -> bool {
    guard.cookies.require_own_host(provenance(request)).is_ok()
}

impl<'a, const TAKES: u8> ApiExtractor<'a> for Caller<TAKES> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("bearer", scheme_bearer());
        let about = "Set by `POST /auth/login` with `cookies`; renewed while it is used. With https its name begins with `__Host-`";
        registry.create_security_scheme("session_cookie", scheme_in("cookie", cookie::ACCESS, about));
        for (name, header, about) in [
            ("api_key", "X-API-Key", "An API key of a member or a service (`muser_…`); also as a bearer token"),
            ("client_key", "X-Client-Key", "The key of an API client"),
            ("client_secret", "X-API-Key", "The secret of the same API client"),
            ("internal_secret", "X-Internal-Secret", "The secret that the services of this site share"),
            ("gateway_tenant", "X-Tenant-ID", "The organization, as a trusted gateway names it"),
            ("gateway_uid", "X-UID", "The member, as a trusted gateway names it"),
        ] {
            registry.create_security_scheme(name, scheme_in("header", header, about));
        }
    }

    fn security_schemes() -> Vec<&'static str> {
        SCHEMES.iter().filter(|(bit, _)| TAKES & bit != 0).map(|(_, name)| *name).collect()
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
        Ok(Caller(identify(guard, request, TAKES).await?))
    }
}

fn scheme_bearer() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some(
            "An access token of this site, an access token of a provider with an `audience`, or an API key where keys are accepted",
        ),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    }
}

/// A security scheme whose credential is one header or cookie.
pub fn scheme_in(location: &'static str, name: &'static str, about: &'static str) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "apiKey",
        description: Some(about),
        name: Some(name),
        key_in: Some(location),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}

/// An unauthenticated caller, with the parts of the request that the sign-in operations need.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub context: Arc<RequestContext>,
    pub agent: String,
    /// Whether a page of another site made this request.
    pub is_cross_site: bool,
    /// Whether a browser makes the request, so that it will send our cookies back.
    pub keeps_cookies: bool,
    pub refresh_cookie: Option<String>,
    pub session_cookie: Option<String>,
    pub oidc_cookie: Option<String>,
    /// Not set for a request that a page of another site made.
    pub trusted_cookie: Option<String>,
}

impl<'a> FromRequest<'a> for Visitor {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
        let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let cookie = |name| find_cookie(guard, request, name).map(str::to_owned);
        let from = provenance(request);
        if [cookie::REFRESH, cookie::SESSION, cookie::OIDC, cookie::TRUSTED]
            .iter()
            .any(|name| find_cookie(guard, request, name).is_some())
        {
            guard.cookies.require_own_host(from)?;
        }
        let is_cross_site = guard.cookies.is_cross_site(from);
        Ok(Self {
            context: context_of(request)?,
            agent: agent.chars().take(AGENT_CHARACTERS_MAX).collect(),
            is_cross_site,
            keeps_cookies: matches!(from.fetch_site, Some("same-origin" | "same-site" | "none")),
            refresh_cookie: cookie(cookie::REFRESH),
            session_cookie: cookie(cookie::SESSION),
            oidc_cookie: cookie(cookie::OIDC),
            trusted_cookie: cookie(cookie::TRUSTED).filter(|_| !is_cross_site),
        })
    }
}

/// The number of characters of `User-Agent` that are kept.
const AGENT_CHARACTERS_MAX: usize = 300;

// ── identification ──

// Identifies the caller by the credential of the request, in a fixed order, without falling through to a weaker one.

static X_CLIENT_KEY: HeaderName = HeaderName::from_static("x-client-key");
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static X_INTERNAL_SECRET: HeaderName = HeaderName::from_static("x-internal-secret");
static X_UID: HeaderName = HeaderName::from_static("x-uid");
static X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

pub(super) async fn identify(guard: &Guard, request: &Request, takes: u8) -> Result<Identity> {
    let context = context_of(request)?;
    let header = |name: &HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or(UNREADABLE));
    let (mut session, mut credential) = (None, Credential::Permanent);
    let principal = if request.data::<FromCommandLine>().is_some() {
        Principal::CommandLine
    } else if let Some(PreAuthenticated(visitor)) = request.data::<PreAuthenticated>().filter(|_| takes & MEMBER != 0) {
        let (member, session_id) = (visitor.signed_in()?, visitor.session.ok_or(ErrorCode::MissingBearer)?);
        let named = guard.require_valid_session(TokenSubject { member, session: session_id })?;
        (session, credential) = (Some(named.session), Credential::Token);
        Principal::Member(named.member)
    } else if let Some(client_key) = header(&X_CLIENT_KEY).filter(|_| takes & CLIENT != 0) {
        let presented = client_credential(guard, request, header(&X_API_KEY).unwrap_or(""));
        let client = client(guard, client_key, &presented, &context)?;
        credential = presented;
        Principal::Client(client)
    } else if let Some(uid) = header(&X_UID).filter(|_| takes & GATEWAY != 0 && is_gateway(guard, request)) {
        if let Some(offered) = header(&X_INTERNAL_SECRET) {
            guard.require_internal(offered)?;
        }
        // A gateway must send both X-UID and X-Tenant-ID.
        header(&X_TENANT_ID).ok_or(ErrorCode::Unauthenticated)?;
        credential = Credential::Token;
        Principal::Asserted(asserted(&guard.snapshot.load(), uid)?)
    } else if let Some(offered) = header(&X_INTERNAL_SECRET).filter(|_| takes & INTERNAL != 0) {
        guard.require_internal(offered)?;
        Principal::Internal
    } else if let Some(authorization) = header(&AUTHORIZATION).filter(|_| takes & (MEMBER | KEY) != 0) {
        let token = bearer_token(authorization)?;
        if key::is_key(token) {
            let (key, hash) = api_key(guard, request, token, &context, takes).await?;
            credential = Credential::Key(hash);
            Principal::Key(key)
        } else if takes & MEMBER != 0 {
            let named = bearer(guard, request, token, &context).await?;
            (session, credential) = (named.1, Credential::Token);
            Principal::Member(named.0)
        } else {
            return Err(unauthenticated(takes));
        }
    } else if let Some(offered) = header(&X_API_KEY).filter(|_| takes & KEY != 0 && header(&X_CLIENT_KEY).is_none()) {
        // With `X-Client-Key` this header is the secret of that client, even if the operation does not accept clients.
        let (key, hash) = api_key(guard, request, offered, &context, takes).await?;
        credential = Credential::Key(hash);
        Principal::Key(key)
    } else if let Some(named) = by_cookie(guard, request, &context, takes).await? {
        (session, credential) = (Some(named.session), Credential::Token);
        Principal::Member(named.member)
    } else {
        return Err(unauthenticated(takes));
    };
    let snapshot = guard.snapshot.load();
    let named_tenant = header(&X_TENANT_ID)
        .map(|text| snapshot.tenant_named(text).map_or(OrganizationId(uuid::Uuid::nil()), |tenant| tenant.id));
    let idempotency = idempotency(request)?;
    let _ = context.actor.set(Actor::Known(principal.clone()));
    Ok(Identity { principal, credential, session, named_tenant, context, idempotency })
}

pub(super) fn context_of(request: &Request) -> Result<Arc<RequestContext>> {
    request.data::<Arc<RequestContext>>().cloned().ok_or_else(|| Error::internal("the request has no context"))
}

fn backend_of(request: &Request) -> Result<&Arc<dyn SessionBackend>> {
    request.data::<Arc<dyn SessionBackend>>().ok_or_else(|| Error::internal("the request has no session backend"))
}

/// The maximum length of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

fn idempotency(request: &Request) -> Result<Option<Arc<Idempotency>>> {
    let Some(key) = request.headers().get("idempotency-key").filter(|_| is_change(request)) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    let key = key
        .ok_or_else(|| Error::header_field("Idempotency-Key", "must be 1 to 128 visible ASCII characters"))?
        .to_owned();
    let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes().to_vec()).unwrap_or_default();
    let (method, uri) = (request.method().as_str().into(), request.original_uri().to_string().into_bytes());
    Ok(Some(Arc::new(Idempotency { key, about: [method, uri, header("x-tenant-id"), header("x-sftpgo-user")] })))
}

fn is_change(request: &Request) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD)
}

/// Replaces a header value that is not text: it equals no key and no token.
const UNREADABLE: &str = "\u{fffd}";

fn unauthenticated(takes: u8) -> Error {
    Error::new(match takes & !KEY {
        MEMBER => ErrorCode::MissingBearer,
        _ => ErrorCode::Unauthenticated,
    })
}

/// Whether this request can assert a member: it has an internal secret, or comes from a gateway network. Otherwise
/// X-UID is ignored.
fn is_gateway(guard: &Guard, request: &Request) -> bool {
    let peer = request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical());
    request.headers().contains_key(&X_INTERNAL_SECRET)
        || peer.is_some_and(|peer| guard.gateways.iter().any(|net| net.contains(&peer)))
}

fn asserted(snapshot: &Snapshot, uid: &str) -> Result<MemberId> {
    let id = MemberId::of(uid);
    match snapshot.member_state(id) {
        Some(state) if state.status == MemberStatus::Active => Ok(id),
        _ => Err(ErrorCode::Unauthenticated.into()),
    }
}

fn bearer_token(authorization: &str) -> Result<&str> {
    match authorization.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(ErrorCode::InvalidBearer.into()),
    }
}

/// The member of an access token. A token of this site also has a session; a token of a provider has none.
async fn bearer(
    guard: &Guard,
    request: &Request,
    token: &str,
    context: &Arc<RequestContext>,
) -> Result<(MemberId, Option<SessionId>)> {
    let verified = guard.keys.load().verify(token, Timestamp::now());
    match verified {
        Ok(named) => guard.require_valid_session(named).map(|named| (named.member, Some(named.session))),
        Err(refused) if guard.keys.load().claims_own_issuer(token) => Err(refused),
        Err(_) => {
            let member = backend_of(request)?.member_of_provider_token(context, token).await?;
            // A provider's token belongs to no session of this site, so no second factor was verified with it.
            require_one_factor_enough(&guard.snapshot.load(), member)?;
            Ok((member, None))
        }
    }
}

impl Guard {
    /// Fails unless the member is active, the session has not ended, and the session has a second factor if an
    /// organization of the member requires one.
    pub fn require_valid_session(&self, named: TokenSubject) -> Result<TokenSubject> {
        let snapshot = self.snapshot.load();
        let invalid = |why: &'static str| Error::new(ErrorCode::InvalidBearer).with_source(why);
        if !snapshot.is_active(named.member) {
            return Err(invalid("the member is not active"));
        }
        let session = snapshot.session(named.session).filter(|session| session.member == named.member);
        let session = session.ok_or_else(|| invalid("the session has ended"))?;
        if !session.second_factor {
            require_one_factor_enough(&snapshot, named.member)?;
        }
        Ok(named)
    }
}

/// Identifies the API key with this text, and returns it with the hash of the text. A valid key gets `forbidden` from
/// an operation that accepts no keys.
async fn api_key(
    guard: &Guard,
    request: &Request,
    text: &str,
    context: &Arc<RequestContext>,
    takes: u8,
) -> Result<(Arc<ApiKey>, Hash)> {
    let (key, hash) = key::identify(&guard.snapshot.load(), text, Timestamp::now(), context.address)?;
    if takes & KEY == 0 {
        return Err(Error::new(ErrorCode::Forbidden).with_message("API keys cannot call this operation: sign in"));
    }
    if key.is_emergency {
        backend_of(request)?.consume_emergency_key(context, &key).await?;
    }
    Ok((key, hash))
}

/// The member of the session cookies, if there are any. Renews an access token that has expired.
async fn by_cookie(
    guard: &Guard,
    request: &Request,
    context: &Arc<RequestContext>,
    takes: u8,
) -> Result<Option<TokenSubject>> {
    if takes & MEMBER == 0 || !request.headers().contains_key(COOKIE) {
        return Ok(None);
    }
    let cookie = |name| find_cookie(guard, request, name);
    let (access, refresh) = (cookie(cookie::ACCESS), cookie(cookie::REFRESH).zip(cookie(cookie::SESSION)));
    if access.is_none() && refresh.is_none() {
        return Ok(None);
    }
    let from = provenance(request);
    guard.cookies.require_own_host(from)?;
    if is_change(request) && guard.cookies.is_cross_site(from) {
        return Err(ErrorCode::CrossSite.into());
    }
    let verified = access.map(|token| guard.keys.load().verify(token, Timestamp::now()));
    match (verified.map(|verified| verified.and_then(|named| guard.require_valid_session(named))), refresh) {
        (Some(Ok(named)), _) => Ok(Some(named)),
        // Also for a session that has ended: the renewal then removes the invalid cookies.
        (_, Some((refresh, session))) => {
            let named = backend_of(request)?.renew(context, SessionId::of(session), refresh).await?;
            guard.require_valid_session(named).map(Some)
        }
        (Some(Err(refused)), None) => Err(refused),
        (None, None) => Ok(None),
    }
}

pub(super) fn find_cookie<'r>(guard: &Guard, request: &'r Request, name: &str) -> Option<&'r str> {
    let lines = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    guard.cookies.find(lines, name)
}

pub(super) fn provenance(request: &Request) -> Provenance<'_> {
    let header = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or(UNREADABLE));
    Provenance {
        origin: header(ORIGIN),
        // HTTP/2 has the host in the request URI.
        host: header(HOST).or_else(|| request.uri().authority().map(Authority::as_str)),
        peer: request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical()),
        fetch_site: header(HeaderName::from_static("sec-fetch-site")),
    }
}

/// The credential of an API client, as the request presents it.
fn client_credential(guard: &Guard, request: &Request, offered: &str) -> Credential {
    let path = request.original_uri().path();
    Credential::Client {
        secret: secret::hash(offered),
        origin: request.headers().get(ORIGIN).and_then(|value| value.to_str().ok()).map(str::to_owned),
        path: path.strip_prefix(guard.base_path.as_str()).unwrap_or(path).to_owned(),
    }
}

fn client(guard: &Guard, client_key: &str, presented: &Credential, context: &RequestContext) -> Result<Arc<Client>> {
    let Credential::Client { secret, origin, path } = presented else { return Err(ErrorCode::InvalidClient.into()) };
    let (address, origin, now) = (context.address, origin.as_deref(), Timestamp::now());
    let snapshot = guard.snapshot.load();
    let admitted = client::authenticate(
        &snapshot,
        client_key,
        &PresentedCredential { secret: *secret, origin, address, path, now },
    );
    if let (Err(_), Some(named)) = (&admitted, snapshot.client(client_key)) {
        // The log and the audit log name the client even when it is rejected.
        let _ = context.actor.set(Actor::Rejected(named.clone()));
    }
    admitted
}
