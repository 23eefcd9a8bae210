//! Sessions: sign-in, refresh and sign-out.
//!
//! **Invariant.** [`open_session`] is the only function that creates a session, for every sign-in method. It alone checks
//! whether the member is active, whether a second factor is due, and whether a remembered device stands for it.
//! [`refresh_session`] is the only function that refreshes a session.
//!
//! A refresh token works once. Its successor is derived from it, so the same token gives the same successor for a short
//! time (two tabs may refresh at once) although no successor is stored. Later reuse ends the session.

pub mod api;
pub mod credential_check;
pub mod device_store;
pub mod jit_provisioning;
pub mod oidc;
pub mod passwords;
pub mod registration;
pub mod second_factor;
pub mod store;
pub mod token_answer;
pub mod trusted_devices;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::features::members::{self, password};
use crate::features::{api_keys, invitations};
use crate::kernel::app::{App, Changed, Occurrence, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{BoxFuture, SessionBackend, Visitor};
use crate::kernel::authn::cookie;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authn::token::TokenSubject;
use crate::kernel::authz;
use crate::kernel::authz::key::ApiKey;
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::{Change, Session};
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, SessionId, Timestamp};
use crate::kernel::secret::{self, Hash, KeyedDigest};
use store::SessionRow;
use trusted_devices::{NewDevice, use_presented};

pub use store::SECRET;
pub use store::{consume_once, is_consumed};

/// Ends a member's sessions except `kept`, with all tokens that name them, and the member's unfinished sign-ins. Forgets
/// all remembered devices of the member.
pub fn end_sessions(t: &Transaction<'_>, member: MemberId, kept: Option<SessionId>) -> Result<Vec<Change>> {
    device_store::delete_all(t, member)?;
    Ok(store::end_sessions(t, member, kept)?.into_iter().map(|id| Change::Session(id, None)).collect())
}

/// Ends sessions and deletes one-time tokens after a change of a member's account, password or e-mail address.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::EmailChanged(member) => store::delete_mailed_tokens(t, *member).map(|()| Vec::new()),
        Occurrence::RegistrationDeleted(member) => store::delete_all_tokens(t, *member).map(|()| Vec::new()),
        Occurrence::MemberSuspended(member) | Occurrence::PasswordWithdrawn(member) => end_sessions(t, *member, None),
        Occurrence::PasswordSet { member, kept, .. } => {
            store::delete_all_tokens(t, *member)?;
            end_sessions(t, *member, *kept)
        }
        Occurrence::MemberErased(member) => {
            store::delete_all_tokens(t, *member)?;
            store::delete_factor(t, *member)?;
            end_sessions(t, *member, None)
        }
        Occurrence::LinkWithdrawn(hash) => store::delete_token(t, hash).map(|()| Vec::new()),
        _ => Ok(Vec::new()),
    }
}

/// The result of a sign-in or a refresh.
#[derive(Debug)]
pub struct Tokens {
    pub access_token: String,
    pub expires_in_s: i64,
    pub refresh_token: String,
    pub refresh_expires_in_s: i64,
    pub session: SessionId,
}

impl Tokens {
    /// Sets the tokens as cookies.
    pub fn set_cookies(&self, app: &App, context: &RequestContext) {
        let session = self.session.to_string();
        let all =
            [(cookie::ACCESS, &self.access_token), (cookie::REFRESH, &self.refresh_token), (cookie::SESSION, &session)];
        for (name, value) in all {
            context.set_cookie(app.guard.cookies.set(name, value, self.refresh_expires_in_s));
        }
    }
}

/// Clears the session cookies.
pub fn clear_cookies(app: &App, context: &RequestContext) {
    for name in [cookie::ACCESS, cookie::REFRESH, cookie::SESSION] {
        context.set_cookie(app.guard.cookies.set(name, "", 0));
    }
}

