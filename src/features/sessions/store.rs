//! SQL of sessions and one-time tokens.

use rusqlite::Row;

use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::store::encrypt;
use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::encryption::{Encryption, SecretColumn, SecretLocation};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, SessionId, Timestamp};
use crate::kernel::secret::Hash;

/// A session as stored.
#[derive(Debug, Clone)]
pub struct SessionRow {
    pub id: SessionId,
    pub member: MemberId,
    pub method: String,
    pub second_factor: bool,
    pub refresh_hash: Hash,
    pub refresh_generation: u64,
    pub rotated_at: Timestamp,
    pub expires_at: Timestamp,
    pub ends_at: Timestamp,
    pub device: String,
    pub address: String,
    pub created_at: Timestamp,
}

const FIND_SESSION: &str = "
    select id, member_id, method, second_factor, refresh_hash, refresh_generation, rotated_at, expires_at, ends_at, device,
           address, created_at
    from sessions
    where id = :id";

pub fn find_session(r: &Reader<'_>, id: SessionId) -> Result<Option<SessionRow>> {
    r.find(FIND_SESSION, &[(":id", &id)], session_of)
}

const LIST_SESSIONS_OF: &str = "
    select id, member_id, method, second_factor, refresh_hash, refresh_generation, rotated_at, expires_at, ends_at, device,
           address, created_at
    from sessions
    where member_id = :member_id and expires_at > :now
    order by rotated_at desc";

/// Lists a member's sessions that have not expired, most recently used first. `limits.sessions_per_member` bounds their
/// number.
pub fn list_sessions(r: &Reader<'_>, member: MemberId, now: Timestamp) -> Result<Vec<SessionRow>> {
    r.all(LIST_SESSIONS_OF, &[(":member_id", &member), (":now", &now)], session_of)
}

fn session_of(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        member: row.get(1)?,
        method: row.get(2)?,
        second_factor: row.get(3)?,
        refresh_hash: row.get(4)?,
        refresh_generation: row.get::<_, i64>(5)?.unsigned_abs(),
        rotated_at: row.get(6)?,
        expires_at: row.get(7)?,
        ends_at: row.get(8)?,
        device: row.get(9)?,
        address: row.get(10)?,
        created_at: row.get(11)?,
    })
}

const IS_SIGNED_IN_AT: &str = "
    select 1
    from sessions
    where member_id = :member_id and address = :address
    limit 1";

/// Whether the member has a session that began at this IP address.
pub fn is_signed_in_at(r: &Reader<'_>, member: MemberId, address: &str) -> Result<bool> {
    r.find(IS_SIGNED_IN_AT, &[(":member_id", &member), (":address", &address)], |_| Ok(())).map(|found| found.is_some())
}

const INSERT_SESSION: &str = "
    insert into sessions (id, member_id, method, second_factor, refresh_hash, rotated_at, expires_at, ends_at, device,
                          address, created_at)
    values (:id, :member_id, :method, :second_factor, :refresh_hash, :now, :expires_at, :ends_at, :device, :address, :now)";

pub fn insert_session(w: &Writer<'_>, row: &SessionRow) -> Result<()> {
    w.execute(
        INSERT_SESSION,
        &[
            (":id", &row.id),
            (":member_id", &row.member),
            (":method", &row.method),
            (":second_factor", &row.second_factor),
            (":refresh_hash", &row.refresh_hash),
            (":now", &w.now()),
            (":expires_at", &row.expires_at),
            (":ends_at", &row.ends_at),
            (":device", &row.device),
            (":address", &row.address),
        ],
    )
    .map(drop)
}

const ROTATE: &str = "
    update sessions
    set refresh_hash = :refresh_hash, refresh_generation = :generation, rotated_at = :now, expires_at = :expires_at
    where id = :id";

pub fn rotate(w: &Writer<'_>, row: &SessionRow) -> Result<()> {
    w.execute(
        ROTATE,
        &[
            (":refresh_hash", &row.refresh_hash),
            (":generation", &i64::try_from(row.refresh_generation).unwrap_or(i64::MAX)),
            (":now", &w.now()),
            (":expires_at", &row.expires_at),
            (":id", &row.id),
        ],
    )
    .map(drop)
}

const DELETE_SESSION: &str = "delete from sessions where id = :id";

pub fn delete_session(w: &Writer<'_>, id: SessionId) -> Result<()> {
    w.execute(DELETE_SESSION, &[(":id", &id)]).map(drop)
}

const END_OLDEST: &str = "
    delete from sessions
    where id in (select id from sessions where member_id = :member_id order by rotated_at desc limit -1 offset :kept)
    returning id";

