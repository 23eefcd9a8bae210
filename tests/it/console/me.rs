//! The pages of a member's own data.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::harness::console::{Browser, Page};
use crate::harness::organizations::Member;
use crate::harness::site::{PASSWORD, Site};
use crate::videos::registration::{quota, service};

const PAYLOAD: &str = "<img src=x onerror=alert(1)>";
const NEW_PASSWORD: &str = "Another-horse-8";

async fn browser_of(site: &Site, member: &Member<'_>) -> Browser {
    let browser = site.visitor();
    browser.sign_in(&member.username, PASSWORD).await;
    browser
}

/// Registers a video of this size in the member's folder, as a service does.
async fn video(site: &Site, member: &Member<'_>, name: &str, bytes: u64) -> String {
    let key = service(site, &["videos:write"]).await.with("x-sftpgo-user", &member.username);
    let path = format!("{}/{name}", member.username);
    let made = key.post("/api/v1/register", json!({"path": path, "size": bytes})).await.data();
    made["uuid"].as_str().expect("uuid").to_owned()
}

/// A code of the secret; `step` is 0 for now, 1 for the next.
fn code(secret: &str, step: u64) -> String {
    let secret = Secret::try_from_base32(secret).expect("base32");
    let totp = Builder::new().with_secret(secret).build().expect("a secret");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    totp.generate(now + step * 30).to_string()
}

fn fields<'f>(hidden: &'f [(String, String)], more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let hidden = hidden.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    hidden.chain(more.iter().copied()).collect()
}

fn fields_of_fault(page: &Page) -> Vec<String> {
    page.faults().into_iter().map(|(field, _)| field).collect()
}

// ── overview and profile ──

#[tokio::test]
async fn the_overview_shows_storage_videos_organizations_and_activity() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let browser = browser_of(&site, &kim).await;
    let empty = browser.get("/console/me").await;
    assert_eq!((empty.status, empty.with_class("empty").len()), (200, 1), "{}", empty.main());
    video(&site, &kim, &format!("{PAYLOAD}.mp4"), 2_000_000).await;
    let page = browser.get("/console/me").await;
    page.require_escaped(PAYLOAD);
    assert_eq!(page.h1(), format!("Hello, {}", kim.username));
    assert_eq!(page.with_class("meter").len(), 1);
    assert_eq!(page.texts("figure"), ["2 MB of 10.7 GB"]);
    let first = page.elements("tbody").first().expect("the videos").elements("td")[0].text();
    assert_eq!(first, format!("{}/{PAYLOAD}.mp4", kim.username));
    let links: Vec<String> = page.elements("main")[0]
        .elements("a")
        .iter()
        .filter_map(|link| link.attribute("href").map(str::to_owned))
        .collect();
    assert!(links.contains(&"/console/me/rights?org=acme".to_owned()), "{links:?}");
    assert!(!links.contains(&"/console/o/acme".to_owned()), "a member who may not see others has nothing there");
    let done = page.elements("tbody").last().expect("the activity").elements("td")[0].text();
    assert_eq!(done, "Signed in");
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(&kim.username, PASSWORD).await;
    assert_eq!(chinese.get("/console/me").await.h1(), format!("{}，您好", kim.username));
}

#[tokio::test]
async fn the_profile_is_saved_and_a_stale_form_shows_what_is_stored() {
    let site = Site::start().await;
    let kim = site.member().await;
    let browser = browser_of(&site, &kim).await;
    let address = "/console/me/profile";
    let form = browser.get(address).await;
    let version = form.value("version").expect("a version");
    let saved = browser.post(address, &[("display_name", PAYLOAD), ("version", &version)]).await;
    let page = browser.follow(&saved).await;
    page.require_escaped(PAYLOAD);
    assert_eq!((page.value("display_name").as_deref(), page.notices().len()), (Some(PAYLOAD), 1));
    assert_eq!(kim.caller().get("/me").await.data()["display_name"], PAYLOAD);

    let stale = browser.post(address, &[("display_name", "Kim"), ("version", &version)]).await;
    assert_eq!((stale.status, stale.value("display_name").as_deref()), (412, Some("Kim")), "{}", stale.main());
    let notice = "Look at the present state below, and save again if your change is still right.";
    assert_eq!(stale.notices(), [notice], "said once");
    let present = stale.value("version").expect("the present version");
    let again = browser.post(address, &[("display_name", "Kim"), ("version", &present)]).await;
    assert_eq!(again.status, 303);

    let long = "k".repeat(300);
    let wrong = browser.post(address, &[("display_name", &long)]).await;
    assert_eq!((wrong.status, fields_of_fault(&wrong)), (400, vec!["display_name".to_owned()]));
    assert_eq!(wrong.value("display_name"), Some(long));
    let removed = browser.post(address, &[("display_name", "")]).await;
    assert_eq!((removed.status, &kim.caller().get("/me").await.data()["display_name"]), (303, &Value::Null));
}

