//! What can be done with a plugin: activate with settings, roll back, deactivate, delete; and what undoes it.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::show::{Shown, page, settings_of, version_field};
use super::{activation, address, each, exports, is_in_force, is_shown, upload};
use crate::console::client::{encoded, op};
use crate::console::components::{
    self, Area, Confirm, Field, Kind, Text, TextKind, Typed, button_named, checkbox, confirm_box, field, hidden_input,
    text_field, textarea_input,
};
use crate::console::form;
use crate::console::i18n::plugins::{Plugin, PluginActs};
use crate::console::i18n::{errors, fill};
use crate::console::visit::{Notice, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

/// The lists of a filter.
const LISTS: [&str; 3] = ["permissions", "routes", "modules"];
/// The most bytes of an undo: it is kept in a cookie.
const UNDO_BYTES_MAX: usize = 1_500;

pub async fn act(visit: &Visit) -> Result<View> {
    let name = visit.path("name");
    let done = match visit.submitted("act") {
        Some("activate") => activate(visit, name).await,
        Some("roll_back") => roll_back(visit, name).await,
        Some("deactivate") => deactivate(visit, name).await,
        Some("restore") => restore(visit, name).await,
        Some("version") => delete_version(visit, name).await,
        Some("delete") => delete(visit, name).await,
        _ => Err(ErrorCode::BadInput.into()),
    };
    match done {
        Err(error) if is_shown(&error) => Ok(page(visit, Some(&error)).await?.into()),
        done => done,
    }
}

// ── activation ──

/// The form that activates a version, with its settings.
pub(super) fn settings_form(shown: &Shown<'_>, version: &Value) -> Markup {
    let (visit, t) = (shown.visit, Plugin::of(shown.visit.language));
    let is_sent = visit.submitted("act") == Some("activate") && visit.submitted("keep").is_none();
    let number = &version["version"];
    let own = |mode: &str| activation(&shown.plugin, mode).filter(|one| one["version"] == *number);
    let present = own("enforce").or_else(|| own("shadow")).or_else(|| shown.present());
    let settings = if is_sent { submitted_settings(visit) } else { settings_of(present) };
    let is_open = is_sent && shown.error.is_some();
    let mode = ["enforce", "shadow"].into_iter().find(|mode| is_in_force(&shown.plugin, number, mode));
    let is_enforced = mode == Some("enforce");
    // Watching comes first, until it was tried.
    let was_active = ["activations", "history"]
        .iter()
        .any(|list| each(&shown.plugin, list).iter().any(|one| one["version"] == *number));
    let (watch, enforce) = if was_active { (Kind::Plain, Kind::Main) } else { (Kind::Main, Kind::Plain) };
    html! {
        form method="post" action=(shown.href()) data-guard {
            (hidden_input("act", "activate"))
            (hidden_input(upload::NUMBER, &number.to_string()))
            (version_field(shown))
            @if !is_enforced { p.hint { (t.watch_about) } }
            details open[is_open] {
                summary { (t.settings) }
                @if exports(version, "authorizer") { (filters(shown, t, &settings)) }
                (deadline(shown, t, &settings))
                @if let Some(mode) = mode { div.buttons { (button_named("mode", mode, t.save, Kind::Plain)) } }
            }
            @if !is_enforced {
                div.buttons {
                    @if mode.is_none() { (button_named("mode", "shadow", &fill(t.watch, &[number]), watch)) " " }
                    (button_named("mode", "enforce", &fill(t.enforce, &[number]), enforce))
                }
            }
        }
    }
}

/// What an authorizer covers, and whether it may grant.
fn filters(shown: &Shown<'_>, t: &Plugin, settings: &Value) -> Markup {
    let lists = [(t.permissions, Some(t.permissions_about)), (t.routes, Some(t.routes_about)), (t.modules, None)];
    html! {
        @for (list, (label, about)) in LISTS.into_iter().zip(lists) {
            @let faults = faults(shown, list);
            @let lines: Vec<&str> = each(&settings["filter"], list).iter().filter_map(Value::as_str).collect();
            @let around = Field { id: list, label, hint: about, faults: &faults, mark: None };
            (field(&around, textarea_input(&around, &Area { name: list, value: &lines.join("\n"), rows: 2, is_code: true, ..Area::default() })))
        }
        (checkbox(&Field::new("may_grant", t.may_grant).faults(&faults(shown, "may_grant")), "may_grant", "true", settings["may_grant"] == true))
    }
}

fn deadline(shown: &Shown<'_>, t: &Plugin, settings: &Value) -> Markup {
    let faults = faults(shown, "deadline_ms");
    let value = match &settings["deadline_ms"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let around = Field::new("deadline_ms", t.deadline_ms).mark(shown.visit.frame().optional).faults(&faults);
    let input = Text { name: "deadline_ms", value: &value, kind: TextKind::Number, min: Some(1), ..Text::default() };
    text_field(&around, &input)
}

/// The faults of a field, also of an entry of a list: `body.filter.routes.0`.
fn faults(shown: &Shown<'_>, name: &str) -> Vec<String> {
    let all = shown.error.iter().flat_map(|error| &error.fields);
    let of_field = all.filter(|fault| fault.location.iter().any(|part| part == name));
    of_field.map(|fault| errors::field_message(&fault.message, shown.visit.language)).collect()
}

/// The settings of the submitted form.
fn submitted_settings(visit: &Visit) -> Value {
    let lines = |name: &str| -> Vec<&str> {
        visit.submitted(name).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    };
    let mut body = json!({
        "may_grant": visit.submitted("may_grant") == Some("true"),
        "filter": {"permissions": lines("permissions"), "routes": lines("routes"), "modules": lines("modules")},
    });
    if let Some(ms) = visit.submitted("deadline_ms") {
        body["deadline_ms"] = number(ms);
    }
    body
}

/// The number, or the text as it was sent, which the operation refuses.
fn number(text: &str) -> Value {
    text.trim().parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

async fn activate(visit: &Visit, name: &str) -> Result<View> {
    let t = PluginActs::of(visit.language);
    let before = visit.call(op("get_plugin").at(name)).await?.data;
    let (version, mode) =
        (visit.submitted(upload::NUMBER).unwrap_or_default(), visit.submitted("mode").unwrap_or_default());
    let mut body = if visit.submitted("keep").is_some() {
        settings_of(activation(&before, "enforce").or_else(|| activation(&before, "shadow")))
    } else {
        submitted_settings(visit)
    };
    (body["version"], body["mode"]) = (number(version), json!(mode));
    let call = op("activate_plugin").at(name).body(&body).if_match(visit.submitted(form::VERSION));
    let after = visit.call(call).await?.data;
    let text = match mode {
        _ if is_in_force(&before, &body["version"], mode) => t.saved,
        "enforce" => t.enforced,
        _ => t.watched,
    };
    Ok(done(visit, name, fill(text, &[&version]), undo_of(&before, &after)))
}

async fn roll_back(visit: &Visit, name: &str) -> Result<View> {
    let t = PluginActs::of(visit.language);
    let before = visit.call(op("get_plugin").at(name)).await?.data;
    let after = visit.call(op("roll_back_plugin").at(name).if_match(visit.submitted(form::VERSION))).await?.data;
    let version = activation(&after, "enforce").map(|one| one["version"].to_string()).unwrap_or_default();
    Ok(done(visit, name, fill(t.rolled_back, &[&version]), undo_of(&before, &after)))
}

async fn deactivate(visit: &Visit, name: &str) -> Result<View> {
    let t = PluginActs::of(visit.language);
    let before = visit.call(op("get_plugin").at(name)).await?.data;
    let after = visit.call(op("deactivate_plugin").at(name).if_match(visit.submitted(form::VERSION))).await?.data;
    Ok(done(visit, name, fill(t.deactivated, &[&name]), undo_of(&before, &after)))
}

/// Back to the page, with the undo if the visitor may perform it and it fits into its cookie.
fn done(visit: &Visit, name: &str, text: String, undo: Option<Undo>) -> View {
    let to = address(visit, &encoded(name));
    let mut notice = Notice::new(text);
    if let Some(Undo { first, activations }) = undo {
        let former = Value::Array(activations).to_string();
        let may_first = match first {
            First::Nothing => true,
            First::RollBack => visit.may("roll_back_plugin"),
            First::Deactivate => visit.may("deactivate_plugin"),
        };
        let may_rest = former == "[]" || visit.may("activate_plugin");
        if may_first && may_rest && former.len() <= UNDO_BYTES_MAX {
            let fields = [("act", "restore"), ("first", first.as_str()), ("activations", former.as_str())];
            notice = notice.with_undo(to.clone(), &fields);
        }
    }
    View::Redirect(to, Some(notice))
}

// ── undo ──

/// What happens before former activations are made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Nothing,
    RollBack,
    Deactivate,
}

impl First {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::RollBack => "roll_back",
            Self::Deactivate => "deactivate",
        }
    }
}

