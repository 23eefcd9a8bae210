//! Opening the file: pragmas, creation from `schema.sql`, upgrades, the integrity check.
//!
//! **Invariant.** A file is either of the newest schema or is not opened: a newer one is refused, an older one is
//! brought up in one transaction, or stays as it was.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OpenFlags};

use super::sql::failed;
use super::{WriterStats, mark};
use crate::kernel::error::{Error, ErrorCode, Result};

pub const SCHEMA: &str = include_str!("../../../schema.sql");

/// The steps from version 1 on: step *n* leads from version *n* to *n* + 1.
const UPGRADES: &[&str] = &[
    include_str!("upgrades/2.sql"),
    include_str!("upgrades/3.sql"),
    include_str!("upgrades/4.sql"),
    include_str!("upgrades/5.sql"),
    include_str!("upgrades/6.sql"),
];

/// How long a writer or reader waits for a lock. Only a foreign tool on the same file can hold one.
const LOCK_WAIT_MS: u32 = 5_000;

/// Statements kept prepared on each connection: more than the program has.
const STATEMENTS_CACHED: usize = 256;

/// SQLite's own page cache in KiB, per connection: the policy is in memory, rows are read in small pieces. The writer's is
/// no larger, since SQLite looks through all of it after a commit that split a page.
const CACHE_KIB: i64 = 2_048;

/// Pages of the write-ahead log that are waited for before it is taken into the file: pages that change again and again
/// are taken over once.
const LOG_PAGES: i64 = 8_192;

pub fn version() -> i64 {
    i64::try_from(UPGRADES.len()).unwrap_or(i64::MAX).saturating_add(1)
}

/// The one writable connection, on a file of the newest schema, which is made if there is none yet.
///
/// After a stop that was none (the write-ahead log is still there) the file is checked before it is used.
pub fn open_writer(file: &Path) -> Result<Connection> {
    mark::require_files(file)?;
    create_file(file)?;
    let log = file.with_extension("db-wal");
    let was_killed = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    let explained = |error: Error| if error.cause == ErrorCode::DatabaseDamaged { damaged(file, &[]) } else { error };
    let mut connection = open_connection(file).map_err(|e| cannot_open(file, e))?;
    mark::require_progress(&connection, file).map_err(explained)?;
    bring_up(&mut connection, file).map_err(explained)?;
    if was_killed {
        let faults = faults(&connection)?;
        if !faults.is_empty() {
            return Err(damaged(file, &faults));
        }
    }
    Ok(connection)
}

/// Makes a file that only its owner reads; SQLite gives its side files the same rights. One that is there is not
/// touched: closing it would drop SQLite's locks.
fn create_file(file: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::internal(format!("{}: {e}", file.display()))
                .with_message(format!("{} cannot be made: {e}", file.display())))
        }
        _ => Ok(()),
    }
}

/// SQLite needs a little space for the index of its write-ahead log. Where there is none, the index is kept in memory,
/// and no other process can open the database until this one ends.
fn open_connection(file: &Path) -> Result<Connection> {
    let whole = Connection::open(file).map_err(failed).and_then(prepared_writer);
    match whole {
        Err(e) if e.cause == ErrorCode::DatabaseFull => {
            tracing::warn!(file = %file.display(), error = %e, "no other program can read the database before the next start");
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags_and_vfs(file, flags, "unix-excl").map_err(failed).and_then(prepared_writer)
        }
        opened => opened,
    }
}

fn prepared_writer(connection: Connection) -> Result<Connection> {
    prepare(&connection).map_err(failed)?;
    connection
        .execute_batch(&format!(
            "pragma journal_mode = wal; pragma synchronous = full; pragma fullfsync = on; pragma checkpoint_fullfsync = on;
             pragma wal_autocheckpoint = {LOG_PAGES};"
        ))
        .map_err(failed)?;
    // The first reading makes the write-ahead log and its index.
    connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    Ok(connection)
}

fn cannot_open(file: &Path, error: Error) -> Error {
    if error.cause == ErrorCode::DatabaseDamaged {
        return damaged(file, &[error.to_string()]);
    }
    let text = format!("{} cannot be used as a database: {error}", file.display());
    Error { message: Some(text.into()), ..error }
}

