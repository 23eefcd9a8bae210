//! Bodies longer than `limits.body_bytes`: the operations that accept them, their limits and permissions.

use hyper::body::Bytes;

use super::App;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{require, require_in_tenant};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::OrganizationId;
use crate::kernel::intake::Limit;
use crate::kernel::sandbox::{Tier, inspect};

/// An operation that accepts a long body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LargeBody {
    Catalog,
    Users,
    Component,
}

impl App {
    /// Checks the permission of the operation, then reads its body. Fails with `too_large` past the limit.
    pub async fn read_large_body<'c>(&self, caller: &'c Identity, large: LargeBody) -> Result<&'c Bytes> {
        let snapshot = self.snapshot();
        let bytes_max = self.large_body_bytes_max(&snapshot, caller, large)?;
        let taken = caller.context.body.read(Limit::Large(bytes_max), caller.context.party(&snapshot)).await;
        taken.map_err(|refused| match (large, refused.code) {
            (LargeBody::Component, ErrorCode::TooLarge) => inspect::too_large(bytes_max),
            _ => refused,
        })
    }

    /// Checks the permission of the operation; returns the bytes that the caller may send.
    pub fn large_body_bytes_max(&self, snapshot: &Snapshot, caller: &Identity, large: LargeBody) -> Result<u64> {
        Ok(match large {
            LargeBody::Catalog => {
                require(snapshot, caller, Permission::CATALOG_IMPORT)?;
                self.config.catalog_bytes_max
            }
            LargeBody::Users => {
                require(snapshot, caller, Permission::USER_IMPORT)?;
                self.config.import_bytes_max
            }
            LargeBody::Component => {
                let tenant = require_in_tenant(snapshot, caller, Permission::PLUGIN_UPLOAD)?;
                self.host.limits(self.tier_of(snapshot, tenant)).file_bytes
            }
        })
    }

    /// The tier of plugins that the organization may upload and run.
    pub fn tier_of(&self, snapshot: &Snapshot, organization: OrganizationId) -> Tier {
        let tenant = snapshot.tenant(organization);
        tenant.map_or(Tier::Standard, |tenant| Tier::of_organization(&self.config, &tenant.org_code))
    }
}
