//! Limits on the number of members, and what a refusal reveals.

use serde_json::{Value, json};

use crate::harness::callers::Reply;
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};

#[tokio::test]
async fn the_limit_of_members_holds_for_every_way_to_create_one_and_not_one_past_it() {
    const WAYS: [&str; 7] = ["member", "user", "import", "grant", "subject", "invitation", "owner"];
    for way in WAYS {
        // The administrator, an owner, and one more member.
        let site = Site::with("limits.members = 3\n").await;
        let acme = site.organization("acme").await;
        let make = async |n: usize| {
            let (name, email) = (format!("kim{n}"), format!("kim{n}@example.org"));
            let (admin, right) =
                (site.admin(), json!({"scope_type": "system", "scope_id": "*", "module": "a", "action": "b"}));
            match way {
                "member" => admin.post("/admin/members", json!({"username": name})).await,
                "user" => admin.post("/admin/users", json!({"username": name, "email": email})).await,
                "import" => {
                    let users = json!({"users": [{"username": name, "email": email}]});
                    admin.post("/admin/users/import", users).await
                }
                "grant" => {
                    let mut body = right;
                    body["authentik_sub"] = json!(name);
                    admin.post("/admin/permissions/grant", body).await
                }
                "subject" => {
                    let body = json!({"sub": name, "username": name});
                    site.internal().post("/internal/users/upsert-by-sub", body).await
                }
                "invitation" => {
                    let made = acme.owner().post("/admin/invitations", json!({})).await.data();
                    let body = json!({"token": made["token"], "username": name, "password": PASSWORD});
                    site.nobody().post("/auth/invitations/accept", body).await
                }
                _ => {
                    let body = json!({"username": name, "password": PASSWORD});
                    acme.owner().post("/admin/members", body).await
                }
            }
        };

        make(1).await.done();
        let refused = make(2).await;

        if way == "import" {
            let failed = &refused.data()["failed"][0]["fields"][0]["message"];
            assert!(failed.as_str().expect("why").contains("limits.members"), "{failed}");
        } else {
            assert_eq!(refused.is(29_309_000).word(), "site_full", "{way}");
        }
        let count = site.rows().query_row("select count(*) from members", [], |row| row.get::<_, i64>(0));
        assert_eq!(count.expect("a number"), 3, "{way}");
    }
}

#[tokio::test]
async fn a_caller_in_one_organization_can_test_few_names_of_others() {
    let site = Site::with("auth.slow_account_failures = 3\n").await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    for n in 0..5 {
        let new = json!({"username": format!("theirs{n}"), "email": format!("theirs{n}@example.org")});
        bolt.owner().post("/admin/members", new.clone()).await.done();
        let new = json!({"username": format!("ours{n}"), "email": format!("ours{n}@example.org")});
        acme.owner().post("/admin/members", new).await.done();
    }
    let uid = acme.member().await.uid;
    let manager = acme.member_with_role("member_manager").await;
    let new = |n: usize| json!({"email": format!("theirs{n}@example.org")});
    let create = async |body: Value| manager.caller().post("/admin/members", body).await;

    // Names of its own members are not counted, because it sees them anyway.
    for n in 0..5 {
        assert_eq!(create(json!({"email": format!("ours{n}@example.org")})).await.word(), "email_exists");
    }
    assert_eq!(create(new(0)).await.word(), "email_exists");
    let patched = manager.caller().patch(&format!("/admin/members/{uid}"), new(1)).await;
    assert_eq!(patched.word(), "email_exists");
    let invited = async |n: usize| {
        let made = manager.caller().post("/admin/invitations", json!({})).await.data();
        let body = json!({"token": made["token"], "email": format!("theirs{n}@example.org"), "password": PASSWORD});
        site.nobody().post("/auth/invitations/accept", body).await
    };
    assert_eq!(invited(2).await.word(), "email_exists");
    for reply in
        [create(new(3)).await, invited(3).await, manager.caller().patch(&format!("/admin/members/{uid}"), new(3)).await]
    {
        assert_eq!((reply.status, reply.word()), (429, "too_many_failures"));
        assert!(reply.header("retry-after").is_some());
    }
    // Other callers of the same organization cannot test more names either.
    assert_eq!(acme.owner().post("/admin/members", new(3)).await.word(), "too_many_failures");
    // Callers in other organizations and of the site are not slowed down.
    bolt.owner().post("/admin/members", json!({"username": "free"})).await.done();
    for n in 0..5 {
        assert_eq!(site.admin().post("/admin/members", new(n)).await.word(), "email_exists");
    }
}

#[tokio::test]
async fn an_organization_creates_members_up_to_its_share_and_not_one_past_it() {
    // The administrator and two owners, whom the site created. One organization may use half of the remaining places.
    for (settings, part) in
        [("limits.members = 8\n", 4), ("limits.members = 8\nlimits.members_per_organization = 3\n", 3)]
    {
        let site = Site::with(settings).await;
        let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
        let make = async |organization: &Organization<'_>, name: String| {
            organization.owner().post("/admin/members", json!({"username": name})).await
        };
        let is_full = |reply: &Reply, why: &str| {
            assert_eq!(reply.is(29_309_000).word(), "site_full", "{reply:?}");
            assert!(reply.body["message"].as_str().expect("why").contains(why), "{reply:?}");
        };
        let invite = async |name: &str| {
            let made = acme.owner().post("/admin/invitations", json!({})).await.data();
            let body = json!({"token": made["token"], "username": name, "password": PASSWORD});
            site.nobody().post("/auth/invitations/accept", body).await
        };
        invite("guest").await.done();
        let mut uids = Vec::new();
        for n in 1..part {
            uids.push(make(&acme, format!("ours{n}")).await.data()["uid"].as_str().expect("uid").to_owned());
        }

        is_full(&make(&acme, "more".into()).await, "limits.members_per_organization");
        is_full(&invite("more").await, "limits.members_per_organization");
        // A member who leaves the organization still counts; an erased one does not.
        acme.owner().delete(&format!("/admin/members/{}/organizations/{}", uids[0], acme.id)).await.done();
        is_full(&make(&acme, "more".into()).await, "limits.members_per_organization");
        site.admin().delete(&format!("/admin/members/{}", uids[1])).await.done();
        make(&acme, "again".into()).await.done();
        // The other organization gets its share of the rest, and the site everything that is left.
        for n in 0..5 - part {
            make(&bolt, format!("theirs{n}")).await.done();
        }
        is_full(&make(&bolt, "more".into()).await, "the site has");
        site.admin().delete(&format!("/admin/members/{}", uids[0])).await.done();
        site.admin().post("/admin/members", json!({"username": "last"})).await.done();
        is_full(&site.admin().post("/admin/members", json!({"username": "one-more"})).await, "the site has");
    }
}
