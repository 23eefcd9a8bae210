//! The client of one OpenID Connect provider: its cached discovery document and keys, and the requests of a sign-in.
//!
//! **Invariant.** Each provider has at most one request for its document or keys under way. A key that it does not
//! publish causes a new request only after `auth.oidc_keys_retry_s`, however many tokens name it.

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::ACCEPT;
use reqwest::{Request, Url};
use serde_json::Value;

use super::claims::{is_client_token, subject};
use crate::kernel::app::{App, seconds_to_ms};
use crate::kernel::authn::token::{self, ProviderKeys, TokenError, TokenPurpose};
use crate::kernel::config::providers::{self, Provider as Settings};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::outbound::Refusal;
use crate::kernel::outbound::connection::{
    Connection, ConnectionFailure, ConnectionKind, FailureCause, require_same_clock,
};
use crate::kernel::outbound::own_secrets::form_encoded;
use crate::kernel::secret;

/// A provider's discovery document and key set.
pub struct ProviderMetadata {
    document: Document,
    pub keys: ProviderKeys,
    fetched_at: Timestamp,
}

/// The used parts of a discovery document; the rest is ignored.
#[derive(Clone)]
struct Document {
    authorization: Url,
    token: Url,
    keys: Url,
    userinfo: Option<Url>,
    /// Whether the client secret is sent in the form, because the provider does not support `client_secret_basic`.
    is_secret_in_form: bool,
}

/// The state of recent requests to a provider.
#[derive(Default)]
struct FetchState {
    /// When the keys were last fetched because of an unknown key.
    missed_at: Option<Timestamp>,
    /// The last failure, for requests that waited for the same fetch.
    failed: Option<(Timestamp, Error)>,
}

/// A configured provider.
pub struct Provider {
    pub settings: Settings,
    /// The name of the connection.
    connection: String,
    published: ArcSwapOption<ProviderMetadata>,
    fetch_state: tokio::sync::Mutex<FetchState>,
}

/// The provider's answer to a redeemed code.
pub struct TokenResponse {
    pub id_token: String,
    pub access_token: String,
    /// The scopes that the provider granted, separated by spaces.
    pub scope: String,
}

impl Provider {
    pub fn new(settings: Settings) -> Self {
        let connection = format!("oidc-{}", settings.name);
        Self { settings, connection, published: ArcSwapOption::empty(), fetch_state: tokio::sync::Mutex::default() }
    }

    /// The connection, as the settings describe it.
    pub fn connection(&self) -> Connection {
        let settings = &self.settings;
        let name = |field: &str| format!("oidc {}: {field}", settings.name);
        Connection::new(&*self.connection, ConnectionKind::Oidc, &*settings.issuer)
            .setting(name("issuer"), true)
            .setting(name("client_id"), true)
            .setting(name("client_secret_file"), settings.client_secret.is_some())
            .setting(name("redirect_uris"), !settings.redirect_uris.is_empty())
            .setting(name("role_claims"), !settings.role_claims.is_empty())
            .setting(name("audience"), settings.audience.is_some())
            .setting(name("organization"), settings.organization.is_some())
    }

    /// Fetches the discovery document and the keys anew. Leaves the cached ones alone, and does not wait for a request
    /// under way.
    pub async fn test(&self, app: &App) -> std::result::Result<(), ConnectionFailure> {
        let get = |url: Url| -> Result<Request> {
            let request = app.outbound.client()?.get(url).header(ACCEPT, "application/json").build();
            request.map_err(|e| self.failed(e.to_string()))
        };
        let found = app.outbound.probe(get(self.document_url()?)?).await?;
        let document = self.document(&found.json()?)?;
        let keys = app.outbound.probe(get(document.keys)?).await?;
        if keys.json()?["keys"].as_array().is_none_or(|keys| keys.is_empty()) {
            return Err(ConnectionFailure::new(FailureCause::UnexpectedAnswer, "its key set has no keys"));
        }
        require_same_clock(&keys, Timestamp::now())
    }

    fn document_url(&self) -> Result<Url> {
        let url = format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        Url::parse(&url).map_err(|e| self.failed(format!("its issuer is not a URL: {e}")))
    }

