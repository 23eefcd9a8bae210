//! The webhook for events of WordPress's must-use plugin. It has its own format without the envelope, because the
//! plugin reads only the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::Bytes;
use poem::{Request, RequestBody};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, Enum, ExtractParamOptions, Object, OpenApi};
use serde::Deserialize;
use serde_json::Value;

use crate::integrations::wordpress::WordPressUser;
use crate::integrations::wordpress::accounts::{
    AccountOutcome, RequestMark, UserEvent, handle_events, is_processed, mark_as_processed, verify,
};
use crate::integrations::wordpress::users::AdminClient;
use crate::kernel::app::App;
use crate::kernel::authn::caller::{Guard, scheme_in};
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::{Failure, Tag, request_validator};
use crate::kernel::ids::MemberId;
use crate::kernel::intake::Limit;

/// The maximum number of accounts in one request.
const USERS_MAX: usize = 100;

/// The request body of the plugin. Unknown fields of newer versions are ignored.
#[derive(Deserialize)]
struct Notice {
    site: String,
    users: Vec<Touched>,
}

#[derive(Deserialize)]
struct Touched {
    id: u64,
    /// `register`, `update`, `role` or `delete`; all but `delete` only mean that the account must be read.
    event: String,
    #[serde(flatten)]
    said: BTreeMap<String, Value>,
}

/// The request body in the OpenAPI document; [`Sender`] reads the bytes, because they are signed.
struct HookBody;

impl<'a> ApiExtractor<'a> for HookBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        let about = "`{site, delivery, users: [{id, event, username, email, name, roles}]}`: `site` is `wordpress.url`, \
            `delivery` is unique per request, and `event` is `register`, `update`, `role` or `delete` (with no more \
            fields). Unknown fields are ignored";
        let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new("object")));
        Some(MetaRequest {
            description: Some(about),
            content: vec![MetaMediaType { content_type: "application/json", schema }],
            required: true,
        })
    }

    async fn from_request(_: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self)
    }
}

/// The sender of an event: the plugin with a signature, or an internal service with the internal secret.
struct Sender {
    guard: Arc<Guard>,
    context: Arc<RequestContext>,
    internal: Option<String>,
    /// The timestamp and the signatures.
    signed: (Option<String>, Option<String>),
}

impl Sender {
    /// Verifies the sender. Returns the caller, the body, and the mark of a signed request; `None` with the internal
    /// secret.
    async fn require(self, app: &App) -> Result<(Identity, Bytes, Option<RequestMark>)> {
        if app.config.wordpress_url.is_empty() {
            let message = "set wordpress.url and hooks.wordpress_key_file to accept events from WordPress";
            return Err(Error::new(ErrorCode::WordPressNotConfigured).with_message(message));
        }
        if let Some(offered) = self.internal {
            self.guard.require_internal(&offered)?;
            let caller = Identity::service(self.context);
            let context = caller.context.clone();
            let bytes = context.body.read(Limit::Ordinary, context.party(&app.snapshot())).await?.clone();
            return Ok((caller, bytes, None));
        }
        let (Some(timestamp), Some(signatures)) = self.signed else {
            let message =
                "sign the request with X-Roster-Timestamp and X-Roster-Signature, as the must-use plugin does";
            return Err(Error::new(ErrorCode::HookSignature).with_message(message));
        };
        let bytes = self.context.body.read(Limit::Public, None).await?.clone();
        let body = std::str::from_utf8(&bytes).map_err(|_| ErrorCode::HookSignature)?;
        let mark = verify(app, &timestamp, &signatures, body)?;
        Ok((Identity::service(self.context), bytes, Some(mark)))
    }
}

impl<'a> ApiExtractor<'a> for Sender {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        for (name, header, about) in [
            ("hint_time", "X-Roster-Timestamp", "The time of the signature, in seconds since 1970"),
            (
                "hint_signature",
                "X-Roster-Signature",
                "`v1=` and HMAC-SHA256 of `<timestamp>.<body>` in hexadecimal, by the key of `hooks.wordpress_key_file`",
            ),
        ] {
            registry.create_security_scheme(name, scheme_in("header", header, about));
        }
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["hint_time+hint_signature", "internal_secret"]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let guard = request.data::<Arc<Guard>>().ok_or_else(|| Error::internal("no guard"))?;
        let context = request.data::<Arc<RequestContext>>().ok_or_else(|| Error::internal("no request context"))?;
        // A header that is not text matches nothing.
        let header =
            |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
        Ok(Self {
            guard: guard.clone(),
            context: context.clone(),
            internal: header("x-internal-secret"),
            signed: (header("x-roster-timestamp"), header("x-roster-signature")),
        })
    }
}

