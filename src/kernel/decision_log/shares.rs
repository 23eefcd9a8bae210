//! Shares of the organizations in the decision log, and which rows are deleted when it is full.
//!
//! **Invariant.** No organization displaces the decisions of another one with fewer: the oldest decisions of the
//! organization with the largest share are deleted first.

use std::collections::HashMap;

use rusqlite::Row as SqlRow;

use super::{Limits, Row, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::OrganizationId;

/// Approximate size of a row without its JSON.
const ROW_BYTES: u64 = 256;
/// The most rows deleted in one commit: more than were added.
const PRUNED_MAX: u64 = 2 * super::BATCH_MAX as u64;
/// Rows deleted at a time past the limit of bytes; their size is known only afterwards.
const PRUNED_FOR_BYTES: u64 = 64;

/// The organization of a share; `None` for decisions about the site.
type Owner = Option<OrganizationId>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    rows: u64,
    bytes: u64,
}

impl Share {
    fn subtract(&mut self, other: Self) {
        (self.rows, self.bytes) = (self.rows.saturating_sub(other.rows), self.bytes.saturating_sub(other.bytes));
    }

    fn add(&mut self, other: Self) {
        (self.rows, self.bytes) = (self.rows + other.rows, self.bytes + other.bytes);
    }
}

/// Rows and bytes in the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    all: Share,
    by_owner: HashMap<Owner, Share>,
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

fn share_of(row: &SqlRow<'_>) -> rusqlite::Result<(Owner, Share)> {
    let json_bytes = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
    Ok((row.get(0)?, Share { rows: 1, bytes: json_bytes + ROW_BYTES }))
}

impl Shares {
    /// Counts all rows of the file.
    pub(super) fn count(w: &Writer<'_>) -> Result<Self> {
        let mut shares = Self::default();
        for (owner, share) in w.all(COUNT_SHARES, &[], share_of)? {
            shares.add(owner, share);
        }
        Ok(shares)
    }

    /// Counts a row that was inserted.
    pub(super) fn count_inserted(&mut self, row: &Row) {
        let json_bytes = row.input.len() + row.left_out.len() + row.plugins.len();
        self.add(row.organization, Share { rows: 1, bytes: json_bytes as u64 + ROW_BYTES });
    }

    fn add(&mut self, owner: Owner, share: Share) {
        self.all.add(share);
        self.by_owner.entry(owner).or_default().add(share);
    }

    /// Subtracts deleted rows; returns their number.
    fn subtract(&mut self, deleted: Vec<(Owner, Share)>) -> u64 {
        let count = deleted.len() as u64;
        for (owner, share) in deleted {
            self.all.subtract(share);
            if let Some(left) = self.by_owner.get_mut(&owner) {
                left.subtract(share);
                if left.rows == 0 {
                    self.by_owner.remove(&owner);
                }
            }
        }
        count
    }

    /// Deletes all rows about a member.
    pub(super) fn forget(&mut self, w: &Writer<'_>, member: crate::kernel::ids::MemberId) -> Result<()> {
        self.subtract(w.all(FORGET_MEMBER, &[(":member_id", &member)], share_of)?);
        Ok(())
    }

    /// Deletes rows that are too old, then rows past the limits, up to the maximum of one commit.
    pub(super) fn prune(&mut self, w: &Writer<'_>, limits: &Limits) -> Result<()> {
        let (before, limit) = (w.now().plus_ms(-limits.ttl_ms), PRUNED_MAX as i64);
        self.subtract(w.all(DELETE_OLD, &[(":before", &before), (":limit", &limit)], share_of)?);
        let mut left = PRUNED_MAX;
        while left > 0
            && let Some((owner, rows)) = self.surplus(limits)
        {
            let limit = rows.min(left) as i64;
            let parameters = &[(":organization_id", &owner as &dyn rusqlite::ToSql), (":limit", &limit)];
            let deleted = self.subtract(w.all(DELETE_OLDEST_OF, parameters, share_of)?);
            if deleted == 0 {
                break;
            }
            left -= deleted.min(left);
        }
        Ok(())
    }

    /// Whose rows must be deleted, and how many; `None` if the log is within its limits.
    fn surplus(&self, limits: &Limits) -> Option<(Owner, u64)> {
        let rows = self.all.rows.saturating_sub(limits.rows_max);
        if rows > 0 {
            let mut counts: Vec<(u64, Owner)> =
                self.by_owner.iter().map(|(owner, share)| (share.rows, *owner)).collect();
            counts.sort_unstable_by_key(|(rows, _)| std::cmp::Reverse(*rows));
            let (largest, owner) = *counts.first()?;
            // At most down to the second largest share.
            let ahead = counts.get(1).map_or(largest, |(next, _)| largest - next);
            return Some((owner, rows.min(ahead.max(1))));
        }
        if self.all.bytes > limits.bytes_max {
            let (owner, _) = self.by_owner.iter().max_by_key(|(_, share)| share.bytes)?;
            return Some((*owner, PRUNED_FOR_BYTES));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(parts: &[(u8, u64, u64)]) -> (Shares, Vec<Owner>) {
        let mut shares = Shares::default();
        let of = |n: u8| Some(OrganizationId(uuid::Uuid::from_bytes([n; 16])));
        parts.iter().for_each(|(n, rows, bytes)| shares.add(of(*n), Share { rows: *rows, bytes: *bytes }));
        (shares, parts.iter().map(|(n, ..)| of(*n)).collect())
    }

    #[test]
    fn the_largest_share_is_pruned() {
        let limits = Limits { rows_max: 100, bytes_max: 1_000, ttl_ms: 1 };
        for (parts, wanted) in [
            (&[(1, 60, 10), (2, 40, 990)][..], None),
            (&[(1, 61, 10), (2, 40, 10)], Some((0, 1))),
            (&[(1, 1, 10), (2, 150, 10)], Some((1, 51))),
            // At most down to the second largest share.
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
    fn deleted_rows_are_subtracted() {
        let (mut shares, of) = shares(&[(1, 2, 600), (2, 1, 300)]);
        assert_eq!(
            shares.subtract(vec![(of[0], Share { rows: 1, bytes: 300 }), (of[1], Share { rows: 1, bytes: 300 })]),
            2
        );
        assert_eq!((shares.all, shares.by_owner.len()), (Share { rows: 1, bytes: 300 }, 1));
    }
}
