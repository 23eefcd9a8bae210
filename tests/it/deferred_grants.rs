//! What is given now and taken later: every kind of it, by every way in which its maker can lose the rights meanwhile.

use serde_json::{Value, json};

use crate::counterparts::Smtp;
use crate::passwords::{mailing, until};
use crate::schema::make_former;
use crate::site::{As, Organization, PASSWORD, Reply, Site};

// ── links ──

/// The links that somebody made.
struct Links {
    with_role: String,
    without_role: String,
    password: String,
    /// Whose password it is.
    uid: String,
    username: String,
}

/// Makes one of each kind.
async fn make(acme: &Organization<'_>, maker: &As<'_>) -> Links {
    let target = acme.member().await;
    let token = |reply: &Reply| reply.data()["token"].as_str().expect("a token").to_owned();
    let invite = async |body: Value| token(&maker.post("/admin/invitations", body).await);
    Links {
        with_role: invite(json!({"role_key": "player"})).await,
        without_role: invite(json!({})).await,
        password: token(&maker.post(&format!("/admin/members/{}/password-link", target.uid), json!({})).await),
        uid: target.uid,
        username: target.username,
    }
}

pub async fn accept(site: &Site, token: &str) -> Reply {
    let username = format!("n{}", uuid::Uuid::now_v7().simple());
    let body = json!({"token": token, "username": username, "password": PASSWORD});
    site.nobody().post("/auth/invitations/accept", body).await
}

pub async fn reset(site: &Site, token: &str) -> Reply {
    site.nobody().post("/auth/password/reset", json!({"token": token, "new_password": "Another-horse-8"})).await
}

pub fn count(site: &Site, sql: &str) -> i64 {
    site.rows().query_row(sql, [], |row| row.get(0)).expect("a number")
}

/// All that links give.
fn given(site: &Site) -> [i64; 4] {
    [
        "select count(*) from members",
        "select count(*) from memberships",
        "select count(*) from role_assignments",
        "select count(*) from invitations where accepted_at is not null",
    ]
    .map(|sql| count(site, sql))
}

pub fn is_dead(reply: &Reply, why: &str) {
    assert_eq!((reply.is(28_501_000).status, reply.word()), (401, "invalid_link"), "{why}");
}

/// Every link is refused, by everybody and on its page, and gives nothing.
async fn are_dead(site: &Site, links: &Links, why: &str) {
    let before = given(site);
    for token in [&links.with_role, &links.without_role] {
        is_dead(&accept(site, token).await, why);
        is_dead(&site.admin().post("/me/invitations/accept", json!({"token": token})).await, why);
        let page = site.nobody().get(&format!("/invitation?token={token}")).await;
        assert!(page.status == 401 && !page.body.as_str().expect("a page").contains("<form"), "{why}");
    }
    is_dead(&reset(site, &links.password).await, why);
    assert_eq!(given(site), before, "{why}");
    site.token(&links.username, PASSWORD).await;
}

async fn are_alive(site: &Site, links: &Links) {
    accept(site, &links.with_role).await.done();
    accept(site, &links.without_role).await.done();
    reset(site, &links.password).await.done();
}

const RIGHTS: [&str; 4] = ["play", "roster.invitation.create", "roster.member.password_link", "roster.member.list"];

async fn with_an_application(site: &Site) -> Organization<'_> {
    site.import(json!([{"name": "play", "http_methods": "GET", "http_path": "/play"}])).await;
    let acme = site.organization("acme").await;
    acme.role("player", &["play"]).await;
    acme
}

/// How a member loses what it had.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Demoted,
    RoleNarrowed,
    RoleClosed,
    Suspended,
    SuspendedAsUser,
    Unlinked,
    Erased,
}

pub const WAYS: [Way; 7] = [
    Way::Demoted,
    Way::RoleNarrowed,
    Way::RoleClosed,
    Way::Suspended,
    Way::SuspendedAsUser,
    Way::Unlinked,
    Way::Erased,
];

