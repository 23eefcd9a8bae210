//! Compares all WordPress users with the members: first all users, page by page, then all linked accounts.
//!
//! **Invariant.** Pages shift when a user is deleted during the listing, so a user missing from the list may still
//! exist: an account is gone only if WordPress says so for its number.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::accounts::{AccountOutcome, Effect, Run, suspend, sync_member};
use crate::features::members::{self, WORDPRESS};
use crate::integrations::wordpress::users::{AdminClient, PAGE};
use crate::integrations::wordpress::{UnreadableUser, WordPressUser};
use crate::kernel::app::App;
use crate::kernel::app::tasks::{Progress, TaskKind};
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};

/// The maximum number of concurrent changes; they share commits.
const CONCURRENT_MAX: usize = 16;

/// Where a comparison continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareCursor {
    /// A page of WordPress's users, from 1.
    Page(u64),
    /// The linked accounts with a higher number than this.
    Known(u64),
}

impl CompareCursor {
    pub const BEGIN: Self = Self::Page(1);

    pub fn parse(text: &str) -> Option<Self> {
        let (kind, number) = text.split_once(' ')?;
        let number = number.parse().ok()?;
        match kind {
            "page" if number > 0 => Some(Self::Page(number)),
            "known" => Some(Self::Known(number)),
            _ => None,
        }
    }

    pub fn to_text(self) -> String {
        match self {
            Self::Page(number) => format!("page {number}"),
            Self::Known(number) => format!("known {number}"),
        }
    }
}

/// Options of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct CompareOptions {
    pub effect: Effect,
    pub from: CompareCursor,
    /// The maximum number of user lists to request.
    pub pages: u64,
    /// The maximum number of members to suspend because their account is gone.
    pub gone_max: u64,
}

/// The result of a comparison.
#[derive(Debug, Default)]
pub struct CompareResult {
    pub looked_at: u64,
    /// The outcomes of accounts that changed or differ.
    pub outcomes: Vec<(u64, AccountOutcome)>,
    /// Users that cannot be parsed; their members stay unchanged.
    pub odd: Vec<UnreadableUser>,
    /// Accounts that are gone beyond `gone_max`; their members stay unchanged.
    pub gone_kept: Vec<u64>,
    /// Where to continue; `None` at the end.
    pub next: Option<CompareCursor>,
    /// Why it ended early; what was done until then stays.
    pub stopped: Option<Error>,
}

/// The comparison as a task, which counts the accounts: those of WordPress, then those that are linked here.
pub const COMPARE: TaskKind = TaskKind { operation: "sync_wordpress", steps: &["accounts"] };

/// Returns a client for WordPress. Fails with `wordpress_not_configured`.
pub fn require_client(app: &App) -> Result<AdminClient<'_>> {
    AdminClient::from_config(app).ok_or_else(|| {
        let message = "set wordpress.url, wordpress.username and wordpress.password_file";
        Error::new(ErrorCode::WordPressNotConfigured).with_message(message)
    })
}

/// Compares users and members, and updates the members unless it is a dry run. If it is cancelled, or stopped by
/// a failure or the loss of the right, `next` says where to continue.
pub async fn compare(
    app: &Arc<App>,
    caller: &Identity,
    options: CompareOptions,
    progress: &Progress,
) -> Result<CompareResult> {
    progress.step(COMPARE.steps[0]);
    let by = Run { caller, permission: Some(Permission::WORDPRESS_SYNC), effect: options.effect };
    let admin_client = require_client(app)?;
    admin_client.check_credentials().await?;
    let mut found = CompareResult { next: Some(options.from), ..CompareResult::default() };
    for _ in 0..options.pages {
        if progress.is_cancelled() {
            break;
        }
        let Some(cursor) = found.next else { break };
        match compare_list(app, by, &admin_client, (cursor, options), progress, &mut found).await {
            Ok(next) => found.next = next,
            Err(error) => {
                found.stopped = Some(error);
                break;
            }
        }
    }
    Ok(found)
}

