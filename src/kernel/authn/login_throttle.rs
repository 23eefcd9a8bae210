//! Throttles failed sign-ins, without locking out the owner of an account.
//!
//! Failures are counted per account, per address, and per pair of account and address. An account under attack still
//! accepts sign-ins from addresses where a session of its member began, and a few attempts from addresses that have not
//! failed yet: an attacker needs a new address every few attempts, the owner needs only one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::kernel::authn::failed_sign_ins::FailedSignIns;
use crate::kernel::authz::principal::network_of;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// Attempts that an address without failures has at an account under attack.
const FRESH_TRIES: u64 = 3;
/// The multiple of an account's limit of failures from which unknown addresses are rejected at once.
const FRESH_FACTOR: u64 = 10;
/// The maximum number of counters. Password hashing bounds how fast counters are added, so this limit is a last resort.
const COUNTERS_MAX: usize = 200_000;
/// Addresses that are still counted when the limit of other counters is reached.
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

/// Counters of failed sign-ins, in memory only: a restart resets them.
pub struct Throttle {
    window_ms: i64,
    account_max: u64,
    address_max: u64,
    counts: Mutex<HashMap<Key, Count>>,
    /// The failures of the last month, for statistics.
    pub failures: FailedSignIns,
    /// Says to which organizations members belong.
    policy: Option<Arc<ArcSwap<Snapshot>>>,
}

/// One attempt: the account, by its id or by the typed name if no account has it, and the address.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    account: Hash,
    /// Requests without an address share one counter.
    address: IpAddr,
    /// The member, if the account is one.
    member: Option<MemberId>,
}

impl Attempt {
    pub fn new(account: &str, address: Option<IpAddr>) -> Self {
        let member = MemberId::of(account);
        Self {
            account: secret::hash(account),
            address: network_of(address.unwrap_or(IpAddr::from([0, 0, 0, 0]))),
            member: (!member.is_nil()).then_some(member),
        }
    }
}