/// Takes the rights away.
pub async fn take(acme: &Organization<'_>, way: Way, uid: &str, role: &str) {
    let (site, admin) = (acme.site.admin(), acme.admin());
    let (member, role) = (format!("/admin/members/{uid}"), format!("/api/v1/permissions/roles/{role}"));
    match way {
        Way::Demoted => {
            let held = role.rsplit('/').next().expect("an id");
            admin.delete(&format!("/api/v1/permissions/users/{uid}/roles/{held}")).await
        }
        Way::RoleNarrowed => admin.put(&format!("{role}/permissions"), json!({"permission_ids": []})).await,
        Way::RoleClosed => admin.patch(&role, json!({"status": "close"})).await,
        Way::Suspended => site.post(&format!("{member}/deactivate"), json!({})).await,
        Way::SuspendedAsUser => site.patch(&format!("/admin/users/{uid}"), json!({"status": "suspended"})).await,
        Way::Unlinked => site.delete(&format!("{member}/organizations/{}", acme.id)).await,
        Way::Erased => site.delete(&member).await,
    }
    .done();
}

/// Gives them back, where that can be.
pub async fn give_back(acme: &Organization<'_>, way: Way, uid: &str, role: &str) {
    let (site, admin) = (acme.site.admin(), acme.admin());
    let path = format!("/api/v1/permissions/roles/{role}");
    match way {
        Way::Demoted => acme.assign(uid, role).await,
        Way::RoleNarrowed => admin.put(&format!("{path}/permissions"), json!({"permission_ids": RIGHTS})).await.done(),
        Way::RoleClosed => admin.patch(&path, json!({"status": "open"})).await.done(),
        Way::Suspended | Way::SuspendedAsUser => {
            site.post(&format!("/admin/members/{uid}/activate"), json!({})).await.done();
        }
        Way::Unlinked => {
            acme.link(uid).await;
            acme.assign(uid, role).await;
        }
        Way::Erased => {}
    }
}

#[tokio::test]
async fn a_link_ends_with_its_maker_s_rights_by_whatever_way_and_stays_ended() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    for (n, way) in WAYS.into_iter().enumerate() {
        let maker = acme.member().await;
        let role = acme.role(&format!("maker{n}"), &RIGHTS).await;
        acme.assign(&maker.uid, &role).await;
        let (used, links) = (make(&acme, &maker.caller()).await, make(&acme, &maker.caller()).await);
        are_alive(&site, &used).await;

        take(&acme, way, &maker.uid, &role).await;

        are_dead(&site, &links, &format!("{way:?}")).await;
        // They are withdrawn: nothing brings them back.
        let open = "select count(*) from invitations where accepted_at is null";
        assert_eq!(count(&site, open), 0, "{way:?}");
        assert_eq!(count(&site, "select count(*) from one_time_tokens where maker is not null"), 0, "{way:?}");
        give_back(&acme, way, &maker.uid, &role).await;
        are_dead(&site, &links, &format!("{way:?}, and back")).await;
        let audit = site.admin().get("/admin/audit?action=promise.withdraw&limit=200").await.data();
        // With them the password that a used link gave.
        assert_eq!(audit["total"], json!(4 * (n + 1)), "{way:?}");
    }
}

#[tokio::test]
async fn an_administrator_who_was_demoted_does_not_come_back_by_an_own_link() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let admin = acme.member_with_role("tenant_admin").await;
    let role = acme.role_id("tenant_admin").await;
    let made = admin.caller().post("/admin/invitations", json!({"role_key": "tenant_admin"})).await.data();

    acme.owner().delete(&format!("/api/v1/permissions/users/{}/roles/{role}", admin.uid)).await.done();
    let reply = admin.caller().post("/me/invitations/accept", json!({"token": made["token"]})).await;

    is_dead(&reply, "demoted");
    let held = acme.admin().get(&format!("/api/v1/permissions/users/{}/roles", admin.uid)).await.data();
    assert_eq!(held["user_roles"], json!([]));
}

