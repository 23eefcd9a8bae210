//! SQL of members, identities and memberships.

use rusqlite::Row;

use super::{Capacity, Login, Member, NewMember, folded, search_store};
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::snapshot::MemberStatus;
use crate::kernel::db::sql;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId, Timestamp};

const FIND_MEMBER: &str = "
    select m.id, m.username, m.email, m.display_name, m.status, i.subject, i.account_id, m.version, m.created_at,
           m.updated_at, m.username_by_site
    from members m
    left join identities i on i.member_id = m.id and i.provider = 'authentik'
    where m.id = :id";

pub fn find_member(r: &Reader<'_>, id: MemberId) -> Result<Option<Member>> {
    r.find(FIND_MEMBER, &[(":id", &id)], member_of)
}

pub fn get_member(r: &Reader<'_>, id: MemberId) -> Result<Member> {
    find_member(r, id)?.ok_or_else(|| ErrorCode::MemberNotFound.into())
}

const FIND_MEMBER_IN: &str = "
    select m.id, m.username, m.email, m.display_name, m.status, i.subject, i.account_id, m.version, m.created_at,
           m.updated_at, m.username_by_site
    from memberships s
    join members m on m.id = s.member_id
    left join identities i on i.member_id = m.id and i.provider = 'authentik'
    where s.organization_id = :organization_id and s.member_id = :id";

/// Returns the member if it belongs to the organization.
pub fn find_member_in(r: &Reader<'_>, organization: OrganizationId, id: MemberId) -> Result<Option<Member>> {
    r.find(FIND_MEMBER_IN, &[(":organization_id", &organization), (":id", &id)], member_of)
}

const HIDES_FOLDER: &str = "
    select (:member_id is not null
            and not exists (select 1 from memberships
                            where organization_id = :organization_id and member_id = :member_id))
        or exists (select 1
                   from identities i
                   where i.provider = 'sftpgo' and i.subject = :folder
                     and not exists (select 1 from memberships s
                                     where s.organization_id = :organization_id and s.member_id = i.member_id))
        or exists (select 1
                   from members m
                   where m.username_folded = :folded and m.username = :folder and m.username_by_site = 1
                     and not exists (select 1 from identities where provider = 'sftpgo' and subject = :folder)
                     and not exists (select 1 from memberships s
                                     where s.organization_id = :organization_id and s.member_id = m.id))";

/// Whether the folder, or the video in it, belongs to a member outside the organization.
pub fn hides_folder(
    r: &Reader<'_>,
    organization: OrganizationId,
    owner: Option<MemberId>,
    folder: &str,
) -> Result<bool> {
    let parameters: crate::kernel::db::sql::Parameters<'_> = &[
        (":member_id", &owner),
        (":organization_id", &organization),
        (":folder", &folder),
        (":folded", &folded(folder)),
    ];
    r.one(HIDES_FOLDER, parameters, |row| row.get(0))
}

const FIND_BY_IDENTITY: &str = "
    select m.id, m.username, m.email, m.display_name, m.status, a.subject, a.account_id, m.version, m.created_at,
           m.updated_at, m.username_by_site
    from identities i
    join members m on m.id = i.member_id
    left join identities a on a.member_id = m.id and a.provider = 'authentik'
                              and (i.provider <> 'authentik' or a.subject = i.subject)
    where i.provider = :provider and i.subject = :subject";

pub fn find_by_identity(r: &Reader<'_>, provider: &str, subject: &str) -> Result<Option<Member>> {
    r.find(FIND_BY_IDENTITY, &[(":provider", &provider), (":subject", &subject)], member_of)
}

const LIST_KNOWN: &str = "
    select m.id, m.username, m.email, m.display_name, m.status, a.subject, a.account_id, m.version, m.created_at,
           m.updated_at, m.username_by_site, i.subject
    from identities i
    join members m on m.id = i.member_id
    left join identities a on a.member_id = m.id and a.provider = 'authentik'
                              and (i.provider <> 'authentik' or a.subject = i.subject)
    where i.provider = :provider
    order by i.subject";

/// Returns all members with an identity at a provider, sorted by subject.
pub fn list_by_provider(r: &Reader<'_>, provider: &str) -> Result<Vec<(String, Member)>> {
    r.all(LIST_KNOWN, &[(":provider", &provider)], |row| Ok((row.get(11)?, member_of(row)?)))
}

