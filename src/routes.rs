//! The HTTP surface: its table of contents, the layers around it, and the server.
//!
//! Order, outermost first: `Edge` (request id, address, panic guard, error rendering, CORS) → routes → `Operations`
//! (body limits, idempotency, explained parameters, recorded denials) → operation.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Body, Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Request, Response, Route, get, handler, post};
use poem_openapi::{OpenApiService, OperationId};
use serde_json::{Value, json};

use crate::access::caller::{Exchange, FromCommandLine, Idempotency};
use crate::access::secret;
use crate::app::{App, figures};
use crate::console;
use crate::error::{Cause, Error, Field, Result};
use crate::wire::inputs::{Format, Inputs};
use crate::wire::{Failure, Raw, document, failure_body, is_known};
use crate::{audit, clients, members, organizations, permissions, sessions};

/// What is over the body limit is read this far, so that the caller gets to see the answer.
const DRAIN_BYTES_MAX: u64 = 8 * 1024 * 1024;

type Apis = (
    (members::api::admin::Api, members::api::me::Api, members::api::internal::Api, members::api::grants::Api),
    organizations::api::Api,
    (
        permissions::api::roles::Api,
        permissions::api::assignments::Api,
        permissions::api::mappings::Api,
        permissions::api::policy::Api,
        permissions::api::check::Api,
    ),
    sessions::api::Api,
    clients::api::Api,
    audit::api::Api,
    System,
);

fn service(app: &Arc<App>) -> OpenApiService<Apis, ()> {
    let app = || app.clone();
    let apis: Apis = (
        (
            members::api::admin::Api { app: app() },
            members::api::me::Api { app: app() },
            members::api::internal::Api { app: app() },
            members::api::grants::Api { app: app() },
        ),
        organizations::api::Api { app: app() },
        (
            permissions::api::roles::Api { app: app() },
            permissions::api::assignments::Api { app: app() },
            permissions::api::mappings::Api { app: app() },
            permissions::api::policy::Api { app: app() },
            permissions::api::check::Api { app: app() },
        ),
        sessions::api::Api { app: app() },
        clients::api::Api { app: app() },
        audit::api::Api { app: app() },
        System,
    );
    let description = "Members, organizations, roles, API clients and permission checks of a small site. \
        Success is `{code: 102000, message, data}`; a failure's code is scope × 1 000 000 + category × 1 000 + detail.";
    OpenApiService::new(apis, "Roster", env!("CARGO_PKG_VERSION")).description(description)
}

/// The finished OpenAPI document and the page that shows it.
pub fn documented(app: &Arc<App>) -> Result<(Value, String)> {
    described(&service(app), app)
}

fn described(service: &OpenApiService<Apis, ()>, app: &App) -> Result<(Value, String)> {
    let generated = service.spec();
    let examples: Vec<(&str, &str)> = [
        members::api::EXAMPLES,
        organizations::api::EXAMPLES,
        permissions::api::EXAMPLES,
        sessions::api::EXAMPLES,
        clients::api::EXAMPLES,
        audit::api::EXAMPLES,
    ]
    .concat();
    let mut document = document::finish(&generated, &examples)?;
    document["servers"] = json!([{"url": app.config.base_path}]);
    // `</` in a description would end the page's script.
    let shown = document.to_string().replace("</", "<\\/");
    let page = service.swagger_ui_html().replacen(&generated, &shown, 1);
    Ok((document, page))
}

/// All that the program answers, ready for a server or for the command line.
pub fn endpoint(app: &Arc<App>) -> Result<BoxEndpoint<'static, Response>> {
    let service = service(app);
    let (document, page) = described(&service, app)?;
    let operations = Arc::new(Operations {
        inner: service.into_endpoint(),
        inputs: Arc::new(Inputs::new(&document, FORMATS)?),
        app: app.clone(),
    });
    let base = app.config.base_path.as_str();
    let methods = methods_by_path(&document, base);
    let shared = || Shared(operations.clone());
    let routes = Route::new()
        .at("/healthz", get(healthz).data(app.clone()))
        .at("/readyz", get(readyz).data(app.clone()))
        .at("/metrics", get(metrics).data(app.clone()))
        .at("/setup", get(console::setup::form).post(console::setup::submit).data(app.clone()))
        .at("/setup/link", post(console::setup::new_link).data(app.clone()))
        .at(format!("{base}/openapi.json"), get(Fixed::new("application/json", document.to_string(), None)))
        .at(format!("{base}/docs"), get(Fixed::new("text/html; charset=utf-8", page, Some(DOCS_POLICY))))
        .nest(base, shared())
        .nest_no_strip("/auth", shared())
        .nest_no_strip("/me", shared())
        .nest_no_strip("/admin", shared())
        .nest_no_strip("/internal", shared());
    Ok(Edge { inner: routes, app: app.clone(), methods }.boxed())
}

