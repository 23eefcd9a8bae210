//! What a provider says of somebody, read from the documents in which it says it, and whose a token is.
//!
//! **Invariant.** Nothing that is optional breaks a sign-in: an odd value is read as what it means, or as if it were not
//! there. Numbers count as text, and `true` may be text too, also for `email_verified`: it stands in the same document.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::features::permissions::Source;
use crate::features::permissions::external_key::{COUNT_MAX, is_key};
use crate::features::permissions::mappers::SourceFacts;
use crate::features::permissions::role_claims::{Found, RoleClaim, is_of_zitadel};
use crate::features::sessions::jit_provisioning::ExternalUser;
use crate::kernel::config::providers::Provider;
use crate::kernel::outbound::{is_true, text_of};

/// All that a provider says of one subject.
#[derive(Debug)]
pub struct ProviderClaims {
    pub subject: String,
    /// In the order in which they are asked.
    documents: Vec<Value>,
    /// False when there is a document that could not be read.
    is_complete: bool,
}

impl ProviderClaims {
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
        names.contains(&None) || role_claims.iter().any(|name| !matches!(self.find(name), Found::Keys(_)))
    }

    fn objects(&self) -> impl Iterator<Item = &Map<String, Value>> + Clone {
        self.documents.iter().filter_map(Value::as_object)
    }

    fn find(&self, role_claim: &str) -> Found {
        RoleClaim::of(role_claim).find(self.objects())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.objects().find_map(|document| text(document, name))
    }

    /// An e-mail that was proved to the provider, which it says in the same document.
    fn verified_email(&self) -> Option<String> {
        let mut proved = self.objects().filter(|document| document.get("email_verified").is_some_and(is_true));
        proved.find_map(|document| text(document, "email"))
    }

    /// All claims for role mappers, each from the first document that has it.
    fn facts(&self) -> SourceFacts {
        let mut all = serde_json::Map::new();
        for (name, value) in self.objects().flatten().filter(|(_, value)| !value.is_null()) {
            if !all.contains_key(name) {
                all.insert(name.clone(), value.clone());
            }
        }
        SourceFacts::of_json(&all).with_gaps(!self.is_complete)
    }

    /// Somebody for whom a provider vouches, with roles of no source.
    pub fn external_user(&self, provider: &Provider) -> ExternalUser {
        ExternalUser {
            provider: provider.name.clone(),
            subject: self.subject.clone(),
            account_id: None,
            username: self.text("preferred_username"),
            email: self.verified_email(),
            display_name: self.text("name"),
            organization: provider.organization.clone(),
            keys: Vec::new(),
            facts: self.facts(),
        }
    }

    /// The external keys of each source. A claim that is nowhere is an empty one, and so takes roles away: providers leave
    /// it out for who has no group. When the provider keeps it elsewhere, when it might stand in a document that could not
    /// be read, or the list is beyond measure, nothing is known: `None`.
    pub fn role_keys(&self, role_claims: &[String]) -> Option<Vec<(Source, BTreeSet<String>)>> {
        let (mut all, mut of_zitadel) = (BTreeSet::new(), None::<BTreeSet<String>>);
        for name in role_claims {
            let unknown = match self.find(name) {
                Found::Keys(found) => {
                    let keys = found.into_iter().filter(|key| is_key(key));
                    if is_of_zitadel(name) {
                        let keys: Vec<String> = keys.collect();
                        of_zitadel.get_or_insert_default().extend(keys.iter().cloned());
                        all.extend(keys);
                    } else {
                        all.extend(keys);
                    }
                    continue;
                }
                Found::Unknown(why) => why,
                Found::Absent if !self.is_complete => "it may stand in a document that could not be read",
                Found::Absent if is_of_zitadel(name) => {
                    of_zitadel.get_or_insert_default();
                    continue;
                }
                Found::Absent => continue,
            };
            tracing::warn!(
                claim = name,
                why = unknown,
                "a role claim is not known: roles of the provider stay as they are"
            );
            return None;
        }
        if all.len() > COUNT_MAX {
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

fn text(document: &Map<String, Value>, name: &str) -> Option<String> {
    let text = text_of(document.get(name)?)?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A subject that can be stored and shown; a number counts as its digits.
pub fn subject(claims: &Value) -> Option<String> {
    const SUBJECT_BYTES_MAX: usize = 255;
    let subject = match &claims["sub"] {
        Value::Number(number) if number.is_f64() => return None,
        Value::Bool(_) => return None,
        value => text_of(value)?,
    };
    let is_good = (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && !subject.chars().any(char::is_control);
    is_good.then_some(subject)
}

/// Was the token given to a program, with no person behind it? Providers say it in many ways, and some in several.
pub fn is_of_program(claims: &Value) -> bool {
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    let subject = text("sub");
    let clients = ["client_id", "azp", "cid", "appid", "clientId"].map(text);
    // Auth0 has one grant or a list of them.
    let grants = claims["gty"].as_array().map_or(std::slice::from_ref(&claims["gty"]), Vec::as_slice);
    let is_client_grant =
        |grant: &Value| grant.as_str().is_some_and(|grant| grant.replace('_', "-") == "client-credentials");
    let username = text("preferred_username").to_lowercase();
    // Keycloak's `service-account-CLIENT` and authentik's `ak-PROVIDER-client_credentials`.
    let keycloak_s = username.strip_prefix("service-account-");
    let is_service_account = keycloak_s.is_some_and(|name| clients.iter().any(|client| client.to_lowercase() == name))
        || (username.starts_with("ak-") && username.ends_with("-client_credentials"));
    // Entra: `user` for people.
    let idtyp = text("idtyp");
    // Entra without `idtyp`: only of a program are both the same.
    let is_entra_s = claims["tid"].is_string() && claims["scp"].is_null() && text("oid") == subject;
    (!subject.is_empty() && (clients.contains(&subject) || is_entra_s))
        || subject.ends_with("@clients")
        || (!idtyp.is_empty() && !idtyp.eq_ignore_ascii_case("user"))
        || grants.iter().any(is_client_grant)
        || is_service_account
}

/// Is the token made to open something, and no id token with a fitting audience? Of no kind that says it is another.
pub fn is_access_token(claims: &Value) -> bool {
    let has = |name: &str| !claims[name].is_null();
    let is = |name: &str, kinds: &[&str]| {
        claims[name].as_str().is_none_or(|kind| kinds.iter().any(|known| kind.eq_ignore_ascii_case(known)))
    };
    // Keycloak says `ID` or `Bearer`, Cognito `id` or `access`.
    let may_be = is("typ", &["Bearer", "JWT", "at+jwt"]) && is("token_use", &["access"]);
    let is_id_token = has("at_hash") || has("c_hash") || (has("nonce") && !has("scope") && !has("scp"));
    may_be && !is_id_token
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::features::permissions::external_key::CHARACTERS_MAX;

    fn said(claims: Value) -> ProviderClaims {
        ProviderClaims::new("1".into(), claims)
    }

    fn keys(said: &ProviderClaims, claims: &[&str]) -> Option<Vec<(Source, Vec<String>)>> {
        let names: Vec<String> = claims.iter().map(|name| (*name).to_owned()).collect();
        let found = said.role_keys(&names)?;
        Some(found.into_iter().map(|(source, keys)| (source, keys.into_iter().collect())).collect())
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn an_email_counts_only_when_its_own_document_says_that_it_was_proved() {
        let email = |said: ProviderClaims| said.verified_email();
        let proved = json!({"email": "b@example.org", "email_verified": true});
        assert_eq!(email(said(proved.clone())).as_deref(), Some("b@example.org"));
        for proof in [json!("true"), json!("True"), json!(" TRUE ")] {
            let read = email(said(json!({"email": " b@example.org ", "email_verified": proof})));
            assert_eq!(read.as_deref(), Some("b@example.org"), "{proof}");
        }
        for proof in [Value::Null, json!(false), json!("false"), json!(""), json!("yes"), json!(1), json!([true])] {
            let unproved = json!({"email": "a@example.org", "email_verified": proof});
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
        let none = vec![(Source::Oidc, vec![]), (Source::Zitadel, vec![])];
        assert_eq!(keys(&said(json!({})), &[name]), Some(none));
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
    fn nothing_is_known_of_a_claim_that_is_elsewhere() {
        let over = json!({"_claim_names": {"groups": "src1"}, "roles": ["r"]});
        assert_eq!(keys(&said(over.clone()), &["roles"]), Some(vec![(Source::Oidc, texts(&["r"]))]));
        assert_eq!(keys(&said(over.clone()), &["groups"]), None);
        assert_eq!(keys(&said(over.clone()), &["roles", "groups"]), None);
        let found = said(over).and(Some(json!({"groups": ["g"]})));
        assert_eq!(keys(&found, &["groups"]), Some(vec![(Source::Oidc, texts(&["g"]))]));
        assert_eq!(keys(&said(json!({"hasgroups": true})), &["groups"]), None);
    }

    #[test]
    fn keys_at_their_limits_and_one_past_them() {
        let many = |count: usize| said(json!({"groups": (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>()}));
        assert!(keys(&many(COUNT_MAX), &["groups"]).is_some());
        assert!(keys(&many(COUNT_MAX + 1), &["groups"]).is_none());
        let long = said(json!({"groups": ["", "x".repeat(CHARACTERS_MAX), "x".repeat(CHARACTERS_MAX + 1), "a\nb"]}));
        assert_eq!(keys(&long, &["groups"]).expect("known")[0].1, ["x".repeat(CHARACTERS_MAX)]);
    }

    #[test]
    fn odd_names_are_read_as_text_or_left_out() {
        let said = said(json!({"name": 1984, "preferred_username": ["a"], "email": {}, "email_verified": "true"}));
        assert_eq!((said.text("name").as_deref(), said.text("preferred_username")), (Some("1984"), None));
        assert_eq!(said.verified_email(), None);
        for (sub, expected) in [
            (json!("a"), Some("a")),
            (json!(17), Some("17")),
            (json!(1.5), None),
            (json!(true), None),
            (json!(""), None),
            (Value::Null, None),
            (json!(["a"]), None),
        ] {
            assert_eq!(subject(&json!({"sub": sub})).as_deref(), expected, "{sub}");
        }
    }

    #[test]
    fn programs_are_told_from_people() {
        for of_program in [
            json!({"sub": "u-1", "client_id": "backup", "azp": "backup", "preferred_username": "service-account-backup"}),
            json!({"sub": "u-1", "azp": "Backup", "preferred_username": "service-account-backup"}),
            json!({"sub": "abc@clients", "azp": "abc", "gty": "client-credentials"}),
            json!({"sub": "u", "gty": ["client_credentials"]}),
            json!({"sub": "0oaAPP", "cid": "0oaAPP"}),
            json!({"sub": "x", "idtyp": "app"}),
            json!({"sub": "x", "idtyp": "device"}),
            json!({"sub": "x", "client_id": "x"}),
            json!({"sub": "o", "oid": "o", "tid": "t", "roles": ["r"]}),
            json!({"sub": "u", "preferred_username": "ak-roster-client_credentials"}),
        ] {
            assert!(is_of_program(&of_program), "{of_program}");
        }
        for of_person in [
            json!({"sub": "u", "azp": "portal", "preferred_username": "kim"}),
            json!({"sub": "u", "azp": "portal", "preferred_username": "service-account-backup"}),
            json!({"sub": "u", "idtyp": "user", "appid": "portal", "oid": "o", "tid": "t"}),
            json!({"sub": "o", "oid": "o", "tid": "t", "scp": "read"}),
            json!({"sub": "u", "gty": "password"}),
            json!({"sub": "u", "gty": ["authorization_code", "refresh_token"]}),
            json!({"sub": "u", "cid": 7}),
        ] {
            assert!(!is_of_program(&of_person), "{of_person}");
        }
    }

    #[test]
    fn id_tokens_are_told_from_access_tokens() {
        for access in [
            json!({}),
            json!({"typ": "Bearer", "scope": "openid", "nonce": "n"}),
            json!({"token_use": "access"}),
            json!({"scp": ["read"], "nonce": "n"}),
            json!({"typ": 7}),
        ] {
            assert!(is_access_token(&access), "{access}");
        }
        for other in [
            json!({"typ": "ID", "scope": "openid"}),
            json!({"typ": "Refresh"}),
            json!({"typ": "Logout"}),
            json!({"typ": "DPoP"}),
            json!({"token_use": "id"}),
            json!({"nonce": "n"}),
            json!({"at_hash": "h", "scope": "openid"}),
            json!({"c_hash": "h", "scope": "openid"}),
        ] {
            assert!(!is_access_token(&other), "{other}");
        }
    }
}
