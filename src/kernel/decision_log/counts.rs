//! Counts of logged decisions over time.

use std::path::Path;

use super::{DecisionLog, on_reader, word};
use crate::kernel::authz::decide::Reason;
use crate::kernel::db::Reader;
use crate::kernel::db::buckets::Buckets;
use crate::kernel::error::Result;
use crate::kernel::ids::{OrganizationId, Timestamp};

/// Which decisions are counted.
#[derive(Debug, Clone)]
pub enum CountedDecisions {
    OfSite,
    Of(OrganizationId),
    /// Those of an organization for which the plugin with this name was called.
    OfPlugin(OrganizationId, String),
}

/// Decisions of one kind in one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionCount {
    pub bucket: i64,
    pub allow: bool,
    pub reason: Reason,
    /// Whether a shadow plugin would have changed them.
    pub differed: bool,
    pub number: u64,
}

/// Counts of decisions, and how far back the log reaches.
#[derive(Debug, Clone, Default)]
pub struct DecisionCounts {
    /// The time of the oldest decision that is still logged.
    pub since: Option<Timestamp>,
    pub counts: Vec<DecisionCount>,
}

const COUNT_DECISIONS: &str = "
    select (at - :from) / :step_ms, allow, reason, differed, count(*)
    from decisions
    where at >= :from and at < :to
    group by 1, 2, 3, 4";
const COUNT_DECISIONS_IN: &str = "
    select (at - :from) / :step_ms, allow, reason, differed, count(*)
    from decisions
    where organization_id = :organization_id and +at >= :from and +at < :to
    group by 1, 2, 3, 4";
const COUNT_DECISIONS_OF_PLUGIN: &str = "
    select (at - :from) / :step_ms, allow, reason, differed, count(*)
    from decisions
    where organization_id = :organization_id and +at >= :from and +at < :to
      and exists (select 1 from json_each(plugins) asked where asked.value ->> 'name' = :plugin)
    group by 1, 2, 3, 4";
const FIND_OLDEST: &str = "select at from decisions order by at limit 1";
const FIND_OLDEST_IN: &str = "select at from decisions where organization_id = :organization_id order by id limit 1";

impl<T: Send + 'static> DecisionLog<T> {
    /// Counts the logged decisions. Fails with `busy` when too many queries run.
    pub async fn count(&self, counted: CountedDecisions, buckets: Buckets) -> Result<DecisionCounts> {
        self.query(move |file| count(file, &counted, &buckets)).await
    }
}

fn count(file: &Path, counted: &CountedDecisions, buckets: &Buckets) -> Result<DecisionCounts> {
    if !file.exists() {
        return Ok(DecisionCounts::default());
    }
    on_reader(file, |r| {
        let since = match counted {
            CountedDecisions::OfSite => r.find(FIND_OLDEST, &[], |row| row.get(0))?,
            CountedDecisions::Of(organization) | CountedDecisions::OfPlugin(organization, _) => {
                r.find(FIND_OLDEST_IN, &[(":organization_id", organization)], |row| row.get(0))?
            }
        };
        Ok(DecisionCounts { since, counts: counts(r, counted, buckets)? })
    })
}

fn counts(r: &Reader<'_>, counted: &CountedDecisions, buckets: &Buckets) -> Result<Vec<DecisionCount>> {
    let (from, to, step_ms) = (buckets.from, buckets.to(), buckets.step_ms);
    let row = |row: &rusqlite::Row<'_>| {
        Ok(DecisionCount {
            bucket: row.get(0)?,
            allow: row.get(1)?,
            reason: word(row, 2, Reason::of)?,
            differed: row.get(3)?,
            number: row.get::<_, i64>(4)?.unsigned_abs(),
        })
    };
    match counted {
        CountedDecisions::OfSite => {
            r.all(COUNT_DECISIONS, &[(":from", &from), (":to", &to), (":step_ms", &step_ms)], row)
        }
        CountedDecisions::Of(organization) => r.all(
            COUNT_DECISIONS_IN,
            &[(":from", &from), (":to", &to), (":step_ms", &step_ms), (":organization_id", organization)],
            row,
        ),
        CountedDecisions::OfPlugin(organization, plugin) => r.all(
            COUNT_DECISIONS_OF_PLUGIN,
            &[
                (":from", &from),
                (":to", &to),
                (":step_ms", &step_ms),
                (":organization_id", organization),
                (":plugin", plugin),
            ],
            row,
        ),
    }
}
