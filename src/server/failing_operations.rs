//! A test: what pages show when the operations that they call fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use poem::endpoint::BoxEndpoint;
use poem::http::{Method, StatusCode, header};
use poem::{Endpoint, Request, Response};
use serde_json::{Value, json};

use crate::console::client::Perform;
use crate::console::pages::{self, Area, Page};
use crate::features::{organizations, permissions};
use crate::kernel::app::App;
use crate::kernel::authn::caller::FromCommandLine;
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode};
use crate::server::features::FEATURES;

const PASSWORD: &str = "Correct-horse-7";

/// The operation that fails now, as method and path template, and its failure.
type Failing = Arc<Mutex<Option<(String, String, ErrorCode)>>>;

/// Lets the chosen operation fail between the pages and the operations.
fn failing(perform: Perform, failing: Failing) -> Perform {
    Arc::new(move |request| {
        let chosen = failing.lock().unwrap().clone();
        if let Some((_, _, code)) = chosen.filter(|(method, path, _)| is_at(&request, method, path)) {
            return Box::pin(async move { Err(Error::new(code)) });
        }
        perform(request)
    })
}

fn is_at(request: &Request, method: &str, template: &str) -> bool {
    let (sent, wanted): (Vec<&str>, Vec<&str>) =
        (request.uri().path().split('/').collect(), template.split('/').collect());
    let fits = |(sent, wanted): (&&str, &&str)| wanted.starts_with('{') || sent == wanted;
    request.method() == method && sent.len() == wanted.len() && sent.iter().zip(&wanted).all(fits)
}

/// A site in this process, and what its pages are tested with.
struct Site {
    endpoint: BoxEndpoint<'static, Response>,
    cookies: String,
    uid: String,
    role_id: String,
    organization_id: String,
}

impl Site {
    async fn open(app: &Arc<App>, chosen: &Failing) -> Self {
        permissions::seed(app).await.unwrap();
        organizations::found_platform(app).await.unwrap();
        let between = chosen.clone();
        let endpoint = super::endpoint_behind(app, move |perform| failing(perform, between)).unwrap();
        let call = async |method: Method, path: &str, tenant: &str, body: Value| -> Value {
            let mut request = Request::builder().method(method).uri_str(path);
            if !tenant.is_empty() {
                request = request.header("x-tenant-id", tenant);
            }
            let mut request = request.content_type("application/json").body(body.to_string());
            request.extensions_mut().insert(FromCommandLine);
            let answer = endpoint.call(request).await.unwrap();
            serde_json::from_slice(&answer.into_body().into_bytes().await.unwrap()).unwrap()
        };
        let administrator = json!({"login": "kim", "password": PASSWORD});
        let administrator = call(Method::POST, "/setup/administrator", "", administrator).await;
        let organization =
            call(Method::POST, "/admin/organizations", "", json!({"org_code": "acme", "name": "Acme"})).await;
        let roles = call(Method::GET, "/api/v1/permissions/roles", "acme", json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let uid = text(&administrator["data"]["uid"]);
        let sign_in = Request::builder()
            .method(Method::POST)
            .uri_str("/console/sign-in")
            .header("sec-fetch-site", "same-origin")
            .content_type("application/x-www-form-urlencoded")
            .body(format!("login=kim&password={PASSWORD}"));
        let answer = endpoint.call(sign_in).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let cookies = answer.headers().get_all(header::SET_COOKIE).iter();
        let cookies = cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
        Self {
            cookies: cookies.collect::<Vec<_>>().join("; "),
            endpoint,
            uid,
            role_id: text(&roles["data"]["roles"][0]["id"]),
            organization_id: text(&organization["data"]["id"]),
        }
    }

    fn address(&self, page: &Page) -> String {
        let id = if page.path.contains("/roles/") { &self.role_id } else { &self.organization_id };
        let values = [("{org}", "acme"), ("{uid}", &self.uid), ("{id}", id), ("{name}", "x"), ("{client_key}", "x")];
        let filled = values.iter().fold(page.path.to_owned(), |path, (name, value)| path.replace(name, value));
        format!("/console{filled}")
    }

    /// Status and text of a page.
    async fn get(&self, address: &str) -> (StatusCode, String) {
        let request = Request::builder().uri_str(address).header("cookie", &self.cookies).finish();
        let answer = self.endpoint.call(request).await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(answer.into_body().into_bytes().await.unwrap().to_vec()).unwrap())
    }
}

/// The operations that a page calls when it is opened: method, path, and the failures that each documents. Of failures
/// with one status only the first is taken, since pages tell them apart by their sentence only.
fn calls_of(page: &Page, document: &Value) -> Vec<(String, String, Vec<ErrorCode>)> {
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_default();
            let is_called = page.needs.contains(&id) || page.uses.contains(&id) || id == "get_me";
            if !is_called || !(method == "get" || id == "check_permission") {
                continue;
            }
            let declared = declared(document, operation);
            let mut statuses = BTreeSet::new();
            let codes = ErrorCode::ALL.iter().copied().filter(|code| declared.contains(code.as_str()));
            let codes = codes.filter(|code| statuses.insert(code.status())).collect();
            calls.push((method.to_uppercase(), path.clone(), codes));
        }
    }
    calls
}

/// The words of the failures that an operation documents.
fn declared(document: &Value, operation: &Value) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for (_, response) in
        operation["responses"].as_object().unwrap().iter().filter(|(status, _)| !status.starts_with('2'))
    {
        let response = match response["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => response,
        };
        let text = response.to_string();
        let all = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned());
        words.extend(all.filter(|word| text.contains(&format!("\"{word}\""))));
    }
    words
}

#[tokio::test]
async fn no_page_is_blank_however_its_operations_fail() {
    let directory = tempfile::tempdir().unwrap();
    let app = App::open(Config::of(directory.path()), &FEATURES).await.unwrap();
    let chosen = Failing::default();
    let site = Site::open(&app, &chosen).await;
    let document = super::documented(&app).unwrap();
    let (mut faults, mut count) = (Vec::new(), 0);
    for page in pages::all().filter(|page| page.area != Area::Public) {
        let address = site.address(page);
        for (method, path, codes) in calls_of(page, &document) {
            for code in codes {
                *chosen.lock().unwrap() = Some((method.clone(), path.clone(), code));
                let (status, text) = site.get(&address).await;
                *chosen.lock().unwrap() = None;
                count += 1;
                // A session that ended leads to the sign-in page, and a start page to another one.
                if status.is_redirection() {
                    continue;
                }
                let what = || format!("{address}: {method} {path} fails with {}: {status}", code.as_str());
                let is_same_failure = status.as_u16() == code.status();
                if status.is_server_error() && !is_same_failure {
                    faults.push(format!("{}: a failure of the server", what()));
                }
                if text.matches("<h1").count() != 1 || !text.contains("<main") {
                    faults.push(format!("{}: not a page", what()));
                }
            }
        }
    }
    app.close().await;
    assert!(count > 500, "{count} failures were tried");
    assert!(faults.is_empty(), "{} faults of {count}:\n{}", faults.len(), faults.join("\n"));
}
