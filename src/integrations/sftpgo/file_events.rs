//! Handles SFTPGo's file events: upload, rename, copy and delete. Events have no id, can be repeated, can arrive in any
//! order, and are lost after four attempts.
//!
//! **Invariant.** Each event is applied once. An event for a path is applied unless a later event of that path is
//! known; a late event is applied where the file has been moved since. Sizes are absolute, so a repeated event changes
//! nothing.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{self, Action, Disk, EventOutcome, FileEvent, rest_below};
use super::store;
use crate::features::members;
use crate::features::quotas::{self, LedgerCause, QuotaCheck, QuotaSettings};
use crate::features::videos::path::{VideoPath, is_ignored};
use crate::features::videos::{self, NewVideo, Registration, Source, Video, measure};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// How long events and path histories are kept. SFTPGo stops retrying within minutes.
const REMEMBERED_MS: i64 = 7 * 86_400_000;
/// The maximum number of files of a folder that one change moves; the rest follows in further changes.
const CONCURRENT_MAX: u64 = 500;

/// Handles a file event.
pub async fn handle(app: &Arc<App>, caller: &Identity, body: &Value) -> Result<EventOutcome> {
    let heading = match event::read_heading(body)? {
        Ok(heading) => heading,
        Err(outcome) => return Ok(outcome),
    };
    let name = heading.1.to_owned();
    let Some(owner) = app.read(move |r| members::find_by_identity(r, members::SFTPGO, &name)).await? else {
        tracing::info!(action = heading.0.name(), "a file event of SFTPGo names an unknown user");
        return Ok(EventOutcome::Ignored("no member has this name"));
    };
    let event = match event::read(app, body, heading)? {
        Ok(event) => event,
        Err(outcome) => return Ok(outcome),
    };
    if event.action == Action::PreUpload {
        require_upload(app, caller, &owner, event.path).await?;
        return Ok(EventOutcome::Done);
    }
    let measured = measured(app, &event).await;
    if event.action == Action::FailedUpload {
        if measured == Measured::Unknown {
            return Ok(EventOutcome::Ignored("the file cannot be measured"));
        }
        if event.is_over_quota {
            quotas::record_refusal(app, caller, owner.id, event.size.unwrap_or(0), &ErrorCode::QuotaExceeded.into())
                .await;
        }
    }
    let path_bytes_max = app.config.video_path_bytes_max;
    let ignored_names = app.config.ignored_names.clone();
    let event = PendingEvent {
        measured,
        file_event: event,
        owner: owner.id,
        rules: QuotaSettings::from_config(&app.config),
        path_bytes_max,
        ignored_names,
        allowed: None,
        plugin_request: Arc::default(),
    };
    let outcome = apply_all(app, caller, &event).await;
    if let Err(refused) = &outcome {
        quotas::record_refusal(app, caller, owner.id, event.size().unwrap_or(0), refused).await;
        if event.file_event.action == Action::Upload && (quotas::is_over_quota(refused) || refused.is_denial()) {
            recheck_later(app.clone(), caller.clone(), event);
        }
    }
    outcome
}

/// Applies an event in steps. Only the transaction knows whether the event creates a video, and at which path: if
/// plugins must be called for it, the transaction fails without changes, the plugins are called, and it is repeated.
async fn apply_all(app: &Arc<App>, caller: &Identity, event: &PendingEvent) -> Result<EventOutcome> {
    let (mut event, mut has_steps) = (event.clone(), false);
    loop {
        event.plugin_request = Arc::default();
        let step = event.clone();
        let apply = move |t: &Transaction<'_>, caller: &Identity| step.apply(t, caller);
        let answer = match (app.change(caller, event.file_event.action.name(), apply).await, event.plugin_request.get())
        {
            // A second plugin call would be needed only if the file moved meanwhile: then SFTPGo sends the event again.
            (Err(_), Some((path, size))) if event.allowed.is_none() => {
                call_plugins(app, caller, (event.owner, path.clone()), Some(*size)).await?;
                event.allowed = Some((path.clone(), *size));
                continue;
            }
            (committed, _) => committed?.answer,
        };
        match answer {
            Step::More => has_steps = true,
            Step::Finished(outcome) => return Ok(if has_steps { EventOutcome::Done } else { outcome }),
        }
    }
}

