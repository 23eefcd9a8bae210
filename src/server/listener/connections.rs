//! All open connections: how many there may be, in all and of one address, and which one goes when there is no space.
//!
//! A new connection is always let in as long as any other waits for its client: the one that is the least loss is closed
//! for it, one of the address with the most of them if it has many. A crowd that says nothing, or that is slow about what
//! it says, therefore keeps nobody out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::{Class, Connection, Rank, TimedOut, Timeouts};

/// How long a connection that was closed may take to give its descriptor back.
const CLOSING_WAIT: Duration = Duration::from_secs(1);
/// One address has at most this part of all connections that are really allowed.
const ADDRESS_PART: usize = 4;
/// An address that has no more than this is no crowd: it is neither cut to its part, nor does it go before others.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    per_address_max: usize,
    /// Bytes of answers that have not left yet, and how many there may be.
    answers: Arc<AtomicU64>,
    answers_max: u64,
    open: Mutex<Open>,
    /// Those that still have their descriptor, so also those that are being closed.
    alive: AtomicUsize,
    left: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    all: Group,
    by_address: HashMap<IpAddr, Group>,
}

#[derive(Debug, Default)]
struct Group {
    members: HashMap<u64, Arc<Connection>>,
    /// Who goes next, the last one first. Made when it is needed; an entry counts only while its rank is true. Only those
    /// of one class are kept in it: one of a class before it could have come since.
    queue: Vec<(Rank, u64)>,
}

/// The place of one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    pub(super) connection: Arc<Connection>,
    id: u64,
    of: Arc<Connections>,
}

/// What a connection is counted under. Who has one IPv6 address mostly has a network of 64 bits of them.
pub(super) fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            const NETWORK: u128 = !0 << 64;
            IpAddr::V6((address.to_bits() & NETWORK).into())
        }
        address => address,
    }
}

