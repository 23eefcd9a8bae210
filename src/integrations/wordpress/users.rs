//! Reads WordPress users through its REST API, as an administrator.
//!
//! **Invariant.** A user is gone only if WordPress says so for its number: an incomplete list, a shifted page, and a
//! 404 from a proxy in between prove nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{UnreadableUser, WordPressUser, failed, read, read_me, read_one, users};
use crate::kernel::app::App;
use crate::kernel::error::Result;
use crate::kernel::outbound::{Refusal, Response};

/// The page size, which is also WordPress's maximum.
pub const PAGE: usize = 100;

/// A client with the credentials of a WordPress administrator.
pub struct AdminClient<'a> {
    app: &'a App,
    password: &'a str,
}

impl<'a> AdminClient<'a> {
    /// Returns `None` if no administrator is configured.
    pub fn from_config(app: &'a App) -> Option<Self> {
        let config = &app.config;
        let is_named = !config.wordpress_url.is_empty() && !config.wordpress_username.is_empty();
        config.wordpress_password.as_deref().filter(|_| is_named).map(|password| Self { app, password })
    }

    /// Fails unless WordPress accepts the credentials.
    pub async fn check_credentials(&self) -> Result<()> {
        read_me(&self.ask("/me", &[]).await?, &self.app.config.wordpress_username).map(drop)
    }

    /// Returns the user with this number: `None` if WordPress says that there is none, or why it cannot be read.
    pub async fn find(&self, id: u64) -> Result<Result<Option<WordPressUser>, UnreadableUser>> {
        let answer = self.ask(&format!("/{id}"), &[]).await?;
        if answer.status == 404 {
            let code = answer.json().ok().and_then(|body| body["code"].as_str().map(str::to_owned));
            return match code.as_deref() {
                Some("rest_user_invalid_id") => Ok(Ok(None)),
                _ => Err(failed("status 404, but not from WordPress's user API")),
            };
        }
        let user: Value = read(&answer)?;
        if user["id"].as_u64() != Some(id) {
            return Err(failed("it answered about another user"));
        }
        Ok(read_one(&user).map(Some))
    }

    /// Returns a page of all users ordered by number, counted from 1; empty past the end. Each user is parsed
    /// separately.
    pub async fn page(&self, page: u64) -> Result<Vec<Result<WordPressUser, UnreadableUser>>> {
        let found: Vec<_> = self.list(&[("page", &page.to_string())]).await?.iter().map(read_one).collect();
        // A single malformed user can be alone on the last page, but even that has a number.
        let is_no_user =
            |one: &std::result::Result<WordPressUser, UnreadableUser>| one.as_ref().is_err_and(|odd| odd.id.is_none());
        if !found.is_empty() && found.iter().all(is_no_user) {
            return Err(failed("its list of users is malformed"));
        }
        Ok(found)
    }

    /// Returns which of these users are in a list; at most [`PAGE`] can be requested.
    pub async fn among(&self, ids: &[u64]) -> Result<BTreeSet<u64>> {
        let ids: Vec<String> = ids.iter().take(PAGE).map(u64::to_string).collect();
        let found = self.list(&[("include", &ids.join(","))]).await?;
        Ok(found.iter().filter_map(|user| user["id"].as_u64()).collect())
    }

    async fn list(&self, more: &[(&str, &str)]) -> Result<Vec<Value>> {
        let per_page = PAGE.to_string();
        let mut query = vec![("per_page", per_page.as_str()), ("orderby", "id"), ("order", "asc")];
        query.extend(more);
        let found: Vec<Value> = read(&self.ask("", &query).await?)?;
        if found.len() > PAGE {
            return Err(failed("its list of users is malformed"));
        }
        Ok(found)
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Response> {
        let credentials = (self.app.config.wordpress_username.as_str(), self.password);
        let answer = users(self.app, credentials, path, query, Refusal::OfSettings).await?;
        if !matches!(answer.status, 401 | 403) {
            return Ok(answer);
        }
        // The error code depends on WordPress's plugins, so only the status is used.
        let message =
            "WordPress rejects wordpress.username with its application password, or does not let it list users";
        Err(failed(format!("status {}", answer.status)).with_message(message))
    }
}