/// Makes room for one more session: deletes the member's least recently used sessions beyond `sessions_max - 1` and
/// returns their ids.
pub fn end_oldest(w: &Writer<'_>, member: MemberId, sessions_max: u64) -> Result<Vec<SessionId>> {
    let kept = i64::try_from(sessions_max - 1).unwrap_or(i64::MAX);
    w.all(END_OLDEST, &[(":member_id", &member), (":kept", &kept)], |row| row.get(0))
}

const END_EXPIRED: &str = "
    delete from sessions
    where id in (select id from sessions where expires_at <= :now limit :most)
    returning id";

/// Deletes at most `most` expired sessions and returns their ids.
pub fn end_expired(w: &Writer<'_>, most: usize) -> Result<Vec<SessionId>> {
    w.all(END_EXPIRED, &[(":now", &w.now()), (":most", &sql::limit(most))], |row| row.get(0))
}

const END_SESSIONS: &str = "
    delete from sessions
    where member_id = :member_id and (:kept is null or id <> :kept)
    returning id";
const DELETE_CHALLENGES: &str = "
    delete from one_time_tokens
    where member_id = :member_id and purpose = 'second_factor'";

/// Ends a member's sessions except `kept`, and the sign-ins that wait for a second factor. Returns the ids of the ended
/// sessions.
pub fn end_sessions(w: &Writer<'_>, member: MemberId, kept: Option<SessionId>) -> Result<Vec<SessionId>> {
    w.execute(DELETE_CHALLENGES, &[(":member_id", &member)])?;
    w.all(END_SESSIONS, &[(":member_id", &member), (":kept", &kept)], |row| row.get(0))
}

// ── one-time tokens ──

/// A one-time token as stored.
#[derive(Debug, Clone)]
pub struct OneTimeToken {
    pub member: Option<MemberId>,
    /// Data whose format depends on the purpose.
    pub data: Option<String>,
    pub tries: u64,
    /// Who created it for the member; `None` when the member requested it.
    pub maker: Option<Grantor>,
}

const INSERT_TOKEN: &str = "
    insert or replace into one_time_tokens (hash, purpose, member_id, data, expires_at, created_at)
    values (:hash, :purpose, :member_id, :data, :expires_at, :now)";

pub fn insert_token(
    w: &Writer<'_>,
    hash: &Hash,
    purpose: &str,
    member: Option<MemberId>,
    data: Option<&str>,
    expires_at: Timestamp,
) -> Result<()> {
    w.execute(
        INSERT_TOKEN,
        &[
            (":hash", hash),
            (":purpose", &purpose),
            (":member_id", &member),
            (":data", &data),
            (":expires_at", &expires_at),
            (":now", &w.now()),
        ],
    )
    .map(drop)
}

const SET_MAKER: &str = "update one_time_tokens set maker = :maker where hash = :hash";

/// Records who created a one-time token for its member.
pub fn set_maker(w: &Writer<'_>, hash: &Hash, maker: &Grantor) -> Result<()> {
    w.execute(SET_MAKER, &[(":maker", &maker.to_text()), (":hash", hash)]).map(drop)
}

const FIND_TOKEN: &str = "
    select member_id, data, tries, maker
    from one_time_tokens
    where hash = :hash and purpose = :purpose and expires_at > :now";

/// Finds a one-time token that has not expired.
pub fn find_token(r: &Reader<'_>, hash: &Hash, purpose: &str, now: Timestamp) -> Result<Option<OneTimeToken>> {
    r.find(FIND_TOKEN, &[(":hash", hash), (":purpose", &purpose), (":now", &now)], |row| {
        let maker: Option<String> = row.get(3)?;
        Ok(OneTimeToken {
            member: row.get(0)?,
            data: row.get(1)?,
            tries: row.get::<_, i64>(2)?.unsigned_abs(),
            maker: maker.map(|text| Grantor::parse(Some(&text))),
        })
    })
}

const COUNT_TRY: &str = "update one_time_tokens set tries = tries + 1 where hash = :hash";

pub fn count_attempt(w: &Writer<'_>, hash: &Hash) -> Result<()> {
    w.execute(COUNT_TRY, &[(":hash", hash)]).map(drop)
}

const DELETE_TOKEN: &str = "delete from one_time_tokens where hash = :hash";

pub fn delete_token(w: &Writer<'_>, hash: &Hash) -> Result<()> {
    w.execute(DELETE_TOKEN, &[(":hash", hash)]).map(drop)
}

const DELETE_TOKENS_OF: &str = "delete from one_time_tokens where member_id = :member_id and purpose = :purpose";

