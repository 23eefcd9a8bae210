//! Lists: one statement per combination of filters, and pagination by offset or by cursor.
//!
//! **Invariant.** The text of a statement consists of constants of the source; values from callers are always bound as
//! parameters. A statement contains a condition only if its parameters are given, so that SQLite plans each combination
//! separately, and the statement cache is keyed by the text.
//!
//! `tests/it/rules/schema.rs` checks the query plan of every combination of every list: none may sort, and none may scan a
//! whole table for a few rows.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Row, ToSql};

use super::Reader;
use super::sql::Parameters;
use crate::kernel::error::{Error, Field, Result};

/// The definition of a list: its columns, tables, filters and order.
pub struct List {
    /// Part of its cursors: cursors of another list are refused.
    pub name: &'static str,
    pub columns: &'static str,
    /// The tables that conditions and order refer to.
    pub from: &'static str,
    /// Joins that only provide columns: they neither add nor remove rows.
    pub joins: &'static str,
    /// SQL conditions; one with parameters is used only if all of them are given.
    pub conditions: &'static [&'static str],
    /// The sort keys: unique in combination and never null; ` desc` after a descending one.
    pub order: &'static [&'static str],
    /// Parameters with which counting must read rows; with one of them, only up to [`PageRequest::NARROWED_MAX`] are
    /// counted.
    pub costly: &'static [&'static str],
    /// Parameters with which few of many rows may match. With one of them, a response scans at most
    /// [`PageRequest::WALKED_MAX`] rows: its page may be short, or empty, while `next` says where to continue. A page
    /// that is requested by offset scans as many rows as necessary.
    pub walked: &'static [&'static str],
    /// Totals that are known without counting: for exactly these given parameters, the statement that reads the total.
    pub kept: &'static [(&'static [&'static str], &'static str)],
}

/// A page of a list, with the cursor of the next page.
#[derive(Debug)]
pub struct ListPage<T> {
    pub items: Vec<T>,
    /// The number of entries in the list. It is counted only up to [`PageRequest::COUNTED_MAX`], or
    /// [`PageRequest::NARROWED_MAX`] if a filter narrows the list, so that a larger list may report less than it has.
    /// If entries follow a page that was requested by offset, `total` is always greater than the end of that page. If
    /// not all rows were scanned, it is one more than the number found.
    pub total: u64,
    pub limit: u64,
    pub offset: u64,
    /// The cursor after the last item; `None` on the last page.
    pub next: Option<String>,
}

impl<T> ListPage<T> {
    pub fn map<U>(self, each: impl FnMut(T) -> U) -> ListPage<U> {
        let Self { items, total, limit, offset, next } = self;
        ListPage { items: items.into_iter().map(each).collect(), total, limit, offset, next }
    }

    pub fn try_map<U>(self, each: impl FnMut(T) -> Result<U>) -> Result<ListPage<U>> {
        let Self { items, total, limit, offset, next } = self;
        Ok(ListPage { items: items.into_iter().map(each).collect::<Result<_>>()?, total, limit, offset, next })
    }
}

/// The direction in which a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// In the order of the list.
    #[default]
    Forward,
    /// In the opposite order, which the same index serves.
    Backward,
}

impl Direction {
    /// Returns the name of the list in cursors. A cursor is refused in the other direction.
    fn name_of(self, list: &List) -> String {
        match self {
            Self::Forward => list.name.to_owned(),
            Self::Backward => format!("-{}", list.name),
        }
    }
}

/// The requested part of a list; a `limit` above the maximum is reduced to it, not refused.
#[derive(Debug, Clone)]
pub struct PageRequest {
    pub limit: u64,
    pub offset: u64,
    pub after: Option<Cursor>,
    /// Whether as many rows are scanned as necessary to fill the page.
    pub is_exact: bool,
    pub direction: Direction,
}

