//! The catalog in memory: the tree of permissions and, for each application, the trie that routes a path to them.
//!
//! Immutable and shared by all tenants. It is rebuilt as a whole when an import changes it, which is rare.

use std::collections::HashMap;
use std::sync::Arc;

use super::permission::{OWN, Permission};
use super::secret;

/// The bit that stands for a permission.
pub type Slot = u32;

/// A set of permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub fn insert(&mut self, slot: Slot) {
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

    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(n, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| n as Slot * 64 + bit)
        })
    }
}

impl FromIterator<Slot> for Bits {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut bits = Self::default();
        slots.into_iter().for_each(|slot| bits.insert(slot));
        bits
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserType {
    Backend,
    Frontend,
}

/// One permission as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub slot: Slot,
    pub name: Arc<str>,
    pub app: Arc<str>,
    pub parent: Option<Slot>,
    /// Methods joined with `|`, or `*`; absent for a category.
    pub http_methods: Option<Box<str>>,
    pub http_path: Option<Box<str>>,
    pub is_open: bool,
    pub user_type: UserType,
    pub orphaned: bool,
    pub position: i64,
}

/// A path template: literals, parameters, and perhaps a final rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// `None` is a parameter.
    segments: Vec<Option<Box<str>>>,
    rest: bool,
}

/// More segments than any real API nests.
const SEGMENTS_MAX: usize = 32;
const TEMPLATE_BYTES_MAX: usize = 1_024;

impl Template {
    /// Reads `/a/:b/{c}/*rest`, or says in a sentence what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("the path {text:?} {why}"));
        if text.len() > TEMPLATE_BYTES_MAX {
            return wrong(&format!("is longer than {TEMPLATE_BYTES_MAX} bytes"));
        }
        let Some(inner) = text.strip_prefix('/') else { return wrong("must begin with a slash") };
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let mut template = Self { segments: Vec::new(), rest: false };
        if inner.is_empty() {
            return Ok(template);
        }
        for segment in inner.split('/') {
            if template.rest {
                return wrong("has something behind its rest");
            }
            match segment {
                "" | "." | ".." => return wrong("has an empty or dot segment"),
                _ if segment.starts_with('*') => {
                    template.rest = true;
                    continue;
                }
                _ => {}
            }
            let parameter = segment.strip_prefix(':').or_else(|| segment.strip_prefix('{')?.strip_suffix('}'));
            template.segments.push(match parameter {
                Some(name) if is_name(name) => None,
                Some(_) => return wrong("has a parameter without a plain name"),
                None if !is_literal(segment) => {
                    return wrong(&format!(
                        "has the segment {segment:?}, which is neither a literal nor one whole parameter"
                    ));
                }
                None => Some(segment.into()),
            });
        }
        if template.segments.len() > SEGMENTS_MAX {
            return wrong(&format!("has more than {SEGMENTS_MAX} segments"));
        }
        Ok(template)
    }

    /// The form the trie takes. Parameter names are gone: templates of one shape are one route.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for (n, segment) in self.segments.iter().enumerate() {
            match segment {
                Some(literal) => shape.push_str(&format!("/{literal}")),
                None => shape.push_str(&format!("/{{p{n}}}")),
            }
        }
        match (self.rest, shape.is_empty()) {
            (true, _) => shape + "/{*rest}",
            (false, true) => "/".into(),
            (false, false) => shape,
        }
    }

    /// For an order of umbrellas that match one path: from the left, a literal is more specific than a parameter, and
    /// that more than the rest.
    fn specificity(&self) -> Vec<u8> {
        let kinds = self.segments.iter().map(|segment| u8::from(segment.is_none()));
        kinds.chain([2]).collect()
    }

    /// Does this umbrella lie over the path? The rest is at least one segment.
    fn lies_over(&self, path: &str) -> bool {
        let mut segments = path[1..].split('/');
        let fits = self.segments.iter().all(|own| {
            segments
                .next()
                .is_some_and(|segment| !segment.is_empty() && own.as_deref().is_none_or(|own| own == segment))
        });
        fits && segments.next().is_some_and(|segment| !segment.is_empty())
    }

    /// Does this template, an umbrella, lie over all paths of the other one?
    fn covers(&self, other: &Self) -> bool {
        self.rest
            && other.segments.len() + usize::from(other.rest) > self.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(mine, its)| mine.is_none() || mine == its)
            && self != other
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn is_literal(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"%{}*\\#?;".contains(&byte)) && !segment.starts_with(':')
}

/// Reads `GET|POST` or `*` into tokens, or says what is wrong.
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
        return Err(format!("the methods {text:?} name one twice"));
    }
    Ok(tokens)
}

/// What lies behind one template.
#[derive(Debug, Clone)]
struct Route {
    template: Template,
    /// As an import wrote it; for explanations.
    text: Box<str>,
    methods: Vec<(Box<str>, Vec<Slot>)>,
    /// Nodes that take every method.
    any: Vec<Slot>,
}