pub fn delete_tokens_of(w: &Writer<'_>, member: MemberId, purpose: &str) -> Result<()> {
    w.execute(DELETE_TOKENS_OF, &[(":member_id", &member), (":purpose", &purpose)]).map(drop)
}

const HAS_TOKEN_SINCE: &str = "
    select 1
    from one_time_tokens
    where member_id = :member_id and purpose = :purpose and created_at > :since and expires_at > :now
    limit 1";

/// Whether a token for this purpose was created for the member after `since` and has not expired.
pub fn has_token_since(w: &Writer<'_>, member: MemberId, purpose: &str, since: Timestamp) -> Result<bool> {
    let values: &[(&str, &dyn rusqlite::ToSql)] =
        &[(":member_id", &member), (":purpose", &purpose), (":since", &since), (":now", &w.now())];
    w.find(HAS_TOKEN_SINCE, values, |_| Ok(())).map(|found| found.is_some())
}

const CONTEST: &str = "
    update one_time_tokens
    set data = data || ' contested'
    where hash = :hash and data not like '% contested'";

/// Marks a registration code as requested more than once.
pub fn mark_contested(w: &Writer<'_>, hash: &Hash) -> Result<()> {
    w.execute(CONTEST, &[(":hash", hash)]).map(drop)
}

const FORGET_TOKENS: &str = "
    delete from one_time_tokens
    where hash in (select hash from one_time_tokens where expires_at <= :now limit :most)";

/// Deletes at most `most` expired one-time tokens and returns their number.
pub fn delete_expired_tokens(w: &Writer<'_>, most: usize) -> Result<usize> {
    w.execute(FORGET_TOKENS, &[(":now", &w.now()), (":most", &sql::limit(most))])
}

const VOID_MAILED: &str = "
    delete from one_time_tokens
    where member_id = :member_id and purpose in ('password_reset', 'email_code')";

/// Deletes the password links and e-mail codes that were mailed to a member.
pub fn delete_mailed_tokens(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(VOID_MAILED, &[(":member_id", &member)]).map(drop)
}

const DELETE_ALL_TOKENS: &str = "delete from one_time_tokens where member_id = :member_id";

/// Deletes all one-time tokens of a member: links, codes and unfinished sign-ins.
pub fn delete_all_tokens(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(DELETE_ALL_TOKENS, &[(":member_id", &member)]).map(drop)
}

const USE_UP: &str = "
    insert into one_time_tokens (hash, purpose, expires_at, created_at)
    values (:hash, 'used', :expires_at, :now)
    on conflict (hash) do nothing";

/// Marks a hash as used until `expires_at`. Returns whether this was the first use.
pub fn consume_once(w: &Writer<'_>, hash: &Hash, expires_at: Timestamp) -> Result<bool> {
    w.execute(USE_UP, &[(":hash", hash), (":expires_at", &expires_at), (":now", &w.now())]).map(|rows| rows == 1)
}

const IS_USED_UP: &str = "select 1 from one_time_tokens where hash = :hash and purpose = 'used'";

/// Whether the hash is marked as used.
pub fn is_consumed(r: &Reader<'_>, hash: &Hash) -> Result<bool> {
    Ok(r.find(IS_USED_UP, &[(":hash", hash)], |_| Ok(()))?.is_some())
}

// ── second factors ──

const HAS_SECOND_FACTOR: &str = "
    select 1
    from second_factors
    where member_id = :member_id and confirmed_at is not null";

pub fn has_second_factor(r: &Reader<'_>, member: MemberId) -> Result<bool> {
    r.find(HAS_SECOND_FACTOR, &[(":member_id", &member)], |_| Ok(())).map(|found| found.is_some())
}

// ── second factors ──

// SQL of second factors and recovery codes.

/// A second factor with its decrypted secret.
pub struct Factor {
    pub secret: Vec<u8>,
    /// `None` until a first code was accepted.
    pub confirmed_at: Option<Timestamp>,
}

const FIND_FACTOR: &str = "
    select secret, confirmed_at
    from second_factors
    where member_id = :member_id";

