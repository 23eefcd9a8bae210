//! What an organization may see of a member, in one place.
//!
//! **Invariant.** An organization sees its own members. Of anybody else, and so of who has left it, it sees the id: no name,
//! no e-mail, no status, no folder that is called by a name. Whatever shows or sends something of a member asks here when
//! it does so, not when the thing happened. The site sees everybody.

use super::{Member, store};
use crate::kernel::authz::Reach;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Reader;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};

/// Stands for the folder of somebody whom an organization does not see.
const HIDDEN_FOLDER: &str = "former-member";

/// Does the member lie within the reach?
pub fn is_visible(snapshot: &Snapshot, reach: Reach, id: MemberId) -> bool {
    reach
        .organization()
        .is_none_or(|organization| snapshot.tenant(organization).is_some_and(|tenant| tenant.set_of(id).is_some()))
}

/// Fails when the member is out of the caller's reach, exactly as if it did not exist.
pub fn require_visible(snapshot: &Snapshot, reach: Reach, id: MemberId) -> Result<()> {
    if is_visible(snapshot, reach, id) { Ok(()) } else { Err(ErrorCode::MemberNotFound.into()) }
}

/// The member as the organization sees it, or as the site does; `None` where only the id is to be seen.
pub fn find_seen(r: &Reader<'_>, seen_by: Option<OrganizationId>, id: MemberId) -> Result<Option<Member>> {
    match seen_by {
        Some(organization) => store::find_member_in(r, organization, id),
        None => store::find_member(r, id),
    }
}

/// The path of a video as the organization sees it: the folder of somebody whom it does not see has no name.
pub fn seen_path(
    r: &Reader<'_>,
    seen_by: Option<OrganizationId>,
    owner: Option<MemberId>,
    path: &str,
) -> Result<String> {
    if let Some(organization) = seen_by
        && let Some((folder, below)) = path.split_once('/')
        && store::hides_folder(r, organization, owner, folder)?
    {
        return Ok(format!("{HIDDEN_FOLDER}/{below}"));
    }
    Ok(path.to_owned())
}

/// A text that may name a path, such as the error of a job, beside that path as it is and as it is seen.
pub fn seen_text(text: &str, path: &str, seen: &str) -> String {
    match path.split_once('/') {
        Some((folder, _)) if path != seen => text.replace(&format!("{folder}/"), &format!("{HIDDEN_FOLDER}/")),
        _ => text.to_owned(),
    }
}
