//! Reads import rows from CSV, as written by spreadsheet programs.
//!
//! The separator is detected from the header: comma, semicolon, tab or `|`. The encoding is UTF-8, the one of the byte
//! order mark, or the one that the caller names; it is never guessed, because a wrong guess would corrupt people's
//! names.

use encoding_rs::{Encoding, UTF_8};

use super::import::{COLUMNS, Row};
use crate::kernel::error::{Error, Field, Result};

/// Returns the encoding with this label, such as `big5`, `utf-16le` or `windows-1252`.
pub fn encoding(name: &str) -> Result<&'static Encoding> {
    let known = Encoding::for_label_no_replacement(name.trim().as_bytes());
    let message = "is not a known encoding: use utf-8, utf-16le, utf-16be, big5, gbk, gb18030, shift_jis, euc-kr, \
        windows-1252 or another label of the Encoding Standard";
    known.ok_or_else(|| Error::fields(vec![Field::at(&["header", "Content-Type", "charset"], message)]))
}

/// Reads a CSV file. `encoding` is the one that the caller names; a byte order mark takes precedence.
pub fn read_csv(bytes: &[u8], encoding: Option<&'static Encoding>, rows_max: u64) -> Result<Vec<Row>> {
    let text = decoded(bytes, encoding)?;
    let whole = &text;
    let (separator, text) = separator(whole);
    // A first line that only declares the separator.
    let skipped = u64::from(text.len() < whole.len());
    let mut records = records(text, separator)?.into_iter();
    let header = records.next().map(|(_, cells)| cells).unwrap_or_default();
    let columns = columns(&header)?;
    let filled: Vec<(u64, Vec<String>)> =
        records.filter(|(_, cells)| cells.iter().any(|cell| !cell.trim().is_empty())).collect();
    require_rows(filled.len(), rows_max)?;
    let row = |(n, (line, cells)): (usize, (u64, Vec<String>))| {
        let fault = fault(&columns, &cells);
        let named = columns.iter().copied().zip(cells.into_iter().map(Some));
        let row = Row::of(n + 1, named.filter_map(|(column, cell)| Some((column?, cell)))).with_fault(fault);
        row.at_line(line + skipped)
    };
    Ok(filled.into_iter().enumerate().map(row).collect())
}

/// Fails if there are more rows than an import accepts.
pub fn require_rows(rows: usize, rows_max: u64) -> Result<()> {
    let message = || format!("there are {rows} rows, and an import takes {rows_max} (limits.import_rows): split it");
    if rows as u64 <= rows_max { Ok(()) } else { Err(Error::field("body", message())) }
}

fn decoded(bytes: &[u8], encoding: Option<&'static Encoding>) -> Result<String> {
    let marked = Encoding::for_bom(bytes);
    let mark_bytes = marked.map_or(0, |(_, length)| length);
    let encoding_used = marked.map(|(encoding, _)| encoding).or(encoding).unwrap_or(UTF_8);
    let (text, is_broken) = encoding_used.decode_without_bom_handling(&bytes[mark_bytes..]);
    let is_declared = marked.is_some() || encoding.is_some();
    // ASCII text in UTF-16 without a byte order mark is also valid UTF-8, but contains NUL.
    match (is_broken || text.contains('\0'), is_declared) {
        (false, _) => Ok(text.into_owned()),
        (true, true) => Err(Error::field("body", format!("is not valid {}", encoding_used.name()))),
        (true, false) => {
            let message =
                "is not UTF-8: name the encoding, as in `--encoding big5` or `Content-Type: text/csv; charset=big5`";
            Err(Error::field("body", message))
        }
    }
}

/// Returns the separator, and the text without a leading `sep=;` line as written by Excel.
fn separator(text: &str) -> (u8, &str) {
    const ALL: [u8; 4] = [b',', b';', b'\t', b'|'];
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let Some([separator]) = first.trim_end_matches('\r').strip_prefix("sep=").map(str::as_bytes)
        && ALL.contains(separator)
    {
        return (*separator, rest);
    }
    let known = |separator: u8| first.split(char::from(separator)).filter(|name| column(name).is_some()).count();
    // The comma wins ties.
    (ALL.into_iter().rev().max_by_key(|separator| known(*separator)).unwrap_or(b','), text)
}

