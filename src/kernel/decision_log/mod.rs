//! The file of the decision log: its queue, its writer thread, and its queries.
//!
//! **Invariant.** The log never delays or fails a decision or the start. If the queue or the disk is full, rows are
//! dropped and counted; a file that cannot be used is moved aside. Within the limits, every row that was put can be
//! read afterwards.
//!
//! `synchronous=normal`: a power cut can lose the last rows and damages no others. No decision depends on these rows.

pub mod counts;
mod queue;
mod shares;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use queue::Queue;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row as SqlRow};
use shares::Shares;
use tokio::sync::{Semaphore, oneshot};

use super::db::sql::{self, Parameters};
use super::db::{List, ListPage, PageRequest, Reader, Writer, panic_text, schema};
use crate::kernel::authz::decide::Reason;
use crate::kernel::authz::resolved_request::RequestKind;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::runtime::health;

pub const SCHEMA: &str = include_str!("decisions.sql");
const VERSION: i64 = 1;

/// Rows that arrive within this time after the first one are written with it.
const GATHER: Duration = Duration::from_millis(20);
/// The most rows of one commit. With the pause before it this bounds the load of a flood of denials.
const BATCH_MAX: usize = 512;
/// How long a reader waits until earlier rows are written.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// How long a query waits for a permit.
const READ_WAIT: Duration = Duration::from_secs(2);
/// The shortest time between two warnings that the log cannot be written.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// The most concurrent queries.
const READERS: usize = 2;

/// A decision as it is stored.
#[derive(Debug, Clone)]
pub struct Row {
    pub at: Timestamp,
    pub epoch: u64,
    pub organization: Option<OrganizationId>,
    pub member: MemberId,
    pub kind: RequestKind,
    /// JSON, as are `left_out` and `plugins`.
    pub input: String,
    pub left_out: String,
    /// Whether plugins are consulted for this request.
    pub asks_plugins: bool,
    pub base: Reason,
    pub allow: bool,
    pub reason: Reason,
    pub plugins: String,
    pub differed: bool,
}

/// The filter of a query.
#[derive(Debug, Clone)]
pub struct DecisionFilter {
    pub organization: OrganizationId,
    /// Not before this time, in Unix milliseconds.
    pub from: Option<i64>,
    /// Before this time, in Unix milliseconds.
    pub to: Option<i64>,
    pub member: Option<MemberId>,
    pub allow: Option<bool>,
    /// The word of a reason. An unknown one matches no decision.
    pub reason: Option<String>,
    /// The name of a plugin that took part in the decision.
    pub plugin: Option<String>,
    pub differed: Option<bool>,
}

impl DecisionFilter {
    /// All decisions of an organization.
    pub fn of(organization: OrganizationId) -> Self {
        let (from, to, member, allow, reason, plugin, differed) = (None, None, None, None, None, None, None);
        Self { organization, from, to, member, allow, reason, plugin, differed }
    }
}

/// Decisions that were dropped since the start.
#[derive(Debug, Default)]
struct Dropped {
    all: AtomicU64,
    by_organization: Mutex<HashMap<Option<OrganizationId>, u64>>,
}

impl Dropped {
    fn count(&self, organization: Option<OrganizationId>) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut counts) = self.by_organization.lock() {
            *counts.entry(organization).or_default() += 1;
        }
    }
}

enum Message<T> {
    Put(Option<OrganizationId>, T),
    Forget(MemberId, oneshot::Sender<()>),
    Flush(oneshot::Sender<()>),
    End,
}

/// The log. It takes decisions as `T` and builds rows from them on its own thread.
pub struct DecisionLog<T> {
    file: PathBuf,
    queue: Arc<Queue<T>>,
    dropped: Arc<Dropped>,
    reading: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Send + 'static> DecisionLog<T> {
    /// Starts the writer thread. The file is created with the first row.
    pub fn open(config: &Config, form: fn(T) -> Row) -> Self {
        let (queue, dropped) = (Arc::new(Queue::new(config.decisions_queue_max)), Arc::<Dropped>::default());
        let file = config.data.join("decisions.db");
        let log_writer = LogWriter {
            file: file.clone(),
            connection: None,
            shares: None,
            form,
            limits: Limits {
                rows_max: config.decisions_rows_max,
                bytes_max: config.decisions_bytes_max,
                ttl_ms: i64::try_from(config.decisions_ttl_s.saturating_mul(1_000)).unwrap_or(i64::MAX),
            },
            queue: queue.clone(),
            dropped: dropped.clone(),
            warned_at: None,
        };
        let writer = health::spawn("decision-log", move || log_writer.run());
        let writer = writer
            .map_err(|e| tracing::error!(error = %e, "the decision log did not start: no decision is logged"))
            .ok();
        Self { file, queue, dropped, reading: Arc::new(Semaphore::new(READERS)), writer: Mutex::new(writer) }
    }

