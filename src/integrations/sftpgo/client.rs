//! Client of SFTPGo's REST API: authentication and users. One request at a time.

use reqwest::{Method, Request, RequestBuilder, Url};
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;

use super::account::name_of;
use crate::kernel::app::App;
use crate::kernel::error::Error;
use crate::kernel::ids::Timestamp;
use crate::kernel::outbound::connection::{ConnectionFailure, FailureCause};
use crate::kernel::outbound::{Refusal, Response, retry_after};

/// A user of SFTPGo, including all fields that are unknown here, because an update replaces the user as a whole.
pub type Account = Map<String, Value>;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    Later {
        why: String,
        not_before_s: Option<u64>,
    },
    /// Retrying cannot succeed.
    Refused(String),
}

impl ClientError {
    pub fn later(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), not_before_s: None }
    }
}

impl From<Error> for ClientError {
    fn from(error: Error) -> Self {
        let not_before_s = error.retry_after_s.map(|seconds| u64::from(seconds.get()));
        Self::Later { why: error.source.as_deref().unwrap_or(error.message()).to_owned(), not_before_s }
    }
}

impl From<ClientError> for ConnectionFailure {
    fn from(error: ClientError) -> Self {
        let (ClientError::Later { why, .. } | ClientError::Refused(why)) = error;
        Self::new(FailureCause::UnexpectedAnswer, why)
    }
}

/// The name of the connection.
pub const NAME: &str = "sftpgo";

/// Tests address, credentials and permission: gets a token of its own, asks the version, and reads one user. It does not
/// wait for other requests.
pub async fn test(app: &App) -> Result<(), ConnectionFailure> {
    let (config, outbound) = (&app.config, &app.outbound);
    let secret = config.sftpgo_secret.clone().unwrap_or_default();
    let get = |path: &[&str], query: &[(&str, &str)]| -> Result<RequestBuilder, ConnectionFailure> {
        Ok(outbound.client()?.get(url_of(&config.sftpgo_url, path, query)?))
    };
    let token = match config.sftpgo_username.as_str() {
        "" => None,
        username => {
            let request = get(&["token"], &[])?.basic_auth(username, Some(&secret));
            let answer = outbound.probe(built(request)?).await?.json()?;
            let token = answer["access_token"].as_str().ok_or_else(|| no_sftpgo("contains no token"))?.to_owned();
            outbound.secrets.add_token(&token);
            Some(token)
        }
    };
    let ask = async |path: &[&str], query: &[(&str, &str)]| {
        let request = match &token {
            Some(token) => get(path, query)?.bearer_auth(token),
            None => get(path, query)?.header("X-SFTPGO-API-KEY", &secret),
        };
        let answered = outbound.probe(built(request)?).await;
        // SFTPGo answers 400 for an API key that it does not know.
        answered.map_err(|failure| match failure.status {
            Some(400) if token.is_none() => failure.with_cause(FailureCause::Unauthorized),
            _ => failure,
        })
    };
    if !ask(&["version"], &[]).await?.json()?["version"].is_string() {
        return Err(no_sftpgo("contains no version"));
    }
    let users = ask(&["users"], &[("limit", "1")]).await?.json()?;
    if users.is_array() { Ok(()) } else { Err(no_sftpgo("contains no list of users")) }
}

fn no_sftpgo(why: &str) -> ConnectionFailure {
    ConnectionFailure::new(FailureCause::UnexpectedAnswer, format!("its answer {why}: is this SFTPGo?"))
}

/// Exclusive access to SFTPGo's users: no other task writes between reading a user and writing it. Every request has a
/// time-out, and hooks that SFTPGo calls do not wait for it.
pub struct Connection<'a> {
    app: &'a App,
    /// The access token, shared by all connections until SFTPGo rejects it.
    token: OwnedMutexGuard<Option<String>>,
}

impl<'a> Connection<'a> {
    pub async fn begin(app: &'a App) -> Self {
        Self { app, token: app.outbound.token_at(NAME).lock_owned().await }
    }

