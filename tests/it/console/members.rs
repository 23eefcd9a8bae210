//! The pages about members of an organization.

use serde_json::json;

use crate::harness::console::{Browser, Page};
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, PASSWORD, Site};

const LIST: &str = "/console/o/acme/members";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>\"'";

/// A browser of a second owner of the organization.
async fn owner<'s>(acme: &Organization<'s>) -> (Member<'s>, Browser) {
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = acme.site.visitor();
    browser.sign_in(&owner.username, PASSWORD).await;
    (owner, browser)
}

/// Creates a member of the organization and returns its id.
async fn created(acme: &Organization<'_>, username: &str, display_name: &str) -> String {
    let email = format!("{username}@example.org");
    let body = json!({"username": username, "display_name": display_name, "email": email, "password": PASSWORD});
    acme.owner().post("/admin/members", body).await.data()["id"].as_str().expect("id").to_owned()
}

async fn status(acme: &Organization<'_>, uid: &str) -> String {
    let member = acme.site.admin().get(&format!("/admin/members/{uid}")).await.data();
    member["status"].as_str().expect("status").to_owned()
}

/// The roles of a member with their sources, in order.
async fn roles(acme: &Organization<'_>, uid: &str) -> Vec<(String, String)> {
    let held = acme.admin().get(&format!("/api/v1/permissions/users/{uid}/roles")).await.data();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let each = held["user_roles"].as_array().expect("roles").iter();
    let mut all: Vec<_> = each.map(|role| (text(&role["role_key"]), text(&role["source"]))).collect();
    all.sort();
    all
}

/// The status of a request with an API key.
async fn with_key(site: &Site, key: &str) -> u16 {
    site.nobody().with("x-api-key", key).get("/me").await.status
}

/// Follows the redirect of a form, sends the form of its notice, and follows that too.
async fn undo(browser: &Browser, done: &Page) {
    let page = browser.follow(done).await;
    let notice =
        page.with_class("notice-undo").into_iter().next().unwrap_or_else(|| panic!("no Undo: {}", page.main()));
    let form = notice.elements("form").remove(0);
    let inputs = form.elements("input");
    let fields: Vec<(&str, &str)> =
        inputs.iter().map(|input| (input.attributes["name"].as_str(), input.attributes["value"].as_str())).collect();
    let undone = browser.post(&form.attributes["action"], &fields).await;
    assert_eq!(undone.status, 303, "{}", undone.main());
    browser.follow(&undone).await;
}

fn names(page: &Page) -> Vec<String> {
    page.texts("row-link")
}

#[tokio::test]
async fn the_list_is_searched_sorted_and_paged() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    for n in 0..25 {
        created(&acme, &format!("a{n:02}"), &format!("Person {n:02}")).await;
    }
    created(&acme, "kim", PAYLOAD).await;
    let found = browser.get(&format!("{LIST}?keyword=KIM%40example")).await;
    assert_eq!((found.status, found.h1(), names(&found)), (200, "Members".into(), vec![PAYLOAD.to_owned()]));
    found.require_escaped(PAYLOAD);
    let first = browser.get(&format!("{LIST}?sort=name&limit=20")).await;
    assert_eq!((names(&first).len(), names(&first)[0].as_str()), (20, "Person 00"));
    assert!(first.texts("pager")[0].starts_with("1–20 of 28"), "{:?}", first.texts("pager"));
    let next = first.links().into_iter().find(|link| link.contains("offset=20")).expect("the next page");
    assert!(next.contains("sort=name") && next.contains("limit=20"), "{next}");
    assert_eq!(names(&browser.get(&next).await).len(), 8);
    let reversed = browser.get(&format!("{LIST}?sort=-name&keyword=Person")).await;
    assert_eq!(names(&reversed)[0], "Person 24");
    let none = browser.get(&format!("{LIST}?keyword=nobody-of-this-name")).await;
    assert_eq!((none.status, none.with_class("empty").len(), names(&none).len()), (200, 1, 0));
    let chinese = site.visitor().in_chinese();
    chinese.sign_in("a00", PASSWORD).await;
    assert_eq!(chinese.get(LIST).await.status, 403);
}

