//! The outermost middleware: request id, client address, body limits, panic guard, conversion of errors to answers
//! (only here), and headers of every answer.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response};

use crate::kernel::app::App;
use crate::kernel::app::denials::loggable_path;
use crate::kernel::authn::caller::FromCommandLine;
use crate::kernel::authz::principal::{CLIENT_KIND, RequestContext};
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::{Failure, failure_body, percent_decoded};
use crate::kernel::intake::{BodySlot, Limit, Origin};

/// Whether the path is one of the two set-up requests of the command line, which the framework reads.
fn is_setup(request: &Request) -> bool {
    request.uri().path().starts_with("/setup/")
}

/// Whether somebody signs in at this page of the console.
fn is_sign_in_page(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with("/console/sign-in") || ["/setup", "/reset", "/invitation"].contains(&path)
}

/// The outermost layer.
pub(super) struct Middleware<E> {
    pub(super) inner: E,
    pub(super) app: Arc<App>,
    /// The allowed methods of each path, for the `Allow` header.
    pub(super) methods: matchit::Router<String>,
}

impl<E: Endpoint<Output = Response>> Endpoint for Middleware<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let began = Instant::now();
        let request_id = incoming_id(&request).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        if request.remote_addr().as_unix_socket_addr().is_some() {
            request.extensions_mut().insert(FromCommandLine);
        }
        if request.uri().path().contains('%') {
            replace_invalid_utf8(&mut request);
        }
        let address = client_address(&request, &self.app.config.trusted_proxies);
        let method = request.method().clone();
        let origin = request.headers().get(header::ORIGIN).cloned();
        let is_preflight =
            method == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let context = RequestContext::new(request_id, address, request.uri().path().to_owned());
        let expects_continue = request.headers().contains_key(header::EXPECT);
        let is_sign_in = is_sign_in_page(&request) || self.area(request.uri().path()) == SIGN_IN_AREA;
        let body = request.take_body();
        let body = if body.is_empty() {
            BodySlot::default()
        } else {
            BodySlot::new(body.into(), expects_continue, Origin { address, is_sign_in }, &self.app.intake)
        };
        let context = Arc::new(context.with_body(body));
        request.extensions_mut().insert(context.clone());
        let mut response = if is_preflight {
            Response::builder().status(StatusCode::NO_CONTENT).finish()
        } else {
            let span = tracing::debug_span!("request", request_id = context.request_id, %method, path = %loggable_path(&context.path));
            let answer = async {
                require_one_host(&request)?;
                // Read with the extractor of poem, which needs the body in the request.
                if is_setup(&request) {
                    let form = context.body.read(Limit::Public, None).await?.clone();
                    request.set_body(form);
                }
                self.inner.call(request).await
            };
            let call = tracing::Instrument::instrument(context.scope(answer), span);
            match AssertUnwindSafe(call).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => self.rendered(error, &method, &context),
                Err(panic) => {
                    self.app.metrics.panics.inc();
                    self.failed(&Error::internal(format!("panic: {}", crate::kernel::db::panic_text(&panic))), &context)
                }
            }
        };
        if context.body.discard(context.is_known()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.add_headers(&mut response, origin.as_ref(), is_preflight, &context);
        let duration = began.elapsed();
        self.app.metrics.duration_s.observe(duration.as_secs_f64());
        let status = response.status().as_u16();
        let request_id = &context.request_id;
        tracing::debug!(request_id, %method, path = %loggable_path(&context.path), status, took_us = duration.as_micros(), actor = context.actor().0, "answered");
        Ok(response)
    }
}

impl<E> Middleware<E> {
    /// Converts an error of the inner endpoint to an answer, with the `Allow` header for 405.
    fn rendered(&self, error: poem::Error, method: &Method, context: &RequestContext) -> Response {
        match converted(error) {
            Ok(mut failure) => {
                if failure.code == ErrorCode::MethodNotAllowed
                    && let Ok(found) = self.methods.at(&context.path)
                {
                    failure = failure.header("Allow", found.value.clone());
                }
                if failure.code == ErrorCode::RouteNotFound {
                    let message = format!("{}: see {}/docs", failure.message(), self.app.config.api_path());
                    failure = failure.with_message(message);
                }
                let mut response = self.failed(&failure, context);
                if *method == Method::HEAD {
                    response.set_body(());
                }
                response
            }
            Err(finished) => *finished,
        }
    }

    /// The error code scope of a path.
    fn area(&self, path: &str) -> u32 {
        area(path.strip_prefix(self.app.config.base_path.as_str()).unwrap_or(path))
    }

