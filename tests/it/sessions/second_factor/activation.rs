//! Activation and removal of the second factor.

use serde_json::{Value, json};

use super::{Authenticator, answer, challenge, enrolled, require, sign_in};
use crate::harness::callers::As;
use crate::harness::site::{PASSWORD, Site};

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
    let sessions = site.bearer(&tokens.access_token()).get("/me/sessions").await.data();
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
    assert_eq!(site.count("second_factors"), 0);
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

// ── removal ──

#[tokio::test]
async fn a_member_removes_it_with_a_code_unless_an_organization_requires_it() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let mut app = enrolled(&member).await;
    let remove = async |code: String| member.caller().post("/me/second-factor/remove", json!({"code": code})).await;
    let waiting = challenge(&site, &member.username).await;
    let other = answer(&site, &waiting, &app.code()).await.access_token();

    require(&site, &acme.id, true).await;
    let kept = remove(app.recovery_codes[0].clone()).await;
    require(&site, &acme.id, false).await;
    let wrong = remove(app.wrong()).await;
    remove(app.recovery_codes[0].clone()).await.done();

    assert_eq!(kept.is(28_309_000).word(), "second_factor_kept");
    assert_eq!(wrong.word(), "invalid_code");
    assert_eq!((site.count("second_factors"), site.count("recovery_codes")), (0, 0));
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
    assert_eq!(site.count("second_factors"), 2);
}

#[tokio::test]
async fn erasing_a_member_erases_its_factor() {
    let site = Site::start().await;
    let member = site.member().await;
    enrolled(&member).await;
    challenge(&site, &member.username).await;

    site.admin().delete(&format!("/admin/members/{}", member.uid)).await.done();

    for table in ["second_factors", "recovery_codes", "one_time_tokens"] {
        assert_eq!(site.count(table), 0, "{table}");
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
