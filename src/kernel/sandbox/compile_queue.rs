//! The fair queue of the compiler. It compiles one component at a time; the next one is of the organization that has
//! used the least compile time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::kernel::ids::OrganizationId;

/// The queue of components to compile.
pub(super) struct CompileQueue {
    state: Arc<Mutex<State>>,
    uploads_max: usize,
    uploads_per_organization: usize,
}

#[derive(Default)]
struct State {
    is_busy: bool,
    waiting: Vec<Waiting>,
    /// The number of uploads that wait or are being compiled.
    uploads: HashMap<OrganizationId, usize>,
    /// The compile time that each organization has used. An organization that was idle starts at `now`, so that idle
    /// time is not saved up.
    worked: HashMap<OrganizationId, Duration>,
    /// The used compile time of the organization that was served last, at that moment.
    now: Duration,
}

struct Waiting {
    organization: OrganizationId,
    /// Whether the component is stored and must be compiled again; it precedes uploads of the same organization.
    is_stored: bool,
    sender: oneshot::Sender<CompilePermit>,
}

impl CompileQueue {
    pub(super) fn new(uploads_max: usize, uploads_per_organization: usize) -> Self {
        Self { state: Arc::default(), uploads_max, uploads_per_organization }
    }

    /// Takes a slot for an upload; `None` if there are too many uploads, of this organization or of the site.
    pub(super) fn admit_upload(&self, organization: OrganizationId) -> Option<UploadSlot> {
        let mut state = locked(&self.state);
        let own = state.uploads.get(&organization).copied().unwrap_or_default();
        if own >= self.uploads_per_organization || state.uploads.values().sum::<usize>() >= self.uploads_max {
            return None;
        }
        state.uploads.insert(organization, own + 1);
        Some(UploadSlot { state: self.state.clone(), organization })
    }

    /// Waits for the compiler, which is in use until the permit is dropped. Never `None` while the queue exists.
    pub(super) async fn acquire(&self, organization: OrganizationId, is_stored: bool) -> Option<CompilePermit> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = locked(&self.state);
            state.enqueue(Waiting { organization, is_stored, sender });
        }
        dispatch(&self.state);
        receiver.await.ok()
    }
}

/// The slot of an upload; dropping it frees the slot.
pub(super) struct UploadSlot {
    state: Arc<Mutex<State>>,
    organization: OrganizationId,
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        if let Some(own) = state.uploads.get_mut(&self.organization) {
            *own -= 1;
            if *own == 0 {
                state.uploads.remove(&self.organization);
            }
        }
    }
}

/// The right to compile one component; dropping it returns the right.
pub(super) struct CompilePermit {
    state: Arc<Mutex<State>>,
    organization: OrganizationId,
    began: Instant,
}

impl Drop for CompilePermit {
    fn drop(&mut self) {
        locked(&self.state).done(self.organization, self.began.elapsed());
        dispatch(&self.state);
    }
}