/// Signs a member in with a password. An unknown login, a suspended member and a wrong password take the same work and
/// get the same answer.
pub async fn sign_in(app: &App, visitor: &Visitor, login: String, password: String) -> Result<Tokens> {
    let folded = members::folded(&login);
    let address = visitor.context.address.map(|address| address.to_string()).unwrap_or_default();
    let find = move |r: &crate::kernel::db::Reader<'_>| {
        let found = members::find_login(r, &login)?;
        let is_known = match &found {
            Some(login) => store::is_signed_in_at(r, login.member.id, &address)?,
            None => false,
        };
        Ok((found, is_known))
    };
    let (found, is_known) = app.read(find).await?;
    // E-mail and username of one member count as one account for throttling.
    let account = found.as_ref().map_or(folded, |login| login.member.id.to_string());
    let attempt = Attempt::new(&account, visitor.context.address);
    let stored = found.as_ref().and_then(|login| login.password_hash.clone());
    let verified = verify_password(app, (attempt, is_known), password.clone(), stored.clone()).await?;
    match found.filter(|login| verified.fits && login.member.is_active()) {
        Some(login) => {
            let id = login.member.id;
            let former = stored.clone();
            // If the password changed while this one was hashed, the old password is no longer valid.
            let require_unchanged = move |t: &Transaction<'_>| match members::password_hash(t, id)? == former {
                true => members::require_password_kept(t, id).map_err(|_| {
                    Error::new(ErrorCode::InvalidLogin)
                        .with_source("the caller who set this password has lost the right to set it")
                }),
                false => Err(ErrorCode::InvalidLogin.into()),
            };
            let sign_in = SignIn::new(id, "password", VerifiedFactors::OneFactor);
            let opened = open_while(app, visitor, sign_in, require_unchanged).await;
            // The password was right, even where a second factor is still due.
            if let Some(former) = stored.filter(|_| verified.is_outdated) {
                passwords::renew_hash(app, id, password, former).await;
            }
            let tokens = opened?;
            app.guard.login_throttle.record_success(attempt);
            Ok(tokens)
        }
        None => {
            app.guard.login_throttle.record_failure(attempt, Timestamp::now());
            Err(ErrorCode::InvalidLogin.into())
        }
    }
}

/// Verifies an offered password. Fails with `too_many_failures` if the attempt is throttled. `is_known`: the member has
/// a session from this address. The caller records the result, which can depend on more than the password.
async fn verify_password(
    app: &App,
    (attempt, is_known): (Attempt, bool),
    offered: String,
    stored: Option<String>,
) -> Result<password::Verified> {
    let guard = app.guard.clone();
    let check_throttle = move || guard.login_throttle.check(attempt, is_known, Timestamp::now());
    // Checked before waiting for a hash slot and again after: other attempts may have failed meanwhile.
    check_throttle()?;
    password::verify(app, offered, stored, check_throttle).await
}

/// The factors that a sign-in has verified so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifiedFactors {
    OneFactor,
    BothFactors,
}

enum Opened {
    Session(Box<SessionRow>),
    /// A second factor is due; the token must be sent with its code.
    Challenge {
        token: String,
        is_enrolled: bool,
    },
}

/// A sign-in that is about to open a session.
struct SignIn {
    member: MemberId,
    method: String,
    shown: VerifiedFactors,
    /// The device to remember.
    device: Option<NewDevice>,
}

impl SignIn {
    fn new(member: MemberId, method: &str, shown: VerifiedFactors) -> Self {
        Self { member, method: method.to_owned(), shown, device: None }
    }
}

/// Opens a session for a member who was just authenticated. Fails with a challenge when a second factor is due.
pub async fn open_session(
    app: &App,
    visitor: &Visitor,
    member: MemberId,
    method: &str,
    shown: VerifiedFactors,
) -> Result<Tokens> {
    open_while(app, visitor, SignIn::new(member, method, shown), |_| Ok(())).await
}

