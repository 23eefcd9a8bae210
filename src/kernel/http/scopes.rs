//! Wire types that API clients and API keys share: the display name and the scopes.

use poem_openapi::Enum;
use poem_openapi::types::ToJSON;

crate::text! {
    /// A display name
    ClientName 1..=128 "^[^\\x00-\\x1f\\x7f]+$";
}

/// What an API client may do; a write scope includes the read scope
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientScope {
    #[oai(rename = "members:read")]
    MembersRead,
    #[oai(rename = "members:write")]
    MembersWrite,
    #[oai(rename = "organizations:read")]
    OrganizationsRead,
    #[oai(rename = "organizations:write")]
    OrganizationsWrite,
    #[oai(rename = "permissions:read")]
    PermissionsRead,
    #[oai(rename = "permissions:write")]
    PermissionsWrite,
    #[oai(rename = "permissions:check")]
    PermissionsCheck,
    #[oai(rename = "videos:read")]
    VideosRead,
    #[oai(rename = "videos:write")]
    VideosWrite,
    #[oai(rename = "quotas:read")]
    QuotasRead,
    #[oai(rename = "quotas:write")]
    QuotasWrite,
    #[oai(rename = "jobs:read")]
    JobsRead,
    #[oai(rename = "jobs:write")]
    JobsWrite,
    #[oai(rename = "audit:read")]
    AuditRead,
    #[oai(rename = "audit:write")]
    AuditWrite,
    /// All scopes
    #[oai(rename = "*")]
    All,
}

/// Converts scopes to their stored text.
pub fn scope_names<S: ToJSON>(scopes: Vec<S>) -> Vec<String> {
    let text = |scope: S| scope.to_json().and_then(|json| json.as_str().map(str::to_owned));
    scopes.into_iter().filter_map(text).collect()
}
