//! Slows down who guesses passwords, without shutting the owner out.
//!
//! Failures are counted per account, per address, and per account and address. An account that is being attacked stays
//! open to addresses where a session of its member began, and for a few tries to addresses that have not failed yet: a guesser
//! needs ever new addresses, and its owner needs only one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use crate::kernel::authz::principal::network_of;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, Hash};

/// Tries that an address without failures has at an account that is under attack.
const FRESH_TRIES: u64 = 3;
/// Failures of an account, as a multiple of its limit, from which on strange addresses are turned away at once.
const FRESH_FACTOR: u64 = 10;
/// Counters kept; hashing bounds how fast they come, so that this is only the last resort.
const COUNTERS_MAX: usize = 200_000;
/// So many addresses are still counted when there is no room for anything else.
const ADDRESSES_BEYOND: usize = 50_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Account(Hash),
    Address(IpAddr),
    Pair(Hash, IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u64,
    until: Timestamp,
}

/// Counts of failed sign-ins, in memory: a restart forgives.
pub struct Throttle {
    window_ms: i64,
    account_max: u64,
    address_max: u64,
    counts: Mutex<HashMap<Key, Count>>,
}

/// Who tries: an account by its id, or by what was typed where there is none, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    account: Hash,
    /// Requests without an address count as one.
    address: IpAddr,
}

impl Attempt {
    pub fn new(account: &str, address: Option<IpAddr>) -> Self {
        Self { account: secret::hash(account), address: network_of(address.unwrap_or(IpAddr::from([0, 0, 0, 0]))) }
    }
}

fn slowed(until: Timestamp, now: Timestamp) -> Error {
    let seconds = u64::try_from(until.0 - now.0).unwrap_or_default().div_ceil(1_000).max(1);
    Error::new(ErrorCode::TooManyFailures).retry_after(seconds)
}

impl Throttle {
    pub fn new(config: &Config) -> Self {
        Self {
            window_ms: i64::try_from(config.slow_window_s.saturating_mul(1_000)).unwrap_or(i64::MAX),
            account_max: config.slow_account_failures,
            address_max: config.slow_address_failures,
            counts: Mutex::default(),
        }
    }

    /// May this be tried now? `is_known`: a session of the member's began at this address.
    pub fn check(&self, attempt: Attempt, is_known: bool, now: Timestamp) -> Result<()> {
        let Ok(counts) = self.counts.lock() else { return Ok(()) };
        let of = |key: Key| counts.get(&key).filter(|count| now < count.until).copied();
        let failures = |count: Option<Count>| count.map_or(0, |count| count.failures);
        let (account, pair) = (of(Key::Account(attempt.account)), of(Key::Pair(attempt.account, attempt.address)));
        let address = of(Key::Address(attempt.address));
        let is_under_attack = failures(account) >= self.account_max;
        let is_fresh = failures(pair) < FRESH_TRIES && failures(account) < self.account_max * FRESH_FACTOR;
        let slowed_by = if failures(address) >= self.address_max {
            address
        } else if failures(pair) >= self.account_max {
            pair
        } else if is_under_attack && !is_known && !is_fresh {
            account
        } else {
            return Ok(());
        };
        Err(slowed(slowed_by.map_or(now, |count| count.until), now))
    }

    /// May an account fail once more, from wherever it does so?
    pub fn require_patience_with(&self, account: &str, now: Timestamp) -> Result<()> {
        let Ok(counts) = self.counts.lock() else { return Ok(()) };
        let count = counts.get(&Key::Account(secret::hash(account))).filter(|count| now < count.until);
        match count.filter(|count| count.failures >= self.account_max) {
            None => Ok(()),
            Some(count) => Err(slowed(count.until, now)),
        }
    }

    /// Counts a failure of an account, from wherever it was.
    pub fn failed_at(&self, account: &str, now: Timestamp) {
        self.count(&[Key::Account(secret::hash(account))], now);
    }

    pub fn failed(&self, attempt: Attempt, now: Timestamp) {
        let Attempt { account, address } = attempt;
        self.count(&[Key::Account(account), Key::Address(address), Key::Pair(account, address)], now);
    }

