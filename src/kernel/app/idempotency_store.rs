//! SQL of idempotency keys: the stored answers of creating requests.

use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::Hash;

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
