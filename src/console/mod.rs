//! The web console: pages that are rendered on the server and work without scripts. A page has no way to data of its
//! own: it calls the operations of the API in this process, as the member whose cookies came with the request.
//!
//! `pages.rs` is the table of all pages. A request goes `Console::answer` → the page's function → `Visit::call` →
//! operation → `layout.rs`.

pub mod api_keys;
pub mod assets;
pub mod audit;
pub mod chart;
pub mod client;
pub mod components;
pub mod form;
pub mod i18n;
pub mod layout;
pub mod lifetime;
pub mod list;
pub mod manual;
pub mod me;
pub mod multipart;
pub mod organization;
pub mod page;
pub mod pages;
pub mod people;
pub mod schema;
pub mod search;
pub mod setup;
pub mod sign_in;
pub mod site;
pub mod statistics;
pub mod tasks;
pub mod things;
pub mod videos;
pub mod visit;

use std::collections::HashMap;
use std::sync::Arc;

use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::{Request, Response};
use serde_json::Value;

use crate::kernel::app::App;
use crate::kernel::authn::caller::{SessionBackend, identify_member, is_own_form, is_own_host};
use crate::kernel::authz::principal::RequestContext;
use crate::kernel::config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::http::percent_decoded;
use crate::kernel::ids::Timestamp;
use crate::kernel::intake::Limit;
use client::{Perform, op};
use i18n::Language;
use pages::{Area, Page};
use schema::Operations;
use visit::{Here, KEYS_COOKIE, LANGUAGE_COOKIE, NOTICE_COOKIE, NOTICE_TTL_S, THEME_COOKIE, Theme, View, Visit};

/// Everything that the pages need.
pub struct Console {
    app: Arc<App>,
    perform: Perform,
    operations: Operations,
    backend: Arc<dyn SessionBackend>,
    routes: matchit::Router<&'static Page>,
    logo: Option<assets::Logo>,
}

/// The most fields of a form. The grid of the largest catalog has fewer boxes that can be checked.
const FIELDS_MAX: usize = 20_000;

impl Console {
    /// Reads what the pages need of the operations from the document.
    pub fn new(
        app: &Arc<App>,
        perform: Perform,
        backend: Arc<dyn SessionBackend>,
        document: &Value,
    ) -> Result<Arc<Self>> {
        let logo = assets::Logo::read(&app.config.signin_logo_file)?;
        let mut routes = matchit::Router::new();
        for page in pages::all() {
            routes
                .insert(page.path, page)
                .map_err(|e| Error::internal(format!("the page {} has no route: {e}", page.path)))?;
        }
        Ok(Arc::new(Self { app: app.clone(), perform, operations: schema::read(document), backend, routes, logo }))
    }

    /// Answers a request below `/console`. `path` is the rest of the path after `/console`.
    pub async fn answer(self: &Arc<Self>, mut request: Request, path: &str) -> Response {
        if let Some(name) = path.strip_prefix("/assets/")
            && let Some(found) = assets::answer(name, assets::accepts_gzip(request.headers()))
        {
            return found;
        }
        if let Some(logo) = self.logo.as_ref().filter(|_| assets::LOGO_PATH.strip_prefix("/console") == Some(path)) {
            return logo.answer();
        }
        request.extensions_mut().insert(self.app.guard.clone());
        request.extensions_mut().insert(self.backend.clone());
        let mut visit = match self.visit(&request, path) {
            Ok(visit) => visit,
            Err(error) => return self.context_failure(&error),
        };
        let mut response = match self.perform_page(&request, &mut visit).await {
            Ok(response) => response,
            Err(error) => layout::failure(&visit, &error),
        };
        if request.method() == Method::HEAD {
            response.set_body(());
        }
        response
    }

