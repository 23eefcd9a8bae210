//! What an organization sees of people: everything about its own members, only the id of a member who has left, and
//! nothing about their rights elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use roster::kernel::http::openapi::Operation;
use serde_json::{Value, json};

use crate::harness::callers::{As, Reply};
use crate::harness::organizations::Organization;
use crate::harness::receiver::{Answer, Receiver, webhook};
use crate::harness::site::{INTERNAL_SECRET, PASSWORD, Site};
use crate::harness::waiting::eventually;
use crate::permissions::{CHECK, DECISIONS};
use crate::plugins::decisions::{documents, permission};
use crate::videos::registration::{Media, register, service};
use crate::webhooks::outbox::QUICK;

/// Everything that names the person: username, e-mail, display name, subject, name at SFTPGo.
const NAMES: [&str; 5] = ["quill-login", "quill@example.org", "Kim Quill", "sub-quill", "quill-folder"];
const PATH: &str = "quill-folder/harbour.mp4";
const HIDDEN_PATH: &str = "former-member/harbour.mp4";

/// A member with one object of every kind in an organization.
struct SeenMember {
    uid: String,
    token: String,
    video: String,
    job: String,
    role: String,
}

async fn person(site: &Site, acme: &Organization<'_>, media: &Media) -> SeenMember {
    let body = json!({"username": NAMES[0], "email": NAMES[1], "display_name": NAMES[2], "authentik_sub": NAMES[3],
                      "password": PASSWORD});
    let made = site.admin().post("/admin/members", body).await.data();
    let uid = made["uid"].as_str().expect("uid").to_owned();
    site.admin().patch(&format!("/admin/users/{uid}"), json!({"sftpgo_username": NAMES[4]})).await.done();
    let token = site.token(NAMES[0], PASSWORD).await;
    let kim = site.bearer(&token);
    // By a link that was sent to the member's own address.
    let invited =
        acme.owner().post("/admin/invitations", json!({"role_key": "viewer", "email": NAMES[1]})).await.data();
    kim.post("/me/invitations/accept", json!({"token": invited["token"]})).await.done();
    kim.post("/me/api-keys", json!({"name": NAMES[0], "scopes": ["me:read"]})).await.done();
    let role = acme.role("readers", &[]).await;
    acme.assign(&uid, &role).await;
    media.file(PATH, 1_000);
    let video = register(&kim, PATH).await.data()["uuid"].as_str().expect("uuid").to_owned();
    let job = kim.get("/api/v1/jobs").await.data()["items"][0]["id"].as_str().expect("a job").to_owned();
    // A job that failed with an error naming a file. Written to the rows, because a real worker would need several
    // attempts.
    let failed = "update jobs set state = 'dead', last_error = 'cannot open /media/quill-folder/harbour.mp4',
                         steps = replace(steps, '\"state\":\"ready\"', '\"state\":\"failed\",\"error\":\"quill-folder/ has no sound\"')";
    site.write_rows(|rows| rows.execute(failed, [])).to_string();
    let mut question = permission(&uid, "doc.edit");
    question["context"] = json!({"mail": NAMES[1], "owner": NAMES[2]});
    acme.owner().post(CHECK, question).await.done();
    SeenMember { uid, token, video, job, role }
}

impl SeenMember {
    /// Every read operation of the document, about this member where it concerns a member.
    fn reads(&self, document: &Value, acme: &str) -> Vec<(String, String)> {
        let mut reads = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            let Some(id) = item["get"]["operationId"].as_str() else { continue };
            if id == "get_oidc_url" {
                continue;
            }
            let of_id = match path.split('/').nth(if path.starts_with("/admin") { 2 } else { 1 }).expect("an area") {
                "organizations" => acme,
                "videos" => &self.video,
                "jobs" => &self.job,
                "permissions" => &self.role,
                _ => &self.uid,
            };
            let mut place = path.clone();
            for (name, value) in [
                ("id", of_id),
                ("uid", &self.uid),
                ("member_id", &self.uid),
                ("sub", NAMES[3]),
                ("authentik_sub", NAMES[3]),
                ("org_code", "acme"),
                ("name", "x"),
                ("client_key", "x"),
            ] {
                place = place.replace(&format!("{{{name}}}"), value);
            }
            assert!(!place.contains('{'), "{path}");
            let asked = Operation { method: "get", path, id, value: &item["get"] };
            let has_keyword = asked.parameters(document).any(|parameter| parameter["name"] == "keyword");
            reads.push((id.to_owned(), format!("/api/v1{place}")));
            if has_keyword {
                reads.push((format!("{id} by keyword"), format!("/api/v1{place}?keyword=quill")));
            }
        }
        assert!(reads.len() > 50, "{}", reads.len());
        reads
    }
}

