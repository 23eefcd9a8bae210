//! WordPress users: read through its REST API, or from a ticket signed by Roster's must-use plugin.

pub mod accounts;
pub mod api;
pub mod compare;
pub mod sign_in;
pub mod status;
pub mod users;

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ACCEPT, CACHE_CONTROL, LOCATION};
use reqwest::{Request, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::kernel::app::App;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::outbound::connection::{
    Connection, ConnectionFailure, ConnectionKind, FailureCause, require_same_clock,
};
use crate::kernel::outbound::{Refusal, Response, is_true, text_of};
use crate::kernel::secret::{self, Hash};

/// A WordPress user. Number and login are required; malformed other fields count as missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WordPressUser {
    /// Never 0, which means no user at WordPress.
    pub id: u64,
    #[serde(alias = "username", deserialize_with = "login")]
    pub login: String,
    #[serde(default, deserialize_with = "text")]
    pub email: String,
    #[serde(default, deserialize_with = "text")]
    pub name: String,
    /// Usually one role, but possibly several or none; `None` if WordPress does not include them.
    #[serde(default, deserialize_with = "roles")]
    pub roles: Option<BTreeSet<String>>,
}

fn text<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    Ok(text_of(&Value::deserialize(from)?).unwrap_or_default())
}

fn login<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let login = text_of(&Value::deserialize(from)?).filter(|login| !login.trim().is_empty());
    login.ok_or_else(|| serde::de::Error::custom("has no username"))
}

/// Reads a list of roles, a list that PHP encoded as an object because of gaps in its keys, or a single role as text.
fn roles<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<BTreeSet<String>>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Array(list) => Some(texts(list.iter())),
        Value::Object(map) if map.values().all(Value::is_string) => Some(texts(map.values())),
        // A map of capabilities: the keys are the roles.
        Value::Object(map) if map.values().all(Value::is_boolean) => {
            Some(map.into_iter().filter(|(_, is_held)| is_true(is_held)).map(|(name, _)| name).collect())
        }
        Value::String(role) if !role.is_empty() => Some(BTreeSet::from([role])),
        _ => None,
    })
}

