//! A cache of read results that is valid until the next commit of any change. So no change has to invalidate it, and
//! none can forget to.

use std::collections::HashMap;
use std::sync::RwLock;

use crate::kernel::ids::MemberId;

/// The most results in the cache; it is cleared when it is full.
const ANSWERS_MAX: usize = 4_096;

/// A member's data as JSON, with its version.
pub type Answer = (String, i64);

/// The results that were read since one commit, with the number of that commit.
#[derive(Default)]
pub struct ReadCache(RwLock<(u64, HashMap<MemberId, Answer>)>);

impl ReadCache {
    /// The cached result, if it was read at this number of commits.
    pub fn find(&self, commits: u64, member: MemberId) -> Option<Answer> {
        let cache = self.0.read().ok()?;
        (cache.0 == commits).then(|| cache.1.get(&member).cloned()).flatten()
    }

    /// Caches a result that was read at this number of commits or later.
    pub fn put(&self, commits: u64, member: MemberId, answer: Answer) {
        let Ok(mut cache) = self.0.write() else { return };
        if cache.0 != commits || cache.1.len() >= ANSWERS_MAX {
            // An older state must not replace a newer one.
            if commits < cache.0 {
                return;
            }
            *cache = (commits, HashMap::new());
        }
        cache.1.insert(member, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_valid_until_the_next_commit() {
        let (cache, kim) = (ReadCache::default(), MemberId::new());
        cache.put(3, kim, ("old".into(), 1));
        assert_eq!(cache.find(3, kim), Some(("old".into(), 1)));
        assert_eq!((cache.find(2, kim), cache.find(4, kim), cache.find(3, MemberId::new())), (None, None, None));
        cache.put(4, kim, ("new".into(), 2));
        cache.put(3, kim, ("late".into(), 1));
        assert_eq!((cache.find(3, kim), cache.find(4, kim)), (None, Some(("new".into(), 2))));
    }
}
