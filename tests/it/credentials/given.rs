//! Credentials that stay valid after their creation, and the caller who is responsible for them: keys that somebody
//! else created for a member, API clients, webhooks.

use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::organizations::{Member, Organization};
use crate::harness::receiver::{Receiver, webhook};
use crate::harness::site::{PASSWORD, Site};
use crate::permissions::deferred_grants::{WAYS, Way, accept, give_back, is_dead, reset, second_administrator, take};
use crate::webhooks::outbox::QUICK;

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// A key that another caller creates for the member, with its id.
async fn key_for(maker: &As<'_>, uid: &str) -> (String, String) {
    let made = maker.post(&format!("/admin/members/{uid}/api-keys"), json!({"name": "station"})).await.data();
    (text(&made["api_key"]), text(&made["id"]))
}

async fn own_key(member: &Member<'_>) -> String {
    text(&member.caller().post("/me/api-keys", json!({"name": "own"})).await.data()["api_key"])
}

async fn me(site: &Site, key: &str) -> Reply {
    site.nobody().with("x-api-key", key).get("/me").await
}

async fn is_refused(site: &Site, key: &str, why: &str) {
    let reply = me(site, key).await;
    assert_eq!((reply.is(32_501_000).status, reply.word()), (401, "invalid_key"), "{why}");
}

fn given_keys(site: &Site) -> i64 {
    // Keys that a member creates while signed in with a password that somebody else chose belong to that person.
    let sql = "select count(*) from api_keys k join members m on m.id = k.member_id
               where k.maker is not null and k.maker is not m.password_maker";
    site.number(sql)
}

// ── keys of members ──

#[tokio::test]
async fn a_member_s_key_ends_when_its_creator_loses_the_rights_and_is_not_restored() {
    let site = Site::start().await;
    site.import(json!([{"name": "play", "http_methods": "GET", "http_path": "/play"}])).await;
    let acme = site.organization("acme").await;
    for (n, way) in WAYS.into_iter().enumerate() {
        let (maker, target) = (acme.member().await, acme.member().await);
        let role = acme.role(&format!("maker{n}"), &["roster.member.create_api_key", "roster.member.list"]).await;
        acme.assign(&maker.uid, &role).await;
        let ((key, _), own) = (key_for(&maker.caller(), &target.uid).await, own_key(&target).await);
        me(&site, &key).await.done();

        take(&acme, way, &maker.uid, &role).await;

        is_refused(&site, &key, &format!("{way:?}")).await;
        assert_eq!(given_keys(&site), 0, "{way:?}");
        me(&site, &own).await.done();
        give_back(&acme, way, &maker.uid, &role).await;
        is_refused(&site, &key, &format!("{way:?}, and back")).await;
        let audit = site.admin().get("/admin/audit?action=promise.withdraw").await.data();
        assert_eq!(audit["total"], json!(n + 1), "{way:?}");
    }
}

/// Events that happen to a member whose keys others created, and whether a key survives that was created by an
/// administrator of its organization, and by one of the platform.
const MEMBER_EVENTS: [(&str, bool, bool); 10] = [
    ("leaves the organization", false, true),
    ("belongs to another one too", false, true),
    ("becomes an owner", false, true),
    ("is granted a direct right", false, true),
    ("gets another role", true, true),
    ("has its password set by an administrator", false, false),
    ("gets a new password by a link", false, false),
    ("changes its password", true, true),
    ("is suspended and active again", true, true),
    ("makes a key of its own", true, true),
];

async fn cause(acme: &Organization<'_>, bolt: &Organization<'_>, target: &Member<'_>, what: &str) {
    let (site, admin) = (acme.site, acme.site.admin());
    let at = format!("/admin/members/{}", target.uid);
    match what {
        "leaves the organization" => admin.delete(&format!("{at}/organizations/{}", acme.id)).await.done(),
        "belongs to another one too" => bolt.link(&target.uid).await,
        "becomes an owner" => acme.assign(&target.uid, &acme.role_id("tenant_owner").await).await,
        "is granted a direct right" => {
            let right = json!({"uid": target.uid, "scope_type": "system", "scope_id": "*", "module": "billing",
                "action": "admin"});
            admin.post("/admin/permissions/grant", right).await.done();
        }
        "gets another role" => acme.assign(&target.uid, &acme.role_id("viewer").await).await,
        "has its password set by an administrator" => {
            admin.patch(&at, json!({"password": "Another-horse-8"})).await.done();
        }
        "gets a new password by a link" => {
            let link = admin.post(&format!("{at}/password-link"), json!({})).await.data();
            reset(site, &text(&link["token"])).await.done();
        }
        "changes its password" => {
            let body = json!({"old_password": crate::harness::site::PASSWORD, "new_password": "Another-horse-8"});
            target.caller().post("/me/password", body).await.done();
        }
        "is suspended and active again" => {
            for way in ["deactivate", "activate"] {
                admin.post(&format!("{at}/{way}"), json!({})).await.done();
            }
        }
        "makes a key of its own" => drop(own_key(target).await),
        _ => panic!("{what}"),
    }
}

