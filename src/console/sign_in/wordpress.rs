//! Sign-in with a WordPress account: with an application password, or with a ticket of the must-use plugin. The plugin
//! sends the browser back with the ticket in the fragment of the address, which only the script can read.

use maud::html;
use serde_json::json;

use super::login;
use super::onward::{RETURN, carried, carried_query, complete};
use super::parts::{Faults, form as form_of, is_shown_in_form, page};
use super::second_factor::next_step;
use super::words::Words;
use crate::console::client::{Call, encoded, op};
use crate::console::components::{Field, Text, actions, field, hidden_input, link_button, password_input, text_field};
use crate::console::visit::{View, Visit};
use crate::kernel::error::{ErrorCode, Result};

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
    Ok(form_page(visit, &Faults::none()))
}

fn form_page(visit: &Visit, faults: &Faults) -> View {
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
    let body = html! {
        @if let Some(href) = ticket_link(visit) { (actions(link_button(&href, t.wordpress_browser))) }
        p { (t.wordpress_text) }
        (form_of(visit, faults, PATH, &[(RETURN, signed)], &inner, t.sign_in))
        p { a href=(visit.href(&format!("{}{}", login::PATH, carried_query(visit)))) { (visit.frame().back) } }
        // The script fills in the ticket of the fragment and sends the form. A form with faults is not sent again.
        @if faults.is_empty() {
            form method="post" action=(visit.href(PATH)) data-fragment="ticket" hidden {
                (hidden_input("ticket", ""))
                @if !signed.is_empty() { (hidden_input(RETURN, signed)) }
            }
        }
    };
    page(visit, faults, t.wordpress_title, body)
}

/// The address at WordPress that sends the browser back to this page with a ticket, if tickets are set up.
fn ticket_link(visit: &Visit) -> Option<String> {
    let app = &visit.console.app;
    app.config.wordpress_ticket_secret.as_ref()?;
    let back = encoded(&format!("{}{PATH}", app.public_url()));
    Some(format!("{}/wp-admin/admin-post.php?action=roster_sign_in&return_to={back}", app.config.wordpress_url))
}

/// Signs in with the ticket, or with name and application password.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    if visit.identity.is_some() {
        return Ok(login::signed_in(visit));
    }
    if let Some(content) = login::obstacle(visit).await? {
        return Ok(content.into());
    }
    match visit.call(call(visit)).await {
        Ok(_) => complete(visit, carried(visit)),
        Err(error) => match next_step(visit, error, carried(visit)).await {
            Err(error) if is_shown_in_form(&error) => Ok(form_page(visit, &Faults::of(visit, &error))),
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
