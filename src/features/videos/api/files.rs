//! Operations on videos: register, list, get, delete and transfer.

use std::sync::Arc;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use super::{FilePath, MeasuredFile, QuotaNeed, READ, RegisteredView, VideoView, WRITE, Warned};
use crate::features::members;
use crate::features::quotas::{self, QuotaCheck, QuotaSettings};
use crate::features::videos::{self, Admission, Filter, SortKey, store};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::authn::caller::{AdminOrKey, MemberOrKey};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{Reach, RowScope};
use crate::kernel::db::{Direction, PageRequest, Reader};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Body, EmptyReply, Page, Reply, Tag, done, like, ok, require_version};
use crate::kernel::ids::MemberId;

/// A file to register as a video
#[derive(Object)]
struct Register {
    /// `username/…` below the media root; the first part is the owner's SFTPGo username. Bytes are kept unchanged:
    /// names in different Unicode forms are different names
    path: FilePath,
    /// In bytes; used only with a service's API key, and only if there is no file to measure
    #[oai(validator(minimum(value = "0"), maximum(value = "9000000000000000")))]
    size: Option<i64>,
}

/// The order of a list of videos; `-` reverses it
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
enum VideoOrder {
    /// In the order of registration
    #[oai(rename = "created_at")]
    Oldest,
    #[oai(rename = "-created_at")]
    Newest,
    #[oai(rename = "size")]
    Smallest,
    #[oai(rename = "-size")]
    Largest,
}

impl VideoOrder {
    /// Returns the order of the list, which is newest first if none is requested.
    fn of(requested: Option<Self>) -> (SortKey, Direction) {
        match requested {
            None | Some(Self::Newest) => (SortKey::Registered, Direction::Forward),
            Some(Self::Oldest) => (SortKey::Registered, Direction::Backward),
            Some(Self::Largest) => (SortKey::Size, Direction::Forward),
            Some(Self::Smallest) => (SortKey::Size, Direction::Backward),
        }
    }
}

/// The new owner of a video
#[derive(Object)]
struct TransferVideo {
    /// The new owner, scope quota must have room for it
    uid: MemberId,
}

