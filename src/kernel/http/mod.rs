//! What all operations share: the response envelope, pages, tags, request bodies.
//!
//! The outermost middleware of `server` is the only place that renders failures. Their schema is declared here.

use poem::http::{HeaderName, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{
    MetaHeader, MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use poem_openapi::{ApiResponse, Enum, Object};
use serde_json::{Value, json};

use crate::kernel::authz::snapshot;
use crate::kernel::db::ListPage;
use crate::kernel::error::{Error, ErrorCode};
pub use crate::kernel::http::background::TaskReply;
pub use crate::kernel::http::body::{Body, OptionalBody};
pub use crate::kernel::http::openapi::Tag;

pub mod background;
pub mod body;
pub mod documents;
pub mod openapi;
pub mod request_validator;

/// An [`Error`] that an operation returns.
#[derive(Debug, Clone)]
pub struct Failure(pub Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<ErrorCode> for Failure {
    fn from(cause: ErrorCode) -> Self {
        Self(cause.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl poem::error::ResponseError for Failure {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Error> for poem::Error {
    fn from(error: Error) -> Self {
        Failure(error).into()
    }
}

/// The envelope of a failure. `area` is the scope of its code; `with_cause` adds the internal cause (`debug`).
pub fn failure_body(error: &Error, area: u32, request_id: &str, with_cause: bool) -> Value {
    let code = crate::kernel::error::code(error.code, area);
    let mut body = json!({
        "code": code,
        "message": error.message(),
        "error": {"biz_code": code.to_string(), "scope": code / 1_000_000, "category": code / 1_000 % 1_000, "detail": code % 1_000},
        "detail": error.code.as_str(),
        "request_id": request_id,
    });
    if !error.fields.is_empty() {
        let fields =
            error.shown_fields().map(|f| json!({"field": f.name(), "location": f.location, "message": f.message}));
        body["fields"] = fields.collect();
    }
    if let Some(challenge) = &error.challenge {
        body["challenge"] = json!(challenge);
    }
    if with_cause && let Some(source) = &error.source {
        body["cause"] = json!(source);
    }
    body
}

/// An invalid field of the request
#[derive(Object)]
pub struct FailureField {
    /// The name of the field
    pub field: String,
    /// The path to the field, outermost first: `["body", "key"]`
    pub location: Vec<String>,
    /// Why it is invalid
    pub message: String,
}

/// The error code in parts
#[derive(Object)]
pub struct FailureCode {
    /// The whole code as text
    pub biz_code: String,
    /// The area that failed
    pub scope: u32,
    /// The kind of failure; determines the HTTP status
    pub category: u32,
    pub detail: u32,
}

/// The body of every failure
#[derive(Object)]
#[oai(rename = "Failure")]
pub struct FailureBody {
    /// scope × 1 000 000 + category × 1 000 + detail
    pub code: u32,
    /// A message for people that says what to do next
    pub message: String,
    pub error: FailureCode,
    /// A stable identifier for programs
    pub detail: String,
    /// All invalid fields; only for invalid input
    #[oai(skip_serializing_if_is_none)]
    pub fields: Option<Vec<FailureField>>,
    /// The challenge to send with the second factor, if a sign-in needs one
    #[oai(skip_serializing_if_is_none)]
    pub challenge: Option<String>,
    /// Also in the header X-Request-Id and in the log
    pub request_id: String,
}

impl ApiResponse for Failure {
    fn meta() -> MetaResponses {
        let one = |(status, _, description): (u16, &'static str, &'static str)| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: vec![media("application/json", FailureBody::schema_ref())],
            headers: Vec::new(),
        };
        MetaResponses { responses: openapi::answers::STATUSES.into_iter().map(one).collect() }
    }

    fn register(registry: &mut Registry) {
        FailureBody::register(registry);
    }
}

fn media(content_type: &'static str, schema: MetaSchemaRef) -> MetaMediaType {
    MetaMediaType { content_type, schema }
}

/// The content of `data` in a success.
pub trait ResponseBody: Send {
    fn schema() -> Option<MetaSchemaRef>;
    fn register(registry: &mut Registry);
    fn value(&self) -> Option<String>;
}

/// A value that is serialized into `data`.
pub struct Data<T>(pub T);

impl<T: Type + ToJSON> ResponseBody for Data<T> {
    fn schema() -> Option<MetaSchemaRef> {
        Some(T::schema_ref())
    }
    fn register(registry: &mut Registry) {
        T::register(registry);
    }
    fn value(&self) -> Option<String> {
        Some(self.0.to_json_string())
    }
}

/// A success without `data`.
pub struct NoData;

impl ResponseBody for NoData {
    fn schema() -> Option<MetaSchemaRef> {
        None
    }
    fn register(_: &mut Registry) {}
    fn value(&self) -> Option<String> {
        None
    }
}

/// Serialized JSON with the schema of `T`, for responses that are rendered once and sent often.
pub struct Rendered<T>(pub String, std::marker::PhantomData<fn() -> T>);

impl<T: Type> ResponseBody for Rendered<T> {
    fn schema() -> Option<MetaSchemaRef> {
        Some(T::schema_ref())
    }
    fn register(registry: &mut Registry) {
        T::register(registry);
    }
    fn value(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A success in its envelope, with its headers.
pub struct Success<D> {
    /// `None` is a 304: the caller has the present version.
    data: Option<D>,
    headers: Vec<(HeaderName, String)>,
}

pub type Reply<T> = Result<Success<Data<T>>, Failure>;
pub type RenderedReply<T> = Result<Success<Rendered<T>>, Failure>;
pub type EmptyReply = Result<Success<NoData>, Failure>;

pub fn ok<T>(value: T) -> Success<Data<T>> {
    Success { data: Some(Data(value)), headers: Vec::new() }
}

pub fn rendered<T>(json: String) -> Success<Rendered<T>> {
    Success { data: Some(Rendered(json, std::marker::PhantomData)), headers: Vec::new() }
}

pub fn done() -> Success<NoData> {
    Success { data: Some(NoData), headers: Vec::new() }
}

/// A 304: the caller has the present version.
pub fn unchanged<D>() -> Success<D> {
    Success { data: None, headers: Vec::new() }
}

impl<D> Success<D> {
    #[must_use]
    pub fn version(self, version: i64) -> Self {
        self.header(header::ETAG, format!("\"{version}\""))
    }

    #[must_use]
    pub fn etag(self, etag: &str) -> Self {
        self.header(header::ETAG, etag.to_owned())
    }

    #[must_use]
    pub fn epoch(self, epoch: u64) -> Self {
        self.header(HeaderName::from_static(EPOCH_HEADER), epoch.to_string())
    }

    /// Sets `X-Quota-Warning` if the member's usage has reached this percentage of its quota.
    #[must_use]
    pub fn quota_warning(self, percent: Option<i64>) -> Self {
        match percent {
            Some(percent) => self.header(HeaderName::from_static(QUOTA_WARNING_HEADER), percent.to_string()),
            None => self,
        }
    }

    fn header(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

pub const EPOCH_HEADER: &str = "x-policy-epoch";
pub const QUOTA_WARNING_HEADER: &str = "x-quota-warning";

/// The code of every success.
const SUCCESS: u32 = 102_000;

impl<D: ResponseBody> IntoResponse for Success<D> {
    fn into_response(self) -> Response {
        let mut response = Response::builder();
        let body = match &self.data {
            None => {
                response = response.status(StatusCode::NOT_MODIFIED);
                String::new()
            }
            Some(data) => {
                response = response.content_type("application/json");
                match data.value() {
                    Some(data) => format!(r#"{{"code":{SUCCESS},"message":"ok","data":{data}}}"#),
                    None => format!(r#"{{"code":{SUCCESS},"message":"ok"}}"#),
                }
            }
        };
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body)
    }
}

impl<D: ResponseBody> ApiResponse for Success<D> {
    fn meta() -> MetaResponses {
        let number = MetaSchemaRef::Inline(Box::new(MetaSchema {
            example: Some(json!(SUCCESS)),
            ..MetaSchema::new_with_format("integer", "int32")
        }));
        let text =
            MetaSchemaRef::Inline(Box::new(MetaSchema { example: Some(json!("ok")), ..MetaSchema::new("string") }));
        let mut properties = vec![("code", number), ("message", text)];
        let mut required = vec!["code", "message"];
        if let Some(schema) = D::schema() {
            properties.push(("data", schema));
            required.push("data");
        }
        let envelope = MetaSchema { properties, required, ..MetaSchema::new("object") };
        let header = |name: &str, description: &str| MetaHeader {
            name: name.to_owned(),
            description: Some(description.to_owned()),
            required: false,
            deprecated: false,
            schema: MetaSchemaRef::Inline(Box::new(MetaSchema::new("string"))),
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Done",
                status: Some(200),
                status_range: None,
                content: vec![media("application/json", MetaSchemaRef::Inline(Box::new(envelope)))],
                headers: vec![
                    header("ETag", "The version of the resource, for If-Match, if it has one"),
                    header("X-Policy-Epoch", "The policy epoch after a change"),
                    header("X-Quota-Warning", "80 or 95 if the usage is at or above that percentage of the quota"),
                ],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        D::register(registry);
    }
}

/// One page of a list
#[derive(Object)]
pub struct Page<T: ParseFromJSON + ToJSON + Send + Sync> {
    pub items: Vec<T>,
    /// The number of entries in the list. It is counted up to 100,000, or up to 1,000 if a filter or a keyword narrows
    /// the list; a larger list may report less than it has. If entries follow a page that was requested by `offset`,
    /// `total` is always greater than the end of that page. If only a part of the list was scanned, it is one more than
    /// the number found
    pub total: u64,
    pub limit: u64,
    /// The offset of the page; 0 if it was requested by `after`
    pub offset: u64,
    /// The cursor of the next page, for `after`; absent on the last page. It is an opaque text, and equally fast at any
    /// depth. Without `offset`, a response scans only some thousand rows: if few of them match the filters, a short
    /// page can have a `next`
    #[oai(skip_serializing_if_is_none)]
    pub next: Option<String>,
}

/// Whether an organization or an API client is active
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
pub enum ActiveInactive {
    Active,
    Inactive,
}

impl ActiveInactive {
    pub fn of(is_active: bool) -> Self {
        if is_active { Self::Active } else { Self::Inactive }
    }

    pub fn is_active(self) -> bool {
        self == Self::Active
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
        }
    }
}

impl<T: ParseFromJSON + ToJSON + Send + Sync, U: Into<T>> From<ListPage<U>> for Page<T> {
    fn from(listed: ListPage<U>) -> Self {
        let ListPage { items, total, limit, offset, next } = listed.map(Into::into);
        Self { items, total, limit, offset, next }
    }
}

/// A pattern for `like … escape '\'` that matches no text: it ends where the escaped character is missing.
const MATCHES_NOTHING: &str = "\\";

/// Converts a keyword to a pattern for `like … escape '\'` that finds it anywhere in a text. A keyword with control
/// characters finds nothing: SQLite reads a pattern only up to a NUL, so that `%\0` would match everything.
pub fn like(keyword: Option<&str>) -> Option<String> {
    let keyword = keyword.filter(|text| !text.is_empty())?;
    if keyword.contains(char::is_control) {
        return Some(MATCHES_NOTHING.to_owned());
    }
    let escaped = keyword.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    Some(format!("%{escaped}%"))
}

/// Fails with `version_stale` unless `If-Match` is absent, `*`, or contains this version.
pub fn require_version(if_match: Option<&str>, version: i64) -> Result<(), Error> {
    let fits = |sent: &str| sent.trim() == "*" || sent.split(',').any(|tag| tag.trim() == format!("\"{version}\""));
    if if_match.is_none_or(fits) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::VersionStale).header("ETag", format!("\"{version}\"")))
}

/// Whether `If-None-Match` contains this ETag. The comparison is weak, because a compressing proxy makes ETags weak.
pub fn is_known(if_none_match: Option<&str>, etag: &str) -> bool {
    let fits = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
    if_none_match.is_some_and(|sent| sent.split(',').any(|tag| fits(tag.trim())))
}

/// Declares text types with their rules. The rules are part of the OpenAPI document, which the validator checks
/// against.
#[macro_export]
macro_rules! text {
    ($($(#[$doc:meta])* $name:ident $min:literal..=$max:literal $pattern:literal $(as $format:literal)?;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub String);

        impl std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl poem_openapi::types::Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> std::borrow::Cow<'static, str> {
                concat!("string_", stringify!($name)).into()
            }

            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                poem_openapi::registry::MetaSchemaRef::Inline(Box::new(poem_openapi::registry::MetaSchema {
                    min_length: Some($min),
                    max_length: Some($max),
                    pattern: Some($pattern.to_owned()).filter(|pattern| !pattern.is_empty()),
                    $(format: Some($format),)?
                    ..poem_openapi::registry::MetaSchema::new("string")
                }))
            }

            fn as_raw_value(&self) -> Option<&Self> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl poem_openapi::types::ParseFromJSON for $name {
            /// The value was validated against the schema before.
            fn parse_from_json(value: Option<serde_json::Value>) -> poem_openapi::types::ParseResult<Self> {
                match value {
                    Some(serde_json::Value::String(text)) => Ok(Self(text)),
                    other => Err(poem_openapi::types::ParseError::expected_type(other.unwrap_or_default())),
                }
            }
        }

        impl poem_openapi::types::ToJSON for $name {
            fn to_json(&self) -> Option<serde_json::Value> {
                Some(serde_json::Value::String(self.0.clone()))
            }
        }
    )*};
}

crate::text! {
    /// An e-mail address
    Email 3..=254 "^[^\\x00-\\x20\\x7f@<>\"]{1,64}@[^\\x00-\\x20\\x7f@<>\"]+$";
    /// A username: letters, digits, and . _ -
    Username 1..=64 "^[A-Za-z0-9][A-Za-z0-9._-]*$";
    /// At least 8 characters, with an upper-case letter and a digit or symbol; at most 256 bytes; not a common password
    Password 1..=1024 "" as "password";
    /// The token of a one-time link
    LinkToken 1..=128 "";
    /// A display name
    DisplayName 1..=200 "^[^\\x00-\\x1f\\x7f]+$";
    /// The subject (`sub`) at an external provider
    Subject 1..=255 "^[^\\x00-\\x1f\\x7f]+$";
}

// ── scopes of clients ──

// Wire types that API clients and API keys share: the display name and the scopes.

crate::text! {
    /// A display name
    ClientName 1..=128 "^[^\\x00-\\x1f\\x7f]+$";
}

/// What an API client may do; a write scope includes the read scope
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientScope {
    #[oai(rename = "members:read")]
    MembersRead,
    #[oai(rename = "members:write")]
    MembersWrite,
    #[oai(rename = "organizations:read")]
    OrganizationsRead,
    #[oai(rename = "organizations:write")]
    OrganizationsWrite,
    #[oai(rename = "permissions:read")]
    PermissionsRead,
    #[oai(rename = "permissions:write")]
    PermissionsWrite,
    #[oai(rename = "permissions:check")]
    PermissionsCheck,
    #[oai(rename = "videos:read")]
    VideosRead,
    #[oai(rename = "videos:write")]
    VideosWrite,
    #[oai(rename = "quotas:read")]
    QuotasRead,
    #[oai(rename = "quotas:write")]
    QuotasWrite,
    #[oai(rename = "jobs:read")]
    JobsRead,
    #[oai(rename = "jobs:write")]
    JobsWrite,
    #[oai(rename = "audit:read")]
    AuditRead,
    #[oai(rename = "audit:write")]
    AuditWrite,
    /// All scopes
    #[oai(rename = "*")]
    All,
}

/// Converts scopes to their stored text.
pub fn scope_names<S: ToJSON>(scopes: Vec<S>) -> Vec<String> {
    let text = |scope: S| scope.to_json().and_then(|json| json.as_str().map(str::to_owned));
    scopes.into_iter().filter_map(text).collect()
}

// ── status of a member ──

// The wire type of a member's status.

/// The status of a member
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", remote = "snapshot::MemberStatus")]
pub enum MemberStatus {
    Pending,
    Active,
    Suspended,
    Deleted,
}

/// Decodes percent signs. One that no two hexadecimal digits follow stands for itself.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digits = [ahead.next(), ahead.next()].map(|digit| char::from(digit?).to_digit(16));
        match (byte, digits) {
            (b'%', [Some(high), Some(low)]) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = ahead;
            }
            _ => bytes.push(byte),
        }
    }
    bytes
}
