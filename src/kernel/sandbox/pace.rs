//! Where a guest runs: on the thread of the request, or aside (`slow`).
//!
//! A version runs aside until it has shown some fast calls in a row. One that is slow after that goes aside again, and has
//! twice as many to show from then on, so that being fast and slow by turns gains nothing. This is remembered for each
//! version and organization while the process runs. Time is that of the processor, measured on the thread: it counts what
//! one instruction does to a lot of memory, page faults included, and does not count what else the machine does.
//!
//! Many fast calls are slow together. Of a request they run on its thread until they have had `plugins.request_us`, and of an
//! organization as long as they leave half of the threads to the others; then they go aside, and lose nothing by it.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Fast calls in a row that a version shows before it runs on the threads of requests.
pub const PROOF_CALLS: u32 = 16;
/// How often their number doubles.
const DOUBLINGS_MAX: u32 = 20;

/// What is known of the speed of one version in one organization.
#[derive(Debug)]
pub struct Pace {
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
    pub fn is_proven(&self) -> bool {
        self.owed.load(Ordering::Relaxed) == 0
    }

    pub fn note(&self, is_slow: bool) {
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

/// What the guests of one request have taken of the thread that answers it.
#[derive(Debug, Default)]
pub struct Spent(AtomicU64);

impl Spent {
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn is_below(&self, max: Duration) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) < max.as_nanos()
    }
}

/// Within this time the guests of one organization have [`Share::max`].
const WINDOW: Duration = Duration::from_millis(100);

/// What the guests of one organization take of all threads that answer requests.
#[derive(Debug)]
pub struct Share {
    max: Duration,
    /// When the window began, and what was taken in it.
    taken: Mutex<(Instant, Duration)>,
}

impl Share {
    /// Half of so many threads.
    pub fn of(threads: usize) -> Self {
        let halves = u32::try_from(threads).unwrap_or(u32::MAX);
        Self { max: (WINDOW / 2).saturating_mul(halves), taken: Mutex::new((Instant::now(), Duration::ZERO)) }
    }

    pub fn add(&self, time: Duration, now: Instant) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(taken.0) >= WINDOW {
            *taken = (now, Duration::ZERO);
        }
        taken.1 += time;
    }

    pub fn is_left(&self, now: Instant) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(taken.0) >= WINDOW || taken.1 < self.max
    }
}

/// A reading of the processor time, which is a system call, serves for so long: what it is out by is counted against
/// the guest, and little.
const READING: Duration = Duration::from_micros(20);

thread_local! {
    /// The last reading of this thread.
    static LAST_READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    /// What this thread had of the processor when it began to poll.
    static POLLED_AT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// For what runs in a [`Clocked`] future: the processor time since it was polled last.
pub fn since_polled() -> Duration {
    processor_time().saturating_sub(POLLED_AT.get())
}

/// The processor time of this thread, at most [`READING`] ago.
fn recent_processor_time(now: Instant) -> Duration {
    match LAST_READ.get() {
        Some((at, time)) if now.saturating_duration_since(at) <= READING => time,
        _ => processor_time(),
    }
}

/// A future with the processor time that it took so far.
pub struct Clocked<F> {
    inner: Pin<Box<F>>,
    /// What took no longer than this by the clock on the wall took no more of the processor: it is not read then.
    exact_from: Duration,
    spent: Duration,
}

impl<F: Future> Clocked<F> {
    pub fn new(inner: F, exact_from: Duration) -> Self {
        Self { inner: Box::pin(inner), exact_from, spent: Duration::ZERO }
    }

    pub fn spent(&self) -> Duration {
        self.spent
    }
}

impl<F: Future> Future for Clocked<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let began = Instant::now();
        let before = recent_processor_time(began);
        POLLED_AT.set(before);
        let polled = self.inner.as_mut().poll(cx);
        let took = began.elapsed();
        let is_short = took <= self.exact_from;
        self.spent += if is_short { took } else { processor_time().saturating_sub(before) };
        let spent = self.spent;
        polled.map(|output| (output, spent))
    }
}

/// What this thread had of the processor so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let time =
        Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default());
    #[cfg(test)]
    tests::READINGS.set(tests::READINGS.get() + 1);
    LAST_READ.set(Some((Instant::now(), time)));
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        /// How often this thread's processor time was read.
        pub static READINGS: Cell<u32> = const { Cell::new(0) };
    }

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
        let ((), idle) = Clocked::new(tokio::time::sleep(Duration::from_millis(50)), Duration::ZERO).await;
        assert!(idle < Duration::from_millis(50));
        let work = async {
            let began = processor_time();
            while processor_time() - began < Duration::from_millis(5) {}
            tokio::task::yield_now().await;
        };
        assert!(Clocked::new(work, Duration::ZERO).await.1 >= Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_fast_call_reads_the_processor_time_once_at_most() {
        for (exact_from, readings_max) in [(Duration::MAX, 1), (Duration::ZERO, 2)] {
            for _ in 0..10 {
                let before = READINGS.get();
                Clocked::new(std::future::ready(()), exact_from).await;
                assert!(READINGS.get() - before <= readings_max, "{exact_from:?}");
            }
        }
    }

    #[test]
    fn an_organization_has_half_of_the_threads_in_each_window() {
        let (began, ms) = (Instant::now(), Duration::from_millis);
        let share = Share::of(2);
        share.add(WINDOW - ms(1), began);
        assert!(share.is_left(began));
        share.add(ms(1), began + ms(1));
        assert!(!share.is_left(began + ms(2)), "one of two threads");
        let next = began + 2 * WINDOW;
        assert!(share.is_left(next));
        share.add(ms(1), next);
        assert!(share.is_left(next), "what was taken before is over");
    }

    #[test]
    fn a_request_has_so_much_and_no_more() {
        let spent = Spent::default();
        spent.add(Duration::from_nanos(999));
        assert!(spent.is_below(Duration::from_micros(1)));
        spent.add(Duration::from_nanos(1));
        assert!(!spent.is_below(Duration::from_micros(1)));
    }
}
