//! The pages of an organization: `/console/o/{org}/…`. `PAGES` is the table of all of them.

mod decisions;
mod grid;
mod invitations;
mod mappings;
mod members;
mod roles;
mod why;

use super::pages::{Area, Group, Page, page};
use super::visit::{View, Visit};
use crate::kernel::error::Result;

/// The pages of an organization. The order is that of the navigation.
pub const PAGES: &[Page] = &[
    Page {
        path: "/o/{org}",
        area: Area::Organization,
        needs: &[],
        uses: &["list_users"],
        entry: None,
        get: page!(home),
        post: None,
    },
    Page {
        path: "/o/{org}/members",
        area: Area::Organization,
        needs: &["list_users"],
        uses: &["get_user", "list_roles", "activate_member", "deactivate_member", "assign_user_role", "unlink_member"],
        entry: Some((Group::People, |l| l.pick("Members", "成員"))),
        get: page!(members::list),
        post: Some(page!(members::act)),
    },
    Page {
        path: "/o/{org}/members/new",
        area: Area::Organization,
        needs: &["create_member"],
        uses: &["link_member_by_name", "list_users", "get_user", "list_roles", "assign_user_role"],
        entry: None,
        get: page!(members::new::form),
        post: Some(page!(members::new::act)),
    },
    Page {
        path: "/o/{org}/members/{uid}",
        area: Area::Organization,
        needs: &["get_user"],
        uses: &[
            "get_member",
            "update_member",
            "activate_member",
            "deactivate_member",
            "unlink_member",
            "delete_member",
            "create_password_link",
            "reset_second_factor",
            "list_user_roles",
            "list_roles",
        ],
        entry: None,
        get: page!(members::profile::show),
        post: Some(page!(members::profile::act)),
    },
    Page {
        path: "/o/{org}/members/{uid}/roles",
        area: Area::Organization,
        needs: &["get_user", "list_user_roles"],
        uses: &["list_roles", "assign_user_role", "revoke_user_role"],
        entry: None,
        get: page!(members::roles::show),
        post: Some(page!(members::roles::act)),
    },
    Page {
        path: "/o/{org}/members/{uid}/keys",
        area: Area::Organization,
        needs: &["get_user", "list_member_api_keys"],
        uses: &["create_member_api_key", "rotate_member_api_key", "delete_member_api_key"],
        entry: None,
        get: page!(members::keys::show),
        post: Some(page!(members::keys::act)),
    },
    Page {
        path: "/o/{org}/members/{uid}/quota",
        area: Area::Organization,
        needs: &["get_user"],
        uses: &["update_member_quota", "list_ledger", "list_quotas"],
        entry: None,
        get: page!(members::quota::show),
        post: Some(page!(members::quota::act)),
    },
    Page {
        path: "/o/{org}/members/{uid}/sessions",
        area: Area::Organization,
        needs: &["get_user", "list_member_sessions"],
        uses: &["end_member_sessions", "end_member_session"],
        entry: None,
        get: page!(members::sessions::show),
        post: Some(page!(members::sessions::act)),
    },
    Page {
        path: "/o/{org}/members/{uid}/activity",
        area: Area::Organization,
        needs: &["get_user"],
        uses: &["list_audit", "list_decisions"],
        entry: None,
        get: page!(members::activity::show),
        post: None,
    },
    Page {
        path: "/o/{org}/invitations",
        area: Area::Organization,
        needs: &["list_invitations"],
        uses: &["list_roles", "create_invitation", "delete_invitation"],
        entry: Some((Group::People, |l| l.pick("Invitations", "邀請"))),
        get: page!(invitations::list),
        post: Some(page!(invitations::act)),
    },
    Page {
        path: "/o/{org}/roles",
        area: Area::Organization,
        needs: &["list_roles"],
        uses: &["list_role_members", "list_role_permissions"],
        entry: Some((Group::Rights, |l| l.pick("Roles", "角色"))),
        get: page!(roles::list),
        post: None,
    },
    Page {
        path: "/o/{org}/roles/new",
        area: Area::Organization,
        needs: &["create_role"],
        uses: &[],
        entry: None,
        get: page!(roles::new),
        post: Some(page!(roles::create)),
    },
    Page {
        path: "/o/{org}/roles/{id}",
        area: Area::Organization,
        needs: &["get_role"],
        uses: &[
            "list_role_members",
            "list_role_permissions",
            "list_role_mappings",
            "list_users",
            "get_user",
            "update_role",
            "delete_role",
        ],
        entry: None,
        get: page!(roles::show),
        post: Some(page!(roles::act)),
    },
    Page {
        path: "/o/{org}/grid",
        area: Area::Organization,
        needs: &["list_roles", "list_role_permissions"],
        uses: &["get_permission_catalog", "get_my_permissions", "replace_role_permissions"],
        entry: Some((Group::Rights, |l| l.pick("Roles and permissions", "權限矩陣"))),
        get: page!(grid::show),
        post: Some(page!(grid::act)),
    },
    Page {
        path: "/o/{org}/mappings",
        area: Area::Organization,
        needs: &["list_role_mappings"],
        uses: &[
            "list_roles",
            "list_users",
            "get_user",
            "upsert_role_mapping",
            "delete_role_mapping",
            "sync_user_roles",
        ],
        entry: Some((Group::Rights, |l| l.pick("Role mappings", "角色對應"))),
        get: page!(mappings::list),
        post: Some(page!(mappings::act)),
    },
    Page {
        path: "/o/{org}/why",
        area: Area::Organization,
        needs: &["check_permission"],
        uses: &["get_user", "list_users", "assign_user_role", "revoke_user_role"],
        entry: Some((Group::Rights, |l| l.pick("Why?", "為什麼？"))),
        get: page!(why::ask),
        post: Some(page!(why::act)),
    },
    Page {
        path: "/o/{org}/why/members",
        area: Area::Organization,
        needs: &["list_users"],
        uses: &[],
        entry: None,
        get: page!(why::members),
        post: None,
    },
    Page {
        path: "/o/{org}/decisions",
        area: Area::Organization,
        needs: &["list_decisions"],
        uses: &[],
        entry: Some((Group::Rights, |l| l.pick("Decisions", "判定記錄"))),
        get: page!(decisions::list),
        post: None,
    },
];

/// The start of an organization: its members for who may see them, else the visitor's own page.
pub async fn home(visit: &Visit) -> Result<View> {
    let address = if visit.may("list_users") { visit.of_organization("members") } else { "/console/me".to_owned() };
    Ok(View::Redirect(address, None))
}
