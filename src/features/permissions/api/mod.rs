//! The permission area: fifteen operations as the gateway definition has them, and ours beside them.

pub mod assignments;
pub mod mappings;
pub mod policy;
pub mod roles;

use poem_openapi::{Enum, Object};

use super::{Source, publish};
use crate::kernel::authz::catalog::{Catalog, Node, PermissionIndex};
use crate::kernel::error::ErrorCode;

/// Operations for which the gateway definition has no 404. An organization that the caller is not in makes its credential
/// one that does not count here (31501000); for all others it is not found (31301000).
const WITHOUT_NOT_FOUND: [&str; 7] = [
    "get_permission_catalog",
    "get_my_permissions",
    "list_roles",
    "create_role",
    "list_user_roles",
    "list_role_mappings",
    "reload_policy",
];

/// What the gateway definition calls this failure of an operation.
pub fn as_defined(operation: &str, cause: ErrorCode) -> ErrorCode {
    match cause {
        ErrorCode::OrganizationNotFound if WITHOUT_NOT_FOUND.contains(&operation) => ErrorCode::UnknownTenant,
        cause => cause,
    }
}

/// One node of the catalog
#[derive(Object, Clone)]
#[oai(skip_serializing_if_is_none)]
pub struct PermissionNode {
    /// The permission's unique name
    pub id: String,
    /// The category that holds it; absent at the top
    pub parent: Option<String>,
    pub name: String,
    /// Methods joined with `|`, or `*`; absent for a category
    pub http_methods: Option<String>,
    /// A path template: `/videos/:id`, `/videos/{id}.{format}`, `/contents/{path+}`, `/files/*rest`
    pub http_path: Option<String>,
    pub status: OpenClose,
    #[oai(rename = "type")]
    pub user_type: PermissionType,
    /// Only in trees
    pub children: Option<Vec<PermissionNode>>,
}

/// Whether a role or permission takes part in decisions
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum OpenClose {
    Open,
    Close,
}

impl OpenClose {
    pub fn of(is_open: bool) -> Self {
        if is_open { Self::Open } else { Self::Close }
    }

    pub fn is_open(self) -> bool {
        self == Self::Open
    }
}

/// Whom a permission is for
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PermissionType {
    BackendUser,
    FrontendUser,
}

impl PermissionType {
    fn of(node: &Node) -> Self {
        match publish::user_type(node.user_type) {
            "frontend_user" => Self::FrontendUser,
            _ => Self::BackendUser,
        }
    }
}

/// Where a role assignment comes from
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum AssignmentSource {
    Manual,
    Zitadel,
    Ldap,
    Scim,
    Oidc,
    Wordpress,
}

/// Where an external key comes from
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum MappingSource {
    Zitadel,
    Ldap,
    Scim,
    Oidc,
    Wordpress,
}

impl From<AssignmentSource> for Source {
    fn from(source: AssignmentSource) -> Self {
        match source {
            AssignmentSource::Manual => Self::Manual,
            AssignmentSource::Zitadel => Self::Zitadel,
            AssignmentSource::Ldap => Self::Ldap,
            AssignmentSource::Scim => Self::Scim,
            AssignmentSource::Oidc => Self::Oidc,
            AssignmentSource::Wordpress => Self::Wordpress,
        }
    }
}

impl From<MappingSource> for Source {
    fn from(source: MappingSource) -> Self {
        match source {
            MappingSource::Zitadel => Self::Zitadel,
            MappingSource::Ldap => Self::Ldap,
            MappingSource::Scim => Self::Scim,
            MappingSource::Oidc => Self::Oidc,
            MappingSource::Wordpress => Self::Wordpress,
        }
    }
}

/// A node as it goes over the wire, without children.
pub fn node_view(catalog: &Catalog, node: &Node) -> PermissionNode {
    PermissionNode {
        id: node.name.to_string(),
        parent: node.parent.and_then(|slot| catalog.get(slot)).map(|parent| parent.name.to_string()),
        name: node.name.to_string(),
        http_methods: node.http_methods.as_deref().map(str::to_owned),
        http_path: node.http_path.as_deref().map(str::to_owned),
        status: OpenClose::of(node.is_open && !node.orphaned),
        user_type: PermissionType::of(node),
        children: None,
    }
}

/// These nodes in the order of their imports.
pub fn flat(catalog: &Catalog, slots: impl Iterator<Item = PermissionIndex>) -> Vec<PermissionNode> {
    let mut nodes: Vec<&Node> = slots.filter_map(|slot| catalog.get(slot)).collect();
    nodes.sort_by_key(|node| (node.app.clone(), node.position));
    nodes.into_iter().map(|node| node_view(catalog, node)).collect()
}

/// These nodes as a forest; a node whose parent is not among them stands at the top.
pub fn tree(catalog: &Catalog, slots: impl Iterator<Item = PermissionIndex>) -> Vec<PermissionNode> {
    let nodes = flat(catalog, slots);
    let names: std::collections::HashSet<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let mut below: std::collections::HashMap<Option<String>, Vec<PermissionNode>> = std::collections::HashMap::new();
    for node in nodes {
        let parent = node.parent.clone().filter(|parent| names.contains(parent));
        below.entry(parent).or_default().push(node);
    }
    let top = below.remove(&None).unwrap_or_default();
    top.into_iter().map(|node| with_children(node, &mut below)).collect()
}

fn with_children(
    mut node: PermissionNode,
    below: &mut std::collections::HashMap<Option<String>, Vec<PermissionNode>>,
) -> PermissionNode {
    if let Some(children) = below.remove(&Some(node.name.clone())) {
        node.children = Some(children.into_iter().map(|child| with_children(child, below)).collect());
    }
    node
}
