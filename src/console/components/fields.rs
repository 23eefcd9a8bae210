//! Form fields. A control and the texts around it are described by the same [`Field`], so that screen readers connect
//! them.

use maud::{Markup, html};

use super::icons::{Icon, icon};

/// The texts around a control.
#[derive(Debug, Clone, Copy, Default)]
pub struct Field<'f> {
    /// The id of the control; links of the faults' summary lead to it.
    pub id: &'f str,
    pub label: &'f str,
    pub hint: Option<&'f str>,
    pub faults: &'f [String],
    /// A word after the label: "optional".
    pub mark: Option<&'f str>,
}

impl<'f> Field<'f> {
    pub fn new(id: &'f str, label: &'f str) -> Self {
        Self { id, label, ..Self::default() }
    }

    #[must_use]
    pub fn hint(self, hint: &'f str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    #[must_use]
    pub fn mark(self, mark: &'f str) -> Self {
        Self { mark: Some(mark), ..self }
    }

    #[must_use]
    pub fn faults(self, faults: &'f [String]) -> Self {
        Self { faults, ..self }
    }

    /// The ids of the texts that describe the control, for `aria-describedby`.
    pub fn described_by(&self) -> Option<String> {
        let hint = self.hint.map(|_| format!("{}-hint", self.id));
        let fault = (!self.faults.is_empty()).then(|| format!("{}-fault", self.id));
        match (hint, fault) {
            (Some(hint), Some(fault)) => Some(format!("{hint} {fault}")),
            (hint, fault) => hint.or(fault),
        }
    }

    /// The value of `aria-invalid`.
    pub fn invalid(&self) -> Option<&'static str> {
        (!self.faults.is_empty()).then_some("true")
    }

    fn texts(&self) -> Markup {
        html! {
            @if let Some(hint) = self.hint { p class="hint" id={ (self.id) "-hint" } { (hint) } }
            @if !self.faults.is_empty() {
                div class="fault" id={ (self.id) "-fault" } {
                    @for fault in self.faults { p { (icon(Icon::Cross)) (fault) } }
                }
            }
        }
    }

    fn mark_text(&self) -> Markup {
        html! { @if let Some(mark) = self.mark { small { (mark) } } }
    }
}

/// Label, control, hint and faults. The control's `id` is the field's.
pub fn field(field: &Field<'_>, control: Markup) -> Markup {
    html! {
        div class={ "field" @if !field.faults.is_empty() { " invalid" } } {
            label for=(field.id) { (field.label) (field.mark_text()) }
            (control)
            (field.texts())
        }
    }
}

/// What a line of text is. It chooses the keyboard of a phone and what browsers check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextKind {
    #[default]
    Text,
    Email,
    Url,
    Search,
    Number,
    Date,
    DateTime,
    /// Six digits of a second factor.
    Code,
}

impl TextKind {
    const fn type_name(self) -> &'static str {
        match self {
            Self::Text | Self::Code => "text",
            Self::Email => "email",
            Self::Url => "url",
            Self::Search => "search",
            Self::Number => "number",
            Self::Date => "date",
            Self::DateTime => "datetime-local",
        }
    }
}

/// A line of text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text<'t> {
    pub name: &'t str,
    pub value: &'t str,
    pub kind: TextKind,
    pub is_required: bool,
    pub minlength: Option<u32>,
    pub maxlength: Option<u32>,
    pub min: Option<i64>,
    pub max: Option<i64>,
    pub pattern: Option<&'t str>,
    /// What the pattern asks for.
    pub title: Option<&'t str>,
    pub placeholder: Option<&'t str>,
    pub autocomplete: Option<&'t str>,
    pub is_focused: bool,
    pub is_readonly: bool,
}

/// A control for a line of text, without its label.
pub fn text_input(field: &Field<'_>, text: &Text<'_>) -> Markup {
    let is_code = text.kind == TextKind::Code;
    let is_plain = matches!(text.kind, TextKind::Email | TextKind::Url | TextKind::Code);
    html! {
        input type=(text.kind.type_name()) id=(field.id) name=(text.name) value=(text.value)
            class=[is_code.then_some("code")] inputmode=[is_code.then_some("numeric")]
            required[text.is_required] readonly[text.is_readonly] autofocus[text.is_focused]
            minlength=[text.minlength] maxlength=[text.maxlength] min=[text.min] max=[text.max]
            pattern=[text.pattern] title=[text.title] placeholder=[text.placeholder] autocomplete=[text.autocomplete]
            spellcheck=[is_plain.then_some("false")] autocapitalize=[is_plain.then_some("none")]
            aria-invalid=[field.invalid()] aria-describedby=[field.described_by()];
    }
}

/// A line of text with its label, hint and faults.
pub fn text_field(about: &Field<'_>, text: &Text<'_>) -> Markup {
    field(about, text_input(about, text))
}

/// A password. It is never filled in. `autocomplete` is `current-password` or `new-password`.
pub fn password_input(field: &Field<'_>, name: &str, autocomplete: &str, minlength: Option<u32>) -> Markup {
    html! {
        input type="password" id=(field.id) name=(name) required minlength=[minlength] maxlength="256"
            autocomplete=(autocomplete) aria-invalid=[field.invalid()] aria-describedby=[field.described_by()];
    }
}

/// One of several values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Select<'s> {
    pub name: &'s str,
    /// Values and their labels.
    pub options: &'s [(&'s str, &'s str)],
    pub chosen: &'s str,
    pub is_required: bool,
}

