//! Request bodies: the only code that reads them, enforces their limits, and discards unread ones.
//!
//! **Invariant.** The outermost layer only puts the body into the request's [`Slot`]. It is read when an operation asks for
//! it, which is once the caller is known; a long one only where `App::take_large` has asked for the permission.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as _, Bytes};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, Semaphore};

use crate::kernel::config::{self, Config};
use crate::kernel::error::{Error, ErrorCode, Result};

/// Of a body that is not wanted, so much is read away for a caller who is known, so that the connection lives on. For
/// others it is `limits.public_body_bytes`.
const DRAIN_BYTES_MAX: u64 = 8 * 1_024 * 1_024;
/// How long a connection stays open that still has bytes to send: its caller reads the answer meanwhile.
const LINGER: Duration = Duration::from_secs(1);
/// Callers who are not known have this part of `limits.bytes_in_flight`, beside what the others have.
const PUBLIC_PART: u64 = 4;
/// From here on a body is read off the threads that answer requests.
const LONG_BYTES: usize = 64 * 1_024;
/// One address has this part of that, though always enough for one body.
const ADDRESS_PART: u64 = 4;
/// One organization or program that is known has this part of `limits.bytes_in_flight`, though always enough for one body.
const PARTY_PART: u64 = 2;

/// The limits of all bodies, and how many bytes of them are in memory now.
#[derive(Debug)]
pub struct BodyBudget {
    bytes_max: u64,
    public_bytes_max: u64,
    sign_in_bytes_max: u64,
    pub nodes_max: u64,
    wait: Duration,
    /// Those of callers who are known.
    known: Mutex<InFlight>,
    strangers: Mutex<InFlight>,
    /// Turns at reading what came in a long body: other requests find a thread.
    reading_long: Semaphore,
}

impl BodyBudget {
    pub fn new(config: &Config) -> Self {
        Self {
            bytes_max: config.body_bytes_max,
            public_bytes_max: config.public_body_bytes_max,
            sign_in_bytes_max: config.sign_in_bytes_max,
            nodes_max: config.body_nodes_max,
            wait: Duration::from_millis(config.body_wait_ms),
            known: Mutex::new(InFlight::new(config.bytes_in_flight_max, PARTY_PART, config.longest_body())),
            strangers: Mutex::new(InFlight::new(
                config.bytes_in_flight_max / PUBLIC_PART,
                ADDRESS_PART,
                config.public_body_bytes_max,
            )),
            reading_long: Semaphore::new(config::processors().div_ceil(2)),
        }
    }

    pub fn in_flight(&self) -> u64 {
        self.bodies_of(false).bytes + self.bodies_of(true).bytes
    }

    /// Reads what came in a body of so many bytes: a long one where it holds up no other request, some at a time.
    pub async fn read_long<T>(&self, bytes: usize, read: impl FnOnce() -> T) -> T {
        if bytes < LONG_BYTES || Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return read();
        }
        // It is never closed.
        let _turn = self.reading_long.acquire().await;
        tokio::task::block_in_place(read)
    }

    fn bodies_of(&self, strangers: bool) -> MutexGuard<'_, InFlight> {
        let bodies = if strangers { &self.strangers } else { &self.known };
        bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bodies that are in memory, of those who have one space together. Where there is no space for more of one, another that is
/// still awaited is cut off for it: the largest of the party that has most. Who sends little is never kept out by those who
/// send much. A party is an organization or a program, or the address of a stranger.
#[derive(Debug)]
struct InFlight {
    bytes_max: u64,
    party_bytes_max: u64,
    bytes: u64,
    of: HashMap<String, u64>,
    next_id: u64,
    bodies: HashMap<u64, CountedBody>,
}

#[derive(Debug)]
struct CountedBody {
    /// None for who is counted with nobody.
    party: Option<String>,
    bytes: u64,
    /// Tells that it is cut off; none once all of it has come.
    cut: Option<Arc<Notify>>,
}

impl InFlight {
    fn new(bytes_max: u64, part: u64, body_bytes_max: u64) -> Self {
        Self {
            bytes_max,
            party_bytes_max: (bytes_max / part).max(body_bytes_max),
            bytes: 0,
            of: HashMap::new(),
            next_id: 0,
            bodies: HashMap::new(),
        }
    }

    fn enter(&mut self, party: Option<String>, cut: Arc<Notify>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.bodies.insert(id, CountedBody { party, bytes: 0, cut: Some(cut) });
        id
    }

    /// Bytes of the party of a body.
    fn with_others(&self, body: &CountedBody) -> u64 {
        body.party.as_ref().map_or(body.bytes, |party| self.of.get(party).copied().unwrap_or(0))
    }

