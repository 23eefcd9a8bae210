//! Operations on role mappings: (source, external key) → role.

use std::sync::Arc;

use poem_openapi::param::{Header, Query};
use poem_openapi::{Object, OpenApi};
use serde_json::json;

use super::MappingSource;
use super::assignments::ExternalKey;
use super::roles::RoleKey;
use crate::features::permissions::{Mapping, Source, get_role_in_snapshot, role_key_not_found, store};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::GatewayCaller;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, delegation};
use crate::kernel::db::{ListPage, PageRequest};
use crate::kernel::error::{Error, ErrorCode, Field};
use crate::kernel::http::{Body, EmptyReply, OptionalBody, Reply, Tag, done, ok, require_version};
use crate::kernel::ids::{MappingId, OrganizationId, RoleId};

/// A role mapping: members with the external key get the role at the next sync
#[derive(Object)]
#[oai(rename = "RoleMapping")]
struct RoleMappingView {
    id: MappingId,
    tenant_id: OrganizationId,
    external_source: String,
    external_key: String,
    internal_role_id: RoleId,
    internal_role_key: String,
    /// Unix milliseconds
    create_at: i64,
    /// Unix milliseconds
    update_at: i64,
}

impl From<Mapping> for RoleMappingView {
    fn from(mapping: Mapping) -> Self {
        Self {
            id: mapping.id,
            tenant_id: mapping.organization,
            external_source: mapping.source.as_str().into(),
            external_key: mapping.external_key,
            internal_role_id: mapping.role,
            internal_role_key: mapping.role_key,
            create_at: mapping.created_at.0,
            update_at: mapping.updated_at.0,
        }
    }
}

/// A page of role mappings
#[derive(Object)]
struct RoleMappingList {
    mappings: Vec<RoleMappingView>,
    total: u64,
    offset: u64,
    limit: u64,
    /// The value of `after` for the next page; absent on the last page
    #[oai(skip_serializing_if_is_none)]
    next: Option<String>,
}

/// The role mapping to set
#[derive(Object)]
struct UpsertRoleMapping {
    external_source: MappingSource,
    external_key: ExternalKey,
    /// Key of an existing role; not `tenant_owner` or `platform_admin`
    internal_role_key: RoleKey,
}

/// The role mapping to delete; the query parameters can name it instead
#[derive(Object)]
struct DeleteRoleMapping {
    external_source: MappingSource,
    external_key: ExternalKey,
}