/// What makes a plugin as it was.
#[derive(Debug, PartialEq)]
struct Undo {
    first: First,
    activations: Vec<Value>,
}

/// The body that makes an activation again.
fn body_of(one: &Value) -> Value {
    let mut body = settings_of(Some(one));
    (body["version"], body["mode"]) = (one["version"].clone(), one["mode"].clone());
    body
}

/// What leads from one state back to another; `None` if nothing changed, or nothing leads back without loss.
fn undo_of(before: &Value, after: &Value) -> Option<Undo> {
    let of = |plugin: &Value, mode: &str| activation(plugin, mode).map(body_of);
    let [(enforced, enforced_now), (watched, watched_now)] =
        ["enforce", "shadow"].map(|mode| (of(before, mode), of(after, mode)));
    let lost: Vec<Value> = [(&enforced, &enforced_now), (&watched, &watched_now)]
        .into_iter()
        .filter(|(was, is)| was != is)
        .filter_map(|(was, _)| was.clone())
        .collect();
    let is_new = (enforced.is_none() && enforced_now.is_some(), watched.is_none() && watched_now.is_some());
    let kept = each(after, "history").last().map(settings_with_version);
    let is_kept =
        enforced.is_some() && enforced != enforced_now && kept == enforced.as_ref().map(settings_with_version);
    match is_new {
        // The former activation is the last of the history.
        (false, false) if is_kept => {
            let rest = lost.into_iter().filter(|one| one["mode"] == "shadow").collect();
            Some(Undo { first: First::RollBack, activations: rest })
        }
        (false, false) if lost.is_empty() => None,
        (false, false) => Some(Undo { first: First::Nothing, activations: lost }),
        // Nothing was enforced, so nothing is lost by a deactivation.
        _ if enforced.is_none() => Some(Undo { first: First::Deactivate, activations: watched.into_iter().collect() }),
        _ => None,
    }
}

