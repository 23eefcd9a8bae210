//! Operations on quotas: the caller's own, those of members and organizations, the ledger, total usage and the recount.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;

use crate::features::members;
use crate::features::quotas::recount::{Difference, RECOUNT, RecountResult, RecountTarget, recount};
use crate::features::quotas::store::{self, Ceiling, MemberAccount};
use crate::features::quotas::usage_store;
use crate::features::quotas::{self, LedgerCause, QuotaAccount, QuotaSettings, set_quota};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{AdminOrKey, MemberCaller, MemberOrKey};
use crate::kernel::authz::delegation::{self, Delegable};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::{Direction, PageRequest, Reader};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, Page, Reply, Tag, TaskReply, like, ok, require_version};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};

/// A member's quota, in bytes
#[derive(Object)]
#[oai(rename = "Quota")]
struct QuotaView {
    /// The maximum that can be stored
    size: i64,
    /// The size of the registered videos
    used: i64,
    /// The size of open reservations for uploads
    reserved: i64,
    /// The remaining bytes, never below 0
    free: i64,
    /// Used share of `size`, in whole percent, rounded down
    percent: i64,
}

impl From<QuotaAccount> for QuotaView {
    fn from(account: QuotaAccount) -> Self {
        Self {
            size: account.size,
            used: account.used,
            reserved: account.reserved,
            free: account.free(),
            percent: account.percent(),
        }
    }
}

/// A member with its quota
#[derive(Object)]
struct MemberQuota {
    uid: MemberId,
    #[oai(nullable)]
    username: Option<String>,
    /// The organization whose ceiling it counts against
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// The size set for this member; null uses the default of the organization or the site
    #[oai(nullable)]
    own_size: Option<i64>,
    /// The effective size, in bytes
    size: i64,
    used: i64,
    /// The size of open reservations for uploads
    reserved: i64,
    free: i64,
    /// Used share of `size`, in whole percent, rounded down
    percent: i64,
}

impl MemberQuota {
    fn new(uid: MemberId, username: Option<String>, account: QuotaAccount) -> Self {
        Self {
            uid,
            username,
            organization_id: account.organization,
            own_size: account.own_size,
            size: account.size,
            used: account.used,
            reserved: account.reserved,
            free: account.free(),
            percent: account.percent(),
        }
    }
}

impl From<MemberAccount> for MemberQuota {
    fn from(held: MemberAccount) -> Self {
        Self::new(held.member, held.username, held.account)
    }
}

/// Changes the quota of a member
#[derive(Object)]
struct UpdateQuota {
    /// In bytes: null uses the default of the organization or the site, 0 allows nothing, and the maximum means no
    /// limit
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: MaybeUndefined<i64>,
}

/// Changes the quota of an organization
#[derive(Object)]
struct UpdateCeiling {
    /// The ceiling for all its members together, in bytes: null for none, 0 allows nothing
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: MaybeUndefined<i64>,
    /// The default size of its members, in bytes; null uses the site's default
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    member_size: MaybeUndefined<i64>,
}

/// The quota of an organization
#[derive(Object)]
struct OrganizationQuota {
    organization_id: OrganizationId,
    /// The ceiling for all its members together, in bytes; null for none
    #[oai(nullable)]
    size: Option<i64>,
    /// The default size of its members, in bytes; null uses the site's default
    #[oai(nullable)]
    member_size: Option<i64>,
    used: i64,
    reserved: i64,
    /// Null where there is no ceiling
    #[oai(nullable)]
    free: Option<i64>,
    /// Null where there is no ceiling
    #[oai(nullable)]
    percent: Option<i64>,
}

impl OrganizationQuota {
    fn new(organization_id: OrganizationId, ceiling: Ceiling) -> Self {
        Self {
            organization_id,
            size: ceiling.size,
            member_size: ceiling.member_size,
            used: ceiling.used,
            reserved: ceiling.reserved,
            free: ceiling.free(),
            percent: ceiling.size.map(|size| quotas::percent(size, ceiling.used)),
        }
    }
}

