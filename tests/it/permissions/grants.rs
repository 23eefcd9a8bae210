//! Direct grants, and the list of a member's own rights.

use serde_json::{Value, json};

use crate::harness::organizations::Organization;
use crate::harness::site::Site;

const GRANT: &str = "/admin/permissions/grant";
const REVOKE: &str = "/admin/permissions/revoke";

/// A grant to watch one video, for a subject.
fn right(sub: &str) -> Value {
    json!({"authentik_sub": sub, "scope_type": "video", "scope_id": "v1", "module": "player", "action": "watch"})
}

fn right_of(uid: &str) -> Value {
    json!({"uid": uid, "scope_type": "video", "scope_id": "v1", "module": "player", "action": "watch"})
}

async fn snapshot(site: &Site, sub: &str) -> Value {
    site.internal().get(&format!("/internal/permissions/{sub}/snapshot")).await.data()
}

fn entry(sub: &str) -> Value {
    let mut right = right(sub);
    right.as_object_mut().unwrap().remove("authentik_sub");
    right
}

// ── access ──

#[tokio::test]
async fn only_the_platform_and_api_clients_grant() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let reader = site.client(&["permissions:read"]).await;

    for path in [GRANT, REVOKE] {
        let guest = site.nobody().post(path, right("sub-1")).await;
        let stranger = site.member().await.caller().post(path, right("sub-1")).await;
        let owner = acme.owner().post(path, right("sub-1")).await;
        let by_reader = reader.post(path, right("sub-1")).await;

        assert_eq!(guest.is(29_501_000).word(), "unauthenticated");
        assert_eq!(stranger.is(29_505_000).word(), "forbidden");
        assert_eq!(owner.is(29_505_000).word(), "forbidden");
        assert_eq!(by_reader.is(32_505_000).word(), "scope_not_allowed");
    }
    assert_eq!(site.internal().get("/internal/members/by-sub/sub-1").await.word(), "member_not_found");
    site.client(&["permissions:write"]).await.post(GRANT, right("sub-1")).await.done();
}

#[tokio::test]
async fn nobody_grants_a_right_they_do_not_hold() {
    let site = Site::start().await;
    let granter = site.platform_member(&["roster.grant.create"]).await;
    let member = site.member().await;

    let without = granter.caller().post(GRANT, right_of(&member.uid)).await;
    let mut every = right_of(&granter.uid);
    every["scope_id"] = json!("*");
    site.admin().post(GRANT, every).await.done();
    let with = granter.caller().post(GRANT, right_of(&member.uid)).await;

    assert_eq!(without.is(29_505_000).word(), "not_held");
    assert_eq!(with.data()["result"], "granted");
    assert_eq!(member.caller().get("/me/permissions/snapshot").await.data()["permissions"], json!([entry("")]));
}

// ── granting ──

#[tokio::test]
async fn the_same_right_twice_is_one_grant_with_one_id() {
    let site = Site::start().await;

    let once = site.admin().post(GRANT, right("sub-1")).await;
    let twice = site.admin().post(GRANT, right("sub-1")).await;
    let mut other = right("sub-1");
    other["action"] = json!("comment");
    let another = site.admin().post(GRANT, other).await;

    assert_eq!((&once.data(), once.epoch()), (&twice.data(), twice.epoch()));
    assert_eq!(once.data()["result"], "granted");
    assert_ne!(another.data()["permission_id"], once.data()["permission_id"]);
    assert_eq!(site.admin().get("/admin/audit?action=grant.create").await.data()["total"], 2);
}

#[tokio::test]
async fn an_unknown_subject_becomes_an_active_member() {
    let site = Site::start().await;
    let mut body = right("sub-1");
    body["email"] = json!("kim@example.org");
    body["display_name"] = json!("Kim");

    site.admin().post(GRANT, body.clone()).await.done();
    body["display_name"] = json!("Mallory");
    site.admin().post(GRANT, body).await.done();

    let kim = site.internal().get("/internal/members/by-sub/sub-1").await.data();
    assert_eq!(
        (&kim["status"], &kim["email"], &kim["display_name"]),
        (&json!("active"), &json!("kim@example.org"), &json!("Kim"))
    );
    assert_eq!(snapshot(&site, "sub-1").await["permissions"], json!([entry("sub-1")]));
}

