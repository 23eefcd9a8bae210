//! Imported documents in JSON or YAML: their bounds are checked before values are built.
//!
//! **Invariant.** A document is read once, from its beginning, and reading stops where it exceeds a bound: neither
//! unclosed brackets nor YAML aliases that expand to more than was sent can use time or memory beyond the bounds. Only
//! this module uses saphyr-parser.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::request_validator;
use crate::kernel::error::{Error, ErrorCode, Result};

/// The limits of a document.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Deepest nesting of lists and objects, including the outermost: `limits.document_depth`.
    pub depth_max: u64,
    /// Most values, including those in lists and objects, with YAML aliases expanded: `limits.document_nodes`.
    pub nodes_max: u64,
}

impl Bounds {
    fn require_depth(self, depth: u64) -> Result<()> {
        if depth <= self.depth_max {
            return Ok(());
        }
        Err(malformed(format!("the document has more than {} levels (limits.document_depth)", self.depth_max)))
    }

    fn require_nodes(self, nodes: u64) -> Result<()> {
        if nodes <= self.nodes_max {
            return Ok(());
        }
        Err(malformed(format!("the document has more than {} values (limits.document_nodes)", self.nodes_max)))
    }
}

fn malformed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorCode::MalformedBody).with_message(message)
}

/// A document, with the line numbers of its keys.
#[derive(Debug, Default)]
pub struct Document {
    pub value: Value,
    lines: Lines,
}

impl Document {
    /// A document without a text, and so without line numbers.
    pub fn from_value(value: Value) -> Self {
        Self { value, lines: Lines::new() }
    }

    /// The line (from 1) of the last of these nested keys, or of its nearest ancestor with a known line. Lines are
    /// known for keys of the first `LINES_DEPTH` levels, and not for list items.
    pub fn line(&self, keys: &[&str]) -> Option<usize> {
        let known = |n: usize| self.lines.get(&line_key(keys[..n].iter().copied())?).copied();
        (1..=keys.len().min(LINES_DEPTH)).rev().find_map(known)
    }
}

/// The lines of paths of keys, by the hash of the path: a document can have many paths below one long key.
type Lines = HashMap<u64, usize>;

/// Enough for `paths`, a path and a method.
const LINES_DEPTH: usize = 3;

/// Longer paths of keys are not stored: no caller needs them.
const LINE_KEY_BYTES_MAX: usize = 2_048;

fn note<'k>(lines: &mut Lines, keys: impl Iterator<Item = &'k str> + Clone, line: usize) {
    if let Some(key) = line_key(keys) {
        lines.entry(key).or_insert(line);
    }
}

/// `None` for a path of keys that is too long.
fn line_key<'k>(keys: impl Iterator<Item = &'k str> + Clone) -> Option<u64> {
    if keys.clone().map(str::len).sum::<usize>() > LINE_KEY_BYTES_MAX {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    keys.for_each(|key| key.hash(&mut hasher));
    Some(hasher.finish())
}

/// Parses a document that is an object: as JSON if it begins with a brace, otherwise as YAML. Duplicate keys are
/// refused.
pub fn parse(bytes: &[u8], bounds: Bounds) -> Result<Document> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        let lines = measure_json(bytes, bounds)?;
        return Ok(Document { value: request_validator::parse(bytes)?, lines });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the document is neither JSON nor YAML: not UTF-8"))?;
    let document = read_yaml(text, bounds)?;
    if document.value.is_object() { Ok(document) } else { Err(malformed("the document must be an object")) }
}

