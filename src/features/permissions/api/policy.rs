//! Operations on the catalog, on one's own rights, and on the policy as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use poem_openapi::param::{Header, Query};
use poem_openapi::types::ToJSON;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object, OpenApi};
use serde_json::json;

use super::{OpenClose, PermissionNode, PermissionType, flat, tree};
use crate::features::permissions::{import, publish};
use crate::kernel::app::{App, Changed, Large, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{GatewayCaller, GatewayOrKey, MemberCaller};
use crate::kernel::authz::catalog::PermissionIndex;
use crate::kernel::authz::decide::effective;
use crate::kernel::authz::key::ME_READ;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach};
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::body::require_media_type;
use crate::kernel::http::documents::{self, Bounds};
use crate::kernel::http::{OptionalBody, RenderedReply, Reply, Tag, ok, rendered, require_version};
use crate::kernel::ids::{MemberId, OrganizationId};

/// The catalog, in the form that was asked for
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct PermissionCatalog {
    tree: Option<Vec<PermissionNode>>,
    list: Option<Vec<PermissionNode>>,
}

/// What an import did, by name
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct CatalogDifference {
    added: Vec<String>,
    changed: Vec<String>,
    /// Names of this application that the import does not have; kept for the roles that tick them, but closed
    orphaned: Vec<String>,
    /// Entries that are called something else now, with the same methods and path; roles keep them
    renamed: Option<Vec<CatalogRenaming>>,
    /// Operations of an OpenAPI document that are left out; nobody gets at them
    skipped: Option<Vec<CatalogSkipped>>,
    /// Another document, whose entries are orphaned or changed: refused without `replace`
    replaces: Option<String>,
    /// Codes of the organizations that have the application, when not all have it
    organizations: Option<Vec<String>>,
    /// What follows, in sentences
    notes: Option<Vec<String>>,
}

/// An entry with another name
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
    /// Absent when all of the path is left out
    method: Option<String>,
    reason: String,
    /// Of the document, from 1
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
            renamed: some(renamed.into_iter().map(|(from, to)| CatalogRenaming { from, to }).collect()),
            skipped: some(import.skipped.iter().map(CatalogSkipped::from).collect()),
            replaces,
            organizations: organizations.map(|ids| ids.into_iter().map(code).collect()),
            notes: some(notes),
        }
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// What follows from an import, for people.
fn notes(import: &import::Import, imported: &publish::Imported) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |applies: bool, text: &str| notes.extend(applies.then(|| text.to_owned()));
    note(
        !imported.orphaned.is_empty(),
        "orphaned entries are those of this application that the document does not name: roles keep them, but they open \
         nothing until an import names them again",
    );
    note(
        !imported.renamed.is_empty(),
        "roles keep renamed entries; filters of plugins that name them by their former names do not cover them any more",
    );
    note(
        !import.skipped.is_empty(),
        "what is skipped is no permission, and its path is denied, unless another entry's template answers it",
    );
    note(
        import.title.is_some() && imported.is_new && imported.organizations.is_none(),
        "the owners of every organization hold what is open here at once: `organizations` says whose it is, `closed` \
         that it is nobody's yet",
    );
    notes
}

/// The member's own rights in the organization
#[derive(Object)]
#[oai(skip_serializing_if_is_none)]
struct MyPermissions {
    uid: MemberId,
    tenant_id: OrganizationId,
    /// Keys of the roles held, but for closed ones
    roles: Vec<String>,
    /// Name → `open`, of all that is in force
    permissions: BTreeMap<String, String>,
    tree: Option<Vec<PermissionNode>>,
}

/// Which organizations to rebuild
#[derive(Object)]
struct PolicyReload {
    /// All that the caller reaches when absent or empty
    tenant_id: Option<String>,
}

/// What a rebuild found
#[derive(Object)]
struct PolicyReloaded {
    /// The organization, or `*`
    tenant: String,
    /// When the comparison began, in Unix milliseconds
    ts: i64,
    old_epoch: u64,
    new_epoch: u64,
    /// Did the policy in memory differ from the database?
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
    /// See the catalog
    ///
    /// As a list, or as a tree. Entries that no import names any more are left out. Of one application the answer has an
    /// ETag, for the next import of it.
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

