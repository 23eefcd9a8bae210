//! Operations on permissions: fifteen that the gateway definition specifies, and Roster's own.

pub mod assignments;
pub mod mappings;
pub mod policy;
pub mod roles;

use poem_openapi::{Enum, Object};

use super::Source;
use crate::kernel::authz::catalog::{Catalog, Node, PermissionIndex, UserType};
use crate::kernel::error::ErrorCode;

/// Operations for which the gateway definition has no 404. For an organization that the caller does not belong to they
/// answer that the credential is not valid there (31501000); all others answer that it is not found (31301000).
const WITHOUT_NOT_FOUND: [&str; 7] = [
    "get_permission_catalog",
    "get_my_permissions",
    "list_roles",
    "create_role",
    "list_user_roles",
    "list_role_mappings",
    "reload_policy",
];

/// Returns the error code that the gateway definition has for this failure of an operation.
pub fn as_defined(operation: &str, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::OrganizationNotFound if WITHOUT_NOT_FOUND.contains(&operation) => ErrorCode::UnknownTenant,
        code => code,
    }
}

/// One entry of the permission catalog: a permission or a category
#[derive(Object, Clone)]
#[oai(skip_serializing_if_is_none)]
pub struct PermissionNode {
    /// The unique name, the same as `name`
    pub id: String,
    /// Name of the parent category; absent at the top level
    pub parent: Option<String>,
    pub name: String,
    /// HTTP methods, separated by `|`, or `*` for all; absent for a category
    pub http_methods: Option<String>,
    /// Path template, for example `/videos/:id`, `/videos/{id}.{format}`, `/contents/{path+}` or `/files/*rest`; absent
    /// for a category
    pub http_path: Option<String>,
    pub status: OpenClose,
    #[oai(rename = "type")]
    pub user_type: PermissionType,
    /// Child entries; only in trees
    pub children: Option<Vec<PermissionNode>>,
    /// True for an ancestor that a role has only because of its descendants: it is for menus and allows nothing. Only in
    /// the permissions of a role; absent otherwise
    pub implied: Option<bool>,
}

/// Whether a role or permission has effect in decisions
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

/// The kind of users that a permission is for
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum PermissionType {
    BackendUser,
    FrontendUser,
}

impl PermissionType {
    fn of(node: &Node) -> Self {
        match node.user_type {
            UserType::Backend => Self::BackendUser,
            UserType::Frontend => Self::FrontendUser,
        }
    }
}

/// The source of a role assignment
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "Source")]
pub enum AssignmentSource {
    Manual,
    Zitadel,
    Ldap,
    Scim,
    Oidc,
    Wordpress,
}

/// The source of an external key
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum MappingSource {
    Zitadel,
    Ldap,
    Scim,
    Oidc,
    Wordpress,
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

/// Converts a node into its wire type, without children.
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
        implied: None,
    }
}

/// Returns nodes as a list, by application, in the order of their imports.
pub fn flat(catalog: &Catalog, slots: impl Iterator<Item = PermissionIndex>) -> Vec<PermissionNode> {
    let mut nodes: Vec<&Node> = slots.filter_map(|slot| catalog.get(slot)).collect();
    nodes.sort_by_key(|node| (node.app.clone(), node.position));
    nodes.into_iter().map(|node| node_view(catalog, node)).collect()
}

/// Returns nodes as trees. A node whose parent is not among them is at the top level.
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
