//! SQL of the rows that belong to no wing: the site itself, its signing keys, remembered requests.

use super::encryption::Known;
use crate::access::encryption::{self, Encryption, KeyId, Place};
use crate::access::secret::Hash;
use crate::access::store::encrypt;
use crate::access::token::StoredKey;
use crate::db::{Reader, Writer, sql};
use crate::error::{Error, Result};
use crate::ids::{ApiKeyId, MemberId, OrganizationId, PluginId, RoleId, SessionId, Timestamp};

/// The answer to an earlier creating request.
pub(super) struct Remembered {
    pub(super) fingerprint: Hash,
    /// `None` when it showed a secret.
    pub(super) answer: Option<String>,
}

const FOUND_SITE: &str = "
    insert into site (only, epoch, created_at, server_key, encryption_key_id)
    values (1, 1, :now, :server_key, :key_id)
    on conflict (only) do nothing";

pub fn found_site(w: &Writer<'_>, encryption: &Encryption, server_key: &[u8; 32]) -> Result<()> {
    let id = encryption.key_id()?;
    let stored = encryption.encrypt(id, Place::server_key(), server_key)?;
    w.execute(FOUND_SITE, &[(":now", &w.now()), (":server_key", &stored), (":key_id", &id.to_string())]).map(drop)
}

const SERVER_KEY: &str = "select server_key from site where only = 1";

pub fn server_key(r: &Reader<'_>, encryption: &Encryption) -> Result<[u8; 32]> {
    let stored: Vec<u8> = r.one(SERVER_KEY, &[], |row| row.get(0))?;
    let key = encryption.decrypt(Place::server_key(), &stored)?;
    key.try_into().map_err(|_| Error::internal("the server key has another length"))
}

const FIND_ENCRYPTION: &str = "select encryption_key_id, server_key from site where only = 1";

pub(super) fn known_encryption(r: &Reader<'_>) -> Result<Known> {
    let found: Option<(Option<String>, Vec<u8>)> =
        r.find(FIND_ENCRYPTION, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match found {
        None => Known::Nothing,
        Some((Some(id), _)) => Known::Key(id.parse()?),
        // All are encrypted in one transaction.
        Some((None, server_key)) => Known::Clear { is_begun: encryption::is_encrypted(&server_key) },
    })
}

const SET_ENCRYPTION_KEY: &str = "update site set encryption_key_id = :id where only = 1";

/// Names the key that every secret is encrypted with.
pub(super) fn set_encryption_key(w: &Writer<'_>, id: KeyId) -> Result<()> {
    w.execute(SET_ENCRYPTION_KEY, &[(":id", &id.to_string())]).map(drop)
}

const LIST_SERVER_KEYS: &str = "select x'01', server_key from site";
const SET_SERVER_KEY: &str = "update site set server_key = :stored where only = 1 and :row = x'01'";
const LIST_PRIVATE_KEYS: &str = "select cast(id as blob), private_key from signing_keys";
const SET_PRIVATE_KEY: &str = "update signing_keys set private_key = :stored where id = cast(:row as text)";
const LIST_FACTOR_SECRETS: &str = "select member_id, secret from second_factors";
const SET_FACTOR_SECRET: &str = "update second_factors set secret = :stored where member_id = :row";

/// Every column of secrets that must be read back: how its rows are listed, and how one is replaced.
const SECRETS: [(&str, &str, &str, &str); 3] = [
    ("site", "server_key", LIST_SERVER_KEYS, SET_SERVER_KEY),
    ("signing_keys", "private_key", LIST_PRIVATE_KEYS, SET_PRIVATE_KEY),
    ("second_factors", "secret", LIST_FACTOR_SECRETS, SET_FACTOR_SECRET),
];

