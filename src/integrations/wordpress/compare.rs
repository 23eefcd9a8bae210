//! All users of WordPress compared with the members: first everybody there, page by page, then every account that is
//! known here.
//!
//! **Invariant.** Pages move when somebody is deleted while they are read, so that anyone who was not on one is not gone: only
//! an account that WordPress denies by its number is.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::accounts::{AccountOutcome, Effect, suspend, sync_member};
use crate::features::members::{self, WORDPRESS};
use crate::integrations::wordpress::users::{AdminClient, PAGE};
use crate::integrations::wordpress::{UnreadableUser, WordPressUser};
use crate::kernel::app::App;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};

/// Changes of one page that are on their way at the same time: they share commits.
const AT_ONCE_MAX: usize = 16;

/// Where a comparison goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareCursor {
    /// A page of WordPress's users, from 1.
    Page(u64),
    /// The accounts that are known here, above this number.
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
    /// Lists of users that are asked for at most.
    pub pages: u64,
    /// Members who are suspended at most, because their account is gone.
    pub gone_max: u64,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct CompareResult {
    pub looked_at: u64,
    /// Accounts with what became of them, where that is worth telling.
    pub outcomes: Vec<(u64, AccountOutcome)>,
    /// Users that cannot be read; whose they are stays as it is.
    pub odd: Vec<UnreadableUser>,
    /// Accounts that are gone beyond `gone_max`; their members stay as they are.
    pub gone_kept: Vec<u64>,
    /// Where to go on; `None` at the end.
    pub next: Option<CompareCursor>,
}

/// Compares, and brings the members in line unless it is a dry run.
pub async fn compare(app: &Arc<App>, caller: &Identity, options: CompareOptions) -> Result<CompareResult> {
    let Some(admin_client) = AdminClient::from_config(app) else {
        let message = "set wordpress.url, wordpress.username and wordpress.password_file";
        return Err(Error::new(ErrorCode::WordPressNotConfigured).with_message(message));
    };
    admin_client.check_credentials().await?;
    let mut found = CompareResult { next: Some(options.from), ..CompareResult::default() };
    for _ in 0..options.pages {
        found.next = match found.next {
            Some(CompareCursor::Page(page)) => {
                Some(scan(app, caller, &admin_client, (page, options.effect), &mut found).await?)
            }
            Some(CompareCursor::Known(after)) => {
                confirm(app, caller, &admin_client, (after, options), &mut found).await?
            }
            None => return Ok(found),
        };
    }
    Ok(found)
}

/// Takes in one page of WordPress's users.
async fn scan(
    app: &Arc<App>,
    caller: &Identity,
    admin_client: &AdminClient<'_>,
    (page, effect): (u64, Effect),
    found: &mut CompareResult,
) -> Result<CompareCursor> {
    let all = admin_client.page(page).await?;
    let is_last = all.len() < PAGE;
    found.looked_at += all.len() as u64;
    let mut people = Vec::new();
    for one in all {
        match one {
            Ok(person) => people.push(person),
            Err(odd) => {
                tracing::warn!(
                    wordpress_id = odd.id,
                    why = odd.why,
                    "a user of WordPress cannot be read and is left out"
                );
                found.odd.push(odd);
            }
        }
    }
    let follow_one = |person: WordPressUser| async move {
        let id = person.id;
        sync_member(app, caller, person, effect).await.map(|outcome| (id, outcome))
    };
    let outcomes: Vec<(u64, AccountOutcome)> =
        stream::iter(people.into_iter().map(follow_one)).buffered(AT_ONCE_MAX).try_collect().await?;
    found.outcomes.extend(outcomes.into_iter().filter(|(_, outcome)| is_news(outcome)));
    Ok(if is_last { CompareCursor::Known(0) } else { CompareCursor::Page(page + 1) })
}

fn is_news(outcome: &AccountOutcome) -> bool {
    match outcome {
        AccountOutcome::Known { changed, kept, .. } => !changed.is_empty() || !kept.is_empty(),
        AccountOutcome::Nobody => false,
        AccountOutcome::New(_)
        | AccountOutcome::Unlinked(_)
        | AccountOutcome::Left(..)
        | AccountOutcome::Gone(_)
        | AccountOutcome::Odd(_) => true,
    }
}

/// Looks for accounts that are known here and gone there.
async fn confirm(
    app: &Arc<App>,
    caller: &Identity,
    admin_client: &AdminClient<'_>,
    (after, options): (u64, CompareOptions),
    found: &mut CompareResult,
) -> Result<Option<CompareCursor>> {
    let known = app.read(move |r: &Reader<'_>| members::list_numbers_at(r, WORDPRESS, after, PAGE)).await?;
    let Some(last) = known.last().copied() else { return Ok(None) };
    let there = admin_client.among(&known).await?;
    for id in known.into_iter().filter(|id| !there.contains(id)) {
        // The list may be wrong about one: WordPress is asked for this very number.
        if !matches!(admin_client.find(id).await?, Ok(None)) {
            continue;
        }
        let gone =
            found.outcomes.iter().filter(|(_, outcome)| matches!(outcome, AccountOutcome::Gone(_))).count() as u64;
        let effect = if gone < options.gone_max { options.effect } else { Effect::DryRun };
        match suspend(app, caller, id, effect).await? {
            AccountOutcome::Gone(_) if gone >= options.gone_max => found.gone_kept.push(id),
            outcome if is_news(&outcome) => found.outcomes.push((id, outcome)),
            _ => {}
        }
    }
    Ok(Some(CompareCursor::Known(last)))
}

#[cfg(test)]
mod tests {
    use super::CompareCursor;

    #[test]
    fn a_place_leads_back_to_itself() {
        for place in
            [CompareCursor::BEGIN, CompareCursor::Page(7), CompareCursor::Known(0), CompareCursor::Known(u64::MAX)]
        {
            assert_eq!(CompareCursor::parse(&place.to_text()), Some(place));
        }
        for text in ["", "page", "page 0", "page x", "known -1", "people 1", "page 99999999999999999999"] {
            assert_eq!(CompareCursor::parse(text), None, "{text}");
        }
    }
}
