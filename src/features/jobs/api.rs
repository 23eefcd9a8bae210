//! Operations on jobs: for workers, which claim jobs and report on them, and for people, who read them.

use std::sync::Arc;
use std::time::Duration;

use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use crate::features::jobs::queue::{self, WaitingWorkers};
use crate::features::jobs::{
    self, ClaimRequest, Filter, Job, JobState, LeaseReport, Processor, Report, RetrySettings, StepState, store,
};
use crate::features::members;
use crate::kernel::app::{App, Transaction};
use crate::kernel::authn::caller::AdminOrKey;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach, RowScope};
use crate::kernel::db::{Direction, PageRequest, Reader};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::http::{Body, OptionalBody, Page, Reply, Tag, ok};
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId};

crate::text! {
    /// The error message, shown with the job
    JobError 1..=2000 "";
}

/// The state of a job
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "JobState", remote = "JobState")]
enum JobStateName {
    /// Waits for a worker
    Queued,
    /// Waits until both its member and its organization are active
    Held,
    /// A worker holds its lease
    Leased,
    Done,
    /// Failed for good: no attempts are left, or the worker reported `retry: false`
    Dead,
}

/// The order of a list of jobs; `-` reverses it
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
enum JobOrder {
    #[oai(rename = "created_at")]
    Oldest,
    #[oai(rename = "-created_at")]
    Newest,
}

/// A processing step: `asr` and `cut` run first, the others process the scenes that `cut` found
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "Processor", remote = "Processor")]
enum ProcessorName {
    Asr,
    Cut,
    Yolo,
    Ocr,
    Face,
    Pose,
}

/// A state that a worker can report for a step
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ReportedState {
    Running,
    Completed,
    Failed,
    /// Nothing to do, such as `asr` for a video without an audio track
    Skipped,
}

impl From<ReportedState> for StepState {
    fn from(state: ReportedState) -> Self {
        match state {
            ReportedState::Running => Self::Running,
            ReportedState::Completed => Self::Completed,
            ReportedState::Failed => Self::Failed,
            ReportedState::Skipped => Self::Skipped,
        }
    }
}

/// A step of a job
#[derive(Object)]
struct JobStep {
    processor: String,
    /// `waiting` for the processors in `needs`, `ready`, `running`, `completed`, `failed` or `skipped`
    state: String,
    progress_percent: i64,
    #[oai(nullable)]
    error: Option<String>,
    /// The processors that must be completed or skipped before this one can start
    needs: Vec<String>,
}

/// A processing job of a video
#[derive(Object)]
#[oai(rename = "Job")]
struct JobView {
    id: JobId,
    kind: String,
    state: JobStateName,
    video_id: String,
    /// Below the media root
    path: String,
    /// The owner of the video
    #[oai(nullable)]
    member_id: Option<MemberId>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// The average progress of all steps, in percent
    progress_percent: i64,
    steps: Vec<JobStep>,
    /// The number of failed attempts since it was queued or last made progress
    attempts: i64,
    /// The earliest time at which it can be claimed, in Unix milliseconds
    run_at: i64,
    /// When the lease expires unless the worker sends a heartbeat, in Unix milliseconds
    #[oai(nullable)]
    leased_until: Option<i64>,
    /// The error message of the last failure
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
            state: job.state.into(),
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
    let view = |step: &jobs::Step| JobStep {
        processor: step.processor.as_str().into(),
        state: step.state.as_str().into(),
        progress_percent: step.progress_percent,
        error: step.error.clone(),
        needs: step.processor.dependencies().iter().map(|need| need.as_str().to_owned()).collect(),
    };
    job.steps.iter().map(view).collect()
}

