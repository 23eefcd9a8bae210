//! Synchronizes members with their WordPress accounts: on an event of the must-use plugin, and during a comparison.
//!
//! **Invariant.** An event names accounts; its data is used only if WordPress cannot be queried. Accounts are never
//! linked by name, members' existing values are never overwritten, and the member of a deleted account is suspended,
//! never erased.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::json;

use super::sign_in::external_user_of;
use crate::features::members::{self, Member, WORDPRESS};
use crate::features::permissions::Source;
use crate::features::permissions::sync::Plan;
use crate::features::sessions::jit_provisioning::{
    ExternalUser, Plans, apply, apply_role_plans, ask_mappers, is_other_person,
};
use crate::features::sessions::{consume_once, is_consumed};
use crate::integrations::wordpress::WordPressUser;
use crate::integrations::wordpress::users::AdminClient;
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::delegation::MemberPart;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::authz::snapshot::MemberStatus;
use crate::kernel::authz::{self, Reach};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::outbox::EventKind;
use crate::kernel::secret;

/// The outcome of an account, or of a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountOutcome {
    New(MemberId),
    /// The fields of the member that changed, and the differing names that were kept.
    Synced {
        member: MemberId,
        changed: Vec<&'static str>,
        kept: Vec<&'static str>,
    },
    /// The account is not linked, and this member has its username or e-mail.
    Unlinked(MemberId),
    /// The member stays unchanged, for this reason.
    Unchanged(MemberId, &'static str),
    /// The account is gone, and the member was suspended.
    Gone(MemberId),
    /// The account is gone, and was not linked or its member is suspended already.
    NotLinked,
    /// The account cannot be read, for this reason: its member stays unchanged.
    Unreadable(String),
}

/// Whether a change is committed or rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Real,
    DryRun,
}

const ACTION: &str = "member.follow_wordpress";

/// Who synchronizes accounts, and whether that is committed.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub caller: &'a Identity,
    /// Checked in each transaction. `None` for an event, whose sender has proved itself by a signature.
    pub permission: Option<Permission>,
    pub effect: Effect,
}

/// Synchronizes the member of an account.
///
/// A user without a member gets a new one, unless a member has the account's username or e-mail, because that would
/// duplicate the person. An administrator can link the two, or the user's own sign-in does.
pub async fn sync_member(app: &Arc<App>, by: Run<'_>, person: WordPressUser) -> Result<AccountOutcome> {
    let external_user = Arc::new(external_user_of(app, person));
    let subject = external_user.subject.clone();
    let known = app.read(move |r| members::find_by_identity(r, WORDPRESS, &subject)).await?;
    let id = known.map_or_else(MemberId::new, |member| member.id);
    let mut tries = 0;
    loop {
        tries += 1;
        let mapper_answers = ask_mappers(app, id, &external_user, tries).await?;
        let (external_user, members_max) = (external_user.clone(), app.config.members_max);
        let synchronized = run(app, by, move |t, _| {
            let Some(plans) = mapper_answers.plans(t, id, &external_user)? else { return Ok(Changed::unchanged(None)) };
            Ok(synced(t, id, &external_user, plans, members_max)?.map(Some))
        });
        if let Some(outcome) = synchronized.await? {
            return Ok(outcome);
        }
    }
}

fn synced(
    t: &Transaction<'_>,
    id: MemberId,
    external_user: &ExternalUser,
    plans: Plans,
    members_max: u64,
) -> Result<Changed<AccountOutcome>> {
    let member = match members::find_by_identity(t, WORDPRESS, &external_user.subject)? {
        Some(member) if !member.is_active() => {
            return Ok(Changed::unchanged(AccountOutcome::Unchanged(member.id, "is not active here")));
        }
        Some(member) if is_other_person(t, &member, external_user)? => {
            let why = "has another username and e-mail: WordPress has reused the number";
            return Ok(Changed::unchanged(AccountOutcome::Unchanged(member.id, why)));
        }
        // The user signed in at the same time, so this member was just created from the account.
        Some(member) if member.id != id => {
            let outcome = AccountOutcome::Synced { member: member.id, changed: Vec::new(), kept: Vec::new() };
            return Ok(Changed::unchanged(outcome));
        }
        Some(member) => Some(member),
        None => match namesake(t, external_user)? {
            Some(other) => return Ok(Changed::unchanged(AccountOutcome::Unlinked(other))),
            None => None,
        },
    };
    let kept = member.map(|member| differing(&member, external_user)).unwrap_or_default();
    Ok(apply(t, id, external_user, plans, members_max)?.map(|provisioned| match provisioned.is_new {
        true => AccountOutcome::New(id),
        false => AccountOutcome::Synced { member: id, changed: provisioned.fields, kept },
    }))
}

