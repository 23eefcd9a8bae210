//! The failures and response headers of each operation.
//!
//! Those that follow from the shape of an operation (its credentials, body and headers) are derived here. The others
//! are declared beside the operation, in the `document!` of its API. A debug build answers 500 if a failure or header
//! is neither derived nor declared, so that the tests find omissions in the document.

use std::collections::{BTreeSet, HashMap};

use poem_openapi::Tags as _;
use serde_json::{Map, Value, json};

use super::shapes::share;
use super::{METHODS, Tag, operations};
use crate::kernel::error::{Error, ErrorCode};

/// What an API adds to the document that its types and signatures cannot tell.
pub struct Documented {
    pub answers: &'static [Answers],
    /// Schema and JSON.
    pub examples: &'static [(&'static str, &'static str)],
}

/// Failures and headers of one operation that do not follow from its signature.
pub struct Answers {
    pub operation: &'static str,
    pub causes: &'static [ErrorCode],
    /// Names in `DECLARED`.
    pub headers: &'static [&'static str],
}

/// `operation: [ErrorCode, …] ["etag", …];` for each operation that has something to declare, then `"Schema": "JSON";`
/// for each example. Every API has one.
#[macro_export]
macro_rules! document {
    (
        $($operation:ident: [$($cause:ident),* $(,)?] $([$($header:literal),*])?;)*
        $($schema:literal: $example:literal;)*
    ) => {
        /// What this API adds to the document.
        pub const DOCUMENTED: $crate::kernel::http::openapi::Documented = $crate::kernel::http::openapi::Documented {
            answers: &[$($crate::kernel::http::openapi::Answers {
                operation: stringify!($operation),
                causes: &[$($crate::kernel::error::ErrorCode::$cause,)*],
                headers: &[$($($header,)*)?],
            },)*],
            examples: &[$(($schema, $example),)*],
        };
    };
}

/// Headers of successes that operations declare.
const DECLARED: [&str; 3] = ["etag", "x-policy-epoch", "x-quota-warning"];

/// All response headers: name in lower case, name in the document, type, description.
const HEADERS: [(&str, &str, &str, &str); 9] = [
    ("etag", "ETag", "string", "The version of the resource, for `If-Match` or `If-None-Match`"),
    ("x-policy-epoch", "X-Policy-Epoch", "integer", "The policy epoch after the change, for `min_epoch` of a check"),
    (
        "x-quota-warning",
        "X-Quota-Warning",
        "integer",
        "80 or 95 if the usage is at or above that percentage of the quota; absent below",
    ),
    (
        "x-request-id",
        "X-Request-Id",
        "string",
        "The id of this request, also in the log; an id that the caller sends is returned",
    ),
    ("retry-after", "Retry-After", "integer", "Seconds to wait before the next try"),
    (
        "ratelimit",
        "RateLimit",
        "string",
        "For API clients with a rate limit: the remaining requests, and the seconds until the full limit is available",
    ),
    (
        "ratelimit-policy",
        "RateLimit-Policy",
        "string",
        "For API clients with a rate limit: requests per window in seconds",
    ),
    ("set-cookie", "Set-Cookie", "string", "For callers with cookies: cookies that are set, renewed or deleted"),
    ("www-authenticate", "WWW-Authenticate", "string", "`Bearer`"),
];

/// Failures of any operation.
const ALWAYS: [ErrorCode; 8] = [
    // For an unknown query parameter.
    ErrorCode::BadInput,
    ErrorCode::Internal,
    ErrorCode::Database,
    ErrorCode::DatabaseFull,
    ErrorCode::DatabaseReadOnly,
    ErrorCode::DatabaseDamaged,
    ErrorCode::DatabaseLost,
    ErrorCode::Busy,
];
const WITH_BODY: [ErrorCode; 4] =
    [ErrorCode::MalformedBody, ErrorCode::RequestTimeout, ErrorCode::TooLarge, ErrorCode::MediaType];
