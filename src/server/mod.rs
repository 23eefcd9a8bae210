//! The HTTP API: the list of operations, the middleware around them, and the router.
//!
//! Order, outermost first: `Middleware` (request id, address, panic guard, error rendering, CORS) → routes →
//! `Operations` (parameter errors, recorded denials) → operation: its caller, its permission, its body.

mod connections;
pub mod deliver;
#[cfg(test)]
mod failing_operations;
pub mod features;
pub mod listener;
mod manual;
mod middleware;
mod settings;
mod static_files;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use middleware::Middleware;
use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode, header};
use poem::{Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Request, Response, Route, get, handler, post};
use poem_openapi::{OpenApiService, OperationId};
use serde_json::{Value, json};
use static_files::{DOCS_POLICY, StaticDocument};

use crate::console::client::Perform;
use crate::console::{self, Console};
use crate::features::jobs::queue::WaitingWorkers;
use crate::features::sessions::oidc::Providers;
use crate::features::webhooks::sender::Sender;
use crate::features::{
    api_clients, api_keys, audit, decisions, grants, invitations, jobs, members, organizations, permissions, plugins,
    provisioning, quotas, search, sessions, statistics, tasks, videos, webhooks,
};
use crate::integrations::{authentik, sftpgo, wordpress};
use crate::kernel::app::{App, metrics};
use crate::kernel::authn::caller::{FromCommandLine, SessionBackend};
use crate::kernel::authz::decide::Reason;
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::Failure;
use crate::kernel::http::openapi::{self, Declared, Documented};
use crate::kernel::http::request_validator::{self, Format, RequestValidator};
use crate::kernel::outbox::EventKind;
use crate::kernel::runtime::health::Fault;
use crate::kernel::secret;

/// Builds the service of all operations, and the list of what each API adds to the document. `app` and `providers` name
/// the parameters, for fields that an API has beside `app`.
macro_rules! apis {
    (|$app:ident, $providers:ident| $($($module:ident)::+ $({$($field:ident: $value:expr),+})?,)+) => {
        type Apis = apis!(@types $([$($module)::+])+);

        fn service($app: &Arc<App>, $providers: &Arc<Providers>) -> OpenApiService<Apis, ()> {
            let apis = apis!(@values $app $([$($module)::+ $($($field: $value),+)?])+);
            OpenApiService::new(apis, "Roster", env!("CARGO_PKG_VERSION"))
        }

        const DOCUMENTED: &[Documented] = &[$($($module)::+::DOCUMENTED,)+];
    };
    // poem-openapi takes tuples of APIs, and tuples in tuples.
    (@types [$($module:ident)::+] $($rest:tt)*) => { ($($module)::+::Api, apis!(@types $($rest)*)) };
    (@types) => { System };
    (@values $app:ident [$($module:ident)::+ $($field:ident: $value:expr),*] $($rest:tt)*) => {
        ($($module)::+::Api { app: $app.clone(), $($field: $value),* }, apis!(@values $app $($rest)*))
    };
    (@values $app:ident) => { System };
}

// In the order of the document.
apis! { |app, providers|
    members::api::admin,
    members::api::me,
    members::api::internal,
    grants::api,
    invitations::api,
    authentik::api,
    provisioning::api,
    provisioning::api::import,
    organizations::api,
    permissions::api::roles,
    permissions::api::assignments,
    permissions::api::mappings,
    permissions::api::policy,
    decisions::api::check,
    decisions::api::log,
    plugins::api,
    plugins::api::upload { uploads: Arc::default() },
    plugins::api::run,
    plugins::api::life,
    sessions::api,
    sessions::api::oidc { providers: providers.clone() },
    sessions::api::invitation,
    sessions::api::own,
    sessions::api::admin,
    sessions::api::trusted_devices,
    sessions::api::second_factor,
    sessions::api::signing_keys,
    sessions::api::encryption_key,
    sessions::api::passwords,
    sessions::api::registration,
    wordpress::api,
    wordpress::api::events,
    wordpress::api::compare,
    api_clients::api,
    api_keys::api,
    videos::api::files,
    videos::api::import,
    jobs::api { waiting: WaitingWorkers::new(&app.config) },
    quotas::api,
    statistics::api,
    videos::api::reservations,
    webhooks::api::deliveries,
    webhooks::api::webhooks { sender: Sender::new(&app.config) },
    connections::api { providers: providers.clone() },
    sftpgo::api,
    sftpgo::api::hooks,
    tasks::api,
    audit::api,
    audit::api::own,
    search::api,
    settings,
}

