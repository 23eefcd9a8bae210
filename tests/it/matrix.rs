//! Every operation of the document × every kind of caller: each wrong one and the right one.
//!
//! Requests and expected results follow from the document: the path with sample objects, the example of the body, the
//! credentials that an operation takes, and the permission or scope that it needs. Exceptions are named below. A new
//! operation is tested without an edit here, unless it is an exception.

use reqwest::Method;
use serde_json::{Value, json};

use crate::authentik::Authentik;
use crate::second_factor::enrolled;
use crate::site::{As, Member, Organization, PASSWORD, Reply, Site};
use crate::videos::{Media, register};

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
    // SFTPGo's hooks have a key of their own; `sftpgo.rs` tests wrong keys.
    "authenticate_for_sftpgo",
    "prepare_for_sftpgo",
    "tell_of_sftpgo_file",
    // WordPress events are signed; `wordpress_events.rs` tests wrong signatures.
    "take_wordpress_hint",
];

/// Operations that need no permission but a signed-in member: they show the caller's own data, or data that is not
/// secret.
const NO_PERMISSION_NEEDED: [&str; 25] = [
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
const INTERNAL: [(&str, &str); 8] = [
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
const SCOPES: [&str; 15] = [
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

// ── the rows ──

struct Fixture<'s> {
    site: &'s Site,
    acme: &'s Organization<'s>,
    media: &'s Media,
}

fn fresh(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7().simple())
}

impl Fixture<'_> {
    async fn role(&self) -> String {
        self.acme.role(&fresh("r"), &[]).await
    }

    async fn uid(&self) -> String {
        self.acme.member().await.uid
    }

    async fn uid_with_second_factor(&self) -> String {
        let member = self.acme.member().await;
        enrolled(&member).await;
        member.uid
    }

    async fn invitation(&self) -> Value {
        self.acme.admin().post("/admin/invitations", json!({})).await.data()
    }

    async fn client_key(&self) -> String {
        let made = self
            .site
            .admin()
            .post("/admin/api-clients", json!({"name": "sample", "scopes": ["audit:read"]}))
            .await
            .data();
        made["client_key"].as_str().expect("key").to_owned()
    }

    async fn organization(&self) -> String {
        let code = fresh("o");
        let made = self.site.admin().post("/admin/organizations", json!({"org_code": code, "name": code})).await.data();
        made["id"].as_str().expect("id").to_owned()
    }

    /// A job of a member of the organization, in this state.
    async fn job(&self, state: &str) -> String {
        let id = crate::jobs::queue(self.site, &self.uid().await, Some(&self.acme.id), 1).remove(0);
        let bytes = uuid::Uuid::parse_str(&id).expect("id").into_bytes();
        let statement = "update jobs set state = ?1 where id = ?2";
        self.site.write_rows(|rows| rows.execute(statement, rusqlite::params![state, bytes]));
        id
    }

    async fn subject(&self) -> String {
        let subject = fresh("s");
        self.site.admin().post("/admin/members", json!({"authentik_sub": subject})).await.done();
        subject
    }

    /// The path of a new key of a member, or of a service.
    async fn api_key(&self, of: &str, body: Value) -> String {
        let made = self.site.admin().post(of, body).await.data();
        format!("{of}/{}", made["id"].as_str().expect("id"))
    }

    async fn member_key(&self) -> String {
        self.api_key(&format!("/admin/members/{}/api-keys", self.uid().await), json!({"name": "sample"})).await
    }

    async fn service_key(&self) -> String {
        self.api_key("/admin/api-keys", json!({"service_name": "sample", "scopes": ["audit:read"]})).await
    }

    /// The path of a new video of some member.
    async fn video(&self) -> String {
        let member = self.acme.member().await;
        let made = register(&member.caller(), &self.media.file_of(&member, "a.mp4", 1)).await.data();
        format!("/videos/{}", made["uuid"].as_str().expect("uuid"))
    }

    /// A new file in the caller's folder.
    async fn file(&self, caller: &As<'_>) -> Value {
        let me = caller.get("/me").await.data();
        json!({"path": self.media.file(&format!("{}/{}", me["username"].as_str().expect("username"), fresh("f")), 1)})
    }

    /// A row about data of its own caller; every other row is the same for all callers.
    async fn row_of(&self, operation: &Operation, caller: &As<'_>) -> (String, Option<Value>) {
        let text = |value: &Value| value["id"].as_str().expect("id").to_owned();
        let own_key = async || text(&caller.post("/me/api-keys", json!({"name": "sample"})).await.data());
        match operation.id.as_str() {
            "delete_my_api_key" => (format!("/me/api-keys/{}", own_key().await), None),
            "rotate_my_api_key" => (format!("/me/api-keys/{}/rotate", own_key().await), None),
            "register_video" => ("/register".into(), Some(self.file(caller).await)),
            "commit_reservation" | "release_reservation" => {
                let made = caller.post("/api/v1/quota/reservations", json!({"size": 1})).await.data();
                let at = format!("/quota/reservations/{}", text(&made));
                match operation.id.as_str() {
                    "commit_reservation" => (format!("{at}/commit"), Some(self.file(caller).await)),
                    _ => (format!("{at}/release"), None),
                }
            }
            "end_my_session" => {
                let sessions = caller.get("/me/sessions").await.data();
                (format!("/me/sessions/{}", text(&sessions["items"][0])), None)
            }
            _ => self.row(operation).await,
        }
    }

    /// A webhook of acme; nothing listens at its URL.
    async fn webhook(&self) -> String {
        let body = json!({"name": "sample", "url": "http://127.0.0.1:9/", "kinds": ["member.created"]});
        self.acme.admin().post("/admin/webhooks", body).await.data()["id"].as_str().expect("id").to_owned()
    }

    /// A delivery of acme that waits or was given up.
    async fn delivery(&self) -> String {
        let webhook = self.webhook().await;
        self.acme.admin().post("/admin/members", json!({"username": fresh("d")})).await.done();
        let waiting = self.acme.admin().get(&format!("/admin/deliveries?target={webhook}")).await.data();
        // It is the only delivery of its webhook, which gets no more events.
        let path = format!("/admin/webhooks/{webhook}");
        self.acme.admin().patch(&path, json!({"kinds": ["job.dead"]})).await.done();
        waiting["items"][0]["id"].as_str().expect("id").to_owned()
    }

    /// The path of a new plugin.
    async fn plugin(&self, rest: &str) -> String {
        let name = plugin_name();
        crate::plugins::upload(&self.acme.owner(), &name, crate::wasm_fixtures::allowing()).await.done();
        format!("/plugins/{name}{rest}")
    }

    /// The same, activated twice with different settings.
    async fn enforced_plugin(&self, rest: &str) -> String {
        let path = self.plugin("").await;
        for deadline_ms in [7, 8] {
            let body = json!({"version": 1, "mode": "enforce", "deadline_ms": deadline_ms});
            self.acme.owner().post(&format!("/api/v1{path}/activate"), body).await.done();
        }
        path + rest
    }

    /// The external key of a new mapping.
    async fn mapping(&self) -> String {
        let key = fresh("k");
        let body = json!({"external_source": "ldap", "external_key": key, "internal_role_key": self.role_key().await});
        self.acme.admin().put("/api/v1/permissions/role-mappings", body).await.done();
        key
    }

    async fn role_key(&self) -> String {
        let key = fresh("r");
        self.acme.role(&key, &[]).await;
        key
    }

    /// The value of a path parameter, by the path before it.
    async fn sample(&self, before: &str) -> String {
        let last = |address: String| address.rsplit('/').next().expect("a segment").to_owned();
        match before {
            "/me/sessions/" | "/me/api-keys/" | "/quota/reservations/" => "none".into(),
            "/internal/members/by-sub/" | "/internal/permissions/" => self.subject().await,
            "/internal/organizations/by-code/" => "acme".into(),
            "/admin/api-keys/" => last(self.service_key().await),
            "/videos/" => last(self.video().await),
            "/plugins/" => last(self.plugin("").await),
            _ if before.ends_with("/members/") || before.ends_with("/users/") || before.ends_with("/quotas/") => {
                self.uid().await
            }
            _ if before.ends_with("/organizations/") => self.acme.id.clone(),
            _ if before.ends_with("/versions/") => "1".into(),
            "/admin/invitations/" => self.invitation().await["id"].as_str().expect("id").to_owned(),
            "/admin/api-clients/" => self.client_key().await,
            "/admin/webhooks/" => self.webhook().await,
            "/admin/deliveries/" => self.delivery().await,
            "/jobs/" => self.job("queued").await,
            "/permissions/roles/" => self.role().await,
            _ => panic!("no sample of what stands behind {before}"),
        }
    }

    /// A request that only its caller can spoil: path below the base path, and body. It follows from the document, where
    /// `exception` has none: sample objects in the path, and the example of the body.
    async fn row(&self, operation: &Operation) -> (String, Option<Value>) {
        if let Some(row) = self.exception(&operation.id).await {
            return row;
        }
        let (mut path, mut rest) = (String::new(), operation.path.as_str());
        while let Some((literal, more)) = rest.split_once('{') {
            path.push_str(literal);
            let before = &operation.path[..operation.path.len() - more.len() - 1];
            path.push_str(&self.sample(before).await);
            rest = more.split_once('}').expect("a parameter ends").1;
        }
        path.push_str(rest);
        (path, operation.example.clone())
    }

    /// Requests that do not follow from the document: the example is bound to names or ids, or the object needs a state.
    #[rustfmt::skip]
    async fn exception(&self, operation: &str) -> Option<(String, Option<Value>)> {
        let id = &self.acme.id;
        let right = |uid: String| json!({"uid": uid, "scope_type": "site", "scope_id": "north", "module": "cameras", "action": "view"});
        Some(match operation {
            "create_member" => ("/admin/members".into(), Some(json!({"username": fresh("u")}))),
            "update_member" => (format!("/admin/members/{}", self.uid().await), Some(json!({"display_name": "New"}))),
            "reset_second_factor" => (format!("/admin/members/{}/second-factor", self.uid_with_second_factor().await), None),
            "create_invitation" => ("/admin/invitations".into(), Some(json!({}))),

            "create_organization" => ("/admin/organizations".into(), Some(json!({"org_code": fresh("o"), "name": "New"}))),
            "update_organization" => (format!("/admin/organizations/{id}"), Some(json!({"name": fresh("n")}))),
            "activate_organization" => (format!("/admin/organizations/{}/activate", self.organization().await), None),
            "deactivate_organization" => (format!("/admin/organizations/{}/deactivate", self.organization().await), None),

            "grant_right" => ("/admin/permissions/grant".into(), Some(right(self.uid().await))),
            "revoke_right" => ("/admin/permissions/revoke".into(), Some(right(self.uid().await))),

            "create_api_client" => ("/admin/api-clients".into(), Some(json!({"name": "new", "scopes": ["audit:read"]}))),

            "claim_jobs" => ("/jobs/claim".into(), Some(json!({}))),
            "retry_job" => (format!("/jobs/{}/retry", self.job("dead").await), None),

            "create_user" => ("/admin/users".into(), Some(json!({"username": fresh("u"), "email": format!("{}@example.org", fresh("u"))}))),
            "update_user" => (format!("/admin/users/{}", self.uid().await), Some(json!({"display_name": "New"}))),
            "import_users" => ("/admin/users/import".into(), Some(json!({"users": []}))),

            "create_my_api_key" => ("/me/api-keys".into(), Some(json!({"name": "new"}))),
            "create_member_api_key" => (format!("/admin/members/{}/api-keys", self.uid().await), Some(json!({"name": "new"}))),
            "delete_member_api_key" => (self.member_key().await, None),
            "rotate_member_api_key" => (format!("{}/rotate", self.member_key().await), None),
            "create_api_key" => ("/admin/api-keys".into(), Some(json!({"service_name": "new", "scopes": ["audit:read"]}))),

            "register_video" => ("/register".into(), Some(json!({"path": "nobody/a.mp4"}))),
            "commit_reservation" => ("/quota/reservations/none/commit".into(), Some(json!({"path": "nobody/a.mp4"}))),
            "transfer_video" => (format!("{}/transfer", self.video().await), Some(json!({"uid": self.uid().await}))),
            "import_videos" => ("/videos/import".into(), Some(json!({"dry_run": true}))),
            "update_organization_quota" => (format!("/admin/organizations/{id}/quota"), Some(json!({"member_size": null}))),
            "create_webhook" => ("/admin/webhooks".into(), Some(json!({"name": "new", "url": "https://example.org/", "kinds": ["*"]}))),

            "upsert_member_by_sub" => ("/internal/users/upsert-by-sub".into(), Some(json!({"sub": fresh("s")}))),

            "change_my_password" => ("/me/password".into(), Some(json!({"old_password": PASSWORD, "new_password": "Another-horse-8"}))),
            "ensure_authentik_user" => ("/internal/authentik/users/ensure".into(), Some(json!({"username": fresh("a")}))),

            "accept_my_invitation" => ("/me/invitations/accept".into(), Some(json!({"token": self.invitation().await["token"]}))),

            "upload_plugin" => (format!("/plugins?name={}", plugin_name()), None),
            "dry_run_plugin" => (self.plugin("/dry-run").await, Some(json!({"input": {"action": "GET"}}))),
            "activate_plugin" => (self.plugin("/activate").await, Some(json!({"version": 1, "mode": "enforce"}))),
            "roll_back_plugin" => (self.enforced_plugin("/rollback").await, None),

            "import_catalog" => ("/permissions/catalog?app=matrix".into(), Some(json!({"permissions": [{"name": fresh("p")}]}))),
            "check_permission" => ("/permissions/check".into(), Some(json!({"uid": self.uid().await, "permission": "roster.role.list"}))),
            "upsert_role_mapping" => ("/permissions/role-mappings".into(), Some(json!({"external_source": "ldap", "external_key": fresh("k"), "internal_role_key": self.role_key().await}))),
            "delete_role_mapping" => (format!("/permissions/role-mappings?external_source=ldap&external_key={}", self.mapping().await), None),
            "create_role" => ("/permissions/roles".into(), Some(json!({"key": fresh("r")}))),
            "replace_role_permissions" => (format!("/permissions/roles/{}/permissions", self.role().await), Some(json!({"permission_ids": []}))),
            "assign_user_role" => (format!("/permissions/users/{}/roles", self.uid().await), Some(json!({"role_id": self.role().await}))),
            "sync_user_roles" => (format!("/permissions/users/{}/roles/sync", self.uid().await), Some(json!({"source": "ldap", "external_keys": []}))),
            "revoke_user_role" => {
                let (uid, role) = (self.uid().await, self.role().await);
                self.acme.assign(&uid, &role).await;
                (format!("/permissions/users/{uid}/roles/{role}"), None)
            }
            _ => return None,
        })
    }
}

