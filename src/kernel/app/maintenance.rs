//! Batched maintenance: other changes can run between two batches.

use super::idempotency_store;
use super::{App, Changed, Transaction, ms};
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Writer;
use crate::kernel::error::Result;

/// Rows that one change of the upkeep touches at most: a few milliseconds of the writer.
pub const PIECE_ROWS: usize = 200;
/// Pieces of one kind in a row; the next upkeep takes the rest.
const PIECES_MAX: usize = 500;

impl App {
    /// Repeats what takes a number of rows until it finds fewer; answers how many it found.
    pub async fn write_in_batches(
        &self,
        tidy: impl Fn(&Writer<'_>, usize) -> Result<usize> + Clone + Send + 'static,
    ) -> Result<usize> {
        let mut found = 0;
        for _ in 0..PIECES_MAX {
            let tidy = tidy.clone();
            let in_piece = self.write_unaudited(move |w| tidy(w, PIECE_ROWS)).await?;
            found += in_piece;
            if in_piece < PIECE_ROWS {
                break;
            }
        }
        Ok(found)
    }

    /// The same for what the policy or the audit has to know of. The change answers how many rows it found.
    pub async fn change_in_batches(
        &self,
        action: &'static str,
        change: impl Fn(&Transaction<'_>, usize) -> Result<Changed<usize>> + Clone + Send + 'static,
    ) -> Result<()> {
        for _ in 0..PIECES_MAX {
            let change = change.clone();
            let piece = move |t: &Transaction<'_>, _: &Identity| change(t, PIECE_ROWS);
            if self.change(&Identity::command_line(), action, piece).await?.answer < PIECE_ROWS {
                break;
            }
        }
        Ok(())
    }

    /// Writes rows that were gathered before.
    pub async fn write_each_unaudited<T: Send + 'static>(
        &self,
        rows: Vec<T>,
        write: impl Fn(&Writer<'_>, &T) -> Result<()> + Clone + Send + 'static,
    ) -> Result<()> {
        for piece in pieces(rows) {
            let write = write.clone();
            self.write_unaudited(move |w| piece.iter().try_for_each(|row| write(w, row))).await?;
        }
        Ok(())
    }

    /// Forgets answers that name what was erased, a few at a time.
    pub async fn forget_erased(&self) -> Result<()> {
        /// Looked at in one read.
        const AT_ONCE_MAX: usize = 2_000;
        let erased = self.read(idempotency_store::list_erased_names).await?;
        if erased.is_empty() {
            return Ok(());
        }
        let mut place = idempotency_store::PlaceOfAnswer::default();
        loop {
            let answers = self.read(move |r| idempotency_store::list_answers_behind(r, &place, AT_ONCE_MAX)).await?;
            let last = answers.last().map(|(place, _)| place.clone()).filter(|_| answers.len() == AT_ONCE_MAX);
            let naming = answers.into_iter().filter_map(|(place, is_named)| is_named.then_some(place)).collect();
            self.write_each_unaudited(naming, idempotency_store::forget_answer).await?;
            match last {
                Some(last) => place = last,
                None => break,
            }
        }
        self.write_each_unaudited(erased, |w, name| idempotency_store::delete_erased_name(w, name)).await
    }

    /// Deletes stored answers of idempotent requests that have expired.
    pub async fn forget_old_requests(&self) -> Result<()> {
        let ttl_ms = ms(self.config.idempotency_ttl_s);
        self.write_in_batches(move |w, most| idempotency_store::forget_remembered(w, w.now().plus_ms(-ttl_ms), most))
            .await
            .map(drop)
    }
}

/// Rows by the piece.
pub fn pieces<T>(rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(move || {
        let piece: Vec<T> = rows.by_ref().take(PIECE_ROWS).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_full_or_the_last_one() {
        for (rows, expected) in
            [(0, vec![]), (1, vec![1]), (PIECE_ROWS, vec![PIECE_ROWS]), (PIECE_ROWS + 1, vec![PIECE_ROWS, 1])]
        {
            assert_eq!(pieces(vec![(); rows]).map(|piece| piece.len()).collect::<Vec<_>>(), expected);
        }
    }
}
