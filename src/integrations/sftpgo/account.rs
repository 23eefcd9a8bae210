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

/// The root permissions of an account without free space: list, download, and free space.
const WITHOUT_WRITING: [&str; 4] = ["list", "download", "delete", "rename"];
const EVERYTHING: &str = "*";
const ROOT: &str = "/";
/// A limit in bytes that any stored file reaches. The used size is not suitable, because SFTPGo has its own count.
const NO_ROOM: i64 = 1;
/// The usage that SFTPGo counts itself: only a new scan can resolve a difference.
pub const USAGE: &str = "used_quota_size";

/// The desired account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredAccount {
    pub member: MemberId,
    pub username: String,
    pub is_active: bool,
    /// In bytes. SFTPGo treats 0 as no limit, so a full quota is expressed with permissions.
    pub size: i64,
    pub has_room: bool,
    /// The home folder; `None` leaves it to SFTPGo.
    pub home: Option<String>,
    /// The bytes that the member uses, for comparison.
    pub used: i64,
}

/// A field that differs from the desired account.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub field: &'static str,
    pub ours: Value,
    pub theirs: Value,
}

/// What the desired account depends on besides the rows.
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

    /// Returns the desired account of a member with this SFTPGo username.
    pub fn desired_account(&self, r: &Reader<'_>, member: &Member, username: String) -> Result<DesiredAccount> {
        let account = quotas::account(r, &self.rules, &self.snapshot, member.id)?;
        let has_room = quotas::has_room(r, &self.rules, &self.snapshot, member.id)?;
        Ok(DesiredAccount {
            member: member.id,
            is_active: member.is_active(),
            size: account.size,
            has_room,
            home: self.home_folder(&username),
            used: account.used,
            username,
        })
    }

    /// Returns the home folder of an account at SFTPGo; `None` leaves it to SFTPGo.
    pub fn home_folder(&self, username: &str) -> Option<String> {
        if !self.home.is_empty() {
            return Some(self.home.replace("{username}", username));
        }
        let root = self.media_root.to_str().filter(|root| !root.is_empty())?;
        Some(format!("{}/{username}", root.trim_end_matches('/')))
    }
}

impl DesiredAccount {
    /// Returns an account to create.
    pub fn new_account(&self) -> Account {
        let mut user = Account::new();
        user.insert("username".into(), json!(self.username));
        self.applied_to(&user)
    }

    /// Returns the account with the managed fields set to the desired values and all other fields unchanged.
    pub fn applied_to(&self, user: &Account) -> Account {
        let mut user = user.clone();
        user.insert("status".into(), json!(i64::from(self.is_active)));
        let mut permissions = user.get("permissions").and_then(Value::as_object).cloned().unwrap_or_default();
        permissions.insert(ROOT.into(), if self.has_room { json!([EVERYTHING]) } else { json!(WITHOUT_WRITING) });
        // Permissions of subfolders were set by hand and could not be restored, so they are kept; a quota limit
        // prevents writing there instead.
        let is_by_limit = !self.has_room && permissions.len() > 1;
        user.insert("quota_size".into(), json!(if is_by_limit { NO_ROOM } else { self.size }));
        user.insert("permissions".into(), Value::Object(permissions));
        user.insert("additional_info".into(), json!(self.member.to_string()));
        if let Some(home) = &self.home {
            user.insert("home_dir".into(), json!(home));
        }
        user
    }

    /// Whether the account belongs to another member or program.
    pub fn belongs_to_other(&self, user: &Account) -> bool {
        owner_in(user).is_some_and(|owner| owner != self.member.to_string())
    }

    pub fn differences(&self, user: &Account) -> Vec<Difference> {
        let expected = self.applied_to(user);
        ["status", "quota_size", "permissions", "home_dir", "additional_info"]
            .into_iter()
            .filter_map(|field| {
                let none = if matches!(field, "status" | "quota_size") { json!(0) } else { json!("") };
                let ours = expected.get(field).unwrap_or(&none);
                let theirs = user.get(field).unwrap_or(&none);
                let is_same = match field {
                    "permissions" => folders(ours) == folders(theirs),
                    _ => ours == theirs,
                };
                (!is_same).then(|| Difference { field, ours: ours.clone(), theirs: theirs.clone() })
            })
            .collect()
    }

    /// Returns the difference of the usage, unless SFTPGo has not counted this account yet.
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

/// Returns the owner named in `additional_info`, if any.
pub fn owner_in(user: &Account) -> Option<&str> {
    user.get("additional_info").and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// Returns the member named in `additional_info`, if it is a member id.
pub fn member_of(user: &Account) -> Option<MemberId> {
    uuid::Uuid::try_parse(owner_in(user)?).ok().map(MemberId)
}

/// Returns the disabled account.
pub fn disabled(user: &Account) -> Account {
    let mut user = user.clone();
    user.insert("status".into(), json!(0));
    user
}

pub fn is_disabled(user: &Account) -> bool {
    user.get("status").and_then(Value::as_i64).unwrap_or(0) == 0
}

fn words_of(words: &Value) -> BTreeSet<&str> {
    words.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Permissions by folder, without their order.
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
    fn a_new_account_has_no_differences() {
        for desired in [
            desired(),
            DesiredAccount { has_room: false, ..desired() },
            DesiredAccount { is_active: false, home: None, ..desired() },
        ] {
            let user = desired.new_account();
            assert!(desired.differences(&user).is_empty(), "{user:?}");
            assert!(!desired.belongs_to_other(&user));
        }
    }

    #[test]
    fn other_fields_stay_unchanged() {
        let user = json!({"username": "kim", "email": "k@example.org", "permissions": {"/": ["list"]},
            "filters": {"allowed_ip": ["10.0.0.0/8"]}});
        let user = user.as_object().expect("an object");
        let applied = desired().applied_to(user);
        assert_eq!((&applied["email"], &applied["filters"]), (&user["email"], &user["filters"]));
        assert_eq!(applied["permissions"], json!({"/": ["*"]}));
    }

    #[test]
    fn a_full_account_is_restored_exactly_when_space_is_freed() {
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
        // A size of 0 would mean no limit at SFTPGo.
        let nothing = DesiredAccount { size: 0, ..full };
        assert_eq!(nothing.applied_to(&with_folders)["quota_size"], NO_ROOM);
    }

    #[test]
    fn an_account_that_names_another_owner_is_not_managed() {
        let desired = desired();
        let with = |text: &str| json!({"additional_info": text}).as_object().cloned().expect("an object");
        assert!(
            !desired.belongs_to_other(&with(""))
                && !desired.belongs_to_other(&with(" "))
                && !desired.belongs_to_other(&Account::new())
        );
        assert!(!desired.belongs_to_other(&with(&desired.member.to_string())));
        assert!(
            desired.belongs_to_other(&with(&MemberId::new().to_string()))
                && desired.belongs_to_other(&with("another program's"))
        );
    }
}
