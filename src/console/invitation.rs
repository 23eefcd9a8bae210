//! The invitation page: the holder of the link creates an account in the inviting organization.
//!
//! **Invariant.** Without a valid link the page shows nothing and creates nothing. Invalid input does not consume the link.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::{Data, Form, Query};
use poem::{Request, Response, handler};
use serde::Deserialize;

use super::page::{
    Fault, Input, PASSWORD_HINT, capitalized, differing, docs, escaped, inputs_html, is_from_elsewhere, page,
    password_inputs, public_path, refusal,
};
use crate::features::invitations::{self, InvitedMember};
use crate::features::members::validate_first_administrator;
use crate::kernel::app::App;
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode, Field, Result};

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
    again: String,
}

/// Shows the form to the holder of the link.
#[handler]
pub async fn form(app: Data<&Arc<App>>, link: Query<Link>) -> Response {
    match invitations::preview(&app, &link.0.token).await {
        Ok(invited) => {
            let typed = Typed { login: invited.invitation.email.as_deref().unwrap_or_default(), display_name: "" };
            page(StatusCode::OK, TITLE, &form_html(&app, &invited.organization_name, &link.0.token, &typed, &[]))
        }
        Err(refused) => refusal(TITLE, &refused),
    }
}

/// Creates the account.
#[handler]
pub async fn submit(app: Data<&Arc<App>>, request: &Request, submitted: Form<Submitted>) -> Response {
    if is_from_elsewhere(request) {
        return refusal(TITLE, &Error::new(ErrorCode::Forbidden));
    }
    let Some(context) = request.data::<Arc<RequestContext>>() else {
        return refusal(TITLE, &Error::internal("no request context"));
    };
    // The token is checked first, so that a request without it causes no password hash.
    let organization = match invitations::preview(&app, &submitted.0.token).await {
        Ok(invited) => invited.organization_name,
        Err(refused) => return refusal(TITLE, &refused),
    };
    let form_again = |status: u16, faults: &[Fault]| {
        let typed = Typed { login: &submitted.0.login, display_name: &submitted.0.display_name };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        page(status, TITLE, &form_html(&app, &organization, &submitted.0.token, &typed, faults))
    };
    if let Some(fault) = differing(&submitted.0.password, &submitted.0.again) {
        return form_again(400, &[fault]);
    }
    match accept(&app, context, &submitted.0).await {
        Ok(()) => page(StatusCode::OK, TITLE, &done_html(&organization, &submitted.0.login, &docs(&app.config))),
        Err(e) => {
            let faults = match e.code {
                ErrorCode::BadInput => e.fields.iter().map(fault).collect::<Vec<_>>(),
                ErrorCode::UsernameExists | ErrorCode::EmailExists => {
                    let text = format!(
                        "{}. If that is you, join with your account, as described below.",
                        capitalized(e.message())
                    );
                    vec![Fault { field: "login", text }]
                }
                _ => return refusal(TITLE, &e),
            };
            form_again(e.code.status(), &faults)
        }
    }
}

fn fault(field: &Field) -> Fault {
    let input = match field.name() {
        "password" => "password",
        "display_name" => "display_name",
        _ => "login",
    };
    Fault { field: input, text: format!("The {} {}.", field.name().replace('_', " "), field.message) }
}

async fn accept(app: &App, context: &Arc<RequestContext>, submitted: &Submitted) -> Result<()> {
    const DISPLAY_NAME_CHARACTERS_MAX: usize = 200;
    let Submitted { token, login, display_name, password, .. } = submitted;
    let (login, display_name) = (login.trim(), display_name.trim());
    validate_first_administrator(login, password)?;
    if display_name.chars().count() > DISPLAY_NAME_CHARACTERS_MAX || display_name.chars().any(char::is_control) {
        return Err(Error::field("display_name", "must be at most 200 plain characters"));
    }
    let (email, username) = if login.contains('@') { (Some(login), None) } else { (None, Some(login)) };
    let member = InvitedMember {
        username: username.map(str::to_owned),
        email: email.map(str::to_owned),
        display_name: (!display_name.is_empty()).then(|| display_name.to_owned()),
        password: password.clone(),
    };
    invitations::accept(app, context, token, member).await.map(drop)
}

/// Values to fill the form with.
struct Typed<'t> {
    login: &'t str,
    display_name: &'t str,
}

fn done_html(organization: &str, login: &str, docs: &str) -> String {
    format!(
        "<h1>Welcome to {}</h1><p>Your account <b>{}</b> is ready, and this link cannot be used again. Sign in with it where \
         {} asks you to.</p><p><a href=\"{docs}\">API documentation</a></p>",
        escaped(organization),
        escaped(login.trim()),
        escaped(organization)
    )
}

fn form_html(app: &App, organization: &str, token: &str, typed: &Typed<'_>, faults: &[Fault]) -> String {
    let join = public_path(&app.config, "/me/invitations/accept");
    form_of(&public_path(&app.config, "/invitation"), &join, (organization, token), typed, faults)
}

fn form_of(
    action: &str,
    join: &str,
    (organization, token): (&str, &str),
    typed: &Typed<'_>,
    faults: &[Fault],
) -> String {
    let login = Input {
        name: "login",
        label: "E-mail or username",
        attributes: "required maxlength=\"254\" autocomplete=\"username\"",
        value: Some(typed.login),
    };
    let name = Input {
        name: "display_name",
        label: "Your name (optional)",
        attributes: "maxlength=\"200\" autocomplete=\"name\"",
        value: Some(typed.display_name),
    };
    let [password, again] = password_inputs("Password");
    let (organization, token) = (escaped(organization), escaped(token));
    format!(
        r#"<h1>{organization} invites you</h1>
<p>Create your account. This link works once.</p>
<form method="post" action="{action}">
<input type="hidden" name="token" value="{token}">
{}{PASSWORD_HINT}
<button>Create account</button>
</form>
<p class="hint"><b>Do you already have an account here?</b> Then do not create a second one. Sign in where you use it, and
give this code to the people who run that page, or send it yourself while signed in, as <code>{{"token": "…"}}</code> to
<code>POST {join}</code>. You join {organization} with your existing account.</p>
<p class="hint"><code>{token}</code></p>"#,
        inputs_html(&[login, name, password, again], faults)
    )
}

#[cfg(test)]
mod tests {
    use super::{Fault, Typed, done_html, form_of};

    #[test]
    fn submitted_values_are_escaped() {
        let typed = Typed { login: "<a>'\"&", display_name: "\"><u>" };
        let faults = [Fault { field: "login", text: "<s>".to_owned() }];
        let html = form_of("/invitation", "/me", ("<i>Acme</i>", "\"><script>"), &typed, &faults);
        let done = done_html("<i>Acme</i>", "<b>kim", "/api/v1");
        for tag in ["<script>", "<i>", "<u>", "<s>", "<a>"] {
            assert!(!html.contains(tag) && !done.contains(tag), "{tag}");
        }
        assert!(!done.contains("<b><b>"));
    }
}
