//! The data directory: private to its owner (0700), and locked by one process at a time.
//!
//! **Invariant.** The lock is on the directory itself, which cannot be replaced while a database is open in it. The second
//! lock, on `roster.lock`, is for older versions and for file systems that cannot lock directories. `roster.lock` holds
//! the path of the server's socket.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failed;
use crate::kernel::config;
use crate::kernel::error::Result;
use crate::kernel::runtime::health::WatchedFile;

/// Creates the directory (0700) and a `roster.toml` that sets nothing (0600). Existing files stay as they are.
pub fn create(data: &Path) -> Result<(), Failed> {
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => unusable(data, &ErrorKind::NotADirectory.into()),
        _ => unusable(data, &e),
    })?;
    // An existing directory may be readable for other users. Its files must not be.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(|e| unusable(data, &e))?;
    let has_site = exists(data)?;
    let settings = data.join(config::FILE_NAME);
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&settings);
    match created {
        Ok(mut file) => match file.write_all(config::template().as_bytes()) {
            Err(e) if !has_site => Err(Failed(format!("{}: {e}", settings.display()))),
            // An existing site needs no template: with a full disk it is served without one.
            Err(_) => Ok(std::fs::remove_file(&settings)?),
            Ok(()) => Ok(()),
        },
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Failed(format!("{} cannot be written: {e}", settings.display()))),
    }
}

/// Whether the directory has a site. Fails if this user cannot read it, so that no second site is created over a hidden
/// one.
pub fn exists(data: &Path) -> Result<bool, Failed> {
    let file = data.join("roster.db");
    match std::fs::metadata(&file) {
        Ok(_) => {
            let access = rustix::fs::access(file.as_path(), rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
            match access.map_err(std::io::Error::from) {
                Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(unusable(&file, &e)),
                // Other faults are reported when the database is opened.
                _ => Ok(true),
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(unusable(data, &e)),
    }
}

/// The failure for a directory or a file in it that cannot be used. If access is denied, it names the owner.
fn unusable(path: &Path, error: &std::io::Error) -> Failed {
    let shown = path.display();
    let is_closed = matches!(error.kind(), ErrorKind::PermissionDenied) || error.raw_os_error() == Some(NOT_PERMITTED);
    if !is_closed {
        return Failed(match error.kind() {
            ErrorKind::NotADirectory => {
                format!("{shown} is a file, not a data directory: name another one with --data")
            }
            _ => format!("{shown} cannot be used: {error}"),
        });
    }
    let us = rustix::process::geteuid().as_raw();
    // The longest ancestor whose metadata is readable.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let readable = absolute.ancestors().find_map(|part| Some((part, std::fs::metadata(part).ok()?.uid())));
    Failed(match readable.filter(|(_, owner)| *owner != us) {
        Some((part, owner)) => format!(
            "{shown} is not accessible to this user: {} belongs to user {owner}, and you are user {us}. Run this as its owner \
             (`sudo -u '#{owner}' roster …`), or take ownership with chown",
            part.display()
        ),
        None => format!("{shown} is not accessible to you, its owner: restore access with `chmod u+rwX`"),
    })
}

/// `EPERM`: only the owner may change permissions of a file.
const NOT_PERMITTED: i32 = 1;

/// The exclusive lock on a data directory, held until it is dropped.
pub struct Lock {
    file: File,
    watched: WatchedFile,
    _directory: Option<File>,
}

/// The process that holds the lock of the directory.
pub enum Owner {
    ThisProcess(Lock),
    /// Another process. The path of its socket if it is a server; empty while it starts, and for a command.
    Server(PathBuf),
}

/// Locks the directory, or returns the socket of the server that holds the lock.
pub fn lock(data: &Path) -> Result<Owner, Failed> {
    let path = data.join("roster.lock");
    let failed = |e: &std::io::Error| unusable(&path, e);
    let directory = File::open(data).map_err(|e| unusable(data, &e))?;
    let directory = match directory.try_lock() {
        Ok(()) => Some(directory),
        Err(TryLockError::WouldBlock) => return Ok(Owner::Server(announced_socket(data, &path))),
        // Some network file systems cannot lock directories.
        Err(TryLockError::Error(_)) => None,
    };
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Owner::Server(announced_socket(data, &path))),
            Err(TryLockError::Error(e)) => return Err(failed(&e)),
        }
        // The file may have been removed meanwhile, and another process may have locked its replacement.
        if let Ok(watched) = WatchedFile::of(&path)
            && watched.is(&file)
        {
            return Ok(Owner::ThisProcess(Lock { file, watched, _directory: directory }));
        }
    }
}

