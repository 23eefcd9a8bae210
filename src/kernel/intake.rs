//! Request bodies: the only code that reads them, enforces their limits, and discards unread ones.
//!
//! **Invariant.** The middleware only puts the body into the [`BodySlot`] of the request. It is read by the operation,
//! after authentication; a long body only by `App::read_large_body`, and in a form by `console/multipart.rs`, after the
//! check of the permission.

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

/// How much of an unread body is drained for an authenticated caller, so that the connection can be reused. For others
/// it is `limits.public_body_bytes`.
const DRAIN_BYTES_MAX: u64 = 8 * 1_024 * 1_024;
/// How long a connection stays open whose client is still sending, so that the client can read the response.
const LINGER: Duration = Duration::from_secs(1);
/// Unauthenticated callers share an additional budget: `limits.bytes_in_flight` divided by this.
const PUBLIC_PART: u64 = 4;
/// Bodies of at least this length are parsed with `block_in_place`, so that they do not delay other requests.
const LONG_BYTES: usize = 64 * 1_024;
/// One address may use the public budget divided by this, but always enough for one body.
const ADDRESS_PART: u64 = 4;
/// One organization or API client may use `limits.bytes_in_flight` divided by this, but always enough for one body.
const PARTY_PART: u64 = 2;

/// The limits of request bodies, and the bytes of them in memory.
#[derive(Debug)]
pub struct BodyBudget {
    bytes_max: u64,
    public_bytes_max: u64,
    sign_in_bytes_max: u64,
    pub nodes_max: u64,
    wait: Duration,
    /// Bodies of authenticated callers.
    authenticated: Mutex<InFlight>,
    /// Bodies of unauthenticated callers.
    public: Mutex<InFlight>,
    /// Limits the long bodies that are parsed at once, so that threads remain for other requests.
    parsing_long: Semaphore,
}

impl BodyBudget {
    pub fn new(config: &Config) -> Self {
        Self {
            bytes_max: config.body_bytes_max,
            public_bytes_max: config.public_body_bytes_max,
            sign_in_bytes_max: config.sign_in_bytes_max,
            nodes_max: config.body_nodes_max,
            wait: Duration::from_millis(config.body_wait_ms),
            authenticated: Mutex::new(InFlight::new(config.bytes_in_flight_max, PARTY_PART, config.longest_body())),
            public: Mutex::new(InFlight::new(
                config.bytes_in_flight_max / PUBLIC_PART,
                ADDRESS_PART,
                config.public_body_bytes_max,
            )),
            parsing_long: Semaphore::new(config::processors().div_ceil(2)),
        }
    }

    /// Bytes of request bodies in memory.
    pub fn in_flight(&self) -> u64 {
        self.bodies_of(false).bytes + self.bodies_of(true).bytes
    }

    /// Parses a body of this length. A long one is parsed without delaying other requests, and only some at a time.
    pub async fn parse_long<T>(&self, bytes: usize, parse: impl FnOnce() -> T) -> T {
        if bytes < LONG_BYTES || Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return parse();
        }
        // The semaphore is never closed.
        let _permit = self.parsing_long.acquire().await;
        tokio::task::block_in_place(parse)
    }

    fn bodies_of(&self, is_public: bool) -> MutexGuard<'_, InFlight> {
        let bodies = if is_public { &self.public } else { &self.authenticated };
        bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bodies in memory that share one budget. If a body exceeds the budget, another incomplete body is aborted for it:
/// the largest one of the party with most bytes. So parties that send little are never blocked by those that send much.
/// A party is an organization or an API client, or the address of an unauthenticated caller.
#[derive(Debug)]
struct InFlight {
    bytes_max: u64,
    party_bytes_max: u64,
    bytes: u64,
    by_party: HashMap<String, u64>,
    next_id: u64,
    bodies: HashMap<u64, CountedBody>,
}

#[derive(Debug)]
struct CountedBody {
    /// `None` for a caller that belongs to no party.
    party: Option<String>,
    bytes: u64,
    /// Notified when the body is aborted; `None` once it is complete.
    abort: Option<Arc<Notify>>,
}

