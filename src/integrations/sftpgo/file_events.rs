//! What SFTPGo tells of files: uploaded, renamed, copied, deleted. Events have no name of their own, come again, come in any
//! order, and are lost after four tries.
//!
//! **Invariant.** An event counts once. What an event says of a path counts unless something later is known of that path:
//! who comes late finds where the file has gone since. A size is the file's, not a difference, so that telling it twice
//! tells nothing new.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{self, Action, Disk, EventOutcome, FileEvent, rest_below};
use super::store;
use crate::features::members;
use crate::features::quotas::{self, QuotaCheck, QuotaSettings};
use crate::features::videos::path::{VideoPath, is_ignored};
use crate::features::videos::policy::{self, NewVideo, Source};
use crate::features::videos::{self, Registration, Video, measure};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// How long an event, and what happened at a path, are remembered. SFTPGo gives up within minutes.
const REMEMBERED_MS: i64 = 7 * 86_400_000;
/// Files of a folder that move in one change; the rest follow in the next.
const AT_ONCE_MAX: u64 = 500;

/// Handles a file event.
pub async fn handle(app: &Arc<App>, caller: &Identity, body: &Value) -> Result<EventOutcome> {
    let heading = match event::read_heading(body)? {
        Ok(heading) => heading,
        Err(heard) => return Ok(heard),
    };
    let name = heading.1.to_owned();
    let Some(owner) = app.read(move |r| members::find_known(r, members::SFTPGO, &name)).await? else {
        tracing::info!(action = heading.0.name(), "a file event of SFTPGo names an unknown user");
        return Ok(EventOutcome::Ignored("no member has this name"));
    };
    let event = match event::read(app, body, heading)? {
        Ok(event) => event,
        Err(heard) => return Ok(heard),
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
        to_ask: Arc::default(),
    };
    let heard = apply_all(app, caller, &event).await;
    if let Err(refused) = &heard {
        quotas::record_refusal(app, caller, owner.id, event.size().unwrap_or(0), refused).await;
        if event.file_event.action == Action::Upload && (quotas::is_over_quota(refused) || refused.is_denial()) {
            look_later(app.clone(), caller.clone(), event);
        }
    }
    heard
}

/// Does what an event asks for, piece by piece. Whether it makes a new video, and where, is known within the change only:
/// where plugins have a say in that, nothing is changed before they were asked.
async fn apply_all(app: &Arc<App>, caller: &Identity, event: &PendingEvent) -> Result<EventOutcome> {
    let (mut event, mut has_pieces) = (event.clone(), false);
    loop {
        event.to_ask = Arc::default();
        let piece = event.clone();
        let apply = move |t: &Transaction<'_>, caller: &Identity| piece.apply(t, caller);
        let answer = match (app.change(caller, event.file_event.action.name(), apply).await, event.to_ask.get()) {
            // Asked a second time only when the file has moved meanwhile: then SFTPGo tells again.
            (Err(_), Some((path, size))) if event.allowed.is_none() => {
                ask(app, caller, (event.owner, path.clone()), Some(*size)).await?;
                event.allowed = Some((path.clone(), *size));
                continue;
            }
            (committed, _) => committed?.answer,
        };
        match answer {
            Step::More => has_pieces = true,
            Step::Over(heard) => return Ok(if has_pieces { EventOutcome::Done } else { heard }),
        }
    }
}

/// What the plugins of the owner's organizations say to a new video.
async fn ask(app: &Arc<App>, caller: &Identity, (owner, path): (MemberId, VideoPath), size: Option<i64>) -> Result<()> {
    policy::ask(app, caller, &NewVideo { owner, path, size, source: Source::Sftpgo }).await
}

/// Is what is uploaded there a new video of a member's? So is what only an aborted upload left, and what was nobody's.
fn is_new(found: Option<&Video>, former: Option<KnownSize>) -> bool {
    found.is_none_or(|video| video.member.is_none()) || former.is_some_and(|former| former.is_partial)
}

