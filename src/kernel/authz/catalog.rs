//! The catalog in memory: the tree of permissions and, for each application, the trie that routes paths to permissions.
//!
//! It is immutable and shared by all tenants. The rare imports that change it rebuild it as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use super::path::{Template, Tree};
use super::permission::{BUILTIN_PERMISSIONS, Permission};
use crate::kernel::ids::OrganizationId;
use crate::kernel::secret;

/// The index of a permission's bit in a set.
pub type PermissionIndex = u32;

/// A set of permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PermissionSet(Vec<u64>);

impl PermissionSet {
    pub fn contains(&self, slot: PermissionIndex) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub fn insert(&mut self, slot: PermissionIndex) {
        let word = slot as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    pub fn union(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = PermissionIndex> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(n, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| n as PermissionIndex * 64 + bit)
        })
    }
}

impl FromIterator<PermissionIndex> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = PermissionIndex>>(slots: I) -> Self {
        let mut bits = Self::default();
        slots.into_iter().for_each(|slot| bits.insert(slot));
        bits
    }
}

/// The kind of users that a permission is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserType {
    Backend,
    Frontend,
}

/// One permission as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub slot: PermissionIndex,
    pub name: Arc<str>,
    pub app: Arc<str>,
    pub parent: Option<PermissionIndex>,
    /// Methods joined with `|`, or `*`; `None` for a category.
    pub http_methods: Option<Box<str>>,
    pub http_path: Option<Box<str>>,
    pub is_open: bool,
    pub user_type: UserType,
    pub orphaned: bool,
    pub position: i64,
}

/// Parses `GET|POST` or `*` into tokens. The error is a sentence for the user.
pub fn methods(text: &str) -> Result<Vec<&str>, String> {
    let tokens: Vec<&str> = text.split('|').collect();
    for token in &tokens {
        if *token != "*"
            && (token.is_empty() || token.len() > 20 || !token.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            return Err(format!("the methods {text:?} are not upper-case names joined with |, or *"));
        }
    }
    let mut unique = tokens.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() != tokens.len() || (tokens.len() > 1 && tokens.contains(&"*")) {
        return Err(format!("the methods {text:?} list a method twice"));
    }
    Ok(tokens)
}

/// One template of an application, with its permissions.
#[derive(Debug, Clone)]
struct Route {
    template: Template,
    /// The template as imported; for explanations.
    text: Box<str>,
    methods: Vec<(Box<str>, Vec<PermissionIndex>)>,
    /// Permissions for every method.
    any: Vec<PermissionIndex>,
}

impl Route {
    fn slots(&self, method: &str) -> &[PermissionIndex] {
        self.methods.iter().find(|(token, _)| &**token == method).map_or(&[], |(_, slots)| slots)
    }

    fn add(&mut self, method: &str, slots: &[PermissionIndex]) {
        if method == "*" {
            return self.any.extend(slots);
        }
        match self.methods.iter_mut().find(|(token, _)| &**token == method) {
            Some((_, known)) => known.extend(slots),
            None => self.methods.push((method.into(), slots.to_vec())),
        }
    }
}

/// The templates of one application. Nearly all are in the trie; the other two lists cost nothing if they are empty.
#[derive(Clone, Default)]
struct Routes {
    trie: matchit::Router<usize>,
    /// Templates with text around parameters.
    mixed: Tree,
    /// Templates that match any number of segments, in their order. Searched only if no other template matches.
    wide: Vec<usize>,
    all: Vec<Route>,
}

/// The result of routing a method and path.
pub enum RouteMatch<'c> {
    /// No template matches.
    NoRoute,
    /// The matching template, which does not list the method.
    OtherMethod(&'c str),
    /// The template, and the permissions of which any one is enough.
    Permissions(&'c str, [&'c [PermissionIndex]; 2]),
}

