//! Role mappings: the list, setting and deleting one, and a trial.

use super::roles::{owner, rows, undo};
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::permissions::keys_of;

const MAPPINGS: &str = "/console/o/acme/mappings";

fn set<'a>(source: &'a str, key: &'a str, role: &'a str) -> [(&'a str, &'a str); 4] {
    [("act", "set"), ("external_source", source), ("external_key", key), ("internal_role_key", role)]
}

/// The mappings as the API has them: key and role.
async fn mapped(acme: &Organization<'_>) -> Vec<(String, String)> {
    let data = acme.admin().get("/api/v1/permissions/role-mappings").await.data();
    let text = |one: &serde_json::Value, name: &str| one[name].as_str().expect("text").to_owned();
    let all = data["mappings"].as_array().expect("mappings").iter();
    all.map(|one| (text(one, "external_key"), text(one, "internal_role_key"))).collect()
}

fn pair(key: &str, role: &str) -> (String, String) {
    (key.to_owned(), role.to_owned())
}

#[tokio::test]
async fn a_mapping_is_set_replaced_and_deleted_and_each_can_be_undone() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    acme.role("editor", &[]).await;
    let empty = browser.get(MAPPINGS).await;
    assert_eq!((empty.status, empty.h1().as_str(), empty.texts("empty").len()), (200, "Role mappings", 1));

    let made = browser.post(MAPPINGS, &set("oidc", "editors", "editor")).await;
    assert_eq!(made.status, 303, "{}", made.main());
    let page = browser.follow(&made).await;
    let row = rows(&page, "Role mappings").remove(0);
    assert_eq!(row[1..3], ["editors", "editor"]);
    undo(&browser, &page).await;
    assert!(mapped(&acme).await.is_empty());

    browser.post(MAPPINGS, &set("oidc", "editors", "editor")).await;
    let replaced = browser.post(MAPPINGS, &set("oidc", "editors", "viewer")).await;
    assert_eq!(mapped(&acme).await, [pair("editors", "viewer")]);
    undo(&browser, &browser.follow(&replaced).await).await;
    assert_eq!(mapped(&acme).await, [pair("editors", "editor")]);

    let mut delete = set("oidc", "editors", "editor");
    delete[0].1 = "delete";
    let deleted = browser.post(MAPPINGS, &delete).await;
    assert!(mapped(&acme).await.is_empty());
    undo(&browser, &browser.follow(&deleted).await).await;
    assert_eq!(mapped(&acme).await, [pair("editors", "editor")]);
    assert_eq!(browser.get(&format!("{MAPPINGS}?source=ldap")).await.texts("empty").len(), 1);
}

#[tokio::test]
async fn wrong_mappings_keep_what_was_typed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let unknown = browser.post(MAPPINGS, &set("oidc", "editors", "nowhere")).await;
    assert_eq!((unknown.status, unknown.value("external_key").as_deref()), (404, Some("editors")));
    let long = "x".repeat(257);
    let faulty = browser.post(MAPPINGS, &set("oidc", &long, "viewer")).await;
    assert_eq!((faulty.status, faulty.faults()[0].0.as_str()), (400, "external_key"));
    let mut missing = set("oidc", "editors", "");
    missing[0].1 = "delete";
    assert_eq!(browser.post(MAPPINGS, &missing).await.status, 404);
    assert_eq!(browser.post(MAPPINGS, &[("act", "explode")]).await.status, 400);
    // The role of an owner is not offered, and refused.
    let page = browser.get(MAPPINGS).await;
    let choice =
        page.elements("select").into_iter().find(|choice| choice.attribute("name") == Some("internal_role_key"));
    let offered: Vec<String> =
        choice.expect("roles").elements("option").iter().map(|option| option.attributes["value"].clone()).collect();
    assert!(offered.contains(&"viewer".to_owned()) && !offered.contains(&"tenant_owner".to_owned()), "{offered:?}");
    let refused = browser.post(MAPPINGS, &set("oidc", "editors", "tenant_owner")).await;
    assert!(refused.status >= 400, "{}", refused.main());
}

#[tokio::test]
async fn a_trial_says_what_a_sync_would_change_and_changes_nothing() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    acme.role("editor", &[]).await;
    acme.map("oidc", "editors", "editor").await;
    let kim = acme.member().await;
    let page = browser.get(MAPPINGS).await;
    let source = page.elements("select").into_iter().find(|select| select.attribute("id") == Some("source"));
    let options = source.expect("the source of the trial").elements("option").into_iter();
    let chosen: Vec<String> = options
        .filter(|option| option.attributes.contains_key("selected"))
        .map(|option| option.attributes["value"].clone())
        .collect();
    assert_eq!(chosen, ["oidc"], "the source of the first mapping");
    let ask = async |member: &str, keys: &str| {
        browser.post(MAPPINGS, &[("act", "try"), ("member", member), ("source", "oidc"), ("external_keys", keys)]).await
    };
    for member in [&kim.uid, &kim.username] {
        let page = ask(member, "editors\r\n\r\nothers\r\n").await;
        assert_eq!(page.status, 200, "{}", page.main());
        let result =
            page.elements("section").into_iter().find(|part| part.attribute("id") == Some("trial")).expect("it");
        let facts: Vec<(String, String)> = result
            .elements("dt")
            .iter()
            .zip(result.elements("dd"))
            .map(|(name, value)| (name.text(), value.text()))
            .collect();
        let expected =
            [("Added", "editor"), ("Removed", "Nothing"), ("Kept", "Nothing"), ("Groups without a mapping", "others")];
        assert_eq!(facts, expected.map(|(name, value)| pair(name, value)));
        assert!(result.text().contains(&kim.username));
    }
    assert!(keys_of(&acme, &kim.uid).await.is_empty());
    let nobody = ask("nobody-of-this-name", "editors").await;
    assert_eq!((nobody.status, nobody.faults()[0].0.as_str()), (400, "member"));
    assert_eq!(nobody.value("member").as_deref(), Some("nobody-of-this-name"));
    assert_eq!(ask("019abcde-0000-7000-8000-000000000001", "editors").await.status, 404);
}

#[tokio::test]
async fn mappings_are_for_those_who_may_see_them_in_both_languages() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    site.organization("globex").await;
    let payload = "<img src=x onerror=alert(1)>";
    acme.map("scim", payload, "viewer").await;
    let browser = owner(&acme).await;
    browser.get(MAPPINGS).await.require_escaped(payload);
    assert_eq!(browser.get("/console/o/globex/mappings").await.status, 404);

    let reader = acme.member_with(&["roster.mapping.list"]).await;
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&reader.username, PASSWORD).await;
    let page = chinese.get(MAPPINGS).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "角色對應"));
    assert!(page.with_class("main").is_empty(), "what one may not do is not offered: {}", page.main());
    let plain = acme.member().await;
    let browser = site.visitor();
    browser.sign_in(&plain.username, PASSWORD).await;
    let denied = browser.get(MAPPINGS).await;
    assert!(denied.status == 403 && denied.main().contains("roster.mapping.list"), "{}", denied.main());
}
