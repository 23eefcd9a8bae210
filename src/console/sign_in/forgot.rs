//! The page for a forgotten password. Its answer is the same for known and unknown names.

use maud::{Markup, html};
use serde_json::json;

use super::login;
use super::parts::{Faults, form as form_of, is_shown_in_form, page, text};
use super::words::Words;
use crate::console::client::op;
use crate::console::components::Text;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::Result;
use crate::kernel::outbound::mail;

const PATH: &str = "/console/forgot";

pub(super) async fn form(visit: &Visit) -> Result<View> {
    Ok(form_page(visit, &Faults::none()))
}

fn form_page(visit: &Visit, faults: &Faults) -> View {
    let t = Words::of(visit.language);
    if !mail::is_configured(&visit.console.app.config) {
        let body = html! { p { (t.forgot_no_mail) } (back(visit)) };
        return Content::new(t.forgot_title, body).into();
    }
    let login = Text {
        name: "login",
        value: visit.submitted("login").unwrap_or_default(),
        is_required: true,
        maxlength: Some(254),
        autocomplete: Some("username"),
        is_focused: faults.is_empty(),
        ..Text::default()
    };
    let inner = text(visit, faults, login, None);
    let body = html! {
        p { (t.forgot_text) }
        (form_of(visit, faults, PATH, &[], &inner, t.forgot_submit))
        (back(visit))
    };
    page(visit, faults, t.forgot_title, body)
}

fn back(visit: &Visit) -> Markup {
    html! { p.links { a href=(visit.href(login::PATH)) { (visit.frame().back) } } }
}

pub(super) async fn submit(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let login = visit.submitted("login").unwrap_or_default().trim();
    match visit.call(op("forgot_password").body(&json!({"login": login}))).await {
        Ok(_) => {
            let body = html! { p { (t.forgot_done_text) } (back(visit)) };
            Ok(Content::new(t.forgot_done_title, body).into())
        }
        Err(error) if is_shown_in_form(&error) => Ok(form_page(visit, &Faults::of(visit, &error))),
        Err(error) => Err(error),
    }
}
