//! Password hashes of other programs: WordPress, Django, and Unix `crypt`. A hash is replaced by argon2id when its
//! member signs in for the first time.
//!
//! | Format | Program |
//! | --- | --- |
//! | `$P$…`, `$H$…` | phpass: WordPress before 6.8, phpBB |
//! | `$wp$2y$…` | WordPress from 6.8: bcrypt of a digest |
//! | `pbkdf2_sha256$…`, `bcrypt_sha256$$2b$…` | Django |
//! | `$5$…`, `$6$…` | SHA-crypt of Unix and LDAP |
//!
//! Prefixes of ordinary bcrypt and argon2 hashes (`{CRYPT}$2y$…`, `bcrypt$$2b$…`, `argon2$argon2id$…`) are removed
//! before storing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::kernel::secret;

/// The algorithm of a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'h> {
    Bcrypt(Prepared, &'h str),
    Rounds(Rounds<'h>),
    /// Argon2, or not a valid hash.
    Other,
}

/// How the password is transformed before bcrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    Plain,
    WordPress,
    Django,
}

/// A hash of many rounds of a simple hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds<'h> {
    pub kind: Kind,
    pub rounds: u64,
    salt: &'h str,
    digest: &'h str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pbkdf2,
    Sha256Crypt,
    Sha512Crypt,
    Phpass,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Pbkdf2, Self::Sha256Crypt, Self::Sha512Crypt, Self::Phpass];

    /// Returns the most rounds that are accepted: slightly more than the current defaults of Django and passlib.
    pub fn rounds_max(self) -> u64 {
        match self {
            Self::Pbkdf2 => 1_500_000,
            Self::Sha256Crypt | Self::Sha512Crypt => 700_000,
            Self::Phpass => 1 << 20,
        }
    }

    /// Returns the number of characters of a digest.
    fn digest_length(self) -> usize {
        match self {
            Self::Pbkdf2 => 44,
            Self::Sha256Crypt => 43,
            Self::Sha512Crypt => 86,
            Self::Phpass => 22,
        }
    }

    /// Computes the digest of a password with this number of rounds, as text.
    pub fn digest(self, password: &[u8], salt: &str, rounds: u64) -> String {
        match self {
            Self::Pbkdf2 => pbkdf2(password, salt, rounds),
            Self::Sha256Crypt => sha256_crypt(password, salt.as_bytes(), rounds),
            Self::Sha512Crypt => sha512_crypt(password, salt.as_bytes(), rounds),
            Self::Phpass => phpass(password, salt, rounds),
        }
    }
}

/// Removes a prefix that only names the program, if the rest identifies the algorithm.
pub fn without_disguise(hash: &str) -> &str {
    const CRYPT: &str = "{CRYPT}";
    let is_marked = hash.get(..CRYPT.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(CRYPT));
    let hash = if is_marked { &hash[CRYPT.len()..] } else { hash };
    let inner = [("bcrypt$", "$2"), ("argon2", "$argon2")]
        .into_iter()
        .find_map(|(mark, begin)| hash.strip_prefix(mark).filter(|rest| rest.starts_with(begin)));
    inner.unwrap_or(hash)
}

impl<'h> Form<'h> {
    pub fn of(hash: &'h str) -> Self {
        let is_bcrypt = |hash: &str| ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix));
        for (mark, prepared) in
            [("", Prepared::Plain), ("$wp", Prepared::WordPress), ("bcrypt_sha256$", Prepared::Django)]
        {
            if let Some(inner) = hash.strip_prefix(mark).filter(|inner| is_bcrypt(inner)) {
                return Self::Bcrypt(prepared, inner);
            }
        }
        Rounds::of(hash).map_or(Self::Other, Self::Rounds)
    }
}

