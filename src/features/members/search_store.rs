//! SQL of the member search: a trigram index of the members' names, which triggers of the schema maintain.

use crate::kernel::db::sql;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;

// `sql::trigrams` builds the search expression, so it cannot contain a column name.
const FIND_BY_WORDS: &str = "
    select n.member_id
    from member_words
    join member_numbers n on n.number = member_words.rowid
    where member_words match :words
    limit :most";

/// Returns the ids of the members that a keyword can match, as a JSON array, so that a list has to check only these.
/// `None` if there are too many, because a scan in list order then finds a page soon, or if the index cannot search the
/// keyword.
pub fn find_among(r: &Reader<'_>, keyword: &str) -> Result<Option<String>> {
    const AMONG_MAX: usize = 1_000;
    let most = AMONG_MAX as i64 + 1;
    let Some(words) = sql::trigrams(keyword) else { return Ok(None) };
    let found: Vec<MemberId> = r.all(FIND_BY_WORDS, &[(":words", &words), (":most", &most)], |row| row.get(0))?;
    let ids = || found.iter().map(|id| format!("\"{}\"", id.0.simple())).collect::<Vec<_>>().join(",");
    Ok((found.len() <= AMONG_MAX).then(|| format!("[{}]", ids())))
}

// A deleted entry no longer matches, but FTS5 removes its data only when segments are merged. This merges up to 500
// pages.
const SHED_WORDS: &str = "insert into member_words (member_words, rank) values ('merge', -500)";

/// Merges segments of the search index, to remove the data of deleted entries.
pub fn merge_index(w: &Writer<'_>) -> Result<()> {
    w.execute(SHED_WORDS, &[]).map(drop)
}
