//! The pages of the audit log: entries with names and links, filters, the export, and the hash chain.

use serde_json::{Value, json};

use super::signed_in;
use crate::harness::console::{Browser, Element, Page};
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;

const OF_ACME: &str = "/console/o/acme/audit";
const OF_SITE: &str = "/console/site/audit";

/// An organization whose owner, Lee, changed Kim.
async fn prepared(site: &Site) -> (Organization<'_>, Member<'_>, Member<'_>, Browser) {
    let acme = site.organization("acme").await;
    let (lee, kim) = (acme.member_with_role("tenant_owner").await, acme.member().await);
    for (member, name) in [(&lee, "Lee <b>Owner</b>"), (&kim, "Kim Lee")] {
        let body = json!({"display_name": name, "email": format!("{}@example.org", member.username)});
        acme.admin().patch(&format!("/admin/members/{}", member.uid), body).await.done();
    }
    lee.caller().patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": "Kim"})).await.done();
    let role = json!({"key": "cutter", "display_name": "Cutter"});
    let role = lee.caller().post("/api/v1/permissions/roles", role).await.data();
    let rename = json!({"display_name": "Chief cutter"});
    let at = format!("/api/v1/permissions/roles/{}", role["id"].as_str().expect("id"));
    lee.caller().patch(&at, rename).await.done();
    let browser = signed_in(site, &lee.username).await;
    (acme, lee, kim, browser)
}

/// The rows of all days, without those of the tables of what changed.
fn rows(page: &Page) -> Vec<Element> {
    let all = page.with_class("list").into_iter().flat_map(|table| table.elements("tbody"));
    let rows = all.flat_map(|body| body.elements("tr"));
    rows.filter(|row| row.attribute("role") == Some("row")).collect()
}

/// Who, what, to what and outcome of each row.
fn cells(page: &Page) -> Vec<[String; 4]> {
    let of = |row: &Element| {
        // Tables of what changed stand in cells.
        let own = row.elements("td").into_iter().filter(|cell| cell.attributes.contains_key("data-label"));
        let texts: Vec<String> = own.map(|cell| cell.text()).collect();
        [texts[1].clone(), texts[2].clone(), texts[3].clone(), texts[4].clone()]
    };
    rows(page).iter().map(of).collect()
}

#[tokio::test]
async fn entries_say_who_did_what_to_whom_and_what_changed() {
    let site = Site::start().await;
    let (_acme, lee, kim, browser) = prepared(&site).await;
    let page = browser.get(&format!("{OF_ACME}?action=member.update&actor={}", lee.uid)).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Audit log"), "{}", page.main());
    let [who, what, whom, outcome] = cells(&page).remove(0);
    assert_eq!((who.as_str(), whom.as_str(), outcome.as_str()), ("Lee <b>Owner</b>", "Member Kim", "Done"));
    assert!(what.starts_with("Changed a member"), "{what}");
    page.require_escaped("<b>Owner</b>");
    let links = page.links();
    for uid in [&lee.uid, &kim.uid] {
        assert!(links.contains(&format!("/console/o/acme/members/{uid}")), "{links:?}");
    }
    // The values before and after, field by field.
    let listed = browser.get(&format!("{OF_ACME}?action=role.update")).await;
    assert_eq!((cells(&listed)[0][2].as_str(), listed.with_class("difference").len()), ("Role Chief cutter", 0));
    let more = listed.links().into_iter().find(|link| link.ends_with("#open")).expect("what changed");
    let renamed = browser.get(more.trim_end_matches("#open")).await;
    let changes: Vec<String> = renamed.with_class("difference")[0].elements("tr").iter().map(Element::text).collect();
    assert_eq!(changes, ["Property Before After", "Display name Cutter Chief cutter"]);
    // Under the day on which they were made.
    let days = renamed.elements("main")[0].elements("h2");
    assert!(days.iter().any(|day| day.text().ends_with("(UTC)")), "{}", renamed.main());
}

