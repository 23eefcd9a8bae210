//! Opens the database file: pragmas, creation from `schema.sql`, upgrades, the integrity check.
//!
//! **Invariant.** An open file has the newest schema. A file with a newer schema is refused; one with an older schema
//! is upgraded in one transaction, or left unchanged if that fails.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OpenFlags};

use super::sql::from_sqlite;
use super::{WriterStats, mark};
use crate::kernel::error::{Error, ErrorCode, Result};

pub const SCHEMA: &str = include_str!("../../../schema.sql");

/// The upgrades from version 1 on: upgrade *n* leads from version *n* to *n* + 1.
const UPGRADES: &[&str] = &[
    include_str!("upgrades/2.sql"),
    include_str!("upgrades/3.sql"),
    include_str!("upgrades/4.sql"),
    include_str!("upgrades/5.sql"),
    include_str!("upgrades/6.sql"),
    include_str!("upgrades/7.sql"),
    include_str!("upgrades/8.sql"),
    include_str!("upgrades/9.sql"),
];

/// The pragma with the version of the schema.
pub const VERSION: &str = "user_version";

/// How long a connection waits for a lock, in milliseconds. Only another program on the same file can hold one for
/// long.
const LOCK_WAIT_MS: u32 = 5_000;

/// The number of prepared statements cached per connection: more than the program has.
const STATEMENTS_CACHED: usize = 256;

/// SQLite's page cache per connection, in KiB. It can be small because the policy is in memory and only few rows are
/// read at a time. The writer's cache is no larger, because SQLite scans all of it after a commit that split a page.
const CACHE_KIB: i64 = 2_048;

/// The length, in pages, at which the write-ahead log is checkpointed: a page that changes many times is then copied
/// once.
const LOG_PAGES: i64 = 8_192;

pub fn version() -> i64 {
    i64::try_from(UPGRADES.len()).unwrap_or(i64::MAX).saturating_add(1)
}

/// Opens the only writable connection. Creates the file if there is none, and upgrades its schema to the newest.
///
/// If the last stop was not clean (the write-ahead log still exists), the file is checked before it is used.
pub fn open_writer(file: &Path) -> Result<Connection> {
    mark::require_files(file)?;
    create_file(file)?;
    let log = file.with_extension("db-wal");
    let was_killed = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    let with_instructions =
        |error: Error| if error.code == ErrorCode::DatabaseDamaged { damaged(file, &[]) } else { error };
    let mut connection = open_connection(file).map_err(|e| cannot_open(file, e))?;
    mark::require_progress(&connection, file).map_err(with_instructions)?;
    upgrade(&mut connection, file).map_err(with_instructions)?;
    if was_killed {
        let faults = faults(&connection)?;
        if !faults.is_empty() {
            return Err(damaged(file, &faults));
        }
    }
    Ok(connection)
}

/// Creates a file that only its owner can read; SQLite gives its side files the same mode. An existing file is not
/// opened, because closing it would drop SQLite's locks.
fn create_file(file: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::internal(format!("{}: {e}", file.display()))
                .with_message(format!("{} cannot be created: {e}", file.display())))
        }
        _ => Ok(()),
    }
}

/// Opens the connection of the writer. SQLite needs a little disk space for the index of its write-ahead log. If there
/// is none, the index is kept in memory, and no other process can open the database until this one ends.
fn open_connection(file: &Path) -> Result<Connection> {
    let connection = Connection::open(file).map_err(from_sqlite).and_then(prepared_writer);
    match connection {
        Err(e) if e.code == ErrorCode::DatabaseFull => {
            tracing::warn!(file = %file.display(), error = %e, "the disk is full: no other program can read the database until Roster is restarted");
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags_and_vfs(file, flags, "unix-excl").map_err(from_sqlite).and_then(prepared_writer)
        }
        opened => opened,
    }
}

fn prepared_writer(connection: Connection) -> Result<Connection> {
    prepare(&connection).map_err(from_sqlite)?;
    connection
        .execute_batch(&format!(
            "pragma journal_mode = wal; pragma synchronous = full; pragma fullfsync = on; pragma checkpoint_fullfsync = on;
             pragma wal_autocheckpoint = {LOG_PAGES};"
        ))
        .map_err(from_sqlite)?;
    // The first read creates the write-ahead log and its index.
    connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(())).map_err(from_sqlite)?;
    Ok(connection)
}

