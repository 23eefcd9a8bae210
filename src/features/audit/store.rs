//! SQL that reads the audit log.

use rusqlite::Row;

use super::{Activity, AuditEntry, ChainHead, CountedEntries, EntryCount, Filter};
use crate::kernel::audit_log::Outcome;
use crate::kernel::db::buckets::Buckets;
use crate::kernel::db::sql::{self, Parameters};
use crate::kernel::db::{List, ListPage, PageRequest, Reader};
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;

/// A target matches by its whole text, or by the part after its first space.
const LIST_ENTRIES: List = List {
    name: "audit",
    columns: "id, at, actor_kind, actor, action, target, organization_id, outcome, before, after, request_id, address,
              hash",
    from: "audit",
    joins: "",
    conditions: &[
        "organization_id = :organization_id",
        "+organization_id = :within",
        "actor = :actor",
        "+actor = :by",
        "substr(target, instr(target, ' ') + 1) = :target_id",
        "substr(target, instr(target, ' ') + 1) in (:spaced, :spaced_id)
         and (target = :spaced or substr(target, instr(target, ' ') + 1) = :spaced)",
        "action = :action",
        "+action in (select value from json_each(:doing))",
        "outcome = :outcome",
        "at >= :since",
        "at < :until",
    ],
    order: &["at desc", "id desc"],
    costly: &[":within", ":by", ":spaced", ":doing", ":outcome"],
    walked: &[":within", ":by", ":spaced", ":doing", ":outcome"],
    kept: &[(&[], "select coalesce(max(id), 0) from audit")],
};

/// Lists entries, newest first. Only one index is used, that of the most selective filter given: target, actor,
/// organization or a single action, in this order.
pub fn list_entries(r: &Reader<'_>, filter: &Filter, window: &PageRequest) -> Result<ListPage<AuditEntry>> {
    let Filter { organization, actor, actions, target, outcome, since, until } = filter;
    let spaced = target.as_deref().and_then(|text| text.split_once(' ').map(|(_, id)| (text, id)));
    let plain = target.as_ref().filter(|_| spaced.is_none());
    let (has_target, has_actor) = (target.is_some(), actor.is_some());
    let has_selective_filter = has_target || has_actor || organization.is_some();
    let single = if let [action] = &actions[..] { Some(action).filter(|_| !has_selective_filter) } else { None };
    let doing = if single.is_some() { None } else { among(actions)? };
    let parameters: Parameters<'_> = &[
        (":organization_id", &organization.filter(|_| !has_target && !has_actor)),
        (":within", &organization.filter(|_| has_target || has_actor)),
        (":actor", &actor.as_ref().filter(|_| !has_target)),
        (":by", &actor.as_ref().filter(|_| has_target)),
        (":target_id", &plain),
        (":spaced", &spaced.map(|(text, _)| text)),
        (":spaced_id", &spaced.map(|(_, id)| id)),
        (":action", &single),
        (":doing", &doing),
        (":outcome", &outcome.map(Outcome::as_str)),
        (":since", since),
        (":until", until),
    ];
    r.page(&LIST_ENTRIES, parameters, window, entry_of)
}

/// The actions as a JSON array; `None` for all.
fn among(actions: &[String]) -> Result<Option<String>> {
    if actions.is_empty() { Ok(None) } else { sql::to_json_text(&actions).map(Some) }
}

/// In the order of the hash chain.
const EXPORT_ENTRIES: List = List {
    name: "audit export",
    columns: "id, at, actor_kind, actor, action, target, organization_id, outcome, before, after, request_id, address,
              hash",
    from: "audit",
    joins: "",
    conditions: &[
        "+organization_id = :within",
        "+actor = :by",
        "+action in (select value from json_each(:doing))",
        "(target = :target or substr(+target, instr(target, ' ') + 1) = :target)",
        "+outcome = :outcome",
        "+at >= :since",
        "+at < :until",
        "id <= :last",
    ],
    order: &["id"],
    costly: &[],
    walked: &[":within", ":by", ":doing", ":target", ":outcome", ":since", ":until"],
    kept: &[],
};

