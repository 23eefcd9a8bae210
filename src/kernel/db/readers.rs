//! Read connections, and their fair scheduling.
//!
//! **Invariant.** The next free connection goes to the waiting party that holds the fewest, and within a party to the
//! caller that holds the fewest; among equals, to the one that waits longest. If there are several connections, no
//! party can hold all of them: the last one is reserved for the others. However slow the reads of one party are, others
//! wait for at most one of them.
//!
//! A read is interrupted when its caller disconnects, and after `db.read_ms` if its [`ReaderShare`] is limited.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use r2d2::{ManageConnection, PooledConnection};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Reader, busy, schema, size, sql};
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::runtime::health::WatchedFile;

/// A connection that is idle for this long is closed, unless it is the last one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Opens the connections of the pool, and those outside it.
fn manager(watched_files: Vec<WatchedFile>, config: &Config) -> SqliteConnectionManager {
    SqliteConnectionManager::file(config.database_file()).with_flags(schema::reader_flags()).with_init(
        move |connection| {
            // A file that replaced the open one is not the database of this server.
            match watched_files.iter().find(|watched| !watched.is_in_place()) {
                Some(changed) => Err(rusqlite::Error::InvalidPath(changed.path().to_owned())),
                None => schema::prepare_reader(connection),
            }
        },
    )
}

/// Interval at which a read that has not ended yet is interrupted again.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(20);

/// On whose behalf rows are read, for fair scheduling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderShare {
    /// The callers that share one part of the connections, such as an organization.
    pub party: String,
    /// The caller within the party. The only caller of a party has the party's name.
    pub caller: String,
    /// Whether the read is interrupted after `db.read_ms`.
    pub is_limited: bool,
}

impl ReaderShare {
    /// The server's own work.
    pub fn of_server() -> Self {
        Self::alone("server".into(), false)
    }

    /// A caller that is a party by itself.
    pub fn alone(name: String, is_limited: bool) -> Self {
        Self { party: name.clone(), caller: name, is_limited }
    }
}

/// The connections for reading.
pub struct Readers {
    /// As large as the number of permits, so that `get` never waits for a connection.
    pool: r2d2::Pool<SqliteConnectionManager>,
    /// Opens the connections outside the pool.
    manager: SqliteConnectionManager,
    max: usize,
    queue_max: usize,
    wait: Duration,
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The shares that hold a connection now.
    held: Vec<ReaderShare>,
    /// Waiting parties, in the order in which they are served.
    waiting: VecDeque<Party>,
}

struct Party {
    name: String,
    callers: VecDeque<Caller>,
}

struct Caller {
    name: String,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    share: ReaderShare,
    sender: oneshot::Sender<Permit>,
}

/// The right to use one connection of the pool; dropping it returns the right.
struct Permit {
    readers: Arc<Readers>,
    share: ReaderShare,
}

/// A connection outside the pool, for one read at a time; `None` until it is first needed.
pub type DedicatedConnection = Arc<tokio::sync::Mutex<Option<Connection>>>;

impl Readers {
    pub fn open(watched_files: Vec<WatchedFile>, config: &Config) -> Result<Arc<Self>> {
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(config.readers).unwrap_or(u32::MAX))
            .min_idle(Some(1))
            .idle_timeout(Some(IDLE_TIMEOUT))
            .test_on_check_out(false)
            .connection_timeout(Duration::from_millis(config.read_wait_ms))
            .build(manager(watched_files.clone(), config))
            .map_err(|e| Error::new(ErrorCode::Database).with_source(e.to_string()))?;
        let readers = Self {
            pool,
            manager: manager(watched_files, config),
            max: size(config.readers),
            queue_max: size(config.read_queue_max),
            wait: Duration::from_millis(config.read_wait_ms),
            longest: Duration::from_millis(config.read_ms_max),
            state: Mutex::default(),
        };
        Ok(Arc::new(readers))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> Result<Connection> {
        self.manager.connect().map_err(sql::from_sqlite)
    }

    /// Takes a connection out of the pool. The caller must hold a permit.
    fn pooled(&self) -> Result<PooledConnection<SqliteConnectionManager>> {
        self.pool.get().map_err(|e| Error::new(ErrorCode::Database).with_source(e.to_string()))
    }

