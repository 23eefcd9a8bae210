//! The second factor: one-time codes of an authenticator app, and recovery codes. The only user of totp-rs.
//!
//! **Invariant.** A code works once: the transaction that accepts it stores its time step, or deletes the recovery
//! code. Wrong codes are counted per sign-in, and per member over all sign-ins.

use std::sync::Arc;

use serde_json::json;
use totp_rs::{Algorithm, Builder, Secret, Totp};

use super::store::{self, Factor};
use super::trusted_devices::NewDevice;
use super::{SignIn, Tokens, VerifiedFactors, open_while, require_signed_in, verify_password};
use crate::features::members;
use crate::features::sessions::end_sessions;
use crate::kernel::app::{App, Changed, Transaction, seconds_to_ms};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::{Guard, Visitor};
use crate::kernel::authn::login_throttle::Attempt;
use crate::kernel::authz::principal::{Identity, Principal, RequestContext};
use crate::kernel::authz::snapshot::{Change, Session};
use crate::kernel::config::Config;
use crate::kernel::db::Reader;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::ids::{MemberId, SessionId, Timestamp};
use crate::kernel::secret::{self, Hash};

/// The purpose of a stored challenge.
const PURPOSE: &str = "second_factor";

/// Whether the member has a confirmed second factor.
pub fn is_confirmed(r: &Reader<'_>, member: MemberId) -> Result<bool> {
    store::has_second_factor(r, member)
}

/// Stores the challenge of a sign-in that waits for its second factor.
pub fn insert_challenge(
    t: &Transaction<'_>,
    challenge: &str,
    member: MemberId,
    method: &str,
    config: &Config,
) -> Result<()> {
    let data = json!({"method": method}).to_string();
    let expires_at = t.now().plus_ms(seconds_to_ms(config.second_factor_wait_s));
    store::insert_token(t, &secret::hash(challenge), PURPOSE, Some(member), Some(&data), expires_at)
}

/// The error that is returned instead of tokens when a second factor is due; it contains the challenge.
pub fn challenge_error(challenge: String, is_enrolled: bool) -> Error {
    let cause = if is_enrolled { ErrorCode::SecondFactorRequired } else { ErrorCode::EnrolmentRequired };
    Error::new(cause).challenge(challenge)
}

// ── codes ──

/// Lifetime of a code in seconds. The previous and the next code are accepted too, for clocks that differ.
const STEP_S: u64 = 30;
const SECRET_BYTES: usize = 20;
const RECOVERY_CODES: usize = 10;
const RECOVERY_CODE_BYTES: usize = 10;
const CODE_DIGITS: u8 = 6;

fn authenticator(secret: &[u8]) -> Builder {
    // The parameters that every authenticator app supports; some apps silently ignore others.
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(CODE_DIGITS)
        .with_skew(1)
        .with_step_duration(STEP_S)
        .with_secret(secret)
}

fn built(builder: Builder) -> Result<Totp> {
    builder.build().map_err(|e| Error::internal(format!("a second factor cannot be computed: {e}")))
}

/// Returns the time step of this code if it is valid now.
fn step_of(secret: &[u8], code: &str, now: Timestamp) -> Result<Option<i64>> {
    const MS_PER_S: u64 = 1_000;
    let step = built(authenticator(secret))?.check(code, now.0.unsigned_abs() / MS_PER_S);
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// Normalizes a typed code: removes spaces and dashes, and converts to lower case.
fn folded(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace() && *c != '-').flat_map(char::to_lowercase).collect()
}

fn recovery_hash(code: &str) -> Hash {
    secret::hash(&folded(code))
}

/// Generates recovery codes: 80 random bits each, in groups of four characters.
fn recovery_codes() -> Result<Vec<String>> {
    let code = |_| {
        let letters = Secret::from(&secret::random()?[..RECOVERY_CODE_BYTES]).to_base32().to_lowercase();
        let letters: Vec<char> = letters.chars().collect();
        Ok(letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-"))
    };
    (0..RECOVERY_CODES).map(code).collect()
}

fn store_recovery_codes(t: &Transaction<'_>, member: MemberId, codes: &[String]) -> Result<()> {
    let hashes: Vec<Hash> = codes.iter().map(|code| recovery_hash(code)).collect();
    store::replace_recovery_codes(t, member, &hashes)
}

/// The kind of an accepted code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FactorProof {
    Code,
    RecoveryCode,
}

