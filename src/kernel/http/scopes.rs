//! What API clients and API keys have in common on the wire: a name for people, and scopes.

use poem_openapi::Enum;
use poem_openapi::types::ToJSON;

crate::text! {
    /// A name for people
    ClientName 1..=128 "^[^\\x00-\\x1f\\x7f]+$";
}

/// What a client may do; writing includes reading
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
    /// All of these
    #[oai(rename = "*")]
    All,
}

/// Scopes as rows have them.
pub fn words<S: ToJSON>(scopes: Vec<S>) -> Vec<String> {
    let word = |scope: S| scope.to_json().and_then(|word| word.as_str().map(str::to_owned));
    scopes.into_iter().filter_map(word).collect()
}
