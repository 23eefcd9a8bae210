//! Signing out. The page after it leads nowhere by itself, so that a provider does not sign the browser in again.

use maud::html;

use super::login;
use super::parts::{Faults, form as form_of};
use super::words::Words;
use crate::console::client::op;
use crate::console::components::{Kind, actions, link_button_of};
use crate::console::visit::{Content, NOTICE_COOKIE, View, Visit};
use crate::features::sessions::clear_cookies;
use crate::kernel::error::Result;

const PATH: &str = "/console/sign-out";

/// Asks whether to sign out, or says that it is done.
pub(super) async fn form(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    if visit.identity.is_some() {
        let inner = html! { p { (t.sign_out_text) } };
        let body = form_of(visit, &Faults::none(), PATH, &[], &inner, visit.frame().sign_out);
        return Ok(Content::new(t.sign_out_title, body).into());
    }
    let body = html! {
        p { (t.signed_out_text) }
        (actions(link_button_of(&visit.href(login::PATH), t.sign_in_again, Kind::Main, None)))
    };
    Ok(Content::new(t.signed_out_title, body).into())
}

/// Ends the session and removes its cookies, also those of a session that has ended already.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    if visit.identity.is_some() {
        match visit.call(op("logout")).await {
            Err(error) if error.code.status() != 401 => return Err(error),
            _ => {}
        }
    }
    clear_cookies(&visit.console.app, &visit.context);
    visit.set_cookie(NOTICE_COOKIE, "", 0);
    Ok(View::Redirect(PATH.to_owned(), None))
}
