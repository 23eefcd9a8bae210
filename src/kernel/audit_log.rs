//! The audit log: who did what to which target, in a hash chain. Written by `app` only, in the transaction of the
//! change it records.
//!
//! It holds no personal data, because that could not be erased from a hash chain: entries about members name the fields
//! that changed, not their values. It holds no secrets either.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::kernel::authz::principal::Identity;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp};

/// The content of an audit entry: what a change did.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Kind and id: `role 0198…`.
    pub target: String,
    pub organization: Option<OrganizationId>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Entry {
    pub fn new(kind: &str, id: impl std::fmt::Display) -> Self {
        Self { target: format!("{kind} {id}"), organization: None, before: None, after: None }
    }

    #[must_use]
    pub fn within(mut self, organization: impl Into<Option<OrganizationId>>) -> Self {
        self.organization = organization.into();
        self
    }

    #[must_use]
    pub fn before(mut self, value: Value) -> Self {
        self.before = Some(value);
        self
    }

    #[must_use]
    pub fn after(mut self, value: Value) -> Self {
        self.after = Some(value);
        self
    }
}

/// Whether a change was made or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Denied,
}

impl Outcome {
    pub const ALL: [Self; 2] = [Self::Done, Self::Denied];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

impl FromSql for Outcome {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

const LAST_LINK: &str = "select id, hash from audit order by id desc limit 1";
const INSERT_ENTRY: &str = "
    insert into audit (id, at, actor_kind, actor, action, target, organization_id, outcome, before, after,
                       request_id, address, hash)
    values (:id, :at, :actor_kind, :actor, :action, :target, :organization_id, :outcome, :before, :after,
            :request_id, :address, :hash)";

/// Appends an entry to the chain.
pub fn record(
    w: &Writer<'_>,
    (actor_kind, actor): (&str, &str),
    (request_id, address): (&str, &str),
    action: &str,
    outcome: Outcome,
    entry: &Entry,
) -> Result<()> {
    let (last, link) = w.find(LAST_LINK, &[], |row| Ok((row.get(0)?, row.get(1)?)))?.unwrap_or((0, GENESIS));
    let id: i64 = last + 1;
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    let (before, after) = (text(&entry.before), text(&entry.after));
    let row = Row {
        id,
        at: w.now(),
        texts: [actor_kind, actor, action, &entry.target, outcome.as_str(), request_id, address],
        organization: entry.organization,
        values: [before.as_deref(), after.as_deref()],
    };
    let hash = row.hash(&link);
    w.execute(
        INSERT_ENTRY,
        &[
            (":id", &id),
            (":at", &row.at),
            (":actor_kind", &actor_kind),
            (":actor", &actor),
            (":action", &action),
            (":target", &entry.target),
            (":organization_id", &entry.organization),
            (":outcome", &outcome.as_str()),
            (":before", &before),
            (":after", &after),
            (":request_id", &request_id),
            (":address", &address),
            (":hash", &hash),
        ],
    )
    .map(drop)
}

/// Appends an entry for a change that was made by this caller.
pub fn record_done(w: &Writer<'_>, caller: &Identity, action: &str, entry: &Entry) -> Result<()> {
    let (kind, name) = caller.actor();
    record(w, (kind, &name), (&caller.context.request_id, &caller.address()), action, Outcome::Done, entry)
}

type Link = [u8; 32];
/// The hash before the first entry.
const GENESIS: Link = [0; 32];

/// An entry in the form that is hashed: each part with its length, so that no two entries give the same bytes.
struct Row<'a> {
    id: i64,
    at: Timestamp,
    texts: [&'a str; 7],
    organization: Option<OrganizationId>,
    values: [Option<&'a str>; 2],
}

impl Row<'_> {
    fn hash(&self, link: &Link) -> Link {
        let mut digest = Sha256::new();
        digest.update(link);
        digest.update(self.id.to_le_bytes());
        digest.update(self.at.0.to_le_bytes());
        let mut part = |bytes: Option<&[u8]>| {
            digest.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            digest.update(bytes.unwrap_or_default());
        };
        self.texts.iter().for_each(|text| part(Some(text.as_bytes())));
        part(self.organization.as_ref().map(|id| id.0.as_bytes().as_slice()));
        self.values.iter().for_each(|value| part(value.map(str::as_bytes)));
        digest.finalize().into()
    }
}

/// The result of the verification of the whole chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub entries: u64,
    /// The id of the first entry that does not match the chain; all entries before it are unchanged.
    pub broken_at: Option<i64>,
    /// The last hash that was verified. If it is also stored elsewhere, a truncated chain can be detected.
    pub last_hash: String,
}

const WALK: &str = "
    select id, at, actor_kind, actor, action, target, organization_id, outcome, before, after, request_id, address, hash
    from audit
    order by id";

/// How many entries are verified between two reports.
const REPORTED_EVERY: u64 = 1_000;

/// The id of the last entry; 0 if there is none.
pub fn last_id(r: &Reader<'_>) -> Result<u64> {
    let last: Option<i64> = r.find(LAST_LINK, &[], |row| row.get(0))?;
    Ok(last.unwrap_or_default().unsigned_abs())
}

/// Verifies the chain from its beginning. `report` gets the number of entries that were verified since it was called
/// last; if it fails, the verification ends with its error.
pub fn verify(r: &Reader<'_>, report: impl Fn(u64) -> Result<()>) -> Result<Verified> {
    let mut statement = r.connection.prepare_cached(WALK).map_err(crate::kernel::db::sql::from_sqlite)?;
    let mut rows = statement.query([]).map_err(crate::kernel::db::sql::from_sqlite)?;
    let mut found = Verified { entries: 0, broken_at: None, last_hash: String::new() };
    let mut link = GENESIS;
    let mut expected = 1;
    while let Some(row) = rows.next().map_err(crate::kernel::db::sql::from_sqlite)? {
        let id: i64 = row.get(0).map_err(crate::kernel::db::sql::from_sqlite)?;
        // A row with other types was not written by Roster.
        let fits = matches(row, &link, expected).unwrap_or(false);
        if !fits {
            found.broken_at = Some(id);
            break;
        }
        link = row.get(12).map_err(crate::kernel::db::sql::from_sqlite)?;
        expected = id + 1;
        found.entries += 1;
        if found.entries.is_multiple_of(REPORTED_EVERY) {
            report(REPORTED_EVERY)?;
        }
    }
    report(found.entries % REPORTED_EVERY)?;
    found.last_hash = hex::encode(link);
    Ok(found)
}

fn matches(row: &rusqlite::Row<'_>, link: &Link, expected: i64) -> rusqlite::Result<bool> {
    let text = |column: usize| -> rusqlite::Result<String> { row.get(column) };
    let texts = [text(2)?, text(3)?, text(4)?, text(5)?, text(7)?, text(10)?, text(11)?];
    let (before, after): (Option<String>, Option<String>) = (row.get(8)?, row.get(9)?);
    let read = Row {
        id: row.get(0)?,
        at: row.get(1)?,
        texts: texts.each_ref().map(String::as_str),
        organization: row.get(6)?,
        values: [before.as_deref(), after.as_deref()],
    };
    let stored: Link = row.get(12)?;
    Ok(read.id == expected && read.hash(link) == stored)
}
