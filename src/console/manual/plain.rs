//! Renders the manual for terminals: wrapped text, without escape sequences.

use pulldown_cmark::{Event, Tag, TagEnd};

use super::{Page, events};

/// The minimum line length, also on narrower terminals.
const WIDTH_MIN: usize = 30;

/// Renders a page in lines of at most `width` characters. Code is not wrapped.
pub fn plain(page: &Page, width: usize) -> String {
    let mut writer = Writer { width: width.max(WIDTH_MIN), ..Writer::default() };
    for event in events(page) {
        writer.take(page, event);
    }
    writer.flush();
    format!("{}\n", writer.out.trim_end())
}

#[derive(Default)]
struct Writer {
    out: String,
    width: usize,
    /// Text of the current block.
    text: String,
    /// The next numbers of the open lists; `None` for bullet lists.
    lists: Vec<Option<u64>>,
    /// The marker to write before the next line, at the start of a list item.
    marker: Option<String>,
    is_code: bool,
    /// The URL to write after the text of the current link.
    address: Option<String>,
    table: Vec<Vec<String>>,
}

impl Writer {
    fn take(&mut self, page: &Page, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(page, tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text.push_str(&text),
            Event::Code(text) => self.text.push_str(&format!("`{text}`")),
            Event::SoftBreak | Event::HardBreak => self.text.push(' '),
            _ => {}
        }
    }

    fn start(&mut self, page: &Page, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::Heading { .. } => {
                self.flush();
                self.gap();
            }
            Tag::CodeBlock(_) => {
                self.flush();
                self.gap();
                self.is_code = true;
            }
            Tag::List(first) => {
                self.flush();
                if self.lists.is_empty() {
                    self.gap();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.flush();
                self.marker = Some(match self.lists.last_mut() {
                    Some(Some(n)) => {
                        *n += 1;
                        format!("{}. ", *n - 1)
                    }
                    _ => "- ".to_owned(),
                });
            }
            Tag::Table(_) => {
                self.flush();
                self.gap();
                self.table.clear();
            }
            Tag::TableHead | Tag::TableRow => self.table.push(Vec::new()),
            Tag::Link { dest_url, .. } => {
                let is_elsewhere = dest_url.contains("://") && page.target(&dest_url).is_none();
                self.address = is_elsewhere.then(|| dest_url.to_string());
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let line = if level as usize == 1 { "=" } else { "-" };
                let under = line.repeat(self.text.chars().count().min(self.width));
                let is_ruled = level as usize <= 2;
                self.flush();
                if is_ruled {
                    self.out.push_str(&format!("{under}\n"));
                }
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
            }
            TagEnd::CodeBlock => {
                self.is_code = false;
                let code = std::mem::take(&mut self.text);
                let indent = " ".repeat(self.indent() + 4);
                for line in code.lines() {
                    self.out.push_str(format!("{indent}{line}").trim_end());
                    self.out.push('\n');
                }
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.text);
                if let Some(row) = self.table.last_mut() {
                    row.push(cell.trim().to_owned());
                }
            }
            TagEnd::Table => self.table(),
            TagEnd::Link => {
                if let Some(address) = self.address.take()
                    && !self.text.ends_with(&address)
                {
                    self.text.push_str(&format!(" <{address}>"));
                }
            }
            _ => {}
        }
    }

    fn indent(&self) -> usize {
        self.lists.iter().map(|first| if first.is_some() { 3 } else { 2 }).sum()
    }

    /// Writes an empty line, unless the output ends with one.
    fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") && self.marker.is_none() {
            self.out.push('\n');
        }
    }

    /// Writes the text of the current block.
    fn flush(&mut self) {
        if self.is_code || self.text.trim().is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.text);
        let (rest, marker) = (self.indent(), self.marker.take().unwrap_or_default());
        let first = format!("{}{marker}", " ".repeat(rest.saturating_sub(marker.chars().count())));
        for (n, line) in wrapped(&text, self.width.saturating_sub(rest)).into_iter().enumerate() {
            let before = if n == 0 && !marker.is_empty() { first.clone() } else { " ".repeat(rest) };
            self.out.push_str(&format!("{before}{line}\n"));
        }
    }

    /// Writes a table in columns if they fit, else each row as its first cell with the other cells indented below.
    fn table(&mut self) {
        let rows = std::mem::take(&mut self.table);
        let indent = " ".repeat(self.indent());
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let longest = |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|n| longest(n).unwrap_or_default()).collect();
        if widths.iter().sum::<usize>() + 2 * columns + indent.len() <= self.width {
            for (n, row) in rows.iter().enumerate() {
                let line = |cells: Vec<String>| format!("{indent}{}", cells.join("  ")).trim_end().to_owned();
                let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
                self.out.push_str(&format!("{}\n", line(cells)));
                if n == 0 {
                    let rule = widths.iter().map(|width| "-".repeat(*width)).collect();
                    self.out.push_str(&format!("{}\n", line(rule)));
                }
            }
            return;
        }
        let names = rows.first().cloned().unwrap_or_default();
        for row in rows.iter().skip(1) {
            for (n, cell) in row.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
                let name = names.get(n).filter(|name| n > 1 && !name.is_empty());
                let cell = name.map_or_else(|| cell.clone(), |name| format!("{name}: {cell}"));
                let inner = if n == 0 { indent.clone() } else { format!("{indent}    ") };
                for line in wrapped(&cell, self.width.saturating_sub(inner.len())) {
                    self.out.push_str(&format!("{inner}{line}\n"));
                }
            }
        }
    }
}

/// Wraps text to lines of at most `width` characters. A longer word gets its own line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_wrapped_to_the_width() {
        let text = "# Name\n\n<!-- x -->\nSome *text* with `code`, a [page](b.md) and [one](https://example.org/a) elsewhere.\n\n\
                    - first item that is long enough\n- second\n  - inner\n\n1. one with a second line of text\n2. two\n\n```sh\nroster serve --with a-line-that-is-not-wrapped\n```\n\n\
                    | A | B |\n| --- | --- |\n| `x` | y |\n\n| Name | What it is | More |\n| --- | --- | --- |\n| `a.b` | a sentence of many words | 3 |\n";
        let page = Page { name: "x", file: "x.md", text };
        let wanted = "Name\n====\n\nSome text with `code`, a page\nand one <https://example.org/a>\nelsewhere.\n\n\
                      - first item that is long\n  enough\n- second\n  - inner\n\n1. one with a second line of\n   text\n2. two\n\n    roster serve --with a-line-that-is-not-wrapped\n\n\
                      A    B\n---  -\n`x`  y\n\n`a.b`\n    a sentence of many words\n    More: 3\n";
        assert_eq!(plain(&page, 31), wanted);
        assert_eq!(plain(&page, 1), plain(&page, WIDTH_MIN));
    }
}
