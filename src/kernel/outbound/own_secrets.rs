//! Our own secrets in the words of other systems: some repeat in an error what was sent to them.
//!
//! **Invariant.** Text of an external system is stored, shown and logged only after [`OwnSecrets::hide`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use reqwest::Url;

use crate::kernel::config::Config;

/// Replaces a secret.
const HIDDEN: &str = "…";
/// A shorter text is part of many words.
const BYTES_MIN: usize = 4;
/// The number of tokens that are remembered, the newest ones.
const TOKENS_MAX: usize = 16;

/// Whether a word is a secret by its form. The rules are those of `kernel/app/redact.rs`.
pub type LooksSecret = fn(&str) -> bool;

/// The secrets of the settings and the tokens that other systems gave, in the forms in which they are sent.
pub struct OwnSecrets {
    /// The longest first, because one can contain another.
    configured: Vec<String>,
    /// The oldest first.
    tokens: Mutex<VecDeque<String>>,
    looks_secret: LooksSecret,
}

impl Default for OwnSecrets {
    fn default() -> Self {
        Self { configured: Vec::new(), tokens: Mutex::default(), looks_secret: |_| false }
    }
}

impl OwnSecrets {
    pub fn new(config: &Config, looks_secret: LooksSecret) -> Self {
        let named = [
            (config.sftpgo_username.as_str(), config.sftpgo_secret.as_ref()),
            (config.wordpress_username.as_str(), config.wordpress_password.as_ref()),
            (config.mail_username.as_str(), config.mail_password.as_ref()),
        ];
        let providers = config.providers.iter().map(|one| (one.client_id.as_str(), one.client_secret.as_ref()));
        let alone = [
            &config.authentik_token,
            &config.wordpress_ticket_secret,
            &config.hook_sftpgo_key,
            &config.hook_wordpress_key,
            &config.metrics_token,
        ];
        let alone = alone.into_iter().flatten().chain(&config.internal_secrets).map(|secret| ("", secret));
        let named = named.into_iter().chain(providers).filter_map(|(name, secret)| Some((name, secret?)));
        let mut forms: Vec<String> = named.chain(alone).flat_map(|(name, secret)| forms(name, secret)).collect();
        forms.retain(|form| form.len() >= BYTES_MIN);
        forms.sort_by(|left, right| right.len().cmp(&left.len()).then_with(|| left.cmp(right)));
        forms.dedup();
        Self { configured: forms, tokens: Mutex::default(), looks_secret }
    }

    /// Remembers a token that a system gave.
    pub fn add_token(&self, token: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if token.len() < BYTES_MIN || tokens.iter().any(|known| known == token) {
            return;
        }
        if tokens.len() >= TOKENS_MAX {
            tokens.pop_front();
        }
        tokens.push_back(token.to_owned());
    }

    /// The text with each secret replaced, also one that was cut off at the end of the text, and with each word
    /// replaced that looks like a secret.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in self.configured.iter().chain(&*tokens) {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        let whole = text.trim_end_matches(['…', ' ']);
        let cut = self.configured.iter().chain(&*tokens).filter_map(|secret| beginning_at_end(whole, secret)).min();
        if let Some(at) = cut {
            text.truncate(at);
            text.push_str(HIDDEN);
        }
        without_secret_words(text, self.looks_secret)
    }
}

/// A secret in the forms in which it is sent: as it is, encoded for a URL or form, and with its name in base64.
fn forms(name: &str, secret: &str) -> Vec<String> {
    let squeezed: String = secret.split_whitespace().collect();
    let plain = [secret.to_owned(), squeezed];
    let mut forms = Vec::new();
    for secret in &plain {
        let encoded = form_encoded(secret);
        let mut sent = vec![secret.clone()];
        if !name.is_empty() {
            // HTTP Basic, Basic of OAuth 2.0, and `PLAIN` of SMTP; `LOGIN` sends the secret alone.
            sent.push(format!("{name}:{secret}"));
            sent.push(format!("{}:{encoded}", form_encoded(name)));
            sent.push(format!("\0{name}\0{secret}"));
        }
        // With and without padding, which not everybody writes.
        let encodings = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
        forms.extend(sent.iter().flat_map(|text| encodings.iter().map(move |encoding| encoding.encode(text))));
        forms.push(encoded);
        forms.push(secret.clone());
    }
    // An API key of SFTPGo: its id is not secret, the rest is.
    forms.extend(secret.split_once('.').filter(|_| name.is_empty()).map(|(_, rest)| rest.to_owned()));
    forms
}

