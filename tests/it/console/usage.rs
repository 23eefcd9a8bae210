//! The overviews and the pages of usage: figures, parts that fail alone, the ceiling, and both languages.

use serde_json::json;

use super::signed_in;
use crate::harness::console::{Browser, Element, Page, borrowed};
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, Site};
use crate::videos::jobs::queue;
use crate::videos::registration::{Media, register, set_quota};

const OVERVIEW: &str = "/console/o/acme";
const USAGE: &str = "/console/o/acme/usage";

/// The figure of the tile with this heading.
fn figure(page: &Page, heading: &str) -> Option<String> {
    let of = |tile: &Element, name: &str| tile.elements(name).first().map(Element::text);
    let tile = page.with_class("tile").into_iter().find(|tile| of(tile, "h2").as_deref() == Some(heading))?;
    tile.elements("p").iter().find(|line| line.has_class("figure")).map(Element::text)
}

/// The headings of the parts that could not be shown.
fn failed(page: &Page) -> Vec<String> {
    page.with_class("failed").iter().map(|tile| tile.elements("h2")[0].text()).collect()
}

/// The cards with a chart: heading, names of the series, and rows of the table.
fn charts(page: &Page) -> Vec<(String, Vec<String>, Vec<Vec<String>>)> {
    let cards = page.with_class("card").into_iter().filter(|card| !card.elements("figure").is_empty());
    let row = |row: &Element| {
        let cells = row.elements("th").into_iter().chain(row.elements("td"));
        cells.map(|cell| cell.text()).collect::<Vec<_>>()
    };
    cards
        .map(|card| {
            let table = &card.elements("table")[0];
            let names = table.elements("thead")[0].elements("th").iter().skip(1).map(Element::text).collect();
            (card.elements("h2")[0].text(), names, table.elements("tbody")[0].elements("tr").iter().map(row).collect())
        })
        .collect()
}

/// Kim of Acme, who stores 950 of 1,000 bytes.
async fn full_kim<'s>(acme: &Organization<'s>, media: &Media) -> Member<'s> {
    let kim = acme.member().await;
    set_quota(&kim, 1_000).await;
    register(&kim.caller(), &media.file_of(&kim, "a.mp4", 950)).await.done();
    kim
}

async fn owner(acme: &Organization<'_>) -> Browser {
    signed_in(acme.site, &acme.member_with_role("tenant_owner").await.username).await
}

#[tokio::test]
async fn the_overview_has_the_figures_of_its_organization_and_the_first_steps_of_an_empty_one() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let admin = signed_in(&site, ADMIN).await;
    let empty = admin.get(OVERVIEW).await;
    assert_eq!((empty.status, empty.h1().as_str(), figure(&empty, "Members").as_deref()), (200, "Overview", Some("1")));
    let steps: Vec<String> = empty.with_class("rail")[0]
        .elements("a")
        .iter()
        .filter_map(|a| a.attribute("href").map(str::to_owned))
        .collect();
    assert_eq!(steps, ["invitations", "grid", "why"].map(|page| format!("{OVERVIEW}/{page}")));

    let kim = full_kim(&acme, &media).await;
    queue(&site, &kim.uid, Some(&globex.id), 2);
    acme.check(json!({"uid": kim.uid, "method": "GET", "path": "/films"})).await;
    let browser = owner(&acme).await;
    let first = acme.owner();
    first.patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": "Kim"})).await.done();
    let page = browser.get(OVERVIEW).await;
    assert_eq!(page.with_class("rail").len(), 0, "{}", page.main());
    let figures = ["Members", "Stored", "Jobs", "Plugins"].map(|heading| figure(&page, heading).expect("a figure"));
    assert_eq!(figures, ["3", "950 B", "1 waiting", "0 in force"]);
    assert!(figure(&page, "Sign-ins").is_some_and(|count| count != "0"), "{}", page.main());
    let lists: Vec<Vec<String>> = page
        .with_class("list")
        .iter()
        .map(|list| list.elements("tbody")[0].elements("tr").iter().map(Element::text).collect())
        .collect();
    assert_eq!((lists.len(), lists[0].len(), failed(&page).len()), (2, 1, 0), "{}", page.main());
    let newest = |list: usize| -> Vec<String> {
        page.with_class("list")[list].elements("tbody")[0].elements("tr")[0]
            .elements("td")
            .iter()
            .map(Element::text)
            .collect()
    };
    assert_eq!(newest(0)[1..3], ["Kim", "GET /films"]);
    let actor = first.get("/me").await.data()["username"].as_str().expect("a name").to_owned();
    assert_eq!(newest(1)[1..], [actor.as_str(), "Changed a member", "Member Kim", "Done"]);
    assert_eq!(figure(&page, "Denied requests").as_deref(), Some("1"), "{}", page.main());
    assert!(page.links().contains(&format!("{OVERVIEW}/decisions?allow=false")), "{:?}", page.links());
    let entry = page.elements("a").into_iter().find(|a| a.attribute("aria-current") == Some("page"));
    assert_eq!(entry.expect("an entry").text(), "Overview");

    let other = owner(&globex).await.get("/console/o/globex").await;
    let figures = ["Members", "Stored", "Jobs"].map(|heading| figure(&other, heading).expect("a figure"));
    assert_eq!(figures, ["2", "0 B", "2 waiting"]);
}