    /// Queues a decision without waiting. If the queue is full, the organization with most decisions in it loses one.
    pub fn put(&self, organization: Option<OrganizationId>, decision: T) {
        if let Some(lost) = self.queue.put(organization, decision) {
            self.dropped.count(lost);
        }
    }

    /// Whether the writer thread is running.
    pub fn is_alive(&self) -> bool {
        self.writer.lock().is_ok_and(|writer| writer.as_ref().is_some_and(|writer| !writer.is_finished()))
    }

    /// The number of decisions that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.all.load(Ordering::Relaxed)
    }

    /// The number of dropped decisions of one organization.
    pub fn dropped_of(&self, organization: OrganizationId) -> u64 {
        self.dropped.by_organization.lock().map_or(0, |counts| counts.get(&Some(organization)).copied().unwrap_or(0))
    }

    /// Deletes all rows about a member who is erased.
    pub async fn forget(&self, member: MemberId) {
        self.send_and_wait(|done| Message::Forget(member, done)).await;
    }

    /// Lists decisions, newest first, with their total number. Fails with `busy` when too many queries run.
    pub async fn read(&self, wanted: DecisionFilter, window: PageRequest) -> Result<ListPage<(i64, Row)>> {
        self.query(move |file| list(file, &wanted, &window)).await
    }

    /// Runs a query over everything that was put before. Fails with `busy` when too many queries run.
    async fn query<R: Send + 'static>(&self, query: impl FnOnce(&Path) -> Result<R> + Send + 'static) -> Result<R> {
        self.send_and_wait(Message::Flush).await;
        let busy = || Error::new(ErrorCode::Busy).retry_after(1);
        let permit = tokio::time::timeout(READ_WAIT, self.reading.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        let file = self.file.clone();
        let queried = tokio::task::spawn_blocking(move || {
            // Held until the query ends, even if its caller disconnects.
            let _permit = permit;
            query(&file).map_err(|e| match e.code {
                ErrorCode::DatabaseDamaged => {
                    e.with_message("the file decisions.db is damaged: stop Roster and delete it")
                }
                _ => e,
            })
        });
        queried.await.map_err(|e| Error::internal(format!("reading the decision log panicked: {e}")))?
    }

    /// Sends a message and waits until it and everything queued before it has been processed.
    async fn send_and_wait(&self, message: impl FnOnce(oneshot::Sender<()>) -> Message<T>) {
        let (done, is_done) = oneshot::channel();
        self.queue.send(message(done));
        if tokio::time::timeout(FLUSH_WAIT, is_done).await.is_err() {
            tracing::warn!("the decision log is slow: recent decisions may be missing in the list");
        }
    }

    /// Writes everything in the queue and closes the file.
    pub async fn close(&self) {
        let Some(writer) = self.writer.lock().ok().and_then(|mut slot| slot.take()) else { return };
        self.queue.send(Message::End);
        if !tokio::task::spawn_blocking(move || writer.join().is_ok()).await.unwrap_or(false) {
            tracing::error!("the decision log's thread panicked");
        }
    }
}

impl<T> Drop for DecisionLog<T> {
    fn drop(&mut self) {
        self.queue.send(Message::End);
    }
}

/// Limits of the file.
struct Limits {
    rows_max: u64,
    bytes_max: u64,
    ttl_ms: i64,
}

/// The state of the writer thread.
struct LogWriter<T> {
    file: PathBuf,
    connection: Option<Connection>,
    /// Shares of the organizations; `None` until the file is opened.
    shares: Option<Shares>,
    form: fn(T) -> Row,
    limits: Limits,
    queue: Arc<Queue<T>>,
    dropped: Arc<Dropped>,
    warned_at: Option<Instant>,
}

impl<T> Drop for LogWriter<T> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<T> LogWriter<T> {
    fn run(mut self) {
        if self.file.exists()
            && let Err(e) = self.in_transaction(|_, _| Ok(()))
        {
            self.give_up(&e, &[]);
        }
        let mut has_ended = false;
        while !has_ended {
            if self.queue.wait() {
                std::thread::sleep(GATHER);
            }
            let batch = self.queue.take(BATCH_MAX);
            has_ended = batch.iter().any(|message| matches!(message, Message::End));
            self.write_or_drop(batch);
        }
        if let Some(connection) = &self.connection
            && let Err(e) = connection.execute_batch("pragma wal_checkpoint(truncate)")
        {
            tracing::warn!(error = %e, "the decision log's last checkpoint failed; the next start repeats it");
        }
    }

