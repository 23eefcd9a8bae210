//! Lists: a statement for each shape of question, and pages by position or by key.
//!
//! **Invariant.** The text of a statement consists of fixed pieces of the source; what callers send is only ever bound.
//! A condition stands in it only where its parameters are given, so that SQLite plans each shape by itself, and the
//! prepared statement is kept under its text.
//!
//! `tests/it/schema.rs` has SQLite explain every shape of every list: none may sort, and none may read a whole table for
//! the sake of a few rows.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Row, ToSql};

use super::Reader;
use super::sql::Parameters;
use crate::kernel::error::{Error, Field, Result};

/// What a list reads, and in which order.
pub struct List {
    /// Stands in its cursors: those of another list are refused.
    pub name: &'static str,
    pub columns: &'static str,
    /// The tables that conditions and order need.
    pub from: &'static str,
    /// Joins for the columns alone: they add no row, and leave none out.
    pub joins: &'static str,
    /// Those with parameters are asked only where all of these are given.
    pub conditions: &'static [&'static str],
    /// Unique as a whole and never null; ` desc` behind what falls.
    pub order: &'static [&'static str],
    /// Where one of these is given, rows must be looked at to be counted, and few are.
    pub costly: &'static [&'static str],
    /// Totals that are known without counting: where just these parameters are given, what answers it.
    pub kept: &'static [(&'static [&'static str], &'static str)],
}

/// A page, with what is needed for the next one.
#[derive(Debug)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// How many there are in all. Above [`Window::COUNTED_MAX`] it may be less than that, and above
    /// [`Window::NARROWED_MAX`] where a filter narrows the list; but as long as something comes behind a page that was
    /// asked for by its offset, it is more than that page's end.
    pub total: u64,
    pub limit: u64,
    pub offset: u64,
    /// The cursor behind the last item; `None` at the end.
    pub next: Option<String>,
}

impl<T> Listed<T> {
    pub fn map<U>(self, each: impl FnMut(T) -> U) -> Listed<U> {
        let Self { items, total, limit, offset, next } = self;
        Listed { items: items.into_iter().map(each).collect(), total, limit, offset, next }
    }

    pub fn try_map<U>(self, each: impl FnMut(T) -> Result<U>) -> Result<Listed<U>> {
        let Self { items, total, limit, offset, next } = self;
        Ok(Listed { items: items.into_iter().map(each).collect::<Result<_>>()?, total, limit, offset, next })
    }
}

/// Which part of a list is wanted; `limit` is capped, not refused.
#[derive(Debug, Clone)]
pub struct Window {
    pub limit: u64,
    pub offset: u64,
    pub after: Option<Cursor>,
}

impl Window {
    pub const DEFAULT: u64 = 50;
    pub const MAX: u64 = 200;
    /// The services of this site fetch whole lists.
    pub const INTERNAL_MAX: u64 = 500;
    /// Totals are counted up to here.
    pub const COUNTED_MAX: u64 = 100_000;
    /// The same where rows must be looked at for it.
    pub const NARROWED_MAX: u64 = 1_000;

    /// `after` is a cursor of the list, and goes without `offset`.
    pub fn new(limit: Option<u64>, offset: Option<u64>, after: Option<String>) -> Result<Self> {
        let after = after.filter(|text| !text.is_empty());
        if after.is_some() && offset.is_some() {
            return Err(refused("goes without offset: it says itself where to go on"));
        }
        let after = after.map(|text| Cursor::of(&text)).transpose()?;
        let offset = offset.unwrap_or(0).min(i64::MAX as u64);
        Ok(Self { limit: limit.unwrap_or(Self::DEFAULT).min(Self::MAX), offset, after })
    }

    pub fn internal(limit: Option<u64>, offset: Option<u64>, after: Option<String>) -> Result<Self> {
        let limit_most = limit.unwrap_or(Self::INTERNAL_MAX).min(Self::INTERNAL_MAX);
        Ok(Self { limit: limit_most, ..Self::new(limit, offset, after)? })
    }

