//! Read connections, and whose turn it is at them.
//!
//! **Invariant.** Parties take turns at the connections, and within a party its callers: who has fewest is first, and of
//! those who have equally many the one who waits longest. Nobody has the last one, which is kept for others. However slow
//! the reads of one party are, nobody else waits for more than one of them.
//!
//! A read is ended when its caller goes away, and a caller's after `db.read_ms`.

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
use crate::kernel::runtime::health::WatchedFolder;

/// A connection that was not used for so long is closed, unless it is the last one.
const REST: Duration = Duration::from_secs(20);
/// Connections outside the pool are opened by this too.
fn manager(places: Vec<WatchedFolder>, config: &Config) -> SqliteConnectionManager {
    SqliteConnectionManager::file(config.database_file()).with_flags(schema::reader_flags()).with_init(
        move |connection| {
            // A file that took the place of the open one is nobody's policy.
            match places.iter().find(|place| !place.is_kept()) {
                Some(gone) => Err(rusqlite::Error::InvalidPath(gone.path().to_owned())),
                None => schema::prepare_reader(connection),
            }
        },
    )
}

/// How often a read is told to end that does not.
const END_AGAIN: Duration = Duration::from_millis(20);

/// For whom rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderShare {
    /// Who have one part of the connections together, such as an organization.
    pub party: String,
    /// Which of them it is. One who is a party alone has its name.
    pub caller: String,
    /// Does the read end after `db.read_ms`?
    pub is_limited: bool,
}

impl ReaderShare {
    /// The server's own work.
    pub fn of_server() -> Self {
        Self::alone("server".into(), false)
    }

    /// Somebody who shares with nobody.
    pub fn alone(name: String, is_limited: bool) -> Self {
        Self { party: name.clone(), caller: name, is_limited }
    }
}

/// The connections for reading.
pub struct Readers {
    /// Has a connection for each turn, so that nobody waits in it.
    pool: r2d2::Pool<SqliteConnectionManager>,
    /// Opens the connections beside the pool.
    manager: SqliteConnectionManager,
    max: usize,
    queue_max: usize,
    wait: Duration,
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who has one now.
    held: Vec<ReaderShare>,
    /// In the order of their turns.
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
    turn: ReaderShare,
    give: oneshot::Sender<Slot>,
}

/// The right to one connection.
struct Slot {
    readers: Arc<Readers>,
    turn: ReaderShare,
}

/// A connection beside the others, for one read at a time; `None` until it is needed.
pub type Apart = Arc<tokio::sync::Mutex<Option<Connection>>>;

impl Readers {
    pub fn open(places: Vec<WatchedFolder>, config: &Config) -> Result<Arc<Self>> {
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(config.readers).unwrap_or(u32::MAX))
            .min_idle(Some(1))
            .idle_timeout(Some(REST))
            .test_on_check_out(false)
            .connection_timeout(Duration::from_millis(config.read_wait_ms))
            .build(manager(places.clone(), config))
            .map_err(|e| Error::new(ErrorCode::Database).with_source(e.to_string()))?;
        let readers = Self {
            pool,
            manager: manager(places, config),
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
        self.manager.connect().map_err(sql::failed)
    }

    /// For who has a turn.
    fn pooled(&self) -> Result<PooledConnection<SqliteConnectionManager>> {
        self.pool.get().map_err(|e| Error::new(ErrorCode::Database).with_source(e.to_string()))
    }

