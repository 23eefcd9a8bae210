//! Counts over time: sign-ins, decisions, jobs and storage. It only reads what other features and the kernel record.

pub mod api;

use crate::features::audit::{self, CountedEntries};
use crate::features::jobs::counts::count_created;
use crate::features::quotas::{self, LedgerCause};
use crate::kernel::app::App;
use crate::kernel::db::Reader;
use crate::kernel::db::buckets::{Buckets, Sums};
use crate::kernel::decision_log::counts::{CountedDecisions, DecisionCounts};
use crate::kernel::error::{Error, Field, Result};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// The length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Hour,
    Day,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub const fn ms(self) -> i64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// The most buckets of one request: 31 days, or 400.
    pub const fn buckets_max(self) -> usize {
        match self {
            Self::Hour => 31 * 24,
            Self::Day => 400,
        }
    }

    /// The number of buckets of a period without a beginning.
    const fn buckets_default(self) -> i64 {
        match self {
            Self::Hour => 24,
            Self::Day => 7,
        }
    }
}

/// The buckets of a period. Without an end it ends now.
pub fn period(from: Option<i64>, to: Option<i64>, step: Step, now: Timestamp) -> Result<Buckets> {
    let fault = |name, message: String| Err(Error::fields(vec![Field::at(&["query", name], message)]));
    let to = to.unwrap_or(now.0.saturating_add(1));
    // The bucket of the end counts.
    let ago_ms = step.ms().saturating_mul(step.buckets_default() - 1);
    let from = from.unwrap_or_else(|| to.saturating_sub(1).saturating_sub(ago_ms));
    let Some(buckets) = Buckets::covering(Timestamp(from), Timestamp(to), step.ms()) else {
        return fault("to", "is not after `from`".to_owned());
    };
    if buckets.count > step.buckets_max() {
        return fault(
            "from",
            format!("is too early: at most {} of these steps are counted at once", step.buckets_max()),
        );
    }
    Ok(buckets)
}

/// Whose figures are counted.
#[derive(Debug, Clone)]
pub struct Counted {
    /// `None` for the whole site.
    pub organization: Option<OrganizationId>,
    /// Only decisions for which this plugin of the organization was called.
    pub plugin: Option<String>,
}

/// Counts by name, one for each bucket.
pub type Series<K> = Vec<(K, Vec<u64>)>;

/// What the database holds: one number for each bucket in each list.
#[derive(Debug)]
pub struct Figures {
    /// By way to sign in.
    pub sign_ins: Series<String>,
    pub jobs_created: Vec<u64>,
    pub jobs_done: Vec<u64>,
    pub jobs_dead: Vec<u64>,
    pub added_bytes: Vec<u64>,
    pub removed_bytes: Vec<u64>,
    /// What came from members outside, less what went to them.
    pub transferred_bytes: Vec<i64>,
    pub videos_added: Vec<u64>,
    pub videos_removed: Vec<u64>,
}

/// Reads the figures of the database.
pub fn read(r: &Reader<'_>, organization: Option<OrganizationId>, buckets: &Buckets) -> Result<Figures> {
    let mut jobs = job_ends(r, organization, buckets)?;
    let mut created = Sums::new(buckets);
    for (bucket, number) in count_created(r, organization, buckets)? {
        created.add(bucket, (), number);
    }
    let storage = Storage::read(r, organization, buckets)?;
    Ok(Figures {
        sign_ins: sign_ins(r, organization, buckets)?.into_iter().collect(),
        jobs_created: created.take(&()),
        jobs_done: jobs.take(&"done"),
        jobs_dead: jobs.take(&"dead"),
        added_bytes: storage.added,
        removed_bytes: storage.removed,
        transferred_bytes: storage.transferred,
        videos_added: storage.videos_added,
        videos_removed: storage.videos_removed,
    })
}

fn sign_ins(r: &Reader<'_>, organization: Option<OrganizationId>, buckets: &Buckets) -> Result<Sums<String>> {
    // A session belongs to no organization.
    let counted = organization.map_or(CountedEntries::OfSite, CountedEntries::ByMembersOf);
    let mut sums = Sums::new(buckets);
    for count in audit::count_entries(r, counted, &["session.create"], "method", buckets)? {
        sums.add(count.bucket, count.value.unwrap_or_else(|| "unknown".to_owned()), count.number);
    }
    Ok(sums)
}

