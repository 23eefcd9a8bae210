//! Reads the claims of a subject from the provider's documents, and classifies tokens: program or person, id token or
//! access token.
//!
//! **Invariant.** An optional claim never breaks a sign-in: an unusual value is interpreted leniently or treated as
//! absent. Numbers are read as text, and `true` can be text too. `email_verified` counts only for the e-mail in the
//! same document.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::features::permissions::Source;
use crate::features::permissions::mappers::SourceFacts;
use crate::features::permissions::role_claims::{COUNT_MAX, is_key};
use crate::features::permissions::role_claims::{Found, RoleClaim, is_of_zitadel};
use crate::features::sessions::jit_provisioning::ExternalUser;
use crate::kernel::config::providers::Provider;
use crate::kernel::outbound::{is_true, text_of};

/// All claims of a provider about one subject.
#[derive(Debug)]
pub struct ProviderClaims {
    pub subject: String,
    /// In order of precedence.
    documents: Vec<Value>,
    /// False when a document could not be read.
    is_complete: bool,
}

impl ProviderClaims {
    /// Starts with the claims of a verified token.
    pub fn new(subject: String, claims: Value) -> Self {
        Self { subject, documents: vec![claims], is_complete: true }
    }

    /// Adds a further document about the same subject, which only fills gaps; `None` when it could not be read.
    #[must_use]
    pub fn and(mut self, document: Option<Value>) -> Self {
        match document {
            Some(document) => self.documents.push(document),
            None => self.is_complete = false,
        }
        self
    }

    /// Whether a name, the e-mail address or a role claim is still missing.
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

    /// The first e-mail address whose own document says `email_verified`.
    fn verified_email(&self) -> Option<String> {
        let mut verified = self.objects().filter(|document| document.get("email_verified").is_some_and(is_true));
        verified.find_map(|document| text(document, "email"))
    }

    /// Collects all claims for role mappers, each from the first document that has it.
    fn facts(&self) -> SourceFacts {
        let mut all = serde_json::Map::new();
        for (name, value) in self.objects().flatten().filter(|(_, value)| !value.is_null()) {
            if !all.contains_key(name) {
                all.insert(name.clone(), value.clone());
            }
        }
        SourceFacts::of_json(&all).with_gaps(!self.is_complete)
    }

    /// The user that these claims describe, without role keys.
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

