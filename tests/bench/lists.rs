//! Lists on a large site: the latency of a page, and whether a deep page takes longer than the first.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::Connection;
use serde_json::Value;

use crate::driver;
use crate::metrics::{Figures, progress};
use crate::pages;
use crate::process::Process;
use crate::site;

/// The SQL that fills the site.
const FILL: &str = include_str!("lists.sql");
/// The organization with a quarter of all members.
const TENANT: &str = "x-tenant-id: org-00000\r\n";
/// Another organization. A member of every organization stores no bytes under it.
const OTHER_TENANT: &str = "x-tenant-id: org-00001\r\n";
const TRIES: usize = 40;
/// Position of a deep page, in per cent of the total.
const DEEP_PERCENT: u64 = 90;

/// Name, path, and whether the request names the one organization.
const LISTS: [(&str, &str, bool); 43] = [
    ("members", "/admin/members", false),
    ("members_inactive", "/admin/members?is_active=false", false),
    ("members_keyword", "/admin/members?keyword=user1234", false),
    ("members_keyword_none", "/admin/members?keyword=zzzz", false),
    ("members_keyword_all", "/admin/members?keyword=example", false),
    ("members_in_org", "/admin/members", true),
    ("members_in_org_keyword", "/admin/members?keyword=user1234", true),
    ("users", "/admin/users", false),
    ("organizations", "/admin/organizations", false),
    ("organizations_keyword", "/admin/organizations?keyword=zzzz", false),
    ("invitations", "/admin/invitations", true),
    ("audit", "/admin/audit", false),
    ("audit_in_org", "/admin/audit", true),
    ("audit_denied", "/admin/audit?outcome=denied", false),
    ("audit_action", "/admin/audit?action=role.grant", false),
    ("audit_target", "/admin/audit?target=00000000007b", false),
    ("audit_time", "/admin/audit?since=1700000000000&until=1700000100000", false),
    ("deliveries", "/admin/deliveries", false),
    ("deliveries_dead", "/admin/deliveries?state=dead", false),
    ("deliveries_in_org", "/admin/deliveries", true),
    ("mappings", "/api/v1/permissions/role-mappings", true),
    ("role_holders", "/api/v1/permissions/roles/00000000-0000-7000-d000-000000000000/users", true),
    ("videos", "/api/v1/videos", false),
    ("videos_in_org", "/api/v1/videos", true),
    ("videos_ownerless", "/api/v1/videos?ownerless=true", false),
    ("videos_keyword", "/api/v1/videos?keyword=holiday", false),
    ("videos_of_member", "/api/v1/videos?member=00000000-0000-7000-b000-000000000004", false),
    ("jobs", "/api/v1/jobs", false),
    ("jobs_dead", "/api/v1/jobs?state=dead", false),
    ("jobs_queued", "/api/v1/jobs?state=queued", false),
    ("jobs_in_org", "/api/v1/jobs", true),
    ("jobs_in_org_dead", "/api/v1/jobs?state=dead", true),
    ("quotas", "/admin/quotas", false),
    ("quotas_in_org", "/admin/quotas", true),
    ("quotas_keyword", "/admin/quotas?keyword=user1234", false),
    ("members_keyword_short", "/admin/members?keyword=zq", false),
    ("memberships_many", "/admin/members/00000000-0000-7000-b000-000000000000/organizations", false),
    ("audit_action_none", "/admin/audit?action=member.delete", false),
    ("audit_action_none_in_org", "/admin/audit?action=member.delete", true),
    ("deliveries_kind_none", "/admin/deliveries?kind=member.deleted", false),
    ("videos_keyword_none", "/api/v1/videos?keyword=zzzz", false),
    ("videos_keyword_none_in_org", "/api/v1/videos?keyword=zzzz", true),
    ("ledger", "/admin/quotas/00000000-0000-7000-b000-000000000000/ledger", false),
];

pub fn run(figures: &mut Figures) {
    let directory = filled();
    progress("lists");
    let server = site::launch(&directory);
    // Some lists accept only signed-in members.
    let admin = site::administrator(&server);
    for (name, path, is_in_org) in LISTS {
        let headers = if is_in_org { format!("{admin}{TENANT}") } else { admin.clone() };
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = |more: &str| driver::request("GET", &format!("{path}{sign}{more}"), &headers, "");
        let one = answered(&server, &page("limit=1"));
        let has_rows = one.as_object().is_some_and(|page| page.values().any(Value::is_array));
        assert!(has_rows, "{path} is not a list: {one}");
        let first = p95_ms(&server, &page("limit=50"));
        figures.add(&format!("list_p95_ms_{name}"), first);
        let total = one["total"].as_u64().unwrap_or_default();
        let before = answered(&server, &page(&format!("limit=1&offset={}", total * DEEP_PERCENT / 100)));
        let Some(next) = before["next"].as_str().filter(|_| total > 1_000) else { continue };
        let deep = p95_ms(&server, &page(&format!("limit=50&after={next}")));
        figures.add(&format!("deep_page_ratio_{name}"), deep / first);
    }
    let ledger = "/admin/quotas/00000000-0000-7000-b000-000000000000/ledger";
    for (name, path, tenant) in [
        ("usage", "/admin/usage", ""),
        ("usage_in_org", "/admin/usage", TENANT),
        ("job_counts", "/api/v1/jobs/counts", ""),
        ("job_counts_in_org", "/api/v1/jobs/counts", TENANT),
        ("ledger_of_another", ledger, OTHER_TENANT),
    ] {
        let answer = p95_ms(&server, &driver::request("GET", path, &format!("{admin}{tenant}"), ""));
        figures.add(&format!("list_p95_ms_{name}"), answer);
    }
    pages::run(&server, &admin, figures);
    server.stop();
    pages::among_many(figures);
}

pub fn answered(server: &Process, request: &[u8]) -> Value {
    let body = driver::all(server.address, &[request.to_vec()]).remove(0);
    serde_json::from_slice::<Value>(&body).expect("JSON")["data"].take()
}

/// The 95th percentile of the latency of requests made one after another.
pub fn p95_ms(server: &Process, request: &[u8]) -> f64 {
    let mut took: Vec<f64> = (0..TRIES)
        .map(|_| {
            let began = Instant::now();
            driver::all(server.address, &[request.to_vec()]);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[TRIES * 95 / 100 - 1]
}

/// Returns the data directory, which the first run creates.
fn filled() -> PathBuf {
    let version = roster::kernel::db::schema::version();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-lists-schema-{version}"));
    let mark = directory.join("filled");
    if mark.exists() {
        return directory;
    }
    progress("a site of 200 000 members, 1 000 000 videos, jobs, grants and entries of the audit");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    site::founded(&directory);
    let rows = Connection::open(directory.join("roster.db")).expect("the file");
    rows.execute_batch(FILL).expect("filled");
    drop(rows);
    std::fs::write(mark, "").expect("a mark");
    directory
}
