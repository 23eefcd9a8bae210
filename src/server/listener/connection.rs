//! One connection: what it waits for at the moment, since when, and how long it may.
//!
//! A connection that waits for its client can be closed, at once and without asking the client. One that the server
//! works for cannot: its request was accepted and gets its answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a client may take for each part of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the connection, or from the first byte of a further request, to the end of the head.
    pub(super) head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub(super) idle: Duration,
    /// Of an answer, the time in which the client is waited for and takes less than `write_rate`.
    pub(super) write: Duration,
    /// In bytes a second.
    pub(super) write_rate: u64,
}

/// From our end of a connection to the client's: what it still sends is dropped, so that it sees the answer.
const LINGER_WAIT: Duration = Duration::from_secs(2);

impl Timeouts {
    /// How often deadlines are looked at: no wait lasts a quarter too long, and nobody looks more often than needed.
    pub(super) fn look_every(&self) -> Duration {
        let shortest = self.head.min(self.idle).min(self.write).min(LINGER_WAIT);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimedOut {
    Head,
    Idle,
    Write,
    Linger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A head is awaited or has begun.
    Head,
    /// Nothing has come since the last answer.
    Idle,
    /// The server works on a request.
    Working,
    /// The server waits for more of a body.
    Body,
    /// We have said that nothing more comes.
    Linger,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// Since when the client has taken nothing of what is written.
    blocked: Option<Instant>,
    /// How long it was waited for before that, and what it took since then.
    waited: Duration,
    taken: u64,
    /// Bytes of answers that have not left yet.
    held: u64,
    is_closed: bool,
}

/// A head that was begun no longer ago than this is spared: its client is most probably about to send the rest.
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// What a connection that can be closed is doing, the least loss first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// It has no request.
    Waiting,
    /// Its client is slow about its request.
    Slow,
    /// Its head is about to come.
    Fresh,
}

/// How much of a loss it is to close a connection; among equals the one that waited longest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) class: Class,
    since: Instant,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// What the connection is counted under, besides all; none for those that are not counted so.
    pub(super) address: Option<IpAddr>,
    state: Mutex<State>,
    woken: Notify,
    /// Bytes of answers that have not left yet, of all connections.
    pub(super) answers: Arc<AtomicU64>,
}

impl State {
    /// How much of a loss it is to close the connection; none if the server works for it.
    fn rank(&self, now: Instant) -> Option<Rank> {
        let (class, since) = match (self.phase, self.blocked) {
            _ if self.is_closed => return None,
            (_, Some(since)) => (Class::Slow, since),
            (Phase::Working, None) => return None,
            (Phase::Body, None) => (Class::Slow, self.since),
            (Phase::Head, None) if now.saturating_duration_since(self.since) < FRESH => (Class::Fresh, self.since),
            (Phase::Head | Phase::Idle | Phase::Linger, None) => (Class::Waiting, self.since),
        };
        Some(Rank { class, since })
    }

    /// What took too long by now. A body has a rate of its own.
    fn late(&self, now: Instant, waits: &Timeouts) -> Option<TimedOut> {
        let (since, wait, late) = match (self.phase, self.blocked) {
            _ if self.is_closed => return None,
            (_, Some(since)) => {
                let waited = self.waited + now.saturating_duration_since(since);
                let is_late = waited >= waits.write && !self.has_taken_enough(waited, waits);
                return is_late.then_some(TimedOut::Write);
            }
            (Phase::Head, None) => (self.since, waits.head, TimedOut::Head),
            (Phase::Idle, None) => (self.since, waits.idle, TimedOut::Idle),
            (Phase::Linger, None) => (self.since, LINGER_WAIT, TimedOut::Linger),
            (Phase::Working | Phase::Body, None) => return None,
        };
        (now.saturating_duration_since(since) >= wait).then_some(late)
    }

    fn has_taken_enough(&self, waited: Duration, waits: &Timeouts) -> bool {
        u128::from(self.taken) * 1_000 >= u128::from(waits.write_rate) * waited.as_millis()
    }
}

