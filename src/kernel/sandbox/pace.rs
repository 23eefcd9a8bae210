//! Decides where a guest runs: on the request thread, or on a background thread (`background_runtime`).
//!
//! A version runs in the background until some calls in a row were fast. If it is slow after that, it goes to the
//! background again and needs twice as many fast calls from then on, so that alternating between fast and slow gains
//! nothing. This is recorded per version and organization while the process runs. Time is CPU time of the thread: it
//! includes the work of one instruction on much memory and page faults, and excludes other load of the machine.
//!
//! Many fast calls can be slow together. The calls of one request run on its thread until they have used
//! `plugins.request_us`, and those of one organization as long as they leave half of the threads to others. After that
//! they run in the background, which does not count as slow.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Fast calls in a row that a version needs before it runs on request threads.
pub const PROOF_CALLS: u32 = 16;
/// How often that number can double.
const DOUBLINGS_MAX: u32 = 20;

/// The record of the speed of one version in one organization.
#[derive(Debug)]
pub struct Pace {
    /// Fast calls that it still needs.
    owed: AtomicU32,
    /// How often it was slow on a request thread.
    strikes: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { owed: AtomicU32::new(PROOF_CALLS), strikes: AtomicU32::new(0) }
    }
}

impl Pace {
    /// Whether it may run on a request thread.
    pub fn is_proven(&self) -> bool {
        self.owed.load(Ordering::Relaxed) == 0
    }

    pub fn record(&self, is_slow: bool) {
        if is_slow {
            // Slow calls that run at the same time count as one strike.
            let was_proven = self.owed.load(Ordering::Relaxed) == 0;
            let strikes = self.strikes.fetch_add(u32::from(was_proven), Ordering::Relaxed) + u32::from(was_proven);
            self.owed.store(PROOF_CALLS << strikes.min(DOUBLINGS_MAX), Ordering::Relaxed);
        } else if !self.is_proven() {
            let less = |owed: u32| owed.checked_sub(1);
            // This fails only if a concurrent call has set it to 0.
            let _ = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// The time that the guests of one request have used on the request thread.
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

/// In each window of this length, the guests of one organization may use [`Share::max`].
const WINDOW: Duration = Duration::from_millis(100);

/// The time that the guests of one organization use on request threads.
#[derive(Debug)]
pub struct Share {
    max: Duration,
    /// The start of the window, and the time used in it.
    taken: Mutex<(Instant, Duration)>,
}

impl Share {
    /// A share of half of the threads.
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

/// How long a reading of the CPU time is reused, because reading it is a system call. The small error counts against
/// the guest.
const READING_REUSE: Duration = Duration::from_micros(20);

thread_local! {
    /// The last reading of this thread: when, and its CPU time.
    static LAST_READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    /// The CPU time of this thread at the start of the current poll.
    static POLLED_AT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Within a [`CpuTimed`] future: the CPU time since the start of the current poll.
pub fn since_polled() -> Duration {
    cpu_time().saturating_sub(POLLED_AT.get())
}

/// The CPU time of this thread, as of at most [`READING_REUSE`] ago.
fn recent_cpu_time(now: Instant) -> Duration {
    match LAST_READ.get() {
        Some((at, time)) if now.saturating_duration_since(at) <= READING_REUSE => time,
        _ => cpu_time(),
    }
}

/// A future that measures its CPU time.
pub struct CpuTimed<F> {
    inner: Pin<Box<F>>,
    /// For polls up to this wall time, the wall time is counted as an upper bound, without a reading of the CPU time.
    exact_from: Duration,
    spent: Duration,
}

impl<F: Future> CpuTimed<F> {
    pub fn new(inner: F, exact_from: Duration) -> Self {
        Self { inner: Box::pin(inner), exact_from, spent: Duration::ZERO }
    }

    pub fn spent(&self) -> Duration {
        self.spent
    }
}

impl<F: Future> Future for CpuTimed<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let began = Instant::now();
        let before = recent_cpu_time(began);
        POLLED_AT.set(before);
        let polled = self.inner.as_mut().poll(cx);
        let took = began.elapsed();
        let is_short = took <= self.exact_from;
        self.spent += if is_short { took } else { cpu_time().saturating_sub(before) };
        let spent = self.spent;
        polled.map(|output| (output, spent))
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
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
        /// The number of readings of the CPU time on this thread.
        pub static READINGS: Cell<u32> = const { Cell::new(0) };
    }

    fn record(pace: &Pace, is_slow: bool, times: u32) {
        for _ in 0..times {
            pace.record(is_slow);
        }
    }

    #[test]
    fn a_version_is_proven_by_fast_calls_in_a_row() {
        let pace = Pace::default();
        record(&pace, false, PROOF_CALLS - 1);
        assert!(!pace.is_proven());
        record(&pace, true, 1);
        record(&pace, false, PROOF_CALLS - 1);
        assert!(!pace.is_proven(), "the count starts again");
        record(&pace, false, 1);
        assert!(pace.is_proven());
        record(&pace, false, 1_000);
        assert!(pace.is_proven());
    }

    #[test]
    fn each_strike_doubles_the_fast_calls_that_are_needed() {
        let pace = Pace::default();
        record(&pace, false, PROOF_CALLS);
        for doubled in [2, 4, 8] {
            // Four slow calls at the same time are one strike.
            record(&pace, true, 4);
            record(&pace, false, doubled * PROOF_CALLS - 1);
            assert!(!pace.is_proven(), "{doubled}");
            record(&pace, false, 1);
            assert!(pace.is_proven(), "{doubled}");
        }
        pace.strikes.store(1_000, Ordering::Relaxed);
        record(&pace, true, 1);
        assert_eq!(pace.owed.load(Ordering::Relaxed), PROOF_CALLS << DOUBLINGS_MAX, "and no more than that");
    }

    #[tokio::test]
    async fn cpu_time_counts_work_and_not_waiting() {
        let ((), idle) = CpuTimed::new(tokio::time::sleep(Duration::from_millis(50)), Duration::ZERO).await;
        assert!(idle < Duration::from_millis(50));
        let work = async {
            let began = cpu_time();
            while cpu_time() - began < Duration::from_millis(5) {}
            tokio::task::yield_now().await;
        };
        assert!(CpuTimed::new(work, Duration::ZERO).await.1 >= Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_fast_call_reads_the_cpu_time_at_most_once() {
        for (exact_from, readings_max) in [(Duration::MAX, 1), (Duration::ZERO, 2)] {
            for _ in 0..10 {
                let before = READINGS.get();
                CpuTimed::new(std::future::ready(()), exact_from).await;
                assert!(READINGS.get() - before <= readings_max, "{exact_from:?}");
            }
        }
    }

    #[test]
    fn an_organization_can_use_half_of_the_threads_in_each_window() {
        let (began, ms) = (Instant::now(), Duration::from_millis);
        let share = Share::of(2);
        share.add(WINDOW - ms(1), began);
        assert!(share.is_left(began));
        share.add(ms(1), began + ms(1));
        assert!(!share.is_left(began + ms(2)), "one of two threads");
        let next = began + 2 * WINDOW;
        assert!(share.is_left(next));
        share.add(ms(1), next);
        assert!(share.is_left(next), "a new window begins");
    }

    #[test]
    fn the_time_of_a_request_is_limited() {
        let spent = Spent::default();
        spent.add(Duration::from_nanos(999));
        assert!(spent.is_below(Duration::from_micros(1)));
        spent.add(Duration::from_nanos(1));
        assert!(!spent.is_below(Duration::from_micros(1)));
    }
}
