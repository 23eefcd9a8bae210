//! The state of one connection: what it waits for, since when, and until when.
//!
//! A connection that waits for its client can be closed at any time. A connection whose request the server processes is
//! not closed: the request was accepted and gets its answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a client may take for each part of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the start of the connection to the end of the TLS handshake.
    pub(super) handshake: Duration,
    /// From the start of the connection, the end of the TLS handshake, or the first byte of a further request, to the
    /// end of the head.
    pub(super) head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub(super) idle: Duration,
    /// How long the server waits for a client that reads an answer more slowly than `write_rate`.
    pub(super) write: Duration,
    /// In bytes per second.
    pub(super) write_rate: u64,
}

/// From our end of a connection to the client's. What the client sends meanwhile is dropped, so that it can read the
/// answer.
const LINGER_WAIT: Duration = Duration::from_secs(2);

impl Timeouts {
    /// How often deadlines are checked: a quarter of the shortest timeout, so no timeout is exceeded by more than that.
    pub(super) fn check_interval(&self) -> Duration {
        let shortest = self.handshake.min(self.head).min(self.idle).min(self.write).min(LINGER_WAIT);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// The timeout that a connection exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimedOut {
    Handshake,
    /// No byte of a request was received. Browsers open such connections in advance.
    Silent,
    Head,
    Idle,
    Write,
    Linger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The TLS handshake is not complete.
    Handshake,
    /// The server waits for a head, or for the rest of one.
    Head,
    /// No byte was received since the last answer.
    Idle,
    /// The server processes a request.
    Working,
    /// The server waits for more of a body.
    Body,
    /// The server has ended its side.
    Linger,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// Whether no byte was received, apart from a handshake.
    is_silent: bool,
    /// Since when a write is blocked because the client reads nothing.
    blocked: Option<Instant>,
    /// How long writes of this answer were blocked before, and the bytes that the client has taken since the first
    /// block.
    waited: Duration,
    taken: u64,
    /// Bytes of this connection's answers that are not sent yet.
    held: u64,
    is_closed: bool,
}

/// A head that began within this time is closed last, because its client is probably about to send the rest.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// The class of a connection that can be closed, least valuable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// It has no request, or a head that does not arrive.
    Waiting,
    /// Its client is slow at sending its request or at reading the answer.
    Slow,
    /// Its head began within [`FRESH`].
    Fresh,
}

/// The order in which connections are closed: by class, and within a class the longest waiting first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) class: Class,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// The address that the connection counts for; `None` if it is exempt from the limit per address.
    pub(super) address: Option<IpAddr>,
    state: Mutex<State>,
    woken: Notify,
    /// Bytes of answers of all connections that are not sent yet.
    pub(super) answers: Arc<AtomicU64>,
}

impl State {
    /// The rank for closing; `None` if the connection is closed or the server processes its request.
    fn rank(&self, now: Instant) -> Option<Rank> {
        let (class, since) = match (self.phase, self.blocked) {
            _ if self.is_closed => return None,
            (Phase::Handshake, _) | (Phase::Head, None) if now.saturating_duration_since(self.since) < FRESH => {
                (Class::Fresh, self.since)
            }
            (Phase::Handshake, _) => (Class::Waiting, self.since),
            (_, Some(since)) => (Class::Slow, since),
            (Phase::Working, None) => return None,
            (Phase::Body, None) => (Class::Slow, self.since),
            (Phase::Head | Phase::Idle | Phase::Linger, None) => (Class::Waiting, self.since),
        };
        Some(Rank { class, since })
    }