// ── the document ──

struct Operation {
    id: String,
    method: Method,
    path: String,
    /// The example of its body.
    example: Option<Value>,
    area: u64,
    permission: Option<String>,
    scope: Option<String>,
    takes_bearer: bool,
    takes_client: bool,
    takes_internal: bool,
    takes_gateway: bool,
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, value) in
            item.as_object().expect("an item").iter().filter(|(_, value)| value["operationId"].is_string())
        {
            let id = value["operationId"].as_str().expect("id").to_owned();
            let takes = |name: &str| {
                value["security"].as_array().is_some_and(|list| list.iter().any(|scheme| scheme.get(name).is_some()))
            };
            let text = |name: &str| value[name].as_str().map(str::to_owned);
            let of_services = INTERNAL.iter().find(|(name, _)| *name == id).map(|(_, scope)| (*scope).to_owned());
            found.push(Operation {
                method: method.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                example: example(document, value),
                area: area(path),
                permission: text("x-permission"),
                scope: text("x-client-scope").or(of_services),
                takes_bearer: takes("bearer"),
                takes_client: takes("client_key"),
                takes_internal: takes("internal_secret") && !takes("gateway_uid"),
                takes_gateway: takes("gateway_uid"),
                id,
            });
        }
    }
    found
}

/// The scope of the error codes of a path.
fn area(path: &str) -> u64 {
    let areas = [
        ("/permissions", 31),
        ("/jobs", 33),
        ("/plugins", 34),
        ("/admin/api-clients", 32),
        ("/admin/api-keys", 32),
        ("/me/api-keys", 32),
        ("/videos", 33),
        ("/register", 33),
        ("/quota", 33),
        ("/me/quota", 33),
        ("/admin/quotas", 33),
        ("/admin/usage", 33),
        ("/admin/audit", 35),
        ("/admin/deliveries", 35),
        ("/admin/webhooks", 35),
        ("/admin/wordpress", 35),
        ("/admin/sftpgo", 35),
        ("/hooks", 33),
        ("/admin/encryption-key", 28),
        ("/admin/signing-keys", 28),
        ("/auth", 28),
        ("/me", 29),
        ("/admin", 29),
        ("/internal", 29),
    ];
    areas.iter().find(|(top, _)| path.starts_with(top)).map_or(35, |(_, area)| *area)
}

