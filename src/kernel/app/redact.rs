//! Detection of secrets by name or by form: the one rule for all request data that is stored or shown.
//!
//! False positives are preferred to leaks. A fact that is left out is listed by name, so that the caller can rename it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

/// Matched anywhere in a name, with and without its separators.
const WITHIN: [&str; 40] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwort",
    "kennwort",
    "accesscode",
    "cardnumber",
    "token",
    "secret",
    "authorization",
    "cookie",
    "credential",
    "signature",
    "sessionid",
    "jwt",
    "key",
    "hmac",
    "mnemonic",
    "recovery",
    "assertion",
    "otpauth",
    "oauth",
    "2fa",
    "authcode",
    "verificationcode",
    "backupcode",
    "codeverifier",
    "securityanswer",
    "magiclink",
    "motdepasse",
    "wachtwoord",
    "lösenord",
    "salasana",
    "contraseña",
    "пароль",
    "密碼",
    "密码",
    "パスワード",
    "비밀번호",
];
/// Too short to be matched inside of words: must be a whole part of a name, as in `user_pin`, `userPin` and `PIN2`.
const PARTS: [&str; 26] = [
    "auth", "bearer", "clave", "csrf", "cvc", "cvv", "iban", "jwe", "jws", "mdp", "mfa", "pass", "pincode", "psk",
    "puk", "pw", "saml", "seed", "session", "sid", "sig", "ssn", "tan", "totp", "tfa", "xsrf",
];
/// Matched at the end of a part, as in `mypin`.
const ENDS: [&str; 3] = ["pin", "otp", "pwd"];
/// Prefixes of Roster's own secrets; the last five are those of API keys.
const PREFIXES: [&str; 11] =
    ["rs_", "rt_", "ch_", "pr_", "inv_", "whsec_", "msys_", "muser_", "msvc_", "mint_", "memg_"];
/// The fewest bytes of a secret after its prefix.
const SECRET_BYTES_MIN: usize = 40;
/// Replaces a secret in stored text.
pub const HIDDEN: &str = "***";

/// Whether the name or one of the values of a fact looks like a secret.
pub fn is_secret_fact(name: &str, values: &[String]) -> bool {
    is_secret_name(name) || values.iter().any(|value| is_secret(value))
}

/// Whether a name suggests that its value is a secret.
pub fn is_secret_name(name: &str) -> bool {
    // Words of other alphabets are matched as they are spelled, without folding.
    let spelled: String = name.nfc().collect::<String>().to_lowercase();
    let name: String = name.chars().filter_map(folded).collect();
    let lower = name.to_lowercase();
    let squeezed: String = lower.chars().filter(|c| c.is_alphabetic()).collect();
    let is_part = |part: &str| {
        let singular = part.strip_suffix('s').unwrap_or(part);
        [part, singular].iter().any(|part| PARTS.contains(part) || ENDS.iter().any(|end| part.ends_with(end)))
    };
    WITHIN.iter().any(|word| [&lower, &squeezed, &spelled].iter().any(|name| name.contains(word)))
        || parts(&name).iter().any(|part| is_part(part))
        // `PINs` is one word, though the capitals split it in two.
        || lower.split(|c: char| !c.is_alphabetic()).any(is_part)
}

/// Folds a character to the ASCII character it looks like; `None` for invisible characters.
fn folded(c: char) -> Option<char> {
    /// Pairs: a character of another alphabet, then the ASCII character it looks like.
    const ALIKE: &str = "аaсcеeһhіiјjкkмmоoрpѕsтtуyхxԁdԛqԝwвbнhαaεeιiκkνvοoρpτtυuχxıiɡg";
    match c {
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{300}'..='\u{36f}'
        | '\u{fe00}'..='\u{fe0f}' => None,
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
        _ if c.is_ascii() => Some(c),
        _ => {
            let lower = c.to_lowercase().next().unwrap_or(c);
            let alike = ALIKE.chars().skip_while(|known| *known != lower).nth(1);
            // `lower` can also be the second of a pair; the character after it is then not ASCII.
            let alike = alike.filter(char::is_ascii).unwrap_or(c);
            Some(if c.is_uppercase() { alike.to_ascii_uppercase() } else { alike })
        }
    }
}

/// Splits a name into lower-case words, at separators, digits and capitals.
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

/// Whether a text contains a secret, by its form: a JWT, one of Roster's own secrets, a private key, the value of an
/// `Authorization` header, a URL with a password, or JSON with any of these or with a name of a secret.
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

