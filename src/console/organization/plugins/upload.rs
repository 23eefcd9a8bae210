//! Uploads: the form, the refusal with its cure, and the result on the page of the task.

use maud::{Markup, html};
use serde_json::Value;

use super::{each, text};
use crate::console::client::{encoded, op};
use crate::console::components::{
    self, Column, Field, Icon, Kind, Row, Text, Tone, button, card, copyable_block, field, file_input, hidden_input,
    link_button, notice, table, text_field,
};
use crate::console::i18n::plugins::{self as texts, Plugin, Upload};
use crate::console::i18n::{Language, errors, fill};
use crate::console::layout;
use crate::console::visit::{View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

/// The name of the file field.
const FILE: &str = "component";
/// The field with the number of a version. `version` is the ETag of the plugin.
pub(super) const NUMBER: &str = "number";
/// The longest name of a plugin.
const NAME_CHARS_MAX: usize = 63;

/// The form. `name` is the plugin that gets a new version; without it the form has a field for it.
pub(super) fn form(visit: &Visit, name: Option<&str>, error: Option<&Error>) -> Markup {
    if !visit.may("upload_plugin") {
        return html! {};
    }
    let t = Upload::of(visit.language);
    let faults: Vec<String> = error
        .filter(|error| is_of_name(error))
        .map(|error| errors::sentence(error, visit.language))
        .into_iter()
        .collect();
    let file = Field::new(FILE, t.file).hint(t.drop);
    let about = Field::new("name", t.name).hint(t.name_about).mark(visit.frame().optional).faults(&faults);
    let typed = Text {
        name: "name",
        value: visit.submitted("name").unwrap_or_default(),
        maxlength: Some(63),
        pattern: Some("[a-z][a-z0-9\\-]*"),
        autocomplete: Some("off"),
        ..Text::default()
    };
    let inner = html! {
        form method="post" action=(visit.in_organization("plugins")) enctype="multipart/form-data" data-drop {
            (field(&file, file_input(&file, FILE, ".wasm,application/wasm", true)))
            @match name {
                Some(name) => (hidden_input("name", name)),
                None => (text_field(&about, &typed)),
            }
            div.buttons { (button(t.upload)) }
        }
    };
    card(if name.is_some() { t.more } else { t.title }, inner)
}

fn is_of_name(error: &Error) -> bool {
    error.code == ErrorCode::PluginName || error.fields.iter().any(|field| field.name() == "name")
}

/// The name that the form gives, or that follows from the name of its file.
pub(super) fn name_of(visit: &Visit) -> String {
    match visit.submitted("name") {
        Some(name) => name.trim().to_owned(),
        None => visit.file(FILE).map(|file| named_like(&file.name)).unwrap_or_default(),
    }
}

/// A name for a plugin from the name of a file.
fn named_like(file: &str) -> String {
    let base = file.rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = base.strip_suffix(".wasm").unwrap_or(base);
    let stem = stem.strip_suffix(".component").unwrap_or(stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-');
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// Sends the component to the checks, and leads to the page that shows them.
pub(super) async fn start(visit: &Visit) -> Result<View> {
    if let Some(refused) = &visit.refused {
        return Err(refused.clone());
    }
    let t = Upload::of(visit.language);
    let file = visit.file(FILE).ok_or_else(|| Error::field(FILE, t.no_file))?;
    let call = op("upload_plugin").query("name", name_of(visit)).query("background", true);
    let answer = visit.call(call.file("application/wasm", file)).await?.data;
    Ok(match answer["id"].as_str() {
        Some(task) => View::Redirect(format!("/console/me/tasks/{task}"), None),
        None => {
            let (name, version) = (text(&answer, "name"), &answer["version"]);
            let address = visit.of_organization(&format!("plugins/{name}?version={version}"));
            return visit.done(address, fill(t.uploaded, &[&name, version]));
        }
    })
}

/// Why an upload or a change was refused, what to do about it, and a command to copy.
pub(super) fn refusal(visit: &Visit, error: &Error, name: &str) -> Markup {
    let faults: Vec<(String, String)> = error
        .fields
        .iter()
        .map(|field| {
            (String::new(), format!("{}: {}", field.name(), errors::field_message(&field.message, visit.language)))
        })
        .collect();
    html! {
        (refused(visit, error))
        (components::faults_summary(visit.frame().faults_title, &faults))
        (cure(visit, error, name, visit.organization().map_or("", |here| here.code.as_str())))
        (layout::details(visit, error))
    }
}

/// The sentence of a refusal. What only English says is marked as English.
fn refused(visit: &Visit, error: &Error) -> Markup {
    let chinese = texts::chinese_reason(error.message()).filter(|_| visit.language == Language::Chinese);
    html! {
        div class="notice bad" role="alert" {
            (components::icon(Icon::Cross))
            p { @if let Some(text) = chinese { (text) } @else { (errors::sentence_markup(error, visit.language)) } }
        }
    }
}

fn cure(visit: &Visit, error: &Error, name: &str, org_code: &str) -> Markup {
    let (t, frame) = (Upload::of(visit.language), visit.frame());
    let Some(cure) = texts::cure(error.code.as_str(), error.message(), visit.language) else { return html! {} };
    let name = if error.code == ErrorCode::PluginTooLarge { org_code } else { name };
    let name = if name.is_empty() { "hours" } else { name };
    card(
        t.cure,
        html! {
            p { (cure.text) }
            @if let Some(command) = cure.command {
                (copyable_block(&fill(command, &[&name, &name]), frame.copy, frame.copied))
            }
        },
    )
}

/// What the page of an upload's task shows after its end: the way on, or the cause with its cure.
pub fn task_result(visit: &Visit, task: &Value) -> Markup {
    let t = Upload::of(visit.language);
    let org_code = visit.code_of(text(task, "organization_id")).unwrap_or_default();
    let plugins = visit.href(&format!("/console/o/{org_code}/plugins"));
    let again = components::actions(link_button(&plugins, t.again));
    match text(task, "state") {
        "done" if task["result"].is_object() => done(visit, t, &plugins, &task["result"]),
        "failed" => {
            let word = text(&task["error"], "error_code");
            let code = ErrorCode::ALL.iter().find(|code| code.as_str() == word).copied();
            let error = Error::new(code.unwrap_or(ErrorCode::Internal));
            let message = text(&task["error"], "message").to_owned();
            let error = if message.is_empty() { error } else { error.with_message(message) };
            html! {
                (refused(visit, &error))
                (cure(visit, &error, "", &org_code))
                (again)
            }
        }
        "cancelled" => html! { p { (t.cancelled) } (again) },
        _ => html! {},
    }
}

fn done(visit: &Visit, t: &Upload, plugins: &str, uploaded: &Value) -> Markup {
    let (name, version) = (text(uploaded, "name"), &uploaded["version"]);
    let failed = each(&uploaded["report"], "vectors_failed");
    let page = format!("{plugins}/{}", encoded(name));
    let open = format!("{page}?version={version}");
    if !failed.is_empty() {
        return html! {
            (notice(Tone::Warn, &fill(t.failed_vectors, &[&name, version, &failed.len()]), None))
            (failed_vectors(visit, failed))
            (components::actions(html! { (link_button(plugins, t.again)) (link_button(&open, t.open)) }))
        };
    }
    html! {
        (notice(Tone::Ok, &fill(t.ready, &[&name, version]), None))
        p { (t.what_next) }
        (components::actions(html! {
            @if is_authorizer(uploaded) { (ask_past(visit, &page, version)) }
            (quick(visit, &page, version, &Value::Null))
            (link_button(&open, t.open))
        }))
    }
}

fn is_authorizer(version: &Value) -> bool {
    super::exports(version, "authorizer")
}

/// A button that asks past decisions. `page` is the address of the plugin, with the public path.
pub(super) fn ask_past(visit: &Visit, page: &str, version: &Value) -> Markup {
    let t = Plugin::of(visit.language);
    html! {
        form method="post" action={ (page) "/dry-run" } {
            (hidden_input("act", "past"))
            (hidden_input("version", &version.to_string()))
            (components::button_named("limit", "1000", t.ask_past, Kind::Main))
        }
    }
}

/// Buttons that activate a version with the settings of the activation before it, as far as it is not in force already.
/// `plugin` is null if it is not known.
pub(super) fn quick(visit: &Visit, page: &str, version: &Value, plugin: &Value) -> Markup {
    let t = Plugin::of(visit.language);
    if super::is_in_force(plugin, version, "enforce") {
        return html! {};
    }
    html! {
        form method="post" action=(page) title=(t.keep_about) {
            (hidden_input("act", "activate"))
            (hidden_input("keep", "true"))
            (hidden_input(NUMBER, &version.to_string()))
            @if !super::is_in_force(plugin, version, "shadow") {
                (components::button_named("mode", "shadow", &fill(t.watch, &[version]), Kind::Plain))
                " "
            }
            (components::button_named("mode", "enforce", &fill(t.enforce, &[version]), Kind::Plain))
        }
    }
}

/// The author's test vectors that a version fails.
pub(super) fn failed_vectors(visit: &Visit, failed: &[Value]) -> Markup {
    let t = Plugin::of(visit.language);
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |one: &Value| Row {
        cells: vec![
            html! { (text(one, "name")) },
            html! { code { (shown(&one["expected"])) } },
            html! { code { (shown(&one["got"])) } @if let Some(failure) = one["failure"].as_str() { " " (failure) } },
        ],
        ..Row::default()
    };
    let columns = [Column::new(t.vector), Column::new(t.expected), Column::new(t.got)];
    table(t.failed_vectors, &columns, failed.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::named_like;
    use crate::features::plugins::require_name;

    #[test]
    fn a_plugin_is_named_like_its_file() {
        for (file, name) in [
            ("business-hours.wasm", "business-hours"),
            ("C:\\Users\\kim\\Business Hours.wasm", "business-hours"),
            ("target/hours_v2.component.wasm", "hours-v2"),
            ("1st.wasm", "st"),
            ("停.wasm", ""),
            ("<b>.wasm", "b"),
            ("", ""),
        ] {
            assert_eq!(named_like(file), name, "{file}");
            assert!(name.is_empty() || require_name(name).is_ok());
        }
        assert_eq!(named_like(&"a".repeat(100)).len(), 63);
    }
}
