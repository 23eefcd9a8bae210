//! Where calls go on that take long: threads of their own, behind those that answer requests.

use crate::error::{Error, Result};

/// How far long calls stand behind.
#[cfg(target_os = "linux")]
const SLOW_NICE: i32 = 10;

/// Threads for long calls, behind everything else of this process.
pub(super) struct Slow(Option<tokio::runtime::Runtime>);

impl Slow {
    pub(super) fn start() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // On Linux a thread has a priority of its own; elsewhere this would be the whole process's.
        #[cfg(target_os = "linux")]
        builder.on_thread_start(|| {
            // Without it long calls only take more from the others.
            let _ = rustix::process::nice(SLOW_NICE);
        });
        let made = builder.worker_threads(threads).thread_name("plugin").enable_time().build();
        made.map(|runtime| Self(Some(runtime)))
            .map_err(|e| Error::internal(format!("the plugins' threads cannot be started: {e}")))
    }

    /// Goes on with this elsewhere; it ends when the answer is not waited for any more.
    pub(super) async fn run<T: Send + 'static>(&self, rest: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(rest, self.0.as_ref()?.handle());
        task.join_next().await?.ok()
    }
}

impl Drop for Slow {
    /// A runtime must not be waited for where requests are answered.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
