//! Somebody whom a provider vouches for: found or made a member, and brought in line with what the provider says.
//!
//! **Invariant.** Provider and subject say who it is, and nothing else does: no e-mail and no username leads to a member
//! who was there before. What a member has is never overwritten from outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::access;
use crate::access::caller::{Exchange, Identity, Who};
use crate::access::snapshot::{Change, Snapshot};
use crate::app::{App, Changed, Transaction};
use crate::error::{Cause, Error, Result};
use crate::ids::{MemberId, OrganizationId};
use crate::journal::Entry;
use crate::members::{self, ExternalName, Member, NewMember};
use crate::permissions::Source;
use crate::permissions::mappers::{self, Facts, Mapped, TRIES, Word};
use crate::permissions::sync::{KEYS_MAX, Plan, plan, reconcile};

/// Who arrives, as the provider says.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub provider: String,
    pub subject: String,
    /// Another name of the account that lasts, where there is one: a second witness to the subject.
    pub account_id: Option<String>,
    pub username: Option<String>,
    /// Only one that the provider vouches for.
    pub email: Option<String>,
    pub display_name: Option<String>,
    /// org_code of the organization that this provider's people belong to.
    pub organization: Option<String>,
    /// Roles or groups there. Those of a source that is named here go through the mappings; an empty set takes all roles
    /// of that source away.
    pub keys: Vec<(Source, BTreeSet<String>)>,
    /// What else the provider says; an organization's role mappers see it with the keys.
    pub facts: Facts,
}

impl Arrival {
    fn words(&self) -> impl Iterator<Item = Word<'_>> {
        self.keys.iter().map(|(source, keys)| Word { source: *source, keys, facts: &self.facts })
    }
}

/// What a transaction made of an arrival.
enum Welcomed {
    As(MemberId),
    /// It changed nothing: the role mappers have to be asked again.
    NotYet,
}

/// The member who arrives. Who is new is created, active and without roles; who is suspended is turned away.
///
/// Members, memberships and roles change in one transaction, in the member's name; role mappers are asked before it.
pub async fn arrive(app: &Arc<App>, exchange: &Arc<Exchange>, arrival: Arrival) -> Result<MemberId> {
    if arrival.subject.is_empty() || arrival.keys.iter().any(|(_, keys)| keys.len() > KEYS_MAX) {
        let why = format!("{}: no subject, or more than {KEYS_MAX} roles or groups", arrival.provider);
        return Err(Error::new(Cause::NeighbourFailed).because(why));
    }
    let (provider, subject) = (arrival.provider.clone(), arrival.subject.clone());
    let known = app.read(move |r| members::find_known(r, &provider, &subject)).await?;
    if known.as_ref().is_some_and(|member| !member.is_active()) {
        return Err(Cause::InvalidLogin.into());
    }
    let mut known = known.map(|member| member.id);
    let arrival = Arc::new(arrival);
    let mut tries = 0;
    loop {
        // The audit names the member who acts, so that a new one has its id before it is there.
        let id = known.unwrap_or_else(MemberId::new);
        let caller = Identity::of(Who::Member(id), exchange.clone());
        let mapped = ask(app, id, &arrival).await?;
        tries += 1;
        let is_last_try = tries >= TRIES;
        let (arrival, members_max) = (arrival.clone(), app.config.members_max);
        let welcome = move |t: &Transaction<'_>, _: &Identity| {
            let Some(plans) = plans(t, id, &arrival, &mapped, is_last_try)? else {
                return Ok(Changed::nothing(Welcomed::NotYet));
            };
            Ok(welcome(t, id, &arrival, plans, members_max)?.map(Welcomed::As))
        };
        match app.change(&caller, "member.arrive", welcome).await?.answer {
            Welcomed::As(found) if found == id => return Ok(id),
            // The same person arrived by another request at the same time.
            Welcomed::As(found) => known = Some(found),
            Welcomed::NotYet => {}
        }
    }
}

/// Where roles are brought in line: wherever the member belongs, and where it is about to.
fn organizations(snapshot: &Snapshot, id: MemberId, arrival: &Arrival) -> BTreeSet<OrganizationId> {
    let own = snapshot.tenants().filter(|tenant| tenant.set_of(id).is_some());
    let joined = arrival.organization.as_ref().and_then(|org_code| snapshot.tenant_named(org_code));
    own.chain(joined).map(|tenant| tenant.id).collect()
}

/// Asks the role mappers of all these organizations, for each source.
async fn ask(app: &Arc<App>, id: MemberId, arrival: &Arrival) -> Result<Vec<Mapped>> {
    let mut mapped = Vec::new();
    for organization in organizations(&app.snapshot(), id, arrival) {
        for word in arrival.words() {
            mapped.push(mappers::ask(app, (organization, id), word).await?);
        }
    }
    Ok(mapped)
}