#[tokio::test]
async fn denials_and_entries_of_one_request_are_told_apart() {
    let site = Site::start().await;
    let (acme, lee, _, browser) = prepared(&site).await;
    let viewer = acme.member_with_role("viewer").await;
    viewer.caller().post("/api/v1/permissions/roles", json!({"key": "x1"})).await.is(31_505_000);
    let denied = browser.get(&format!("{OF_ACME}?outcome=denied")).await;
    let [who, what, _, outcome] = cells(&denied).remove(0);
    assert_eq!((who, what.starts_with("Create a role"), outcome.as_str()), (viewer.username.clone(), true, "Denied"));
    // Why it was denied, as a sentence.
    let reason = denied.links().into_iter().find(|link| link.ends_with("#open")).expect("a reason");
    let reason = cells(&browser.get(reason.trim_end_matches("#open")).await)[0][1].clone();
    assert!(reason.contains("You lack the permission for this."), "{reason}");
    // One request that makes several entries is one row, with the others folded.
    let twice = lee.caller().with("x-request-id", "from-a-test-7");
    for name in ["x2", "x3"] {
        twice.post("/api/v1/permissions/roles", json!({"key": name})).await.done();
    }
    let folded = browser.get(&format!("{OF_ACME}?action=role.create&actor={}", lee.username)).await;
    let all = cells(&folded);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0][1].contains("and 1 more of this request") && all[0][2] == "Role x3", "{all:?}");
    let more = folded.links().into_iter().find(|link| link.ends_with("#open")).expect("the other entry");
    let opened = &cells(&browser.get(more.trim_end_matches("#open")).await)[0][1];
    assert!(opened.contains("Role x2") && opened.contains("from-a-test-7"), "{opened}");
}

#[tokio::test]
async fn filters_stand_in_the_address_and_people_are_named() {
    let site = Site::start().await;
    let (acme, lee, kim, browser) = prepared(&site).await;
    let count = async |query: &str| rows(&browser.get(&format!("{OF_ACME}?{query}")).await).len();
    let all = count("limit=200").await;
    assert!(all > 4, "{all}");
    let by_lee = count(&format!("limit=200&actor={}", lee.uid)).await;
    assert_eq!(by_lee, count(&format!("limit=200&actor={}%40example.org", lee.username)).await);
    assert!(by_lee >= 3 && by_lee < all, "{by_lee} of {all}");
    let about_kim = count(&format!("limit=200&target={}", kim.uid)).await;
    assert_eq!(about_kim, count(&format!("limit=200&target={}%40example.org", kim.username)).await);
    assert!(about_kim >= 2 && about_kim < all, "{about_kim} of {all}");
    assert_eq!((count("limit=200&from=2001-01-01").await, count("to=2001-01-01").await), (all, 0));
    assert_eq!(count("outcome=denied").await, 0);
    let nothing = browser.get(&format!("{OF_ACME}?to=2001-01-01")).await;
    assert_eq!(nothing.with_class("empty").len(), 1, "{}", nothing.main());
    assert!(nothing.links().contains(&OF_ACME.to_owned()), "a way back");
    // A name that several have is a fault of the field, and what was typed stays.
    for n in 0..2 {
        acme.admin().post("/admin/members", json!({"username": format!("twin{n}")})).await.done();
    }
    let unclear = browser.get(&format!("{OF_ACME}?actor=twin")).await;
    assert_eq!(unclear.faults()[0].0, "actor", "{}", unclear.main());
    assert_eq!((unclear.value("actor").as_deref(), rows(&unclear).len()), (Some("twin"), 0));
    let dated = browser.get(&format!("{OF_ACME}?from=2001-01-01")).await;
    assert_eq!(dated.value("from").as_deref(), Some("2001-01-01"));
}

