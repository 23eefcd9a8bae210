//! Deferred grants: links and keys that are created now and used later, of every kind, and every way in which their
//! creator can lose the rights in between.

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::counterparts::Smtp;
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::rules::schema::make_former;
use crate::sessions::passwords::mailing;
use crate::webhooks::mail::token_of;

// ── links ──

/// The links that one caller created.
struct Links {
    with_role: String,
    without_role: String,
    password: String,
    /// The member whose password the link sets.
    uid: String,
    username: String,
}

/// Creates one link of each kind.
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

/// The rows that result from used links.
fn given(site: &Site) -> [i64; 4] {
    [
        "select count(*) from members",
        "select count(*) from memberships",
        "select count(*) from role_assignments",
        "select count(*) from invitations where accepted_at is not null",
    ]
    .map(|sql| site.number(sql))
}

pub fn is_dead(reply: &Reply, why: &str) {
    assert_eq!((reply.is(28_501_000).status, reply.word()), (401, "invalid_link"), "{why}");
}

/// Asserts that every link is refused, for every caller and on its page, and changes nothing.
async fn assert_links_refused(site: &Site, links: &Links, why: &str) {
    let before = given(site);
    for token in [&links.with_role, &links.without_role] {
        is_dead(&accept(site, token).await, why);
        is_dead(&site.admin().post("/me/invitations/accept", json!({"token": token})).await, why);
        let page = site.visitor().get(&format!("/invitation?token={token}")).await;
        assert_eq!((page.status, page.form("/invitation").is_none()), (401, true), "{why}");
    }
    is_dead(&reset(site, &links.password).await, why);
    assert_eq!(given(site), before, "{why}");
    site.token(&links.username, PASSWORD).await;
}

async fn assert_links_valid(site: &Site, links: &Links) {
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

/// A way in which a member loses its rights.
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

/// Gives the rights back, where that is possible.
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
async fn a_link_ends_when_its_creator_loses_the_rights_and_is_not_restored() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    for (n, way) in WAYS.into_iter().enumerate() {
        let maker = acme.member().await;
        let role = acme.role(&format!("maker{n}"), &RIGHTS).await;
        acme.assign(&maker.uid, &role).await;
        let (used, links) = (make(&acme, &maker.caller()).await, make(&acme, &maker.caller()).await);
        assert_links_valid(&site, &used).await;

        take(&acme, way, &maker.uid, &role).await;

        assert_links_refused(&site, &links, &format!("{way:?}")).await;
        // The links are withdrawn: nothing restores them.
        let open = "select count(*) from invitations where accepted_at is null";
        assert_eq!(site.number(open), 0, "{way:?}");
        assert_eq!(site.number("select count(*) from one_time_tokens where maker is not null"), 0, "{way:?}");
        give_back(&acme, way, &maker.uid, &role).await;
        assert_links_refused(&site, &links, &format!("{way:?}, and back")).await;
        let audit = site.admin().get("/admin/audit?action=promise.withdraw&limit=200").await.data();
        // The password set by a used link is withdrawn as well.
        assert_eq!(audit["total"], json!(4 * (n + 1)), "{way:?}");
    }
}

#[tokio::test]
async fn a_demoted_administrator_cannot_regain_rights_by_its_own_link() {
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
async fn the_loss_of_unrelated_rights_ends_no_link() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let (maker, other) = (acme.member_with(&RIGHTS).await, acme.member_with(&RIGHTS).await);
    let links = make(&acme, &maker.caller()).await;
    let more = acme.role("more", &["roster.audit.list"]).await;
    acme.assign(&maker.uid, &more).await;

    site.admin().delete(&format!("/admin/members/{}", other.uid)).await.done();
    take(&acme, Way::Demoted, &maker.uid, &more).await;
    // A link does not work while its organization is inactive, and works again afterwards.
    let path = format!("/admin/organizations/{}", acme.id);
    site.admin().post(&format!("{path}/deactivate"), json!({})).await.done();
    is_dead(&accept(&site, &links.with_role).await, "inactive");
    site.admin().post(&format!("{path}/activate"), json!({})).await.done();

    assert_links_valid(&site, &links).await;
}

#[tokio::test]
async fn a_link_gives_only_what_its_creator_may_give_when_it_is_used() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let more = [&RIGHTS[..], &["roster.audit.list"]].concat();
    let (maker, admin) = (acme.member_with(&RIGHTS).await, acme.member_with(&more).await);
    let (by_maker, by_admin) = (make(&acme, &maker.caller()).await, make(&acme, &admin.caller()).await);
    let role = acme.role_id("player").await;

    // The promised role now holds more than its creator, and the member whose password the link sets has become an
    // owner.
    let path = format!("/api/v1/permissions/roles/{role}/permissions");
    acme.owner().put(&path, json!({"permission_ids": ["play", "roster.audit.list"]})).await.done();
    for links in [&by_maker, &by_admin] {
        acme.assign(&links.uid, &acme.role_id("tenant_owner").await).await;
    }

    is_dead(&accept(&site, &by_maker.with_role).await, "the role grew");
    is_dead(&reset(&site, &by_maker.password).await, "an owner now");
    is_dead(&reset(&site, &by_admin.password).await, "an owner now");
    accept(&site, &by_maker.without_role).await.done();
    // The link of a creator who still holds the rights works.
    accept(&site, &by_admin.with_role).await.done();
}

#[tokio::test]
async fn a_link_made_by_the_command_line_stays_valid() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let made = site.command(&["invite", "create", "acme", "--role", "tenant_owner"]);
    let owner = acme.owner().get("/me").await.data()["uid"].as_str().expect("uid").to_owned();
    acme.assign(&acme.member().await.uid, &acme.role_id("tenant_owner").await).await;

    site.admin().delete(&format!("/admin/members/{owner}")).await.done();

    let (_, token) = made["url"].as_str().expect("a link").split_once("token=").expect("a token");
    accept(&site, token).await.done();
}

