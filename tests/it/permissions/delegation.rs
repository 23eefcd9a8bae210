//! What each kind of caller may give, change and create: every operation that hands on rights, called by every kind of
//! caller who must be refused.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::harness::stub_server::NOWHERE;

/// All rows by which anyone could gain rights.
fn rows(site: &Site) -> Vec<String> {
    const TABLES: [(&str, &str); 11] = [
        (
            "members",
            "hex(id) || quote(username) || quote(email) || quote(display_name) || status || quote(password_hash)",
        ),
        ("identities", "provider || subject || hex(member_id) || quote(account_id)"),
        ("memberships", "hex(organization_id) || hex(member_id)"),
        ("roles", "hex(id) || key || status"),
        ("role_assignments", "hex(organization_id) || hex(member_id) || hex(role_id) || source"),
        ("role_mappings", "hex(organization_id) || external_key || hex(role_id)"),
        ("invitations", "hex(id) || quote(role_id)"),
        ("one_time_tokens", "hex(hash) || purpose"),
        ("api_keys", "hex(id) || hex(hash) || scopes"),
        ("api_clients", "client_key || scopes || status || hex(api_key_hash)"),
        ("grants", "hex(member_id) || scope_type || scope_id || module || action"),
    ];
    let rows = site.rows();
    let dump = |(table, columns): &(&str, &str)| {
        let sql = format!("select '{table} ' || {columns} from {table} order by 1");
        let mut found = rows.prepare(&sql).expect("a table");
        let lines = found.query_map([], |row| row.get::<_, String>(0)).expect("rows");
        lines.map(|line| line.expect("row")).collect::<Vec<_>>()
    };
    TABLES.iter().flat_map(dump).collect()
}

/// A site with settings for Authentik. The folder with its token outlives the site.
async fn started() -> (tempfile::TempDir, Site) {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("token");
    std::fs::write(&file, "an-api-token-for-tests").expect("the token");
    // Authentik is never called: an unauthorized caller is refused before.
    let settings = format!("authentik.url = \"{NOWHERE}\"\nauthentik.token_file = \"{}\"\n", file.display());
    (folder, Site::with(&settings).await)
}

/// One operation with its request.
struct Call {
    name: &'static str,
    method: Method,
    path: String,
    body: Value,
}

fn call(name: &'static str, method: Method, path: String, body: Value) -> Call {
    Call { name, method, path, body }
}

/// Every request that takes over somebody's account or locks somebody out.
fn account_takeover_calls(uid: &str, sub: &str, org: &str) -> Vec<Call> {
    let (member, user) = (format!("/admin/members/{uid}"), format!("/admin/users/{uid}"));
    let hash = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    let (upsert, ensure) = ("/internal/users/upsert-by-sub", "/internal/authentik/users/ensure");
    vec![
        call("password", Method::PATCH, member.clone(), json!({"password": "Another-horse-8"})),
        call("password hash", Method::PATCH, member.clone(), json!({"password_hash": hash})),
        call("e-mail", Method::PATCH, member.clone(), json!({"email": "mine@example.org"})),
        call("username", Method::PATCH, member.clone(), json!({"username": "mine"})),
        call("profile", Method::PATCH, member.clone(), json!({"display_name": "Mine"})),
        call("account at Authentik", Method::PATCH, member.clone(), json!({"authentik_user_id": "77"})),
        call("status", Method::PATCH, member.clone(), json!({"is_active": false})),
        call("suspension", Method::POST, format!("{member}/deactivate"), json!({})),
        call("activation", Method::POST, format!("{member}/activate"), json!({})),
        call("reset link", Method::POST, format!("{member}/password-link"), json!({})),
        call("erasure", Method::DELETE, member.clone(), Value::Null),
        call("unlinking", Method::DELETE, format!("{member}/organizations/{org}"), Value::Null),
        call("second factor", Method::DELETE, format!("{member}/second-factor"), Value::Null),
        call("key", Method::POST, format!("{member}/api-keys"), json!({"name": "mine"})),
        call("user's e-mail", Method::PATCH, user.clone(), json!({"email": "mine@example.org"})),
        call("WordPress account", Method::PATCH, user.clone(), json!({"wordpress_id": 77})),
        call("folder", Method::PATCH, user.clone(), json!({"sftpgo_username": "mine"})),
        call("user's status", Method::PATCH, user.clone(), json!({"status": "suspended"})),
        call("user's erasure", Method::DELETE, user, Value::Null),
        call("subject's e-mail", Method::POST, upsert.into(), json!({"sub": sub, "email": "mine@example.org"})),
        call("subject's profile", Method::POST, upsert.into(), json!({"sub": sub, "display_name": "Mine"})),
        call("subject's status", Method::POST, upsert.into(), json!({"sub": sub, "is_active": false})),
        call("Authentik's e-mail", Method::POST, ensure.into(), json!({"sub": sub, "email": "mine@example.org"})),
        call("Authentik's profile", Method::POST, ensure.into(), json!({"uid": uid, "display_name": "Mine"})),
    ]
}

