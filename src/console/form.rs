//! Forms: fields drawn and read by the rules of an operation's request body.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::components::{self, Choice, Field as Around, Select, Text, TextKind};
use super::i18n::{errors, fields, scopes};
use super::schema::{FieldInfo, FieldKind, OperationInfo};
use super::visit::Visit;
use crate::kernel::error::{Error, Field, Result};

/// The hidden field with the `Idempotency-Key` of a creating form.
pub const ONCE: &str = "once";
/// The hidden field with the ETag of the object that a form edits.
pub const VERSION: &str = "version";

/// A form of one operation.
pub struct Form<'v> {
    visit: &'v Visit,
    operation: &'v OperationInfo,
    /// The values that the fields show.
    values: Value,
    error: Option<Error>,
    etag: Option<String>,
}

impl<'v> Form<'v> {
    /// A form for this operation. After a failed POST it shows what was submitted.
    pub fn new(visit: &'v Visit, operation: &str) -> Result<Self> {
        let operation = visit.operation(operation)?;
        let values = if visit.form.is_empty() { json!({}) } else { read(operation, visit) };
        Ok(Self { visit, operation, values, error: None, etag: None })
    }

    /// The present values of the object that the form edits, unless the form was submitted.
    #[must_use]
    pub fn values(mut self, values: &Value) -> Self {
        if self.visit.form.is_empty() {
            self.values = values.clone();
        }
        self
    }

    /// The present values, also when another form of the page was submitted.
    #[must_use]
    pub fn present(mut self, values: &Value) -> Self {
        self.values = values.clone();
        self
    }

    /// The ETag of the object that the form edits.
    #[must_use]
    pub fn version(mut self, etag: Option<&str>) -> Self {
        self.etag = etag.map(str::to_owned);
        self
    }

    /// The failure of the POST.
    #[must_use]
    pub fn error(mut self, error: Option<&Error>) -> Self {
        self.error = error.cloned();
        self
    }

    /// A control that follows from the type of the property.
    pub fn field(&self, name: &str) -> Markup {
        let Some(field) = self.operation.field(name) else { return html! {} };
        match &field.kind {
            FieldKind::Boolean => self.checkbox(name),
            FieldKind::Choice(values) => {
                let choices: Vec<(&str, String)> =
                    values.iter().map(|value| (value.as_str(), fields::value(value, self.visit.language))).collect();
                self.choice(name, &choices)
            }
            FieldKind::List(values) if !values.is_empty() => self.list(field, values),
            FieldKind::Integer | FieldKind::Number => self.text(name, "number"),
            _ => self.text(name, text_type(field)),
        }
    }

    /// A text field of this HTML type: `text`, `email`, `password`, `url`, `number`, `date`.
    pub fn text(&self, name: &str, html_type: &str) -> Markup {
        let Some(field) = self.operation.field(name) else { return html! {} };
        let shown = match &self.values[name] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let kind = match html_type {
            "email" => TextKind::Email,
            "url" => TextKind::Url,
            "number" => TextKind::Number,
            "date" => TextKind::Date,
            _ if name == "code" => TextKind::Code,
            _ => TextKind::Text,
        };
        let pattern = field.pattern.as_deref().and_then(browser_pattern);
        let length = |length: Option<u64>| length.and_then(|length| u32::try_from(length).ok());
        self.around(field, |around| match html_type {
            // Passwords are never shown again.
            "password" => components::password_input(around, name, fields::autocomplete(name, html_type), None),
            _ => components::text_input(
                around,
                &Text {
                    name,
                    value: &shown,
                    kind,
                    is_required: field.is_required,
                    minlength: length(field.length_min).filter(|_| field.is_required),
                    maxlength: length(field.length_max),
                    pattern: pattern.as_deref(),
                    // Browsers say it when the pattern does not match.
                    title: around.hint.filter(|_| pattern.is_some()),
                    autocomplete: Some(fields::autocomplete(name, html_type)),
                    ..Text::default()
                },
            ),
        })
    }

    /// A selection of these values, each with its text. A field that is not required can be empty.
    pub fn choice(&self, name: &str, choices: &[(&str, String)]) -> Markup {
        let Some(field) = self.operation.field(name) else { return html! {} };
        let chosen = self.values[name].as_str().unwrap_or_default();
        let mut options: Vec<(&str, &str)> = Vec::new();
        if !field.is_required {
            options.push(("", "—"));
        }
        options.extend(choices.iter().map(|(value, text)| (*value, text.as_str())));
        let select = Select { name, options: &options, chosen, is_required: field.is_required };
        self.around(field, |around| components::select_input(around, &select))
    }

    /// A checkbox.
    pub fn checkbox(&self, name: &str) -> Markup {
        let label = fields::label(name, self.visit.language);
        let faults = self.faults(name);
        html! {
            // An unchecked box sends nothing; this tells `read` that the form had the box.
            input type="hidden" name=(format!("{name}.shown")) value="1";
            (components::checkbox(&Around::new(name, &label).faults(&faults), name, "true", self.values[name] == true))
        }
    }

