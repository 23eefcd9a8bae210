//! Folders belong to SFTPGo usernames, or to usernames that the site assigned. Nobody gets access to a folder by taking
//! its name.

use serde_json::{Value, json};

use super::registration::{Media, register, service};
use crate::harness::callers::As;
use crate::harness::organizations::Organization;
use crate::harness::site::{PASSWORD, Site};

/// A way to get a username, and whether it counts as assigned by the site.
type Source = (&'static str, bool);

const WAYS: [Source; 17] = [
    ("a platform administrator creates", true),
    ("a platform administrator in a tenant creates", false),
    ("a platform administrator names", true),
    ("a platform administrator says whose a tenant's choice is", true),
    ("a platform administrator sends again what a tenant chose", false),
    ("an internal service sends again what a tenant chose", false),
    ("a client creates", true),
    ("a client names", true),
    ("the command line creates", true),
    ("an internal service upserts", true),
    ("a user is created with it", true),
    ("a tenant's owner creates", false),
    ("a tenant's owner names", false),
    ("a client in a tenant creates", false),
    ("a client in a tenant names", false),
    ("an internal service upserts in a tenant", false),
    ("an invited person chooses", false),
];

async fn create(caller: &As<'_>, body: Value) -> String {
    caller.post("/admin/members", body).await.data()["uid"].as_str().expect("uid").to_owned()
}

/// Gives a new member this username in this way and returns the member.
async fn give_username(site: &Site, way: &str, name: &str) -> String {
    let acme = site.admin().with("x-tenant-id", "acme");
    let (admin, owner) = (site.admin(), &acme);
    let client = site.client(&["members:write"]).await;
    let inside = client.clone().with("x-tenant-id", "acme");
    let body = json!({"username": name, "password": PASSWORD});
    let nameless = async || create(owner, json!({"email": format!("{name}@example.org")})).await;
    let patch = async |caller: &As<'_>, uid: String| {
        caller.patch(&format!("/admin/members/{uid}"), json!({"username": name})).await.done();
        uid
    };
    let upsert = async |caller: As<'_>| {
        let made = caller.post("/internal/users/upsert-by-sub", json!({"sub": name, "username": name})).await.data();
        made["uid"].as_str().expect("uid").to_owned()
    };
    let tenant_owner = site.bearer(&site.token("owner", PASSWORD).await);
    match way {
        "a platform administrator creates" => create(&admin, body).await,
        "a platform administrator in a tenant creates" => create(owner, body).await,
        "a platform administrator names" => patch(&admin, nameless().await).await,
        "a platform administrator says whose a tenant's choice is" => {
            let uid = create(&tenant_owner, body).await;
            let at = format!("/admin/members/{uid}");
            let by_site = json!({"username_by_site": true});
            assert_eq!(tenant_owner.patch(&at, by_site.clone()).await.is(29_505_000).word(), "forbidden");
            admin.patch(&at, by_site).await.done();
            uid
        }
        "a platform administrator sends again what a tenant chose" => {
            let uid = create(&tenant_owner, body).await;
            patch(&admin, uid).await
        }
        "an internal service sends again what a tenant chose" => {
            upsert(site.internal().with("x-tenant-id", "acme")).await;
            upsert(site.internal()).await
        }
        "a client creates" => create(&client, body).await,
        "a client names" => patch(&client, nameless().await).await,
        "the command line creates" => {
            let made = site.command(&["member", "create", "--username", name]);
            made["uid"].as_str().expect("uid").to_owned()
        }
        "an internal service upserts" => upsert(site.internal()).await,
        "a user is created with it" => {
            let body = json!({"username": name, "email": format!("{name}@example.org")});
            admin.post("/admin/users", body).await.data()["id"].as_str().expect("id").to_owned()
        }
        "a tenant's owner creates" => create(&tenant_owner, body).await,
        "a tenant's owner names" => patch(&tenant_owner, nameless().await).await,
        "a client in a tenant creates" => create(&inside, body).await,
        "a client in a tenant names" => patch(&inside, nameless().await).await,
        "an internal service upserts in a tenant" => upsert(site.internal().with("x-tenant-id", "acme")).await,
        "an invited person chooses" => {
            let invited = tenant_owner.post("/admin/invitations", json!({})).await.data();
            let body = json!({"token": invited["token"], "username": name, "password": PASSWORD});
            site.nobody().post("/auth/invitations/accept", body).await.done();
            let token = site.token(name, PASSWORD).await;
            site.bearer(&token).get("/me").await.data()["uid"].as_str().expect("uid").to_owned()
        }
        _ => panic!("{way}"),
    }
}

/// An organization with an owner who signs in as `owner`.
async fn with_an_owner(site: &Site) -> Organization<'_> {
    let acme = site.organization("acme").await;
    let owner = create(&site.admin(), json!({"username": "owner", "password": PASSWORD})).await;
    acme.link(&owner).await;
    acme.assign(&owner, &acme.role_id("tenant_owner").await).await;
    acme
}