#[tokio::test]
async fn another_s_loss_and_another_right_s_end_no_link() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let (maker, other) = (acme.member_with(&RIGHTS).await, acme.member_with(&RIGHTS).await);
    let links = make(&acme, &maker.caller()).await;
    let more = acme.role("more", &["roster.audit.list"]).await;
    acme.assign(&maker.uid, &more).await;

    site.admin().delete(&format!("/admin/members/{}", other.uid)).await.done();
    take(&acme, Way::Demoted, &maker.uid, &more).await;
    // While its organization is not active, nothing is given; with it the links are back.
    let path = format!("/admin/organizations/{}", acme.id);
    site.admin().post(&format!("{path}/deactivate"), json!({})).await.done();
    is_dead(&accept(&site, &links.with_role).await, "inactive");
    site.admin().post(&format!("{path}/activate"), json!({})).await.done();

    are_alive(&site, &links).await;
}

#[tokio::test]
async fn a_link_is_worth_what_its_maker_may_give_when_it_is_taken() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let more = [&RIGHTS[..], &["roster.audit.list"]].concat();
    let (maker, admin) = (acme.member_with(&RIGHTS).await, acme.member_with(&more).await);
    let (by_maker, by_admin) = (make(&acme, &maker.caller()).await, make(&acme, &admin.caller()).await);
    let role = acme.role_id("player").await;

    // The promised role holds more now than its maker does, and the member whose password it is became an owner.
    let path = format!("/api/v1/permissions/roles/{role}/permissions");
    acme.owner().put(&path, json!({"permission_ids": ["play", "roster.audit.list"]})).await.done();
    for links in [&by_maker, &by_admin] {
        acme.assign(&links.uid, &acme.role_id("tenant_owner").await).await;
    }

    is_dead(&accept(&site, &by_maker.with_role).await, "the role grew");
    is_dead(&reset(&site, &by_maker.password).await, "an owner now");
    is_dead(&reset(&site, &by_admin.password).await, "an owner now");
    accept(&site, &by_maker.without_role).await.done();
    // Who holds it all the same keeps the promise.
    accept(&site, &by_admin.with_role).await.done();
}

#[tokio::test]
async fn what_the_command_line_promised_is_kept() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let made = site.command(&["invite", "create", "acme", "--role", "tenant_owner"]);
    let owner = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    acme.assign(&acme.member().await.uid, &acme.role_id("tenant_owner").await).await;

    site.admin().delete(&format!("/admin/members/{owner}")).await.done();

    let (_, token) = made["url"].as_str().expect("a link").split_once("token=").expect("a token");
    accept(&site, token).await.done();
}

// ── links of programs ──

/// A client that may make every link, with its key.
async fn office<'s>(site: &'s Site) -> (As<'s>, String) {
    let body = json!({"name": "office", "scopes": ["members:write", "permissions:write"]});
    let made = site.admin().post("/admin/api-clients", body).await.data();
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let caller = site.nobody().with("x-client-key", &text("client_key")).with("x-api-key", &text("api_key"));
    (caller, format!("/admin/api-clients/{}", text("client_key")))
}

#[tokio::test]
async fn a_link_ends_with_the_client_that_made_it() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    for way in ["deactivated", "deleted", "narrowed", "expired"] {
        let (client, at) = office(&site).await;
        let client = client.with("x-tenant-id", "acme");
        let (used, links) = (make(&acme, &client).await, make(&acme, &client).await);
        are_alive(&site, &used).await;

        let admin = site.admin();
        match way {
            "deactivated" => admin.patch(&at, json!({"status": "inactive"})).await.done(),
            "deleted" => admin.delete(&at).await.done(),
            "narrowed" => admin.patch(&at, json!({"scopes": ["members:read"]})).await.done(),
            _ => {
                let end = roster::kernel::ids::Timestamp::now().plus_ms(300).0;
                admin.patch(&at, json!({"expires_at": end})).await.done();
                until("the end", async || roster::kernel::ids::Timestamp::now().0 > end).await;
            }
        }

        are_dead(&site, &links, way).await;
        if way == "deactivated" {
            admin.patch(&at, json!({"status": "active"})).await.done();
            are_dead(&site, &links, "active again").await;
        }
    }
}

