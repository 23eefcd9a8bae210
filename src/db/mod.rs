//! The SQLite file: a pool of readers, one writer thread, and nothing else that touches it.
//!
//! **Invariant.** A change that was answered survives a power cut (`synchronous=FULL`), and what the writer carries
//! in memory is published after the commit and before the answer. A job that fails undoes itself alone. One that panics
//! takes its batch along, because nobody knows how far it got with the state; so does one that fails after it said that
//! all is [`decided`](Writer::decided), which only a failing disk should bring about.
//!
//! The writer takes all jobs that wait, up to `db.write_batch`, runs each in a savepoint of one transaction, and
//! commits once: that one fsync is shared by everybody who waited for it.

pub mod decisions;
pub mod schema;
pub mod sql;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::config::Config;
use crate::error::{Cause, Error, Result};
use crate::ids::Timestamp;

/// A read-only view of one moment.
pub struct Reader<'a> {
    pub connection: &'a Connection,
}

/// The open transaction of one job. It reads what a [`Reader`] reads.
pub struct Writer<'a> {
    reader: Reader<'a>,
    now: Timestamp,
    is_decided: Cell<bool>,
}

impl<'a> Writer<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self { reader: Reader { connection }, now: Timestamp::now(), is_decided: Cell::new(false) }
    }

    /// One moment for the whole job.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes a change whose former content must not stay in what the file has free.
    pub fn erasing<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let set = |on: bool| self.connection.pragma_update(None, "secure_delete", on).map_err(sql::failed);
        set(true)?;
        let changed = change();
        set(false)?;
        changed
    }

    /// All that could be refused was asked: what fails from here on fails with its batch. In return SQLite need not copy
    /// each page before it changes, which is a good part of a change of many tables.
    pub fn decided(&self) -> Result<()> {
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

/// What the writer and the pool have done so far; read by `/metrics`.
#[derive(Debug, Default)]
pub struct Figures {
    pub jobs: AtomicU64,
    pub batches: AtomicU64,
    pub batch_largest: AtomicU64,
    pub queue_busy: AtomicU64,
    pub panics: AtomicU64,
    pub commit_failures: AtomicU64,
    /// Ends of batches, kept or not: as long as it stands still, no row has changed.
    pub ended: AtomicU64,
}

/// The open transaction that a batch of jobs runs in.
struct Batch<'a, S> {
    connection: &'a Connection,
    state: &'a mut S,
    figures: &'a Figures,
    /// Set by a job after which the batch as a whole cannot be kept.
    broken: &'a mut Option<Error>,
}

/// Runs in the batch's transaction (or in none, where none could be opened), and returns what is to be done when the
/// commit's fate is known.
type Job<S> = Box<dyn FnOnce(Option<Batch<'_, S>>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The database, with the state `S` that the writer carries from change to change.
pub struct Db<S> {
    readers: r2d2::Pool<SqliteConnectionManager>,
    reading: Arc<Semaphore>,
    read_wait: Duration,
    /// `None` tells the writer to end.
    queue: mpsc::Sender<Option<Job<S>>>,
    queue_capacity: usize,
    write_wait: Duration,
    pub figures: Arc<Figures>,
    /// Told after each batch, once it is published.
    pub committed: Arc<Notify>,
    writer: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl<S: Clone + Send + 'static> Db<S> {
    /// Opens (or creates) the file, makes the first state from it and starts the writer.
    ///
    /// `publish` runs on the writer thread after each commit that changed the state.
    pub fn open<P>(config: &Config, load: fn(&Reader<'_>) -> Result<S>, recover: Recover<S>, publish: P) -> Result<Self>
    where
        P: Fn(&S) + Send + 'static,
    {
        let file = config.database_file();
        let connection = schema::open_writer(&file)?;
        let state = load(&Reader { connection: &connection })?;
        // What was read for it is not read again.
        connection.release_memory().map_err(sql::failed)?;
        publish(&state);
        let (figures, committed) = (Arc::new(Figures::default()), Arc::new(Notify::new()));
        let capacity = size(config.write_queue_max);
        let (queue, jobs) = mpsc::channel(capacity);
        let loops = WriterLoop {
            connection,
            state,
            recover,
            publish,
            figures: figures.clone(),
            committed: committed.clone(),
            batch_max: size(config.write_batch_max),
        };
        let writer = std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || loops.run(jobs))
            .map_err(|e| Error::internal(format!("the writer thread did not start: {e}")))?;
        Ok(Self {
            readers: readers(&file, config)?,
            reading: Arc::new(Semaphore::new(size(config.readers))),
            read_wait: Duration::from_millis(config.read_wait_ms),
            queue,
            queue_capacity: capacity,
            write_wait: Duration::from_millis(config.write_wait_ms),
            figures,
            committed,
            writer: std::sync::Mutex::new(Some(writer)),
        })
    }

    /// Runs a query on the blocking pool, in one deferred transaction so that all its selects agree.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = tokio::time::timeout(self.read_wait, self.reading.clone().acquire_owned())
            .await
            .map_err(|_| busy("no read connection was free"))?
            .map_err(|_| Error::internal("the pool is closed"))?;
        let pool = self.readers.clone();
        let run = move || {
            let _permit = permit;
            let mut connection = pool.get().map_err(|e| Error::new(Cause::Database).because(e.to_string()))?;
            let transaction = connection.transaction().map_err(sql::failed)?;
            query(&Reader { connection: &transaction })
        };
        tokio::task::spawn_blocking(run).await.map_err(|e| Error::internal(format!("a query panicked: {e}")))?
    }

    /// Queues a change and waits until it is committed and published, or has failed without a trace.
    ///
    /// The job must change `S` only in its last, infallible steps: an error leaves the state as it was.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Writer<'_>, &mut S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let boxed: Job<S> = Box::new(move |batch| {
            let result = batch.map(|batch| in_savepoint(batch, job));
            Box::new(move |commit| {
                // A caller who went away does not undo what was decided.
                let _ = answer.send(match (commit, result) {
                    (Ok(()), Some(result)) => result,
                    (Ok(()), None) => Err(Error::internal("a change was committed without having run")),
                    (Err(failure), result) => result.unwrap_or_else(|| Err(failure.clone())).and(Err(failure)),
                });
            })
        });
        self.queue.send_timeout(Some(boxed), self.write_wait).await.map_err(|_| {
            self.figures.queue_busy.fetch_add(1, Ordering::Relaxed);
            busy("the writer's queue is full")
        })?;
        answered.await.map_err(|_| Error::internal("the writer has stopped"))?
    }

    /// Can changes still be made?
    pub fn is_alive(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Changes that wait for the writer now.
    pub fn queued(&self) -> usize {
        self.queue_capacity - self.queue.capacity()
    }

    /// Lets the writer finish what waits, then ends it; later changes fail.
    pub async fn close(&self) {
        let Some(handle) = self.writer.lock().ok().and_then(|mut slot| slot.take()) else { return };
        let was_alive = self.queue.send(None).await.is_ok();
        let ended = tokio::task::spawn_blocking(move || handle.join().is_ok()).await.unwrap_or(false);
        if !(was_alive && ended) {
            tracing::error!("the writer thread had panicked");
        }
    }
}

