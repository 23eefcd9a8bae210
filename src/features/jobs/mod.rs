//! Jobs: work on videos. A job is in the hands of one worker at a time, for as long as that worker says that it lives.
//!
//! **Invariant.** Anyone who reports on a job holds its lease, and a job is given out by one conditional update in the one
//! writer, so that two never have it. Whether a job is held follows from its member and its organization at the moment of
//! the claim: suspending writes nothing here, and work that runs goes on. Which job comes next is [`mod@queue`]'s.
//!
//! ```text
//! queued ─claim→ leased ─all steps over→ done (forgotten after jobs.keep_s)
//!    ↑             │ fail, or lease over: an attempt; back-off
//!    └─────────────┴─ jobs.attempts reached, or `retry: false` → dead ─retry→ queued
//! ```

pub mod api;
pub mod queue;
pub mod queue_store;
pub mod store;
pub mod wait;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::app::{App, Changed, Occurrence, Transaction, backoff, ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::Reach;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Change;
use crate::kernel::config::Config;
use crate::kernel::db::Writer;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
use queue::{Queue, Wanted};

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

/// What `auto_ingestion` does, and what each part waits for: speech needs the sound alone; what is seen is looked for in
/// the scenes that the cut found.
pub const NEEDS: [(Processor, &[Processor]); 6] =
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

    /// What is over before this can begin.
    pub fn needs(self) -> &'static [Self] {
        NEEDS.into_iter().find(|(processor, _)| *processor == self).map_or(&[], |(_, needs)| needs)
    }
}

/// Where one processor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// For what it needs.
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

    fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Skipped)
    }

    /// May a worker report this next?
    fn leads_to(self, next: Self) -> bool {
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
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub progress_percent: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_nothing(percent: &i64) -> bool {
    *percent == 0
}

impl Step {
    fn new(processor: Processor) -> Self {
        let state = if processor.needs().is_empty() { StepState::Ready } else { StepState::Waiting };
        Self { processor, state, progress_percent: 0, error: None }
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
    /// `queued`, `held`, `leased`, `done` or `dead`
    pub state: String,
    pub attempts: i64,
    pub run_at: Timestamp,
    pub leased_by: Option<String>,
    pub lease: Option<LeaseId>,
    pub lease_s: i64,
    pub leased_until: Option<Timestamp>,
    /// What the worker does of it; `None` for all.
    pub processors: Option<Vec<Processor>>,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub steps: Vec<Step>,
}

impl Job {
    /// How far all its steps are, on average.
    pub fn progress_percent(&self) -> i64 {
        let sum: i64 = self.steps.iter().map(|step| step.progress_percent).sum();
        sum.checked_div(i64::try_from(self.steps.len()).unwrap_or_default()).unwrap_or_default()
    }

    fn queue(&self) -> Queue {
        Queue { member: self.member, organization: self.organization, ready: queue::ready(&self.steps) }
    }

    fn is_over(&self) -> bool {
        self.steps.iter().all(|step| step.state.is_over())
    }

    /// Does the lease leave this processor to its worker?
    fn covers(&self, processor: Processor) -> bool {
        self.processors.as_ref().is_none_or(|claimed| claimed.contains(&processor))
    }

    /// The path's first segment: the owner's name at SFTPGo.
    pub fn sftpgo_username(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

/// What a worker says of one processor.
#[derive(Debug, Clone)]
pub struct Report {
    pub processor: Processor,
    pub state: StepState,
    pub progress_percent: Option<i64>,
    pub error: Option<String>,
}

/// The settings that this file follows.
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
            backoff_ms: ms(config.job_backoff_s),
            processors_max: usize::try_from(config.job_processors_max).unwrap_or(usize::MAX),
        }
    }

    /// The wait after so many failed attempts.
    fn backoff_ms(&self, attempts: i64) -> i64 {
        /// No wait is longer than a day, however often it doubled.
        const BACKOFF_MS_MAX: u64 = 86_400_000;
        let first_ms = u64::try_from(self.backoff_ms).unwrap_or_default();
        let wait_ms = backoff(u64::try_from(attempts).unwrap_or_default(), first_ms, BACKOFF_MS_MAX.max(first_ms));
        i64::try_from(wait_ms).unwrap_or(i64::MAX)
    }
}

/// Queues the work on a new video.
pub fn queue(w: &Writer<'_>, video: i64, member: Option<MemberId>, organization: Option<OrganizationId>) -> Result<()> {
    let (steps, ready) = &*FIRST_STEPS;
    let queue = Queue { member, organization, ready: *ready };
    store::insert(w, JobId::new(), video, queue, steps)?;
    queue::enqueue(w, queue, w.now())
}

/// What all jobs begin with, as it is stored, and what of it is ready.
static FIRST_STEPS: LazyLock<(String, queue::Ready)> = LazyLock::new(|| {
    let steps = NEEDS.map(|(processor, _)| Step::new(processor));
    (json!(steps).to_string(), queue::ready(&steps))
});

/// Deletes the jobs of a video. Their workers get `job_not_found` at the next report.
pub fn forget_video(w: &Writer<'_>, video: &str) -> Result<()> {
    store::delete_of_video(w, video)
}

/// The jobs of a video follow it to another owner.
pub fn transfer(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    match store::set_owner(w, video, member, organization)? {
        Some((ready, run_at)) => queue::enqueue(w, Queue { member, organization, ready }, run_at),
        None => Ok(()),
    }
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    pub count: u64,
    /// Only jobs with something ready for one of these; `None` for all.
    pub processors: Option<Vec<Processor>>,
    pub lease_s: u64,
    /// Who asks.
    pub worker: String,
}

impl ClaimRequest {
    pub fn wanted(&self) -> Wanted {
        Wanted::new(self.processors.as_deref())
    }
}

/// Gives jobs to a worker, and deals with leases that ran out.
///
/// Members take turns: first comes whose last job was given out longest ago, and within a member the job whose time came
/// first. So a member with thousands of jobs holds nobody up.
pub fn claim(t: &Transaction<'_>, request: &ClaimRequest, rules: RetrySettings) -> Result<Changed<Vec<Job>>> {
    let expired = expire(t, rules)?;
    let claimed = queue::take(t, request)?;
    let claimed = claimed.into_iter().map(|id| store::get(t, id)).collect::<Result<Vec<Job>>>()?;
    let changed = claimed
        .iter()
        .fold(expired, |changed, job| changed.also(entry(job, json!({"state": "leased", "attempts": job.attempts}))));
    Ok(changed.map(|()| claimed))
}

/// Leases that ran out count as attempts, as of the moment when they ended: it does not matter who looks, and when.
pub fn expire(t: &Transaction<'_>, rules: RetrySettings) -> Result<Changed<()>> {
    /// The next look takes the rest. Each is a job and a row of the audit, and all who write wait for them.
    const AT_ONCE_MAX: u64 = 20;
    let mut changed = Changed::nothing(());
    for id in store::list_expired(t, AT_ONCE_MAX)? {
        let mut job = store::get(t, id)?;
        let ended_at = job.leased_until.unwrap_or(t.now());
        // Nobody holds it any more: a late word from its worker is not taken for a repeat.
        (job.leased_by, job.lease) = (None, None);
        let what =
            release_lease(t, &mut job, ended_at, "the lease expired without a heartbeat from the worker", rules, true)?;
        changed = recorded(changed, &job, what);
    }
    Ok(changed)
}

/// What became of a job that failed once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureOutcome {
    Queued,
    Dead,
}

