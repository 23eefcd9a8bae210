//! Rotation of the site's signing keys: a new key signs at once; former keys stay published and accepted for a while.

use std::sync::Arc;

use super::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::key_store;
use crate::kernel::authn::token::{self, Keys, StoredKey};
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::config::Config;
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;

/// One published key.
#[derive(Debug, Clone)]
pub struct SigningKey {
    pub id: String,
    pub created_at: Timestamp,
    /// The end of its publication; `None` for the key that signs.
    pub ends_at: Option<Timestamp>,
}

/// All published keys, newest first.
pub async fn list(app: &App) -> Result<Vec<SigningKey>> {
    let overlap_ms = seconds_to_ms(app.config.signing_key_overlap_s);
    let keys = stored(app).await?;
    let ends = std::iter::once(None).chain(keys.iter().map(|newer| Some(newer.created_at.plus_ms(overlap_ms))));
    Ok(keys.iter().zip(ends).map(|(key, ends_at)| metadata(key, ends_at)).collect())
}

fn metadata(key: &StoredKey, ends_at: Option<Timestamp>) -> SigningKey {
    SigningKey { id: key.id.clone(), created_at: key.created_at, ends_at }
}

/// Generates a new key, which signs from now on; returns its id.
pub async fn rotate(app: &App, caller: &Identity) -> Result<String> {
    // One rotation at a time: a key set that was read earlier must not replace a later one.
    let _guard = app.rotating.lock().await;
    let key = token::new_key()?;
    let insert = move |t: &Transaction<'_>, caller: &Identity| {
        authz::require(t.snapshot(), caller, Permission::SIGNING_KEY_ROTATE)?;
        key_store::insert_signing_key(t, t.encryption(), &key)?;
        let entry = Entry::new("signing_key", &key.id);
        Ok(Changed::new(key.id, entry))
    };
    let id = app.change(caller, "signing_key.create", insert).await?.answer;
    load(app).await?;
    Ok(id)
}

/// Rotates the key if the newest one is older than `signing_key_ttl_s`, and deletes keys that are no longer published.
pub async fn maintain(app: &App) -> Result<()> {
    let now = Timestamp::now();
    let ttl_s = app.config.signing_key_ttl_s;
    let known = list(app).await?;
    if ttl_s > 0 && known.first().is_some_and(|newest| newest.created_at.plus_ms(seconds_to_ms(ttl_s)) <= now) {
        rotate(app, &Identity::command_line()).await?;
    }
    let _guard = app.rotating.lock().await;
    let expired: Vec<String> =
        known.into_iter().filter(|key| key.ends_at.is_some_and(|end| end <= now)).map(|key| key.id).collect();
    if expired.is_empty() {
        return Ok(());
    }
    app.change(&Identity::command_line(), "signing_key.delete", move |t, _| {
        expired.iter().try_for_each(|id| key_store::delete_signing_key(t, id))?;
        Ok(Changed::new((), Entry::new("signing_key", expired.join(" "))))
    })
    .await?;
    load(app).await
}

async fn stored(app: &App) -> Result<Vec<StoredKey>> {
    let encryption = app.encryption.clone();
    app.read(move |r| key_store::signing_keys(r, &encryption)).await
}

/// Reads the stored keys and replaces the key set in memory.
async fn load(app: &App) -> Result<()> {
    app.guard.keys.store(Arc::new(key_set(&stored(app).await?, &app.config)?));
    Ok(())
}

pub fn key_set(stored: &[StoredKey], config: &Config) -> Result<Keys> {
    Keys::new(stored, &config.issuer(), &config.audience, config.access_token_ttl_s)
}
