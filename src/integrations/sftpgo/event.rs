//! What SFTPGo tells of one file, as it is read.
//!
//! Whose it is comes first: of users who are nobody here nothing else is looked at, and so nothing of theirs is refused.
//! Of a member's file the name decides. One with control characters, a backslash or a `U+FFFD` (which stands for what
//! was no UTF-8, so that two files would look like one), or one that is too long, can be no video: it is refused before
//! an upload and after it alike. One that `videos.ignored_names` has is no video either, and no fault.

use serde_json::Value;

use super::account::DesiredStateInputs;
use crate::features::quotas::SIZE_MAX;
use crate::features::videos::path::{VideoPath, is_folder, is_ignored};
use crate::kernel::app::App;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, Hash};

/// What happened, as far as it concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    PreUpload,
    Upload,
    FailedUpload,
    Rename,
    Copy,
    Delete,
    RemoveFolder,
}

impl Action {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "pre-upload" => Self::PreUpload,
            "upload" => Self::Upload,
            "rename" => Self::Rename,
            "copy" => Self::Copy,
            "delete" => Self::Delete,
            "rmdir" => Self::RemoveFolder,
            _ => return None,
        })
    }

    /// As the audit calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PreUpload => "sftpgo.pre_upload",
            Self::Upload => "sftpgo.upload",
            Self::FailedUpload => "sftpgo.failed_upload",
            Self::Rename => "sftpgo.rename",
            Self::Copy => "sftpgo.copy",
            Self::Delete => "sftpgo.delete",
            Self::RemoveFolder => "sftpgo.rmdir",
        }
    }

    fn has_target(self) -> bool {
        matches!(self, Self::Rename | Self::Copy)
    }
}

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    Done,
    /// It changes nothing, for this reason.
    Ignored(&'static str),
}

/// How far the local disk can confirm a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Nothing: the file lies in another file system, as in a bucket.
    Elsewhere,
    /// Its size where it is found. That it is not there says nothing: it may lie in a virtual folder.
    Somewhere,
    /// All: the file lies in the member's home folder.
    Home,
}

/// A valid file event.
#[derive(Debug, Clone)]
pub struct FileEvent {
    pub action: Action,
    pub path: VideoPath,
    pub target: Option<VideoPath>,
    pub size: Option<i64>,
    pub disk: Disk,
    /// Was it cut short because SFTPGo saw no room?
    pub is_over_quota: bool,
    /// When it happened: nanoseconds since 1970, by SFTPGo's clock.
    pub at: i64,
    /// A digest that identifies the event; `None` if SFTPGo sent no session id or timestamp.
    pub event_id: Option<Hash>,
}

/// How far SFTPGo's clock may be ahead of ours, in nanoseconds. An event of a later time counts as of that time, so that
/// a clock that was once far ahead does not outrank all that comes.
const AHEAD_NS_MAX: i64 = 86_400 * 1_000_000_000;

/// `status` of what went well, and of what SFTPGo cut short by quota.
const SUCCEEDED: i64 = 1;
const OVER_QUOTA: i64 = 3;

/// What it is about: an action that may concern us, and SFTPGo's name of the user.
pub fn read_heading(body: &Value) -> Result<Result<(Action, &str), EventOutcome>> {
    let mut faults = Vec::new();
    let (word, username) = (needed(body, "action", &mut faults), needed(body, "username", &mut faults));
    match (word, username, Action::parse(word)) {
        _ if !faults.is_empty() => Err(Error::fields(faults)),
        (_, _, None) => Ok(Err(EventOutcome::Ignored("this action changes no file"))),
        (_, username, Some(action)) => Ok(Ok((action, username))),
    }
}

