//! `decide` in this process: no HTTP, no SQLite. Builds a policy of the size of a large site from changes, as the
//! server does, and decides questions about random members and a thousand hot request lines.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use roster::kernel::authz::catalog::{Catalog, Node, PermissionIndex, PermissionSet, UserType};
use roster::kernel::authz::decide::{AccessRequest, Target, decide};
use roster::kernel::authz::path::Template;
use roster::kernel::authz::permission::PLATFORM_ORG_CODE;
use roster::kernel::authz::snapshot::{Change, MemberStatus, Role, RoleKind, Snapshot};
use roster::kernel::ids::{MemberId, OrganizationId, RoleId};
use serde_json::{Value, json};

use crate::metrics::{Figures, progress};
use crate::process::resident_mb;

/// The argument that makes this program measure a million members and print the result as a line of JSON.
pub const MILLION_ARGUMENT: &str = "--million";

const AREAS: [&str; 11] =
    ["orders", "invoices", "stock", "media", "tickets", "courses", "shops", "payments", "events", "reports", "devices"];
const PARTS: [&str; 4] = ["public", "office", "partner", "archive"];
const RESOURCES: [&str; 5] = ["items", "drafts", "comments", "labels", "members"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const ROLES: usize = 200;
/// One permission in ten is ticked in a role, so that about two thirds of the decisions are allows.
const TICKED_OF: u64 = 10;
const ROLE_SETS: usize = 1_000;
const ROLES_HELD: usize = 10;
const HOT_LINES: u64 = 1_024;
const QUESTIONS: usize = 1 << 20;
const ROUNDS: usize = 5;

/// The rows of the policy, before a snapshot is built from them.
struct PolicyRows {
    templates: Vec<String>,
    tenant: OrganizationId,
    roles: Vec<RoleId>,
    role_sets: Vec<Vec<RoleId>>,
    members: Vec<MemberId>,
    lines: Vec<(&'static str, String)>,
    questions: Vec<(MemberId, u32)>,
}

/// A pseudo-random generator (splitmix64) with the same sequence in every run.
struct Random(u64);

impl Random {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.roll(all.len() as u64)).expect("small")]
    }
}

impl PolicyRows {
    fn of(members: usize) -> Self {
        let mut dice = Random(7);
        let mut templates = Vec::new();
        for area in AREAS.iter().flat_map(|area| PARTS.map(|part| format!("/api/v1/{area}/{part}"))) {
            for resource in RESOURCES {
                for rest in ["", "/:id", "/:id/history", "/:id/history/:version"] {
                    templates.push(format!("{area}/{resource}{rest}"));
                }
            }
        }
        let roles: Vec<RoleId> = (0..ROLES).map(|_| RoleId::new()).collect();
        let role_sets = (0..ROLE_SETS).map(|_| (0..ROLES_HELD).map(|_| *dice.pick(&roles)).collect()).collect();
        let members: Vec<MemberId> = (0..members).map(|_| MemberId::new()).collect();
        let lines: Vec<_> =
            (0..HOT_LINES).map(|n| (*dice.pick(&METHODS), path(dice.pick::<String>(&templates), n))).collect();
        let ask = |dice: &mut Random| (*dice.pick(&members), u32::try_from(dice.roll(HOT_LINES)).expect("small"));
        let questions = (0..QUESTIONS).map(|_| ask(&mut dice)).collect();
        Self { templates, tenant: OrganizationId::new(), roles, role_sets, members, lines, questions }
    }

    fn snapshot(&self) -> Snapshot {
        let mut dice = Random(11);
        let mut snapshot = Snapshot::empty(1);
        snapshot.apply(Change::Catalog(Arc::new(Catalog::build(self.nodes()))));
        snapshot.apply(tenant(OrganizationId::new(), PLATFORM_ORG_CODE));
        snapshot.apply(tenant(self.tenant, "acme"));
        let slots = PermissionIndex::try_from(self.templates.len() * METHODS.len()).expect("small");
        for (n, id) in self.roles.iter().enumerate() {
            let ticked: PermissionSet = (0..slots).filter(|_| dice.roll(TICKED_OF) == 0).collect();
            let key = format!("role{n}").into();
            let role = Role { id: *id, key, is_open: true, holds: RoleKind::Ticked, ticked: Arc::new(ticked) };
            snapshot.apply(Change::Role(self.tenant, role));
        }
        for member in &self.members {
            snapshot.apply(Change::Member(*member, MemberStatus::Active));
            snapshot.apply(Change::Membership(self.tenant, *member, Some(dice.pick(&self.role_sets).clone())));
        }
        snapshot
    }

