//! Operations that find videos and assign owners to them: import and claim.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::types::ToJSON;
use poem_openapi::{Object, OpenApi};

use super::{FilePath, FolderPrefix, WRITE};
use crate::features::videos::import::{self, ImportRequest, ImportResult};
use crate::features::videos::path::VideoPath;
use crate::kernel::app::App;
use crate::kernel::app::tasks::Progress;
use crate::kernel::authn::caller::AdminOrKey;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::{self, RowScope};
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Body, Reply, Tag, TaskReply, ok};
use crate::kernel::ids::MemberId;

/// The options of an import
#[derive(Object)]
struct ImportVideos {
    /// Reports what would happen without changing anything
    dry_run: Option<bool>,
    /// Only this folder below the media root
    prefix: Option<FolderPrefix>,
    /// Continue after this file: `next` of the previous response
    after: Option<FilePath>,
    /// The maximum number of files to read; `limits.import_files` when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "100000000")))]
    limit: Option<u64>,
    /// Queue a job for each new video; `true` when absent
    queue_jobs: Option<bool>,
}

/// The options of a claim
#[derive(Object)]
struct ClaimVideos {
    /// Reports what would happen without changing anything
    dry_run: Option<bool>,
}

/// The result of an import or its dry run
#[derive(Object)]
struct Imported {
    dry_run: bool,
    /// The number of files that can be videos
    looked_at: u64,
    /// The number of new videos
    imported: u64,
    /// The number of new videos without an owner, because no member has this folder
    ownerless: u64,
    /// The number of files that were registered before
    already_exist: u64,
    /// The total size of the new videos, in bytes
    bytes: i64,
    /// The number of skipped entries: links, ignored names, files outside of any folder, names that are not UTF-8
    skipped: u64,
    /// Members that are over their quota now: existing files are counted whether or not they fit
    over_quota: Vec<MemberId>,
    /// Where to continue; null at the end
    #[oai(nullable)]
    next: Option<String>,
}

impl Imported {
    fn new(is_dry_run: bool, found: ImportResult) -> Self {
        let ImportResult { looked_at, taken, ownerless, already_known, bytes, skipped, over_quota, next } = found;
        Self {
            dry_run: is_dry_run,
            looked_at,
            imported: taken,
            ownerless,
            already_exist: already_known,
            bytes,
            skipped,
            over_quota: over_quota.into_iter().collect(),
            next,
        }
    }
}

/// The result of a claim or its dry run
#[derive(Object)]
struct Claimed {
    dry_run: bool,
    /// The number of videos that got an owner
    claimed: u64,
    bytes: i64,
    /// The number of videos that still have no owner, because no member has this folder
    ownerless: u64,
    /// Members that are over their quota now
    over_quota: Vec<MemberId>,
}

impl Claimed {
    fn new(is_dry_run: bool, found: ImportResult) -> Self {
        let ImportResult { taken, bytes, ownerless, over_quota, .. } = found;
        Self { dry_run: is_dry_run, claimed: taken, bytes, ownerless, over_quota: over_quota.into_iter().collect() }
    }
}

crate::document! {
    import_videos: [MediaRootNotConfigured];
    claim_videos: [MediaRootNotConfigured];

    "Registered": r#"{"uuid":"6f1f6b1d2c3e4a5b","already_exists":false}"#;
    "ClaimVideos": r#"{"dry_run":true}"#;
    "ImportVideos": r#"{"dry_run":true,"prefix":"kim"}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/videos", tag = "Tag::Videos")]
impl Api {
    /// Import the files below the media root
    ///
    /// Regular files in members' folders become videos; files in other folders become videos without an owner. Links
    /// are not followed, and ignored names are skipped. A repeated import adds only new files. With `limit` it stops
    /// after that many files; continue with `after`.
    ///
    /// If the caller loses the permission or the credential meanwhile, or the server fails, the import stops with that
    /// error. Its message says how many videos were made before, and a task has their result with `next`.
    #[oai(path = "/import", method = "post", operation_id = "import_videos")]
    async fn import_videos(
        &self,
        caller: AdminOrKey,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
        body: Body<ImportVideos>,
    ) -> TaskReply<Imported> {
        authz::require(&self.app.snapshot(), &caller, Permission::VIDEO_IMPORT)?;
        let body = body.0;
        let is_dry_run = body.dry_run == Some(true);
        let bytes_max = self.app.config.video_path_bytes_max;
        if let Some(after) = &body.after {
            VideoPath::parse(after, &self.app.config.media_root, bytes_max)?;
        }
        let request = ImportRequest {
            is_dry_run,
            prefix: body.prefix.map(|prefix| prefix.0.trim_end_matches('/').to_owned()),
            after: body.after.map(|after| after.0),
            limit: body.limit,
            queues_jobs: body.queue_jobs != Some(false),
        };
        import::require_media_root(&self.app.config)?;
        let (app, caller) = (self.app.clone(), caller.0);
        let by = caller.clone();
        let work = move |progress| async move {
            let mut found = ImportResult::default();
            match import::import(&app, &by, request, &progress, &mut found).await {
                Ok(()) => Ok(Imported::new(is_dry_run, found)),
                Err(error) if is_dry_run => Err(error),
                Err(error) => {
                    let done = Imported::new(is_dry_run, found.clone());
                    Err(stopped(&app, &by, import::IMPORT.operation, (error, &found), (&progress, &done)).await)
                }
            }
        };
        Ok(self.app.perform(&caller, import::IMPORT, background.0 == Some(true), work).await?)
    }

    /// Assign videos without an owner to the owners of their folders
    ///
    /// The first part of the path is a member's SFTPGo username. Callers without the permission claim only the videos
    /// in their own folder.
    #[oai(path = "/claim", method = "post", operation_id = "claim_videos")]
    async fn claim_videos(&self, caller: AdminOrKey, body: Body<ClaimVideos>) -> Reply<Claimed> {
        let is_dry_run = body.0.dry_run == Some(true);
        let mut found = ImportResult::default();
        let ended = match RowScope::of(&self.app.snapshot(), &caller, Permission::VIDEO_CLAIM, WRITE)? {
            RowScope::All(_) => import::claim(&self.app, &caller, is_dry_run, &mut found).await,
            RowScope::Member(member) => import::claim_own(&self.app, &caller, (member, is_dry_run), &mut found).await,
        };
        let done = Claimed::new(is_dry_run, found.clone());
        if let Err(error) = ended {
            if is_dry_run {
                return Err(error.into());
            }
            let progress = Progress::none();
            let error = stopped(&self.app, &caller, "claim_videos", (error, &found), (&progress, &done)).await;
            return Err(error.into());
        }
        Ok(ok(done))
    }
}

/// The error that ended an import or a claim, which tells what was done before. A task keeps that as its result.
async fn stopped<T: ToJSON>(
    app: &App,
    caller: &Identity,
    operation: &str,
    (error, found): (Error, &ImportResult),
    (progress, done): (&Progress, &T),
) -> Error {
    app.record_lost_credential(&caller.context, operation, &error).await;
    if found.looked_at == 0 || error.code == ErrorCode::TaskCancelled {
        return error;
    }
    let message = format!("{} ({} videos were changed before)", error.message(), found.taken);
    progress.fail(error.with_message(message), done)
}
