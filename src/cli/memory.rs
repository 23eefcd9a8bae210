//! Returns unused memory to the system. An idle server allocates too little for its allocators to release free memory
//! by themselves.
//!
//! The Rust allocator (mimalloc) has one heap per thread, which only that thread can collect: the runtime's threads
//! collect theirs before they park, once per request (`REQUESTED`). SQLite uses the system's allocator.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kernel::app::App;

/// How often the memory use is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// Growth above the minimum up to which no collection is requested.
const SLACK_KIB: u64 = 4_096;

/// The number of collections that were requested.
static REQUESTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The value of `REQUESTED` at this thread's last collection.
    static COLLECTED: Cell<u64> = const { Cell::new(0) };
}

/// Collects this thread's heap if a collection was requested. The runtime calls it before a thread parks.
pub(super) fn before_sleep() {
    let requested = REQUESTED.load(Ordering::Relaxed);
    if COLLECTED.replace(requested) != requested {
        collect();
    }
}

/// Collects whenever memory use exceeds its minimum so far by more than `SLACK_KIB`. Does not return.
pub(super) async fn keep_small(app: &App) {
    let mut least = u64::MAX;
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        app.free_idle_memory();
        let Some(now) = resident_kib() else { continue };
        least = least.min(now);
        if now > least + SLACK_KIB {
            give_back().await;
        }
    }
}

async fn give_back() {
    REQUESTED.fetch_add(1, Ordering::Relaxed);
    // A task for every thread, so that it parks again.
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    let woken: Vec<_> = (0..2 * threads).map(|_| tokio::spawn(tokio::task::yield_now())).collect();
    for thread in woken {
        let _ = thread.await;
    }
    collect();
    trim();
}

/// Releases the free memory of this thread's heap, and of heaps that no thread owns.
#[expect(unsafe_code, reason = "a C function without preconditions")]
pub(super) fn collect() {
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Releases the free memory of the system's allocator.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a C function without preconditions")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident anonymous memory of this process, if the system reports it (Linux).
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn resident_memory_is_read() {
        assert!(resident_kib().is_some_and(|kib| kib > 100));
    }

    #[test]
    fn a_thread_collects_once_per_request() {
        REQUESTED.fetch_add(1, Ordering::Relaxed);
        before_sleep();
        assert_eq!(COLLECTED.get(), REQUESTED.load(Ordering::Relaxed));
    }
}