/// An administrator: its organization, uid, subject at Authentik, and username.
struct Administrator {
    organization: String,
    uid: String,
    sub: String,
    username: String,
}

async fn administrator(acme: &Organization<'_>, role: &str) -> Administrator {
    let site = acme.site;
    let (username, sub) = (format!("the-{}", role.replace('_', "-")), format!("sub-{role}"));
    let body = json!({"username": username, "email": format!("{username}@example.org"), "password": PASSWORD,
        "authentik_sub": sub});
    let uid = site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned();
    let mut organization = acme.id.clone();
    if role == "platform_admin" {
        let found = site.admin().get("/admin/organizations?keyword=platform").await.data();
        found["items"][0]["id"].as_str().expect("id").clone_into(&mut organization);
        let link = json!({"organization": "platform"});
        site.admin().post(&format!("/admin/members/{uid}/organizations"), link).await.done();
        let platform = site.admin().with("x-tenant-id", "platform");
        let roles = platform.get("/api/v1/permissions/roles").await.data();
        let path = format!("/api/v1/permissions/users/{uid}/roles");
        platform.post(&path, json!({"role_id": roles["roles"][0]["id"]})).await.done();
    } else {
        acme.link(&uid).await;
        acme.assign(&uid, &acme.role_id(role).await).await;
    }
    Administrator { organization, uid, sub, username }
}

async fn send_call(caller: &As<'_>, call: &Call) -> Reply {
    let body = (!call.body.is_null()).then(|| call.body.clone());
    caller.send(call.method.clone(), &call.path, body).await
}

/// API clients and other programs of every kind, both with all scopes and with only the scopes of the attack.
async fn programs<'s>(site: &'s Site) -> Vec<(&'static str, As<'s>)> {
    let key = site.admin().post("/admin/api-keys", json!({"service_name": "worker", "scopes": ["*"]})).await.data();
    let key = key["api_key"].as_str().expect("a key").to_owned();
    let (narrow, wide) = (site.client(&["members:write"]).await, site.client(&["*"]).await);
    vec![
        ("client with members:write", narrow.clone()),
        ("client with members:write in acme", narrow.with("x-tenant-id", "acme")),
        ("client with *", wide.clone()),
        ("client with * in acme", wide.with("x-tenant-id", "acme")),
        ("internal service", site.internal()),
        ("internal service in acme", site.internal().with("x-tenant-id", "acme")),
        ("key of a service", site.nobody().with("x-api-key", &key)),
        ("key of a service as bearer", site.bearer(&key)),
        ("nobody", site.nobody()),
    ]
}

// ── accounts ──

#[tokio::test]
async fn no_program_changes_an_administrator_by_any_operation() {
    let (_token, site) = started().await;
    let acme = site.organization("acme").await;
    let mut administrators = Vec::new();
    for role in ["tenant_owner", "tenant_admin", "member_manager", "platform_admin"] {
        administrators.push((role, administrator(&acme, role).await));
    }
    // An administrator by the permissions of the organization's own role, not by the role's name.
    let custom = acme.role("deputy", &["roster.role.grant"]).await;
    let deputy = administrator(&acme, "viewer").await;
    acme.assign(&deputy.uid, &custom).await;
    administrators.push(("deputy", deputy));
    let programs = programs(&site).await;
    let before = rows(&site);

    for (role, administrator) in &administrators {
        for (kind, program) in &programs {
            for call in account_takeover_calls(&administrator.uid, &administrator.sub, &administrator.organization) {
                let reply = send_call(program, &call).await;
                let what = format!("{kind}: {} of {role}: {reply:?}", call.name);
                let is_hidden = kind.ends_with("in acme") && *role == "platform_admin" && reply.status == 404;
                assert!(is_hidden || matches!(reply.status, 401 | 403), "{what}");
                if *kind == "client with members:write" && reply.status == 403 {
                    assert_eq!(reply.is(29_505_000).word(), "not_held", "{what}");
                }
                assert_eq!(rows(&site), before, "{what}");
            }
            let file = format!("username,email,display_name\n{},mine@example.org,Mine\n", administrator.username);
            let reply = program.send_raw(Method::POST, "/admin/users/import", "text/csv", file.into_bytes()).await;
            let failed = reply.status == 200 && reply.data()["failed"][0]["username"] == json!(administrator.username);
            assert!(failed || matches!(reply.status, 401 | 403), "{kind}: import of {role}: {reply:?}");
            assert_eq!(rows(&site), before, "{kind}: import of {role}");
        }
    }
}