/// Jobs by how they ended. The audit log keeps them longer than the jobs are.
fn job_ends(r: &Reader<'_>, organization: Option<OrganizationId>, buckets: &Buckets) -> Result<Sums<&'static str>> {
    /// A lease that expires is found by the next claim.
    const ACTIONS: [&str; 5] = ["job.complete", "job.heartbeat", "job.fail", "job.expire", "job.claim"];
    let counted = organization.map_or(CountedEntries::OfSite, CountedEntries::Of);
    let mut sums = Sums::new(buckets);
    for count in audit::count_entries(r, counted, &ACTIONS, "state", buckets)? {
        let end = ["done", "dead"].into_iter().find(|end| count.value.as_deref() == Some(end));
        end.into_iter().for_each(|end| sums.add(count.bucket, end, count.number));
    }
    Ok(sums)
}

struct Storage {
    added: Vec<u64>,
    removed: Vec<u64>,
    transferred: Vec<i64>,
    videos_added: Vec<u64>,
    videos_removed: Vec<u64>,
}

impl Storage {
    fn read(r: &Reader<'_>, organization: Option<OrganizationId>, buckets: &Buckets) -> Result<Self> {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        enum Sum {
            Added,
            Removed,
            TransferredIn,
            TransferredOut,
            VideosAdded,
            VideosRemoved,
        }
        let mut sums = Sums::new(buckets);
        for count in quotas::count_ledger(r, organization, buckets)? {
            let (plus, minus) = match count.cause {
                LedgerCause::Transfer => (Sum::TransferredIn, Sum::TransferredOut),
                _ => (Sum::Added, Sum::Removed),
            };
            sums.add(count.bucket, plus, count.added);
            sums.add(count.bucket, minus, count.removed);
            match count.cause {
                LedgerCause::Register | LedgerCause::Claim => sums.add(count.bucket, Sum::VideosAdded, count.rows),
                LedgerCause::Delete => sums.add(count.bucket, Sum::VideosRemoved, count.rows),
                LedgerCause::Replace | LedgerCause::Transfer | LedgerCause::Repair => {}
            }
        }
        let (into, out) = (sums.take(&Sum::TransferredIn), sums.take(&Sum::TransferredOut));
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(Self {
            added: sums.take(&Sum::Added),
            removed: sums.take(&Sum::Removed),
            transferred: into.into_iter().zip(out).map(|(into, out)| signed(into) - signed(out)).collect(),
            videos_added: sums.take(&Sum::VideosAdded),
            videos_removed: sums.take(&Sum::VideosRemoved),
        })
    }
}

/// Counts failed sign-ins: of the present members of an organization, or all.
pub fn failed_sign_ins(app: &App, organization: Option<OrganizationId>, buckets: &Buckets) -> Vec<u64> {
    let failures = &app.guard.login_throttle.failures;
    let Some(organization) = organization else { return failures.count(buckets, None) };
    let snapshot = app.snapshot();
    let tenant = snapshot.tenant(organization);
    failures.count(buckets, Some(&|member| tenant.is_some_and(|tenant| tenant.set_of(member).is_some())))
}

/// Reads the decision log. `None` if it cannot be read: it is not part of the data that must survive.
pub async fn decisions(app: &App, counted: Counted, buckets: Buckets) -> Option<DecisionCounts> {
    let of = match (counted.organization, counted.plugin) {
        (None, _) => CountedDecisions::OfSite,
        (Some(organization), None) => CountedDecisions::Of(organization),
        (Some(organization), Some(plugin)) => CountedDecisions::OfPlugin(organization, plugin),
    };
    let read = app.decisions.count(of, buckets).await;
    read.inspect_err(|error| tracing::warn!(error = %error, "the decision log could not be counted")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = Step::Day.ms();

    #[test]
    fn a_period_is_counted_at_the_limit_and_not_one_past_it() {
        for step in [Step::Hour, Step::Day] {
            let most = i64::try_from(step.buckets_max()).expect("a number") * step.ms();
            let whole = period(Some(0), Some(most), step, Timestamp(0)).expect("the longest period");
            assert_eq!(whole.count, step.buckets_max());
            for (from, to) in [(0, most + 1), (-1, most), (i64::MIN, i64::MAX), (5, 5), (6, 5)] {
                assert!(period(Some(from), Some(to), step, Timestamp(0)).is_err(), "{from}..{to}");
            }
        }
    }

    #[test]
    fn a_period_without_bounds_ends_with_the_present_bucket() {
        let now = Timestamp(10 * DAY_MS);
        let days = period(None, None, Step::Day, now).expect("a period");
        assert_eq!((days.from.0, days.count, days.to().0), (4 * DAY_MS, 7, 11 * DAY_MS));
        let hours = period(None, Some(10 * DAY_MS), Step::Hour, now).expect("a period");
        assert_eq!((hours.from.0, hours.count, hours.to().0), (9 * DAY_MS, 24, 10 * DAY_MS));
    }
}
