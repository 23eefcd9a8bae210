//! `roster.mark`: records that a site was created in this folder, and how far its database had progressed.
//!
//! **Invariant.** The mark may lag behind the database but is never ahead of it: the progress in it was durable before
//! the mark was written. The server refuses to start if the database is missing or behind its mark, and creates no site
//! beside a mark. A mark that cannot be read or parsed does not prevent a start with an existing database: an
//! unnecessary refusal is worse than an unnoticed loss.
//!
//! Other files beside the database are no evidence: the settings are written by hand, and the write-ahead log is
//! removed whenever a program closes the database cleanly.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Reader, Writer, schema, sql};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

const FILE_NAME: &str = "roster.mark";
const FORMAT: u32 = 1;

/// How far a database has progressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When the site was created, in Unix milliseconds; distinguishes sites.
    pub founded_at: i64,
    pub epoch: i64,
    /// The id of the newest audit entry.
    pub audit_id: i64,
}

/// Whether the database may be ahead of its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Changes may have followed the mark.
    Writing,
    /// No changes have followed the mark; the server is running.
    Idle,
    /// No changes have followed the mark: the database was closed.
    Stopped,
}

/// The content of the file. Unknown fields are ignored, so that later versions can add some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    #[serde(flatten)]
    progress: Progress,
    state: State,
    /// When the database file itself was last written, in Unix nanoseconds. Changes since then are in the write-ahead
    /// log only.
    file_written_ns: i64,
}

fn mark_file(database: &Path) -> PathBuf {
    database.with_file_name(FILE_NAME)
}

/// Whether a site was created beside this database file, even if the file is missing.
pub fn has_mark(database: &Path) -> bool {
    mark_file(database).symlink_metadata().is_ok()
}

/// Reads the mark. Returns `None` if there is none, or if it cannot be read or parsed; it is then overwritten later.
fn read(database: &Path) -> Option<Mark> {
    let path = mark_file(database);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => {
            tracing::warn!(file = %path.display(), error = %e, "the mark cannot be read");
            return None;
        }
    };
    serde_json::from_slice(&text)
        .map_err(|e| tracing::warn!(file = %path.display(), error = %e, "the mark cannot be parsed"))
        .ok()
}

/// Replaces the mark atomically and durably.
pub fn write(database: &Path, progress: Progress, state: State) -> std::io::Result<()> {
    let file_written_ns = written_ns(&std::fs::metadata(database)?);
    let text = serde_json::to_vec(&Mark { format: FORMAT, progress, state, file_written_ns })?;
    let path = mark_file(database);
    let next = path.with_extension("mark.next");
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&next, &path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // A partly written file would only take up disk space, which may be what is missing.
        let _ = std::fs::remove_file(&next);
    }
    written
}

fn written_ns(file: &Metadata) -> i64 {
    file.mtime().saturating_mul(1_000_000_000).saturating_add(file.mtime_nsec())
}

const PROGRESS: &str = "
    select created_at, epoch, coalesce((select max(id) from audit), 0)
    from site
    where only = 1";

/// Returns how far the database has progressed; `None` before its site is created.
pub fn progress(r: &Reader<'_>) -> Result<Option<Progress>> {
    r.find(PROGRESS, &[], |row| Ok(Progress { founded_at: row.get(0)?, epoch: row.get(1)?, audit_id: row.get(2)? }))
}

/// Writes a page without a change of its content: SQLite writes the header of the file even if the version in it stays
/// the same.
pub fn touch(w: &Writer<'_>) -> Result<()> {
    let present = w.connection.pragma_query_value(None, schema::VERSION, |row| row.get::<_, i64>(0));
    let set = present.and_then(|version| w.connection.pragma_update(None, schema::VERSION, version));
    set.map_err(sql::from_sqlite)?;
    w.is_touched.set(true);
    Ok(())
}

/// Fails unless the files that the mark implies exist. Must run before the database is opened, which would create them.
pub fn require_files(database: &Path) -> Result<()> {
    let found = std::fs::metadata(database).ok().filter(|file| file.len() > 0);
    let Some(file) = found else {
        return if has_mark(database) { Err(refused(database, &missing(database))) } else { Ok(()) };
    };
    let Some(mark) = read(database) else { return Ok(()) };
    let has_log = database.with_extension("db-wal").symlink_metadata().is_ok();
    // A program that checkpoints the log and then removes it has written the database file.
    if mark.state == State::Writing && !has_log && mark.file_written_ns == written_ns(&file) {
        return Err(refused(
            database,
            &format!(
                "database_log_lost: {0}-wal is missing, though the server did not stop cleanly: its last changes were in \
                 that file. Put it back or restore a backup",
                database.display()
            ),
        ));
    }
    Ok(())
}

fn missing(database: &Path) -> String {
    format!(
        "database_missing: {} is missing or empty, though a site was created here: mount its folder, or restore a backup",
        database.display()
    )
}

