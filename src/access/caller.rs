//! Who makes this request. One function decides, in a fixed order: a credential that is presented and taken here
//! decides, right or wrong; nothing falls through to a weaker one.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use poem::http::header::{AUTHORIZATION, HeaderName};
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::client::{self, Client, Presented, Rate};
use super::secret::{self, Hash};
use super::snapshot::{Snapshot, Status};
use super::token::Keys;
use crate::config::Config;
use crate::error::{Cause, Error, Result};
use crate::ids::{MemberId, OrganizationId, Timestamp};

/// A member by access token.
pub const MEMBER: u8 = 1;
/// An API client by key and secret.
pub const CLIENT: u8 = 2;
/// An internal service by the shared secret.
pub const INTERNAL: u8 = 4;
/// A member whom a gateway vouches for.
pub const GATEWAY: u8 = 8;

/// The administration: people with the right, and back-office programs.
pub type Office = Caller<{ MEMBER | CLIENT }>;
/// The administration of what programs must not touch.
pub type Person = Caller<MEMBER>;
/// The permission area.
pub type Gate = Caller<{ MEMBER | GATEWAY }>;
/// Its operations that programs may ask too.
pub type GateOrClient = Caller<{ MEMBER | CLIENT | GATEWAY }>;
/// The neighbours on the same machine.
pub type Neighbour = Caller<{ INTERNAL | CLIENT }>;

/// Each scheme of the document with the bit it stands for; `+` joins headers that are needed together.
const SCHEMES: [(u8, &str); 4] = [
    (MEMBER, "bearer"),
    (CLIENT, "client_key+client_secret"),
    (INTERNAL, "internal_secret"),
    (GATEWAY, "gateway_tenant+gateway_uid+internal_secret"),
];

#[derive(Debug, Clone)]
pub enum Who {
    Member(MemberId),
    /// A member whom a gateway named; never with rights over the site.
    Asserted(MemberId),
    Client(Arc<Client>),
    Internal,
    /// The owner of the machine, over the local socket or directly on the data directory.
    CommandLine,
}

/// What belongs to one request from its arrival to its answer.
#[derive(Debug)]
pub struct Exchange {
    pub request_id: String,
    /// Where the request comes from; absent on the local socket.
    pub address: Option<IpAddr>,
    /// What was asked: the path, without its query.
    pub path: String,
    /// Values of `RateLimit-Policy` and `RateLimit`, once the request was counted.
    pub rate: OnceLock<(String, String)>,
    /// The caller, once it is known.
    who: OnceLock<Actor>,
    /// The tenant in which the caller acts, once it was asked for.
    pub tenant: OnceLock<OrganizationId>,
}

impl Exchange {
    pub fn new(request_id: String, address: Option<IpAddr>, path: String) -> Self {
        Self { request_id, address, path, rate: OnceLock::new(), who: OnceLock::new(), tenant: OnceLock::new() }
    }
}

/// Who stands behind a request, as far as it came.
#[derive(Debug)]
enum Actor {
    Known(Who),
    /// The client that somebody said to be.
    TurnedAway(String),
}

impl Exchange {
    /// Kind and name of the caller, for the log and the audit.
    pub fn actor(&self) -> (&'static str, String) {
        match self.who.get() {
            Some(Actor::Known(who)) => who.actor(),
            Some(Actor::TurnedAway(client_key)) => ("client", client_key.clone()),
            None => ("nobody", String::new()),
        }
    }
}

impl Who {
    fn actor(&self) -> (&'static str, String) {
        match self {
            Self::Member(id) => ("member", id.to_string()),
            Self::Asserted(id) => ("gateway", id.to_string()),
            Self::Client(client) => ("client", client.client_key.to_string()),
            Self::Internal => ("internal", "internal".into()),
            Self::CommandLine => ("cli", "cli".into()),
        }
    }
}

/// A creating request that wants to happen once.
#[derive(Debug, Clone)]
pub struct Idempotency {
    pub key: String,
    pub fingerprint: Hash,
}

#[derive(Debug, Clone)]
pub struct Identity {
    pub who: Who,
    /// The tenant that `X-Tenant-ID` names; the nil id when it names none there is.
    pub named_tenant: Option<OrganizationId>,
    pub exchange: Arc<Exchange>,
    pub idempotency: Option<Idempotency>,
}

/// The extractor: `TAKES` says which credentials an operation takes, and the document follows from it.
#[derive(Debug, Clone)]
pub struct Caller<const TAKES: u8>(pub Identity);

impl<const TAKES: u8> std::ops::Deref for Caller<TAKES> {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

/// All that is needed to know who is calling, without the database.
pub struct Guard {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub keys: Keys,
    internal_secrets: Vec<Hash>,
    gateways: Vec<ipnet::IpNet>,
    base_path: String,
}

impl Guard {
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, keys: Keys, config: &Config) -> Self {
        Self {
            snapshot,
            keys,
            internal_secrets: config.internal_secrets.iter().map(|text| secret::hash(text)).collect(),
            gateways: config.gateways.clone(),
            base_path: config.base_path.clone(),
        }
    }

