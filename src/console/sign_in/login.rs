//! The sign-in page, and what stands there instead of its form when nobody could sign in.

use std::net::{Ipv4Addr, SocketAddr};

use maud::{Markup, html};
use poem::http::StatusCode;
use serde_json::json;

use super::onward::{RETURN, carried, carried_query, complete, target};
use super::parts::{Faults, form as form_of, is_shown_in_form, page, password, summary, text};
use super::second_factor;
use super::words::Words;
use crate::console::assets;
use crate::console::client::{encoded, op};
use crate::console::components::{Kind, Text, actions, copyable_block, link_button, link_button_of};
use crate::console::i18n::fill;
use crate::console::visit::{Content, View, Visit, host_of};
use crate::features::members;
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::{Error, Result};
use crate::kernel::outbound::mail;

pub(super) const PATH: &str = "/console/sign-in";

/// Shows the form, or that somebody is signed in already.
pub(super) async fn form(visit: &Visit) -> Result<View> {
    if visit.identity.is_some() {
        return Ok(signed_in(visit));
    }
    let config = visit.config();
    // The only way needs no choice.
    if let ([only], false, true) = (&config.providers[..], config.signin_password, config.wordpress_url.is_empty())
        && obstacle(visit).await?.is_none()
    {
        return Ok(View::Redirect(format!("{PATH}/oidc/{}{}", only.name, carried_query(visit)), None));
    }
    with_faults(visit, &Faults::none()).await
}

/// Signs in with a password.
pub(super) async fn submit(visit: &Visit) -> Result<View> {
    if visit.identity.is_some() {
        return Ok(signed_in(visit));
    }
    if let Some(content) = obstacle(visit).await? {
        return Ok(content.into());
    }
    let login = visit.submitted("login").unwrap_or_default().trim();
    let body = json!({"login": login, "password": visit.submitted("password").unwrap_or_default(), "cookies": true});
    match visit.call(op("login").body(&body)).await {
        Ok(_) => complete(visit, carried(visit)),
        Err(error) => go_on(visit, error, carried(visit)).await,
    }
}

/// What follows a first step that failed: the second step if the sign-in asks for one, else the sign-in page with the
/// reason.
pub(super) async fn go_on(visit: &Visit, error: Error, signed: &str) -> Result<View> {
    match second_factor::next_step(visit, error, signed).await {
        Err(error) if is_shown_in_form(&error) => with_faults(visit, &Faults::of(visit, &error)).await,
        other => other,
    }
}

/// The sign-in page with these faults.
pub(super) async fn with_faults(visit: &Visit, faults: &Faults) -> Result<View> {
    if let Some(content) = obstacle(visit).await? {
        return Ok(content.into());
    }
    let t = Words::of(visit.language);
    let config = &visit.console.app.config;
    let body = html! {
        (logo(visit))
        @if config.signin_password {
            @if is_password_last(visit) { (other_ways(visit)) }
            (form_of(visit, faults, PATH, &[(RETURN, carried(visit))], &inputs(visit, faults), t.sign_in))
            (links(visit))
        } @else if !faults.is_empty() {
            (summary(visit, faults))
        }
        @if !is_password_last(visit) || !config.signin_password { (other_ways(visit)) }
    };
    Ok(page(visit, faults, t.sign_in_title, body))
}

fn inputs(visit: &Visit, faults: &Faults) -> Markup {
    const LOGIN_CHARACTERS_MAX: u32 = 254;
    let login = Text {
        name: "login",
        value: visit.submitted("login").unwrap_or_default(),
        is_required: true,
        maxlength: Some(LOGIN_CHARACTERS_MAX),
        autocomplete: Some("username"),
        is_focused: faults.is_empty(),
        ..Text::default()
    };
    html! { (text(visit, faults, login, None)) (password(visit, faults)) }
}

fn links(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let config = &visit.console.app.config;
    let has_mail = mail::is_configured(config);
    html! {
        p.links {
            a href=(visit.href("/console/forgot")) { (t.forgot_link) }
            @if config.registration && has_mail {
                " · " a href=(visit.href("/console/register")) { (t.register_link) }
            }
        }
    }
}

/// The picture of `signin.logo_file`.
fn logo(visit: &Visit) -> Markup {
    html! {
        @if visit.console.logo.is_some() { p { img src=(visit.href(assets::LOGO_PATH)) alt="" height="64"; } }
    }
}

/// Whether `signin.order` names another way before the password.
fn is_password_last(visit: &Visit) -> bool {
    visit.config().signin_order.first().is_some_and(|way| way != "password")
}

