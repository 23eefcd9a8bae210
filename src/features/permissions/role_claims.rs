//! External keys, and the setting `role_claims`: which claims of a provider contain roles or groups, and how their values are read.
//!
//! A role claim is the name of a claim, or a path into a claim with dots between the names: `groups`,
//! `realm_access.roles`, `resource_access.my-client.roles`, `https://example.org/roles`. A claim with the whole name
//! takes precedence over a path. Strings, numbers and lists of them are external keys. The property names of an object
//! are external keys only if the role claim ends in `.*`, or for Zitadel's claims, whose names begin with
//! `urn:zitadel:`.

use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization;

use crate::features::permissions::Source;
use crate::kernel::config::providers::Provider;
use crate::kernel::outbound::{is_true, text_of};

/// Prefix of the names of Zitadel's claims. Their keys also match mappings with the source `zitadel`.
const ZITADEL: &str = "urn:zitadel:";
const NAMES_INSIDE: &str = ".*";

/// A role claim of the settings.
#[derive(Debug, Clone, Copy)]
pub struct RoleClaim<'a> {
    path: &'a str,
    /// Whether the property names of an object are external keys.
    is_by_name: bool,
}

/// The result of looking up a role claim in documents.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Keys(Vec<String>),
    Absent,
    /// The claim is kept elsewhere or cannot be read, so its keys are unknown. Holds the reason.
    Unknown(&'static str),
}

impl<'a> RoleClaim<'a> {
    pub fn of(configured: &'a str) -> Self {
        let path = configured.strip_suffix(NAMES_INSIDE).unwrap_or(configured);
        Self { path, is_by_name: path.len() < configured.len() || is_of_zitadel(configured) }
    }

    /// Returns the keys from the first document that has the claim. If none has it, a document can still say that the
    /// provider keeps the claim elsewhere.
    pub fn find<'v>(&self, documents: impl Iterator<Item = &'v Map<String, Value>> + Clone) -> Found {
        match documents.clone().find_map(|document| value_at(document, self.path)) {
            Some(value) => match self.keys(value) {
                Some(keys) => Found::Keys(keys),
                None => Found::Unknown("it is an object: its property names are keys only with .* after the claim"),
            },
            None if documents.clone().any(|document| self.is_elsewhere(document)) => {
                Found::Unknown("the provider keeps it elsewhere, which happens when a user has many groups")
            }
            None => Found::Absent,
        }
    }

    /// Whether a document says that the claim is kept elsewhere, as in OpenID Connect Core 5.6.2 or as Entra does.
    fn is_elsewhere(&self, document: &Map<String, Value>) -> bool {
        let names_claim =
            |name: &str| self.path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let names = document.get("_claim_names").and_then(Value::as_object);
        names.is_some_and(|names| names.keys().any(|name| names_claim(name)))
            || (names_claim("groups") && document.get("hasgroups").is_some_and(is_true))
    }

    fn keys(&self, value: &Value) -> Option<Vec<String>> {
        match value {
            Value::Array(list) => Some(list.iter().flat_map(|element| self.keys_of_element(element)).collect()),
            Value::Object(map) if self.is_by_name => Some(map.keys().cloned().collect()),
            Value::Object(_) => None,
            single => Some(text_of(single).into_iter().collect()),
        }
    }

    /// Returns the keys of one list element. Zitadel documents lists of objects whose values are objects.
    fn keys_of_element(&self, element: &Value) -> Vec<String> {
        match element {
            Value::Object(map) if self.is_by_name => {
                map.iter().filter(|(_, value)| value.is_object()).map(|(key, _)| key.clone()).collect()
            }
            single => text_of(single).into_iter().collect(),
        }
    }
}

/// Whether a role claim is one of Zitadel's, by its name.
pub fn is_of_zitadel(configured: &str) -> bool {
    configured.starts_with(ZITADEL)
}

/// Returns the role claims whose keys belong to a source.
pub fn of_source(providers: &[Provider], source: Source) -> Vec<&str> {
    let all = providers.iter().flat_map(|provider| &provider.role_claims).map(String::as_str);
    match source {
        Source::Oidc => all.collect(),
        Source::Zitadel => all.filter(|name| is_of_zitadel(name)).collect(),
        Source::Manual | Source::Ldap | Source::Scim | Source::Wordpress => Vec::new(),
    }
}

