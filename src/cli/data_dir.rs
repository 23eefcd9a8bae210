//! The data directory: made private, and owned by one process at a time.
//!
//! **Invariant.** The lock is on the directory itself, which nobody removes while a database is open in it. The lock on
//! `roster.lock` is for older versions and for file systems that lock no directories; the file says where the server
//! answers.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failed;
use crate::kernel::config;
use crate::kernel::error::Result;
use crate::kernel::runtime::health::WatchedFolder;

/// Creates the directory (0700) with a `roster.toml` that sets nothing (0600); leaves what is there.
pub fn create(data: &Path) -> Result<(), Failed> {
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => unusable(data, &ErrorKind::NotADirectory.into()),
        _ => unusable(data, &e),
    })?;
    // One that was there before may be open to others: what will lie in it is not for them.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)).map_err(|e| unusable(data, &e))?;
    let is_there = exists(data)?;
    let settings = data.join(config::FILE_NAME);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&settings);
    match made {
        Ok(mut file) => match file.write_all(config::template().as_bytes()) {
            Err(e) if !is_there => Err(Failed(format!("{}: {e}", settings.display()))),
            // A site that is there needs no template: on a full disk it is served without.
            Err(_) => Ok(std::fs::remove_file(&settings)?),
            Ok(()) => Ok(()),
        },
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Failed(format!("{} cannot be written: {e}", settings.display()))),
    }
}

/// Is there a site? Fails where this user cannot see or use it: nothing is made beside what is only hidden.
pub fn exists(data: &Path) -> Result<bool, Failed> {
    let file = data.join("roster.db");
    match std::fs::metadata(&file) {
        Ok(_) => {
            let access = rustix::fs::access(file.as_path(), rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK);
            match access.map_err(std::io::Error::from) {
                Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(unusable(&file, &e)),
                // Whatever else is wrong with it is found, and told, when it is opened.
                _ => Ok(true),
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(unusable(data, &e)),
    }
}

/// Why a directory or a file of it cannot be used, and by whom it could.
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
    // The first part from the end that can be seen at all.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let seen = whole.ancestors().find_map(|part| Some((part, std::fs::metadata(part).ok()?.uid())));
    Failed(match seen.filter(|(_, owner)| *owner != us) {
        Some((part, owner)) => format!(
            "{shown} is closed to this user: {} belongs to user {owner}, and you are user {us}. Run this as its owner \
             (`sudo -u '#{owner}' roster …`), or give it to you with chown",
            part.display()
        ),
        None => format!("{shown} is closed to you, its owner: open it again with `chmod u+rwX`"),
    })
}

/// `EPERM`: only an owner may change who may do what.
const NOT_PERMITTED: i32 = 1;

/// The right to use a data directory, held until the process ends.
pub struct Lock {
    file: File,
    place: WatchedFolder,
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
    let failed = |e: &std::io::Error| unusable(&path, e);
    let directory = File::open(data).map_err(|e| unusable(data, &e))?;
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
        if let Ok(place) = WatchedFolder::of(&path)
            && place.is(&file)
        {
            return Ok(Owner::Us(Lock { file, place, _directory: directory }));
        }
    }
}

/// How long a server that starts waits for a command that has the directory.
const COMMAND_WAIT: Duration = Duration::from_secs(10);
/// How often it looks: between two commands of a script there is not much more time.
const PAUSE: Duration = Duration::from_millis(3);

/// Takes the directory for a server: one that answers already is told of at once, a command is waited for.
pub async fn lock_to_serve(data: &Path) -> Result<Lock, Failed> {
    let shown = data.display();
    for _ in 0..COMMAND_WAIT.as_millis() / PAUSE.as_millis() {
        match lock(data)? {
            Owner::Us(lock) => return Ok(lock),
            Owner::Server(socket) => {
                // One that was killed leaves its socket, at which nobody answers.
                if !socket.as_os_str().is_empty() && tokio::net::UnixStream::connect(&socket).await.is_ok() {
                    return Err(Failed(format!(
                        "another Roster serves {shown} already: stop it, or use another --data"
                    )));
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(held(data, COMMAND_WAIT))
}

/// Somebody has the directory, says nothing, and did not let go of it for so long.
pub fn held(data: &Path, waited: Duration) -> Failed {
    Failed(format!(
        "another process of Roster has {0} and did not let go of it within {1} seconds: a command that still runs, or a \
         server that starts or hangs. `lsof {0}/roster.lock` shows which one",
        data.display(),
        waited.as_secs()
    ))
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
    pub fn place(&self) -> WatchedFolder {
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
    let name = whole.map(|data| hex::encode(&crate::kernel::secret::hash(&data.to_string_lossy())[..8]));
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
    let name = hex::encode(&crate::kernel::secret::random()?[..8]);
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
