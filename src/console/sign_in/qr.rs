//! QR codes as inline SVG.

use maud::{Markup, html};
use qrcode::{Color, QrCode};

/// The empty border that readers need, in modules.
const BORDER: usize = 4;

/// The QR code of a text. `label` is for screen readers. Nothing is shown for a text that is too long for a code.
///
/// It is black on white in both themes, because many readers do not know the inverse.
pub fn qr(text: &str, label: &str) -> Markup {
    let Ok(code) = QrCode::new(text.as_bytes()) else { return html! {} };
    let size = code.width() + 2 * BORDER;
    html! {
        svg class="qr" role="img" aria-label=(label) width="240" height="240" viewBox={ "0 0 " (size) " " (size) }
            shape-rendering="crispEdges" {
            rect width=(size) height=(size) fill="#ffffff" {}
            path fill="#000000" d=(path(&code)) {}
        }
    }
}

/// A link that opens the authenticator app of this device; nothing for a text that is no URL of such an app.
pub fn app_link(url: &str, text: &str) -> Markup {
    html! { @if url.starts_with("otpauth://totp/") { p { a href=(url) { (text) } } } }
}

/// One rectangle for each horizontal run of dark modules.
fn path(code: &QrCode) -> String {
    let (width, colors) = (code.width(), code.to_colors());
    let mut path = String::new();
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        while x < width {
            let run = row[x..].iter().take_while(|color| **color == Color::Dark).count();
            if run > 0 {
                path.push_str(&format!("M{} {}h{run}v1h-{run}z", x + BORDER, y + BORDER));
            }
            x += run.max(1);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use qrcode::{Color, QrCode};

    use super::{BORDER, app_link, path, qr};

    #[test]
    fn the_path_covers_exactly_the_dark_modules() {
        let code = QrCode::new(b"otpauth://totp/Roster:kim?secret=ABCDEFGH").expect("a code");
        let mut drawn = vec![Color::Light; code.width() * code.width()];
        for run in path(&code).split('M').skip(1) {
            let (at, run) = run.split_once('h').expect("a run");
            let (x, y) = at.split_once(' ').expect("a position");
            let (x, y): (usize, usize) = (x.parse().expect("x"), y.parse().expect("y"));
            let length: usize = run.split('v').next().and_then(|length| length.parse().ok()).expect("a length");
            let from = (y - BORDER) * code.width() + x - BORDER;
            drawn[from..from + length].fill(Color::Dark);
        }
        assert_eq!(drawn, code.to_colors());
    }

    #[test]
    fn only_a_url_of_an_authenticator_app_becomes_a_link() {
        let link = app_link("otpauth://totp/id:kim?secret=ABC&issuer=id", "Open").into_string();
        assert_eq!(link, "<p><a href=\"otpauth://totp/id:kim?secret=ABC&amp;issuer=id\">Open</a></p>");
        assert_eq!(app_link("javascript:alert(1)", "Open").into_string(), "");
    }

    #[test]
    fn a_text_that_is_too_long_has_no_code() {
        assert_eq!(qr(&"x".repeat(8_000), "x").into_string(), "");
        assert!(qr("x", "<b>").into_string().contains("aria-label=\"&lt;b&gt;\""));
    }
}
