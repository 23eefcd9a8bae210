//! Signing in on the console: the form, the second step, what follows, and what hinders it.

use serde_json::json;

use crate::harness::console::{Browser, Page};
use crate::harness::counterparts::query;
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::sessions::oidc::lab;
use crate::sessions::passwords::{mailing, plain_smtp};
use crate::sessions::second_factor::{Authenticator, enrolled};

const SIGN_IN: &str = "/console/sign-in";
const FACTOR: &str = "/console/sign-in/second-factor";
const ENROL: &str = "/console/sign-in/enrol";
const OTHER: &str = "Another-horse-8";
const PAYLOAD: &str = "\"><script>alert(1)</script>";

async fn sign_in(browser: &Browser, login: &str, password: &str) -> Page {
    browser.post(SIGN_IN, &[("login", login), ("password", password)]).await
}

/// The signed value of the sign-in page that an address leads to.
async fn return_of(browser: &Browser, address: &str) -> String {
    let page = browser.get(address).await;
    query(&format!("http://x{}", page.location().expect("a redirect")), "r").expect("a signed value")
}

/// Whether the browser is signed in.
async fn is_signed_in(browser: &Browser) -> bool {
    browser.get("/me").await.status == 200
}

// ── the form ──

#[tokio::test]
async fn the_form_is_labelled_in_both_languages_and_filled_in_by_password_managers() {
    let site = Site::start().await;

    for (browser, title, labels) in [
        (site.visitor(), "Sign in", ["E-mail or username", "Password"]),
        (site.visitor().in_chinese(), "登入", ["電子郵件或使用者名稱", "密碼"]),
    ] {
        let page = browser.get(SIGN_IN).await;
        let form = page.form(SIGN_IN).expect("a form");
        let shown: Vec<String> = form.elements("label").iter().map(|label| label.text()).collect();
        let inputs = form.elements("input");
        let autocomplete: Vec<Option<&str>> = inputs.iter().map(|input| input.attribute("autocomplete")).collect();
        assert_eq!((page.status, page.h1().as_str()), (200, title));
        assert_eq!(shown, labels);
        assert_eq!(autocomplete, [Some("username"), Some("current-password")]);
    }
}

#[tokio::test]
async fn ways_that_are_not_configured_are_not_there() {
    let plain = Site::start().await;
    let full = Site::with(
        "auth.registration = true\nwordpress.url = \"https://wp.example.org\"\nmail.host = \"127.0.0.1\"\n\
         mail.from = \"roster@example.org\"\nsignin.password = false\n[[oidc]]\nname = \"lab\"\n\
         issuer = \"https://id.example.org\"\nclient_id = \"roster\"",
    )
    .await;

    let ways = async |site: &Site| {
        let links = site.visitor().get(SIGN_IN).await.elements("main")[0].elements("a");
        links.iter().map(|link| link.attribute("href").expect("an address").to_owned()).collect::<Vec<_>>()
    };

    assert_eq!(ways(&plain).await, ["/console/forgot"]);
    assert_eq!(ways(&full).await, ["/console/sign-in/oidc/lab", "/console/sign-in/wordpress"]);
    let page = full.visitor().get(SIGN_IN).await;
    assert!(page.form(SIGN_IN).is_none() && page.main().contains("Sign in with lab"));
    for (path, status) in
        [("/console/sign-in/wordpress", 501), ("/console/register", 501), ("/console/sign-in/oidc/lab", 404)]
    {
        assert_eq!(plain.visitor().get(path).await.status, status, "{path}");
    }
    assert!(full.visitor().get("/console/register").await.form("/console/register").is_some());
}

#[tokio::test]
async fn an_unknown_login_and_a_wrong_password_look_the_same_and_keep_only_the_login() {
    let site = Site::start().await;
    let browser = site.visitor();

    let unknown = sign_in(&browser, PAYLOAD, OTHER).await;
    let wrong = sign_in(&browser, ADMIN, OTHER).await;

    for (page, login) in [(&unknown, PAYLOAD), (&wrong, ADMIN)] {
        assert_eq!((page.status, page.value("login").as_deref()), (401, Some(login)));
        assert_eq!(page.value("password").as_deref(), Some(""));
    }
    unknown.require_escaped(PAYLOAD);
    assert_eq!(unknown.notices(), ["No such login, or the password is wrong."]);
    assert_eq!(unknown.notices(), wrong.notices());
    assert_eq!(browser.cookie("access_token"), None);
    let empty = sign_in(&browser, "", "").await;
    let faulty: Vec<String> = empty.faults().into_iter().map(|(field, _)| field).collect();
    assert_eq!((empty.status, faulty), (400, vec!["login".to_owned(), "password".to_owned()]));
}