/// Returns a member that has the username or e-mail of an unlinked account.
fn namesake(t: &Transaction<'_>, external_user: &ExternalUser) -> Result<Option<MemberId>> {
    for name in [&external_user.username, &external_user.email].into_iter().flatten().filter(|name| !name.is_empty()) {
        // A registration that is not confirmed yet does not reserve a name.
        if let Some(found) = members::find_login(t, name)?.filter(|found| !found.member.is_pending()) {
            return Ok(Some(found.member.id));
        }
    }
    Ok(None)
}

/// Returns the names that differ between a member and its account.
fn differing(member: &Member, external_user: &ExternalUser) -> Vec<&'static str> {
    let differs = |own: &Option<String>, there: &Option<String>| {
        let there = there.as_deref().map(members::folded).filter(|text| !text.is_empty());
        own.as_deref().map(members::folded).zip(there).is_some_and(|(own, there)| own != there)
    };
    let names = [
        ("username", differs(&member.username, &external_user.username)),
        ("email", differs(&member.email, &external_user.email)),
        ("display_name", differs(&member.display_name, &external_user.display_name)),
    ];
    names.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

/// Suspends the member of an account that is gone, and removes the roles that came from WordPress.
pub async fn suspend(app: &App, by: Run<'_>, id: u64) -> Result<AccountOutcome> {
    run(app, by, move |t, caller| {
        let subject = id.to_string();
        let Some(member) = members::find_by_identity(t, WORDPRESS, &subject)?.filter(Member::is_active) else {
            return Ok(Changed::unchanged(AccountOutcome::NotLinked));
        };
        if members::require_may_touch(t, caller, Reach::Site, member.id, MemberPart::Standing).is_err() {
            let why = "is an administrator, or has more rights than the caller: suspend it by hand";
            return Ok(Changed::unchanged(AccountOutcome::Unchanged(member.id, why)));
        }
        let mut changes = match members::set_active(t, member.id, false) {
            Ok(changes) => changes,
            Err(error) if matches!(error.code, ErrorCode::LastOwner | ErrorCode::LastAdministrator) => {
                let why = "is the last owner of an organization, or the last administrator";
                return Ok(Changed::unchanged(AccountOutcome::Unchanged(member.id, why)));
            }
            Err(error) => return Err(error),
        };
        let memberships = t.snapshot().tenants().filter(|tenant| tenant.set_of(member.id).is_some());
        let plans = memberships.map(|tenant| (tenant.id, Plan::none(Source::Wordpress))).collect();
        let (entries, memberships) = apply_role_plans(t, member.id, plans)?;
        changes.extend(memberships);
        let after = json!({"status": MemberStatus::Suspended.as_str(), "provider": WORDPRESS, "gone": true});
        let changed = Changed::new(AccountOutcome::Gone(member.id), Entry::new("member", member.id).after(after));
        let mut suspended = members::member_event(t, EventKind::MemberSuspended, member.id);
        suspended.data["gone"] = json!(true);
        Ok(entries.into_iter().fold(changed, Changed::with_entry).with_policy_changes(changes).with_events([suspended]))
    })
    .await
}

