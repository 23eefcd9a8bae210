//! Jobs: work on videos. A job is leased to one worker at a time, for as long as the worker sends heartbeats.
//!
//! **Invariant.** A worker can report on a job only while it holds the job's lease. A job is leased by one conditional
//! update on the single writer, so no two workers get the same job. Whether a job is held depends on the status of its
//! member and organization at the time of the claim: suspending them writes nothing here, and running work continues.
//! The order of jobs is defined in [`mod@queue`].
//!
//! ```text
//! queued ─claim→ leased ─all steps finished→ done (deleted after jobs.keep_s)
//!    ↑             │ fail, or lease expired: counts as an attempt; back-off
//!    └─────────────┴─ jobs.attempts reached, or `retry: false` → dead ─retry→ queued
//! ```

pub mod api;
pub mod counts;
pub mod queue;
pub mod store;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::app::{App, Changed, Occurrence, Transaction, backoff, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::Reach;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Change;
use crate::kernel::config::Config;
use crate::kernel::db::Writer;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
use queue::{ProcessorFilter, Queue};

/// One kind of work on a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processor {
    Asr,
    Cut,
    Yolo,
    Ocr,
    Face,
    Pose,
}

use Processor::{Asr, Cut, Face, Ocr, Pose, Yolo};

/// The steps of an `auto_ingestion` job and their dependencies: speech recognition needs only the audio track; the
/// visual processors work on the scenes that `cut` found.
pub const DEPENDENCIES: [(Processor, &[Processor]); 6] =
    [(Asr, &[]), (Cut, &[]), (Yolo, &[Cut]), (Ocr, &[Cut]), (Face, &[Cut]), (Pose, &[Cut])];

impl Processor {
    pub fn as_str(self) -> &'static str {
        match self {
            Asr => "asr",
            Cut => "cut",
            Yolo => "yolo",
            Ocr => "ocr",
            Face => "face",
            Pose => "pose",
        }
    }

    /// The processors that must be finished before this one can start.
    pub fn dependencies(self) -> &'static [Self] {
        DEPENDENCIES.into_iter().find(|(processor, _)| *processor == self).map_or(&[], |(_, needs)| needs)
    }
}

/// The state of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Waits for the processors it depends on.
    Waiting,
    Ready,
    Running,
    Completed,
    Failed,
    Skipped,
}

impl StepState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    fn is_finished(self) -> bool {
        matches!(self, Self::Completed | Self::Skipped)
    }

    /// Whether a worker can report `next` for a step in this state.
    fn allows(self, next: Self) -> bool {
        match self {
            Self::Waiting => next == Self::Skipped,
            Self::Ready => matches!(next, Self::Running | Self::Completed | Self::Failed | Self::Skipped),
            Self::Running => matches!(next, Self::Completed | Self::Failed | Self::Skipped),
            Self::Completed | Self::Failed | Self::Skipped => false,
        }
    }
}

/// One processor's part of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub processor: Processor,
    pub state: StepState,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub progress_percent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_zero(percent: &i64) -> bool {
    *percent == 0
}

impl Step {
    fn new(processor: Processor) -> Self {
        let state = if processor.dependencies().is_empty() { StepState::Ready } else { StepState::Waiting };
        Self { processor, state, progress_percent: 0, error: None }
    }
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    Queued,
    /// Queued, and its member or its organization is not active. Not stored: determined when the job is read.
    Held,
    Leased,
    Done,
    Dead,
}

impl JobState {
    pub const ALL: [Self; 5] = [Self::Queued, Self::Held, Self::Leased, Self::Done, Self::Dead];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Held => "held",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A job as stored.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub video: String,
    pub path: String,
    pub member: Option<MemberId>,
    pub organization: Option<OrganizationId>,
    pub kind: String,
    pub state: JobState,
    pub attempts: i64,
    pub run_at: Timestamp,
    pub leased_by: Option<String>,
    pub lease: Option<LeaseId>,
    pub lease_s: i64,
    pub leased_until: Option<Timestamp>,
    /// The processors that the lease covers; `None` for all.
    pub processors: Option<Vec<Processor>>,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub steps: Vec<Step>,
}

impl Job {
    /// The average progress of all steps, in percent.
    pub fn progress_percent(&self) -> i64 {
        let sum: i64 = self.steps.iter().map(|step| step.progress_percent).sum();
        sum.checked_div(i64::try_from(self.steps.len()).unwrap_or_default()).unwrap_or_default()
    }

