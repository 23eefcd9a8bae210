//! Throttling of sign-ins with wrong passwords.

use serde_json::json;

use super::{OTHER, link_for, login};
use crate::harness::site::{ADMIN, PASSWORD, Site};
use crate::harness::waiting::eventually;

#[tokio::test]
async fn ten_wrong_passwords_throttle_a_login_whether_it_exists_or_not() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut answers = Vec::new();

    for name in [member.username.as_str(), "nobody@example.org"] {
        for _ in 0..10 {
            assert_eq!(login(&site.nobody(), name, OTHER).await.is(28_501_000).word(), "invalid_login");
        }
        // The right password is refused too; otherwise the response would reveal it.
        let refused = login(&site.nobody(), name, PASSWORD).await;
        assert_eq!(refused.is(28_604_000).word(), "too_many_failures");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((880..=900).contains(&wait), "{wait}");
        answers.push(refused.lasting());
    }
    assert_eq!(answers[0], answers[1]);
    member.caller().get("/me").await.done();
}

#[tokio::test]
async fn below_a_public_path_the_link_and_its_form_use_this_path() {
    let site = Site::with("public_url = \"https://home.example.org/id\"").await;
    let link = link_for(&site.admin(), &site.member().await.uid).await;
    let token = link["token"].as_str().expect("a token");

    let page = site.visitor().get(&format!("/reset?token={token}")).await;

    assert_eq!(link["url"], format!("https://home.example.org/id/reset?token={token}"));
    assert!(page.form("/id/reset").is_some());
}

#[tokio::test]
async fn all_names_of_an_account_share_one_throttle() {
    let site = Site::start().await;
    let body = json!({"username": "kim", "email": "kim@example.org", "password": PASSWORD});
    site.admin().post("/admin/members", body).await.done();

    for name in ["kim", "kim@example.org", "KIM", "Kim@Example.org", " kim "].into_iter().cycle().take(10) {
        assert_eq!(login(&site.nobody(), name, OTHER).await.is(28_501_000).word(), "invalid_login", "{name}");
    }

    for name in ["kim", "kim@example.org"] {
        assert_eq!(login(&site.nobody(), name, PASSWORD).await.is(28_604_000).word(), "too_many_failures", "{name}");
    }
}

#[tokio::test]
async fn an_access_token_alone_cannot_reset_its_own_password() {
    let site = Site::start().await;
    let own = site.admin().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();

    let set = site.admin().patch(&format!("/admin/members/{own}"), json!({"password": "Stolen-parrot-4"})).await;
    let link = site.admin().post(&format!("/admin/members/{own}/password-link"), json!({})).await;

    assert_eq!((set.is(29_505_000).word(), link.is(29_505_000).word()), ("forbidden", "forbidden"));
    login(&site.nobody(), ADMIN, PASSWORD).await.done();
}

#[tokio::test]
async fn a_sign_in_with_the_former_password_gets_no_lasting_session() {
    // Slow hashes, so that the change happens during the sign-ins.
    let site = Site::start().await;
    let member = site.member().await;
    for round in 0..5 {
        let (old, new) = (format!("Racing-parrot-{round}"), format!("Winning-parrot-{round}"));
        let path = format!("/admin/members/{}", member.uid);
        site.admin().patch(&path, json!({"password": old})).await.done();
        let logins = (0..6).map(|_| async { login(&site.nobody(), &member.username, &old).await });
        let change = async { site.admin().patch(&path, json!({"password": new})).await.done() };
        let (replies, ()) = tokio::join!(futures_util::future::join_all(logins), change);
        // A session from before the change is ended, and none is opened after it.
        for reply in replies.iter().filter(|reply| reply.status == 200) {
            let token = reply.data()["access_token"].as_str().expect("a token").to_owned();
            assert_eq!(site.bearer(&token).get("/me").await.word(), "invalid_bearer_token", "round {round}");
        }
    }
}

#[tokio::test]
async fn fifty_wrong_passwords_throttle_an_address_for_all_accounts() {
    let site = Site::start().await;

    for n in 0..50 {
        let reply = login(&site.nobody(), &format!("nobody{n}"), OTHER).await;
        assert_eq!(reply.is(28_501_000).word(), "invalid_login", "{n}");
    }

    assert_eq!(login(&site.nobody(), ADMIN, PASSWORD).await.is(28_604_000).word(), "too_many_failures");
}

#[tokio::test]
async fn a_member_signs_in_from_another_address_while_somebody_guesses() {
    let site = Site::with("trusted_proxies = [\"127.0.0.1/32\"]").await;
    let member = site.member().await;
    let from = |address: &str| site.nobody().with("x-forwarded-for", address);
    for _ in 0..10 {
        login(&from("203.0.113.7"), &member.username, OTHER).await.is(28_501_000);
    }

    login(&from("203.0.113.7"), &member.username, PASSWORD).await.is(28_604_000);

    // An unknown address has a few attempts; the address of the member's session has all of them.
    login(&from("198.51.100.1"), &member.username, PASSWORD).await.done();
    for _ in 0..3 {
        login(&from("198.51.100.2"), &member.username, OTHER).await.is(28_501_000);
    }
    login(&from("198.51.100.2"), &member.username, PASSWORD).await.is(28_604_000);
    for _ in 0..5 {
        login(&from("198.51.100.1"), &member.username, OTHER).await.is(28_501_000);
    }
    login(&from("198.51.100.1"), &member.username, PASSWORD).await.done();
}

#[tokio::test]
async fn a_throttled_caller_may_try_again_after_the_wait() {
    let site = Site::with("auth.slow_window_s = 1\nauth.slow_account_failures = 1").await;
    let member = site.member().await;
    let mut slowed = 0;

    for _ in 0..3 {
        login(&site.nobody(), &member.username, OTHER).await;
        let refused = login(&site.nobody(), &member.username, PASSWORD).await;
        slowed += u32::from(refused.status == 429);
        eventually("the wait ends", async || login(&site.nobody(), &member.username, PASSWORD).await.status == 200)
            .await;
    }

    assert!(slowed > 0);
}
