//! The principal of a request, its credential, and the context of the request.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};

use super::client::{self, Client, PresentedCredential, Rate};
use super::key::{self, ApiKey};
use super::require_one_factor_enough;
use super::snapshot::{Session, Snapshot};
use crate::kernel::db::ReaderShare;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, SessionId, Timestamp};
use crate::kernel::intake::BodySlot;
use crate::kernel::secret::Hash;

/// The authenticated caller of a request.
#[derive(Debug, Clone)]
pub enum Principal {
    Member(MemberId),
    /// A member whom a trusted gateway asserts; it never has rights over the site.
    Asserted(MemberId),
    Client(Arc<Client>),
    /// The owner of an API key, within its scopes.
    Key(Arc<ApiKey>),
    /// A service of this site with the internal secret.
    Internal,
    /// An unauthenticated caller, for example one that requests a link or registers.
    Visitor,
    /// The command line of the machine's owner, over the local socket or directly on the data directory.
    CommandLine,
}

/// The context of one request.
#[derive(Debug)]
pub struct RequestContext {
    pub request_id: String,
    /// The client address; `None` on the local socket.
    pub address: Option<IpAddr>,
    /// The requested path without its query.
    pub path: String,
    /// The `Set-Cookie` values of the response.
    cookies: Mutex<Vec<String>>,
    /// The values of `RateLimit-Policy` and `RateLimit`, after the request was counted.
    pub rate: OnceLock<(String, String)>,
    /// The caller, once it is known.
    pub(in crate::kernel) actor: OnceLock<Actor>,
    /// The tenant in which the caller acts, after it was resolved.
    pub tenant: OnceLock<OrganizationId>,
    /// The body of the request.
    pub body: BodySlot,
}

impl RequestContext {
    pub fn new(request_id: String, address: Option<IpAddr>, path: String) -> Self {
        Self {
            request_id,
            address,
            path,
            cookies: Mutex::default(),
            rate: OnceLock::new(),
            actor: OnceLock::new(),
            tenant: OnceLock::new(),
            body: BodySlot::default(),
        }
    }

    /// Sets the body of the request.
    #[must_use]
    pub fn with_body(mut self, body: BodySlot) -> Self {
        self.body = body;
        self
    }

    /// Whether the caller is authenticated.
    pub fn is_known(&self) -> bool {
        matches!(self.actor.get(), Some(Actor::Known(_)))
    }

    /// Adds a `Set-Cookie` value to the response.
    pub fn set_cookie(&self, cookie: String) {
        if let Ok(mut cookies) = self.cookies.lock() {
            cookies.push(cookie);
        }
    }

    /// Takes the `Set-Cookie` values of the response.
    pub fn take_cookies(&self) -> Vec<String> {
        self.cookies.lock().map(|mut cookies| std::mem::take(&mut *cookies)).unwrap_or_default()
    }
}

/// The actor kind of API clients in the log, the audit log and the metrics.
pub const CLIENT_KIND: &str = "client";

/// The actor of a request, for the log and the audit log.
#[derive(Debug)]
pub(in crate::kernel) enum Actor {
    Known(Principal),
    /// An existing client whose authentication failed. A value that names no client is not stored anywhere, because it
    /// can be a secret that was sent in the wrong header.
    Rejected(Arc<Client>),
}

impl RequestContext {
    /// Kind and name of the caller, for the log and the audit log.
    pub fn actor(&self) -> (&'static str, String) {
        match self.actor.get() {
            Some(Actor::Known(who)) => who.actor(),
            Some(Actor::Rejected(client)) => (CLIENT_KIND, client.client_key.to_string()),
            None => ("nobody", String::new()),
        }
    }
}

tokio::task_local! {
    /// The request that the current task serves.
    static CURRENT: Arc<RequestContext>;
}

