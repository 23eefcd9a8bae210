//! API keys of members and services: creation, rotation, revocation, expiry notices and clean-up.
//!
//! **Invariant.** The text of a key is only in the answer that creates or rotates it. The database holds its digest.

pub mod api;
mod store;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::features::members;
use crate::kernel::app::{App, Changed, Occurrence, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::deferred_grant::{self, DeferredGrant, Grantor};
use crate::kernel::authz::key::{self, ApiKey, ApiKeyKind, DAY, EMERGENCY, Owner};
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::Change;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{ApiKeyId, Timestamp};
use crate::kernel::outbound::mail;
use crate::kernel::secret::{self, Hash};

/// Time after expiry when a key's row is deleted.
const FORGET_AFTER_MS: i64 = 30 * DAY * 1_000;
/// A notice is sent when at most this fraction (one fifth) of a key's lifetime is left, so short-lived keys get short
/// notice.
const NOTICE_PART: i64 = 5;

/// An API key as stored, without its hashes.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub id: ApiKeyId,
    pub kind: &'static ApiKeyKind,
    pub name: String,
    pub owner: Owner,
    pub is_imported: bool,
    pub scopes: Vec<String>,
    pub expires_at: Timestamp,
    /// Until when the text from before the last rotation remains valid.
    pub former_ends_at: Option<Timestamp>,
    pub spent_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub last_used_address: Option<String>,
    pub created_at: Timestamp,
    /// When the current text was created: only a rotation changes a key.
    pub updated_at: Timestamp,
}

impl KeyRow {
    pub fn is_emergency(&self) -> bool {
        *self.kind == EMERGENCY
    }

    /// Whether the notice of its expiry is due.
    pub fn expires_soon(&self, notice_ms: i64, now: Timestamp) -> bool {
        let life_ms = self.expires_at.0 - self.updated_at.0;
        let notice_ms = notice_ms.min(life_ms / NOTICE_PART);
        self.spent_at.is_none() && now < self.expires_at && now >= self.expires_at.plus_ms(-notice_ms)
    }
}

/// The data of a new key.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub kind: &'static ApiKeyKind,
    pub name: String,
    pub owner: Owner,
    pub scopes: Vec<String>,
    /// `None` means the maximum lifetime of the kind.
    pub expires_at: Option<Timestamp>,
    /// The digest of a key that was created elsewhere.
    pub imported: Option<Hash>,
}

/// A key that was just created or rotated, with its text, which cannot be retrieved later.
pub struct CreatedKey {
    pub key: KeyRow,
    /// `None` for an imported key.
    pub text: Option<String>,
    pub change: Change,
}

/// Creates a key. Fails if its owner has `keys_max` keys or more.
pub fn create(t: &Transaction<'_>, caller: &Identity, new: &NewKey, keys_max: u64) -> Result<CreatedKey> {
    if store::count_keys(t, &new.owner)? >= keys_max {
        let limit = match new.owner {
            Owner::Member(_) => "limits.api_keys_per_member",
            Owner::Service(_) => "limits.service_keys",
        };
        return Err(Error::field(
            "name",
            format!("the limit of {keys_max} API keys is reached ({limit}): revoke one first"),
        ));
    }
    let ends_at = end_of(new.kind, new.expires_at, t.now())?;
    let id = ApiKeyId::new();
    let (hash, text) = match new.imported {
        // This also finds an imported key that has been rotated since.
        Some(hash) if t.snapshot().imported_key(&hash).is_some() => return Err(ErrorCode::ApiKeyExists.into()),
        Some(hash) => (hash, None),
        None => {
            let text = key::new_text(new.kind.prefix, id, t.now())?;
            (secret::hash(&text), Some(text))
        }
    };
    let maker = maker_of(t, caller, &new.owner)?;
    require_may_give(t, &new.owner, &maker)?;
    store::insert_key(t, (id, &maker), new, &hash, ends_at)?;
    created_key(t, id, text)
}

/// Returns the principal whose rights the caller's new key depends on. For a member's own key this is the principal who
/// set the member's password, if it was not the member.
fn maker_of(t: &Transaction<'_>, caller: &Identity, owner: &Owner) -> Result<Grantor> {
    let maker = Grantor::from_caller(caller);
    match *owner {
        Owner::Member(id) if maker == Grantor::Member(id) => Ok(members::password_maker(t, id)?.unwrap_or(maker)),
        _ => Ok(maker),
    }
}

/// Fails with `NotHeld` unless `maker` may give this member a key. A member's key that somebody else creates or rotates
/// is a deferred grant from the beginning.
fn require_may_give(t: &Transaction<'_>, owner: &Owner, maker: &Grantor) -> Result<()> {
    let Owner::Member(member) = *owner else { return Ok(()) };
    // A member created in this same transaction holds no rights yet and is not in the snapshot.
    if *maker == Grantor::Member(member) || t.snapshot().member_state(member).is_none() {
        return Ok(());
    }
    let rights = &authz::store::rights_of(t, member)?;
    deferred_grant::require_grantor_authorized(
        t.snapshot(),
        maker,
        DeferredGrant::MemberKey { member, rights },
        t.now(),
    )
    .map_err(|lost| {
        let message =
            "who set the member's password may not create keys for it: the member must change the password first";
        if members::password_maker(t, member).is_ok_and(|password_maker| password_maker.as_ref() == Some(maker)) {
            return Error::new(ErrorCode::NotHeld).with_source(lost.to_string()).with_message(message);
        }
        lost
    })
}

