//! Identifies the caller by the credential of the request, in a fixed order, without falling through to a weaker one.

use std::sync::Arc;

use poem::Request;
use poem::http::Method;
use poem::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN};
use poem::http::uri::Authority;

use super::{CLIENT, FromCommandLine, GATEWAY, Guard, INTERNAL, KEY, MEMBER, SessionBackend};
use crate::kernel::authn::cookie::{self, Provenance};
use crate::kernel::authn::token::TokenSubject;
use crate::kernel::authz::client::{self, Client, PresentedCredential};
use crate::kernel::authz::key::{self, ApiKey};
use crate::kernel::authz::principal::{Actor, Credential, Idempotency, Identity, Principal, RequestContext};
use crate::kernel::authz::require_one_factor_enough;
use crate::kernel::authz::snapshot::{Snapshot, Status};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, SessionId, Timestamp};
use crate::kernel::secret::{self, Hash};

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
        Some(state) if state.status == Status::Active => Ok(id),
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
