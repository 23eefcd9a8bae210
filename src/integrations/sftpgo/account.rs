//! The desired SFTPGo account of a member, and how an existing account differs from it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

pub use super::client::Account;
use crate::features::members::Member;
use crate::features::quotas::{self, QuotaSettings};
use crate::kernel::app::App;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;

/// What a full account may still do at its root: look, fetch, and make room.
const WITHOUT_WRITING: [&str; 4] = ["list", "download", "delete", "rename"];
const EVERYTHING: &str = "*";
const ROOT: &str = "/";
/// A limit that whatever is stored has reached. Not what is used: of that SFTPGo has a count of its own.
const NO_ROOM: i64 = 1;
/// What SFTPGo counts by itself: only another count settles a difference.
pub const USAGE: &str = "used_quota_size";

/// The desired account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredAccount {
    pub member: MemberId,
    pub username: String,
    pub is_active: bool,
    /// In bytes. SFTPGo takes 0 for no limit: no room at all is said with permissions.
    pub size: i64,
    pub has_room: bool,
    /// None where SFTPGo knows by itself.
    pub home: Option<String>,
    /// What the member stores, for comparison.
    pub used: i64,
}

/// A field that differs from the desired account.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub field: &'static str,
    pub ours: Value,
    pub theirs: Value,
}

/// Settings that the desired account depends on, beside the rows.
#[derive(Clone)]
pub struct DesiredStateInputs {
    rules: QuotaSettings,
    snapshot: Arc<Snapshot>,
    home: String,
    media_root: PathBuf,
}

impl DesiredStateInputs {
    pub fn from_app(app: &App) -> Self {
        Self {
            rules: QuotaSettings::from_config(&app.config),
            snapshot: app.snapshot(),
            home: app.config.sftpgo_home.clone(),
            media_root: app.config.media_root.clone(),
        }
    }

    /// The desired account of a member with this name.
    pub fn desired_account(&self, r: &Reader<'_>, member: &Member, username: String) -> Result<DesiredAccount> {
        let account = quotas::account(r, &self.rules, &self.snapshot, member.id)?;
        let has_room = quotas::has_room(r, &self.rules, &self.snapshot, member.id)?;
        Ok(DesiredAccount {
            member: member.id,
            is_active: member.is_active(),
            size: account.size,
            has_room,
            home: self.home_of(&username),
            used: account.used,
            username,
        })
    }

    /// Where SFTPGo has the files of an account; none where it knows by itself.
    pub fn home_of(&self, username: &str) -> Option<String> {
        if !self.home.is_empty() {
            return Some(self.home.replace("{username}", username));
        }
        let root = self.media_root.to_str().filter(|root| !root.is_empty())?;
        Some(format!("{}/{username}", root.trim_end_matches('/')))
    }
}

impl DesiredAccount {
    /// An account that did not exist before.
    pub fn new_account(&self) -> Account {
        let mut user = Account::new();
        user.insert("username".into(), json!(self.username));
        self.applied_to(&user)
    }

    /// The account with our fields set to the desired values and all other fields unchanged.
    pub fn applied_to(&self, user: &Account) -> Account {
        let mut user = user.clone();
        user.insert("status".into(), json!(i64::from(self.is_active)));
        let mut permissions = user.get("permissions").and_then(Value::as_object).cloned().unwrap_or_default();
        permissions.insert(ROOT.into(), if self.has_room { json!([EVERYTHING]) } else { json!(WITHOUT_WRITING) });
        // Folders below have words of their own, which somebody chose and nobody could bring back: they stay, and a limit
        // keeps them from being written to.
        let is_by_limit = !self.has_room && permissions.len() > 1;
        user.insert("quota_size".into(), json!(if is_by_limit { NO_ROOM } else { self.size }));
        user.insert("permissions".into(), Value::Object(permissions));
        user.insert("additional_info".into(), json!(self.member.to_string()));
        if let Some(home) = &self.home {
            user.insert("home_dir".into(), json!(home));
        }
        user
    }

    /// Does the account belong to another member, or to another program?
    pub fn is_anothers(&self, user: &Account) -> bool {
        whose(user).is_some_and(|whose| whose != self.member.to_string())
    }

    pub fn differences(&self, user: &Account) -> Vec<Difference> {
        let shall = self.applied_to(user);
        ["status", "quota_size", "permissions", "home_dir", "additional_info"]
            .into_iter()
            .filter_map(|field| {
                let none = if matches!(field, "status" | "quota_size") { json!(0) } else { json!("") };
                let ours = shall.get(field).unwrap_or(&none);
                let theirs = user.get(field).unwrap_or(&none);
                let is_same = match field {
                    "permissions" => folders(ours) == folders(theirs),
                    _ => ours == theirs,
                };
                (!is_same).then(|| Difference { field, ours: ours.clone(), theirs: theirs.clone() })
            })
            .collect()
    }