/// All permissions of all applications.
pub struct Catalog {
    nodes: Vec<Option<Node>>,
    by_name: HashMap<Arc<str>, PermissionIndex>,
    /// There are few, so a linear search is faster than hashing a name.
    apps: Vec<(Arc<str>, Routes)>,
    /// Permissions of applications that not all organizations have, and the organizations that have each of these.
    reserved: PermissionSet,
    organizations: HashMap<Arc<str>, Vec<OrganizationId>>,
    /// Permissions that are open and not orphaned, and whose ancestors are open.
    open: PermissionSet,
    /// Permissions that an owner of a tenant holds without ticks: all except site-wide operations.
    tenant: PermissionSet,
    /// The index of each of Roster's own permissions.
    builtin: Vec<PermissionIndex>,
    len: usize,
}

impl Catalog {
    /// Builds the catalog from rows, which were validated when they were written.
    pub fn build(rows: Vec<Node>) -> Self {
        let len = rows.len();
        let end = rows.iter().map(|node| node.slot as usize + 1).max().unwrap_or(0);
        let mut nodes: Vec<Option<Node>> = vec![None; end];
        for node in rows {
            let slot = node.slot as usize;
            nodes[slot] = Some(node);
        }
        let by_name: HashMap<_, _> = nodes.iter().flatten().map(|node| (node.name.clone(), node.slot)).collect();
        let builtin: Vec<PermissionIndex> = BUILTIN_PERMISSIONS
            .iter()
            .map(|own| by_name.get(own.name).copied().unwrap_or(PermissionIndex::MAX))
            .collect();
        let open = open_nodes(&nodes);
        let (tenant, reserved, organizations) = (PermissionSet::default(), PermissionSet::default(), HashMap::new());
        let mut catalog =
            Self { apps: Vec::new(), reserved, organizations, open, tenant, builtin, by_name, nodes, len };
        catalog.tenant = catalog.iter().map(|node| node.slot).filter(|slot| !catalog.is_site_only(*slot)).collect();
        catalog.apps = catalog.routed();
        catalog
    }

    /// Restricts applications to the organizations that have them.
    pub fn reserved(mut self, organizations: HashMap<Arc<str>, Vec<OrganizationId>>) -> Self {
        self.reserved =
            self.iter().filter(|node| organizations.contains_key(&node.app)).map(|node| node.slot).collect();
        self.organizations = organizations;
        self
    }