/// Compares one list of users or accounts. Returns where to continue.
async fn compare_list(
    app: &Arc<App>,
    by: Run<'_>,
    admin_client: &AdminClient<'_>,
    (cursor, options): (CompareCursor, CompareOptions),
    progress: &Progress,
    found: &mut CompareResult,
) -> Result<Option<CompareCursor>> {
    // Also for a dry run and for lists without a change.
    app.require_now(by.caller, Permission::WORDPRESS_SYNC)?;
    match cursor {
        CompareCursor::Page(page) => scan(app, by, admin_client, page, progress, found).await.map(Some),
        CompareCursor::Known(after) => confirm(app, by, admin_client, (after, options), progress, found).await,
    }
}

/// Synchronizes the members of one page of users.
async fn scan(
    app: &Arc<App>,
    by: Run<'_>,
    admin_client: &AdminClient<'_>,
    page: u64,
    progress: &Progress,
    found: &mut CompareResult,
) -> Result<CompareCursor> {
    let all = admin_client.page(page).await?;
    let is_last = all.len() < PAGE;
    found.looked_at += all.len() as u64;
    let mut people = Vec::new();
    for one in all {
        match one {
            Ok(person) => people.push(person),
            Err(mut odd) => {
                odd.why = app.outbound.secrets.hide(&odd.why);
                tracing::warn!(wordpress_id = odd.id, why = odd.why, "a WordPress user cannot be read and is skipped");
                found.odd.push(odd);
            }
        }
    }
    let sync_one = |person: WordPressUser| async move {
        let id = person.id;
        let outcome = sync_member(app, by, person).await?;
        progress.advance(1);
        Ok::<_, Error>((id, outcome))
    };
    let outcomes: Vec<(u64, AccountOutcome)> =
        stream::iter(people.into_iter().map(sync_one)).buffered(CONCURRENT_MAX).try_collect().await?;
    found.outcomes.extend(outcomes.into_iter().filter(|(_, outcome)| is_reported(outcome)));
    Ok(if is_last { CompareCursor::Known(0) } else { CompareCursor::Page(page + 1) })
}

fn is_reported(outcome: &AccountOutcome) -> bool {
    match outcome {
        AccountOutcome::Synced { changed, kept, .. } => !changed.is_empty() || !kept.is_empty(),
        AccountOutcome::NotLinked => false,
        AccountOutcome::New(_)
        | AccountOutcome::Unlinked(_)
        | AccountOutcome::Unchanged(..)
        | AccountOutcome::Gone(_)
        | AccountOutcome::Unreadable(_) => true,
    }
}

/// Finds linked accounts that are gone at WordPress, and suspends their members.
async fn confirm(
    app: &Arc<App>,
    by: Run<'_>,
    admin_client: &AdminClient<'_>,
    (after, options): (u64, CompareOptions),
    progress: &Progress,
    found: &mut CompareResult,
) -> Result<Option<CompareCursor>> {
    let known = app.read(move |r: &Reader<'_>| members::list_numeric_subjects(r, WORDPRESS, after, PAGE)).await?;
    let Some(last) = known.last().copied() else { return Ok(None) };
    let there = admin_client.among(&known).await?;
    progress.advance(there.len() as u64);
    for id in known.into_iter().filter(|id| !there.contains(id)) {
        progress.advance(1);
        // The list can be incomplete, so each missing number is requested separately.
        if !matches!(admin_client.find(id).await?, Ok(None)) {
            continue;
        }
        let gone =
            found.outcomes.iter().filter(|(_, outcome)| matches!(outcome, AccountOutcome::Gone(_))).count() as u64;
        let effect = if gone < options.gone_max { options.effect } else { Effect::DryRun };
        match suspend(app, Run { effect, ..by }, id).await? {
            AccountOutcome::Gone(_) if gone >= options.gone_max => found.gone_kept.push(id),
            outcome if is_reported(&outcome) => found.outcomes.push((id, outcome)),
            _ => {}
        }
    }
    Ok(Some(CompareCursor::Known(last)))
}

#[cfg(test)]
mod tests {
    use super::CompareCursor;

    #[test]
    fn a_cursor_survives_a_round_trip_as_text() {
        for cursor in
            [CompareCursor::BEGIN, CompareCursor::Page(7), CompareCursor::Known(0), CompareCursor::Known(u64::MAX)]
        {
            assert_eq!(CompareCursor::parse(&cursor.to_text()), Some(cursor));
        }
        for text in ["", "page", "page 0", "page x", "known -1", "people 1", "page 99999999999999999999"] {
            assert_eq!(CompareCursor::parse(text), None, "{text}");
        }
    }
}
