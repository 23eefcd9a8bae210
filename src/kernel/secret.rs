//! Secrets: generated from the system's random source, stored as hashes, compared in constant time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::kernel::error::{Error, Result};
use crate::kernel::ids::Timestamp;

pub type Hash = [u8; 32];

/// 32 bytes from the system's cryptographic random source.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("the system has no random bytes: {e}")))?;
    Ok(bytes)
}

/// A new secret: a prefix that identifies its kind, such as `rs_`, and 43 URL-safe characters.
pub fn token(prefix: &str) -> Result<String> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random()?)))
}

pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

/// Computes keyed digests that only this site can compute.
#[derive(Clone, Copy)]
pub struct KeyedDigest([u8; 32]);

impl KeyedDigest {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The digest of a list of parts for one purpose. Each part is hashed with its length, so no two lists collide.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Hash {
        let mut mac = keyed(&self.0);
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// HMAC-SHA256 with a key that is shared with another system.
pub fn signature(key: &str, message: &str) -> Hash {
    let mut mac = keyed(key.as_bytes());
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().into()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length")
}

/// Compares in constant time.
pub fn equal(left: &Hash, right: &Hash) -> bool {
    left.ct_eq(right).into()
}

/// Whether it is the current secret, or the former one that has not expired. Takes the same time if there is neither.
pub fn is_current_or_former(
    offered: &Hash,
    current: Option<&Hash>,
    former: Option<(Hash, Timestamp)>,
    now: Timestamp,
) -> bool {
    const NONE: Hash = [0; 32];
    let is_current = equal(offered, current.unwrap_or(&NONE));
    let (former, expires_at) = former.unwrap_or((NONE, Timestamp(0)));
    is_current | (equal(offered, &former) & (now < expires_at))
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
