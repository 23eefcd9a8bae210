//! Self-registration: an account, and the mailed code that confirms its e-mail address. Only where the settings allow
//! it.

use maud::html;
use serde_json::{Value, json};

use super::login;
use super::parts::{Faults, differing, form as form_of, is_shown_in_form, new_password, page, text};
use super::second_factor::sign_in_with_notice;
use super::words::Words;
use crate::console::client::op;
use crate::console::components::{Text, TextKind};
use crate::console::visit::{View, Visit};
use crate::kernel::error::{ErrorCode, Result};

const PATH: &str = "/console/register";
const VERIFY: &str = "/console/register/verify";

fn require_open(visit: &Visit) -> Result<()> {
    if visit.console.app.config.registration { Ok(()) } else { Err(ErrorCode::RegistrationClosed.into()) }
}

pub(super) async fn form(visit: &Visit) -> Result<View> {
    require_open(visit)?;
    if visit.identity.is_some() {
        return Ok(login::signed_in(visit));
    }
    if let Some(content) = login::obstacle(visit).await? {
        return Ok(content.into());
    }
    Ok(form_page(visit, &Faults::none()))
}

fn form_page(visit: &Visit, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let username = Text {
        name: "username",
        value: visit.submitted("username").unwrap_or_default(),
        maxlength: Some(64),
        autocomplete: Some("username"),
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
        (text(visit, faults, email(visit, faults.is_empty()), None))
        (text(visit, faults, username, Some(t.username_about)))
        (text(visit, faults, name, None))
        (new_password(visit, faults))
    };
    let body = html! {
        p { (t.register_text) }
        (form_of(visit, faults, PATH, &[], &inner, t.register_title))
        p { a href=(visit.href(login::PATH)) { (visit.frame().back) } }
    };
    page(visit, faults, t.register_title, body)
}

fn email(visit: &Visit, is_focused: bool) -> Text<'_> {
    Text {
        name: "email",
        kind: TextKind::Email,
        value: visit.submitted("email").unwrap_or_default(),
        is_required: true,
        maxlength: Some(254),
        autocomplete: Some("email"),
        is_focused,
        ..Text::default()
    }
}

/// Registers, and asks for the mailed code.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    require_open(visit)?;
    if let Some(faults) = differing(visit) {
        return Ok(form_page(visit, &faults));
    }
    let sent = |name: &str| visit.submitted(name).map(str::trim).filter(|text| !text.is_empty());
    let mut body = json!({
        "email": sent("email").unwrap_or_default(),
        "password": visit.submitted("password").unwrap_or_default(),
    });
    for name in ["username", "display_name"] {
        if let Some(text) = sent(name) {
            body[name] = Value::from(text);
        }
    }
    match visit.call(op("register").body(&body)).await {
        Ok(_) => Ok(verify_page(visit, &Faults::none())),
        Err(error) if is_shown_in_form(&error) => {
            let faults = match error.code {
                ErrorCode::UsernameExists | ErrorCode::EmailExists => {
                    let at = if error.code == ErrorCode::EmailExists { "email" } else { "username" };
                    Faults::of_field(visit, &error, at)
                }
                _ => Faults::of(visit, &error),
            };
            Ok(form_page(visit, &faults))
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn verify_form(visit: &Visit) -> Result<View> {
    require_open(visit)?;
    Ok(verify_page(visit, &Faults::none()))
}

fn verify_page(visit: &Visit, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    let code = Text {
        name: "code",
        kind: TextKind::Code,
        is_required: true,
        maxlength: Some(16),
        autocomplete: Some("one-time-code"),
        is_focused: true,
        ..Text::default()
    };
    let inner = html! {
        (text(visit, faults, email(visit, false), None))
        (text(visit, faults, code, None))
    };
    let body = html! {
        p { (t.verify_text) }
        (form_of(visit, faults, VERIFY, &[], &inner, t.confirm))
        p { a href=(visit.href(PATH)) { (t.start_again) } }
    };
    page(visit, faults, t.verify_title, body)
}

/// Confirms the e-mail address. The member then signs in.
pub(super) async fn verify(visit: &Visit) -> Result<View> {
    require_open(visit)?;
    let code: String = visit.submitted("code").unwrap_or_default().split_whitespace().collect();
    let body = json!({"email": visit.submitted("email").unwrap_or_default().trim(), "code": code});
    match visit.call(op("verify_registration").body(&body)).await {
        Ok(_) => Ok(sign_in_with_notice(Words::of(visit.language).verify_done)),
        Err(error) if error.code == ErrorCode::InvalidCode => {
            Ok(verify_page(visit, &Faults::of_field(visit, &error, "code")))
        }
        Err(error) if is_shown_in_form(&error) => Ok(verify_page(visit, &Faults::of(visit, &error))),
        Err(error) => Err(error),
    }
}
