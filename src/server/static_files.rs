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

/// The docs page is one inline script by Scalar; it may talk to this server only.
pub(super) const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

/// Makes a text.
pub(super) trait Make: Fn(&Arc<App>) -> Result<String> + Send + Sync + 'static {}

impl<F: Fn(&Arc<App>) -> Result<String> + Send + Sync + 'static> Make for F {}

/// A text of this program, in both encodings.
pub(super) struct Fixed {
    app: Arc<App>,
    content_type: &'static str,
    /// What a page may load; none for what is no page.
    policy: Option<&'static str>,
    make: Arc<dyn Make>,
    made: OnceCell<Made>,
}

struct Made {
    plain: Tagged,
    gzip: Tagged,
}

/// Bytes, which all answers share, and the tag by which they are asked for anew.
struct Tagged {
    bytes: Bytes,
    etag: String,
}

impl Made {
    fn of(text: String) -> Result<Self> {
        let failed = |e: std::io::Error| Error::internal(format!("a text cannot be compressed: {e}"));
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

impl Fixed {
    /// Text that programs read.
    pub(super) fn json(app: &Arc<App>, make: impl Make) -> Self {
        let (content_type, made) = ("application/json", OnceCell::new());
        Self { app: app.clone(), content_type, policy: None, make: Arc::new(make), made }
    }

    /// A page for people.
    pub(super) fn page(app: &Arc<App>, policy: &'static str, make: impl Make) -> Self {
        let (content_type, made) = ("text/html; charset=utf-8", OnceCell::new());
        Self { app: app.clone(), content_type, policy: Some(policy), make: Arc::new(make), made }
    }

    /// Who asks while it is made waits for the same.
    async fn made(&self) -> Result<&Made> {
        let make = || async {
            let (app, make) = (self.app.clone(), self.make.clone());
            let made = tokio::task::spawn_blocking(move || Made::of(make(&app)?)).await;
            made.map_err(|e| Error::internal(e.to_string()))?
        };
        self.made.get_or_try_init(make).await
    }
}

impl Endpoint for Fixed {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let made = self.made().await?;
        let is_gzip = takes_gzip(request.headers());
        let Tagged { bytes, etag } = if is_gzip { &made.gzip } else { &made.plain };
        // Public, and asked for anew by its tag.
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

/// Does the client take gzip, and like it as well as nothing (RFC 9110 §12.5.3)?
fn takes_gzip(headers: &HeaderMap) -> bool {
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
    fn gzip_is_sent_to_those_who_take_it() {
        for (sent, takes) in [
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
            assert_eq!(takes_gzip(&headers), takes, "{sent:?}");
        }
    }
}
