//! The frame of every page: head, top bar, navigation, notices; and the pages of errors.

use maud::{DOCTYPE, Markup, html};
use poem::http::{HeaderName, StatusCode, header};
use poem::{Response, http::HeaderValue};

use super::assets;
use super::components::{Tone, notice};
use super::i18n::{Language, errors, fill};
use super::pages::{Area, Group, Page, all};
use super::visit::{Content, NOTICE_COOKIE, Notice, Theme, Visit};
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
                    meta http-equiv="refresh" content=(seconds);
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
                (content.body)
                (as_request(visit))
            }
        }
        footer { (preferences(visit)) (links(visit)) }
    }
}

/// The notice of the page before, once.
fn shown_notice(visit: &Visit) -> Markup {
    let Some(found) = visit.cookie(NOTICE_COOKIE).and_then(Notice::from_cookie) else { return html! {} };
    visit.set_cookie(NOTICE_COOKIE, "", 0);
    let undo = found.undo.map(|(address, fields)| {
        html! {
            form method="post" action=(visit.href(&address)) {
                @for (name, value) in &fields { input type="hidden" name=(name) value=(value); }
                button.plain { (visit.frame().undo) }
            }
        }
    });
    notice(Tone::Ok, &found.text, undo)
}

/// The organizations of the member, each as a link to the same page there.
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
                @if visit.may("list_organizations") && visit.is_of_platform() {
                    li { a href=(visit.href("/console/site/organizations")) { (t.site) } }
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
        Group::People => t.people,
        Group::Rights => t.rights,
        Group::Site => t.site,
    };
    let shown: Vec<(Group, Markup)> = all().filter_map(|page| entry(visit, page)).collect();
    let groups = [Group::Own, Group::People, Group::Rights, Group::Site];
    html! {
        @for group in groups {
            @let of_group: Vec<&Markup> = shown.iter().filter(|(of, _)| *of == group).map(|(_, link)| link).collect();
            @if !of_group.is_empty() {
                h2 { (heading(group)) }
                ul { @for link in of_group { li { (link) } } }
            }
        }
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
    let code = visit.organization.as_ref().map_or("", |here| here.code.as_str());
    let address = format!("/console{}", page.path.replace("{org}", code));
    let is_current = std::ptr::eq(page, visit.page);
    let is_above = visit.address.strip_prefix(&address).is_some_and(|rest| rest.starts_with('/')) && page.path != "/me";
    Some((
        group,
        html! {
            a href=(visit.href(&address)) data-keys=[keys(page.path)] aria-current=[(is_current || is_above).then_some(if is_current { "page" } else { "true" })] {
                (text(visit.language))
            }
        },
    ))
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