impl<'h> Rounds<'h> {
    fn of(hash: &'h str) -> Option<Self> {
        if let Some(rest) = hash.strip_prefix("pbkdf2_sha256$") {
            let mut parts = rest.splitn(3, '$');
            let (rounds, salt, digest) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
            return Some(Self { kind: Kind::Pbkdf2, rounds, salt, digest });
        }
        if let Some(rest) = hash.strip_prefix("$P$").or_else(|| hash.strip_prefix("$H$")) {
            let rounds = phpass_rounds(rest.bytes().next()?)?;
            return Some(Self { kind: Kind::Phpass, rounds, salt: rest.get(1..9)?, digest: rest.get(9..)? });
        }
        for (mark, kind) in [("$5$", Kind::Sha256Crypt), ("$6$", Kind::Sha512Crypt)] {
            let Some(rest) = hash.strip_prefix(mark) else { continue };
            let (rounds, rest) = match rest.strip_prefix("rounds=") {
                Some(rest) => rest.split_once('$').and_then(|(rounds, rest)| Some((rounds.parse().ok()?, rest)))?,
                None => (SHA_CRYPT_ROUNDS, rest),
            };
            let (salt, digest) = rest.split_once('$')?;
            return Some(Self { kind, rounds, salt, digest });
        }
        None
    }

    /// Returns why the hash is not accepted, if so.
    pub fn fault(&self) -> Option<String> {
        let most = self.kind.rounds_max();
        // SHA-crypt raises smaller numbers to 1000.
        let least = if matches!(self.kind, Kind::Sha256Crypt | Kind::Sha512Crypt) { 1_000 } else { 1 };
        if self.digest.len() != self.kind.digest_length() || !self.digest.is_ascii() {
            return Some("is not a complete hash of its kind".into());
        }
        (!(least..=most).contains(&self.rounds)).then(|| format!("must have {least} to {most} rounds"))
    }

    /// Whether this is the hash of the password.
    pub fn fits(&self, password: &[u8]) -> bool {
        let made = self.kind.digest(password, self.salt, self.rounds);
        secret::equal(&secret::hash(&made), &secret::hash(self.digest))
    }
}

impl Prepared {
    /// Returns the input of bcrypt for this password.
    pub fn of(self, password: &str) -> Vec<u8> {
        match self {
            Self::Plain => password.as_bytes().to_vec(),
            Self::WordPress => {
                // WordPress calls PHP's `trim` first.
                let trimmed = password.trim_matches([' ', '\t', '\n', '\r', '\0', '\u{b}']);
                let Ok(mut mac) = Hmac::<Sha384>::new_from_slice(b"wp-sha384") else { return Vec::new() };
                mac.update(trimmed.as_bytes());
                STANDARD.encode(mac.finalize().into_bytes()).into_bytes()
            }
            Self::Django => hex::encode(Sha256::digest(password.as_bytes())).into_bytes(),
        }
    }
}

/// Returns the rounds of phpass that a digit of a hash encodes.
pub fn phpass_rounds(digit: u8) -> Option<u64> {
    let log2 = ALPHABET.iter().position(|known| *known == digit)?;
    1_u64.checked_shl(u32::try_from(log2).ok()?)
}