    /// A checkbox for each value of a list.
    fn list(&self, field: &FieldInfo, values: &[String]) -> Markup {
        let chosen =
            |value: &str| self.values[&field.name].as_array().is_some_and(|all| all.iter().any(|one| one == value));
        let label = fields::label(&field.name, self.visit.language);
        let labels: Vec<String> = values.iter().map(|value| fields::value(value, self.visit.language)).collect();
        let choices: Vec<Choice<'_>> = values
            .iter()
            .zip(&labels)
            .map(|(value, label)| Choice {
                value,
                label,
                hint: scopes::about(value, self.visit.language),
                is_on: chosen(value),
            })
            .collect();
        let faults = self.faults(&field.name);
        components::choices_input(&Around::new(&field.name, &label).faults(&faults), &field.name, true, &choices)
    }

    /// Label, control, explanation and faults of a field.
    fn around(&self, field: &FieldInfo, control: impl FnOnce(&Around<'_>) -> Markup) -> Markup {
        let label = fields::label(&field.name, self.visit.language);
        let (about, faults) = (self.about(field), self.faults(&field.name));
        let around = Around {
            id: &field.name,
            label: &label,
            hint: about.as_deref(),
            faults: &faults,
            mark: (!field.is_required).then_some(self.visit.frame().optional),
        };
        components::field(&around, control(&around))
    }

    /// The explanation of a field: a text of the console, or the description of the document in English.
    fn about(&self, field: &FieldInfo) -> Option<String> {
        fields::about(&field.name, &field.about, self.visit.language)
    }

    /// The faults of a field that a page draws by itself.
    pub fn faults(&self, name: &str) -> Vec<String> {
        let all = self.error.iter().flat_map(|error| &error.fields);
        let of_field = |field: &&Field| field.location.get(1).map_or_else(|| field.name(), String::as_str) == name;
        all.filter(of_field).map(|field| errors::field_message(&field.message, self.visit.language)).collect()
    }

    /// The whole form: a summary of faults, the hidden fields, `inner`, and the button. `action` is an address with the
    /// public path, such as `visit.here()`.
    pub fn wrap(&self, action: &str, inner: Markup, submit: &str) -> Markup {
        html! {
            (self.summary())
            form method="post" action=(action) data-guard {
                @if self.operation.method == "POST" {
                    input type="hidden" name=(ONCE) value=(self.once());
                }
                @if let Some(etag) = self.visit.submitted(VERSION).filter(|_| self.etag.is_none()).or(self.etag.as_deref()) {
                    input type="hidden" name=(VERSION) value=(etag);
                }
                (inner)
                div.buttons { (components::button(submit)) }
            }
        }
    }

    /// The failure of the POST, with links to the faulty fields.
    pub fn summary(&self) -> Markup {
        let Some(error) = &self.error else { return html! {} };
        let language = self.visit.language;
        let items: Vec<(String, String)> = error
            .fields
            .iter()
            .map(|field| {
                let name = field.location.get(1).cloned().unwrap_or_default();
                let message = errors::field_message(&field.message, language);
                (name.clone(), format!("{}: {message}", fields::label(&name, language)))
            })
            .collect();
        let t = self.visit.frame();
        html! {
            @if items.is_empty() { (components::notice(components::Tone::Bad, &errors::sentence(error, language), None)) }
            @else { (components::faults_summary(t.faults_title, &items)) }
            (super::layout::details(self.visit, error))
        }
    }

    /// The key of this form: kept when the form is shown again, so that sending it twice creates one thing.
    fn once(&self) -> String {
        self.visit.submitted(ONCE).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
    }
}

/// The HTML type of a text field, by the name of its property.
fn text_type(field: &FieldInfo) -> &'static str {
    match field.name.as_str() {
        "email" => "email",
        name if name.contains("password") => "password",
        _ => "text",
    }
}

/// The pattern as browsers check it: without the anchors that HTML implies, and with a hyphen at the end of a class
/// escaped. `None` for a pattern with features that browsers read otherwise.
fn browser_pattern(pattern: &str) -> Option<String> {
    let inner = pattern.strip_prefix('^')?.strip_suffix('$')?;
    (!inner.contains("\\x") && !inner.contains("(?")).then(|| inner.replace("-]", "\\-]"))
}

/// Reads the submitted fields as the body of the operation. Empty fields become null where null removes the value, and
/// are left out otherwise.
pub fn read(operation: &OperationInfo, visit: &Visit) -> Value {
    let mut body = Map::new();
    for field in &operation.fields {
        let name = field.name.as_str();
        let all: Vec<&str> = visit.submitted_all(name).collect();
        let value = match (&field.kind, all.as_slice()) {
            (FieldKind::Boolean, sent) => {
                let was_shown = !sent.is_empty() || visit.submitted(&format!("{name}.shown")).is_some();
                was_shown.then(|| json!(sent.contains(&"true")))
            }
            (FieldKind::List(_), sent) if !sent.is_empty() => {
                Some(json!(sent.iter().filter(|one| !one.is_empty()).collect::<Vec<_>>()))
            }
            (FieldKind::Other | FieldKind::List(_), _) | (_, []) => None,
            (_, ["", ..]) => field.is_nullable.then_some(Value::Null),
            (FieldKind::Integer, [text, ..]) => {
                Some(text.trim().parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)))
            }
            (FieldKind::Number, [text, ..]) => {
                Some(text.trim().parse::<f64>().map_or_else(|_| json!(text), |number| json!(number)))
            }
            (_, [text, ..]) => Some(json!(text)),
        };
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    Value::Object(body)
}
