//! Invitations: a link that makes its holder a member once, with no more rights than its creator holds.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::console::{Browser, Page};
use crate::harness::site::{INTERNAL_SECRET, PASSWORD, Site};
use crate::harness::waiting::eventually;

async fn invite(caller: &As<'_>, body: Value) -> Reply {
    caller.post("/admin/invitations", body).await
}

/// The token of a new invitation.
async fn token(caller: &As<'_>, body: Value) -> String {
    invite(caller, body).await.data()["token"].as_str().expect("a token").to_owned()
}

fn newcomer(token: &str, username: &str) -> Value {
    json!({"token": token, "username": username, "password": PASSWORD})
}

async fn accept(site: &Site, body: Value) -> Reply {
    site.nobody().post("/auth/invitations/accept", body).await
}

async fn statuses(caller: &As<'_>) -> Vec<String> {
    let page = caller.get("/admin/invitations").await.data();
    let items = page["items"].as_array().expect("items").iter();
    items.map(|item| item["status"].as_str().expect("status").to_owned()).collect()
}

fn members(site: &Site) -> i64 {
    site.rows().query_row("select count(*) from members", [], |row| row.get(0)).expect("a number")
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    i64::try_from(since.as_millis()).expect("a number")
}

/// Asserts that a link is refused in the same way by the operation, for a member, and on the page.
async fn assert_link_refused(site: &Site, token: &str, why: &str) {
    let reply = accept(site, newcomer(token, "stranger")).await;
    assert_eq!(reply.is(28_501_000).word(), "invalid_link", "{why}");
    let joined = site.admin().post("/me/invitations/accept", json!({"token": token})).await;
    assert_eq!(joined.is(28_501_000).word(), "invalid_link", "{why}");
    let page = site.visitor().get(&format!("/invitation?token={token}")).await;
    assert_eq!((page.status, page.form("/invitation").is_none()), (401, true), "{why}");
}

// ── the link ──

#[tokio::test]
async fn a_link_creates_a_member_with_its_role_once() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let made = invite(&acme.owner(), json!({"role_key": "member_manager", "email": "kim@example.org"})).await.data();
    let token = made["token"].as_str().unwrap();
    let reply = accept(&site, json!({"token": token, "display_name": "Kim", "password": PASSWORD})).await.data();

    assert_eq!(made["url"], json!(format!("{}/invitation?token={token}", site.url)));
    assert_eq!((&made["organization_id"], &made["role_key"]), (&json!(acme.id), &json!("member_manager")));
    let kim = site.bearer(reply["access_token"].as_str().unwrap());
    let me = kim.get("/me").await.data();
    assert_eq!((&me["email"], &me["display_name"]), (&json!("kim@example.org"), &json!("Kim")));
    assert_eq!(me["organizations"][0]["org_code"], "acme");
    kim.get("/admin/members").await.done();
    let session = kim.get("/me/sessions").await.data()["items"][0].clone();
    assert_eq!((&session["method"], &session["second_factor"]), (&json!("invitation"), &json!(false)));
    site.token("kim@example.org", PASSWORD).await;
    let shown = acme.owner().get("/admin/invitations").await.data()["items"][0].clone();
    assert_eq!((&shown["status"], &shown["member_id"]), (&json!("accepted"), &me["uid"]));
    assert!(shown.get("token").is_none() && shown.get("url").is_none());
    assert_link_refused(&site, token, "used").await;
}

#[tokio::test]
async fn unknown_expired_withdrawn_and_used_links_are_refused_alike() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let owner = acme.owner();
    let withdrawn = invite(&owner, json!({})).await.data();
    let short = invite(&owner, json!({"expires_at": now_ms() + 3_000})).await.data();
    let (of, id) = (|made: &Value| made["token"].as_str().unwrap().to_owned(), withdrawn["id"].as_str().unwrap());

    site.nobody().get(&format!("/invitation?token={}", of(&short))).await;
    owner.delete(&format!("/admin/invitations/{id}")).await.done();

    assert_link_refused(&site, "inv_unknown", "unknown").await;
    assert_link_refused(&site, &of(&withdrawn), "withdrawn").await;
    eventually("the invitation expires", async || statuses(&owner).await != ["open"]).await;
    assert_eq!(statuses(&owner).await, ["expired"]);
    assert_link_refused(&site, &of(&short), "expired").await;
    let again = owner.delete(&format!("/admin/invitations/{id}")).await;
    assert_eq!(again.is(29_301_000).word(), "invitation_not_found");
}

