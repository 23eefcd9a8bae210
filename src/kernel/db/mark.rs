//! `roster.mark`: that a site was founded in this folder, and how far its database had come.
//!
//! **Invariant.** The mark may lag behind the database and never leads: what it names was durable before it was written.
//! A database that is missing, or has come less far than its mark, is refused at start, and no site is founded beside a
//! mark. In doubt the mark is silent: a start that is refused without need is worse than a loss that is not noticed.
//!
//! Other files beside the database tell nothing: the settings are written by people, and the write-ahead log goes
//! whenever any program closes the database cleanly.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Reader, Writer, sql};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

const FILE_NAME: &str = "roster.mark";
const FORMAT: u32 = 1;

/// How far a database has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When the site was founded, in Unix milliseconds: it tells one site from another.
    pub founded_at: i64,
    pub epoch: i64,
    /// Of the newest audit entry.
    pub audit_id: i64,
}

/// What may have come after the progress of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Changes may have followed.
    Writing,
    /// Nothing, so far; the server runs.
    Idle,
    /// Nothing: the database was closed.
    Stopped,
}

/// The file's content. Fields that are not known are ignored: later versions add theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    #[serde(flatten)]
    progress: Progress,
    state: State,
    /// When the database file itself was last written, in Unix nanoseconds: since then all is in the write-ahead log.
    file_written_ns: i64,
}

fn mark_file(database: &Path) -> PathBuf {
    database.with_file_name(FILE_NAME)
}

/// Was a site founded beside this database file, whether the file is there or not?
pub fn is_founded(database: &Path) -> bool {
    mark_file(database).symlink_metadata().is_ok()
}

/// `None` without a mark, and with one that cannot be read: that one is made anew.
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
        .map_err(|e| tracing::warn!(file = %path.display(), error = %e, "the mark cannot be understood"))
        .ok()
}

/// Replaces the mark at once and durably.
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
        // What is left of it would only take space that is missing.
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

/// How far the database has come; `None` before its site is founded.
pub fn progress(r: &Reader<'_>) -> Result<Option<Progress>> {
    r.find(PROGRESS, &[], |row| Ok(Progress { founded_at: row.get(0)?, epoch: row.get(1)?, audit_id: row.get(2)? }))
}

const TOUCH_SITE: &str = "update site set videos = videos + :more where only = 1";

/// Writes a page as it is. There and back: SQLite writes nothing where a row is replaced by its equal.
pub fn touch(w: &Writer<'_>) -> Result<()> {
    w.execute(TOUCH_SITE, &[(":more", &1)])?;
    w.execute(TOUCH_SITE, &[(":more", &-1)]).map(drop)
}

/// Are the files there that the mark speaks of? Before the database is opened, which would make them.
pub fn require_files(database: &Path) -> Result<()> {
    let found = std::fs::metadata(database).ok().filter(|file| file.len() > 0);
    let Some(file) = found else {
        return if is_founded(database) { Err(refused(database, &missing(database))) } else { Ok(()) };
    };
    let Some(mark) = read(database) else { return Ok(()) };
    let has_log = database.with_extension("db-wal").symlink_metadata().is_ok();
    // Who takes the log into the file and then removes it, as other programs do, has written the file.
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
        "database_missing: {} is missing or empty, though a site was founded here: mount its folder, or restore a backup",
        database.display()
    )
}

/// Has the database come as far as its mark says? Before anything is changed in it.
pub fn require_progress(connection: &Connection, database: &Path) -> Result<()> {
    let Some(Mark { progress: marked, .. }) = read(database) else { return Ok(()) };
    let is_empty = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let found = match is_empty.map_err(sql::failed)? {
        0 => None,
        _ => progress(&Reader { connection })?,
    };
    let Some(found) = found else { return Err(refused(database, &missing(database))) };
    let file = database.display();
    if found.founded_at != marked.founded_at {
        let text = format!(
            "database_foreign: {file} belongs to another site than the one that was founded here: put the right file \
             back, or restore a backup"
        );
        return Err(refused(database, &text));
    }
    if found.epoch < marked.epoch || found.audit_id < marked.audit_id {
        let text = format!(
            "database_went_back: {file} is older than it was: it ends with audit entry {} and epoch {}, but had come to \
             entry {} and epoch {}. Put the newest file back, with its -wal, or restore a backup",
            found.audit_id, found.epoch, marked.audit_id, marked.epoch
        );
        return Err(refused(database, &text));
    }
    Ok(())
}

