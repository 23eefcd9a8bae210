//! Every operation of the document × every kind of caller: each wrong one and the right one.
//!
//! The expected results follow from the document: the credentials that an operation takes, and the permission or scope
//! that it needs. A row gives a valid request, so that only the caller can be at fault. An operation without a row
//! fails the test.

pub mod document;
pub mod rows;

use serde_json::json;

use crate::harness::site::Site;
use crate::integrations::authentik::Authentik;
use crate::videos::registration::Media;
use document::{call, operations, own_permissions, platform_member};
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
pub const BUILTIN_PERMISSIONS: [&str; 25] = [
    "get_me",
    "update_me",
    "get_my_rights",
    "get_my_permissions",
    "get_permission_catalog",
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
const OWN_TOO: [(&str, u64); 8] = [
    ("list_videos", 102_000),
    ("get_video", 33_301_000),
    ("delete_video", 33_301_000),
    ("transfer_video", 33_301_000),
    ("claim_videos", 102_000),
    ("list_jobs", 102_000),
    ("count_jobs", 102_000),
    ("get_job", 33_301_000),
];

/// Operations that a fresh member may call without having any data for them, with the error code of the response.
const NOTHING_YET: [(&str, &str); 6] = [
    ("heartbeat_job", "lease_lost"),
    ("complete_job", "lease_lost"),
    ("fail_job", "lease_lost"),
    ("confirm_my_second_factor", "second_factor_off"),
    ("renew_my_recovery_codes", "second_factor_off"),
    ("remove_my_second_factor", "second_factor_off"),
];

/// Operations outside of the permission area that act in one organization: a client must name it.
const IN_ONE_ORGANIZATION: [&str; 3] = ["list_invitations", "create_invitation", "delete_invitation"];

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
const GIVEN: [&str; 3] = ["roster.audit.list", "roster.audit.export", "roster.audit.verify"];

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
    let (_wordpress, _secrets, wordpress) = crate::integrations::wordpress::comparison::empty_wordpress();
    let sftpgo = crate::harness::counterparts::Sftpgo::start(&[]);
    let settings = format!("{webhooks}{}{}{}{wordpress}", media.settings(), authentik.settings(), sftpgo.settings());
    let site = Site::with(&settings).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let world = Fixture { site: &site, acme: &acme, media: &media };
    let suspended = acme.member_with_role("tenant_owner").await;
    site.admin().post(&format!("/admin/members/{}/deactivate", suspended.uid), json!({})).await.done();
    let (all, of_tenants) = own_permissions(&acme).await;
    let everything =
        site.admin().post("/admin/api-clients", json!({"name": "everything", "scopes": ["*"]})).await.data();
    let disabled = site.client(&["*"]).await;
    let list = site.admin().get("/admin/api-clients?keyword=test").await.data();
    let key = list["items"][0]["client_key"].as_str().expect("key");
    site.admin().patch(&format!("/admin/api-clients/{key}"), json!({"status": "inactive"})).await.done();
    let with_secret = |key: &str, secret: &str| {
        site.nobody().with("x-client-key", key).with("x-api-key", secret).with("x-tenant-id", "acme")
    };
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    let mut wrong: Vec<String> = Vec::new();

    for operation in operations(&document).iter().filter(|operation| !PUBLIC.contains(&operation.id.as_str())) {
        let Some(row) = world.row(&operation.id).await else {
            wrong.push(format!("{} has no row", operation.id));
            continue;
        };
        let if_bearer = |code: u64| if operation.takes_bearer { code } else { operation.nobody() };
        let if_client = |code: u64| if operation.takes_client { code } else { operation.nobody() };
        let is_site = operation.permission.as_ref().is_some_and(|name| !of_tenants.contains(name));
        let client_key = everything["client_key"].as_str().expect("key");
        let lacking_scope = site.client(&operation.other_scopes()).await.with("x-tenant-id", "acme");

        let mut refused = vec![
            ("nobody", site.nobody(), operation.nobody()),
            ("a garbage token", site.bearer("garbage"), if_bearer(operation.code(28, 501))),
            ("a suspended member's token", site.bearer(&suspended.token), if_bearer(operation.code(28, 501))),
            ("an unknown client", with_secret("rc_0123456789", "rs_nothing"), if_client(operation.code(32, 501))),
            ("a client's wrong secret", with_secret(client_key, "rs_nothing"), if_client(operation.code(32, 501))),
            ("a disabled client", disabled.clone(), if_client(operation.code(32, 501))),
            ("a client without the scope", lacking_scope, if_client(operation.code(32, 505))),
        ];
        let false_secret = site
            .nobody()
            .with("x-internal-secret", "a-wrong-secret-for-tests")
            .with("x-uid", &suspended.uid)
            .with("x-tenant-id", "acme");
        let code = if operation.takes_internal || operation.takes_gateway {
            operation.code(29, 501)
        } else {
            operation.nobody()
        };
        refused.push(("a wrong internal secret", false_secret, code));
        if let Some(permission) = &operation.permission {
            let own_too = OWN_TOO.iter().find(|(id, _)| *id == operation.id).map(|(_, code)| *code);
            // An operation that needs a right over the site still answers about the caller's own data, if there is any.
            let without = own_too.unwrap_or_else(|| operation.code(operation.area, 505));
            let code = if is_site { without } else { operation.foreign() };
            refused.push(("a foreign owner", bolt.owner().with("x-tenant-id", &acme.id), code));
            let others = |of: &[String]| of.iter().filter(|name| *name != permission).cloned().collect::<Vec<_>>();
            let lacking = if is_site {
                platform_member(&site, &others(&all).iter().map(String::as_str).collect::<Vec<_>>()).await
            } else {
                acme.member_with(&others(&of_tenants).iter().map(String::as_str).collect::<Vec<_>>()).await
            };
            refused.push(("a member without the permission", lacking.caller(), without));
            if is_site {
                refused.push(("an owner", acme.owner(), without));
            }
        } else if !operation.needs_no_right() && operation.scope.is_none() {
            wrong.push(format!("{} needs no right, and is not on the list", operation.id));
        }
        for (who, caller, code) in refused {
            let reply = call(&caller, operation, &row).await;
            if reply.body["code"] != json!(code) {
                wrong.push(format!(
                    "{}: {who}: {} {}, expected {code}",
                    operation.id, reply.body["code"], reply.body["detail"]
                ));
            }
        }

        let mut served = Vec::new();
        if operation.takes_bearer {
            let member = match &operation.permission {
                Some(permission) if operation.area == 32 => {
                    platform_member(&site, &[&GIVEN[..], &[permission.as_str()]].concat()).await
                }
                Some(permission) if is_site => platform_member(&site, &[permission]).await,
                Some(permission) => acme.member_with(&[permission]).await,
                None => acme.member().await,
            };
            // A caller who grants a direct right must hold it.
            let right = json!({"uid": member.uid, "scope_type": "site", "scope_id": "north", "module": "cameras", "action": "view"});
            site.admin().post("/admin/permissions/grant", right).await.done();
            if operation.takes_gateway && !is_site {
                served.push((
                    "a gateway for a member with the permission",
                    site.internal().with("x-uid", &member.uid).with("x-tenant-id", "acme"),
                ));
            }
            served.push(("a member with the permission", member.caller()));
        }
        if let (true, Some(scope)) = (operation.takes_client, &operation.scope) {
            let client = site.client(&[scope]).await;
            served.push((
                "a client with the scope",
                if operation.area == 31 || IN_ONE_ORGANIZATION.contains(&operation.id.as_str()) {
                    client.with("x-tenant-id", "acme")
                } else {
                    client
                },
            ));
        }
        if operation.takes_internal {
            served.push(("a service", site.internal()));
        }
        for (who, caller) in served {
            let row = world.row_of(&operation.id, &caller).await.expect("a row");
            let reply = call(&caller, operation, &row).await;
            if NOTHING_YET.iter().any(|(id, word)| *id == operation.id && reply.body["detail"] == *word) {
                continue;
            }
            if reply.status != 200 || reply.body.get("code").is_some_and(|code| *code != json!(102_000)) {
                wrong.push(format!(
                    "{}: {who}: {} {} {}",
                    operation.id, reply.status, reply.body["code"], reply.body["message"]
                ));
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
    let lists = PUBLIC.into_iter().chain(BUILTIN_PERMISSIONS).chain(INTERNAL.into_iter().map(|(id, _)| id));
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
