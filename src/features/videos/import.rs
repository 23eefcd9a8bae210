//! Imports files that exist below the media root as videos, and assigns owners to videos that have none.
//!
//! These files exist already, so they are counted whether or not they fit; members over their quota are reported. Both
//! operations work in chunks with one transaction each, so that other writers are not delayed, and can be repeated at
//! any time.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::json;

use super::walk::{FoundFile, WalkLimits, walk};
use super::{Registration, reassign, register, register_ownerless, store};
use crate::features::members;
use crate::features::quotas::{self, LedgerCause, QuotaCheck, QuotaSettings};
use crate::kernel::app::tasks::{BUSY_PAUSES, Progress, TaskKind};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::config::Config;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::MemberId;

/// The number of files per transaction.
const CHUNK_SIZE: usize = 200;

/// The options of an import.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    pub is_dry_run: bool,
    /// A folder below the media root.
    pub prefix: Option<String>,
    /// Continue after this file.
    pub after: Option<String>,
    /// The maximum number of files to read; `limits.import_files` when absent.
    pub limit: Option<u64>,
    pub queues_jobs: bool,
}

/// The result of an import, or of a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportResult {
    pub looked_at: u64,
    pub taken: u64,
    /// The number of these without an owner.
    pub ownerless: u64,
    pub already_known: u64,
    pub bytes: i64,
    /// Links, and names that are ignored or not UTF-8.
    pub skipped: u64,
    /// Members that are over their quota now.
    pub over_quota: BTreeSet<MemberId>,
    /// The path to continue after; `None` at the end.
    pub next: Option<String>,
}

/// Fails with `media_root_not_configured` if there are no files to import.
pub fn require_media_root(config: &Config) -> Result<()> {
    if config.media_root.as_os_str().is_empty() {
        return Err(ErrorCode::MediaRootNotConfigured.into());
    }
    Ok(())
}

/// The import as a task, which counts the files that it looked at.
pub const IMPORT: TaskKind = TaskKind { operation: "import_videos", steps: &["files"] };

/// Imports the files below the media root. If it is cancelled, `next` says where to continue; if it fails, the outcome
/// has what was done before.
pub async fn import(
    app: &App,
    caller: &Identity,
    request: ImportRequest,
    progress: &Progress,
    outcome: &mut ImportResult,
) -> Result<()> {
    progress.step(IMPORT.steps[0]);
    let config = &app.config;
    let limit = request.limit.unwrap_or(config.import_files_max).min(config.import_files_max);
    *outcome = ImportResult { next: request.after.clone(), ..ImportResult::default() };
    loop {
        let most = usize::try_from(limit - outcome.looked_at).unwrap_or(CHUNK_SIZE).min(CHUNK_SIZE);
        let (root, prefix, after) = (config.media_root.clone(), request.prefix.clone(), outcome.next.clone());
        let (path_bytes_max, ignored_names) = (config.video_path_bytes_max, config.ignored_names.clone());
        let look = move || {
            let taken = WalkLimits { most, path_bytes_max, ignored_names: &ignored_names };
            walk(Path::new(&root), prefix.as_deref(), after.as_deref(), taken)
        };
        let chunk =
            tokio::task::spawn_blocking(look).await.map_err(|e| Error::internal(format!("a walk panicked: {e}")))??;
        let found = chunk.found.len() as u64;
        let imported = import_chunk(app, caller, chunk.found, &request, progress).await?;
        outcome.add(imported);
        outcome.looked_at += found;
        outcome.skipped += chunk.skipped;
        outcome.next = chunk.next;
        progress.advance(found);
        if outcome.next.is_none() || outcome.looked_at >= limit || progress.is_cancelled() {
            return Ok(());
        }
    }
}

