//! Whose component is compiled next. The compiler takes one at a time, and organizations take turns by the time that it
//! worked for them: who had it for long waits for those who had it for less.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::kernel::ids::OrganizationId;

/// The queue before the compiler.
pub(super) struct CompileQueue {
    state: Arc<Mutex<State>>,
    uploads_max: usize,
    uploads_per_organization: usize,
}

#[derive(Default)]
struct State {
    is_busy: bool,
    waiting: Vec<Waiting>,
    /// Uploads that wait or are being compiled.
    uploads: HashMap<OrganizationId, usize>,
    /// What the compiler has worked for each organization. Who comes back after a rest begins at `now`.
    worked: HashMap<OrganizationId, Duration>,
    /// What the organization that is compiled for had when it got its turn.
    now: Duration,
}

struct Waiting {
    organization: OrganizationId,
    /// It was admitted before and is needed again: before the uploads of the same organization.
    is_stored: bool,
    turn: oneshot::Sender<CompilePermit>,
}

impl CompileQueue {
    pub(super) fn new(uploads_max: usize, uploads_per_organization: usize) -> Self {
        Self { state: Arc::default(), uploads_max, uploads_per_organization }
    }

    /// A place for an upload; none when there are too many, of this organization or of all.
    pub(super) fn enter(&self, organization: OrganizationId) -> Option<Place> {
        let mut state = locked(&self.state);
        let own = state.uploads.get(&organization).copied().unwrap_or_default();
        if own >= self.uploads_per_organization || state.uploads.values().sum::<usize>() >= self.uploads_max {
            return None;
        }
        state.uploads.insert(organization, own + 1);
        Some(Place { state: self.state.clone(), organization })
    }

    /// Waits for the compiler. It is kept as long as the answer is; `None` does not happen while the queue is there.
    pub(super) async fn turn(&self, organization: OrganizationId, is_stored: bool) -> Option<CompilePermit> {
        let (turn, given) = oneshot::channel();
        {
            let mut state = locked(&self.state);
            state.arrive(Waiting { organization, is_stored, turn });
        }
        pass_on(&self.state);
        given.await.ok()
    }
}

/// A place of an upload in the queue.
pub(super) struct Place {
    state: Arc<Mutex<State>>,
    organization: OrganizationId,
}

impl Drop for Place {
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

/// The compiler, for one component.
pub(super) struct CompilePermit {
    state: Arc<Mutex<State>>,
    organization: OrganizationId,
    began: Instant,
}

impl Drop for CompilePermit {
    fn drop(&mut self) {
        locked(&self.state).done(self.organization, self.began.elapsed());
        pass_on(&self.state);
    }
}

/// Gives the compiler to who is next, if it is free.
fn pass_on(state: &Arc<Mutex<State>>) {
    let Some(next) = locked(state).next() else { return };
    let turn = CompilePermit { state: state.clone(), organization: next.organization, began: Instant::now() };
    // Who went away does not take it: dropped, it goes to the next.
    drop(next.turn.send(turn));
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn arrive(&mut self, waiting: Waiting) {
        let now = self.now;
        let worked = self.worked.entry(waiting.organization).or_default();
        *worked = (*worked).max(now);
        self.waiting.push(waiting);
    }

    /// Takes the next one out, if the compiler is free and anybody waits.
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
        // What lies behind is the same as nothing.
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

    /// Lets all that wait have the compiler, each for its seconds; answers the order.
    fn order(state: &mut State, seconds: impl Fn(OrganizationId) -> u64) -> Vec<OrganizationId> {
        let mut order = Vec::new();
        while let Some(next) = state.next() {
            order.push(next.organization);
            state.done(next.organization, Duration::from_secs(seconds(next.organization)));
        }
        order
    }

    fn arrive(state: &mut State, organization: OrganizationId, is_stored: bool) {
        state.arrive(Waiting { organization, is_stored, turn: oneshot::channel().0 });
    }

    #[test]
    fn who_had_the_compiler_for_long_waits_for_the_others() {
        let [bomber, small, late] = organizations();
        let seconds = |organization| if organization == bomber { 20 } else { 1 };
        let mut state = State::default();
        for organization in [bomber, bomber, bomber, small, small, small] {
            arrive(&mut state, organization, false);
        }
        assert_eq!(order(&mut state, seconds), [bomber, small, small, small, bomber, bomber]);
        // A rest is not saved up: who comes late is not before everybody for as long as they worked.
        arrive(&mut state, bomber, false);
        for _ in 0..3 {
            arrive(&mut state, late, false);
        }
        assert_eq!(order(&mut state, seconds), [late, late, late, bomber]);
        arrive(&mut state, late, false);
        arrive(&mut state, bomber, false);
        assert_eq!(order(&mut state, seconds), [late, bomber]);
    }

    #[test]
    fn what_is_needed_again_goes_before_uploads_of_the_same_organization_only() {
        let [acme, bolt] = organizations();
        let mut state = State::default();
        for (organization, is_stored) in [(bolt, false), (acme, false), (acme, true)] {
            arrive(&mut state, organization, is_stored);
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
    fn uploads_have_so_many_places_in_all_and_for_each_organization() {
        let queue = CompileQueue::new(3, 2);
        let [acme, bolt, core] = organizations();
        let first = queue.enter(acme).expect("a place");
        let _second = queue.enter(acme).expect("a place");
        assert!(queue.enter(acme).is_none(), "two of one");
        let _third = queue.enter(bolt).expect("a place");
        assert!(queue.enter(core).is_none(), "three of all");
        drop(first);
        assert!(queue.enter(core).is_some());
    }

    #[tokio::test]
    async fn who_goes_away_leaves_the_compiler_to_the_next() {
        let queue = CompileQueue::new(9, 9);
        let [acme, bolt, core] = organizations();
        let held = queue.turn(acme, false).await.expect("free");
        let mut gone = Box::pin(queue.turn(bolt, false));
        let mut next = Box::pin(queue.turn(core, false));
        assert!(poll!(&mut gone).is_pending() && poll!(&mut next).is_pending());
        drop(gone);
        drop(held);
        let given = next.await.expect("a turn");
        // It was given, and nobody took it.
        let mut waiting = Box::pin(queue.turn(bolt, false));
        let mut last = Box::pin(queue.turn(core, false));
        assert!(poll!(&mut waiting).is_pending() && poll!(&mut last).is_pending());
        drop(given);
        drop(waiting);
        assert!(last.await.is_some());
    }
}
