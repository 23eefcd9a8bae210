//! Writes an import: the entries of its application that it adds, changes, renames and orphans, and the organizations
//! that have the application.
//!
//! **Invariant.** A permission of a role never applies to another request because names were exchanged. An operation of
//! an OpenAPI document is identified by its method and path: if the next version has another name for it, its entry is
//! renamed, and roles keep it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::import::{Entry, Faults, Import};
use super::store::{self, PermissionRow};
use crate::kernel::app::Transaction;
use crate::kernel::authz;
use crate::kernel::authz::catalog::{Catalog, Node, PermissionIndex};
use crate::kernel::authz::path::Template;
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::OrganizationId;

/// Options for writing an import.
#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    pub entries_max: u64,
    /// Compute the result without writing anything.
    pub dry_run: bool,
    /// Also orphan and change entries that come from another document.
    pub replace: bool,
    /// Add new entries closed.
    pub closed: bool,
    /// Ids or codes of the organizations that have the application, `*` for all; `None` keeps the current ones.
    pub organizations: Option<Vec<String>>,
}

/// The result of an import, as sorted names. An orphan is listed only by the import that orphans it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    /// Former and new names.
    pub renamed: Vec<(String, String)>,
    pub orphaned: Vec<String>,
    /// The other document whose entries are orphaned or changed, if any.
    pub replaces: Option<String>,
    /// The organizations that have the application; `None` for all.
    pub organizations: Option<Vec<OrganizationId>>,
    /// Whether the application had no entries before.
    pub is_new: bool,
}

impl Imported {
    /// Returns how many entries of another document are orphaned or changed. Changes by Roster's own format do not
    /// count.
    fn lost(&self, import: &Import) -> usize {
        let changed = if import.title.is_some() { self.changed.len() } else { 0 };
        self.orphaned.len() + changed
    }
}

/// Writes an import and returns its result. With `dry_run` nothing is written.
///
/// Fails with `CatalogOfAnother` if it would orphan or change entries of another document without `replace`.
pub fn write(t: &Transaction<'_>, import: &Import, terms: &PublishOptions) -> Result<(Imported, Option<Change>)> {
    let catalog = &t.snapshot().catalog;
    // Entries that were imported before titles were stored count as imported in Roster's own format.
    let known_title = store::find_document(t, &import.app)?;
    let former_title = known_title.clone().flatten();
    let mut imported = compare(catalog, import, former_title == import.title)?;
    let total = catalog.len() as u64 + imported.added.len() as u64;
    if total > terms.entries_max {
        let entries_max = terms.entries_max;
        let message = format!("the catalog would have {total} entries, and limits.catalog_entries is {entries_max}");
        return Err(Error::fields(vec![Field::at(&["body"], message)]));
    }
    if former_title != import.title && imported.lost(import) > 0 {
        imported.replaces = Some(document_name(former_title.as_deref()));
    }
    let former_organizations = catalog.organizations(&import.app).map(<[OrganizationId]>::to_vec);
    imported.organizations = match &terms.organizations {
        None => former_organizations.clone(),
        Some(names) => resolve_organizations(t.snapshot(), names)?,
    };
    if terms.dry_run {
        return Ok((imported, None));
    }
    if let Some(replaced) = imported.replaces.as_ref().filter(|_| !terms.replace) {
        return Err(replace_required(import, &imported, replaced));
    }
    // Another document's entries in Roster's own format, as `catalog export` prints them, keep that document's title.
    let title = if import.title.is_none() && imported.orphaned.is_empty() { &former_title } else { &import.title };
    let is_known = known_title.is_some() && *title == former_title;
    let Imported { added, changed, renamed, orphaned, organizations, .. } = &imported;
    let is_same = added.is_empty() && changed.is_empty() && renamed.is_empty() && orphaned.is_empty();
    if is_same && *organizations == former_organizations && (is_known || title.is_none()) {
        return Ok((imported, None));
    }
    store::put_document(t, &import.app, title.as_deref())?;
    if *organizations != former_organizations {
        store::replace_app_organizations(t, &import.app, organizations.as_deref().unwrap_or_default())?;
    }
    write_entries(t, catalog, import, &imported, terms.closed)?;
    Ok((imported, Some(authz::store::catalog(t)?)))
}