    /// The first so many, however many these are.
    pub fn first(limit: u64) -> Self {
        Self { limit, offset: 0, after: None }
    }

    /// A page of what is no list of the database.
    pub fn of_all<T>(&self, all: Vec<T>, name: &str) -> Result<Listed<T>> {
        let total = all.len() as u64;
        let offset = match &self.after {
            Some(cursor) => match cursor.keys(name, 1)? {
                [Value::Integer(at)] if *at >= 0 => at.unsigned_abs(),
                _ => return Err(Cursor::bad()),
            },
            None => self.offset,
        };
        let many = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let items: Vec<T> = all.into_iter().skip(many(offset)).take(many(self.limit)).collect();
        let end = offset.saturating_add(items.len() as u64);
        let next = (end < total && !items.is_empty())
            .then(|| Cursor { list: name.into(), keys: vec![Value::Integer(end as i64)] }.text());
        Ok(Listed { items, total, limit: self.limit, offset: self.offset, next })
    }
}

/// A place in a list: the keys of the row that it is behind. Its text is opaque to callers.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    list: String,
    keys: Vec<Value>,
}

impl Cursor {
    fn bad() -> Error {
        refused("is not a `next` of this list")
    }

    fn of(text: &str) -> Result<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Self::bad())?;
        let (list, keys): (String, Vec<serde_json::Value>) = serde_json::from_slice(&bytes).map_err(|_| Self::bad())?;
        let key = |key: serde_json::Value| match key {
            serde_json::Value::Number(number) => number.as_i64().map(Value::Integer),
            serde_json::Value::String(text) => Some(Value::Text(text)),
            // A list of one: an id.
            serde_json::Value::Array(id) => match &id[..] {
                [serde_json::Value::String(digits)] => hex::decode(digits).ok().map(Value::Blob),
                _ => None,
            },
            _ => None,
        };
        let keys = keys.into_iter().map(key).collect::<Option<Vec<_>>>().ok_or_else(Self::bad)?;
        Ok(Self { list, keys })
    }

    fn text(&self) -> String {
        let key = |key: &Value| match key {
            Value::Integer(number) => serde_json::json!(number),
            Value::Text(text) => serde_json::json!(text),
            Value::Blob(bytes) => serde_json::json!([hex::encode(bytes)]),
            Value::Null | Value::Real(_) => serde_json::Value::Null,
        };
        let keys: Vec<serde_json::Value> = self.keys.iter().map(key).collect();
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::json!([self.list, keys]).to_string())
    }

    fn keys(&self, list: &str, many: usize) -> Result<&[Value]> {
        if self.list == list && self.keys.len() == many { Ok(&self.keys) } else { Err(Self::bad()) }
    }
}

fn refused(why: &str) -> Error {
    Error::fields(vec![Field::at(&["query", "after"], why)])
}

/// Parameters of the keys that a page begins behind, in their order.
const KEYS: [&str; 4] = [":after_1", ":after_2", ":after_3", ":after_4"];

impl List {
    /// The statement of a page, for the parameters that are given.
    pub fn page(&self, given: &[&str], is_after: bool) -> String {
        let keys: Vec<&str> = self.order.iter().map(|key| plain(key)).collect();
        let asked = all_of(self.asked(given).map(str::to_owned).chain(is_after.then(|| self.behind())));
        format!(
            "select {}, {} from {} {}{asked} order by {} limit :limit offset :offset",
            self.columns,
            keys.join(", "),
            self.from,
            self.joins,
            self.order.join(", ")
        )
    }

    /// The statement that counts, up to a bound.
    pub fn count(&self, given: &[&str]) -> String {
        let asked = all_of(self.asked(given).map(str::to_owned));
        format!("select count(*) from (select 1 from {}{asked} limit :counted_max)", self.from)
    }

