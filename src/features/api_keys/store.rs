//! SQL of API keys.

use rusqlite::Row;
use rusqlite::types::FromSqlError;

use super::{KeyRow, NewKey};
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::key::{ApiKeyKind, Owner};
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer, sql};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::{ApiKeyId, MemberId, Timestamp};
use crate::kernel::secret::Hash;

const FIND_KEY: &str = "
    select id, type, name, member_id, service_name, is_imported, scopes, expires_at, previous_expires_at, spent_at,
           last_used_at, last_used_address, created_at, updated_at
    from api_keys
    where id = :id";

pub fn find_key(r: &Reader<'_>, id: ApiKeyId) -> Result<Option<KeyRow>> {
    r.find(FIND_KEY, &[(":id", &id)], key_of)
}

const LIST_KEYS: List = List {
    name: "api_keys",
    columns: "id, type, name, member_id, service_name, is_imported, scopes, expires_at, previous_expires_at, spent_at,
              last_used_at, last_used_address, created_at, updated_at",
    from: "api_keys",
    joins: "",
    conditions: &[
        "member_id = :member_id",
        "member_id is null and :of_services",
        "name like :keyword escape '\\' or service_name like :keyword escape '\\'",
    ],
    order: &["created_at", "id"],
    costly: &[],
    walked: &[],
    kept: &[],
};

/// Lists the keys of a member, or those of all services if `member` is `None`.
pub fn list_keys(
    r: &Reader<'_>,
    member: Option<MemberId>,
    keyword: Option<&str>,
    window: &PageRequest,
) -> Result<ListPage<KeyRow>> {
    let of_services = member.is_none().then_some(true);
    r.page(
        &LIST_KEYS,
        &[(":member_id", &member), (":of_services", &of_services), (":keyword", &keyword)],
        window,
        key_of,
    )
}

const COUNT_KEYS: &str = "select count(*) from api_keys where member_id is :member_id";

/// Counts the keys of a member, or those of all services together.
pub fn count_keys(r: &Reader<'_>, owner: &Owner) -> Result<u64> {
    let (member, _) = columns_of(owner);
    let count = r.one(COUNT_KEYS, &[(":member_id", &member)], |row| row.get::<_, i64>(0))?;
    Ok(u64::try_from(count).unwrap_or_default())
}

const LIST_UNANNOUNCED: &str = "
    select id, type, name, member_id, service_name, is_imported, scopes, expires_at, previous_expires_at, spent_at,
           last_used_at, last_used_address, created_at, updated_at
    from api_keys
    where expires_at > :now and expires_at <= :until and notified_at is null and spent_at is null";

/// Lists the keys that expire by `until` and have had no notice.
pub fn list_unannounced(r: &Reader<'_>, now: Timestamp, until: Timestamp) -> Result<Vec<KeyRow>> {
    r.all(LIST_UNANNOUNCED, &[(":now", &now), (":until", &until)], key_of)
}

const SET_NOTIFIED: &str = "update api_keys set notified_at = :now where id = :id";

pub fn set_notified(w: &Writer<'_>, id: ApiKeyId) -> Result<()> {
    w.execute(SET_NOTIFIED, &[(":now", &w.now()), (":id", &id)]).map(drop)
}

const INSERT_KEY: &str = "
    insert into api_keys (id, type, name, member_id, service_name, hash, is_imported, scopes, expires_at, created_at,
                          updated_at, maker)
    values (:id, :type, :name, :member_id, :service_name, :hash, :is_imported, :scopes, :expires_at, :now, :now, :maker)";

pub fn insert_key(
    w: &Writer<'_>,
    (id, maker): (ApiKeyId, &Grantor),
    new: &NewKey,
    hash: &Hash,
    expires_at: Timestamp,
) -> Result<()> {
    let (member, service) = columns_of(&new.owner);
    w.insert(
        INSERT_KEY,
        &[
            (":id", &id),
            (":type", &new.kind.prefix),
            (":name", &new.name),
            (":member_id", &member),
            (":service_name", &service),
            (":hash", hash),
            (":is_imported", &new.imported.is_some()),
            (":scopes", &sql::to_json_text(&new.scopes)?),
            (":expires_at", &expires_at),
            (":now", &w.now()),
            (":maker", &maker_of(&new.owner, maker)),
        ],
        &[("api_keys.hash", ErrorCode::ApiKeyExists)],
    )
}

