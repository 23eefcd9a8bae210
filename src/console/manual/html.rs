//! Renders the manual as HTML, with a table of contents and a search form. No script.

use pulldown_cmark::{Event, Tag, TagEnd, html};

use super::search::{Found, QUERY_CHARACTERS_MAX, WORDS_MAX, search, words};
use super::{Heading, PAGES, PATH, Page, events, headings};
use crate::console::page::{docs, escaped, public_path};
use crate::kernel::config::Config;

/// Light or dark as the browser prefers; one column on small screens.
const STYLE: &str = "\
:root{color-scheme:light dark;--text:#1c2430;--soft:#566172;--back:#fff;--side:#f4f6f8;--line:#d9dee5;--link:#0b5cad;--mark:#fff0b3;--code:#f1f3f6}\
@media(prefers-color-scheme:dark){:root{--text:#e2e6ec;--soft:#9aa5b4;--back:#14181e;--side:#1b2027;--line:#323a45;--link:#7db8ff;--mark:#5c4a00;--code:#20262e}}\
*{box-sizing:border-box}html{scroll-padding-top:1rem}\
body{margin:0;font:16px/1.6 system-ui,-apple-system,'Segoe UI',sans-serif;color:var(--text);background:var(--back);overflow-wrap:break-word}\
a{color:var(--link);text-decoration-thickness:1px;text-underline-offset:2px}\
header{display:flex;flex-wrap:wrap;gap:.6rem 1.2rem;align-items:center;padding:.7rem 1.25rem;border-bottom:1px solid var(--line);background:var(--side)}\
header .name{font-weight:700;color:inherit;text-decoration:none}header form{display:flex;gap:.4rem;margin-left:auto;flex:0 1 22rem}\
input,button{font:inherit;color:inherit;padding:.3rem .65rem;border:1px solid var(--line);border-radius:6px;background:var(--back);min-width:0}\
input{flex:1}:focus-visible{outline:2px solid var(--link);outline-offset:1px}button{cursor:pointer}\
.frame{display:grid;grid-template-columns:17rem minmax(0,1fr);max-width:84rem;margin:0 auto}\
nav{grid-area:1/1;padding:.4rem 1.25rem 3rem;border-right:1px solid var(--line);font-size:.93rem}\
nav ul{list-style:none;margin:0 0 1rem;padding:0}nav li ul{margin:.1rem 0 .5rem;padding-left:.8rem;border-left:2px solid var(--line)}\
nav a{display:block;padding:.18rem 0;text-decoration:none;color:inherit}nav a:hover{color:var(--link)}\
nav a[aria-current]{font-weight:650;color:var(--link)}nav li{margin:0}nav h2{font-size:.78rem;border:0;padding:0;margin:1.2rem 0 .3rem;color:var(--soft);text-transform:uppercase;letter-spacing:.05em}\
main{grid-area:1/2;padding:1.2rem 2.2rem 4rem;min-width:0}main>*{max-width:52rem}main>.wide{max-width:none}\
h1{font-size:1.9rem;line-height:1.2;margin:.4rem 0 1rem}h2{font-size:1.35rem;margin:2.4rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--line)}h3{font-size:1.1rem;margin:1.8rem 0 .4rem}\
h1,h2,h3{text-wrap:balance}.anchor{margin-left:.4rem;color:var(--soft);text-decoration:none;opacity:0}:hover>.anchor,.anchor:focus{opacity:1}\
p,ul,ol{margin:.7rem 0}li{margin:.3rem 0}ul,ol{padding-left:1.4rem}\
code{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--code);padding:.1em .3em;border-radius:4px}\
pre{background:var(--code);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto}pre code{background:none;padding:0}\
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.93rem;min-width:min(100%,34rem)}\
th,td{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}\
mark{background:var(--mark);color:inherit;border-radius:3px}.found{list-style:none;padding:0}.found li{margin:1.1rem 0}.found p{margin:.15rem 0;color:var(--soft)}\
.next{display:flex;gap:1rem;justify-content:space-between;margin-top:3rem;padding-top:1rem;border-top:1px solid var(--line)}.contents{display:none}\
@media(max-width:52rem){.frame{display:block}nav{border:0;border-top:1px solid var(--line);background:var(--side)}main{padding:.8rem 1.1rem 2.5rem}\
header{padding:.6rem 1.1rem}header form{flex:1 1 100%;margin:0}.contents{display:inline}h1{font-size:1.6rem}nav a{padding:.4rem 0}}\
@media print{header,nav,.next,.anchor{display:none}.frame{display:block}}";

