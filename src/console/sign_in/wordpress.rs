//! Sign-in with a WordPress account: with an application password, or with a ticket of the must-use plugin. The plugin
//! sends the browser back with the ticket in the fragment of the address, which only the script can read.

use maud::html;
use serde_json::json;

use super::login;
use super::onward::{RETURN, carried, carried_query, complete, target};
use super::parts::{Faults, form as form_of, is_shown_in_form, page};
use super::second_factor::next_step;
use super::words::Words;
use crate::console::client::{Call, encoded, op};
use crate::console::components::{Field, Text, actions, field, hidden_input, link_button, password_input, text_field};
use crate::console::visit::{View, Visit};
use crate::kernel::error::{ErrorCode, Result};
use crate::kernel::secret;

const PATH: &str = "/console/sign-in/wordpress";

pub(super) async fn form(visit: &Visit) -> Result<View> {
    if visit.console.app.config.wordpress_url.is_empty() {
        return Err(ErrorCode::WordPressNotConfigured.into());
    }
    if visit.identity.is_some() {
        return Ok(login::signed_in(visit));
    }
    if let Some(content) = login::obstacle(visit).await? {
        return Ok(content.into());
    }
    form_page(visit, &Faults::none())
}

fn form_page(visit: &Visit, faults: &Faults) -> Result<View> {
    const LOGIN_CHARACTERS_MAX: u32 = 254;
    let t = Words::of(visit.language);
    let names = faults.texts("username");
    let named = Field::new("username", t.wordpress_username).faults(&names);
    let login = Text {
        name: "username",
        value: visit.submitted("username").unwrap_or_default(),
        is_required: true,
        maxlength: Some(LOGIN_CHARACTERS_MAX),
        autocomplete: Some("username"),
        is_focused: faults.is_empty(),
        ..Text::default()
    };
    let texts = faults.texts("application_password");
    let about = Field::new("application_password", t.wordpress_password).faults(&texts);
    let inner = html! {
        (text_field(&named, &login))
        (field(&about, password_input(&about, "application_password", "off", None)))
    };
    let signed = carried(visit);
    let link = if faults.is_empty() { ticket_link(visit)? } else { None };
    let body = html! {
        @if let Some(href) = link { (actions(link_button(&href, t.wordpress_browser))) }
        p { (t.wordpress_text) }
        (form_of(visit, faults, PATH, &[(RETURN, signed)], &inner, t.sign_in))
        p { a href=(visit.href(&format!("{}{}", login::PATH, carried_query(visit)))) { (visit.frame().back) } }
        // The script fills in the ticket of the fragment and sends the form. A form with faults is not sent again.
        @if faults.is_empty() {
            form method="post" action=(visit.href(PATH)) data-fragment="ticket" hidden {
                (hidden_input("ticket", ""))
                (hidden_input("state", ""))
            }
        }
    };
    Ok(page(visit, faults, t.wordpress_title, body))
}

/// The cookie that binds a ticket to the browser that asked for it: a state, and the signed return after a dot.
const STATE_COOKIE: &str = "wordpress_state";
const STATE_LIFE_S: i64 = 600;

/// The address at WordPress that sends the browser back to this page with a ticket, if tickets are set up. WordPress
/// sends the state back with the ticket.
fn ticket_link(visit: &Visit) -> Result<Option<String>> {
    let app = &visit.console.app;
    if app.config.wordpress_ticket_secret.is_none() {
        return Ok(None);
    }
    let state = secret::token("")?;
    let signed = if target(visit, carried(visit)).1 { "" } else { carried(visit) };
    visit.set_cookie(STATE_COOKIE, &format!("{state}.{signed}"), STATE_LIFE_S);
    let back = encoded(&format!("{}{PATH}", app.public_url()));
    let address = format!("{}/wp-admin/admin-post.php?action=roster_sign_in", app.config.wordpress_url);
    Ok(Some(format!("{address}&return_to={back}&state={state}")))
}

/// Signs in with the ticket, or with name and application password.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    if visit.identity.is_some() {
        return Ok(login::signed_in(visit));
    }
    if let Some(content) = login::obstacle(visit).await? {
        return Ok(content.into());
    }
    let mut signed = carried(visit);
    if visit.submitted("ticket").is_some() {
        // A ticket that another site sent here would sign this browser in as somebody else.
        let kept = visit.cookie(STATE_COOKIE).and_then(|kept| kept.split_once('.'));
        let (state, kept) = kept.ok_or(ErrorCode::InvalidState)?;
        if visit.submitted("state") != Some(state) {
            return Err(ErrorCode::InvalidState.into());
        }
        signed = kept;
        visit.set_cookie(STATE_COOKIE, "", 0);
    }
    match visit.call(call(visit)).await {
        Ok(_) => complete(visit, signed),
        Err(error) => match next_step(visit, error, signed).await {
            Err(error) if is_shown_in_form(&error) => form_page(visit, &Faults::of(visit, &error)),
            other => other,
        },
    }
}

fn call(visit: &Visit) -> Call {
    if let Some(ticket) = visit.submitted("ticket") {
        return op("login_with_wordpress_ticket").body(&json!({"ticket": ticket, "cookies": true}));
    }
    let sent = |name| visit.submitted(name).unwrap_or_default();
    let body = json!({
        "username": sent("username").trim(),
        "application_password": sent("application_password"),
        "cookies": true,
    });
    op("login_with_wordpress").body(&body)
}
