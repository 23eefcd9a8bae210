//! Quotas: the bytes that a member, and the organization above it, may store, has reserved and uses.
//!
//! **Invariant.** `used` changes by one conditional update together with a ledger row, in the transaction of its cause.
//! It equals the sum of the member's ledger and the sum of its videos; `reserved` equals the sum of its open
//! reservations.
//!
//! A member counts against the ceiling of its only organization; with none or several, against no ceiling. When a
//! member joins or leaves, this changes for later uploads only: what is stored already stays counted where it was until
//! it is deleted or transferred.

pub mod api;
mod count_store;
pub mod recount;
mod recount_store;
mod reservation_store;
pub mod reservations;
mod store;
mod usage_store;

use serde_json::json;

use crate::kernel::app::{App, Changed, Occurrence, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::Reach;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::config::Config;
use crate::kernel::db::buckets::Buckets;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};

/// The largest accepted size in bytes, chosen so that sums of sizes within a quota do not overflow.
pub const SIZE_MAX: i64 = 9_000_000_000_000_000;

/// Usage thresholds at which members are warned, in percent.
const WARNINGS: [i64; 2] = [80, 95];
/// The value of `warned_percent` when the quota is full, or something did not fit and no byte is free. No further
/// warnings are sent until space is freed.
const FULL: i64 = 100;

/// The settings of quotas.
#[derive(Debug, Clone, Copy)]
pub struct QuotaSettings {
    pub default_bytes: i64,
    pub videos_max: i64,
    pub reservations_max: i64,
    pub reservation_ttl_ms: i64,
}

impl QuotaSettings {
    pub fn from_config(config: &Config) -> Self {
        let number = |setting: u64| i64::try_from(setting).unwrap_or(i64::MAX);
        Self {
            default_bytes: number(config.quota_default_bytes),
            videos_max: number(config.videos_max),
            reservations_max: number(config.reservations_max),
            reservation_ttl_ms: crate::kernel::app::seconds_to_ms(config.reservation_ttl_s),
        }
    }
}

/// A member's quota account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaAccount {
    pub organization: Option<OrganizationId>,
    /// The size set for this member; `None` uses the default of the organization or the site.
    pub own_size: Option<i64>,
    /// The effective size in bytes.
    pub size: i64,
    pub used: i64,
    pub reserved: i64,
    pub warned_percent: i64,
    /// The organization's ceiling, if any; set only for an account that was just adjusted.
    pub above: Option<CeilingUsage>,
}

/// An organization's ceiling and its usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CeilingUsage {
    pub size: i64,
    pub used: i64,
    pub warned_percent: i64,
}

impl QuotaAccount {
    /// The account of a member that has stored nothing yet.
    pub fn empty(organization: Option<OrganizationId>, size: i64) -> Self {
        Self { organization, own_size: None, size, used: 0, reserved: 0, warned_percent: 0, above: None }
    }

    pub fn free(&self) -> i64 {
        free(self.size, self.used, self.reserved)
    }

    /// Whether the member or its organization uses its full size, not counting reservations. False for a member that
    /// stores nothing, which needs no notification.
    fn is_filled(&self) -> bool {
        let is_above_full = self.above.is_some_and(|above| above.used >= above.size);
        self.used > 0 && (self.used >= self.size || is_above_full)
    }

    pub fn percent(&self) -> i64 {
        percent(self.size, self.used)
    }

    /// Returns the highest warning threshold that the usage has reached, if any.
    pub fn warning(&self) -> Option<i64> {
        warning_at(self.percent())
    }
}

fn warning_at(percent: i64) -> Option<i64> {
    WARNINGS.into_iter().rev().find(|warning| percent >= *warning)
}

pub fn free(size: i64, used: i64, reserved: i64) -> i64 {
    size.saturating_sub(used).saturating_sub(reserved).max(0)
}

