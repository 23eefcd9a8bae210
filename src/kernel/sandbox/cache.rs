//! The cache of compiled components on disk, outside the database, bounded by bytes: for each organization, and for the
//! site.
//!
//! **Invariant.** An artifact has a MAC under a key of this site, and the buffer whose MAC was checked is the one that
//! is loaded.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile::component_of;
use super::inspect::STRUCTURE_VERSION;
use super::memory::Key;
use crate::kernel::secret::{self, Hash, KeyedDigest};

const MAC_BYTES: usize = 32;

/// The folder of compiled components.
pub(super) struct Cache {
    folder: PathBuf,
    sealer: KeyedDigest,
    bytes_max: u64,
    bytes_per_organization: u64,
    /// Serializes changes.
    changing: Mutex<()>,
    bytes: AtomicU64,
    evicted: AtomicU64,
}

/// A complete file in the folder.
struct Entry {
    path: PathBuf,
    /// The organization, from the beginning of the file name.
    owner: String,
    /// The digest of the component, from the file name.
    component: String,
    bytes: u64,
    /// The time of the last use, in seconds and nanoseconds.
    used: (i64, i64),
}

fn owner_of(key: &Key) -> String {
    key.0.0.simple().to_string()
}

impl Cache {
    pub(super) fn new(folder: &Path, key: Hash, bytes_max: u64, bytes_per_organization: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            sealer: KeyedDigest::new(key),
            bytes_max,
            bytes_per_organization,
            changing: Mutex::default(),
            bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    fn file(&self, engine: &Engine, key: &Key) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let (owner, component) = (owner_of(key), hex::encode(key.1));
        self.folder.join(format!("{owner}-{component}-{:016x}-{STRUCTURE_VERSION}", hasher.finish()))
    }

    fn mac(&self, name: &Path, artifact: &[u8]) -> Hash {
        let name = name.file_name().map(|name| name.as_encoded_bytes().to_owned()).unwrap_or_default();
        self.sealer.digest("compiled plugin", &[&name, artifact])
    }

    /// The size of the file of a component, if there is one.
    pub(super) fn find_bytes(&self, engine: &Engine, key: &Key) -> Option<u64> {
        std::fs::metadata(self.file(engine, key)).ok().map(|metadata| metadata.len())
    }

    /// Loads a compiled component. Returns `None` if there is none, or if it is damaged, forged or incompatible.
    pub(super) fn load(&self, engine: &Engine, key: &Key) -> Option<Component> {
        let file = self.file(engine, key);
        let bytes = std::fs::read(&file).ok()?;
        let (mac, artifact) = bytes.split_at_checked(MAC_BYTES)?;
        let mac: &Hash = mac.try_into().ok()?;
        if !secret::equal(&self.mac(&file, artifact), mac) {
            tracing::warn!(file = %file.display(), "the MAC of a compiled plugin is wrong; the file is not used");
            return None;
        }
        match component_of(engine, artifact) {
            Ok(component) => {
                touch(&file);
                Some(component)
            }
            Err(e) => {
                tracing::warn!(file = %file.display(), error = %e, "a compiled plugin cannot be loaded and is compiled again");
                None
            }
        }
    }

