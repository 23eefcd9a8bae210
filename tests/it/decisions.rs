//! Compares the decisions of `POST /check` with a second, naive evaluator that reads the rows. After random
//! administration, it also compares the policy in memory with a rebuilt one.
//!
//! The evaluator shares no code with `src/kernel/authz`: it follows the text of the policy, slowly and simply.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::site::{ADMIN, As, PASSWORD, Site};

const P: &str = "/api/v1/permissions";

/// Roster's own permissions that no tenant can hold: the owner's empty cells in the grid.
const GRID: &str = include_str!("grid.txt");

// ── the naive evaluator ──

#[derive(Debug)]
struct Entry {
    name: String,
    app: String,
    parent: Option<i64>,
    methods: Vec<String>,
    template: Option<Vec<Segment>>,
    is_open: bool,
    orphaned: bool,
}

/// Ordered by specificity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Literal(String),
    Parameter,
    Rest,
}

#[derive(Debug, Default)]
struct Rows {
    organizations: HashMap<String, (String, bool)>,
    members: HashMap<String, bool>,
    memberships: HashSet<(String, String)>,
    /// Per role: whether it is open, and what it holds beside its ticks.
    roles: HashMap<String, (bool, String)>,
    ticks: HashSet<(String, i64)>,
    assignments: Vec<(String, String, String)>,
    catalog: BTreeMap<i64, Entry>,
    grants: HashSet<[String; 5]>,
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
    fn read(site: &Site) -> Self {
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
    fn decide(&self, tenant: &str, question: &Value) -> &'static str {
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

    fn roles_of(&self, tenant: &str, uid: &str) -> impl Iterator<Item = (&String, &String)> {
        let held =
            self.assignments.iter().filter(move |(organization, member, _)| organization == tenant && member == uid);
        held.filter(|(_, _, role)| self.roles[role].0).map(|(_, _, role)| (role, &self.roles[role].1))
    }

    fn is_platform_admin(&self, uid: &str) -> bool {
        let (platform, (_, is_active)) =
            self.organizations.iter().find(|(_, (code, _))| code == "platform").expect("the platform");
        *is_active && self.roles_of(platform, uid).any(|(_, holds)| holds == "everything")
    }

    fn is_open(&self, slot: i64) -> bool {
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

    fn by_role(&self, tenant: &str, uid: &str, slots: Vec<i64>) -> &'static str {
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

    fn by_grant(&self, uid: &str, [scope_type, scope_id, module, action]: [&str; 4]) -> &'static str {
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
    fn route(&self, app: &str, method: &str, path: &[String]) -> Result<Vec<i64>, &'static str> {
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

fn parsed(template: &str) -> Vec<Segment> {
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

// ── random choices ──

/// Xorshift. The failure message contains the seed of the run, and `ROSTER_TEST_SEED` repeats it.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var_os("ROSTER_TEST_SEED").and_then(|text| text.to_str()?.parse().ok());
        Self(seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u128() as u64 | 1))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % end as u64) as usize
    }

    fn pick<'l, T: ?Sized>(&mut self, list: &[&'l T]) -> &'l T {
        list[self.below(list.len())]
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Returns true in this many of a hundred cases.
    fn happens(&mut self, per_cent: usize) -> bool {
        self.below(100) < per_cent
    }
}

// ── the site under test ──

const CODES: [&str; 4] = ["acme", "bolt", "crux", "platform"];
const SOURCES: [&str; 5] = ["manual", "zitadel", "ldap", "scim", "oidc"];

struct Town {
    site: Site,
    seed: u64,
    chance: Random,
    organizations: Vec<String>,
    /// The last one is the administrator: questions include it, but no change affects it.
    members: Vec<String>,
    client: [String; 2],
}