#[tokio::test]
async fn a_member_s_key_ends_when_its_member_moves_out_of_its_creator_s_reach() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let administrator = acme.member_with_role("tenant_admin").await;
    for (what, by_administrator, by_platform) in MEMBER_EVENTS {
        let target = acme.member().await;
        let (ours, _) = key_for(&administrator.caller(), &target.uid).await;
        let (platforms, _) = key_for(&site.admin(), &target.uid).await;
        let own = own_key(&target).await;
        let is_reset = ["has its password set by an administrator", "gets a new password by a link"].contains(&what);

        cause(&acme, &bolt, &target, what).await;

        for (key, lives, whose) in [
            (&ours, by_administrator, "organization's"),
            (&platforms, by_platform, "platform's"),
            (&own, !is_reset, "own"),
        ] {
            match lives {
                true => me(&site, key).await.done(),
                false => is_refused(&site, key, &format!("the {whose} key of who {what}")).await,
            }
        }
    }
}

#[tokio::test]
async fn a_caller_creates_no_key_for_a_member_with_a_direct_grant() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (administrator, target) = (acme.member_with_role("tenant_admin").await, acme.member().await);
    for uid in [&administrator.uid, &target.uid] {
        let right =
            json!({"uid": uid, "scope_type": "system", "scope_id": "*", "module": "billing", "action": "admin"});
        site.admin().post("/admin/permissions/grant", right).await.done();
    }

    let path = format!("/admin/members/{}/api-keys", target.uid);
    let refused = administrator.caller().post(&path, json!({"name": "station"})).await;

    // The caller holds the right today, and its loss would not be noticed.
    assert_eq!(refused.is(29_505_000).word(), "not_held");
    assert_eq!(given_keys(&site), 0);
}

#[tokio::test]
async fn a_member_takes_over_a_key_and_the_key_that_its_creator_knows_ends() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let (administrator, target) = (acme.member_with_role("tenant_admin").await, acme.member().await);
    let (known, id) = key_for(&administrator.caller(), &target.uid).await;

    let taken = target.caller().post(&format!("/me/api-keys/{id}/rotate"), json!({})).await.data();

    is_refused(&site, &known, "taken over").await;
    site.admin().delete(&format!("/admin/members/{}", administrator.uid)).await.done();
    me(&site, &text(&taken["api_key"])).await.done();
    assert_eq!(given_keys(&site), 0);
}

