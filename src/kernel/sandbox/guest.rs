//! The state of one call of a guest: its counters, its log, and the limits that the engine enforces through it.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use super::engine::fault;
use super::input::{Level, LogLine};
use super::limits::{Budget, Limits};
use super::measure;
use super::{Fault, FaultKind};

/// Most log calls of one guest call; more are treated as an attack on the host.
const LOG_CALLS_MAX: u32 = 256;
/// The longest log line.
pub(super) const LINE_BYTES_MAX: usize = 1_024;

/// The state of one call: its log and its counters.
pub(super) struct Guest {
    pub(super) memory_bytes: u64,
    memory_bytes_max: u64,
    table_elements: u64,
    table_elements_max: u64,
    /// The size of the last growth, to undo it if the growth fails.
    grown: u64,
    /// The part of the last growth that was charged, to undo it if the growth fails.
    charged: u64,
    /// The growth of its memories since their creation, which is charged as fuel.
    pub(super) grown_bytes: u64,
    fuel_max: u64,
    /// The number of memories that were created empty and have not grown yet.
    empty_memories: u32,
    /// The CPU time of all finished time slices.
    pub(super) ran: Duration,
    pub(super) ran_max: Duration,
    pub(super) log: Vec<LogLine>,
    log_lines_max: u64,
    log_bytes_left: u64,
    /// The bytes that log calls may still pass to the host, stored or not.
    output_bytes_left: u64,
    log_calls: u32,
    pub(super) log_dropped: u32,
}

impl Guest {
    pub(super) fn new(limits: &Limits, budget: Budget) -> Self {
        Self {
            memory_bytes: 0,
            memory_bytes_max: limits.memory_bytes,
            table_elements: 0,
            table_elements_max: measure::table_elements_max(limits.tier),
            grown: 0,
            charged: 0,
            grown_bytes: 0,
            fuel_max: budget.fuel,
            empty_memories: 0,
            ran: Duration::ZERO,
            ran_max: Duration::from_millis(budget.running_ms),
            log: Vec::new(),
            log_lines_max: limits.log_lines,
            log_bytes_left: limits.log_bytes,
            output_bytes_left: limits.output_bytes,
            log_calls: 0,
            log_dropped: 0,
        }
    }

    /// Charges the growth of a memory, but not its initial size, which is not written yet. Both are reported with a
    /// current size of 0, so that one is treated as the growth of a memory that was created empty if there is such a
    /// memory.
    fn charge_growth(&mut self, current: usize) -> wasmtime::Result<()> {
        self.charged = 0;
        if current == 0 {
            if self.grown == 0 {
                self.empty_memories += 1;
                return Ok(());
            }
            let Some(remaining) = self.empty_memories.checked_sub(1) else { return Ok(()) };
            self.empty_memories = remaining;
        }
        self.charged = self.grown;
        self.grown_bytes = self.grown_bytes.saturating_add(self.charged);
        if self.grown_bytes > self.fuel_max { Err(LimitExceeded::Fuel.into()) } else { Ok(()) }
    }

    /// The fault of a call that exceeded its wall time: `deadline` if it used at least half of its running time,
    /// otherwise `busy`, because it mostly waited for a CPU.
    pub(super) fn timeout_fault(&self) -> Fault {
        if self.ran.saturating_mul(2) >= self.ran_max {
            fault(FaultKind::Deadline, "it did not end in time")
        } else {
            fault(FaultKind::Busy, "the machine was too busy to run it in time")
        }
    }

    pub(super) fn log(&mut self, level: Level, message: &str) -> wasmtime::Result<()> {
        self.log_calls += 1;
        if self.log_calls > LOG_CALLS_MAX {
            return Err(LimitExceeded::LogCalls.into());
        }
        let Some(left) = self.output_bytes_left.checked_sub(message.len() as u64) else {
            return Err(LimitExceeded::LogBytes.into());
        };
        self.output_bytes_left = left;
        let message = plain(message, LINE_BYTES_MAX);
        if self.log.len() as u64 >= self.log_lines_max || message.len() as u64 > self.log_bytes_left {
            self.log_dropped += 1;
            return Ok(());
        }
        self.log_bytes_left -= message.len() as u64;
        self.log.push(LogLine { level: level.into(), message });
        Ok(())
    }
}

/// Replaces control characters in a text of a guest, and cuts it to a length.
pub(super) fn plain(text: &str, bytes_max: usize) -> String {
    let mut plain = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if plain.len() + c.len_utf8() > bytes_max {
            break;
        }
        plain.push(c);
    }
    plain
}

pub(super) const OUT_OF_FUEL: &str = "it used up its instructions";

/// A limit of the host that a guest exceeded.
#[derive(Debug, Clone, Copy)]
pub(super) enum LimitExceeded {
    Memory(u64),
    Table(u64),
    Fuel,
    LogCalls,
    LogBytes,
}

