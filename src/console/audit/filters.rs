//! The filters of the audit log: actions by their words, people and things by their names.

use std::collections::BTreeSet;

use chrono::{Days, NaiveDate};

use super::entries::{label, label_in};
use crate::console::client::Call;
use crate::console::i18n::{Language, actions};
use crate::console::people::{self, Named};
use crate::console::visit::Visit;
use crate::kernel::error::Result;
use crate::kernel::nearest::nearest;

/// All filters of the address.
pub const NAMES: [&str; 7] = ["actor", "action", "target", "organization", "outcome", "from", "to"];
/// The parameters of the address that the operations take as they are.
const AS_THEY_ARE: [&str; 2] = ["organization", "outcome"];
/// Longer texts name nothing.
const TEXT_CHARS_MAX: usize = 200;
/// The actions that are offered for a text that names none.
const MEANT: usize = 5;
/// The labels that say which actions a text stands for.
const LABELS: usize = 8;

/// The filters of the address, as the operations take them.
pub struct Filters {
    parameters: Vec<(&'static str, String)>,
    /// The actions that are looked for.
    pub acts: Option<Acts>,
    /// What is wrong with the person who acted.
    pub actor_faults: Vec<String>,
    /// What is wrong with the person to whom it was done.
    pub target_faults: Vec<String>,
}

/// The actions that a text stands for.
pub struct Acts {
    pub text: String,
    /// Their codes; empty if the console knows none of this name.
    pub codes: Vec<String>,
}

impl Filters {
    pub async fn of(visit: &Visit) -> Result<Self> {
        let acts = visit.query("action").map(|text| Acts::of(visit, text));
        let mut filters = Self { parameters: Vec::new(), acts, actor_faults: Vec::new(), target_faults: Vec::new() };
        for name in AS_THEY_ARE {
            if let Some(value) = visit.query(name) {
                filters.parameters.push((name, value.to_owned()));
            }
        }
        filters.parameters.extend(filters.acts.as_ref().map(|acts| ("action", acts.parameter())));
        if let Some(text) = visit.query("actor") {
            // A program is named by its key, the command line by `cli`.
            let (id, faults) = id_of(visit, text).await?;
            filters.parameters.push(("actor", id));
            filters.actor_faults = faults;
        }
        if let Some(text) = visit.query("target") {
            let (id, faults) = id_of(visit, text).await?;
            filters.parameters.push(("target", id));
            filters.target_faults = faults;
        }
        let day = |name: &str| visit.query(name).and_then(|text| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok());
        let after = |date: NaiveDate| date.checked_add_days(Days::new(1));
        for (name, date) in [("since", day("from")), ("until", day("to").and_then(after))] {
            let start = date.and_then(|date| date.and_hms_opt(0, 0, 0));
            filters.parameters.extend(start.map(|at| (name, at.and_utc().timestamp_millis().to_string())));
        }
        Ok(filters)
    }

    pub fn on(&self, call: Call) -> Call {
        self.parameters.iter().fold(call, |call, (name, value)| call.query(name, value))
    }
}

/// The id of the member that the text names, else the text, with what is wrong with it.
async fn id_of(visit: &Visit, text: &str) -> Result<(String, Vec<String>)> {
    let who = people::named(visit, text).await?;
    Ok(match &who {
        Named::One(uid) => (uid.clone(), Vec::new()),
        Named::Nobody => (text.to_owned(), Vec::new()),
        Named::Several => (text.to_owned(), who.fault(visit).map(str::to_owned).into_iter().collect()),
    })
}

impl Acts {
    fn of(visit: &Visit, text: &str) -> Self {
        let all: Vec<(String, Vec<String>)> = codes(visit)
            .into_iter()
            .map(|code| {
                let words = Language::ALL.into_iter().map(|language| label_in(visit, &code, language));
                let words = words.map(|words| words.to_lowercase()).collect();
                (code, words)
            })
            .collect();
        Self { text: text.chars().take(TEXT_CHARS_MAX).collect(), codes: fitting(&all, text) }
    }

    /// What the operations take. An action that the console does not know can still be in the log.
    fn parameter(&self) -> String {
        if self.codes.is_empty() { self.text.clone() } else { self.codes.join(",") }
    }

