//! Passwords: their rules, and their hashes. The only module that uses argon2 and bcrypt.
//!
//! New hashes are argon2id with the parameters of the settings. Imported hashes are bcrypt, any variant of argon2, or a
//! format of `legacy_hash`. They, and hashes with weaker parameters than the settings, are replaced at the next
//! sign-in.
//!
//! Hashing runs on the blocking pool, a few hashes at a time, so that a burst of sign-ins cannot use all memory and
//! CPU.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use bcrypt::HashParts;

use super::hash_cost::{ARGON2_BLOCKS_MAX, BCRYPT_COST_MAX, Cost, Floor, beginning};
use super::legacy_hash::{Form, Prepared, without_disguise};
use super::store;
use crate::kernel::app::{App, HashKinds};
use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::Timestamp;
use crate::kernel::secret;

/// The most bytes of a password. Longer ones would only cost hashing time.
pub const PASSWORD_BYTES_MAX: usize = 256;
const PASSWORD_CHARACTERS_MIN: usize = 8;

/// Returns all faults of a new password.
pub fn faults(password: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if password.chars().count() < PASSWORD_CHARACTERS_MIN {
        faults.push("must have at least 8 characters");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        faults.push("must have at most 256 bytes");
    }
    if !password.chars().any(char::is_uppercase) {
        faults.push("must have an upper-case letter");
    }
    if !password.chars().any(|c| c.is_numeric() || !(c.is_alphanumeric() || c.is_whitespace())) {
        faults.push("must have a digit or a symbol");
    }
    if is_common(password) {
        faults.push("is a common password, which attackers try first: choose another");
    }
    faults.into_iter().map(str::to_owned).collect()
}

/// Whether this is a common password, also with digits and symbols around it (`Welcome123!`) or instead of letters
/// (`P@ssw0rd`).
fn is_common(password: &str) -> bool {
    static COMMON: OnceLock<HashSet<&str>> = OnceLock::new();
    let common = COMMON.get_or_init(|| include_str!("common_passwords.txt").lines().collect());
    let lower = password.to_lowercase();
    let word = lower.trim_end_matches(|c: char| !c.is_alphabetic());
    let core = word.trim_start_matches(|c: char| !c.is_alphabetic());
    [lower.as_str(), word, core]
        .into_iter()
        .any(|text| common.contains(text) || common.contains(with_letters(text).as_str()))
}

/// Replaces digits and symbols by the letters that they resemble.
fn with_letters(text: &str) -> String {
    let letter = |c| match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    };
    text.chars().map(letter).collect()
}

/// The most memory of an imported argon2 hash, in KiB. The limits of `hash_cost` apply as well.
const IMPORTED_MEMORY_KIB_MAX: u32 = 262_144;
const IMPORTED_PARALLELISM_MAX: u32 = 16;
/// Advice in the messages about costly hashes.
const INSTEAD: &str = "every sign-in would have to do that work; create a password link instead";

/// Returns all faults of an imported hash.
pub fn hash_faults(hash: &str) -> Vec<String> {
    let hash = without_disguise(hash);
    let fault = match Form::of(hash) {
        Form::Bcrypt(_, inner) => bcrypt_fault(inner),
        Form::Rounds(rounds) => rounds.fault(),
        Form::Other => argon2_fault(hash),
    };
    fault.into_iter().collect()
}

/// Returns the form in which an imported hash is stored.
pub fn stored_form(hash: &str) -> String {
    without_disguise(hash).to_owned()
}

fn bcrypt_fault(hash: &str) -> Option<String> {
    match HashParts::from_str(hash) {
        Err(_) => Some("is not a complete bcrypt hash".into()),
        Ok(parts) if !(4..=BCRYPT_COST_MAX).contains(&parts.get_cost()) => {
            Some(format!("must have a cost from 4 to {BCRYPT_COST_MAX}: {INSTEAD}"))
        }
        Ok(_) => None,
    }
}