/// Returns the usage in whole percent, rounded down. With a size of 0, any usage is 100.
pub fn percent(size: i64, used: i64) -> i64 {
    let percent = match size {
        0 => i128::from(used > 0) * 100,
        size => i128::from(used) * 100 / i128::from(size),
    };
    i64::try_from(percent).unwrap_or(i64::MAX)
}

/// Whether a size must fit the quota, or is counted regardless because the file exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaCheck {
    Enforced,
    Skipped,
}

/// A change of an account, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delta {
    pub used: i64,
    pub reserved: i64,
    /// The bytes that must be free; not checked unless above 0.
    pub need: i64,
}

impl Delta {
    pub fn take(size: i64, check: QuotaCheck) -> Self {
        Self { used: size, reserved: 0, need: if check == QuotaCheck::Enforced { size } else { 0 } }
    }

    pub fn free(size: i64) -> Self {
        Self { used: -size, reserved: 0, need: 0 }
    }
}

/// What changed the usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerCause {
    Register,
    /// The file was replaced by one of a different size.
    Replace,
    Delete,
    Transfer,
    /// A video without an owner got one.
    Claim,
    /// A recount.
    Repair,
}

impl LedgerCause {
    pub const ALL: [Self; 6] = [Self::Register, Self::Replace, Self::Delete, Self::Transfer, Self::Claim, Self::Repair];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Transfer => "transfer",
            Self::Claim => "claim",
            Self::Repair => "repair",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

/// Ledger rows of one cause in one bucket, with the bytes that they added and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerCount {
    pub bucket: i64,
    pub cause: LedgerCause,
    pub rows: u64,
    pub added: u64,
    pub removed: u64,
}

/// Counts the ledger rows of an organization, or of the site.
pub fn count_ledger(
    r: &Reader<'_>,
    organization: Option<OrganizationId>,
    buckets: &Buckets,
) -> Result<Vec<LedgerCount>> {
    count_store::count_ledger(r, organization, buckets)
}

/// Why an account changed, as recorded in the ledger.
#[derive(Debug, Clone, Copy)]
pub struct LedgerReason<'r> {
    pub cause: LedgerCause,
    pub video: &'r str,
    pub request_id: &'r str,
}

/// Adds one to the site's video count. Fails with `videos_full` at the limit.
pub fn count_video_in(w: &Writer<'_>, rules: &QuotaSettings) -> Result<()> {
    if usage_store::increment_videos(w, rules.videos_max)? { Ok(()) } else { Err(ErrorCode::VideosFull.into()) }
}

/// Subtracts one from the site's video count.
pub fn count_video_out(w: &Writer<'_>) -> Result<()> {
    usage_store::decrement_videos(w)
}

/// Creates the member's account if needed, and returns the organization it counts under.
pub fn ensure_account(t: &Transaction<'_>, member: MemberId) -> Result<Option<OrganizationId>> {
    let organization = organization_of(t.snapshot(), member);
    store::ensure_account(t, member, organization)?;
    Ok(organization)
}

/// Returns the organization whose ceiling a member counts against.
pub fn organization_of(snapshot: &Snapshot, member: MemberId) -> Option<OrganizationId> {
    snapshot.only_tenant(member).map(|tenant| tenant.id).filter(|id| !snapshot.is_platform(*id))
}

/// Changes a member's account and its organization's, or fails with nothing changed. Missing accounts are created
/// before a change is refused.
pub fn adjust(
    w: &Writer<'_>,
    rules: &QuotaSettings,
    (member, organization): (MemberId, Option<OrganizationId>),
    delta: Delta,
) -> Result<QuotaAccount> {
    let adjust_member = || store::adjust_member(w, member, delta, rules.default_bytes);
    if !adjust_member()? {
        store::ensure_account(w, member, organization)?;
        if !adjust_member()? {
            return Err(does_not_fit(ErrorCode::QuotaExceeded, delta.need));
        }
    }
    let above = match organization {
        Some(organization) => adjust_ceiling(w, organization, delta)?,
        None => None,
    };
    let account = store::find_account(w, member, w.now(), rules.default_bytes)?;
    let account = account.ok_or_else(|| Error::internal("an account disappeared while it was adjusted"))?;
    Ok(QuotaAccount { above, ..account })
}

