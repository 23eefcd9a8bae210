//! Static documents: rendered on first use, compressed once, shared by all requests.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use poem::http::{StatusCode, header};
use poem::{Endpoint, Request, Response};
use tokio::sync::OnceCell;

use crate::console::assets;
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
        let is_gzip = assets::accepts_gzip(request.headers());
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