    pub async fn find(&mut self, name: &str) -> Result<Option<Account>, ClientError> {
        let answer = self.ask(Method::GET, &["users", name], &[], None).await?;
        match answer.status {
            404 => Ok(None),
            200 => user_of(&answer, name).map(Some),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Creates a user; returns false if the name is taken.
    pub async fn create(&mut self, user: &Account) -> Result<bool, ClientError> {
        let answer = self.ask(Method::POST, &["users"], &[], Some(user)).await?;
        match answer.status {
            201 => Ok(true),
            409 => Ok(false),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Replaces a user. `ends_sessions` disconnects its sessions, which otherwise keep the previous settings.
    pub async fn put(&mut self, name: &str, user: &Account, ends_sessions: bool) -> Result<(), ClientError> {
        let query: &[(&str, &str)] = if ends_sessions { &[("disconnect", "1")] } else { &[] };
        let answer = self.ask(Method::PUT, &["users", name], query, Some(user)).await?;
        if answer.status == 200 { Ok(()) } else { Err(unexpected(&answer)) }
    }

    pub async fn delete(&mut self, name: &str) -> Result<(), ClientError> {
        let answer = self.ask(Method::DELETE, &["users", name], &[], None).await?;
        if matches!(answer.status, 200 | 404) { Ok(()) } else { Err(unexpected(&answer)) }
    }

    /// Returns a page of users, ordered by name.
    pub async fn list(&mut self, offset: u64, limit: u64) -> Result<Vec<Account>, ClientError> {
        let (offset, limit) = (offset.to_string(), limit.to_string());
        let query = [("offset", offset.as_str()), ("limit", limit.as_str()), ("order", "ASC")];
        let answer = self.ask(Method::GET, &["users"], &query, None).await?;
        if answer.status != 200 {
            return Err(unexpected(&answer));
        }
        serde_json::from_value(answer.json()?)
            .map_err(|e| ClientError::later(format!("its list of users is malformed: {e}")))
    }

    /// Starts a quota scan of a user's files. Returns false if SFTPGo does not track quotas or is scanning already.
    pub async fn scan(&mut self, name: &str) -> Result<bool, ClientError> {
        let answer = self.ask(Method::POST, &["quotas", "users", name, "scan"], &[], None).await?;
        match answer.status {
            202 => Ok(true),
            403 | 404 | 409 => Ok(false),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Sends a request; retries with a new token if the present one is rejected.
    async fn ask(
        &mut self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Account>,
    ) -> Result<Response, ClientError> {
        if path.iter().any(|part| [".", "..", ""].contains(part)) {
            return Err(ClientError::Refused("this name cannot be part of a URL".into()));
        }
        let url = url_of(&self.app.config.sftpgo_url, path, query)?;
        let is_by_token = !self.app.config.sftpgo_username.is_empty();
        let mut answer = self.send(&method, &url, body).await?;
        if answer.status == 401 && is_by_token {
            *self.token = None;
            answer = self.send(&method, &url, body).await?;
        }
        // For a scan, 403 means that SFTPGo does not track quotas.
        let is_refused = matches!(answer.status, 401 | 403) && path.last() != Some(&"scan");
        if let Some(failure) = ConnectionFailure::of_response(&answer).filter(|_| is_refused) {
            self.app.outbound.records.record_failure(NAME, failure);
        }
        require_usable(answer)
    }

    async fn send(&mut self, method: &Method, url: &Url, body: Option<&Account>) -> Result<Response, ClientError> {
        let secret = self.app.config.sftpgo_secret.clone().unwrap_or_default();
        let request = self.app.outbound.client()?.request(method.clone(), url.clone());
        let request = match self.app.config.sftpgo_username.is_empty() {
            true => request.header("X-SFTPGO-API-KEY", secret),
            false => request.bearer_auth(self.token(&secret).await?),
        };
        let request = match body {
            Some(body) => {
                request.header("content-type", "application/json").body(Value::from(body.clone()).to_string())
            }
            None => request,
        };
        // A token may have expired; `ask` records what follows.
        Ok(self.app.outbound.send(NAME, built(request)?, Refusal::OfRequest).await?)
    }

    /// Returns the cached token, or requests a new one.
    async fn token(&mut self, password: &str) -> Result<String, ClientError> {
        if let Some(token) = self.token.as_ref() {
            return Ok(token.clone());
        }
        let url = url_of(&self.app.config.sftpgo_url, &["token"], &[])?;
        let request = self.app.outbound.client()?.get(url).basic_auth(&self.app.config.sftpgo_username, Some(password));
        let answer = require_usable(self.app.outbound.send(NAME, built(request)?, Refusal::OfSettings).await?)?;
        if answer.status != 200 {
            return Err(unexpected(&answer));
        }
        let body = answer.json()?;
        let text =
            body["access_token"].as_str().ok_or_else(|| ClientError::later("its answer contains no token"))?.to_owned();
        self.app.outbound.secrets.add_token(&text);
        Ok(self.token.insert(text).clone())
    }
}

fn built(request: RequestBuilder) -> Result<Request, ClientError> {
    request.build().map_err(|e| ClientError::later(format!("the request cannot be built: {}", e.without_url())))
}

fn url_of(base: &str, path: &[&str], query: &[(&str, &str)]) -> Result<Url, ClientError> {
    let mut url = Url::parse(base).map_err(|e| ClientError::later(format!("sftpgo.url: {e}")))?;
    url.path_segments_mut().map_err(|()| ClientError::later("sftpgo.url is not a valid URL"))?.extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

/// Rejects answers that say nothing about the request: server errors, rejected credentials, and pages of a proxy in
/// between.
fn require_usable(answer: Response) -> Result<Response, ClientError> {
    let status = answer.status;
    let not_before_s = retry_after(&answer.headers, Timestamp::now());
    match status {
        429 | 500.. => Err(ClientError::Later { why: format!("it answered {status}"), not_before_s }),
        401 => Err(ClientError::later("it answered 401: are sftpgo.username and sftpgo.secret_file right?")),
        300..=399 => Err(ClientError::later(format!("it answered {status}: does sftpgo.url redirect?"))),
        _ => {
            // SFTPGo always answers JSON: anything else comes from a proxy in between.
            answer.json()?;
            Ok(answer)
        }
    }
}

/// Converts an unexpected answer. A validation error is final; its text names fields, not persons, but can be long.
fn unexpected(answer: &Response) -> ClientError {
    const TEXT_CHARS_MAX: usize = 200;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = [&body["message"], &body["error"]].into_iter().filter_map(Value::as_str).find(|text| !text.is_empty());
    let text: String = text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect();
    match answer.status {
        400 => ClientError::Refused(format!("it answered 400: {text}")),
        403 => ClientError::later(format!("it answered 403: does our administrator have this permission? {text}")),
        status => ClientError::later(format!("it answered {status}: {text}")),
    }
}

fn user_of(answer: &Response, name: &str) -> Result<Account, ClientError> {
    // SFTPGo can be configured to fold names.
    let is_same = |user: &Account| name_of(user).trim().to_lowercase() == name.trim().to_lowercase();
    match answer.json()? {
        Value::Object(user) if is_same(&user) => Ok(user),
        _ => Err(ClientError::later("it answered about another user")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_url() {
        let url = |name: &str| url_of("http://s/api/v2", &["users", name], &[]).expect("an address").to_string();
        assert_eq!(url("kim"), "http://s/api/v2/users/kim");
        assert_eq!(url("a/../b?c#d%e f"), "http://s/api/v2/users/a%2F..%2Fb%3Fc%23d%25e%20f");
        assert_eq!(url("金"), "http://s/api/v2/users/%E9%87%91");
    }
}
