//! Documents that somebody sends to be imported, as JSON or YAML: bounded before anything is built of them.
//!
//! **Invariant.** A document is read once, from its beginning, and left where it goes over a bound: neither brackets that
//! nobody closes nor names in YAML that stand for more than was sent can take time or memory beyond the bounds.
//! The only user of saphyr-parser.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::inputs;
use crate::error::{Cause, Error, Result};

/// How far a document may go.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Lists and objects within each other, the outermost counted: `limits.document_depth`.
    pub depth_max: u64,
    /// Values, those within lists and objects too, and each as often as YAML's aliases repeat it: `limits.document_nodes`.
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

fn malformed(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Cause::MalformedBody).saying(why)
}

/// Reads a document that is an object: what begins with a brace as JSON, anything else as YAML. A key that stands twice is
/// refused.
pub fn parse(bytes: &[u8], bounds: Bounds) -> Result<Value> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        measure_json(bytes, bounds)?;
        return inputs::parse(bytes);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the document is neither JSON nor YAML: not UTF-8"))?;
    let value = read_yaml(text.strip_prefix('\u{feff}').unwrap_or(text), bounds)?;
    if value.is_object() { Ok(value) } else { Err(malformed("the document must be an object")) }
}

/// Counts what JSON has, without reading it: each comma and each list or object that is not empty is one value more.
fn measure_json(bytes: &[u8], bounds: Bounds) -> Result<()> {
    let (mut depth, mut nodes, mut is_text) = (0_u64, 1_u64, false);
    let mut rest = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => is_text = !is_text,
            b'\\' if is_text => drop(rest.next()),
            _ if is_text => {}
            b'[' | b'{' => {
                depth += 1;
                bounds.require_depth(depth)?;
                nodes += u64::from(!matches!(rest.peek(), Some(b']' | b'}')));
                bounds.require_nodes(nodes)?;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => {
                nodes += 1;
                bounds.require_nodes(nodes)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A list or an object that is being read.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes next.
    Object(Map<String, Value>, Option<String>),
}

/// A value with its size.
#[derive(Clone)]
struct Built {
    value: Value,
    nodes: u64,
    /// Levels below its own.
    height: u64,
}

/// A level of the document.
struct Level {
    open: Open,
    anchor: usize,
    /// What was built within, and the highest of it.
    nodes: u64,
    height: u64,
}

struct Reader {
    bounds: Bounds,
    nodes: u64,
    /// Values that are kept for aliases.
    kept: u64,
    levels: Vec<Level>,
    /// What aliases stand for. Numbers of anchors begin at 1.
    anchors: HashMap<usize, Built>,
    whole: Option<Value>,
}

fn read_yaml(text: &str, bounds: Bounds) -> Result<Value> {
    let mut reader = Reader { bounds, nodes: 0, kept: 0, levels: Vec::new(), anchors: HashMap::new(), whole: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let at = e.marker();
            let (line, column) = (at.line(), at.col() + 1);
            malformed(format!("the document is neither JSON nor YAML at line {line}, column {column}"))
        })?;
        reader.take(event, span)?;
    }
    reader.whole.ok_or_else(|| malformed("the document is empty"))
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.whole.is_some() => {
                Err(at(span, "another document begins: one is imported at a time"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::SequenceStart(anchor, _) => self.open(Open::List(Vec::new()), anchor, span),
            Event::MappingStart(anchor, _) => self.open(Open::Object(Map::new(), None), anchor, span),
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor) else {
                    return Err(at(span, "an alias stands within what it is an alias of"));
                };
                // Counted before it is copied: this is what a few lines can make much of.
                self.bounds.require_nodes(self.nodes.saturating_add(built.nodes))?;
                self.bounds.require_depth((self.levels.len() as u64).saturating_add(built.height))?;
                let built = built.clone();
                self.nodes += built.nodes;
                self.put(built, span)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| is_of_text(&tag));
                let value = if is_text { Value::String(text.to_string()) } else { plain(&text) };
                let built = Built { value, nodes: 1, height: 0 };
                self.remember(anchor, &built)?;
                if self.awaits_key() {
                    return self.key(text.into_owned(), span);
                }
                self.count()?;
                self.put(built, span)
            }
        }
    }

    fn count(&mut self) -> Result<()> {
        self.nodes += 1;
        self.bounds.require_nodes(self.nodes)
    }

    fn awaits_key(&self) -> bool {
        self.levels.last().is_some_and(|level| matches!(level.open, Open::Object(_, None)))
    }

    fn key(&mut self, text: String, span: Span) -> Result<()> {
        let Some(Level { open: Open::Object(map, key), .. }) = self.levels.last_mut() else { return Ok(()) };
        if map.contains_key(&text) {
            return Err(at(span, format!("the document names the key {text:?} twice")));
        }
        *key = Some(text);
        Ok(())
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
            Open::Object(map, _) => Value::Object(map),
        };
        let built = Built { value, nodes, height: height + 1 };
        self.remember(anchor, &built)?;
        self.put(built, span)
    }

    /// Keeps what an alias may stand for. A copy too: anchors within each other keep the same again and again.
    fn remember(&mut self, anchor: usize, built: &Built) -> Result<()> {
        if anchor > 0 {
            self.kept += built.nodes;
            self.bounds.require_nodes(self.kept)?;
            self.anchors.insert(anchor, built.clone());
        }
        Ok(())
    }

    fn put(&mut self, built: Built, span: Span) -> Result<()> {
        let Some(level) = self.levels.last_mut() else {
            self.whole = Some(built.value);
            return Ok(());
        };
        level.nodes += built.nodes;
        level.height = level.height.max(built.height);
        match &mut level.open {
            Open::List(list) => list.push(built.value),
            Open::Object(map, key) => match key.take() {
                Some(key) => drop(map.insert(key, built.value)),
                None => return Err(at(span, "the document has keys that are not text")),
            },
        }
        Ok(())
    }
}

