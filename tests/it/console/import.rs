//! The page of imports: members from a spreadsheet, and videos that exist already.

use serde_json::{Value, json};

use super::signed_in;
use crate::harness::console::{Browser, Page, borrowed};
use crate::harness::site::{ADMIN, Site};
use crate::harness::waiting::eventually;

const IMPORT: &str = "/console/site/import";
const PAYLOAD: &str = "<img src=x onerror=alert(1)>";

/// Two hundred rows, of which lines 51, 102 and 153 are wrong.
fn rows() -> String {
    let row = |n: usize| match n {
        50 => "kim50,no e-mail,Person 50,acme".to_owned(),
        101 => format!("kim101,kim101@example.org,{PAYLOAD},nowhere"),
        152 => "kim152,kim151@example.org,Person 152,acme".to_owned(),
        n => format!("kim{n},kim{n}@example.org,Person {n},acme"),
    };
    let rows: Vec<String> = (1..=200).map(row).collect();
    format!("username,email,display_name,org_code\n{}\n", rows.join("\n"))
}

/// The number of members whose names are those of the rows.
async fn imported(site: &Site) -> Value {
    site.admin().with("x-tenant-id", "acme").get("/admin/users?keyword=Person&limit=1").await.data()["total"].clone()
}

/// The cells of the refused rows.
fn refused(page: &Page) -> Vec<Vec<String>> {
    let tables = page.with_class("list").into_iter();
    let rows = tables.take(1).flat_map(|table| table.elements("tbody")).flat_map(|body| body.elements("tr"));
    rows.map(|row| row.elements("td").iter().map(|cell| cell.text()).collect()).collect()
}

/// Follows an answer to the page of its task, until that has a result.
async fn result(browser: &Browser, started: &Page) -> Page {
    assert_eq!(started.status, 303, "{}", started.main());
    let to = started.location().expect("a task").to_owned();
    assert!(to.starts_with("/console/me/tasks/"), "{to}");
    eventually("the import is done", async || {
        let page = browser.get(&to).await;
        page.notices()
            .iter()
            .any(|notice| notice.starts_with("Rows: ") || notice.starts_with("Files: "))
            .then_some(page)
    })
    .await
}

/// Sends a file as browsers do.
async fn upload(browser: &Browser, file: &[u8], fields: &[(&str, &str)]) -> Page {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--sep\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    let head = "--sep\r\nContent-Disposition: form-data; name=\"document\"; filename=\"m.csv\"\r\nContent-Type: text/csv\r\n\r\n";
    body.extend(head.bytes());
    body.extend(file);
    body.extend(b"\r\n--sep--\r\n");
    browser.post_raw(IMPORT, "multipart/form-data; boundary=sep", body).await
}

#[tokio::test]
async fn two_hundred_rows_are_checked_imported_repaired_and_imported() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = signed_in(&site, ADMIN).await;
    let checked = upload(&browser, rows().as_bytes(), &[("encoding", "utf-8"), ("act", "check")]).await;
    assert_eq!(checked.status, 200, "{}", checked.main());
    checked.require_escaped(PAYLOAD);
    let told = "Rows: 200. New members: 197, changed: 0, as they are: 0, refused: 3. Nothing was written yet.";
    assert_eq!(checked.notices(), [told]);
    let expected = [
        ["51", "kim50", "E-mail", "This is not an e-mail address."],
        ["102", "kim101", "Organization code", "There is no such organization."],
        ["153", "kim152", "E-mail", "This is in line 152 already."],
    ];
    assert_eq!(refused(&checked), expected);
    assert_eq!(imported(&site).await, 0);
    // The rows are kept on the page, to be corrected or imported.
    let form = checked.elements("form").into_iter().find(|form| form.inner.contains("kept-text")).expect("the rows");
    let mut fields = form.fields();
    assert_eq!(
        fields.iter().find(|(name, _)| name == "text").map(|(_, text)| text.trim_end()),
        Some(rows().trim_end())
    );
    fields.push(("act".into(), "import".into()));
    let done = result(&browser, &browser.post(IMPORT, &borrowed(&fields)).await).await;
    done.require_escaped(PAYLOAD);
    assert!(
        done.notices().contains(&"Rows: 200. New members: 197, changed: 0, as they were: 0, refused: 3.".to_owned())
    );
    assert_eq!(
        (refused(&done), imported(&site).await),
        (expected.map(|row| row.map(str::to_owned).to_vec()).to_vec(), json!(197))
    );
    // The refused rows come back alone.
    let rows = done.value("text").expect("the refused rows");
    assert_eq!(rows.lines().count(), 4, "{rows}");
    let right = rows.replace("no e-mail", "kim50@example.org").replace("nowhere", "acme").replace("kim151@", "kim152@");
    let right = right.replace(PAYLOAD, "Person 101");
    let repaired = browser.post(IMPORT, &[("act", "import"), ("text", &right)]).await;
    let repaired = result(&browser, &repaired).await;
    assert!(
        repaired.notices().contains(&"Rows: 3. New members: 3, changed: 0, as they were: 0, refused: 0.".to_owned())
    );
    assert_eq!((refused(&repaired).len(), imported(&site).await), (0, json!(200)));
}

