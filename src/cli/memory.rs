//! Gives memory back to the system that was needed for a while: an idle server allocates too little for its allocators to
//! notice what is free.
//!
//! Rust's allocator keeps a heap for each thread, which only that thread can look through: the threads of the runtime do
//! it before they sleep, once each time that they are told. SQLite uses the allocator of the system.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kernel::app::App;

/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So much more than at the least is not worth the work.
const SLACK_KIB: u64 = 4_096;

/// How often the threads were told.
static TOLD: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static HEARD: Cell<u64> = const { Cell::new(0) };
}

/// For a thread of the runtime that is about to sleep.
pub(super) fn before_sleep() {
    let told = TOLD.load(Ordering::Relaxed);
    if HEARD.replace(told) != told {
        collect();
    }
}

/// Keeps the memory as small as it was, whatever went on in between. Does not end.
pub(super) async fn keep_small(app: &App) {
    let mut least = u64::MAX;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        app.rest();
        let Some(now) = resident_kib() else { continue };
        least = least.min(now);
        if now > least + SLACK_KIB {
            give_back().await;
        }
    }
}

async fn give_back() {
    TOLD.fetch_add(1, Ordering::Relaxed);
    // Work for every thread, so that it goes to sleep anew.
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    let woken: Vec<_> = (0..2 * threads).map(|_| tokio::spawn(tokio::task::yield_now())).collect();
    for thread in woken {
        let _ = thread.await;
    }
    collect();
    trim();
}

/// Gives back what is free in this thread's heap, and in what no thread owns.
#[expect(unsafe_code, reason = "a function of C without conditions")]
pub(super) fn collect() {
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// The same for the allocator of the system.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a function of C without conditions")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Memory of this process that is no file's, where the system tells it.
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
    fn the_memory_of_this_process_is_known() {
        assert!(resident_kib().is_some_and(|kib| kib > 100));
    }

    #[test]
    fn a_thread_collects_once_each_time_that_it_is_told() {
        TOLD.fetch_add(1, Ordering::Relaxed);
        before_sleep();
        assert_eq!(HEARD.get(), TOLD.load(Ordering::Relaxed));
    }
}
