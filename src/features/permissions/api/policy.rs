//! Operations on the permission catalog, the caller's own permissions, and the policy as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use poem_openapi::param::{Header, Query};
use poem_openapi::types::ToJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, Enum, ExtractParamOptions, Object, OpenApi};
use serde_json::json;

use super::{OpenClose, PermissionNode, PermissionType, flat, tree};
use crate::features::permissions::preview::{self, Lost};
use crate::features::permissions::{import, publish};
use crate::kernel::app::{App, Changed, LargeBody, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{GatewayCaller, GatewayOrKey, MemberCaller};
use crate::kernel::authz::catalog::PermissionIndex;
use crate::kernel::authz::decide::effective;
use crate::kernel::authz::key::ME_READ;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::body::require_media_type;
use crate::kernel::http::documents::{self, Bounds};
use crate::kernel::http::{OptionalBody, RenderedReply, Reply, Tag, ok, rendered, require_version};
use crate::kernel::ids::{MemberId, OrganizationId, RoleId};

/// The permission catalog, as a list or as a tree
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct PermissionCatalog {
    tree: Option<Vec<PermissionNode>>,
    list: Option<Vec<PermissionNode>>,
}

/// The result of an import, as names of entries
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct CatalogDifference {
    added: Vec<String>,
    changed: Vec<String>,
    /// Entries of this application that the import does not contain; kept for the roles that have them, but without
    /// effect
    orphaned: Vec<String>,
    /// Entries with a new name and the same methods and path; roles keep them
    renamed: Option<Vec<CatalogRenaming>>,
    /// Operations of an OpenAPI document that are left out; requests to them are denied
    skipped: Option<Vec<CatalogSkipped>>,
    /// The other document whose entries are orphaned or changed; refused without `replace`
    replaces: Option<String>,
    /// Codes of the organizations that have the application; absent if all have it
    organizations: Option<Vec<String>>,
    /// Consequences of the import, as sentences
    notes: Option<Vec<String>>,
    /// The same as words, in the same order
    note_codes: Option<Vec<CatalogNote>>,
    /// Only of a dry run: the methods and paths of the first 100 entries of each kind of change; entries without a path
    /// are left out
    requests: Option<Vec<CatalogRequests>>,
    /// Only of a dry run: the roles with permissions that would lose their effect, at most 100. Owners, who hold every
    /// permission, are left out
    losing_roles: Option<Vec<LosingRole>>,
    /// The number of all such roles
    losing_roles_total: Option<u64>,
}

/// A consequence of an import
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum CatalogNote {
    OrphanedKept,
    RenamedKept,
    SkippedDenied,
    EveryOwner,
}

impl CatalogNote {
    const fn text(self) -> &'static str {
        match self {
            Self::OrphanedKept => {
                "orphaned entries are entries of this application that the document does not contain: roles keep them, \
                 but they have no effect until an import contains them again"
            }
            Self::RenamedKept => {
                "roles keep renamed entries; plugin filters with their former names no longer match them"
            }
            Self::SkippedDenied => {
                "skipped operations have no permission: requests to them are denied, unless the template of another \
                 entry matches"
            }
            Self::EveryOwner => {
                "the owners of every organization hold the open entries at once: set `organizations` to limit them to \
                 some organizations, or `closed` to add them closed"
            }
        }
    }
}

/// The methods and path of an entry before and after an import
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct CatalogRequests {
    /// The name after the import
    name: String,
    /// Absent if the entry opens nothing before the import
    former_http_methods: Option<String>,
    former_http_path: Option<String>,
    /// Absent if the entry opens nothing after the import
    http_methods: Option<String>,
    http_path: Option<String>,
}

impl From<preview::Opened> for CatalogRequests {
    fn from(opened: preview::Opened) -> Self {
        let preview::Opened { name, former, new } = opened;
        let (former_http_methods, former_http_path) = former.unzip();
        let (http_methods, http_path) = new.unzip();
        Self { name, former_http_methods, former_http_path, http_methods, http_path }
    }
}

/// A role with permissions that an import would leave without effect
#[derive(Object)]
struct LosingRole {
    organization_id: OrganizationId,
    org_code: String,
    role_id: RoleId,
    key: String,
    /// The number of members who hold the role
    members: u64,
    /// The number of permissions
    count: u64,
    /// Their names, at most 20
    permissions: Vec<String>,
}

