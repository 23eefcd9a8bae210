//! What a provider says of somebody, read from the documents in which it says it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::providers::Provider;
use crate::permissions::Source;
use crate::permissions::mappers::Facts;
use crate::permissions::sync::{KEY_BYTES_MAX, KEYS_MAX, keys_of_claim};
use crate::sessions::arrival::Arrival;

/// Claims of Zitadel, whose mappings may name `zitadel` as their source.
const ZITADEL: &str = "urn:zitadel:";

/// All that a provider says of one subject.
#[derive(Debug)]
pub struct Said {
    pub subject: String,
    /// In the order in which they are asked.
    documents: Vec<Value>,
    /// False when there is a document that could not be read.
    is_complete: bool,
}

impl Said {
    /// By a token that was verified.
    pub fn new(subject: String, claims: Value) -> Self {
        Self { subject, documents: vec![claims], is_complete: true }
    }

    /// By a further document of the same subject; it fills gaps only. `None` when it could not be read.
    #[must_use]
    pub fn and(mut self, document: Option<Value>) -> Self {
        match document {
            Some(document) => self.documents.push(document),
            None => self.is_complete = false,
        }
        self
    }

    /// Is something left to ask for?
    pub fn has_gaps(&self, role_claims: &[String]) -> bool {
        let names = [self.text("name"), self.text("preferred_username"), self.verified_email()];
        names.contains(&None) || role_claims.iter().any(|name| self.claim(name).is_none())
    }

    fn claim(&self, name: &str) -> Option<&Value> {
        self.documents.iter().find_map(|document| document.get(name).filter(|value| !value.is_null()))
    }

    fn text(&self, name: &str) -> Option<&str> {
        let texts = self.documents.iter().filter_map(|document| document.get(name)?.as_str());
        texts.map(str::trim).find(|text| !text.is_empty())
    }

    /// An e-mail that was proved to the provider, which it says in the same document.
    fn verified_email(&self) -> Option<&str> {
        let proved =
            self.documents.iter().filter(|document| document.get("email_verified") == Some(&Value::Bool(true)));
        proved.filter_map(|document| document.get("email")?.as_str()).find(|email| !email.is_empty())
    }

    /// All claims for role mappers, each from the first document that has it.
    fn facts(&self) -> Facts {
        let mut all = serde_json::Map::new();
        for (name, value) in self.documents.iter().filter_map(Value::as_object).flatten().filter(|(_, v)| !v.is_null())
        {
            if !all.contains_key(name) {
                all.insert(name.clone(), value.clone());
            }
        }
        Facts::of_json(&all).with_gaps(!self.is_complete)
    }

    /// Somebody for whom a provider vouches, with roles of no source.
    pub fn arrival(&self, provider: &Provider) -> Arrival {
        Arrival {
            provider: provider.name.clone(),
            subject: self.subject.clone(),
            account_id: None,
            username: self.text("preferred_username").map(str::to_owned),
            email: self.verified_email().map(str::to_owned),
            display_name: self.text("name").map(str::to_owned),
            organization: provider.organization.clone(),
            keys: Vec::new(),
            facts: self.facts(),
        }
    }

    /// The external keys of each source. A claim that is not there is an empty one, and so takes roles away; when it
    /// might stand in a document that could not be read, or the list is beyond measure, nothing is known: `None`.
    pub fn role_keys(&self, role_claims: &[String]) -> Option<Vec<(Source, BTreeSet<String>)>> {
        let (mut all, mut of_zitadel) = (BTreeSet::new(), None::<BTreeSet<String>>);
        for name in role_claims {
            let claim = self.claim(name);
            if claim.is_none() && !self.is_complete {
                tracing::warn!(claim = name, "a role claim may stand in a document that could not be read: roles stay");
                return None;
            }
            let keys = claim.into_iter().flat_map(keys_of_claim);
            let keys: Vec<String> = keys.filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX).collect();
            if name.starts_with(ZITADEL) {
                of_zitadel.get_or_insert_default().extend(keys.iter().cloned());
            }
            all.extend(keys);
        }
        if all.len() > KEYS_MAX {
            tracing::warn!(keys = all.len(), "role claims name more keys than are looked at: roles stay");
            return None;
        }
        let mut sources = Vec::new();
        if !role_claims.is_empty() {
            sources.push((Source::Oidc, all));
        }
        sources.extend(of_zitadel.map(|keys| (Source::Zitadel, keys)));
        Some(sources)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(claims: Value) -> Said {
        Said::new("1".into(), claims)
    }

    fn keys(said: &Said, claims: &[&str]) -> Option<Vec<(Source, Vec<String>)>> {
        let names: Vec<String> = claims.iter().map(|name| (*name).to_owned()).collect();
        let found = said.role_keys(&names)?;
        Some(found.into_iter().map(|(source, keys)| (source, keys.into_iter().collect())).collect())
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn an_email_counts_only_when_its_own_document_says_that_it_was_proved() {
        let email = |said: Said| said.verified_email().map(str::to_owned);
        let proved = json!({"email": "b@example.org", "email_verified": true});
        assert_eq!(email(said(proved.clone())).as_deref(), Some("b@example.org"));
        for unproved in [json!({"email": "a@example.org"}), json!({"email": "a@example.org", "email_verified": "true"})]
        {
            assert_eq!(email(said(unproved.clone())), None);
            assert_eq!(email(said(unproved.clone()).and(Some(proved.clone()))).as_deref(), Some("b@example.org"));
            assert_eq!(email(said(unproved).and(Some(json!({"email_verified": true})))), None);
        }
    }

    #[test]
    fn keys_come_from_the_first_document_that_has_the_claim() {
        let said = said(json!({"groups": ["a"], "role": null})).and(Some(json!({"groups": ["b"], "role": "c"})));
        assert_eq!(keys(&said, &["groups", "role"]), Some(vec![(Source::Oidc, texts(&["a", "c"]))]));
        assert_eq!(keys(&said, &["absent"]), Some(vec![(Source::Oidc, vec![])]));
        assert_eq!(keys(&said, &[]), Some(vec![]));
    }

    #[test]
    fn zitadels_claims_are_keys_of_zitadel_too() {
        let name = "urn:zitadel:iam:org:project:roles";
        let said = said(json!({name: {"admin": {"1001": "acme.example.org"}}, "groups": ["staff"]}));
        let expected = vec![(Source::Oidc, texts(&["admin", "staff"])), (Source::Zitadel, texts(&["admin"]))];
        assert_eq!(keys(&said, &[name, "groups"]), Some(expected));
    }

    #[test]
    fn nothing_is_known_of_a_claim_that_may_stand_in_an_unread_document() {
        let unread = said(json!({"groups": ["a"]})).and(None);
        assert_eq!(keys(&unread, &["groups"]), Some(vec![(Source::Oidc, texts(&["a"]))]));
        assert_eq!(keys(&unread, &["groups", "role"]), None);
    }

    #[test]
    fn keys_at_their_limits_and_one_past_them() {
        let many = |count: usize| said(json!({"groups": (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>()}));
        assert!(keys(&many(KEYS_MAX), &["groups"]).is_some());
        assert!(keys(&many(KEYS_MAX + 1), &["groups"]).is_none());
        let long = said(json!({"groups": ["", "x".repeat(KEY_BYTES_MAX), "x".repeat(KEY_BYTES_MAX + 1)]}));
        assert_eq!(keys(&long, &["groups"]).expect("known")[0].1, ["x".repeat(KEY_BYTES_MAX)]);
    }
}
