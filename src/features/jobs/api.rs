//! Operations on jobs: of workers, who take them and report, and of people, who look at them.

use std::sync::Arc;
use std::time::Duration;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::jobs::wait::{self, WaitingWorkers};
use crate::features::jobs::{
    self, ClaimRequest, Filter, Job, LeaseHolder, Processor, Report, RetrySettings, StepState, store,
};
use crate::features::members;
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::AdminOrKey;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach, RowScope};
use crate::kernel::db::{Reader, Window};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::http::{Body, OptionalBody, Page, Reply, Tag, ok};
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId};

crate::text! {
    /// What went wrong, shown with the job
    JobError 1..=2000 "";
}

/// Where a job stands
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum JobState {
    /// Waits for a worker
    Queued,
    /// Waits until its member and its organization are active again
    Held,
    /// A worker holds its lease
    Leased,
    Done,
    /// Failed too often
    Dead,
}

impl JobState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Held => "held",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    fn of(word: &str) -> Self {
        [Self::Queued, Self::Held, Self::Leased, Self::Done]
            .into_iter()
            .find(|state| state.as_str() == word)
            .unwrap_or(Self::Dead)
    }
}

/// One kind of work: `asr` and `cut` begin, the others work on the scenes that `cut` found
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "Processor")]
enum ProcessorName {
    Asr,
    Cut,
    Yolo,
    Ocr,
    Face,
    Pose,
}

impl From<ProcessorName> for Processor {
    fn from(name: ProcessorName) -> Self {
        match name {
            ProcessorName::Asr => Self::Asr,
            ProcessorName::Cut => Self::Cut,
            ProcessorName::Yolo => Self::Yolo,
            ProcessorName::Ocr => Self::Ocr,
            ProcessorName::Face => Self::Face,
            ProcessorName::Pose => Self::Pose,
        }
    }
}

/// What a worker can say of a step
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ReportedState {
    Running,
    Completed,
    Failed,
    /// There is nothing to do, as without sound for `asr`
    Skipped,
}

/// One processor's part of a job
#[derive(Object)]
struct JobStep {
    processor: String,
    /// `waiting` for what it needs, `ready`, `running`, `completed`, `failed` or `skipped`
    state: String,
    progress_percent: i64,
    #[oai(nullable)]
    error: Option<String>,
    /// What is completed or skipped before this can begin
    needs: Vec<String>,
}

/// Work on a video
#[derive(Object)]
#[oai(rename = "Job")]
struct JobView {
    id: JobId,
    kind: String,
    state: JobState,
    video_id: String,
    /// Below the media root
    path: String,
    /// Whose video it is
    #[oai(nullable)]
    member_id: Option<MemberId>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// How far all its steps are, on average
    progress_percent: i64,
    steps: Vec<JobStep>,
    /// How often it failed since it was queued
    attempts: i64,
    /// Not before this, in Unix milliseconds
    run_at: i64,
    /// End of the lease: the worker must send a heartbeat before, in Unix milliseconds
    #[oai(nullable)]
    leased_until: Option<i64>,
    /// Why it failed the last time
    #[oai(nullable)]
    last_error: Option<String>,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            state: JobState::of(&job.state),
            member_id: job.member,
            organization_id: job.organization,
            progress_percent: job.progress_percent(),
            steps: steps(&job),
            attempts: job.attempts,
            run_at: job.run_at.0,
            leased_until: job.leased_until.map(|at| at.0),
            created_at: job.created_at.0,
            updated_at: job.updated_at.0,
            kind: job.kind,
            video_id: job.video,
            path: job.path,
            last_error: job.last_error,
        }
    }
}

fn steps(job: &Job) -> Vec<JobStep> {
    let of = |step: &jobs::Step| JobStep {
        processor: step.processor.as_str().into(),
        state: step.state.as_str().into(),
        progress_percent: step.progress_percent,
        error: step.error.clone(),
        needs: step.processor.needs().iter().map(|need| need.as_str().to_owned()).collect(),
    };
    job.steps.iter().map(of).collect()
}

/// A job that is now this worker's
#[derive(Object)]
struct ClaimedJob {
    id: JobId,
    /// Send it with every report
    lease_id: LeaseId,
    /// End of the lease: send a heartbeat before, in Unix milliseconds
    leased_until: i64,
    kind: String,
    video_id: String,
    /// Below the media root
    path: String,
    /// The owner's name at SFTPGo: the first part of the path
    sftpgo_username: String,
    #[oai(nullable)]
    member_id: Option<MemberId>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// How often it failed before
    attempts: i64,
    steps: Vec<JobStep>,
}