/// Like [`open_session`], with an additional check inside the transaction.
async fn open_while(
    app: &App,
    visitor: &Visitor,
    sign_in: SignIn,
    check: impl FnOnce(&Transaction<'_>) -> Result<()> + Send + 'static,
) -> Result<Tokens> {
    let (refresh_token, challenge) = (secret::token("rt_")?, secret::token("ch_")?);
    let config = app.config.clone();
    let refresh_hash = secret::hash(&refresh_token);
    let (context, visitor, member) = (visitor.context.clone(), visitor.clone(), sign_in.member);
    let begin = move |t: &Transaction<'_>, caller: &Identity| {
        if !t.snapshot().is_active(member) {
            return Err(ErrorCode::InvalidLogin.into());
        }
        check(t)?;
        let is_enrolled = second_factor::is_confirmed(t, member)?;
        let is_due =
            sign_in.shown == VerifiedFactors::OneFactor && (is_enrolled || t.snapshot().requires_second_factor(member));
        // Without a factor, none can have been verified on the device.
        let trusted = if is_due && is_enrolled { use_presented(t, &visitor, member, &config)? } else { None };
        if is_due && trusted.is_none() {
            second_factor::insert_challenge(t, &challenge, member, &sign_in.method, &config)?;
            return Ok(Changed::unchanged(Opened::Challenge { token: challenge, is_enrolled }));
        }
        let second_factor = sign_in.shown == VerifiedFactors::BothFactors || trusted.is_some();
        let row = new_session(t, caller, &config, (&sign_in, second_factor), (refresh_hash, &visitor.agent));
        let mut after = json!({"method": row.method, "second_factor": row.second_factor, "member": member});
        if let Some(device) = trusted {
            after["trusted_device"] = json!(device);
        }
        if let Some(device) = &sign_in.device {
            device.insert(t, member, &row.device, &config)?;
            after["remembered_device"] = json!(device.id);
        }
        let ended = store::end_oldest(t, member, config.sessions_max)?;
        let mut changes: Vec<Change> = ended.into_iter().map(|id| Change::Session(id, None)).collect();
        store::insert_session(t, &row)?;
        changes.push(Change::Session(row.id, Some(Session { member, second_factor: row.second_factor })));
        let entry = Entry::new("session", row.id).after(after);
        Ok(Changed::new(Opened::Session(Box::new(row)), entry).with_policy_changes(changes))
    };
    let caller = Identity::new(Principal::Member(member), context);
    match app.change(&caller, "session.create", begin).await?.answer {
        Opened::Session(row) => tokens(app, &row, refresh_token),
        Opened::Challenge { token, is_enrolled } => Err(second_factor::challenge_error(token, is_enrolled)),
    }
}

fn new_session(
    t: &Transaction<'_>,
    caller: &Identity,
    config: &Config,
    (sign_in, second_factor): (&SignIn, bool),
    (refresh_hash, agent): (Hash, &str),
) -> SessionRow {
    let ends_at = t.now().plus_ms(seconds_to_ms(config.session_ttl_s));
    SessionRow {
        id: SessionId::new(),
        member: sign_in.member,
        method: sign_in.method.clone(),
        second_factor,
        refresh_hash,
        refresh_generation: 0,
        rotated_at: t.now(),
        expires_at: t.now().plus_ms(seconds_to_ms(config.session_idle_s)).min(ends_at),
        ends_at,
        device: device_of(agent),
        address: caller.address(),
        created_at: t.now(),
    }
}

fn tokens(app: &App, row: &SessionRow, refresh_token: String) -> Result<Tokens> {
    let now = Timestamp::now();
    let named = TokenSubject { member: row.member, session: row.id };
    let (access_token, expires_in_s) = app.guard.keys.load().issue(named, now, row.ends_at)?;
    let refresh_expires_in_s = (row.expires_at.0 - now.0 + 999) / 1_000;
    Ok(Tokens { access_token, expires_in_s, refresh_token, refresh_expires_in_s, session: row.id })
}

enum Renewed {
    With(Box<SessionRow>, String),
    /// The token is neither the current nor the previous one of this session, or the grace period is over.
    Other(Box<SessionRow>),
}

/// Renews a browser's session: sets new cookies, or clears them when they are invalid.
pub async fn renew_cookies(
    app: &App,
    context: &Arc<RequestContext>,
    session: SessionId,
    refresh: &str,
) -> Result<Tokens> {
    let renewed = refresh_session(app, context, session, refresh).await;
    match &renewed {
        Ok(tokens) => tokens.set_cookies(app, context),
        Err(error) if error.code.status() == 401 => clear_cookies(app, context),
        Err(_) => {}
    }
    renewed
}

