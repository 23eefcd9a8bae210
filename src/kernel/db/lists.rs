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
    /// Where one of these is given, it may be that few of many rows fit. An answer then looks at [`Window::WALKED_MAX`] rows
    /// at most: its page may be short, or empty, while `next` says where to go on. A page that is asked for by its offset
    /// looks at as many as it takes.
    pub walked: &'static [&'static str],
    /// Totals that are known without counting: where just these parameters are given, what answers it.
    pub kept: &'static [(&'static [&'static str], &'static str)],
}

/// A page, with what is needed for the next one.
#[derive(Debug)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// How many there are in all. Above [`Window::COUNTED_MAX`] it may be less than that, and above
    /// [`Window::NARROWED_MAX`] where a filter narrows the list; but as long as something comes behind a page that was
    /// asked for by its offset, it is more than that page's end. Where not all rows were looked at, it is one more than
    /// was found.
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
    /// Looks at as many rows as it takes to fill the page.
    pub is_exact: bool,
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
    /// Rows that one answer looks at where few of many may fit: some milliseconds.
    pub const WALKED_MAX: u64 = 4_000;

    /// `after` is a cursor of the list, and goes without `offset`.
    pub fn new(limit: Option<u64>, offset: Option<u64>, after: Option<String>) -> Result<Self> {
        let after = after.filter(|text| !text.is_empty());
        if after.is_some() && offset.is_some() {
            return Err(refused("goes without offset: it says itself where to go on"));
        }
        let after = after.map(|text| Cursor::of(&text)).transpose()?;
        let is_exact = offset.is_some();
        let offset = offset.unwrap_or(0).min(i64::MAX as u64);
        Ok(Self { limit: limit.unwrap_or(Self::DEFAULT).min(Self::MAX), offset, after, is_exact })
    }

    pub fn internal(limit: Option<u64>, offset: Option<u64>, after: Option<String>) -> Result<Self> {
        let limit_most = limit.unwrap_or(Self::INTERNAL_MAX).min(Self::INTERNAL_MAX);
        Ok(Self { limit: limit_most, ..Self::new(limit, offset, after)? })
    }

    /// The first so many, however many these are.
    pub fn first(limit: u64) -> Self {
        Self { limit, offset: 0, after: None, is_exact: true }
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
const AFTER: [&str; 4] = [":after_1", ":after_2", ":after_3", ":after_4"];
/// The same of the last row that is looked at.
const UNTIL: [&str; 4] = [":until_1", ":until_2", ":until_3", ":until_4"];

impl List {
    /// The statement of a page, for the parameters that are given, between two rows where these are known.
    pub fn page(&self, given: &[&str], is_after: bool, is_until: bool) -> String {
        let places = is_after.then(|| self.beside(AFTER, false)).into_iter();
        let places = places.chain(is_until.then(|| self.beside(UNTIL, true)));
        let asked = all_of(self.asked(given).map(str::to_owned).chain(places));
        format!(
            "select {}, {} from {} {}{asked} order by {} limit :limit offset :offset",
            self.columns,
            self.keys(),
            self.from,
            self.joins,
            self.order.join(", ")
        )
    }

    /// The statement that finds where a walk ends: the keys of its last row, and of the one behind it.
    pub fn edge(&self, given: &[&str], is_after: bool) -> String {
        let is_walked = |condition: &str| parameters(condition).any(|name| self.walked.contains(&name));
        let passed = self.asked(given).filter(|condition| !is_walked(condition)).map(str::to_owned);
        let asked = all_of(passed.chain(is_after.then(|| self.beside(AFTER, false))));
        let (keys, order) = (self.keys(), self.order.join(", "));
        format!("select {keys} from {}{asked} order by {order} limit 2 offset :walked", self.from)
    }

    /// The statement that counts, up to a bound.
    pub fn count(&self, given: &[&str], is_until: bool) -> String {
        let asked = all_of(self.asked(given).map(str::to_owned).chain(is_until.then(|| self.beside(UNTIL, true))));
        format!("select count(*) from (select 1 from {}{asked} limit :counted_max)", self.from)
    }

    /// Is only a part of the rows looked at for this?
    pub fn walks(&self, given: &[&str]) -> bool {
        given.iter().any(|name| self.walked.contains(name))
    }

    fn keys(&self) -> String {
        self.order.iter().map(|key| plain(key)).collect::<Vec<_>>().join(", ")
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

    /// What comes behind the keys, or all up to them, in a form for which SQLite finds the place in an index.
    fn beside(&self, names: [&str; 4], is_until: bool) -> String {
        let keys: Vec<&str> = self.order.iter().map(|key| plain(key)).collect();
        let sign = |key: &str| if key.ends_with(DESC) == is_until { ">" } else { "<" };
        let signs: Vec<&str> = self.order.iter().map(|key| sign(key)).collect();
        let (equal, at) = (if is_until { "=" } else { "" }, names);
        match (&keys[..], &signs[..]) {
            ([key], [sign]) => format!("{key} {sign}{equal} {}", at[0]),
            ([first, second], [one, other]) if one != other => {
                let first_or = format!("{first} {one} {} or {second} {other}{equal} {}", at[0], at[1]);
                format!("{first} {one}= {} and ({first_or})", at[0])
            }
            _ => format!("({}) {}{equal} ({})", keys.join(", "), signs[0], at[..keys.len()].join(", ")),
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
        let found = listed.items.len() as u64;
        if window.after.is_none() && window.limit > 0 {
            // Where the end is in sight nothing is counted, nor where all that was looked at is in the page.
            if listed.next.is_none() && (window.offset == 0 || found > 0) {
                return Ok(listed);
            }
            if listed.next.is_some() && found < window.limit {
                return Ok(Listed { total: found + 1, ..listed });
            }
        }
        let total = self.total(list, asked, window)?.max(listed.total);
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
        let until = self.edge(list, asked, window, keys)?;
        let statement = list.page(&list.given(asked)?, keys.is_some(), until.is_some());
        let own = [(":limit", &one_more as &dyn ToSql), (":offset", &offset as &dyn ToSql)];
        let places = keyed(AFTER, keys).chain(keyed(UNTIL, until.as_deref()));
        let bound = bound(&statement, asked.iter().copied().chain(own).chain(places));
        let (mut read, mut last) = (0_i64, Vec::<Value>::new());
        let rows = self.all(&statement, &bound, |found| {
            read += 1;
            if read > limit {
                return Ok(None);
            }
            if read == limit {
                let columns = found.as_ref().column_count();
                last = values(found, columns - list.order.len()..columns)?;
            }
            row(found).map(Some)
        })?;
        let next = if read > limit { Some(last) } else { until };
        let next = next.filter(|_| limit > 0).map(|keys| Cursor { list: list.name.to_owned(), keys }.text());
        let items: Vec<T> = rows.into_iter().flatten().collect();
        let seen = if read == 0 || keys.is_some() { 0 } else { window.offset.saturating_add(read.unsigned_abs()) };
        Ok(Listed { items, total: seen, limit: window.limit, offset: window.offset, next })
    }

    /// The keys of the last row that is looked at from here on, where there are rows behind it.
    fn edge(
        &self,
        list: &List,
        asked: Parameters<'_>,
        window: &Window,
        after: Option<&[Value]>,
    ) -> Result<Option<Vec<Value>>> {
        let given = list.given(asked)?;
        if window.is_exact || !list.walks(&given) {
            return Ok(None);
        }
        let statement = list.edge(&given, after.is_some());
        let passed = i64::try_from(Window::WALKED_MAX - 1).unwrap_or(i64::MAX);
        let own = [(":walked", &passed as &dyn ToSql)];
        let bound = bound(&statement, asked.iter().copied().chain(own).chain(keyed(AFTER, after)));
        let mut found = self.all(&statement, &bound, |found| values(found, 0..list.order.len()))?;
        Ok((found.len() == 2).then(|| found.swap_remove(0)))
    }

    /// How many a list has, counted up to a bound.
    pub fn total(&self, list: &List, asked: Parameters<'_>, window: &Window) -> Result<u64> {
        let is_costly = list.given(asked)?.iter().any(|name| list.costly.contains(name));
        let most = if is_costly { Window::NARROWED_MAX } else { Window::COUNTED_MAX };
        let until = self.edge(list, asked, window, None)?;
        let counted = self.counted(list, asked, i64::try_from(most).unwrap_or(i64::MAX), until.as_deref())?;
        Ok(counted + u64::from(until.is_some()))
    }

    fn counted(&self, list: &List, asked: Parameters<'_>, most: i64, until: Option<&[Value]>) -> Result<u64> {
        let given = list.given(asked)?;
        let statement = match list.kept.iter().find(|(asked, _)| *asked == given) {
            Some((_, kept)) => (*kept).to_owned(),
            None => list.count(&given, until.is_some()),
        };
        let own = [(":counted_max", &most as &dyn ToSql)];
        let bound = bound(&statement, asked.iter().copied().chain(own).chain(keyed(UNTIL, until)));
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
        let start = |limit: u64| Window { is_exact: window.is_exact, ..Window::first(limit) };
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
                let passed = if is_behind { self.counted(first, asked, i64::MAX, None)? } else { listed.total };
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
            listed.next = (!more.items.is_empty() || more.next.is_some()).then(begins);
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

/// Keys with the names that they are bound to.
fn keyed<'p>(names: [&'static str; 4], keys: Option<&'p [Value]>) -> impl Iterator<Item = (&'p str, &'p dyn ToSql)> {
    names.into_iter().zip(keys.unwrap_or_default()).map(|(name, key)| (name, key as &dyn ToSql))
}

fn values(row: &Row<'_>, mut columns: std::ops::Range<usize>) -> rusqlite::Result<Vec<Value>> {
    columns.try_fold(Vec::new(), |mut values, column| {
        values.push(row.get(column)?);
        Ok(values)
    })
}

/// What of all this the statement names.
fn bound<'p>(statement: &str, all: impl Iterator<Item = (&'p str, &'p dyn ToSql)>) -> Vec<(&'p str, &'p dyn ToSql)> {
    all.filter(|(name, _)| parameters(statement).any(|used| used == *name)).collect()
}