crate::document! {
    upsert_role_mapping: [NotHeld, RoleNotFound, SystemRole] ["etag", "x-policy-epoch"];
    delete_role_mapping: [NotHeld, MappingNotFound] ["x-policy-epoch"];

    "UpsertRoleMapping": r#"{"external_source":"zitadel","external_key":"editors","internal_role_key":"editor"}"#;
    "DeleteRoleMapping": r#"{"external_source":"zitadel","external_key":"editors"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/permissions", tag = "Tag::Permissions")]
impl Api {
    /// List role mappings
    ///
    /// Returns the mappings from external keys to roles, by source and external key.
    #[oai(path = "/role-mappings", method = "get", operation_id = "list_role_mappings")]
    async fn list_role_mappings(
        &self,
        caller: GatewayCaller,
        source: Query<Option<MappingSource>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
    ) -> Reply<RoleMappingList> {
        let tenant = authz::require_in_tenant(&self.app.snapshot(), &caller, Permission::MAPPING_LIST)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let source = source.0.map(Source::from);
        let found = self.app.read(move |r| store::list_mappings(r, tenant, source, &window)).await?;
        let ListPage { items, total, limit, offset, next } = found.map(Into::into);
        Ok(ok(RoleMappingList { mappings: items, total, offset, limit, next }))
    }

    /// Set a role mapping
    ///
    /// Creates the mapping of this source and key, or replaces its role. The caller must hold all permissions of the
    /// role, and of the role that is replaced. Keys are compared case-sensitively, after normalization to Unicode NFC.
    /// A distinguished name (`cn=editors,dc=example,dc=org`) is compared case-insensitively, and returned in lower
    /// case. The version for If-Match is `update_at`; a mapping that does not exist has version 0.
    #[oai(path = "/role-mappings", method = "put", operation_id = "upsert_role_mapping")]
    async fn upsert_role_mapping(
        &self,
        caller: GatewayCaller,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpsertRoleMapping>,
    ) -> Reply<RoleMappingView> {
        let mappings_max = self.app.config.mappings_max;
        let upsert = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::MAPPING_REPLACE)?;
            let (source, key): (Source, &str) = (body.0.external_source.into(), &body.0.external_key);
            let wanted = &body.0.internal_role_key;
            let role = store::find_role_by_key(t, tenant, wanted)?
                .ok_or_else(|| role_key_not_found(t.snapshot(), tenant, wanted))?;
            if role.is_protected() {
                return Err(Error::new(ErrorCode::SystemRole)
                    .with_message("a mapping cannot yield the role of an owner or a platform administrator"));
            }
            delegation::require_held(
                t.snapshot(),
                caller,
                tenant,
                get_role_in_snapshot(t.snapshot(), tenant, role.id)?,
            )?;
            let former = store::find_mapping(t, tenant, source, key)?;
            require_version(if_match.0.as_deref(), former.as_ref().map_or(0, |former| former.updated_at.0))?;
            if let Some(former) = former.as_ref().filter(|former| former.role != role.id) {
                // The next sync removes the former role from all members who have it by this mapping.
                let lost = get_role_in_snapshot(t.snapshot(), tenant, former.role)?;
                delegation::require_may_revoke(t.snapshot(), caller, tenant, lost)?;
            }
            if former.is_none() && store::count_mappings(t, tenant)? >= mappings_max {
                let message = format!("this organization already has {mappings_max} mappings (limits.role_mappings)");
                return Err(Error::field("external_key", message));
            }
            let id = former.as_ref().map_or_else(MappingId::new, |former| former.id);
            store::put_mapping(t, id, tenant, source, key, role.id)?;
            let made = store::find_mapping(t, tenant, source, key)?.ok_or(ErrorCode::MappingNotFound)?;
            let mut entry = Entry::new("role_mapping", made.id)
                .within(tenant)
                .after(json!({"source": source.as_str(), "external_key": made.external_key, "role": role.key}));
            if let Some(former) = former {
                entry = entry.before(json!({"role": former.role_key}));
            }
            Ok(Changed::new(made, entry))
        };
        let made = self.app.change(&caller, "mapping.replace", upsert).await?;
        let version = made.answer.updated_at.0;
        Ok(ok(made.answer.into()).version(version).epoch(made.epoch))
    }

    /// Delete a role mapping
    ///
    /// The mapping is given in the query or in a JSON body. Roles that members hold through it stay until the next
    /// sync. The caller must hold all permissions of the role.
    #[oai(path = "/role-mappings", method = "delete", operation_id = "delete_role_mapping")]
    async fn delete_role_mapping(
        &self,
        caller: GatewayCaller,
        request: &poem::Request,
        external_source: Query<Option<MappingSource>>,
        external_key: Query<Option<String>>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: OptionalBody<DeleteRoleMapping>,
    ) -> EmptyReply {
        let (source, key) = match (external_source.0, external_key.0) {
            (Some(source), Some(key)) => (source, key),
            _ => {
                let missing =
                    |name: &str| Field::at(&["query", name], "give the mapping in the query or in a JSON body");
                let unnamed = || Error::fields(vec![missing("external_source"), missing("external_key")]);
                let named = body.read(request).await?.ok_or_else(unnamed)?;
                (named.external_source, named.external_key.0)
            }
        };
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let tenant = authz::require_in_tenant(t.snapshot(), caller, Permission::MAPPING_DELETE)?;
            let former = store::find_mapping(t, tenant, source.into(), &key)?.ok_or(ErrorCode::MappingNotFound)?;
            require_version(if_match.0.as_deref(), former.updated_at.0)?;
            delegation::require_may_revoke(
                t.snapshot(),
                caller,
                tenant,
                get_role_in_snapshot(t.snapshot(), tenant, former.role)?,
            )?;
            store::delete_mapping(t, former.id)?;
            let entry = Entry::new("role_mapping", former.id).within(tenant).before(
                json!({"source": former.source.as_str(), "external_key": former.external_key, "role": former.role_key}),
            );
            Ok(Changed::new((), entry))
        };
        let deleted = self.app.change(&caller, "mapping.delete", delete).await?;
        Ok(done().epoch(deleted.epoch))
    }
}