impl FactorProof {
    fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::RecoveryCode => "recovery_code",
        }
    }
}

/// Consumes a code; `None` when it is wrong or was used before.
fn spend(t: &Transaction<'_>, member: MemberId, factor: &Factor, code: &str) -> Result<Option<FactorProof>> {
    let code = folded(code);
    let is_totp = code.len() == usize::from(CODE_DIGITS) && code.bytes().all(|byte| byte.is_ascii_digit());
    if is_totp {
        let Some(step) = step_of(&factor.secret, &code, t.now())? else { return Ok(None) };
        return Ok(store::use_step(t, member, step)?.then_some(FactorProof::Code));
    }
    Ok(store::use_recovery_code(t, member, &recovery_hash(&code))?.then_some(FactorProof::RecoveryCode))
}

/// Confirms a factor with its first code and stores the recovery codes `fresh`. Returns whether the code was right.
fn confirm_with(t: &Transaction<'_>, member: MemberId, factor: &Factor, code: &str, fresh: &[String]) -> Result<bool> {
    let Some(step) = step_of(&factor.secret, &folded(code), t.now())? else { return Ok(false) };
    store::confirm(t, member, step)?;
    store_recovery_codes(t, member, fresh)?;
    Ok(true)
}

/// Counts the wrong codes of a member over all its sign-ins: starting a new sign-in gives no additional guesses.
struct CodeThrottle {
    guard: Arc<Guard>,
    attempt: Attempt,
}

impl CodeThrottle {
    fn of(app: &App, member: MemberId, context: &RequestContext) -> Self {
        Self { guard: app.guard.clone(), attempt: Attempt::new(&format!("factor:{member}"), context.address) }
    }

    fn require(&self, now: Timestamp) -> Result<()> {
        self.guard.login_throttle.check(self.attempt, false, now)
    }

    fn failed(&self, now: Timestamp) {
        self.guard.login_throttle.record_failure(self.attempt, now);
    }

    fn succeeded(&self) {
        self.guard.login_throttle.record_success(self.attempt);
    }
}

// ── signing in ──

/// A sign-in that waits for its second factor.
struct PendingSignIn {
    member: MemberId,
    method: String,
}

fn pending_sign_in(r: &Reader<'_>, hash: &Hash, tries_max: u64, now: Timestamp) -> Result<PendingSignIn> {
    let found = store::find_token(r, hash, PURPOSE, now)?.filter(|challenge| challenge.tries < tries_max);
    let challenge = found.ok_or(ErrorCode::InvalidChallenge)?;
    let data = challenge.data.and_then(|data| serde_json::from_str::<serde_json::Value>(&data).ok());
    let method = data.and_then(|data| data["method"].as_str().map(str::to_owned));
    let (member, method) = challenge.member.zip(method).ok_or(ErrorCode::InvalidChallenge)?;
    Ok(PendingSignIn { member, method })
}

async fn find_pending_sign_in(app: &App, hash: Hash) -> Result<PendingSignIn> {
    let tries_max = app.config.second_factor_tries;
    app.read(move |r| pending_sign_in(r, &hash, tries_max, Timestamp::now())).await
}

/// A sign-in whose second factor was right.
struct Passed {
    method: String,
    proof: FactorProof,
    /// Set when the code was the first of a new factor.
    recovery_codes: Option<Vec<String>>,
}

