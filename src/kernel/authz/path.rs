//! The canonical form of a request path: one function for all callers.
//!
//! **Invariant.** Reject, never clean. A path that a gateway and the service behind it could interpret differently has
//! no canonical form, and a path without one is denied.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};

/// The maximum length of a path; longer ones have no canonical form.
pub const PATH_BYTES_MAX: usize = 8_192;

/// The path without its query, percent-decoded once, without one trailing slash. `None` if it is ambiguous.
pub fn canonical(target: &str) -> Option<Cow<'_, str>> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    if !scan(path)? {
        return Some(without_trailing_slash(Cow::Borrowed(path)));
    }
    let plain = decoded(path)?;
    // `decoded` rejects encoded slashes and percent signs, but an encoded dot can make a dot segment.
    let has_plain_segments = plain.split('/').skip(1).all(|segment| !matches!(segment, "." | ".."));
    has_plain_segments.then(|| without_trailing_slash(Cow::Owned(plain)))
}

/// The class of a byte in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Slash,
    Percent,
    Refused,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'/' => Kind::Slash,
            b'%' => Kind::Percent,
            b'#' | b';' | b'\\' | 0..=b' ' | 0x7f.. => Kind::Refused,
            _ => Kind::Plain,
        };
        byte += 1;
    }
    kinds
};

/// Validates every byte once: the path begins with a slash and has no empty segments, no dot segments and no ambiguous
/// bytes. One slash at the end is accepted. Returns whether the path has percent-encoded bytes; `None` if it is
/// rejected.
fn scan(path: &str) -> Option<bool> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return None;
    }
    let (mut start, mut is_encoded) = (1, false);
    for at in 1..bytes.len() {
        match KINDS[usize::from(bytes[at])] {
            Kind::Plain => {}
            Kind::Slash => {
                is_segment(&bytes[start..at]).then_some(())?;
                start = at + 1;
            }
            Kind::Percent => is_encoded = true,
            Kind::Refused => return None,
        }
    }
    (start == bytes.len() || is_segment(&bytes[start..])).then_some(is_encoded)
}

fn is_segment(segment: &[u8]) -> bool {
    !matches!(segment, b"" | b"." | b"..")
}

fn without_trailing_slash(path: Cow<'_, str>) -> Cow<'_, str> {
    if path.len() == 1 || !path.ends_with('/') {
        return path;
    }
    match path {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..text.len() - 1]),
        Cow::Owned(mut text) => {
            text.pop();
            Cow::Owned(text)
        }
    }
}