/// Lists entries, oldest first, up to the entry `last`.
pub fn export_entries(
    r: &Reader<'_>,
    filter: &Filter,
    last: i64,
    window: &PageRequest,
) -> Result<ListPage<AuditEntry>> {
    let parameters: Parameters<'_> = &[
        (":within", &filter.organization),
        (":by", &filter.actor),
        (":doing", &among(&filter.actions)?),
        (":target", &filter.target),
        (":outcome", &filter.outcome.map(Outcome::as_str)),
        (":since", &filter.since),
        (":until", &filter.until),
        (":last", &last),
    ];
    r.page_without_total(&EXPORT_ENTRIES, parameters, window, entry_of)
}

/// What a member did itself, with a session or through a gateway.
const LIST_ACTIVITY: List = List {
    name: "activity",
    columns: "at, action, target, outcome, address",
    from: "audit",
    joins: "",
    conditions: &["actor = :actor", "+actor_kind in ('member', 'gateway')"],
    order: &["at desc", "id desc"],
    costly: &[":actor"],
    walked: &[],
    kept: &[],
};

/// Lists the actions of a member, newest first.
pub fn list_activity(r: &Reader<'_>, member: MemberId, window: &PageRequest) -> Result<ListPage<Activity>> {
    r.page(&LIST_ACTIVITY, &[(":actor", &member.to_string())], window, |row| {
        Ok(Activity {
            at: row.get(0)?,
            action: row.get(1)?,
            target: row.get(2)?,
            outcome: row.get(3)?,
            address: row.get(4)?,
        })
    })
}

const COUNT_ENTRIES: &str = "
    select (at - :from) / :step_ms, after ->> :fact, count(*)
    from audit
    where action in (select value from json_each(:actions)) and outcome = 'done' and at >= :from and at < :to
    group by 1, 2";
// An organization has fewer entries than the site has of these actions, so the index of actions is not used.
const COUNT_ENTRIES_IN: &str = "
    select (at - :from) / :step_ms, after ->> :fact, count(*)
    from audit
    where organization_id = :organization_id and +action in (select value from json_each(:actions))
      and outcome = 'done' and at >= :from and at < :to
    group by 1, 2";
const COUNT_ENTRIES_BY_MEMBERS: &str = "
    select (at - :from) / :step_ms, after ->> :fact, count(*)
    from audit
    where action in (select value from json_each(:actions)) and outcome = 'done' and at >= :from and at < :to
      and exists (select 1 from memberships s
                  where s.organization_id = :organization_id and s.member_id = unhex(replace(audit.actor, '-', '')))
    group by 1, 2";

/// Counts entries of these actions by bucket and by the value of a fact in `after`.
pub fn count_entries(
    r: &Reader<'_>,
    counted: CountedEntries,
    actions: &[&str],
    fact: &str,
    buckets: &Buckets,
) -> Result<Vec<EntryCount>> {
    let (statement, organization) = match counted {
        CountedEntries::OfSite => (COUNT_ENTRIES, None),
        CountedEntries::Of(organization) => (COUNT_ENTRIES_IN, Some(organization)),
        CountedEntries::ByMembersOf(organization) => (COUNT_ENTRIES_BY_MEMBERS, Some(organization)),
    };
    let (actions, to) = (sql::to_json_text(&actions)?, buckets.to());
    let mut parameters: Vec<(&str, &dyn rusqlite::ToSql)> = vec![
        (":from", &buckets.from),
        (":to", &to),
        (":step_ms", &buckets.step_ms),
        (":actions", &actions),
        (":fact", &fact),
    ];
    if let Some(organization) = &organization {
        parameters.push((":organization_id", organization));
    }
    r.all(statement, &parameters, |row| {
        Ok(EntryCount { bucket: row.get(0)?, value: row.get(1)?, number: row.get::<_, i64>(2)?.unsigned_abs() })
    })
}

const LAST_ENTRY: &str = "select coalesce(max(id), 0) from audit";

/// Returns the id of the last entry; 0 if there is none.
pub fn last_entry(r: &Reader<'_>) -> Result<i64> {
    r.one(LAST_ENTRY, &[], |row| row.get(0))
}

const HEAD: &str = "select id, hash from audit order by id desc limit 1";

/// Reads the end of the hash chain.
pub fn head(r: &Reader<'_>) -> Result<ChainHead> {
    let found = r.find(HEAD, &[], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?)))?;
    let (last_entry, last_hash) = found.map(|(id, hash)| (id, hex::encode(hash))).unwrap_or_default();
    Ok(ChainHead { last_entry, last_hash })
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