#[tokio::test]
async fn a_subject_with_a_taken_e_mail_is_neither_created_nor_linked() {
    let site = Site::start().await;
    let owner = site.admin().post("/admin/members", json!({"email": "kim@example.org"})).await.data();
    let mut body = right("sub-1");
    body["email"] = json!("Kim@example.org");

    let reply = site.admin().post(GRANT, body).await;

    assert_eq!(reply.is(29_303_000).word(), "email_exists");
    assert_eq!(site.internal().get("/internal/members/by-sub/sub-1").await.word(), "member_not_found");
    let revoked = site.admin().post(REVOKE, right_of(owner["uid"].as_str().unwrap())).await;
    assert_eq!(revoked.data()["deleted"], 0);
}

#[tokio::test]
async fn an_unknown_uid_is_not_created() {
    let site = Site::start().await;

    for uid in ["019abcde-0000-7000-8000-00000000dead", "x"] {
        let reply = site.admin().post(GRANT, right_of(uid)).await;
        assert_eq!(reply.is(29_301_000).word(), "user_not_found", "{uid}");
    }
    site.admin().post(GRANT, right_of("")).await.is(10_101_000);
}

#[tokio::test]
async fn a_member_is_named_by_either_uid_or_subject() {
    let site = Site::start().await;
    let mut both = right("sub-1");
    both["uid"] = json!(site.member().await.uid);
    let mut neither = right("sub-1");
    neither.as_object_mut().unwrap().remove("authentik_sub");

    for path in [GRANT, REVOKE] {
        for body in [&both, &neither] {
            let reply = site.admin().post(path, body.clone()).await;
            assert_eq!(reply.is(10_101_000).fields(), ["body.authentik_sub"]);
        }
    }
}

#[tokio::test]
async fn all_bad_fields_of_a_grant_are_reported_together() {
    let site = Site::start().await;
    let body = json!({"authentik_sub": "", "email": "x", "display_name": "", "scope_type": "Video", "scope_id": "\n",
        "action": "*", "effect": "allow"});

    let granted = site.admin().post(GRANT, body.clone()).await;
    let revoked = site.admin().post(REVOKE, body).await;

    let named = |reply: &crate::harness::callers::Reply| {
        let mut fields = reply.is(10_101_000).fields();
        fields.dedup();
        fields
    };
    let all = ["action", "authentik_sub", "display_name", "effect", "email", "module", "scope_id", "scope_type"];
    assert_eq!(named(&granted), all.map(|name| format!("body.{name}")));
    assert_eq!(named(&revoked), all.map(|name| format!("body.{name}")));
}

#[tokio::test]
async fn every_part_of_a_right_holds_at_its_limit_and_not_one_past_it() {
    let site = Site::start().await;
    for (name, longest, too_long) in [
        ("scope_type", "a".repeat(64), "a".repeat(65)),
        ("module", "a".repeat(64), "a".repeat(65)),
        ("action", "a.b-c_9".to_owned(), "_a".to_owned()),
        ("scope_id", "é".repeat(128), "é".repeat(129)),
        ("scope_id", "*".to_owned(), String::new()),
    ] {
        let body = |text: &str| {
            let mut body = right("sub-1");
            body[name] = json!(text);
            body
        };
        site.admin().post(GRANT, body(&longest)).await.done();
        let mut fields = site.admin().post(GRANT, body(&too_long)).await.is(10_101_000).fields();
        fields.dedup();
        assert_eq!(fields, [format!("body.{name}")], "{too_long}");
    }
}

#[tokio::test]
async fn the_number_of_grants_is_limited() {
    let site = Site::with("limits.grants = 1").await;
    let first = site.admin().post(GRANT, right("sub-1")).await.data();

    let one_more = site.admin().post(GRANT, right("sub-2")).await;

    assert_eq!(one_more.is(10_101_000).fields(), ["body.scope_id"]);
    assert_eq!(site.internal().get("/internal/members/by-sub/sub-2").await.word(), "member_not_found");
    assert_eq!(site.admin().post(GRANT, right("sub-1")).await.data(), first);
    site.admin().post(REVOKE, right("sub-1")).await.done();
    site.admin().post(GRANT, right("sub-2")).await.done();
}

#[tokio::test]
async fn a_refused_grant_leaves_no_member_behind() {
    let site = Site::start().await;
    let granter = site.platform_member(&["roster.grant.create"]).await;

    granter.caller().post(GRANT, right("sub-1")).await.is(29_505_000);

    assert_eq!(site.internal().get("/internal/members/by-sub/sub-1").await.word(), "member_not_found");
}

// ── listing ──

const GRANTS: &str = "/admin/permissions/grants";