fn recorded<T>(changed: Changed<T>, job: &Job, fate: FailureOutcome) -> Changed<T> {
    let entry = entry(job, json!({"state": job.state, "attempts": job.attempts}));
    changed.also(entry).event((fate == FailureOutcome::Dead).then(|| {
        let data = json!({
            "job": job.id, "video": job.video, "path": job.path, "attempts": job.attempts, "error": job.last_error,
        });
        Event::new(EventKind::JobDead, data).within(job.organization).about(job.member)
    }))
}

fn entry(job: &Job, after: Value) -> Entry {
    Entry::new("job", job.id).within(job.organization).after(after)
}

/// A failed attempt: the job waits for another one, or is dead. What is over stays over.
fn release_lease(
    t: &Transaction<'_>,
    job: &mut Job,
    at: Timestamp,
    why: &str,
    rules: RetrySettings,
    retry: bool,
) -> Result<FailureOutcome> {
    job.attempts = job.attempts.saturating_add(1);
    job.last_error = Some(why.to_owned());
    (job.leased_until, job.processors) = (None, None);
    let fate = if retry && job.attempts < rules.attempts_max { FailureOutcome::Queued } else { FailureOutcome::Dead };
    match fate {
        FailureOutcome::Queued => {
            job.run_at = at.plus_ms(rules.backoff_ms(job.attempts));
            "queued".clone_into(&mut job.state);
            restart(&mut job.steps);
        }
        FailureOutcome::Dead => {
            "dead".clone_into(&mut job.state);
            for step in job.steps.iter_mut().filter(|step| step.state == StepState::Running) {
                step.state = StepState::Failed;
                step.error.get_or_insert_with(|| why.to_owned());
            }
        }
    }
    save(t, job)?;
    Ok(fate)
}

