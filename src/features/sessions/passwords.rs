//! Changing a password: with the current one, or with a link that works once.
//!
//! **Invariant.** A link sets a password and never creates a session: the member must still sign in, with the second
//! factor if one is due. No answer to an unauthenticated caller reveals whether a member exists. A link that a caller
//! created for another member works only while that caller may change the member's credentials.

use std::sync::Arc;

use serde_json::json;

use super::{require_signed_in, store, verify_password};
use crate::features::members::{self, password};
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authz;
use crate::kernel::authz::deferred_grant::{self, DeferredGrant, Grantor};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::{Change, MemberStatus, Snapshot};
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::outbound::mail;
use crate::kernel::outbox::{self, EventKind};
use crate::kernel::secret;

const PURPOSE: &str = "password_reset";

/// The token data of a link in a welcome mail, as JSON; other links have no data.
const WELCOME: &str = "\"welcome\"";

/// Rehashes a password that was just verified with the current parameters. A failure is only logged: the old hash
/// remains valid.
pub async fn renew_hash(app: &App, member: MemberId, password: String, former: String) {
    let renewed = match password::hash(app, password).await {
        Ok(hash) => app.write_unaudited(move |w| members::replace_hash(w, member, &former, &hash)).await,
        Err(e) => Err(e),
    };
    if let Err(e) = renewed {
        tracing::warn!(%member, error = %e, "a password could not be rehashed");
    }
}

/// Changes the caller's own password; every other session ends.
pub async fn change_own(app: &App, caller: &Identity, old: String, new: String) -> Result<()> {
    let member = caller.signed_in()?;
    let session = caller.session.ok_or_else(|| {
        Error::new(ErrorCode::Forbidden)
            .with_message("sign in to Roster first: a provider's token cannot change the password")
    })?;
    let attempt = Attempt::new(&member.to_string(), caller.context.address);
    let address = caller.address();
    let find =
        move |r: &Reader<'_>| Ok((members::password_hash(r, member)?, store::is_signed_in_at(r, member, &address)?));
    let (stored, is_known) = app.read(find).await?;
    let stored = stored.ok_or_else(|| wrong("this account has no password: ask for a link to set one"))?;
    let is_same = old == new;
    if !verify_password(app, (attempt, is_known), old, Some(stored.clone())).await?.fits {
        app.guard.login_throttle.record_failure(attempt, Timestamp::now());
        return Err(wrong("is wrong"));
    }
    app.guard.login_throttle.record_success(attempt);
    if is_same {
        return Err(Error::field("new_password", "is the current password: choose another one"));
    }
    let hash = password::hash(app, new).await?;
    let set = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        if members::password_hash(t, member)?.as_ref() != Some(&stored) {
            return Err(wrong("was changed by another request"));
        }
        members::set_password(t, member, (&hash, None), Some(session))?;
        let ended = t.count_policy_changes(is_session);
        Ok(Changed::new(
            (),
            Entry::new("member", member).after(json!({"fields": ["password"], "sessions_ended": ended})),
        ))
    };
    app.change(caller, "password.change", set).await.map(drop)
}

fn is_session(change: &Change) -> bool {
    matches!(change, Change::Session(..))
}

fn wrong(message: &str) -> Error {
    let mut error = Error::new(ErrorCode::WrongPassword);
    error.fields.push(Field::body("old_password", message));
    error
}

/// Mails a password link to the member with this login, if there is one with an e-mail address. The lookup runs after
/// the answer, so the answer does not reveal whether the member exists.
pub fn send_link(app: &Arc<App>, visitor: &Visitor, login: String) -> Result<()> {
    if !mail::is_configured(&app.config) {
        return Err(ErrorCode::MailNotConfigured.into());
    }
    let attempt = Attempt::new(&members::folded(&login), visitor.context.address);
    app.guard.mail_throttle.check(attempt, false, Timestamp::now())?;
    app.guard.mail_throttle.record_failure(attempt, Timestamp::now());
    send_in_background(app, visitor.context.clone(), login);
    Ok(())
}

