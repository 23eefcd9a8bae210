//! Parts about decisions and changes: the answer of a question, a cell of the grid, a difference, and a confirmation.

use maud::{Markup, html};

use super::icons::{Icon, icon};

/// The answer to "may …?": a large word, the reason as a sentence, and the reason's code.
pub fn verdict(is_yes: bool, word: &str, sentence: &str, code: Option<&str>) -> Markup {
    let (class, shape) = if is_yes { ("verdict yes", Icon::Check) } else { ("verdict no", Icon::Cross) };
    html! {
        div class=(class) role="status" {
            strong { (icon(shape)) (word) }
            p { (sentence) }
            @if let Some(code) = code { code { (code) } }
        }
    }
}

/// How a role stands to a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    No,
    Yes,
    /// Held, but it or an ancestor is closed.
    Asleep,
    /// Held for menus only, because something below is held.
    Implied,
}

/// A cell of the grid of permissions and roles.
#[derive(Debug, Clone, Copy)]
pub struct GridCell<'g> {
    /// The id of the role's form.
    pub form: &'g str,
    pub name: &'g str,
    pub value: &'g str,
    /// "video.delete for Editor", with the state in words if it is implied, asleep or locked.
    pub label: &'g str,
    pub held: Held,
    /// Not the reader's to give; the label says why.
    pub is_locked: bool,
    /// Whether it differs from what is saved.
    pub is_changed: bool,
}

/// A cell with a checkbox that also shows what is implied, asleep or locked.
pub fn grid_cell(cell: &GridCell<'_>) -> Markup {
    let class = match cell.held {
        Held::Yes | Held::No => "cell",
        Held::Asleep => "cell asleep",
        Held::Implied => "cell implied",
    };
    let is_on = matches!(cell.held, Held::Yes | Held::Asleep);
    html! {
        td class=[cell.is_changed.then_some("changed")] {
            input type="checkbox" class=(class) form=(cell.form) name=(cell.name) value=(cell.value) checked[is_on]
                disabled[cell.is_locked] aria-label=(cell.label);
        }
    }
}

/// A field that changes.
#[derive(Debug, Clone)]
pub struct Change {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Before and after, field by field. `labels` head the columns: field, before, after.
pub fn difference(caption: &str, labels: [&str; 3], changes: &[Change]) -> Markup {
    let [name, before, after] = labels;
    html! {
        div class="scroll" role="group" aria-label=(caption) tabindex="0" {
            table class="difference" {
                caption class="visually-hidden" { (caption) }
                thead { tr { th scope="col" { (name) } th scope="col" { (before) } th scope="col" { (after) } } }
                tbody {
                    @for change in changes {
                        tr {
                            th scope="row" { (change.name) }
                            td { @if let Some(before) = &change.before { del { (before) } } @else { span class="quiet" { "–" } } }
                            td { @if let Some(after) = &change.after { ins { (after) } } @else { span class="quiet" { "–" } } }
                        }
                    }
                }
            }
        }
    }
}

/// A name that must be typed before something irreversible.
#[derive(Debug, Clone, Copy)]
pub struct Typed<'t> {
    pub name: &'t str,
    pub label: &'t str,
    pub must_equal: &'t str,
}

/// What the reader confirms.
#[derive(Debug, Clone)]
pub struct Confirm<'c> {
    pub title: &'c str,
    pub action: &'c str,
    /// What goes, what stays, and what others notice; one sentence each.
    pub what_goes: &'c [String],
    pub typed: Option<Typed<'c>>,
    /// Hidden fields.
    pub sent: Option<Markup>,
    pub submit: &'c str,
    pub cancel: &'c str,
    pub cancel_href: &'c str,
}

/// A form that says what goes, and holds back until the name is typed.
pub fn confirm_box(confirm: &Confirm<'_>) -> Markup {
    html! {
        form class="card confirm" method="post" action=(confirm.action) {
            h2 { (icon(Icon::Warning)) (confirm.title) }
            ul { @for sentence in confirm.what_goes { li { (sentence) } } }
            @if let Some(sent) = &confirm.sent { (sent) }
            @if let Some(typed) = confirm.typed {
                div class="field" {
                    label for="confirm-typed" { (typed.label) }
                    input type="text" id="confirm-typed" name=(typed.name) required pattern=(literal_pattern(typed.must_equal))
                        autocomplete="off" autocapitalize="none" spellcheck="false";
                }
            }
            div class="actions" {
                button type="submit" class="button danger" { (confirm.submit) }
                a class="button" href=(confirm.cancel_href) { (confirm.cancel) }
            }
        }
    }
}

/// A pattern of HTML that matches exactly this text.
fn literal_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if "^$\\.*+?()[]{}|/".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_exactly_the_text() {
        for (text, pattern) in [
            ("kim", "kim"),
            ("kim@example.org", "kim@example\\.org"),
            ("a-b (c)|d/e", "a-b \\(c\\)\\|d\\/e"),
            ("會員", "會員"),
        ] {
            assert_eq!(literal_pattern(text), pattern);
        }
    }
}