/// Percent-decodes once. `None` for invalid hexadecimal, invalid UTF-8, and encoded characters that have a meaning in
/// paths or are control characters.
pub(super) fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let high = char::from(rest.next()?).to_digit(16)?;
        let low = char::from(rest.next()?).to_digit(16)?;
        let decoded = u8::try_from(high * 16 + low).ok()?;
        match decoded {
            // An encoded percent sign would be double encoding.
            b'/' | b'\\' | b'%' | b';' | b'#' | b'?' | 0..=0x1f | 0x7f => return None,
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

// ── templates ──

// Path templates: their syntax, the paths that they match, and the order that selects the most specific match.
//
// ```text
// /videos/stats           literals; percent-encoded and plain text are the same
// /videos/{id}  /videos/:id   a parameter: any one segment
// /videos/{id}.{format}   text around parameters within a segment; each parameter has at least one character
// /files/{path+}          a parameter of one or more segments, optionally with text around it
// /refs/{ref+}/status     the same, followed by other segments
// /files/*rest            an umbrella: matches one or more segments, and adds its permissions to templates it covers
// ```
//
// Parameters can have any name. `{path:.*}`, `{path:.+}`, `{path:path}`, `{+path}`, `{path*}`, `{*path}`,
// `{path...}` and `{path=**}` are other spellings of `{path+}`. A template has at most one such parameter or
// umbrella, and an umbrella must be the last segment.
//
// **The order.** Of all templates that match a path, the first one in this order is used:
//
// 1. A template with a fixed number of segments comes before one with any number (`{path+}`, `*rest`).
// 2. Then the leftmost segment in which they differ decides: a literal, then text around parameters, then a parameter,
//    then a parameter of many segments (with text around it before one without), then an umbrella. If one template is a
//    prefix of the other, the longer one comes first.
// 3. Of two segments with text around parameters: the one with the longer text before the first parameter, then the
//    longer text after the last, then more text in total, then byte order. Lengths are in bytes of the decoded text.
//
// Names of parameters do not matter: templates that differ only in them are equal.

/// One segment, as the texts around its parameters. One text is a literal; two empty texts are a parameter of the whole
/// segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pattern(Vec<Box<str>>);

/// Replaces parameters when a pattern is matched as text. No path contains it.
const PARAMETER_PLACEHOLDER: &str = "\0";

impl Pattern {
    fn is_literal(&self) -> bool {
        self.0.len() == 1
    }

    fn is_parameter(&self) -> bool {
        self.0.len() == 2 && self.0.iter().all(|text| text.is_empty())
    }

    fn matches(&self, text: &str) -> bool {
        let [first, inner @ .., last] = &*self.0 else { return self.0.first().is_some_and(|own| **own == *text) };
        let Some(mut rest) = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else {
            return false;
        };
        // The leftmost match that leaves a character for the parameter before it leaves the most text for the others.
        for piece in inner {
            let Some((start, _)) = rest.char_indices().nth(1) else { return false };
            let Some(at) = rest[start..].find(&**piece) else { return false };
            rest = &rest[start + at + piece.len()..];
        }
        !rest.is_empty()
    }

    /// Whether it matches everything that the other pattern matches.
    fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0.join(PARAMETER_PLACEHOLDER))
    }

    /// The sort key: kind, then the lengths of rule 3, longest first.
    fn rank(&self) -> (u8, Reverse<usize>, Reverse<usize>, Reverse<usize>) {
        let length = |text: Option<&Box<str>>| Reverse(text.map_or(0, |text| text.len()));
        match self {
            _ if self.is_literal() => (0, Reverse(0), Reverse(0), Reverse(0)),
            _ if self.is_parameter() => (2, Reverse(0), Reverse(0), Reverse(0)),
            Self(texts) => {
                (1, length(texts.first()), length(texts.last()), Reverse(texts.iter().map(|text| text.len()).sum()))
            }
        }
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One part of a template. More specific parts come first in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    /// One segment.
    One(Pattern),
    /// A parameter of many segments, with text around it or not.
    Many(Pattern),
    /// An umbrella.
    Rest,
}

impl Part {
    fn is_wide(&self) -> bool {
        !matches!(self, Self::One(_))
    }
}

/// A path template. Names of parameters do not count for equality.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Template {
    parts: Vec<Part>,
}

/// More segments than any real API nests.
const SEGMENTS_MAX: usize = 32;
const TEMPLATE_BYTES_MAX: usize = 1_024;

