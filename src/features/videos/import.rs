//! What lies under the media root already becomes videos, and videos without an owner find theirs.
//!
//! These files exist: they are counted whether or not they fit, and anyone who is over the quota then is named. Both work
//! in pieces, a transaction each, so that nobody waits for a long one; both can be repeated at any time.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::json;

use super::walk::{Found, Taken, walk};
use super::{Registration, reassign, register, register_ownerless, store};
use crate::features::members;
use crate::features::quotas::{self, QuotaCheck, QuotaSettings};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::MemberId;

/// Files of one transaction.
const PIECE: usize = 200;

/// What an import is asked for.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    pub is_dry_run: bool,
    /// A folder below the media root.
    pub prefix: Option<String>,
    /// Goes on after this file.
    pub after: Option<String>,
    /// Looks at so many files; at all, when absent.
    pub limit: Option<u64>,
    pub queues_jobs: bool,
}

/// What became of it, or would.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ImportResult {
    pub looked_at: u64,
    pub taken: u64,
    /// Of these, without an owner.
    pub ownerless: u64,
    pub already_known: u64,
    pub bytes: i64,
    /// Links, names that are ignored or not text.
    pub skipped: u64,
    /// Who stores more than allowed now.
    pub over_quota: BTreeSet<MemberId>,
    /// Where to go on after; none at the end.
    pub next: Option<String>,
}

/// Takes in what lies under the media root.
pub async fn import(app: &App, caller: &Identity, request: ImportRequest) -> Result<ImportResult> {
    let config = &app.config;
    if config.media_root.as_os_str().is_empty() {
        return Err(ErrorCode::MediaRootNotConfigured.into());
    }
    let limit = request.limit.unwrap_or(config.import_files_max).min(config.import_files_max);
    let mut outcome = ImportResult { next: request.after.clone(), ..ImportResult::default() };
    loop {
        let most = usize::try_from(limit - outcome.looked_at).unwrap_or(PIECE).min(PIECE);
        let (root, prefix, after) = (config.media_root.clone(), request.prefix.clone(), outcome.next.clone());
        let (path_bytes_max, ignored_names) = (config.video_path_bytes_max, config.ignored_names.clone());
        let look = move || {
            let taken = Taken { most, path_bytes_max, ignored_names: &ignored_names };
            walk(Path::new(&root), prefix.as_deref(), after.as_deref(), taken)
        };
        let piece =
            tokio::task::spawn_blocking(look).await.map_err(|e| Error::internal(format!("a walk panicked: {e}")))??;
        outcome.looked_at += piece.found.len() as u64;
        outcome.skipped += piece.skipped;
        outcome.next.clone_from(&piece.next);
        take_in(app, caller, piece.found, &request, &mut outcome).await?;
        if outcome.next.is_none() || outcome.looked_at >= limit {
            return Ok(outcome);
        }
    }
}

/// One piece in one transaction; a dry run asks the same of the rows and changes none.
async fn take_in(
    app: &App,
    caller: &Identity,
    found: Vec<Found>,
    request: &ImportRequest,
    outcome: &mut ImportResult,
) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let (rules, queues_job) = (QuotaSettings::from_config(&app.config), request.queues_jobs);
    let made = if request.is_dry_run {
        let snapshot = app.snapshot();
        app.read(move |r| foreseen(r, &rules, &snapshot, found)).await?
    } else {
        let take = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::VIDEO_IMPORT)?;
            let mut owners = Owners::default();
            let mut changed = Changed::nothing(ImportResult::default());
            for Found { path, size } in found {
                let owner = owners.of(t, path.folder())?;
                let one = match owner {
                    Some(owner) => {
                        let fit = QuotaCheck::Skipped;
                        register(t, &rules, caller, Registration { path, owner, size: Ok(size), fit, queues_job })?
                    }
                    None => register_ownerless(t, &rules, caller, (path, size), queues_job)?,
                };
                let already_exists = one.answer.already_exists;
                changed = changed.and(one);
                changed.answer.note(owner, size, already_exists);
            }
            for owner in owners.known() {
                let account = quotas::account(t, &rules, t.snapshot(), owner)?;
                if account.used > account.size {
                    changed.answer.over_quota.insert(owner);
                }
            }
            Ok(changed)
        };
        app.change(caller, "video.import", take).await?.answer
    };
    outcome.add(made);
    Ok(())
}

fn foreseen(
    r: &Reader<'_>,
    rules: &QuotaSettings,
    snapshot: &authz::snapshot::Snapshot,
    found: Vec<Found>,
) -> Result<ImportResult> {
    let (mut owners, mut outcome) = (Owners::default(), ImportResult::default());
    let mut more: HashMap<MemberId, i64> = HashMap::new();
    for Found { path, size } in found {
        let owner = owners.of(r, path.folder())?;
        let already_exists = super::find(r, &path.id())?.is_some();
        outcome.note(owner, size, already_exists);
        if let Some(owner) = owner.filter(|_| !already_exists) {
            let sum = more.entry(owner).or_default();
            *sum = sum.saturating_add(size);
        }
    }
    for (owner, bytes) in more {
        let account = quotas::account(r, rules, snapshot, owner)?;
        if account.used.saturating_add(bytes) > account.size {
            outcome.over_quota.insert(owner);
        }
    }
    Ok(outcome)
}

impl ImportResult {
    fn note(&mut self, owner: Option<MemberId>, size: i64, already_exists: bool) {
        if already_exists {
            self.already_known += 1;
            return;
        }
        self.taken += 1;
        self.ownerless += u64::from(owner.is_none());
        self.bytes = self.bytes.saturating_add(size);
    }
}

