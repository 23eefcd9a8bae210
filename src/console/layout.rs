//! The frame of every page: head, top bar, navigation, notices; and the pages of errors.

use maud::{DOCTYPE, Markup, html};
use poem::http::{HeaderName, StatusCode, header};
use poem::{Response, http::HeaderValue};

use super::client::op;
use super::components::{Tone, notice};
use super::i18n::site::FirstSteps;
use super::i18n::{Language, errors, fill};
use super::pages::{Area, Group, Page, all};
use super::visit::{Content, NOTICE_COOKIE, Theme, Visit};
use super::{assets, audit, list, search};
use crate::kernel::error::{Error, ErrorCode};

/// The policy of every page: nothing inline, nothing from elsewhere.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Renders a page in its frame.
pub fn document(visit: &Visit, content: &Content) -> Response {
    let t = visit.frame();
    let config = &visit.console.app.config;
    let is_plain = visit.identity.is_none();
    let site = config.signin_title.as_str();
    let markup = html! {
        (DOCTYPE)
        html lang=(visit.language.as_str()) data-theme=(visit.theme.as_str()) data-no-keys[!visit.has_keys] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = content.refresh_s {
                    // With script the page asks by itself, for its part that changes.
                    noscript { meta http-equiv="refresh" content=(seconds); }
                }
                title { (content.title) " · " (site) }
                link rel="icon" href=(visit.href(assets::ICON_PATH)) type="image/svg+xml";
                link rel="stylesheet" href=(visit.href(assets::css_path()));
                script src=(visit.href(assets::js_path())) defer {}
            }
            @if is_plain {
                body.plain { (plain(visit, content, site)) }
            } @else {
                body { (framed(visit, content, site)) }
            }
        }
    };
    let referrer = if visit.page.keeps_secret_address() { "no-referrer" } else { "same-origin" };
    let mut response = Response::builder()
        .status(content.status)
        .content_type("text/html; charset=utf-8")
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::REFERRER_POLICY, referrer)
        .header(header::CACHE_CONTROL, "no-store")
        .header("Cross-Origin-Opener-Policy", "same-origin")
        .body(markup.into_string());
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Language, Cookie"));
    if visit.has_session_cookies() || !is_plain {
        response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(visit.language.as_str()));
    }
    let _ = t;
    response
}

impl Page {
    /// Whether the address holds a one-time token, so that it is not sent to other pages.
    fn keeps_secret_address(&self) -> bool {
        ["/setup", "/invitation", "/reset"].contains(&self.path)
    }
}

/// A page without navigation, for people who are not signed in.
fn plain(visit: &Visit, content: &Content, site: &str) -> Markup {
    html! {
        a.skip href="#main" { (visit.frame().skip) }
        main id="main" {
            p.brand { (site) }
            h1 { (content.title) }
            (shown_notice(visit))
            (content.body)
        }
        footer { (preferences(visit)) (links(visit)) }
    }
}

fn framed(visit: &Visit, content: &Content, site: &str) -> Markup {
    let t = visit.frame();
    html! {
        a.skip href="#main" { (t.skip) }
        header.top {
            a.brand href=(visit.href("/console")) { (site) }
            (switcher(visit))
            span.spacer {}
            (search::button(visit))
            (account(visit))
        }
        div.frame {
            details.drawer {
                summary { "☰ " (t.menu) }
                nav aria-label=(t.menu) { (entries(visit)) }
            }
            nav.side aria-label=(t.navigation) { (entries(visit)) }
            main id="main" {
                div.head {
                    h1 { (content.title) }
                    @if let Some(actions) = &content.actions { div.actions { (actions) } }
                }
                (shown_notice(visit))
                @if visit.page.area == Area::Site { @if let Some(banner) = audit::banner(visit) { (banner) } }
                (running_tasks(visit))
                (content.body)
                (as_request(visit))
            }
        }
        footer { (preferences(visit)) (links(visit)) }
        (search::palette(visit))
    }
}

