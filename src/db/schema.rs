//! Opening the file: pragmas, creation from `schema.sql`, upgrades, the integrity check.
//!
//! **Invariant.** A file is either of the newest schema or is not opened: a newer one is refused, an older one is
//! brought up in one transaction, or stays as it was.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::sql::failed;
use crate::error::{Cause, Error, Result};

pub const SCHEMA: &str = include_str!("../../schema.sql");

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

/// The one writable connection, on a file of the newest schema.
///
/// After a stop that was none (the write-ahead log is still there) the file is checked before it is used.
pub fn open_writer(file: &Path) -> Result<Connection> {
    let log = file.with_extension("db-wal");
    let was_killed = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    let mut connection = Connection::open(file).map_err(|e| cannot_open(file, &e))?;
    prepare(&connection).map_err(|e| cannot_open(file, &e))?;
    connection
        .execute_batch(&format!(
            "pragma journal_mode = wal; pragma synchronous = full; pragma fullfsync = on; pragma checkpoint_fullfsync = on;
             pragma wal_autocheckpoint = {LOG_PAGES};"
        ))
        .map_err(|e| cannot_open(file, &e))?;
    bring_up(&mut connection, file)?;
    if was_killed {
        let faults = faults(&connection)?;
        if !faults.is_empty() {
            let text = format!("{} is damaged: restore a backup. {}", file.display(), faults.join("; "));
            return Err(Error::new(Cause::Database).because(text.clone()).saying(text));
        }
    }
    Ok(connection)
}

fn cannot_open(file: &Path, error: &rusqlite::Error) -> Error {
    let text = format!("{} cannot be used as a database: {error}", file.display());
    Error::new(Cause::Database).because(text.clone()).saying(text)
}

fn bring_up(connection: &mut Connection, file: &Path) -> Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let newest = version();
    if found > newest {
        return Err(Error::internal("schema is newer").saying(format!(
            "{} was written by a newer Roster (schema {found}, this one knows {newest}): use that one, or restore a backup",
            file.display()
        )));
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

pub fn reader_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI
}

pub fn prepare_reader(connection: &mut Connection) -> rusqlite::Result<()> {
    prepare(connection)?;
    connection.execute_batch("pragma query_only = on")
}

/// What every connection needs. The busy time-out comes first: the next pragma may already meet a lock.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(LOCK_WAIT_MS.into()))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // One plan a statement, whatever is bound: without it every `limit :limit` is planned anew at each run.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!(
        "pragma foreign_keys = on; pragma trusted_schema = off; pragma temp_store = memory; pragma cache_size = -{CACHE_KIB};"
    ))
}

/// What SQLite's own checks say; empty when all is well.
pub fn faults(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare("pragma quick_check").map_err(failed)?;
    let said: Vec<String> = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
    let mut faults: Vec<String> = said.into_iter().filter(|line| line != "ok").collect();
    let mut statement = connection.prepare("pragma foreign_key_check").map_err(failed)?;
    let orphans: Vec<String> = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
    faults.extend(orphans.into_iter().map(|table| format!("{table}: a row points to nothing")));
    Ok(faults)
}