    /// Counts more bytes of a body. False when there is no space, or it was cut off.
    #[must_use]
    fn add(&mut self, id: u64, bytes: u64) -> bool {
        let Some(body) = self.bodies.get(&id) else { return false };
        let (party, own) = (body.party.clone(), body.bytes + bytes);
        let of_party = |all: &Self| all.bodies.get(&id).map_or(0, |body| all.with_others(body)) + bytes;
        while party.is_some() && of_party(self) > self.party_bytes_max {
            if !self.cut_one(|other, _| other.party == party && other.bytes > own) {
                return false;
            }
        }
        while self.bytes + bytes > self.bytes_max {
            let share = of_party(self);
            let has_more = |other: &CountedBody, of_other: u64| {
                if other.party == party { other.bytes > own } else { of_other > share }
            };
            if !self.cut_one(has_more) {
                return false;
            }
        }
        let Some(body) = self.bodies.get_mut(&id) else { return false };
        body.bytes += bytes;
        self.bytes += bytes;
        if let Some(party) = party {
            *self.of.entry(party).or_default() += bytes;
        }
        true
    }

    /// Cuts off one of these: of the party that has most its largest, the oldest among equals. False if there is none.
    /// `is_meant` is told how much its party has.
    fn cut_one(&mut self, is_meant: impl Fn(&CountedBody, u64) -> bool) -> bool {
        let awaited = self.bodies.iter().filter(|(_, body)| body.cut.is_some());
        let sized = awaited.map(|(id, body)| (*id, body, self.with_others(body)));
        let meant = sized.filter(|(_, body, of_party)| is_meant(body, *of_party));
        let Some((id, ..)) = meant.max_by_key(|(id, body, of_party)| (*of_party, body.bytes, Reverse(*id))) else {
            return false;
        };
        if let Some(cut) = self.leave(id).and_then(|body| body.cut) {
            cut.notify_one();
        }
        true
    }

    fn is_complete(&mut self, id: u64) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.cut = None;
        }
    }

    fn leave(&mut self, id: u64) -> Option<CountedBody> {
        let body = self.bodies.remove(&id)?;
        self.bytes -= body.bytes;
        if let Some(party) = &body.party
            && let Some(bytes) = self.of.get_mut(party)
        {
            *bytes -= body.bytes;
            if *bytes == 0 {
                self.of.remove(party);
            }
        }
        Some(body)
    }
}

/// How long a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.public_body_bytes`, or `limits.sign_in_bytes`: nobody knows yet who sends it.
    Public,
    /// `limits.body_bytes`
    Ordinary,
    /// This many bytes, for an operation whose caller may send a large body.
    Large(u64),
}

/// The body of one request: unread, or read.
#[derive(Debug, Default)]
pub struct BodySlot {
    unread: Mutex<Option<Unread>>,
    read: OnceLock<Held>,
}

#[derive(Debug)]
struct Unread {
    body: BoxBody<Bytes, io::Error>,
    intake: Arc<BodyBudget>,
    origin: Origin,
    /// Has the caller sent nothing yet, and waits to be told to (`Expect: 100-continue`)?
    is_held_back: bool,
}

/// Where a body comes from, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub address: Option<IpAddr>,
    /// Is it a sign-in request, which has a smaller limit?
    pub is_sign_in: bool,
}

/// Bytes of a body, counted as in flight until they are dropped.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    counted: u64,
    /// Under which it is counted.
    id: u64,
    is_strangers: bool,
    intake: Arc<BodyBudget>,
}

impl Held {
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.counted += bytes;
        let has_space = self.intake.bodies_of(self.is_strangers).add(self.id, bytes);
        if has_space { Ok(()) } else { Err(no_space()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.intake.bodies_of(self.is_strangers).leave(self.id);
    }
}

fn no_space() -> Error {
    let message = "the server has as many bytes of requests as it holds at a time: try again";
    Error::new(ErrorCode::Busy).with_message(message).with_source("limits.bytes_in_flight").retry_after(1)
}

impl BodySlot {
    /// The slot of a request that came in.
    pub fn new(body: BoxBody<Bytes, io::Error>, is_held_back: bool, origin: Origin, intake: &Arc<BodyBudget>) -> Self {
        let unread = Unread { body, intake: intake.clone(), origin, is_held_back };
        Self { unread: Mutex::new(Some(unread)), read: OnceLock::new() }
    }