/// What is to be brought about in each organization, before anything changes; `None` when mappers have to be asked
/// again. A sign-in does not wait for ever: at the last try roles that are still unknown stay as they are.
fn plans(
    t: &Transaction<'_>,
    id: MemberId,
    arrival: &Arrival,
    mapped: &[Mapped],
    is_last_try: bool,
) -> Result<Option<Vec<(OrganizationId, Plan)>>> {
    let mut plans = Vec::new();
    for organization in organizations(t.snapshot(), id, arrival) {
        for word in arrival.words() {
            let answer = mapped.iter().find(|m| m.organization == organization && m.source == word.source);
            let found = answer.map(|answer| plan(t, word, answer)).transpose()?.flatten();
            match found {
                Some(plan) => plans.push((organization, plan)),
                None if is_last_try => {
                    tracing::warn!(%organization, source = word.source.word(), "plugins or mappings changed while they were asked, time and again: roles stay as they are");
                }
                None => return Ok(None),
            }
        }
    }
    Ok(Some(plans))
}

/// Answers the member of this subject, and changes something only when it is the one expected.
fn welcome(
    t: &Transaction<'_>,
    id: MemberId,
    arrival: &Arrival,
    plans: Vec<(OrganizationId, Plan)>,
    members_max: u64,
) -> Result<Changed<MemberId>> {
    let offered = NewMember {
        username: arrival.username.clone(),
        email: arrival.email.clone(),
        display_name: arrival.display_name.clone(),
        ..NewMember::default()
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut done = serde_json::Map::new();
    match members::find_known(t, &arrival.provider, &arrival.subject)? {
        Some(member) if member.id != id => return Ok(Changed::nothing(member.id)),
        Some(member) if !member.is_active() => return Err(Cause::InvalidLogin.into()),
        Some(member) if is_somebody_else(t, &member, arrival)? => {
            let message =
                "this account has the number of another one at the provider: ask an administrator of this site";
            return Err(Error::new(Cause::Forbidden).saying(message).because("the provider gives numbers out again"));
        }
        Some(member) => {
            let filled = members::fill_gaps(t, &member, &offered)?;
            if !filled.is_empty() {
                done.insert("filled".into(), json!(filled));
            }
        }
        // Erased in this very moment.
        None if t.snapshot().person(id).is_some() => return Err(Cause::InvalidLogin.into()),
        None => {
            members::require_room(t.snapshot(), members_max)?;
            let name = ExternalName {
                provider: arrival.provider.clone(),
                subject: arrival.subject.clone(),
                account_id: arrival.account_id.clone(),
            };
            members::create_known(t, id, &name, &offered)?;
            changes.push(access::store::person(t, id)?);
            done.insert("created".into(), json!(true));
        }
    }
    let mut entries = Vec::new();
    if let Some((organization, seat)) = join(t, id, arrival)? {
        changes.push(seat);
        entries.push(Entry::new("member", id).within(organization).after(json!({"joined": true})));
    }
    // Whoever made the mappings, or put the plugin in force, gave these roles away already: the site hands them out.
    let holder = Identity::command_line();
    for (organization, plan) in plans {
        let synced = reconcile(t, &holder, (organization, id), plan, false)?;
        if synced.is_change() {
            changes.push(access::store::seat(t, organization, id)?);
            entries.push(Entry::new("member", id).within(organization).after(synced.record()));
        }
    }
    if !done.is_empty() {
        done.insert("provider".into(), json!(arrival.provider));
        entries.insert(0, Entry::new("member", id).after(done.into()));
    }
    Ok(entries.into_iter().fold(Changed::nothing(id), Changed::also).policy(changes))
}

/// Did only the subject stay, and every other name change? A provider that was set up anew gives its numbers out again,
/// and nobody shall inherit a member that way.
fn is_somebody_else(t: &Transaction<'_>, member: &Member, arrival: &Arrival) -> Result<bool> {
    let known = members::find_account_id(t, &arrival.provider, &arrival.subject)?;
    let is_other_account = known.zip(arrival.account_id.as_ref()).is_some_and(|(known, now)| known != *now);
    let email = |text: &Option<String>| text.as_deref().map(members::folded).filter(|text| !text.is_empty());
    let is_same_email = email(&member.email).is_some() && email(&member.email) == email(&arrival.email);
    Ok(is_other_account && !is_same_email)
}

/// Makes the member belong where this provider's people do.
fn join(t: &Transaction<'_>, id: MemberId, arrival: &Arrival) -> Result<Option<(OrganizationId, Change)>> {
    let Some(org_code) = &arrival.organization else { return Ok(None) };
    let Some(organization) = t.snapshot().tenant_named(org_code).map(|tenant| tenant.id) else {
        tracing::warn!(org_code, provider = arrival.provider, "the settings name an organization that is not there");
        return Ok(None);
    };
    Ok(members::join(t, organization, id)?.map(|seat| (organization, seat)))
}
