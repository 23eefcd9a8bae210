//! SQL of the tables that the kernel itself keeps: `site`, idempotency keys, plugin components, and the deferred grants
//! of all tables.

use crate::kernel::app::encryption::StoredEncryption;
use crate::kernel::authn::key_store;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::encryption::{self, Encryption, KeyId, SecretColumn, SecretLocation};
use crate::kernel::error::{Error, Result};
use crate::kernel::ids::{ApiKeyId, GrantId, InvitationId, MemberId, OrganizationId, RoleId, Timestamp, WebhookId};
use crate::kernel::secret::Hash;

const FOUND_SITE: &str = "
    insert into site (only, epoch, created_at, server_key, encryption_key_id)
    values (1, 1, :now, :server_key, :key_id)
    on conflict (only) do nothing";

pub fn create_site(w: &Writer<'_>, encryption: &Encryption, server_key: &[u8; 32]) -> Result<()> {
    let id = encryption.key_id()?;
    let stored = encryption.encrypt(id, SecretLocation::server_key(), server_key)?;
    w.execute(FOUND_SITE, &[(":now", &w.now()), (":server_key", &stored), (":key_id", &id.to_string())]).map(drop)
}

const SERVER_KEY: &str = "select server_key from site where only = 1";

pub fn server_key(r: &Reader<'_>, encryption: &Encryption) -> Result<[u8; 32]> {
    let stored: Vec<u8> = r.one(SERVER_KEY, &[], |row| row.get(0))?;
    let key = encryption.decrypt(SecretLocation::server_key(), &stored)?;
    key.try_into().map_err(|_| Error::internal("the server key does not have 32 bytes"))
}

const FIND_ENCRYPTION: &str = "select encryption_key_id, server_key from site where only = 1";

pub fn known_encryption(r: &Reader<'_>) -> Result<StoredEncryption> {
    let found: Option<(Option<String>, Vec<u8>)> =
        r.find(FIND_ENCRYPTION, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match found {
        None => StoredEncryption::Nothing,
        Some((Some(id), _)) => StoredEncryption::Key(id.parse()?),
        // All secrets are encrypted in one transaction, so one of them shows whether it was committed.
        Some((None, server_key)) => StoredEncryption::Clear { is_begun: encryption::is_encrypted(&server_key) },
    })
}

const SET_ENCRYPTION_KEY: &str = "update site set encryption_key_id = :id where only = 1";

/// Stores the id of the key that every secret is encrypted with.
pub fn set_encryption_key(w: &Writer<'_>, id: KeyId) -> Result<()> {
    w.execute(SET_ENCRYPTION_KEY, &[(":id", &id.to_string())]).map(drop)
}

const LIST_SERVER_KEYS: &str = "select x'01', server_key from site";
const SET_SERVER_KEY: &str = "update site set server_key = :stored where only = 1 and :row = x'01'";
/// The site's own secret column, with the SQL that lists and updates it.
const SECRET: SecretColumn =
    SecretColumn { table: "site", column: "server_key", list: LIST_SERVER_KEYS, set: SET_SERVER_KEY };