fn refused(database: &Path, text: &str) -> Error {
    let text = format!(
        "{text}. To go on with what is there, and lose what is missing, remove {} first",
        mark_file(database).display()
    );
    Error::new(ErrorCode::DatabaseLost).with_source(text.clone()).with_message(text)
}

/// The next moment at three o'clock at night (UTC).
pub fn next_night(now: Timestamp) -> Timestamp {
    const DAY_MS: i64 = 86_400_000;
    const NIGHT_MS: i64 = 3 * 3_600_000;
    Timestamp(now.0 + (NIGHT_MS - now.0 - 1).rem_euclid(DAY_MS) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Progress = Progress { founded_at: 1_000, epoch: 7, audit_id: 20 };

    /// A data directory with a database that has come so far.
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

    /// What a start would say.
    fn verdict(file: &Path) -> String {
        let checked =
            require_files(file).and_then(|()| require_progress(&Connection::open(file).map_err(sql::failed)?, file));
        checked.map_or_else(|e| e.message().split(':').next().unwrap_or_default().to_owned(), |()| "ok".to_owned())
    }

    #[test]
    fn a_database_is_taken_that_has_come_as_far_as_its_mark_or_farther() {
        for (epoch, audit_id, said) in
            [(7, 20, "ok"), (8, 20, "ok"), (7, 21, "ok"), (6, 20, "database_went_back"), (7, 19, "database_went_back")]
        {
            let (_directory, file) = data(Progress { epoch, audit_id, ..AT });
            write(&file, AT, State::Stopped).unwrap();
            assert_eq!(verdict(&file), said, "{epoch} {audit_id}");
        }
    }

    #[test]
    fn a_database_of_another_site_is_refused() {
        let (_directory, file) = data(Progress { founded_at: 1_001, ..AT });
        write(&file, AT, State::Stopped).unwrap();
        assert_eq!(verdict(&file), "database_foreign");
    }

    #[test]
    fn a_log_is_missed_only_if_changes_were_in_nothing_else() {
        for (state, said) in [(State::Writing, "database_log_lost"), (State::Idle, "ok"), (State::Stopped, "ok")] {
            let (_directory, file) = data(AT);
            write(&file, AT, state).unwrap();
            assert_eq!(verdict(&file), said, "{state:?}");
            // A log that is there is never missed.
            std::fs::write(file.with_extension("db-wal"), "").unwrap();
            assert_eq!(require_files(&file).map_err(|e| e.to_string()), Ok(()), "{state:?}");
        }
        // Another program took the log into the file.
        let (_directory, file) = data(AT);
        write(&file, AT, State::Writing).unwrap();
        let later = std::fs::metadata(&file).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(verdict(&file), "ok");
    }

    #[test]
    fn nothing_is_founded_beside_a_mark_even_if_it_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roster.db");
        assert_eq!(require_files(&file).map_err(|e| e.to_string()), Ok(()));
        for (what, mark) in [("whole", "{}"), ("noise", "x"), ("empty", "")] {
            std::fs::write(mark_file(&file), mark).unwrap();
            assert!(require_files(&file).unwrap_err().message().starts_with("database_missing"), "{what}");
        }
        // One that cannot be understood says nothing against a database that is there.
        let (_directory, file) = data(AT);
        std::fs::write(mark_file(&file), "x").unwrap();
        assert_eq!(verdict(&file), "ok");
    }

    #[test]
    fn a_mark_of_a_later_version_is_understood() {
        let (_directory, file) = data(Progress { epoch: 1, ..AT });
        write(&file, AT, State::Idle).unwrap();
        let mut mark: serde_json::Value = serde_json::from_slice(&std::fs::read(mark_file(&file)).unwrap()).unwrap();
        mark["line"] = "00ff".into();
        std::fs::write(mark_file(&file), mark.to_string()).unwrap();
        assert_eq!(verdict(&file), "database_went_back");
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
