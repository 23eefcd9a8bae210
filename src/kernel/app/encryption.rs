//! Life cycle of the encryption key for secrets at rest: opened at the start, generated once, rotated.

use super::store;
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

/// How the secrets of a database are encrypted.
pub enum StoredEncryption {
    /// There is no site yet.
    Nothing,
    /// The secrets are plain text, as older versions stored them, or their first encryption is unfinished.
    Clear {
        /// Whether the rows are encrypted already and only the key id is missing in `site`.
        is_begun: bool,
    },
    /// Every secret is encrypted with this key.
    Key(KeyId),
}

/// Opens the key that the database is encrypted with. A key is generated for a new site, and for a site whose secrets
/// are plain text: these are encrypted here.
pub async fn open(db: &Db<Snapshot>, config: &Config, secrets: &'static [SecretColumn]) -> Result<Arc<Encryption>> {
    let file = config.encryption_key_file();
    match db.read(ReaderShare::of_server(), store::known_encryption).await? {
        StoredEncryption::Nothing => Encryption::open_or_generate(&file).map(Arc::new),
        StoredEncryption::Key(id) => {
            let encryption = Encryption::open(&file)?;
            encryption.finish_rotation(id)?;
            // Read again, without the key that `settle` removed, if any.
            Encryption::open(&file).map(Arc::new)
        }
        StoredEncryption::Clear { is_begun } => {
            // Secrets that are already encrypted need the key that encrypted them, so none is generated.
            let opened = if is_begun { Encryption::open(&file) } else { Encryption::open_or_generate(&file) };
            let encryption = Arc::new(opened?);
            encrypt_all(db, config, &encryption, secrets).await?;
            Ok(encryption)
        }
    }
}

/// Encrypts the secrets that are plain text. The key id is stored only after the file was vacuumed, so that no plain
/// text is left in it. If the process is killed before that, the next start begins again.
async fn encrypt_all(
    db: &Db<Snapshot>,
    config: &Config,
    encryption: &Arc<Encryption>,
    secrets: &'static [SecretColumn],
) -> Result<()> {
    let (id, cipher) = (encryption.key_id()?, encryption.clone());
    db.write(move |w, _| {
        store::rewrite_secrets(w, secrets, |location, stored| {
            let clear = if encryption::is_encrypted(&stored) { cipher.decrypt(location, &stored)? } else { stored };
            cipher.encrypt(id, location, &clear)
        })
    })
    .await?;
    let file = config.database_file();
    let vacuumed = tokio::task::spawn_blocking(move || schema::vacuum(&file)).await;
    vacuumed.map_err(|e| Error::internal(format!("the database was not vacuumed: {e}")))??;
    db.write(move |w, _| store::set_encryption_key(w, id)).await?;
    tracing::info!(key = %id, file = %config.encryption_key_file().display(),
        "the secrets in the database are now encrypted: keep a copy of the key file with every backup");
    Ok(())
}

/// Generates a new key and encrypts every secret with it, in one transaction; returns the id of the key.
///
/// The new key is on disk beside the old one before the first row is written, and replaces it after the commit. If the
/// process is killed in between, the next start completes or undoes the rotation, according to the key id in the
/// database.
pub async fn rotate(app: &App, caller: &Identity) -> Result<KeyId> {
    let _guard = app.rotating.lock().await;
    authz::require(&app.snapshot(), caller, Permission::ENCRYPTION_KEY_ROTATE)?;
    // Complete an unfinished rotation first: its key would be overwritten.
    settle(app).await?;
    let next = on_disk(app, |encryption| encryption.generate_next()).await?;
    let secrets = app.features.secrets;
    let rewrite = move |t: &Transaction<'_>, caller: &Identity| {
        authz::require(t.snapshot(), caller, Permission::ENCRYPTION_KEY_ROTATE)?;
        let encryption = t.encryption();
        let count = t.erasing(|| {
            store::rewrite_secrets(t, secrets, |location, stored| {
                encryption.encrypt(next, location, &encryption.decrypt(location, &stored)?)
            })
        })?;
        store::set_encryption_key(t, next)?;
        let entry = Entry::new("encryption_key", next).after(json!({"secrets": count}));
        Ok(Changed::new((), entry))
    };
    let rewritten = app.change(caller, "encryption_key.rotate", rewrite).await;
    let settled = settle(app).await;
    rewritten.and(settled).map(|()| next)
}

/// Makes the key file hold the key that is committed in the database.
async fn settle(app: &App) -> Result<()> {
    let current = app.read(authz::store::encryption_key).await?;
    on_disk(app, move |encryption| encryption.finish_rotation(current)).await
}

/// Runs file work on the key file on a blocking thread.
async fn on_disk<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Encryption) -> Result<T> + Send + 'static,
) -> Result<T> {
    let encryption = app.encryption.clone();
    let done = tokio::task::spawn_blocking(move || work(&encryption)).await;
    done.map_err(|e| Error::internal(format!("the work on the key file panicked: {e}")))?
}