impl std::fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(max) => write!(f, "it requested more memory than the {max} bytes that are allowed"),
            Self::Table(max) => write!(f, "it requested more than the {max} table elements that are allowed"),
            Self::Fuel => f.write_str(OUT_OF_FUEL),
            Self::LogBytes => write!(f, "it logged more bytes than its output may have"),
            Self::LogCalls => write!(f, "it logged more than {LOG_CALLS_MAX} times in one call"),
        }
    }
}

impl std::error::Error for LimitExceeded {}

impl ResourceLimiter for Guest {
    /// Limits the sum over all memories; wasmtime's own limiter limits each alone.
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.grown = desired.saturating_sub(current) as u64;
        let total = self.memory_bytes.saturating_add(self.grown);
        if total > self.memory_bytes_max {
            return Err(LimitExceeded::Memory(self.memory_bytes_max).into());
        }
        self.memory_bytes = total;
        self.charge_growth(current)?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes = self.memory_bytes.saturating_sub(std::mem::take(&mut self.grown));
        self.grown_bytes = self.grown_bytes.saturating_sub(std::mem::take(&mut self.charged));
        Ok(())
    }

    /// Limits the sum over all tables.
    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.grown = desired.saturating_sub(current) as u64;
        let total = self.table_elements.saturating_add(self.grown);
        if total > self.table_elements_max {
            return Err(LimitExceeded::Table(self.table_elements_max).into());
        }
        self.table_elements = total;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.table_elements = self.table_elements.saturating_sub(std::mem::take(&mut self.grown));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sandbox::Tier;

    #[test]
    fn control_characters_are_replaced_and_text_is_cut_between_characters() {
        for (text, bytes_max, expected) in [
            ("", 0, ""),
            ("a", 0, ""),
            ("abc", 3, "abc"),
            ("abcd", 3, "abc"),
            ("aé", 3, "aé"),
            ("abé", 3, "ab"),
            ("a\u{1f600}b", 4, "a"),
            ("a\n\t\u{7}\u{1b}[m\u{7f}\u{85}b", 20, "a    [m  b"),
        ] {
            assert_eq!(plain(text, bytes_max), expected, "{text:?}");
        }
    }

    /// Logs lines of these lengths. Returns the stored lengths, the number of dropped lines, and the limit exceeded, if
    /// any.
    fn logged(set: fn(&mut Limits), lines: &[usize]) -> (Vec<usize>, u32, Option<String>) {
        let mut limits = Limits::for_tier(&crate::kernel::config::Config::of(std::path::Path::new("")), Tier::Standard);
        set(&mut limits);
        let mut guest = Guest::new(&limits, limits.authorize);
        let exceeded = lines.iter().find_map(|bytes| guest.log(Level::Info, &"x".repeat(*bytes)).err());
        let kept = guest.log.iter().map(|line| line.message.len()).collect();
        (kept, guest.log_dropped, exceeded.map(|e| e.to_string()))
    }

    #[test]
    fn log_lines_are_dropped_or_fail_the_call_at_their_limits() {
        type Case = (fn(&mut Limits), Vec<usize>, (Vec<usize>, u32, Option<LimitExceeded>));
        let cases: [Case; 10] = [
            (|_| (), vec![LINE_BYTES_MAX], (vec![LINE_BYTES_MAX], 0, None)),
            (|_| (), vec![LINE_BYTES_MAX + 1], (vec![LINE_BYTES_MAX], 0, None)),
            (|l| l.log_lines = 2, vec![1, 0], (vec![1, 0], 0, None)),
            (|l| l.log_lines = 2, vec![1, 0, 1], (vec![1, 0], 1, None)),
            (|l| l.log_bytes = 5, vec![2, 3], (vec![2, 3], 0, None)),
            // A shorter line still fits after a longer one was dropped.
            (|l| l.log_bytes = 5, vec![2, 4, 3, 1], (vec![2, 3], 2, None)),
            (|l| l.output_bytes = 5, vec![2, 3], (vec![2, 3], 0, None)),
            (|l| l.output_bytes = 5, vec![2, 3, 1], (vec![2, 3], 0, Some(LimitExceeded::LogBytes))),
            // A line that is not stored counts towards the output too.
            (|l| (l.output_bytes, l.log_lines) = (5, 1), vec![2, 3, 1], (vec![2], 1, Some(LimitExceeded::LogBytes))),
            (|l| l.log_lines = 0, vec![0; LOG_CALLS_MAX as usize], (vec![], LOG_CALLS_MAX, None)),
        ];
        for (n, (set, lines, (kept, dropped, exceeded))) in cases.into_iter().enumerate() {
            assert_eq!(logged(set, &lines), (kept, dropped, exceeded.map(|exceeded| exceeded.to_string())), "case {n}");
        }
        let (_, _, exceeded) = logged(|_| (), &vec![0; LOG_CALLS_MAX as usize + 1]);
        assert_eq!(exceeded, Some(LimitExceeded::LogCalls.to_string()));
    }
}
