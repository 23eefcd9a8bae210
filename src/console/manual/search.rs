//! Full-text search over the parts of the manual, best results first.

use std::sync::OnceLock;

use pulldown_cmark::{Event, Tag, TagEnd};

use super::{PAGES, Page, events, headings};

/// Longer queries are truncated: unauthenticated callers can search, and each word scans the whole manual.
pub(super) const QUERY_CHARACTERS_MAX: usize = 100;
/// How many words of a query are used.
pub(super) const WORDS_MAX: usize = 8;
const RESULTS_MAX: usize = 20;
const EXCERPT_CHARACTERS: usize = 180;

/// A part of a page, from one heading to the next.
struct Part {
    page: &'static Page,
    title: String,
    anchor: String,
    text: String,
    lower_title: String,
    lower_text: String,
}

/// A search result.
pub(super) struct Found {
    pub(super) page: &'static Page,
    pub(super) title: &'static str,
    pub(super) anchor: &'static str,
    pub(super) excerpt: String,
}

/// The words of a query, in lower case.
pub(super) fn words(query: &str) -> Vec<String> {
    query.split_whitespace().take(WORDS_MAX).map(str::to_lowercase).collect()
}

/// Finds the parts with all words or, if there are none, those with the most words.
pub(super) fn search(query: &str) -> Vec<Found> {
    let words = words(query);
    let ranked = parts().iter().map(|part| (rank(part, &words), part));
    let mut ranked: Vec<((usize, usize), &Part)> = ranked.filter(|((hits, _), _)| *hits > 0).collect();
    let most = ranked.iter().map(|((hits, _), _)| *hits).max().unwrap_or_default();
    ranked.retain(|((hits, _), _)| *hits == most);
    // The sort is stable: parts of equal weight stay in reading order.
    ranked.sort_by_key(|((_, weight), _)| std::cmp::Reverse(*weight));
    let found = ranked.into_iter().take(RESULTS_MAX).map(|(_, part)| Found {
        page: part.page,
        title: &part.title,
        anchor: &part.anchor,
        excerpt: excerpt(part, &words),
    });
    found.collect()
}

/// How many of the words a part contains, and the weight of their occurrences.
fn rank(part: &Part, words: &[String]) -> (usize, usize) {
    const IN_TITLE: usize = 20;
    const IN_PAGE_TITLE: usize = 8;
    const COUNTED_MAX: usize = 5;
    let page_title = part.page.title().to_lowercase();
    words.iter().fold((0, 0), |(hits, weight), word| {
        let in_title = usize::from(part.lower_title.contains(word)) * IN_TITLE;
        let in_page = usize::from(page_title.contains(word)) * IN_PAGE_TITLE;
        let in_text = part.lower_text.matches(word.as_str()).take(COUNTED_MAX).count();
        let is_there = in_title + in_text > 0;
        (hits + usize::from(is_there), weight + if is_there { in_title + in_page + in_text } else { 0 })
    })
}

/// Text around the first occurrence of the rarest word.
fn excerpt(part: &Part, words: &[String]) -> String {
    let there = words.iter().filter(|word| part.lower_text.contains(word.as_str()));
    let rarest = there.min_by_key(|word| part.lower_text.matches(word.as_str()).count());
    let first = rarest.and_then(|word| part.lower_text.find(word.as_str())).unwrap_or_default();
    // Lower-casing can change the length: an offset beyond the text counts as the start.
    let before = part.text.get(..first).unwrap_or_default().chars().count();
    let start = before.saturating_sub(EXCERPT_CHARACTERS / 3);
    let shown: String = part.text.chars().skip(start).take(EXCERPT_CHARACTERS).collect();
    let is_cut = part.text.chars().count() > start + EXCERPT_CHARACTERS;
    // Cut at word boundaries.
    let shown = if start == 0 { &*shown } else { shown.split_once(' ').map_or(&*shown, |(_, rest)| rest) };
    let shown = if is_cut { shown.rsplit_once(' ').map_or(shown, |(head, _)| head) } else { shown };
    format!("{}{}{}", if start == 0 { "" } else { "… " }, shown.trim(), if is_cut { " …" } else { "" })
}

/// All parts of all pages, parsed once.
fn parts() -> &'static [Part] {
    static PARTS: OnceLock<Vec<Part>> = OnceLock::new();
    PARTS.get_or_init(|| PAGES.iter().flat_map(parts_of).collect())
}

fn parts_of(page: &'static Page) -> Vec<Part> {
    let events = events(page);
    let mut found: Vec<Part> = Vec::new();
    let mut headings = headings(&events).into_iter();
    let mut is_in_heading = false;
    for event in &events {
        if let Event::Start(Tag::Heading { .. }) = event
            && let Some(heading) = headings.next()
        {
            is_in_heading = true;
            let (lower_title, text) = (heading.text.to_lowercase(), String::new());
            let (title, anchor) = (heading.text, heading.anchor);
            found.push(Part { page, title, anchor, text, lower_title, lower_text: String::new() });
            continue;
        }
        let Some(part) = found.last_mut() else { continue };
        match event {
            Event::End(TagEnd::Heading(_)) => is_in_heading = false,
            Event::Text(text) | Event::Code(text) if !is_in_heading => part.text.push_str(text),
            Event::SoftBreak | Event::HardBreak | Event::End(_) if !part.text.ends_with(' ') => part.text.push(' '),
            _ => {}
        }
    }
    for part in &mut found {
        part.text = part.text.split_whitespace().collect::<Vec<_>>().join(" ");
        part.lower_text = part.text.to_lowercase();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_relevant_part_comes_first() {
        for (query, name, anchor) in [
            ("second factor", "sign-in", "second-factor"),
            ("Refresh  TOKEN", "sign-in", "sessions"),
            ("ceiling", "videos-and-quotas", "quotas"),
            ("db.read_ms", "reference/settings", "db"),
        ] {
            let found = search(query);
            let parts: Vec<_> = found.iter().map(|found| (found.page.name, found.anchor)).collect();
            assert!(parts.iter().take(3).any(|part| *part == (name, anchor)), "{query}: {parts:?}");
        }
    }

    #[test]
    fn a_query_is_truncated_and_can_have_no_results() {
        assert_eq!(words(&"a ".repeat(WORDS_MAX + 1)).len(), WORDS_MAX);
        assert!(search("").is_empty() && search("   ").is_empty() && search("zzxxyy").is_empty());
        assert!(search("the").len() <= RESULTS_MAX);
        // No part has both words, so one of them suffices.
        assert!(!search("quota zzxxyy").is_empty());
    }

    #[test]
    fn an_excerpt_begins_and_ends_with_whole_words() {
        let found = search("jobs.lease_s");
        let excerpt = &found.first().expect("a part").excerpt;
        assert!(excerpt.contains("jobs.lease_s") && excerpt.chars().count() <= EXCERPT_CHARACTERS + 4, "{excerpt}");
    }
}
