//! Sign-in with OpenID Connect providers.

use std::sync::Arc;

use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};

use crate::features::sessions::oidc::{self, AuthorizationResponse, Providers};
use crate::features::sessions::token_answer::{TokenAnswer, require_own_site, token_answer};
use crate::kernel::app::App;
use crate::kernel::authn::caller::Visitor;
use crate::kernel::http::{Body, Reply, Tag, ok};

crate::text! {
    /// The name of a provider in the settings
    ProviderName 1..=32 "";
    /// The `code` from the provider's redirect
    AuthorizationCode 1..=4096 "^[\\x20-\\x7e]+$";
    /// The `state` from the provider's redirect
    SignInState 1..=512 "";
    /// Exactly one of the provider's `redirect_uris`
    RedirectAddress 1..=2000 "";
    /// The `binding` that was sent to `/auth/oidc/url`, if any
    SignInBinding 32..=128 "";
}

/// The provider's sign-in page
#[derive(Object)]
struct AuthorizeUrl {
    /// Send the browser to this URL; the provider redirects it to `redirect_uri` with a `code` and a `state`
    authorize_url: String,
}

/// The parameters of the provider's redirect
#[derive(Object)]
struct OidcExchange {
    /// Optional when only one provider is configured
    provider: Option<ProviderName>,
    code: AuthorizationCode,
    state: SignInState,
    /// The same value as in the call of `/auth/oidc/url`
    redirect_uri: RedirectAddress,
    binding: Option<SignInBinding>,
    /// Also sets the tokens as cookies
    cookies: Option<bool>,
    /// Also returns the provider's own access token
    with_provider_token: Option<bool>,
}

/// The tokens of a session that began with a provider's sign-in
#[derive(Object)]
struct OidcTokens {
    #[oai(flatten)]
    tokens: TokenAnswer,
    /// The scopes that the provider granted, separated by spaces
    scope: String,
    /// The provider's access token, if `with_provider_token` was set
    #[oai(nullable)]
    provider_access_token: Option<String>,
}

crate::document! {
    get_oidc_url: [UnknownProvider, ExternalSystemFailed, NotConfigured];
    exchange_oidc_code: [
        InvalidLogin, SecondFactorRequired, EnrolmentRequired, InvalidState, OidcRefused, UnknownProvider, CrossSite,
        ExternalSystemFailed, SiteFull, NotConfigured,
    ];

    "OidcExchange": r#"{"provider":"authentik","code":"SplxlOBeZQQYbYS6WxSbIA","state":"3q2-7wEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","redirect_uri":"https://portal.example.org/callback"}"#;
}

pub struct Api {
    pub app: Arc<App>,
    pub providers: Arc<Providers>,
}

#[OpenApi(prefix_path = "/auth/oidc", tag = "Tag::Sessions")]
impl Api {
    /// Get the sign-in URL of a provider
    ///
    /// The client that starts a sign-in must also complete it, within `auth.oidc_state_ttl_s`. A cookie binds Roster's
    /// own pages, and pages of the same site that send credentials. Any other client, such as a page of another site or
    /// a program, sends a `binding`, keeps it (per browser, as in `sessionStorage`), and sends it again with the code.
    #[oai(path = "/url", method = "get", operation_id = "get_oidc_url")]
    async fn get_oidc_url(
        &self,
        visitor: Visitor,
        /// Optional when only one provider is configured
        #[oai(validator(max_length = 32))]
        provider: Query<Option<String>>,
        /// Exactly one of the provider's `redirect_uris`
        #[oai(validator(max_length = 2000))]
        redirect_uri: Query<String>,
        /// A random value that the client creates for each sign-in; required when no cookie binds the sign-in
        #[oai(validator(min_length = 32, max_length = 128))]
        binding: Query<Option<String>>,
    ) -> Reply<AuthorizeUrl> {
        let target = (redirect_uri.0.as_str(), binding.0.as_deref());
        let authorize_url =
            oidc::authorize_url(&self.app, &self.providers, &visitor, provider.0.as_deref(), target).await?;
        Ok(ok(AuthorizeUrl { authorize_url }))
    }

    /// Sign in with a provider's code
    ///
    /// The first sign-in creates the member, without roles. Later sign-ins fill empty fields but overwrite none. Roles
    /// follow the provider's `role_claims` through the role mappings of the sources `oidc` and, for Zitadel's claims,
    /// `zitadel`: the last sign-in decides. A second factor is required as at any sign-in.
    #[oai(path = "/exchange", method = "post", operation_id = "exchange_oidc_code")]
    async fn exchange_oidc_code(&self, visitor: Visitor, body: Body<OidcExchange>) -> Reply<OidcTokens> {
        let body = body.0;
        require_own_site(&visitor, body.cookies)?;
        let returned = AuthorizationResponse {
            provider: body.provider.map(|name| name.0),
            redirect_uri: body.redirect_uri.0,
            state: body.state.0,
            code: body.code.0,
            binding: body.binding.map(|value| value.0),
        };
        let (tokens, redeemed) = oidc::exchange(&self.app, &self.providers, &visitor, returned).await?;
        Ok(ok(OidcTokens {
            tokens: token_answer(&self.app, &visitor, tokens, body.cookies),
            scope: redeemed.scope,
            provider_access_token: body.with_provider_token.filter(|wanted| *wanted).map(|_| redeemed.access_token),
        }))
    }
}