const FIND_SFTPGO_NAME: &str = "
    select coalesce(i.subject, case when m.username_by_site = 1
                                         and not exists (select 1 from identities
                                                         where provider = 'sftpgo' and subject = m.username)
                               then m.username end)
    from members m
    left join identities i on i.member_id = m.id and i.provider = 'sftpgo'
    where m.id = :id
    order by i.created_at
    limit 1";

pub fn find_sftpgo_name(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    r.find(FIND_SFTPGO_NAME, &[(":id", &id)], |row| row.get(0)).map(Option::flatten)
}

const FIND_OWNER_OF_FOLDER: &str = "
    select coalesce(
        (select member_id from identities where provider = 'sftpgo' and subject = :name),
        (select m.id
         from members m
         where m.username_folded = :folded and m.username = :name and m.username_by_site = 1
           and m.status in ('active', 'suspended')
           and not exists (select 1 from identities i where i.member_id = m.id and i.provider = 'sftpgo')))";

/// Returns the member with this name at SFTPGo; or with this username, if the site vouches for it and the member has no
/// name at SFTPGo.
pub fn find_owner_of_folder(r: &Reader<'_>, name: &str) -> Result<Option<MemberId>> {
    r.one(FIND_OWNER_OF_FOLDER, &[(":folded", &folded(name)), (":name", &name)], |row| row.get(0))
}

const FIND_SUBJECT: &str = "
    select subject
    from identities
    where member_id = :member_id and provider not in ('wordpress', 'sftpgo')
    order by provider <> 'authentik', created_at
    limit 1";

/// Returns a member's subject at the provider it signs in with: Authentik's, or that of the oldest other identity.
pub fn find_subject(r: &Reader<'_>, member: MemberId) -> Result<Option<String>> {
    r.find(FIND_SUBJECT, &[(":member_id", &member)], |row| row.get(0))
}

pub(super) fn member_of(row: &Row<'_>) -> rusqlite::Result<Member> {
    Ok(Member {
        id: row.get(0)?,
        username: row.get(1)?,
        email: row.get(2)?,
        display_name: row.get(3)?,
        status: row.get(4)?,
        authentik_sub: row.get(5)?,
        authentik_user_id: row.get(6)?,
        version: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
        username_by_site: row.get(10)?,
    })
}

const FIND_LOGIN: &str = "
    select m.id, m.username, m.email, m.display_name, m.status, i.subject, i.account_id, m.version, m.created_at,
           m.updated_at, m.username_by_site, m.password_hash
    from members m
    left join identities i on i.member_id = m.id and i.provider = 'authentik'
    where m.email_folded = :login or m.username_folded = :login";

pub fn find_login(r: &Reader<'_>, login: &str) -> Result<Option<Login>> {
    r.find(FIND_LOGIN, &[(":login", &folded(login))], |row| {
        Ok(Login { member: member_of(row)?, password_hash: row.get(11)? })
    })
}

const RELEASE_PENDING_NAMES: &str = "
    update members
    set username = null, username_folded = null, username_by_site = 0, email = null, email_folded = null
    where status = 'pending' and id <> :id and (email_folded = :email_folded or username_folded = :username_folded)";

/// Removes the names from a pending registration if another member gets them, so that an unconfirmed registration
/// blocks no name.
fn release_pending_names(w: &Writer<'_>, id: MemberId, username: Option<&str>, email: Option<&str>) -> Result<()> {
    w.execute(
        RELEASE_PENDING_NAMES,
        &[(":id", &id), (":email_folded", &email.map(folded)), (":username_folded", &username.map(folded))],
    )
    .map(drop)
}

const INSERT_MEMBER: &str = "
    insert into members (id, username, username_folded, username_by_site, email, email_folded, display_name, status,
                         password_hash, created_at, updated_at)
    values (:id, :username, :username_folded, :username_by_site, :email, :email_folded, :display_name, :status,
            :password_hash, :now, :now)";

/// The error code for each unique index.
const UNIQUE: &[(&str, ErrorCode)] =
    &[("members.email_folded", ErrorCode::EmailExists), ("members.username_folded", ErrorCode::UsernameExists)];

