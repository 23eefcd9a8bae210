//! The result of a call of a guest.

use std::time::Duration;

use super::input::LogLine;
use crate::kernel::authz::plugin::FaultKind;

/// The result of one call.
#[derive(Debug, Clone)]
pub struct CallResult<T> {
    pub outcome: std::result::Result<T, Fault>,
    /// The fuel that it used: one per instruction, and one per byte that it filled, copied or grew by.
    pub fuel: u64,
    /// From its start, after the wait in the queue, to its end.
    pub duration: Duration,
    /// The peak of its memory.
    pub memory_bytes: u64,
    /// Whether it used more CPU time than a call on a request thread may use (`plugins.fast_us`).
    pub is_slow: bool,
    /// Whether it ran on a background thread, at least in part.
    pub is_aside: bool,
    pub log: Vec<LogLine>,
    /// The number of log lines above the limit, which were dropped.
    pub log_dropped: u32,
}

impl<T> CallResult<T> {
    /// The result of a call that never ran.
    pub fn failed(fault: Fault) -> Self {
        Self {
            outcome: Err(fault),
            fuel: 0,
            duration: Duration::ZERO,
            memory_bytes: 0,
            is_slow: false,
            is_aside: false,
            log: Vec::new(),
            log_dropped: 0,
        }
    }

    /// Converts the answer.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> CallResult<U> {
        let Self { outcome, fuel, duration, memory_bytes, is_slow, is_aside, log, log_dropped } = self;
        CallResult { outcome: outcome.map(to), fuel, duration, memory_bytes, is_slow, is_aside, log, log_dropped }
    }
}

/// Why a call returned no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// For the author of the plugin. Never returned to a caller who may not read plugins.
    pub message: String,
}
