//! What came of a call of a guest.

use std::time::Duration;

use super::input::LogLine;

/// What came of one call.
#[derive(Debug, Clone)]
pub struct CallResult<T> {
    pub outcome: std::result::Result<T, Fault>,
    /// What it was charged: one for an instruction, and one for each byte that it filled, copied or grew by.
    pub fuel: u64,
    /// From the moment it had its turn until it was over.
    pub duration: Duration,
    /// Most memory it had.
    pub memory_bytes: u64,
    /// Did it take more processor time than a call may take on the thread of a request?
    pub is_slow: bool,
    /// Did it run off the threads that answer requests, or end there?
    pub is_aside: bool,
    pub log: Vec<LogLine>,
    /// Lines beyond the limit, which are gone.
    pub log_dropped: u32,
}

impl<T> CallResult<T> {
    /// What was never called.
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

    /// With another form of the answer.
    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> CallResult<U> {
        let Self { outcome, fuel, duration, memory_bytes, is_slow, is_aside, log, log_dropped } = self;
        CallResult { outcome: outcome.map(to), fuel, duration, memory_bytes, is_slow, is_aside, log, log_dropped }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// For the plugin's author: never for a caller of the API who may not look at plugins.
    pub message: String,
}

/// A closed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A trap, such as a division by zero or a panic of the guest.
    Trap,
    Fuel,
    Deadline,
    Memory,
    Stack,
    /// It answered too much, or what no answer can be.
    Output,
    /// It said itself that it cannot answer.
    Rule,
    /// What was asked is longer than an input may be; the guest has no part in this, nor in those below.
    Input,
    /// No turn was free in time.
    Busy,
    /// It failed too often, and is asked no more.
    Quarantined,
    /// The component cannot be had: it is not compiled, or its bytes are gone.
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

    /// Is it the guest's doing, so that it counts towards quarantine?
    pub fn is_of_guest(self) -> bool {
        !matches!(self, Self::Input | Self::Busy | Self::Quarantined | Self::Unavailable)
    }
}