#[tokio::test]
async fn an_import_matches_no_member_by_a_username_that_the_site_did_not_assign() {
    let site = Site::start().await;
    with_an_owner(&site).await;
    site.organization("bolt").await;
    let import = async |row: Value| site.admin().post("/admin/users/import", json!({"users": [row]})).await.data();
    for (n, (way, is_by_site)) in WAYS.iter().enumerate() {
        let name = format!("archive-{n}");
        let uid = give_username(&site, way, &name).await;
        let seen = async || site.admin().get(&format!("/admin/users/{uid}")).await.data();
        let before = seen().await;
        let row = json!({"username": name, "email": format!("real-{n}@example.org"), "wordpress_id": 100 + n,
            "sftpgo_username": format!("real-{n}"), "org_code": "bolt"});

        let done = import(row).await;

        if *is_by_site {
            // A member with a folder of another name keeps it.
            let found = if *way == "a user is created with it" { "failed" } else { "changed" };
            assert_eq!(done[found][0]["username"], json!(name), "{way}: {done}");
            continue;
        }
        assert_eq!(done["failed"][0]["fields"][0]["field"], "username", "{way}: {done}");
        assert_eq!(seen().await, before, "{way}");
    }
}

#[tokio::test]
async fn an_import_matches_a_member_by_an_external_name_in_the_row() {
    let site = Site::start().await;
    with_an_owner(&site).await;
    for (n, identity) in [json!({"wordpress_id": 7}), json!({"sftpgo_username": "archive-1"})].into_iter().enumerate() {
        let name = format!("archive-{n}");
        let uid = give_username(&site, "a tenant's owner creates", &name).await;
        site.admin().patch(&format!("/admin/users/{uid}"), identity).await.done();
        for (number, outcome) in [(8, if n == 0 { "failed" } else { "changed" }), (7, "changed")] {
            let row = json!({"username": name, "wordpress_id": number + n, "display_name": format!("Kim {number}")});
            let done = site.admin().post("/admin/users/import", json!({"users": [row]})).await.data();
            assert_eq!(done[outcome][0]["username"], json!(name), "{done}");
        }
    }
}

#[tokio::test]
async fn username_by_site_requires_a_username() {
    let site = Site::start().await;
    let uid = create(&site.admin(), json!({"email": "kim@example.org"})).await;
    let reply = site.admin().patch(&format!("/admin/members/{uid}"), json!({"username_by_site": true})).await;
    assert_eq!(reply.is(10_101_000).fields(), ["body.username_by_site"]);
}

#[tokio::test]
async fn a_username_names_a_folder_only_if_the_site_assigned_it() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = with_an_owner(&site).await;
    let name = |n: usize| format!("archive-{n}");
    // These files exist before any member has the name.
    (0..WAYS.len()).for_each(|n| drop(media.file(&format!("{}/claimed.mp4", name(n)), 10)));
    site.admin().post("/api/v1/videos/import", json!({})).await.done();

    let mut people = Vec::new();
    for (n, (way, _)) in WAYS.iter().enumerate() {
        people.push(give_username(&site, way, &name(n)).await);
        media.file(&format!("{}/imported.mp4", name(n)), 10);
        media.file(&format!("{}/registered.mp4", name(n)), 10);
    }
    let uploads = service(&site, &["*"]).await;
    for (n, (way, is_by_site)) in WAYS.iter().enumerate() {
        let acting = uploads.clone().with("x-sftpgo-user", &name(n));
        let registered = register(&acting, &format!("{}/registered.mp4", name(n))).await;
        let reserved = acting.post("/api/v1/quota/reservations", json!({"size": 5})).await;
        for reply in [&registered, &reserved] {
            assert_eq!(reply.status, if *is_by_site { 200 } else { 404 }, "{way}: {reply:?}");
        }
    }
    site.admin().post("/api/v1/videos/claim", json!({})).await.done();
    site.admin().post("/api/v1/videos/import", json!({})).await.done();

    for (n, (way, is_by_site)) in WAYS.iter().enumerate() {
        let found = site.admin().get(&format!("/api/v1/videos?keyword={}/", name(n))).await.data();
        let owners: Vec<&Value> = found["items"].as_array().expect("items").iter().map(|video| &video["uid"]).collect();
        let expected = if *is_by_site { json!(people[n]) } else { Value::Null };
        assert_eq!(owners, vec![&expected; 3], "{way}");
    }
    // A username that the member chose gives no folder either, until the site confirms it.
    let chosen = WAYS.iter().position(|(way, _)| *way == "an invited person chooses").expect("the row");
    let person = site.bearer(&site.token(&name(chosen), PASSWORD).await);
    let path = media.file(&format!("{}/own.mp4", name(chosen)), 10);
    assert_eq!(register(&person, &path).await.word(), "not_your_folder");
    let at = format!("/admin/members/{}", people[chosen]);
    site.admin().patch(&at, json!({"username_by_site": true})).await.done();
    register(&person, &path).await.done();
    // And no longer after an organization changes it.
    let renamed = acme.owner().patch(&at, json!({"username": "archive-other"})).await;
    renamed.done();
    let path = media.file("archive-other/own.mp4", 10);
    assert_eq!(register(&person, &path).await.word(), "not_your_folder");
}
