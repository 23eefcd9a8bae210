//! How plugins decide on new videos, whatever the source of the file: which plugins are called, and what their denials
//! cause.

use serde_json::{Value, json};

use super::own_videos::commit;
use super::registration::{Media, drift, register, service};
use crate::harness::callers::{As, Reply};
use crate::harness::counterparts::{HOOK_KEY, Sftpgo};
use crate::harness::organizations::Member;
use crate::harness::site::Site;
use crate::harness::waiting::eventually;
use crate::harness::wasm_fixtures;
use crate::integrations::sftpgo::accounts::{event, hook, kim, paths, size, tell, to, used};
use crate::plugins::decisions::{Plug, bind, enforced, filtered, watched};

/// A plugin that is called only for new videos and denies with its last fact as the reason.
fn rule() -> Plug {
    filtered(json!({"permissions": ["video.register"]}), enforced("rule", wasm_fixtures::denying_with_last_fact()))
}

/// `ok`, or the error code of the failure.
fn word(reply: &Reply) -> String {
    if reply.status < 300 { "ok".into() } else { reply.word().to_owned() }
}

/// A site with these organizations: `strict` denies, `broken` has a plugin that traps, `watching` has one in watch
/// mode, `open` has no plugin, and `off` would deny but its plugin is deactivated.
struct Fixture {
    site: Site,
    media: Media,
    _secrets: tempfile::TempDir,
}

const ORGANIZATIONS: [&str; 5] = ["strict", "broken", "watching", "open", "off"];

impl Fixture {
    async fn new() -> Self {
        let (media, secrets) = (Media::new(), tempfile::tempdir().expect("a folder"));
        let key = secrets.path().join("hook");
        std::fs::write(&key, HOOK_KEY).expect("a secret");
        let site = Site::with(&format!("{}hooks.sftpgo_key_file = {key:?}\n", media.settings())).await;
        for org_code in ORGANIZATIONS {
            site.organization(org_code).await;
        }
        let trap = enforced("trap", wasm_fixtures::trapping());
        let silent = watched("silent", wasm_fixtures::denying("never"));
        bind(&site, vec![("strict", rule()), ("broken", trap), ("watching", silent), ("off", rule())]).await;
        let off = id_of(&site, "off").await;
        let off = format!("/admin/organizations/{off}");
        site.admin().patch(&off, json!({"status": "inactive"})).await.done();
        Self { site, media, _secrets: secrets }
    }

    /// A member of these organizations, with a name at SFTPGo.
    async fn member(&self, organizations: &[&str]) -> Member<'_> {
        let member = self.site.member().await;
        for org_code in organizations {
            let path = format!("/admin/members/{}/organizations/{}", member.uid, id_of(&self.site, org_code).await);
            self.site.admin().post(&path, json!({})).await.done();
        }
        let name = json!({"sftpgo_username": member.username});
        self.site.admin().patch(&format!("/admin/users/{}", member.uid), name).await.done();
        member
    }

    /// Adds a new file of the member; the request names an organization, if one is given.
    async fn add_file(&self, member: &Member<'_>, way: &str, named: Option<&str>) -> Reply {
        let path = |name: &str| self.media.file_of(member, name, 1_000);
        let told = async |action: &str, at: i64, more: Value| {
            let name =
                if more["virtual_target_path"].is_string() { "f.mp4.part".into() } else { format!("{action}.mp4") };
            let more = json!({"username": member.username, "virtual_path": format!("/{name}"), "session_id": way,
                "virtual_target_path": more["virtual_target_path"], "file_size": more["file_size"]});
            naming(hook(&self.site), named).post("/api/v1/hooks/sftpgo/events", event(action, "", at, more)).await
        };
        match way {
            "by oneself" => register(&naming(member.caller(), named), &path("a.mp4")).await,
            "by a service" => {
                let uploads = service(&self.site, &["videos:write"]).await;
                register(&naming(uploads.with("x-sftpgo-user", &member.username), named), &path("b.mp4")).await
            }
            "by a reservation" => commit(&naming(member.caller(), named), &path("c.mp4")).await,
            "before an upload" => told("pre-upload", 1, json!({})).await,
            "after an upload" => told("upload", 2, json!({"file_size": 10})).await,
            "by a rename" => told("rename", 3, json!({"virtual_target_path": "/f.mp4", "file_size": 10})).await,
            other => panic!("{other}"),
        }
    }
}