#[tokio::test]
async fn actions_are_found_by_their_words_and_members_by_their_names() {
    let site = Site::start().await;
    let (acme, lee, kim, browser) = prepared(&site).await;
    acme.owner().post("/admin/invitations", json!({})).await.done();
    let found = async |query: &str| cells(&browser.get(&format!("{OF_ACME}?limit=200&{query}")).await);
    let invited = found("action=invitation.create").await;
    assert_eq!(invited.len(), 1, "{invited:?}");
    for words in ["Created+an+invitation", "INVITATION", "invit", "%E5%BB%BA%E7%AB%8B%E9%82%80%E8%AB%8B"] {
        assert_eq!(found(&format!("action={words}")).await, invited, "{words}");
    }
    // The words of the only action stand in the field.
    let page = browser.get(&format!("{OF_ACME}?action=invitation.create")).await;
    assert_eq!(page.value("action").as_deref(), Some("Created an invitation"), "{}", page.main());
    let roles = found(&format!("action=role&actor={}", lee.uid)).await;
    assert!(roles.iter().any(|row| row[1].starts_with("Created a role")), "{roles:?}");
    assert!(roles.iter().any(|row| row[1].starts_with("Changed a role")), "{roles:?}");
    // Nothing has this name: similar actions are links.
    let page = browser.get(&format!("{OF_ACME}?action=invitng")).await;
    assert_eq!(
        (rows(&page).len(), page.with_class("empty")[0].elements("h2")[0].text()),
        (0, "No action is called “invitng”".to_owned())
    );
    let link = format!("{OF_ACME}?action=Created%20an%20invitation");
    assert!(page.links().contains(&link), "{:?}", page.links());
    // Lee is a part of both names; Kim is the name of one.
    assert_eq!(found("target=Kim").await, found(&format!("target={}", kim.uid)).await);
    let unclear = browser.get(&format!("{OF_ACME}?target=example.org")).await;
    assert_eq!(unclear.faults()[0].0, "target", "{}", unclear.main());
}

#[tokio::test]
async fn an_import_is_one_row_and_does_not_bury_the_others() {
    let site = Site::start().await;
    let (_acme, lee, _, browser) = prepared(&site).await;
    for n in 0..25 {
        lee.caller().post("/api/v1/permissions/roles", json!({"key": format!("old{n}")})).await.done();
    }
    let import = lee.caller().with("x-request-id", "an-import-8");
    for n in 0..30 {
        import.post("/api/v1/permissions/roles", json!({"key": format!("new{n}")})).await.done();
    }
    let first = browser.get(&format!("{OF_ACME}?action=role.create")).await;
    let all = cells(&first);
    assert_eq!(all.len(), 20, "{all:?}");
    assert!(all[0][1].contains("and 29 more of this request") && all[1][2] == "Role old24", "{all:?}");
    // The next page begins after the last entry that is shown.
    let next = first.links().into_iter().find(|link| link.contains("after=")).expect("older entries");
    let rest = cells(&browser.get(&next).await);
    assert_eq!((rest.len(), rest[0][2].as_str()), (7, "Role old5"), "{rest:?}");
    let overview = browser.get("/console/o/acme").await;
    let folded = overview.with_class("list").iter().any(|list| list.text().contains("and 29 more of this request"));
    assert!(folded, "{}", overview.main());
}

#[tokio::test]
async fn long_logs_are_read_page_by_page_and_the_export_keeps_the_filters() {
    let site = Site::start().await;
    let (_acme, lee, _, browser) = prepared(&site).await;
    for n in 0..25 {
        lee.caller().post("/api/v1/permissions/roles", json!({"key": format!("role{n}")})).await.done();
    }
    let first = browser.get(&format!("{OF_ACME}?limit=20&action=role.create")).await;
    let next = first.links().into_iter().find(|link| link.contains("after=")).expect("older entries");
    let second = browser.get(&next).await;
    assert_eq!((rows(&first).len(), rows(&second).len()), (20, 6), "{}", second.main());
    let newest = format!("{OF_ACME}?limit=20&action=role.create");
    assert!(second.links().contains(&newest), "{:?}", second.links());
    // The file has the entries of all pages that fit, oldest first.
    let export = second.links().into_iter().find(|link| link.contains("export=1")).expect("an export");
    let file = browser.get(&export).await;
    assert_eq!(
        (file.status, file.header("content-type"), file.header("content-disposition")),
        (200, Some("application/x-ndjson"), Some("attachment; filename=\"audit-acme.jsonl\""))
    );
    let lines: Vec<Value> = file.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 26);
    assert!(
        lines.iter().all(|line| line["action"] == "role.create") && lines[0]["id"].as_u64() < lines[25]["id"].as_u64()
    );
}