    fn queue(&self) -> Queue {
        Queue { member: self.member, organization: self.organization, ready: queue::ready(&self.steps) }
    }

    fn is_finished(&self) -> bool {
        self.steps.iter().all(|step| step.state.is_finished())
    }

    /// Whether the lease covers this processor.
    fn covers(&self, processor: Processor) -> bool {
        self.processors.as_ref().is_none_or(|claimed| claimed.contains(&processor))
    }

    /// The first segment of the path: the owner's SFTPGo username.
    pub fn sftpgo_username(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

/// A worker's report on one step.
#[derive(Debug, Clone)]
pub struct Report {
    pub processor: Processor,
    pub state: StepState,
    pub progress_percent: Option<i64>,
    pub error: Option<String>,
}

/// The settings for attempts, back-off and concurrency.
#[derive(Debug, Clone, Copy)]
pub struct RetrySettings {
    pub attempts_max: i64,
    pub backoff_ms: i64,
    pub processors_max: usize,
}

impl RetrySettings {
    pub fn from_config(config: &Config) -> Self {
        Self {
            attempts_max: i64::try_from(config.job_attempts_max).unwrap_or(i64::MAX),
            backoff_ms: seconds_to_ms(config.job_backoff_s),
            processors_max: usize::try_from(config.job_processors_max).unwrap_or(usize::MAX),
        }
    }

    /// The back-off after this many failed attempts, in milliseconds.
    fn backoff_ms(&self, attempts: i64) -> i64 {
        /// The back-off doubles up to one day.
        const BACKOFF_MS_MAX: u64 = 86_400_000;
        let first_ms = u64::try_from(self.backoff_ms).unwrap_or_default();
        let wait_ms = backoff(u64::try_from(attempts).unwrap_or_default(), first_ms, BACKOFF_MS_MAX.max(first_ms));
        i64::try_from(wait_ms).unwrap_or(i64::MAX)
    }
}

/// Queues the job of a new video.
pub fn enqueue_video(
    w: &Writer<'_>,
    video: i64,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    let (steps, ready) = &*FIRST_STEPS;
    let queue = Queue { member, organization, ready: *ready };
    store::insert(w, JobId::new(), video, queue, steps)?;
    store::enqueue(w, queue, w.now())
}

/// The initial steps of every job, serialized as they are stored, with the set of ready processors.
static FIRST_STEPS: LazyLock<(String, queue::Ready)> = LazyLock::new(|| {
    let steps = DEPENDENCIES.map(|(processor, _)| Step::new(processor));
    (json!(steps).to_string(), queue::ready(&steps))
});

/// Deletes the jobs of a video. Their workers get `job_not_found` at the next report.
pub fn delete_of_video(w: &Writer<'_>, video: &str) -> Result<()> {
    store::delete_of_video(w, video)
}

/// Moves the jobs of a video to its new owner.
pub fn transfer(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    match store::set_owner(w, video, member, organization)? {
        Some((ready, run_at)) => store::enqueue(w, Queue { member, organization, ready }, run_at),
        None => Ok(()),
    }
}

/// A worker's request for jobs.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    pub count: u64,
    /// Only jobs with a ready step of one of these processors; `None` for all.
    pub processors: Option<Vec<Processor>>,
    pub lease_s: u64,
    /// Identifies the worker: kind and name of the caller.
    pub worker: String,
}

impl ClaimRequest {
    pub fn wanted(&self) -> ProcessorFilter {
        ProcessorFilter::new(self.processors.as_deref())
    }
}

/// Leases jobs to a worker, after expired leases are released.
///
/// Members take turns: the member whose last job was leased longest ago comes first, and within a member the job that
/// was due first. A member with thousands of jobs does not block the others.
pub fn claim(t: &Transaction<'_>, request: &ClaimRequest, rules: RetrySettings) -> Result<Changed<Vec<Job>>> {
    let expired = expire(t, rules)?;
    let claimed = queue::lease_next(t, request)?;
    let claimed = claimed.into_iter().map(|id| store::get(t, id)).collect::<Result<Vec<Job>>>()?;
    let changed = claimed.iter().fold(expired, |changed, job| {
        changed.with_entry(entry(job, json!({"state": JobState::Leased.as_str(), "attempts": job.attempts})))
    });
    Ok(changed.map(|()| claimed))
}

/// Releases expired leases. Each counts as a failed attempt at the time when the lease ended, no matter when this runs.
pub fn expire(t: &Transaction<'_>, rules: RetrySettings) -> Result<Changed<()>> {
    /// The rest is left to the next call: each is a job and an audit row, and all other writers wait for them.
    const CONCURRENT_MAX: u64 = 20;
    let mut changed = Changed::unchanged(());
    for id in store::list_expired(t, CONCURRENT_MAX)? {
        let mut job = store::get(t, id)?;
        let ended_at = job.leased_until.unwrap_or(t.now());
        // The lease is cleared, so a late report from its worker is not mistaken for a repeated request.
        (job.leased_by, job.lease) = (None, None);
        release_lease(t, &mut job, ended_at, "the lease expired without a heartbeat from the worker", rules, true)?;
        changed = with_failure(changed, &job);
    }
    Ok(changed)
}

/// Adds the audit entry of a failed attempt, and the event of a dead job.
fn with_failure<T>(changed: Changed<T>, job: &Job) -> Changed<T> {
    let entry = entry(job, json!({"state": job.state.as_str(), "attempts": job.attempts}));
    changed.with_entry(entry).with_events((job.state == JobState::Dead).then(|| {
        let data = json!({
            "job": job.id, "video": job.video, "path": job.path, "attempts": job.attempts, "error": job.last_error,
        });
        Event::new(EventKind::JobDead, data).within(job.organization).about(job.member)
    }))
}

fn entry(job: &Job, after: Value) -> Entry {
    Entry::new("job", job.id).within(job.organization).after(after)
}

/// Ends a lease with a failed attempt: the job is queued again or becomes dead. Finished steps stay finished.
fn release_lease(
    t: &Transaction<'_>,
    job: &mut Job,
    at: Timestamp,
    why: &str,
    rules: RetrySettings,
    retry: bool,
) -> Result<()> {
    job.attempts = job.attempts.saturating_add(1);
    job.last_error = Some(why.to_owned());
    (job.leased_until, job.processors) = (None, None);
    if retry && job.attempts < rules.attempts_max {
        job.run_at = at.plus_ms(rules.backoff_ms(job.attempts));
        job.state = JobState::Queued;
        restart(&mut job.steps);
    } else {
        job.state = JobState::Dead;
        for step in job.steps.iter_mut().filter(|step| step.state == StepState::Running) {
            step.state = StepState::Failed;
            step.error.get_or_insert_with(|| why.to_owned());
        }
    }
    save(t, job)
}

/// Resets all steps that are not finished.
fn restart(steps: &mut [Step]) {
    for step in steps.iter_mut().filter(|step| !step.state.is_finished()) {
        *step = Step { state: StepState::Waiting, ..Step::new(step.processor) };
    }
    mark_ready(steps);
}

/// Marks waiting steps as ready when the processors they depend on are finished.
fn mark_ready(steps: &mut [Step]) {
    let finished: Vec<Processor> =
        steps.iter().filter(|step| step.state.is_finished()).map(|step| step.processor).collect();
    for step in steps.iter_mut().filter(|step| step.state == StepState::Waiting) {
        if step.processor.dependencies().iter().all(|need| finished.contains(need)) {
            step.state = StepState::Ready;
        }
    }
}

fn save(t: &Transaction<'_>, job: &Job) -> Result<()> {
    let queue = job.queue();
    store::update(t, job, queue.ready)?;
    if job.state == JobState::Queued { store::enqueue(t, queue, job.run_at) } else { Ok(()) }
}

/// The caller of a report: the worker, the job, and the organizations that the caller can act in.
#[derive(Debug, Clone)]
pub struct LeaseReport {
    pub job: JobId,
    pub worker: String,
    /// Distinguishes the leases of workers that share an API key.
    pub lease: Option<LeaseId>,
    pub reach: Reach,
}

impl LeaseReport {
    fn find(&self, t: &Transaction<'_>) -> Result<Job> {
        let job = store::find(t, self.job)?.ok_or(ErrorCode::JobNotFound)?;
        let is_in_reach = self.reach.organization().is_none_or(|only| job.organization == Some(only));
        if is_in_reach { Ok(job) } else { Err(ErrorCode::JobNotFound.into()) }
    }

