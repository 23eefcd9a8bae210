//! Maintenance in batches, so that other changes can run between two of them.

use super::store;
use super::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Writer;
use crate::kernel::error::Result;

/// The most rows of one batch: a few milliseconds of the writer.
pub const BATCH_ROWS: usize = 200;
/// The most batches of one task in a row; the next run does the rest.
const BATCHES_MAX: usize = 500;

impl App {
    /// Runs a task batch by batch until it finds fewer rows than a batch; returns the number of rows it found.
    ///
    /// `write` gets the size of a batch and returns the number of rows it found.
    pub async fn write_in_batches(
        &self,
        write: impl Fn(&Writer<'_>, usize) -> Result<usize> + Clone + Send + 'static,
    ) -> Result<usize> {
        let mut found = 0;
        for _ in 0..BATCHES_MAX {
            let write = write.clone();
            let in_batch = self.write_unaudited(move |w| write(w, BATCH_ROWS)).await?;
            found += in_batch;
            if in_batch < BATCH_ROWS {
                break;
            }
        }
        Ok(found)
    }

    /// Like `write_in_batches`, for tasks that change the policy or need audit entries. The answer of the change is the
    /// number of rows it found.
    pub async fn change_in_batches(
        &self,
        action: &'static str,
        change: impl Fn(&Transaction<'_>, usize) -> Result<Changed<usize>> + Clone + Send + 'static,
    ) -> Result<()> {
        for _ in 0..BATCHES_MAX {
            let change = change.clone();
            let batch = move |t: &Transaction<'_>, _: &Identity| change(t, BATCH_ROWS);
            if self.change(&Identity::command_line(), action, batch).await?.answer < BATCH_ROWS {
                break;
            }
        }
        Ok(())
    }

    /// Writes each of these rows, batch by batch.
    pub async fn write_each_unaudited<T: Send + 'static>(
        &self,
        rows: Vec<T>,
        write: impl Fn(&Writer<'_>, &T) -> Result<()> + Clone + Send + 'static,
    ) -> Result<()> {
        for batch in batches(rows) {
            let write = write.clone();
            self.write_unaudited(move |w| batch.iter().try_for_each(|row| write(w, row))).await?;
        }
        Ok(())
    }

    /// Deletes stored answers of idempotent requests that contain an erased name, batch by batch.
    pub async fn forget_erased(&self) -> Result<()> {
        /// Answers of one read.
        const CONCURRENT_MAX: usize = 2_000;
        let erased = self.read(store::list_erased_names).await?;
        if erased.is_empty() {
            return Ok(());
        }
        let mut after = store::IdempotencyKey::default();
        loop {
            let answers = self.read(move |r| store::list_answers_after(r, &after, CONCURRENT_MAX)).await?;
            let last = answers.last().map(|(key, _)| key.clone()).filter(|_| answers.len() == CONCURRENT_MAX);
            let naming = answers.into_iter().filter_map(|(key, names_erased)| names_erased.then_some(key)).collect();
            self.write_each_unaudited(naming, store::forget_answer).await?;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        self.write_each_unaudited(erased, |w, name| store::delete_erased_name(w, name)).await
    }

    /// Deletes stored answers of idempotent requests that have expired.
    pub async fn forget_old_requests(&self) -> Result<()> {
        let ttl_ms = seconds_to_ms(self.config.idempotency_ttl_s);
        self.write_in_batches(move |w, limit| store::forget_remembered(w, w.now().plus_ms(-ttl_ms), limit))
            .await
            .map(drop)
    }
}

/// Splits rows into batches.
pub fn batches<T>(rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut rows = rows.into_iter();
    std::iter::from_fn(move || {
        let batch: Vec<T> = rows.by_ref().take(BATCH_ROWS).collect();
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_but_the_last_is_full() {
        for (rows, expected) in
            [(0, vec![]), (1, vec![1]), (BATCH_ROWS, vec![BATCH_ROWS]), (BATCH_ROWS + 1, vec![BATCH_ROWS, 1])]
        {
            assert_eq!(batches(vec![(); rows]).map(|batch| batch.len()).collect::<Vec<_>>(), expected);
        }
    }
}