// ── links of API clients ──

/// A client that may create every kind of link, with its key.
async fn client_with_every_link<'s>(site: &'s Site) -> (As<'s>, String) {
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
        let (client, at) = client_with_every_link(&site).await;
        let client = client.with("x-tenant-id", "acme");
        let (used, links) = (make(&acme, &client).await, make(&acme, &client).await);
        assert_links_valid(&site, &used).await;

        let admin = site.admin();
        match way {
            "deactivated" => admin.patch(&at, json!({"status": "inactive"})).await.done(),
            "deleted" => admin.delete(&at).await.done(),
            "narrowed" => admin.patch(&at, json!({"scopes": ["members:read"]})).await.done(),
            _ => {
                let end = roster::kernel::ids::Timestamp::now().plus_ms(300).0;
                admin.patch(&at, json!({"expires_at": end})).await.done();
                eventually("the end", async || roster::kernel::ids::Timestamp::now().0 > end).await;
            }
        }

        assert_links_refused(&site, &links, way).await;
        if way == "deactivated" {
            admin.patch(&at, json!({"status": "active"})).await.done();
            assert_links_refused(&site, &links, "active again").await;
        }
    }
}

#[tokio::test]
async fn a_client_with_fewer_scopes_keeps_the_links_that_it_may_still_create() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let (client, at) = client_with_every_link(&site).await;
    let links = make(&acme, &client.with("x-tenant-id", "acme")).await;

    site.admin().patch(&at, json!({"scopes": ["members:write"]})).await.done();

    is_dead(&accept(&site, &links.with_role).await, "it gives no roles of applications any more");
    accept(&site, &links.without_role).await.done();
    reset(&site, &links.password).await.done();
}

#[tokio::test]
async fn using_a_client_s_link_does_not_count_against_its_rate_limit() {
    let site = Site::start().await;
    let acme = with_an_application(&site).await;
    let body = json!({"name": "office", "scopes": ["members:write"], "rate_limit_per_min": 1});
    let client = site.client_of(body).await.with("x-tenant-id", "acme");

    let made = client.post("/admin/invitations", json!({})).await.data();

    assert_eq!(client.post("/admin/invitations", json!({})).await.word(), "rate_limited");
    accept(acme.site, made["token"].as_str().expect("a token")).await.done();
}

// ── mail notifications ──

fn kim(n: usize) -> Value {
    json!({"username": format!("kim{n}"), "email": format!("kim{n}@example.org"), "welcome": true})
}

#[tokio::test]
async fn a_welcome_mail_link_ends_with_its_creator_s_rights_and_a_requested_one_does_not() {
    let smtp = Smtp::start(json!({"tls": "none"}));
    let site = Site::with(&format!("outbox.backoff_s = 0\n{}", mailing(&smtp))).await;
    for (n, way) in ["kept", "deactivated", "deleted", "narrowed"].into_iter().enumerate() {
        let (client, at) = client_with_every_link(&site).await;
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
async fn a_queued_welcome_mail_is_not_sent_after_its_creator_lost_the_right() {
    let smtp = Smtp::start(json!({"tls": "none", "tempfail": 1}));
    let site = Site::with(&format!("outbox.backoff_s = 2\noutbox.attempts = 5\n{}", mailing(&smtp))).await;
    let (client, at) = client_with_every_link(&site).await;
    client.post("/admin/users", kim(0)).await.done();
    let mail_delivery = async || site.admin().get("/admin/deliveries?target=mail").await.data()["items"][0].clone();
    eventually("a failure", async || mail_delivery().await["attempts"] == 1).await;

    site.admin().delete(&at).await.done();

    eventually("the mail is settled", async || mail_delivery().await["state"] == "delivered").await;
    assert!(mail_delivery().await["last_error"].as_str().expect("why").contains("its creator lacks the right"));
    assert_eq!(smtp.mails().len(), 0);
}

// ── keys of services ──

/// A second platform administrator, with the path of its role assignment.
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
async fn a_service_key_is_refused_after_its_creator_lost_the_right_until_somebody_else_rotates_it() {
    let site = Site::start().await;
    let new = json!({"service_name": "worker", "scopes": ["jobs:write"]});
    let claim = async |key: &Value| {
        let key = key["api_key"].as_str().expect("a key");
        site.nobody().with("x-api-key", key).post("/api/v1/jobs/claim", json!({})).await
    };
    let by_command_line = site.command(&["key", "create", "worker", "--service", "gpu", "--scopes", "jobs:write"]);
    let (maker, assignment_path) = second_administrator(&site).await;
    let key = maker.post("/admin/api-keys", new).await.data();
    claim(&key).await.done();

    site.admin().with("x-tenant-id", "platform").delete(&assignment_path).await.done();

    let refused = claim(&key).await;
    assert_eq!((refused.is(32_501_000).status, refused.word()), (401, "invalid_key"));
    assert!(refused.body["message"].as_str().expect("text").contains("rotate"), "{refused:?}");
    claim(&by_command_line).await.done();
    let path = format!("/admin/api-keys/{}/rotate", key["id"].as_str().expect("id"));
    assert_eq!(maker.post(&path, json!({})).await.status, 403);
    let rotated = site.admin().post(&path, json!({})).await.data();
    claim(&rotated).await.done();
    // Its creator knows the former key, so there is no grace period.
    assert_eq!(claim(&key).await.word(), "invalid_key");
}

// ── rows from before creators were stored ──

#[test]
fn an_upgrade_withdraws_deferred_grants_without_a_creator() {
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