    /// Runs a query in its turn.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        turn: ReaderShare,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let longest = turn.is_limited.then_some(self.longest);
        let slot = self.slot(turn).await?;
        let running = Running::default();
        let within = running.clone();
        let run = move || {
            let answer = within.during(&mut *slot.readers.pooled()?, query);
            drop(slot);
            answer
        };
        let work = tokio::task::spawn_blocking(run);
        running.ended(work, longest).await
    }

    /// Runs a query on a connection that no caller waits for: the health, and what looks at all there is. It waits for no
    /// turn but that of others on the same connection.
    pub async fn read_apart<T: Send + 'static>(
        self: &Arc<Self>,
        apart: &Apart,
        query: impl FnOnce(&Reader<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let own = timeout(self.wait, apart.clone().lock_owned()).await;
        let mut own = own.map_err(|_| busy("the connection for this kind of read was not free"))?;
        let (readers, running) = (self.clone(), Running::default());
        let within = running.clone();
        let run = move || {
            let mut connection = own.take().map_or_else(|| readers.connect(), Ok)?;
            let answer = within.during(&mut connection, query)?;
            *own = Some(connection);
            Ok(answer)
        };
        running.ended(tokio::task::spawn_blocking(run), None).await
    }

    async fn slot(self: &Arc<Self>, turn: ReaderShare) -> Result<Slot> {
        let (give, given) = oneshot::channel();
        if !self.state().enter(Waiting { turn, give }, self.queue_max) {
            return Err(busy("db.read_queue: the caller has as many reads that wait as it may have"));
        }
        self.pass_on();
        let slot = timeout(self.wait, given).await.map_err(|_| busy("no read connection was free"))?;
        slot.map_err(|_| Error::internal("a read lost its turn"))
    }

    /// Gives connections to those whose turn it is.
    fn pass_on(self: &Arc<Self>) {
        while let Some(Waiting { turn, give }) = self.next() {
            let slot = Slot { readers: self.clone(), turn };
            // Who went away does not take it: dropped, it goes to the next.
            drop(give.send(slot));
        }
    }

    fn next(&self) -> Option<Waiting> {
        self.state().next(self.max)
    }

    /// The pool closes what was not used for a while; what stays open, and is not used now, keeps none of its pages.
    pub fn rest(&self) {
        if self.state().held.is_empty()
            && let Some(connection) = self.pool.try_get()
            && let Err(e) = connection.release_memory()
        {
            tracing::debug!(error = %e, "a connection kept its pages");
        }
    }
}

impl State {
    /// Queues somebody, unless the same caller has too many waiting.
    fn enter(&mut self, waiting: Waiting, queue_max: usize) -> bool {
        let ReaderShare { party, caller, .. } = &waiting.turn;
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
            // Those who went away do not wait.
            own.retain(|waiting| !waiting.give.is_closed());
        }
        let has_room = own.len() < queue_max;
        if has_room {
            own.push_back(waiting);
        }
        has_room
    }

    /// Takes out whose turn it is, if one of the `max` connections is free for it.
    fn next(&mut self, max: usize) -> Option<Waiting> {
        while self.held.len() < max {
            let place = self.first(max)?;
            if let Some(next) = self.take(place).filter(|next| !next.give.is_closed()) {
                self.held.push(next.turn.clone());
                return Some(next);
            }
        }
        None
    }

    /// The party whose turn it is, and which of its callers.
    fn first(&self, max: usize) -> Option<(usize, usize)> {
        let of_party_max = max.saturating_sub(1).max(1);
        let of_caller_max = of_party_max.saturating_sub(1).max(1);
        let mut first = None;
        for (at, party) in self.waiting.iter().enumerate() {
            let of_party = || self.held.iter().filter(|turn| turn.party == party.name);
            let held = of_party().count();
            let caller = least(party.callers.iter().map(|caller| {
                let held = of_party().filter(|turn| turn.caller == caller.name).count();
                let is_alone = caller.name == party.name;
                (held, if is_alone { of_party_max } else { of_caller_max })
            }));
            if let Some((caller, _)) = caller
                && held < of_party_max
                && first.is_none_or(|(_, least)| held < least)
            {
                first = Some(((at, caller), held));
            }
            // Nobody has fewer. At most as many parties have any as there are connections, so that this comes soon.
            if held == 0 {
                break;
            }
        }
        first.map(|(place, _)| place)
    }

    /// Takes one out; the others of the same caller, and of the same party, go to the end.
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

    fn leave(&mut self, turn: &ReaderShare) {
        if let Some(at) = self.held.iter().position(|held| held == turn) {
            self.held.swap_remove(at);
        }
    }
}

/// The first of those that have least, with that, among those that have less than they may.
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

impl Drop for Slot {
    fn drop(&mut self) {
        self.readers.state().leave(&self.turn);
        self.readers.pass_on();
    }
}

/// A read that can be ended while it runs.
#[derive(Clone, Default)]
struct Running(Arc<Read>);

#[derive(Default)]
struct Read {
    /// There as long as the connection is this read's, so that no other read is ended.
    handle: Mutex<Option<InterruptHandle>>,
    /// Does nobody wait for the answer any more?
    is_left: AtomicBool,
}

impl Running {
    /// Runs the query, in one deferred transaction so that all its selects agree.
    fn during<T>(&self, connection: &mut Connection, query: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        if self.0.is_left.load(Ordering::Acquire) {
            return Err(busy("the caller of this read has disconnected"));
        }
        *self.handle() = Some(connection.get_interrupt_handle());
        // Also after a panic.
        let _runs = Runs(self);
        connection.transaction().map_err(sql::failed).and_then(|t| query(&Reader { connection: &t }))
    }