#[tokio::test]
async fn several_members_are_suspended_and_undone_with_a_result_for_each() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let (kim, lee) = (created(&acme, "kim", "Kim").await, created(&acme, "lee", "Lee").await);
    acme.admin().post(&format!("/admin/members/{lee}/deactivate"), json!({})).await.done();
    let done = browser.post(LIST, &[("act", "suspend"), ("uid", &kim), ("uid", &lee)]).await;
    assert_eq!((done.status, done.location()), (303, Some(LIST)), "{}", done.main());
    assert_eq!((status(&acme, &kim).await, status(&acme, &lee).await), ("suspended".into(), "suspended".into()));
    // Undone is only what this form did.
    undo(&browser, &done).await;
    assert_eq!((status(&acme, &kim).await, status(&acme, &lee).await), ("active".into(), "suspended".into()));
    let stranger = site.member().await;
    let mixed = browser.post(LIST, &[("act", "activate"), ("uid", &lee), ("uid", &stranger.uid)]).await;
    assert!(mixed.notices()[0].starts_with("1 done, 1 not done:"), "{:?}", mixed.notices());
    let results = mixed.with_class("results")[0].elements("li");
    assert_eq!((mixed.status, results.len(), status(&acme, &lee).await), (200, 1, "active".into()));
    let refused = browser.post(LIST, &[("act", "suspend"), ("uid", &stranger.uid)]).await;
    assert_eq!((refused.status, status(&acme, &stranger.uid).await), (404, "active".into()), "{}", refused.main());
    let nobody = browser.post(LIST, &[("act", "suspend")]).await;
    assert_eq!((nobody.status, nobody.notices()), (400, vec!["Select at least one member first.".to_owned()]));
    assert_eq!(browser.post(LIST, &[("act", "promote"), ("uid", &kim)]).await.status, 400);
}

#[tokio::test]
async fn who_holds_more_than_the_visitor_is_not_suspended_and_the_reason_is_told() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let kim = created(&acme, "kim", "Kim").await;
    let right = json!({"uid": kim, "scope_type": "site", "scope_id": "north", "module": "cameras", "action": "view"});
    site.admin().post("/admin/permissions/grant", right).await.done();
    let why = "This member has rights that you do not hold (such as a direct grant of the site): ask an administrator of the site.";
    let alone = browser.post(&format!("{LIST}/{kim}"), &[("act", "suspend")]).await;
    assert_eq!((alone.status, alone.notices()), (403, vec![why.to_owned()]), "{}", alone.main());
    let listed = browser.post(LIST, &[("act", "suspend"), ("uid", &kim)]).await;
    assert_eq!(listed.status, 403, "{}", listed.main());
    assert!(listed.with_class("results")[0].text().ends_with(why), "{}", listed.main());
    assert_eq!(status(&acme, &kim).await, "active");
}

#[tokio::test]
async fn nobody_suspends_or_takes_out_themselves_among_others() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (oneself, browser) = owner(&acme).await;
    let (kim, lee) = (created(&acme, "kim", "Kim").await, created(&acme, "lee", "Lee").await);
    let own = ("uid", oneself.uid.as_str());
    let suspended = browser.post(LIST, &[("act", "suspend"), ("uid", &kim), own]).await;
    assert_eq!((suspended.status, status(&acme, &kim).await), (200, "suspended".into()), "{}", suspended.main());
    let results = suspended.with_class("results")[0].elements("li");
    assert_eq!(results.len(), 1);
    assert!(results[0].text().ends_with("You: left out."), "{}", results[0].text());
    let alone = browser.post(LIST, &[("act", "take_out"), own]).await;
    assert_eq!((alone.status, alone.with_class("confirm").len()), (400, 0), "{}", alone.main());
    let taken = browser.post(LIST, &[("act", "take_out"), ("confirm", "1"), ("uid", &lee), own]).await;
    assert_eq!((taken.status, taken.with_class("results").len()), (200, 1), "{}", taken.main());
    assert_eq!(status(&acme, &oneself.uid).await, "active");
    assert_eq!(browser.get(&format!("{LIST}/{lee}")).await.status, 404);
    // The menu of one's own row does not offer it either.
    let links = browser.get(LIST).await.links();
    let offered = |uid: &str| links.contains(&format!("{LIST}/{uid}?confirm=take_out"));
    assert_eq!((offered(&kim), offered(&oneself.uid)), (true, false), "{links:?}");
}