    /// The organizations that have an application; `None` if all have it.
    pub fn organizations(&self, app: &str) -> Option<&[OrganizationId]> {
        self.organizations.get(app).map(Vec::as_slice)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, slot: PermissionIndex) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }

    pub fn find(&self, name: &str) -> Option<&Node> {
        self.get(*self.by_name.get(name)?)
    }

    pub fn index_of(&self, permission: Permission) -> PermissionIndex {
        self.builtin[permission.index()]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// The version of an application's permissions: a digest, which changes with them and is stable across restarts.
    pub fn version_of(&self, app: &str) -> i64 {
        let name = |slot: Option<PermissionIndex>| slot.and_then(|slot| self.get(slot)).map(|node| node.name.clone());
        let entries = self.iter().filter(|node| *node.app == *app).map(|node| {
            let Node { parent, http_methods, http_path, is_open, user_type, orphaned, .. } = node;
            format!(
                "{} {:?} {http_methods:?} {http_path:?} {is_open} {user_type:?} {orphaned}\n",
                node.name,
                name(*parent)
            )
        });
        let mut entries: Vec<String> = entries.collect();
        entries.sort_unstable();
        entries.extend(self.organizations(app).map(|organizations| format!("{organizations:?}")));
        let digest = secret::hash(&entries.concat());
        let first = digest.iter().take(7).fold(0, |version, byte| (version << 8) | i64::from(*byte));
        first + 1
    }

    /// Whether the permission is in effect: it is open, its ancestors are open, and the last import contains it.
    pub fn is_open(&self, slot: PermissionIndex) -> bool {
        self.open.contains(slot)
    }

    /// Whether the organization can hold the permission.
    pub fn is_in_tenant(&self, slot: PermissionIndex, tenant: OrganizationId) -> bool {
        self.tenant.contains(slot) && self.is_for(slot, tenant)
    }

    /// Whether the permission belongs to an application that this organization has.
    pub fn is_for(&self, slot: PermissionIndex, tenant: OrganizationId) -> bool {
        !self.reserved.contains(slot)
            || self.get(slot).and_then(|node| self.organizations(&node.app)).is_none_or(|all| all.contains(&tenant))
    }

    /// The chain of parents, nearest first.
    pub fn ancestors(&self, slot: PermissionIndex) -> impl Iterator<Item = PermissionIndex> {
        std::iter::successors(self.get(slot).and_then(|node| node.parent), |slot| self.get(*slot)?.parent)
    }

    /// Finds the permissions of a method and canonical path.
    pub fn route(&self, app: &str, method: &str, path: &str) -> RouteMatch<'_> {
        let Some((_, routes)) = self.apps.iter().find(|(name, _)| **name == *app) else { return RouteMatch::NoRoute };
        let Some(route) = routes.find(path) else { return RouteMatch::NoRoute };
        let own = route.slots(method);
        // `*` matches only methods that are upper-case tokens.
        let is_token = |method: &str| methods(method).is_ok_and(|tokens| tokens == [method] && method != "*");
        let any: &[PermissionIndex] = if !route.any.is_empty() && is_token(method) { &route.any } else { &[] };
        if own.is_empty() && any.is_empty() {
            return RouteMatch::OtherMethod(&route.text);
        }
        RouteMatch::Permissions(&route.text, [own, any])
    }

    /// Whether it is a site-wide operation, which no tenant can hold.
    fn is_site_only(&self, slot: PermissionIndex) -> bool {
        self.builtin.iter().position(|index| *index == slot).is_some_and(|index| BUILTIN_PERMISSIONS[index].site_only)
    }

    fn routed(&self) -> Vec<(Arc<str>, Routes)> {
        let mut apps: HashMap<Arc<str>, Vec<Route>> = HashMap::new();
        let mut known: HashMap<(Arc<str>, Template), usize> = HashMap::new();
        for node in self.iter().filter(|node| !node.orphaned) {
            let (Some(text), Some(tokens)) = (&node.http_path, &node.http_methods) else { continue };
            let (Ok(template), Ok(tokens)) = (Template::parse(text), methods(tokens)) else { continue };
            let routes = apps.entry(node.app.clone()).or_default();
            let index = *known.entry((node.app.clone(), template.clone())).or_insert_with(|| {
                routes.push(Route { template, text: text.clone(), methods: Vec::new(), any: Vec::new() });
                routes.len() - 1
            });
            for token in tokens {
                routes[index].add(token, &[node.slot]);
            }
        }
        apps.into_iter().map(|(app, routes)| (app, Routes::build(routes))).collect()
    }
}

impl Routes {
    fn build(mut direct: Vec<Route>) -> Self {
        for route in &mut direct {
            // GET includes HEAD unless the template lists HEAD.
            let get = route.slots("GET").to_vec();
            if route.slots("HEAD").is_empty() && !get.is_empty() {
                route.add("HEAD", &get);
            }
        }
        let mut all = direct.clone();
        for route in &mut all {
            for umbrella in &direct {
                if umbrella.template.covers(&route.template) {
                    add_umbrella(route, umbrella);
                }
            }
        }
        let mut routes = Self { all, ..Self::default() };
        for (index, route) in routes.all.iter().enumerate() {
            match &route.template {
                wide if wide.is_wide() => routes.wide.push(index),
                mixed if !mixed.is_plain() => routes.mixed.insert(mixed, index),
                plain => {
                    if let Err(e) = routes.trie.insert(plain.trie_route(), index) {
                        tracing::error!(template = %route.text, error = %e, "a template cannot be routed; its paths are denied");
                    }
                }
            }
        }
        let Self { wide, all, .. } = &mut routes;
        wide.sort_by(|a, b| all[*a].template.cmp(&all[*b].template));
        routes
    }

    /// The most specific matching template, in the order that the module `template` defines.
    fn find(&self, path: &str) -> Option<&Route> {
        let plain = self.trie.at(path).ok().map(|found| &self.all[*found.value]);
        let mixed = if self.mixed.is_empty() { None } else { self.mixed.find(path).map(|index| &self.all[index]) };
        match (plain, mixed) {
            (Some(plain), Some(mixed)) => Some(if mixed.template < plain.template { mixed } else { plain }),
            (Some(found), None) | (None, Some(found)) => Some(found),
            (None, None) => self.wide.iter().map(|index| &self.all[*index]).find(|route| route.template.matches(path)),
        }
    }
}

