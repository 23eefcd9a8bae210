//! An API key as the guard sees it: `muser_<id>_<unix s>_<secret>_<checksum>`, found by its id, compared as a hash.
//!
//! **Invariant.** Rights are never read out of a key's text: it only says which row to look at.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use super::client;
use super::deferred_grant::{self, DeferredGrant, Maker};
use super::snapshot::{Snapshot, Status};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{ApiKeyId, MemberId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// What an API key begins with, with its life and how long the former one lives after a rotation.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub prefix: &'static str,
    pub ttl_s: i64,
    pub grace_s: i64,
}

const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;

#[rustfmt::skip]
mod kinds {
    use super::{DAY, HOUR, Kind};

    pub const SYSTEM: Kind      = Kind { prefix: "msys",  ttl_s: 365 * DAY, grace_s: 72 * HOUR };
    pub const USER: Kind        = Kind { prefix: "muser", ttl_s: 90 * DAY,  grace_s: 24 * HOUR };
    pub const SERVICE: Kind     = Kind { prefix: "msvc",  ttl_s: 180 * DAY, grace_s: 48 * HOUR };
    pub const INTEGRATION: Kind = Kind { prefix: "mint",  ttl_s: 30 * DAY,  grace_s: 24 * HOUR };
    /// Works once.
    pub const EMERGENCY: Kind   = Kind { prefix: "memg",  ttl_s: DAY,       grace_s: 0 };
}

pub use kinds::{EMERGENCY, INTEGRATION, SERVICE, SYSTEM, USER};

/// The five kinds of key (CONTRACT §6).
pub const KINDS: [&Kind; 5] = [&SYSTEM, &USER, &SERVICE, &INTEGRATION, &EMERGENCY];

impl Kind {
    /// The kind of a prefix.
    pub fn of(prefix: &str) -> Option<&'static Self> {
        KINDS.into_iter().find(|kind| kind.prefix == prefix)
    }
}

/// The scope with which a key shows who its member is and what it may do.
pub const ME_READ: &str = "me:read";

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Member(MemberId),
    Service(Arc<str>),
}

/// One key, immutable but for its counters.
#[derive(Debug)]
pub struct ApiKey {
    pub id: ApiKeyId,
    /// Works once.
    pub is_emergency: bool,
    pub is_spent: bool,
    pub is_imported: bool,
    pub owner: Owner,
    /// Who made it, or rotated it last: for its own keys the member.
    pub maker: Maker,
    pub hash: Hash,
    /// The key before the last rotation, and when it ends.
    pub previous: Option<(Hash, Timestamp)>,
    pub scopes: BTreeSet<Box<str>>,
    pub expires_at: Timestamp,
    pub counters: Arc<Used>,
}

/// When and from where the key was last used, written to the row in batches.
#[derive(Debug, Default)]
pub struct Used {
    /// Milliseconds; 0 when not since the last batch.
    pub at: AtomicI64,
    pub address: Mutex<Option<IpAddr>>,
}

impl Used {
    fn note(&self, now: Timestamp, address: Option<IpAddr>) {
        self.at.store(now.0, Ordering::Relaxed);
        // If the lock is taken, a concurrent request stores its address instead.
        if let Ok(mut last) = self.address.try_lock() {
            *last = address;
        }
    }
}

