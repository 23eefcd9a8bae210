//! The second factor: one-time codes of an authenticator app, and recovery codes. The only user of totp-rs.
//!
//! **Invariant.** A code counts once: the time step of the last one is kept, and a recovery code goes when it is used,
//! both in the transaction that accepts it. Guesses are counted by sign-in, and by member over all sign-ins.

use std::sync::Arc;

use serde_json::json;
use totp_rs::{Algorithm, Builder, Secret, Totp};

use super::factor_store::{self, Factor};
use super::{FactorsShown, Tokens, open, require_signed_in, store};
use crate::features::members::{self, password};
use crate::features::sessions::end_sessions;
use crate::kernel::app::{App, Changed, Transaction, ms};
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

/// What a challenge is stored as.
const PURPOSE: &str = "second_factor";

/// Has the member a second factor that works?
pub fn is_confirmed(r: &Reader<'_>, member: MemberId) -> Result<bool> {
    store::has_second_factor(r, member)
}

/// Remembers a sign-in that waits for its second factor.
pub fn insert_challenge(
    t: &Transaction<'_>,
    challenge: &str,
    member: MemberId,
    method: &str,
    config: &Config,
) -> Result<()> {
    let data = json!({"method": method}).to_string();
    let until = t.now().plus_ms(ms(config.second_factor_wait_s));
    store::insert_token(t, &secret::hash(challenge), PURPOSE, Some(member), Some(&data), until)
}

/// What is answered instead of tokens.
pub fn due(challenge: String, is_enrolled: bool) -> Error {
    let cause = if is_enrolled { ErrorCode::SecondFactorRequired } else { ErrorCode::EnrolmentRequired };
    Error::new(cause).challenge(challenge)
}

// ── codes ──

/// Seconds for which a code is shown; one code before and one after it count too, for clocks that differ.
const STEP_S: u64 = 30;
const SECRET_BYTES: usize = 20;
const RECOVERY_CODES: usize = 10;
const RECOVERY_CODE_BYTES: usize = 10;
const CODE_DIGITS: u8 = 6;

fn authenticator(secret: &[u8]) -> Builder {
    // What every authenticator app can do; some ignore any other choice silently.
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

/// The time step whose code this is, now.
fn step_of(secret: &[u8], code: &str, now: Timestamp) -> Result<Option<i64>> {
    const MS_PER_S: u64 = 1_000;
    let step = built(authenticator(secret))?.check(code, now.0.unsigned_abs() / MS_PER_S);
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// A code as people type it: with spaces, dashes and capitals, or without.
fn folded(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace() && *c != '-').flat_map(char::to_lowercase).collect()
}

fn recovery_hash(code: &str) -> Hash {
    secret::hash(&folded(code))
}

/// New recovery codes: 80 random bits each, in groups of four letters.
fn recovery_codes() -> Result<Vec<String>> {
    let code = |_| {
        let letters = Secret::from(&secret::random()?[..RECOVERY_CODE_BYTES]).to_base32().to_lowercase();
        let letters: Vec<char> = letters.chars().collect();
        Ok(letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-"))
    };
    (0..RECOVERY_CODES).map(code).collect()
}

fn keep_recovery_codes(t: &Transaction<'_>, member: MemberId, codes: &[String]) -> Result<()> {
    let hashes: Vec<Hash> = codes.iter().map(|code| recovery_hash(code)).collect();
    factor_store::replace_recovery_codes(t, member, &hashes)
}

/// What a code turned out to be.
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

/// Uses a code up; `None` when it is none, or was used before.
fn spend(t: &Transaction<'_>, member: MemberId, factor: &Factor, code: &str) -> Result<Option<FactorProof>> {
    let code = folded(code);
    let is_of_app = code.len() == usize::from(CODE_DIGITS) && code.bytes().all(|byte| byte.is_ascii_digit());
    if is_of_app {
        let Some(step) = step_of(&factor.secret, &code, t.now())? else { return Ok(None) };
        return Ok(factor_store::use_step(t, member, step)?.then_some(FactorProof::Code));
    }
    Ok(factor_store::use_recovery_code(t, member, &recovery_hash(&code))?.then_some(FactorProof::RecoveryCode))
}

/// Confirms a factor with the first code of its app; answers whether the code was right.
fn confirm_with(t: &Transaction<'_>, member: MemberId, factor: &Factor, code: &str, fresh: &[String]) -> Result<bool> {
    let Some(step) = step_of(&factor.secret, &folded(code), t.now())? else { return Ok(false) };
    factor_store::confirm(t, member, step)?;
    keep_recovery_codes(t, member, fresh)?;
    Ok(true)
}

/// Counts the wrong codes of a member, whatever they were sent with: new sign-ins give no new guesses.
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
        self.guard.login_throttle.failed(self.attempt, now);
    }

    fn succeeded(&self) {
        self.guard.login_throttle.succeeded(self.attempt);
    }
}

