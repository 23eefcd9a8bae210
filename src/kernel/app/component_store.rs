//! SQL that reads uploaded WebAssembly components.

use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::OrganizationId;
use crate::kernel::secret::Hash;

const GET_COMPONENT: &str = "select component from plugin_components where sha256 = :sha256";

/// The bytes of an uploaded component.
pub fn get_component(r: &Reader<'_>, sha256: &Hash) -> Result<Vec<u8>> {
    r.one(GET_COMPONENT, &[(":sha256", sha256)], |row| row.get(0))
}

const HAS_COMPONENT: &str = "
    select 1
    from plugin_versions v
    join plugins p on p.id = v.plugin_id
    where v.sha256 = :sha256 and p.organization_id = :organization_id
    limit 1";

/// Whether the organization has a plugin version with this digest.
pub fn has_component(r: &Reader<'_>, (organization, sha256): (OrganizationId, Hash)) -> Result<bool> {
    let parameters: [(&str, &dyn rusqlite::ToSql); 2] = [(":sha256", &sha256), (":organization_id", &organization)];
    r.find(HAS_COMPONENT, &parameters, |_| Ok(())).map(|found| found.is_some())
}

const LIST_COMPONENTS: &str = "
    select distinct p.organization_id, v.sha256
    from plugin_versions v
    join plugins p on p.id = v.plugin_id";

/// Organization and digest of every uploaded component.
pub fn list_components(r: &Reader<'_>) -> Result<Vec<(OrganizationId, Hash)>> {
    r.all(LIST_COMPONENTS, &[], |row| Ok((row.get(0)?, row.get(1)?)))
}