impl Connections {
    pub(super) fn new(max: usize, per_address_max: usize, answers_max: u64) -> Arc<Self> {
        let per_address_max = per_address_max.min((max / ADDRESS_PART).max(FEW));
        Arc::new(Self {
            max,
            per_address_max,
            answers: Arc::default(),
            answers_max,
            open: Mutex::default(),
            alive: AtomicUsize::new(0),
            left: Notify::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, and how many were closed for it; none if the server works for all others.
    pub(super) async fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> (Option<ConnectionSlot>, usize) {
        let (place, closed) = self.enter(address, Instant::now());
        let Some(place) = place else { return (None, closed) };
        let space = async {
            while self.alive.load(Ordering::Acquire) > self.max {
                self.left.notified().await;
            }
        };
        let has_space = closed == 0 || tokio::time::timeout(CLOSING_WAIT, space).await.is_ok();
        (has_space.then_some(place), closed)
    }

    fn enter(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> (Option<ConnectionSlot>, usize) {
        let mut open = self.open();
        let mut closed = 0;
        let of_address = address.and_then(|address| open.by_address.get_mut(&address));
        if let Some(group) = of_address.filter(|group| group.members.len() >= self.per_address_max) {
            let Some(id) = group.close_one(now, Class::Fresh) else { return (None, closed) };
            open.remove(id);
            closed += 1;
        }
        if open.all.members.len() >= self.max {
            if !open.close_one(now) {
                return (None, closed);
            }
            closed += 1;
        }
        let mut connection = Connection::new(address, now);
        connection.answers = self.answers.clone();
        let connection = Arc::new(connection);
        let id = open.next_id;
        open.next_id += 1;
        open.all.members.insert(id, connection.clone());
        if let Some(address) = address {
            open.by_address.entry(address).or_default().members.insert(id, connection.clone());
        }
        self.alive.fetch_add(1, Ordering::AcqRel);
        (Some(ConnectionSlot { connection, id, of: self.clone() }), closed)
    }

    /// Closes the connection that is the least loss; false if none waits.
    pub(super) fn close_one(&self) -> bool {
        self.open().close_one(Instant::now())
    }

    /// Counts an answer of so many bytes of a connection. Where there are too many, those go whose clients read nothing,
    /// the one first that was waited for longest; answers how many went, or none if that is not enough.
    pub(super) fn hold_answer(&self, connection: &Connection, bytes: u64) -> Option<usize> {
        let (mut in_flight, mut closed) = (connection.hold(bytes), 0);
        while in_flight > self.answers_max {
            let open = self.open();
            let unread = open.all.members.values().filter_map(|other| Some((other.unread_since()?, other)));
            let (_, slowest) = unread.min_by_key(|(since, _)| *since)?;
            slowest.close();
            slowest.let_go();
            closed += 1;
            in_flight = self.answers.load(Ordering::Acquire);
        }
        Some(closed)
    }

    /// Closes all whose client takes too long, and says of each what took too long.
    pub(super) fn close_late(&self, now: Instant, waits: &Timeouts, mut say: impl FnMut(TimedOut)) {
        for connection in self.open().all.members.values() {
            if let Some(late) = connection.close_if_late(now, waits) {
                say(late);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open().all.members.len()
    }

    /// Lets requests end that have begun, for so long, and closes all else.
    pub(super) async fn end(&self, wait: Duration) {
        let now = Instant::now();
        for connection in self.open().all.members.values() {
            let without_request = connection.rank(now).filter(|rank| rank.class != Class::Slow);
            let is_closed = without_request.is_some_and(|rank| connection.close_if(rank, now));
            if !is_closed {
                connection.wake();
            }
        }
        let gone = async || {
            while self.alive.load(Ordering::Acquire) > 0 {
                self.left.notified().await;
            }
        };
        if tokio::time::timeout(wait, gone()).await.is_ok() {
            return;
        }
        for connection in self.open().all.members.values() {
            connection.close();
        }
        let _ = tokio::time::timeout(CLOSING_WAIT, gone()).await;
    }
}

impl Open {
    /// Connections of class `Fresh` are closed last, even those of an address with many connections.
    fn close_one(&mut self, now: Instant) -> bool {
        for worst in [Class::Slow, Class::Fresh] {
            let largest = self.by_address.values_mut().max_by_key(|group| group.members.len());
            let crowd = largest.filter(|group| group.members.len() > FEW);
            let closed = crowd.and_then(|crowd| crowd.close_one(now, worst));
            if let Some(id) = closed.or_else(|| self.all.close_one(now, worst)) {
                self.remove(id);
                return true;
            }
        }
        false
    }

    fn remove(&mut self, id: u64) {
        let Some(connection) = self.all.members.remove(&id) else { return };
        let Some(address) = connection.address else { return };
        if let Some(group) = self.by_address.get_mut(&address) {
            group.members.remove(&id);
            if group.members.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Group {
    /// Closes the least valuable connection, but none of a class after `worst`; returns its id.
    fn close_one(&mut self, now: Instant, worst: Class) -> Option<u64> {
        if let Some(id) = self.close_queued(now, worst) {
            return Some(id);
        }
        self.queue = self.members.iter().filter_map(|(id, connection)| Some((connection.rank(now)?, *id))).collect();
        let first = self.queue.iter().map(|(rank, _)| rank.class).min()?;
        self.queue.retain(|(rank, _)| rank.class == first);
        self.queue.sort_unstable_by(|a, b| b.cmp(a));
        let closed = self.close_queued(now, worst);
        if first != Class::Waiting {
            self.queue.clear();
        }
        closed
    }

    fn close_queued(&mut self, now: Instant, worst: Class) -> Option<u64> {
        while let Some((rank, id)) = self.queue.pop_if(|(rank, _)| rank.class <= worst) {
            if self.members.get(&id).is_some_and(|connection| connection.close_if(rank, now)) {
                return Some(id);
            }
        }
        None
    }
}

impl ConnectionSlot {
    /// See [`Connections::hold_answer`].
    pub(super) fn hold_answer(&self, bytes: u64) -> Option<usize> {
        self.of.hold_answer(&self.connection, bytes)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.of.open().remove(self.id);
        self.connection.let_go();
        self.of.alive.fetch_sub(1, Ordering::AcqRel);
        self.of.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::FRESH;
    use super::*;

    const PEERS: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];

    fn peer(n: usize) -> Option<IpAddr> {
        PEERS[n].parse().ok()
    }

    const FRESH_MS: u64 = FRESH.as_millis() as u64;

    /// A connection that came so many milliseconds after the beginning.
    fn entered(
        connections: &Arc<Connections>,
        address: Option<IpAddr>,
        began: Instant,
        ms: u64,
    ) -> Option<ConnectionSlot> {
        connections.enter(address, began + Duration::from_millis(ms)).0
    }

    fn is_closed(place: &Option<ConnectionSlot>) -> bool {
        place.as_ref().expect("a place").connection.is_closed()
    }

    #[test]
    fn the_one_that_waited_longest_goes_for_one_past_the_limit() {
        let (connections, began) = (Connections::new(3, 3, u64::MAX), Instant::now());
        let places: Vec<_> = [20, 10, 30].map(|ms| entered(&connections, None, began, ms)).into();
        assert!(!places.iter().any(is_closed), "at the limit");
        let fourth = entered(&connections, None, began, 2 * FRESH_MS);
        assert_eq!(places.iter().map(is_closed).collect::<Vec<_>>(), [false, true, false]);
        assert!(!is_closed(&fourth));
        // One that has spoken since is younger than the list that was made then.
        let idle = &places[0].as_ref().expect("a place").connection;
        assert!(idle.has_request(began));
        idle.answered(began + Duration::from_millis(2 * FRESH_MS + 10));
        let _fifth = entered(&connections, None, began, 2 * FRESH_MS + 20);
        assert_eq!(places.iter().map(is_closed).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(connections.count(), 3);
    }

    #[test]
    fn nobody_goes_while_the_server_works_for_them_and_slow_requests_go_last() {
        let (connections, began) = (Connections::new(3, 3, u64::MAX), Instant::now());
        let places: Vec<_> = (0..3).map(|ms| entered(&connections, None, began, ms)).collect();
        for place in places.iter().flatten() {
            assert!(place.connection.has_request(began));
        }
        assert!(entered(&connections, None, began, 10).is_none(), "all are worked for");
        let [slow_body, slow_reader, idle] = [0, 1, 2].map(|n| &places[n].as_ref().expect("a place").connection);
        slow_body.waits_for_body(began);
        slow_reader.write_waits(began + Duration::from_millis(1));
        idle.answered(began + Duration::from_millis(2));
        let mut later = Vec::new();
        for closed in [[false, false, true], [true, false, true], [true, true, true]] {
            later.push(entered(&connections, None, began, 20));
            let newest = &later.last().and_then(Option::as_ref).expect("a place").connection;
            assert!(newest.has_request(began));
            assert_eq!(places.iter().map(is_closed).collect::<Vec<_>>(), closed);
        }
        assert!(entered(&connections, None, began, 30).is_none());
    }

    #[test]
    fn half_a_head_that_came_later_goes_before_a_request() {
        let (connections, began) = (Connections::new(2, 2, u64::MAX), Instant::now());
        let places: Vec<_> = (0..2).map(|ms| entered(&connections, None, began, ms)).collect();
        for place in places.iter().flatten() {
            assert!(place.connection.has_request(began));
            place.connection.waits_for_body(began);
        }
        let half = entered(&connections, None, began, 10);
        let other_half = entered(&connections, None, began, 10 + FRESH_MS);
        assert!(is_closed(&half) && !is_closed(&other_half));
        assert_eq!(places.iter().filter(|place| is_closed(place)).count(), 1);
    }

    #[test]
    fn an_address_past_its_limit_costs_itself_a_connection_and_nobody_else() {
        let (connections, began) = (Connections::new(10, 2, u64::MAX), Instant::now());
        let other = entered(&connections, peer(1), began, 0);
        let exempt: Vec<_> = (0..3).map(|ms| entered(&connections, None, began, ms)).collect();
        let own: Vec<_> = (10..12).map(|ms| entered(&connections, peer(0), began, ms)).collect();
        assert!(!own.iter().any(is_closed), "at the limit");
        let third = entered(&connections, peer(0), began, 20);
        assert_eq!(own.iter().map(is_closed).collect::<Vec<_>>(), [true, false]);
        assert!(!is_closed(&other) && !is_closed(&third) && !exempt.iter().any(is_closed));
        drop((own, third, other, exempt));
        assert_eq!(connections.count(), 0);
        assert!(connections.open().by_address.is_empty());
    }

    /// Whatever the settings say: a quarter of what is really allowed, but no fewer than a few.
    #[test]
    fn an_address_has_a_quarter_of_what_is_allowed() {
        for (max, setting, wanted) in [(768, 1_024, 192), (4_096, 1_024, 1_024), (768, 100, 100), (3, 1_024, 8)] {
            assert_eq!(Connections::new(max, setting, u64::MAX).per_address_max, wanted, "{max} {setting}");
        }
    }

    #[test]
    fn the_address_with_the_most_connections_goes_first_and_fresh_heads_go_last() {
        let (connections, began) = (Connections::new(60, 60, u64::MAX), Instant::now());
        let slow_body = |address, ms| {
            let place = entered(&connections, address, began, ms);
            let connection = &place.as_ref().expect("a place").connection;
            assert!(connection.has_request(began));
            connection.waits_for_body(began + Duration::from_millis(ms));
            place
        };
        // One that has waited for long, and a crowd of slow bodies, which have requests.
        let idle = entered(&connections, peer(1), began, 0);
        idle.as_ref().expect("a place").connection.answered(began);
        let crowd: Vec<_> = (1..=15).map(|ms| slow_body(peer(0), ms)).collect();
        let others: Vec<_> = (1..=44).map(|ms| slow_body(None, ms)).collect();
        let closed = |places: &[Option<ConnectionSlot>]| places.iter().filter(|place| is_closed(place)).count();

        // A member comes, and then more of the crowd before it has said anything.
        let member = entered(&connections, peer(2), began, 100);
        assert_eq!((closed(&crowd), is_closed(&crowd[0])), (1, true));
        let knocking: Vec<_> = (101..=300).map(|ms| entered(&connections, peer(0), began, ms)).collect();

        // They go for each other, and never for the member.
        assert!(!is_closed(&member), "its head is fresh");
        assert_eq!((closed(&crowd), closed(&others), is_closed(&idle)), (15, 0, true));
        assert_eq!((connections.count(), knocking.len() - closed(&knocking)), (60, 15));
        // After a second it is a head that does not come.
        let late = entered(&connections, peer(1), began, 100 + FRESH_MS);
        assert!(!is_closed(&late) && is_closed(&member));
    }

    #[test]
    fn of_too_many_bytes_of_answers_those_go_first_that_are_not_read() {
        let (connections, began) = (Connections::new(9, 9, 100), Instant::now());
        let places: Vec<_> = (0..4).map(|ms| entered(&connections, None, began, ms)).collect();
        let all: Vec<_> = places.iter().flatten().map(|place| &place.connection).collect();
        all.iter().for_each(|connection| assert!(connection.has_request(began)));
        assert_eq!(connections.hold_answer(all[0], 40), Some(0));
        assert_eq!(connections.hold_answer(all[1], 30), Some(0));
        assert_eq!(connections.hold_answer(all[2], 30), Some(0), "at the limit");
        all[0].write_waits(began + Duration::from_millis(2));
        all[1].write_waits(began + Duration::from_millis(1));
        assert_eq!(connections.hold_answer(all[3], 1), Some(1));
        assert_eq!(places.iter().map(is_closed).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!(connections.hold_answer(all[3], 60), Some(1));
        assert!(is_closed(&places[0]));
        assert_eq!(connections.hold_answer(all[3], 10), None, "nobody else is waited for");
        // What has left is in flight no more, nor is what is closed.
        all[3].answered(began);
        all[3].flushed(began);
        assert_eq!(connections.answers.load(Ordering::Acquire), 30);
        drop(places);
        assert_eq!(connections.answers.load(Ordering::Acquire), 0);
    }

    #[test]
    fn an_ipv6_network_and_an_address_within_ipv6_count_as_one() {
        let counted = |text: &str| counted_address(text.parse().expect("an address"));
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::ffff:1:2:3"));
        assert_ne!(counted("2001:db8::1"), counted("2001:db8:0:1::1"));
        assert_eq!(counted("::ffff:192.0.2.1"), counted("192.0.2.1"));
        assert_ne!(counted("192.0.2.1"), counted("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_new_connection_waits_until_the_descriptor_of_the_closed_one_is_back() {
        let connections = Connections::new(1, 1, u64::MAX);
        let first = connections.admit(None).await.0.expect("a place");
        let (second, ()) = tokio::join!(connections.admit(None), async {
            first.connection.woken().await;
            assert_eq!(connections.alive.load(Ordering::Acquire), 2);
            drop(first);
        });
        assert!(matches!(second, (Some(_), 1)));
        assert_eq!(connections.alive.load(Ordering::Acquire), 1);
    }
}
