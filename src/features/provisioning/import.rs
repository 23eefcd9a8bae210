//! Import of members with quotas and names elsewhere, from CSV or JSON.
//!
//! **Invariant.** A row happens as a whole or not at all, in a transaction of its own, and a bad one stops no other: an
//! import can be run again until nothing is left to do. A member is found by a username that the site gave, never by one
//! that a tenant, a provider or the person chose; what a row leaves empty stays as it is. No secret is read from a file: a column that is not known is refused with the whole file.

use std::collections::HashMap;

use super::{Edit, NewUser, User};
use crate::features::members::{folded, is_display_name, is_email, is_username};
use crate::features::quotas::{QuotaSettings, SIZE_MAX};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Reader;
use crate::kernel::error::{ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::units;

/// The columns of a file, in any order; all but the first may be missing.
pub const COLUMNS: [&str; 7] =
    ["username", "email", "display_name", "wordpress_id", "quota_size", "sftpgo_username", "org_code"];

/// One row as text, by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Counted from 1, without the header.
    pub number: usize,
    /// Where it begins in a file of lines, counted from 1.
    pub line: Option<u64>,
    cells: [Option<String>; COLUMNS.len()],
    /// What is wrong with the row before it is understood.
    fault: Option<&'static str>,
}

impl Row {
    /// A row of cells by column name; empty ones count as missing.
    pub fn of(number: usize, cells: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Self {
        let mut row = Self { number, ..Self::default() };
        for (name, text) in cells {
            if let Some(at) = COLUMNS.iter().position(|column| *column == name) {
                row.cells[at] = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            }
        }
        row
    }

    #[must_use]
    pub fn at_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    #[must_use]
    pub fn with_fault(self, fault: Option<&'static str>) -> Self {
        Self { fault, ..self }
    }

    fn get(&self, column: &str) -> Option<&str> {
        COLUMNS.iter().position(|known| *known == column).and_then(|at| self.cells[at].as_deref())
    }

    pub fn username(&self) -> Option<&str> {
        self.get("username")
    }
}

/// A row that is understood.
#[derive(Debug, Clone)]
struct Wanted {
    username: String,
    email: Option<String>,
    display_name: Option<String>,
    wordpress_id: Option<u64>,
    quota_size: Option<i64>,
    sftpgo_username: Option<String>,
    organization: Option<OrganizationId>,
}

/// A size that can be a quota.
fn size_of(text: &str) -> Option<i64> {
    units::bytes_of(text).and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes <= SIZE_MAX)
}

/// All that is wrong with a row, or what it says.
fn understood(row: &Row, snapshot: &Snapshot) -> Result<Wanted, Vec<Field>> {
    let mut faults: Vec<Field> = row.fault.map(|fault| Field::body("row", fault)).into_iter().collect();
    let mut text = |column: &str, is_fit: fn(&str) -> bool, says: &str| {
        let text = row.get(column)?;
        if !is_fit(text) {
            faults.push(Field::body(column, says));
        }
        Some(text.to_owned())
    };
    let username = text("username", is_username, "must be 1 to 64 letters, digits, and . _ -");
    let email = text("email", is_email, "is not an e-mail address");
    let is_one_line: fn(&str) -> bool = |text| !text.chars().any(char::is_control);
    let display_name = match row.get("display_name").is_none_or(is_one_line) {
        true => text("display_name", is_display_name, "must be 1 to 200 characters"),
        false => {
            text("display_name", is_one_line, "must be one line: it has a line break or another control character")
        }
    };
    let folder = "must be 3 to 60 of a-z 0-9 . _ - beginning with a letter or digit";
    let sftpgo_username = text("sftpgo_username", super::is_folder_name, folder);
    let is_number = |text: &str| text.parse::<u64>().is_ok_and(|id| (1..=i64::MAX.unsigned_abs()).contains(&id));
    let wordpress_id = text("wordpress_id", is_number, "must be a number, 1 or more").and_then(|id| id.parse().ok());
    let is_size = |text: &str| size_of(text).is_some();
    let size =
        "must be a size of at most 9000000000000000 bytes, such as 5368709120, 10GB (10^9 bytes each) or 10GiB (2^30)";
    let quota_size = text("quota_size", is_size, size).and_then(|size| size_of(&size));
    let organization = row.get("org_code").map(|code| snapshot.tenant_named(code).map(|tenant| tenant.id));
    match organization {
        Some(None) => faults.push(Field::body("org_code", "there is no such organization")),
        Some(Some(id)) if snapshot.is_platform(id) => {
            faults.push(Field::body("org_code", "no import puts members into `platform`"));
        }
        _ => {}
    }
    if username.is_none() {
        faults.push(Field::body("username", "is missing"));
    }
    match username {
        Some(username) if faults.is_empty() => Ok(Wanted {
            username,
            email,
            display_name,
            wordpress_id,
            quota_size,
            sftpgo_username,
            organization: organization.flatten(),
        }),
        _ => Err(faults),
    }
}