    /// Import a catalog
    ///
    /// Our own form or any service's OpenAPI 3 document, as JSON or YAML. It is the whole of one application: what it
    /// does not name any more is orphaned. Our own form is refused as a whole when two entries answer the same method and
    /// path; of an OpenAPI document what cannot be protected is listed as `skipped`. Owners of all organizations hold a new
    /// application at once, unless `organizations` or `closed` says otherwise.
    #[oai(path = "/catalog", method = "put", operation_id = "import_catalog")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn import_catalog(
        &self,
        caller: MemberCaller,
        /// The application whose entries these are
        app: Query<Option<String>>,
        /// What the names begin with
        prefix: Query<Option<String>>,
        /// The path before every path of an OpenAPI document, instead of its first server's
        base: Query<Option<String>>,
        /// Names of parameters of an OpenAPI document that stand for many segments, joined with commas
        multi_segment: Query<Option<String>>,
        /// Refuse an OpenAPI document of which something would be skipped
        strict: Query<Option<bool>>,
        /// Orphan and change entries of another document, too
        replace: Query<Option<bool>>,
        /// New entries are closed
        closed: Query<Option<bool>>,
        /// Ids or codes of the organizations that have the application, joined with commas; `*` for all. As it was when
        /// absent; all have a new one
        organizations: Query<Option<String>>,
        /// Only say what would be done
        dry_run: Query<Option<bool>>,
        /// The ETag of this application's catalog
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        _document: CatalogDocument,
    ) -> Reply<CatalogDifference> {
        let document = self.app.take_large(&caller, Large::Catalog).await?.clone();
        let config = &self.app.config;
        let entries_max = config.catalog_entries_max;
        let listed = |text: String| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        let options = import::Options {
            app: app.0,
            prefix: prefix.0,
            base: base.0,
            multi_segment: multi_segment.0.map(listed).unwrap_or_default(),
            strict: strict.0.unwrap_or(false),
        };
        let terms = publish::Terms {
            entries_max,
            dry_run: dry_run.0.unwrap_or(false),
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
            let (imported, change) = publish::write(t, &import, &terms)?;
            let answer = CatalogDifference::of(t.snapshot(), &import, imported);
            let Some(change) = change else { return Ok(Changed::nothing(answer)) };
            let renamed = answer.renamed.iter().flatten().map(|one| json!({"from": one.from, "to": one.to}));
            let entry = Entry::new("catalog", &import.app).after(json!({
                "added": answer.added,
                "changed": answer.changed,
                "renamed": renamed.collect::<Vec<_>>(),
                "orphaned": answer.orphaned,
                "organizations": answer.organizations,
            }));
            Ok(Changed::new(answer, entry).policy([change]))
        };
        let done = self.app.change(&caller, "catalog.import", write).await?;
        Ok(ok(done.answer).epoch(done.epoch))
    }

    /// See one's own roles and permissions in the organization
    ///
    /// For menus: `include_tree` adds the tree of what is held, with the ancestors it hangs on.
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
            let shown: BTreeSet<PermissionIndex> =
                slots.iter().flat_map(|slot| std::iter::once(*slot).chain(catalog.ancestors(*slot))).collect();
            // The object is closed again behind the tree.
            json.pop();
            let _ = write!(json, ",\"tree\":{}}}", tree(catalog, shown.into_iter()).to_json_string());
        }
        Ok(rendered(json))
    }

    /// Rebuild the policy from the database
    ///
    /// Beside decisions and changes; only what differs is replaced, which nothing ever should. An organization's own caller
    /// gets the last answer again, with its `ts`, within `limits.policy_reload_gap_s`.
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
            Reach::Tenant(own) => self.app.reload_now_and_then(own).await?,
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

/// `MyPermissions` without its tree, as JSON. Names and keys hold nothing that JSON would escape.
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

/// A catalog in our own form; an OpenAPI 3 document is taken as well
#[derive(Object)]
#[oai(rename = "Catalog")]
struct CatalogForm {
    /// `main` when absent; the query wins
    app: Option<String>,
    /// What all names begin with; the query wins
    prefix: Option<String>,
    permissions: Vec<CatalogEntry>,
}

/// One permission of a catalog
#[derive(Object)]
struct CatalogEntry {
    /// Unique on the site
    name: String,
    /// The name of the category that holds it
    parent: Option<String>,
    /// Methods joined with `|`, or `*`; absent for a category
    http_methods: Option<String>,
    /// `/videos/:id`, `/videos/{id}.{format}`, `/contents/{path+}`, `/files/*rest`; absent for a category
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
            description: Some("A catalog, or an OpenAPI 3 document"),
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