/// Rules that a schema names as a format, because a pattern could not say all that is wrong.
pub const FORMATS: &[Format] = &[
    ("password", members::password::faults),
    ("client-origin", clients::origin_faults),
    ("client-network", clients::network_faults),
    ("client-path", clients::path_faults),
];

/// The page is one inline script by Swagger UI; it may talk to this server only.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'";

/// The program itself.
struct System;

/// Which program this is
#[derive(poem_openapi::Object)]
struct Version {
    name: String,
    version: String,
}

#[poem_openapi::OpenApi(tag = "crate::wire::Tag::System")]
impl System {
    /// See which version this is
    #[oai(path = "/version", method = "get", operation_id = "get_version")]
    async fn get_version(&self) -> crate::wire::Reply<Version> {
        Ok(crate::wire::ok(Version { name: "roster".into(), version: env!("CARGO_PKG_VERSION").into() }))
    }
}

#[handler]
async fn healthz(app: poem::web::Data<&Arc<App>>) -> Response {
    health(app.is_healthy().await)
}

#[handler]
async fn readyz(app: poem::web::Data<&Arc<App>>) -> Response {
    health(app.snapshot().epoch > 0 && app.is_healthy().await)
}

fn health(is_well: bool) -> Response {
    let (status, word) =
        if is_well { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    Response::builder().status(status).content_type("application/json").body(json!({"status": word}).to_string())
}

/// Open to this machine, and elsewhere to the holder of the token.
#[handler]
async fn metrics(request: &Request, app: poem::web::Data<&Arc<App>>) -> Result<Response, Failure> {
    let is_forwarded = ["x-forwarded-for", "forwarded"].iter().any(|name| request.headers().contains_key(*name));
    let peer = request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical());
    let is_local = !is_forwarded && peer.is_none_or(|address| address.is_loopback());
    let offered =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = app.config.metrics_token.as_deref().map(secret::hash);
    let is_holder = offered.zip(token).is_some_and(|(offered, token)| secret::equal(&secret::hash(offered), &token));
    if !is_local && !is_holder {
        return Err(Error::new(Cause::Unauthenticated)
            .saying("metrics are for this machine, or for a bearer of the metrics token")
            .into());
    }
    Ok(Response::builder().content_type("text/plain; version=0.0.4").body(figures::render(&app)?))
}

/// A text that was made once, with a tag so that it is fetched once.
struct Fixed {
    content_type: &'static str,
    text: String,
    etag: String,
    policy: Option<&'static str>,
}

impl Fixed {
    fn new(content_type: &'static str, text: String, policy: Option<&'static str>) -> Self {
        let etag = format!("\"{}\"", hex::encode(&secret::hash(&text)[..12]));
        Self { content_type, text, etag, policy }
    }
}

impl Endpoint for Fixed {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let mut response = Response::builder().header(header::ETAG, &self.etag);
        if let Some(policy) = self.policy {
            response = response.header(header::CONTENT_SECURITY_POLICY, policy);
        }
        let sent = request.headers().get(header::IF_NONE_MATCH).and_then(|sent| sent.to_str().ok());
        if is_known(sent, &self.etag) {
            return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
        }
        Ok(response.content_type(self.content_type).body(self.text.clone()))
    }
}

/// One endpoint under several addresses.
struct Shared(Arc<Operations>);

impl Endpoint for Shared {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        self.0.call(request).await
    }
}

/// What lies between the routes and the operations.
struct Operations {
    inner: BoxEndpoint<'static>,
    inputs: Arc<Inputs>,
    app: Arc<App>,
}

