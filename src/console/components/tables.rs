//! Lists: table, filters, pages, and acts on several rows. On a narrow screen each row is a card.

use maud::{Markup, html};

use super::icons::{Icon, icon};

/// How a column is sorted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// It can be sorted, and is not.
    #[default]
    Unsorted,
    Ascending,
    Descending,
}

/// A column of a table.
#[derive(Debug, Clone, Default)]
pub struct Column<'c> {
    pub title: &'c str,
    /// The address that sorts by it, and how it is sorted now.
    pub sort: Option<(String, Order)>,
    pub is_number: bool,
}

impl<'c> Column<'c> {
    /// A column that cannot be sorted.
    pub fn new(title: &'c str) -> Self {
        Self { title, ..Self::default() }
    }

    /// A column of numbers, aligned to the right.
    pub fn number(title: &'c str) -> Self {
        Self { title, is_number: true, ..Self::default() }
    }
}

/// The checkbox of a row.
#[derive(Debug, Clone)]
pub struct RowSelect {
    /// The id of the form it belongs to: `Bulk::form`.
    pub form: &'static str,
    pub name: &'static str,
    pub value: String,
    /// For screen readers: "Select Kim Lee".
    pub label: String,
}

/// The further acts of a row.
#[derive(Debug, Clone)]
pub struct Menu {
    /// For screen readers: "More about Kim Lee".
    pub label: String,
    /// Made of [`menu_link`], [`menu_act`], or forms with quiet buttons.
    pub items: Markup,
}

/// A link in a [`Menu`].
pub fn menu_link(href: &str, text: &str) -> Markup {
    html! { a href=(href) { (text) } }
}

/// A button in a [`Menu`] that submits this form, as `act`, with the value of its row.
pub fn menu_act(form: &str, act: &str, value: &str, text: &str) -> Markup {
    html! { button form=(form) name="act" value={ (act) " " (value) } { (text) } }
}

/// A row of a table. `href` makes the first cell a link that covers the row.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub cells: Vec<Markup>,
    pub href: Option<String>,
    pub select: Option<RowSelect>,
    pub menu: Option<Menu>,
}

/// A table. Roles are written out, because a table that is laid out as cards loses its own.
pub fn table(caption: &str, columns: &[Column<'_>], rows: Vec<Row>) -> Markup {
    let has_select = rows.iter().any(|row| row.select.is_some());
    let has_menu = rows.iter().any(|row| row.menu.is_some());
    // Keys scroll a table that holds nothing else to focus.
    let has_stop = has_select || has_menu || rows.iter().any(|row| row.href.is_some());
    html! {
        div class="scroll" role="group" aria-label=(caption) tabindex=[(!has_stop).then_some("0")] {
            table class="list" role="table" {
                caption class="visually-hidden" { (caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        @if has_select { td role="cell" class="select" {} }
                        @for column in columns { (heading(column)) }
                        @if has_menu { td role="cell" class="more" {} }
                    }
                }
                tbody role="rowgroup" {
                    @for row in rows { (row_of(row, columns, has_select, has_menu)) }
                }
            }
        }
    }
}

fn heading(column: &Column<'_>) -> Markup {
    let class = column.is_number.then_some("num");
    if column.title.is_empty() {
        return html! { td role="cell" class=[class] {} };
    }
    let Some((href, order)) = &column.sort else {
        return html! { th role="columnheader" scope="col" class=[class] { (column.title) } };
    };
    let (sorted, shape) = match order {
        Order::Unsorted => (None, Icon::Sort),
        Order::Ascending => (Some("ascending"), Icon::Up),
        Order::Descending => (Some("descending"), Icon::Down),
    };
    html! {
        th role="columnheader" scope="col" class=[class] aria-sort=[sorted] { a href=(href) { (column.title) (icon(shape)) } }
    }
}

fn row_of(row: Row, columns: &[Column<'_>], has_select: bool, has_menu: bool) -> Markup {
    let Row { cells, href, select, menu } = row;
    html! {
        tr role="row" {
            @if has_select {
                td role="cell" class="select" {
                    @if let Some(RowSelect { form, name, value, label }) = select {
                        input type="checkbox" form=(form) name=(name) value=(value) aria-label=(label);
                    }
                }
            }
            @for (n, cell) in cells.into_iter().enumerate() {
                @let column = columns.get(n);
                @let is_number = column.is_some_and(|column| column.is_number);
                td role="cell" class=[is_number.then_some("num")] data-label=[column.map(|column| column.title)] {
                    @if let (0, Some(href)) = (n, &href) { a class="row-link" href=(href) { (cell) } } @else { (cell) }
                }
            }
            @if has_menu {
                td role="cell" class="more" {
                    @if let Some(Menu { label, items }) = menu {
                        details class="menu" { summary aria-label=(label) {} div { (items) } }
                    }
                }
            }
        }
    }
}

/// The words on a pager's links.
#[derive(Debug, Clone, Copy)]
pub struct PagerLabels<'p> {
    pub first: &'p str,
    pub previous: &'p str,
    pub next: &'p str,
    pub last: &'p str,
}

/// Where a list stands.
#[derive(Debug, Clone)]
pub struct Pager<'p> {
    /// Names the navigation for screen readers.
    pub label: &'p str,
    /// "51–100 of 4,812"; the script announces it when the list changed.
    pub text: String,
    pub first: Option<String>,
    pub previous: Option<String>,
    pub next: Option<String>,
    pub last: Option<String>,
    pub labels: PagerLabels<'p>,
    /// Numbers of rows per page to choose from: address, number, whether it is the current one.
    pub sizes: Vec<(String, u32, bool)>,
    /// The word before them: "Rows".
    pub sizes_label: &'p str,
}