/// The names of the member that this text contains.
fn names_in(text: &str) -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| text.contains(name)).collect()
}

/// All callers that read on behalf of the organization.
async fn readers<'s>(site: &'s Site, acme: &Organization<'s>, owner_uid: &str) -> Vec<(&'static str, As<'s>)> {
    vec![
        ("an owner", acme.owner()),
        ("a client", site.client(&["*"]).await.with("x-tenant-id", "acme")),
        ("a service's key", service(site, &["*"]).await.with("x-tenant-id", "acme")),
        ("an internal service", site.internal().with("x-tenant-id", "acme")),
        (
            "a gateway",
            site.nobody()
                .with("x-internal-secret", INTERNAL_SECRET)
                .with("x-uid", owner_uid)
                .with("x-tenant-id", "acme"),
        ),
    ]
}

async fn uid_of(caller: &As<'_>) -> String {
    caller.get("/me").await.data()["uid"].as_str().expect("uid").to_owned()
}

#[tokio::test]
async fn of_a_member_who_has_left_an_organization_sees_only_the_id() {
    for moves_on in [false, true] {
        let media = Media::new();
        let site = Site::with(&format!("{}[decisions]\nallow_every = 1\n", media.settings())).await;
        site.import(documents()).await;
        let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
        let kim = person(&site, &acme, &media).await;
        let document = site.nobody().get("/api/v1/openapi.json").await.body;
        let readers = readers(&site, &acme, &uid_of(&acme.owner()).await).await;
        let reads = kim.reads(&document, &acme.id);

        // While Kim is a member, many responses contain the names; this shows that the table is useful.
        let mut seen_before: Vec<&str> = Vec::new();
        for (id, path) in &reads {
            if !names_in(&acme.owner().get(path).await.body.to_string()).is_empty() {
                seen_before.push(id);
            }
        }
        for id in [
            "list_members",
            "get_member",
            "list_users",
            "get_user",
            "list_quotas",
            "get_usage",
            "list_videos",
            "get_video",
            "list_jobs",
            "get_job",
            "list_invitations",
            "list_decisions",
            "list_member_api_keys",
            "list_videos by keyword",
        ] {
            assert!(seen_before.contains(&id), "{id}: {seen_before:?}");
        }

        if moves_on {
            bolt.link(&kim.uid).await;
        }
        acme.owner().delete(&format!("/admin/members/{}/organizations/{}", kim.uid, acme.id)).await.done();

        let mut told: Vec<String> = Vec::new();
        for (who, caller) in &readers {
            for (id, path) in &reads {
                let reply = caller.get(path).await;
                let names = names_in(&reply.body.to_string());
                if !names.is_empty() {
                    told.push(format!("{id} tells {who} {names:?}"));
                }
            }
        }
        assert!(told.is_empty(), "{told:#?}");
        the_id_stays(&acme, &kim).await;
        the_member_cannot_be_changed(&acme, &kim).await;
        // The member's own view and the site's view are complete.
        let own = site.bearer(&kim.token).get(&format!("/api/v1/videos/{}", kim.video)).await.data();
        assert_eq!(own["path"], PATH);
        assert_eq!(site.admin().get(&format!("/api/v1/jobs/{}", kim.job)).await.data()["path"], PATH);
        assert_eq!(site.admin().get("/api/v1/videos?keyword=quill").await.data()["total"], 1);
    }
}

/// The organization's own rows about the member contain the id and no other name.
async fn the_id_stays(acme: &Organization<'_>, kim: &SeenMember) {
    let owner = acme.owner();
    let video = owner.get(&format!("/api/v1/videos/{}", kim.video)).await.data();
    assert_eq!((&video["path"], &video["uid"]), (&json!(HIDDEN_PATH), &json!(kim.uid)));
    let job = owner.get(&format!("/api/v1/jobs/{}", kim.job)).await.data();
    assert_eq!(
        (&job["path"], &job["last_error"]),
        (&json!(HIDDEN_PATH), &json!("cannot open /media/former-member/harbour.mp4"))
    );
    assert!(job["steps"].to_string().contains("former-member/ has no sound"), "{job}");
    assert_eq!(owner.get("/api/v1/videos?keyword=harbour").await.data()["total"], 1);
    assert_eq!(owner.get("/api/v1/videos?keyword=quill").await.data()["total"], 0);
    let log = owner.get(&format!("{DECISIONS}?uid={}", kim.uid)).await.data();
    let row = &log["items"][0];
    assert_eq!((&row["uid"], &row["left_out"]), (&json!(kim.uid), &json!(["mail", "owner"])));
    let invitations = owner.get("/admin/invitations").await.data();
    assert_eq!(
        (&invitations["items"][0]["member_id"], &invitations["items"][0]["email"]),
        (&json!(kim.uid), &Value::Null)
    );
    let audit = owner.get("/admin/audit/export").await.body.to_string();
    assert!(audit.contains(&kim.uid), "{audit}");
}

