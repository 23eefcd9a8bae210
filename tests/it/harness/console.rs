//! A browser without script: it keeps cookies, sends forms as the pages of the site do, and reads pages.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::site::Site;

/// A visitor of the console.
pub struct Browser {
    url: String,
    http: reqwest::Client,
    cookies: Mutex<BTreeMap<String, String>>,
    headers: Vec<(String, String)>,
}

impl Site {
    /// A browser without cookies, whose language is English.
    pub fn visitor(&self) -> Browser {
        Browser::new(&self.url)
    }
}

impl Browser {
    pub fn new(url: &str) -> Self {
        let http = super::site::http_client().redirect(reqwest::redirect::Policy::none()).build().expect("client");
        Self { url: url.to_owned(), http, cookies: Mutex::default(), headers: Vec::new() }
    }

    /// The same browser with one more header in each request. It replaces a header that browsers send by themselves.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same browser, whose language is Chinese.
    pub fn in_chinese(self) -> Self {
        self.with("accept-language", "zh-TW,zh;q=0.9")
    }

    /// Sends a form with other headers than browsers send by themselves.
    pub async fn post_with(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let request = self.http.post(self.absolute(path)).body(pairs.join("&"));
        self.send_with(request.header("content-type", "application/x-www-form-urlencoded"), headers).await
    }

    /// Signs in on the page, and asserts that no second factor is asked.
    pub async fn sign_in(&self, login: &str, password: &str) -> &Self {
        let page = self.post("/console/sign-in", &[("login", login), ("password", password)]).await;
        assert_eq!(page.status, 303, "{}", page.text);
        self
    }

    pub async fn get(&self, path: &str) -> Page {
        self.send(self.http.get(self.absolute(path))).await
    }