/// The complete OpenAPI document.
pub fn documented(app: &Arc<App>) -> Result<Value> {
    Ok(described(&service(app, &Arc::new(Providers::new(app))), app)?.0)
}

/// The OpenAPI document, and the answers that it declares for each operation.
fn described(service: &OpenApiService<Apis, ()>, app: &App) -> Result<(Value, Declared)> {
    let generated = service.spec();
    let (mut document, declared) = openapi::finish(&generated, DOCUMENTED, permissions::api::as_defined, &details())?;
    // Paths are appended to the server's URL. An empty one is written as `/`.
    let api_path = app.config.api_path();
    document["servers"] = json!([{"url": if api_path.is_empty() { "/" } else { &api_path }}]);
    document["info"] = openapi::info(&app.config);
    Ok((document, declared))
}

/// Schema details that the Rust types cannot express: schema, field, extra keywords.
fn details() -> Vec<(&'static str, &'static str, Value)> {
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let kinds: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let webhook_kinds: Vec<&str> = kinds.iter().copied().chain(["*"]).collect();
    let uuid = json!({"format": "uuid"});
    vec![
        ("CheckAnswer", "reason", json!({"enum": reasons})),
        ("LoggedDecision", "reason", json!({"enum": reasons})),
        ("LoggedDecision", "kind", json!({"enum": ["route", "permission", "grant"]})),
        ("Webhook", "kinds", json!({"items": {"type": "string", "enum": webhook_kinds}})),
        ("CheckRequest", "uid", uuid.clone()),
        ("ReplayedDecision", "uid", uuid.clone()),
        ("RoleHolder", "uid", uuid),
        ("ApiClient", "scopes", array_of("ClientScope")),
        ("ClientSecret", "scopes", array_of("ClientScope")),
    ]
}

/// An array of another schema.
fn array_of(schema: &str) -> Value {
    json!({"items": {"$ref": format!("#/components/schemas/{schema}")}})
}

/// Configuration of Scalar: the page loads nothing from other hosts, neither fonts nor the vendor's API client.
const SCALAR_CONFIGURATION: &str = r#"{"withDefaultFonts":false,"hideClientButton":true}"#;

/// The page that renders the OpenAPI document.
fn page(app: &Arc<App>) -> Result<String> {
    let service = service(app, &Arc::new(Providers::new(app)));
    // `</` in a description would close the `<script>` element of the page.
    let shown = described(&service, app)?.0.to_string().replace("</", "<\\/");
    let title = console::page::escaped(&app.config.docs_title);
    let page = service
        .scalar_html()
        .replacen(&service.spec(), &shown, 1)
        .replacen("<title>Scalar</title>", &format!("<title>{title}</title>"), 1)
        .replacen(
            r#"id="api-reference""#,
            &format!(r#"id="api-reference" data-configuration="{}""#, console::page::escaped(SCALAR_CONFIGURATION)),
            1,
        );
    Ok(page)
}

/// The complete HTTP endpoint, used by the server and by the command line.
pub fn endpoint(app: &Arc<App>) -> Result<BoxEndpoint<'static, Response>> {
    endpoint_behind(app, |perform| perform)
}