/// Whether it is `Bearer …` or `Basic …`, as in an `Authorization` header.
fn is_authorization(text: &str) -> bool {
    const BEARER_BYTES_MIN: usize = 8;
    // A form sends a space as a plus.
    let Some((scheme, rest)) = text.split_once([' ', '+', '\t']) else { return false };
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

/// Whether a word contains a JWT or one of Roster's own secrets, also with other characters before or after it.
fn is_token(word: &str) -> bool {
    has_jwt(word) || has_own_secret(word)
}

/// Whether it contains the base64 of a JSON object with an algorithm, followed by at least two dots.
fn has_jwt(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() > 2 && parts[..parts.len() - 2].iter().any(|part| ends_in_header(part))
}

/// Whether it ends with the base64 of a JSON object that names an algorithm (`alg`).
fn ends_in_header(part: &str) -> bool {
    /// Base64 of `{` with a quotation mark or white space after it.
    const BEGINNINGS: [&str; 2] = ["ey", "ew"];
    /// The longest header that is found with a prefix before it; bounds the search.
    const GLUED_BYTES_MAX: usize = 1_024;
    let names_algorithm = |header: &str| {
        let header = URL_SAFE_NO_PAD.decode(header).ok();
        let header = header.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        header.is_some_and(|header| header.get("alg").is_some())
    };
    let last = part.len().saturating_sub(GLUED_BYTES_MAX);
    let mut begins = BEGINNINGS.iter().flat_map(|beginning| part.match_indices(beginning)).map(|(at, _)| at);
    names_algorithm(part) || begins.any(|at| at >= last && names_algorithm(&part[at..]))
}

/// Whether it contains the prefix of one of Roster's own secrets, with enough characters after it.
fn has_own_secret(word: &str) -> bool {
    PREFIXES.iter().any(|prefix| {
        word.match_indices(prefix).any(|(at, _)| {
            let rest = word.get(at + prefix.len()..at + prefix.len() + SECRET_BYTES_MIN);
            // Inside of a word it may be a long name: a secret also has capitals or digits.
            let is_apart = !word[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
            rest.is_some_and(|rest| is_apart || rest.contains(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit()))
        })
    })
}

/// Whether it contains `scheme://user:password@host`.
fn has_password(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// The path without its query and with each segment hidden that looks like a secret, also if it is percent-encoded.
/// `None` if there is no such segment.
pub fn without_secrets(path: &str) -> Option<String> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let hidden: Vec<&str> = path.split('/').map(|part| if is_secret_part(part) { HIDDEN } else { part }).collect();
    hidden.contains(&HIDDEN).then(|| hidden.join("/"))
}

/// How often a path segment is decoded that is percent-encoded repeatedly.
const ESCAPED_MAX: usize = 3;

fn is_secret_part(part: &str) -> bool {
    let mut text = Cow::Borrowed(part);
    for _ in 0..ESCAPED_MAX {
        if is_secret(&text) {
            return true;
        }
        match unescaped(&text) {
            Some(plain) => text = Cow::Owned(plain),
            None => return false,
        }
    }
    is_secret(&text)
}

/// Percent-decodes a text; `None` if nothing in it is encoded.
fn unescaped(text: &str) -> Option<String> {
    if !text.contains('%') {
        return None;
    }
    let (bytes, mut plain, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digit = |n: usize| char::from(*bytes.get(at + n)?).to_digit(16);
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    (plain.len() < bytes.len()).then(|| String::from_utf8_lossy(&plain).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::authz::key::KINDS;

    const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJraW0ifQ.";
    const KEY: &str =
        "muser_0123456789abcdef0123456789abcdef_1763740800_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ_01234567";

    /// Characters around a secret that must not hide it.
    const GLUED: [&str; 12] =
        ["Bearer+{}", "key.{}", "api-key-{}", "~{}", "x+{}", "_{}", "-{}", "{}.", "x{}", "7{}", "{}~x", "a;{}"];

    #[test]
    fn names_of_secrets_are_recognized() {
        for name in
            "jwt JWT id_jwt userJwt JWTValue pin PIN user-pin userPin pin2 pins otp oldPwd Password x-auth-TOKEN \
            client_secret authorization set-cookie api_key apikeys credentials X-Auth sid session_id pass smsTAN \
            SMSPin PINs SESSIONID passcode accessCode access_code pw mfa mypin sig hmac mnemonic recovery \
            card_number otpauth ｐｉｎ ＰＩＮ pіn РIN tοken 2fa oauth x-oauth authcode auth_code psk verification_code \
            backup_codes code_verifier security_answer magic_link mdp motdepasse mot_de_passe clave contraseña \
            密碼 пароль Пароль パスワード wachtwoord"
                .split(' ')
                .chain(["pin\u{200b}", "p\u{ad}in", "pass\u{301}word", "ハ\u{309a}スワート\u{3099}"])
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            "owner now_ms opinion spinning author compass distance side shipping groups  card code number design \
            部門 отдел größe access records spawned enclave verification backup magic fa author_code"
                .split(' ')
        {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn secrets_are_recognized_by_their_form() {
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
        let short = format!("users_{}", "names_of_people".repeat(4));
        assert!(!is_secret(&short), "{short}");
        for glued in GLUED {
            for secret in [JWT, KEY, &format!("rt_{}", "aB3_".repeat(10))] {
                let text = glued.replace("{}", secret);
                assert!(is_secret(&text), "{text}");
            }
        }
        assert!(is_secret_fact("note", &["fine".into(), JWT.into()]) && !is_secret_fact("note", &["fine".into()]));
    }

    #[test]
    fn every_kind_of_api_key_has_its_prefix_in_the_list() {
        for kind in KINDS {
            assert!(PREFIXES.contains(&&*format!("{}_", kind.prefix)), "{}", kind.prefix);
        }
    }

    #[test]
    fn path_segments_that_are_secrets_are_hidden() {
        assert_eq!(without_secrets("/docs/7?secret=1"), None);
        assert_eq!(without_secrets("/docs/50%25/a%2Fb%zz%"), None);
        for part in [
            JWT.to_owned(),
            JWT.replace('.', "%2E"),
            JWT.replace('.', "%252e"),
            KEY.to_owned(),
            KEY.replace('_', "%5F"),
            KEY.replacen('m', "%6D", 1),
            format!("Bearer+{KEY}"),
            "Bearer+opaque-words".to_owned(),
            format!("key.{JWT}"),
        ] {
            assert_eq!(without_secrets(&format!("/links/{part}/open?a=b")), Some("/links/***/open".into()), "{part}");
        }
    }
}
