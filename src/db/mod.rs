//! The SQLite file: a pool of readers, one writer thread, and nothing else that touches it.
//!
//! **Invariant.** A change that was answered survives a power cut (`synchronous=FULL`), and what the writer carries
//! in memory is published after the commit and before the answer. A job that fails or panics undoes itself alone.
//!
//! The writer takes all jobs that wait, up to `db.write_batch`, runs each in a savepoint of one transaction, and
//! commits once: that one fsync is shared by everybody who waited for it.

pub mod schema;
pub mod sql;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

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
}

impl Writer<'_> {
    /// One moment for the whole job.
    pub fn now(&self) -> Timestamp {
        self.now
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
}

/// The open transaction that a batch of jobs runs in.
struct Batch<'a, S> {
    connection: &'a Connection,
    state: &'a mut S,
    figures: &'a Figures,
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
    writer: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl<S: Clone + Send + 'static> Db<S> {
    /// Opens (or creates) the file, makes the first state from it and starts the writer.
    ///
    /// `publish` runs on the writer thread after each commit that changed the state.
    pub fn open<P>(config: &Config, load: fn(&Reader<'_>) -> Result<S>, publish: P) -> Result<Self>
    where
        P: Fn(&S) + Send + 'static,
    {
        let file = config.database_file();
        let connection = schema::open_writer(&file)?;
        let state = load(&Reader { connection: &connection })?;
        publish(&state);
        let figures = Arc::new(Figures::default());
        let capacity = size(config.write_queue_max);
        let (queue, jobs) = mpsc::channel(capacity);
        let loops = WriterLoop {
            connection,
            state,
            load,
            publish,
            figures: figures.clone(),
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
    let Batch { connection, state, figures } = batch;
    sql::run(connection, "savepoint job")?;
    let writer = Writer { reader: Reader { connection }, now: Timestamp::now() };
    let result = catch_unwind(AssertUnwindSafe(|| job(&writer, state))).unwrap_or_else(|panic| {
        figures.panics.fetch_add(1, Ordering::Relaxed);
        Err(Error::internal(format!("a change panicked: {}", panic_text(&panic))))
    });
    if result.is_err() {
        sql::run(connection, "rollback to job")?;
    }
    sql::run(connection, "release job")?;
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
    load: fn(&Reader<'_>) -> Result<S>,
    publish: P,
    figures: Arc<Figures>,
    batch_max: usize,
}

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
        let before = self.state.clone();
        let (answers, outcome) = match sql::run(&self.connection, "begin immediate") {
            Ok(()) => {
                let answers: Vec<Answer> = batch.into_iter().map(|job| job(Some(self.batch()))).collect();
                (answers, sql::run(&self.connection, "commit"))
            }
            Err(failure) => (batch.into_iter().map(|job| job(None)).collect(), Err(failure)),
        };
        match &outcome {
            Ok(()) => (self.publish)(&self.state),
            Err(failure) => {
                self.figures.commit_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(error = %failure, "a commit failed; nothing of the batch was kept");
                self.recover(before);
            }
        }
        for answer in answers {
            answer(outcome.clone());
        }
    }

    fn batch(&mut self) -> Batch<'_, S> {
        Batch { connection: &self.connection, state: &mut self.state, figures: &self.figures }
    }

    /// Back to what is committed: the rows by rollback, the state from before the batch.
    fn recover(&mut self, before: S) {
        if !self.connection.is_autocommit()
            && let Err(e) = sql::run(&self.connection, "rollback")
        {
            tracing::error!(error = %e, "the rollback failed");
        }
        // A commit that reports failure may still have reached the disk, so the file decides, not our memory.
        self.state = (self.load)(&Reader { connection: &self.connection }).unwrap_or(before);
        (self.publish)(&self.state);
    }
}