fn settings_with_version(one: &Value) -> Value {
    let mut body = settings_of(Some(one));
    body["version"] = one["version"].clone();
    body
}

/// Makes a plugin as it was before.
async fn restore(visit: &Visit, name: &str) -> Result<View> {
    let sent: Vec<Value> = serde_json::from_str(visit.submitted("activations").unwrap_or("[]"))
        .map_err(|_| Error::from(ErrorCode::BadInput))?;
    match visit.submitted("first") {
        Some("roll_back") => drop(visit.call(op("roll_back_plugin").at(name)).await?),
        Some("deactivate") => drop(visit.call(op("deactivate_plugin").at(name)).await?),
        _ => {}
    }
    // One per mode.
    for one in sent.iter().take(2) {
        visit.call(op("activate_plugin").at(name).body(&body_of(one))).await?;
    }
    visit.done(address(visit, &encoded(name)), PluginActs::of(visit.language).restored)
}

// ── deletion ──

/// The question before a deletion, if the address or a refused deletion asks for it.
pub(super) fn confirm(shown: &Shown<'_>) -> Option<Markup> {
    let (visit, t) = (shown.visit, PluginActs::of(shown.visit.language));
    let asked = match shown.error {
        Some(_) => visit.submitted("act"),
        None => visit.query("confirm").filter(|_| visit.form.is_empty()),
    };
    let cancel_href = shown.href();
    let (title, what_goes, typed_label, sent) = match asked {
        Some("delete") => {
            let versions = each(&shown.plugin, "versions").len();
            let goes = vec![fill(t.delete_goes, &[&versions]), t.delete_stays.to_owned(), t.delete_final.to_owned()];
            let sent = html! { (hidden_input("act", "delete")) };
            (fill(t.delete_title, &[&shown.name]), goes, Some(fill(t.delete_typed, &[&shown.name])), sent)
        }
        Some("version") => {
            let version = visit.query("version").or_else(|| visit.submitted(upload::NUMBER))?;
            let goes = vec![fill(t.version_goes, &[&version]), t.delete_final.to_owned()];
            let sent = html! { (hidden_input("act", "version")) (hidden_input(upload::NUMBER, version)) };
            (fill(Plugin::of(visit.language).delete_version, &[&version]), goes, None, sent)
        }
        _ => return None,
    };
    let typed = typed_label.as_deref().map(|label| Typed { name: "typed", label, must_equal: shown.name });
    let is_active = typed.is_some() && !each(&shown.plugin, "activations").is_empty();
    Some(html! {
        @if let Some(error) = shown.error { (upload::refusal(visit, error, shown.name)) }
        @if is_active { (components::notice(components::Tone::Warn, t.in_force, None)) }
        (confirm_box(&Confirm {
            title: &title,
            action: &cancel_href,
            what_goes: &what_goes,
            typed,
            sent: Some(html! { (sent) (version_field(shown)) }),
            submit: Plugin::of(visit.language).delete,
            cancel: visit.frame().cancel,
            cancel_href: &cancel_href,
        }))
    })
}