#[tokio::test]
async fn of_a_client_that_was_narrowed_what_it_may_still_give_is_kept() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let (client, at) = office(&site).await;
    let links = make(&acme, &client.with("x-tenant-id", "acme")).await;

    site.admin().patch(&at, json!({"scopes": ["members:write"]})).await.done();

    is_dead(&accept(&site, &links.with_role).await, "it gives no roles of applications any more");
    accept(&site, &links.without_role).await.done();
    reset(&site, &links.password).await.done();
}

#[tokio::test]
async fn redeeming_a_client_s_link_counts_against_no_rate() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let body = json!({"name": "office", "scopes": ["members:write"], "rate_limit_per_min": 1});
    let client = site.client_of(body).await.with("x-tenant-id", "acme");

    let made = client.post("/admin/invitations", json!({})).await.data();

    assert_eq!(client.post("/admin/invitations", json!({})).await.word(), "rate_limited");
    accept(acme.site, made["token"].as_str().expect("a token")).await.done();
}

// ── letters ──

/// The token of the link in a letter.
fn token_of(text: &str) -> String {
    let (_, rest) = text.split_once("token=").expect("a link");
    rest.chars().take_while(|c| !c.is_whitespace()).collect()
}

fn kim(n: usize) -> Value {
    json!({"username": format!("kim{n}"), "email": format!("kim{n}@example.org"), "welcome": true})
}

#[tokio::test]
async fn a_welcome_ends_with_its_maker_and_what_the_member_asked_for_itself_does_not() {
    let smtp = Smtp::start(json!({"tls": "none"}));
    let site = Site::with(&format!("outbox.backoff_s = 0\n{}", mailing(&smtp))).await;
    for (n, way) in ["kept", "deactivated", "deleted", "narrowed"].into_iter().enumerate() {
        let (client, at) = office(&site).await;
        client.post("/admin/users", kim(n)).await.done();
        let welcome = token_of(&smtp.next_mail_to(&format!("kim{n}@example.org")).await.text);

        match way {
            "kept" => {}
            "deactivated" => site.admin().patch(&at, json!({"status": "inactive"})).await.done(),
            "deleted" => site.admin().delete(&at).await.done(),
            _ => site.admin().patch(&at, json!({"scopes": ["members:read"]})).await.done(),
        }

        let reply = reset(&site, &welcome).await;
        if way == "kept" {
            reply.done();
            continue;
        }
        is_dead(&reply, way);
        let login = json!({"login": format!("kim{n}")});
        site.nobody().post("/auth/password/forgot", login).await.done();
        let asked = token_of(&smtp.next_mail_to(&format!("kim{n}@example.org")).await.text);
        reset(&site, &asked).await.done();
    }
}

#[tokio::test]
async fn a_welcome_that_waits_does_not_go_out_once_its_maker_may_not_send_it() {
    let smtp = Smtp::start(json!({"tls": "none", "tempfail": 1}));
    let site = Site::with(&format!("outbox.backoff_s = 2\noutbox.attempts = 5\n{}", mailing(&smtp))).await;
    let (client, at) = office(&site).await;
    client.post("/admin/users", kim(0)).await.done();
    let letter = async || site.admin().get("/admin/deliveries?target=mail").await.data()["items"][0].clone();
    until("a failure", async || letter().await["attempts"] == 1).await;

    site.admin().delete(&at).await.done();

    until("no letter", async || letter().await["state"] == "delivered").await;
    assert!(letter().await["last_error"].as_str().expect("why").contains("may not any more"));
    assert_eq!(smtp.mails().len(), 0);
}

// ── keys of services ──

/// A second platform administrator, with the path of its role.
pub async fn second_administrator(site: &Site) -> (As<'_>, String) {
    let member = site.member().await;
    let link = json!({"organization": "platform"});
    site.admin().post(&format!("/admin/members/{}/organizations", member.uid), link).await.done();
    let platform = site.admin().with("x-tenant-id", "platform");
    let roles = platform.get("/api/v1/permissions/roles").await.data();
    let (path, role) = (format!("/api/v1/permissions/users/{}/roles", member.uid), roles["roles"][0]["id"].clone());
    platform.post(&path, json!({"role_id": role})).await.done();
    (site.bearer(&member.token), format!("{path}/{}", role.as_str().expect("id")))
}