    /// Returns the external keys of each source. An absent claim counts as empty and so removes roles, because
    /// providers omit the claim for users without groups. Returns `None` (unknown) when the provider keeps the claim
    /// elsewhere, when it may be in a document that could not be read, or when there are more than `COUNT_MAX` keys.
    pub fn role_keys(&self, role_claims: &[String]) -> Option<Vec<(Source, BTreeSet<String>)>> {
        let (mut all, mut of_zitadel) = (BTreeSet::new(), None::<BTreeSet<String>>);
        for name in role_claims {
            let why = match self.find(name) {
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
                Found::Absent if !self.is_complete => "it may be in a document that could not be read",
                Found::Absent if is_of_zitadel(name) => {
                    of_zitadel.get_or_insert_default();
                    continue;
                }
                Found::Absent => continue,
            };
            tracing::warn!(claim = name, why, "a role claim is unknown: roles of the provider stay as they are");
            return None;
        }
        if all.len() > COUNT_MAX {
            tracing::warn!(keys = all.len(), "role claims have more keys than the limit: roles stay as they are");
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

/// Returns the subject if it can be stored and displayed. A number is read as its digits.
pub fn subject(claims: &Value) -> Option<String> {
    const SUBJECT_BYTES_MAX: usize = 255;
    let subject = match &claims["sub"] {
        Value::Number(number) if number.is_f64() => return None,
        Value::Bool(_) => return None,
        value => text_of(value)?,
    };
    let is_valid = (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && !subject.chars().any(char::is_control);
    is_valid.then_some(subject)
}

/// Whether the token was issued to a program without a user. Providers mark this in different ways, some in several.
pub fn is_client_token(claims: &Value) -> bool {
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    let subject = text("sub");
    let clients = ["client_id", "azp", "cid", "appid", "clientId"].map(text);
    // Auth0: `gty` is one grant or a list of grants.
    let grants = claims["gty"].as_array().map_or(std::slice::from_ref(&claims["gty"]), Vec::as_slice);
    let is_client_grant =
        |grant: &Value| grant.as_str().is_some_and(|grant| grant.replace('_', "-") == "client-credentials");
    let username = text("preferred_username").to_lowercase();
    // Keycloak's `service-account-CLIENT` and authentik's `ak-PROVIDER-client_credentials`.
    let keycloak_name = username.strip_prefix("service-account-");
    let is_service_account = keycloak_name
        .is_some_and(|name| clients.iter().any(|client| client.to_lowercase() == name))
        || (username.starts_with("ak-") && username.ends_with("-client_credentials"));
    // Entra: `idtyp` is `user` for people.
    let idtyp = text("idtyp");
    // Entra without `idtyp`: `oid` equals `sub` only for programs.
    let is_entra_program = claims["tid"].is_string() && claims["scp"].is_null() && text("oid") == subject;
    (!subject.is_empty() && (clients.contains(&subject) || is_entra_program))
        || subject.ends_with("@clients")
        || (!idtyp.is_empty() && !idtyp.eq_ignore_ascii_case("user"))
        || grants.iter().any(is_client_grant)
        || is_service_account
}

/// Whether the token is an access token: it is not an id token with a matching audience, and no claim gives it another
/// kind.
pub fn is_access_token(claims: &Value) -> bool {
    let has = |name: &str| !claims[name].is_null();
    let is = |name: &str, kinds: &[&str]| {
        claims[name].as_str().is_none_or(|kind| kinds.iter().any(|known| kind.eq_ignore_ascii_case(known)))
    };
    // Keycloak sets `typ` to `ID` or `Bearer`; Cognito sets `token_use` to `id` or `access`.
    let may_be = is("typ", &["Bearer", "JWT", "at+jwt"]) && is("token_use", &["access"]);
    let is_id_token = has("at_hash") || has("c_hash") || (has("nonce") && !has("scope") && !has("scp"));
    may_be && !is_id_token
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::features::permissions::role_claims::CHARACTERS_MAX;

    fn from_token(claims: Value) -> ProviderClaims {
        ProviderClaims::new("1".into(), claims)
    }

    fn keys(claims: &ProviderClaims, names: &[&str]) -> Option<Vec<(Source, Vec<String>)>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = claims.role_keys(&names)?;
        Some(found.into_iter().map(|(source, keys)| (source, keys.into_iter().collect())).collect())
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn an_email_counts_only_if_its_own_document_says_that_it_is_verified() {
        let email = |claims: ProviderClaims| claims.verified_email();
        let proved = json!({"email": "b@example.org", "email_verified": true});
        assert_eq!(email(from_token(proved.clone())).as_deref(), Some("b@example.org"));
        for proof in [json!("true"), json!("True"), json!(" TRUE ")] {
            let read = email(from_token(json!({"email": " b@example.org ", "email_verified": proof})));
            assert_eq!(read.as_deref(), Some("b@example.org"), "{proof}");
        }
        for proof in [Value::Null, json!(false), json!("false"), json!(""), json!("yes"), json!(1), json!([true])] {
            let unproved = json!({"email": "a@example.org", "email_verified": proof});
            assert_eq!(email(from_token(unproved.clone())), None);
            assert_eq!(email(from_token(unproved.clone()).and(Some(proved.clone()))).as_deref(), Some("b@example.org"));
            assert_eq!(email(from_token(unproved).and(Some(json!({"email_verified": true})))), None);
        }
    }

    #[test]
    fn keys_come_from_the_first_document_that_has_the_claim() {
        let claims =
            from_token(json!({"groups": ["a"], "role": null})).and(Some(json!({"groups": ["b"], "role": "c"})));
        assert_eq!(keys(&claims, &["groups", "role"]), Some(vec![(Source::Oidc, texts(&["a", "c"]))]));
        assert_eq!(keys(&claims, &["absent"]), Some(vec![(Source::Oidc, vec![])]));
        assert_eq!(keys(&claims, &[]), Some(vec![]));
    }

    #[test]
    fn zitadels_claims_are_keys_of_zitadel_too() {
        let name = "urn:zitadel:iam:org:project:roles";
        let none = vec![(Source::Oidc, vec![]), (Source::Zitadel, vec![])];
        assert_eq!(keys(&from_token(json!({})), &[name]), Some(none));
        let claims = from_token(json!({name: {"admin": {"1001": "acme.example.org"}}, "groups": ["staff"]}));
        let expected = vec![(Source::Oidc, texts(&["admin", "staff"])), (Source::Zitadel, texts(&["admin"]))];
        assert_eq!(keys(&claims, &[name, "groups"]), Some(expected));
    }

    #[test]
    fn a_claim_that_may_be_in_an_unread_document_is_unknown() {
        let unread = from_token(json!({"groups": ["a"]})).and(None);
        assert_eq!(keys(&unread, &["groups"]), Some(vec![(Source::Oidc, texts(&["a"]))]));
        assert_eq!(keys(&unread, &["groups", "role"]), None);
    }

    #[test]
    fn a_claim_that_the_provider_keeps_elsewhere_is_unknown() {
        let distributed = json!({"_claim_names": {"groups": "src1"}, "roles": ["r"]});
        assert_eq!(keys(&from_token(distributed.clone()), &["roles"]), Some(vec![(Source::Oidc, texts(&["r"]))]));
        assert_eq!(keys(&from_token(distributed.clone()), &["groups"]), None);
        assert_eq!(keys(&from_token(distributed.clone()), &["roles", "groups"]), None);
        let found = from_token(distributed).and(Some(json!({"groups": ["g"]})));
        assert_eq!(keys(&found, &["groups"]), Some(vec![(Source::Oidc, texts(&["g"]))]));
        assert_eq!(keys(&from_token(json!({"hasgroups": true})), &["groups"]), None);
    }

    #[test]
    fn keys_at_their_limits_and_one_past_them() {
        let many =
            |count: usize| from_token(json!({"groups": (0..count).map(|n| format!("g{n}")).collect::<Vec<_>>()}));
        assert!(keys(&many(COUNT_MAX), &["groups"]).is_some());
        assert!(keys(&many(COUNT_MAX + 1), &["groups"]).is_none());
        let long =
            from_token(json!({"groups": ["", "x".repeat(CHARACTERS_MAX), "x".repeat(CHARACTERS_MAX + 1), "a\nb"]}));
        assert_eq!(keys(&long, &["groups"]).expect("known")[0].1, ["x".repeat(CHARACTERS_MAX)]);
    }

    #[test]
    fn unusual_names_are_read_as_text_or_ignored() {
        let claims =
            from_token(json!({"name": 1984, "preferred_username": ["a"], "email": {}, "email_verified": "true"}));
        assert_eq!((claims.text("name").as_deref(), claims.text("preferred_username")), (Some("1984"), None));
        assert_eq!(claims.verified_email(), None);
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
    fn programs_are_distinguished_from_people() {
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
            assert!(is_client_token(&of_program), "{of_program}");
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
            assert!(!is_client_token(&of_person), "{of_person}");
        }
    }

    #[test]
    fn id_tokens_are_distinguished_from_access_tokens() {
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