/// Renders a page.
pub fn page(config: &Config, page: &Page) -> String {
    let events = events(page);
    let headings = headings(&events);
    let body = body(config, page, events, &headings);
    let at = PAGES.iter().position(|other| other.name == page.name).unwrap_or_default();
    let page_link = |n: Option<usize>, before: &str, after: &str| {
        let other = n.and_then(|n| PAGES.get(n));
        other.map_or_else(
            || "<span></span>".to_owned(),
            |other| {
                format!(
                    "<a href=\"{}\">{before}{}{after}</a>",
                    public_path(config, &other.path()),
                    escaped(other.title())
                )
            },
        )
    };
    let next = format!(
        "<div class=\"next\">{}{}</div>",
        page_link(at.checked_sub(1), "← ", ""),
        page_link(Some(at + 1), "", " →")
    );
    framed(config, page.title(), "", &contents(config, Some(page), &headings), &format!("{body}{next}"))
}

/// Renders the results of a search.
pub fn results(config: &Config, query: &str) -> String {
    let query: String = query.chars().take(QUERY_CHARACTERS_MAX).collect();
    let (found, words) = (search(&query), words(&query));
    let result = match found.as_slice() {
        _ if words.is_empty() => {
            "<p>Type one or more words, such as <i>refresh token</i> or <i>quota</i>.</p>".to_owned()
        }
        [] => format!("<p>No part of the manual contains <b>{}</b>. Try fewer or other words.</p>", escaped(&query)),
        found => {
            let items: String = found.iter().map(|found| item(config, found, &words)).collect();
            format!("<ol class=\"found\">{items}</ol>")
        }
    };
    let left_out = if query.split_whitespace().count() > WORDS_MAX {
        format!("<p>Only the first {WORDS_MAX} words were searched for.</p>")
    } else {
        String::new()
    };
    let body = format!("<h1>Search</h1>{left_out}{result}");
    framed(config, "Search", &query, &contents(config, None, &[]), &body)
}

fn item(config: &Config, found: &Found, words: &[String]) -> String {
    let address = format!("{}#{}", public_path(config, &found.page.path()), found.anchor);
    let title = if found.title == found.page.title() {
        escaped(found.title)
    } else {
        format!("{}: {}", escaped(found.page.title()), escaped(found.title))
    };
    format!("<li><a href=\"{address}\">{title}</a><p>{}</p></li>", marked(&found.excerpt, words))
}

/// Escapes the text and marks these words in it.
fn marked(text: &str, words: &[String]) -> String {
    let lower = text.to_lowercase();
    // If lower-casing changes the length, offsets differ: mark nothing instead of the wrong text.
    if lower.len() != text.len() {
        return escaped(text);
    }
    let (mut marked, mut at) = (String::new(), 0);
    loop {
        let hit = words.iter().filter_map(|word| Some((lower[at..].find(word.as_str())? + at, word.len()))).min();
        let Some((start, length)) = hit else { break };
        let (Some(before), Some(word)) = (text.get(at..start), text.get(start..start + length)) else { break };
        marked.push_str(&format!("{}<mark>{}</mark>", escaped(before), escaped(word)));
        at = start + length;
    }
    marked.push_str(&escaped(&text[at..]));
    marked
}

/// The table of contents: all pages, and the parts of the current one.
fn contents(config: &Config, page: Option<&Page>, headings: &[Heading]) -> String {
    let entry = |other: &Page| {
        let is_here = page.is_some_and(|page| page.name == other.name);
        let (mark, parts) = if is_here { (" aria-current=\"page\"", parts(headings)) } else { ("", String::new()) };
        let address = public_path(config, &other.path());
        format!("<li><a href=\"{address}\"{mark}>{}</a>{parts}</li>", escaped(other.title()))
    };
    let (reference, tasks): (Vec<&Page>, Vec<&Page>) = PAGES.iter().partition(|page| page.name.contains('/'));
    let list = |pages: Vec<&Page>| pages.into_iter().map(entry).collect::<String>();
    format!(
        "<h2>Manual</h2><ul>{}</ul><h2>Reference</h2><ul>{}<li><a href=\"{}\">API</a></li></ul>",
        list(tasks),
        list(reference),
        docs(config)
    )
}