#[tokio::test]
async fn who_may_not_export_gets_no_file() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let reader = acme.member_with(&["roster.audit.list"]).await;
    let browser = signed_in(&site, &reader.username).await;
    let page = browser.get(OF_ACME).await;
    assert_eq!((page.status, page.links().iter().any(|link| link.contains("export"))), (200, false));
    assert_eq!(browser.get(&format!("{OF_ACME}?export=1")).await.status, 403);
    // Without the list of members, people are still named in the entries, but cannot be picked.
    let has_picker = |page: &Page| page.text.contains("data-picker=\"/console/search?as=options&amp;kind=member");
    let owner = acme.member_with_role("tenant_owner").await;
    let picked = signed_in(&site, &owner.username).await.get(OF_ACME).await;
    assert_eq!((has_picker(&page), has_picker(&picked)), (false, true), "{}", page.text);
}

/// Whether the page says that the chain is broken at the second entry.
fn is_warned(page: &Page) -> bool {
    let warning = "The audit log is broken at entry 2:";
    page.with_class("bad").iter().any(|one| one.has_class("notice") && one.text().starts_with(warning))
}

#[tokio::test]
async fn the_chain_is_verified_and_a_break_is_told_on_every_page_of_the_site() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = signed_in(&site, ADMIN).await;
    let before = browser.get(OF_SITE).await;
    assert!(before.main().contains("Not verified since the server started"), "{}", before.main());
    let head = site.admin().get("/admin/audit/head").await.data();
    assert_eq!(head.get("verification"), None);
    assert!(before.text.contains(head["last_hash"].as_str().expect("a hash")), "{}", before.main());
    let verified = async || {
        let started = browser.post(OF_SITE, &[("act", "verify")]).await;
        assert_eq!(started.status, 303, "{}", started.main());
        let task = started.location().expect("a task").to_owned();
        assert!(task.starts_with("/console/me/tasks/"), "{task}");
        eventually("the task is done", async || {
            let page = browser.get(&task).await;
            page.main().contains("Hash of the last valid entry").then_some(page)
        })
        .await
    };
    let whole = verified().await;
    assert!(whole.main().contains("Whole up to entry"), "{}", whole.main());
    let after = browser.get(OF_SITE).await;
    assert!(after.main().contains("Whole up to entry") && !is_warned(&after), "{}", after.main());
    site.write_rows(|rows| {
        rows.execute_batch("create table kept as select * from audit; update audit set action = 'x' where id = 2")
    });
    assert!(verified().await.main().contains("Broken at entry 2"));
    for page in [OF_SITE, "/console/site/organizations"] {
        let warned = browser.get(page).await;
        assert!(is_warned(&warned), "{page}: {}", warned.main());
    }
    // Members of organizations have no part in it.
    assert!(!is_warned(&browser.get("/console/me").await));
    site.write_rows(|rows| {
        rows.execute_batch(
            "delete from audit where id = 2; insert into audit select * from kept where id = 2; drop table kept",
        )
    });
    verified().await;
    assert!(!is_warned(&browser.get(OF_SITE).await));
    assert_eq!(browser.post(OF_SITE, &[("act", "other")]).await.status, 400);
}

#[tokio::test]
async fn the_site_reads_all_organizations_or_one() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    let browser = signed_in(&site, ADMIN).await;
    let all = cells(&browser.get(&format!("{OF_SITE}?action=organization.create")).await);
    let targets: Vec<&str> = all.iter().map(|row| row[2].as_str()).collect();
    assert_eq!(targets, ["Organization globex (globex)", "Organization acme (acme)"]);
    let one = browser.get(&format!("{OF_SITE}?action=organization.create&organization={}", globex.id)).await;
    assert_eq!((rows(&one).len(), one.value("organization").as_deref()), (1, Some(globex.id.as_str())));
    // A member is linked to the page of the site.
    let kim = acme.member().await;
    let page = browser.get(&format!("{OF_SITE}?action=member.link&target={}", kim.uid)).await;
    assert!(page.links().contains(&format!("/console/site/members/{}", kim.uid)), "{:?}", page.links());
}

#[tokio::test]
async fn the_log_speaks_chinese() {
    let site = Site::start().await;
    let (_acme, lee, ..) = prepared(&site).await;
    let browser = site.visitor().in_chinese();
    browser.sign_in(&lee.username, PASSWORD).await;
    let page = browser.get(&format!("{OF_ACME}?action=role.create")).await;
    assert_eq!((page.h1().as_str(), cells(&page)[0][1].starts_with("建立角色")), ("稽核紀錄", true), "{}", page.main());
    assert_eq!(cells(&page)[0][3], "完成");
}