impl Town {
    async fn found() -> Self {
        let (site, chance) = (Site::start().await, Random::new());
        for code in &CODES[..3] {
            site.organization(code).await;
        }
        let client = site.admin().post("/admin/api-clients", json!({"name": "asker", "scopes": ["*"]})).await.data();
        let client = ["client_key", "api_key"].map(|name| client[name].as_str().expect("text").to_owned());
        let mut town = Self { site, seed: chance.0, chance, organizations: Vec::new(), members: Vec::new(), client };
        let list = town.site.admin().get("/admin/organizations").await.data();
        town.organizations = texts(&list["items"], "id");
        for n in 0..10 {
            town.site.admin().post("/admin/members", json!({"username": format!("member{n}")})).await.done();
        }
        town.members = texts(&town.site.admin().get("/admin/members").await.data()["items"], "uid");
        let administrator = town.site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
        town.members.retain(|uid| *uid != administrator);
        town.members.push(administrator);
        for app in ["main", "files"] {
            town.import(app, 100).await;
        }
        for member in town.members.clone() {
            for organization in town.organizations.clone().into_iter().filter(|_| town.chance.happens(60)) {
                town.site
                    .admin()
                    .post(&format!("/admin/members/{member}/organizations/{organization}"), json!({}))
                    .await
                    .done();
            }
        }
        for organization in town.organizations.clone() {
            town.staff(&organization).await;
        }
        for _ in 0..120 {
            town.administer().await;
        }
        town
    }

