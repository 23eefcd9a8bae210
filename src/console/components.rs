//! Visual parts of the console's pages. Each is a function from values to markup; texts come in the reader's language.

mod fields;
mod icons;
mod tables;
mod verdicts;

use std::borrow::Cow;

use chrono::{DateTime, Datelike};
use maud::{Markup, html};

pub use fields::{
    Area, Choice, Field, Picker, Select, Text, TextKind, checkbox, choices_input, field, file_input, hidden_input,
    password_input, picker_input, select_input, text_field, text_input, textarea_input,
};
pub use icons::{Icon, icon};
pub use tables::{
    Bulk, Column, Menu, Order, Pager, PagerLabels, Row, RowSelect, bulk_bar, filter_bar, menu_act, menu_link, pager,
    region, search_field, table,
};
pub use verdicts::{Change, Confirm, GridCell, Held, Typed, confirm_box, difference, grid_cell, verdict};

/// How good or bad a state is. It chooses colour and icon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Ok,
    Warn,
    Bad,
}

impl Tone {
    /// The CSS class.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }

    /// The icon that says the same as the colour.
    pub const fn icon(self) -> Icon {
        match self {
            Self::Plain => Icon::Info,
            Self::Ok => Icon::Check,
            Self::Warn => Icon::Warning,
            Self::Bad => Icon::Cross,
        }
    }
}

/// A short state: a sign, which the style sheet draws, and a word.
pub fn badge(tone: Tone, text: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (text) } }
}

/// The share in percent, at most 100. More than nothing of nothing is full.
fn percent(used: u64, most: u64) -> u64 {
    if most == 0 {
        return if used == 0 { 0 } else { 100 };
    }
    let share = u128::from(used) * 100 / u128::from(most);
    u64::try_from(share.min(100)).unwrap_or(100)
}

/// How full something is: warns from 80 %, bad from 95 %.
pub fn fullness(used: u64, most: u64) -> Tone {
    match percent(used, most) {
        95.. => Tone::Bad,
        80.. => Tone::Warn,
        _ => Tone::Plain,
    }
}

/// A bar of what is used. `label` is for screen readers; `text` stands beside the bar. Without a limit there is no bar.
pub fn meter(label: &str, used_bytes: u64, most_bytes: Option<u64>, text: &str) -> Markup {
    let Some(most) = most_bytes else {
        return html! { span class="meter" { span class="visually-hidden" { (label) " " } span class="num" { (text) } } };
    };
    let (share, tone) = (percent(used_bytes, most), fullness(used_bytes, most));
    html! {
        span class={ "meter " (tone.class()) } {
            span class="meter-bar" role="meter" aria-label=(label) aria-valuenow=(share) aria-valuetext=(text) {
                svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                    rect class="fill" width=(share) height="8" {}
                }
            }
            span class="num" { (text) }
        }
    }
}

/// How far work is. Without a total there is no bar. `label` names it; `text` stands beside the bar.
pub fn progress(label: &str, done: u64, total: Option<u64>, text: &str) -> Markup {
    let share = total.map(|total| if total == 0 { 100 } else { percent(done, total) });
    html! {
        p class="meter" {
            span { (label) }
            @if let Some(share) = share {
                span class="meter-bar" role="progressbar" aria-label=(label) aria-valuemin="0" aria-valuemax="100" aria-valuenow=(share) aria-valuetext=(text) {
                    svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                        rect class="fill" width=(share) height="8" {}
                    }
                }
            }
            span class="num" { (text) }
        }
    }
}

/// What just happened, or what needs attention. `undo` is a form with the inverse operation.
pub fn notice(tone: Tone, text: &str, undo: Option<Markup>) -> Markup {
    let role = if tone == Tone::Bad { "alert" } else { "status" };
    html! {
        div class={ "notice " (tone.class()) } role=(role) {
            (icon(tone.icon()))
            p { (text) }
            @if let Some(undo) = undo { div class="notice-undo" { (undo) } }
        }
    }
}

/// All faults of a form, as links to their fields. An empty field id makes plain text. The script gives it the focus.
pub fn faults_summary(title: &str, faults: &[(String, String)]) -> Markup {
    html! {
        @if !faults.is_empty() {
            div class="notice bad faults" role="alert" tabindex="-1" data-focus {
                (icon(Icon::Cross))
                div {
                    h2 { (title) }
                    ul {
                        @for (id, text) in faults {
                            li { @if id.is_empty() { (text) } @else { a href={ "#" (id) } { (text) } } }
                        }
                    }
                }
            }
        }
    }
}

