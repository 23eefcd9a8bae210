//! The catalog: its levels, and the import that applies exactly the difference that was shown.

use serde_json::json;

use super::roles::rows;
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::permissions::{each, videos};

const CATALOG: &str = "/console/site/catalog";
/// As in `src/console/site/catalog/import.rs`.
const TEXT_BYTES_MAX: usize = 262_144;

async fn administrator(site: &Site) -> Browser {
    let browser = site.visitor();
    browser.sign_in(ADMIN, PASSWORD).await;
    browser
}

fn document(operations: &str) -> String {
    format!("openapi: 3.0.3\r\ninfo: {{title: Films, version: '1'}}\r\npaths:\r\n{operations}")
}

const FILMS: &str = "  /films:\r\n    get: {operationId: list_films}\r\n    post: {operationId: add_film}\r\n";

/// Uploads a file as browsers do, with other fields.
async fn upload(browser: &Browser, path: &str, file: (&str, &[u8]), fields: &[(String, String)]) -> Page {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    let head = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\nContent-Type: application/yaml\r\n\r\n",
        file.0
    );
    body.extend(head.into_bytes());
    body.extend_from_slice(file.1);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    browser.post_raw(path, "multipart/form-data; boundary=XX", body).await
}

fn preview_of(app: &str) -> [(String, String); 2] {
    [("act".into(), "preview".into()), ("app".into(), app.into())]
}

/// The form of a preview that applies it, as its button sends it.
fn apply_form(page: &Page) -> Vec<(String, String)> {
    let form = page.elements("form").into_iter().find(|form| form.has_class("card")).expect("the form to apply");
    let mut fields = form.fields();
    // A browser drops the first line end of a text area.
    for (_, value) in fields.iter_mut().filter(|(name, _)| name == "document") {
        *value = value.strip_prefix('\n').expect("a line end that is dropped").to_owned();
    }
    fields.push(("act".into(), "apply".into()));
    fields
}

async fn of_app(site: &Site, app: &str) -> Vec<String> {
    let list = site.admin().get(&format!("/api/v1/permissions/catalog?app={app}")).await.data();
    each(&list["list"], "name").into_iter().map(str::to_owned).collect()
}

fn changes(page: &Page) -> Vec<String> {
    page.with_class("changes").iter().flat_map(|list| list.elements("li")).map(|one| one.text()).collect()
}

#[tokio::test]
async fn the_catalog_is_shown_level_by_level_with_counts() {
    let site = Site::start().await;
    site.import(videos()).await;
    let browser = administrator(&site).await;
    let page = browser.get(CATALOG).await;
    assert_eq!((page.status, page.h1().as_str()), (200, "Catalog"));
    let top = rows(&page, "Catalog");
    let names: Vec<&str> = top.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, ["video", "report", "roster"]);
    assert_eq!((top[0][3].as_str(), top[0][4].as_str()), ("open", "3"));

    let below = browser.get(&format!("{CATALOG}?at=video")).await;
    assert_eq!(below.h1(), "video");
    let level = rows(&below, "Catalog");
    assert_eq!(level[0][..3], ["video.list", "", "GET /videos"]);
    assert_eq!((level[1][0].as_str(), level[1][4].as_str()), ("video.item", "1"));
    let closed = rows(&browser.get(&format!("{CATALOG}?at=report")).await, "Catalog");
    assert_eq!((closed[0][0].as_str(), closed[0][3].as_str()), ("report.read", "closed"));
    let deep = browser.get(&format!("{CATALOG}?at=video.item")).await;
    assert!(deep.links().contains(&"?at=video".to_owned()), "{:?}", deep.links());
    // By name, path and meaning.
    let found = |page: &Page| rows(page, "Catalog").into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
    assert_eq!(found(&browser.get(&format!("{CATALOG}?q=ITEM")).await), ["video.item", "video.item.delete"]);
    assert_eq!(found(&browser.get(&format!("{CATALOG}?q=%2Freports")).await), ["report.read"]);
    assert_eq!(found(&browser.get(&format!("{CATALOG}?q=import+a+catalog")).await), ["roster.policy.import_catalog"]);
    assert_eq!(browser.get(&format!("{CATALOG}?q=nothing-is-called-so")).await.texts("empty").len(), 1);
    assert_eq!(browser.get(&format!("{CATALOG}?at=nowhere")).await.status, 404);
}

