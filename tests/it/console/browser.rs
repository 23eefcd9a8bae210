//! The browser of the tests: it shows the manual, and it reports the faults that other tests rely on it to report.

use std::collections::HashSet;

use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::site::Site;

const POLICY: &str = "default-src 'none'; script-src 'self'; form-action 'self'";

const SCRIPT: &str = "
    document.querySelector('h1').textContent = 'With script';
    document.querySelector('#swap')?.addEventListener('submit', (event) => {
        event.preventDefault();
        document.querySelector('h1').textContent = 'Swapped';
    });";

const FORM: &str = "
    <form action=/search><label>Name <input name=name></label><button>Send</button></form>
    <main>
      <h1>Without script</h1>
      <form method=post action=/taken>
        <label>Name <input name=name value=old></label>
        <label>More <textarea name=more>old</textarea></label>
        <label>Role <select name=role><option value=v>Viewer<option value=e>Editor</select></label>
        <label><input type=radio name=kind value=a checked>A</label>
        <label><input type=radio name=kind value=b>B</label>
        <label><input type=checkbox name=agreed value=yes>Agreed</label>
        <label>Day <input type=date name=day></label>
        <button name=act value=keep>Send</button>
        <button name=act value=drop id=drop>Drop</button>
      </form>
      <form method=post action=/swapped id=swap><button>Swap</button></form>
      <a href=/next>Next</a>
      <a href=#top>Top</a>
    </main>
    <script src=/script.js></script>";

/// Serves this body at every address, except for the script.
fn serve(body: &'static str) -> Receiver {
    Receiver::start(move |asked, _| {
        let answer = |kind: &str, text: String| {
            let headers = vec![("content-type", kind.to_owned()), ("content-security-policy", POLICY.to_owned())];
            Answer::With(200, headers, text)
        };
        match asked.path.as_str() {
            "/script.js" => answer("text/javascript", SCRIPT.to_owned()),
            path => answer(
                "text/html; charset=utf-8",
                format!(
                    "<!doctype html><html lang=en><meta name=viewport content='width=device-width'>\
                     <title>{path}</title>{body}</html>"
                ),
            ),
        }
    })
}

/// The form of the last request of a path.
fn form_sent_to(receiver: &Receiver, path: &str) -> Vec<(String, String)> {
    let all = receiver.all();
    let asked = all.iter().rev().find(|asked| asked.path == path).unwrap_or_else(|| panic!("no {path}: {all:?}"));
    let form = reqwest::Url::parse(&format!("http://form/?{}", asked.text)).expect("a form");
    form.query_pairs().into_owned().collect()
}

/// What comes before a colon or a size: the rule or the element of a report.
fn first_words<'l>(lines: &'l [String], end: &str) -> Vec<&'l str> {
    lines.iter().map(|line| line.split_once(end).expect("an end").0).collect()
}

#[tokio::test]
async fn the_manual_is_shown_and_accessible_in_both_themes() {
    let site = Site::start().await;
    let browser = Browser::start().await;
    for (is_dark, width, name) in [(false, 1280, "manual-light"), (true, 360, "manual-dark-phone")] {
        browser.dark(is_dark).await;
        browser.size(width, 800).await;
        browser.open(&format!("{}/manual", site.url)).await;
        let look = "return [matchMedia('(prefers-color-scheme: dark)').matches, innerWidth]";
        assert_eq!(browser.script(look, json!([])).await, json!([is_dark, width]));
        assert_eq!(browser.texts("h1").await, ["Overview"]);
        assert_eq!(browser.texts("main").await.len(), 1);
        assert_eq!(browser.axe().await, [""; 0]);
        assert_eq!(browser.axe_undecided().await, [""; 0]);
        assert!(!browser.overflow().await, "{:?}", browser.sticking_out().await);
        browser.screenshot(name).await;
    }
    assert_eq!(browser.console_log().await, [""; 0]);
    browser.click_link("Permissions").await;
    assert_eq!(browser.url().await, format!("{}/manual/permissions", site.url));
    assert_eq!(browser.text("h1").await, "Permissions");
}

#[tokio::test]
async fn what_the_policy_blocks_is_in_the_log_and_does_not_run() {
    let receiver = serve(
        "<main><h1>Safe</h1><script>document.title = 'ran'</script>\
         <img alt='' src=data:, onerror=\"document.title = 'ran'\"><p style=\"color: red\">text</p></main>",
    );
    let browser = Browser::start().await;
    browser.open(&receiver.url).await;
    let log = browser.console_log().await;
    let blocked =
        ["Executing inline script", "Executing inline event handler", "Applying inline style", "Loading the image"];
    for what in blocked {
        let found = log.iter().filter(|line| line.starts_with("security: ") && line.contains(what)).count();
        assert_eq!(found, 1, "{what}: {log:?}");
    }
    assert_eq!(log.len(), blocked.len(), "{log:?}");
    assert_eq!(browser.script("return document.title", json!([])).await, "/");
    assert_eq!(browser.console_log().await, [""; 0], "each is reported once");
}

