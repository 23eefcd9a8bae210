//! Parses SFTPGo's file events.
//!
//! The user is checked first: events of users that are not members are ignored, so nothing of theirs is rejected. For a
//! member's file the name decides. A name with control characters, a backslash or `U+FFFD` (which replaces invalid
//! UTF-8, so two files could look alike), or one that is too long, cannot be a video: it is rejected both before and
//! after an upload. A name that matches `videos.ignored_names` is not a video either, but is ignored without an error.

use serde_json::Value;

use super::account::DesiredStateInputs;
use crate::features::quotas::SIZE_MAX;
use crate::features::videos::path::{VideoPath, is_folder, is_ignored};
use crate::kernel::app::App;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, Hash};

/// The file actions that are handled.
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
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pre-upload" => Self::PreUpload,
            "upload" => Self::Upload,
            "rename" => Self::Rename,
            "copy" => Self::Copy,
            "delete" => Self::Delete,
            "rmdir" => Self::RemoveFolder,
            _ => return None,
        })
    }

    /// Returns the action's name in the audit log.
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
    /// Nothing was changed, for this reason.
    Ignored(&'static str),
}

/// What the local disk can show about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Nothing: the file is in another file system, such as a bucket.
    Elsewhere,
    /// The size if the file is found. Its absence proves nothing, because it can be in a virtual folder.
    Somewhere,
    /// Size and absence: the file is in the member's home folder.
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
    /// Whether SFTPGo aborted the upload because of its quota.
    pub is_over_quota: bool,
    /// When it happened, in nanoseconds since 1970 by SFTPGo's clock.
    pub at: i64,
    /// A digest that identifies the event; `None` if SFTPGo sent no session id or timestamp.
    pub event_id: Option<Hash>,
}

/// How far SFTPGo's clock may be ahead of the local clock, in nanoseconds. Later times are capped, so that events of a
/// clock that was once far ahead do not outrank all later ones.
const AHEAD_NS_MAX: i64 = 86_400 * 1_000_000_000;

/// SFTPGo's `status` values for success, and for an upload that it aborted because of its quota.
const SUCCEEDED: i64 = 1;
const OVER_QUOTA: i64 = 3;

/// Reads the action and the SFTPGo username. Fails if either is missing.
pub fn read_heading(body: &Value) -> Result<Result<(Action, &str), EventOutcome>> {
    let mut faults = Vec::new();
    let (action, username) = (required(body, "action", &mut faults), required(body, "username", &mut faults));
    match (action, username, Action::parse(action)) {
        _ if !faults.is_empty() => Err(Error::fields(faults)),
        (_, _, None) => Ok(Err(EventOutcome::Ignored("this action changes no file"))),
        (_, username, Some(action)) => Ok(Ok((action, username))),
    }
}

/// Reads the event of a member's file. All invalid fields are reported in one error.
pub fn read(app: &App, body: &Value, (action, username): (Action, &str)) -> Result<Result<FileEvent, EventOutcome>> {
    let mut faults = Vec::new();
    let path = required(body, "virtual_path", &mut faults);
    let target = action.has_target().then(|| required(body, "virtual_target_path", &mut faults));
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
    let effective_action = match action {
        _ if status == SUCCEEDED => action,
        Action::PreUpload => action,
        // The previous file may be deleted or truncated, which only measuring can show.
        Action::Upload if !app.config.media_root.as_os_str().is_empty() => Action::FailedUpload,
        _ => return Ok(Err(EventOutcome::Ignored("it did not succeed"))),
    };
    let is_ignored = is_ignored(&app.config.ignored_names, target.unwrap_or(path));
    let is_known_source = path_of(app, username, path).is_ok();
    let (action, path, target) = match paths(app, username, (effective_action, path, target)) {
        Ok(paths) => paths,
        Err(_) if is_ignored || !creates_file(effective_action) => return Ok(Err(EventOutcome::Ignored(NO_VIDEO))),
        Err(refused) => return Err(refused),
    };
    if action == Action::PreUpload && is_ignored {
        return Ok(Err(EventOutcome::Ignored(NO_VIDEO)));
    }
    if is_known_source && target.as_ref().is_some_and(|target| rest_below(target.as_str(), path.as_str()).is_some()) {
        return Ok(Err(EventOutcome::Ignored("the target is the source, or is in it")));
    }
    let action_name = text(body, "action").unwrap_or_default();
    let event_id = text(body, "session_id").zip(timestamp).map(|(session, at)| {
        secret::hash(&format!("an event of SFTPGo {session} {action_name} {at} {}", path.as_str()))
    });
    let now = Timestamp::now().0.saturating_mul(1_000_000);
    let at = timestamp.filter(|at| *at > 0).map_or(now, |at| at.min(now.saturating_add(AHEAD_NS_MAX)));
    let (disk, is_over_quota) = (disk_of(app, body, username), status == OVER_QUOTA);
    Ok(Ok(FileEvent { action, path, target, size, disk, is_over_quota, at, event_id }))
}