/// Whose folder is whose, looked up once.
#[derive(Default)]
struct Owners(HashMap<String, Option<MemberId>>);

impl Owners {
    fn of(&mut self, r: &Reader<'_>, folder: &str) -> Result<Option<MemberId>> {
        if let Some(known) = self.0.get(folder) {
            return Ok(*known);
        }
        let owner = members::owner_of_folder(r, folder)?;
        self.0.insert(folder.to_owned(), owner);
        Ok(owner)
    }

    fn known(&self) -> impl Iterator<Item = MemberId> {
        self.0.values().flatten().copied()
    }
}

/// Gives videos without an owner to whose folders they lie in.
pub async fn claim(app: &App, caller: &Identity, is_dry_run: bool) -> Result<ImportResult> {
    let rules = QuotaSettings::from_config(&app.config);
    let mut outcome = ImportResult::default();
    let mut after = String::new();
    loop {
        let from = after.clone();
        let waiting = app.read(move |r| store::list_ownerless_after(r, &from, PIECE as u64)).await?;
        let Some(last) = waiting.last() else { return Ok(outcome) };
        last.path.as_str().clone_into(&mut after);
        outcome.looked_at += waiting.len() as u64;
        if is_dry_run {
            let snapshot = app.snapshot();
            let foresee = move |r: &Reader<'_>| {
                let mut made = ImportResult::default();
                let mut owners = Owners::default();
                for video in waiting {
                    let owner = owners.of(r, video.path.folder())?;
                    made.claimed(owner, video.size);
                    if let Some(owner) = owner {
                        let account = quotas::account(r, &rules, &snapshot, owner)?;
                        if account.used.saturating_add(video.size) > account.size {
                            made.over_quota.insert(owner);
                        }
                    }
                }
                Ok(made)
            };
            outcome.add(app.read(foresee).await?);
            continue;
        }
        let give = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::VIDEO_CLAIM)?;
            let mut owners = Owners::default();
            let mut changed = Changed::nothing(ImportResult::default());
            for video in waiting {
                // Somebody may have taken it meanwhile.
                let Some(video) = super::find(t, &video.id)?.filter(|video| video.member.is_none()) else { continue };
                let owner = owners.of(t, video.path.folder())?;
                changed.answer.claimed(owner, video.size);
                if let Some(owner) = owner {
                    changed = changed.and(reassign(t, &rules, caller, (&video, owner, QuotaCheck::Skipped), "claim")?);
                    let account = quotas::account(t, &rules, t.snapshot(), owner)?;
                    if account.used > account.size {
                        changed.answer.over_quota.insert(owner);
                    }
                }
            }
            if changed.answer.taken > 0 {
                let count = json!({"claimed": changed.answer.taken});
                changed = changed.also(Entry::new("videos", "ownerless").after(count));
            }
            Ok(changed)
        };
        outcome.add(app.change(caller, "video.claim", give).await?.answer);
    }
}

/// Gives a member the videos without an owner in its own folder.
pub async fn claim_own(app: &App, caller: &Identity, member: MemberId, is_dry_run: bool) -> Result<ImportResult> {
    let rules = QuotaSettings::from_config(&app.config);
    let mut outcome = ImportResult::default();
    let Some(folder) = app.read(move |r| members::sftpgo_name(r, member)).await? else { return Ok(outcome) };
    let mut after = folder.clone() + "/";
    loop {
        let from = after.clone();
        let mut waiting = app.read(move |r| store::list_ownerless_after(r, &from, PIECE as u64)).await?;
        waiting.retain(|video| video.path.folder() == folder);
        let Some(last) = waiting.last() else { return Ok(outcome) };
        last.path.as_str().clone_into(&mut after);
        outcome.looked_at += waiting.len() as u64;
        let snapshot = app.snapshot();
        let sum = waiting.iter().fold(0_i64, |sum, video| sum.saturating_add(video.size));
        let foresee = move |r: &Reader<'_>| quotas::account(r, &rules, &snapshot, member);
        if is_dry_run {
            let account = app.read(foresee).await?;
            waiting.iter().for_each(|video| outcome.claimed(Some(member), video.size));
            if account.used.saturating_add(sum) > account.size {
                outcome.over_quota.insert(member);
            }
            continue;
        }
        let folder = folder.clone();
        let give = move |t: &Transaction<'_>, caller: &Identity| {
            let mut changed = Changed::nothing(ImportResult::default());
            // Its folder may be another one by now.
            if members::sftpgo_name(t, member)?.as_ref() != Some(&folder) || !t.snapshot().is_active(member) {
                return Ok(changed);
            }
            for video in waiting {
                let Some(video) = super::find(t, &video.id)?.filter(|video| video.member.is_none()) else { continue };
                changed.answer.claimed(Some(member), video.size);
                changed = changed.and(reassign(t, &rules, caller, (&video, member, QuotaCheck::Skipped), "claim")?);
            }
            let account = quotas::account(t, &rules, t.snapshot(), member)?;
            if account.used > account.size {
                changed.answer.over_quota.insert(member);
            }
            Ok(changed)
        };
        outcome.add(app.change(caller, "video.claim", give).await?.answer);
    }
}

impl ImportResult {
    fn claimed(&mut self, owner: Option<MemberId>, size: i64) {
        match owner {
            None => self.ownerless += 1,
            Some(_) => {
                self.taken += 1;
                self.bytes = self.bytes.saturating_add(size);
            }
        }
    }

    fn add(&mut self, made: Self) {
        self.taken += made.taken;
        self.ownerless += made.ownerless;
        self.already_known += made.already_known;
        self.bytes = self.bytes.saturating_add(made.bytes);
        self.over_quota.extend(made.over_quota);
    }
}
