//! SQL of open promises by their makers, wherever they lie.

use crate::access::promise::Maker;
use crate::access::secret::Hash;
use crate::db::{Reader, Writer};
use crate::error::Result;
use crate::ids::{InvitationId, MemberId, OrganizationId, RoleId};

/// What was promised, and is not taken yet.
pub(super) enum Open {
    Invitation { id: InvitationId, organization: OrganizationId, role: Option<RoleId> },
    Link { hash: Hash, member: MemberId, is_welcome: bool },
}

const LIST_INVITATIONS_BY: &str = "
    select id, organization_id, role_id
    from invitations
    where maker = :maker and accepted_at is null";
const LIST_LINKS_BY: &str = "
    select hash, member_id, data is not null
    from one_time_tokens
    where maker = :maker and member_id is not null";

/// All that a maker promised, and that is open.
pub(super) fn list_open(r: &Reader<'_>, maker: &Maker) -> Result<Vec<Open>> {
    let text = maker.text();
    let mut open = r.all(LIST_INVITATIONS_BY, &[(":maker", &text)], |row| {
        Ok(Open::Invitation { id: row.get(0)?, organization: row.get(1)?, role: row.get(2)? })
    })?;
    open.extend(r.all(LIST_LINKS_BY, &[(":maker", &text)], |row| {
        Ok(Open::Link { hash: row.get(0)?, member: row.get(1)?, is_welcome: row.get(2)? })
    })?);
    Ok(open)
}

const LIST_MAKERS: &str = "
    select maker from invitations where accepted_at is null and maker is not null
    union
    select maker from one_time_tokens where maker is not null";

/// Everybody who promised something that is open.
pub(super) fn list_makers(r: &Reader<'_>) -> Result<Vec<Maker>> {
    r.all(LIST_MAKERS, &[], |row| row.get::<_, String>(0))
        .map(|all| all.iter().map(|text| Maker::of_text(Some(text))).collect())
}

const DELETE_OPEN_INVITATION: &str = "delete from invitations where id = :id and accepted_at is null";

pub(super) fn delete_invitation(w: &Writer<'_>, id: InvitationId) -> Result<()> {
    w.execute(DELETE_OPEN_INVITATION, &[(":id", &id)]).map(drop)
}

const DELETE_LINK: &str = "delete from one_time_tokens where hash = :hash";

pub(super) fn delete_link(w: &Writer<'_>, hash: &Hash) -> Result<()> {
    w.execute(DELETE_LINK, &[(":hash", hash)]).map(drop)
}
