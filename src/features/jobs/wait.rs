//! Claims, and workers that wait for a job.
//!
//! **Invariant.** A claim that finds nothing does not enter the writer: a reader knows that there is nothing. Of the
//! workers that wait for the same, one watches and the others stand in line behind it, so that a job that becomes ready
//! wakes one of them. Nobody has to announce a job: who watches looks after each commit, and when a wait or a lease ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use super::queue::{self, Wanted};
use super::{ClaimRequest, Job, RetrySettings};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;

/// May the caller take jobs? Looked at anew whenever a worker that waits looks for one.
fn require_worker(snapshot: &Snapshot, caller: &Identity) -> Result<()> {
    authz::require(snapshot, &caller.as_of(snapshot, Timestamp::now())?, Permission::JOB_CLAIM).map(drop)
}

type WaitLine = tokio::sync::Mutex<()>;

/// The workers that wait.
pub struct WaitingWorkers {
    permits: Semaphore,
    each_max: u64,
    /// How many each program or organization has.
    of: Mutex<HashMap<String, u64>>,
    /// One queue per set of wanted processors, while a worker waits in it.
    lines: Mutex<HashMap<Wanted, Weak<WaitLine>>>,
}

impl WaitingWorkers {
    pub fn new(config: &Config) -> Self {
        let permits = usize::try_from(config.job_waiting_max).unwrap_or(Semaphore::MAX_PERMITS);
        let each_max = config.job_waiting_each_max;
        Self { permits: Semaphore::new(permits), each_max, of: Mutex::default(), lines: Mutex::default() }
    }

    fn of(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line of those who want the same, and how many lines there are.
    fn line(&self, wanted: Wanted) -> (Arc<WaitLine>, u32) {
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
    fn take(app: &'a App, waiting: &'a WaitingWorkers, caller: &Identity) -> Result<Self> {
        let busy =
            || Error::new(ErrorCode::Busy).with_message("too many workers wait for a job: try again").retry_after(1);
        let permit = waiting.permits.try_acquire().map_err(|_| busy())?;
        let party = caller.context.party(&app.snapshot()).unwrap_or_default();
        let mut of = waiting.of();
        let count = of.entry(party.clone()).or_default();
        if *count >= waiting.each_max {
            return Err(busy().with_source("jobs.waiting_per_caller"));
        }
        *count += 1;
        app.metrics.jobs_waiting.inc();
        Ok(Self { app, waiting, party, _permit: permit })
    }
}

impl Drop for WaitingWorker<'_> {
    fn drop(&mut self) {
        let mut of = self.waiting.of();
        if let Some(count) = of.get_mut(&self.party) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.party);
            }
        }
        self.app.metrics.jobs_waiting.dec();
    }
}

/// Gives jobs to a worker; where there are none, waits so long for some.
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
    let _seat = WaitingWorker::take(app, waiting, caller)?;
    let ends_at = Instant::now() + wait;
    let over = async {
        tokio::select! {
            () = sleep_until(ends_at) => {}
            () = app.stopped() => {}
        }
    };
    tokio::pin!(over);
    let (line, lines) = waiting.line(request.wanted());
    let _first = tokio::select! {
        first = line.lock() => first,
        () = &mut over => return Ok(Vec::new()),
    };
    // The pause grows with the number of queues, so that the total polling rate stays constant.
    let pause = LOOK_EVERY.saturating_mul(lines);
    loop {
        let commit = app.next_commit();
        tokio::pin!(commit);
        // From here on, so that none is missed.
        commit.as_mut().enable();
        let claimed = claim_now(app, caller, request).await?;
        if !claimed.is_empty() {
            return Ok(claimed);
        }
        let due = app.read(queue::next_due).await?;
        tokio::select! {
            () = commit => {}
            () = until(due) => {}
            () = &mut over => return Ok(Vec::new()),
        }
        sleep(pause).await;
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    /// A claim that finds nothing where there seemed to be something has put that right, or others were quicker.
    const ROUNDS_MAX: usize = 100;
    let rules = RetrySettings::from_config(&app.config);
    for _ in 0..ROUNDS_MAX {
        require_worker(&app.snapshot(), caller)?;
        let wanted = request.wanted();
        if !app.read(move |r| queue::may_find(r, &wanted)).await? {
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
