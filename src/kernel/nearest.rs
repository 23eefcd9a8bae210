//! "Did you mean …?": finds the known word that is most similar to a misspelled one, as clap does for commands and
//! flags.

/// Words with a lower similarity are not suggested.
const SIMILARITY_MIN: f64 = 0.65;

/// Returns the known word that is most similar to this one, if any is similar enough.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let similarity = |known: &str| {
        // `port` for `mail.port`: people often remember only the last part.
        let is_last_part = known.rsplit(['.', ':']).next() == Some(word.as_str());
        // `warning` for `warn`.
        let is_longer = known.len() > 3 && word.starts_with(&known.to_lowercase());
        if is_last_part || is_longer {
            0.9
        } else {
            strsim::normalized_damerau_levenshtein(&word, &known.to_lowercase())
        }
    };
    let near = known
        .into_iter()
        .map(|known| (similarity(known), known))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
    near.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, known)| known)
}

/// The suggestion to append to an error about an unknown word; empty if no known word is similar.
pub fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(word, known).map_or_else(String::new, |known| format!(" (did you mean {known}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_similar_word_is_suggested() {
        let known = ["listen", "public_url", "mail.port", "members:read", "members:write", "quota.default_bytes"];
        for (word, expected) in [
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
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
