//! The page of an invitation: whoever holds the link makes an account in the organization that invites.
//!
//! **Invariant.** Without a link that works nothing is shown and nothing can be made; what is typed wrong does not use
//! the link up.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::{Data, Form, Query};
use poem::{Request, Response, handler};
use serde::Deserialize;

use super::page::{docs, escaped, faults_html, is_from_elsewhere, page, place, refusal};
use crate::access::caller::Exchange;
use crate::app::App;
use crate::error::{Cause, Error, Result};
use crate::members::invitations::{self, Newcomer};
use crate::members::require_first;

const TITLE: &str = "Invitation";

#[derive(Deserialize)]
pub(crate) struct Link {
    #[serde(default)]
    token: String,
}

#[derive(Deserialize)]
pub(crate) struct Submitted {
    token: String,
    login: String,
    #[serde(default)]
    display_name: String,
    password: String,
}

/// Shows the form to the holder of the link.
#[handler]
pub async fn form(app: Data<&Arc<App>>, link: Query<Link>) -> Response {
    match invitations::look(&app, &link.0.token).await {
        Ok(invited) => {
            let typed = Typed { login: invited.invitation.email.as_deref().unwrap_or_default(), display_name: "" };
            page(
                StatusCode::OK,
                TITLE,
                &form_html(&place(&app.config, "/invitation"), &invited.organization_name, &link.0.token, &typed, &[]),
            )
        }
        Err(refused) => refusal(TITLE, &refused),
    }
}

/// Makes the account.
#[handler]
pub async fn submit(app: Data<&Arc<App>>, request: &Request, submitted: Form<Submitted>) -> Response {
    if is_from_elsewhere(request) {
        return refusal(TITLE, &Error::new(Cause::Forbidden));
    }
    let Some(exchange) = request.data::<Arc<Exchange>>() else {
        return refusal(TITLE, &Error::internal("no exchange"));
    };
    // The token comes first: without it nobody makes the server hash.
    let organization = match invitations::look(&app, &submitted.0.token).await {
        Ok(invited) => invited.organization_name,
        Err(refused) => return refusal(TITLE, &refused),
    };
    match accept(&app, exchange, &submitted.0).await {
        Ok(()) => page(StatusCode::OK, TITLE, &done_html(&organization, &submitted.0.login, &docs(&app.config))),
        Err(e) => {
            let faults = match e.cause {
                Cause::BadInput => {
                    e.fields.iter().map(|field| format!("The {} {}.", spoken(field.name()), field.message)).collect()
                }
                Cause::UsernameExists | Cause::EmailExists => vec![format!("{}.", capitalized(e.message()))],
                _ => return refusal(TITLE, &e),
            };
            let typed = Typed { login: &submitted.0.login, display_name: &submitted.0.display_name };
            let status = StatusCode::from_u16(e.cause.status()).unwrap_or(StatusCode::BAD_REQUEST);
            page(
                status,
                TITLE,
                &form_html(&place(&app.config, "/invitation"), &organization, &submitted.0.token, &typed, &faults),
            )
        }
    }
}

async fn accept(app: &App, exchange: &Arc<Exchange>, submitted: &Submitted) -> Result<()> {
    const DISPLAY_NAME_CHARACTERS_MAX: usize = 200;
    let Submitted { token, login, display_name, password } = submitted;
    let (login, display_name) = (login.trim(), display_name.trim());
    require_first(login, password)?;
    if display_name.chars().count() > DISPLAY_NAME_CHARACTERS_MAX || display_name.chars().any(char::is_control) {
        return Err(Error::field("display_name", "must be at most 200 plain characters"));
    }
    let (email, username) = if login.contains('@') { (Some(login), None) } else { (None, Some(login)) };
    let newcomer = Newcomer {
        username: username.map(str::to_owned),
        email: email.map(str::to_owned),
        display_name: (!display_name.is_empty()).then(|| display_name.to_owned()),
        password: password.clone(),
    };
    invitations::accept(app, exchange, token, newcomer).await.map(drop)
}

/// What the form is filled with.
struct Typed<'t> {
    login: &'t str,
    display_name: &'t str,
}

fn spoken(field: &str) -> String {
    field.replace('_', " ")
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn done_html(organization: &str, login: &str, docs: &str) -> String {
    format!(
        "<h1>Welcome to {}</h1><p>Your account <b>{}</b> is ready, and this link is used up. Sign in with it wherever \
         {} asks you to.</p><p><a href=\"{docs}\">API documentation</a></p>",
        escaped(organization),
        escaped(login.trim()),
        escaped(organization)
    )
}

fn form_html(action: &str, organization: &str, token: &str, typed: &Typed<'_>, faults: &[String]) -> String {
    format!(
        r#"<h1>{} invites you</h1>
<p>Make your account. This link works once.</p>{}
<form method="post" action="{action}">
<input type="hidden" name="token" value="{}">
<label>E-mail or username<input name="login" required maxlength="254" autocomplete="username" autofocus value="{}"></label>
<label>Your name, if you like<input name="display_name" maxlength="200" autocomplete="name" value="{}"></label>
<label>Password<input name="password" type="password" required minlength="8" maxlength="256" autocomplete="new-password"></label>
<p class="hint">At least 8 characters, with an upper-case letter and a digit or a sign. Not a common one.</p>
<button>Create account</button>
</form>"#,
        escaped(organization),
        faults_html(faults),
        escaped(token),
        escaped(typed.login),
        escaped(typed.display_name)
    )
}

#[cfg(test)]
mod tests {
    use super::{Typed, done_html, form_html};

    #[test]
    fn what_was_typed_cannot_become_markup() {
        let typed = Typed { login: "<b>'\"&", display_name: "\"><u>" };
        let html = form_html("/invitation", "<i>Acme</i>", "\"><script>", &typed, &["<s>".to_owned()]);
        let done = done_html("<i>Acme</i>", "<b>kim", "/api/v1");
        for tag in ["<script>", "<i>", "<u>", "<s>"] {
            assert!(!html.contains(tag) && !done.contains(tag), "{tag}");
        }
        assert!(!html.contains("<b>") && !done.contains("<b><b>"));
    }
}