impl InFlight {
    fn new(bytes_max: u64, part: u64, body_bytes_max: u64) -> Self {
        Self {
            bytes_max,
            party_bytes_max: (bytes_max / part).max(body_bytes_max),
            bytes: 0,
            by_party: HashMap::new(),
            next_id: 0,
            bodies: HashMap::new(),
        }
    }

    /// Adds a body; returns the id under which it is counted.
    fn insert(&mut self, party: Option<String>, abort: Arc<Notify>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.bodies.insert(id, CountedBody { party, bytes: 0, abort: Some(abort) });
        id
    }

    /// Bytes of the party of a body, including this body.
    fn party_bytes(&self, body: &CountedBody) -> u64 {
        body.party.as_ref().map_or(body.bytes, |party| self.by_party.get(party).copied().unwrap_or(0))
    }

    /// Counts more bytes of a body. Returns false if there is no space, or the body was aborted.
    #[must_use]
    fn add(&mut self, id: u64, bytes: u64) -> bool {
        let Some(body) = self.bodies.get(&id) else { return false };
        let (party, own) = (body.party.clone(), body.bytes + bytes);
        let party_bytes = |all: &Self| all.bodies.get(&id).map_or(0, |body| all.party_bytes(body)) + bytes;
        while party.is_some() && party_bytes(self) > self.party_bytes_max {
            if !self.abort_one(|other, _| other.party == party && other.bytes > own) {
                return false;
            }
        }
        while self.bytes + bytes > self.bytes_max {
            let share = party_bytes(self);
            let has_more = |other: &CountedBody, other_party_bytes: u64| {
                if other.party == party { other.bytes > own } else { other_party_bytes > share }
            };
            if !self.abort_one(has_more) {
                return false;
            }
        }
        let Some(body) = self.bodies.get_mut(&id) else { return false };
        body.bytes += bytes;
        self.bytes += bytes;
        if let Some(party) = party {
            *self.by_party.entry(party).or_default() += bytes;
        }
        true
    }

    /// Aborts one of the candidates: the largest body of the party with most bytes, the oldest among equals. Returns
    /// false if there is none. `is_candidate` gets a body and the bytes of its party.
    fn abort_one(&mut self, is_candidate: impl Fn(&CountedBody, u64) -> bool) -> bool {
        let incomplete = self.bodies.iter().filter(|(_, body)| body.abort.is_some());
        let sized = incomplete.map(|(id, body)| (*id, body, self.party_bytes(body)));
        let candidates = sized.filter(|(_, body, party_bytes)| is_candidate(body, *party_bytes));
        let Some((id, ..)) = candidates.max_by_key(|(id, body, party_bytes)| (*party_bytes, body.bytes, Reverse(*id)))
        else {
            return false;
        };
        if let Some(abort) = self.remove(id).and_then(|body| body.abort) {
            abort.notify_one();
        }
        true
    }

    /// Marks a body as complete: it is no longer aborted for others.
    fn complete(&mut self, id: u64) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.abort = None;
        }
    }

    fn remove(&mut self, id: u64) -> Option<CountedBody> {
        let body = self.bodies.remove(&id)?;
        self.bytes -= body.bytes;
        if let Some(party) = &body.party
            && let Some(bytes) = self.by_party.get_mut(party)
        {
            *bytes -= body.bytes;
            if *bytes == 0 {
                self.by_party.remove(party);
            }
        }
        Some(body)
    }
}

/// The limit for the length of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.public_body_bytes`, or `limits.sign_in_bytes`: the caller is not authenticated.
    Public,
    /// `limits.body_bytes`.
    Ordinary,
    /// This many bytes, for an operation whose caller may send a large body.
    Large(u64),
}

impl Limit {
    fn bytes_max(self, intake: &BodyBudget) -> u64 {
        match self {
            Self::Public => intake.public_bytes_max,
            Self::Ordinary => intake.bytes_max,
            Self::Large(bytes_max) => bytes_max,
        }
    }
}

/// The error of a body that is longer than this.
pub fn too_large(bytes_max: u64) -> Error {
    let message = format!("the body is larger than the {bytes_max} bytes that this operation accepts");
    Error::new(ErrorCode::TooLarge).with_message(message)
}