#[tokio::test]
async fn invalid_input_does_not_consume_the_link() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let taken = acme.member().await.username;
    let token = token(&acme.owner(), json!({})).await;
    let before = members(&site);

    let weak = accept(&site, json!({"token": token, "username": "k!m", "email": "kim", "password": "short"})).await;
    let nameless = accept(&site, json!({"token": token, "password": PASSWORD})).await;
    let twice = accept(&site, newcomer(&token, &taken.to_uppercase())).await;

    assert_eq!(weak.is(10_101_000).fields()[..2], ["body.email", "body.password"]);
    assert_eq!(nameless.is(10_101_000).fields(), ["body.username"]);
    assert_eq!(twice.is(29_303_000).word(), "username_exists");
    assert_eq!(members(&site), before);
    accept(&site, newcomer(&token, "kim")).await.done();
}

#[tokio::test]
async fn only_one_of_many_parallel_uses_of_a_link_succeeds() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({"role_key": "member"})).await;
    let before = members(&site);

    let replies = join_all((0..6).map(|n| accept(&site, newcomer(&token, &format!("kim{n}"))))).await;

    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.word(), "invalid_link");
    }
    assert_eq!(members(&site), before + 1);
}

#[tokio::test]
async fn an_existing_member_joins_with_its_account() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let member = bolt.member_with_role("viewer").await;
    let (first, second) = (
        token(&acme.owner(), json!({"role_key": "viewer"})).await,
        token(&acme.owner(), json!({"role_key": "viewer"})).await,
    );
    let join = async |token: &str| member.caller().post("/me/invitations/accept", json!({"token": token})).await;

    let joined = join(&first).await.data();
    let again = join(&first).await;
    join(&second).await.done();

    assert_eq!(joined, json!({"organization_id": acme.id, "role_key": "viewer"}));
    assert_eq!(again.word(), "invalid_link");
    member.caller().with("x-tenant-id", "acme").get("/admin/members").await.done();
    member.caller().with("x-tenant-id", "bolt").get("/admin/members").await.done();
    let roles = acme.owner().get(&format!("/api/v1/permissions/users/{}/roles", member.uid)).await.data();
    assert_eq!(roles["user_roles"].as_array().unwrap().len(), 1);
    let guest = site.nobody().post("/me/invitations/accept", json!({"token": second})).await;
    assert_eq!(guest.is(28_501_000).word(), "missing_bearer_token");
}

#[tokio::test]
async fn a_required_second_factor_applies_to_an_invited_member() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({"role_key": "member"})).await;
    let path = format!("/admin/organizations/{}", acme.id);
    site.admin().patch(&path, json!({"second_factor_required": true})).await.done();

    let body = json!({"token": token, "username": "kim", "password": PASSWORD, "cookies": true});
    let reply = accept(&site, body).await;

    assert_eq!(reply.is(28_501_000).word(), "second_factor_enrolment_required");
    assert!(reply.headers.get("set-cookie").is_none());
    let challenge = reply.body["challenge"].clone();
    site.nobody().post("/auth/second-factor/enrol", json!({"challenge": challenge})).await.done();
    let again = site.nobody().post("/auth/login", json!({"login": "kim", "password": PASSWORD})).await;
    assert_eq!(again.word(), "second_factor_enrolment_required");
}

#[tokio::test]
async fn the_url_of_a_link_ignores_the_host_header() {
    let site = Site::with("public_url = \"https://id.example.org\"").await;
    let acme = site.organization("acme").await;

    let made = invite(&acme.owner().with("host", "evil.example").with("x-forwarded-host", "evil.example"), json!({}))
        .await
        .data();

    assert!(made["url"].as_str().unwrap().starts_with("https://id.example.org/invitation?token=inv_"), "{made}");
}

// ── what an invitation may grant ──