async fn delete(visit: &Visit, name: &str) -> Result<View> {
    let t = PluginActs::of(visit.language);
    if visit.submitted("typed") != Some(name) {
        return Err(Error::new(ErrorCode::BadInput).with_message(t.delete_not_typed));
    }
    visit.call(op("delete_plugin").at(name).if_match(visit.submitted(form::VERSION))).await?;
    visit.done(visit.of_organization("plugins"), fill(t.deleted, &[&name]))
}

async fn delete_version(visit: &Visit, name: &str) -> Result<View> {
    let t = PluginActs::of(visit.language);
    let version = visit.submitted(upload::NUMBER).unwrap_or_default();
    let call = op("delete_plugin_version").at(name).at(version).if_match(visit.submitted(form::VERSION));
    visit.call(call).await?;
    visit.done(address(visit, &encoded(name)), fill(t.version_deleted, &[&version]))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{First, Undo, body_of, undo_of};

    fn active(mode: &str, version: u32) -> Value {
        json!({"version": version, "mode": mode, "may_grant": false, "since": 7, "filter": {"permissions": [], "routes": [], "modules": []}})
    }

    fn plugin(activations: &[Value], history: &[Value]) -> Value {
        json!({"activations": activations, "history": history})
    }

    #[test]
    fn an_undo_leads_back_without_loss_or_is_not_offered() {
        let [e1, e2, s2, s3] = [active("enforce", 1), active("enforce", 2), active("shadow", 2), active("shadow", 3)];
        let undo = |first, activations: &[&Value]| {
            Some(Undo { first, activations: activations.iter().map(|one| body_of(one)).collect() })
        };
        let state = |activations: &[&Value], history: &[&Value]| {
            let owned = |all: &[&Value]| all.iter().map(|one| (*one).clone()).collect::<Vec<_>>();
            plugin(&owned(activations), &owned(history))
        };
        for (what, before, after, expected) in [
            ("first enforced", state(&[], &[]), state(&[&e1], &[]), undo(First::Deactivate, &[])),
            ("watched, then enforced", state(&[&s2], &[]), state(&[&e2], &[]), undo(First::Deactivate, &[&s2])),
            ("another enforced", state(&[&e1], &[]), state(&[&e2], &[&e1]), undo(First::RollBack, &[])),
            ("the watched one enforced", state(&[&e1, &s2], &[]), state(&[&e2], &[&e1]), undo(First::RollBack, &[&s2])),
            ("rolled back", state(&[&e2], &[&e1]), state(&[&e1], &[]), undo(First::Nothing, &[&e2])),
            ("another watched", state(&[&e1, &s2], &[]), state(&[&e1, &s3], &[]), undo(First::Nothing, &[&s2])),
            ("deactivated", state(&[&e1, &s2], &[&e2]), state(&[], &[]), undo(First::Nothing, &[&e1, &s2])),
            ("one more watched", state(&[&e1], &[&e2]), state(&[&e1, &s3], &[&e2]), None),
            ("the same again", state(&[&e1], &[]), state(&[&e1], &[]), None),
        ] {
            assert_eq!(undo_of(&before, &after), expected, "{what}");
        }
    }
}
