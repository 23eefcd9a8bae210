//! Self-registration: a visitor who confirms an e-mail address becomes a member without roles.
//!
//! **Invariant.** Registering does not reveal whether an e-mail address is known: the answer is always the same and is
//! sent before the address is looked up. (Usernames are public: a taken one is reported.) A pending member can do
//! nothing. If one address is registered several times, none of the passwords counts: its owner gets a link to set one.

use std::sync::Arc;

use serde_json::json;

use super::passwords::{self, MAIL_PAUSE_MS};
use super::store;
use crate::features::members::{self, NewMember, password};
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::MemberStatus;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::outbound::mail;
use crate::kernel::outbox::EventKind;
use crate::kernel::secret::{self, Hash, KeyedDigest};

const PURPOSE: &str = "email_code";

/// The data of a self-registration.
#[derive(Debug)]
pub struct Registration {
    pub email: String,
    pub password: String,
    pub username: Option<String>,
    pub display_name: Option<String>,
}

/// Fails with `RegistrationClosed` unless `auth.registration` is on.
fn require_open(app: &App) -> Result<()> {
    if app.config.registration { Ok(()) } else { Err(ErrorCode::RegistrationClosed.into()) }
}

/// Registers a member and mails a code. Only the mail reveals whether the address is known. A username that another
/// member has fails at once with `UsernameExists`, because the visitor must choose another one.
pub async fn register(app: &Arc<App>, visitor: &Visitor, registration: Registration) -> Result<()> {
    require_open(app)?;
    let Registration { email, password, username, display_name } = registration;
    let attempt = Attempt::new(&members::folded(&email), visitor.context.address);
    app.guard.mail_throttle.check(attempt, false, Timestamp::now())?;
    app.guard.mail_throttle.record_failure(attempt, Timestamp::now());
    members::require_capacity(&app.snapshot(), app.config.members_max)?;
    if let Some(username) = username.clone() {
        let folded = members::folded(&email);
        let find = move |r: &crate::kernel::db::Reader<'_>| members::find_login(r, &username);
        let is_same_registration = |member: &members::Member| {
            member.is_pending() && member.email.as_deref().map(members::folded).as_ref() == Some(&folded)
        };
        if app.read(find).await?.is_some_and(|login| !is_same_registration(&login.member)) {
            return Err(ErrorCode::UsernameExists.into());
        }
    }
    let hash = password::hash(app, password).await?;
    let new =
        NewMember { username, email: Some(email), display_name, password_hash: Some(hash), ..NewMember::default() };
    let (app, context) = (app.clone(), visitor.context.clone());
    tokio::spawn(async move {
        if let Err(e) = store_registration(&app, context, new).await {
            tracing::warn!(error = %e, "a registration was not completed");
        }
    });
    Ok(())
}

enum RegistrationResult {
    Pending(MemberId, String),
    /// The e-mail address belongs to a member.
    Known(MemberId),
    /// A mail was sent less than `MAIL_PAUSE_MS` ago.
    RecentlyMailed,
}

async fn store_registration(app: &App, context: Arc<RequestContext>, new: NewMember) -> Result<()> {
    let (email, code) = (new.email.clone().unwrap_or_default(), new_code()?);
    let (sealer, config) = (app.sealer, app.config.clone());
    let enter = move |t: &Transaction<'_>, _: &Identity| {
        let email = new.email.as_deref().unwrap_or_default();
        let since = t.now().plus_ms(-MAIL_PAUSE_MS);
        let mut is_contested = false;
        if let Some(login) = members::find_login(t, email)? {
            let id = login.member.id;
            // While a code is valid the registration does not change, so the code proves exactly this registration.
            if store::has_token_since(t, id, PURPOSE, since)? {
                store::mark_contested(t, &code_hash(&sealer, id))?;
                return Ok(Changed::unchanged(RegistrationResult::RecentlyMailed));
            }
            if !login.member.is_pending() {
                let expires_at = t.now().plus_ms(MAIL_PAUSE_MS);
                store::insert_token(t, &code_hash(&sealer, id), PURPOSE, Some(id), None, expires_at)?;
                return Ok(Changed::unchanged(RegistrationResult::Known(id)));
            }
            is_contested = true;
        }
        let (id, change) = members::register(t, &new, config.members_max)?;
        let mut data = hex::encode(sealed(&sealer, id, &code));
        if is_contested {
            data.push_str(CONTESTED);
        }
        let expires_at = t.now().plus_ms(seconds_to_ms(config.email_code_ttl_s));
        store::insert_token(t, &code_hash(&sealer, id), PURPOSE, Some(id), Some(&data), expires_at)?;
        let entry = Entry::new("member", id).after(json!({"status": MemberStatus::Pending.as_str()}));
        Ok(Changed::new(RegistrationResult::Pending(id, code), entry).with_policy_changes([change]))
    };
    let caller = Identity::new(Principal::Visitor, context);
    let site = app.public_url();
    let writer = mail::writer(&app.config, &site);
    let mail = match app.change(&caller, "member.register", enter).await?.answer {
        RegistrationResult::Pending(id, code) => writer.email_code(id, email, &code, app.config.email_code_ttl_s),
        RegistrationResult::Known(id) => writer.known_already(id, email),
        RegistrationResult::RecentlyMailed => return Ok(()),
    };
    mail::send(&app.outbound, &app.config, mail).await;
    Ok(())
}