/// Counts the values of JSON without parsing it: each comma and each list or object that is not empty adds one. Also
/// collects the lines of keys.
fn measure_json(bytes: &[u8], bounds: Bounds) -> Result<Lines> {
    let (mut depth, mut nodes, mut line, mut text_start) = (0_u64, 1_u64, 1, None);
    let (mut lines, mut keys, mut last_text) = (Lines::new(), Vec::<String>::new(), 0..0);
    let mut at = 0;
    while let Some(byte) = bytes.get(at).copied() {
        line += usize::from(byte == b'\n');
        match (byte, text_start) {
            (b'"', None) => text_start = Some(at),
            (b'"', Some(start)) => (last_text, text_start) = (start..at + 1, None),
            (b'\\', Some(_)) => at += 1,
            (_, Some(_)) => {}
            (b'[' | b'{', _) => {
                depth += 1;
                bounds.require_depth(depth)?;
                let next = bytes[at + 1..].iter().find(|byte| !byte.is_ascii_whitespace());
                nodes += u64::from(!matches!(next, Some(b']' | b'}')));
                bounds.require_nodes(nodes)?;
            }
            (b']' | b'}', _) => depth = depth.saturating_sub(1),
            (b',', _) => {
                nodes += 1;
                bounds.require_nodes(nodes)?;
            }
            // A list has no key; keys of objects in it get an empty parent key.
            (b':', _) if depth <= LINES_DEPTH as u64 => {
                keys.truncate(usize::try_from(depth).unwrap_or_default().saturating_sub(1));
                keys.push(serde_json::from_slice(&bytes[last_text.clone()]).unwrap_or_default());
                note(&mut lines, keys.iter().map(String::as_str), line);
            }
            _ => {}
        }
        at += 1;
    }
    Ok(lines)
}

/// A list or an object that is being read.
enum Open {
    List(Vec<Value>),
    Object(Object),
}

/// A mapping that is being read.
#[derive(Default)]
struct Object {
    map: Map<String, Value>,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Mappings that `<<` merges; the mapping's own keys take precedence.
    merged: Vec<Map<String, Value>>,
    has_merged: bool,
}

enum Key {
    Named(String),
    /// `<<`, without quotes.
    Merge,
}

/// A finished value with its size.
#[derive(Clone)]
struct Built {
    value: Value,
    nodes: u64,
    /// The levels of nesting in it.
    height: u64,
}

/// A list or an object that is being read, with its size so far.
struct Level {
    open: Open,
    anchor: usize,
    /// The number of values in it, and the greatest height of them.
    nodes: u64,
    height: u64,
}

struct Reader {
    bounds: Bounds,
    nodes: u64,
    /// The number of values that are stored for aliases.
    stored: u64,
    levels: Vec<Level>,
    /// The values of anchors, by number, from 1.
    anchors: HashMap<usize, Built>,
    whole: Option<Value>,
    lines: Lines,
}

