//! The rules for what an organization may see of a member.
//!
//! **Invariant.** An organization sees its own members. Of all others, including members that left it, it sees only the
//! id: no name, e-mail, status, or folder name. Code that returns or sends data about a member checks this at that
//! time, not when the data was written. The site sees all members.

use super::{Member, store};
use crate::kernel::authz::Reach;
use crate::kernel::authz::snapshot::Snapshot;
use crate::kernel::db::Reader;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};

/// Replaces the folder name of a member that an organization may not see.
const HIDDEN_FOLDER: &str = "former-member";

/// Whether the member is within the reach.
pub fn is_visible(snapshot: &Snapshot, reach: Reach, id: MemberId) -> bool {
    reach
        .organization()
        .is_none_or(|organization| snapshot.tenant(organization).is_some_and(|tenant| tenant.set_of(id).is_some()))
}

/// Fails with `MemberNotFound` if the member is not within the reach, as for one that does not exist.
pub fn require_visible(snapshot: &Snapshot, reach: Reach, id: MemberId) -> Result<()> {
    if is_visible(snapshot, reach, id) { Ok(()) } else { Err(ErrorCode::MemberNotFound.into()) }
}

/// Returns the member if the organization may see it; `seen_by` is `None` for the site.
pub fn find_visible(r: &Reader<'_>, seen_by: Option<OrganizationId>, id: MemberId) -> Result<Option<Member>> {
    match seen_by {
        Some(organization) => store::find_member_in(r, organization, id),
        None => store::find_member(r, id),
    }
}

/// Returns the path of a video as the organization may see it: the folder name of a member that it may not see is
/// replaced.
pub fn visible_path(
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

/// Replaces the folder name in a text that can contain `path`, such as the error of a job, if `seen` is not `path`.
pub fn visible_text(text: &str, path: &str, seen: &str) -> String {
    match path.split_once('/') {
        Some((folder, _)) if path != seen => text.replace(&format!("{folder}/"), &format!("{HIDDEN_FOLDER}/")),
        _ => text.to_owned(),
    }
}