    /// Runs a query when a connection is free for this share. Fails with `busy` after `db.read_wait_ms`, if too many
    /// reads of the caller wait, or if the read is limited and takes longer than `db.read_ms`.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        share: ReaderShare,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (slot, filled) = Slot::pair();
        self.run_pooled(share, Box::new(move |r| query(r).map(|answer| filled.fill(answer)))).await?;
        slot.take()
    }

    async fn run_pooled(self: &Arc<Self>, share: ReaderShare, query: Query) -> Result<()> {
        let longest = share.is_limited.then_some(self.longest);
        let permit = self.permit(share).await?;
        let running = Running::default();
        let reading = running.clone();
        let run = move || {
            let answer = reading.run(&mut *permit.readers.pooled()?, query);
            drop(permit);
            answer
        };
        let work = tokio::task::spawn_blocking(run);
        running.wait_for(work, longest).await
    }

    /// Runs a query on a connection outside the pool, for health checks and for queries that read whole tables.
    /// It waits only for other queries on the same connection.
    pub async fn read_dedicated<T: Send + 'static>(
        self: &Arc<Self>,
        apart: &DedicatedConnection,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (slot, filled) = Slot::pair();
        self.run_dedicated(apart, Box::new(move |r| query(r).map(|answer| filled.fill(answer)))).await?;
        slot.take()
    }

    async fn run_dedicated(self: &Arc<Self>, apart: &DedicatedConnection, query: Query) -> Result<()> {
        let locked = timeout(self.wait, apart.clone().lock_owned()).await;
        let mut idle = locked.map_err(|_| busy("the connection for this kind of read was not free"))?;
        let (readers, running) = (self.clone(), Running::default());
        let reading = running.clone();
        let run = move || {
            let mut connection = idle.take().map_or_else(|| readers.connect(), Ok)?;
            reading.run(&mut connection, query)?;
            *idle = Some(connection);
            Ok(())
        };
        running.wait_for(tokio::task::spawn_blocking(run), None).await
    }

    async fn permit(self: &Arc<Self>, share: ReaderShare) -> Result<Permit> {
        let (sender, receiver) = oneshot::channel();
        if !self.state().enqueue(Waiting { share, sender }, self.queue_max) {
            return Err(busy("db.read_queue: too many reads of this caller are waiting"));
        }
        self.dispatch();
        let permit = timeout(self.wait, receiver).await.map_err(|_| busy("no read connection was free"))?;
        permit.map_err(|_| Error::internal("a waiting read was dropped"))
    }

    /// Hands out permits as long as connections are free.
    fn dispatch(self: &Arc<Self>) {
        while let Some(Waiting { share, sender }) = self.next() {
            let permit = Permit { readers: self.clone(), share };
            // If the receiver was dropped, the permit is dropped here, and its `drop` serves the next read.
            drop(sender.send(permit));
        }
    }

    fn next(&self) -> Option<Waiting> {
        self.state().next(self.max)
    }

    /// Frees the page cache of an idle connection. (The pool itself closes connections that are idle for
    /// `IDLE_TIMEOUT`.)
    pub fn rest(&self) {
        if self.state().held.is_empty()
            && let Some(connection) = self.pool.try_get()
            && let Err(e) = connection.release_memory()
        {
            tracing::debug!(error = %e, "the page cache of a connection was not freed");
        }
    }
}

impl State {
    /// Queues a read. Returns false if too many reads of the same caller wait.
    fn enqueue(&mut self, waiting: Waiting, queue_max: usize) -> bool {
        let ReaderShare { party, caller, .. } = &waiting.share;
        let at = self.waiting.iter().position(|other| other.name == *party).unwrap_or_else(|| {
            self.waiting.push_back(Party { name: party.clone(), callers: VecDeque::new() });
            self.waiting.len() - 1
        });
        let callers = &mut self.waiting[at].callers;
        let at = callers.iter().position(|other| other.name == *caller).unwrap_or_else(|| {
            callers.push_back(Caller { name: caller.clone(), waiting: VecDeque::new() });
            callers.len() - 1
        });
        let own = &mut callers[at].waiting;
        if own.len() >= queue_max {
            // Reads of disconnected callers do not count.
            own.retain(|waiting| !waiting.sender.is_closed());
        }
        let is_accepted = own.len() < queue_max;
        if is_accepted {
            own.push_back(waiting);
        }
        is_accepted
    }

