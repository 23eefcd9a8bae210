//! What comes after a sign-in: the page that asked for it. Its address travels through the sign-in as a signed value.
//!
//! **Invariant.** Only addresses of this site are followed, and only those that this site signed less than
//! `signin.request_ttl_s` ago. No parameter holds a bare address, so a link to the sign-in page cannot lead to another site.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::html;
use poem::Response;
use poem::http::StatusCode;

use super::words::Words;
use crate::console::components::{actions, facts};
use crate::console::i18n::fields;
use crate::console::visit::{Content, Notice, View, Visit};
use crate::console::{client, is_own_address, layout};
use crate::kernel::app::seconds_to_ms;
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, KeyedDigest};

/// The parameter and the hidden field of the signed value.
pub(super) const RETURN: &str = "r";

const PURPOSE: &str = "return to the console";
/// The signed value is a third longer.
const ADDRESS_BYTES_MAX: usize = 4_096;
const SIGNED_BYTES_MAX: usize = 6_144;
/// Where a sign-in leads that no page asked for.
const START: &str = "/console";

/// Signs the address of a page of this site, to which a sign-in returns. An address that is too long becomes the start
/// page.
pub fn signed_return(visit: &Visit, back: &str) -> String {
    let back = if back.len() <= ADDRESS_BYTES_MAX { back } else { START };
    sign(&visit.console.app.sealer, back, Timestamp::now().plus_ms(seconds_to_ms(visit.config().signin_request_ttl_s)))
}

fn sign(sealer: &KeyedDigest, address: &str, ends_at: Timestamp) -> String {
    let end = ends_at.0.to_be_bytes();
    let digest = sealer.digest(PURPOSE, &[&end, address.as_bytes()]);
    URL_SAFE_NO_PAD.encode([&end, digest.as_slice(), address.as_bytes()].concat())
}

/// The address of a signed value; `None` if it has expired or was altered.
fn verified(sealer: &KeyedDigest, signed: &str, now: Timestamp) -> Option<String> {
    if signed.len() > SIGNED_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(signed).ok()?;
    let (end, rest) = bytes.split_first_chunk::<8>()?;
    let (digest, address) = rest.split_first_chunk::<32>()?;
    let is_right = secret::equal(digest, &sealer.digest(PURPOSE, &[end, address]));
    if !is_right || now >= Timestamp(i64::from_be_bytes(*end)) {
        return None;
    }
    String::from_utf8(address.to_vec()).ok().filter(|address| is_own_address(address))
}

/// The signed value that the request carries.
pub(super) fn carried(visit: &Visit) -> &str {
    visit.submitted(RETURN).or_else(|| visit.query(RETURN)).unwrap_or_default()
}

/// The query that carries the signed value on, with its question mark; empty if there is none.
pub(super) fn carried_query(visit: &Visit) -> String {
    match carried(visit) {
        "" => String::new(),
        signed => format!("?{RETURN}={}", client::encoded(signed)),
    }
}

/// The address to which a completed sign-in leads, and whether the signed value was not valid.
pub(super) fn target(visit: &Visit, signed: &str) -> (String, bool) {
    if signed.is_empty() {
        return (START.to_owned(), false);
    }
    match verified(&visit.console.app.sealer, signed, Timestamp::now()) {
        Some(address) => (address, false),
        None => (START.to_owned(), true),
    }
}

/// Ends a sign-in: on to the page that asked for it.
pub(super) fn complete(visit: &Visit, signed: &str) -> Result<View> {
    let (address, is_lost) = target(visit, signed);
    let notice = is_lost.then(|| Notice::new(Words::of(visit.language).return_expired));
    Ok(View::Redirect(address, notice))
}

/// The most fields that the answer to an interrupted form shows.
const TYPED_FIELDS_MAX: usize = 50;

