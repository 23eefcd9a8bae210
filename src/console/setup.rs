//! The endpoints of the command line for the first administrator: a new set-up link, and `roster init`. The page of the link
//! is `sign_in/setup.rs`.

use std::sync::Arc;

use poem::web::Data;
use poem::{Body, Request, Response, handler};
use serde::Deserialize;

use crate::features::members;
use crate::kernel::app::App;
use crate::kernel::authn::caller::FromCommandLine;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::Failure;

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
