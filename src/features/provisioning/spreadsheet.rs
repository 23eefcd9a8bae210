//! Reads import rows from CSV, as written by spreadsheet programs.
//!
//! The separator is detected from the header: comma, semicolon, tab or `|`. The encoding is UTF-8, the one of the byte
//! order mark, or the one that the caller names; it is never guessed, because a wrong guess would corrupt people's
//! names.

use csv_core::ReadFieldResult;
use encoding_rs::{Encoding, UTF_8};

use super::import::{COLUMNS, Row, RowFault, cut};
use crate::kernel::error::{Error, Field, Result};

/// The most cells of a header.
const HEADER_CELLS_MAX: usize = 64;
/// The most cells that a row can have beyond those of the header. Spreadsheet programs write some empty ones.
const EXTRA_CELLS_MAX: usize = 16;
/// The most bytes of a cell.
pub const CELL_BYTES_MAX: usize = 4_096;

/// Returns the encoding with this label, such as `big5`, `utf-16le` or `windows-1252`.
pub fn encoding(name: &str) -> Result<&'static Encoding> {
    let known = Encoding::for_label_no_replacement(name.trim().as_bytes());
    let message = "is not a known encoding: use utf-8, utf-16le, utf-16be, big5, gbk, gb18030, shift_jis, euc-kr, \
        windows-1252 or another label of the Encoding Standard";
    known.ok_or_else(|| Error::fields(vec![Field::at(&["header", "Content-Type", "charset"], message)]))
}

/// Reads a CSV file. `encoding` is the one that the caller names; a byte order mark takes precedence. What exceeds a
/// limit is never kept.
pub fn read_csv(bytes: &[u8], encoding: Option<&'static Encoding>, rows_max: u64) -> Result<Vec<Row>> {
    let text = decoded(bytes, encoding)?;
    let whole = &text;
    let (separator, text) = separator(whole);
    // A first line that only declares the separator.
    let skipped = u64::from(text.len() < whole.len());
    let mut records = Records::new(text, separator);
    let header = records.read(HEADER_CELLS_MAX).unwrap_or_default();
    if let Some(fault) = header.fault {
        let message = match fault {
            RowFault::LongCell => format!("has a cell of more than {CELL_BYTES_MAX} bytes in the header"),
            _ => format!("has more than {HEADER_CELLS_MAX} cells in the header"),
        };
        return Err(Error::field("body", message));
    }
    let columns = columns(&header.cells)?;
    let (mut rows, mut count) = (Vec::new(), 0);
    while let Some(record) = records.read(header.cells.len() + EXTRA_CELLS_MAX) {
        if record.is_empty() {
            continue;
        }
        count += 1;
        if count as u64 <= rows_max {
            let line = record.line + skipped;
            rows.push(row(count, &columns, record).at_line(line));
        }
    }
    records.require_closed()?;
    require_rows(count, rows_max)?;
    Ok(rows)
}