    /// Whether this worker holds the job's lease, or was the last one to hold it.
    fn matches(&self, job: &Job) -> bool {
        job.leased_by.as_ref() == Some(&self.worker) && self.lease.is_none_or(|lease| job.lease == Some(lease))
    }

    fn require(&self, job: &Job, now: Timestamp) -> Result<()> {
        let is_live = job.state == JobState::Leased && job.leased_until.is_some_and(|until| now < until);
        if is_live && self.matches(job) { Ok(()) } else { Err(ErrorCode::LeaseLost.into()) }
    }
}

/// Extends the lease and applies the worker's reports. When all steps are finished, the job is done.
pub fn heartbeat(
    t: &Transaction<'_>,
    holder: &LeaseReport,
    reports: &[Report],
    rules: RetrySettings,
) -> Result<Changed<Job>> {
    let mut job = holder.find(t)?;
    if job.state == JobState::Done && holder.matches(&job) {
        return Ok(Changed::unchanged(job));
    }
    holder.require(&job, t.now())?;
    apply_reports(&mut job, reports, rules)?;
    if job.is_finished() {
        return finish(t, job);
    }
    job.leased_until = Some(t.now().plus_ms(job.lease_s.saturating_mul(1_000)));
    save(t, &job)?;
    // Heartbeats are not audited: they are frequent, and the job itself shows the progress.
    Ok(Changed::unchanged(job))
}

fn apply_reports(job: &mut Job, reports: &[Report], rules: RetrySettings) -> Result<()> {
    for report in reports {
        let processor = report.processor.as_str();
        if !job.covers(report.processor) {
            return Err(
                Error::new(ErrorCode::StepState).with_message(format!("{processor} was not claimed with this lease"))
            );
        }
        let Some(step) = job.steps.iter_mut().find(|step| step.processor == report.processor) else { continue };
        if step.state != report.state && !step.state.allows(report.state) {
            let (from, to) = (step.state.as_str(), report.state.as_str());
            let needs =
                step.processor.dependencies().iter().map(|need| need.as_str()).collect::<Vec<_>>().join(" and ");
            let why = if step.state == StepState::Waiting { format!(" for {needs}") } else { String::new() };
            return Err(Error::new(ErrorCode::StepState)
                .with_message(format!("{processor} is {from}{why}, and cannot become {to}")));
        }
        step.state = report.state;
        step.progress_percent = match report.state {
            StepState::Completed | StepState::Skipped => 100,
            _ => report.progress_percent.unwrap_or(step.progress_percent),
        };
        step.error.clone_from(&report.error);
        mark_ready(&mut job.steps);
    }
    let running = job.steps.iter().filter(|step| step.state == StepState::Running).count();
    if running > rules.processors_max { Err(ErrorCode::ProcessorsBusy.into()) } else { Ok(()) }
}

/// Completes the worker's part of a job: claimed steps that were not reported as skipped are completed. Steps outside
/// the claim wait for another worker.
pub fn complete(t: &Transaction<'_>, holder: &LeaseReport) -> Result<Changed<Job>> {
    let mut job = holder.find(t)?;
    let is_repeat = job.state != JobState::Leased && job.last_error.is_none() && holder.matches(&job);
    if is_repeat {
        return Ok(Changed::unchanged(job));
    }
    holder.require(&job, t.now())?;
    if let Some(failed) = job.steps.iter().find(|step| step.state == StepState::Failed) {
        let message = format!("{} was reported as failed: fail the job instead", failed.processor.as_str());
        return Err(Error::new(ErrorCode::StepState).with_message(message));
    }
    let claimed = job.processors.take();
    for (processor, _) in DEPENDENCIES {
        // In the order of `NEEDS`: dependencies are finished before the steps that need them.
        if claimed.as_ref().is_some_and(|claimed| !claimed.contains(&processor)) {
            continue;
        }
        if let Some(step) = job.steps.iter_mut().find(|step| step.processor == processor)
            && matches!(step.state, StepState::Ready | StepState::Running)
        {
            *step = Step { processor, state: StepState::Completed, progress_percent: 100, error: None };
        }
        mark_ready(&mut job.steps);
    }
    finish(t, job)
}

/// Marks a job as done, or queues it again for its remaining steps.
fn finish(t: &Transaction<'_>, mut job: Job) -> Result<Changed<Job>> {
    (job.leased_until, job.processors, job.last_error) = (None, None, None);
    if job.is_finished() {
        job.state = JobState::Done;
    } else {
        // Progress was made, so earlier attempts no longer count.
        (job.attempts, job.run_at) = (0, t.now());
        job.state = JobState::Queued;
    }
    save(t, &job)?;
    let entry = entry(&job, json!({"state": job.state.as_str()}));
    Ok(Changed::new(store::get(t, job.id)?, entry))
}

/// Records that the worker failed to do the job.
pub fn fail(
    t: &Transaction<'_>,
    holder: &LeaseReport,
    why: &str,
    retry: bool,
    rules: RetrySettings,
) -> Result<Changed<Job>> {
    let mut job = holder.find(t)?;
    let is_repeat = matches!(job.state, JobState::Queued | JobState::Held | JobState::Dead) && job.last_error.is_some();
    if is_repeat && holder.matches(&job) {
        return Ok(Changed::unchanged(job));
    }
    holder.require(&job, t.now())?;
    release_lease(t, &mut job, t.now(), why, rules, retry)?;
    let changed = with_failure(Changed::unchanged(()), &job);
    let job = store::get(t, job.id)?;
    Ok(changed.map(|()| job))
}

/// Queues a dead job again, with its attempts reset. Fails with `job_not_dead` for other jobs.
pub fn retry(t: &Transaction<'_>, reach: Reach, id: JobId) -> Result<Changed<Job>> {
    let mut job = LeaseReport { job: id, worker: String::new(), lease: None, reach }.find(t)?;
    if job.state != JobState::Dead {
        return Err(ErrorCode::JobNotDead.into());
    }
    (job.attempts, job.run_at, job.leased_by, job.lease) = (0, t.now(), None, None);
    job.state = JobState::Queued;
    restart(&mut job.steps);
    save(t, &job)?;
    let entry = entry(&job, json!({"state": job.state.as_str(), "attempts": 0}));
    Ok(Changed::new(store::get(t, id)?, entry))
}

/// The filters of a list of jobs.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub organization: Option<OrganizationId>,
    pub member: Option<MemberId>,
    pub state: Option<JobState>,
    pub video: Option<String>,
    /// Only jobs in which this step is not finished.
    pub processor: Option<Processor>,
}

