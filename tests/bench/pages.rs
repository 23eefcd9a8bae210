//! Pages of the console, compared with the operations that each asks.

use crate::driver;
use crate::lists::{answered, p95_ms};
use crate::metrics::{Figures, progress};
use crate::process::Process;

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

/// The id of the organization.
fn organization(server: &Process, headers: &str) -> String {
    let found =
        answered(server, &driver::request("GET", &format!("/admin/organizations?keyword={ORG}&limit=1"), headers, ""));
    found["items"][0]["id"].as_str().expect("an organization").to_owned()
}