/// The endpoint whose pages call the operations through `between`: a test lets operations fail there.
fn endpoint_behind(app: &Arc<App>, between: impl FnOnce(Perform) -> Perform) -> Result<BoxEndpoint<'static, Response>> {
    let providers = Arc::new(Providers::new(app));
    let service = service(app, &providers);
    let (document, declared) = described(&service, app)?;
    let prover: Arc<dyn SessionBackend> = Arc::new(sessions::StoredSessions { app: app.clone(), providers });
    let operations = Arc::new(Operations {
        inner: service.into_endpoint(),
        inputs: Arc::new(RequestValidator::new(&document, FORMATS)),
        prover: prover.clone(),
        declared,
        app: app.clone(),
    });
    let console = Console::new(app, between(performer(&operations)), prover, &document)?;
    let base = app.config.base_path.as_str();
    let methods = methods_by_path(&document, base);
    let shared = || Shared(operations.clone());
    let mut routes = Route::new()
        .at("/healthz", get(healthz).data(app.clone()))
        .at("/readyz", get(readyz).data(app.clone()))
        .at("/metrics", get(serve_metrics).data(app.clone()))
        .at("/.well-known/jwks.json", get(jwks).data(app.clone()))
        .at("/", get(to_console).data(app.clone()))
        .nest("/console", Pages { console: console.clone(), fixed: None })
        .at("/setup", Pages { console: console.clone(), fixed: Some("/setup") })
        .at("/invitation", Pages { console: console.clone(), fixed: Some("/invitation") })
        .at("/reset", Pages { console, fixed: Some("/reset") })
        .at("/setup/link", post(console::setup::new_link).data(app.clone()))
        .at("/setup/administrator", post(console::setup::new_administrator).data(app.clone()))
        .at(format!("{base}/openapi.json"), get(StaticDocument::json(app, |app| Ok(documented(app)?.to_string()))))
        .at(format!("{base}/docs"), get(StaticDocument::page(app, DOCS_POLICY, page)));
    routes = manual::add(routes, app);
    if !base.is_empty() {
        routes = routes.nest(base, shared());
    }
    for top in tops_at_root(&document, base) {
        routes = routes.nest_no_strip(top, shared());
    }
    Ok(Middleware { inner: routes, app: app.clone(), methods }.boxed())
}

/// Validation rules used as JSON Schema `format`, because a pattern cannot report every fault.
pub const FORMATS: &[Format] = &[
    ("password", members::password::faults),
    ("password-hash", members::password::hash_faults),
    ("client-origin", api_clients::origin_faults),
    ("client-network", api_clients::network_faults),
    ("client-path", api_clients::path_faults),
    ("webhook-url", webhooks::address::url_faults),
    ("event-kind", webhooks::kind_faults),
];

/// Operations about the server itself.
struct System;

/// Name and version of the server
#[derive(poem_openapi::Object)]
struct Version {
    name: String,
    version: String,
}

#[poem_openapi::OpenApi(tag = "crate::kernel::http::Tag::System")]
impl System {
    /// Get the version
    ///
    /// Returns the name and version of the server that answers.
    #[oai(path = "/version", method = "get", operation_id = "get_version")]
    async fn get_version(&self) -> crate::kernel::http::Reply<Version> {
        Ok(crate::kernel::http::ok(Version { name: "roster".into(), version: env!("CARGO_PKG_VERSION").into() }))
    }
}

#[handler]
async fn healthz(app: poem::web::Data<&Arc<App>>) -> Response {
    health(&app.faults().await, true)
}

#[handler]
async fn readyz(app: poem::web::Data<&Arc<App>>) -> Response {
    health(&app.faults().await, app.snapshot().epoch > 0)
}

