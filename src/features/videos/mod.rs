//! Videos: the files in the members' folders, their owners, and the quota that they use.
//!
//! **Invariant.** A video, its bytes in the account, its job, its event and its audit row come and go together, in one
//! transaction. The functions here are made to be called inside one, by anyone who hears of a file first: its member, a
//! service, a hook, an import.

pub mod api;
pub mod import;
pub mod measure;
pub mod path;
pub mod policy;
mod store;
mod walk;

use serde_json::{Value, json};

use crate::features::jobs;
use crate::features::quotas::{self, Account, Delta, QuotaCheck, QuotaSettings, Reason, reservations};
use crate::kernel::app::{Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, ReservationId, Timestamp};
use crate::kernel::outbox::{Event, EventKind};
use path::VideoPath;

/// A video as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// The first 16 hex digits of the SHA-256 of its path.
    pub id: String,
    pub path: VideoPath,
    /// `None` for a file whose owner is not known yet.
    pub member: Option<MemberId>,
    /// Under whose ceiling it counts: its owner's organization when it came to the owner.
    pub organization: Option<OrganizationId>,
    pub size: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Video {
    /// The quota account that it counts for.
    fn account(&self) -> Option<(MemberId, Option<OrganizationId>)> {
        self.member.map(|member| (member, self.organization))
    }
}

/// What a list of videos is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub member: Option<MemberId>,
    pub organization: Option<OrganizationId>,
    pub is_ownerless: bool,
    /// As `kernel::http::like` makes it; found in the path.
    pub keyword: Option<String>,
}

/// A file to register as a video.
#[derive(Debug, Clone)]
pub struct Registration {
    pub path: VideoPath,
    pub owner: MemberId,
    /// Measured, or said by somebody who is believed; or why that is not known, which only a new video minds.
    pub size: Result<i64>,
    pub fit: QuotaCheck,
    pub queues_job: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub id: String,
    pub already_exists: bool,
    /// 80 or 95, where the usage is past that.
    pub warning: Option<i64>,
}

impl Registered {
    /// It was there before: the usage is what it is.
    fn known(t: &Transaction<'_>, rules: &QuotaSettings, owner: MemberId, id: String) -> Result<Self> {
        let warning = quotas::account(t, rules, t.snapshot(), owner)?.warning();
        Ok(Self { id, already_exists: true, warning })
    }
}

/// The video of a path, if it is known.
pub fn find(r: &Reader<'_>, id: &str) -> Result<Option<Video>> {
    store::find_video(r, id)
}

/// The same, sure that it is of this path: an id is short enough that somebody who tries can make two paths share one.
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

/// Videos in a folder, at any depth, in the order of their paths.
pub fn list_below(r: &Reader<'_>, folder: &VideoPath, most: u64) -> Result<Vec<Video>> {
    store::list_below(r, folder.as_str(), most)
}

/// Registers a file: counts its bytes, stores the video, queues its job. The same file again costs nothing.
pub fn register(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    new: Registration,
) -> Result<Changed<Registered>> {
    match check_admission(t, rules, new)? {
        Admission::Known(known) => Ok(Changed::nothing(known)),
        Admission::New(admitted) => insert(t, caller, admitted),
    }
}

/// What a registration comes to.
pub enum Admission {
    Known(Registered),
    New(Admitted),
}

/// A video that has its bytes, and that nobody refuses any more.
pub struct Admitted {
    video: Video,
    /// Of its owner, with the bytes in it; none of a video without owner.
    account: Option<Account>,
    queues_job: bool,
}

/// The first half of [`register`]: every check that can fail.
pub fn check_admission(t: &Transaction<'_>, rules: &QuotaSettings, new: Registration) -> Result<Admission> {
    if let Some(known) = find_at(t, &new.path)? {
        return Registered::known(t, rules, new.owner, known.id).map(Admission::Known);
    }
    let delta = Delta::take(new.size?, new.fit);
    let owner = (new.owner, quotas::organization_of(t.snapshot(), new.owner));
    admit_new(t, rules, new.path, (owner, delta), new.queues_job).map(Admission::New)
}

/// The same for a path that is known to have no video, whose bytes are taken by this change of an account.
fn admit_new(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    path: VideoPath,
    (owner, delta): ((MemberId, Option<OrganizationId>), Delta),
    queues_job: bool,
) -> Result<Admitted> {
    count_in(t, rules)?;
    let account = quotas::adjust(t, rules, owner, delta)?;
    let video = Video { organization: owner.1, ..blank(t.now(), path, Some(owner.0), delta.used) };
    Ok(Admitted { video, account: Some(account), queues_job })
}

