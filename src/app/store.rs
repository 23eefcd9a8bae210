//! SQL of the rows that belong to no wing: the site itself, its signing keys, remembered requests.

use crate::access::secret::Hash;
use crate::access::token::StoredKey;
use crate::db::{Reader, Writer};
use crate::error::Result;
use crate::ids::{ApiKeyId, MemberId, OrganizationId, PluginId, RoleId, SessionId, Timestamp};

/// The answer to an earlier creating request.
pub(super) struct Remembered {
    pub(super) fingerprint: Hash,
    /// `None` when it showed a secret.
    pub(super) answer: Option<String>,
}

const FOUND_SITE: &str = "
    insert into site (only, epoch, created_at, server_key)
    values (1, 1, :now, :server_key)
    on conflict (only) do nothing";

pub fn found_site(w: &Writer<'_>, server_key: &[u8; 32]) -> Result<()> {
    w.execute(FOUND_SITE, &[(":now", &w.now()), (":server_key", server_key)]).map(drop)
}

const SERVER_KEY: &str = "select server_key from site where only = 1";

pub fn server_key(r: &Reader<'_>) -> Result<[u8; 32]> {
    r.one(SERVER_KEY, &[], |row| row.get(0))
}

const RAISE_EPOCH: &str = "update site set epoch = :epoch where only = 1 and epoch < :epoch";

pub fn raise_epoch(w: &Writer<'_>, epoch: u64) -> Result<()> {
    w.execute(RAISE_EPOCH, &[(":epoch", &i64::try_from(epoch).unwrap_or(i64::MAX))]).map(drop)
}

const INSERT_SIGNING_KEY: &str = "
    insert into signing_keys (id, private_key, public_key, created_at)
    values (:id, :private_key, :public_key, :now)";

pub fn insert_signing_key(w: &Writer<'_>, key: &StoredKey) -> Result<()> {
    w.execute(
        INSERT_SIGNING_KEY,
        &[
            (":id", &key.id),
            (":private_key", &key.private_key),
            (":public_key", &key.public_key),
            (":now", &key.created_at),
        ],
    )
    .map(drop)
}

const DELETE_KEY: &str = "delete from signing_keys where id = :id";

pub fn delete_signing_key(w: &Writer<'_>, id: &str) -> Result<()> {
    w.execute(DELETE_KEY, &[(":id", &id)]).map(drop)
}

const END_SESSIONS: &str = "
    delete from sessions
    where member_id = :member_id and (:kept is null or id <> :kept)
    returning id";
const DELETE_CHALLENGES: &str = "
    delete from one_time_tokens
    where member_id = :member_id and purpose = 'second_factor'";

/// Ends a member's sessions, but one that may be kept, and sign-ins that wait for a second factor; answers which
/// sessions ended.
pub fn end_sessions(w: &Writer<'_>, member: MemberId, kept: Option<SessionId>) -> Result<Vec<SessionId>> {
    w.execute(DELETE_CHALLENGES, &[(":member_id", &member)])?;
    w.all(END_SESSIONS, &[(":member_id", &member), (":kept", &kept)], |row| row.get(0))
}

const WITHDRAW_INVITATIONS: &str = "delete from invitations where role_id = :role_id and accepted_at is null";
const FORGET_INVITED_ROLE: &str = "update invitations set role_id = null where role_id = :role_id";

/// Open invitations to a role that is about to go; accepted ones only forget what it was.
pub fn withdraw_invitations_of_role(w: &Writer<'_>, role: RoleId) -> Result<usize> {
    let withdrawn = w.execute(WITHDRAW_INVITATIONS, &[(":role_id", &role)])?;
    w.execute(FORGET_INVITED_ROLE, &[(":role_id", &role)])?;
    Ok(withdrawn)
}

const DELETE_API_KEYS: &str = "delete from api_keys where member_id = :member_id returning id";

/// Deletes a member's API keys; answers which.
pub fn delete_api_keys(w: &Writer<'_>, member: MemberId) -> Result<Vec<ApiKeyId>> {
    w.all(DELETE_API_KEYS, &[(":member_id", &member)], |row| row.get(0))
}

const FIND_SETUP: &str = "select setup_hash, setup_expires_at from site where only = 1";

/// The pending set-up link and its end.
pub fn find_setup(r: &Reader<'_>) -> Result<Option<(Hash, Timestamp)>> {
    let found: Option<(Option<Hash>, Option<Timestamp>)> =
        r.find(FIND_SETUP, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.and_then(|(hash, until)| hash.zip(until)))
}

const SET_SETUP: &str = "update site set setup_hash = :hash, setup_expires_at = :until where only = 1";