impl Route {
    fn slots(&self, method: &str) -> &[Slot] {
        self.methods.iter().find(|(token, _)| &**token == method).map_or(&[], |(_, slots)| slots)
    }

    fn add(&mut self, method: &str, slots: &[Slot]) {
        if method == "*" {
            return self.any.extend(slots);
        }
        match self.methods.iter_mut().find(|(token, _)| &**token == method) {
            Some((_, known)) => known.extend(slots),
            None => self.methods.push((method.into(), slots.to_vec())),
        }
    }
}

#[derive(Clone, Default)]
struct Routes {
    trie: matchit::Router<usize>,
    /// Templates with a rest, most specific first. The trie cannot hold one beside a parameter, and there are few.
    umbrellas: Vec<usize>,
    all: Vec<Route>,
}

/// What a route question meets.
pub enum Met<'c> {
    /// No template matches.
    Nothing,
    /// The template that matches does not list the method.
    NotThisMethod(&'c str),
    /// The template, and the permissions of which any one answers.
    Permissions(&'c str, [&'c [Slot]; 2]),
}

pub struct Catalog {
    nodes: Vec<Option<Node>>,
    by_name: HashMap<Arc<str>, Slot>,
    /// Few, so that looking along them is quicker than hashing a name.
    apps: Vec<(Arc<str>, Routes)>,
    /// Not closed, not orphaned, and no ancestor closed.
    open: Bits,
    /// What an owner of a tenant holds without a tick: all but the site's own administration.
    tenant: Bits,
    own: Vec<Slot>,
    len: usize,
}

impl Catalog {
    /// Builds from rows that were checked when they were written.
    pub fn build(rows: Vec<Node>) -> Self {
        let len = rows.len();
        let end = rows.iter().map(|node| node.slot as usize + 1).max().unwrap_or(0);
        let mut nodes: Vec<Option<Node>> = vec![None; end];
        for node in rows {
            let slot = node.slot as usize;
            nodes[slot] = Some(node);
        }
        let by_name: HashMap<_, _> = nodes.iter().flatten().map(|node| (node.name.clone(), node.slot)).collect();
        let own: Vec<Slot> = OWN.iter().map(|own| by_name.get(own.name).copied().unwrap_or(Slot::MAX)).collect();
        let open = open_nodes(&nodes);
        let mut catalog = Self { apps: Vec::new(), open, tenant: Bits::default(), own, by_name, nodes, len };
        catalog.tenant = catalog.iter().map(|node| node.slot).filter(|slot| !catalog.is_site_only(*slot)).collect();
        catalog.apps = catalog.routed();
        catalog
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }

    pub fn find(&self, name: &str) -> Option<&Node> {
        self.get(*self.by_name.get(name)?)
    }

    pub fn slot_of(&self, own: Permission) -> Slot {
        self.own[own.index()]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// The version of an application's entries: another one after each change of them, and the same after a restart.
    pub fn version_of(&self, app: &str) -> i64 {
        let name = |slot: Option<Slot>| slot.and_then(|slot| self.get(slot)).map(|node| node.name.clone());
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
        let digest = secret::hash(&entries.concat());
        let first = digest.iter().take(7).fold(0, |version, byte| (version << 8) | i64::from(*byte));
        first + 1
    }

    /// Does the permission answer at all: open itself, under open ancestors, named by its last import?
    pub fn is_open(&self, slot: Slot) -> bool {
        self.open.contains(slot)
    }

    pub fn is_in_tenant(&self, slot: Slot) -> bool {
        self.tenant.contains(slot)
    }

    /// The chain of parents, nearest first.
    pub fn ancestors(&self, slot: Slot) -> impl Iterator<Item = Slot> {
        std::iter::successors(self.get(slot).and_then(|node| node.parent), |slot| self.get(*slot)?.parent)
    }

    /// Routes a canonical path.
    pub fn route(&self, app: &str, method: &str, path: &str) -> Met<'_> {
        let Some((_, routes)) = self.apps.iter().find(|(name, _)| **name == *app) else { return Met::Nothing };
        let Some(route) = routes.at(path) else { return Met::Nothing };
        let own = route.slots(method);
        // A method that is no upper-case token is none that `*` could mean.
        let is_token = |method: &str| methods(method).is_ok_and(|tokens| tokens == [method] && method != "*");
        let any: &[Slot] = if !route.any.is_empty() && is_token(method) { &route.any } else { &[] };
        if own.is_empty() && any.is_empty() {
            return Met::NotThisMethod(&route.text);
        }
        Met::Permissions(&route.text, [own, any])
    }

    /// Is it about the site as a whole, so that no tenant can hold it?
    fn is_site_only(&self, slot: Slot) -> bool {
        self.own.iter().position(|own| *own == slot).is_some_and(|index| OWN[index].site_only)
    }

