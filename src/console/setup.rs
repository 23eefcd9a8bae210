//! The set-up page: the holder of the one-time link creates the first administrator.
//!
//! **Invariant.** Without the token of the link the page shows nothing and creates nothing. The token works once, for a
//! limited time, and only while there is no administrator.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::{Data, Form, Query};
use poem::{Body, Request, Response, handler};
use serde::Deserialize;

use super::manual;
use super::page::{
    Fault, Input, PASSWORD_HINT, differing, docs, escaped, inputs_html, is_from_elsewhere, page, password_inputs,
    public_path, refusal,
};
use crate::features::members;
use crate::kernel::app::{App, is_setup_token};
use crate::kernel::authn::caller::FromCommandLine;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::Failure;

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
    again: String,
}

/// Shows the form to the holder of the link.
#[handler]
pub async fn form(app: Data<&Arc<App>>, link: Query<Link>) -> Response {
    let token = link.0.token;
    match require_open(&app, &token).await {
        Ok(()) => page(StatusCode::OK, TITLE, &form_html(&public_path(&app.config, "/setup"), &token, "", &[])),
        Err(refused) => refusal(TITLE, &refused),
    }
}

/// Creates the administrator.
#[handler]
pub async fn submit(app: Data<&Arc<App>>, request: &Request, submitted: Form<Submitted>) -> Response {
    let Submitted { token, login, password, again } = submitted.0;
    if is_from_elsewhere(request) {
        return refusal(TITLE, &Error::new(ErrorCode::Forbidden));
    }
    // The token is checked first, so that a request without it causes no password hash.
    if let Err(refused) = require_open(&app, &token).await {
        return refusal(TITLE, &refused);
    }
    let form_again = |faults: &[Fault]| {
        page(StatusCode::BAD_REQUEST, TITLE, &form_html(&public_path(&app.config, "/setup"), &token, &login, faults))
    };
    if let Some(fault) = differing(&password, &again) {
        return form_again(&[fault]);
    }
    let data = match app.config.data.to_str() {
        Some("roster-data") => String::new(),
        _ => escaped(&format!(" --data {}", app.config.data.display())),
    };
    match members::create_first_administrator(&app, &login, password, Some(token.clone())).await {
        Ok(_) => page(
            StatusCode::OK,
            TITLE,
            &format!(
                "<h1>Done</h1><p><b>{}</b> is the administrator of this Roster. This link cannot be used again.</p>\
                 <p>Next, on the computer that runs Roster, create an organization and a link for its first member:</p>\
                 <pre>roster org create acme 'Acme Studios'{data}\nroster invite create acme --role tenant_owner{data}</pre>\
                 <p><a href=\"{}\">Manual</a> · <a href=\"{}\">API documentation</a></p>",
                escaped(&login),
                public_path(&app.config, manual::PATH),
                docs(&app.config)
            ),
        ),
        Err(e) if e.code == ErrorCode::BadInput => {
            let fault = |field: &Field| Fault {
                field: if field.name() == "login" { "login" } else { "password" },
                text: format!("The {} {}.", field.name(), field.message),
            };
            form_again(&e.fields.iter().map(fault).collect::<Vec<_>>())
        }
        Err(e) => refusal(TITLE, &e),
    }
}

/// The body of a request to create the first administrator.
#[derive(Deserialize)]
struct FirstAdministrator {
    login: String,
    password: String,
}

/// Creates the administrator for `roster init`. Accepts requests of the command line on this machine only.
#[handler]
pub async fn new_administrator(app: Data<&Arc<App>>, request: &Request, body: Body) -> Result<Response, Failure> {
    if request.data::<FromCommandLine>().is_none() {
        return Err(ErrorCode::RouteNotFound.into());
    }
    let malformed = |why: String| Error::new(ErrorCode::MalformedBody).with_source(why);
    let bytes = body.into_bytes().await.map_err(|e| malformed(e.to_string()))?;
    let FirstAdministrator { login, password } =
        serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
    let uid = members::create_first_administrator(&app, &login, password, None).await?;
    Ok(answer(&serde_json::json!({"uid": uid})))
}

fn answer(data: &serde_json::Value) -> Response {
    let body = serde_json::json!({"code": 102_000, "message": "ok", "data": data});
    Response::builder().content_type("application/json").body(body.to_string())
}

/// Creates a new set-up link for `roster setup-link`. Accepts requests of the command line on this machine only.
#[handler]
pub async fn new_link(app: Data<&Arc<App>>, request: &Request) -> Result<Response, Failure> {
    if request.data::<FromCommandLine>().is_none() {
        return Err(ErrorCode::RouteNotFound.into());
    }
    if members::is_set_up(&app).await? {
        return Err(ErrorCode::SetupDone.into());
    }
    let token = app.new_setup_token().await?;
    let url = app.url.get().cloned().unwrap_or_else(|| app.config.public_url());
    let data = serde_json::json!({"setup_url": format!("{url}/setup?token={token}"), "expires_in": app.config.setup_link_ttl_s});
    Ok(answer(&data))
}

/// Requires a valid set-up token, and a site without an administrator.
async fn require_open(app: &Arc<App>, token: &str) -> Result<()> {
    let offered = token.to_owned();
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

fn form_html(action: &str, token: &str, login: &str, faults: &[Fault]) -> String {
    let login = Input {
        name: "login",
        label: "E-mail or username",
        attributes: "required maxlength=\"254\" autocomplete=\"username\"",
        value: Some(login),
    };
    let [password, again] = password_inputs("Password");
    format!(
        r#"<h1>Welcome to Roster</h1>
<p>Create the first administrator of this site. This link works once.</p>
<form method="post" action="{action}">
<input type="hidden" name="token" value="{}">
{}{PASSWORD_HINT}
<button>Create administrator</button>
</form>"#,
        escaped(token),
        inputs_html(&[login, password, again], faults)
    )
}

#[cfg(test)]
mod tests {
    use super::{Fault, form_html};

    #[test]
    fn submitted_values_are_escaped() {
        let fault = Fault { field: "login", text: "<i>".to_owned() };
        let html = form_html("/setup", "\"><script>", "<b>'\"&", &[fault]);
        assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains("<i>"));
    }

    #[test]
    fn the_first_invalid_field_has_the_focus() {
        let focus = |field: Option<&'static str>| {
            let faults: Vec<Fault> = Option::into_iter(field).map(|field| Fault { field, text: "x".into() }).collect();
            let html = form_html("/setup", "t", "kim", &faults);
            let focused = html.split("<input").filter(|input| input.contains(" autofocus")).collect::<Vec<_>>();
            assert_eq!(focused.len(), 1, "{html}");
            ["login", "password", "again"].into_iter().find(|name| focused[0].contains(&format!("name=\"{name}\"")))
        };
        assert_eq!(focus(None), Some("login"));
        for field in ["login", "password", "again"] {
            assert_eq!(focus(Some(field)), Some(field));
        }
    }
}