    fn count(&self, keys: &[Key], now: Timestamp) {
        let Ok(mut counts) = self.counts.lock() else { return };
        let is_full = counts.len() >= COUNTERS_MAX;
        let is_new = keys.iter().any(|key| matches!(key, Key::Address(_)) && !counts.contains_key(key));
        if is_full && is_new {
            // Seldom: each time makes room for all that is over, or else nothing is added.
            counts.retain(|_, count| now < count.until);
        }
        for key in keys.iter().copied() {
            // Addresses are what there are fewest of: they get what room is left.
            let most = if matches!(key, Key::Address(_)) { ADDRESSES_BEYOND + COUNTERS_MAX } else { COUNTERS_MAX };
            if counts.len() >= most && !counts.contains_key(&key) {
                continue;
            }
            let count = counts.entry(key).or_insert(Count { failures: 0, until: now });
            if now >= count.until {
                *count = Count { failures: 0, until: now.plus_ms(self.window_ms) };
            }
            count.failures += 1;
        }
    }

    /// The owner is in: what this address got wrong before is forgiven.
    pub fn succeeded(&self, attempt: Attempt) {
        if let Ok(mut counts) = self.counts.lock() {
            counts.remove(&Key::Pair(attempt.account, attempt.address));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fails(slowdown: &Throttle, address: &str, times: u64, now: Timestamp) -> Attempt {
        let attempt = Attempt::new("kim", address.parse().ok());
        (0..times).for_each(|_| slowdown.failed(attempt, now));
        attempt
    }

    #[test]
    fn a_guesser_waits_and_the_owner_does_not() {
        let slowdown = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        let guesser = fails(&slowdown, "203.0.113.1", 9, now);
        assert!(slowdown.check(guesser, false, now).is_ok());
        fails(&slowdown, "203.0.113.1", 1, now);
        let refused = slowdown.check(guesser, true, now).expect_err("ten failures");
        assert_eq!(
            (refused.cause, refused.retry_after_s.map(std::num::NonZeroU32::get)),
            (ErrorCode::TooManyFailures, Some(900))
        );
        let fresh = fails(&slowdown, "198.51.100.7", 2, now);
        assert!(slowdown.check(fresh, false, now).is_ok());
        fails(&slowdown, "198.51.100.7", 1, now);
        assert!(slowdown.check(fresh, false, now).is_err());
        assert!(slowdown.check(fresh, true, now).is_ok());
        assert!(slowdown.check(guesser, false, now.plus_ms(900_000)).is_ok());
    }

    #[test]
    fn many_addresses_end_the_patience_with_strangers_only() {
        let slowdown = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        for n in 0..50 {
            fails(&slowdown, &format!("203.0.113.{n}"), 2, now);
        }
        let stranger = Attempt::new("kim", "198.51.100.7".parse().ok());
        assert!(slowdown.check(stranger, false, now).is_err());
        assert!(slowdown.check(stranger, true, now).is_ok());
    }

    #[test]
    fn one_network_is_one_guesser_however_many_addresses_it_has() {
        let slowdown = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        for n in 0..10 {
            fails(&slowdown, &format!("2001:db8::{n}"), 1, now);
        }
        let neighbour = Attempt::new("kim", "2001:db8::ffff".parse().ok());
        assert!(slowdown.check(neighbour, false, now).is_err());
        let elsewhere = Attempt::new("kim", "2001:db8:0:1::1".parse().ok());
        assert!(slowdown.check(elsewhere, false, now).is_ok());
    }

    #[test]
    fn an_address_waits_at_its_limit_whatever_the_account() {
        let slowdown = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        let attempt = |n: usize| Attempt::new(&format!("member{n}"), "203.0.113.1".parse().ok());
        (0..49).for_each(|n| slowdown.failed(attempt(n), now));
        assert!(slowdown.check(attempt(100), false, now).is_ok());
        slowdown.failed(attempt(49), now);
        assert!(slowdown.check(attempt(100), false, now).is_err());
    }
}
