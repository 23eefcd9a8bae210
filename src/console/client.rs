//! Calls operations of the API in this process, as the visitor of a page. A page has no other way to data.

use std::sync::Arc;

use poem::http::header::{COOKIE, HOST, IF_MATCH, ORIGIN, USER_AGENT};
use poem::http::{HeaderMap, HeaderName, HeaderValue, Method};
use poem::{Request, Response};
use serde_json::Value;

use super::multipart::Upload;
use super::schema::OperationInfo;
use crate::kernel::app::App;
use crate::kernel::authn::caller::{BoxFuture, PreAuthenticated};
use crate::kernel::authz::principal::{Identity, RequestContext};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::intake::{BodyPart, BodySlot, Origin};

/// Performs a request to an operation. The server passes its own endpoint, without the outer middleware.
pub type Perform = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// The headers of the visitor that operations read.
static FORWARDED: [HeaderName; 5] = [COOKIE, HOST, ORIGIN, USER_AGENT, HeaderName::from_static("sec-fetch-site")];
static TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The body of a call.
#[derive(Debug, Clone)]
enum Sent {
    Made(Vec<u8>),
    /// A file of the visitor's form, which is already in memory.
    Uploaded(BodyPart),
}

/// A call of one operation.
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) operation: &'static str,
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Option<Sent>,
    content_type: &'static str,
    if_match: Option<String>,
    once: Option<String>,
}

/// A call of the operation with this id.
pub fn op(id: &'static str) -> Call {
    Call {
        operation: id,
        path: Vec::new(),
        query: Vec::new(),
        body: None,
        content_type: "application/json",
        if_match: None,
        once: None,
    }
}

impl Call {
    /// The next parameter of the path.
    #[must_use]
    pub fn at(mut self, value: impl ToString) -> Self {
        self.path.push(value.to_string());
        self
    }

    #[must_use]
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds the parameter unless the value is missing or empty.
    #[must_use]
    pub fn query_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) if !value.is_empty() => self.query(name, value),
            _ => self,
        }
    }

    #[must_use]
    pub fn body(mut self, body: &Value) -> Self {
        self.body = Some(Sent::Made(body.to_string().into_bytes()));
        self
    }

    /// A body that is not JSON.
    #[must_use]
    pub fn bytes(mut self, content_type: &'static str, body: Vec<u8>) -> Self {
        (self.content_type, self.body) = (content_type, Some(Sent::Made(body)));
        self
    }

    /// An uploaded file as the body, without a copy.
    #[must_use]
    pub fn file(mut self, content_type: &'static str, file: &Upload) -> Self {
        (self.content_type, self.body) = (content_type, Some(Sent::Uploaded(file.part().clone())));
        self
    }

    /// Fails with `version_stale` if the object has changed since it had this ETag.
    #[must_use]
    pub fn if_match(mut self, etag: Option<&str>) -> Self {
        self.if_match = etag.filter(|etag| !etag.is_empty()).map(str::to_owned);
        self
    }

    /// The `Idempotency-Key`: the same form sent twice creates one thing.
    #[must_use]
    pub fn once(mut self, key: Option<&str>) -> Self {
        self.once = key.filter(|key| !key.is_empty()).map(str::to_owned);
        self
    }

    /// Method and address of the request, below the base path of the API.
    pub fn address(&self, operation: &OperationInfo) -> String {
        let mut values = self.path.iter();
        let segments = operation.path.split('/').map(|segment| match segment.strip_prefix('{') {
            Some(_) => encoded(values.next().map_or("", String::as_str)),
            None => segment.to_owned(),
        });
        let mut address = segments.collect::<Vec<_>>().join("/");
        for (n, (name, value)) in self.query.iter().enumerate() {
            address.push(if n == 0 { '?' } else { '&' });
            address.push_str(&format!("{name}={}", encoded(value)));
        }
        address
    }
}

/// Percent-encodes everything but unreserved characters, so that a value is one segment or one parameter.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The answer of an operation.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The `data` of the envelope.
    pub data: Value,
    pub etag: Option<String>,
}

/// The visitor on whose behalf an operation is called.
pub struct Caller<'v> {
    pub headers: &'v HeaderMap,
    pub context: &'v Arc<RequestContext>,
    pub identity: Option<&'v Identity>,
    pub organization: Option<&'v str>,
    pub app: &'v App,
}

/// Calls an operation. Cookies that it sets go to the answer of the page.
pub async fn call(perform: &Perform, caller: Caller<'_>, operation: &OperationInfo, call: Call) -> Result<Answer> {
    let response = respond(perform, caller, operation, call).await?;
    let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let bytes = response.into_body().into_bytes().await.map_err(|e| Error::internal(e.to_string()))?;
    if bytes.is_empty() {
        return Ok(Answer { data: Value::Null, etag });
    }
    let mut envelope: Value = serde_json::from_slice(&bytes).map_err(|e| Error::internal(e.to_string()))?;
    Ok(Answer { data: envelope["data"].take(), etag })
}

/// Calls an operation, and returns its response unread, so that a large one is passed on as it is made.
pub async fn respond(perform: &Perform, caller: Caller<'_>, operation: &OperationInfo, call: Call) -> Result<Response> {
    let address = call.address(operation);
    let method = Method::from_bytes(operation.method.as_bytes()).unwrap_or(Method::GET);
    let mut request = Request::builder().method(method).uri_str(&address).content_type(call.content_type).finish();
    let headers = request.headers_mut();
    for name in &FORWARDED {
        for value in caller.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in [
        (&TENANT, caller.organization),
        (&IF_MATCH, call.if_match.as_deref()),
        (&IDEMPOTENCY_KEY, call.once.as_deref()),
    ] {
        let Some(value) = value else { continue };
        // Left out, it would be a change without its precondition.
        let value = HeaderValue::from_str(value).map_err(|_| Error::from(ErrorCode::BadInput))?;
        headers.insert(name, value);
    }
    let outer = caller.context;
    let body = match call.body {
        Some(Sent::Uploaded(part)) => BodySlot::of_part(part),
        Some(Sent::Made(bytes)) => {
            let origin = Origin { address: outer.address, is_sign_in: caller.identity.is_none() };
            BodySlot::new(poem::Body::from(bytes).into(), false, origin, &caller.app.intake)
        }
        None => BodySlot::default(),
    };
    let path = address.split('?').next().unwrap_or_default().to_owned();
    let context = Arc::new(RequestContext::new(outer.request_id.clone(), outer.address, path).with_body(body));
    request.extensions_mut().insert(context.clone());
    if let Some(identity) = caller.identity {
        request.extensions_mut().insert(PreAuthenticated(identity.clone()));
    }
    let result = context.scope(perform(request)).await;
    for cookie in context.take_cookies() {
        outer.set_cookie(cookie);
    }
    result.inspect_err(|error| caller.app.log_failure(error, &context))
}

#[cfg(test)]
mod tests {
    use super::op;
    use crate::console::schema::OperationInfo;

    #[test]
    fn values_stay_one_segment_and_one_parameter() {
        let operation = OperationInfo::at("GET", "/admin/users/{id}/roles/{role_id}");
        let call = op("x").at("../a b").at("ü?").query("keyword", "a&b=c").query_some("after", None);
        assert_eq!(call.address(&operation), "/admin/users/..%2Fa%20b/roles/%C3%BC%3F?keyword=a%26b%3Dc");
    }
}