impl ApiKey {
    /// May the key do what needs this scope?
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| client::covers(held, scope))
    }

    pub fn member(&self) -> Option<MemberId> {
        match self.owner {
            Owner::Member(id) => Some(id),
            Owner::Service(_) => None,
        }
    }

    /// Fails where somebody else than its member made it, who may not give today what it opens.
    pub fn require_kept(&self, snapshot: &Snapshot, now: Timestamp) -> Result<()> {
        if self.member().is_some_and(|id| self.maker == Maker::Member(id)) {
            return Ok(());
        }
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| &**scope).collect();
        let deferred_grant = match self.owner {
            Owner::Member(member) => DeferredGrant::MemberKey { member, rights: &[] },
            Owner::Service(_) => DeferredGrant::ServiceKey { scopes: &scopes },
        };
        deferred_grant::require_kept(snapshot, &self.maker, deferred_grant, now).map_err(|_| {
            let message = "who made this key may not give what it opens any more: an administrator has to rotate it";
            Error::new(ErrorCode::InvalidKey).with_source("its maker lost the rights").with_message(message)
        })
    }

    /// Fails unless the key opens something today, for anyone who knows its text.
    fn require_counts(&self, snapshot: &Snapshot, now: Timestamp) -> Result<()> {
        let invalid = |why: &'static str| Error::new(ErrorCode::InvalidKey).with_source(why);
        if now >= self.expires_at {
            return Err(invalid("expired"));
        }
        if let Owner::Member(id) = self.owner
            && !snapshot.is_active(id)
        {
            // Who holds the key may know why it does nothing; of an erased member nothing is told.
            let is_suspended = snapshot.member_state(id).is_some_and(|person| person.status == Status::Suspended);
            return Err(match is_suspended {
                true => ErrorCode::MemberSuspended.into(),
                false => invalid("its member is not active"),
            });
        }
        self.require_kept(snapshot, now)
    }

    /// The digests of the key's text, and of the one before the last rotation.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> {
        std::iter::once(self.hash).chain(self.previous.map(|(hash, _)| hash))
    }

    /// All that decides, as text.
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
    // Hexadecimal, because base64's url-safe alphabet has the underscore.
    let secret = hex::encode(secret::random()?);
    let text = format!("{prefix}_{}_{}_{secret}", id.0.simple(), now.0 / 1_000);
    Ok(format!("{text}_{}", checksum(&text)))
}

/// Tells a key that was mistyped or cut from one that is not known. It protects nothing.
fn checksum(text: &str) -> String {
    hex::encode(&secret::hash(text)[..4])
}

/// Has it all parts of a key of ours, with a checksum that does not fit?
fn is_mistyped(text: &str) -> bool {
    const PARTS: usize = 5;
    let (text, sum) = text.rsplit_once('_').unwrap_or((text, ""));
    text.split('_').count() + 1 == PARTS && checksum(text) != sum
}

/// Does the text look like one of these keys?
pub fn is_key(text: &str) -> bool {
    KINDS.iter().any(|kind| text.strip_prefix(kind.prefix).is_some_and(|rest| rest.starts_with('_')))
}

/// The valid key with this text, and the hash of the text. An unknown key takes as long as a wrong one.
pub fn identify(snapshot: &Snapshot, text: &str, now: Timestamp, from: Option<IpAddr>) -> Result<(Arc<ApiKey>, Hash)> {
    const KEY_BYTES_MAX: usize = 256;
    let invalid = |why: &'static str| Error::new(ErrorCode::InvalidKey).with_source(why);
    if text.len() > KEY_BYTES_MAX {
        return Err(invalid("too long"));
    }
    let offered = secret::hash(text);
    let known = named_in(text).and_then(|id| snapshot.api_key(id)).or_else(|| snapshot.imported_key(&offered));
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
    key.require_counts(snapshot, now)?;
    key.counters.note(now, from);
    Ok((key.clone(), offered))
}

/// The key of this moment, for a request that showed a text with this digest. An emergency key may be spent: by the request.
pub fn still(snapshot: &Snapshot, shown: &ApiKey, text: &Hash, now: Timestamp) -> Result<Arc<ApiKey>> {
    let key = snapshot.api_key(shown.id);
    let key = key.filter(|key| secret::is_current_or_former(text, Some(&key.hash), key.previous, now));
    let key =
        key.ok_or_else(|| Error::new(ErrorCode::InvalidKey).with_source("it ended while the request was on its way"))?;
    key.require_counts(snapshot, now)?;
    Ok(key.clone())
}

/// The id that a key of ours says; its other parts are looked at as a whole.
fn named_in(text: &str) -> Option<ApiKeyId> {
    let id = text.split('_').nth(1)?;
    const HEX_DIGITS: usize = 32;
    let is_hex =
        id.len() == HEX_DIGITS && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hex.then(|| uuid::Uuid::try_parse(id).ok()).flatten().map(ApiKeyId)
}