// ── security ──

#[tokio::test]
async fn the_password_is_changed_and_its_faults_stand_at_their_fields() {
    let site = Site::start().await;
    let kim = site.member().await;
    let browser = browser_of(&site, &kim).await;
    let address = "/console/me/security";
    let change = async |old: &str, new: &str, again: &str| {
        let fields = [("act", "password"), ("old_password", old), ("new_password", new), ("again", again)];
        browser.post(address, &fields).await
    };
    let wrong = change("Wrong-horse-7", NEW_PASSWORD, NEW_PASSWORD).await;
    assert_eq!((wrong.status, fields_of_fault(&wrong)), (400, vec!["old_password".to_owned()]), "{}", wrong.main());
    let differs = change(PASSWORD, NEW_PASSWORD, "x").await;
    assert_eq!((differs.status, fields_of_fault(&differs)), (400, vec!["again".to_owned()]));
    let weak = change(PASSWORD, "short", "short").await;
    assert!(weak.status == 400 && fields_of_fault(&weak).iter().all(|field| field == "new_password"));
    for page in [&wrong, &differs, &weak] {
        assert!(!page.text.contains(PASSWORD) && !page.text.contains(NEW_PASSWORD), "passwords are not shown again");
    }
    let changed = change(PASSWORD, NEW_PASSWORD, NEW_PASSWORD).await;
    assert_eq!((changed.status, changed.location()), (303, Some(address)), "{}", changed.main());
    assert_eq!(browser.get(address).await.status, 200, "this session goes on");
    assert_eq!(kim.caller().get("/me").await.word(), "invalid_bearer_token");
    site.visitor().sign_in(&kim.username, NEW_PASSWORD).await;
}

