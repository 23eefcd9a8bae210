//! Pages of the console, compared with the operations that each asks, and a list among many rows with one among few.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::driver;
use crate::lists::{answered, p95_ms};
use crate::metrics::{Figures, progress};
use crate::process::Process;
use crate::site;

/// The organization of the pages, with a quarter of all members.
const ORG: &str = "org-00000";

/// Adds the page that is slowest in relation to its operations. `admin` is the header line with the access token.
pub fn run(server: &Process, admin: &str, figures: &mut Figures) {
    progress("pages");
    let token = admin.trim().rsplit(' ').next().expect("a token");
    let cookie = format!("cookie: access_token={token}\r\n");
    let with_tenant = format!("{admin}x-tenant-id: {ORG}\r\n");
    let operation = |method: &str, path: &str, body: &str| driver::request(method, path, &with_tenant, body);
    let get = |path: &str| operation("GET", path, "");
    let users = answered(server, &get("/admin/users?limit=1"));
    let uid = users["items"][0]["id"].as_str().expect("a member").to_owned();
    let roles = answered(server, &get("/api/v1/permissions/roles"));
    let roles: Vec<&str> =
        roles["roles"].as_array().expect("roles").iter().filter_map(|role| role["id"].as_str()).collect();
    let question = format!(r#"{{"uid":"{uid}","method":"GET","path":"/videos","explain":true}}"#);
    let mut grid = vec![get("/api/v1/permissions/catalog?tree=true"), get("/api/v1/permissions/roles")];
    grid.extend(roles.iter().take(12).map(|id| get(&format!("/api/v1/permissions/roles/{id}/permissions"))));
    let me = driver::request("GET", "/me", admin, "");
    let name = get(&format!("/admin/organizations/{}", organization(server, &with_tenant)));
    let shared = [me, name];
    let mut worst = 0.0_f64;
    for (page, address, own) in [
        (
            "members",
            format!("/console/o/{ORG}/members"),
            vec![get("/admin/users?limit=50"), get("/api/v1/permissions/roles")],
        ),
        ("grid", format!("/console/o/{ORG}/grid"), grid),
        (
            "why",
            format!("/console/o/{ORG}/why?uid={uid}&method=GET&path=%2Fvideos"),
            vec![operation("POST", "/api/v1/permissions/check", &question), get(&format!("/admin/users/{uid}"))],
        ),
    ] {
        let operations: f64 = shared.iter().chain(&own).map(|request| p95_ms(server, request)).sum();
        let shown = p95_ms(server, &driver::request("GET", &address, &cookie, ""));
        figures.add(&format!("console_ms_{page}"), shown);
        figures.add(&format!("console_vs_operation_{page}"), shown / operations);
        worst = worst.max(shown / operations);
    }
    figures.add("console_vs_operation", worst);
}

/// Two organizations: `large` with 100,000 members and `small` with 100.
const FILL: &str = "
    pragma foreign_keys = off;
    pragma synchronous = off;
    begin;
    insert into organizations (id, org_code, name, status, created_at, updated_at)
    values (unhex('0000000000007000a000000000000000'), 'large', 'Large', 'active', 1, 1),
           (unhex('0000000000007000a000000000000001'), 'small', 'Small', 'active', 1, 1);
    insert into roles (id, organization_id, key, display_name, status, is_system, created_at, updated_at)
    select id, id, 'member', 'Member', 'open', 1, 1, 1 from organizations where org_code in ('large', 'small');
    with n (n) as (values (0) union all select n + 1 from n where n < 100099)
    insert into members (id, username, username_folded, email, email_folded, display_name, status, created_at, updated_at)
    select unhex(printf('0000000000007000b000%012x', n)), 'user' || n, 'user' || n, 'm' || n || '@example.org',
           'm' || n || '@example.org', 'Member ' || n, 'active', 1700000000000 + n, 1700000000000
    from n;
    with n (n) as (values (0) union all select n + 1 from n where n < 100099)
    insert into memberships (organization_id, member_id, created_at)
    select unhex(printf('0000000000007000a000%012x', n >= 100000)), unhex(printf('0000000000007000b000%012x', n)), 1
    from n order by 1, 2;
    commit;";

/// Adds how much longer the page of members takes among 100,000 members than among 100. Both show 50 of them.
pub fn among_many(figures: &mut Figures) {
    let directory = filled();
    progress("the page of members among 100 000");
    let server = site::launch(&directory);
    let admin = site::administrator(&server);
    let token = admin.trim().rsplit(' ').next().expect("a token");
    let cookie = format!("cookie: access_token={token}\r\n");
    let shown = |code: &str| {
        let page = driver::request("GET", &format!("/console/o/{code}/members"), &cookie, "");
        let text = String::from_utf8(driver::all(server.address, std::slice::from_ref(&page)).remove(0)).expect("text");
        assert_eq!(text.matches("class=\"row-link\"").count(), 50, "{code}: {text}");
        p95_ms(&server, &page)
    };
    let (small, large) = (shown("small"), shown("large"));
    figures.add("console_members_100k_vs_100", large / small);
    server.stop();
}

/// Returns the data directory, which the first run creates.
fn filled() -> PathBuf {
    let version = roster::kernel::db::schema::version();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-pages-schema-{version}"));
    let mark = directory.join("filled");
    if mark.exists() {
        return directory;
    }
    progress("a site of 100 100 members");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    site::founded(&directory);
    let rows = Connection::open(directory.join("roster.db")).expect("the file");
    rows.execute_batch(FILL).expect("filled");
    drop(rows);
    std::fs::write(mark, "").expect("a mark");
    directory
}

/// The id of the organization.
fn organization(server: &Process, headers: &str) -> String {
    let found =
        answered(server, &driver::request("GET", &format!("/admin/organizations?keyword={ORG}&limit=1"), headers, ""));
    found["items"][0]["id"].as_str().expect("an organization").to_owned()
}
