//! What the document says of each operation, and the callers that follow from it.

use reqwest::Method;
use serde_json::Value;

use super::rows::{Row, fresh};
use super::{INTERNAL, NO_PERMISSION_NEEDED, SCOPES};
use crate::harness::callers::{As, Reply};

pub struct Operation {
    pub id: String,
    pub method: Method,
    pub path: String,
    /// The example of the body.
    pub example: Option<Value>,
    pub area: u64,
    pub permission: Option<String>,
    pub scope: Option<String>,
    pub takes_bearer: bool,
    pub takes_client: bool,
    pub takes_internal: bool,
    pub takes_gateway: bool,
}

pub fn operations(document: &Value) -> Vec<Operation> {
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

fn example(document: &Value, operation: &Value) -> Option<Value> {
    let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()?;
    document.pointer(schema.trim_start_matches('#'))?.get("example").cloned()
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
        ("/admin/connections", 35),
        ("/admin/deliveries", 35),
        ("/admin/webhooks", 35),
        ("/admin/wordpress", 35),
        ("/admin/settings", 35),
        ("/admin/sftpgo", 35),
        ("/admin/statistics", 35),
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
    pub fn code(&self, scope: u64, category: u64) -> u64 {
        let scope = if self.area == 31 && scope != 10 { 31 } else { scope };
        scope * 1_000_000 + category * 1_000
    }

    /// The code for a caller without a credential that this operation takes.
    pub fn nobody(&self) -> u64 {
        let only_bearer = self.takes_bearer && !self.takes_client && !self.takes_internal && !self.takes_gateway;
        self.code(if only_bearer { 28 } else { self.area }, 501)
    }

    /// The code for the owner of another organization.
    pub fn foreign(&self) -> u64 {
        let has_no_404 = crate::rules::area_codes::defined(&self.id).is_some_and(|codes| !codes.contains(&31_301_000));
        if has_no_404 { 31_501_000 } else { self.code(29, 301) }
    }

    pub fn needs_no_right(&self) -> bool {
        NO_PERMISSION_NEEDED.contains(&self.id.as_str())
    }

    /// All scopes that do not cover the needed one.
    pub fn other_scopes(&self) -> Vec<&'static str> {
        let needed = self.scope.as_deref().unwrap_or_default();
        let covers = |scope: &str| {
            scope == "*"
                || scope == needed
                || needed.strip_suffix(":read").is_some_and(|area| scope == format!("{area}:write"))
        };
        SCOPES.into_iter().filter(|scope| !covers(scope)).collect()
    }
}

pub fn plugin_name() -> String {
    fresh("p")
}

pub async fn call(caller: &As<'_>, operation: &Operation, row: &Row) -> Reply {
    if operation.id == "upload_plugin" {
        let path = format!("/api/v1{}", row.0);
        let component = crate::harness::wasm_fixtures::allowing();
        return caller.send_raw(operation.method.clone(), &path, "application/wasm", component).await;
    }
    caller.send(operation.method.clone(), &format!("/api/v1{}", row.0), row.1.clone()).await
}
