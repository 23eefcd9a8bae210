//! The manual: Markdown in the binary, rendered for browsers and terminals, with a search. It needs no internet.
//!
//! The only user of pulldown-cmark. Pages link to each other by relative file paths, so that links also work in the
//! repository.

mod html;
mod plain;
mod search;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

pub use html::{page, results};
pub use plain::plain;

use crate::kernel::nearest::did_you_mean;

/// The path of the first page. The other pages are below it.
pub const PATH: &str = "/manual";

/// The content security policy of the pages: they run no script and load nothing.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// One page.
#[derive(Debug)]
pub struct Page {
    /// Its name in `roster help` and in its path; `reference/…` for generated pages.
    pub name: &'static str,
    /// Its path in the repository.
    pub file: &'static str,
    pub text: &'static str,
}

macro_rules! pages {
    ($($name:literal $file:literal;)*) => {
        /// All pages, in reading order.
        pub const PAGES: &[Page] = &[$(Page {
            name: $name,
            file: $file,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $file)),
        },)*];
    };
}

pages! {
    "index" "packaging/manual/index.md";
    "console" "packaging/manual/console.md";
    "sign-in" "packaging/manual/sign-in.md";
    "members-and-organizations" "packaging/manual/members-and-organizations.md";
    "permissions" "packaging/manual/permissions.md";
    "plugins" "packaging/manual/plugins.md";
    "writing-plugins" "plugins/README.md";
    "oidc" "packaging/manual/oidc.md";
    "wordpress" "packaging/manual/wordpress.md";
    "sftpgo" "packaging/manual/sftpgo.md";
    "webhooks" "packaging/manual/webhooks.md";
    "mail" "packaging/manual/mail.md";
    "api-keys" "packaging/manual/api-keys.md";
    "videos-and-quotas" "packaging/manual/videos-and-quotas.md";
    "jobs" "packaging/manual/jobs.md";
    "operating" "packaging/manual/operating.md";
    "tls" "packaging/manual/tls.md";
    "security" "packaging/manual/security.md";
    "reference/commands" "packaging/manual/reference/commands.md";
    "reference/settings" "packaging/manual/reference/settings.md";
    "reference/permissions" "packaging/manual/reference/permissions.md";
    "reference/error-codes" "packaging/manual/reference/error-codes.md";
    "reference/events" "packaging/manual/reference/events.md";
    "reference/metrics" "packaging/manual/reference/metrics.md";
}

impl Page {
    /// Its path on this server.
    pub fn path(&self) -> String {
        if self.name == "index" { PATH.to_owned() } else { format!("{PATH}/{}", self.name) }
    }

    /// Its first heading.
    pub fn title(&self) -> &'static str {
        self.text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(self.name)
    }

    /// The page that a link on this page leads to, and the fragment (`#…`, or empty). `None` if the link leads to no
    /// page.
    fn target(&self, link: &str) -> Option<(&'static Page, String)> {
        let (file, part) =
            link.split_once('#').map_or((link, String::new()), |(file, part)| (file, format!("#{part}")));
        let mut folders: Vec<&str> = self.file.split('/').collect();
        if !file.is_empty() {
            folders.pop();
            for folder in file.split('/') {
                match folder {
                    "." => {}
                    ".." => drop(folders.pop()),
                    folder => folders.push(folder),
                }
            }
        }
        let wanted = folders.join("/");
        PAGES.iter().find(|page| page.file == wanted).map(|page| (page, part))
    }
}

/// Finds a page by name; the prefix `reference/` can be omitted. Fails with a suggestion, which can be empty.
pub fn find(name: &str) -> Result<&'static Page, String> {
    let is_it = |page: &&Page| page.name == name || page.name.strip_prefix("reference/") == Some(name);
    let unknown = || did_you_mean(name, PAGES.iter().map(|page| page.name.trim_start_matches("reference/")));
    PAGES.iter().find(is_it).ok_or_else(unknown)
}

/// A heading of a page: its level from 1, its text, and its anchor.
struct Heading {
    level: usize,
    text: String,
    anchor: String,
}

/// Parses a page to Markdown events, without HTML.
fn events(page: &Page) -> Vec<Event<'static>> {
    // HTML comments mark generated tables, and are not for readers.
    let is_shown = |event: &Event<'_>| {
        !matches!(
            event,
            Event::Html(_) | Event::InlineHtml(_) | Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock)
        )
    };
    Parser::new_ext(page.text, Options::ENABLE_TABLES).filter(is_shown).collect()
}

/// The headings among these events, in order. Anchors are the same as on GitHub, so that links work in both places.
fn headings(events: &[Event<'_>]) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for event in events {
        match event {
            Event::Start(Tag::Heading { level, .. }) => open = Some((*level as usize, String::new())),
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, heading)) = &mut open {
                    heading.push_str(text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((level, text)) = open.take() {
                    let plain = slug(&text);
                    let again = found.iter().filter(|heading| slug(&heading.text) == plain).count();
                    let anchor = if again == 0 { plain } else { format!("{plain}-{again}") };
                    found.push(Heading { level, text, anchor });
                }
            }
            _ => {}
        }
    }
    found
}

/// The anchor that GitHub generates for a heading.
fn slug(text: &str) -> String {
    let kept = text.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_to_the_file_of_their_page() {
        let at = |name: &str, link: &str| {
            let target = find(name).expect(name).target(link);
            target.map(|(page, part)| (page.name, part))
        };
        assert_eq!(at("sign-in", "oidc.md"), Some(("oidc", String::new())));
        assert_eq!(at("settings", "../sign-in.md#sessions"), Some(("sign-in", "#sessions".to_owned())));
        assert_eq!(at("plugins", "../../plugins/README.md"), Some(("writing-plugins", String::new())));
        assert_eq!(at("jobs", "#a"), Some(("jobs", "#a".to_owned())));
        assert_eq!(at("jobs", "https://example.org"), None);
        assert_eq!(at("jobs", "nothing.md"), None);
    }

    #[test]
    fn anchors_are_those_of_github() {
        for (text, name) in [
            ("Second factor", "second-factor"),
            ("What callers may give, change and make", "what-callers-may-give-change-and-make"),
            ("Keys of Roster's own", "keys-of-rosters-own"),
            ("api_keys", "api_keys"),
        ] {
            assert_eq!(slug(text), name);
        }
    }

    #[test]
    fn a_page_is_found_by_its_name_or_another_one_is_suggested() {
        assert_eq!(find("settings").expect("a page").name, "reference/settings");
        assert_eq!(find("sign-inn").expect_err("none"), " (did you mean sign-in?)");
        assert_eq!(find("zebra").expect_err("none"), "");
    }
}