/// The second half: stores what was admitted. Only a failing disk can stop it.
pub fn insert(t: &Transaction<'_>, caller: &Identity, admitted: Admitted) -> Result<Changed<Registered>> {
    let Admitted { video, account, queues_job } = admitted;
    let number = store::insert_video(t, &video)?;
    if queues_job {
        jobs::queue(t, number, video.member, video.organization)?;
    }
    let events = match video.account().zip(account) {
        Some((owner, account)) => {
            quotas::post_ledger(t, owner, &account, video.size, reason("register", &video.id, caller))?
        }
        None => Vec::new(),
    };
    let warning = account.and_then(|account| account.warning());
    let registered = Registered { id: video.id.clone(), already_exists: false, warning };
    Ok(done(registered, EventKind::VideoRegistered, &video, json!({})).event(events))
}

/// Queues the work on a video that came to be without it.
pub fn queue_job(w: &Writer<'_>, video: &Video) -> Result<()> {
    let number = store::get_number(w, &video.id)?;
    jobs::queue(w, number, video.member, video.organization)
}

/// Registers a file that no member owns, and that so counts for nobody.
pub fn register_ownerless(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (path, size): (VideoPath, i64),
    queues_job: bool,
) -> Result<Changed<Registered>> {
    if let Some(known) = find_at(t, &path)? {
        return Ok(Changed::nothing(Registered { id: known.id, already_exists: true, warning: None }));
    }
    count_in(t, rules)?;
    insert(t, caller, Admitted { video: blank(t.now(), path, None, size), account: None, queues_job })
}

/// Makes a video of a reservation: the real size is taken, what was promised beyond it is free again. What is larger
/// needs more room; where there is none, nothing changes. A repeat for the same file answers the same.
pub fn commit_reservation(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (id, new): (ReservationId, Registration),
) -> Result<Changed<Registered>> {
    let reservation = reservations::get(t, new.owner, id)?;
    let video = new.path.id();
    match reservation.state_at(t.now()) {
        "open" => {}
        "committed" if reservation.video.as_ref() == Some(&video) => {
            return Registered::known(t, rules, new.owner, video).map(Changed::nothing);
        }
        _ => return Err(ErrorCode::ReservationOver.into()),
    }
    reservations::mark_committed(t, id, &video)?;
    let entry = |size: i64| reservations::entry(&reservation).after(json!({"state": "committed", "size": size}));
    if let Some(known) = find_at(t, &new.path)? {
        reservations::give_back(t, &reservation)?;
        return Ok(Changed::new(Registered::known(t, rules, new.owner, video)?, entry(known.size)));
    }
    let size = new.size?;
    let organization = quotas::organization_of(t.snapshot(), new.owner);
    let mut delta = Delta {
        used: size,
        reserved: -reservation.size,
        // Within the promise nothing is asked, even if the quota became smaller meanwhile.
        need: if new.fit == QuotaCheck::Enforced { size - reservation.size } else { 0 },
    };
    if organization != reservation.organization {
        // The promise was made under another ceiling, which gets it back; this one is asked for all of it.
        reservations::give_back(t, &reservation)?;
        delta = Delta::take(size, new.fit);
    }
    let owner = (new.owner, organization);
    let admitted = admit_new(t, rules, new.path, (owner, delta), new.queues_job)?;
    Ok(insert(t, caller, admitted)?.also(entry(size)))
}

fn blank(now: Timestamp, path: VideoPath, member: Option<MemberId>, size: i64) -> Video {
    Video { id: path.id(), path, member, organization: None, size, version: 1, created_at: now, updated_at: now }
}

/// Counts one more video, if the site may have it.
fn count_in(w: &Writer<'_>, rules: &QuotaSettings) -> Result<()> {
    if store::count_in(w, rules.videos_max)? { Ok(()) } else { Err(ErrorCode::VideosFull.into()) }
}

/// Deletes a video and its jobs, and frees its bytes. The file itself stays.
pub fn remove(t: &Transaction<'_>, rules: &QuotaSettings, caller: &Identity, video: &Video) -> Result<Changed<()>> {
    let events = free(t, rules, video, reason("delete", &video.id, caller))?;
    jobs::forget_video(t, &video.id)?;
    store::delete_video(t, &video.id)?;
    store::count_out(t)?;
    Ok(done((), EventKind::VideoDeleted, video, json!({})).event(events))
}

