//! SQL of second factors and recovery codes.

use crate::kernel::authz::store::encrypt;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::encryption::{Encryption, SecretColumn, SecretLocation};
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, SessionId, Timestamp};
use crate::kernel::secret::Hash;

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