impl Template {
    /// Parses a template. The error is a sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map(|(template, _)| template)
    }

    /// Parses a template and also returns its normalized spelling: text outside of ASCII is percent-encoded, and a
    /// parameter of many segments is `{name+}`.
    pub fn read(text: &str) -> Result<(Self, String), String> {
        let wrong = |why: &str| format!("the path {text:?} {why}");
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(wrong(&format!("is longer than {TEMPLATE_BYTES_MAX} bytes")));
        }
        let Some(inner) = text.strip_prefix('/') else { return Err(wrong("must begin with a slash")) };
        let (mut parts, mut spelling) = (Vec::new(), String::with_capacity(text.len()));
        let segments = if inner.is_empty() { Vec::new() } else { segments(inner).map_err(wrong)? };
        for segment in &segments {
            if parts.last() == Some(&Part::Rest) {
                return Err(wrong("has a segment after its umbrella"));
            }
            spelling.push('/');
            let read = part(segment, &mut spelling).map_err(|why| wrong(&why))?;
            if read.is_wide() && parts.iter().any(Part::is_wide) {
                return Err(wrong("has more than one parameter of many segments or umbrella"));
            }
            parts.push(read);
        }
        if parts.len() > SEGMENTS_MAX {
            return Err(wrong(&format!("has more than {SEGMENTS_MAX} segments")));
        }
        if inner.is_empty() || inner.ends_with('/') {
            spelling.push('/');
        }
        Ok((Self { parts }, spelling))
    }

    /// The form for the trie, which holds only plain templates; see `Template::is_plain`.
    pub fn trie_route(&self) -> String {
        let part = |(n, part): (usize, &Part)| match part {
            Part::One(pattern) if pattern.is_literal() => format!("/{}", pattern.0[0]),
            Part::One(_) => format!("/{{p{n}}}"),
            Part::Many(_) | Part::Rest => "/{*rest}".to_owned(),
        };
        let shape: String = self.parts.iter().enumerate().map(part).collect();
        if shape.is_empty() { "/".into() } else { shape }
    }

    /// Whether every segment is a literal or a parameter of the whole segment, as in nearly all templates.
    pub fn is_plain(&self) -> bool {
        let is_plain =
            |part: &Part| matches!(part, Part::One(pattern) if pattern.is_literal() || pattern.is_parameter());
        self.parts.iter().all(is_plain)
    }

    pub fn is_umbrella(&self) -> bool {
        self.parts.last() == Some(&Part::Rest)
    }

    /// Whether it matches paths with any number of segments.
    pub fn is_wide(&self) -> bool {
        self.parts.iter().any(Part::is_wide)
    }

    /// Whether it matches a canonical path.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path.get(1..).filter(|rest| !rest.is_empty());
        for (n, part) in self.parts.iter().enumerate() {
            let Some(text) = rest else { return false };
            match part {
                Part::Rest => return true,
                Part::Many(pattern) => return matches_many(pattern, &self.parts[n + 1..], text),
                Part::One(pattern) => {
                    let (segment, next) = next_segment(text);
                    if !pattern.matches(segment) {
                        return false;
                    }
                    rest = next;
                }
            }
        }
        rest.is_none()
    }

    /// Whether this template is an umbrella that matches all paths of the other template.
    pub fn covers(&self, other: &Self) -> bool {
        let fixed = &self.parts[..self.parts.len().saturating_sub(1)];
        let is_over =
            |(own, its): (&Part, &Part)| matches!((own, its), (Part::One(own), Part::One(its)) if own.covers(its));
        self.is_umbrella()
            && other.parts.len() > fixed.len()
            && fixed.iter().zip(&other.parts).all(is_over)
            && self != other
    }
}

/// The order that the documentation of the module defines.
impl Ord for Template {
    fn cmp(&self, other: &Self) -> Ordering {
        self.is_wide().cmp(&other.is_wide()).then_with(|| {
            let mut orders = self.parts.iter().zip(&other.parts).map(|(own, its)| own.cmp(its));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| other.parts.len().cmp(&self.parts.len()))
        })
    }
}

impl PartialOrd for Template {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// ── parsing ──

/// Splits at slashes; a slash at the end adds no segment. Braces can be nested, as in regular expressions.
fn segments(inner: &str) -> Result<Vec<&str>, &'static str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1).ok_or("has a closing brace without an opening one")?,
            '/' if depth > 0 => return Err("has a parameter that contains a slash"),
            '/' => {
                found.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("has an opening brace without a closing one");
    }
    if start < inner.len() {
        found.push(&inner[start..]);
    }
    if found.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return Err("has an empty or dot segment");
    }
    Ok(found)
}