    /// Removes and returns the read to serve next, if one of the `max` connections is free for it.
    fn next(&mut self, max: usize) -> Option<Waiting> {
        while self.held.len() < max {
            let position = self.first(max)?;
            if let Some(next) = self.take(position).filter(|next| !next.sender.is_closed()) {
                self.held.push(next.share.clone());
                return Some(next);
            }
        }
        None
    }

    /// The positions of the party and of its caller to serve next.
    fn first(&self, max: usize) -> Option<(usize, usize)> {
        let of_party_max = max.saturating_sub(1).max(1);
        let of_caller_max = of_party_max.saturating_sub(1).max(1);
        let mut first = None;
        for (at, party) in self.waiting.iter().enumerate() {
            let of_party = || self.held.iter().filter(|share| share.party == party.name);
            let held = of_party().count();
            let caller = least(party.callers.iter().map(|caller| {
                let held = of_party().filter(|share| share.caller == caller.name).count();
                let is_alone = caller.name == party.name;
                (held, if is_alone { of_party_max } else { of_caller_max })
            }));
            if let Some((caller, _)) = caller
                && held < of_party_max
                && first.is_none_or(|(_, least)| held < least)
            {
                first = Some(((at, caller), held));
            }
            // No party can hold fewer. This bounds the loop: only as many parties as there are connections can hold
            // one.
            if held == 0 {
                break;
            }
        }
        first.map(|(position, _)| position)
    }

    /// Removes the first read of a caller. The caller moves to the end of its party, and the party to the end of the
    /// queue.
    fn take(&mut self, (party, caller): (usize, usize)) -> Option<Waiting> {
        let mut party = self.waiting.remove(party)?;
        let taken = party.callers.remove(caller).and_then(|mut caller| {
            let taken = caller.waiting.pop_front();
            if !caller.waiting.is_empty() {
                party.callers.push_back(caller);
            }
            taken
        });
        if !party.callers.is_empty() {
            self.waiting.push_back(party);
        }
        taken
    }

    fn release(&mut self, share: &ReaderShare) {
        if let Some(at) = self.held.iter().position(|held| held == share) {
            self.held.swap_remove(at);
        }
    }
}

/// Among the entries below their maximum, returns the position and the count of the first with the lowest count.
fn least(had_and_max: impl Iterator<Item = (usize, usize)>) -> Option<(usize, usize)> {
    let mut least = None;
    for (at, (had, max)) in had_and_max.enumerate() {
        if had < max && least.is_none_or(|(_, least)| had < least) {
            least = Some((at, had));
        }
        if had == 0 {
            break;
        }
    }
    least
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.readers.state().release(&self.share);
        self.readers.dispatch();
    }
}

/// A query whose answer goes through a [`Slot`].
type Query = Box<dyn FnOnce(&Reader<'_>) -> Result<()> + Send>;

/// Carries the answer of a boxed query or change to its caller. The code that runs it does not know the type of the
/// answer, so it is compiled once, not once for each query.
pub struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    /// The caller's side and the side of the query.
    pub fn pair() -> (Self, Self) {
        let answer = Arc::default();
        (Self(Arc::clone(&answer)), Self(answer))
    }

    pub fn fill(self, answer: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// Takes the answer of a query that succeeded.
    pub fn take(self) -> Result<T> {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.ok_or_else(|| Error::internal("a query succeeded without an answer"))
    }
}

/// A read that can be interrupted while it runs.
#[derive(Clone, Default)]
struct Running(Arc<Read>);

#[derive(Default)]
struct Read {
    /// Set only while this read uses the connection, so that no other read is interrupted.
    handle: Mutex<Option<InterruptHandle>>,
    /// Whether the caller has stopped waiting for the result.
    is_abandoned: AtomicBool,
}

impl Running {
    /// Runs the query in one deferred transaction, so that all its selects see the same data.
    fn run(&self, connection: &mut Connection, query: Query) -> Result<()> {
        if self.0.is_abandoned.load(Ordering::Acquire) {
            return Err(busy("the caller of this read has disconnected"));
        }
        *self.handle() = Some(connection.get_interrupt_handle());
        // Clears the handle also after a panic.
        let _runs = ClearHandle(self);
        connection.transaction().map_err(sql::from_sqlite).and_then(|t| query(&Reader { connection: &t }))
    }

    fn handle(&self) -> MutexGuard<'_, Option<InterruptHandle>> {
        self.0.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Interrupts the running statement. Returns whether the read is still running.
    fn interrupt(&self) -> bool {
        let handle = self.handle();
        if let Some(handle) = &*handle {
            handle.interrupt();
        }
        handle.is_some()
    }

    /// Waits for the read. Fails with `busy` if it takes longer than `longest`.
    async fn wait_for(self, work: JoinHandle<Result<()>>, longest: Option<Duration>) -> Result<()> {
        let waits = InterruptOnDrop(self);
        let read = match longest {
            None => work.await,
            Some(longest) => timeout(longest, work).await.map_err(|_| sql::took_too_long())?,
        };
        drop(waits);
        read.map_err(|e| Error::internal(format!("a query panicked: {e}")))?
    }
}

/// Clears the interrupt handle of a read when dropped.
struct ClearHandle<'r>(&'r Running);