/// When a key expires: after the lifetime of its type, or earlier if requested.
fn end_of(kind: &ApiKeyKind, requested: Option<Timestamp>, now: Timestamp) -> Result<Timestamp> {
    let latest = now.plus_ms(kind.ttl_s * 1_000);
    match requested {
        None => Ok(latest),
        Some(at) if at > now && at <= latest => Ok(at),
        Some(_) => {
            let days = kind.ttl_s / DAY;
            let message = format!(
                "must be in the future, in Unix milliseconds; a {} key is valid for at most {days} days",
                kind.prefix
            );
            Err(Error::field("expires_at", message))
        }
    }
}

/// Gives a key a new text and a new lifetime. The former text remains valid for the grace period of the kind; an even
/// older one becomes invalid now. The key now depends on the rights of the caller. A former text that somebody else may
/// know becomes invalid now (`deferred_grant::grace_ms`).
pub fn rotate(t: &Transaction<'_>, caller: &Identity, former: &KeyRow) -> Result<CreatedKey> {
    if former.is_emergency() {
        return Err(ErrorCode::EmergencyKey.into());
    }
    let text = key::new_text(former.kind.prefix, former.id, t.now())?;
    let maker = maker_of(t, caller, &former.owner)?;
    require_may_give(t, &former.owner, &maker)?;
    // The principal who imported a key by its digest counts as knowing its text.
    let key = t.snapshot().api_key(former.id);
    let former_maker = key.map(|key| (&key.maker, key.require_grantor_authorized(t.snapshot(), t.now()).is_ok()));
    let grace_ms = former_maker.map_or(0, |known| deferred_grant::grace_ms(known, &maker, former.kind.grace_s * 1_000));
    // A rotation never extends the validity of the former text.
    let former_ends_at = t.now().plus_ms(grace_ms).min(former.expires_at);
    let ends_at = end_of(former.kind, None, t.now())?;
    store::rotate_key(t, (former, &maker), &secret::hash(&text), ends_at, former_ends_at)?;
    created_key(t, former.id, Some(text))
}

fn created_key(t: &Transaction<'_>, id: ApiKeyId, text: Option<String>) -> Result<CreatedKey> {
    let key = store::find_key(t, id)?.ok_or(ErrorCode::ApiKeyNotFound)?;
    Ok(CreatedKey { key, text, change: authz::store::api_key(t, id)? })
}

/// Deletes a key; it is rejected from the next request on.
pub fn revoke(t: &Transaction<'_>, id: ApiKeyId) -> Result<Change> {
    store::delete_key(t, id)?;
    Ok(Change::ApiKeyDeleted(id))
}

/// Describes a key for the audit log. Its name is free text of its owner, so it is left out.
pub fn described(key: &KeyRow) -> Value {
    let mut facts = json!({
        "type": key.kind.prefix,
        "scopes": key.scopes,
        "expires_at": key.expires_at.0,
        "former_valid_until": key.former_ends_at.map(|at| at.0),
        "is_imported": key.is_imported,
    });
    match &key.owner {
        Owner::Member(id) => facts["member"] = json!(id),
        Owner::Service(name) => facts["service"] = json!(&**name),
    }
    facts
}

/// Consumes an emergency key. Of two concurrent uses the second fails with `InvalidKey`.
pub async fn consume_emergency_key(app: &App, context: &Arc<RequestContext>, key: &Arc<ApiKey>) -> Result<()> {
    let id = key.id;
    let caller = Identity::new(Principal::Key(key.clone()), context.clone());
    let spend = move |t: &Transaction<'_>, _: &Identity| {
        if !store::spend_key(t, id)? {
            return Err(Error::new(ErrorCode::InvalidKey).with_source("an emergency key that was used"));
        }
        let entry = Entry::new("api_key", id).after(json!({"spent": true}));
        Ok(Changed::new((), entry).with_policy_changes([authz::store::api_key(t, id)?]))
    };
    app.change(&caller, "api_key.spend", spend).await.map(drop)
}

