//! The organizations of the site: list, creation, settings.

use maud::{Markup, html};
use serde_json::Value;

use crate::console::client::op;
use crate::console::components::{
    Column, Field, Row, Select, Tone, badge, button_named, card, empty, facts, field, filter_bar, link_button, region,
    search_field, select_input, table, time,
};
use crate::console::form::{self, Form, ONCE, VERSION};
use crate::console::i18n::fields;
use crate::console::i18n::site::Organizations;
use crate::console::list;
use crate::console::visit::{Content, Notice, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Field as Fault, Result};
use crate::kernel::units::shown_bytes;

const LIST: &str = "/console/site/organizations";

/// Shows the organizations, and the form for a new one.
pub async fn list(visit: &Visit) -> Result<View> {
    list_with(visit, None).await
}

/// Creates an organization and leads to its invitations, so that somebody can join it.
pub async fn create(visit: &Visit) -> Result<View> {
    let t = Organizations::of(visit.language);
    let body = form::read(visit.operation("create_organization")?, visit);
    match visit.call(op("create_organization").body(&body).once(visit.submitted(ONCE))).await {
        Ok(answer) => {
            let code = answer.data["org_code"].as_str().unwrap_or_default();
            visit.done(format!("/console/o/{code}/invitations"), t.created)
        }
        Err(mut error) if is_of_form(&error) => {
            if error.code == ErrorCode::OrganizationExists {
                error.fields.push(Fault::body("org_code", error.message().to_owned()));
            }
            list_with(visit, Some(&error)).await
        }
        Err(error) => Err(error),
    }
}

async fn list_with(visit: &Visit, error: Option<&Error>) -> Result<View> {
    let t = Organizations::of(visit.language);
    let call = op("list_organizations")
        .query_some("keyword", visit.query("keyword"))
        .query_some("status", visit.query("status"));
    let found = visit.call(list::paged(visit, call)).await?.data;
    let rows: Vec<Row> = list::items(&found).iter().map(|one| row(visit, t, one)).collect();
    let shown = if rows.is_empty() {
        empty(t.empty_title, t.empty_text, None)
    } else {
        let columns = [Column::new(t.name), Column::new(t.code), Column::new(t.status), Column::new(t.created_at)];
        table(t.title, &columns, rows)
    };
    let body = html! {
        p { (t.about) }
        (filters(visit, t))
        (region("list", None, html! { (shown) (list::pager(visit, &found)) }))
        @if visit.may("create_organization") { (card(t.new, new_form(visit, t, error)?)) }
    };
    let content = Content::new(t.title, body);
    Ok(match error {
        Some(error) => content.status_of(error).into(),
        None => content.into(),
    })
}

/// The form for a new organization.
pub(super) fn new_form(visit: &Visit, t: &Organizations, error: Option<&Error>) -> Result<Markup> {
    let form = Form::new(visit, "create_organization")?.error(error);
    let inner = html! {
        (form.text("name", "text"))
        (form.text("org_code", "text"))
        (form.field("second_factor_required"))
    };
    Ok(form.wrap(&visit.href(LIST), inner, t.create))
}

fn filters(visit: &Visit, t: &Organizations) -> Markup {
    let frame = visit.frame();
    let texts = ["active", "inactive"].map(|value| fields::value(value, visit.language));
    let states = [("", frame.all), ("active", texts[0].as_str()), ("inactive", texts[1].as_str())];
    let status = Field::new("status", t.status);
    let chosen = visit.query("status").unwrap_or_default();
    filter_bar(
        &visit.href(LIST),
        Some("list"),
        html! {
            (search_field("keyword", visit.query("keyword").unwrap_or_default(), frame.search))
            (field(&status, select_input(&status, &Select { name: "status", options: &states, chosen, is_required: false })))
            (list::kept(visit))
        },
        frame.filter,
    )
}

fn row(visit: &Visit, t: &Organizations, one: &Value) -> Row {
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    Row {
        cells: vec![
            html! { (text("name")) },
            html! { code { (text("org_code")) } },
            state(visit, t, one),
            time(one["created_at"].as_i64().unwrap_or_default()),
        ],
        href: Some(visit.href(&format!("{LIST}/{}", text("id")))),
        ..Row::default()
    }
}