#[tokio::test]
async fn a_limited_login_is_told_when_it_can_try_again() {
    let site = Site::start().await;
    let browser = site.visitor();
    for _ in 0..10 {
        assert_eq!(sign_in(&browser, "nobody", OTHER).await.status, 401);
    }

    let limited = sign_in(&browser, "nobody", PASSWORD).await;

    let wait: u64 = limited.header("retry-after").expect("a time").parse().expect("a number");
    assert_eq!((limited.status, (880..=900).contains(&wait)), (429, true));
    assert_eq!(limited.notices(), ["Too many failed attempts. Try again in 15 minutes."]);
}

#[tokio::test]
async fn a_form_of_another_site_signs_nobody_in() {
    let site = Site::start().await;
    let fields = [("login", ADMIN), ("password", PASSWORD)];

    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "")],
        &[("sec-fetch-site", ""), ("origin", "null")],
        &[("sec-fetch-site", ""), ("origin", "https://evil.example")],
    ] {
        let browser = site.visitor();
        let page = browser.post_with(SIGN_IN, &fields, headers).await;
        assert_eq!((page.status, browser.cookie("access_token")), (403, None), "{headers:?}");
    }
    let own = site.visitor();
    let origin = site.url.clone();
    let page = own.post_with(SIGN_IN, &fields, &[("sec-fetch-site", ""), ("origin", &origin)]).await;
    assert_eq!(page.status, 303);
}

// ── what follows ──

#[tokio::test]
async fn a_sign_in_returns_to_the_page_that_asked_for_it() {
    let site = Site::start().await;
    let browser = site.visitor();
    let signed = return_of(&browser, "/console/site/organizations?q=a%20b").await;

    let shown = browser.get(&format!("{SIGN_IN}?r={signed}")).await;
    let carried = shown.value("r").expect("a hidden field");
    let wrong = browser.post(SIGN_IN, &[("login", ADMIN), ("password", OTHER), ("r", &carried)]).await;
    let done = browser.post(SIGN_IN, &[("login", ADMIN), ("password", PASSWORD), ("r", &carried)]).await;

    assert_eq!((carried.as_str(), wrong.value("r")), (signed.as_str(), Some(signed.clone())));
    assert_eq!((done.status, done.location()), (303, Some("/console/site/organizations?q=a%20b")));
    assert!(is_signed_in(&browser).await);
}

#[tokio::test]
async fn an_altered_return_leads_to_the_start_page_with_a_sentence() {
    let site = Site::start().await;
    let signed = return_of(&site.visitor(), "/console/me").await;
    let other = site.visitor().get(SIGN_IN).await;
    assert_eq!(other.value("r"), None);

    for altered in
        [signed[1..].to_owned(), format!("{signed}AAAA"), "https://example.org/".to_owned(), "A".repeat(7_000)]
    {
        let browser = site.visitor();
        let done = browser.post(SIGN_IN, &[("login", ADMIN), ("password", PASSWORD), ("r", &altered)]).await;
        assert_eq!((done.status, done.location()), (303, Some("/console")), "{altered}");
        assert!(browser.cookie("notice").is_some());
    }
    let browser = site.visitor();
    sign_in(&browser, ADMIN, PASSWORD).await;
    assert_eq!(browser.cookie("notice"), None);
}

#[tokio::test]
async fn who_is_signed_in_already_is_told_so_also_after_a_second_submit() {
    let site = Site::start().await;
    let browser = site.visitor();
    let signed = return_of(&browser, "/console/me").await;
    browser.sign_in(ADMIN, PASSWORD).await;

    let shown = browser.get(&format!("{SIGN_IN}?r={signed}")).await;
    let twice = browser.post(SIGN_IN, &[("login", ADMIN), ("password", PASSWORD), ("r", &signed)]).await;

    for page in [&shown, &twice] {
        assert_eq!((page.status, page.h1().as_str()), (200, "You are signed in"));
        assert!(page.form(SIGN_IN).is_none() && page.links().contains(&"/console/me".to_owned()));
    }
}

