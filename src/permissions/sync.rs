//! Brings a member's roles in line with an external source: keys → mappings → roles → the assignments of that source.
//!
//! **Invariant.** A sync touches only assignments of its own source, and never yields an owner.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{RoleRecord, Source, store};
use crate::access::{self, caller::Identity};
use crate::app::Transaction;
use crate::error::Result;
use crate::ids::{MemberId, OrganizationId, RoleId};

/// Most external keys of one sync, and the longest of them.
pub const KEYS_MAX: usize = 1_000;
pub const KEY_BYTES_MAX: usize = 1_024;

/// What a sync did, or would do. Roles by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub kept: Vec<String>,
    /// External keys that no mapping knows.
    pub unknown: Vec<String>,
}

/// The external keys that a claim holds: text, a list of text, or an object whose names are the keys. Zitadel has
/// objects of objects, and by its documentation lists of those.
pub fn keys_of_claim(claim: &Value) -> Vec<String> {
    match claim {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().flat_map(keys_of_element).collect(),
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

fn keys_of_element(element: &Value) -> Vec<String> {
    match element {
        Value::String(text) => vec![text.clone()],
        Value::Object(map) => map.iter().filter(|(_, value)| value.is_object()).map(|(key, _)| key.clone()).collect(),
        _ => Vec::new(),
    }
}

pub fn sync(
    t: &Transaction<'_>,
    caller: &Identity,
    (organization, member): (OrganizationId, MemberId),
    source: Source,
    external_keys: &BTreeSet<String>,
    dry_run: bool,
) -> Result<Synced> {
    let mut synced = Synced::default();
    let mut wanted: Vec<RoleRecord> = Vec::new();
    for key in external_keys {
        match store::find_mapping(t, organization, source, key)? {
            Some(mapping) => wanted.push(store::get_role(t, organization, mapping.role)?),
            None => synced.unknown.push(key.clone()),
        }
    }
    wanted.retain(|role| role.is_open && !role.is_protected());
    wanted.sort_by(|a, b| a.key.cmp(&b.key));
    wanted.dedup_by(|a, b| a.id == b.id);
    let held: Vec<(RoleId, String)> = store::list_assignments(t, organization, member)?
        .into_iter()
        .filter(|assignment| assignment.source == source)
        .map(|assignment| (assignment.role, assignment.role_key))
        .collect();
    for role in &wanted {
        if held.iter().any(|(id, _)| *id == role.id) {
            synced.kept.push(role.key.clone());
            continue;
        }
        access::require_held(
            t.snapshot(),
            caller,
            organization,
            super::known_role(t.snapshot(), organization, role.id)?,
        )?;
        synced.added.push(role.key.clone());
        if !dry_run {
            store::insert_assignment(t, organization, member, role.id, source)?;
        }
    }
    for (id, key) in held.iter().filter(|(id, _)| !wanted.iter().any(|role| role.id == *id)) {
        access::require_held(t.snapshot(), caller, organization, super::known_role(t.snapshot(), organization, *id)?)?;
        synced.removed.push(key.clone());
        if !dry_run {
            store::delete_sourced_assignment(t, organization, member, *id, source)?;
        }
    }
    Ok(synced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_may_be_text_a_list_or_an_object() {
        assert_eq!(keys_of_claim(&json!("editors")), ["editors"]);
        assert_eq!(keys_of_claim(&json!(["a", 1, "b"])), ["a", "b"]);
        assert_eq!(keys_of_claim(&json!({"editor": {"1234": "acme.example.org"}})), ["editor"]);
        assert_eq!(keys_of_claim(&json!([{"editor": {"1": "a"}}, {"name": "x"}, "b"])), ["editor", "b"]);
        assert_eq!(keys_of_claim(&json!(null)), Vec::<String>::new());
    }
}
