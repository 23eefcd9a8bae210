//! The pages about the server itself: settings, maintenance, signing keys.

use super::roles::rows;
use crate::harness::console::{Browser, Page};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;

const SETTINGS: &str = "/console/site/settings";
const KEYS: &str = "/console/site/signing-keys";

async fn administrator(site: &Site) -> Browser {
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    browser
}

/// The names of the settings that the page lists.
fn names(page: &Page) -> Vec<String> {
    page.with_class("row-link").iter().map(|link| link.text()).collect()
}

/// The facts of the page: names and values.
fn facts(page: &Page) -> Vec<(String, String)> {
    let (names, values) = (page.elements("dt"), page.elements("dd"));
    names.iter().zip(&values).map(|(name, value)| (name.text(), value.text())).collect()
}

fn fact(page: &Page, name: &str) -> String {
    let all = facts(page);
    all.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name}: {all:?}")).1.clone()
}

#[tokio::test]
async fn the_page_shows_what_is_changed_and_finds_the_rest() {
    let site = Site::with("limits.roles = 7\nmail.port = 587").await;
    let browser = administrator(&site).await;
    let page = browser.get(SETTINGS).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Settings"));
    // The harness sets the address and cheap passwords; a value that equals the default is not changed.
    assert_eq!(names(&page), ["listen", "password.memory_kib", "password.iterations", "limits.roles"]);
    let of_roles = rows(&page, "Settings").into_iter().find(|row| row[0] == "limits.roles").expect("the row");
    assert_eq!((of_roles[1].as_str(), of_roles[2].as_str()), ("7 Most roles of one organization", "settings file"));

    let group = browser.get(&format!("{SETTINGS}?group=mail")).await;
    assert!(names(&group).iter().all(|name| name.starts_with("mail.")), "{:?}", names(&group));
    assert!(names(&group).len() > 5);
    let server = names(&browser.get(&format!("{SETTINGS}?group=server")).await);
    assert!(server.contains(&"public_url".to_owned()) && server.iter().all(|name| !name.contains('.')), "{server:?}");
    let both = browser.get(&format!("{SETTINGS}?group=password&changed=true")).await;
    assert_eq!(names(&both), ["password.memory_kib", "password.iterations"]);
    // By a part of the name, and of the meaning in either language.
    let attempts = browser.get(&format!("{SETTINGS}?q=JOBS.ATTEMPTS")).await;
    assert_eq!(names(&attempts), ["jobs.attempts"]);
    let announced = attempts.elements("p").into_iter().find(|line| line.attribute("data-announce").is_some());
    assert!(
        announced.is_some_and(|line| line.text().starts_with("1 of ") && line.text().ends_with(" settings found."))
    );
    assert_eq!(names(&browser.get(&format!("{SETTINGS}?q=SMTP%20server")).await)[0], "mail.host");
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, PASSWORD).await;
    let found = chinese.get(&format!("{SETTINGS}?q=%E5%AF%84%E4%BB%B6%E8%80%85")).await;
    assert_eq!((found.h1().as_str(), names(&found)), ("設定", vec!["mail.from".to_owned()]));
    let none = browser.get(&format!("{SETTINGS}?q=nothing-is-called-so")).await;
    assert_eq!((none.status, none.texts("empty").len()), (200, 1));
}

#[tokio::test]
async fn one_setting_says_how_to_change_it() {
    let site = Site::with("limits.roles = 7").await;
    let browser = administrator(&site).await;
    let page = browser.get(&format!("{SETTINGS}?name=limits.roles")).await;
    assert_eq!(page.h1(), "limits.roles");
    assert_eq!((fact(&page, "Value").as_str(), fact(&page, "Default").as_str()), ("7", "1000"));
    assert_eq!(fact(&page, "Allowed"), "5 to 100,000");
    assert_eq!(fact(&page, "Comes from"), "settings file");
    let copied: Vec<String> = page.texts("copyable");
    assert_eq!(copied, ["limits.roles = 7", "ROSTER_LIMITS_ROLES"]);
    let manual = "/manual/reference/settings#limits";
    assert!(page.links().contains(&manual.to_owned()), "{:?}", page.links());
    let reference = site.visitor().get("/manual/reference/settings").await;
    assert!(reference.text.contains("id=\"limits\"") && reference.text.contains("id=\"the-server\""));
    let size = browser.get(&format!("{SETTINGS}?name=limits.body_bytes")).await;
    assert_eq!((fact(&size, "Value").as_str(), fact(&size, "Unit").as_str()), ("1048576 = 1 MiB", "Bytes"));
    let secret = browser.get(&format!("{SETTINGS}?name=internal_secret_file")).await;
    assert_eq!((fact(&secret, "Value").as_str(), fact(&secret, "Default").as_str()), ("set", "empty"));
    assert_eq!(browser.get(&format!("{SETTINGS}?name=limits.nothing")).await.status, 404);
}

