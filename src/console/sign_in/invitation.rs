//! The invitation page: the holder of the link creates an account in the inviting organization, or joins it with the one
//! that is signed in.
//!
//! **Invariant.** Without a valid link the page shows nothing and creates nothing. Invalid input does not consume the
//! link.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::login::plain_http_link;
use super::onward::{RETURN, signed_return};
use super::parts::{Faults, differing, form as form_of, new_password, page, require_single_fields, text};
use super::second_factor::{next_step, sign_in_with_notice};
use super::words::Words;
use crate::console::client::{encoded, op};
use crate::console::components::{Text, actions, card, copyable, link_button};
use crate::console::i18n::fill;
use crate::console::visit::{Notice, View, Visit};
use crate::features::{invitations, members};
use crate::kernel::error::{ErrorCode, Result};

const PATH: &str = "/invitation";
const JOIN: &str = "join";
/// Where an accepted invitation leads.
const DONE: &str = "/console/me";

/// Shows the form to the holder of the link.
pub(super) async fn form(visit: &Visit) -> Result<View> {
    let token = visit.query("token").unwrap_or_default();
    if let Some(page) = plain_http_link(visit, PATH, token) {
        return Ok(page);
    }
    let invited = invitations::preview(&visit.console.app, token).await?;
    let login = invited.invitation.email.as_deref().unwrap_or_default();
    Ok(form_page(visit, &invited.organization_name, token, login, &Faults::none()))
}

/// Creates the account and signs it in, or joins with the account that is signed in.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let token = visit.submitted("token").unwrap_or_default();
    require_single_fields(visit)?;
    if let Some(page) = plain_http_link(visit, PATH, token) {
        return Ok(page);
    }
    // The token is checked first, so that a request without it causes no password hash.
    let organization = invitations::preview(&visit.console.app, token).await?.organization_name;
    if visit.submitted("act") == Some(JOIN) && visit.identity.is_some() {
        visit.call(op("accept_my_invitation").body(&json!({"token": token}))).await?;
        return Ok(View::Redirect(DONE.to_owned(), Some(Notice::new(fill(t.invitation_joined, &[&organization])))));
    }
    let login = visit.submitted("login").unwrap_or_default();
    let again = |faults: &Faults| Ok(form_page(visit, &organization, token, login, faults));
    if let Some(faults) = differing(visit) {
        return again(&faults);
    }
    let password = visit.submitted("password").unwrap_or_default();
    if let Err(error) = members::validate_first_administrator(login, password) {
        return again(&Faults::of(visit, &error));
    }
    match visit.call(op("accept_invitation").body(&account(visit, token, login.trim(), password))).await {
        Ok(_) => Ok(View::Redirect(DONE.to_owned(), None)),
        Err(error) => match next_step(visit, error, &signed_return(visit, DONE)).await {
            Err(error) => match error.code {
                ErrorCode::BadInput => again(&Faults::of(visit, &error).at(&["username", "email"], "login")),
                ErrorCode::UsernameExists | ErrorCode::EmailExists => {
                    again(&Faults::of_field(visit, &error, "login").and(t.invitation_taken))
                }
                // The account exists, but its sign-in failed.
                ErrorCode::InvalidLogin => Ok(sign_in_with_notice(t.invitation_done)),
                _ => Err(error),
            },
            other => other,
        },
    }
}

/// The body of the operation: a login with `@` is the e-mail, any other one the username.
fn account(visit: &Visit, token: &str, login: &str, password: &str) -> Value {
    let name = if login.contains('@') { "email" } else { "username" };
    let mut body = json!({"token": token, name: login, "password": password, "cookies": true});
    let display_name = visit.submitted("display_name").unwrap_or_default().trim();
    if !display_name.is_empty() {
        body["display_name"] = Value::from(display_name);
    }
    body
}

fn form_page(visit: &Visit, organization: &str, token: &str, login: &str, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let title = fill(t.invitation_title, &[&organization]);
    if visit.identity.is_some() && faults.is_empty() {
        let hidden = [("token", token), ("act", JOIN)];
        let inner = html! { p { (fill(t.invitation_join_text, &[&organization])) } };
        return page(visit, faults, &title, form_of(visit, faults, PATH, &hidden, &inner, t.invitation_join));
    }
    let login = Text {
        name: "login",
        value: login,
        is_required: true,
        maxlength: Some(254),
        autocomplete: Some("username"),
        is_focused: faults.is_empty(),
        ..Text::default()
    };
    let name = Text {
        name: "display_name",
        value: visit.submitted("display_name").unwrap_or_default(),
        maxlength: Some(200),
        autocomplete: Some("name"),
        ..Text::default()
    };
    let inner = html! {
        (text(visit, faults, login, None))
        (text(visit, faults, name, None))
        (new_password(visit, faults))
    };
    let body = html! {
        p { (t.invitation_text) }
        (form_of(visit, faults, PATH, &[("token", token)], &inner, t.invitation_submit))
        (for_members(visit, organization, token))
    };
    page(visit, faults, &title, body)
}

/// How somebody who has an account joins with it: here, or in a program that uses the API.
fn for_members(visit: &Visit, organization: &str, token: &str) -> Markup {
    let t = Words::of(visit.language);
    let back = signed_return(visit, &format!("{PATH}?token={}", encoded(token)));
    let sign_in = visit.href(&format!("{}?{RETURN}={}", super::login::PATH, encoded(&back)));
    let operation = format!("POST {}", visit.href("/me/invitations/accept"));
    card(
        t.invitation_known_title,
        html! {
            p { (fill(t.invitation_known_text, &[&organization])) }
            (actions(link_button(&sign_in, t.invitation_sign_in)))
            details {
                summary { (t.invitation_program) }
                p { (fill(t.invitation_program_text, &[&"{\"token\": \"…\"}", &operation])) }
                p { (copyable(token, visit.frame().copy, visit.frame().copied)) }
            }
        },
    )
}
