//! What happens again and again is told once in a while, with how often it happened in between.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

use crate::kernel::ids::Timestamp;

pub struct Repeats<K> {
    known: Mutex<HashMap<K, Repeat>>,
    period_ms: i64,
    /// More kinds than this at a time are only counted, together.
    kinds_max: usize,
    others: K,
}

struct Repeat {
    since: Timestamp,
    count: u64,
}

impl<K: Eq + Hash + Clone> Repeats<K> {
    /// `others` stands for all that go beyond `kinds_max`.
    pub fn new(period_ms: i64, kinds_max: usize, others: K) -> Self {
        Self { known: Mutex::default(), period_ms, kinds_max, others }
    }

    /// How often it happened untold before this time; `None` when this time is not told either.
    pub fn count(&self, what: K, now: Timestamp) -> Option<u64> {
        let mut known = self.known.lock().ok()?;
        if !known.contains_key(&what) && known.len() >= self.kinds_max {
            known.retain(|_, repeat| repeat.count > 0 || repeat.since.plus_ms(self.period_ms) > now);
            if known.len() >= self.kinds_max {
                known.entry(self.others.clone()).or_insert(Repeat { since: now, count: 0 }).count += 1;
                return None;
            }
        }
        let repeat = known.entry(what).or_insert(Repeat { since: Timestamp(i64::MIN), count: 0 });
        if repeat.since.plus_ms(self.period_ms) > now {
            repeat.count += 1;
            return None;
        }
        repeat.since = now;
        Some(std::mem::take(&mut repeat.count))
    }

    /// Forgets all whose time is over; answers what of it happened untold, with how often.
    pub fn take_over(&self, now: Timestamp) -> Vec<(K, u64)> {
        let Ok(mut known) = self.known.lock() else { return Vec::new() };
        let is_over = |repeat: &Repeat| repeat.since.plus_ms(self.period_ms) <= now;
        let untold = known.iter().filter(|(_, repeat)| repeat.count > 0 && is_over(repeat));
        let untold = untold.map(|(what, repeat)| (what.clone(), repeat.count)).collect();
        known.retain(|_, repeat| !is_over(repeat));
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_once_a_period_with_what_went_by() {
        let repeats = Repeats::new(100, 2, "others");
        let count = |what, at| repeats.count(what, Timestamp(at));
        assert_eq!((count("a", 0), count("a", 1), count("a", 99), count("a", 100)), (Some(0), None, None, Some(2)));
        assert_eq!((count("b", 100), count("c", 100), count("d", 101)), (Some(0), None, None));
        assert_eq!((count("b", 150), count("a", 200)), (None, Some(0)));
        let mut over = repeats.take_over(Timestamp(250));
        over.sort_unstable();
        assert_eq!(over, [("b", 1), ("others", 2)]);
        assert_eq!((count("c", 250), repeats.take_over(Timestamp(1_000))), (Some(0), Vec::new()));
    }
}