fn read_yaml(text: &str, bounds: Bounds) -> Result<Document> {
    let (levels, anchors, lines) = (Vec::new(), HashMap::new(), Lines::new());
    let mut reader = Reader { bounds, nodes: 0, stored: 0, levels, anchors, whole: None, lines };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let at = e.marker();
            let (line, column) = (at.line(), at.col() + 1);
            malformed(format!("the document is neither JSON nor YAML at line {line}, column {column}"))
        })?;
        reader.take(event, span)?;
    }
    let value = reader.whole.ok_or_else(|| malformed("the document is empty"))?;
    Ok(Document { value, lines: reader.lines })
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.whole.is_some() => {
                Err(at(span, "another document begins: only one document can be imported"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), anchor, span),
            Event::MappingStart(anchor, _) => self.open(Open::Object(Object::default()), anchor, span),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor) else {
                    return Err(at(span, "an alias refers to a value that contains it"));
                };
                // Counted before it is copied, because a few lines can expand to many values.
                self.bounds.require_nodes(self.nodes.saturating_add(built.nodes))?;
                self.bounds.require_depth((self.levels.len() as u64).saturating_add(built.height))?;
                let built = built.clone();
                self.nodes += built.nodes;
                self.insert(built, span)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| is_string_tag(&tag));
                let value = if is_text { Value::String(text.to_string()) } else { plain(&text) };
                let built = Built { value, nodes: 1, height: 0 };
                self.remember(anchor, &built)?;
                if self.awaits_key() {
                    let key = if !is_text && text == "<<" { Key::Merge } else { Key::Named(text.into_owned()) };
                    return self.key(key, span);
                }
                self.count()?;
                self.insert(built, span)
            }
        }
    }

    fn count(&mut self) -> Result<()> {
        self.nodes += 1;
        self.bounds.require_nodes(self.nodes)
    }

    fn awaits_key(&self) -> bool {
        self.levels.last().is_some_and(|level| matches!(&level.open, Open::Object(object) if object.key.is_none()))
    }

    fn key(&mut self, key: Key, span: Span) -> Result<()> {
        let Some(Level { open: Open::Object(object), .. }) = self.levels.last_mut() else { return Ok(()) };
        let (is_known, text) = match &key {
            Key::Named(text) => (object.map.contains_key(text), text.as_str()),
            Key::Merge => (object.has_merged, "<<"),
        };
        if is_known {
            return Err(at(span, format!("the document names the key {text:?} twice")));
        }
        object.has_merged |= matches!(key, Key::Merge);
        object.key = Some(key);
        self.note_line(span);
        Ok(())
    }

    /// Stores the line of the key that was just read, in the first levels.
    fn note_line(&mut self, span: Span) {
        if self.levels.len() > LINES_DEPTH {
            return;
        }
        let keys: Option<Vec<&str>> = self.levels.iter().map(Level::key).collect();
        if let Some(keys) = keys {
            note(&mut self.lines, keys.into_iter(), span.start.line());
        }
    }

    fn open(&mut self, open: Open, anchor: usize, span: Span) -> Result<()> {
        if self.awaits_key() {
            return Err(at(span, "the document has keys that are not text"));
        }
        self.count()?;
        self.bounds.require_depth(self.levels.len() as u64 + 1)?;
        self.levels.push(Level { open, anchor, nodes: 1, height: 0 });
        Ok(())
    }

    fn close(&mut self, span: Span) -> Result<()> {
        let Some(Level { open, anchor, nodes, height }) = self.levels.pop() else { return Ok(()) };
        let value = match open {
            Open::List(list) => Value::Array(list),
            Open::Object(object) => Value::Object(object.with_merged()),
        };
        let built = Built { value, nodes, height: height + 1 };
        self.remember(anchor, &built)?;
        self.insert(built, span)
    }

    /// Stores the value of an anchor. Copies count towards the bound, because nested anchors store the same values
    /// repeatedly.
    fn remember(&mut self, anchor: usize, built: &Built) -> Result<()> {
        if anchor > 0 {
            self.stored += built.nodes;
            self.bounds.require_nodes(self.stored)?;
            self.anchors.insert(anchor, built.clone());
        }
        Ok(())
    }

    fn insert(&mut self, built: Built, span: Span) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            self.whole = Some(built.value);
            return Ok(());
        };
        level.nodes += built.nodes;
        level.height = level.height.max(built.height);
        match &mut level.open {
            Open::List(list) => list.push(built.value),
            Open::Object(object) => match object.key.take() {
                Some(Key::Named(key)) => drop(object.map.insert(key, built.value)),
                Some(Key::Merge) => {
                    let merged = mappings(built.value);
                    object.merged =
                        merged.ok_or_else(|| at(span, "the key `<<` takes a mapping, or a list of mappings"))?;
                }
                None => return Err(at(span, "the document has keys that are not text")),
            },
        }
        Ok(())
    }
}

impl Level {
    /// The key whose value is being read.
    fn key(&self) -> Option<&str> {
        match &self.open {
            Open::Object(Object { key: Some(Key::Named(key)), .. }) => Some(key),
            _ => None,
        }
    }
}

impl Object {
    /// Merges the mappings of `<<`; earlier ones take precedence.
    fn with_merged(self) -> Map<String, Value> {
        let mut map = self.map;
        for (key, value) in self.merged.into_iter().flatten() {
            map.entry(key).or_insert(value);
        }
        map
    }
}

/// The mappings in the value of `<<`.
fn mappings(value: Value) -> Option<Vec<Map<String, Value>>> {
    let map = |value| if let Value::Object(map) = value { Some(map) } else { None };
    match value {
        Value::Array(list) => list.into_iter().map(map).collect(),
        value => Some(vec![map(value)?]),
    }
}

fn at(span: Span, message: impl std::fmt::Display) -> Error {
    malformed(format!("{message} (line {}, column {})", span.start.line(), span.start.col() + 1))
}

