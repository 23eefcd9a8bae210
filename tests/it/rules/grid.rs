//! The grid of system roles × Roster's own permissions in a new organization.
//!
//! Kept as text, so that a change of policy shows as a readable diff. `UPDATE_EXPECT=1` rewrites the file.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::harness::organizations::Organization;
use crate::harness::site::Site;

const ROLES: [&str; 5] = ["tenant_owner", "tenant_admin", "member_manager", "member", "viewer"];

fn file() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/rules/grid.txt")
}

/// The permissions of a member with only this role.
async fn held(acme: &Organization<'_>, role: &str) -> BTreeSet<String> {
    let member = acme.member_with_role(role).await;
    let me = member.caller().get("/api/v1/permissions/me").await.data();
    me["permissions"].as_object().expect("a map").keys().cloned().collect()
}

#[tokio::test]
async fn the_grid_of_system_roles_is_as_committed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let catalog = site.admin().get("/api/v1/permissions/catalog?app=roster").await.data();
    let mut columns = Vec::new();
    for role in ROLES {
        columns.push(held(&acme, role).await);
    }

    let mut grid = format!("{:36}{}\n", "permission", ROLES.map(|role| format!("{role:15}")).concat().trim_end());
    for node in catalog["list"].as_array().expect("list").iter().filter(|node| node.get("http_path").is_some()) {
        let name = node["id"].as_str().expect("id");
        let marks: String =
            columns.iter().map(|column| format!("{:15}", if column.contains(name) { "x" } else { "-" })).collect();
        let _ = writeln!(grid, "{name:36}{}", marks.trim_end());
    }

    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file(), &grid).expect("the file");
    }
    let committed = std::fs::read_to_string(file()).unwrap_or_default();
    assert_eq!(
        grid.lines().collect::<Vec<_>>(),
        committed.lines().collect::<Vec<_>>(),
        "UPDATE_EXPECT=1 rewrites the grid"
    );
}
