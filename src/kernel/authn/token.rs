//! Access tokens: they carry the member, the session and the validity period, never permissions. The only module that
//! uses jsonwebtoken.
//!
//! **Invariant.** Algorithm, type, issuer, audience and time are all checked against fixed values. The only part of a
//! token that influences its verification is the key id, which selects one of this site's keys. Unverified tokens are
//! checked with public keys only. A token with a valid signature is cached until the keys change. A provider's token is
//! verified as strictly; its other claims are passed on unchanged, and the code that reads a claim handles unexpected
//! values.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::authz::cow_map::IdHasher;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, SessionId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// RFC 9068: the type of access tokens.
const TOKEN_TYPE: &str = "at+jwt";

/// The maximum length of a token of this site; real ones have about 450 bytes. Tokens of providers are limited by
/// `limits.head_bytes` or `neighbours.answer_bytes`, depending on how they arrive.
const TOKEN_BYTES_MAX: usize = 16_384;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    /// The session. The token is invalid once it ends.
    sid: String,
    iat: i64,
    exp: i64,
    jti: String,
}

/// The claims that are read from a token.
#[derive(Deserialize)]
struct TokenFields<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    sid: &'a str,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
}

/// The member and the session that a valid token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSubject {
    pub member: MemberId,
    pub session: SessionId,
}

/// A signing key as stored.
#[derive(Clone)]
pub struct StoredKey {
    pub id: String,
    pub private_key: Vec<u8>,
    pub public_key: Vec<u8>,
    pub created_at: Timestamp,
}

/// Generates an Ed25519 key.
pub fn new_key() -> Result<StoredKey> {
    let key = SigningKey::from_bytes(&secret::random()?);
    let private = key.to_pkcs8_der().map_err(|e| Error::internal(format!("the new key has no PKCS #8 form: {e}")))?;
    let public = key.verifying_key().to_bytes();
    let id = hex::encode(&secret::hash(&hex::encode(public))[..8]);
    let created_at = Timestamp::now();
    Ok(StoredKey { id, private_key: private.as_bytes().to_vec(), public_key: public.to_vec(), created_at })
}

/// The public part of one of this site's signing keys.
struct OwnKey {
    id: String,
    public: VerifyingKey,
}

impl OwnKey {
    /// Whether this key signed the message. Strict RFC 8032: one valid signature per message, no small-order points.
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.public.verify_strict(message, &signature).is_ok())
    }
}

/// The keys that sign and verify tokens, with the issuer and audience that every token must have.
pub struct Keys {
    /// The id and the private key of the newest key.
    signing: (String, SigningKey),
    /// All keys that verify, newest first.
    all: Vec<OwnKey>,
    verified: VerifiedTokens,
    issuer: String,
    audience: String,
    ttl_s: i64,
    jwks: String,
}