fn cannot_open(file: &Path, error: Error) -> Error {
    if error.code == ErrorCode::DatabaseDamaged {
        return damaged(file, &[error.to_string()]);
    }
    let text = format!("{} cannot be used as a database: {error}", file.display());
    Error { message: Some(text.into()), ..error }
}

/// The error of a damaged file, with instructions.
pub fn damaged(file: &Path, faults: &[String]) -> Error {
    let text = format!("{} is damaged: stop Roster and restore a backup. {}", file.display(), faults.join("; "));
    Error::new(ErrorCode::DatabaseDamaged).with_source(text.clone()).with_message(text)
}

fn upgrade(connection: &mut Connection, file: &Path) -> Result<()> {
    let found: i64 = connection.pragma_query_value(None, VERSION, |row| row.get(0)).map_err(from_sqlite)?;
    let newest = version();
    if found > newest {
        return Err(Error::internal("schema is newer").with_message(format!(
            "{} was written by a newer Roster (schema {found}, this one supports {newest}): use that one, or restore a backup",
            file.display()
        )));
    }
    if found == newest {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(from_sqlite)?;
    if found == 0 {
        transaction.execute_batch(SCHEMA).map_err(from_sqlite)?;
    } else {
        let done = usize::try_from(found - 1).unwrap_or_default();
        for upgrade in &UPGRADES[done..] {
            transaction.execute_batch(upgrade).map_err(from_sqlite)?;
        }
    }
    transaction.pragma_update(None, VERSION, newest).map_err(from_sqlite)?;
    transaction.commit().map_err(from_sqlite)
}

/// Rewrites the file so that it holds nothing but the present rows: deleted or replaced content otherwise remains in
/// free pages and in the write-ahead log. Temporarily needs twice the size of the file.
pub fn vacuum(file: &Path) -> Result<()> {
    let write = || {
        let connection = Connection::open(file)?;
        prepare(&connection)?;
        // The copy is as large as the file.
        connection.execute_batch("pragma temp_store = file; vacuum")?;
        connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))
    };
    let reason = match write() {
        Ok(false) => return Ok(()),
        Ok(true) => "another program is reading it".to_owned(),
        Err(e) => e.to_string(),
    };
    let text = format!("{} could not be rewritten, which needs twice its size on disk: {reason}", file.display());
    Err(Error::new(ErrorCode::Database).with_source(text.clone()).with_message(text))
}

pub fn reader_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI
}

pub fn prepare_reader(connection: &mut Connection) -> rusqlite::Result<()> {
    prepare(connection)?;
    connection.execute_batch("pragma query_only = on")
}

/// Sets what every connection needs. The busy timeout comes first, because the next pragma may already wait for a lock.
pub fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(LOCK_WAIT_MS.into()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // One plan per statement, independent of bound values: otherwise each `limit :limit` is planned again at each run.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!(
        "pragma foreign_keys = on; pragma trusted_schema = off; pragma temp_store = memory; pragma cache_size = -{CACHE_KIB};"
    ))
}

/// Counts the steps of SQLite's virtual machine from now on, in units of 100.
pub fn count_steps(connection: &Connection, stats: Arc<WriterStats>) -> Result<()> {
    const STEPS: u16 = 100;
    let count = move || {
        stats.steps.fetch_add(STEPS.into(), Ordering::Relaxed);
        false
    };
    connection.progress_handler(STEPS.into(), Some(count)).map_err(from_sqlite)
}

/// Most faults that are reported of one file.
const FAULTS_MAX: usize = 20;

/// Lists damaged pages; empty if there are none. A file that cannot be scanned counts as damaged.
pub fn damage(connection: &Connection) -> Result<Vec<String>> {
    match lines(connection, &format!("pragma quick_check({FAULTS_MAX})")) {
        Ok(found) => Ok(found.into_iter().filter(|line| line != "ok").collect()),
        Err(e) if e.code == ErrorCode::DatabaseDamaged => Ok(vec![e.source.unwrap_or_default().into_owned()]),
        Err(e) => Err(e),
    }
}

/// Lists the findings of all checks of SQLite: damaged pages, and rows whose foreign key refers to no row.
pub fn faults(connection: &Connection) -> Result<Vec<String>> {
    let mut faults = damage(connection)?;
    if faults.is_empty() {
        let orphans = lines(connection, "pragma foreign_key_check")?;
        faults.extend(
            orphans.into_iter().take(FAULTS_MAX).map(|table| format!("{table}: a foreign key refers to no row")),
        );
    }
    Ok(faults)
}

fn lines(connection: &Connection, statement: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare(statement).map_err(from_sqlite)?;
    statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(from_sqlite)
}