    fn nodes(&self) -> Vec<Node> {
        let entries = self.templates.iter().flat_map(|path| METHODS.map(|method| (path, method)));
        let node = |(slot, (path, method)): (PermissionIndex, (&String, &str))| Node {
            slot,
            name: format!("p{slot}.{}", method.to_lowercase()).into(),
            app: "main".into(),
            parent: None,
            http_methods: Some(method.into()),
            http_path: Some(path.as_str().into()),
            is_open: true,
            user_type: UserType::Backend,
            orphaned: false,
            position: i64::from(slot),
        };
        (0..).zip(entries).map(node).collect()
    }

    /// A trie of the same kind with the same templates, and nothing else.
    fn trie(&self) -> matchit::Router<usize> {
        let mut trie = matchit::Router::new();
        for (n, template) in self.templates.iter().enumerate() {
            trie.insert(Template::parse(template).expect("a template").trie_route(), n).expect("no conflict");
        }
        trie
    }

    /// Decides every question once. Returns nanoseconds per question and the number of allows.
    fn decide_all(&self, cell: &ArcSwap<Snapshot>) -> (f64, usize) {
        let mut allowed = 0;
        let began = Instant::now();
        for (member, line) in &self.questions {
            let (method, path) = &self.lines[*line as usize];
            let question = AccessRequest {
                tenant: Some(self.tenant),
                member: *member,
                with_platform: true,
                target: Target::Route { app: "main", method, path },
            };
            allowed += usize::from(black_box(decide(&cell.load(), black_box(&question))).allow);
        }
        (began.elapsed().as_nanos() as f64 / QUESTIONS as f64, allowed)
    }

    fn look_up_all(&self, trie: &matchit::Router<usize>) -> f64 {
        let began = Instant::now();
        for (_, line) in &self.questions {
            let found = trie.at(black_box(&self.lines[*line as usize].1));
            black_box(found.is_ok_and(|found| *found.value > 0));
        }
        began.elapsed().as_nanos() as f64 / QUESTIONS as f64
    }
}

/// The path of a request: ids in place of the template's parameters.
fn path(template: &str, n: u64) -> String {
    let segments = template.split('/').map(|segment| match segment.starts_with(':') {
        true => format!("{}", 10_000 + n * 37),
        false => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Measures ten thousand members in this process and a million in a fresh one, whose memory nothing else has used.
pub fn run(figures: &mut Figures) {
    progress("the decision at 10 000 members");
    let world = PolicyRows::of(10_000);
    let cell = ArcSwap::from_pointee(world.snapshot());
    let trie = world.trie();
    let (mut decision, mut bare) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (ns, allowed) = world.decide_all(&cell);
        // The measurement means little unless both decisions occur often.
        assert!((QUESTIONS / 4..QUESTIONS * 9 / 10).contains(&allowed), "{allowed} allowed");
        decision = decision.min(ns);
        bare = bare.min(world.look_up_all(&trie));
    }
    figures.add("decide_vs_trie_10k", decision / bare);
    figures.add("decide_ns_10k", decision);
    figures.add("trie_ns", bare);
    progress("the decision at 1 000 000 members");
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).arg(MILLION_ARGUMENT).output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for name in ["decide_ns_1m", "snapshot_1m_mb", "snapshot_1m_build_s"] {
        figures.add(name, found[name].as_f64().expect("a number"));
    }
}

/// Prints what a million members cost. Everything except the snapshot is built before the memory is measured.
pub fn million() {
    let world = PolicyRows::of(1_000_000);
    let (before, began) = (resident_mb("self"), Instant::now());
    let snapshot = world.snapshot();
    let (build_s, occupied) = (began.elapsed().as_secs_f64(), resident_mb("self") - before);
    let cell = ArcSwap::from_pointee(snapshot);
    let best = (0..ROUNDS).map(|_| world.decide_all(&cell).0).fold(f64::MAX, f64::min);
    println!("{}", json!({"decide_ns_1m": best, "snapshot_1m_mb": occupied, "snapshot_1m_build_s": build_s}));
}

fn tenant(id: OrganizationId, org_code: &str) -> Change {
    Change::Tenant { id, org_code: org_code.into(), is_active: true, requires_second_factor: false }
}
