//! Who creates and sees API keys: of members, of services, imported ones, and by the command line.

use roster::kernel::ids::Timestamp;
use roster::kernel::secret;
use serde_json::{Value, json};

use super::{DAY_MS, hex, is_refused, key_of, me, of_service, plain, with};
use crate::harness::site::Site;

// ── ownership ──

#[tokio::test]
async fn a_foreign_members_key_is_answered_like_a_missing_one() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, other) = (acme.member().await, acme.member().await);
    let key = plain(&member).await;

    for caller in [other.caller(), site.admin()] {
        let revoked = caller.delete(&format!("/me/api-keys/{}", key.id)).await;
        assert_eq!(revoked.is(32_301_000).word(), "api_key_not_found");
        let rotated = caller.post(&format!("/me/api-keys/{}/rotate", key.id), json!({})).await;
        assert_eq!(rotated.is(32_301_000).word(), "api_key_not_found");
    }
    let by_other = format!("/admin/members/{}/api-keys/{}", other.uid, key.id);
    assert_eq!(acme.owner().delete(&by_other).await.is(32_301_000).word(), "api_key_not_found");
    let foreign = format!("/admin/members/{}/api-keys", member.uid);
    assert_eq!(bolt.owner().get(&foreign).await.is(29_301_000).word(), "member_not_found");
    assert_eq!(bolt.owner().delete(&format!("{foreign}/{}", key.id)).await.word(), "member_not_found");
    assert_eq!(other.caller().get("/me/api-keys").await.data()["total"], 0);
    me(&site, &key.text).await.done();
}

#[tokio::test]
async fn a_members_keys_are_created_by_callers_that_may_change_its_credentials() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (member, admin) = (acme.member().await, acme.member_with_role("tenant_admin").await);
    let manager = acme.member_with_role("member_manager").await;
    let both = acme.member().await;
    bolt.link(&both.uid).await;
    let at = |uid: &str| format!("/admin/members/{uid}/api-keys");
    let body = json!({"name": "station", "type": "mint", "scopes": ["videos:write"]});

    let made = admin.caller().post(&at(&member.uid), body.clone()).await.data();
    assert_eq!((&made["type"], &made["scopes"]), (&json!("mint"), &json!(["videos:write"])));
    let entry = acme.owner().get("/admin/audit?limit=1").await.data()["items"][0].clone();
    assert_eq!((&entry["action"], &entry["after"]["member"]), (&json!("api_key.create"), &json!(member.uid)));
    let key = key_of(&made);
    let rotated = admin.caller().post(&format!("{}/{}/rotate", at(&member.uid), key.id), json!({})).await.data();
    assert_eq!(admin.caller().get(&at(&member.uid)).await.data()["items"][0]["id"], rotated["id"]);

    let owner = acme.member_with_role("tenant_owner").await;
    for (caller, uid, word) in [
        (manager.caller(), &member.uid, "forbidden"),
        (member.caller(), &member.uid, "forbidden"),
        (admin.caller(), &owner.uid, "not_held"),
        (admin.caller(), &both.uid, "forbidden"),
    ] {
        assert_eq!(caller.post(&at(uid), body.clone()).await.is(29_505_000).word(), word);
    }
    // An organization does not see the names and scopes of the keys that a shared member created itself.
    both.caller().post("/me/api-keys", json!({"name": "bolt"})).await.done();
    for caller in [admin.caller(), owner.caller()] {
        assert_eq!(caller.get(&at(&both.uid)).await.is(29_505_000).word(), "forbidden");
    }
    assert_eq!(site.admin().get(&at(&both.uid)).await.data()["items"][0]["name"], "bolt");
    let missing = site.admin().post(&at("019abcde-0000-7000-8000-00000000dead"), body).await;
    assert_eq!(missing.is(29_301_000).word(), "member_not_found");
    admin.caller().delete(&format!("{}/{}", at(&member.uid), key.id)).await.done();
}

#[tokio::test]
async fn a_list_shows_everything_of_a_key_except_its_secret() {
    let mut site = Site::start().await;
    let (key, token) = {
        let member = site.member().await;
        (plain(&member).await, member.token)
    };
    me(&site, &key.text).await.done();

    // The last use is written in batches, at the latest when the server stops.
    site.restart().await;

    let shown = site.bearer(&token).get("/me/api-keys").await.data()["items"][0].clone();
    let mut names: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names.join(" "),
        "created_at expires_at expires_soon former_valid_until id is_imported last_used_address last_used_at member_id \
         name scopes service_name spent type"
    );
    assert_eq!(shown["last_used_address"], "127.0.0.1");
    assert!((Timestamp::now().0 - shown["last_used_at"].as_i64().unwrap()).abs() < 60_000);
}

