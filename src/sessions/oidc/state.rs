//! `state`: what a sign-in at a provider takes along and brings back.
//!
//! **Invariant.** Nothing is stored when somebody only asks for the provider's address: a state is sealed, and says for
//! itself for which provider, redirect address, browser and time it is good. What it must not be used for twice is
//! remembered when it is used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::access::secret::{self, Sealer};
use crate::error::{Cause, Error, Result};
use crate::ids::Timestamp;

/// What a state is good for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    /// The cookie of the browser that begins the sign-in, if a browser does.
    pub browser: Option<&'a str>,
}

/// Randomness, end in Unix milliseconds, and whether a browser is bound.
const HEAD_BYTES: usize = 16 + 8 + 1;

/// Seals a new state.
pub fn issue(sealer: &Sealer, purpose: Purpose<'_>, ends_at: Timestamp) -> Result<String> {
    let mut sealed = secret::random()?[..16].to_vec();
    sealed.extend(ends_at.0.to_be_bytes());
    sealed.push(u8::from(purpose.browser.is_some()));
    let seal = seal(sealer, &sealed, purpose);
    sealed.extend(seal);
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

/// When a state ends that is good for this purpose now; whoever sends the cookie of a browser may use only what was
/// begun in that browser.
pub fn verify(sealer: &Sealer, purpose: Purpose<'_>, offered: &str, now: Timestamp) -> Result<Timestamp> {
    let refused = |why: &'static str| Error::new(Cause::InvalidState).because(why);
    let sealed = URL_SAFE_NO_PAD.decode(offered).map_err(|_| refused("not base64"))?;
    let (head, offered_seal) = sealed.split_at_checked(HEAD_BYTES).ok_or_else(|| refused("too short"))?;
    let offered_seal = offered_seal.try_into().map_err(|_| refused("not as long as ours"))?;
    let (ends_at, is_bound) = match head.get(16..) {
        Some([end @ .., is_bound]) => (end.try_into().map(i64::from_be_bytes).unwrap_or_default(), *is_bound == 1),
        _ => return Err(refused("too short")),
    };
    let browser = if is_bound { Some(purpose.browser.ok_or_else(|| refused("without its cookie"))?) } else { None };
    if !secret::equal(&seal(sealer, head, Purpose { browser, ..purpose }), &offered_seal) {
        return Err(refused("sealed for something else"));
    }
    if Timestamp(ends_at) <= now { Err(refused("over")) } else { Ok(Timestamp(ends_at)) }
}

/// Was it begun in a browser that keeps our cookies?
pub fn is_bound(state: &str) -> bool {
    URL_SAFE_NO_PAD.decode(state).is_ok_and(|sealed| sealed.get(HEAD_BYTES - 1) == Some(&1))
}

fn seal(sealer: &Sealer, head: &[u8], purpose: Purpose<'_>) -> secret::Hash {
    let Purpose { provider, redirect_uri, browser } = purpose;
    let parts = [head, provider.as_bytes(), redirect_uri.as_bytes(), browser.unwrap_or_default().as_bytes()];
    sealer.digest("oidc state", &parts)
}

/// What belongs to a state and is derived from it instead of being stored: the PKCE verifier, the nonce.
pub fn derived(sealer: &Sealer, what: &str, state: &str) -> String {
    URL_SAFE_NO_PAD.encode(sealer.digest(what, &[state.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: Purpose<'_> =
        Purpose { provider: "lab", redirect_uri: "https://portal.example.org/cb", browser: Some("b") };
    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn a_state_is_good_for_one_purpose_and_its_time_only() {
        let sealer = Sealer::new([7; 32]);
        let ends_at = NOW.plus_ms(60_000);
        let state = issue(&sealer, PURPOSE, ends_at).expect("state");
        assert!(is_bound(&state));
        assert_eq!(verify(&sealer, PURPOSE, &state, NOW).expect("good"), ends_at);
        assert!(verify(&sealer, PURPOSE, &state, ends_at.plus_ms(-1)).is_ok());
        assert!(verify(&sealer, PURPOSE, &state, ends_at).is_err());
        for other in [
            Purpose { provider: "other", ..PURPOSE },
            Purpose { redirect_uri: "https://portal.example.org/cb/", ..PURPOSE },
            Purpose { browser: Some("c"), ..PURPOSE },
            Purpose { browser: None, ..PURPOSE },
        ] {
            assert!(verify(&sealer, other, &state, NOW).is_err(), "{other:?}");
        }
        assert!(verify(&Sealer::new([8; 32]), PURPOSE, &state, NOW).is_err());
    }

    #[test]
    fn no_changed_state_is_good() {
        let sealer = Sealer::new([7; 32]);
        let state = issue(&sealer, PURPOSE, NOW.plus_ms(60_000)).expect("state");
        let bytes = URL_SAFE_NO_PAD.decode(&state).expect("base64");
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            assert!(verify(&sealer, PURPOSE, &URL_SAFE_NO_PAD.encode(changed), NOW).is_err(), "{n}");
            assert!(verify(&sealer, PURPOSE, &URL_SAFE_NO_PAD.encode(&bytes[..n]), NOW).is_err(), "{n}");
        }
        assert!(verify(&sealer, PURPOSE, &format!("{state}="), NOW).is_err());
    }

    #[test]
    fn without_a_browser_no_cookie_is_asked_for() {
        let sealer = Sealer::new([7; 32]);
        let purpose = Purpose { browser: None, ..PURPOSE };
        let state = issue(&sealer, purpose, NOW.plus_ms(1)).expect("state");
        assert!(!is_bound(&state));
        assert!(verify(&sealer, purpose, &state, NOW).is_ok());
        assert!(verify(&sealer, PURPOSE, &state, NOW).is_ok());
    }
}
