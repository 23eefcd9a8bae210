//! A second, naive evaluator that reads the rows.
//!
//! It shares no code with `src/kernel/authz`: it follows the text of the policy, slowly and simply.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use crate::harness::site::Site;

/// Roster's own permissions that no tenant can hold: the owner's empty cells in the grid.
const GRID: &str = include_str!("../../rules/grid.txt");

#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub app: String,
    pub parent: Option<i64>,
    pub methods: Vec<String>,
    pub template: Option<Vec<Segment>>,
    pub is_open: bool,
    pub orphaned: bool,
}

/// Ordered by specificity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Literal(String),
    Parameter,
    Rest,
}

#[derive(Debug, Default)]
pub struct Rows {
    pub organizations: HashMap<String, (String, bool)>,
    pub members: HashMap<String, bool>,
    pub memberships: HashSet<(String, String)>,
    /// Per role: whether it is open, and what it holds beside its ticks.
    pub roles: HashMap<String, (bool, String)>,
    pub ticks: HashSet<(String, i64)>,
    pub assignments: Vec<(String, String, String)>,
    pub catalog: BTreeMap<i64, Entry>,
    pub grants: HashSet<[String; 5]>,
}

fn all<T>(
    rows: &rusqlite::Connection,
    sql: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    rows.prepare(sql).expect("sql").query_map([], read).expect("rows").map(|row| row.expect("a row")).collect()
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(uuid::Uuid::from_slice(row.get_ref(column)?.as_blob()?).expect("an id").to_string())
}

const LIST_CATALOG: &str = "
    select slot, name, app, parent_slot, http_methods, http_path, status = 'open', orphaned
    from permissions";

impl Rows {
    pub fn read(site: &Site) -> Self {
        let db = site.rows();
        let entry = |row: &rusqlite::Row<'_>| {
            let (methods, path): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
            let methods = methods.map(|text| text.split('|').map(str::to_owned).collect()).unwrap_or_default();
            let template = path.map(|text| parsed(&text));
            Ok((
                row.get(0)?,
                Entry {
                    name: row.get(1)?,
                    app: row.get(2)?,
                    parent: row.get(3)?,
                    methods,
                    template,
                    is_open: row.get(6)?,
                    orphaned: row.get(7)?,
                },
            ))
        };
        let pair = |row: &rusqlite::Row<'_>| Ok((id(row, 0)?, id(row, 1)?));
        let organization = |row: &rusqlite::Row<'_>| Ok((id(row, 0)?, (row.get(1)?, row.get(2)?)));
        let grant = |row: &rusqlite::Row<'_>| Ok([id(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]);
        let list = |sql: &str| all(&db, sql, |row| Ok((id(row, 0)?, id(row, 1)?, id(row, 2)?)));
        Self {
            organizations: all(&db, "select id, org_code, status = 'active' from organizations", organization)
                .into_iter()
                .collect(),
            members: all(&db, "select id, status = 'active' from members", |row| Ok((id(row, 0)?, row.get(1)?)))
                .into_iter()
                .collect(),
            memberships: all(&db, "select organization_id, member_id from memberships", pair).into_iter().collect(),
            roles: all(&db, "select id, status = 'open', holds from roles", |row| {
                Ok((id(row, 0)?, (row.get(1)?, row.get(2)?)))
            })
            .into_iter()
            .collect(),
            ticks: all(&db, "select role_id, permission_slot from role_permissions", |row| {
                Ok((id(row, 0)?, row.get(1)?))
            })
            .into_iter()
            .collect(),
            assignments: list("select organization_id, member_id, role_id from role_assignments"),
            catalog: all(&db, LIST_CATALOG, entry).into_iter().collect(),
            grants: all(&db, "select member_id, scope_type, scope_id, module, action from grants", grant)
                .into_iter()
                .collect(),
        }
    }

    /// The reason of the decision.
    pub fn decide(&self, tenant: &str, question: &Value) -> &'static str {
        let text = |name: &str| question[name].as_str().unwrap_or_default();
        let uid = text("uid");
        if !self.organizations[tenant].1 {
            return "tenant_inactive";
        }
        // Membership comes first: it must not show whether a member of another tenant is suspended.
        let belongs = self.memberships.contains(&(tenant.to_owned(), uid.to_owned())) || self.is_platform_admin(uid);
        match self.members.get(uid) {
            Some(true) if belongs => {}
            Some(false) if belongs => return "member_inactive",
            _ => return "not_a_member",
        }
        if question.get("permission").is_some() {
            let slot = self.catalog.iter().find(|(_, entry)| entry.name == text("permission")).map(|(slot, _)| *slot);
            return self.by_role(tenant, uid, slot.into_iter().collect());
        }
        if question.get("scope_type").is_some() {
            return self.by_grant(uid, [text("scope_type"), text("scope_id"), text("module"), text("action")]);
        }
        let Some(path) = canonical(text("path")) else { return "path_not_canonical" };
        match self.route(question["app"].as_str().unwrap_or("main"), text("method"), &path) {
            Err(reason) => reason,
            Ok(slots) => self.by_role(tenant, uid, slots),
        }
    }

    pub fn roles_of(&self, tenant: &str, uid: &str) -> impl Iterator<Item = (&String, &String)> {
        let held =
            self.assignments.iter().filter(move |(organization, member, _)| organization == tenant && member == uid);
        held.filter(|(_, _, role)| self.roles[role].0).map(|(_, _, role)| (role, &self.roles[role].1))
    }

    pub fn is_platform_admin(&self, uid: &str) -> bool {
        let (platform, (_, is_active)) =
            self.organizations.iter().find(|(_, (code, _))| code == "platform").expect("the platform");
        *is_active && self.roles_of(platform, uid).any(|(_, holds)| holds == "everything")
    }

    pub fn is_open(&self, slot: i64) -> bool {
        let entry = &self.catalog[&slot];
        let mut above = entry.parent;
        while let Some(parent) = above {
            if !self.catalog[&parent].is_open {
                return false;
            }
            above = self.catalog[&parent].parent;
        }
        entry.is_open && !entry.orphaned
    }

    pub fn by_role(&self, tenant: &str, uid: &str, slots: Vec<i64>) -> &'static str {
        let holds = |slot: i64| {
            self.is_platform_admin(uid)
                || self.roles_of(tenant, uid).any(|(role, holds)| match holds.as_str() {
                    "everything" => true,
                    "tenant" if !is_site_only(&self.catalog[&slot].name) => true,
                    _ => self.ticks.contains(&(role.clone(), slot)),
                })
        };
        if slots.into_iter().any(|slot| self.is_open(slot) && holds(slot)) { "ok_role" } else { "no_permission" }
    }

    pub fn by_grant(&self, uid: &str, [scope_type, scope_id, module, action]: [&str; 4]) -> &'static str {
        let granted =
            |scope_id: &str| self.grants.contains(&[uid, scope_type, scope_id, module, action].map(str::to_owned));
        if !granted(scope_id) && !granted("*") {
            return "no_permission";
        }
        let named = self.organizations.iter().find(|(id, (code, _))| code == scope_id || *id == scope_id);
        let is_off =
            ["organization", "tenant"].contains(&scope_type) && named.is_some_and(|(_, (_, is_active))| !is_active);
        if is_off { "tenant_inactive" } else { "ok_grant" }
    }

    /// The permissions of a route, any one of which allows it.
    pub fn route(&self, app: &str, method: &str, path: &[String]) -> Result<Vec<i64>, &'static str> {
        let entries = || self.catalog.iter().filter(|(_, entry)| entry.app == app && !entry.orphaned);
        let templates: BTreeSet<&Vec<Segment>> = entries().filter_map(|(_, entry)| entry.template.as_ref()).collect();
        // An umbrella decides alone only where no other template matches.
        let matching = |is_umbrella: bool| {
            templates
                .iter()
                .copied()
                .find(|template| (template.last() == Some(&Segment::Rest)) == is_umbrella && matches(template, path))
        };
        let Some(best) = matching(false).or_else(|| matching(true)) else { return Err("unmapped_route") };
        let answering = |template: &Vec<Segment>| -> Vec<i64> {
            let here: Vec<_> = entries().filter(|(_, entry)| entry.template.as_ref() == Some(template)).collect();
            let lists = |token: &str| here.iter().any(|(_, entry)| entry.methods.iter().any(|method| method == token));
            let is_word =
                !method.is_empty() && method.len() <= 20 && method.bytes().all(|byte| byte.is_ascii_uppercase());
            let answers = |token: &str| {
                is_word && (token == method || token == "*" || (method == "HEAD" && token == "GET" && !lists("HEAD")))
            };
            here.iter()
                .filter(|(_, entry)| entry.methods.iter().any(|token| answers(token)))
                .map(|(slot, _)| **slot)
                .collect()
        };
        let mut slots = answering(best);
        if slots.is_empty() {
            return Err("method_not_mapped");
        }
        for umbrella in templates.into_iter().filter(|umbrella| *umbrella != best && lies_over(umbrella, best)) {
            slots.extend(answering(umbrella));
        }
        Ok(slots)
    }
}