#[tokio::test]
async fn nobody_invites_with_rights_they_do_not_hold() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (admin, manager) = (acme.member_with_role("tenant_admin").await, acme.member_with_role("member_manager").await);
    let viewer = acme.member_with_role("viewer").await;
    let client = site.client(&["members:write"]).await.with("x-tenant-id", "acme");
    let word = async |caller: As<'_>, role: &str| {
        let reply = invite(&caller, json!({"role_key": role})).await;
        reply.body["detail"].as_str().unwrap_or("made").to_owned()
    };

    assert_eq!(word(viewer.caller(), "viewer").await, "forbidden");
    assert_eq!(word(manager.caller(), "member_manager").await, "made");
    assert_eq!(word(manager.caller(), "tenant_admin").await, "not_held");
    assert_eq!(word(admin.caller(), "tenant_owner").await, "not_held");
    assert_eq!(word(acme.owner(), "tenant_owner").await, "made");
    assert_eq!(word(client.clone(), "tenant_admin").await, "not_held");
    assert_eq!(word(client, "tenant_owner").await, "system_role");
    assert_eq!(word(acme.owner(), "unheard_of").await, "role_not_found");
    for (caller, role, wanted) in [
        (acme.owner(), "viewr", "acme has no role `viewr` (did you mean viewer?); it has `member`, `member_manager`, "),
        (
            site.admin(),
            "member",
            "platform has no role `member`; it has `platform_admin`. To act in another organization",
        ),
    ] {
        let reply = invite(&caller, json!({"role_key": role})).await;
        assert!(reply.body["message"].as_str().is_some_and(|said| said.starts_with(wanted)), "{}", reply.body);
    }
}

#[tokio::test]
async fn only_platform_administrators_invite_to_the_platform() {
    let site = Site::start().await;
    let client = site.client(&["*"]).await.with("x-tenant-id", "platform");
    let platform = site.admin().with("x-tenant-id", "platform");
    let role = platform.post("/api/v1/permissions/roles", json!({"key": "inviter"})).await.data();
    let set = format!("/api/v1/permissions/roles/{}/permissions", role["id"].as_str().unwrap());
    platform.put(&set, json!({"permission_ids": ["roster.invitation.create"]})).await.done();
    let staff = site.member().await;
    let path = format!("/admin/members/{}/organizations", staff.uid);
    site.admin().post(&path, json!({"organization": "platform"})).await.done();
    let path = format!("/api/v1/permissions/users/{}/roles", staff.uid);
    platform.post(&path, json!({"role_id": role["id"]})).await.done();

    for caller in [client, staff.caller()] {
        assert_eq!(invite(&caller, json!({})).await.word(), "forbidden");
    }
    let token = token(&platform, json!({"role_key": "platform_admin"})).await;
    let made = accept(&site, newcomer(&token, "kim")).await.data();
    site.bearer(made["access_token"].as_str().unwrap()).get("/admin/audit").await.done();
}

#[tokio::test]
async fn a_closed_role_cannot_be_invited_to_and_suspends_open_invitations() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &[]).await;
    let token = token(&acme.owner(), json!({"role_id": role})).await;
    let path = format!("/api/v1/permissions/roles/{role}");

    acme.owner().patch(&path, json!({"status": "close"})).await.done();

    assert_eq!(invite(&acme.owner(), json!({"role_key": "editor"})).await.is(10_101_000).fields(), ["body.role_id"]);
    assert_link_refused(&site, &token, "its role is closed").await;
    acme.owner().patch(&path, json!({"status": "open"})).await.done();
    accept(&site, newcomer(&token, "kim")).await.done();
}

#[tokio::test]
async fn deleting_a_role_withdraws_its_open_invitations() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let role = acme.role("editor", &[]).await;
    let (accepted, open) =
        (token(&acme.owner(), json!({"role_id": role})).await, token(&acme.owner(), json!({"role_id": role})).await);
    let member = acme.member().await;
    member.caller().post("/me/invitations/accept", json!({"token": accepted})).await.done();
    acme.owner().delete(&format!("/api/v1/permissions/users/{}/roles/{role}", member.uid)).await.done();

    acme.owner().delete(&format!("/api/v1/permissions/roles/{role}")).await.done();

    assert_link_refused(&site, &open, "its role is gone").await;
    let shown = acme.owner().get("/admin/invitations").await.data();
    assert_eq!((&shown["total"], &shown["items"][0]["status"]), (&json!(1), &json!("accepted")));
    assert_eq!(shown["items"][0]["role_key"], Value::Null);
}

#[tokio::test]
async fn an_invitation_to_an_inactive_organization_is_refused() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({})).await;
    let path = format!("/admin/organizations/{}", acme.id);

    site.admin().post(&format!("{path}/deactivate"), json!({})).await.done();
    assert_link_refused(&site, &token, "inactive").await;
    site.admin().post(&format!("{path}/activate"), json!({})).await.done();

    accept(&site, newcomer(&token, "kim")).await.done();
}

// ── administration ──

