//! External keys: the names of groups and roles at an external system.
//!
//! **Invariant.** Two keys are equal if [`normalized`] normalizes them to the same text: Unicode NFC, case-sensitive.
//! An LDAP distinguished name is compared as one: case-insensitive, regardless of spaces around separators and of how
//! characters are escaped. Mappings are stored in normalized form.

use unicode_normalization::UnicodeNormalization;

/// The most characters of a key, from any source.
pub const CHARACTERS_MAX: usize = 256;

/// The most keys of one member from one source.
pub const COUNT_MAX: usize = 1_000;

/// Whether a text is a valid key, by the same rules as the API's `ExternalKey`.
pub fn is_key(text: &str) -> bool {
    let is_control = |c: char| c < '\u{20}' || c == '\u{7f}';
    !text.is_empty() && text.chars().count() <= CHARACTERS_MAX && !text.contains(is_control)
}

/// Returns the normalized form in which keys are stored and compared.
pub fn normalized(key: &str) -> String {
    let key: String = key.nfc().collect();
    distinguished_name(&key).unwrap_or(key)
}

/// A character of a distinguished name. An escaped character is not a separator.
#[derive(Clone, Copy)]
struct Unit {
    character: char,
    is_escaped: bool,
}

impl Unit {
    fn is_plain(self, character: char) -> bool {
        !self.is_escaped && self.character == character
    }
}

/// Normalizes a distinguished name (RFC 4514): at least two `type=value` pairs, separated by commas. `None` for other
/// texts.
fn distinguished_name(text: &str) -> Option<String> {
    let units = units(text)?;
    let parts: Vec<&[Unit]> = units.split(|unit| unit.is_plain(',')).collect();
    if parts.len() < 2 {
        return None;
    }
    let parts = parts.into_iter().map(|part| {
        let values = part.split(|unit| unit.is_plain('+')).map(normalized_pair);
        let mut values = values.collect::<Option<Vec<String>>>()?;
        values.sort();
        Some(values.join("+"))
    });
    Some(parts.collect::<Option<Vec<String>>>()?.join(","))
}

/// Resolves escapes and quotes. `None` if an escape or a quote is not complete.
fn units(text: &str) -> Option<Vec<Unit>> {
    let mut units = Vec::new();
    let mut rest = text.chars();
    let mut is_quoted = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                let mut bytes = Vec::new();
                let mut ahead = rest.clone();
                while let Some(byte) = hex_pair(&mut ahead) {
                    bytes.push(byte);
                    rest = ahead.clone();
                    if ahead.next() != Some('\\') {
                        break;
                    }
                }
                let escaped =
                    if bytes.is_empty() { rest.next()?.to_string() } else { String::from_utf8(bytes).ok()? };
                units.extend(escaped.chars().map(|character| Unit { character, is_escaped: true }));
            }
            '"' => is_quoted = !is_quoted,
            character => units.push(Unit { character, is_escaped: is_quoted }),
        }
    }
    (!is_quoted).then_some(units)
}

fn hex_pair(text: &mut std::str::Chars<'_>) -> Option<u8> {
    let (high, low) = (text.next()?.to_digit(16)?, text.next()?.to_digit(16)?);
    u8::try_from(high * 16 + low).ok()
}

/// Normalizes one `type=value` pair.
fn normalized_pair(units: &[Unit]) -> Option<String> {
    let at = units.iter().position(|unit| unit.is_plain('='))?;
    let (kind, value) = (trimmed(&units[..at]), trimmed(&units[at + 1..]));
    let begins_well = kind.first().is_some_and(|unit| unit.character.is_ascii_alphanumeric());
    let is_of_type =
        |unit: &Unit| !unit.is_escaped && (unit.character.is_ascii_alphanumeric() || "-.".contains(unit.character));
    if !begins_well || !kind.iter().all(is_of_type) {
        return None;
    }
    let kind: String = kind.iter().map(|unit| unit.character.to_ascii_lowercase()).collect();
    // A value that begins with an unescaped # is in hexadecimal.
    let is_binary = value.first().is_some_and(|unit| unit.is_plain('#'));
    let lower: String = value.iter().flat_map(|unit| unit.character.to_lowercase()).collect();
    let lower: String = lower.nfc().collect();
    let last = lower.chars().count().saturating_sub(1);
    let mut escaped_value = String::new();
    for (n, character) in lower.chars().enumerate() {
        let is_at_the_edge = (character == ' ' && (n == 0 || n == last)) || (character == '#' && n == 0 && !is_binary);
        if is_at_the_edge || ",+\"\\<>;=".contains(character) {
            escaped_value.push('\\');
        }
        escaped_value.push(character);
    }
    Some(format!("{kind}={escaped_value}"))
}

fn trimmed(mut units: &[Unit]) -> &[Unit] {
    while let [first, rest @ ..] = units
        && first.is_plain(' ')
    {
        units = rest;
    }
    while let [rest @ .., last] = units
        && last.is_plain(' ')
    {
        units = rest;
    }
    units
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_equal_by_their_normalized_form() {
        for (one, other, are_same) in [
            ("editors", "editors", true),
            ("editors", "Editors", false),
            ("editors", " editors", false),
            // Composed and decomposed.
            ("caf\u{e9}", "cafe\u{301}", true),
            ("\u{f900}", "\u{8c48}", true),
            ("\u{ff21}", "A", false),
            ("CN=Editors,OU=Groups,DC=example,DC=org", "cn=editors, ou=groups, dc=EXAMPLE,dc=org", true),
            ("cn = a , dc=x", "CN=a,DC=x", true),
            ("cn=a b,dc=x", "cn=ab,dc=x", false),
            ("cn=Doe\\, Kim,dc=x", "cn=doe\\2c kim,dc=x", true),
            ("cn=\"Doe, Kim\",dc=x", "cn=doe\\, kim,dc=x", true),
            ("cn=caf\\c3\\a9,dc=x", "CN=CAF\u{c9},dc=x", true),
            ("cn=a+uid=b,dc=x", "uid=B+cn=a,dc=x", true),
            ("cn=a,dc=x", "dc=x,cn=a", false),
            ("cn=#0405,dc=x", "cn=\\#0405,dc=x", false),
            ("2.5.4.3=a,dc=x", "2.5.4.3=A,dc=x", true),
            // A single pair, or a text that only looks like a distinguished name, is an ordinary key.
            ("team=Film", "team=film", false),
            ("a=b,", "A=b,", false),
            ("a=b,c", "A=b,c", false),
            ("=b,c=d", "=B,c=d", false),
            ("a=b,c=d\\", "A=b,c=d\\", false),
            ("a=\"b,c=d", "A=\"b,c=d", false),
        ] {
            assert_eq!(normalized(one) == normalized(other), are_same, "{one} {other}");
        }
    }

    #[test]
    fn a_key_at_its_limit_and_one_past_it() {
        assert!(is_key("x") && is_key(&"é".repeat(CHARACTERS_MAX)));
        for no_key in ["", "a\nb", "a\u{7f}", &"x".repeat(CHARACTERS_MAX + 1)] {
            assert!(!is_key(no_key), "{no_key}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn normalizing_twice_changes_nothing(text in "[a-cA-C=, +\"\\\\#0-9\u{e9}\u{301}\u{130}]{0,16}") {
            let once = normalized(&text);
            prop_assert_eq!(normalized(&once), once);
        }
    }
}