/// Gives a video's bytes back to its owner and the organization above.
fn free(t: &Transaction<'_>, rules: &QuotaSettings, video: &Video, reason: Reason<'_>) -> Result<Vec<Event>> {
    match video.account() {
        None => Ok(Vec::new()),
        Some(account) => quotas::count(t, rules, account, Delta::free(video.size), reason).map(|(_, events)| events),
    }
}

/// The file was replaced by one of another size. Answers the warning that fits the usage.
pub fn resize(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, size, fit): (&Video, i64, QuotaCheck),
) -> Result<Changed<Option<i64>>> {
    if video.size == size {
        return Ok(Changed::nothing(None));
    }
    let resized = Video { size, ..video.clone() };
    let (mut warning, mut events) = (None, Vec::new());
    if let Some(account) = video.account() {
        let more = size - video.size;
        let reason = reason("replace", &video.id, caller);
        let counted = quotas::count(t, rules, account, Delta::take(more, fit), reason)?;
        (warning, events) = (counted.0.warning(), counted.1);
    }
    store::update_video(t, &resized)?;
    Ok(done(warning, EventKind::VideoChanged, &resized, json!({"former_size": video.size})).event(events))
}

/// The file has another path, and so another id; its jobs follow it. What lay there before is gone, as in a file system.
/// In somebody else's folder it is theirs, whether or not it fits: the file lies there already.
pub fn rename(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, path, owner): (&Video, VideoPath, Option<MemberId>),
) -> Result<Changed<String>> {
    let id = path.id();
    if id == video.id {
        return Ok(Changed::nothing(id));
    }
    let mut changed = Changed::nothing(id.clone());
    if let Some(replaced) = find(t, &id)? {
        changed = changed.and(remove(t, rules, caller, &replaced)?);
    }
    let renamed = Video { id, path, ..video.clone() };
    store::rename_video(t, &video.id, &renamed)?;
    let former = json!({"former_uuid": video.id, "former_path": video.path.as_str()});
    changed = changed.and(done((), EventKind::VideoChanged, &renamed, former));
    match owner {
        Some(owner) if renamed.member != Some(owner) => {
            let given = reassign(t, rules, caller, (&renamed, owner, QuotaCheck::Skipped), "transfer")?;
            Ok(changed.and(given))
        }
        _ => Ok(changed),
    }
}

/// Gives a video to another member, who needs room for it. Answers the warning that fits that member's usage.
pub fn transfer(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, to, fit): (&Video, MemberId, QuotaCheck),
) -> Result<Changed<Option<i64>>> {
    reassign(t, rules, caller, (video, to, fit), "transfer")
}

/// The same for another cause, a word of the ledger. Both accounts in one transaction.
pub fn reassign(
    t: &Transaction<'_>,
    rules: &QuotaSettings,
    caller: &Identity,
    (video, to, fit): (&Video, MemberId, QuotaCheck),
    cause: &'static str,
) -> Result<Changed<Option<i64>>> {
    if video.member == Some(to) {
        return Ok(Changed::nothing(None));
    }
    let organization = quotas::organization_of(t.snapshot(), to);
    let mut events = free(t, rules, video, reason(cause, &video.id, caller))?;
    let taken =
        quotas::count(t, rules, (to, organization), Delta::take(video.size, fit), reason(cause, &video.id, caller))?;
    events.extend(taken.1);
    let given = Video { member: Some(to), organization, ..video.clone() };
    store::update_video(t, &given)?;
    jobs::transfer(t, &video.id, given.member, given.organization)?;
    let former = json!({"former_uid": video.member});
    let mut changed = done(taken.0.warning(), EventKind::VideoTransferred, &given, former);
    // The organization that loses it sees that in its own audit.
    if let Some(before) = video.organization.filter(|before| Some(*before) != organization) {
        changed = changed.also(Entry::new("video", &video.id).within(before).after(json!({"size": 0})));
    }
    Ok(changed.event(events))
}

fn reason<'r>(cause: &'static str, video: &'r str, caller: &'r Identity) -> Reason<'r> {
    Reason { cause, video, request_id: &caller.context.request_id }
}

/// What a change of a video answers, with its audit row and its event. The audit has no path: it names a person.
fn done<T>(answer: T, kind: EventKind, video: &Video, more: Value) -> Changed<T> {
    let entry = Entry::new("video", &video.id).after(json!({"size": video.size, "uid": video.member}));
    let mut data = json!({
        "uuid": video.id, "path": video.path.as_str(), "uid": video.member, "size": video.size,
    });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    let event = Event::new(kind, data).within(video.organization).about(video.member);
    Changed::new(answer, entry.within(video.organization)).event([event])
}