/// A drop-down list, without its label.
pub fn select_input(field: &Field<'_>, select: &Select<'_>) -> Markup {
    html! {
        select id=(field.id) name=(select.name) required[select.is_required]
            aria-invalid=[field.invalid()] aria-describedby=[field.described_by()] {
            @for (value, label) in select.options {
                option value=(value) selected[*value == select.chosen] { (label) }
            }
        }
    }
}

/// A checkbox with its label after it.
pub fn checkbox(field: &Field<'_>, name: &str, value: &str, is_on: bool) -> Markup {
    html! {
        div class={ "field" @if !field.faults.is_empty() { " invalid" } } {
            label class="check" {
                input type="checkbox" id=(field.id) name=(name) value=(value) checked[is_on]
                    aria-invalid=[field.invalid()] aria-describedby=[field.described_by()];
                span { (field.label) (field.mark_text()) }
            }
            (field.texts())
        }
    }
}

/// One choice of a group.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'c> {
    pub value: &'c str,
    pub label: &'c str,
    /// What it means.
    pub hint: Option<&'c str>,
    pub is_on: bool,
}

/// A group of radio buttons, or of checkboxes if `is_many`, with its label, hint and faults.
pub fn choices_input(field: &Field<'_>, name: &str, is_many: bool, choices: &[Choice<'_>]) -> Markup {
    let kind = if is_many { "checkbox" } else { "radio" };
    html! {
        fieldset class={ "field" @if !field.faults.is_empty() { " invalid" } } id=(field.id) tabindex="-1" aria-describedby=[field.described_by()] {
            legend { (field.label) (field.mark_text()) }
            @for choice in choices {
                label class="check" {
                    input type=(kind) name=(name) value=(choice.value) checked[choice.is_on];
                    span { (choice.label) @if let Some(hint) = choice.hint { small { (hint) } } }
                }
            }
            (field.texts())
        }
    }
}

/// Several lines of text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Area<'t> {
    pub name: &'t str,
    pub value: &'t str,
    pub rows: u32,
    pub is_required: bool,
    pub maxlength: Option<u32>,
    pub placeholder: Option<&'t str>,
    /// Whether it is code: a fixed-width font, no spelling.
    pub is_code: bool,
    pub is_readonly: bool,
}

/// A control for several lines of text, without its label.
pub fn textarea_input(field: &Field<'_>, area: &Area<'_>) -> Markup {
    html! {
        textarea id=(field.id) name=(area.name) rows=(area.rows.max(2)) class=[area.is_code.then_some("code")]
            required[area.is_required] readonly[area.is_readonly] maxlength=[area.maxlength] placeholder=[area.placeholder]
            spellcheck=[area.is_code.then_some("false")]
            aria-invalid=[field.invalid()] aria-describedby=[field.described_by()] { (area.value) }
    }
}

/// A file, chosen or dropped on the control. `accept` is like `.wasm`.
pub fn file_input(field: &Field<'_>, name: &str, accept: &str, is_required: bool) -> Markup {
    html! {
        input type="file" class="drop" id=(field.id) name=(name) accept=(accept) required[is_required]
            aria-invalid=[field.invalid()] aria-describedby=[field.described_by()];
    }
}

/// A thing that is found by typing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Picker<'p> {
    pub name: &'p str,
    pub value: &'p str,
    /// An address that answers `?q=` with `<option>` elements.
    pub from: &'p str,
    pub is_required: bool,
    pub placeholder: Option<&'p str>,
}

/// A line of text with suggestions. Without script it is a line of text.
pub fn picker_input(field: &Field<'_>, picker: &Picker<'_>) -> Markup {
    html! {
        input type="text" id=(field.id) name=(picker.name) value=(picker.value) list={ (field.id) "-list" }
            data-picker=(picker.from) autocomplete="off" spellcheck="false" required[picker.is_required]
            placeholder=[picker.placeholder] aria-invalid=[field.invalid()] aria-describedby=[field.described_by()];
        datalist id={ (field.id) "-list" } {}
    }
}

/// A value that the form sends along.
pub fn hidden_input(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_name_what_describes_them() {
        let faults = ["Too short.".to_owned()];
        let plain = Field::new("name", "Name");
        let hinted = plain.hint("As on the badge.");
        let cases = [
            (plain, None, None),
            (hinted, Some("name-hint"), None),
            (plain.faults(&faults), Some("name-fault"), Some("true")),
            (hinted.faults(&faults), Some("name-hint name-fault"), Some("true")),
        ];
        for (field, described_by, invalid) in cases {
            assert_eq!((field.described_by().as_deref(), field.invalid()), (described_by, invalid));
        }
    }

    #[test]
    fn a_field_is_label_control_hint_and_faults() {
        let faults = ["Too short.".to_owned()];
        let about = Field::new("code", "Code").faults(&faults);
        let select = Select { name: "code", options: &[("a", "A & B")], chosen: "a", is_required: true };
        let written = field(&about, select_input(&about, &select)).into_string();
        let cross = icon(Icon::Cross).into_string();
        assert_eq!(
            written,
            format!(
                "<div class=\"field invalid\"><label for=\"code\">Code</label><select id=\"code\" name=\"code\" required \
                 aria-invalid=\"true\" aria-describedby=\"code-fault\"><option value=\"a\" selected>A &amp; B</option>\
                 </select><div class=\"fault\" id=\"code-fault\"><p>{cross}Too short.</p></div></div>"
            )
        );
    }
}