/// SFTPGo may remove a file of which it heard that it is refused, and says no more of it: what it was written over is
/// gone too then.
fn look_later(app: Arc<App>, caller: Identity, refused: PendingEvent) {
    /// Between one look and the next.
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

/// May this member begin an upload? Its size is not known yet; an overwrite may take what it frees.
async fn require_upload(app: &Arc<App>, caller: &Identity, owner: &members::Member, path: VideoPath) -> Result<()> {
    if !owner.is_active() {
        return Err(ErrorCode::MemberSuspended.into());
    }
    let (rules, snapshot, id, place) =
        (QuotaSettings::from_config(&app.config), app.snapshot(), owner.id, path.clone());
    let look = move |r: &Reader<'_>| {
        let found = videos::find(r, &place.id())?;
        let is_new = is_new(found.as_ref(), history_at(r, place.as_str())?.and_then(PathHistory::known));
        let is_replaced = found.is_some_and(|video| video.member.is_some() && video.size > 0);
        Ok((is_new, is_replaced || quotas::has_room(r, &rules, &snapshot, id)?))
    };
    let (is_new, has_room) = app.read(look).await?;
    if is_new {
        ask(app, caller, (id, path), None).await?;
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

/// The file as it lies there, where the event does not say its size and it can be looked at.
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
        Err(refused) if refused.cause == ErrorCode::FileNotFound && event.disk == Disk::Home => Measured::Nothing,
        Err(_) => Measured::Unknown,
    }
}

/// What last happened at a path.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PathHistory {
    at: i64,
    what: PathEvent,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PathEvent {
    /// A file was written there, or came there.
    Written(KnownSize),
    Moved(String),
    Gone,
}

/// The size of a file, as it was at a moment. A file that is renamed takes that along: an upload from between that moment
/// and the renaming may not have been told yet.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct KnownSize {
    size: i64,
    at: i64,
    /// Is it only what an upload left that failed? Its video has no job yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
}

/// Where something is, and since when it is there.
struct CurrentPath {
    path: VideoPath,
    at: i64,
}

enum Step {
    /// There are more files to move.
    More,
    Over(EventOutcome),
}