const GUARDED: [ErrorCode; 2] = [ErrorCode::Unauthenticated, ErrorCode::Forbidden];
/// The failures of each security scheme.
const SCHEMES: [(&str, &[ErrorCode]); 7] = [
    (
        "bearer",
        &[
            ErrorCode::MissingBearer,
            ErrorCode::InvalidBearer,
            ErrorCode::NotAMember,
            ErrorCode::SecondFactorRequired,
            ErrorCode::ExternalSystemFailed,
        ],
    ),
    (
        "session_cookie",
        &[ErrorCode::CrossSite, ErrorCode::WrongHost, ErrorCode::InvalidRefresh, ErrorCode::RefreshReused],
    ),
    ("api_key", &[ErrorCode::InvalidKey, ErrorCode::ScopeNotAllowed, ErrorCode::MemberSuspended]),
    (
        "client_key",
        &[
            ErrorCode::InvalidClient,
            ErrorCode::ClientExpired,
            ErrorCode::InvalidApiKey,
            ErrorCode::OriginNotAllowed,
            ErrorCode::IpNotAllowed,
            ErrorCode::PathNotAllowed,
            ErrorCode::ScopeNotAllowed,
            ErrorCode::RateLimited,
        ],
    ),
    ("internal_secret", &[ErrorCode::InvalidInternalSecret, ErrorCode::InternalSecretNotConfigured]),
    ("hook_key", &[ErrorCode::HookKey]),
    ("hint_signature", &[ErrorCode::HookSignature]),
];
/// The failures of request headers.
const READ: [(&str, ErrorCode); 3] = [
    ("If-Match", ErrorCode::VersionStale),
    ("Idempotency-Key", ErrorCode::IdempotencyKeyReused),
    ("X-Tenant-ID", ErrorCode::OrganizationNotFound),
];

/// The name and the description of failures, by status.
pub const STATUSES: [(u16, &str, &str); 14] = [
    (400, "BadRequest", "Invalid input; lists all invalid fields"),
    (401, "Unauthorized", "The credential is missing, invalid, or not accepted by this operation"),
    (403, "Forbidden", "The credential is valid but lacks the permission"),
    (404, "NotFound", "Not found, or not visible to this caller"),
    (408, "RequestTimeout", "Receiving the body took too long"),
    (409, "Conflict", "Conflict with the present state"),
    (412, "PreconditionFailed", "`If-Match` is stale"),
    (413, "TooLarge", "The body is too large"),
    (415, "UnsupportedMediaType", "Unsupported media type"),
    (429, "TooManyRequests", "Too many requests"),
    (500, "InternalError", "Internal error: the log has the cause under the `request_id`"),
    (501, "NotConfigured", "This module is not configured"),
    (502, "BadGateway", "An external system failed"),
    (503, "Unavailable", "Busy"),
];

/// Maps a failure of an operation to the one that an external definition (such as a standard) prescribes.
pub type CauseOverride = fn(&str, ErrorCode) -> ErrorCode;

/// The causes and headers of every operation, by its id.
pub struct Declared(HashMap<String, (BTreeSet<&'static str>, BTreeSet<&'static str>)>);

impl Declared {
    /// Fails with `internal` if the operation does not declare this failure.
    pub fn check_failure(&self, operation: &str, error: &Error) -> Result<(), Error> {
        match self.0.get(operation) {
            Some((causes, _)) if !causes.contains(error.code.as_str()) => {
                Err(Error::internal(format!("{operation} does not declare {:?} ({error})", error.code)))
            }
            _ => Ok(()),
        }
    }

    /// Fails with `internal` if the operation does not declare one of these headers of a success.
    pub fn check_headers(&self, operation: &str, headers: &poem::http::HeaderMap) -> Result<(), Error> {
        let Some((_, declared)) = self.0.get(operation) else { return Ok(()) };
        match DECLARED.iter().find(|name| headers.contains_key(**name) && !declared.contains(*name)) {
            Some(name) => Err(Error::internal(format!("{operation} does not declare the header {name}"))),
            None => Ok(()),
        }
    }
}

/// Writes the failures and headers of every operation into the document.
pub fn write(document: &mut Value, answers: &[&Answers], as_defined: CauseOverride) -> Result<Declared, Error> {
    let declared: HashMap<&str, &Answers> = answers.iter().map(|answers| (answers.operation, *answers)).collect();
    let of_code: BTreeSet<&str> = operations(document).iter().map(|operation| operation.id).collect();
    if let Some(unknown) = declared.keys().find(|id| !of_code.contains(*id)) {
        return Err(Error::internal(format!("answers of {unknown}, which is not an operation")));
    }
    let mut shared = Map::new();
    let mut of_operations = HashMap::new();
    for item in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for method in METHODS {
            let Some(operation) = item.get_mut(method) else { continue };
            let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
            let declared = declared.get(id.as_str());
            let causes = causes(operation, declared.map_or(&[][..], |answers| answers.causes), as_defined);
            let mut headers: BTreeSet<&'static str> =
                declared.map(|answers| answers.headers.iter().copied().collect()).unwrap_or_default();
            write_failures(operation, &causes, as_defined, &mut shared);
            write_headers(operation, &mut headers);
            of_operations.insert(id, (causes.iter().map(|cause| cause.as_str()).collect(), headers));
        }
    }
    document["components"]["responses"] = Value::Object(shared);
    let headers = HEADERS.iter().map(|(_, name, kind, description)| {
        ((*name).to_owned(), json!({"description": description, "schema": {"type": kind}}))
    });
    document["components"]["headers"] = Value::Object(headers.collect());
    Ok(Declared(of_operations))
}

