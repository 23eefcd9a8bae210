//! Operations that find videos, and owners for them: import and claim.

use std::sync::Arc;

use poem_openapi::{Object, OpenApi};

use super::{FilePath, FolderPrefix, WRITE};
use crate::features::videos::import::{self, ImportRequest, ImportResult};
use crate::features::videos::path::VideoPath;
use crate::kernel::app::App;
use crate::kernel::authn::caller::AdminOrKey;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::{self, RowScope};
use crate::kernel::http::{Body, Reply, Tag, ok};
use crate::kernel::ids::MemberId;

/// What of the media root is taken in
#[derive(Object)]
struct ImportVideos {
    /// Only says what would happen
    dry_run: Option<bool>,
    /// Only this folder below the media root
    prefix: Option<FolderPrefix>,
    /// Goes on after this file: `next` of the answer before
    after: Option<FilePath>,
    /// Looks at so many files; at `limits.import_files` when absent
    #[oai(validator(minimum(value = "1"), maximum(value = "100000000")))]
    limit: Option<u64>,
    /// Queues the usual job for each new video; yes when absent
    queue_jobs: Option<bool>,
}

/// Whether videos find their owners
#[derive(Object)]
struct ClaimVideos {
    /// Only says what would happen
    dry_run: Option<bool>,
}

/// What an import did, or would do
#[derive(Object)]
struct Imported {
    dry_run: bool,
    /// Files that can be videos
    looked_at: u64,
    /// New videos
    imported: u64,
    /// Of these, in folders of no member
    ownerless: u64,
    /// Registered before
    already_exist: u64,
    /// Size of the new videos
    bytes: i64,
    /// Links, hidden files, files outside of any folder, names that are no text
    skipped: u64,
    /// Who stores more than allowed now: what lies there is counted whether or not it fits
    over_quota: Vec<MemberId>,
    /// Where to go on; null at the end
    #[oai(nullable)]
    next: Option<String>,
}

/// What a claim did, or would do
#[derive(Object)]
struct Claimed {
    dry_run: bool,
    /// Videos that have an owner now
    claimed: u64,
    bytes: i64,
    /// Videos that stay without one: no member has this folder
    ownerless: u64,
    /// Who stores more than allowed now
    over_quota: Vec<MemberId>,
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
    /// Take in what lies under the media root
    ///
    /// Plain files in members' folders become videos; in folders of nobody, videos without an owner. No link is
    /// followed, hidden files are left alone. Repeated, it takes in what is new. With `limit` it stops after so many
    /// files, and goes on with `after`.
    #[oai(path = "/import", method = "post", operation_id = "import_videos")]
    async fn import_videos(&self, caller: AdminOrKey, body: Body<ImportVideos>) -> Reply<Imported> {
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
        let outcome = import::import(&self.app, &caller, request).await?;
        let ImportResult { looked_at, taken, ownerless, already_known, bytes, skipped, over_quota, next } = outcome;
        Ok(ok(Imported {
            dry_run: is_dry_run,
            looked_at,
            imported: taken,
            ownerless,
            already_exist: already_known,
            bytes,
            skipped,
            over_quota: over_quota.into_iter().collect(),
            next,
        }))
    }

    /// Give videos without an owner to whose folders they lie in
    ///
    /// By the first part of the path, which is a member's name at SFTPGo. Without the permission those in one's own folder.
    #[oai(path = "/claim", method = "post", operation_id = "claim_videos")]
    async fn claim_videos(&self, caller: AdminOrKey, body: Body<ClaimVideos>) -> Reply<Claimed> {
        let is_dry_run = body.0.dry_run == Some(true);
        let outcome = match RowScope::of(&self.app.snapshot(), &caller, Permission::VIDEO_CLAIM, WRITE)? {
            RowScope::All(_) => import::claim(&self.app, &caller, is_dry_run).await?,
            RowScope::Member(member) => import::claim_own(&self.app, &caller, member, is_dry_run).await?,
        };
        Ok(ok(Claimed {
            dry_run: is_dry_run,
            claimed: outcome.taken,
            bytes: outcome.bytes,
            ownerless: outcome.ownerless,
            over_quota: outcome.over_quota.into_iter().collect(),
        }))
    }
}