/// Parses one segment, and appends its normalized spelling.
fn part(segment: &str, spelling: &mut String) -> Result<Part, String> {
    if segment.starts_with('*') {
        spelling.push_str(segment);
        return Ok(Part::Rest);
    }
    if let Some(name) = segment.strip_prefix(':').filter(|_| !segment.contains('{')) {
        spelling.push_str(segment);
        return if is_plain_name(name) {
            Ok(whole_parameter())
        } else {
            Err("has a parameter without a plain name".into())
        };
    }
    let (mut texts, mut is_many, mut rest) = (Vec::new(), false, segment);
    while let Some(open) = rest.find('{') {
        let close = closing_brace(&rest[open..]).ok_or("has an opening brace without a closing one")? + open;
        texts.push(literal(&rest[..open], spelling)?);
        is_many |= parameter(&rest[open + 1..close], spelling)?;
        rest = &rest[close + 1..];
    }
    texts.push(literal(rest, spelling)?);
    let inner = texts.get(1..texts.len().saturating_sub(1)).unwrap_or_default();
    if inner.iter().any(|text| text.is_empty()) {
        return Err(format!("has two adjacent parameters in {segment:?}"));
    }
    if texts.len() == 1 && matches!(&*texts[0], "." | "..") {
        return Err("has an empty or dot segment".into());
    }
    match (is_many, texts.len()) {
        (false, _) => Ok(Part::One(Pattern(texts))),
        (true, 2) => Ok(Part::Many(Pattern(texts))),
        (true, _) => Err(format!("has a parameter of many segments together with another one in {segment:?}")),
    }
}

fn whole_parameter() -> Part {
    Part::One(Pattern(vec!["".into(), "".into()]))
}

/// The index of the brace that closes the one at the beginning.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Decodes text outside of braces, and appends its normalized spelling.
fn literal(text: &str, spelling: &mut String) -> Result<Box<str>, String> {
    let decoded = if text.contains('%') { decoded(text).map(Cow::Owned) } else { Some(Cow::Borrowed(text)) };
    // Characters that no canonical path contains would never match.
    let is_allowed = |c: char| !c.is_control() && !"{}*\\#?;%/".contains(c);
    let Some(decoded) = decoded.filter(|decoded| decoded.chars().all(is_allowed)) else {
        return Err(format!("has the text {text:?}, which no accepted path can contain"));
    };
    for c in decoded.chars() {
        match c {
            '!'..='~' => spelling.push(c),
            _ => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| spelling.push_str(&format!("%{byte:02X}"))),
        }
    }
    Ok(decoded.into())
}

/// Parses the text between braces, and appends its normalized spelling. Returns whether it is a parameter of many
/// segments.
fn parameter(inner: &str, spelling: &mut String) -> Result<bool, String> {
    let many = name_of_many(inner);
    let name = many.unwrap_or(inner);
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("has a parameter without a name".into());
    }
    if name.starts_with(['?', '&', '#', ';', '.']) {
        return Err(format!("has the parameter {inner:?}, which does not belong to a path segment"));
    }
    match many {
        Some(name) => spelling.push_str(&format!("{{{name}+}}")),
        None => spelling.push_str(&format!("{{{inner}}}")),
    }
    Ok(many.is_some())
}

/// The name of a parameter of many segments, in any of its spellings.
fn name_of_many(inner: &str) -> Option<&str> {
    if let Some((name, pattern)) = inner.split_once(':') {
        return [".*", ".+", ".*?", ".+?", "path"].contains(&pattern).then_some(name);
    }
    let suffixes = ["...", "=**", "**", "*", "+"];
    let prefixes = ["**", "*", "+"];
    let name = suffixes.iter().find_map(|sign| inner.strip_suffix(sign));
    name.or_else(|| prefixes.iter().find_map(|sign| inner.strip_prefix(sign)))
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

// ── matching ──

fn next_segment(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(segment, next)| (segment, Some(next)))
}

