//! Style, script and icon of the console: part of the binary, compressed once, and named by their content, so that
//! browsers keep them for ever.

use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use poem::Response;
use poem::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::kernel::error::{Error, Result};

/// The path of the assets on this server.
pub const PATH: &str = "/console/assets/";

/// The path of the icon. It has a fixed name, because browsers also ask for it by themselves.
pub const ICON_PATH: &str = "/console/assets/icon.svg";

/// The path of the picture of the sign-in page.
pub const LOGO_PATH: &str = "/console/assets/logo";

const CSS: &str = include_str!("assets/console.css");
const JS: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

/// A file as it is sent.
struct Asset {
    path: String,
    content_type: &'static str,
    cache: &'static str,
    plain: Bytes,
    /// `None` if it cannot be compressed.
    gzip: Option<Bytes>,
}

const FOR_EVER: &str = "public, max-age=31536000, immutable";

impl Asset {
    fn named_by_content(ending: &str, content_type: &'static str, text: String) -> Self {
        let hash = hex::encode(&Sha256::digest(&text)[..8]);
        Self::new(format!("{PATH}console-{hash}.{ending}"), content_type, FOR_EVER, text)
    }

    fn new(path: String, content_type: &'static str, cache: &'static str, text: String) -> Self {
        let gzip = compressed(&text);
        Self { path, content_type, cache, plain: text.into(), gzip }
    }

    fn name(&self) -> &str {
        self.path.trim_start_matches(PATH)
    }
}

fn compressed(text: &str) -> Option<Bytes> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).ok()?;
    gzip.finish().ok().map(Bytes::from)
}

/// The style sheet without comments and layout. It must not depend on spaces inside of strings.
fn dense(css: &str) -> String {
    let mut rest = css;
    let mut dense = String::with_capacity(css.len());
    while let Some((before, after)) = rest.split_once("/*") {
        dense.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    dense.push_str(rest);
    let lines: Vec<&str> = dense.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut dense = lines.join("\n");
    for (wide, narrow) in [(" { ", "{"), (" {", "{"), (" }", "}"), ("; ", ";"), (": ", ":"), (", ", ",")] {
        dense = dense.replace(wide, narrow);
    }
    dense
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| Asset::named_by_content("css", "text/css; charset=utf-8", dense(CSS)));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::named_by_content("js", "text/javascript; charset=utf-8", JS.to_owned()));
static FAVICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new(ICON_PATH.to_owned(), "image/svg+xml", "public, max-age=86400", ICON.to_owned()));

/// The path of the style sheet, without the path of `public_url`.
pub fn css_path() -> &'static str {
    &STYLE.path
}

/// The path of the script, without the path of `public_url`.
pub fn js_path() -> &'static str {
    &SCRIPT.path
}

/// Answers with the asset of this name, the last part of its path. `None` if there is none.
pub fn answer(name: &str, accepts_gzip: bool) -> Option<Response> {
    let asset = [&STYLE, &SCRIPT, &FAVICON].into_iter().find(|asset| asset.name() == name)?;
    let response = Response::builder()
        .content_type(asset.content_type)
        .header(header::CACHE_CONTROL, asset.cache)
        .header(header::VARY, "Accept-Encoding");
    Some(match &asset.gzip {
        Some(gzip) if accepts_gzip => response.header(header::CONTENT_ENCODING, "gzip").body(gzip.clone()),
        _ => response.body(asset.plain.clone()),
    })
}

/// A picture of the site's own, as it is sent.
pub struct Logo {
    content_type: &'static str,
    bytes: Bytes,
}

impl Logo {
    const BYTES_MAX: usize = 64 * 1024;