#[tokio::test]
async fn several_members_get_a_role_and_are_taken_out() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let (kim, lee) = (created(&acme, "kim", "Kim").await, created(&acme, "lee", "Lee").await);
    let viewer = acme.role_id("viewer").await;
    let lacking = browser.post(LIST, &[("act", "give_role"), ("uid", &kim)]).await;
    assert_eq!((lacking.status, lacking.notices()), (400, vec!["Choose the role to give.".to_owned()]));
    let given = browser.post(LIST, &[("act", "give_role"), ("role_id", &viewer), ("uid", &kim), ("uid", &lee)]).await;
    assert_eq!(given.status, 303, "{}", given.main());
    for uid in [&kim, &lee] {
        assert_eq!(roles(&acme, uid).await, [("viewer".to_owned(), "manual".to_owned())]);
    }
    let question = browser.post(LIST, &[("act", "take_out"), ("uid", &kim), ("uid", &lee)]).await;
    assert!(question.with_class("confirm")[0].text().contains("Kim, Lee"), "{}", question.main());
    assert_eq!(roles(&acme, &kim).await.len(), 1);
    let hidden = question.hidden(LIST);
    let fields: Vec<(&str, &str)> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(browser.post(LIST, &fields).await.status, 303);
    assert_eq!(names(&browser.get(&format!("{LIST}?keyword=example.org")).await).len(), 0);
    assert_eq!(browser.get(&format!("{LIST}/{kim}")).await.status, 404);
}

#[tokio::test]
async fn the_profile_is_changed_and_conflicts_are_shown() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let kim = created(&acme, "kim", "Kim").await;
    let address = format!("{LIST}/{kim}");
    let page = browser.get(&address).await;
    assert_eq!((page.h1(), page.value("display_name").as_deref()), ("Kim".into(), Some("Kim")));
    let version = page.value("version").expect("a version");
    let change = |name: &'static str, email: &'static str, version: &str| {
        let fields =
            [("act", "update"), ("username", "kim"), ("display_name", name), ("email", email), ("version", version)];
        fields.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let sent = async |fields: &[(String, String)]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        browser.post(&address, &fields).await
    };
    let wrong = sent(&change(PAYLOAD, "no e-mail", &version)).await;
    let faults: Vec<String> = wrong.faults().into_iter().map(|(field, _)| field).collect();
    assert_eq!((wrong.status, faults), (400, vec!["email".to_owned()]), "{}", wrong.main());
    assert_eq!(wrong.value("display_name").as_deref(), Some(PAYLOAD));
    wrong.require_escaped(PAYLOAD);
    assert_eq!(sent(&change("Kim L.", "kim@example.org", &version)).await.status, 303);
    let stale = sent(&change("Kim M.", "kim@example.org", &version)).await;
    assert_eq!(stale.status, 412, "{}", stale.main());
    let difference = stale.with_class("difference").remove(0);
    let states = [difference.elements("del").remove(0).text(), difference.elements("ins").remove(0).text()];
    assert_eq!(states, ["Kim L.", "Kim M."]);
    let again = stale.value("version").expect("the new version");
    assert_eq!(sent(&change("Kim M.", "kim@example.org", &again)).await.status, 303);
    assert_eq!(browser.get(&address).await.h1(), "Kim M.");
}