fn state(visit: &Visit, t: &Organizations, one: &Value) -> Markup {
    let status = one["status"].as_str().unwrap_or_default();
    let tone = if status == "active" { Tone::Ok } else { Tone::Warn };
    html! {
        (badge(tone, &fields::value(status, visit.language)))
        @if one["second_factor_required"] == true { " " (badge(Tone::Plain, t.second_factor)) }
    }
}

/// Shows one organization.
pub async fn show(visit: &Visit) -> Result<View> {
    show_with(visit, None).await
}

async fn show_with(visit: &Visit, error: Option<&Error>) -> Result<View> {
    let t = Organizations::of(visit.language);
    let found = visit.call(op("get_organization").at(visit.path("id"))).await?;
    let text = |key: &str| found.data[key].as_str().unwrap_or_default();
    // Only after a conflict does the form get the present version: what somebody else saved must be seen first.
    let is_current = error.is_none_or(|error| error.code == ErrorCode::VersionStale);
    let version = found.etag.as_deref().filter(|_| is_current);
    let form = Form::new(visit, "update_organization")?.values(&found.data).version(version).error(error);
    // A change can leave the name out, but this form always sends it: its field is that of a new organization.
    let name = Form::new(visit, "create_organization")?.values(&found.data).error(error);
    let inner = html! {
        input type="hidden" name="act" value="update";
        (name.text("name", "text"))
        (form.text("tax_id", "text"))
        (form.field("second_factor_required"))
    };
    let mut rows = vec![
        (t.code, html! { code { (text("org_code")) } }),
        (t.status, state(visit, t, &found.data)),
        (t.created_at, time(found.data["created_at"].as_i64().unwrap_or_default())),
    ];
    if let Some(ceiling) = ceiling(visit, t, text("org_code")).await {
        rows.push((t.ceiling, ceiling));
    }
    let is_active = text("status") == "active";
    let (act, word) = if is_active { ("deactivate", t.deactivate) } else { ("activate", t.activate) };
    let body = html! {
        (facts(&rows))
        @if visit.may("update_organization") { (card(t.settings, form.wrap(&visit.here(), inner, visit.frame().save))) }
        @if visit.may("deactivate_organization") {
            (card(t.state, html! {
                form method="post" action=(visit.here()) {
                    p { (if is_active { t.deactivate_about } else { t.activate_about }) }
                    (button_named("act", act, word, crate::console::components::Kind::Plain))
                }
            }))
        }
    };
    let open = link_button(&visit.href(&format!("/console/o/{}", text("org_code"))), t.open);
    let content = Content::new(text("name"), body).actions(open);
    Ok(match error {
        Some(error) => content.status_of(error).into(),
        None => content.into(),
    })
}

/// The ceiling of the organization, with a link to where it is changed.
async fn ceiling(visit: &Visit, t: &Organizations, code: &str) -> Option<Markup> {
    if !visit.may("get_usage") {
        return None;
    }
    let usage = visit.call_in(Some(code), op("get_usage").query("limit", 1)).await.ok()?.data;
    let size = usage["organizations"][0]["size"].as_i64();
    Some(html! {
        @match size { Some(size) => (shown_bytes(size)), None => (t.no_ceiling) }
        @if visit.may("update_organization_quota") {
            " " a href=(visit.href(&format!("/console/o/{code}/usage"))) { (t.ceiling_change) }
        }
    })
}

/// Changes an organization, or its state.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Organizations::of(visit.language);
    let id = visit.path("id");
    let here = format!("{LIST}/{id}");
    let switch = |operation, text: &'static str, inverse: &'static str| {
        let here = here.clone();
        async move {
            visit.call(op(operation).at(id)).await?;
            let notice = Notice::new(text).with_undo(here.clone(), &[("act", inverse)]);
            Ok(View::Redirect(here, Some(notice)))
        }
    };
    match visit.submitted("act") {
        Some("deactivate") => switch("deactivate_organization", t.deactivated, "activate").await,
        Some("activate") => switch("activate_organization", t.activated, "deactivate").await,
        Some("update") => {
            let body = form::read(visit.operation("update_organization")?, visit);
            let call = op("update_organization").at(id).body(&body).if_match(visit.submitted(VERSION));
            match visit.call(call).await {
                Ok(_) => visit.done(here, t.saved),
                Err(error) if is_of_form(&error) => show_with(visit, Some(&error)).await,
                Err(error) => Err(error),
            }
        }
        _ => Err(ErrorCode::BadInput.into()),
    }
}