fn write_entries(
    t: &Transaction<'_>,
    catalog: &Catalog,
    import: &Import,
    imported: &Imported,
    closed: bool,
) -> Result<()> {
    let Imported { added, changed, renamed, orphaned, .. } = imported;
    let slots: Vec<(PermissionIndex, &str)> =
        renamed.iter().filter_map(|(from, to)| Some((catalog.find(from)?.slot, to.as_str()))).collect();
    store::rename_permissions(t, &slots)?;
    let former: HashMap<&str, &str> = renamed.iter().map(|(from, to)| (to.as_str(), from.as_str())).collect();
    let added: HashSet<&str> = added.iter().map(String::as_str).collect();
    let touched: HashSet<&str> =
        added.iter().copied().chain(changed.iter().map(String::as_str)).chain(former.keys().copied()).collect();
    let differs = |name: &str| touched.contains(name);
    let new_names: HashMap<PermissionIndex, &str> = slots.iter().copied().collect();
    for (position, entry) in (0..).zip(&import.entries).filter(|(_, entry)| differs(&entry.name)) {
        let name = entry.name.as_str();
        let known = if added.contains(name) { None } else { catalog.find(former.get(name).unwrap_or(&name)) };
        let is_still_open = |node: &Node| match former.contains_key(name) {
            true => stays_open(catalog, node, entry, &new_names),
            false => node.is_open,
        };
        let row = PermissionRow {
            name,
            app: &import.app,
            http_methods: entry.http_methods.as_deref(),
            http_path: entry.http_path.as_deref(),
            is_open: entry.is_open.or(known.map(is_still_open)).unwrap_or(!closed),
            user_type: entry.user_type,
            position,
        };
        store::put_permission(t, &row, known.is_some())?;
    }
    for entry in import.entries.iter().filter(|entry| differs(&entry.name)) {
        store::set_parent(t, &entry.name, entry.parent.as_deref())?;
    }
    orphaned.iter().try_for_each(|name| store::orphan_permission(t, name))
}

/// Whether a renamed entry stays open. An entry that its rename moves out of a closed category is closed.
fn stays_open<'c>(
    catalog: &'c Catalog,
    node: &Node,
    entry: &Entry,
    new_names: &HashMap<PermissionIndex, &'c str>,
) -> bool {
    let is_moved = parent_of(catalog, node, new_names) != entry.parent.as_deref();
    node.is_open && (!is_moved || node.orphaned || catalog.is_open(node.slot))
}

/// Returns the name that the entry's category will have after the renames in `new_names`.
fn parent_of<'c>(catalog: &'c Catalog, node: &Node, new_names: &HashMap<PermissionIndex, &'c str>) -> Option<&'c str> {
    let parent = node.parent.and_then(|slot| catalog.get(slot))?;
    Some(new_names.get(&parent.slot).copied().unwrap_or(&parent.name))
}

fn replace_required(import: &Import, imported: &Imported, replaced: &str) -> Error {
    let message = format!(
        "{} entries of the application {} come from {replaced}, but this is {}: set another application (`app`, `--app`), \
         or set `replace` to orphan or change them",
        imported.lost(import),
        import.app,
        document_name(import.title.as_deref()),
    );
    Error::new(ErrorCode::CatalogOfAnother).with_message(message)
}

fn document_name(title: Option<&str>) -> String {
    title.map_or_else(
        || "a catalog in Roster's own format".to_owned(),
        |title| format!("the OpenAPI document {title:?}"),
    )
}

/// Resolves ids or codes of organizations; `None` for all. Fails with `OrganizationNotFound`.
fn resolve_organizations(snapshot: &Snapshot, names: &[String]) -> Result<Option<Vec<OrganizationId>>> {
    if names.iter().any(|name| name == "*") {
        return Ok(None);
    }
    let mut ids = Vec::new();
    for name in names {
        let message =
            || Error::new(ErrorCode::OrganizationNotFound).with_message(format!("there is no organization {name}"));
        ids.push(snapshot.tenant_named(name).ok_or_else(message)?.id);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(Some(ids))
}

// ── comparison ──

fn compare(catalog: &Catalog, import: &Import, is_same_document: bool) -> Result<Imported> {
    let mut faults = Faults::default();
    let mut imported = Imported::default();
    // In Roster's own format the author chooses the names, and another document's operation at the same path is not the
    // same.
    let can_rename = is_same_document && import.title.is_some();
    let renamed = if can_rename { renames(catalog, import) } else { HashMap::new() };
    let vacated: HashSet<&str> = renamed.values().map(|node| &*node.name).collect();
    // The new names of renamed entries.
    let new_names: HashMap<PermissionIndex, &str> = renamed.iter().map(|(name, node)| (node.slot, *name)).collect();
    for entry in &import.entries {
        let name = entry.name.as_str();
        let known = renamed.get(name).copied().or_else(|| catalog.find(name).filter(|_| !vacated.contains(name)));
        match known {
            None => imported.added.push(entry.name.clone()),
            Some(node) if *node.app != *import.app => {
                faults.add(
                    &entry.place,
                    format!("{} is already a permission of the application {}: use a prefix", entry.name, node.app),
                );
            }
            Some(node) if *node.name != *name => imported.renamed.push((node.name.to_string(), entry.name.clone())),
            Some(node) if differs(catalog, node, entry, &new_names) => imported.changed.push(entry.name.clone()),
            Some(_) => {}
        }
    }
    if !faults.0.is_empty() {
        return Err(Error { fields: faults.0, ..Error::new(ErrorCode::PermissionExists) });
    }
    let kept: HashSet<&str> =
        import.entries.iter().map(|entry| entry.name.as_str()).chain(vacated.iter().copied()).collect();
    let of_app = || catalog.iter().filter(|node| *node.app == *import.app && !node.orphaned);
    imported.is_new = of_app().next().is_none();
    imported.orphaned = of_app().filter(|node| !kept.contains(&*node.name)).map(|node| node.name.to_string()).collect();
    for names in [&mut imported.added, &mut imported.changed, &mut imported.orphaned] {
        names.sort_unstable();
    }
    imported.renamed.sort_unstable();
    Ok(imported)
}

fn differs<'c>(
    catalog: &'c Catalog,
    node: &Node,
    entry: &Entry,
    new_names: &HashMap<PermissionIndex, &'c str>,
) -> bool {
    node.orphaned
        || parent_of(catalog, node, new_names) != entry.parent.as_deref()
        || node.http_methods.as_deref() != entry.http_methods.as_deref()
        || node.http_path.as_deref() != entry.http_path.as_deref()
        || entry.is_open.is_some_and(|is_open| is_open != node.is_open)
        || node.user_type != entry.user_type
}