fn too_many_failures(until: Timestamp, now: Timestamp) -> Error {
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
            failures: FailedSignIns::new(Timestamp::now()),
            policy: None,
        }
    }

    #[must_use]
    pub fn with_policy(self, policy: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Fails with `too_many_failures` while the attempt must wait. `is_known`: a session of the member began at this
    /// address.
    pub fn check(&self, attempt: Attempt, is_known: bool, now: Timestamp) -> Result<()> {
        let Ok(counts) = self.counts.lock() else { return Ok(()) };
        let of = |key: Key| counts.get(&key).filter(|count| now < count.until).copied();
        let failures = |count: Option<Count>| count.map_or(0, |count| count.failures);
        let (account, pair) = (of(Key::Account(attempt.account)), of(Key::Pair(attempt.account, attempt.address)));
        let address = of(Key::Address(attempt.address));
        let is_under_attack = failures(account) >= self.account_max;
        let is_fresh = failures(pair) < FRESH_TRIES && failures(account) < self.account_max * FRESH_FACTOR;
        let reached = if failures(address) >= self.address_max {
            address
        } else if failures(pair) >= self.account_max {
            pair
        } else if is_under_attack && !is_known && !is_fresh {
            account
        } else {
            return Ok(());
        };
        Err(too_many_failures(reached.map_or(now, |count| count.until), now))
    }

    /// Fails with `too_many_failures` while the account is at its limit, from any address.
    pub fn check_account(&self, account: &str, now: Timestamp) -> Result<()> {
        let Ok(counts) = self.counts.lock() else { return Ok(()) };
        let count = counts.get(&Key::Account(secret::hash(account))).filter(|count| now < count.until);
        match count.filter(|count| count.failures >= self.account_max) {
            None => Ok(()),
            Some(count) => Err(too_many_failures(count.until, now)),
        }
    }

    /// Counts a failure of an account, from any address.
    pub fn record_account_failure(&self, account: &str, now: Timestamp) {
        self.count(&[Key::Account(secret::hash(account))], now);
    }

    /// Counts a failure of the account, of the address, and of the pair.
    pub fn record_failure(&self, attempt: Attempt, now: Timestamp) {
        let Attempt { account, address, member } = attempt;
        self.failures.record(member, now, |member| {
            let snapshot = self.policy.as_ref()?.load();
            snapshot.tenants_of(member).map(|tenant| tenant.id).min()
        });
        self.count(&[Key::Account(account), Key::Address(address), Key::Pair(account, address)], now);
    }

    fn count(&self, keys: &[Key], now: Timestamp) {
        let Ok(mut counts) = self.counts.lock() else { return };
        let is_full = counts.len() >= COUNTERS_MAX;
        let is_new = keys.iter().any(|key| matches!(key, Key::Address(_)) && !counts.contains_key(key));
        if is_full && is_new {
            // Rare: this removes all expired counters. If it removes none, nothing is added below.
            counts.retain(|_, count| now < count.until);
        }
        for key in keys.iter().copied() {
            // There are fewer addresses than accounts and pairs, so they get extra room.
            let limit = if matches!(key, Key::Address(_)) { ADDRESSES_BEYOND + COUNTERS_MAX } else { COUNTERS_MAX };
            if counts.len() >= limit && !counts.contains_key(&key) {
                continue;
            }
            let count = counts.entry(key).or_insert(Count { failures: 0, until: now });
            if now >= count.until {
                *count = Count { failures: 0, until: now.plus_ms(self.window_ms) };
            }
            count.failures += 1;
        }
    }

    /// Resets the failures of this account at this address, after a sign-in.
    pub fn record_success(&self, attempt: Attempt) {
        if let Ok(mut counts) = self.counts.lock() {
            counts.remove(&Key::Pair(attempt.account, attempt.address));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn fails(throttle: &Throttle, address: &str, times: u64, now: Timestamp) -> Attempt {
        let attempt = Attempt::new("kim", address.parse().ok());
        (0..times).for_each(|_| throttle.record_failure(attempt, now));
        attempt
    }

    #[test]
    fn an_attacker_must_wait_and_the_owner_need_not() {
        let throttle = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        let attacker = fails(&throttle, "203.0.113.1", 9, now);
        assert!(throttle.check(attacker, false, now).is_ok());
        fails(&throttle, "203.0.113.1", 1, now);
        let refused = throttle.check(attacker, true, now).expect_err("ten failures");
        assert_eq!(
            (refused.code, refused.retry_after_s.map(std::num::NonZeroU32::get)),
            (ErrorCode::TooManyFailures, Some(900))
        );
        let fresh = fails(&throttle, "198.51.100.7", 2, now);
        assert!(throttle.check(fresh, false, now).is_ok());
        fails(&throttle, "198.51.100.7", 1, now);
        assert!(throttle.check(fresh, false, now).is_err());
        assert!(throttle.check(fresh, true, now).is_ok());
        assert!(throttle.check(attacker, false, now.plus_ms(900_000)).is_ok());
    }

    #[test]
    fn an_account_attacked_from_many_addresses_rejects_unknown_addresses_only() {
        let throttle = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        for n in 0..50 {
            fails(&throttle, &format!("203.0.113.{n}"), 2, now);
        }
        let unknown = Attempt::new("kim", "198.51.100.7".parse().ok());
        assert!(throttle.check(unknown, false, now).is_err());
        assert!(throttle.check(unknown, true, now).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_one_counter() {
        let throttle = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        for n in 0..10 {
            fails(&throttle, &format!("2001:db8::{n}"), 1, now);
        }
        let same_network = Attempt::new("kim", "2001:db8::ffff".parse().ok());
        assert!(throttle.check(same_network, false, now).is_err());
        let other_network = Attempt::new("kim", "2001:db8:0:1::1".parse().ok());
        assert!(throttle.check(other_network, false, now).is_ok());
    }

    #[test]
    fn an_address_at_its_limit_must_wait_for_every_account() {
        let throttle = Throttle::new(&Config::of(Path::new("data")));
        let now = Timestamp::now();
        let attempt = |n: usize| Attempt::new(&format!("member{n}"), "203.0.113.1".parse().ok());
        (0..49).for_each(|n| throttle.record_failure(attempt(n), now));
        assert!(throttle.check(attempt(100), false, now).is_ok());
        throttle.record_failure(attempt(49), now);
        assert!(throttle.check(attempt(100), false, now).is_err());
    }
}
