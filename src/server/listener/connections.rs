//! All open connections: the limits in total and per address, and which connection is closed when a limit is reached.
//!
//! A new connection is accepted as long as another one waits for its client: the least valuable connection is closed
//! for it, one of the address with the most connections if that address has many. Many silent or slow connections
//! therefore cannot keep other clients out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::{Class, Connection, Rank, TimedOut, Timeouts};

/// How long a closed connection may take to release its descriptor.
const CLOSING_WAIT: Duration = Duration::from_secs(1);
/// One address has at most one in `ADDRESS_DIVISOR` of all allowed connections.
const ADDRESS_DIVISOR: usize = 4;
/// An address with at most this many connections is not limited to its share, and its connections are not closed before
/// those of other addresses.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    per_address_max: usize,
    /// Bytes of answers that are not sent yet, and their limit.
    answers: Arc<AtomicU64>,
    answers_max: u64,
    open: Mutex<Open>,
    /// Connections that hold a descriptor, including those that are being closed.
    alive: AtomicUsize,
    /// Notified when a connection has released its descriptor.
    released: Notify,
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
    /// The connections to close next, the last entry first. Filled on demand; an entry is valid while its connection
    /// has this rank. All entries are of one class, because a connection of a lower class can appear later.
    queue: Vec<(Rank, u64)>,
}

/// The slot of one connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    pub(super) connection: Arc<Connection>,
    id: u64,
    of: Arc<Connections>,
}

