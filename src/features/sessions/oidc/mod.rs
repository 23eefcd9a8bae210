//! Sign-in with OpenID Connect providers, and their own access tokens as bearers.
//!
//! **Invariant.** A person is known by (provider, subject) only. A state and a code are used once, the state before the
//! code is redeemed, and nothing is created unless the id token is valid. The client that completes a sign-in must
//! prove that it started it.
//!
//! Roles of the sources `oidc` and `zitadel` are those that the last sign-in brought: somebody who signs in with two
//! providers has, of these sources, what the provider of the last sign-in says.

mod claims;
mod provider;
mod state;

use std::sync::Arc;

use serde_json::Value;

use super::jit_provisioning::provision;
use super::{FactorsShown, Tokens, open, second_factor};
use crate::features::members;
use crate::features::sessions::consume_once;
use crate::kernel::app::{App, ms};
use crate::kernel::authn::caller::Visitor;
use crate::kernel::authn::cookie;
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authn::token::{self, Use};
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::ids::{MemberId, Timestamp};
use crate::kernel::secret;
use claims::ProviderClaims;
use provider::{Provider, Published, Redeemed};
use state::{Binding, Purpose};

/// The providers of the settings, with what is known of them.
pub struct Providers(Vec<Provider>);

/// What the browser brings back from a provider.
pub struct Returned {
    pub provider: Option<String>,
    pub redirect_uri: String,
    pub state: String,
    pub code: String,
    /// The value that the sign-in began with, if it began with one.
    pub binding: Option<String>,
}

impl Providers {
    pub fn new(app: &App) -> Self {
        Self(app.config.providers.iter().cloned().map(Provider::new).collect())
    }

    /// The provider of a name, or the only one there is.
    fn named(&self, name: Option<&str>, place: &str) -> Result<&Provider> {
        match (name, self.0.as_slice()) {
            (_, []) => {
                Err(Error::new(ErrorCode::NotConfigured).with_message("set [[oidc]] to sign in with a provider"))
            }
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::fields(vec![Field::at(&[place, "provider"], "say which: there are several")])),
            (Some(name), all) => {
                all.iter().find(|known| known.settings.name == name).ok_or_else(|| ErrorCode::UnknownProvider.into())
            }
        }
    }
}

impl Provider {
    /// Compared as text: whatever else would mean the same address somewhere means another one elsewhere.
    fn require_redirect(&self, redirect_uri: &str, place: &str) -> Result<()> {
        if self.settings.redirect_uris.iter().any(|known| known == redirect_uri) {
            return Ok(());
        }
        let message = "must be one of the provider's redirect_uris, to the letter";
        Err(Error::fields(vec![Field::at(&[place, "redirect_uri"], message)]))
    }
}

/// The address of the provider at which somebody signs in. It is bound to who begins: by a value of the caller's own, or
/// by a cookie where the browser keeps ours. A page of another site gets no cookie of ours, and a program has none.
pub async fn begin(
    app: &App,
    providers: &Providers,
    visitor: &Visitor,
    provider: Option<&str>,
    (redirect_uri, value): (&str, Option<&str>),
) -> Result<String> {
    let provider = providers.named(provider, "query")?;
    provider.require_redirect(redirect_uri, "query")?;
    if value.is_none() && !visitor.keeps_cookies {
        let message =
            "is needed where no cookie binds the sign-in: a random value that is kept and sent again with the code";
        return Err(Error::fields(vec![Field::at(&["query", "binding"], message)]));
    }
    let published = provider.published(app, None).await?;
    let browser = if value.is_none() { remember_browser(app, visitor)? } else { String::new() };
    let binding = value.map_or(Binding::Cookie(&browser), Binding::Value);
    let purpose = Purpose { provider: &provider.settings.name, redirect_uri, binding };
    let state = state::issue(&app.sealer, purpose, Timestamp::now().plus_ms(ms(app.config.oidc_state_ttl_s)))?;
    let (verifier, nonce) = (pkce_verifier(app, &state), nonce(app, &state));
    Ok(provider.authorize_url(&published, redirect_uri, &state, (&verifier, &nonce)))
}

