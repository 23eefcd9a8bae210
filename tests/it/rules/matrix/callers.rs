//! The callers of the matrix: the wrong ones, each with the code of its refusal, and the right ones.

use serde_json::{Value, json};

use super::document::Operation;
use super::{GIVEN, IN_ONE_ORGANIZATION, OWN_TOO};
use crate::harness::callers::As;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::Site;

/// What the callers of all operations share.
pub struct Callers<'s> {
    site: &'s Site,
    acme: &'s Organization<'s>,
    bolt: &'s Organization<'s>,
    suspended: Member<'s>,
    disabled_client: As<'s>,
    /// The key of a client with every scope.
    client_key: String,
    /// Roster's own permissions that an operation needs: all of them, and those that a tenant can hold.
    all: Vec<String>,
    of_tenants: Vec<String>,
}

impl<'s> Callers<'s> {
    pub async fn new(acme: &'s Organization<'s>, bolt: &'s Organization<'s>) -> Self {
        let site = acme.site;
        let suspended = acme.member_with_role("tenant_owner").await;
        site.admin().post(&format!("/admin/members/{}/deactivate", suspended.uid), json!({})).await.done();
        let (all, of_tenants) = own_permissions(acme).await;
        let everything =
            site.admin().post("/admin/api-clients", json!({"name": "everything", "scopes": ["*"]})).await.data();
        let client_key = everything["client_key"].as_str().expect("key").to_owned();
        let disabled_client = site.client(&["*"]).await;
        let list = site.admin().get("/admin/api-clients?keyword=test").await.data();
        let key = list["items"][0]["client_key"].as_str().expect("key");
        site.admin().patch(&format!("/admin/api-clients/{key}"), json!({"status": "inactive"})).await.done();
        Self { site, acme, bolt, suspended, disabled_client, client_key, all, of_tenants }
    }

    /// Whether the operation needs a right over the site.
    fn is_site(&self, operation: &Operation) -> bool {
        operation.permission.as_ref().is_some_and(|name| !self.of_tenants.contains(name))
    }

    /// Callers that the operation refuses, and the code of each refusal.
    pub async fn refused(&self, operation: &Operation) -> Vec<(&'static str, As<'s>, u64)> {
        let with_secret = |key: &str, secret: &str| {
            self.site.nobody().with("x-client-key", key).with("x-api-key", secret).with("x-tenant-id", "acme")
        };
        let if_bearer = |code: u64| if operation.takes_bearer { code } else { operation.nobody() };
        let if_client = |code: u64| if operation.takes_client { code } else { operation.nobody() };
        let (no_member, no_client) = (if_bearer(operation.code(28, 501)), if_client(operation.code(32, 501)));
        let lacking_scope = self.site.client(&operation.other_scopes()).await.with("x-tenant-id", "acme");
        let false_secret = self
            .site
            .nobody()
            .with("x-internal-secret", "a-wrong-secret-for-tests")
            .with("x-uid", &self.suspended.uid)
            .with("x-tenant-id", "acme");
        // Without a scope, a client gets what is its own.
        let own_too = OWN_TOO.iter().find(|(id, _)| *id == operation.id && operation.scope.is_none());
        let without_scope = own_too.map_or_else(|| operation.code(32, 505), |(_, code)| *code);
        let takes_secret = operation.takes_internal || operation.takes_gateway;
        let no_service = if takes_secret { operation.code(29, 501) } else { operation.nobody() };

        let mut refused = vec![
            ("nobody", self.site.nobody(), operation.nobody()),
            ("a garbage token", self.site.bearer("garbage"), no_member),
            ("a suspended member's token", self.site.bearer(&self.suspended.token), no_member),
            ("an unknown client", with_secret("rc_0123456789", "rs_nothing"), no_client),
            ("a client's wrong secret", with_secret(&self.client_key, "rs_nothing"), no_client),
            ("a disabled client", self.disabled_client.clone(), no_client),
            ("a client without the scope", lacking_scope, if_client(without_scope)),
            ("a wrong internal secret", false_secret, no_service),
        ];
        if let Some(permission) = &operation.permission {
            refused.extend(self.without_the_permission(operation, permission).await);
        }
        refused
    }

