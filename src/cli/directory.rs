//! The data directory: made private, and owned by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Failed;
use crate::config;
use crate::error::{Error, Result};

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
        Ok(mut file) => {
            file.write_all(config::template().as_bytes()).map_err(|e| Failed(format!("{}: {e}", settings.display())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Failed(format!("{} cannot be written: {e}", settings.display()))),
    }
}

/// Creates a file that only its owner reads; SQLite gives its side files the same rights.
pub fn create_file(path: &Path) -> Result<()> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .or_else(|e| if path.exists() { Ok(()) } else { Err(e) })
        .map_err(|e| {
            Error::internal(format!("{}: {e}", path.display()))
                .saying(format!("{} cannot be made: {e}", path.display()))
        })
}

pub fn exists(data: &Path) -> bool {
    data.join("roster.db").exists()
}

/// The right to use a data directory, held until the process ends.
pub struct Lock {
    file: File,
}

/// Who has the directory.
pub enum Owner {
    Us(Lock),
    /// A server, which answers on this socket.
    Server(PathBuf),
}

/// Takes the directory, or finds the socket of the server that has it.
pub fn lock(data: &Path) -> Result<Owner, Failed> {
    let path = data.join("roster.lock");
    let failed = |e: &dyn std::fmt::Display| Failed(format!("{} cannot be used: {e}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| failed(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(Owner::Us(Lock { file })),
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut socket = String::new();
            file.read_to_string(&mut socket).map_err(|e| failed(&e))?;
            Ok(Owner::Server(PathBuf::from(socket.trim())))
        }
        Err(std::fs::TryLockError::Error(e)) => Err(failed(&e)),
    }
}

impl Lock {
    /// Says in the lock file where the server answers; an empty path takes it back.
    pub fn announce(&mut self, socket: &Path) -> Result<(), Failed> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(socket.display().to_string().as_bytes())?;
        Ok(self.file.sync_all()?)
    }
}

/// Longest path of a Unix socket that every system takes (macOS: 104 with the end).
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Where the server's local socket goes: in the data directory, or in a private short one where that is too long.
pub fn socket_path(data: &Path) -> Result<PathBuf, Failed> {
    let near = std::path::absolute(data)?.join("roster.sock");
    if near.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok(near);
    }
    Ok(private_short_directory()?.join("roster.sock"))
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
