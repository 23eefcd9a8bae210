//! "Did you mean …?": finds the known word that is most similar to a misspelled one. For commands and flags clap does
//! the same.

/// Below this two words are different words.
const LIKENESS_MIN: f64 = 0.65;

/// The known word that is most like this one, if any is like it.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let likeness = |known: &str| {
        // `port` for `mail.port`: the last part alone is what people remember.
        let is_last_part = known.rsplit(['.', ':']).next() == Some(word.as_str());
        // `warning` for `warn`.
        let is_longer = known.len() > 3 && word.starts_with(&known.to_lowercase());
        if is_last_part || is_longer {
            0.9
        } else {
            strsim::normalized_damerau_levenshtein(&word, &known.to_lowercase())
        }
    };
    let near =
        known.into_iter().map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    near.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, known)| known)
}

/// The question to put behind a sentence about an unknown word; empty where nothing is like it.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(word, known).map_or_else(String::new, |known| format!(" (did you mean {known}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_is_found_and_no_other() {
        let known = ["listen", "public_url", "mail.port", "members:read", "members:write", "quota.default_bytes"];
        for (word, meant) in [
            ("listne", Some("listen")),
            ("Listen", Some("listen")),
            ("publicurl", Some("public_url")),
            ("port", Some("mail.port")),
            ("member:read", Some("members:read")),
            ("members:writes", Some("members:write")),
            ("quota.default_byte", Some("quota.default_bytes")),
            ("listening", Some("listen")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