#[tokio::test]
async fn a_repeated_creation_creates_no_second_key_and_shows_no_secret_again() {
    let site = Site::start().await;
    let member = site.member().await;
    let caller = member.caller().with("idempotency-key", "once");

    caller.post("/me/api-keys", json!({"name": "laptop"})).await.done();
    let again = caller.post("/me/api-keys", json!({"name": "laptop"})).await;

    assert_eq!(again.is(32_309_000).word(), "secret_not_kept");
    assert_eq!(member.caller().get("/me/api-keys").await.data()["total"], 1);
}

#[tokio::test]
async fn the_number_of_keys_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::with("limits.api_keys_per_member = 2\nlimits.service_keys = 1").await;
    let (member, other) = (site.member().await, site.member().await);
    let first = plain(&member).await;
    plain(&member).await;

    let third = member.caller().post("/me/api-keys", json!({"name": "k"})).await;

    assert_eq!(third.is(10_101_000).fields(), ["body.name"]);
    plain(&other).await;
    member.caller().delete(&format!("/me/api-keys/{}", first.id)).await.done();
    plain(&member).await;
    of_service(&site, &["jobs:read"]).await;
    let body = json!({"service_name": "other", "scopes": ["jobs:read"]});
    assert_eq!(site.admin().post("/admin/api-keys", body).await.is(10_101_000).fields(), ["body.name"]);
}

// ── services ──

#[tokio::test]
async fn a_services_key_checks_permissions_in_the_tenant_it_names_and_has_no_profile() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    let key = of_service(&site, &["permissions:check"]).await;
    let question = json!({"uid": viewer.uid, "permission": "roster.role.list"});
    let check = "/api/v1/permissions/check";

    let here = with(&site, &key.text).with("x-tenant-id", "acme").post(check, question.clone()).await;
    assert_eq!(here.data()["allow"], true);
    let nowhere = site.bearer(&key.text).post(check, question.clone()).await;
    assert_eq!(nowhere.is(10_101_000).fields(), ["header.X-Tenant-ID"]);
    let lacking = of_service(&site, &["members:write"]).await;
    let lacking = with(&site, &lacking.text).with("x-tenant-id", "acme").post(check, question).await;
    assert_eq!(lacking.is(31_505_000).word(), "scope_not_allowed");
    let everything = of_service(&site, &["*"]).await;
    for path in ["/me", "/me/permissions/snapshot"] {
        assert_eq!(with(&site, &everything.text).get(path).await.is(29_505_000).word(), "forbidden", "{path}");
    }
    assert_eq!(site.bearer(&everything.text).get("/admin/members").await.is(29_505_000).word(), "forbidden");
}

#[tokio::test]
async fn services_keys_are_created_by_the_platform_with_scopes_that_the_caller_holds() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let platform = site.admin().get("/admin/organizations?keyword=platform").await.data()["items"][0]["id"].clone();
    let platform = crate::harness::organizations::Organization {
        site: &site,
        id: platform.as_str().unwrap().into(),
        owner_token: String::new(),
    };
    let keeper = platform
        .member_with(&[
            "roster.api_key.create",
            "roster.api_key.rotate",
            "roster.audit.list",
            "roster.audit.head",
            "roster.audit.export",
            "roster.audit.verify",
        ])
        .await;
    let body = |scope: &str| json!({"service_name": "transcoder", "scopes": [scope]});

    assert_eq!(acme.owner().post("/admin/api-keys", body("audit:read")).await.is(32_505_000).word(), "forbidden");
    assert_eq!(keeper.caller().post("/admin/api-keys", body("members:write")).await.is(32_505_000).word(), "not_held");
    let made = keeper.caller().post("/admin/api-keys", body("audit:read")).await.data();
    assert_eq!((&made["type"], &made["name"]), (&json!("msvc"), &json!("transcoder")));
    let strong = of_service(&site, &["*"]).await;
    let rotated = keeper.caller().post(&format!("/admin/api-keys/{}/rotate", strong.id), json!({})).await;
    assert_eq!(rotated.is(32_505_000).word(), "not_held");
    let own = format!("/admin/api-keys/{}", key_of(&made).id);
    keeper.caller().post(&format!("{own}/rotate"), json!({})).await.done();
    assert_eq!(keeper.caller().delete(&own).await.is(32_505_000).word(), "forbidden");
    // This operation protects a member's key like the one below its member.
    let members = plain(&acme.member().await).await;
    let at = format!("/admin/api-keys/{}/rotate", members.id);
    assert_eq!(keeper.caller().post(&at, json!({})).await.is(32_505_000).word(), "forbidden");
    let list = site.admin().get("/admin/api-keys?keyword=TRANS").await.data();
    assert_eq!((&list["total"], &list["items"][0]["service_name"]), (&json!(2), &json!("transcoder")));
    site.admin().delete(&own).await.done();
    site.admin().delete(&format!("/admin/api-keys/{}", members.id)).await.done();
    is_refused(&site, &members.text, "revoked by its id alone").await;
}

