//! Codes of the second factor: each is valid once, and guessing is limited.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use super::{answer, challenge, enrolled, word};
use crate::harness::site::Site;

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
    assert_eq!(site.count("recovery_codes"), 9);
}

#[tokio::test]
async fn a_recovery_code_is_valid_once_in_any_spelling() {
    let site = Site::start().await;
    let member = site.member().await;
    let app = enrolled(&member).await;
    let code = app.recovery_codes[0].clone();
    let (one, two) = (challenge(&site, &member.username).await, challenge(&site, &member.username).await);

    let token = answer(&site, &one, &code.to_uppercase().replace('-', " ")).await.access_token();
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
    assert_eq!(site.count("recovery_codes"), 10);
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
