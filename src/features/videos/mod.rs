//! Videos: the files in members' folders, their owners, and the quota they use.
//!
//! **Invariant.** A video, its bytes in the quota account, its job, its event and its audit row are written in one
//! transaction. The functions here run inside such a transaction, whether a member, a service, a hook or an import
//! reports the file.

use std::sync::Arc;

use path::VideoPath;
use serde_json::{Value, json};

use crate::features::jobs;
use crate::features::quotas::reservations::{self, ReservationState};
use crate::features::quotas::{self, Delta, LedgerCause, LedgerReason, QuotaAccount, QuotaCheck, QuotaSettings};
use crate::kernel::app::evaluate::RequestFacts;
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::decide::{AccessRequest, Reason, Target};
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::{Snapshot, Tenant};
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, ReservationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
use crate::kernel::sandbox::Claim;

pub mod api;
pub mod import;
pub mod measure;
pub mod path;
mod store;
mod walk;

pub use store::list_videos;

/// A video as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// The first 16 hex digits of the SHA-256 of its path.
    pub id: String,
    pub path: VideoPath,
    /// `None` if the owner is not known yet.
    pub member: Option<MemberId>,
    /// The organization whose ceiling it counts against: the owner's organization when the owner got the video.
    pub organization: Option<OrganizationId>,
    pub size: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Video {
    /// Returns the quota account that it counts against.
    fn account(&self) -> Option<(MemberId, Option<OrganizationId>)> {
        self.member.map(|member| (member, self.organization))
    }
}

/// The filters of a list of videos.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub member: Option<MemberId>,
    pub organization: Option<OrganizationId>,
    pub is_ownerless: bool,
    /// A pattern from `kernel::http::like`, matched against the path.
    pub keyword: Option<String>,
    pub sort: SortKey,
}

/// What a list of videos is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortKey {
    /// The time of registration.
    #[default]
    Registered,
    Size,
}

/// A file to register as a video.
#[derive(Debug, Clone)]
pub struct Registration {
    pub path: VideoPath,
    pub owner: MemberId,
    /// In bytes, measured or reported by a trusted caller; or why it is not known, which matters only for a new video.
    pub size: Result<i64>,
    pub fit: QuotaCheck,
    pub queues_job: bool,
}

/// The result of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationResult {
    pub id: String,
    pub already_exists: bool,
    /// 80 or 95, if the usage has reached that threshold.
    pub warning: Option<i64>,
}

impl RegistrationResult {
    /// The result for a video that exists already; the usage is unchanged.
    fn known(t: &Transaction<'_>, rules: &QuotaSettings, owner: MemberId, id: String) -> Result<Self> {
        let warning = quotas::account(t, rules, t.snapshot(), owner)?.warning();
        Ok(Self { id, already_exists: true, warning })
    }
}

/// Returns the video with this id, if any.
pub fn find(r: &Reader<'_>, id: &str) -> Result<Option<Video>> {
    store::find_video(r, id)
}

/// Returns the video at this path, if any. Fails with `video_id_taken` if the id belongs to another path: ids are short
/// enough that two paths with the same id can be constructed.
pub fn find_at(r: &Reader<'_>, path: &VideoPath) -> Result<Option<Video>> {
    let found = find(r, &path.id())?;
    if found.as_ref().is_some_and(|found| found.path != *path) {
        return Err(ErrorCode::VideoIdTaken.into());
    }
    Ok(found)
}

pub fn get(r: &Reader<'_>, id: &str) -> Result<Video> {
    find(r, id)?.ok_or_else(|| ErrorCode::VideoNotFound.into())
}

/// Lists videos in a folder, at any depth, ordered by path.
pub fn list_below(r: &Reader<'_>, folder: &VideoPath, most: u64) -> Result<Vec<Video>> {
    store::list_below(r, folder.as_str(), most)
}

/// Registers a file: counts its bytes, stores the video and queues its job. A repeated registration changes nothing.
pub fn register(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    new: Registration,
) -> Result<Changed<RegistrationResult>> {
    match admit(t, rules, new)? {
        Admission::Known(known) => Ok(Changed::unchanged(known)),
        Admission::New(admitted) => insert(t, caller, admitted),
    }
}

/// The result of the checks of a registration.
pub enum Admission {
    Known(RegistrationResult),
    New(Admitted),
}

/// A video that passed all checks and whose bytes are counted.
pub struct Admitted {
    video: Video,
    /// The owner's account with these bytes counted; `None` for a video without an owner.
    account: Option<QuotaAccount>,
    queues_job: bool,
}

