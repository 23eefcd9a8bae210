//! Labels and explanations of the properties that forms have, and texts of closed sets.

mod labels;
mod values;

use super::Language;
use super::errors::capitalized;

/// The label of a property, such as "Display name".
pub fn label(name: &str, language: Language) -> String {
    match labels::ALL.iter().find(|(known, ..)| *known == name) {
        Some((_, english, chinese)) => language.pick(english, chinese).to_owned(),
        None => readable(name),
    }
}

/// The explanation of a field: a text of the console, else in English the first sentence of `about`, the description in
/// the OpenAPI document.
pub fn about(name: &str, about: &str, language: Language) -> Option<String> {
    if let Some((_, english, chinese)) = labels::EXPLANATIONS.iter().find(|(known, ..)| *known == name) {
        return Some(language.pick(english, chinese).to_owned());
    }
    let first = first_sentence(about);
    // A form has no null, and dates are chosen.
    let is_for_programs =
        ["null", "Unix milliseconds"].iter().any(|word| first.contains(word)) || first.starts_with("Null");
    (language == Language::English && !first.is_empty() && !is_for_programs).then_some(first)
}

/// The text of a value of a closed set, such as "Suspended".
pub fn value(value: &str, language: Language) -> String {
    match values::ALL.iter().find(|(known, ..)| *known == value) {
        Some((_, english, chinese)) => language.pick(english, chinese).to_owned(),
        None => readable(value),
    }
}

/// The `autocomplete` of a field.
pub fn autocomplete(name: &str, html_type: &str) -> &'static str {
    match (name, html_type) {
        ("login" | "username", _) => "username",
        ("email", _) => "email",
        ("new_password", _) => "new-password",
        (_, "password") => "current-password",
        ("code", _) => "one-time-code",
        ("display_name", _) => "name",
        _ => "off",
    }
}

/// A name of the API as words.
fn readable(name: &str) -> String {
    capitalized(&name.replace('_', " "))
}

/// The first sentence of a description, without the marks of code.
fn first_sentence(text: &str) -> String {
    let line = text.replace('\n', " ").replace('`', "");
    let end = [". ", "; ", ": "].iter().filter_map(|mark| line.find(mark)).min();
    let first = line[..end.unwrap_or(line.len())].trim_end_matches('.');
    if first.is_empty() { String::new() } else { format!("{first}.") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::console::schema;

    fn document() -> serde_json::Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        serde_json::from_str(&std::fs::read_to_string(path).expect("the document")).expect("JSON")
    }

    #[test]
    fn tables_name_everything_once() {
        for table in [labels::ALL, labels::EXPLANATIONS, values::ALL] {
            let names: HashSet<&str> = table.iter().map(|(name, ..)| *name).collect();
            assert_eq!(names.len(), table.len());
        }
    }

    #[test]
    fn every_property_of_a_request_has_a_label() {
        // Operations for programs, which have no page.
        const FOR_PROGRAMS: [&str; 11] = [
            "claim_jobs",
            "complete_job",
            "fail_job",
            "heartbeat_job",
            "create_reservation",
            "commit_reservation",
            "register_video",
            "ensure_authentik_user",
            "upsert_member_by_sub",
            "refresh",
            "exchange_oidc_code",
        ];
        let known: HashSet<&str> = labels::ALL.iter().map(|(name, ..)| *name).collect();
        for (id, operation) in schema::read(&document()) {
            for field in operation.fields.iter().filter(|_| !FOR_PROGRAMS.contains(&id.as_str())) {
                assert!(known.contains(field.name.as_str()), "{id}: {}", field.name);
            }
        }
    }

    #[test]
    fn every_choice_of_a_request_has_a_text() {
        let known: HashSet<&str> = values::ALL.iter().map(|(name, ..)| *name).collect();
        for (id, operation) in schema::read(&document()) {
            for field in &operation.fields {
                if let schema::FieldKind::Choice(values) | schema::FieldKind::List(values) = &field.kind {
                    for value in values {
                        assert!(known.contains(value.as_str()), "{id}: {}: {value}", field.name);
                    }
                }
            }
        }
    }

    #[test]
    fn labels_and_explanations_follow_the_language() {
        assert_eq!(label("display_name", Language::English), "Display name");
        assert_eq!(label("display_name", Language::Chinese), "顯示名稱");
        assert_eq!(label("never_seen", Language::Chinese), "Never seen");
        assert_eq!(about("never_seen", "In `bytes`; null removes it", Language::English).as_deref(), Some("In bytes."));
        assert_eq!(about("never_seen", "In bytes", Language::Chinese), None);
        assert_eq!(about("never_seen", "Null removes it", Language::English), None);
        assert_eq!(about("never_seen", "", Language::English), None);
        assert!(about("org_code", "", Language::Chinese).is_some());
        assert_eq!(value("suspended", Language::Chinese), "停權");
        assert_eq!(value("not_known", Language::English), "Not known");
    }
}
