//! A cache of access tokens whose signature was verified, by their SHA-256: a valid signature stays valid.
//!
//! **Invariant.** Only tokens with a valid signature enter the cache, so a caller without one cannot evict others. The
//! cache holds only the claims. The validity period, the session and the permissions are checked at every request.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Mutex;

use super::token::TokenSubject;
use crate::kernel::authz::cow_map::IdHasher;
use crate::kernel::secret::Hash;

/// The maximum number of cached tokens. An evicted token only costs another signature verification.
const REMEMBERED_MAX: usize = 16_384;
const SHARDS: usize = 16;
/// The size of each half of a shard. When the young half is full, it replaces the old half. A token that is found in
/// the old half moves to the young one.
const HALF_MAX: usize = REMEMBERED_MAX / SHARDS / 2;

/// The claims of a token with a valid signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub named: TokenSubject,
    /// The first second of validity, in Unix seconds.
    pub from_s: i64,
    /// The end of validity, exclusive, in Unix seconds.
    pub until_s: i64,
}

type Half = HashMap<Hash, Verified, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Shard {
    young: Half,
    old: Half,
}

impl Shard {
    fn find(&mut self, token: &Hash) -> Option<Verified> {
        if let Some(known) = self.young.get(token) {
            return Some(*known);
        }
        let known = self.old.remove(token)?;
        self.put(*token, known);
        Some(known)
    }

    fn put(&mut self, token: Hash, verified: Verified) {
        if self.young.len() >= HALF_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, verified);
    }
}

#[derive(Default)]
pub struct VerifiedTokens([Mutex<Shard>; SHARDS]);

impl VerifiedTokens {
    fn shard(&self, token: &Hash) -> &Mutex<Shard> {
        &self.0[usize::from(token[0]) % SHARDS]
    }

    pub fn find(&self, token: &Hash) -> Option<Verified> {
        self.shard(token).lock().ok()?.find(token)
    }

    pub fn put(&self, token: Hash, verified: Verified) {
        if let Ok(mut shard) = self.shard(&token).lock() {
            shard.put(token, verified);
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.0.iter().filter_map(|shard| shard.lock().ok()).map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::{MemberId, SessionId};

    /// A token in the first shard.
    fn token(n: usize) -> Hash {
        let mut token = [0; 32];
        token[24..].copy_from_slice(&n.to_be_bytes());
        token
    }

    #[test]
    fn a_shard_is_full_at_its_limit_and_drops_the_old_half_one_past_it() {
        let verified = Verified {
            named: TokenSubject { member: MemberId::new(), session: SessionId::new() },
            from_s: 0,
            until_s: 1,
        };
        let tokens = VerifiedTokens::default();
        (0..2 * HALF_MAX).for_each(|n| tokens.put(token(n), verified));
        assert_eq!((tokens.count(), tokens.find(&token(HALF_MAX))), (2 * HALF_MAX, Some(verified)));
        tokens.put(token(2 * HALF_MAX), verified);
        assert_eq!((tokens.count(), tokens.find(&token(0))), (HALF_MAX + 1, None));
        // A token that is found again moves to the young half and outlives the others of its old half.
        assert_eq!(tokens.find(&token(2 * HALF_MAX - 1)), Some(verified));
        (0..HALF_MAX).for_each(|n| tokens.put(token(3 * HALF_MAX + n), verified));
        assert_eq!(tokens.find(&token(2 * HALF_MAX - 1)), Some(verified));
        assert_eq!(tokens.find(&token(2 * HALF_MAX - 2)), None);
        assert!((0..100_000).all(|n| {
            tokens.put(token(n), verified);
            tokens.count() <= 2 * HALF_MAX
        }));
    }
}
