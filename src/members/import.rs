//! Import of members with quotas and names elsewhere, from CSV or JSON.
//!
//! **Invariant.** A row happens as a whole or not at all, in a transaction of its own, and a bad one stops no other: an
//! import can be run again until nothing is left to do. A member is found by a username that the site gave, never by one
//! that a tenant, a provider or the person chose; what a row leaves empty stays as it is. No secret is read from a file: a column that is not known is refused with the whole file.

use std::collections::HashMap;

use super::users::{self, Edit, NewUser, User};
use super::{folded, is_display_name, is_email, is_username};
use crate::access::snapshot::Snapshot;
use crate::db::Reader;
use crate::error::{Cause, Error, Field, Result};
use crate::ids::{MemberId, OrganizationId};
use crate::videos::quota::{Rules, SIZE_MAX};

/// The columns of a file, in any order; all but the first may be missing.
pub const COLUMNS: [&str; 7] =
    ["username", "email", "display_name", "wordpress_id", "quota_size", "sftpgo_username", "org_code"];

/// One row as text, by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Counted from 1, without the header.
    pub number: usize,
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

    fn get(&self, column: &str) -> Option<&str> {
        COLUMNS.iter().position(|known| *known == column).and_then(|at| self.cells[at].as_deref())
    }

    pub fn username(&self) -> Option<&str> {
        self.get("username")
    }
}

/// Reads a file as CSV (RFC 4180): UTF-8 with or without its mark, any line ends, quotes where they are needed.
///
/// Written here rather than by a crate: it is one small automaton, and every crate for it moves features of serde that all
/// others share.
pub fn read_csv(bytes: &[u8], rows_max: u64) -> Result<Vec<Row>> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::field("body", "must be UTF-8"))?;
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let header = records.next().unwrap_or_default();
    let columns = columns(&header)?;
    let filled: Vec<Vec<String>> = records.filter(|record| record.iter().any(|cell| !cell.is_empty())).collect();
    require_rows(filled.len(), rows_max)?;
    let row = |(n, cells): (usize, Vec<String>)| {
        let fault = (cells.len() != columns.len()).then_some("has more or fewer cells than the header");
        Row { fault, ..Row::of(n + 1, columns.iter().copied().zip(cells.into_iter().map(Some))) }
    };
    Ok(filled.into_iter().enumerate().map(row).collect())
}

/// Fails when there are more rows than one import takes.
pub fn require_rows(rows: usize, rows_max: u64) -> Result<()> {
    let message = || format!("there are {rows} rows, and an import takes {rows_max} (limits.import_rows): split it");
    if rows as u64 <= rows_max { Ok(()) } else { Err(Error::field("body", message())) }
}

fn columns(header: &[String]) -> Result<Vec<&'static str>> {
    let mut faults = Vec::new();
    let mut columns: Vec<&'static str> = Vec::new();
    for name in header {
        match COLUMNS.iter().find(|column| name.trim().eq_ignore_ascii_case(column)) {
            Some(column) if columns.contains(column) => faults.push(Field::body(column, "stands twice in the header")),
            Some(column) => columns.push(column),
            None => faults.push(Field::body(name.trim(), format!("is no column: they are {}", COLUMNS.join(", ")))),
        }
    }
    if faults.is_empty() && !columns.contains(&"username") {
        faults.push(Field::body("username", "is missing in the header, the first line"));
    }
    if faults.is_empty() { Ok(columns) } else { Err(Error::fields(faults)) }
}

