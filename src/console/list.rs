//! Lists of operations on pages: the requested part, the pager below it, and columns that sort it. All of it is in the
//! address: `limit`, `offset`, `sort`.

use maud::{Markup, html};
use serde_json::Value;

use super::client::Call;
use super::components::{self, Column, Order, Pager, PagerLabels};
use super::i18n::fill;
use super::visit::Visit;

/// The numbers of rows per page to choose from.
const SIZES: [u64; 3] = [20, 50, 200];
const SIZE: u64 = 50;

/// The number of rows per page.
pub fn limit(visit: &Visit) -> u64 {
    visit.query("limit").and_then(|text| text.parse().ok()).filter(|size| SIZES.contains(size)).unwrap_or(SIZE)
}

/// The number of rows before the page.
pub fn offset(visit: &Visit) -> u64 {
    visit.query("offset").and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Adds the requested part of the list to a call.
pub fn paged(visit: &Visit, call: Call) -> Call {
    call.query("limit", limit(visit)).query("offset", offset(visit))
}

/// The rows of an answer.
pub fn items(data: &Value) -> &[Value] {
    data["items"].as_array().map_or(&[], Vec::as_slice)
}

/// Hidden fields that keep order and page size when a filter form is sent.
pub fn kept(visit: &Visit) -> Markup {
    html! {
        @for name in ["sort", "limit"] {
            @if let Some(value) = visit.query(name) { (components::hidden_input(name, value)) }
        }
    }
}

/// A column that sorts the list by this key. `default` is the order without `sort`.
pub fn sorted<'c>(visit: &Visit, title: &'c str, key: &str, default: &str) -> Column<'c> {
    let present = visit.query("sort").unwrap_or(default);
    let (order, next) = match present.strip_prefix('-') {
        Some(name) if name == key => (Order::Descending, key.to_owned()),
        None if present == key => (Order::Ascending, format!("-{key}")),
        _ => (Order::Unsorted, key.to_owned()),
    };
    let href = visit.with_query(&[("sort", &next), ("offset", "")]);
    Column { title, sort: Some((href, order)), is_number: false }
}

/// The links to the other pages of the list that `data` is a page of.
pub fn pager(visit: &Visit, data: &Value) -> Markup {
    let number = |name: &str| data[name].as_u64().unwrap_or(0);
    let (total, offset, limit) = (number("total"), number("offset"), number("limit").max(1));
    let count = items(data).len() as u64;
    if total == 0 && offset == 0 {
        return html! {};
    }
    let t = visit.frame();
    let at = |offset: u64| {
        let text = if offset == 0 { String::new() } else { offset.to_string() };
        visit.with_query(&[("offset", &text)])
    };
    let end = offset + count;
    let last = total.saturating_sub(1) / limit * limit;
    let size_of = |size: u64| {
        let href = visit.with_query(&[("limit", &size.to_string()), ("offset", "")]);
        (href, u32::try_from(size).unwrap_or(u32::MAX), size == limit)
    };
    let first_shown = if count == 0 { 0 } else { offset + 1 };
    components::pager(&Pager {
        label: t.pages,
        text: fill(t.of_many, &[&grouped(first_shown), &grouped(end), &grouped(total.max(end))]),
        first: (offset > 0).then(|| at(0)),
        previous: (offset > 0).then(|| at(offset.saturating_sub(limit))),
        next: (end < total).then(|| at(offset + limit)),
        last: (end < total && last > offset).then(|| at(last)),
        labels: PagerLabels { first: t.first, previous: t.previous, next: t.next, last: t.last },
        sizes: if total > SIZES[0] { SIZES.map(size_of).to_vec() } else { Vec::new() },
        sizes_label: t.rows,
    })
}

/// The links of a log that is read from the newest entry on: each page continues where the former one ended.
pub fn newest_and_older(visit: &Visit, label: &str, data: &Value) -> Markup {
    let t = visit.frame();
    let next = data["next"].as_str();
    let is_later = visit.query("after").is_some();
    html! {
        @if is_later || next.is_some() {
            nav.pager aria-label=(label) {
                div.pages {
                    @if is_later { a.button href=(visit.with_query(&[("after", "")])) { (t.newest) } }
                    @if let Some(next) = next {
                        a.button rel="next" href=(visit.with_query(&[("after", next)])) { (t.older) }
                    }
                }
            }
        }
    }
}

/// A number with separators: `4,812`.
pub fn grouped(number: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn long_numbers_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (48_211, "48,211"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
    }
}