fn argon2_fault(hash: &str) -> Option<String> {
    const KINDS: &str = "must be a hash of bcrypt ($2a$, $2b$, $2y$), argon2 ($argon2id$, $argon2i$, $argon2d$), WordPress \
        ($P$, $wp$2y$), Django (pbkdf2_sha256$, bcrypt_sha256$, argon2$) or SHA-crypt ($5$, $6$), also with the prefix {CRYPT}";
    let Ok(parsed) = PasswordHash::new(hash) else { return Some(KINDS.into()) };
    if Algorithm::from_str(parsed.algorithm.as_str()).is_err() {
        return Some(KINDS.into());
    }
    let (Ok(params), Some(_), Some(_)) = (Params::try_from(&parsed), parsed.salt, parsed.hash) else {
        return Some("is not a complete argon2 hash".into());
    };
    let cost = Cost::Argon2 { memory_kib: params.m_cost(), passes: params.t_cost() };
    let is_costly = params.m_cost() > IMPORTED_MEMORY_KIB_MAX
        || params.p_cost() > IMPORTED_PARALLELISM_MAX
        || !cost.is_affordable();
    is_costly.then(|| {
        format!(
            "costs too much: at most m={IMPORTED_MEMORY_KIB_MAX}, p={IMPORTED_PARALLELISM_MAX}, and m × t = \
             {ARGON2_BLOCKS_MAX}: {INSTEAD}"
        )
    })
}

/// Hashes a password with argon2id and the parameters of the settings. Fails with `Busy` if too many hashes are
/// computed.
pub async fn hash(app: &App, password: String) -> Result<String> {
    let argon2 = argon2(&app.config)?;
    with_permit(app, move || argon2_hash(&argon2, password.as_bytes())).await
}

/// The result of verifying a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    pub fits: bool,
    /// The hash has another algorithm or weaker parameters than a new one: hash the password again and store it. False
    /// if only a part of the password was verified.
    pub is_outdated: bool,
}

/// The bytes of a password that bcrypt uses. A longer password is verified only in part: rehashing it would let anyone
/// who knows the first bytes set the rest with one sign-in.
const BCRYPT_BYTES_MAX: usize = 72;

