//! What the must-use plugin of WordPress tells us. In its own form: whoever asks is a program that reads only the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use poem::web::Data;
use poem::{Request, Response, handler};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::caller::{Exchange, Identity, Who};
use crate::app::App;
use crate::connect::wordpress::Person;
use crate::connect::wordpress_users::Office;
use crate::error::{Cause, Error, Result};
use crate::sessions::wordpress_accounts::{Hint, Mark, Outcome, is_first, take, verify};
use crate::wire::{Failure, inputs, raw};

/// Most accounts of one hint.
const USERS_MAX: usize = 100;

/// What the plugin sends. Fields that a later one adds say nothing to us.
#[derive(Deserialize)]
struct Notice {
    site: String,
    users: Vec<Touched>,
}

#[derive(Deserialize)]
struct Touched {
    id: u64,
    /// `register`, `update`, `role` or `delete`; only the last says more than "look".
    event: String,
    #[serde(flatten)]
    said: BTreeMap<String, Value>,
}

/// Takes a hint that is signed with the plugin's key and young enough, once; or one with the internal secret.
#[handler]
pub async fn take_hint(request: &Request, app: Data<&Arc<App>>) -> Result<Response, Failure> {
    let exchange = request.data::<Arc<Exchange>>().cloned().ok_or_else(|| Error::internal("no exchange"))?;
    let body = raw(request)?;
    let mark = admit(&app, request, body)?;
    let hints = read(&app, body)?;
    if let Some(mark) = mark
        && !is_first(&app, mark).await?
    {
        return Ok(answer(&json!({"repeated": true, "users": []})));
    }
    let caller = Identity::of(Who::Internal, exchange);
    let outcomes = take(&app, &caller, hints).await?;
    let users: Vec<Value> = outcomes.iter().map(|(id, outcome)| described(*id, outcome)).collect();
    Ok(answer(&json!({"repeated": false, "users": users})))
}

/// The mark of a signed request; none where the internal secret stands for it.
fn admit(app: &App, request: &Request, body: &[u8]) -> Result<Option<Mark>> {
    if app.config.wordpress_url.is_empty() {
        let message = "set wordpress.url and hooks.wordpress_key_file to take hints of WordPress";
        return Err(Error::new(Cause::WordPressNotConfigured).saying(message));
    }
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(offered) = header("x-internal-secret") {
        app.guard.require_internal(offered)?;
        return Ok(None);
    }
    let (Some(timestamp), Some(signature)) = (header("x-roster-timestamp"), header("x-roster-signature")) else {
        let message = "sign the hook: X-Roster-Timestamp and X-Roster-Signature, as the must-use plugin does";
        return Err(Error::new(Cause::HookSignature).saying(message));
    };
    let body = std::str::from_utf8(body).map_err(|_| Cause::HookSignature)?;
    verify(app, timestamp, signature, body).map(Some)
}

fn read(app: &App, body: &[u8]) -> Result<Vec<Hint>> {
    let notice: Notice = serde_json::from_value(inputs::parse(body)?)
        .map_err(|e| Error::field("users", format!("is not as the must-use plugin sends it: {e}")))?;
    if notice.site != app.config.wordpress_url {
        return Err(Error::field("site", "is not wordpress.url, to the letter"));
    }
    if notice.users.len() > USERS_MAX {
        return Err(Error::field("users", format!("has more than {USERS_MAX} entries")));
    }
    let can_ask = Office::of(app).is_some();
    let mut hints: BTreeMap<u64, Hint> = BTreeMap::new();
    for Touched { id, event, mut said } in notice.users {
        if id == 0 || i64::try_from(id).is_err() {
            return Err(Error::field("users", "has a number that is nobody's"));
        }
        said.insert("id".into(), id.into());
        let said = serde_json::from_value::<Person>(Value::Object(said.into_iter().collect()));
        let said = match (event.as_str(), said) {
            ("delete", _) => None,
            (_, Ok(person)) => Some(person),
            // WordPress is asked in any case.
            (_, Err(_)) if can_ask => None,
            (_, Err(e)) => {
                let message = "say who it is, as wordpress.username is not set and nobody can be asked";
                return Err(Error::field("users", format!("{message}: {e}")));
            }
        };
        hints.insert(id, Hint { id, said });
    }
    Ok(hints.into_values().collect())
}

fn described(id: u64, outcome: &Outcome) -> Value {
    let (word, uid) = match outcome {
        Outcome::New(uid) => ("new", Some(uid)),
        Outcome::Known { member, changed, .. } => (if changed.is_empty() { "same" } else { "changed" }, Some(member)),
        // Not whose name it is: the plugin has no business with that.
        Outcome::Unlinked(_) => ("unlinked", None),
        Outcome::Left(uid, _) => ("left", Some(uid)),
        Outcome::Gone(uid) => ("gone", Some(uid)),
        Outcome::Nobody => ("nobody", None),
    };
    json!({"id": id, "result": word, "uid": uid})
}

fn answer(body: &Value) -> Response {
    Response::builder().content_type("application/json").body(body.to_string())
}