/// Adjusts the organization's account; returns its ceiling after the change, if it has one.
fn adjust_ceiling(w: &Writer<'_>, organization: OrganizationId, delta: Delta) -> Result<Option<CeilingUsage>> {
    if let Some(above) = store::adjust_organization(w, organization, delta)? {
        return Ok(above);
    }
    store::ensure_organization_account(w, organization)?;
    let adjusted = store::adjust_organization(w, organization, delta)?;
    adjusted.ok_or_else(|| does_not_fit(ErrorCode::OrganizationQuotaExceeded, delta.need))
}

fn does_not_fit(cause: ErrorCode, need: i64) -> Error {
    Error::new(cause).with_source(format!("{need} bytes do not fit"))
}

/// Calls [`adjust`], writes the ledger row, and returns the events that follow from the new usage.
pub fn adjust_and_post(
    w: &Writer<'_>,
    rules: &QuotaSettings,
    (member, organization): (MemberId, Option<OrganizationId>),
    delta: Delta,
    reason: LedgerReason<'_>,
) -> Result<(QuotaAccount, Vec<Event>)> {
    let account = adjust(w, rules, (member, organization), delta)?;
    let events = post_ledger(w, (member, organization), &account, delta.used, reason)?;
    Ok((account, events))
}

/// Writes the ledger row for an adjusted account, and returns the events that follow from the new usage.
pub fn post_ledger(
    w: &Writer<'_>,
    (member, organization): (MemberId, Option<OrganizationId>),
    account: &QuotaAccount,
    delta: i64,
    reason: LedgerReason<'_>,
) -> Result<Vec<Event>> {
    store::insert_ledger(w, (member, organization), delta, account.used, reason)?;
    let mut events = usage_events(w, member, account)?;
    events.extend(note_ceiling(w, organization, account)?);
    Ok(events)
}

/// Returns a warning event when the usage of the organization's ceiling crosses a threshold.
fn note_ceiling(w: &Writer<'_>, organization: Option<OrganizationId>, account: &QuotaAccount) -> Result<Option<Event>> {
    let Some((organization, above)) = organization.zip(account.above) else { return Ok(None) };
    let percent = percent(above.size, above.used);
    let warning = warning_at(percent).unwrap_or(0);
    if warning == above.warned_percent {
        return Ok(None);
    }
    store::set_ceiling_warned(w, organization, warning)?;
    let data = json!({"size": above.size, "used": above.used, "percent": percent, "warning": warning});
    let event = || Event::new(EventKind::CeilingWarning, data).within(organization);
    Ok((warning > above.warned_percent).then(event))
}

/// Returns the events of a member's usage: a warning once per crossed threshold, one when the quota becomes full, and
/// one when a full quota has free space again.
pub fn usage_events(w: &Writer<'_>, member: MemberId, account: &QuotaAccount) -> Result<Vec<Event>> {
    let warning = account.warning().unwrap_or(0);
    let event = |kind| event(kind, member, account, json!({"warning": warning}));
    if account.warned_percent == FULL {
        if !has_free_space(w, account)? {
            return Ok(Vec::new());
        }
        store::set_warned(w, member, warning)?;
        return Ok(vec![event(EventKind::QuotaFreed)]);
    }
    let is_filled = account.is_filled();
    let noted = if is_filled { FULL } else { warning };
    if noted == account.warned_percent {
        return Ok(Vec::new());
    }
    store::set_warned(w, member, noted)?;
    let warned = (warning > account.warned_percent).then(|| event(EventKind::QuotaWarning));
    Ok(warned.into_iter().chain(is_filled.then(|| event(EventKind::QuotaFull))).collect())
}

