//! A map that is cheap to copy and to change a little: copy-on-write in shards.
//!
//! A clone shares all data. The first change after a clone copies the table of shard pointers and the one shard
//! that is touched, so that publishing a change costs microseconds, whatever the size of the map.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A 16-byte key whose last half is as good as random: the tail of a UUIDv7, or of a digest. Callers cannot choose it.
pub trait IdKey: Copy + Eq + std::hash::Hash {
    fn bytes(&self) -> &[u8; 16];

    fn id_hash(&self) -> u64 {
        let mut tail = [0; 8];
        tail.copy_from_slice(&self.bytes()[8..]);
        // The first two bits of a UUID's tail are its variant, the same in all: turn them away from both ends.
        u64::from_be_bytes(tail).rotate_left(17)
    }
}

/// Takes the key's own randomness instead of hashing it again.
#[derive(Default, Clone, Copy)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut tail = [0; 8];
        if let Some(last) = bytes.len().checked_sub(8) {
            tail.copy_from_slice(&bytes[last..]);
        }
        self.0 = u64::from_be_bytes(tail).rotate_left(17);
    }
    /// The length that stands before an array's bytes is always the same.
    fn write_usize(&mut self, _: usize) {}
}

type Bucket<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Mean entries of a shard above which the number of shards grows fourfold: one shard is then some kilobytes.
const SHARD_ENTRIES_MAX: usize = 224;

#[derive(Clone)]
pub struct CowMap<K, V> {
    buckets: Arc<Vec<Arc<Bucket<K, V>>>>,
    len: usize,
}

impl<K: IdKey, V: Clone> Default for CowMap<K, V> {
    fn default() -> Self {
        Self { buckets: Arc::new(vec![Arc::default()]), len: 0 }
    }
}

impl<K: IdKey, V: Clone> CowMap<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.buckets[self.shard_of(key)].get(key)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|shard| shard.iter())
    }

    /// The keys of whole shards from this one on, until there are enough; and the shard behind them, if there is one.
    pub fn keys_from(&self, first: usize, enough: usize) -> (Vec<K>, Option<usize>) {
        let mut keys = Vec::new();
        for (n, shard) in self.buckets.iter().enumerate().skip(first) {
            if keys.len() >= enough {
                return (keys, Some(n));
            }
            keys.extend(shard.keys());
        }
        (keys, None)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.len >= self.buckets.len() * SHARD_ENTRIES_MAX {
            self.grow();
        }
        let former = self.shard_mut(&key).insert(key, value);
        self.len += usize::from(former.is_none());
        former
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let former = self.shard_mut(key).remove(key);
        self.len -= usize::from(former.is_some());
        former
    }

    /// The index comes from the middle of the hash: the map inside a shard uses both of its ends.
    fn shard_of(&self, key: &K) -> usize {
        const MIDDLE: u32 = 24;
        usize::try_from(key.id_hash() >> MIDDLE).unwrap_or_default() & (self.buckets.len() - 1)
    }

    fn shard_mut(&mut self, key: &K) -> &mut Bucket<K, V> {
        let index = self.shard_of(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[index])
    }

    fn grow(&mut self) {
        let count = self.buckets.len() * 4;
        let mut wider = Self { buckets: Arc::new(vec![Arc::default(); count]), len: self.len };
        for (key, value) in self.iter() {
            wider.shard_mut(key).insert(*key, value.clone());
        }
        *self = wider;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::MemberId;

    #[test]
    fn a_clone_is_not_changed_by_later_changes_and_nothing_is_lost_by_growing() {
        let mut shards = CowMap::default();
        let keys: Vec<MemberId> = (0..5_000).map(|_| MemberId::new()).collect();
        for (n, key) in keys.iter().enumerate() {
            shards.insert(*key, n);
        }
        let before = shards.clone();
        shards.insert(keys[7], 0);
        shards.remove(&keys[8]);
        assert_eq!((before.len(), shards.len()), (5_000, 4_999));
        assert_eq!((before.get(&keys[7]), before.get(&keys[8])), (Some(&7), Some(&8)));
        assert_eq!((shards.get(&keys[7]), shards.get(&keys[8])), (Some(&0), None));
        assert!(keys.iter().enumerate().all(|(n, key)| before.get(key) == Some(&n)));
        let (mut walked, mut next) = (Vec::new(), Some(0));
        while let Some(first) = next {
            let (some, behind) = shards.keys_from(first, 100);
            assert!(some.len() >= 100 || behind.is_none());
            walked.extend(some);
            next = behind;
        }
        assert_eq!(walked.len(), 4_999);
        assert_eq!(walked.into_iter().collect::<std::collections::HashSet<_>>().len(), 4_999);
        let largest = before.buckets.iter().map(|shard| shard.len()).max();
        assert!(largest < Some(SHARD_ENTRIES_MAX * 2), "{largest:?}");
    }
}
