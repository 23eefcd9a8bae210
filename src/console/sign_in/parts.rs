//! Shared parts of these pages: forms with their faults.

use std::collections::HashSet;

use std::num::NonZeroU32;

use maud::{Markup, html};
use poem::http::{HeaderValue, StatusCode, header};

use super::words::Words;
use crate::console::components::{
    Field, Text, Tone, actions, button, faults_summary, field, hidden_input, notice, password_input, text_field,
};
use crate::console::i18n::{errors, fields, fill};
use crate::console::layout;
use crate::console::visit::{Content, View, Visit};
use crate::kernel::error::{Error, ErrorCode, Result};

/// Why a form is shown again.
#[derive(Debug, Default)]
pub(super) struct Faults {
    status: Option<u16>,
    /// Names of fields, and sentences.
    of_fields: Vec<(String, String)>,
    /// A sentence about the whole form.
    general: Option<String>,
    retry_after_s: Option<NonZeroU32>,
}

impl Faults {
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// The faults of a failed operation.
    pub(super) fn of(visit: &Visit, error: &Error) -> Self {
        let language = visit.language;
        let of_fields: Vec<(String, String)> = error
            .fields
            .iter()
            .map(|fault| {
                let name = fault.location.get(1).map_or_else(|| fault.name(), String::as_str);
                (name.to_owned(), errors::field_message(&fault.message, language))
            })
            .collect();
        let general = match error.retry_after_s {
            _ if !of_fields.is_empty() => None,
            Some(seconds) if error.code == ErrorCode::TooManyFailures => Some(too_many(visit, seconds.get())),
            _ => Some(errors::sentence(error, language)),
        };
        Self { status: Some(error.code.status()), of_fields, general, retry_after_s: error.retry_after_s }
    }

    /// One fault of a field.
    pub(super) fn field(name: &str, text: impl Into<String>) -> Self {
        Self { status: Some(400), of_fields: vec![(name.to_owned(), text.into())], ..Self::default() }
    }

    /// The sentence of a failed operation as the fault of this field.
    pub(super) fn of_field(visit: &Visit, error: &Error, name: &str) -> Self {
        let sentence = errors::sentence(error, visit.language);
        Self { status: Some(error.code.status()), ..Self::field(name, sentence) }
    }

    /// A sentence about the whole form, with the status of its page.
    pub(super) fn general(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status: Some(status.as_u16()), general: Some(text.into()), ..Self::default() }
    }

    /// Shows the faults of these properties at another field.
    #[must_use]
    pub(super) fn at(mut self, properties: &[&str], name: &str) -> Self {
        for (known, _) in &mut self.of_fields {
            if properties.contains(&known.as_str()) {
                name.clone_into(known);
            }
        }
        self
    }

    /// The same faults with one more sentence about the whole form.
    #[must_use]
    pub(super) fn and(self, text: &str) -> Self {
        Self { general: Some(text.to_owned()), ..self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of_fields.is_empty() && self.general.is_none()
    }

    /// Whether a field of this name is faulty.
    pub(super) fn has(&self, name: &str) -> bool {
        self.of_fields.iter().any(|(known, _)| known == name)
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.of_fields.iter().filter(|(known, _)| known == name).map(|(_, text)| text.clone()).collect()
    }
}

/// All faults, each of a field with a link to it.
pub(super) fn summary(visit: &Visit, faults: &Faults) -> Markup {
    let item = |(name, text): &(String, String)| (name.clone(), format!("{}: {text}", label(visit, name)));
    let items: Vec<(String, String)> = faults.of_fields.iter().map(item).collect();
    html! {
        @if let Some(text) = &faults.general { (notice(Tone::Bad, text, None)) }
        (faults_summary(visit.frame().faults_title, &items))
    }
}

/// Whether a failed sign-in is shown on the page of its form.
pub(super) fn is_shown_in_form(error: &Error) -> bool {
    matches!(error.code.status(), 400 | 401 | 409 | 429 | 502)
}