    fn client(&self) -> As<'_> {
        self.site.nobody().with("x-client-key", &self.client[0]).with("x-api-key", &self.client[1])
    }

    /// Overlapping templates of two applications: one has umbrellas, the other lists HEAD.
    fn template(&mut self, app: &str) -> String {
        let mut path = String::new();
        for _ in 0..self.chance.below(4) {
            path.push('/');
            path.push_str(self.chance.pick(&["a", "b", "aa", "ab", ":x", "{y}"]));
        }
        if app == "files" && self.chance.happens(30) {
            path.push_str("/*rest");
        }
        if path.is_empty() { "/".into() } else { path }
    }

    async fn import(&mut self, app: &str, share: usize) {
        let (mut entries, mut taken): (Vec<Value>, HashSet<(Vec<Segment>, String)>) = (Vec::new(), HashSet::new());
        for n in (0..30).filter(|_| self.chance.happens(share)).collect::<Vec<_>>() {
            let mut entry = json!({"name": format!("{app}.e{n}")});
            if !entries.is_empty() && self.chance.happens(50) {
                entry["parent"] = self.chance.of(&entries)["name"].clone();
            }
            if self.chance.happens(25) {
                entry["status"] = json!(self.chance.pick(&["open", "open", "open", "close"]));
            }
            if self.chance.happens(80) {
                let (path, methods) = (
                    self.template(app),
                    self.chance.pick(&["GET", "GET|POST", "DELETE", "PUT|GET", "POST", "*", "HEAD"]),
                );
                let methods = if app == "files" && methods == "HEAD" { "PATCH" } else { methods };
                let shape = parsed(&path);
                let is_free = !taken.iter().any(|(other, method)| {
                    *other == shape && (method == "*" || methods == "*" || methods.split('|').any(|m| m == method))
                });
                if is_free {
                    taken.extend(methods.split('|').map(|method| (shape.clone(), method.to_owned())));
                    entry["http_path"] = json!(path);
                    entry["http_methods"] = json!(methods);
                }
            }
            entries.push(entry);
        }
        let reply = self.site.admin().put(&format!("{P}/catalog?app={app}"), json!({"permissions": entries})).await;
        assert_eq!(reply.status, 200, "seed {}: {reply:?}", self.seed);
    }

    /// Two roles with many permissions, and their members.
    async fn staff(&mut self, organization: &str) {
        for key in ["role0", "role1"] {
            let names: Vec<String> = (0..40)
                .map(|_| format!("{}.e{}", self.chance.pick(&["main", "files"]), self.chance.below(30)))
                .collect();
            let holders: Vec<String> = self.members.clone().into_iter().filter(|_| self.chance.happens(50)).collect();
            let admin = self.site.admin().with("x-tenant-id", organization);
            let role = admin.post(&format!("{P}/roles"), json!({"key": key})).await.data()["id"]
                .as_str()
                .expect("id")
                .to_owned();
            admin.put(&format!("{P}/roles/{role}/permissions"), json!({"permission_ids": names})).await.done();
            for uid in holders {
                let reply = admin.post(&format!("{P}/users/{uid}/roles"), json!({"role_id": role})).await;
                assert!([200, 404].contains(&reply.status), "{reply:?}");
            }
        }
    }

    /// One random change; it may be refused, but not fail.
    async fn administer(&mut self) {
        let (organization, member) =
            (self.chance.of(&self.organizations), self.chance.of(&self.members[..self.members.len() - 1]));
        let (kind, source, key) =
            (self.chance.below(100), self.chance.pick(&SOURCES), format!("role{}", self.chance.below(4)));
        let permissions: Vec<String> = (0..self.chance.below(20))
            .map(|_| format!("{}.e{}", self.chance.pick(&["main", "files"]), self.chance.below(30)))
            .collect();
        let own = self.chance.pick(&["roster.role.list", "roster.client.list", "roster.policy"]).to_owned();
        let is_open = self.chance.happens(85);
        let right = json!({
            "uid": member, "scope_type": self.chance.pick(&["site", "organization", "tenant"]),
            "scope_id": self.scope_id(), "module": "m", "action": self.chance.pick(&["view", "edit"]),
        });
        if kind >= 97 {
            let app = self.chance.pick(&["main", "files"]);
            return self.import(app, 85).await;
        }
        let (admin, root) = (self.site.admin().with("x-tenant-id", &organization), self.site.admin());
        let roles = texts(&admin.get(&format!("{P}/roles")).await.body["data"]["roles"], "id");
        let role = self.chance.of(&if roles.is_empty() { vec!["none".to_owned()] } else { roles });
        let held = texts(&admin.get(&format!("{P}/users/{member}/roles")).await.body["data"]["user_roles"], "role_id");
        let revoked = self.chance.of(&if held.is_empty() { vec!["none".to_owned()] } else { held });
        let link = format!("/admin/members/{member}/organizations/{organization}");
        let reply = match kind {
            0..8 => {
                admin
                    .post(&format!("{P}/roles"), json!({"key": key, "status": if is_open { "open" } else { "close" }}))
                    .await
            }
            8..14 => {
                admin
                    .patch(&format!("{P}/roles/{role}"), json!({"status": if is_open { "open" } else { "close" }}))
                    .await
            }
            14..16 => admin.delete(&format!("{P}/roles/{role}")).await,
            16..32 => {
                let mut ids = permissions;
                ids.extend(is_open.then_some(own));
                admin.put(&format!("{P}/roles/{role}/permissions"), json!({"permission_ids": ids})).await
            }
            32..50 => {
                admin.post(&format!("{P}/users/{member}/roles"), json!({"role_id": role, "source": source})).await
            }
            50..55 => admin.delete(&format!("{P}/users/{member}/roles/{revoked}")).await,
            55..59 => {
                admin
                    .put(
                        &format!("{P}/role-mappings"),
                        json!({"external_source": "ldap", "external_key": key, "internal_role_key": key}),
                    )
                    .await
            }
            59..63 => {
                admin
                    .post(
                        &format!("{P}/users/{member}/roles/sync"),
                        json!({"source": "ldap", "external_keys": [key, "other"]}),
                    )
                    .await
            }
            63..72 => root.post("/admin/permissions/grant", right).await,
            72..75 => root.post("/admin/permissions/revoke", right).await,
            75..78 => {
                root.post(
                    &format!("/admin/members/{member}/{}", if is_open { "activate" } else { "deactivate" }),
                    json!({}),
                )
                .await
            }
            78..90 => root.post(&link, json!({})).await,
            90..92 => root.delete(&link).await,
            92..95 => {
                root.post(
                    &format!("/admin/organizations/{organization}/{}", if is_open { "activate" } else { "deactivate" }),
                    json!({}),
                )
                .await
            }
            _ => root.post(&format!("{P}/policy/reload"), json!({})).await,
        };
        assert!(reply.status < 500, "seed {}: {reply:?}", self.seed);
    }

    fn scope_id(&mut self) -> String {
        if self.chance.happens(40) {
            self.chance.of(&self.organizations)
        } else {
            self.chance.pick(&["*", "north", "acme", "bolt", "crux"]).to_owned()
        }
    }

    fn path(&mut self, rows: &Rows, app: &str) -> String {
        if self.chance.happens(6) {
            return self
                .chance
                .pick(&[
                    "", "a", "//", "/a//b", "/a/../b", "/a%2fb", "/a;b", "/%2e", "/a#b", "/a%", "/é", "/a b", "/a\\b",
                    "/a%25", "/a/./b", "/a?x",
                ])
                .to_owned();
        }
        let of_app = rows.catalog.values().filter(|entry| entry.app == app || app == "nowhere");
        let templates: Vec<&Vec<Segment>> = of_app.filter_map(|entry| entry.template.as_ref()).collect();
        let mut path = String::new();
        for segment in templates[self.chance.below(templates.len())] {
            match segment {
                Segment::Literal(text) if self.chance.happens(85) => path.push_str(&format!("/{text}")),
                Segment::Rest if self.chance.happens(50) => path.push_str("/a/b"),
                _ => path.push_str(self.chance.pick(&["/a", "/b", "/aa", "/ab", "/c", "/%61", "/a%20b"])),
            }
        }
        path.push_str(self.chance.pick(&["", "", "", "", "/", "/b", "/aa", "?q=1", "//"]));
        path
    }

    fn question(&mut self, rows: &Rows, tenant: &str) -> Value {
        let here: Vec<String> = self
            .members
            .iter()
            .filter(|uid| rows.memberships.contains(&(tenant.to_owned(), (*uid).clone())))
            .cloned()
            .collect();
        let uid = match self.chance.below(20) {
            0 => "no-id".to_owned(),
            1 => uuid::Uuid::now_v7().to_string(),
            2..4 => self.chance.of(&self.members),
            _ if here.is_empty() => self.chance.of(&self.members),
            _ => self.chance.of(&here),
        };
        match self.chance.below(100) {
            0..60 => {
                let method = self
                    .chance
                    .pick(&["GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD", "get", "*", ""]);
                let app = self.chance.pick(&["main", "main", "main", "files", "files", "files", "roster", "nowhere"]);
                json!({"uid": uid, "app": app, "method": method, "path": self.path(rows, app)})
            }
            60..85 => {
                let names: Vec<&str> =
                    rows.catalog.values().map(|entry| entry.name.as_str()).chain(["nowhere"]).collect();
                json!({"uid": uid, "permission": self.chance.of(&names)})
            }
            _ => json!({
                "uid": uid, "scope_type": self.chance.pick(&["site", "organization", "tenant"]), "scope_id": self.scope_id(),
                "module": "m", "action": self.chance.pick(&["view", "edit"]),
            }),
        }
    }

    /// Asks a batch in a random tenant and returns the number of allows.
    async fn compare(&mut self, rows: &Rows) -> usize {
        let tenant = self.chance.of(&self.organizations);
        let questions: Vec<Value> = (0..100).map(|_| self.question(rows, &tenant)).collect();
        let answers = self
            .client()
            .with("x-tenant-id", &tenant)
            .post(&format!("{P}/check"), json!({"questions": questions}))
            .await
            .data();
        let answers = answers["decisions"].as_array().expect("decisions");
        let mut wrong = Vec::new();
        for (question, answer) in questions.iter().zip(answers) {
            let expected = rows.decide(&tenant, question);
            if answer["allow"] != json!(expected.starts_with("ok_")) || answer["reason"] != json!(expected) {
                wrong.push(format!("{question} in {tenant}: {}, expected {expected}", answer["reason"]));
            }
        }
        assert!(wrong.is_empty(), "ROSTER_TEST_SEED={}\n{}", self.seed, wrong.join("\n"));
        answers.iter().filter(|answer| answer["allow"] == true).count()
    }
}

