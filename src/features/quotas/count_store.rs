//! SQL that counts changes of the ledger over time.

use super::{LedgerCause, LedgerCount};
use crate::kernel::db::Reader;
use crate::kernel::db::buckets::Buckets;
use crate::kernel::error::Result;
use crate::kernel::ids::OrganizationId;

// A sum saturates, because the sum of integers fails when it overflows.
const COUNT_LEDGER: &str = "
    select (at - :from) / :step_ms, cause, count(*), cast(min(total(max(delta, 0)), 9e18) as integer),
           cast(min(total(max(-delta, 0)), 9e18) as integer)
    from quota_ledger
    where at >= :from and at < :to
    group by 1, 2";
const COUNT_LEDGER_IN: &str = "
    select (at - :from) / :step_ms, cause, count(*), cast(min(total(max(delta, 0)), 9e18) as integer),
           cast(min(total(max(-delta, 0)), 9e18) as integer)
    from quota_ledger
    where organization_id = :organization_id and at >= :from and at < :to
    group by 1, 2";

pub fn count_ledger(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    buckets: &Buckets,
) -> Result<Vec<LedgerCount>> {
    let (from, to, step_ms) = (buckets.from, buckets.to(), buckets.step_ms);
    let row = |row: &rusqlite::Row<'_>| {
        let number = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let cause: LedgerCause = row.get(1)?;
        Ok(LedgerCount { bucket: row.get(0)?, cause, rows: number(2)?, added: number(3)?, removed: number(4)? })
    };
    match &organization {
        None => r.all(COUNT_LEDGER, &[(":from", &from), (":to", &to), (":step_ms", &step_ms)], row),
        Some(organization) => r.all(
            COUNT_LEDGER_IN,
            &[(":from", &from), (":to", &to), (":step_ms", &step_ms), (":organization_id", organization)],
            row,
        ),
    }
}