/// Every operation that changes the member or creates something for it answers that there is no such member.
async fn the_member_cannot_be_changed(acme: &Organization<'_>, kim: &SeenMember) {
    let (owner, uid) = (acme.owner(), &kim.uid);
    let member = format!("/admin/members/{uid}");
    let rows: [(Method, String, Value); 10] = [
        (Method::PATCH, member.clone(), json!({"display_name": "Other"})),
        (Method::DELETE, member.clone(), Value::Null),
        (Method::POST, format!("{member}/activate"), json!({})),
        (Method::POST, format!("{member}/deactivate"), json!({})),
        (Method::POST, format!("{member}/password-link"), json!({})),
        (Method::DELETE, format!("{member}/second-factor"), Value::Null),
        (Method::POST, format!("{member}/api-keys"), json!({"name": "x", "scopes": ["me:read"]})),
        (Method::PATCH, format!("{member}/quota"), json!({"size": 1})),
        (Method::POST, format!("/api/v1/permissions/users/{uid}/roles"), json!({"role_id": kim.role})),
        (Method::POST, format!("/api/v1/videos/{}/transfer", kim.video), json!({"uid": uid})),
    ];
    for (method, path, body) in rows {
        let reply = owner.send(method, &path, Some(body).filter(|body| !body.is_null())).await;
        assert_eq!((reply.status, names_in(&reply.body.to_string()).len()), (404, 0), "{path}: {reply:?}");
    }
    let retried = owner.post(&format!("/api/v1/jobs/{}/retry", kim.job), json!({})).await.data();
    assert_eq!(names_in(&retried.to_string()), [""; 0]);
    let to = acme.member().await.uid;
    let transferred = owner.post(&format!("/api/v1/videos/{}/transfer", kim.video), json!({"uid": to})).await.data();
    assert_eq!((&transferred["path"], &transferred["uid"]), (&json!(HIDDEN_PATH), &json!(to)));
    assert_eq!(owner.get("/api/v1/videos?keyword=quill").await.data()["total"], 0);
    // Returned to its owner, so that everything of the member stays as it was.
    acme.site.admin().post(&format!("/api/v1/videos/{}/transfer", kim.video), json!({"uid": uid})).await.done();
}

#[tokio::test]
async fn a_webhook_and_its_retries_name_no_member_who_has_left() {
    for moves_on in [false, true] {
        let is_up = Arc::new(AtomicBool::new(false));
        let seen = is_up.clone();
        let receiver = Receiver::start(move |_, _| Answer::Status(if seen.load(Ordering::SeqCst) { 200 } else { 500 }));
        let media = Media::new();
        let settings = QUICK.replace("outbox.attempts = 3", "outbox.attempts = 1");
        let site = Site::with(&format!("{}{settings}", media.settings())).await;
        site.import(documents()).await;
        let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
        webhook(&acme.owner(), &receiver.url, &["member.updated", "video.registered"]).await;
        let whole = Receiver::willing();
        webhook(&site.admin(), &whole.url, &["member.updated", "video.registered"]).await;
        let kim = person(&site, &acme, &media).await;
        site.admin()
            .patch(&format!("/admin/members/{}", kim.uid), json!({"display_name": "Kim Quill II"}))
            .await
            .done();
        let dead = async || {
            let page = acme.owner().get("/admin/deliveries?state=dead").await.data();
            page["items"].as_array().expect("items").clone()
        };
        eventually("both were given up", async || dead().await.len() == 2).await;
        let before: Vec<String> = receiver.all().into_iter().map(|received| received.text).collect();
        assert!(before.iter().all(|text| !names_in(text).is_empty()) && before.len() == 2, "{before:?}");

        if moves_on {
            bolt.link(&kim.uid).await;
        }
        acme.owner().delete(&format!("/admin/members/{}/organizations/{}", kim.uid, acme.id)).await.done();
        is_up.store(true, Ordering::SeqCst);
        for delivery in dead().await {
            let id = delivery["id"].as_str().expect("id");
            let reply = acme.owner().post(&format!("/admin/deliveries/{id}/retry"), json!({})).await;
            reply.done();
            assert_eq!(names_in(&reply.body.to_string()), [""; 0]);
        }

        let after = receiver.wait_for(4).await.split_off(2);
        for received in &after {
            assert_eq!(names_in(&received.text), [""; 0], "{}", received.text);
            assert_eq!(received.body["member_id"], json!(kim.uid));
            let data = &received.body["data"];
            match received.body["kind"].as_str() {
                Some("member.updated") => assert_eq!(
                    data,
                    &json!({"username": null, "email": null, "display_name": null, "status": "former"})
                ),
                _ => assert_eq!(data["path"], HIDDEN_PATH),
            }
        }
        // The site's own webhook gets the names.
        let told = whole.wait_for(3).await;
        assert!(told.iter().all(|received| !names_in(&received.text).is_empty()), "{told:?}");
    }
}