/// Reads an event of a member's; says all that is wrong with it at once.
pub fn read(app: &App, body: &Value, (action, username): (Action, &str)) -> Result<Result<FileEvent, EventOutcome>> {
    let mut faults = Vec::new();
    let path = needed(body, "virtual_path", &mut faults);
    let target = action.has_target().then(|| needed(body, "virtual_target_path", &mut faults));
    let mut number = |name: &'static str, most: i64| match &body[name] {
        Value::Null => None,
        value => value.as_i64().filter(|number| (0..=most).contains(number)).or_else(|| {
            faults.push(Field::body(name, format!("must be a whole number from 0 to {most}")));
            None
        }),
    };
    let (size, timestamp) = (number("file_size", SIZE_MAX), number("timestamp", i64::MAX));
    // Some SFTPGo versions send 0 for an unknown size.
    let size = size.filter(|size| *size > 0 || !action.has_target());
    let status = number("status", 1_000).unwrap_or(SUCCEEDED);
    if !faults.is_empty() {
        return Err(Error::fields(faults));
    }
    let told = match action {
        _ if status == SUCCEEDED => action,
        Action::PreUpload => action,
        // What lay there before may be gone or cut short; only a look tells.
        Action::Upload if !app.config.media_root.as_os_str().is_empty() => Action::FailedUpload,
        _ => return Ok(Err(EventOutcome::Ignored("it did not succeed"))),
    };
    let is_ignored = is_ignored(&app.config.ignored_names, target.unwrap_or(path));
    let is_known_source = path_of(app, username, path).is_ok();
    let (action, path, target) = match paths(app, username, (told, path, target)) {
        Ok(paths) => paths,
        Err(_) if is_ignored || !is_of_new_file(told) => return Ok(Err(EventOutcome::Ignored(NO_VIDEO))),
        Err(refused) => return Err(refused),
    };
    if action == Action::PreUpload && is_ignored {
        return Ok(Err(EventOutcome::Ignored(NO_VIDEO)));
    }
    if is_known_source && target.as_ref().is_some_and(|target| rest_below(target.as_str(), path.as_str()).is_some()) {
        return Ok(Err(EventOutcome::Ignored("the target is the source, or lies in it")));
    }
    let word = text(body, "action").unwrap_or_default();
    let mark = text(body, "session_id")
        .zip(timestamp)
        .map(|(session, at)| secret::hash(&format!("an event of SFTPGo {session} {word} {at} {}", path.as_str())));
    let now = Timestamp::now().0.saturating_mul(1_000_000);
    let at = timestamp.filter(|at| *at > 0).map_or(now, |at| at.min(now.saturating_add(AHEAD_NS_MAX)));
    let (disk, is_over_quota) = (disk_of(app, body, username), status == OVER_QUOTA);
    Ok(Ok(FileEvent { action, path, target, size, disk, is_over_quota, at, event_id: mark }))
}

const NO_VIDEO: &str = "a file of this name is no video";

/// Does it make a file there, so that a name that cannot be is to be refused?
fn is_of_new_file(action: Action) -> bool {
    matches!(action, Action::PreUpload | Action::Upload | Action::Rename | Action::Copy)
}

/// What happened, and where. A file that comes from a name that can be no video's is as new as a copy.
fn paths(
    app: &App,
    username: &str,
    (action, path, target): (Action, &str, Option<&str>),
) -> Result<(Action, VideoPath, Option<VideoPath>)> {
    let Some(target) = target else { return Ok((action, path_of(app, username, path)?, None)) };
    let target = path_of(app, username, target)?;
    match path_of(app, username, path) {
        Ok(path) => Ok((action, path, Some(target))),
        Err(_) if is_of_place(path) => Ok((Action::Copy, target.clone(), Some(target))),
        Err(refused) => Err(refused),
    }
}

/// Does a path that is none of a video stay in its folder all the same?
fn is_of_place(path: &str) -> bool {
    !path.split('/').any(|part| [".", ".."].contains(&part))
}

fn text<'b>(body: &'b Value, name: &str) -> Option<&'b str> {
    body[name].as_str().filter(|text| !text.is_empty())
}

fn needed<'b>(body: &'b Value, name: &str, faults: &mut Vec<Field>) -> &'b str {
    text(body, name).unwrap_or_else(|| {
        faults.push(Field::body(name, "is missing"));
        ""
    })
}

/// Where a file of a user's lies below the media root.
fn path_of(app: &App, username: &str, virtual_path: &str) -> Result<VideoPath> {
    let below = virtual_path.strip_prefix('/').unwrap_or(virtual_path);
    if !is_folder(username) {
        return Err(ErrorCode::VideoPath.into());
    }
    if below.contains(char::REPLACEMENT_CHARACTER) {
        let mut refused = Error::new(ErrorCode::VideoPath);
        refused.fields.push(Field::body("virtual_path", "must not have U+FFFD, as which names come that are no UTF-8"));
        return Err(refused);
    }
    VideoPath::parse(&format!("{username}/{below}"), &app.config.media_root, app.config.video_path_bytes_max)
}

/// What the disk here can tell. SFTPGo's local file system is number 0; it says where in it the file really is.
fn disk_of(app: &App, body: &Value, username: &str) -> Disk {
    if !matches!(body["fs_provider"].as_i64(), None | Some(0)) {
        return Disk::Elsewhere;
    }
    let home = DesiredStateInputs::from_app(app).home_of(username);
    let (real, below) = (text(body, "path"), text(body, "virtual_path").unwrap_or_default());
    let is_home = home.zip(real).is_some_and(|(home, real)| real.strip_prefix(&home) == Some(below));
    if is_home { Disk::Home } else { Disk::Somewhere }
}

/// What follows a folder in the path of what lies in it; nothing in that of the folder itself.
pub fn rest_below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}