    /// A request without a context, which the outer middleware sets for all.
    fn context_failure(&self, error: &Error) -> Response {
        tracing::error!(error = %error, "a page could not be answered");
        Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).finish()
    }

    /// The visit before the visitor is known.
    fn visit(self: &Arc<Self>, request: &Request, path: &str) -> Result<Visit> {
        let context = request.data::<Arc<RequestContext>>().cloned();
        let context = context.ok_or_else(|| Error::internal("the request has no context"))?;
        let found = self.routes.at(path).ok();
        let parameters = found.iter().flat_map(|found| found.params.iter());
        let decoded = |text: &str| decoded(text).unwrap_or_default();
        let mut visit = Visit {
            console: self.clone(),
            page: found.as_ref().map_or(&site::NOT_FOUND, |found| found.value),
            path: parameters.map(|(name, value)| (name.to_owned(), decoded(value))).collect::<HashMap<_, _>>(),
            query: pairs(request.uri().query().unwrap_or_default().as_bytes()),
            form: Vec::new(),
            files: Vec::new(),
            refused: None,
            headers: request.headers().clone(),
            context,
            identity: None,
            organization: None,
            me: Value::Null,
            elsewhere: Vec::new(),
            is_own_host: is_own_host(&self.app.guard, request),
            address: format!("/console{path}"),
            language: Language::English,
            theme: Theme::Auto,
            has_keys: true,
        };
        if ["/setup", "/invitation", "/reset"].contains(&path) {
            visit.address = path.to_owned();
        }
        let chosen = visit.query("lang").or_else(|| visit.cookie(LANGUAGE_COOKIE)).and_then(Language::parse);
        let of_site = match self.app.config.mail_language {
            config::Language::English => Language::English,
            config::Language::Chinese => Language::Chinese,
        };
        visit.language = chosen.or_else(|| Language::of_browser(&visit.headers)).unwrap_or(of_site);
        visit.theme = visit.cookie(THEME_COOKIE).and_then(Theme::parse).unwrap_or(Theme::Auto);
        visit.has_keys = visit.cookie(KEYS_COOKIE) != Some("off");
        Ok(visit)
    }

    async fn perform_page(&self, request: &Request, visit: &mut Visit) -> Result<Response> {
        let page = visit.page;
        let is_form = match *request.method() {
            Method::GET | Method::HEAD => false,
            Method::POST if page.post.is_some() => true,
            _ => return Err(Error::new(ErrorCode::MethodNotAllowed).header("Allow", page.methods())),
        };
        // Before anything is read: a page of another site must not even learn whether somebody is signed in.
        if is_form && !is_own_form(&self.app.guard, request) {
            let refused = ErrorCode::CrossSite.into();
            self.app.log_failure(&refused, &visit.context);
            return Err(refused);
        }
        if let Some(answer) = self.identify(request, visit, is_form).await? {
            return Ok(answer);
        }
        self.require_allowed(visit, is_form).await?;
        if is_form && multipart::is_multipart(visit) {
            let read = multipart::read(visit).await?;
            (visit.form, visit.files, visit.refused) = (read.form, read.files, read.refused);
        } else if is_form {
            visit.form = self.read_form(visit).await?;
        }
        let run = match page.post.filter(|_| is_form) {
            Some(post) => post,
            None => page.get,
        };
        let view = match run(visit).await {
            // The session ended between two calls of the page.
            Err(error) if error.code.status() == 401 && page.area != Area::Public => {
                return Ok(self.to_sign_in(visit, is_form));
            }
            other => other?,
        };
        Ok(match view {
            View::Page(content) => {
                visit.elsewhere = layout::find_elsewhere(visit).await;
                layout::document(visit, &content)
            }
            View::Response(response) => *response,
            View::Redirect(address, notice) => {
                if let Some(notice) = notice {
                    let value = notice.to_cookie(&visit.console.app.sealer, visit.uid(), Timestamp::now());
                    visit.set_cookie(NOTICE_COOKIE, &value, NOTICE_TTL_S);
                }
                redirect(&visit.href(&address))
            }
        })
    }

    /// Requires the permissions of the page. A denied form is in the audit log, like every denied change.
    async fn require_allowed(&self, visit: &Visit, is_form: bool) -> Result<()> {
        let page = visit.page;
        let is_elsewhere = page.area == Area::Site && !visit.is_of_platform();
        let lacking = page.needs.iter().find(|operation| visit.identity.is_some() && !visit.may(operation));
        let Some(operation) = lacking.or(page.needs.first().filter(|_| is_elsewhere)) else { return Ok(()) };
        let refused = Error::new(ErrorCode::Forbidden).with_source(format!("the page needs {operation}"));
        self.app.log_failure(&refused, &visit.context);
        if is_form {
            self.app.record_denial(&visit.context, operation, refused.code.as_str()).await?;
        }
        Err(refused)
    }

    /// Identifies the visitor, and finds the organization of the address. Returns an answer if the page cannot be shown.
    async fn identify(&self, request: &Request, visit: &mut Visit, is_form: bool) -> Result<Option<Response>> {
        let area = visit.page.area;
        let found = if area == Area::Public && !visit.has_session_cookies() {
            None
        } else {
            match identify_member(&self.app.guard, request).await {
                Ok(found) => found,
                Err(error) if error.code.status() == 401 => None,
                // A public page shows how to sign in, whatever the cookies are.
                Err(_) if area == Area::Public => None,
                Err(error) => return Err(error),
            }
        };
        visit.identity = found;
        if area == Area::Public {
            return Ok(None);
        }
        if visit.identity.is_none() {
            // Files are not kept for after the sign-in.
            if is_form && !multipart::is_multipart(visit) {
                visit.form = self.read_form(visit).await?;
            }
            return Ok(Some(self.to_sign_in(visit, is_form)));
        }
        visit.me = visit.call(op("get_me")).await?.data;
        if area == Area::Organization {
            visit.organization = Some(self.organization(visit).await?);
        }
        Ok(None)
    }

    /// The organization of the address. A foreign one fails like a missing one.
    async fn organization(&self, visit: &mut Visit) -> Result<Here> {
        let missing = || Error::new(ErrorCode::OrganizationNotFound);
        let snapshot = self.app.snapshot();
        let tenant = snapshot.tenant_named(visit.path("org")).ok_or_else(missing)?;
        let mut identity = visit.identity.take().ok_or_else(missing)?;
        identity.named_tenant = Some(tenant.id);
        // Fails for an organization that is not visible to the member.
        let visible = identity.tenant(&snapshot).map_err(|_| missing());
        visit.identity = Some(identity);
        visible?;
        let (id, code) = (tenant.id.to_string(), tenant.org_code.to_string());
        let own = visit.me["organizations"].as_array().into_iter().flatten();
        let own_name = own.filter(|one| one["org_code"] == code.as_str()).find_map(|one| one["name"].as_str());
        let name = match own_name {
            Some(name) => name.to_owned(),
            None => {
                let found = visit.find(op("get_organization").at(&id)).await;
                found.and_then(|found| found["name"].as_str().map(str::to_owned)).unwrap_or_else(|| code.clone())
            }
        };
        Ok(Here { id, code, name })
    }

    /// Reads the submitted form, within the limit for callers of this kind.
    async fn read_form(&self, visit: &Visit) -> Result<Vec<(String, String)>> {
        let is_known = visit.identity.is_some();
        let limit = if is_known { Limit::Ordinary } else { Limit::Public };
        let party = if is_known { visit.context.party(&self.app.snapshot()) } else { None };
        let kind = visit.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.is_empty() && !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(ErrorCode::MediaType.into());
        }
        let bytes = visit.context.body.read(limit, party).await?;
        if bytes.iter().filter(|byte| **byte == b'&').count() >= FIELDS_MAX {
            return Err(Error::new(ErrorCode::TooLarge).with_message("the form has too many fields"));
        }
        let is_text = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|text| decoded(text).is_some());
        if !is_text(bytes) {
            return Err(Error::new(ErrorCode::BadInput).with_message("the form is not UTF-8"));
        }
        Ok(pairs(bytes))
    }

    /// The sign-in page, which leads back to this page. A form that was sent is shown there again, so that its text is
    /// not lost.
    fn to_sign_in(&self, visit: &Visit, is_form: bool) -> Response {
        if is_form && !visit.form.is_empty() {
            return sign_in::interrupted(visit);
        }
        let back = match visit.query.is_empty() {
            true => visit.address.clone(),
            false => visit.with_query(&[]).replacen(self.app.config.public_path(), "", 1),
        };
        redirect(&visit.href(&format!("/console/sign-in?r={}", client::encoded(&sign_in::signed_return(visit, &back)))))
    }

    /// The methods of the pages, for the `Allow` header.
    pub fn methods() -> impl Iterator<Item = (String, &'static str)> {
        pages::all().map(|page| {
            let path = match page.path {
                "/setup" | "/invitation" | "/reset" => page.path.to_owned(),
                path => format!("/console{path}"),
            };
            (path, page.methods())
        })
    }
}