/// Returns the value at a path. Names can contain dots: the longest name that exists is followed first.
fn value_at<'v>(object: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(value) = object.get(path) {
        return Some(value).filter(|value| !value.is_null());
    }
    path.rmatch_indices('.').find_map(|(at, _)| value_at(object.get(&path[..at])?.as_object()?, &path[at + 1..]))
}

// ── External keys: the names of groups and roles at an external system ──
//
// **Invariant.** Two keys are equal if [`normalized`] normalizes them to the same text: Unicode NFC, case-sensitive.
// An LDAP distinguished name is compared as one: case-insensitive, regardless of spaces around separators and of how
// characters are escaped. Mappings are stored in normalized form.

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
    use serde_json::json;

    use super::*;

    fn find(configured: &str, documents: &[Value]) -> Found {
        RoleClaim::of(configured).find(documents.iter().filter_map(Value::as_object))
    }

    fn keys(list: &[&str]) -> Found {
        Found::Keys(list.iter().map(|key| (*key).to_owned()).collect())
    }

    #[test]
    fn a_role_claim_is_a_name_or_a_path() {
        let document = json!({
            "groups": ["a", 7, true, null, ["x"], {"y": {}}],
            "team": "film",
            "level": 3,
            "https://example.org/roles": ["by url"],
            "dotted.name": ["whole"],
            "dotted": {"name": ["path"]},
            "realm_access": {"roles": ["editors"]},
            "resource_access": {"my.client": {"roles": ["r1"]}, "my": {"client": {"roles": ["r2"]}, "roles": ["r3"]}},
            "nothing": null,
        });
        let found = |configured: &str| find(configured, std::slice::from_ref(&document));
        for (configured, expected) in [
            ("groups", keys(&["a", "7", "true"])),
            ("team", keys(&["film"])),
            ("level", keys(&["3"])),
            ("https://example.org/roles", keys(&["by url"])),
            ("dotted.name", keys(&["whole"])),
            ("realm_access.roles", keys(&["editors"])),
            ("resource_access.my.client.roles", keys(&["r1"])),
            ("resource_access.my.roles", keys(&["r3"])),
            ("realm_access.*", keys(&["roles"])),
            ("nothing", Found::Absent),
            ("realm_access.groups", Found::Absent),
            ("team.film", Found::Absent),
            ("realm_access.", Found::Absent),
            (".", Found::Absent),
            ("", Found::Absent),
        ] {
            assert_eq!(found(configured), expected, "{configured}");
        }
        assert!(matches!(found("realm_access"), Found::Unknown(_)));
    }

    #[test]
    fn property_names_are_keys_only_with_the_suffix_or_for_zitadel() {
        let roles = "urn:zitadel:iam:org:project:roles";
        let object = json!({"editor": {"1234": "acme.example.org"}});
        let list = json!([{"editor": {"1": "a"}}, {"name": "x"}, "b"]);
        for (configured, name, value, expected) in [
            (roles, roles, &object, keys(&["editor"])),
            (roles, roles, &list, keys(&["editor", "b"])),
            ("r.*", "r", &object, keys(&["editor"])),
            ("r.*", "r", &list, keys(&["editor", "b"])),
            ("r", "r", &list, keys(&["b"])),
        ] {
            assert_eq!(find(configured, &[json!({name: value})]), expected, "{configured} {value}");
        }
        assert!(matches!(find("r", &[json!({"r": object})]), Found::Unknown(_)));
    }

    #[test]
    fn a_claim_that_is_kept_elsewhere_is_not_absent() {
        let by_name = json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example.org/x"}}});
        for (document, claim, is_known) in [
            (by_name.clone(), "groups", false),
            (by_name.clone(), "groups.names", false),
            (by_name.clone(), "groupsets", true),
            (by_name.clone(), "roles", true),
            (json!({"hasgroups": true}), "groups", false),
            (json!({"hasgroups": "true"}), "groups", false),
            (json!({"hasgroups": false}), "groups", true),
            (json!({"hasgroups": true}), "roles", true),
            (json!({"_claim_names": ["groups"]}), "groups", true),
        ] {
            let found = find(claim, std::slice::from_ref(&document));
            assert_eq!(found == Found::Absent, is_known, "{document} {claim}: {found:?}");
        }
        assert_eq!(find("groups", &[by_name, json!({"groups": ["b"]})]), keys(&["b"]));
    }
}

#[cfg(test)]
mod key_tests {
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