/// Renews a session: consumes the refresh token and returns its successor.
pub async fn refresh_session(
    app: &App,
    context: &Arc<RequestContext>,
    session: SessionId,
    refresh: &str,
) -> Result<Tokens> {
    // Most invalid tokens are rejected before they reach the writer.
    let known =
        app.snapshot().session(session).filter(|_| refresh.len() == REFRESH_BYTES).ok_or(ErrorCode::InvalidRefresh)?;
    let (sealer, config, offered) = (app.sealer, app.config.clone(), refresh.to_owned());
    let rotate = move |t: &Transaction<'_>, _: &Identity| {
        let mut row = store::find_session(t, session)?.ok_or(ErrorCode::InvalidRefresh)?;
        let now = t.now();
        if now >= row.expires_at || !t.snapshot().is_active(row.member) {
            return Err(ErrorCode::InvalidRefresh.into());
        }
        if !row.second_factor {
            authz::require_one_factor_enough(t.snapshot(), row.member)?;
        }
        let next = successor(&sealer, row.id, &offered);
        let is_current = secret::equal(&secret::hash(&offered), &row.refresh_hash);
        let is_former = secret::equal(&secret::hash(&next), &row.refresh_hash);
        if is_current {
            row.refresh_hash = secret::hash(&next);
            row.refresh_generation += 1;
            row.rotated_at = now;
            row.expires_at = now.plus_ms(seconds_to_ms(config.session_idle_s)).min(row.ends_at);
            store::rotate(t, &row)?;
        } else if !(is_former && now < row.rotated_at.plus_ms(seconds_to_ms(config.refresh_grace_s))) {
            return Ok(Changed::unchanged(Renewed::Other(Box::new(row))));
        }
        Ok(Changed::unchanged(Renewed::With(Box::new(row), next)))
    };
    let caller = Identity::new(Principal::Member(known.member), context.clone());
    match app.change(&caller, "session.renew", rotate).await?.answer {
        Renewed::With(row, refresh_token) => tokens(app, &row, refresh_token),
        Renewed::Other(row) if was_valid(&app.sealer, &row, refresh) => {
            end_reused(app, &caller, session).await?;
            Err(ErrorCode::RefreshReused.into())
        }
        Renewed::Other(_) => Err(ErrorCode::InvalidRefresh.into()),
    }
}

/// `rt_` and 32 bytes.
const REFRESH_BYTES: usize = 46;

/// A used refresh token was sent again: someone has a copy, so the session ends.
async fn end_reused(app: &App, caller: &Identity, session: SessionId) -> Result<()> {
    let end = move |t: &Transaction<'_>, _: &Identity| {
        let Some(row) = store::find_session(t, session)? else { return Ok(Changed::unchanged(())) };
        store::delete_session(t, row.id)?;
        let after = json!({"reason": "a used refresh token was sent again", "member": row.member});
        let entry = Entry::new("session", row.id).after(after);
        Ok(Changed::new((), entry).with_policy_changes([Change::Session(row.id, None)]))
    };
    app.change(caller, "session.end_reused", end).await.map(drop)
}

/// Derives the successor of a refresh token. The database holds neither token, only a hash.
fn successor(sealer: &KeyedDigest, session: SessionId, refresh: &str) -> String {
    let derived = sealer.digest("refresh", &[session.0.as_bytes(), refresh.as_bytes()]);
    format!("rt_{}", URL_SAFE_NO_PAD.encode(derived))
}

/// Whether this is one of the last `LOOK_BACK_MAX` refresh tokens of the session.
fn was_valid(sealer: &KeyedDigest, row: &SessionRow, refresh: &str) -> bool {
    const LOOK_BACK_MAX: u64 = 256;
    let mut token = refresh.to_owned();
    (0..row.refresh_generation.min(LOOK_BACK_MAX)).any(|_| {
        token = successor(sealer, row.id, &token);
        secret::equal(&secret::hash(&token), &row.refresh_hash)
    })
}

/// Fails with `InvalidBearer` when the caller was signed out while a change of its credentials was prepared.
fn require_signed_in(t: &Transaction<'_>, member: MemberId, session: SessionId) -> Result<()> {
    let is_open = t.snapshot().session(session).is_some_and(|session| session.member == member);
    if is_open && t.snapshot().is_active(member) { Ok(()) } else { Err(ErrorCode::InvalidBearer.into()) }
}

/// Ends one session of a member. Fails with `SessionNotFound` if the member has no such session.
pub async fn end_session(app: &App, caller: &Identity, member: MemberId, session: SessionId) -> Result<()> {
    let end = move |t: &Transaction<'_>, _: &Identity| end_one_session(t, None, member, session);
    app.change(caller, "session.end", end).await.map(drop)
}

