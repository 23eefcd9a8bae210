//! The grid: what each role holds, as a tree of permissions against roles. Changes of several roles are one form.

mod cells;
mod changes;

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::future::{join_all, join3};
use maud::html;
use serde_json::{Map, Value};

use super::roles::{each, is_protected, text, title_of};
use crate::console::client::{Answer, op};
use crate::console::components::{Tone, notice};
use crate::console::i18n::grid::Grid as Words;
use crate::console::i18n::{Language, fill, permissions};
use crate::console::visit::{Content, View, Visit};
use crate::kernel::authz::permission::ROSTER_APP;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::OrganizationId;
use changes::Report;

/// The most roles in one grid.
const COLUMNS_MAX: usize = 12;

/// A role in the grid.
struct Column {
    id: String,
    key: String,
    name: String,
    is_open: bool,
    /// Its permissions cannot change.
    is_protected: bool,
    /// The present version of its set of permissions.
    etag: String,
    /// The version that the form was made from.
    version: String,
    /// What it holds, without implied ancestors.
    held: BTreeSet<String>,
    /// What the form shows.
    checked: BTreeSet<String>,
}

/// A permission in the grid.
struct PermissionRow {
    name: String,
    depth: usize,
    has_children: bool,
    /// It or an ancestor is closed.
    is_asleep: bool,
    /// Methods and path; empty for a category.
    request: String,
    /// What one of Roster's own permissions means.
    meaning: Option<&'static str>,
    /// Whether the visitor may give and take it.
    may_give: bool,
    /// Why no role of the organization can have it.
    barred: Option<Barred>,
    is_shown: bool,
}

impl PermissionRow {
    /// Whether it is one of Roster's own permissions, but not their root.
    fn is_builtin(&self) -> bool {
        self.meaning.is_some() && self.depth > 0
    }
}

/// Why no role of an organization can have a permission.
#[derive(Clone, Copy)]
enum Barred {
    /// It is for the whole site, so only roles of the organization `platform` can have it.
    Site,
    /// The organization does not have the application.
    Application,
}

struct Grid {
    rows: Vec<PermissionRow>,
    columns: Vec<Column>,
    /// All roles of the organization.
    roles: Vec<Value>,
    /// The parent of each permission that has one.
    parents: HashMap<String, String>,
    /// The permissions without a parent of which the visitor may give nothing.
    withheld: Vec<String>,
    may_change: bool,
}

pub async fn show(visit: &Visit) -> Result<View> {
    let wanted: Vec<&str> =
        visit.query.iter().filter(|(name, _)| name == "role").map(|(_, key)| key.as_str()).collect();
    let mut grid = load(visit, &wanted).await?;
    if visit.query("view") == Some("copy") {
        grid.copy();
    }
    Ok(page(visit, &grid, &[]).into())
}

pub async fn act(visit: &Visit) -> Result<View> {
    let ids: Vec<&str> = visit.submitted_all("role").collect();
    if ids.is_empty() || ids.len() > COLUMNS_MAX {
        return Err(ErrorCode::BadInput.into());
    }
    let mut grid = load(visit, &ids).await?;
    let reports = match visit.submitted("act") {
        Some("preview") => {
            grid.read(visit);
            changes::preview(visit, &grid).await
        }
        Some("apply") => {
            grid.read(visit);
            changes::apply(visit, &grid).await
        }
        Some("change") => {
            grid.read_difference(visit);
            changes::apply(visit, &grid).await
        }
        _ => return Err(ErrorCode::BadInput.into()),
    };
    if !reports.is_empty() && reports.iter().all(Report::is_done) {
        return Ok(View::Redirect(own_address(visit), Some(changes::notice(visit, &grid, &reports))));
    }
    if reports.iter().any(Report::is_done) {
        // Some roles were changed: the page shows their present state.
        let mut present = load(visit, &ids).await?;
        present.read(visit);
        grid = present;
    }
    let content = page(visit, &grid, &reports);
    Ok(match reports.iter().find_map(Report::error) {
        Some(error) => content.status_of(error).into(),
        None => content.into(),
    })
}

/// This page with its query, without the public path. A copy that is saved is an ordinary grid.
fn own_address(visit: &Visit) -> String {
    let view = visit.query("view").filter(|view| *view != "copy").unwrap_or_default();
    let href = visit.with_query(&[("view", view)]);
    href.strip_prefix(&visit.href("")).unwrap_or(&href).to_owned()
}

/// The text that permissions must contain. A copy shows all of them, since it changes all.
fn keyword(visit: &Visit) -> String {
    let is_copy = visit.query("view") == Some("copy");
    visit.query("q").filter(|_| !is_copy).unwrap_or_default().to_lowercase()
}