    /// What the field shows: the words of the only action, else what was typed.
    pub fn shown(&self, visit: &Visit) -> String {
        match &self.codes[..] {
            [code] => label(visit, code),
            _ => self.text.clone(),
        }
    }

    /// The different words of the actions, of which the last is `…` if there are many.
    pub fn labels(&self, visit: &Visit) -> Vec<String> {
        let all: BTreeSet<String> = self.codes.iter().map(|code| label(visit, code)).collect();
        let more = (all.len() > LABELS).then(|| "…".to_owned());
        all.into_iter().take(LABELS).chain(more).collect()
    }
}

/// The codes that an entry can have: of actions, and of changes that were asked for and denied.
fn codes(visit: &Visit) -> BTreeSet<String> {
    let changes = visit.console.operations.iter().filter(|(_, operation)| operation.method != "GET");
    actions::all().map(str::to_owned).chain(changes.map(|(id, _)| id.clone())).collect()
}

/// The codes that the text names exactly, or by their words; else those of which code or words contain it.
fn fitting(all: &[(String, Vec<String>)], text: &str) -> Vec<String> {
    let wanted = text.trim().to_lowercase();
    let found = |fits: &dyn Fn(&str) -> bool| -> Vec<String> {
        let fitting = all.iter().filter(|(code, words)| fits(code) || words.iter().any(|words| fits(words)));
        fitting.map(|(code, _)| code.clone()).collect()
    };
    let exact = found(&|name| name == wanted);
    if exact.is_empty() { found(&|name| name.contains(&wanted)) } else { exact }
}

/// The words of actions that were perhaps meant by a text that names none.
pub fn meant(visit: &Visit, text: &str) -> Vec<String> {
    const BEGIN_CHARS: usize = 4;
    const USUAL: [&str; MEANT] = ["invitation.create", "member.create", "role.grant", "session.create", "user.import"];
    let text = text.to_lowercase();
    let begins: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric())
        .map(|word| word.chars().take(BEGIN_CHARS).collect::<String>())
        .filter(|begin| begin.chars().nth(1).is_some())
        .collect();
    let labels: Vec<(&str, String)> = actions::all().map(|code| (code, label(visit, code))).collect();
    let near = nearest(&text, labels.iter().map(|(_, label)| label.as_str())).map(str::to_owned);
    let alike = labels.iter().filter(|(code, label)| {
        let words = label.to_lowercase();
        begins.iter().any(|begin| code.contains(begin.as_str()) || words.contains(begin.as_str()))
    });
    let mut found: Vec<String> = near.into_iter().chain(alike.map(|(_, label)| label.clone())).collect();
    if found.is_empty() {
        found = USUAL.iter().map(|code| label(visit, code)).collect();
    }
    let mut seen = BTreeSet::new();
    found.retain(|label| seen.insert(label.clone()));
    found.truncate(MEANT);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::schema;

    #[test]
    fn an_action_is_named_by_its_code_its_words_or_a_part_of_them() {
        let act = |code: &str, words: &[&str]| (code.to_owned(), words.iter().map(|one| (*one).to_owned()).collect());
        let all = [
            act("invitation.create", &["created an invitation", "建立邀請"]),
            act("invitation.delete", &["withdrew an invitation", "撤回邀請"]),
            act("member.update", &["changed a member", "變更成員"]),
            act("member.update_self", &["changed the own profile", "變更自己的個人資料"]),
            act("user.update", &["changed a member", "變更成員"]),
        ];
        for (text, codes) in [
            ("member.update", &["member.update"][..]),
            (" Created an Invitation", &["invitation.create"]),
            ("Changed a member", &["member.update", "user.update"]),
            ("invitation", &["invitation.create", "invitation.delete"]),
            ("邀請", &["invitation.create", "invitation.delete"]),
            ("WITHDREW", &["invitation.delete"]),
            ("frobnicate", &[]),
        ] {
            assert_eq!(fitting(&all, text), codes, "{text}");
        }
    }

    #[test]
    fn all_actions_together_fit_into_one_parameter() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let document = serde_json::from_str(&std::fs::read_to_string(path).expect("the document")).expect("JSON");
        let asked: usize = schema::read(&document).keys().map(|id| id.len() + 1).sum();
        let done: usize = actions::all().map(|code| code.len() + 1).sum();
        assert!(asked + done <= crate::features::audit::ACTIONS_CHARS_MAX, "{asked} and {done}");
    }
}
