//! Devices that are remembered after a second factor.

use serde_json::{Value, json};

use super::{Authenticator, challenge, challenge_of, enrolled, require, sign_in};
use crate::harness::callers::Reply;
use crate::harness::organizations::Member;
use crate::harness::site::{PASSWORD, Site};

/// The cookie that a response sets for the device, as a browser sends it; and its attributes.
fn device_cookie(reply: &Reply) -> Option<(String, String)> {
    let lines = reply.headers.get_all("set-cookie").iter().map(|line| line.to_str().expect("text"));
    let line = lines.into_iter().find(|line| line.starts_with("trusted="))?;
    line.split_once(';').map(|(pair, rest)| (pair.to_owned(), rest.trim().to_owned()))
}

async fn answer(site: &Site, waiting: &str, code: &str) -> Reply {
    let body = json!({"challenge": waiting, "code": code, "remember": true});
    site.nobody().post("/auth/second-factor", body).await
}

/// Signs in with a code and returns the cookie of the remembered device.
async fn remembered(member: &Member<'_>, app: &mut Authenticator) -> String {
    let waiting = challenge(member.site, &member.username).await;
    let reply = answer(member.site, &waiting, &app.code()).await;
    reply.done();
    device_cookie(&reply).expect("a cookie").0
}

async fn sign_in_with(site: &Site, username: &str, cookie: &str) -> Reply {
    let body = json!({"login": username, "password": PASSWORD});
    site.nobody().with("cookie", cookie).post("/auth/login", body).await
}

async fn devices(member: &Member<'_>, token: &str) -> Vec<Value> {
    let list = member.site.bearer(token).get("/me/trusted-devices").await.data();
    list["items"].as_array().expect("items").clone()
}

/// Stores devices directly, because an authenticator has few valid codes at a time.
fn store_devices(site: &Site, member: &Member<'_>, count: u32) {
    let id = member.uid.replace('-', "");
    site.write_rows(|rows| {
        rows.execute_batch(&format!(
            "with n (n) as (values (1) union all select n + 1 from n where n < {count})
             insert into trusted_devices (id, member_id, hash, agent, created_at, last_used_at, expires_at)
             select unhex(printf('000000000000700080000000%08x', n)), x'{id}', zeroblob(32), 'device ' || n,
                    n, n, 9999999999999 from n;"
        ))
    });
}

