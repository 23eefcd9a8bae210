//! The SQLite database: a fair pool of [readers] and one writer thread. No other code opens the file.
//!
//! **Invariant.** A change whose caller got a success survives a power failure (`synchronous=FULL`). The state that the
//! writer keeps in memory is published after the commit and before the answer. A job that fails rolls back only itself.
//! A job that panics fails its whole batch, because the state may be partly changed. So does a job that fails after
//! [`Writer::release_savepoint`], which only a failing disk should cause. The writer survives all of these.
//!
//! Nothing is committed if the file was moved, replaced or deleted. Faults of the file are reported to [`Health`].
//!
//! The writer takes all queued jobs, up to `db.write_batch`, runs each in a savepoint of one transaction, and commits
//! once (group commit): all these jobs share one fsync.

pub mod buckets;
pub mod lists;
pub mod mark;
pub mod readers;
pub mod schema;
pub mod sql;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::runtime::health::{self, Fault, Health, WatchedFile};
pub use lists::{Direction, List, ListPage, PageRequest};
use mark::State;
use readers::{DedicatedConnection, Readers};
pub use readers::{ReaderShare, Slot};

/// A fault of the database, with the code and the message that callers get.
const fn fault(cause: ErrorCode, is_fatal: bool) -> Fault {
    Fault { part: "database", word: cause.as_str(), message: cause.message(), is_fatal }
}

const FULL: Fault = fault(ErrorCode::DatabaseFull, false);
const READ_ONLY: Fault = fault(ErrorCode::DatabaseReadOnly, false);
const DAMAGED: Fault = fault(ErrorCode::DatabaseDamaged, true);
const LOST: Fault = fault(ErrorCode::DatabaseLost, true);

/// A read-only view of the database in one transaction.
pub struct Reader<'a> {
    pub connection: &'a Connection,
}

/// The open transaction of one job. It dereferences to a [`Reader`].
pub struct Writer<'a> {
    reader: Reader<'a>,
    now: Timestamp,
    is_decided: Cell<bool>,
    /// Whether a page was written without a changed row.
    is_touched: Cell<bool>,
}

impl<'a> Writer<'a> {
    pub fn new(connection: &'a Connection) -> Self {
        Self {
            reader: Reader { connection },
            now: Timestamp::now(),
            is_decided: Cell::new(false),
            is_touched: Cell::new(false),
        }
    }

    /// The time of the job: the same value at each call.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs a change whose former content is overwritten in the file (`secure_delete`), not left in free pages.
    pub fn erasing<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let set = |on: bool| self.connection.pragma_update(None, "secure_delete", on).map_err(sql::from_sqlite);
        set(true)?;
        let changed = change();
        set(false)?;
        changed
    }

    /// Releases the savepoint of the job: call this when all checks have passed. A later failure fails the whole batch.
    /// In return SQLite need not copy each page before it changes, which is much of the work of a change to many
    /// tables.
    pub fn release_savepoint(&self) -> Result<()> {
        sql::run(self.connection, "release job")?;
        self.is_decided.set(true);
        Ok(())
    }
}

impl<'a> std::ops::Deref for Writer<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}

/// Counters of the writer; read by `/metrics`.
#[derive(Debug, Default)]
pub struct WriterStats {
    pub jobs: AtomicU64,
    pub batches: AtomicU64,
    pub batch_largest: AtomicU64,
    pub queue_busy: AtomicU64,
    pub panics: AtomicU64,
    pub commit_failures: AtomicU64,
    /// Steps of SQLite's virtual machine in the writer, and the most of one job: other writes wait during these.
    pub steps: AtomicU64,
    pub steps_largest: AtomicU64,
    /// Commits that changed rows.
    pub changed: AtomicU64,
    /// Finished batches, committed or not: while this is constant, no row has changed.
    pub ended: AtomicU64,
}

/// The open transaction that a batch of jobs runs in.
struct Batch<'a, S> {
    connection: &'a Connection,
    state: &'a mut S,
    stats: &'a WriterStats,
    /// Set by a job after which the batch cannot be committed.
    broken: &'a mut Option<Error>,
    /// Set by a successful job that changed rows.
    changed: &'a mut bool,
}