pub fn insert_member(w: &Writer<'_>, capacity: Capacity, id: MemberId, new: &NewMember) -> Result<()> {
    release_pending_names(w, id, new.username.as_deref(), new.email.as_deref())?;
    let status = if new.is_suspended { MemberStatus::Suspended } else { MemberStatus::Active };
    w.insert(
        INSERT_MEMBER,
        &[
            (":id", &id),
            (":username", &new.username),
            (":username_folded", &new.username.as_deref().map(folded)),
            (":username_by_site", &(new.username_by_site && new.username.is_some())),
            (":email", &new.email),
            (":email_folded", &new.email.as_deref().map(folded)),
            (":display_name", &new.display_name),
            (":status", &status.as_str()),
            (":password_hash", &new.password_hash),
            (":now", &w.now()),
        ],
        UNIQUE,
    )?;
    capacity.0.map_or(Ok(()), |organization| insert_created(w, organization, id))
}

const UPDATE_MEMBER: &str = "
    update members
    set username = :username, username_folded = :username_folded, username_by_site = :username_by_site, email = :email,
        email_folded = :email_folded, display_name = :display_name, version = version + 1, updated_at = :now
    where id = :id";

/// Updates the names of a member: username, e-mail, display name.
pub fn update_names(w: &Writer<'_>, member: &Member) -> Result<()> {
    release_pending_names(w, member.id, member.username.as_deref(), member.email.as_deref())?;
    w.insert(
        UPDATE_MEMBER,
        &[
            (":username", &member.username),
            (":username_folded", &member.username.as_deref().map(folded)),
            (":username_by_site", &member.username_by_site),
            (":email", &member.email),
            (":email_folded", &member.email.as_deref().map(folded)),
            (":display_name", &member.display_name),
            (":now", &w.now()),
            (":id", &member.id),
        ],
        UNIQUE,
    )
}

const SET_STATUS: &str = "
    update members
    set status = :status, status_reason = null, version = version + 1, updated_at = :now
    where id = :id";

pub fn set_status(w: &Writer<'_>, id: MemberId, status: MemberStatus) -> Result<()> {
    w.execute(SET_STATUS, &[(":status", &status.as_str()), (":now", &w.now()), (":id", &id)]).map(drop)
}

const FIND_PASSWORD: &str = "select password_hash from members where id = :id";

pub fn find_password(r: &Reader<'_>, id: MemberId) -> Result<Option<String>> {
    r.find(FIND_PASSWORD, &[(":id", &id)], |row| row.get(0)).map(Option::flatten)
}

/// Skips from one kind to the next in the index, so the cost does not depend on the number of members.
const LIST_HASH_KINDS: &str = "
    with recursive found (kind) as (
        select min(hash_kind) from members where hash_kind is not null
        union all
        select (select min(m.hash_kind) from members m where m.hash_kind > found.kind)
        from found
        where found.kind is not null
    )
    select kind from found where kind is not null";

/// Returns the distinct prefixes of the stored hashes, which contain their cost parameters.
pub fn list_hash_kinds(r: &Reader<'_>) -> Result<Vec<String>> {
    r.all(LIST_HASH_KINDS, &[], |row| row.get(0))
}

const REPLACE_HASH: &str = "
    update members
    set password_hash = :password_hash
    where id = :id and password_hash = :former";

/// Replaces the hash of the same password. Does nothing if another password was set meanwhile.
pub fn replace_hash(w: &Writer<'_>, id: MemberId, former: &str, password_hash: &str) -> Result<()> {
    w.execute(REPLACE_HASH, &[(":password_hash", &password_hash), (":id", &id), (":former", &former)]).map(drop)
}

const SET_PASSWORD: &str = "
    update members
    set password_hash = :password_hash, password_maker = :maker, version = version + 1, updated_at = :now
    where id = :id";

pub fn set_password(w: &Writer<'_>, id: MemberId, password_hash: &str, maker: Option<&Grantor>) -> Result<()> {
    let maker = maker.and_then(text_of_maker);
    w.execute(SET_PASSWORD, &[(":password_hash", &password_hash), (":maker", &maker), (":now", &w.now()), (":id", &id)])
        .map(drop)
}

const SET_PASSWORD_MAKER: &str = "
    update members
    set password_maker = :maker
    where id = :id and password_hash is not null";

/// Stores who chose the member's current password.
pub fn set_password_maker(w: &Writer<'_>, id: MemberId, maker: &Grantor) -> Result<()> {
    w.execute(SET_PASSWORD_MAKER, &[(":maker", &text_of_maker(maker)), (":id", &id)]).map(drop)
}

/// `Grantor::Site` is stored as null: the owner of the machine needs no password to act as a member.
fn text_of_maker(maker: &Grantor) -> Option<String> {
    (*maker != Grantor::Site).then(|| maker.to_text())
}

