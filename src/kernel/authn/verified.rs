//! Access tokens that were verified, by their SHA-256, until they end: a signature that was right once stays right.
//!
//! **Invariant.** Only tokens with a right signature enter, so that nobody without one can crowd others out; what a token
//! says is all that is kept. Whether its time has come or is over, and what its member may do, is asked every time.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Mutex;

use super::token::Named;
use crate::kernel::authz::cow_map::IdHasher;
use crate::kernel::secret::Hash;

/// Most tokens that are remembered; one more costs the verification of others, nothing else.
const REMEMBERED_MAX: usize = 16_384;
const SHARDS: usize = 16;
/// Half of a shard: when the younger half is full, the elder one is forgotten. Who is seen again is young again.
const HALF_MAX: usize = REMEMBERED_MAX / SHARDS / 2;

/// What a token with a right signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub named: Named,
    /// Good from this second on, and not from that one on.
    pub from_s: i64,
    pub until_s: i64,
}

type Half = HashMap<Hash, Verified, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
struct Shard {
    young: Half,
    elder: Half,
}

impl Shard {
    fn find(&mut self, token: &Hash) -> Option<Verified> {
        if let Some(known) = self.young.get(token) {
            return Some(*known);
        }
        let known = self.elder.remove(token)?;
        self.put(*token, known);
        Some(known)
    }

    fn put(&mut self, token: Hash, verified: Verified) {
        if self.young.len() >= HALF_MAX {
            self.elder = std::mem::take(&mut self.young);
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
        self.0.iter().filter_map(|shard| shard.lock().ok()).map(|shard| shard.young.len() + shard.elder.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::{MemberId, SessionId};

    /// A token of the first shard.
    fn token(n: usize) -> Hash {
        let mut token = [0; 32];
        token[24..].copy_from_slice(&n.to_be_bytes());
        token
    }

    #[test]
    fn a_shard_is_full_at_its_limit_and_forgets_the_elder_half_one_past_it() {
        let verified =
            Verified { named: Named { member: MemberId::new(), session: SessionId::new() }, from_s: 0, until_s: 1 };
        let tokens = VerifiedTokens::default();
        (0..2 * HALF_MAX).for_each(|n| tokens.put(token(n), verified));
        assert_eq!((tokens.count(), tokens.find(&token(HALF_MAX))), (2 * HALF_MAX, Some(verified)));
        tokens.put(token(2 * HALF_MAX), verified);
        assert_eq!((tokens.count(), tokens.find(&token(0))), (HALF_MAX + 1, None));
        // Seen again, it is young again, and outlives the others of its half.
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