#[tokio::test]
async fn a_pasted_document_is_applied_as_its_difference_was_shown() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let text = document(FILMS);
    let form = [("act", "preview"), ("app", "films"), ("document", text.as_str())];
    let preview = browser.post(CATALOG, &form).await;
    assert_eq!((preview.status, preview.h1().as_str()), (200, "What the import would change"));
    let shown = changes(&preview);
    assert_eq!(shown, ["+ untagged", "+ untagged.add_film POST /films", "+ untagged.list_films GET /films"]);
    assert!(of_app(&site, "films").await.is_empty(), "a preview writes nothing");

    let applied = browser.post(CATALOG, &borrowed(&apply_form(&preview))).await;
    assert_eq!((applied.status, applied.location()), (303, Some(CATALOG)), "{}", applied.main());
    let page = browser.follow(&applied).await;
    assert_eq!(page.notices()[0], "The catalog was imported: 3 new, 0 changed, 0 orphaned.");
    assert_eq!(of_app(&site, "films").await, ["untagged", "untagged.list_films", "untagged.add_film"]);
    // The same again changes nothing, and says so.
    let same = browser.post(CATALOG, &form).await;
    assert!(changes(&same).is_empty() && same.main().contains("Nothing: the catalog has all of it."));
}

#[tokio::test]
async fn an_upload_names_what_roles_lose_and_a_stale_difference_is_told() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let first = upload(&browser, CATALOG, ("films.yaml", document(FILMS).as_bytes()), &preview_of("films")).await;
    browser.post(CATALOG, &borrowed(&apply_form(&first))).await;
    let acme = site.organization("acme").await;
    let cutter = acme.role("cutter", &["untagged.list_films", "untagged.add_film"]).await;
    let kim = acme.member().await;
    acme.assign(&kim.uid, &cutter).await;

    let fewer = document("  /films:\r\n    get: {operationId: list_films}\r\n");
    let preview = upload(&browser, CATALOG, ("films.yaml", fewer.as_bytes()), &preview_of("films")).await;
    assert_eq!((preview.status, changes(&preview)), (200, vec!["− untagged.add_film POST /films".to_owned()]));
    assert_eq!(rows(&preview, "Roles that lose something"), [["cutter", "acme", "1", "untagged.add_film"]]);

    // Meanwhile somebody else imports another version.
    let more = document(&format!("{FILMS}    put: {{operationId: sort_films}}\r\n"));
    let other = upload(&browser, CATALOG, ("films.yaml", more.as_bytes()), &preview_of("films")).await;
    assert_eq!(browser.post(CATALOG, &borrowed(&apply_form(&other))).await.status, 303);
    let stale = browser.post(CATALOG, &borrowed(&apply_form(&preview))).await;
    assert_eq!((stale.status, stale.h1().as_str()), (412, "What the import would change"));
    assert_eq!(changes(&stale), ["− untagged.add_film POST /films", "− untagged.sort_films PUT /films"]);
    assert!(of_app(&site, "films").await.contains(&"untagged.add_film".to_owned()), "nothing was written");
    // The new difference can be applied at once.
    assert_eq!(browser.post(CATALOG, &borrowed(&apply_form(&stale))).await.status, 303);
    assert_eq!(of_app(&site, "films").await, ["untagged", "untagged.list_films"]);
}

#[tokio::test]
async fn another_document_than_the_one_shown_is_not_applied() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let preview = browser.post(CATALOG, &[("act", "preview"), ("app", "films"), ("document", &document(FILMS))]).await;
    let other = document("  /posters:\r\n    get: {operationId: list_posters}\r\n");
    let mut fields = apply_form(&preview);
    for (_, value) in fields.iter_mut().filter(|(name, _)| name == "document") {
        value.clone_from(&other);
    }
    let answer = browser.post(CATALOG, &borrowed(&fields)).await;
    let shown = vec!["+ untagged".into(), "+ untagged.list_posters GET /posters".into()];
    assert_eq!((answer.status, changes(&answer)), (412, shown));
    fields.retain(|(name, _)| name != "digest");
    assert_eq!(browser.post(CATALOG, &borrowed(&fields)).await.status, 412);
    assert!(of_app(&site, "films").await.is_empty());
    // The document can be changed from the preview.
    let mut change = apply_form(&preview);
    change.retain(|(name, _)| name != "act");
    change.push(("act".into(), "change".into()));
    let form = browser.post(CATALOG, &borrowed(&change)).await;
    assert_eq!((form.status, form.value("document")), (200, Some(document(FILMS))));
}

