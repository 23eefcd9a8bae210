//! Video paths: `username/…` below the media root, in canonical form.
//!
//! **Invariant.** A path cannot leave the media root and has exactly one spelling. Its bytes are kept unchanged: names
//! that a file system would fold (case, composed and decomposed accents) are different names here.

use std::path::Path;

use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::secret;

/// A valid path, relative to the media root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VideoPath(String);

impl VideoPath {
    /// Parses `username/…`, optionally with a leading `./`, or an absolute path below the media root. Fails with
    /// `video_path`.
    pub fn parse(text: &str, media_root: &Path, bytes_max: u64) -> Result<Self> {
        let refused = |why: &str| {
            let mut error = Error::new(ErrorCode::VideoPath);
            error.fields.push(Field::body("path", why));
            error
        };
        if text.chars().any(char::is_control) || text.contains('\\') {
            return Err(refused("must not have control characters or backslashes"));
        }
        let relative = match text.starts_with('/') {
            true => below(text, media_root).ok_or_else(|| refused("must be relative, or lie below the media root"))?,
            false => text.strip_prefix("./").unwrap_or(text),
        };
        if relative.len() as u64 > bytes_max {
            return Err(refused(&format!("must not be longer than {bytes_max} bytes (limits.video_path_bytes)")));
        }
        if relative.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(refused("must not have empty parts, `.` or `..`"));
        }
        if !relative.contains('/') {
            return Err(refused("must begin with the name of a member's folder: `username/…`"));
        }
        Ok(Self(relative.to_owned()))
    }

    /// Wraps a path from the database, which was validated when it was stored.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first segment: the owner's SFTPGo username.
    pub fn folder(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Returns the path below the owner's folder.
    pub fn below_folder(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, below)| below)
    }

    /// Returns the video's id, which does not depend on the location of the media root.
    pub fn id(&self) -> String {
        hex::encode(&secret::hash(&self.0)[..8])
    }
}

/// Whether a name can be a member's folder. Other names could lead outside the folders' parent.
pub fn is_folder(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.chars().any(|c| c.is_control() || "/\\".contains(c))
}

/// Whether a file is not a video because its name, or that of a folder it is in, matches one of `names`. In these
/// patterns `*` matches any text; ASCII case is ignored. `path` is relative to the member's folder.
pub fn is_ignored(names: &[String], path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !["", ".", ".."].contains(part));
    parts.any(|part| names.iter().any(|pattern| matches(part, pattern)))
}

fn matches(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_ascii_lowercase(), pattern.to_ascii_lowercase());
    let Some((begin, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(begin) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return name.ends_with(piece);
        }
        match name.split_once(piece) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    true
}

/// Returns the part of an absolute path below the media root.
fn below<'t>(text: &'t str, media_root: &Path) -> Option<&'t str> {
    let root = media_root.to_str().filter(|root| root.starts_with('/'))?.trim_end_matches('/');
    text.strip_prefix(root)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: u64 = 64;

    fn parse(text: &str) -> Result<String> {
        VideoPath::parse(text, Path::new("/srv/media"), BYTES_MAX).map(|path| path.0)
    }

    #[test]
    fn each_file_has_one_spelling() {
        for text in ["kim/a.mp4", "./kim/a.mp4", "/srv/media/kim/a.mp4"] {
            assert_eq!(parse(text).expect("a path"), "kim/a.mp4");
        }
        assert_eq!(parse("kim/x/y z.mp4").expect("a path"), "kim/x/y z.mp4");
        assert_eq!(VideoPath::parse("/media/kim/a", Path::new("/media/"), 64).expect("a path").0, "kim/a");
        assert_eq!(VideoPath::parse("/kim/a", Path::new("/"), 64).expect("a path").0, "kim/a");
    }

    #[test]
    fn invalid_paths_are_rejected() {
        for text in [
            "",
            ".",
            "..",
            "/",
            "./",
            "kim",
            "kim/",
            "/kim/a",
            "kim//a",
            "kim/./a",
            "././kim/a",
            "kim/../lee/a",
            "../a/b",
            "kim/a/..",
            "kim/a\0",
            "kim/a\n",
            "kim\\a/b",
            "kim/\u{85}",
            "/srv/mediakim/a",
            "/srv/media//kim/a",
            "/srv/media/../kim/a",
            "/srv/media/kim",
        ] {
            let refused = parse(text).expect_err(text);
            assert_eq!(refused.code, ErrorCode::VideoPath, "{text:?}");
            assert_eq!(refused.fields.len(), 1, "{text:?}");
        }
    }

    #[test]
    fn names_that_lead_outside_are_not_folders() {
        assert!(["kim", "Kim B.", "金 ?&%", "{username}"].into_iter().all(is_folder));
        for name in ["", ".", "..", ".ssh", "a/b", "a/../b", "a\\b", "a\0"] {
            assert!(!is_folder(name), "{name}");
        }
    }

    #[test]
    fn a_path_is_ignored_if_any_segment_matches_a_pattern() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = names(&[".*", "*.part", "a*b*c", "Thumbs.db", "*tmp*"]);
        for path in [
            ".DS_Store",
            "._a.mp4",
            "x/.trash/a.mp4",
            "a.mp4.part",
            "A.PART",
            ".part",
            "abc",
            "aXbXc",
            "abbc",
            "thumbs.DB",
            "a.tmp.mp4",
        ] {
            assert!(is_ignored(&all, path), "{path}");
        }
        for path in ["a.mp4", "", ".", "..", "/../.", "part", "a.parts", "ab", "xabc", "acb", "Thumbs.db.mp4"] {
            assert!(!is_ignored(&all, path), "{path}");
        }
        assert!(is_ignored(&names(&["*"]), "a") && !is_ignored(&names(&["*"]), "") && !is_ignored(&[], ".a"));
    }

    #[test]
    fn a_path_can_have_the_maximum_length_and_no_more() {
        let name = |bytes: usize| format!("kim/{}", "a".repeat(bytes - 4));
        assert!(parse(&name(64)).is_ok());
        assert!(parse(&format!("./{}", name(64))).is_ok());
        assert!(parse(&name(65)).is_err());
    }

    #[test]
    fn the_id_is_derived_from_the_path_below_the_media_root() {
        let path = VideoPath::parse("./kim/a.mp4", Path::new(""), BYTES_MAX).expect("a path");
        // printf kim/a.mp4 | sha256sum | cut -c1-16
        assert_eq!(path.id().len(), 16);
        assert_eq!(path.id(), VideoPath::stored("kim/a.mp4".into()).id());
        assert_ne!(path.id(), VideoPath::stored("lee/a.mp4".into()).id());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn valid_paths_stay_below_their_folder_and_have_one_spelling(
            text in "[./\\\\a-c\u{0}\u{e9} ]{0,12}",
            is_below in any::<bool>(),
        ) {
            let text = if is_below { format!("/srv/media/{text}") } else { text };
            if let Ok(path) = VideoPath::parse(&text, Path::new("/srv/media"), BYTES_MAX) {
                let parts: Vec<&str> = path.as_str().split('/').collect();
                prop_assert!(parts.len() >= 2);
                prop_assert!(parts.iter().all(|part| !["", ".", ".."].contains(part)));
                prop_assert!(!path.as_str().contains(['\0', '\\']));
                prop_assert_eq!(parts[0], path.folder());
                prop_assert!(text.ends_with(path.as_str()));
                // Parsing the result again yields the same path.
                let again = VideoPath::parse(path.as_str(), Path::new("/srv/media"), BYTES_MAX);
                prop_assert_eq!(again.ok(), Some(path));
            }
        }
    }
}
