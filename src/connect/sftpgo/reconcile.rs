//! All of SFTPGo's users beside all members with a name there: events are lost, and people change things by hand.
//!
//! **Invariant.** Only accounts of our members are mended. What belongs to nobody here is told of and left alone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::account::{Bases, Difference, User, Wish};
use super::client::{Trouble, Turn};
use super::{bring_in_line, is_configured, require_configured};
use crate::access::caller::Identity;
use crate::app::{App, Changed};
use crate::db::Reader;
use crate::error::Result;
use crate::ids::MemberId;
use crate::journal::Entry;
use crate::members;

/// Users that are listed at a time: the most that SFTPGo tells of. Where that is longer than an answer may be, fewer.
const PAGES: [u64; 2] = [500, 50];
/// Accounts whose files SFTPGo counts anew after one comparison; counting reads the disk.
const SCANS_MAX: usize = 50;

/// How the users differ from the members.
#[derive(Debug, Default)]
pub struct Drift {
    /// Members with a name there.
    pub members: usize,
    /// Users there.
    pub users: usize,
    /// Active members without a user.
    pub missing: Vec<(MemberId, String)>,
    /// Users that are nobody's here.
    pub foreign: Vec<String>,
    /// Users of a member's name that say to be somebody else's.
    pub conflicts: Vec<(MemberId, String)>,
    pub differing: Vec<(MemberId, String, Difference)>,
    wishes: HashMap<String, Wish>,
}

/// What was done about it.
#[derive(Debug, Default)]
pub struct Mended {
    pub drift: Drift,
    pub mended: Vec<(MemberId, String)>,
    /// Who could not be mended, and why.
    pub failed: Vec<(MemberId, String, String)>,
    /// Accounts whose files are counted anew.
    pub scans: usize,
}

/// Compares, and changes nothing.
pub async fn compare(app: &App) -> Result<Drift> {
    require_configured(&app.config)?;
    let users = list(app).await?;
    let bases = Bases::of(app);
    let find = move |r: &Reader<'_>| {
        let known = members::list_at_sftpgo(r)?;
        known.into_iter().map(|(name, member)| bases.wish(r, &member, name)).collect::<Result<Vec<_>>>()
    };
    // Read after the users: who was made meanwhile is missing, and is looked for again before anything is done.
    let wishes: HashMap<String, Wish> =
        app.read(find).await?.into_iter().map(|wish| (wish.username.clone(), wish)).collect();
    let mut drift = Drift { members: wishes.len(), users: users.len(), ..Drift::default() };
    let names: HashSet<&str> = users.iter().map(name_of).collect();
    let mut missing: Vec<&Wish> =
        wishes.values().filter(|wish| wish.is_active && !names.contains(wish.username.as_str())).collect();
    missing.sort_by(|left, right| left.username.cmp(&right.username));
    drift.missing = missing.into_iter().map(|wish| (wish.member, wish.username.clone())).collect();
    for user in &users {
        let name = name_of(user);
        let Some(wish) = wishes.get(name) else {
            drift.foreign.push(name.to_owned());
            continue;
        };
        if wish.is_anothers(user) {
            drift.conflicts.push((wish.member, name.to_owned()));
            continue;
        }
        for difference in wish.differences(user).into_iter().chain(wish.usage_difference(user)) {
            drift.differing.push((wish.member, name.to_owned(), difference));
        }
    }
    drift.wishes = wishes;
    Ok(drift)
}