/// 303 to this address.
fn redirect(to: &str) -> Response {
    let mut response = Response::builder().status(StatusCode::SEE_OTHER).finish();
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/console"));
    response.headers_mut().insert(header::LOCATION, to);
    response
}

/// The pairs of a query or of a submitted form.
fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = |text: &str| decoded(&text.replace('+', " "));
            Some((plus(name)?, plus(value)?))
        })
        .collect()
}

/// Decodes percent signs; `None` if the result is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent_decoded(text)).ok()
}

/// What the frame stores of a preference form.
pub(crate) async fn set_preferences(visit: &Visit) -> Result<View> {
    const LIFE_S: i64 = 365 * 24 * 3600;
    if let Some(language) = visit.submitted("lang").and_then(Language::parse) {
        visit.set_cookie(LANGUAGE_COOKIE, language.as_str(), LIFE_S);
    }
    if let Some(theme) = visit.submitted("theme").and_then(Theme::parse) {
        visit.set_cookie(THEME_COOKIE, theme.as_str(), LIFE_S);
    }
    if let Some(keys) = visit.submitted("keys").filter(|keys| ["on", "off"].contains(keys)) {
        visit.set_cookie(KEYS_COOKIE, keys, LIFE_S);
    }
    let back = visit.submitted("back").filter(|back| is_own_address(back)).unwrap_or("/console");
    Ok(View::Redirect(back.to_owned(), None))
}