#[tokio::test]
async fn a_form_that_is_sent_after_the_session_ended_shows_what_was_typed() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = site.visitor();
    let fields =
        [("display_name", PAYLOAD), ("password", "Secret-horse-9"), ("once", "019a"), ("email", "kim@example.org")];

    let page = browser.post("/console/o/acme/members/new", &fields).await;

    assert_eq!((page.status, page.h1().as_str()), (401, "Your session has ended"));
    let typed: Vec<String> = page.elements("pre").iter().map(|text| text.text()).collect();
    assert_eq!(typed, [PAYLOAD, "kim@example.org"]);
    page.require_escaped(PAYLOAD);
    assert!(!page.text.contains("Secret-horse-9") && !page.text.contains("019a"));
    let link = page.links().into_iter().find(|link| link.starts_with(SIGN_IN)).expect("a link to the sign-in");
    let shown = page.elements("a").into_iter().find(|a| a.attribute("href").is_some_and(|to| to.starts_with(SIGN_IN)));
    assert_eq!(shown.expect("the link").attribute("target"), Some("_blank"), "this page keeps what was typed");
    let signed = query(&format!("http://x{link}"), "r").expect("a signed value");
    let done = browser.post(SIGN_IN, &[("login", ADMIN), ("password", PASSWORD), ("r", &signed)]).await;
    assert_eq!(done.location(), Some("/console/o/acme/members/new"));
}

#[tokio::test]
async fn signing_out_ends_the_session_and_stays_on_its_page() {
    let site = Site::start().await;
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    let token = browser.cookie("access_token").expect("a token");

    let asked = browser.get("/console/sign-out").await;
    let done = browser.post("/console/sign-out", &[]).await;
    let after = browser.follow(&done).await;

    assert!(asked.form("/console/sign-out").is_some());
    assert_eq!((done.location(), after.status), (Some("/console/sign-out"), 200));
    assert_eq!(after.h1(), "You are signed out");
    assert_eq!([browser.cookie("access_token"), browser.cookie("session_id")], [None, None]);
    site.bearer(&token).get("/me").await.is(28_501_000);
    assert_eq!(browser.post("/console/sign-out", &[]).await.status, 303);
}

// ── the second step ──

#[tokio::test]
async fn a_second_factor_is_asked_on_a_page_of_its_own() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let browser = site.visitor();
    let signed = return_of(&browser, "/console/me/sessions").await;

    let first = browser.post(SIGN_IN, &[("login", &member.username), ("password", PASSWORD), ("r", &signed)]).await;
    let hidden = first.hidden(FACTOR);
    let send = async |name: &str, code: &str| {
        let mut fields: Vec<(&str, &str)> =
            hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.push((name, code));
        browser.post(FACTOR, &fields).await
    };
    let short = send("code", "1").await;
    let wrong = send("code", &app.wrong()).await;
    let code = app.code();
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    let done = send("code", &spaced).await;

    assert_eq!((first.status, first.h1().as_str(), first.value("password")), (200, "Second step", None));
    let code_field = first.elements("input").into_iter().find(|input| input.attribute("name") == Some("code"));
    assert_eq!(code_field.expect("a field").attribute("autocomplete"), Some("one-time-code"));
    let remember = first.elements("input").into_iter().find(|input| input.attribute("name") == Some("remember"));
    assert_eq!(remember.expect("a box").attribute("checked"), None);
    assert_eq!([short.status, wrong.status], [400, 401]);
    for page in [&short, &wrong] {
        assert_eq!(page.hidden(FACTOR), hidden);
        assert_eq!(page.faults().iter().map(|(field, _)| field.as_str()).collect::<Vec<_>>(), ["code"]);
    }
    assert_eq!((done.status, done.location()), (303, Some("/console/me/sessions")));
    assert!(is_signed_in(&browser).await && browser.cookie("trusted").is_none());
}