fn row(number: usize, columns: &[Option<&'static str>], record: Record) -> Row {
    if let Some(fault) = record.fault {
        return Row::dropped(number, fault);
    }
    let cells = record.cells;
    let fault = fault(columns, &cells);
    let has_no_column = |n: usize| columns.get(n).is_none_or(Option::is_none);
    let extra = cells.iter().enumerate().filter(|(n, cell)| has_no_column(*n) && !cell.trim().is_empty());
    let extra = extra.map(|(_, cell)| cell.clone()).collect();
    let named = columns.iter().copied().zip(cells.into_iter().map(Some));
    Row::of(number, named.filter_map(|(column, cell)| Some((column?, cell)))).with_fault(fault).with_extra(extra)
}

/// The most bytes of rows that are written to be corrected.
const WRITTEN_BYTES_MAX: usize = 262_144;

/// Writes rows as a file that can be imported again once it is corrected: the columns that they use, then what no column
/// names. `None` if there are no rows, if one of them was not kept, or for a file longer than `WRITTEN_BYTES_MAX`.
pub fn write_csv(rows: &[Row]) -> Option<String> {
    if rows.iter().any(Row::is_dropped) {
        return None;
    }
    let is_used = |column: &&&str| **column == "username" || rows.iter().any(|row| row.get(column).is_some());
    let columns: Vec<&str> = COLUMNS.iter().filter(is_used).copied().collect();
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    writer.write_record(&columns).ok()?;
    for row in rows {
        let named = columns.iter().map(|column| row.get(column).unwrap_or_default());
        writer.write_record(named.chain(row.extra().iter().map(String::as_str))).ok()?;
        // What is still in the writer's buffer counts at the end.
        if writer.get_ref().len() > WRITTEN_BYTES_MAX {
            return None;
        }
    }
    let written = String::from_utf8(writer.into_inner().ok()?).ok()?;
    Some(written).filter(|written| !rows.is_empty() && written.len() <= WRITTEN_BYTES_MAX)
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
                let message = format!("is not a column: they are {}", COLUMNS.join(", "));
                faults.push(Field::body(&cut(name.trim()), message));
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
fn fault(columns: &[Option<&str>], cells: &[String]) -> Option<RowFault> {
    let named = columns.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if cells.len() < named {
        return Some(RowFault::FewCells);
    }
    let has_no_column = |n: usize| columns.get(n).is_none_or(Option::is_none);
    let is_stray = cells.iter().enumerate().any(|(n, cell)| has_no_column(n) && !cell.trim().is_empty());
    is_stray.then_some(RowFault::StrayCell)
}

/// A record of a file.
#[derive(Debug, Default)]
struct Record {
    /// The line on which it starts, counted from 1.
    line: u64,
    /// Empty if there is a fault.
    cells: Vec<String>,
    /// Which limit it exceeds.
    fault: Option<RowFault>,
}

impl Record {
    fn is_empty(&self) -> bool {
        self.fault.is_none() && self.cells.iter().all(|cell| cell.trim().is_empty())
    }
}

/// Reads a text record by record.
struct Records<'t> {
    reader: csv_core::Reader,
    text: &'t str,
    /// How much of the text is read.
    at: usize,
    /// Where the last record starts, and on which line.
    begin: usize,
    line: u64,
}

impl<'t> Records<'t> {
    fn new(text: &'t str, separator: u8) -> Self {
        let reader = csv_core::ReaderBuilder::new().delimiter(separator).build();
        Self { reader, text, at: 0, begin: 0, line: 1 }
    }

    /// Reads the next record. If it has more than `cells_max` cells or a cell that is too long, its cells are read, but
    /// not kept.
    fn read(&mut self, cells_max: usize) -> Option<Record> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        // The line ends before a record are read as a part of it.
        let begin = self.at + rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let (mut cells, mut fault) = (Vec::new(), None);
        loop {
            let (cell, is_last) = self.read_cell()?;
            match cell {
                _ if fault.is_some() => {}
                Some(_) if cells.len() >= cells_max => fault = Some(RowFault::ManyCells),
                Some(cell) => cells.push(cell),
                None => fault = Some(RowFault::LongCell),
            }
            if is_last {
                break;
            }
        }
        let between = self.text.as_bytes().get(self.begin..begin).unwrap_or_default();
        self.line += between.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.begin = begin;
        let cells = if fault.is_none() { cells } else { Vec::new() };
        Some(Record { line: self.line, cells, fault })
    }

    /// Reads the next cell, and whether it is the last one of its record. A cell that is too long is `None`.
    fn read_cell(&mut self) -> Option<(Option<String>, bool)> {
        let (mut cell, mut is_long, mut output) = (Vec::new(), false, [0; 512]);
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let (result, read_bytes, written_bytes) = self.reader.read_field(rest, &mut output);
            self.at += read_bytes;
            is_long = is_long || cell.len() + written_bytes > CELL_BYTES_MAX;
            if !is_long {
                cell.extend_from_slice(&output[..written_bytes]);
            }
            match result {
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
                ReadFieldResult::Field { record_end } => {
                    // The text is valid UTF-8, and cells are split only at ASCII characters.
                    let text = || String::from_utf8_lossy(&cell).into_owned();
                    return Some(((!is_long).then(text), record_end));
                }
                ReadFieldResult::End => return None,
            }
        }
    }

    /// Fails if a quote is never closed. The reader reads such a cell up to the end of the text, with all rows in it.
    fn require_closed(&self) -> Result<()> {
        let is_open = self.text.get(self.begin..).unwrap_or_default().matches('"').count() % 2 == 1;
        let message = || format!("line {}: a quote is never closed", self.line);
        if is_open { Err(Error::field("body", message())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Vec<Vec<String>> {
        let mut records = Records::new(text, b',');
        let cells = std::iter::from_fn(|| records.read(100)).map(|record| record.cells).collect();
        records.require_closed().expect("closed");
        cells
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
        let open = read_csv(b"username\nb,\"c\nd\ne", None, 10).expect_err("open");
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
        assert_eq!(fault(&["a"]), Some(RowFault::FewCells));
        for stray in [&["a", "x", "b"][..], &["a", "", "b", "x"], &["a", "", "b", "", "x"]] {
            assert_eq!(fault(stray), Some(RowFault::StrayCell), "{stray:?}");
        }
    }

    #[test]
    fn rows_are_written_as_a_file_that_can_be_read_again() {
        let file = "username,email,display_name\nkim,\"a, \"\"b\"\"\",\n,lee@example.org,李\nann,x,y,z\n";
        let rows = read_csv(file.as_bytes(), None, 10).expect("rows");
        let written = write_csv(&rows).expect("a file");
        assert_eq!(written, file);
        assert_eq!(read_csv(written.as_bytes(), None, 10).expect("rows"), rows);
        let only_names = Row::of(1, [("username", Some("kim".into()))]);
        assert_eq!(write_csv(&[only_names]).as_deref(), Some("username\nkim\n"));
        assert_eq!(write_csv(&[]), None);
        let long = |bytes: usize| Row::of(1, [("username", Some("k".repeat(bytes)))]);
        let most = WRITTEN_BYTES_MAX - "username\n\n".len();
        assert_eq!((write_csv(&[long(most)]).is_some(), write_csv(&[long(most + 1)])), (true, None));
    }

    /// The number and the line of each row, and the limit that it exceeds.
    fn dropped(file: &str) -> Vec<(usize, Option<u64>, Option<RowFault>)> {
        let rows = read_csv(file.as_bytes(), None, 10).expect("rows");
        let fault = |row: &Row| if row.is_dropped() { row.fault() } else { None };
        rows.iter().map(|row| (row.number, row.line, fault(row))).collect()
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_limit_and_not_one_more() {
        let most = ",".repeat(EXTRA_CELLS_MAX);
        let file =
            format!("username,email\nkim,kim@example.org{most}\n\nlee,lee@example.org{most},\nmax,x\n,{most},\n");
        let many = Some(RowFault::ManyCells);
        assert_eq!(dropped(&file), [(1, Some(2), None), (2, Some(4), many), (3, Some(5), None), (4, Some(6), many)]);
        let rows = read_csv(file.as_bytes(), None, 10).expect("rows");
        assert_eq!((rows[0].username(), rows[1].username(), rows[1].extra().len()), (Some("kim"), None, 0));
        assert_eq!(write_csv(&rows), None, "a row that was not kept cannot be written");
    }

    #[test]
    fn a_cell_has_as_many_bytes_as_the_limit_and_not_one_more() {
        fn quotes(bytes: usize) -> String {
            format!("\"{}\"", "\"\"".repeat(bytes))
        }
        let texts: [fn(usize) -> String; 3] =
            [|bytes| "x".repeat(bytes), |bytes| "é".repeat(bytes / 2) + &"x".repeat(bytes % 2), quotes];
        for cell in texts {
            let (most, more) = (cell(CELL_BYTES_MAX), cell(CELL_BYTES_MAX + 1));
            let file = format!("username,email\nkim,{most}\nlee,{more}\n{more},x\nmax,{more}");
            let long = Some(RowFault::LongCell);
            let expected = [(1, Some(2), None), (2, Some(3), long), (3, Some(4), long), (4, Some(5), long)];
            assert_eq!(dropped(&file), expected);
            let rows = read_csv(file.as_bytes(), None, 10).expect("rows");
            assert_eq!(rows[0].get("email").map(str::len), Some(CELL_BYTES_MAX));
            assert_eq!(rows[1].username(), None);
        }
    }

    #[test]
    fn a_header_has_as_many_cells_and_bytes_as_the_limits_and_not_one_more() {
        let empty = |cells: usize| format!("username{}\nkim\n", ",".repeat(cells - 1));
        assert_eq!(usernames(empty(HEADER_CELLS_MAX).as_bytes(), None), ["kim"]);
        let refused = |file: &str| read_csv(file.as_bytes(), None, 10).expect_err("a header").fields;
        let many = refused(&empty(HEADER_CELLS_MAX + 1));
        assert_eq!((many[0].name(), many[0].message.as_str()), ("body", "has more than 64 cells in the header"));
        assert_eq!(refused(&"x,".repeat(1 << 20)), many);
        let unknown = |cells: usize| vec!["x"; cells].join(",");
        assert_eq!(refused(&unknown(HEADER_CELLS_MAX)).len(), HEADER_CELLS_MAX);
        // The name of a column is cut in its fault.
        let long = refused(&"x".repeat(CELL_BYTES_MAX));
        assert_eq!((long.len(), long[0].name().chars().count()), (1, 201));
        let longer = refused(&"x".repeat(CELL_BYTES_MAX + 1));
        assert_eq!((longer[0].name(), longer.len()), ("body", 1));
        assert_eq!(longer[0].message, "has a cell of more than 4096 bytes in the header");
    }

    #[test]
    fn rows_beyond_the_limit_are_counted_and_not_kept() {
        let file = "username\n".to_owned() + &"kim\n".repeat(1_000);
        let refused = read_csv(file.as_bytes(), None, 2).expect_err("too many");
        assert!(refused.fields[0].message.starts_with("there are 1000 rows"), "{refused}");
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
