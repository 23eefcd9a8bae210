//! The rows of the matrix: a valid request for every operation, derived from the document or named as an exception.

use serde_json::{Value, json};

use super::document::{Operation, plugin_name};
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

    /// The path of a session of a new member.
    pub async fn member_session(&self) -> String {
        let member = self.acme.member().await;
        let sessions = member.caller().get("/me/sessions").await.data();
        format!("/admin/members/{}/sessions/{}", member.uid, sessions["items"][0]["id"].as_str().expect("id"))
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
    pub async fn row_of(&self, operation: &Operation, caller: &As<'_>) -> Row {
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

    /// A task of the administrator.
    pub async fn task(&self) -> String {
        let started = self.site.admin().get("/admin/audit/verify?background=true").await;
        started.body["data"]["id"].as_str().expect("id").to_owned()
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

    /// The value of a path parameter, by the path before it.
    async fn sample(&self, before: &str) -> String {
        let last = |path: String| path.rsplit('/').next().expect("a segment").to_owned();
        let ends = |endings: &[&str]| endings.iter().any(|ending| before.ends_with(ending));
        match before {
            "/me/sessions/" | "/me/trusted-devices/" | "/me/api-keys/" | "/quota/reservations/" => "none".into(),
            "/internal/members/by-sub/" | "/internal/permissions/" => self.subject().await,
            "/internal/organizations/by-code/" => "acme".into(),
            "/admin/api-keys/" => last(self.service_key().await),
            "/videos/" => last(self.video().await),
            "/plugins/" => last(self.plugin("").await),
            "/admin/invitations/" => self.invitation().await["id"].as_str().expect("id").to_owned(),
            "/admin/api-clients/" => self.client_key().await,
            "/admin/webhooks/" => self.webhook().await,
            "/admin/deliveries/" => self.delivery().await,
            "/admin/connections/" => "sftpgo".into(),
            "/jobs/" => self.job("queued").await,
            "/tasks/" => self.task().await,
            "/permissions/roles/" => self.role().await,
            _ if ends(&["/members/", "/users/", "/quotas/"]) => self.uid().await,
            _ if ends(&["/organizations/"]) => self.acme.id.clone(),
            _ if ends(&["/versions/"]) => "1".into(),
            _ => panic!("there is no sample of what follows {before}"),
        }
    }

    /// A request that is valid except for its caller. Unless it is an exception, it follows from the document: sample
    /// objects in the path, and the example of the body.
    pub async fn row(&self, operation: &Operation) -> Row {
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

    /// Requests whose body is bound to names or ids, or whose object must be in a certain state.
    async fn exception(&self, operation: &str) -> Option<Row> {
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
            "search" => ("/search?q=ki".into(), None),
            "create_member" => ("/admin/members".into(), Some(json!({"username": fresh("u")}))),
            "update_member" => (format!("/admin/members/{}", self.uid().await), Some(json!({"display_name": "New"}))),
            "reset_second_factor" => (format!("/admin/members/{}/second-factor", self.uid_with_second_factor().await), None),
            "create_invitation" => ("/admin/invitations".into(), Some(json!({}))),

            "create_organization" => ("/admin/organizations".into(), Some(json!({"org_code": fresh("o"), "name": "New"}))),
            "update_organization" => (format!("/admin/organizations/{id}"), Some(json!({"name": fresh("n")}))),
            "activate_organization" => (format!("/admin/organizations/{}/activate", self.organization().await), None),
            "deactivate_organization" => (format!("/admin/organizations/{}/deactivate", self.organization().await), None),

            "create_user" => ("/admin/users".into(), Some(json!({"username": fresh("u"), "email": format!("{}@example.org", fresh("u"))}))),
            "update_user" => (format!("/admin/users/{}", self.uid().await), Some(json!({"display_name": "New"}))),
            "import_users" => ("/admin/users/import".into(), Some(json!({"users": []}))),

            "upsert_member_by_sub" => ("/internal/users/upsert-by-sub".into(), Some(json!({"sub": fresh("s")}))),

            "accept_my_invitation" => ("/me/invitations/accept".into(), Some(json!({"token": self.invitation().await["token"]}))),
            _ => return None,
        })
    }

    /// Clients, keys, sessions and passwords.
    #[rustfmt::skip]
    async fn row_of_credentials(&self, operation: &str) -> Option<Row> {
        Some(match operation {
            "create_api_client" => ("/admin/api-clients".into(), Some(json!({"name": "new", "scopes": ["audit:read"]}))),

            "create_my_api_key" => ("/me/api-keys".into(), Some(json!({"name": "new"}))),
            "create_member_api_key" => (format!("/admin/members/{}/api-keys", self.uid().await), Some(json!({"name": "new"}))),
            "end_member_session" => (self.member_session().await, None),
            "delete_member_api_key" => (self.member_key().await, None),
            "rotate_member_api_key" => (format!("{}/rotate", self.member_key().await), None),
            "create_api_key" => ("/admin/api-keys".into(), Some(json!({"service_name": "new", "scopes": ["audit:read"]}))),

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
            "claim_jobs" => ("/jobs/claim".into(), Some(json!({}))),
            "retry_job" => (format!("/jobs/{}/retry", self.job("dead").await), None),

            "register_video" => ("/register".into(), Some(json!({"path": "nobody/a.mp4"}))),
            "commit_reservation" => ("/quota/reservations/none/commit".into(), Some(json!({"path": "nobody/a.mp4"}))),
            "transfer_video" => (format!("{}/transfer", self.video().await), Some(json!({"uid": self.uid().await}))),
            "import_videos" => ("/videos/import".into(), Some(json!({"dry_run": true}))),
            // Without a ceiling of its own an organization gives at most the default.
            "update_member_quota" => (format!("/admin/members/{}/quota", self.uid().await), Some(json!({"size": 7}))),
            "update_organization_quota" => (format!("/admin/organizations/{id}/quota"), Some(json!({"member_size": null}))),
            "create_webhook" => ("/admin/webhooks".into(), Some(json!({"name": "new", "url": "https://example.org/", "kinds": ["*"]}))),
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
            "list_rights" => (format!("/admin/permissions/grants?member={}", self.uid().await), None),

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
