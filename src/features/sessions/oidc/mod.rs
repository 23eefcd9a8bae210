//! Sign-in with OpenID Connect providers, and bearer authentication with the providers' own access tokens.
//!
//! **Invariant.** Only (provider, subject) identifies a member. A state and a code are used once, the state before the
//! code is redeemed, and nothing is created unless the id token is valid. The client that completes a sign-in must
//! prove that it started it.
//!
//! The last sign-in sets the roles of the sources `oidc` and `zitadel`: a member who uses two providers has the roles
//! that the provider of the last sign-in claims.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::ProviderClaims;
use provider::{Provider, ProviderMetadata, TokenResponse};
use serde_json::Value;

use crate::features::members;
use crate::features::sessions::jit_provisioning::provision;
use crate::features::sessions::{Tokens, VerifiedFactors, consume_once, open_session, second_factor};
use crate::kernel::app::{App, seconds_to_ms};
use crate::kernel::authn::caller::Visitor;
use crate::kernel::authn::cookie;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authn::token::{self, TokenPurpose};
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::outbound::connection::{Connection, ConnectionFailure};
use crate::kernel::secret::{self, KeyedDigest};

mod claims;
mod provider;

/// The configured providers, with their cached metadata.
pub struct Providers(Vec<Provider>);

/// The parameters of a provider's redirect, as the client sends them.
pub struct AuthorizationResponse {
    pub provider: Option<String>,
    pub redirect_uri: String,
    pub state: String,
    pub code: String,
    /// The binding value that the client sent at the start of the sign-in, if any.
    pub binding: Option<String>,
}

impl Providers {
    pub fn new(app: &App) -> Self {
        Self(app.config.providers.iter().cloned().map(Provider::new).collect())
    }

    /// The connections to all providers, as the settings describe them.
    pub fn connections(&self) -> Vec<Connection> {
        self.0.iter().map(Provider::connection).collect()
    }

    /// Tests the connection of this name.
    pub async fn test(&self, app: &App, connection: &str) -> Result<(), ConnectionFailure> {
        match self.0.iter().find(|provider| provider.connection().name == connection) {
            Some(provider) => provider.test(app).await,
            None => Err(Error::from(ErrorCode::UnknownProvider).into()),
        }
    }

    /// Returns the provider with this name, or the only one if no name is given. `location` is the part of the request
    /// that field errors name.
    fn named(&self, name: Option<&str>, location: &str) -> Result<&Provider> {
        match (name, self.0.as_slice()) {
            (_, []) => {
                Err(Error::new(ErrorCode::NotConfigured).with_message("set [[oidc]] to sign in with a provider"))
            }
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::fields(vec![Field::at(
                &[location, "provider"],
                "is required: several providers are configured",
            )])),
            (Some(name), all) => {
                all.iter().find(|known| known.settings.name == name).ok_or_else(|| ErrorCode::UnknownProvider.into())
            }
        }
    }
}

impl Provider {
    /// Fails unless the address is configured, or is that of the console. Compares as text, because parsers disagree about
    /// which URLs are equal.
    fn require_redirect(&self, app: &App, redirect_uri: &str, location: &str) -> Result<()> {
        let is_configured = self.settings.redirect_uris.iter().any(|known| known == redirect_uri);
        if is_configured || redirect_uri == console_callback(&app.public_url(), &self.settings.name) {
            return Ok(());
        }
        let message = "must be exactly one of the provider's redirect_uris";
        Err(Error::fields(vec![Field::at(&[location, "redirect_uri"], message)]))
    }
}

/// The redirect URI of sign-ins on the console. It is allowed without being configured.
pub fn console_callback(public_url: &str, provider: &str) -> String {
    format!("{public_url}/console/sign-in/oidc/{provider}/callback")
}