    /// The bytes of the body; none where there is no body. Those of a caller who is known count as of its `party`.
    pub async fn read(&self, limit: Limit, party: Option<String>) -> Result<&Bytes> {
        static NONE: Bytes = Bytes::new();
        if let Some(held) = self.read.get() {
            return Ok(&held.bytes);
        }
        let Some(mut unread) = self.take() else { return Ok(&NONE) };
        let wait = unread.intake.wait;
        let Ok(collected) = tokio::time::timeout(wait, unread.collect(limit, party)).await else {
            return Err(Error::new(ErrorCode::RequestTimeout).header("Connection", "close"));
        };
        match collected {
            Ok(held) => Ok(&self.read.get_or_init(|| held).bytes),
            Err(refused) => {
                if let Ok(mut slot) = self.unread.lock() {
                    *slot = Some(unread);
                }
                Err(refused)
            }
        }
    }

    /// What was read.
    pub fn bytes(&self) -> &[u8] {
        self.read.get().map_or(&[], |held| &held.bytes)
    }

    /// Its limits, once it was read.
    pub fn intake(&self) -> Option<&BodyBudget> {
        self.read.get().map(|held| &*held.intake)
    }

    fn take(&self) -> Option<Unread> {
        self.unread.lock().ok()?.take()
    }

    /// Lets go of what was not read, now that the answer is there: a part of it is read away, so that the caller gets to
    /// see the answer. Says whether the connection ends with this answer.
    pub fn let_go(&self, is_known: bool) -> bool {
        let Some(mut unread) = self.take() else { return false };
        if unread.is_held_back {
            // Reading would tell the caller to send it.
            return true;
        }
        let bytes_max = if is_known { DRAIN_BYTES_MAX } else { unread.intake.public_bytes_max };
        let mut drained = 0;
        // Mostly it is here already.
        if let Some(is_over) = unread.drain(&mut drained, bytes_max).now_or_never()
            && is_over
        {
            return false;
        }
        let rest = unread.body.size_hint().upper();
        let ends = rest.is_none_or(|rest| drained + rest > bytes_max);
        tokio::spawn(async move {
            let wait = unread.intake.wait;
            let is_over = tokio::time::timeout(wait, unread.drain(&mut drained, bytes_max)).await;
            if is_over == Ok(false) {
                tokio::time::sleep(LINGER).await;
            }
        });
        ends
    }
}

impl Unread {
    async fn collect(&mut self, limit: Limit, party: Option<String>) -> Result<Held> {
        let bytes_max = match limit {
            Limit::Public if self.origin.is_sign_in => self.intake.sign_in_bytes_max.min(self.intake.public_bytes_max),
            Limit::Public => self.intake.public_bytes_max,
            Limit::Ordinary => self.intake.bytes_max,
            Limit::Large(bytes_max) => bytes_max,
        };
        let too_large = || {
            let message = format!("the body is larger than the {bytes_max} bytes that this address takes");
            Error::new(ErrorCode::TooLarge).with_message(message)
        };
        let promised = self.body.size_hint().lower();
        if promised > bytes_max {
            return Err(too_large());
        }
        self.is_held_back = false;
        let (intake, cut) = (self.intake.clone(), Arc::<Notify>::default());
        let is_strangers = limit == Limit::Public;
        let party = if is_strangers { self.origin.address.map(|address| address.to_string()) } else { party };
        let id = intake.bodies_of(is_strangers).enter(party, cut.clone());
        let mut held = Held { bytes: Bytes::new(), counted: 0, id, is_strangers, intake };
        let mut joined = Vec::new();
        loop {
            let frame = tokio::select! {
                biased;
                () = cut.notified() => return Err(no_space()),
                frame = self.body.frame() => frame,
            };
            let Some(frame) = frame else { break };
            let broke_off = |e: io::Error| match e.kind() {
                io::ErrorKind::TimedOut => {
                    Error::new(ErrorCode::RequestTimeout).header("Connection", "close").with_source(e.to_string())
                }
                _ => Error::new(ErrorCode::MalformedBody).with_message("the body broke off").with_source(e.to_string()),
            };
            let Ok(piece) = frame.map_err(broke_off)?.into_data() else { continue };
            let length = piece.len() as u64;
            if held.counted + length > bytes_max {
                return Err(too_large());
            }
            held.count(length)?;
            // Most bodies come as one piece, which needs no copy.
            if held.counted == length {
                held.bytes = piece;
                continue;
            }
            if joined.is_empty() {
                joined.reserve_exact(usize::try_from(promised.max(held.counted)).unwrap_or_default());
                joined.extend_from_slice(&std::mem::take(&mut held.bytes));
            }
            joined.extend_from_slice(&piece);
        }
        held.intake.bodies_of(is_strangers).is_complete(id);
        if !joined.is_empty() {
            held.bytes = joined.into();
        }
        Ok(held)
    }

