//! Every operation of the document × every kind of caller: each wrong one and the right one.
//!
//! Requests and expected results follow from the document: the path with sample objects, the example of the body, the
//! credentials that an operation takes, and the permission or scope that it needs. Exceptions are named. A new
//! operation is tested without an edit here, unless it is an exception.

mod callers;
mod document;
mod rows;

use serde_json::json;

use crate::harness::callers::Reply;
use crate::harness::counterparts::Sftpgo;
use crate::harness::site::Site;
use crate::integrations::authentik::Authentik;
use crate::integrations::wordpress::comparison::empty_wordpress;
use crate::videos::registration::Media;
use callers::Callers;
use document::{call, operations};
use rows::Fixture;

/// Operations without authentication.
const PUBLIC: [&str; 18] = [
    "login",
    "answer_second_factor",
    "enrol_second_factor",
    "accept_invitation",
    "get_version",
    "forgot_password",
    "reset_password",
    "register",
    "verify_registration",
    "login_with_wordpress",
    "login_with_wordpress_ticket",
    "refresh",
    "get_oidc_url",
    "exchange_oidc_code",
    // SFTPGo's hooks have a key of their own; `integrations/sftpgo` tests wrong keys.
    "authenticate_for_sftpgo",
    "prepare_for_sftpgo",
    "tell_of_sftpgo_file",
    // WordPress events are signed; `integrations/wordpress/events.rs` tests wrong signatures.
    "take_wordpress_hint",
];

/// Operations that need no permission but a signed-in member: they show the caller's own data, or data that is not
/// secret.
pub const NO_PERMISSION_NEEDED: [&str; 29] = [
    "get_me",
    "update_me",
    "get_my_rights",
    "get_my_permissions",
    "get_permission_catalog",
    "search",
    "get_my_second_factor",
    "begin_my_second_factor",
    "confirm_my_second_factor",
    "renew_my_recovery_codes",
    "remove_my_second_factor",
    "accept_my_invitation",
    "change_my_password",
    "logout",
    "list_my_sessions",
    "end_my_session",
    "end_my_sessions",
    "list_my_trusted_devices",
    "delete_my_trusted_device",
    "list_my_activity",
    "list_my_api_keys",
    "create_my_api_key",
    "delete_my_api_key",
    "rotate_my_api_key",
    "register_video",
    "get_my_quota",
    "create_reservation",
    "commit_reservation",
    "release_reservation",
];

/// Operations that show or change the caller's own data without the permission, with the code for everything else.
pub const OWN_TOO: [(&str, u64); 11] = [
    ("list_videos", 102_000),
    ("get_video", 33_301_000),
    ("delete_video", 33_301_000),
    ("transfer_video", 33_301_000),
    ("claim_videos", 102_000),
    ("list_jobs", 102_000),
    ("count_jobs", 102_000),
    ("get_job", 33_301_000),
    ("list_tasks", 102_000),
    ("get_task", 35_301_000),
    ("cancel_task", 35_301_000),
];

/// Operations that a fresh member may call without having any data for them, with the error code of the response.
const NOTHING_YET: [(&str, &str); 7] = [
    ("delete_my_trusted_device", "session_not_found"),
    ("heartbeat_job", "lease_lost"),
    ("complete_job", "lease_lost"),
    ("fail_job", "lease_lost"),
    ("confirm_my_second_factor", "second_factor_off"),
    ("renew_my_recovery_codes", "second_factor_off"),
    ("remove_my_second_factor", "second_factor_off"),
];

/// Operations outside of the permission area that act in one organization: a client must name it.
pub const IN_ONE_ORGANIZATION: [&str; 3] = ["list_invitations", "create_invitation", "delete_invitation"];

/// Operations for the services of this site, with the scope that a client needs for them.
pub const INTERNAL: [(&str, &str); 8] = [
    ("list_members_internal", "members:read"),
    ("get_member_by_sub", "members:read"),
    ("list_member_organizations_internal", "members:read"),
    ("list_organizations_internal", "organizations:read"),
    ("get_organization_by_code", "organizations:read"),
    ("get_rights_by_sub", "permissions:check"),
    ("upsert_member_by_sub", "members:write"),
    ("ensure_authentik_user", "members:write"),
];

/// Permissions that the rows on clients grant, so that the right caller must hold them too.
pub const GIVEN: [&str; 4] = ["roster.audit.list", "roster.audit.export", "roster.audit.head", "roster.audit.verify"];

/// The scopes of clients that cover an operation today; `*` is all of them.
pub const SCOPES: [&str; 15] = [
    "members:read",
    "members:write",
    "organizations:read",
    "organizations:write",
    "permissions:read",
    "permissions:write",
    "jobs:read",
    "jobs:write",
    "audit:read",
    "videos:read",
    "videos:write",
    "quotas:read",
    "quotas:write",
    "permissions:check",
    "*",
];

#[tokio::test]
async fn every_operation_refuses_every_wrong_caller_and_serves_the_right_one() {
    let authentik = Authentik::start();
    let media = Media::new();
    let webhooks = "webhooks.private_hosts = [\"127.0.0.1\"]\nlimits.webhooks = 10000\n";
    let (_wordpress, _secrets, wordpress) = empty_wordpress();
    let sftpgo = Sftpgo::start(&[]);
    let settings = format!("{webhooks}{}{}{}{wordpress}", media.settings(), authentik.settings(), sftpgo.settings());
    let site = Site::with(&settings).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let world = Fixture { site: &site, acme: &acme, media: &media };
    let callers = Callers::new(&acme, &bolt).await;
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    let mut wrong: Vec<String> = Vec::new();

    for operation in operations(&document).iter().filter(|operation| !PUBLIC.contains(&operation.id.as_str())) {
        let id = &operation.id;
        let row = world.row(operation).await;
        if operation.permission.is_none() && operation.scope.is_none() && !operation.needs_no_right() {
            wrong.push(format!("{id} needs no right, and is not on the list"));
        }
        for (who, caller, code) in callers.refused(operation).await {
            let reply = call(&caller, operation, &row).await;
            if reply.body["code"] != json!(code) {
                wrong.push(format!("{id}: {who}: {} {}, expected {code}", reply.body["code"], reply.body["detail"]));
            }
        }
        for (who, caller) in callers.served(operation).await {
            let row = world.row_of(operation, &caller).await;
            let reply = call(&caller, operation, &row).await;
            if NOTHING_YET.iter().any(|(id, word)| *id == operation.id && reply.body["detail"] == *word) {
                continue;
            }
            let Reply { status, body, .. } = &reply;
            if *status != 200 || body.get("code").is_some_and(|code| *code != json!(102_000)) {
                wrong.push(format!("{id}: {who}: {status} {} {}", body["code"], body["message"]));
            }
        }
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_lists_of_this_file_name_existing_operations_only() {
    let site = Site::start().await;
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    let known = operations(&document);
    let lists = PUBLIC.into_iter().chain(NO_PERMISSION_NEEDED).chain(INTERNAL.into_iter().map(|(id, _)| id));
    let lists = lists.chain(OWN_TOO.into_iter().map(|(id, _)| id));
    for id in lists.chain(NOTHING_YET.into_iter().map(|(id, _)| id)).chain(IN_ONE_ORGANIZATION) {
        assert!(known.iter().any(|operation| operation.id == id), "{id}");
    }
    for operation in known.iter().filter(|operation| PUBLIC.contains(&operation.id.as_str())) {
        assert!(
            !operation.takes_bearer && !operation.takes_client && operation.permission.is_none(),
            "{}",
            operation.id
        );
    }
}