/// A job that is leased to the worker
#[derive(Object)]
struct ClaimedJob {
    id: JobId,
    /// Identifies the lease; send it with every report
    lease_id: LeaseId,
    /// When the lease expires unless the worker sends a heartbeat, in Unix milliseconds
    leased_until: i64,
    kind: String,
    video_id: String,
    /// Below the media root
    path: String,
    /// The owner's SFTPGo username: the first part of the path
    sftpgo_username: String,
    #[oai(nullable)]
    member_id: Option<MemberId>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// The number of failed attempts so far
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

/// The jobs that were leased to the worker
#[derive(Object)]
struct ClaimedJobs {
    /// Empty when no job is ready
    jobs: Vec<ClaimedJob>,
}

/// A claim for jobs
#[derive(Object)]
struct ClaimJobs {
    /// The maximum number of jobs; 1 when absent, capped at `jobs.claim`
    #[oai(validator(minimum(value = "1"), maximum(value = "1000")))]
    count: Option<u64>,
    /// Only jobs with a ready step of one of these processors. The lease covers only these; all when absent
    #[oai(validator(min_items = 1, max_items = 6))]
    processors: Option<Vec<ProcessorName>>,
    /// The duration of the lease without a heartbeat, in seconds; `jobs.lease_s` when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "86400")))]
    lease_s: Option<u64>,
    /// How long to wait for a job when none is ready, in seconds; 0 when absent, capped at `jobs.wait_s`
    #[oai(validator(minimum(value = "0"), maximum(value = "3600")))]
    wait_s: Option<u64>,
}

/// A report on one step
#[derive(Object)]
struct StepReport {
    processor: ProcessorName,
    state: ReportedState,
    #[oai(validator(minimum(value = "0"), maximum(value = "100")))]
    progress_percent: Option<i64>,
    /// The error message, for `failed`
    error: Option<JobError>,
}

impl From<StepReport> for Report {
    fn from(report: StepReport) -> Self {
        Self {
            processor: report.processor.into(),
            state: report.state.into(),
            progress_percent: report.progress_percent,
            error: report.error.map(|text| text.0),
        }
    }
}

/// A heartbeat
#[derive(Object)]
struct JobHeartbeat {
    /// The `lease_id` of the claim; required when several workers share an API key
    lease_id: Option<LeaseId>,
    /// The steps that changed, in chronological order
    #[oai(validator(max_items = 32))]
    steps: Option<Vec<StepReport>>,
}

/// Completes the worker's part of a job
#[derive(Object)]
struct CompleteJob {
    /// The `lease_id` of the claim; required when several workers share an API key
    lease_id: Option<LeaseId>,
}

/// Reports a failed attempt
#[derive(Object)]
struct FailJob {
    /// The `lease_id` of the claim; required when several workers share an API key
    lease_id: Option<LeaseId>,
    error: JobError,
    /// `false` when another attempt would fail too; `true` when absent
    retry: Option<bool>,
}

/// The number of jobs in each state
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
    /// List jobs
    ///
    /// Newest first. Members see their own jobs, administrators with the permission those of their organization, the
    /// platform and programs those of the site. With selective filters a page can be short or empty although `next` is
    /// present.
    #[oai(path = "/", method = "get", operation_id = "list_jobs")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list_jobs(
        &self,
        caller: AdminOrKey,
        state: Query<Option<JobStateName>>,
        /// Only jobs of this member's videos
        member: Query<Option<MemberId>>,
        /// Only jobs of the video with this id
        #[oai(validator(max_length = 64))]
        video: Query<Option<String>>,
        /// Only jobs in which this step is not finished
        processor: Query<Option<ProcessorName>>,
        /// `-created_at` by default
        sort: Query<Option<JobOrder>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<JobView>> {
        let mut filter = visible_jobs(&self.app.snapshot(), &caller, Permission::JOB_LIST)?;
        // A caller without the permission sees only its own jobs.
        let is_foreign = filter.member.zip(member.0).is_some_and(|(own, requested)| own != requested);
        filter.member = if is_foreign { Some(MemberId(uuid::Uuid::nil())) } else { filter.member.or(member.0) };
        filter.state = state.0.map(JobState::from);
        filter.video = video.0;
        filter.processor = processor.0.map(Processor::from);
        // The list is newest first.
        let direction = if sort.0 == Some(JobOrder::Oldest) { Direction::Backward } else { Direction::Forward };
        let window = PageRequest::new(limit.0, offset.0, after.0)?.toward(direction);
        let list = move |r: &Reader<'_>| {
            let found = store::list(r, &filter, &window)?;
            let view = |job| redacted(r, viewer(&caller, filter.organization, &job), job).map(JobView::from);
            found.try_map(view)
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Count jobs by state
    ///
    /// Counts the jobs that `list_jobs` shows to the caller.
    #[oai(path = "/counts", method = "get", operation_id = "count_jobs")]
    async fn count_jobs(&self, caller: AdminOrKey) -> Reply<JobCounts> {
        let filter = visible_jobs(&self.app.snapshot(), &caller, Permission::JOB_COUNT)?;
        let [queued, held, leased, done, dead] = self.app.read(move |r| store::count(r, &filter)).await?;
        Ok(ok(JobCounts { queued, held, leased, done, dead }))
    }

    /// Get a job
    ///
    /// Includes its steps with their states and the workers' reports.
    #[oai(path = "/:id", method = "get", operation_id = "get_job")]
    async fn get_job(&self, caller: AdminOrKey, id: Path<JobId>) -> Reply<JobView> {
        let filter = visible_jobs(&self.app.snapshot(), &caller, Permission::JOB_GET)?;
        let look = move |r: &Reader<'_>| {
            let job = store::get(r, id.0)?;
            // A caller can always read its own jobs.
            let is_own = caller.member().is_some() && job.member == caller.member();
            let is_visible = filter.organization.is_none_or(|only| job.organization == Some(only))
                && filter.member.is_none_or(|only| job.member == Some(only));
            if is_own || is_visible {
                redacted(r, viewer(&caller, filter.organization, &job), job)
            } else {
                Err(ErrorCode::JobNotFound.into())
            }
        };
        Ok(ok(self.app.read(look).await?.into()))
    }