const FIND_PASSWORD_MAKER: &str = "select password_maker from members where id = :id";

pub fn find_password_maker(r: &Reader<'_>, id: MemberId) -> Result<Option<Grantor>> {
    let text = r.find(FIND_PASSWORD_MAKER, &[(":id", &id)], |row| row.get::<_, Option<String>>(0))?.flatten();
    Ok(text.map(|text| Grantor::parse(Some(&text))))
}

const END_PASSWORD: &str = "
    update members
    set password_hash = null, password_maker = null, version = version + 1, updated_at = :now
    where id = :id";

pub fn end_password(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(END_PASSWORD, &[(":now", &w.now()), (":id", &member)]).map(drop)
}

const DROP_PASSWORD: &str = "update members set password_hash = null, password_maker = null where id = :id";

pub fn drop_password(w: &Writer<'_>, id: MemberId) -> Result<()> {
    w.execute(DROP_PASSWORD, &[(":id", &id)]).map(drop)
}

const REPLACE_PENDING: &str = "
    update members
    set password_hash = :password_hash, version = version + 1, updated_at = :now
    where id = :id and status = 'pending'";

/// Replaces the password of a pending registration, when the user registers again.
pub fn replace_pending(w: &Writer<'_>, id: MemberId, password_hash: &str) -> Result<()> {
    w.execute(REPLACE_PENDING, &[(":password_hash", &password_hash), (":now", &w.now()), (":id", &id)]).map(drop)
}

/// Registrations to which an administrator assigned something meanwhile stay.
const LIST_LAPSED: &str = "
    select m.id
    from members m
    where m.status = 'pending' and m.updated_at <= :before
      and not exists (select 1 from memberships where member_id = m.id)
      and not exists (select 1 from grants where member_id = m.id)
      and not exists (select 1 from identities where member_id = m.id)
      and not exists (select 1 from sessions where member_id = m.id)
      and not exists (select 1 from api_keys where member_id = m.id)
      and not exists (select 1 from invitations where member_id = m.id)
      and not exists (select 1 from second_factors where member_id = m.id)
      and not exists (select 1 from recovery_codes where member_id = m.id)
      and not exists (select 1 from quotas where member_id = m.id)
    limit :most";

/// Returns pending registrations that were last changed before this time, and that no other rows reference.
pub fn list_lapsed(r: &Reader<'_>, before: Timestamp, most: usize) -> Result<Vec<MemberId>> {
    r.all(LIST_LAPSED, &[(":before", &before), (":most", &sql::limit(most))], |row| row.get(0))
}

const IS_LAPSED: &str = "
    select 1
    from members m
    where m.id = :id and m.status = 'pending' and m.updated_at <= :before
      and not exists (select 1 from memberships where member_id = m.id)
      and not exists (select 1 from grants where member_id = m.id)
      and not exists (select 1 from identities where member_id = m.id)
      and not exists (select 1 from sessions where member_id = m.id)
      and not exists (select 1 from api_keys where member_id = m.id)
      and not exists (select 1 from invitations where member_id = m.id)
      and not exists (select 1 from second_factors where member_id = m.id)
      and not exists (select 1 from recovery_codes where member_id = m.id)
      and not exists (select 1 from quotas where member_id = m.id)";
const DELETE_LAPSED: &str = "delete from members where id = :id and status = 'pending'";

/// Whether a member is still a registration as in [`list_lapsed`].
pub fn is_lapsed(r: &Reader<'_>, id: MemberId, before: Timestamp) -> Result<bool> {
    Ok(r.find(IS_LAPSED, &[(":id", &id), (":before", &before)], |_| Ok(()))?.is_some())
}

/// Deletes the row of a registration that was not completed. It was never used, so unlike an erased member its id need
/// not stay.
pub fn delete_lapsed(w: &Writer<'_>, id: MemberId) -> Result<()> {
    w.execute(DELETE_LAPSED, &[(":id", &id)]).map(drop)
}

const ERASE_MEMBER: &str = "
    update members
    set username = null, username_folded = null, username_by_site = 0, email = null, email_folded = null,
        display_name = null, password_hash = null, password_maker = null, status = 'deleted', status_reason = null,
        version = version + 1, updated_at = :now
    where id = :id";
const DELETE_IDENTITIES: &str = "delete from identities where member_id = :id";