impl Operations {
    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let is_change = is_change(request.method());
        request.extensions_mut().insert(self.inputs.clone());
        request.extensions_mut().insert(self.app.guard.clone());
        let uri = request.original_uri().clone();
        let exchange = request.data::<Arc<Exchange>>().cloned();
        let (operation, answer) = match self.inner.call(request).await {
            Ok(response) => {
                let response = response.into_response();
                (response.data::<OperationId>().map(|id| id.0), Ok(response))
            }
            Err(error) => (error.data::<OperationId>().map(|id| id.0), Err(error)),
        };
        let status = match &answer {
            Ok(response) => response.status(),
            Err(error) => error.status(),
        };
        self.app.figures.requests.with_label_values(&[operation.unwrap_or("none"), status.as_str()]).inc();
        let Err(error) = answer else { return answer };
        if is_parameter_error(&error)
            && let Some(id) = operation
        {
            let faults = self.inputs.check_query(id, &uri);
            let faults = if faults.is_empty() { vec![Field::at(&["query"], "cannot be read")] } else { faults };
            return Err(Error::fields(faults).because(error.to_string()).into());
        }
        if is_change
            && let Some(Failure(denied)) = error.downcast_ref::<Failure>().filter(|failure| failure.0.is_denial())
            && let Some(exchange) = exchange
            && let Err(e) = self.app.record_denial(&exchange, operation.unwrap_or("none"), denied.cause.word()).await
        {
            tracing::error!(error = %e, "a denial could not be recorded");
        }
        Err(error)
    }
}

/// Reads the body within its limits, and puts it back as one piece.
async fn take_body(app: &App, request: &mut Request) -> Result<()> {
    let is_catalog = request.uri().path().ends_with("/permissions/catalog");
    let config = &app.config;
    let bytes_max = if is_catalog { config.catalog_bytes_max } else { config.body_bytes_max };
    let reading = read_limited(request.take_body(), bytes_max);
    let bytes = tokio::time::timeout(Duration::from_millis(config.body_wait_ms), reading)
        .await
        .map_err(|_| Error::new(Cause::RequestTimeout).header("Connection", "close"))??;
    if let Some(key) = request.headers().get("idempotency-key") {
        let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
        let key =
            key.ok_or_else(|| Error::header_field("Idempotency-Key", "must be 1 to 128 plain characters"))?.to_owned();
        let tenant = request.headers().get("x-tenant-id").map(HeaderValue::as_bytes).unwrap_or_default();
        let (tenant, body) = (String::from_utf8_lossy(tenant), String::from_utf8_lossy(&bytes));
        let text = format!("{} {} {tenant}\n{body}", request.method(), request.original_uri());
        let fingerprint = app.fingerprint(&text);
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

fn is_page(request: &Request) -> bool {
    request.uri().path().starts_with("/setup")
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

fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_parameter_error(error: &poem::Error) -> bool {
    error.is::<poem_openapi::error::ParseParamError>()
}

/// The outermost layer.
struct Edge<E> {
    inner: E,
    app: Arc<App>,
    methods: matchit::Router<String>,
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
            response = response.header(header::RETRY_AFTER, seconds);
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
            "etag, x-request-id, x-policy-epoch, retry-after, ratelimit, ratelimit-policy",
        );
        if is_preflight {
            set("access-control-allow-methods", "GET, POST, PUT, PATCH, DELETE");
            set(
                "access-control-allow-headers",
                "authorization, content-type, if-match, if-none-match, idempotency-key, x-client-key, x-api-key, x-tenant-id, x-request-id",
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
    const AREAS: [(&str, u32); 5] =
        [("/permissions", 31), ("/admin/api-clients", 32), ("/admin/audit", 35), ("/auth", 28), ("/setup", 28)];
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

/// Which methods each address takes, for the `Allow` header.
fn methods_by_path(document: &Value, base: &str) -> matchit::Router<String> {
    let mut methods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for operation in document::operations(document) {
        let short = ["/auth", "/me", "/admin", "/internal"].iter().any(|top| operation.path.starts_with(top));
        for path in std::iter::once(format!("{base}{}", operation.path)).chain(short.then(|| operation.path.to_owned()))
        {
            let known = methods.entry(path).or_default();
            known.push(operation.method.to_uppercase());
        }
    }
    for fixed in ["/healthz", "/readyz", "/metrics"] {
        methods.insert(fixed.to_owned(), vec!["GET".into()]);
    }
    for fixed in ["openapi.json", "docs"] {
        methods.insert(format!("{base}/{fixed}"), vec!["GET".into()]);
    }
    methods.insert("/setup".to_owned(), vec!["GET".into(), "POST".into()]);
    let mut router = matchit::Router::new();
    for (path, methods) in methods {
        if let Err(e) = router.insert(path, methods.join(", ")) {
            tracing::warn!(error = %e, "an address has no Allow header");
        }
    }
    router
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