/// Whether at least one byte is free, both in the account and under the organization's ceiling.
pub fn has_free_space(r: &Reader<'_>, account: &QuotaAccount) -> Result<bool> {
    let above = match account.organization {
        Some(organization) => store::find_ceiling(r, organization, Timestamp::now())?,
        None => None,
    };
    let has_room_above = above.is_none_or(|above| above.free().is_none_or(|free| free > 0));
    Ok(has_room_above && account.free() > 0)
}

/// Records that something did not fit. If no byte is free, the quota counts as full until space is freed; a file that
/// is only too large for the remaining space does not make it full. Returns no event if a refusal was reported within
/// the last minute and the quota did not become full just now.
pub fn note_refusal(t: &Transaction<'_>, rules: &QuotaSettings, member: MemberId, need: i64) -> Result<Option<Event>> {
    const COALESCED_MS: i64 = 60_000;
    ensure_account(t, member)?;
    let Some(account) = store::find_account(t, member, t.now(), rules.default_bytes)? else { return Ok(None) };
    let is_newly_full = account.warned_percent != FULL && !has_free_space(t, &account)?;
    if is_newly_full {
        store::set_warned(t, member, FULL)?;
    } else if store::was_refused_since(t, member, t.now().plus_ms(-COALESCED_MS))? {
        return Ok(None);
    }
    Ok(Some(event(EventKind::QuotaExceeded, member, &account, json!({"bytes": need}))))
}

