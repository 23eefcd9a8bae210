//! Walks the files below the media root in a fixed order, in chunks. Links are not followed.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::measure::{open_folder, open_root};
use super::path::{VideoPath, is_ignored};
use crate::kernel::error::{Error, Result};

/// A file that can become a video.
#[derive(Debug, Clone)]
pub struct FoundFile {
    pub path: VideoPath,
    pub size: i64,
}

/// One chunk of a walk.
#[derive(Debug, Default)]
pub struct WalkChunk {
    pub found: Vec<FoundFile>,
    /// The number of skipped entries: links, names that are not UTF-8 or are ignored, entries that cannot be opened.
    pub skipped: u64,
    /// The path to continue after; `None` at the end.
    pub next: Option<String>,
}

/// Deeper folders are skipped, because each level keeps a file descriptor open.
const DEPTH_MAX: usize = 64;

/// The limits of a walk.
#[derive(Debug, Clone, Copy)]
pub struct WalkLimits<'w> {
    /// The maximum number of files.
    pub most: usize,
    pub path_bytes_max: u64,
    /// Patterns of names that are not videos.
    pub ignored_names: &'w [String],
}

struct Walk<'w> {
    media_root: &'w Path,
    taken: WalkLimits<'w>,
    piece: WalkChunk,
}

/// Returns the next files after `after` below the media root, or below its folder `prefix`.
pub fn walk(media_root: &Path, prefix: Option<&str>, after: Option<&str>, taken: WalkLimits<'_>) -> Result<WalkChunk> {
    let mut folder = open_root(media_root)?;
    let parts: Vec<&str> = prefix.into_iter().flat_map(|prefix| prefix.split('/')).collect();
    for part in &parts {
        if ["", ".", ".."].contains(part) {
            return Err(Error::field("prefix", "must not have empty parts, `.` or `..`"));
        }
        folder = open_folder(&folder, part)
            .map_err(|e| Error::field("prefix", "is not a folder below the media root").with_source(e.to_string()))?;
    }
    let below = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
    let after: Vec<&str> = after.into_iter().flat_map(|after| after.split('/')).collect();
    let rest = after.get(parts.len()..).unwrap_or_default();
    let mut walk = Walk { media_root, taken, piece: WalkChunk::default() };
    walk.folder(&folder, &below, rest, parts.len())?;
    Ok(walk.piece)
}

impl Walk<'_> {
    /// Walks one folder; returns false when the chunk is full. `after` is the path of the last file returned, relative
    /// to this folder.
    fn folder(&mut self, folder: &OwnedFd, below: &str, after: &[&str], depth: usize) -> Result<bool> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) if !is_ignored(self.taken.ignored_names, name) => names.push(name.to_owned()),
                // When the walk resumes in a folder, its skipped names were counted before.
                _ if after.is_empty() => self.piece.skipped += 1,
                _ => {}
            }
        }
        names.sort_unstable();
        for name in names {
            let is_last_seen = after.first().is_some_and(|last| *last == name);
            if after.first().is_some_and(|last| name.as_str() < *last) {
                continue;
            }
            let path = format!("{below}{name}");
            let Ok(stat) = statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW) else {
                self.piece.skipped += 1;
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < DEPTH_MAX => {
                    let rest = if is_last_seen { &after[1..] } else { &[] };
                    let Ok(inner) = open_folder(folder, &name) else {
                        self.piece.skipped += 1;
                        continue;
                    };
                    if !self.folder(&inner, &format!("{path}/"), rest, depth + 1)? {
                        return Ok(false);
                    }
                }
                FileType::RegularFile if is_last_seen => {}
                FileType::RegularFile => match VideoPath::parse(&path, self.media_root, self.taken.path_bytes_max) {
                    Ok(path) => {
                        self.piece.found.push(FoundFile { path, size: stat.st_size });
                        if self.piece.found.len() >= self.taken.most {
                            self.piece.next = self.piece.found.last().map(|found| found.path.as_str().to_owned());
                            return Ok(false);
                        }
                    }
                    Err(_) => self.piece.skipped += 1,
                },
                _ => self.piece.skipped += 1,
            }
        }
        Ok(true)
    }
}

fn failed(error: rustix::io::Errno) -> Error {
    Error::internal(format!("a folder below the media root cannot be read: {error}"))
        .with_message("a folder below the media root cannot be read: the log has more")
}
