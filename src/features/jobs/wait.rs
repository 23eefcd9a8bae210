//! Job claims, including those that wait for a job to become ready.
//!
//! **Invariant.** A claim that finds nothing does not use the writer: a read decides that first. Of the workers that
//! wait for the same set of processors, only the first polls and the others queue behind it, so a job that becomes
//! ready wakes one worker. Jobs need not be announced: the polling worker looks after every commit and when a back-off
//! or a lease ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use super::queue::{self, ProcessorFilter};
use super::{ClaimRequest, Job, RetrySettings};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

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
        let due = app.read(queue::next_due).await?;
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
        if !app.read(move |r| queue::has_candidates(r, &wanted)).await? {
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
