//! Organizations, members and roles of a test, created through the API.

use serde_json::{Value, json};

use super::callers::As;
use super::site::{PASSWORD, Site};

/// An organization of a test.
pub struct Organization<'s> {
    pub site: &'s Site,
    pub id: String,
    pub owner_token: String,
}

impl<'s> Organization<'s> {
    /// Its first owner as a caller.
    pub fn owner(&self) -> As<'s> {
        self.site.bearer(&self.owner_token)
    }

    /// Creates a member of it without a role.
    pub async fn member(&self) -> Member<'s> {
        let member = self.site.member().await;
        self.link(&member.uid).await;
        member
    }

    pub async fn link(&self, uid: &str) {
        self.site.admin().post(&format!("/admin/members/{uid}/organizations/{}", self.id), json!({})).await.done();
    }

    /// Creates a member of it with one of its roles.
    pub async fn member_with_role(&self, role_key: &str) -> Member<'s> {
        let member = self.member().await;
        self.assign(&member.uid, &self.role_id(role_key).await).await;
        member
    }

    /// Creates a member of it with exactly these permissions, by a role of its own.
    pub async fn member_with(&self, permissions: &[&str]) -> Member<'s> {
        let member = self.member().await;
        let role = self.role(&format!("r{}", &uuid::Uuid::now_v7().simple().to_string()[20..]), permissions).await;
        self.assign(&member.uid, &role).await;
        member
    }

    /// Creates a role with these permissions and returns its id.
    pub async fn role(&self, key: &str, permissions: &[&str]) -> String {
        let admin = self.admin();
        let role = admin.post("/api/v1/permissions/roles", json!({"key": key})).await.data();
        let id = role["id"].as_str().expect("id").to_owned();
        admin
            .put(&format!("/api/v1/permissions/roles/{id}/permissions"), json!({"permission_ids": permissions}))
            .await
            .done();
        id
    }

    pub async fn role_id(&self, key: &str) -> String {
        let roles = self.admin().get("/api/v1/permissions/roles").await.data();
        let role =
            roles["roles"].as_array().expect("roles").iter().find(|role| role["key"] == key).expect("the role").clone();
        role["id"].as_str().expect("id").to_owned()
    }

    pub async fn assign(&self, uid: &str, role_id: &str) {
        self.admin().post(&format!("/api/v1/permissions/users/{uid}/roles"), json!({"role_id": role_id})).await.done();
    }

    /// Maps a key of an external source to a role.
    pub async fn map(&self, source: &str, external_key: &str, role_key: &str) {
        let body = json!({"external_source": source, "external_key": external_key, "internal_role_key": role_key});
        self.admin().put("/api/v1/permissions/role-mappings", body).await.done();
    }

    /// The platform administrator, acting in this organization.
    pub fn admin(&self) -> As<'s> {
        self.site.admin().with("x-tenant-id", &self.id)
    }

    /// Checks in this organization as the platform administrator.
    pub async fn check(&self, question: Value) -> Value {
        self.admin().post("/api/v1/permissions/check", question).await.data()
    }
}

/// A member of a test, signed in.
pub struct Member<'s> {
    pub site: &'s Site,
    pub uid: String,
    pub username: String,
    pub token: String,
}

impl<'s> Member<'s> {
    pub fn caller(&self) -> As<'s> {
        self.site.bearer(&self.token)
    }
}

impl Site {
    /// Creates an organization with an owner.
    pub async fn organization(&self, org_code: &str) -> Organization<'_> {
        let made =
            self.admin().post("/admin/organizations", json!({"org_code": org_code, "name": org_code})).await.data();
        let id = made["id"].as_str().expect("id").to_owned();
        let mut organization = Organization { site: self, id, owner_token: String::new() };
        organization.owner_token = organization.member_with_role("tenant_owner").await.token;
        organization
    }

    /// Creates a member without a membership, who can sign in.
    pub async fn member(&self) -> Member<'_> {
        let username = format!("u{}", uuid::Uuid::now_v7().simple());
        let body = json!({"username": username, "password": PASSWORD});
        let made = self.admin().post("/admin/members", body).await.data();
        let uid = made["uid"].as_str().expect("uid").to_owned();
        let token = self.token(&username, PASSWORD).await;
        Member { site: self, uid, username, token }
    }

    /// Creates a member of the organization `platform` with exactly these permissions.
    pub async fn platform_member(&self, permissions: &[&str]) -> Member<'_> {
        let list = self.admin().get("/admin/organizations?keyword=platform").await.data();
        let id = list["items"][0]["id"].as_str().expect("id").to_owned();
        Organization { site: self, id, owner_token: String::new() }.member_with(permissions).await
    }

    /// Imports a catalog in our own form and returns the differences.
    pub async fn import(&self, permissions: Value) -> Value {
        self.admin().put("/api/v1/permissions/catalog", json!({"permissions": permissions})).await.data()
    }

    pub async fn last_audit_entry(&self) -> Value {
        self.admin().get("/admin/audit?limit=1").await.data()["items"][0].clone()
    }
}