/// A failure with too many attempts, which tells when the next one is possible.
fn too_many(visit: &Visit, seconds: u32) -> String {
    let t = Words::of(visit.language);
    match seconds {
        0..=90 => fill(t.too_many_seconds, &[&seconds]),
        _ => fill(t.too_many_minutes, &[&seconds.div_ceil(60)]),
    }
}

fn label(visit: &Visit, name: &str) -> String {
    let t = Words::of(visit.language);
    match name {
        "login" => t.login.to_owned(),
        "password" | "new_password" => t.password.to_owned(),
        "again" => t.again.to_owned(),
        "code" => t.code.to_owned(),
        "display_name" => t.display_name.to_owned(),
        other => fields::label(other, visit.language),
    }
}

/// A line of text whose label belongs to its name.
pub(super) fn text(visit: &Visit, faults: &Faults, line: Text<'_>, hint: Option<&str>) -> Markup {
    let (label, texts) = (label(visit, line.name), faults.texts(line.name));
    let mut about = Field::new(line.name, &label).faults(&texts);
    if let Some(hint) = hint {
        about = about.hint(hint);
    }
    if !line.is_required {
        about = about.mark(visit.frame().optional);
    }
    text_field(&about, &line)
}

/// The present password.
pub(super) fn password(visit: &Visit, faults: &Faults) -> Markup {
    let (label, texts) = (label(visit, "password"), faults.texts("password"));
    let about = Field::new("password", &label).faults(&texts);
    field(&about, password_input(&about, "password", "current-password", None))
}

/// The two fields of a new password. It is entered twice, because it is not visible.
pub(super) fn new_password(visit: &Visit, faults: &Faults) -> Markup {
    const LENGTH_MIN: u32 = 8;
    let t = Words::of(visit.language);
    let (texts, repeated) = (faults.texts("password"), faults.texts("again"));
    let first = Field::new("password", t.new_password).hint(t.password_rule).faults(&texts);
    let second = Field::new("again", t.again).faults(&repeated);
    html! {
        (field(&first, password_input(&first, "password", "new-password", Some(LENGTH_MIN))))
        (field(&second, password_input(&second, "again", "new-password", Some(LENGTH_MIN))))
    }
}

/// The fault if the two fields of a new password differ.
pub(super) fn differing(visit: &Visit) -> Option<Faults> {
    let is_same = visit.submitted("password") == visit.submitted("again");
    (!is_same).then(|| Faults::field("again", Words::of(visit.language).differing))
}

/// A form that is sent to an address without the public path, with the summary of its faults.
pub(super) fn form(
    visit: &Visit,
    faults: &Faults,
    action: &str,
    hidden: &[(&str, &str)],
    inner: &Markup,
    submit: &str,
) -> Markup {
    html! {
        (summary(visit, faults))
        form method="post" action=(visit.href(action)) {
            @for (name, value) in hidden.iter().filter(|(_, value)| !value.is_empty()) { (hidden_input(name, value)) }
            (inner)
            (actions(button(submit)))
        }
    }
}

/// The page of a form. It has the status of its faults, and tells when to try again.
pub(super) fn page(visit: &Visit, faults: &Faults, title: &str, body: Markup) -> View {
    let status = faults.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    let content = Content { status, ..Content::new(title, body) };
    let Some(seconds) = faults.retry_after_s else { return content.into() };
    let mut response = layout::document(visit, &content);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.get()));
    View::Response(Box::new(response))
}

/// Fails with `BadInput` if a field was sent twice: it is not clear which one counts.
pub(super) fn require_single_fields(visit: &Visit) -> Result<()> {
    let mut names = HashSet::new();
    let is_single = visit.form.iter().all(|(name, _)| names.insert(name));
    if is_single { Ok(()) } else { Err(ErrorCode::BadInput.into()) }
}
