//! Sign-in with OpenID Connect providers.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};

use crate::features::sessions::oidc::{self, Providers, Returned};
use crate::features::sessions::token_answer::{TokenAnswer, require_own_site, shown};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::http::{Body, Reply, Tag, ok};

crate::text! {
    /// The name of a provider in the settings
    ProviderName 1..=32 "";
    /// As the provider gave it
    AuthorizationCode 1..=4096 "^[\\x20-\\x7e]+$";
    /// As the provider gave it back
    SignInState 1..=512 "";
    /// One of the provider's `redirect_uris`, to the letter
    RedirectAddress 1..=2000 "";
    /// The `binding` that `/auth/oidc/url` was asked with, if it was
    SignInBinding 32..=128 "";
}

/// Where to sign in
#[derive(Object)]
struct AuthorizeUrl {
    /// Send the browser there; it comes back to `redirect_uri` with a `code` and a `state`
    authorize_url: String,
}

/// What the browser brought back from the provider
#[derive(Object)]
struct OidcExchange {
    /// May be left out when one provider is configured
    provider: Option<ProviderName>,
    code: AuthorizationCode,
    state: SignInState,
    /// The same as before
    redirect_uri: RedirectAddress,
    binding: Option<SignInBinding>,
    /// Sends the tokens as cookies too
    cookies: Option<bool>,
    /// Answers the provider's own access token too
    with_provider_token: Option<bool>,
}

/// The tokens of a session that began at a provider
#[derive(Object)]
struct OidcTokens {
    #[oai(flatten)]
    tokens: TokenAnswer,
    /// What the provider granted, separated by spaces
    scope: String,
    /// The provider's, when it was asked for
    #[oai(nullable)]
    provider_access_token: Option<String>,
}

crate::document! {
    get_oidc_url: [UnknownProvider, NeighbourFailed, NotConfigured];
    exchange_oidc_code: [
        InvalidLogin, SecondFactorRequired, EnrolmentRequired, InvalidState, OidcRefused, UnknownProvider, CrossSite,
        NeighbourFailed, SiteFull, NotConfigured,
    ];

    "OidcExchange": r#"{"provider":"authentik","code":"SplxlOBeZQQYbYS6WxSbIA","state":"3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","redirect_uri":"https://portal.example.org/callback"}"#;
}

pub struct Api {
    pub app: Arc<App>,
    pub providers: Arc<Providers>,
}

#[OpenApi(prefix_path = "/auth/oidc", tag = "Tag::Sessions")]
impl Api {
    /// See where to sign in with a provider
    ///
    /// A sign-in ends where it began, within `auth.oidc_state_ttl_s`. Our own pages, and pages of the same site that ask
    /// with credentials, are bound by a cookie. Who else begins, a page of another site or a program, sends a `binding`,
    /// keeps it (per browser, as in `sessionStorage`), and sends it again with the code.
    #[oai(path = "/url", method = "get", operation_id = "get_oidc_url")]
    async fn get_oidc_url(
        &self,
        visitor: Visitor,
        /// May be left out when one provider is configured
        #[oai(validator(max_length = 32))]
        provider: Query<Option<String>>,
        /// One of the provider's `redirect_uris`, to the letter
        #[oai(validator(max_length = 2000))]
        redirect_uri: Query<String>,
        /// A random value of the caller's own, new for each sign-in; needed where no cookie binds it
        #[oai(validator(min_length = 32, max_length = 128))]
        binding: Query<Option<String>>,
    ) -> Reply<AuthorizeUrl> {
        let begun = (redirect_uri.0.as_str(), binding.0.as_deref());
        let authorize_url = oidc::begin(&self.app, &self.providers, &visitor, provider.0.as_deref(), begun).await?;
        Ok(ok(AuthorizeUrl { authorize_url }))
    }

    /// Sign in with what a provider gave
    ///
    /// Creates the member at first sight, without roles; fills empty fields later, but overwrites none. Roles follow the
    /// provider's `role_claims` through the role mappings of the sources `oidc` and, for Zitadel's claims, `zitadel`: the
    /// last sign-in decides. A second factor is asked for as at any sign-in.
    #[oai(path = "/exchange", method = "post", operation_id = "exchange_oidc_code")]
    async fn exchange_oidc_code(&self, visitor: Visitor, body: Body<OidcExchange>) -> Reply<OidcTokens> {
        let body = body.0;
        require_own_site(&visitor, body.cookies)?;
        let returned = Returned {
            provider: body.provider.map(|name| name.0),
            redirect_uri: body.redirect_uri.0,
            state: body.state.0,
            code: body.code.0,
            binding: body.binding.map(|value| value.0),
        };
        let (tokens, redeemed) = oidc::exchange(&self.app, &self.providers, &visitor, returned).await?;
        Ok(ok(OidcTokens {
            tokens: shown(&self.app, &visitor, tokens, body.cookies),
            scope: redeemed.scope,
            provider_access_token: body.with_provider_token.filter(|wanted| *wanted).map(|_| redeemed.access_token),
        }))
    }
}