crate::document! {
    register_video: [
        VideoPath, FileChanged, NotAFile, FileNotFound, MediaRootNotConfigured, OwnerNotFound, MemberNotActive,
        NotYourFolder, VideosFull, QuotaExceeded, OrganizationQuotaExceeded,
    ] ["x-quota-warning"];
    get_video: [VideoNotFound] ["etag"];
    delete_video: [VideoNotFound];
    transfer_video: [
        MemberNotFound, MemberNotActive, VideoNotFound, QuotaExceeded, OrganizationQuotaExceeded,
    ] ["etag", "x-quota-warning"];

    "Register": r#"{"path":"./kim/2026/harbour.mp4"}"#;
    "TransferVideo": r#"{"uid":"019abcde-0000-7000-8000-000000000002"}"#;
    "Video": r#"{"uuid":"6f1f6b1d2c3e4a5b","path":"kim/2026/harbour.mp4","uid":"019abcde-0000-7000-8000-000000000002","organization_id":null,"size":734003200,"created_at":1763740800000,"updated_at":1763740800000}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(tag = "Tag::Videos")]
impl Api {
    /// Register a file as a video
    ///
    /// Counts its bytes, stores the video and queues one job, in one transaction. The file is measured below the media
    /// root; links are not followed. Registering the same file again returns the same result with `already_exists`, and
    /// counts nothing. If the quota is exceeded, nothing is stored. Members register their own files; services register
    /// for the member in `X-SFTPGo-User`. The owner's organizations can deny it with a plugin (`video.register`).
    #[oai(path = "/register", method = "post", operation_id = "register_video")]
    async fn register_video(
        &self,
        caller: MemberOrKey,
        /// The SFTPGo username of the member for whom a service registers
        #[oai(name = "X-SFTPGo-User")]
        named: Header<Option<String>>,
        body: Body<Register>,
    ) -> Reply<RegisteredView> {
        let Register { path, size: reported_size } = body.0;
        let file = MeasuredFile::of(&self.app, &path, reported_size).await?;
        let (rules, named) = (QuotaSettings::from_config(&self.app.config), named.0);
        let plugin_check = file.check_plugins(&self.app, &caller, named.as_deref()).await;
        let wanted = QuotaNeed::default();
        let need = wanted.clone();
        let register = move |t: &Transaction<'_>, caller: &Identity| {
            plugin_check?;
            let new = file.registration(t, caller, named.as_deref(), &wanted)?;
            let registered = match videos::admit(t, &rules, new)? {
                Admission::Known(known) => Changed::unchanged(known),
                Admission::New(admitted) => {
                    t.release_savepoint()?;
                    videos::insert(t, caller, admitted)?
                }
            };
            Ok(registered.map(|new| Warned { warning: new.warning, answer: RegisteredView::from(new) }))
        };
        let registered = self.app.create(&caller, "video.register", None, register).await;
        let Warned { answer, warning } = need.record_refusal(&self.app, &caller, registered).await?.answer;
        Ok(ok(answer).quota_warning(warning))
    }

    /// List videos
    ///
    /// Newest first. Members see their own videos, administrators with the permission those of their organization or
    /// the site. With selective filters a page can be short or empty although `next` is present.
    #[oai(path = "/videos", method = "get", operation_id = "list_videos")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the query")]
    async fn list_videos(
        &self,
        caller: AdminOrKey,
        /// Only videos of this member
        member: Query<Option<MemberId>>,
        /// Only videos without an owner; for platform administrators
        ownerless: Query<Option<bool>>,
        /// Searched in the path
        #[oai(validator(max_length = 200))]
        keyword: Query<Option<String>>,
        /// `-created_at` by default
        sort: Query<Option<VideoOrder>>,
        #[oai(validator(minimum(value = "1")))] limit: Query<Option<u64>>,
        offset: Query<Option<u64>>,
        /// Continue after this position: `next` of the previous page. Not together with `offset`
        #[oai(validator(max_length = 2000))]
        after: Query<Option<String>>,
    ) -> Reply<Page<VideoView>> {
        let scope = RowScope::of(&self.app.snapshot(), &caller, Permission::VIDEO_LIST, READ)?;
        let (sort, direction) = VideoOrder::of(sort.0);
        let window = PageRequest::new(limit.0, offset.0, after.0)?.toward(direction);
        let keyword = like(keyword.0.as_deref());
        let filter = match scope {
            RowScope::All(reach) => Filter {
                member: member.0,
                organization: reach.organization(),
                is_ownerless: ownerless.0 == Some(true) && reach.organization().is_none(),
                keyword,
                sort,
            },
            // Other members' videos are not visible.
            RowScope::Member(own) if member.0.is_some_and(|member| member != own) => {
                return Ok(ok(window.of_all::<VideoView>(Vec::new(), "videos")?.into()));
            }
            RowScope::Member(own) => Filter { member: Some(own), keyword, sort, ..Filter::default() },
        };
        let list = move |r: &Reader<'_>| {
            store::list_videos(r, &filter, &window)?.try_map(|video| scope.seen(r, &caller, video))
        };
        Ok(ok(self.app.read(list).await?.into()))
    }

    /// Get a video
    ///
    /// The id is derived from the path.
    #[oai(path = "/videos/:id", method = "get", operation_id = "get_video")]
    async fn get_video(&self, caller: AdminOrKey, id: Path<String>) -> Reply<VideoView> {
        let scope = RowScope::of(&self.app.snapshot(), &caller, Permission::VIDEO_GET, READ)?;
        let look = move |r: &Reader<'_>| {
            let video = scope.require(&caller, videos::get(r, &id.0)?)?;
            let version = video.version;
            Ok((scope.seen(r, &caller, video)?, version))
        };
        let (video, version) = self.app.read(look).await?;
        Ok(ok(video).version(version))
    }

    /// Delete a video
    ///
    /// Frees its bytes and deletes its jobs. The file itself is kept.
    #[oai(path = "/videos/:id", method = "delete", operation_id = "delete_video")]
    async fn delete_video(
        &self,
        caller: AdminOrKey,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
    ) -> EmptyReply {
        let rules = QuotaSettings::from_config(&self.app.config);
        let delete = move |t: &Transaction<'_>, caller: &Identity| {
            let scope = RowScope::of(t.snapshot(), caller, Permission::VIDEO_DELETE, WRITE)?;
            let video = scope.require(caller, videos::get(t, &id.0)?)?;
            require_version(if_match.0.as_deref(), video.version)?;
            videos::remove(t, &rules, caller, &video)
        };
        self.app.change(&caller, "video.delete", delete).await?;
        Ok(done())
    }

    /// Transfer a video to another member
    ///
    /// Its bytes move from one quota to the other in one transaction. The file and its path stay. Members can transfer
    /// their own videos within their only organization; administrators with the permission all videos of the
    /// organization, or of the site.
    #[oai(path = "/videos/:id/transfer", method = "post", operation_id = "transfer_video")]
    async fn transfer_video(
        &self,
        caller: AdminOrKey,
        id: Path<String>,
        #[oai(name = "If-Match")] if_match: Header<Option<String>>,
        body: Body<TransferVideo>,
    ) -> Reply<VideoView> {
        let (rules, to) = (QuotaSettings::from_config(&self.app.config), body.0.uid);
        let transfer = move |t: &Transaction<'_>, caller: &Identity| {
            let scope = RowScope::of(t.snapshot(), caller, Permission::VIDEO_TRANSFER, WRITE)?;
            let video = scope.require(caller, videos::get(t, &id.0)?)?;
            let reach = reach_of_transfer(t, scope)?;
            if matches!(scope, RowScope::All(_))
                && reach.organization().is_some_and(|own| video.organization != Some(own))
            {
                return Err(ErrorCode::VideoNotFound.into());
            }
            require_version(if_match.0.as_deref(), video.version)?;
            members::require_visible(t.snapshot(), reach, to)?;
            // An organization's administrators cannot transfer videos out of the organization.
            if let Some(organization) = reach.organization()
                && quotas::organization_of(t.snapshot(), to) != Some(organization)
            {
                let why = "this member does not count under your organization: only the platform can do this";
                return Err(Error::new(ErrorCode::Forbidden).with_message(why));
            }
            require_active(t, to)?;
            let changed = videos::transfer(t, &rules, caller, (&video, to, QuotaCheck::Enforced))?;
            let warning = changed.answer;
            let video = videos::get(t, &id.0)?;
            let version = video.version;
            let view = RowScope::All(reach).seen(t, caller, video)?;
            Ok(changed.map(|_| (view, version, warning)))
        };
        let (video, version, warning) = self.app.change(&caller, "video.transfer", transfer).await?.answer;
        Ok(ok(video).version(version).quota_warning(warning))
    }
}

/// Returns the reach in which the new owner must be.
fn reach_of_transfer(t: &Transaction<'_>, scope: RowScope) -> Result<Reach> {
    match scope {
        RowScope::All(reach) => Ok(reach),
        RowScope::Member(own) => quotas::organization_of(t.snapshot(), own).map(Reach::Tenant).ok_or_else(|| {
            let why = "you belong to no organization, or to several: only an administrator can transfer your videos";
            Error::new(ErrorCode::Forbidden).with_message(why)
        }),
    }
}

/// Fails with `member_not_active` if the member cannot own videos.
pub fn require_active(t: &Transaction<'_>, member: MemberId) -> Result<()> {
    if t.snapshot().is_active(member) { Ok(()) } else { Err(ErrorCode::MemberNotActive.into()) }
}
