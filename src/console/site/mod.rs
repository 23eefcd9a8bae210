//! Pages of the site, for its administrators, and the page of addresses that do not exist.

mod audit;
mod catalog;
mod clients;
pub(in crate::console) mod connections;
mod first_steps;
mod grants;
pub(in crate::console) mod import;
mod keys;
mod members;
mod organizations;
mod overview;
pub(in crate::console) mod settings;
mod signing_keys;
mod tasks;
mod usage;

use crate::console::i18n::site::FirstSteps;
use crate::console::organization::members as of_members;
use crate::console::organization::{WEBHOOK_USES, deliveries, webhooks};
use crate::console::pages::{Area, Group, Page, page};
use crate::console::visit::{View, Visit};
use crate::kernel::error::{ErrorCode, Result};

pub const PAGES: &[Page] = &[
    Page {
        path: "/site",
        area: Area::Site,
        needs: &["list_organizations"],
        uses: &["get_usage", "count_jobs", "get_statistics", "list_deliveries", "list_connections", "list_audit"],
        entry: Some((Group::Site, |language| language.pick("Overview", "總覽"))),
        get: page!(overview::show),
        post: None,
    },
    Page {
        path: "/site/usage",
        area: Area::Site,
        needs: &["get_usage"],
        uses: &["count_jobs", "list_jobs", "get_statistics"],
        entry: Some((Group::Site, |language| language.pick("Usage", "用量"))),
        get: page!(usage::show),
        post: None,
    },
    Page {
        path: "/site/first-steps",
        area: Area::Site,
        needs: &["list_organizations", "create_organization"],
        uses: &["get_permission_catalog", "list_invitations", "list_users"],
        entry: Some((Group::Site, |language| FirstSteps::of(language).entry)),
        get: page!(first_steps::show),
        post: None,
    },
    Page {
        path: "/site/organizations",
        area: Area::Site,
        needs: &["list_organizations"],
        uses: &["create_organization"],
        entry: Some((Group::Site, |language| language.pick("Organizations", "組織"))),
        get: page!(organizations::list),
        post: Some(page!(organizations::create)),
    },
    Page {
        path: "/site/organizations/{id}",
        area: Area::Site,
        needs: &["get_organization"],
        uses: &["update_organization", "activate_organization", "deactivate_organization", "get_usage"],
        entry: None,
        get: page!(organizations::show),
        post: Some(page!(organizations::act)),
    },
    Page {
        path: "/site/members",
        area: Area::Site,
        needs: &["list_users"],
        uses: &["get_user", "activate_member", "deactivate_member"],
        entry: Some((Group::Site, |language| language.pick("Members", "成員"))),
        get: page!(of_members::list),
        post: Some(page!(of_members::act)),
    },
    Page {
        path: "/site/members/new",
        area: Area::Site,
        needs: &["create_user"],
        uses: &["list_organizations"],
        entry: None,
        get: page!(members::new::form),
        post: Some(page!(members::new::create)),
    },
    Page {
        path: "/site/members/{uid}",
        area: Area::Site,
        needs: &["get_user"],
        uses: &[
            "get_member",
            "list_member_organizations",
            "list_organizations",
            "link_member",
            "link_member_by_name",
            "unlink_member",
            "update_member",
            "update_user",
            "activate_member",
            "deactivate_member",
            "create_password_link",
            "reset_second_factor",
            "delete_user",
        ],
        entry: None,
        get: page!(members::show),
        post: Some(page!(members::act)),
    },
    Page {
        path: "/site/members/{uid}/keys",
        area: Area::Site,
        needs: &["get_user", "list_member_api_keys"],
        uses: &["create_member_api_key", "rotate_member_api_key", "delete_member_api_key"],
        entry: None,
        get: page!(of_members::keys::show),
        post: Some(page!(of_members::keys::act)),
    },
    Page {
        path: "/site/members/{uid}/quota",
        area: Area::Site,
        needs: &["get_user"],
        uses: &["update_member_quota", "list_ledger", "list_quotas"],
        entry: None,
        get: page!(of_members::quota::show),
        post: Some(page!(of_members::quota::act)),
    },
    Page {
        path: "/site/members/{uid}/sessions",
        area: Area::Site,
        needs: &["get_user", "list_member_sessions"],
        uses: &["end_member_session", "end_member_sessions"],
        entry: None,
        get: page!(of_members::sessions::show),
        post: Some(page!(of_members::sessions::act)),
    },
    Page {
        path: "/site/members/{uid}/activity",
        area: Area::Site,
        needs: &["get_user"],
        uses: &["list_audit", "list_decisions", "list_users"],
        entry: None,
        get: page!(of_members::activity::show),
        post: None,
    },
    Page {
        path: "/site/import",
        area: Area::Site,
        needs: &["import_users"],
        uses: &["import_videos", "claim_videos"],
        entry: Some((Group::Site, |language| language.pick("Import", "匯入"))),
        get: page!(import::show),
        post: Some(page!(import::act)),
    },
    Page {
        path: "/site/clients",
        area: Area::Site,
        needs: &["list_api_clients"],
        uses: &["create_api_client"],
        entry: Some((Group::Site, |language| language.pick("API clients", "API 用戶端"))),
        get: page!(clients::list),
        post: Some(page!(clients::act)),
    },
    Page {
        path: "/site/clients/{client_key}",
        area: Area::Site,
        needs: &["get_api_client"],
        uses: &["update_api_client", "rotate_api_client", "delete_api_client"],
        entry: None,
        get: page!(clients::client::show),
        post: Some(page!(clients::client::act)),
    },
    Page {
        path: "/site/keys",
        area: Area::Site,
        needs: &["list_api_keys"],
        uses: &["create_api_key", "rotate_api_key", "delete_api_key"],
        entry: Some((Group::Site, |language| language.pick("Service keys", "服務金鑰"))),
        get: page!(keys::list),
        post: Some(page!(keys::act)),
    },
    Page {
        path: "/site/webhooks",
        area: Area::Site,
        needs: &["list_webhooks"],
        uses: &["list_deliveries", "create_webhook"],
        entry: Some((Group::Site, |language| language.pick("Webhooks", "Webhook"))),
        get: page!(webhooks::list),
        post: Some(page!(webhooks::act)),
    },
    Page {
        path: "/site/webhooks/{id}",
        area: Area::Site,
        needs: &["get_webhook"],
        uses: WEBHOOK_USES,
        entry: None,
        get: page!(webhooks::detail::show),
        post: Some(page!(webhooks::detail::act)),
    },
    Page {
        path: "/site/deliveries",
        area: Area::Site,
        needs: &["list_deliveries"],
        uses: &["list_webhooks", "list_users", "get_user", "retry_delivery"],
        entry: Some((Group::Site, |language| language.pick("Deliveries", "傳送紀錄"))),
        get: page!(deliveries::list),
        post: Some(page!(deliveries::act)),
    },
    Page {
        path: "/site/audit",
        area: Area::Site,
        needs: &["list_audit"],
        uses: &["get_audit_head", "verify_audit", "list_organizations", "list_users", "search", "export_audit"],
        entry: Some((Group::Site, |language| language.pick("Audit log", "稽核紀錄"))),
        get: page!(audit::list),
        post: Some(page!(audit::act)),
    },
    Page {
        path: "/site/connections",
        area: Area::Site,
        needs: &["list_connections"],
        uses: &["test_connection"],
        entry: Some((Group::Site, |language| language.pick("Connections", "連線"))),
        get: page!(connections::show),
        post: Some(page!(connections::act)),
    },
    Page {
        path: "/site/connections/{name}",
        area: Area::Site,
        needs: &["list_connections"],
        uses: &[
            "test_connection",
            "get_sftpgo_drift",
            "reconcile_sftpgo",
            "sync_wordpress",
            "list_deliveries",
            "retry_delivery",
        ],
        entry: None,
        get: page!(connections::one::show),
        post: Some(page!(connections::one::act)),
    },
    Page {
        path: "/site/catalog",
        area: Area::Site,
        needs: &["import_catalog"],
        uses: &["get_permission_catalog"],
        entry: Some((Group::Site, |language| language.pick("Catalog", "權限目錄"))),
        get: page!(catalog::show),
        post: Some(page!(catalog::act)),
    },
    Page {
        path: "/site/grants",
        area: Area::Site,
        needs: &["list_rights"],
        uses: &["list_users", "get_user", "grant_right", "revoke_right"],
        entry: Some((Group::Site, |language| language.pick("Direct grants", "直接授權"))),
        get: page!(grants::list),
        post: Some(page!(grants::act)),
    },
    Page {
        path: "/site/settings",
        area: Area::Site,
        needs: &["list_settings"],
        uses: &["reload_policy", "recount_quotas", "rotate_encryption_key"],
        entry: Some((Group::Site, |language| language.pick("Settings", "設定"))),
        get: page!(settings::list),
        post: Some(page!(settings::act)),
    },
    Page {
        path: "/site/signing-keys",
        area: Area::Site,
        needs: &["list_signing_keys"],
        uses: &["rotate_signing_key"],
        entry: Some((Group::Site, |language| language.pick("Signing keys", "簽署金鑰"))),
        get: page!(signing_keys::list),
        post: Some(page!(signing_keys::act)),
    },
    Page {
        path: "/site/tasks",
        area: Area::Site,
        needs: &["list_tasks"],
        uses: &["get_user"],
        entry: Some((Group::Site, |language| language.pick("Tasks", "背景工作"))),
        get: page!(tasks::list),
        post: None,
    },
    Page {
        path: "/site/tasks/{id}",
        area: Area::Site,
        needs: &["get_task"],
        uses: &["cancel_task", "get_user"],
        entry: None,
        get: page!(tasks::one),
        post: Some(page!(tasks::act)),
    },
];

/// Stands for every address that is no page.
pub static NOT_FOUND: Page =
    Page { path: "", area: Area::Public, needs: &[], uses: &[], entry: None, get: page!(not_found), post: None };

async fn not_found(_: &Visit) -> Result<View> {
    Err(ErrorCode::RouteNotFound.into())
}