    /// Returns the provider's document and keys, from the cache while they are fresh. `stale` is a version that lacked
    /// a key: a newer one is fetched, unless `auth.oidc_keys_retry_s` has not passed since the last such fetch.
    pub async fn published(&self, app: &App, stale: Option<&Arc<ProviderMetadata>>) -> Result<Arc<ProviderMetadata>> {
        let ttl_ms = seconds_to_ms(app.config.oidc_keys_ttl_s);
        let fresh = || self.published.load_full().filter(|p| Timestamp::now() < p.fetched_at.plus_ms(ttl_ms));
        if let (None, Some(published)) = (stale, fresh()) {
            return Ok(published);
        }
        let started_at = Timestamp::now();
        let mut state = self.fetch_state.lock().await;
        // Another request may have fetched them meanwhile.
        let former = fresh();
        if let Some(published) = &former {
            let now = Timestamp::now();
            let retry_ms = seconds_to_ms(app.config.oidc_keys_retry_s);
            let is_missing = stale.is_some_and(|stale| Arc::ptr_eq(stale, published));
            if !is_missing || state.missed_at.is_some_and(|at| now < at.plus_ms(retry_ms)) {
                return Ok(published.clone());
            }
            state.missed_at = Some(now);
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at > started_at) {
            return Err(error.clone());
        }
        match self.fetch(app, former.as_deref()).await {
            Ok(published) => {
                let published = Arc::new(published);
                self.published.store(Some(published.clone()));
                Ok(published)
            }
            Err(error) => {
                state.failed = Some((Timestamp::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Fetches the document and the keys, or only the keys if the document is known.
    async fn fetch(&self, app: &App, former: Option<&ProviderMetadata>) -> Result<ProviderMetadata> {
        let document = match former {
            Some(former) => former.document.clone(),
            None => {
                let found = self.get(app, self.document_url()?, "document").await?;
                let record = |e: &Error| app.outbound.records.record_failure(&self.connection, e.clone().into());
                self.document(&found).inspect_err(record)?
            }
        };
        let keys = self.get(app, document.keys.clone(), "key set").await?;
        if !keys["keys"].is_array() {
            return Err(self.failed("its key set has no keys"));
        }
        Ok(ProviderMetadata { keys: ProviderKeys::new(&keys), document, fetched_at: Timestamp::now() })
    }

    async fn get(&self, app: &App, url: Url, what: &str) -> Result<Value> {
        let request = app.outbound.client()?.get(url).header(ACCEPT, "application/json").build();
        let request = request.map_err(|e| self.failed(e.to_string()))?;
        let answer = app.outbound.send(&self.connection, request, Refusal::OfSettings).await?;
        if answer.status != 200 {
            if let Some(failure) = ConnectionFailure::of_response(&answer) {
                app.outbound.records.record_failure(&self.connection, failure);
            }
            return Err(self.failed(format!("its {what}: status {}", answer.status)));
        }
        answer.json().map_err(|_| self.failed(format!("its {what} is not JSON")))
    }

    /// Reads a discovery document. Its URLs must be https (or http to this machine), because codes, secrets and tokens
    /// are sent to them, and the keys decide which tokens are valid.
    fn document(&self, json: &Value) -> Result<Document> {
        if json["issuer"].as_str() != Some(&self.settings.issuer) {
            return Err(self.failed("the issuer in its document differs from the issuer in the settings"));
        }
        let mut faults = Vec::new();
        let mut address = |name: &str, is_required: bool| {
            let Some(text) = json[name].as_str() else {
                if is_required {
                    faults.push(format!("{name} is missing"));
                }
                return None;
            };
            providers::check_address(name, text, &mut faults);
            Url::parse(text).ok()
        };
        let addresses = (
            address("authorization_endpoint", true),
            address("token_endpoint", true),
            address("jwks_uri", true),
            address("userinfo_endpoint", false),
        );
        let (Some(authorization), Some(token), Some(keys), userinfo, true) =
            (addresses.0, addresses.1, addresses.2, addresses.3, faults.is_empty())
        else {
            return Err(self.failed(faults.join("; ")));
        };
        let methods = json["token_endpoint_auth_methods_supported"].as_array().map(Vec::as_slice).unwrap_or_default();
        let supports = |method: &str| methods.iter().any(|known| known == method);
        let is_secret_in_form = supports("client_secret_post") && !supports("client_secret_basic");
        Ok(Document { authorization, token, keys, userinfo, is_secret_in_form })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorCode::ExternalSystemFailed).with_source(format!("provider {}: {why}", self.settings.name))
    }

    /// Builds the authorization URL of a sign-in.
    pub fn authorize_url(
        &self,
        published: &ProviderMetadata,
        redirect_uri: &str,
        state: &str,
        (verifier, nonce): (&str, &str),
    ) -> String {
        // `openid` is always requested.
        let others = self.settings.scopes.iter().filter(|scope| *scope != "openid").map(String::as_str);
        let scope = std::iter::once("openid").chain(others).collect::<Vec<_>>().join(" ");
        let challenge = URL_SAFE_NO_PAD.encode(secret::hash(verifier));
        let mut url = published.document.authorization.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.settings.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &scope),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        url.into()
    }

    /// Redeems a code. Only the tokens in the answer are required; other fields may be missing or malformed.
    ///
    /// Fails with `OidcRefused` if the provider rejects the code.
    pub async fn redeem(
        &self,
        app: &App,
        published: &ProviderMetadata,
        redirect_uri: &str,
        (code, verifier): (&str, &str),
    ) -> Result<TokenResponse> {
        let request = self.token_request(app, published, redirect_uri, (code, verifier))?;
        let answer = app.outbound.send(&self.connection, request, Refusal::OfSettings).await?;
        let body = answer.json().unwrap_or_default();
        let tokens = (body["id_token"].as_str(), body["access_token"].as_str());
        let (id_token, access_token) = match (answer.status, tokens) {
            (200, (Some(id_token), Some(access_token))) if token::unverified_claims(id_token).is_some() => {
                (id_token.to_owned(), access_token.to_owned())
            }
            (500.., _) => return Err(self.failed(format!("its token endpoint: status {}", answer.status))),
            (status, _) => {
                return Err(match body["error"].as_str() {
                    Some(error @ ("invalid_grant" | "invalid_request")) => {
                        refused(format!("provider {}: {error}", self.settings.name))
                    }
                    // The client settings here or at the provider are wrong.
                    Some(error) => {
                        if let Some(failure) = ConnectionFailure::of_response(&answer) {
                            let failure = failure.with_cause(FailureCause::Unauthorized);
                            app.outbound.records.record_failure(&self.connection, failure);
                        }
                        let error: String = error.chars().filter(|c| !c.is_control()).take(60).collect();
                        self.failed(format!(
                            "its token endpoint answers {error}: check client_id and client_secret_file"
                        ))
                    }
                    None => self.failed(format!("its token answer (status {status}) has no id_token and access_token")),
                });
            }
        };
        // A provider that grants exactly the requested scope may omit it (RFC 6749, 5.1). Some providers send a list.
        let granted = match &body["scope"] {
            Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            _ => String::new(),
        };
        let scope = if granted.is_empty() { self.settings.scopes.join(" ") } else { granted };
        Ok(TokenResponse { id_token, access_token, scope })
    }

    fn token_request(
        &self,
        app: &App,
        published: &ProviderMetadata,
        redirect_uri: &str,
        (code, verifier): (&str, &str),
    ) -> Result<Request> {
        let Settings { client_id, client_secret, .. } = &self.settings;
        let document = &published.document;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let request = app.outbound.client()?.post(document.token.clone()).header(ACCEPT, "application/json");
        let request = match client_secret {
            Some(secret) if !document.is_secret_in_form => {
                // Form-encoded, as RFC 6749, 2.3.1 requires.
                request.basic_auth(form_encoded(client_id), Some(form_encoded(secret)))
            }
            secret => {
                form.push(("client_id", client_id));
                form.extend(secret.as_ref().map(|secret| ("client_secret", secret.as_str())));
                request
            }
        };
        request.form(&form).build().map_err(|e| self.failed(e.to_string()))
    }

    /// Verifies an id token and returns its subject and claims. If its key is unknown, the keys are fetched again.
    pub async fn verified(
        &self,
        app: &App,
        published: &Arc<ProviderMetadata>,
        id_token: &str,
        nonce: &str,
    ) -> Result<(String, Value)> {
        let claims =
            self.verify_with_refresh(app, published, id_token, (&self.settings.client_id, TokenPurpose::Id)).await?.1;
        let claims = claims.map_err(|why| refused(format!("provider {}: its id token: {why}", self.settings.name)))?;
        let subject = self.require_ours(&claims, nonce).map_err(|why| refused(format!("its id token {why}")))?;
        Ok((subject, claims))
    }

    /// Verifies a token; if its key is unknown, fetches the keys again. Returns the claims with the keys that were
    /// used. The outer error means that the provider could not be reached; the inner one that the token is not valid.
    pub async fn verify_with_refresh(
        &self,
        app: &App,
        published: &Arc<ProviderMetadata>,
        token: &str,
        (audience, purpose): (&str, TokenPurpose),
    ) -> Result<(Arc<ProviderMetadata>, Result<Value, TokenError>)> {
        let verify =
            |published: &ProviderMetadata| published.keys.verify(token, &self.settings.issuer, audience, purpose);
        let outcome = verify(published);
        if outcome != Err(TokenError::UnknownKey) {
            return Ok((published.clone(), outcome));
        }
        let fresh = self.published(app, Some(published)).await?;
        let outcome = verify(&fresh);
        Ok((fresh, outcome))
    }

    /// Checks what the signature does not prove: the nonce, the authorized party and the format of the subject.
    fn require_ours(&self, claims: &Value, nonce: &str) -> Result<String, &'static str> {
        let is_equal = |value: &str| secret::equal(&secret::hash(value), &secret::hash(nonce));
        if !claims["nonce"].as_str().is_some_and(is_equal) {
            return Err("belongs to another sign-in");
        }
        // Zitadel lists every client of the project in `aud`.
        let is_ours = claims.get("azp").map(|party| party.as_str() == Some(&self.settings.client_id));
        let is_for_several = claims["aud"].as_array().is_some_and(|list| list.len() > 1);
        if !is_ours.unwrap_or(!is_for_several) {
            return Err("was issued to another client");
        }
        if is_client_token(claims) {
            return Err("belongs to a program");
        }
        subject(claims).ok_or("has no valid subject")
    }

    /// Fetches the userinfo claims of a subject; `Ok(None)` if the provider has no userinfo endpoint.
    pub async fn userinfo(
        &self,
        app: &App,
        published: &ProviderMetadata,
        access_token: &str,
        expected: &str,
    ) -> Result<Option<Value>> {
        let Some(url) = &published.document.userinfo else { return Ok(None) };
        let request = app.outbound.client()?.get(url.clone()).bearer_auth(access_token);
        let request = request.header(ACCEPT, "application/json").build();
        let request = request.map_err(|e| self.failed(e.to_string()))?;
        let answer = app.outbound.send(&self.connection, request, Refusal::OfRequest).await?;
        if answer.status != 200 {
            return Err(self.failed(format!("its userinfo answers {}", answer.status)));
        }
        let claims = answer.json().map_err(|_| self.failed("its userinfo is not JSON"))?;
        if subject(&claims).as_deref() == Some(expected) {
            return Ok(Some(claims));
        }
        Err(self.failed("its userinfo has another subject"))
    }
}

fn refused(why: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::OidcRefused).with_source(why)
}

#[cfg(test)]
mod tests {
    use super::form_encoded;

    #[test]
    fn secrets_are_form_encoded() {
        for (text, written) in [("a-b_1", "a-b_1"), ("a:b%&=+ ä", "a%3Ab%25%26%3D%2B+%C3%A4"), ("", "")] {
            assert_eq!(form_encoded(text), written);
        }
    }
}