#[tokio::test]
async fn the_first_key_of_a_user_has_few_scopes_and_ends_with_its_creator_or_a_promotion() {
    let site = Site::start().await;
    site.import(json!([{"name": "play", "http_methods": "GET", "http_path": "/play"}])).await;
    let acme = site.organization("acme").await;
    let player = acme.role("player", &["play"]).await;
    for (n, (what, lives)) in [
        ("gets a role of an application", true),
        ("is granted a direct right", true),
        ("becomes a viewer", true),
        ("becomes an owner", false),
        ("its program is switched off", false),
        ("its program is narrowed", false),
        ("its program's maker is gone", false),
    ]
    .into_iter()
    .enumerate()
    {
        let (maker, assignment_path) = second_administrator(&site).await;
        let made = maker.post("/admin/api-clients", json!({"name": "shop", "scopes": ["members:write"]})).await.data();
        let at = format!("/admin/api-clients/{}", text(&made["client_key"]));
        let shop =
            site.nobody().with("x-client-key", &text(&made["client_key"])).with("x-api-key", &text(&made["api_key"]));
        let new = json!({"username": format!("kim{n}"), "email": format!("kim{n}@example.org"), "org_code": "acme"});
        let user = shop.post("/admin/users", new).await.data();
        let (key, uid) = (text(&user["api_key"]), text(&user["id"]));
        let own = site.nobody().with("x-api-key", &key).with("x-tenant-id", "acme");
        let scopes = site.admin().get(&format!("/admin/members/{uid}/api-keys")).await.data()["items"][0].clone();
        assert_eq!(scopes["scopes"], json!(["me:read", "videos:write", "quotas:read", "jobs:read"]));
        me(&site, &key).await.done();

        match what {
            "gets a role of an application" => acme.assign(&uid, &player).await,
            "is granted a direct right" => {
                let right = json!({"uid": uid, "scope_type": "system", "scope_id": "*", "module": "billing", "action": "admin"});
                site.admin().post("/admin/permissions/grant", right).await.done();
            }
            "becomes a viewer" => acme.assign(&uid, &acme.role_id("viewer").await).await,
            "becomes an owner" => acme.assign(&uid, &acme.role_id("tenant_owner").await).await,
            "its program is switched off" => site.admin().patch(&at, json!({"status": "inactive"})).await.done(),
            "its program is narrowed" => site.admin().patch(&at, json!({"scopes": ["members:read"]})).await.done(),
            _ => site.admin().with("x-tenant-id", "platform").delete(&assignment_path).await.done(),
        }

        if !lives {
            is_refused(&site, &key, what).await;
            continue;
        }
        me(&site, &key).await.done();
        for (path, body) in [
            ("/api/v1/permissions/check", json!({"uid": uid, "permission": "play"})),
            (
                "/api/v1/permissions/check",
                json!({"uid": uid, "scope_type": "system", "scope_id": "*", "module": "billing", "action": "admin"}),
            ),
        ] {
            assert_eq!(own.post(path, body).await.word(), "scope_not_allowed", "{what}");
        }
    }
}

/// A key created elsewhere: the caller who supplied its digest may know the key, except the operator of the machine.
#[tokio::test]
async fn a_key_imported_by_its_digest_has_no_grace_for_the_importer() {
    const ELSEWHERE: &str = "muser_made_elsewhere";
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let administrator = acme.member_with_role("tenant_admin").await;
    let hash: String = roster::kernel::secret::hash(ELSEWHERE).iter().map(|byte| format!("{byte:02x}")).collect();
    for (whose, rotator, works_on) in [
        ("an administrator's", "its member", false),
        ("an administrator's", "the administrator", true),
        ("the platform's", "its member", false),
    ] {
        let target = acme.member().await;
        let new = json!({"old_password": crate::harness::site::PASSWORD, "new_password": "Another-horse-8"});
        target.caller().post("/me/password", new).await.done();
        let giver = if whose == "the platform's" { site.admin() } else { administrator.caller() };
        let at = format!("/admin/members/{}/api-keys", target.uid);
        let id = text(&giver.post(&at, json!({"name": "old", "key_hash": hash})).await.data()["id"]);
        me(&site, ELSEWHERE).await.done();

        let rotated = match rotator {
            "its member" => target.caller().post(&format!("/me/api-keys/{id}/rotate"), json!({})).await.data(),
            _ => giver.post(&format!("{at}/{id}/rotate"), json!({})).await.data(),
        };

        me(&site, &text(&rotated["api_key"])).await.done();
        match works_on {
            true => me(&site, ELSEWHERE).await.done(),
            false => is_refused(&site, ELSEWHERE, &format!("{whose}, rotated by {rotator}")).await,
        }
        target.caller().delete(&format!("/me/api-keys/{id}")).await.done();
    }
}

// ── passwords ──

/// A member whose password another caller chose, signed in with it, and a key created in that session.
async fn with_chosen_password<'s>(
    acme: &Organization<'s>,
    maker: &As<'_>,
    how: &str,
) -> (Member<'s>, String, &'static str) {
    const NEW: &str = "Another-horse-8";
    let site = acme.site;
    let mut target = acme.member().await;
    let at = format!("/admin/members/{}", target.uid);
    let password = match how {
        "created" => {
            target.username = format!("c{}", uuid::Uuid::now_v7().simple());
            let new = json!({"username": target.username, "password": PASSWORD});
            target.uid = text(&maker.post("/admin/members", new).await.data()["uid"]);
            acme.link(&target.uid).await;
            PASSWORD
        }
        "set" => {
            maker.patch(&at, json!({"password": NEW})).await.done();
            NEW
        }
        _ => {
            let link = maker.post(&format!("{at}/password-link"), json!({})).await.data();
            reset(site, &text(&link["token"])).await.done();
            NEW
        }
    };
    target.token = site.token(&target.username, password).await;
    let key = own_key(&target).await;
    (target, key, password)
}