impl Keys {
    /// `keys` is sorted newest first and not empty. `ttl_s` is the lifetime of tokens in seconds.
    pub fn new(keys: &[StoredKey], issuer: &str, audience: &str, ttl_s: u64) -> Result<Self> {
        let read = |stored: &StoredKey| {
            SigningKey::from_pkcs8_der(&stored.private_key)
                .map(|key| (stored.id.clone(), key))
                .map_err(|e| Error::internal(format!("the signing key {} cannot be read: {e}", stored.id)))
        };
        let signing = keys.iter().map(read).collect::<Result<Vec<_>>>()?;
        // Derived from the private key, because the column with the public key is not authenticated.
        let all: Vec<OwnKey> =
            signing.iter().map(|(id, key)| OwnKey { id: id.clone(), public: key.verifying_key() }).collect();
        let public = |key: &OwnKey| {
            let x = URL_SAFE_NO_PAD.encode(key.public.as_bytes());
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x})
        };
        let jwks = json!({"keys": all.iter().map(public).collect::<Vec<Value>>()}).to_string();
        Ok(Self {
            signing: signing.into_iter().next().ok_or_else(|| Error::internal("there is no signing key"))?,
            all,
            verified: VerifiedTokens::default(),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ttl_s: i64::try_from(ttl_s).unwrap_or(i64::MAX),
            jwks,
        })
    }

    /// The public keys, for services that verify our tokens (RFC 7517).
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// Issues a token for a session that ends at `ends_at`. Returns the token and its lifetime in seconds.
    pub fn issue(&self, named: TokenSubject, now: Timestamp, ends_at: Timestamp) -> Result<(String, i64)> {
        let (key_id, key) = &self.signing;
        let iat = now.0 / 1_000;
        let exp = (iat + self.ttl_s).min(ends_at.0 / 1_000);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: named.member.to_string(),
            sid: named.session.to_string(),
            iat,
            exp,
            jti: URL_SAFE_NO_PAD.encode(&secret::random()?[..16]),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.into());
        header.kid = Some(key_id.clone());
        let part = |json: serde_json::Result<String>| json.map(|text| URL_SAFE_NO_PAD.encode(text));
        let signed = part(serde_json::to_string(&header))
            .and_then(|header| Ok(format!("{header}.{}", part(serde_json::to_string(&claims))?)))
            .map_err(|e| Error::internal(format!("a token could not be written: {e}")))?;
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
        Ok((format!("{signed}.{signature}"), exp - iat))
    }

    /// Verifies a token of this site. Fails with `invalid_bearer` unless signature, issuer, audience and time are
    /// valid.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<TokenSubject> {
        self.verified(token, now).map_err(|why| Error::new(ErrorCode::InvalidBearer).with_source(why))
    }

    fn verified(&self, token: &str, now: Timestamp) -> Result<TokenSubject, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("too long");
        }
        let digest = secret::hash(token);
        let known = self.verified.find(&digest);
        let verified = known.map_or_else(|| self.read(token), Ok)?;
        let now_s = now.0 / 1_000;
        match () {
            () if verified.until_s <= now_s => return Err("expired"),
            () if verified.from_s > now_s => return Err("not yet valid"),
            () => {}
        }
        if known.is_none() {
            self.verified.put(digest, verified);
        }
        Ok(verified.named)
    }

    /// Verifies everything but the time.
    fn read(&self, token: &str) -> Result<Verified, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("not a token")?;
        let (header, claims) = signed.split_once('.').ok_or("not a token")?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "not base64");
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| "no header")?;
        if header.typ.as_deref() != Some(TOKEN_TYPE) || header.alg != Algorithm::EdDSA {
            return Err("not an access token");
        }
        let kid = header.kid.ok_or("no key id")?;
        let key = self.all.iter().find(|key| key.id == kid).ok_or("unknown key")?;
        if !key.has_signed(signed.as_bytes(), &decoded(signature)?) {
            return Err("wrong signature");
        }
        let claims = decoded(claims)?;
        let fields: TokenFields<'_> = serde_json::from_slice(&claims).map_err(|_| "not our claims")?;
        match () {
            () if fields.iss != self.issuer => Err("another issuer"),
            () if fields.aud != self.audience => Err("another audience"),
            () => Ok(Verified {
                named: TokenSubject { member: MemberId::of(fields.sub), session: SessionId::of(fields.sid) },
                from_s: fields.iat.max(fields.nbf.unwrap_or(0)),
                until_s: fields.exp,
            }),
        }
    }

    /// Whether the token, unverified, names this site as its issuer or names none.
    pub fn claims_own_issuer(&self, token: &str) -> bool {
        let issuer =
            unverified_claims(token).and_then(|claims| claims["iss"].as_str().map(|issuer| issuer == self.issuer));
        issuer.unwrap_or(true)
    }
}

/// The public keys of an identity provider.
pub struct ProviderKeys(Vec<ForeignKey>);

struct ForeignKey {
    id: Option<String>,
    /// The algorithms that the key can be used with; never HMAC, which would use the public key as a secret.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The purpose of a provider's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenPurpose {
    /// An ID token: identifies the member who signed in.
    Id,
    /// An access token.
    Access,
}

