//! Selects the next job for a worker through indexes, without a scan.
//!
//! A queue holds the queued jobs of one member in one organization that have the same set of ready processors. A claim
//! selects a queue through an index on (`turn`, `since`), and the first job of that queue through another index.
//!
//! **Invariant.** Every queued job has a queue row, and no job is due before the `since` of its queue. The reverse does
//! not hold: a queue row can be stale because its jobs were deleted with their videos or its member was suspended. A
//! claim that finds a stale queue corrects it, so this happens once per queue; suspending and deleting write nothing
//! here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use crate::features::jobs::{ClaimRequest, Job, Processor, RetrySettings, Step, StepState, store};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};

/// A set of processors as a bit mask, as stored in the column `ready`.
pub type Ready = i64;

fn bit(processor: Processor) -> Ready {
    1 << processor as u32
}

/// Returns the set of processors whose steps are ready.
pub fn ready(steps: &[Step]) -> Ready {
    steps.iter().filter(|step| step.state == StepState::Ready).fold(0, |set, step| set | bit(step.processor))
}

/// The key of a queue: member, organization and ready processors. Member and organization are optional, and the set of
/// ready processors can be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    pub member: Option<MemberId>,
    pub organization: Option<OrganizationId>,
    pub ready: Ready,
}

/// Why no job of a queue can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutState {
    /// The member is not active.
    Held,
    /// The organization is not active.
    Closed,
}

impl ShutState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Closed => "closed",
        }
    }
}

/// The jobs that a worker can take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessorFilter {
    /// At least one of these processors must be ready; `None` accepts any.
    processors: Option<Ready>,
}

impl ProcessorFilter {
    pub fn new(processors: Option<&[Processor]>) -> Self {
        let set = |processors: &[Processor]| processors.iter().fold(0, |set, processor| set | bit(*processor));
        Self { processors: processors.map(set) }
    }

    /// Returns the sets of ready processors of all open queues that this worker can take jobs from.
    fn list_ready(&self, r: &Reader<'_>) -> Result<Vec<Ready>> {
        let mut found = store::list_ready(r)?;
        found.retain(|ready| self.processors.is_none_or(|wanted| ready & wanted != 0));
        Ok(found)
    }
}

/// Whether a claim can find a job, or correct a queue or lease that hides one. Checked before the writer is used.
pub fn has_candidates(r: &Reader<'_>, wanted: &ProcessorFilter) -> Result<bool> {
    Ok(store::has_due(r, Timestamp::now())? || !wanted.list_ready(r)?.is_empty())
}

/// Leases the next jobs to a worker.
pub fn lease_next(t: &Transaction<'_>, request: &ClaimRequest) -> Result<Vec<JobId>> {
    /// Stale queues that one claim corrects at most. The next claim continues from there.
    const STALE_QUEUES_MAX: u64 = 50;
    store::open_due(t, STALE_QUEUES_MAX)?;
    let (mut taken, mut stale) = (Vec::new(), 0);
    while (taken.len() as u64) < request.count && stale < STALE_QUEUES_MAX {
        let Some(front) = find_front(t, &request.wanted())? else { break };
        let rank = i64::try_from(taken.len()).unwrap_or(i64::MAX);
        match take_first(t, &front, request, rank)? {
            Some(job) => taken.push(job),
            None => stale += 1,
        }
    }
    Ok(taken)
}

/// Finds the next queue: the member whose last job was leased longest ago comes first, then the job that was due first.
fn find_front(r: &Reader<'_>, wanted: &ProcessorFilter) -> Result<Option<store::NextQueue>> {
    let mut best: Option<store::NextQueue> = None;
    for ready in wanted.list_ready(r)? {
        if let Some(front) = store::find_front(r, ready)?
            && best.as_ref().is_none_or(|best| (front.turn, front.since) < (best.turn, best.since))
        {
            best = Some(front);
        }
    }
    Ok(best)
}