/// Builds a quota event with the account's figures and additional data.
pub fn event(kind: EventKind, member: MemberId, account: &QuotaAccount, more: serde_json::Value) -> Event {
    let mut data = json!({
        "uid": member, "size": account.size, "used": account.used, "reserved": account.reserved,
        "free": account.free(), "percent": account.percent(),
    });
    if let (Some(data), serde_json::Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    Event::new(kind, data).within(account.organization).about(member)
}

/// Releases expired reservations, deletes old ones, and reports members whose full quota has free space again.
pub async fn maintain(app: &App) -> Result<()> {
    /// The maximum number of members per read and per change.
    const CONCURRENT_MAX: usize = 200;
    app.write_in_batches(store::expire).await?;
    app.write_in_batches(reservations::forget_old).await?;
    let rules = QuotaSettings::from_config(&app.config);
    let mut after = MemberId(uuid::Uuid::nil());
    loop {
        let snapshot = app.snapshot();
        let look = move |r: &Reader<'_>| {
            let full = store::list_full(r, after, CONCURRENT_MAX)?;
            let last = full.last().copied().filter(|_| full.len() == CONCURRENT_MAX);
            let mut freed = Vec::new();
            for member in full {
                if has_room(r, &rules, &snapshot, member)? {
                    freed.push(member);
                }
            }
            Ok((freed, last))
        };
        let (freed, last) = app.read(look).await?;
        if !freed.is_empty() {
            let report = move |t: &Transaction<'_>, _: &Identity| report_freed(t, &rules, &freed);
            app.change(&Identity::command_line(), "quota.free", report).await?;
        }
        match last {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

fn report_freed(t: &Transaction<'_>, rules: &QuotaSettings, members: &[MemberId]) -> Result<Changed<()>> {
    let mut changed = Changed::unchanged(());
    for member in members {
        let account = account(t, rules, t.snapshot(), *member)?;
        if has_free_space(t, &account)? {
            let entry = Entry::new("quota", *member).within(account.organization);
            changed = changed.with_entry(entry).with_events(usage_events(t, *member, &account)?);
        }
    }
    Ok(changed)
}

/// Returns a member's account as it counts now.
pub fn account(r: &Reader<'_>, rules: &QuotaSettings, snapshot: &Snapshot, member: MemberId) -> Result<QuotaAccount> {
    let now = Timestamp::now();
    let organization = organization_of(snapshot, member);
    let above = match organization {
        Some(organization) => store::find_ceiling(r, organization, now)?.and_then(|ceiling| ceiling.member_size),
        None => None,
    };
    let size = above.unwrap_or(rules.default_bytes);
    let found = store::find_account(r, member, now, size)?;
    let empty = QuotaAccount::empty(organization, size);
    // The stored row moves to the present organization with the next change; the effective size follows at once.
    Ok(found.map_or(empty, |account| QuotaAccount { organization, size: account.own_size.unwrap_or(size), ..account }))
}

/// Whether a member can store at least one more byte.
pub fn has_room(r: &Reader<'_>, rules: &QuotaSettings, snapshot: &Snapshot, member: MemberId) -> Result<bool> {
    has_free_space(r, &account(r, rules, snapshot, member)?)
}

/// Sets the size of a member's quota; `None` uses the default of the organization or the site. Returns whether it
/// changed. A size set by an organization applies only while the member counts under that organization.
pub fn set_quota(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    reach: Reach,
    (member, size): (MemberId, Option<i64>),
) -> Result<Changed<bool>> {
    let organization = ensure_account(t, member)?;
    let previous = store::find_member_size(t, member)?.and_then(|(size, _)| size);
    if previous == size {
        return Ok(Changed::unchanged(false));
    }
    store::set_member_size(t, member, (size, reach.organization()))?;
    let account = account(t, rules, t.snapshot(), member)?;
    let events = usage_events(t, member, &account)?;
    let entry = Entry::new("quota", member).within(organization);
    let entry = entry.before(json!({"size": previous})).after(json!({"size": size}));
    Ok(Changed::new(true, entry)
        .with_events([event(EventKind::QuotaChanged, member, &account, json!({}))])
        .with_events(events))
}

/// Whether the error is in the category for exceeded quotas.
pub fn is_over_quota(error: &Error) -> bool {
    const QUOTA: u32 = 506;
    error.code.category() == QUOTA
}

/// Records the event and the audit row of an exceeded quota, in a separate change because the failed one was rolled
/// back.
pub async fn record_refusal(app: &App, caller: &Identity, member: MemberId, need: i64, error: &Error) {
    if !is_over_quota(error) {
        return;
    }
    let (rules, word) = (QuotaSettings::from_config(&app.config), error.code.as_str());
    let note = move |t: &Transaction<'_>, _: &Identity| {
        let Some(event) = note_refusal(t, &rules, member, need)? else {
            return Ok(Changed::unchanged(()));
        };
        let entry = Entry::new("quota", member).within(event.organization);
        Ok(Changed::new((), entry.after(json!({"detail": word, "bytes": need}))).with_events([event]))
    };
    if let Err(e) = app.change(caller, "quota.exceed", note).await {
        tracing::error!(error = %e, "an exceeded quota could not be recorded");
    }
}

/// Reacts to occurrences of other features.
pub fn react(t: &Transaction<'_>, occurrence: &Occurrence<'_>) -> Result<Vec<Change>> {
    match occurrence {
        // The organization determines the default size from now on.
        Occurrence::MembershipsChanged(member) => store::membership_changed(t, *member).map(|()| Vec::new()),
        // The videos keep the member's id, so the accounts stay correct until the videos are claimed or deleted.
        Occurrence::MemberErased(member) => reservations::release_all(t, *member).map(|()| Vec::new()),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(size: i64, used: i64) -> QuotaAccount {
        QuotaAccount { used, ..QuotaAccount::empty(None, size) }
    }

    #[test]
    fn warnings_begin_at_80_and_at_95_percent() {
        let warning = |used| account(1_000, used).warning();
        assert_eq!([0, 799, 800, 949, 950, 1_000].map(warning), [None, None, Some(80), Some(80), Some(95), Some(95)]);
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(0, 1), 100);
        assert_eq!(percent(SIZE_MAX, SIZE_MAX), 100);
        assert_eq!(percent(1, i64::MAX), i64::MAX);
        assert_eq!(free(0, i64::MAX, i64::MAX), 0);
        assert_eq!(account(10, 3).free(), 7);
    }
}