fn naming<'s>(caller: As<'s>, named: Option<&str>) -> As<'s> {
    match named {
        Some(named) => caller.with("x-tenant-id", named),
        None => caller,
    }
}

async fn id_of(site: &Site, org_code: &str) -> String {
    let all = site.admin().get("/admin/organizations?limit=100").await.data();
    let mut all = all["items"].as_array().expect("items").iter();
    let found = all.find(|organization| organization["org_code"] == org_code).expect("the organization");
    found["id"].as_str().expect("id").to_owned()
}

#[tokio::test]
async fn plugins_of_all_organizations_of_the_owner_are_called_whichever_is_named() {
    const OK: &str = "ok";
    const DENIED: &str = "forbidden";
    const API: [&str; 3] = ["by oneself", "by a reservation", "by a service"];
    const SFTPGO: [&str; 3] = ["before an upload", "after an upload", "by a rename"];
    let place = Fixture::new().await;
    // The owner's organizations, the named one, and the results: for the member, for a service, and for SFTPGo, which
    // names none.
    let cases: [(&[&str], Option<&str>, [&str; 3]); 12] = [
        (&[], None, [OK; 3]),
        (&["strict"], None, [DENIED; 3]),
        (&["open"], None, [OK; 3]),
        (&["watching"], None, [OK; 3]),
        (&["broken"], None, [DENIED; 3]),
        (&["off"], None, [OK; 3]),
        (&["strict"], Some("strict"), [DENIED; 3]),
        (&["open", "strict"], None, [DENIED; 3]),
        (&["open", "watching", "off"], None, [OK; 3]),
        (&["open", "strict"], Some("strict"), [DENIED; 3]),
        (&["open", "strict"], Some("open"), [DENIED; 3]),
        // An organization that is not the owner's decides nothing; in it a service finds no such owner.
        (&["open", "strict"], Some("watching"), [DENIED, "owner_not_found", DENIED]),
    ];
    let mut made = 0;
    for (organizations, named, [own, service, sftpgo]) in cases {
        let member = place.member(organizations).await;
        for (way, expected) in API.into_iter().zip([own, own, service]).chain(SFTPGO.map(|way| (way, sftpgo))) {
            let reply = place.add_file(&member, way, named).await;
            assert_eq!(word(&reply), expected, "{way} of {organizations:?}, named {named:?}: {reply:?}");
            made += i64::from(expected == OK && way != "before an upload");
        }
    }
    let videos: i64 =
        place.site.rows().query_row("select count(*) from videos", [], |row| row.get(0)).expect("a number");
    assert_eq!((videos, drift(&place.site)), (made, json!(0)));
}