fn is_string_tag(tag: &Tag) -> bool {
    (tag.is_yaml_core_schema() && tag.suffix == "str") || format!("{}{}", tag.handle, tag.suffix) == "!"
}

/// Parses a plain scalar by the core schema of YAML 1.2.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let number = whole(text).or_else(|| decimal(text));
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn whole(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from)).ok()
}

fn decimal(text: &str) -> Option<Number> {
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'));
    Number::from_f64(text.parse().ok().filter(|_| is_number)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WIDE: Bounds = Bounds { depth_max: 64, nodes_max: 1_000 };

    fn error_message(text: &str, bounds: Bounds) -> String {
        parse(text.as_bytes(), bounds).expect_err(text).message().to_owned()
    }

    #[test]
    fn yaml_is_parsed_by_its_core_schema() {
        let text = "
# a comment
text: plain words
quoted: \"1\"
tagged: !!str 1
numbers: [1, -2, 0x1f, 0o17, 1.5, 1e3]
words: [true, False, null, ~, 3.0.0, --, .inf, 2026-01-01]
empty:
block: |
  two
  lines
base: &base {a: 1}
again: *base
200: {}
";
        let expected = json!({
            "text": "plain words", "quoted": "1", "tagged": "1", "numbers": [1, -2, 31, 15, 1.5, 1000.0],
            "words": [true, false, null, null, "3.0.0", "--", ".inf", "2026-01-01"], "empty": null,
            "block": "two\nlines\n", "base": {"a": 1}, "again": {"a": 1}, "200": {},
        });
        assert_eq!(parse(text.as_bytes(), WIDE).expect("fine").value, expected);
        for text in ["\u{feff}a: 1", "\u{feff}{\"a\": 1}", "\u{feff} \n{\"a\": 1}"] {
            assert_eq!(parse(text.as_bytes(), WIDE).expect("fine").value, json!({"a": 1}), "{text}");
        }
    }

    #[test]
    fn integers_of_any_size_are_numbers() {
        for (text, expected) in [
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551616", json!(18_446_744_073_709_551_616.0)),
            ("-9223372036854776000", json!(-9_223_372_036_854_776_000.0)),
            ("+7", json!(7)),
        ] {
            assert_eq!(parse(format!("a: {text}").as_bytes(), WIDE).expect(text).value, json!({"a": expected}));
        }
        // Too large for a float: kept as text.
        let huge = "9".repeat(400);
        assert_eq!(parse(format!("a: {huge}").as_bytes(), WIDE).expect("fine").value, json!({"a": huge}));
    }

    #[test]
    fn a_merge_key_adds_only_missing_keys() {
        for (text, expected) in [
            ("<<: {a: 1, b: 1}\nb: 2", json!({"a": 1, "b": 2})),
            ("b: 2\n<<: {a: 1, b: 1}", json!({"a": 1, "b": 2})),
            ("<<: [{a: 1}, {a: 2, b: 2}]", json!({"a": 1, "b": 2})),
            ("x: &x {a: 1}\ny: {<<: *x, b: 2}", json!({"x": {"a": 1}, "y": {"a": 1, "b": 2}})),
            ("x: &x {<<: {a: 1}}\ny: {<<: *x}", json!({"x": {"a": 1}, "y": {"a": 1}})),
            ("<<: []\na: 1", json!({"a": 1})),
            ("\"<<\": 1", json!({"<<": 1})),
        ] {
            assert_eq!(parse(text.as_bytes(), WIDE).expect(text).value, expected, "{text}");
        }
    }

    #[test]
    fn keys_of_the_first_levels_have_line_numbers() {
        let yaml = "openapi: 3.0.3\nx-c: &c\n  get: {}\npaths:\n  /a:\n    get: {}\n    post: {}\n  /b: {put: {}}\n  /c:\n    <<: *c\n";
        let json = "{\n\"openapi\": \"3\", \"list\": [{\"x\": {\"y\": 1}}],\n\n\"paths\": {\n\"/a\": {\n\"get\": {\"deep\":\n \"a\\\"}\"},\n\"post\": {}},\n\"/\\u0062\": {\"put\": {}}, \"/c\": {}}}";
        for (text, lines) in [(yaml, [4, 5, 6, 7, 8, 8, 9]), (json, [4, 5, 6, 8, 9, 9, 9])] {
            let document = parse(text.as_bytes(), WIDE).expect(text);
            let at = |keys: &[&str]| document.line(keys).expect("a line");
            let found = [
                at(&["paths"]),
                at(&["paths", "/a"]),
                at(&["paths", "/a", "get", "deep", "deeper"]),
                at(&["paths", "/a", "post"]),
                at(&["paths", "/b"]),
                at(&["paths", "/b", "put"]),
                at(&["paths", "/c", "get"]),
            ];
            assert_eq!((found, document.line(&["none"])), (lines, None), "{text}");
        }
    }

    #[test]
    fn errors_of_a_malformed_document_name_the_cause() {
        for (text, says) in [
            ("", "empty"),
            ("- 1", "must be an object"),
            ("a: 1\na: 2", "\"a\" twice (line 2, column 1)"),
            ("<<: {a: 1}\n<<: {b: 1}", "\"<<\" twice (line 2, column 1)"),
            ("<<: 1", "`<<` takes a mapping"),
            ("<<: [1]", "`<<` takes a mapping"),
            ("[a]: 1", "keys that are not text"),
            ("a: &x [*x]", "refers to a value that contains it"),
            ("a: *x", "neither JSON nor YAML at line 1"),
            ("a: 1\n---\nb: 2", "another document"),
            ("a: [1", "neither JSON nor YAML"),
            ("{\"a\": 1, \"a\": 2}", "\"a\" twice"),
        ] {
            assert!(error_message(text, WIDE).contains(says), "{text}: {}", error_message(text, WIDE));
        }
        assert!(parse(b"\xff", WIDE).is_err());
    }

    #[test]
    fn json_and_yaml_have_the_same_bounds() {
        // Four levels; an object, a list, and so on: eight values.
        let yaml = "a: [[{b: 1}, []], '[[[']\nc: 2";
        let json = "{ \"a\": [[{\"b\": 1}, [ ]], \"[[[\\\"{\"], \"c\": 2 }";
        for text in [yaml, json] {
            let within = Bounds { depth_max: 4, nodes_max: 8 };
            assert!(parse(text.as_bytes(), within).is_ok(), "{text}");
            assert!(error_message(text, Bounds { depth_max: 3, ..within }).contains("limits.document_depth"), "{text}");
            assert!(error_message(text, Bounds { nodes_max: 7, ..within }).contains("limits.document_nodes"), "{text}");
        }
    }

    #[test]
    fn expanded_aliases_count_towards_the_bounds() {
        let nine = |name: char| format!("[{}]", vec![format!("*{name}"); 9].join(", "));
        let mut bomb = "a: &a [1]\n".to_owned();
        let names: Vec<char> = ('a'..='i').collect();
        for pair in names.windows(2) {
            bomb += &format!("{0}: &{0} {1}\n", pair[1], nine(pair[0]));
        }
        assert!(error_message(&bomb, WIDE).contains("limits.document_nodes"));
        // Aliases add depth too, and nested anchors store copies.
        let mut tower = "a0: &a0 [1]\n".to_owned();
        (1..70).for_each(|n| tower += &format!("a{n}: &a{n} [*a{}]\n", n - 1));
        assert!(error_message(&tower, Bounds { nodes_max: 100_000, ..WIDE }).contains("limits.document_depth"));
        let nested = format!("a: {}1{}", (0..60).map(|n| format!("&n{n} [1, 2, ")).collect::<String>(), "]".repeat(60));
        assert!(error_message(&nested, Bounds { nodes_max: 500, ..WIDE }).contains("limits.document_nodes"));
        for deep in [
            "[".repeat(200_000),
            format!("a: {}", "[".repeat(200_000)),
            "{a: ".repeat(50_000),
            "- ".repeat(100_000),
            "? ".repeat(100_000),
        ] {
            assert!(parse(deep.as_bytes(), WIDE).is_err());
        }
    }
}
