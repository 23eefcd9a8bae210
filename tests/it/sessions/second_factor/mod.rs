//! The second factor.

mod activation;
mod codes;
mod remembered_devices;
mod requirement;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

use crate::harness::callers::Reply;
use crate::harness::organizations::Member;
use crate::harness::site::{PASSWORD, Site};

const STEP_S: u64 = 30;

/// An authenticator app.
pub struct Authenticator {
    pub totp: Totp,
    /// The time step of the last used code.
    pub used: u64,
    pub recovery_codes: Vec<String>,
}

impl Authenticator {
    pub fn of(answer: &Value) -> Self {
        let secret = Secret::try_from_base32(answer["secret"].as_str().expect("a secret")).expect("base32");
        let totp = Builder::new().with_secret(secret).build().expect("a secret");
        Self { totp, used: 0, recovery_codes: Vec::new() }
    }

    pub fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
    }

    pub fn at(&self, step: u64) -> String {
        self.totp.generate(step * STEP_S).to_string()
    }

    /// The earliest code that is still valid. Three codes are valid at any time, so a test seldom waits for one.
    pub fn code(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(2 * STEP_S);
        loop {
            let (step, left) = (Self::now() / STEP_S, STEP_S - Self::now() % STEP_S);
            let first = if left > 3 { step - 1 } else { step };
            let next = first.max(self.used + 1);
            if next <= step + 1 {
                self.used = next;
                return self.at(next);
            }
            assert!(Instant::now() < deadline, "no code");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A code that is not valid now or soon.
    pub fn wrong(&self) -> String {
        let near: Vec<String> = (0..6).map(|n| self.at(Self::now() / STEP_S + n - 2)).collect();
        (0..).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).expect("a code")
    }

    pub fn keep(mut self, answer: &Value) -> Self {
        let codes = answer["recovery_codes"].as_array().expect("recovery codes");
        self.recovery_codes = codes.iter().map(|code| code.as_str().expect("text").to_owned()).collect();
        self
    }
}

/// Confirms a second factor for a member. The session continues with a new access token.
pub async fn enrolled(member: &Member<'_>) -> Authenticator {
    let begun = member.caller().post("/me/second-factor", json!({"password": PASSWORD})).await.data();
    let mut app = Authenticator::of(&begun);
    let code = app.code();
    let confirmed = member.caller().post("/me/second-factor/confirm", json!({"code": code})).await.data();
    app.keep(&confirmed)
}

pub async fn sign_in(site: &Site, username: &str) -> Reply {
    site.nobody().post("/auth/login", json!({"login": username, "password": PASSWORD})).await
}

/// The challenge in the response to a sign-in.
pub async fn challenge(site: &Site, username: &str) -> String {
    let reply = sign_in(site, username).await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_required");
    challenge_of(&reply)
}

pub fn challenge_of(reply: &Reply) -> String {
    reply.body["challenge"].as_str().unwrap_or_else(|| panic!("no challenge: {reply:?}")).to_owned()
}

pub async fn answer(site: &Site, challenge: &str, code: &str) -> Reply {
    site.nobody().post("/auth/second-factor", json!({"challenge": challenge, "code": code})).await
}

/// The error code of a response; empty for a success.
fn word(reply: &Reply) -> &str {
    reply.body["detail"].as_str().unwrap_or_default()
}

pub async fn require(site: &Site, organization: &str, required: bool) {
    let path = format!("/admin/organizations/{organization}");
    site.admin().patch(&path, json!({"second_factor_required": required})).await.done();
}
