//! Charts, drawn as SVG: geometry in attributes, colour by class. A table with the same numbers belongs to each.

use maud::{Markup, html};

/// Width and height of the drawing; the style sheet stretches it.
const WIDTH: u64 = 1_000;
const HEIGHT: u64 = 100;

/// One series of numbers. It has as many as the chart has labels.
#[derive(Debug, Clone)]
pub struct Series<'c> {
    pub name: &'c str,
    pub values: Vec<u64>,
}

/// Numbers over time, or by name.
#[derive(Debug, Clone)]
pub struct Chart<'c> {
    pub title: &'c str,
    /// What the labels are: "Day".
    pub label: &'c str,
    pub labels: Vec<String>,
    /// At most six.
    pub series: Vec<Series<'c>>,
    /// The summary of the table below: "As a table".
    pub as_table: &'c str,
    /// Formats a number.
    pub shown: fn(u64) -> String,
}

/// Formats a number with separators of thousands.
pub fn shown_count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The length for a value, if `most` has the length `of`.
fn length(value: u64, most: u64, of: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(of) / u128::from(most.max(1))).unwrap_or(of)
}

fn series_class(n: usize) -> String {
    format!("s{}", n % 6 + 1)
}

/// A column per label, with the series on top of each other.
pub fn columns(chart: &Chart<'_>) -> Markup {
    let count = chart.labels.len();
    let value = |series: &Series<'_>, n: usize| series.values.get(n).copied().unwrap_or_default();
    let total = |n: usize| chart.series.iter().map(|series| value(series, n)).fold(0, u64::saturating_add);
    let most = (0..count).map(total).max().unwrap_or_default();
    let step = WIDTH / u64::try_from(count.max(1)).unwrap_or(WIDTH);
    let boxes = (0..count).zip(0_u64..).flat_map(|(n, place)| {
        let mut below = 0_u64;
        chart.series.iter().enumerate().map(move |(of, series)| {
            let number = value(series, n);
            let (from, to) = (length(below, most, HEIGHT), length(below.saturating_add(number), most, HEIGHT));
            below = below.saturating_add(number);
            (n, of, number, place * step, HEIGHT.saturating_sub(to), to.saturating_sub(from))
        })
    });
    html! {
        figure class="chart" {
            figcaption class="visually-hidden" { (chart.title) }
            p class="chart-most num" aria-hidden="true" { ((chart.shown)(most)) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(chart.title) {
                @for (n, of, number, x, y, height) in boxes.filter(|(.., height)| *height > 0) {
                    rect class=(series_class(of)) x=(x + step / 10) y=(y) width=(step - step / 5) height=(height) {
                        title { (chart.labels[n]) " · " (chart.series[of].name) ": " ((chart.shown)(number)) }
                    }
                }
            }
            p class="chart-ends num" aria-hidden="true" {
                @if let [first, .., last] = chart.labels.as_slice() { span { (first) } span { (last) } }
            }
            (legend(chart.series.iter().map(|series| (series.name, None))))
            (numbers(chart))
        }
    }
}

/// A part of a whole.
#[derive(Debug, Clone)]
pub struct Part<'p> {
    pub name: &'p str,
    pub value: u64,
    /// The value for people: "1.2 TB", "98 %".
    pub text: String,
}

/// One bar that shows parts of a whole. `whole` is more than their sum where something is left; else pass their sum.
pub fn stacked_bar(title: &str, parts: &[Part<'_>], whole: u64) -> Markup {
    let sum = parts.iter().map(|part| part.value).fold(0, u64::saturating_add);
    let most = whole.max(sum);
    let mut before = 0_u64;
    let boxes = parts.iter().enumerate().map(|(n, part)| {
        let (from, to) = (length(before, most, WIDTH), length(before.saturating_add(part.value), most, WIDTH));
        before = before.saturating_add(part.value);
        (n, part, from, to.saturating_sub(from))
    });
    html! {
        figure class="chart bar" {
            figcaption class="visually-hidden" { (title) }
            svg viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" role="img" aria-label=(title) {
                @for (n, part, x, width) in boxes.filter(|(.., width)| *width > 0) {
                    rect class=(series_class(n)) x=(x) y="0" width=(width) height="10" { title { (part.name) ": " (part.text) } }
                }
            }
            (legend(parts.iter().map(|part| (part.name, Some(part.text.as_str())))))
        }
    }
}

/// Names and colours. One series needs none.
fn legend<'l>(entries: impl ExactSizeIterator<Item = (&'l str, Option<&'l str>)>) -> Markup {
    let is_shown = entries.len() > 1;
    html! {
        @if is_shown {
            ul class="legend" {
                @for (n, (name, text)) in entries.enumerate() {
                    li class=(series_class(n)) { (name) @if let Some(text) = text { " " span class="num quiet" { (text) } } }
                }
            }
        }
    }
}

fn numbers(chart: &Chart<'_>) -> Markup {
    html! {
        details class="report" {
            summary { (chart.as_table) }
            div class="scroll" role="group" aria-label=(chart.title) tabindex="0" {
                table {
                    caption class="visually-hidden" { (chart.title) }
                    thead {
                        tr {
                            th scope="col" { (chart.label) }
                            @for series in &chart.series { th scope="col" class="num" { (series.name) } }
                        }
                    }
                    tbody {
                        @for (n, label) in chart.labels.iter().enumerate() {
                            tr {
                                th scope="row" { (label) }
                                @for series in &chart.series {
                                    td class="num" { ((chart.shown)(series.values.get(n).copied().unwrap_or_default())) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_keep_within_the_drawing() {
        for (value, most, of, expected) in
            [(0, 0, 100, 0), (5, 10, 100, 50), (10, 10, 100, 100), (u64::MAX, u64::MAX, 1_000, 1_000), (1, 3, 100, 33)]
        {
            assert_eq!(length(value, most, of), expected, "{value} of {most}");
        }
    }

    #[test]
    fn counts_have_separators() {
        for (number, text) in [(0, "0"), (999, "999"), (4_812, "4,812"), (1_234_567, "1,234,567")] {
            assert_eq!(shown_count(number), text);
        }
    }

    #[test]
    fn parts_fill_their_share_of_the_bar() {
        let part = |name, value: u64| Part { name, value, text: value.to_string() };
        let written = stacked_bar("Decisions", &[part("allow", 3), part("none", 0), part("deny", 1)], 4).into_string();
        let rects: Vec<&str> = written.split("<rect ").skip(1).filter_map(|rest| rest.split('>').next()).collect();
        assert_eq!(
            rects,
            [
                "class=\"s1\" x=\"0\" y=\"0\" width=\"750\" height=\"10\"",
                "class=\"s3\" x=\"750\" y=\"0\" width=\"250\" height=\"10\""
            ]
        );
    }
}