#[tokio::test]
async fn the_policy_is_reloaded_and_the_quotas_are_counted() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let reloaded = browser.post(SETTINGS, &[("act", "reload")]).await;
    assert_eq!((reloaded.status, reloaded.location()), (303, Some(SETTINGS)));
    assert_eq!(browser.follow(&reloaded).await.notices()[0], "The policy in memory equalled the database.");
    for act in ["count", "repair"] {
        let begun = browser.post(SETTINGS, &[("act", act)]).await;
        let task = begun.location().expect("a task").to_owned();
        assert!(begun.status == 303 && task.starts_with("/console/me/tasks/"), "{task}");
        let shown = eventually("the recount is done", async || {
            let page = browser.get(&task).await;
            assert_eq!(page.status, 200, "{}", page.main());
            page.main().contains("All accounts are correct.").then_some(page)
        })
        .await;
        assert!(fact(&shown, "Counted").ends_with("0 videos"), "{:?}", facts(&shown));
    }
    assert_eq!(browser.post(SETTINGS, &[("act", "explode")]).await.status, 400);
}

#[tokio::test]
async fn the_encryption_key_is_rotated_after_a_page_that_says_what_it_means() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let file = site.path().join("encryption.key");
    let before = std::fs::read_to_string(&file).expect("the key");
    let page = browser.get(&format!("{SETTINGS}?confirm=rotate")).await;
    assert!(page.main().contains(&file.display().to_string()), "{}", page.main());
    assert_eq!(page.hidden(SETTINGS), [("act".to_owned(), "rotate_encryption_key".to_owned())]);
    assert_eq!(std::fs::read_to_string(&file).expect("the key"), before, "the page alone changes nothing");
    let done = browser.post(SETTINGS, &[("act", "rotate_encryption_key")]).await;
    assert_eq!(done.status, 303, "{}", done.main());
    assert!(browser.follow(&done).await.notices()[0].starts_with("The encryption key was rotated."));
    assert_ne!(std::fs::read_to_string(&file).expect("the key"), before);
}

#[tokio::test]
async fn what_one_may_not_do_is_not_offered_and_refused() {
    let site = Site::start().await;
    let reader = site.platform_member(&["roster.setting.list", "roster.signing_key.list"]).await;
    let browser = site.visitor();
    browser.sign_in(&reader.username, PASSWORD).await;
    let page = browser.get(SETTINGS).await;
    assert_eq!(page.status, 200);
    let forms = page.elements("form").into_iter().filter(|form| form.attribute("action") == Some(SETTINGS));
    let methods: Vec<String> = forms.filter_map(|form| form.attribute("method").map(str::to_owned)).collect();
    assert_eq!(methods, ["get"], "{}", page.main());
    for act in ["reload", "count", "repair", "rotate_encryption_key"] {
        assert_eq!(browser.post(SETTINGS, &[("act", act)]).await.status, 403, "{act}");
    }
    let keys = browser.get(KEYS).await;
    assert_eq!((keys.status, keys.main().contains("Rotate")), (200, false), "{}", keys.main());
    assert_eq!(browser.post(KEYS, &[("act", "rotate")]).await.status, 403);
}

#[tokio::test]
async fn the_signing_key_is_rotated_and_nobody_is_signed_out() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let page = browser.get(KEYS).await;
    let first = rows(&page, "Signing keys");
    assert_eq!((first.len(), first[0][1].as_str(), first[0][3].as_str()), (1, "signs", "–"));
    assert!(page.texts("copyable")[0].ends_with("/.well-known/jwks.json"), "{}", page.main());
    let confirm = browser.get(&format!("{KEYS}?confirm=rotate")).await;
    assert_eq!(confirm.hidden(KEYS), [("act".to_owned(), "rotate".to_owned())]);
    assert!(confirm.main().contains("24 more hours"), "{}", confirm.main());
    assert_eq!(rows(&browser.get(KEYS).await, "Signing keys").len(), 1, "the page alone changes nothing");

    let done = browser.post(KEYS, &[("act", "rotate")]).await;
    let after = browser.follow(&done).await;
    assert_eq!((done.status, after.notices().len()), (303, 1));
    let keys = rows(&after, "Signing keys");
    assert_eq!(keys.len(), 2);
    assert_eq!((keys[0][1].as_str(), keys[1][1].as_str()), ("signs", "still accepted"));
    assert_eq!((&keys[1][0], keys[1][3] == "–"), (&first[0][0], false));
    assert_eq!(site.admin().get("/me").await.status, 200, "a token of the former key");
    assert_eq!(browser.post(KEYS, &[("act", "x")]).await.status, 400);
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, PASSWORD).await;
    assert_eq!(chinese.get(KEYS).await.h1(), "簽署金鑰");
}