/// The body of one request, unread or read.
#[derive(Debug, Default)]
pub struct BodySlot {
    unread: Mutex<Option<Unread>>,
    read: OnceLock<BodyPart>,
}

/// A body that was read, or a part of it. The whole body is counted as in flight until all its parts are dropped.
#[derive(Debug, Clone)]
pub struct BodyPart {
    bytes: Bytes,
    whole: Arc<Held>,
}

impl BodyPart {
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The part with these bytes, which are a slice of this one.
    #[must_use]
    pub fn part(&self, slice: &[u8]) -> Self {
        Self { bytes: self.bytes.slice_ref(slice), whole: self.whole.clone() }
    }

    pub fn intake(&self) -> &BodyBudget {
        &self.whole.intake
    }
}

impl From<Held> for BodyPart {
    fn from(held: Held) -> Self {
        Self { bytes: held.bytes.clone(), whole: Arc::new(held) }
    }
}

#[derive(Debug)]
struct Unread {
    body: BoxBody<Bytes, io::Error>,
    intake: Arc<BodyBudget>,
    origin: Origin,
    /// Whether the client waits for permission before it sends the body (`Expect: 100-continue`).
    is_held_back: bool,
}

/// The origin of a body.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub address: Option<IpAddr>,
    /// Whether it is a sign-in request, which has a smaller limit.
    pub is_sign_in: bool,
}

/// Bytes of a body, counted as in flight until they are dropped.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    counted: u64,
    /// The id under which it is counted.
    id: u64,
    /// Whether it is counted among the bodies of unauthenticated callers.
    is_public: bool,
    intake: Arc<BodyBudget>,
}