/// `ok`, `degraded` (200: requests are answered, but there is a fault) or `unavailable` (503).
fn health(faults: &[Fault], has_policy: bool) -> Response {
    let (status, word) = match (faults, has_policy) {
        ([], true) => (StatusCode::OK, "ok"),
        (faults, true) if faults.iter().all(|fault| !fault.is_fatal) => (StatusCode::OK, "degraded"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut body = json!({"status": word});
    if !faults.is_empty() {
        let rendered = |fault: &Fault| json!({"part": fault.part, "fault": fault.word, "message": fault.message});
        body["faults"] = faults.iter().map(rendered).collect();
    }
    Response::builder().status(status).content_type("application/json").body(body.to_string())
}

/// The public keys of access tokens, for services that verify them (a plain RFC 7517 document, no envelope).
#[handler]
fn jwks(app: poem::web::Data<&Arc<App>>) -> Response {
    Response::builder()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "public, max-age=300")
        .body(app.guard.keys.load().jwks().to_owned())
}

/// Prometheus metrics, for holders of the metrics token and over the local socket. The client's address grants nothing,
/// because a proxy on this machine would let everybody in.
#[handler]
async fn serve_metrics(request: &Request, app: poem::web::Data<&Arc<App>>) -> Result<Response, Failure> {
    let offered =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let is_local = request.data::<FromCommandLine>().is_some();
    match app.config.metrics_token.as_deref() {
        _ if is_local => {}
        Some(token) if offered.is_some_and(|offered| secret::equal(&secret::hash(offered), &secret::hash(token))) => {}
        Some(_) => {
            return Err(Error::new(ErrorCode::Unauthenticated)
                .with_message("metrics need the metrics token as a bearer token")
                .into());
        }
        None => {
            let message =
                "set metrics_token_file to read the metrics over the network; the local socket needs no token";
            return Err(Error::new(ErrorCode::NotConfigured).with_message(message).into());
        }
    }
    crate::server::deliver::observe(&app).await?;
    Ok(Response::builder().content_type("text/plain; version=0.0.4").body(metrics::render(&app)?))
}

/// Performs the requests of pages to operations, without the outer middleware.
fn performer(operations: &Arc<Operations>) -> Perform {
    let operations = operations.clone();
    Arc::new(move |request| {
        let operations = operations.clone();
        Box::pin(async move {
            operations.call(request).await.map_err(|error| match middleware::converted(error) {
                Ok(failure) => failure,
                Err(finished) => Error::internal(format!("an operation answered {}", finished.status())),
            })
        })
    })
}

/// The pages of the console below one address, or one page at an address of its own.
struct Pages {
    console: Arc<Console>,
    fixed: Option<&'static str>,
}

impl Endpoint for Pages {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let path = self.fixed.map_or_else(|| request.uri().path().to_owned(), str::to_owned);
        Ok(self.console.answer(request, &path).await)
    }
}

/// The root leads to the console.
#[handler]
fn to_console(app: poem::web::Data<&Arc<App>>) -> Response {
    let to = console::page::public_path(&app.config, "/console");
    Response::builder().status(StatusCode::SEE_OTHER).header(header::LOCATION, to).finish()
}

/// Shares one endpoint between several routes.
struct Shared(Arc<Operations>);

impl Endpoint for Shared {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        self.0.call(request).await
    }
}

/// The middleware between the router and the operations.
struct Operations {
    inner: BoxEndpoint<'static>,
    inputs: Arc<RequestValidator>,
    prover: Arc<dyn SessionBackend>,
    declared: Declared,
    app: Arc<App>,
}

