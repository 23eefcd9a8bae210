//! The manual: its links lead to existing targets, its generated tables are current, its words are plain; and it is
//! served, searched and printed.

use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output};

use poem::http::Method;
use roster::console::manual::{PAGES, plain};

use crate::harness::site::{Site, binary};
use crate::rules::tidy::root;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Every Markdown file for readers: those at the top, and all below these folders.
fn markdown() -> Vec<String> {
    let mut found = vec!["README.md".to_owned()];
    let mut waiting: Vec<PathBuf> =
        ["packaging", "plugins", ".github"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root()).expect("inside").display().to_string();
            if path.is_dir() {
                waiting.push(path);
            } else if name.ends_with(".md") {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// The lines of a text outside of code blocks, each with its number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(n, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((n + 1, line))
    })
}

/// The anchors that GitHub gives to the headings of a text.
fn anchors(text: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for (_, line) in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut numbered = (1..).map(|n| format!("{name}-{n}"));
        let name = if found.contains(&name) { numbered.find(|name| !found.contains(name)).expect("one") } else { name };
        found.insert(name);
    }
    found
}

/// The targets of links and images.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

// ── the files ──

#[test]
fn every_link_between_files_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    for file in markdown() {
        let text = read(&file);
        for (n, line) in prose(&text) {
            for link in links(line).filter(|link| !link.contains("://") && *link != "/api/v1/docs") {
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = match path {
                    "" => root().join(&file),
                    path => root().join(&file).parent().expect("a folder").join(path),
                };
                assert!(target.exists(), "{file}:{n}: {link} leads nowhere");
                if !anchor.is_empty() {
                    let target = std::fs::read_to_string(&target).expect("text");
                    assert!(anchors(&target).contains(anchor), "{file}:{n}: {link} names no heading");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn the_readme_is_short_and_every_page_of_the_manual_is_in_the_program() {
    assert!(read("README.md").lines().count() <= 200);
    let embedded: HashSet<&str> = PAGES.iter().map(|page| page.file).collect();
    let own: Vec<String> = markdown().into_iter().filter(|file| file.starts_with("packaging/manual/")).collect();
    for file in &own {
        assert!(embedded.contains(file.as_str()), "{file} is in no list");
    }
    assert_eq!(embedded.len(), own.len() + 1, "plugins/README.md is one more");
    let index = read("packaging/manual/index.md");
    for page in PAGES.iter().filter(|page| page.name != "index") {
        let link = match page.file.strip_prefix("packaging/manual/") {
            Some(link) => format!("]({link})"),
            None => format!("](../../{})", page.file),
        };
        assert!(index.contains(&link), "the index names no {}", page.name);
    }
}

#[test]
fn every_generated_table_of_the_manual_is_current() {
    let mut outdated = Vec::new();
    for (name, table) in roster::cli::tables().expect("tables") {
        let file = format!("packaging/manual/reference/{name}.md");
        let (text, begin, end) = (read(&file), format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{file} has no table {name}"));
        let (_, after) = rest.split_once(&end).expect("the table's end");
        let right = format!("{before}{begin}{table}{end}{after}");
        if text != right {
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(root().join(&file), right).expect("written");
            }
            outdated.push(file);
        }
    }
    assert!(outdated.is_empty(), "{outdated:?} are outdated: run the tests with UPDATE_EXPECT=1");
}

/// Words that only this project used, and words that are not plain English.
#[test]
fn the_manual_uses_plain_words() {
    const BANNED: [&str; 22] = [
        "arrival",
        "arrivals",
        "door",
        "doors",
        "hint",
        "hints",
        "letter",
        "letters",
        "neighbour",
        "neighbours",
        "room",
        "rooms",
        "shall",
        "stand-in",
        "stand-ins",
        "thereof",
        "tick",
        "ticks",
        "whoever",
        "whomever",
        "wing",
        "wings",
    ];
    // Phrases in which a forbidden word has its literal sense: characters of the alphabet.
    const MEANT: [&str; 4] =
        ["beginning with a letter", "begins with a letter", "starting with a letter", "an upper-case letter"];
    let mut found = Vec::new();
    for file in markdown() {
        for (n, line) in read(&file).lines().enumerate() {
            let line = MEANT.iter().fold(line.to_lowercase(), |line, meant| line.replace(meant, ""));
            // Names of the API and of settings are in code spans, which are skipped.
            let told: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
            let mut words = told.split(|c: char| !c.is_alphanumeric() && !"-._".contains(c));
            if let Some(word) = words.find(|word| BANNED.contains(&word.trim_matches(['.', '-']))) {
                found.push(format!("{file}:{}: {word}", n + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

// ── in a browser ──

/// The values of an attribute in a page.
fn values<'p>(page: &'p str, attribute: &'p str) -> impl Iterator<Item = &'p str> {
    page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next())
}

#[tokio::test]
async fn every_page_is_served_and_all_its_links_lead_somewhere() {
    let site = Site::start().await;
    let (mut waiting, mut seen) = (vec!["/manual".to_owned()], HashSet::new());
    let mut parts: Vec<(String, String)> = Vec::new();
    while let Some(path) = waiting.pop() {
        let reply = site.nobody().get(&path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")), "{path}");
        let page = reply.body.as_str().expect("a page").to_owned();
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; style-src") && !page.contains("<script"), "{path}");
        let names: Vec<&str> = values(&page, " id=\"").collect();
        assert_eq!(names.len(), names.iter().collect::<HashSet<_>>().len(), "{path} has a name twice: {names:?}");
        for link in values(&page, "href=\"").filter(|link| !link.contains("://")) {
            let (other, part) = link.split_once('#').unwrap_or((link, ""));
            let other = if other.is_empty() { path.as_str() } else { other };
            if !part.is_empty() {
                parts.push((other.to_owned(), part.to_owned()));
            }
            if other.starts_with("/manual") && seen.insert(other.to_owned()) {
                waiting.push(other.to_owned());
            }
            assert!(other.starts_with("/manual") || other == "/api/v1/docs", "{path}: {link}");
        }
    }
    assert_eq!(seen.len(), PAGES.len());
    for (path, part) in parts {
        let page = site.nobody().get(&path).await.body;
        let page = page.as_str().expect("a page");
        assert!(values(page, " id=\"").any(|name| name == part), "{path} has no {part}");
    }
    // The documentation of the API links to the manual as well.
    let document = site.nobody().get("/api/v1/openapi.json").await.body;
    assert!(document["info"]["description"].as_str().expect("text").contains("](/manual)"));
}

#[tokio::test]
async fn a_search_finds_parts_of_pages_and_shows_the_query_as_text() {
    let site = Site::start().await;
    let found = async |query: &str| {
        let reply = site.nobody().get(&format!("/manual?q={query}")).await;
        assert_eq!((reply.status, reply.header("cache-control")), (200, Some("no-store")), "{query}");
        assert!(reply.header("content-security-policy").is_some());
        reply.body.as_str().expect("a page").to_owned()
    };
    for (query, wanted) in [
        ("second+factor", "/manual/sign-in#second-factor"),
        ("trusted_proxies", "/manual/operating#behind-a-proxy"),
        ("refresh%20token", "/manual/sign-in#sessions"),
        ("quota.ceiling_warning", "/manual/reference/events#events"),
        ("roster_panics_total", "/manual/reference/metrics#metrics"),
    ] {
        let page = found(query).await;
        let results = page.split("<ol class=\"found\">").nth(1).unwrap_or_else(|| panic!("{query}: nothing"));
        assert!(results.contains(&format!("href=\"{wanted}\"")) && results.contains("<mark>"), "{query}: {results}");
    }
    assert!(found("zzxxyy").await.contains("No part of the manual contains <b>zzxxyy</b>"));
    assert!(found("").await.contains("Type one or more words"));
    let hostile = found("%22%3E%3Cscript%3Ealert(1)%3C/script%3E").await;
    assert!(!hostile.contains("<script") && hostile.contains("&lt;script&gt;"));
    // A query longer than the limit, and one that is not UTF-8.
    found(&"quota+".repeat(500)).await;
    assert_eq!(site.nobody().get("/manual?q=%ff%fe").await.status, 200);
}

#[tokio::test]
async fn a_manual_page_below_a_stripped_path_links_below_it() {
    let site = Site::with("public_url = \"https://www.example.org/id\"\nbase_path = \"/\"").await;
    let page = site.nobody().get("/manual").await.body;
    let page = page.as_str().expect("a page");
    for link in values(page, "href=\"").filter(|link| !link.contains("://") && !link.starts_with('#')) {
        assert!(link.starts_with("/id/"), "{link}");
    }
    assert!(page.contains("action=\"/id/manual\""));
}

#[tokio::test]
async fn an_unknown_manual_page_is_answered_like_any_unknown_path() {
    let site = Site::start().await;
    for path in ["/manual/nothing", "/manual/", "/manual/reference", "/manual/reference/x", "/manual/../README.md"] {
        assert_eq!(site.nobody().get(path).await.is(10_301_000).word(), "route_not_found", "{path}");
    }
    let refused = site.nobody().send(Method::POST, "/manual", None).await;
    assert_eq!((refused.is(10_105_000).word(), refused.header("allow")), ("method_not_allowed", Some("GET")));
}

// ── in a terminal ──

fn help(words: &[&str]) -> Output {
    Command::new(binary()).arg("help").args(words).output().expect("roster")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn help_prints_pages_of_the_manual_and_the_help_of_commands() {
    for page in PAGES {
        let printed = help(&[page.name]);
        let out = text(&printed.stdout);
        assert!(printed.status.success() && out.starts_with(&format!("{}\n===", page.title())), "{}: {out}", page.name);
        // Without a terminal the width is 80; code is not wrapped.
        let mut lines = out.lines().filter(|line| line.chars().count() > 80 && line.contains(' '));
        let code: HashSet<&str> = page.text.lines().map(str::trim).collect();
        let is_one_word = |line: &str| line.trim().split(' ').count() == 1;
        let long = lines.find(|line| !code.contains(line.trim()) && !is_one_word(line));
        assert_eq!(long, None, "{}", page.name);
    }
    assert_eq!(help(&["settings"]).stdout, help(&["reference/settings"]).stdout);
    let (command, nested) = (text(&help(&["member", "create"]).stdout), text(&help(&["member"]).stdout));
    assert!(
        command.contains("Usage: roster member create") && nested.contains("Usage: roster member"),
        "{command}{nested}"
    );
    let other_way = Command::new(binary()).args(["member", "help", "create"]).output().expect("roster");
    assert_eq!(text(&other_way.stdout), command);
    // A topic that is both a page and a command.
    let both = text(&help(&["sftpgo"]).stdout);
    assert!(both.starts_with("SFTPGo\n======") && both.ends_with("The commands: roster sftpgo --help\n"), "{both}");
    let all = text(&help(&[]).stdout);
    assert!(
        all.contains("Usage: roster") && PAGES.iter().all(|page| all.contains(&format!("  {} ", page.name))),
        "{all}"
    );
}

#[test]
fn an_unknown_topic_is_a_usage_error_with_a_suggestion() {
    for (words, meant) in [
        (&["sign-inn"][..], "(did you mean sign-in?)"),
        (&["setings"], "(did you mean settings?)"),
        (&["memebr"], "(did you mean member?)"),
        (&["zebra"], "there is no page and no command zebra: "),
        (&["member", "nothing"], "there is no page and no command member nothing"),
    ] {
        let refused = help(words);
        let said = text(&refused.stderr);
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{words:?}: {said}");
        assert!(said.contains(meant) && said.contains("`roster help`"), "{words:?}: {said}");
    }
    let other = Command::new(binary()).arg("zebra").output().expect("roster");
    assert_eq!(other.status.code(), Some(2), "a usage error, as with clap");
}

#[test]
fn a_page_has_the_width_of_its_terminal() {
    let page = PAGES.iter().find(|page| page.name == "jobs").expect("a page");
    for width in [40, 60, 100] {
        let code: HashSet<&str> = page.text.lines().map(str::trim).collect();
        for line in plain(page, width).lines().filter(|line| !code.contains(line.trim())) {
            let is_one_word = line.trim().trim_start_matches("- ").split(' ').count() == 1;
            assert!(line.chars().count() <= width || is_one_word, "{width}: {line}");
        }
    }
    // `script` provides a terminal of 50 columns; on other systems it takes other arguments.
    if !cfg!(target_os = "linux") {
        return;
    }
    let columns = "stty cols 50; roster help jobs";
    let path = format!("{}:{}", binary().parent().expect("a folder").display(), std::env::var("PATH").expect("PATH"));
    let mut shown = String::new();
    let mut child = Command::new("script")
        .args(["-qec", columns, "/dev/null"])
        .env("PATH", path)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script");
    child.stdout.take().expect("a pipe").read_to_string(&mut shown).expect("text");
    child.wait().expect("an end");
    assert_eq!(shown.replace('\r', ""), plain(page, 50));
}
