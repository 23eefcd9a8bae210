//! `state`: what a sign-in at a provider takes along and brings back.
//!
//! **Invariant.** Nothing is stored when somebody only asks for the provider's address: a state is sealed, and says for
//! itself for which provider, redirect address, beginner and time it is good. None is bound to nobody. What it must not be used for twice is
//! remembered when it is used.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, Sealer};

/// What a state is bound to: who cannot show it again cannot use the state, and so nobody's sign-in can be slipped to
/// somebody else.
#[derive(Clone, Copy)]
pub enum Binding<'a> {
    /// The cookie of the browser that began.
    Cookie(&'a str),
    /// A value that the client of the sign-in keeps.
    Value(&'a str),
}

/// What a state is good for.
#[derive(Clone, Copy)]
pub struct Purpose<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    pub binding: Binding<'a>,
}

/// What is shown when a state comes back.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    pub cookie: Option<&'a str>,
    pub value: Option<&'a str>,
}

/// Randomness, end in Unix milliseconds, and what it is bound to.
const HEAD_BYTES: usize = 16 + 8 + 1;
const BY_COOKIE: u8 = 1;
const BY_VALUE: u8 = 2;

/// Seals a new state.
pub fn issue(sealer: &Sealer, purpose: Purpose<'_>, ends_at: Timestamp) -> Result<String> {
    let mut sealed = secret::random()?[..16].to_vec();
    sealed.extend(ends_at.0.to_be_bytes());
    sealed.push(match purpose.binding {
        Binding::Cookie(_) => BY_COOKIE,
        Binding::Value(_) => BY_VALUE,
    });
    let seal = seal(sealer, &sealed, purpose);
    sealed.extend(seal);
    Ok(URL_SAFE_NO_PAD.encode(sealed))
}

/// When a state ends that is good for what is shown now.
pub fn verify(sealer: &Sealer, shown: Shown<'_>, offered: &str, now: Timestamp) -> Result<Timestamp> {
    let refused = |why: &'static str| Error::new(ErrorCode::InvalidState).with_source(why);
    let sealed = URL_SAFE_NO_PAD.decode(offered).map_err(|_| refused("not base64"))?;
    let (head, offered_seal) = sealed.split_at_checked(HEAD_BYTES).ok_or_else(|| refused("too short"))?;
    let offered_seal = offered_seal.try_into().map_err(|_| refused("not as long as ours"))?;
    let Some([end @ .., kind]) = head.get(16..) else { return Err(refused("too short")) };
    let ends_at = end.try_into().map(i64::from_be_bytes).unwrap_or_default();
    let binding = match *kind {
        BY_COOKIE => Binding::Cookie(shown.cookie.ok_or_else(|| refused("without its cookie"))?),
        BY_VALUE => Binding::Value(shown.value.ok_or_else(|| refused("without its binding"))?),
        _ => return Err(refused("bound to nothing")),
    };
    let purpose = Purpose { provider: shown.provider, redirect_uri: shown.redirect_uri, binding };
    if !secret::equal(&seal(sealer, head, purpose), &offered_seal) {
        return Err(refused("sealed for something else"));
    }
    if Timestamp(ends_at) <= now { Err(refused("over")) } else { Ok(Timestamp(ends_at)) }
}

fn seal(sealer: &Sealer, head: &[u8], purpose: Purpose<'_>) -> secret::Hash {
    let (Binding::Cookie(binding) | Binding::Value(binding)) = purpose.binding;
    let parts = [head, purpose.provider.as_bytes(), purpose.redirect_uri.as_bytes(), binding.as_bytes()];
    sealer.digest("oidc state", &parts)
}

/// What belongs to a state and is derived from it instead of being stored: the PKCE verifier, the nonce.
pub fn derived(sealer: &Sealer, what: &str, state: &str) -> String {
    URL_SAFE_NO_PAD.encode(sealer.digest(what, &[state.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: &str = "lab";
    const REDIRECT: &str = "https://portal.example.org/cb";
    const NOW: Timestamp = Timestamp(1_000_000);

    fn purpose(binding: Binding<'_>) -> Purpose<'_> {
        Purpose { provider: PROVIDER, redirect_uri: REDIRECT, binding }
    }

    fn shown<'a>(cookie: impl Into<Option<&'a str>>, value: impl Into<Option<&'a str>>) -> Shown<'a> {
        Shown { provider: PROVIDER, redirect_uri: REDIRECT, cookie: cookie.into(), value: value.into() }
    }

    #[test]
    fn a_state_is_good_for_one_purpose_and_its_time_only() {
        let sealer = Sealer::new([7; 32]);
        let ends_at = NOW.plus_ms(60_000);
        let state = issue(&sealer, purpose(Binding::Cookie("b")), ends_at).expect("state");
        let good = shown("b", None);
        assert_eq!(verify(&sealer, good, &state, NOW).expect("good"), ends_at);
        assert!(verify(&sealer, good, &state, ends_at.plus_ms(-1)).is_ok());
        assert!(verify(&sealer, good, &state, ends_at).is_err());
        let others =
            [Shown { provider: "other", ..good }, Shown { redirect_uri: "https://portal.example.org/cb/", ..good }];
        assert!(others.into_iter().all(|other| verify(&sealer, other, &state, NOW).is_err()));
        assert!(verify(&Sealer::new([8; 32]), good, &state, NOW).is_err());
    }

    #[test]
    fn a_state_is_good_for_who_shows_what_it_is_bound_to() {
        let sealer = Sealer::new([7; 32]);
        let begun = |binding| issue(&sealer, purpose(binding), NOW.plus_ms(1)).expect("state");
        let (by_cookie, by_value) = (begun(Binding::Cookie("a")), begun(Binding::Value("a")));
        for (cookie, value, is_cookie_s, is_value_s) in [
            (Some("a"), None, true, false),
            (None, Some("a"), false, true),
            (Some("a"), Some("a"), true, true),
            (Some("a"), Some("b"), true, false),
            (Some("b"), Some("a"), false, true),
            (Some("b"), Some("b"), false, false),
            (None, None, false, false),
            (Some(""), Some(""), false, false),
        ] {
            let shown = shown(cookie, value);
            let good = |state: &str| verify(&sealer, shown, state, NOW).is_ok();
            assert_eq!((good(&by_cookie), good(&by_value)), (is_cookie_s, is_value_s), "{cookie:?} {value:?}");
        }
    }

    #[test]
    fn no_changed_state_is_good() {
        let sealer = Sealer::new([7; 32]);
        let state = issue(&sealer, purpose(Binding::Cookie("b")), NOW.plus_ms(60_000)).expect("state");
        let bytes = URL_SAFE_NO_PAD.decode(&state).expect("base64");
        let both = shown("b", "b");
        for n in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[n] ^= 1 << bit;
                assert!(verify(&sealer, both, &URL_SAFE_NO_PAD.encode(changed), NOW).is_err(), "{n}");
            }
            assert!(verify(&sealer, both, &URL_SAFE_NO_PAD.encode(&bytes[..n]), NOW).is_err(), "{n}");
        }
        assert!(verify(&sealer, both, &format!("{state}="), NOW).is_err());
    }
}