#[tokio::test]
async fn another_organization_neither_sees_nor_withdraws_an_invitation() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let made = invite(&acme.owner(), json!({})).await.data();
    let path = format!("/admin/invitations/{}", made["id"].as_str().unwrap());

    let seen = bolt.owner().get("/admin/invitations").await.data();
    let foreign = bolt.owner().delete(&path).await;
    let inside = bolt.owner().with("x-tenant-id", "acme").delete(&path).await;
    let role = invite(&bolt.owner(), json!({"role_id": acme.role_id("member").await})).await;
    let without = site.client(&["members:read"]).await.get("/admin/invitations").await;

    assert_eq!(seen["total"], 0);
    assert_eq!(foreign.is(29_301_000).word(), "invitation_not_found");
    assert_eq!(inside.is(29_301_000).word(), "organization_not_found");
    assert_eq!(role.is(31_301_000).word(), "role_not_found");
    assert_eq!(without.is(10_101_000).fields(), ["header.X-Tenant-ID"]);
    accept(&site, newcomer(made["token"].as_str().unwrap(), "kim")).await.done();
    let accepted = acme.owner().delete(&path).await;
    assert_eq!(accepted.is(29_309_000).word(), "invitation_accepted");
}

#[tokio::test]
async fn the_open_invitations_of_an_organization_hold_at_their_limit_and_not_one_past_it() {
    let site = Site::with("limits.invitations = 2").await;
    let acme = site.organization("acme").await;
    let first = token(&acme.owner(), json!({})).await;
    token(&acme.owner(), json!({})).await;

    let third = invite(&acme.owner(), json!({})).await;
    let elsewhere = invite(&site.organization("bolt").await.owner(), json!({})).await;
    accept(&site, newcomer(&first, "kim")).await.done();

    assert_eq!(third.is(10_101_000).fields(), ["body.expires_at"]);
    elsewhere.done();
    token(&acme.owner(), json!({})).await;
}

#[tokio::test]
async fn all_faults_of_an_invitation_are_reported_together() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let both = json!({"role_key": "member", "role_id": acme.role_id("member").await});

    let bad = invite(&acme.owner(), json!({"role_key": "", "email": "kim", "expires_at": "x", "to": 1})).await;
    let past = invite(&acme.owner(), json!({"expires_at": now_ms() - 1})).await;
    let both = invite(&acme.owner(), both).await;

    assert_eq!(bad.is(10_101_000).fields(), ["body.email", "body.expires_at", "body.role_key", "body.to"]);
    assert_eq!(past.is(10_101_000).fields(), ["body.expires_at"]);
    const YEAR_MS: i64 = 31_536_000_000;
    let far = invite(&acme.owner(), json!({"expires_at": now_ms() + YEAR_MS + 5_000})).await;
    assert_eq!(far.is(10_101_000).fields(), ["body.expires_at"]);
    assert_eq!(both.is(10_101_000).fields(), ["body.role_key"]);
    assert_eq!(statuses(&acme.owner()).await, [""; 0]);
}

#[tokio::test]
async fn an_invitation_expires_after_the_configured_time() {
    let site = Site::with("auth.invitation_ttl_s = 100").await;
    let acme = site.organization("acme").await;

    let made = invite(&acme.owner(), json!({})).await.data();

    let left = made["expires_at"].as_i64().unwrap() - now_ms();
    assert!((90_000..=100_000).contains(&left), "{left}");
    // A request may set another expiry, up to a year ahead.
    const YEAR_MS: i64 = 31_536_000_000;
    invite(&acme.owner(), json!({"expires_at": now_ms() + YEAR_MS - 5_000})).await.done();
}

#[tokio::test]
async fn a_repeated_request_creates_no_second_link_and_does_not_show_the_first() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let caller = acme.owner().with("idempotency-key", "k1");

    invite(&caller, json!({})).await.done();
    let again = invite(&caller, json!({})).await;

    assert_eq!(again.word(), "secret_not_kept");
    assert_eq!(statuses(&acme.owner()).await, ["open"]);
}

#[tokio::test]
async fn no_token_is_stored_or_logged_and_no_e_mail_is_audited() {
    let site = Site::with("log.level = \"trace\"\ndebug = true").await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({"email": "kim@example.org"})).await;
    site.nobody().get(&format!("/invitation?token={token}")).await;
    accept(&site, json!({"token": token, "password": PASSWORD})).await.done();

    // The export has the rows; the list adds present names.
    let audit = site.admin().get("/admin/audit/export").await.body.to_string();

    let file = std::fs::read(site.path().join("roster.db")).unwrap();
    let wal = std::fs::read(site.path().join("roster.db-wal")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(token.len()).any(|part| part == token.as_bytes());
    assert!(!holds(&file) && !holds(&wal));
    assert!(!audit.contains(&token) && !site.log().contains(&token));
    assert!(!audit.contains("kim@example.org"));
    assert!(audit.contains("invitation.create") && audit.contains("invitation.accept"));
}

