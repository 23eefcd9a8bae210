//! Client of Authentik's admin API: reads, creates and updates accounts.

use reqwest::{Method, Request, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::kernel::app::App;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::outbound::connection::{ConnectionFailure, FailureCause};
use crate::kernel::outbound::{Refusal, Response};

/// An account, with the fields that are used here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Account {
    pub pk: i64,
    /// The `sub` of its tokens, unless the provider at Authentik is configured otherwise.
    pub uid: String,
    pub username: String,
    pub name: String,
    #[serde(default)]
    pub email: String,
    #[serde(default = "yes")]
    pub is_active: bool,
    /// Authentik's own administrators.
    #[serde(default)]
    pub is_superuser: bool,
    /// `internal` and `external` are people.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Shared with other programs; can only be replaced as a whole.
    #[serde(default)]
    pub attributes: Map<String, Value>,
}

/// The attribute that names the member of an account.
const ROSTER_UID: &str = "roster_uid";

impl Account {
    /// Returns the member id that the account was linked to.
    pub fn roster_uid(&self) -> Option<&str> {
        self.attributes.get(ROSTER_UID).and_then(Value::as_str)
    }

    pub fn is_personal(&self) -> bool {
        !self.is_superuser && self.kind.as_deref().is_none_or(|kind| matches!(kind, "internal" | "external"))
    }
}

fn yes() -> bool {
    true
}

/// The desired account; absent fields stay unchanged.
#[derive(Debug, Clone)]
pub struct DesiredUser {
    pub username: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub is_active: Option<bool>,
    pub roster_uid: String,
}

/// Returns the account with this id, if any.
pub async fn find(app: &App, pk: &str) -> Result<Option<Account>> {
    // Only numbers are valid: the stored id becomes part of a URL.
    let Ok(pk) = pk.parse::<i64>() else { return Ok(None) };
    let answer = send(app, Method::GET, &format!("core/users/{pk}/"), None).await?;
    match answer.status {
        404 => Ok(None),
        _ => account(&answer, 200).map(Some),
    }
}

/// Returns the account with this username, if any.
pub async fn find_by_username(app: &App, username: &str) -> Result<Option<Account>> {
    #[derive(Deserialize)]
    struct Page {
        results: Vec<Account>,
    }
    let answer = send(app, Method::GET, "core/users/", Some(Payload::Query("username", username))).await?;
    if answer.status != 200 {
        return Err(refused(&answer));
    }
    let page: Page = read(&answer)?;
    Ok(page.results.into_iter().find(|account| account.username == username))
}

/// Creates an account; returns `None` if the username is taken.
pub async fn create(app: &App, desired: &DesiredUser) -> Result<Option<Account>> {
    let username = desired.username.as_deref().unwrap_or_default();
    let mut body = Map::new();
    body.insert("username".into(), json!(username));
    body.insert("name".into(), json!(desired.name.as_deref().unwrap_or(username)));
    body.insert("is_active".into(), json!(desired.is_active.unwrap_or(true)));
    body.insert("attributes".into(), json!({ROSTER_UID: desired.roster_uid}));
    if let Some(email) = &desired.email {
        body.insert("email".into(), json!(email));
    }
    let answer = send(app, Method::POST, "core/users/", Some(Payload::Body(body.into()))).await?;
    if answer.status == 400 && answer.json()?.get("username").is_some() {
        return Ok(None);
    }
    account(&answer, 201).map(Some)
}