impl TokenPurpose {
    /// The accepted values of `typ`, in lower case. A token without `typ` is accepted too.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Id => &["jwt"],
            Self::Access => &["jwt", "at+jwt", "application/at+jwt"],
        }
    }

    /// The accepted clock difference at the end of validity, in seconds.
    fn leeway_s(self) -> u64 {
        match self {
            Self::Id => 0,
            Self::Access => 30,
        }
    }
}

/// The seconds that a provider's clock can be ahead of ours at the start of a token's validity.
const AHEAD_S_MAX: i64 = 30;

/// The reason why a provider's token is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// The key is not in the cached key set, or it was replaced under the same id: the key set may have to be loaded
    /// again.
    UnknownKey,
    Wrong(String),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownKey => f.write_str("not signed by a known key of the provider"),
            Self::Wrong(why) => f.write_str(why),
        }
    }
}

impl ProviderKeys {
    /// Reads the signing keys of a JWKS document that have a supported type; ignores the others.
    pub fn new(document: &Value) -> Self {
        let keys = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self(keys.iter().filter_map(|key| ForeignKey::read(key.clone())).collect())
    }

    /// Verifies a token of this issuer for this audience and purpose, and returns its claims.
    pub fn verify(
        &self,
        token: &str,
        issuer: &str,
        audience: &str,
        purpose: TokenPurpose,
    ) -> Result<Value, TokenError> {
        let wrong = |why: &str| TokenError::Wrong(why.to_owned());
        let header = jsonwebtoken::decode_header(token).map_err(|e| TokenError::Wrong(e.to_string()))?;
        let kind = header.typ.as_deref().map(str::to_ascii_lowercase);
        if kind.is_some_and(|kind| !purpose.types().contains(&kind.as_str())) || header.crit.is_some() {
            return Err(wrong("wrong token type or a critical header extension"));
        }
        let key = self.key(header.kid.as_deref(), header.alg)?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = purpose.leeway_s();
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        let decoded = jsonwebtoken::decode::<Value>(token, &key.key, &validation);
        let claims = decoded.map_err(|e| match e.kind() {
            ErrorKind::InvalidSignature => TokenError::UnknownKey,
            _ => TokenError::Wrong(e.to_string()),
        })?;
        let claims = claims.claims;
        // jsonwebtoken also accepts a list of issuers.
        if claims["iss"].as_str() != Some(issuer) {
            return Err(wrong("another issuer"));
        }
        let begins_s = claims.get("nbf").and_then(whole_number);
        if begins_s.is_some_and(|from| from > Timestamp::now().0 / 1_000 + AHEAD_S_MAX) {
            return Err(wrong("not valid yet"));
        }
        Ok(claims)
    }

    /// The key with this id. Without an id, the only key that supports the algorithm (OpenID Connect Core, 10.1).
    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&ForeignKey, TokenError> {
        let named = || self.0.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
        if named().next().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let mut fitting = named().filter(|key| key.algorithms.contains(&algorithm));
        let key = fitting.next().ok_or_else(|| TokenError::Wrong("wrong algorithm".into()))?;
        if id.is_none() && fitting.next().is_some() {
            return Err(TokenError::Wrong("no key id, but the provider has several keys".into()));
        }
        Ok(key)
    }
}

/// Reads a number of seconds, which can also be text or have a fraction.
fn whole_number(value: &Value) -> Option<i64> {
    let number = || value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    // Values outside of i64 saturate.
    value.as_i64().or_else(|| number().map(|seconds| seconds as i64))
}