/// Sets a second factor up on the pages. Returns its secret and a recovery code.
async fn enrolled(browser: &Browser) -> (String, Vec<String>) {
    let address = "/console/me/security";
    let form = browser.get(&format!("{address}?do=begin")).await;
    let begun = browser.post(address, &fields(&form.hidden(address), &[("password", PASSWORD)])).await;
    assert_eq!((begun.status, begun.with_class("qr").len()), (200, 1), "{}", begun.main());
    assert_eq!(form.form(address).expect("a form").elements("small").len(), 0, "the password is not optional");
    assert_eq!(begun.texts("hint"), ["The six digits that the app shows now."], "there are no recovery codes yet");
    assert_eq!(begun.links().iter().filter(|link| link.starts_with("otpauth://totp/")).count(), 1);
    let secret = begun.with_class("copyable")[0].elements("code")[0].text();
    let wrong = browser.post(address, &fields(&begun.hidden(address), &[("code", "000000")])).await;
    assert_eq!((wrong.status, fields_of_fault(&wrong)), (401, vec!["code".to_owned()]), "{}", wrong.main());
    assert_eq!(wrong.with_class("copyable")[0].elements("code")[0].text(), secret, "a wrong code keeps the secret");
    let code = code(&secret, 0);
    let on = browser.post(address, &fields(&wrong.hidden(address), &[("code", &code)])).await;
    assert_eq!((on.status, on.with_class("secret").len()), (200, 1), "{}", on.main());
    let shown = on.with_class("secret")[0].elements("code")[0].text();
    (secret, shown.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_second_factor_is_set_up_renewed_and_removed() {
    let site = Site::start().await;
    let kim = site.member().await;
    let browser = browser_of(&site, &kim).await;
    let address = "/console/me/security";
    let refused = browser.post(address, &[("act", "begin"), ("password", "Wrong-horse-7")]).await;
    assert_eq!((refused.status, fields_of_fault(&refused)), (400, vec!["password".to_owned()]), "{}", refused.main());
    let (_, codes) = enrolled(&browser).await;
    assert_eq!(codes.len(), 10);
    let twice = browser.post(address, &[("act", "confirm"), ("code", "000000")]).await;
    assert_eq!((twice.status, twice.location()), (303, Some(address)), "{}", twice.main());
    let notice = "Your second factor is in use. If you did not keep the recovery codes, make new ones now.";
    assert_eq!(browser.follow(&twice).await.notices(), [notice]);
    let kept = browser.post(address, &[("act", "kept"), ("kept", "1")]).await;
    let page = browser.follow(&kept).await;
    assert!(!codes.iter().any(|code| page.text.contains(code)), "the codes are shown once");

    let renewed = browser.post(address, &[("act", "renew"), ("code", &codes[0])]).await;
    let fresh = renewed.with_class("secret")[0].elements("code")[0].text();
    assert_ne!(fresh, codes.join(" "));
    let wrong = browser.post(address, &[("act", "remove"), ("code", &codes[1])]).await;
    assert_eq!((wrong.status, fields_of_fault(&wrong)), (401, vec!["code".to_owned()]));
    let first = fresh.split(' ').next().expect("a code");
    let removed = browser.post(address, &[("act", "remove"), ("code", first)]).await;
    assert_eq!(removed.status, 303, "{}", removed.main());
    site.visitor().sign_in(&kim.username, PASSWORD).await;
    assert_eq!(browser.post(address, &[("act", "x")]).await.status, 400);
}

// ── sessions ──

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let site = Site::start().await;
    let kim = site.member().await;
    let here = site.visitor().with("user-agent", PAYLOAD);
    here.sign_in(&kim.username, PASSWORD).await;
    let there = browser_of(&site, &kim).await;
    let address = "/console/me/sessions";
    let page = here.get(address).await;
    page.require_escaped(PAYLOAD);
    let rows = page.elements("tbody")[0].elements("tr");
    // The third is the token of the harness.
    assert_eq!(rows.len(), 3, "{}", page.main());
    let current: Vec<usize> = (0..3).filter(|n| rows[*n].text().contains("This device")).collect();
    assert_eq!(current.len(), 1);
    let other = (0..3).find(|n| !current.contains(n)).expect("another");
    let id = rows[other].elements("input")[0].attribute("value").expect("an id").to_owned();
    assert_eq!(here.post(address, &[("act", "end"), ("id", &id)]).await.location(), Some(address));
    assert_eq!(here.post(address, &[("act", "others")]).await.location(), Some(address));
    assert_eq!(there.get(address).await.status, 303);
    assert_eq!(here.get(address).await.elements("tbody")[0].elements("tr").len(), 1);
    let missing = here.post(address, &[("act", "end"), ("id", &id)]).await;
    assert_eq!(missing.status, 404);

    let confirm = here.get(&format!("{address}?confirm=all")).await;
    let everywhere = here.post(address, &fields(&confirm.hidden(address), &[])).await;
    assert_eq!(everywhere.location(), Some("/console/sign-in"), "{}", everywhere.main());
    assert_eq!(here.get(address).await.status, 303);
}

// ── API keys ──

#[tokio::test]
async fn a_key_is_created_shown_once_rotated_and_deleted() {
    let site = Site::start().await;
    let kim = site.member().await;
    let browser = browser_of(&site, &kim).await;
    let address = "/console/me/keys";
    assert_eq!(browser.get(address).await.with_class("empty").len(), 1);
    let form = browser.get(&format!("{address}?new=1")).await;
    let hidden = form.hidden(address);
    let none = browser.post(address, &fields(&hidden, &[("name", PAYLOAD), ("type", "muser")])).await;
    assert_eq!((none.status, fields_of_fault(&none)), (400, vec!["scopes".to_owned()]), "{}", none.main());
    assert_eq!(none.value("name").as_deref(), Some(PAYLOAD));
    none.require_escaped(PAYLOAD);
    let late = [("name", PAYLOAD), ("type", "muser"), ("scopes", "me:read"), ("expires_at", "2999-01-01")];
    let late = browser.post(address, &fields(&hidden, &late)).await;
    assert_eq!((late.status, fields_of_fault(&late)), (400, vec!["expires_at".to_owned()]));
    assert_eq!(late.value("expires_at").as_deref(), Some("2999-01-01"));

    let right = [("name", PAYLOAD), ("type", "muser"), ("scopes", "me:read")];
    let made = browser.post(address, &fields(&hidden, &right)).await;
    made.require_escaped(PAYLOAD);
    let text = made.with_class("secret")[0].elements("code")[0].text();
    let key = async |text: &str| site.nobody().with("x-api-key", text).get("/me").await;
    key(&text).await.done();
    let twice = browser.post(address, &fields(&hidden, &right)).await;
    assert_eq!((twice.status, twice.with_class("secret").len()), (409, 0), "sent twice, it is made and shown once");
    let list = browser.get(address).await;
    list.require_escaped(PAYLOAD);
    assert!(!list.text.contains(&text), "the text is shown once");
    let rows = list.elements("tbody")[0].elements("tr");
    assert_eq!(rows.len(), 1, "{}", list.main());
    let to: Vec<String> = rows[0].elements("a").iter().filter_map(|a| a.attribute("href").map(str::to_owned)).collect();

    let confirm = browser.get(&to[0]).await;
    let rotated = browser.post(address, &fields(&confirm.hidden(address), &[])).await;
    let fresh = rotated.with_class("secret")[0].elements("code")[0].text();
    assert_ne!(fresh, text);
    key(&fresh).await.done();
    key(&text).await.done();
    let confirm = browser.get(&to[1]).await;
    let deleted = browser.post(address, &fields(&confirm.hidden(address), &[])).await;
    assert_eq!((deleted.status, deleted.location()), (303, Some(address)));
    assert_eq!(key(&fresh).await.word(), "invalid_key");
    assert_eq!(browser.get(&to[0]).await.status, 404);
}

// ── videos ──

#[tokio::test]
async fn own_videos_are_found_transferred_and_deleted() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (kim, lee, far) = (acme.member().await, acme.member().await, site.member().await);
    let first = video(&site, &kim, "harbour.mp4", 1_000).await;
    let second = video(&site, &kim, "market.mp4", 2_000).await;
    let foreign = video(&site, &lee, "own.mp4", 3_000).await;
    let browser = browser_of(&site, &kim).await;
    let address = "/console/me/videos";
    let page = browser.get(address).await;
    let shown: Vec<String> =
        page.elements("tbody")[0].elements("tr").iter().map(|row| row.elements("td")[0].text()).collect();
    let path = |name: &str| format!("{}/{name}", kim.username);
    assert_eq!(shown, [path("market.mp4"), path("harbour.mp4")]);
    let found = browser.get(&format!("{address}?keyword=harb")).await;
    assert_eq!(found.elements("tbody")[0].elements("tr").len(), 1);
    assert_eq!(browser.get(&format!("{address}?keyword=nothing")).await.with_class("empty").len(), 1);
    for act in ["transfer", "delete"] {
        assert_eq!(browser.get(&format!("{address}?{act}={foreign}")).await.status, 404);
    }

    let form = browser.get(&format!("{address}?transfer={first}")).await;
    let hidden = form.hidden(address);
    let wrong = browser.post(address, &fields(&hidden, &[("uid", PAYLOAD)])).await;
    wrong.require_escaped(PAYLOAD);
    assert_eq!((wrong.value("uid").as_deref(), fields_of_fault(&wrong)), (Some(PAYLOAD), vec!["uid".to_owned()]));
    let outside = browser.post(address, &fields(&hidden, &[("uid", &far.uid)])).await;
    assert_eq!((outside.status, fields_of_fault(&outside)), (404, vec!["uid".to_owned()]), "{}", outside.main());
    let given = browser.post(address, &fields(&outside.hidden(address), &[("uid", &lee.uid)])).await;
    assert_eq!((given.status, given.location()), (303, Some(address)), "{}", given.main());
    assert_eq!((quota(&kim).await["used"].clone(), quota(&lee).await["used"].clone()), (json!(2_000), json!(4_000)));

    let confirm = browser.get(&format!("{address}?delete={second}")).await;
    let deleted = browser.post(address, &fields(&confirm.hidden(address), &[])).await;
    assert_eq!(browser.follow(&deleted).await.with_class("empty").len(), 1);
    assert_eq!(quota(&kim).await["used"], 0);
}