impl RequestContext {
    /// Runs `work` with this request as the current one.
    pub fn scope<F: Future>(self: &Arc<Self>, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    /// The request that the current task serves; `None` in the server's own tasks.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The share of the database readers that this request uses. Members of an organization use the share of the
    /// organization. A program has its own share, independent of the organizations that it names. All unauthenticated
    /// callers use one share, in which addresses take turns.
    pub fn turn(&self, snapshot: &Snapshot) -> ReaderShare {
        let Some(Actor::Known(who)) = self.actor.get() else {
            let address = self.address.map(network_of);
            let caller = address.map_or_else(|| "nowhere".into(), |address| address.to_string());
            return ReaderShare { party: "strangers".into(), caller, is_limited: true };
        };
        let (kind, name) = who.actor();
        let caller = format!("{kind} {name}");
        let organization = who.member().and_then(|member| {
            let only = snapshot.only_tenant(member).map(|tenant| tenant.id);
            only.or_else(|| self.tenant.get().copied())
        });
        match organization {
            Some(organization) => {
                ReaderShare { party: format!("organization {organization}"), caller, is_limited: true }
            }
            None => ReaderShare::alone(caller, !matches!(who, Principal::CommandLine)),
        }
    }

    /// The party whose share of common resources this request uses: an organization, a program, or all unauthenticated
    /// callers. `None` for the command line.
    pub fn party(&self, snapshot: &Snapshot) -> Option<String> {
        let share = self.turn(snapshot);
        share.is_limited.then_some(share.party)
    }
}

impl Principal {
    /// The acting member, if the principal is one.
    fn member(&self) -> Option<MemberId> {
        match self {
            Self::Member(id) | Self::Asserted(id) => Some(*id),
            Self::Key(key) => key.member(),
            Self::Client(_) | Self::Internal | Self::Visitor | Self::CommandLine => None,
        }
    }

    fn actor(&self) -> (&'static str, String) {
        match self {
            Self::Member(id) => ("member", id.to_string()),
            Self::Asserted(id) => ("gateway", id.to_string()),
            Self::Client(client) => (CLIENT_KIND, client.client_key.to_string()),
            Self::Key(key) => ("key", key.id.to_string()),
            Self::Internal => ("internal", "internal".into()),
            Self::Visitor => ("visitor", String::new()),
            Self::CommandLine => ("cli", "cli".into()),
        }
    }
}

/// The idempotency of a creating request that has an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct Idempotency {
    pub key: String,
    /// Method, URI, `X-Tenant-ID` and `X-SFTPGo-User`.
    pub(in crate::kernel) about: [Vec<u8>; 4],
}

impl Idempotency {
    /// The parts that two requests must have in common to be the same request.
    pub fn parts<'a>(&'a self, body: &'a [u8]) -> [&'a [u8]; 5] {
        let [method, uri, tenant, user] = &self.about;
        [method, uri, tenant, user, body]
    }
}

/// The part of a credential that must be checked again when the request changes something, because it can end
/// meanwhile.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nothing: the command line, the site's own services, and callers that authenticate in the change itself
    /// (sign-ins, links, accepted invitations).
    Permanent,
    /// A token, of a session if there is one, or the assertion of a gateway.
    Token,
    /// The digest of an API key's text.
    Key(Hash),
    /// The digest of a client's secret, with the origin and the path of the request.
    Client { secret: Hash, origin: Option<String>, path: String },
}

/// The caller of a request: principal, credential and context.
#[derive(Debug, Clone)]
pub struct Identity {
    pub principal: Principal,
    pub(in crate::kernel) credential: Credential,
    /// The session that the request belongs to, if any.
    pub session: Option<SessionId>,
    /// The tenant that `X-Tenant-ID` names; the nil id if there is no such tenant.
    pub named_tenant: Option<OrganizationId>,
    pub context: Arc<RequestContext>,
    pub idempotency: Option<Arc<Idempotency>>,
}

impl Identity {
    pub fn command_line() -> Self {
        Self::new(
            Principal::CommandLine,
            Arc::new(RequestContext::new(uuid::Uuid::now_v7().to_string(), None, String::new())),
        )
    }

    /// A caller that was authenticated by other means than the request's credential, for example by signing in.
    pub fn new(principal: Principal, context: Arc<RequestContext>) -> Self {
        Self {
            principal,
            credential: Credential::Permanent,
            session: None,
            named_tenant: None,
            context,
            idempotency: None,
        }
    }