/// What did not come to its end begins again.
fn restart(steps: &mut [Step]) {
    for step in steps.iter_mut().filter(|step| !step.state.is_over()) {
        *step = Step { state: StepState::Waiting, ..Step::new(step.processor) };
    }
    settle(steps);
}

/// Steps become ready whose needs are over.
fn settle(steps: &mut [Step]) {
    let over: Vec<Processor> = steps.iter().filter(|step| step.state.is_over()).map(|step| step.processor).collect();
    for step in steps.iter_mut().filter(|step| step.state == StepState::Waiting) {
        if step.processor.needs().iter().all(|need| over.contains(need)) {
            step.state = StepState::Ready;
        }
    }
}

fn save(t: &Transaction<'_>, job: &Job) -> Result<()> {
    let queue = job.queue();
    store::update(t, job, queue.ready)?;
    if job.state == "queued" { queue::enqueue(t, queue, job.run_at) } else { Ok(()) }
}

/// Who reports, on which job, and in whose reach it must be.
#[derive(Debug, Clone)]
pub struct LeaseHolder {
    pub job: JobId,
    pub worker: String,
    /// Tells leases apart where workers share a key.
    pub lease: Option<LeaseId>,
    pub reach: Reach,
}

impl LeaseHolder {
    fn find(&self, t: &Transaction<'_>) -> Result<Job> {
        let job = store::find(t, self.job)?.ok_or(ErrorCode::JobNotFound)?;
        let is_near = self.reach.organization().is_none_or(|only| job.organization == Some(only));
        if is_near { Ok(job) } else { Err(ErrorCode::JobNotFound.into()) }
    }

    /// Is it this worker's, or was it the last one's to have it?
    fn is_of(&self, job: &Job) -> bool {
        job.leased_by.as_ref() == Some(&self.worker) && self.lease.is_none_or(|lease| job.lease == Some(lease))
    }

    fn require(&self, job: &Job, now: Timestamp) -> Result<()> {
        let lives = job.state == "leased" && job.leased_until.is_some_and(|until| now < until);
        if lives && self.is_of(job) { Ok(()) } else { Err(ErrorCode::LeaseLost.into()) }
    }
}

/// The worker lives, and says how far it is. When that was the last step, the job is done.
pub fn heartbeat(
    t: &Transaction<'_>,
    holder: &LeaseHolder,
    reports: &[Report],
    rules: RetrySettings,
) -> Result<Changed<Job>> {
    let mut job = holder.find(t)?;
    if job.state == "done" && holder.is_of(&job) {
        return Ok(Changed::nothing(job));
    }
    holder.require(&job, t.now())?;
    take_reports(&mut job, reports, rules)?;
    if job.is_over() {
        return finish(t, job);
    }
    job.leased_until = Some(t.now().plus_ms(job.lease_s.saturating_mul(1_000)));
    save(t, &job)?;
    // A sign of life is no event for the audit: it comes all the time, and the job shows it.
    Ok(Changed::nothing(job))
}

fn take_reports(job: &mut Job, reports: &[Report], rules: RetrySettings) -> Result<()> {
    for report in reports {
        let word = report.processor.as_str();
        if !job.covers(report.processor) {
            return Err(
                Error::new(ErrorCode::StepState).with_message(format!("{word} was not claimed with this lease"))
            );
        }
        let Some(step) = job.steps.iter_mut().find(|step| step.processor == report.processor) else { continue };
        if step.state != report.state && !step.state.leads_to(report.state) {
            let (from, to) = (step.state.as_str(), report.state.as_str());
            let needs = step.processor.needs().iter().map(|need| need.as_str()).collect::<Vec<_>>().join(" and ");
            let why = if step.state == StepState::Waiting { format!(" for {needs}") } else { String::new() };
            return Err(
                Error::new(ErrorCode::StepState).with_message(format!("{word} is {from}{why}, and cannot become {to}"))
            );
        }
        step.state = report.state;
        step.progress_percent = match report.state {
            StepState::Completed | StepState::Skipped => 100,
            _ => report.progress_percent.unwrap_or(step.progress_percent),
        };
        step.error.clone_from(&report.error);
        settle(&mut job.steps);
    }
    let running = job.steps.iter().filter(|step| step.state == StepState::Running).count();
    if running > rules.processors_max { Err(ErrorCode::ProcessorsBusy.into()) } else { Ok(()) }
}

