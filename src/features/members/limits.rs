//! The limit of members that an organization may create.

use super::{Capacity, require_capacity, store};
use crate::kernel::app::Transaction;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::OrganizationId;

/// The most members of the site, and the most members that one organization may create.
#[derive(Debug, Clone, Copy)]
pub struct MemberLimits {
    pub members_max: u64,
    /// 0 means half of `members_max` if there are several organizations, else all of them.
    each_max: u64,
}

impl MemberLimits {
    pub fn of(config: &Config) -> Self {
        Self { members_max: config.members_max, each_max: config.members_each_max }
    }

    fn each(self, snapshot: &Snapshot) -> u64 {
        let has_several = snapshot.tenants().filter(|tenant| !snapshot.is_platform(tenant.id)).nth(1).is_some();
        match self.each_max {
            0 if has_several => (self.members_max / 2).max(1),
            0 => self.members_max,
            each_max => each_max,
        }
    }
}

/// Checks the limits for a member that an organization creates. Members that have left the organization count as well.
/// Fails with `SiteFull`.
pub fn require_capacity_of(
    t: &Transaction<'_>,
    organization: OrganizationId,
    limits: MemberLimits,
) -> Result<Capacity> {
    require_capacity(t.snapshot(), limits.members_max)?;
    let each_max = limits.each(t.snapshot());
    if !t.snapshot().is_platform(organization) && store::has_created(t, organization, each_max)? {
        let message = format!("this organization already created {each_max} members (limits.members_per_organization)");
        return Err(Error::new(ErrorCode::SiteFull).with_message(message));
    }
    Ok(Capacity(Some(organization)))
}