/// The order of a list of quotas; `-` reverses it
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
enum QuotaOrder {
    #[oai(rename = "used")]
    Lowest,
    #[oai(rename = "-used")]
    Highest,
}

/// Why the usage changed
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "LedgerCause", remote = "LedgerCause")]
enum LedgerCauseName {
    Register,
    /// The file was replaced by one of a different size
    Replace,
    Delete,
    Transfer,
    Claim,
    Repair,
}

/// One change of a member's usage
#[derive(Object)]
struct LedgerEntry {
    id: i64,
    /// Unix milliseconds
    at: i64,
    cause: LedgerCauseName,
    /// The video; null for a repair
    #[oai(nullable)]
    uuid: Option<String>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// The change in bytes; negative when bytes were freed
    delta: i64,
    /// The member's usage after the change, in bytes
    used_after: i64,
    request_id: String,
}

/// An organization's usage
#[derive(Object)]
struct OrganizationUsage {
    organization_id: OrganizationId,
    org_code: String,
    name: String,
    /// The ceiling, in bytes; null for none
    #[oai(nullable)]
    size: Option<i64>,
    used: i64,
    reserved: i64,
    /// Null where there is no ceiling
    #[oai(nullable)]
    percent: Option<i64>,
    videos: u64,
}

/// The usage of the whole site
#[derive(Object)]
struct SiteUsage {
    used: i64,
    reserved: i64,
    videos: u64,
    /// Videos without an owner, which count against no quota
    ownerless_videos: u64,
    ownerless_bytes: i64,
}

/// Total usage
#[derive(Object)]
struct UsageView {
    /// Null for callers who can read only one organization
    #[oai(nullable)]
    site: Option<SiteUsage>,
    /// Highest usage first
    organizations: Vec<OrganizationUsage>,
    /// Members with the highest usage, highest first
    top: Vec<MemberQuota>,
}

/// Options of a recount
#[derive(Object)]
struct RecountQuotas {
    /// Corrects the ledger and all accounts from the videos
    repair: Option<bool>,
}

/// The kind of account that differs
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum DriftOf {
    Member,
    Organization,
    /// The video count of the site, instead of bytes
    Site,
}

/// An account that differs from the sums of its rows
#[derive(Object)]
struct Drift {
    of: DriftOf,
    /// The id of the member or the organization
    #[oai(nullable)]
    id: Option<String>,
    used: i64,
    /// The sum of the ledger rows
    ledger: i64,
    /// The sum of the video sizes
    videos: i64,
    reserved: i64,
    /// The sum of the open reservations
    reservations: i64,
}

/// The result of a recount
#[derive(Object)]
struct Recounted {
    /// The number of accounts that differed; 0 when all are correct
    drift: u64,
    /// Whether they were corrected
    repaired: bool,
    members: i64,
    organizations: i64,
    videos: i64,
    /// The first 100 that differed
    items: Vec<Drift>,
}

impl Recounted {
    fn new(counted: RecountResult, repairs: bool) -> Self {
        const SHOWN_MAX: usize = 100;
        let drift = counted.differences.len() as u64;
        Self {
            drift,
            repaired: repairs && drift > 0,
            members: counted.members,
            organizations: counted.organizations,
            videos: counted.videos,
            items: counted.differences.into_iter().take(SHOWN_MAX).map(Into::into).collect(),
        }
    }
}

impl From<Difference> for Drift {
    fn from(difference: Difference) -> Self {
        let (of, id) = match difference.whose {
            RecountTarget::Member(id) => (DriftOf::Member, Some(id.to_string())),
            RecountTarget::Organization(id) => (DriftOf::Organization, Some(id.to_string())),
            RecountTarget::Site => (DriftOf::Site, None),
        };
        let Difference { used, ledger, videos, reserved, reservations, .. } = difference;
        Self { of, id, used, ledger, videos, reserved, reservations }
    }
}