    /// Opens an address with other headers than browsers send by themselves, such as `Sec-Fetch-Site` of a link elsewhere.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Page {
        self.send_with(self.http.get(self.absolute(path)), headers).await
    }

    /// Sends a form from a page of the site.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.post_with(path, fields, &[]).await
    }

    /// Sends a body that need not be a form.
    pub async fn post_raw(&self, path: &str, content_type: &str, body: Vec<u8>) -> Page {
        self.send(self.http.post(self.absolute(path)).header("content-type", content_type).body(body)).await
    }

    /// Sends a form with a file: its field, its name and its content.
    pub async fn post_file(&self, path: &str, fields: &[(&str, &str)], file: (&str, &str, &[u8])) -> Page {
        const BOUNDARY: &str = "----FormBoundary7";
        let (field, name, content) = file;
        let head = |rest: &str| format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name={rest}\r\n");
        let mut body: Vec<u8> = Vec::new();
        for (name, value) in fields {
            body.extend(format!("{}\r\n{value}\r\n", head(&format!("\"{name}\""))).bytes());
        }
        let of_file = head(&format!("\"{field}\"; filename=\"{name}\""));
        body.extend(format!("{of_file}Content-Type: application/octet-stream\r\n\r\n").bytes());
        body.extend_from_slice(content);
        body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
        self.post_raw(path, &format!("multipart/form-data; boundary={BOUNDARY}"), body).await
    }

    /// Follows the redirect of an answer.
    pub async fn follow(&self, page: &Page) -> Page {
        let to = page.location().unwrap_or_else(|| panic!("no redirect: {} {}", page.status, page.text));
        self.get(to).await
    }

    /// The value of a cookie, without a prefix of its name.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.cookies.lock().expect("cookies");
        let bare = |known: &str| known.trim_start_matches("__Host-").trim_start_matches("__Secure-") == name;
        cookies.iter().find(|(known, _)| bare(known)).map(|(_, value)| value.clone())
    }

    /// Removes all cookies.
    pub fn forget(&self) {
        self.cookies.lock().expect("cookies").clear();
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Page {
        self.send_with(request, &[]).await
    }

    /// An empty value leaves a header out.
    async fn send_with(&self, mut request: reqwest::RequestBuilder, more: &[(&str, &str)]) -> Page {
        let own = [("sec-fetch-site", "same-origin"), ("accept-language", "en")];
        let lasting = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: BTreeMap<&str, &str> = own.into_iter().chain(lasting).chain(more.iter().copied()).collect();
        for (name, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let line = self.cookies.lock().expect("cookies").iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
        if !line.is_empty() {
            request = request.header("cookie", line.join("; "));
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for set in headers.get_all("set-cookie") {
            let set = set.to_str().expect("text");
            let (name, value) = set.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            let mut cookies = self.cookies.lock().expect("cookies");
            if set.contains("Max-Age=0;") {
                cookies.remove(name)
            } else {
                cookies.insert(name.into(), value.into())
            };
        }
        Page { status, headers, text: response.text().await.expect("text") }
    }
}

/// Percent-encodes everything but letters and digits.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// An answer to a browser.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

/// An element of a page.
#[derive(Debug, Clone)]
pub struct Element {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    /// The markup inside.
    pub inner: String,
}

impl Element {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub fn has_class(&self, class: &str) -> bool {
        self.attribute("class").is_some_and(|all| all.split_whitespace().any(|one| one == class))
    }

    /// The text, without markup and with single blanks.
    pub fn text(&self) -> String {
        text_of(&self.inner)
    }

    /// The elements inside.
    pub fn elements(&self, name: &str) -> Vec<Element> {
        elements_of(&self.inner, |element| element.name == name)
    }

    /// What this form sends as it was loaded, without its buttons.
    pub fn fields(&self) -> Vec<(String, String)> {
        let named = |element: &Element| element.attributes.contains_key("name");
        let is_sent = |input: &Element| match input.attribute("type") {
            Some("checkbox" | "radio") => input.attributes.contains_key("checked"),
            kind => !matches!(kind, Some("submit" | "button" | "file")),
        };
        let inputs = self.elements("input").into_iter().filter(|input| named(input) && is_sent(input));
        let mut sent: Vec<(String, String)> =
            inputs.map(|input| (attribute(&input, "name"), attribute(&input, "value"))).collect();
        let areas = self.elements("textarea").into_iter().filter(named);
        sent.extend(areas.map(|area| (attribute(&area, "name"), unescaped(&area.inner))));
        for list in self.elements("select").into_iter().filter(named) {
            let options = list.elements("option");
            let chosen = options.iter().find(|option| option.attributes.contains_key("selected")).or(options.first());
            sent.extend(chosen.map(|option| (attribute(&list, "name"), attribute(option, "value"))));
        }
        sent
    }
}

impl Page {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn location(&self) -> Option<&str> {
        self.header("location")
    }

    /// The text of `<title>`, with the name of the site.
    pub fn title(&self) -> String {
        self.elements("title").first().map(Element::text).unwrap_or_default()
    }

    /// The heading. Asserts that there is one.
    pub fn h1(&self) -> String {
        let all = self.elements("h1");
        assert_eq!(all.len(), 1, "{}", self.text);
        all[0].text()
    }

    /// All elements of this name, in order.
    pub fn elements(&self, name: &str) -> Vec<Element> {
        elements_of(&self.text, |element| element.name == name)
    }

    /// Every element, in order.
    pub fn every_element(&self) -> Vec<Element> {
        elements_of(&self.text, |_| true)
    }

    /// All elements of this class, in order.
    pub fn with_class(&self, class: &str) -> Vec<Element> {
        elements_of(&self.text, |element| element.has_class(class))
    }

    /// The texts of all elements of this class, in order.
    pub fn texts(&self, class: &str) -> Vec<String> {
        self.with_class(class).iter().map(Element::text).collect()
    }

    /// The text of the part that is not the frame.
    pub fn main(&self) -> String {
        self.elements("main").first().map(Element::text).unwrap_or_default()
    }

    /// The faults of a form, each field with its texts.
    pub fn faults(&self) -> Vec<(String, String)> {
        let boxes = self.with_class("fault").into_iter();
        let of = |found: Element| {
            let field = found.attribute("id").unwrap_or_default().trim_end_matches("-fault").to_owned();
            let texts = found.elements("p").into_iter().map(move |text| (field.clone(), text.text()));
            texts.collect::<Vec<_>>()
        };
        boxes.flat_map(of).collect()
    }

    /// The texts of the notices, whatever their tone.
    pub fn notices(&self) -> Vec<String> {
        self.texts("notice")
    }

    /// The form with this action.
    pub fn form(&self, action: &str) -> Option<Element> {
        self.elements("form").into_iter().find(|form| form.attribute("action") == Some(action))
    }

    /// The value of an input, text area or select of this name.
    pub fn value(&self, name: &str) -> Option<String> {
        let named = |element: &Element| element.attribute("name") == Some(name);
        let input = self.elements("input").into_iter().find(named);
        if let Some(input) = input {
            return Some(input.attribute("value").unwrap_or_default().to_owned());
        }
        if let Some(area) = self.elements("textarea").into_iter().find(named) {
            return Some(unescaped(&area.inner));
        }
        let options = self.elements("select").into_iter().find(named)?.elements("option");
        let chosen = options.iter().find(|option| option.attributes.contains_key("selected")).or(options.first())?;
        chosen.attribute("value").map(str::to_owned)
    }

    /// The names and values of the hidden inputs of a form.
    pub fn hidden(&self, action: &str) -> Vec<(String, String)> {
        let form = self.form(action).unwrap_or_else(|| panic!("no form {action}: {}", self.text));
        let hidden = form.elements("input").into_iter().filter(|input| input.attribute("type") == Some("hidden"));
        hidden.map(|input| (attribute(&input, "name"), attribute(&input, "value"))).collect()
    }

    /// The addresses of all links.
    pub fn links(&self) -> Vec<String> {
        self.elements("a").iter().map(|link| attribute(link, "href")).collect()
    }

    /// Asserts that the page shows this text, which holds a `<`, and has no markup from it.
    pub fn require_escaped(&self, payload: &str) {
        self.require_without(payload);
        assert!(unescaped(&self.text).contains(payload), "{payload} is not shown: {}", self.text);
    }

    /// Asserts that the page does not have this markup, whether it shows it as text or not.
    pub fn require_without(&self, markup: &str) {
        assert!(markup.contains('<') && !self.text.contains(markup), "{markup}: {}", self.text);
    }
}

/// The fields of a form as it is sent.
pub fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn attribute(element: &Element, name: &str) -> String {
    element.attribute(name).unwrap_or_default().to_owned()
}

const VOID: [&str; 8] = ["input", "meta", "link", "br", "wbr", "hr", "img", "!doctype"];

/// The elements that fit, also those inside others.
fn elements_of(markup: &str, fits: impl Fn(&Element) -> bool) -> Vec<Element> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((element, after)) = next_element(markup, at) {
        at = after;
        if fits(&element) {
            found.push(element);
        }
    }
    found
}

/// The first element that begins at or after this position, and where its start tag ends.
fn next_element(markup: &str, from: usize) -> Option<(Element, usize)> {
    let mut at = from;
    loop {
        at += markup[at..].find('<')?;
        if markup[at + 1..].starts_with(|first: char| first.is_ascii_alphabetic() || first == '!') {
            break;
        }
        at += 1;
    }
    let end = at + tag_end(&markup[at..])?;
    let tag = &markup[at + 1..end];
    let name = tag.split(|c: char| c.is_whitespace() || c == '/').next()?.to_ascii_lowercase();
    let inner = if VOID.contains(&name.as_str()) { "" } else { inner(&markup[end + 1..], &name) };
    let attributes = attributes(tag[name.len()..].trim_end_matches('/'));
    Some((Element { name, attributes, inner: inner.to_owned() }, end + 1))
}

/// The position of the `>` that ends a tag, which is not inside a quoted value.
fn tag_end(tag: &str) -> Option<usize> {
    let mut is_quoted = false;
    tag.char_indices().find_map(|(at, c)| {
        is_quoted ^= c == '"';
        (c == '>' && !is_quoted).then_some(at)
    })
}

/// The markup up to the end tag of this element.
fn inner<'m>(rest: &'m str, name: &str) -> &'m str {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let (mut depth, mut at) = (1, 0);
    loop {
        let Some(end) = rest[at..].find(&close).map(|found| at + found) else { return rest };
        let begins =
            |start: &usize| rest[start + open.len()..].starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/');
        depth += rest[at..end].match_indices(&open).map(|(found, _)| at + found).filter(begins).count();
        depth -= 1;
        if depth == 0 {
            return &rest[..end];
        }
        at = end + close.len();
    }
}