/// The notice of the page before, once.
fn shown_notice(visit: &Visit) -> Markup {
    let Some(found) = visit.shown_notice() else { return html! {} };
    visit.set_cookie(NOTICE_COOKIE, "", 0);
    let undo = found.undo.map(|(address, fields)| {
        html! {
            form method="post" action=(visit.href(&address)) {
                @for (name, value) in &fields { input type="hidden" name=(name) value=(value); }
                button.plain { (visit.frame().undo) }
            }
        }
    });
    notice(if found.is_bad { Tone::Bad } else { Tone::Ok }, &found.text, undo)
}

/// How many tasks of the visitor run, except on the pages that show them.
fn running_tasks(visit: &Visit) -> Markup {
    let count = visit.running_tasks();
    if count == 0 || visit.page.path.contains("/tasks") {
        return html! {};
    }
    let t = visit.frame();
    let text = if count == 1 { t.task_runs.to_owned() } else { fill(t.tasks_run, &[&count]) };
    let link = html! { a href=(visit.href("/console/me/tasks")) { (t.tasks_show) } };
    notice(Tone::Plain, &text, Some(link))
}

/// The most organizations that the switcher lists besides the visitor's own.
const ELSEWHERE_MAX: usize = 12;

/// The first organizations of the site, for who may see all of them.
pub async fn find_elsewhere(visit: &Visit) -> Vec<(String, String)> {
    let own = visit.me["organizations"].as_array().map_or(&[][..], Vec::as_slice);
    let is_of_site = visit.is_of_platform() && visit.may("list_organizations");
    if !is_of_site || visit.console.app.snapshot().tenants().nth(own.len()).is_none() {
        return Vec::new();
    }
    let call = op("list_organizations").query("limit", ELSEWHERE_MAX + own.len());
    let found = visit.call_in(None, call).await.map(|answer| answer.data).unwrap_or_default();
    let foreign = list::items(&found).iter().filter(|one| own.iter().all(|own| own["org_code"] != one["org_code"]));
    foreign
        .filter_map(|one| Some((one["org_code"].as_str()?.to_owned(), one["name"].as_str()?.to_owned())))
        .take(ELSEWHERE_MAX)
        .collect()
}

/// The organizations of the member and those that an administrator of the site sees, each as a link to the same page
/// there.
fn switcher(visit: &Visit) -> Markup {
    let t = visit.frame();
    let organizations = visit.me["organizations"].as_array().map_or(&[][..], Vec::as_slice);
    let present = visit.organization.as_ref().map_or(
        match visit.page.area {
            Area::Site => t.site,
            _ => t.own,
        },
        |here| here.name.as_str(),
    );
    // Objects of one organization do not exist in another: only lists have the same address there. The start of the
    // organization leads to the first page that the member may open.
    let is_list = visit.page.area == Area::Organization && visit.page.path.matches('{').count() == 1;
    let rest =
        visit.address.splitn(5, '/').nth(4).filter(|_| is_list).map(|rest| format!("/{rest}")).unwrap_or_default();
    html! {
        details.switcher {
            summary title=(t.switch_place) { span { (present) } }
            ul {
                li { a href=(visit.href("/console/me")) { (t.own) } }
                @for organization in organizations {
                    @if let (Some(code), Some(name)) = (organization["org_code"].as_str(), organization["name"].as_str()) {
                        li { a href=(visit.href(&format!("/console/o/{code}{rest}"))) { (name) } }
                    }
                }
                @for (code, name) in &visit.elsewhere {
                    li { a href=(visit.href(&format!("/console/o/{code}{rest}"))) { (name) } }
                }
                @if visit.may("list_organizations") && visit.is_of_platform() {
                    li { a href=(visit.href("/console/site/organizations")) { (FirstSteps::of(visit.language).all_organizations) } }
                    li { a href=(visit.href("/console/site")) { (t.site) } }
                }
            }
        }
    }
}

/// Language, theme, and the account of the visitor.
fn account(visit: &Visit) -> Markup {
    let t = visit.frame();
    let name = ["display_name", "username", "email"].iter().find_map(|key| visit.me[*key].as_str());
    html! {
        details.account {
            summary title=(t.account) { span { (name.unwrap_or(t.account)) } }
            ul {
                li { a href=(visit.href("/console/me")) { (t.own) } }
                li {
                    form method="post" action=(visit.href("/console/sign-out")) { button.plain { (t.sign_out) } }
                }
            }
        }
    }
}