/// Nothing to list: what this would be, and how to get the first.
pub fn empty(title: &str, text: &str, action: Option<Markup>) -> Markup {
    html! {
        div class="empty" {
            h2 { (title) }
            p { (text) }
            @if let Some(action) = action { div class="actions" { (action) } }
        }
    }
}

/// How much a button stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    Main,
    #[default]
    Plain,
    Danger,
    /// Without a border, for menus and rows.
    Quiet,
}

impl Kind {
    const fn class(self) -> &'static str {
        match self {
            Self::Main => "button main",
            Self::Plain => "button",
            Self::Danger => "button danger",
            Self::Quiet => "button quiet",
        }
    }
}

/// The main submit button of a form. There is one per form.
pub fn button(text: &str) -> Markup {
    submit(None, text, Kind::Main)
}

/// A submit button that is not the main one.
pub fn button_plain(text: &str) -> Markup {
    submit(None, text, Kind::Plain)
}

/// A submit button for what cannot be undone.
pub fn button_danger(text: &str) -> Markup {
    submit(None, text, Kind::Danger)
}

/// A submit button that sends its name and value.
pub fn button_named(name: &str, value: &str, text: &str, kind: Kind) -> Markup {
    submit(Some((name, value)), text, kind)
}

fn submit(sent: Option<(&str, &str)>, text: &str, kind: Kind) -> Markup {
    let (name, value) = sent.unzip();
    html! { button type="submit" class=(kind.class()) name=[name] value=[value] { (text) } }
}

/// A link that looks like a plain button.
pub fn link_button(href: &str, text: &str) -> Markup {
    link_button_of(href, text, Kind::Plain, None)
}

/// A link that looks like a button of this kind, with an icon before its text.
pub fn link_button_of(href: &str, text: &str, kind: Kind, shape: Option<Icon>) -> Markup {
    html! { a class=(kind.class()) href=(href) { @if let Some(shape) = shape { (icon(shape)) } (text) } }
}

/// Buttons and links side by side.
pub fn actions(inner: Markup) -> Markup {
    html! { div class="actions" { (inner) } }
}

/// One of several pages about the same thing.
#[derive(Debug, Clone)]
pub struct Tab<'t> {
    pub href: String,
    pub text: &'t str,
    pub is_current: bool,
}

/// Links to the pages about the same thing. `label` names the navigation for screen readers.
pub fn tabs(label: &str, tabs: &[Tab<'_>]) -> Markup {
    html! {
        nav class="tabs" aria-label=(label) {
            ul {
                @for tab in tabs {
                    li { a href=(tab.href) aria-current=[tab.is_current.then_some("page")] { (tab.text) } }
                }
            }
        }
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Done,
    /// The one that runs, or that the reader is at.
    Current,
    Failed,
    /// Not begun.
    Waiting,
    /// Not asked, because an earlier one ended it.
    Skipped,
}

impl State {
    const fn class(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Current => "current",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Skipped => "skipped",
        }
    }

    const fn icon(self) -> Icon {
        match self {
            Self::Done => Icon::Check,
            Self::Current => Icon::Dot,
            Self::Failed => Icon::Cross,
            Self::Waiting => Icon::Ring,
            Self::Skipped => Icon::Minus,
        }
    }
}

/// A step of a rail.
#[derive(Debug, Clone)]
pub struct Step<'s> {
    pub text: &'s str,
    pub state: State,
    /// The state in words, for screen readers: "done", "failed".
    pub state_text: &'s str,
    /// A short remark below: "120 ms", "no_permission".
    pub note: Option<String>,
    pub href: Option<String>,
}

/// Steps in order: of a set-up, an upload, or a decision.
pub fn rail(steps: &[Step<'_>]) -> Markup {
    html! {
        ol class="rail" {
            @for step in steps {
                li class=(step.state.class()) aria-current=[(step.state == State::Current).then_some("step")] {
                    (icon(step.state.icon()))
                    span {
                        @if let Some(href) = &step.href { a href=(href) { (step.text) } } @else { (step.text) }
                        span class="visually-hidden" { ": " (step.state_text) }
                        @if let Some(note) = &step.note { small { (note) } }
                    }
                }
            }
        }
    }
}

/// The most characters of a text in a row of a list, if it comes from a file or from elsewhere.
const SHORTENED_CHARACTERS_MAX: usize = 160;

/// The beginning of a text for a row of a list.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHORTENED_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Names and values.
pub fn facts<S: AsRef<str>>(rows: &[(S, Markup)]) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in rows { div { dt { (name.as_ref()) } dd { (value) } } }
        }
    }
}