impl PageRequest {
    pub const DEFAULT: u64 = 50;
    pub const MAX: u64 = 200;
    /// The maximum for internal services, which fetch whole lists.
    pub const INTERNAL_MAX: u64 = 500;
    /// Totals are counted up to this number.
    pub const COUNTED_MAX: u64 = 100_000;
    /// Totals are counted up to this number if counting must read rows.
    pub const NARROWED_MAX: u64 = 1_000;
    /// Most rows that one response scans if few of many may match: some milliseconds.
    pub const WALKED_MAX: u64 = 4_000;

    /// Creates a window. `after` is a cursor of the list. Fails with `bad_input` if `offset` is given too.
    pub fn new(limit: Option<u64>, offset: Option<u64>, after: Option<String>) -> Result<Self> {
        let after = after.filter(|text| !text.is_empty());
        if after.is_some() && offset.is_some() {
            return Err(refused("must not be combined with offset: the cursor already holds the position"));
        }
        let after = after.map(|text| Cursor::of(&text)).transpose()?;
        let is_exact = offset.is_some();
        let offset = offset.unwrap_or(0).min(i64::MAX as u64);
        let limit = limit.unwrap_or(Self::DEFAULT).min(Self::MAX);
        Ok(Self { limit, offset, after, is_exact, direction: Direction::Forward })
    }

    /// The same part of the list in this direction.
    #[must_use]
    pub fn toward(self, direction: Direction) -> Self {
        Self { direction, ..self }
    }

    pub fn internal(limit: Option<u64>, offset: Option<u64>, after: Option<String>) -> Result<Self> {
        let capped = limit.unwrap_or(Self::INTERNAL_MAX).min(Self::INTERNAL_MAX);
        Ok(Self { limit: capped, ..Self::new(limit, offset, after)? })
    }

    /// The first `limit` entries, without a maximum.
    pub fn first(limit: u64) -> Self {
        Self { limit, offset: 0, after: None, is_exact: true, direction: Direction::Forward }
    }

    /// Returns a page of entries that do not come from the database.
    pub fn of_all<T>(&self, all: Vec<T>, name: &str) -> Result<ListPage<T>> {
        let total = all.len() as u64;
        let offset = match &self.after {
            Some(cursor) => match cursor.keys(name, 1)? {
                [Value::Integer(at)] if *at >= 0 => at.unsigned_abs(),
                _ => return Err(Cursor::bad()),
            },
            None => self.offset,
        };
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let items: Vec<T> = all.into_iter().skip(count(offset)).take(count(self.limit)).collect();
        let end = offset.saturating_add(items.len() as u64);
        let next = (end < total && !items.is_empty())
            .then(|| Cursor { list: name.into(), keys: vec![Value::Integer(end as i64)] }.text());
        Ok(ListPage { items, total, limit: self.limit, offset: self.offset, next })
    }
}

/// A position in a list: the keys of the row before it. Its text is opaque to callers.
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
            // An array with one string is a blob, such as an id, in hexadecimal digits.
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

    fn keys(&self, list: &str, count: usize) -> Result<&[Value]> {
        if self.list == list && self.keys.len() == count { Ok(&self.keys) } else { Err(Self::bad()) }
    }
}

fn refused(why: &str) -> Error {
    Error::fields(vec![Field::at(&["query", "after"], why)])
}

/// Parameters for the keys of the row that a page begins after, in their order.
const AFTER: [&str; 4] = [":after_1", ":after_2", ":after_3", ":after_4"];
/// Parameters for the keys of the last row that is scanned.
const UNTIL: [&str; 4] = [":until_1", ":until_2", ":until_3", ":until_4"];