    /// Is it one of the internal secrets? All are compared, whichever fits.
    fn is_internal(&self, offered: &str) -> bool {
        let offered = secret::hash(offered);
        self.internal_secrets.iter().fold(false, |found, known| found | secret::equal(&offered, known))
    }
}

/// Marks a request that came over the local socket or was made in this process by the command line.
#[derive(Debug, Clone, Copy)]
pub struct FromCommandLine;

impl Identity {
    pub fn command_line() -> Self {
        let exchange = Arc::new(Exchange::new(uuid::Uuid::now_v7().to_string(), None, String::new()));
        Self { who: Who::CommandLine, named_tenant: None, exchange, idempotency: None }
    }

    /// The member who acts, if a member does.
    pub fn member(&self) -> Option<MemberId> {
        match self.who {
            Who::Member(id) | Who::Asserted(id) => Some(id),
            Who::Client(_) | Who::Internal | Who::CommandLine => None,
        }
    }

    /// The tenant in which the caller acts: the one it names, or the only one it has.
    pub fn tenant(&self, snapshot: &Snapshot) -> Result<OrganizationId> {
        let tenant = self.resolved_tenant(snapshot)?;
        // Asked for twice, it is the same.
        let _ = self.exchange.tenant.set(tenant);
        Ok(tenant)
    }

    fn resolved_tenant(&self, snapshot: &Snapshot) -> Result<OrganizationId> {
        if let Some(named) = self.named_tenant {
            return self.named(snapshot, named);
        }
        let Some(member) = self.member() else {
            return Err(Error::header_field("X-Tenant-ID", "say for which organization, by id or org_code"));
        };
        if let Some(only) = snapshot.only_tenant(member) {
            return Ok(only.id);
        }
        if snapshot.belongs_nowhere(member) {
            return Err(Cause::NotAMember.into());
        }
        match snapshot.platform().filter(|platform| platform.set_of(member).is_some()) {
            Some(platform) => Ok(platform.id),
            None => Err(Error::header_field(
                "X-Tenant-ID",
                "you belong to several organizations: say which, by id or org_code",
            )),
        }
    }

    /// The named tenant, if it exists for this caller: a foreign one looks like a missing one.
    fn named(&self, snapshot: &Snapshot, named: OrganizationId) -> Result<OrganizationId> {
        let tenant = snapshot.tenant(named).ok_or(Cause::OrganizationNotFound)?;
        let visible = match self.who {
            Who::Member(id) => tenant.set_of(id).is_some() || snapshot.is_platform_admin(id),
            Who::Asserted(id) => tenant.set_of(id).is_some() && !snapshot.is_platform(tenant.id),
            Who::Client(_) | Who::Internal | Who::CommandLine => true,
        };
        if visible { Ok(tenant.id) } else { Err(Cause::OrganizationNotFound.into()) }
    }

    /// Kind and name of the actor, for the audit.
    pub fn actor(&self) -> (&'static str, String) {
        self.who.actor()
    }

    pub fn address(&self) -> String {
        match (&self.who, self.exchange.address) {
            (Who::CommandLine, _) => "local".into(),
            (_, Some(address)) => address.to_string(),
            (_, None) => "unknown".into(),
        }
    }
}

impl<'a, const TAKES: u8> ApiExtractor<'a> for Caller<TAKES> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("bearer", scheme_bearer());
        for (name, header, about) in [
            ("client_key", "X-Client-Key", "The key of an API client"),
            ("client_secret", "X-API-Key", "The secret of the same API client"),
            ("internal_secret", "X-Internal-Secret", "The secret shared by the services of this site"),
            ("gateway_tenant", "X-Tenant-ID", "The organization, as a trusted gateway names it"),
            ("gateway_uid", "X-UID", "The member, as a trusted gateway names it"),
        ] {
            registry.create_security_scheme(name, scheme_header(header, about));
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
        Ok(Caller(identify(guard, request, TAKES)?))
    }
}

fn scheme_bearer() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some("An access token of `POST /auth/login`"),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    }
}

fn scheme_header(header: &'static str, about: &'static str) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "apiKey",
        description: Some(about),
        name: Some(header),
        key_in: Some("header"),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}

static X_CLIENT_KEY: HeaderName = HeaderName::from_static("x-client-key");
static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static X_INTERNAL_SECRET: HeaderName = HeaderName::from_static("x-internal-secret");
static X_UID: HeaderName = HeaderName::from_static("x-uid");
static X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

