//! The pages of members of the whole site.

use serde_json::{Value, json};

use super::signed_in;
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::site::{ADMIN, PASSWORD, Site};

const LIST: &str = "/console/site/members";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>\"'";

/// Creates a member of no organization and returns its id.
async fn created(site: &Site, username: &str, display_name: &str) -> String {
    let email = format!("{username}@example.org");
    let body = json!({"username": username, "display_name": display_name, "email": email});
    site.admin().post("/admin/members", body).await.data()["id"].as_str().expect("id").to_owned()
}

async fn user(site: &Site, uid: &str) -> Value {
    site.admin().get(&format!("/admin/users/{uid}")).await.data()
}

/// Sends the form of the notice that a redirect leads to, and takes the notice after it.
async fn undo(browser: &Browser, done: &Page) {
    let page = browser.follow(done).await;
    let notice =
        page.with_class("notice-undo").into_iter().next().unwrap_or_else(|| panic!("no Undo: {}", page.main()));
    let form = notice.elements("form").remove(0);
    let undone = browser.post(form.attribute("action").expect("an address"), &borrowed(&form.fields())).await;
    assert_eq!(undone.status, 303, "{}", undone.main());
    browser.follow(&undone).await;
}

/// The fields of the form that sends this act, as it was loaded.
fn form_of(page: &Page, act: &str) -> Vec<(String, String)> {
    let named = |fields: &Vec<(String, String)>| fields.contains(&("act".to_owned(), act.to_owned()));
    let mut forms = page.elements("form").into_iter().map(|form| form.fields());
    forms.find(named).unwrap_or_else(|| panic!("no form {act}: {}", page.main()))
}

/// The same fields with another value.
fn with(mut fields: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
    let field = fields.iter_mut().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no field {name}"));
    value.clone_into(&mut field.1);
    fields
}

#[tokio::test]
async fn the_list_has_members_of_all_and_of_no_organization() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = signed_in(&site, ADMIN).await;
    let (kim, lee) = (created(&site, "kim", PAYLOAD).await, created(&site, "lee", "Lee").await);
    acme.link(&lee).await;
    let found = browser.get(&format!("{LIST}?keyword=example.org&sort=-name")).await;
    assert_eq!((found.status, found.h1()), (200, "Members".into()));
    let names = found.texts("row-link");
    assert!(["Lee", PAYLOAD].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    found.require_escaped(PAYLOAD);
    let none = browser.get(&format!("{LIST}?keyword=nobody-of-this-name")).await;
    assert_eq!((none.with_class("empty").len(), none.texts("row-link").len()), (1, 0));
    let done = browser.post(LIST, &[("act", "suspend"), ("uid", &kim), ("uid", &lee)]).await;
    assert_eq!((done.status, done.location()), (303, Some(LIST)), "{}", done.main());
    assert_eq!(
        (user(&site, &kim).await["status"].clone(), user(&site, &lee).await["status"].clone()),
        (json!("suspended"), json!("suspended"))
    );
    undo(&browser, &done).await;
    assert_eq!(
        (user(&site, &kim).await["status"].clone(), user(&site, &lee).await["status"].clone()),
        (json!("active"), json!("active"))
    );
    // Roles and memberships belong to an organization.
    for act in ["give_role", "take_out"] {
        assert_eq!(browser.post(LIST, &[("act", act), ("uid", &kim)]).await.status, 400, "{act}");
    }
}

