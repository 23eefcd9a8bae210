//! Encryption at rest: secrets that must be read back are encrypted in the database, with a key in a separate file. The
//! only user of chacha20poly1305.
//!
//! **Invariant.** A copy of the database alone reveals no secret, and a ciphertext can be decrypted only in its own
//! table, column and row, which are authenticated with it. A key is generated when a site is created, or when its
//! secrets are first encrypted. After that a missing or wrong key is an error; no new one is generated.
//!
//! A stored secret is a version byte, the id of its key (8 bytes), a random nonce (24 bytes), and the ciphertext with
//! its tag.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arc_swap::ArcSwap;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use super::secret;
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::MemberId;

const VERSION: u8 = 1;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + ID_BYTES + NONCE_BYTES;
const KEY_BYTES: usize = 32;

/// Table, column and row of a secret.
#[derive(Debug, Clone, Copy)]
pub struct SecretLocation<'a> {
    table: &'static str,
    column: &'static str,
    row: &'a [u8],
}

impl<'a> SecretLocation<'a> {
    pub fn new(table: &'static str, column: &'static str, row: &'a [u8]) -> Self {
        Self { table, column, row }
    }

    pub fn server_key() -> Self {
        Self::new("site", "server_key", &[1])
    }

    pub fn signing_key(id: &'a str) -> Self {
        Self::new("signing_keys", "private_key", id.as_bytes())
    }

    pub fn second_factor(member: &'a MemberId) -> Self {
        Self::new("second_factors", "secret", member.0.as_bytes())
    }

    /// The additional authenticated data. Names contain no zero byte, so no two locations give the same bytes.
    fn authenticated(&self) -> Vec<u8> {
        [self.table.as_bytes(), &[0], self.column.as_bytes(), &[0], self.row].concat()
    }

    fn fault(&self, why: &str) -> Error {
        let text = format!("{}.{} contains a secret that cannot be decrypted: {why}", self.table, self.column);
        Error::internal(text.clone()).with_message(text)
    }
}

/// The first bytes of a digest of the key: identifies the key without revealing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; ID_BYTES]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut id = [0; ID_BYTES];
        hex::decode_to_slice(text, &mut id)
            .map_err(|_| Error::internal("the stored id of the encryption key is malformed"))?;
        Ok(Self(id))
    }
}

/// A key that cannot be printed.
#[derive(Clone)]
struct Key {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut digest = Sha256::new_with_prefix(b"roster encryption key id\0");
        digest.update(bytes);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest.finalize()[..ID_BYTES]);
        Self { id: KeyId(id), cipher: XChaCha20Poly1305::new(bytes.into()) }
    }
}

/// Encrypts and decrypts with the keys of the key file.
pub struct Encryption {
    file: PathBuf,
    /// All keys for decryption: the one of the key file, and during a rotation the previous or next one.
    keys: ArcSwap<Vec<Key>>,
}

impl Encryption {
    /// Reads the key file, and the next key that an unfinished rotation left beside it. Fails if both are missing.
    pub fn open(file: &Path) -> Result<Self> {
        let keys: Vec<Key> = [read(file)?, read(&next_of(file))?].into_iter().flatten().collect();
        if keys.is_empty() {
            return Err(fault(format!(
                "{} is missing: the secrets in the database cannot be read without it. Restore it from a backup, or \
                 set encryption_key_file to its path",
                file.display()
            )));
        }
        Ok(Self { file: file.to_owned(), keys: ArcSwap::from_pointee(keys) })
    }

    /// Like `open`, but generates the key if there is none. Only for a database without encrypted secrets.
    pub fn open_or_generate(file: &Path) -> Result<Self> {
        if read(file)?.is_none() && read(&next_of(file))?.is_none() {
            generate(file)?;
        }
        Self::open(file)
    }

    /// The id of the key in the key file.
    pub fn key_id(&self) -> Result<KeyId> {
        self.keys.load().first().map(|key| key.id).ok_or_else(|| Error::internal("there is no encryption key"))
    }