    /// The timeout that is exceeded at `now`, if any. Request bodies are not checked here: `Paced` enforces their rate.
    fn exceeded_timeout(&self, now: Instant, timeouts: &Timeouts) -> Option<TimedOut> {
        let (since, timeout, kind) = match (self.phase, self.blocked) {
            _ if self.is_closed => return None,
            (Phase::Handshake, _) => (self.since, timeouts.handshake, TimedOut::Handshake),
            (_, Some(since)) => {
                let waited = self.waited + now.saturating_duration_since(since);
                let is_late = waited >= timeouts.write && !self.has_taken_enough(waited, timeouts);
                return is_late.then_some(TimedOut::Write);
            }
            (Phase::Head, None) if self.is_silent => (self.since, timeouts.head, TimedOut::Silent),
            (Phase::Head, None) => (self.since, timeouts.head, TimedOut::Head),
            (Phase::Idle, None) => (self.since, timeouts.idle, TimedOut::Idle),
            (Phase::Linger, None) => (self.since, LINGER_WAIT, TimedOut::Linger),
            (Phase::Working | Phase::Body, None) => return None,
        };
        (now.saturating_duration_since(since) >= timeout).then_some(kind)
    }

    fn has_taken_enough(&self, waited: Duration, timeouts: &Timeouts) -> bool {
        u128::from(self.taken) * 1_000 >= u128::from(timeouts.write_rate) * waited.as_millis()
    }
}

