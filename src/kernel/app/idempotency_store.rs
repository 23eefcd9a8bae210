//! SQL of the answers to creating requests, for their repeats.

use crate::kernel::db::{Reader, Writer, sql};
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::Hash;

/// The answer to an earlier creating request.
pub struct Remembered {
    pub fingerprint: Hash,
    /// `None` when it showed a secret.
    pub answer: Option<String>,
}

const FIND_REMEMBERED: &str = "
    select fingerprint, answer
    from idempotency_keys
    where caller = :caller and action = :action and key = :key and created_at > :since";

pub fn find_remembered(
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

pub fn remember(w: &Writer<'_>, (caller, action, key): (&str, &str, &str), remembered: &Remembered) -> Result<()> {
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

const FORGET: &str = "
    delete from idempotency_keys
    where (caller, action, key) in (select caller, action, key from idempotency_keys where created_at <= :since
                                    limit :most)";

/// Forgets answers from before; answers how many.
pub fn forget_remembered(w: &Writer<'_>, since: Timestamp, most: usize) -> Result<usize> {
    w.execute(FORGET, &[(":since", &since), (":most", &sql::limit(most))])
}