/// The cells of each line.
fn records(text: &str) -> Result<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let (mut record, mut cell) = (Vec::new(), String::new());
    let (mut is_quoted, mut line) = (false, 1_usize);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (is_quoted, c) {
            (true, '"') if rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            (true, '"') => {
                is_quoted = false;
                if !matches!(rest.peek(), None | Some(',' | '\r' | '\n')) {
                    return Err(Error::field("body", format!("line {line}: a quoted cell goes on behind its quote")));
                }
            }
            (false, '"') if cell.is_empty() => is_quoted = true,
            (false, ',') => record.push(std::mem::take(&mut cell)),
            (false, '\r') if rest.peek() == Some(&'\n') => {}
            (false, '\r' | '\n') => {
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
                line += 1;
            }
            (_, c) => {
                line += usize::from(c == '\n');
                cell.push(c);
            }
        }
    }
    if is_quoted {
        return Err(Error::field("body", "a quote is never closed"));
    }
    if !(record.is_empty() && cell.is_empty()) {
        record.push(cell);
        records.push(record);
    }
    Ok(records)
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
    let display_name = text("display_name", is_display_name, "must be 1 to 200 characters");
    let folder = "must be 3 to 60 of a-z 0-9 . _ - beginning with a letter or digit";
    let sftpgo_username = text("sftpgo_username", users::is_folder_name, folder);
    let is_number = |text: &str| text.parse::<u64>().is_ok_and(|id| (1..=i64::MAX.unsigned_abs()).contains(&id));
    let wordpress_id = text("wordpress_id", is_number, "must be a number, 1 or more").and_then(|id| id.parse().ok());
    let is_size = |text: &str| text.parse::<i64>().is_ok_and(|size| (0..=SIZE_MAX).contains(&size));
    let quota_size = text("quota_size", is_size, "must be a whole number of bytes from 0 to 9000000000000000");
    let quota_size = quota_size.and_then(|size| size.parse().ok());
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
pub fn plan(r: &Reader<'_>, snapshot: &Snapshot, rules: &Rules, row: &Row) -> Result<Plan> {
    let wanted = match understood(row, snapshot) {
        Ok(wanted) => wanted,
        Err(faults) => return Ok(Plan::Failed(faults)),
    };
    let faults = |taken: Vec<(Cause, Field)>| taken.into_iter().map(|(_, field)| field).collect::<Vec<_>>();
    let Some(member) = users::find_by_username(r, &wanted.username)? else {
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
        if let Err(refused) = users::require_folder_name(&new) {
            return Ok(Plan::Failed(refused.fields));
        }
        let names = users::Names {
            username: None,
            email: Some(&new.email),
            wordpress_id: new.wordpress_id,
            sftpgo_username: Some(new.sftpgo_username()),
        };
        let faults = faults(users::taken(r, None, names)?);
        return Ok(if faults.is_empty() { Plan::Create(Box::new(new)) } else { Plan::Failed(faults) });
    };
    let user = users::complete(r, snapshot, rules, member)?;
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
pub enum Outcome {
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
        let mut seen: HashMap<String, usize> = HashMap::new();
        for row in rows {
            // A folder is the username's where the row names none.
            let fallback = (column == "sftpgo_username").then(|| row.username()).flatten();
            let Some(text) = row.get(column).or(fallback).map(folded) else { continue };
            match seen.get(&text) {
                Some(first) => {
                    let message = format!("is in row {first} already");
                    faults.entry(row.number).or_default().push(Field::body(column, message));
                }
                None => drop(seen.insert(text, row.number)),
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Vec<String>> {
        records(text).unwrap()
    }

    #[test]
    fn cells_are_read_as_spreadsheets_write_them() {
        let expected = vec![vec!["a", "b"], vec!["1, 2", "x \"y\"\nz"], vec!["", ""]];
        for text in ["a,b\n\"1, 2\",\"x \"\"y\"\"\nz\"\n,\n", "a,b\r\n\"1, 2\",\"x \"\"y\"\"\nz\"\r\n,"] {
            assert_eq!(read(text), expected, "{text:?}");
        }
        assert_eq!(read(""), Vec::<Vec<String>>::new());
        assert_eq!(read("\"\""), Vec::<Vec<String>>::new());
        assert!(records("\"open").is_err() && records("\"a\"b").is_err());
    }

    #[test]
    fn a_file_may_begin_with_its_mark_and_has_at_most_so_many_rows() {
        let file = "\u{feff}Username,Email\nkim,kim@example.org\n\nlee,lee@example.org\n";
        let rows = read_csv(file.as_bytes(), 2).unwrap();
        assert_eq!(
            rows.iter().map(|row| (row.number, row.username())).collect::<Vec<_>>(),
            [(1, Some("kim")), (2, Some("lee"))]
        );
        assert!(read_csv(file.as_bytes(), 1).is_err());
        assert!(read_csv(b"username,api_key\nkim,x\n", 2).is_err());
        assert!(read_csv(b"email\nkim@example.org\n", 2).is_err());
        assert!(read_csv(b"username\n\xff\n", 2).is_err());
    }
}
