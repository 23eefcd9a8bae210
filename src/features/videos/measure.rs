//! How large a file below the media root is. Opened part by part without following a link; nothing is ever read.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::path::VideoPath;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

/// Files measured at the same time. A disk that hangs keeps these threads and no more.
static TURNS: Semaphore = Semaphore::const_new(16);
const TURN_WAIT: Duration = Duration::from_secs(5);
const MEASURE_WAIT: Duration = Duration::from_secs(10);

/// A file that was written to in this time may be written to still, and is looked at again after a pause.
const FRESH_MS: i64 = 2_000;
const PAUSE: Duration = Duration::from_millis(20);

/// The size of a file in bytes. Fails for what is no plain file, for a link anywhere below the media root, and for a
/// file that changes meanwhile.
pub async fn measure(media_root: &Path, path: &VideoPath) -> Result<i64> {
    if media_root.as_os_str().is_empty() {
        return Err(ErrorCode::MediaRootNotConfigured.into());
    }
    let silent = || {
        Error::new(ErrorCode::Busy)
            .with_message("the disk of the media root does not respond: try again")
            .retry_after(5)
    };
    let turn = tokio::time::timeout(TURN_WAIT, TURNS.acquire()).await.map_err(|_| silent())?;
    let turn = turn.map_err(|_| Error::internal("nothing is measured any more"))?;
    let (root, path) = (media_root.to_owned(), path.clone());
    let look = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        size_of(&root, &path)
    });
    let looked = tokio::time::timeout(MEASURE_WAIT, look).await.map_err(|_| silent())?;
    looked.map_err(|e| Error::internal(format!("measuring panicked: {e}")))?
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
    if is_fresh(&first) {
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

/// What differs once a file was written to or replaced. The types of these numbers differ between systems.
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

fn is_fresh(stat: &Stat) -> bool {
    let [.., changed_s, changed_ns] = state(stat);
    changed_s * 1_000 + changed_ns / 1_000_000 > i128::from(Timestamp::now().plus_ms(-FRESH_MS).0)
}

/// A link where a folder is expected says `ELOOP` or `ENOTDIR`, depending on the system.
fn refused(error: Errno) -> Error {
    let cause = match error {
        Errno::NOENT => ErrorCode::FileNotFound,
        Errno::LOOP | Errno::NOTDIR | Errno::ACCESS | Errno::PERM => ErrorCode::NotAFile,
        Errno::NAMETOOLONG => ErrorCode::VideoPath,
        _ => return Error::internal(format!("a file cannot be measured: {error}")),
    };
    Error::new(cause).with_source(error.to_string())
}