/// Runs in the transaction of the batch, or with `None` if the batch has failed before. Returns a closure that answers
/// the caller when the result of the commit is known.
type Job<S> = Box<dyn FnOnce(Option<Batch<'_, S>>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;
type JobBody<S> = Box<dyn FnOnce(&Writer<'_>, &mut S) -> Result<()> + Send>;

/// The database, with the in-memory state `S` that the writer keeps across changes.
pub struct Db<S> {
    file: PathBuf,
    /// The known faults of the server, including those of the database.
    pub health: Arc<Health>,
    /// Notified after each commit that changed rows, and when the disk refused one: the mark is then behind.
    pub mark_due: Arc<Notify>,
    readers: Arc<Readers>,
    /// The connection for health checks, which must work while all readers are in use.
    health_connection: DedicatedConnection,
    /// The connection for queries that read whole tables.
    scan_connection: DedicatedConnection,
    /// Jobs for the writer; `None` makes it end.
    queue: mpsc::Sender<Option<Job<S>>>,
    queue_capacity: usize,
    write_wait: Duration,
    pub stats: Arc<WriterStats>,
    /// Notified after each batch, once its state is published.
    pub committed: Arc<Notify>,
    writer: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl<S: Clone + Send + 'static> Db<S> {
    /// Opens (or creates) the file, loads the first state from it and starts the writer.
    ///
    /// `publish` runs once here, and then on the writer thread after each batch.
    pub fn open<P>(config: &Config, load: fn(&Reader<'_>) -> Result<S>, recover: Recover<S>, publish: P) -> Result<Self>
    where
        P: Fn(&S) + Send + 'static,
    {
        let file = config.database_file();
        let connection = schema::open_writer(&file)?;
        let state = load(&Reader { connection: &connection }).map_err(|e| match e.code {
            ErrorCode::DatabaseDamaged => schema::damaged(&file, &[e.to_string()]),
            _ => e,
        })?;
        // The pages that `load` read are not needed again.
        connection.release_memory().map_err(sql::from_sqlite)?;
        let (health, mark_due) = (Arc::new(Health::default()), Arc::new(Notify::new()));
        let watched_files = watched_files(&file)?;
        watched_files.iter().for_each(|watched| health.watch(watched.clone(), LOST));
        publish(&state);
        let (stats, committed) = (Arc::new(WriterStats::default()), Arc::new(Notify::new()));
        let capacity = size(config.write_queue_max);
        let (queue, jobs) = mpsc::channel(capacity);
        schema::count_steps(&connection, stats.clone())?;
        let writer_loop = WriterLoop {
            connection,
            state,
            recover,
            publish,
            stats: stats.clone(),
            committed: committed.clone(),
            batch_max: size(config.write_batch_max),
            watched_files: watched_files.clone(),
            health: health.clone(),
            mark_due: mark_due.clone(),
        };
        let writer = health::spawn("writer", move || writer_loop.run(jobs))
            .map_err(|e| Error::internal(format!("the writer thread did not start: {e}")))?;
        Ok(Self {
            readers: Readers::open(watched_files, config)?,
            health_connection: DedicatedConnection::default(),
            scan_connection: DedicatedConnection::default(),
            file,
            health,
            mark_due,
            queue,
            queue_capacity: capacity,
            write_wait: Duration::from_millis(config.write_wait_ms),
            stats,
            committed,
            writer: std::sync::Mutex::new(Some(writer)),
        })
    }

    /// Runs a query on the blocking pool, in one deferred transaction, so that all its selects see the same data.
    /// `share` says on whose behalf, for fair scheduling.
    pub async fn read<T: Send + 'static>(
        &self,
        share: ReaderShare,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.report_if_damaged(self.readers.read(share, query).await)
    }

    /// Runs a query that may read whole tables. It uses a connection outside the pool, one such query at a time.
    pub async fn read_scan<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.report_if_damaged(self.readers.read_dedicated(&self.scan_connection, query).await)
    }

    /// Runs a query of a health check. It does not wait for a connection of the pool.
    pub async fn check_readable(&self, query: fn(&Reader<'_>) -> Result<()>) -> Result<()> {
        self.report_if_damaged(self.readers.read_dedicated(&self.health_connection, query).await)
    }

    /// Releases memory and connections of readers that are idle.
    pub fn release_idle(&self) {
        self.readers.rest();
        if let Ok(mut connection) = self.scan_connection.try_lock() {
            *connection = None;
        }
    }

    /// Queues a change and waits until it is committed and published, or has failed and is rolled back.
    ///
    /// The job must change `S` only in its last, infallible steps: an error leaves the state as it was.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Writer<'_>, &mut S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (slot, filled) = Slot::pair();
        self.run(Box::new(move |w, state| job(w, state).map(|answer| filled.fill(answer)))).await?;
        slot.take()
    }

    async fn run(&self, job: JobBody<S>) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let boxed: Job<S> = Box::new(move |batch| {
            let result = batch.map(|batch| in_savepoint(batch, job));
            Box::new(move |commit| {
                // If the caller has disconnected, a committed change remains.
                let _ = answer.send(match (commit, result) {
                    (Ok(()), Some(result)) => result,
                    (Ok(()), None) => Err(Error::internal("a change was committed without having run")),
                    (Err(failure), result) => result.unwrap_or_else(|| Err(failure.clone())).and(Err(failure)),
                });
            })
        });
        self.queue.send_timeout(Some(boxed), self.write_wait).await.map_err(|_| {
            self.stats.queue_busy.fetch_add(1, Ordering::Relaxed);
            busy("the writer's queue is full")
        })?;
        let answer = answered.await.map_err(|_| Error::internal("the writer dropped the change"))?;
        self.report_if_damaged(answer)
    }

    /// Reports a damaged database when a read or change finds it.
    fn report_if_damaged<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(e) = &outcome
            && e.code == ErrorCode::DatabaseDamaged
        {
            self.report_damage(&[e.to_string()]);
        }
        outcome
    }

    fn report_damage(&self, faults: &[String]) {
        self.health.report(DAMAGED, schema::damaged(&self.file, faults).message());
    }

    /// Checks every page, on its own connection, without blocking other reads and writes.
    pub async fn check(&self) -> Result<()> {
        if self.health.faults().contains(&LOST) {
            // The path may now be another file.
            return Ok(());
        }
        let file = self.file.clone();
        let look = move || {
            let mut connection =
                Connection::open_with_flags(&file, schema::reader_flags()).map_err(sql::from_sqlite)?;
            schema::prepare_reader(&mut connection).map_err(sql::from_sqlite)?;
            schema::damage(&connection)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let faults = looked.map_err(|e| Error::internal(format!("the check of the database panicked: {e}")))??;
        if faults.is_empty() {
            self.health.clear(DAMAGED.word);
        } else {
            self.report_damage(&faults);
        }
        Ok(())
    }

    /// Whether the last known state of the disk prevents changes: it is full or read-only.
    pub fn is_full(&self) -> bool {
        self.health.has(FULL.word) || self.health.has(READ_ONLY.word)
    }

    /// Writes the mark with the present progress of the database.
    pub async fn mark(&self, state: State) -> Result<()> {
        let Some(progress) = self.read(ReaderShare::of_server(), mark::progress).await? else { return Ok(()) };
        let (file, health) = (self.file.clone(), self.health.clone());
        let write = move || write_mark(&file, &health, progress, state);
        tokio::task::spawn_blocking(write).await.map_err(|e| Error::internal(format!("writing the mark panicked: {e}")))
    }

    /// Whether the last write of the mark succeeded.
    pub fn is_marked(&self) -> bool {
        !self.health.has(NO_MARK.word)
    }

    /// Tests whether changes are possible, by a write that leaves the data as it is.
    pub async fn probe(&self) -> Result<()> {
        self.write(|w, _| mark::touch(w)).await
    }

    /// Whether the writer thread is running.
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }

    /// The number of changes that wait for the writer.
    pub fn queued(&self) -> usize {
        self.queue_capacity - self.queue.capacity()
    }

    /// Lets the writer finish the queued changes, then ends it. Later changes fail.
    pub async fn close(&self) {
        let Some(handle) = self.writer.lock().ok().and_then(|mut slot| slot.take()) else { return };
        let was_alive = self.queue.send(None).await.is_ok();
        let ended = tokio::task::spawn_blocking(move || handle.join().is_ok()).await.unwrap_or(false);
        if !(was_alive && ended) {
            tracing::error!("the writer thread had panicked");
        }
    }
}