/// Like [`send_link`], but without throttling.
pub fn send_in_background(app: &Arc<App>, context: Arc<RequestContext>, login: String) {
    let (app, request) = (app.clone(), context.clone());
    tokio::spawn(request.scope(async move {
        if let Err(e) = find_and_send(&app, context, login).await {
            tracing::warn!(error = %e, "a password link was not sent");
        }
    }));
}

async fn find_and_send(app: &App, context: Arc<RequestContext>, login: String) -> Result<()> {
    let found = app.read(move |r| members::find_login(r, &login)).await?;
    let Some(member) = found.map(|login| login.member).filter(members::Member::is_active) else { return Ok(()) };
    if member.email.is_none() {
        return Ok(());
    }
    let request_mail = move |t: &Transaction<'_>, _: &Identity| {
        let since = t.now().plus_ms(-MAIL_PAUSE_MS);
        if !t.snapshot().is_active(member.id)
            || outbox::expedite_mail(t, member.id, EventKind::PasswordForgotten)?
            || store::has_token_since(t, member.id, PURPOSE, since)?
        {
            return Ok(Changed::unchanged(()));
        }
        let entry = Entry::new("member", member.id).after(json!({"mailed": "password link"}));
        Ok(Changed::new((), entry).with_events([members::member_event(t, EventKind::PasswordForgotten, member.id)]))
    };
    let caller = Identity::new(Principal::Visitor, context);
    app.change(&caller, "password.forgot", request_mail).await?;
    // A mail that was already queued may now be due.
    app.outbox.notify_one();
    Ok(())
}

/// Creates the link for a mail that is about to be sent, and returns its URL. Returns `None` if the member is not
/// active, or if the creator of a welcome mail has lost the right to send it.
pub async fn create_mail_link(
    app: &App,
    id: MemberId,
    ttl_s: u64,
    welcome_maker: Option<Grantor>,
) -> Result<Option<String>> {
    let token = secret::token("pr_")?;
    let hash = secret::hash(&token);
    let insert = move |t: &Transaction<'_>, _: &Identity| {
        if !t.snapshot().is_active(id) {
            return Ok(Changed::unchanged(false));
        }
        if let Some(maker) = &welcome_maker
            && require_kept(t, t.snapshot(), (maker, Some(WELCOME)), id, t.now()).is_err()
        {
            return Ok(Changed::unchanged(false));
        }
        let expires_at =
            insert_link(t, (&hash, welcome_maker.as_ref()), welcome_maker.is_some().then_some(WELCOME), (id, ttl_s))?;
        Ok(Changed::new(true, Entry::new("member", id).after(json!({"expires_at": expires_at.0}))))
    };
    let is_made = app.change(&Identity::command_line(), "password.mail_link", insert).await?.answer;
    Ok(is_made.then(|| link(app, &token)))
}

/// The shortest time between two mails to one member, in milliseconds.
pub const MAIL_PAUSE_MS: i64 = 60_000;

/// A password link, which works once.
#[derive(Debug)]
pub struct Link {
    pub url: String,
    pub token: String,
    pub expires_at: Timestamp,
}

/// Creates a password link for a member; the caller passes it on to the member.
pub fn create_link(
    app: &App,
    token: String,
    id: MemberId,
) -> impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<Link>> + Send + 'static + use<> {
    let (url, ttl_s) = (link(app, &token), app.config.reset_link_ttl_s);
    move |t, caller| {
        let reach = authz::require(t.snapshot(), caller, Permission::MEMBER_PASSWORD_LINK)?;
        members::require_visible(t.snapshot(), reach, id)?;
        let member = members::get(t, id)?;
        members::require_may_change(t, caller, reach, id)?;
        members::require_not_self(caller, id)?;
        match member.status {
            MemberStatus::Active => {}
            MemberStatus::Deleted => return Err(ErrorCode::MemberDeleted.into()),
            MemberStatus::Pending | MemberStatus::Suspended => return Err(ErrorCode::MemberNotActive.into()),
        }
        let maker = Grantor::from_caller(caller);
        let expires_at = insert_link(t, (&secret::hash(&token), Some(&maker)), None, (id, ttl_s))?;
        let after = json!({"expires_at": expires_at.0});
        let entry = Entry::new("member", id).within(reach.organization()).after(after);
        Ok(Changed::new(Link { url, token, expires_at }, entry))
    }
}