/// The text as a value in a form (`application/x-www-form-urlencoded`).
pub fn form_encoded(text: &str) -> String {
    let Ok(mut url) = Url::parse("http://localhost") else { return text.to_owned() };
    url.query_pairs_mut().append_key_only(text);
    url.query().unwrap_or_default().to_owned()
}

/// Where a beginning of the secret stands at the end of the text.
fn beginning_at_end(text: &str, secret: &str) -> Option<usize> {
    let ends = secret.char_indices().map(|(at, _)| at).filter(|at| *at >= BYTES_MIN);
    ends.filter(|end| text.ends_with(&secret[..*end])).max().map(|end| text.len() - end)
}

/// Replaces each word that is a secret by its form, such as a JWT, and the word after `Basic`.
fn without_secret_words(text: String, looks_secret: LooksSecret) -> String {
    let mut is_any = false;
    let mut before = "";
    let words: Vec<&str> = text
        .split_inclusive(char::is_whitespace)
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric() && !"=+/_-".contains(c));
            let is_login = before.eq_ignore_ascii_case("basic") && looks_secret(&format!("Basic {bare}"));
            before = bare;
            let is_secret = is_login || looks_secret(word);
            is_any |= is_secret;
            if is_secret { "… " } else { word }
        })
        .collect();
    if is_any { words.concat().trim_end().to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn secrets() -> OwnSecrets {
        let mut config = Config::of(Path::new(""));
        config.sftpgo_username = "admin".into();
        config.sftpgo_secret = Some("a pass/word-für".into());
        config.wordpress_username = "root".into();
        config.wordpress_password = Some("abcd EFGH 1234".into());
        config.mail_username = "kim".into();
        config.mail_password = Some("right-one".into());
        config.authentik_token = Some("0123456789".into());
        config.internal_secrets = vec!["x".into(), "keyid.the-rest".into()];
        OwnSecrets::new(&config, |word| word.contains("eyJ") || word == "Basic a2ltOng=")
    }

    #[test]
    fn secrets_are_hidden_in_every_form_in_which_they_are_sent() {
        let secrets = secrets();
        secrets.add_token("an-opaque-token");
        for form in [
            "a pass/word-für",
            "a+pass%2Fword-f%C3%BCr",
            "abcd EFGH 1234",
            "abcdEFGH1234",
            "0123456789",
            "keyid.the-rest",
            "the-rest",
            "an-opaque-token",
            &STANDARD.encode("root:abcd EFGH 1234"),
            &STANDARD.encode("\0kim\0right-one"),
            &STANDARD.encode("right-one"),
            &URL_SAFE_NO_PAD.encode("admin:a pass/word-für"),
        ] {
            for (text, expected) in [
                (format!("no: {form}"), "no: …"),
                (format!("no: '{form}' twice {form}, there"), "no: '…' twice …, there"),
            ] {
                assert_eq!(secrets.hide(&text), expected, "{form}");
            }
        }
        for plain in ["it answered 500", "x marks the box", "Basic plan for admin", "a+b", "", "…"] {
            assert_eq!(secrets.hide(plain), plain);
        }
    }

    #[test]
    fn a_secret_that_was_cut_off_is_hidden_from_the_fewest_bytes_on() {
        let secrets = secrets();
        assert_eq!(secrets.hide("the token 012…"), "the token 012…");
        assert_eq!(secrets.hide("the token 0123…"), "the token …");
        assert_eq!(secrets.hide("the token 012345678"), "the token …");
        assert_eq!(secrets.hide("the token 0123 is wrong"), "the token 0123 is wrong");
    }

    #[test]
    fn words_that_look_like_secrets_are_hidden() {
        let text = "not valid: eyJhbGciOiJub25lIn0.eyJzdWIiOiJraW0ifQ. (Basic a2ltOng=) end";
        assert_eq!(secrets().hide(text), "not valid: … (Basic … end");
    }

    #[test]
    fn as_many_tokens_are_remembered_as_the_limit_and_not_one_more() {
        let secrets = OwnSecrets::default();
        let token = |n: usize| format!("token-{n:03}.");
        (0..TOKENS_MAX).for_each(|n| secrets.add_token(&token(n)));
        assert_eq!(secrets.hide(&token(0)), "…");
        secrets.add_token(&token(1));
        assert_eq!(secrets.hide(&token(0)), "…", "a known one takes no place");
        secrets.add_token(&token(TOKENS_MAX));
        assert_eq!(
            (secrets.hide(&format!("{}!", token(0))), secrets.hide(&token(1))),
            (format!("{}!", token(0)), "…".into())
        );
    }
}