/// Serves the next waiting component, if the compiler is free.
fn dispatch(state: &Arc<Mutex<State>>) {
    let Some(next) = locked(state).next() else { return };
    let permit = CompilePermit { state: state.clone(), organization: next.organization, began: Instant::now() };
    // If the receiver was dropped, the permit is dropped here, and its `drop` serves the next one.
    drop(next.sender.send(permit));
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn enqueue(&mut self, waiting: Waiting) {
        let now = self.now;
        let worked = self.worked.entry(waiting.organization).or_default();
        *worked = (*worked).max(now);
        self.waiting.push(waiting);
    }

    /// Removes and returns the next waiting component, if the compiler is free.
    fn next(&mut self) -> Option<Waiting> {
        if self.is_busy {
            return None;
        }
        let worked = |waiting: &Waiting| self.worked.get(&waiting.organization).copied().unwrap_or_default();
        let keys = self.waiting.iter().map(|waiting| (worked(waiting), !waiting.is_stored));
        let (at, (had, _)) = keys.enumerate().min_by_key(|(at, key)| (*key, *at))?;
        let next = self.waiting.remove(at);
        self.is_busy = true;
        self.now = had;
        // An entry that is not above `now` has the effect of no entry.
        let is_waiting =
            |organization: &OrganizationId| self.waiting.iter().any(|one| one.organization == *organization);
        let now = self.now;
        let stays: Vec<_> = self.worked.keys().filter(|o| is_waiting(o)).copied().collect();
        self.worked.retain(|organization, worked| *worked > now || stays.contains(organization));
        Some(next)
    }

    fn done(&mut self, organization: OrganizationId, took: Duration) {
        self.is_busy = false;
        let worked = self.worked.entry(organization).or_insert(self.now);
        *worked += took;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    fn organizations<const N: usize>() -> [OrganizationId; N] {
        [0; N].map(|_| OrganizationId::new())
    }

    /// Serves all waiting components, each for its seconds; returns the order.
    fn order(state: &mut State, seconds: impl Fn(OrganizationId) -> u64) -> Vec<OrganizationId> {
        let mut order = Vec::new();
        while let Some(next) = state.next() {
            order.push(next.organization);
            state.done(next.organization, Duration::from_secs(seconds(next.organization)));
        }
        order
    }

    fn enqueue(state: &mut State, organization: OrganizationId, is_stored: bool) {
        state.enqueue(Waiting { organization, is_stored, sender: oneshot::channel().0 });
    }

    #[test]
    fn the_organization_with_the_least_compile_time_is_served_first() {
        let [bomber, small, late] = organizations();
        let seconds = |organization| if organization == bomber { 20 } else { 1 };
        let mut state = State::default();
        for organization in [bomber, bomber, bomber, small, small, small] {
            enqueue(&mut state, organization, false);
        }
        assert_eq!(order(&mut state, seconds), [bomber, small, small, small, bomber, bomber]);
        // Idle time is not saved up: a late organization does not precede the others for all the time that they used.
        enqueue(&mut state, bomber, false);
        for _ in 0..3 {
            enqueue(&mut state, late, false);
        }
        assert_eq!(order(&mut state, seconds), [late, late, late, bomber]);
        enqueue(&mut state, late, false);
        enqueue(&mut state, bomber, false);
        assert_eq!(order(&mut state, seconds), [late, bomber]);
    }

    #[test]
    fn a_stored_component_precedes_only_uploads_of_the_same_organization() {
        let [acme, bolt] = organizations();
        let mut state = State::default();
        for (organization, is_stored) in [(bolt, false), (acme, false), (acme, true)] {
            enqueue(&mut state, organization, is_stored);
        }
        let mut order = Vec::new();
        while let Some(next) = state.next() {
            order.push((next.organization, next.is_stored));
            state.done(next.organization, Duration::from_secs(1));
        }
        assert_eq!(order, [(acme, true), (bolt, false), (acme, false)]);
        assert!(state.worked.len() <= 2);
    }

    #[test]
    fn uploads_are_limited_per_organization_and_in_total() {
        let queue = CompileQueue::new(3, 2);
        let [acme, bolt, core] = organizations();
        let first = queue.admit_upload(acme).expect("a slot");
        let _second = queue.admit_upload(acme).expect("a slot");
        assert!(queue.admit_upload(acme).is_none(), "two of one");
        let _third = queue.admit_upload(bolt).expect("a slot");
        assert!(queue.admit_upload(core).is_none(), "three of all");
        drop(first);
        assert!(queue.admit_upload(core).is_some());
    }

    #[tokio::test]
    async fn the_permit_of_a_dropped_waiter_goes_to_the_next() {
        let queue = CompileQueue::new(9, 9);
        let [acme, bolt, core] = organizations();
        let held = queue.acquire(acme, false).await.expect("free");
        let mut dropped = Box::pin(queue.acquire(bolt, false));
        let mut next = Box::pin(queue.acquire(core, false));
        assert!(poll!(&mut dropped).is_pending() && poll!(&mut next).is_pending());
        drop(dropped);
        drop(held);
        let permit = next.await.expect("a permit");
        // The permit is sent to a waiter that is dropped before it takes it.
        let mut waiting = Box::pin(queue.acquire(bolt, false));
        let mut last = Box::pin(queue.acquire(core, false));
        assert!(poll!(&mut waiting).is_pending() && poll!(&mut last).is_pending());
        drop(permit);
        drop(waiting);
        assert!(last.await.is_some());
    }
}
