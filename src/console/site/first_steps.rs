//! First steps: what the administrator of a new site does, in five steps that each can be left out.

use maud::{Markup, html};
use serde_json::Value;

use super::organizations::new_form;
use super::{catalog, connections};
use crate::console::client::op;
use crate::console::components::{State, Step, Tone, copyable, facts, link_button, notice, rail};
use crate::console::i18n::fill;
use crate::console::i18n::site::{FirstSteps, Organizations};
use crate::console::list;
use crate::console::visit::{Content, View, Visit, host_of};
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::Result;

/// What is done so far.
struct Progress {
    /// The organizations other than the built-in one.
    organizations: Vec<(String, String)>,
    is_invited: bool,
    is_protected: bool,
}

/// Shows the steps.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = FirstSteps::of(visit.language);
    let progress = progress(visit).await?;
    let is_addressed = address_faults(visit, t).is_empty();
    let done = [
        is_addressed,
        !progress.organizations.is_empty(),
        progress.is_invited,
        is_connected(visit),
        progress.is_protected,
    ];
    let current = done.iter().position(|done| !done).unwrap_or(done.len());
    let texts = [t.step_site, t.step_organization, t.step_invite, t.step_connect, t.step_protect];
    let steps: Vec<Step<'_>> = texts
        .into_iter()
        .zip(done)
        .enumerate()
        .map(|(n, (text, is_done))| {
            let (state, state_text) = match (n == current, is_done) {
                (true, _) => (State::Current, t.state_current),
                (_, true) => (State::Done, t.state_done),
                _ => (State::Waiting, t.state_waiting),
            };
            Step { text, state, state_text, note: None, href: Some(format!("#{}", ANCHORS[n])) }
        })
        .collect();
    let body = html! {
        p { (t.about) }
        (rail(&steps))
        section id="site" { h2 { (t.step_site) } (site(visit, t)) }
        section id="organization" { h2 { (t.step_organization) } (organization(visit, t, &progress)?) }
        section id="invite" { h2 { (t.step_invite) } (invite(visit, t, &progress)) }
        section id="connect" { h2 { (t.step_connect) } (connect(t, visit)) }
        section id="protect" { h2 { (t.step_protect) } p { (t.protect_about) } (catalog::forms(visit, None)) }
        p { a href=(visit.href("/console/me")) { (t.later) } }
    };
    Ok(Content::new(t.title, body).into())
}

async fn progress(visit: &Visit) -> Result<Progress> {
    const PLATFORM: &str = "platform";
    let (organizations, catalog) = futures_util::future::try_join(
        visit.call(op("list_organizations").query("limit", 20)),
        visit.call(op("get_permission_catalog")),
    )
    .await?;
    let organizations: Vec<(String, String)> = list::items(&organizations.data)
        .iter()
        .filter_map(|one| Some((one["org_code"].as_str()?.to_owned(), one["name"].as_str()?.to_owned())))
        .filter(|(code, _)| code != PLATFORM)
        .collect();
    let mut is_invited = false;
    if let Some((code, _)) = organizations.first() {
        for operation in ["list_invitations", "list_users"] {
            let found = visit.call_in(Some(code), op(operation).query("limit", 1)).await?.data;
            is_invited |= found["total"].as_u64().unwrap_or(0) > 0;
        }
    }
    let entries = catalog.data["list"].as_array().map_or(&[][..], Vec::as_slice);
    let is_own =
        |entry: &Value| entry["name"].as_str().is_some_and(|name| name != "roster" && !name.starts_with("roster."));
    Ok(Progress { organizations, is_invited, is_protected: entries.iter().any(is_own) })
}

/// Whether any other system is set up.
fn is_connected(visit: &Visit) -> bool {
    let config = visit.config();
    let is_set = [&config.wordpress_url, &config.mail_host].iter().any(|text| !text.is_empty());
    is_set || config.has_sftpgo() || !config.providers.is_empty()
}

/// What is wrong with the address under which the browser came.
fn address_faults(visit: &Visit, t: &FirstSteps) -> Vec<String> {
    let public = visit.public_url();
    let host = visit.host();
    let named = public.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let mut faults = Vec::new();
    if !host.is_empty() && !named.eq_ignore_ascii_case(host) {
        faults.push(fill(t.other_address, &[&host, &public]));
    }
    if public.starts_with("http://") && !visit.is_loopback_site() {
        faults.push(t.plain_http.to_owned());
    }
    faults
}

fn site(visit: &Visit, t: &FirstSteps) -> Markup {
    let faults = address_faults(visit, t);
    html! {
        (facts(&[(t.public_url, html! { code { (visit.public_url()) } })]))
        @for fault in &faults { (notice(Tone::Warn, fault, None)) }
        @if faults.is_empty() { p { (t.address_right) } }
        @else {
            @let scheme = if visit.public_url().starts_with("http://") && is_loopback(host_of(visit.host())) { "http" } else { "https" };
            (copyable(&format!("public_url = \"{scheme}://{}\"", visit.host()), visit.frame().copy, visit.frame().copied))
        }
    }
}

fn organization(visit: &Visit, t: &FirstSteps, progress: &Progress) -> Result<Markup> {
    Ok(html! {
        @if progress.organizations.is_empty() {
            p { (t.organization_about) }
            (new_form(visit, Organizations::of(visit.language), None)?)
        } @else {
            ul { @for (code, name) in &progress.organizations {
                li { a href=(visit.href(&format!("/console/o/{code}/members"))) { (name) } }
            } }
            p { a href=(visit.href("/console/site/organizations")) { (t.all_organizations) } }
        }
    })
}

fn invite(visit: &Visit, t: &FirstSteps, progress: &Progress) -> Markup {
    html! {
        p { (t.invite_about) }
        @for (code, name) in &progress.organizations {
            p { (link_button(&visit.href(&format!("/console/o/{code}/invitations")), &fill(t.invite_into, &[name]))) }
        }
        @if progress.organizations.is_empty() { p.quiet { (t.organization_first) } }
    }
}

/// The ids of the sections, in the order of the steps.
const ANCHORS: [&str; 5] = ["site", "organization", "invite", "connect", "protect"];

fn connect(t: &FirstSteps, visit: &Visit) -> Markup {
    html! {
        p { (t.connect_about) }
        @for example in connections::setup::EXAMPLES {
            details {
                summary { (connections::title_of(visit, example.kind, example.kind)) }
                @if let Some(steps) = connections::setup::steps(visit, example.kind) { (steps) }
            }
        }
        p { a href=(visit.href("/console/site/connections")) { (t.connect_test) } }
        p { a href=(visit.href("/manual")) { (t.connect_manual) } }
    }
}