#[tokio::test]
async fn a_member_without_a_username_is_not_told_of_a_folder() {
    let site = Site::start().await;
    let body = json!({"email": "kim@example.org", "password": PASSWORD});
    site.admin().post("/admin/members", body).await.done();
    let browser = site.visitor();
    browser.sign_in("kim@example.org", PASSWORD).await;
    for address in ["/console/me", "/console/me/videos"] {
        let page = browser.get(address).await;
        let shown = (page.status, page.with_class("empty").len(), page.with_class("copyable").len());
        assert_eq!(shown, (200, 1, 0), "{address}: {}", page.main());
    }
}

// ── rights and joining ──

#[tokio::test]
async fn rights_are_shown_for_each_organization() {
    let site = Site::start().await;
    let (acme, globex) = (site.organization("acme").await, site.organization("globex").await);
    site.organization("initech").await;
    let kim = acme.member_with_role("viewer").await;
    globex.link(&kim.uid).await;
    let browser = browser_of(&site, &kim).await;
    let page = browser.get("/console/me/rights?org=acme").await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Rights"));
    assert_eq!(page.with_class("tabs")[0].elements("a").len(), 2);
    let names: Vec<String> = page.with_class("tree")[0].elements("code").iter().map(|code| code.text()).collect();
    assert!(names.contains(&"roster.video.list".to_owned()), "{names:?}");
    assert!(!names.contains(&"roster.video.delete".to_owned()), "{names:?}");
    let without = browser.get("/console/me/rights?org=globex").await;
    assert_eq!((without.status, without.with_class("tree").len()), (200, 0), "{}", without.main());
    for foreign in ["initech", "no-such"] {
        assert_eq!(browser.get(&format!("/console/me/rights?org={foreign}")).await.status, 404);
    }
    let nobody = browser_of(&site, &site.member().await).await;
    assert_eq!(nobody.get("/console/me/rights").await.with_class("empty").len(), 1);
    let main = browser.get("/console/me").await.elements("main").remove(0);
    let leads_to = |address: &str| main.elements("a").iter().any(|link| link.attribute("href") == Some(address));
    assert!(leads_to("/console/o/acme") && !leads_to("/console/o/globex"));
}