    /// SFTPGo counts by itself. What it has not counted yet differs from nothing.
    pub fn usage_difference(&self, user: &Account) -> Option<Difference> {
        user.get("last_quota_update").and_then(Value::as_i64).filter(|at| *at > 0)?;
        let theirs = user.get(USAGE).and_then(Value::as_i64).unwrap_or(0);
        let differs = theirs != self.used;
        differs.then(|| Difference { field: USAGE, ours: json!(self.used), theirs: json!(theirs) })
    }
}

pub fn name_of(user: &Account) -> &str {
    user.get("username").and_then(Value::as_str).unwrap_or_default()
}

/// What an account says of whose it is; `None` when it says nothing.
pub fn whose(user: &Account) -> Option<&str> {
    user.get("additional_info").and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// The member whom an account names.
pub fn member_of(user: &Account) -> Option<MemberId> {
    uuid::Uuid::try_parse(whose(user)?).ok().map(MemberId)
}

/// The account, in which nobody comes in any more.
pub fn switched_off(user: &Account) -> Account {
    let mut user = user.clone();
    user.insert("status".into(), json!(0));
    user
}

pub fn is_off(user: &Account) -> bool {
    user.get("status").and_then(Value::as_i64).unwrap_or(0) == 0
}

fn words_of(words: &Value) -> BTreeSet<&str> {
    words.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Permissions without the order of their words.
fn folders(permissions: &Value) -> Vec<(&str, BTreeSet<&str>)> {
    let mut all: Vec<_> =
        permissions.as_object().into_iter().flatten().map(|(path, words)| (path.as_str(), words_of(words))).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired() -> DesiredAccount {
        DesiredAccount {
            member: MemberId::new(),
            username: "kim".into(),
            is_active: true,
            size: 1_000,
            has_room: true,
            home: Some("/srv/media/kim".into()),
            used: 10,
        }
    }

    #[test]
    fn what_was_made_is_in_line() {
        for desired in [
            desired(),
            DesiredAccount { has_room: false, ..desired() },
            DesiredAccount { is_active: false, home: None, ..desired() },
        ] {
            let user = desired.new_account();
            assert!(desired.differences(&user).is_empty(), "{user:?}");
            assert!(!desired.is_anothers(&user));
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let user = json!({"username": "kim", "email": "k@example.org", "permissions": {"/": ["list"]},
            "filters": {"allowed_ip": ["10.0.0.0/8"]}});
        let user = user.as_object().expect("an object");
        let applied = desired().applied_to(user);
        assert_eq!((&applied["email"], &applied["filters"]), (&user["email"], &user["filters"]));
        assert_eq!(applied["permissions"], json!({"/": ["*"]}));
    }

    #[test]
    fn what_was_full_is_exactly_as_before_once_it_has_room() {
        let open = desired();
        let full = DesiredAccount { has_room: false, ..open.clone() };
        let alone = open.new_account();
        let limited = full.applied_to(&alone);
        assert_eq!((&limited["permissions"], &limited["quota_size"]), (&json!({"/": WITHOUT_WRITING}), &json!(1_000)));
        assert_eq!(open.applied_to(&limited), alone);

        let mut with_folders = alone;
        let folders = json!({"/": ["*"], "/a": ["*"], "/b": ["list", "upload"], "/c": WITHOUT_WRITING});
        with_folders["permissions"] = folders.clone();
        let limited = full.applied_to(&with_folders);
        assert_eq!((&limited["permissions"]["/"], &limited["quota_size"]), (&json!(WITHOUT_WRITING), &json!(NO_ROOM)));
        for folder in ["/a", "/b", "/c"] {
            assert_eq!(limited["permissions"][folder], folders[folder]);
        }
        assert!(full.differences(&limited).is_empty());
        assert_eq!(open.applied_to(&limited), with_folders);
        // No limit at all is what 0 would be there.
        let nothing = DesiredAccount { size: 0, ..full };
        assert_eq!(nothing.applied_to(&with_folders)["quota_size"], NO_ROOM);
    }

    #[test]
    fn an_account_that_names_somebody_else_is_anothers() {
        let desired = desired();
        let with = |text: &str| json!({"additional_info": text}).as_object().cloned().expect("an object");
        assert!(
            !desired.is_anothers(&with(""))
                && !desired.is_anothers(&with(" "))
                && !desired.is_anothers(&Account::new())
        );
        assert!(!desired.is_anothers(&with(&desired.member.to_string())));
        assert!(
            desired.is_anothers(&with(&MemberId::new().to_string())) && desired.is_anothers(&with("another program's"))
        );
    }
}