fn texts(list: &Value, field: &str) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|item| item[field].as_str().expect("text").to_owned()).collect()
}

// ── the tests ──

#[tokio::test]
async fn ten_thousand_decisions_equal_those_of_the_naive_evaluator() {
    let mut town = Town::found().await;
    let mut allowed = 0;
    for _ in 0..20 {
        let rows = Rows::read(&town.site);
        for _ in 0..5 {
            allowed += town.compare(&rows).await;
        }
        for _ in 0..6 {
            town.administer().await;
        }
    }
    assert!(
        allowed > 100,
        "ROSTER_TEST_SEED={}: too few of the questions are allowed to prove anything: {allowed}",
        town.seed
    );
}

#[tokio::test]
async fn the_policy_in_memory_equals_a_rebuilt_one_after_random_changes() {
    let mut town = Town::found().await;
    for step in 1..=48 {
        for _ in 0..5 {
            town.administer().await;
        }
        if step % 12 == 0 {
            town.site.restart().await;
            town.site.admin_token = town.site.token(ADMIN, PASSWORD).await;
        }
        let reloaded = town.site.admin().post(&format!("{P}/policy/reload"), json!({})).await.data();
        assert_eq!(reloaded["changed"], json!(false), "ROSTER_TEST_SEED={}: {reloaded}", town.seed);
        assert_eq!(reloaded["old_epoch"], reloaded["new_epoch"]);
        let rows = Rows::read(&town.site);
        town.compare(&rows).await;
    }
}