fn size(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}

fn busy(why: &'static str) -> Error {
    Error::new(Cause::Busy).because(why).retry_after(1)
}

fn readers(file: &Path, config: &Config) -> Result<r2d2::Pool<SqliteConnectionManager>> {
    let manager =
        SqliteConnectionManager::file(file).with_flags(schema::reader_flags()).with_init(schema::prepare_reader);
    r2d2::Pool::builder()
        .max_size(u32::try_from(config.readers).unwrap_or(u32::MAX))
        .min_idle(Some(1))
        .test_on_check_out(false)
        .connection_timeout(Duration::from_millis(config.read_wait_ms))
        .build(manager)
        .map_err(|e| Error::new(Cause::Database).because(e.to_string()))
}

fn in_savepoint<S, T>(batch: Batch<'_, S>, job: impl FnOnce(&Writer<'_>, &mut S) -> Result<T>) -> Result<T> {
    let Batch { connection, state, figures, broken } = batch;
    sql::run(connection, "savepoint job")?;
    let writer = Writer::new(connection);
    let result = catch_unwind(AssertUnwindSafe(|| job(&writer, state))).unwrap_or_else(|panic| {
        figures.panics.fetch_add(1, Ordering::Relaxed);
        let error = Error::internal(format!("a change panicked: {}", panic_text(&panic)));
        // Rows can be rolled back to the savepoint, but nobody knows how far the state got.
        *broken = Some(error.clone());
        Err(error)
    });
    let ended = match (&result, writer.is_decided.get()) {
        (Ok(_), false) => sql::run(connection, "release job"),
        (Ok(_), true) => Ok(()),
        (Err(_), false) => sql::run(connection, "rollback to job").and_then(|()| sql::run(connection, "release job")),
        (Err(failed), true) => Err(failed.clone()),
    };
    // A full disk makes SQLite roll back the whole transaction, not the savepoint alone.
    if ended.is_err() || connection.is_autocommit() {
        let first = result.as_ref().err().cloned().or(ended.err());
        *broken = Some(first.unwrap_or_else(|| Error::internal("the transaction ended before its time")));
    }
    result
}

/// What a panic said, for the log.
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
    figures: Arc<Figures>,
    committed: Arc<Notify>,
    batch_max: usize,
}

