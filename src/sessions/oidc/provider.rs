//! Providers: what they publish, kept for a while, and what they are asked for one person.
//!
//! **Invariant.** Of one provider, one request for its document or keys is under way at a time, and a key that it does
//! not publish makes us ask again only after `auth.oidc_keys_retry_s`, whoever sends tokens.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreErrorResponseType, CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet,
    CoreJwsSigningAlgorithm, CoreProviderMetadata,
};
use openidconnect::{
    AsyncHttpClient, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, DiscoveryError,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope, SignatureVerificationError,
    TokenResponse, http,
};
use serde_json::Value;

use crate::access::token::{self, ForeignKeys};
use crate::app::{App, ms};
use crate::config::providers::{self, Provider as Settings};
use crate::error::{Cause, Error, Result};
use crate::ids::Timestamp;
use crate::outbound::Outbound;

/// Id tokens by these only: never unsigned, never by a secret that others know too.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// How far a provider's clock may be ahead of ours.
pub const LEEWAY_S: i64 = 30;

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// What a provider published.
pub struct Published {
    metadata: CoreProviderMetadata,
    /// The same keys, for access tokens.
    pub keys: ForeignKeys,
    fetched_at: Timestamp,
}

/// What is known of asking.
#[derive(Default)]
struct Asked {
    /// When a key was last looked for that was not there.
    missed_at: Option<Timestamp>,
    /// The last failure, for those who waited for it.
    failed: Option<(Timestamp, Error)>,
}

/// A provider of the settings.
pub struct Provider {
    pub settings: Settings,
    published: ArcSwapOption<Published>,
    asked: tokio::sync::Mutex<Asked>,
}

/// What came of a code.
pub struct Redeemed {
    pub id_token: CoreIdToken,
    pub access_token: String,
    /// What the provider granted, separated by spaces.
    pub scope: String,
}

impl Provider {
    pub fn new(settings: Settings) -> Self {
        Self { settings, published: ArcSwapOption::empty(), asked: tokio::sync::Mutex::default() }
    }

    /// What the provider publishes. `stale` is what lacked a key: something newer is asked for, if it is time.
    pub async fn published(&self, app: &App, stale: Option<&Arc<Published>>) -> Result<Arc<Published>> {
        let ttl_ms = ms(app.config.oidc_keys_ttl_s);
        let fresh = || self.published.load_full().filter(|p| Timestamp::now() < p.fetched_at.plus_ms(ttl_ms));
        if let (None, Some(published)) = (stale, fresh()) {
            return Ok(published);
        }
        let came = Timestamp::now();
        let mut asked = self.asked.lock().await;
        // Others may have asked meanwhile.
        let former = fresh();
        if let Some(published) = &former {
            let now = Timestamp::now();
            let retry_ms = ms(app.config.oidc_keys_retry_s);
            let is_missing = stale.is_some_and(|stale| Arc::ptr_eq(stale, published));
            if !is_missing || asked.missed_at.is_some_and(|at| now < at.plus_ms(retry_ms)) {
                return Ok(published.clone());
            }
            asked.missed_at = Some(now);
        }
        if let Some((_, failed)) = asked.failed.as_ref().filter(|(at, _)| *at > came) {
            return Err(failed.clone());
        }
        match self.fetch(app, former.as_deref()).await {
            Ok(published) => {
                let published = Arc::new(published);
                self.published.store(Some(published.clone()));
                Ok(published)
            }
            Err(failed) => {
                asked.failed = Some((Timestamp::now(), failed.clone()));
                Err(failed)
            }
        }
    }

    /// Asks the provider: for all, or for the keys alone where the rest is known.
    async fn fetch(&self, app: &App, former: Option<&Published>) -> Result<Published> {
        let http = Http(&app.outbound);
        let metadata = match former {
            None => {
                let issuer = IssuerUrl::new(self.settings.issuer.clone())
                    .map_err(|e| self.failed(format!("its issuer is not an address: {e}")))?;
                let found = CoreProviderMetadata::discover_async(issuer, &http).await;
                found.map_err(|e| self.unreadable("document", e))?
            }
            Some(former) => {
                let keys = CoreJsonWebKeySet::fetch_async(former.metadata.jwks_uri(), &http).await;
                former.metadata.clone().set_jwks(keys.map_err(|e| self.unreadable("key set", e))?)
            }
        };
        self.require_safe(&metadata)?;
        let keys = serde_json::to_value(metadata.jwks()).unwrap_or_default();
        Ok(Published { keys: ForeignKeys::new(&keys), metadata, fetched_at: Timestamp::now() })
    }

