//! Encryption at rest: secrets that must be read back are encrypted in the database, with a key in a separate file. The
//! only user of chacha20poly1305.
//!
//! **Invariant.** A copy of the database alone gives no secret away, and a ciphertext is good in its own place only:
//! table, column and row are authenticated with it. A key is made when a site is founded and when its secrets are first
//! encrypted. Afterwards a key that is missing or wrong is a fault, never a reason to make another.
//!
//! A stored secret is a version byte, the id of its key (8 bytes), a random nonce (24) and the ciphertext with its tag.

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

/// Where a secret lies.
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

    /// No name has a zero byte, so that no two places are the same bytes.
    fn authenticated(&self) -> Vec<u8> {
        [self.table.as_bytes(), &[0], self.column.as_bytes(), &[0], self.row].concat()
    }

    fn fault(&self, why: &str) -> Error {
        let text = format!("{}.{} holds a secret that cannot be decrypted: {why}", self.table, self.column);
        Error::internal(text.clone()).with_message(text)
    }
}

/// The first bytes of a digest of the key: says which key it is, and nothing of it.
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
        hex::decode_to_slice(text, &mut id).map_err(|_| Error::internal("the id of the encryption key is none"))?;
        Ok(Self(id))
    }
}

/// A key, without a way to show it.
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
    /// All that can be read with: the key file's, and around a rotation the one before or after it.
    keys: ArcSwap<Vec<Key>>,
}

impl Encryption {
    /// Reads the key file, and the one that an unfinished rotation left beside it.
    pub fn open(file: &Path) -> Result<Self> {
        let keys: Vec<Key> = [read(file)?, read(&next_of(file))?].into_iter().flatten().collect();
        if keys.is_empty() {
            return Err(fault(format!(
                "{} is missing: the secrets in the database cannot be read without it. Put it back from a backup, or say \
                 in encryption_key_file where it lies",
                file.display()
            )));
        }
        Ok(Self { file: file.to_owned(), keys: ArcSwap::from_pointee(keys) })
    }

    /// The same, and makes the key when there is none: only for a database that holds nothing encrypted.
    pub fn open_or_make(file: &Path) -> Result<Self> {
        if read(file)?.is_none() && read(&next_of(file))?.is_none() {
            make(file)?;
        }
        Self::open(file)
    }

    /// The key of the key file.
    pub fn key_id(&self) -> Result<KeyId> {
        self.keys.load().first().map(|key| key.id).ok_or_else(|| Error::internal("there is no encryption key"))
    }

    /// Ends what a rotation began: the key that the database names is the key file's, and no other is kept on disk.
    pub fn settle(&self, current: KeyId) -> Result<()> {
        let next = next_of(&self.file);
        let (here, there) = (read(&self.file)?.map(|key| key.id), read(&next)?.map(|key| key.id));
        let done = match (here, there) {
            (_, Some(id)) if id == current => std::fs::rename(&next, &self.file),
            (Some(id), Some(_)) if id == current => std::fs::remove_file(&next),
            (Some(id), None) if id == current => return Ok(()),
            _ => {
                return Err(fault(format!(
                    "{} holds another key than the secrets in the database were encrypted with ({current}): put the \
                     right one there, from the same backup as the database",
                    self.file.display()
                )));
            }
        };
        done.and_then(|()| sync_folder(&self.file))
            .map_err(|e| fault(format!("{} cannot be replaced by {}: {e}", self.file.display(), next.display())))
    }

    /// Makes the key of a rotation beside the key file. It is readable at once, and on disk before anything is encrypted
    /// with it.
    pub fn make_next(&self) -> Result<KeyId> {
        let key = make(&next_of(&self.file))?;
        let mut keys = self.keys.load().as_ref().clone();
        let id = key.id;
        keys.push(key);
        self.keys.store(keys.into());
        Ok(id)
    }

    pub fn encrypt(&self, id: KeyId, place: SecretLocation<'_>, clear: &[u8]) -> Result<Vec<u8>> {
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == id).ok_or_else(|| place.fault("its key is not at hand"))?;
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&secret::random()?[..NONCE_BYTES]);
        let payload = Payload { msg: clear, aad: &place.authenticated() };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| place.fault("it is too long"))?;
        Ok([&[VERSION][..], &id.0, &nonce, &sealed].concat())
    }

    pub fn decrypt(&self, place: SecretLocation<'_>, stored: &[u8]) -> Result<Vec<u8>> {
        if !is_encrypted(stored) {
            return Err(place.fault("it is not encrypted"));
        }
        let (head, sealed) = stored.split_at(HEAD_BYTES);
        let (id, nonce) = head[1..].split_at(ID_BYTES);
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id.0 == id).ok_or_else(|| place.fault("its key is not at hand"))?;
        let nonce = XNonce::try_from(nonce).map_err(|_| place.fault("it is cut"))?;
        let payload = Payload { msg: sealed, aad: &place.authenticated() };
        key.cipher.decrypt(&nonce, payload).map_err(|_| place.fault("it was changed, or moved here from elsewhere"))
    }
}

/// Has this the form of an encrypted secret? None of the secrets in clear has: the longest is DER, which begins otherwise,
/// and the others are shorter.
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