#[tokio::test]
async fn a_member_is_created_with_everything_and_the_key_is_shown_once() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = signed_in(&site, ADMIN).await;
    let address = format!("{LIST}/new");
    let form = browser.get(&address).await;
    assert_eq!((form.status, form.h1()), (200, "New member".into()));
    let fill = |size: &'static str, name: &'static str| {
        let once = form.value("once").expect("a key");
        let fields = [
            ("username", "kim"),
            ("email", "kim@example.org"),
            ("display_name", name),
            ("org_code", "acme"),
            ("quota_size", size),
            ("wordpress_id", "17"),
            ("once", once.as_str()),
        ];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let wrong = browser.post(&address, &borrowed(&fill("much", PAYLOAD))).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "quota_size"), "{}", wrong.main());
    let kept = ["username", "display_name", "org_code", "quota_size", "wordpress_id"].map(|name| wrong.value(name));
    assert_eq!(kept, ["kim", PAYLOAD, "acme", "much", "17"].map(|text| Some(text.to_owned())));
    wrong.require_escaped(PAYLOAD);
    let made = browser.post(&address, &borrowed(&fill("20 GB", PAYLOAD))).await;
    assert_eq!(made.status, 200, "{}", made.main());
    let key = made.with_class("secret")[0].elements("code")[0].text();
    assert_eq!(site.nobody().with("x-api-key", &key).get("/me").await.status, 200);
    let twice = browser.post(&address, &borrowed(&fill("20 GB", PAYLOAD))).await;
    assert_eq!((twice.status, twice.with_class("secret").len()), (409, 0), "{}", twice.main());
    let found = site.admin().get("/admin/users?keyword=kim").await.data();
    assert_eq!(
        (found["total"].clone(), found["items"][0]["quota_size"].clone()),
        (json!(1), json!(20_000_000_000_i64))
    );
    let page = browser.get(&format!("{LIST}/{}", found["items"][0]["id"].as_str().expect("id"))).await;
    page.require_escaped(PAYLOAD);
    assert!(!page.text.contains(&key) && page.texts("row-link") == ["acme"], "{}", page.main());
    let taken = browser.post(&address, &[("username", "kim"), ("email", "kim@example.org")]).await;
    let faults: Vec<String> = taken.faults().into_iter().map(|(field, _)| field).collect();
    assert_eq!(taken.status, 409, "{}", taken.main());
    assert!(["username", "email"].iter().all(|field| faults.contains(&(*field).to_owned())), "{faults:?}");
}

#[tokio::test]
async fn names_and_accounts_are_changed_each_in_its_own_form() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let kim = created(&site, "Kim.Lee", "Kim").await;
    let address = format!("{LIST}/{kim}");
    let page = browser.get(&address).await;
    let names = with(form_of(&page, "update"), "display_name", "Kim L.");
    assert_eq!(browser.post(&address, &borrowed(&names)).await.status, 303);
    let accounts = with(form_of(&page, "accounts"), "wordpress_id", "17");
    let stale = browser.post(&address, &borrowed(&accounts)).await;
    assert_eq!(stale.status, 412, "{}", stale.main());
    assert_eq!(stale.with_class("difference")[0].elements("ins")[0].text(), "17");
    // The other form shows what is.
    assert_eq!(
        (stale.value("display_name").as_deref(), stale.value("wordpress_id").as_deref()),
        (Some("Kim L."), Some("17"))
    );
    let again = with(form_of(&stale, "accounts"), "sftpgo_username", "NO");
    let wrong = browser.post(&address, &borrowed(&again)).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "sftpgo_username"), "{}", wrong.main());
    assert_eq!(wrong.value("sftpgo_username").as_deref(), Some("NO"));
    let right = with(again, "sftpgo_username", "kim-videos");
    assert_eq!(browser.post(&address, &borrowed(&right)).await.status, 303);
    let user = user(&site, &kim).await;
    assert_eq!((&user["wordpress_id"], &user["sftpgo_username"]), (&json!(17), &json!("kim-videos")));
    let page = browser.get(&address).await;
    assert_eq!(page.value("sftpgo_username"), None, "a folder is never renamed");
    let removed = with(form_of(&page, "accounts"), "wordpress_id", "");
    assert_eq!(browser.post(&address, &borrowed(&removed)).await.status, 303);
    assert_eq!(self::user(&site, &kim).await["wordpress_id"], Value::Null);
}