#[tokio::test]
async fn sent_twice_it_makes_each_member_once() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = signed_in(&site, ADMIN).await;
    let once = browser.get(IMPORT).await.value("once").expect("a key");
    let text = rows();
    let fields = [("act", "import"), ("text", text.as_str()), ("once", once.as_str())];
    let (first, second) =
        futures_util::future::join(browser.post(IMPORT, &fields), browser.post(IMPORT, &fields)).await;
    for started in [first, second] {
        result(&browser, &started).await;
    }
    assert_eq!(imported(&site).await, 197);
}

#[tokio::test]
async fn files_in_another_encoding_are_kept_until_they_are_imported() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    // 測試 in Big5.
    let file =
        [b"username,email,display_name\nkim,kim@example.org,".as_slice(), &[0xb4, 0xfa, 0xb8, 0xd5], b"\n"].concat();
    let wrong = upload(&browser, &file, &[("encoding", "utf-8"), ("act", "check")]).await;
    assert_eq!((wrong.status, wrong.with_class("faults").len()), (400, 1), "{}", wrong.main());
    let checked = upload(&browser, &file, &[("encoding", "big5"), ("act", "check")]).await;
    let form =
        checked.elements("form").into_iter().find(|form| form.inner.contains("name=\"kept\"")).expect("the file");
    let mut fields = form.fields();
    fields.push(("act".into(), "import".into()));
    result(&browser, &browser.post(IMPORT, &borrowed(&fields)).await).await;
    let kim = site.admin().get("/admin/users?keyword=kim").await.data()["items"][0].clone();
    assert_eq!(kim["display_name"], "測試");
    let unknown = upload(&browser, &file, &[("encoding", "klingon"), ("act", "check")]).await;
    assert_eq!(unknown.status, 400, "{}", unknown.main());
}

#[tokio::test]
async fn wrong_files_are_told_and_pasted_rows_are_kept() {
    let site = Site::with("limits.import_rows = 2").await;
    let browser = signed_in(&site, ADMIN).await;
    let page = browser.get(IMPORT).await;
    assert!(page.main().contains("At most 2 rows"), "the limits are told: {}", page.main());
    let template = page.links().into_iter().find(|link| link.contains("template")).expect("a template");
    let template = browser.get(&template).await;
    assert_eq!(template.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(template.header("content-disposition"), Some("attachment; filename=\"members.csv\""));
    let checked = browser.post(IMPORT, &[("act", "check"), ("text", &template.text)]).await;
    assert!(checked.notices()[0].starts_with("Rows: 1. New members: 1,"), "{:?}", checked.notices());
    let nothing = browser.post(IMPORT, &[("act", "check")]).await;
    assert_eq!((nothing.status, nothing.with_class("faults").len()), (400, 1), "{}", nothing.main());
    let text = format!("username,{PAYLOAD}\nkim,x\n");
    for act in ["check", "import"] {
        let wrong = browser.post(IMPORT, &[("act", act), ("text", &text)]).await;
        wrong.require_escaped(PAYLOAD);
        assert_eq!(
            (wrong.status, wrong.value("text").map(|kept| kept.trim_end().to_owned())),
            (400, Some(text.trim_end().into()))
        );
    }
    let rows = |count: usize| (0..count).map(|n| format!("\nkim{n},kim{n}@example.org")).collect::<String>();
    let (most, more) = (format!("username,email{}", rows(2)), format!("username,email{}", rows(3)));
    assert_eq!(browser.post(IMPORT, &[("act", "check"), ("text", &most)]).await.status, 200);
    assert_eq!(browser.post(IMPORT, &[("act", "check"), ("text", &more)]).await.status, 400);
    assert_eq!(browser.post(IMPORT, &[("act", "x")]).await.status, 400);
}

#[tokio::test]
async fn long_texts_of_a_file_are_cut_on_the_page() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let file =
        format!("username,email\n{},a@example.org\n{},b@example.org\n", "\"\"\"\"".repeat(300), "x".repeat(5_000));
    let checked = upload(&browser, file.as_bytes(), &[("encoding", "utf-8"), ("act", "check")]).await;
    let refused = refused(&checked);
    let cells = |row: usize, column: usize| refused[row][column].as_str();
    let cut = format!("{}…", "\"".repeat(160));
    assert_eq!((cells(0, 0), cells(0, 1)), ("2", cut.as_str()), "{}", checked.main());
    let last = refused.len() - 1;
    assert_eq!((cells(last, 0), cells(last, 1)), ("3", "–"));
    assert_eq!(cells(last, 3), "This has a cell of more than 4 KiB: correct it in the file.");
}