const NO_VIDEO: &str = "files with this name are not videos";

/// Whether the action creates a file, so that an invalid name must be rejected.
fn creates_file(action: Action) -> bool {
    matches!(action, Action::PreUpload | Action::Upload | Action::Rename | Action::Copy)
}

/// Returns the action and its paths. A rename from a path that cannot be a video is treated as a copy.
fn paths(
    app: &App,
    username: &str,
    (action, path, target): (Action, &str, Option<&str>),
) -> Result<(Action, VideoPath, Option<VideoPath>)> {
    let Some(target) = target else { return Ok((action, path_of(app, username, path)?, None)) };
    let target = path_of(app, username, target)?;
    match path_of(app, username, path) {
        Ok(path) => Ok((action, path, Some(target))),
        Err(_) if stays_in_folder(path) => Ok((Action::Copy, target.clone(), Some(target))),
        Err(refused) => Err(refused),
    }
}

/// Whether a path that is not a valid video path still stays in its folder.
fn stays_in_folder(path: &str) -> bool {
    !path.split('/').any(|part| [".", ".."].contains(&part))
}

fn text<'b>(body: &'b Value, name: &str) -> Option<&'b str> {
    body[name].as_str().filter(|text| !text.is_empty())
}

fn required<'b>(body: &'b Value, name: &str, faults: &mut Vec<Field>) -> &'b str {
    text(body, name).unwrap_or_else(|| {
        faults.push(Field::body(name, "is missing"));
        ""
    })
}

/// Returns the path of a user's file below the media root.
fn path_of(app: &App, username: &str, virtual_path: &str) -> Result<VideoPath> {
    let below = virtual_path.strip_prefix('/').unwrap_or(virtual_path);
    if !is_folder(username) {
        return Err(ErrorCode::VideoPath.into());
    }
    if below.contains(char::REPLACEMENT_CHARACTER) {
        let mut refused = Error::new(ErrorCode::VideoPath);
        refused
            .fields
            .push(Field::body("virtual_path", "must not have U+FFFD, which stands for bytes that are not UTF-8"));
        return Err(refused);
    }
    VideoPath::parse(&format!("{username}/{below}"), &app.config.media_root, app.config.video_path_bytes_max)
}

/// Returns what the local disk can show. Provider 0 is SFTPGo's local file system; for it the event has the real path.
fn disk_of(app: &App, body: &Value, username: &str) -> Disk {
    if !matches!(body["fs_provider"].as_i64(), None | Some(0)) {
        return Disk::Elsewhere;
    }
    let home = DesiredStateInputs::from_app(app).home_folder(username);
    let (real, below) = (text(body, "path"), text(body, "virtual_path").unwrap_or_default());
    let is_home = home.zip(real).is_some_and(|(home, real)| real.strip_prefix(&home) == Some(below));
    if is_home { Disk::Home } else { Disk::Somewhere }
}

/// Returns the part of `path` after `folder` (empty for the folder itself), or `None` if it is not in the folder.
pub fn rest_below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    path.strip_prefix(folder).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}