impl ForeignKey {
    fn read(key: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let of_kind: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => &[Algorithm::ES256],
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => &[Algorithm::ES384],
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
            _ => return None,
        };
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let algorithms = match jwk.common.key_algorithm {
            None => of_kind.to_vec(),
            Some(only) => of_kind.iter().copied().filter(|algorithm| only == (*algorithm).into()).collect(),
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// Reads the claims of a token without verification, only to select the keys to verify it with.
pub fn unverified_claims(token: &str) -> Option<Value> {
    let claims = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

// ── verified tokens ──

// A cache of access tokens whose signature was verified, by their SHA-256: a valid signature stays valid.
//
// **Invariant.** Only tokens with a valid signature enter the cache, so a caller without one cannot evict others. The
// cache holds only the claims. The validity period, the session and the permissions are checked at every request.

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

    fn keys(stored: &StoredKey, audience: &str) -> Keys {
        Keys::new(std::slice::from_ref(stored), "https://roster.example.org", audience, 60).expect("keys")
    }

    #[test]
    fn a_token_is_valid_for_its_audience_its_key_and_its_time_only() {
        let (ours, theirs) = (new_key().expect("key"), new_key().expect("key"));
        let named = TokenSubject { member: MemberId::new(), session: SessionId::new() };
        let (now, later) = (Timestamp::now(), Timestamp(i64::MAX));
        let (token, ttl_s) = keys(&ours, "roster").issue(named, now, later).expect("token");
        assert_eq!(ttl_s, 60);
        assert_eq!(keys(&ours, "roster").verify(&token, now).expect("valid"), named);
        assert!(keys(&ours, "other").verify(&token, now).is_err());
        assert!(keys(&theirs, "roster").verify(&token, now).is_err());
        let past = keys(&ours, "roster").issue(named, now.plus_ms(-61_000), later).expect("token").0;
        assert!(keys(&ours, "roster").verify(&past, now).is_err());
        let future = keys(&ours, "roster").issue(named, now.plus_ms(60_000), later).expect("token").0;
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

    #[test]
    fn only_signatures_of_the_key_are_valid() {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let key = OwnKey { id: "k".into(), public: signing.verifying_key() };
        for length in [0, 1, 64, 450] {
            let message = vec![7; length];
            let signature = signing.sign(&message).to_bytes();
            assert!(key.has_signed(&message, &signature));
            for bit in 0..512 {
                let mut wrong = signature;
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!key.has_signed(&message, &wrong), "bit {bit}");
            }
            assert!(!key.has_signed(b"another message", &signature));
            assert!(!key.has_signed(&message, &signature[..63]) && !key.has_signed(&message, &[]));
            assert!(!key.has_signed(&message, &[&signature[..], &[0]].concat()));
        }
        // The neutral point as key and as R would verify any message, unless small-order points are rejected.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let weak = OwnKey { id: "k".into(), public: VerifyingKey::from_bytes(&neutral).expect("a point") };
        assert!(!weak.has_signed(b"anything", &[neutral, [0; 32]].concat()));
    }

    #[test]
    fn only_tokens_with_a_valid_signature_are_cached() {
        let stored = new_key().expect("key");
        let ours = keys(&stored, "roster");
        let named = TokenSubject { member: MemberId::new(), session: SessionId::new() };
        let now = Timestamp::now();
        let (token, ttl_s) = ours.issue(named, now, Timestamp(i64::MAX)).expect("token");
        // A rejected token is not cached, for any reason of rejection.
        let other = keys(&new_key().expect("key"), "roster").issue(named, now, Timestamp(i64::MAX)).expect("token").0;
        let early = ours.issue(named, now.plus_ms(3_600_000), Timestamp(i64::MAX)).expect("token").0;
        let elsewhere = keys(&stored, "other").issue(named, now, Timestamp(i64::MAX)).expect("token").0;
        for wrong in [&other, &early, &elsewhere, &token[1..], &token[..token.len() - 1], &format!("{token}A"), ""] {
            assert!(ours.verify(wrong, now).is_err() && ours.verify(wrong, now).is_err(), "{wrong}");
        }
        assert_eq!(ours.verified.count(), 0);
        for _ in 0..3 {
            assert_eq!(ours.verify(&token, now).expect("valid"), named);
        }
        assert_eq!(ours.verified.count(), 1);
        // The time is checked every time.
        assert!(ours.verify(&token, now.plus_ms(ttl_s * 1_000 - 1_000)).is_ok());
        assert!(ours.verify(&token, now.plus_ms(ttl_s * 1_000)).is_err());
        assert!(ours.verify(&token, now.plus_ms(-2_000)).is_err());
        // Other keys have their own cache.
        assert!(keys(&new_key().expect("key"), "roster").verify(&token, now).is_err());
    }

    #[test]
    fn a_standard_library_verifies_issued_tokens() {
        let stored = new_key().expect("key");
        let keys = keys(&stored, "roster");
        let named = TokenSubject { member: MemberId::new(), session: SessionId::new() };
        let (token, _) = keys.issue(named, Timestamp::now(), Timestamp(i64::MAX)).expect("token");
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(keys.jwks()).expect("a key set");
        let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&stored.id).expect("the key")).expect("usable");
        let mut validation = jsonwebtoken::Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["roster"]);
        validation.set_issuer(&["https://roster.example.org"]);
        assert!(jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok());
    }

    #[test]
    fn a_token_never_outlives_its_session() {
        let keys = keys(&new_key().expect("key"), "roster");
        let named = TokenSubject { member: MemberId::new(), session: SessionId::new() };
        let now = Timestamp::now();
        assert_eq!(keys.issue(named, now, now.plus_ms(5_000)).expect("token").1, 5);
    }

    /// A provider's token, signed with `stored` as the provider's key.
    fn foreign(stored: &StoredKey, header: Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let key = SigningKey::from_pkcs8_der(&stored.private_key).expect("key");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()))
    }

    #[test]
    fn a_provider_s_token_is_valid_for_one_issuer_audience_key_and_time_only() {
        let (theirs, other) = (new_key().expect("key"), new_key().expect("key"));
        let jwks: Value = serde_json::from_str(keys(&theirs, "x").jwks()).expect("a key set");
        let foreign_keys = ProviderKeys::new(&jwks);
        let now_s = Timestamp::now().0 / 1_000;
        let good = json!({"iss": "https://id.example.org", "aud": ["a", "roster"], "sub": "1", "exp": now_s + 60});
        let verify = |token: &str| foreign_keys.verify(token, "https://id.example.org", "roster", TokenPurpose::Access);
        let header = |kid: &str| json!({"alg": "EdDSA", "kid": kid});
        assert_eq!(verify(&foreign(&theirs, header(&theirs.id), &good)), Ok(good.clone()));
        for id in [&other.id, &theirs.id] {
            assert_eq!(verify(&foreign(&other, header(id), &good)), Err(TokenError::UnknownKey));
        }
        // A single key needs no id.
        assert_eq!(verify(&foreign(&theirs, json!({"alg": "EdDSA"}), &good)), Ok(good.clone()));

        let mut wrong = Vec::new();
        let headers = [
            json!({"alg": "none", "kid": theirs.id}),
            json!({"alg": "HS256", "kid": theirs.id}),
            json!({"alg": "RS256", "kid": theirs.id}),
            json!({"alg": "EdDSA", "kid": theirs.id, "typ": "logout+jwt"}),
            json!({"alg": "EdDSA", "kid": theirs.id, "crit": ["b64"]}),
        ];
        wrong.extend(headers.into_iter().map(|header| foreign(&theirs, header, &good)));
        for (name, value) in [
            ("iss", json!("https://id.example.org/")),
            ("iss", json!(["https://id.example.org"])),
            ("iss", Value::Null),
            ("aud", json!("other")),
            ("aud", Value::Null),
            ("exp", json!(now_s - 31)),
            ("exp", json!("soon")),
            ("exp", Value::Null),
            ("nbf", json!(now_s + 35)),
        ] {
            let mut claims = good.clone();
            claims[name] = value;
            wrong.push(foreign(&theirs, header(&theirs.id), &claims));
        }
        for token in &wrong {
            assert!(matches!(verify(token), Err(TokenError::Wrong(_))), "{token}");
        }
        let mut late = good.clone();
        (late["exp"], late["nbf"]) = (json!(now_s - 25), json!(now_s + 25));
        let late = foreign(&theirs, header(&theirs.id), &late);
        assert!(verify(&late).is_ok());
        // An ID token has no leeway at its end, and another type.
        let id_token = |token: &str| foreign_keys.verify(token, "https://id.example.org", "roster", TokenPurpose::Id);
        assert!(id_token(&late).is_err());
        for (kind, is_access) in [("JWT", false), ("at+jwt", true)] {
            let header = json!({"alg": "EdDSA", "kid": theirs.id, "typ": kind});
            assert_eq!(id_token(&foreign(&theirs, header, &good)).is_err(), is_access, "{kind}");
        }
    }

    #[test]
    fn claims_that_are_not_verified_can_have_any_value() {
        let theirs = new_key().expect("key");
        let foreign_keys = ProviderKeys::new(&serde_json::from_str(keys(&theirs, "x").jwks()).expect("a key set"));
        let now_s = Timestamp::now().0 / 1_000;
        for (name, value) in [
            ("iat", json!("2026-11-01T10:00:00Z")),
            ("auth_time", json!("then")),
            ("updated_at", json!({"$date": 1})),
            ("address", json!("1 Harbour Street")),
            ("nbf", json!((now_s - 5).to_string())),
            ("nbf", json!("long ago")),
            ("sub", json!(17)),
            ("amr", json!("pwd")),
            ("locale", json!(["en"])),
        ] {
            let mut claims = json!({"iss": "i", "aud": "roster", "sub": "1", "exp": now_s + 60});
            claims[name] = value;
            let token = foreign(&theirs, json!({"alg": "EdDSA"}), &claims);
            for purpose in [TokenPurpose::Id, TokenPurpose::Access] {
                assert_eq!(foreign_keys.verify(&token, "i", "roster", purpose), Ok(claims.clone()), "{name}");
            }
        }
        let late = json!({"iss": "i", "aud": "roster", "exp": now_s + 60, "nbf": (now_s + 35).to_string()});
        assert!(
            foreign_keys
                .verify(&foreign(&theirs, json!({"alg": "EdDSA"}), &late), "i", "roster", TokenPurpose::Id)
                .is_err()
        );
    }

    #[test]
    fn with_several_keys_a_token_must_name_its_key() {
        let (one, two) = (new_key().expect("key"), new_key().expect("key"));
        let jwk = |stored: &StoredKey| {
            serde_json::from_str::<Value>(keys(stored, "x").jwks()).expect("a key set")["keys"][0].clone()
        };
        let foreign_keys = ProviderKeys::new(&json!({"keys": [jwk(&one), jwk(&two)]}));
        let claims = json!({"iss": "i", "aud": "roster", "exp": Timestamp::now().0 / 1_000 + 60});
        let verify =
            |header: Value| foreign_keys.verify(&foreign(&two, header, &claims), "i", "roster", TokenPurpose::Id);
        assert!(verify(json!({"alg": "EdDSA", "kid": two.id})).is_ok());
        assert!(matches!(verify(json!({"alg": "EdDSA"})), Err(TokenError::Wrong(_))));
        assert_eq!(verify(json!({"alg": "EdDSA", "kid": "three"})), Err(TokenError::UnknownKey));
    }

    #[test]
    fn keys_that_are_not_for_signatures_are_ignored() {
        let stored = new_key().expect("key");
        let jwks: Value = serde_json::from_str(keys(&stored, "x").jwks()).expect("a key set");
        let count = |key: Value| {
            ProviderKeys::new(&json!({"keys": [key, 1, {}, {"kty": "oct", "k": "AAAA", "kid": "s"}]})).0.len()
        };
        assert_eq!(count(jwks["keys"][0].clone()), 1);
        for (name, value) in [("use", json!("enc")), ("crv", json!("X25519"))] {
            let mut key = jwks["keys"][0].clone();
            key[name] = value;
            assert_eq!(count(key), 0, "{name}");
        }
        assert!(ProviderKeys::new(&json!([])).0.is_empty());
    }
}

#[cfg(test)]
mod verified_tests {
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