/// Whether the text matches a parameter of many segments followed by these parts.
fn matches_many(pattern: &Pattern, following: &[Part], text: &str) -> bool {
    let mut rest = text;
    for part in following.iter().rev() {
        let Some((before, segment)) = rest.rsplit_once('/') else { return false };
        if !matches!(part, Part::One(own) if own.matches(segment)) {
            return false;
        }
        rest = before;
    }
    pattern.matches(rest)
}

/// A tree of templates with text around parameters, which the trie cannot hold. The search goes from the left, in the
/// order of the module, and backtracks if nothing matches. It visits each node at most once.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    literals: Vec<(Box<str>, Tree)>,
    /// Sorted, most specific first.
    patterns: Vec<(Pattern, Tree)>,
    /// The index of the template that ends here.
    here: Option<usize>,
}

impl Tree {
    pub fn insert(&mut self, template: &Template, index: usize) {
        let mut tree = self;
        for part in &template.parts {
            let Part::One(pattern) = part else { return };
            tree = tree.child(pattern);
        }
        tree.here = Some(index);
    }

    fn child(&mut self, pattern: &Pattern) -> &mut Self {
        if pattern.is_literal() {
            let text = &pattern.0[0];
            let at = self.literals.binary_search_by(|(known, _)| known.cmp(text)).unwrap_or_else(|at| {
                self.literals.insert(at, (text.clone(), Self::default()));
                at
            });
            return &mut self.literals[at].1;
        }
        let at = self.patterns.binary_search_by(|(known, _)| known.cmp(pattern)).unwrap_or_else(|at| {
            self.patterns.insert(at, (pattern.clone(), Self::default()));
            at
        });
        &mut self.patterns[at].1
    }