fn name_of(user: &User) -> &str {
    user.get("username").and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// All users. Who is deleted meanwhile may shift another one out of sight, which then is looked for by its name.
async fn list(app: &App) -> Result<Vec<User>, Trouble> {
    let (mut users, mut known) = (Vec::new(), HashSet::new());
    let [mut limit, fewer] = PAGES;
    let mut offset = 0;
    loop {
        // A turn for each page: who waits for one gets it in between.
        let page = match Turn::begin(app).await.list(offset, limit).await {
            Err(Trouble::Later { .. }) if limit > fewer => {
                limit = fewer;
                continue;
            }
            page => page?,
        };
        let count = page.len() as u64;
        users.extend(page.into_iter().filter(|user| known.insert(name_of(user).to_owned())));
        offset += count;
        if count < limit {
            return Ok(users);
        }
    }
}

/// Compares, and brings the accounts of our members in line.
pub async fn reconcile(app: &App, caller: &Identity, is_dry: bool) -> Result<Mended> {
    let mut found = Mended { drift: compare(app).await?, ..Mended::default() };
    if is_dry {
        return Ok(found);
    }
    for (member, name) in to_mend(&found.drift) {
        let outcome = match found.drift.wishes.get(&name) {
            Some(wish) => mend(app, wish).await?,
            None => continue,
        };
        match outcome {
            Ok(true) => found.mended.push((member, name)),
            Ok(false) => {}
            Err(Trouble::Later { why, .. } | Trouble::Refused(why)) => found.failed.push((member, name, why)),
        }
    }
    let drifted = found.drift.differing.iter().filter(|(_, _, difference)| difference.field == USAGE);
    for (_, name, _) in drifted.take(SCANS_MAX) {
        match Turn::begin(app).await.scan(name).await {
            Ok(is_begun) => found.scans += usize::from(is_begun),
            Err(trouble) => {
                tracing::warn!(?trouble, "SFTPGo does not count a user's files anew");
                break;
            }
        }
    }
    let (mended, failed, scans) = (found.mended.len(), found.failed.len(), found.scans);
    let note = move |_: &crate::app::Transaction<'_>, _: &Identity| {
        if mended + failed + scans == 0 {
            return Ok(Changed::nothing(()));
        }
        let entry = Entry::new("sftpgo", "users");
        Ok(Changed::new((), entry.after(json!({"mended": mended, "failed": failed, "scans": scans}))))
    };
    app.change(caller, "sftpgo.reconcile", note).await?;
    Ok(found)
}

/// A difference that only SFTPGo itself can settle, by counting.
const USAGE: &str = "used_quota_size";

/// Whose account is missing or differs, once each.
fn to_mend(drift: &Drift) -> Vec<(MemberId, String)> {
    let differing = drift.differing.iter().filter(|(_, _, difference)| difference.field != USAGE);
    let all = drift.missing.iter().cloned().chain(differing.map(|(member, name, _)| (*member, name.clone())));
    let mut known = HashSet::new();
    all.filter(|(member, _)| known.insert(*member)).collect()
}

/// Brings one account in line with what its rows say now.
async fn mend(app: &App, wish: &Wish) -> Result<Result<bool, Trouble>> {
    let mut turn = Turn::begin(app).await;
    let (bases, name) = (Bases::of(app), wish.username.clone());
    let look = move |r: &Reader<'_>| match members::find_known(r, members::SFTPGO, &name)? {
        Some(member) => bases.wish(r, &member, name).map(Some),
        None => Ok(None),
    };
    Ok(match app.read(look).await? {
        Some(wish) => bring_in_line(&mut turn, &wish).await.map(|needless| needless.is_none()),
        None => Ok(false),
    })
}

/// Reconciles again and again, until it is dropped.
pub async fn run(app: Arc<App>) {
    let mut every = tokio::time::interval(Duration::from_secs(app.config.sftpgo_reconcile_s));
    // The first tick is immediate; events that wait come first.
    every.tick().await;
    loop {
        every.tick().await;
        if !is_configured(&app.config) {
            continue;
        }
        match reconcile(&app, &Identity::command_line(), false).await {
            Ok(found) => tracing::info!(
                users = found.drift.users,
                foreign = found.drift.foreign.len(),
                conflicts = found.drift.conflicts.len(),
                mended = found.mended.len(),
                failed = found.failed.len(),
                "SFTPGo's users were compared with the members"
            ),
            Err(e) => tracing::warn!(error = %e, "SFTPGo's users could not be compared and will be later"),
        }
    }
}
