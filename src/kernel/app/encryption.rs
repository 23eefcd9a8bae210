//! The key of the secrets at rest over time: found at the start, made once, rotated.

use super::site_store;
use std::sync::Arc;

use serde_json::json;

use super::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::db::{Db, ReaderShare, schema};
use crate::kernel::encryption::{self, Encryption, KeyId, SecretColumn};
use crate::kernel::error::{Error, Result};

/// What the key of a database is known by.
pub enum Known {
    /// There is no site yet.
    Nothing,
    /// Its secrets lie in clear, as older versions left them, or are just being encrypted.
    Clear {
        is_begun: bool,
    },
    Key(KeyId),
}

/// Takes the key into use that the database was encrypted with. A new site gets one, and so does one whose secrets lie in
/// clear: they are encrypted here.
pub async fn open(db: &Db<Snapshot>, config: &Config, secrets: &'static [SecretColumn]) -> Result<Arc<Encryption>> {
    let file = config.encryption_key_file();
    match db.read(ReaderShare::of_server(), site_store::known_encryption).await? {
        Known::Nothing => Encryption::open_or_make(&file).map(Arc::new),
        Known::Key(id) => {
            let encryption = Encryption::open(&file)?;
            encryption.settle(id)?;
            // Without the key that was settled away, if there was one.
            Encryption::open(&file).map(Arc::new)
        }
        Known::Clear { is_begun } => {
            // What is encrypted already was encrypted with a key that must be there.
            let made = if is_begun { Encryption::open(&file) } else { Encryption::open_or_make(&file) };
            let encryption = Arc::new(made?);
            encrypt_all(db, config, &encryption, secrets).await?;
            Ok(encryption)
        }
    }
}

/// Encrypts what lies in clear. The database names the key only when nothing in clear is left in the file: a kill before
/// that begins anew.
async fn encrypt_all(
    db: &Db<Snapshot>,
    config: &Config,
    encryption: &Arc<Encryption>,
    secrets: &'static [SecretColumn],
) -> Result<()> {
    let (id, with) = (encryption.key_id()?, encryption.clone());
    db.write(move |w, _| {
        site_store::rewrite_secrets(w, secrets, |place, stored| {
            let clear = if encryption::is_encrypted(&stored) { with.decrypt(place, &stored)? } else { stored };
            with.encrypt(id, place, &clear)
        })
    })
    .await?;
    let file = config.database_file();
    let vacuumed = tokio::task::spawn_blocking(move || schema::vacuum(&file)).await;
    vacuumed.map_err(|e| Error::internal(format!("the file was not written anew: {e}")))??;
    db.write(move |w, _| site_store::set_encryption_key(w, id)).await?;
    tracing::info!(key = %id, file = %config.encryption_key_file().display(),
        "the secrets in the database are encrypted from now on: keep the key file beside every backup");
    Ok(())
}

/// Makes a new key and encrypts everything with it, in one transaction; answers the key's id.
///
/// The new key is on disk beside the old one before the first row is, and takes its place after the commit. What a kill
/// leaves is ended at the next start, by the key that the database names.
pub async fn rotate(app: &App, caller: &Identity) -> Result<KeyId> {
    let _turn = app.rotating.lock().await;
    authz::require(&app.snapshot(), caller, Permission::ENCRYPTION_KEY_ROTATE)?;
    // A rotation that did not end would lose its key.
    settle(app).await?;
    let next = on_disk(app, |encryption| encryption.make_next()).await?;
    let secrets = app.features.secrets;
    let rewrite = move |t: &Transaction<'_>, caller: &Identity| {
        authz::require(t.snapshot(), caller, Permission::ENCRYPTION_KEY_ROTATE)?;
        let encryption = t.encryption();
        let count = t.erasing(|| {
            site_store::rewrite_secrets(t, secrets, |place, stored| {
                encryption.encrypt(next, place, &encryption.decrypt(place, &stored)?)
            })
        })?;
        site_store::set_encryption_key(t, next)?;
        let entry = Entry::new("encryption_key", next).after(json!({"secrets": count}));
        Ok(Changed::new((), entry))
    };
    let rewritten = app.change(caller, "encryption_key.rotate", rewrite).await;
    let settled = settle(app).await;
    rewritten.and(settled).map(|()| next)
}

/// Brings the key file in line with what is committed.
async fn settle(app: &App) -> Result<()> {
    let current = app.read(authz::store::encryption_key).await?;
    on_disk(app, move |encryption| encryption.settle(current)).await
}

async fn on_disk<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Encryption) -> Result<T> + Send + 'static,
) -> Result<T> {
    let encryption = app.encryption.clone();
    let done = tokio::task::spawn_blocking(move || work(&encryption)).await;
    done.map_err(|e| Error::internal(format!("the key file was not written: {e}")))?
}