impl List {
    /// The statement of a page for the given parameters, bounded by the row before it and by the last row to scan if
    /// these are known.
    pub fn page(&self, toward: Direction, given: &[&str], is_after: bool, is_until: bool) -> String {
        let bounds = is_after.then(|| self.key_condition(toward, AFTER, false)).into_iter();
        let bounds = bounds.chain(is_until.then(|| self.key_condition(toward, UNTIL, true)));
        let filters = all_of(self.filters(given).map(str::to_owned).chain(bounds));
        format!(
            "select {}, {} from {} {}{filters} order by {} limit :limit offset :offset",
            self.columns,
            self.keys(),
            self.from,
            self.joins,
            self.order_by(toward)
        )
    }

    /// The statement that finds the end of a bounded scan: the keys of its last row, and of the row after it.
    pub fn scan_end(&self, toward: Direction, given: &[&str], is_after: bool) -> String {
        let is_walked = |condition: &str| parameters(condition).any(|name| self.walked.contains(&name));
        let scanned = self.filters(given).filter(|condition| !is_walked(condition)).map(str::to_owned);
        let filters = all_of(scanned.chain(is_after.then(|| self.key_condition(toward, AFTER, false))));
        let (keys, order) = (self.keys(), self.order_by(toward));
        format!("select {keys} from {}{filters} order by {order} limit 2 offset :walked", self.from)
    }

    /// The statement that counts the rows, up to a bound.
    pub fn count(&self, toward: Direction, given: &[&str], is_until: bool) -> String {
        let bound = is_until.then(|| self.key_condition(toward, UNTIL, true));
        let filters = all_of(self.filters(given).map(str::to_owned).chain(bound));
        format!("select count(*) from (select 1 from {}{filters} limit :counted_max)", self.from)
    }

    /// Whether the scan is bounded for these given parameters.
    pub fn walks(&self, given: &[&str]) -> bool {
        given.iter().any(|name| self.walked.contains(name))
    }

    /// Whether the key is in descending order in this direction.
    fn descends(key: &str, toward: Direction) -> bool {
        key.ends_with(DESC) == (toward == Direction::Forward)
    }

