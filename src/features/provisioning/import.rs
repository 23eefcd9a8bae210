//! Import of users with quotas and external names, from CSV or JSON.
//!
//! **Invariant.** Each row is applied completely or not at all, in its own transaction, and a failing row does not stop
//! the others: an import can be repeated until nothing is left to do. A member is found by a username that the site
//! assigned, never by one that a tenant, a provider or the member chose; empty cells leave values unchanged. No secret
//! is read from a file: a file with an unknown column is rejected as a whole.

use std::collections::HashMap;

use super::{Edit, NewUser, User};
use crate::features::members::{folded, is_display_name, is_email, is_username};
use crate::features::quotas::{QuotaSettings, SIZE_MAX};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Reader;
use crate::kernel::error::{ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::units;

/// The columns of a file, in any order; all but `username` are optional.
pub const COLUMNS: [&str; 7] =
    ["username", "email", "display_name", "wordpress_id", "quota_size", "sftpgo_username", "org_code"];

/// An error of a row that is found before its cells are parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFault {
    FewCells,
    StrayCell,
    ManyCells,
    LongCell,
}

impl RowFault {
    const fn message(self) -> &'static str {
        match self {
            Self::FewCells => "has fewer cells than the header",
            Self::StrayCell => "has a cell that no column of the header names",
            Self::ManyCells => "has too many cells: correct it in the file",
            Self::LongCell => "has a cell of more than 4 KiB: correct it in the file",
        }
    }
}

/// The most characters of a text of a file that an answer repeats.
const REPEATED_CHARACTERS_MAX: usize = 200;

/// Cuts a text of a file to what an answer repeats.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(REPEATED_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// One row as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Counted from 1, without the header.
    pub number: usize,
    /// The line of the file on which it starts, counted from 1.
    pub line: Option<u64>,
    cells: [Option<String>; COLUMNS.len()],
    /// The cells that no column names.
    extra: Vec<String>,
    fault: Option<RowFault>,
    /// Whether the cells exceeded a limit and were not kept.
    is_dropped: bool,
}