/// Starts a sign-in and returns the provider's authorization URL. The state is bound to the client that starts: by a
/// value from the client, or by a cookie if the browser keeps Roster's cookies. Pages of other sites and programs have
/// no such cookie.
pub async fn authorize_url(
    app: &App,
    providers: &Providers,
    visitor: &Visitor,
    provider: Option<&str>,
    (redirect_uri, value): (&str, Option<&str>),
) -> Result<String> {
    let provider = providers.named(provider, "query")?;
    provider.require_redirect(app, redirect_uri, "query")?;
    if value.is_none() && !visitor.keeps_cookies {
        let message =
            "is required when no cookie binds the sign-in: keep a random value and send it again with the code";
        return Err(Error::fields(vec![Field::at(&["query", "binding"], message)]));
    }
    let published = provider.published(app, None).await?;
    let browser = if value.is_none() { remember_browser(app, visitor)? } else { String::new() };
    let binding = value.map_or(Binding::Cookie(&browser), Binding::Value);
    let purpose = Purpose { provider: &provider.settings.name, redirect_uri, binding };
    let state =
        issue_state(&app.sealer, purpose, Timestamp::now().plus_ms(seconds_to_ms(app.config.oidc_state_ttl_s)))?;
    let (verifier, nonce) = (pkce_verifier(app, &state), nonce(app, &state));
    Ok(provider.authorize_url(&published, redirect_uri, &state, (&verifier, &nonce)))
}