impl Connection {
    pub(super) fn new(address: Option<IpAddr>, now: Instant) -> Self {
        let state = State {
            phase: Phase::Head,
            since: now,
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

    // ── what happens on it ──

    /// Bytes came.
    pub(super) fn received(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Head, now);
        }
    }

    /// A head is complete. False if the connection was closed just before: then nobody works on the request.
    #[must_use]
    pub(super) fn has_request(&self, now: Instant) -> bool {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Working, now);
        !state.is_closed
    }

    /// More of the body is awaited.
    pub(super) fn waits_for_body(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Working {
            (state.phase, state.since) = (Phase::Body, now);
        }
    }

    /// More of the body came, or nobody asks for it any more.
    pub(super) fn has_body(&self, now: Instant) {
        let mut state = self.state();
        if state.phase == Phase::Body {
            (state.phase, state.since) = (Phase::Working, now);
        }
    }

    /// The answer is complete, though some of it may not have left yet.
    pub(super) fn answered(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Idle, now);
    }

    /// The client takes nothing more for now.
    pub(super) fn write_waits(&self, now: Instant) {
        self.state().blocked.get_or_insert(now);
    }

    /// The client took so many bytes.
    pub(super) fn wrote(&self, now: Instant, bytes: usize) {
        let mut state = self.state();
        if let Some(blocked) = state.blocked.take() {
            state.waited += now.saturating_duration_since(blocked);
            state.since = now;
        }
        // What the system takes before anybody has to wait says nothing of the client.
        if state.waited > Duration::ZERO {
            state.taken += bytes as u64;
        }
    }

    /// All that was to be written has left.
    pub(super) fn flushed(&self, now: Instant) {
        self.wrote(now, 0);
        let mut state = self.state();
        let is_over = matches!(state.phase, Phase::Idle | Phase::Linger);
        if is_over {
            (state.waited, state.taken) = (Duration::ZERO, 0);
        }
        drop(state);
        if is_over {
            self.let_go();
        }
    }

    /// Counts an answer of so many bytes as in flight; answers how many there are of all connections.
    pub(super) fn hold(&self, bytes: u64) -> u64 {
        self.state().held += bytes;
        self.answers.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    /// Its answers are in flight no more.
    pub(super) fn let_go(&self) {
        let held = std::mem::take(&mut self.state().held);
        self.answers.fetch_sub(held, Ordering::AcqRel);
    }

    /// Since when its client takes nothing of an answer; none if there is none.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        let state = self.state();
        state.blocked.filter(|_| state.held > 0 && !state.is_closed)
    }

    /// We have said that nothing more comes.
    pub(super) fn lingers(&self, now: Instant) {
        let mut state = self.state();
        (state.phase, state.since) = (Phase::Linger, now);
    }

    // ── how it ends ──

    pub(super) fn rank(&self, now: Instant) -> Option<Rank> {
        self.state().rank(now)
    }

    /// Closes it, unless something happened since it had this rank.
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

    /// Closes it if something took too long; answers what.
    pub(super) fn close_if_late(&self, now: Instant, waits: &Timeouts) -> Option<TimedOut> {
        let mut state = self.state();
        if let Some(late) = state.late(now, waits) {
            state.is_closed = true;
            self.woken.notify_one();
            return Some(late);
        }
        // The interval was fast enough. Its bytes do not count for the next interval.
        if let Some(since) = state.blocked
            && state.waited + now.saturating_duration_since(since) >= waits.write
        {
            (state.blocked, state.waited, state.taken) = (Some(now), Duration::ZERO, 0);
        }
        None
    }

    /// Closes it whatever it does.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.woken.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Its task looks what to do: to end, or to end after the request that it works on.
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

    const WAITS: Timeouts = Timeouts {
        head: Duration::from_millis(100),
        idle: Duration::from_millis(200),
        write: Duration::from_millis(300),
        write_rate: 4_000,
    };

    /// What is late at the limit, and that nothing is one millisecond before it.
    fn late_after(connection: &Connection, from: Instant, wait: Duration) -> Option<TimedOut> {
        assert_eq!(connection.close_if_late(from + wait.saturating_sub(Duration::from_millis(1)), &WAITS), None);
        connection.close_if_late(from + wait, &WAITS)
    }

    type Steps = fn(&Connection, Instant);
    type Row = (&'static str, Steps, Option<(Duration, TimedOut)>);

    #[test]
    fn every_wait_for_a_client_ends_and_no_work_does() {
        let table: [Row; 9] = [
            ("nothing comes", |_, _| {}, Some((WAITS.head, TimedOut::Head))),
            ("half a head comes", |c, at| c.received(at), Some((WAITS.head, TimedOut::Head))),
            ("a request is worked on", |c, at| assert!(c.has_request(at)), None),
            (
                "a body does not come: it has its rate",
                |c, at| {
                    assert!(c.has_request(at));
                    c.waits_for_body(at);
                },
                None,
            ),
            ("idle", |c, at| c.answered(at), Some((WAITS.idle, TimedOut::Idle))),
            (
                "half a second head",
                |c, at| {
                    c.answered(at);
                    c.received(at);
                },
                Some((WAITS.head, TimedOut::Head)),
            ),
            (
                "an answer that the client does not read",
                |c, at| {
                    assert!(c.has_request(at));
                    c.write_waits(at);
                },
                Some((WAITS.write, TimedOut::Write)),
            ),
            (
                "the end of an answer that the client does not read",
                |c, at| {
                    c.answered(at);
                    c.write_waits(at);
                },
                Some((WAITS.write, TimedOut::Write)),
            ),
            ("a client that does not end", |c, at| c.lingers(at), Some((LINGER_WAIT, TimedOut::Linger))),
        ];
        for (what, steps, wanted) in table {
            let began = Instant::now();
            let connection = Connection::new(None, began);
            steps(&connection, began);
            match wanted {
                Some((wait, late)) => assert_eq!(late_after(&connection, began, wait), Some(late), "{what}"),
                None => {
                    assert_eq!(connection.close_if_late(began + Duration::from_secs(3_600), &WAITS), None, "{what}")
                }
            }
        }
    }

    #[test]
    fn more_bytes_of_a_head_do_not_put_its_end_off() {
        let began = Instant::now();
        let connection = Connection::new(None, began);
        connection.received(began + WAITS.head / 2);
        assert_eq!(late_after(&connection, began, WAITS.head), Some(TimedOut::Head));
    }

    #[test]
    fn a_client_takes_an_answer_at_a_least_rate() {
        let step = WAITS.write / 4;
        // A quarter of the wait passes before each take, then the rest of it.
        for (what, each, is_late) in [
            ("at the rate", WAITS.write_rate * WAITS.write.as_millis() as u64 / 4_000, false),
            ("one byte less", WAITS.write_rate * WAITS.write.as_millis() as u64 / 4_000 - 1, true),
            ("a byte now and then", 1, true),
        ] {
            let mut now = Instant::now();
            let connection = Connection::new(None, now);
            assert!(connection.has_request(now));
            // What the system takes at once does not count.
            connection.wrote(now, 1_000_000);
            connection.write_waits(now);
            for _ in 0..4 {
                assert_eq!(connection.close_if_late(now, &WAITS), None, "{what}");
                now += step;
                connection.wrote(now, usize::try_from(each).expect("few"));
                connection.write_waits(now);
            }
            assert_eq!(connection.close_if_late(now, &WAITS).is_some(), is_late, "{what}");
            if !is_late {
                // The next stretch begins: nothing of the last one is carried over.
                assert_eq!(late_after(&connection, now, WAITS.write), Some(TimedOut::Write), "{what}");
            }
        }
    }

    #[test]
    fn what_happened_meanwhile_saves_a_connection() {
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