/// A renamed entry
#[derive(Object)]
struct CatalogRenaming {
    from: String,
    to: String,
}

/// An operation that an import left out
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct CatalogSkipped {
    path: String,
    /// Absent if the whole path is left out
    method: Option<String>,
    reason: String,
    /// Line in the document, starting at 1
    line: Option<u32>,
}

impl From<&import::Skipped> for CatalogSkipped {
    fn from(skipped: &import::Skipped) -> Self {
        let import::Skipped { path, method, reason, line, .. } = skipped.clone();
        Self { path, method, reason, line: line.and_then(|line| u32::try_from(line).ok()) }
    }
}

impl CatalogDifference {
    fn of(snapshot: &Snapshot, import: &import::Import, imported: publish::Imported) -> Self {
        let notes = notes(import, &imported);
        let publish::Imported { added, changed, renamed, orphaned, replaces, organizations, .. } = imported;
        let code =
            |id: OrganizationId| snapshot.tenant(id).map_or_else(|| id.to_string(), |found| found.org_code.to_string());
        Self {
            added,
            changed,
            orphaned,
            renamed: non_empty(renamed.into_iter().map(|(from, to)| CatalogRenaming { from, to }).collect()),
            skipped: non_empty(import.skipped.iter().map(CatalogSkipped::from).collect()),
            replaces,
            organizations: organizations.map(|ids| ids.into_iter().map(code).collect()),
            notes: non_empty(notes.iter().map(|note| note.text().to_owned()).collect()),
            note_codes: non_empty(notes),
            requests: None,
            losing_roles: None,
            losing_roles_total: None,
        }
    }

    /// Adds the roles that would lose permissions.
    fn with_losing_roles(mut self, snapshot: &Snapshot, lost: &Lost) -> Self {
        let (losing, total) = preview::list_losing_roles(snapshot, lost);
        let name = |slot: PermissionIndex| snapshot.catalog.get(slot).map(|node| node.name.to_string());
        let view = |role: preview::LosingRole| LosingRole {
            organization_id: role.organization,
            org_code: role.org_code.to_string(),
            role_id: role.id,
            key: role.key.to_string(),
            members: role.members,
            count: role.count,
            permissions: role.first.into_iter().filter_map(name).collect(),
        };
        self.losing_roles = non_empty(losing.into_iter().map(view).collect());
        self.losing_roles_total = (total > 0).then_some(total);
        self
    }
}