    /// Reads away up to so many bytes; answers whether the body is over.
    async fn drain(&mut self, drained: &mut u64, bytes_max: u64) -> bool {
        while *drained <= bytes_max {
            match self.body.frame().await {
                Some(Ok(frame)) => *drained += frame.data_ref().map_or(0, |piece| piece.len() as u64),
                Some(Err(_)) | None => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entered(strangers: &mut InFlight, address: u8) -> (u64, Arc<Notify>) {
        let cut = Arc::<Notify>::default();
        (strangers.enter(Some(format!("192.0.2.{address}")), cut.clone()), cut)
    }

    fn is_cut(cut: &Notify) -> bool {
        cut.notified().now_or_never().is_some()
    }

    /// 1,000 bytes for all, 250 for an address.
    fn strangers() -> InFlight {
        InFlight::new(1_000, 4, 250)
    }

    #[test]
    fn the_largest_body_that_is_awaited_goes_for_a_smaller_one() {
        let mut all = strangers();
        let bodies: Vec<_> = (1..=4).map(|n| entered(&mut all, n)).collect();
        for ((id, _), bytes) in bodies.iter().zip([249, 250, 250, 240]) {
            assert!(all.add(*id, bytes));
        }
        let (small, small_cut) = entered(&mut all, 5);
        assert!(all.add(small, 11) && !bodies.iter().any(|(_, cut)| is_cut(cut)), "at the limit");
        assert!(all.add(small, 1));
        assert_eq!(bodies.iter().map(|(_, cut)| is_cut(cut)).collect::<Vec<_>>(), [false, true, false, false]);
        assert!(!all.add(bodies[1].0, 1), "it was cut off");
        assert_eq!(all.bytes, 249 + 250 + 240 + 12);
        // The largest makes nobody go, nor does one that is as large as the others.
        let (large, _) = entered(&mut all, 6);
        assert!(all.add(large, 249) && !all.add(large, 1));
        // What has come as a whole is worked for.
        bodies.iter().for_each(|(id, _)| all.is_complete(*id));
        all.is_complete(large);
        assert!(!all.add(small, 1) && !is_cut(&small_cut));
        for id in bodies.into_iter().map(|(id, _)| id).chain([small, large]) {
            all.leave(id);
        }
        assert!(all.bytes == 0 && all.of.is_empty() && all.bodies.is_empty());
    }

    #[test]
    fn an_address_past_its_share_costs_itself_a_body_and_nobody_else() {
        let mut all = strangers();
        let (other, other_cut) = entered(&mut all, 1);
        let (first, first_cut) = entered(&mut all, 2);
        let (second, _) = entered(&mut all, 2);
        assert!(all.add(other, 250) && all.add(first, 200) && all.add(second, 50));
        assert!(!is_cut(&first_cut), "at the limit");
        assert!(all.add(second, 1));
        assert!(is_cut(&first_cut) && !is_cut(&other_cut));
    }

    #[test]
    fn the_party_that_has_most_goes_first_and_none_has_more_than_its_part() {
        let enter = |all: &mut InFlight, party: &str| {
            let cut = Arc::<Notify>::default();
            (all.enter(Some(party.to_owned()), cut.clone()), cut)
        };
        let mut all = InFlight::new(1_000, 2, 300);
        let loud: Vec<_> = (0..5).map(|_| enter(&mut all, "acme")).collect();
        assert!(loud.iter().all(|(id, _)| all.add(*id, 100)), "at the limit");
        assert!(!all.add(loud[0].0, 1) && !loud.iter().any(|(_, cut)| is_cut(cut)), "it is the largest of its party");
        let (second, second_cut) = enter(&mut all, "bolt");
        assert!(all.add(second, 300));
        let (third, _) = enter(&mut all, "cine");
        assert!(all.add(third, 200) && !loud.iter().any(|(_, cut)| is_cut(cut)), "at the limit of all");
        // The larger body is another one's, but its party has less.
        assert!(all.add(third, 100) && is_cut(&loud[0].1) && !is_cut(&second_cut));
        assert!(!all.add(loud[0].0, 1), "it was cut off");
        assert_eq!((all.of["acme"], all.of["bolt"], all.of["cine"], all.bytes), (400, 300, 300, 1_000));
        // Who has most makes nobody else go.
        assert!(!all.add(loud[1].0, 1) && !is_cut(&second_cut));
    }
}
