//! Jobs: work on videos.

use super::jobs_store as store;
use crate::db::Writer;
use crate::error::Result;
use crate::ids::{JobId, MemberId, OrganizationId};

/// What `auto_ingestion` does, and where each part begins: what is seen is looked for in the scenes that the cut found.
const STEPS: [(&str, &str); 6] = [
    ("asr", "ready"),
    ("cut", "ready"),
    ("yolo", "waiting"),
    ("ocr", "waiting"),
    ("face", "waiting"),
    ("pose", "waiting"),
];

/// Queues the work on a video.
pub fn queue(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<JobId> {
    let id = JobId::new();
    store::insert(w, id, video, member, organization)?;
    for (processor, state) in STEPS {
        store::insert_step(w, id, processor, state)?;
    }
    Ok(id)
}

/// The jobs of a video go with it.
pub fn forget_video(w: &Writer<'_>, video: &str) -> Result<()> {
    store::delete_of_video(w, video)
}

/// The jobs of a video follow it to another owner.
pub fn transfer(
    w: &Writer<'_>,
    video: &str,
    member: Option<MemberId>,
    organization: Option<OrganizationId>,
) -> Result<()> {
    store::set_owner(w, video, member, organization)
}
