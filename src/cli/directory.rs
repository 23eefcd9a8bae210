//! The data directory: made private, and owned by one process at a time.
//!
//! **Invariant.** The lock is on the directory itself, which nobody removes while a database is open in it. The lock on
//! `roster.lock` is for older versions and for file systems that lock no directories; the file says where the server
//! answers.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Failed;
use crate::config;
use crate::error::Result;
use crate::health::Place;

/// Creates the directory (0700) with a `roster.toml` that sets nothing (0600); leaves what is there.
pub fn create(data: &Path) -> Result<(), Failed> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|e| Failed(format!("{} cannot be made: {e}", data.display())))?;
    // One that was there before may be open to others: what will lie in it is not for them.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
        .map_err(|e| Failed(format!("{} cannot be made private: {e}", data.display())))?;
    let settings = data.join(config::FILE_NAME);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&settings);
    match made {
        Ok(mut file) => match file.write_all(config::template().as_bytes()) {
            Err(e) if !exists(data) => Err(Failed(format!("{}: {e}", settings.display()))),
            // A site that is there needs no template: on a full disk it is served without.
            Err(_) => Ok(std::fs::remove_file(&settings)?),
            Ok(()) => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Failed(format!("{} cannot be written: {e}", settings.display()))),
    }
}

pub fn exists(data: &Path) -> bool {
    data.join("roster.db").exists()
}

/// The right to use a data directory, held until the process ends.
pub struct Lock {
    file: File,
    place: Place,
    _directory: Option<File>,
}

/// Who has the directory.
pub enum Owner {
    Us(Lock),
    /// A server, which answers on this socket; empty while it starts.
    Server(PathBuf),
}

/// Takes the directory, or finds the socket of the server that has it.
pub fn lock(data: &Path) -> Result<Owner, Failed> {
    let path = data.join("roster.lock");
    let failed = |e: &dyn std::fmt::Display| Failed(format!("{} cannot be used: {e}", path.display()));
    let directory = File::open(data).map_err(|e| failed(&e))?;
    let directory = match directory.try_lock() {
        Ok(()) => Some(directory),
        Err(TryLockError::WouldBlock) => return Ok(Owner::Server(announced(data, &path))),
        // Some network file systems lock no directories.
        Err(TryLockError::Error(_)) => None,
    };
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Owner::Server(announced(data, &path))),
            Err(TryLockError::Error(e)) => return Err(failed(&e)),
        }
        // Who removed the file meanwhile may have locked another one.
        if let Ok(place) = Place::of(&path)
            && place.is(&file)
        {
            return Ok(Owner::Us(Lock { file, place, _directory: directory }));
        }
    }
}

/// Where the server that has the directory answers: as it said, or where it would by default.
fn announced(data: &Path, lock: &Path) -> PathBuf {
    let said = std::fs::read_to_string(lock).unwrap_or_default();
    match said.trim() {
        "" => default_sockets(data).into_iter().flatten().find(|socket| socket.exists()).unwrap_or_default(),
        said => PathBuf::from(said),
    }
}

impl Lock {
    /// The lock file, as it was when it was locked.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Says in the lock file where the server answers; an empty path takes it back.
    pub fn announce(&mut self, socket: &Path) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(socket.display().to_string().as_bytes())?;
        self.file.sync_all()
    }
}

/// Longest path of a Unix socket that every system takes (macOS: 104 with the end).
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Where the server's local socket goes: in the data directory, or in a private short one where that is too long. The
/// short one is the same at every start, so that nothing is left behind by a server that was killed.
pub fn socket_path(data: &Path) -> Result<PathBuf, Failed> {
    let [near, short] = default_sockets(data);
    if let Some(near) = near {
        return Ok(near);
    }
    let known = short.filter(|socket| socket.parent().is_some_and(is_made_private));
    known.map_or_else(|| Ok(private_short_directory()?.join(SOCKET)), Ok)
}

const SOCKET: &str = "roster.sock";

/// The socket in the data directory, unless its path is too long, and the one in the short directory.
fn default_sockets(data: &Path) -> [Option<PathBuf>; 2] {
    let near = std::path::absolute(data).ok().map(|data| data.join(SOCKET));
    let whole = std::fs::canonicalize(data).ok();
    let name = whole.map(|data| hex::encode(&crate::access::secret::hash(&data.to_string_lossy())[..8]));
    let short = name.map(|name| PathBuf::from("/tmp").join(format!("roster-{name}")).join(SOCKET));
    [near.filter(|near| near.as_os_str().len() <= SOCKET_PATH_BYTES_MAX), short]
}

/// Makes a directory, or takes the one that is there if it is nobody else's: anybody may write to `/tmp`.
fn is_made_private(directory: &Path) -> bool {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => true,
        Err(_) => std::fs::symlink_metadata(directory).is_ok_and(|found| {
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
        }),
    }
}

fn private_short_directory() -> Result<PathBuf, Failed> {
    let name = hex::encode(&crate::access::secret::random()?[..8]);
    let short = PathBuf::from("/tmp").join(format!("roster-{name}"));
    DirBuilder::new().mode(0o700).create(&short)?;
    Ok(short)
}

/// Removes the private directory of a socket that did not fit into the data directory.
pub fn remove_short(socket: &Path) -> Result<(), Failed> {
    match socket.parent() {
        Some(parent) if parent.starts_with("/tmp") && parent.file_name().is_some_and(is_short) => {
            Ok(std::fs::remove_dir(parent)?)
        }
        _ => Ok(()),
    }
}

fn is_short(name: &std::ffi::OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix("roster-"));
    random.is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A directory that is gone when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Self, Failed> {
        private_short_directory().map(Self)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(error = %e, "a scratch directory stays behind");
        }
    }
}