#[tokio::test]
async fn the_grants_of_a_member_are_listed_in_order_by_page_and_by_kind() {
    let site = Site::start().await;
    let (member, other) = (site.member().await, site.member().await);
    let granted = async |uid: &str, scope_type: &str, scope_id: &str, module: &str| {
        let body =
            json!({"uid": uid, "scope_type": scope_type, "scope_id": scope_id, "module": module, "action": "view"});
        site.admin().post(GRANT, body).await.data()["permission_id"].clone()
    };
    let south = granted(&member.uid, "site", "south", "cameras").await;
    let north = granted(&member.uid, "site", "north", "doors").await;
    let video = granted(&member.uid, "video", "v1", "player").await;
    granted(&other.uid, "site", "south", "cameras").await;

    let admin = site.admin();
    let list = async |rest: &str| admin.get(&format!("{GRANTS}?member={}{rest}", member.uid)).await.data();
    let ids = |answer: &Value| -> Vec<Value> {
        answer["items"].as_array().expect("items").iter().map(|one| one["permission_id"].clone()).collect()
    };
    let all = list("").await;
    assert_eq!((ids(&all), &all["total"]), (vec![north.clone(), south.clone(), video.clone()], &json!(3)));
    let first = &all["items"][0];
    assert_eq!(
        (&first["scope_type"], &first["scope_id"], &first["module"], &first["action"], &first["in_effect"]),
        (&json!("site"), &json!("north"), &json!("doors"), &json!("view"), &json!(true))
    );
    assert!(first["created_at"].as_i64().is_some_and(|at| at > 0));
    assert_eq!(ids(&list("&scope_type=site").await), [north.clone(), south.clone()]);
    assert_eq!(ids(&list("&module=cameras").await), std::slice::from_ref(&south));
    assert!(ids(&list("&scope_type=video&module=cameras").await).is_empty());
    let page = list("&limit=2").await;
    assert_eq!(ids(&page), [north, south]);
    let next = page["next"].as_str().expect("a next page");
    assert_eq!(ids(&list(&format!("&limit=2&after={next}")).await), std::slice::from_ref(&video));
    assert_eq!(ids(&list("&limit=2&offset=2").await), [video]);
}

#[tokio::test]
async fn a_grant_of_an_inactive_organization_is_listed_as_without_effect() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = site.member().await;
    let body =
        json!({"uid": member.uid, "scope_type": "organization", "scope_id": acme.id, "module": "a", "action": "b"});
    site.admin().post(GRANT, body).await.done();
    site.admin().post(&format!("/admin/organizations/{}/deactivate", acme.id), json!({})).await.done();

    let list = site.admin().get(&format!("{GRANTS}?member={}", member.uid)).await.data();

    assert_eq!(list["items"][0]["in_effect"], false);
    assert_eq!(member.caller().get("/me/permissions/snapshot").await.data()["permissions"], json!([]));
}

#[tokio::test]
async fn the_grants_of_nobody_are_an_error_and_a_member_must_be_named() {
    let site = Site::start().await;
    let member = site.member().await;
    site.admin().post(GRANT, right_of(&member.uid)).await.done();
    for unknown in ["nobody", "019abcde-0000-7000-8000-000000000009"] {
        let reply = site.admin().get(&format!("{GRANTS}?member={unknown}")).await;
        assert_eq!(reply.is(29_301_000).word(), "user_not_found", "{unknown}");
    }
    site.admin().delete(&format!("/admin/members/{}", member.uid)).await.done();
    site.admin().get(&format!("{GRANTS}?member={}", member.uid)).await.is(29_301_000);
    assert_eq!(site.admin().get(GRANTS).await.is(10_101_000).fields(), ["query.member"]);
    let reader = site.client(&["permissions:read"]).await;
    assert_eq!(reader.get(&format!("{GRANTS}?member=nobody")).await.word(), "user_not_found");
    let owner = site.organization("acme").await.owner();
    assert_eq!(owner.get(&format!("{GRANTS}?member={}", member.uid)).await.is(29_505_000).word(), "forbidden");
}

// ── revoking ──

#[tokio::test]
async fn a_revoked_grant_is_gone_and_revoking_again_deletes_nothing() {
    let site = Site::start().await;
    let first = site.admin().post(GRANT, right("sub-1")).await.data();

    let gone = site.admin().post(REVOKE, right("sub-1")).await.data();
    let again = site.admin().post(REVOKE, right("sub-1")).await.data();

    assert_eq!(gone, json!({"deleted": 1, "result": "revoked"}));
    assert_eq!(again, json!({"deleted": 0, "result": "revoked"}));
    assert_eq!(snapshot(&site, "sub-1").await["permissions"], json!([]));
    assert_ne!(site.admin().post(GRANT, right("sub-1")).await.data()["permission_id"], first["permission_id"]);
}