impl Row {
    /// Builds a row from cells with column names; empty cells count as missing.
    pub fn of(number: usize, cells: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Self {
        let mut row = Self { number, ..Self::default() };
        for (name, text) in cells {
            if let Some(at) = COLUMNS.iter().position(|column| *column == name) {
                row.cells[at] = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            }
        }
        row
    }

    /// A row whose cells exceed a limit, so that they are not kept.
    pub fn dropped(number: usize, fault: RowFault) -> Self {
        Self { number, fault: Some(fault), is_dropped: true, ..Self::default() }
    }

    pub fn is_dropped(&self) -> bool {
        self.is_dropped
    }

    pub fn fault(&self) -> Option<RowFault> {
        self.fault
    }

    #[must_use]
    pub fn at_line(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    #[must_use]
    pub fn with_fault(self, fault: Option<RowFault>) -> Self {
        Self { fault, ..self }
    }

    #[must_use]
    pub fn with_extra(self, extra: Vec<String>) -> Self {
        Self { extra, ..self }
    }

    pub fn extra(&self) -> &[String] {
        &self.extra
    }

    pub fn get(&self, column: &str) -> Option<&str> {
        COLUMNS.iter().position(|known| *known == column).and_then(|at| self.cells[at].as_deref())
    }

    pub fn username(&self) -> Option<&str> {
        self.get("username")
    }
}

/// A parsed row.
#[derive(Debug, Clone)]
struct ParsedRow {
    username: String,
    email: Option<String>,
    display_name: Option<String>,
    wordpress_id: Option<u64>,
    quota_size: Option<i64>,
    sftpgo_username: Option<String>,
    organization: Option<OrganizationId>,
}

/// Parses a size within the limits of a quota.
fn size_of(text: &str) -> Option<i64> {
    units::parse_bytes(text).and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes <= SIZE_MAX)
}

/// Parses a row, or returns all its errors.
fn parse(row: &Row, snapshot: &Snapshot) -> Result<ParsedRow, Vec<Field>> {
    let mut faults: Vec<Field> = row.fault.map(|fault| Field::body("row", fault.message())).into_iter().collect();
    if row.is_dropped {
        return Err(faults);
    }
    let mut text = |column: &str, is_valid: fn(&str) -> bool, message: &str| {
        let text = row.get(column)?;
        if !is_valid(text) {
            faults.push(Field::body(column, message));
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
            faults.push(Field::body("org_code", "members cannot be imported into `platform`"));
        }
        _ => {}
    }
    if username.is_none() {
        faults.push(Field::body("username", "is missing"));
    }
    match username {
        Some(username) if faults.is_empty() => Ok(ParsedRow {
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

/// The planned effect of a row.
#[derive(Debug, Clone)]
pub enum Plan {
    Create(Box<NewUser>),
    /// Contains the names of the fields that differ.
    Change(Box<User>, Box<Edit>, Vec<&'static str>),
    Unchanged,
    Failed(Vec<Field>),
}

/// Determines the effect of a row without applying it.
pub fn plan(r: &Reader<'_>, snapshot: &Snapshot, rules: &QuotaSettings, row: &Row) -> Result<Plan> {
    let parsed = match parse(row, snapshot) {
        Ok(parsed) => parsed,
        Err(faults) => return Ok(Plan::Failed(faults)),
    };
    let faults = |taken: Vec<(ErrorCode, Field)>| taken.into_iter().map(|(_, field)| field).collect::<Vec<_>>();
    let Some(member) = super::find_by_username(r, &parsed.username)? else {
        let Some(email) = parsed.email else {
            return Ok(Plan::Failed(vec![Field::body("email", "is required for a new member")]));
        };
        let new = NewUser {
            username: parsed.username,
            email,
            display_name: parsed.display_name,
            wordpress_id: parsed.wordpress_id,
            sftpgo_username: parsed.sftpgo_username,
            quota_size: parsed.quota_size,
            organization: parsed.organization,
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
        let faults = faults(super::find_taken_names(r, None, names)?);
        return Ok(if faults.is_empty() { Plan::Create(Box::new(new)) } else { Plan::Failed(faults) });
    };
    let user = super::load_user(r, snapshot, rules, member)?;
    if !is_same_user(&user, &parsed) {
        let message = "a member has this username, but the site did not assign it: rename that member, or confirm that it \
                       is the same by setting `username_by_site` at PATCH /admin/members/{id}";
        return Ok(Plan::Failed(vec![Field::body("username", message)]));
    }
    let edit = Edit {
        email: parsed.email,
        display_name: parsed.display_name,
        quota_size: parsed.quota_size.map(Some),
        wordpress_id: parsed.wordpress_id.map(Some),
        sftpgo_username: parsed.sftpgo_username,
        join: parsed.organization,
    };
    let faults = faults(edit.faults(r, &user)?);
    let fields = edit.fields(&user, snapshot);
    Ok(match (faults.is_empty(), fields.is_empty()) {
        (false, _) => Plan::Failed(faults),
        (true, true) => Plan::Unchanged,
        (true, false) => Plan::Change(Box::new(user), Box::new(edit), fields),
    })
}

/// Whether the member with this username is the one that the row means: the site assigned the username, or the row has
/// an external name that the member already has.
fn is_same_user(user: &User, parsed: &ParsedRow) -> bool {
    let number = parsed.wordpress_id.map(|id| id.to_string());
    let folder = parsed.sftpgo_username.as_ref().unwrap_or(&parsed.username);
    user.member.username_by_site
        || (number.is_some() && number == user.wordpress_id)
        || user.sftpgo_username.as_ref() == Some(folder)
}

/// The outcome of a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// Contains the new member's id, except in a dry run.
    Created(Option<MemberId>),
    Changed(MemberId, Vec<&'static str>),
    Unchanged,
    Failed(Vec<Field>),
}

/// Finds rows that repeat a username, e-mail or external name of an earlier row of the same file. They fail regardless
/// of the stored data.
pub fn find_duplicates(rows: &[Row]) -> HashMap<usize, Vec<Field>> {
    let mut faults: HashMap<usize, Vec<Field>> = HashMap::new();
    for column in ["username", "email", "wordpress_id", "sftpgo_username"] {
        let mut seen: HashMap<String, &Row> = HashMap::new();
        for row in rows {
            // Without an SFTPGo username the folder is named after the username.
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
