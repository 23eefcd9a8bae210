//! SQL of plugins, their versions and their components.

use rusqlite::Row;

use super::{Plugin, PluginWithVersions, Version};
use crate::kernel::authz::plugin::Activation;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer, sql};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{OrganizationId, PluginId};
use crate::kernel::secret::Hash;

// ── plugins ──

const FIND_PLUGIN: &str = "
    select id, organization_id, name, enforced, shadow, history, versions_made, version, created_at, updated_at
    from plugins
    where organization_id = :organization_id and name = :name";

pub fn find_plugin(r: &Reader<'_>, organization: OrganizationId, name: &str) -> Result<Option<Plugin>> {
    r.find(FIND_PLUGIN, &[(":organization_id", &organization), (":name", &name)], plugin_of)
}

/// Returns a plugin with its versions. Fails with `PluginNotFound`.
pub fn get(r: &Reader<'_>, organization: OrganizationId, name: &str) -> Result<PluginWithVersions> {
    let plugin = find_plugin(r, organization, name)?.ok_or(ErrorCode::PluginNotFound)?;
    let versions = list_versions(r, plugin.id)?;
    Ok(PluginWithVersions { plugin, versions })
}

const LIST_PLUGINS: List = List {
    name: "plugins",
    columns: "id, organization_id, name, enforced, shadow, history, versions_made, version, created_at, updated_at",
    from: "plugins",
    joins: "",
    conditions: &["organization_id = :organization_id"],
    order: &["name"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// Lists the plugins of an organization with their versions, by name.
pub fn list(
    r: &Reader<'_>,
    organization: OrganizationId,
    window: &PageRequest,
) -> Result<ListPage<PluginWithVersions>> {
    let plugins = r.page(&LIST_PLUGINS, &[(":organization_id", &organization)], window, plugin_of)?;
    plugins.try_map(|plugin| Ok(PluginWithVersions { versions: list_versions(r, plugin.id)?, plugin }))
}

const LIST_PLUGIN_NAMES: &str = "select name from plugins where organization_id = :organization_id order by name";

/// Lists the names of the plugins of an organization.
pub fn list_names(r: &Reader<'_>, organization: OrganizationId) -> Result<Vec<String>> {
    r.all(LIST_PLUGIN_NAMES, &[(":organization_id", &organization)], |row| row.get(0))
}

const COUNT_PLUGINS: &str = "select count(*) from plugins where organization_id = :organization_id";

pub fn count_plugins(r: &Reader<'_>, organization: OrganizationId) -> Result<u64> {
    r.one(COUNT_PLUGINS, &[(":organization_id", &organization)], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn plugin_of(row: &Row<'_>) -> rusqlite::Result<Plugin> {
    Ok(Plugin {
        id: row.get(0)?,
        organization: row.get(1)?,
        name: row.get(2)?,
        enforced: sql::optional_json(row, 3)?,
        shadow: sql::optional_json(row, 4)?,
        history: sql::json(row, 5)?,
        versions_made: row.get(6)?,
        version: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
    })
}

const INSERT_PLUGIN: &str = "
    insert into plugins (id, organization_id, name, created_at, updated_at)
    values (:id, :organization_id, :name, :now, :now)";

pub fn insert_plugin(w: &Writer<'_>, organization: OrganizationId, name: &str) -> Result<Plugin> {
    let id = PluginId::new();
    w.execute(
        INSERT_PLUGIN,
        &[(":id", &id), (":organization_id", &organization), (":name", &name), (":now", &w.now())],
    )?;
    find_plugin(w, organization, name)?.ok_or_else(|| ErrorCode::PluginNotFound.into())
}

const UPDATE_PLUGIN: &str = "
    update plugins
    set enforced = :enforced, shadow = :shadow, history = :history, versions_made = :versions_made,
        version = version + 1, updated_at = :now
    where id = :id";

pub fn update_plugin(w: &Writer<'_>, plugin: &Plugin) -> Result<()> {
    let optional = |activation: &Option<Activation>| activation.as_ref().map(sql::to_json_text).transpose();
    w.execute(
        UPDATE_PLUGIN,
        &[
            (":enforced", &optional(&plugin.enforced)?),
            (":shadow", &optional(&plugin.shadow)?),
            (":history", &sql::to_json_text(&plugin.history)?),
            (":versions_made", &plugin.versions_made),
            (":now", &w.now()),
            (":id", &plugin.id),
        ],
    )
    .map(drop)
}

const DELETE_PLUGIN: &str = "delete from plugins where id = :id";

/// Deletes a plugin. Its versions must be deleted before.
pub fn delete_plugin(w: &Writer<'_>, id: PluginId) -> Result<()> {
    w.execute(DELETE_PLUGIN, &[(":id", &id)]).map(drop)
}

// ── versions ──

const LIST_VERSIONS: &str = "
    select v.version, v.sha256, length(c.component), v.exports, v.imports, v.is_large, v.is_tested, v.report,
           v.quarantined_at, v.uploaded_by, v.created_at
    from plugin_versions v
    join plugin_components c on c.sha256 = v.sha256
    where v.plugin_id = :plugin_id
    order by v.version";

fn list_versions(r: &Reader<'_>, plugin: PluginId) -> Result<Vec<Version>> {
    r.all(LIST_VERSIONS, &[(":plugin_id", &plugin)], |row| {
        Ok(Version {
            number: row.get(0)?,
            sha256: row.get(1)?,
            size_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
            exports: sql::json(row, 3)?,
            imports: sql::json(row, 4)?,
            is_large: row.get(5)?,
            is_tested: row.get(6)?,
            report: sql::json(row, 7)?,
            quarantined_at: row.get(8)?,
            uploaded_by: row.get(9)?,
            created_at: row.get(10)?,
        })
    })
}

const SUM_BYTES: &str = "
    select coalesce(sum(length(c.component)), 0)
    from plugins p
    join plugin_versions v on v.plugin_id = p.id
    join plugin_components c on c.sha256 = v.sha256
    where p.organization_id = :organization_id";

/// Returns the bytes of all components of an organization.
pub fn sum_bytes(r: &Reader<'_>, organization: OrganizationId) -> Result<u64> {
    r.one(SUM_BYTES, &[(":organization_id", &organization)], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

const COUNT_VERSIONS: &str = "select count(*) from plugin_versions where plugin_id = :plugin_id";

pub fn count_versions(r: &Reader<'_>, plugin: PluginId) -> Result<u64> {
    r.one(COUNT_VERSIONS, &[(":plugin_id", &plugin)], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

const FIND_VERSION_OF: &str = "
    select version from plugin_versions where plugin_id = :plugin_id and sha256 = :sha256 order by version limit 1";

/// Finds the version of the plugin that has these bytes.
pub fn find_version_of(r: &Reader<'_>, plugin: PluginId, sha256: &Hash) -> Result<Option<u32>> {
    r.find(FIND_VERSION_OF, &[(":plugin_id", &plugin), (":sha256", sha256)], |row| row.get(0))
}

const INSERT_VERSION: &str = "
    insert into plugin_versions (plugin_id, version, sha256, exports, imports, is_large, is_tested, report, uploaded_by,
                                 created_at)
    values (:plugin_id, :version, :sha256, :exports, :imports, :is_large, :is_tested, :report, :uploaded_by, :now)";

pub fn insert_version(w: &Writer<'_>, plugin: PluginId, version: &Version) -> Result<()> {
    w.execute(
        INSERT_VERSION,
        &[
            (":plugin_id", &plugin),
            (":version", &version.number),
            (":sha256", &version.sha256),
            (":exports", &sql::to_json_text(&version.exports.names())?),
            (":imports", &sql::to_json_text(&version.imports)?),
            (":is_large", &version.is_large),
            (":is_tested", &version.is_tested),
            (":report", &sql::to_json_text(&version.report)?),
            (":uploaded_by", &version.uploaded_by),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const RELEASE: &str = "
    update plugin_versions
    set quarantined_at = null
    where plugin_id = :plugin_id and version = :version and quarantined_at is not null";

/// Ends the quarantine of a version. Returns whether it was quarantined.
pub fn release(w: &Writer<'_>, plugin: PluginId, number: u32) -> Result<bool> {
    w.execute(RELEASE, &[(":plugin_id", &plugin), (":version", &number)]).map(|rows| rows > 0)
}

const DELETE_VERSION: &str = "delete from plugin_versions where plugin_id = :plugin_id and version = :version";

/// Deletes a version, and its component if no other version uses it.
pub fn delete_version(w: &Writer<'_>, plugin: PluginId, version: &Version) -> Result<()> {
    w.execute(DELETE_VERSION, &[(":plugin_id", &plugin), (":version", &version.number)])?;
    delete_component(w, &version.sha256)
}

// ── components ──

const PUT_COMPONENT: &str = "
    insert into plugin_components (sha256, component, created_at)
    values (:sha256, :component, :now)
    on conflict (sha256) do nothing";

pub fn put_component(w: &Writer<'_>, sha256: &Hash, component: &[u8]) -> Result<()> {
    w.execute(PUT_COMPONENT, &[(":sha256", sha256), (":component", &component), (":now", &w.now())]).map(drop)
}

const DELETE_COMPONENT: &str = "
    delete from plugin_components
    where sha256 = :sha256 and not exists (select 1 from plugin_versions where sha256 = :sha256)";

fn delete_component(w: &Writer<'_>, sha256: &Hash) -> Result<()> {
    w.execute(DELETE_COMPONENT, &[(":sha256", sha256)]).map(drop)
}

const QUARANTINE: &str = "
    update plugin_versions set quarantined_at = :now where plugin_id = :plugin_id and version = :version";

pub fn quarantine(w: &Writer<'_>, plugin: PluginId, version: u32) -> Result<()> {
    w.execute(QUARANTINE, &[(":now", &w.now()), (":plugin_id", &plugin), (":version", &version)]).map(drop)
}