pub fn find_factor(r: &Reader<'_>, encryption: &Encryption, member: MemberId) -> Result<Option<Factor>> {
    let found: Option<(Vec<u8>, Option<Timestamp>)> =
        r.find(FIND_FACTOR, &[(":member_id", &member)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some((stored, confirmed_at)) = found else { return Ok(None) };
    Ok(Some(Factor { secret: encryption.decrypt(SecretLocation::second_factor(&member), &stored)?, confirmed_at }))
}

const FIND_CONFIRMED: &str = "select confirmed_at from second_factors where member_id = :member_id";

/// Returns `None` if the member has no second factor, otherwise the time when it was confirmed, if it was.
pub fn find_confirmed(r: &Reader<'_>, member: MemberId) -> Result<Option<Option<Timestamp>>> {
    r.find(FIND_CONFIRMED, &[(":member_id", &member)], |row| row.get(0))
}

const PUT_SECRET: &str = "
    insert into second_factors (member_id, secret, created_at)
    values (:member_id, :secret, :now)
    on conflict (member_id) do update
    set secret = excluded.secret, created_at = excluded.created_at
    where confirmed_at is null";

/// Stores an unconfirmed secret. Replaces an earlier unconfirmed one, but never a confirmed one.
pub fn put_secret(w: &Writer<'_>, encryption: &Encryption, member: MemberId, secret: &[u8]) -> Result<()> {
    let stored = encrypt(w, encryption, SecretLocation::second_factor(&member), secret)?;
    w.execute(PUT_SECRET, &[(":member_id", &member), (":secret", &stored), (":now", &w.now())]).map(drop)
}

const CONFIRM: &str = "
    update second_factors
    set confirmed_at = :now, last_step = :step
    where member_id = :member_id and confirmed_at is null";

pub fn confirm(w: &Writer<'_>, member: MemberId, step: i64) -> Result<()> {
    w.execute(CONFIRM, &[(":now", &w.now()), (":step", &step), (":member_id", &member)]).map(drop)
}

const USE_STEP: &str = "
    update second_factors
    set last_step = :step
    where member_id = :member_id and confirmed_at is not null and last_step < :step";

/// Consumes the code of a time step. Returns false if this step or a later one was used before.
pub fn use_step(w: &Writer<'_>, member: MemberId, step: i64) -> Result<bool> {
    w.execute(USE_STEP, &[(":step", &step), (":member_id", &member)]).map(|rows| rows == 1)
}

const DELETE_FACTOR: &str = "delete from second_factors where member_id = :member_id";
const DELETE_RECOVERY_CODES: &str = "delete from recovery_codes where member_id = :member_id";

/// Deletes the factor and its recovery codes.
pub fn delete_factor(w: &Writer<'_>, member: MemberId) -> Result<()> {
    w.execute(DELETE_RECOVERY_CODES, &[(":member_id", &member)])?;
    w.execute(DELETE_FACTOR, &[(":member_id", &member)]).map(drop)
}

const INSERT_RECOVERY_CODE: &str = "insert into recovery_codes (member_id, hash) values (:member_id, :hash)";

/// Replaces all recovery codes of a member.
pub fn replace_recovery_codes(w: &Writer<'_>, member: MemberId, hashes: &[Hash]) -> Result<()> {
    w.execute(DELETE_RECOVERY_CODES, &[(":member_id", &member)])?;
    hashes
        .iter()
        .try_for_each(|hash| w.execute(INSERT_RECOVERY_CODE, &[(":member_id", &member), (":hash", hash)]).map(drop))
}

const USE_RECOVERY_CODE: &str = "delete from recovery_codes where member_id = :member_id and hash = :hash";

/// Consumes a recovery code. Returns whether it was valid.
pub fn use_recovery_code(w: &Writer<'_>, member: MemberId, hash: &Hash) -> Result<bool> {
    w.execute(USE_RECOVERY_CODE, &[(":member_id", &member), (":hash", hash)]).map(|rows| rows == 1)
}

const COUNT_RECOVERY_CODES: &str = "select count(*) from recovery_codes where member_id = :member_id";

pub fn count_recovery_codes(r: &Reader<'_>, member: MemberId) -> Result<u64> {
    r.one(COUNT_RECOVERY_CODES, &[(":member_id", &member)], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

const MARK_SESSION: &str = "update sessions set second_factor = :shown where id = :id";

/// Records whether a second factor was verified in a session.
pub fn mark_session(w: &Writer<'_>, id: SessionId, shown: bool) -> Result<()> {
    w.execute(MARK_SESSION, &[(":shown", &shown), (":id", &id)]).map(drop)
}

const LIST_FACTOR_SECRETS: &str = "select member_id, secret from second_factors";
const SET_FACTOR_SECRET: &str = "update second_factors set secret = :stored where member_id = :row";

/// The encrypted column of authenticator secrets, and how key rotation reads and rewrites it.
pub const SECRET: SecretColumn =
    SecretColumn { table: "second_factors", column: "secret", list: LIST_FACTOR_SECRETS, set: SET_FACTOR_SECRET };
