//! Measures the size of a file below the media root. Folders are opened segment by segment without following links;
//! file contents are never read.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::path::VideoPath;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

/// Files measured at the same time. A disk that hangs blocks only this many threads.
static PERMITS: Semaphore = Semaphore::const_new(16);
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
const MEASURE_TIMEOUT: Duration = Duration::from_secs(10);

/// A file that changed within this time may still be written to, so it is checked again after a pause.
const RECENT_MS: i64 = 2_000;
const PAUSE: Duration = Duration::from_millis(20);

/// Returns the size of a file in bytes. Fails for anything but a regular file, for a link anywhere below the media
/// root, and for a file that changes during the measurement.
pub async fn measure(media_root: &Path, path: &VideoPath) -> Result<i64> {
    if media_root.as_os_str().is_empty() {
        return Err(ErrorCode::MediaRootNotConfigured.into());
    }
    let unresponsive = || {
        Error::new(ErrorCode::Busy)
            .with_message("the disk of the media root does not respond: try again")
            .retry_after(5)
    };
    let permit = tokio::time::timeout(PERMIT_TIMEOUT, PERMITS.acquire()).await.map_err(|_| unresponsive())?;
    let permit = permit.map_err(|_| Error::internal("the semaphore for measurements is closed"))?;
    let (root, path) = (media_root.to_owned(), path.clone());
    let look = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        size_of(&root, &path)
    });
    let measured = tokio::time::timeout(MEASURE_TIMEOUT, look).await.map_err(|_| unresponsive())?;
    measured.map_err(|e| Error::internal(format!("measuring panicked: {e}")))?
}

fn size_of(root: &Path, path: &VideoPath) -> Result<i64> {
    let (folders, name) = path.as_str().rsplit_once('/').ok_or(ErrorCode::VideoPath)?;
    let mut folder = open_root(root)?;
    for part in folders.split('/') {
        folder = open_folder(&folder, part).map_err(refused)?;
    }
    let look = || statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(refused);
    let first = look()?;
    if FileType::from_raw_mode(first.st_mode) != FileType::RegularFile {
        return Err(ErrorCode::NotAFile.into());
    }
    if is_recent(&first) {
        std::thread::sleep(PAUSE);
    }
    let second = look()?;
    if state(&first) != state(&second) {
        return Err(ErrorCode::FileChanged.into());
    }
    Ok(second.st_size)
}

/// The media root itself can be a symbolic link, because the administrator configured it.
pub fn open_root(root: &Path) -> Result<OwnedFd> {
    openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        Error::new(ErrorCode::MediaRootNotConfigured)
            .with_message("media_root cannot be opened: is it mounted?")
            .with_source(e.to_string())
    })
}

pub fn open_folder(above: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty())
}

/// The metadata that changes when a file is written to or replaced. The integer types differ between platforms.
fn state(stat: &Stat) -> [i128; 7] {
    [
        i128::from(stat.st_dev),
        i128::from(stat.st_ino),
        i128::from(stat.st_size),
        i128::from(stat.st_mtime),
        i128::from(stat.st_mtime_nsec),
        i128::from(stat.st_ctime),
        i128::from(stat.st_ctime_nsec),
    ]
}

fn is_recent(stat: &Stat) -> bool {
    let [.., changed_s, changed_ns] = state(stat);
    changed_s * 1_000 + changed_ns / 1_000_000 > i128::from(Timestamp::now().plus_ms(-RECENT_MS).0)
}

/// Converts an I/O error. A link in place of a folder yields `ELOOP` or `ENOTDIR`, depending on the platform.
fn refused(error: Errno) -> Error {
    let cause = match error {
        Errno::NOENT => ErrorCode::FileNotFound,
        Errno::LOOP | Errno::NOTDIR | Errno::ACCESS | Errno::PERM => ErrorCode::NotAFile,
        Errno::NAMETOOLONG => ErrorCode::VideoPath,
        _ => return Error::internal(format!("a file cannot be measured: {error}")),
    };
    Error::new(cause).with_source(error.to_string())
}
