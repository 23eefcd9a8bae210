//! SQL of the one row of `site`.

use super::encryption::StoredEncryption;
use crate::kernel::authn::key_store;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::encryption::{self, Encryption, KeyId, SecretColumn, SecretLocation};
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::Hash;

const FOUND_SITE: &str = "
    insert into site (only, epoch, created_at, server_key, encryption_key_id)
    values (1, 1, :now, :server_key, :key_id)
    on conflict (only) do nothing";

pub fn create_site(w: &Writer<'_>, encryption: &Encryption, server_key: &[u8; 32]) -> Result<()> {
    let id = encryption.key_id()?;
    let stored = encryption.encrypt(id, SecretLocation::server_key(), server_key)?;
    w.execute(FOUND_SITE, &[(":now", &w.now()), (":server_key", &stored), (":key_id", &id.to_string())]).map(drop)
}

const SERVER_KEY: &str = "select server_key from site where only = 1";

pub fn server_key(r: &Reader<'_>, encryption: &Encryption) -> Result<[u8; 32]> {
    let stored: Vec<u8> = r.one(SERVER_KEY, &[], |row| row.get(0))?;
    let key = encryption.decrypt(SecretLocation::server_key(), &stored)?;
    key.try_into().map_err(|_| Error::internal("the server key does not have 32 bytes"))
}

const FIND_ENCRYPTION: &str = "select encryption_key_id, server_key from site where only = 1";

pub fn known_encryption(r: &Reader<'_>) -> Result<StoredEncryption> {
    let found: Option<(Option<String>, Vec<u8>)> =
        r.find(FIND_ENCRYPTION, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match found {
        None => StoredEncryption::Nothing,
        Some((Some(id), _)) => StoredEncryption::Key(id.parse()?),
        // All secrets are encrypted in one transaction, so one of them shows whether it was committed.
        Some((None, server_key)) => StoredEncryption::Clear { is_begun: encryption::is_encrypted(&server_key) },
    })
}

const SET_ENCRYPTION_KEY: &str = "update site set encryption_key_id = :id where only = 1";

/// Stores the id of the key that every secret is encrypted with.
pub fn set_encryption_key(w: &Writer<'_>, id: KeyId) -> Result<()> {
    w.execute(SET_ENCRYPTION_KEY, &[(":id", &id.to_string())]).map(drop)
}

const LIST_SERVER_KEYS: &str = "select x'01', server_key from site";
const SET_SERVER_KEY: &str = "update site set server_key = :stored where only = 1 and :row = x'01'";
/// The site's own secret column, with the SQL that lists and updates it.
const SECRET: SecretColumn =
    SecretColumn { table: "site", column: "server_key", list: LIST_SERVER_KEYS, set: SET_SERVER_KEY };

/// Rewrites every stored secret, of the kernel and of the features, with `form`; returns the number of secrets.
pub(super) fn rewrite_secrets(
    w: &Writer<'_>,
    feature_columns: &[SecretColumn],
    form: impl Fn(SecretLocation<'_>, Vec<u8>) -> Result<Vec<u8>>,
) -> Result<usize> {
    let mut count = 0;
    for secret in [SECRET, key_store::SECRET].iter().chain(feature_columns) {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = w.all(secret.list, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (row, stored) in rows {
            let stored = form(SecretLocation::new(secret.table, secret.column, &row), stored)?;
            count += w.execute(secret.set, &[(":stored", &stored), (":row", &row)])?;
        }
    }
    Ok(count)
}

const RAISE_EPOCH: &str = "update site set epoch = :epoch where only = 1 and epoch < :epoch";

pub fn raise_epoch(w: &Writer<'_>, epoch: u64) -> Result<()> {
    w.execute(RAISE_EPOCH, &[(":epoch", &i64::try_from(epoch).unwrap_or(i64::MAX))]).map(drop)
}

const FIND_SETUP: &str = "select setup_hash, setup_expires_at from site where only = 1";

/// The hash of the pending set-up link and the time when it expires.
pub fn find_setup(r: &Reader<'_>) -> Result<Option<(Hash, Timestamp)>> {
    let found: Option<(Option<Hash>, Option<Timestamp>)> =
        r.find(FIND_SETUP, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.and_then(|(hash, expires_at)| hash.zip(expires_at)))
}

const SET_SETUP: &str = "update site set setup_hash = :hash, setup_expires_at = :until where only = 1";

pub fn set_setup(w: &Writer<'_>, link: Option<(Hash, Timestamp)>) -> Result<()> {
    let (hash, expires_at) = link.unzip();
    w.execute(SET_SETUP, &[(":hash", &hash), (":until", &expires_at)]).map(drop)
}
