//! The pages of an organization's videos.

use serde_json::json;

use super::signed_in;
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{PASSWORD, Site};
use crate::videos::registration::{service, set_quota};

const LIST: &str = "/console/o/acme/videos";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

async fn owner(acme: &Organization<'_>) -> Browser {
    let owner = acme.member_with_role("tenant_owner").await;
    signed_in(acme.site, &owner.username).await
}

/// Registers a video of this size in the member's folder, as a service does.
async fn video(member: &Member<'_>, name: &str, bytes: u64) -> String {
    let key = service(member.site, &["videos:write"]).await.with("x-sftpgo-user", &member.username);
    let path = format!("{}/{name}", member.username);
    let made = key.post("/api/v1/register", json!({"path": path, "size": bytes})).await.data();
    made["uuid"].as_str().expect("uuid").to_owned()
}

/// The cells of all rows.
fn rows(page: &Page) -> Vec<Vec<String>> {
    let tables = page.with_class("list");
    let rows = tables.iter().flat_map(|table| table.elements("tbody")).flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(|cell| cell.text()).collect()).collect()
}

/// The first cells of all rows.
fn files(page: &Page) -> Vec<String> {
    rows(page).into_iter().map(|cells| cells[0].clone()).collect()
}

/// The facts of a page: names and values.
fn facts(page: &Page) -> Vec<(String, String)> {
    let lists = page.with_class("facts");
    let of = |one: &crate::harness::console::Element| (one.elements("dt")[0].text(), one.elements("dd")[0].text());
    lists.iter().flat_map(|list| list.elements("div")).map(|one| of(&one)).collect()
}

#[tokio::test]
async fn the_list_names_owners_and_is_searched_sorted_and_narrowed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let empty = browser.get(LIST).await;
    assert_eq!((empty.h1(), empty.with_class("empty").len()), ("Videos".into(), 1), "{}", empty.main());
    let command = empty.with_class("copyable")[0].elements("code")[0].text();
    assert!(command.ends_with("/api/v1/register"), "{command}");
    let (kim, lee) = (acme.member().await, acme.member().await);
    acme.admin().patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": PAYLOAD})).await.done();
    video(&kim, "2026/harbour.mp4", 3_000_000).await;
    video(&lee, "market.mp4", 1_000).await;
    video(&lee, &format!("{PAYLOAD}.mp4"), 2_000).await;
    let page = browser.get(LIST).await;
    page.require_escaped(PAYLOAD);
    assert_eq!(files(&page), [format!("{PAYLOAD}.mp4"), "market.mp4".into(), "harbour.mp4".into()]);
    let harbour = rows(&page).remove(2);
    assert_eq!(harbour[1..4], [PAYLOAD.to_owned(), format!("{}/2026", kim.username), "3 MB".into()]);
    assert_eq!(harbour[5], "Queued");
    let seen = async |query: &str| files(&browser.get(&format!("{LIST}?{query}")).await);
    assert_eq!(seen("keyword=harbour").await, ["harbour.mp4"]);
    assert_eq!(seen("sort=size").await.first().map(String::as_str), Some("market.mp4"));
    assert_eq!(seen("sort=-size").await.first().map(String::as_str), Some("harbour.mp4"));
    assert_eq!(seen(&format!("member={}", kim.uid)).await, ["harbour.mp4"]);
    // Half a word in the field of the owner narrows nothing.
    assert_eq!(seen("member=ki").await.len(), 3);
    let none = browser.get(&format!("{LIST}?keyword=nowhere")).await;
    assert_eq!((none.with_class("empty").len(), files(&none).len()), (1, 0));
    assert_eq!(browser.get(&format!("{LIST}?limit=20&offset=40")).await.status, 200);
}