fn column(name: &str) -> Option<&'static str> {
    let name = name.trim().trim_matches('"').trim();
    COLUMNS.into_iter().find(|column| name.eq_ignore_ascii_case(column))
}

/// Parses the header. A column without a name is ignored as long as its cells are empty.
fn columns(header: &[String]) -> Result<Vec<Option<&'static str>>> {
    let mut faults = Vec::new();
    let mut columns: Vec<Option<&'static str>> = Vec::new();
    for name in header {
        let known = column(name);
        match known {
            Some(column) if columns.contains(&known) => faults.push(Field::body(column, "appears twice in the header")),
            None if !name.trim().is_empty() => {
                faults.push(Field::body(name.trim(), format!("is not a column: they are {}", COLUMNS.join(", "))));
            }
            _ => {}
        }
        columns.push(known);
    }
    if faults.is_empty() && !columns.contains(&Some("username")) {
        faults.push(Field::body("username", "is missing in the header, the first line"));
    }
    if faults.is_empty() { Ok(columns) } else { Err(Error::fields(faults)) }
}

/// Returns an error if a row has too few or too many cells. Empty cells without a column do not count.
fn fault(columns: &[Option<&str>], cells: &[String]) -> Option<&'static str> {
    let named = columns.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if cells.len() < named {
        return Some("has fewer cells than the header");
    }
    let has_no_column = |n: usize| columns.get(n).is_none_or(Option::is_none);
    let is_stray = cells.iter().enumerate().any(|(n, cell)| has_no_column(n) && !cell.trim().is_empty());
    is_stray.then_some("has a cell that no column of the header names")
}

