//! The outermost layer: request id, address, body limits, panic guard, the one place where a failure becomes an answer,
//! and what every answer carries.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use poem::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Body, Endpoint, Request, Response};

use super::is_change;
use crate::access::caller::{Exchange, FromCommandLine, Idempotency};
use crate::app::App;
use crate::config::Config;
use crate::error::{Cause, Error, Result};
use crate::wire::{Failure, Raw, failure_body};

/// What is over the body limit is read this far, so that the caller gets to see the answer.
const DRAIN_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Reads the body within its limits, and puts it back as one piece.
async fn take_body(app: &App, request: &mut Request) -> Result<()> {
    let bytes_max = body_bytes_max(&app.config, request.method(), request.uri().path());
    let reading = read_limited(request.take_body(), bytes_max);
    let bytes = tokio::time::timeout(Duration::from_millis(app.config.body_wait_ms), reading)
        .await
        .map_err(|_| Error::new(Cause::RequestTimeout).header("Connection", "close"))??;
    if let Some(key) = request.headers().get("idempotency-key") {
        let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
        let key =
            key.ok_or_else(|| Error::header_field("Idempotency-Key", "must be 1 to 128 plain characters"))?.to_owned();
        // Whom the request is for is a part of it.
        let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        let (tenant, user) = (header("x-tenant-id"), header("x-sftpgo-user"));
        let (method, uri) = (request.method().as_str(), request.original_uri().to_string());
        let fingerprint = app.fingerprint(&[method.as_bytes(), uri.as_bytes(), tenant, user, &bytes]);
        request.extensions_mut().insert(Idempotency { key, fingerprint });
    }
    // Pages read a form as the framework does; operations read the bytes.
    if is_page(request) {
        request.set_body(bytes);
    } else {
        request.extensions_mut().insert(Raw(bytes));
    }
    Ok(())
}

/// How long a body may be, by where it goes. A plugin that is too large is refused by its own operation, which says by
/// how much: what is moderately too large gets through to it, and big runtimes only where some organization may have them.
fn body_bytes_max(config: &Config, method: &Method, path: &str) -> u64 {
    let path = path.strip_prefix(config.base_path.as_str()).unwrap_or(path);
    match path.strip_suffix('/').unwrap_or(path) {
        "/permissions/catalog" => config.catalog_bytes_max,
        "/admin/users/import" => config.import_bytes_max,
        "/plugins" if *method == Method::POST => {
            const REFUSED_BYTES: u64 = 6 * 1024 * 1024;
            let large = if config.plugins_large.is_empty() { 0 } else { config.plugin_large_file_bytes + 1 };
            REFUSED_BYTES.max(config.plugin_file_bytes + 1).max(large)
        }
        _ => config.body_bytes_max,
    }
}

fn is_page(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/setup") || ["/reset", "/invitation"].contains(&path)
}

const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

async fn read_limited(body: Body, bytes_max: u64) -> Result<Vec<u8>> {
    let mut stream = std::pin::pin!(body.into_bytes_stream());
    let mut bytes = Vec::new();
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        let piece =
            piece.map_err(|e| Error::new(Cause::MalformedBody).saying("the body broke off").because(e.to_string()))?;
        total += piece.len() as u64;
        if total <= bytes_max {
            bytes.extend_from_slice(&piece);
        } else if total > DRAIN_BYTES_MAX.max(bytes_max) {
            return Err(Error::new(Cause::TooLarge).saying(too_large(bytes_max)).header("Connection", "close"));
        }
    }
    if total > bytes_max {
        return Err(Error::new(Cause::TooLarge).saying(too_large(bytes_max)));
    }
    Ok(bytes)
}

fn too_large(bytes_max: u64) -> String {
    format!("the body is larger than the {bytes_max} bytes that this address takes")
}

/// The outermost layer.
pub(super) struct Edge<E> {
    pub(super) inner: E,
    pub(super) app: Arc<App>,
    /// Which methods each address takes, for the `Allow` header.
    pub(super) methods: matchit::Router<String>,
}