    /// The parameters that conditions take, each once.
    pub fn parameters(&self) -> Vec<&'static str> {
        let mut all: Vec<&str> = self.conditions.iter().flat_map(|condition| parameters(condition)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The names of the parameters that are not null. One that the list does not know is a mistake of ours.
    fn given<'p>(&self, asked: Parameters<'p>) -> Result<Vec<&'p str>> {
        let known = |name: &str| self.parameters().contains(&name);
        let named: Vec<&str> = asked.iter().filter(|(_, value)| !is_null(*value)).map(|(name, _)| *name).collect();
        let in_columns = |name: &&str| parameters(self.columns).any(|used| used == *name);
        match named.iter().find(|name| !known(name) && !in_columns(name)) {
            Some(name) => Err(Error::internal(format!("the list of {} has no parameter {name}", self.name))),
            None => Ok(named.into_iter().filter(|name| known(name)).collect()),
        }
    }

    fn asked(&self, given: &[&str]) -> impl Iterator<Item = &'static str> {
        self.conditions.iter().copied().filter(move |condition| parameters(condition).all(|name| given.contains(&name)))
    }

    /// What comes behind the keys, in a form for which SQLite finds the place in an index.
    fn behind(&self) -> String {
        let keys: Vec<&str> = self.order.iter().map(|key| plain(key)).collect();
        let sign = |key: &str| if key.ends_with(DESC) { "<" } else { ">" };
        let signs: Vec<&str> = self.order.iter().map(|key| sign(key)).collect();
        match (&keys[..], &signs[..]) {
            ([key], [sign]) => format!("{key} {sign} {}", KEYS[0]),
            ([first, second], [one, other]) if one != other => {
                format!("{first} {one}= {} and ({first} {one} {} or {second} {other} {})", KEYS[0], KEYS[0], KEYS[1])
            }
            _ => format!("({}) {} ({})", keys.join(", "), signs[0], KEYS[..keys.len()].join(", ")),
        }
    }
}

const DESC: &str = " desc";

fn plain(key: &'static str) -> &'static str {
    key.strip_suffix(DESC).unwrap_or(key)
}

fn all_of(conditions: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = conditions.map(|one| format!("({one})")).collect();
    if all.is_empty() { String::new() } else { format!(" where {}", all.join(" and ")) }
}

/// The parameters that a piece of SQL names.
fn parameters(sql: &str) -> impl Iterator<Item = &str> {
    sql.match_indices(':').map(move |(at, _)| {
        let end = sql[at + 1..]
            .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
            .map_or(sql.len(), |n| at + 1 + n);
        &sql[at..end]
    })
}

fn is_null(value: &dyn ToSql) -> bool {
    let null = |value: &ToSqlOutput<'_>| {
        matches!(value, ToSqlOutput::Owned(Value::Null) | ToSqlOutput::Borrowed(ValueRef::Null))
    };
    value.to_sql().is_ok_and(|value| null(&value))
}

