//! The set-up page: whoever holds the one-time link makes the first administrator.
//!
//! **Invariant.** Without the link's token nothing is shown and nothing can be made; the token works once, for a time,
//! and only while there is no administrator.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::{Data, Form, Query};
use poem::{Request, Response, handler};
use serde::Deserialize;

use super::page::{docs, escaped, faults_html, is_from_elsewhere, page, place, refusal};
use crate::access::caller::FromCommandLine;
use crate::app::{App, is_setup_token};
use crate::error::{Cause, Error, Result};
use crate::members;
use crate::wire::Failure;

const TITLE: &str = "Roster set-up";

#[derive(Deserialize)]
pub(crate) struct Link {
    #[serde(default)]
    token: String,
}

#[derive(Deserialize)]
pub(crate) struct Submitted {
    token: String,
    login: String,
    password: String,
}

/// Shows the form to the holder of the link.
#[handler]
pub async fn form(app: Data<&Arc<App>>, link: Query<Link>) -> Response {
    let token = link.0.token;
    match require_open(&app, &token).await {
        Ok(()) => page(StatusCode::OK, TITLE, &form_html(&place(&app.config, "/setup"), &token, "", &[])),
        Err(refused) => refusal(TITLE, &refused),
    }
}

/// Makes the administrator.
#[handler]
pub async fn submit(app: Data<&Arc<App>>, request: &Request, submitted: Form<Submitted>) -> Response {
    let Submitted { token, login, password } = submitted.0;
    if is_from_elsewhere(request) {
        return refusal(TITLE, &Error::new(Cause::Forbidden));
    }
    // The token comes first: without it nobody makes the server hash.
    if let Err(refused) = require_open(&app, &token).await {
        return refusal(TITLE, &refused);
    }
    match members::create_first_administrator(&app, &login, password, Some(token.clone())).await {
        Ok(_) => page(
            StatusCode::OK,
            TITLE,
            &format!(
                "<h1>Done</h1><p><b>{}</b> is the administrator of this Roster. This link is used up.</p><p><a href=\"{}\">API documentation</a></p>",
                escaped(&login),
                docs(&app.config)
            ),
        ),
        Err(e) if e.cause == Cause::BadInput => {
            let faults: Vec<String> =
                e.fields.iter().map(|field| format!("The {} {}.", field.name(), field.message)).collect();
            page(StatusCode::BAD_REQUEST, TITLE, &form_html(&place(&app.config, "/setup"), &token, &login, &faults))
        }
        Err(e) => refusal(TITLE, &e),
    }
}

/// A new link, for the command line on this machine only.
#[handler]
pub async fn new_link(app: Data<&Arc<App>>, request: &Request) -> Result<Response, Failure> {
    if request.data::<FromCommandLine>().is_none() {
        return Err(Cause::RouteNotFound.into());
    }
    if members::is_set_up(&app).await? {
        return Err(Cause::SetupDone.into());
    }
    let token = app.new_setup_token().await?;
    let url = app.url.get().cloned().unwrap_or_else(|| app.config.public_url());
    let data = serde_json::json!({"setup_url": format!("{url}/setup?token={token}"), "expires_in": app.config.setup_link_ttl_s});
    let body = serde_json::json!({"code": 102_000, "message": "ok", "data": data});
    Ok(Response::builder().content_type("application/json").body(body.to_string()))
}

async fn require_open(app: &Arc<App>, token: &str) -> Result<()> {
    let offered = token.to_owned();
    if !app.read(move |r| is_setup_token(r, &offered)).await? {
        return Err(Cause::SetupToken.into());
    }
    if members::is_set_up(app).await? { Err(Cause::SetupDone.into()) } else { Ok(()) }
}

fn form_html(action: &str, token: &str, login: &str, faults: &[String]) -> String {
    let faults = faults_html(faults);
    format!(
        r#"<h1>Welcome to Roster</h1>
<p>Make the first administrator of this site. This link works once.</p>{faults}
<form method="post" action="{action}">
<input type="hidden" name="token" value="{}">
<label>E-mail or username<input name="login" required maxlength="254" autocomplete="username" autofocus value="{}"></label>
<label>Password<input name="password" type="password" required minlength="8" maxlength="256" autocomplete="new-password"></label>
<p class="hint">At least 8 characters, with an upper-case letter and a digit or a sign. Not a common one.</p>
<button>Create administrator</button>
</form>"#,
        escaped(token),
        escaped(login)
    )
}

#[cfg(test)]
mod tests {
    use super::form_html;

    #[test]
    fn what_was_typed_cannot_become_markup() {
        let html = form_html("/setup", "\"><script>", "<b>'\"&", &["<i>".to_owned()]);
        assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains("<i>"));
    }
}
