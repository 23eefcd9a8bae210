//! Equal stretches of time, over which rows are counted.

use std::collections::BTreeMap;

use crate::kernel::ids::Timestamp;

/// Consecutive stretches of the same length. They begin at multiples of it, so hours and days are those of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    pub from: Timestamp,
    pub step_ms: i64,
    pub count: usize,
}

impl Buckets {
    /// The buckets that a period touches; its end is exclusive. `None` for an empty period.
    pub fn covering(from: Timestamp, to: Timestamp, step_ms: i64) -> Option<Self> {
        let first = from.0.checked_div_euclid(step_ms)?;
        let last = to.0.checked_sub(1)?.checked_div_euclid(step_ms)?;
        let count = last.checked_sub(first)?.checked_add(1).filter(|_| from < to)?;
        Some(Self {
            from: Timestamp(first.checked_mul(step_ms)?),
            step_ms,
            count: usize::try_from(count).ok().filter(|count| *count > 0)?,
        })
    }

    /// The end of the last bucket.
    pub fn to(&self) -> Timestamp {
        self.from.plus_ms(self.step_ms.saturating_mul(i64::try_from(self.count).unwrap_or(i64::MAX)))
    }

    /// The start of each bucket.
    pub fn starts(&self) -> impl Iterator<Item = i64> {
        let (from, step_ms) = (self.from.0, self.step_ms);
        (0_i64..).take(self.count).map(move |n| from.saturating_add(step_ms.saturating_mul(n)))
    }

    /// The bucket that contains a moment.
    pub fn find(&self, at: Timestamp) -> Option<usize> {
        let since = at.0.checked_sub(self.from.0)?.checked_div_euclid(self.step_ms)?;
        usize::try_from(since).ok().filter(|bucket| *bucket < self.count)
    }
}

/// Sums by name, one for each bucket.
#[derive(Debug, Clone)]
pub struct Sums<K> {
    count: usize,
    by_key: BTreeMap<K, Vec<u64>>,
}

impl<K: Ord> Sums<K> {
    pub fn new(buckets: &Buckets) -> Self {
        Self { count: buckets.count, by_key: BTreeMap::new() }
    }

    /// Adds to a bucket. Buckets beyond the last are ignored.
    pub fn add(&mut self, bucket: i64, key: K, number: u64) {
        let Some(bucket) = usize::try_from(bucket).ok().filter(|bucket| *bucket < self.count) else { return };
        let sums = self.by_key.entry(key).or_insert_with(|| vec![0; self.count]);
        if let Some(sum) = sums.get_mut(bucket) {
            *sum = sum.saturating_add(number);
        }
    }

    /// The sums under a name; zeros if nothing was added.
    pub fn take(&mut self, key: &K) -> Vec<u64> {
        self.by_key.remove(key).unwrap_or_else(|| vec![0; self.count])
    }
}

impl<K> IntoIterator for Sums<K> {
    type Item = (K, Vec<u64>);
    type IntoIter = std::collections::btree_map::IntoIter<K, Vec<u64>>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_key.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn buckets_begin_at_whole_hours_and_end_after_the_period() {
        for (from, to, expected) in [
            (0, HOUR_MS, Some((0, 1))),
            (0, HOUR_MS + 1, Some((0, 2))),
            (HOUR_MS - 1, HOUR_MS, Some((0, 1))),
            (HOUR_MS, 3 * HOUR_MS, Some((HOUR_MS, 2))),
            (-1, 1, Some((-HOUR_MS, 2))),
            (5, 5, None),
            (6, 5, None),
            (0, i64::MIN, None),
        ] {
            let found = Buckets::covering(Timestamp(from), Timestamp(to), HOUR_MS);
            assert_eq!(found.map(|buckets| (buckets.from.0, buckets.count)), expected);
        }
    }

    #[test]
    fn a_moment_is_in_one_bucket() {
        let buckets = Buckets::covering(Timestamp(HOUR_MS), Timestamp(3 * HOUR_MS), HOUR_MS).expect("a period");
        let found = [0, HOUR_MS - 1, HOUR_MS, 2 * HOUR_MS - 1, 2 * HOUR_MS, 3 * HOUR_MS - 1, 3 * HOUR_MS];
        assert_eq!(found.map(|at| buckets.find(Timestamp(at))), [None, None, Some(0), Some(0), Some(1), Some(1), None]);
        assert_eq!((buckets.starts().collect::<Vec<_>>(), buckets.to().0), (vec![HOUR_MS, 2 * HOUR_MS], 3 * HOUR_MS));
    }

    #[test]
    fn sums_saturate_and_ignore_other_buckets() {
        let buckets = Buckets { from: Timestamp(0), step_ms: HOUR_MS, count: 2 };
        let mut sums = Sums::new(&buckets);
        for (bucket, number) in [(0, 2), (1, u64::MAX), (1, 1), (2, 9), (-1, 9)] {
            sums.add(bucket, "a", number);
        }
        assert_eq!((sums.take(&"a"), sums.take(&"a")), (vec![2, u64::MAX], vec![0, 0]));
    }
}
