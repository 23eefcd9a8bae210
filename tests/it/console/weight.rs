//! How much a browser loads: the budgets of pages, style and script, and what it keeps.

use std::collections::BTreeSet;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::journeys::furnish;
use super::{Things, sign_in, signed_in, whole_pages};
use crate::harness::browser::Browser as Chromium;
use crate::harness::console::Page;
use crate::harness::site::{ADMIN, PASSWORD, Site};

const KIB: usize = 1_024;
/// Everything that the first page loads, with page and assets compressed.
const FIRST_LOAD_BYTES_MAX: usize = 60 * KIB;
/// A page as it is sent: pages are not compressed, since they hold secrets beside texts of others.
const PAGE_BYTES_MAX: usize = 28 * KIB;
/// What a row of a list adds.
const ROW_BYTES_MAX: usize = 1_500;
/// The page itself, style, script and icon.
const REQUESTS_MAX: usize = 4;

fn gzip_bytes(text: &str) -> usize {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).expect("written");
    gzip.finish().expect("compressed").len()
}

/// The addresses that a browser loads for a page.
fn loaded_by(page: &Page) -> BTreeSet<String> {
    let of = |name: &str, attribute: &str| -> Vec<String> {
        let all = page.elements(name);
        all.iter().filter_map(|element| element.attribute(attribute).map(str::to_owned)).collect()
    };
    [of("link", "href"), of("script", "src"), of("img", "src")].concat().into_iter().collect()
}

/// An asset as it is sent to a browser that accepts this encoding: status, headers, length.
async fn asset(site: &Site, path: &str, encoding: &str) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let mut request = site.http.get(format!("{}{path}", site.url));
    if !encoding.is_empty() {
        request = request.header("accept-encoding", encoding);
    }
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.bytes().await.expect("bytes").to_vec())
}

fn is(headers: &reqwest::header::HeaderMap, name: &str, value: Option<&str>) -> bool {
    headers.get(name).map(|found| found.to_str().expect("text")) == value
}