    fn routed(&self) -> Vec<(Arc<str>, Routes)> {
        let mut apps: HashMap<Arc<str>, Vec<Route>> = HashMap::new();
        let mut known: HashMap<(Arc<str>, String), usize> = HashMap::new();
        for node in self.iter().filter(|node| !node.orphaned) {
            let (Some(text), Some(tokens)) = (&node.http_path, &node.http_methods) else { continue };
            let (Ok(template), Ok(tokens)) = (Template::parse(text), methods(tokens)) else { continue };
            let routes = apps.entry(node.app.clone()).or_default();
            let index = *known.entry((node.app.clone(), template.shape())).or_insert_with(|| {
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
            // HEAD is covered by GET unless the template lists it itself.
            let get = route.slots("GET").to_vec();
            if route.slots("HEAD").is_empty() && !get.is_empty() {
                route.add("HEAD", &get);
            }
        }
        let mut all = direct.clone();
        for route in &mut all {
            for umbrella in &direct {
                if umbrella.template.covers(&route.template) {
                    under(route, umbrella);
                }
            }
        }
        let mut trie = matchit::Router::new();
        let mut umbrellas = Vec::new();
        for (index, route) in all.iter().enumerate() {
            if route.template.rest {
                umbrellas.push(index);
            } else if let Err(e) = trie.insert(route.template.shape(), index) {
                tracing::error!(template = %route.text, error = %e, "a template cannot be routed and denies");
            }
        }
        umbrellas.sort_by_key(|index| all[*index].template.specificity());
        Self { trie, umbrellas, all }
    }

    /// The most specific template that matches; an umbrella only where no other does.
    fn at(&self, path: &str) -> Option<&Route> {
        if let Ok(found) = self.trie.at(path) {
            return Some(&self.all[*found.value]);
        }
        self.umbrellas.iter().map(|index| &self.all[*index]).find(|route| route.template.lies_over(path))
    }
}

/// An umbrella adds its permissions to a template it covers, for the methods that the template lists.
fn under(route: &mut Route, umbrella: &Route) {
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

fn open_nodes(nodes: &[Option<Node>]) -> Bits {
    let at = |slot: Slot| nodes.get(slot as usize).and_then(Option::as_ref);
    let stands = |node: &Node| {
        let parents = std::iter::successors(node.parent.and_then(at), |parent| parent.parent.and_then(at));
        node.is_open && !node.orphaned && parents.take(nodes.len()).all(|parent| parent.is_open)
    };
    nodes.iter().flatten().filter(|node| stands(node)).map(|node| node.slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(slot: Slot, name: &str, methods: &str, path: &str) -> Node {
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

    fn met(catalog: &Catalog, method: &str, path: &str) -> Vec<Slot> {
        match catalog.route("main", method, path) {
            Met::Permissions(_, slots) => slots.concat(),
            Met::NotThisMethod(_) => vec![98],
            Met::Nothing => vec![99],
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
        assert_eq!(met(&catalog, "GET", "/members/7"), [0, 2]);
        assert_eq!(met(&catalog, "HEAD", "/members/7"), [0, 2]);
        assert_eq!(met(&catalog, "DELETE", "/members/7"), [98], "the specific template does not list it");
        assert_eq!(met(&catalog, "GET", "/members/export"), [98], "no fall-back to a looser template");
        assert_eq!(met(&catalog, "POST", "/members/export"), [1, 2]);
        assert_eq!(met(&catalog, "DELETE", "/members/7/avatar"), [2]);
        assert_eq!(met(&catalog, "GET", "/members/7/files/a/b"), [5, 2]);
        assert_eq!(met(&catalog, "PUT", "/members/7/files/a"), [98], "the most specific umbrella does not list it");
        assert_eq!(met(&catalog, "PUT", "/members"), [6]);
        assert_eq!(met(&catalog, "GET", "/members"), [98]);
        assert_eq!(met(&catalog, "PUT", "/"), [98]);
        assert_eq!(met(&catalog, "PROPFIND", "/files/x"), [3]);
        assert_eq!(met(&catalog, "get", "/files/x"), [98]);
        assert_eq!(met(&catalog, "*", "/files/x"), [98]);
        assert_eq!(met(&catalog, "GET|POST", "/files/x"), [98]);
        assert_eq!(met(&catalog, "GET", "/"), [4]);
    }

    #[test]
    fn a_template_says_what_is_wrong_with_it() {
        for text in ["", "a", "/a//b", "/a/../b", "/a%20", "/a/*rest/b", "/{a}.json", "/:", "/{}", "/a b", "/a?x"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        for (text, shape) in
            [("/", "/"), ("/a/:b/{c}", "/a/{p1}/{p2}"), ("/a/", "/a"), ("/*", "/{*rest}"), ("/a/*x", "/a/{*rest}")]
        {
            assert_eq!(Template::parse(text).expect(text).shape(), shape);
        }
        for text in ["", "get", "GET|", "GET|GET", "GET|*", "GET POST", "G.T"] {
            assert!(methods(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_closed_category_closes_its_subtree_and_an_orphan_answers_nothing() {
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