#[tokio::test]
async fn access_is_taken_given_and_ended() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let kim = created(&acme, "kim", "Kim").await;
    let address = format!("{LIST}/{kim}");
    let suspended = browser.post(&address, &[("act", "suspend")]).await;
    assert_eq!(status(&acme, &kim).await, "suspended");
    undo(&browser, &suspended).await;
    assert_eq!(status(&acme, &kim).await, "active");
    let link = browser.post(&address, &[("act", "password_link"), ("once", "one")]).await;
    assert!(link.with_class("secret")[0].elements("code")[0].text().contains("/reset?token="), "{}", link.main());
    let again = browser.post(&address, &[("act", "password_link"), ("once", "one")]).await;
    assert_eq!((again.status, again.with_class("secret").len()), (409, 0), "{}", again.main());
    let question = browser.get(&format!("{address}?confirm=second_factor")).await;
    assert_eq!(question.with_class("confirm").len(), 1);
    let without = browser.post(&address, &[("act", "reset_second_factor")]).await;
    assert_eq!((without.status, without.location()), (303, Some(address.as_str())), "{}", without.main());
    let told = browser.follow(&without).await;
    assert!(told.notices()[0].starts_with("Kim has no second factor."), "{:?}", told.notices());
    let erase = browser.get(&format!("{address}?confirm=erase")).await;
    let version = erase.value("version").expect("a version");
    let wrong = browser.post(&address, &[("act", "erase"), ("typed", "lee"), ("version", &version)]).await;
    assert_eq!((wrong.status, status(&acme, &kim).await), (400, "active".into()));
    let erased = browser.post(&address, &[("act", "erase"), ("typed", "kim"), ("version", &version)]).await;
    assert_eq!((erased.status, erased.location()), (303, Some(LIST)), "{}", erased.main());
    assert_eq!(status(&acme, &kim).await, "deleted");
}

#[tokio::test]
async fn roles_are_given_and_revoked_and_undone() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let kim = created(&acme, "kim", "Kim").await;
    let (address, viewer) = (format!("{LIST}/{kim}/roles"), acme.role_id("viewer").await);
    assert_eq!(browser.get(&address).await.with_class("empty").len(), 1);
    // From the profile: choose the role, and give it.
    let profile = browser.get(&format!("{LIST}/{kim}")).await;
    assert_eq!(profile.hidden(&address), [("act".to_owned(), "assign".to_owned())]);
    let given = browser.post(&address, &[("act", "assign"), ("role_id", &viewer)]).await;
    let held = [("viewer".to_owned(), "manual".to_owned())];
    assert_eq!(roles(&acme, &kim).await, held);
    undo(&browser, &given).await;
    assert!(roles(&acme, &kim).await.is_empty());
    let admin = acme.admin();
    for source in ["manual", "oidc"] {
        let body = json!({"role_id": viewer, "source": source});
        admin.post(&format!("/api/v1/permissions/users/{kim}/roles"), body).await.done();
    }
    let shown = browser.get(&address).await;
    assert_eq!(shown.with_class("list")[0].elements("tbody")[0].elements("tr").len(), 1, "{}", shown.main());
    let revoked = browser.post(&address, &[("act", "revoke"), ("role_id", &viewer)]).await;
    assert!(roles(&acme, &kim).await.is_empty());
    undo(&browser, &revoked).await;
    assert_eq!(roles(&acme, &kim).await, [held[0].clone(), ("viewer".into(), "oidc".into())]);
    let twice = browser.post(&address, &[("act", "assign"), ("role_id", &viewer)]).await;
    assert_eq!((twice.status, twice.notices().len()), (409, 1), "{}", twice.main());
}

#[tokio::test]
async fn keys_are_shown_once_and_deleted() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let kim = created(&acme, "kim", "Kim").await;
    let address = format!("{LIST}/{kim}/keys");
    let empty = browser.get(&address).await;
    assert_eq!((empty.status, empty.with_class("empty").len()), (200, 1), "{}", empty.main());
    let wrong = browser.post(&address, &[("act", "create"), ("name", ""), ("expires_at", "30d")]).await;
    assert_eq!((wrong.status, wrong.value("expires_at").as_deref()), (400, Some("30d")), "{}", wrong.main());
    let fields = [("act", "create"), ("name", "backup"), ("scopes", "me:read"), ("expires_at", "30d"), ("once", "k")];
    let made = browser.post(&address, &fields).await;
    let text = made.with_class("secret")[0].elements("code")[0].text();
    assert_eq!((made.status, with_key(&site, &text).await), (200, 200), "{}", made.main());
    let listed = browser.get(&address).await;
    assert!(!listed.text.contains(&text) && listed.main().contains("backup"), "{}", listed.main());
    let question = listed.links().into_iter().find(|link| link.contains("confirm=delete")).expect("a link");
    let hidden = browser.get(&question).await.hidden(&address);
    let fields: Vec<(&str, &str)> = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!((browser.post(&address, &fields).await.status, with_key(&site, &text).await), (303, 401));
}