#[tokio::test]
async fn faults_of_accessibility_and_layout_are_reported() {
    let receiver = serve(
        "<main><h1>Faults</h1><form><input name=unnamed></form>\
         <p>A <a href=/a>b</a> in a sentence.</p><p><a href=/c>c</a></p>\
         <pre>a-text-that-no-window-of-a-phone-can-show-in-one-line-at-any-size-of-type-that-people-read</pre></main>",
    );
    let browser = Browser::start().await;
    browser.size(320, 800).await;
    browser.open(&receiver.url).await;
    let rules: HashSet<String> = first_words(&browser.axe().await, " (").into_iter().map(str::to_owned).collect();
    assert!(rules.contains("label"), "{rules:?}");
    assert!(browser.overflow().await);
    let wide = browser.sticking_out().await;
    assert_eq!(first_words(&wide, " ends at "), ["pre \"a-text-that-no-window-of-a-phone-can-sho\""]);
    let small = browser.small_targets().await;
    assert_eq!(first_words(&small, " is "), ["input[name=unnamed]", "a \"c\""]);
    browser.size(1280, 800).await;
    assert!(!browser.overflow().await);
    assert_eq!(browser.sticking_out().await, [""; 0]);
}

/// Fills in and sends the form of [`FORM`] by its two buttons, and follows both links.
async fn send_the_form(browser: &Browser, receiver: &Receiver) {
    for (button, act) in [("Send", "keep"), ("#drop", "drop")] {
        browser.open(&receiver.url).await;
        let fields = [
            ("name", "Kim"),
            ("more", "two\nlines"),
            ("role", "Editor"),
            ("kind", "b"),
            ("agreed", "yes"),
            ("day", "2026-11-30"),
        ];
        for (name, text) in fields {
            browser.fill(name, text).await;
        }
        browser.submit(button).await;
        assert_eq!(browser.url().await, format!("{}/taken", receiver.url));
        let sent = form_sent_to(receiver, "/taken");
        let sent: Vec<(&str, &str)> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("name", "Kim"),
            ("more", "two\r\nlines"),
            ("role", "e"),
            ("kind", "b"),
            ("agreed", "yes"),
            ("day", "2026-11-30"),
            ("act", act),
        ];
        assert_eq!(sent, expected);
    }
    browser.click_link("Top").await;
    assert_eq!(browser.url().await, format!("{}/taken#top", receiver.url));
    browser.click_link("Next").await;
    assert_eq!(browser.url().await, format!("{}/next", receiver.url));
}

#[tokio::test]
async fn forms_are_sent_with_and_without_script() {
    let receiver = serve(FORM);
    let browser = Browser::start().await;
    send_the_form(&browser, &receiver).await;
    assert_eq!(browser.text("h1").await, "With script");
    browser.submit("Swap").await;
    assert_eq!(browser.text("h1").await, "Swapped");
    assert_eq!(browser.url().await, format!("{}/next", receiver.url));

    browser.without_script().await;
    send_the_form(&browser, &receiver).await;
    assert_eq!(browser.text("h1").await, "Without script");
    assert!(browser.html().await.contains("<h1>Without script</h1>"));
    browser.submit("Swap").await;
    assert_eq!(browser.url().await, format!("{}/swapped", receiver.url));
}

#[tokio::test]
async fn keys_move_the_focus_and_send_forms() {
    let receiver = serve(FORM);
    let browser = Browser::start().await;
    browser.open(&receiver.url).await;
    assert_eq!(browser.focused().await, "body");
    browser.press("Tab Tab").await;
    assert_eq!(browser.focused().await, "button \"Send\"");
    browser.press("Shift+Tab").await;
    assert_eq!(browser.focused().await, "input[name=name]");
    browser.type_text("Kim é").await;
    browser.press("Home Shift+End Backspace l e e Enter").await;
    assert_eq!(browser.url().await, format!("{}/search?name=lee", receiver.url));
}

#[tokio::test]
async fn language_and_cookies_are_sent() {
    let receiver = serve("<main><h1>Page</h1></main>");
    let browser = Browser::start().await;
    browser.language("zh-TW").await;
    browser.open(&receiver.url).await;
    browser.set_cookie("theme", "dark").await;
    browser.open(&format!("{}/second", receiver.url)).await;
    let all = receiver.all();
    let second = all.iter().find(|asked| asked.path == "/second").expect("a request");
    assert_eq!((second.header("accept-language"), second.header("cookie")), ("zh-TW", "theme=dark"));
    assert_eq!(browser.cookie("theme").await.as_deref(), Some("dark"));
    assert_eq!(browser.cookie("other").await, None);
}