/// The first half of [`register`]: all checks that can fail.
pub fn admit(t: &Transaction<'_>, rules: &QuotaSettings, new: Registration) -> Result<Admission> {
    if let Some(known) = find_at(t, &new.path)? {
        return RegistrationResult::known(t, rules, new.owner, known.id).map(Admission::Known);
    }
    let delta = Delta::take(new.size?, new.fit);
    let owner = (new.owner, quotas::organization_of(t.snapshot(), new.owner));
    admit_new(t, rules, new.path, (owner, delta), new.queues_job).map(Admission::New)
}

/// Admits a video at a path that has none yet, and applies `delta` to its owner's account.
fn admit_new(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    path: VideoPath,
    (owner, delta): ((MemberId, Option<OrganizationId>), Delta),
    queues_job: bool,
) -> Result<Admitted> {
    quotas::count_video_in(t, rules)?;
    let account = quotas::adjust(t, rules, owner, delta)?;
    let video = Video { organization: owner.1, ..blank(t.now(), path, Some(owner.0), delta.used) };
    Ok(Admitted { video, account: Some(account), queues_job })
}

/// The second half of [`register`]: stores an admitted video. Fails only if the database cannot be written.
pub fn insert(t: &Transaction<'_>, caller: &Identity, admitted: Admitted) -> Result<Changed<RegistrationResult>> {
    let Admitted { video, account, queues_job } = admitted;
    let number = store::insert_video(t, &video)?;
    if queues_job {
        jobs::enqueue_video(t, number, video.member, video.organization)?;
    }
    let events = match video.account().zip(account) {
        Some((owner, account)) => {
            quotas::post_ledger(t, owner, &account, video.size, reason(LedgerCause::Register, &video.id, caller))?
        }
        None => Vec::new(),
    };
    let warning = account.and_then(|account| account.warning());
    let registered = RegistrationResult { id: video.id.clone(), already_exists: false, warning };
    Ok(done(registered, EventKind::VideoRegistered, &video, json!({})).with_events(events))
}

/// Queues the job of a video that was registered without one.
pub fn queue_job(w: &Writer<'_>, video: &Video) -> Result<()> {
    let number = store::get_number(w, &video.id)?;
    jobs::enqueue_video(w, number, video.member, video.organization)
}

/// Registers a file without an owner, which counts against no quota.
pub fn register_ownerless(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (path, size): (VideoPath, i64),
    queues_job: bool,
) -> Result<Changed<RegistrationResult>> {
    if let Some(known) = find_at(t, &path)? {
        return Ok(Changed::unchanged(RegistrationResult { id: known.id, already_exists: true, warning: None }));
    }
    quotas::count_video_in(t, rules)?;
    insert(t, caller, Admitted { video: blank(t.now(), path, None, size), account: None, queues_job })
}

/// Turns a reservation into a video: its actual size is counted, and unused reserved bytes are released. A larger file
/// must fit the quota, otherwise nothing changes. A repeated commit of the same file returns the same result.
pub fn commit_reservation(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (id, new): (ReservationId, Registration),
) -> Result<Changed<RegistrationResult>> {
    let reservation = reservations::get(t, new.owner, id)?;
    let video = new.path.id();
    match reservation.state_at(t.now()) {
        ReservationState::Open => {}
        ReservationState::Committed if reservation.video.as_ref() == Some(&video) => {
            return RegistrationResult::known(t, rules, new.owner, video).map(Changed::unchanged);
        }
        _ => return Err(ErrorCode::ReservationOver.into()),
    }
    reservations::mark_committed(t, id, &video)?;
    let state = ReservationState::Committed.as_str();
    let entry = |size: i64| reservations::entry(&reservation).after(json!({"state": state, "size": size}));
    if let Some(known) = find_at(t, &new.path)? {
        reservations::release_bytes(t, &reservation)?;
        return Ok(Changed::new(RegistrationResult::known(t, rules, new.owner, video)?, entry(known.size)));
    }
    let size = new.size?;
    let organization = quotas::organization_of(t.snapshot(), new.owner);
    let mut delta = Delta {
        used: size,
        reserved: -reservation.size,
        // A size within the reservation always fits, even if the quota was reduced since.
        need: if new.fit == QuotaCheck::Enforced { size - reservation.size } else { 0 },
    };
    if organization != reservation.organization {
        // The reservation counts against another organization's ceiling: it is released there, and the present one must
        // have room for the full size.
        reservations::release_bytes(t, &reservation)?;
        delta = Delta::take(size, new.fit);
    }
    let owner = (new.owner, organization);
    let admitted = admit_new(t, rules, new.path, (owner, delta), new.queues_job)?;
    Ok(insert(t, caller, admitted)?.with_entry(entry(size)))
}