/// The worker has done its part: what it did not report as skipped is completed. What it did not claim waits for another
/// worker.
pub fn complete(t: &Transaction<'_>, holder: &LeaseHolder) -> Result<Changed<Job>> {
    let mut job = holder.find(t)?;
    let is_repeat = job.state != "leased" && job.last_error.is_none() && holder.is_of(&job);
    if is_repeat {
        return Ok(Changed::nothing(job));
    }
    holder.require(&job, t.now())?;
    if let Some(failed) = job.steps.iter().find(|step| step.state == StepState::Failed) {
        let message = format!("{} was reported as failed: fail the job instead", failed.processor.as_str());
        return Err(Error::new(ErrorCode::StepState).with_message(message));
    }
    let claimed = job.processors.take();
    for (processor, _) in NEEDS {
        // In the order of the table, so that what one needs is over before it.
        if claimed.as_ref().is_some_and(|claimed| !claimed.contains(&processor)) {
            continue;
        }
        if let Some(step) = job.steps.iter_mut().find(|step| step.processor == processor)
            && matches!(step.state, StepState::Ready | StepState::Running)
        {
            *step = Step { processor, state: StepState::Completed, progress_percent: 100, error: None };
        }
        settle(&mut job.steps);
    }
    finish(t, job)
}

/// Done, or back in the queue for what is left of it.
fn finish(t: &Transaction<'_>, mut job: Job) -> Result<Changed<Job>> {
    (job.leased_until, job.processors, job.last_error) = (None, None, None);
    if job.is_over() {
        "done".clone_into(&mut job.state);
    } else {
        // Work was done, so that the attempts before it do not count.
        (job.attempts, job.run_at) = (0, t.now());
        "queued".clone_into(&mut job.state);
    }
    save(t, &job)?;
    let entry = entry(&job, json!({"state": job.state}));
    Ok(Changed::new(store::get(t, job.id)?, entry))
}

/// The worker could not do it.
pub fn fail(
    t: &Transaction<'_>,
    holder: &LeaseHolder,
    why: &str,
    retry: bool,
    rules: RetrySettings,
) -> Result<Changed<Job>> {
    let mut job = holder.find(t)?;
    let is_repeat = matches!(job.state.as_str(), "queued" | "held" | "dead") && job.last_error.is_some();
    if is_repeat && holder.is_of(&job) {
        return Ok(Changed::nothing(job));
    }
    holder.require(&job, t.now())?;
    let fate = release_lease(t, &mut job, t.now(), why, rules, retry)?;
    let changed = recorded(Changed::nothing(()), &job, fate);
    let job = store::get(t, job.id)?;
    Ok(changed.map(|()| job))
}

/// A dead job gets all its attempts again.
pub fn retry(t: &Transaction<'_>, reach: Reach, id: JobId) -> Result<Changed<Job>> {
    let mut job = LeaseHolder { job: id, worker: String::new(), lease: None, reach }.find(t)?;
    if job.state != "dead" {
        return Err(ErrorCode::JobNotDead.into());
    }
    (job.attempts, job.run_at, job.leased_by, job.lease) = (0, t.now(), None, None);
    "queued".clone_into(&mut job.state);
    restart(&mut job.steps);
    save(t, &job)?;
    let entry = entry(&job, json!({"state": "queued", "attempts": 0}));
    Ok(Changed::new(store::get(t, id)?, entry))
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub organization: Option<OrganizationId>,
    pub member: Option<MemberId>,
    pub state: Option<&'static str>,
    pub video: Option<String>,
    /// Only those where this is not over.
    pub processor: Option<&'static str>,
}

/// Counts attempts of leases that ran out while nobody claimed anything, and opens what an organization that is active
/// again has left. Called often: mostly it reads two indexes. In pieces, between which others write.
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

/// Forgets jobs that were done long ago.
pub async fn forget_done(app: &App) -> Result<()> {
    let keep_ms = ms(app.config.job_keep_s);
    app.write_in_batches(move |w, most| store::delete_done(w, w.now().plus_ms(-keep_ms), most)).await.map(drop)
}

/// What changes here with what others change.
pub fn react(t: &Transaction<'_>, what: &Occurrence<'_>) -> Result<Vec<Change>> {
    match what {
        // Workers may take their jobs again.
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
    fn needs_stand_before_what_needs_them() {
        for (n, (processor, needs)) in NEEDS.into_iter().enumerate() {
            assert!(needs.iter().all(|need| NEEDS[..n].iter().any(|(earlier, _)| earlier == need)), "{processor:?}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_day() {
        let rules = RetrySettings { attempts_max: 5, backoff_ms: 30_000, processors_max: 2 };
        assert_eq!([1, 2, 3, 4].map(|n| rules.backoff_ms(n)), [30_000, 60_000, 120_000, 240_000]);
        assert_eq!([13, 1_000, i64::MAX].map(|n| rules.backoff_ms(n)), [86_400_000; 3]);
        assert_eq!(RetrySettings { backoff_ms: 0, ..rules }.backoff_ms(9), 0);
    }
}