    fn order_by(&self, toward: Direction) -> String {
        let ordered = |key: &&'static str| match Self::descends(key, toward) {
            true => format!("{}{DESC}", plain(key)),
            false => plain(key).to_owned(),
        };
        self.order.iter().map(ordered).collect::<Vec<_>>().join(", ")
    }

    fn keys(&self) -> String {
        self.order.iter().map(|key| plain(key)).collect::<Vec<_>>().join(", ")
    }

    /// The distinct parameters of all conditions.
    pub fn parameters(&self) -> Vec<&'static str> {
        let mut all: Vec<&str> = self.conditions.iter().flat_map(|condition| parameters(condition)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The names of the parameters of conditions that are not null. Fails with `internal` on a parameter that the list
    /// does not have.
    fn given<'p>(&self, filters: Parameters<'p>) -> Result<Vec<&'p str>> {
        let known = |name: &str| self.parameters().contains(&name);
        let named: Vec<&str> = filters.iter().filter(|(_, value)| !is_null(*value)).map(|(name, _)| *name).collect();
        let in_columns = |name: &&str| parameters(self.columns).any(|used| used == *name);
        match named.iter().find(|name| !known(name) && !in_columns(name)) {
            Some(name) => Err(Error::internal(format!("the list of {} has no parameter {name}", self.name))),
            None => Ok(named.into_iter().filter(|name| known(name)).collect()),
        }
    }

    fn filters(&self, given: &[&str]) -> impl Iterator<Item = &'static str> {
        self.conditions.iter().copied().filter(move |condition| parameters(condition).all(|name| given.contains(&name)))
    }

    /// The condition for the rows after these keys, or for all rows up to and including them, in a form that lets
    /// SQLite seek in an index.
    fn key_condition(&self, toward: Direction, names: [&str; 4], is_until: bool) -> String {
        let keys: Vec<&str> = self.order.iter().map(|key| plain(key)).collect();
        let sign = |key: &str| if Self::descends(key, toward) == is_until { ">" } else { "<" };
        // SQLite seeks by a row value only if its first key is a column.
        let is_expression = keys.first().is_some_and(|key| key.contains('('));
        let signs: Vec<&str> = self.order.iter().map(|key| sign(key)).collect();
        let (equal, at) = (if is_until { "=" } else { "" }, names);
        match (&keys[..], &signs[..]) {
            ([key], [sign]) => format!("{key} {sign}{equal} {}", at[0]),
            ([first, second], [one, other]) if one != other || is_expression => {
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

/// The parameters in a piece of SQL.
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
    /// Returns a page of a list with its total, filtered by the parameters that are not null.
    pub fn page<T>(
        &self,
        list: &List,
        filters: Parameters<'_>,
        window: &PageRequest,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<ListPage<T>> {
        let listed = self.page_without_total(list, filters, window, row)?;
        let found = listed.items.len() as u64;
        if window.after.is_none() && window.limit > 0 {
            // Nothing is counted if the page shows the end of the list, or if all matches among the scanned rows are in
            // it.
            if listed.next.is_none() && (window.offset == 0 || found > 0) {
                return Ok(listed);
            }
            if listed.next.is_some() && found < window.limit {
                return Ok(ListPage { total: found + 1, ..listed });
            }
        }
        let total = self.total(list, filters, window)?.max(listed.total);
        Ok(ListPage { total, ..listed })
    }

    /// Returns a page without counting: `total` is a lower bound that follows from the page.
    pub fn page_without_total<T>(
        &self,
        list: &List,
        filters: Parameters<'_>,
        window: &PageRequest,
        mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<ListPage<T>> {
        let (toward, name) = (window.direction, window.direction.name_of(list));
        let keys = window.after.as_ref().map(|cursor| cursor.keys(&name, list.order.len())).transpose()?;
        let (limit, offset) = (i64::try_from(window.limit).unwrap_or(i64::MAX).min(i64::MAX - 1), window.offset as i64);
        let one_more = limit + 1;
        let until = self.scan_end(list, filters, window, keys)?;
        let statement = list.page(toward, &list.given(filters)?, keys.is_some(), until.is_some());
        let own = [(":limit", &one_more as &dyn ToSql), (":offset", &offset as &dyn ToSql)];
        let bounds = keyed(AFTER, keys).chain(keyed(UNTIL, until.as_deref()));
        let bound = bound(&statement, filters.iter().copied().chain(own).chain(bounds));
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
        let next = next.filter(|_| limit > 0).map(|keys| Cursor { list: name, keys }.text());
        let items: Vec<T> = rows.into_iter().flatten().collect();
        let seen = if read == 0 || keys.is_some() { 0 } else { window.offset.saturating_add(read.unsigned_abs()) };
        Ok(ListPage { items, total: seen, limit: window.limit, offset: window.offset, next })
    }

    /// The keys of the last row of a bounded scan; `None` if the scan is not bounded, or reaches the end of the list.
    fn scan_end(
        &self,
        list: &List,
        filters: Parameters<'_>,
        window: &PageRequest,
        after: Option<&[Value]>,
    ) -> Result<Option<Vec<Value>>> {
        let given = list.given(filters)?;
        if window.is_exact || !list.walks(&given) {
            return Ok(None);
        }
        let statement = list.scan_end(window.direction, &given, after.is_some());
        let passed = i64::try_from(PageRequest::WALKED_MAX - 1).unwrap_or(i64::MAX);
        let own = [(":walked", &passed as &dyn ToSql)];
        let bound = bound(&statement, filters.iter().copied().chain(own).chain(keyed(AFTER, after)));
        let mut found = self.all(&statement, &bound, |found| values(found, 0..list.order.len()))?;
        Ok((found.len() == 2).then(|| found.swap_remove(0)))
    }

    /// Counts the entries of a list, up to a bound.
    pub fn total(&self, list: &List, filters: Parameters<'_>, window: &PageRequest) -> Result<u64> {
        let given = list.given(filters)?;
        let is_costly = given.iter().any(|name| list.costly.contains(name));
        let is_kept = list.kept.iter().any(|(filters, _)| *filters == given);
        let most = if is_costly { PageRequest::NARROWED_MAX } else { PageRequest::COUNTED_MAX };
        // A total that is kept needs no bound.
        let until = if is_kept { None } else { self.scan_end(list, filters, window, None)? };
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let counted = self.counted((list, window.direction), filters, most, until.as_deref())?;
        Ok(counted + u64::from(until.is_some()))
    }

    fn counted(
        &self,
        (list, toward): (&List, Direction),
        filters: Parameters<'_>,
        most: i64,
        until: Option<&[Value]>,
    ) -> Result<u64> {
        let given = list.given(filters)?;
        let statement = match list.kept.iter().find(|(filters, _)| *filters == given) {
            Some((_, kept)) => (*kept).to_owned(),
            None => list.count(toward, &given, until.is_some()),
        };
        let own = [(":counted_max", &most as &dyn ToSql)];
        let bound = bound(&statement, filters.iter().copied().chain(own).chain(keyed(UNTIL, until)));
        self.find(&statement, &bound, |row| row.get::<_, i64>(0)).map(|total| total.unwrap_or_default().unsigned_abs())
    }

    /// Returns a page of two lists in sequence: the second follows the end of the first. `total` is a lower bound that
    /// follows from the page.
    pub fn page_of_two<T>(
        &self,
        [first, second]: [&List; 2],
        filters: Parameters<'_>,
        window: &PageRequest,
        mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<ListPage<T>> {
        let toward = window.direction;
        let start = |limit: u64| PageRequest { is_exact: window.is_exact, ..PageRequest::first(limit).toward(toward) };
        let (cursor, second_name) = (window.after.as_ref(), toward.name_of(second));
        let (mut listed, passed) = match cursor {
            Some(cursor) if cursor.list == second_name => {
                let begin = start(window.limit);
                return self.page_without_total(
                    second,
                    filters,
                    if cursor.keys.is_empty() { &begin } else { window },
                    row,
                );
            }
            Some(_) => (self.page_without_total(first, filters, window, &mut row)?, 0),
            None => {
                let listed = self.page_without_total(first, filters, window, &mut row)?;
                let is_behind = listed.items.is_empty() && window.offset > 0;
                let passed =
                    if is_behind { self.counted((first, toward), filters, i64::MAX, None)? } else { listed.total };
                (listed, passed)
            }
        };
        if listed.next.is_some() {
            return Ok(listed);
        }
        let rest = window.limit.saturating_sub(listed.items.len() as u64);
        let offset = if cursor.is_none() { window.offset.saturating_sub(passed) } else { 0 };
        // If the page is full, one row of the second list shows whether there is more.
        let more = self.page_without_total(second, filters, &PageRequest { offset, ..start(rest.max(1)) }, row)?;
        if rest == 0 {
            let begins = || Cursor { list: second_name, keys: Vec::new() }.text();
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

/// Pairs keys with the parameters that they are bound to.
fn keyed<'p>(names: [&'static str; 4], keys: Option<&'p [Value]>) -> impl Iterator<Item = (&'p str, &'p dyn ToSql)> {
    names.into_iter().zip(keys.unwrap_or_default()).map(|(name, key)| (name, key as &dyn ToSql))
}

fn values(row: &Row<'_>, mut columns: std::ops::Range<usize>) -> rusqlite::Result<Vec<Value>> {
    columns.try_fold(Vec::new(), |mut values, column| {
        values.push(row.get(column)?);
        Ok(values)
    })
}

/// Keeps the parameters that the statement uses.
fn bound<'p>(statement: &str, all: impl Iterator<Item = (&'p str, &'p dyn ToSql)>) -> Vec<(&'p str, &'p dyn ToSql)> {
    all.filter(|(name, _)| parameters(statement).any(|used| used == *name)).collect()
}