// ── signing in ──

/// A sign-in that waits for its second factor.
struct Waiting {
    member: MemberId,
    method: String,
}

fn waiting(r: &Reader<'_>, hash: &Hash, tries_max: u64, now: Timestamp) -> Result<Waiting> {
    let found = store::find_token(r, hash, PURPOSE, now)?.filter(|challenge| challenge.tries < tries_max);
    let challenge = found.ok_or(ErrorCode::InvalidChallenge)?;
    let data = challenge.data.and_then(|data| serde_json::from_str::<serde_json::Value>(&data).ok());
    let method = data.and_then(|data| data["method"].as_str().map(str::to_owned));
    let (member, method) = challenge.member.zip(method).ok_or(ErrorCode::InvalidChallenge)?;
    Ok(Waiting { member, method })
}

async fn find_waiting(app: &App, hash: Hash) -> Result<Waiting> {
    let tries_max = app.config.second_factor_tries;
    app.read(move |r| waiting(r, &hash, tries_max, Timestamp::now())).await
}

/// A sign-in whose second factor was right.
struct Passed {
    method: String,
    /// When the code was the first of a new factor.
    recovery_codes: Option<Vec<String>>,
}

/// Ends a sign-in with the code of the second factor. The first code of a new factor confirms it, and gives its
/// recovery codes.
pub async fn answer(
    app: &App,
    visitor: &Visitor,
    challenge: &str,
    code: String,
) -> Result<(Tokens, Option<Vec<String>>)> {
    let hash = secret::hash(challenge);
    let member = find_waiting(app, hash).await?.member;
    let throttle = CodeThrottle::of(app, member, &visitor.context);
    let tries_max = app.config.second_factor_tries;
    let fresh = recovery_codes()?;
    let check = move |t: &Transaction<'_>, _: &Identity| {
        let Waiting { member, method } = waiting(t, &hash, tries_max, t.now())?;
        throttle.require(t.now())?;
        let factor = factor_store::find_factor(t, t.encryption(), member)?;
        let passed = match factor {
            Some(factor) if factor.confirmed_at.is_some() => spend(t, member, &factor, &code)?.map(|proof| {
                let passed = Passed { method, recovery_codes: None };
                (passed, (proof == FactorProof::RecoveryCode).then(|| json!({"used": proof.as_str()})))
            }),
            Some(factor) if confirm_with(t, member, &factor, &code, &fresh)? => {
                Some((Passed { method, recovery_codes: Some(fresh) }, Some(json!({"confirmed": true}))))
            }
            Some(_) | None => None,
        };
        let Some((passed, said)) = passed else {
            throttle.failed(t.now());
            store::count_try(t, &hash)?;
            // The try is kept: an error would take it back.
            return Ok(Changed::nothing(None));
        };
        throttle.succeeded();
        store::delete_token(t, &hash)?;
        // A session that began before there was a factor showed none.
        let changes = if passed.recovery_codes.is_some() { end_sessions(t, member, None)? } else { Vec::new() };
        Ok(match said {
            // The session that follows says that a code was shown.
            None => Changed::nothing(Some(passed)),
            Some(said) => Changed::new(Some(passed), Entry::new("member", member).after(said)).policy(changes),
        })
    };
    let caller = Identity::new(Principal::Member(member), visitor.context.clone());
    let passed = app.change(&caller, "second_factor.use", check).await?.answer.ok_or(ErrorCode::InvalidCode)?;
    let tokens = open(app, visitor, member, &passed.method, FactorsShown::BothFactors).await?;
    Ok((tokens, passed.recovery_codes))
}

