//! API keys in the snapshot. A key's text is `muser_<id>_<unix s>_<secret>_<checksum>`: it is found by its id and
//! compared by its hash.
//!
//! **Invariant.** Rights are never read from a key's text. The text only selects the row.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use super::client;
use super::deferred_grant::{self, DeferredGrant, Grantor};
use super::snapshot::{MemberStatus, Snapshot};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{ApiKeyId, MemberId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// A kind of API key: its prefix, its lifetime, and how long the former text stays valid after a rotation.
#[derive(Debug, PartialEq, Eq)]
pub struct ApiKeyKind {
    pub prefix: &'static str,
    pub ttl_s: i64,
    pub grace_s: i64,
}

const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;

#[rustfmt::skip]
mod kinds {
    use super::{DAY, HOUR, ApiKeyKind};

    pub const SYSTEM: ApiKeyKind      = ApiKeyKind { prefix: "msys",  ttl_s: 365 * DAY, grace_s: 72 * HOUR };
    pub const USER: ApiKeyKind        = ApiKeyKind { prefix: "muser", ttl_s: 90 * DAY,  grace_s: 24 * HOUR };
    pub const SERVICE: ApiKeyKind     = ApiKeyKind { prefix: "msvc",  ttl_s: 180 * DAY, grace_s: 48 * HOUR };
    pub const INTEGRATION: ApiKeyKind = ApiKeyKind { prefix: "mint",  ttl_s: 30 * DAY,  grace_s: 24 * HOUR };
    /// Works once.
    pub const EMERGENCY: ApiKeyKind   = ApiKeyKind { prefix: "memg",  ttl_s: DAY,       grace_s: 0 };
}

pub use kinds::{EMERGENCY, INTEGRATION, SERVICE, SYSTEM, USER};

/// The five kinds of API keys (CONTRACT §6).
pub const KINDS: [&ApiKeyKind; 5] = [&SYSTEM, &USER, &SERVICE, &INTEGRATION, &EMERGENCY];

impl ApiKeyKind {
    /// The kind with this prefix.
    pub fn of(prefix: &str) -> Option<&'static Self> {
        KINDS.into_iter().find(|kind| kind.prefix == prefix)
    }
}

/// The scope to read the key's own member and its permissions.
pub const ME_READ: &str = "me:read";

/// The owner of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Member(MemberId),
    Service(Arc<str>),
}

/// One API key. Only its counters change.
#[derive(Debug)]
pub struct ApiKey {
    pub id: ApiKeyId,
    /// Whether the key works only once.
    pub is_emergency: bool,
    /// Whether an emergency key was used.
    pub is_spent: bool,
    /// Whether another system generated the text, which then has no id.
    pub is_imported: bool,
    pub owner: Owner,
    /// The principal that created the key or rotated it last. For a member's own key it is the member.
    pub maker: Grantor,
    pub hash: Hash,
    /// The hash of the text before the last rotation, and when that text expires.
    pub previous: Option<(Hash, Timestamp)>,
    pub scopes: BTreeSet<Box<str>>,
    pub expires_at: Timestamp,
    pub counters: Arc<KeyUsage>,
}

/// When and from where the key was last used, written to the row in batches.
#[derive(Debug, Default)]
pub struct KeyUsage {
    /// Unix milliseconds; 0 if the key was not used since the last batch.
    pub at: AtomicI64,
    pub address: Mutex<Option<IpAddr>>,
}

impl KeyUsage {
    fn record(&self, now: Timestamp, address: Option<IpAddr>) {
        self.at.store(now.0, Ordering::Relaxed);
        // If the lock is taken, a concurrent request stores its address instead.
        if let Ok(mut last) = self.address.try_lock() {
            *last = address;
        }
    }
}