crate::document! {
    get_my_quota: [] ["x-quota-warning"];
    update_member_quota: [MemberNotFound] ["etag"];
    update_organization_quota: [] ["etag"];
    list_ledger: [MemberNotFound];

    "UpdateQuota": r#"{"size":21474836480}"#;
    "UpdateCeiling": r#"{"size":1099511627776,"member_size":null}"#;
    "RecountQuotas": r#"{"repair":false}"#;
    "Quota": r#"{"size":10737418240,"used":734003200,"reserved":0,"free":10003415040,"percent":6}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Quotas")]
impl Api {
    /// Get the caller's quota
    ///
    /// In bytes; `used` counts registered videos, `reserved` counts uploads in progress.
    #[oai(path = "/me/quota", method = "get", operation_id = "get_my_quota")]
    async fn get_my_quota(&self, caller: MemberOrKey) -> Reply<QuotaView> {
        let member = authz::require_own(&caller, "quotas:read")?;
        let (rules, snapshot) = (QuotaSettings::from_config(&self.app.config), self.app.snapshot());
        let account = self.app.read(move |r| quotas::account(r, &rules, &snapshot, member)).await?;
        let warning = account.warning();
        Ok(ok(account.into()).quota_warning(warning))
    }

    /// List the quotas of members
    ///
    /// Highest usage first. With a selective keyword a page can be short or empty although `next` is present.
    #[oai(path = "/admin/quotas", method = "get", operation_id = "list_quotas")]
    async fn list_quotas(
        &self,
        caller: AdminOrKey,
        /// Only members with this text in the username, e-mail or display name
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        /// `-used` by default
        sort: Query<Option<QuotaOrder>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<MemberQuota>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::QUOTA_LIST)?;
        // The list is highest usage first.
        let direction = if sort.0 == Some(QuotaOrder::Lowest) { Direction::Backward } else { Direction::Forward };
        let window = PageRequest::new(limit.0, offset.0, after.0)?.toward(direction);
        let keyword = like(keyword.0.as_deref());
        let default_bytes = QuotaSettings::from_config(&self.app.config).default_bytes;
        let list = move |r: &Reader<'_>| {
            let now = (Timestamp::now(), default_bytes);
            store::list_quotas(r, (reach.organization(), keyword.as_deref()), now, &window)
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Update a member's quota
    ///
    /// Administrators of an organization can change it only for members who count under that organization alone, and
    /// can exceed the default only if the organization has a ceiling.
    #[oai(path = "/admin/members/:id/quota", method = "patch", operation_id = "update_member_quota")]
    async fn update_member_quota(
        &self,
        caller: AdminOrKey,
        id: Path<MemberId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateQuota>,
    ) -> Reply<MemberQuota> {
        let rules = QuotaSettings::from_config(&self.app.config);
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            delegation::require_any(caller, Delegable::Quota)?;
            let reach = authz::require(t.snapshot(), caller, Permission::QUOTA_UPDATE)?;
            members::require_visible(t.snapshot(), reach, id.0)?;
            let member = members::get(t, id.0)?;
            if member.is_erased() {
                return Err(ErrorCode::MemberDeleted.into());
            }
            quotas::ensure_account(t, id.0)?;
            let version = store::find_member_size(t, id.0)?.map_or(1, |(_, version)| version);
            require_version(if_match.0.as_deref(), version)?;
            let changed = match body.0.size {
                MaybeUndefined::Undefined => Changed::unchanged(false),
                size => {
                    let size = size.take();
                    require_may_set(t, &rules, reach, (id.0, size))?;
                    set_quota(t, &rules, reach, (id.0, size))?
                }
            };
            let account = quotas::account(t, &rules, t.snapshot(), id.0)?;
            let version = store::find_member_size(t, id.0)?.map_or(1, |(_, version)| version);
            Ok(changed.map(|_| (MemberQuota::new(id.0, member.username, account), version)))
        };
        let (view, version) = self.app.change(&caller, "quota.update", update).await?.answer;
        Ok(ok(view).version(version))
    }

    /// Update an organization's ceiling and default quota
    ///
    /// A ceiling below the present usage deletes nothing; it only blocks further uploads.
    #[oai(path = "/admin/organizations/:id/quota", method = "patch", operation_id = "update_organization_quota")]
    async fn update_organization_quota(
        &self,
        caller: AdminOrKey,
        id: Path<OrganizationId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateCeiling>,
    ) -> Reply<OrganizationQuota> {
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            delegation::require_any(caller, Delegable::Quota)?;
            let reach = authz::require(t.snapshot(), caller, Permission::QUOTA_CEILING)?;
            let tenant = t.snapshot().tenant(id.0).filter(|tenant| reach.includes(tenant.id));
            tenant.ok_or(ErrorCode::OrganizationNotFound)?;
            store::ensure_organization_account(t, id.0)?;
            let previous = ceiling(t, id.0)?;
            require_version(if_match.0.as_deref(), previous.version)?;
            let edited = |previous: Option<i64>, edit: MaybeUndefined<i64>| match edit {
                MaybeUndefined::Undefined => previous,
                edit => edit.take(),
            };
            let size = edited(previous.size, body.0.size);
            let member_size = edited(previous.member_size, body.0.member_size);
            if (size, member_size) == (previous.size, previous.member_size) {
                return Ok(Changed::unchanged(previous));
            }
            store::set_ceiling(t, id.0, (size, member_size))?;
            let audited =
                |size: Option<i64>, member_size: Option<i64>| json!({"size": size, "member_size": member_size});
            let entry = Entry::new("organization_quota", id.0)
                .within(id.0)
                .before(audited(previous.size, previous.member_size))
                .after(audited(size, member_size));
            // No member is set: the event concerns all members of the organization.
            let event = Event::new(EventKind::QuotaChanged, audited(size, member_size)).within(id.0);
            Ok(Changed::new(ceiling(t, id.0)?, entry).with_events([event]))
        };
        let ceiling = self.app.change(&caller, "organization_quota.update", update).await?.answer;
        Ok(ok(OrganizationQuota::new(id.0, ceiling)).version(ceiling.version))
    }

    /// List a member's quota ledger
    ///
    /// Newest first. The sum of all deltas is the usage. Administrators of an organization see only the entries that
    /// count under it: a page can be short or empty although `next` is present.
    #[oai(path = "/admin/quotas/:id/ledger", method = "get", operation_id = "list_ledger")]
    async fn list_ledger(
        &self,
        caller: AdminOrKey,
        id: Path<MemberId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<LedgerEntry>> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::QUOTA_LEDGER)?;
        members::require_visible(&snapshot, reach, id.0)?;
        let window = PageRequest::new(limit.0, offset.0, after.0)?;
        let list = move |r: &Reader<'_>| {
            members::get(r, id.0)?;
            store::list_ledger(r, id.0, reach.organization(), &window)
        };
        let found = self.app.read(list).await?;
        let line = |line: store::LedgerRow| LedgerEntry {
            id: line.id,
            at: line.at.0,
            cause: line.cause.into(),
            uuid: line.video,
            organization_id: line.organization,
            delta: line.delta,
            used_after: line.used_after,
            request_id: line.request_id,
        };
        Ok(ok(found.map(line).into()))
    }

    /// Get total usage and the largest users
    ///
    /// The totals of the caller's organization, or of the whole site for the platform, and the members with the highest
    /// usage.
    #[oai(path = "/admin/usage", method = "get", operation_id = "get_usage")]
    async fn get_usage(
        &self,
        caller: AdminOrKey,
        /// The maximum number of organizations and of members; 10 when absent
        #[oai(validator(minimum(value = "1")))]
        limit: Query<Option<u64>>,
    ) -> Reply<UsageView> {
        const DEFAULT_LIMIT: u64 = 10;
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::QUOTA_USAGE)?;
        let limit = PageRequest::new(limit.0.or(Some(DEFAULT_LIMIT)), None, None)?.limit;
        let default_bytes = QuotaSettings::from_config(&self.app.config).default_bytes;
        let load = move |r: &Reader<'_>| {
            let (now, only) = (Timestamp::now(), reach.organization());
            let site = if only.is_none() { Some(site(usage_store::site_usage(r, now)?)) } else { None };
            let organizations = store::list_usage(r, only, now, limit)?;
            let top = store::list_top(r, only, (now, default_bytes), limit)?;
            Ok(UsageView {
                site,
                organizations: organizations.into_iter().map(Into::into).collect(),
                top: top.into_iter().map(Into::into).collect(),
            })
        };
        Ok(ok(self.app.read(load).await?))
    }

    /// Verify all usage against the ledger and the videos
    ///
    /// The usage of each member and organization must equal the sum of its ledger and the sum of its videos; the
    /// reserved bytes must equal the sum of the open reservations. A repair takes the videos as correct.
    #[oai(path = "/admin/quotas/recount", method = "post", operation_id = "recount_quotas")]
    async fn recount_quotas(
        &self,
        caller: MemberCaller,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
        body: Body<RecountQuotas>,
    ) -> TaskReply<Recounted> {
        let repairs = body.0.repair == Some(true);
        authz::require(&self.app.snapshot(), &caller, Permission::QUOTA_RECOUNT)?;
        let (app, caller) = (self.app.clone(), caller.0);
        let by = caller.clone();
        let work =
            move |progress| async move { Ok(Recounted::new(recount(&app, &by, repairs, progress).await?, repairs)) };
        Ok(self.app.perform(&caller, RECOUNT, background.0 == Some(true), work).await?)
    }
}

