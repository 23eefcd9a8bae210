//! SQL that finds open deferred grants by their creator, in all tables that hold them.

use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::{ApiKeyId, GrantId, InvitationId, MemberId, OrganizationId, RoleId, WebhookId};
use crate::kernel::secret::Hash;

/// A deferred grant that was not used yet, or is still valid.
pub(super) enum Open {
    Invitation {
        id: InvitationId,
        organization: OrganizationId,
        role: Option<RoleId>,
    },
    Link {
        hash: Hash,
        member: MemberId,
        is_welcome: bool,
    },
    /// An API key that somebody else created for the member.
    Key {
        id: ApiKeyId,
        member: MemberId,
    },
    /// A password that somebody else set for the member; withdrawing it also ends the member's sessions.
    Password {
        member: MemberId,
    },
    ServiceKey {
        id: ApiKeyId,
    },
    Client {
        client_key: String,
    },
    Webhook {
        id: WebhookId,
        organization: Option<OrganizationId>,
    },
}

const LIST_INVITATIONS_BY: &str = "
    select id, organization_id, role_id
    from invitations
    where maker = :maker and accepted_at is null";
const LIST_LINKS_BY: &str = "
    select hash, member_id, data is not null
    from one_time_tokens
    where maker = :maker and member_id is not null";
const LIST_KEYS_BY: &str = "select id, member_id from api_keys where maker = :maker";
const LIST_PASSWORDS_BY: &str = "select id from members where password_maker = :maker";
const LIST_CLIENTS_BY: &str = "select client_key from api_clients where maker = :maker";
const LIST_WEBHOOKS_BY: &str = "select id, organization_id from webhooks where maker = :maker and status = 'active'";

/// All open deferred grants of a creator, except member keys and passwords if the creator is an API client.
pub(super) fn list_open(r: &Reader<'_>, maker: &Grantor) -> Result<Vec<Open>> {
    let text = maker.to_text();
    let mut open = r.all(LIST_INVITATIONS_BY, &[(":maker", &text)], |row| {
        Ok(Open::Invitation { id: row.get(0)?, organization: row.get(1)?, role: row.get(2)? })
    })?;
    open.extend(r.all(LIST_LINKS_BY, &[(":maker", &text)], |row| {
        Ok(Open::Link { hash: row.get(0)?, member: row.get(1)?, is_welcome: row.get(2)? })
    })?);
    // Keys that a client created are checked at every use, and passwords at every sign-in. There can be one for each
    // member, and they become valid again if the client does.
    if !matches!(maker, Grantor::Client(_)) {
        open.extend(r.all(LIST_KEYS_BY, &[(":maker", &text)], |row| {
            let id = row.get(0)?;
            Ok(row.get::<_, Option<_>>(1)?.map_or(Open::ServiceKey { id }, |member| Open::Key { id, member }))
        })?);
        let passwords =
            r.all(LIST_PASSWORDS_BY, &[(":maker", &text)], |row| Ok(Open::Password { member: row.get(0)? }))?;
        open.extend(passwords);
    }
    open.extend(r.all(LIST_CLIENTS_BY, &[(":maker", &text)], |row| Ok(Open::Client { client_key: row.get(0)? }))?);
    open.extend(r.all(LIST_WEBHOOKS_BY, &[(":maker", &text)], |row| {
        Ok(Open::Webhook { id: row.get(0)?, organization: row.get(1)? })
    })?);
    Ok(open)
}

const LIST_KEYS_OF: &str = "select id, maker from api_keys where member_id = :member_id and maker is not null";

/// The API keys that others created for a member, with their creators.
pub(super) fn list_keys_of(r: &Reader<'_>, member: MemberId) -> Result<Vec<(Grantor, Open)>> {
    r.all(LIST_KEYS_OF, &[(":member_id", &member)], |row| {
        let maker = Grantor::parse(row.get::<_, Option<String>>(1)?.as_deref());
        Ok((maker, Open::Key { id: row.get(0)?, member }))
    })
}

const FIND_PASSWORD_MAKER: &str = "select password_maker from members where id = :id and password_maker is not null";

/// The password that somebody else set for a member, with its creator.
pub(super) fn find_password_of(r: &Reader<'_>, member: MemberId) -> Result<Option<(Grantor, Open)>> {
    let maker = r.find(FIND_PASSWORD_MAKER, &[(":id", &member)], |row| row.get::<_, String>(0))?;
    Ok(maker.map(|maker| (Grantor::parse(Some(&maker)), Open::Password { member })))
}

const FIND_GRANTEE: &str = "select member_id from grants where id = :id";

/// The member who holds this direct grant.
pub(super) fn find_grantee(r: &Reader<'_>, id: GrantId) -> Result<Option<MemberId>> {
    r.find(FIND_GRANTEE, &[(":id", &id)], |row| row.get(0))
}

/// A loose index scan over `password_maker`: one step per distinct creator, however many members there are.
const LIST_MAKERS: &str = "
    with recursive found (maker) as (
        select min(password_maker) from members where password_maker >= 'member ' and password_maker < 'member!'
        union all
        select (select min(m.password_maker) from members m
                where m.password_maker > found.maker and m.password_maker < 'member!')
        from found
        where found.maker is not null
    )
    select maker from found where maker is not null
    union
    select maker from invitations where accepted_at is null and maker is not null
    union
    select maker from one_time_tokens where maker is not null
    union
    select maker from api_keys where maker >= 'member ' and maker < 'member!'
    union
    select maker from api_clients where maker >= 'member ' and maker < 'member!'
    union
    select maker from webhooks where maker >= 'member ' and maker < 'member!'";

/// All members with open deferred grants. Creators of other kinds can be in the list too.
pub(super) fn list_makers(r: &Reader<'_>) -> Result<Vec<Grantor>> {
    r.all(LIST_MAKERS, &[], |row| row.get::<_, String>(0))
        .map(|all| all.iter().map(|text| Grantor::parse(Some(text))).collect())
}
