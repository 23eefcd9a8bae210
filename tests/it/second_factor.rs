//! The second factor: a code is valid once, and no way of signing in bypasses it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

use crate::site::{As, Member, PASSWORD, Reply, Site};

const STEP_S: u64 = 30;

/// An authenticator app.
pub struct Authenticator {
    totp: Totp,
    /// The time step of the last used code.
    used: u64,
    pub recovery_codes: Vec<String>,
}

impl Authenticator {
    pub fn of(answer: &Value) -> Self {
        let secret = Secret::try_from_base32(answer["secret"].as_str().expect("a secret")).expect("base32");
        let totp = Builder::new().with_secret(secret).build().expect("a secret");
        Self { totp, used: 0, recovery_codes: Vec::new() }
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
    }

    fn at(&self, step: u64) -> String {
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
    fn wrong(&self) -> String {
        let near: Vec<String> = (0..6).map(|n| self.at(Self::now() / STEP_S + n - 2)).collect();
        (0..).map(|n| format!("{n:06}")).find(|code| !near.contains(code)).expect("a code")
    }

    fn keep(mut self, answer: &Value) -> Self {
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

async fn sign_in(site: &Site, username: &str) -> Reply {
    site.nobody().post("/auth/login", json!({"login": username, "password": PASSWORD})).await
}

/// The challenge in the response to a sign-in.
pub async fn challenge(site: &Site, username: &str) -> String {
    let reply = sign_in(site, username).await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_required");
    challenge_of(&reply)
}

fn challenge_of(reply: &Reply) -> String {
    reply.body["challenge"].as_str().unwrap_or_else(|| panic!("no challenge: {reply:?}")).to_owned()
}

pub async fn answer(site: &Site, challenge: &str, code: &str) -> Reply {
    site.nobody().post("/auth/second-factor", json!({"challenge": challenge, "code": code})).await
}

fn token_of(reply: &Reply) -> String {
    reply.data()["access_token"].as_str().expect("a token").to_owned()
}

/// The error code of a response; empty for a success.
fn word(reply: &Reply) -> &str {
    reply.body["detail"].as_str().unwrap_or_default()
}

async fn require(site: &Site, organization: &str, required: bool) {
    let path = format!("/admin/organizations/{organization}");
    site.admin().patch(&path, json!({"second_factor_required": required})).await.done();
}

fn count(site: &Site, table: &str) -> i64 {
    site.rows().query_row(&format!("select count(*) from {table}"), [], |row| row.get(0)).expect("a number")
}

// ── activation ──

#[tokio::test]
async fn a_member_activates_it_and_signs_in_with_it() {
    let site = Site::with("public_url = \"https://id.example.org:8443\"").await;
    let member = site.member().await;
    let me = member.caller();

    let before = me.get("/me/second-factor").await.data();
    let begun = me.post("/me/second-factor", json!({"password": PASSWORD})).await.data();
    let between = me.get("/me/second-factor").await.data();
    let unconfirmed = sign_in(&site, &member.username).await;
    let mut app = Authenticator::of(&begun);
    let wrong = me.post("/me/second-factor/confirm", json!({"code": app.wrong()})).await;
    let app = {
        let code = app.code();
        app.keep(&me.post("/me/second-factor/confirm", json!({"code": code})).await.data())
    };
    let mut app = app;
    let after = me.get("/me/second-factor").await.data();
    let waiting = challenge(&site, &member.username).await;
    let tokens = answer(&site, &waiting, &app.code()).await;

    let off = json!({"enabled": false, "confirmed_at": null, "recovery_codes_left": 0, "required": false});
    assert_eq!((&before, &between), (&off, &off));
    let url = begun["otpauth_url"].as_str().unwrap();
    let secret = begun["secret"].as_str().unwrap();
    assert_eq!(url, format!("otpauth://totp/id.example.org:{}?secret={secret}&issuer=id.example.org", member.username));
    unconfirmed.done();
    assert_eq!(wrong.is(28_501_000).word(), "invalid_code");
    assert_eq!(app.recovery_codes.len(), 10);
    assert_eq!((&after["enabled"], &after["recovery_codes_left"]), (&json!(true), &json!(10)));
    assert!(tokens.data().get("recovery_codes").is_none());
    let sessions = site.bearer(&token_of(&tokens)).get("/me/sessions").await.data();
    let current = sessions["items"].as_array().unwrap().iter().find(|s| s["is_current"] == true).unwrap().clone();
    assert_eq!((&current["method"], &current["second_factor"]), (&json!("password"), &json!(true)));
}

#[tokio::test]
async fn enrolment_requires_the_password_of_a_member_who_has_one() {
    let site = Site::with("auth.slow_account_failures = 2").await;
    let member = site.member().await;
    let begin = async |body: Value| member.caller().post("/me/second-factor", body).await;

    assert_eq!(begin(json!({})).await.is(10_101_000).fields(), ["body.password"]);
    assert_eq!(begin(json!({"password": "Wrong-horse-7"})).await.is(28_101_000).word(), "wrong_password");
    assert_eq!(begin(json!({"password": "Wrong-horse-8"})).await.is(28_101_000).word(), "wrong_password");

    assert_eq!(begin(json!({"password": PASSWORD})).await.is(28_604_000).word(), "too_many_failures");
    assert_eq!(count(&site, "second_factors"), 0);
}

#[tokio::test]
async fn activation_ends_every_other_session_and_marks_this_one() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let other = site.token(&member.username, PASSWORD).await;

    enrolled(&member).await;

    assert_eq!(site.bearer(&other).get("/me").await.is(28_501_000).word(), "invalid_bearer_token");
    require(&site, &acme.id, true).await;
    member.caller().get("/me").await.done();
}

#[tokio::test]
async fn a_new_enrolment_voids_the_former_secret() {
    let site = Site::start().await;
    let member = site.member().await;
    let begin = async || {
        Authenticator::of(&member.caller().post("/me/second-factor", json!({"password": PASSWORD})).await.data())
    };
    let (mut first, mut second) = (begin().await, begin().await);

    let void = member.caller().post("/me/second-factor/confirm", json!({"code": first.code()})).await;
    let right = member.caller().post("/me/second-factor/confirm", json!({"code": second.code()})).await;
    let again = member.caller().post("/me/second-factor", json!({"password": PASSWORD})).await;

    assert_eq!(void.word(), "invalid_code");
    right.done();
    assert_eq!(again.is(28_309_000).word(), "second_factor_on");
}

#[tokio::test]
async fn without_a_factor_there_is_nothing_to_confirm_renew_or_remove() {
    let site = Site::start().await;
    let member = site.member().await;

    for path in ["confirm", "recovery-codes", "remove"] {
        let reply = member.caller().post(&format!("/me/second-factor/{path}"), json!({"code": "123456"})).await;
        assert_eq!(reply.is(28_309_000).word(), "second_factor_off", "{path}");
    }
}

// ── codes ──

#[tokio::test]
async fn a_code_is_valid_once_and_none_before_it_is_valid_afterwards() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let (earlier, later) = (app.code(), app.code());
    let (one, two) = (challenge(&site, &member.username).await, challenge(&site, &member.username).await);

    let used = answer(&site, &one, &later).await;
    let replayed = answer(&site, &two, &later).await;
    let older = answer(&site, &two, &earlier).await;

    used.done();
    assert_eq!(replayed.is(28_501_000).word(), "invalid_code");
    assert_eq!(older.is(28_501_000).word(), "invalid_code");
}

#[tokio::test]
async fn one_of_many_parallel_uses_of_a_code_succeeds() {
    let site = Site::with("auth.slow_account_failures = 100").await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let mut challenges = Vec::new();
    for _ in 0..6 {
        challenges.push(challenge(&site, &member.username).await);
    }
    let code = app.code();

    let replies = join_all(challenges.iter().map(|challenge| answer(&site, challenge, &code))).await;

    let words: Vec<&str> = replies.iter().map(word).collect();
    assert_eq!(words.iter().filter(|word| word.is_empty()).count(), 1, "{words:?}");
    assert_eq!(words.iter().filter(|word| **word == "invalid_code").count(), 5, "{words:?}");
}

#[tokio::test]
async fn one_of_many_parallel_uses_of_a_challenge_succeeds() {
    let site = Site::start().await;
    let member = site.member().await;
    let app = enrolled(&member).await;
    let waiting = challenge(&site, &member.username).await;

    let replies = join_all(app.recovery_codes[..4].iter().map(|code| answer(&site, &waiting, code))).await;

    let words: Vec<&str> = replies.iter().map(word).collect();
    assert_eq!(words.iter().filter(|word| word.is_empty()).count(), 1, "{words:?}");
    assert_eq!(words.iter().filter(|word| **word == "invalid_challenge").count(), 3, "{words:?}");
    assert_eq!(count(&site, "recovery_codes"), 9);
}

#[tokio::test]
async fn a_recovery_code_is_valid_once_in_any_spelling() {
    let site = Site::start().await;
    let member = site.member().await;
    let app = enrolled(&member).await;
    let code = app.recovery_codes[0].clone();
    let (one, two) = (challenge(&site, &member.username).await, challenge(&site, &member.username).await);

    let token = token_of(&answer(&site, &one, &code.to_uppercase().replace('-', " ")).await);
    let again = answer(&site, &two, &code).await;

    assert_eq!(again.word(), "invalid_code");
    assert_eq!(site.bearer(&token).get("/me/second-factor").await.data()["recovery_codes_left"], 9);
    let audit = site.admin().get("/admin/audit?limit=50").await.data();
    let used =
        audit["items"].as_array().unwrap().iter().find(|row| row["action"] == "second_factor.use").unwrap().clone();
    assert_eq!(used["after"], json!({"used": "recovery_code"}));
    assert!(!audit.to_string().contains(&code));
}

#[tokio::test]
async fn new_recovery_codes_void_the_former_ones() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let renew =
        async |code: &str| member.caller().post("/me/second-factor/recovery-codes", json!({"code": code})).await;

