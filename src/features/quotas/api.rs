//! Operations on quotas: one's own, those of members and organizations, their ledger, usage in sum, the proof.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;

use crate::features::members;
use crate::features::quotas::recount::{self, Counted, Difference, RecountTarget};
use crate::features::quotas::store::{self, Ceiling, Held};
use crate::features::quotas::{self, Account, QuotaSettings, set_quota};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{AdminOrKey, MemberCaller, MemberOrKey};
use crate::kernel::authz::delegation::{self, Gift};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, Reach};
use crate::kernel::db::{Reader, Window};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, Page, Reply, Tag, like, ok, require_version};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};

/// What one may store, in bytes
#[derive(Object)]
#[oai(rename = "Quota")]
struct QuotaView {
    /// What may be stored
    size: i64,
    /// What is stored
    used: i64,
    /// What is promised to uploads
    reserved: i64,
    /// What is left, never below 0
    free: i64,
    /// How much of the size is used, in whole per cent rounded down
    percent: i64,
}

impl From<Account> for QuotaView {
    fn from(account: Account) -> Self {
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
    /// Under whose ceiling it counts
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// Its own size; null takes the organization's or the site's
    #[oai(nullable)]
    own_size: Option<i64>,
    /// What may be stored, in bytes
    size: i64,
    used: i64,
    /// What is promised to uploads
    reserved: i64,
    free: i64,
    /// In whole per cent, rounded down
    percent: i64,
}

impl MemberQuota {
    fn new(uid: MemberId, username: Option<String>, account: Account) -> Self {
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

impl From<Held> for MemberQuota {
    fn from(held: Held) -> Self {
        Self::new(held.member, held.username, held.account)
    }
}

/// What a member may store
#[derive(Object)]
struct UpdateQuota {
    /// In bytes: null takes the organization's or the site's default, 0 is nothing at all, and the largest is no limit
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: MaybeUndefined<i64>,
}

/// What an organization may store
#[derive(Object)]
struct UpdateCeiling {
    /// The ceiling above all its members, in bytes: null for none, 0 for nothing at all
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: MaybeUndefined<i64>,
    /// What its members have unless they have a size of their own; null takes the site's
    #[oai(nullable, validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    member_size: MaybeUndefined<i64>,
}

/// The ceiling of an organization
#[derive(Object)]
struct OrganizationQuota {
    organization_id: OrganizationId,
    /// In bytes; null for none
    #[oai(nullable)]
    size: Option<i64>,
    /// What its members have by default; null takes the site's
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

/// Why a usage changed
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum LedgerCause {
    Register,
    /// The file was replaced by one of another size
    Replace,
    Delete,
    Transfer,
    Claim,
    Repair,
}

impl LedgerCause {
    fn of(word: &str) -> Self {
        match word {
            "register" => Self::Register,
            "replace" => Self::Replace,
            "delete" => Self::Delete,
            "transfer" => Self::Transfer,
            "claim" => Self::Claim,
            _ => Self::Repair,
        }
    }
}

/// One change of a member's usage
#[derive(Object)]
struct LedgerEntry {
    id: i64,
    /// Unix milliseconds
    at: i64,
    cause: LedgerCause,
    /// The video; null for a repair
    #[oai(nullable)]
    uuid: Option<String>,
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// Bytes, negative where some were freed
    delta: i64,
    /// The member's usage from then on
    used_after: i64,
    request_id: String,
}

/// An organization's usage
#[derive(Object)]
struct OrganizationUsage {
    organization_id: OrganizationId,
    org_code: String,
    name: String,
    /// Its ceiling in bytes; null for none
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
    /// Videos without an owner, which count for nobody
    ownerless_videos: u64,
    ownerless_bytes: i64,
}

/// Usage in sum
#[derive(Object)]
struct UsageView {
    /// Null for who sees one organization only
    #[oai(nullable)]
    site: Option<SiteUsage>,
    /// The fullest first
    organizations: Vec<OrganizationUsage>,
    /// Members, the fullest first
    top: Vec<MemberQuota>,
}

/// Whether what differs is brought in line
#[derive(Object)]
struct RecountQuotas {
    /// Brings the ledger and all accounts in line with the videos
    repair: Option<bool>,
}

/// Whose figures differ
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum DriftOf {
    Member,
    Organization,
    /// How many videos there are, instead of bytes
    Site,
}

/// Figures that are not what their rows say
#[derive(Object)]
struct Drift {
    of: DriftOf,
    /// Of the member or the organization
    #[oai(nullable)]
    id: Option<String>,
    used: i64,
    /// The sum of the ledger
    ledger: i64,
    /// The sum of the videos
    videos: i64,
    reserved: i64,
    /// The sum of the open reservations
    reservations: i64,
}

/// The proof of all accounts
#[derive(Object)]
struct Recounted {
    /// How many accounts differed; 0 is the proof
    drift: u64,
    /// Were they brought in line?
    repaired: bool,
    members: i64,
    organizations: i64,
    videos: i64,
    /// The first hundred that differed
    items: Vec<Drift>,
}

impl Recounted {
    fn new(counted: Counted, repairs: bool) -> Self {
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
    /// See what one may store, and does
    ///
    /// In bytes; `used` counts the videos that are registered, `reserved` uploads that are under way.
    #[oai(path = "/me/quota", method = "get", operation_id = "get_my_quota")]
    async fn get_my_quota(&self, caller: MemberOrKey) -> Reply<QuotaView> {
        let member = authz::require_own(&caller, "quotas:read")?;
        let (rules, snapshot) = (QuotaSettings::from_config(&self.app.config), self.app.snapshot());
        let account = self.app.read(move |r| quotas::account(r, &rules, &snapshot, member)).await?;
        let warning = account.warning();
        Ok(ok(account.into()).quota_warning(warning))
    }

    /// See what members may store, and do
    ///
    /// The fullest come first. Where a keyword fits few of many a page may be short, or empty, while there is `next`.
    #[oai(path = "/admin/quotas", method = "get", operation_id = "list_quotas")]
    async fn list_quotas(
        &self,
        caller: AdminOrKey,
        /// Found in username, e-mail and display name
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<MemberQuota>> {
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::QUOTA_LIST)?;
        let (window, keyword) = (Window::new(limit.0, offset.0, after.0)?, like(keyword.0.as_deref()));
        let default_bytes = QuotaSettings::from_config(&self.app.config).default_bytes;
        let list = move |r: &Reader<'_>| {
            let now = (Timestamp::now(), default_bytes);
            store::list_quotas(r, (reach.organization(), keyword.as_deref()), now, &window)
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Change what a member may store
    ///
    /// An organization's administrators only for members who count under it alone; and more than the default only
    /// where the organization has a ceiling.
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
            delegation::require_any(caller, Gift::Quota)?;
            let reach = authz::require(t.snapshot(), caller, Permission::QUOTA_UPDATE)?;
            members::require_visible(t.snapshot(), reach, id.0)?;
            let member = members::get(t, id.0)?;
            if member.status == "deleted" {
                return Err(ErrorCode::MemberDeleted.into());
            }
            quotas::ensure_account(t, id.0)?;
            let version = store::find_member_size(t, id.0)?.map_or(1, |(_, version)| version);
            require_version(if_match.0.as_deref(), version)?;
            let changed = match body.0.size {
                MaybeUndefined::Undefined => Changed::nothing(false),
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

    /// Change what an organization may store, and its members by default
    ///
    /// A ceiling below what is stored deletes nothing: nothing more fits.
    #[oai(path = "/admin/organizations/:id/quota", method = "patch", operation_id = "update_organization_quota")]
    async fn update_organization_quota(
        &self,
        caller: AdminOrKey,
        id: Path<OrganizationId>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<UpdateCeiling>,
    ) -> Reply<OrganizationQuota> {
        let update = move |t: &Transaction<'_>, caller: &Identity| {
            delegation::require_any(caller, Gift::Quota)?;
            let reach = authz::require(t.snapshot(), caller, Permission::QUOTA_CEILING)?;
            let tenant = t.snapshot().tenant(id.0).filter(|tenant| reach.includes(tenant.id));
            tenant.ok_or(ErrorCode::OrganizationNotFound)?;
            store::settle_organization(t, id.0)?;
            let former = ceiling(t, id.0)?;
            require_version(if_match.0.as_deref(), former.version)?;
            let edited = |former: Option<i64>, edit: MaybeUndefined<i64>| match edit {
                MaybeUndefined::Undefined => former,
                edit => edit.take(),
            };
            let size = edited(former.size, body.0.size);
            let member_size = edited(former.member_size, body.0.member_size);
            if (size, member_size) == (former.size, former.member_size) {
                return Ok(Changed::nothing(former));
            }
            store::set_ceiling(t, id.0, (size, member_size))?;
            let described =
                |size: Option<i64>, member_size: Option<i64>| json!({"size": size, "member_size": member_size});
            let entry = Entry::new("organization_quota", id.0)
                .within(id.0)
                .before(described(former.size, former.member_size))
                .after(described(size, member_size));
            // Without a member: it is about all that belong to it.
            let event = Event::new(EventKind::QuotaChanged, described(size, member_size)).within(id.0);
            Ok(Changed::new(ceiling(t, id.0)?, entry).event([event]))
        };
        let ceiling = self.app.change(&caller, "organization_quota.update", update).await?.answer;
        Ok(ok(OrganizationQuota::new(id.0, ceiling)).version(ceiling.version))
    }

    /// See how a member's usage came about
    ///
    /// The newest come first. The sum of all deltas is the usage. An organization sees what counts under it: a page may be
    /// short, or empty, while there is `next`.
    #[oai(path = "/admin/quotas/:id/ledger", method = "get", operation_id = "list_ledger")]
    async fn list_ledger(
        &self,
        caller: AdminOrKey,
        id: Path<MemberId>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Go on behind this: the `next` of the answer before. Without `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<LedgerEntry>> {
        let snapshot = self.app.snapshot();
        let reach = authz::require(&snapshot, &caller, Permission::QUOTA_LEDGER)?;
        members::require_visible(&snapshot, reach, id.0)?;
        let window = Window::new(limit.0, offset.0, after.0)?;
        let list = move |r: &Reader<'_>| {
            members::get(r, id.0)?;
            store::list_ledger(r, id.0, reach.organization(), &window)
        };
        let found = self.app.read(list).await?;
        let line = |line: store::Line| LedgerEntry {
            id: line.id,
            at: line.at.0,
            cause: LedgerCause::of(&line.cause),
            uuid: line.video,
            organization_id: line.organization,
            delta: line.delta,
            used_after: line.used_after,
            request_id: line.request_id,
        };
        Ok(ok(found.map(line).into()))
    }

    /// See usage in sum, and who uses most
    ///
    /// The sums of the caller's organization, or of the whole site for the platform, and the members who store most.
    #[oai(path = "/admin/usage", method = "get", operation_id = "get_usage")]
    async fn get_usage(
        &self,
        caller: AdminOrKey,
        /// How many organizations and members; 10 when absent
        #[oai(validator(minimum(value = "1")))]
        limit: Query<Option<u64>>,
    ) -> Reply<UsageView> {
        const SHOWN: u64 = 10;
        let reach = authz::require(&self.app.snapshot(), &caller, Permission::QUOTA_USAGE)?;
        let limit = Window::new(limit.0.or(Some(SHOWN)), None, None)?.limit;
        let default_bytes = QuotaSettings::from_config(&self.app.config).default_bytes;
        let sum_up = move |r: &Reader<'_>| {
            let (now, only) = (Timestamp::now(), reach.organization());
            let site = if only.is_none() { Some(site(store::site_usage(r, now)?)) } else { None };
            let organizations = store::list_usage(r, only, now, limit)?;
            let top = store::list_fullest(r, only, (now, default_bytes), limit)?;
            Ok(UsageView {
                site,
                organizations: organizations.into_iter().map(Into::into).collect(),
                top: top.into_iter().map(Into::into).collect(),
            })
        };
        Ok(ok(self.app.read(sum_up).await?))
    }

    /// Prove all usage by the ledger and the videos
    ///
    /// What a member or an organization uses is the sum of its ledger and the sum of its videos; what is reserved is the
    /// sum of the open reservations. A repair believes the videos.
    #[oai(path = "/admin/quotas/recount", method = "post", operation_id = "recount_quotas")]
    async fn recount_quotas(&self, caller: MemberCaller, body: Body<RecountQuotas>) -> Reply<Recounted> {
        let repairs = body.0.repair == Some(true);
        let counted = if repairs {
            let repair = move |t: &Transaction<'_>, caller: &Identity| {
                authz::require(t.snapshot(), caller, Permission::QUOTA_RECOUNT)?;
                recount::repair(t, caller)
            };
            self.app.change(&caller, "quota.repair", repair).await?.answer
        } else {
            authz::require(&self.app.snapshot(), &caller, Permission::QUOTA_RECOUNT)?;
            self.app.read(recount::count).await?
        };
        Ok(ok(Recounted::new(counted, repairs)))
    }
}

fn ceiling(t: &Transaction<'_>, organization: OrganizationId) -> Result<Ceiling> {
    store::find_ceiling(t, organization, t.now())?.ok_or_else(|| ErrorCode::OrganizationNotFound.into())
}

/// An organization hands out what it has: beyond the default there must be a ceiling above it.
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