#[tokio::test]
async fn a_program_with_the_scope_administers_everybody_else() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let client = site.client(&["members:write"]).await;
    for role in ["member", "viewer"] {
        let somebody = administrator(&acme, role).await;
        let path = format!("/admin/members/{}", somebody.uid);
        let edit =
            json!({"email": format!("new-{role}@example.org"), "display_name": "Kim", "password": "Another-horse-8"});

        client.patch(&path, edit).await.done();
        client.post(&format!("{path}/password-link"), json!({})).await.done();
        client.post(&format!("{path}/deactivate"), json!({})).await.done();
        client.post(&format!("{path}/activate"), json!({})).await.done();
        let body = json!({"sub": somebody.sub, "display_name": "Kim L."});
        site.internal().post("/internal/users/upsert-by-sub", body).await.done();
        let in_acme = client.clone().with("x-tenant-id", "acme");
        in_acme.delete(&format!("{path}/organizations/{}", acme.id)).await.done();
        client.delete(&path).await.done();
    }
}

/// With these requests a program can sign in as the member; with those of `ON_STANDING` it cannot.
const INTO_AN_ACCOUNT: [&str; 8] = [
    "password",
    "e-mail",
    "username",
    "reset link",
    "user's e-mail",
    "WordPress account",
    "folder",
    "subject's e-mail",
];
const ON_STANDING: [&str; 9] = [
    "profile",
    "status",
    "suspension",
    "erasure",
    "unlinking",
    "user's status",
    "user's erasure",
    "subject's profile",
    "subject's status",
];