impl<E: Endpoint<Output = Response>> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let began = Instant::now();
        let request_id = incoming_id(&request).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        if request.remote_addr().as_unix_socket_addr().is_some() {
            request.extensions_mut().insert(FromCommandLine);
        }
        if request.uri().path().contains('%') {
            make_readable(&mut request);
        }
        let address = client_address(&request, &self.app.config.trusted_proxies);
        let method = request.method().clone();
        let origin = request.headers().get(header::ORIGIN).cloned();
        let is_preflight =
            method == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let exchange = Arc::new(Exchange::new(request_id, address, request.uri().path().to_owned()));
        request.extensions_mut().insert(exchange.clone());
        let mut response = if is_preflight {
            Response::builder().status(StatusCode::NO_CONTENT).finish()
        } else {
            let span = tracing::debug_span!("request", request_id = exchange.request_id, %method, path = exchange.path);
            let answer = async {
                if is_change(&method) {
                    take_body(&self.app, &mut request).await?;
                }
                self.inner.call(request).await
            };
            let call = tracing::Instrument::instrument(answer, span);
            match AssertUnwindSafe(call).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => self.rendered(error, &method, &exchange),
                Err(panic) => {
                    self.app.figures.panics.inc();
                    self.failed(&Error::internal(format!("panic: {}", crate::db::panic_text(&panic))), &exchange)
                }
            }
        };
        self.mark(&mut response, origin.as_ref(), is_preflight, &exchange);
        let took = began.elapsed();
        self.app.figures.duration_s.observe(took.as_secs_f64());
        let status = response.status().as_u16();
        let Exchange { request_id, path, .. } = &*exchange;
        tracing::debug!(request_id, %method, path, status, took_us = took.as_micros(), actor = exchange.actor().0, "answered");
        Ok(response)
    }
}

impl<E> Edge<E> {
    fn rendered(&self, error: poem::Error, method: &Method, exchange: &Exchange) -> Response {
        match converted(error) {
            Ok(mut failure) => {
                if failure.cause == Cause::MethodNotAllowed
                    && let Ok(found) = self.methods.at(&exchange.path)
                {
                    failure = failure.header("Allow", found.value.clone());
                }
                let mut response = self.failed(&failure, exchange);
                if *method == Method::HEAD {
                    response.set_body(());
                }
                response
            }
            Err(finished) => *finished,
        }
    }

    /// The one place where a failure becomes an answer.
    fn failed(&self, failure: &Error, exchange: &Exchange) -> Response {
        let request_id = &exchange.request_id;
        let status = failure.cause.status();
        let source = failure.source.as_deref().unwrap_or("");
        let (word, path) = (failure.cause.word(), &exchange.path);
        let (kind, name) = exchange.actor();
        match status {
            500.. => tracing::error!(request_id, path, word, source, kind, name, "failed"),
            401 | 403 | 429 => tracing::info!(request_id, path, word, source, kind, name, "refused"),
            _ => tracing::debug!(request_id, path, word, source, kind, name, "refused"),
        }
        if failure.cause == Cause::RateLimited {
            self.app.figures.clients.with_label_values(&[name.as_str(), "limited"]).inc();
        }
        let area = area(exchange.path.strip_prefix(self.app.config.base_path.as_str()).unwrap_or(&exchange.path));
        let body = failure_body(failure, area, request_id, self.app.config.debug && status >= 500);
        let mut response = Response::builder()
            .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            .content_type("application/json");
        if status == 401 {
            response = response.header(header::WWW_AUTHENTICATE, "Bearer");
        }
        if let Some(seconds) = failure.retry_after_s {
            response = response.header(header::RETRY_AFTER, seconds.get());
        }
        for (name, value) in &failure.headers {
            response = response.header(*name, value);
        }
        response.body(body.to_string())
    }

