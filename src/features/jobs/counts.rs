//! Counts of jobs over time.

use super::store;
use crate::kernel::db::Reader;
use crate::kernel::db::buckets::Buckets;
use crate::kernel::error::Result;
use crate::kernel::ids::OrganizationId;

/// Counts the present jobs by the bucket in which they were created, as (bucket, number). Done ones are deleted after
/// `jobs.keep_s`.
pub fn count_created(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    buckets: &Buckets,
) -> Result<Vec<(i64, u64)>> {
    store::count_created(r, organization, buckets)
}