/// Releases leases that expired while no worker claimed jobs, and reopens the remaining closed queues of organizations
/// that are active again. It runs often and usually reads only two indexes. The work is split, so other writes run in
/// between.
pub async fn maintain(app: &App) -> Result<()> {
    let rules = RetrySettings::from_config(&app.config);
    while app.read(|r| store::has_expired(r, Timestamp::now())).await? {
        app.change(&Identity::command_line(), "job.expire", move |t, _| expire(t, rules)).await?;
    }
    for organization in app.read(queue::list_unreleased).await? {
        while app.write_unaudited(move |w| queue::release_organization(w, organization)).await? {}
    }
    Ok(())
}

/// Deletes jobs that were done more than `jobs.keep_s` ago.
pub async fn delete_done(app: &App) -> Result<()> {
    let keep_ms = seconds_to_ms(app.config.job_keep_s);
    app.write_in_batches(move |w, most| store::delete_done(w, w.now().plus_ms(-keep_ms), most)).await.map(drop)
}

/// Reacts to occurrences of other features.
pub fn react(t: &Transaction<'_>, occurrence: &Occurrence<'_>) -> Result<Vec<Change>> {
    match occurrence {
        // Their jobs can be claimed again.
        Occurrence::MemberActivated(member) => queue::release_member(t, *member).map(|()| Vec::new()),
        Occurrence::OrganizationActivated(organization) => {
            queue::release_organization(t, *organization).map(|_| Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_before_the_steps_that_need_them() {
        for (n, (processor, needs)) in DEPENDENCIES.into_iter().enumerate() {
            assert!(
                needs.iter().all(|need| DEPENDENCIES[..n].iter().any(|(earlier, _)| earlier == need)),
                "{processor:?}"
            );
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_one_day() {
        let rules = RetrySettings { attempts_max: 5, backoff_ms: 30_000, processors_max: 2 };
        assert_eq!([1, 2, 3, 4].map(|n| rules.backoff_ms(n)), [30_000, 60_000, 120_000, 240_000]);
        assert_eq!([13, 1_000, i64::MAX].map(|n| rules.backoff_ms(n)), [86_400_000; 3]);
        assert_eq!(RetrySettings { backoff_ms: 0, ..rules }.backoff_ms(9), 0);
    }
}