/// Completes a sign-in with the code of the second factor. The first code of a new factor confirms it and returns its
/// recovery codes. `remembers`: sets the cookie of a remembered device, unless the code was a recovery code.
pub async fn complete_sign_in(
    app: &App,
    visitor: &Visitor,
    (challenge, code): (&str, String),
    remembers: bool,
) -> Result<(Tokens, Option<Vec<String>>)> {
    let hash = secret::hash(challenge);
    let member = find_pending_sign_in(app, hash).await?.member;
    let throttle = CodeThrottle::of(app, member, &visitor.context);
    let tries_max = app.config.second_factor_tries;
    let fresh = recovery_codes()?;
    let check = move |t: &Transaction<'_>, _: &Identity| {
        let PendingSignIn { member, method } = pending_sign_in(t, &hash, tries_max, t.now())?;
        throttle.require(t.now())?;
        let factor = store::find_factor(t, t.encryption(), member)?;
        let passed = match factor {
            Some(factor) if factor.confirmed_at.is_some() => spend(t, member, &factor, &code)?.map(|proof| {
                let passed = Passed { method, proof, recovery_codes: None };
                (passed, (proof == FactorProof::RecoveryCode).then(|| json!({"used": proof.as_str()})))
            }),
            Some(factor) if confirm_with(t, member, &factor, &code, &fresh)? => {
                let passed = Passed { method, proof: FactorProof::Code, recovery_codes: Some(fresh) };
                Some((passed, Some(json!({"confirmed": true}))))
            }
            Some(_) | None => None,
        };
        let Some((passed, after)) = passed else {
            throttle.failed(t.now());
            store::count_attempt(t, &hash)?;
            // Not an error, because an error would roll back the counted try.
            return Ok(Changed::unchanged(None));
        };
        throttle.succeeded();
        store::delete_token(t, &hash)?;
        // Sessions from before the factor existed have not verified it.
        let changes = if passed.recovery_codes.is_some() { end_sessions(t, member, None)? } else { Vec::new() };
        Ok(match after {
            // The audit entry of the new session records that a second factor was verified.
            None => Changed::unchanged(Some(passed)),
            Some(after) => {
                Changed::new(Some(passed), Entry::new("member", member).after(after)).with_policy_changes(changes)
            }
        })
    };
    let caller = Identity::new(Principal::Member(member), visitor.context.clone());
    let passed = app.change(&caller, "second_factor.use", check).await?.answer.ok_or(ErrorCode::InvalidCode)?;
    let device = if remembers && passed.proof == FactorProof::Code { NewDevice::create(&app.config)? } else { None };
    let sign_in =
        SignIn { device: device.clone(), ..SignIn::new(member, &passed.method, VerifiedFactors::BothFactors) };
    let tokens = open_while(app, visitor, sign_in, |_| Ok(())).await?;
    if let Some(device) = device {
        device.set_cookie(app, &visitor.context);
    }
    Ok((tokens, passed.recovery_codes))
}

/// The secret for an authenticator app.
pub struct NewSecret {
    /// In Base32, for manual entry.
    pub secret: String,
    /// The same secret as a URL for a QR code.
    pub otpauth_url: String,
}

/// Starts the set-up of a second factor during a sign-in, for a member who must have one and has none.
pub async fn enrol(app: &App, visitor: &Visitor, challenge: &str) -> Result<NewSecret> {
    let hash = secret::hash(challenge);
    let member = find_pending_sign_in(app, hash).await?.member;
    let tries_max = app.config.second_factor_tries;
    let caller = Identity::new(Principal::Member(member), visitor.context.clone());
    store_new_secret(app, &caller, member, move |t| pending_sign_in(t, &hash, tries_max, t.now()).map(drop)).await
}

/// Stores a new secret, which becomes active with its first correct code.
async fn store_new_secret(
    app: &App,
    caller: &Identity,
    member: MemberId,
    require: impl FnOnce(&Transaction<'_>) -> Result<()> + Send + 'static,
) -> Result<NewSecret> {
    let bytes = secret::random()?[..SECRET_BYTES].to_vec();
    let issuer = issuer(&app.config);
    let begin = move |t: &Transaction<'_>, _: &Identity| {
        require(t)?;
        if is_confirmed(t, member)? {
            return Err(ErrorCode::SecondFactorOn.into());
        }
        let found = members::get(t, member)?;
        let account = found.email.or(found.username).unwrap_or_else(|| member.to_string());
        store::put_secret(t, t.encryption(), member, &bytes)?;
        Ok(Changed::unchanged(new_secret(&bytes, issuer, &account)?))
    };
    Ok(app.change(caller, "second_factor.begin", begin).await?.answer)
}

