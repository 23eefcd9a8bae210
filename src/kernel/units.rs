//! Parses and formats sizes and times for people: `20GB`, `2026-12-31`, `90d`. Programs send bytes and milliseconds.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use crate::kernel::ids::Timestamp;

/// The units of sizes: powers of 1,000, and of 1,024 with an `i`.
const SIZES: [(&str, u64); 11] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

/// The units of durations, in milliseconds.
const DURATIONS: [(&str, i64); 5] =
    [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 7 * 86_400_000)];

/// Splits text into a number and the unit after it.
fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// Parses `20GB`, `1.5 TB`, `512MiB` or `1024` to bytes; units in any case. `1.5B` is an error; other fractions of a
/// byte are cut off.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text);
    let unit = if unit.is_empty() { "B" } else { unit };
    let (_, times) = SIZES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(times)?;
    if part.is_empty() {
        return (!number.ends_with('.')).then_some(whole);
    }
    const DIGITS_MAX: usize = 9;
    if part.len() > DIGITS_MAX || times == 1 {
        return None;
    }
    let of = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let rest = u128::from(part.parse::<u64>().ok()?) * u128::from(times) / of;
    whole.checked_add(u64::try_from(rest).ok()?)
}

/// Formats bytes with a decimal unit and one digit after the point: `10.7 GB`.
pub fn shown_bytes(bytes: i64) -> String {
    let size = bytes.unsigned_abs();
    let mut decimal = SIZES.into_iter().filter(|(name, _)| !name.contains('i'));
    let Some((unit, times)) = decimal.rfind(|(_, times)| size >= *times) else { return "0 B".into() };
    let sign = if bytes < 0 { "-" } else { "" };
    // Rounded down, so that a full quota never looks as if it had free space.
    let tenths = u128::from(size) * 10 / u128::from(times);
    match tenths % 10 {
        0 => format!("{sign}{} {unit}", tenths / 10),
        tenth => format!("{sign}{}.{tenth} {unit}", tenths / 10),
    }
}

/// Whether a duration is added to the current time or subtracted from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ahead,
    Ago,
}

/// Parses a time to Unix milliseconds: `2026-12-31` (its beginning) or `2026-12-31T18:00`, both in UTC; `90d` after or
/// before `now`; or milliseconds.
pub fn parse_time(text: &str, now: Timestamp, side: Direction) -> Option<i64> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        return Some(ms);
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    }
    let plain = text.trim_end_matches('Z').replace(' ', "T");
    for form in ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"] {
        if let Ok(moment) = NaiveDateTime::parse_from_str(&plain, form) {
            return Some(moment.and_utc().timestamp_millis());
        }
    }
    let (number, unit) = number_and_unit(text);
    let (_, ms) = DURATIONS.into_iter().find(|(name, _)| *name == unit)?;
    let duration = number.parse::<i64>().ok()?.checked_mul(ms)?;
    match side {
        Direction::Ahead => now.0.checked_add(duration),
        Direction::Ago => now.0.checked_sub(duration),
    }
}

/// Formats a time in UTC: `2026-12-31 18:00`.
pub fn shown_moment(ms: i64) -> String {
    let moment = DateTime::from_timestamp_millis(ms);
    moment.map_or_else(|| ms.to_string(), |moment| moment.format("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1024", Some(1_024)),
            ("20GB", Some(20_000_000_000)),
            ("20 gb", Some(20_000_000_000)),
            ("1.5TB", Some(1_500_000_000_000)),
            ("1.5 TiB", Some(1_649_267_441_664)),
            ("7b", Some(7)),
            ("007", Some(7)),
            ("1.5", None),
            ("1.5B", None),
            (".5GB", None),
            ("+1", None),
            ("1,5GB", None),
            ("10 G B", None),
            ("1e3", None),
            ("٣GB", None),
            ("512MiB", Some(536_870_912)),
            ("0.5KiB", Some(512)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("20000PiB", None),
            ("20G", None),
            ("20.GB", None),
            ("-1", None),
            ("1.2.3GB", None),
            ("GB", None),
            ("", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn sizes_are_formatted() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 KB"),
            (10_737_418_240, "10.7 GB"),
            (20_000_000_000, "20 GB"),
            (999_999, "999.9 KB"),
            (-1_500, "-1.5 KB"),
            (i64::MIN, "-9223.3 PB"),
        ] {
            assert_eq!(shown_bytes(bytes), text);
        }
    }

    #[test]
    fn times_are_parsed_and_formatted() {
        let now = Timestamp(1_000_000_000_000);
        for (text, ahead, ago) in [
            ("1763740800000", Some(1_763_740_800_000), Some(1_763_740_800_000)),
            ("2026-12-31", Some(1_798_675_200_000), Some(1_798_675_200_000)),
            ("2026-12-31T18:00", Some(1_798_740_000_000), Some(1_798_740_000_000)),
            ("2026-12-31 18:00:00Z", Some(1_798_740_000_000), Some(1_798_740_000_000)),
            ("90d", Some(1_007_776_000_000), Some(992_224_000_000)),
            ("1w", Some(1_000_604_800_000), Some(999_395_200_000)),
            ("2026-02-30", None, None),
            ("soon", None, None),
            ("90", Some(90), Some(90)),
            ("90x", None, None),
            ("", None, None),
        ] {
            assert_eq!(parse_time(text, now, Direction::Ahead), ahead, "{text}");
            assert_eq!(parse_time(text, now, Direction::Ago), ago, "{text}");
        }
        assert_eq!(shown_moment(1_798_740_000_000), "2026-12-31 18:00");
    }
}