/// Verifies a password against a stored hash; without one it never matches. The work is the same for every hash and for
/// none: the floor of all stored hashes (`hash_cost`). `gate` runs before hashing starts and can refuse it. Fails with
/// `Busy` if too many hashes are computed.
pub async fn verify(
    app: &App,
    password: String,
    stored: Option<String>,
    gate: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<Verified> {
    let argon2 = argon2(&app.config)?;
    if password.len() > PASSWORD_BYTES_MAX {
        return Ok(Verified { fits: false, is_outdated: false });
    }
    let floor = floor(app, &argon2);
    with_permit(app, move || {
        gate()?;
        for cost in floor.rest(stored.as_deref().and_then(Cost::of)) {
            do_work(cost, password.as_bytes())?;
        }
        let Some(stored) = stored else { return Ok(Verified { fits: false, is_outdated: false }) };
        // Verification uses the parameters of the stored hash, not those of the settings.
        let form = Form::of(&stored);
        let fits = match form {
            Form::Bcrypt(prepared, hash) => bcrypt::verify(prepared.of(&password), hash).unwrap_or(false),
            Form::Rounds(rounds) => rounds.fits(password.as_bytes()),
            Form::Other => argon2.verify_password(password.as_bytes(), stored.as_str()).is_ok(),
        };
        let is_known_whole = !matches!(form, Form::Bcrypt(Prepared::Plain, _)) || password.len() < BCRYPT_BYTES_MAX;
        Ok(Verified { fits, is_outdated: is_known_whole && is_outdated(&stored, argon2.params()) })
    })
    .await
}

/// Whether a hash has another algorithm or weaker parameters than a new one.
fn is_outdated(stored: &str, today: &Params) -> bool {
    let Ok(hash) = PasswordHash::new(stored) else { return true };
    let Ok(params) = Params::try_from(&hash) else { return true };
    hash.algorithm.as_str() != Algorithm::Argon2id.as_str()
        || hash.version.is_some_and(|version| version < u32::from(Version::V0x13))
        || params.m_cost() < today.m_cost()
        || params.t_cost() < today.t_cost()
        || params.p_cost() < today.p_cost()
}

/// Does the work of a hash without using the result.
fn do_work(cost: Cost, password: &[u8]) -> Result<()> {
    const SALT: [u8; 16] = [0; 16];
    match cost {
        Cost::Bcrypt { cost } => {
            let hash = bcrypt::hash_with_salt_bytes(password, cost, SALT);
            hash.map(drop).map_err(|e| Error::internal(format!("hashing failed: {e}")))
        }
        Cost::Rounds { kind, rounds } => {
            std::hint::black_box(kind.digest(password, "saltsalt", rounds));
            Ok(())
        }
        Cost::Argon2 { memory_kib, passes } => {
            let failed = |e: argon2::Error| Error::internal(format!("hashing failed: {e}"));
            let params = Params::new(memory_kib, passes, 1, None).map_err(failed)?;
            let mut digest = [0; Params::DEFAULT_OUTPUT_LEN];
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password_into(password, &SALT, &mut digest).map_err(failed)?;
            std::hint::black_box(digest);
            Ok(())
        }
    }
}

/// Returns the work of a sign-in: the floor over the stored hashes and a hash with the current settings.
fn floor(app: &App, argon2: &Argon2<'_>) -> Floor {
    let today = Cost::Argon2 { memory_kib: argon2.params().m_cost(), passes: argon2.params().t_cost() };
    let kinds = app.hash_kinds.lock().map(|kinds| kinds.keys().filter_map(|kind| Cost::of(kind)).collect::<Vec<_>>());
    Floor::of_site(kinds.unwrap_or_default(), today)
}

/// Adds the kind of an imported hash that was stored: from now on every sign-in does its work.
pub fn add_hash_kind(kinds: &HashKinds, hash: &str) {
    if let (Some(kind), Ok(mut kinds)) = (beginning(hash), kinds.lock()) {
        kinds.insert(kind.to_owned(), Timestamp::now());
    }
}

/// Reloads the kinds of the stored hashes: at the start, and periodically, because the last hash of a kind can be gone.
pub async fn reload_hash_kinds(app: &App) -> Result<()> {
    // A hash that is announced meanwhile can be missing from the rows.
    let since = Timestamp::now();
    let stored = app.read(store::list_hash_kinds).await?;
    if let Ok(mut kinds) = app.hash_kinds.lock() {
        let announced = std::mem::take(&mut *kinds).into_iter().filter(|(_, at)| *at >= since);
        let all: BTreeMap<String, Timestamp> = stored.into_iter().map(|kind| (kind, Timestamp(0))).collect();
        *kinds = all.into_iter().chain(announced).collect();
    }
    Ok(())
}

fn argon2_hash(argon2: &Argon2<'_>, password: &[u8]) -> Result<String> {
    const SALT_BYTES: usize = 16;
    let salt = &secret::random()?[..SALT_BYTES];
    let hash: PasswordHash =
        argon2.hash_password_with_salt(password, salt).map_err(|e| Error::internal(format!("hashing failed: {e}")))?;
    Ok(hash.to_string())
}

fn argon2(config: &Config) -> Result<Argon2<'static>> {
    let number = |setting: u64| u32::try_from(setting).unwrap_or(u32::MAX);
    let params = Params::new(
        number(config.hash_memory_kib),
        number(config.hash_iterations),
        number(config.hash_parallelism),
        None,
    )
    .map_err(|e| Error::internal(format!("the password.* settings are invalid: {e}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

async fn with_permit<T: Send + 'static>(app: &App, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let wait = Duration::from_millis(app.config.hash_wait_ms);
    let permit = tokio::time::timeout(wait, app.hashing.clone().acquire_owned())
        .await
        .map_err(|_| Error::new(ErrorCode::Busy).with_source("too many sign-ins at once").retry_after(1))?
        .map_err(|_| Error::internal("hashing is closed"))?;
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    })
    .await
    .map_err(|e| Error::internal(format!("hashing panicked: {e}")))?
}

#[cfg(test)]
mod tests {
    use super::{faults, hash_faults, is_outdated};
    use argon2::Params;

    #[test]
    fn all_faults_of_a_password_are_returned_at_once() {
        assert_eq!(faults("Abcdefg1"), [""; 0]);
        assert_eq!(faults("Abcdefg!"), [""; 0]);
        assert_eq!(faults(&format!("A1{}", "x".repeat(254))), [""; 0]);
        assert_eq!(faults(&format!("A1{}", "x".repeat(255))).len(), 1);
        assert_eq!(faults("short").len(), 3);
        assert_eq!(faults("Abcdef1").len(), 1);
        assert_eq!(faults("abcdefg1"), ["must have an upper-case letter"]);
        assert_eq!(faults("Abcdefgh"), ["must have a digit or a symbol"]);
        assert_eq!(faults("password").len(), 3);
    }

    #[test]
    fn variants_of_common_passwords_are_refused() {
        for common in [
            "Password1",
            "Welcome123!",
            "Qwerty123",
            "Admin2024!",
            "P@ssw0rd",
            "PASSWORD1!",
            "123Password",
            "Passw0rd2024",
            "1Qaz2wsx",
            "Letmein1",
            "Football99",
            "Iloveyou2",
            "Summer2026!",
            "Adm1n!2026",
        ] {
            assert_eq!(faults(common).len(), 1, "{common}");
        }
        for fine in ["Correct-horse-7", "Another-horse-8", "Zug-nach-9-Uhr", "Passwortfrei-3x", "Admiral.ty.44"] {
            assert_eq!(faults(fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn the_list_of_common_passwords_is_normalized_and_sorted() {
        let list: Vec<&str> = include_str!("common_passwords.txt").lines().collect();
        assert!(list.len() >= 900, "{}", list.len());
        for line in &list {
            assert_eq!(*line, line.trim().to_lowercase());
            assert!(!line.is_empty());
        }
        assert!(list.is_sorted());
    }

    const BCRYPT_TAIL: &str = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    const ARGON2_TAIL: &str = "$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG";

    #[test]
    fn imported_hashes_are_accepted_at_their_limits_and_refused_beyond() {
        let tail = BCRYPT_TAIL;
        for fine in [
            format!("$2a$04${tail}"),
            format!("$2b$12${tail}"),
            format!("$2y$10${tail}"),
            format!("$argon2id$v=19$m=262144,t=1,p=16{ARGON2_TAIL}"),
            format!("$argon2id$v=19$m=26214,t=10,p=1{ARGON2_TAIL}"),
            format!("$argon2i$v=19$m=65536,t=4,p=1{ARGON2_TAIL}"),
            format!("$argon2d$v=16$m=64,t=1,p=1{ARGON2_TAIL}"),
            format!("$wp$2y$10${tail}"),
            format!("{{CRYPT}}$2y$10${tail}"),
            format!("bcrypt$$2b$10${tail}"),
            format!("bcrypt_sha256$$2b$10${tail}"),
            format!("argon2$argon2id$v=19$m=102400,t=2,p=8{ARGON2_TAIL}"),
            "$P$BsaltsaltyvayDBu39pLoTeW858tf7.".into(),
        ] {
            assert_eq!(hash_faults(&fine), [""; 0], "{fine}");
        }
        for bad in [
            format!("$2b$03${tail}"),
            format!("$2b$13${tail}"),
            format!("$2b$10${}", &tail[1..]),
            format!("$2x$10${tail}"),
            format!("$argon2id$v=19$m=262145,t=1,p=16{ARGON2_TAIL}"),
            format!("$argon2id$v=19$m=65537,t=4,p=16{ARGON2_TAIL}"),
            format!("$argon2id$v=19$m=26215,t=10,p=1{ARGON2_TAIL}"),
            format!("$argon2id$v=19$m=262144,t=1,p=17{ARGON2_TAIL}"),
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ".into(),
            "{CRYPT}$1$salt$0123456789012345678901".into(),
            "pbkdf2_sha1$1000$salt$x".into(),
            format!("$wp$2y$17${tail}"),
            format!("$scrypt$ln=1{ARGON2_TAIL}"),
            "5f4dcc3b5aa765d61d8327deb882cf99".into(),
            "Correct-horse-7".into(),
        ] {
            assert_eq!(hash_faults(&bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_hash_is_outdated_when_a_new_one_would_take_more_work() {
        let today = Params::new(64, 2, 1, None).expect("parameters");
        let of = |text: &str| is_outdated(&format!("${text}{ARGON2_TAIL}"), &today);
        assert!(!of("argon2id$v=19$m=64,t=2,p=1"));
        assert!(!of("argon2id$v=19$m=65,t=3,p=2"));
        assert!(of("argon2id$v=19$m=63,t=2,p=1"));
        assert!(of("argon2id$v=19$m=64,t=1,p=1"));
        assert!(of("argon2i$v=19$m=64,t=2,p=1"));
        assert!(of("argon2id$v=16$m=64,t=2,p=1"));
        assert!(is_outdated("$2b$04$", &today));
    }
}