/// An event with all that is needed to do what it asks for.
#[derive(Clone)]
struct PendingEvent {
    file_event: FileEvent,
    owner: MemberId,
    measured: Measured,
    rules: QuotaSettings,
    path_bytes_max: u64,
    ignored_names: Vec<String>,
    /// The new video that plugins allowed, and its size.
    allowed: Option<(VideoPath, i64)>,
    /// The one that they are to be asked about, once that is known.
    to_ask: Arc<OnceLock<(VideoPath, i64)>>,
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
        if let Some(mark) = &self.file_event.event_id
            && store::is_marked(t, mark)?
        {
            return Ok(Changed::nothing(Step::Over(EventOutcome::Ignored("this event was handled before"))));
        }
        // A folder goes piece by piece, and the event counts as told with its last piece.
        if matches!(self.file_event.action, Action::Rename | Action::Delete | Action::RemoveFolder)
            && let Some(changed) = self.folder(t, caller)?
        {
            return Ok(changed.map(|()| Step::More));
        }
        let changed = match self.file_event.action {
            Action::PreUpload => Ok(Changed::nothing(EventOutcome::Done)),
            Action::Upload => self.upload(t, caller),
            Action::FailedUpload => self.fail(t, caller),
            Action::Rename => self.rename(t, caller),
            Action::Copy => self.copy(t, caller),
            Action::Delete | Action::RemoveFolder => self.delete(t, caller),
        }?;
        if let Some(mark) = &self.file_event.event_id {
            store::mark(t, mark, self.owner, t.now().plus_ms(REMEMBERED_MS))?;
        }
        Ok(changed.map(Step::Over))
    }

    fn upload(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let Some(place) = self.follow(t, &self.file_event.path)? else { return overtaken() };
        let came_with =
            history_at(t, place.path.as_str())?.filter(|note| note.at >= place.at).and_then(PathHistory::known);
        if came_with.is_some_and(|known| known.at > self.file_event.at) {
            return overtaken();
        }
        self.put(t, caller, &place, self.known(self.size().unwrap_or(0)))
    }

    /// An upload that failed: what is left of what lay there counts.
    fn fail(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let path = &self.file_event.path;
        if later_history(t, path.as_str(), self.file_event.at)?.is_some() {
            return overtaken();
        }
        let Some(size) = self.measured_size() else { return self.delete(t, caller) };
        if let Some(video) = videos::find(t, &path.id())? {
            // Whether its video has a job is known where it came to be.
            let is_partial =
                history_at(t, path.as_str())?.and_then(PathHistory::known).is_some_and(|known| known.is_partial);
            self.note(t, path, PathEvent::Written(KnownSize { is_partial, ..self.known(size) }))?;
            return Ok(videos::resize(t, &self.rules, caller, (&video, size, QuotaCheck::Skipped))?
                .map(|_| EventOutcome::Done));
        }
        let place = CurrentPath { path: path.clone(), at: self.file_event.at };
        self.put(t, caller, &place, KnownSize { is_partial: true, ..self.known(size) })
    }

    /// There is a file of this size now. One that is not uploaded wholly yet is only noted: it is no video, and its name
    /// will be another.
    fn put(&self, t: &Transaction<'_>, caller: &Identity, place: &CurrentPath, known: KnownSize) -> Done {
        let (path, size) = (&place.path, known.size);
        let former = history_at(t, path.as_str())?.and_then(PathHistory::known);
        let found = videos::find(t, &path.id())?;
        let is_ignored = is_ignored(&self.ignored_names, path.below_folder());
        if is_new(found.as_ref(), former) && !known.is_partial && !is_ignored {
            self.require_asked(t, path, size)?;
        }
        note(t, place, self.owner, PathEvent::Written(known))?;
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
                Ok(videos::reassign(t, &self.rules, caller, given, "claim")?.map(|_| EventOutcome::Done).and(resized))
            }
            None if is_ignored => Ok(Changed::nothing(EventOutcome::Ignored("a file of this name is no video"))),
            None => {
                // What is left of an upload lies there, whether or not it fits, and is nothing to work on.
                let (fit, queues_job) =
                    if known.is_partial { (QuotaCheck::Skipped, false) } else { (QuotaCheck::Enforced, true) };
                let new = Registration { path: path.clone(), owner: self.owner, size: Ok(size), fit, queues_job };
                Ok(videos::register(t, &self.rules, caller, new)?.map(|_| EventOutcome::Done))
            }
        }
    }

    /// Fails, and notes what plugins are to be asked, unless they were asked or there is none.
    fn require_asked(&self, t: &Transaction<'_>, path: &VideoPath, size: i64) -> Result<()> {
        let is_allowed = self.allowed.as_ref().is_some_and(|(asked, of)| asked == path && *of == size);
        if is_allowed || !policy::is_asked(t.snapshot(), self.owner) {
            return Ok(());
        }
        let _ = self.to_ask.set((path.clone(), size));
        Err(Error::new(ErrorCode::Busy).with_source("plugins are to be asked about a new video first").retry_after(1))
    }

    fn rename(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let (source, Some(target)) = (&self.file_event.path, &self.file_event.target) else { return overtaken() };
        // What was written since is another file.
        let here = history_at(t, source.as_str())?;
        let is_another = here.as_ref().is_some_and(|note| note.at > self.file_event.at);
        let video = videos::find(t, &source.id())?.filter(|_| !is_another);
        let known = here.filter(|_| !is_another).and_then(PathHistory::known);
        if !is_another {
            self.note(t, source, PathEvent::Moved(target.as_str().to_owned()))?;
        }
        let Some(place) = self.follow(t, target)? else {
            // Where it went to it was replaced or deleted since.
            let Some(video) = video else { return overtaken() };
            return Ok(videos::remove(t, &self.rules, caller, &video)?.map(|()| EventOutcome::Done));
        };
        // A look was at the target itself.
        let looked = self.measured_size().filter(|_| place.path == *target);
        let said = self.file_event.size.or(looked).map(|size| self.known(size));
        let here_is_partial = known.is_some_and(|known| known.is_partial);
        match (video, said.or(known)) {
            (Some(video), known) => {
                let is_partial = here_is_partial;
                let former = KnownSize { size: video.size, at: known.map_or(0, |known| known.at), is_partial };
                let known = KnownSize { is_partial, ..said.unwrap_or(former) };
                self.bring(t, caller, (&video, &place), known).map(|changed| changed.map(|()| EventOutcome::Done))
            }
            // Who gives a file its name takes it for whole.
            (None, Some(known)) => self.put(t, caller, &place, KnownSize { is_partial: false, ..known }),
            (None, None) => Ok(Changed::nothing(EventOutcome::Ignored("nothing is known of the file yet"))),
        }
    }

    /// The file of a video is elsewhere now. It lies there, whether or not it fits.
    fn bring(
        &self,
        t: &Transaction<'_>,
        caller: &Identity,
        (video, place): (&Video, &CurrentPath),
        known: KnownSize,
    ) -> Result<Changed<()>> {
        note(t, place, self.owner, PathEvent::Written(known))?;
        let renamed = videos::rename(t, &self.rules, caller, (video, place.path.clone(), Some(self.owner)))?.map(drop);
        let video = videos::get(t, &place.path.id())?;
        Ok(renamed.and(videos::resize(t, &self.rules, caller, (&video, known.size, QuotaCheck::Skipped))?).map(drop))
    }

    fn copy(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let Some(target) = &self.file_event.target else { return overtaken() };
        let Some(place) = self.follow(t, target)? else { return overtaken() };
        // What comes from a name that is none here has no source that is known.
        let source = if self.file_event.path == *target { None } else { videos::find(t, &self.file_event.path.id())? };
        let source = source.map(|video| video.size);
        match self.file_event.size.or(source).or(self.measured_size()) {
            Some(size) => self.put(t, caller, &place, self.known(size)),
            None => Ok(Changed::nothing(EventOutcome::Ignored("nothing is known of the file"))),
        }
    }

    fn delete(&self, t: &Transaction<'_>, caller: &Identity) -> Done {
        let path = &self.file_event.path;
        if history_at(t, path.as_str())?.is_some_and(|note| note.at > self.file_event.at) {
            return overtaken();
        }
        self.note(t, path, PathEvent::Gone)?;
        match videos::find(t, &path.id())? {
            Some(video) => Ok(videos::remove(t, &self.rules, caller, &video)?.map(|()| EventOutcome::Done)),
            None => Ok(Changed::nothing(EventOutcome::Ignored("there is no such video"))),
        }
    }

    /// Where the path is a folder: some of its videos, as long as there are any.
    fn folder(&self, t: &Transaction<'_>, caller: &Identity) -> Result<Option<Changed<()>>> {
        let path = &self.file_event.path;
        let is_another = history_at(t, path.as_str())?.is_some_and(|note| note.at > self.file_event.at);
        let below = videos::list_below(t, path, AT_ONCE_MAX)?;
        // What came there since the folder went is another folder's.
        let mut changed = None;
        for video in below {
            if is_another || history_at(t, video.path.as_str())?.is_some_and(|note| note.at > self.file_event.at) {
                continue;
            }
            let one = self.member_of_folder(t, caller, &video)?;
            changed = Some(match changed {
                None => one,
                Some(all) => Changed::and(all, one),
            });
        }
        Ok(changed)
    }

    fn member_of_folder(&self, t: &Transaction<'_>, caller: &Identity, video: &Video) -> Result<Changed<()>> {
        let rest = rest_below(video.path.as_str(), self.file_event.path.as_str()).unwrap_or_default();
        let Some(target) = &self.file_event.target else {
            self.note(t, &video.path, PathEvent::Gone)?;
            return videos::remove(t, &self.rules, caller, video);
        };
        let place = CurrentPath { path: self.parse(&format!("{}{rest}", target.as_str()))?, at: self.file_event.at };
        let known = history_at(t, video.path.as_str())?.and_then(PathHistory::known);
        let (at, is_partial) = known.map_or((0, false), |known| (known.at, known.is_partial));
        self.note(t, &video.path, PathEvent::Moved(place.path.as_str().to_owned()))?;
        self.bring(t, caller, (video, &place), KnownSize { size: video.size, at, is_partial })
    }

    /// A path to which something moves.
    fn parse(&self, text: &str) -> Result<VideoPath> {
        VideoPath::parse(text, Path::new(""), self.path_bytes_max)
    }

    /// A size as the event tells it.
    fn known(&self, size: i64) -> KnownSize {
        KnownSize { size, at: self.file_event.at, is_partial: false }
    }

    fn note(&self, t: &Transaction<'_>, path: &VideoPath, what: PathEvent) -> Result<()> {
        note(t, &CurrentPath { path: path.clone(), at: self.file_event.at }, self.owner, what)
    }

    /// Where a file that the event puts at a path is now, after all renames since; `None` when it is gone, or was replaced.
    fn follow(&self, t: &Transaction<'_>, path: &VideoPath) -> Result<Option<CurrentPath>> {
        /// The maximum number of renames that are followed for a late upload event.
        const RENAMES_MAX: usize = 8;
        let mut place = CurrentPath { path: path.clone(), at: self.file_event.at };
        for _ in 0..RENAMES_MAX {
            let Some((above, note)) = later_history(t, place.path.as_str(), place.at)? else { return Ok(Some(place)) };
            match note.what {
                PathEvent::Moved(to) => {
                    let path = self.parse(&format!("{to}{}", &place.path.as_str()[above.len()..]))?;
                    place = CurrentPath { path, at: note.at };
                }
                PathEvent::Written(_) if above != place.path.as_str() => return Ok(Some(place)),
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

/// Remembers what happened at a path, unless something later did.
fn note(t: &Transaction<'_>, place: &CurrentPath, owner: MemberId, what: PathEvent) -> Result<()> {
    let path = place.path.as_str();
    if history_at(t, path)?.is_some_and(|note| note.at > place.at) {
        return Ok(());
    }
    let data = serde_json::to_string(&PathHistory { at: place.at, what });
    let data = data.map_err(|e| Error::internal(format!("a note: {e}")))?;
    store::note(t, &hash_of(path), owner, &data, t.now().plus_ms(REMEMBERED_MS))
}

fn overtaken() -> Done {
    Ok(Changed::nothing(EventOutcome::Ignored("a later event for this path was handled before")))
}

fn hash_of(path: &str) -> Hash {
    secret::hash(&format!("a path of SFTPGo {path}"))
}

fn history_at(r: &Reader<'_>, path: &str) -> Result<Option<PathHistory>> {
    let found = store::find_note(r, &hash_of(path), Timestamp::now())?;
    Ok(found.and_then(|data| serde_json::from_str(&data).ok()))
}

/// What happened later at a path, or else at a folder above it.
fn later_history(t: &Transaction<'_>, path: &str, at: i64) -> Result<Option<(String, PathHistory)>> {
    let ends = std::iter::once(path.len()).chain(path.rmatch_indices('/').map(|(end, _)| end));
    for end in ends {
        let above = &path[..end];
        // The first part is a member's own folder, to which nothing happens.
        if !above.contains('/') {
            break;
        }
        if let Some(note) = history_at(t, above)?.filter(|note| note.at > at) {
            return Ok(Some((above.to_owned(), note)));
        }
    }
    Ok(None)
}