fn texts<'v>(values: impl Iterator<Item = &'v Value>) -> BTreeSet<String> {
    values.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A list entry that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableUser {
    pub id: Option<u64>,
    pub name: Option<String>,
    pub why: String,
}

/// Parses one user of a list, so that a malformed one does not affect the others.
pub fn read_one(value: &Value) -> std::result::Result<WordPressUser, UnreadableUser> {
    let id = value["id"].as_u64().filter(|id| *id > 0);
    let unreadable = |why: String| {
        let name = ["username", "slug", "name"].iter().find_map(|field| text_of(&value[*field]));
        UnreadableUser { id, name: name.filter(|name| !name.trim().is_empty()), why }
    };
    match WordPressUser::deserialize(value) {
        Ok(person) if person.id > 0 => Ok(person),
        Ok(_) => Err(unreadable("has the number 0, which is not a user".into())),
        Err(e) => Err(unreadable(e.to_string())),
    }
}

/// Returns the user with this username (or e-mail) and application password; `None` if WordPress rejects them.
pub async fn authenticate(app: &App, login: &str, application_password: &str) -> Result<Option<WordPressUser>> {
    let answer = users(app, (login, application_password), "/me", &[], Refusal::OfRequest).await?;
    match answer.status {
        401 | 403 => Ok(None),
        _ => read_me(&answer, login).map(Some),
    }
}

/// The name of the connection.
const NAME: &str = "wordpress";

/// The connection, as the settings describe it.
pub fn connection(config: &Config) -> Connection {
    Connection::new(NAME, ConnectionKind::Wordpress, &*config.wordpress_url)
        .setting("wordpress.url", !config.wordpress_url.is_empty())
        .setting("wordpress.username", !config.wordpress_username.is_empty())
        .setting("wordpress.password_file", config.wordpress_password.is_some())
        .setting("wordpress.ticket_secret_file", config.wordpress_ticket_secret.is_some())
        .setting("hooks.wordpress_key_file", config.hook_wordpress_key.is_some())
        .setting("wordpress.organization", !config.wordpress_organization.is_empty())
}

/// Tests the connection with one request that changes nothing: for the account of the settings, or for the public index
/// of the REST API if there is none.
pub async fn test(app: &App) -> Result<(), ConnectionFailure> {
    let config = &app.config;
    let answer = match config.wordpress_password.as_deref().filter(|_| config.has_wordpress_administrator()) {
        Some(password) => {
            let request = users_request(app, (&config.wordpress_username, password), "/me", &[])?;
            let answer = app.outbound.probe(request).await?;
            read_me(&answer, &config.wordpress_username)?;
            answer
        }
        None => {
            let url = format!("{}/wp-json/?_fields=name,namespaces", config.wordpress_url);
            let request = app.outbound.client()?.get(url).header(ACCEPT, "application/json").build();
            let answer = app.outbound.probe(request.map_err(failed)?).await?;
            if !answer.json()?["namespaces"].is_array() {
                let message = "its answer is not the index of a REST API: is this WordPress?";
                return Err(ConnectionFailure::new(FailureCause::UnexpectedAnswer, message));
            }
            answer
        }
    };
    require_same_clock(&answer, Timestamp::now())
}

/// Requests users in the context `edit`. Without it, WordPress treats wrong credentials as an anonymous visitor, and
/// shows only users that have published something.
pub async fn users(
    app: &App,
    credentials: (&str, &str),
    path: &str,
    query: &[(&str, &str)],
    refusal: Refusal,
) -> Result<Response> {
    app.outbound.send(NAME, users_request(app, credentials, path, query)?, refusal).await
}

fn users_request(
    app: &App,
    (login, application_password): (&str, &str),
    path: &str,
    query: &[(&str, &str)],
) -> Result<Request> {
    let mut url = Url::parse(&format!("{}/wp-json/wp/v2/users{path}", app.config.wordpress_url))
        .map_err(|e| Error::internal(format!("wordpress.url: {e}")))?;
    url.query_pairs_mut()
        .extend_pairs([("context", "edit"), ("_fields", "id,username,email,name,roles")])
        .extend_pairs(query);
    app.outbound
        .client()?
        .get(url)
        .basic_auth(login, Some(application_password))
        .header(ACCEPT, "application/json")
        // A cached answer could be another user's.
        .header(CACHE_CONTROL, "no-store")
        .build()
        .map_err(|e| Error::internal(format!("the request to WordPress cannot be built: {e}")))
}

/// Parses a successful answer.
pub fn read<T: DeserializeOwned>(answer: &Response) -> Result<T> {
    if answer.status != 200 {
        let to = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let status = answer.status;
        return Err(failed(format!("status {status} {to}: does wordpress.url redirect?")));
    }
    serde_json::from_value(answer.json()?).map_err(|e| failed(format!("unexpected answer: {e}")))
}

/// Parses an answer from `/me`, and fails if it is about another user.
pub fn read_me(answer: &Response, login: &str) -> Result<WordPressUser> {
    let person: WordPressUser = read(answer)?;
    // WordPress ignores case and surrounding blanks in names.
    let folded = |text: &str| text.trim().to_lowercase();
    let is_same_user = [&person.login, &person.email].iter().any(|name| folded(name) == folded(login));
    if person.id == 0 || !is_same_user {
        return Err(failed("it answered about another user: does a cache store its answers?"));
    }
    Ok(person)
}

pub fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::ExternalSystemFailed).with_source(format!("WordPress: {why}"))
}

/// A valid ticket. A caller that accepts it must mark it as used until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub person: WordPressUser,
    /// Identifies the ticket.
    pub mark: Hash,
    pub until: Timestamp,
}

/// The signed claims of a ticket.
#[derive(Debug, Deserialize)]
struct Claims {
    v: u64,
    site: String,
    #[serde(flatten)]
    person: WordPressUser,
    /// In seconds since 1970, like `exp`.
    iat: i64,
    exp: i64,
    jti: String,
}

/// The longest validity of a ticket, in seconds.
const VALIDITY_MAX_S: i64 = 60;
/// The largest accepted clock difference, in seconds.
const AHEAD_MAX_S: i64 = 5;
const JTI_BYTES_MAX: usize = 128;

