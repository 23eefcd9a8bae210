//! Promises end with their maker's rights: in the transaction that takes the rights, links that the maker may not give any
//! more are withdrawn. The rule is in `access::promise`; this file knows where promises lie.

use std::collections::BTreeSet;

use super::promise_store::{self as store, Open};
use crate::access::promise::{Maker, Promise, require_kept};
use crate::access::snapshot::{Change, Snapshot, Status};
use crate::db::Writer;
use crate::error::Result;
use crate::journal::Entry;

/// The open promises of all makers who may lose something by these changes; without looking whether they do.
pub(super) fn at_stake(w: &Writer<'_>, before: &Snapshot, changes: &[Change]) -> Result<Vec<(Maker, Open)>> {
    let mut makers: BTreeSet<String> = BTreeSet::new();
    let mut all_makers: Option<Vec<Maker>> = None;
    for change in changes {
        match change {
            Change::Person(id, status) if *status != Status::Active => {
                makers.insert(Maker::Member(*id).text());
            }
            Change::PersonGone(id) | Change::Seat(_, id, _) => {
                makers.insert(Maker::Member(*id).text());
            }
            Change::Client(client) => {
                makers.insert(Maker::Client(client.client_key.clone()).text());
            }
            Change::ClientGone(client_key) => {
                makers.insert(Maker::Client(client_key.clone()).text());
            }
            Change::Role(tenant, role) => {
                // Who holds it may hold less by it.
                let all = match all_makers.take() {
                    Some(all) => all,
                    None => store::list_makers(w)?,
                };
                let holds = |maker: &&Maker| match maker {
                    Maker::Member(id) => {
                        before.tenant(*tenant).is_some_and(|tenant| tenant.roles_of(*id).any(|held| held.id == role.id))
                    }
                    _ => false,
                };
                makers.extend(all.iter().filter(holds).map(Maker::text));
                all_makers = Some(all);
            }
            _ => {}
        }
    }
    let mut open = Vec::new();
    for text in makers {
        let maker = Maker::of_text(Some(&text));
        open.extend(store::list_open(w, &maker)?.into_iter().map(|promise| (maker.clone(), promise)));
    }
    Ok(open)
}

/// Withdraws those that their maker may not give any more; answers what there is to record.
pub(super) fn withdraw(w: &Writer<'_>, after: &Snapshot, promises: Vec<(Maker, Open)>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (maker, open) in promises {
        let rights = match &open {
            Open::Link { member, .. } => crate::access::store::rights_of(w, *member)?,
            Open::Invitation { .. } => Vec::new(),
        };
        let promise = match &open {
            Open::Invitation { organization, role, .. } => Promise::Invitation { tenant: *organization, role: *role },
            Open::Link { member, is_welcome: true, .. } => Promise::Welcome { member: *member, rights: &rights },
            Open::Link { member, .. } => Promise::PasswordLink { member: *member, rights: &rights },
        };
        if require_kept(after, &maker, promise, w.now()).is_ok() {
            continue;
        }
        let why = serde_json::json!({"withdrawn": "its maker may not give it any more"});
        entries.push(match open {
            Open::Invitation { id, organization, .. } => {
                store::delete_invitation(w, id)?;
                Entry::new("invitation", id).within(organization).after(why)
            }
            Open::Link { hash, member, .. } => {
                store::delete_link(w, &hash)?;
                Entry::new("password_link", member).after(why)
            }
        });
    }
    Ok(entries)
}