// ── imported keys ──

/// A key as the predecessor of Roster created them: without a secret part of its own.
const OLD: &str = "muser_0123456789abcdef0123456789abcdef_1700000000_89abcdef";

#[tokio::test]
async fn an_imported_key_works_by_its_hash() {
    let mut site = Site::start().await;
    let (uid, token) = {
        let member = site.member().await;
        (member.uid, member.token)
    };
    let at = format!("/admin/members/{uid}/api-keys");
    let body = json!({"name": "old", "key_hash": hex(&secret::hash(OLD))});
    is_refused(&site, OLD, "not known yet").await;

    let made = site.admin().post(&at, body.clone()).await.data();

    assert_eq!(made["api_key"], Value::Null);
    assert_eq!(me(&site, OLD).await.data()["uid"], json!(uid));
    site.bearer(OLD).get("/me").await.done();
    is_refused(&site, &OLD.replace('8', "9"), "another").await;
    let again = site.admin().post(&at, body).await;
    assert_eq!(again.is(32_303_000).word(), "api_key_exists");
    let late = json!({"name": "old", "key_hash": hex(&secret::hash("muser_x")), "expires_at": Timestamp::now().0 + 91 * DAY_MS});
    assert_eq!(site.admin().post(&at, late).await.is(10_101_000).fields(), ["body.expires_at"]);

    // It is rotated into a key of Roster's form, and accepted during the grace period, also after a restart.
    let rotate = format!("{at}/{}/rotate", made["id"].as_str().unwrap());
    let key = key_of(&site.admin().post(&rotate, json!({})).await.data());
    for _ in 0..2 {
        me(&site, OLD).await.done();
        me(&site, &key.text).await.done();
        site.restart().await;
    }
    site.bearer(&token).delete(&format!("/me/api-keys/{}", key.id)).await.done();
    is_refused(&site, OLD, "revoked").await;
}

// ── command line ──

#[tokio::test]
async fn keys_by_command() {
    let mut site = Site::start().await;
    let uid = site.member().await.uid;

    let made = site.command(&["key", "create", "laptop", "--member", &uid, "--type", "mint", "--scopes", "me:read"]);
    let key = key_of(&made);
    assert_eq!((&made["type"], &made["scopes"]), (&json!("mint"), &json!(["me:read"])));
    me(&site, &key.text).await.done();
    // The id without hyphens, as in the text, names the key too.
    let rotated = key_of(&site.command(&["key", "rotate", &key.id.replace('-', "")]));
    me(&site, &rotated.text).await.done();
    assert_eq!(site.command(&["key", "list", "--member", &uid])["items"][0]["id"], json!(key.id));
    site.command(&["key", "revoke", &key.id]);
    is_refused(&site, &rotated.text, "revoked").await;

    let service = site.command_while_stopped(&["key", "create", "jobs", "--service", "transcoder", "--scopes", "*"]);
    assert_eq!((&service["type"], &service["name"]), (&json!("msvc"), &json!("jobs")));
    assert_eq!(site.command(&["key", "list"])["total"], 1);
    site.command(&["key", "import", "old", "--member", &uid, "--hash", &hex(&secret::hash(OLD))]);
    assert_eq!(me(&site, OLD).await.data()["uid"], json!(uid));
}

#[tokio::test]
async fn signing_keys_by_command() {
    let site = Site::start().await;
    let before = site.command(&["signing-key", "list"])["items"].clone();

    let after = site.command(&["signing-key", "rotate"])["items"].clone();

    assert_eq!((before.as_array().unwrap().len(), after.as_array().unwrap().len()), (1, 2));
    assert_eq!((&after[0]["signs"], &after[1]["id"]), (&json!(true), &before[0]["id"]));
    site.admin().get("/me").await.done();
    assert_ne!(after[0]["id"], before[0]["id"]);
}