#[tokio::test]
async fn a_member_joins_with_a_pasted_link() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = site.member().await;
    let browser = browser_of(&site, &kim).await;
    let address = "/console/me/join";
    let made = acme.admin().post("/admin/invitations", json!({"role_key": "viewer"})).await.data();
    let form = browser.get(address).await;
    let wrong = browser.post(address, &fields(&form.hidden(address), &[("token", PAYLOAD)])).await;
    wrong.require_escaped(PAYLOAD);
    assert_eq!((wrong.value("token").as_deref(), fields_of_fault(&wrong)), (Some(PAYLOAD), vec!["token".to_owned()]));
    let url = made["url"].as_str().expect("a link");
    let joined = browser.post(address, &fields(&form.hidden(address), &[("token", url)])).await;
    assert_eq!((joined.status, joined.location()), (303, Some("/console/me")), "{}", joined.main());
    assert_eq!(browser.follow(&joined).await.notices(), ["You joined acme."]);
    let again = browser.post(address, &[("token", url)]).await;
    assert_eq!((again.status, fields_of_fault(&again)), (401, vec!["token".to_owned()]), "{}", again.main());
    let organizations = kim.caller().get("/me").await.data()["organizations"].clone();
    assert_eq!(organizations[0]["org_code"], "acme");
}