    /// Completes or undoes a rotation: the key that the database names becomes that of the key file, and any other is
    /// deleted.
    pub fn finish_rotation(&self, current: KeyId) -> Result<()> {
        let next = next_of(&self.file);
        let (current_id, next_id) = (read(&self.file)?.map(|key| key.id), read(&next)?.map(|key| key.id));
        let done = match (current_id, next_id) {
            (_, Some(id)) if id == current => std::fs::rename(&next, &self.file),
            (Some(id), Some(_)) if id == current => std::fs::remove_file(&next),
            (Some(id), None) if id == current => return Ok(()),
            _ => {
                return Err(fault(format!(
                    "{} contains another key than the one that encrypted the secrets in the database ({current}): \
                     restore the key file from the same backup as the database",
                    self.file.display()
                )));
            }
        };
        done.and_then(|()| sync_folder(&self.file))
            .map_err(|e| fault(format!("{} cannot be replaced by {}: {e}", self.file.display(), next.display())))
    }

    /// Generates the next key of a rotation beside the key file. It can be used at once, and is on disk before anything
    /// is encrypted with it.
    pub fn generate_next(&self) -> Result<KeyId> {
        let key = generate(&next_of(&self.file))?;
        let mut keys = self.keys.load().as_ref().clone();
        let id = key.id;
        keys.push(key);
        self.keys.store(keys.into());
        Ok(id)
    }

    /// Encrypts a secret for its location with the key of this id.
    pub fn encrypt(&self, id: KeyId, location: SecretLocation<'_>, clear: &[u8]) -> Result<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == id).ok_or_else(|| location.fault("its key is not available"))?;
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&secret::random()?[..NONCE_BYTES]);
        let payload = Payload { msg: clear, aad: &location.authenticated() };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| location.fault("it is too long"))?;
        Ok([&[VERSION][..], &id.0, &nonce, &sealed].concat())
    }

    /// Decrypts a stored secret of this location. Fails if it was changed, moved, or its key is not available.
    pub fn decrypt(&self, location: SecretLocation<'_>, stored: &[u8]) -> Result<Vec<u8>> {
        if !is_encrypted(stored) {
            return Err(location.fault("it is not encrypted"));
        }
        let (head, sealed) = stored.split_at(HEAD_BYTES);
        let (id, nonce) = head[1..].split_at(ID_BYTES);
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id.0 == id).ok_or_else(|| location.fault("its key is not available"))?;
        let nonce = XNonce::try_from(nonce).map_err(|_| location.fault("it is truncated"))?;
        let payload = Payload { msg: sealed, aad: &location.authenticated() };
        key.cipher.decrypt(&nonce, payload).map_err(|_| location.fault("it was changed, or copied from another row"))
    }
}

/// Whether this has the form of an encrypted secret. No plain text secret has: the longest ones are DER, which begins
/// with another byte, and the others are shorter.
pub fn is_encrypted(stored: &[u8]) -> bool {
    stored.first() == Some(&VERSION) && stored.len() >= HEAD_BYTES + TAG_BYTES
}

fn fault(text: String) -> Error {
    Error::internal("encryption key").with_message(text)
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn next_of(file: &Path) -> PathBuf {
    beside(file, ".new")
}

/// Reads the key in a file; `None` if there is no file. Fails if its mode lets others access it, or the
/// group write it.
fn read(file: &Path) -> Result<Option<Key>> {
    const OPEN_TO_OTHERS: u32 = 0o027;
    let unreadable = |e: std::io::Error| fault(format!("{} cannot be read: {e}", file.display()));
    let found = match std::fs::metadata(file) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e)),
    };
    if found.permissions().mode() & OPEN_TO_OTHERS != 0 {
        let shown = file.display();
        return Err(fault(format!("{shown} is open to other users of this machine: run `chmod 600 {shown}`")));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let mut bytes = [0; KEY_BYTES];
    hex::decode_to_slice(text.trim(), &mut bytes)
        .map_err(|_| fault(format!("{} must contain exactly 64 hexadecimal digits", file.display())))?;
    Ok(Some(Key::new(&bytes)))
}

/// Generates a key and writes it atomically: after a kill there is a complete file or none.
fn generate(file: &Path) -> Result<Key> {
    let bytes = secret::random()?;
    let part = beside(file, ".part");
    let write = || {
        match std::fs::remove_file(&part) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        created.write_all(format!("{}\n", hex::encode(bytes)).as_bytes())?;
        created.sync_all()?;
        std::fs::rename(&part, file)?;
        sync_folder(file)
    };
    write().map_err(|e| fault(format!("{} cannot be created: {e}", file.display())))?;
    Ok(Key::new(&bytes))
}

