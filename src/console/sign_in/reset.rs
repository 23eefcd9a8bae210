//! The page of a password link: its holder sets a new password, and is signed in with it.
//!
//! **Invariant.** Without a valid link the page shows and changes nothing. It does not show which member the link belongs
//! to. A second factor is asked as at any sign-in.

use maud::html;
use serde_json::json;

use super::login::plain_http_link;
use super::onward::signed_return;
use super::parts::{Faults, differing, form as form_of, new_password, page, require_single_fields};
use super::second_factor::{next_step, sign_in_with_notice};
use super::words::Words;
use crate::console::client::op;
use crate::console::visit::{Notice, View, Visit};
use crate::features::members;
use crate::features::sessions::passwords::{require_link, reset_password};
use crate::kernel::error::{ErrorCode, Result};

const PATH: &str = "/reset";
const DONE: &str = "/console/me";

/// Shows the form to the holder of a link.
pub(super) async fn form(visit: &Visit) -> Result<View> {
    let token = visit.query("token").unwrap_or_default();
    if let Some(page) = plain_http_link(visit, PATH, token) {
        return Ok(page);
    }
    require_link(&visit.console.app, token).await?;
    Ok(form_page(visit, token, &Faults::none()))
}

/// Sets the password.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let (app, token) = (&visit.console.app, visit.submitted("token").unwrap_or_default());
    require_single_fields(visit)?;
    if let Some(page) = plain_http_link(visit, PATH, token) {
        return Ok(page);
    }
    require_link(app, token).await?;
    if let Some(faults) = differing(visit) {
        return Ok(form_page(visit, token, &faults));
    }
    let password = visit.submitted("password").unwrap_or_default();
    let member = match reset_password(app, &visit.context, token.to_owned(), password.to_owned()).await {
        Ok(member) => member,
        Err(error) if error.code == ErrorCode::BadInput => {
            let faults = Faults::of(visit, &error).at(&["new_password"], "password");
            return Ok(form_page(visit, token, &faults));
        }
        Err(error) => return Err(error),
    };
    let found = app.read(move |r| members::find(r, member)).await?;
    let Some(login) = found.and_then(|member| member.email.or(member.username)) else {
        return Ok(sign_in_with_notice(t.reset_done_sign_in));
    };
    let body = json!({"login": login, "password": password, "cookies": true});
    match visit.call(op("login").body(&body)).await {
        Ok(_) => Ok(View::Redirect(DONE.to_owned(), Some(Notice::new(t.reset_done)))),
        Err(error) => match next_step(visit, error, &signed_return(visit, DONE)).await {
            // The password is set in any case. Sign-ins can be limited after many wrong attempts of others.
            Err(_) => Ok(sign_in_with_notice(t.reset_done_sign_in)),
            other => other,
        },
    }
}

fn form_page(visit: &Visit, token: &str, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let inner = new_password(visit, faults);
    let body = html! {
        p { (t.reset_text) }
        (form_of(visit, faults, PATH, &[("token", token)], &inner, t.reset_submit))
    };
    page(visit, faults, t.reset_title, body)
}
