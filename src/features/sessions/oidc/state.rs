//! The `state` parameter of an OpenID Connect sign-in.
//!
//! **Invariant.** Starting a sign-in stores nothing: the state carries its expiry and a keyed digest over the provider,
//! redirect URI and binding for which it is valid. Every state has a binding. A state is recorded only when it is used,
//! so that it is not accepted twice.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret::{self, KeyedDigest};

/// What a state is bound to. A client that cannot present it again cannot use the state, so an attacker cannot make a
/// victim's browser complete the attacker's sign-in.
#[derive(Clone, Copy)]
pub enum Binding<'a> {
    /// The cookie of the browser that started the sign-in.
    Cookie(&'a str),
    /// A value that the client keeps.
    Value(&'a str),
}

/// What a state is valid for.
#[derive(Clone, Copy)]
pub struct Purpose<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    pub binding: Binding<'a>,
}

/// What a client presents together with a state.
#[derive(Clone, Copy)]
pub struct PresentedState<'a> {
    pub provider: &'a str,
    pub redirect_uri: &'a str,
    pub cookie: Option<&'a str>,
    pub value: Option<&'a str>,
}

/// 16 random bytes, the expiry in Unix milliseconds, and the kind of binding.
const HEAD_BYTES: usize = 16 + 8 + 1;
const BY_COOKIE: u8 = 1;
const BY_VALUE: u8 = 2;

/// Issues a new state.
pub fn issue(sealer: &KeyedDigest, purpose: Purpose<'_>, ends_at: Timestamp) -> Result<String> {
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

/// Verifies a state against what the client presents, and returns its expiry. Fails with `InvalidState`.
pub fn verify(sealer: &KeyedDigest, presented: PresentedState<'_>, offered: &str, now: Timestamp) -> Result<Timestamp> {
    let refused = |why: &'static str| Error::new(ErrorCode::InvalidState).with_source(why);
    let sealed = URL_SAFE_NO_PAD.decode(offered).map_err(|_| refused("not base64"))?;
    let (head, offered_seal) = sealed.split_at_checked(HEAD_BYTES).ok_or_else(|| refused("too short"))?;
    let offered_seal = offered_seal.try_into().map_err(|_| refused("wrong length"))?;
    let Some([end @ .., kind]) = head.get(16..) else { return Err(refused("too short")) };
    let ends_at = end.try_into().map(i64::from_be_bytes).unwrap_or_default();
    let binding = match *kind {
        BY_COOKIE => Binding::Cookie(presented.cookie.ok_or_else(|| refused("without its cookie"))?),
        BY_VALUE => Binding::Value(presented.value.ok_or_else(|| refused("without its binding"))?),
        _ => return Err(refused("unknown kind of binding")),
    };
    let purpose = Purpose { provider: presented.provider, redirect_uri: presented.redirect_uri, binding };
    if !secret::equal(&seal(sealer, head, purpose), &offered_seal) {
        return Err(refused("issued for another purpose"));
    }
    if Timestamp(ends_at) <= now { Err(refused("expired")) } else { Ok(Timestamp(ends_at)) }
}

fn seal(sealer: &KeyedDigest, head: &[u8], purpose: Purpose<'_>) -> secret::Hash {
    let (Binding::Cookie(binding) | Binding::Value(binding)) = purpose.binding;
    let parts = [head, purpose.provider.as_bytes(), purpose.redirect_uri.as_bytes(), binding.as_bytes()];
    sealer.digest("oidc state", &parts)
}

/// Derives a value from a state instead of storing it: the PKCE verifier or the nonce.
pub fn derive(sealer: &KeyedDigest, what: &str, state: &str) -> String {
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

    fn presented<'a>(cookie: impl Into<Option<&'a str>>, value: impl Into<Option<&'a str>>) -> PresentedState<'a> {
        PresentedState { provider: PROVIDER, redirect_uri: REDIRECT, cookie: cookie.into(), value: value.into() }
    }

    #[test]
    fn a_state_is_valid_for_one_purpose_until_it_expires() {
        let sealer = KeyedDigest::new([7; 32]);
        let ends_at = NOW.plus_ms(60_000);
        let state = issue(&sealer, purpose(Binding::Cookie("b")), ends_at).expect("state");
        let good = presented("b", None);
        assert_eq!(verify(&sealer, good, &state, NOW).expect("good"), ends_at);
        assert!(verify(&sealer, good, &state, ends_at.plus_ms(-1)).is_ok());
        assert!(verify(&sealer, good, &state, ends_at).is_err());
        let others = [
            PresentedState { provider: "other", ..good },
            PresentedState { redirect_uri: "https://portal.example.org/cb/", ..good },
        ];
        assert!(others.into_iter().all(|other| verify(&sealer, other, &state, NOW).is_err()));
        assert!(verify(&KeyedDigest::new([8; 32]), good, &state, NOW).is_err());
    }

    #[test]
    fn a_state_is_valid_only_with_its_binding() {
        let sealer = KeyedDigest::new([7; 32]);
        let issued = |binding| issue(&sealer, purpose(binding), NOW.plus_ms(1)).expect("state");
        let (by_cookie, by_value) = (issued(Binding::Cookie("a")), issued(Binding::Value("a")));
        for (cookie, value, cookie_state_valid, value_state_valid) in [
            (Some("a"), None, true, false),
            (None, Some("a"), false, true),
            (Some("a"), Some("a"), true, true),
            (Some("a"), Some("b"), true, false),
            (Some("b"), Some("a"), false, true),
            (Some("b"), Some("b"), false, false),
            (None, None, false, false),
            (Some(""), Some(""), false, false),
        ] {
            let presented = presented(cookie, value);
            let good = |state: &str| verify(&sealer, presented, state, NOW).is_ok();
            assert_eq!(
                (good(&by_cookie), good(&by_value)),
                (cookie_state_valid, value_state_valid),
                "{cookie:?} {value:?}"
            );
        }
    }

    #[test]
    fn a_changed_state_is_invalid() {
        let sealer = KeyedDigest::new([7; 32]);
        let state = issue(&sealer, purpose(Binding::Cookie("b")), NOW.plus_ms(60_000)).expect("state");
        let bytes = URL_SAFE_NO_PAD.decode(&state).expect("base64");
        let both = presented("b", "b");
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