#[tokio::test]
async fn a_member_joins_organizations_and_is_taken_out_of_one() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let browser = signed_in(&site, ADMIN).await;
    let kim = created(&site, "kim", "Kim").await;
    let address = format!("{LIST}/{kim}");
    let alone = browser.get(&address).await;
    assert!(alone.with_class("list").is_empty(), "{}", alone.main());
    let joined = browser.post(&address, &borrowed(&with(form_of(&alone, "join"), "organization", &acme.id))).await;
    let roles = format!("/console/o/acme/members/{kim}/roles");
    assert_eq!((joined.status, joined.location()), (303, Some(roles.as_str())), "{}", joined.main());
    assert_eq!(browser.follow(&joined).await.status, 200);
    // By its code, as where there are too many to choose from.
    assert_eq!(browser.post(&address, &[("act", "join"), ("organization", "globex")]).await.status, 303);
    let missing = browser.post(&address, &[("act", "join"), ("organization", "nowhere")]).await;
    assert_eq!((missing.status, missing.faults()[0].0.as_str()), (404, "organization"), "{}", missing.main());
    let page = browser.get(&address).await;
    let mut names = page.texts("row-link");
    names.sort();
    assert_eq!(names, ["acme", "globex"]);
    let links = page.links();
    for tab in [format!("/console/o/acme/members/{kim}"), roles] {
        assert!(links.contains(&tab), "{tab}: {links:?}");
    }
    // The keys of a member of several organizations are a matter of the site.
    assert_eq!(browser.get(&format!("{address}/keys")).await.status, 200);
    let fields = [("act", "create"), ("name", "backup"), ("scopes", "me:read"), ("expires_at", "30d")];
    let key = browser.post(&format!("{address}/keys"), &fields).await;
    assert_eq!((key.status, key.with_class("secret").len()), (200, 1), "{}", key.main());
    for tab in ["quota", "sessions", "activity"] {
        let page = browser.get(&format!("{address}/{tab}")).await;
        assert_eq!((page.status, page.h1()), (200, "Kim".into()), "{tab}");
    }
    let question = browser.get(&format!("{address}?confirm=take_out&organization={}", globex.id)).await;
    assert!(question.with_class("confirm")[0].text().contains("globex"), "{}", question.main());
    let form = question.with_class("confirm").remove(0);
    let taken = browser.post(form.attribute("action").expect("an address"), &borrowed(&form.fields())).await;
    assert_eq!((taken.status, taken.location()), (303, Some(address.as_str())), "{}", taken.main());
    assert_eq!(browser.get(&address).await.texts("row-link"), ["acme"]);
}

#[tokio::test]
async fn a_member_is_suspended_with_a_reason_undone_and_erased_by_name() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let kim = created(&site, "kim", "Kim").await;
    let address = format!("{LIST}/{kim}");
    let long = "x".repeat(201);
    let wrong = browser.post(&address, &[("act", "suspend"), ("reason", &long)]).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "reason"), "{}", wrong.main());
    assert_eq!(wrong.value("reason"), Some(long));
    let done = browser.post(&address, &[("act", "suspend"), ("reason", PAYLOAD)]).await;
    assert_eq!(done.status, 303, "{}", done.main());
    let now = user(&site, &kim).await;
    assert_eq!((&now["status"], &now["status_reason"]), (&json!("suspended"), &json!(PAYLOAD)));
    browser.get(&address).await.require_escaped(PAYLOAD);
    let again = browser.post(&address, &[("act", "activate")]).await;
    assert_eq!((again.status, user(&site, &kim).await["status"].clone()), (303, json!("active")), "{}", again.main());
    undo(&browser, &again).await;
    assert_eq!(user(&site, &kim).await["status"], "suspended");
    let question = browser.get(&format!("{address}?confirm=erase")).await;
    let mut fields = question.hidden(&address);
    fields.push(("typed".into(), "Kim".into()));
    assert_eq!(browser.post(&address, &borrowed(&fields)).await.status, 400);
    fields.last_mut().expect("a field").1 = "kim".into();
    let erased = browser.post(&address, &borrowed(&fields)).await;
    assert_eq!((erased.status, erased.location()), (303, Some(LIST)), "{}", erased.main());
    assert_eq!(site.admin().get(&format!("/admin/members/{kim}")).await.data()["status"], "deleted");
}

#[tokio::test]
async fn administrators_of_an_organization_see_nothing_of_the_site() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let kim = created(&site, "kim", "Kim").await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&owner.username, PASSWORD).await;
    for address in [LIST.to_owned(), format!("{LIST}/{kim}"), format!("{LIST}/new"), format!("{LIST}/{kim}/keys")] {
        assert_eq!(browser.get(&address).await.status, 403, "{address}");
    }
    assert_eq!(browser.post(LIST, &[("act", "suspend"), ("uid", &kim)]).await.status, 403);
    let admin = site.visitor().in_chinese();
    admin.sign_in(ADMIN, PASSWORD).await;
    assert_eq!(admin.get(&format!("{LIST}/new")).await.h1(), "新增成員");
}
