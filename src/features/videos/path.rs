//! What a video's path may be: `username/…` below the media root, in one spelling.
//!
//! **Invariant.** A path has no way out of the media root, and no second spelling. Its bytes are kept as they came: a
//! name that a file system would fold (case, composed and decomposed accents) is another name here.

use std::path::Path;

use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::secret;

/// A path that keeps the rules, relative to the media root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VideoPath(String);

impl VideoPath {
    /// Takes `username/…`, also with `./` in front, and an absolute path where it lies below the media root.
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

    /// A path that was stored, and so keeps the rules.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first part: the owner's name at SFTPGo.
    pub fn folder(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// What follows the first part.
    pub fn below_folder(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, below)| below)
    }

    /// The video's id, which moving the media root keeps.
    pub fn id(&self) -> String {
        hex::encode(&secret::hash(&self.0)[..8])
    }
}

/// Can a member's name be that of its folder? Another one would lead out of where the folders are.
pub fn is_folder(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.chars().any(|c| c.is_control() || "/\\".contains(c))
}

/// Is a file no video, by its name or that of a folder it lies in? `names` has `*` for any text; upper and lower case of
/// ASCII are the same. `path` is below the member's folder.
pub fn is_ignored(names: &[String], path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !["", ".", ".."].contains(part));
    parts.any(|part| names.iter().any(|pattern| is_like(part, pattern)))
}

fn is_like(name: &str, pattern: &str) -> bool {
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

/// What follows the media root in an absolute path.
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
    fn one_spelling_for_each_file() {
        for text in ["kim/a.mp4", "./kim/a.mp4", "/srv/media/kim/a.mp4"] {
            assert_eq!(parse(text).expect("a path"), "kim/a.mp4");
        }
        assert_eq!(parse("kim/x/y z.mp4").expect("a path"), "kim/x/y z.mp4");
        assert_eq!(VideoPath::parse("/media/kim/a", Path::new("/media/"), 64).expect("a path").0, "kim/a");
        assert_eq!(VideoPath::parse("/kim/a", Path::new("/"), 64).expect("a path").0, "kim/a");
    }

    #[test]
    fn what_is_no_path_of_a_video() {
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
            assert_eq!(refused.cause, ErrorCode::VideoPath, "{text:?}");
            assert_eq!(refused.fields.len(), 1, "{text:?}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_no_folder() {
        assert!(["kim", "Kim B.", "金 ?&%", "{username}"].into_iter().all(is_folder));
        for name in ["", ".", "..", ".ssh", "a/b", "a/../b", "a\\b", "a\0"] {
            assert!(!is_folder(name), "{name}");
        }
    }

    #[test]
    fn a_name_is_ignored_by_a_pattern_of_any_part() {
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
    fn a_path_is_as_long_as_allowed_and_not_a_byte_longer() {
        let name = |bytes: usize| format!("kim/{}", "a".repeat(bytes - 4));
        assert!(parse(&name(64)).is_ok());
        assert!(parse(&format!("./{}", name(64))).is_ok());
        assert!(parse(&name(65)).is_err());
    }

    #[test]
    fn the_id_is_of_the_path_below_the_media_root() {
        let path = VideoPath::parse("./kim/a.mp4", Path::new(""), BYTES_MAX).expect("a path");
        // printf kim/a.mp4 | sha256sum | cut -c1-16
        assert_eq!(path.id().len(), 16);
        assert_eq!(path.id(), VideoPath::stored("kim/a.mp4".into()).id());
        assert_ne!(path.id(), VideoPath::stored("lee/a.mp4".into()).id());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn what_is_taken_stays_below_its_folder_and_has_one_spelling(
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
                // Taken again it is the same.
                let again = VideoPath::parse(path.as_str(), Path::new("/srv/media"), BYTES_MAX);
                prop_assert_eq!(again.ok(), Some(path));
            }
        }
    }
}
