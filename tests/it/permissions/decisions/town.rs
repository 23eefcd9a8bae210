//! A site with random administration.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::naive_evaluator::{Rows, Segment, parsed};
use crate::harness::callers::As;
use crate::harness::site::Site;
use crate::permissions::P;

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

pub struct Town {
    pub site: Site,
    pub seed: u64,
    chance: Random,
    pub organizations: Vec<String>,
    /// The last one is the administrator: questions include it, but no change affects it.
    pub members: Vec<String>,
    pub client: [String; 2],
}

impl Town {
    pub async fn found() -> Self {
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

    pub fn client(&self) -> As<'_> {
        self.site.nobody().with("x-client-key", &self.client[0]).with("x-api-key", &self.client[1])
    }

    /// Overlapping templates of two applications: one has umbrellas, the other lists HEAD.
    pub fn template(&mut self, app: &str) -> String {
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

    pub async fn import(&mut self, app: &str, share: usize) {
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
    pub async fn staff(&mut self, organization: &str) {
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
    pub async fn administer(&mut self) {
        let (organization, member) =
            (self.chance.of(&self.organizations), self.chance.of(&self.members[..self.members.len() - 1]));
        let (kind, source, key) =
            (self.chance.below(100), self.chance.pick(&SOURCES), format!("role{}", self.chance.below(4)));
        let permissions: Vec<String> = (0..self.chance.below(20))
            .map(|_| format!("{}.e{}", self.chance.pick(&["main", "files"]), self.chance.below(30)))
            .collect();
        let own = self.chance.pick(&["roster.role.list", "roster.client.list", "roster.policy"]).to_owned();
        let is_open = self.chance.happens(85);
        let (status, verb) = if is_open { ("open", "activate") } else { ("close", "deactivate") };
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
            0..8 => admin.post(&format!("{P}/roles"), json!({"key": key, "status": status})).await,
            8..14 => admin.patch(&format!("{P}/roles/{role}"), json!({"status": status})).await,
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
                let mapping = json!({"external_source": "ldap", "external_key": key, "internal_role_key": key});
                admin.put(&format!("{P}/role-mappings"), mapping).await
            }
            59..63 => {
                let keys = json!({"source": "ldap", "external_keys": [key, "other"]});
                admin.post(&format!("{P}/users/{member}/roles/sync"), keys).await
            }
            63..72 => root.post("/admin/permissions/grant", right).await,
            72..75 => root.post("/admin/permissions/revoke", right).await,
            75..78 => root.post(&format!("/admin/members/{member}/{verb}"), json!({})).await,
            78..90 => root.post(&link, json!({})).await,
            90..92 => root.delete(&link).await,
            92..95 => root.post(&format!("/admin/organizations/{organization}/{verb}"), json!({})).await,
            _ => root.post(&format!("{P}/policy/reload"), json!({})).await,
        };
        assert!(reply.status < 500, "seed {}: {reply:?}", self.seed);
    }

    pub fn scope_id(&mut self) -> String {
        if self.chance.happens(40) {
            self.chance.of(&self.organizations)
        } else {
            self.chance.pick(&["*", "north", "acme", "bolt", "crux"]).to_owned()
        }
    }

    pub fn path(&mut self, rows: &Rows, app: &str) -> String {
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

    pub fn question(&mut self, rows: &Rows, tenant: &str) -> Value {
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
    pub async fn compare(&mut self, rows: &Rows) -> usize {
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
