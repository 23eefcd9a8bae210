//! What the policy knows of an organization's plugins: which version is bound to what, and what it may do.
//!
//! The component itself is the sandbox's; here is only what a decision must know to ask it. What a running version has
//! counted ([`Live`]) outlives every edit of its binding, as a client's counters do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::secret::Hash;
use crate::ids::{PluginId, Timestamp};

/// Does a plugin decide, or is it only watched?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Shadow,
    Enforce,
}

impl Mode {
    pub fn word(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Enforce => "enforce",
        }
    }
}

/// The interfaces a component has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exports {
    pub authorizer: bool,
    pub role_mapper: bool,
}

impl Exports {
    pub const AUTHORIZER: &'static str = "authorizer";
    pub const ROLE_MAPPER: &'static str = "role-mapper";

    pub fn words(self) -> Vec<&'static str> {
        let all = [(self.authorizer, Self::AUTHORIZER), (self.role_mapper, Self::ROLE_MAPPER)];
        all.into_iter().filter(|(has, _)| *has).map(|(_, word)| word).collect()
    }

    pub fn of_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Self {
        words.into_iter().fold(Self::default(), |mut exports, word| {
            exports.authorizer |= word == Self::AUTHORIZER;
            exports.role_mapper |= word == Self::ROLE_MAPPER;
            exports
        })
    }
}

/// Which questions an authorizer covers; all of them when every list is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Names of permissions, or `video.*` for all below a name.
    pub permissions: Vec<String>,
    /// `/videos/:id`, `POST /videos`, `/files/*rest`.
    pub routes: Vec<String>,
    /// Modules of direct grants.
    pub modules: Vec<String>,
}

/// How a version was put in force, or is watched; as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    pub version: u32,
    pub may_grant: bool,
    pub filter: Filter,
    pub deadline_ms: Option<u32>,
    /// Unix milliseconds.
    pub since: i64,
}

/// A line of a plugin's log.
#[derive(Debug, Clone)]
pub struct Logged {
    pub at: Timestamp,
    pub level: &'static str,
    pub message: String,
}

/// What was counted of a running version since the start.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Calls by outcome: `allow`, `deny`, `abstain`, `roles`, or the word of a fault.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Answers that would have changed a decision or a mapping, had a watched plugin been in force.
    pub differed: u64,
    pub duration_us: u64,
    pub duration_us_max: u64,
    pub fuel: u64,
    pub fuel_max: u64,
    pub memory_bytes_max: u64,
    /// The latest lines, the oldest first.
    pub log: VecDeque<Logged>,
    pub log_dropped: u64,
    /// When it failed lately.
    failures: VecDeque<Timestamp>,
}

/// What a running version has seen of itself; shared by all snapshots that hold it.
#[derive(Debug)]
pub struct Live {
    /// It failed too often: what it covers is denied, and it is asked no more.
    is_quarantined: AtomicBool,
    seen: Mutex<Seen>,
}

impl Live {
    pub fn new(is_quarantined: bool) -> Self {
        Self { is_quarantined: AtomicBool::new(is_quarantined), seen: Mutex::default() }
    }

    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Ordering::Acquire)
    }

    pub fn seen(&self) -> Seen {
        self.with(|seen| seen.clone()).unwrap_or_default()
    }

    /// Counts something, quickly.
    pub fn count(&self, count: impl FnOnce(&mut Seen)) {
        let _ = self.with(count);
    }

    fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> Option<T> {
        self.seen.lock().ok().map(|mut seen| f(&mut seen))
    }

    /// Counts a failure; answers whether it was the one too many, which happens once.
    pub fn has_failed_too_often(&self, now: Timestamp, failures_max: u64, window_ms: i64) -> bool {
        let is_too_many = self.with(|seen| {
            seen.failures.retain(|at| at.plus_ms(window_ms) > now);
            seen.failures.push_back(now);
            seen.failures.len() as u64 >= failures_max
        });
        is_too_many.unwrap_or(true) && !self.is_quarantined.swap(true, Ordering::AcqRel)
    }
}

/// A version of a plugin that is asked.
#[derive(Debug, Clone)]
pub struct Binding {
    pub plugin: PluginId,
    pub name: Arc<str>,
    pub version: u32,
    pub sha256: Hash,
    pub mode: Mode,
    pub exports: Exports,
    /// May its `allow` open what no role does?
    pub may_grant: bool,
    pub filter: Arc<Filter>,
    /// Milliseconds that a call may run; the setting when absent.
    pub deadline_ms: Option<u32>,
    /// Was it uploaded under the limits for big runtimes?
    pub is_large: bool,
    /// Since when, in Unix milliseconds: plugins are asked in this order.
    pub since: i64,
    pub live: Arc<Live>,
}

impl Binding {
    /// Is this the same run of the same version?
    pub fn is_same_run(&self, other: &Self) -> bool {
        (self.plugin, self.version, self.mode, self.since) == (other.plugin, other.version, other.mode, other.since)
    }

    /// All that decides, as text.
    pub fn fact(&self) -> String {
        let Self {
            plugin,
            name,
            version,
            sha256,
            mode,
            exports,
            may_grant,
            filter,
            deadline_ms,
            is_large,
            since,
            live: _,
        } = self;
        format!(
            "{plugin} {name} {version} {} {mode:?} {exports:?} {may_grant} {filter:?} {deadline_ms:?} {is_large} {since}",
            hex::encode(sha256)
        )
    }
}