impl Operations {
    /// Fails if the document does not declare this failure or header. Called in debug builds only.
    fn checked(&self, operation: &str, answer: poem::Result<Response>) -> poem::Result<Response> {
        let result = match &answer {
            Ok(response) => self.declared.check_headers(operation, response.headers()),
            Err(error) => match error.downcast_ref::<Failure>() {
                Some(Failure(error)) => self.declared.check_failure(operation, error),
                None => Ok(()),
            },
        };
        result.map_or_else(|undeclared| Err(undeclared.into()), |()| answer)
    }

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let is_change = is_change(request.method());
        request.extensions_mut().insert(self.inputs.clone());
        request.extensions_mut().insert(self.app.guard.clone());
        request.extensions_mut().insert(self.prover.clone());
        if !is_change {
            request_validator::drop_empty(request.uri_mut());
        }
        let uri = request.uri().clone();
        let context = request.data::<Arc<RequestContext>>().cloned();
        if let Some(query) = uri.query() {
            let unknown = self.inputs.unknown_parameters(request.method().as_str(), request.uri().path(), query);
            if !unknown.is_empty() {
                return Err(Error::fields(unknown).into());
            }
        }
        let (operation, answer) = match self.inner.call(request).await {
            Ok(response) => {
                let response = response.into_response();
                (response.data::<OperationId>().map(|id| id.0), Ok(response))
            }
            Err(error) => {
                let operation = error.data::<OperationId>().map(|id| id.0);
                (operation, Err(as_defined(operation.unwrap_or("none"), error)))
            }
        };
        let answer = match operation {
            Some(operation) if cfg!(debug_assertions) => self.checked(operation, answer),
            _ => answer,
        };
        let status = match &answer {
            Ok(response) => response.status(),
            Err(error) => error.status(),
        };
        self.app.metrics.requests.with_label_values(&[operation.unwrap_or("none"), status.as_str()]).inc();
        let Err(error) = answer else { return answer };
        if is_parameter_error(&error)
            && let Some(id) = operation
        {
            let faults = self.inputs.check_query(id, &uri)?;
            let faults = if faults.is_empty() { vec![Field::at(&["query"], "cannot be read")] } else { faults };
            return Err(Error::fields(faults).with_source(error.to_string()).into());
        }
        if is_change
            && let Some(Failure(denied)) = error.downcast_ref::<Failure>().filter(|failure| failure.0.is_denial())
            && let Some(context) = context
            && let Err(e) = self.app.record_denial(&context, operation.unwrap_or("none"), denied.code.as_str()).await
        {
            tracing::error!(error = %e, "a denial could not be recorded");
        }
        Err(error)
    }
}

/// Replaces the error code by the one that the gateway's API definition requires for this operation.
fn as_defined(operation: &str, error: poem::Error) -> poem::Error {
    let Some(cause) = error.downcast_ref::<Failure>().map(|failure| failure.0.code) else { return error };
    let defined = permissions::api::as_defined(operation, cause);
    if defined == cause { error } else { Error::new(defined).into() }
}

fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn is_parameter_error(error: &poem::Error) -> bool {
    error.is::<poem_openapi::error::ParseParamError>()
}

/// First segments of the operations that answer at the root: those of the member API or, without a base path, all.
fn tops_at_root(document: &Value, base: &str) -> BTreeSet<String> {
    let is_short = |top: &String| base.is_empty() || ["/auth", "/me", "/admin", "/internal"].contains(&top.as_str());
    openapi::operations(document).iter().map(|operation| top(operation.path)).filter(is_short).collect()
}

/// The first segment of a path, with its slash.
fn top(path: &str) -> String {
    path.split('/').nth(1).map_or_else(String::new, |segment| format!("/{segment}"))
}

/// The allowed methods of each path, for the `Allow` header.
fn methods_by_path(document: &Value, base: &str) -> matchit::Router<String> {
    let mut methods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let at_root = tops_at_root(document, base);
    for operation in openapi::operations(document) {
        let is_at_root = at_root.contains(&top(operation.path));
        let below = format!("{base}{}", operation.path);
        for path in std::iter::once(below).chain(is_at_root.then(|| operation.path.to_owned())) {
            let (known, method) = (methods.entry(path).or_default(), operation.method.to_uppercase());
            // Without a base path both paths are the same.
            if !known.contains(&method) {
                known.push(method);
            }
        }
    }
    for fixed in ["/healthz", "/readyz", "/metrics", "/.well-known/jwks.json"] {
        methods.insert(fixed.to_owned(), vec!["GET".into()]);
    }
    for fixed in ["openapi.json", "docs"] {
        methods.insert(format!("{base}/{fixed}"), vec!["GET".into()]);
    }
    for page in manual::paths() {
        methods.insert(page, vec!["GET".into()]);
    }
    for (page, allowed) in Console::methods() {
        methods.insert(page, vec![allowed.to_owned()]);
    }
    let mut router = matchit::Router::new();
    for (path, methods) in methods {
        if let Err(e) = router.insert(path, methods.join(", ")) {
            tracing::warn!(error = %e, "a path has no Allow header");
        }
    }
    router
}