#[tokio::test]
async fn an_overview_has_the_parts_that_its_visitor_may_see() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let plain = signed_in(&site, &acme.member().await.username).await;
    let away = plain.get(OVERVIEW).await;
    assert_eq!((away.status, away.location()), (303, Some("/console/me")));
    let reader = acme.member_with(&["roster.job.count"]).await;
    let page = signed_in(&site, &reader.username).await.get(OVERVIEW).await;
    let headings: Vec<String> = page.with_class("tile").iter().map(|tile| tile.elements("h2")[0].text()).collect();
    assert_eq!((page.status, headings), (200, vec!["Jobs".to_owned()]), "{}", page.main());
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, crate::harness::site::PASSWORD).await;
    for (path, title) in
        [(OVERVIEW, "總覽"), (USAGE, "用量"), ("/console/site", "總覽"), ("/console/site/usage", "用量")]
    {
        let page = chinese.get(path).await;
        assert_eq!((page.status, page.h1().as_str()), (200, title), "{path}");
    }
}

#[tokio::test]
async fn a_part_that_fails_leaves_its_page_whole() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    std::fs::write(site.path().join("decisions.db"), "this is no database ".repeat(1_000)).expect("noise");
    let page = browser.get(OVERVIEW).await;
    assert_eq!((page.status, failed(&page)), (200, vec!["Newest denials".to_owned()]), "{}", page.main());
    assert!(page.with_class("failed")[0].text().contains("decisions.db is damaged"), "{}", page.main());
    let figures = ["Members", "Stored", "Jobs", "Sign-ins"].map(|heading| figure(&page, heading).is_some());
    assert_eq!(figures, [true; 4], "{}", page.main());
    let usage = browser.get(USAGE).await;
    let cards = usage.with_class("card");
    let decisions = cards.iter().find(|card| card.elements("h2")[0].text() == "Denied requests by reason");
    let text = decisions.expect("a card").text();
    assert_eq!((usage.status, text.contains("This cannot be shown now.")), (200, true), "{text}");
    assert!(charts(&usage).iter().any(|(title, ..)| title == "Sign-ins"), "{}", usage.main());
}

#[tokio::test]
async fn usage_shows_who_is_full_and_leads_to_their_quota() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    let empty = browser.get(USAGE).await;
    assert_eq!((empty.status, empty.h1().as_str(), figure(&empty, "Stored").as_deref()), (200, "Usage", Some("0 B")));
    assert_eq!(empty.with_class("empty").len(), 1, "{}", empty.main());

    let kim = full_kim(&acme, &media).await;
    let lee = acme.member().await;
    register(&lee.caller(), &media.file_of(&lee, "b.mp4", 2_000)).await.done();
    acme.check(json!({"uid": kim.uid, "method": "GET", "path": "/films"})).await;
    let page = browser.get(USAGE).await;
    assert_eq!(figure(&page, "Stored").as_deref(), Some("2.9 KB"), "{}", page.main());
    let rows: Vec<Element> = page.with_class("row-link");
    let names: Vec<String> = rows.iter().map(Element::text).collect();
    assert_eq!(names, [kim.username.as_str(), lee.username.as_str()]);
    assert_eq!(rows[0].attribute("href"), Some(format!("/console/o/acme/members/{}/quota", kim.uid).as_str()));
    let marked: Vec<bool> = page.with_class("list")[0]
        .elements("tr")
        .iter()
        .skip(1)
        .map(|row| row.elements("span").iter().any(|span| span.has_class("meter") && span.has_class("bad")))
        .collect();
    assert_eq!(marked, [true, false]);

    let drawn = charts(&page);
    let titles: Vec<&str> = drawn.iter().map(|(title, ..)| title.as_str()).collect();
    assert_eq!(titles, ["Storage over time", "Jobs", "Denied requests by reason", "Sign-ins"]);
    let growth = &drawn[0].2;
    assert_eq!((growth.len(), growth[0][1].as_str(), growth[6][1].as_str()), (7, "0 B", "2.9 KB"), "{growth:?}");
    assert_eq!((drawn[1].1.join(", "), drawn[1].2.len()), ("Created, Done, Given up".to_owned(), 1));
    assert_eq!(drawn[1].2[0][1..], ["2", "0", "0"]);
    assert_eq!(drawn[2].2[0][1..], ["1"]);
    let described: Vec<bool> = page.elements("desc").iter().map(|desc| !desc.text().is_empty()).collect();
    assert_eq!(described, [true; 4]);
    let links = page.links();
    for list in ["/jobs", "/jobs?state=dead", "/audit?action=session.create", "/videos"] {
        assert!(links.contains(&format!("{OVERVIEW}{list}")), "{list}");
    }
}