    /// Processes a batch. A panic drops only this batch. Waiting callers are notified when everything is counted.
    fn write_or_drop(&mut self, batch: Vec<Message<T>>) {
        let (mut organizations, mut decisions, mut forgotten, mut waiting) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for message in batch {
            match message {
                Message::Put(organization, decision) => {
                    organizations.push(organization);
                    decisions.push(decision);
                }
                Message::Forget(member, done) => {
                    forgotten.push(member);
                    waiting.push(done);
                }
                Message::Flush(done) => waiting.push(done),
                Message::End => {}
            }
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write(decisions, &forgotten, &organizations))) {
            // This also ends its transaction.
            self.connection = None;
            self.give_up(&Error::internal(format!("a panic: {}", panic_text(&panic))), &organizations);
        }
        for done in waiting {
            // The caller may have stopped waiting.
            let _ = done.send(());
        }
    }

    /// Writes a batch in one transaction.
    fn write(&mut self, decisions: Vec<T>, forgotten: &[MemberId], organizations: &[Option<OrganizationId>]) {
        let rows: Vec<_> = decisions.into_iter().map(|decision| (self.form)(decision)).collect();
        let has_work = !rows.is_empty() || (!forgotten.is_empty() && self.file.exists());
        if has_work
            && let Err(e) = self.in_transaction(|w, shares| {
                rows.iter().try_for_each(|row| insert(w, row))?;
                rows.iter().for_each(|row| shares.count_inserted(row));
                forgotten.iter().try_for_each(|member| shares.forget(w, *member))
            })
        {
            self.give_up(&e, organizations);
        }
        if !forgotten.is_empty() {
            // A damaged file cannot be searched for a member, so it is deleted.
            remove(&aside(&self.file));
        }
    }

    /// Runs `work` in one transaction, and deletes rows past the limits in it. Opens the file if necessary.
    fn in_transaction(&mut self, work: impl FnOnce(&Writer<'_>, &mut Shares) -> Result<()>) -> Result<()> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.shares = None;
                open_or_replace(&self.file)?
            }
        };
        let connection = self.connection.insert(connection);
        sql::run(connection, "begin immediate")?;
        let writer = Writer::new(connection);
        let known = self.shares.clone();
        let done = known.map_or_else(|| Shares::count(&writer), Ok).and_then(|mut shares| {
            work(&writer, &mut shares)?;
            shares.prune(&writer, &self.limits)?;
            sql::run(connection, "commit")?;
            Ok(shares)
        });
        if done.is_err() && !connection.is_autocommit() {
            sql::run(connection, "rollback")?;
        }
        self.shares = Some(done?);
        Ok(())
    }

    /// Counts the rows of a batch as dropped. If the file is damaged, moves it aside, so that later rows can be
    /// written.
    fn give_up(&mut self, error: &Error, organizations: &[Option<OrganizationId>]) {
        organizations.iter().for_each(|organization| self.dropped.count(*organization));
        if self.warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(error = %error, "decisions could not be logged: they are counted as dropped");
        }
        let is_damaged = |connection: &Connection| schema::faults(connection).is_ok_and(|found| !found.is_empty());
        if self.connection.as_ref().is_some_and(is_damaged) {
            self.connection = None;
            move_aside(&self.file);
        }
    }
}

fn aside(file: &Path) -> PathBuf {
    file.with_extension("db.damaged")
}

fn side_files(file: &Path) -> [PathBuf; 2] {
    [file.with_extension("db-wal"), file.with_extension("db-shm")]
}

fn remove(file: &Path) {
    match std::fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(error = %e, file = %file.display(), "a part of the decision log cannot be removed");
        }
        _ => {}
    }
}

/// Renames a damaged file, so that it can be examined. Only the last one is kept.
fn move_aside(file: &Path) {
    let target = aside(file);
    match std::fs::rename(file, &target) {
        Ok(()) => {
            tracing::warn!(moved_to = %target.display(), "the decision log cannot be used and was moved aside; a new one is created");
        }
        Err(e) => tracing::warn!(error = %e, "the decision log cannot be used, and moving it aside failed"),
    }
    side_files(file).iter().for_each(|side| remove(side));
}

