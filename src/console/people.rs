//! Members as filters name them: by uid, by login, or by a part of a name that only one has; and the suggestions for
//! such fields.

use maud::Markup;
use serde_json::Value;

use super::client::{encoded, op};
use super::components::{self, Field, Picker, Text};
use super::i18n::words;
use super::list;
use super::visit::Visit;
use crate::kernel::error::Result;

words! {
    pub Words {
        hint: "Name, e-mail or id", "姓名、電子郵件或編號";
        nobody: "No member fits. Choose one of the suggestions.", "沒有符合的成員，請從建議中選擇。";
        several: "Several members fit. Choose one of the suggestions.", "有多位成員符合，請從建議中選擇。";
    }
}

/// Who is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    One(String),
    Nobody,
    Several,
}

impl Named {
    /// What is wrong, as the fault of a field.
    pub fn fault(&self, visit: &Visit) -> Option<&'static str> {
        let t = Words::of(visit.language);
        match self {
            Self::One(_) => None,
            Self::Nobody => Some(t.nobody),
            Self::Several => Some(t.several),
        }
    }
}

/// The limit of keywords of lists.
const KEYWORD_CHARS_MAX: usize = 200;

/// Finds the member that the text names, in the organization of the address or on the whole site. A login wins over a
/// part of a name.
pub async fn named(visit: &Visit, text: &str) -> Result<Named> {
    const CANDIDATES: usize = 20;
    if uuid::Uuid::parse_str(text).is_ok() {
        return Ok(Named::One(text.to_owned()));
    }
    if !visit.may("list_users") || text.chars().count() > KEYWORD_CHARS_MAX {
        return Ok(Named::Nobody);
    }
    let found = visit.call(op("list_users").query("keyword", text).query("limit", CANDIDATES)).await?.data;
    Ok(chosen(list::items(&found), text))
}

fn chosen(candidates: &[Value], text: &str) -> Named {
    let wanted = text.to_lowercase();
    let has_login = |user: &&Value| {
        let mut logins = ["username", "email"].into_iter().filter_map(|key| user[key].as_str());
        logins.any(|login| login.to_lowercase() == wanted)
    };
    let one = match candidates {
        [] => return Named::Nobody,
        [only] => Some(only),
        several => several.iter().find(has_login),
    };
    one.and_then(|user| user["id"].as_str()).map_or(Named::Several, |id| Named::One(id.to_owned()))
}

/// A field that names a member, with suggestions for who may list them.
pub fn field(visit: &Visit, name: &'static str, label: &str, faults: &[String]) -> Markup {
    let t = Words::of(visit.language);
    let about = Field::new(name, label).faults(faults);
    let value = visit.query(name).unwrap_or_default();
    let from = suggestions(visit, Some("member"));
    let control = if visit.may("list_users") {
        let picker = Picker { name, value, from: &from, is_required: false, placeholder: Some(t.hint) };
        components::picker_input(&about, &picker)
    } else {
        components::text_input(&about, &Text { name, value, ..Text::default() })
    };
    components::field(&about, control)
}

/// The address that suggests things of this kind, or of all, for a field.
pub fn suggestions(visit: &Visit, kind: Option<&str>) -> String {
    let mut address = format!("{}?as=options", visit.href("/console/search"));
    for (name, value) in [("kind", kind), ("org", visit.organization().map(|here| here.code.as_str()))] {
        if let Some(value) = value {
            address.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Named, chosen};

    #[test]
    fn a_login_wins_over_a_part_of_a_name() {
        let (kim, kimberly) =
            (json!({"id": "1", "username": "kim"}), json!({"id": "2", "email": "kimberly@example.org"}));
        let one = |id: &str| Named::One(id.to_owned());
        for (candidates, text, who) in [
            (vec![], "kim", Named::Nobody),
            (vec![kimberly.clone()], "kim", one("2")),
            (vec![kimberly.clone(), kim.clone()], "Kim", one("1")),
            (vec![kimberly.clone(), kim.clone()], "KIMBERLY@example.org", one("2")),
            (vec![kimberly, kim], "ki", Named::Several),
        ] {
            assert_eq!(chosen(&candidates, text), who, "{text}");
        }
    }
}
