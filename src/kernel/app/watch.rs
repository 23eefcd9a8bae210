//! Background supervision of a running server: restarted tasks, the disk, checks of database pages, and the progress
//! mark.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::App;
use crate::kernel::db::mark::{State, next_night};
use crate::kernel::db::panic_text;
use crate::kernel::ids::Timestamp;
use crate::kernel::runtime::health::{Fault, Health};

const WRITER_ENDED: Fault =
    Fault { part: "writer", word: "writer_ended", message: "nothing can be changed: restart Roster", is_fatal: true };
const DECISION_LOG_ENDED: Fault = Fault {
    part: "decision_log",
    word: "decision_log_ended",
    message: "decisions are not logged: restart Roster",
    is_fatal: false,
};
const LOG_DROPS: Fault = Fault {
    part: "log",
    word: "log_drops",
    message: "log lines cannot be written and are dropped: check the disk, or the program that reads standard error",
    is_fatal: false,
};

/// How long the mark may lag behind changes, and the pause between retries while the disk is full.
const MARK_EVERY: Duration = Duration::from_secs(5);
/// The longest sleep: the clock can be set, or stand still while the machine sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// The pause before a failed task is restarted; it doubles with each further failure.
const RESTART_FIRST_S: u64 = 1;
const RESTART_MAX_S: u64 = 60;

/// Runs a task until it returns. If it panics, this is counted, reported to the health check, and the task is
/// restarted.
pub fn supervise<F>(app: &Arc<App>, fault: Fault, task: fn(Arc<App>) -> F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let app = app.clone();
    tokio::spawn(async move {
        let mut failures = 0;
        while let Err(panic) = AssertUnwindSafe(task(app.clone())).catch_unwind().await {
            failures += 1;
            app.metrics.panics.inc();
            app.health().report(fault, &panic_text(&panic));
            tokio::time::sleep(Duration::from_secs(super::backoff(failures, RESTART_FIRST_S, RESTART_MAX_S))).await;
            app.health().clear(fault.word);
        }
    })
}

impl App {
    /// The faults that parts of the server report.
    pub fn health(&self) -> &Arc<Health> {
        &self.db.health
    }

    /// Frees memory of idle read connections.
    pub fn free_idle_memory(&self) {
        self.db.release_idle();
    }

    /// All current faults, for the health check.
    pub async fn faults(&self) -> Vec<Fault> {
        let mut faults = self.db.health.faults();
        if !self.db.is_alive() {
            faults.push(WRITER_ENDED);
        }
        if !self.decisions.is_alive() {
            faults.push(DECISION_LOG_ENDED);
        }
        if crate::kernel::runtime::log::is_failing() {
            faults.push(LOG_DROPS);
        }
        if let Err(e) = self.db.check_readable(|r| crate::kernel::authz::store::epoch(r).map(drop)).await
            && faults.iter().all(|fault| fault.word != e.code.as_str())
        {
            faults.push(Fault {
                part: "database",
                word: e.code.as_str(),
                message: "the database cannot be read",
                is_fatal: true,
            });
        }
        faults
    }
}

/// Keeps the progress mark up to date, and retries writes while the disk is full.
pub async fn run_mark_task(app: Arc<App>) {
    // Whether the database can be written is known before the first change.
    probe(&app).await;
    let committed = || app.db.stats.changed.load(Ordering::Acquire);
    let mut marked = committed();
    loop {
        // First `Writing`, again after each period with changes, and `Idle` after one without.
        put_mark(&app, State::Writing).await;
        loop {
            tokio::time::sleep(MARK_EVERY).await;
            if app.db.is_full() {
                probe(&app).await;
            }
            let now = committed();
            if now != marked {
                marked = now;
                put_mark(&app, State::Writing).await;
            } else if !app.db.is_full() {
                break;
            }
        }
        put_mark(&app, State::Idle).await;
        while committed() == marked && !app.db.is_full() {
            if app.db.is_marked() {
                app.db.mark_due.notified().await;
            } else {
                tokio::time::sleep(MARK_EVERY).await;
                put_mark(&app, State::Idle).await;
            }
        }
    }
}

async fn probe(app: &App) {
    // The writer reports a failure.
    let _ = app.db.probe().await;
}

async fn put_mark(app: &App, state: State) {
    if let Err(e) = app.db.mark(state).await {
        tracing::warn!(error = %e, "the mark could not be written and will be tried again");
    }
}

/// Checks every page of the database at the start, and every night.
pub async fn check_pages(app: Arc<App>) {
    loop {
        if let Err(e) = app.db.check().await {
            tracing::warn!(error = %e, "the pages of the database could not be checked");
        }
        let due = next_night(Timestamp::now());
        while let Some(left) = u64::try_from(due.0 - Timestamp::now().0).ok().filter(|left| *left > 0) {
            tokio::time::sleep(Duration::from_millis(left).min(SLEEP_MAX)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::kernel::config::Config;

    const FAULT: Fault = Fault { part: "task", word: "task_failed", message: "a task failed", is_fatal: false };
    static RUNS: AtomicUsize = AtomicUsize::new(0);

    async fn fails_once(app: Arc<App>) {
        let runs = RUNS.fetch_add(1, Ordering::Relaxed);
        assert_ne!(runs, 0, "the first run");
        // The fault is cleared before the task is restarted.
        assert!(!app.health().has(FAULT.word));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_counted_reported_and_restarted() {
        let directory = tempfile::tempdir().unwrap();
        let app = App::open(Config::of(directory.path()), &crate::server::features::FEATURES).await.unwrap();
        let task = supervise(&app, FAULT, fails_once);
        while !app.health().has(FAULT.word) {
            tokio::task::yield_now().await;
        }
        assert_eq!(app.metrics.panics.get(), 1);
        assert!(app.faults().await.contains(&FAULT));
        task.await.unwrap();
        assert_eq!(RUNS.load(Ordering::Relaxed), 2);
        assert!(app.faults().await.is_empty());
        app.close().await;
    }

    #[tokio::test]
    async fn the_health_check_does_not_wait_for_reads() {
        let directory = tempfile::tempdir().unwrap();
        let app = App::open(Config::of(directory.path()), &crate::server::features::FEATURES).await.unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let read = |_| {
            let (app, wait) = (app.clone(), wait.clone());
            let query = move |_: &crate::kernel::db::Reader<'_>| {
                // `recv` returns when `go` is dropped.
                if let Ok(wait) = wait.lock() {
                    let _ = wait.recv();
                }
                Ok(())
            };
            tokio::spawn(async move { app.read(query).await })
        };
        let reads: Vec<_> = (0..app.config.readers).map(read).collect();
        // All of them have begun, or wait for a connection.
        tokio::task::yield_now().await;
        assert!(app.faults().await.is_empty());
        assert!(reads.iter().all(|read| !read.is_finished()));
        drop(go);
        for read in reads {
            read.await.unwrap().unwrap();
        }
        app.close().await;
    }
}
