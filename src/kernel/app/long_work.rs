//! Work that goes on after the check of its request, or after its end.

use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::App;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach};
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;

/// Work that is completed although nobody waits for it. The server does not close before its end.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Mutex<Vec<JoinHandle<()>>>);

impl Leftovers {
    fn add(&self, work: JoinHandle<()>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|work| !work.is_finished());
        all.push(work);
    }

    /// Waits for all work, also for what is added meanwhile.
    pub(super) async fn end(&self) {
        let next = || self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(work) = next() {
            if let Err(e) = work.await {
                tracing::error!(error = %e, "work at the end of an operation failed");
            }
        }
    }
}

impl App {
    /// Checks credential and permission again, as they are now. Long work calls it before each of its parts; a change
    /// checks them in its own transaction.
    pub fn require_now(&self, caller: &Identity, permission: Permission) -> Result<Reach> {
        let snapshot = self.snapshot();
        let caller = caller.as_of(&snapshot, Timestamp::now())?;
        authz::require(&snapshot, &caller, permission)
    }

    /// Completes short work even if its caller is dropped, for example by a stop of the server. The receiver gets
    /// a message at its end. Outside of the runtime, nothing is done.
    pub fn complete(&self, work: impl Future<Output = ()> + Send + 'static) -> oneshot::Receiver<()> {
        let (ended, end) = oneshot::channel();
        if let Ok(runtime) = Handle::try_current() {
            self.leftovers.add(runtime.spawn(async move {
                work.await;
                // Nobody may wait.
                let _ = ended.send(());
            }));
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_end_of_leftovers_includes_what_they_add() {
        let (leftovers, done) = (Arc::new(Leftovers::default()), Arc::new(AtomicU64::new(0)));
        let (inner, counted) = (leftovers.clone(), done.clone());
        leftovers.add(tokio::spawn(async move {
            tokio::task::yield_now().await;
            let again = counted.clone();
            inner.add(tokio::spawn(async move {
                tokio::task::yield_now().await;
                again.fetch_add(1, Ordering::SeqCst);
            }));
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        leftovers.end().await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }
}