/// Adds the permissions of an umbrella to a template that it covers, for the methods that the template lists.
fn add_umbrella(route: &mut Route, umbrella: &Route) {
    let listed: Vec<Box<str>> = route.methods.iter().map(|(token, _)| token.clone()).collect();
    for method in &listed {
        route.add(method, umbrella.slots(method));
        route.add(method, &umbrella.any);
    }
    if !route.any.is_empty() {
        for (method, slots) in &umbrella.methods {
            if !listed.contains(method) {
                route.add(method, slots);
            }
        }
        route.any.extend(&umbrella.any);
    }
}

fn open_nodes(nodes: &[Option<Node>]) -> PermissionSet {
    let at = |slot: PermissionIndex| nodes.get(slot as usize).and_then(Option::as_ref);
    let is_in_effect = |node: &Node| {
        let parents = std::iter::successors(node.parent.and_then(at), |parent| parent.parent.and_then(at));
        node.is_open && !node.orphaned && parents.take(nodes.len()).all(|parent| parent.is_open)
    };
    nodes.iter().flatten().filter(|node| is_in_effect(node)).map(|node| node.slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(slot: PermissionIndex, name: &str, methods: &str, path: &str) -> Node {
        Node {
            slot,
            name: name.into(),
            app: "main".into(),
            parent: None,
            http_methods: (!methods.is_empty()).then(|| methods.into()),
            http_path: (!path.is_empty()).then(|| path.into()),
            is_open: true,
            user_type: UserType::Backend,
            orphaned: false,
            position: 0,
        }
    }

    fn matched(catalog: &Catalog, method: &str, path: &str) -> Vec<PermissionIndex> {
        match catalog.route("main", method, path) {
            RouteMatch::Permissions(_, slots) => slots.concat(),
            RouteMatch::OtherMethod(_) => vec![98],
            RouteMatch::NoRoute => vec![99],
        }
    }

    #[test]
    fn the_most_specific_template_decides_and_umbrellas_add() {
        let catalog = Catalog::build(vec![
            node(0, "one", "GET", "/members/:id"),
            node(1, "export", "POST", "/members/export"),
            node(2, "umbrella", "GET|POST|DELETE", "/members/*rest"),
            node(3, "every", "*", "/files/{name}"),
            node(4, "root", "GET", "/"),
            node(5, "deep", "GET", "/members/{id}/files/*rest"),
            node(6, "all", "PUT", "/*rest"),
        ]);
        assert_eq!(matched(&catalog, "GET", "/members/7"), [0, 2]);
        assert_eq!(matched(&catalog, "HEAD", "/members/7"), [0, 2]);
        assert_eq!(matched(&catalog, "DELETE", "/members/7"), [98], "the specific template does not list it");
        assert_eq!(matched(&catalog, "GET", "/members/export"), [98], "no fall-back to a looser template");
        assert_eq!(matched(&catalog, "POST", "/members/export"), [1, 2]);
        assert_eq!(matched(&catalog, "DELETE", "/members/7/avatar"), [2]);
        assert_eq!(matched(&catalog, "GET", "/members/7/files/a/b"), [5, 2]);
        assert_eq!(matched(&catalog, "PUT", "/members/7/files/a"), [98], "the most specific umbrella does not list it");
        assert_eq!(matched(&catalog, "PUT", "/members"), [6]);
        assert_eq!(matched(&catalog, "GET", "/members"), [98]);
        assert_eq!(matched(&catalog, "PUT", "/"), [98]);
        assert_eq!(matched(&catalog, "PROPFIND", "/files/x"), [3]);
        assert_eq!(matched(&catalog, "get", "/files/x"), [98]);
        assert_eq!(matched(&catalog, "*", "/files/x"), [98]);
        assert_eq!(matched(&catalog, "GET|POST", "/files/x"), [98]);
        assert_eq!(matched(&catalog, "GET", "/"), [4]);
    }

    #[test]
    fn invalid_methods_are_rejected() {
        for text in ["", "get", "GET|", "GET|GET", "GET|*", "GET POST", "G.T"] {
            assert!(methods(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_around_a_parameter_is_more_specific_and_unlisted_methods_are_denied() {
        let catalog = Catalog::build(vec![
            node(0, "get", "GET", "/v1/tasks/{id}"),
            node(1, "cancel", "POST", "/v1/tasks/{id}:cancel"),
            node(2, "plain", "GET", "/Videos/{id}/stream"),
            node(3, "stream", "GET", "/Videos/{id}/stream.{container}"),
            node(4, "json", "GET", "/clips/{id}.json"),
            node(5, "clip", "GET", "/clips/{id}"),
            node(6, "latest", "GET", "/clips/latest.json"),
            node(7, "contents", "GET", "/contents/{path+}"),
            node(8, "readme", "PUT", "/contents/readme"),
            node(9, "every", "GET|PUT", "/contents/*rest"),
            node(10, "undo", "POST", "/ops/{name+}:undo"),
            node(11, "user", "GET", "/%E4%BD%BF%E7%94%A8%E8%80%85/{id}"),
            node(12, "commit", "GET", "/commits/{ref+}"),
            node(13, "status", "POST", "/commits/{ref+}/status"),
        ]);
        for (method, path, slots) in [
            ("POST", "/v1/tasks/9:cancel", vec![1]),
            ("GET", "/v1/tasks/9:cancel", vec![98]),
            ("GET", "/v1/tasks/9", vec![0]),
            ("POST", "/v1/tasks/9", vec![98]),
            ("GET", "/v1/tasks/:cancel", vec![0]),
            ("GET", "/Videos/7/stream.mp4", vec![3]),
            ("GET", "/Videos/7/stream", vec![2]),
            ("GET", "/Videos/7/stream.", vec![99]),
            ("GET", "/clips/7.json", vec![4]),
            ("GET", "/clips/7", vec![5]),
            ("GET", "/clips/latest.json", vec![6]),
            ("GET", "/contents/docs/a.md", vec![7, 9]),
            ("PUT", "/contents/docs/a.md", vec![98]),
            ("PUT", "/contents/readme", vec![8, 9]),
            ("GET", "/contents/readme", vec![98]),
            ("GET", "/contents", vec![99]),
            ("POST", "/ops/a/b/c:undo", vec![10]),
            ("POST", "/ops/a/b/c", vec![99]),
            ("GET", "/使用者/7", vec![11]),
            ("GET", "/commits/feature/x", vec![12]),
            ("POST", "/commits/feature/x/status", vec![13]),
            ("POST", "/commits/status", vec![98]),
            ("GET", "/commits/feature/x/status", vec![98]),
        ] {
            assert_eq!(matched(&catalog, method, path), slots, "{method} {path}");
        }
    }

    #[test]
    fn a_reserved_application_is_not_available_to_other_organizations() {
        let (acme, bolt) = (OrganizationId::new(), OrganizationId::new());
        let rows = vec![node(0, "own", "", ""), Node { app: "files".into(), ..node(1, "theirs", "", "") }];
        let catalog = Catalog::build(rows).reserved(HashMap::from([("files".into(), vec![acme])]));
        let held = |tenant| [0, 1].map(|slot| catalog.is_in_tenant(slot, tenant));
        assert_eq!((held(acme), held(bolt)), ([true, true], [true, false]));
    }

    #[test]
    fn a_closed_category_closes_its_subtree_and_an_orphan_is_not_in_effect() {
        let mut rows =
            vec![node(0, "area", "", ""), node(1, "area.read", "GET", "/a"), node(2, "area.old", "GET", "/b")];
        rows[1].parent = Some(0);
        rows[2].orphaned = true;
        assert!(Catalog::build(rows.clone()).is_open(1));
        assert!(!Catalog::build(rows.clone()).is_open(2));
        rows[0].is_open = false;
        assert!(!Catalog::build(rows).is_open(1));
    }
}