/// Deletes the personal data in the tables of this feature. Other features must have deleted theirs already.
pub fn erase_member(w: &Writer<'_>, id: MemberId) -> Result<()> {
    w.execute(DELETE_IDENTITIES, &[(":id", &id)])?;
    delete_made(w, id)?;
    w.execute(ERASE_MEMBER, &[(":now", &w.now()), (":id", &id)])?;
    search_store::merge_index(w)
}

const COUNT_GRANTS: &str = "select count(*) from grants where member_id = :id";

pub fn count_grants(r: &Reader<'_>, id: MemberId) -> Result<i64> {
    r.one(COUNT_GRANTS, &[(":id", &id)], |row| row.get(0))
}

const INSERT_IDENTITY: &str = "
    insert into identities (provider, subject, member_id, account_id, created_at)
    values (:provider, :subject, :member_id, :account_id, :now)";

pub fn insert_identity(
    w: &Writer<'_>,
    id: MemberId,
    provider: &str,
    subject: &str,
    account_id: Option<&str>,
) -> Result<()> {
    w.insert(
        INSERT_IDENTITY,
        &[
            (":provider", &provider),
            (":subject", &subject),
            (":member_id", &id),
            (":account_id", &account_id),
            (":now", &w.now()),
        ],
        &[("identities", ErrorCode::MemberExists)],
    )
}

const FIND_ACCOUNT_ID: &str = "
    select account_id
    from identities
    where provider = :provider and subject = :subject and account_id is not null";

pub fn find_account_id(r: &Reader<'_>, provider: &str, subject: &str) -> Result<Option<String>> {
    r.find(FIND_ACCOUNT_ID, &[(":provider", &provider), (":subject", &subject)], |row| row.get(0))
}

const FIND_NAME_AT: &str = "
    select subject
    from identities
    where member_id = :member_id and provider = :provider
    order by created_at
    limit 1";

/// Returns a member's oldest subject at a provider.
pub fn find_subject_at(r: &Reader<'_>, member: MemberId, provider: &str) -> Result<Option<String>> {
    r.find(FIND_NAME_AT, &[(":member_id", &member), (":provider", &provider)], |row| row.get(0))
}

const LIST_NUMBERS_AT: &str = "
    select cast(subject as integer)
    from identities
    where provider = :provider and cast(subject as integer) > :above
    order by cast(subject as integer)
    limit :most";

pub fn list_numeric_subjects(r: &Reader<'_>, provider: &str, above: u64, most: usize) -> Result<Vec<u64>> {
    let (above, most) = (i64::try_from(above).unwrap_or(i64::MAX), i64::try_from(most).unwrap_or(i64::MAX));
    let numbers = r.all(LIST_NUMBERS_AT, &[(":provider", &provider), (":above", &above), (":most", &most)], |row| {
        row.get::<_, i64>(0)
    })?;
    Ok(numbers.into_iter().map(i64::unsigned_abs).collect())
}

const SET_ACCOUNT_ID: &str = "
    update identities
    set account_id = :account_id
    where member_id = :member_id and provider = :provider";

pub fn set_account_id(w: &Writer<'_>, id: MemberId, provider: &str, account_id: &str) -> Result<()> {
    w.execute(SET_ACCOUNT_ID, &[(":account_id", &account_id), (":member_id", &id), (":provider", &provider)]).map(drop)
}

// ── memberships ──

pub use super::membership_store::{Membership, delete_made, has_created, insert_created, list_memberships};

const FIND_MEMBERSHIP: &str = "
    select created_at
    from memberships
    where organization_id = :organization_id and member_id = :member_id";

pub fn find_membership(r: &Reader<'_>, organization: OrganizationId, member: MemberId) -> Result<Option<Timestamp>> {
    r.find(FIND_MEMBERSHIP, &[(":organization_id", &organization), (":member_id", &member)], |row| row.get(0))
}

const INSERT_MEMBERSHIP: &str = "
    insert into memberships (organization_id, member_id, created_at)
    values (:organization_id, :member_id, :now)";

pub fn insert_membership(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<()> {
    w.execute(INSERT_MEMBERSHIP, &[(":organization_id", &organization), (":member_id", &member), (":now", &w.now())])
        .map(drop)
}

const DELETE_MEMBERSHIP: &str = "
    delete from memberships
    where organization_id = :organization_id and member_id = :member_id";

pub fn delete_membership(w: &Writer<'_>, organization: OrganizationId, member: MemberId) -> Result<usize> {
    w.execute(DELETE_MEMBERSHIP, &[(":organization_id", &organization), (":member_id", &member)])
}
