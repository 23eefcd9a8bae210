//! Where calls run that are not known to be fast, or go on that take long, and where components are read: threads of their
//! own, behind those that answer requests.

use crate::kernel::config;
use crate::kernel::error::{Error, Result};

/// How far long calls stand behind.
#[cfg(target_os = "linux")]
const SLOW_NICE: i32 = 10;

/// Of either kind: as many as the machine runs at the same time.
pub(super) fn threads() -> usize {
    config::processors()
}

/// How many of them one organization has at the same time: what runs there cannot always be interrupted.
pub(super) fn threads_per_organization() -> usize {
    (threads() / 2).max(1)
}

/// Threads for long calls, behind everything else of this process.
pub(super) struct BackgroundRuntime(Option<tokio::runtime::Runtime>);

impl BackgroundRuntime {
    pub(super) fn start() -> Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // On Linux a thread has a priority of its own; elsewhere this would be the whole process's.
        #[cfg(target_os = "linux")]
        builder.on_thread_start(|| {
            // Without it long calls only take more from the others.
            let _ = rustix::process::nice(SLOW_NICE);
        });
        let made = builder.worker_threads(threads()).thread_name("plugin").enable_time().build();
        made.map(|runtime| Self(Some(runtime)))
            .map_err(|e| Error::internal(format!("the plugins' threads cannot be started: {e}")))
    }

    /// Work of our own on a component, which takes long for the largest ones.
    pub(super) async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let lost = || Error::internal("work on a plugin was lost");
        self.0.as_ref().ok_or_else(lost)?.spawn_blocking(work).await.map_err(|_| lost())
    }

    /// Goes on with this elsewhere; it ends when the answer is not waited for any more.
    pub(super) async fn run<T: Send + 'static>(&self, rest: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(rest, self.0.as_ref()?.handle());
        task.join_next().await?.ok()
    }
}

impl Drop for BackgroundRuntime {
    /// A runtime must not be waited for where requests are answered.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