/// Calls the plugins of the owner's organizations for a new video. Fails if one denies.
async fn call_plugins(
    app: &Arc<App>,
    caller: &Identity,
    (owner, path): (MemberId, VideoPath),
    size: Option<i64>,
) -> Result<()> {
    videos::check_with_plugins(app, caller, &NewVideo { owner, path, size, source: Source::Sftpgo }).await
}

/// Whether an upload to this path is a new video of a member. A video from an aborted upload, and one without an owner,
/// also count as new.
fn is_new(found: Option<&Video>, former: Option<KnownSize>) -> bool {
    found.is_none_or(|video| video.member.is_none()) || former.is_some_and(|former| former.is_partial)
}

/// Checks later whether the file still exists: after a refusal SFTPGo can delete it without another event, and then the
/// video that it overwrote is gone too.
fn recheck_later(app: Arc<App>, caller: Identity, refused: PendingEvent) {
    /// The pauses before each check.
    const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];
    let event = FileEvent { action: Action::FailedUpload, event_id: None, ..refused.file_event };
    let gone = PendingEvent { file_event: event, measured: Measured::Nothing, ..refused };
    tokio::spawn(async move {
        let id = gone.file_event.path.id();
        if !app.read(move |r| videos::find(r, &id)).await.is_ok_and(|found| found.is_some()) {
            return;
        }
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            if measured(&app, &gone.file_event).await != Measured::Nothing {
                continue;
            }
            if let Err(e) = apply_all(&app, &caller, &gone).await {
                tracing::warn!(error = %e, "a video whose file is gone could not be removed");
            }
            return;
        }
    });
}

/// Fails unless this member can start an upload. The size is not known yet; overwriting a file can reuse its bytes.
async fn require_upload(app: &Arc<App>, caller: &Identity, owner: &members::Member, path: VideoPath) -> Result<()> {
    if !owner.is_active() {
        return Err(ErrorCode::MemberSuspended.into());
    }
    let (rules, snapshot, id, target) =
        (QuotaSettings::from_config(&app.config), app.snapshot(), owner.id, path.clone());
    let look = move |r: &Reader<'_>| {
        let found = videos::find(r, &target.id())?;
        let is_new = is_new(found.as_ref(), history_at(r, target.as_str())?.and_then(PathHistory::known));
        let is_replaced = found.is_some_and(|video| video.member.is_some() && video.size > 0);
        Ok((is_new, is_replaced || quotas::has_room(r, &rules, &snapshot, id)?))
    };
    let (is_new, has_room) = app.read(look).await?;
    if is_new {
        call_plugins(app, caller, (id, path), None).await?;
    }
    if has_room { Ok(()) } else { Err(ErrorCode::QuotaExceeded.into()) }
}

/// The measured state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    Unknown,
    /// There is no file.
    Nothing,
    Size(i64),
}

/// Measures the file if the event does not contain its size and the file is on the local disk.
async fn measured(app: &App, event: &FileEvent) -> Measured {
    if event.disk == Disk::Elsewhere {
        return Measured::Unknown;
    }
    let path = match (event.action, &event.target) {
        (Action::FailedUpload, _) => &event.path,
        _ if event.size.is_some() => return Measured::Unknown,
        (Action::Upload, _) => &event.path,
        (Action::Rename | Action::Copy, Some(target)) => target,
        _ => return Measured::Unknown,
    };
    match measure::measure(&app.config.media_root, path).await {
        Ok(size) => Measured::Size(size),
        Err(refused) if refused.code == ErrorCode::FileNotFound && event.disk == Disk::Home => Measured::Nothing,
        Err(_) => Measured::Unknown,
    }
}