#[tokio::test]
async fn a_quota_is_changed_and_undone() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let kim = created(&acme, "kim", "Kim").await;
    let address = format!("{LIST}/{kim}/quota");
    let size = async || acme.admin().get(&format!("/admin/users/{kim}")).await.data()["quota_size"].clone();
    let (before, page) = (size().await, browser.get(&address).await);
    assert_eq!((page.status, page.value("size").as_deref(), page.with_class("empty").len()), (200, Some(""), 1));
    assert!(page.main().contains("at most the default size"), "{}", page.main());
    let over = browser.post(&address, &[("size", "9000 TB")]).await;
    assert_eq!((over.status, size().await), (403, before.clone()), "{}", over.main());
    let wrong = browser.post(&address, &[("size", "much")]).await;
    assert_eq!((wrong.status, wrong.value("size").as_deref()), (400, Some("much")), "{}", wrong.main());
    assert_eq!(wrong.faults()[0].0, "size");
    let done = browser.post(&address, &[("size", "1 GB")]).await;
    assert_eq!((done.status, size().await), (303, json!(1_000_000_000)), "{}", done.main());
    // The notice of the first page after it has a form of its own.
    browser.follow(&done).await;
    assert_eq!(browser.get(&address).await.value("size").as_deref(), Some("1 GB"));
    let second = browser.post(&address, &[("size", "512 MiB")]).await;
    assert_eq!(size().await, json!(512 << 20));
    undo(&browser, &second).await;
    assert_eq!(size().await, json!(1_000_000_000));
    browser.post(&address, &[("size", "")]).await;
    assert_eq!(size().await, before);
}

#[tokio::test]
async fn sessions_and_activity_are_shown_and_sessions_ended() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (actor, browser) = owner(&acme).await;
    let kim = acme.member_with_role("viewer").await;
    let address = format!("{LIST}/{}", kim.uid);
    let sessions = browser.get(&format!("{address}/sessions")).await;
    assert_eq!(sessions.with_class("list")[0].elements("tbody")[0].elements("tr").len(), 1, "{}", sessions.main());
    assert_eq!(kim.caller().get("/me").await.status, 200);
    let ended = browser.post(&format!("{address}/sessions"), &[("act", "end_all")]).await;
    assert_eq!((ended.status, kim.caller().get("/me").await.status), (303, 401), "{}", ended.main());
    assert_eq!(browser.follow(&ended).await.with_class("empty").len(), 1);
    browser.post(&address, &[("act", "suspend")]).await;
    let activity = browser.get(&format!("{address}/activity?of=target")).await;
    let rows = activity.elements("tbody")[0].elements("tr");
    let newest = rows[0].elements("td");
    let title = newest[1].elements("span")[0].attribute("title").map(str::to_owned);
    assert_eq!((title.as_deref(), newest[2].text()), (Some("member.deactivate"), actor.username.clone()));
    let link = newest[2].elements("a")[0].attribute("href").map(str::to_owned);
    assert_eq!(link, Some(format!("{LIST}/{}", actor.uid)));
    let own = browser.get(&format!("{LIST}/{}/activity?of=actor", actor.uid)).await;
    let target = own.elements("tbody")[0].elements("tr")[0].elements("td").remove(2);
    assert_eq!(target.elements("a")[0].attribute("href"), Some(address.as_str()), "{}", own.main());
    assert!(target.text().ends_with(&kim.username), "{}", target.text());
    let decisions = browser.get(&format!("{address}/activity?of=decisions")).await;
    assert_eq!((decisions.status, decisions.value("of").as_deref()), (200, Some("decisions")));
}