/// What an authenticator app takes.
pub struct NewSecret {
    /// Base32, to be typed.
    pub secret: String,
    /// The same as an address, to be shown as a QR code.
    pub otpauth_url: String,
}

/// Begins a second factor in the middle of a sign-in, for who needs one and has none.
pub async fn enrol(app: &App, visitor: &Visitor, challenge: &str) -> Result<NewSecret> {
    let hash = secret::hash(challenge);
    let member = find_waiting(app, hash).await?.member;
    let tries_max = app.config.second_factor_tries;
    let caller = Identity::new(Principal::Member(member), visitor.context.clone());
    keep_new_secret(app, &caller, member, move |t| waiting(t, &hash, tries_max, t.now()).map(drop)).await
}

/// Keeps a new secret, which counts once a first code is right.
async fn keep_new_secret(
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
        factor_store::put_secret(t, t.encryption(), member, &bytes)?;
        Ok(Changed::nothing(for_app(&bytes, issuer, &account)?))
    };
    Ok(app.change(caller, "second_factor.begin", begin).await?.answer)
}

fn for_app(secret: &[u8], issuer: String, account: &str) -> Result<NewSecret> {
    // A colon ends the issuer's part of the label.
    let named = authenticator(secret).with_issuer(Some(issuer)).with_account_name(account.replace(':', "_"));
    let otpauth_url = built(named)?
        .to_url()
        .map_err(|e| Error::internal(format!("the address of a second factor cannot be written: {e}")))?;
    Ok(NewSecret { secret: Secret::from(secret).to_base32(), otpauth_url })
}

/// What the app shows above the code.
fn issuer(config: &Config) -> String {
    let host = config.public_url.split_once("://").and_then(|(_, rest)| rest.split(['/', ':']).next());
    let is_name = |host: &&str| !host.is_empty() && !host.starts_with('[');
    host.filter(is_name).unwrap_or("Roster").to_owned()
}

// ── the signed-in member ──

/// Where a member's second factor stands.
#[derive(Debug)]
pub struct State {
    pub confirmed_at: Option<Timestamp>,
    pub recovery_codes_left: u64,
}

pub fn state(r: &Reader<'_>, member: MemberId) -> Result<State> {
    Ok(State {
        confirmed_at: factor_store::find_confirmed(r, member)?.flatten(),
        recovery_codes_left: factor_store::count_recovery_codes(r, member)?,
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
        let password = password.ok_or_else(|| Error::field("password", "is needed: you sign in with one"))?;
        let attempt = Attempt::new(&member.to_string(), caller.context.address);
        let guard = app.guard.clone();
        let gate = move || guard.login_throttle.check(attempt, false, Timestamp::now());
        gate()?;
        if !password::verify(app, password, Some(stored), gate).await?.fits {
            app.guard.login_throttle.failed(attempt, Timestamp::now());
            return Err(ErrorCode::WrongPassword.into());
        }
        app.guard.login_throttle.succeeded(attempt);
    }
    keep_new_secret(app, caller, member, move |t| require_signed_in(t, member, session)).await
}

/// The session of a member who changes a credential.
fn session_of(caller: &Identity) -> Result<SessionId> {
    let message = "sign in here first: a provider's token changes no second factor";
    caller.session.ok_or_else(|| Error::new(ErrorCode::Forbidden).with_message(message))
}

/// Switches a second factor on with its first code; answers its recovery codes. Every other session ends.
pub async fn confirm(app: &App, caller: &Identity, member: MemberId, code: String) -> Result<Vec<String>> {
    let throttle = CodeThrottle::of(app, member, &caller.context);
    let (session, fresh) = (session_of(caller)?, recovery_codes()?);
    let confirm = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        let factor = factor_store::find_factor(t, t.encryption(), member)?.ok_or(ErrorCode::SecondFactorOff)?;
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
        Ok(Changed::new(fresh, entry).policy(changes))
    };
    Ok(app.change(caller, "second_factor.confirm", confirm).await?.answer)
}