impl ApiKey {
    /// Whether one of the key's scopes covers this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| client::covers(held, scope))
    }

    pub fn member(&self) -> Option<MemberId> {
        match self.owner {
            Owner::Member(id) => Some(id),
            Owner::Service(_) => None,
        }
    }

    /// Fails with `invalid_key` if the maker is not the key's own member and can no longer grant the rights of the key.
    pub fn require_grantor_authorized(&self, snapshot: &Snapshot, now: Timestamp) -> Result<()> {
        if self.member().is_some_and(|id| self.maker == Grantor::Member(id)) {
            return Ok(());
        }
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| &**scope).collect();
        let deferred_grant = match self.owner {
            Owner::Member(member) => DeferredGrant::MemberKey { member, rights: &[] },
            Owner::Service(_) => DeferredGrant::ServiceKey { scopes: &scopes },
        };
        deferred_grant::require_grantor_authorized(snapshot, &self.maker, deferred_grant, now).map_err(|_| {
            let message = "the creator of this key can no longer grant its rights: an administrator must rotate it";
            Error::new(ErrorCode::InvalidKey).with_source("its maker lost the rights").with_message(message)
        })
    }

    /// Fails unless the key is valid now: not expired, its member active, its maker still authorized.
    fn require_valid(&self, snapshot: &Snapshot, now: Timestamp) -> Result<()> {
        let invalid = |why: &'static str| Error::new(ErrorCode::InvalidKey).with_source(why);
        if now >= self.expires_at {
            return Err(invalid("expired"));
        }
        if let Owner::Member(id) = self.owner
            && !snapshot.is_active(id)
        {
            // The holder of the key can know that the member is suspended, but nothing about an erased member.
            let is_suspended = snapshot.member_state(id).is_some_and(|state| state.status == MemberStatus::Suspended);
            return Err(match is_suspended {
                true => ErrorCode::MemberSuspended.into(),
                false => invalid("its member is not active"),
            });
        }
        self.require_grantor_authorized(snapshot, now)
    }

    /// The digests of the key's text and of the text before the last rotation.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> {
        std::iter::once(self.hash).chain(self.previous.map(|(hash, _)| hash))
    }

    /// All fields that decisions depend on, as text.
    pub fn digest_input(&self) -> String {
        format!(
            "key {} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?}",
            self.id,
            self.is_emergency,
            self.is_spent,
            self.is_imported,
            self.owner,
            self.maker,
            self.hash,
            self.previous,
            self.scopes,
            self.expires_at
        )
    }
}

/// The text of a new key: `muser_<id>_<unix s>_<secret>_<checksum>`.
pub fn new_text(prefix: &str, id: ApiKeyId, now: Timestamp) -> Result<String> {
    // Hexadecimal, because the URL-safe base64 alphabet contains the underscore.
    let secret = hex::encode(secret::random()?);
    let text = format!("{prefix}_{}_{}_{secret}", id.0.simple(), now.0 / 1_000);
    Ok(format!("{text}_{}", checksum(&text)))
}

/// Distinguishes a mistyped or truncated key from an unknown one. It has no security purpose.
fn checksum(text: &str) -> String {
    hex::encode(&secret::hash(text)[..4])
}

/// Whether the text has all parts of a key but a wrong checksum.
fn is_mistyped(text: &str) -> bool {
    const PARTS: usize = 5;
    let (text, sum) = text.rsplit_once('_').unwrap_or((text, ""));
    text.split('_').count() + 1 == PARTS && checksum(text) != sum
}

/// Whether the text begins with the prefix of an API key.
pub fn is_key(text: &str) -> bool {
    KINDS.iter().any(|kind| text.strip_prefix(kind.prefix).is_some_and(|rest| rest.starts_with('_')))
}

/// Returns the valid key with this text, and the hash of the text. An unknown key takes as long as a wrong one.
pub fn identify(snapshot: &Snapshot, text: &str, now: Timestamp, from: Option<IpAddr>) -> Result<(Arc<ApiKey>, Hash)> {
    const KEY_BYTES_MAX: usize = 256;
    let invalid = |why: &'static str| Error::new(ErrorCode::InvalidKey).with_source(why);
    if text.len() > KEY_BYTES_MAX {
        return Err(invalid("too long"));
    }
    let offered = secret::hash(text);
    let known = id_in(text).and_then(|id| snapshot.api_key(id)).or_else(|| snapshot.imported_key(&offered));
    let (current, former) = (known.map(|key| &key.hash), known.and_then(|key| key.previous));
    let is_its_text = secret::is_current_or_former(&offered, current, former, now);
    let Some(key) = known.filter(|_| is_its_text) else {
        let refused = invalid("unknown or wrong");
        return Err(if is_mistyped(text) {
            refused.with_message("this API key was mistyped or cut off: copy it again")
        } else {
            refused
        });
    };
    if key.is_spent {
        return Err(invalid("an emergency key that was used"));
    }
    key.require_valid(snapshot, now)?;
    key.counters.record(now, from);
    Ok((key.clone(), offered))
}

/// Checks again that the key of a running request is valid, and returns its current state. `text` is the digest of the
/// presented text. An emergency key can be spent: by this request.
pub fn revalidate(snapshot: &Snapshot, presented: &ApiKey, text: &Hash, now: Timestamp) -> Result<Arc<ApiKey>> {
    let key = snapshot.api_key(presented.id);
    let key = key.filter(|key| secret::is_current_or_former(text, Some(&key.hash), key.previous, now));
    let key = key.ok_or_else(|| {
        Error::new(ErrorCode::InvalidKey).with_source("the key was revoked or rotated during the request")
    })?;
    key.require_valid(snapshot, now)?;
    Ok(key.clone())
}

/// The id in a key's text, if it has the form of one. The other parts are compared only by the hash.
fn id_in(text: &str) -> Option<ApiKeyId> {
    let id = text.split('_').nth(1)?;
    const HEX_DIGITS: usize = 32;
    let is_hex =
        id.len() == HEX_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hex.then(|| uuid::Uuid::try_parse(id).ok()).flatten().map(ApiKeyId)
}