/// A titled box. An empty title leaves the heading out.
pub fn card(title: &str, body: Markup) -> Markup {
    html! {
        section class="card" {
            @if !title.is_empty() { h2 { (title) } }
            (body)
        }
    }
}

/// Boxes side by side, as many as fit.
pub fn tiles(inner: Markup) -> Markup {
    html! { div class="tiles" { (inner) } }
}

/// A box with one figure. `below` is a meter, a chart or a link.
pub fn tile(label: &str, figure: &str, below: Markup) -> Markup {
    html! {
        section class="tile" {
            h2 { (label) }
            p class="figure" { (figure) }
            (below)
        }
    }
}

/// Text in code style with a button that copies it.
pub fn copyable(text: &str, copy_label: &str, done_label: &str) -> Markup {
    html! {
        span class="copyable" {
            code { (text) }
            button type="button" class="button quiet" data-copy aria-label=(copy_label) title=(copy_label) data-done=(done_label) {
                (icon(Icon::Copy))
            }
        }
    }
}

/// A command or several lines, with a button that copies them.
pub fn copyable_block(text: &str, copy_label: &str, done_label: &str) -> Markup {
    html! {
        div class="copyable block" {
            pre tabindex="0" { code { (text) } }
            button type="button" class="button" data-copy data-done=(done_label) { (icon(Icon::Copy)) span { (copy_label) } }
        }
    }
}

/// A secret that is shown only in this answer.
pub fn secret_once(text: &str, explanation: &str, copy_label: &str, done_label: &str) -> Markup {
    html! {
        div class="secret" {
            p { (icon(Icon::Key)) (explanation) }
            (copyable_block(text, copy_label, done_label))
        }
    }
}

fn moment(ms: i64, kind: &str) -> Markup {
    // Browsers read years of four digits only.
    let at = DateTime::from_timestamp_millis(ms).filter(|at| (0..=9_999).contains(&at.year()));
    let Some(at) = at else { return html! { (ms) } };
    html! {
        time datetime=(at.format("%Y-%m-%dT%H:%M:%SZ")) data-local-time=(kind) { (at.format("%Y-%m-%d %H:%M")) " UTC" }
    }
}

/// A moment in Unix milliseconds: in UTC, and by the script in the reader's time zone.
pub fn time(ms: i64) -> Markup {
    moment(ms, "full")
}

/// The same, but the script shows how long ago or ahead it is.
pub fn time_ago(ms: i64) -> Markup {
    moment(ms, "ago")
}

/// An optional moment; `never` if there is none.
pub fn time_or(ms: Option<i64>, never: &str) -> Markup {
    ms.map_or_else(|| html! { span class="quiet" { (never) } }, time_ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_warn_before_they_are_full() {
        for (used, most, share, tone) in [
            (0, 0, 0, Tone::Plain),
            (1, 0, 100, Tone::Bad),
            (79, 100, 79, Tone::Plain),
            (80, 100, 80, Tone::Warn),
            (94, 100, 94, Tone::Warn),
            (95, 100, 95, Tone::Bad),
            (500, 100, 100, Tone::Bad),
            (u64::MAX, u64::MAX, 100, Tone::Bad),
        ] {
            assert_eq!((percent(used, most), fullness(used, most)), (share, tone), "{used} of {most}");
        }
    }

    #[test]
    fn texts_have_as_many_characters_as_the_limit_and_not_one_more() {
        let most = "許".repeat(SHORTENED_CHARACTERS_MAX);
        assert_eq!(shortened(&most), most);
        assert_eq!(shortened(&format!("{most}x")), format!("{most}…"));
    }

    #[test]
    fn times_are_written_for_people_and_programs() {
        assert_eq!(
            time(1_796_013_000_000).into_string(),
            "<time datetime=\"2026-11-30T04:30:00Z\" data-local-time=\"full\">2026-11-30 04:30 UTC</time>"
        );
        assert_eq!(time(i64::MAX).into_string(), "9223372036854775807");
    }

    #[test]
    fn texts_are_escaped() {
        let text = "<img src=x onerror=\"a\">";
        for markup in [
            badge(Tone::Bad, text),
            notice(Tone::Ok, text, None),
            faults_summary(text, &[(text.to_owned(), text.to_owned())]),
            meter(text, 1, Some(2), text),
            copyable(text, text, text),
            link_button(text, text),
        ] {
            let written = markup.into_string();
            assert!(!written.contains("<img") && !written.contains("\"a\""), "{written}");
        }
    }
}
