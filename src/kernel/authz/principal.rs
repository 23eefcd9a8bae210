//! The principal of a request, and what belongs to the request itself.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};

use super::client::{self, Client, Presented, Rate};
use super::key::{self, ApiKey};
use super::require_one_factor_enough;
use super::snapshot::{Session, Snapshot};
use crate::kernel::db::ReaderShare;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, SessionId, Timestamp};
use crate::kernel::intake::BodySlot;
use crate::kernel::secret::Hash;

#[derive(Debug, Clone)]
pub enum Principal {
    Member(MemberId),
    /// A member whom a gateway named; never with rights over the site.
    Asserted(MemberId),
    Client(Arc<Client>),
    /// The owner of an API key, within its scopes.
    Key(Arc<ApiKey>),
    Internal,
    /// Somebody who has shown nothing yet: who asks for a link, or registers.
    Visitor,
    /// The owner of the machine, over the local socket or directly on the data directory.
    CommandLine,
}

/// The context of one request.
#[derive(Debug)]
pub struct RequestContext {
    pub request_id: String,
    /// Where the request comes from; absent on the local socket.
    pub address: Option<IpAddr>,
    /// What was asked: the path, without its query.
    pub path: String,
    /// `Set-Cookie` values of the answer.
    cookies: Mutex<Vec<String>>,
    /// Values of `RateLimit-Policy` and `RateLimit`, once the request was counted.
    pub rate: OnceLock<(String, String)>,
    /// The caller, once it is known.
    pub(in crate::kernel) actor: OnceLock<Actor>,
    /// The tenant in which the caller acts, once it was asked for.
    pub tenant: OnceLock<OrganizationId>,
    /// What the caller sends along.
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

    /// With the body of the request.
    #[must_use]
    pub fn with_body(mut self, body: BodySlot) -> Self {
        self.body = body;
        self
    }

    /// Has the caller shown who it is?
    pub fn is_known(&self) -> bool {
        matches!(self.actor.get(), Some(Actor::Known(_)))
    }

    /// Sends a cookie along with the answer.
    pub fn set_cookie(&self, cookie: String) {
        if let Ok(mut cookies) = self.cookies.lock() {
            cookies.push(cookie);
        }
    }

    /// The cookies that the answer carries.
    pub fn take_cookies(&self) -> Vec<String> {
        self.cookies.lock().map(|mut cookies| std::mem::take(&mut *cookies)).unwrap_or_default()
    }
}

/// What the log, the audit and the metrics call an API client.
pub const CLIENT_KIND: &str = "client";

/// Who stands behind a request, as far as it came.
#[derive(Debug)]
pub(in crate::kernel) enum Actor {
    Known(Principal),
    /// The client that somebody said to be, and that there is. What names no client may be a secret that was sent in the
    /// wrong header: it is kept nowhere.
    TurnedAway(Arc<Client>),
}

impl RequestContext {
    /// Kind and name of the caller, for the log and the audit.
    pub fn actor(&self) -> (&'static str, String) {
        match self.actor.get() {
            Some(Actor::Known(who)) => who.actor(),
            Some(Actor::TurnedAway(client)) => (CLIENT_KIND, client.client_key.to_string()),
            None => ("nobody", String::new()),
        }
    }
}

tokio::task_local! {
    /// The request that the running task answers.
    static CURRENT: Arc<RequestContext>;
}

impl RequestContext {
    /// Does the work of this request.
    pub fn during<F: Future>(self: &Arc<Self>, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    /// The request whose work this is; `None` for the server's own.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// In whose turn rows are read for this request. Members of an organization share its part; a program has a part of its
    /// own, whichever organizations it names. All who have shown nothing yet share one, each address in its turn.
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

    /// Whose part of what all share this request takes: an organization's or a program's; none for the command line.
    pub fn party(&self, snapshot: &Snapshot) -> Option<String> {
        let turn = self.turn(snapshot);
        turn.is_limited.then_some(turn.party)
    }
}

impl Principal {
    /// The member who acts, if a member does.
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

/// A creating request that wants to happen once.
#[derive(Debug, Clone)]
pub struct Idempotency {
    pub key: String,
    /// Method, address, and whom the request is for.
    pub(in crate::kernel) about: [Vec<u8>; 4],
}

impl Idempotency {
    /// All that two requests have in common that are one.
    pub fn parts<'a>(&'a self, body: &'a [u8]) -> [&'a [u8]; 5] {
        let [method, uri, tenant, user] = &self.about;
        [method, uri, tenant, user, body]
    }
}

/// What of a credential can end while its request goes on.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Nothing: the command line, the site's own services, and anyone who proves to be somebody in the change itself (sign-ins,
    /// links, accepted invitations).
    Lasting,
    /// A token, of a session where there is one, or the word of a gateway.
    Token,
    /// The digest of an API key's text.
    Key(Hash),
    /// The digest of a client's secret, and for what it was shown.
    Client { secret: Hash, origin: Option<String>, path: String },
}

#[derive(Debug, Clone)]
pub struct Identity {
    pub principal: Principal,
    pub(in crate::kernel) credential: Credential,
    /// The session that the request belongs to, where there is one.
    pub session: Option<SessionId>,
    /// The tenant that `X-Tenant-ID` names; the nil id when it names none there is.
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