/// Opens the file, or moves it aside and creates a new one. Fails instead if the disk is full or read-only, or the file
/// is busy.
fn open_or_replace(file: &Path) -> Result<Connection> {
    open(file).or_else(|e| {
        if [ErrorCode::DatabaseFull, ErrorCode::DatabaseReadOnly, ErrorCode::Busy].contains(&e.code) {
            return Err(e);
        }
        tracing::warn!(error = %e, "the decision log cannot be opened");
        move_aside(file);
        open(file)
    })
}

fn open(file: &Path) -> Result<Connection> {
    let was_killed = side_files(file).iter().any(|side| std::fs::metadata(side).is_ok_and(|side| side.len() > 0));
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    made.map_err(|e| Error::internal(format!("{}: {e}", file.display())))?;
    let connection = Connection::open(file).map_err(sql::from_sqlite)?;
    schema::prepare(&connection).map_err(sql::from_sqlite)?;
    connection.execute_batch("pragma journal_mode = wal; pragma synchronous = normal;").map_err(sql::from_sqlite)?;
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql::from_sqlite)?;
    match found {
        0 => connection
            .execute_batch(&format!("begin; {SCHEMA} pragma user_version = {VERSION}; commit;"))
            .map_err(sql::from_sqlite)?,
        VERSION => {}
        other => return Err(Error::internal(format!("decisions.db has schema version {other}"))),
    }
    if was_killed {
        let faults = schema::faults(&connection)?;
        if !faults.is_empty() {
            return Err(Error::internal(faults.join("; ")));
        }
    }
    Ok(connection)
}

const INSERT_DECISION: &str = "
    insert into decisions (at, epoch, organization_id, member_id, kind, input, left_out, asks_plugins, base, allow,
                           reason, plugins, differed)
    values (:at, :epoch, :organization_id, :member_id, :kind, :input, :left_out, :asks_plugins, :base, :allow,
            :reason, :plugins, :differed)";

fn insert(w: &Writer<'_>, row: &Row) -> Result<()> {
    let epoch = i64::try_from(row.epoch).unwrap_or(i64::MAX);
    w.execute(
        INSERT_DECISION,
        &[
            (":at", &row.at),
            (":epoch", &epoch),
            (":organization_id", &row.organization),
            (":member_id", &row.member),
            (":kind", &row.kind.as_str()),
            (":input", &row.input),
            (":left_out", &row.left_out),
            (":asks_plugins", &row.asks_plugins),
            (":base", &row.base.as_str()),
            (":allow", &row.allow),
            (":reason", &row.reason.as_str()),
            (":plugins", &row.plugins),
            (":differed", &row.differed),
        ],
    )
    .map(drop)
}

const LIST_DECISIONS: List = List {
    name: "decisions",
    columns: "id, at, epoch, organization_id, member_id, kind, input, left_out, asks_plugins, base, allow, reason,
              plugins, differed",
    from: "decisions",
    joins: "",
    conditions: &[
        "organization_id = :organization_id",
        "member_id = :member_id",
        "+organization_id = :within",
        "+at >= :from",
        "+at < :to",
        "allow = :allow",
        "reason = :reason",
        "differed = :differed",
        "exists (select 1 from json_each(plugins) asked where asked.value ->> 'name' = :plugin)",
    ],
    order: &["id desc"],
    costly: &[":within", ":from", ":to", ":allow", ":reason", ":differed", ":plugin"],
    walked: &[":within", ":from", ":to", ":allow", ":reason", ":differed", ":plugin"],
    kept: &[],
};

fn list(file: &Path, wanted: &DecisionFilter, window: &PageRequest) -> Result<ListPage<(i64, Row)>> {
    if !file.exists() {
        return window.of_all(Vec::new(), LIST_DECISIONS.name);
    }
    let organization = Some(wanted.organization);
    let parameters: Parameters<'_> = &[
        (":organization_id", &organization.filter(|_| wanted.member.is_none())),
        (":within", &organization.filter(|_| wanted.member.is_some())),
        (":from", &wanted.from),
        (":to", &wanted.to),
        (":member_id", &wanted.member),
        (":allow", &wanted.allow),
        (":reason", &wanted.reason),
        (":differed", &wanted.differed),
        (":plugin", &wanted.plugin),
    ];
    on_reader(file, |r| r.page(&LIST_DECISIONS, parameters, window, row_of))
}