fn at(span: Span, why: impl std::fmt::Display) -> Error {
    malformed(format!("{why} (line {}, column {})", span.start.line(), span.start.col() + 1))
}

fn is_of_text(tag: &Tag) -> bool {
    (tag.is_yaml_core_schema() && tag.suffix == "str") || format!("{}{}", tag.handle, tag.suffix) == "!"
}

/// A word without quotes, as the core schema of YAML 1.2 reads it.
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

    fn said(text: &str, bounds: Bounds) -> String {
        parse(text.as_bytes(), bounds).expect_err(text).message().to_owned()
    }

    #[test]
    fn yaml_is_read_as_its_core_schema_has_it() {
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
        assert_eq!(parse(text.as_bytes(), WIDE).expect("fine"), expected);
        assert_eq!(parse("\u{feff}a: 1".as_bytes(), WIDE).expect("fine"), json!({"a": 1}));
    }

    #[test]
    fn what_is_no_single_object_says_why() {
        for (text, says) in [
            ("", "empty"),
            ("- 1", "must be an object"),
            ("a: 1\na: 2", "\"a\" twice (line 2, column 1)"),
            ("[a]: 1", "keys that are not text"),
            ("a: &x [*x]", "within what it is an alias of"),
            ("a: *x", "neither JSON nor YAML at line 1"),
            ("a: 1\n---\nb: 2", "another document"),
            ("a: [1", "neither JSON nor YAML"),
            ("{\"a\": 1, \"a\": 2}", "\"a\" twice"),
        ] {
            assert!(said(text, WIDE).contains(says), "{text}: {}", said(text, WIDE));
        }
        assert!(parse(b"\xff", WIDE).is_err());
    }

    #[test]
    fn json_and_yaml_are_held_to_the_same_bounds() {
        // Four levels; an object, a list, and so on: eight values.
        let yaml = "a: [[{b: 1}, []], '[[[']\nc: 2";
        let json = "{ \"a\": [[{\"b\": 1}, [ ]], \"[[[\\\"{\"], \"c\": 2 }";
        for text in [yaml, json] {
            let within = Bounds { depth_max: 4, nodes_max: 8 };
            assert!(parse(text.as_bytes(), within).is_ok(), "{text}");
            assert!(said(text, Bounds { depth_max: 3, ..within }).contains("limits.document_depth"), "{text}");
            assert!(said(text, Bounds { nodes_max: 7, ..within }).contains("limits.document_nodes"), "{text}");
        }
    }

    #[test]
    fn a_few_names_cannot_stand_for_more_than_the_bounds() {
        let nine = |name: char| format!("[{}]", vec![format!("*{name}"); 9].join(", "));
        let mut bomb = "a: &a [1]\n".to_owned();
        let names: Vec<char> = ('a'..='i').collect();
        for pair in names.windows(2) {
            bomb += &format!("{0}: &{0} {1}\n", pair[1], nine(pair[0]));
        }
        assert!(said(&bomb, WIDE).contains("limits.document_nodes"));
        // Aliases make height too, and anchors within each other keep copies.
        let mut tower = "a0: &a0 [1]\n".to_owned();
        (1..70).for_each(|n| tower += &format!("a{n}: &a{n} [*a{}]\n", n - 1));
        assert!(said(&tower, Bounds { nodes_max: 100_000, ..WIDE }).contains("limits.document_depth"));
        let nested = format!("a: {}1{}", (0..60).map(|n| format!("&n{n} [1, 2, ")).collect::<String>(), "]".repeat(60));
        assert!(said(&nested, Bounds { nodes_max: 500, ..WIDE }).contains("limits.document_nodes"));
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
