//! Videos: the files in the members' folders, whose they are, and what they count.
//!
//! **Invariant.** A video, its bytes in the account, its job, its event and its audit row come and go together, in one
//! transaction. The functions here are made to be called inside one, by whoever hears of a file first: its member, a
//! service, a hook, an import.

pub mod api;
pub mod import;
pub mod measure;
pub mod path;
mod reservation_store;
pub mod reservations;
mod store;
mod walk;

use serde_json::{Value, json};

use crate::features::quotas::{Account, Delta, Fit, Reason, Rules};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::Identity;
use crate::kernel::authz::Reach;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{Cause, Error, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};
use crate::kernel::outbox::{Event, Kind};
use path::VideoPath;

/// A video as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// The first 16 hex digits of the SHA-256 of its path.
    pub id: String,
    pub path: VideoPath,
    /// None for one that lay there before anybody knew whose it is.
    pub member: Option<MemberId>,
    /// Under whose ceiling it counts: its owner's organization when it came to the owner.
    pub organization: Option<OrganizationId>,
    pub size: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Video {
    /// Who pays for it.
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

/// A file that shall be a video.
#[derive(Debug, Clone)]
pub struct Registration {
    pub path: VideoPath,
    pub owner: MemberId,
    /// Measured, or said by somebody who is believed; or why that is not known, which only a new video minds.
    pub size: Result<i64>,
    pub fit: Fit,
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
    fn known(t: &Transaction<'_>, rules: &Rules, owner: MemberId, id: String) -> Result<Self> {
        let warning = account(t, rules, t.snapshot(), owner)?.warning();
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
        return Err(Cause::VideoIdTaken.into());
    }
    Ok(found)
}

pub fn get(r: &Reader<'_>, id: &str) -> Result<Video> {
    find(r, id)?.ok_or_else(|| Cause::VideoNotFound.into())
}

/// Videos in a folder, at any depth, in the order of their paths.
pub fn list_below(r: &Reader<'_>, folder: &VideoPath, most: u64) -> Result<Vec<Video>> {
    store::list_below(r, folder.as_str(), most)
}

/// Registers a file: counts its bytes, stores the video, queues its job. The same file again costs nothing.
pub fn register(
    t: &Transaction<'_>,
    rules: &Rules,
    caller: &Identity,
    new: Registration,
) -> Result<Changed<Registered>> {
    match admit(t, rules, new)? {
        Admission::Known(known) => Ok(Changed::nothing(known)),
        Admission::New(admitted) => keep(t, caller, admitted),
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

/// The first half of [`register`]: all that it can be refused for.
pub fn admit(t: &Transaction<'_>, rules: &Rules, new: Registration) -> Result<Admission> {
    if let Some(known) = find_at(t, &new.path)? {
        return Registered::known(t, rules, new.owner, known.id).map(Admission::Known);
    }
    let delta = Delta::take(new.size?, new.fit);
    let owner = (new.owner, crate::features::quotas::organization_of(t.snapshot(), new.owner));
    admit_new(t, rules, new.path, (owner, delta), new.queues_job).map(Admission::New)
}

/// The same for a path that is known to have no video, whose bytes are taken by this change of an account.
fn admit_new(
    t: &Transaction<'_>,
    rules: &Rules,
    path: VideoPath,
    (owner, delta): ((MemberId, Option<OrganizationId>), Delta),
    queues_job: bool,
) -> Result<Admitted> {
    count_in(t, rules)?;
    let account = crate::features::quotas::adjust(t, rules, owner, delta)?;
    let video = Video { organization: owner.1, ..blank(t.now(), path, Some(owner.0), delta.used) };
    Ok(Admitted { video, account: Some(account), queues_job })
}

/// The second half: stores what was admitted. Only a failing disk can stop it.
pub fn keep(t: &Transaction<'_>, caller: &Identity, admitted: Admitted) -> Result<Changed<Registered>> {
    let Admitted { video, account, queues_job } = admitted;
    let number = store::insert_video(t, &video)?;
    if queues_job {
        crate::features::jobs::queue(t, number, video.member, video.organization)?;
    }
    let events = match video.account().zip(account) {
        Some((owner, account)) => {
            crate::features::quotas::enter(t, owner, &account, video.size, reason("register", &video.id, caller))?
        }
        None => Vec::new(),
    };
    let warning = account.and_then(|account| account.warning());
    let registered = Registered { id: video.id.clone(), already_exists: false, warning };
    Ok(done(registered, Kind::VideoRegistered, &video, json!({})).event(events))
}

/// Queues the work on a video that came to be without it.
pub fn queue_job(w: &Writer<'_>, video: &Video) -> Result<()> {
    let number = store::get_number(w, &video.id)?;
    crate::features::jobs::queue(w, number, video.member, video.organization)
}

/// Registers a file that no member owns, and that so counts for nobody.
pub fn register_ownerless(
    t: &Transaction<'_>,
    rules: &Rules,
    caller: &Identity,
    (path, size): (VideoPath, i64),
    queues_job: bool,
) -> Result<Changed<Registered>> {
    if let Some(known) = find_at(t, &path)? {
        return Ok(Changed::nothing(Registered { id: known.id, already_exists: true, warning: None }));
    }
    count_in(t, rules)?;
    keep(t, caller, Admitted { video: blank(t.now(), path, None, size), account: None, queues_job })
}

fn blank(now: Timestamp, path: VideoPath, member: Option<MemberId>, size: i64) -> Video {
    Video { id: path.id(), path, member, organization: None, size, version: 1, created_at: now, updated_at: now }
}

/// Counts one more video, if the site may have it.
fn count_in(w: &Writer<'_>, rules: &Rules) -> Result<()> {
    if store::count_in(w, rules.videos_max)? { Ok(()) } else { Err(Cause::VideosFull.into()) }
}

/// Takes a video away with its jobs, and frees its bytes. The file is its owner's affair.
pub fn remove(t: &Transaction<'_>, rules: &Rules, caller: &Identity, video: &Video) -> Result<Changed<()>> {
    let events = free(t, rules, video, reason("delete", &video.id, caller))?;
    crate::features::jobs::forget_video(t, &video.id)?;
    store::delete_video(t, &video.id)?;
    store::count_out(t)?;
    Ok(done((), Kind::VideoDeleted, video, json!({})).event(events))
}

/// Gives a video's bytes back to its owner and the organization above.
fn free(t: &Transaction<'_>, rules: &Rules, video: &Video, reason: Reason<'_>) -> Result<Vec<Event>> {
    match video.account() {
        None => Ok(Vec::new()),
        Some(account) => {
            crate::features::quotas::count(t, rules, account, Delta::free(video.size), reason).map(|(_, events)| events)
        }
    }
}

/// The file was replaced by one of another size. Answers the warning that fits the usage.
pub fn resize(
    t: &Transaction<'_>,
    rules: &Rules,
    caller: &Identity,
    (video, size, fit): (&Video, i64, Fit),
) -> Result<Changed<Option<i64>>> {
    if video.size == size {
        return Ok(Changed::nothing(None));
    }
    let resized = Video { size, ..video.clone() };
    let (mut warning, mut events) = (None, Vec::new());
    if let Some(account) = video.account() {
        let more = size - video.size;
        let reason = reason("replace", &video.id, caller);
        let counted = crate::features::quotas::count(t, rules, account, Delta::take(more, fit), reason)?;
        (warning, events) = (counted.0.warning(), counted.1);
    }
    store::update_video(t, &resized)?;
    Ok(done(warning, Kind::VideoChanged, &resized, json!({"former_size": video.size})).event(events))
}

/// The file has another path, and so another id; its jobs follow it. What lay there before is gone, as in a file system.
/// In somebody else's folder it is theirs, whether or not it fits: the file lies there already.
pub fn rename(
    t: &Transaction<'_>,
    rules: &Rules,
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
    changed = changed.and(done((), Kind::VideoChanged, &renamed, former));
    match owner {
        Some(owner) if renamed.member != Some(owner) => {
            let given = hand_over(t, rules, caller, (&renamed, owner, Fit::Anyway), "transfer")?;
            Ok(changed.and(given))
        }
        _ => Ok(changed),
    }
}

/// Gives a video to another member, who needs room for it. Answers the warning that fits that member's usage.
pub fn transfer(
    t: &Transaction<'_>,
    rules: &Rules,
    caller: &Identity,
    (video, to, fit): (&Video, MemberId, Fit),
) -> Result<Changed<Option<i64>>> {
    hand_over(t, rules, caller, (video, to, fit), "transfer")
}

/// The same for another cause, a word of the ledger. Both accounts in one transaction.
pub fn hand_over(
    t: &Transaction<'_>,
    rules: &Rules,
    caller: &Identity,
    (video, to, fit): (&Video, MemberId, Fit),
    cause: &'static str,
) -> Result<Changed<Option<i64>>> {
    if video.member == Some(to) {
        return Ok(Changed::nothing(None));
    }
    let organization = crate::features::quotas::organization_of(t.snapshot(), to);
    let mut events = free(t, rules, video, reason(cause, &video.id, caller))?;
    let taken = crate::features::quotas::count(
        t,
        rules,
        (to, organization),
        Delta::take(video.size, fit),
        reason(cause, &video.id, caller),
    )?;
    events.extend(taken.1);
    let given = Video { member: Some(to), organization, ..video.clone() };
    store::update_video(t, &given)?;
    crate::features::jobs::transfer(t, &video.id, given.member, given.organization)?;
    let former = json!({"former_uid": video.member});
    let mut changed = done(taken.0.warning(), Kind::VideoTransferred, &given, former);
    // The organization that loses it sees that in its own audit.
    if let Some(before) = video.organization.filter(|before| Some(*before) != organization) {
        changed = changed.also(Entry::new("video", &video.id).within(before).after(json!({"size": 0})));
    }
    Ok(changed.event(events))
}

/// A member joined or left an organization: what it may store is said there from now on.
pub fn seat_changed(w: &Writer<'_>, member: MemberId) -> Result<()> {
    crate::features::quotas::store::seat_changed(w, member)
}

/// A member is active again: workers may take its jobs.
pub fn member_activated(w: &Writer<'_>, member: MemberId) -> Result<()> {
    crate::features::jobs::queue::release_member(w, member)
}

/// An organization is active again: workers may take its jobs.
pub fn organization_activated(w: &Writer<'_>, organization: OrganizationId) -> Result<()> {
    crate::features::jobs::queue::release_organization(w, organization).map(drop)
}

/// A member is gone for good: nothing is held for it any more. Its videos keep its id, so that what they count stays
/// true until somebody takes or deletes them.
pub fn forget_member(t: &Transaction<'_>, member: MemberId) -> Result<()> {
    reservations::release_all(t, member)
}

/// Upkeep: gives back what expired reservations hold, forgets old ones, and tells whose full quota has room again.
pub async fn tend(app: &App) -> Result<()> {
    /// Looked at in one read, and changed at once at most.
    const AT_ONCE_MAX: usize = 200;
    app.tend_in_pieces(crate::features::quotas::store::expire).await?;
    app.tend_in_pieces(reservations::forget_old).await?;
    let rules = Rules::of(&app.config);
    let mut after = MemberId(uuid::Uuid::nil());
    loop {
        let snapshot = app.snapshot();
        let look = move |r: &Reader<'_>| {
            let full = crate::features::quotas::store::list_full(r, after, AT_ONCE_MAX)?;
            let last = full.last().copied().filter(|_| full.len() == AT_ONCE_MAX);
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
            let tell = move |t: &Transaction<'_>, _: &Identity| tell_freed(t, &rules, &freed);
            app.change(&Identity::command_line(), "quota.free", tell).await?;
        }
        match last {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

fn tell_freed(t: &Transaction<'_>, rules: &Rules, members: &[MemberId]) -> Result<Changed<()>> {
    let mut changed = Changed::nothing(());
    for member in members {
        let account = account(t, rules, t.snapshot(), *member)?;
        if crate::features::quotas::is_open(t, &account)? {
            let entry = Entry::new("quota", *member).within(account.organization);
            changed = changed.also(entry).event(crate::features::quotas::note_usage(t, *member, &account)?);
        }
    }
    Ok(changed)
}

/// What a member may store, and does.
pub fn account(
    r: &Reader<'_>,
    rules: &Rules,
    snapshot: &crate::kernel::authz::snapshot::Snapshot,
    member: MemberId,
) -> Result<crate::features::quotas::Account> {
    let now = Timestamp::now();
    let organization = crate::features::quotas::organization_of(snapshot, member);
    let above = match organization {
        Some(organization) => {
            crate::features::quotas::store::find_ceiling(r, organization, now)?.and_then(|ceiling| ceiling.member_size)
        }
        None => None,
    };
    let size = above.unwrap_or(rules.default_bytes);
    let found = crate::features::quotas::store::find_account(r, member, now, size)?;
    let empty = crate::features::quotas::Account::empty(organization, size);
    // It counts under its present organization from the next change on; what it may store follows at once.
    Ok(found.map_or(empty, |account| crate::features::quotas::Account {
        organization,
        size: account.own_size.unwrap_or(size),
        ..account
    }))
}

/// Has a member room for anything?
pub fn has_room(
    r: &Reader<'_>,
    rules: &Rules,
    snapshot: &crate::kernel::authz::snapshot::Snapshot,
    member: MemberId,
) -> Result<bool> {
    crate::features::quotas::is_open(r, &account(r, rules, snapshot, member)?)
}

/// Sets what a member may store; none takes the organization's or the site's. Answers whether that was a change.
/// What an organization says holds only under that one.
pub fn set_quota(
    t: &Transaction<'_>,
    rules: &Rules,
    reach: Reach,
    (member, size): (MemberId, Option<i64>),
) -> Result<Changed<bool>> {
    let organization = crate::features::quotas::settle(t, member)?;
    let former = crate::features::quotas::store::find_member_size(t, member)?.and_then(|(size, _)| size);
    if former == size {
        return Ok(Changed::nothing(false));
    }
    crate::features::quotas::store::set_member_size(t, member, (size, reach.organization()))?;
    let account = account(t, rules, t.snapshot(), member)?;
    let events = crate::features::quotas::note_usage(t, member, &account)?;
    let entry = Entry::new("quota", member).within(organization);
    let entry = entry.before(json!({"size": former})).after(json!({"size": size}));
    Ok(Changed::new(true, entry)
        .event([crate::features::quotas::event(Kind::QuotaChanged, member, &account, json!({}))])
        .event(events))
}

/// Did something not fit a quota?
pub fn is_lack_of_room(error: &Error) -> bool {
    const QUOTA: u32 = 506;
    error.cause.category() == QUOTA
}

/// Something did not fit: its event and its audit row, in a change of their own because nothing else was kept.
pub async fn note_refusal(app: &App, caller: &Identity, member: MemberId, need: i64, error: &Error) {
    if !is_lack_of_room(error) {
        return;
    }
    let (rules, word) = (Rules::of(&app.config), error.cause.word());
    let note = move |t: &Transaction<'_>, _: &Identity| {
        let Some(event) = crate::features::quotas::note_refusal(t, &rules, member, need)? else {
            return Ok(Changed::nothing(()));
        };
        let entry = Entry::new("quota", member).within(event.organization);
        Ok(Changed::new((), entry.after(json!({"detail": word, "bytes": need}))).event([event]))
    };
    if let Err(e) = app.change(caller, "quota.exceed", note).await {
        tracing::error!(error = %e, "a refusal could not be recorded");
    }
}

fn reason<'r>(cause: &'static str, video: &'r str, caller: &'r Identity) -> Reason<'r> {
    Reason { cause, video, request_id: &caller.exchange.request_id }
}

/// What a change of a video answers, with its audit row and its event. The audit has no path: it names a person.
fn done<T>(answer: T, kind: Kind, video: &Video, more: Value) -> Changed<T> {
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
