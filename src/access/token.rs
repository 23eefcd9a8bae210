//! Access tokens: who, and for how long; never what they may do. The only user of jsonwebtoken.
//!
//! **Invariant.** Algorithm, type, issuer, audience and time are all pinned; nothing in a token chooses how it is
//! verified but the key id, and that only among our own keys.

use std::collections::HashMap;
use std::sync::RwLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::secret::{self, Hash};
use crate::error::{Cause, Error, Result};
use crate::ids::{MemberId, Timestamp};

/// RFC 9068: says that this is an access token and nothing else.
const TOKEN_TYPE: &str = "at+jwt";

/// Longest token that is looked at; ours have some 400 bytes.
const TOKEN_BYTES_MAX: usize = 4_096;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    /// The member's generation when the token was issued: an older one is void.
    generation: u32,
    iat: i64,
    exp: i64,
    jti: String,
}

/// Whom a valid token names.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    pub member: MemberId,
    pub generation: u32,
}

/// A key as stored.
pub struct StoredKey {
    pub id: String,
    pub private_key: Vec<u8>,
    pub public_key: Vec<u8>,
}

/// Makes a new Ed25519 key.
pub fn new_key() -> Result<StoredKey> {
    let key = SigningKey::from_bytes(&secret::random()?);
    let private = key.to_pkcs8_der().map_err(|e| Error::internal(format!("the new key has no PKCS #8 form: {e}")))?;
    let public = key.verifying_key().to_bytes();
    let id = hex::encode(&secret::hash(&hex::encode(public))[..8]);
    Ok(StoredKey { id, private_key: private.as_bytes().to_vec(), public_key: public.to_vec() })
}

/// The keys that sign and verify, with what every token must say.
pub struct Keys {
    id: String,
    signing: EncodingKey,
    verifying: HashMap<String, DecodingKey>,
    issuer: String,
    audience: String,
    ttl_s: i64,
    validation: Validation,
    verified: Verified,
}

/// Tokens whose signature was found good, by digest, until they end: the signature of one token cannot become another's,
/// and verifying it costs more than all the rest of a request. Who the member is *now* is asked every time.
#[derive(Default)]
struct Verified([RwLock<HashMap<Hash, Good>>; SHARDS]);

/// What a good token says.
#[derive(Debug, Clone, Copy)]
struct Good {
    named: Named,
    iat_s: i64,
    exp_s: i64,
}

/// Locks, so that readers rarely meet a writer.
const SHARDS: usize = 16;
/// Tokens remembered behind one lock; a full one forgets what has ended, or else all.
const TOKENS_PER_SHARD_MAX: usize = 1_024;

impl Verified {
    fn find(&self, digest: &Hash) -> Option<Good> {
        self.0[usize::from(digest[0]) % SHARDS].read().ok()?.get(digest).copied()
    }

    fn remember(&self, digest: Hash, good: Good, now_s: i64) {
        let Ok(mut shard) = self.0[usize::from(digest[0]) % SHARDS].write() else { return };
        if shard.len() >= TOKENS_PER_SHARD_MAX {
            shard.retain(|_, known| known.exp_s > now_s);
        }
        if shard.len() >= TOKENS_PER_SHARD_MAX {
            shard.clear();
        }
        shard.insert(digest, good);
    }
}

impl Keys {
    /// The newest key signs, all verify. `keys` is sorted newest first and not empty.
    pub fn new(keys: &[StoredKey], issuer: &str, audience: &str, ttl_s: u64) -> Result<Self> {
        let newest = keys.first().ok_or_else(|| Error::internal("there is no signing key"))?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Self {
            id: newest.id.clone(),
            signing: EncodingKey::from_ed_der(&newest.private_key),
            verifying: keys.iter().map(|key| (key.id.clone(), DecodingKey::from_ed_der(&key.public_key))).collect(),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ttl_s: i64::try_from(ttl_s).unwrap_or(i64::MAX),
            validation,
            verified: Verified::default(),
        })
    }

    /// A token for a member; answers it with its life in seconds.
    pub fn issue(&self, member: MemberId, generation: u32, now: Timestamp) -> Result<(String, i64)> {
        let iat = now.0 / 1_000;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: member.to_string(),
            generation,
            iat,
            exp: iat + self.ttl_s,
            jti: URL_SAFE_NO_PAD.encode(&secret::random()?[..16]),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.into());
        header.kid = Some(self.id.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.signing)
            .map_err(|e| Error::internal(format!("a token could not be signed: {e}")))?;
        Ok((token, self.ttl_s))
    }

    /// Whom the token names, when it is ours, meant for us, and still alive.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Named> {
        let invalid = |why: String| Error::new(Cause::InvalidBearer).because(why);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid("too long".into()));
        }
        let (digest, now_s) = (secret::hash(token), now.0 / 1_000);
        let good = match self.verified.find(&digest) {
            Some(good) => good,
            None => {
                let good = self.verify_signature(token).map_err(invalid)?;
                self.verified.remember(digest, good, now_s);
                good
            }
        };
        // The library lets a token live through the second in which it ends.
        if good.exp_s <= now_s {
            return Err(invalid("expired".into()));
        }
        if good.iat_s > now_s {
            return Err(invalid("issued in the future".into()));
        }
        Ok(good.named)
    }

    fn verify_signature(&self, token: &str) -> Result<Good, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| e.to_string())?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) {
            return Err("not an access token".into());
        }
        let key = header.kid.and_then(|kid| self.verifying.get(&kid)).ok_or("unknown key")?;
        let data = jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|e| e.to_string())?;
        let Claims { sub, generation, iat, exp, .. } = data.claims;
        Ok(Good { named: Named { member: MemberId::of(&sub), generation }, iat_s: iat, exp_s: exp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(stored: &StoredKey, audience: &str) -> Keys {
        let stored = StoredKey {
            id: stored.id.clone(),
            private_key: stored.private_key.clone(),
            public_key: stored.public_key.clone(),
        };
        Keys::new(&[stored], "https://roster.example.org", audience, 60).expect("keys")
    }

    #[test]
    fn a_token_is_good_for_its_audience_its_key_and_its_time_only() {
        let (ours, theirs) = (new_key().expect("key"), new_key().expect("key"));
        let (member, now) = (MemberId::new(), Timestamp::now());
        let (token, ttl_s) = keys(&ours, "roster").issue(member, 3, now).expect("token");
        assert_eq!(ttl_s, 60);
        let named = keys(&ours, "roster").verify(&token, now).expect("valid");
        assert_eq!((named.member, named.generation), (member, 3));
        assert!(keys(&ours, "other").verify(&token, now).is_err());
        assert!(keys(&theirs, "roster").verify(&token, now).is_err());
        let past = keys(&ours, "roster").issue(member, 3, now.plus_ms(-61_000)).expect("token").0;
        assert!(keys(&ours, "roster").verify(&past, now).is_err());
        let future = keys(&ours, "roster").issue(member, 3, now.plus_ms(60_000)).expect("token").0;
        assert!(keys(&ours, "roster").verify(&future, now).is_err());
        for cut in [0, 1, token.len() / 2, token.len() - 1] {
            assert!(keys(&ours, "roster").verify(&token[..cut], now).is_err());
        }
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"typ":"at+jwt","alg":"none"}"#),
            token.split('.').nth(1).expect("claims")
        );
        assert!(keys(&ours, "roster").verify(&none, now).is_err());
    }
}
