//! The operation that returns statistics.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::statistics::{self, Counted, Figures, Step};
use crate::kernel::app::App;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::db::buckets::{Buckets, Sums};
use crate::kernel::decision_log::counts::DecisionCounts;
use crate::kernel::error::{Error, Field};
use crate::kernel::http::{Reply, Tag, ok};
use crate::kernel::ids::{OrganizationId, Timestamp};

/// The length of a bucket
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "StatisticsStep", remote = "Step")]
enum StepName {
    Hour,
    Day,
}

/// Sign-ins of one way
#[derive(Object)]
struct SignInSeries {
    /// `password`, `invitation`, `wordpress`, or `oidc` and the name of the provider
    way: String,
    counts: Vec<u64>,
}

/// Sign-ins
#[derive(Object)]
struct SignInStatistics {
    /// Successful ones, by way
    ways: Vec<SignInSeries>,
    /// Wrong passwords, codes and keys. Of an organization, only those with the name of a member
    failed: Vec<u64>,
    /// Failures are counted from this time on, in Unix milliseconds: since the server started, and 31 days at most
    failed_since: i64,
}

/// Logged decisions with the same reason
#[derive(Object)]
struct DecisionSeries {
    allow: bool,
    reason: String,
    counts: Vec<u64>,
}

/// Logged decisions
#[derive(Object)]
struct DecisionStatistics {
    /// By reason. All denials are logged, but only a sample of the allowed decisions
    reasons: Vec<DecisionSeries>,
    /// Decisions that a shadow plugin would have changed
    differed: Vec<u64>,
    /// The time of the oldest decision in the log, in Unix milliseconds; null if the log is empty
    #[oai(nullable)]
    since: Option<i64>,
    /// The number of decisions that the log dropped since the server started
    dropped: u64,
    /// One in this many allowed decisions is logged; 0 for none
    allow_every: u64,
}

/// Jobs
#[derive(Object)]
struct JobStatistics {
    /// Jobs that were created. Finished ones are deleted after `jobs.keep_s`, and then not counted here
    created: Vec<u64>,
    done: Vec<u64>,
    /// Jobs that were given up
    dead: Vec<u64>,
}

/// Storage that counts against a quota
#[derive(Object)]
struct StorageStatistics {
    added_bytes: Vec<u64>,
    removed_bytes: Vec<u64>,
    /// What came by transfer from members outside of the organization, less what went to them
    transferred_bytes: Vec<i64>,
    /// Videos that were registered, or got an owner
    videos_added: Vec<u64>,
    videos_removed: Vec<u64>,
}

/// Counts over time. Every list of counts has one number for each bucket
#[derive(Object)]
struct Statistics {
    /// The organization that is counted; null for the whole site
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    by: StepName,
    /// The start of the first bucket, in Unix milliseconds
    from: i64,
    /// The end of the last bucket (exclusive), in Unix milliseconds
    to: i64,
    /// The start of each bucket, in Unix milliseconds. Days are those of UTC
    buckets: Vec<i64>,
    sign_ins: SignInStatistics,
    /// Null if the decision log cannot be read
    #[oai(nullable)]
    decisions: Option<DecisionStatistics>,
    jobs: JobStatistics,
    storage: StorageStatistics,
}

crate::document! {}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/statistics", tag = "Tag::Statistics")]
impl Api {
    /// Get statistics
    ///
    /// Counts sign-ins, decisions, jobs and storage by hour or day: of the caller's organization, or of the whole site
    /// for the platform. Sign-ins of an organization are those of its present members.
    #[oai(path = "/", method = "get", operation_id = "get_statistics")]
    async fn get_statistics(
        &self,
        caller: MemberCaller,
        /// Start of the period, in Unix milliseconds; the bucket that contains it counts. A day or a week ago when
        /// absent. At most 31 days by hour, and 400 by day
        #[oai(validator(minimum(value = "0"), maximum(value = "253402300799999")))]
        from: Query<Option<i64>>,
        /// End of the period (exclusive), in Unix milliseconds; now when absent
        #[oai(validator(minimum(value = "0"), maximum(value = "253402300799999")))]
        to: Query<Option<i64>>,
        /// `day` by default
        by: Query<Option<StepName>>,
        /// Only decisions for which this plugin of the organization was called
        #[oai(validator(max_length = 64))]
        plugin: Query<Option<String>>,
    ) -> Reply<Statistics> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::STATISTICS_GET)?;
        let (organization, step, now) = (reach.organization(), by.0.map_or(Step::Day, Step::from), Timestamp::now());
        let buckets = statistics::period(from.0, to.0, step, now)?;
        if plugin.0.is_some() && organization.is_none() {
            let message = "belongs to an organization: send X-Tenant-ID";
            return Err(Error::fields(vec![Field::at(&["query", "plugin"], message)]).into());
        }
        let counted = Counted { organization, plugin: plugin.0 };
        let decisions = statistics::decisions(&self.app, counted, buckets).await;
        let figures = self.app.read(move |r| statistics::read(r, organization, &buckets)).await?;
        let failures = &self.app.guard.login_throttle.failures;
        let Figures { sign_ins, jobs_created, jobs_done, jobs_dead, .. } = figures;
        Ok(ok(Statistics {
            organization_id: organization,
            by: step.into(),
            from: buckets.from.0,
            to: buckets.to().0,
            buckets: buckets.starts().collect(),
            sign_ins: SignInStatistics {
                ways: sign_ins.into_iter().map(|(way, counts)| SignInSeries { way, counts }).collect(),
                failed: statistics::failed_sign_ins(&self.app, organization, &buckets),
                failed_since: failures.since(now).0,
            },
            decisions: decisions.map(|counts| self.decisions(&counts, organization, &buckets)),
            jobs: JobStatistics { created: jobs_created, done: jobs_done, dead: jobs_dead },
            storage: StorageStatistics {
                added_bytes: figures.added_bytes,
                removed_bytes: figures.removed_bytes,
                transferred_bytes: figures.transferred_bytes,
                videos_added: figures.videos_added,
                videos_removed: figures.videos_removed,
            },
        }))
    }
}

impl Api {
    fn decisions(
        &self,
        counted: &DecisionCounts,
        organization: Option<OrganizationId>,
        buckets: &Buckets,
    ) -> DecisionStatistics {
        let (mut reasons, mut differed) = (Sums::new(buckets), Sums::new(buckets));
        for count in &counted.counts {
            let key = (count.allow, count.reason.as_str());
            reasons.add(count.bucket, key, count.number);
            if count.differed {
                differed.add(count.bucket, (), count.number);
            }
        }
        let log = &self.app.decisions;
        DecisionStatistics {
            reasons: reasons
                .into_iter()
                .map(|((allow, reason), counts)| DecisionSeries { allow, reason: reason.to_owned(), counts })
                .collect(),
            differed: differed.take(&()),
            since: counted.since.map(|at| at.0),
            dropped: organization.map_or_else(|| log.dropped(), |organization| log.dropped_of(organization)),
            allow_every: self.app.config.decisions_allow_every,
        }
    }
}