#[tokio::test]
async fn a_recovery_code_helps_and_a_remembered_device_is_not_asked_again() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let recovery = app.recovery_codes[0].clone();
    let challenge = async |browser: &Browser| {
        sign_in(browser, &member.username, PASSWORD).await.value("challenge").expect("a challenge")
    };

    let by_recovery = site.visitor();
    let sent = challenge(&by_recovery).await;
    let fields = [("challenge", sent.as_str()), ("recovery", recovery.as_str()), ("remember", "true")];
    assert_eq!(by_recovery.post(FACTOR, &fields).await.status, 303);
    let browser = site.visitor();
    let (sent, code) = (challenge(&browser).await, app.code());
    let done = browser.post(FACTOR, &[("challenge", &sent), ("code", &code), ("remember", "true")]).await;
    browser.post("/console/sign-out", &[]).await;
    let again = sign_in(&browser, &member.username, PASSWORD).await;

    assert_eq!((done.status, again.status), (303, 303));
    by_recovery.post("/console/sign-out", &[]).await;
    assert_eq!(sign_in(&by_recovery, &member.username, PASSWORD).await.h1(), "Second step");
}

#[tokio::test]
async fn a_challenge_that_is_over_leads_back_to_the_sign_in() {
    let site = Site::start().await;
    let browser = site.visitor();

    let over = browser.post(FACTOR, &[("challenge", "ch_unknown"), ("code", "123456")]).await;
    let without = browser.post(FACTOR, &[("code", "123456")]).await;
    let enrol = browser.post(ENROL, &[("challenge", "ch_unknown"), ("code", "123456")]).await;

    for page in [over, without, enrol] {
        assert_eq!((page.status, page.form(SIGN_IN).is_some()), (401, true));
        assert_eq!(page.notices(), ["This sign-in expired or failed too often: sign in again."]);
    }
    for path in [FACTOR, ENROL] {
        assert_eq!(browser.get(path).await.location(), Some(SIGN_IN));
    }
}

#[tokio::test]
async fn where_a_second_factor_is_required_it_is_set_up_while_signing_in() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("member").await;
    let path = format!("/admin/organizations/{}", acme.id);
    site.admin().patch(&path, json!({"second_factor_required": true})).await.done();
    let browser = site.visitor();

    let first = sign_in(&browser, &member.username, PASSWORD).await;
    let secret = first.value("secret").expect("a secret");
    let mut app = Authenticator::of(&json!({"secret": secret}));
    let hidden = first.hidden(ENROL);
    let send = async |code: &str| {
        let mut fields: Vec<(&str, &str)> =
            hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fields.push(("code", code));
        browser.post(ENROL, &fields).await
    };
    let wrong = send(&app.wrong()).await;
    let before = is_signed_in(&browser).await;
    let done = send(&app.code()).await;
    let unchecked = browser.post(ENROL, &[("act", "kept")]).await;
    let checked = browser.post(ENROL, &[("act", "kept"), ("kept", "true")]).await;

    assert_eq!((first.status, first.h1().as_str()), (200, "Set up your second factor"));
    assert_eq!(first.with_class("qr").len(), 1);
    let grouped: String = first.texts("copyable").concat().split_whitespace().collect();
    assert_eq!(grouped, secret);
    assert_eq!((wrong.status, wrong.hidden(ENROL), before), (401, hidden.clone(), false));
    assert_eq!((done.status, done.h1().as_str()), (200, "Keep your recovery codes"));
    let codes = done.elements("pre")[0].text();
    assert_eq!(codes.split_whitespace().count(), 10, "{codes}");
    assert_eq!((unchecked.status, unchecked.faults().len()), (400, 1));
    assert_eq!((checked.status, checked.location()), (303, Some("/console")));
    assert!(is_signed_in(&browser).await);
}

// ── providers ──