// ── rights elsewhere ──

fn right(uid: &str, scope_type: &str, scope_id: &str) -> Value {
    json!({"uid": uid, "scope_type": scope_type, "scope_id": scope_id, "module": "cameras", "action": "view", "explain": true})
}

/// A response without the fields that differ for every request.
fn without_epoch(reply: &Reply) -> Value {
    let mut answer = reply.data();
    answer.as_object_mut().expect("an answer").remove("epoch");
    answer
}

#[tokio::test]
async fn callers_of_a_tenant_see_no_rights_of_other_organizations() {
    let site = Site::with("[decisions]\nallow_every = 1\n").await;
    site.import(documents()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (holder, other) = (acme.member().await.uid, acme.member().await.uid);
    bolt.link(&holder).await;
    for (scope_type, scope_id) in
        [("organization", bolt.id.as_str()), ("tenant", "bolt"), ("organization", "*"), ("tenant", acme.id.as_str())]
    {
        let right = json!({"uid": holder, "scope_type": scope_type, "scope_id": scope_id, "module": "cameras", "action": "view"});
        site.admin().post("/admin/permissions/grant", right).await.done();
    }
    let admin = uid_of(&site.admin()).await;
    let stranger = site.member().await.uid;
    let viewer = acme.member_with_role("viewer").await;
    let key = viewer.caller().post("/me/api-keys", json!({"name": "x", "scopes": ["permissions:check"]})).await.data();
    let own_people = [
        ("a viewer", viewer.caller()),
        ("an owner", acme.owner()),
        ("a viewer's key", site.nobody().with("x-api-key", key["api_key"].as_str().expect("a key"))),
        ("a gateway", site.internal().with("x-uid", &viewer.uid).with("x-tenant-id", "acme")),
    ];
    let beyond = [("organization", bolt.id.as_str()), ("tenant", "bolt"), ("organization", "*"), ("tenant", "nowhere")];
    for is_bolt_active in [true, false] {
        if !is_bolt_active {
            site.admin().post(&format!("/admin/organizations/{}/deactivate", bolt.id), json!({})).await.done();
        }
        for (who, caller) in &own_people {
            for (scope_type, scope_id) in beyond {
                let ask = async |uid: &str| without_epoch(&caller.post(CHECK, right(uid, scope_type, scope_id)).await);
                let (held, none) = (ask(&holder).await, ask(&other).await);
                assert_eq!(held, none, "{who}: {scope_type} {scope_id}");
                assert_eq!((&held["allow"], &held["reason"]), (&json!(false), &json!("no_permission")), "{who}");
                assert_eq!(held["because"]["grant_ids"], json!([]), "{who}");
            }
            // Rights that apply here are visible.
            for (scope_type, scope_id, grants) in [("tenant", acme.id.as_str(), 1), ("organization", "acme", 1)] {
                let held = caller.post(CHECK, right(&holder, scope_type, scope_id)).await.data();
                assert_eq!(held["reason"], "ok_grant", "{who}: {scope_type} {scope_id}");
                assert_eq!(held["because"]["grant_ids"].as_array().map(Vec::len), Some(grants));
            }
            // A platform administrator is an unknown member here, like any other.
            for about in ["doc.read", "roster.role.list", "roster.client.create", "nowhere"] {
                let ask = async |uid: &str| {
                    let mut question = permission(uid, about);
                    question["explain"] = json!(true);
                    without_epoch(&caller.post(CHECK, question).await)
                };
                assert_eq!(ask(&admin).await, ask(&stranger).await, "{who}: {about}");
            }
        }
    }
    // A platform administrator who is a member here has the roles assigned here.
    acme.link(&admin).await;
    let mut question = permission(&admin, "doc.read");
    question["explain"] = json!(true);
    let asked = viewer.caller().post(CHECK, question.clone()).await.data();
    assert_eq!((&asked["reason"], &asked["because"]["allowed_by"]), (&json!("no_permission"), &json!([])));
    // The site and its clients, which enforce its decisions, see both.
    let client = site.client(&["permissions:check"]).await.with("x-tenant-id", "acme");
    for caller in [acme.admin(), client] {
        assert_eq!(caller.post(CHECK, question.clone()).await.data()["reason"], "ok_role");
        let elsewhere = caller.post(CHECK, right(&holder, "organization", "*")).await.data();
        assert_eq!(elsewhere["because"]["grant_ids"].as_array().map(Vec::len), Some(1));
    }
    // Decisions that rest on such rights are not in the organization's log.
    let log = acme.owner().get(&format!("{DECISIONS}?uid={admin}&allow=true")).await.data();
    assert_eq!(log["total"], 0, "{log}");
}

#[tokio::test]
async fn a_client_in_an_organization_sees_the_rights_that_apply_there() {
    let site = Site::start().await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let made = site.admin().post("/admin/members", json!({"username": "kim", "authentik_sub": "sub-1"})).await.data();
    let uid = made["uid"].as_str().expect("uid");
    for organization in [&acme, &bolt] {
        organization.link(uid).await;
        organization.assign(uid, &organization.role_id("viewer").await).await;
    }
    for scope_id in [acme.id.as_str(), "bolt", "*"] {
        let right = json!({"uid": uid, "scope_type": "organization", "scope_id": scope_id, "module": "cameras", "action": "view"});
        site.admin().post("/admin/permissions/grant", right).await.done();
    }
    let seen = async |caller: &As<'_>| {
        let snapshot = caller.get("/internal/permissions/sub-1/snapshot").await.data();
        let texts = |list: &str, name: &str| -> Vec<String> {
            let items = snapshot[list].as_array().expect("a list").iter();
            let mut all: Vec<String> = items.map(|item| item[name].as_str().expect("text").to_owned()).collect();
            all.sort();
            all
        };
        (texts("permissions", "scope_id"), texts("roles", "org_code"))
    };
    let mut here = vec![acme.id.clone(), "*".to_owned()];
    here.sort();
    let mut all = vec![acme.id.clone(), "*".to_owned(), "bolt".to_owned()];
    all.sort();
    let client = site.client(&["permissions:check"]).await;
    for caller in [site.internal(), client] {
        assert_eq!(seen(&caller.clone().with("x-tenant-id", "acme")).await, (here.clone(), vec!["acme".to_owned()]));
        assert_eq!(seen(&caller).await, (all.clone(), vec!["acme".to_owned(), "bolt".to_owned()]));
    }
    // The rights of a subject of another organization are empty, also for a caller that asks by a filter.
    let elsewhere = site.organization("core").await;
    let upsert = site.internal().with("x-tenant-id", &elsewhere.id);
    assert_eq!(
        upsert.post("/internal/users/upsert-by-sub", json!({"sub": "sub-1"})).await.is(29_301_000).word(),
        "member_not_found"
    );
}