/// The rounds of SHA-crypt if a hash does not contain them.
pub const SHA_CRYPT_ROUNDS: u64 = 5_000;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Computes the first block of PBKDF2, which is all that Django uses.
fn pbkdf2(password: &[u8], salt: &str, rounds: u64) -> String {
    let Ok(keyed) = Hmac::<Sha256>::new_from_slice(password) else { return String::new() };
    let one = |text: &[u8]| -> [u8; 32] {
        let mut mac = keyed.clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    };
    let mut last = one(&[salt.as_bytes(), &[0, 0, 0, 1]].concat());
    let mut sum = last;
    for _ in 1..rounds {
        last = one(&last);
        sum.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    STANDARD.encode(sum)
}

fn phpass(password: &[u8], salt: &str, rounds: u64) -> String {
    let mut digest = Md5::digest([salt.as_bytes(), password].concat());
    for _ in 0..rounds {
        digest = Md5::digest([&digest[..], password].concat());
    }
    let mut text = String::new();
    for bytes in digest.chunks(3) {
        let number = bytes.iter().rev().fold(0, |number: u32, byte| (number << 8) | u32::from(*byte));
        push_digits(&mut text, number, bytes.len() + 1);
    }
    text
}

/// Appends digits of 6 bits each, the lowest first.
fn push_digits(text: &mut String, mut number: u32, digits: usize) {
    for _ in 0..digits {
        text.push(char::from(ALPHABET[(number & 63) as usize]));
        number >>= 6;
    }
}

/// Implements "Unix crypt using SHA-256 and SHA-512" by Ulrich Drepper.
fn sha_crypt<D: Digest>(password: &[u8], salt: &[u8], rounds: u64) -> Vec<u8> {
    const SALT_BYTES_MAX: usize = 16;
    let salt = &salt[..salt.len().min(SALT_BYTES_MAX)];
    let of =
        |parts: &[&[u8]]| parts.iter().fold(D::new(), |digest, part| digest.chain_update(part)).finalize().to_vec();
    let as_long_as = |digest: &[u8], length: usize| digest.iter().copied().cycle().take(length).collect::<Vec<u8>>();
    let other = of(&[password, salt, password]);
    let mut first = D::new().chain_update(password).chain_update(salt);
    first.update(as_long_as(&other, password.len()));
    let mut length = password.len();
    while length > 0 {
        first.update(if length & 1 == 1 { &other[..] } else { password });
        length >>= 1;
    }
    let mut last = first.finalize().to_vec();
    let passwords = as_long_as(&of(&vec![password; password.len()]), password.len());
    let salts = as_long_as(&of(&vec![salt; 16 + usize::from(last[0])]), salt.len());
    for round in 0..rounds {
        let mut digest = D::new();
        let is_odd = round % 2 == 1;
        digest.update(if is_odd { &passwords[..] } else { &last[..] });
        if !round.is_multiple_of(3) {
            digest.update(&salts);
        }
        if !round.is_multiple_of(7) {
            digest.update(&passwords);
        }
        digest.update(if is_odd { &last[..] } else { &passwords[..] });
        last = digest.finalize().to_vec();
    }
    last
}

fn sha256_crypt(password: &[u8], salt: &[u8], rounds: u64) -> String {
    let digest = sha_crypt::<Sha256>(password, salt, rounds);
    let mut text = String::new();
    for n in 0..10 {
        let mut places = [n, n + 10, n + 20];
        places.rotate_right(n % 3);
        push_three(&mut text, places.map(|at| digest[at]), 4);
    }
    push_three(&mut text, [0, digest[31], digest[30]], 3);
    text
}

fn sha512_crypt(password: &[u8], salt: &[u8], rounds: u64) -> String {
    let digest = sha_crypt::<Sha512>(password, salt, rounds);
    let mut text = String::new();
    for n in 0..21 {
        let mut places = [n, n + 21, n + 42];
        places.rotate_left(n % 3);
        push_three(&mut text, places.map(|at| digest[at]), 4);
    }
    push_three(&mut text, [0, 0, digest[63]], 2);
    text
}

fn push_three(text: &mut String, bytes: [u8; 3], digits: usize) {
    push_digits(text, bytes.iter().fold(0, |number: u32, byte| (number << 8) | u32::from(*byte)), digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "Winter-Tide-42";

    fn rounds(hash: &str) -> Rounds<'_> {
        match Form::of(hash) {
            Form::Rounds(rounds) => rounds,
            other => panic!("{hash}: {other:?}"),
        }
    }

    #[test]
    fn hashes_of_other_programs_match_only_their_password() {
        for (hash, password, count) in [
            // Created with PHP and Python; the second is an example of phpass.
            ("$P$BsaltsaltyvayDBu39pLoTeW858tf7.", PASSWORD, 8_192),
            ("$H$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0", "test12345", 2_048),
            ("pbkdf2_sha256$1000$seasalt$A/qYSI/6VPY8l4w9zxxJg7lAt8AkAAf+wTv/TnJR+wo=", PASSWORD, 1_000),
            ("$5$saltstring$d4M0FidX.8C30hjIwDemdDuVKCVqAJwHYsJ3wFUeew0", PASSWORD, 5_000),
            ("$5$rounds=1000$saltstring$N30lMTMheT6.vyG4hUQCYfJf5NuUkIyv.6dbNwBqpp3", PASSWORD, 1_000),
            (
                "$6$saltstring$vMiSdFMi/PEiNGmuddq0pFITr71qVDAz9ya1Ku3cE58ZG6rB7ku4nfdFGSLdKZ9JU2JN1gEj8EAR51pU3t6uW0",
                PASSWORD,
                5_000,
            ),
            (
                "$6$rounds=1400$anotherlongsaltstring$aOrLNDI6pWGNe.Lbhvx/QK.fCHlKBhCHD8L3mzcBxcUldoxeEcBt4cxOqDHtUKxW/Po7UBMKZ3MFHXrFQVnJi/",
                PASSWORD,
                1_400,
            ),
        ] {
            let found = rounds(hash);
            assert_eq!((found.rounds, found.fault()), (count, None), "{hash}");
            assert!(found.fits(password.as_bytes()), "{hash}");
            for wrong in ["", "winter-tide-42", "Winter-Tide-42 ", &password.repeat(9)] {
                assert!(!found.fits(wrong.as_bytes()), "{hash} {wrong}");
            }
        }
    }

    #[test]
    fn the_input_of_bcrypt_depends_on_the_program() {
        let wordpress = "v1jZDnILAHJAspH1vTpjTfwLrwixHMsUhFi/tbjCtbDP95SHgKpB9UHLhpy6f6I6";
        assert_eq!(Prepared::WordPress.of(" Winter-Tide-42\n"), wordpress.as_bytes());
        assert_eq!(Prepared::Django.of("abc"), b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Prepared::Plain.of(" x "), b" x ");
        for (hash, prepared) in [
            ("$2y$04$x", Prepared::Plain),
            ("$wp$2y$04$x", Prepared::WordPress),
            ("bcrypt_sha256$$2b$04$x", Prepared::Django),
        ] {
            assert!(
                matches!(Form::of(hash), Form::Bcrypt(found, inner) if found == prepared && inner.ends_with("$04$x"))
            );
        }
    }

    #[test]
    fn only_prefixes_of_known_hashes_are_removed() {
        for (hash, inner) in [
            ("{CRYPT}$6$a$b", "$6$a$b"),
            ("{crypt}$2y$04$x", "$2y$04$x"),
            ("bcrypt$$2b$12$x", "$2b$12$x"),
            ("argon2$argon2id$v=19$x", "$argon2id$v=19$x"),
            ("argon2id", "argon2id"),
            ("bcrypt_sha256$$2b$12$x", "bcrypt_sha256$$2b$12$x"),
            ("$argon2id$v=19$x", "$argon2id$v=19$x"),
            ("{SSHA}x", "{SSHA}x"),
            ("", ""),
        ] {
            assert_eq!(without_disguise(hash), inner);
        }
    }

    #[test]
    fn rounds_are_accepted_at_their_limits_and_refused_beyond() {
        let tail = "x".repeat(44);
        for (count, is_taken) in [(0, false), (1, true), (1_500_000, true), (1_500_001, false)] {
            let hash = format!("pbkdf2_sha256${count}$s${tail}");
            assert_eq!(rounds(&hash).fault().is_none(), is_taken, "{count}");
        }
        let tail = "x".repeat(43);
        for (count, is_taken) in [(999, false), (1_000, true), (700_000, true), (700_001, false)] {
            let hash = format!("$5$rounds={count}$s${tail}");
            assert_eq!(rounds(&hash).fault().is_none(), is_taken, "{count}");
        }
        for (digit, is_taken) in [('.', true), ('I', true), ('J', false), ('z', false)] {
            let hash = format!("$P${digit}saltsalt{}", "x".repeat(22));
            assert_eq!(rounds(&hash).fault().is_none(), is_taken, "{digit}");
        }
        for none in [
            "$P$",
            "$P$B",
            "$P$!saltsalt",
            "$P$Bsalt",
            "$6$salt",
            "$5$rounds=x$s$d",
            "$1$salt$x",
            "pbkdf2_sha256$x$s$d",
        ] {
            assert_eq!(Form::of(none), Form::Other, "{none}");
        }
        assert!(rounds("$P$Bsaltsaltx").fault().is_some() && rounds("$6$s$").fault().is_some());
    }
}