const NO_MARK: Fault = Fault {
    part: "mark",
    word: "mark_not_written",
    message: "the file roster.mark cannot be written: if the database is lost now, the next start may not detect it",
    is_fatal: false,
};

fn write_mark(file: &Path, health: &Health, progress: mark::Progress, state: State) {
    match mark::write(file, progress, state) {
        Ok(()) => health.clear(NO_MARK.word),
        Err(e) => health.report(NO_MARK, &format!("{e}; {}", free_space(file.parent().unwrap_or(Path::new("."))))),
    }
}

/// Describes how many bytes are free in a folder, for the log.
fn free_space(folder: &Path) -> String {
    match rustix::fs::statvfs(folder) {
        Ok(disk) => format!("{} bytes are free at {}", disk.f_bavail.saturating_mul(disk.f_frsize), folder.display()),
        Err(e) => format!("the free space at {} is unknown: {e}", folder.display()),
    }
}

fn size(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}

fn busy(reason: &'static str) -> Error {
    Error::new(ErrorCode::Busy).with_source(reason).retry_after(1)
}

/// The files of an open database, to watch. The database must have been read, which creates its write-ahead log.
fn watched_files(file: &Path) -> Result<Vec<WatchedFile>> {
    let gone = |e: std::io::Error| Error::new(ErrorCode::DatabaseLost).with_source(e.to_string());
    let log = file.with_extension("db-wal");
    let mut watched_files = vec![WatchedFile::of(file).map_err(gone)?];
    // On a file system without shared memory SQLite uses another journal mode.
    if log.exists() {
        watched_files.push(WatchedFile::of(&log).map_err(gone)?);
    }
    Ok(watched_files)
}