    /// A service of this site whose key was just verified.
    pub fn service(context: Arc<RequestContext>) -> Self {
        let _ = context.actor.set(Actor::Known(Principal::Internal));
        Self::new(Principal::Internal, context)
    }

    /// The maker of a deferred grant as a caller. It has no request, so it is not counted against a rate limit.
    pub fn of_maker(principal: Principal, named_tenant: Option<OrganizationId>) -> Self {
        let context = RequestContext::new(String::new(), None, String::new());
        let _ = context.rate.set((String::new(), String::new()));
        Self { named_tenant, ..Self::new(principal, Arc::new(context)) }
    }

    /// The acting member, if the principal is one.
    pub fn member(&self) -> Option<MemberId> {
        self.principal.member()
    }

    /// The acting member. Fails with `missing_bearer` for programs and the command line.
    pub fn signed_in(&self) -> Result<MemberId> {
        self.member().ok_or_else(|| Error::new(ErrorCode::MissingBearer))
    }

    /// The caller as of this snapshot, with its current scopes. Fails if its credential has ended since it was
    /// presented.
    pub fn as_of(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Self> {
        let ended = || Error::new(ErrorCode::Unauthenticated).with_source("the credential ended during the request");
        let principal = match (&self.principal, &self.credential) {
            (Principal::Member(member), Credential::Token) => {
                if !snapshot.is_active(*member) {
                    return Err(ended());
                }
                let is_own = |session: &Session| session.member == *member;
                let session = |id| snapshot.session(id).filter(is_own).ok_or_else(ended);
                if !self.session.map(session).transpose()?.is_some_and(|session| session.second_factor) {
                    require_one_factor_enough(snapshot, *member)?;
                }
                self.principal.clone()
            }
            (Principal::Asserted(member), Credential::Token) if !snapshot.is_active(*member) => return Err(ended()),
            (Principal::Key(key), Credential::Key(text)) => Principal::Key(key::revalidate(snapshot, key, text, now)?),
            (Principal::Client(client), Credential::Client { secret, origin, path }) => {
                let (address, origin) = (self.context.address, origin.as_deref());
                let presented = PresentedCredential { secret: *secret, origin, address, path, now };
                Principal::Client(client::authenticate(snapshot, &client.client_key, &presented)?)
            }
            _ => self.principal.clone(),
        };
        Ok(Self { principal, ..self.clone() })
    }

    /// The tenant in which the caller acts: the named one, the member's only one, or `platform` for a member of it.
    pub fn tenant(&self, snapshot: &Snapshot) -> Result<OrganizationId> {
        let tenant = self.resolved_tenant(snapshot)?;
        // A second call resolves to the same tenant.
        let _ = self.context.tenant.set(tenant);
        Ok(tenant)
    }

    fn resolved_tenant(&self, snapshot: &Snapshot) -> Result<OrganizationId> {
        if let Some(named) = self.named_tenant {
            return self.named(snapshot, named);
        }
        let Some(member) = self.member() else {
            return Err(Error::header_field("X-Tenant-ID", "name the organization, by id or org_code"));
        };
        if let Some(only) = snapshot.only_tenant(member) {
            return Ok(only.id);
        }
        if snapshot.belongs_nowhere(member) {
            return Err(ErrorCode::NotAMember.into());
        }
        match snapshot.platform().filter(|platform| platform.set_of(member).is_some()) {
            Some(platform) => Ok(platform.id),
            None => Err(Error::header_field(
                "X-Tenant-ID",
                "you belong to several organizations: name one, by id or org_code",
            )),
        }
    }

    /// The named tenant, if it is visible to this caller. A foreign tenant fails like a missing one.
    fn named(&self, snapshot: &Snapshot, named: OrganizationId) -> Result<OrganizationId> {
        let tenant = snapshot.tenant(named).ok_or(ErrorCode::OrganizationNotFound)?;
        let of_member = |id| tenant.set_of(id).is_some() && !snapshot.is_platform(tenant.id);
        let visible = match self.principal {
            Principal::Member(id) => tenant.set_of(id).is_some() || snapshot.is_platform_admin(id),
            Principal::Asserted(id) => of_member(id),
            Principal::Key(ref key) => key.member().is_none_or(of_member),
            Principal::Visitor => false,
            Principal::Client(_) | Principal::Internal | Principal::CommandLine => true,
        };
        if visible { Ok(tenant.id) } else { Err(ErrorCode::OrganizationNotFound.into()) }
    }

    /// Kind and name of the actor, for the audit log.
    pub fn actor(&self) -> (&'static str, String) {
        self.principal.actor()
    }

    pub fn address(&self) -> String {
        match (&self.principal, self.context.address) {
            (Principal::CommandLine, _) => "local".into(),
            (_, Some(address)) => address.to_string(),
            (_, None) => "unknown".into(),
        }
    }
}

/// Counts a request of a client against its rate limit. The guard calls it after the scope check.
///
/// The guard can check one request twice (before and inside of the transaction); the request is counted once.
pub fn take(identity: &Identity) -> Result<()> {
    if identity.context.rate.get().is_none()
        && let Principal::Client(client) = &identity.principal
        && let Some(Rate { policy, state }) = client.take(Timestamp::now())?
    {
        // It was empty above, and a request runs on one task.
        let _ = identity.context.rate.set((policy, state));
    }
    Ok(())
}

/// A client with one IPv6 address controls its whole /64, so a /64 counts as one address.
pub fn network_of(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> HOST_BITS << HOST_BITS).into()),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::authz::snapshot::{Change, MemberStatus};

    #[test]
    fn readers_are_shared_by_organization_program_or_unauthenticated_address() {
        let mut snapshot = Snapshot::empty(1);
        let [member, multi_member] = [MemberId::new(), MemberId::new()];
        let [acme, bolt] = [OrganizationId::new(), OrganizationId::new()];
        for (id, org_code) in [(acme, "acme"), (bolt, "bolt")] {
            let org_code = org_code.into();
            snapshot.apply(Change::Tenant { id, org_code, is_active: true, requires_second_factor: false });
        }
        for (member, organizations) in [(member, vec![acme]), (multi_member, vec![acme, bolt])] {
            snapshot.apply(Change::Member(member, MemberStatus::Active));
            for organization in organizations {
                snapshot.apply(Change::Membership(organization, member, Some(Vec::new())));
            }
        }
        let share_of = |principal: Option<Principal>, address: &str, tenant: Option<OrganizationId>| {
            let context = RequestContext::new(String::new(), address.parse().ok(), String::new());
            principal.map(|principal| context.actor.set(Actor::Known(principal)));
            tenant.map(|tenant| context.tenant.set(tenant));
            let ReaderShare { party, caller, is_limited } = context.turn(&snapshot);
            (party, caller, is_limited)
        };
        let limited = |party: String, caller: String| (party, caller, true);
        let one = |member: MemberId| format!("member {member}");
        let of = |organization: OrganizationId| format!("organization {organization}");
        assert_eq!(share_of(Some(Principal::Member(member)), "", None), limited(of(acme), one(member)));
        assert_eq!(
            share_of(Some(Principal::Asserted(member)), "", None),
            limited(of(acme), format!("gateway {member}"))
        );
        // With several organizations, it is the one in which the request acts, after that is resolved.
        assert_eq!(
            share_of(Some(Principal::Member(multi_member)), "", None),
            limited(one(multi_member), one(multi_member))
        );
        assert_eq!(
            share_of(Some(Principal::Member(multi_member)), "", Some(bolt)),
            limited(of(bolt), one(multi_member))
        );
        // A program uses its own share, independent of the organization that it names.
        let internal = "internal internal".to_owned();
        assert_eq!(share_of(Some(Principal::Internal), "", Some(acme)), limited(internal.clone(), internal));
        assert_eq!(share_of(Some(Principal::CommandLine), "", None), ("cli cli".into(), "cli cli".into(), false));
        for (address, name) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::1:2:3:4", "2001:db8::"), ("", "nowhere")] {
            assert_eq!(share_of(None, address, None), limited("strangers".into(), name.into()));
        }
    }
}