    async fn without_the_permission(
        &self,
        operation: &Operation,
        permission: &str,
    ) -> Vec<(&'static str, As<'s>, u64)> {
        let is_site = self.is_site(operation);
        let own_too = OWN_TOO.iter().find(|(id, _)| *id == operation.id).map(|(_, code)| *code);
        // An operation that needs a right over the site still answers about the caller's own data, if there is any.
        let without = own_too.unwrap_or_else(|| operation.code(operation.area, 505));
        let of_foreign = if is_site { without } else { operation.foreign() };
        let others = if is_site { &self.all } else { &self.of_tenants };
        let others: Vec<&str> = others.iter().map(String::as_str).filter(|name| *name != permission).collect();
        let lacking =
            if is_site { self.site.platform_member(&others).await } else { self.acme.member_with(&others).await };

        let foreign_owner = self.bolt.owner().with("x-tenant-id", &self.acme.id);
        let mut refused = vec![
            ("a foreign owner", foreign_owner, of_foreign),
            ("a member without the permission", lacking.caller(), without),
        ];
        if is_site {
            refused.push(("an owner", self.acme.owner(), without));
        }
        refused
    }

    /// Callers that the operation serves.
    pub async fn served(&self, operation: &Operation) -> Vec<(&'static str, As<'s>)> {
        let (site, is_site) = (self.site, self.is_site(operation));
        let mut served = Vec::new();
        if operation.takes_bearer {
            let member = self.with_the_permission(operation).await;
            // A caller who grants a direct right must hold it.
            let right = json!({
                "uid": member.uid, "scope_type": "site", "scope_id": "north", "module": "cameras", "action": "view",
            });
            site.admin().post("/admin/permissions/grant", right).await.done();
            if operation.takes_gateway && !is_site {
                let gateway = site.internal().with("x-uid", &member.uid).with("x-tenant-id", "acme");
                served.push(("a gateway for a member with the permission", gateway));
            }
            served.push(("a member with the permission", member.caller()));
        }
        if let (true, Some(scope)) = (operation.takes_client, &operation.scope) {
            let client = site.client(&[scope]).await;
            let in_one = operation.area == 31 || IN_ONE_ORGANIZATION.contains(&operation.id.as_str());
            served.push(("a client with the scope", if in_one { client.with("x-tenant-id", "acme") } else { client }));
        }
        if operation.takes_internal {
            served.push(("a service", site.internal()));
        }
        served
    }

    async fn with_the_permission(&self, operation: &Operation) -> Member<'s> {
        match operation.permission.as_deref() {
            Some(permission) if operation.area == 32 => {
                self.site.platform_member(&[&GIVEN[..], &[permission]].concat()).await
            }
            Some(permission) if self.is_site(operation) => self.site.platform_member(&[permission]).await,
            Some(permission) => self.acme.member_with(&[permission]).await,
            None => self.acme.member().await,
        }
    }
}

/// Roster's own permissions that an operation needs: all of them, and those that a tenant can hold.
async fn own_permissions(acme: &Organization<'_>) -> (Vec<String>, Vec<String>) {
    let list = acme.owner().get("/api/v1/permissions/catalog?app=roster").await.data();
    let leaves = list["list"].as_array().expect("list").iter().filter(|node| node.get("http_path").is_some());
    let all: Vec<String> = leaves.map(|node| node["id"].as_str().expect("id").to_owned()).collect();
    let held: Value = acme.owner().get("/api/v1/permissions/me").await.data();
    let of_tenants = all.iter().filter(|name| held["permissions"].get(name.as_str()).is_some()).cloned().collect();
    (all, of_tenants)
}
