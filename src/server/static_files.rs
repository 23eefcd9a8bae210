//! Static documents: rendered on first use, compressed once, shared by all requests.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use poem::http::{HeaderMap, StatusCode, header};
use poem::{Endpoint, Request, Response};
use tokio::sync::OnceCell;

use crate::kernel::app::App;
use crate::kernel::error::{Error, Result};
use crate::kernel::http::is_known;
use crate::kernel::secret;

/// The policy of the docs page, which is one inline script by Scalar: it can connect to this server only.
pub(super) const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

/// A function that renders a document.
pub(super) trait Render: Fn(&Arc<App>) -> Result<String> + Send + Sync + 'static {}

impl<F: Fn(&Arc<App>) -> Result<String> + Send + Sync + 'static> Render for F {}

/// A static document, plain and compressed.
pub(super) struct StaticDocument {
    app: Arc<App>,
    content_type: &'static str,
    /// The content security policy; `None` for documents that are not pages.
    policy: Option<&'static str>,
    render: Arc<dyn Render>,
    rendered: OnceCell<Rendered>,
}

struct Rendered {
    plain: Tagged,
    gzip: Tagged,
}

/// The bytes, which all answers share, and their ETag.
struct Tagged {
    bytes: Bytes,
    etag: String,
}

impl Rendered {
    fn of(text: String) -> Result<Self> {
        let failed = |e: std::io::Error| Error::internal(format!("a document cannot be compressed: {e}"));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text.as_bytes()).map_err(failed)?;
        let gzip = gzip.finish().map_err(failed)?;
        let hash = hex::encode(&secret::hash(&text)[..12]);
        Ok(Self {
            plain: Tagged { bytes: text.into(), etag: format!("\"{hash}\"") },
            gzip: Tagged { bytes: gzip.into(), etag: format!("\"{hash}-gzip\"") },
        })
    }
}

impl StaticDocument {
    /// A JSON document.
    pub(super) fn json(app: &Arc<App>, render: impl Render) -> Self {
        let (content_type, rendered) = ("application/json", OnceCell::new());
        Self { app: app.clone(), content_type, policy: None, render: Arc::new(render), rendered }
    }

    /// An HTML page.
    pub(super) fn page(app: &Arc<App>, policy: &'static str, render: impl Render) -> Self {
        let (content_type, rendered) = ("text/html; charset=utf-8", OnceCell::new());
        Self { app: app.clone(), content_type, policy: Some(policy), render: Arc::new(render), rendered }
    }

    /// Renders the document on first use. Concurrent callers wait for the same rendering.
    async fn rendered(&self) -> Result<&Rendered> {
        let render = || async {
            let (app, render) = (self.app.clone(), self.render.clone());
            let rendered = tokio::task::spawn_blocking(move || Rendered::of(render(&app)?)).await;
            rendered.map_err(|e| Error::internal(e.to_string()))?
        };
        self.rendered.get_or_try_init(render).await
    }
}

impl Endpoint for StaticDocument {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let rendered = self.rendered().await?;
        let is_gzip = accepts_gzip(request.headers());
        let Tagged { bytes, etag } = if is_gzip { &rendered.gzip } else { &rendered.plain };
        // Caches can store the answer, but must revalidate it by its ETag.
        let mut response = Response::builder()
            .header(header::ETAG, etag)
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::VARY, "Accept-Encoding");
        if let Some(policy) = self.policy {
            response = response.header(header::CONTENT_SECURITY_POLICY, policy);
        }
        let sent = request.headers().get(header::IF_NONE_MATCH).and_then(|sent| sent.to_str().ok());
        if is_known(sent, etag) {
            return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
        }
        if is_gzip {
            response = response.header(header::CONTENT_ENCODING, "gzip");
        }
        Ok(response.content_type(self.content_type).body(bytes.clone()))
    }
}

/// Whether the client accepts gzip at least as well as no encoding (RFC 9110 §12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for entry in lines.flat_map(|line| line.split(',')) {
        let mut parts = entry.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        // An unreadable header counts as absent.
        let weight: f32 = weight.map_or(1.0, |text| text.parse().unwrap_or(0.0));
        match &*coding {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => any = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_clients_that_accept_it() {
        for (sent, accepts) in [
            (&["gzip"][..], true),
            (&[], false),
            (&[""], false),
            (&["GZIP;q=0.5"], true),
            (&["br, x-gzip"], true),
            (&["br", "deflate, gzip;q=1.0"], true),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["gzip; q=0.000"], false),
            (&["gzip;q=odd"], false),
            (&["identity, gzip;q=0.5"], false),
            (&["identity;q=0.5, gzip"], true),
            (&["gzipped"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in sent {
                headers.append(header::ACCEPT_ENCODING, line.parse().expect("a value"));
            }
            assert_eq!(accepts_gzip(&headers), accepts, "{sent:?}");
        }
    }
}