/// Says which file is damaged, and what to do.
pub fn damaged(file: &Path, faults: &[String]) -> Error {
    let text = format!("{} is damaged: stop Roster and restore a backup. {}", file.display(), faults.join("; "));
    Error::new(ErrorCode::DatabaseDamaged).with_source(text.clone()).with_message(text)
}

fn bring_up(connection: &mut Connection, file: &Path) -> Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let newest = version();
    if found > newest {
        return Err(Error::internal("schema is newer").with_message(format!(
            "{} was written by a newer Roster (schema {found}, this one knows {newest}): use that one, or restore a backup",
            file.display()
        )));
    }
    if found == newest {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(failed)?;
    if found == 0 {
        transaction.execute_batch(SCHEMA).map_err(failed)?;
    } else {
        let done = usize::try_from(found - 1).unwrap_or_default();
        for step in &UPGRADES[done..] {
            transaction.execute_batch(step).map_err(failed)?;
        }
    }
    transaction.pragma_update(None, "user_version", newest).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Writes the file anew, so that nothing is left in it but what the rows hold: what was deleted or replaced stays in free
/// pages and in the write-ahead log otherwise. Needs space for the file twice for a while.
pub fn vacuum(file: &Path) -> Result<()> {
    let write = || {
        let connection = Connection::open(file)?;
        prepare(&connection)?;
        // The copy is as large as the file.
        connection.execute_batch("pragma temp_store = file; vacuum")?;
        connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))
    };
    let why = match write() {
        Ok(false) => return Ok(()),
        Ok(true) => "another program reads it".to_owned(),
        Err(e) => e.to_string(),
    };
    let text = format!("{} could not be written anew, which takes its size twice on the disk: {why}", file.display());
    Err(Error::new(ErrorCode::Database).with_source(text.clone()).with_message(text))
}

pub fn reader_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI
}

pub fn prepare_reader(connection: &mut Connection) -> rusqlite::Result<()> {
    prepare(connection)?;
    connection.execute_batch("pragma query_only = on")
}

/// What every connection needs. The busy time-out comes first: the next pragma may already meet a lock.
pub fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(LOCK_WAIT_MS.into()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // One plan a statement, whatever is bound: without it every `limit :limit` is planned anew at each run.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!(
        "pragma foreign_keys = on; pragma trusted_schema = off; pragma temp_store = memory; pragma cache_size = -{CACHE_KIB};"
    ))
}

/// Counts from now on what SQLite works, by the hundred steps.
pub fn count_steps(connection: &Connection, stats: Arc<WriterStats>) -> Result<()> {
    const STEPS: u16 = 100;
    let count = move || {
        stats.steps.fetch_add(STEPS.into(), Ordering::Relaxed);
        false
    };
    connection.progress_handler(STEPS.into(), Some(count)).map_err(failed)
}

/// Most faults that are told of one file.
const FAULTS_MAX: usize = 20;

/// Pages that are not as SQLite wrote them; empty when all is well. A file that cannot even be walked is damaged too.
pub fn damage(connection: &Connection) -> Result<Vec<String>> {
    match lines(connection, &format!("pragma quick_check({FAULTS_MAX})")) {
        Ok(said) => Ok(said.into_iter().filter(|line| line != "ok").collect()),
        Err(e) if e.cause == ErrorCode::DatabaseDamaged => Ok(vec![e.source.unwrap_or_default().into_owned()]),
        Err(e) => Err(e),
    }
}

/// What all of SQLite's own checks say: damage, and rows that point to nothing.
pub fn faults(connection: &Connection) -> Result<Vec<String>> {
    let mut faults = damage(connection)?;
    if faults.is_empty() {
        let orphans = lines(connection, "pragma foreign_key_check")?;
        faults.extend(orphans.into_iter().take(FAULTS_MAX).map(|table| format!("{table}: a row points to nothing")));
    }
    Ok(faults)
}

fn lines(connection: &Connection, statement: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare(statement).map_err(failed)?;
    statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)
}
