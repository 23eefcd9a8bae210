//! The setting `role_claims`: which claims of a provider contain roles or groups, and how their values are read.
//!
//! A role claim is the name of a claim, or a path into a claim with dots between the names: `groups`,
//! `realm_access.roles`, `resource_access.my-client.roles`, `https://example.org/roles`. A claim with the whole name
//! takes precedence over a path. Strings, numbers and lists of them are external keys. The property names of an object
//! are external keys only if the role claim ends in `.*`, or for Zitadel's claims, whose names begin with
//! `urn:zitadel:`.

use serde_json::{Map, Value};

use super::Source;
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