/// Replaces every secret by another form of it; answers how many there are.
pub(super) fn rewrite_secrets(w: &Writer<'_>, form: impl Fn(Place<'_>, Vec<u8>) -> Result<Vec<u8>>) -> Result<usize> {
    let mut count = 0;
    for (table, column, list, set) in SECRETS {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = w.all(list, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (row, stored) in rows {
            let stored = form(Place::new(table, column, &row), stored)?;
            count += w.execute(set, &[(":stored", &stored), (":row", &row)])?;
        }
    }
    Ok(count)
}

const RAISE_EPOCH: &str = "update site set epoch = :epoch where only = 1 and epoch < :epoch";

pub fn raise_epoch(w: &Writer<'_>, epoch: u64) -> Result<()> {
    w.execute(RAISE_EPOCH, &[(":epoch", &i64::try_from(epoch).unwrap_or(i64::MAX))]).map(drop)
}

const INSERT_SIGNING_KEY: &str = "
    insert into signing_keys (id, private_key, public_key, created_at)
    values (:id, :private_key, :public_key, :now)";

pub fn insert_signing_key(w: &Writer<'_>, encryption: &Encryption, key: &StoredKey) -> Result<()> {
    w.execute(
        INSERT_SIGNING_KEY,
        &[
            (":id", &key.id),
            (":private_key", &encrypt(w, encryption, Place::signing_key(&key.id), &key.private_key)?),
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
    where caller = :caller and action = :action and key = :key and created_at > :since
      and not exists (select 1 from erased_names where instr(answer, name) > 0)";

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

const ERASE_NAME: &str = "insert into erased_names (name) values (:name) on conflict (name) do nothing";

/// Nobody gets an answer that names it any more; [`App::forget_erased`](super::App::forget_erased) deletes them.
pub(super) fn erase_name(w: &Writer<'_>, name: &str) -> Result<()> {
    w.execute(ERASE_NAME, &[(":name", &name)]).map(drop)
}

const LIST_ERASED_NAMES: &str = "select name from erased_names";

pub(super) fn list_erased_names(r: &Reader<'_>) -> Result<Vec<String>> {
    r.all(LIST_ERASED_NAMES, &[], |row| row.get(0))
}

const DELETE_ERASED_NAME: &str = "delete from erased_names where name = :name";

/// No answer names it any more.
pub(super) fn delete_erased_name(w: &Writer<'_>, name: &str) -> Result<()> {
    w.execute(DELETE_ERASED_NAME, &[(":name", &name)]).map(drop)
}

/// Caller, action and key of an answer.
pub(super) type PlaceOfAnswer = (String, String, String);

const LIST_ANSWERS_BEHIND: &str = "
    select caller, action, key, exists (select 1 from erased_names where instr(answer, name) > 0)
    from idempotency_keys
    where (caller, action, key) > (:caller, :action, :key)
    order by caller, action, key
    limit :most";

/// The next answers, and whether each names what was erased.
pub(super) fn list_answers_behind(
    r: &Reader<'_>,
    (caller, action, key): &PlaceOfAnswer,
    most: usize,
) -> Result<Vec<(PlaceOfAnswer, bool)>> {
    r.all(
        LIST_ANSWERS_BEHIND,
        &[(":caller", caller), (":action", action), (":key", key), (":most", &sql::limit(most))],
        |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)),
    )
}

const FORGET_ANSWER: &str = "
    delete from idempotency_keys
    where caller = :caller and action = :action and key = :key
      and exists (select 1 from erased_names where instr(answer, name) > 0)";

/// Forgets an answer that names what was erased.
pub(super) fn forget_answer(w: &Writer<'_>, (caller, action, key): &PlaceOfAnswer) -> Result<()> {
    w.execute(FORGET_ANSWER, &[(":caller", caller), (":action", action), (":key", key)]).map(drop)
}

const FORGET: &str = "
    delete from idempotency_keys
    where (caller, action, key) in (select caller, action, key from idempotency_keys where created_at <= :since
                                    limit :most)";

/// Forgets answers from before; answers how many.
pub fn forget_remembered(w: &Writer<'_>, since: Timestamp, most: usize) -> Result<usize> {
    w.execute(FORGET, &[(":since", &since), (":most", &sql::limit(most))])
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