/// Fails with `database_lost` unless the files are still the ones that were opened.
fn require_unchanged_files(watched_files: &[WatchedFile]) -> Result<()> {
    match watched_files.iter().find(|watched| !watched.is_in_place()) {
        Some(gone) => Err(Error::new(ErrorCode::DatabaseLost).with_source(gone.path().display().to_string())),
        None => Ok(()),
    }
}

fn in_savepoint<S>(batch: Batch<'_, S>, job: JobBody<S>) -> Result<()> {
    let Batch { connection, state, stats, broken, changed } = batch;
    let rows = connection.total_changes();
    let steps = stats.steps.load(Ordering::Relaxed);
    sql::run(connection, "savepoint job")?;
    let writer = Writer::new(connection);
    let result = catch_unwind(AssertUnwindSafe(|| job(&writer, state))).unwrap_or_else(|panic| {
        stats.panics.fetch_add(1, Ordering::Relaxed);
        let error = Error::internal(format!("a change panicked: {}", panic_text(&panic)));
        // Rows can be rolled back to the savepoint, but the state may be partly changed.
        *broken = Some(error.clone());
        Err(error)
    });
    let ended = match (&result, writer.is_decided.get()) {
        (Ok(_), false) => sql::run(connection, "release job"),
        (Ok(_), true) => Ok(()),
        (Err(_), false) => sql::run(connection, "rollback to job").and_then(|()| sql::run(connection, "release job")),
        (Err(failed), true) => Err(failed.clone()),
    };
    // On a full disk SQLite rolls back the whole transaction, not only the savepoint.
    if ended.is_err() || connection.is_autocommit() {
        let first = result.as_ref().err().cloned().or(ended.err());
        *broken = Some(first.unwrap_or_else(|| Error::internal("the transaction ended before the job was done")));
    }
    stats.steps_largest.fetch_max(stats.steps.load(Ordering::Relaxed) - steps, Ordering::Relaxed);
    *changed |= result.is_ok() && (connection.total_changes() > rows || writer.is_touched.get());
    result
}