fn new_secret(secret: &[u8], issuer: String, account: &str) -> Result<NewSecret> {
    // A colon separates the issuer from the account name in the label.
    let named = authenticator(secret).with_issuer(Some(issuer)).with_account_name(account.replace(':', "_"));
    let otpauth_url = built(named)?
        .to_url()
        .map_err(|e| Error::internal(format!("the URL of a second factor cannot be created: {e}")))?;
    Ok(NewSecret { secret: Secret::from(secret).to_base32(), otpauth_url })
}

/// The issuer name that the authenticator app displays.
fn issuer(config: &Config) -> String {
    let host = config.public_url.split_once("://").and_then(|(_, rest)| rest.split(['/', ':']).next());
    let is_name = |host: &&str| !host.is_empty() && !host.starts_with('[');
    host.filter(is_name).unwrap_or("Roster").to_owned()
}

// ── the signed-in member ──

/// The state of a member's second factor.
#[derive(Debug)]
pub struct FactorStatus {
    pub confirmed_at: Option<Timestamp>,
    pub recovery_codes_left: u64,
}

pub fn state(r: &Reader<'_>, member: MemberId) -> Result<FactorStatus> {
    Ok(FactorStatus {
        confirmed_at: store::find_confirmed(r, member)?.flatten(),
        recovery_codes_left: store::count_recovery_codes(r, member)?,
    })
}

/// Starts the set-up of a second factor. It needs the password: a stolen access token must not lock a member out.
pub async fn begin(app: &App, caller: &Identity, member: MemberId, password: Option<String>) -> Result<NewSecret> {
    let session = session_of(caller)?;
    let find = move |r: &Reader<'_>| Ok((members::password_hash(r, member)?, is_confirmed(r, member)?));
    let (stored, is_on) = app.read(find).await?;
    if is_on {
        return Err(ErrorCode::SecondFactorOn.into());
    }
    if let Some(stored) = stored {
        let password = password.ok_or_else(|| Error::field("password", "is required: your account has a password"))?;
        let attempt = Attempt::new(&member.to_string(), caller.context.address);
        if !verify_password(app, (attempt, false), password, Some(stored)).await?.fits {
            app.guard.login_throttle.record_failure(attempt, Timestamp::now());
            return Err(ErrorCode::WrongPassword.into());
        }
        app.guard.login_throttle.record_success(attempt);
    }
    store_new_secret(app, caller, member, move |t| require_signed_in(t, member, session)).await
}

/// Returns the caller's session. Fails with `Forbidden` for a caller without one.
fn session_of(caller: &Identity) -> Result<SessionId> {
    let message = "sign in to Roster first: a provider's token cannot change the second factor";
    caller.session.ok_or_else(|| Error::new(ErrorCode::Forbidden).with_message(message))
}

/// Activates a second factor with its first code and returns its recovery codes. Ends every other session.
pub async fn confirm(app: &App, caller: &Identity, member: MemberId, code: String) -> Result<Vec<String>> {
    let throttle = CodeThrottle::of(app, member, &caller.context);
    let (session, fresh) = (session_of(caller)?, recovery_codes()?);
    let confirm = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        let factor = store::find_factor(t, t.encryption(), member)?.ok_or(ErrorCode::SecondFactorOff)?;
        if factor.confirmed_at.is_some() {
            return Err(ErrorCode::SecondFactorOn.into());
        }
        throttle.require(t.now())?;
        if !confirm_with(t, member, &factor, &code, &fresh)? {
            throttle.failed(t.now());
            return Err(ErrorCode::InvalidCode.into());
        }
        throttle.succeeded();
        let changes = keep_only(t, member, session, true)?;
        let entry = Entry::new("member", member).after(json!({"confirmed": true}));
        Ok(Changed::new(fresh, entry).with_policy_changes(changes))
    };
    Ok(app.change(caller, "second_factor.confirm", confirm).await?.answer)
}

/// Ends every session of the member except `kept`, and records whether a second factor was verified in that one.
fn keep_only(t: &Transaction<'_>, member: MemberId, kept: SessionId, verified: bool) -> Result<Vec<Change>> {
    let mut changes = end_sessions(t, member, Some(kept))?;
    store::mark_session(t, kept, verified)?;
    changes.push(Change::Session(kept, Some(Session { member, second_factor: verified })));
    Ok(changes)
}