#[tokio::test]
async fn the_first_load_of_every_page_holds_its_budget() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = furnish(&site, &acme).await;
    let things = Things { role_id: acme.role_id("cutter").await, ..Things::of(&acme, &kim).await };
    let browser = signed_in(&site, ADMIN).await;
    let mut addresses: Vec<String> = whole_pages().map(|page| things.address(page, "acme")).collect();
    let question = format!("/console/o/acme/why?uid={}&method=GET&path=/films", kim.uid);
    addresses.extend([question, "/console/nowhere".into()]);
    let mut faults = Vec::new();
    for address in addresses {
        let page = browser.get(&address).await;
        let loaded = loaded_by(&page);
        let mut bytes = gzip_bytes(&page.text);
        for name in &loaded {
            let (status, _, body) = asset(&site, name, "gzip").await;
            assert_eq!(status, 200, "{address} loads {name}");
            bytes += body.len();
            let bytes_max = if name.ends_with(".css") { 8 * KIB } else { 6 * KIB };
            assert!(body.len() <= bytes_max, "{name} has {} bytes compressed", body.len());
        }
        assert_eq!(page.header("content-encoding"), None, "{address} is compressed");
        if loaded.len() + 1 > REQUESTS_MAX {
            faults.push(format!("{address} loads {loaded:?}"));
        }
        if bytes > FIRST_LOAD_BYTES_MAX {
            faults.push(format!("{address}: {bytes} bytes compressed"));
        }
        if page.text.len() > PAGE_BYTES_MAX {
            faults.push(format!("{address}: {} bytes of page", page.text.len()));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn a_full_page_of_a_list_grows_by_its_rows_only() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    for n in 0..60 {
        let body = json!({"username": format!("k{n}"), "display_name": format!("Kim {n}"), "password": PASSWORD});
        acme.owner().post("/admin/members", body).await.done();
    }
    let browser = signed_in(&site, ADMIN).await;
    let one = browser.get("/console/o/acme/members?keyword=Kim%2011").await;
    let full = browser.get("/console/o/acme/members").await;
    assert_eq!((one.texts("row-link").len(), full.texts("row-link").len()), (1, 50));
    let row_bytes = (full.text.len() - one.text.len()) / 49;
    assert!(row_bytes <= ROW_BYTES_MAX, "a row has {row_bytes} bytes");
    let mut bytes = gzip_bytes(&full.text);
    for name in loaded_by(&full) {
        bytes += asset(&site, &name, "gzip").await.2.len();
    }
    assert!(bytes <= FIRST_LOAD_BYTES_MAX, "{bytes} bytes compressed");
}

#[tokio::test]
async fn assets_are_named_by_their_content_and_kept_for_ever() {
    let site = Site::start().await;
    let page = site.visitor().get("/console/sign-in").await;
    let named: Vec<String> = loaded_by(&page).into_iter().filter(|name| !name.ends_with("icon.svg")).collect();
    assert_eq!(named.len(), 2, "{named:?}");
    for name in &named {
        let hash = name.rsplit_once('-').and_then(|(_, rest)| rest.split_once('.')).expect("a hash").0;
        assert!(hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        let (status, headers, plain) = asset(&site, name, "").await;
        assert_eq!(status, 200, "{name}");
        assert!(is(&headers, "cache-control", Some("public, max-age=31536000, immutable")), "{headers:?}");
        assert!(is(&headers, "content-encoding", None) && is(&headers, "vary", Some("Accept-Encoding")), "{headers:?}");
        assert!(is(&headers, "x-content-type-options", Some("nosniff")), "{headers:?}");
        assert!(is(&headers, "set-cookie", None), "{headers:?}");
        for (encoding, is_gzip) in
            [("gzip", true), ("gzip, deflate, br", true), ("br", false), ("identity", false), ("gzip;q=0", false)]
        {
            let (status, headers, body) = asset(&site, name, encoding).await;
            assert_eq!(status, 200, "{name} {encoding}");
            assert!(is(&headers, "content-encoding", is_gzip.then_some("gzip")), "{encoding}: {headers:?}");
            assert_eq!(body == plain, !is_gzip, "{name} {encoding}");
            assert_eq!(body.starts_with(&[0x1f, 0x8b]), is_gzip, "{name} {encoding}");
        }
        // A page of an older version asks for the asset of that version: nothing else is sent in its place.
        let stale = name.replace(hash, "0000000000000000");
        let (status, headers, _) = asset(&site, &stale, "gzip").await;
        assert_eq!(status, 404, "{stale}");
        assert!(
            !headers.get("cache-control").is_some_and(|value| value.as_bytes().starts_with(b"public")),
            "{headers:?}"
        );
        for missing in [format!("{name}.map"), format!("{name}/"), name.replace("/console-", "/../assets/console_")] {
            assert_eq!(asset(&site, &missing, "").await.0, 404, "{missing}");
        }
    }
}

/// The resources that the page in Chromium loaded, and how many bytes came over the network.
async fn resources(browser: &Chromium) -> Vec<(String, u64)> {
    let list = "return performance.getEntriesByType('resource').map((entry) => [entry.name, entry.transferSize])";
    let found = browser.script(list, json!([])).await;
    let pair = |entry: &Value| (entry[0].as_str().expect("a name").to_owned(), entry[1].as_u64().expect("bytes"));
    found.as_array().expect("a list").iter().map(pair).collect()
}

#[tokio::test]
async fn the_second_page_loads_only_itself() {
    let site = Site::start().await;
    site.organization("acme").await;
    let browser = Chromium::start().await;
    browser.open(&format!("{}/console/sign-in", site.url)).await;
    let first = resources(&browser).await;
    assert!(!first.is_empty() && first.len() < REQUESTS_MAX, "{first:?}");
    assert!(first.iter().all(|(name, _)| name.starts_with(&site.url)), "{first:?}");
    sign_in(&browser, &site, ADMIN).await;
    for path in ["/console/o/acme/members", "/console/o/acme/roles", "/console/me"] {
        browser.open(&format!("{}{path}", site.url)).await;
        let loaded = resources(&browser).await;
        assert!(loaded.iter().all(|(_, bytes)| *bytes == 0), "{path} loaded {loaded:?}");
        let page = "return performance.getEntriesByType('navigation')[0].transferSize";
        let bytes = browser.script(page, json!([])).await.as_u64().expect("bytes");
        assert!(bytes <= (PAGE_BYTES_MAX + KIB) as u64, "{path}: {bytes} bytes");
    }
}