    pub fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.patterns.is_empty() && self.here.is_none()
    }

    /// The index of the most specific template that matches a canonical path.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.below(path.get(1..).filter(|rest| !rest.is_empty()))
    }

    fn below(&self, rest: Option<&str>) -> Option<usize> {
        let Some(rest) = rest else { return self.here };
        let (segment, next) = next_segment(rest);
        let literal = self.literals.binary_search_by(|(known, _)| (**known).cmp(segment)).ok();
        literal.and_then(|at| self.literals[at].1.below(next)).or_else(|| {
            let mut matching = self.patterns.iter().filter(|(pattern, _)| pattern.matches(segment));
            matching.find_map(|(_, tree)| tree.below(next))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn plain_paths_stay_unchanged_and_encoded_ones_are_decoded_once() {
        for (target, path) in [
            ("/", "/"),
            ("/api/v1/members/7?x=/../", "/api/v1/members/7"),
            ("/api/v1/members/a%40b.org", "/api/v1/members/a@b.org"),
            ("/api/v1/members/", "/api/v1/members"),
            ("/caf%C3%A9", "/café"),
            ("/a/...", "/a/..."),
            ("/A", "/A"),
            ("/a%20b", "/a b"),
        ] {
            assert_eq!(canonical(target).as_deref(), Some(path), "{target}");
        }
    }

    #[test]
    fn ambiguous_paths_are_rejected() {
        for target in [
            "",
            "a",
            "*",
            "http://h/api",
            "api/v1",
            "//",
            "/a//b",
            "/a/../b",
            "/a/./b",
            "/a/.",
            "/..",
            "/a//",
            "/a/%2fb",
            "/a%5cb",
            "/a\\b",
            "/%252e%252e/",
            "/%2e%2e/admin",
            "/a/%2e",
            "/a;x=1/b",
            "/a%3bx",
            "/a#b",
            "/a%23b",
            "/a%00",
            "/a\u{7f}",
            "/a\tb",
            "/a b",
            "/é",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%ff",
            "/a%25",
            "/a%3fb",
            "/%2F",
        ] {
            assert_eq!(canonical(target), None, "{target}");
        }
    }

    #[test]
    fn a_canonical_path_is_its_own_canonical_form() {
        for target in ["/", "/a", "/a/b@c", "/x/:y/{z}"] {
            let once = canonical(target).expect("canonical").into_owned();
            assert_eq!(canonical(&once).as_deref(), Some(once.as_str()));
        }
    }
}

#[cfg(test)]
mod template_tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::authz::catalog::{Catalog, Node, PermissionIndex, RouteMatch, UserType};

    #[test]
    fn invalid_templates_are_rejected_with_a_reason() {
        for (text, why) in [
            ("", "slash"),
            ("a", "slash"),
            ("/a//b", "empty"),
            ("/a//", "empty"),
            ("/a/../b", "dot segment"),
            ("/a/%2e", "dot segment"),
            ("/a%2fb", "no accepted path"),
            ("/a%zz", "no accepted path"),
            ("/a%25", "no accepted path"),
            ("/a;b", "no accepted path"),
            ("/a?x", "no accepted path"),
            ("/a#x", "no accepted path"),
            ("/a*", "no accepted path"),
            ("/a\\b", "no accepted path"),
            ("/a\tb", "no accepted path"),
            ("/a/*rest/b", "after its umbrella"),
            ("/{a+}/b/{b+}", "more than one"),
            ("/{a+}/*rest", "more than one"),
            ("/{a}{b}", "adjacent"),
            ("/{a}.{b}{c}", "adjacent"),
            ("/{a}.{b+}", "together"),
            ("/:", "name"),
            ("/:a b", "name"),
            ("/{}", "name"),
            ("/{+}", "name"),
            ("/{a", "without a closing"),
            ("/a}", "without an opening"),
            ("/{a/b}", "contains a slash"),
            ("/a{?q}", "does not belong"),
            ("/a{.format}", "does not belong"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Template::parse(&"/a".repeat(SEGMENTS_MAX)).is_ok());
        assert!(Template::parse(&"/a".repeat(SEGMENTS_MAX + 1)).is_err());
        assert!(Template::parse(&format!("/{}", "a".repeat(TEMPLATE_BYTES_MAX - 1))).is_ok());
        assert!(Template::parse(&format!("/{}", "a".repeat(TEMPLATE_BYTES_MAX))).is_err());
    }

    #[test]
    fn templates_have_a_normalized_spelling() {
        for (text, spelled) in [
            ("/", "/"),
            ("/a/:b/{c}", "/a/:b/{c}"),
            ("/a/", "/a/"),
            ("/使用者/{編號}", "/%E4%BD%BF%E7%94%A8%E8%80%85/{編號}"),
            ("/%e4%bd%bf%e7%94%a8%e8%80%85/{編號}", "/%E4%BD%BF%E7%94%A8%E8%80%85/{編號}"),
            ("/v/{user id}", "/v/{user id}"),
            ("/a b/%41'(x)", "/a%20b/A'(x)"),
            ("/f/{path:.*}", "/f/{path+}"),
            ("/f/{path:.+}", "/f/{path+}"),
            ("/f/{path:path}", "/f/{path+}"),
            ("/f/{+path}", "/f/{path+}"),
            ("/f/{path*}", "/f/{path+}"),
            ("/f/{*path}", "/f/{path+}"),
            ("/f/{**path}", "/f/{path+}"),
            ("/f/{path...}", "/f/{path+}"),
            ("/f/{path=**}", "/f/{path+}"),
            ("/v1/{name+}:cancel", "/v1/{name+}:cancel"),
            ("/n/{id:[0-9]{3}}", "/n/{id:[0-9]{3}}"),
            ("/a/*rest", "/a/*rest"),
        ] {
            let (template, once) = Template::read(text).expect(text);
            assert_eq!(once, spelled);
            assert_eq!(Template::read(&once), Ok((template, once.clone())), "{once}");
        }
    }

    #[test]
    fn plain_templates_have_a_shape_for_the_trie() {
        for (text, shape) in [("/", "/"), ("/a/:b/{c}", "/a/{p1}/{p2}"), ("/a/", "/a"), ("/*", "/{*rest}")] {
            let template = Template::parse(text).expect(text);
            assert_eq!((template.trie_route().as_str(), template.is_plain()), (shape, !text.contains('*')));
        }
        assert!(!Template::parse("/a.{b}").expect("a template").is_plain());
    }

    #[test]
    fn each_parameter_needs_at_least_one_character() {
        let matches = |template: &str, text: &str| match &Template::parse(template).expect(template).parts[0] {
            Part::One(pattern) | Part::Many(pattern) => pattern.matches(text),
            Part::Rest => true,
        };
        for (template, text, expected) in [
            ("/{a}.json", "7.json", true),
            ("/{a}.json", ".json", false),
            ("/{a}.json", "7.json.json", true),
            ("/v{a}", "v1", true),
            ("/v{a}", "v", false),
            ("/aa{x}aa", "aaa", false),
            ("/aa{x}aa", "aaaa", false),
            ("/aa{x}aa", "aaaaa", true),
            ("/{a}.{b}", "x.y.z", true),
            ("/{a}.{b}", "..x", true),
            ("/{a}.{b}", ".x", false),
            ("/{a}.{b}", "x.", false),
            ("/{a}-{b}-{c}", "1-2", false),
            ("/{a}-{b}-{c}", "1-2-3", true),
            ("/{a}é{b}", "öéü", true),
            ("/{a}é{b}", "éé", false),
            ("/{name+}:undo", "a/b:undo", true),
        ] {
            assert_eq!(matches(template, text), expected, "{template} {text}");
        }
    }

    /// All words of one to four of these characters: enough to distinguish the patterns below.
    fn words() -> Vec<String> {
        let mut all = vec![String::new()];
        for start in (0..4).map(|n| 4_usize.pow(n)) {
            let longer: Vec<String> =
                all[all.len() - start..].iter().flat_map(|w| "ab.z".chars().map(move |c| format!("{w}{c}"))).collect();
            all.extend(longer);
        }
        all.split_off(1)
    }

    /// A naive matcher: one regular expression per template, and a second implementation of the order.
    struct Naive {
        texts: Vec<String>,
        expressions: Vec<regex::Regex>,
    }

    /// The sort key of a segment: its kind, the negated lengths of its texts, and the texts.
    type Precedence = (u8, i64, i64, i64, String);

    impl Naive {
        fn new(templates: BTreeSet<String>) -> Self {
            let texts: Vec<String> =
                templates.into_iter().map(|text| if text.is_empty() { "/".into() } else { text }).collect();
            let expressions = texts.iter().map(|text| Self::expression(text)).collect();
            Self { texts, expressions }
        }

        fn expression(text: &str) -> regex::Regex {
            let escaped =
                regex::escape(text).replace(r"\{p\}", "[^/]+").replace(r"\{m\+\}", ".+").replace(r"\*r", ".+");
            regex::Regex::new(&format!("^{escaped}$")).expect("an expression")
        }

        fn is_wide(text: &str) -> bool {
            text.contains("{m+}") || text.contains("*r")
        }

        /// The sort key of a template; smaller is more specific.
        fn key(text: &str) -> (bool, Vec<Precedence>) {
            let segment = |segment: &str| {
                let texts: Vec<&str> = segment.split("{p}").flat_map(|text| text.split("{m+}")).collect();
                let length = |text: &str| -(text.len() as i64);
                let around = (length(texts[0]), length(texts[texts.len() - 1]), length(&texts.concat()));
                let (kind, (first, last, all)) = match segment {
                    "*r" => (5, (0, 0, 0)),
                    "{m+}" => (4, (0, 0, 0)),
                    _ if segment.contains("{m+}") => (3, around),
                    "{p}" => (2, (0, 0, 0)),
                    _ if segment.contains("{p}") => (1, around),
                    _ => (0, (0, 0, 0)),
                };
                (kind, first, last, all, texts.join("\0"))
            };
            // An end marker after all segments: a prefix of another template sorts after it.
            let end = (9, 0, 0, 0, String::new());
            (Self::is_wide(text), text[1..].split('/').map(segment).chain([end]).collect())
        }

        /// Whether an umbrella matches everything that the other template matches; tried with all words, segment by
        /// segment.
        fn lies_over(umbrella: &str, other: &str, words: &[String]) -> bool {
            let Some(fixed) = umbrella.strip_suffix("*r") else { return false };
            let own: Vec<&str> = fixed.split('/').filter(|text| !text.is_empty()).collect();
            let its: Vec<&str> = other.split('/').filter(|text| !text.is_empty()).collect();
            let is_over = |own: &str, its: &str| {
                let (own, its_expression) = (Self::expression(own), Self::expression(its));
                !Self::is_wide(its) && words.iter().all(|word| !its_expression.is_match(word) || own.is_match(word))
            };
            its.len() > own.len() && own.iter().zip(&its).all(|(own, its)| is_over(own, its))
        }

        /// The permissions of the most specific template and of the umbrellas that cover it.
        fn slots(&self, path: &str, words: &[String]) -> BTreeSet<PermissionIndex> {
            let matching = (0..self.texts.len()).filter(|n| self.expressions[*n].is_match(path));
            let Some(best) = matching.min_by_key(|n| Self::key(&self.texts[*n])) else { return BTreeSet::new() };
            let is_over = |n: &usize| *n == best || Self::lies_over(&self.texts[*n], &self.texts[best], words);
            (0..self.texts.len()).filter(is_over).map(|n| PermissionIndex::try_from(n).expect("few")).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// The catalog answers with the permissions that the naive matcher finds.
        #[test]
        fn the_catalog_selects_the_same_templates_as_the_naive_matcher(
            templates in prop::collection::btree_set(
                "(/(a|b|ab|a\\.b|\\{p\\}|\\{p\\}|\\{p\\}\\.b|\\{p\\}b|a\\{p\\}|ab\\{p\\}|a\\{p\\}b|\\{p\\}\\.\\{p\\}|\\{p\\}\\.\\{p\\}b)){0,3}(/\\*r|/\\{m\\+\\}|/\\{m\\+\\}\\.b|/a\\{m\\+\\}|/\\{m\\+\\}/(a|\\{p\\}|\\{p\\}b)|/\\{m\\+\\}\\.b/a/\\{p\\})?",
                1..24,
            ),
            paths in prop::collection::vec("(/(a|b|z|ab|aab|abb|a\\.b|b\\.b|a\\.a\\.b|ab\\.b|\\.b|b\\.)){0,4}", 16),
        ) {
            let (naive, words) = (Naive::new(templates), words());
            let node = |(slot, text): (PermissionIndex, &String)| Node {
                slot,
                name: format!("p{slot}").into(),
                app: "main".into(),
                parent: None,
                http_methods: Some("GET".into()),
                http_path: Some(text.as_str().into()),
                is_open: true,
                user_type: UserType::Backend,
                orphaned: false,
                position: 0,
            };
            let catalog = Catalog::build((0..).zip(&naive.texts).map(node).collect());
            for path in &paths {
                let path = if path.is_empty() { "/" } else { path };
                let found: BTreeSet<PermissionIndex> = match catalog.route("main", "GET", path) {
                    RouteMatch::Permissions(_, slots) => slots.concat().into_iter().collect(),
                    RouteMatch::OtherMethod(_) | RouteMatch::NoRoute => BTreeSet::new(),
                };
                prop_assert_eq!(found, naive.slots(path, &words), "{} of {:?}", path, naive.texts);
            }
        }
    }
}