fn preferences(visit: &Visit) -> Markup {
    let t = visit.frame();
    let here = format!("{}{}", visit.address, if visit.query.is_empty() { String::new() } else { query_of(visit) });
    html! {
        form.preferences method="post" action=(visit.href("/console/preferences")) {
            input type="hidden" name="back" value=(here);
            span role="group" aria-label=(t.language) {
                @for language in Language::ALL {
                    button.plain name="lang" value=(language.as_str()) lang=(language.as_str())
                        aria-pressed=(language == visit.language) {
                        (language.pick(t.english, t.chinese))
                    }
                }
            }
            span role="group" aria-label=(t.theme) {
                @for theme in Theme::ALL {
                    button.plain name="theme" value=(theme.as_str()) aria-pressed=(theme == visit.theme) {
                        (match theme { Theme::Auto => t.theme_auto, Theme::Light => t.theme_light, Theme::Dark => t.theme_dark })
                    }
                }
            }
            @if visit.identity.is_some() {
                span role="group" aria-label=(t.keys) {
                    button.plain name="keys" value=(if visit.has_keys { "off" } else { "on" }) aria-pressed=(visit.has_keys) { (t.keys) }
                }
            }
        }
    }
}

/// The query of this page, to return to it. One-time tokens stay in it, since the form is sent to this site only.
fn query_of(visit: &Visit) -> String {
    let pairs = visit
        .query
        .iter()
        .map(|(name, value)| format!("{}={}", super::client::encoded(name), super::client::encoded(value)));
    format!("?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn links(visit: &Visit) -> Markup {
    let t = visit.frame();
    html! {
        span.links {
            a href=(visit.href("/manual")) { (t.manual) }
            " · "
            a href=(super::page::docs(&visit.console.app.config)) { (t.api_docs) }
        }
    }
}

/// The navigation: the pages that the visitor may open, by group. Pages of an organization are listed where the address
/// names one, or where the member has one only.
fn entries(visit: &Visit) -> Markup {
    let t = visit.frame();
    let heading = |group| match group {
        Group::Own => t.own,
        Group::Organization => t.organization,
        Group::People => t.people,
        Group::Rights => t.rights,
        Group::Content => t.content,
        Group::Integration => t.integration,
        Group::Administration => t.administration,
        Group::Site => t.site,
    };
    let shown: Vec<(Group, Markup)> = all().filter_map(|page| entry(visit, page)).collect();
    html! {
        @for group in Group::ALL {
            @let of_group: Vec<&Markup> = shown.iter().filter(|(of, _)| *of == group).map(|(_, link)| link).collect();
            @let list = html! { ul { @for link in &of_group { li { (link) } } } };
            @if of_group.is_empty() {}
            @else if is_aside(visit, group) { details { summary { (heading(group)) } (list) } }
            @else { h2 { (heading(group)) } (list) }
        }
    }
}

/// Whether the group is folded, because the page is in another place.
fn is_aside(visit: &Visit, group: Group) -> bool {
    match visit.page.area {
        Area::Organization => matches!(group, Group::Own | Group::Site),
        Area::Site => group == Group::Own,
        Area::Own | Area::Public => false,
    }
}

fn entry(visit: &Visit, page: &'static Page) -> Option<(Group, Markup)> {
    let (group, text) = page.entry?;
    let is_of_place = match page.area {
        Area::Organization => visit.organization.is_some(),
        Area::Site => visit.is_of_platform(),
        Area::Own => true,
        Area::Public => false,
    };
    if !is_of_place || !page.needs.iter().all(|operation| visit.may(operation)) {
        return None;
    }
    // An overview needs nothing by itself, but it is empty for those who may see none of its parts.
    let is_overview_of_parts = page.area == Area::Organization && page.needs.is_empty();
    if is_overview_of_parts && !page.uses.iter().any(|operation| visit.may(operation)) {
        return None;
    }
    let code = visit.organization.as_ref().map_or("", |here| here.code.as_str());
    let address = format!("/console{}", page.path.replace("{org}", code));
    let is_current = std::ptr::eq(page, visit.page);
    let is_above = visit.address.strip_prefix(&address).is_some_and(|rest| rest.starts_with('/')) && !is_overview(page);
    Some((
        group,
        html! {
            a href=(visit.href(&address)) data-keys=[keys(page.path)] aria-current=[(is_current || is_above).then_some(if is_current { "page" } else { "true" })] {
                (text(visit.language))
            }
        },
    ))
}

/// Whether all other pages of the same part lie below the address of this page.
fn is_overview(page: &Page) -> bool {
    ["/me", "/o/{org}", "/site"].contains(&page.path)
}

/// The keys that lead to a page, pressed one after the other.
fn keys(path: &str) -> Option<&'static str> {
    match path {
        "/o/{org}/members" => Some("g m"),
        "/o/{org}/roles" => Some("g r"),
        "/o/{org}/why" => Some("g w"),
        _ => None,
    }
}

