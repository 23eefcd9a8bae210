//! Invitations, links, passwords, keys and webhooks are deferred grants: they depend on the rights of their creator
//! (`Grantor`). The transaction that removes these rights also withdraws them. The rule is in
//! `kernel::authz::deferred_grant`; this file finds the rows.

use std::collections::BTreeSet;

use super::store::{self, Open};
use super::{Occurrence, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authz::deferred_grant::{DeferredGrant, Grantor, require_grantor_authorized};
use crate::kernel::authz::snapshot::{Change, MemberStatus, Snapshot};
use crate::kernel::db::Writer;
use crate::kernel::error::Result;
use crate::kernel::ids::{MemberId, Timestamp};

/// Returns the open deferred grants that these changes may invalidate: those of every creator who may lose rights, and
/// those for every member who may gain rights. It is not checked here whether they do.
pub(super) fn at_stake(w: &Writer<'_>, before: &Snapshot, changes: &[Change]) -> Result<Vec<(Grantor, Open)>> {
    let mut makers: BTreeSet<String> = BTreeSet::new();
    let mut may_gain: BTreeSet<MemberId> = BTreeSet::new();
    let mut all_makers: Option<Vec<Grantor>> = None;
    for change in changes {
        match change {
            Change::Member(id, status) if *status != MemberStatus::Active => {
                makers.insert(Grantor::Member(*id).to_text());
            }
            Change::MemberDeleted(id) => {
                makers.insert(Grantor::Member(*id).to_text());
            }
            Change::Membership(_, id, _) => {
                makers.insert(Grantor::Member(*id).to_text());
                may_gain.insert(*id);
            }
            Change::Grant(_, Some(id)) => may_gain.extend(store::find_grantee(w, *id)?),
            Change::Client(client) => {
                makers.insert(Grantor::Client(client.client_key.clone()).to_text());
            }
            Change::ClientDeleted(client_key) => {
                makers.insert(Grantor::Client(client_key.clone()).to_text());
            }
            Change::Role(tenant, role) => {
                // Everybody who holds the role may have lost rights.
                let all = match all_makers.take() {
                    Some(all) => all,
                    None => store::list_makers(w)?,
                };
                let holds = |maker: &&Grantor| match maker {
                    Grantor::Member(id) => {
                        before.tenant(*tenant).is_some_and(|tenant| tenant.roles_of(*id).any(|held| held.id == role.id))
                    }
                    _ => false,
                };
                makers.extend(all.iter().filter(holds).map(Grantor::to_text));
                all_makers = Some(all);
            }
            _ => {}
        }
    }
    // A client is valid only as long as its creator's rights, and so are the deferred grants of the client.
    let clients = before.clients().filter(|client| makers.contains(&client.maker.to_text()));
    let clients: Vec<_> = clients.map(|client| Grantor::Client(client.client_key.clone()).to_text()).collect();
    makers.extend(clients);
    let mut open = Vec::new();
    for text in &makers {
        let maker = Grantor::parse(Some(text));
        open.extend(store::list_open(w, &maker)?.into_iter().map(|deferred_grant| (maker.clone(), deferred_grant)));
    }
    for member in may_gain {
        let keys = store::list_keys_of(w, member)?;
        let is_listed = |maker: &Grantor| matches!(maker, Grantor::Member(_)) && makers.contains(&maker.to_text());
        let given = keys.into_iter().chain(store::find_password_of(w, member)?);
        open.extend(given.filter(|(maker, _)| !is_listed(maker)));
    }
    // A deferred grant that this change itself creates was checked when it was created.
    open.retain(|(_, deferred_grant)| match deferred_grant {
        Open::Key { id, .. } => before.api_key(*id).is_some(),
        Open::Password { member } => before.member_state(*member).is_some(),
        _ => true,
    });
    Ok(open)
}

/// Withdraws the deferred grants whose creator lost the right to give them. The features delete their rows in
/// reactions; the audit entries are returned.
pub(super) fn withdraw(
    t: &Transaction<'_>,
    after: &Snapshot,
    deferred_grants: Vec<(Grantor, Open)>,
) -> Result<Vec<Entry>> {
    let (w, before) = (&**t, t.snapshot());
    let mut entries = Vec::new();
    for (maker, open) in deferred_grants {
        let rights = match &open {
            Open::Link { member, .. } | Open::Key { member, .. } | Open::Password { member } => {
                crate::kernel::authz::store::rights_of(w, *member)?
            }
            _ => Vec::new(),
        };
        let deferred_grant = match &open {
            Open::Invitation { organization, role, .. } => {
                DeferredGrant::Invitation { tenant: *organization, role: *role }
            }
            Open::Link { member, is_welcome: true, .. } => DeferredGrant::Welcome { member: *member, rights: &rights },
            Open::Link { member, .. } => DeferredGrant::PasswordLink { member: *member, rights: &rights },
            Open::Key { member, .. } => DeferredGrant::MemberKey { member: *member, rights: &rights },
            Open::Password { member } => DeferredGrant::Password { member: *member, rights: &rights },
            Open::Webhook { organization, .. } => DeferredGrant::Webhook { organization: *organization },
            // Not withdrawn, because they are checked at every use. An audit entry records once that they have become
            // invalid.
            Open::ServiceKey { .. } | Open::Client { .. } => {
                entries.extend(invalidated((before, after), &open, w.now()));
                continue;
            }
        };
        if require_grantor_authorized(after, &maker, deferred_grant, w.now()).is_ok() {
            continue;
        }
        let why = serde_json::json!({"withdrawn": "its creator no longer has the right to give it"});
        entries.push(match open {
            Open::Invitation { id, organization, .. } => {
                t.react_to(&Occurrence::InvitationWithdrawn(id))?;
                Entry::new("invitation", id).within(organization).after(why)
            }
            Open::Link { hash, member, .. } => {
                t.react_to(&Occurrence::LinkWithdrawn(&hash))?;
                Entry::new("password_link", member).after(why)
            }
            Open::Key { id, .. } => {
                t.react_to(&Occurrence::KeyWithdrawn(id))?;
                Entry::new("api_key", id).after(why)
            }
            Open::Password { member } => {
                t.react_to(&Occurrence::PasswordWithdrawn(member))?;
                Entry::new("password", member).after(why)
            }
            Open::Webhook { id, organization } => {
                t.react_to(&Occurrence::WebhookWithdrawn(id))?;
                Entry::new("webhook", id).within(organization).after(why)
            }
            Open::ServiceKey { .. } | Open::Client { .. } => continue,
        });
    }
    Ok(entries)
}

/// The audit entry for a service key or client that was valid before the change and is not after it, if it is one.
fn invalidated((before, after): (&Snapshot, &Snapshot), open: &Open, now: Timestamp) -> Option<Entry> {
    let (entry, is_kept): (Entry, [bool; 2]) = match open {
        Open::ServiceKey { id } => {
            let is_kept = |snapshot: &Snapshot| {
                snapshot.api_key(*id).is_some_and(|key| key.require_grantor_authorized(snapshot, now).is_ok())
            };
            (Entry::new("api_key", id), [is_kept(before), is_kept(after)])
        }
        Open::Client { client_key } => {
            let is_kept = |snapshot: &Snapshot| {
                snapshot
                    .client(client_key)
                    .is_some_and(|client| client.require_grantor_authorized(snapshot, now).is_ok())
            };
            (Entry::new("client", client_key), [is_kept(before), is_kept(after) || after.client(client_key).is_none()])
        }
        _ => return None,
    };
    let why = serde_json::json!({"refused": "its creator no longer has the right to give its scopes: rotate it"});
    (is_kept == [true, false]).then(|| entry.after(why))
}