/// Reads a ticket, `base64url(claims).hex(signature)`; returns `None` if it is forged, expired, or from another site.
pub fn read_ticket(ticket: &str, site: &str, key: &str, now: Timestamp) -> Option<Ticket> {
    let (body, signature) = ticket.split_once('.')?;
    let mut offered: Hash = [0; 32];
    hex::decode_to_slice(signature, &mut offered).ok()?;
    if !secret::equal(&offered, &secret::signature(key, body)) {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    let (now_ms, validity_s) = (now.0, claims.exp.checked_sub(claims.iat)?);
    let (from_ms, until_ms) = (claims.iat.checked_mul(1_000)?, claims.exp.checked_mul(1_000)?);
    let is_valid =
        (1..=VALIDITY_MAX_S).contains(&validity_s) && now_ms < until_ms && from_ms <= now_ms + AHEAD_MAX_S * 1_000;
    let is_named = claims.person.id > 0 && (1..=JTI_BYTES_MAX).contains(&claims.jti.len());
    (claims.v == 1 && claims.site == site && is_valid && is_named).then(|| Ticket {
        mark: secret::hash(&format!("a ticket of WordPress {}", claims.jti)),
        until: Timestamp(until_ms),
        person: claims.person,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SITE: &str = "https://example.org";
    const KEY: &str = "a-ticket-secret-of-32-characters-or-more";
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn sealed(body: &str, key: &str) -> String {
        format!("{body}.{}", hex::encode(secret::signature(key, body)))
    }

    fn ticket(changes: &Value) -> String {
        let seconds = NOW.0 / 1_000;
        let mut claims = json!({"v": 1, "site": SITE, "id": 7, "login": "kim", "email": "kim@example.org", "name": "Kim",
            "roles": ["editor"], "iat": seconds, "exp": seconds + 60, "jti": "0123456789abcdef"});
        for (name, value) in changes.as_object().expect("changes") {
            claims[name] = value.clone();
        }
        sealed(&URL_SAFE_NO_PAD.encode(claims.to_string()), KEY)
    }

    fn is_read(ticket: &str) -> bool {
        read_ticket(ticket, SITE, KEY, NOW).is_some()
    }

    #[test]
    fn malformed_fields_of_a_user_count_as_missing() {
        let read = |changes: Value| {
            let mut user =
                json!({"id": 6, "username": "lee", "name": "Lee", "email": "lee@example.org", "roles": ["editor"]});
            for (name, value) in changes.as_object().expect("changes") {
                user[name] = value.clone();
            }
            read_one(&user)
        };
        let roles = |list: &[&str]| Some(list.iter().map(|role| (*role).to_owned()).collect::<BTreeSet<_>>());
        for (value, expected) in [
            (json!(["editor", "author", 7, null]), roles(&["author", "editor"])),
            (json!({"1": "editor"}), roles(&["editor"])),
            (json!({"editor": true, "author": false}), roles(&["editor"])),
            (json!("editor"), roles(&["editor"])),
            (json!([]), roles(&[])),
            (json!({}), roles(&[])),
            (json!(null), None),
            (json!(""), None),
            (json!(7), None),
            (json!({"1": {"editor": true}}), None),
        ] {
            assert_eq!(read(json!({"roles": value})).expect("a user").roles, expected, "{value}");
        }
        let odd = read(json!({"email": null, "name": 7})).expect("a user");
        assert_eq!((odd.email.as_str(), odd.name.as_str()), ("", "7"));
        assert_eq!(read(json!({"email": {"a": 1}, "name": false, "username": 1984})).expect("a user").login, "1984");
        for (changes, id, name) in [
            (json!({"username": null}), Some(6), Some("Lee")),
            (json!({"username": " ", "name": null}), Some(6), None),
            (json!({"id": 0}), None, Some("lee")),
            (json!({"id": "6"}), None, Some("lee")),
            (json!({"id": null}), None, Some("lee")),
        ] {
            let odd = read(changes.clone()).expect_err("odd");
            assert_eq!((odd.id, odd.name.as_deref()), (id, name), "{changes}");
        }
        assert!(read_one(&json!([])).is_err() && read_one(&json!("lee")).is_err());
    }

    #[test]
    fn a_ticket_is_valid_exactly_up_to_its_limits() {
        let seconds = NOW.0 / 1_000;
        assert!(is_read(&ticket(&json!({}))));
        for (iat, exp, is_valid) in [
            (5, 65, true),
            (6, 66, false),
            (-59, 1, true),
            (-60, 0, false),
            (0, 61, false),
            (0, 0, false),
            (4, 3, false),
            (i64::MIN / 2, i64::MAX / 2, false),
        ] {
            let (iat, exp) = (seconds.saturating_add(iat), seconds.saturating_add(exp));
            assert_eq!(is_read(&ticket(&json!({"iat": iat, "exp": exp}))), is_valid, "{iat} {exp}");
        }
    }

    #[test]
    fn forged_and_foreign_tickets_are_rejected() {
        for changes in [
            json!({"v": 2}),
            json!({"site": "https://example.org/"}),
            json!({"site": "https://EXAMPLE.org"}),
            json!({"id": 0}),
            json!({"id": -1}),
            json!({"id": "7"}),
            json!({"jti": ""}),
            json!({"jti": "x".repeat(129)}),
            json!({"login": null}),
        ] {
            assert!(!is_read(&ticket(&changes)), "{changes}");
        }
        let good = ticket(&json!({}));
        let (body, signature) = good.split_once('.').expect("a point");
        for forged in [
            sealed(body, "another-secret-of-32-characters-or-more"),
            format!("{body}."),
            format!("{body}.{}", &signature[2..]),
            format!("{body}.{signature}00"),
            format!("{body}x.{signature}"),
            body.to_owned(),
            sealed("", KEY),
            sealed("bm90IEpTT04", KEY),
            String::from("."),
            String::new(),
        ] {
            assert!(!is_read(&forged), "{forged}");
        }
    }
}
