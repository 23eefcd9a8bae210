//! Operations on videos and quotas.

pub mod files;
pub mod import;
pub mod reservations;

use std::sync::{Arc, OnceLock};

use files::require_takes;
use poem_openapi::Object;

use super::policy::{self, NewVideo, Source};
use super::{Registered, Registration, Video, measure, path::VideoPath};
use crate::features::quotas::{self, QuotaCheck};
use crate::features::{members, videos};
use crate::kernel::app::{App, Transaction};
use crate::kernel::authz::principal::{Identity, Principal};
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::authz::{self, Reach, RowScope};
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};

pub const READ: &str = "videos:read";
pub const WRITE: &str = "videos:write";

crate::text! {
    /// `username/…` below the media root; `./` in front is allowed, and an absolute path below the media root
    FilePath 1..=8192 "";
    /// A folder below the media root, such as a member's
    FolderPrefix 1..=4096 "^[^/\\\\\\x00-\\x1f\\x7f][^\\\\\\x00-\\x1f\\x7f]*$";
}

/// A video
#[derive(Object)]
#[oai(rename = "Video")]
pub struct VideoView {
    /// The first 16 hex digits of the SHA-256 of its path
    uuid: String,
    /// `username/…`, relative to the media root
    path: String,
    /// Its owner; null for one that nobody claimed yet
    #[oai(nullable)]
    uid: Option<MemberId>,
    /// Under whose ceiling it counts
    #[oai(nullable)]
    organization_id: Option<OrganizationId>,
    /// Bytes
    size: i64,
    /// Unix milliseconds
    created_at: i64,
    /// Unix milliseconds
    updated_at: i64,
}

impl From<Video> for VideoView {
    fn from(video: Video) -> Self {
        Self {
            uuid: video.id,
            path: video.path.as_str().to_owned(),
            uid: video.member,
            organization_id: video.organization,
            size: video.size,
            created_at: video.created_at.0,
            updated_at: video.updated_at.0,
        }
    }
}

/// What registering a file came to
#[derive(Object)]
#[oai(rename = "Registered")]
pub struct RegisteredView {
    /// The first 16 hex digits of the SHA-256 of `username/path`
    uuid: String,
    /// Was it registered before? Then nothing was counted
    already_exists: bool,
}

impl From<Registered> for RegisteredView {
    fn from(registered: Registered) -> Self {
        Self { uuid: registered.id, already_exists: registered.already_exists }
    }
}

/// An answer with the warning of its header: a repeat of the request gets both.
#[derive(Object)]
struct Warned<T: poem_openapi::types::ParseFromJSON + poem_openapi::types::ToJSON> {
    #[oai(flatten)]
    answer: T,
    warning: Option<i64>,
}

/// For whom something is stored, and how far the caller is believed.
#[derive(Debug, Clone)]
struct StorageOwner {
    member: MemberId,
    /// The name of its folder.
    folder: String,
    /// Is what the caller says of sizes believed, where there is no file to measure?
    is_believed: bool,
}

impl StorageOwner {
    /// The member itself; or the one that `X-SFTPGo-User` names, by the key of a service that may. The header of a
    /// member decides nothing: a member acts for itself.
    fn find(r: &Reader<'_>, snapshot: &Snapshot, caller: &Identity, named: Option<&str>) -> Result<Self> {
        let is_service = match &caller.principal {
            Principal::Key(key) => key.member().is_none(),
            Principal::CommandLine => true,
            _ => false,
        };
        if is_service { Self::named(r, snapshot, caller, named) } else { Self::itself(r, caller, named) }
    }

    fn itself(r: &Reader<'_>, caller: &Identity, named: Option<&str>) -> Result<Self> {
        let member = authz::require_own(caller, WRITE)?;
        let folder = members::sftpgo_name(r, member)?.ok_or_else(|| {
            Error::new(ErrorCode::NotYourFolder)
                .with_message("you have no folder yet: ask an administrator of the site for one")
        })?;
        if named.is_some_and(|named| named != folder) {
            return Err(
                Error::new(ErrorCode::NotYourFolder).with_message("only a service's key acts for somebody else")
            );
        }
        Ok(Self { member, folder, is_believed: false })
    }

    fn named(r: &Reader<'_>, snapshot: &Snapshot, caller: &Identity, named: Option<&str>) -> Result<Self> {
        if let Principal::Key(key) = &caller.principal
            && !key.has_scope(WRITE)
        {
            return Err(Error::new(ErrorCode::ScopeNotAllowed).with_message("this key lacks the scope videos:write"));
        }
        let Some(named) = named else {
            return Err(Error::header_field("X-SFTPGo-User", "say for whom: a service has no folder of its own"));
        };
        let member = members::owner_of_folder(r, named)?.ok_or_else(|| no_owner(named))?;
        if caller.named_tenant.is_some() {
            let tenant = caller.tenant(snapshot)?;
            members::require_visible(snapshot, Reach::Tenant(tenant), member).map_err(|_| no_owner(named))?;
        }
        if !snapshot.is_active(member) {
            return Err(ErrorCode::MemberSuspended.into());
        }
        Ok(Self { member, folder: named.to_owned(), is_believed: true })
    }

