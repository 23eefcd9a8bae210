//! API clients in the snapshot: their checks, in the order that the contract defines, and their rate limit.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ipnet::IpNet;

use super::deferred_grant::{self, Grantor};
use super::snapshot::Snapshot;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, Hash};

/// One API client. Only its counters change.
#[derive(Debug)]
pub struct Client {
    pub client_key: Arc<str>,
    pub is_active: bool,
    pub hash: Hash,
    /// The hash of the secret before the last rotation, and when that secret expires.
    pub previous: Option<(Hash, Timestamp)>,
    pub scopes: BTreeSet<Box<str>>,
    pub allowed_origins: Vec<String>,
    pub allowed_ips: Vec<IpNet>,
    pub allowed_paths: Vec<String>,
    pub expires_at: Option<Timestamp>,
    pub rate_limit_per_min: Option<NonZeroU32>,
    /// The principal that created the client or rotated it last.
    pub maker: Grantor,
    pub counters: Arc<Counters>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// The state that is kept when the client is edited.
#[derive(Debug)]
pub struct Counters {
    /// Unix milliseconds; 0 if not used since the start of the server. Written to the row in batches.
    pub last_used: AtomicI64,
    limiter: Option<Limiter>,
}

impl Counters {
    pub fn new(rate_limit_per_min: Option<NonZeroU32>) -> Self {
        let limiter = rate_limit_per_min
            .map(|rate| RateLimiter::direct(Quota::per_minute(rate)).with_middleware::<StateInformationMiddleware>());
        Self { last_used: AtomicI64::new(0), limiter }
    }
}

/// The properties of a request that a client's restrictions are checked against.
pub struct PresentedCredential<'a> {
    /// The digest of the secret.
    pub secret: Hash,
    pub origin: Option<&'a str>,
    pub address: Option<IpAddr>,
    /// The path below the base path, without a query.
    pub path: &'a str,
    pub now: Timestamp,
}

/// The values of the headers `RateLimit-Policy` and `RateLimit`.
pub struct Rate {
    pub policy: String,
    pub state: String,
}

/// Authenticates the client. An unknown, inactive or expired client and a wrong secret take the same time.
fn identify<'c>(client: Option<&'c Arc<Client>>, presented: &PresentedCredential<'_>) -> Result<&'c Arc<Client>> {
    let offered = presented.secret;
    let (current, former) = (client.map(|client| &client.hash), client.and_then(|client| client.previous));
    let is_its_secret = secret::is_current_or_former(&offered, current, former, presented.now);
    let Some(client) = client.filter(|client| client.is_active) else { return Err(ErrorCode::InvalidClient.into()) };
    if client.expires_at.is_some_and(|at| presented.now >= at) {
        return Err(ErrorCode::ClientExpired.into());
    }
    if !is_its_secret {
        return Err(ErrorCode::InvalidApiKey.into());
    }
    Ok(client)
}

/// Returns the client if all checks succeed: its secret, its maker's rights, and its restrictions of origin, address
/// and path.
pub fn authenticate(snapshot: &Snapshot, client_key: &str, presented: &PresentedCredential<'_>) -> Result<Arc<Client>> {
    let client = identify(snapshot.client(client_key), presented)?;
    client.require_grantor_authorized(snapshot, presented.now)?;
    client.check_restrictions(presented)?;
    Ok(client.clone())
}

impl Client {
    /// Fails with `invalid_client` unless the maker may still give the scopes.
    pub fn require_grantor_authorized(&self, snapshot: &Snapshot, now: Timestamp) -> Result<()> {
        deferred_grant::require_client_kept(snapshot, self, now).map_err(|_| {
            let message = "the creator of this client can no longer give its scopes: an administrator must rotate it";
            Error::new(ErrorCode::InvalidClient).with_source("its maker lost the rights").with_message(message)
        })
    }

    /// All fields that decisions depend on, as text.
    pub fn digest_input(&self) -> String {
        let Self { client_key, is_active, hash, previous, scopes, .. } = self;
        let Self { allowed_origins, allowed_ips, allowed_paths, expires_at, rate_limit_per_min, maker, .. } = self;
        format!(
            "client {client_key} {is_active} {hash:?} {previous:?} {scopes:?} {allowed_origins:?} {allowed_ips:?} \
             {allowed_paths:?} {expires_at:?} {rate_limit_per_min:?} {maker:?}"
        )
    }

    /// Checks the restrictions of origin, address and path. An empty list allows everything.
    fn check_restrictions(&self, presented: &PresentedCredential<'_>) -> Result<()> {
        let in_list = |list: &[String], text: &str| list.iter().any(|entry| entry == text);
        if !self.allowed_origins.is_empty() && !presented.origin.is_some_and(|o| in_list(&self.allowed_origins, o)) {
            return Err(ErrorCode::OriginNotAllowed.into());
        }
        let is_allowed = |address: IpAddr| self.allowed_ips.iter().any(|net| net.contains(&address));
        if !self.allowed_ips.is_empty() && !presented.address.is_some_and(is_allowed) {
            return Err(ErrorCode::IpNotAllowed.into());
        }
        let lies_below = |entry: &String| match entry.strip_suffix("/*") {
            Some(top) => presented.path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => presented.path == entry,
        };
        if !self.allowed_paths.is_empty() && !self.allowed_paths.iter().any(lies_below) {
            return Err(ErrorCode::PathNotAllowed.into());
        }
        Ok(())
    }

    /// Counts one request. Returns the rate headers if the client has a limit; fails with `rate_limited` if none is
    /// left.
    pub fn take(&self, now: Timestamp) -> Result<Option<Rate>> {
        self.counters.last_used.store(now.0, Ordering::Relaxed);
        let (Some(limiter), Some(per_min)) = (&self.counters.limiter, self.rate_limit_per_min) else { return Ok(None) };
        let policy = format!("\"client\";q={per_min};w=60");
        match limiter.check() {
            Ok(snapshot) => {
                let left = snapshot.remaining_burst_capacity();
                let refill_s =
                    (u64::from(per_min.get() - left.min(per_min.get())) * 60).div_ceil(u64::from(per_min.get()));
                Ok(Some(Rate { policy, state: format!("\"client\";r={left};t={refill_s}") }))
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Error::new(ErrorCode::RateLimited)
                    .retry_after(seconds.max(1))
                    .header("RateLimit-Policy", policy)
                    .header("RateLimit", format!("\"client\";r=0;t={}", seconds.max(1))))
            }
        }
    }

    /// Whether one of the client's scopes covers this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| covers(held, scope))
    }
}

/// Whether the scope `held` covers `scope`. `:write` includes `:read`; `*` covers all scopes.
pub fn covers(held: &str, scope: &str) -> bool {
    let area = |scope: &str, right: &str| scope.strip_suffix(right).map(str::to_owned);
    held == "*" || held == scope || area(held, ":write").is_some_and(|held| area(scope, ":read") == Some(held))
}
