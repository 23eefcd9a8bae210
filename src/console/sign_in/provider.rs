//! Sign-in at an OpenID Connect provider: leads there, and completes the sign-in when the browser comes back.

use maud::html;
use poem::Response;
use poem::http::header::{LOCATION, ORIGIN};
use poem::http::{HeaderValue, StatusCode};
use serde_json::json;

use super::login;
use super::onward::{carried, complete, target};
use super::parts::Faults;
use super::words::Words;
use crate::console::client::{self, Caller, op};
use crate::console::components::{Kind, actions, link_button_of};
use crate::console::i18n::fill;
use crate::console::visit::{Content, View, Visit};
use crate::features::sessions::oidc::console_callback;
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::secret;

/// Keeps where a sign-in leads while the browser is at the provider. It holds one sign-in: of several tabs, the last one
/// returns to its page, and the others to the start page.
const COOKIE: &str = "sign_in";
const COOKIE_LIFE_S: i64 = 1_800;
/// Browsers drop longer cookies.
const COOKIE_BYTES_MAX: usize = 3_500;

/// Leads to the provider. A link of another site shows this page first, because only a sign-in that this site began is
/// bound to the browser.
pub(super) async fn start(visit: &Visit) -> Result<View> {
    let name = visit.path("name");
    if !visit.console.app.config.providers.iter().any(|provider| provider.name == name) {
        return Err(ErrorCode::UnknownProvider.into());
    }
    if visit.identity.is_some() {
        return Ok(login::signed_in(visit));
    }
    if let Some(content) = login::obstacle(visit).await? {
        return Ok(content.into());
    }
    let from = visit.headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if from == Some("cross-site") {
        return Ok(before(visit, name));
    }
    let callback = console_callback(&visit.console.app.public_url(), name);
    let call = op("get_oidc_url").query("provider", name).query("redirect_uri", &callback);
    let url = match visit.call(call).await {
        Ok(answer) => answer.data["authorize_url"].as_str().unwrap_or_default().to_owned(),
        Err(error) if error.code == ErrorCode::ExternalSystemFailed => {
            return login::with_faults(visit, &Faults::of(visit, &error)).await;
        }
        Err(error) => return Err(error),
    };
    // A value that this site has not signed could hold more than a cookie's value.
    let (_, is_lost) = target(visit, carried(visit));
    let kept = format!("{}.{}", mark(state_of(&url)), carried(visit));
    if !carried(visit).is_empty() && !is_lost && kept.len() <= COOKIE_BYTES_MAX {
        visit.set_cookie(COOKIE, &kept, COOKIE_LIFE_S);
    }
    let mut response = Response::builder().status(StatusCode::SEE_OTHER).finish();
    let to = HeaderValue::from_str(&url).map_err(|e| crate::kernel::error::Error::internal(e.to_string()))?;
    response.headers_mut().insert(LOCATION, to);
    Ok(View::Response(Box::new(response)))
}

/// A page with the link to the provider.
fn before(visit: &Visit, name: &str) -> View {
    let t = Words::of(visit.language);
    let body = html! {
        p { (fill(t.provider_text, &[&name])) }
        (actions(link_button_of(&visit.with_query(&[]), t.go_on, Kind::Main, None)))
    };
    Content::new(fill(t.provider_title, &[&name]), body).into()
}

/// The `state` of an authorization URL. It has no characters that URLs encode.
fn state_of(url: &str) -> &str {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap_or_default()
}

/// Identifies a state without revealing it.
fn mark(state: &str) -> String {
    hex::encode(&secret::hash(state)[..8])
}

/// Completes the sign-in with the code that the provider sent along.
///
/// The browser comes from the provider, so the request is cross-site. The operation refuses cookies to such requests,
/// unless it is told nothing about where they come from. That is safe here: the state is bound to the cookie of the
/// browser that began the sign-in at [`start`], so no other site can complete a sign-in of its own in this browser.
pub(super) async fn callback(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let name = visit.path("name");
    let (Some(code), Some(state)) = (visit.query("code"), visit.query("state")) else {
        return login::with_faults(visit, &Faults::general(StatusCode::UNAUTHORIZED, t.provider_refused)).await;
    };
    let callback = console_callback(&visit.console.app.public_url(), name);
    let body = json!({"provider": name, "code": code, "state": state, "redirect_uri": callback, "cookies": true});
    let mut headers = visit.headers.clone();
    headers.remove("sec-fetch-site");
    headers.remove(ORIGIN);
    let caller = Caller {
        headers: &headers,
        context: &visit.context,
        identity: None,
        organization: None,
        app: &visit.console.app,
    };
    let operation = visit.operation("exchange_oidc_code")?;
    let kept = visit.cookie(COOKIE).and_then(|kept| kept.split_once('.'));
    let signed = kept.filter(|(of, _)| *of == mark(state)).map_or("", |(_, signed)| signed);
    match client::call(&visit.console.perform, caller, operation, op("exchange_oidc_code").body(&body)).await {
        Ok(_) => {
            visit.set_cookie(COOKIE, "", 0);
            complete(visit, signed)
        }
        // The back button, after the sign-in was completed.
        Err(error) if error.code == ErrorCode::InvalidState && visit.identity.is_some() => Ok(login::signed_in(visit)),
        Err(error) => login::go_on(visit, error, signed).await,
    }
}

#[cfg(test)]
mod tests {
    use super::{mark, state_of};

    #[test]
    fn the_state_is_found_in_the_address_of_the_provider() {
        assert_eq!(state_of("https://id.example.org/authorize?a=state%3D1&state=ab-_&nonce=n"), "ab-_");
        assert_eq!(state_of("https://id.example.org/authorize"), "");
        assert_eq!((mark("a").len(), mark("a") == mark("b")), (16, false));
    }
}
