//! Just-in-time provisioning: finds or creates the member of a provider's user, and updates it from the claims.
//!
//! **Invariant.** Only (provider, subject) identifies a member: an e-mail address or username never matches an existing
//! member. Claims never overwrite a field that has a value.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::features::members::{self, ExternalName, Member, NewMember};
use crate::features::permissions::mappers::{self, MapperResult, SourceClaims, SourceFacts, TRIES};
use crate::features::permissions::sync::{Plan, plan, reconcile};
use crate::features::permissions::{Source, role_claims};
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz;
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::{Change, Snapshot};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, OrganizationId};
use crate::kernel::outbox::{Event, EventKind};

/// A user as the provider describes it.
#[derive(Debug, Clone)]
pub struct ExternalUser {
    pub provider: String,
    pub subject: String,
    /// A second stable id of the account, if the provider has one. It detects a subject that was reassigned.
    pub account_id: Option<String>,
    pub username: Option<String>,
    /// Only an address that the provider has verified.
    pub email: Option<String>,
    pub display_name: Option<String>,
    /// The `org_code` of the organization that this provider's users join.
    pub organization: Option<String>,
    /// The user's roles or groups at the provider, by source. The role mappings apply to each source in this list; an
    /// empty set removes all roles of that source.
    pub keys: Vec<(Source, BTreeSet<String>)>,
    /// All other claims; an organization's role mappers receive them with the keys.
    pub facts: SourceFacts,
}

impl ExternalUser {
    /// The profile that the provider offers for a new member, or for the gaps of a known one.
    fn offered(&self) -> NewMember {
        NewMember {
            username: self.username.clone(),
            email: self.email.clone(),
            display_name: self.display_name.clone(),
            ..NewMember::default()
        }
    }

    fn identity(&self) -> ExternalName {
        ExternalName {
            provider: self.provider.clone(),
            subject: self.subject.clone(),
            account_id: self.account_id.clone(),
        }
    }

    fn sources(&self) -> impl Iterator<Item = SourceClaims<'_>> {
        self.keys.iter().map(|(source, keys)| SourceClaims { source: *source, keys, facts: &self.facts })
    }
}

/// The result of provisioning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionResult {
    pub id: MemberId,
    pub is_new: bool,
    /// What changed: the names of filled fields, `organization`, `roles`.
    pub fields: Vec<&'static str>,
}

/// The role plan of each organization.
pub type Plans = Vec<(OrganizationId, Plan)>;

/// The answers of the role mappers, and the number of attempts so far.
pub struct MapperAnswers {
    mapped: Vec<MapperResult>,
    tries: usize,
}

/// Finds or creates the member. A new member is active and has no roles; a suspended one is rejected.
///
/// Members, memberships and roles change in one transaction with the member as the caller. Role mappers are called
/// before the transaction.
pub async fn provision(app: &Arc<App>, context: &Arc<RequestContext>, external_user: ExternalUser) -> Result<MemberId> {
    const KEYS_MAX: usize = role_claims::COUNT_MAX;
    if external_user.subject.is_empty() || external_user.keys.iter().any(|(_, keys)| keys.len() > KEYS_MAX) {
        let why = format!("{}: no subject, or more than {KEYS_MAX} roles or groups", external_user.provider);
        return Err(Error::new(ErrorCode::ExternalSystemFailed).with_source(why));
    }
    let (provider, subject) = (external_user.provider.clone(), external_user.subject.clone());
    let known = app.read(move |r| members::find_by_identity(r, &provider, &subject)).await?;
    if known.as_ref().is_some_and(|member| !member.is_active()) {
        return Err(ErrorCode::InvalidLogin.into());
    }
    let mut known = known.map(|member| member.id);
    let external_user = Arc::new(external_user);
    let mut tries = 0;
    loop {
        // The audit log names the member as the caller, so a new member needs its id before it is created.
        let id = known.unwrap_or_else(MemberId::new);
        let caller = Identity::new(Principal::Member(id), context.clone());
        tries += 1;
        let mapper_answers = ask_mappers(app, id, &external_user, tries).await?;
        let (external_user, members_max) = (external_user.clone(), app.config.members_max);
        let write = move |t: &Transaction<'_>, _: &Identity| {
            let Some(plans) = mapper_answers.plans(t, id, &external_user)? else { return Ok(Changed::unchanged(None)) };
            Ok(apply(t, id, &external_user, plans, members_max)?.map(|provisioned| Some(provisioned.id)))
        };
        match app.change(&caller, "member.arrive", write).await?.answer {
            Some(found) if found == id => return Ok(id),
            // A concurrent request created the same member.
            Some(found) => known = Some(found),
            // The mappers' input has changed: they are called again.
            None => {}
        }
    }
}