impl Drop for ClearHandle<'_> {
    fn drop(&mut self) {
        *self.0.handle() = None;
    }
}

/// Interrupts the read when dropped, if it is still running.
struct InterruptOnDrop(Running);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        let running = self.0.clone();
        running.0.is_abandoned.store(true, Ordering::Release);
        if running.interrupt()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // An interrupt between two statements has no effect, so it is repeated.
            runtime.spawn(async move {
                while running.interrupt() {
                    tokio::time::sleep(INTERRUPT_INTERVAL).await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::kernel::error::ErrorCode;

    fn share(party: &str, caller: &str) -> ReaderShare {
        ReaderShare { party: party.into(), caller: caller.into(), is_limited: true }
    }

    /// The queue for `max` connections, and the receivers of its waiting reads.
    struct Fixture {
        state: State,
        max: usize,
        receivers: Vec<oneshot::Receiver<Permit>>,
    }

    impl Fixture {
        fn new(max: usize) -> Self {
            Self { state: State::default(), max, receivers: Vec::new() }
        }

        fn enqueue(&mut self, party: &str, caller: &str) -> bool {
            let (sender, receiver) = oneshot::channel();
            self.receivers.push(receiver);
            self.state.enqueue(Waiting { share: share(party, caller), sender }, 3)
        }

        /// Serves waiting reads as long as connections are free; returns the names of their parties and callers.
        fn serve(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.state.next(self.max)).map(|next| next.share.party + &next.share.caller).collect()
        }

        fn release(&mut self, party: &str, caller: &str) -> Vec<String> {
            let held = self.state.held.len();
            self.state.release(&share(party, caller));
            assert_eq!(self.state.held.len(), held - 1);
            self.serve()
        }
    }

    #[test]
    fn parties_and_callers_within_a_party_are_served_round_robin() {
        let mut fixture = Fixture::new(1);
        for (party, caller) in [("a", "1"), ("a", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("b", "1"), ("c", "1")] {
            assert!(fixture.enqueue(party, caller));
        }
        let mut order = fixture.serve();
        while let Some(last) = order.last().cloned() {
            let (party, caller) = last.split_at(1);
            let next = fixture.release(party, caller);
            if next.is_empty() {
                break;
            }
            order.extend(next);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b1", "a1", "a1"]);
        assert!(fixture.state.waiting.is_empty());
    }

    #[test]
    fn no_party_holds_all_connections_and_fewest_held_is_served_first() {
        for (max, of_party, of_caller) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 3, 2), (8, 7, 6)] {
            let mut fixture = Fixture::new(max);
            // More reads than connections, by many callers of one party.
            for n in 0..2 * max {
                assert!(fixture.enqueue("a", &n.to_string()));
            }
            assert_eq!(fixture.serve().len(), of_party, "{max}: a party");
            let mut fixture = Fixture::new(max);
            for _ in 0..2 * max {
                let _ = fixture
                    .state
                    .enqueue(Waiting { share: share("a", "1"), sender: stored_totals(&mut fixture.receivers) }, 99);
            }
            assert_eq!(fixture.serve().len(), of_caller, "{max}: one of several callers");
            let mut fixture = Fixture::new(max);
            for _ in 0..2 * max {
                let _ = fixture
                    .state
                    .enqueue(Waiting { share: share("a", "a"), sender: stored_totals(&mut fixture.receivers) }, 99);
            }
            assert_eq!(fixture.serve().len(), of_party, "{max}: the only caller of a party");
        }
        let mut fixture = Fixture::new(4);
        for (party, caller) in [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("b", "1")] {
            fixture.enqueue(party, caller);
        }
        assert_eq!(fixture.serve(), ["a1", "b1", "a2", "a3"]);
        for (party, caller) in [("b", "2"), ("c", "1"), ("c", "2")] {
            fixture.enqueue(party, caller);
        }
        assert_eq!(fixture.release("a", "1"), ["c1"]);
        assert_eq!(fixture.release("a", "2"), ["a4"], "equal counts: in the order of arrival");
        assert_eq!(fixture.release("a", "3"), ["b2"]);
    }

    fn stored_totals(receivers: &mut Vec<oneshot::Receiver<Permit>>) -> oneshot::Sender<Permit> {
        let (sender, receiver) = oneshot::channel();
        receivers.push(receiver);
        sender
    }

    #[test]
    fn waiting_reads_of_one_caller_are_limited_without_disconnected_ones() {
        let mut fixture = Fixture::new(1);
        for is_accepted in [true, true, true, false] {
            assert_eq!(fixture.enqueue("a", "1"), is_accepted);
        }
        assert!(fixture.enqueue("a", "2"), "another caller");
        fixture.receivers.remove(0);
        assert!(fixture.enqueue("a", "1"));
        assert!(!fixture.enqueue("a", "1"));
        fixture.receivers.clear();
        assert_eq!(fixture.serve(), [""; 0], "all have disconnected");
        assert!(fixture.state.waiting.is_empty() && fixture.state.held.is_empty());
    }

    /// The connections of a new database.
    fn readers(directory: &std::path::Path, change: impl FnOnce(&mut Config)) -> Arc<Readers> {
        let mut config = Config::of(directory);
        change(&mut config);
        drop(schema::open_writer(&config.database_file()).unwrap());
        let watched_files = vec![WatchedFile::of(&config.database_file()).unwrap()];
        Readers::open(watched_files, &config).unwrap()
    }

    const ENDLESS: &str = "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n";

    fn endless(r: &Reader<'_>) -> Result<i64> {
        r.connection.query_row(ENDLESS, [], |row| row.get(0)).map_err(sql::from_sqlite)
    }

    fn get(r: &Reader<'_>) -> Result<i64> {
        r.connection.query_row("select 1", [], |row| row.get(0)).map_err(sql::from_sqlite)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_read_is_interrupted_and_its_connection_stays_usable() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path(), |config| {
            config.readers = 1;
            config.read_ms_max = 10;
            config.read_wait_ms = 60_000;
        });
        for _ in 0..3 {
            let error = readers.read(share("a", "1"), endless).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::Busy, "{error}");
            assert_eq!(readers.read(ReaderShare::of_server(), get).await.unwrap(), 1);
        }
        assert!(readers.state().held.is_empty());
        assert_eq!(readers.pool.state().idle_connections, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_read_of_a_disconnected_caller_is_interrupted() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path(), |config| {
            config.readers = 1;
            config.read_wait_ms = 60_000;
        });
        let (begins, begun) = mpsc::channel();
        let running = readers.clone();
        let read = tokio::spawn(async move {
            let query = move |r: &Reader<'_>| {
                begins.send(()).map_err(|_| Error::internal("the test ended early"))?;
                endless(r)
            };
            running.read(ReaderShare::of_server(), query).await
        });
        tokio::task::block_in_place(|| begun.recv()).unwrap();
        read.abort();
        assert_eq!(readers.read(share("a", "1"), get).await.unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_reads_of_one_party_do_not_block_others() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path(), |config| config.read_wait_ms = 60_000);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let slow: Vec<_> = (0..20)
            .map(|n| {
                let (readers, wait) = (readers.clone(), wait.clone());
                let query = move |r: &Reader<'_>| {
                    // `recv` returns when the sender is dropped.
                    if let Ok(wait) = wait.lock() {
                        let _ = wait.recv();
                    }
                    get(r)
                };
                tokio::spawn(async move { readers.read(share("a", &n.to_string()), query).await })
            })
            .collect();
        while readers.state().held.len() < 3 {
            tokio::task::yield_now().await;
        }
        for n in 0..100 {
            assert_eq!(readers.read(share("b", &n.to_string()), get).await.unwrap(), 1);
        }
        let apart = DedicatedConnection::default();
        assert_eq!(readers.read_dedicated(&apart, get).await.unwrap(), 1);
        assert!(slow.iter().all(|read| !read.is_finished()));
        drop(go);
        for read in slow {
            assert_eq!(read.await.unwrap().unwrap(), 1);
        }
        assert!(readers.pool.state().connections <= 4);
    }
}