#[tokio::test]
async fn videos_are_looked_at_imported_and_given_to_their_owners() {
    let media = tempfile::tempdir().expect("a directory");
    for folder in ["kim", "nobody"] {
        std::fs::create_dir(media.path().join(folder)).expect("a folder");
        std::fs::write(media.path().join(folder).join("a.mp4"), "video").expect("a file");
    }
    let site = Site::with(&format!("media_root = {:?}", media.path())).await;
    let browser = signed_in(&site, ADMIN).await;
    let looked = browser.post(IMPORT, &[("act", "videos_check"), ("queue_jobs.shown", "1")]).await;
    let told = "Files: 2. Would become videos: 2 (10 B), of these without an owner: 2, known before: 0, skipped: 0. Nothing was written yet.";
    assert_eq!((looked.status, looked.notices()), (200, vec![told.to_owned()]), "{}", looked.main());
    let total = async || site.admin().get("/api/v1/videos?limit=1").await.data()["total"].clone();
    assert_eq!(total().await, 0);
    let form =
        looked.elements("form").into_iter().find(|form| form.inner.contains("queue_jobs.shown")).expect("a form");
    let mut fields = form.fields();
    fields.push(("act".into(), "videos".into()));
    result(&browser, &browser.post(IMPORT, &borrowed(&fields)).await).await;
    assert_eq!(total().await, 2);
    assert_eq!(site.admin().get("/api/v1/jobs?limit=1").await.data()["total"], 0, "no jobs were wanted");
    let body = json!({"username": "kim", "email": "kim@example.org"});
    site.admin().post("/admin/users", body).await.done();
    let would = browser.post(IMPORT, &[("act", "claim_check")]).await;
    assert!(
        would.notices()[0].starts_with("Would be given to their owners: 1 (5 B). Still without an owner"),
        "{:?}",
        would.notices()
    );
    let claimed = browser.post(IMPORT, &[("act", "claim")]).await;
    assert!(
        claimed.notices()[0].starts_with("Given to their owners: 1 (5 B). Still without an owner"),
        "{:?}",
        claimed.notices()
    );
    let outside = browser.post(IMPORT, &[("act", "videos_check"), ("prefix", "../etc")]).await;
    assert_eq!((outside.status, outside.value("prefix").as_deref()), (400, Some("../etc")), "{}", outside.main());
}

#[tokio::test]
async fn without_the_permission_or_a_media_root_there_is_no_form() {
    let site = Site::start().await;
    let browser = signed_in(&site, ADMIN).await;
    let page = browser.get(IMPORT).await;
    assert_eq!((page.status, page.value("prefix")), (200, None), "{}", page.main());
    let lister = site.platform_member(&["roster.user.list"]).await;
    let browser = signed_in(&site, &lister.username).await;
    let denied = browser.get(IMPORT).await;
    assert!(denied.status == 403 && denied.main().contains("roster.user.import"), "{}", denied.main());
    assert_eq!(browser.post(IMPORT, &[("act", "import"), ("text", "username\nkim\n")]).await.status, 403);
}