#[tokio::test]
async fn a_document_of_another_origin_is_replaced_only_when_that_is_chosen() {
    let site = Site::start().await;
    site.import(json!([{"name": "video"}])).await;
    let browser = administrator(&site).await;
    let preview = browser.post(CATALOG, &[("act", "preview"), ("app", "main"), ("document", &document(FILMS))]).await;
    assert!(preview.main().contains("a catalog in Roster's own format"), "{}", preview.main());
    let mut fields = apply_form(&preview);
    let refused = browser.post(CATALOG, &borrowed(&fields)).await;
    assert_eq!(refused.status, 409, "{}", refused.main());
    fields.push(("replace".into(), "true".into()));
    assert_eq!(browser.post(CATALOG, &borrowed(&fields)).await.status, 303);
    assert!(!of_app(&site, "main").await.contains(&"video".to_owned()));
}

#[tokio::test]
async fn an_ambiguous_catalog_names_both_entries_in_both_languages() {
    let site = Site::start().await;
    let ambiguous = json!({"permissions": [
        {"name": "a.one", "http_methods": "GET", "http_path": "/a/:id"},
        {"name": "a.two", "http_methods": "GET", "http_path": "/a/{key}"},
    ]})
    .to_string();
    let payload = "<img src=x onerror=alert(1)>";
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, PASSWORD).await;
    for browser in [administrator(&site).await, chinese] {
        let refused = browser.post(CATALOG, &[("act", "preview"), ("app", ""), ("document", &ambiguous)]).await;
        assert_eq!(refused.status, 400, "{}", refused.main());
        let summary = refused.texts("faults").remove(0);
        for part in ["a.one", "a.two", "GET", "permissions.1"] {
            assert!(summary.contains(part), "{part}: {summary}");
        }
        assert_eq!(refused.value("document").as_deref(), Some(ambiguous.as_str()));
        let odd = json!({"permissions": [{"name": payload}]}).to_string();
        let odd = browser.post(CATALOG, &[("act", "preview"), ("app", payload), ("document", &odd)]).await;
        assert_eq!(odd.status, 400);
        odd.require_escaped(payload);
        for (fields, status) in [(&[("act", "preview"), ("app", "a")][..], 400), (&[("act", "x")][..], 400)] {
            assert_eq!(browser.post(CATALOG, fields).await.status, status, "{fields:?}");
        }
    }
}

#[tokio::test]
async fn a_difference_shows_requests_and_says_what_it_means_in_the_language_of_the_page() {
    let site = Site::start().await;
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, PASSWORD).await;
    let preview =
        async |text: &str| chinese.post(CATALOG, &[("act", "preview"), ("app", "films"), ("document", text)]).await;
    // Every owner gets the entries: said once, above the others.
    let first = preview(&document(&format!("{FILMS}  '/{{a}}{{b}}':\r\n    get: {{}}\r\n"))).await;
    assert!(first.notices()[0].starts_with("套用後，每個組織的擁有者會立即擁有"), "{:?}", first.notices());
    assert!(
        first.main().contains("略過的操作沒有權限") && first.main().contains("有兩個相鄰的參數"),
        "{}",
        first.main()
    );
    let parts = first.elements("main").remove(0).elements("span");
    assert!(parts.iter().all(|part| part.attribute("lang") != Some("en")) && !first.main().contains('`'));
    let applied = chinese.post(CATALOG, &borrowed(&apply_form(&first))).await;
    assert_eq!(applied.status, 303);
    chinese.follow(&applied).await;
    // Another path and another name; what is gone.
    let moved =
        "  /movies:\r\n    get: {operationId: list_films}\r\n  /films:\r\n    post: {operationId: new_film}\r\n";
    let second = preview(&document(moved)).await;
    assert_eq!(
        changes(&second),
        ["untagged.list_films GET /films → GET /movies", "untagged.add_film → untagged.new_film POST /films"]
    );
    assert!(second.notices().is_empty() && second.main().contains("角色會保留更名的項目"), "{}", second.main());
    let fewer = preview(&document("  /films:\r\n    get: {operationId: list_films}\r\n")).await;
    assert!(fewer.main().contains("角色會保留文件中已不存在的項目"), "{}", fewer.main());
}

/// A document of this many bytes with one operation.
fn document_of(bytes: usize) -> String {
    let text = document(FILMS);
    let rest = bytes - text.len() - "\r\n# ".len();
    format!("{text}\r\n# {}", "x".repeat(rest))
}