fn attributes(mut text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    loop {
        text = text.trim_start();
        let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
        if end == 0 {
            return found;
        }
        let (name, rest) = text.split_at(end);
        match rest.strip_prefix("=\"") {
            Some(rest) => {
                let (value, after) = rest.split_once('"').expect("a quoted value");
                found.insert(name.to_owned(), unescaped(value));
                text = after;
            }
            None => {
                found.insert(name.to_owned(), String::new());
                text = rest;
            }
        }
    }
}

fn text_of(markup: &str) -> String {
    let mut text = String::new();
    let mut rest = markup;
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = tag_end(rest).expect("the end of a tag");
        let name = rest.trim_start_matches(['<', '/']).split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        // Blocks end words; parts of a line do not.
        if !["b", "a", "code", "time", "wbr"].contains(&name) {
            text.push(' ');
        }
        rest = &rest[end + 1..];
    }
    text.push_str(rest);
    unescaped(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")
}

#[test]
fn markup_is_read_as_browsers_read_it() {
    let page = Page {
        status: 200,
        headers: reqwest::header::HeaderMap::new(),
        text: "<main><h1>A &amp; B</h1><div class=\"x fault\" id=\"login-fault\"><div><p>No <b>no</b>.</p></div></div>\
               <form action=\"/a?b\"><input type=\"hidden\" name=\"r\" value=\"1 &gt; 0\"><textarea name=\"t\">a\n b</textarea>\
               <select name=\"s\"><option value=\"1\">1</option><option value=\"2\" selected>2</option></select></form></main>"
            .into(),
    };
    assert_eq!((page.h1(), page.faults()), ("A & B".into(), vec![("login".into(), "No no.".into())]));
    assert_eq!(page.hidden("/a?b"), [("r".to_owned(), "1 > 0".to_owned())]);
    assert_eq!(
        ["r", "t", "s", "x"].map(|name| page.value(name)),
        [Some("1 > 0"), Some("a\n b"), Some("2"), None].map(|value| value.map(str::to_owned))
    );
    assert_eq!(page.main(), "A & B No no. a b 1 2");
}
