//! Charts, drawn as SVG: geometry in attributes, colour by class. A table with the same numbers belongs to each.

use maud::{Markup, html};

/// Width and height of the drawing; the style sheet stretches it.
const WIDTH: u64 = 1_000;
const HEIGHT: u64 = 100;

/// One series of numbers. It has as many as the chart has labels.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub values: Vec<u64>,
    /// The list that the numbers count.
    pub href: Option<String>,
}

/// Numbers over time, or by name.
#[derive(Debug, Clone)]
pub struct Chart<'c> {
    pub title: &'c str,
    /// The numbers in a sentence, for those who do not see the drawing.
    pub about: &'c str,
    /// What the labels are: "Day".
    pub label: &'c str,
    pub labels: Vec<String>,
    /// At most six.
    pub series: Vec<Series>,
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

impl Chart<'_> {
    /// The sum of all series at a label.
    fn total(&self, n: usize) -> u64 {
        self.series.iter().map(|series| value(series, n)).fold(0, u64::saturating_add)
    }
}

fn value(series: &Series, n: usize) -> u64 {
    series.values.get(n).copied().unwrap_or_default()
}

/// A column per label, with the series on top of each other.
pub fn columns(chart: &Chart<'_>) -> Markup {
    let count = chart.labels.len();
    let most = (0..count).map(|n| chart.total(n)).max().unwrap_or_default();
    let step = WIDTH / u64::try_from(count.max(1)).unwrap_or(WIDTH);
    let width = step - step / 5;
    let mut below = vec![0_u64; count];
    let paths: Vec<String> = chart
        .series
        .iter()
        .map(|series| {
            let mut path = String::new();
            for ((n, below), place) in below.iter_mut().enumerate().zip(0_u64..) {
                let from = length(*below, most, HEIGHT);
                *below = below.saturating_add(value(series, n));
                let to = length(*below, most, HEIGHT);
                if to > from {
                    let (x, y) = (place * step + step / 10, HEIGHT.saturating_sub(to));
                    path.push_str(&format!("M{x} {y}h{width}v{}h-{width}z", to - from));
                }
            }
            path
        })
        .collect();
    let drawn = html! {
        @for (n, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) { path class=(series_class(n)) d=(path) {} }
    };
    figure(chart, most, drawn, true)
}

/// The first series as a line over an area.
pub fn line(chart: &Chart<'_>) -> Markup {
    let Some(series) = chart.series.first() else { return html! {} };
    let most = series.values.iter().copied().max().unwrap_or_default();
    let last = u64::try_from(series.values.len().saturating_sub(1)).unwrap_or_default();
    let mut points = String::new();
    for (value, place) in series.values.iter().zip(0_u64..) {
        let y = HEIGHT.saturating_sub(length(*value, most, HEIGHT));
        points.push_str(&format!("{}{} {y}", if place == 0 { "M" } else { "L" }, length(place, last, WIDTH)));
    }
    let drawn = html! {
        path class="s1 area" d={ (points) "V" (HEIGHT) "H0z" } {}
        path class="s1 line" d=(points) {}
    };
    figure(chart, most, drawn, false)
}

/// The drawing with its title, its ends, the names of its series and its table. `is_sparse` leaves rows of zeros out.
fn figure(chart: &Chart<'_>, most: u64, drawn: Markup, is_sparse: bool) -> Markup {
    html! {
        figure class="chart" {
            figcaption class="visually-hidden" { (chart.title) }
            p class="chart-most num" aria-hidden="true" { ((chart.shown)(most)) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(chart.title) {
                title { (chart.title) }
                desc { (chart.about) }
                (drawn)
            }
            p class="chart-ends num" aria-hidden="true" {
                @if let [first, .., last] = chart.labels.as_slice() { span { (first) } span { (last) } }
            }
            (legend(chart.series.iter().map(|series| (series.name.as_str(), None, series.href.as_deref()))))
            (numbers(chart, is_sparse))
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
    /// The list that the value counts.
    pub href: Option<String>,
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
            (legend(parts.iter().map(|part| (part.name, Some(part.text.as_str()), part.href.as_deref()))))
        }
    }
}

/// Name, value and list of a series.
type Entry<'l> = (&'l str, Option<&'l str>, Option<&'l str>);

/// Names and colours. One series needs none, unless it leads to a list.
fn legend<'l>(entries: impl ExactSizeIterator<Item = Entry<'l>>) -> Markup {
    let entries: Vec<Entry<'_>> = entries.collect();
    let is_shown = entries.len() > 1 || entries.iter().any(|(.., href)| href.is_some());
    html! {
        @if is_shown {
            ul class="legend" {
                @for (n, (name, text, href)) in entries.into_iter().enumerate() {
                    li class=(series_class(n)) {
                        @if let Some(href) = href { a href=(href) { (name) } } @else { (name) }
                        @if let Some(text) = text { " " span class="num quiet" { (text) } }
                    }
                }
            }
        }
    }
}

fn numbers(chart: &Chart<'_>, is_sparse: bool) -> Markup {
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
                        @for (n, label) in chart.labels.iter().enumerate().filter(|(n, _)| !is_sparse || chart.total(*n) > 0) {
                            tr {
                                th scope="row" { (label) }
                                @for series in &chart.series {
                                    td class="num" { ((chart.shown)(value(series, n))) }
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
        let part = |name, value: u64| Part { name, value, text: value.to_string(), href: None };
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

    fn chart(series: &[&[u64]]) -> Chart<'static> {
        let named = |values: &&[u64]| Series { name: "a".into(), values: values.to_vec(), href: None };
        Chart {
            title: "Jobs",
            about: "3 in all",
            label: "Day",
            labels: series[0].iter().map(u64::to_string).collect(),
            series: series.iter().map(named).collect(),
            as_table: "As a table",
            shown: shown_count,
        }
    }

    fn paths(markup: &Markup) -> Vec<&str> {
        markup.0.split(" d=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn columns_stand_on_each_other_and_the_table_leaves_empty_rows_out() {
        let drawn = columns(&chart(&[&[1, 0, 4], &[3, 0, 0]]));
        assert_eq!(paths(&drawn), ["M33 75h267v25h-267zM699 0h267v100h-267z", "M33 0h267v75h-267z"]);
        assert_eq!(drawn.0.matches("<tr>").count(), 3);
    }

    #[test]
    fn a_line_goes_from_edge_to_edge() {
        let drawn = line(&chart(&[&[0, 50, 100]]));
        assert_eq!(paths(&drawn), ["M0 100L500 50L1000 0V100H0z", "M0 100L500 50L1000 0"]);
        assert_eq!(drawn.0.matches("<tr>").count(), 4);
    }
}
