//! Selects the next job for a worker by index, without a scan.
//!
//! A queue holds what one member has in one organization with the same set of processors ready. Claims choose among
//! queues, by an index in the order of turns; the first job of a queue is found by another.
//!
//! **Invariant.** A queued job never lacks its queue, and no job is due before its queue says so. The other way round a
//! queue may promise more than there is: its jobs went with their videos, or its member was suspended. A claim that
//! meets such a queue puts it right, so that nobody meets it twice; suspending and deleting write nothing here.

use super::queue_store as store;
use super::{ClaimRequest, Processor, Step, StepState};
use crate::kernel::app::Transaction;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::{JobId, LeaseId, MemberId, OrganizationId, Timestamp};

/// A set of processors, as the column `ready` has it.
pub type Ready = i64;

fn bit(processor: Processor) -> Ready {
    1 << processor as u32
}

/// The processors whose steps are ready.
pub fn ready(steps: &[Step]) -> Ready {
    steps.iter().filter(|step| step.state == StepState::Ready).fold(0, |set, step| set | bit(step.processor))
}

/// What one member has in one organization with these processors ready; all but the last may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    pub member: Option<MemberId>,
    pub organization: Option<OrganizationId>,
    pub ready: Ready,
}

/// What a worker can take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// At least one of these is ready; none for whatever is.
    processors: Option<Ready>,
}

impl Wanted {
    pub fn new(processors: Option<&[Processor]>) -> Self {
        let set = |processors: &[Processor]| processors.iter().fold(0, |set, processor| set | bit(*processor));
        Self { processors: processors.map(set) }
    }

    /// The sets of ready processors that queues for this worker have.
    fn list_ready(&self, r: &Reader<'_>) -> Result<Vec<Ready>> {
        let mut found = store::list_ready(r)?;
        found.retain(|ready| self.processors.is_none_or(|wanted| ready & wanted != 0));
        Ok(found)
    }
}

/// May a claim find something, or put something right that could keep it from finding it? Asked before the writer is.
pub fn may_find(r: &Reader<'_>, wanted: &Wanted) -> Result<bool> {
    Ok(store::has_due(r, Timestamp::now())? || !wanted.list_ready(r)?.is_empty())
}

/// When something becomes ready by itself: a wait or a lease ends.
pub fn next_due(r: &Reader<'_>) -> Result<Option<Timestamp>> {
    store::next_due(r)
}

pub fn enqueue(w: &Writer<'_>, queue: Queue, since: Timestamp) -> Result<()> {
    store::enqueue(w, queue, since)
}

/// Gives the jobs whose turn it is to a worker.
pub fn take(t: &Transaction<'_>, request: &ClaimRequest) -> Result<Vec<JobId>> {
    /// Queues of one claim that may turn out to hold nothing for it. The next one goes on from there.
    const VAIN_LOOKS_MAX: u64 = 50;
    store::open_due(t, VAIN_LOOKS_MAX)?;
    let (mut taken, mut vain) = (Vec::new(), 0);
    while (taken.len() as u64) < request.count && vain < VAIN_LOOKS_MAX {
        let Some(front) = find_front(t, &request.wanted())? else { break };
        let rank = i64::try_from(taken.len()).unwrap_or(i64::MAX);
        match take_first(t, &front, request, rank)? {
            Some(job) => taken.push(job),
            None => vain += 1,
        }
    }
    Ok(taken)
}

/// Whose turn it is: first comes the member whose last job was given out longest ago, then the job that was due first.
fn find_front(r: &Reader<'_>, wanted: &Wanted) -> Result<Option<store::Front>> {
    let mut best: Option<store::Front> = None;
    for ready in wanted.list_ready(r)? {
        if let Some(front) = store::find_front(r, ready)?
            && best.as_ref().is_none_or(|best| (front.turn, front.since) < (best.turn, best.since))
        {
            best = Some(front);
        }
    }
    Ok(best)
}

/// Takes a queue's first job, or puts the queue where it belongs.
fn take_first(t: &Transaction<'_>, front: &store::Front, request: &ClaimRequest, rank: i64) -> Result<Option<JobId>> {
    const TURNS_PER_MS: i64 = 1_000;
    let queue = front.queue;
    if !front.is_organization_active {
        return store::shut(t, queue, "closed").map(|()| None);
    }
    if !front.is_member_active {
        return store::shut(t, queue, "held").map(|()| None);
    }
    let mut jobs = store::list_first(t, queue)?.into_iter();
    let first = jobs.next();
    let Some((video, _)) = first.filter(|(_, run_at)| *run_at <= t.now()) else {
        return store::set_rest(t, queue, first.map(|(_, run_at)| run_at)).map(|()| None);
    };
    let job = store::lease(t, video, LeaseId::new(), request)?;
    store::set_rest(t, queue, jobs.next().map(|(_, run_at)| run_at))?;
    store::set_turn(t, queue.member, t.now().0.saturating_mul(TURNS_PER_MS).saturating_add(rank))?;
    Ok(Some(job))
}

/// The member is active again: what is held for it is not any more.
pub fn release_member(w: &Writer<'_>, member: MemberId) -> Result<()> {
    store::open_held(w, member)
}

/// The organization is active again. What does not fit into one change is opened soon after by [`super::maintain`].
pub fn release_organization(w: &Writer<'_>, organization: OrganizationId) -> Result<bool> {
    /// About two milliseconds of the writer.
    const AT_ONCE_MAX: u64 = 500;
    Ok(store::open_closed(w, organization, AT_ONCE_MAX)? as u64 == AT_ONCE_MAX)
}

/// Organizations that are active again and have queues that are still closed.
pub fn list_unreleased(r: &Reader<'_>) -> Result<Vec<OrganizationId>> {
    store::list_wrongly_closed(r)
}

#[cfg(test)]
mod tests {
    use super::super::NEEDS;
    use super::*;

    #[test]
    fn a_set_has_one_bit_for_each_processor_as_the_schema_says() {
        assert_eq!(
            NEEDS.map(|(processor, _)| (processor.as_str(), bit(processor))),
            [("asr", 1), ("cut", 2), ("yolo", 4), ("ocr", 8), ("face", 16), ("pose", 32)]
        );
    }
}