fn blank(now: Timestamp, path: VideoPath, member: Option<MemberId>, size: i64) -> Video {
    Video { id: path.id(), path, member, organization: None, size, version: 1, created_at: now, updated_at: now }
}

/// Deletes a video and its jobs, and frees its bytes. The file itself is kept.
pub fn remove(t: &Transaction<'_>, rules: &QuotaSettings, caller: &Identity, video: &Video) -> Result<Changed<()>> {
    let events = free(t, rules, video, reason(LedgerCause::Delete, &video.id, caller))?;
    jobs::delete_of_video(t, &video.id)?;
    store::delete_video(t, &video.id)?;
    quotas::count_video_out(t)?;
    Ok(done((), EventKind::VideoDeleted, video, json!({})).with_events(events))
}

/// Subtracts a video's bytes from the accounts of its owner and the organization.
fn free(t: &Transaction<'_>, rules: &QuotaSettings, video: &Video, reason: LedgerReason<'_>) -> Result<Vec<Event>> {
    match video.account() {
        None => Ok(Vec::new()),
        Some(account) => {
            quotas::adjust_and_post(t, rules, account, Delta::free(video.size), reason).map(|(_, events)| events)
        }
    }
}

/// Records that the file was replaced by one of another size. Returns the warning threshold that the usage has reached,
/// if any.
pub fn resize(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, size, fit): (&Video, i64, QuotaCheck),
) -> Result<Changed<Option<i64>>> {
    if video.size == size {
        return Ok(Changed::unchanged(None));
    }
    let resized = Video { size, ..video.clone() };
    let (mut warning, mut events) = (None, Vec::new());
    if let Some(account) = video.account() {
        let more = size - video.size;
        let reason = reason(LedgerCause::Replace, &video.id, caller);
        let counted = quotas::adjust_and_post(t, rules, account, Delta::take(more, fit), reason)?;
        (warning, events) = (counted.0.warning(), counted.1);
    }
    store::update_video(t, &resized)?;
    Ok(done(warning, EventKind::VideoChanged, &resized, json!({"former_size": video.size})).with_events(events))
}

/// Records that the file was moved to another path, and so has another id; its jobs follow. A video at the new path is
/// deleted, as in a file system. In another member's folder it belongs to that member, even beyond the quota, because
/// the file exists already.
pub fn rename(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, path, owner): (&Video, VideoPath, Option<MemberId>),
) -> Result<Changed<String>> {
    let id = path.id();
    if id == video.id {
        return Ok(Changed::unchanged(id));
    }
    let mut changed = Changed::unchanged(id.clone());
    if let Some(replaced) = find(t, &id)? {
        changed = changed.merge(remove(t, rules, caller, &replaced)?);
    }
    let renamed = Video { id, path, ..video.clone() };
    store::rename_video(t, &video.id, &renamed)?;
    let former = json!({"former_uuid": video.id, "former_path": video.path.as_str()});
    changed = changed.merge(done((), EventKind::VideoChanged, &renamed, former));
    match owner {
        Some(owner) if renamed.member != Some(owner) => {
            let given = reassign(t, rules, caller, (&renamed, owner, QuotaCheck::Skipped), LedgerCause::Transfer)?;
            Ok(changed.merge(given))
        }
        _ => Ok(changed),
    }
}

/// Transfers a video to another member. Returns the warning threshold that member's usage has reached, if any.
pub fn transfer(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, to, fit): (&Video, MemberId, QuotaCheck),
) -> Result<Changed<Option<i64>>> {
    reassign(t, rules, caller, (video, to, fit), LedgerCause::Transfer)
}

/// Changes the owner of a video, with this cause in the ledger. Both accounts change in one transaction.
pub fn reassign(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, to, fit): (&Video, MemberId, QuotaCheck),
    cause: LedgerCause,
) -> Result<Changed<Option<i64>>> {
    if video.member == Some(to) {
        return Ok(Changed::unchanged(None));
    }
    let organization = quotas::organization_of(t.snapshot(), to);
    let mut events = free(t, rules, video, reason(cause, &video.id, caller))?;
    let taken = quotas::adjust_and_post(
        t,
        rules,
        (to, organization),
        Delta::take(video.size, fit),
        reason(cause, &video.id, caller),
    )?;
    events.extend(taken.1);
    let given = Video { member: Some(to), organization, ..video.clone() };
    store::update_video(t, &given)?;
    jobs::transfer(t, &video.id, given.member, given.organization)?;
    let former = json!({"former_uid": video.member});
    let mut changed = done(taken.0.warning(), EventKind::VideoTransferred, &given, former);
    // The losing organization also gets an entry in its own audit log.
    if let Some(before) = video.organization.filter(|before| Some(*before) != organization) {
        changed = changed.with_entry(Entry::new("video", &video.id).within(before).after(json!({"size": 0})));
    }
    Ok(changed.with_events(events))
}

