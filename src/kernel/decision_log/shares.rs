//! How much of the decision log is whose, and who gives way when it is full.
//!
//! **Invariant.** No organization empties another's part: the oldest decisions of the one that has most go first.

use std::collections::HashMap;

use rusqlite::Row as SqlRow;

use super::{Limits, Row, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::OrganizationId;

/// What a row takes beside its JSON, about.
const ROW_BYTES: u64 = 256;
/// Old rows deleted in one commit: more than came in.
const PRUNED_MAX: u64 = 2 * super::BATCH_MAX as u64;
/// So many go at once where bytes are too many: how many bytes they have is seen then.
const PRUNED_FOR_BYTES: u64 = 64;

/// Of whom a part is; none for questions about the site.
type Of = Option<OrganizationId>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Part {
    rows: u64,
    bytes: u64,
}

impl Part {
    fn take(&mut self, other: Self) {
        (self.rows, self.bytes) = (self.rows.saturating_sub(other.rows), self.bytes.saturating_sub(other.bytes));
    }

    fn add(&mut self, other: Self) {
        (self.rows, self.bytes) = (self.rows + other.rows, self.bytes + other.bytes);
    }
}

/// What is in the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    all: Part,
    of: HashMap<Of, Part>,
}

const COUNT_SHARES: &str = "
    select organization_id, octet_length(input) + octet_length(left_out) + octet_length(plugins)
    from decisions";
const DELETE_OLD: &str = "
    delete from decisions
    where id in (select id from decisions where at <= :before order by at limit :limit)
    returning organization_id, octet_length(input) + octet_length(left_out) + octet_length(plugins)";
const DELETE_OLDEST_OF: &str = "
    delete from decisions
    where id in (select id from decisions where organization_id is :organization_id order by id limit :limit)
    returning organization_id, octet_length(input) + octet_length(left_out) + octet_length(plugins)";
const FORGET_MEMBER: &str = "
    delete from decisions
    where member_id = :member_id
    returning organization_id, octet_length(input) + octet_length(left_out) + octet_length(plugins)";

fn part_of(row: &SqlRow<'_>) -> rusqlite::Result<(Of, Part)> {
    let json_bytes = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
    Ok((row.get(0)?, Part { rows: 1, bytes: json_bytes + ROW_BYTES }))
}

impl Shares {
    pub(super) fn count(w: &Writer<'_>) -> Result<Self> {
        let mut shares = Self::default();
        for (of, part) in w.all(COUNT_SHARES, &[], part_of)? {
            shares.add(of, part);
        }
        Ok(shares)
    }

    pub(super) fn came(&mut self, row: &Row) {
        let json_bytes = row.input.len() + row.left_out.len() + row.plugins.len();
        self.add(row.organization, Part { rows: 1, bytes: json_bytes as u64 + ROW_BYTES });
    }

    fn add(&mut self, of: Of, part: Part) {
        self.all.add(part);
        self.of.entry(of).or_default().add(part);
    }

    /// Counts what was deleted; answers how many rows that were.
    fn gone(&mut self, deleted: Vec<(Of, Part)>) -> u64 {
        let count = deleted.len() as u64;
        for (of, part) in deleted {
            self.all.take(part);
            if let Some(left) = self.of.get_mut(&of) {
                left.take(part);
                if left.rows == 0 {
                    self.of.remove(&of);
                }
            }
        }
        count
    }

    pub(super) fn forget(&mut self, w: &Writer<'_>, member: crate::kernel::ids::MemberId) -> Result<()> {
        self.gone(w.all(FORGET_MEMBER, &[(":member_id", &member)], part_of)?);
        Ok(())
    }

    /// Deletes what is too old, and then what is too much, as far as one commit goes.
    pub(super) fn prune(&mut self, w: &Writer<'_>, limits: &Limits) -> Result<()> {
        let (before, limit) = (w.now().plus_ms(-limits.ttl_ms), PRUNED_MAX as i64);
        self.gone(w.all(DELETE_OLD, &[(":before", &before), (":limit", &limit)], part_of)?);
        let mut left = PRUNED_MAX;
        while left > 0
            && let Some((of, rows)) = self.surplus(limits)
        {
            let limit = rows.min(left) as i64;
            let parameters = &[(":organization_id", &of as &dyn rusqlite::ToSql), (":limit", &limit)];
            let deleted = self.gone(w.all(DELETE_OLDEST_OF, parameters, part_of)?);
            if deleted == 0 {
                break;
            }
            left -= deleted.min(left);
        }
        Ok(())
    }

    /// Who gives way, and with how many rows; nobody where all is within the limits.
    fn surplus(&self, limits: &Limits) -> Option<(Of, u64)> {
        let rows = self.all.rows.saturating_sub(limits.rows_max);
        if rows > 0 {
            let mut counts: Vec<(u64, Of)> = self.of.iter().map(|(of, part)| (part.rows, *of)).collect();
            counts.sort_unstable_by_key(|(rows, _)| std::cmp::Reverse(*rows));
            let (largest, of) = *counts.first()?;
            // Down to the next one, and not below.
            let ahead = counts.get(1).map_or(largest, |(next, _)| largest - next);
            return Some((of, rows.min(ahead.max(1))));
        }
        if self.all.bytes > limits.bytes_max {
            let (of, _) = self.of.iter().max_by_key(|(_, part)| part.bytes)?;
            return Some((*of, PRUNED_FOR_BYTES));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(parts: &[(u8, u64, u64)]) -> (Shares, Vec<Of>) {
        let mut shares = Shares::default();
        let of = |n: u8| Some(OrganizationId(uuid::Uuid::from_bytes([n; 16])));
        parts.iter().for_each(|(n, rows, bytes)| shares.add(of(*n), Part { rows: *rows, bytes: *bytes }));
        (shares, parts.iter().map(|(n, ..)| of(*n)).collect())
    }

    #[test]
    fn whoever_has_most_gives_way() {
        let limits = Limits { rows_max: 100, bytes_max: 1_000, ttl_ms: 1 };
        for (parts, wanted) in [
            (&[(1, 60, 10), (2, 40, 990)][..], None),
            (&[(1, 61, 10), (2, 40, 10)], Some((0, 1))),
            (&[(1, 1, 10), (2, 150, 10)], Some((1, 51))),
            // No more than down to the next one.
            (&[(1, 90, 10), (2, 80, 10)], Some((0, 10))),
            (&[(1, 80, 10)], None),
            (&[(1, 180, 10)], Some((0, 80))),
            (&[(1, 10, 991), (2, 90, 10)], Some((0, PRUNED_FOR_BYTES))),
        ] {
            let (shares, of) = shares(parts);
            let wanted = wanted.map(|(n, rows): (usize, u64)| (of[n], rows));
            assert_eq!(shares.surplus(&limits), wanted, "{parts:?}");
        }
    }

    #[test]
    fn what_is_gone_is_counted_no_more() {
        let (mut shares, of) = shares(&[(1, 2, 600), (2, 1, 300)]);
        assert_eq!(shares.gone(vec![(of[0], Part { rows: 1, bytes: 300 }), (of[1], Part { rows: 1, bytes: 300 })]), 2);
        assert_eq!((shares.all, shares.of.len()), (Part { rows: 1, bytes: 300 }, 1));
    }
}