    /// Somebody who is known by other means than the request's own credential: by signing in just now.
    pub fn new(who: Principal, context: Arc<RequestContext>) -> Self {
        Self {
            principal: who,
            credential: Credential::Lasting,
            session: None,
            named_tenant: None,
            context: context,
            idempotency: None,
        }
    }

    /// A service of this site that has just shown its key.
    pub fn service(context: Arc<RequestContext>) -> Self {
        let _ = context.actor.set(Actor::Known(Principal::Internal));
        Self::new(Principal::Internal, context)
    }

    /// Who promised something, as a caller of this moment. It stands for no request, so that it counts against no rate.
    pub fn of_maker(who: Principal, named_tenant: Option<OrganizationId>) -> Self {
        let context = RequestContext::new(String::new(), None, String::new());
        let _ = context.rate.set((String::new(), String::new()));
        Self { named_tenant, ..Self::new(who, Arc::new(context)) }
    }

    /// The member who acts, if a member does.
    pub fn member(&self) -> Option<MemberId> {
        self.principal.member()
    }

    /// The member who is signed in; the command line is nobody.
    pub fn signed_in(&self) -> Result<MemberId> {
        self.member().ok_or_else(|| Error::new(ErrorCode::MissingBearer))
    }

    /// The caller as it is in this snapshot, with the scopes of today; fails when its credential has ended since it was shown.
    pub fn as_of(&self, snapshot: &Snapshot, now: Timestamp) -> Result<Self> {
        let ended = || {
            Error::new(ErrorCode::Unauthenticated).with_source("the credential ended while the request was on its way")
        };
        let who = match (&self.principal, &self.credential) {
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
            (Principal::Key(key), Credential::Key(text)) => Principal::Key(key::still(snapshot, key, text, now)?),
            (Principal::Client(client), Credential::Client { secret, origin, path }) => {
                let (address, origin) = (self.context.address, origin.as_deref());
                let presented = Presented { secret: *secret, origin, address, path, now };
                Principal::Client(client::admitted(snapshot, &client.client_key, &presented)?)
            }
            _ => self.principal.clone(),
        };
        Ok(Self { principal: who, ..self.clone() })
    }

    /// The tenant in which the caller acts: the one it names, or the only one it has.
    pub fn tenant(&self, snapshot: &Snapshot) -> Result<OrganizationId> {
        let tenant = self.resolved_tenant(snapshot)?;
        // Asked for twice, it is the same.
        let _ = self.context.tenant.set(tenant);
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
            return Err(ErrorCode::NotAMember.into());
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

    /// Kind and name of the actor, for the audit.
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

/// Counts a request of a client; called by the guard once the scope is known to fit.
///
/// The guard may look twice at one request (before and inside the transaction); it counts once.
pub fn take(identity: &Identity) -> Result<()> {
    if identity.context.rate.get().is_none()
        && let Principal::Client(client) = &identity.principal
        && let Some(Rate { policy, state }) = client.take(Timestamp::now())?
    {
        // It was empty a moment ago, and one request runs on one task.
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
    use crate::kernel::authz::snapshot::{Change, Status};

    #[test]
    fn rows_are_read_in_the_turn_of_an_organization_a_program_or_a_stranger() {
        let mut snapshot = Snapshot::empty(1);
        let [member, wanderer] = [MemberId::new(), MemberId::new()];
        let [acme, bolt] = [OrganizationId::new(), OrganizationId::new()];
        for (id, org_code) in [(acme, "acme"), (bolt, "bolt")] {
            let org_code = org_code.into();
            snapshot.apply(Change::Tenant { id, org_code, is_active: true, requires_second_factor: false });
        }
        for (member, organizations) in [(member, vec![acme]), (wanderer, vec![acme, bolt])] {
            snapshot.apply(Change::Member(member, Status::Active));
            for organization in organizations {
                snapshot.apply(Change::Membership(organization, member, Some(Vec::new())));
            }
        }
        let turn = |who: Option<Principal>, address: &str, tenant: Option<OrganizationId>| {
            let context = RequestContext::new(String::new(), address.parse().ok(), String::new());
            who.map(|who| context.actor.set(Actor::Known(who)));
            tenant.map(|tenant| context.tenant.set(tenant));
            let ReaderShare { party, caller, is_limited } = context.turn(&snapshot);
            (party, caller, is_limited)
        };
        let told = |party: String, caller: String| (party, caller, true);
        let one = |member: MemberId| format!("member {member}");
        let of = |organization: OrganizationId| format!("organization {organization}");
        assert_eq!(turn(Some(Principal::Member(member)), "", None), told(of(acme), one(member)));
        assert_eq!(turn(Some(Principal::Asserted(member)), "", None), told(of(acme), format!("gateway {member}")));
        // Of several organizations the one in which the request acts, once that is known.
        assert_eq!(turn(Some(Principal::Member(wanderer)), "", None), told(one(wanderer), one(wanderer)));
        assert_eq!(turn(Some(Principal::Member(wanderer)), "", Some(bolt)), told(of(bolt), one(wanderer)));
        // A program names as many as it likes.
        let internal = "internal internal".to_owned();
        assert_eq!(turn(Some(Principal::Internal), "", Some(acme)), told(internal.clone(), internal));
        assert_eq!(turn(Some(Principal::CommandLine), "", None), ("cli cli".into(), "cli cli".into(), false));
        for (address, name) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::1:2:3:4", "2001:db8::"), ("", "nowhere")] {
            assert_eq!(turn(None, address, None), told("strangers".into(), name.into()));
        }
    }
}
