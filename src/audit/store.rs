//! SQL that reads the audit.

use rusqlite::Row;

use super::{AuditEntry, Filter};
use crate::db::Reader;
use crate::db::Window;
use crate::db::sql::Parameters;
use crate::error::Result;

const LIST_ENTRIES: &str = "
    select id, at, actor_kind, actor, action, target, organization_id, outcome, before, after, request_id, address, hash
    from audit
    where (:organization_id is null or organization_id = :organization_id)
      and (:actor is null or actor = :actor)
      and (:action is null or action = :action)
      and (:target is null or target = :target or substr(target, instr(target, ' ') + 1) = :target)
      and (:outcome is null or outcome = :outcome)
      and (:since is null or at >= :since)
      and (:until is null or at < :until)
    order by id desc
    limit :limit offset :offset";
const COUNT_ENTRIES: &str = "
    select count(*)
    from audit
    where (:organization_id is null or organization_id = :organization_id)
      and (:actor is null or actor = :actor)
      and (:action is null or action = :action)
      and (:target is null or target = :target or substr(target, instr(target, ' ') + 1) = :target)
      and (:outcome is null or outcome = :outcome)
      and (:since is null or at >= :since)
      and (:until is null or at < :until)";

/// Newest first.
pub fn list_entries(r: &Reader<'_>, filter: &Filter, window: Window) -> Result<(Vec<AuditEntry>, u64)> {
    let narrowed: [(&str, &dyn rusqlite::ToSql); 7] = [
        (":organization_id", &filter.organization),
        (":actor", &filter.actor),
        (":action", &filter.action),
        (":target", &filter.target),
        (":outcome", &filter.outcome),
        (":since", &filter.since),
        (":until", &filter.until),
    ];
    let (limit, offset) = (window.limit as i64, window.offset as i64);
    let mut windowed: Vec<(&str, &dyn rusqlite::ToSql)> = narrowed.to_vec();
    windowed.extend([(":limit", &limit as &dyn rusqlite::ToSql), (":offset", &offset)]);
    let rows = r.all(LIST_ENTRIES, &windowed, entry_of)?;
    let total = r.one(COUNT_ENTRIES, &narrowed, |row| row.get::<_, i64>(0))?;
    Ok((rows, u64::try_from(total).unwrap_or_default()))
}

const EXPORT_ENTRIES: &str = "
    select id, at, actor_kind, actor, action, target, organization_id, outcome, before, after, request_id, address, hash
    from audit
    where id > :after
      and (:organization_id is null or organization_id = :organization_id)
      and (:actor is null or actor = :actor)
      and (:action is null or action = :action)
      and (:target is null or target = :target or substr(target, instr(target, ' ') + 1) = :target)
      and (:outcome is null or outcome = :outcome)
      and (:since is null or at >= :since)
      and (:until is null or at < :until)
    order by id
    limit :limit";

/// Oldest first, from behind an id.
pub fn export_entries(r: &Reader<'_>, filter: &Filter, after: i64, limit: i64) -> Result<Vec<AuditEntry>> {
    let parameters: Parameters<'_> = &[
        (":after", &after),
        (":organization_id", &filter.organization),
        (":actor", &filter.actor),
        (":action", &filter.action),
        (":target", &filter.target),
        (":outcome", &filter.outcome),
        (":since", &filter.since),
        (":until", &filter.until),
        (":limit", &limit),
    ];
    r.all(EXPORT_ENTRIES, parameters, entry_of)
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.get(0)?,
        at: row.get(1)?,
        actor_kind: row.get(2)?,
        actor: row.get(3)?,
        action: row.get(4)?,
        target: row.get(5)?,
        organization: row.get(6)?,
        outcome: row.get(7)?,
        before: row.get(8)?,
        after: row.get(9)?,
        request_id: row.get(10)?,
        address: row.get(11)?,
        hash: row.get(12)?,
    })
}
