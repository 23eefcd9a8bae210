//! Providers: what they publish, kept for a while, and what they are asked for one person.
//!
//! **Invariant.** Of one provider, one request for its document or keys is under way at a time, and a key that it does
//! not publish makes us ask again only after `auth.oidc_keys_retry_s`, no matter who sends tokens.

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::ACCEPT;
use reqwest::{Request, Url};
use serde_json::Value;

use super::claims::{is_of_program, subject};
use crate::kernel::app::{App, ms};
use crate::kernel::authn::token::{self, Distrust, ForeignKeys, Use};
use crate::kernel::config::providers::{self, Provider as Settings};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret;

/// What a provider published.
pub struct Published {
    document: Document,
    pub keys: ForeignKeys,
    fetched_at: Timestamp,
}

/// What we need of its discovery document; the rest may be as it likes.
#[derive(Clone)]
struct Document {
    authorization: Url,
    token: Url,
    keys: Url,
    userinfo: Option<Url>,
    /// Does the client's secret go into the form, for want of `client_secret_basic`?
    is_secret_in_form: bool,
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
    pub id_token: String,
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
        let document = match former {
            Some(former) => former.document.clone(),
            None => {
                let url = format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
                let url = Url::parse(&url).map_err(|e| self.failed(format!("its issuer is not an address: {e}")))?;
                self.document(&self.get(app, url, "document").await?)?
            }
        };
        let keys = self.get(app, document.keys.clone(), "key set").await?;
        if !keys["keys"].is_array() {
            return Err(self.failed("its key set has no keys"));
        }
        Ok(Published { keys: ForeignKeys::new(&keys), document, fetched_at: Timestamp::now() })
    }

    async fn get(&self, app: &App, url: Url, what: &str) -> Result<Value> {
        let request = app.outbound.client()?.get(url).header(ACCEPT, "application/json").build();
        let answer = app.outbound.send(request.map_err(|e| self.failed(e.to_string()))?).await?;
        if answer.status != 200 {
            return Err(self.failed(format!("its {what}: status {}", answer.status)));
        }
        answer.json().map_err(|_| self.failed(format!("its {what} is not JSON")))
    }

    /// Reads what we need of a discovery document. Codes, secrets and tokens go to its addresses, and keys decide: none of
    /// them in clear text.
    fn document(&self, said: &Value) -> Result<Document> {
        if said["issuer"].as_str() != Some(&self.settings.issuer) {
            return Err(self.failed("its document is of another issuer than the settings name, compared as text"));
        }
        let mut faults = Vec::new();
        let mut address = |name: &str, is_needed: bool| {
            let Some(text) = said[name].as_str() else {
                if is_needed {
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
        let methods = said["token_endpoint_auth_methods_supported"].as_array().map(Vec::as_slice).unwrap_or_default();
        let takes = |method: &str| methods.iter().any(|known| known == method);
        let is_secret_in_form = takes("client_secret_post") && !takes("client_secret_basic");
        Ok(Document { authorization, token, keys, userinfo, is_secret_in_form })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorCode::NeighbourFailed).with_source(format!("provider {}: {why}", self.settings.name))
    }

    /// Where to send somebody who wants to sign in.
    pub fn authorize_url(
        &self,
        published: &Published,
        redirect_uri: &str,
        state: &str,
        (verifier, nonce): (&str, &str),
    ) -> String {
        // `openid` is asked for in any case.
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

    /// Redeems a code. Of the answer only the tokens are needed; what else it says may be missing or odd.
    pub async fn redeem(
        &self,
        app: &App,
        published: &Published,
        redirect_uri: &str,
        (code, verifier): (&str, &str),
    ) -> Result<Redeemed> {
        let answer = app.outbound.send(self.token_request(app, published, redirect_uri, (code, verifier))?).await?;
        let said = answer.json().unwrap_or_default();
        let tokens = (said["id_token"].as_str(), said["access_token"].as_str());
        let (id_token, access_token) = match (answer.status, tokens) {
            (200, (Some(id_token), Some(access_token))) if token::unverified(id_token).is_some() => {
                (id_token.to_owned(), access_token.to_owned())
            }
            (500.., _) => return Err(self.failed(format!("its token endpoint: status {}", answer.status))),
            (status, _) => {
                return Err(match said["error"].as_str() {
                    Some(word @ ("invalid_grant" | "invalid_request")) => {
                        refused(format!("provider {}: {word}", self.settings.name))
                    }
                    // The client settings here or at the provider are wrong.
                    Some(word) => {
                        let word: String = word.chars().filter(|c| !c.is_control()).take(60).collect();
                        self.failed(format!("its token endpoint says {word}: see client_id and client_secret_file"))
                    }
                    None => self.failed(format!("its token answer (status {status}) has no id_token and access_token")),
                });
            }
        };
        // A provider that granted what was asked for may leave it out (RFC 6749, 5.1). Some make a list of it.
        let granted = match &said["scope"] {
            Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            _ => String::new(),
        };
        let scope = if granted.is_empty() { self.settings.scopes.join(" ") } else { granted };
        Ok(Redeemed { id_token, access_token, scope })
    }

    fn token_request(
        &self,
        app: &App,
        published: &Published,
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

    /// What a verified id token says. A key that is not there yet may just have been made: the keys are asked for anew.
    pub async fn verified(
        &self,
        app: &App,
        published: &Arc<Published>,
        id_token: &str,
        nonce: &str,
    ) -> Result<(String, Value)> {
        let claims = self.believed(app, published, id_token, (&self.settings.client_id, Use::Id)).await?.1;
        let claims = claims.map_err(|why| refused(format!("provider {}: its id token: {why}", self.settings.name)))?;
        let subject = self.require_ours(&claims, nonce).map_err(|why| refused(format!("its id token {why}")))?;
        Ok((subject, claims))
    }

    /// What a token says by the keys of now, and by which. The error is the provider's: it could not be asked.
    pub async fn believed(
        &self,
        app: &App,
        published: &Arc<Published>,
        token: &str,
        (audience, purpose): (&str, Use),
    ) -> Result<(Arc<Published>, Result<Value, Distrust>)> {
        let verify = |published: &Published| published.keys.verify(token, &self.settings.issuer, audience, purpose);
        let outcome = verify(published);
        if outcome != Err(Distrust::UnknownKey) {
            return Ok((published.clone(), outcome));
        }
        let fresh = self.published(app, Some(published)).await?;
        let outcome = verify(&fresh);
        Ok((fresh, outcome))
    }

    /// What the signature leaves open: the beginning of this sign-in, the authorized party, and the form of the subject.
    fn require_ours(&self, claims: &Value, nonce: &str) -> Result<String, &'static str> {
        let is_this = |said: &str| secret::equal(&secret::hash(said), &secret::hash(nonce));
        if !claims["nonce"].as_str().is_some_and(is_this) {
            return Err("is of another sign-in");
        }
        // Zitadel lists every client of the project.
        let is_ours = claims.get("azp").map(|party| party.as_str() == Some(&self.settings.client_id));
        let is_for_several = claims["aud"].as_array().is_some_and(|list| list.len() > 1);
        if !is_ours.unwrap_or(!is_for_several) {
            return Err("was made for another client");
        }
        if is_of_program(claims) {
            return Err("is of a program");
        }
        subject(claims).ok_or("has no good subject")
    }

    /// What the provider's userinfo says of a subject: `Ok(None)` where there is none to ask.
    pub async fn userinfo(
        &self,
        app: &App,
        published: &Published,
        access_token: &str,
        expected: &str,
    ) -> Result<Option<Value>> {
        let Some(url) = &published.document.userinfo else { return Ok(None) };
        let request = app.outbound.client()?.get(url.clone()).bearer_auth(access_token);
        let request = request.header(ACCEPT, "application/json").build();
        let answer = app.outbound.send(request.map_err(|e| self.failed(e.to_string()))?).await?;
        if answer.status != 200 {
            return Err(self.failed(format!("its userinfo answers {}", answer.status)));
        }
        let claims = answer.json().map_err(|_| self.failed("its userinfo is not JSON"))?;
        if subject(&claims).as_deref() == Some(expected) {
            return Ok(Some(claims));
        }
        Err(self.failed("its userinfo is about somebody else"))
    }
}

/// As RFC 6749, 2.3.1 wants names and secrets in `Authorization`.
fn form_encoded(text: &str) -> String {
    let Ok(mut url) = Url::parse("http://localhost") else { return text.to_owned() };
    url.query_pairs_mut().append_key_only(text);
    url.query().unwrap_or_default().to_owned()
}

fn refused(why: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::OidcRefused).with_source(why)
}

#[cfg(test)]
mod tests {
    use super::form_encoded;

    #[test]
    fn a_secret_is_written_as_in_a_form() {
        for (text, written) in [("a-b_1", "a-b_1"), ("a:b%&=+ ä", "a%3Ab%25%26%3D%2B+%C3%A4"), ("", "")] {
            assert_eq!(form_encoded(text), written);
        }
    }
}