impl Operation {
    /// The code of a failure of this scope and category; the permission area has its own codes for 401 and 403.
    fn code(&self, scope: u64, category: u64) -> u64 {
        let scope = if self.area == 31 && scope != 10 { 31 } else { scope };
        scope * 1_000_000 + category * 1_000
    }

    /// The code for a caller without a credential that this operation takes.
    fn nobody(&self) -> u64 {
        let only_bearer = self.takes_bearer && !self.takes_client && !self.takes_internal && !self.takes_gateway;
        self.code(if only_bearer { 28 } else { self.area }, 501)
    }

    /// The code for the owner of another organization.
    fn foreign(&self) -> u64 {
        let has_no_404 = crate::area_codes::defined(&self.id).is_some_and(|codes| !codes.contains(&31_301_000));
        if has_no_404 { 31_501_000 } else { self.code(29, 301) }
    }

    fn needs_no_right(&self) -> bool {
        NO_PERMISSION_NEEDED.contains(&self.id.as_str())
    }

    /// All scopes that do not cover the needed one.
    fn other_scopes(&self) -> Vec<&'static str> {
        let needed = self.scope.as_deref().unwrap_or_default();
        let covers = |scope: &str| {
            scope == "*"
                || scope == needed
                || needed.strip_suffix(":read").is_some_and(|area| scope == format!("{area}:write"))
        };
        SCOPES.into_iter().filter(|scope| !covers(scope)).collect()
    }
}