#[tokio::test]
async fn a_video_is_transferred_to_a_member_with_room_for_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (kim, lee, bolt) = (acme.member().await, acme.member().await, site.organization("bolt").await);
    let id = video(&kim, "harbour.mp4", 3_000_000).await;
    let browser = owner(&acme).await;
    let address = format!("{LIST}/{id}");
    let page = browser.get(&address).await;
    assert_eq!(page.h1(), "harbour.mp4");
    assert_eq!(
        facts(&page)[..3],
        [
            ("Owner".to_owned(), kim.username.clone()),
            ("Folder".to_owned(), kim.username.clone()),
            ("Size".to_owned(), "3 MB".to_owned())
        ]
    );
    let picker = page.elements("input").into_iter().find(|input| input.attributes.contains_key("data-picker"));
    assert_eq!(picker.expect("a picker").attribute("data-picker"), Some("/console/o/acme/why/members"));
    set_quota(&lee, 1_000_000).await;
    let form = page.hidden(&address);
    let to =
        |uid: &str| -> Vec<(String, String)> { form.iter().cloned().chain([("uid".into(), uid.into())]).collect() };
    let full = browser.post(&address, &borrowed(&to(&lee.uid))).await;
    assert_eq!((full.status, full.faults()[0].0.as_str()), (403, "uid"), "{}", full.main());
    let missing = format!("{} uses 0 B of 1 MB, and this video needs 3 MB: 2 MB are missing.", lee.username);
    assert!(full.notices().contains(&missing), "{:?}", full.notices());
    assert_eq!(full.value("uid").as_deref(), Some(lee.uid.as_str()));
    let stranger = bolt.member().await;
    for nobody in [stranger.uid.as_str(), "nobody"] {
        let wrong = browser.post(&address, &[("act", "transfer"), ("uid", nobody)]).await;
        assert!(wrong.status >= 400 && wrong.faults()[0].0 == "uid", "{nobody}: {}", wrong.main());
    }
    set_quota(&lee, 10_000_000).await;
    // By username, as it is typed without script.
    let done = browser.post(&address, &[("act", "transfer"), ("uid", &lee.username)]).await;
    assert_eq!((done.status, done.location()), (303, Some(address.as_str())), "{}", done.main());
    let page = browser.follow(&done).await;
    assert_eq!(
        (page.notices(), facts(&page)[0].1.clone()),
        (vec!["The video is transferred.".into()], lee.username.clone())
    );
    assert_eq!(browser.post(&address, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn a_video_is_deleted_after_its_name_was_typed() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let id = video(&kim, "harbour.mp4", 3_000_000).await;
    let browser = owner(&acme).await;
    let question = format!("{LIST}/{id}?confirm=delete");
    let asked = browser.get(&question).await;
    assert!(asked.with_class("confirm")[0].text().contains("3 MB of the owner's quota"), "{}", asked.main());
    let hidden = asked.with_class("confirm")[0].fields();
    let with = |typed: &str| -> Vec<(String, String)> {
        let kept = hidden.iter().filter(|(name, _)| name != "typed").cloned();
        kept.chain([("typed".into(), typed.into())]).collect()
    };
    let wrong = browser.post(&question, &borrowed(&with("harbour"))).await;
    assert_eq!((wrong.status, wrong.with_class("confirm").len()), (400, 1), "{}", wrong.main());
    let gone = browser.post(&question, &borrowed(&with("harbour.mp4"))).await;
    assert_eq!((gone.status, gone.location()), (303, Some(LIST)), "{}", gone.main());
    assert_eq!(browser.follow(&gone).await.notices(), ["harbour.mp4 is deleted."]);
    assert_eq!(browser.get(&format!("{LIST}/{id}")).await.status, 404);
}

#[tokio::test]
async fn who_may_only_look_sees_neither_transfer_nor_deletion() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (kim, bolt) = (acme.member().await, site.organization("bolt").await);
    let (id, foreign) = (video(&kim, "harbour.mp4", 1_000).await, video(&bolt.member().await, "own.mp4", 1_000).await);
    let reader = acme.member_with(&["roster.video.list", "roster.video.get"]).await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&reader.username, PASSWORD).await;
    let list = browser.get(LIST).await;
    assert_eq!((list.h1(), files(&list)), ("影片".into(), vec!["harbour.mp4".to_owned()]));
    let address = format!("{LIST}/{id}");
    for shown in [&address, &format!("{address}?confirm=delete")] {
        let page = browser.get(shown).await;
        assert_eq!((page.status, page.form(&address).map(|_| ()), page.with_class("confirm").len()), (200, None, 0));
    }
    // Without the permission only own videos exist for a change.
    assert_eq!(browser.post(&address, &[("act", "delete"), ("typed", "harbour.mp4")]).await.status, 404);
    assert_eq!(browser.get(&format!("{LIST}/{foreign}")).await.status, 404);
    let plain = signed_in(&site, &kim.username).await.get(LIST).await;
    assert!(plain.status == 403 && plain.main().contains("roster.video.list"), "{}", plain.main());
}
