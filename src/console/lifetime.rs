//! When keys, clients and invitations end: what forms ask for, and the moment that operations take.

use chrono::{DateTime, NaiveDate};

use super::i18n::{fill, words};
use super::visit::Visit;
use crate::kernel::ids::Timestamp;
use crate::kernel::units::{Direction, parse_time};

words! {
    Words {
        day: "1 day", "1 天";
        days: "{} days", "{} 天";
    }
}

/// The longest age at which a lifetime begins with its form.
const FORM_AGE_MAX_MS: i64 = 3_600_000;

/// Lifetimes to choose from, such as `30d`, with their texts.
pub fn choices(visit: &Visit, days: &[u32]) -> Vec<(String, String)> {
    let t = Words::of(visit.language);
    let text = |days: &u32| if *days == 1 { t.day.to_owned() } else { fill(t.days, &[days]) };
    days.iter().map(|days| (format!("{days}d"), text(days))).collect()
}

/// The end of a lifetime such as `30d`. It begins when the form was made, as its key tells, so that the same form is the
/// same request; for an old form, or a key that tells no time, it begins now.
pub fn end_of(lifetime: &str, once: Option<&str>) -> Option<i64> {
    let now = Timestamp::now();
    let made = once.and_then(made_at).filter(|made| (0..=FORM_AGE_MAX_MS).contains(&now.0.saturating_sub(made.0)));
    parse_time(lifetime, made.unwrap_or(now), Direction::Ahead)
}

/// When the key of a form was made, if it is one of the console: a UUID of version 7.
fn made_at(once: &str) -> Option<Timestamp> {
    let (seconds, nanos) = uuid::Uuid::parse_str(once).ok()?.get_timestamp()?.to_unix();
    let ms = i64::try_from(seconds).ok()?.checked_mul(1000)?;
    Some(Timestamp(ms.checked_add(i64::from(nanos / 1_000_000))?))
}

/// The last millisecond of a day such as `2026-12-31`, in UTC.
pub fn end_of_day(text: &str) -> Option<i64> {
    let day = text.parse::<NaiveDate>().ok()?;
    Some(day.and_hms_milli_opt(23, 59, 59, 999)?.and_utc().timestamp_millis())
}

/// The day of a moment, as date fields hold it.
pub fn day_of(ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(ms)?.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{day_of, end_of, end_of_day, made_at};
    use crate::kernel::ids::Timestamp;

    #[test]
    fn the_same_form_has_the_same_end() {
        let once = Uuid::now_v7().to_string();
        let made = made_at(&once).expect("a time");
        assert_eq!(end_of("1d", Some(&once)), Some(made.0 + 86_400_000));
        assert_eq!(end_of("1d", Some(&once)), end_of("1d", Some(&once)));
        assert!(made_at("b").is_none());
        // A form that was open for long gives a whole day all the same.
        let old = "01890000-0000-7000-8000-000000000000";
        let now = Timestamp::now().0;
        assert!(end_of("1d", Some(old)).is_some_and(|end| end >= now + 86_400_000));
    }

    #[test]
    fn a_day_lasts_to_its_end() {
        assert_eq!(end_of_day("2026-11-30"), Some(1_796_083_199_999));
        assert_eq!(day_of(1_796_083_199_999).as_deref(), Some("2026-11-30"));
        assert_eq!(end_of_day("30.11.2026"), None);
        assert_eq!(end_of_day("2026-02-30"), None);
    }
}