#[tokio::test]
async fn usage_is_shown_by_hour_and_for_a_month() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let browser = owner(&acme).await;
    for (range, rows, label) in [("now", 24, "Hour (UTC)"), ("7d", 7, "Day (UTC)"), ("30d", 30, "Day (UTC)")] {
        let page = browser.get(&format!("{USAGE}?range={range}")).await;
        let (title, _, numbers) = charts(&page).remove(0);
        assert_eq!((title.as_str(), numbers.len()), ("Storage over time", rows), "{range}");
        let heads = page
            .with_class("card")
            .iter()
            .find_map(|card| Some(card.elements("thead").first()?.elements("th")[0].text()));
        assert_eq!(heads.as_deref(), Some(label));
        let tabs = page.with_class("tabs")[0].elements("a");
        let current: Vec<String> =
            tabs.iter().filter(|tab| tab.attribute("aria-current") == Some("page")).map(Element::text).collect();
        assert_eq!(current.len(), 1);
        assert!(tabs.iter().any(|tab| tab.attribute("href") == Some(format!("{USAGE}?range={range}").as_str())));
    }
}

#[tokio::test]
async fn the_ceiling_is_changed_where_allowed_and_the_undo_restores_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let admin = signed_in(&site, ADMIN).await;
    let ceiling = async || {
        let usage = acme.admin().get("/admin/usage").await.data();
        usage["organizations"][0]["size"].as_i64()
    };
    let wrong = admin.post(USAGE, &[("size", "20 <b>apples")]).await;
    assert_eq!((wrong.status, wrong.faults()[0].0.as_str()), (400, "size"), "{}", wrong.main());
    assert_eq!(wrong.value("size").as_deref(), Some("20 <b>apples"));
    wrong.require_escaped("20 <b>apples");
    assert_eq!(ceiling().await, None);

    for (text, bytes) in [("2 TB", 2_000_000_000_000), ("500 GiB", 500 << 30)] {
        let done = admin.post(USAGE, &[("size", text)]).await;
        assert_eq!((done.status, done.location()), (303, Some(USAGE)), "{}", done.main());
        assert_eq!(ceiling().await, Some(bytes));
    }
    let undo = admin.get(USAGE).await.with_class("notice-undo")[0].elements("form").remove(0);
    // Without the notice, whose form has a field of the same name.
    let page = admin.get(USAGE).await;
    assert_eq!(page.value("size").as_deref(), Some("500 GiB"), "{}", page.main());
    assert_eq!(admin.post(USAGE, &borrowed(&undo.fields())).await.status, 303);
    assert_eq!(ceiling().await, Some(2_000_000_000_000));
    admin.post(USAGE, &[("size", "")]).await;
    assert_eq!(ceiling().await, None);

    let owner = owner(&acme).await;
    assert_eq!(owner.get(USAGE).await.value("size"), None);
    assert_eq!(owner.post(USAGE, &[("size", "1 TB")]).await.status, 403);
    assert_eq!(ceiling().await, None);
}

#[tokio::test]
async fn the_site_sees_all_organizations_and_leads_to_each() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let admin = signed_in(&site, ADMIN).await;
    let first = admin.get("/console/site").await;
    assert_eq!((first.status, first.h1().as_str()), (200, "Overview"));
    assert!(first.with_class("card")[0].elements("a")[0].attribute("href") == Some("/console/site/first-steps"));

    let acme = site.organization("acme").await;
    let payload = "<b>Acme</b>";
    site.admin().patch(&format!("/admin/organizations/{}", acme.id), json!({"name": payload})).await.done();
    let kim = full_kim(&acme, &media).await;
    let overview = admin.get("/console/site").await;
    let figures =
        ["Stored", "Jobs", "Deliveries given up"].map(|heading| figure(&overview, heading).expect("a figure"));
    assert_eq!(figures, ["950 B", "1 waiting", "0"], "{}", overview.main());
    assert_eq!(failed(&overview).len(), 0);

    let usage = admin.get("/console/site/usage").await;
    usage.require_escaped(payload);
    assert_eq!(figure(&usage, "Stored").as_deref(), Some("950 B"), "{}", usage.main());
    let links: Vec<String> =
        usage.with_class("row-link").iter().filter_map(|link| link.attribute("href").map(str::to_owned)).collect();
    assert!(links.contains(&USAGE.to_owned()), "{links:?}");
    assert!(links.contains(&format!("/console/o/acme/members/{}/quota", kim.uid)), "{links:?}");
}
