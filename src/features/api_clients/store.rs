//! SQL of API clients.

use rusqlite::Row;

use super::ApiClient;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::db::{List, ListPage, PageRequest, Reader, Writer, sql};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::Hash;

const GET_CLIENT: &str = "
    select client_key, name, status = 'active', scopes, allowed_origins, allowed_ips, allowed_paths, rate_limit_per_min,
           expires_at, last_used_at, version, created_at, updated_at
    from api_clients
    where client_key = :client_key";

pub fn get_client(r: &Reader<'_>, client_key: &str) -> Result<ApiClient> {
    r.find(GET_CLIENT, &[(":client_key", &client_key)], client_of)?.ok_or_else(|| ErrorCode::ClientNotFound.into())
}

const LIST_CLIENTS: List = List {
    name: "api_clients",
    columns: "client_key, name, status = 'active', scopes, allowed_origins, allowed_ips, allowed_paths,
              rate_limit_per_min, expires_at, last_used_at, version, created_at, updated_at",
    from: "api_clients",
    joins: "",
    conditions: &["name like :keyword escape '\\' or client_key like :keyword escape '\\'"],
    order: &["created_at", "client_key"],
    costly: &[],
    walked: &[],
    kept: &[],
};

pub fn list_clients(r: &Reader<'_>, keyword: Option<&str>, window: &PageRequest) -> Result<ListPage<ApiClient>> {
    r.page(&LIST_CLIENTS, &[(":keyword", &keyword)], window, client_of)
}

fn client_of(row: &Row<'_>) -> rusqlite::Result<ApiClient> {
    let list = |column: usize| sql::json(row, column);
    Ok(ApiClient {
        client_key: row.get(0)?,
        name: row.get(1)?,
        is_active: row.get(2)?,
        scopes: list(3)?,
        allowed_origins: list(4)?,
        allowed_ips: list(5)?,
        allowed_paths: list(6)?,
        rate_limit_per_min: row.get(7)?,
        expires_at: row.get(8)?,
        last_used_at: row.get(9)?,
        version: row.get(10)?,
        created_at: row.get(11)?,
        updated_at: row.get(12)?,
    })
}

const INSERT_CLIENT: &str = "
    insert into api_clients (client_key, name, status, api_key_hash, scopes, allowed_origins, allowed_ips, allowed_paths,
                             rate_limit_per_min, expires_at, created_at, updated_at)
    values (:client_key, :name, 'active', :api_key_hash, :scopes, :allowed_origins, :allowed_ips, :allowed_paths,
            :rate_limit_per_min, :expires_at, :now, :now)";

pub fn insert_client(w: &Writer<'_>, client: &ApiClient, hash: &Hash) -> Result<()> {
    w.execute(
        INSERT_CLIENT,
        &[
            (":client_key", &client.client_key),
            (":name", &client.name),
            (":api_key_hash", hash),
            (":scopes", &sql::to_json_text(&client.scopes)?),
            (":allowed_origins", &sql::to_json_text(&client.allowed_origins)?),
            (":allowed_ips", &sql::to_json_text(&client.allowed_ips)?),
            (":allowed_paths", &sql::to_json_text(&client.allowed_paths)?),
            (":rate_limit_per_min", &client.rate_limit_per_min),
            (":expires_at", &client.expires_at),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const UPDATE_CLIENT: &str = "
    update api_clients
    set name = :name, status = :status, scopes = :scopes, allowed_origins = :allowed_origins, allowed_ips = :allowed_ips,
        allowed_paths = :allowed_paths, rate_limit_per_min = :rate_limit_per_min, expires_at = :expires_at,
        version = version + 1, updated_at = :now
    where client_key = :client_key";

pub fn update_client(w: &Writer<'_>, client: &ApiClient) -> Result<()> {
    w.execute(
        UPDATE_CLIENT,
        &[
            (":name", &client.name),
            (":status", &if client.is_active { "active" } else { "inactive" }),
            (":scopes", &sql::to_json_text(&client.scopes)?),
            (":allowed_origins", &sql::to_json_text(&client.allowed_origins)?),
            (":allowed_ips", &sql::to_json_text(&client.allowed_ips)?),
            (":allowed_paths", &sql::to_json_text(&client.allowed_paths)?),
            (":rate_limit_per_min", &client.rate_limit_per_min),
            (":expires_at", &client.expires_at),
            (":now", &w.now()),
            (":client_key", &client.client_key),
        ],
    )
    .map(drop)
}

const ROTATE_CLIENT: &str = "
    update api_clients
    set previous_hash = api_key_hash, previous_expires_at = :until, api_key_hash = :api_key_hash, version = version + 1,
        updated_at = :now
    where client_key = :client_key";

/// Stores the hash of a client's new secret; the former secret remains valid until `until`.
pub fn rotate_client(w: &Writer<'_>, client_key: &str, hash: &Hash, until: Timestamp) -> Result<()> {
    w.execute(
        ROTATE_CLIENT,
        &[(":until", &until), (":api_key_hash", hash), (":now", &w.now()), (":client_key", &client_key)],
    )
    .map(drop)
}

const SET_CLIENT_MAKER: &str = "update api_clients set maker = :maker where client_key = :client_key";

/// Sets the principal whose rights the client's scopes depend on.
pub fn set_client_maker(w: &Writer<'_>, client_key: &str, maker: &Grantor) -> Result<()> {
    w.execute(SET_CLIENT_MAKER, &[(":maker", &maker.to_text()), (":client_key", &client_key)]).map(drop)
}

const DELETE_CLIENT: &str = "delete from api_clients where client_key = :client_key";

pub fn delete_client(w: &Writer<'_>, client_key: &str) -> Result<()> {
    w.execute(DELETE_CLIENT, &[(":client_key", &client_key)]).map(drop)
}

const TOUCH_CLIENT: &str = "
    update api_clients
    set last_used_at = :at
    where client_key = :client_key and (last_used_at is null or last_used_at < :at)";

pub fn touch(w: &Writer<'_>, client_key: &str, at: Timestamp) -> Result<()> {
    w.execute(TOUCH_CLIENT, &[(":at", &at), (":client_key", &client_key)]).map(drop)
}