    let wrong = renew(&app.wrong()).await;
    let fresh = renew(&app.code()).await.data();

    assert_eq!(wrong.word(), "invalid_code");
    let waiting = challenge(&site, &member.username).await;
    assert_eq!(answer(&site, &waiting, &app.recovery_codes[0]).await.word(), "invalid_code");
    answer(&site, &waiting, fresh["recovery_codes"][0].as_str().unwrap()).await.done();
}

// ── guessing ──

#[tokio::test]
async fn wrong_codes_of_a_sign_in_hold_at_their_limit_and_not_one_past_it() {
    let site = Site::with("auth.second_factor_tries = 2").await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;

    let below = challenge(&site, &member.username).await;
    assert_eq!(answer(&site, &below, &app.wrong()).await.word(), "invalid_code");
    answer(&site, &below, &app.code()).await.done();

    let at = challenge(&site, &member.username).await;
    for _ in 0..2 {
        assert_eq!(answer(&site, &at, &app.wrong()).await.word(), "invalid_code");
    }
    assert_eq!(answer(&site, &at, &app.recovery_codes[0]).await.is(28_501_000).word(), "invalid_challenge");
    assert_eq!(count(&site, "recovery_codes"), 10);
}

#[tokio::test]
async fn new_sign_ins_give_no_additional_attempts() {
    let site = Site::with("auth.slow_account_failures = 3").await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;

    for _ in 0..3 {
        let waiting = challenge(&site, &member.username).await;
        assert_eq!(answer(&site, &waiting, &app.wrong()).await.word(), "invalid_code");
    }
    let waiting = challenge(&site, &member.username).await;
    let reply = answer(&site, &waiting, &app.code()).await;
    let own = member.caller().post("/me/second-factor/remove", json!({"code": app.wrong()})).await;

    assert_eq!(reply.is(28_604_000).word(), "too_many_failures");
    assert!(reply.header("retry-after").is_some());
    assert_eq!(own.is(28_604_000).word(), "too_many_failures");
}