impl From<Job> for ClaimedJob {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            lease_id: job.lease.unwrap_or(LeaseId(uuid::Uuid::nil())),
            leased_until: job.leased_until.map_or(0, |at| at.0),
            sftpgo_username: job.sftpgo_username().to_owned(),
            member_id: job.member,
            organization_id: job.organization,
            attempts: job.attempts,
            steps: steps(&job),
            kind: job.kind,
            video_id: job.video,
            path: job.path,
        }
    }
}

/// What was given to the worker
#[derive(Object)]
struct ClaimedJobs {
    /// Empty when there is nothing to do now
    jobs: Vec<ClaimedJob>,
}

/// What a worker asks for
#[derive(Object)]
struct ClaimJobs {
    /// How many jobs at most: 1 when absent, and never more than `jobs.claim` allows
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    count: Option<u64>,
    /// Only jobs with something ready for one of these, and only these are this worker's: all when absent
    #[oai(validator(min_items = 1, max_items = 6))]
    processors: Option<Vec<ProcessorName>>,
    /// How long a job stays this worker's without a heartbeat, in seconds: `jobs.lease_s` when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "86400")))]
    lease_s: Option<u64>,
    /// How long to wait for a job where there is none, in seconds: not at all when absent, and never longer than
    /// `jobs.wait_s` allows
    #[oai(validator(minimum(value = "0"), maximum(value = "3600")))]
    wait_s: Option<u64>,
}

/// How far one processor is
#[derive(Object)]
struct StepReport {
    processor: ProcessorName,
    state: ReportedState,
    #[oai(validator(minimum(value = "0"), maximum(value = "100")))]
    progress_percent: Option<i64>,
    /// Why it failed
    error: Option<JobError>,
}

impl From<StepReport> for Report {
    fn from(report: StepReport) -> Self {
        Self {
            processor: report.processor.into(),
            state: match report.state {
                ReportedState::Running => StepState::Running,
                ReportedState::Completed => StepState::Completed,
                ReportedState::Failed => StepState::Failed,
                ReportedState::Skipped => StepState::Skipped,
            },
            progress_percent: report.progress_percent,
            error: report.error.map(|text| text.0),
        }
    }
}

/// A heartbeat
#[derive(Object)]
struct JobHeartbeat {
    /// As the claim answered it; needed where several workers share a key
    lease_id: Option<LeaseId>,
    /// What changed, in the order in which it happened
    #[oai(validator(max_items = 32))]
    steps: Option<Vec<StepReport>>,
}

/// The worker's part is done
#[derive(Object)]
struct CompleteJob {
    /// As the claim answered it; needed where several workers share a key
    lease_id: Option<LeaseId>,
}

/// The worker could not do it
#[derive(Object)]
struct FailJob {
    /// As the claim answered it; needed where several workers share a key
    lease_id: Option<LeaseId>,
    error: JobError,
    /// False when another attempt would fail as well
    retry: Option<bool>,
}

/// How many jobs there are in each state
#[derive(Object, Default)]
struct JobCounts {
    queued: u64,
    held: u64,
    leased: u64,
    done: u64,
    dead: u64,
}

crate::document! {
    get_job: [JobNotFound];
    heartbeat_job: [JobNotFound, LeaseLost, StepState, ProcessorsBusy];
    complete_job: [JobNotFound, LeaseLost, StepState];
    fail_job: [JobNotFound, LeaseLost, StepState];
    retry_job: [JobNotFound, JobNotDead];

    "ClaimJobs": r#"{"count":2,"processors":["asr","cut"],"lease_s":120,"wait_s":30}"#;
    "JobHeartbeat": r#"{"lease_id":"019abcde-0000-7000-8000-000000000006","steps":[{"processor":"cut","state":"running","progress_percent":40}]}"#;
    "CompleteJob": r#"{"lease_id":"019abcde-0000-7000-8000-000000000006"}"#;
    "FailJob": r#"{"lease_id":"019abcde-0000-7000-8000-000000000006","error":"no sound decoder for this file"}"#;
    "JobCounts": r#"{"queued":3,"held":0,"leased":1,"done":120,"dead":0}"#;
}

pub struct Api {
    pub app: Arc<App>,
    pub waiting: WaitingWorkers,
}

