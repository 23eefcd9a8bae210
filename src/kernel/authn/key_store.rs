//! SQL for the signing keys of the site.

use super::token::StoredKey;
use crate::kernel::authz::store::encrypt;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::encryption::{Encryption, SecretColumn, SecretLocation};
use crate::kernel::error::Result;

const LIST_SIGNING_KEYS: &str =
    "select id, private_key, public_key, created_at from signing_keys order by created_at desc";

pub fn signing_keys(r: &Reader<'_>, encryption: &Encryption) -> Result<Vec<StoredKey>> {
    let mut keys = r.all(LIST_SIGNING_KEYS, &[], |row| {
        Ok(StoredKey { id: row.get(0)?, private_key: row.get(1)?, public_key: row.get(2)?, created_at: row.get(3)? })
    })?;
    for key in &mut keys {
        key.private_key = encryption.decrypt(SecretLocation::signing_key(&key.id), &key.private_key)?;
    }
    Ok(keys)
}

const INSERT_SIGNING_KEY: &str = "
    insert into signing_keys (id, private_key, public_key, created_at)
    values (:id, :private_key, :public_key, :now)";

pub fn insert_signing_key(w: &Writer<'_>, encryption: &Encryption, key: &StoredKey) -> Result<()> {
    w.execute(
        INSERT_SIGNING_KEY,
        &[
            (":id", &key.id),
            (":private_key", &encrypt(w, encryption, SecretLocation::signing_key(&key.id), &key.private_key)?),
            (":public_key", &key.public_key),
            (":now", &key.created_at),
        ],
    )
    .map(drop)
}

const DELETE_KEY: &str = "delete from signing_keys where id = :id";

pub fn delete_signing_key(w: &Writer<'_>, id: &str) -> Result<()> {
    w.execute(DELETE_KEY, &[(":id", &id)]).map(drop)
}

const LIST_PRIVATE_KEYS: &str = "select cast(id as blob), private_key from signing_keys";
const SET_PRIVATE_KEY: &str = "update signing_keys set private_key = :stored where id = cast(:row as text)";

/// The column of private keys, which a rotation of the encryption key rewrites.
pub const SECRET: SecretColumn =
    SecretColumn { table: "signing_keys", column: "private_key", list: LIST_PRIVATE_KEYS, set: SET_PRIVATE_KEY };