/// Rewrites every stored secret, of the kernel and of the features, with `form`; returns the number of secrets.
pub(super) fn rewrite_secrets(
    w: &Writer<'_>,
    feature_columns: &[SecretColumn],
    form: impl Fn(SecretLocation<'_>, Vec<u8>) -> Result<Vec<u8>>,
) -> Result<usize> {
    let mut count = 0;
    for secret in [SECRET, key_store::SECRET].iter().chain(feature_columns) {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = w.all(secret.list, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (row, stored) in rows {
            let stored = form(SecretLocation::new(secret.table, secret.column, &row), stored)?;
            count += w.execute(secret.set, &[(":stored", &stored), (":row", &row)])?;
        }
    }
    Ok(count)
}

const RAISE_EPOCH: &str = "update site set epoch = :epoch where only = 1 and epoch < :epoch";

pub fn raise_epoch(w: &Writer<'_>, epoch: u64) -> Result<()> {
    w.execute(RAISE_EPOCH, &[(":epoch", &i64::try_from(epoch).unwrap_or(i64::MAX))]).map(drop)
}

const FIND_SETUP: &str = "select setup_hash, setup_expires_at from site where only = 1";

/// The hash of the pending set-up link and the time when it expires.
pub fn find_setup(r: &Reader<'_>) -> Result<Option<(Hash, Timestamp)>> {
    let found: Option<(Option<Hash>, Option<Timestamp>)> =
        r.find(FIND_SETUP, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.and_then(|(hash, expires_at)| hash.zip(expires_at)))
}

const SET_SETUP: &str = "update site set setup_hash = :hash, setup_expires_at = :until where only = 1";

pub fn set_setup(w: &Writer<'_>, link: Option<(Hash, Timestamp)>) -> Result<()> {
    let (hash, expires_at) = link.unzip();
    w.execute(SET_SETUP, &[(":hash", &hash), (":until", &expires_at)]).map(drop)
}

// ── Idempotency keys ──

/// A creating request that was answered before.
pub struct IdempotencyRecord {
    pub fingerprint: Hash,
    /// JSON; `None` if it contained a secret.
    pub answer: Option<String>,
}

const FIND_REMEMBERED: &str = "
    select fingerprint, answer
    from idempotency_keys
    where caller = :caller and action = :action and key = :key and created_at > :since
      and not exists (select 1 from erased_names where instr(answer, name) > 0)";

pub fn find_remembered(
    r: &Reader<'_>,
    (caller, action, key): (&str, &str, &str),
    since: Timestamp,
) -> Result<Option<IdempotencyRecord>> {
    r.find(FIND_REMEMBERED, &[(":caller", &caller), (":action", &action), (":key", &key), (":since", &since)], |row| {
        Ok(IdempotencyRecord { fingerprint: row.get(0)?, answer: row.get(1)? })
    })
}

const REMEMBER: &str = "
    insert or replace into idempotency_keys (caller, action, key, fingerprint, answer, created_at)
    values (:caller, :action, :key, :fingerprint, :answer, :now)";

pub fn remember(
    w: &Writer<'_>,
    (caller, action, key): (&str, &str, &str),
    remembered: &IdempotencyRecord,
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

/// Marks a name as erased: stored answers that contain it are never returned again.
/// [`App::forget_erased`](super::App::forget_erased) deletes them.
pub fn erase_name(w: &Writer<'_>, name: &str) -> Result<()> {
    w.execute(ERASE_NAME, &[(":name", &name)]).map(drop)
}

const LIST_ERASED_NAMES: &str = "select name from erased_names";

pub fn list_erased_names(r: &Reader<'_>) -> Result<Vec<String>> {
    r.all(LIST_ERASED_NAMES, &[], |row| row.get(0))
}

const DELETE_ERASED_NAME: &str = "delete from erased_names where name = :name";

/// Removes the mark, once no stored answer contains the name.
pub fn delete_erased_name(w: &Writer<'_>, name: &str) -> Result<()> {
    w.execute(DELETE_ERASED_NAME, &[(":name", &name)]).map(drop)
}

/// Caller, action and idempotency key of a stored answer.
pub type IdempotencyKey = (String, String, String);

const LIST_ANSWERS_BEHIND: &str = "
    select caller, action, key, exists (select 1 from erased_names where instr(answer, name) > 0)
    from idempotency_keys
    where (caller, action, key) > (:caller, :action, :key)
    order by caller, action, key
    limit :most";

/// The next stored answers after this key, each with whether it contains an erased name.
pub fn list_answers_after(
    r: &Reader<'_>,
    (caller, action, key): &IdempotencyKey,
    most: usize,
) -> Result<Vec<(IdempotencyKey, bool)>> {
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

/// Deletes a stored answer if it contains an erased name.
pub fn forget_answer(w: &Writer<'_>, (caller, action, key): &IdempotencyKey) -> Result<()> {
    w.execute(FORGET_ANSWER, &[(":caller", caller), (":action", action), (":key", key)]).map(drop)
}

const FORGET: &str = "
    delete from idempotency_keys
    where (caller, action, key) in (select caller, action, key from idempotency_keys where created_at <= :since
                                    limit :most)";

/// Deletes answers that were stored at or before this time; returns their number.
pub fn forget_remembered(w: &Writer<'_>, since: Timestamp, most: usize) -> Result<usize> {
    w.execute(FORGET, &[(":since", &since), (":most", &sql::limit(most))])
}

// ── Uploaded components ──

const GET_COMPONENT: &str = "select component from plugin_components where sha256 = :sha256";

/// The bytes of an uploaded component.
pub fn get_component(r: &Reader<'_>, sha256: &Hash) -> Result<Vec<u8>> {
    r.one(GET_COMPONENT, &[(":sha256", sha256)], |row| row.get(0))
}

const HAS_COMPONENT: &str = "
    select 1
    from plugin_versions v
    join plugins p on p.id = v.plugin_id
    where v.sha256 = :sha256 and p.organization_id = :organization_id
    limit 1";

/// Whether the organization has a plugin version with this digest.
pub fn has_component(r: &Reader<'_>, (organization, sha256): (OrganizationId, Hash)) -> Result<bool> {
    let parameters: [(&str, &dyn rusqlite::ToSql); 2] = [(":sha256", &sha256), (":organization_id", &organization)];
    r.find(HAS_COMPONENT, &parameters, |_| Ok(())).map(|found| found.is_some())
}

const LIST_COMPONENTS: &str = "
    select distinct p.organization_id, v.sha256
    from plugin_versions v
    join plugins p on p.id = v.plugin_id";

/// Organization and digest of every uploaded component.
pub fn list_components(r: &Reader<'_>) -> Result<Vec<(OrganizationId, Hash)>> {
    r.all(LIST_COMPONENTS, &[], |row| Ok((row.get(0)?, row.get(1)?)))
}

// ── Deferred grants ──

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