/// The last event of a path.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PathHistory {
    at: i64,
    what: PathEvent,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PathEvent {
    /// A file was written at this path, or moved to it.
    Written(KnownSize),
    Moved(String),
    Gone,
}

/// The size of a file at a point in time. A renamed file keeps that time, because an upload between it and the rename
/// may not have been reported yet.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct KnownSize {
    size: i64,
    at: i64,
    /// Whether it is only the remainder of a failed upload. Its video has no job yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
}

/// The present path of a file, and the time since when it is there.
struct CurrentPath {
    path: VideoPath,
    at: i64,
}

enum Step {
    /// More files of the folder must be moved.
    More,
    Finished(EventOutcome),
}

/// An event with everything needed to apply it.
#[derive(Clone)]
struct PendingEvent {
    file_event: FileEvent,
    owner: MemberId,
    measured: Measured,
    rules: QuotaSettings,
    path_bytes_max: u64,
    ignored_names: Vec<String>,
    /// The new video that the plugins allowed, with its size.
    allowed: Option<(VideoPath, i64)>,
    /// The new video for which the plugins must be called; set by the transaction.
    plugin_request: Arc<OnceLock<(VideoPath, i64)>>,
}

type Done = Result<Changed<EventOutcome>>;

impl PendingEvent {
    fn measured_size(&self) -> Option<i64> {
        if let Measured::Size(size) = self.measured { Some(size) } else { None }
    }

    fn size(&self) -> Option<i64> {
        self.file_event.size.or(self.measured_size())
    }

    fn apply(&self, t: &Transaction<'_>, caller: &Identity) -> Result<Changed<Step>> {
        if let Some(event_id) = &self.file_event.event_id
            && store::has_event(t, event_id)?
        {
            return Ok(Changed::unchanged(Step::Finished(EventOutcome::Ignored("this event was handled before"))));
        }
        // Folders are moved in steps, and the event is marked as handled with the last step.
        if matches!(self.file_event.action, Action::Rename | Action::Delete | Action::RemoveFolder)
            && let Some(changed) = self.apply_to_folder(t, caller)?
        {
            return Ok(changed.map(|()| Step::More));
        }
        let changed = match self.file_event.action {
            Action::PreUpload => Ok(Changed::unchanged(EventOutcome::Done)),
            Action::Upload => self.upload(t, caller),
            Action::FailedUpload => self.fail(t, caller),
            Action::Rename => self.rename(t, caller),
            Action::Copy => self.copy(t, caller),
            Action::Delete | Action::RemoveFolder => self.delete(t, caller),
        }?;
        if let Some(event_id) = &self.file_event.event_id {
            store::insert_event(t, event_id, self.owner, t.now().plus_ms(REMEMBERED_MS))?;
        }
        Ok(changed.map(Step::Finished))
    }

    fn upload(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let Some(current) = self.follow(t, &self.file_event.path)? else { return superseded() };
        let came_with = history_at(t, current.path.as_str())?
            .filter(|history| history.at >= current.at)
            .and_then(PathHistory::known);
        if came_with.is_some_and(|known| known.at > self.file_event.at) {
            return superseded();
        }
        self.record_file(t, caller, &current, self.known(self.size().unwrap_or(0)))
    }

    /// Applies a failed upload: the remaining part of the file is counted.
    fn fail(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let path = &self.file_event.path;
        if later_history(t, path.as_str(), self.file_event.at)?.is_some() {
            return superseded();
        }
        let Some(size) = self.measured_size() else { return self.delete(t, caller) };
        if let Some(video) = videos::find(t, &path.id())? {
            // The path history keeps whether the video already has a job.
            let is_partial =
                history_at(t, path.as_str())?.and_then(PathHistory::known).is_some_and(|known| known.is_partial);
            self.record_history(t, path, PathEvent::Written(KnownSize { is_partial, ..self.known(size) }))?;
            return Ok(videos::resize(t, &self.rules, caller, (&video, size, QuotaCheck::Skipped))?
                .map(|_| EventOutcome::Done));
        }
        let current = CurrentPath { path: path.clone(), at: self.file_event.at };
        self.record_file(t, caller, &current, KnownSize { is_partial: true, ..self.known(size) })
    }