fn plugin_name() -> String {
    fresh("p")
}

async fn call(caller: &As<'_>, operation: &Operation, row: &(String, Option<Value>)) -> Reply {
    if operation.id == "upload_plugin" {
        let path = format!("/api/v1{}", row.0);
        let component = crate::wasm_fixtures::allowing();
        return caller.send_raw(operation.method.clone(), &path, "application/wasm", component).await;
    }
    caller.send(operation.method.clone(), &format!("/api/v1{}", row.0), row.1.clone()).await
}

/// A member of the organization `platform` with exactly these permissions.
async fn platform_member<'s>(site: &'s Site, permissions: &[&str]) -> Member<'s> {
    let (admin, member) = (site.admin().with("x-tenant-id", "platform"), site.member().await);
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    admin
        .post(&format!("/admin/members/{}/organizations/{}", member.uid, platform.as_str().expect("id")), json!({}))
        .await
        .done();
    let role = admin.post("/api/v1/permissions/roles", json!({"key": fresh("r")})).await.data()["id"]
        .as_str()
        .expect("id")
        .to_owned();
    admin
        .put(&format!("/api/v1/permissions/roles/{role}/permissions"), json!({"permission_ids": permissions}))
        .await
        .done();
    admin.post(&format!("/api/v1/permissions/users/{}/roles", member.uid), json!({"role_id": role})).await.done();
    member
}