/// Updates an account; sends no request if nothing differs. Returns `None` if another account has the username.
pub async fn update(app: &App, account_now: &Account, desired: &DesiredUser) -> Result<Option<Account>> {
    let mut body = Map::new();
    let mut put = |name: &str, now: &str, wanted: &Option<String>| {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != now) {
            body.insert(name.into(), json!(wanted));
        }
    };
    put("username", &account_now.username, &desired.username);
    put("name", &account_now.name, &desired.name);
    put("email", &account_now.email, &desired.email);
    if let Some(is_active) = desired.is_active.filter(|is_active| *is_active != account_now.is_active) {
        body.insert("is_active".into(), json!(is_active));
    }
    if account_now.roster_uid() != Some(desired.roster_uid.as_str()) {
        let mut attributes = account_now.attributes.clone();
        attributes.insert(ROSTER_UID.into(), json!(desired.roster_uid));
        body.insert("attributes".into(), attributes.into());
    }
    if body.is_empty() {
        return Ok(Some(account_now.clone()));
    }
    let path = format!("core/users/{}/", account_now.pk);
    let answer = send(app, Method::PATCH, &path, Some(Payload::Body(body.into()))).await?;
    if answer.status == 400 && answer.json()?.get("username").is_some() {
        return Ok(None);
    }
    account(&answer, 200).map(Some)
}

enum Payload<'a> {
    Query(&'static str, &'a str),
    Body(Value),
}

/// The name of the connection.
pub const NAME: &str = "authentik";

/// Asks who the owner of the token is.
pub async fn test(app: &App) -> Result<(), ConnectionFailure> {
    let answered = app.outbound.probe(request(app, Method::GET, "core/users/me/", None)?).await;
    // Authentik answers 403 for a token that it does not know, and everybody may ask this.
    let answer = answered.map_err(|failure| match failure.cause {
        FailureCause::Forbidden => failure.with_cause(FailureCause::Unauthorized),
        _ => failure,
    })?;
    if answer.json()?["user"]["pk"].is_number() {
        return Ok(());
    }
    let message = "its answer names no user: is this Authentik?";
    Err(ConnectionFailure::new(FailureCause::UnexpectedAnswer, message))
}

async fn send(app: &App, method: Method, path: &str, sent: Option<Payload<'_>>) -> Result<Response> {
    app.outbound.send(NAME, request(app, method, path, sent)?, Refusal::OfSettings).await
}

fn request(app: &App, method: Method, path: &str, sent: Option<Payload<'_>>) -> Result<Request> {
    let Some(token) = app.config.authentik_token.as_deref().filter(|_| !app.config.authentik_url.is_empty()) else {
        return Err(ErrorCode::AuthentikNotConfigured.into());
    };
    let impossible = |e: String| Error::internal(format!("the request to Authentik cannot be built: {e}"));
    let mut url =
        Url::parse(&format!("{}/api/v3/{path}", app.config.authentik_url)).map_err(|e| impossible(e.to_string()))?;
    let mut body = None;
    match sent {
        Some(Payload::Query(name, value)) => drop(url.query_pairs_mut().append_pair(name, value)),
        Some(Payload::Body(value)) => body = Some(value),
        None => {}
    }
    let request: RequestBuilder = app.outbound.client()?.request(method, url).bearer_auth(token);
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string()),
        None => request,
    };
    request.build().map_err(|e| impossible(e.to_string()))
}

fn account(answer: &Response, expected: u16) -> Result<Account> {
    if answer.status != expected {
        return Err(refused(answer));
    }
    let account: Account = read(answer)?;
    if account.pk < 1 || account.uid.is_empty() {
        return Err(
            Error::new(ErrorCode::ExternalSystemFailed).with_source("Authentik: an account without a pk or uid")
        );
    }
    Ok(account)
}

fn read<T: serde::de::DeserializeOwned>(answer: &Response) -> Result<T> {
    serde_json::from_value(answer.json()?).map_err(|e| {
        Error::new(ErrorCode::ExternalSystemFailed).with_source(format!("Authentik: unexpected answer: {e}"))
    })
}

/// Converts a failed answer. The error names the invalid fields but not their values, which can be personal data.
fn refused(answer: &Response) -> Error {
    let fields: Vec<String> = match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(fields)) => fields.keys().map(|name| name.chars().take(40).collect()).collect(),
        _ => Vec::new(),
    };
    let advice =
        if matches!(answer.status, 401 | 403) { ": does authentik.token_file have this permission?" } else { "" };
    let why = format!("Authentik: status {} {}{advice}", answer.status, fields.join(" "));
    Error::new(ErrorCode::ExternalSystemFailed).with_source(why)
}