/// Consumes a code. Fails with `InvalidCode` if it is wrong.
fn require_code(t: &Transaction<'_>, member: MemberId, code: &str, throttle: &CodeThrottle) -> Result<FactorProof> {
    let factor = store::find_factor(t, t.encryption(), member)?.filter(|factor| factor.confirmed_at.is_some());
    let factor = factor.ok_or(ErrorCode::SecondFactorOff)?;
    throttle.require(t.now())?;
    let proof = spend(t, member, &factor, code)?;
    match proof {
        Some(_) => throttle.succeeded(),
        None => throttle.failed(t.now()),
    }
    proof.ok_or_else(|| ErrorCode::InvalidCode.into())
}

/// Replaces all recovery codes and returns the new ones.
pub async fn renew_recovery_codes(app: &App, caller: &Identity, member: MemberId, code: String) -> Result<Vec<String>> {
    let throttle = CodeThrottle::of(app, member, &caller.context);
    let (session, fresh) = (session_of(caller)?, recovery_codes()?);
    let renew = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        let proof = require_code(t, member, &code, &throttle)?;
        store_recovery_codes(t, member, &fresh)?;
        let entry = Entry::new("member", member).after(json!({"used": proof.as_str()}));
        Ok(Changed::new(fresh, entry))
    };
    Ok(app.change(caller, "second_factor.renew_recovery_codes", renew).await?.answer)
}

/// Removes the caller's own second factor. Ends every other session, and marks the caller's session as without a second
/// factor.
pub async fn remove(app: &App, caller: &Identity, member: MemberId, code: String) -> Result<()> {
    let throttle = CodeThrottle::of(app, member, &caller.context);
    let session = session_of(caller)?;
    let remove = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        if t.snapshot().requires_second_factor(member) {
            return Err(ErrorCode::SecondFactorKept.into());
        }
        let proof = require_code(t, member, &code, &throttle)?;
        store::delete_factor(t, member)?;
        let changes = keep_only(t, member, session, false)?;
        let entry = Entry::new("member", member).after(json!({"used": proof.as_str()}));
        Ok(Changed::new((), entry).with_policy_changes(changes))
    };
    app.change(caller, "second_factor.remove", remove).await.map(drop)
}

/// Removes the second factor of a member who lost it, and ends all sessions of the member.
pub fn reset(t: &Transaction<'_>, member: MemberId) -> Result<Vec<Change>> {
    if store::find_confirmed(t, member)?.is_none() {
        return Err(ErrorCode::SecondFactorOff.into());
    }
    store::delete_factor(t, member)?;
    end_sessions(t, member, None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn codes_of_the_previous_and_next_step_are_accepted_and_no_others() {
        let secret = [7; SECRET_BYTES];
        let (now, step) = (Timestamp(1_763_740_800_000), 1_763_740_800 / 30);
        let code = |step: i64| {
            let totp = built(authenticator(&secret)).expect("a secret");
            totp.generate(step.unsigned_abs() * STEP_S).to_string()
        };
        for (at, found) in [(-2, None), (-1, Some(step - 1)), (0, Some(step)), (1, Some(step + 1)), (2, None)] {
            assert_eq!(step_of(&secret, &code(step + at), now).expect("computed"), found, "{at}");
        }
    }

    #[test]
    fn recovery_codes_are_normalized() {
        let codes = recovery_codes().expect("random");
        assert_eq!((codes.len(), codes[0].len()), (RECOVERY_CODES, 19));
        assert_ne!(codes[0], codes[1]);
        let typed = codes[0].to_uppercase().replace('-', " ");
        assert_eq!(recovery_hash(&typed), recovery_hash(&codes[0]));
    }

    #[test]
    fn the_issuer_is_the_host_of_the_public_url() {
        let mut config = Config::of(Path::new("data"));
        for (url, expected) in [
            ("", "Roster"),
            ("https://id.example.org", "id.example.org"),
            ("https://id.example.org:8443/x", "id.example.org"),
            ("http://[::1]:8480", "Roster"),
        ] {
            config.public_url = url.into();
            assert_eq!(issuer(&config), expected, "{url}");
        }
    }
}
