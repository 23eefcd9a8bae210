//! The sentences of errors, and the messages of faulty fields, in the reader's language.
//!
//! The API writes English. Chinese has a sentence per error code, and a table of messages. A message that no table knows
//! stays as it is, since it says more than nothing.

mod messages;
mod sentences;

use maud::{Markup, html};

use super::Language;
use crate::kernel::error::{Error, ErrorCode};

/// The sentence of an error. Where the error says more than its code, in words that no table knows, a Chinese sentence is
/// followed by the original in parentheses.
pub fn sentence(error: &Error, language: Language) -> String {
    match (language, original(error)) {
        (Language::English, _) => english(error.message()),
        (Language::Chinese, None) => sentences::chinese(error.code).to_owned(),
        (Language::Chinese, Some(text)) => {
            chinese_message(text).unwrap_or_else(|| format!("{}（{text}）", sentences::chinese(error.code)))
        }
    }
}

/// The same as markup, in which the original is marked as English.
pub fn sentence_markup(error: &Error, language: Language) -> Markup {
    match (language, original(error)) {
        (Language::Chinese, Some(text)) if chinese_message(text).is_none() => html! {
            (sentences::chinese(error.code)) "（" span lang="en" { (text) } "）"
        },
        _ => html! { (sentence(error, language)) },
    }
}

/// The error's own message, if it differs from the message of its code.
fn original(error: &Error) -> Option<&str> {
    Some(error.message()).filter(|message| *message != error.code.message())
}

/// The message of a faulty field, as a sentence.
pub fn field_message(message: &str, language: Language) -> String {
    // The API writes what is wrong with a field without naming it.
    const VERBS: [&str; 8] = ["is", "has", "was", "goes", "requires", "cannot", "costs", "appears"];
    let first = message.split(' ').next().unwrap_or_default();
    match language {
        Language::English if VERBS.contains(&first) => english(&format!("this {message}")),
        Language::English => english(message),
        Language::Chinese => chinese_message(message).unwrap_or_else(|| message.to_owned()),
    }
}

fn chinese_message(message: &str) -> Option<String> {
    const MEANT: &str = " (did you mean ";
    let meant = message.strip_suffix("?)").and_then(|text| text.rsplit_once(MEANT));
    if let Some((plain, meant)) = meant {
        return Some(format!("{}您是不是要填「{meant}」？", chinese_message(plain)?));
    }
    let known = messages::ALL.iter().find_map(|(english, chinese)| {
        let values = values_of(english, message)?;
        let values: Vec<&dyn std::fmt::Display> = values.iter().map(|value| value as &dyn std::fmt::Display).collect();
        Some(super::fill(chinese, &values))
    });
    // Some fields carry the message of an error code.
    let of_code = || ErrorCode::ALL.iter().find(|code| code.message() == message).map(|code| sentences::chinese(*code));
    known.or_else(|| of_code().map(str::to_owned))
}

/// The values in the gaps `{}` of this template; `None` if the text is not made from it.
fn values_of<'t>(template: &str, text: &'t str) -> Option<Vec<&'t str>> {
    let mut parts = template.split("{}");
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut parts = parts.peekable();
    let mut values = Vec::new();
    while let Some(part) = parts.next() {
        let at = if part.is_empty() && parts.peek().is_none() { rest.len() } else { rest.find(part)? };
        values.push(&rest[..at]);
        rest = &rest[at + part.len()..];
    }
    rest.is_empty().then_some(values)
}

/// A message of the API as a sentence: with a capital and a full stop. A first word that is a name stays as it is.
fn english(message: &str) -> String {
    let first = message.split(' ').next().unwrap_or_default();
    let is_name = first.contains(['.', '_', '`', '/', '-']);
    let mut sentence = if is_name { message.to_owned() } else { capitalized(message) };
    if !sentence.is_empty() && !sentence.ends_with(['.', '?', '!', '…', ')']) {
        sentence.push('.');
    }
    sentence
}