/// The cookie that states are bound to. A browser keeps its one, so that two sign-ins can be under way in two tabs.
fn remember_browser(app: &App, visitor: &Visitor) -> Result<String> {
    const BROWSER_BYTES: usize = 43;
    let is_ours = |text: &&String| {
        text.len() == BROWSER_BYTES && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let browser = match visitor.oidc_cookie.as_ref().filter(is_ours) {
        Some(known) => known.clone(),
        None => secret::token("")?,
    };
    let life_s = ms(app.config.oidc_state_ttl_s) / 1_000;
    visitor.context.set_cookie(app.guard.cookies.set(cookie::OIDC, &browser, life_s));
    Ok(browser)
}

fn pkce_verifier(app: &App, state: &str) -> String {
    state::derived(&app.sealer, "oidc pkce", state)
}

fn nonce(app: &App, state: &str) -> String {
    state::derived(&app.sealer, "oidc nonce", state)
}

/// Signs somebody in who comes back from a provider; answers what that one gave too.
pub async fn exchange(
    app: &Arc<App>,
    providers: &Providers,
    visitor: &Visitor,
    returned: Returned,
) -> Result<(Tokens, Redeemed)> {
    let Returned { provider, redirect_uri, state, code, binding } = returned;
    let provider = providers.named(provider.as_deref(), "body")?;
    provider.require_redirect(&redirect_uri, "body")?;
    let shown = state::Shown {
        provider: &provider.settings.name,
        redirect_uri: &redirect_uri,
        cookie: visitor.oidc_cookie.as_deref(),
        value: binding.as_deref(),
    };
    let ends_at = state::verify(&app.sealer, shown, &state, Timestamp::now())?;
    // Throttled, because a state is free and every wrong code causes a request to the provider.
    let stranger = visitor.context.address.map_or_else(String::new, |address| address.to_string());
    let attempt = Attempt::new(&format!("oidc {stranger}"), visitor.context.address);
    app.guard.login_throttle.check(attempt, false, Timestamp::now())?;
    // Before the state is used up: when the provider is down, the same state can be tried again.
    let published = provider.published(app, None).await?;
    let used = secret::hash(&state);
    if !app.write_unaudited(move |w| consume_once(w, &used, ends_at)).await? {
        return Err(ErrorCode::InvalidState.into());
    }

    let verifier = pkce_verifier(app, &state);
    let redeemed = provider.redeem(app, &published, &redirect_uri, (&code, &verifier)).await;
    let redeemed = redeemed.inspect_err(|e| {
        if e.cause == ErrorCode::OidcRefused {
            app.guard.login_throttle.failed(attempt, Timestamp::now());
        }
    })?;
    let verified = provider.verified(app, &published, &redeemed.id_token, &nonce(app, &state)).await?;
    let said = all_said(app, provider, &published, verified, &redeemed.access_token).await;
    let mut external_user = said.external_user(&provider.settings);
    external_user.keys = said.role_keys(&provider.settings.role_claims).unwrap_or_default();
    let member = provision(app, &visitor.context, external_user).await?;
    let method = format!("oidc {}", provider.settings.name);
    let tokens = open(app, visitor, member, &method, FactorsShown::OneFactor).await?;
    Ok((tokens, redeemed))
}

/// What the id token says, then userinfo, then the access token if it is a JWT: it came from the provider itself.
async fn all_said(
    app: &App,
    provider: &Provider,
    published: &Published,
    (subject, claims): (String, Value),
    access_token: &str,
) -> ProviderClaims {
    let said = ProviderClaims::new(subject, claims);
    let role_claims = &provider.settings.role_claims;
    if !said.has_gaps(role_claims) {
        return said;
    }
    let own = token::unverified(access_token).filter(|own| {
        own["iss"].as_str() == Some(&provider.settings.issuer) && claims::subject(own).as_ref() == Some(&said.subject)
    });
    let said = with_userinfo(app, provider, published, said, access_token).await;
    match own {
        Some(own) => said.and(Some(own)),
        None => said,
    }
}

/// Adds missing claims from userinfo. A failure does not fail the sign-in.
async fn with_userinfo(
    app: &App,
    provider: &Provider,
    published: &Published,
    said: ProviderClaims,
    access_token: &str,
) -> ProviderClaims {
    match provider.userinfo(app, published, access_token, &said.subject).await {
        Ok(Some(userinfo)) => said.and(Some(userinfo)),
        Ok(None) => said,
        Err(failed) => {
            tracing::warn!(error = %failed, "userinfo could not be read");
            said.and(None)
        }
    }
}

/// The member of a provider's own access token. It is looked up, and made only at first sight.
pub async fn member_of_bearer(
    app: &Arc<App>,
    providers: &Providers,
    context: &Arc<RequestContext>,
    token: &str,
) -> Result<MemberId> {
    let refused = |why: String| Error::new(ErrorCode::InvalidBearer).with_source(why);
    let unverified = token::unverified(token).ok_or_else(|| refused("not a token".into()))?;
    let issuer = unverified["iss"].as_str().unwrap_or_default();
    let of_issuer = |provider: &&Provider| provider.settings.issuer == issuer;
    let found = providers.0.iter().find(of_issuer).and_then(|p| Some((p, p.settings.audience.as_deref()?)));
    let (provider, audience) = found.ok_or_else(|| refused("of no provider whose tokens are taken".into()))?;

    let published = provider.published(app, None).await?;
    let (published, outcome) = provider.believed(app, &published, token, (audience, Use::Access)).await?;
    let claims = outcome.map_err(|distrust| refused(format!("provider {}: {distrust}", provider.settings.name)))?;
    let subject = person_of(&claims).map_err(|why| refused(why.into()))?;

    let named = (provider.settings.name.clone(), subject.clone());
    let find = move |r: &crate::kernel::db::Reader<'_>| {
        let Some(member) = members::find_known(r, &named.0, &named.1)? else { return Ok(None) };
        Ok(Some((member.id, member.is_active(), second_factor::is_confirmed(r, member.id)?)))
    };
    let (member, is_active, is_confirmed) = match app.read(find).await? {
        Some(known) => known,
        None => {
            let mut said = ProviderClaims::new(subject, claims);
            if said.has_gaps(&[]) {
                said = with_userinfo(app, provider, &published, said, token).await;
            }
            (provision(app, context, said.external_user(&provider.settings)).await?, true, false)
        }
    };
    if !is_active {
        return Err(refused("the member is not active".into()));
    }
    if is_confirmed || app.snapshot().requires_second_factor(member) {
        // A provider's token must not bypass the second factor.
        return Err(Error::new(ErrorCode::SecondFactorRequired)
            .with_message("a second factor is needed: sign in by /auth/oidc/exchange, which asks for it"));
    }
    Ok(member)
}

/// The person for whom an access token was made: no program, and no id token that says its audience.
fn person_of(claims: &Value) -> Result<String, &'static str> {
    if !claims::is_access_token(claims) {
        return Err("an id token, or one for something else");
    }
    if claims::is_of_program(claims) {
        return Err("a program's own token");
    }
    claims::subject(claims).ok_or("without a good subject")
}
