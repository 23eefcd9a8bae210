//! How statements are run, and the one place where a SQLite error becomes ours.
//!
//! Parameters are named and counted: SQLite reads a forgotten one as null, silently.

use rusqlite::{Connection, Row, ToSql, ffi};

use super::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};

pub type Parameters<'p> = &'p [(&'p str, &'p dyn ToSql)];

impl Reader<'_> {
    /// At most one row.
    pub fn find<T>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let mut prepared = self.prepare(statement, parameters)?;
        let mut rows = prepared.query(parameters).map_err(failed)?;
        match rows.next().map_err(failed)? {
            Some(found) => row(found).map(Some).map_err(failed),
            None => Ok(None),
        }
    }

    /// Exactly one row: counts, sums, the `site` row.
    pub fn one<T>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.find(statement, parameters, row)?.ok_or_else(|| Error::internal(format!("no row from: {statement}")))
    }

    pub fn all<T>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut prepared = self.prepare(statement, parameters)?;
        let rows = prepared.query_map(parameters, row).map_err(failed)?;
        rows.collect::<rusqlite::Result<Vec<T>>>().map_err(failed)
    }

    fn prepare(&self, statement: &str, parameters: Parameters<'_>) -> Result<rusqlite::CachedStatement<'_>> {
        let prepared = self.connection.prepare_cached(statement).map_err(failed)?;
        if prepared.parameter_count() != parameters.len() {
            return Err(Error::internal(format!("parameters do not fit: {statement}")));
        }
        Ok(prepared)
    }
}

impl Writer<'_> {
    /// Runs a change; answers how many rows it touched.
    pub fn execute(&self, statement: &str, parameters: Parameters<'_>) -> Result<usize> {
        self.prepare(statement, parameters)?.execute(parameters).map_err(failed)
    }

    /// The same, where a unique index may refuse: the first cause whose index or columns SQLite names is the answer.
    pub fn insert(&self, statement: &str, parameters: Parameters<'_>, unique: &[(&str, ErrorCode)]) -> Result<()> {
        let mut prepared = self.prepare(statement, parameters)?;
        let Err(refused) = prepared.execute(parameters) else { return Ok(()) };
        if let rusqlite::Error::SqliteFailure(code, Some(text)) = &refused
            && matches!(code.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
            && let Some((_, cause)) = unique.iter().find(|(column, _)| text.contains(column))
        {
            return Err(Error::new(*cause));
        }
        Err(failed(refused))
    }

    /// The number of the row that was inserted last.
    pub fn last_id(&self) -> i64 {
        self.connection.last_insert_rowid()
    }
}

/// A number of rows, as a statement takes it.
pub fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// What a column holds as JSON.
pub fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parse(row.get_ref(column)?.as_str()?, column)
}

/// The same of a column that may be null.
pub fn optional_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| parse(text, column)).transpose()
}

/// What an index of trigrams is asked for to find all that a pattern of `kernel::http::like` may fit, and a little more. `None`
/// where it cannot tell: of less than three characters, and of such whose lower case SQLite does not know.
pub fn trigrams(pattern: &str) -> Option<String> {
    const TRIGRAMS_MAX: usize = 32;
    let escaped = pattern.strip_prefix('%')?.strip_suffix('%')?;
    let (mut text, mut rest) = (Vec::new(), escaped.chars());
    while let Some(next) = rest.next() {
        text.push(if next == '\\' { rest.next()? } else { next });
    }
    if !text.iter().all(|c| c.is_ascii() && !c.is_ascii_control()) {
        return None;
    }
    let quoted = |three: &[char]| format!("\"{}\"", three.iter().collect::<String>().replace('"', "\"\""));
    let words: Vec<String> = text.windows(3).take(TRIGRAMS_MAX).map(quoted).collect();
    (!words.is_empty()).then(|| words.join(" AND "))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

/// The text of a column that holds JSON.
pub fn text_of(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("a column of JSON: {e}")))
}

/// A statement without parameters or rows: transactions and savepoints.
pub fn run(connection: &Connection, statement: &str) -> Result<()> {
    connection.prepare_cached(statement).and_then(|mut s| s.execute([])).map(drop).map_err(failed)
}

/// A read was ended after `db.read_ms`.
pub fn took_too_long() -> Error {
    let message = "the server was busy with this for too long and gave it up: ask for less, or try again";
    Error::new(ErrorCode::Busy).with_message(message).with_source("db.read_ms").retry_after(1)
}

/// Our error for SQLite's, by extended result code.
pub fn failed(error: rusqlite::Error) -> Error {
    let cause = match &error {
        rusqlite::Error::SqliteFailure(code, _) => match code.extended_code & 0xff {
            ffi::SQLITE_FULL => ErrorCode::DatabaseFull,
            ffi::SQLITE_READONLY => ErrorCode::DatabaseReadOnly,
            // The last two are the index of the write-ahead log, which could not be made or made longer.
            ffi::SQLITE_IOERR
                if [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMOPEN, ffi::SQLITE_IOERR_SHMSIZE]
                    .contains(&code.extended_code) =>
            {
                ErrorCode::DatabaseFull
            }
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => ErrorCode::DatabaseDamaged,
            ffi::SQLITE_INTERRUPT => return took_too_long().with_source(error.to_string()),
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => {
                return Error::new(ErrorCode::Busy).with_source(error.to_string()).retry_after(1);
            }
            _ => ErrorCode::Database,
        },
        _ => ErrorCode::Database,
    };
    Error::new(cause).with_source(error.to_string())
}
