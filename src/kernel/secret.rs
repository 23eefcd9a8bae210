//! Secrets: made from the system's randomness, stored as hashes, compared in constant time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::kernel::error::{Error, Result};
use crate::kernel::ids::Timestamp;

pub type Hash = [u8; 32];

/// 32 random bytes, which nobody guesses.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("the system gives no randomness: {e}")))?;
    Ok(bytes)
}

/// A new secret with a prefix that says what it is: `rs_…`, 43 url-safe characters.
pub fn token(prefix: &str) -> Result<String> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random()?)))
}

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Makes digests that only this site can make.
#[derive(Clone, Copy)]
pub struct Sealer([u8; 32]);

impl Sealer {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// A digest of parts for one purpose; no two lists of parts have the same.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Hash {
        let mut mac = keyed(&self.0);
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// HMAC-SHA256 with a key that is shared with somebody else.
pub fn signature(key: &str, message: &str) -> Hash {
    let mut mac = keyed(key.as_bytes());
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

pub fn equal(left: &Hash, right: &Hash) -> bool {
    left.ct_eq(right).into()
}

/// Is it the secret of now, or the one before the last rotation while that lives? Without either the same work is done.
pub fn is_current_or_former(
    offered: &Hash,
    current: Option<&Hash>,
    former: Option<(Hash, Timestamp)>,
    now: Timestamp,
) -> bool {
    const NOBODY: Hash = [0; 32];
    let is_current = equal(offered, current.unwrap_or(&NOBODY));
    let (former, until) = former.unwrap_or((NOBODY, Timestamp(0)));
    is_current | (equal(offered, &former) & (now < until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_compare_by_hash() {
        let (one, two) = (token("rs_").expect("random"), token("rs_").expect("random"));
        assert_ne!(one, two);
        assert_eq!(one.len(), 46);
        assert!(equal(&hash(&one), &hash(&one)));
        assert!(!equal(&hash(&one), &hash(&two)));
    }
}