fn reason<'r>(cause: LedgerCause, video: &'r str, caller: &'r Identity) -> LedgerReason<'r> {
    LedgerReason { cause, video, request_id: &caller.context.request_id }
}

/// Builds the answer, audit row and event of a change of a video. The audit row has no path, because a path names a
/// person.
fn done<T>(answer: T, kind: EventKind, video: &Video, more: Value) -> Changed<T> {
    let entry = Entry::new("video", &video.id).after(json!({"size": video.size, "uid": video.member}));
    let mut data = json!({
        "uuid": video.id, "path": video.path.as_str(), "uid": video.member, "size": video.size,
    });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    let event = Event::new(kind, data).within(video.organization).about(video.member);
    Changed::new(answer, entry.within(video.organization)).with_events([event])
}

// ── plugins ──

// Plugin checks for new videos (`video.register`), regardless of how the file arrives: by a member or a service
// through the API, or through SFTPGo.
//
// **Invariant.** Only `organizations` decides whose plugins are called. They run outside of any transaction, all with
// the same facts, and the first that denies or fails decides.

/// The operation name that plugins receive.
const REGISTER: &str = "video.register";

/// How a file arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Api,
    Sftpgo,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Sftpgo => "sftpgo",
        }
    }
}

/// A file that is to become a video of a member.
#[derive(Debug, Clone)]
pub struct NewVideo {
    pub owner: MemberId,
    pub path: VideoPath,
    /// In bytes; `None` if not known yet, as before an upload.
    pub size: Option<i64>,
    pub source: Source,
}

impl NewVideo {
    fn facts(&self) -> RequestFacts {
        let fact = |name: &str, value: String| Claim { name: name.to_owned(), values: vec![value] };
        let known =
            [fact("video_path", self.path.as_str().to_owned()), fact("video_source", self.source.as_str().to_owned())];
        RequestFacts(known.into_iter().chain(self.size.map(|size| fact("size_bytes", size.to_string()))).collect())
    }
}

/// Returns the organizations whose plugins are called for a new video: all active ones of its owner, so that a member
/// cannot choose the most permissive one. The platform organization is excluded, as it has no videos.
fn organizations(snapshot: &Snapshot, owner: MemberId) -> impl Iterator<Item = OrganizationId> {
    let own = |tenant: &&Tenant| tenant.is_active && !snapshot.is_platform(tenant.id);
    snapshot.tenants_of(owner).filter(own).map(|tenant| tenant.id)
}

/// Whether any plugin must be called for a new video of this member.
pub fn has_plugins(snapshot: &Snapshot, owner: MemberId) -> bool {
    organizations(snapshot, owner).any(|id| snapshot.has_authorizers(Some(id)))
}

/// Calls the plugins; fails if one denies or fails. Must not run within a transaction: guest code never blocks the
/// writer.
pub async fn check_with_plugins(app: &Arc<App>, caller: &Identity, new: &NewVideo) -> Result<()> {
    let (snapshot, facts, spent) = (app.snapshot(), new.facts(), Arc::default());
    for id in organizations(&snapshot, new.owner) {
        if !snapshot.has_authorizers(Some(id)) {
            continue;
        }
        let target = Target::Operation(REGISTER);
        let request = AccessRequest { tenant: Some(id), member: new.owner, with_platform: false, target };
        let evaluation = app.evaluate_with_plugins(&snapshot, &request, &facts, &spent).await;
        let message = match (evaluation.decision.reason, evaluation.message()) {
            (Reason::PluginDenied, Some(message)) => format!("a rule of your organization denies this: {message}"),
            (Reason::PluginDenied, None) => "a rule of your organization denies this".to_owned(),
            (Reason::PluginFailed, _) => "a rule of your organization failed, so this is denied".to_owned(),
            // Other denials, such as a suspended member, are reported when the video is stored.
            _ => continue,
        };
        let (source, reason) = (new.source.as_str(), evaluation.decision.reason.as_str());
        tracing::info!(organization = %id, member = %new.owner, source, reason, message, "a new video is denied");
        // The denial is recorded in the audit log of the organization that owns the plugin.
        let _ = caller.context.tenant.set(id);
        return Err(Error::new(ErrorCode::Forbidden).with_message(message));
    }
    Ok(())
}