/// How long a starting server waits for a command that holds the lock.
const COMMAND_WAIT: Duration = Duration::from_secs(10);
/// How often a starting server tries to lock. Short, because a script leaves the lock free only briefly between
/// commands.
const LOCK_RETRY_WAIT: Duration = Duration::from_millis(3);

/// Locks the directory for a server. Fails at once if another server answers, and waits for a running command.
pub async fn lock_to_serve(data: &Path) -> Result<Lock, Failed> {
    let shown = data.display();
    for _ in 0..COMMAND_WAIT.as_millis() / LOCK_RETRY_WAIT.as_millis() {
        match lock(data)? {
            Owner::ThisProcess(lock) => return Ok(lock),
            Owner::Server(socket) => {
                // A killed server leaves its socket behind, but nothing answers on it.
                if !socket.as_os_str().is_empty() && tokio::net::UnixStream::connect(&socket).await.is_ok() {
                    return Err(Failed(format!(
                        "another Roster serves {shown} already: stop it, or use another --data"
                    )));
                }
            }
        }
        tokio::time::sleep(LOCK_RETRY_WAIT).await;
    }
    Err(lock_timeout(data, COMMAND_WAIT))
}

/// The failure after waiting `waited` for a lock that another process did not release.
pub fn lock_timeout(data: &Path, waited: Duration) -> Failed {
    Failed(format!(
        "another Roster process has locked {0} and did not release it within {1} seconds: a command that is still running, or \
         a server that is starting or hangs. `lsof {0}/roster.lock` shows the process",
        data.display(),
        waited.as_secs()
    ))
}

/// The socket of the server that holds the lock: the path in the lock file, else a default path that exists, else
/// empty.
fn announced_socket(data: &Path, lock: &Path) -> PathBuf {
    let written = std::fs::read_to_string(lock).unwrap_or_default();
    match written.trim() {
        "" => default_sockets(data).into_iter().flatten().find(|socket| socket.exists()).unwrap_or_default(),
        path => PathBuf::from(path),
    }
}

impl Lock {
    /// The identity of the lock file at the time it was locked.
    pub fn watched_file(&self) -> WatchedFile {
        self.watched.clone()
    }

    /// Writes the path of the server's socket to the lock file. An empty path withdraws it.
    pub fn announce(&mut self, socket: &Path) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(socket.display().to_string().as_bytes())?;
        self.file.sync_all()
    }
}

/// Longest path of a Unix socket that every system accepts (macOS: 104 bytes with the terminating zero).
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// The path of the server's local socket: in the data directory, or in a private directory below `/tmp` if that path is
/// too long. The short path is the same at every start, so a killed server leaves no directories behind.
pub fn socket_path(data: &Path) -> Result<PathBuf, Failed> {
    let [near, short] = default_sockets(data);
    if let Some(near) = near {
        return Ok(near);
    }
    let known = short.filter(|socket| socket.parent().is_some_and(is_made_private));
    known.map_or_else(|| Ok(private_short_directory()?.join(SOCKET)), Ok)
}

const SOCKET: &str = "roster.sock";

/// The socket path in the data directory, unless it is too long, and the one in the short directory.
fn default_sockets(data: &Path) -> [Option<PathBuf>; 2] {
    let near = std::path::absolute(data).ok().map(|data| data.join(SOCKET));
    let whole = std::fs::canonicalize(data).ok();
    let name = whole.map(|data| hex::encode(&crate::kernel::secret::hash(&data.to_string_lossy())[..8]));
    let short = name.map(|name| PathBuf::from("/tmp").join(format!("roster-{name}")).join(SOCKET));
    [near.filter(|near| near.as_os_str().len() <= SOCKET_PATH_BYTES_MAX), short]
}

/// Creates the directory (0700), or checks that an existing one is private to this user. Any user can write to `/tmp`.
fn is_made_private(directory: &Path) -> bool {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => true,
        Err(_) => std::fs::symlink_metadata(directory).is_ok_and(|found| {
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
        }),
    }
}

fn private_short_directory() -> Result<PathBuf, Failed> {
    let name = hex::encode(&crate::kernel::secret::random()?[..8]);
    let short = PathBuf::from("/tmp").join(format!("roster-{name}"));
    DirBuilder::new().mode(0o700).create(&short)?;
    Ok(short)
}

/// Removes the short directory of a socket whose path in the data directory is too long.
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

/// A temporary directory that is removed when this is dropped.
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
            tracing::warn!(error = %e, "a scratch directory could not be removed");
        }
    }
}
