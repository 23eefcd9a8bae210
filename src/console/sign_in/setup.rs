//! The set-up page: the holder of the one-time link creates the first administrator, who is then signed in.
//!
//! **Invariant.** Without the token of the link the page shows nothing and creates nothing. The token works once, for a
//! limited time, and only while there is no administrator.

use maud::html;
use serde_json::json;

use super::login::plain_http_link;
use super::parts::{Faults, differing, form as form_of, new_password, page, require_single_fields, text};
use super::second_factor::sign_in_with_notice;
use super::words::Words;
use crate::console::client::op;
use crate::console::components::Text;
use crate::console::visit::{View, Visit};
use crate::features::members;
use crate::kernel::app::is_setup_token;
use crate::kernel::error::{Error, ErrorCode, Result};

/// Shows the form to the holder of the link.
pub(super) async fn form(visit: &Visit) -> Result<View> {
    let token = visit.query("token").unwrap_or_default();
    if let Some(page) = plain_http_link(visit, "/setup", token) {
        return Ok(page);
    }
    require_open(visit, token).await?;
    Ok(form_page(visit, token, &Faults::none()))
}

/// Creates the administrator.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    let token = visit.submitted("token").unwrap_or_default();
    require_single_fields(visit)?;
    if let Some(page) = plain_http_link(visit, "/setup", token) {
        return Ok(page);
    }
    // The token is checked first, so that a request without it causes no password hash.
    require_open(visit, token).await?;
    if let Some(faults) = differing(visit) {
        return Ok(form_page(visit, token, &faults));
    }
    let (app, login) = (&visit.console.app, visit.submitted("login").unwrap_or_default());
    let password = visit.submitted("password").unwrap_or_default();
    let made = members::create_first_administrator(app, login, password.to_owned(), Some(token.to_owned())).await;
    match made {
        Ok(_) => {}
        Err(error) if error.code == ErrorCode::BadInput => {
            return Ok(form_page(visit, token, &Faults::of(visit, &error)));
        }
        Err(error) => return Err(error),
    }
    let body = json!({"login": login.trim(), "password": password, "cookies": true});
    match visit.call(op("login").body(&body)).await {
        Ok(_) => Ok(View::Redirect("/console/site/first-steps".to_owned(), None)),
        Err(error) => {
            tracing::info!(%error, "the first administrator has to sign in");
            Ok(sign_in_with_notice(Words::of(visit.language).setup_done))
        }
    }
}

/// Requires a valid set-up token, and a site without an administrator.
async fn require_open(visit: &Visit, token: &str) -> Result<()> {
    let (app, offered) = (&visit.console.app, token.to_owned());
    let (is_right, is_set_up) = (app.read(move |r| is_setup_token(r, &offered)).await?, members::is_set_up(app).await?);
    match (is_right, is_set_up) {
        (true, false) => Ok(()),
        (true, true) => Err(ErrorCode::SetupDone.into()),
        // Without the advice of the default message to create a new link, which is no longer possible.
        (false, true) => Err(Error::new(ErrorCode::SetupToken)
            .with_message("this set-up link is no longer valid: the administrator exists already, so sign in")),
        (false, false) => Err(ErrorCode::SetupToken.into()),
    }
}

fn form_page(visit: &Visit, token: &str, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let login = Text {
        name: "login",
        value: visit.submitted("login").unwrap_or_default(),
        is_required: true,
        maxlength: Some(254),
        autocomplete: Some("username"),
        is_focused: faults.is_empty(),
        ..Text::default()
    };
    let inner = html! {
        (text(visit, faults, login, None))
        (new_password(visit, faults))
    };
    let body = html! {
        p { (t.setup_text) }
        (form_of(visit, faults, "/setup", &[("token", token)], &inner, t.setup_submit))
    };
    page(visit, faults, t.setup_title, body)
}