impl Connection {
    pub(super) fn new(address: Option<IpAddr>, now: Instant) -> Self {
        let state = State {
            phase: Phase::Head,
            since: now,
            is_silent: true,
            blocked: None,
            waited: Duration::ZERO,
            taken: 0,
            held: 0,
            is_closed: false,
        };
        Self { address, state: Mutex::new(state), woken: Notify::new(), answers: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ── events ──

    /// A TLS handshake precedes the first head. It counts from the start of the connection.
    pub(super) fn begins_handshake(&self) {
        self.state().phase = Phase::Handshake;
    }

    /// The TLS handshake is complete, and the server waits for a head.
    pub(super) fn ended_handshake(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Head, now);
        (state.blocked, state.waited, state.taken) = (None, Duration::ZERO, 0);
    }

    /// Bytes were received.
    pub(super) fn received(&self, now: Instant) {
        let mut state = self.state();
        state.is_silent = false;
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, now);
        }
    }

    /// A head is complete. Returns false if the connection was closed just before: then the request is not processed.
    #[must_use]
    pub(super) fn has_request(&self, now: Instant) -> bool {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Working, now);
        !state.is_closed
    }

    /// The server waits for more of the body.
    pub(super) fn waits_for_body(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Working {
            (state.phase, state.since) = (Phase::Body, now);
        }
    }

    /// More of the body was received, or the body was dropped.
    pub(super) fn has_body(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Body {
            (state.phase, state.since) = (Phase::Working, now);
        }
    }

    /// The answer is complete, although parts of it may not be sent yet.
    pub(super) fn answered(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Idle, now);
    }

    /// A write is blocked.
    pub(super) fn write_waits(&self, now: Instant) {
        self.state().blocked.get_or_insert(now);
    }

    /// The client took `bytes` bytes.
    pub(super) fn wrote(&self, now: Instant, bytes: usize) {
        let mut state = self.state();
        if let Some(blocked) = state.blocked.take() {
            state.waited += now.saturating_duration_since(blocked);
            if state.phase != Phase::Handshake {
                state.since = now;
            }
        }
        // Bytes that the socket buffer takes before the first block say nothing about the client.
        if state.waited > Duration::ZERO {
            state.taken += bytes as u64;
        }
    }

    /// All pending bytes were written.
    pub(super) fn flushed(&self, now: Instant) {
        self.wrote(now, 0);
        let mut state = self.state();
        let is_over = matches!(state.phase, Phase::Idle | Phase::Linger);
        if is_over {
            (state.waited, state.taken) = (Duration::ZERO, 0);
        }
        drop(state);
        if is_over {
            self.release_answers();
        }
    }

    /// Counts an answer of `bytes` bytes as in flight. Returns the bytes in flight of all connections.
    pub(super) fn hold(&self, bytes: u64) -> u64 {
        self.state().held += bytes;
        self.answers.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    /// No longer counts its answers as in flight.
    pub(super) fn release_answers(&self) {
        let held = std::mem::take(&mut self.state().held);
        self.answers.fetch_sub(held, Ordering::AcqRel);
    }

    /// Since when its client has not read an answer that is in flight; `None` if there is no such answer.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        let state = self.state();
        state.blocked.filter(|_| state.held > 0 && !state.is_closed)
    }

    /// The server has ended its side.
    pub(super) fn lingers(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Linger, now);
    }

    // ── closing ──

    pub(super) fn rank(&self, now: Instant) -> Option<Rank> {
        self.state().rank(now)
    }

    /// Closes the connection if it still has this rank. Returns whether it was closed.
    #[must_use]
    pub(super) fn close_if(&self, rank: Rank, now: Instant) -> bool {
        let mut state = self.state();
        let is_same = state.rank(now) == Some(rank);
        if is_same {
            state.is_closed = true;
            self.woken.notify_one();
        }
        is_same
    }

    /// Closes the connection if a timeout is exceeded, and returns which one.
    pub(super) fn close_if_late(&self, now: Instant, timeouts: &Timeouts) -> Option<TimedOut> {
        let mut state = self.state();
        if let Some(kind) = state.exceeded_timeout(now, timeouts) {
            state.is_closed = true;
            self.woken.notify_one();
            return Some(kind);
        }
        // The interval was fast enough. Its bytes do not count for the next interval.
        if state.phase != Phase::Handshake
            && let Some(since) = state.blocked
            && state.waited + now.saturating_duration_since(since) >= timeouts.write
        {
            (state.blocked, state.waited, state.taken) = (Some(now), Duration::ZERO, 0);
        }
        None
    }

    /// Closes the connection, also while the server processes its request.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.woken.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Wakes its task, which then ends at once or after the current request.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        handshake: Duration::from_millis(50),
        head: Duration::from_millis(100),
        idle: Duration::from_millis(200),
        write: Duration::from_millis(300),
        write_rate: 4_000,
    };

    /// The timeout that is exceeded after `wait`. Asserts that none is exceeded one millisecond before.
    fn timed_out_after(connection: &Connection, from: Instant, wait: Duration) -> Option<TimedOut> {
        assert_eq!(connection.close_if_late(from + wait.saturating_sub(Duration::from_millis(1)), &TIMEOUTS), None);
        connection.close_if_late(from + wait, &TIMEOUTS)
    }

    type Steps = fn(&Connection, Instant);
    type Row = (&'static str, Steps, Option<(Duration, TimedOut)>);

    #[test]
    fn every_wait_for_a_client_times_out_and_processing_does_not() {
        let table: [Row; 12] = [
            ("no handshake", |c, _| c.begins_handshake(), Some((TIMEOUTS.handshake, TimedOut::Handshake))),
            (
                "a handshake that the client does not read",
                |c, at| {
                    c.begins_handshake();
                    c.received(at);
                    c.write_waits(at);
                    c.wrote(at + TIMEOUTS.handshake / 2, 1);
                    c.write_waits(at + TIMEOUTS.handshake / 2);
                },
                Some((TIMEOUTS.handshake, TimedOut::Handshake)),
            ),
            (
                "nothing after the handshake",
                |c, at| {
                    c.begins_handshake();
                    c.ended_handshake(at);
                },
                Some((TIMEOUTS.head, TimedOut::Silent)),
            ),
            ("nothing is received", |_, _| {}, Some((TIMEOUTS.head, TimedOut::Silent))),
            ("half a head is received", |c, at| c.received(at), Some((TIMEOUTS.head, TimedOut::Head))),
            ("a request is processed", |c, at| assert!(c.has_request(at)), None),
            (
                "a body is not received: its rate is enforced elsewhere",
                |c, at| {
                    assert!(c.has_request(at));
                    c.waits_for_body(at);
                },
                None,
            ),
            ("idle", |c, at| c.answered(at), Some((TIMEOUTS.idle, TimedOut::Idle))),
            (
                "half a second head",
                |c, at| {
                    c.answered(at);
                    c.received(at);
                },
                Some((TIMEOUTS.head, TimedOut::Head)),
            ),
            (
                "an answer that the client does not read",
                |c, at| {
                    assert!(c.has_request(at));
                    c.write_waits(at);
                },
                Some((TIMEOUTS.write, TimedOut::Write)),
            ),
            (
                "the end of an answer that the client does not read",
                |c, at| {
                    c.answered(at);
                    c.write_waits(at);
                },
                Some((TIMEOUTS.write, TimedOut::Write)),
            ),
            ("a client that does not end its side", |c, at| c.lingers(at), Some((LINGER_WAIT, TimedOut::Linger))),
        ];
        for (what, steps, wanted) in table {
            let began = Instant::now();
            let connection = Connection::new(None, began);
            steps(&connection, began);
            match wanted {
                Some((wait, kind)) => assert_eq!(timed_out_after(&connection, began, wait), Some(kind), "{what}"),
                None => {
                    assert_eq!(connection.close_if_late(began + Duration::from_secs(3_600), &TIMEOUTS), None, "{what}")
                }
            }
        }
    }

    #[test]
    fn further_bytes_of_a_head_do_not_extend_its_deadline() {
        let began = Instant::now();
        let connection = Connection::new(None, began);
        connection.received(began + TIMEOUTS.head / 2);
        assert_eq!(timed_out_after(&connection, began, TIMEOUTS.head), Some(TimedOut::Head));
    }

    #[test]
    fn a_client_must_read_an_answer_at_the_minimum_rate() {
        let step = TIMEOUTS.write / 4;
        // A quarter of the wait passes before each take, then the rest of it.
        for (what, each, is_late) in [
            ("at the rate", TIMEOUTS.write_rate * TIMEOUTS.write.as_millis() as u64 / 4_000, false),
            ("one byte less", TIMEOUTS.write_rate * TIMEOUTS.write.as_millis() as u64 / 4_000 - 1, true),
            ("a byte now and then", 1, true),
        ] {
            let mut now = Instant::now();
            let connection = Connection::new(None, now);
            assert!(connection.has_request(now));
            // Bytes that the socket buffer takes at once do not count.
            connection.wrote(now, 1_000_000);
            connection.write_waits(now);
            for _ in 0..4 {
                assert_eq!(connection.close_if_late(now, &TIMEOUTS), None, "{what}");
                now += step;
                connection.wrote(now, usize::try_from(each).expect("few"));
                connection.write_waits(now);
            }
            assert_eq!(connection.close_if_late(now, &TIMEOUTS).is_some(), is_late, "{what}");
            if !is_late {
                // The next interval begins without the bytes of the last one.
                assert_eq!(timed_out_after(&connection, now, TIMEOUTS.write), Some(TimedOut::Write), "{what}");
            }
        }
    }

    #[test]
    fn a_handshake_is_closed_for_others_like_a_head() {
        let began = Instant::now();
        let connection = Connection::new(None, began);
        let as_head = |after| connection.rank(began + after).expect("it waits");
        let heads = [as_head(Duration::ZERO), as_head(FRESH)];
        connection.begins_handshake();
        connection.write_waits(began);
        assert_eq!([as_head(Duration::ZERO), as_head(FRESH)], heads);
    }

    #[test]
    fn a_connection_with_a_new_event_is_not_closed() {
        let began = Instant::now();
        let connection = Connection::new(None, began);
        let rank = connection.rank(began).expect("it waits");
        assert!(connection.has_request(began));
        assert!(!connection.close_if(rank, began) && connection.rank(began).is_none());
        connection.answered(began);
        let rank = connection.rank(began).expect("it waits");
        assert!(connection.close_if(rank, began) && !connection.has_request(began));
    }
}
