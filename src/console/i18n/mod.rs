//! The languages of the console, and the table macro that holds each text in both.

pub mod actions;
pub mod catalog;
pub mod connections;
pub mod errors;
pub mod events;
pub mod fields;
pub mod frame;
pub mod grid;
pub mod permissions;
pub mod plugins;
pub mod roles;
pub mod scopes;
pub mod settings;
pub mod site;
pub mod usage;
pub mod why;

use poem::http::HeaderMap;
use poem::http::header::ACCEPT_LANGUAGE;

/// A language of the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    /// Traditional Chinese, for every preference that begins with `zh`.
    Chinese,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// The value of `<html lang>` and of the cookie.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-TW",
        }
    }

    /// The language of a language tag; `None` for one that the console does not speak.
    pub fn parse(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next().unwrap_or_default();
        match primary.to_ascii_lowercase().as_str() {
            "en" => Some(Self::English),
            "zh" => Some(Self::Chinese),
            _ => None,
        }
    }

    /// The first supported language of `Accept-Language`, by weight.
    pub fn of_browser(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(ACCEPT_LANGUAGE)?.to_str().ok()?;
        let mut wanted: Vec<(f32, Self)> = text
            .split(',')
            .filter_map(|part| {
                let (tag, weight) = part.split_once(";q=").unwrap_or((part, "1"));
                let weight = weight.trim().parse::<f32>().ok().filter(|weight| *weight > 0.0)?;
                Some((weight, Self::parse(tag.trim())?))
            })
            .collect();
        // Stable, so that the order of the header decides between equal weights.
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        wanted.first().map(|(_, language)| *language)
    }

    /// The text in this language.
    pub const fn pick(self, english: &'static str, chinese: &'static str) -> &'static str {
        match self {
            Self::English => english,
            Self::Chinese => chinese,
        }
    }
}

/// Defines a table of texts, one line per text: `name: "English {}", "中文 {}";`. Both texts must have the same number of
/// gaps `{}`, or the program does not compile. `Name::of(language)` returns the texts of one language.
macro_rules! words {
    ($(#[$about:meta])* $visibility:vis $name:ident { $($key:ident: $english:literal, $chinese:literal;)* }) => {
        $(#[$about])*
        $visibility struct $name { $(pub $key: &'static str,)* }

        impl $name {
            pub const fn of(language: $crate::console::i18n::Language) -> &'static Self {
                const ENGLISH: $name = $name { $($key: $english,)* };
                const CHINESE: $name = $name { $($key: $chinese,)* };
                match language {
                    $crate::console::i18n::Language::English => &ENGLISH,
                    $crate::console::i18n::Language::Chinese => &CHINESE,
                }
            }
        }

        $(const _: () = assert!(
            $crate::console::i18n::gap_count($english) == $crate::console::i18n::gap_count($chinese),
            "both texts must have the same gaps"
        );)*
    };
}
pub(crate) use words;

/// The number of gaps `{}` in a text.
pub const fn gap_count(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut count, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        if bytes[at] == b'{' && bytes[at + 1] == b'}' {
            count += 1;
        }
        at += 1;
    }
    count
}

/// Fills the gaps `{}` of a text, in order.
pub fn fill(text: &str, values: &[&dyn std::fmt::Display]) -> String {
    let mut filled = String::with_capacity(text.len() + 16 * values.len());
    let mut parts = text.split("{}");
    filled.push_str(parts.next().unwrap_or_default());
    for (n, part) in parts.enumerate() {
        if let Some(value) = values.get(n) {
            filled.push_str(&value.to_string());
        }
        filled.push_str(part);
    }
    filled
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderMap, HeaderValue};

    use super::{Language, fill, gap_count};

    #[test]
    fn the_browser_chooses_by_weight() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept-language", HeaderValue::from_str(text).expect("a header"));
            Language::of_browser(&headers)
        };
        assert_eq!(of("zh-TW,zh;q=0.9,en;q=0.8"), Some(Language::Chinese));
        assert_eq!(of("fr, en;q=0.5, zh;q=0.4"), Some(Language::English));
        assert_eq!(of("de"), None);
        assert_eq!(of("en;q=0, zh_HK"), Some(Language::Chinese));
        assert_eq!(of("q=;;,"), None);
    }

    #[test]
    fn gaps_are_filled_in_order() {
        assert_eq!(fill("{} of {}", &[&1, &"two"]), "1 of two");
        assert_eq!(fill("{}{}", &[&1]), "1");
        assert_eq!((gap_count("{} {}"), gap_count("{a}"), gap_count("")), (2, 0, 0));
    }
}