/// Fails if the database is behind its mark, or belongs to another site. Must run before the database is changed.
pub fn require_progress(connection: &Connection, database: &Path) -> Result<()> {
    let Some(Mark { progress: marked, .. }) = read(database) else { return Ok(()) };
    let version = connection.pragma_query_value(None, schema::VERSION, |row| row.get::<_, i64>(0));
    let found = match version.map_err(sql::from_sqlite)? {
        0 => None,
        _ => progress(&Reader { connection })?,
    };
    let Some(found) = found else { return Err(refused(database, &missing(database))) };
    let file = database.display();
    if found.founded_at != marked.founded_at {
        let text = format!(
            "database_foreign: {file} belongs to another site than the one that was created here: put the right file \
             back, or restore a backup"
        );
        return Err(refused(database, &text));
    }
    if found.epoch < marked.epoch || found.audit_id < marked.audit_id {
        let text = format!(
            "database_went_back: {file} is older than its mark: it ends with audit entry {} and epoch {}, but the mark has \
            entry {} and epoch {}. Put the newest file back, with its -wal, or restore a backup",
            found.audit_id, found.epoch, marked.audit_id, marked.epoch
        );
        return Err(refused(database, &text));
    }
    Ok(())
}

fn refused(database: &Path, text: &str) -> Error {
    let text = format!(
        "{text}. To continue with the present data, and lose what is missing, remove {} first",
        mark_file(database).display()
    );
    Error::new(ErrorCode::DatabaseLost).with_source(text.clone()).with_message(text)
}

/// The next 03:00 UTC after `now`.
pub fn next_night(now: Timestamp) -> Timestamp {
    const DAY_MS: i64 = 86_400_000;
    const NIGHT_MS: i64 = 3 * 3_600_000;
    Timestamp(now.0 + (NIGHT_MS - now.0 - 1).rem_euclid(DAY_MS) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Progress = Progress { founded_at: 1_000, epoch: 7, audit_id: 20 };

    /// A data directory with a database of this progress.
    fn data(progress: Progress) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roster.db");
        let connection = Connection::open(&file).unwrap();
        connection
            .execute_batch(&format!(
                "create table site (only integer, epoch integer, created_at integer);
                 create table audit (id integer primary key);
                 insert into site values (1, {}, {});
                 insert into audit values ({});
                 pragma user_version = 1;",
                progress.epoch, progress.founded_at, progress.audit_id
            ))
            .unwrap();
        (directory, file)
    }

    /// The error code of a start, or `ok`.
    fn start_result(file: &Path) -> String {
        let checked = require_files(file)
            .and_then(|()| require_progress(&Connection::open(file).map_err(sql::from_sqlite)?, file));
        checked.map_or_else(|e| e.message().split(':').next().unwrap_or_default().to_owned(), |()| "ok".to_owned())
    }

    #[test]
    fn a_database_behind_its_mark_is_refused() {
        for (epoch, audit_id, expected) in
            [(7, 20, "ok"), (8, 20, "ok"), (7, 21, "ok"), (6, 20, "database_went_back"), (7, 19, "database_went_back")]
        {
            let (_directory, file) = data(Progress { epoch, audit_id, ..AT });
            write(&file, AT, State::Stopped).unwrap();
            assert_eq!(start_result(&file), expected, "{epoch} {audit_id}");
        }
    }

    #[test]
    fn a_database_of_another_site_is_refused() {
        let (_directory, file) = data(Progress { founded_at: 1_001, ..AT });
        write(&file, AT, State::Stopped).unwrap();
        assert_eq!(start_result(&file), "database_foreign");
    }

    #[test]
    fn a_missing_log_is_refused_only_if_it_held_changes() {
        for (state, expected) in [(State::Writing, "database_log_lost"), (State::Idle, "ok"), (State::Stopped, "ok")] {
            let (_directory, file) = data(AT);
            write(&file, AT, state).unwrap();
            assert_eq!(start_result(&file), expected, "{state:?}");
            // With a log, the start succeeds in any state.
            std::fs::write(file.with_extension("db-wal"), "").unwrap();
            assert_eq!(require_files(&file).map_err(|e| e.to_string()), Ok(()), "{state:?}");
        }
        // Another program checkpointed the log into the file.
        let (_directory, file) = data(AT);
        write(&file, AT, State::Writing).unwrap();
        let later = std::fs::metadata(&file).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(start_result(&file), "ok");
    }

    #[test]
    fn no_site_is_created_beside_a_mark_even_if_it_cannot_be_parsed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roster.db");
        assert_eq!(require_files(&file).map_err(|e| e.to_string()), Ok(()));
        for (what, mark) in [("whole", "{}"), ("noise", "x"), ("empty", "")] {
            std::fs::write(mark_file(&file), mark).unwrap();
            assert!(require_files(&file).unwrap_err().message().starts_with("database_missing"), "{what}");
        }
        // A mark that cannot be parsed does not refuse an existing database.
        let (_directory, file) = data(AT);
        std::fs::write(mark_file(&file), "x").unwrap();
        assert_eq!(start_result(&file), "ok");
    }

    #[test]
    fn unknown_fields_of_a_mark_are_ignored() {
        let (_directory, file) = data(Progress { epoch: 1, ..AT });
        write(&file, AT, State::Idle).unwrap();
        let mut mark: serde_json::Value = serde_json::from_slice(&std::fs::read(mark_file(&file)).unwrap()).unwrap();
        mark["line"] = "00ff".into();
        std::fs::write(mark_file(&file), mark.to_string()).unwrap();
        assert_eq!(start_result(&file), "database_went_back");
    }

    #[test]
    fn the_next_night_is_never_now_and_at_most_a_day_away() {
        const HOUR: i64 = 3_600_000;
        for (now, next) in [(0, 3), (2, 3), (3, 27), (4, 27), (26, 27), (27, 51)] {
            assert_eq!(next_night(Timestamp(now * HOUR)), Timestamp(next * HOUR), "{now}");
        }
        assert_eq!(next_night(Timestamp(3 * HOUR - 1)), Timestamp(3 * HOUR));
    }
}