    /// Codes, secrets and tokens go to the addresses of the document, and keys decide: none of them in clear text.
    fn require_safe(&self, metadata: &CoreProviderMetadata) -> Result<()> {
        let mut faults = Vec::new();
        providers::check_address("authorization_endpoint", metadata.authorization_endpoint(), &mut faults);
        providers::check_address("jwks_uri", metadata.jwks_uri(), &mut faults);
        match metadata.token_endpoint() {
            Some(url) => providers::check_address("token_endpoint", url, &mut faults),
            None => faults.push("token_endpoint is missing".into()),
        }
        if let Some(url) = metadata.userinfo_endpoint() {
            providers::check_address("userinfo_endpoint", url, &mut faults);
        }
        if faults.is_empty() { Ok(()) } else { Err(self.failed(faults.join("; "))) }
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Cause::NeighbourFailed).because(format!("provider {}: {why}", self.settings.name))
    }

    /// Says what is wrong with a document, but nothing of what it holds.
    fn unreadable(&self, what: &str, error: DiscoveryError<Error>) -> Error {
        match error {
            DiscoveryError::Request(failed) => failed,
            DiscoveryError::Parse(e) => {
                self.failed(format!("its {what} is not as it should be at {:?}", e.path().to_string()))
            }
            DiscoveryError::Response(_, _, why) | DiscoveryError::Validation(why) => {
                self.failed(format!("its {what}: {why}"))
            }
            other => self.failed(format!("its {what}: {other}")),
        }
    }

    fn client(&self, published: &Published) -> Client {
        let id = ClientId::new(self.settings.client_id.clone());
        let secret = self.settings.client_secret.clone().map(ClientSecret::new);
        CoreClient::from_provider_metadata(published.metadata.clone(), id, secret)
    }

    fn redirect(&self, redirect_uri: &str) -> Result<RedirectUrl> {
        RedirectUrl::new(redirect_uri.to_owned()).map_err(|e| Error::internal(format!("a redirect address: {e}")))
    }

    /// Where to send somebody who wants to sign in.
    pub fn authorize_url(
        &self,
        published: &Published,
        redirect_uri: &str,
        state: &str,
        (verifier, nonce): (String, String),
    ) -> Result<String> {
        let client = self.client(published);
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier));
        let (state, nonce) = (CsrfToken::new(state.to_owned()), Nonce::new(nonce));
        // `openid` is asked for in any case.
        let scopes = self.settings.scopes.iter().filter(|scope| *scope != "openid").cloned().map(Scope::new);
        let (url, _, _) = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || state, || nonce)
            .add_scopes(scopes)
            .set_pkce_challenge(challenge)
            .set_redirect_uri(Cow::Owned(self.redirect(redirect_uri)?))
            .url();
        Ok(url.into())
    }

    /// Redeems a code.
    pub async fn redeem(
        &self,
        app: &App,
        published: &Published,
        redirect_uri: &str,
        (code, verifier): (String, String),
    ) -> Result<Redeemed> {
        let client = self.client(published);
        let http = Http(&app.outbound);
        let answer = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|e| self.failed(e))?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .set_redirect_uri(Cow::Owned(self.redirect(redirect_uri)?))
            .request_async(&http)
            .await
            .map_err(|error| match error {
                RequestTokenError::Request(failed) => failed,
                RequestTokenError::ServerResponse(answer) => match answer.error() {
                    CoreErrorResponseType::InvalidGrant | CoreErrorResponseType::InvalidRequest => {
                        refused(format!("provider {}: {}", self.settings.name, answer.error()))
                    }
                    // Our client's settings are at fault, or the provider's.
                    word => {
                        self.failed(format!("its token endpoint says {word}: see client_id and client_secret_file"))
                    }
                },
                RequestTokenError::Parse(e, _) => {
                    self.failed(format!("its token answer is not as it should be at {:?}", e.path().to_string()))
                }
                RequestTokenError::Other(why) => self.failed(format!("its token endpoint: {why}")),
            })?;
        let id_token = answer.id_token().ok_or_else(|| self.failed("its token answer has no id_token"))?.clone();
        // A provider that granted what was asked for may leave it out (RFC 6749, 5.1).
        let granted = answer.scopes().map(|granted| granted.iter().map(|scope| scope.as_str()).collect::<Vec<_>>());
        let granted = granted.filter(|granted| granted.iter().any(|scope| !scope.is_empty()));
        let scope = granted.map_or_else(|| self.settings.scopes.join(" "), |granted| granted.join(" "));
        Ok(Redeemed { id_token, access_token: answer.access_token().secret().clone(), scope })
    }

    /// What a verified id token says. A key that is not there yet may just have been made: the keys are asked for anew.
    pub async fn verified(
        &self,
        app: &App,
        published: &Arc<Published>,
        id_token: &CoreIdToken,
        nonce: String,
    ) -> Result<(String, Value)> {
        let nonce = Nonce::new(nonce);
        let mut outcome = self.verify(published, id_token, &nonce);
        if let Err(ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::NoMatchingKey | SignatureVerificationError::CryptoError(_),
        )) = outcome
        {
            let fresh = self.published(app, Some(published)).await?;
            outcome = self.verify(&fresh, id_token, &nonce);
        }
        outcome.map_err(|why| refused(format!("provider {}: its id token: {why}", self.settings.name)))?;
        let claims = token::unverified(&id_token.to_string()).ok_or_else(|| refused("an id token beyond measure"))?;
        let subject = self.require_ours(&claims).map_err(|why| refused(format!("its id token {why}")))?;
        Ok((subject, claims))
    }

    fn verify(
        &self,
        published: &Published,
        id_token: &CoreIdToken,
        nonce: &Nonce,
    ) -> Result<(), ClaimsVerificationError> {
        let metadata = &published.metadata;
        let announced = metadata.id_token_signing_alg_values_supported();
        let verifier = CoreIdTokenVerifier::new_public_client(
            ClientId::new(self.settings.client_id.clone()),
            metadata.issuer().clone(),
            metadata.jwks().clone(),
        )
        .set_allowed_algs(ALGORITHMS.into_iter().filter(|algorithm| announced.contains(algorithm)))
        // Zitadel lists every client of the project; `require_ours` asks for whom of them it was made.
        .set_other_audience_verifier_fn(|_| true);
        id_token.claims(&verifier, nonce).map(drop)
    }

    /// What the crate leaves to us: the authorized party, the beginning, and the form of the subject.
    fn require_ours(&self, claims: &Value) -> Result<String, &'static str> {
        let is_ours = claims.get("azp").map(|party| party.as_str() == Some(&self.settings.client_id));
        let is_for_several = claims["aud"].as_array().is_some_and(|list| list.len() > 1);
        if !is_ours.unwrap_or(!is_for_several) {
            return Err("was made for another client");
        }
        if claims.get("nbf").is_some_and(|from| from.as_i64().is_none_or(|s| s > Timestamp::now().0 / 1_000 + LEEWAY_S))
        {
            return Err("is not valid yet");
        }
        subject(claims).ok_or("has no good subject")
    }

    /// What the provider's userinfo says of a subject: `Ok(None)` where there is none to ask.
    pub async fn userinfo(
        &self,
        app: &App,
        published: &Published,
        access_token: &str,
        subject: &str,
    ) -> Result<Option<Value>> {
        let Some(url) = published.metadata.userinfo_endpoint() else { return Ok(None) };
        let request = app.outbound.client()?.get(url.url().clone()).bearer_auth(access_token);
        let request = request.header(http::header::ACCEPT, "application/json").build();
        let answer = app.outbound.send(request.map_err(|e| self.failed(e.to_string()))?).await?;
        if answer.status != 200 {
            return Err(self.failed(format!("its userinfo answers {}", answer.status)));
        }
        let claims: Value =
            serde_json::from_slice(&answer.body).map_err(|_| self.failed("its userinfo is not JSON"))?;
        if claims["sub"].as_str() == Some(subject) {
            return Ok(Some(claims));
        }
        Err(self.failed("its userinfo is about somebody else"))
    }
}

/// A subject that can be stored and shown.
pub fn subject(claims: &Value) -> Option<String> {
    const SUBJECT_BYTES_MAX: usize = 255;
    let subject = claims["sub"].as_str()?;
    let is_good = (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && !subject.chars().any(char::is_control);
    is_good.then(|| subject.to_owned())
}

fn refused(why: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Cause::OidcRefused).because(why)
}

/// The crate's requests, by our client and within its limits.
struct Http<'o>(&'o Outbound);

impl<'c> AsyncHttpClient<'c> for Http<'_> {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(send(self.0, request))
    }
}

/// Whoever answers 5xx failed, whatever else it says.
async fn send(outbound: &Outbound, request: HttpRequest) -> Result<HttpResponse> {
    let host = request.uri().to_string();
    let failed = |why: String| Error::new(Cause::NeighbourFailed).because(format!("{host}: {why}"));
    let request = reqwest::Request::try_from(request).map_err(|e| failed(e.to_string()))?;
    let answer = outbound.send(request).await?;
    if answer.status >= 500 {
        return Err(failed(format!("status {}", answer.status)));
    }
    let mut response = http::Response::new(answer.body);
    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    *response.headers_mut() = answer.headers;
    Ok(response)
}
