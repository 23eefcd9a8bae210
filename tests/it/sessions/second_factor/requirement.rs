//! Organizations that require a second factor, and attempts to bypass it.

use reqwest::Method;
use serde_json::json;

use super::{Authenticator, answer, challenge, challenge_of, enrolled, require, sign_in};
use crate::harness::site::{PASSWORD, Site};

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
    let state = site.bearer(&done.access_token()).get("/me/second-factor").await.data();
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
    let token = answer(&site, &waiting, &Authenticator::of(&begun).code()).await.access_token();

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
    let token = answer(&site, &for_kim, &of_kim.code()).await.access_token();
    assert_eq!(site.bearer(&token).get("/me").await.data()["uid"], json!(kim.uid));
    assert_eq!(site.count("recovery_codes"), 20);
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