/// Makes the state again after a commit failed, from the rows and from the state before the batch.
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
            self.commit(batch);
        }
        // The last act of a graceful stop: leave one file, not three.
        if let Err(e) = self.connection.execute_batch("pragma wal_checkpoint(truncate)") {
            tracing::warn!(error = %e, "the last checkpoint failed; the next start repeats it");
        }
    }

    fn commit(&mut self, batch: Vec<Job<S>>) {
        self.figures.jobs.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.figures.batches.fetch_add(1, Ordering::Relaxed);
        self.figures.batch_largest.fetch_max(batch.len() as u64, Ordering::Relaxed);
        let begun = sql::run(&self.connection, "begin immediate");
        let before = self.state.clone();
        let mut broken = begun.as_ref().err().cloned();
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch {
            let (connection, state, figures) = (&self.connection, &mut self.state, &*self.figures);
            let open = broken.is_none().then_some(Batch { connection, state, figures, broken: &mut broken });
            answers.push(job(open));
        }
        let outcome = broken.map_or_else(|| sql::run(&self.connection, "commit"), Err);
        if let Err(failure) = &outcome {
            self.figures.commit_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(error = %failure, "a commit failed; nothing of the batch was kept");
            if begun.is_ok() {
                self.undo(before);
            }
        }
        self.figures.ended.fetch_add(1, Ordering::Release);
        (self.publish)(&self.state);
        self.committed.notify_waiters();
        for answer in answers {
            answer(outcome.clone());
        }
    }

    /// Back to what is committed.
    fn undo(&mut self, before: S) {
        if !self.connection.is_autocommit()
            && let Err(e) = sql::run(&self.connection, "rollback")
        {
            tracing::error!(error = %e, "the rollback failed");
        }
        self.state = (self.recover)(&Reader { connection: &self.connection }, before);
    }
}

/// Which part of a list is wanted; `limit` is capped, not refused.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub limit: u64,
    pub offset: u64,
}

impl Window {
    const DEFAULT: u64 = 50;
    const MAX: u64 = 200;
    /// The services of this site fetch whole lists.
    const INTERNAL_MAX: u64 = 500;

    pub fn new(limit: Option<u64>, offset: Option<u64>) -> Self {
        Self { limit: limit.unwrap_or(Self::DEFAULT).min(Self::MAX), offset: offset.unwrap_or(0).min(i64::MAX as u64) }
    }

    pub fn internal(limit: Option<u64>, offset: Option<u64>) -> Self {
        Self { limit: limit.unwrap_or(Self::INTERNAL_MAX).min(Self::INTERNAL_MAX), ..Self::new(limit, offset) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A database of one table, on two threads as in a server.
    struct Stand {
        db: Arc<Db<()>>,
        runtime: tokio::runtime::Runtime,
        _directory: tempfile::TempDir,
    }

    impl Stand {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let config = Config::of(directory.path());
            let db = Arc::new(Db::open(&config, |_| Ok(()), |_, ()| (), |()| ()).unwrap());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let stand = Self { db, runtime, _directory: directory };
            stand
                .runtime
                .block_on(stand.db.write(|w, ()| sql::run(w.connection, "create table things (name text)")))
                .unwrap();
            stand
        }

        fn write(
            &self,
            change: impl FnOnce(&Writer<'_>) -> Result<()> + Send + 'static,
        ) -> tokio::task::JoinHandle<Result<()>> {
            let db = self.db.clone();
            self.runtime.spawn(async move { db.write(move |w, ()| change(w)).await })
        }

        /// Runs changes in one batch: they wait behind another one until all of them are there.
        fn batch(&self, changes: Vec<fn(&Writer<'_>) -> Result<()>>) -> Vec<Result<()>> {
            let (go, wait) = mpsc::channel::<()>();
            let before = self.db.figures.batches.load(Ordering::Relaxed);
            let first = self.write(move |_| wait.recv().map_err(|_| Error::internal("nobody said go")));
            while self.db.figures.batches.load(Ordering::Relaxed) == before {
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
            self.runtime.block_on(self.db.read(list)).unwrap()
        }
    }

    fn insert(w: &Writer<'_>, name: &str) -> Result<()> {
        w.execute("insert into things (name) values (:name)", &[(":name", &name)]).map(drop)
    }

    fn refused() -> Result<()> {
        Err(Cause::Busy.into())
    }

    #[test]
    fn a_change_that_is_refused_undoes_itself_alone() {
        let stand = Stand::new();
        let answers = stand.batch(vec![|w| insert(w, "a"), |w| insert(w, "b").and_then(|()| refused()), |w| {
            w.decided().and_then(|()| insert(w, "c"))
        }]);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(stand.names(), ["a", "c"]);
    }

    #[test]
    fn a_change_that_fails_after_all_was_decided_takes_its_batch_along() {
        let stand = Stand::new();
        let answers = stand.batch(vec![
            |w| insert(w, "a"),
            |w| insert(w, "b").and_then(|()| w.decided()).and_then(|()| insert(w, "c")).and_then(|()| refused()),
            |w| insert(w, "d"),
        ]);
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false; 3]);
        assert_eq!(stand.names(), [""; 0]);
        assert!(stand.batch(vec![|w| insert(w, "e")])[0].is_ok());
        assert_eq!(stand.names(), ["e"]);
    }
}