/// Links to the other pages of a list.
pub fn pager(pager: &Pager<'_>) -> Markup {
    let link = |href: &Option<String>, text: &str, rel: Option<&str>| {
        html! {
            @if let Some(href) = href { a class="button" href=(href) rel=[rel] { (text) } }
            @else { span class="button off" aria-hidden="true" { (text) } }
        }
    };
    let is_single = [&pager.first, &pager.previous, &pager.next, &pager.last].iter().all(|href| href.is_none());
    html! {
        nav class="pager" aria-label=(pager.label) {
            p class="num" data-announce { (pager.text) }
            @if !is_single {
                div class="pages" {
                    (link(&pager.first, pager.labels.first, None))
                    (link(&pager.previous, pager.labels.previous, Some("prev")))
                    (link(&pager.next, pager.labels.next, Some("next")))
                    (link(&pager.last, pager.labels.last, None))
                }
            }
            @if !pager.sizes.is_empty() {
                p class="sizes" {
                    (pager.sizes_label)
                    @for (href, size, is_current) in &pager.sizes {
                        a class="num" href=(href) aria-current=[is_current.then_some("true")] { (size) }
                    }
                }
            }
        }
    }
}

/// A form whose fields narrow a list down. With script it submits itself; `region` is the id of the part that then is
/// replaced without loading the page.
pub fn filter_bar(action: &str, region: Option<&str>, inner: Markup, submit_text: &str) -> Markup {
    html! {
        form class="filters" method="get" action=(action) role="search" data-autosubmit data-live=[region] {
            (inner)
            button type="submit" class="button" { (submit_text) }
        }
    }
}

/// The part of a page that changes while the reader types or waits. `poll_ms` asks again so often.
pub fn region(id: &str, poll_ms: Option<u32>, inner: Markup) -> Markup {
    html! { div id=(id) class="region" data-poll=[poll_ms] { (inner) } }
}

/// The search of a list; `/` gives it the focus.
pub fn search_field(name: &str, value: &str, label: &str) -> Markup {
    html! {
        label class="search" {
            span { (label) }
            span class="search-box" {
                (icon(Icon::Search))
                input type="search" name=(name) value=(value) maxlength="200" autocomplete="off" spellcheck="false" data-search;
            }
        }
    }
}

/// What can be done to the selected rows.
#[derive(Debug, Clone, Copy)]
pub struct Bulk<'b> {
    /// The id of the form; `RowSelect::form` names it.
    pub form: &'b str,
    pub action: &'b str,
    /// Without script: "With the selected".
    pub text: &'b str,
    /// With script; `{}` is the number: "{} selected".
    pub counted: &'b str,
    /// "All on this page".
    pub all: &'b str,
}

/// The form below a table that acts on the selected rows. It must not stand in another form.
pub fn bulk_bar(bulk: &Bulk<'_>, buttons: Markup) -> Markup {
    html! {
        form class="bulk" id=(bulk.form) method="post" action=(bulk.action) data-bulk=(bulk.counted) {
            label class="check needs-script" { input type="checkbox" data-all; (bulk.all) }
            p role="status" data-count { (bulk.text) }
            div class="actions" { (buttons) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_links_and_cells_name_their_column() {
        let columns = [
            Column::new("Name"),
            Column { sort: Some(("?sort=size".into(), Order::Descending)), ..Column::number("Size") },
        ];
        let row = Row { cells: vec![html! { "Kim" }, html! { "7" }], href: Some("/m/kim".into()), ..Row::default() };
        let down = icon(Icon::Down).into_string();
        assert_eq!(
            table("Members", &columns, vec![row]).into_string(),
            format!(
                "<div class=\"scroll\" role=\"group\" aria-label=\"Members\"><table class=\"list\" role=\"table\">\
                 <caption class=\"visually-hidden\">Members</caption><thead role=\"rowgroup\"><tr role=\"row\">\
                 <th role=\"columnheader\" scope=\"col\">Name</th><th role=\"columnheader\" scope=\"col\" class=\"num\" \
                 aria-sort=\"descending\"><a href=\"?sort=size\">Size{down}</a></th></tr></thead><tbody role=\"rowgroup\">\
                 <tr role=\"row\"><td role=\"cell\" data-label=\"Name\"><a class=\"row-link\" href=\"/m/kim\">Kim</a></td>\
                 <td role=\"cell\" class=\"num\" data-label=\"Size\">7</td></tr></tbody></table></div>"
            )
        );
    }
}
