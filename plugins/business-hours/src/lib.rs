//! Denies everything outside of business hours. A guest has no clock: the time is the host's fact `now_ms`, so that a
//! decision can be repeated later with the same result.

wit_bindgen::generate!({ path: "../wit", world: "authorizer-plugin" });

use exports::roster::policy::authorizer::{AccessInput, Decision, Guest, RuleError};
use roster::policy::host::{log, Level};

/// Local time without summer time, in minutes east of UTC.
const UTC_OFFSET_MINUTES: i64 = 8 * 60;
/// Minutes of the day: from 8:00 until before 18:00.
const OPENS_MINUTE: i64 = 8 * 60;
const CLOSES_MINUTE: i64 = 18 * 60;
/// Monday is 0.
const WORKING_DAYS: std::ops::RangeInclusive<i64> = 0..=4;

const MS_PER_MINUTE: i64 = 60_000;
const MINUTES_PER_DAY: i64 = 24 * 60;
/// The first of January 1970 was a Thursday.
const FIRST_DAY: i64 = 3;

/// Memory is reserved at the start: growing it takes longer than everything else in a short call.
#[global_allocator]
static HEAP: talc::wasm::WasmArenaTalc = {
    static mut ARENA: [u8; 4 << 20] = [0; 4 << 20];
    // SAFETY: no other code can name the arena.
    unsafe { talc::wasm::new_wasm_arena_allocator(&raw mut ARENA) }
};

struct Plugin;

impl Guest for Plugin {
    fn authorize(input: AccessInput) -> Result<Decision, RuleError> {
        log_panics();
        let now_ms = now_ms(&input)?;
        Ok(if is_open(now_ms) { Decision::Abstain } else { Decision::Deny(closed()) })
    }
}

export!(Plugin);

fn now_ms(input: &AccessInput) -> Result<i64, RuleError> {
    let given = input.context.iter().find(|fact| fact.name == "now_ms").and_then(|fact| fact.values.first());
    given.and_then(|text| text.parse().ok()).ok_or_else(|| RuleError {
        code: "no_time".into(),
        message: "the fact `now_ms` is missing or no number".into(),
    })
}

fn is_open(now_ms: i64) -> bool {
    let minutes = now_ms.div_euclid(MS_PER_MINUTE) + UTC_OFFSET_MINUTES;
    let weekday = (minutes.div_euclid(MINUTES_PER_DAY) + FIRST_DAY).rem_euclid(7);
    let minute = minutes.rem_euclid(MINUTES_PER_DAY);
    WORKING_DAYS.contains(&weekday) && (OPENS_MINUTE..CLOSES_MINUTE).contains(&minute)
}

fn closed() -> String {
    let clock = |minute: i64| format!("{}:{:02}", minute / 60, minute % 60);
    let (opens, closes) = (clock(OPENS_MINUTE), clock(CLOSES_MINUTE));
    format!("we work Monday to Friday from {opens} to {closes}: come back then")
}

/// Logs the message of a panic. Without this, a panic is a trap without a message.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string())));
}