#[tokio::test]
async fn a_sign_in_at_a_provider_returns_to_the_page_that_asked_for_it() {
    let alice = json!({"email": "alice@example.org", "email_verified": true});
    let (oidc, site) = lab(json!({"users": {"alice": alice}}), "", "").await;
    let callback = format!("{}/console/sign-in/oidc/lab/callback", site.url);
    oidc.set_client("roster", json!({"redirect_uris": [callback]})).await;
    let browser = site.visitor();
    let signed = return_of(&browser, "/console/me/sessions").await;

    let from_elsewhere =
        browser.get_with(&format!("/console/sign-in/oidc/lab?r={signed}"), &[("sec-fetch-site", "cross-site")]).await;
    let led = browser.get(&format!("/console/sign-in/oidc/lab?r={signed}")).await;
    let to = led.location().expect("an address").to_owned();
    assert_eq!((from_elsewhere.status, led.status), (200, 303));
    assert!(to.starts_with(&oidc.issuer) && query(&to, "redirect_uri").as_deref() == Some(callback.as_str()));
    let back = oidc.sign_in(&to, "alice", &callback).await;
    let stranger = site.visitor().get_with(&back, &[("sec-fetch-site", "cross-site")]).await;
    let done = browser.get_with(&back, &[("sec-fetch-site", "cross-site")]).await;
    let again = browser.get_with(&back, &[("sec-fetch-site", "cross-site")]).await;

    assert_eq!((stranger.status, stranger.form(SIGN_IN).is_some()), (401, true));
    assert_eq!((done.status, done.location()), (303, Some("/console/me/sessions")));
    assert!(is_signed_in(&browser).await);
    assert_eq!((again.status, again.h1().as_str()), (200, "You are signed in"));
}

#[tokio::test]
async fn a_provider_that_refuses_leads_back_to_the_sign_in() {
    let (_oidc, site) = lab(json!({"users": {}}), "", "").await;

    for query in ["", "?error=access_denied&error_description=%3Cscript%3E", "?code=x", "?code=x&state=y"] {
        let page = site.visitor().get(&format!("/console/sign-in/oidc/lab/callback{query}")).await;
        assert_eq!((page.status, page.form(SIGN_IN).is_some(), page.notices().len()), (401, true, 1), "{query}");
        page.require_without("<script>");
    }
}

#[tokio::test]
async fn a_wordpress_account_signs_in_with_a_form_or_with_the_ticket_of_the_fragment() {
    let site = Site::with("wordpress.url = \"http://127.0.0.1:9\"").await;
    let browser = site.visitor();
    let path = "/console/sign-in/wordpress";

    let shown = browser.get(path).await;
    let failing = browser.post(path, &[("username", "kim"), ("application_password", "abcd EFGH")]).await;

    let forms = shown.elements("form");
    let forms: Vec<_> = forms.iter().filter(|form| form.attribute("action") == Some(path)).collect();
    let fragments: Vec<Option<&str>> = forms.iter().map(|form| form.attribute("data-fragment")).collect();
    assert_eq!(fragments, [None, Some("ticket")]);
    assert_eq!((failing.status, failing.value("username").as_deref()), (502, Some("kim")));
    assert!(!failing.text.contains("abcd EFGH") && !failing.text.contains("data-fragment"));
}

// ── what must be right first ──

#[tokio::test]
async fn over_plain_http_there_is_no_form_but_what_to_do() {
    let site = Site::with("public_url = \"http://nas.example.org\"").await;
    let far = site.visitor().with("host", "nas.example.org:8480");

    let page = far.get(SIGN_IN).await;
    let sent = sign_in(&far, ADMIN, PASSWORD).await;
    let near = site.visitor().get(SIGN_IN).await;

    for page in [&page, &sent] {
        assert_eq!((page.status, page.form(SIGN_IN).is_none()), (200, true));
        assert_eq!(page.h1(), "This connection is not encrypted");
        assert!(page.main().contains("tls.mode") && page.main().contains("ssh -L"));
    }
    assert_eq!(far.cookie("access_token"), None);
    for path in ["/setup", "/invitation", "/reset"] {
        let shown = far.get(&format!("{path}?token=x")).await;
        let sent = far.post(path, &[("token", "x")]).await;
        for page in [&shown, &sent] {
            assert_eq!((page.status, page.h1().as_str()), (200, "This connection is not encrypted"), "{path}");
            let commands = page.elements("pre")[0].text();
            assert!(commands.contains("USER@nas.example.org"), "{commands}");
            assert!(commands.ends_with(&format!("{path}?token=x")), "{commands}");
        }
    }
    assert!(near.form(SIGN_IN).is_some(), "a tunnel ends on this machine");
}