/// Ends every session but the one that asks, and says of that one whether a second factor stands behind it.
fn keep_only(t: &Transaction<'_>, member: MemberId, kept: SessionId, shown: bool) -> Result<Vec<Change>> {
    let mut changes = end_sessions(t, member, Some(kept))?;
    factor_store::mark_session(t, kept, shown)?;
    changes.push(Change::Session(kept, Some(Session { member, second_factor: shown })));
    Ok(changes)
}

/// Fails unless the code is right, and uses it up.
fn require_code(t: &Transaction<'_>, member: MemberId, code: &str, throttle: &CodeThrottle) -> Result<FactorProof> {
    let factor = factor_store::find_factor(t, t.encryption(), member)?.filter(|factor| factor.confirmed_at.is_some());
    let factor = factor.ok_or(ErrorCode::SecondFactorOff)?;
    throttle.require(t.now())?;
    let proof = spend(t, member, &factor, code)?;
    match proof {
        Some(_) => throttle.succeeded(),
        None => throttle.failed(t.now()),
    }
    proof.ok_or_else(|| ErrorCode::InvalidCode.into())
}

/// New recovery codes in place of all former ones.
pub async fn renew_recovery_codes(app: &App, caller: &Identity, member: MemberId, code: String) -> Result<Vec<String>> {
    let throttle = CodeThrottle::of(app, member, &caller.context);
    let (session, fresh) = (session_of(caller)?, recovery_codes()?);
    let renew = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        let proof = require_code(t, member, &code, &throttle)?;
        keep_recovery_codes(t, member, &fresh)?;
        let entry = Entry::new("member", member).after(json!({"used": proof.as_str()}));
        Ok(Changed::new(fresh, entry))
    };
    Ok(app.change(caller, "second_factor.renew_recovery_codes", renew).await?.answer)
}

/// Takes one's own second factor away. Every other session ends, and the one that asks has shown none any more.
pub async fn remove(app: &App, caller: &Identity, member: MemberId, code: String) -> Result<()> {
    let throttle = CodeThrottle::of(app, member, &caller.context);
    let session = session_of(caller)?;
    let remove = move |t: &Transaction<'_>, _: &Identity| {
        require_signed_in(t, member, session)?;
        if t.snapshot().requires_second_factor(member) {
            return Err(ErrorCode::SecondFactorKept.into());
        }
        let proof = require_code(t, member, &code, &throttle)?;
        factor_store::delete_factor(t, member)?;
        let changes = keep_only(t, member, session, false)?;
        let entry = Entry::new("member", member).after(json!({"used": proof.as_str()}));
        Ok(Changed::new((), entry).policy(changes))
    };
    app.change(caller, "second_factor.remove", remove).await.map(drop)
}

/// Takes a member's second factor away, for who lost it; everything the member was signed in to ends.
pub fn reset(t: &Transaction<'_>, member: MemberId) -> Result<Vec<Change>> {
    if factor_store::find_confirmed(t, member)?.is_none() {
        return Err(ErrorCode::SecondFactorOff.into());
    }
    factor_store::delete_factor(t, member)?;
    end_sessions(t, member, None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn codes_of_one_step_before_and_after_count_and_no_others() {
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
    fn recovery_codes_are_found_however_they_are_typed() {
        let codes = recovery_codes().expect("random");
        assert_eq!((codes.len(), codes[0].len()), (RECOVERY_CODES, 19));
        assert_ne!(codes[0], codes[1]);
        let typed = codes[0].to_uppercase().replace('-', " ");
        assert_eq!(recovery_hash(&typed), recovery_hash(&codes[0]));
    }

    #[test]
    fn an_app_shows_the_host_of_the_public_address() {
        let mut config = Config::of(Path::new("data"));
        for (url, shown) in [
            ("", "Roster"),
            ("https://id.example.org", "id.example.org"),
            ("https://id.example.org:8443/x", "id.example.org"),
            ("http://[::1]:8480", "Roster"),
        ] {
            config.public_url = url.into();
            assert_eq!(issuer(&config), shown, "{url}");
        }
    }
}