impl Held {
    fn count(&mut self, bytes: u64) -> Result<()> {
        self.counted += bytes;
        let has_space = self.intake.bodies_of(self.is_public).add(self.id, bytes);
        if has_space { Ok(()) } else { Err(no_space()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.intake.bodies_of(self.is_public).remove(self.id);
    }
}

fn no_space() -> Error {
    let message = "the server holds as many bytes of request bodies as its limit allows: try again";
    Error::new(ErrorCode::Busy).with_message(message).with_source("limits.bytes_in_flight").retry_after(1)
}

impl BodySlot {
    /// The slot of a new request.
    pub fn new(body: BoxBody<Bytes, io::Error>, is_held_back: bool, origin: Origin, intake: &Arc<BodyBudget>) -> Self {
        let unread = Unread { body, intake: intake.clone(), origin, is_held_back };
        Self { unread: Mutex::new(Some(unread)), read: OnceLock::new() }
    }

    /// The slot of a request in this process, whose body is a part of another one.
    pub fn of_part(part: BodyPart) -> Self {
        Self { unread: Mutex::new(None), read: OnceLock::from(part) }
    }

    /// Reads the body; it is empty if there is none. `party` is that of an authenticated caller. Fails with
    /// `too_large`, `request_timeout`, `malformed_body` or `busy`; after another error than a time-out the rest can
    /// still be drained.
    pub async fn read(&self, limit: Limit, party: Option<String>) -> Result<&Bytes> {
        static NONE: Bytes = Bytes::new();
        Ok(self.read_part(limit, party).await?.map_or(&NONE, BodyPart::bytes))
    }

    /// The same, but counted as in flight for as long as it is kept; `None` if there is no body.
    pub async fn read_part(&self, limit: Limit, party: Option<String>) -> Result<Option<&BodyPart>> {
        if let Some(part) = self.read.get() {
            let bytes_max = limit.bytes_max(part.intake());
            return if part.bytes.len() as u64 > bytes_max { Err(too_large(bytes_max)) } else { Ok(Some(part)) };
        }
        let Some(mut unread) = self.take() else { return Ok(None) };
        let wait = unread.intake.wait;
        let Ok(collected) = tokio::time::timeout(wait, unread.collect(limit, party)).await else {
            return Err(Error::new(ErrorCode::RequestTimeout).header("Connection", "close"));
        };
        match collected {
            Ok(held) => Ok(Some(self.read.get_or_init(|| held.into()))),
            Err(refused) => {
                if let Ok(mut slot) = self.unread.lock() {
                    *slot = Some(unread);
                }
                Err(refused)
            }
        }
    }

    /// The bytes that were read; empty if none were.
    pub fn bytes(&self) -> &[u8] {
        self.read.get().map_or(&[], |part| &part.bytes)
    }

    /// The limits, if the body was read.
    pub fn intake(&self) -> Option<&BodyBudget> {
        self.read.get().map(BodyPart::intake)
    }

    fn take(&self) -> Option<Unread> {
        self.unread.lock().ok()?.take()
    }

    /// Discards an unread body after the response is ready: part of it is drained, so that the client can read the
    /// response. Returns whether the connection must be closed after the response.
    pub fn discard(&self, is_known: bool) -> bool {
        let Some(mut unread) = self.take() else { return false };
        if unread.is_held_back {
            // Reading would make the server ask the client for the body.
            return true;
        }
        let bytes_max = if is_known { DRAIN_BYTES_MAX } else { unread.intake.public_bytes_max };
        let mut drained = 0;
        // Usually it has already arrived.
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
            other => other.bytes_max(&self.intake),
        };
        let declared = self.body.size_hint().lower();
        if declared > bytes_max {
            return Err(too_large(bytes_max));
        }
        self.is_held_back = false;
        let (intake, abort) = (self.intake.clone(), Arc::<Notify>::default());
        let is_public = limit == Limit::Public;
        let party = if is_public { self.origin.address.map(|address| address.to_string()) } else { party };
        let id = intake.bodies_of(is_public).insert(party, abort.clone());
        let mut held = Held { bytes: Bytes::new(), counted: 0, id, is_public, intake };
        let mut joined = Vec::new();
        loop {
            let frame = tokio::select! {
                biased;
                () = abort.notified() => return Err(no_space()),
                frame = self.body.frame() => frame,
            };
            let Some(frame) = frame else { break };
            let incomplete = |e: io::Error| match e.kind() {
                io::ErrorKind::TimedOut => {
                    Error::new(ErrorCode::RequestTimeout).header("Connection", "close").with_source(e.to_string())
                }
                _ => Error::new(ErrorCode::MalformedBody)
                    .with_message("the body is incomplete")
                    .with_source(e.to_string()),
            };
            let Ok(piece) = frame.map_err(incomplete)?.into_data() else { continue };
            let length = piece.len() as u64;
            if held.counted + length > bytes_max {
                return Err(too_large(bytes_max));
            }
            held.count(length)?;
            // Most bodies come as one piece, which needs no copy.
            if held.counted == length {
                held.bytes = piece;
                continue;
            }
            if joined.is_empty() {
                joined.reserve_exact(usize::try_from(declared.max(held.counted)).unwrap_or_default());
                joined.extend_from_slice(&std::mem::take(&mut held.bytes));
            }
            joined.extend_from_slice(&piece);
        }
        held.intake.bodies_of(is_public).complete(id);
        if !joined.is_empty() {
            held.bytes = joined.into();
        }
        Ok(held)
    }

    /// Drains up to `bytes_max` bytes; returns whether the body has ended.
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

    fn insert(all: &mut InFlight, address: u8) -> (u64, Arc<Notify>) {
        let abort = Arc::<Notify>::default();
        (all.insert(Some(format!("192.0.2.{address}")), abort.clone()), abort)
    }

    fn is_aborted(abort: &Notify) -> bool {
        abort.notified().now_or_never().is_some()
    }

    /// 1,000 bytes for all, 250 per address.
    fn public() -> InFlight {
        InFlight::new(1_000, 4, 250)
    }

    #[tokio::test]
    async fn a_part_of_a_body_is_counted_for_as_long_as_it_is_kept_and_obeys_a_limit() {
        let budget = Arc::new(BodyBudget::new(&Config::of(std::path::Path::new(""))));
        let origin = Origin { address: None, is_sign_in: false };
        let body = http_body_util::Full::new(Bytes::from("name=hours")).map_err(|never| match never {}).boxed();
        let slot = BodySlot::new(body, false, origin, &budget);
        let whole = slot.read_part(Limit::Large(10), None).await.expect("at the limit").expect("a body").clone();
        let part = whole.part(&whole.bytes()[5..]);
        drop((slot, whole));
        assert_eq!((&part.bytes()[..], budget.in_flight()), (&b"hours"[..], 10));
        let inner = BodySlot::of_part(part);
        assert_eq!(inner.read(Limit::Large(4), None).await.expect_err("past it").code, ErrorCode::TooLarge);
        assert_eq!(inner.read(Limit::Large(5), None).await.expect("at the limit"), &b"hours"[..]);
        assert_eq!(budget.in_flight(), 10);
        drop(inner);
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn the_largest_incomplete_body_is_aborted_for_a_smaller_one() {
        let mut all = public();
        let bodies: Vec<_> = (1..=4).map(|n| insert(&mut all, n)).collect();
        for ((id, _), bytes) in bodies.iter().zip([249, 250, 250, 240]) {
            assert!(all.add(*id, bytes));
        }
        let (small, small_abort) = insert(&mut all, 5);
        assert!(all.add(small, 11) && !bodies.iter().any(|(_, abort)| is_aborted(abort)), "at the limit");
        assert!(all.add(small, 1));
        assert_eq!(bodies.iter().map(|(_, abort)| is_aborted(abort)).collect::<Vec<_>>(), [false, true, false, false]);
        assert!(!all.add(bodies[1].0, 1), "it was aborted");
        assert_eq!(all.bytes, 249 + 250 + 240 + 12);
        // The largest body aborts no other, nor does one that is as large as the others.
        let (large, _) = insert(&mut all, 6);
        assert!(all.add(large, 249) && !all.add(large, 1));
        // A complete body is not aborted.
        bodies.iter().for_each(|(id, _)| all.complete(*id));
        all.complete(large);
        assert!(!all.add(small, 1) && !is_aborted(&small_abort));
        for id in bodies.into_iter().map(|(id, _)| id).chain([small, large]) {
            all.remove(id);
        }
        assert!(all.bytes == 0 && all.by_party.is_empty() && all.bodies.is_empty());
    }

    #[test]
    fn an_address_past_its_share_aborts_only_its_own_body() {
        let mut all = public();
        let (other, other_abort) = insert(&mut all, 1);
        let (first, first_abort) = insert(&mut all, 2);
        let (second, _) = insert(&mut all, 2);
        assert!(all.add(other, 250) && all.add(first, 200) && all.add(second, 50));
        assert!(!is_aborted(&first_abort), "at the limit");
        assert!(all.add(second, 1));
        assert!(is_aborted(&first_abort) && !is_aborted(&other_abort));
    }

    #[test]
    fn the_party_with_most_bytes_is_aborted_first_and_none_exceeds_its_share() {
        let insert = |all: &mut InFlight, party: &str| {
            let abort = Arc::<Notify>::default();
            (all.insert(Some(party.to_owned()), abort.clone()), abort)
        };
        let mut all = InFlight::new(1_000, 2, 300);
        let loud: Vec<_> = (0..5).map(|_| insert(&mut all, "acme")).collect();
        assert!(loud.iter().all(|(id, _)| all.add(*id, 100)), "at the limit");
        assert!(
            !all.add(loud[0].0, 1) && !loud.iter().any(|(_, abort)| is_aborted(abort)),
            "it is the largest of its party"
        );
        let (second, second_abort) = insert(&mut all, "bolt");
        assert!(all.add(second, 300));
        let (third, _) = insert(&mut all, "cine");
        assert!(all.add(third, 200) && !loud.iter().any(|(_, abort)| is_aborted(abort)), "at the limit of all");
        // Another body is larger, but its party has fewer bytes.
        assert!(all.add(third, 100) && is_aborted(&loud[0].1) && !is_aborted(&second_abort));
        assert!(!all.add(loud[0].0, 1), "it was aborted");
        assert_eq!(
            (all.by_party["acme"], all.by_party["bolt"], all.by_party["cine"], all.bytes),
            (400, 300, 300, 1_000)
        );
        // The party with most bytes aborts no other.
        assert!(!all.add(loud[1].0, 1) && !is_aborted(&second_abort));
    }
}
