//! Operations on videos and quotas.

pub mod files;
pub mod import;
pub mod reservations;

use std::sync::{Arc, OnceLock};

use files::require_active;
use poem_openapi::Object;

use super::{Registration, RegistrationResult, Video, measure, path::VideoPath};
use crate::features::quotas::{self, QuotaCheck};
use crate::features::videos::{NewVideo, Source};
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
    /// A folder below the media root, such as a member's folder
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
    /// The owner; null if nobody has claimed it yet
    #[oai(nullable)]
    uid: Option<MemberId>,
    /// The organization whose ceiling it counts against
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

/// The result of a registration
#[derive(Object)]
#[oai(rename = "Registered")]
pub struct RegisteredView {
    /// The first 16 hex digits of the SHA-256 of `username/path`
    uuid: String,
    /// Whether it was registered before; then nothing was counted
    already_exists: bool,
}

impl From<RegistrationResult> for RegisteredView {
    fn from(registered: RegistrationResult) -> Self {
        Self { uuid: registered.id, already_exists: registered.already_exists }
    }
}

/// A response with the value of its warning header, so that a repeated request gets both.
#[derive(Object)]
struct Warned<T: poem_openapi::types::ParseFromJSON + poem_openapi::types::ToJSON> {
    #[oai(flatten)]
    answer: T,
    warning: Option<i64>,
}

/// The member for whom something is stored, and whether the caller is trusted.
#[derive(Debug, Clone)]
struct StorageOwner {
    member: MemberId,
    /// The name of its folder.
    folder: String,
    /// Whether the caller's size is accepted if there is no file to measure.
    is_trusted: bool,
}

impl StorageOwner {
    /// Returns the calling member, or the one in `X-SFTPGo-User` for a service's API key. For a member the header
    /// selects nothing: members act only for themselves.
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
                .with_message("you have no folder yet: ask a site administrator to set your SFTPGo username")
        })?;
        if named.is_some_and(|named| named != folder) {
            return Err(Error::new(ErrorCode::NotYourFolder)
                .with_message("only a service's API key can act for another member"));
        }
        Ok(Self { member, folder, is_trusted: false })
    }

    fn named(r: &Reader<'_>, snapshot: &Snapshot, caller: &Identity, named: Option<&str>) -> Result<Self> {
        if let Principal::Key(key) = &caller.principal
            && !key.has_scope(WRITE)
        {
            return Err(Error::new(ErrorCode::ScopeNotAllowed).with_message("this key lacks the scope videos:write"));
        }
        let Some(named) = named else {
            return Err(Error::header_field("X-SFTPGo-User", "is required: a service has no folder of its own"));
        };
        let member = members::owner_of_folder(r, named)?.ok_or_else(|| no_owner(named))?;
        if caller.named_tenant.is_some() {
            let tenant = caller.tenant(snapshot)?;
            members::require_visible(snapshot, Reach::Tenant(tenant), member).map_err(|_| no_owner(named))?;
        }
        if !snapshot.is_active(member) {
            return Err(ErrorCode::MemberSuspended.into());
        }
        Ok(Self { member, folder: named.to_owned(), is_trusted: true })
    }

    /// Returns the measured size. The reported size is used only for a trusted caller if there is no file to measure.
    fn size(&self, measured: Result<i64>, reported_size: Option<i64>) -> Result<i64> {
        measured.or_else(|refused| {
            let is_missing = matches!(refused.code, ErrorCode::FileNotFound | ErrorCode::MediaRootNotConfigured);
            reported_size.filter(|_| is_missing && self.is_trusted).ok_or(refused)
        })
    }
}

/// The error if no visible member has this SFTPGo username.
fn no_owner(named: &str) -> Error {
    let message = format!(
        "no member has the SFTPGo name {named:?}: create one with it (POST /admin/users, sftpgo_username), or use another name"
    );
    Error::new(ErrorCode::OwnerNotFound).with_message(message)
}

/// The member and size of a quota check; set within the change, and read after it was refused.
#[derive(Clone, Default)]
struct QuotaNeed(Arc<OnceLock<(MemberId, i64)>>);

impl QuotaNeed {
    fn set(&self, member: MemberId, size: i64) {
        let _ = self.0.set((member, size));
    }

    /// Records a refusal because of an exceeded quota.
    async fn record_refusal<T>(self, app: &App, caller: &Identity, outcome: Result<T>) -> Result<T> {
        if let (Err(refused), Some((member, size))) = (&outcome, self.0.get()) {
            quotas::record_refusal(app, caller, *member, *size, refused).await;
        }
        outcome
    }
}

/// A file to register. Nothing about it is revealed before it is known to be the caller's.
struct MeasuredFile {
    path: VideoPath,
    size: Result<i64>,
    /// The size that the caller reports, in bytes.
    reported_size: Option<i64>,
}

impl MeasuredFile {
    async fn of(app: &App, path: &str, reported_size: Option<i64>) -> Result<Self> {
        let path = VideoPath::parse(path, &app.config.media_root, app.config.video_path_bytes_max)?;
        let size = measure::measure(&app.config.media_root, &path).await;
        Ok(Self { path, size, reported_size })
    }

    /// Calls the plugins of the owner's organizations. They run before the change is queued, because guest code never
    /// blocks the writer; the result is returned within the change, together with all other checks.
    async fn check_plugins(&self, app: &Arc<App>, caller: &Identity, named: Option<&str>) -> Result<()> {
        let (snapshot, path, identity, named) =
            (app.snapshot(), self.path.clone(), caller.clone(), named.map(str::to_owned));
        let look = move |r: &Reader<'_>| {
            let owner = StorageOwner::find(r, &snapshot, &identity, named.as_deref())?;
            let is_asked = path.folder() == owner.folder && videos::find_at(r, &path)?.is_none();
            Ok(is_asked.then_some(owner.member))
        };
        let Some(owner) = app.read(look).await? else { return Ok(()) };
        let size = self.size.as_ref().ok().copied().or(self.reported_size);
        videos::check_with_plugins(app, caller, &NewVideo { owner, path: self.path.clone(), size, source: Source::Api })
            .await
    }

    /// Builds the registration, for the caller or the owner it names.
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
        require_active(t, owner.member)?;
        let size = owner.size(self.size, self.reported_size);
        wanted.set(owner.member, size.clone().unwrap_or_default());
        Ok(Registration { path: self.path, owner: owner.member, size, fit: QuotaCheck::Enforced, queues_job: true })
    }
}

impl RowScope {
    /// Returns a video as the caller can see it.
    pub fn seen(self, r: &Reader<'_>, caller: &Identity, video: Video) -> Result<VideoView> {
        let path = members::visible_path(
            r,
            self.viewing_organization(caller, video.member),
            video.member,
            video.path.as_str(),
        )?;
        Ok(VideoView { path, ..video.into() })
    }

    /// Fails with `video_not_found` for a video out of reach. The caller's own videos are always in reach.
    pub fn require(self, caller: &Identity, video: Video) -> Result<Video> {
        let is_own = caller.member().is_some() && video.member == caller.member();
        let is_in_reach = match self {
            Self::All(reach) => match reach.organization() {
                None => true,
                only => video.organization == only,
            },
            Self::Member(_) => false,
        };
        if is_own || is_in_reach { Ok(video) } else { Err(ErrorCode::VideoNotFound.into()) }
    }
}