/// Sets the cookie that states are bound to and returns its value. An existing value is kept, so that two sign-ins can
/// run in two tabs.
fn remember_browser(app: &App, visitor: &Visitor) -> Result<String> {
    const BROWSER_BYTES: usize = 43;
    let is_valid = |text: &&String| {
        text.len() == BROWSER_BYTES && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let browser = match visitor.oidc_cookie.as_ref().filter(is_valid) {
        Some(known) => known.clone(),
        None => secret::token("")?,
    };
    let max_age_s = seconds_to_ms(app.config.oidc_state_ttl_s) / 1_000;
    visitor.context.set_cookie(app.guard.cookies.set(cookie::OIDC, &browser, max_age_s));
    Ok(browser)
}

fn pkce_verifier(app: &App, state: &str) -> String {
    derive(&app.sealer, "oidc pkce", state)
}

fn nonce(app: &App, state: &str) -> String {
    derive(&app.sealer, "oidc nonce", state)
}

/// Completes a sign-in with a provider's code. Returns the session's tokens and the provider's token response.
pub async fn exchange(
    app: &Arc<App>,
    providers: &Providers,
    visitor: &Visitor,
    returned: AuthorizationResponse,
) -> Result<(Tokens, TokenResponse)> {
    let AuthorizationResponse { provider, redirect_uri, state, code, binding } = returned;
    let provider = providers.named(provider.as_deref(), "body")?;
    provider.require_redirect(app, &redirect_uri, "body")?;
    let presented = PresentedState {
        provider: &provider.settings.name,
        redirect_uri: &redirect_uri,
        cookie: visitor.oidc_cookie.as_deref(),
        value: binding.as_deref(),
    };
    let ends_at = verify_state(&app.sealer, presented, &state, Timestamp::now())?;
    // Throttled, because anyone can get a state and every wrong code causes a request to the provider.
    let address = visitor.context.address.map_or_else(String::new, |address| address.to_string());
    let attempt = Attempt::new(&format!("oidc {address}"), visitor.context.address);
    app.guard.login_throttle.check(attempt, false, Timestamp::now())?;
    // Before the state is consumed: when the provider is down, the client can retry with the same state.
    let published = provider.published(app, None).await?;
    let used = secret::hash(&state);
    if !app.write_unaudited(move |w| consume_once(w, &used, ends_at)).await? {
        return Err(ErrorCode::InvalidState.into());
    }

    let verifier = pkce_verifier(app, &state);
    let redeemed = provider.redeem(app, &published, &redirect_uri, (&code, &verifier)).await;
    let redeemed = redeemed.inspect_err(|e| {
        if e.code == ErrorCode::OidcRefused {
            app.guard.login_throttle.record_failure(attempt, Timestamp::now());
        }
    })?;
    let verified = provider.verified(app, &published, &redeemed.id_token, &nonce(app, &state)).await?;
    let claims = collect_claims(app, provider, &published, verified, &redeemed.access_token).await;
    let mut external_user = claims.external_user(&provider.settings);
    external_user.keys = claims.role_keys(&provider.settings.role_claims).unwrap_or_default();
    let member = provision(app, &visitor.context, external_user).await?;
    let method = format!("oidc {}", provider.settings.name);
    let tokens = open_session(app, visitor, member, &method, VerifiedFactors::OneFactor).await?;
    Ok((tokens, redeemed))
}

/// Collects the claims of the id token, then of userinfo, then of the access token if it is a JWT. The access token's
/// signature is not checked, because it came directly from the provider.
async fn collect_claims(
    app: &App,
    provider: &Provider,
    published: &ProviderMetadata,
    (subject, claims): (String, Value),
    access_token: &str,
) -> ProviderClaims {
    let collected = ProviderClaims::new(subject, claims);
    let role_claims = &provider.settings.role_claims;
    if !collected.has_gaps(role_claims) {
        return collected;
    }
    let token_claims = token::unverified_claims(access_token).filter(|token| {
        token["iss"].as_str() == Some(&provider.settings.issuer)
            && claims::subject(token).as_ref() == Some(&collected.subject)
    });
    let collected = with_userinfo(app, provider, published, collected, access_token).await;
    match token_claims {
        Some(token_claims) => collected.and(Some(token_claims)),
        None => collected,
    }
}

/// Adds missing claims from userinfo. A failure does not fail the sign-in.
async fn with_userinfo(
    app: &App,
    provider: &Provider,
    published: &ProviderMetadata,
    claims: ProviderClaims,
    access_token: &str,
) -> ProviderClaims {
    match provider.userinfo(app, published, access_token, &claims.subject).await {
        Ok(Some(userinfo)) => claims.and(Some(userinfo)),
        Ok(None) => claims,
        Err(error) => {
            tracing::warn!(%error, "userinfo could not be read");
            claims.and(None)
        }
    }
}

/// Returns the member of a provider's own access token. Creates the member if the subject is new.
pub async fn member_of_bearer(
    app: &Arc<App>,
    providers: &Providers,
    context: &Arc<RequestContext>,
    token: &str,
) -> Result<MemberId> {
    let refused = |why: String| Error::new(ErrorCode::InvalidBearer).with_source(why);
    let unverified = token::unverified_claims(token).ok_or_else(|| refused("not a token".into()))?;
    let issuer = unverified["iss"].as_str().unwrap_or_default();
    let of_issuer = |provider: &&Provider| provider.settings.issuer == issuer;
    let found = providers.0.iter().find(of_issuer).and_then(|p| Some((p, p.settings.audience.as_deref()?)));
    let (provider, audience) =
        found.ok_or_else(|| refused("of no provider whose access tokens are accepted".into()))?;

    let published = provider.published(app, None).await?;
    let (published, outcome) =
        provider.verify_with_refresh(app, &published, token, (audience, TokenPurpose::Access)).await?;
    let claims = outcome.map_err(|distrust| refused(format!("provider {}: {distrust}", provider.settings.name)))?;
    let subject = user_subject(&claims).map_err(|why| refused(why.into()))?;

    let named = (provider.settings.name.clone(), subject.clone());
    let find = move |r: &crate::kernel::db::Reader<'_>| {
        let Some(member) = members::find_by_identity(r, &named.0, &named.1)? else { return Ok(None) };
        Ok(Some((member.id, member.is_active(), second_factor::is_confirmed(r, member.id)?)))
    };
    let (member, is_active, is_confirmed) = match app.read(find).await? {
        Some(known) => known,
        None => {
            let mut claims = ProviderClaims::new(subject, claims);
            if claims.has_gaps(&[]) {
                claims = with_userinfo(app, provider, &published, claims, token).await;
            }
            (provision(app, context, claims.external_user(&provider.settings)).await?, true, false)
        }
    };
    if !is_active {
        return Err(refused("the member is not active".into()));
    }
    if is_confirmed || app.snapshot().requires_second_factor(member) {
        // A provider's token must not bypass the second factor.
        return Err(Error::new(ErrorCode::SecondFactorRequired)
            .with_message("a second factor is required: sign in with /auth/oidc/exchange"));
    }
    Ok(member)
}

