//! Rate limit for reports of repeated occurrences: each kind is reported once per period, with the number of unreported
//! repeats.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use crate::kernel::ids::Timestamp;

/// The kinds that were reported recently, with their repeats.
pub struct RepeatLimiter<K> {
    known: Mutex<HashMap<K, Repeat>>,
    period_ms: i64,
    /// Kinds beyond this number are only counted, together under `others`.
    kinds_max: usize,
    others: K,
}

struct Repeat {
    /// When it was last reported.
    since: Timestamp,
    /// Repeats that were not reported.
    count: u64,
}

impl<K: Eq + Hash + Clone> RepeatLimiter<K> {
    /// `others` is the kind that counts everything beyond `kinds_max`.
    pub fn new(period_ms: i64, kinds_max: usize, others: K) -> Self {
        Self { known: Mutex::default(), period_ms, kinds_max, others }
    }

    /// Counts an occurrence. Returns the number of repeats since the last report if this one is to be reported, `None`
    /// if it is not.
    pub fn count(&self, kind: K, now: Timestamp) -> Option<u64> {
        let mut known = self.known.lock().ok()?;
        if !known.contains_key(&kind) && known.len() >= self.kinds_max {
            known.retain(|_, repeat| repeat.count > 0 || repeat.since.plus_ms(self.period_ms) > now);
            if known.len() >= self.kinds_max {
                known.entry(self.others.clone()).or_insert(Repeat { since: now, count: 0 }).count += 1;
                return None;
            }
        }
        let repeat = known.entry(kind).or_insert(Repeat { since: Timestamp(i64::MIN), count: 0 });
        if repeat.since.plus_ms(self.period_ms) > now {
            repeat.count += 1;
            return None;
        }
        repeat.since = now;
        Some(std::mem::take(&mut repeat.count))
    }

    /// Removes all kinds whose period is over; returns those with unreported repeats, with their number.
    pub fn take_expired(&self, now: Timestamp) -> Vec<(K, u64)> {
        let Ok(mut known) = self.known.lock() else { return Vec::new() };
        let is_over = |repeat: &Repeat| repeat.since.plus_ms(self.period_ms) <= now;
        let unreported = known.iter().filter(|(_, repeat)| repeat.count > 0 && is_over(repeat));
        let unreported = unreported.map(|(kind, repeat)| (kind.clone(), repeat.count)).collect();
        known.retain(|_, repeat| !is_over(repeat));
        unreported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_reported_once_per_period_with_its_repeats() {
        let repeats = RepeatLimiter::new(100, 2, "others");
        let count = |what, at| repeats.count(what, Timestamp(at));
        assert_eq!((count("a", 0), count("a", 1), count("a", 99), count("a", 100)), (Some(0), None, None, Some(2)));
        assert_eq!((count("b", 100), count("c", 100), count("d", 101)), (Some(0), None, None));
        assert_eq!((count("b", 150), count("a", 200)), (None, Some(0)));
        let mut over = repeats.take_expired(Timestamp(250));
        over.sort_unstable();
        assert_eq!(over, [("b", 1), ("others", 2)]);
        assert_eq!((count("c", 250), repeats.take_expired(Timestamp(1_000))), (Some(0), Vec::new()));
    }
}