const ROTATE_KEY: &str = "
    update api_keys
    set previous_hash = hash, previous_expires_at = :former_ends_at, hash = :hash, expires_at = :expires_at,
        notified_at = null, version = version + 1, updated_at = :now, maker = :maker
    where id = :id";

/// Stores the hash of a key's new text; the former text remains valid until `former_ends_at`.
pub fn rotate_key(
    w: &Writer<'_>,
    (key, maker): (&KeyRow, &Grantor),
    hash: &Hash,
    expires_at: Timestamp,
    former_ends_at: Timestamp,
) -> Result<()> {
    w.execute(
        ROTATE_KEY,
        &[
            (":former_ends_at", &former_ends_at),
            (":hash", hash),
            (":expires_at", &expires_at),
            (":now", &w.now()),
            (":maker", &maker_of(&key.owner, maker)),
            (":id", &key.id),
        ],
    )
    .map(drop)
}

const SPEND_KEY: &str = "update api_keys set spent_at = :now where id = :id and spent_at is null";

/// Marks an emergency key as used. Returns false if it was used before or does not exist.
pub fn spend_key(w: &Writer<'_>, id: ApiKeyId) -> Result<bool> {
    Ok(w.execute(SPEND_KEY, &[(":now", &w.now()), (":id", &id)])? == 1)
}

const DELETE_KEY: &str = "delete from api_keys where id = :id";

pub fn delete_key(w: &Writer<'_>, id: ApiKeyId) -> Result<()> {
    w.execute(DELETE_KEY, &[(":id", &id)]).map(drop)
}

const DELETE_ENDED: &str = "
    delete from api_keys
    where id in (select id from api_keys where expires_at <= :before limit :most)
    returning id";

/// Deletes at most `most` keys that expired by `before`, and returns their ids.
pub fn delete_expired(w: &Writer<'_>, before: Timestamp, most: usize) -> Result<Vec<ApiKeyId>> {
    w.all(DELETE_ENDED, &[(":before", &before), (":most", &sql::limit(most))], |row| row.get(0))
}

const TOUCH_KEY: &str = "
    update api_keys
    set last_used_at = :at, last_used_address = :address
    where id = :id and (last_used_at is null or last_used_at < :at)";

pub fn touch_key(w: &Writer<'_>, id: ApiKeyId, at: Timestamp, address: Option<&str>) -> Result<()> {
    w.execute(TOUCH_KEY, &[(":at", &at), (":address", &address), (":id", &id)]).map(drop)
}

/// The `maker` column of a key: null for a key that the member created.
fn maker_of(owner: &Owner, maker: &Grantor) -> Option<String> {
    let is_own = matches!((owner, maker), (Owner::Member(owner), Grantor::Member(maker)) if owner == maker);
    (!is_own).then(|| maker.to_text())
}

/// The two owner columns, one of which is null.
fn columns_of(owner: &Owner) -> (Option<MemberId>, Option<&str>) {
    match owner {
        Owner::Member(id) => (Some(*id), None),
        Owner::Service(name) => (None, Some(name)),
    }
}

fn key_of(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    let prefix = row.get_ref(1)?.as_str()?;
    let (member, service): (Option<MemberId>, Option<String>) = (row.get(3)?, row.get(4)?);
    Ok(KeyRow {
        id: row.get(0)?,
        kind: ApiKeyKind::of(prefix).ok_or(FromSqlError::InvalidType)?,
        name: row.get(2)?,
        owner: member.map_or_else(|| Owner::Service(service.unwrap_or_default().into()), Owner::Member),
        is_imported: row.get(5)?,
        scopes: sql::json(row, 6)?,
        expires_at: row.get(7)?,
        former_ends_at: row.get(8)?,
        spent_at: row.get(9)?,
        last_used_at: row.get(10)?,
        last_used_address: row.get(11)?,
        created_at: row.get(12)?,
        updated_at: row.get(13)?,
    })
}

const DELETE_OF_MEMBER: &str = "delete from api_keys where member_id = :member_id returning id";

/// Deletes a member's API keys and returns their ids.
pub fn delete_of_member(w: &Writer<'_>, member: MemberId) -> Result<Vec<ApiKeyId>> {
    w.all(DELETE_OF_MEMBER, &[(":member_id", &member)], |row| row.get(0))
}
