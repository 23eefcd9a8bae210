//! What looks like a secret, by its name or by its form: the one rule for everything that is kept or shown of requests.
//!
//! It errs on the side of leaving out. A fact that is left out is named, so that its asker can call it otherwise.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::key::Kind;

/// Found anywhere in a name.
const WITHIN: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "authorization",
    "cookie",
    "credential",
    "signature",
    "jwt",
    "key",
];
/// Too short to be looked for inside of words: a whole part of a name, as in `user_pin`, `userPin` and `PIN2`.
const PARTS: [&str; 19] = [
    "auth", "bearer", "csrf", "cvc", "cvv", "jwe", "jws", "otp", "pass", "pin", "pincode", "puk", "pwd", "session",
    "sid", "tan", "totp", "tfa", "xsrf",
];
/// What our own secrets begin with, beside API keys.
const PREFIXES: [&str; 6] = ["rs_", "rt_", "ch_", "pr_", "inv_", "whsec_"];
/// The shortest that follows such a beginning.
const SECRET_BYTES_MIN: usize = 40;
/// Stands for a secret in a text that is kept.
pub const HIDDEN: &str = "***";

/// Does a fact of this name, or with one of these values, look like a secret?
pub fn is_secret_fact(name: &str, values: &[String]) -> bool {
    is_secret_name(name) || values.iter().any(|value| is_secret(value))
}

/// Does the name say that something is a secret?
pub fn is_secret_name(name: &str) -> bool {
    let folded = name.to_lowercase();
    let is_part = |part: String| {
        let singular = part.strip_suffix('s').unwrap_or(&part);
        PARTS.contains(&part.as_str()) || PARTS.contains(&singular)
    };
    WITHIN.iter().any(|word| folded.contains(word)) || parts(name).into_iter().any(is_part)
}

/// The words of a name in lower case: apart by signs, by digits, and by capitals.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut former: Option<char> = None;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        let is_next_lower = rest.peek().is_some_and(|next| next.is_lowercase());
        let begins = c.is_uppercase() && former.is_some_and(|former| former.is_lowercase() || is_next_lower);
        if begins || !c.is_alphabetic() {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| c.is_alphabetic()) {
            part.extend(c.to_lowercase());
        }
        former = Some(c);
    }
    parts
}

/// Does a text hold a secret, by its form: a JWT, a secret of ours, a private key, the value of an `Authorization` header,
/// an address with a password, or JSON with any of these or with a name that says so?
pub fn is_secret(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with(['{', '['])
        && let Ok(value) = serde_json::from_str::<Value>(text)
        && is_secret_value(&value)
    {
        return true;
    }
    is_authorization(text)
        || text.contains("PRIVATE KEY-----")
        || has_password(text)
        || text.split(|c: char| !is_token_char(c)).any(is_token)
}

fn is_secret_value(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(name, value)| is_secret_name(name) || is_secret_value(value)),
        Value::Array(list) => list.iter().any(is_secret_value),
        Value::String(text) => is_secret(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `Bearer …` or `Basic …` of a header.
fn is_authorization(text: &str) -> bool {
    const BEARER_BYTES_MIN: usize = 8;
    let Some((scheme, rest)) = text.split_once(' ') else { return false };
    let rest = rest.trim();
    let is_login = || STANDARD.decode(rest).is_ok_and(|login| login.contains(&b':'));
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => rest.len() >= BEARER_BYTES_MIN && rest.chars().all(|c| is_token_char(c) || matches!(c, '/' | '=')),
        "basic" => is_login(),
        _ => false,
    }
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~' | '+')
}

fn is_token(word: &str) -> bool {
    is_jwt(word) || is_ours(word)
}

/// Three parts, or five of an encrypted one, of which the first is a JSON object that names an algorithm.
fn is_jwt(word: &str) -> bool {
    let Some((header, _)) = word.split_once('.') else { return false };
    let header = || serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(header).ok()?).ok();
    [3, 5].contains(&word.split('.').count()) && header().is_some_and(|header| header.get("alg").is_some())
}

/// Begins with what our secrets begin with, and is long enough for one.
fn is_ours(word: &str) -> bool {
    let is_long = |rest: &str| rest.len() >= SECRET_BYTES_MIN;
    let is_key = word.split_once('_').is_some_and(|(prefix, rest)| Kind::of(prefix).is_some() && is_long(rest));
    is_key || PREFIXES.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(is_long))
}

/// `scheme://user:password@host`
fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// A path without its query, with each part that looks like a secret hidden; `None` where there is no such part.
pub fn without_secrets(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let hidden: Vec<&str> = path.split('/').map(|part| if is_secret(part) { HIDDEN } else { part }).collect();
    hidden.contains(&HIDDEN).then(|| hidden.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJraW0ifQ.";
    const KEY: &str =
        "muser_0123456789abcdef0123456789abcdef_1763740800_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ_01234567";

    #[test]
    fn names_of_secrets_are_known_by_their_parts() {
        for name in [
            "jwt",
            "JWT",
            "id_jwt",
            "userJwt",
            "JWTValue",
            "pin",
            "PIN",
            "user-pin",
            "userPin",
            "pin2",
            "pins",
            "otp",
            "oldPwd",
            "Password",
            "x-auth-TOKEN",
            "client_secret",
            "authorization",
            "set-cookie",
            "api_key",
            "apikeys",
            "credentials",
            "X-Auth",
            "sid",
            "session_id",
            "pass",
            "smsTAN",
            "SMSPin",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "owner", "now_ms", "opinion", "spinning", "author", "compass", "distance", "side", "shipping", "groups", "",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_form() {
        let own = format!("rt_{}", "a".repeat(SECRET_BYTES_MIN));
        let header = format!("Bearer {}", "x".repeat(9));
        let link = format!("https://example.org/reset?token=pr_{}", "b".repeat(SECRET_BYTES_MIN));
        for text in [
            JWT,
            KEY,
            &own,
            &header,
            &link,
            &format!("it is {JWT}, they said"),
            "Basic a2ltOng=",
            "-----BEGIN EC PRIVATE KEY-----",
            "postgres://kim:abc@db.example.org/x",
            r#"{"user":{"pin":"1234"}}"#,
            &format!(r#"["a","{JWT}"]"#),
        ] {
            assert!(is_secret(text), "{text}");
        }
        let short = format!("rt_{}", "a".repeat(SECRET_BYTES_MIN - 1));
        for text in [
            "",
            "kim",
            "1.2.3",
            "www.example.org",
            "019abcde-0000-7000-8000-000000000002",
            "https://example.org/a@b:c",
            "kim@example.org",
            "basic plan",
            "bearer of good news",
            r#"{"owner":"kim"}"#,
            "[1,2",
            &short,
        ] {
            assert!(!is_secret(text), "{text}");
        }
        assert!(is_secret_fact("note", &["fine".into(), JWT.into()]) && !is_secret_fact("note", &["fine".into()]));
    }

    #[test]
    fn parts_of_a_path_that_are_secrets_are_hidden() {
        assert_eq!(without_secrets("/docs/7?secret=1"), None);
        assert_eq!(without_secrets(&format!("/links/{JWT}/open?a=b")), Some("/links/***/open".into()));
    }
}