#[tokio::test]
async fn at_another_host_name_there_is_a_link_to_the_right_one() {
    // Sends nothing: the socket only tells from which address this machine would connect to others.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("a network beside loopback");
    let near = socket.local_addr().expect("an address").ip();
    let site = Site::at(&format!("{near}:0"), "public_url = \"https://id.example.org\"").await;
    let browser = site.visitor().with("host", "evil.example");
    let signed = return_of(&site.visitor().with("host", "id.example.org"), "/console/me").await;

    let page = browser.get(&format!("{SIGN_IN}?r={signed}")).await;

    assert_eq!((page.status, page.form(SIGN_IN).is_none()), (200, true));
    assert!(page.links().contains(&format!("https://id.example.org{SIGN_IN}?r={signed}")), "{:?}", page.links());
    assert_eq!(sign_in(&browser, ADMIN, PASSWORD).await.status, 403);
    assert!(site.visitor().with("host", "id.example.org").get(SIGN_IN).await.form(SIGN_IN).is_some());
}

// ── forgotten passwords and registration ──

#[tokio::test]
async fn a_forgotten_password_has_one_answer_for_known_and_unknown_names() {
    let smtp = plain_smtp();
    let site = Site::with(&mailing(&smtp)).await;
    let ask = async |login: &str| site.visitor().post("/console/forgot", &[("login", login)]).await;

    let (known, unknown, empty) = (ask(ADMIN).await, ask("nobody@example.org").await, ask("").await);

    assert_eq!((known.status, known.h1(), known.main()), (unknown.status, unknown.h1(), unknown.main()));
    assert_eq!((known.status, empty.status, empty.faults().len()), (200, 400, 1));
    assert!(smtp.next_mail_to(ADMIN).await.text.contains("/reset?token=pr_"));
    let without_mail = Site::start().await.visitor().get("/console/forgot").await;
    assert_eq!((without_mail.status, without_mail.form("/console/forgot").is_none()), (200, true));
}

#[tokio::test]
async fn a_visitor_registers_confirms_the_e_mail_and_signs_in() {
    const REGISTER: &str = "/console/register";
    const VERIFY: &str = "/console/register/verify";
    let smtp = plain_smtp();
    let site = Site::with(&format!("auth.registration = true\n{}", mailing(&smtp))).await;
    let browser = site.visitor();
    let person = [("email", "kim@example.org"), ("username", "kim"), ("display_name", PAYLOAD)];
    let with = |password, again| [person[0], person[1], person[2], ("password", password), ("again", again)];

    let differing = browser.post(REGISTER, &with(PASSWORD, OTHER)).await;
    let weak = browser.post(REGISTER, &with("weak", "weak")).await;
    let sent = browser.post(REGISTER, &with(PASSWORD, PASSWORD)).await;
    let text = smtp.next_mail_to("kim@example.org").await.text;
    let code: String =
        text.split("The code is ").nth(1).expect("a code").chars().take_while(char::is_ascii_digit).collect();
    let other = format!("{:06}", (code.parse::<u32>().expect("digits") + 1) % 1_000_000);
    let wrong = browser.post(VERIFY, &[("email", "kim@example.org"), ("code", &other)]).await;
    let done = browser.post(VERIFY, &[("email", "kim@example.org"), ("code", &code)]).await;

    for (page, faults) in [(&differing, 1), (&weak, 3)] {
        assert_eq!((page.status, page.faults().len(), page.value("username").as_deref()), (400, faults, Some("kim")));
        assert_eq!(page.value("display_name").as_deref(), Some(PAYLOAD));
        page.require_escaped(PAYLOAD);
    }
    assert_eq!((sent.h1().as_str(), sent.value("email").as_deref()), ("Confirm your e-mail", Some("kim@example.org")));
    let faulty: Vec<String> = wrong.faults().into_iter().map(|(field, _)| field).collect();
    assert_eq!((wrong.status, faulty), (401, vec!["code".to_owned()]));
    assert_eq!((done.status, done.location()), (303, Some(SIGN_IN)));
    assert_eq!(browser.follow(&done).await.notices(), ["Your account is ready. Sign in with it."]);
    browser.sign_in("kim", PASSWORD).await;
}