/// Returns the cells of each record, with the line on which it starts.
fn records(text: &str, separator: u8) -> Result<Vec<(u64, Vec<String>)>> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(separator).has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = Vec::new();
    let (mut record, mut last_at, mut line) = (csv::StringRecord::new(), 0, 1);
    while reader.read_record(&mut record).map_err(|e| Error::field("body", format!("cannot be read: {e}")))? {
        let byte = record.position().map_or(0, |at| usize::try_from(at.byte()).unwrap_or_default());
        // The csv crate counts preceding line ends as part of a record.
        let rest = text.as_bytes().get(byte..).unwrap_or_default();
        let begin = byte + rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let between = text.as_bytes().get(last_at..begin).unwrap_or_default();
        line += between.iter().filter(|byte| **byte == b'\n').count() as u64;
        last_at = begin;
        records.push((line, record.iter().map(str::to_owned).collect()));
    }
    // The csv crate reads an unclosed quoted cell up to the end of the file, including all following rows.
    let is_open = text.get(last_at..).unwrap_or_default().matches('"').count() % 2 == 1;
    match records.last() {
        Some((line, _)) if is_open => Err(Error::field("body", format!("line {line}: a quote is never closed"))),
        _ => Ok(records),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<Vec<String>> {
        records(text, b',').expect("records").into_iter().map(|(_, cells)| cells).collect()
    }

    fn usernames(bytes: &[u8], encoding: Option<&'static Encoding>) -> Vec<String> {
        let rows = read_csv(bytes, encoding, 100).expect("rows");
        rows.iter().map(|row| row.username().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn cells_are_read_as_spreadsheet_programs_write_them() {
        let expected = vec![vec!["a", "b"], vec!["1, 2", "x \"y\"\nz"], vec!["", ""]];
        for text in ["a,b\n\"1, 2\",\"x \"\"y\"\"\nz\"\n,\n", "a,b\r\n\"1, 2\",\"x \"\"y\"\"\nz\"\r\n,"] {
            assert_eq!(cells(text), expected, "{text:?}");
        }
        assert_eq!(cells(""), Vec::<Vec<String>>::new());
        let open = records("a\nb,\"c\nd\ne", b',').expect_err("open");
        assert_eq!(open.fields[0].message, "line 2: a quote is never closed");
    }

    #[test]
    fn the_separator_is_detected_from_the_header() {
        for (text, expected) in [
            ("username,email\n", b','),
            ("username;email;display_name\n", b';'),
            ("username\temail\n", b'\t'),
            ("\"username\"|\"email\"\n", b'|'),
            ("username\n", b','),
            ("", b','),
            ("sep=;\r\nusername,email\n", b';'),
            ("sep=x\nusername\n", b','),
        ] {
            assert_eq!(separator(text).0, expected, "{text:?}");
        }
        assert_eq!(usernames(b"sep=;\r\nusername;email\r\nann;ann@example.org\r\n", None), ["ann"]);
    }

    #[test]
    fn a_file_is_read_in_the_declared_encoding() {
        let file = "username,display_name\nann,測試\n";
        let utf_16 = |is_big: bool, has_mark: bool| {
            let units = has_mark.then_some(0xfeff).into_iter().chain(file.encode_utf16());
            units.flat_map(|unit| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect::<Vec<u8>>()
        };
        let named = |name: &str| Some(encoding(name).expect(name));
        let big5 = encoding_rs::BIG5.encode(file).0.into_owned();
        for (bytes, said) in [
            (file.as_bytes().to_vec(), None),
            (format!("\u{feff}{file}").into_bytes(), None),
            (utf_16(false, true), None),
            (utf_16(true, true), None),
            (utf_16(true, true), named("big5")),
            (utf_16(false, false), named("utf-16le")),
            (utf_16(true, false), named("UTF-16BE")),
            (big5.clone(), named("Big5")),
        ] {
            let rows = read_csv(&bytes, said, 1).expect("rows");
            let row = Row::of(1, [("username", Some("ann".into())), ("display_name", Some("測試".into()))]);
            assert_eq!(rows[0], row.at_line(2));
        }
        for (bytes, said) in [(big5.clone(), None), (utf_16(false, false), None), (vec![0xff; 3], named("big5"))] {
            let refused = read_csv(&bytes, said, 1).expect_err("another encoding");
            assert_eq!(refused.fields[0].name(), "body");
        }
        for unknown in ["", "klingon", "iso-2022-kr", "replacement"] {
            assert!(encoding(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn empty_columns_without_a_name_are_ignored() {
        assert_eq!(usernames(b"username,email,\nann,ann@example.org,\n", None), ["ann"]);
        let columns = [Some("username"), None, Some("email"), None];
        let fault = |cells: &[&str]| fault(&columns, &cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
        for good in [&["a", "", "b"][..], &["a", "", "b", " "], &["a", "", "b", "", ""]] {
            assert_eq!(fault(good), None, "{good:?}");
        }
        assert!(fault(&["a"]).is_some_and(|why| why.contains("fewer")));
        for stray in [&["a", "x", "b"][..], &["a", "", "b", "x"], &["a", "", "b", "", "x"]] {
            assert!(fault(stray).is_some_and(|why| why.contains("no column")), "{stray:?}");
        }
    }

    #[test]
    fn a_file_is_limited_to_known_columns_and_the_maximum_number_of_rows() {
        let file = "\u{feff}Username,Email\nkim,kim@example.org\n\nlee,lee@example.org\n";
        let rows = read_csv(file.as_bytes(), None, 2).expect("rows");
        let read: Vec<_> = rows.iter().map(|row| (row.number, row.username())).collect();
        assert_eq!(read, [(1, Some("kim")), (2, Some("lee"))]);
        assert!(read_csv(file.as_bytes(), None, 1).is_err());
        for bad in [&b"username,api_key\nkim,x\n"[..], b"email\nkim@example.org\n", b"username\n\xff\n", b"", b",\n"] {
            assert!(read_csv(bad, None, 2).is_err(), "{bad:?}");
        }
    }
}