    /// How large the file is: measured; only where there is none, and for a caller who is believed, as it says.
    fn size(&self, measured: Result<i64>, said: Option<i64>) -> Result<i64> {
        measured.or_else(|refused| {
            let is_missing = matches!(refused.cause, ErrorCode::FileNotFound | ErrorCode::MediaRootNotConfigured);
            said.filter(|_| is_missing && self.is_believed).ok_or(refused)
        })
    }
}

/// The failure where nobody who can be seen has this name.
fn no_owner(named: &str) -> Error {
    let message = format!(
        "no member has the SFTPGo name {named:?}: create one with it (POST /admin/users, sftpgo_username), or name another one"
    );
    Error::new(ErrorCode::OwnerNotFound).with_message(message)
}

/// Whose quota something is to fit, and how much; known within the change, and needed when it was refused.
#[derive(Clone, Default)]
struct QuotaNeed(Arc<OnceLock<(MemberId, i64)>>);

impl QuotaNeed {
    fn set(&self, member: MemberId, size: i64) {
        let _ = self.0.set((member, size));
    }

    /// Notes a refusal for lack of room.
    async fn noted<T>(self, app: &App, caller: &Identity, outcome: Result<T>) -> Result<T> {
        if let (Err(refused), Some((member, size))) = (&outcome, self.0.get()) {
            quotas::record_refusal(app, caller, *member, *size, refused).await;
        }
        outcome
    }
}

/// A file that is to be a video. Nothing is told of it before it is known to be the caller's.
struct MeasuredFile {
    path: VideoPath,
    size: Result<i64>,
    /// What the caller says of its size.
    said: Option<i64>,
}

impl MeasuredFile {
    async fn of(app: &App, path: &str, said: Option<i64>) -> Result<Self> {
        let path = VideoPath::parse(path, &app.config.media_root, app.config.video_path_bytes_max)?;
        let size = measure::measure(&app.config.media_root, &path).await;
        Ok(Self { path, size, said })
    }

    /// What the plugins of the owner's organizations say to its registration. They are asked before the change is queued,
    /// as no guest runs under the writer; the answer is given within the change, where all else is found too.
    async fn ruled(&self, app: &Arc<App>, caller: &Identity, named: Option<&str>) -> Result<()> {
        let (seen, path, who, named) = (app.snapshot(), self.path.clone(), caller.clone(), named.map(str::to_owned));
        let look = move |r: &Reader<'_>| {
            let owner = StorageOwner::find(r, &seen, &who, named.as_deref())?;
            let is_asked = path.folder() == owner.folder && videos::find_at(r, &path)?.is_none();
            Ok(is_asked.then_some(owner.member))
        };
        let Some(owner) = app.read(look).await? else { return Ok(()) };
        let size = self.size.as_ref().ok().copied().or(self.said);
        policy::ask(app, caller, &NewVideo { owner, path: self.path.clone(), size, source: Source::Api }).await
    }

    /// What is registered of it, for the caller or the owner that it names.
    fn registration(
        self,
        t: &Transaction<'_>,
        caller: &Identity,
        named: Option<&str>,
        wanted: &QuotaNeed,
    ) -> Result<Registration> {
        let owner = StorageOwner::find(t, t.snapshot(), caller, named)?;
        if self.path.folder() != owner.folder {
            return Err(ErrorCode::NotYourFolder.into());
        }
        require_takes(t, owner.member)?;
        let size = owner.size(self.size, self.said);
        wanted.set(owner.member, size.clone().unwrap_or_default());
        Ok(Registration { path: self.path, owner: owner.member, size, fit: QuotaCheck::Enforced, queues_job: true })
    }
}

impl RowScope {
    /// A video as the caller gets to see it.
    pub fn seen(self, r: &Reader<'_>, caller: &Identity, video: Video) -> Result<VideoView> {
        let path = members::seen_path(r, self.seen_by(caller, video.member), video.member, video.path.as_str())?;
        Ok(VideoView { path, ..video.into() })
    }

    /// What is out of reach looks as if it were not there. One's own is always in reach.
    pub fn require(self, caller: &Identity, video: Video) -> Result<Video> {
        let is_own = caller.member().is_some() && video.member == caller.member();
        let is_near = match self {
            Self::All(reach) => match reach.organization() {
                None => true,
                only => video.organization == only,
            },
            Self::Member(_) => false,
        };
        if is_own || is_near { Ok(video) } else { Err(ErrorCode::VideoNotFound.into()) }
    }
}