/// Returns the subject of a user's access token. Fails for tokens of programs, id tokens and other kinds of tokens.
fn user_subject(claims: &Value) -> Result<String, &'static str> {
    if !claims::is_access_token(claims) {
        return Err("not an access token");
    }
    if claims::is_client_token(claims) {
        return Err("a token of a program");
    }
    claims::subject(claims).ok_or("without a valid subject")
}

// ── state ──

// The `state` parameter of an OpenID Connect sign-in.
//
// **Invariant.** Starting a sign-in stores nothing: the state carries its expiry and a keyed digest over the provider,
// redirect URI and binding for which it is valid. Every state has a binding. A state is recorded only when it is used,
// so that it is not accepted twice.

/// What a state is bound to. A client that cannot present it again cannot use the state, so an attacker cannot make a
/// victim's browser complete the attacker's sign-in.
#[derive(Clone, Copy)]
pub enum Binding<'a> {
    /// The cookie of the browser that started the sign-in.
    Cookie(&'a str),
    /// A value that the client keeps.
    Value(&'a str),
}

/// What a state is valid for.
#[derive(Clone, Copy)]
pub struct Purpose<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    pub binding: Binding<'a>,
}

/// What a client presents together with a state.
#[derive(Clone, Copy)]
pub struct PresentedState<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    pub cookie: Option<&'a str>,
    pub value: Option<&'a str>,
}

/// 16 random bytes, the expiry in Unix milliseconds, and the kind of binding.
const HEAD_BYTES: usize = 16 + 8 + 1;
const BY_COOKIE: u8 = 1;
const BY_VALUE: u8 = 2;

