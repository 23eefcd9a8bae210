//! Operations on members.

pub mod admin;
pub mod internal;
pub mod me;

use poem_openapi::{Enum, Object};

use super::store::Membership;
use super::{Member, SortKey};
use crate::kernel::db::Direction;
use crate::kernel::http::{ActiveInactive, MemberStatus};
use crate::kernel::ids::{MemberId, OrganizationId};

crate::text! {
    /// A password hash from another system: bcrypt (`$2a$`, `$2b$`, `$2y$`), argon2 (`$argon2id$`, `$argon2i$`,
    /// `$argon2d$`), WordPress (`$P$`, `$wp$2y$`), Django (`pbkdf2_sha256$`, `bcrypt_sha256$`, `argon2$`) or SHA-crypt
    /// (`$5$`, `$6$`), also with the prefix `{CRYPT}`
    PasswordHash 1..=256 "" as "password-hash";
}

/// The order of a list of members; `-` reverses it. The name is the username, or the e-mail of a member without one
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberOrder {
    #[oai(rename = "created_at")]
    Oldest,
    #[oai(rename = "-created_at")]
    Newest,
    #[oai(rename = "name")]
    NameAscending,
    #[oai(rename = "-name")]
    NameDescending,
}

impl MemberOrder {
    /// Returns the order of a list, which is by time of creation if none is requested.
    pub fn of(requested: Option<Self>) -> (SortKey, Direction) {
        match requested {
            None | Some(Self::Oldest) => (SortKey::Created, Direction::Forward),
            Some(Self::Newest) => (SortKey::Created, Direction::Backward),
            Some(Self::NameAscending) => (SortKey::Name, Direction::Forward),
            Some(Self::NameDescending) => (SortKey::Name, Direction::Backward),
        }
    }
}

/// A member
#[derive(Object)]
#[oai(rename = "Member")]
pub struct MemberView {
    pub id: MemberId,
    /// The same as `id`
    pub uid: MemberId,
    #[oai(nullable)]
    pub authentik_sub: Option<String>,
    #[oai(nullable)]
    pub authentik_user_id: Option<String>,
    #[oai(nullable)]
    pub username: Option<String>,
    #[oai(nullable)]
    pub email: Option<String>,
    #[oai(nullable)]
    pub display_name: Option<String>,
    pub status: MemberStatus,
    pub is_active: bool,
    /// Unix milliseconds
    pub created_at: i64,
    /// Unix milliseconds
    pub updated_at: i64,
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        Self {
            id: member.id,
            uid: member.id,
            is_active: member.is_active(),
            authentik_sub: member.authentik_sub,
            authentik_user_id: member.authentik_user_id,
            username: member.username,
            email: member.email,
            display_name: member.display_name,
            status: member.status.into(),
            created_at: member.created_at.0,
            updated_at: member.updated_at.0,
        }
    }
}

/// An organization that a member belongs to
#[derive(Object)]
pub struct MemberOrganization {
    id: OrganizationId,
    org_code: String,
    name: String,
    status: String,
    /// When the member was linked, in Unix milliseconds
    created_at: i64,
}

impl From<Membership> for MemberOrganization {
    fn from(membership: Membership) -> Self {
        Self {
            id: membership.organization,
            org_code: membership.org_code,
            name: membership.name,
            status: ActiveInactive::of(membership.is_active).as_str().into(),
            created_at: membership.created_at.0,
        }
    }
}
