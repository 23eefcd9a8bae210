//! Where a guest runs: on the thread of the request, or aside (`slow`).
//!
//! A version runs aside until it has shown some fast calls in a row. One that is slow after that goes aside again, and has
//! twice as many to show from then on, so that being fast and slow by turns gains nothing. This is remembered for each
//! version and organization while the process runs. Time is that of the processor, measured on the thread: it counts what
//! one instruction does to a lot of memory, page faults included, and does not count what else the machine does.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Fast calls in a row that a version shows before it runs on the threads of requests.
pub const PROOF_CALLS: u32 = 16;
/// How often their number doubles.
const DOUBLINGS_MAX: u32 = 20;

/// What is known of the speed of one version in one organization.
#[derive(Debug)]
pub(super) struct Pace {
    /// Fast calls that it must still show.
    owed: AtomicU32,
    /// How often it was slow on the thread of a request.
    strikes: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { owed: AtomicU32::new(PROOF_CALLS), strikes: AtomicU32::new(0) }
    }
}

impl Pace {
    /// May it run on the thread of a request?
    pub(super) fn is_proven(&self) -> bool {
        self.owed.load(Ordering::Relaxed) == 0
    }

    pub(super) fn note(&self, is_slow: bool) {
        if is_slow {
            // Calls that run at the same time are one strike.
            let was_proven = self.owed.load(Ordering::Relaxed) == 0;
            let strikes = self.strikes.fetch_add(u32::from(was_proven), Ordering::Relaxed) + u32::from(was_proven);
            self.owed.store(PROOF_CALLS << strikes.min(DOUBLINGS_MAX), Ordering::Relaxed);
        } else if !self.is_proven() {
            let less = |owed: u32| owed.checked_sub(1);
            // Nothing is owed any more: another call was faster to say so.
            let _ = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

thread_local! {
    /// What this thread had of the processor when it began to poll.
    static POLLED_AT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// For what runs in a [`Clocked`] future: the processor time since it was polled last.
pub(super) fn since_polled() -> Duration {
    processor_time().saturating_sub(POLLED_AT.get())
}

/// A future with the processor time that it took so far.
pub(super) struct Clocked<F> {
    inner: Pin<Box<F>>,
    spent: Duration,
}

impl<F: Future> Clocked<F> {
    pub(super) fn new(inner: F) -> Self {
        Self { inner: Box::pin(inner), spent: Duration::ZERO }
    }

    pub(super) fn spent(&self) -> Duration {
        self.spent
    }
}

impl<F: Future> Future for Clocked<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let before = processor_time();
        POLLED_AT.set(before);
        let polled = self.inner.as_mut().poll(cx);
        self.spent += processor_time().saturating_sub(before);
        let spent = self.spent;
        polled.map(|output| (output, spent))
    }
}

/// What this thread had of the processor so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(pace: &Pace, is_slow: bool, times: u32) {
        for _ in 0..times {
            pace.note(is_slow);
        }
    }

    #[test]
    fn a_version_proves_itself_by_fast_calls_in_a_row() {
        let pace = Pace::default();
        note(&pace, false, PROOF_CALLS - 1);
        assert!(!pace.is_proven());
        note(&pace, true, 1);
        note(&pace, false, PROOF_CALLS - 1);
        assert!(!pace.is_proven(), "it began anew");
        note(&pace, false, 1);
        assert!(pace.is_proven());
        note(&pace, false, 1_000);
        assert!(pace.is_proven());
    }

    #[test]
    fn each_time_it_is_slow_on_a_request_it_has_twice_as_much_to_show() {
        let pace = Pace::default();
        note(&pace, false, PROOF_CALLS);
        for doubled in [2, 4, 8] {
            // Four at the same time are one strike.
            note(&pace, true, 4);
            note(&pace, false, doubled * PROOF_CALLS - 1);
            assert!(!pace.is_proven(), "{doubled}");
            note(&pace, false, 1);
            assert!(pace.is_proven(), "{doubled}");
        }
        pace.strikes.store(1_000, Ordering::Relaxed);
        note(&pace, true, 1);
        assert_eq!(pace.owed.load(Ordering::Relaxed), PROOF_CALLS << DOUBLINGS_MAX, "and no more than that");
    }

    #[tokio::test]
    async fn processor_time_counts_work_and_not_waiting() {
        let ((), idle) = Clocked::new(tokio::time::sleep(Duration::from_millis(50))).await;
        assert!(idle < Duration::from_millis(50));
        let work = async {
            let began = processor_time();
            while processor_time() - began < Duration::from_millis(5) {}
            tokio::task::yield_now().await;
        };
        assert!(Clocked::new(work).await.1 >= Duration::from_millis(5));
    }
}