#[tokio::test]
async fn a_pasted_document_is_taken_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    let browser = administrator(&site).await;
    let paste =
        async |text: &str| browser.post(CATALOG, &[("act", "preview"), ("app", "films"), ("document", text)]).await;
    let longest = document_of(TEXT_BYTES_MAX);
    let preview = paste(&longest).await;
    assert_eq!(preview.status, 200, "{}", preview.main());
    assert_eq!(browser.post(CATALOG, &borrowed(&apply_form(&preview))).await.status, 303);
    let too_long = format!("{longest}x");
    let refused = paste(&too_long).await;
    assert_eq!((refused.status, refused.faults()[0].0.as_str()), (413, "document"));
    assert_eq!(refused.value("document"), Some(too_long));
}

#[tokio::test]
async fn a_long_upload_is_chosen_again_to_apply_it_and_an_upload_has_a_limit() {
    let site = Site::with("limits.catalog_bytes = 300000").await;
    let browser = administrator(&site).await;
    assert!(browser.get(CATALOG).await.main().contains("At most 300 KB"), "the limit is told before");
    let long = document_of(TEXT_BYTES_MAX + 1);
    let preview = upload(&browser, CATALOG, ("films.yaml", long.as_bytes()), &preview_of("films")).await;
    assert_eq!(preview.status, 200, "{}", preview.main());
    let fields = apply_form(&preview);
    assert!(preview.value("document").is_none() && fields.iter().all(|(name, _)| name != "document"));
    let other = long.replace("list_films", "list_other");
    let refused = upload(&browser, CATALOG, ("films.yaml", other.as_bytes()), &fields).await;
    assert_eq!(refused.status, 412, "another file than the one shown");
    assert!(of_app(&site, "films").await.is_empty());
    let applied = upload(&browser, CATALOG, ("films.yaml", long.as_bytes()), &fields).await;
    assert_eq!(applied.status, 303, "{}", applied.main());

    let longest = document_of(300_000);
    assert_eq!(upload(&browser, CATALOG, ("a.yaml", longest.as_bytes()), &preview_of("films")).await.status, 200);
    for bytes in [300_001, 500_000] {
        let refused = upload(&browser, CATALOG, ("a.yaml", document_of(bytes).as_bytes()), &preview_of("films")).await;
        assert_eq!((refused.status, refused.faults()[0].0.as_str()), (413, "file"), "{bytes}");
    }
}

#[tokio::test]
async fn options_of_an_import_are_applied_too() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = administrator(&site).await;
    let text = document(FILMS);
    let fields = [
        ("act", "preview"),
        ("app", "films"),
        ("document", text.as_str()),
        ("prefix", "cinema"),
        ("base", "/v2"),
        ("organizations", "acme"),
        ("closed", "true"),
    ];
    let preview = browser.post(CATALOG, &fields).await;
    assert_eq!(changes(&preview)[..2], ["+ cinema", "+ cinema.untagged"]);
    let applied = browser.post(CATALOG, &borrowed(&apply_form(&preview))).await;
    assert_eq!(applied.status, 303, "{}", applied.main());
    let list = site.admin().get("/api/v1/permissions/catalog?app=films").await.data();
    let films =
        list["list"].as_array().expect("entries").iter().find(|one| one["name"] == "cinema.untagged.list_films");
    let films = films.expect("the entry");
    assert_eq!((&films["http_path"], &films["status"]), (&json!("/v2/films"), &json!("close")));
    let mut unknown = fields;
    unknown[5].1 = "nowhere";
    let unknown = browser.post(CATALOG, &unknown).await;
    assert_eq!((unknown.status, unknown.value("document")), (404, Some(text)), "{}", unknown.main());
}

#[tokio::test]
async fn the_catalog_is_imported_by_administrators_of_the_site() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let browser = site.visitor();
    browser.sign_in(&owner.username, PASSWORD).await;
    assert_eq!(browser.get(CATALOG).await.status, 403);
    let sent = upload(&browser, CATALOG, ("films.yaml", document(FILMS).as_bytes()), &preview_of("films")).await;
    assert_eq!(sent.status, 403);
    let chinese = site.visitor().in_chinese();
    chinese.sign_in(ADMIN, PASSWORD).await;
    assert_eq!(chinese.get(CATALOG).await.h1(), "權限目錄");
}