#[tokio::test]
async fn a_challenge_expires() {
    let site = Site::with("auth.second_factor_wait_s = 1").await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let waiting = challenge(&site, &member.username).await;

    // An enrolment request reveals whether the challenge is still valid, and counts as no attempt.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let reply = site.nobody().post("/auth/second-factor/enrol", json!({"challenge": waiting})).await;
        if reply.word() == "invalid_challenge" {
            break;
        }
        assert_eq!(reply.word(), "second_factor_on");
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    assert_eq!(answer(&site, &waiting, &app.code()).await.word(), "invalid_challenge");
}

#[tokio::test]
async fn invalid_input_is_refused_and_changes_nothing() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let waiting = challenge(&site, &member.username).await;

    for bad in ["", "x", "ch_", &waiting[1..], &waiting.to_uppercase()] {
        let reply = answer(&site, bad, "123456").await;
        assert!(["invalid_challenge", "bad_input"].contains(&reply.word()), "{bad}");
    }
    let both = site.nobody().post("/auth/second-factor", json!({"challenge": 7, "code": "12345"})).await;
    assert_eq!(both.is(10_101_000).fields(), ["body.challenge", "body.code"]);
    for bad in ["１２３４５６", "------", "      ", "1e5000", &"9".repeat(64)] {
        assert_eq!(answer(&site, &waiting, bad).await.word(), "invalid_code", "{bad}");
        if bad == "      " {
            // Five wrong codes would end the challenge.
            break;
        }
    }
    let long = answer(&site, &waiting, &"9".repeat(65)).await;
    assert_eq!(long.is(10_101_000).fields(), ["body.code"]);
    let spaced = app.code();
    answer(&site, &waiting, &format!("{} {}", &spaced[..3], &spaced[3..])).await.done();
}

