//! First steps: what the administrator of a new site does, in five steps that each can be left out.

use maud::{Markup, html};
use serde_json::Value;

use super::organizations::new_form;
use crate::console::client::op;
use crate::console::components::{
    self, Area, Field, Kind, State, Step, Text, Tone, button_named, copyable, facts, field, link_button, notice, rail,
    text_input, textarea_input,
};
use crate::console::i18n::site::{FirstSteps, Organizations};
use crate::console::i18n::{errors, fill};
use crate::console::list;
use crate::console::visit::{Content, View, Visit, host_of, is_of_form};
use crate::kernel::config::providers::is_loopback;
use crate::kernel::error::{Error, ErrorCode, Result};

/// What is done so far.
struct Progress {
    /// The organizations other than the built-in one.
    organizations: Vec<(String, String)>,
    is_invited: bool,
    is_protected: bool,
}

/// Shows the steps.
pub async fn show(visit: &Visit) -> Result<View> {
    show_with(visit, html! {}, None).await
}

async fn show_with(visit: &Visit, result: Markup, error: Option<&Error>) -> Result<View> {
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
        section id="protect" { h2 { (t.step_protect) } (result) (protect(visit, t, error)) }
        p { a href=(visit.href("/console/me")) { (t.later) } }
    };
    let content = Content::new(t.title, body);
    Ok(match error {
        Some(error) => content.status_of(error).into(),
        None => content.into(),
    })
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

/// The lines of the settings file for each external system.
const CONNECTIONS: [(&str, &str); 4] = [
    ("WordPress", "[wordpress]\nurl = \"https://www.example.org\""),
    ("SFTPGo", "[sftpgo]\nurl = \"http://127.0.0.1:8080\"\nsecret_file = \"/etc/roster/sftpgo\""),
    ("OpenID Connect", "[[oidc]]\nname = \"company\"\nissuer = \"https://id.example.org\"\nclient_id = \"roster\""),
    ("Mail", "[mail]\nhost = \"mail.example.org\"\nfrom = \"roster@example.org\""),
];

fn connect(t: &FirstSteps, visit: &Visit) -> Markup {
    html! {
        p { (t.connect_about) }
        @for (name, lines) in CONNECTIONS {
            details { summary { (name) } (copyable(lines, visit.frame().copy, visit.frame().copied)) }
        }
        p { a href=(visit.href("/manual")) { (t.connect_manual) } }
    }
}

fn protect(visit: &Visit, t: &FirstSteps, error: Option<&Error>) -> Markup {
    let faults: Vec<String> = error
        .into_iter()
        .flat_map(|error| {
            let of_fields = error.fields.iter().map(|field| errors::field_message(&field.message, visit.language));
            let all: Vec<String> = of_fields.collect();
            if all.is_empty() { vec![errors::sentence(error, visit.language)] } else { all }
        })
        .collect();
    let (app, document) = (Field::new("app", t.app), Field::new("document", t.document).faults(&faults));
    html! {
        p { (t.protect_about) }
        form method="post" action={ (visit.here()) "#protect" } data-guard {
            (field(&app, text_input(&app, &Text {
                name: "app", value: visit.submitted("app").unwrap_or("main"), is_required: true, maxlength: Some(64), ..Text::default()
            })))
            (field(&document, textarea_input(&document, &Area {
                name: "document", value: visit.submitted("document").unwrap_or_default(), rows: 10, is_required: true,
                is_code: true, placeholder: Some("openapi: 3.0.3"), ..Area::default()
            })))
            div.buttons {
                (button_named("act", "preview", t.preview, Kind::Main))
                (button_named("act", "import", t.import, Kind::Plain))
            }
        }
    }
}

/// Shows what an OpenAPI document would change in the catalog, or imports it.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = FirstSteps::of(visit.language);
    let is_preview = match visit.submitted("act") {
        Some("preview") => true,
        Some("import") => false,
        _ => return Err(ErrorCode::BadInput.into()),
    };
    let document = visit.submitted("document").unwrap_or_default();
    let kind = if document.trim_start().starts_with('{') { "application/json" } else { "application/yaml" };
    let call = op("import_catalog")
        .query("app", visit.submitted("app").unwrap_or("main"))
        .query("dry_run", is_preview)
        .bytes(kind, document.as_bytes().to_vec());
    match visit.call(call).await {
        Ok(answer) if is_preview => show_with(visit, difference(t, &answer.data), None).await,
        Ok(answer) => {
            let added = answer.data["added"].as_array().map_or(0, Vec::len);
            visit.done("/console/site/first-steps", fill(t.imported, &[&added]))
        }
        Err(error) if is_of_form(&error) => show_with(visit, html! {}, Some(&error)).await,
        Err(error) => Err(error),
    }
}

/// What the import would add, change and leave without a service.
fn difference(t: &FirstSteps, data: &Value) -> Markup {
    const SHOWN: usize = 50;
    let part = |key: &str, title: &str| {
        let names: Vec<String> = data[key]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one.as_str().or(one["name"].as_str()).map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        html! {
            @if !names.is_empty() {
                h3 { (title) " (" (names.len()) ")" }
                ul { @for name in names.iter().take(SHOWN) { li { code { (name) } } } }
                @if names.len() > SHOWN { p { "…" } }
            }
        }
    };
    let is_same = ["added", "changed", "orphaned"].iter().all(|key| data[*key].as_array().is_none_or(Vec::is_empty));
    html! {
        div.preview role="status" {
            h3 { (t.difference) }
            @if is_same { p { (t.no_difference) } }
            (part("added", t.added)) (part("changed", t.changed)) (part("orphaned", t.orphaned)) (part("skipped", t.skipped))
            (components::badge(Tone::Plain, t.nothing_written))
        }
    }
}