/// Writes an import. The answer of a dry run comes with what it would leave without effect.
fn publish_import(
    t: &Transaction<'_>,
    import: &import::Import,
    terms: &publish::PublishOptions,
) -> Result<Changed<(CatalogDifference, Lost)>> {
    let (imported, change) = publish::write(t, import, terms)?;
    let lost = if terms.dry_run { Lost::of(&t.snapshot().catalog, import, &imported) } else { Lost::default() };
    let opened =
        if terms.dry_run { preview::list_opened(&t.snapshot().catalog, import, &imported) } else { Vec::new() };
    let mut answer = CatalogDifference::of(t.snapshot(), import, imported);
    answer.requests = non_empty(opened.into_iter().map(CatalogRequests::from).collect());
    let Some(change) = change else { return Ok(Changed::unchanged((answer, lost))) };
    let renamed = answer.renamed.iter().flatten().map(|one| json!({"from": one.from, "to": one.to}));
    let entry = Entry::new("catalog", &import.app).after(json!({
        "added": answer.added,
        "changed": answer.changed,
        "renamed": renamed.collect::<Vec<_>>(),
        "orphaned": answer.orphaned,
        "organizations": answer.organizations,
    }));
    Ok(Changed::new((answer, lost), entry).with_policy_changes([change]))
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Returns the consequences of an import.
fn notes(import: &import::Import, imported: &publish::Imported) -> Vec<CatalogNote> {
    let is_for_every_owner = import.title.is_some() && imported.is_new && imported.organizations.is_none();
    let all = [
        (!imported.orphaned.is_empty(), CatalogNote::OrphanedKept),
        (!imported.renamed.is_empty(), CatalogNote::RenamedKept),
        (!import.skipped.is_empty(), CatalogNote::SkippedDenied),
        (is_for_every_owner, CatalogNote::EveryOwner),
    ];
    all.into_iter().filter(|(applies, _)| *applies).map(|(_, note)| note).collect()
}

/// The caller's roles and permissions in the organization
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct MyPermissions {
    uid: MemberId,
    tenant_id: OrganizationId,
    /// Keys of the open roles that the member holds
    roles: Vec<String>,
    /// Name → `open`, for all effective permissions
    permissions: BTreeMap<String, String>,
    tree: Option<Vec<PermissionNode>>,
}

/// The organizations whose policy is rebuilt
#[derive(Object)]
struct PolicyReload {
    /// Id or code of an organization; by default all organizations that the caller can access
    tenant_id: Option<String>,
}

/// The result of a rebuild
#[derive(Object)]
struct PolicyReloaded {
    /// Id of the organization, or `*` for all
    tenant: String,
    /// Start of the comparison, in Unix milliseconds
    ts: i64,
    old_epoch: u64,
    new_epoch: u64,
    /// Whether the policy in memory differed from the database
    changed: bool,
}

crate::document! {
    get_permission_catalog: [] ["etag"];
    import_catalog: [AmbiguousCatalog, CatalogOfAnother, OrganizationNotFound, PermissionExists] ["x-policy-epoch"];

    "Catalog": r#"{"app":"main","permissions":[{"name":"video"},{"name":"video.delete","parent":"video","http_methods":"DELETE","http_path":"/videos/:id"}]}"#;
    "PolicyReload": r#"{}"#;
    "CatalogDifference": r#"{"added":["video","video.delete"],"changed":[],"orphaned":[]}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Permissions")]
impl Api {
    /// Get the permission catalog
    ///
    /// Returns a list, or a tree. Orphaned entries are left out. With `app` the answer has an ETag, for the next import
    /// of this application.
    #[oai(path = "/catalog", method = "get", operation_id = "get_permission_catalog")]
    async fn get_permission_catalog(
        &self,
        _caller: GatewayCaller,
        status: Query<Option<OpenClose>>,
        #[oai(name = "type")] user_type: Query<Option<PermissionType>>,
        #[oai(name = "tree")] as_tree: Query<Option<bool>>,
        /// Only the entries of this application
        #[oai(validator(max_length = 64))]
        app: Query<Option<String>>,
    ) -> Reply<PermissionCatalog> {
        let catalog = self.app.snapshot().catalog.clone();
        let wanted = catalog
            .iter()
            .filter(|node| !node.orphaned)
            .filter(|node| status.0.is_none_or(|status| status.is_open() == node.is_open))
            .filter(|node| app.0.as_deref().is_none_or(|app| app == &*node.app))
            .filter(|node| user_type.0.is_none_or(|wanted| wanted == PermissionType::of(node)))
            .map(|node| node.slot);
        let answer = ok(if as_tree.0.unwrap_or(false) {
            PermissionCatalog { tree: Some(tree(&catalog, wanted)), list: None }
        } else {
            PermissionCatalog { tree: None, list: Some(flat(&catalog, wanted)) }
        });
        Ok(match app.0.as_deref() {
            Some(app) => answer.version(catalog.version_of(app)),
            None => answer,
        })
    }

    /// Import a permission catalog
    ///
    /// Takes Roster's own format or an OpenAPI 3 document, as JSON or YAML. The document contains all entries of one
    /// application: entries that it no longer contains are orphaned. Roster's own format is refused as a whole if two
    /// entries match the same method and path. Operations of an OpenAPI document that cannot be protected are listed as
    /// `skipped`. The owners of all organizations hold the permissions of a new application at once, unless
    /// `organizations` or `closed` is set.
    #[oai(path = "/catalog", method = "put", operation_id = "import_catalog")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn import_catalog(
        &self,
        caller: MemberCaller,
        /// The application to which the entries belong
        app: Query<Option<String>>,
        /// Prefix of the names
        prefix: Query<Option<String>>,
        /// Prefix of every path of an OpenAPI document, instead of the path of its first server
        base: Query<Option<String>>,
        /// Names of parameters of an OpenAPI document that match several path segments, separated by commas
        multi_segment: Query<Option<String>>,
        /// Refuse an OpenAPI document if any of its operations would be skipped
        strict: Query<Option<bool>>,
        /// Also orphan and change entries that come from another document
        replace: Query<Option<bool>>,
        /// Add new entries closed
        closed: Query<Option<bool>>,
        /// Ids or codes of the organizations that have the application, separated by commas; `*` for all. By default
        /// unchanged; a new application is available to all
        organizations: Query<Option<String>>,
        /// Reports what would happen without changing anything
        dry_run: Query<Option<bool>>,
        /// The ETag of the catalog of this application
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        _document: CatalogDocument,
    ) -> Reply<CatalogDifference> {
        let document = self.app.read_large_body(&caller, LargeBody::Catalog).await?.clone();
        let config = &self.app.config;
        let (entries_max, is_dry) = (config.catalog_entries_max, dry_run.0.unwrap_or(false));
        let listed = |text: String| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        let options = import::ImportOptions {
            app: app.0,
            prefix: prefix.0,
            base: base.0,
            multi_segment: multi_segment.0.map(listed).unwrap_or_default(),
            strict: strict.0.unwrap_or(false),
        };
        let terms = publish::PublishOptions {
            entries_max,
            dry_run: is_dry,
            replace: replace.0.unwrap_or(false),
            closed: closed.0.unwrap_or(false),
            organizations: organizations.0.map(listed),
        };
        let bounds = Bounds { depth_max: config.document_depth_max, nodes_max: config.document_nodes_max };
        let read = move || import::read(&documents::parse(&document, bounds)?, &options, entries_max);
        let import = tokio::task::spawn_blocking(read).await.map_err(|e| Error::internal(e.to_string()))??;
        let write = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::CATALOG_IMPORT)?;
            require_version(if_match.0.as_deref(), t.snapshot().catalog.version_of(&import.app))?;
            publish_import(t, &import, &terms)
        };
        let done = self.app.change(&caller, "catalog.import", write).await?;
        let (answer, lost) = done.answer;
        let answer = if is_dry { answer.with_losing_roles(&self.app.snapshot(), &lost) } else { answer };
        Ok(ok(answer).epoch(done.epoch))
    }

    /// Get the caller's roles and permissions
    ///
    /// In the organization in which the caller acts. For menus, `include_tree` adds the tree of the permissions held,
    /// with their ancestors.
    #[oai(path = "/me", method = "get", operation_id = "get_my_permissions")]
    async fn get_my_permissions(
        &self,
        caller: GatewayOrKey,
        include_tree: Query<Option<bool>>,
    ) -> RenderedReply<MyPermissions> {
        let snapshot = self.app.guard.snapshot.load();
        let member = authz::require_own(&caller, ME_READ)?;
        let tenant = caller.tenant(&snapshot)?;
        let slots = effective(&snapshot, tenant, member, matches!(caller.principal, Principal::Member(_)));
        let mut json = rendered_rights(&snapshot, tenant, member, &slots);
        if include_tree.0.unwrap_or(false) {
            let catalog = &snapshot.catalog;
            let with_ancestors: BTreeSet<PermissionIndex> =
                slots.iter().flat_map(|slot| std::iter::once(*slot).chain(catalog.ancestors(*slot))).collect();
            // Removes the closing brace; it is written again after the tree.
            json.pop();
            let _ = write!(json, ",\"tree\":{}}}", tree(catalog, with_ancestors.into_iter()).to_json_string());
        }
        Ok(rendered(json))
    }

    /// Rebuild the policy from the database
    ///
    /// Compares the policy in memory with the database and replaces what differs, which should be nothing. Decisions
    /// and changes continue meanwhile. A caller of one organization gets the previous answer, with its `ts`, until
    /// `limits.policy_reload_gap_s` have passed.
    #[oai(path = "/policy/reload", method = "post", operation_id = "reload_policy")]
    async fn reload_policy(
        &self,
        caller: GatewayCaller,
        request: &poem::Request,
        body: OptionalBody<PolicyReload>,
    ) -> Reply<PolicyReloaded> {
        let named = body.read(request).await?.and_then(|body| body.tenant_id).filter(|named| !named.is_empty());
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::POLICY_RELOAD)?;
        let tenant = match (&named, reach) {
            (Some(named), _) => {
                let tenant = snapshot.tenant_named(named).filter(|tenant| reach.includes(tenant.id));
                Some(tenant.ok_or(ErrorCode::OrganizationNotFound)?.id)
            }
            (None, Reach::Site) => None,
            (None, Reach::Tenant(tenant)) => Some(tenant),
        };
        let found = match reach {
            Reach::Site => self.app.reload(tenant).await?,
            Reach::Tenant(own) => self.app.reload_rate_limited(own).await?,
        };
        Ok(ok(PolicyReloaded {
            tenant: tenant.map_or_else(|| "*".to_owned(), |tenant| tenant.to_string()),
            ts: found.at.0,
            old_epoch: found.old_epoch,
            new_epoch: found.new_epoch,
            changed: found.changed,
        }))
    }
}