#[tokio::test]
async fn a_program_cannot_take_over_an_account_with_rights_that_it_may_not_grant() {
    let site = Site::start().await;
    with_an_application(&site).await;
    let acme = site.organization("acme").await;
    let player = acme.role("player", &["play"]).await;
    let (narrow, wide) =
        (site.client(&["members:write"]).await, site.client(&["members:write", "permissions:write"]).await);
    let mut number = 0;
    for holds in ["a direct right", "a role of an application", "nothing"] {
        for (kind, program, may) in [
            ("members:write", &narrow, holds == "nothing"),
            ("members:write and permissions:write", &wide, true),
            ("the internal secret", &site.internal(), true),
        ] {
            let is_internal = kind == "the internal secret";
            let names = INTO_AN_ACCOUNT.into_iter().chain(ON_STANDING);
            for name in names.filter(|name| !is_internal || name.starts_with("subject's")) {
                number += 1;
                let sub = format!("sub-{number}");
                let body = json!({"username": format!("u{number}"), "email": format!("u{number}@example.org"),
                    "authentik_sub": sub});
                let uid =
                    site.admin().post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned();
                acme.link(&uid).await;
                match holds {
                    "a direct right" => {
                        let right = json!({"uid": uid, "scope_type": "system", "scope_id": "*", "module": "billing",
                            "action": "admin"});
                        site.admin().post("/admin/permissions/grant", right).await.done();
                    }
                    "a role of an application" => acme.assign(&uid, &player).await,
                    _ => {}
                }
                let calls = account_takeover_calls(&uid, &sub, &acme.id);
                let mut call = calls.into_iter().find(|call| call.name == name).expect("a call");
                // Each request uses different values.
                call.body = serde_json::from_str(&call.body.to_string().replace("mine", &format!("mine{number}")))
                    .expect("a body");
                if name == "WordPress account" {
                    call.body = json!({"wordpress_id": number});
                }

                let reply = send_call(program, &call).await;

                let what = format!("{kind}: {name} of who holds {holds}: {reply:?}");
                if may || ON_STANDING.contains(&name) {
                    assert_eq!(reply.status, 200, "{what}");
                } else {
                    assert_eq!(reply.is(29_505_000).word(), "not_held", "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_profile_is_changed_by_its_member_the_platform_or_its_only_organization() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (manager, admin) = (acme.member_with_role("member_manager").await, acme.member_with_role("tenant_admin").await);
    let (shared, own) = (acme.member().await, acme.member().await);
    bolt.link(&shared.uid).await;
    let rename = async |caller: As<'_>, uid: &str| {
        caller.patch(&format!("/admin/members/{uid}"), json!({"display_name": "Kim"})).await
    };

    for caller in [manager.caller(), admin.caller(), acme.owner()] {
        assert_eq!(rename(caller, &shared.uid).await.is(29_505_000).word(), "forbidden");
    }
    assert_eq!(rename(manager.caller(), &admin.uid).await.is(29_505_000).word(), "not_held");
    let in_acme = site.client(&["members:write"]).await.with("x-tenant-id", "acme");
    assert_eq!(rename(in_acme, &shared.uid).await.is(29_505_000).word(), "forbidden");
    let name = site.admin().get(&format!("/admin/members/{}", shared.uid)).await.data()["display_name"].clone();
    assert_eq!(name, Value::Null);
    rename(manager.caller(), &own.uid).await.done();
    rename(site.admin(), &shared.uid).await.done();
    shared.caller().patch("/me", json!({"display_name": "Kim L."})).await.done();
    rename(manager.caller(), &manager.uid).await.done();
}

// ── roles ──

/// An application of the organization's own.
async fn with_an_application(site: &Site) {
    let play = json!({"name": "play", "http_methods": "GET", "http_path": "/play"});
    site.import(json!([play, {"name": "cut", "http_methods": "POST", "http_path": "/cut"}])).await;
}

#[tokio::test]
async fn a_program_grants_by_invitation_and_sync_only_what_its_scopes_allow() {
    let site = Site::start().await;
    with_an_application(&site).await;
    let acme = site.organization("acme").await;
    acme.role("player", &["play"]).await;
    acme.role("lister", &["roster.member.list"]).await;
    acme.role("maker", &["roster.role.create"]).await;
    acme.role("empty", &[]).await;
    let given = |role: &str, scopes: &[&str]| match (role, scopes) {
        ("empty", _) => true,
        // The organization may grant rights of the application; Roster's own permissions require the scopes for them.
        ("player", scopes) => scopes.contains(&"permissions:write") || scopes == ["*"],
        ("lister", scopes) => scopes.contains(&"members:write") || scopes == ["*"],
        ("member", scopes) => scopes.contains(&"organizations:read") || scopes == ["*"],
        _ => false,
    };
    let roles =
        ["empty", "player", "lister", "maker", "member", "viewer", "member_manager", "tenant_admin", "tenant_owner"];
    for role in roles.iter().filter(|role| **role != "tenant_owner") {
        let body = json!({"external_source": "ldap", "external_key": role, "internal_role_key": role});
        acme.owner().put("/api/v1/permissions/role-mappings", body).await.done();
    }
    for scopes in [
        &["members:write"][..],
        &["permissions:write"],
        &["members:write", "permissions:write"],
        &["members:write", "organizations:read"],
        &["*"],
    ] {
        let client = site.client(scopes).await.with("x-tenant-id", "acme");
        for role in roles {
            let before = rows(&site);
            let invited = client.post("/admin/invitations", json!({"role_key": role})).await;
            let may_invite = scopes.contains(&"members:write") || scopes == ["*"];
            let expected = match (may_invite, role, given(role, scopes)) {
                (false, ..) => Some("scope_not_allowed"),
                (_, "tenant_owner", _) => Some("system_role"),
                (_, _, false) => Some("not_held"),
                (_, _, true) => None,
            };
            assert_eq!(invited.body["detail"].as_str(), expected, "{scopes:?}: {role}");
            assert_eq!(rows(&site) == before, expected.is_some(), "{scopes:?}: {role}");
            if role == "tenant_owner" {
                continue;
            }
            let member = acme.member().await;
            let before = rows(&site);
            let body = json!({"source": "ldap", "external_keys": [role]});
            let synced = client.post(&format!("/api/v1/permissions/users/{}/roles/sync", member.uid), body).await;
            let may_sync = scopes.contains(&"permissions:write") || scopes == ["*"];
            let expected = match (may_sync, given(role, scopes)) {
                (false, _) => Some("scope_not_allowed"),
                (_, false) => Some("not_held"),
                (_, true) => None,
            };
            assert_eq!(synced.body["detail"].as_str(), expected, "{scopes:?}: {role}");
            assert_eq!(rows(&site) == before, expected.is_some(), "{scopes:?}: {role}");
        }
    }
}

#[tokio::test]
async fn a_sync_by_a_program_removes_ordinary_roles_but_no_administrator_s() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let client = site.client(&["permissions:write"]).await.with("x-tenant-id", "acme");
    for (role, is_taken) in [("viewer", true), ("member", true), ("tenant_admin", false), ("member_manager", false)] {
        let body = json!({"external_source": "ldap", "external_key": role, "internal_role_key": role});
        acme.owner().put("/api/v1/permissions/role-mappings", body).await.done();
        let member = acme.member().await;
        let path = format!("/api/v1/permissions/users/{}/roles/sync", member.uid);
        acme.owner().post(&path, json!({"source": "ldap", "external_keys": [role]})).await.done();

        let reply = client.post(&path, json!({"source": "ldap", "external_keys": []})).await;

        if is_taken {
            assert_eq!(reply.data()["removed"], json!([role]));
        } else {
            assert_eq!(reply.is(31_505_000).word(), "not_held", "{role}");
        }
    }
}

#[tokio::test]
async fn no_program_grants_what_only_people_may_grant() {
    let site = Site::start().await;
    with_an_application(&site).await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let (role, owner) = (acme.role("player", &["play"]).await, acme.role_id("tenant_owner").await);
    let uid = &member.uid;
    let office = "/api/v1/permissions";
    let user = json!({"username": "mine", "email": "mine@example.org", "org_code": "platform"});
    let calls = [
        call("assignment", Method::POST, format!("{office}/users/{uid}/roles"), json!({"role_id": role})),
        call("ownership", Method::POST, format!("{office}/users/{uid}/roles"), json!({"role_id": owner})),
        call("revocation", Method::DELETE, format!("{office}/users/{uid}/roles/{role}"), Value::Null),
        call("role", Method::POST, format!("{office}/roles"), json!({"key": "mine"})),
        call("ticks", Method::PUT, format!("{office}/roles/{role}/permissions"), json!({"permission_ids": ["cut"]})),
        call(
            "mapping",
            Method::PUT,
            format!("{office}/role-mappings"),
            json!({"external_source": "ldap", "external_key": "x", "internal_role_key": "tenant_admin"}),
        ),
        call("client", Method::POST, "/admin/api-clients".into(), json!({"name": "mine", "scopes": ["*"]})),
        call("key", Method::POST, "/admin/api-keys".into(), json!({"service_name": "mine", "scopes": ["*"]})),
        call("plugin", Method::POST, "/api/v1/plugins/mine/activate".into(), json!({"version": 1, "may_grant": true})),
        call("place", Method::POST, format!("/admin/members/{uid}/organizations"), json!({"organization": "platform"})),
        call("user", Method::POST, "/admin/users".into(), user),
        call("invitation", Method::POST, "/admin/invitations".into(), json!({"role_key": "tenant_owner"})),
        call("catalog", Method::PUT, format!("{office}/catalog"), json!({"permissions": []})),
    ];
    let programs = programs(&site).await;
    let before = rows(&site);

    for (kind, program) in &programs {
        for call in &calls {
            let reply = send_call(program, call).await;
            // Without an organization there is nothing to invite to, and no program can make an owner by invitation.
            let is_odd = call.name == "invitation" && matches!(reply.word(), "bad_input" | "system_role");
            let is_hidden = call.name == "place" && reply.word() == "organization_not_found";
            assert!(is_odd || is_hidden || matches!(reply.status, 401 | 403), "{kind}: {}: {reply:?}", call.name);
            assert_eq!(rows(&site), before, "{kind}: {}", call.name);
        }
    }
}

#[tokio::test]
async fn a_quota_is_set_only_with_its_own_scope() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let uid = acme.member().await.uid;
    let (member, organization) =
        (format!("/admin/members/{uid}/quota"), format!("/admin/organizations/{}/quota", acme.id));
    let key = async |scope: &str| {
        let made =
            site.admin().post("/admin/api-keys", json!({"service_name": "worker", "scopes": [scope]})).await.data();
        site.nobody().with("x-api-key", made["api_key"].as_str().expect("a key"))
    };

    for caller in [site.client(&["members:write", "quotas:read"]).await, site.internal(), key("videos:write").await] {
        for path in [&member, &organization] {
            let reply = caller.patch(path, json!({"size": 7})).await;
            assert!(matches!(reply.status, 401 | 403), "{reply:?}");
        }
    }
    let sizes = "select count(*) from quotas where size = 7";
    assert_eq!(site.rows().query_row(sizes, [], |row| row.get::<_, i64>(0)).expect("a number"), 0);
    for caller in [site.client(&["quotas:write"]).await, key("quotas:write").await] {
        caller.patch(&member, json!({"size": 7})).await.done();
        caller.patch(&organization, json!({"size": 7})).await.done();
    }
}

// ── requirements of an organization for its members ──

#[tokio::test]
async fn no_program_puts_an_administrator_into_another_organization() {
    let site = Site::start().await;
    let (acme, strict) = (site.organization("acme").await, site.organization("strict").await);
    let programs = programs(&site).await;
    for role in ["tenant_owner", "tenant_admin", "member_manager", "platform_admin", "member"] {
        let Administrator { uid, .. } = administrator(&acme, role).await;
        let calls = [
            call("by id", Method::POST, format!("/admin/members/{uid}/organizations/{}", strict.id), json!({})),
            call(
                "by name",
                Method::POST,
                format!("/admin/members/{uid}/organizations"),
                json!({"organization": "strict"}),
            ),
        ];
        for (call, (kind, program)) in calls.iter().flat_map(|call| programs.iter().map(move |program| (call, program)))
        {
            let before = rows(&site);
            let reply = send_call(program, call).await;
            let what = format!("{kind}: {role} {}: {reply:?}", call.name);
            if role == "member" && kind.starts_with("client") && !kind.ends_with("in acme") {
                assert_eq!(reply.status, 200, "{what}");
                site.admin().delete(&format!("/admin/members/{uid}/organizations/{}", strict.id)).await.done();
                continue;
            }
            assert!(matches!(reply.status, 401 | 403 | 404), "{what}");
            if kind.starts_with("client") && !kind.ends_with("in acme") {
                assert_eq!(reply.is(29_505_000).word(), "not_held", "{what}");
            }
            assert_eq!(rows(&site), before, "{what}");
        }
        // A person may do this, and afterwards the membership is unchanged for every caller.
        site.admin().post(&calls[0].path, json!({})).await.done();
        send_call(&programs[0].1, &calls[0]).await.done();
    }
}

#[tokio::test]
async fn only_people_require_a_second_factor_and_for_the_platform_only_its_administrators() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    let (acme_path, platform_path) = (
        format!("/admin/organizations/{}", acme.id),
        format!("/admin/organizations/{}", platform.as_str().expect("id")),
    );
    let rule = |required: bool| json!({"second_factor_required": required});
    let (narrow, wide) = (site.client(&["organizations:write"]).await, site.client(&["*"]).await);
    let editor = site.platform_member(&["roster.organization.update"]).await;

    for path in [&acme_path, &platform_path] {
        for program in [&narrow, &wide, &narrow.clone().with("x-tenant-id", "acme")] {
            let reply = program.patch(path, rule(true)).await;
            assert!(matches!(reply.word(), "forbidden" | "organization_not_found"), "{path}: {reply:?}");
        }
        // Sending the current value is not a change.
        narrow.patch(path, json!({"name": "Another", "second_factor_required": false})).await.done();
    }
    assert_eq!(editor.caller().patch(&platform_path, rule(true)).await.word(), "forbidden");
    for (caller, required) in [(editor.caller(), true), (site.admin(), false)] {
        assert_eq!(caller.patch(&acme_path, rule(required)).await.data()["second_factor_required"], required);
    }
    site.admin().patch(&acme_path, rule(true)).await.done();
    assert_eq!(narrow.patch(&acme_path, rule(false)).await.word(), "forbidden");
    assert_eq!(site.admin().patch(&platform_path, rule(true)).await.data()["second_factor_required"], true);
}