/// What a row would do.
#[derive(Debug, Clone)]
pub enum Plan {
    Create(Box<NewUser>),
    /// With the names of the fields that differ.
    Change(Box<User>, Box<Edit>, Vec<&'static str>),
    Unchanged,
    Failed(Vec<Field>),
}

/// What a row would do, without doing it.
pub fn plan(r: &Reader<'_>, snapshot: &Snapshot, rules: &QuotaSettings, row: &Row) -> Result<Plan> {
    let wanted = match understood(row, snapshot) {
        Ok(wanted) => wanted,
        Err(faults) => return Ok(Plan::Failed(faults)),
    };
    let faults = |taken: Vec<(ErrorCode, Field)>| taken.into_iter().map(|(_, field)| field).collect::<Vec<_>>();
    let Some(member) = super::find_by_username(r, &wanted.username)? else {
        let Some(email) = wanted.email else {
            return Ok(Plan::Failed(vec![Field::body("email", "is missing, and a new member has one")]));
        };
        let new = NewUser {
            username: wanted.username,
            email,
            display_name: wanted.display_name,
            wordpress_id: wanted.wordpress_id,
            sftpgo_username: wanted.sftpgo_username,
            quota_size: wanted.quota_size,
            organization: wanted.organization,
            welcome: None,
        };
        if let Err(refused) = super::require_folder_name(&new) {
            return Ok(Plan::Failed(refused.fields));
        }
        let names = super::Names {
            username: None,
            email: Some(&new.email),
            wordpress_id: new.wordpress_id,
            sftpgo_username: Some(new.sftpgo_username()),
        };
        let faults = faults(super::taken(r, None, names)?);
        return Ok(if faults.is_empty() { Plan::Create(Box::new(new)) } else { Plan::Failed(faults) });
    };
    let user = super::complete(r, snapshot, rules, member)?;
    if !is_the_sites(&user, &wanted) {
        let message = "a member has this username whom the site did not give it: rename that one, or say that it is the same \
                       by `username_by_site` at PATCH /admin/members/{id}";
        return Ok(Plan::Failed(vec![Field::body("username", message)]));
    }
    let edit = Edit {
        email: wanted.email,
        display_name: wanted.display_name,
        quota_size: wanted.quota_size.map(Some),
        wordpress_id: wanted.wordpress_id.map(Some),
        sftpgo_username: wanted.sftpgo_username,
        join: wanted.organization,
    };
    let faults = faults(edit.faults(r, &user)?);
    let fields = edit.fields(&user, snapshot);
    Ok(match (faults.is_empty(), fields.is_empty()) {
        (false, _) => Plan::Failed(faults),
        (true, true) => Plan::Unchanged,
        (true, false) => Plan::Change(Box::new(user), Box::new(edit), fields),
    })
}

/// Is the member with this username the one whom the site means by it? So it is where the site gave the name, and where the
/// row has a name elsewhere by which the site knows that member already.
fn is_the_sites(user: &User, wanted: &Wanted) -> bool {
    let number = wanted.wordpress_id.map(|id| id.to_string());
    let folder = wanted.sftpgo_username.as_ref().unwrap_or(&wanted.username);
    user.member.username_by_site
        || (number.is_some() && number == user.wordpress_id)
        || user.sftpgo_username.as_ref() == Some(folder)
}

/// What became of a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// With the new member, where it is there.
    Created(Option<MemberId>),
    Changed(MemberId, Vec<&'static str>),
    Unchanged,
    Failed(Vec<Field>),
}

/// Rows that say what an earlier row of the same file says of somebody else, or again: they fail, whatever is stored.
pub fn repeated(rows: &[Row]) -> HashMap<usize, Vec<Field>> {
    let mut faults: HashMap<usize, Vec<Field>> = HashMap::new();
    for column in ["username", "email", "wordpress_id", "sftpgo_username"] {
        let mut seen: HashMap<String, &Row> = HashMap::new();
        for row in rows {
            // A folder is the username's where the row names none.
            let fallback = (column == "sftpgo_username").then(|| row.username()).flatten();
            let Some(text) = row.get(column).or(fallback).map(folded) else { continue };
            match seen.get(&text) {
                Some(first) => {
                    let at = first.line.map_or_else(|| format!("row {}", first.number), |line| format!("line {line}"));
                    let message = format!("is in {at} already");
                    faults.entry(row.number).or_default().push(Field::body(column, message));
                }
                None => drop(seen.insert(text, row)),
            }
        }
    }
    faults
}
