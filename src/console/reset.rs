//! The password reset page: the holder of a password link sets a new password.
//!
//! **Invariant.** The page does not show which member the link belongs to, and creates no session.

use std::sync::Arc;

use poem::http::StatusCode;
use poem::web::{Data, Form, Query};
use poem::{Request, Response, handler};
use serde::Deserialize;

use super::page::{
    Fault, PASSWORD_HINT, differing, escaped, inputs_html, is_from_elsewhere, page, password_inputs, public_path,
    refusal,
};
use crate::features::sessions::passwords::{require_link, reset_password};
use crate::kernel::app::App;
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode};

const TITLE: &str = "New password – Roster";

#[derive(Deserialize)]
pub(crate) struct Link {
    #[serde(default)]
    token: String,
}

#[derive(Deserialize)]
pub(crate) struct Submitted {
    token: String,
    password: String,
    again: String,
}

/// Shows the form to the holder of a link.
#[handler]
pub async fn form(app: Data<&Arc<App>>, link: Query<Link>) -> Response {
    let token = link.0.token;
    match require_link(&app, &token).await {
        Ok(()) => page(StatusCode::OK, TITLE, &form_html(&public_path(&app.config, "/reset"), &token, &[])),
        Err(refused) => refusal(TITLE, &refused),
    }
}

/// Sets the password.
#[handler]
pub async fn submit(
    app: Data<&Arc<App>>,
    context: Data<&Arc<RequestContext>>,
    request: &Request,
    submitted: Form<Submitted>,
) -> Response {
    let Submitted { token, password, again } = submitted.0;
    if is_from_elsewhere(request) {
        return refusal(TITLE, &Error::new(ErrorCode::Forbidden));
    }
    if let Err(refused) = require_link(&app, &token).await {
        return refusal(TITLE, &refused);
    }
    if let Some(fault) = differing(&password, &again) {
        return page(StatusCode::BAD_REQUEST, TITLE, &form_html(&public_path(&app.config, "/reset"), &token, &[fault]));
    }
    match reset_password(&app, &context, token.clone(), password).await {
        Ok(()) => page(
            StatusCode::OK,
            TITLE,
            "<h1>Done</h1><p>Your new password is set, and all your sessions have ended. Sign in with the new password. \
             This link cannot be used again.</p>",
        ),
        Err(e) if e.code == ErrorCode::BadInput => {
            let fault = |message: &str| Fault { field: "password", text: format!("The password {message}.") };
            let faults: Vec<Fault> = e.fields.iter().map(|field| fault(&field.message)).collect();
            page(StatusCode::BAD_REQUEST, TITLE, &form_html(&public_path(&app.config, "/reset"), &token, &faults))
        }
        Err(e) => refusal(TITLE, &e),
    }
}

fn form_html(action: &str, token: &str, faults: &[Fault]) -> String {
    format!(
        r#"<h1>Set a new password</h1>
<p>This link works once. All your sessions will end.</p>
<form method="post" action="{action}">
<input type="hidden" name="token" value="{}">
{}{PASSWORD_HINT}
<button>Set password</button>
</form>"#,
        escaped(token),
        inputs_html(&password_inputs("New password"), faults)
    )
}

#[cfg(test)]
mod tests {
    use super::{Fault, form_html};

    #[test]
    fn submitted_values_are_escaped() {
        let html = form_html("/reset", "\"><script>", &[Fault { field: "again", text: "<i>".to_owned() }]);
        assert!(!html.contains("<script>") && !html.contains("<i>"));
    }
}