#[tokio::test]
async fn a_remembered_device_spares_the_second_factor_only() {
    let site = Site::start().await;
    let (member, other) = (site.member().await, site.member().await);
    let mut app = enrolled(&member).await;
    enrolled(&other).await;
    let waiting = challenge(&site, &member.username).await;
    let reply = answer(&site, &waiting, &app.code()).await;
    let (cookie, rest) = device_cookie(&reply).expect("a cookie");
    assert_eq!(rest, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");

    let again = sign_in_with(&site, &member.username, &cookie).await;
    let token = again.access_token();
    let session = site.bearer(&token).get("/me/sessions").await.data()["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["is_current"] == true)
        .cloned()
        .expect("the current one");
    assert_eq!(session["second_factor"], true);
    assert!(device_cookie(&again).is_none());
    let all = devices(&member, &token).await;
    let [device] = &all[..] else { panic!("one device") };
    let id = cookie.trim_start_matches("trusted=").split('.').next().expect("an id");
    assert_eq!(device["id"], id);
    assert!(device["last_used_at"].as_i64() >= device["created_at"].as_i64());
    let entry = site.admin().get("/admin/audit?action=session.create&limit=1").await.data()["items"][0].clone();
    assert_eq!(entry["after"]["trusted_device"], id);

    let body = json!({"login": member.username, "password": "Wrong-horse-7"});
    let wrong = site.nobody().with("cookie", &cookie).post("/auth/login", body).await;
    assert_eq!(wrong.word(), "invalid_login");
    assert_eq!(sign_in_with(&site, &other.username, &cookie).await.word(), "second_factor_required");
    let (altered, no_id) = (format!("{cookie}x"), format!("trusted=.{}", &cookie[45..]));
    for bad in [&*altered, &no_id, "trusted=", "trusted=x.y", "trust=1"] {
        assert_eq!(sign_in_with(&site, &member.username, bad).await.word(), "second_factor_required", "{bad}");
    }
    let cross = site.nobody().with("cookie", &cookie).with("sec-fetch-site", "cross-site");
    let cross = cross.post("/auth/login", json!({"login": member.username, "password": PASSWORD})).await;
    assert_eq!(cross.word(), "second_factor_required");
}

#[tokio::test]
async fn only_a_code_with_remember_sets_the_cookie() {
    let site = Site::start().await;
    let member = site.member().await;
    let mut app = enrolled(&member).await;
    let (one, two) = (challenge(&site, &member.username).await, challenge(&site, &member.username).await);

    let plain = super::answer(&site, &one, &app.code()).await;
    plain.done();
    let recovery = answer(&site, &two, &app.recovery_codes[0]).await;
    recovery.done();
    let three = challenge(&site, &member.username).await;
    let wrong = answer(&site, &three, &app.wrong()).await;
    let cross = site.nobody().with("sec-fetch-site", "cross-site");
    let body = json!({"challenge": three, "code": app.recovery_codes[1], "remember": true});
    let cross = cross.post("/auth/second-factor", body).await;

    assert_eq!(cross.word(), "cross_site");
    for reply in [&plain, &recovery, &wrong, &cross] {
        assert_eq!(device_cookie(reply), None);
    }
    assert_eq!(site.count("trusted_devices"), 0);
}

#[tokio::test]
async fn a_site_that_remembers_nothing_sets_no_cookie_and_honours_none() {
    let mut site = Site::start().await;
    let username;
    let cookie = {
        let member = site.member().await;
        username = member.username.clone();
        let mut app = enrolled(&member).await;
        remembered(&member, &mut app).await
    };
    sign_in_with(&site, &username, &cookie).await.done();
    site.between_runs(|data| {
        let file = data.join("roster.toml");
        let settings = std::fs::read_to_string(&file).expect("settings");
        std::fs::write(&file, format!("signin.remember_s = 0\n{settings}")).expect("settings");
    });
    assert_eq!(sign_in_with(&site, &username, &cookie).await.word(), "second_factor_required");
}

#[tokio::test]
async fn a_device_expires() {
    let mut site = Site::start().await;
    let (username, cookie) = {
        let member = site.member().await;
        let mut app = enrolled(&member).await;
        (member.username.clone(), remembered(&member, &mut app).await)
    };
    sign_in_with(&site, &username, &cookie).await.done();
    site.while_stopped("update trusted_devices set expires_at = created_at", []);
    assert_eq!(sign_in_with(&site, &username, &cookie).await.word(), "second_factor_required");
}

#[tokio::test]
async fn an_organization_that_requires_a_second_factor_accepts_a_remembered_device() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    require(&site, &acme.id, true).await;
    let waiting = challenge_of(&sign_in(&site, &member.username).await);
    let secret = site.nobody().post("/auth/second-factor/enrol", json!({"challenge": waiting})).await.data();
    let mut app = Authenticator::of(&secret);
    let first = answer(&site, &waiting, &app.code()).await;
    assert!(first.data()["recovery_codes"].is_array());
    let cookie = device_cookie(&first).expect("the first code of a factor is a code").0;

    let token = sign_in_with(&site, &member.username, &cookie).await.access_token();
    site.bearer(&token).get("/me").await.done();
}

#[tokio::test]
async fn devices_are_forgotten_when_credentials_change_or_all_sessions_end() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    for (n, what) in ["password", "reset by an administrator", "factor", "own sessions", "all sessions", "suspended"]
        .into_iter()
        .enumerate()
    {
        let member = acme.member().await;
        let mut app = enrolled(&member).await;
        let waiting = challenge(&site, &member.username).await;
        let signed_in = answer(&site, &waiting, &app.code()).await;
        let (cookie, token) = (device_cookie(&signed_in).expect("a cookie").0, signed_in.access_token());
        assert_eq!(site.count("trusted_devices"), 1, "{what}");
        let own = site.bearer(&token);
        let path = format!("/admin/members/{}", member.uid);
        let mut password = PASSWORD;
        match n {
            0 => {
                password = "Another-horse-8";
                let body = json!({"old_password": PASSWORD, "new_password": password});
                own.post("/me/password", body).await.done();
            }
            1 => site.admin().patch(&path, json!({"password": PASSWORD})).await.done(),
            2 => site.admin().delete(&format!("{path}/second-factor")).await.done(),
            3 => own.delete("/me/sessions?keep_current=true").await.done(),
            4 => acme.owner().delete(&format!("{path}/sessions")).await.done(),
            _ => {
                acme.owner().post(&format!("{path}/deactivate"), json!({})).await.done();
                acme.owner().post(&format!("{path}/activate"), json!({})).await.done();
            }
        }
        assert_eq!(site.count("trusted_devices"), 0, "{what}");
        let body = json!({"login": member.username, "password": password});
        let reply = site.nobody().with("cookie", &cookie).post("/auth/login", body).await;
        if n == 2 {
            reply.done();
        } else {
            assert_eq!(reply.word(), "second_factor_required", "{what}");
        }
    }
}

#[tokio::test]
async fn a_member_lists_and_forgets_its_own_devices() {
    let site = Site::start().await;
    let (member, other) = (site.member().await, site.member().await);
    let mut app = enrolled(&member).await;
    let cookie = remembered(&member, &mut app).await;
    let all = devices(&member, &member.token).await;
    let [device] = &all[..] else { panic!("one device") };
    let path = format!("/me/trusted-devices/{}", device["id"].as_str().expect("an id"));

    assert!(devices(&other, &other.token).await.is_empty());
    assert_eq!(other.caller().delete(&path).await.is(28_301_000).word(), "session_not_found");
    sign_in_with(&site, &member.username, &cookie).await.done();
    member.caller().delete(&path).await.done();
    assert_eq!(site.last_audit_entry().await["action"], "session.forget_device");
    assert_eq!(member.caller().delete(&path).await.word(), "session_not_found");
    assert_eq!(sign_in_with(&site, &member.username, &cookie).await.word(), "second_factor_required");
    member.caller().get("/me").await.done();
}

#[tokio::test]
async fn ten_devices_are_remembered_and_the_eleventh_replaces_the_oldest() {
    let site = Site::start().await;
    let (member, other) = (site.member().await, site.member().await);
    let mut app = enrolled(&member).await;
    let names = async || -> Vec<String> {
        let all = devices(&member, &member.token).await;
        all.iter().skip(1).map(|device| device["device"].as_str().expect("a name").to_owned()).collect()
    };
    store_devices(&site, &member, 9);
    remembered(&member, &mut app).await;
    assert_eq!(site.count("trusted_devices"), 10);
    assert_eq!(names().await.last().map(String::as_str), Some("device 1"));
    let cookie = remembered(&member, &mut app).await;
    assert_eq!(site.count("trusted_devices"), 10);
    assert_eq!(names().await.last().map(String::as_str), Some("device 2"));
    sign_in_with(&site, &member.username, &cookie).await.done();
    assert!(devices(&other, &other.token).await.is_empty());
}
