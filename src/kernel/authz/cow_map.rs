//! A hash map with copy-on-write buckets: cheap to clone, cheap to change a little.
//!
//! A clone shares all data. The first change after a clone copies the table of bucket pointers and the changed bucket
//! only, so publishing a change costs microseconds for a map of any size.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A 16-byte key whose last 8 bytes are random: the tail of a UUIDv7 or of a digest. Clients cannot choose it.
pub trait IdKey: Copy + Eq + std::hash::Hash {
    fn bytes(&self) -> &[u8; 16];

    fn id_hash(&self) -> u64 {
        let mut tail = [0; 8];
        tail.copy_from_slice(&self.bytes()[8..]);
        // The first two bits of a UUID's tail are the variant, which is constant. The rotation moves them away from
        // both ends.
        u64::from_be_bytes(tail).rotate_left(17)
    }
}

/// A hasher that uses the random bytes of the key instead of hashing them again.
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
    /// Ignores the length that is hashed before the bytes of an array: it is constant.
    fn write_usize(&mut self, _: usize) {}
}

type Bucket<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// The mean number of entries per bucket above which the number of buckets grows fourfold. A bucket then has some
/// kilobytes.
const BUCKET_ENTRIES_MAX: usize = 224;

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
        self.buckets[self.bucket_of(key)].get(key)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    /// The keys of whole buckets, starting with bucket `first`, until there are at least `enough`; and the index of the
    /// next bucket, if there is one.
    pub fn keys_from(&self, first: usize, enough: usize) -> (Vec<K>, Option<usize>) {
        let mut keys = Vec::new();
        for (n, bucket) in self.buckets.iter().enumerate().skip(first) {
            if keys.len() >= enough {
                return (keys, Some(n));
            }
            keys.extend(bucket.keys());
        }
        (keys, None)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.len >= self.buckets.len() * BUCKET_ENTRIES_MAX {
            self.grow();
        }
        let former = self.bucket_mut(&key).insert(key, value);
        self.len += usize::from(former.is_none());
        former
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let former = self.bucket_mut(key).remove(key);
        self.len -= usize::from(former.is_some());
        former
    }

    /// The index comes from the middle of the hash, because the hash map inside a bucket uses both ends of it.
    fn bucket_of(&self, key: &K) -> usize {
        const MIDDLE: u32 = 24;
        usize::try_from(key.id_hash() >> MIDDLE).unwrap_or_default() & (self.buckets.len() - 1)
    }

    fn bucket_mut(&mut self, key: &K) -> &mut Bucket<K, V> {
        let index = self.bucket_of(key);
        Arc::make_mut(&mut Arc::make_mut(&mut self.buckets)[index])
    }

    fn grow(&mut self) {
        let count = self.buckets.len() * 4;
        let mut wider = Self { buckets: Arc::new(vec![Arc::default(); count]), len: self.len };
        for (key, value) in self.iter() {
            wider.bucket_mut(key).insert(*key, value.clone());
        }
        *self = wider;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::MemberId;

    #[test]
    fn a_clone_is_isolated_from_later_changes_and_growing_loses_nothing() {
        let mut map = CowMap::default();
        let keys: Vec<MemberId> = (0..5_000).map(|_| MemberId::new()).collect();
        for (n, key) in keys.iter().enumerate() {
            map.insert(*key, n);
        }
        let before = map.clone();
        map.insert(keys[7], 0);
        map.remove(&keys[8]);
        assert_eq!((before.len(), map.len()), (5_000, 4_999));
        assert_eq!((before.get(&keys[7]), before.get(&keys[8])), (Some(&7), Some(&8)));
        assert_eq!((map.get(&keys[7]), map.get(&keys[8])), (Some(&0), None));
        assert!(keys.iter().enumerate().all(|(n, key)| before.get(key) == Some(&n)));
        let (mut walked, mut next) = (Vec::new(), Some(0));
        while let Some(first) = next {
            let (some, after) = map.keys_from(first, 100);
            assert!(some.len() >= 100 || after.is_none());
            walked.extend(some);
            next = after;
        }
        assert_eq!(walked.len(), 4_999);
        assert_eq!(walked.into_iter().collect::<std::collections::HashSet<_>>().len(), 4_999);
        let largest = before.buckets.iter().map(|bucket| bucket.len()).max();
        assert!(largest < Some(BUCKET_ENTRIES_MAX * 2), "{largest:?}");
    }
}