/// Leases the first job of a queue, or corrects the state of a stale queue.
fn take_first(
    t: &Transaction<'_>,
    front: &store::NextQueue,
    request: &ClaimRequest,
    rank: i64,
) -> Result<Option<JobId>> {
    const TURNS_PER_MS: i64 = 1_000;
    let queue = front.queue;
    if !front.is_organization_active {
        return store::shut(t, queue, ShutState::Closed).map(|()| None);
    }
    if !front.is_member_active {
        return store::shut(t, queue, ShutState::Held).map(|()| None);
    }
    let mut jobs = store::list_first(t, queue)?.into_iter();
    let first = jobs.next();
    let Some((video, _)) = first.filter(|(_, run_at)| *run_at <= t.now()) else {
        return store::set_next_due(t, queue, first.map(|(_, run_at)| run_at)).map(|()| None);
    };
    let job = store::lease(t, video, LeaseId::new(), request)?;
    store::set_next_due(t, queue, jobs.next().map(|(_, run_at)| run_at))?;
    store::set_turn(t, queue.member, t.now().0.saturating_mul(TURNS_PER_MS).saturating_add(rank))?;
    Ok(Some(job))
}

/// Reopens the held queues of a member who is active again.
pub fn release_member(w: &Writer<'_>, member: MemberId) -> Result<()> {
    store::reopen_held(w, member)
}

/// Reopens the closed queues of an organization that is active again. Returns whether some can remain;
/// [`super::maintain`] opens those soon after.
pub fn release_organization(w: &Writer<'_>, organization: OrganizationId) -> Result<bool> {
    /// Takes about two milliseconds of writer time.
    const CONCURRENT_MAX: u64 = 500;
    Ok(store::reopen_closed(w, organization, CONCURRENT_MAX)? as u64 == CONCURRENT_MAX)
}

/// Lists active organizations that still have closed queues.
pub fn list_unreleased(r: &Reader<'_>) -> Result<Vec<OrganizationId>> {
    store::list_stale_closed(r)
}

// ── waiting workers ──

// Job claims, including those that wait for a job to become ready.
//
// **Invariant.** A claim that finds nothing does not use the writer: a read decides that first. Of the workers that
// wait for the same set of processors, only the first polls and the others queue behind it, so a job that becomes
// ready wakes one worker. Jobs need not be announced: the polling worker looks after every commit and when a back-off
// or a lease ends.

/// Fails unless the caller can claim jobs. Checked again each time a waiting worker looks for jobs.
fn require_worker(snapshot: &Snapshot, caller: &Identity) -> Result<()> {
    authz::require(snapshot, &caller.as_of(snapshot, Timestamp::now())?, Permission::JOB_CLAIM).map(drop)
}

type WaitLine = tokio::sync::Mutex<()>;

/// The workers that wait for a job.
pub struct WaitingWorkers {
    permits: Semaphore,
    per_party_max: u64,
    /// The number of waiting workers of each program or organization.
    counts: Mutex<HashMap<String, u64>>,
    /// One line per set of wanted processors, kept while a worker waits in it.
    lines: Mutex<HashMap<ProcessorFilter, Weak<WaitLine>>>,
}

impl WaitingWorkers {
    pub fn new(config: &Config) -> Self {
        let permits = usize::try_from(config.job_waiting_max).unwrap_or(Semaphore::MAX_PERMITS);
        let per_party_max = config.job_waiting_each_max;
        Self { permits: Semaphore::new(permits), per_party_max, counts: Mutex::default(), lines: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the line for a set of wanted processors, and the number of lines.
    fn line(&self, wanted: ProcessorFilter) -> (Arc<WaitLine>, u32) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        let line = lines.get(&wanted).and_then(Weak::upgrade).unwrap_or_default();
        lines.insert(wanted, Arc::downgrade(&line));
        (line, u32::try_from(lines.len()).unwrap_or(u32::MAX))
    }
}

/// A waiting worker, counted in the metrics until it is dropped.
struct WaitingWorker<'a> {
    app: &'a App,
    waiting: &'a WaitingWorkers,
    party: String,
    _permit: SemaphorePermit<'a>,
}