    /// Records that a file of this size exists. A file with an ignored name, such as an incomplete upload that will be
    /// renamed, is only kept in the path history and is not a video.
    fn record_file(&self, t: &Transaction<'_>, caller: &Identity, current: &CurrentPath, known: KnownSize) -> Done {
        let (path, size) = (&current.path, known.size);
        let former = history_at(t, path.as_str())?.and_then(PathHistory::known);
        let found = videos::find(t, &path.id())?;
        let is_ignored = is_ignored(&self.ignored_names, path.below_folder());
        if is_new(found.as_ref(), former) && !known.is_partial && !is_ignored {
            self.require_plugins_called(t, path, size)?;
        }
        record_history(t, current, self.owner, PathEvent::Written(known))?;
        match found {
            Some(video) => {
                if former.is_some_and(|former| former.is_partial) && !known.is_partial {
                    videos::queue_job(t, &video)?;
                }
                let resized = videos::resize(t, &self.rules, caller, (&video, size, QuotaCheck::Enforced))?
                    .map(|_| EventOutcome::Done);
                if video.member.is_some() {
                    return Ok(resized);
                }
                // The video had no owner and counted for no quota until now.
                let video = Video { size, ..video };
                let given = (&video, self.owner, QuotaCheck::Enforced);
                let claimed = videos::reassign(t, &self.rules, caller, given, LedgerCause::Claim)?;
                Ok(claimed.map(|_| EventOutcome::Done).merge(resized))
            }
            None if is_ignored => Ok(Changed::unchanged(EventOutcome::Ignored("files with this name are not videos"))),
            None => {
                // The remainder of a failed upload exists, whether or not it fits, and gets no job.
                let (fit, queues_job) =
                    if known.is_partial { (QuotaCheck::Skipped, false) } else { (QuotaCheck::Enforced, true) };
                let new = Registration { path: path.clone(), owner: self.owner, size: Ok(size), fit, queues_job };
                Ok(videos::register(t, &self.rules, caller, new)?.map(|_| EventOutcome::Done))
            }
        }
    }

    /// Fails and sets `plugin_request` if plugins must be called first.
    fn require_plugins_called(&self, t: &Transaction<'_>, path: &VideoPath, size: i64) -> Result<()> {
        let is_allowed = self
            .allowed
            .as_ref()
            .is_some_and(|(allowed_path, allowed_size)| allowed_path == path && *allowed_size == size);
        if is_allowed || !videos::has_plugins(t.snapshot(), self.owner) {
            return Ok(());
        }
        let _ = self.plugin_request.set((path.clone(), size));
        Err(Error::new(ErrorCode::Busy).with_source("plugins must be called for a new video first").retry_after(1))
    }

    fn rename(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let (source, Some(target)) = (&self.file_event.path, &self.file_event.target) else { return superseded() };
        // A file written at the source since then is a different file.
        let here = history_at(t, source.as_str())?;
        let is_another = here.as_ref().is_some_and(|history| history.at > self.file_event.at);
        let video = videos::find(t, &source.id())?.filter(|_| !is_another);
        let known = here.filter(|_| !is_another).and_then(PathHistory::known);
        if !is_another {
            self.record_history(t, source, PathEvent::Moved(target.as_str().to_owned()))?;
        }
        let Some(current) = self.follow(t, target)? else {
            // At its new path it was replaced or deleted since.
            let Some(video) = video else { return superseded() };
            return Ok(videos::remove(t, &self.rules, caller, &video)?.map(|()| EventOutcome::Done));
        };
        // The measured size applies only to the target path itself.
        let measured = self.measured_size().filter(|_| current.path == *target);
        let reported = self.file_event.size.or(measured).map(|size| self.known(size));
        let here_is_partial = known.is_some_and(|known| known.is_partial);
        match (video, reported.or(known)) {
            (Some(video), known) => {
                let is_partial = here_is_partial;
                let former = KnownSize { size: video.size, at: known.map_or(0, |known| known.at), is_partial };
                let known = KnownSize { is_partial, ..reported.unwrap_or(former) };
                self.move_video(t, caller, (&video, &current), known)
                    .map(|changed| changed.map(|()| EventOutcome::Done))
            }
            // A renamed file is treated as complete.
            (None, Some(known)) => self.record_file(t, caller, &current, KnownSize { is_partial: false, ..known }),
            (None, None) => Ok(Changed::unchanged(EventOutcome::Ignored("nothing is known of the file yet"))),
        }
    }