#[tokio::test]
async fn new_members_are_created_and_known_people_lead_on() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (_, browser) = owner(&acme).await;
    let address = format!("{LIST}/new");
    assert_eq!(browser.get(&address).await.h1(), "New member");
    let unnamed = browser.post(&address, &[("act", "create"), ("display_name", "Kim")]).await;
    let faults: Vec<String> = unnamed.faults().into_iter().map(|(field, _)| field).collect();
    assert_eq!((unnamed.status, faults), (400, vec!["username".to_owned(), "email".to_owned()]), "{}", unnamed.main());
    let member = acme.role_id("member").await;
    let with_role = [("act", "create"), ("username", "ann"), ("role_id", member.as_str())];
    let ann = browser.post(&address, &with_role).await;
    let uid = ann.location().and_then(|location| location.rsplit('/').next()).expect("an id").to_owned();
    assert_eq!(roles(&acme, &uid).await, [("member".to_owned(), "manual".to_owned())]);
    let fields = [("act", "create"), ("display_name", "Kim"), ("username", "kim"), ("email", "kim@example.org")];
    let made = browser.post(&address, &fields).await;
    assert_eq!((made.status, browser.follow(&made).await.h1()), (303, "Kim".into()), "{}", made.main());
    let again = browser.post(&address, &fields).await;
    assert_eq!((again.status, again.value("username").as_deref()), (409, Some("kim")), "{}", again.main());
    assert!(again.links().contains(&made.location().expect("an address").to_owned()), "{:?}", again.links());
    let beta = site.organization("beta").await;
    created(&beta, "lee", "Lee").await;
    let elsewhere =
        browser.post(&address, &[("act", "create"), ("username", "max"), ("email", "lee@example.org")]).await;
    assert_eq!(elsewhere.status, 409, "{}", elsewhere.main());
    assert!(elsewhere.links().iter().any(|link| link.ends_with("invitations?email=lee%40example.org")));
    let person = site.member().await;
    assert_eq!(browser.post(&address, &[("act", "add"), ("uid", &person.uid)]).await.status, 403);
    // Accounts of the whole site are a matter of its administrators.
    browser.forget();
    browser.sign_in(ADMIN, PASSWORD).await;
    let unknown = browser.post(&address, &[("act", "add"), ("uid", "019abcde-0000-7000-8000-000000000002")]).await;
    assert_eq!((unknown.status, unknown.faults()[0].0.as_str()), (404, "uid"), "{}", unknown.main());
    let added = browser.post(&address, &[("act", "add"), ("uid", &person.uid)]).await;
    assert_eq!(added.status, 303, "{}", added.main());
    assert_eq!(browser.follow(&added).await.h1(), person.username);
}

#[tokio::test]
async fn foreign_members_do_not_exist_and_lacking_rights_are_named() {
    let site = Site::start().await;
    let (acme, beta) = (site.organization("acme").await, site.organization("beta").await);
    let (_, browser) = owner(&acme).await;
    let foreign = created(&beta, "lee", "Lee").await;
    for tab in ["", "/roles", "/keys", "/quota", "/sessions", "/activity"] {
        let page = browser.get(&format!("{LIST}/{foreign}{tab}")).await;
        assert_eq!(page.status, 404, "{tab}: {}", page.main());
    }
    assert_eq!(browser.get("/console/o/beta/members").await.status, 404);
    assert_eq!(browser.get("/console/o/acme").await.h1(), "Overview");
    let plain = acme.member().await;
    let visitor = site.visitor();
    visitor.sign_in(&plain.username, PASSWORD).await;
    assert_eq!(visitor.get("/console/o/acme").await.location(), Some("/console/me"));
    let denied = visitor.get(LIST).await;
    assert!(denied.status == 403 && denied.main().contains("roster.user.list"), "{}", denied.main());
    // Who may only look sees no acts.
    let reader = acme.member_with(&["roster.user.list", "roster.user.get"]).await;
    let visitor = site.visitor().in_chinese();
    visitor.sign_in(&reader.username, PASSWORD).await;
    let page = visitor.get(LIST).await;
    assert_eq!((page.status, page.h1(), page.with_class("bulk").len()), (200, "成員".into(), 0));
    let profile = visitor.get(&format!("{LIST}/{}", plain.uid)).await;
    assert_eq!((profile.status, profile.value("display_name")), (200, None), "{}", profile.main());
    let refused = visitor.post(LIST, &[("act", "suspend"), ("uid", &plain.uid)]).await;
    assert_eq!((refused.status, status(&acme, &plain.uid).await), (403, "active".into()));
}
