//! Selects the next job for a worker through indexes, without a scan.
//!
//! A queue holds the queued jobs of one member in one organization that have the same set of ready processors. A claim
//! selects a queue through an index on (`turn`, `since`), and the first job of that queue through another index.
//!
//! **Invariant.** Every queued job has a queue row, and no job is due before the `since` of its queue. The reverse does
//! not hold: a queue row can be stale because its jobs were deleted with their videos or its member was suspended. A
//! claim that finds a stale queue corrects it, so this happens once per queue; suspending and deleting write nothing
//! here.

use super::queue_store as store;
use super::{ClaimRequest, Processor, Step, StepState};
use crate::kernel::app::Transaction;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
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

/// Returns when the next back-off or lease ends, after which a job can become ready.
pub fn next_due(r: &Reader<'_>) -> Result<Option<Timestamp>> {
    store::next_due(r)
}

pub fn enqueue(w: &Writer<'_>, queue: Queue, since: Timestamp) -> Result<()> {
    store::enqueue(w, queue, since)
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
        return store::set_state(t, queue, "closed").map(|()| None);
    }
    if !front.is_member_active {
        return store::set_state(t, queue, "held").map(|()| None);
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
