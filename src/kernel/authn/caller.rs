//! Extractors that identify the caller of a request. `identify` tries the kinds of credentials in a fixed order. The
//! first credential that is present and that the operation accepts decides, valid or not: an invalid one never falls
//! through to a weaker one.

mod identify;

use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
pub use identify::IDEMPOTENCY_KEY_BYTES_MAX;
use identify::{context_of, find_cookie, identify, provenance};
use poem::http::header::USER_AGENT;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use super::cookie::{self, Cookies};
use super::login_throttle::Throttle;
use super::token::{Keys, TokenSubject};
use crate::kernel::authz::key::ApiKey;
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, SessionId};
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
            snapshot,
            keys: ArcSwap::from_pointee(keys),
            cookies: Cookies::new(config),
            login_throttle: Throttle::new(config),
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
}

impl<'a> FromRequest<'a> for Visitor {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
        let agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let cookie = |name| find_cookie(guard, request, name).map(str::to_owned);
        let from = provenance(request);
        if [cookie::REFRESH, cookie::SESSION, cookie::OIDC]
            .iter()
            .any(|name| find_cookie(guard, request, name).is_some())
        {
            guard.cookies.require_own_host(from)?;
        }
        Ok(Self {
            context: context_of(request)?,
            agent: agent.chars().take(AGENT_CHARACTERS_MAX).collect(),
            is_cross_site: guard.cookies.is_cross_site(from),
            keeps_cookies: matches!(from.fetch_site, Some("same-origin" | "same-site" | "none")),
            refresh_cookie: cookie(cookie::REFRESH),
            session_cookie: cookie(cookie::SESSION),
            oidc_cookie: cookie(cookie::OIDC),
        })
    }
}

/// The number of characters of `User-Agent` that are kept.
const AGENT_CHARACTERS_MAX: usize = 300;
