//! Somebody whom a provider vouches for: found or made a member, and brought in line with what the provider says.
//!
//! **Invariant.** Provider and subject say who it is, and nothing else does: no e-mail and no username leads to a member
//! who was there before. What a member has is never overwritten from outside.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::access;
use crate::access::caller::{Exchange, Identity, Who};
use crate::access::snapshot::Change;
use crate::app::{App, Changed, Transaction};
use crate::error::{Cause, Error, Result};
use crate::ids::{MemberId, OrganizationId};
use crate::journal::Entry;
use crate::members::{self, ExternalName, Member, NewMember};
use crate::outbox::{Event, Kind};
use crate::permissions::Source;
use crate::permissions::sync::{KEYS_MAX, sync};

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
}

/// The member who arrives. Who is new is created, active and without roles; who is suspended is turned away.
///
/// Members, memberships and roles change in one transaction, in the member's name.
pub async fn arrive(app: &App, exchange: &Arc<Exchange>, arrival: Arrival) -> Result<MemberId> {
    if arrival.subject.is_empty() || arrival.keys.iter().any(|(_, keys)| keys.len() > KEYS_MAX) {
        let why = format!("{}: no subject, or more than {KEYS_MAX} roles or groups", arrival.provider);
        return Err(Error::new(Cause::NeighbourFailed).because(why));
    }
    let (provider, subject) = (arrival.provider.clone(), arrival.subject.clone());
    let mut known = app.read(move |r| members::find_known(r, &provider, &subject)).await?.map(|member| member.id);
    let arrival = Arc::new(arrival);
    loop {
        // The audit names the member who acts, so that a new one has its id before it is there.
        let id = known.unwrap_or_else(MemberId::new);
        let caller = Identity::of(Who::Member(id), exchange.clone());
        let (arrival, members_max) = (arrival.clone(), app.config.members_max);
        let welcome = move |t: &Transaction<'_>, _: &Identity| welcome(t, id, &arrival, members_max);
        match app.change(&caller, "member.arrive", welcome).await?.answer.id {
            found if found == id => return Ok(id),
            // The same person arrived by another request at the same time.
            found => known = Some(found),
        }
    }
}

/// What an arrival did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Welcomed {
    pub id: MemberId,
    pub is_new: bool,
    /// What of the member changed: names that were filled in, `organization`, `roles`.
    pub fields: Vec<&'static str>,
}

/// Answers the member of this subject, and changes something only when it is the one expected.
pub(super) fn welcome(
    t: &Transaction<'_>,
    id: MemberId,
    arrival: &Arrival,
    members_max: u64,
) -> Result<Changed<Welcomed>> {
    let mut welcomed = Welcomed { id, is_new: false, fields: Vec::new() };
    let offered = NewMember {
        username: arrival.username.clone(),
        email: arrival.email.clone(),
        display_name: arrival.display_name.clone(),
        ..NewMember::default()
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut events: Vec<Event> = Vec::new();
    let mut done = serde_json::Map::new();
    match members::find_known(t, &arrival.provider, &arrival.subject)? {
        Some(member) if member.id != id => return Ok(Changed::nothing(Welcomed { id: member.id, ..welcomed })),
        Some(member) if !member.is_active() => return Err(Cause::InvalidLogin.into()),
        Some(member) if is_somebody_else(t, &member, arrival)? => {
            let message =
                "this account has the number of another one at the provider: ask an administrator of this site";
            return Err(Error::new(Cause::Forbidden).saying(message).because("the provider gives numbers out again"));
        }
        Some(member) => {
            let filled = members::fill_gaps(t, &member, &offered)?;
            if !filled.is_empty() {
                events.push(members::happened(t, Kind::MemberUpdated, id));
                done.insert("filled".into(), json!(filled));
                welcomed.fields = filled;
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
            events.push(members::happened(t, Kind::MemberCreated, id));
            done.insert("created".into(), json!(true));
            welcomed.is_new = true;
        }
    }
    let joined = join(t, id, arrival)?;
    let mut organizations: Vec<OrganizationId> =
        t.snapshot().tenants().filter(|tenant| tenant.set_of(id).is_some()).map(|tenant| tenant.id).collect();
    let mut entries = Vec::new();
    if let Some((organization, seat)) = joined {
        organizations.push(organization);
        changes.push(seat);
        welcomed.fields.push("organization");
        if t.snapshot().belongs_nowhere(id) {
            events.iter_mut().for_each(|event| event.organization = Some(organization));
        }
        entries.push(Entry::new("member", id).within(organization).after(json!({"joined": true})));
    }
    let (synced, seats) = synchronize(t, organizations, id, arrival)?;
    if !synced.is_empty() {
        welcomed.fields.push("roles");
        changes.extend(seats);
        entries.extend(synced);
    }
    if !done.is_empty() {
        done.insert("provider".into(), json!(arrival.provider));
        entries.insert(0, Entry::new("member", id).after(done.into()));
    }
    Ok(entries.into_iter().fold(Changed::nothing(welcomed), Changed::also).policy(changes).event(events))
}

/// Did only the subject stay, and every other name change? A provider that was set up anew gives its numbers out again,
/// and nobody shall inherit a member that way.
pub(super) fn is_somebody_else(t: &Transaction<'_>, member: &Member, arrival: &Arrival) -> Result<bool> {
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

/// Brings the roles that come from outside in line, in each organization, source by source; answers what there is to
/// record, and how the member sits there now.
pub(super) fn synchronize(
    t: &Transaction<'_>,
    organizations: Vec<OrganizationId>,
    id: MemberId,
    arrival: &Arrival,
) -> Result<(Vec<Entry>, Vec<Change>)> {
    // Whoever made the mappings gave these roles away already: the site itself hands them out.
    let holder = Identity::command_line();
    let (mut entries, mut seats) = (Vec::new(), Vec::new());
    for organization in organizations {
        let before = entries.len();
        for (source, keys) in &arrival.keys {
            let synced = sync(t, &holder, (organization, id), *source, keys, false)?;
            if !(synced.added.is_empty() && synced.removed.is_empty()) {
                let after = json!({"source": source.word(), "added": synced.added, "removed": synced.removed});
                entries.push(Entry::new("member", id).within(organization).after(after));
            }
        }
        if entries.len() > before {
            seats.push(access::store::seat(t, organization, id)?);
        }
    }
    Ok((entries, seats))
}
