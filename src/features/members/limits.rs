//! How many members an organization may make.

use super::{Capacity, require_capacity, store};
use crate::kernel::app::Transaction;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::OrganizationId;

/// How many members the site may have, and how many of them one organization may make.
#[derive(Debug, Clone, Copy)]
pub struct MemberLimits {
    pub members_max: u64,
    /// 0 is half of them, where there are several organizations.
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

/// The same for a member whom an organization makes: it fills no more than its part, whether the members stay in it or
/// leave.
pub fn require_capacity_of(
    t: &Transaction<'_>,
    organization: OrganizationId,
    limits: MemberLimits,
) -> Result<Capacity> {
    require_capacity(t.snapshot(), limits.members_max)?;
    let each_max = limits.each(t.snapshot());
    if !t.snapshot().is_platform(organization) && store::has_made(t, organization, each_max)? {
        let message = format!("this organization made {each_max} members already (limits.members_per_organization)");
        return Err(Error::new(ErrorCode::SiteFull).with_message(message));
    }
    Ok(Capacity(Some(organization)))
}