/// Imports one chunk in one transaction. A dry run computes the same result without changing rows.
async fn import_chunk(
    app: &App,
    caller: &Identity,
    found: Vec<FoundFile>,
    request: &ImportRequest,
    progress: &Progress,
) -> Result<ImportResult> {
    if found.is_empty() {
        return Ok(ImportResult::default());
    }
    let (rules, queues_job) = (QuotaSettings::from_config(&app.config), request.queues_jobs);
    if request.is_dry_run {
        let snapshot = app.snapshot();
        return app.read(move |r| predicted(r, &rules, &snapshot, found)).await;
    }
    let attempt = || {
        let found = found.clone();
        let write = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::VIDEO_IMPORT)?;
            let mut owners = Owners::default();
            let mut changed = Changed::unchanged(ImportResult::default());
            for FoundFile { path, size } in found {
                let owner = owners.of(t, path.folder())?;
                let registered = match owner {
                    Some(owner) => {
                        let fit = QuotaCheck::Skipped;
                        register(t, &rules, caller, Registration { path, owner, size: Ok(size), fit, queues_job })?
                    }
                    None => register_ownerless(t, &rules, caller, (path, size), queues_job)?,
                };
                let already_exists = registered.answer.already_exists;
                changed = changed.merge(registered);
                changed.answer.add_file(owner, size, already_exists);
            }
            for owner in owners.known() {
                let account = quotas::account(t, &rules, t.snapshot(), owner)?;
                if account.used > account.size {
                    changed.answer.over_quota.insert(owner);
                }
            }
            Ok(changed)
        };
        app.change(caller, "video.import", write)
    };
    Ok(progress.repeat_while_busy(&BUSY_PAUSES, attempt).await?.answer)
}

fn predicted(
    r: &Reader<'_>,
    rules: &QuotaSettings,
    snapshot: &authz::snapshot::Snapshot,
    found: Vec<FoundFile>,
) -> Result<ImportResult> {
    let (mut owners, mut outcome) = (Owners::default(), ImportResult::default());
    let mut added: HashMap<MemberId, i64> = HashMap::new();
    for FoundFile { path, size } in found {
        let owner = owners.of(r, path.folder())?;
        let already_exists = super::find(r, &path.id())?.is_some();
        outcome.add_file(owner, size, already_exists);
        if let Some(owner) = owner.filter(|_| !already_exists) {
            let sum = added.entry(owner).or_default();
            *sum = sum.saturating_add(size);
        }
    }
    for (owner, bytes) in added {
        let account = quotas::account(r, rules, snapshot, owner)?;
        if account.used.saturating_add(bytes) > account.size {
            outcome.over_quota.insert(owner);
        }
    }
    Ok(outcome)
}

impl ImportResult {
    fn add_file(&mut self, owner: Option<MemberId>, size: i64, already_exists: bool) {
        if already_exists {
            self.already_known += 1;
            return;
        }
        self.taken += 1;
        self.ownerless += u64::from(owner.is_none());
        self.bytes = self.bytes.saturating_add(size);
    }
}

/// A cache of the owners of folders.
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

/// Assigns videos without an owner to the members whose folders they are in. If it fails, the outcome has what was done
/// before.
pub async fn claim(app: &App, caller: &Identity, is_dry_run: bool, outcome: &mut ImportResult) -> Result<()> {
    let rules = QuotaSettings::from_config(&app.config);
    let mut after = String::new();
    loop {
        let from = after.clone();
        let ownerless = app.read(move |r| store::list_ownerless_after(r, &from, CHUNK_SIZE as u64)).await?;
        let Some(last) = ownerless.last() else { return Ok(()) };
        last.path.as_str().clone_into(&mut after);
        let looked_at = ownerless.len() as u64;
        if is_dry_run {
            let snapshot = app.snapshot();
            let predict = move |r: &Reader<'_>| {
                let mut imported = ImportResult::default();
                let mut owners = Owners::default();
                for video in ownerless {
                    let owner = owners.of(r, video.path.folder())?;
                    imported.add_claimed(owner, video.size);
                    if let Some(owner) = owner {
                        let account = quotas::account(r, &rules, &snapshot, owner)?;
                        if account.used.saturating_add(video.size) > account.size {
                            imported.over_quota.insert(owner);
                        }
                    }
                }
                Ok(imported)
            };
            outcome.add(app.read(predict).await?);
            outcome.looked_at += looked_at;
            continue;
        }
        let assign = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::VIDEO_CLAIM)?;
            let mut owners = Owners::default();
            let mut changed = Changed::unchanged(ImportResult::default());
            for video in ownerless {
                // It may have been claimed or deleted in the meantime.
                let Some(video) = super::find(t, &video.id)?.filter(|video| video.member.is_none()) else { continue };
                let owner = owners.of(t, video.path.folder())?;
                changed.answer.add_claimed(owner, video.size);
                if let Some(owner) = owner {
                    let given = (&video, owner, QuotaCheck::Skipped);
                    changed = changed.merge(reassign(t, &rules, caller, given, LedgerCause::Claim)?);
                    let account = quotas::account(t, &rules, t.snapshot(), owner)?;
                    if account.used > account.size {
                        changed.answer.over_quota.insert(owner);
                    }
                }
            }
            if changed.answer.taken > 0 {
                let count = json!({"claimed": changed.answer.taken});
                changed = changed.with_entry(Entry::new("videos", "ownerless").after(count));
            }
            Ok(changed)
        };
        outcome.add(app.change(caller, "video.claim", assign).await?.answer);
        outcome.looked_at += looked_at;
    }
}