/// The message of a panic, for the log.
pub fn panic_text(panic: &Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

struct WriterLoop<S, P> {
    connection: Connection,
    state: S,
    recover: Recover<S>,
    publish: P,
    stats: Arc<WriterStats>,
    committed: Arc<Notify>,
    batch_max: usize,
    watched_files: Vec<WatchedFile>,
    health: Arc<Health>,
    mark_due: Arc<Notify>,
}

/// Rebuilds the state after a failed commit, from the rows and from the state before the batch.
pub type Recover<S> = fn(&Reader<'_>, S) -> S;

impl<S: Clone, P: Fn(&S)> WriterLoop<S, P> {
    fn run(mut self, mut jobs: mpsc::Receiver<Option<Job<S>>>) {
        let mut ends = false;
        while !ends && let Some(Some(first)) = jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < self.batch_max
                && let Ok(next) = jobs.try_recv()
            {
                match next {
                    Some(job) => batch.push(job),
                    None => {
                        ends = true;
                        break;
                    }
                }
            }
            let before = self.state.clone();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.commit(batch, &before))) {
                // Waiting callers get an internal error. The batch is rolled back, or its new state is published if it
                // was committed.
                self.stats.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(panic = panic_text(&panic), "the writer panicked; its state is rebuilt from the rows");
                self.undo(before);
                self.stats.ended.fetch_add(1, Ordering::Release);
                (self.publish)(&self.state);
            }
        }
        // At the end of a graceful stop: leave one file instead of three.
        if let Err(e) = self.connection.execute_batch("pragma wal_checkpoint(truncate)") {
            tracing::warn!(error = %e, "the last checkpoint failed; the next start repeats it");
        }
        // Before the connection is closed, because that may remove the log.
        match (self.watched_files.first(), mark::progress(&Reader { connection: &self.connection })) {
            (Some(file), Ok(Some(progress))) if require_unchanged_files(&self.watched_files).is_ok() => {
                write_mark(file.path(), &self.health, progress, State::Stopped);
            }
            (_, Err(e)) => tracing::warn!(error = %e, "the mark could not be written at the stop"),
            _ => {}
        }
    }

    /// Runs a batch in one transaction; `before` is the state that is restored after a failure.
    fn commit(&mut self, batch: Vec<Job<S>>, before: &S) {
        self.stats.jobs.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.stats.batches.fetch_add(1, Ordering::Relaxed);
        self.stats.batch_largest.fetch_max(batch.len() as u64, Ordering::Relaxed);
        let begun = sql::run(&self.connection, "begin immediate");
        let (mut broken, mut changed) = (begun.as_ref().err().cloned(), false);
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            let (connection, state, stats) = (&self.connection, &mut self.state, &*self.stats);
            let is_open = broken.is_none();
            let batch = Batch { connection, state, stats, broken: &mut broken, changed: &mut changed };
            answers.push(job(is_open.then_some(batch)));
        }
        let outcome = broken.map_or_else(|| require_unchanged_files(&self.watched_files), Err);
        let outcome = outcome.and_then(|()| sql::run(&self.connection, "commit"));
        self.report_commit(&outcome, changed);
        if outcome.is_err() {
            self.stats.commit_failures.fetch_add(1, Ordering::Relaxed);
            if begun.is_ok() {
                self.undo(before.clone());
            }
        }
        self.stats.ended.fetch_add(1, Ordering::Release);
        (self.publish)(&self.state);
        self.committed.notify_waiters();
        for answer in answers {
            answer(outcome.clone());
        }
    }

    /// Updates the health of the database from the result of a commit.
    fn report_commit(&self, outcome: &Result<()>, changed: bool) {
        let known = [FULL, READ_ONLY];
        match outcome {
            // A commit without changes does not prove that the disk is writable.
            Ok(()) if changed => {
                known.iter().for_each(|fault| self.health.clear(fault.word));
                self.stats.changed.fetch_add(1, Ordering::Release);
                self.mark_due.notify_one();
            }
            Ok(()) => {}
            Err(failure) => {
                tracing::error!(error = %failure, "a commit failed; the whole batch was rolled back");
                if let Some(fault) = known.iter().find(|fault| fault.word == failure.code.as_str()) {
                    let folder =
                        self.watched_files.first().and_then(|file| file.path().parent()).unwrap_or(Path::new("."));
                    self.health.report(*fault, &format!("{failure}; {}", free_space(folder)));
                    self.mark_due.notify_one();
                }
            }
        }
    }

    /// Restores the last committed state.
    fn undo(&mut self, before: S) {
        if !self.connection.is_autocommit()
            && let Err(e) = sql::run(&self.connection, "rollback")
        {
            tracing::error!(error = %e, "the rollback failed");
        }
        self.state = (self.recover)(&Reader { connection: &self.connection }, before);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A database with one table, and a runtime with two threads as in a server.
    struct Fixture {
        db: Arc<Db<()>>,
        runtime: tokio::runtime::Runtime,
        directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let config = Config::of(directory.path());
            let db = Arc::new(Db::open(&config, |_| Ok(()), |_, ()| (), |()| ()).unwrap());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let fixture = Self { db, runtime, directory };
            fixture
                .runtime
                .block_on(
                    fixture
                        .db
                        .write(|w, ()| crate::kernel::db::sql::run(w.connection, "create table things (name text)")),
                )
                .unwrap();
            fixture
        }

        fn write(
            &self,
            change: impl FnOnce(&Writer<'_>) -> Result<()> + Send + 'static,
        ) -> tokio::task::JoinHandle<Result<()>> {
            let db = self.db.clone();
            self.runtime.spawn(async move { db.write(move |w, ()| change(w)).await })
        }

        /// Runs changes in one batch: they are queued behind a change that waits until all of them are queued.
        fn batch(&self, changes: Vec<fn(&Writer<'_>) -> Result<()>>) -> Vec<Result<()>> {
            let (go, wait) = mpsc::channel::<()>();
            let before = self.db.stats.batches.load(Ordering::Relaxed);
            let first = self.write(move |_| wait.recv().map_err(|_| Error::internal("the test ended early")));
            while self.db.stats.batches.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            let mut running = Vec::new();
            for change in changes {
                running.push(self.write(change));
                while self.db.queued() < running.len() {
                    std::thread::yield_now();
                }
            }
            go.send(()).unwrap();
            self.runtime.block_on(first).unwrap().unwrap();
            running.into_iter().map(|change| self.runtime.block_on(change).unwrap()).collect()
        }

        fn names(&self) -> Vec<String> {
            let list = |r: &Reader<'_>| r.all("select name from things order by rowid", &[], |row| row.get(0));
            self.runtime.block_on(self.db.read(ReaderShare::of_server(), list)).unwrap()
        }
    }

    fn insert(w: &Writer<'_>, name: &str) -> Result<()> {
        w.execute("insert into things (name) values (:name)", &[(":name", &name)]).map(drop)
    }

    fn refused() -> Result<()> {
        Err(ErrorCode::Busy.into())
    }

    #[test]
    fn a_failed_change_rolls_back_only_itself() {
        let fixture = Fixture::new();
        let answers = fixture.batch(vec![|w| insert(w, "a"), |w| insert(w, "b").and_then(|()| refused()), |w| {
            w.release_savepoint().and_then(|()| insert(w, "c"))
        }]);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(fixture.names(), ["a", "c"]);
    }

    #[test]
    fn the_writer_survives_a_panic_in_publish() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::of(directory.path());
        // The state before the batch is restored. `publish` panics only on 7.
        let publish = |state: &u8| assert_ne!(*state, 7, "not this one");
        let db = Db::open(&config, |_| Ok(0_u8), |_, before| before, publish).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let put = |value: u8| {
            runtime.block_on(db.write(move |w, state| {
                crate::kernel::db::sql::run(w.connection, "create table if not exists things (name text)")?;
                *state = value;
                Ok(())
            }))
        };
        assert!(put(7).is_err());
        assert!(db.is_alive());
        assert!(put(8).is_ok());
        assert_eq!(db.stats.panics.load(Ordering::Relaxed), 1);
        runtime.block_on(db.close());
    }

    #[test]
    fn nothing_is_committed_to_a_file_that_was_moved_replaced_or_deleted() {
        for name in ["roster.db", "roster.db-wal"] {
            let fixture = Fixture::new();
            let (file, aside) = (fixture.directory.path().join(name), fixture.directory.path().join("aside"));
            let refused = |why: &str| {
                let answer = fixture.runtime.block_on(fixture.write(|w| insert(w, "lost"))).unwrap();
                assert_eq!(answer.map_err(|e| e.code), Err(ErrorCode::DatabaseLost), "{name}: {why}");
                assert_eq!(fixture.db.health.faults(), [LOST], "{name}: {why}");
            };
            std::fs::rename(&file, &aside).unwrap();
            refused("moved");
            std::fs::write(&file, "another one").unwrap();
            refused("replaced");
            std::fs::rename(&aside, &file).unwrap();
            fixture.runtime.block_on(fixture.write(|w| insert(w, "kept"))).unwrap().unwrap();
            assert!(fixture.db.health.faults().is_empty(), "{name}");
            assert_eq!(fixture.names(), ["kept"]);
        }
    }

    #[test]
    fn a_change_that_fails_after_decided_fails_its_batch() {
        let fixture = Fixture::new();
        let answers = fixture.batch(vec![
            |w| insert(w, "a"),
            |w| {
                insert(w, "b")
                    .and_then(|()| w.release_savepoint())
                    .and_then(|()| insert(w, "c"))
                    .and_then(|()| refused())
            },
            |w| insert(w, "d"),
        ]);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false; 3]);
        assert_eq!(fixture.names(), [""; 0]);
        assert!(fixture.batch(vec![|w| insert(w, "e")])[0].is_ok());
        assert_eq!(fixture.names(), ["e"]);
    }
}