/// Stores a link, deletes the member's previous ones, and returns its expiry.
fn insert_link(
    t: &Transaction<'_>,
    (hash, maker): (&secret::Hash, Option<&Grantor>),
    data: Option<&str>,
    (member, ttl_s): (MemberId, u64),
) -> Result<Timestamp> {
    store::delete_tokens_of(t, member, PURPOSE)?;
    let expires_at = t.now().plus_ms(seconds_to_ms(ttl_s));
    store::insert_token(t, hash, PURPOSE, Some(member), data, expires_at)?;
    if let Some(maker) = maker {
        store::set_maker(t, hash, maker)?;
    }
    Ok(expires_at)
}

/// Fails with `InvalidLink` unless the creator of a link, or of a mail with one, still has the right to create it.
fn require_kept(
    r: &Reader<'_>,
    snapshot: &Snapshot,
    (maker, data): (&Grantor, Option<&str>),
    member: MemberId,
    now: Timestamp,
) -> Result<()> {
    let rights = &authz::store::rights_of(r, member)?;
    let deferred_grant = match data {
        Some(WELCOME) => DeferredGrant::Welcome { member, rights },
        _ => DeferredGrant::PasswordLink { member, rights },
    };
    deferred_grant::require_grantor_authorized(snapshot, maker, deferred_grant, now)
        .map_err(|lost| Error::new(ErrorCode::InvalidLink).with_source(format!("its creator: {}", lost.message())))
}

fn link(app: &App, token: &str) -> String {
    format!("{}/reset?token={token}", app.public_url())
}

/// Returns the member of a valid link, and its creator if the creator knows the link too. (Links in welcome mails are
/// known only to the owner of the mailbox.)
fn member_of(r: &Reader<'_>, snapshot: &Snapshot, token: &str, now: Timestamp) -> Result<(MemberId, Option<Grantor>)> {
    let link = store::find_token(r, &secret::hash(token), PURPOSE, now)?.ok_or(ErrorCode::InvalidLink)?;
    let member = match link.member {
        Some(id) => members::find(r, id)?,
        None => None,
    };
    let member = member.filter(members::Member::is_active).ok_or(ErrorCode::InvalidLink)?;
    if let Some(maker) = &link.maker {
        require_kept(r, snapshot, (maker, link.data.as_deref()), member.id, now)?;
    }
    Ok((member.id, link.maker.filter(|_| link.data.is_none())))
}

/// Fails with `InvalidLink` unless this link still works.
pub async fn require_link(app: &App, token: &str) -> Result<()> {
    let (token, snapshot) = (token.to_owned(), app.snapshot());
    app.read(move |r| member_of(r, &snapshot, &token, Timestamp::now())).await.map(drop)
}

/// Sets a new password with a link and consumes the link. Ends every session of the member and creates none. Returns the
/// member.
pub async fn reset_password(app: &App, context: &Arc<RequestContext>, token: String, new: String) -> Result<MemberId> {
    // Only callers with a valid link can make the server hash, and a rejected password does not consume the link.
    require_link(app, &token).await?;
    let faults = password::faults(&new);
    if !faults.is_empty() {
        return Err(Error::fields(faults.into_iter().map(|fault| Field::body("new_password", fault)).collect()));
    }
    let hash = password::hash(app, new).await?;
    let set = move |t: &Transaction<'_>, _: &Identity| {
        let (member, maker) = member_of(t, t.snapshot(), &token, t.now())?;
        members::set_password(t, member, (&hash, maker.as_ref()), None)?;
        let keys = t.count_policy_changes(|change| matches!(change, Change::ApiKeyDeleted(_)));
        let after =
            json!({"fields": ["password"], "sessions_ended": t.count_policy_changes(is_session), "keys_ended": keys});
        Ok(Changed::new(member, Entry::new("member", member).after(after)))
    };
    let caller = Identity::new(Principal::Visitor, context.clone());
    app.change(&caller, "password.reset", set).await.map(|done| done.answer)
}