// ── an organization requires one ──

#[tokio::test]
async fn a_requirement_of_an_organization_ends_sessions_without_a_second_factor() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member_with_role("tenant_admin").await;
    let stranger = site.member().await;
    let body = json!({"login": member.username, "password": PASSWORD, "cookies": true});
    let signed_in = site.nobody().post("/auth/login", body).await;
    let tokens = signed_in.data();
    let cookies: Vec<String> = signed_in
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().unwrap().split(';').next().unwrap().to_owned())
        .collect();
    let client = site.client(&["members:read"]).await.with("x-tenant-id", "acme");

    require(&site, &acme.id, true).await;

    let by_cookie = site.nobody().with("cookie", &cookies.join("; "));
    for refused in [
        member.caller().get("/me").await,
        member.caller().get("/admin/members").await,
        member.caller().get("/me/second-factor").await,
        by_cookie.get("/me").await,
        by_cookie.send(Method::POST, "/auth/refresh", None).await,
        site.nobody()
            .post(
                "/auth/refresh",
                json!({"refresh_token": tokens["refresh_token"], "session_id": tokens["session_id"]}),
            )
            .await,
    ] {
        assert_eq!((refused.status, refused.word()), (401, "second_factor_required"), "{refused:?}");
    }
    assert_eq!(sign_in(&site, &member.username).await.word(), "second_factor_enrolment_required");
    stranger.caller().get("/me").await.done();
    client.get("/admin/members").await.done();
    require(&site, &acme.id, false).await;
    member.caller().get("/me").await.done();
}

#[tokio::test]
async fn a_member_who_needs_one_enrols_during_the_sign_in() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    require(&site, &acme.id, true).await;
    let reply = sign_in(&site, &member.username).await;
    assert_eq!(reply.is(28_501_000).word(), "second_factor_enrolment_required");
    let waiting = challenge_of(&reply);
    let enrol = async || site.nobody().post("/auth/second-factor/enrol", json!({"challenge": waiting})).await;

    let early = answer(&site, &waiting, "123456").await;
    let recovery = answer(&site, &waiting, "aaaa-aaaa-aaaa-aaaa").await;
    let (mut void, mut app) = (Authenticator::of(&enrol().await.data()), Authenticator::of(&enrol().await.data()));
    let void = answer(&site, &waiting, &void.code()).await;
    let done = answer(&site, &waiting, &app.code()).await;

    for refused in [early, recovery, void] {
        assert_eq!(refused.word(), "invalid_code");
    }
    let mut app = app.keep(&done.data());
    assert_eq!(app.recovery_codes.len(), 10);
    let state = site.bearer(&token_of(&done)).get("/me/second-factor").await.data();
    assert_eq!((&state["enabled"], &state["required"]), (&json!(true), &json!(true)));
    assert_eq!(enrol().await.word(), "invalid_challenge");
    let next = challenge(&site, &member.username).await;
    let on = site.nobody().post("/auth/second-factor/enrol", json!({"challenge": next})).await;
    assert_eq!(on.is(28_309_000).word(), "second_factor_on");
    answer(&site, &next, &app.code()).await.done();
}

#[tokio::test]
async fn an_owner_who_requires_one_without_having_one_can_sign_in_again() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.member_with_role("tenant_owner").await;
    let path = format!("/admin/organizations/{}", acme.id);

    let made = owner.caller().patch(&path, json!({"second_factor_required": true})).await.data();
    let out = owner.caller().patch(&path, json!({"second_factor_required": false})).await;
    let waiting = challenge_of(&sign_in(&site, &owner.username).await);
    let begun = site.nobody().post("/auth/second-factor/enrol", json!({"challenge": waiting})).await.data();
    let token = token_of(&answer(&site, &waiting, &Authenticator::of(&begun).code()).await);

    assert_eq!(made["second_factor_required"], true);
    assert_eq!(out.is(28_501_000).word(), "second_factor_required");
    let off = site.bearer(&token).patch(&path, json!({"second_factor_required": false})).await.data();
    assert_eq!(off["second_factor_required"], false);
}