/// The key in a file, if there is the file. One that others may read or change is no secret.
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
        .map_err(|_| fault(format!("{} must hold 64 hexadecimal digits, and nothing else", file.display())))?;
    Ok(Some(Key::new(&bytes)))
}

/// Writes a new key as a whole: a kill leaves the file or none.
fn make(file: &Path) -> Result<Key> {
    let bytes = secret::random()?;
    let part = beside(file, ".part");
    let write = || {
        match std::fs::remove_file(&part) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        made.write_all(format!("{}\n", hex::encode(bytes)).as_bytes())?;
        made.sync_all()?;
        std::fs::rename(&part, file)?;
        sync_folder(file)
    };
    write().map_err(|e| fault(format!("{} cannot be made: {e}", file.display())))?;
    Ok(Key::new(&bytes))
}

/// A rename is on disk when its folder is.
fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A column of secrets that must be read back.
#[derive(Debug, Clone, Copy)]
pub struct SecretColumn {
    pub table: &'static str,
    pub column: &'static str,
    /// Lists `row` and secret.
    pub list: &'static str,
    /// Sets `:stored` in `:row`.
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
        let encryption = Encryption::open_or_make(&file).expect("a key");
        let id = encryption.key_id().expect("its id");
        (file, encryption, id)
    }

    const PLACE: SecretLocation<'static> = SecretLocation { table: "t", column: "c", row: b"1" };

    #[test]
    fn a_secret_is_read_in_its_own_place_only() {
        let folder = folder();
        let (_, encryption, id) = made(&folder);
        let stored = encryption.encrypt(id, PLACE, b"a secret").expect("encrypted");
        assert!(is_encrypted(&stored) && !stored.windows(8).any(|part| part == b"a secret"));
        assert_eq!(encryption.decrypt(PLACE, &stored).expect("decrypted"), b"a secret");
        assert_ne!(encryption.encrypt(id, PLACE, b"a secret").expect("encrypted"), stored);
        for other in [
            SecretLocation { table: "tc", column: "", ..PLACE },
            SecretLocation { table: "u", ..PLACE },
            SecretLocation { column: "d", ..PLACE },
            SecretLocation { row: b"2", ..PLACE },
            SecretLocation { row: b"", ..PLACE },
        ] {
            assert!(encryption.decrypt(other, &stored).is_err(), "{other:?}");
        }
    }

    #[test]
    fn no_changed_or_shortened_secret_is_read() {
        let folder = folder();
        let (_, encryption, id) = made(&folder);
        let stored = encryption.encrypt(id, PLACE, b"a secret").expect("encrypted");
        for n in 0..stored.len() {
            let mut changed = stored.clone();
            changed[n] ^= 1;
            assert!(encryption.decrypt(PLACE, &changed).is_err(), "{n}");
            assert!(encryption.decrypt(PLACE, &stored[..n]).is_err(), "{n}");
        }
        assert!(encryption.decrypt(PLACE, &[&stored[..], &[0]].concat()).is_err());
        assert!(encryption.decrypt(PLACE, b"in clear").is_err());
    }

    #[test]
    fn a_key_is_made_once_and_read_by_its_owner_only() {
        let folder = folder();
        let (file, encryption, id) = made(&folder);
        assert_eq!(std::fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
        let stored = encryption.encrypt(id, PLACE, b"s").expect("encrypted");
        let again = Encryption::open_or_make(&file).expect("the same");
        assert_eq!(again.decrypt(PLACE, &stored).expect("decrypted"), b"s");
        for (mode, is_taken) in [(0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o601, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(Encryption::open(&file).is_ok(), is_taken, "{mode:o}");
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        for wrong in ["", "00", &"0".repeat(63), &"0".repeat(65), &"x".repeat(64)] {
            std::fs::write(&file, wrong).expect("written");
            assert!(Encryption::open_or_make(&file).is_err(), "{wrong}");
            assert_eq!(std::fs::read_to_string(&file).expect("read"), wrong);
        }
        std::fs::remove_file(&file).expect("removed");
        assert!(Encryption::open(&file).is_err() && !file.exists());
    }

    #[test]
    fn a_rotation_ends_with_the_key_that_the_database_names() {
        let folder = folder();
        let (file, encryption, old) = made(&folder);
        let stored = encryption.encrypt(old, PLACE, b"s").expect("encrypted");
        let abandoned = encryption.make_next().expect("a key");
        // Nothing was committed: the next one goes.
        let opened = Encryption::open(&file).expect("both");
        opened.settle(old).expect("settled");
        assert!(!next_of(&file).exists() && opened.settle(abandoned).is_err());
        // It was committed: the next one is the key file.
        let new = encryption.make_next().expect("a key");
        let renewed = encryption.encrypt(new, PLACE, b"s").expect("encrypted");
        let opened = Encryption::open(&file).expect("both");
        assert!(opened.decrypt(PLACE, &stored).is_ok() && opened.decrypt(PLACE, &renewed).is_ok());
        opened.settle(new).expect("settled");
        opened.settle(new).expect("settled again");
        assert!(!next_of(&file).exists());
        let after = Encryption::open(&file).expect("the new one");
        assert!(after.decrypt(PLACE, &stored).is_err() && after.decrypt(PLACE, &renewed).is_ok());
        assert!(after.settle(old).is_err());
    }
}
