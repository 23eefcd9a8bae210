//! The result of a call of a guest.

use std::time::Duration;

use super::input::LogLine;

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

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A trap, such as a division by zero or a panic of the guest.
    Trap,
    Fuel,
    Deadline,
    Memory,
    Stack,
    /// Its answer is too large or not valid, or it logged too much.
    Output,
    /// It returned an error.
    Rule,
    /// The input is longer than allowed. The guest is not responsible for this kind, nor for those below.
    Input,
    /// The call could not start in time.
    Busy,
    /// The version failed too often and is no longer called.
    Quarantined,
    /// The component cannot be loaded: it is not compiled, or its bytes are missing.
    Unavailable,
}

impl FaultKind {
    pub const ALL: [Self; 11] = [
        Self::Trap,
        Self::Fuel,
        Self::Deadline,
        Self::Memory,
        Self::Stack,
        Self::Output,
        Self::Rule,
        Self::Input,
        Self::Busy,
        Self::Quarantined,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Fuel => "fuel",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Output => "output",
            Self::Rule => "rule_error",
            Self::Input => "input",
            Self::Busy => "busy",
            Self::Quarantined => "quarantined",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the guest is responsible, so that the fault counts towards quarantine.
    pub fn is_guest_fault(self) -> bool {
        !matches!(self, Self::Input | Self::Busy | Self::Quarantined | Self::Unavailable)
    }
}