#[OpenApi(prefix_path = "/jobs", tag = "Tag::Jobs")]
impl Api {
    /// List jobs, the newest first
    ///
    /// One's own; with the permission those of the organization; those of the site for the platform and programs.
    /// Where filters fit few of many rows a page may be short, or empty, while there is `next`.
    #[oai(path = "/", method = "get", operation_id = "list_jobs")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list_jobs(
        &self,
        caller: AdminOrKey,
        state: Query<Option<JobState>>,
        /// Whose videos, by uid
        member: Query<Option<MemberId>>,
        /// The video's id
        #[oai(validator(max_length = 64))]
        video: Query<Option<String>>,
        /// Only jobs where this is not over
        processor: Query<Option<ProcessorName>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<JobView>> {
        let mut filter = sight(&self.app.snapshot(), &caller, Permission::JOB_LIST)?;
        // A caller without the permission finds only its own jobs.
        let is_foreign = filter.member.zip(member.0).is_some_and(|(own, asked)| own != asked);
        filter.member = if is_foreign { Some(MemberId(uuid::Uuid::nil())) } else { filter.member.or(member.0) };
        filter.state = state.0.map(JobState::as_str);
        filter.video = video.0;
        filter.processor = processor.0.map(|name| Processor::from(name).as_str());
        let window = Window::new(limit.0, offset.0, after.0)?;
        let list = move |r: &Reader<'_>| {
            let found = store::list(r, &filter, &window)?;
            let shown = |job| seen(r, seen_by(&caller, filter.organization, &job), job).map(JobView::from);
            found.try_map(shown)
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Count jobs by state
    ///
    /// Of those that the list would show.
    #[oai(path = "/counts", method = "get", operation_id = "count_jobs")]
    async fn count_jobs(&self, caller: AdminOrKey) -> Reply<JobCounts> {
        let filter = sight(&self.app.snapshot(), &caller, Permission::JOB_COUNT)?;
        let [queued, held, leased, done, dead] = self.app.read(move |r| store::count(r, &filter)).await?;
        Ok(ok(JobCounts { queued, held, leased, done, dead }))
    }

    /// See a job
    ///
    /// With its steps, their states and what each reported.
    #[oai(path = "/:id", method = "get", operation_id = "get_job")]
    async fn get_job(&self, caller: AdminOrKey, id: Path<JobId>) -> Reply<JobView> {
        let filter = sight(&self.app.snapshot(), &caller, Permission::JOB_GET)?;
        let look = move |r: &Reader<'_>| {
            let job = store::get(r, id.0)?;
            // One's own is always in reach.
            let is_own = caller.member().is_some() && job.member == caller.member();
            let is_seen = filter.organization.is_none_or(|only| job.organization == Some(only))
                && filter.member.is_none_or(|only| job.member == Some(only));
            if is_own || is_seen {
                seen(r, seen_by(&caller, filter.organization, &job), job)
            } else {
                Err(ErrorCode::JobNotFound.into())
            }
        };
        Ok(ok(self.app.read(look).await?.into()))
    }

    /// Take jobs to work on
    ///
    /// For workers, by the API key of a service or as an API client. No two get the same job. Members take turns, and of a
    /// member's jobs the one whose time came first goes first; jobs of members or organizations that are not active are
    /// held. Say that you live before `leased_until`, or the job goes to another worker. With `wait_s` the answer comes
    /// when there is a job, or when that time is over; where more workers wait than may, it is 503.
    #[oai(path = "/claim", method = "post", operation_id = "claim_jobs")]
    async fn claim_jobs(
        &self,
        caller: AdminOrKey,
        request: &poem::Request,
        body: OptionalBody<ClaimJobs>,
    ) -> Reply<ClaimedJobs> {
        let none = ClaimJobs { count: None, processors: None, lease_s: None, wait_s: None };
        let body = body.read(request).await?.unwrap_or(none);
        let config = &self.app.config;
        let request = ClaimRequest {
            count: body.count.unwrap_or(1).min(config.job_claim_max),
            processors: body.processors.map(|names| names.into_iter().map(Processor::from).collect()),
            lease_s: body.lease_s.unwrap_or(config.job_lease_s),
            worker: worker(&caller),
        };
        let wait = Duration::from_secs(body.wait_s.unwrap_or(0).min(config.job_wait_s));
        let claimed = wait::claim(&self.app, &self.waiting, &caller, &request, wait).await?;
        Ok(ok(ClaimedJobs { jobs: claimed.into_iter().map(Into::into).collect() }))
    }