/// The organizations whose roles are synchronized: those of the member, and the one it is about to join.
fn organizations(snapshot: &Snapshot, id: MemberId, external_user: &ExternalUser) -> BTreeSet<OrganizationId> {
    let own = snapshot.tenants().filter(|tenant| tenant.set_of(id).is_some());
    let joined = external_user.organization.as_ref().and_then(|org_code| snapshot.tenant_named(org_code));
    own.chain(joined).map(|tenant| tenant.id).collect()
}

/// Calls the role mappers of the member's organizations, for each source.
pub async fn ask_mappers(
    app: &Arc<App>,
    id: MemberId,
    external_user: &ExternalUser,
    tries: usize,
) -> Result<MapperAnswers> {
    let mut mapped = Vec::new();
    for organization in organizations(&app.snapshot(), id, external_user) {
        for claims in external_user.sources() {
            mapped.push(mappers::call_mappers(app, (organization, id), claims).await?);
        }
    }
    Ok(MapperAnswers { mapped, tries })
}

impl MapperAnswers {
    /// Computes the role plan of each organization before anything changes. Returns `None` when the mappers must be
    /// called again. The number of attempts is limited: at the last one, roles that are still unknown stay as they are.
    pub fn plans(&self, t: &Transaction<'_>, id: MemberId, external_user: &ExternalUser) -> Result<Option<Plans>> {
        let mut plans = Vec::new();
        for organization in organizations(t.snapshot(), id, external_user) {
            for claims in external_user.sources() {
                let matches =
                    |mapped: &&MapperResult| mapped.organization == organization && mapped.source == claims.source;
                let answer = self.mapped.iter().find(matches);
                let found = answer.map(|answer| plan(t, claims, answer)).transpose()?.flatten();
                match found {
                    Some(plan) => plans.push((organization, plan)),
                    None if self.tries >= TRIES => {
                        tracing::warn!(%organization, source = claims.source.as_str(), "plugins or mappings changed during every attempt: roles stay as they are");
                    }
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(plans))
    }
}

/// Creates or updates the member of this subject. If the subject belongs to another member than `id`, changes nothing
/// and returns that member's id.
pub fn apply(
    t: &Transaction<'_>,
    id: MemberId,
    external_user: &ExternalUser,
    plans: Plans,
    members_max: u64,
) -> Result<Changed<ProvisionResult>> {
    let mut provisioned = ProvisionResult { id, is_new: false, fields: Vec::new() };
    let offered = external_user.offered();
    let mut changes: Vec<Change> = Vec::new();
    let mut events: Vec<Event> = Vec::new();
    let mut done = serde_json::Map::new();
    match members::find_by_identity(t, &external_user.provider, &external_user.subject)? {
        Some(member) if member.id != id => {
            return Ok(Changed::unchanged(ProvisionResult { id: member.id, ..provisioned }));
        }
        Some(member) if !member.is_active() => return Err(ErrorCode::InvalidLogin.into()),
        Some(member) if is_other_person(t, &member, external_user)? => {
            let message =
                "this account has the subject of another account at the provider: ask an administrator of this site";
            return Err(Error::new(ErrorCode::Forbidden)
                .with_message(message)
                .with_source("the provider reused a subject"));
        }
        Some(member) => {
            let filled = members::fill_gaps(t, &member, &offered)?;
            if !filled.is_empty() {
                events.push(members::member_event(t, EventKind::MemberUpdated, id));
                done.insert("filled".into(), json!(filled));
                provisioned.fields = filled;
            }
        }
        // The member was erased concurrently.
        None if t.snapshot().member_state(id).is_some() => return Err(ErrorCode::InvalidLogin.into()),
        None => {
            let capacity = members::require_capacity(t.snapshot(), members_max)?;
            members::create_with_identity(t, capacity, id, &external_user.identity(), &offered)?;
            changes.push(authz::store::member_state(t, id)?);
            events.push(members::member_event(t, EventKind::MemberCreated, id));
            done.insert("created".into(), json!(true));
            provisioned.is_new = true;
        }
    }
    let mut entries = Vec::new();
    if let Some((organization, membership)) = join(t, id, external_user)? {
        changes.push(membership);
        provisioned.fields.push("organization");
        if t.snapshot().belongs_nowhere(id) {
            events.iter_mut().for_each(|event| event.organization = Some(organization));
        }
        entries.push(Entry::new("member", id).within(organization).after(json!({"joined": true})));
    }
    let (synced, memberships) = apply_role_plans(t, id, plans)?;
    if !synced.is_empty() {
        provisioned.fields.push("roles");
        changes.extend(memberships);
        entries.extend(synced);
    }
    if !done.is_empty() {
        done.insert("provider".into(), json!(external_user.provider));
        entries.insert(0, Entry::new("member", id).after(done.into()));
    }
    Ok(entries
        .into_iter()
        .fold(Changed::unchanged(provisioned), Changed::with_entry)
        .with_policy_changes(changes)
        .with_events(events))
}

/// Applies the role plans; returns the audit entries and the changes of the snapshot.
pub fn apply_role_plans(t: &Transaction<'_>, id: MemberId, plans: Plans) -> Result<(Vec<Entry>, Vec<Change>)> {
    // The rights check was made when the mapping was created or the plugin activated, so no caller is checked here.
    let holder = Identity::command_line();
    let (mut entries, mut memberships) = (Vec::new(), Vec::new());
    for (organization, plan) in plans {
        let synced = reconcile(t, &holder, (organization, id), plan, false)?;
        if synced.is_change() {
            memberships.push(authz::store::membership(t, organization, id)?);
            entries.push(Entry::new("member", id).within(organization).after(synced.record()));
        }
    }
    Ok((entries, memberships))
}

/// Whether the subject now belongs to another account: the account id changed, and the e-mail address does not match. A
/// provider that was installed again can reuse subjects, and a new account must not take over an existing member.
pub fn is_other_person(t: &Transaction<'_>, member: &Member, external_user: &ExternalUser) -> Result<bool> {
    let known = members::find_account_id(t, &external_user.provider, &external_user.subject)?;
    let is_other_account = known.zip(external_user.account_id.as_ref()).is_some_and(|(known, now)| known != *now);
    let email = |text: &Option<String>| text.as_deref().map(members::folded).filter(|text| !text.is_empty());
    let is_same_email = email(&member.email).is_some() && email(&member.email) == email(&external_user.email);
    Ok(is_other_account && !is_same_email)
}

/// Adds the member to the organization of this provider's users.
fn join(t: &Transaction<'_>, id: MemberId, external_user: &ExternalUser) -> Result<Option<(OrganizationId, Change)>> {
    let Some(org_code) = &external_user.organization else { return Ok(None) };
    let Some(organization) = t.snapshot().tenant_named(org_code).map(|tenant| tenant.id) else {
        tracing::warn!(
            org_code,
            provider = external_user.provider,
            "the settings name an organization that does not exist"
        );
        return Ok(None);
    };
    Ok(members::join(t, organization, id)?.map(|membership| (organization, membership)))
}