    /// Moves a video to the file's present path, whether or not it fits the quota.
    fn move_video(
        &self,
        t: &Transaction<'_>,
        caller: &Identity,
        (video, current): (&Video, &CurrentPath),
        known: KnownSize,
    ) -> Result<Changed<()>> {
        record_history(t, current, self.owner, PathEvent::Written(known))?;
        let renamed =
            videos::rename(t, &self.rules, caller, (video, current.path.clone(), Some(self.owner)))?.map(drop);
        let video = videos::get(t, &current.path.id())?;
        Ok(renamed.merge(videos::resize(t, &self.rules, caller, (&video, known.size, QuotaCheck::Skipped))?).map(drop))
    }

    fn copy(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let Some(target) = &self.file_event.target else { return superseded() };
        let Some(current) = self.follow(t, target)? else { return superseded() };
        // If the source path cannot be a video, the source is unknown.
        let source = if self.file_event.path == *target { None } else { videos::find(t, &self.file_event.path.id())? };
        let source = source.map(|video| video.size);
        match self.file_event.size.or(source).or(self.measured_size()) {
            Some(size) => self.record_file(t, caller, &current, self.known(size)),
            None => Ok(Changed::unchanged(EventOutcome::Ignored("nothing is known of the file"))),
        }
    }

    fn delete(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let path = &self.file_event.path;
        if history_at(t, path.as_str())?.is_some_and(|history| history.at > self.file_event.at) {
            return superseded();
        }
        self.record_history(t, path, PathEvent::Gone)?;
        match videos::find(t, &path.id())? {
            Some(video) => Ok(videos::remove(t, &self.rules, caller, &video)?.map(|()| EventOutcome::Done)),
            None => Ok(Changed::unchanged(EventOutcome::Ignored("there is no such video"))),
        }
    }

    /// If the path is a folder, applies the event to the next videos in it; returns `None` when none are left.
    fn apply_to_folder(&self, t: &Transaction<'_>, caller: &Identity) -> Result<Option<Changed<()>>> {
        let path = &self.file_event.path;
        let is_another = history_at(t, path.as_str())?.is_some_and(|history| history.at > self.file_event.at);
        let below = videos::list_below(t, path, CONCURRENT_MAX)?;
        // Videos that were added after the event belong to a new folder of this name.
        let mut changed = None;
        for video in below {
            if is_another || history_at(t, video.path.as_str())?.is_some_and(|history| history.at > self.file_event.at)
            {
                continue;
            }
            let one = self.apply_to_folder_entry(t, caller, &video)?;
            changed = Some(match changed {
                None => one,
                Some(all) => Changed::merge(all, one),
            });
        }
        Ok(changed)
    }