    /// Deletes incomplete files and the files of components that are not stored, and then the least recently used files
    /// above the limits.
    pub(super) fn sweep(&self, stored: &HashSet<Key>, in_force: &HashSet<Key>) {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored: HashSet<_> = stored.iter().map(|key| (owner_of(key), hex::encode(key.1))).collect();
        let entries = self.entries(true);
        let (mut kept, obsolete): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| stored.contains(&(entry.owner.clone(), entry.component.clone())));
        obsolete.iter().for_each(|entry| delete(&entry.path));
        self.make_space(&mut kept, in_force, "", 0);
    }

    /// Deletes all files of one component.
    pub(super) fn forget(&self, key: &Key) {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (owner, component) = (owner_of(key), hex::encode(key.1));
        let mut entries = self.entries(false);
        entries.retain(|entry| {
            let is_deleted = entry.owner == owner && entry.component == component;
            if is_deleted {
                delete(&entry.path);
            }
            !is_deleted
        });
        self.count(&entries, 0);
    }

    /// Stores an artifact atomically: writes a temporary file and renames it. Deletes least recently used files to make
    /// space, active components last. An artifact that is larger than a limit is not stored.
    pub(super) fn keep(
        &self,
        engine: &Engine,
        key: &Key,
        artifact: &[u8],
        in_force: &HashSet<Key>,
    ) -> std::io::Result<()> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        std::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o700))?;
        let file = self.file(engine, key);
        let bytes = (MAC_BYTES + artifact.len()) as u64;
        if bytes > self.bytes_max.min(self.bytes_per_organization) {
            tracing::info!(
                bytes,
                "a compiled plugin is larger than plugins.cache_bytes allows and is not kept on disk"
            );
            return Ok(());
        }
        let mut others = self.entries(false);
        others.retain(|entry| entry.path != file);
        self.make_space(&mut others, in_force, &owner_of(key), bytes);
        let temporary = file.with_extension(format!("{}", uuid::Uuid::now_v7().simple()));
        let written = self.write(&file, &temporary, artifact).and_then(|()| std::fs::rename(&temporary, &file));
        if written.is_err() {
            // There may be no file, and a failure to remove one cannot be handled here.
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }

    fn write(&self, file: &Path, temporary: &Path, artifact: &[u8]) -> std::io::Result<()> {
        let mut open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        open.write_all(&self.mac(file, artifact))?;
        open.write_all(artifact)
    }

    /// Lists all complete files, and deletes the others if `deletes_others`.
    fn entries(&self, deletes_others: bool) -> Vec<Entry> {
        // There is no folder before the first component is compiled.
        let Ok(files) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let read = |file: std::fs::DirEntry| {
            let (name, path) = (file.file_name(), file.path());
            let name = name.to_str().unwrap_or_default();
            let mut parts = name.split('-');
            match (parts.next(), parts.next(), parts.next(), file.metadata()) {
                (Some(owner), Some(component), Some(_), Ok(metadata)) if !name.contains('.') => Some(Entry {
                    path,
                    owner: owner.to_owned(),
                    component: component.to_owned(),
                    bytes: metadata.len(),
                    used: (metadata.atime(), metadata.atime_nsec()),
                }),
                _ => {
                    if deletes_others {
                        delete(&path);
                    }
                    None
                }
            }
        };
        files.flatten().filter_map(read).collect()
    }

    /// Deletes files until `more` bytes of this owner fit into the limits.
    fn make_space(&self, entries: &mut Vec<Entry>, in_force: &HashSet<Key>, owner: &str, more: u64) {
        let in_force: HashSet<_> = in_force.iter().map(|key| (owner_of(key), hex::encode(key.1))).collect();
        loop {
            let mut sums: HashMap<&str, u64> = HashMap::new();
            for entry in entries.iter() {
                *sums.entry(&entry.owner).or_default() += entry.bytes;
            }
            let total = sums.values().sum::<u64>() + more;
            if let Some(own) = sums.get_mut(owner) {
                *own += more;
            }
            // Files of the owner with the most bytes are deleted, whichever limit is exceeded.
            let Some((most, bytes)) = sums.into_iter().max_by_key(|(_, bytes)| *bytes) else { break };
            if bytes <= self.bytes_per_organization && total <= self.bytes_max {
                break;
            }
            let is_in_force = |entry: &Entry| in_force.contains(&(entry.owner.clone(), entry.component.clone()));
            let own = entries.iter().enumerate().filter(|(_, entry)| entry.owner == most);
            let Some((at, _)) = own.min_by_key(|(_, entry)| (is_in_force(entry), entry.used)) else { break };
            delete(&entries.swap_remove(at).path);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.count(entries, more);
    }

    fn count(&self, entries: &[Entry], more: u64) {
        self.bytes.store(entries.iter().map(|entry| entry.bytes).sum::<u64>() + more, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

fn delete(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        tracing::warn!(file = %path.display(), error = %e, "a compiled plugin cannot be deleted");
    }
}

/// Sets the access time of a file to now, and leaves its modification time.
fn touch(path: &Path) {
    let of = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps { last_access: of(UTIME_NOW), last_modification: of(UTIME_OMIT) };
    // If this fails, the file is only evicted earlier.
    let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::OrganizationId;
    use crate::kernel::sandbox::engine::{self, Space};

    const DIGEST: Hash = [7; 32];

    fn key(digest: Hash) -> Key {
        (OrganizationId(uuid::Uuid::from_u128(1)), digest)
    }

    fn cache(folder: &Path, seal: Hash) -> Cache {
        Cache::new(folder, seal, u64::MAX, u64::MAX)
    }

    fn made(space: Space) -> (Engine, Vec<u8>) {
        let engine = engine::compiler(space).expect("an engine");
        let component = wat::parse_str("(component (core module (func)))").expect("text");
        let artifact = engine.precompile_component(&component).expect("compiled");
        (engine, artifact)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<_> = std::fs::read_dir(folder).expect("folder").map(|file| file.expect("file").path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn a_stored_artifact_is_private_and_found_after_a_restart() {
        let directory = tempfile::tempdir().expect("a folder");
        let folder = directory.path().join("compiled-plugins");
        let (engine, artifact) = made(Space::Roomy);
        let kept = cache(&folder, [1; 32]);
        assert!(kept.load(&engine, &key(DIGEST)).is_none());
        kept.keep(&engine, &key(DIGEST), &artifact, &HashSet::new()).expect("kept");
        kept.keep(&engine, &key(DIGEST), &artifact, &HashSet::new()).expect("kept once more");
        assert_eq!((mode(&folder), mode(&only_file(&folder))), (0o700, 0o600));
        assert!(kept.load(&engine, &key(DIGEST)).is_some());
        assert!(cache(&folder, [1; 32]).load(&engine, &key(DIGEST)).is_some(), "as after a restart");
        assert!(kept.load(&engine, &key([8; 32])).is_none(), "another component");
    }

    #[test]
    fn the_mode_of_a_readable_folder_is_restricted() {
        let directory = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
        let (engine, artifact) = made(Space::Roomy);
        cache(directory.path(), [1; 32]).keep(&engine, &key(DIGEST), &artifact, &HashSet::new()).expect("kept");
        assert_eq!(mode(directory.path()), 0o700);
    }

    #[test]
    fn a_changed_file_is_not_loaded() {
        let directory = tempfile::tempdir().expect("a folder");
        let (engine, artifact) = made(Space::Roomy);
        let kept = cache(directory.path(), [1; 32]);
        kept.keep(&engine, &key(DIGEST), &artifact, &HashSet::new()).expect("kept");
        let file = only_file(directory.path());
        let right = std::fs::read(&file).expect("bytes");
        for at in [0, MAC_BYTES - 1, MAC_BYTES, right.len() / 2, right.len() - 1] {
            let mut flipped = right.clone();
            flipped[at] ^= 1;
            std::fs::write(&file, flipped).expect("written");
            assert!(kept.load(&engine, &key(DIGEST)).is_none(), "a bit of byte {at}");
        }
        for length in [0, MAC_BYTES - 1, MAC_BYTES, right.len() - 1] {
            std::fs::write(&file, &right[..length]).expect("written");
            assert!(kept.load(&engine, &key(DIGEST)).is_none(), "{length} bytes");
        }
        std::fs::write(&file, &right).expect("written");
        assert!(kept.load(&engine, &key(DIGEST)).is_some());
        assert!(cache(directory.path(), [2; 32]).load(&engine, &key(DIGEST)).is_none(), "the key of another site");
        // A renamed file is not loaded as another component, because the MAC covers its name.
        std::fs::rename(&file, kept.file(&engine, &key([8; 32]))).expect("moved");
        assert!(kept.load(&engine, &key([8; 32])).is_none());
    }

    #[test]
    fn an_artifact_of_another_engine_configuration_is_not_loaded() {
        let directory = tempfile::tempdir().expect("a folder");
        let kept = cache(directory.path(), [1; 32]);
        let ((roomy, artifact), (scarce, _)) = (made(Space::Roomy), made(Space::Scarce));
        kept.keep(&roomy, &key(DIGEST), &artifact, &HashSet::new()).expect("kept");
        assert!(kept.load(&scarce, &key(DIGEST)).is_none());
        // Not even with the right name and MAC.
        kept.keep(&scarce, &key(DIGEST), &artifact, &HashSet::new()).expect("kept");
        assert!(kept.load(&scarce, &key(DIGEST)).is_none());
        assert!(kept.load(&roomy, &key(DIGEST)).is_some());
    }

    /// Creates files of (organization, component, size), last used in this order.
    fn filled(folder: &Path, files: &[(u128, u8, usize)]) {
        std::fs::create_dir_all(folder).expect("a folder");
        for (n, (organization, component, bytes)) in (0..).zip(files) {
            let key = (OrganizationId(uuid::Uuid::from_u128(*organization)), [*component; 32]);
            let file = folder.join(format!("{}-{}-0-0", owner_of(&key), hex::encode(key.1)));
            std::fs::write(&file, vec![0; *bytes]).expect("written");
            let at = Timespec { tv_sec: 1_000 + n, tv_nsec: 0 };
            let times = Timestamps { last_access: at, last_modification: at };
            rustix::fs::utimensat(CWD, &file, &times, AtFlags::empty()).expect("touched");
        }
    }

    #[test]
    fn the_least_recently_used_of_the_largest_owner_is_evicted_and_active_ones_last() {
        let key =
            |organization: u128, component: u8| (OrganizationId(uuid::Uuid::from_u128(organization)), [component; 32]);
        // Three of one organization, one of another.
        let files = [(2, 9, 300), (1, 1, 200), (1, 2, 200), (1, 3, 200)];
        type Case<'c> = (u64, u64, &'c [u8], &'c [(u128, u8)]);
        let cases: [Case; 7] = [
            (900, 600, &[], &[(1, 1), (1, 2), (1, 3), (2, 9)]),
            (900, 599, &[], &[(1, 2), (1, 3), (2, 9)]),
            (899, 600, &[], &[(1, 2), (1, 3), (2, 9)]),
            (900, 599, &[1], &[(1, 1), (1, 3), (2, 9)]),
            (900, 399, &[1, 3], &[(1, 3), (2, 9)]),
            // Now the other organization has the most.
            (500, 600, &[], &[(1, 3), (2, 9)]),
            (499, 600, &[], &[(1, 3)]),
        ];
        for (all, own, in_force, left) in cases {
            let directory = tempfile::tempdir().expect("a folder");
            filled(directory.path(), &files);
            std::fs::write(directory.path().join("0-0-0.half"), b"half").expect("written");
            filled(directory.path(), &[(3, 1, 1)]);
            std::fs::rename(
                directory.path().join(format!("{}-{}-0-0", owner_of(&key(3, 1)), "01".repeat(32))),
                directory.path().join("of-an-older-kind"),
            )
            .expect("moved");
            let cache = Cache::new(directory.path(), [1; 32], all, own);
            let stored = files.iter().map(|(organization, component, _)| key(*organization, *component)).collect();
            cache.sweep(&stored, &in_force.iter().map(|component| key(1, *component)).collect());
            let mut there: Vec<_> = std::fs::read_dir(directory.path())
                .expect("folder")
                .map(|file| file.expect("file").file_name().to_string_lossy().into_owned())
                .collect();
            there.sort();
            let name = |(organization, component): &(u128, u8)| {
                let key = key(*organization, *component);
                format!("{}-{}-0-0", owner_of(&key), hex::encode(key.1))
            };
            assert_eq!(there, left.iter().map(name).collect::<Vec<_>>(), "{all} {own} {in_force:?}");
            let bytes: u64 = left.iter().map(|(organization, _)| if *organization == 1 { 200 } else { 300 }).sum();
            assert_eq!((cache.bytes(), cache.evicted()), (bytes, 4 - left.len() as u64));
        }
    }

    #[test]
    fn storing_evicts_others_and_an_artifact_above_the_limit_is_not_stored() {
        let (engine, artifact) = made(Space::Roomy);
        let bytes = (MAC_BYTES + artifact.len()) as u64;
        for (own, left) in [(2 * bytes, [true, true]), (2 * bytes - 1, [false, true]), (bytes - 1, [false, false])] {
            let directory = tempfile::tempdir().expect("a folder");
            let cache = Cache::new(directory.path(), [1; 32], u64::MAX, own);
            for digest in [DIGEST, [8; 32]] {
                cache.keep(&engine, &key(digest), &artifact, &HashSet::new()).expect("kept");
            }
            let is_there = [DIGEST, [8; 32]].map(|digest| cache.load(&engine, &key(digest)).is_some());
            assert_eq!(is_there, left);
            assert_eq!(cache.bytes(), left.iter().filter(|is_there| **is_there).count() as u64 * bytes);
        }
    }
}