    fn handle(&self) -> MutexGuard<'_, Option<InterruptHandle>> {
        self.0.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the statement that runs; answers whether the read goes on as yet.
    fn end(&self) -> bool {
        let handle = self.handle();
        if let Some(handle) = &*handle {
            handle.interrupt();
        }
        handle.is_some()
    }

    /// Waits for the read, for as long as it may take.
    async fn ended<T>(self, work: JoinHandle<Result<T>>, longest: Option<Duration>) -> Result<T> {
        let waits = EndWhenLeft(self);
        let read = match longest {
            None => work.await,
            Some(longest) => timeout(longest, work).await.map_err(|_| sql::took_too_long())?,
        };
        drop(waits);
        read.map_err(|e| Error::internal(format!("a query panicked: {e}")))?
    }
}

/// The connection is this read's until this is dropped.
struct Runs<'r>(&'r Running);

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        *self.0.handle() = None;
    }
}

/// Ends a read that nobody waits for any more.
struct EndWhenLeft(Running);

impl Drop for EndWhenLeft {
    fn drop(&mut self) {
        let running = self.0.clone();
        running.0.is_left.store(true, Ordering::Release);
        if running.end()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // It may have been between two statements.
            runtime.spawn(async move {
                while running.end() {
                    tokio::time::sleep(END_AGAIN).await;
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

    fn turn(party: &str, caller: &str) -> ReaderShare {
        ReaderShare { party: party.into(), caller: caller.into(), is_limited: true }
    }

    /// A queue before so many connections, and those who wait in it.
    struct Stand {
        state: State,
        max: usize,
        given: Vec<oneshot::Receiver<Slot>>,
    }

    impl Stand {
        fn new(max: usize) -> Self {
            Self { state: State::default(), max, given: Vec::new() }
        }

        fn enters(&mut self, party: &str, caller: &str) -> bool {
            let (give, given) = oneshot::channel();
            self.given.push(given);
            self.state.enter(Waiting { turn: turn(party, caller), give }, 3)
        }

        /// Gives out what is free; answers to whom.
        fn given(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.state.next(self.max)).map(|next| next.turn.party + &next.turn.caller).collect()
        }

        fn leaves(&mut self, party: &str, caller: &str) -> Vec<String> {
            let held = self.state.held.len();
            self.state.leave(&turn(party, caller));
            assert_eq!(self.state.held.len(), held - 1);
            self.given()
        }
    }

    #[test]
    fn parties_take_turns_and_within_them_their_callers() {
        let mut stand = Stand::new(1);
        for (party, caller) in [("a", "1"), ("a", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("b", "1"), ("c", "1")] {
            assert!(stand.enters(party, caller));
        }
        let mut order = stand.given();
        while let Some(last) = order.last().cloned() {
            let (party, caller) = last.split_at(1);
            let next = stand.leaves(party, caller);
            if next.is_empty() {
                break;
            }
            order.extend(next);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b1", "a1", "a1"]);
        assert!(stand.state.waiting.is_empty());
    }

    #[test]
    fn nobody_has_the_last_connection_and_who_has_fewest_is_first() {
        for (max, of_party, of_caller) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 3, 2), (8, 7, 6)] {
            let mut stand = Stand::new(max);
            // More than there are connections, of many callers of one party.
            for n in 0..2 * max {
                assert!(stand.enters("a", &n.to_string()));
            }
            assert_eq!(stand.given().len(), of_party, "{max}: a party");
            let mut stand = Stand::new(max);
            for _ in 0..2 * max {
                let _ = stand.state.enter(Waiting { turn: turn("a", "1"), give: kept(&mut stand.given) }, 99);
            }
            assert_eq!(stand.given().len(), of_caller, "{max}: one of several callers");
            let mut stand = Stand::new(max);
            for _ in 0..2 * max {
                let _ = stand.state.enter(Waiting { turn: turn("a", "a"), give: kept(&mut stand.given) }, 99);
            }
            assert_eq!(stand.given().len(), of_party, "{max}: one who is a party alone");
        }
        let mut stand = Stand::new(4);
        for (party, caller) in [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("b", "1")] {
            stand.enters(party, caller);
        }
        assert_eq!(stand.given(), ["a1", "b1", "a2", "a3"]);
        for (party, caller) in [("b", "2"), ("c", "1"), ("c", "2")] {
            stand.enters(party, caller);
        }
        assert_eq!(stand.leaves("a", "1"), ["c1"]);
        assert_eq!(stand.leaves("a", "2"), ["a4"], "one each: as they came");
        assert_eq!(stand.leaves("a", "3"), ["b2"]);
    }

    fn kept(given: &mut Vec<oneshot::Receiver<Slot>>) -> oneshot::Sender<Slot> {
        let (give, receiver) = oneshot::channel();
        given.push(receiver);
        give
    }

    #[test]
    fn a_caller_has_so_many_waiting_and_who_went_away_does_not_count() {
        let mut stand = Stand::new(1);
        for is_let_in in [true, true, true, false] {
            assert_eq!(stand.enters("a", "1"), is_let_in);
        }
        assert!(stand.enters("a", "2"), "another caller");
        stand.given.remove(0);
        assert!(stand.enters("a", "1"));
        assert!(!stand.enters("a", "1"));
        stand.given.clear();
        assert_eq!(stand.given(), [""; 0], "nobody is there any more");
        assert!(stand.state.waiting.is_empty() && stand.state.held.is_empty());
    }

    /// The connections of a new database.
    fn readers(directory: &std::path::Path, change: impl FnOnce(&mut Config)) -> Arc<Readers> {
        let mut config = Config::of(directory);
        change(&mut config);
        drop(schema::open_writer(&config.database_file()).unwrap());
        let places = vec![WatchedFolder::of(&config.database_file()).unwrap()];
        Readers::open(places, &config).unwrap()
    }

    const ENDLESS: &str = "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n";

    fn endless(r: &Reader<'_>) -> Result<i64> {
        r.connection.query_row(ENDLESS, [], |row| row.get(0)).map_err(sql::failed)
    }

    fn one(r: &Reader<'_>) -> Result<i64> {
        r.connection.query_row("select 1", [], |row| row.get(0)).map_err(sql::failed)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_that_takes_too_long_is_ended_and_its_connection_serves_on() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path(), |config| {
            config.readers = 1;
            config.read_ms_max = 10;
            config.read_wait_ms = 60_000;
        });
        for _ in 0..3 {
            let ended = readers.read(turn("a", "1"), endless).await.unwrap_err();
            assert_eq!(ended.cause, ErrorCode::Busy, "{ended}");
            assert_eq!(readers.read(ReaderShare::of_server(), one).await.unwrap(), 1);
        }
        assert!(readers.state().held.is_empty());
        assert_eq!(readers.pool.state().idle_connections, 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_goes_away_leaves_no_read_behind() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path(), |config| {
            config.readers = 1;
            config.read_wait_ms = 60_000;
        });
        let (begins, begun) = mpsc::channel();
        let running = readers.clone();
        let read = tokio::spawn(async move {
            let query = move |r: &Reader<'_>| {
                begins.send(()).map_err(|_| Error::internal("nobody waits"))?;
                endless(r)
            };
            running.read(ReaderShare::of_server(), query).await
        });
        tokio::task::block_in_place(|| begun.recv()).unwrap();
        read.abort();
        assert_eq!(readers.read(turn("a", "1"), one).await.unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_reads_of_one_party_keep_nobody_else_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(directory.path(), |config| config.read_wait_ms = 60_000);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let slow: Vec<_> = (0..20)
            .map(|n| {
                let (readers, wait) = (readers.clone(), wait.clone());
                let query = move |r: &Reader<'_>| {
                    // It ends when nobody can say it any more.
                    if let Ok(wait) = wait.lock() {
                        let _ = wait.recv();
                    }
                    one(r)
                };
                tokio::spawn(async move { readers.read(turn("a", &n.to_string()), query).await })
            })
            .collect();
        while readers.state().held.len() < 3 {
            tokio::task::yield_now().await;
        }
        for n in 0..100 {
            assert_eq!(readers.read(turn("b", &n.to_string()), one).await.unwrap(), 1);
        }
        let apart = Apart::default();
        assert_eq!(readers.read_apart(&apart, one).await.unwrap(), 1);
        assert!(slow.iter().all(|read| !read.is_finished()));
        drop(go);
        for read in slow {
            assert_eq!(read.await.unwrap().unwrap(), 1);
        }
        assert!(readers.pool.state().connections <= 4);
    }
}