/// The outcome of an account
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum HintResult {
    /// A member was created
    New,
    /// Its member is up to date
    Same,
    /// Its member was updated
    Changed,
    /// It is not linked, and a member has its username or e-mail
    Unlinked,
    /// Its member stays unchanged: it is not active, it is another person because WordPress reused the number, or it is
    /// protected as an administrator or last owner
    Left,
    /// It is gone, and its member was suspended
    Gone,
    /// It is gone, and was not linked or its member is suspended already
    Nobody,
    /// WordPress's data about it cannot be read: its member stays unchanged
    Odd,
}

/// An account of an event
#[derive(Object)]
struct HintedAccount {
    id: u64,
    result: HintResult,
    #[oai(nullable)]
    uid: Option<MemberId>,
}

impl From<(u64, AccountOutcome)> for HintedAccount {
    fn from((id, outcome): (u64, AccountOutcome)) -> Self {
        let (result, uid) = match outcome {
            AccountOutcome::New(uid) => (HintResult::New, Some(uid)),
            AccountOutcome::Synced { member, changed, .. } if changed.is_empty() => (HintResult::Same, Some(member)),
            AccountOutcome::Synced { member, .. } => (HintResult::Changed, Some(member)),
            // The member is not disclosed: the plugin does not need it.
            AccountOutcome::Unlinked(_) => (HintResult::Unlinked, None),
            AccountOutcome::Unchanged(uid, _) => (HintResult::Left, Some(uid)),
            AccountOutcome::Gone(uid) => (HintResult::Gone, Some(uid)),
            AccountOutcome::NotLinked => (HintResult::Nobody, None),
            AccountOutcome::Unreadable(_) => (HintResult::Odd, None),
        };
        Self { id, result, uid }
    }
}

/// The outcome of an event
#[derive(Object)]
struct HintTaken {
    /// Whether the same request was processed before; then nothing was done
    repeated: bool,
    users: Vec<HintedAccount>,
}

crate::document! {
    take_wordpress_hint: [WordPressNotConfigured, ExternalSystemFailed, NotConfigured];
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/hooks/wordpress", tag = "Tag::WordPress")]
impl Api {
    /// Receive events about WordPress accounts
    ///
    /// Sent by the must-use plugin; the response has no envelope. The accounts are read from WordPress; if no WordPress
    /// administrator is configured, the data of the event is used. A request is processed once, and a failed one can be
    /// sent again unchanged. 502 `neighbour_failed` when WordPress fails or its answer is unexpected: completed changes
    /// are kept.
    #[oai(path = "/", method = "post", operation_id = "take_wordpress_hint")]
    async fn take_wordpress_hint(&self, sender: Sender, _body: HookBody) -> Result<Json<HintTaken>, Failure> {
        let (caller, body, mark) = sender.require(&self.app).await?;
        let events = read(&self.app, &body)?;
        if let Some(mark) = mark
            && is_processed(&self.app, mark).await?
        {
            return Ok(Json(HintTaken { repeated: true, users: Vec::new() }));
        }
        let outcomes = handle_events(&self.app, &caller, events).await?;
        if let Some(mark) = mark {
            mark_as_processed(&self.app, mark).await?;
        }
        Ok(Json(HintTaken { repeated: false, users: outcomes.into_iter().map(Into::into).collect() }))
    }
}

fn read(app: &App, body: &[u8]) -> Result<Vec<UserEvent>> {
    let notice: Notice = serde_json::from_value(request_validator::parse(body)?)
        .map_err(|e| Error::field("users", format!("is not as the must-use plugin sends it: {e}")))?;
    if notice.site != app.config.wordpress_url {
        return Err(Error::field("site", "must be exactly wordpress.url"));
    }
    if notice.users.len() > USERS_MAX {
        return Err(Error::field("users", format!("has more than {USERS_MAX} entries")));
    }
    let can_ask = AdminClient::from_config(app).is_some();
    let mut events: BTreeMap<u64, UserEvent> = BTreeMap::new();
    for Touched { id, event, mut said } in notice.users {
        if id == 0 || i64::try_from(id).is_err() {
            return Err(Error::field("users", "has an invalid user id"));
        }
        said.insert("id".into(), id.into());
        let said = serde_json::from_value::<WordPressUser>(Value::Object(said.into_iter().collect()));
        let said = match (event.as_str(), said) {
            ("delete", _) => None,
            (_, Ok(person)) => Some(person),
            // The account is read from WordPress in any case.
            (_, Err(_)) if can_ask => None,
            (_, Err(e)) => {
                let message =
                    "must describe the account, because wordpress.username is not set and WordPress cannot be queried";
                return Err(Error::field("users", format!("{message}: {e}")));
            }
        };
        events.insert(id, UserEvent { id, data: said });
    }
    Ok(events.into_values().collect())
}