/// Whether the text is an address of this site: a path, not another host.
fn is_own_address(text: &str) -> bool {
    text.starts_with('/')
        && !text.starts_with("//")
        && !text.contains(['\\', '\r', '\n', '\t'])
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The start page: where somebody finds what concerns them.
pub(crate) async fn home(visit: &Visit) -> Result<View> {
    let snapshot = visit.console.app.snapshot();
    let address = if visit.is_of_platform() && visit.may("list_organizations") {
        let is_new = snapshot.tenants().all(|tenant| snapshot.is_platform(tenant.id));
        let starts = is_new && visit.may("create_organization");
        if starts { "/console/site/first-steps" } else { "/console/site" }.to_owned()
    } else {
        let own = visit.me["organizations"].as_array().map_or(&[][..], Vec::as_slice);
        match own {
            [only] if organization::overview::PARTS.iter().any(|operation| visit.may(operation)) => {
                format!("/console/o/{}", only["org_code"].as_str().unwrap_or_default())
            }
            _ => "/console/me".to_owned(),
        }
    };
    Ok(View::Redirect(address, None))
}

#[cfg(test)]
mod tests {
    use super::{decoded, is_own_address, pairs};

    #[test]
    fn forms_are_read_in_order_and_repeated_names_are_kept() {
        let read = pairs(b"a=1+2&b=%E5%81%9C&a=&c&=x&%ff=1");
        let read: Vec<(&str, &str)> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("a", "1 2"), ("b", "停"), ("a", ""), ("c", ""), ("", "x")]);
        assert_eq!(decoded("100%"), Some("100%".to_owned()));
    }

    #[test]
    fn only_paths_of_this_site_are_followed() {
        for own in ["/console/me", "/console/o/acme/members?q=a%20b"] {
            assert!(is_own_address(own), "{own}");
        }
        for foreign in ["//example.org", "https://example.org", "/\\example.org", "/a\r\nb", "", "/停"] {
            assert!(!is_own_address(foreign), "{foreign}");
        }
    }
}
