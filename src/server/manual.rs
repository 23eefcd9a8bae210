//! Routes of the manual.

use std::sync::Arc;

use poem::web::Query;
use poem::{Endpoint, FromRequest, Request, Response, Route, get};
use serde::Deserialize;

use super::static_files::StaticDocument;
use crate::console::manual::{PAGES, PATH, POLICY, page, results};
use crate::kernel::app::App;

/// Adds a route for every page of the manual.
pub(super) fn add(mut routes: Route, app: &Arc<App>) -> Route {
    for manual_page in PAGES {
        let shown = StaticDocument::page(app, POLICY, |app| Ok(page(&app.config, manual_page)));
        let path = manual_page.path();
        routes = match path == PATH {
            true => routes.at(path, get(FirstPage { shown, app: app.clone() })),
            false => routes.at(path, get(shown)),
        };
    }
    routes
}

/// The paths of all pages.
pub(super) fn paths() -> impl Iterator<Item = String> {
    PAGES.iter().map(crate::console::manual::Page::path)
}

/// The first page, or the results of a search (`?q=`).
struct FirstPage {
    shown: StaticDocument,
    app: Arc<App>,
}

#[derive(Deserialize)]
struct Search {
    q: Option<String>,
}

impl Endpoint for FirstPage {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let search = Query::<Search>::from_request_without_body(&request).await;
        match search.ok().and_then(|search| search.0.q) {
            Some(query) => Ok(Response::builder()
                .header(poem::http::header::CONTENT_SECURITY_POLICY, POLICY)
                .content_type("text/html; charset=utf-8")
                .body(results(&self.app.config, &query))),
            None => self.shown.call(request).await,
        }
    }
}