/// Suffix of a code's data when the e-mail address was registered more than once. The code then proves who owns the
/// mailbox, but not who set the stored password.
const CONTESTED: &str = " contested";

/// Confirms the e-mail address of a registration with the mailed code. If the address was registered more than once, a
/// link to set a new password is mailed to it at once.
pub async fn verify(app: &Arc<App>, visitor: &Visitor, email: String, code: String) -> Result<()> {
    require_open(app)?;
    let attempt = Attempt::new(&format!("code {}", members::folded(&email)), visitor.context.address);
    app.guard.mail_throttle.check(attempt, false, Timestamp::now())?;
    let (sealer, tries_max) = (app.sealer, app.config.email_code_tries);
    let login = email.clone();
    let confirm = move |t: &Transaction<'_>, _: &Identity| {
        let found = members::find_login(t, &email)?.map(|login| login.member);
        let pending = found.filter(members::Member::is_pending).map(|member| member.id);
        let Some(id) = pending else {
            // The same work as for a wrong code, including a row that is written.
            let unused_hash = sealer.digest("email code of nobody", &[members::folded(&email).as_bytes()]);
            store::insert_token(t, &unused_hash, PURPOSE, None, None, t.now().plus_ms(MAIL_PAUSE_MS))?;
            return Ok(Changed::unchanged(None));
        };
        let code_key = code_hash(&sealer, id);
        let stored = store::find_token(t, &code_key, PURPOSE, t.now())?.filter(|stored| stored.tries < tries_max);
        let data = stored.and_then(|stored| stored.data);
        let right = data.as_deref().map(|data| data.strip_suffix(CONTESTED).unwrap_or(data));
        let offered = secret::hash(&hex::encode(sealed(&sealer, id, &code)));
        if !right.is_some_and(|right| secret::equal(&secret::hash(right), &offered)) {
            store::count_attempt(t, &code_key)?;
            return Ok(Changed::unchanged(None));
        }
        let is_contested = data.is_some_and(|data| data.ends_with(CONTESTED));
        store::delete_token(t, &code_key)?;
        let change = members::confirm(t, id, !is_contested)?;
        let entry = Entry::new("member", id).after(json!({"status": MemberStatus::Active.as_str()}));
        let created = members::member_event(t, EventKind::MemberCreated, id);
        Ok(Changed::new(Some(is_contested), entry).with_policy_changes([change]).with_events([created]))
    };
    let caller = Identity::new(Principal::Visitor, visitor.context.clone());
    if let Some(is_contested) = app.change(&caller, "member.confirm", confirm).await?.answer {
        if is_contested {
            passwords::send_in_background(app, visitor.context.clone(), login);
        }
        return Ok(());
    }
    app.guard.mail_throttle.record_failure(attempt, Timestamp::now());
    Err(ErrorCode::InvalidCode.into())
}

/// Returns a random code of six digits.
fn new_code() -> Result<String> {
    const CODES: u64 = 1_000_000;
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&secret::random()?[..8]);
    // The modulo bias makes low codes likelier by less than one in 10^13.
    Ok(format!("{:06}", u64::from_le_bytes(bytes) % CODES))
}

/// Derives the token hash under which a member's only code is stored.
fn code_hash(sealer: &KeyedDigest, id: MemberId) -> Hash {
    sealer.digest("email code of", &[id.0.as_bytes()])
}

/// Hashes a code with the site's key: a code has only a million values, so a plain hash would not hide it.
fn sealed(sealer: &KeyedDigest, id: MemberId, code: &str) -> Hash {
    sealer.digest("email code", &[id.0.as_bytes(), code.as_bytes()])
}
