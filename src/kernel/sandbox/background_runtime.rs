//! Low-priority background threads: for calls that are not known to be fast, for the rest of calls that take long, and
//! for loading components. Request threads have a higher priority.

use crate::kernel::config;
use crate::kernel::error::{Error, Result};

/// The nice value of the background threads.
#[cfg(target_os = "linux")]
const SLOW_NICE: i32 = 10;

/// The number of background threads, and of request threads: as many as the machine can run in parallel.
pub(super) fn threads() -> usize {
    config::processors()
}

/// Most background threads that one organization can use at the same time, because not all work there can be
/// interrupted.
pub(super) fn threads_per_organization() -> usize {
    (threads() / 2).max(1)
}

/// A runtime for long calls, with a lower priority than the rest of the process.
pub(super) struct BackgroundRuntime(Option<tokio::runtime::Runtime>);

impl BackgroundRuntime {
    pub(super) fn start() -> Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // On Linux the nice value is per thread; elsewhere it would apply to the whole process.
        #[cfg(target_os = "linux")]
        builder.on_thread_start(|| {
            // If this fails, long calls only slow down others more.
            let _ = rustix::process::nice(SLOW_NICE);
        });
        let made = builder.worker_threads(threads()).thread_name("plugin").enable_time().build();
        made.map(|runtime| Self(Some(runtime)))
            .map_err(|e| Error::internal(format!("the background threads for plugins cannot be started: {e}")))
    }

    /// Runs blocking host work on a component, such as loading it, which takes long for the largest ones.
    pub(super) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let lost = || Error::internal("work on a plugin was lost");
        self.0.as_ref().ok_or_else(lost)?.spawn_blocking(work).await.map_err(|_| lost())
    }

    /// Runs a future on the background threads. It is aborted when the returned future is dropped.
    pub(super) async fn run<T: Send + 'static>(&self, rest: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(rest, self.0.as_ref()?.handle());
        task.join_next().await?.ok()
    }
}

impl Drop for BackgroundRuntime {
    /// Shuts down without waiting, because a request thread must not block on a runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