/// Ends all sessions of a member except `kept`, for the member or an administrator of the organization. Returns their
/// number.
fn end_all_sessions(
    t: &Transaction<'_>,
    organization: Option<OrganizationId>,
    member: MemberId,
    kept: Option<SessionId>,
) -> Result<Changed<u64>> {
    let forgotten = device_store::delete_all(t, member)?;
    let changes = end_sessions(t, member, kept)?;
    let ended = changes.len() as u64;
    if ended == 0 && forgotten == 0 {
        return Ok(Changed::unchanged(ended));
    }
    let mut after = json!({"sessions_ended": ended});
    if forgotten > 0 {
        after["devices_forgotten"] = json!(forgotten);
    }
    let entry = Entry::new("member", member).within(organization).after(after);
    Ok(Changed::new(ended, entry).with_policy_changes(changes))
}

/// Ends one session of a member, within the transaction. Fails with `SessionNotFound` if the member has no such session.
fn end_one_session(
    t: &Transaction<'_>,
    organization: Option<OrganizationId>,
    member: MemberId,
    session: SessionId,
) -> Result<Changed<()>> {
    let row = store::find_session(t, session)?.filter(|row| row.member == member);
    let row = row.ok_or(ErrorCode::SessionNotFound)?;
    store::delete_session(t, row.id)?;
    let entry = Entry::new("session", row.id).within(organization).before(json!({"member": member}));
    Ok(Changed::new((), entry).with_policy_changes([Change::Session(row.id, None)]))
}

/// Deletes expired sessions, one-time tokens and remembered devices.
pub async fn purge_expired(app: &App) -> Result<()> {
    app.write_in_batches(store::delete_expired_tokens).await?;
    app.write_in_batches(device_store::delete_expired).await?;
    app.write_in_batches(invitations::purge_expired).await?;
    app.change_in_batches("session.expire", |t, most| {
        let expired = store::end_expired(t, most)?;
        if expired.is_empty() {
            return Ok(Changed::unchanged(0));
        }
        let entry = Entry::new("sessions", "expired").after(json!({"count": expired.len()}));
        Ok(Changed::new(expired.len(), entry)
            .with_policy_changes(expired.into_iter().map(|id| Change::Session(id, None))))
    })
    .await?;
    members::purge_expired_registrations(app).await
}

/// A short device name from the User-Agent.
fn device_of(agent: &str) -> String {
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: [(&str, &str); 6] = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("Mac OS X", "macOS"),
        ("Windows", "Windows"),
        ("Linux", "Linux"),
    ];
    let named =
        |list: &[(&str, &'static str)]| list.iter().find(|(token, _)| agent.contains(token)).map(|(_, name)| *name);
    match (named(&BROWSERS), named(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => {
            const SHOWN: usize = 64;
            let plain: String = agent.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            if plain.is_empty() { "unknown".to_owned() } else { plain }
        }
    }
}

/// Implements the authentication steps that need a write or a request to a provider.
pub struct StoredSessions {
    pub app: Arc<App>,
    pub providers: Arc<oidc::Providers>,
}

impl SessionBackend for StoredSessions {
    fn renew<'a>(
        &'a self,
        context: &'a Arc<RequestContext>,
        session: SessionId,
        refresh: &'a str,
    ) -> BoxFuture<'a, TokenSubject> {
        Box::pin(async move {
            let tokens = renew_cookies(&self.app, context, session, refresh).await?;
            self.app.guard.keys.load().verify(&tokens.access_token, Timestamp::now())
        })
    }

    fn member_of_provider_token<'a>(
        &'a self,
        context: &'a Arc<RequestContext>,
        token: &'a str,
    ) -> BoxFuture<'a, MemberId> {
        Box::pin(oidc::member_of_bearer(&self.app, &self.providers, context, token))
    }

    fn consume_emergency_key<'a>(
        &'a self,
        context: &'a Arc<RequestContext>,
        key: &'a Arc<ApiKey>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(api_keys::consume_emergency_key(&self.app, context, key))
    }
}

#[cfg(test)]
mod tests {
    use super::device_of;

    #[test]
    fn device_names_are_short() {
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1";
        assert_eq!(device_of(firefox), "Firefox on Linux");
        assert_eq!(device_of(phone), "Safari on iPhone");
        assert_eq!(device_of("curl/8.5.0"), "curl");
        assert_eq!(device_of(""), "unknown");
        assert_eq!(device_of("portal\u{7}/1"), "portal/1");
    }
}