/// The text with an upper-case first character.
pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::console::i18n::gap_count;

    #[test]
    fn every_code_has_one_sentence_in_chinese() {
        let known: HashSet<ErrorCode> = sentences::ALL.iter().map(|(code, _)| *code).collect();
        assert_eq!(known.len(), sentences::ALL.len());
        for code in ErrorCode::ALL {
            assert!(known.contains(code), "{}", code.as_str());
            assert!(sentences::chinese(*code).ends_with('。'), "{}", code.as_str());
        }
    }

    #[test]
    fn sentences_follow_the_language_and_keep_what_the_error_says() {
        let error = Error::new(ErrorCode::WrongPassword);
        assert_eq!(sentence(&error, Language::English), "The current password is wrong.");
        assert_eq!(sentence(&error, Language::Chinese), "目前的密碼不正確。");
        let error = error.with_message("<b> is wrong");
        assert_eq!(sentence(&error, Language::English), "<b> is wrong.");
        assert_eq!(sentence(&error, Language::Chinese), "目前的密碼不正確。（<b> is wrong）");
        assert_eq!(
            sentence_markup(&error, Language::Chinese).into_string(),
            "目前的密碼不正確。（<span lang=\"en\">&lt;b&gt; is wrong</span>）"
        );
        let known =
            Error::new(ErrorCode::Forbidden).with_message("this is more than your whole organization may store");
        assert_eq!(sentence(&known, Language::Chinese), "這超過您整個組織的儲存上限。");
        assert_eq!(sentence_markup(&known, Language::Chinese).into_string(), "這超過您整個組織的儲存上限。");
        let named = Error::new(ErrorCode::DatabaseDamaged).with_message("roster.db is damaged");
        assert_eq!(sentence(&named, Language::English), "roster.db is damaged.");
    }

    #[test]
    fn messages_have_the_same_gaps_in_both_languages_and_stand_once() {
        let mut seen = HashSet::new();
        for (english, chinese) in messages::ALL {
            assert_eq!(gap_count(english), gap_count(chinese), "{english}");
            assert!(seen.insert(english), "{english}");
            assert!(chinese.ends_with('。'), "{english}");
        }
    }

    #[test]
    fn messages_of_fields_are_translated_with_their_values() {
        for (message, english, chinese) in [
            ("is missing", "This is missing.", "這個欄位必填。"),
            ("must have at least 8 characters", "Must have at least 8 characters.", "至少需要 8 個字元。"),
            ("must be 0 or more", "Must be 0 or more.", "不可小於 0。"),
            (
                "must be one of open, close (did you mean close?)",
                "Must be one of open, close (did you mean close?)",
                "必須是下列之一：open, close。您是不是要填「close」？",
            ),
            (
                "a member with this e-mail exists already",
                "A member with this e-mail exists already.",
                "已經有使用這個電子郵件的成員。",
            ),
            ("says something new", "Says something new.", "says something new"),
            ("", "", ""),
        ] {
            assert_eq!(field_message(message, Language::English), english);
            assert_eq!(field_message(message, Language::Chinese), chinese);
        }
    }

    #[test]
    fn the_rules_of_passwords_and_patterns_are_translated() {
        for password in ["short", "abcdefgh", "Abcdefgh", &"a".repeat(300), "Welcome123!"] {
            for fault in crate::features::members::password::faults(password) {
                assert_ne!(field_message(&fault, Language::Chinese), fault);
            }
        }
        for pattern in ["^[0-9]{6}$", r"^[^\x00-\x1f\x7f]+$", "^[a-z0-9][a-z0-9._-]*$", "^[0-9a-fA-F]+$"] {
            let message = crate::kernel::http::request_validator::pattern_message(pattern).expect("a message");
            assert_ne!(field_message(message, Language::Chinese), message);
        }
    }
}