#[tokio::test]
async fn of_a_member_of_several_organizations_none_sees_usage_or_external_names() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let member = bolt.member().await;
    let names = json!({"sftpgo_username": "kim", "wordpress_id": 17});
    site.admin().patch(&format!("/admin/users/{}", member.uid), names).await.done();
    media.file("kim/a.mp4", 1_000);
    register(&member.caller(), "kim/a.mp4").await.done();
    let viewer = bolt.member_with_role("viewer").await;
    let seen = async |caller: As<'_>| {
        let one = caller.get(&format!("/admin/users/{}", member.uid)).await.data();
        let page = caller.get("/admin/users").await.data();
        let listed = page["items"].as_array().expect("items").iter().find(|user| user["id"] == json!(member.uid));
        assert_eq!(Some(&one), listed, "the list says the same");
        json!([one["quota_used"], one["wordpress_id"], one["sftpgo_username"], one["username"]])
    };
    let whole = json!([1_000, 17, "kim", member.username]);

    assert_eq!(seen(viewer.caller()).await, whole);
    acme.link(&member.uid).await;
    for caller in [viewer.caller(), acme.owner(), bolt.owner()] {
        assert_eq!(seen(caller).await, json!([0, null, null, member.username]));
    }
    assert_eq!(seen(site.admin()).await, whole);
}