    /// Reads the picture; `None` if there is no path. Fails if it cannot be read, is too large, or is neither SVG nor PNG.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let failed = |why: &str| Error::internal(format!("signin.logo_file: {} {why}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| failed(&format!("cannot be read: {e}")))?;
        if bytes.len() > Self::BYTES_MAX {
            return Err(failed("has more than 64 KiB"));
        }
        let text = String::from_utf8_lossy(&bytes);
        let content_type = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            "image/png"
        } else if text.trim_start().starts_with('<') && text.contains("<svg") {
            "image/svg+xml"
        } else {
            return Err(failed("is neither SVG nor PNG"));
        };
        Ok(Some(Self { content_type, bytes: bytes.into() }))
    }

    /// Sends it as a picture only: opened by itself, an SVG runs no script and loads nothing.
    pub fn answer(&self) -> Response {
        Response::builder()
            .content_type(self.content_type)
            .header(header::CACHE_CONTROL, "public, max-age=3600")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox")
            .body(self.bytes.clone())
    }
}

/// Whether the client accepts gzip at least as well as no encoding (RFC 9110 §12.5.3).
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
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
    fn assets_keep_within_their_budgets() {
        for (asset, raw_max, gzip_max) in
            [(&STYLE, 32 << 10, 8 << 10), (&SCRIPT, 14 << 10, 6 << 10), (&FAVICON, 1 << 10, 1 << 10)]
        {
            assert!(asset.plain.len() <= raw_max, "{} has {} bytes", asset.path, asset.plain.len());
            let gzip = asset.gzip.as_ref().expect("compressed");
            assert!(gzip.len() <= gzip_max, "{} has {} bytes compressed", asset.path, gzip.len());
        }
        assert!(JS.lines().count() <= 250, "{} lines of script", JS.lines().count());
    }

    #[test]
    fn the_dense_style_means_the_same() {
        let css = "/* Tokens. */\n@media (max-width: 44rem) {\n  .a > .b, .c { color: red; margin: 0 auto }\n}\n\n.d :is(a, b)::before { content: \"!\" / \"\" }\n";
        assert_eq!(
            dense(css),
            "@media (max-width:44rem){\n.a > .b,.c{color:red;margin:0 auto}\n}\n.d :is(a,b)::before{content:\"!\" / \"\"}"
        );
    }

    #[test]
    fn assets_need_nothing_that_the_policy_forbids() {
        for (name, text) in [("css", CSS), ("js", JS), ("svg", ICON)] {
            // `xmlns` is a name, not an address that is loaded.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http:",
                "https:",
                "data:",
                "@import",
                "url(",
                "eval(",
                "Function(",
                "style=",
                ".style",
                "cssText",
                "setAttribute('on",
                "innerHTML",
                "document.write",
            ] {
                assert!(!text.contains(forbidden), "{name} has {forbidden}");
            }
        }
    }

    #[test]
    fn assets_are_found_by_name() {
        let header_of = |response: &Response, name| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        for (path, content_type, cache) in [
            (css_path(), "text/css; charset=utf-8", FOR_EVER),
            (js_path(), "text/javascript; charset=utf-8", FOR_EVER),
            (ICON_PATH, "image/svg+xml", "public, max-age=86400"),
        ] {
            let name = path.strip_prefix(PATH).expect("below the path");
            for (accepts_gzip, encoding) in [(true, "gzip"), (false, "")] {
                let response = answer(name, accepts_gzip).expect("an answer");
                assert_eq!(header_of(&response, header::CONTENT_TYPE), content_type);
                assert_eq!(header_of(&response, header::CACHE_CONTROL), cache);
                assert_eq!(header_of(&response, header::CONTENT_ENCODING), encoding);
            }
        }
        for name in ["", "console.css", "console-0000000000000000.css", "../console.css", "icon.svg/"] {
            assert!(answer(name, true).is_none(), "{name}");
        }
    }

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

    #[test]
    fn a_logo_is_a_small_picture() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logo");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            Logo::read(&path).map(|logo| logo.map(|logo| logo.content_type)).map_err(|e| e.to_string())
        };
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        png.resize(Logo::BYTES_MAX, 0);
        assert_eq!(read(&png), Ok(Some("image/png")));
        png.push(0);
        assert!(read(&png).is_err());
        assert_eq!(read(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), Ok(Some("image/svg+xml")));
        assert!(read(b"<html>").is_err() && Logo::read(Path::new("/nowhere/logo")).is_err());
        assert!(Logo::read(Path::new("")).is_ok_and(|logo| logo.is_none()));
    }
}