#[tokio::test]
async fn revoking_from_an_unknown_member_is_an_error() {
    let site = Site::start().await;

    let reply = site.admin().post(REVOKE, right("sub-1")).await;

    assert_eq!(reply.is(29_301_000).word(), "user_not_found");
}

#[tokio::test]
async fn the_scope_star_is_revoked_separately() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let mut every = right_of(&member.uid);
    every["scope_id"] = json!("*");
    site.admin().post(GRANT, every.clone()).await.done();

    assert_eq!(site.admin().post(REVOKE, right_of(&member.uid)).await.data()["deleted"], 0);
    assert_eq!(allowed(&acme, &member.uid).await, (json!(true), json!("ok_grant")));
    assert_eq!(site.admin().post(REVOKE, every).await.data()["deleted"], 1);
    assert_eq!(allowed(&acme, &member.uid).await, (json!(false), json!("no_permission")));
}

async fn allowed(organization: &Organization<'_>, uid: &str) -> (Value, Value) {
    let decision = organization.check(right_of(uid)).await;
    (decision["allow"].clone(), decision["reason"].clone())
}

// ── the snapshot ──

#[tokio::test]
async fn an_unauthenticated_caller_and_a_client_have_no_rights_of_their_own_to_list() {
    let site = Site::start().await;

    for caller in [site.nobody(), site.internal(), site.client(&["*"]).await] {
        let reply = caller.get("/me/permissions/snapshot").await;
        assert_eq!(reply.is(28_501_000).word(), "missing_bearer_token");
    }
    let people = site.admin().get("/internal/permissions/sub-1/snapshot").await;
    assert_eq!(people.is(29_501_000).word(), "unauthenticated");
    let unscoped = site.client(&["members:read"]).await.get("/internal/permissions/sub-1/snapshot").await;
    assert_eq!(unscoped.is(32_505_000).word(), "scope_not_allowed");
}

#[tokio::test]
async fn a_snapshot_shows_the_rights_and_roles_that_are_in_force() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let viewer = acme.member_with_role("viewer").await;
    site.admin().post(GRANT, right_of(&viewer.uid)).await.done();

    let reply = viewer.caller().get("/me/permissions/snapshot").await;

    let role = json!({"organization_id": acme.id, "org_code": "acme", "role_key": "viewer"});
    let epoch = reply.data()["epoch"].clone();
    assert!(epoch.as_u64().unwrap() > 1);
    let whole =
        json!({"authentik_sub": null, "uid": viewer.uid, "permissions": [entry("")], "roles": [role], "epoch": epoch});
    assert_eq!(reply.data(), whole);
}

#[tokio::test]
async fn a_snapshot_is_narrowed_by_scope_type_and_module() {
    let site = Site::start().await;
    for (scope_type, module) in [("video", "player"), ("video", "editor"), ("album", "player")] {
        let body = json!({"authentik_sub": "sub-1", "scope_type": scope_type, "scope_id": "1", "module": module, "action": "use"});
        site.admin().post(GRANT, body).await.done();
    }
    let at = "/internal/permissions/sub-1/snapshot";
    for (query, count) in [
        ("", 3),
        ("?scope_type=video", 2),
        ("?module=player", 2),
        ("?scope_type=video&module=player", 1),
        ("?scope_type=%25", 0),
        (&format!("?module={}", "m".repeat(64)), 0),
    ] {
        let found = site.internal().get(&format!("{at}{query}")).await.data();
        assert_eq!(found["permissions"].as_array().map(Vec::len), Some(count), "{query}");
    }
    let too_long = site.internal().get(&format!("{at}?scope_type={}&module={0}", "m".repeat(65))).await;
    assert_eq!(too_long.is(10_101_000).fields(), ["query.module", "query.scope_type"]);
}