fn parts(headings: &[Heading]) -> String {
    let parts = headings.iter().filter(|heading| heading.level == 2);
    let parts: String =
        parts.map(|part| format!("<li><a href=\"#{}\">{}</a></li>", part.anchor, escaped(&part.text))).collect();
    if parts.is_empty() { parts } else { format!("<ul>{parts}</ul>") }
}

fn framed(config: &Config, title: &str, query: &str, contents: &str, body: &str) -> String {
    let (title, query, first) = (escaped(title), escaped(query), public_path(config, PATH));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} – Roster manual</title><style>{STYLE}</style></head><body>\
         <header><a class=\"name\" href=\"{first}\">Roster manual</a><a class=\"contents\" href=\"#contents\">Contents</a>\
         <a href=\"{}\">API docs</a>\
         <form action=\"{first}\" role=\"search\"><input type=\"search\" name=\"q\" value=\"{query}\" maxlength=\"{QUERY_CHARACTERS_MAX}\" \
         placeholder=\"Search the manual\" aria-label=\"Search the manual\"><button>Search</button></form></header>\
         <div class=\"frame\"><main>{body}</main><nav id=\"contents\" aria-label=\"Contents\">{contents}</nav></div></body></html>",
        docs(config)
    )
}

/// Renders the text of a page, with links to pages on this server.
fn body(config: &Config, page: &Page, events: Vec<Event<'static>>, headings: &[Heading]) -> String {
    let mut headings = headings.iter();
    let (mut output, mut anchor) = (Vec::with_capacity(events.len()), "");
    // Links to files of the repository, which the server does not have, become text.
    let mut is_dead = false;
    for event in events {
        match event {
            Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
                anchor = headings.next().map_or("", |heading| &heading.anchor);
                output.push(Event::Start(Tag::Heading { level, id: Some(anchor.to_owned().into()), classes, attrs }));
            }
            Event::End(TagEnd::Heading(_)) => {
                let link = format!("<a class=\"anchor\" href=\"#{anchor}\" aria-label=\"Link to this part\">#</a>");
                output.extend([Event::InlineHtml(link.into()), event]);
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => match address(config, page, &dest_url) {
                Some(address) => {
                    output.push(Event::Start(Tag::Link { link_type, dest_url: address.into(), title, id }));
                }
                None => is_dead = true,
            },
            Event::End(TagEnd::Link) if is_dead => is_dead = false,
            Event::Start(Tag::Table(_)) => {
                output.extend([
                    Event::Html("<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"Table\">".into()),
                    event,
                ]);
            }
            Event::End(TagEnd::Table) => output.extend([event, Event::Html("</div>".into())]),
            event => output.push(event),
        }
    }
    let mut text = String::new();
    html::push_html(&mut text, output.into_iter());
    text
}

/// The target of a link as browsers see it; `None` for files of the repository.
fn address(config: &Config, page: &Page, link: &str) -> Option<String> {
    match page.target(link) {
        Some((target, part)) if target.name == page.name && !part.is_empty() => Some(part),
        Some((target, part)) => Some(format!("{}{part}", public_path(config, &target.path()))),
        None if link.contains("://") => Some(link.to_owned()),
        // The API documentation is also a page of this server.
        None if link == "/api/v1/docs" => Some(docs(config)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_queries_are_escaped() {
        let config = Config::of(std::path::Path::new("/nowhere"));
        for query in ["\"><script>alert(1)</script>", "<i>", "quota <b>"] {
            let html = results(&config, query);
            assert!(!html.contains("<script>") && !html.contains("<i>\"") && html.contains("Search"), "{html}");
        }
        assert_eq!(
            marked("a <quota> & Quotas", &["quota".to_owned()]),
            "a &lt;<mark>quota</mark>&gt; &amp; <mark>Quota</mark>s"
        );
    }

    #[test]
    fn links_contain_the_path_of_the_public_url() {
        let mut config = Config::of(std::path::Path::new("/nowhere"));
        config.public_url = "https://www.example.org/id".to_owned();
        let index = &PAGES[0];
        assert_eq!(address(&config, index, "sign-in.md#sessions").as_deref(), Some("/id/manual/sign-in#sessions"));
        assert_eq!(address(&config, index, "/api/v1/docs").as_deref(), Some("/id/api/v1/docs"));
        assert_eq!(address(&config, index, "../../tests/run"), None);
    }
}