/// Returns the renamed entries: new name → the entry that has the same methods and path.
fn renames<'a>(catalog: &'a Catalog, import: &'a Import) -> HashMap<&'a str, &'a Node> {
    let mut by_route: HashMap<(&str, Template), &Node> = HashMap::new();
    for node in catalog.iter().filter(|node| *node.app == *import.app && !node.orphaned) {
        if let (Some(methods), Some(Ok(template))) =
            (&node.http_methods, node.http_path.as_deref().map(Template::parse))
        {
            by_route.insert((&**methods, template), node);
        }
    }
    let names: HashSet<&str> = import.entries.iter().map(|entry| entry.name.as_str()).collect();
    let mut renamed: HashMap<&str, &Node> = HashMap::new();
    for entry in &import.entries {
        let (Some(methods), Some(Ok(template))) =
            (entry.http_methods.as_deref(), entry.http_path.as_deref().map(Template::parse))
        else {
            continue;
        };
        let Some(node) = by_route.get(&(methods, template)).copied() else { continue };
        if *node.name != *entry.name {
            renamed.insert(&entry.name, node);
        }
    }
    drop_conflicting(catalog, &mut renamed);
    rename_categories(catalog, import, &names, &mut renamed);
    renamed
}

/// Drops renames to a name that another entry has, unless that entry is renamed as well.
fn drop_conflicting(catalog: &Catalog, renamed: &mut HashMap<&str, &Node>) {
    loop {
        let vacated: HashSet<PermissionIndex> = renamed.values().map(|node| node.slot).collect();
        let before = renamed.len();
        renamed.retain(|name, _| catalog.find(name).is_none_or(|holder| vacated.contains(&holder.slot)));
        if renamed.len() == before {
            return;
        }
    }
}

/// Renames a category if all its renamed entries move to the same new category, level by level from the bottom up, so
/// that a closed category stays closed.
fn rename_categories<'a>(
    catalog: &'a Catalog,
    import: &'a Import,
    names: &HashSet<&str>,
    renamed: &mut HashMap<&'a str, &'a Node>,
) {
    let parents: HashMap<&str, &str> =
        import.entries.iter().filter_map(|entry| Some((entry.name.as_str(), entry.parent.as_deref()?))).collect();
    let mut level: Vec<(&'a str, &'a Node)> = renamed.iter().map(|(name, node)| (*name, *node)).collect();
    while !level.is_empty() {
        let mut found: BTreeMap<PermissionIndex, Option<&'a str>> = BTreeMap::new();
        for (name, node) in &level {
            let (Some(to), Some(from)) = (parents.get(name).copied(), node.parent) else { continue };
            let known = found.entry(from).or_insert(Some(to));
            *known = known.filter(|known| *known == to);
        }
        let is_free = |name: &str| catalog.find(name).is_none() && !renamed.contains_key(name);
        let mut next: Vec<(&'a str, &'a Node)> = Vec::new();
        for (slot, to) in found {
            let (Some(to), Some(node)) = (to, catalog.get(slot)) else { continue };
            let is_gone = !names.contains(&*node.name) && !node.orphaned && *node.app == *import.app;
            if is_gone && is_free(to) && !next.iter().any(|(name, _)| *name == to) {
                next.push((to, node));
            }
        }
        renamed.extend(next.iter().copied());
        level = next;
    }
}