/// Loads the catalog and these roles, named by key or id; the first ones if none is known.
async fn load(visit: &Visit, wanted: &[&str]) -> Result<Grid> {
    let (catalog, roles, mine) = join3(
        visit.call(op("get_permission_catalog").query("tree", true)),
        visit.call(op("list_roles")),
        visit.find(op("get_my_permissions")),
    )
    .await;
    let (catalog, roles) = (catalog?.data, each(&roles?.data, "roles").to_vec());
    let mut chosen: Vec<&Value> = Vec::new();
    for name in wanted {
        let found = roles.iter().find(|role| role["key"] == *name || role["id"] == *name);
        chosen.extend(found.filter(|role| !chosen.iter().any(|known| known["id"] == role["id"])));
    }
    if chosen.is_empty() {
        chosen.extend(&roles);
    }
    chosen.truncate(COLUMNS_MAX);
    let held = chosen.iter().map(|role| visit.call(op("list_role_permissions").at(text(role, "id"))));
    let held = join_all(held).await;
    let columns =
        chosen.iter().zip(held).map(|(role, held)| Ok(Column::of(visit, role, &held?))).collect::<Result<Vec<_>>>()?;
    let snapshot = visit.console.app.snapshot();
    let tenant = OrganizationId::of(visit.organization().map_or("", |here| here.id.as_str()));
    let mut walk = Walk {
        mine: mine.as_ref().and_then(|mine| mine["permissions"].as_object()),
        snapshot: &snapshot,
        tenant,
        language: visit.language,
        rows: Vec::new(),
        parents: HashMap::new(),
    };
    let mut withheld = Vec::new();
    for node in each(&catalog, "tree") {
        let name = text(node, "name");
        if !walk.add(node, 0, false) && walk.barred(name).is_none() {
            withheld.push(name.to_owned());
        }
    }
    let may_change = visit.may("replace_role_permissions");
    let mut grid = Grid { rows: walk.rows, columns, parents: walk.parents, withheld, may_change, roles };
    grid.filter(&keyword(visit), visit.query("view") == Some("differences"));
    if visit.query("q").is_none() && visit.query("view").is_none() && visit.query("all").is_none() {
        grid.leave_out_builtin(&snapshot, tenant);
    }
    Ok(grid)
}

impl Column {
    fn of(visit: &Visit, role: &Value, answer: &Answer) -> Self {
        let held: BTreeSet<String> = each(&answer.data, "permissions")
            .iter()
            .filter(|node| node["implied"] != true)
            .map(|node| text(node, "name").to_owned())
            .collect();
        let etag = answer.etag.clone().unwrap_or_default();
        Self {
            id: text(role, "id").to_owned(),
            key: text(role, "key").to_owned(),
            name: title_of(visit, role).to_owned(),
            is_open: role["status"] == "open",
            is_protected: is_protected(role),
            version: etag.clone(),
            etag,
            checked: held.clone(),
            held,
        }
    }
}

/// Makes rows of the tree of permissions.
struct Walk<'m> {
    /// What the visitor holds; `None` if that is unknown.
    mine: Option<&'m Map<String, Value>>,
    snapshot: &'m Snapshot,
    tenant: OrganizationId,
    language: Language,
    rows: Vec<PermissionRow>,
    parents: HashMap<String, String>,
}

impl Walk<'_> {
    /// Adds a permission and those below it. Returns whether the visitor may give one of them.
    fn add(&mut self, node: &Value, depth: usize, is_below_closed: bool) -> bool {
        let name = text(node, "name");
        let is_asleep = is_below_closed || node["status"] == "close";
        let is_category = text(node, "http_path").is_empty();
        let (at, barred) = (self.rows.len(), self.barred(name));
        self.rows.push(PermissionRow {
            name: name.to_owned(),
            depth,
            has_children: !each(node, "children").is_empty(),
            is_asleep,
            request: if is_category {
                String::new()
            } else {
                format!("{} {}", text(node, "http_methods"), text(node, "http_path"))
            },
            meaning: permissions::meaning(name, self.language),
            may_give: false,
            barred,
            is_shown: true,
        });
        let mut may_below = false;
        for child in each(node, "children") {
            self.parents.insert(text(child, "name").to_owned(), name.to_owned());
            may_below |= self.add(child, depth + 1, is_asleep);
        }
        // What is asleep is in effect for nobody, so the answer does not tell whether the visitor holds it.
        let holds = is_asleep || self.mine.is_none_or(|mine| mine.contains_key(name));
        let Some(row) = self.rows.get_mut(at) else { return may_below };
        row.may_give = row.barred.is_none() && (holds || (is_category && may_below));
        row.may_give || may_below
    }

    /// Why no role of the organization can have this permission.
    fn barred(&self, name: &str) -> Option<Barred> {
        let catalog = &self.snapshot.catalog;
        let slot = catalog.find(name)?.slot;
        if !catalog.is_for(slot, self.tenant) {
            return Some(Barred::Application);
        }
        let may_have = catalog.is_in_tenant(slot, self.tenant) || self.snapshot.is_platform(self.tenant);
        (!may_have).then_some(Barred::Site)
    }
}

