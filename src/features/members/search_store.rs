//! SQL of the search for members: an index of the trigrams of their names, which triggers of the schema keep.

use crate::kernel::db::sql;
use crate::kernel::db::{Reader, Writer};
use crate::kernel::error::Result;
use crate::kernel::ids::MemberId;

// The words are text of ours: a name of a column cannot stand in them.
const FIND_BY_WORDS: &str = "
    select n.member_id
    from member_words
    join member_numbers n on n.number = member_words.rowid
    where member_words match :words
    limit :most";

/// The ids of all members that a keyword may find, as a list in JSON: a list then looks at these alone. `None` where they
/// are many, so that it finds some soon in its own order, and where the index does not know such keywords.
pub fn find_among(r: &Reader<'_>, keyword: &str) -> Result<Option<String>> {
    const AMONG_MAX: usize = 1_000;
    let most = AMONG_MAX as i64 + 1;
    let Some(words) = sql::trigrams(keyword) else { return Ok(None) };
    let found: Vec<MemberId> = r.all(FIND_BY_WORDS, &[(":words", &words), (":most", &most)], |row| row.get(0))?;
    let ids = || found.iter().map(|id| format!("\"{}\"", id.0.simple())).collect::<Vec<_>>().join(",");
    Ok((found.len() <= AMONG_MAX).then(|| format!("[{}]", ids())))
}

// The index of words forgets a member at once, but drops what it knew only as it merges: so many pages of it now.
const SHED_WORDS: &str = "insert into member_words (member_words, rank) values ('merge', -500)";

pub fn shed_words(w: &Writer<'_>) -> Result<()> {
    w.execute(SHED_WORDS, &[]).map(drop)
}