pub fn set_setup(w: &Writer<'_>, link: Option<(Hash, Timestamp)>) -> Result<()> {
    let (hash, until) = link.unzip();
    w.execute(SET_SETUP, &[(":hash", &hash), (":until", &until)]).map(drop)
}

const FIND_REMEMBERED: &str = "
    select fingerprint, answer
    from idempotency_keys
    where caller = :caller and action = :action and key = :key and created_at > :since";

pub(super) fn find_remembered(
    r: &Reader<'_>,
    (caller, action, key): (&str, &str, &str),
    since: Timestamp,
) -> Result<Option<Remembered>> {
    r.find(FIND_REMEMBERED, &[(":caller", &caller), (":action", &action), (":key", &key), (":since", &since)], |row| {
        Ok(Remembered { fingerprint: row.get(0)?, answer: row.get(1)? })
    })
}

const REMEMBER: &str = "
    insert or replace into idempotency_keys (caller, action, key, fingerprint, answer, created_at)
    values (:caller, :action, :key, :fingerprint, :answer, :now)";

pub(super) fn remember(
    w: &Writer<'_>,
    (caller, action, key): (&str, &str, &str),
    remembered: &Remembered,
) -> Result<()> {
    w.execute(
        REMEMBER,
        &[
            (":caller", &caller),
            (":action", &action),
            (":key", &key),
            (":fingerprint", &remembered.fingerprint),
            (":answer", &remembered.answer),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const FORGET_NAMING: &str = "delete from idempotency_keys where instr(answer, :text) > 0";

pub fn forget_answers_naming(w: &Writer<'_>, text: &str) -> Result<()> {
    w.execute(FORGET_NAMING, &[(":text", &text)]).map(drop)
}

const FORGET: &str = "delete from idempotency_keys where created_at <= :since";

pub fn forget_remembered(w: &Writer<'_>, since: Timestamp) -> Result<usize> {
    w.execute(FORGET, &[(":since", &since)])
}

const GET_COMPONENT: &str = "select component from plugin_components where sha256 = :sha256";

/// The bytes of an uploaded component.
pub(super) fn get_component(r: &Reader<'_>, sha256: &Hash) -> Result<Vec<u8>> {
    r.one(GET_COMPONENT, &[(":sha256", sha256)], |row| row.get(0))
}

const HAS_COMPONENT: &str = "
    select 1
    from plugin_versions v
    join plugins p on p.id = v.plugin_id
    where v.sha256 = :sha256 and p.organization_id = :organization_id
    limit 1";

/// Has the organization a version with these bytes?
pub(super) fn has_component(r: &Reader<'_>, (organization, sha256): (OrganizationId, Hash)) -> Result<bool> {
    let parameters: [(&str, &dyn rusqlite::ToSql); 2] = [(":sha256", &sha256), (":organization_id", &organization)];
    r.find(HAS_COMPONENT, &parameters, |_| Ok(())).map(|found| found.is_some())
}

const LIST_COMPONENTS: &str = "
    select distinct p.organization_id, v.sha256
    from plugin_versions v
    join plugins p on p.id = v.plugin_id";

/// All that was uploaded, by organization and digest.
pub(super) fn list_components(r: &Reader<'_>) -> Result<Vec<(OrganizationId, Hash)>> {
    r.all(LIST_COMPONENTS, &[], |row| Ok((row.get(0)?, row.get(1)?)))
}

const QUARANTINE: &str = "
    update plugin_versions set quarantined_at = :now where plugin_id = :plugin_id and version = :version";

pub(super) fn quarantine(w: &Writer<'_>, plugin: PluginId, version: u32) -> Result<()> {
    w.execute(QUARANTINE, &[(":now", &w.now()), (":plugin_id", &plugin), (":version", &version)]).map(drop)
}

const USE_UP: &str = "
    insert into one_time_tokens (hash, purpose, member_id, expires_at, created_at)
    values (:hash, 'used', :member_id, :expires_at, :now)
    on conflict (hash) do nothing";

/// Marks something as used until it ends by itself; answers whether this was the first time. Who erases the member
/// erases the mark too.
pub fn use_up(w: &Writer<'_>, hash: &Hash, member: Option<MemberId>, expires_at: Timestamp) -> Result<bool> {
    let parameters: [(&str, &dyn rusqlite::ToSql); 4] =
        [(":hash", hash), (":member_id", &member), (":expires_at", &expires_at), (":now", &w.now())];
    w.execute(USE_UP, &parameters).map(|rows| rows == 1)
}

const IS_USED_UP: &str = "select 1 from one_time_tokens where hash = :hash and purpose = 'used'";

/// Is it marked as used?
pub fn is_used_up(r: &Reader<'_>, hash: &Hash) -> Result<bool> {
    Ok(r.find(IS_USED_UP, &[(":hash", hash)], |_| Ok(()))?.is_some())
}