/// Writes the time and address of each key's last use, which are kept in memory until then.
pub async fn flush_last_used(app: &App) -> Result<()> {
    let used: Vec<(Arc<ApiKey>, Timestamp, Option<String>)> = app
        .snapshot()
        .api_keys()
        .filter_map(|key| match key.counters.at.load(Ordering::Relaxed) {
            0 => None,
            at => {
                let address = key.counters.address.lock().ok().and_then(|address| *address);
                Some((key.clone(), Timestamp(at), address.map(|address| address.to_string())))
            }
        })
        .collect();
    if used.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = used.iter().map(|(key, at, address)| (key.id, *at, address.clone())).collect();
    app.write_each_unaudited(rows, |w, (id, at, address)| store::touch_key(w, *id, *at, address.as_deref())).await?;
    for (key, at, _) in used {
        // If the key was used again meanwhile, the exchange fails and the next flush writes it.
        let _ = key.counters.at.compare_exchange(at.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
    Ok(())
}

/// Sends notices for keys that expire soon, and deletes those that expired long ago.
pub async fn maintain(app: &App) -> Result<()> {
    let (now, notice_ms) = (Timestamp::now(), seconds_to_ms(app.config.api_key_notice_s));
    let ending = app.read(move |r| store::list_unannounced(r, now, now.plus_ms(notice_ms))).await?;
    for key in ending.into_iter().filter(|key| key.expires_soon(notice_ms, now)) {
        announce(app, &key, now).await?;
        // Marked after sending: after a crash a notice is sent twice rather than never.
        app.write_unaudited(move |w| store::set_notified(w, key.id)).await?;
    }
    delete_expired(app).await
}

/// Announces that a key expires soon: in the log, and by mail to its member if mail is configured. (Lists show it as
/// `expires_soon`.)
async fn announce(app: &App, key: &KeyRow, now: Timestamp) -> Result<()> {
    let owner = match &key.owner {
        Owner::Member(id) => id.to_string(),
        Owner::Service(name) => name.to_string(),
    };
    tracing::warn!(key = %key.id, kind = key.kind.prefix, owner, expires_at = key.expires_at.0, "an API key ends soon");
    let Owner::Member(id) = key.owner else { return Ok(()) };
    let email = app.read(move |r| members::get(r, id)).await?.email.filter(|_| mail::is_configured(&app.config));
    if let Some(email) = email {
        let left_s = u64::try_from((key.expires_at.0 - now.0) / 1_000).unwrap_or_default();
        let site = app.public_url();
        let mail = mail::writer(&app.config, &site).key_ends(id, email, &key.id.0.simple().to_string(), left_s);
        mail::send(&app.outbound, &app.config, mail).await;
    }
    Ok(())
}

async fn delete_expired(app: &App) -> Result<()> {
    app.change_in_batches("api_key.expire", |t, most| {
        let expired = store::delete_expired(t, t.now().plus_ms(-FORGET_AFTER_MS), most)?;
        if expired.is_empty() {
            return Ok(Changed::unchanged(0));
        }
        let entry = Entry::new("api_keys", "expired").after(json!({"count": expired.len()}));
        Ok(Changed::new(expired.len(), entry).with_policy_changes(expired.into_iter().map(Change::ApiKeyDeleted)))
    })
    .await
}

fn key_changes(keys: Vec<ApiKeyId>) -> Result<Vec<Change>> {
    Ok(keys.into_iter().map(Change::ApiKeyDeleted).collect())
}

/// Deletes keys after changes in other features: an erased member, a reset password, a withdrawn key.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        Occurrence::MemberErased(member) => key_changes(store::delete_of_member(t, *member)?),
        Occurrence::PasswordSet { member, is_reset: true, .. } => key_changes(store::delete_of_member(t, *member)?),
        Occurrence::KeyWithdrawn(id) => {
            store::delete_key(t, *id)?;
            key_changes(vec![*id])
        }
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE_MS: i64 = 7 * DAY * 1_000;

    fn key(life_ms: i64) -> KeyRow {
        KeyRow {
            id: ApiKeyId::new(),
            kind: &key::USER,
            name: "test".into(),
            owner: Owner::Service("test".into()),
            is_imported: false,
            scopes: Vec::new(),
            expires_at: Timestamp(life_ms),
            former_ends_at: None,
            spent_at: None,
            last_used_at: None,
            last_used_address: None,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn notice_follows_the_setting_and_is_at_most_a_fifth_of_the_lifetime() {
        for (life_ms, begins_at) in [(90 * DAY * 1_000, 83 * DAY * 1_000), (1_000, 800)] {
            let soon = |at: i64| key(life_ms).expires_soon(NOTICE_MS, Timestamp(at));
            assert_eq!([begins_at - 1, begins_at, life_ms - 1, life_ms].map(soon), [false, true, true, false]);
        }
        assert!(!key(1_000).expires_soon(0, Timestamp(999)));
        assert!(!KeyRow { spent_at: Some(Timestamp(1)), ..key(1_000) }.expires_soon(NOTICE_MS, Timestamp(900)));
    }

    #[test]
    fn a_requested_end_may_be_earlier_than_the_maximum_lifetime_but_not_later() {
        for kind in key::KINDS {
            let (now, life_ms) = (Timestamp(1_000), kind.ttl_s * 1_000);
            assert_eq!(end_of(kind, None, now).unwrap(), now.plus_ms(life_ms));
            let fits = |ms: i64| end_of(kind, Some(now.plus_ms(ms)), now).is_ok();
            assert_eq!([0, 1, life_ms, life_ms + 1].map(fits), [false, true, true, false]);
        }
    }
}