/// Runs a query on a new connection that cannot write.
fn on_reader<R>(file: &Path, query: impl FnOnce(&Reader<'_>) -> Result<R>) -> Result<R> {
    let mut connection = Connection::open_with_flags(file, schema::reader_flags()).map_err(sql::from_sqlite)?;
    schema::prepare_reader(&mut connection).map_err(sql::from_sqlite)?;
    let transaction = connection.transaction().map_err(sql::from_sqlite)?;
    query(&Reader { connection: &transaction })
}

/// Reads a word of a closed set.
fn word<T>(row: &SqlRow<'_>, column: usize, of: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    of(text).ok_or_else(|| FromSqlError::Other(format!("unknown word {text:?}").into()).into())
}

fn row_of(row: &SqlRow<'_>) -> rusqlite::Result<(i64, Row)> {
    Ok((
        row.get(0)?,
        Row {
            at: row.get(1)?,
            epoch: u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default(),
            organization: row.get(3)?,
            member: row.get(4)?,
            kind: word(row, 5, RequestKind::of)?,
            input: row.get(6)?,
            left_out: row.get(7)?,
            asks_plugins: row.get(8)?,
            base: word(row, 9, Reason::of)?,
            allow: row.get(10)?,
            reason: word(row, 11, Reason::of)?,
            plugins: row.get(12)?,
            differed: row.get(13)?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a row; panics for 7.
    fn form(n: u8) -> Row {
        assert_ne!(n, 7, "this decision cannot be converted");
        let text = |text: &str| text.to_owned();
        Row {
            at: Timestamp::now(),
            epoch: 1,
            organization: Some(OrganizationId(uuid::Uuid::nil())),
            member: MemberId(uuid::Uuid::nil()),
            kind: RequestKind::Permission,
            input: text("{}"),
            left_out: text("[]"),
            asks_plugins: false,
            base: Reason::OkGrant,
            allow: true,
            reason: Reason::OkGrant,
            plugins: text("[]"),
            differed: false,
        }
    }

    #[tokio::test]
    async fn a_panic_drops_its_batch_and_does_not_end_the_thread() {
        let directory = tempfile::tempdir().unwrap();
        let log = DecisionLog::open(&Config::of(directory.path()), form);
        let organization = OrganizationId(uuid::Uuid::nil());
        let total = async || log.read(DecisionFilter::of(organization), PageRequest::first(50)).await.unwrap().total;
        log.put(Some(organization), 1);
        assert_eq!(total().await, 1);
        log.put(Some(organization), 7);
        assert_eq!(total().await, 1);
        assert_eq!((log.dropped(), log.is_alive()), (1, true));
        log.put(Some(organization), 2);
        assert_eq!(total().await, 2);
        log.close().await;
    }

    const QUIET: OrganizationId = OrganizationId(uuid::Uuid::nil());
    const LOUD: OrganizationId = OrganizationId(uuid::Uuid::max());

    /// Decision 1 belongs to the quiet organization, all others to the loud one, each with `n` hundred bytes.
    fn form_of_two(n: u8) -> Row {
        let organization = Some(if n == 1 { QUIET } else { LOUD });
        Row { organization, input: format!("{{{}}}", " ".repeat(usize::from(n) * 100)), ..form(0) }
    }

    #[tokio::test]
    async fn a_loud_organization_displaces_no_decision_of_a_quiet_one() {
        for (rows_max, bytes_max, n) in [(100, u64::MAX, 2), (u64::MAX, 1_000_000, 90)] {
            let directory = tempfile::tempdir().unwrap();
            let mut config = Config::of(directory.path());
            (config.decisions_rows_max, config.decisions_bytes_max) = (rows_max, bytes_max);
            let log = DecisionLog::open(&config, form_of_two);
            log.put(Some(QUIET), 1);
            let total = async |of| log.read(DecisionFilter::of(of), PageRequest::first(50)).await.unwrap().total;
            for _ in 0..6 {
                for _ in 0..100 {
                    log.put(Some(LOUD), n);
                }
                assert_eq!(total(QUIET).await, 1);
            }
            let kept = total(LOUD).await;
            assert!(if n == 2 { kept == 99 } else { (40..=110).contains(&kept) }, "{kept}");
            log.close().await;
            // The shares are counted again after a restart.
            let log = DecisionLog::open(&config, form_of_two);
            log.put(Some(LOUD), n);
            log.send_and_wait(Message::Flush).await;
            assert_eq!(log.read(DecisionFilter::of(QUIET), PageRequest::first(50)).await.unwrap().total, 1);
            log.close().await;
        }
    }
}