/// Syncs the folder of a file, so that a rename in it is durable.
fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A column with encrypted secrets, and the SQL to rewrite it.
#[derive(Debug, Clone, Copy)]
pub struct SecretColumn {
    pub table: &'static str,
    pub column: &'static str,
    /// SQL that lists the `row` key and the secret.
    pub list: &'static str,
    /// SQL that sets the secret of `:row` to `:stored`.
    pub set: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn made(folder: &tempfile::TempDir) -> (PathBuf, Encryption, KeyId) {
        let file = folder.path().join("encryption.key");
        let encryption = Encryption::open_or_generate(&file).expect("a key");
        let id = encryption.key_id().expect("its id");
        (file, encryption, id)
    }

    const LOCATION: SecretLocation<'static> = SecretLocation { table: "t", column: "c", row: b"1" };

    #[test]
    fn a_secret_is_decrypted_only_in_its_own_location() {
        let folder = folder();
        let (_, encryption, id) = made(&folder);
        let stored = encryption.encrypt(id, LOCATION, b"a secret").expect("encrypted");
        assert!(is_encrypted(&stored) && !stored.windows(8).any(|part| part == b"a secret"));
        assert_eq!(encryption.decrypt(LOCATION, &stored).expect("decrypted"), b"a secret");
        assert_ne!(encryption.encrypt(id, LOCATION, b"a secret").expect("encrypted"), stored);
        for other in [
            SecretLocation { table: "tc", column: "", ..LOCATION },
            SecretLocation { table: "u", ..LOCATION },
            SecretLocation { column: "d", ..LOCATION },
            SecretLocation { row: b"2", ..LOCATION },
            SecretLocation { row: b"", ..LOCATION },
        ] {
            assert!(encryption.decrypt(other, &stored).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_changed_or_truncated_secret_is_not_decrypted() {
        let folder = folder();
        let (_, encryption, id) = made(&folder);
        let stored = encryption.encrypt(id, LOCATION, b"a secret").expect("encrypted");
        for n in 0..stored.len() {
            let mut changed = stored.clone();
            changed[n] ^= 1;
            assert!(encryption.decrypt(LOCATION, &changed).is_err(), "{n}");
            assert!(encryption.decrypt(LOCATION, &stored[..n]).is_err(), "{n}");
        }
        assert!(encryption.decrypt(LOCATION, &[&stored[..], &[0]].concat()).is_err());
        assert!(encryption.decrypt(LOCATION, b"in clear").is_err());
    }

    #[test]
    fn a_key_is_generated_once_and_is_readable_only_by_its_owner() {
        let folder = folder();
        let (file, encryption, id) = made(&folder);
        assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
        let stored = encryption.encrypt(id, LOCATION, b"s").expect("encrypted");
        let again = Encryption::open_or_generate(&file).expect("the same");
        assert_eq!(again.decrypt(LOCATION, &stored).expect("decrypted"), b"s");
        for (mode, is_taken) in [(0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o601, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(Encryption::open(&file).is_ok(), is_taken, "{mode:o}");
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        for wrong in ["", "00", &"0".repeat(63), &"0".repeat(65), &"x".repeat(64)] {
            std::fs::write(&file, wrong).expect("written");
            assert!(Encryption::open_or_generate(&file).is_err(), "{wrong}");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), wrong);
        }
        std::fs::remove_file(&file).expect("removed");
        assert!(Encryption::open(&file).is_err() && !file.exists());
    }

    #[test]
    fn a_rotation_ends_with_the_key_that_the_database_names() {
        let folder = folder();
        let (file, encryption, old) = made(&folder);
        let stored = encryption.encrypt(old, LOCATION, b"s").expect("encrypted");
        let abandoned = encryption.generate_next().expect("a key");
        // Nothing was committed: the next key is deleted.
        let opened = Encryption::open(&file).expect("both");
        opened.finish_rotation(old).expect("settled");
        assert!(!next_of(&file).exists() && opened.finish_rotation(abandoned).is_err());
        // It was committed: the next key replaces the key file.
        let new = encryption.generate_next().expect("a key");
        let renewed = encryption.encrypt(new, LOCATION, b"s").expect("encrypted");
        let opened = Encryption::open(&file).expect("both");
        assert!(opened.decrypt(LOCATION, &stored).is_ok() && opened.decrypt(LOCATION, &renewed).is_ok());
        opened.finish_rotation(new).expect("settled");
        opened.finish_rotation(new).expect("settled again");
        assert!(!next_of(&file).exists());
        let after = Encryption::open(&file).expect("the new one");
        assert!(after.decrypt(LOCATION, &stored).is_err() && after.decrypt(LOCATION, &renewed).is_ok());
        assert!(after.finish_rotation(old).is_err());
    }
}