/// A link for each other way, in the order of `signin.order`. They are links, because the policy of the pages stops forms that end at another site.
fn other_ways(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let config = &visit.console.app.config;
    let query = carried_query(visit);
    let wordpress = (!config.wordpress_url.is_empty()).then(|| visit.href(&format!("{PATH}/wordpress{query}")));
    let has_any = wordpress.is_some() || !config.providers.is_empty();
    html! {
        @if has_any {
            @if config.signin_password { p { (t.other_ways) } } @else { p { (t.only_other_ways) } }
            (actions(html! {
                @let is_wordpress_first = config.signin_order.iter().find(|way| *way != "password").is_some_and(|way| way == "wordpress");
                @if let (true, Some(href)) = (is_wordpress_first, &wordpress) { (link_button(href, t.with_wordpress)) }
                @for provider in &config.providers {
                    @let href = visit.href(&format!("{PATH}/oidc/{}{query}", provider.name));
                    (link_button(&href, &fill(t.with_provider, &[&provider.name])))
                }
                @if let (false, Some(href)) = (is_wordpress_first, &wordpress) { (link_button(href, t.with_wordpress)) }
            }))
        } @else if !config.signin_password {
            p { (t.no_way) }
        }
    }
}

/// The page for somebody who is signed in: after the back button, or when a form was sent twice.
pub(super) fn signed_in(visit: &Visit) -> View {
    let t = Words::of(visit.language);
    let (address, _) = target(visit, carried(visit));
    let body = html! {
        p { (t.signed_in_text) }
        (actions(html! {
            (link_button_of(&visit.href(&address), t.go_on, Kind::Main, None))
            (link_button(&visit.href("/console/sign-out"), visit.frame().sign_out))
        }))
    };
    Content::new(t.signed_in_title, body).into()
}

/// What must be done before anybody can sign in here: use the right address, use https, or create an administrator.
pub(super) async fn obstacle(visit: &Visit) -> Result<Option<Content>> {
    let t = Words::of(visit.language);
    let app = &visit.console.app;
    if !visit.is_own_host {
        let address = format!("{}{PATH}{}", app.public_url(), carried_query(visit));
        let body = html! {
            p { (t.wrong_host_text) }
            p { a href=(address) { (app.public_url()) } }
        };
        return Ok(Some(Content::new(t.wrong_host_title, body)));
    }
    if let Some(content) = plain_http(visit, "/console") {
        return Ok(Some(content));
    }
    if !members::is_set_up(app).await? {
        let body = html! {
            p { (t.no_administrator_text) }
            // Not the directory itself: strangers see this page.
            (copyable_block("roster setup-link --data DIR", visit.frame().copy, visit.frame().copied))
            p.hint { (t.no_administrator_data) }
        };
        return Ok(Some(Content::new(t.no_administrator_title, body)));
    }
    Ok(None)
}

/// Whether the site is used over plain http from another machine: browsers then drop its cookies, which are `Secure`.
fn is_plain_http(visit: &Visit) -> bool {
    let url = visit.config().public_url();
    let Some(rest) = url.strip_prefix("http://") else { return false };
    !is_loopback(host_of(rest)) && !is_loopback(host_of(visit.host()))
}

/// The page of a one-time link where the site is used over plain http: it shows the same link through a tunnel instead
/// of the form, because the session of the form would be lost.
pub(super) fn plain_http_link(visit: &Visit, path: &str, token: &str) -> Option<View> {
    let query = if token.is_empty() { String::new() } else { format!("?token={}", encoded(token)) };
    plain_http(visit, &format!("{path}{query}")).map(View::from)
}

/// The commands that lead to this address of the site through a tunnel. The tunnel ends where this server listens.
fn tunnel(visit: &Visit, address: &str) -> String {
    let (config, url) = (visit.config(), visit.public_url());
    let bound = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).filter(|_| config.public_url.is_empty());
    let port: u16 = bound.unwrap_or(config.listen.port());
    let ip = config.listen.ip();
    let end = SocketAddr::new(if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }, port);
    // The text is pasted into a shell.
    let is_plain = |host: &&str| host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
    let asked = Some(host_of(visit.host())).filter(|host| !host.is_empty()).filter(is_plain);
    let host = asked.unwrap_or_else(|| url.split_once("://").map_or("", |(_, rest)| host_of(rest)));
    let host = host.trim_matches(['[', ']']);
    format!("ssh -L {port}:{end} USER@{host}\nhttp://127.0.0.1:{port}{}", visit.href(address))
}

/// The page that says what to do where the site is used over plain http; `None` elsewhere. `address` is where a tunnel
/// leads.
fn plain_http(visit: &Visit, address: &str) -> Option<Content> {
    if !is_plain_http(visit) {
        return None;
    }
    let t = Words::of(visit.language);
    let body = html! {
        p { (t.plain_text) }
        p { (t.plain_todo) }
        ul {
            li { (t.plain_tls) }
            li { (t.plain_proxy) }
            li {
                (t.plain_tunnel)
                (copyable_block(&tunnel(visit, address), visit.frame().copy, visit.frame().copied))
            }
        }
        p { a href=(visit.href("/manual")) { (visit.frame().manual) } }
    };
    Some(Content { status: StatusCode::OK, ..Content::new(t.plain_title, body) })
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts_are_read_with_and_without_port() {
        for (text, host) in [
            ("a.example.org", "a.example.org"),
            ("a.example.org:8480/id", "a.example.org"),
            ("127.0.0.1:8480", "127.0.0.1"),
            ("[::1]:8480", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host_of(text), host, "{text}");
        }
    }
}
