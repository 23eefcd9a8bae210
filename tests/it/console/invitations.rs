//! The page of invitations.

use serde_json::json;

use crate::harness::console::{Browser, Page};
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};

const LIST: &str = "/console/o/acme/invitations";

async fn owner(acme: &Organization<'_>) -> Browser {
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = acme.site.visitor();
    browser.sign_in(&owner.username, PASSWORD).await;
    browser
}

/// The cells of the rows.
fn rows(page: &Page) -> Vec<Vec<String>> {
    let tables = page.with_class("list");
    let rows = tables.iter().flat_map(|table| table.elements("tbody")).flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(|cell| cell.text()).collect()).collect()
}

#[tokio::test]
async fn somebody_is_invited_with_a_role_and_the_link_is_shown_once() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let empty = browser.get(&format!("{LIST}?email=kim%40example.org")).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("Invitations".into(), 1));
    assert_eq!(empty.value("email").as_deref(), Some("kim@example.org"));
    let viewer = acme.role_id("viewer").await;
    let fields = |email: &'static str, once: &'static str| {
        [("act", "create"), ("email", email), ("role_id", viewer.as_str()), ("expires_at", "7d"), ("once", once)]
    };
    let wrong = browser.post(LIST, &fields("no e-mail", "a")).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "email"), "{}", wrong.main());
    let typed = ["email", "role_id", "expires_at"].map(|name| wrong.value(name).expect("a value"));
    assert_eq!(typed, ["no e-mail", viewer.as_str(), "7d"]);
    let made = browser.post(LIST, &fields("kim@example.org", "b")).await;
    assert_eq!(made.status, 200, "{}", made.main());
    let link = made.with_class("secret")[0].elements("code")[0].text();
    assert!(link.contains("/invitation?token="), "{link}");
    let again = browser.post(LIST, &fields("kim@example.org", "b")).await;
    assert_eq!((again.status, again.with_class("secret").len()), (409, 0), "{}", again.main());
    let sentence = "This form was sent already: the link was shown once. Create another invitation.";
    assert_eq!(again.notices(), [sentence], "{}", again.main());
    let listed = browser.get(LIST).await;
    assert!(!listed.text.contains(&link), "{}", listed.main());
    assert_eq!((rows(&listed).len(), rows(&listed)[0][0].as_str()), (1, "kim@example.org"));
}

#[tokio::test]
async fn roles_are_offered_only_to_those_who_may_give_them() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let offered = async |browser: &Browser| -> Vec<String> {
        let page = browser.get(LIST).await;
        let select = page.elements("select").into_iter().find(|select| select.attribute("name") == Some("role_id"));
        let options = select.expect("a choice of roles").elements("option");
        options.iter().map(|option| option.attributes["value"].clone()).collect()
    };
    let (owners, member) = (acme.role_id("tenant_owner").await, acme.role_id("member").await);
    let of_owner = owner(&acme).await;
    assert!(offered(&of_owner).await.contains(&owners));
    assert_eq!(of_owner.get(LIST).await.value("role_id").as_deref(), Some(member.as_str()));
    let inviter = acme.member_with(&["roster.invitation.list", "roster.invitation.create", "roster.role.list"]).await;
    let browser = site.visitor();
    browser.sign_in(&inviter.username, PASSWORD).await;
    assert!(!offered(&browser).await.contains(&owners));
}

#[tokio::test]
async fn an_invitation_is_withdrawn_after_a_question() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let payload = "<b>x</b>@example.org";
    let made = acme.owner().post("/admin/invitations", json!({"email": "kim@example.org"})).await.data();
    let id = made["id"].as_str().expect("id");
    let page = browser.get(LIST).await;
    let question = page.links().into_iter().find(|link| link.contains("confirm=delete")).expect("a link");
    let asked = browser.get(&question).await;
    assert!(asked.with_class("confirm")[0].text().contains("kim@example.org"), "{}", asked.main());
    assert_eq!(rows(&asked).len(), 1);
    let done = browser.post(LIST, &[("act", "delete"), ("id", id)]).await;
    assert_eq!((done.status, done.location()), (303, Some(LIST)), "{}", done.main());
    assert_eq!(rows(&browser.get(LIST).await).len(), 0);
    let twice = browser.post(LIST, &[("act", "delete"), ("id", id)]).await;
    assert_eq!(twice.status, 404, "{}", twice.main());
    let prefilled = browser.get(&format!("{LIST}?email=%3Cb%3Ex%3C/b%3E%40example.org")).await;
    prefilled.require_escaped(payload);
}

#[tokio::test]
async fn who_may_not_invite_sees_the_list_only() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let reader = acme.member_with(&["roster.invitation.list"]).await;
    let visitor = site.visitor().in_chinese();
    visitor.sign_in(&reader.username, PASSWORD).await;
    let page = visitor.get(LIST).await;
    assert_eq!((page.status, page.h1(), page.value("email")), (200, "邀請".into(), None), "{}", page.main());
    assert_eq!(visitor.post(LIST, &[("act", "create")]).await.status, 403);
    let plain = acme.member().await;
    visitor.forget();
    visitor.sign_in(&plain.username, PASSWORD).await;
    let denied = visitor.get(LIST).await;
    assert!(denied.status == 403 && denied.main().contains("roster.invitation.list"), "{}", denied.main());
}