#[tokio::test]
async fn the_key_of_a_service_opens_nothing_after_its_maker_until_somebody_else_answers_for_it() {
    let site = Site::start().await;
    let new = json!({"service_name": "worker", "scopes": ["jobs:write"]});
    let claim = async |key: &Value| {
        let key = key["api_key"].as_str().expect("a key");
        site.nobody().with("x-api-key", key).post("/api/v1/jobs/claim", json!({})).await
    };
    let by_command_line = site.command(&["key", "create", "worker", "--service", "gpu", "--scopes", "jobs:write"]);
    let (maker, seat) = second_administrator(&site).await;
    let key = maker.post("/admin/api-keys", new).await.data();
    claim(&key).await.done();

    site.admin().with("x-tenant-id", "platform").delete(&seat).await.done();

    let refused = claim(&key).await;
    assert_eq!((refused.is(32_501_000).status, refused.word()), (401, "invalid_key"));
    assert!(refused.body["message"].as_str().expect("text").contains("rotate"), "{refused:?}");
    claim(&by_command_line).await.done();
    let path = format!("/admin/api-keys/{}/rotate", key["id"].as_str().expect("id"));
    assert_eq!(maker.post(&path, json!({})).await.status, 403);
    let rotated = site.admin().post(&path, json!({})).await.data();
    claim(&rotated).await.done();
    // Its maker knows the former text: it has no grace.
    assert_eq!(claim(&key).await.word(), "invalid_key");
}

// ── from before makers were stored ──

#[test]
fn an_upgrade_withdraws_what_nobody_answers_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("roster.db");
    let former = make_former(&file, 5);
    let rows =
        "insert into organizations (id, org_code, name, status, created_at, updated_at)
         values (zeroblob(16), 'acme', 'Acme', 'active', 1, 1);
         insert into members (id, username, status, created_at, updated_at) values (zeroblob(16), 'kim', 'active', 1, 1);
         insert into invitations (id, hash, organization_id, expires_at, accepted_at, created_at)
         values (x'01010101010101010101010101010101', zeroblob(32), zeroblob(16), 9, null, 1),
                (x'02020202020202020202020202020202', randomblob(32), zeroblob(16), 9, 5, 1);
         insert into one_time_tokens (hash, purpose, member_id, expires_at, created_at)
         values (zeroblob(32), 'password_reset', zeroblob(16), 9, 1), (randomblob(32), 'email_code', zeroblob(16), 9, 1);
         insert into api_keys (id, type, name, service_name, hash, scopes, expires_at, created_at, updated_at)
         values (zeroblob(16), 'msvc', 'gpu', 'gpu', zeroblob(32), '[]', 9, 1, 1);
         insert into api_clients (client_key, name, status, api_key_hash, scopes, allowed_origins, allowed_ips, allowed_paths,
                                  created_at, updated_at)
         values ('rc_1', 'office', 'active', zeroblob(32), '[]', '[]', '[]', '[]', 1, 1);
         insert into webhooks (id, name, url, kinds, status, created_at, updated_at)
         values (zeroblob(16), 'n8n', 'https://n8n.example.org', '[]', 'active', 1, 1);";
    former.execute_batch(rows).expect("rows of the fifth schema");
    drop(former);
    let upgraded = roster::kernel::db::schema::open_writer(&file).expect("upgraded");
    let kept =
        "select (select group_concat(hex(id)) from invitations), (select group_concat(purpose) from one_time_tokens),
                       (select maker from api_keys)";
    let kept: (String, String, String) =
        upgraded.query_row(kept, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("a row");
    assert_eq!(kept, ("02".repeat(16), "email_code".into(), "cli".into()));
    let makers = "select (select maker from api_clients), (select maker from webhooks)";
    let makers: (String, String) = upgraded.query_row(makers, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("a row");
    assert_eq!(makers, ("cli".into(), "cli".into()));
}