#[tokio::test]
async fn an_upload_to_sftpgo_denied_by_a_plugin_is_no_video_and_is_in_both_logs() {
    let media = Media::new();
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}{}", sftpgo.settings(), media.settings())).await;
    let acme = site.organization("acme").await;
    acme.link(&kim(&site, 1_000).await).await;
    assert_eq!(tell(&site, event("upload", "/known.mp4", 1, size(100))).await.status, 200);
    bind(&site, vec![("acme", rule())]).await;
    let denied = async |told: Value, fact: &str| {
        let refused = tell(&site, told).await;
        assert_eq!((refused.status, refused.word()), (403, "forbidden"), "{refused:?}");
        let message = refused.body["message"].as_str().expect("a sentence");
        assert_eq!(message, format!("a rule of your organization denies this: {fact}"));
    };

    // Before an upload its size is unknown.
    denied(event("pre-upload", "/a.mp4", 2, json!({})), "sftpgo").await;
    denied(event("upload", "/a.mp4", 3, size(10)), "10").await;
    denied(event("copy", "/known.mp4", 4, to("/b.mp4")), "100").await;
    for action in ["pre-upload", "upload"] {
        assert_eq!(tell(&site, event(action, "/c.mp4.part", 5, size(20))).await.status, 200, "no video yet");
    }
    denied(event("rename", "/c.mp4.part", 6, to("/c.mp4")), "20").await;
    assert_eq!((paths(&site).await, used(&site).await, site.count("jobs")), (vec!["kim/known.mp4".into()], 100, 1));
    let entry = site.last_audit_entry().await;
    assert_eq!(
        (&entry["action"], &entry["outcome"], &entry["organization_id"]),
        (&json!("tell_of_sftpgo_file"), &json!("denied"), &json!(acme.id))
    );
    let logged = async || acme.admin().get("/api/v1/permissions/decisions").await.data();
    eventually("the denials are in the decision log", async || logged().await["total"] == 4).await;
    let row = logged().await["items"][0].clone();
    let facts = json!([
        {"name": "video_path", "values": ["kim/c.mp4"]}, {"name": "video_source", "values": ["sftpgo"]},
        {"name": "size_bytes", "values": ["20"]},
    ]);
    let context = row["input"]["context"].as_array().expect("facts");
    assert_eq!((&row["reason"], json!(context[context.len() - 3..])), (&json!("plugin_denied"), facts));

    // SFTPGo takes the response as a refusal.
    sftpgo.eventually("kim", Value::is_object).await;
    sftpgo.call(&site).await;
    let upload = json!({"username": "kim", "path": "/lab.mp4", "size": 1});
    assert_eq!(sftpgo.lab("upload", upload).await.0, 403);

    // Known, moved and deleted videos cause no plugin call.
    for told in [
        event("pre-upload", "/known.mp4", 11, json!({})),
        event("upload", "/known.mp4", 12, size(200)),
        event("rename", "/known.mp4", 13, to("/moved.mp4")),
        event("delete", "/moved.mp4", 14, json!({})),
    ] {
        assert_eq!(tell(&site, told.clone()).await.body, json!({"status": "ok"}), "{told}");
    }
    assert_eq!((used(&site).await, drift(&site)), (0, json!(0)));
}

#[tokio::test]
async fn the_rest_of_an_aborted_upload_counts_without_a_call_and_the_complete_file_causes_one() {
    let media = Media::new();
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}{}", sftpgo.settings(), media.settings())).await;
    let acme = site.organization("acme").await;
    acme.link(&kim(&site, 1_000).await).await;
    bind(&site, vec![("acme", rule())]).await;
    for (name, at) in [("r", 1), ("s", 2)] {
        media.file(&format!("kim/{name}.mp4"), 30);
        let aborted = event("upload", &format!("/{name}.mp4"), at, json!({"status": 2}));
        assert_eq!(tell(&site, aborted).await.body, json!({"status": "ok"}));
    }
    assert_eq!((used(&site).await, site.count("jobs")), (60, 0));

    for action in ["pre-upload", "upload"] {
        for (name, at) in [("/r.mp4", 3), ("/s.mp4", 4)] {
            assert_eq!(tell(&site, event(action, name, at, size(40))).await.word(), "forbidden", "{action} {name}");
        }
    }
    assert_eq!((used(&site).await, site.count("jobs")), (60, 0));
    // SFTPGo deletes a file whose upload was refused, and sends no further event.
    std::fs::remove_file(media.path("kim/s.mp4")).expect("removed");
    eventually("the deleted file no longer counts", async || used(&site).await == 30).await;
    // Without a denial, the event that SFTPGo repeats is accepted.
    acme.admin().post("/api/v1/plugins/rule/deactivate", json!({})).await.done();
    assert_eq!(tell(&site, event("upload", "/r.mp4", 3, size(40))).await.body, json!({"status": "ok"}));
    assert_eq!((paths(&site).await, used(&site).await, site.count("jobs")), (vec!["kim/r.mp4".into()], 40, 1));
    assert_eq!(drift(&site), 0);
}