    /// Claim jobs
    ///
    /// For workers, with the API key of a service or as an API client. No two workers get the same job. Members take
    /// turns, and of a member's jobs the one that was due first comes first; jobs of members or organizations that are
    /// not active are held. Send a heartbeat before `leased_until`, otherwise the job goes to another worker. With
    /// `wait_s` the response is sent as soon as a job is ready, or when that time is over; when too many workers wait
    /// already, it is 503.
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
        let claimed = queue::claim(&self.app, &self.waiting, &caller, &request, wait).await?;
        Ok(ok(ClaimedJobs { jobs: claimed.into_iter().map(Into::into).collect() }))
    }

    /// Send a heartbeat and progress for a job
    ///
    /// Extends the lease. Completing or skipping a step makes the steps that depend on it ready; when all steps are
    /// completed or skipped, the job is done. At most `jobs.processors` steps of a job can run at the same time.
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
    /// Claimed steps that were not reported as skipped are completed. The job is done when every step is completed or
    /// skipped; steps outside the claim wait for another worker. A repeated request changes nothing.
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

    /// Report a failed attempt
    ///
    /// The job is queued again after a back-off that doubles with each failure. After `jobs.attempts` failures, or at
    /// once with `retry: false`, it is dead. A repeated request changes nothing.
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
    /// Queues it again with its attempts reset. Completed steps stay completed.
    #[oai(path = "/:id/retry", method = "post", operation_id = "retry_job")]
    async fn retry_job(&self, caller: AdminOrKey, id: Path<JobId>) -> Reply<JobView> {
        let retry = move |t: &Transaction<'_>, caller: &Identity| {
            let reach = authz::require(t.snapshot(), caller, Permission::JOB_RETRY)?;
            let mut retried = jobs::retry(t, reach, id.0)?;
            let viewer = viewer(caller, reach.organization(), &retried.answer);
            retried.answer = redacted(t, viewer, retried.answer)?;
            Ok(retried)
        };
        Ok(ok(self.app.change(&caller, "job.retry", retry).await?.answer.into()))
    }
}

/// Returns the caller's identity as a worker; only the same worker can report on a job.
fn worker(caller: &Identity) -> String {
    let (kind, name) = caller.actor();
    format!("{kind} {name}")
}

fn holder(
    t: &Transaction<'_>,
    caller: &Identity,
    permission: Permission,
    (job, lease): (JobId, Option<LeaseId>),
) -> Result<LeaseReport> {
    let reach: Reach = authz::require(t.snapshot(), caller, permission)?;
    Ok(LeaseReport { job, worker: worker(caller), lease, reach })
}

/// Returns the job as this organization can see it, or unchanged for `None`: for an organization, neither the path nor
/// the error messages name a member who has left.
fn redacted(r: &Reader<'_>, viewer: Option<OrganizationId>, mut job: Job) -> Result<Job> {
    let path = members::visible_path(r, viewer, job.member, &job.path)?;
    let errors = job.steps.iter_mut().filter_map(|step| step.error.as_mut()).chain(job.last_error.as_mut());
    errors.for_each(|error| *error = members::visible_text(error, &job.path, &path));
    job.path = path;
    Ok(job)
}

/// Returns the organization whose view of the job the caller gets; `None` for the site, and for the caller's own jobs.
fn viewer(caller: &Identity, reach: Option<OrganizationId>, job: &Job) -> Option<OrganizationId> {
    reach.filter(|_| job.member.is_none() || job.member != caller.member())
}

/// Returns the filter for the jobs that the caller can see: with the permission all jobs in its reach, otherwise its
/// own.
fn visible_jobs(snapshot: &Snapshot, caller: &Identity, permission: Permission) -> Result<Filter> {
    Ok(match RowScope::of(snapshot, caller, permission, "jobs:read")? {
        RowScope::All(reach) => Filter { organization: reach.organization(), ..Filter::default() },
        RowScope::Member(member) => Filter { member: Some(member), ..Filter::default() },
    })
}