fn ceiling(t: &Transaction<'_>, organization: OrganizationId) -> Result<Ceiling> {
    store::find_ceiling(t, organization, t.now())?.ok_or_else(|| ErrorCode::OrganizationNotFound.into())
}

/// Fails if an organization's administrator may not set this size: beyond the default, the organization needs a
/// ceiling, and the size cannot exceed it.
fn require_may_set(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    reach: Reach,
    (member, size): (MemberId, Option<i64>),
) -> Result<()> {
    let Some(organization) = reach.organization() else { return Ok(()) };
    let refused = |why: &'static str| Err(Error::new(ErrorCode::Forbidden).with_message(why));
    if quotas::organization_of(t.snapshot(), member) != Some(organization) {
        return refused("this member does not count under your organization alone: only the platform can change this");
    }
    let above = ceiling(t, organization)?;
    let default = above.member_size.unwrap_or(rules.default_bytes);
    match (size, above.size) {
        (Some(size), None) if size > default => {
            refused("your organization has no ceiling, so only the platform can give more than the default")
        }
        (Some(size), Some(most)) if size > most => refused("this is more than your whole organization may store"),
        _ => Ok(()),
    }
}

fn site([used, reserved, videos, ownerless_videos, ownerless_bytes]: [i64; 5]) -> SiteUsage {
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    SiteUsage { used, reserved, videos: count(videos), ownerless_videos: count(ownerless_videos), ownerless_bytes }
}

impl From<store::Usage> for OrganizationUsage {
    fn from(usage: store::Usage) -> Self {
        Self {
            organization_id: usage.organization,
            org_code: usage.org_code,
            name: usage.name,
            size: usage.size,
            used: usage.used,
            reserved: usage.reserved,
            percent: usage.size.map(|size| quotas::percent(size, usage.used)),
            videos: u64::try_from(usage.videos).unwrap_or_default(),
        }
    }
}