impl Reader<'_> {
    /// A page of a list, narrowed by the parameters that are not null, with its total.
    pub fn page<T>(
        &self,
        list: &List,
        asked: Parameters<'_>,
        window: &Window,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Listed<T>> {
        let listed = self.some(list, asked, window, row)?;
        // Where the end is in sight nothing is counted.
        let is_end = window.after.is_none() && listed.next.is_none() && window.limit > 0;
        if is_end && (window.offset == 0 || !listed.items.is_empty()) {
            return Ok(listed);
        }
        let total = self.total(list, asked)?.max(listed.total);
        Ok(Listed { total, ..listed })
    }

    /// A page without a total: how many there are at least, as far as the page shows.
    pub fn some<T>(
        &self,
        list: &List,
        asked: Parameters<'_>,
        window: &Window,
        mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Listed<T>> {
        let keys = window.after.as_ref().map(|cursor| cursor.keys(list.name, list.order.len())).transpose()?;
        let (limit, offset) = (i64::try_from(window.limit).unwrap_or(i64::MAX).min(i64::MAX - 1), window.offset as i64);
        let one_more = limit + 1;
        let statement = list.page(&list.given(asked)?, keys.is_some());
        let own = [(":limit", &one_more as &dyn ToSql), (":offset", &offset as &dyn ToSql)];
        let keyed = KEYS.into_iter().zip(keys.unwrap_or_default()).map(|(name, key)| (name, key as &dyn ToSql));
        let bound = bound(&statement, asked.iter().copied().chain(own).chain(keyed));
        let (mut read, mut last) = (0_i64, Vec::<Value>::new());
        let rows = self.all(&statement, &bound, |found| {
            read += 1;
            if read > limit {
                return Ok(None);
            }
            if read == limit {
                let columns = found.as_ref().column_count();
                let keys = columns - list.order.len()..columns;
                last = keys.map(|column| found.get(column)).collect::<rusqlite::Result<Vec<Value>>>()?;
            }
            row(found).map(Some)
        })?;
        let next = (read > limit && limit > 0).then(|| Cursor { list: list.name.to_owned(), keys: last }.text());
        let items: Vec<T> = rows.into_iter().flatten().collect();
        let seen = if read == 0 || keys.is_some() { 0 } else { window.offset.saturating_add(read.unsigned_abs()) };
        Ok(Listed { items, total: seen, limit: window.limit, offset: window.offset, next })
    }

    /// How many a list has, counted up to a bound.
    pub fn total(&self, list: &List, asked: Parameters<'_>) -> Result<u64> {
        let is_costly = list.given(asked)?.iter().any(|name| list.costly.contains(name));
        let most = if is_costly { Window::NARROWED_MAX } else { Window::COUNTED_MAX };
        self.counted(list, asked, i64::try_from(most).unwrap_or(i64::MAX))
    }

    fn counted(&self, list: &List, asked: Parameters<'_>, most: i64) -> Result<u64> {
        let given = list.given(asked)?;
        let statement = match list.kept.iter().find(|(asked, _)| *asked == given) {
            Some((_, kept)) => (*kept).to_owned(),
            None => list.count(&given),
        };
        let bound = bound(&statement, asked.iter().copied().chain([(":counted_max", &most as &dyn ToSql)]));
        self.find(&statement, &bound, |row| row.get::<_, i64>(0)).map(|total| total.unwrap_or_default().unsigned_abs())
    }

    /// Two lists as one: behind the last of the first comes the second. The total is only what the page shows.
    pub fn some_of_two<T>(
        &self,
        [first, second]: [&List; 2],
        asked: Parameters<'_>,
        window: &Window,
        mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Listed<T>> {
        let start = Window::first;
        let cursor = window.after.as_ref();
        let (mut listed, passed) = match cursor {
            Some(cursor) if cursor.list == second.name => {
                let begin = start(window.limit);
                return self.some(second, asked, if cursor.keys.is_empty() { &begin } else { window }, row);
            }
            Some(_) => (self.some(first, asked, window, &mut row)?, 0),
            None => {
                let listed = self.some(first, asked, window, &mut row)?;
                let is_behind = listed.items.is_empty() && window.offset > 0;
                let passed = if is_behind { self.counted(first, asked, i64::MAX)? } else { listed.total };
                (listed, passed)
            }
        };
        if listed.next.is_some() {
            return Ok(listed);
        }
        let rest = window.limit.saturating_sub(listed.items.len() as u64);
        let offset = if cursor.is_none() { window.offset.saturating_sub(passed) } else { 0 };
        // Where nothing more is wanted, one row tells that there is more.
        let more = self.some(second, asked, &Window { offset, ..start(rest.max(1)) }, row)?;
        if rest == 0 {
            let begins = || Cursor { list: second.name.to_owned(), keys: Vec::new() }.text();
            listed.next = (!more.items.is_empty()).then(begins);
        } else {
            listed.items.extend(more.items);
            listed.next = more.next;
            if cursor.is_none() && more.total > 0 {
                listed.total = passed.saturating_add(more.total);
            }
        }
        Ok(listed)
    }
}

/// What of all this the statement names.
fn bound<'p>(statement: &str, all: impl Iterator<Item = (&'p str, &'p dyn ToSql)>) -> Vec<(&'p str, &'p dyn ToSql)> {
    all.filter(|(name, _)| parameters(statement).any(|used| used == *name)).collect()
}