#[tokio::test]
async fn the_requirement_applies_at_once_to_a_member_who_joins() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    require(&site, &acme.id, true).await;
    let (plain, with_factor) = (site.member().await, site.member().await);
    enrolled(&with_factor).await;

    acme.link(&plain.uid).await;
    acme.link(&with_factor.uid).await;

    assert_eq!(plain.caller().get("/me").await.word(), "second_factor_required");
    with_factor.caller().get("/me").await.done();
}

#[tokio::test]
async fn the_command_line_requires_and_removes_one() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    enrolled(&member).await;

    let on = site.command(&["org", "second-factor", "acme", "on"]);
    let reset = site.command(&["member", "reset-second-factor", &member.uid]);
    let off = site.command(&["org", "second-factor", "acme", "off"]);

    assert_eq!((&on["second_factor_required"], &off["second_factor_required"]), (&json!(true), &json!(false)));
    assert_eq!(reset, json!({"uid": member.uid, "second_factor": false}));
    assert_eq!(member.caller().get("/me").await.word(), "invalid_bearer_token");
    sign_in(&site, &member.username).await.done();
}

// ── attempts to bypass it ──

#[tokio::test]
async fn another_members_code_or_challenge_is_refused() {
    let site = Site::start().await;
    let (kim, lee) = (site.member().await, site.member().await);
    let (mut of_kim, mut of_lee) = (enrolled(&kim).await, enrolled(&lee).await);
    let (for_kim, for_lee) = (challenge(&site, &kim.username).await, challenge(&site, &lee.username).await);

    let crossed = [
        answer(&site, &for_kim, &of_lee.code()).await,
        answer(&site, &for_kim, &of_lee.recovery_codes[0]).await,
        answer(&site, &for_lee, &of_kim.code()).await,
    ];

    for reply in crossed {
        assert_eq!(reply.word(), "invalid_code");
    }
    let token = token_of(&answer(&site, &for_kim, &of_kim.code()).await);
    assert_eq!(site.bearer(&token).get("/me").await.data()["uid"], json!(kim.uid));
    assert_eq!(count(&site, "recovery_codes"), 20);
}

#[tokio::test]
async fn a_challenge_ends_with_a_suspension_and_with_a_new_password() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let path = format!("/admin/members/{}", member.uid);

    let suspended = challenge(&site, &member.username).await;
    site.admin().post(&format!("{path}/deactivate"), json!({})).await.done();
    assert_eq!(answer(&site, &suspended, &app.recovery_codes[0]).await.word(), "invalid_challenge");
    site.admin().post(&format!("{path}/activate"), json!({})).await.done();
    assert_eq!(answer(&site, &suspended, &app.recovery_codes[0]).await.word(), "invalid_challenge");

    let before = challenge(&site, &member.username).await;
    site.admin().patch(&path, json!({"password": "Another-horse-8"})).await.done();
    assert_eq!(answer(&site, &before, &app.code()).await.word(), "invalid_challenge");
    let fresh =
        site.nobody().post("/auth/login", json!({"login": member.username, "password": "Another-horse-8"})).await;
    assert_eq!(fresh.word(), "second_factor_required");
}

#[tokio::test]
async fn a_challenge_is_not_a_token_and_a_wrong_password_gets_none() {
    let site = Site::start().await;
    let member = site.member().await;
    enrolled(&member).await;
    let waiting = challenge(&site, &member.username).await;

    let as_bearer = site.bearer(&waiting).get("/me").await;
    let body = json!({"refresh_token": waiting, "session_id": member.uid});
    let as_refresh = site.nobody().post("/auth/refresh", body).await;
    let body = json!({"login": member.username, "password": "Wrong-horse-7"});
    let wrong = site.nobody().post("/auth/login", body).await;

    assert_eq!(as_bearer.word(), "invalid_bearer_token");
    assert_eq!(as_refresh.word(), "invalid_refresh_token");
    assert_eq!((wrong.word(), wrong.body.get("challenge")), ("invalid_login", None));
}

#[tokio::test]
async fn cookies_come_with_the_second_factor_and_not_before() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let body = json!({"login": member.username, "password": PASSWORD, "cookies": true});

    let first = site.nobody().post("/auth/login", body).await;
    let body = json!({"challenge": challenge_of(&first), "code": app.code(), "cookies": true});
    let elsewhere =
        site.nobody().with("origin", "https://evil.example").post("/auth/second-factor", body.clone()).await;
    let second = site.nobody().post("/auth/second-factor", body).await;

    assert!(first.headers.get("set-cookie").is_none());
    assert_eq!((elsewhere.is(28_505_000).word(), elsewhere.headers.get("set-cookie")), ("cross_site", None));
    second.done();
    assert_eq!(second.headers.get_all("set-cookie").iter().count(), 3);
}