/// Runs a change; a dry run rolls it back and returns what it would do.
async fn run<T: Clone + Send + Sync + 'static>(
    app: &App,
    Run { caller, permission, effect }: Run<'_>,
    change: impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<T>> + Send + 'static,
) -> Result<T> {
    let found: Arc<OnceLock<T>> = Arc::default();
    let dry_run_answer = found.clone();
    let result = app.change(caller, ACTION, move |t, caller| {
        if let Some(permission) = permission {
            authz::require(t.snapshot(), caller, permission)?;
        }
        let changed = change(t, caller)?;
        if effect == Effect::Real {
            return Ok(changed);
        }
        let _ = dry_run_answer.set(changed.answer);
        Err(Error::internal("a dry run is rolled back"))
    });
    match result.await {
        Ok(committed) => Ok(committed.answer),
        Err(error) => found.get().cloned().ok_or(error),
    }
}

// ── events ──

/// One account of a WordPress event.
#[derive(Debug, Clone)]
pub struct UserEvent {
    pub id: u64,
    /// The account's data from the plugin; `None` if the account was deleted.
    pub data: Option<WordPressUser>,
}

/// Verifies the signature and age of a request from the plugin. Returns a mark that identifies the request; fails with
/// `hook_signature`.
pub fn verify(app: &App, timestamp: &str, signatures: &str, body: &str) -> Result<RequestMark> {
    let Some(key) = app.config.hook_wordpress_key.as_deref() else {
        let message = "set hooks.wordpress_key_file to accept events from WordPress";
        return Err(Error::new(ErrorCode::WordPressNotConfigured).with_message(message));
    };
    let expected = secret::signature(key, &format!("{timestamp}.{body}"));
    // All signatures are compared, so the time does not depend on which one matches.
    let is_signed = signatures.split(',').fold(false, |found, text| {
        let mut offered = [0; 32];
        let hex = text.trim().strip_prefix("v1=").unwrap_or_default();
        let is_text = hex::decode_to_slice(hex, &mut offered).is_ok();
        found | (is_text & secret::equal(&offered, &expected))
    });
    let age_max_ms = seconds_to_ms(app.config.hook_age_max_s);
    let sent_ms = timestamp.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000));
    let age_ms = sent_ms.and_then(|sent_ms| Timestamp::now().0.checked_sub(sent_ms));
    match (is_signed, sent_ms, age_ms) {
        (true, Some(sent_ms), Some(age_ms)) if age_ms.checked_abs().is_some_and(|age_ms| age_ms <= age_max_ms) => {
            let name = format!("a hint of WordPress {}", hex::encode(expected));
            Ok(RequestMark { hash: secret::hash(&name), until: Timestamp(sent_ms).plus_ms(age_max_ms + 1_000) })
        }
        _ => Err(ErrorCode::HookSignature.into()),
    }
}

/// Identifies a signed request for as long as it could be replayed.
#[derive(Debug, Clone, Copy)]
pub struct RequestMark {
    hash: secret::Hash,
    until: Timestamp,
}

/// Whether this request was processed before.
pub async fn is_processed(app: &App, mark: RequestMark) -> Result<bool> {
    app.read(move |r| is_consumed(r, &mark.hash)).await
}

/// Marks a request as processed, after it was completed: a failed request can be sent again unchanged.
pub async fn mark_as_processed(app: &App, mark: RequestMark) -> Result<()> {
    app.write_unaudited(move |w| consume_once(w, &mark.hash, mark.until)).await.map(drop)
}

/// Synchronizes the members of all accounts of an event with WordPress's present data, or with the event's data if no
/// WordPress administrator is configured.
pub async fn handle_events(
    app: &Arc<App>,
    caller: &Identity,
    events: Vec<UserEvent>,
) -> Result<BTreeMap<u64, AccountOutcome>> {
    let by = Run { caller, permission: None, effect: Effect::Real };
    let admin_client = AdminClient::from_config(app);
    let mut outcomes = BTreeMap::new();
    for UserEvent { id, data: said } in events {
        let current = match &admin_client {
            Some(admin_client) => admin_client.find(id).await?,
            None => Ok(said),
        };
        let outcome = match current {
            Ok(Some(person)) => sync_member(app, by, person).await?,
            Ok(None) => suspend(app, by, id).await?,
            Err(unreadable) => AccountOutcome::Unreadable(unreadable.why),
        };
        outcomes.insert(id, outcome);
    }
    Ok(outcomes)
}
