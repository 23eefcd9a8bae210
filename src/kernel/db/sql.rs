//! Running statements, and the only conversion of SQLite errors to [`Error`].
//!
//! Parameters are named, and their number is checked, because SQLite silently treats an unbound one as null.

use rusqlite::{Connection, Row, ToSql, ffi};

use super::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};

pub type Parameters<'p> = &'p [(&'p str, &'p dyn ToSql)];

impl Reader<'_> {
    /// Returns the first row, if any.
    pub fn find<T>(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let mut prepared = self.prepare(statement, parameters)?;
        let mut rows = prepared.query(parameters).map_err(from_sqlite)?;
        match rows.next().map_err(from_sqlite)? {
            Some(found) => row(found).map(Some).map_err(from_sqlite),
            None => Ok(None),
        }
    }

    /// Returns the first row of a statement that always has one: counts, sums, the `site` row. Fails with `internal` if
    /// there is none.
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
        let rows = prepared.query_map(parameters, row).map_err(from_sqlite)?;
        rows.collect::<rusqlite::Result<Vec<T>>>().map_err(from_sqlite)
    }

    fn prepare(&self, statement: &str, parameters: Parameters<'_>) -> Result<rusqlite::CachedStatement<'_>> {
        let prepared = self.connection.prepare_cached(statement).map_err(from_sqlite)?;
        if prepared.parameter_count() != parameters.len() {
            return Err(Error::internal(format!("wrong number of parameters: {statement}")));
        }
        Ok(prepared)
    }
}

impl Writer<'_> {
    /// Runs a statement that changes rows, and returns their number.
    pub fn execute(&self, statement: &str, parameters: Parameters<'_>) -> Result<usize> {
        self.prepare(statement, parameters)?.execute(parameters).map_err(from_sqlite)
    }

    /// Runs a statement that may violate a unique index. Fails with the first cause in `unique` whose index or columns
    /// SQLite names in its error.
    pub fn insert(&self, statement: &str, parameters: Parameters<'_>, unique: &[(&str, ErrorCode)]) -> Result<()> {
        let mut prepared = self.prepare(statement, parameters)?;
        let Err(refused) = prepared.execute(parameters) else { return Ok(()) };
        if let rusqlite::Error::SqliteFailure(code, Some(text)) = &refused
            && matches!(code.extended_code, ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
            && let Some((_, cause)) = unique.iter().find(|(column, _)| text.contains(column))
        {
            return Err(Error::new(*cause));
        }
        Err(from_sqlite(refused))
    }

    /// The rowid of the last inserted row.
    pub fn last_id(&self) -> i64 {
        self.connection.last_insert_rowid()
    }
}

/// Converts a number of rows to a parameter of a statement.
pub fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Parses the JSON of a column.
pub fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    parse(row.get_ref(column)?.as_str()?, column)
}

/// Parses the JSON of a column that may be null.
pub fn optional_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_str_or_null()?.map(|text| parse(text, column)).transpose()
}

/// Converts a pattern of `kernel::http::like` to a query of a trigram index, which finds every row that the pattern may
/// match, and a few more. Returns `None` if the index cannot be used: for fewer than three characters, and for
/// characters that SQLite cannot convert to lower case.
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
    let trigrams: Vec<String> = text.windows(3).take(TRIGRAMS_MAX).map(quoted).collect();
    (!trigrams.is_empty()).then(|| trigrams.join(" AND "))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

/// Serializes a value for a column that holds JSON.
pub fn to_json_text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("a column of JSON: {e}")))
}

/// Runs a statement without parameters and rows, such as `begin` or `savepoint`.
pub fn run(connection: &Connection, statement: &str) -> Result<()> {
    connection.prepare_cached(statement).and_then(|mut s| s.execute([])).map(drop).map_err(from_sqlite)
}

/// The `busy` error of a read that was interrupted after `db.read_ms`.
pub fn took_too_long() -> Error {
    let message = "the request took too long and was stopped: ask for less, or try again";
    Error::new(ErrorCode::Busy).with_message(message).with_source("db.read_ms").retry_after(1)
}

/// Converts a SQLite error by its extended result code.
pub fn from_sqlite(error: rusqlite::Error) -> Error {
    let cause = match &error {
        rusqlite::Error::SqliteFailure(code, _) => match code.extended_code & 0xff {
            ffi::SQLITE_FULL => ErrorCode::DatabaseFull,
            ffi::SQLITE_READONLY => ErrorCode::DatabaseReadOnly,
            // The last two: the index of the write-ahead log could not be created or extended.
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