    /// What every answer carries.
    fn mark(&self, response: &mut Response, origin: Option<&HeaderValue>, is_preflight: bool, exchange: &Exchange) {
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        for cookie in exchange.take_cookies() {
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-request-id", &exchange.request_id);
        if let Some((policy, state)) = exchange.rate.get() {
            set("ratelimit-policy", policy);
            set("ratelimit", state);
            self.app.figures.clients.with_label_values(&[exchange.actor().1.as_str(), "counted"]).inc();
        }
        let allowed = origin
            .and_then(|origin| origin.to_str().ok())
            .filter(|origin| self.app.config.cors_origins.iter().any(|o| o == origin));
        let Some(origin) = allowed else { return };
        set("access-control-allow-origin", origin);
        set("access-control-allow-credentials", "true");
        set(
            "access-control-expose-headers",
            "etag, x-request-id, x-policy-epoch, x-quota-warning, retry-after, ratelimit, ratelimit-policy",
        );
        if is_preflight {
            set("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE");
            set(
                "access-control-allow-headers",
                "authorization, content-type, if-match, if-none-match, idempotency-key, x-client-key, x-api-key, x-tenant-id, x-sftpgo-user, x-request-id",
            );
            set("access-control-max-age", "600");
        }
    }
}

/// Our error for one of the framework's; a finished answer passes as it is.
fn converted(error: poem::Error) -> std::result::Result<Error, Box<Response>> {
    if let Some(Failure(failure)) = error.downcast_ref::<Failure>() {
        return Ok(failure.clone());
    }
    if error.is_from_response() {
        return Err(Box::new(error.into_response()));
    }
    let text = error.to_string();
    let is_path = error.is::<poem_openapi::error::ParsePathError>() || error.is::<poem::error::ParsePathError>();
    if is_path {
        return Ok(Error::new(Cause::NotFound).because(text));
    }
    let cause = match error.status() {
        StatusCode::NOT_FOUND => Cause::RouteNotFound,
        StatusCode::METHOD_NOT_ALLOWED => Cause::MethodNotAllowed,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Cause::MediaType,
        StatusCode::PAYLOAD_TOO_LARGE => Cause::TooLarge,
        StatusCode::UNAUTHORIZED => Cause::Unauthenticated,
        StatusCode::BAD_REQUEST => Cause::MalformedBody,
        _ => Cause::Internal,
    };
    Ok(Error::new(cause).because(text))
}

/// The scope of codes for a path below the base path.
fn area(path: &str) -> u32 {
    const AREAS: &[(&str, u32)] = &[
        ("/admin/signing-keys", 28),
        ("/admin/encryption-key", 28),
        ("/admin/api-clients", 32),
        ("/admin/api-keys", 32),
        ("/me/api-keys", 32),
        ("/admin/quotas", 33),
        ("/admin/usage", 33),
        ("/me/quota", 33),
        ("/admin/audit", 35),
        ("/admin/deliveries", 35),
        ("/admin/sftpgo", 35),
        ("/admin/webhooks", 35),
        ("/admin/wordpress", 35),
        ("/auth", 28),
        ("/setup", 28),
        ("/permissions", 31),
        ("/hooks", 33),
        ("/jobs", 33),
        ("/quota", 33),
        ("/register", 33),
        ("/videos", 33),
        ("/plugins", 34),
    ];
    let below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let members = ["/me", "/admin", "/internal"].iter().any(|top| below(top)).then_some(29);
    AREAS.iter().find(|(top, _)| below(top)).map(|(_, scope)| *scope).or(members).unwrap_or(35)
}

/// A path that is not text names nothing: what cannot be read becomes the sign for that, and is then not found like any
/// other name.
fn make_readable(request: &mut Request) {
    let path = request.uri().path();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
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
    if std::str::from_utf8(&bytes).is_ok() {
        return;
    }
    let text = String::from_utf8_lossy(&bytes);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let escaped =
        text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    let path =
        escaped.collect::<String>() + &request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
}

/// An id that the caller brought, if it is plain.
fn incoming_id(request: &Request) -> Option<String> {
    const ID_BYTES_MAX: usize = 64;
    let id = request.headers().get("x-request-id")?.to_str().ok()?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    (is_plain && (1..=ID_BYTES_MAX).contains(&id.len())).then(|| id.to_owned())
}

/// Where the request comes from: the peer, or what trusted proxies say of it (the right-most hop they vouch for). A hop
/// that is no address is nobody's, so that no allow-list admits it.
fn client_address(request: &Request, trusted: &[ipnet::IpNet]) -> Option<IpAddr> {
    let peer = request.remote_addr().as_socket_addr()?.ip().to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let forwarded = request.headers().get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
    let hops: Vec<&str> = forwarded.flat_map(|text| text.split(',')).map(str::trim).collect();
    for hop in hops.into_iter().rev() {
        match hop.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if is_trusted(&address) => {}
            Ok(address) => return Some(address),
            Err(_) => return None,
        }
    }
    Some(peer)
}

#[cfg(test)]
mod tests {
    use super::area;

    #[test]
    fn the_area_follows_from_the_path() {
        assert_eq!(area("/permissions/me"), 31);
        assert_eq!(area("/admin/permissions/grant"), 29);
        assert_eq!(area("/admin/api-clients/x"), 32);
        assert_eq!(area("/admin/api-clientsx"), 29);
        assert_eq!(area("/me"), 29);
        assert_eq!(area("/auth/login"), 28);
        assert_eq!(area("/nowhere"), 35);
    }
}