    /// Logs a failure and renders its envelope.
    fn failed(&self, failure: &Error, context: &RequestContext) -> Response {
        let request_id = &context.request_id;
        let status = failure.code.status();
        self.app.log_failure(failure, context);
        let (kind, name) = context.actor();
        if failure.code == ErrorCode::RateLimited && kind == CLIENT_KIND {
            self.app.metrics.clients.with_label_values(&[name.as_str(), "limited"]).inc();
        }
        let body = failure_body(failure, self.area(&context.path), request_id, self.app.config.debug && status >= 500);
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

    /// Adds the headers that every answer has.
    fn add_headers(
        &self,
        response: &mut Response,
        origin: Option<&HeaderValue>,
        is_preflight: bool,
        context: &RequestContext,
    ) {
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // In addition to the `Vary` of the answer itself.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        // Answers can hold personal data or secrets: they are not cached unless they set their own Cache-Control.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
            headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        }
        for cookie in context.take_cookies() {
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-request-id", &context.request_id);
        if let Some((policy, state)) = context.rate.get() {
            set("ratelimit-policy", policy);
            set("ratelimit", state);
            self.app.metrics.clients.with_label_values(&[context.actor().1.as_str(), "counted"]).inc();
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

/// Converts an error of poem to [`Error`]. Returns a finished response unchanged as `Err`.
pub(super) fn converted(error: poem::Error) -> std::result::Result<Error, Box<Response>> {
    if let Some(Failure(failure)) = error.downcast_ref::<Failure>() {
        return Ok(failure.clone());
    }
    if error.is_from_response() {
        return Err(Box::new(error.into_response()));
    }
    let text = error.to_string();
    let is_path = error.is::<poem_openapi::error::ParsePathError>() || error.is::<poem::error::ParsePathError>();
    if is_path {
        return Ok(Error::new(ErrorCode::NotFound).with_source(text));
    }
    let cause = match error.status() {
        StatusCode::NOT_FOUND => ErrorCode::RouteNotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::MediaType,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::TooLarge,
        StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
        StatusCode::BAD_REQUEST => ErrorCode::MalformedBody,
        _ => ErrorCode::Internal,
    };
    // The text of this error repeats input of the caller, so it is not logged.
    Ok(if cause == ErrorCode::MediaType { Error::new(cause) } else { Error::new(cause).with_source(text) })
}

/// The error code scope of sign-in.
const SIGN_IN_AREA: u32 = 28;

/// The error code scope of a path without the base path.
fn area(path: &str) -> u32 {
    const AREAS: &[(&str, u32)] = &[
        ("/admin/signing-keys", SIGN_IN_AREA),
        ("/admin/encryption-key", SIGN_IN_AREA),
        ("/admin/api-clients", 32),
        ("/admin/api-keys", 32),
        ("/me/api-keys", 32),
        ("/admin/quotas", 33),
        ("/admin/usage", 33),
        ("/me/quota", 33),
        ("/admin/audit", 35),
        ("/admin/connections", 35),
        ("/admin/deliveries", 35),
        ("/admin/settings", 35),
        ("/admin/sftpgo", 35),
        ("/admin/statistics", 35),
        ("/admin/webhooks", 35),
        ("/admin/wordpress", 35),
        ("/auth", SIGN_IN_AREA),
        ("/setup", SIGN_IN_AREA),
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

/// Replaces bytes of the path that are not UTF-8 by U+FFFD. Such a path matches no route, so the request gets 404.
fn replace_invalid_utf8(request: &mut Request) {
    let bytes = percent_decoded(request.uri().path());
    if std::str::from_utf8(&bytes).is_ok() {
        return;
    }
    let text = String::from_utf8_lossy(&bytes);
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let escaped = text
        .bytes()
        .map(|byte| if is_unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    let path =
        escaped.collect::<String>() + &request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
}

/// Requires at most one `Host` header, with a valid value, so that proxies and this server cannot disagree about the
/// host of a request. Some proxies send none.
fn require_one_host(request: &Request) -> crate::kernel::error::Result<()> {
    let refused = |message| Err(Error::header_field("host", message).header("Connection", "close"));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => refused("must not be repeated"),
        (Some(host), None) if !host.to_str().is_ok_and(is_host) => {
            refused("must be the name or the address of a host, perhaps with a port")
        }
        _ => Ok(()),
    }
}

/// Whether the text is a name, an IPv4 address, or an IPv6 address in brackets, with an optional port.
fn is_host(text: &str) -> bool {
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }
        None => match text.split_once(':') {
            Some((name, port)) => is_name(name) && is_port(port),
            None => is_name(text),
        },
    }
}

/// The caller's `X-Request-Id`, if it is short plain ASCII.
fn incoming_id(request: &Request) -> Option<String> {
    const ID_BYTES_MAX: usize = 64;
    let id = request.headers().get("x-request-id")?.to_str().ok()?;
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    (is_plain && (1..=ID_BYTES_MAX).contains(&id.len())).then(|| id.to_owned())
}

/// The client's address: the peer or, if the peer is a trusted proxy, the right-most hop of `X-Forwarded-For` that is
/// not trusted. `None` if that hop is not an address, so that no allow-list admits it.
fn client_address(request: &Request, trusted: &[ipnet::IpNet]) -> Option<IpAddr> {
    let peer = request.remote_addr().as_socket_addr()?.ip().to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let forwarded = request.headers().get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?"));
    let hops: Vec<&str> = forwarded.flat_map(|text| text.split(',')).map(str::trim).collect();
    for hop in hops.into_iter().rev() {
        match address_of_hop(hop) {
            Some(address) if is_trusted(&address) => {}
            other => return other,
        }
    }
    Some(peer)
}

/// Parses the address of a hop in the forms that proxies write: alone, in brackets, or with a port.
fn address_of_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.strip_prefix('"').and_then(|hop| hop.strip_suffix('"')).unwrap_or(hop);
    let bare = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    hop.parse().ok().or_else(bare).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::{address_of_hop, area};

    #[test]
    fn a_hop_can_have_brackets_and_a_port() {
        for (hop, address) in [
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("2001:db8::9", "2001:db8::9"),
            ("[2001:db8::9]", "2001:db8::9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("\"[2001:db8::9]:4711\"", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:1", "203.0.113.9"),
        ] {
            assert_eq!(address_of_hop(hop), Some(address.parse().expect("an address")), "{hop}");
        }
        for none in [
            "",
            "unknown",
            "_hidden",
            "203.0.113.9:",
            "203.0.113.9:x",
            "203.0.113.9:65536",
            "203.0.113",
            "[203.0.113.9]",
            "[2001:db8::9",
            "2001:db8::9]",
            "[2001:db8::9]x",
            "\"203.0.113.9",
            "example.org:80",
            "203.0.113.9 x",
        ] {
            assert_eq!(address_of_hop(none), None, "{none}");
        }
    }

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