#[tokio::test]
async fn erasing_a_member_removes_its_e_mail_from_the_invitation() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({"email": "kim@example.org"})).await;
    accept(&site, json!({"token": token, "password": PASSWORD})).await.done();
    let uid = acme.owner().get("/admin/invitations").await.data()["items"][0]["member_id"].clone();

    site.admin().delete(&format!("/admin/members/{}", uid.as_str().unwrap())).await.done();

    let shown = acme.owner().get("/admin/invitations").await.data()["items"][0].clone();
    assert_eq!((&shown["email"], &shown["status"]), (&Value::Null, &json!("accepted")));
}

#[tokio::test]
async fn the_command_line_invites_lists_and_withdraws() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;

    let made = site.command(&["invite", "create", "acme", "--role", "tenant_owner", "--email", "kim@example.org"]);
    let other = site.command(&["invite", "create", &acme.id]);
    let listed = site.command(&["invite", "list", "acme"]);
    let withdrawn = site.command(&["invite", "withdraw", "acme", other["id"].as_str().unwrap()]);

    assert_eq!((&listed["total"], &withdrawn["withdrawn"]), (&json!(2), &json!(true)));
    let token = made["url"].as_str().unwrap().strip_prefix(&format!("{}/invitation?token=", site.url)).unwrap();
    accept(&site, json!({"token": token, "password": PASSWORD})).await.done();
    assert_eq!(statuses(&acme.owner()).await, ["accepted"]);
}

// ── the page ──

async fn submit(browser: &Browser, fields: &[(&str, &str)]) -> Page {
    let password = fields.iter().find(|(name, _)| *name == "password").map_or("", |(_, password)| password);
    let again = Some(("again", password)).filter(|_| fields.iter().all(|(name, _)| *name != "again"));
    let fields: Vec<(&str, &str)> = fields.iter().copied().chain(again).collect();
    browser.post("/invitation", &fields).await
}

#[tokio::test]
async fn the_page_names_the_inviting_organization_and_creates_the_account() {
    let site = Site::start().await;
    let body = json!({"org_code": "acme", "name": "<b>Acme</b> & Sons"});
    site.admin().post("/admin/organizations", body).await.done();
    let acme = site.admin().with("x-tenant-id", "acme");
    let token = token(&acme, json!({"email": "kim@example.org", "role_key": "member"})).await;
    let (browser, elsewhere) = (site.visitor(), site.visitor().with("sec-fetch-site", "cross-site"));

    let shown = browser.get(&format!("/invitation?token={token}")).await;
    let weak = submit(&browser, &[("token", &token), ("login", "kim<"), ("password", "short")]).await;
    let elsewhere = submit(&elsewhere, &[("token", &token), ("login", "kim"), ("password", PASSWORD)]).await;
    let fields = [("token", token.as_str()), ("login", " kim "), ("display_name", "Kim"), ("password", PASSWORD)];
    let done = submit(&browser, &fields).await;
    let again = submit(&site.visitor(), &[("token", &token), ("login", "lee"), ("password", PASSWORD)]).await;

    assert_eq!((shown.status, shown.h1().as_str()), (200, "<b>Acme</b> & Sons invites you"));
    assert_eq!(shown.value("login").as_deref(), Some("kim@example.org"));
    shown.require_escaped("<b>Acme");
    assert_eq!(
        (shown.header("cache-control"), shown.header("referrer-policy")),
        (Some("no-store"), Some("no-referrer"))
    );
    assert!(shown.header("content-security-policy").unwrap().starts_with("default-src 'none';"));
    assert_eq!((weak.status, weak.faults().len(), weak.value("login").as_deref()), (400, 4, Some("kim<")));
    assert_eq!(elsewhere.status, 403);
    assert_eq!((done.status, done.location()), (303, Some("/console/me")));
    assert_eq!((again.status, again.form("/invitation").is_none()), (401, true));
    // The browser is signed in as the new member.
    let own = browser.cookie("access_token").expect("a session");
    let me = site.bearer(&own).get("/me").await.data();
    assert_eq!((&me["email"], &me["display_name"]), (&json!("kim@example.org"), &json!("Kim")));
    site.token("kim", PASSWORD).await;
}