/// The address that a connection counts for. IPv6 addresses count by their /64 network, because clients usually have
/// one.
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
        let per_address_max = per_address_max.min((max / ADDRESS_DIVISOR).max(FEW));
        Arc::new(Self {
            max,
            per_address_max,
            answers: Arc::default(),
            answers_max,
            open: Mutex::default(),
            alive: AtomicUsize::new(0),
            released: Notify::new(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a new connection, and returns how many were closed for it. Returns no slot if the server processes
    /// requests of all others.
    pub(super) async fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> (Option<ConnectionSlot>, usize) {
        let (slot, closed) = self.insert(address, Instant::now());
        let Some(slot) = slot else { return (None, closed) };
        let space = async {
            while self.alive.load(Ordering::Acquire) > self.max {
                self.released.notified().await;
            }
        };
        let has_space = closed == 0 || tokio::time::timeout(CLOSING_WAIT, space).await.is_ok();
        (has_space.then_some(slot), closed)
    }

    fn insert(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> (Option<ConnectionSlot>, usize) {
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

    /// Closes the least valuable connection. Returns false if none waits for its client.
    pub(super) fn close_one(&self) -> bool {
        self.open().close_one(Instant::now())
    }

    /// Counts an answer of `bytes` bytes as in flight. Above the limit, closes connections whose clients do not read,
    /// longest waiting first. Returns how many were closed, or `None` if that does not suffice.
    pub(super) fn hold_answer(&self, connection: &Connection, bytes: u64) -> Option<usize> {
        let (mut in_flight, mut closed) = (connection.hold(bytes), 0);
        while in_flight > self.answers_max {
            let open = self.open();
            let unread = open.all.members.values().filter_map(|other| Some((other.unread_since()?, other)));
            let (_, slowest) = unread.min_by_key(|(since, _)| *since)?;
            slowest.close();
            slowest.release_answers();
            closed += 1;
            in_flight = self.answers.load(Ordering::Acquire);
        }
        Some(closed)
    }

    /// Closes all connections that exceed a timeout, and reports each timeout.
    pub(super) fn close_late(&self, now: Instant, timeouts: &Timeouts, mut report: impl FnMut(TimedOut)) {
        for connection in self.open().all.members.values() {
            if let Some(kind) = connection.close_if_late(now, timeouts) {
                report(kind);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open().all.members.len()
    }

    /// Closes connections without a request, and waits for running requests up to `wait`. Then closes the rest.
    pub(super) async fn end(&self, wait: Duration) {
        let now = Instant::now();
        for connection in self.open().all.members.values() {
            let without_request = connection.rank(now).filter(|rank| rank.class != Class::Slow);
            let is_closed = without_request.is_some_and(|rank| connection.close_if(rank, now));
            if !is_closed {
                connection.wake();
            }
        }
        let all_released = async || {
            while self.alive.load(Ordering::Acquire) > 0 {
                self.released.notified().await;
            }
        };
        if tokio::time::timeout(wait, all_released()).await.is_ok() {
            return;
        }
        for connection in self.open().all.members.values() {
            connection.close();
        }
        let _ = tokio::time::timeout(CLOSING_WAIT, all_released()).await;
    }
}

impl Open {
    /// Closes the least valuable connection, preferring those of the address with the most connections if it has more
    /// than `FEW`. Connections of class `Fresh` are closed last, also those of that address. Returns whether one was
    /// closed.
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
    /// Closes the least valuable connection of at most class `worst`. Returns its id.
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
        self.connection.release_answers();
        self.of.alive.fetch_sub(1, Ordering::AcqRel);
        self.of.released.notify_one();
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

    /// Admits a connection `ms` milliseconds after `began`.
    fn admitted(
        connections: &Arc<Connections>,
        address: Option<IpAddr>,
        began: Instant,
        ms: u64,
    ) -> Option<ConnectionSlot> {
        connections.insert(address, began + Duration::from_millis(ms)).0
    }

    fn is_closed(slot: &Option<ConnectionSlot>) -> bool {
        slot.as_ref().expect("a slot").connection.is_closed()
    }

    #[test]
    fn one_connection_past_the_limit_closes_the_longest_waiting_one() {
        let (connections, began) = (Connections::new(3, 3, u64::MAX), Instant::now());
        let slots: Vec<_> = [20, 10, 30].map(|ms| admitted(&connections, None, began, ms)).into();
        assert!(!slots.iter().any(is_closed), "at the limit");
        let fourth = admitted(&connections, None, began, 2 * FRESH_MS);
        assert_eq!(slots.iter().map(is_closed).collect::<Vec<_>>(), [false, true, false]);
        assert!(!is_closed(&fourth));
        // A connection with a later request is younger than the list that was filled before.
        let idle = &slots[0].as_ref().expect("a slot").connection;
        assert!(idle.has_request(began));
        idle.answered(began + Duration::from_millis(2 * FRESH_MS + 10));
        let _fifth = admitted(&connections, None, began, 2 * FRESH_MS + 20);
        assert_eq!(slots.iter().map(is_closed).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(connections.count(), 3);
    }

    #[test]
    fn a_connection_with_a_running_request_is_not_closed_and_slow_ones_are_closed_last() {
        let (connections, began) = (Connections::new(3, 3, u64::MAX), Instant::now());
        let slots: Vec<_> = (0..3).map(|ms| admitted(&connections, None, began, ms)).collect();
        for slot in slots.iter().flatten() {
            assert!(slot.connection.has_request(began));
        }
        assert!(admitted(&connections, None, began, 10).is_none(), "all have running requests");
        let [slow_body, slow_reader, idle] = [0, 1, 2].map(|n| &slots[n].as_ref().expect("a slot").connection);
        slow_body.waits_for_body(began);
        slow_reader.write_waits(began + Duration::from_millis(1));
        idle.answered(began + Duration::from_millis(2));
        let mut later = Vec::new();
        for closed in [[false, false, true], [true, false, true], [true, true, true]] {
            later.push(admitted(&connections, None, began, 20));
            let newest = &later.last().and_then(Option::as_ref).expect("a slot").connection;
            assert!(newest.has_request(began));
            assert_eq!(slots.iter().map(is_closed).collect::<Vec<_>>(), closed);
        }
        assert!(admitted(&connections, None, began, 30).is_none());
    }

    #[test]
    fn a_later_incomplete_head_is_closed_before_a_request() {
        let (connections, began) = (Connections::new(2, 2, u64::MAX), Instant::now());
        let slots: Vec<_> = (0..2).map(|ms| admitted(&connections, None, began, ms)).collect();
        for slot in slots.iter().flatten() {
            assert!(slot.connection.has_request(began));
            slot.connection.waits_for_body(began);
        }
        let half = admitted(&connections, None, began, 10);
        let other_half = admitted(&connections, None, began, 10 + FRESH_MS);
        assert!(is_closed(&half) && !is_closed(&other_half));
        assert_eq!(slots.iter().filter(|slot| is_closed(slot)).count(), 1);
    }

    #[test]
    fn an_address_past_its_limit_loses_one_of_its_own_connections() {
        let (connections, began) = (Connections::new(10, 2, u64::MAX), Instant::now());
        let other = admitted(&connections, peer(1), began, 0);
        let exempt: Vec<_> = (0..3).map(|ms| admitted(&connections, None, began, ms)).collect();
        let own: Vec<_> = (10..12).map(|ms| admitted(&connections, peer(0), began, ms)).collect();
        assert!(!own.iter().any(is_closed), "at the limit");
        let third = admitted(&connections, peer(0), began, 20);
        assert_eq!(own.iter().map(is_closed).collect::<Vec<_>>(), [true, false]);
        assert!(!is_closed(&other) && !is_closed(&third) && !exempt.iter().any(is_closed));
        drop((own, third, other, exempt));
        assert_eq!(connections.count(), 0);
        assert!(connections.open().by_address.is_empty());
    }

    /// The setting is capped at a quarter of the allowed connections, but not below `FEW`.
    #[test]
    fn an_address_has_at_most_a_quarter_of_all_connections() {
        for (max, setting, wanted) in [(768, 1_024, 192), (4_096, 1_024, 1_024), (768, 100, 100), (3, 1_024, 8)] {
            assert_eq!(Connections::new(max, setting, u64::MAX).per_address_max, wanted, "{max} {setting}");
        }
    }

    #[test]
    fn the_address_with_the_most_connections_loses_first_and_fresh_heads_are_closed_last() {
        let (connections, began) = (Connections::new(60, 60, u64::MAX), Instant::now());
        let slow_body = |address, ms| {
            let slot = admitted(&connections, address, began, ms);
            let connection = &slot.as_ref().expect("a slot").connection;
            assert!(connection.has_request(began));
            connection.waits_for_body(began + Duration::from_millis(ms));
            slot
        };
        // One idle connection that has waited for long, and many connections with slow bodies.
        let idle = admitted(&connections, peer(1), began, 0);
        idle.as_ref().expect("a slot").connection.answered(began);
        let crowd: Vec<_> = (1..=15).map(|ms| slow_body(peer(0), ms)).collect();
        let others: Vec<_> = (1..=44).map(|ms| slow_body(None, ms)).collect();
        let closed = |slots: &[Option<ConnectionSlot>]| slots.iter().filter(|slot| is_closed(slot)).count();

        // A member connects, and then more connections of the crowd before the member has sent anything.
        let member = admitted(&connections, peer(2), began, 100);
        assert_eq!((closed(&crowd), is_closed(&crowd[0])), (1, true));
        let knocking: Vec<_> = (101..=300).map(|ms| admitted(&connections, peer(0), began, ms)).collect();

        // Connections of the crowd are closed for each other, never the member's.
        assert!(!is_closed(&member), "its head is fresh");
        assert_eq!((closed(&crowd), closed(&others), is_closed(&idle)), (15, 0, true));
        assert_eq!((connections.count(), knocking.len() - closed(&knocking)), (60, 15));
        // After a second its head is no longer fresh.
        let late = admitted(&connections, peer(1), began, 100 + FRESH_MS);
        assert!(!is_closed(&late) && is_closed(&member));
    }

    #[test]
    fn above_the_limit_of_answer_bytes_the_unread_ones_are_dropped_first() {
        let (connections, began) = (Connections::new(9, 9, 100), Instant::now());
        let slots: Vec<_> = (0..4).map(|ms| admitted(&connections, None, began, ms)).collect();
        let all: Vec<_> = slots.iter().flatten().map(|slot| &slot.connection).collect();
        all.iter().for_each(|connection| assert!(connection.has_request(began)));
        assert_eq!(connections.hold_answer(all[0], 40), Some(0));
        assert_eq!(connections.hold_answer(all[1], 30), Some(0));
        assert_eq!(connections.hold_answer(all[2], 30), Some(0), "at the limit");
        all[0].write_waits(began + Duration::from_millis(2));
        all[1].write_waits(began + Duration::from_millis(1));
        assert_eq!(connections.hold_answer(all[3], 1), Some(1));
        assert_eq!(slots.iter().map(is_closed).collect::<Vec<_>>(), [false, true, false, false]);
        assert_eq!(connections.hold_answer(all[3], 60), Some(1));
        assert!(is_closed(&slots[0]));
        assert_eq!(connections.hold_answer(all[3], 10), None, "no other client is slow");
        // Answers that are sent, and those of closed connections, are no longer in flight.
        all[3].answered(began);
        all[3].flushed(began);
        assert_eq!(connections.answers.load(Ordering::Acquire), 30);
        drop(slots);
        assert_eq!(connections.answers.load(Ordering::Acquire), 0);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_mapped_ipv4_as_ipv4() {
        let counted = |text: &str| counted_address(text.parse().expect("an address"));
        assert_eq!(counted("2001:db8::1"), counted("2001:db8::ffff:1:2:3"));
        assert_ne!(counted("2001:db8::1"), counted("2001:db8:0:1::1"));
        assert_eq!(counted("::ffff:192.0.2.1"), counted("192.0.2.1"));
        assert_ne!(counted("192.0.2.1"), counted("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_new_connection_waits_until_the_closed_one_has_released_its_descriptor() {
        let connections = Connections::new(1, 1, u64::MAX);
        let first = connections.admit(None).await.0.expect("a slot");
        let (second, ()) = tokio::join!(connections.admit(None), async {
            first.connection.woken().await;
            assert_eq!(connections.alive.load(Ordering::Acquire), 2);
            drop(first);
        });
        assert!(matches!(second, (Some(_), 1)));
        assert_eq!(connections.alive.load(Ordering::Acquire), 1);
    }
}