/// Issues a new state.
pub fn issue_state(sealer: &KeyedDigest, purpose: Purpose<'_>, ends_at: Timestamp) -> Result<String> {
    let mut sealed = secret::random()?[..16].to_vec();
    sealed.extend(ends_at.0.to_be_bytes());
    sealed.push(match purpose.binding {
        Binding::Cookie(_) => BY_COOKIE,
        Binding::Value(_) => BY_VALUE,
    });
    let seal = seal(sealer, &sealed, purpose);
    sealed.extend(seal);
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

/// Verifies a state against what the client presents, and returns its expiry. Fails with `InvalidState`.
pub fn verify_state(
    sealer: &KeyedDigest,
    presented: PresentedState<'_>,
    offered: &str,
    now: Timestamp,
) -> Result<Timestamp> {
    let refused = |why: &'static str| Error::new(ErrorCode::InvalidState).with_source(why);
    let sealed = URL_SAFE_NO_PAD.decode(offered).map_err(|_| refused("not base64"))?;
    let (head, offered_seal) = sealed.split_at_checked(HEAD_BYTES).ok_or_else(|| refused("too short"))?;
    let offered_seal = offered_seal.try_into().map_err(|_| refused("wrong length"))?;
    let Some([end @ .., kind]) = head.get(16..) else { return Err(refused("too short")) };
    let ends_at = end.try_into().map(i64::from_be_bytes).unwrap_or_default();
    let binding = match *kind {
        BY_COOKIE => Binding::Cookie(presented.cookie.ok_or_else(|| refused("without its cookie"))?),
        BY_VALUE => Binding::Value(presented.value.ok_or_else(|| refused("without its binding"))?),
        _ => return Err(refused("unknown kind of binding")),
    };
    let purpose = Purpose { provider: presented.provider, redirect_uri: presented.redirect_uri, binding };
    if !secret::equal(&seal(sealer, head, purpose), &offered_seal) {
        return Err(refused("issued for another purpose"));
    }
    if Timestamp(ends_at) <= now { Err(refused("expired")) } else { Ok(Timestamp(ends_at)) }
}

fn seal(sealer: &KeyedDigest, head: &[u8], purpose: Purpose<'_>) -> secret::Hash {
    let (Binding::Cookie(binding) | Binding::Value(binding)) = purpose.binding;
    let parts = [head, purpose.provider.as_bytes(), purpose.redirect_uri.as_bytes(), binding.as_bytes()];
    sealer.digest("oidc state", &parts)
}

/// Derives a value from a state instead of storing it: the PKCE verifier or the nonce.
pub fn derive(sealer: &KeyedDigest, what: &str, state: &str) -> String {
    URL_SAFE_NO_PAD.encode(sealer.digest(what, &[state.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = "lab";
    const REDIRECT: &str = "https://portal.example.org/cb";
    const NOW: Timestamp = Timestamp(1_000_000);

    fn purpose(binding: Binding<'_>) -> Purpose<'_> {
        Purpose { provider: PROVIDER, redirect_uri: REDIRECT, binding }
    }

    fn presented<'a>(cookie: impl Into<Option<&'a str>>, value: impl Into<Option<&'a str>>) -> PresentedState<'a> {
        PresentedState { provider: PROVIDER, redirect_uri: REDIRECT, cookie: cookie.into(), value: value.into() }
    }

    #[test]
    fn a_state_is_valid_for_one_purpose_until_it_expires() {
        let sealer = KeyedDigest::new([7; 32]);
        let ends_at = NOW.plus_ms(60_000);
        let state = issue_state(&sealer, purpose(Binding::Cookie("b")), ends_at).expect("state");
        let good = presented("b", None);
        assert_eq!(verify_state(&sealer, good, &state, NOW).expect("good"), ends_at);
        assert!(verify_state(&sealer, good, &state, ends_at.plus_ms(-1)).is_ok());
        assert!(verify_state(&sealer, good, &state, ends_at).is_err());
        let others = [
            PresentedState { provider: "other", ..good },
            PresentedState { redirect_uri: "https://portal.example.org/cb/", ..good },
        ];
        assert!(others.into_iter().all(|other| verify_state(&sealer, other, &state, NOW).is_err()));
        assert!(verify_state(&KeyedDigest::new([8; 32]), good, &state, NOW).is_err());
    }

    #[test]
    fn a_state_is_valid_only_with_its_binding() {
        let sealer = KeyedDigest::new([7; 32]);
        let issued = |binding| issue_state(&sealer, purpose(binding), NOW.plus_ms(1)).expect("state");
        let (by_cookie, by_value) = (issued(Binding::Cookie("a")), issued(Binding::Value("a")));
        for (cookie, value, cookie_state_valid, value_state_valid) in [
            (Some("a"), None, true, false),
            (None, Some("a"), false, true),
            (Some("a"), Some("a"), true, true),
            (Some("a"), Some("b"), true, false),
            (Some("b"), Some("a"), false, true),
            (Some("b"), Some("b"), false, false),
            (None, None, false, false),
            (Some(""), Some(""), false, false),
        ] {
            let presented = presented(cookie, value);
            let good = |state: &str| verify_state(&sealer, presented, state, NOW).is_ok();
            assert_eq!(
                (good(&by_cookie), good(&by_value)),
                (cookie_state_valid, value_state_valid),
                "{cookie:?} {value:?}"
            );
        }
    }

    #[test]
    fn a_changed_state_is_invalid() {
        let sealer = KeyedDigest::new([7; 32]);
        let state = issue_state(&sealer, purpose(Binding::Cookie("b")), NOW.plus_ms(60_000)).expect("state");
        let bytes = URL_SAFE_NO_PAD.decode(&state).expect("base64");
        let both = presented("b", "b");
        for n in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[n] ^= 1 << bit;
                assert!(verify_state(&sealer, both, &URL_SAFE_NO_PAD.encode(changed), NOW).is_err(), "{n}");
            }
            assert!(verify_state(&sealer, both, &URL_SAFE_NO_PAD.encode(&bytes[..n]), NOW).is_err(), "{n}");
        }
        assert!(verify_state(&sealer, both, &format!("{state}="), NOW).is_err());
    }
}