impl Grid {
    /// The ancestors of a permission, the nearest first.
    fn ancestors<'g>(&'g self, name: &str) -> impl Iterator<Item = &'g str> {
        let parent = |name: &str| self.parents.get(name).map(String::as_str);
        std::iter::successors(parent(name), move |name| parent(name))
    }

    /// The ancestors of these permissions.
    fn above<'g>(&'g self, names: &BTreeSet<String>) -> HashSet<&'g str> {
        names.iter().flat_map(|name| self.ancestors(name)).collect()
    }

    /// Shows only permissions whose names contain the text, and their ancestors. `is_difference` leaves out those that
    /// the first two roles both hold or both lack.
    fn filter(&mut self, keyword: &str, is_difference: bool) {
        if keyword.is_empty() && !is_difference {
            return;
        }
        let differs = |name: &String| match self.columns.as_slice() {
            [first, second, ..] => first.held.contains(name) != second.held.contains(name),
            _ => true,
        };
        let fits =
            |row: &&PermissionRow| row.name.to_lowercase().contains(keyword) && (!is_difference || differs(&row.name));
        let found: BTreeSet<String> = self.rows.iter().filter(fits).map(|row| row.name.clone()).collect();
        let above: HashSet<String> = self.above(&found).into_iter().map(str::to_owned).collect();
        for row in &mut self.rows {
            row.is_shown = found.contains(&row.name) || above.contains(&row.name);
        }
    }

    /// Leaves out what is below Roster's own application, if the organization has permissions of another one. The
    /// roles of the organization `platform` are about Roster.
    fn leave_out_builtin(&mut self, snapshot: &Snapshot, tenant: OrganizationId) {
        let has_others = self.rows.iter().any(|row| row.depth == 0 && row.name != ROSTER_APP);
        if !has_others || snapshot.is_platform(tenant) {
            return;
        }
        for row in self.rows.iter_mut().filter(|row| row.is_builtin()) {
            row.is_shown = false;
        }
    }

    /// How many of Roster's own permissions are left out.
    fn left_out(&self) -> usize {
        self.rows.iter().filter(|row| row.is_builtin() && !row.is_shown).count()
    }

    /// Fills the second role in like the first one.
    fn copy(&mut self) {
        let [first, second, ..] = self.columns.as_mut_slice() else { return };
        if second.is_protected {
            return;
        }
        for row in self.rows.iter().filter(|row| row.may_give) {
            if first.held.contains(&row.name) {
                second.checked.insert(row.name.clone());
            } else {
                second.checked.remove(&row.name);
            }
        }
    }

    /// The names of the permissions whose boxes the visitor can change.
    fn changeable(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter(|row| row.is_shown && row.may_give).map(|row| row.name.as_str())
    }

    /// Which of these permissions a role holds, for the form: what the visitor changes is compared with it.
    fn held(&self, column: &Column) -> String {
        if column.is_protected {
            return String::new();
        }
        self.changeable().filter(|name| column.held.contains(*name)).collect::<Vec<_>>().join(" ")
    }

    /// Reads what the form changes, compared with what the roles held when it was made, so that the changes of others
    /// stay. Permissions that the form did not show stay as they are.
    fn read(&mut self, visit: &Visit) {
        let shown = names(visit.submitted("shown").unwrap_or_default());
        let givable = self.rows.iter().filter(|row| row.may_give).map(|row| row.name.as_str());
        let givable: Vec<&str> = givable.filter(|name| shown.contains(name)).collect();
        let sent = visit.submitted_all("version").zip(visit.submitted_all("held"));
        for (n, (id, (version, held))) in visit.submitted_all("role").zip(sent).enumerate() {
            let Some(column) = self.columns.iter_mut().find(|column| column.id == id && !column.is_protected) else {
                continue;
            };
            let held = names(held);
            let checked: HashSet<&str> = visit.submitted_all(&format!("c{n}")).collect();
            version.clone_into(&mut column.version);
            for name in &givable {
                let is_checked = checked.contains(name);
                if is_checked && !held.contains(name) {
                    column.checked.insert((*name).to_owned());
                } else if !is_checked && held.contains(name) {
                    column.checked.remove(*name);
                }
            }
        }
    }

    /// Reads what to add to each role and what to remove, as an Undo sends it.
    fn read_difference(&mut self, visit: &Visit) {
        let changes = visit.submitted_all("add").zip(visit.submitted_all("remove"));
        for (id, (added, removed)) in visit.submitted_all("role").zip(changes) {
            let Some(column) = self.columns.iter_mut().find(|column| column.id == id) else { continue };
            column.checked.extend(names(added).into_iter().map(str::to_owned));
            for name in names(removed) {
                column.checked.remove(name);
            }
        }
    }
}

/// The names in a field of the form.
fn names(text: &str) -> HashSet<&str> {
    text.split(' ').filter(|name| !name.is_empty()).collect()
}

fn page(visit: &Visit, grid: &Grid, reports: &[Report]) -> Content {
    let t = Words::of(visit.language);
    let copied = match grid.columns.as_slice() {
        [first, second, ..] if visit.form.is_empty() && second.checked != second.held => {
            Some(fill(t.copied, &[&second.name, &first.name]))
        }
        _ => None,
    };
    let body = html! {
        p { (t.about) }
        @if let Some(copied) = copied { (notice(Tone::Plain, &copied, None)) }
        (cells::toolbar(visit, t, grid))
        (cells::withheld(t, grid))
        (cells::form(visit, t, grid, reports))
    };
    Content::new(t.title, body)
}
