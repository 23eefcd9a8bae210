//! Passwords: their rules, and their hashes. The only user of argon2.
//!
//! Hashing takes its memory and its time on the blocking pool, a few at once: the limit is what keeps a burst of
//! sign-ins from taking the machine.

use std::sync::OnceLock;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

use crate::access::secret;
use crate::app::App;
use crate::config::Config;
use crate::error::{Cause, Error, Result};

/// More would only cost hashing time.
pub const PASSWORD_BYTES_MAX: usize = 256;
const PASSWORD_CHARACTERS_MIN: usize = 8;

/// All that is wrong with a new password.
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
        faults.push("must have a digit or a sign");
    }
    faults.into_iter().map(str::to_owned).collect()
}

/// The hash to store: argon2id, with the parameters of the settings.
pub async fn hash(app: &App, password: String) -> Result<String> {
    let argon2 = argon2(&app.config)?;
    in_turn(app, move || hashed(&argon2, password.as_bytes())).await
}

/// Is it the password of this hash? Without a hash the same work is done, and the answer is no. `gate` may refuse when
/// the turn to hash has come.
pub async fn verify(
    app: &App,
    password: String,
    stored: Option<String>,
    gate: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<bool> {
    let argon2 = argon2(&app.config)?;
    if password.len() > PASSWORD_BYTES_MAX {
        return Ok(false);
    }
    in_turn(app, move || {
        gate()?;
        let is_known = stored.is_some();
        let stored = stored.map_or_else(|| nobodys(&argon2), Ok)?;
        // The parameters are those of the stored hash, whatever the settings say today.
        let fits = argon2.verify_password(password.as_bytes(), stored.as_str()).is_ok();
        Ok(is_known & fits)
    })
    .await
}

/// A hash that no password has, made once with the parameters of the settings.
fn nobodys(argon2: &Argon2<'_>) -> Result<String> {
    static NOBODYS: OnceLock<String> = OnceLock::new();
    if let Some(hash) = NOBODYS.get() {
        return Ok(hash.clone());
    }
    let hash = hashed(argon2, &secret::random()?)?;
    Ok(NOBODYS.get_or_init(|| hash).clone())
}

fn hashed(argon2: &Argon2<'_>, password: &[u8]) -> Result<String> {
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
    .map_err(|e| Error::internal(format!("the password.* settings do not fit together: {e}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

async fn in_turn<T: Send + 'static>(app: &App, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let wait = Duration::from_millis(app.config.hash_wait_ms);
    let permit = tokio::time::timeout(wait, app.hashing.clone().acquire_owned())
        .await
        .map_err(|_| Error::new(Cause::Busy).because("too many sign-ins at once").retry_after(1))?
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
    use super::faults;

    #[test]
    fn all_faults_of_a_password_at_once() {
        assert_eq!(faults("Abcdefg1"), [""; 0]);
        assert_eq!(faults("Abcdefg!"), [""; 0]);
        assert_eq!(faults(&format!("A1{}", "x".repeat(254))), [""; 0]);
        assert_eq!(faults(&format!("A1{}", "x".repeat(255))).len(), 1);
        assert_eq!(faults("short").len(), 3);
        assert_eq!(faults("Abcdef1").len(), 1);
        assert_eq!(faults("abcdefg1"), ["must have an upper-case letter"]);
        assert_eq!(faults("Abcdefgh"), ["must have a digit or a sign"]);
    }
}