    /// Send a heartbeat and progress for a job
    ///
    /// Extends the lease. Completing or skipping a step makes ready what waited for it; with the last one the job is done.
    /// At most `jobs.processors` of a job run at the same time.
    #[oai(path = "/:id/heartbeat", method = "post", operation_id = "heartbeat_job")]
    async fn heartbeat_job(
        &self,
        caller: AdminOrKey,
        id: Path<JobId>,
        request: &poem::Request,
        body: OptionalBody<JobHeartbeat>,
    ) -> Reply<JobView> {
        let body = body.read(request).await?.unwrap_or(JobHeartbeat { lease_id: None, steps: None });
        let reports: Vec<Report> = body.steps.unwrap_or_default().into_iter().map(Into::into).collect();
        let rules = RetrySettings::from_config(&self.app.config);
        let report = move |t: &Transaction<'_>, caller: &Identity| {
            let holder = holder(t, caller, Permission::JOB_HEARTBEAT, (id.0, body.lease_id))?;
            jobs::heartbeat(t, &holder, &reports, rules)
        };
        Ok(ok(self.app.change(&caller, "job.heartbeat", report).await?.answer.into()))
    }

    /// Complete the worker's part of a job
    ///
    /// What was claimed and not reported as skipped counts as completed. The job is done when every step is over; what
    /// was not claimed waits for another worker. Saying it twice is saying it once.
    #[oai(path = "/:id/complete", method = "post", operation_id = "complete_job")]
    async fn complete_job(
        &self,
        caller: AdminOrKey,
        id: Path<JobId>,
        request: &poem::Request,
        body: OptionalBody<CompleteJob>,
    ) -> Reply<JobView> {
        let lease = body.read(request).await?.and_then(|body| body.lease_id);
        let complete = move |t: &Transaction<'_>, caller: &Identity| {
            jobs::complete(t, &holder(t, caller, Permission::JOB_COMPLETE, (id.0, lease))?)
        };
        Ok(ok(self.app.change(&caller, "job.complete", complete).await?.answer.into()))
    }

    /// Say that a job failed
    ///
    /// It is tried again after a wait that doubles with each failure, and is dead after `jobs.attempts` of them, or at
    /// once with `retry: false`. Saying it twice is saying it once.
    #[oai(path = "/:id/fail", method = "post", operation_id = "fail_job")]
    async fn fail_job(&self, caller: AdminOrKey, id: Path<JobId>, body: Body<FailJob>) -> Reply<JobView> {
        let FailJob { lease_id, error, retry } = body.0;
        let rules = RetrySettings::from_config(&self.app.config);
        let fail = move |t: &Transaction<'_>, caller: &Identity| {
            let holder = holder(t, caller, Permission::JOB_FAIL, (id.0, lease_id))?;
            jobs::fail(t, &holder, &error.0, retry.unwrap_or(true), rules)
        };
        Ok(ok(self.app.change(&caller, "job.fail", fail).await?.answer.into()))
    }

    /// Retry a dead job
    ///
    /// It is queued again with all its attempts; what was completed before stays so.
    #[oai(path = "/:id/retry", method = "post", operation_id = "retry_job")]
    async fn retry_job(&self, caller: AdminOrKey, id: Path<JobId>) -> Reply<JobView> {
        let retry = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::JOB_RETRY)?;
            let mut retried = jobs::retry(t, reach, id.0)?;
            let seen_by = seen_by(caller, reach.organization(), &retried.answer);
            retried.answer = seen(t, seen_by, retried.answer)?;
            Ok(retried)
        };
        Ok(ok(self.app.change(&caller, "job.retry", retry).await?.answer.into()))
    }
}

/// Who works, so that only they report.
fn worker(caller: &Identity) -> String {
    let (kind, name) = caller.actor();
    format!("{kind} {name}")
}

fn holder(
    t: &Transaction<'_>,
    caller: &Identity,
    permission: Permission,
    (job, lease): (JobId, Option<LeaseId>),
) -> Result<LeaseHolder> {
    let reach: Reach = authz::require(t.snapshot(), caller, permission)?;
    Ok(LeaseHolder { job, worker: worker(caller), lease, reach })
}

/// A job as an organization sees it, or as it is: neither its path nor its errors name somebody who has left.
fn seen(r: &Reader<'_>, seen_by: Option<OrganizationId>, mut job: Job) -> Result<Job> {
    let path = members::seen_path(r, seen_by, job.member, &job.path)?;
    let errors = job.steps.iter_mut().filter_map(|step| step.error.as_mut()).chain(job.last_error.as_mut());
    errors.for_each(|error| *error = members::seen_text(error, &job.path, &path));
    job.path = path;
    Ok(job)
}

/// The organization through whose eyes the caller sees a job; none for the site, and for one's own.
fn seen_by(caller: &Identity, reach: Option<OrganizationId>, job: &Job) -> Option<OrganizationId> {
    reach.filter(|_| job.member.is_none() || job.member != caller.member())
}

/// Which jobs a caller sees: by the permission those of its reach, without it the own ones.
fn sight(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Filter> {
    Ok(match RowScope::of(snapshot, caller, permission, "jobs:read")? {
        RowScope::All(reach) => Filter { organization: reach.organization(), ..Filter::default() },
        RowScope::Member(member) => Filter { member: Some(member), ..Filter::default() },
    })
}