/// Assigns the videos without an owner in a member's own folder to that member.
pub async fn claim_own(
    app: &App,
    caller: &Identity,
    (member, is_dry_run): (MemberId, bool),
    outcome: &mut ImportResult,
) -> Result<()> {
    let rules = QuotaSettings::from_config(&app.config);
    let Some(folder) = app.read(move |r| members::sftpgo_name(r, member)).await? else { return Ok(()) };
    let mut after = folder.clone() + "/";
    loop {
        let from = after.clone();
        let mut ownerless = app.read(move |r| store::list_ownerless_after(r, &from, CHUNK_SIZE as u64)).await?;
        ownerless.retain(|video| video.path.folder() == folder);
        let Some(last) = ownerless.last() else { return Ok(()) };
        last.path.as_str().clone_into(&mut after);
        let looked_at = ownerless.len() as u64;
        let snapshot = app.snapshot();
        let sum = ownerless.iter().fold(0_i64, |sum, video| sum.saturating_add(video.size));
        let predict = move |r: &Reader<'_>| quotas::account(r, &rules, &snapshot, member);
        if is_dry_run {
            let account = app.read(predict).await?;
            ownerless.iter().for_each(|video| outcome.add_claimed(Some(member), video.size));
            if account.used.saturating_add(sum) > account.size {
                outcome.over_quota.insert(member);
            }
            outcome.looked_at += looked_at;
            continue;
        }
        let folder = folder.clone();
        let assign = move |t: &Transaction<'_>, caller: &Identity| {
            let mut changed = Changed::unchanged(ImportResult::default());
            // The member's folder may have changed in the meantime.
            if members::sftpgo_name(t, member)?.as_ref() != Some(&folder) || !t.snapshot().is_active(member) {
                return Ok(changed);
            }
            for video in ownerless {
                let Some(video) = super::find(t, &video.id)?.filter(|video| video.member.is_none()) else { continue };
                changed.answer.add_claimed(Some(member), video.size);
                let given = (&video, member, QuotaCheck::Skipped);
                changed = changed.merge(reassign(t, &rules, caller, given, LedgerCause::Claim)?);
            }
            let account = quotas::account(t, &rules, t.snapshot(), member)?;
            if account.used > account.size {
                changed.answer.over_quota.insert(member);
            }
            Ok(changed)
        };
        outcome.add(app.change(caller, "video.claim", assign).await?.answer);
        outcome.looked_at += looked_at;
    }
}

impl ImportResult {
    fn add_claimed(&mut self, owner: Option<MemberId>, size: i64) {
        match owner {
            None => self.ownerless += 1,
            Some(_) => {
                self.taken += 1;
                self.bytes = self.bytes.saturating_add(size);
            }
        }
    }

    fn add(&mut self, imported: Self) {
        self.taken += imported.taken;
        self.ownerless += imported.ownerless;
        self.already_known += imported.already_known;
        self.bytes = self.bytes.saturating_add(imported.bytes);
        self.over_quota.extend(imported.over_quota);
    }
}
