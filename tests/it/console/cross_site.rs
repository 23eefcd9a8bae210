//! Forms that other sites send: no page takes one, and nothing changes.

use std::collections::BTreeSet;

use roster::console::pages::{Area, all};
use serde_json::json;

use super::{Things, signed_in, whole_pages};
use crate::harness::console::{Page, borrowed};
use crate::harness::site::{ADMIN, Site};

/// The headers of a form that another site sends, or that does not tell where it comes from. An empty value leaves a
/// header out.
const FOREIGN: [&[(&str, &str)]; 5] = [
    &[("sec-fetch-site", "cross-site")],
    &[("sec-fetch-site", "same-site")],
    &[("sec-fetch-site", ""), ("origin", "https://evil.example")],
    &[("sec-fetch-site", ""), ("origin", "null")],
    &[("sec-fetch-site", "")],
];

/// A form of a page: where it is sent, and what it sends.
type Form = (String, Vec<(String, String)>);

/// What a form of another site must not change: policy, audit, sessions, members.
fn state(site: &Site) -> [i64; 4] {
    [site.number("select epoch from site"), site.count("audit"), site.count("sessions"), site.count("members")]
}

/// The forms of a page that change something, each once for each of its buttons.
fn forms_of(page: &Page) -> Vec<Form> {
    let forms = page.elements("form").into_iter().filter(|form| form.attribute("method") == Some("post"));
    let each = forms.flat_map(|form| {
        let action = form.attribute("action").expect("an action").to_owned();
        let fields = form.fields();
        let named = form.elements("button").into_iter().filter_map(|button| {
            Some((button.attribute("name")?.to_owned(), button.attribute("value").unwrap_or_default().to_owned()))
        });
        let mut sent: Vec<Form> =
            named.map(|button| (action.clone(), fields.iter().cloned().chain([button]).collect())).collect();
        if sent.is_empty() {
            sent.push((action, fields));
        }
        sent
    });
    each.collect()
}

#[tokio::test]
async fn no_page_takes_a_form_of_another_site() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = acme.member_with_role("viewer").await;
    acme.map("ldap", "cutters", "viewer").await;
    acme.admin().post("/admin/invitations", json!({"email": "lee@example.org"})).await.done();
    let things = Things::of(&acme, &kim).await;
    let browser = signed_in(&site, ADMIN).await;
    let stranger = site.visitor();
    // Every page that takes forms, also those that show none now, and every form that a page shows.
    let mut forms = BTreeSet::new();
    for page in all().filter(|page| page.post.is_some()) {
        let address = things.address(page, "acme");
        if page.area == Area::Public {
            forms.extend(forms_of(&stranger.get(&address).await));
        }
        forms.insert((address, vec![("act".to_owned(), "delete".to_owned())]));
    }
    for page in whole_pages() {
        forms.extend(forms_of(&browser.get(&things.address(page, "acme")).await));
    }
    assert!(forms.len() > 40, "only {} forms were found", forms.len());
    let before = state(&site);

    for (action, fields) in &forms {
        for headers in FOREIGN {
            let answer = browser.post_with(action, &borrowed(fields), headers).await;
            assert_eq!((answer.status, answer.location()), (403, None), "{action} {fields:?} {headers:?}");
            assert_eq!(answer.header("set-cookie"), None, "{action} {fields:?} {headers:?}");
            assert!(answer.text.contains("cross_site"), "{action}: {}", answer.main());
        }
    }

    assert_eq!(state(&site), before);
    assert_eq!(browser.get("/console/me").await.status, 200, "the session goes on");
    // The same forms are taken from pages of this site.
    let own = browser.post("/console/preferences", &[("theme", "dark")]).await;
    assert_eq!((own.status, browser.cookie("theme").as_deref()), (303, Some("dark")));
}

#[tokio::test]
async fn the_origin_of_this_site_does_not_excuse_a_request_that_the_browser_calls_foreign() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let origin = site.url.clone();
    for kind in ["cross-site", "same-site"] {
        let headers = [("sec-fetch-site", kind), ("origin", origin.as_str())];
        let answer = browser.post_with("/console/sign-out", &[], &headers).await;
        assert_eq!(answer.status, 403, "{kind}");
    }
    assert_eq!(browser.get("/console/me").await.status, 200);
}
