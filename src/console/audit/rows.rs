//! The entries of a page: as many as fill its rows, of which each is one request.

use serde_json::Value;

use super::filters::Filters;
use crate::console::client::op;
use crate::console::visit::Visit;
use crate::kernel::error::Result;

/// The entries that one call reads.
const READ: u64 = 200;
/// The calls that fill a page. One more finds where the next page begins.
const CALLS_MAX: usize = 3;

/// Reads the entries of the page of the address, with the position after them: at most as many as `rows_max` requests
/// made.
pub async fn read(visit: &Visit, filters: &Filters, rows_max: u64) -> Result<(Vec<Value>, Option<String>)> {
    let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    let mut after = visit.query("after").map(str::to_owned);
    for _ in 0..CALLS_MAX {
        let call = |limit: u64| op("list_audit").query("limit", limit).query_some("after", after.as_deref());
        let mut found = visit.call(filters.on(call(READ))).await?.data;
        let before = entries.len();
        if let Value::Array(more) = found["items"].take() {
            entries.extend(more);
        }
        let (_, shown) = folded(&entries, rows_max);
        if shown < entries.len() {
            entries.truncate(shown);
            let begun = shown.saturating_sub(before) as u64;
            if begun > 0 {
                let part = visit.call(filters.on(call(begun))).await?.data;
                after = part["next"].as_str().map(str::to_owned);
            }
            return Ok((entries, after));
        }
        after = found["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    Ok((entries, after))
}

/// The entries by the request that made them, up to `rows_max` requests, and the number of entries in them.
pub fn folded(entries: &[Value], rows_max: usize) -> (Vec<Vec<&Value>>, usize) {
    let mut rows: Vec<Vec<&Value>> = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        match rows.iter().rposition(|row| is_of_same_request(row[0], entry)) {
            Some(at) => rows[at].push(entry),
            None if rows.len() == rows_max => return (rows, n),
            None => rows.push(vec![entry]),
        }
    }
    (rows, entries.len())
}

/// Whether two entries are about the same request. The server's own tasks have none.
fn is_of_same_request(one: &Value, other: &Value) -> bool {
    one["request_id"] == other["request_id"] && one["request_id"] != "" && one["actor"] == other["actor"]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::folded;

    #[test]
    fn entries_of_one_request_are_one_row_also_with_others_in_between() {
        let entry = |n: u64, request: &str| json!({"id": n, "request_id": request, "actor": "kim"});
        let entries: Vec<Value> = [(9, "a"), (8, "b"), (7, "a"), (6, ""), (5, ""), (4, "b"), (3, "c")]
            .map(|(n, request)| entry(n, request))
            .into();
        let ids = |rows_max: usize| {
            let (rows, count) = folded(&entries, rows_max);
            let ids = |row: &Vec<&Value>| row.iter().filter_map(|one| one["id"].as_u64()).collect::<Vec<_>>();
            (rows.iter().map(ids).collect::<Vec<_>>(), count)
        };
        assert_eq!(ids(9), (vec![vec![9, 7], vec![8, 4], vec![6], vec![5], vec![3]], 7));
        assert_eq!(ids(4), (vec![vec![9, 7], vec![8, 4], vec![6], vec![5]], 6));
        assert_eq!(ids(2), (vec![vec![9, 7], vec![8]], 3));
        assert_eq!(ids(1), (vec![vec![9]], 1));
    }
}
