//! The rows of the matrix: a valid request for every operation.

use serde_json::{Value, json};

use super::document::plugin_name;
use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::sessions::second_factor::enrolled;
use crate::videos::registration::{Media, register};

/// A path below the base path, and a body.
pub type Row = (String, Option<Value>);

pub struct Fixture<'s> {
    pub site: &'s Site,
    pub acme: &'s Organization<'s>,
    pub media: &'s Media,
}

pub fn fresh(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7().simple())
}

impl Fixture<'_> {
    pub async fn role(&self) -> String {
        self.acme.role(&fresh("r"), &[]).await
    }

    pub async fn uid(&self) -> String {
        self.acme.member().await.uid
    }

    pub async fn uid_with_second_factor(&self) -> String {
        let member = self.acme.member().await;
        enrolled(&member).await;
        member.uid
    }

    pub async fn invitation(&self) -> Value {
        self.acme.admin().post("/admin/invitations", json!({})).await.data()
    }

    pub async fn client_key(&self) -> String {
        let made = self
            .site
            .admin()
            .post("/admin/api-clients", json!({"name": "sample", "scopes": ["audit:read"]}))
            .await
            .data();
        made["client_key"].as_str().expect("key").to_owned()
    }

    pub async fn organization(&self) -> String {
        let code = fresh("o");
        let made = self.site.admin().post("/admin/organizations", json!({"org_code": code, "name": code})).await.data();
        made["id"].as_str().expect("id").to_owned()
    }

    /// A job of a member of the organization, in this state.
    pub async fn job(&self, state: &str) -> String {
        let id = crate::videos::jobs::queue(self.site, &self.uid().await, Some(&self.acme.id), 1).remove(0);
        let bytes = uuid::Uuid::parse_str(&id).expect("id").into_bytes();
        let statement = "update jobs set state = ?1 where id = ?2";
        self.site.write_rows(|rows| rows.execute(statement, rusqlite::params![state, bytes]));
        id
    }

    pub async fn subject(&self) -> String {
        let subject = fresh("s");
        self.site.admin().post("/admin/members", json!({"authentik_sub": subject})).await.done();
        subject
    }

    /// The path of a new key of a member, or of a service.
    pub async fn api_key(&self, of: &str, body: Value) -> String {
        let made = self.site.admin().post(of, body).await.data();
        format!("{of}/{}", made["id"].as_str().expect("id"))
    }

    pub async fn member_key(&self) -> String {
        self.api_key(&format!("/admin/members/{}/api-keys", self.uid().await), json!({"name": "sample"})).await
    }

    pub async fn service_key(&self) -> String {
        self.api_key("/admin/api-keys", json!({"service_name": "sample", "scopes": ["audit:read"]})).await
    }

    /// The path of a new video of some member.
    pub async fn video(&self) -> String {
        let member = self.acme.member().await;
        let made = register(&member.caller(), &self.media.file_of(&member, "a.mp4", 1)).await.data();
        format!("/videos/{}", made["uuid"].as_str().expect("uuid"))
    }

    /// A new file in the caller's folder.
    pub async fn file(&self, caller: &As<'_>) -> Value {
        let me = caller.get("/me").await.data();
        json!({"path": self.media.file(&format!("{}/{}", me["username"].as_str().expect("username"), fresh("f")), 1)})
    }

    /// A row about data of its own caller; every other row is the same for all callers.
    pub async fn row_of(&self, operation: &str, caller: &As<'_>) -> Option<Row> {
        let text = |value: &Value| value["id"].as_str().expect("id").to_owned();
        let own_key = async || text(&caller.post("/me/api-keys", json!({"name": "sample"})).await.data());
        match operation {
            "delete_my_api_key" => Some((format!("/me/api-keys/{}", own_key().await), None)),
            "rotate_my_api_key" => Some((format!("/me/api-keys/{}/rotate", own_key().await), None)),
            "register_video" => Some(("/register".into(), Some(self.file(caller).await))),
            "commit_reservation" | "release_reservation" => {
                let made = caller.post("/api/v1/quota/reservations", json!({"size": 1})).await.data();
                let at = format!("/quota/reservations/{}", text(&made));
                Some(match operation {
                    "commit_reservation" => (format!("{at}/commit"), Some(self.file(caller).await)),
                    _ => (format!("{at}/release"), None),
                })
            }
            "end_my_session" => {
                let sessions = caller.get("/me/sessions").await.data();
                Some((format!("/me/sessions/{}", text(&sessions["items"][0])), None))
            }
            _ => self.row(operation).await,
        }
    }

    /// A webhook of acme; nothing listens at its URL.
    pub async fn webhook(&self) -> String {
        let body = json!({"name": "sample", "url": "http://127.0.0.1:9/", "kinds": ["member.created"]});
        self.acme.admin().post("/admin/webhooks", body).await.data()["id"].as_str().expect("id").to_owned()
    }

    /// A delivery of acme that waits or was given up.
    pub async fn delivery(&self) -> String {
        let webhook = self.webhook().await;
        self.acme.admin().post("/admin/members", json!({"username": fresh("d")})).await.done();
        let waiting = self.acme.admin().get(&format!("/admin/deliveries?target={webhook}")).await.data();
        // It is the only delivery of its webhook, which gets no more events.
        let path = format!("/admin/webhooks/{webhook}");
        self.acme.admin().patch(&path, json!({"kinds": ["job.dead"]})).await.done();
        waiting["items"][0]["id"].as_str().expect("id").to_owned()
    }

    /// The path of a new plugin.
    pub async fn plugin(&self, rest: &str) -> String {
        let name = plugin_name();
        crate::plugins::upload(&self.acme.owner(), &name, crate::harness::wasm_fixtures::allowing()).await.done();
        format!("/plugins/{name}{rest}")
    }

    /// The same, activated twice with different settings.
    pub async fn enforced_plugin(&self, rest: &str) -> String {
        let path = self.plugin("").await;
        for deadline_ms in [7, 8] {
            let body = json!({"version": 1, "mode": "enforce", "deadline_ms": deadline_ms});
            self.acme.owner().post(&format!("/api/v1{path}/activate"), body).await.done();
        }
        path + rest
    }

    /// The external key of a new mapping.
    pub async fn mapping(&self) -> String {
        let key = fresh("k");
        let body = json!({"external_source": "ldap", "external_key": key, "internal_role_key": self.role_key().await});
        self.acme.admin().put("/api/v1/permissions/role-mappings", body).await.done();
        key
    }

    pub async fn role_key(&self) -> String {
        let key = fresh("r");
        self.acme.role(&key, &[]).await;
        key
    }

    /// A request that is valid except for its caller.
    pub async fn row(&self, operation: &str) -> Option<Row> {
        if let Some(row) = self.row_of_people(operation).await {
            return Some(row);
        }
        if let Some(row) = self.row_of_credentials(operation).await {
            return Some(row);
        }
        if let Some(row) = self.row_of_videos(operation).await {
            return Some(row);
        }
        self.row_of_permissions(operation).await
    }

    /// Members, users and organizations.
    #[rustfmt::skip]
    async fn row_of_people(&self, operation: &str) -> Option<Row> {
        let id = &self.acme.id;
        Some(match operation {
            "list_members" => ("/admin/members".into(), None),
            "create_member" => ("/admin/members".into(), Some(json!({"username": fresh("u")}))),
            "get_member" => (format!("/admin/members/{}", self.uid().await), None),
            "update_member" => (format!("/admin/members/{}", self.uid().await), Some(json!({"display_name": "New"}))),
            "delete_member" => (format!("/admin/members/{}", self.uid().await), None),
            "activate_member" => (format!("/admin/members/{}/activate", self.uid().await), None),
            "deactivate_member" => (format!("/admin/members/{}/deactivate", self.uid().await), None),
            "reset_second_factor" => (format!("/admin/members/{}/second-factor", self.uid_with_second_factor().await), None),
            "list_invitations" => ("/admin/invitations".into(), None),
            "create_invitation" => ("/admin/invitations".into(), Some(json!({}))),
            "delete_invitation" => (format!("/admin/invitations/{}", self.invitation().await["id"].as_str().expect("id")), None),
            "list_member_organizations" => (format!("/admin/members/{}/organizations", self.uid().await), None),
            "link_member" => (format!("/admin/members/{}/organizations/{id}", self.uid().await), None),
            "link_member_by_name" => (format!("/admin/members/{}/organizations", self.uid().await), Some(json!({"organization": "acme"}))),
            "unlink_member" => (format!("/admin/members/{}/organizations/{id}", self.uid().await), None),

            "list_organizations" => ("/admin/organizations".into(), None),
            "create_organization" => ("/admin/organizations".into(), Some(json!({"org_code": fresh("o"), "name": "New"}))),
            "get_organization" => (format!("/admin/organizations/{id}"), None),
            "update_organization" => (format!("/admin/organizations/{id}"), Some(json!({"name": fresh("n")}))),
            "activate_organization" => (format!("/admin/organizations/{}/activate", self.organization().await), None),
            "deactivate_organization" => (format!("/admin/organizations/{}/deactivate", self.organization().await), None),

            "list_users" => ("/admin/users".into(), None),
            "create_user" => ("/admin/users".into(), Some(json!({"username": fresh("u"), "email": format!("{}@example.org", fresh("u"))}))),
            "get_user" => (format!("/admin/users/{}", self.uid().await), None),
            "update_user" => (format!("/admin/users/{}", self.uid().await), Some(json!({"display_name": "New"}))),
            "delete_user" => (format!("/admin/users/{}", self.uid().await), None),
            "import_users" => ("/admin/users/import".into(), Some(json!({"users": []}))),

            "list_members_internal" => ("/internal/members".into(), None),
            "get_member_by_sub" => (format!("/internal/members/by-sub/{}", self.subject().await), None),
            "list_member_organizations_internal" => (format!("/internal/members/{}/organizations", self.uid().await), None),
            "list_organizations_internal" => ("/internal/organizations".into(), None),
            "get_organization_by_code" => ("/internal/organizations/by-code/acme".into(), None),
            "get_rights_by_sub" => (format!("/internal/permissions/{}/snapshot", self.subject().await), None),
            "upsert_member_by_sub" => ("/internal/users/upsert-by-sub".into(), Some(json!({"sub": fresh("s")}))),

            "get_me" => ("/me".into(), None),
            "update_me" => ("/me".into(), Some(json!({"display_name": "Me"}))),
            "get_my_second_factor" => ("/me/second-factor".into(), None),
            "begin_my_second_factor" => ("/me/second-factor".into(), Some(json!({"password": PASSWORD}))),
            "confirm_my_second_factor" => ("/me/second-factor/confirm".into(), Some(json!({"code": "123456"}))),
            "renew_my_recovery_codes" => ("/me/second-factor/recovery-codes".into(), Some(json!({"code": "123456"}))),
            "remove_my_second_factor" => ("/me/second-factor/remove".into(), Some(json!({"code": "123456"}))),
            "accept_my_invitation" => ("/me/invitations/accept".into(), Some(json!({"token": self.invitation().await["token"]}))),
            "get_my_rights" => ("/me/permissions/snapshot".into(), None),
            _ => return None,
        })
    }

    /// Clients, keys, sessions and passwords.
    #[rustfmt::skip]
    async fn row_of_credentials(&self, operation: &str) -> Option<Row> {
        Some(match operation {
            "list_api_clients" => ("/admin/api-clients".into(), None),
            "create_api_client" => ("/admin/api-clients".into(), Some(json!({"name": "new", "scopes": ["audit:read"]}))),
            "get_api_client" => (format!("/admin/api-clients/{}", self.client_key().await), None),
            "update_api_client" => (format!("/admin/api-clients/{}", self.client_key().await), Some(json!({"name": "newer"}))),
            "delete_api_client" => (format!("/admin/api-clients/{}", self.client_key().await), None),
            "rotate_api_client" => (format!("/admin/api-clients/{}/rotate", self.client_key().await), None),

            "logout" => ("/auth/logout".into(), None),
            "list_my_sessions" | "end_my_sessions" => ("/me/sessions".into(), None),
            "end_my_session" => ("/me/sessions/none".into(), None),
            "list_signing_keys" => ("/admin/signing-keys".into(), None),
            "rotate_signing_key" => ("/admin/signing-keys/rotate".into(), None),
            "rotate_encryption_key" => ("/admin/encryption-key/rotate".into(), None),

            "list_my_api_keys" => ("/me/api-keys".into(), None),
            "create_my_api_key" => ("/me/api-keys".into(), Some(json!({"name": "new"}))),
            "delete_my_api_key" => ("/me/api-keys/none".into(), None),
            "rotate_my_api_key" => ("/me/api-keys/none/rotate".into(), None),
            "list_member_api_keys" => (format!("/admin/members/{}/api-keys", self.uid().await), None),
            "create_member_api_key" => (format!("/admin/members/{}/api-keys", self.uid().await), Some(json!({"name": "new"}))),
            "delete_member_api_key" => (self.member_key().await, None),
            "rotate_member_api_key" => (format!("{}/rotate", self.member_key().await), None),
            "list_api_keys" => ("/admin/api-keys".into(), None),
            "create_api_key" => ("/admin/api-keys".into(), Some(json!({"service_name": "new", "scopes": ["audit:read"]}))),
            "delete_api_key" => (self.service_key().await, None),
            "rotate_api_key" => (format!("{}/rotate", self.service_key().await), None),

            "create_password_link" => (format!("/admin/members/{}/password-link", self.uid().await), None),
            "change_my_password" => ("/me/password".into(), Some(json!({"old_password": PASSWORD, "new_password": "Another-horse-8"}))),
            "ensure_authentik_user" => ("/internal/authentik/users/ensure".into(), Some(json!({"username": fresh("a")}))),
            _ => return None,
        })
    }

    /// Videos, jobs, deliveries and the audit log.
    #[rustfmt::skip]
    async fn row_of_videos(&self, operation: &str) -> Option<Row> {
        let id = &self.acme.id;
        Some(match operation {
            "list_jobs" => ("/jobs".into(), None),
            "count_jobs" => ("/jobs/counts".into(), None),
            "get_job" => (format!("/jobs/{}", self.job("queued").await), None),
            "claim_jobs" => ("/jobs/claim".into(), Some(json!({}))),
            "heartbeat_job" => (format!("/jobs/{}/heartbeat", self.job("queued").await), Some(json!({}))),
            "complete_job" => (format!("/jobs/{}/complete", self.job("queued").await), Some(json!({}))),
            "fail_job" => (format!("/jobs/{}/fail", self.job("queued").await), Some(json!({"error": "broken"}))),
            "retry_job" => (format!("/jobs/{}/retry", self.job("dead").await), None),

            "sync_wordpress" => ("/admin/wordpress/sync".into(), Some(json!({}))),

            "register_video" => ("/register".into(), Some(json!({"path": "nobody/a.mp4"}))),
            "create_reservation" => ("/quota/reservations".into(), Some(json!({"size": 1}))),
            "commit_reservation" => ("/quota/reservations/none/commit".into(), Some(json!({"path": "nobody/a.mp4"}))),
            "release_reservation" => ("/quota/reservations/none/release".into(), None),
            "list_videos" => ("/videos".into(), None),
            "get_video" | "delete_video" => (self.video().await, None),
            "transfer_video" => (format!("{}/transfer", self.video().await), Some(json!({"uid": self.uid().await}))),
            "import_videos" => ("/videos/import".into(), Some(json!({"dry_run": true}))),
            "claim_videos" => ("/videos/claim".into(), Some(json!({"dry_run": true}))),
            "get_my_quota" => ("/me/quota".into(), None),
            "list_quotas" => ("/admin/quotas".into(), None),
            "update_member_quota" => (format!("/admin/members/{}/quota", self.uid().await), Some(json!({"size": 7}))),
            "update_organization_quota" => (format!("/admin/organizations/{id}/quota"), Some(json!({"member_size": null}))),
            "list_ledger" => (format!("/admin/quotas/{}/ledger", self.uid().await), None),
            "get_usage" => ("/admin/usage".into(), None),
            "recount_quotas" => ("/admin/quotas/recount".into(), Some(json!({}))),
            "list_deliveries" => ("/admin/deliveries".into(), None),
            "retry_delivery" => (format!("/admin/deliveries/{}/retry", self.delivery().await), None),
            "list_webhooks" => ("/admin/webhooks".into(), None),
            "create_webhook" => ("/admin/webhooks".into(), Some(json!({"name": "new", "url": "https://example.org/", "kinds": ["*"]}))),
            "update_webhook" => (format!("/admin/webhooks/{}", self.webhook().await), Some(json!({"name": fresh("w")}))),
            "delete_webhook" => (format!("/admin/webhooks/{}", self.webhook().await), None),
            "rotate_webhook" => (format!("/admin/webhooks/{}/rotate", self.webhook().await), None),
            "get_sftpgo_drift" => ("/admin/sftpgo/drift".into(), None),
            "reconcile_sftpgo" => ("/admin/sftpgo/reconcile".into(), Some(json!({"dry_run": true}))),
            "test_webhook" => (format!("/admin/webhooks/{}/test", self.webhook().await), None),

            "list_audit" => ("/admin/audit".into(), None),
            "export_audit" => ("/admin/audit/export".into(), None),
            "verify_audit" => ("/admin/audit/verify".into(), None),
            _ => return None,
        })
    }

    /// Grants, plugins, roles and the catalog.
    #[rustfmt::skip]
    async fn row_of_permissions(&self, operation: &str) -> Option<Row> {
        let right = |uid: String| json!({"uid": uid, "scope_type": "site", "scope_id": "north", "module": "cameras", "action": "view"});
        Some(match operation {
            "grant_right" => ("/admin/permissions/grant".into(), Some(right(self.uid().await))),
            "revoke_right" => ("/admin/permissions/revoke".into(), Some(right(self.uid().await))),

            "list_plugins" => ("/plugins".into(), None),
            "upload_plugin" => (format!("/plugins?name={}", plugin_name()), None),
            "get_plugin" => (self.plugin("").await, None),
            "get_plugin_log" => (self.plugin("/log").await, None),
            "dry_run_plugin" => (self.plugin("/dry-run").await, Some(json!({"input": {"action": "GET"}}))),
            "activate_plugin" => (self.plugin("/activate").await, Some(json!({"version": 1, "mode": "enforce"}))),
            "deactivate_plugin" => (self.plugin("/deactivate").await, None),
            "roll_back_plugin" => (self.enforced_plugin("/rollback").await, None),
            "delete_plugin" => (self.plugin("").await, None),
            "delete_plugin_version" => (self.plugin("/versions/1").await, None),

            "get_permission_catalog" => ("/permissions/catalog".into(), None),
            "import_catalog" => ("/permissions/catalog?app=matrix".into(), Some(json!({"permissions": [{"name": fresh("p")}]}))),
            "get_my_permissions" => ("/permissions/me".into(), None),
            "list_decisions" => ("/permissions/decisions".into(), None),
            "check_permission" => ("/permissions/check".into(), Some(json!({"uid": self.uid().await, "permission": "roster.role.list"}))),
            "reload_policy" => ("/permissions/policy/reload".into(), Some(json!({}))),
            "list_role_mappings" => ("/permissions/role-mappings".into(), None),
            "upsert_role_mapping" => ("/permissions/role-mappings".into(), Some(json!({"external_source": "ldap", "external_key": fresh("k"), "internal_role_key": self.role_key().await}))),
            "delete_role_mapping" => (format!("/permissions/role-mappings?external_source=ldap&external_key={}", self.mapping().await), None),
            "list_roles" => ("/permissions/roles".into(), None),
            "create_role" => ("/permissions/roles".into(), Some(json!({"key": fresh("r")}))),
            "get_role" => (format!("/permissions/roles/{}", self.role().await), None),
            "update_role" => (format!("/permissions/roles/{}", self.role().await), Some(json!({"display_name": "New"}))),
            "delete_role" => (format!("/permissions/roles/{}", self.role().await), None),
            "list_role_permissions" => (format!("/permissions/roles/{}/permissions", self.role().await), None),
            "replace_role_permissions" => (format!("/permissions/roles/{}/permissions", self.role().await), Some(json!({"permission_ids": []}))),
            "list_role_members" => (format!("/permissions/roles/{}/users", self.role().await), None),
            "list_user_roles" => (format!("/permissions/users/{}/roles", self.uid().await), None),
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
