//! The users of WordPress, as its REST API tells its administrator of them.
//!
//! **Invariant.** Nobody is missing unless WordPress itself says so of that one number: a list without somebody, a page
//! that moved, and a 404 of something in between say nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{UnreadableUser, WordPressUser, failed, read, read_one, read_oneself, users};
use crate::kernel::app::App;
use crate::kernel::error::Result;
use crate::kernel::outbound::Answer;

/// Most users of one answer, which is also WordPress's limit.
pub const PAGE: usize = 100;

/// An administrator of WordPress.
pub struct AdminClient<'a> {
    app: &'a App,
    password: &'a str,
}

impl<'a> AdminClient<'a> {
    /// `None` where the settings name no administrator.
    pub fn from_config(app: &'a App) -> Option<Self> {
        let config = &app.config;
        let is_named = !config.wordpress_url.is_empty() && !config.wordpress_username.is_empty();
        config.wordpress_password.as_deref().filter(|_| is_named).map(|password| Self { app, password })
    }

    /// Fails unless WordPress knows the credentials.
    pub async fn check_credentials(&self) -> Result<()> {
        read_oneself(&self.ask("/me", &[]).await?, &self.app.config.wordpress_username).map(drop)
    }

    /// The user of a number; `None` when WordPress says that there is none, or how it is odd.
    pub async fn find(&self, id: u64) -> Result<Result<Option<WordPressUser>, UnreadableUser>> {
        let answer = self.ask(&format!("/{id}"), &[]).await?;
        if answer.status == 404 {
            let code = answer.json().ok().and_then(|body| body["code"].as_str().map(str::to_owned));
            return match code.as_deref() {
                Some("rest_user_invalid_id") => Ok(Ok(None)),
                _ => Err(failed("status 404, which is not WordPress's own word about the user")),
            };
        }
        let user: Value = read(&answer)?;
        if user["id"].as_u64() != Some(id) {
            return Err(failed("it told of another user than was asked for"));
        }
        Ok(read_one(&user).map(Some))
    }

    /// A page of all users, from 1, by number, each as far as it can be read. Past the end there is nobody.
    pub async fn page(&self, page: u64) -> Result<Vec<Result<WordPressUser, UnreadableUser>>> {
        let found: Vec<_> = self.list(&[("page", &page.to_string())]).await?.iter().map(read_one).collect();
        // One odd user may be alone on the last page, but a user has a number.
        let is_no_user =
            |one: &std::result::Result<WordPressUser, UnreadableUser>| one.as_ref().is_err_and(|odd| odd.id.is_none());
        if !found.is_empty() && found.iter().all(is_no_user) {
            return Err(failed("its list of users is none"));
        }
        Ok(found)
    }

    /// Those of these users whom a list shows; at most [`PAGE`] can be asked for.
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
            return Err(failed("its list of users is none"));
        }
        Ok(found)
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer> {
        let answer = users(self.app, (&self.app.config.wordpress_username, self.password), path, query).await?;
        if !matches!(answer.status, 401 | 403) {
            return Ok(answer);
        }
        // Which code comes with a refusal depends on WordPress's plugins: only the status counts.
        let message = "WordPress refuses wordpress.username with its application password, or lets it list no users";
        Err(failed(format!("status {}", answer.status)).with_message(message))
    }
}