#[tokio::test]
async fn a_snapshot_with_a_matching_etag_is_not_sent_again() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    let member = acme.member().await;
    let first = member.caller().get("/me/permissions/snapshot").await;
    let etag = first.header("etag").unwrap().to_owned();
    // An unrelated change on the site.
    site.member().await;
    let again = async |sent: &str| member.caller().with("if-none-match", sent).get("/me/permissions/snapshot").await;

    let known = again(&etag).await;
    assert_eq!((known.status, &known.body, known.header("etag")), (304, &json!(""), Some(etag.as_str())));
    assert_eq!(again(&format!("\"x\", {etag}")).await.status, 304);
    assert_eq!(again("*").await.status, 304);
    assert_eq!(again("\"x\"").await.status, 200);
    site.admin().post(GRANT, right_of(&member.uid)).await.done();
    let granted = again(&etag).await;
    assert_ne!((granted.status, granted.header("etag")), (304, Some(etag.as_str())));
    acme.assign(&member.uid, &acme.role_id("viewer").await).await;
    assert_eq!(again(granted.header("etag").unwrap()).await.status, 200);
    site.admin().post(REVOKE, right_of(&member.uid)).await.done();
}

#[tokio::test]
async fn an_etag_weakened_by_a_proxy_still_matches() {
    let site = Site::start().await;
    let member = site.member().await;
    let etag = member.caller().get("/me/permissions/snapshot").await.header("etag").unwrap().to_owned();

    // RFC 9110 §13.1.2: If-None-Match uses the weak comparison, and a proxy that compresses weakens the tag.
    let reply = member.caller().with("if-none-match", &format!("W/{etag}")).get("/me/permissions/snapshot").await;

    assert_eq!(reply.status, 304);
}

#[tokio::test]
async fn a_filtered_snapshot_has_its_own_etag() {
    let site = Site::start().await;
    site.admin().post(GRANT, right("sub-1")).await.done();
    let at = "/internal/permissions/sub-1/snapshot";

    let etag = site.internal().get(at).await.header("etag").unwrap().to_owned();
    let narrowed = site.internal().with("if-none-match", &etag).get(&format!("{at}?module=editor")).await;

    assert_eq!(narrowed.data()["permissions"], json!([]));
}

#[tokio::test]
async fn the_rights_of_a_member_end_with_a_suspension_and_return_with_activation() {
    let site = Site::start().await;
    site.admin().post(GRANT, right("sub-1")).await.done();
    let uid = snapshot(&site, "sub-1").await["uid"].as_str().unwrap().to_owned();

    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    assert_eq!(snapshot(&site, "sub-1").await["permissions"], json!([]));

    site.admin().post(&format!("/admin/members/{uid}/activate"), json!({})).await.done();
    assert_eq!(snapshot(&site, "sub-1").await["permissions"], json!([entry("sub-1")]));
}

#[tokio::test]
async fn rights_end_at_once_when_their_organization_becomes_inactive() {
    let site = Site::start().await;
    let acme = site.organization("acme").await;
    for (scope_type, scope_id) in [("organization", acme.id.as_str()), ("tenant", "acme"), ("video", "acme")] {
        let body = json!({"authentik_sub": "sub-1", "scope_type": scope_type, "scope_id": scope_id, "module": "m", "action": "a"});
        site.admin().post(GRANT, body).await.done();
    }

    site.admin().post(&format!("/admin/organizations/{}/deactivate", acme.id), json!({})).await.done();

    let left = snapshot(&site, "sub-1").await["permissions"].clone();
    assert_eq!((left.as_array().map(Vec::len), &left[0]["scope_type"]), (Some(1), &json!("video")));
}

#[tokio::test]
async fn a_service_lists_the_rights_of_an_existing_subject() {
    let site = Site::start().await;
    site.admin().post(GRANT, right("a/b c")).await.done();

    let found = site.internal().get("/internal/permissions/a%2Fb%20c/snapshot").await;

    assert_eq!(found.data()["authentik_sub"], "a/b c");
    for sub in ["nobody", "%ff", "%00", "A%2FB%20C"] {
        let reply = site.internal().get(&format!("/internal/permissions/{sub}/snapshot")).await;
        assert_eq!(reply.is(29_301_000).word(), "user_not_found", "{sub}");
    }
}

#[tokio::test]
async fn the_next_member_with_an_erased_members_subject_has_none_of_its_grants() {
    let site = Site::start().await;
    site.admin().post(GRANT, right("sub-1")).await.done();
    let uid = snapshot(&site, "sub-1").await["uid"].as_str().unwrap().to_owned();

    site.admin().delete(&format!("/admin/members/{uid}")).await.done();
    site.internal().post("/internal/users/upsert-by-sub", json!({"sub": "sub-1"})).await.done();

    let next = snapshot(&site, "sub-1").await;
    assert_ne!(next["uid"], uid);
    assert_eq!(next["permissions"], json!([]));
}