/// Renders `MyPermissions` without its tree as JSON. Names and keys contain no character that JSON must escape.
fn rendered_rights(snapshot: &Snapshot, tenant: OrganizationId, member: MemberId, slots: &[PermissionIndex]) -> String {
    let mut json = String::with_capacity(256 + 48 * slots.len());
    let _ = write!(json, r#"{{"uid":"{member}","tenant_id":"{tenant}","roles":["#);
    let mut roles: Vec<&str> = Vec::new();
    if let Some(tenant) = snapshot.tenant(tenant).filter(|tenant| tenant.is_active) {
        roles.extend(tenant.roles_of(member).filter(|role| role.is_open).map(|role| &*role.key));
    }
    roles.sort_unstable();
    for (n, key) in roles.iter().enumerate() {
        let _ = write!(json, r#"{}"{key}""#, if n == 0 { "" } else { "," });
    }
    json.push_str(r#"],"permissions":{"#);
    for (n, node) in slots.iter().filter_map(|slot| snapshot.catalog.get(*slot)).enumerate() {
        let _ = write!(json, r#"{}"{}":"open""#, if n == 0 { "" } else { "," }, node.name);
    }
    json.push_str("}}");
    json
}

/// A catalog to import, as JSON or YAML.
pub struct CatalogDocument;

const CATALOG_TYPES: [&str; 5] =
    ["application/json", "application/yaml", "application/x-yaml", "text/yaml", "application/openapi+yaml"];

/// A permission catalog in Roster's own format; an OpenAPI 3 document is accepted as well
#[derive(Object)]
#[oai(rename = "Catalog")]
struct CatalogForm {
    /// `main` by default; the query parameter takes precedence
    app: Option<String>,
    /// Prefix of all names; the query parameter takes precedence
    prefix: Option<String>,
    permissions: Vec<CatalogEntry>,
}

/// One permission of a catalog
#[derive(Object)]
struct CatalogEntry {
    /// Unique on the site
    name: String,
    /// Name of the parent category
    parent: Option<String>,
    /// HTTP methods, separated by `|`, or `*` for all; absent for a category
    http_methods: Option<String>,
    /// Path template, for example `/videos/:id`, `/videos/{id}.{format}`, `/contents/{path+}` or `/files/*rest`; absent
    /// for a category
    http_path: Option<String>,
    status: Option<OpenClose>,
    #[oai(rename = "type")]
    user_type: Option<PermissionType>,
}

impl<'a> ApiExtractor<'a> for CatalogDocument {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut poem_openapi::registry::Registry) {
        <CatalogForm as poem_openapi::types::Type>::register(registry);
    }

    fn request_meta() -> Option<poem_openapi::registry::MetaRequest> {
        let media = |content_type| poem_openapi::registry::MetaMediaType {
            content_type,
            schema: <CatalogForm as poem_openapi::types::Type>::schema_ref(),
        };
        Some(poem_openapi::registry::MetaRequest {
            description: Some("A permission catalog, or an OpenAPI 3 document"),
            content: vec![media("application/json"), media("application/yaml")],
            required: true,
        })
    }

    async fn from_request(
        request: &'a poem::Request,
        _: &mut poem::RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let message = "send the catalog as application/json or application/yaml";
        require_media_type(request, &CATALOG_TYPES, message)?;
        Ok(Self)
    }
}