fn is_site_only(name: &str) -> bool {
    GRID.lines().any(|line| line.split_whitespace().take(2).eq([name, "-"]))
}

pub fn parsed(template: &str) -> Vec<Segment> {
    let segment = |text: &str| match text.as_bytes()[0] {
        b'*' => Segment::Rest,
        b':' | b'{' => Segment::Parameter,
        _ => Segment::Literal(text.to_owned()),
    };
    template.split('/').filter(|text| !text.is_empty()).map(segment).collect()
}

fn matches(template: &[Segment], path: &[String]) -> bool {
    match (template, path) {
        ([], []) | ([Segment::Rest], [_, ..]) => true,
        ([Segment::Literal(text), template @ ..], [first, path @ ..]) => text == first && matches(template, path),
        ([Segment::Parameter, template @ ..], [_, path @ ..]) => matches(template, path),
        _ => false,
    }
}

/// Whether the umbrella matches every path that the template matches.
fn lies_over(umbrella: &[Segment], template: &[Segment]) -> bool {
    match (umbrella, template) {
        ([Segment::Rest], [_, ..]) => true,
        ([Segment::Parameter, umbrella @ ..], [Segment::Literal(_) | Segment::Parameter, template @ ..]) => {
            lies_over(umbrella, template)
        }
        ([Segment::Literal(a), umbrella @ ..], [Segment::Literal(b), template @ ..]) => {
            a == b && lies_over(umbrella, template)
        }
        _ => false,
    }
}

/// The decoded segments of a path that every parser reads in the same way, or `None`.
fn canonical(raw: &str) -> Option<Vec<String>> {
    let path = raw.split('?').next()?;
    if !path.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && !b"#;\\".contains(&byte)) {
        return None;
    }
    if path == "/" {
        return Some(Vec::new());
    }
    let mut parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if parts.len() > 1 && parts.last() == Some(&"") {
        parts.pop();
    }
    parts.into_iter().map(|part| decoded(part).filter(|text| !["", ".", ".."].contains(&text.as_str()))).collect()
}

fn decoded(segment: &str) -> Option<String> {
    let mut pieces = segment.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        let byte = u8::from_str_radix(code, 16).ok().filter(|_| code.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        if byte.is_ascii_control() || b"/\\%;#?".contains(&byte) {
            return None;
        }
        bytes.push(byte);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