/// Events that happen to such a member or to the creator of the password, and whether the session, the password and the
/// key survive.
const PASSWORD_EVENTS: [(&str, &str, [bool; 3]); 12] = [
    ("administrator", "nothing", [true; 3]),
    ("administrator", "leaves the organization", [false; 3]),
    ("administrator", "belongs to another one too", [false; 3]),
    ("administrator", "becomes an owner", [false; 3]),
    ("administrator", "gets another role", [true; 3]),
    ("administrator", "changes its password and becomes an owner", [true, true, false]),
    ("administrator", "its maker is demoted", [false; 3]),
    ("administrator", "its maker is erased", [false; 3]),
    ("client", "nothing", [true; 3]),
    ("client", "becomes an owner", [false; 3]),
    // A client can be activated again: what it created is checked at each use.
    ("client", "its maker is switched off", [true, false, false]),
    ("client", "gets another role", [true; 3]),
];

#[tokio::test]
async fn a_password_chosen_by_another_ends_with_its_creator_s_rights_along_with_its_sessions_and_keys() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    for how in ["created", "set", "by a link"] {
        for (kind, what, lives) in PASSWORD_EVENTS {
            let administrator = acme.member_with_role("tenant_admin").await;
            let made = json!({"name": "shop", "scopes": ["members:write"]});
            let made = site.admin().post("/admin/api-clients", made).await.data();
            let client = site
                .nobody()
                .with("x-client-key", &text(&made["client_key"]))
                .with("x-api-key", &text(&made["api_key"]));
            let maker = if kind == "client" { client } else { administrator.caller() };
            let (target, key, mut password) = with_chosen_password(&acme, &maker, how).await;

            match what {
                "nothing" => {}
                "changes its password and becomes an owner" => {
                    let new = json!({"old_password": password, "new_password": "A-third-horse-9"});
                    target.caller().post("/me/password", new).await.done();
                    password = "A-third-horse-9";
                    cause(&acme, &bolt, &target, "becomes an owner").await;
                }
                "its maker is demoted" => {
                    let role = acme.role_id("tenant_admin").await;
                    take(&acme, Way::Demoted, &administrator.uid, &role).await;
                }
                "its maker is erased" => take(&acme, Way::Erased, &administrator.uid, "").await,
                "its maker is switched off" => {
                    let at = format!("/admin/api-clients/{}", text(&made["client_key"]));
                    site.admin().patch(&at, json!({"status": "inactive"})).await.done();
                }
                _ => cause(&acme, &bolt, &target, what).await,
            }

            let login = json!({"login": target.username, "password": password});
            let signed_in = site.nobody().post("/auth/login", login).await;
            let found = [target.caller().get("/me").await, signed_in, me(&site, &key).await].map(|reply| reply.status);
            assert_eq!(found, lives.map(|lives| if lives { 200 } else { 401 }), "{kind}, {how}: {what}");
        }
    }
}

#[tokio::test]
async fn a_caller_without_the_right_to_create_keys_gets_none_by_setting_a_password() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let manager = acme.member_with_role("member_manager").await;
    let new = json!({"username": "kim", "password": PASSWORD});
    manager.caller().post("/admin/members", new).await.done();
    let kim = site.token("kim", PASSWORD).await;

    let refused = site.bearer(&kim).post("/me/api-keys", json!({"name": "own"})).await;

    assert_eq!(refused.word(), "not_held");
    let change = json!({"old_password": PASSWORD, "new_password": "Another-horse-8"});
    site.bearer(&kim).post("/me/password", change).await.done();
    site.bearer(&kim).post("/me/api-keys", json!({"name": "own"})).await.done();
}

// ── clients ──