/// The answer to a form that was sent after the session had ended: it shows the text that was typed, so that it can be
/// copied, and leads to the sign-in.
pub fn interrupted(visit: &Visit) -> Response {
    let t = Words::of(visit.language);
    let kept: Vec<(String, maud::Markup)> = visit
        .form
        .iter()
        .filter(|(name, value)| !value.trim().is_empty() && is_shown_again(name))
        .take(TYPED_FIELDS_MAX)
        .map(|(name, value)| (fields::label(name, visit.language), html! { pre { (value) } }))
        .collect();
    let back = match visit.query.is_empty() {
        true => visit.address.clone(),
        false => visit.with_query(&[]).replacen(visit.console.app.config.public_path(), "", 1),
    };
    let sign_in = format!("/console/sign-in?{RETURN}={}", client::encoded(&signed_return(visit, &back)));
    let body = html! {
        p { (t.interrupted_text) }
        @if !kept.is_empty() {
            h2 { (t.interrupted_typed) }
            p { (t.interrupted_copy) }
            (facts(&kept))
        }
        // In a new tab, so that this page keeps what was typed.
        (actions(html! {
            a class="button main" href=(visit.href(&sign_in)) target="_blank" rel="noopener" { (visit.frame().sign_in) }
        }))
    };
    let content = Content { status: StatusCode::UNAUTHORIZED, ..Content::new(t.interrupted_title, body) };
    layout::document(visit, &content)
}

/// Whether a field holds text that somebody typed and that may be seen on the screen.
fn is_shown_again(name: &str) -> bool {
    const HIDDEN: [&str; 9] = ["act", "again", "challenge", "code", "once", "otpauth_url", "r", "ticket", "version"];
    let is_secret = ["password", "secret", "token"].iter().any(|part| name.contains(part));
    !is_secret && !name.ends_with(".shown") && !HIDDEN.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{ADDRESS_BYTES_MAX, SIGNED_BYTES_MAX, is_shown_again, sign, verified};
    use crate::kernel::ids::Timestamp;
    use crate::kernel::secret::KeyedDigest;

    const NOW: Timestamp = Timestamp(1_796_000_000_000);

    #[test]
    fn a_signed_address_is_followed_until_it_expires() {
        let sealer = KeyedDigest::new([7; 32]);
        let signed = sign(&sealer, "/console/me?a=b", NOW.plus_ms(10));
        assert_eq!(verified(&sealer, &signed, NOW).as_deref(), Some("/console/me?a=b"));
        assert_eq!(verified(&sealer, &signed, NOW.plus_ms(10)), None);
        assert_eq!(verified(&KeyedDigest::new([8; 32]), &signed, NOW), None);
        for end in 0..signed.len() {
            let (kept, rest) = (&signed[..end], &signed[end + 1..]);
            let other = if signed.as_bytes()[end] == b'A' { "B" } else { "A" };
            // The last character holds fewer bits than others, so some changes of it are refused as base64.
            assert_eq!(verified(&sealer, &format!("{kept}{other}{rest}"), NOW), None, "{end}");
            assert_eq!(verified(&sealer, kept, NOW), None, "{end}");
        }
    }

    #[test]
    fn a_signed_foreign_address_is_not_followed() {
        let sealer = KeyedDigest::new([7; 32]);
        for foreign in ["https://example.org/", "//example.org", "", "/\\example.org", "/a\nb"] {
            assert_eq!(verified(&sealer, &sign(&sealer, foreign, NOW.plus_ms(10)), NOW), None, "{foreign}");
        }
    }

    #[test]
    fn the_longest_address_fits() {
        let sealer = KeyedDigest::new([7; 32]);
        let address = format!("/{}", "a".repeat(ADDRESS_BYTES_MAX - 1));
        let signed = sign(&sealer, &address, NOW.plus_ms(10));
        assert!(signed.len() <= SIGNED_BYTES_MAX);
        assert_eq!(verified(&sealer, &signed, NOW), Some(address));
    }

    #[test]
    fn secrets_are_not_shown_again() {
        for name in
            ["password", "new_password", "again", "client_secret", "token", "code", "once", "act", "is_active.shown"]
        {
            assert!(!is_shown_again(name), "{name}");
        }
        assert!(is_shown_again("display_name"));
    }
}