impl<'a> WaitingWorker<'a> {
    fn register(app: &'a App, waiting: &'a WaitingWorkers, caller: &Identity) -> Result<Self> {
        let busy =
            || Error::new(ErrorCode::Busy).with_message("too many workers wait for a job: try again").retry_after(1);
        let permit = waiting.permits.try_acquire().map_err(|_| busy())?;
        let party = caller.context.party(&app.snapshot()).unwrap_or_default();
        let mut counts = waiting.counts();
        let count = counts.entry(party.clone()).or_default();
        if *count >= waiting.per_party_max {
            return Err(busy().with_source("jobs.waiting_per_caller"));
        }
        *count += 1;
        app.metrics.jobs_waiting.inc();
        Ok(Self { app, waiting, party, _permit: permit })
    }
}

impl Drop for WaitingWorker<'_> {
    fn drop(&mut self) {
        let mut counts = self.waiting.counts();
        if let Some(count) = counts.get_mut(&self.party) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.party);
            }
        }
        self.app.metrics.jobs_waiting.dec();
    }
}

/// Leases jobs to a worker; waits up to `wait` if there are none. Fails with `busy` when too many workers wait.
pub async fn claim(
    app: &App,
    waiting: &WaitingWorkers,
    caller: &Identity,
    request: &ClaimRequest,
    wait: Duration,
) -> Result<Vec<Job>> {
    let claimed = claim_now(app, caller, request).await?;
    if !claimed.is_empty() || wait.is_zero() {
        return Ok(claimed);
    }
    let _registered = WaitingWorker::register(app, waiting, caller)?;
    let ends_at = Instant::now() + wait;
    let ended = async {
        tokio::select! {
            () = sleep_until(ends_at) => {}
            () = app.stopped() => {}
        }
    };
    tokio::pin!(ended);
    let (line, lines) = waiting.line(request.wanted());
    let _first = tokio::select! {
        first = line.lock() => first,
        () = &mut ended => return Ok(Vec::new()),
    };
    // The pause grows with the number of queues, so that the total polling rate stays constant.
    let poll_pause = POLL_INTERVAL.saturating_mul(lines);
    loop {
        let commit = app.next_commit();
        tokio::pin!(commit);
        // Enabled before the read, so no commit after it is missed.
        commit.as_mut().enable();
        let claimed = claim_now(app, caller, request).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        let due = app.read(store::next_due).await?;
        tokio::select! {
            () = commit => {}
            () = until(due) => {}
            () = &mut ended => return Ok(Vec::new()),
        }
        sleep(poll_pause).await;
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(5);

async fn until(due: Option<Timestamp>) {
    match due {
        Some(due) => {
            let wait_ms = due.0.saturating_sub(Timestamp::now().0).max(0);
            sleep(Duration::from_millis(wait_ms.cast_unsigned())).await;
        }
        None => std::future::pending().await,
    }
}

async fn claim_now(app: &App, caller: &Identity, request: &ClaimRequest) -> Result<Vec<Job>> {
    /// A claim can find nothing although the read did: it corrected a stale queue, or other workers were faster.
    const ROUNDS_MAX: usize = 100;
    let rules = RetrySettings::from_config(&app.config);
    for _ in 0..ROUNDS_MAX {
        require_worker(&app.snapshot(), caller)?;
        let wanted = request.wanted();
        if !app.read(move |r| has_candidates(r, &wanted)).await? {
            break;
        }
        let request = request.clone();
        let claim = move |t: &Transaction<'_>, caller: &Identity| {
            require_worker(t.snapshot(), caller)?;
            super::claim(t, &request, rules)
        };
        let claimed = app.change(caller, "job.claim", claim).await?.answer;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::super::DEPENDENCIES;
    use super::*;

    #[test]
    fn each_processor_has_the_bit_that_the_schema_documents() {
        assert_eq!(
            DEPENDENCIES.map(|(processor, _)| (processor.as_str(), bit(processor))),
            [("asr", 1), ("cut", 2), ("yolo", 4), ("ocr", 8), ("face", 16), ("pose", 32)]
        );
    }
}