/// Roster's own permissions that an operation needs: all of them, and those that a tenant can hold.
async fn own_permissions(acme: &Organization<'_>) -> (Vec<String>, Vec<String>) {
    let list = acme.owner().get("/api/v1/permissions/catalog?app=roster").await.data();
    let leaves = list["list"].as_array().expect("list").iter().filter(|node| node.get("http_path").is_some());
    let all: Vec<String> = leaves.map(|node| node["id"].as_str().expect("id").to_owned()).collect();
    let held = acme.owner().get("/api/v1/permissions/me").await.data();
    let of_tenants = all.iter().filter(|name| held["permissions"].get(name.as_str()).is_some()).cloned().collect();
    (all, of_tenants)
}

// ── the matrix ──

#[tokio::test]
async fn every_operation_refuses_every_wrong_caller_and_serves_the_right_one() {
    let authentik = Authentik::start();
    let media = Media::new();
    let webhooks = "webhooks.private_hosts = [\"127.0.0.1\"]\nlimits.webhooks = 10000\n";
    let (_wordpress, _secrets, wordpress) = crate::wordpress_events::empty_wordpress();
    let sftpgo = crate::counterparts::Sftpgo::start(&[]);
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
        let row = world.row(operation).await;
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
            let row = world.row_of(operation, &caller).await;
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
