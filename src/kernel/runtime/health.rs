//! Faults of a running server, as `/healthz` shows them, and threads that cannot end unnoticed.
//!
//! **Invariant.** A thread that is started here ends when its work is done; if it panics, the process aborts. The
//! supervisor restarts the process, and no acknowledged change is lost.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::kernel::runtime::log;

/// A current fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The part of the server, such as `database`.
    pub part: &'static str,
    /// A stable word.
    pub word: &'static str,
    /// The message for everybody; contains no paths.
    pub message: &'static str,
    /// Whether the server cannot do its work.
    pub is_fatal: bool,
}

/// All current faults.
#[derive(Debug, Default)]
pub struct Health {
    /// By word.
    faults: Mutex<BTreeMap<&'static str, Fault>>,
    /// The number of `faults`.
    count: AtomicUsize,
    watched: Mutex<Vec<(WatchedFile, Fault)>>,
}

impl Health {
    /// Adds a fault. The detail is logged when it is new.
    pub fn report(&self, fault: Fault, detail: &str) {
        let Ok(mut faults) = self.faults.lock() else { return };
        if faults.insert(fault.word, fault).is_none() {
            tracing::error!(part = fault.part, fault = fault.word, "{}: {detail}", fault.message);
        }
        self.count.store(faults.len(), Ordering::Relaxed);
    }

    /// Removes a fault, because it is over.
    pub fn clear(&self, word: &str) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Ok(mut faults) = self.faults.lock() else { return };
        if let Some(fault) = faults.remove(word) {
            tracing::info!(part = fault.part, fault = word, "this fault is over");
        }
        self.count.store(faults.len(), Ordering::Relaxed);
    }

    pub fn has(&self, word: &str) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.faults.lock().is_ok_and(|faults| faults.contains_key(word))
    }

    /// Reports this fault as long as the path does not lead to the watched file.
    pub fn watch(&self, file: WatchedFile, fault: Fault) {
        if let Ok(mut watched) = self.watched.lock() {
            watched.push((file, fault));
        }
    }

    pub fn faults(&self) -> Vec<Fault> {
        let known = self.faults.lock().map(|faults| faults.values().copied().collect::<Vec<_>>());
        let watched = self.watched.lock().map(|watched| {
            watched.iter().filter(|(file, _)| !file.is_in_place()).map(|(_, fault)| *fault).collect::<Vec<_>>()
        });
        let mut all = known.unwrap_or_default();
        all.extend(watched.unwrap_or_default());
        all.sort_unstable_by_key(|fault| fault.word);
        all.dedup();
        all
    }
}

/// The identity of a file when it was opened. It is checked with `stat` only: to open and close a database file outside
/// of SQLite would drop SQLite's locks on it.
#[derive(Debug, Clone)]
pub struct WatchedFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl WatchedFile {
    pub fn of(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id_of(&std::fs::metadata(path)?) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the file that was opened.
    pub fn is_in_place(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| id_of(&found) == self.id)
    }

    /// Whether it is the same file as this open one.
    pub fn is(&self, file: &std::fs::File) -> bool {
        file.metadata().is_ok_and(|found| id_of(&found) == self.id)
    }
}

fn id_of(file: &std::fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Starts a thread that the server needs. If it panics, the process aborts.
pub fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            tracing::error!(thread = name, "a thread that the server needs has failed: the process ends");
            if name != "log" {
                log::flush();
            }
            std::process::abort();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Fault = Fault { part: "disk", word: "full", message: "the disk is full", is_fatal: false };

    #[test]
    fn a_fault_is_reported_until_it_is_cleared() {
        let health = Health::default();
        health.report(FAULT, "0 bytes");
        health.report(FAULT, "0 bytes");
        assert!(health.has("full"));
        assert_eq!(health.faults(), [FAULT]);
        health.clear("other");
        assert_eq!(health.faults(), [FAULT]);
        health.clear("full");
        assert!(health.faults().is_empty());
    }

    #[test]
    fn a_missing_or_replaced_file_is_a_fault() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("file"), directory.path().join("aside"));
        std::fs::write(&path, "a").unwrap();
        let health = Health::default();
        health.watch(WatchedFile::of(&path).unwrap(), FAULT);
        assert!(health.faults().is_empty());
        std::fs::rename(&path, &aside).unwrap();
        assert_eq!(health.faults(), [FAULT]);
        std::fs::write(&path, "a").unwrap();
        assert_eq!(health.faults(), [FAULT]);
        std::fs::rename(&aside, &path).unwrap();
        assert!(health.faults().is_empty());
    }
}