fn identify(guard: &Guard, request: &Request, takes: u8) -> Result<Identity> {
    let snapshot = guard.snapshot.load();
    let exchange = request.data::<Arc<Exchange>>().ok_or_else(|| Error::internal("no exchange"))?.clone();
    let header = |name: &HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or(UNREADABLE));
    let who = if request.data::<FromCommandLine>().is_some() {
        Who::CommandLine
    } else if let Some(client_key) = header(&X_CLIENT_KEY).filter(|_| takes & CLIENT != 0) {
        let offered = header(&X_API_KEY).unwrap_or("");
        Who::Client(client(guard, &snapshot, request, client_key, offered, &exchange).inspect_err(|_| {
            // Known to the log and the audit even when it is turned away.
            let _ = exchange.who.set(Actor::TurnedAway(client_key.chars().take(CLIENT_KEY_SHOWN).collect()));
        })?)
    } else if let Some(uid) = header(&X_UID).filter(|_| takes & GATEWAY != 0 && is_gateway(guard, request)) {
        if let Some(offered) = header(&X_INTERNAL_SECRET) {
            internal(guard, offered)?;
        }
        // The pair is the credential: a gateway says who, and where.
        header(&X_TENANT_ID).ok_or(Cause::Unauthenticated)?;
        Who::Asserted(asserted(&snapshot, uid)?)
    } else if let Some(offered) = header(&X_INTERNAL_SECRET).filter(|_| takes & INTERNAL != 0) {
        internal(guard, offered)?;
        Who::Internal
    } else if let Some(authorization) = header(&AUTHORIZATION).filter(|_| takes & MEMBER != 0) {
        Who::Member(bearer(guard, &snapshot, authorization)?)
    } else {
        return Err(nobody(takes));
    };
    let named_tenant = header(&X_TENANT_ID)
        .map(|text| snapshot.tenant_named(text).map_or(OrganizationId(uuid::Uuid::nil()), |tenant| tenant.id));
    let identity = Identity { who, named_tenant, exchange, idempotency: request.data::<Idempotency>().cloned() };
    let _ = identity.exchange.who.set(Actor::Known(identity.who.clone()));
    Ok(identity)
}

/// As much of an unverified client key as a log line or an audit row takes.
const CLIENT_KEY_SHOWN: usize = 64;

/// Stands for a header value that is not text: it equals no key and no token.
const UNREADABLE: &str = "\u{fffd}";

fn nobody(takes: u8) -> Error {
    Error::new(match takes {
        MEMBER => Cause::MissingBearer,
        _ => Cause::Unauthenticated,
    })
}

fn internal(guard: &Guard, offered: &str) -> Result<()> {
    if guard.internal_secrets.is_empty() {
        return Err(Cause::InternalSecretNotConfigured.into());
    }
    if guard.is_internal(offered) { Ok(()) } else { Err(Cause::InvalidInternalSecret.into()) }
}

/// May this request assert a member: by the secret, or by where it comes from? Otherwise its X-UID is ignored.
fn is_gateway(guard: &Guard, request: &Request) -> bool {
    let peer = request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical());
    request.headers().contains_key(&X_INTERNAL_SECRET)
        || peer.is_some_and(|peer| guard.gateways.iter().any(|net| net.contains(&peer)))
}

fn asserted(snapshot: &Snapshot, uid: &str) -> Result<MemberId> {
    let id = MemberId::of(uid);
    match snapshot.person(id) {
        Some(person) if person.status == Status::Active => Ok(id),
        _ => Err(Cause::Unauthenticated.into()),
    }
}

fn bearer(guard: &Guard, snapshot: &Snapshot, authorization: &str) -> Result<MemberId> {
    let token = match authorization.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(Cause::InvalidBearer.into()),
    };
    let named = guard.keys.verify(token, Timestamp::now())?;
    let alive = snapshot
        .person(named.member)
        .is_some_and(|person| person.status == Status::Active && person.generation == named.generation);
    if alive { Ok(named.member) } else { Err(Error::new(Cause::InvalidBearer).because("suspended or superseded")) }
}

fn client(
    guard: &Guard,
    snapshot: &Snapshot,
    request: &Request,
    client_key: &str,
    offered: &str,
    exchange: &Exchange,
) -> Result<Arc<Client>> {
    let path = request.original_uri().path();
    let presented = Presented {
        secret: offered,
        origin: request.headers().get("origin").and_then(|value| value.to_str().ok()),
        address: exchange.address,
        path: path.strip_prefix(guard.base_path.as_str()).unwrap_or(path),
        now: Timestamp::now(),
    };
    let client = client::identify(snapshot.client(client_key), &presented)?;
    client.admit(&presented)?;
    Ok(client.clone())
}

/// Counts a request of a client; called by the guard once the scope is known to fit.
///
/// The guard may look twice at one request (before and inside the transaction); it counts once.
pub fn take(identity: &Identity) -> Result<()> {
    if identity.exchange.rate.get().is_none()
        && let Who::Client(client) = &identity.who
        && let Some(Rate { policy, state }) = client.take(Timestamp::now())?
    {
        // It was empty a moment ago, and one request runs on one task.
        let _ = identity.exchange.rate.set((policy, state));
    }
    Ok(())
}