    fn apply_to_folder_entry(&self, t: &Transaction<'_>, caller: &Identity, video: &Video) -> Result<Changed<()>> {
        let rest = rest_below(video.path.as_str(), self.file_event.path.as_str()).unwrap_or_default();
        let Some(target) = &self.file_event.target else {
            self.record_history(t, &video.path, PathEvent::Gone)?;
            return videos::remove(t, &self.rules, caller, video);
        };
        let current = CurrentPath { path: self.parse(&format!("{}{rest}", target.as_str()))?, at: self.file_event.at };
        let known = history_at(t, video.path.as_str())?.and_then(PathHistory::known);
        let (at, is_partial) = known.map_or((0, false), |known| (known.at, known.is_partial));
        self.record_history(t, &video.path, PathEvent::Moved(current.path.as_str().to_owned()))?;
        self.move_video(t, caller, (video, &current), KnownSize { size: video.size, at, is_partial })
    }

    /// Parses a target path.
    fn parse(&self, text: &str) -> Result<VideoPath> {
        VideoPath::parse(text, Path::new(""), self.path_bytes_max)
    }

    /// Returns this size with the time of the event.
    fn known(&self, size: i64) -> KnownSize {
        KnownSize { size, at: self.file_event.at, is_partial: false }
    }

    fn record_history(&self, t: &Transaction<'_>, path: &VideoPath, what: PathEvent) -> Result<()> {
        record_history(t, &CurrentPath { path: path.clone(), at: self.file_event.at }, self.owner, what)
    }

    /// Follows later renames of the file that the event places at this path; returns `None` if it was deleted or
    /// replaced.
    fn follow(&self, t: &Transaction<'_>, path: &VideoPath) -> Result<Option<CurrentPath>> {
        /// The maximum number of renames that are followed.
        const RENAMES_MAX: usize = 8;
        let mut current = CurrentPath { path: path.clone(), at: self.file_event.at };
        for _ in 0..RENAMES_MAX {
            let Some((above, history)) = later_history(t, current.path.as_str(), current.at)? else {
                return Ok(Some(current));
            };
            match history.what {
                PathEvent::Moved(to) => {
                    let path = self.parse(&format!("{to}{}", &current.path.as_str()[above.len()..]))?;
                    current = CurrentPath { path, at: history.at };
                }
                PathEvent::Written(_) if above != current.path.as_str() => return Ok(Some(current)),
                PathEvent::Gone | PathEvent::Written(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl PathHistory {
    fn known(self) -> Option<KnownSize> {
        if let PathEvent::Written(known) = self.what { Some(known) } else { None }
    }
}

/// Stores the event of a path, unless a later one is known.
fn record_history(t: &Transaction<'_>, current: &CurrentPath, owner: MemberId, what: PathEvent) -> Result<()> {
    let path = current.path.as_str();
    if history_at(t, path)?.is_some_and(|history| history.at > current.at) {
        return Ok(());
    }
    let data = serde_json::to_string(&PathHistory { at: current.at, what });
    let data = data.map_err(|e| Error::internal(format!("a path history cannot be serialized: {e}")))?;
    store::set_path_history(t, &hash_of(path), owner, &data, t.now().plus_ms(REMEMBERED_MS))
}

fn superseded() -> Done {
    Ok(Changed::unchanged(EventOutcome::Ignored("a later event for this path was handled before")))
}

fn hash_of(path: &str) -> Hash {
    secret::hash(&format!("a path of SFTPGo {path}"))
}

fn history_at(r: &Reader<'_>, path: &str) -> Result<Option<PathHistory>> {
    let found = store::find_path_history(r, &hash_of(path), Timestamp::now())?;
    Ok(found.and_then(|data| serde_json::from_str(&data).ok()))
}

/// Returns a later event of a path, or else of a folder above it.
fn later_history(t: &Transaction<'_>, path: &str, at: i64) -> Result<Option<(String, PathHistory)>> {
    let ends = std::iter::once(path.len()).chain(path.rmatch_indices('/').map(|(end, _)| end));
    for end in ends {
        let above = &path[..end];
        // The first segment is the member's own folder, which has no events.
        if !above.contains('/') {
            break;
        }
        if let Some(history) = history_at(t, above)?.filter(|history| history.at > at) {
            return Ok(Some((above.to_owned(), history)));
        }
    }
    Ok(None)
}