#[tokio::test]
async fn the_page_reports_a_taken_username_and_keeps_the_link() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let taken = acme.member().await.username;
    let token = token(&acme.owner(), json!({})).await;

    let page = submit(&site.visitor(), &[("token", &token), ("login", &taken), ("password", PASSWORD)]).await;

    let faulty: Vec<String> = page.faults().into_iter().map(|(field, _)| field).collect();
    assert_eq!((page.status, faulty), (409, vec!["login".to_owned()]));
    assert!(page.form("/invitation").is_some());
    accept(&site, newcomer(&token, "kim")).await.done();
}

#[tokio::test]
async fn the_page_compares_both_passwords_and_tells_a_member_how_to_join() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({})).await;
    let before = members(&site);
    let browser = site.visitor();

    let shown = browser.get(&format!("/invitation?token={token}")).await;
    let fields = [("token", token.as_str()), ("login", "kim"), ("password", PASSWORD), ("again", "Another-horse-9")];
    let differing = submit(&browser, &fields).await;

    assert!(shown.main().contains("POST /me/invitations/accept"));
    assert!(shown.elements("code").iter().any(|code| code.text() == token));
    assert_eq!(
        (differing.status, differing.faults()),
        (400, vec![("again".to_owned(), "The two passwords differ.".to_owned())])
    );
    assert_eq!(members(&site), before);
    let kim = site.member().await;
    let joined = site.bearer(&kim.token).post("/me/invitations/accept", json!({"token": token})).await;
    assert_eq!(joined.data()["organization_id"], json!(acme.id));
}

#[tokio::test]
async fn a_member_signs_in_and_joins_with_the_account_that_exists() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let kim = site.member().await;
    let token = token(&acme.owner(), json!({"role_key": "member"})).await;
    let before = members(&site);
    let browser = site.visitor();
    let shown = browser.get(&format!("/invitation?token={token}")).await;

    let link = shown.links().into_iter().find(|link| link.starts_with("/console/sign-in?r=")).expect("a link");
    let signed = browser.get(&link).await.value("r").expect("a signed value");
    let fields = [("login", kim.username.as_str()), ("password", PASSWORD), ("r", signed.as_str())];
    let back = browser.post("/console/sign-in", &fields).await;
    let offered = browser.follow(&back).await;
    let joined = browser.post("/invitation", &[("token", &token), ("act", "join")]).await;

    assert_eq!(back.location(), Some(format!("/invitation?token={token}").as_str()));
    assert_eq!((offered.value("act").as_deref(), offered.value("password")), (Some("join"), None));
    assert_eq!((joined.status, joined.location(), members(&site)), (303, Some("/console/me"), before));
    let organizations = kim.caller().get("/me").await.data()["organizations"].clone();
    assert_eq!(organizations[0]["org_code"], "acme");
    assert_link_refused(&site, &token, "used").await;
}

#[tokio::test]
async fn the_page_asks_for_a_second_factor_that_the_organization_requires() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let token = token(&acme.owner(), json!({"role_key": "member"})).await;
    let path = format!("/admin/organizations/{}", acme.id);
    site.admin().patch(&path, json!({"second_factor_required": true})).await.done();
    let browser = site.visitor().in_chinese();

    let page = submit(&browser, &[("token", &token), ("login", "kim"), ("password", PASSWORD)]).await;

    assert_eq!((page.status, page.h1().as_str()), (200, "設定第二因素驗證"));
    assert!(page.form("/console/sign-in/enrol").is_some());
    assert_eq!(browser.cookie("access_token"), None);
}

#[tokio::test]
async fn without_its_token_the_page_shows_and_creates_nothing() {
    let site = Site::start().await;
    let before = members(&site);
    let browser = site.visitor().with("x-internal-secret", INTERNAL_SECRET);

    for query in ["", "?token=", "?token=x", "?Token=inv_x"] {
        let page = browser.get(&format!("/invitation{query}")).await;
        assert_eq!((page.status, page.form("/invitation").is_none()), (401, true), "{query}");
    }
    for token in ["", "inv_x"] {
        let page = submit(&browser, &[("token", token), ("login", "kim"), ("password", PASSWORD)]).await;
        assert_eq!(page.status, 401, "{token}");
    }
    let put = site.nobody().put("/invitation", json!({})).await;
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(members(&site), before);
}