#[tokio::test]
async fn a_client_is_refused_after_its_creator_lost_the_rights_until_another_administrator_rotates_it() {
    let site = Site::start().await;
    site.organization("acme").await;
    let by_command_line = site.command(&["client", "create", "portal", "--scopes", "members:read"]);
    let of = |made: &Value| {
        site.nobody().with("x-client-key", &text(&made["client_key"])).with("x-api-key", &text(&made["api_key"]))
    };
    let list = async |made: &Value| of(made).get("/admin/members?limit=1").await;
    for way in ["demoted", "suspended", "erased"] {
        let (maker, assignment_path) = second_administrator(&site).await;
        let made =
            maker.post("/admin/api-clients", json!({"name": "office", "scopes": ["members:write"]})).await.data();
        let path = format!("/admin/api-clients/{}", text(&made["client_key"]));
        let invited = of(&made).with("x-tenant-id", "acme").post("/admin/invitations", json!({})).await.data();
        list(&made).await.done();
        let uid = text(&maker.get("/me").await.data()["uid"]);

        match way {
            "demoted" => site.admin().with("x-tenant-id", "platform").delete(&assignment_path).await.done(),
            "suspended" => site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done(),
            _ => site.admin().delete(&format!("/admin/members/{uid}")).await.done(),
        }

        let refused = list(&made).await;
        assert_eq!((refused.status, refused.word()), (401, "invalid_client"), "{way}");
        assert!(refused.body["message"].as_str().expect("text").contains("rotate"), "{refused:?}");
        is_dead(&accept(&site, &text(&invited["token"])).await, way);
        let noted = site.admin().get("/admin/audit?action=promise.withdraw&limit=200").await.data();
        let targets: Vec<&Value> = noted["items"].as_array().expect("entries").iter().map(|e| &e["target"]).collect();
        let of_client = format!("client {}", text(&made["client_key"]));
        assert_eq!(targets.iter().filter(|target| **target == of_client.as_str()).count(), 1, "{way}: {targets:?}");
        list(&by_command_line).await.done();
        // An update does not transfer responsibility: the creator still knows the secret.
        site.admin().patch(&path, json!({"rate_limit_per_min": 600})).await.done();
        assert_eq!(list(&made).await.word(), "invalid_client", "{way}");
        let rotated = site.admin().post(&format!("{path}/rotate"), json!({})).await.data();
        assert_eq!(rotated["former_valid_until"], Value::Null, "{way}");
        list(&rotated).await.done();
        assert_eq!(list(&made).await.word(), "invalid_api_key", "{way}");
    }
}

// ── webhooks ──

#[tokio::test]
async fn a_webhook_is_off_after_its_creator_lost_the_rights_until_another_caller_rotates_it() {
    let receiver = Receiver::willing();
    let site = Site::with(QUICK).await;
    let acme = site.organization("acme").await;
    for (n, way) in [Way::Demoted, Way::Suspended, Way::Unlinked, Way::Erased].into_iter().enumerate() {
        let maker = acme.member().await;
        let role = acme.role(&format!("maker{n}"), &["roster.outbox.create_webhook"]).await;
        acme.assign(&maker.uid, &role).await;
        let (id, _) = webhook(&maker.caller(), &receiver.url, &["member.created"]).await;
        let path = format!("/admin/webhooks/{id}");
        let status = async || {
            let all = acme.owner().get("/admin/webhooks").await.data();
            let found = all["items"].as_array().expect("webhooks").iter().find(|one| one["id"] == id.as_str()).cloned();
            found.expect("the webhook")["status"].clone()
        };
        assert_eq!(status().await, "active");

        take(&acme, way, &maker.uid, &role).await;

        assert_eq!(status().await, "inactive", "{way:?}");
        let unheard = format!("unheard{n}");
        acme.owner().post("/admin/members", json!({"username": unheard})).await.done();
        // Nobody is responsible for the webhook now. The owner must rotate its secret before it can activate it or
        // change its URL.
        for change in [json!({"status": "active"}), json!({"url": format!("{}/other", receiver.url)})] {
            assert_eq!(acme.owner().patch(&path, change).await.word(), "not_held", "{way:?}");
        }
        let rotated = acme.owner().post(&format!("{path}/rotate"), json!({})).await.data();
        assert_eq!(rotated["former_signed_until"], Value::Null, "{way:?}");
        acme.owner().patch(&path, json!({"status": "active"})).await.done();
        acme.owner().post("/admin/members", json!({"username": format!("heard{n}")})).await.done();
        let heard = receiver.wait_for(n + 1).await;
        let names: Vec<&Value> = heard.iter().map(|event| &event.body["data"]["username"]).collect();
        assert_eq!(names.last(), Some(&&json!(format!("heard{n}"))), "{way:?}: {names:?}");
        assert!(!names.contains(&&json!(unheard)), "{way:?}: {names:?}");
        // The owner is responsible now: further changes of the first creator have no effect, and renaming by another
        // caller does not transfer the responsibility.
        let colleague = acme.member_with(&["roster.outbox.update_webhook", "roster.outbox.create_webhook"]).await;
        colleague.caller().patch(&path, json!({"kinds": ["job.dead"]})).await.done();
        site.admin().delete(&format!("/admin/members/{}", colleague.uid)).await.done();
        site.admin().delete(&format!("/admin/members/{}", maker.uid)).await;
        assert_eq!(status().await, "active", "{way:?}");
    }
}