/// The first operation of the page as a request, for developers.
fn as_request(visit: &Visit) -> Markup {
    let Some(operation) = visit.page.needs.iter().chain(visit.page.uses).find_map(|id| {
        let operation = visit.operation(id).ok()?;
        (operation.method == "GET" || visit.page.path.ends_with("why")).then_some(operation)
    }) else {
        return html! {};
    };
    let config = &visit.console.app.config;
    let tenant =
        visit.organization.as_ref().map(|here| format!(" -H 'X-Tenant-ID: {}'", here.code)).unwrap_or_default();
    let method = if operation.method == "GET" { String::new() } else { format!(" -X {}", operation.method) };
    html! {
        details.request {
            summary { (visit.frame().operation_used) }
            pre { code { "curl" (method) (tenant) " -H \"Authorization: Bearer $TOKEN\" " (visit.public_url()) (config.base_path) (operation.path) } }
            p { a href=(super::page::docs(config)) { (visit.frame().api_docs) } }
        }
    }
}

/// The page of a failure: what happened, in the visitor's language, and where to go.
pub fn failure(visit: &Visit, error: &Error) -> Response {
    let t = visit.frame();
    let (title, text) = match error.code.status() {
        404 => (t.not_found_title, t.not_found_text.to_owned()),
        403 if error.code == ErrorCode::Forbidden => (t.denied_title, denied(visit)),
        403 => (t.denied_title, errors::sentence(error, visit.language)),
        _ => (t.failed_title, errors::sentence(error, visit.language)),
    };
    let body = html! {
        p { (text) }
        @for field in &error.fields { p { (field.name()) ": " (errors::field_message(&field.message, visit.language)) } }
        p { a.button href=(visit.href(if visit.identity.is_some() { "/console/me" } else { "/console/sign-in" })) {
            (if visit.identity.is_some() { t.home } else { t.sign_in })
        } }
        (details(visit, error))
    };
    let content = Content {
        status: StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        ..Content::new(title, body)
    };
    let mut response = document(visit, &content);
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.get()));
    }
    for (name, value) in &error.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The sentence that names the missing permission of the page.
fn denied(visit: &Visit) -> String {
    let t = visit.frame();
    let lacking = visit.page.needs.iter().chain(visit.page.uses).find(|operation| !visit.may(operation));
    let permission = lacking.and_then(|id| visit.operation(id).ok()?.permission);
    permission.map_or_else(
        || errors::sentence(&ErrorCode::Forbidden.into(), visit.language),
        |permission| fill(t.denied_text, &[&permission.builtin().name]),
    )
}

/// Code and request id of a failure, for reports.
pub fn details(visit: &Visit, error: &Error) -> Markup {
    let t = visit.frame();
    html! {
        details.report {
            summary { (t.details) }
            dl {
                dt { (t.code) } dd { code { (error.code.as_str()) } }
                dt { (t.request_id) } dd { code { (visit.context.request_id) } }
            }
        }
    }
}