// ── removal ──

#[tokio::test]
async fn a_member_removes_it_with_a_code_unless_an_organization_requires_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let mut app = enrolled(&member).await;
    let remove = async |code: String| member.caller().post("/me/second-factor/remove", json!({"code": code})).await;
    let waiting = challenge(&site, &member.username).await;
    let other = token_of(&answer(&site, &waiting, &app.code()).await);

    require(&site, &acme.id, true).await;
    let kept = remove(app.recovery_codes[0].clone()).await;
    require(&site, &acme.id, false).await;
    let wrong = remove(app.wrong()).await;
    remove(app.recovery_codes[0].clone()).await.done();

    assert_eq!(kept.is(28_309_000).word(), "second_factor_kept");
    assert_eq!(wrong.word(), "invalid_code");
    assert_eq!((count(&site, "second_factors"), count(&site, "recovery_codes")), (0, 0));
    assert_eq!(site.bearer(&other).get("/me").await.word(), "invalid_bearer_token");
    sign_in(&site, &member.username).await.done();
    // The continued session no longer has a second factor.
    require(&site, &acme.id, true).await;
    assert_eq!(member.caller().get("/me").await.word(), "second_factor_required");
}

#[tokio::test]
async fn administrators_remove_it_from_members_they_may_change() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, admin, owner) =
        (acme.member().await, acme.member_with_role("tenant_admin").await, acme.member_with_role("tenant_owner").await);
    for member in [&member, &admin, &owner] {
        enrolled(member).await;
    }
    let manager = acme.member_with_role("member_manager").await;
    let reset = async |caller: As<'_>, uid: &str| caller.delete(&format!("/admin/members/{uid}/second-factor")).await;
    let waiting = challenge(&site, &member.username).await;

    let nobody = reset(site.nobody(), &member.uid).await;
    let foreign = reset(bolt.owner(), &member.uid).await;
    let without = reset(manager.caller(), &member.uid).await;
    let above = reset(admin.caller(), &owner.uid).await;
    let own = reset(admin.caller(), &admin.uid).await;
    let none = reset(site.admin(), &manager.uid).await;
    reset(admin.caller(), &member.uid).await.done();

    assert_eq!(nobody.is(28_501_000).word(), "missing_bearer_token");
    assert_eq!(foreign.is(29_301_000).word(), "member_not_found");
    assert_eq!(without.is(29_505_000).word(), "forbidden");
    assert_eq!(above.is(29_505_000).word(), "not_held");
    assert_eq!(own.is(29_505_000).word(), "forbidden");
    assert_eq!(none.is(28_309_000).word(), "second_factor_off");
    assert_eq!(member.caller().get("/me").await.word(), "invalid_bearer_token");
    assert_eq!(answer(&site, &waiting, "123456").await.word(), "invalid_challenge");
    sign_in(&site, &member.username).await.done();
    assert_eq!(count(&site, "second_factors"), 2);
}

#[tokio::test]
async fn erasing_a_member_erases_its_factor() {
    let site = Site::start().await;
    let member = site.member().await;
    enrolled(&member).await;
    challenge(&site, &member.username).await;

    site.admin().delete(&format!("/admin/members/{}", member.uid)).await.done();

    for table in ["second_factors", "recovery_codes", "one_time_tokens"] {
        assert_eq!(count(&site, table), 0, "{table}");
    }
}

#[tokio::test]
async fn no_secret_of_it_reaches_the_log_or_the_audit() {
    let site = Site::with("log.level = \"trace\"\ndebug = true").await;
    let member = site.member().await;
    let begun = member.caller().post("/me/second-factor", json!({"password": PASSWORD})).await.data();
    let mut app = Authenticator::of(&begun);
    let code = app.code();
    let app = app.keep(&member.caller().post("/me/second-factor/confirm", json!({"code": code})).await.data());
    let waiting = challenge(&site, &member.username).await;
    answer(&site, &waiting, &app.recovery_codes[0]).await.done();

    let audit = site.admin().get("/admin/audit?limit=100").await.data().to_string();
    let log = site.log();

    for secret in [begun["secret"].as_str().unwrap(), &app.recovery_codes[0], &app.recovery_codes[9], &waiting] {
        assert!(!audit.contains(secret) && !log.contains(secret), "{secret}");
    }
}