/// The names of an operation's security schemes.
fn schemes(operation: &Value) -> BTreeSet<&str> {
    let all = operation["security"].as_array().into_iter().flatten().filter_map(Value::as_object);
    all.flat_map(Map::keys).map(String::as_str).collect()
}

fn reads(operation: &Value, header: &str) -> bool {
    operation["parameters"].as_array().into_iter().flatten().any(|p| p["in"] == "header" && p["name"] == header)
}

/// All failures of an operation.
fn causes(operation: &Value, declared: &[ErrorCode], as_defined: CauseOverride) -> Vec<ErrorCode> {
    let schemes = schemes(operation);
    let mut found: Vec<ErrorCode> = ALWAYS.into();
    found.extend(declared);
    if operation.get("requestBody").is_some() {
        found.extend(WITH_BODY);
    }
    if !schemes.is_empty() {
        found.extend(GUARDED);
    }
    found.extend(SCHEMES.iter().filter(|(name, _)| schemes.contains(name)).flat_map(|(_, causes)| *causes));
    found.extend(READ.iter().filter(|(header, _)| reads(operation, header)).map(|(_, cause)| cause));
    if operation["responses"].get("202").is_some() {
        found.push(ErrorCode::TasksLimited);
    }
    let id = operation["operationId"].as_str().unwrap_or_default();
    found.iter_mut().for_each(|cause| *cause = as_defined(id, *cause));
    // Each once, in the order of `ErrorCode::ALL`.
    ErrorCode::ALL.iter().copied().filter(|cause| found.contains(cause)).collect()
}

fn write_failures(
    operation: &mut Value,
    causes: &[ErrorCode],
    as_defined: CauseOverride,
    shared: &mut Map<String, Value>,
) {
    let general = self::causes(operation, &[], as_defined);
    let mut failures = Map::new();
    let mut write = |status: &str, name: &str, description: &str, own: &[ErrorCode]| {
        let details: Vec<&str> = own.iter().map(|cause| cause.as_str()).collect();
        let reference = share(shared, name, &details.join(" "), failure(status, description, &details));
        failures.insert(status.to_owned(), reference);
    };
    for (status, name, description) in STATUSES {
        // Server-side failures that every operation has are listed once, as the range 5XX.
        let is_own = |cause: &ErrorCode| cause.status() == status && (status < 500 || !general.contains(cause));
        let own: Vec<ErrorCode> = causes.iter().copied().filter(is_own).collect();
        if !own.is_empty() {
            write(&status.to_string(), name, description, &own);
        }
    }
    let ours: Vec<ErrorCode> = general.into_iter().filter(|cause| cause.status() >= 500).collect();
    write(
        "5XX",
        "ServerFailure",
        "Internal error (500), not configured (501), an external system failed (502), busy (503)",
        &ours,
    );
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    responses.retain(|status, _| status.as_str() < "400");
    responses.extend(failures);
}

/// A failure with the possible values of `detail`.
fn failure(status: &str, description: &str, details: &[&str]) -> Value {
    let headers: &[&str] = match status {
        "401" => &["x-request-id", "www-authenticate"],
        "412" => &["x-request-id", "etag"],
        "429" => &["x-request-id", "retry-after", "ratelimit", "ratelimit-policy"],
        "503" | "5XX" => &["x-request-id", "retry-after"],
        _ => &["x-request-id"],
    };
    json!({
        "description": description,
        "headers": named(headers),
        "content": {"application/json": {"schema": {"allOf": [
            {"$ref": "#/components/schemas/Failure"},
            {"type": "object", "properties": {"detail": {"type": "string", "enum": details}}},
        ]}}},
    })
}

/// References to headers, by name.
fn named(headers: &[&str]) -> Value {
    let known = HEADERS.iter().filter(|(header, ..)| headers.contains(header));
    Value::Object(
        known
            .map(|(_, name, ..)| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")})))
            .collect(),
    )
}

/// Writes the headers of successes, and a 304 if the operation reads `If-None-Match`.
fn write_headers(operation: &mut Value, headers: &mut BTreeSet<&'static str>) {
    let schemes = schemes(operation);
    let (is_client, is_cookie) = (schemes.contains("client_key"), schemes.contains("session_cookie"));
    let has_tag = reads(operation, "If-None-Match");
    if has_tag {
        headers.insert("etag");
    }
    let mut all: Vec<&str> = headers.iter().copied().chain(["x-request-id"]).collect();
    if is_client {
        all.extend(["ratelimit", "ratelimit-policy"]);
    }
    if is_cookie || operation["tags"] == json!([Tag::Sessions.name()]) {
        all.push("set-cookie");
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    if has_tag {
        responses.insert("304".into(), json!({"description": "Not changed since that ETag"}));
    }
    for response in responses.iter_mut().filter(|(status, _)| status.as_str() < "400").map(|(_, response)| response) {
        response["headers"] = named(&all);
    }
}
