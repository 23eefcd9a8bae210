//! The canonical form of a request path: one function for all callers.
//!
//! **Invariant.** Reject, never clean. A path that a gateway and the service behind it could interpret differently has
//! no canonical form, and a path without one is denied.

use std::borrow::Cow;

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
