//! The progress of a task, as its work reports it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use poem_openapi::types::ToJSON;

use super::{Entry, Present};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::sandbox::{UploadProgress, UploadStep};

/// The pauses before a change that failed with `busy` is repeated. Each attempt also waits `db.write_wait_ms`.
pub const BUSY_PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// Reports how far the work is, and tells it when to stop. Without a task it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Progress(pub(super) Option<Arc<Entry>>);

impl Progress {
    /// The progress of work that nobody watches.
    pub fn none() -> Self {
        Self(None)
    }

    /// Ends the current step and begins the one with this name.
    pub fn step(&self, name: &'static str) {
        self.update(|present| present.begin(name));
    }

    /// Sets how much there is to do in this step.
    pub fn of(&self, total: u64) {
        self.update(|present| present.current().into_iter().for_each(|step| step.total = Some(total)));
    }

    /// Adds to what is done in this step.
    pub fn advance(&self, count: u64) {
        self.update(|present| present.current().into_iter().for_each(|step| step.done += count));
    }

    fn update(&self, change: impl FnOnce(&mut Present)) {
        if let Some(entry) = &self.0 {
            change(&mut entry.present());
        }
    }

    /// Whether the work must stop. It then returns what it has done so far.
    pub fn is_cancelled(&self) -> bool {
        let is_cancelled = self.0.as_ref().is_some_and(|entry| *entry.cancel.borrow());
        if is_cancelled {
            self.notice();
        }
        is_cancelled
    }

    /// Keeps what the work has done as the result of its task, which fails with this error.
    pub fn fail<T: ToJSON>(&self, error: Error, done: &T) -> Error {
        if let Some(entry) = &self.0 {
            entry.present().partial = Some(done.to_json_string());
        }
        error
    }

    /// Fails with `task_cancelled` if the work must stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(ErrorCode::TaskCancelled.into()) } else { Ok(()) }
    }

    /// Runs work that leaves nothing behind when it is dropped. Fails with `task_cancelled` as soon as it must stop.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(entry) = &self.0 else { return work.await };
        let mut cancelled = entry.cancel.subscribe();
        tokio::select! {
            biased;
            // The entry owns the sender, so that this cannot fail.
            _ = cancelled.wait_for(|is_cancelled| *is_cancelled) => {
                self.notice();
                Err(ErrorCode::TaskCancelled.into())
            }
            result = work => result,
        }
    }

    /// Repeats work that fails with `busy`, after each of these pauses. Fails with `task_cancelled` as soon as it must
    /// stop.
    pub async fn repeat_while_busy<T, F: Future<Output = Result<T>>>(
        &self,
        pauses: &[Duration],
        mut attempt: impl FnMut() -> F,
    ) -> Result<T> {
        for pause in pauses {
            match attempt().await {
                Err(error) if error.code == ErrorCode::Busy => {}
                result => return result,
            }
            let paused = async {
                tokio::time::sleep(*pause).await;
                Ok(())
            };
            self.unless_cancelled(paused).await?;
        }
        attempt().await
    }

    fn notice(&self) {
        if let Some(entry) = &self.0 {
            entry.has_noticed.store(true, Ordering::Release);
        }
    }
}

impl UploadProgress for Progress {
    fn step(&self, step: UploadStep) {
        Self::step(self, step.as_str());
    }

    fn of(&self, total: u64) {
        Self::of(self, total);
    }

    fn advance(&self, count: u64) {
        Self::advance(self, count);
    }
}
