//! Videos: registration, lists, deletion, transfer; which folder belongs to whom, and which paths are not files.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::callers::As;
use crate::harness::organizations::Member;
use crate::harness::site::Site;

/// A media root beside a site.
pub struct Media {
    directory: TempDir,
}

impl Media {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    pub fn settings(&self) -> String {
        format!("media_root = {:?}\n", self.directory.path())
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Creates a sparse file of this size, which takes no space on the disk.
    pub fn file(&self, path: &str, bytes: u64) -> String {
        let file = self.path(path);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
        std::fs::File::create(file).expect("a file").set_len(bytes).expect("a length");
        path.to_owned()
    }

    /// The same in the folder of a member.
    pub fn file_of(&self, member: &Member<'_>, name: &str, bytes: u64) -> String {
        self.file(&format!("{}/{name}", member.username), bytes)
    }
}

/// Registers a file and returns the response.
pub async fn register(caller: &As<'_>, path: &str) -> crate::harness::callers::Reply {
    caller.post("/api/v1/register", json!({"path": path})).await
}

/// A service's key with these scopes.
pub async fn service<'s>(site: &'s Site, scopes: &[&str]) -> As<'s> {
    let made = site.admin().post("/admin/api-keys", json!({"service_name": "uploads", "scopes": scopes})).await.data();
    site.nobody().with("x-api-key", made["api_key"].as_str().expect("a key"))
}

/// A key of the member's own with these scopes.
async fn own_key<'s>(member: &Member<'s>, scopes: &[&str]) -> As<'s> {
    let made = member.caller().post("/me/api-keys", json!({"name": "own", "scopes": scopes})).await.data();
    member.site.nobody().with("x-api-key", made["api_key"].as_str().expect("a key"))
}

pub async fn quota(member: &Member<'_>) -> Value {
    member.caller().get("/me/quota").await.data()
}

/// Sets a member's quota.
pub async fn set_quota(member: &Member<'_>, size: i64) {
    let path = format!("/admin/members/{}/quota", member.uid);
    member.site.admin().patch(&path, json!({"size": size})).await.done();
}

pub fn drift(site: &Site) -> Value {
    site.command(&["quota", "recount"])["drift"].clone()
}

#[tokio::test]
async fn a_file_becomes_a_video_with_its_bytes_job_event_and_audit_row_at_once() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let acme = site.organization("acme").await;
    let kim = acme.member().await;
    let path = media.file_of(&kim, "a/b.mp4", 1_000);

    let made = register(&kim.caller(), &format!("./{path}")).await.data();

    let digest = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$0\" | sha256sum | cut -c1-16", &path])
        .output()
        .expect("sha256sum");
    let uuid = String::from_utf8(digest.stdout).expect("text").trim().to_owned();
    assert_eq!(made, json!({"uuid": uuid, "already_exists": false}));
    let video = kim.caller().get(&format!("/api/v1/videos/{uuid}")).await.data();
    assert_eq!(video["path"], path);
    assert_eq!((&video["uid"], &video["size"]), (&json!(kim.uid), &json!(1_000)));
    assert_eq!(video["organization_id"], acme.id);
    assert_eq!(
        quota(&kim).await,
        json!({"size": 10_737_418_240_i64, "used": 1_000, "reserved": 0, "free": 10_737_417_240_i64, "percent": 0})
    );
    let steps: String = site
        .rows()
        .query_row(
            "select group_concat(s.value ->> 'processor' || ' ' || (s.value ->> 'state'), ', ' order by s.value ->> 'processor')
             from jobs j join videos v on v.number = j.video_number join json_each(j.steps) s where v.id = ?1 and j.state = 'queued'",
            [&uuid],
            |row| row.get(0),
        )
        .expect("a job");
    assert_eq!(steps, "asr ready, cut ready, face waiting, ocr waiting, pose waiting, yolo waiting");
    let told = site.events("video.registered");
    assert_eq!(told, [json!({"uuid": uuid, "path": path, "uid": kim.uid, "size": 1_000})]);
    let entry = site.last_audit_entry().await;
    assert_eq!((&entry["action"], &entry["target"]), (&json!("video.register"), &json!(format!("video {uuid}"))));
    assert!(!entry.to_string().contains("b.mp4"), "the audit names a file: {entry}");

    // A repeated registration, by the absolute path and after the file was deleted, gives the same video and uses no
    // bytes.
    let absolute = media.path(&path).display().to_string();
    for again in [&path, &absolute] {
        assert_eq!(register(&kim.caller(), again).await.data(), json!({"uuid": uuid, "already_exists": true}));
    }
    std::fs::remove_file(media.path(&path)).expect("removed");
    assert_eq!(register(&kim.caller(), &path).await.data()["already_exists"], true);
    assert_eq!((site.count("jobs"), site.count("quota_ledger"), site.count("videos")), (1, 1, 1));
    assert_eq!(quota(&kim).await["used"], 1_000);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_member_registers_in_its_own_folder_only_and_the_sizes_it_sends_are_ignored() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (kim, lee) = (site.member().await, site.member().await);
    let (own, foreign) = (media.file_of(&kim, "a.mp4", 70), media.file_of(&lee, "a.mp4", 70));

    let key = own_key(&kim, &["videos:write"]).await;
    assert_eq!(register(&key, &foreign).await.is(33_505_000).word(), "not_your_folder");
    let for_lee = key.clone().with("x-sftpgo-user", &lee.username);
    for path in [&own, &foreign] {
        assert_eq!(register(&for_lee, path).await.is(33_505_000).word(), "not_your_folder");
    }
    let missing = format!("{}/none.mp4", kim.username);
    let body = json!({"path": missing, "size": 5});
    assert_eq!(key.post("/api/v1/register", body).await.is(33_301_000).word(), "file_not_found");
    let body = json!({"path": own, "size": 1});
    key.clone().with("x-sftpgo-user", &kim.username).post("/api/v1/register", body).await.done();
    assert_eq!(quota(&kim).await["used"], 70);
    let reader = own_key(&kim, &["videos:read"]).await;
    assert_eq!(register(&reader, &own).await.is(32_505_000).word(), "scope_not_allowed");
    assert_eq!(site.nobody().post("/api/v1/register", json!({"path": own})).await.status, 401);
}

#[tokio::test]
async fn a_service_registers_for_a_named_owner_and_its_size_counts_where_there_is_no_file() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    let service_key = service(&site, &["videos:write"]).await;
    let for_kim = service_key.clone().with("x-sftpgo-user", &kim.username);
    let path = |name: &str| format!("{}/{name}", kim.username);

    let body = |name: &str, size: i64| json!({"path": path(name), "size": size});
    for_kim.post("/api/v1/register", body("said.mp4", 40)).await.done();
    media.file(&path("measured.mp4"), 7);
    for_kim.post("/api/v1/register", body("measured.mp4", 1)).await.done();
    assert_eq!(quota(&kim).await["used"], 47);
    assert_eq!(register(&for_kim, &path("none.mp4")).await.word(), "file_not_found");
    let nobody = service_key.clone().with("x-sftpgo-user", "nobody-here");
    let unowned = register(&nobody, "nobody-here/a.mp4").await;
    assert_eq!(unowned.is(33_301_000).word(), "owner_not_found");
    assert!(unowned.body["message"].as_str().is_some_and(|said| said.contains("\"nobody-here\"")), "{}", unowned.body);
    assert_eq!(register(&service_key, &path("a.mp4")).await.fields(), ["header.X-SFTPGo-User"]);
    let lacking = service(&site, &["quotas:write"]).await.with("x-sftpgo-user", &kim.username);
    assert_eq!(register(&lacking, &path("said.mp4")).await.word(), "scope_not_allowed");
    let elsewhere = for_kim.clone().with("x-tenant-id", "platform");
    assert_eq!(register(&elsewhere, &path("said.mp4")).await.word(), "owner_not_found");
    site.admin().post(&format!("/admin/members/{}/deactivate", kim.uid), json!({})).await.done();
    assert_eq!(register(&for_kim, &path("said.mp4")).await.is(33_505_000).word(), "member_suspended");

    // A symbolic link is not a missing file: no size in a request counts for it.
    site.admin().post(&format!("/admin/members/{}/activate", kim.uid), json!({})).await.done();
    symlink("/etc/passwd", media.path(&path("link.mp4"))).expect("a link");
    let linked = for_kim.post("/api/v1/register", body("link.mp4", 9)).await;
    assert_eq!(linked.is(33_101_000).word(), "not_a_file");
}

#[tokio::test]
async fn a_path_that_is_no_file_below_the_media_root_is_refused_and_not_stored() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    let (caller, own) = (kim.caller(), |name: &str| format!("{}/{name}", kim.username));
    let outside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("secret.mp4"), "secret").expect("a file");
    media.file(&own("real/a.mp4"), 5);
    media.file(&own("file"), 5);
    symlink(media.path(&own("real/a.mp4")), media.path(&own("end.mp4"))).expect("a link");
    symlink(media.path(&own("real")), media.path(&own("middle"))).expect("a link");
    symlink(outside.path(), media.path(&own("out"))).expect("a link");
    let pipe = std::process::Command::new("mkfifo").arg(media.path(&own("pipe"))).status().expect("mkfifo");
    assert!(pipe.success());

    for path in [own("end.mp4"), own("middle/a.mp4"), own("out/secret.mp4"), own("real"), own("pipe"), own("file/x")] {
        assert_eq!(register(&caller, &path).await.is(33_101_000).word(), "not_a_file", "{path}");
    }
    for path in [
        own("../x.mp4"),
        own("./x.mp4"),
        own("/x.mp4"),
        own("a\0.mp4"),
        own("a\n.mp4"),
        own("a\\b.mp4"),
        own(""),
        "/etc/passwd".into(),
        "..".into(),
        "../../etc/passwd".into(),
        "file-without-folder".into(),
        format!("{}/../{}", media.path("").display(), own("real/a.mp4")),
        media.path(&own("real/../../x")).display().to_string(),
    ] {
        let refused = register(&caller, &path).await;
        assert_eq!(refused.is(33_101_000).word(), "video_path", "{path:?}");
        assert_eq!(refused.fields(), ["body.path"]);
    }
    for size in [json!(-1), json!(9_000_000_000_000_001_i64), json!(u64::MAX), json!(1e300), json!(1.5), json!("5")] {
        let refused = caller.post("/api/v1/register", json!({"path": own("real/a.mp4"), "size": size})).await;
        assert_eq!((refused.is(10_101_000).fields(), &size), (vec!["body.size".to_owned()], &size));
    }
    assert_eq!((site.count("videos"), site.count("jobs"), site.count("quota_ledger")), (0, 0, 0));
}

#[tokio::test]
async fn the_limits_of_paths_and_of_videos_hold_and_not_one_past_them() {
    let media = Media::new();
    let settings = format!("{}[limits]\nvideo_path_bytes = 64\nvideos = 2\n", media.settings());
    let site = Site::with(&settings).await;
    let kim = site.member().await;
    let name = |bytes: usize| "x".repeat(bytes - kim.username.len() - 1);
    let longest = media.file_of(&kim, &name(64), 1);
    let longer = media.file_of(&kim, &name(65), 1);

    register(&kim.caller(), &longest).await.done();
    assert_eq!(register(&kim.caller(), &longer).await.word(), "video_path");
    let second = register(&kim.caller(), &media.file_of(&kim, "b", 1)).await.data();
    let third = media.file_of(&kim, "c", 1);
    assert_eq!(register(&kim.caller(), &third).await.is(33_309_000).word(), "videos_full");
    assert_eq!(quota(&kim).await["used"], 2);
    let path = format!("/api/v1/videos/{}", second["uuid"].as_str().expect("uuid"));
    kim.caller().delete(&path).await.done();
    register(&kim.caller(), &third).await.done();
    assert_eq!(drift(&site), 0);
}

/// Stops the writing thread, which would otherwise keep a failed test running.
struct StopAtTheEnd(Arc<AtomicBool>);

impl Drop for StopAtTheEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_being_written_is_not_measured() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let kim = site.member().await;
    let path = media.file_of(&kim, "grows.mp4", 0);
    let stop = Arc::new(AtomicBool::new(false));
    let _stop_at_the_end = StopAtTheEnd(stop.clone());
    let (stopped, file) = (stop.clone(), media.path(&path));
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let writer = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::options().append(true).open(file).expect("the file");
        let mut begun = Some(begun);
        while !stopped.load(Ordering::Relaxed) {
            file.write_all(b"more").expect("written");
            begun.take().into_iter().for_each(|begun| begun.send(()).expect("heard"));
        }
    });
    has_begun.await.expect("begun");

    assert_eq!(register(&kim.caller(), &path).await.is(33_309_000).word(), "file_changed");

    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    let size = std::fs::metadata(media.path(&path)).expect("metadata").len();
    register(&kim.caller(), &path).await.done();
    assert_eq!(quota(&kim).await["used"], size);
}

#[tokio::test]
async fn without_a_media_root_only_a_service_registers() {
    let site = Site::start().await;
    let kim = site.member().await;
    let path = format!("{}/a.mp4", kim.username);
    assert_eq!(register(&kim.caller(), &path).await.is(33_605_000).word(), "media_root_not_configured");
    let service_key = service(&site, &["videos:write"]).await.with("x-sftpgo-user", &kim.username);
    assert_eq!(register(&service_key, &path).await.word(), "media_root_not_configured");
    service_key.post("/api/v1/register", json!({"path": path, "size": 3})).await.done();
    assert_eq!(quota(&kim).await["used"], 3);
    let import = site.admin().post("/api/v1/videos/import", json!({})).await;
    assert_eq!(import.is(33_605_000).word(), "media_root_not_configured");
}

#[tokio::test]
async fn members_see_their_own_videos_and_administrators_those_of_their_organization() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (kim, lee, far) = (acme.member().await, acme.member().await, bolt.member().await);
    let mut ids = Vec::new();
    for member in [&kim, &lee, &far] {
        let made = register(&member.caller(), &media.file_of(member, "a.mp4", 10)).await.data();
        ids.push(made["uuid"].as_str().expect("uuid").to_owned());
    }
    let listed = async |caller: &As<'_>, query: &str| -> Vec<String> {
        let page = caller.get(&format!("/api/v1/videos{query}")).await.data();
        assert_eq!(page["total"], page["items"].as_array().expect("items").len());
        let mut found: Vec<String> =
            page["items"].as_array().expect("items").iter().map(|v| v["uuid"].as_str().expect("uuid").into()).collect();
        found.sort_by_key(|id| ids.iter().position(|known| known == id));
        found
    };

    assert_eq!(listed(&kim.caller(), "").await, ids[..1]);
    assert_eq!(listed(&kim.caller(), &format!("?member={}", lee.uid)).await, [""; 0]);
    assert_eq!(listed(&acme.owner(), "").await, ids[..2]);
    assert_eq!(listed(&acme.owner(), &format!("?member={}", lee.uid)).await, ids[1..2]);
    assert_eq!(listed(&acme.owner(), &format!("?member={}", far.uid)).await, [""; 0]);
    assert_eq!(listed(&acme.owner(), &format!("?keyword={}", kim.username)).await, ids[..1]);
    assert_eq!(listed(&bolt.owner(), "").await, ids[2..]);
    assert_eq!(listed(&site.admin(), "").await, ids);
    assert_eq!(listed(&site.client(&["videos:read"]).await, "").await, ids);
    let limited = site.admin().get("/api/v1/videos?limit=2&offset=2").await.data();
    assert_eq!((limited["items"].as_array().expect("items").len(), &limited["total"]), (1, &json!(3)));

    // Foreign videos are answered like missing ones, also on changes.
    let at = |id: &str| format!("/api/v1/videos/{id}");
    for (caller, id) in [(kim.caller(), &ids[1]), (acme.owner(), &ids[2]), (kim.caller(), &"0".repeat(16))] {
        assert_eq!(caller.get(&at(id)).await.is(33_301_000).word(), "video_not_found");
        assert_eq!(caller.delete(&at(id)).await.is(33_301_000).word(), "video_not_found");
    }
    let reader = own_key(&kim, &["videos:read"]).await;
    reader.get(&at(&ids[0])).await.done();
    assert_eq!(reader.delete(&at(&ids[0])).await.word(), "scope_not_allowed");
    acme.owner().delete(&at(&ids[1])).await.done();
    assert_eq!(quota(&lee).await["used"], 0);
    assert_eq!(acme.owner().get(&at(&ids[1])).await.word(), "video_not_found");
    assert_eq!(site.count("jobs"), 2);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn a_transfer_moves_the_bytes_or_fails_as_a_whole() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (acme, bolt) = (site.organization("acme").await, site.organization("bolt").await);
    let (kim, lee, far) = (acme.member().await, acme.member().await, bolt.member().await);
    let made = register(&kim.caller(), &media.file_of(&kim, "a.mp4", 100)).await.data();
    let path = format!("/api/v1/videos/{}", made["uuid"].as_str().expect("uuid"));
    let to = async |caller: &As<'_>, uid: &str| caller.post(&format!("{path}/transfer"), json!({"uid": uid})).await;

    assert_eq!(to(&lee.caller(), &lee.uid).await.word(), "video_not_found");
    assert_eq!(to(&acme.owner(), &far.uid).await.word(), "member_not_found");
    assert_eq!(to(&bolt.owner(), &far.uid).await.word(), "video_not_found");
    set_quota(&lee, 99).await;
    let refused = to(&acme.owner(), &lee.uid).await;
    assert_eq!(refused.is(33_506_000).word(), "quota_exceeded");
    assert_eq!((quota(&kim).await["used"].clone(), quota(&lee).await["used"].clone()), (json!(100), json!(0)));

    set_quota(&lee, 100).await;
    let moved = to(&acme.owner(), &lee.uid).await;
    assert_eq!(moved.header("x-quota-warning"), Some("95"));
    assert_eq!(moved.data()["uid"], lee.uid);
    assert_eq!((quota(&kim).await["used"].clone(), quota(&lee).await["used"].clone()), (json!(0), json!(100)));
    assert_eq!(kim.caller().get(&path).await.word(), "video_not_found");

    // From one organization to another: the usage of both changes.
    let ceiling = format!("/admin/organizations/{}/quota", bolt.id);
    site.admin().patch(&ceiling, json!({"size": 99})).await.done();
    assert_eq!(to(&site.admin(), &far.uid).await.is(33_506_000).word(), "organization_quota_exceeded");
    site.admin().patch(&ceiling, json!({"size": 100})).await.done();
    assert_eq!(to(&site.admin(), &far.uid).await.data()["organization_id"], bolt.id);
    let usage = site.admin().get("/admin/usage").await.data();
    let used: Vec<(&Value, &Value)> = usage["organizations"]
        .as_array()
        .expect("organizations")
        .iter()
        .map(|organization| (&organization["org_code"], &organization["used"]))
        .take(2)
        .collect();
    assert_eq!(used, [(&json!("bolt"), &json!(100)), (&json!("acme"), &json!(0))]);
    assert_eq!(site.events("video.transferred").len(), 2);
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn existing_files_are_imported_counted_and_claimed() {
    let media = Media::new();
    let site = Site::with(&media.settings()).await;
    let (kim, lee) = (site.member().await, site.member().await);
    set_quota(&kim, 25).await;
    for n in 0..3 {
        media.file_of(&kim, &format!("deep/{n}.mp4"), 10);
    }
    media.file_of(&lee, "a.mp4", 5);
    media.file("later/a.mp4", 7);
    media.file("later/.hidden.mp4", 7);
    media.file("alone.mp4", 7);
    symlink(media.path("later"), media.path("link")).expect("a link");
    register(&lee.caller(), &format!("{}/a.mp4", lee.username)).await.done();

    let figures = |answer: &Value| -> Vec<i64> {
        ["looked_at", "imported", "ownerless", "already_exist", "bytes", "skipped"]
            .map(|name| answer[name].as_i64().expect(name))
            .to_vec()
    };
    let dry = site.command(&["video", "import", "--dry-run"]);
    assert_eq!(figures(&dry), [5, 4, 1, 1, 37, 3]);
    assert_eq!(dry["over_quota"], json!([kim.uid]));
    assert_eq!(site.count("videos"), 1);
    // An import in parts has the same result.
    let mut pieces = vec![site.admin().post("/api/v1/videos/import", json!({"limit": 2})).await.data()];
    while let Some(next) = pieces.last().expect("a piece")["next"].as_str() {
        let more = json!({"limit": 2, "after": next});
        pieces.push(site.admin().post("/api/v1/videos/import", more).await.data());
    }
    let sums = pieces.iter().map(figures).reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect());
    assert_eq!(sums.expect("pieces"), [5, 4, 1, 1, 37, 3]);
    // The file exists, so its bytes count even beyond the quota, and no other file fits.
    assert_eq!(quota(&kim).await, json!({"size": 25, "used": 30, "reserved": 0, "free": 0, "percent": 120}));
    assert_eq!(register(&kim.caller(), &media.file_of(&kim, "more.mp4", 1)).await.word(), "quota_exceeded");
    let again = site.command(&["video", "import", "--prefix", "later"]);
    assert_eq!(figures(&again), [1, 0, 0, 1, 0, 1]);
    let ownerless = site.admin().get("/api/v1/videos?ownerless=true").await.data();
    assert_eq!((&ownerless["total"], &ownerless["items"][0]["path"]), (&json!(1), &json!("later/a.mp4")));
    assert_eq!(site.count("jobs"), 5);

    for prefix in ["..", "later/../..", "later//deep", "./later", "link", "none", "/etc"] {
        let refused = site.admin().post("/api/v1/videos/import", json!({"prefix": prefix})).await;
        assert_eq!(refused.is(10_101_000).fields(), ["body.prefix"], "{prefix}");
    }

    let nobody = site.admin().post("/api/v1/videos/claim", json!({})).await.data();
    assert_eq!((&nobody["claimed"], &nobody["ownerless"]), (&json!(0), &json!(1)));
    let later = site.admin().post("/admin/members", json!({"username": "later"})).await.data();
    let foreseen = site.admin().post("/api/v1/videos/claim", json!({"dry_run": true})).await.data();
    assert_eq!((&foreseen["claimed"], &foreseen["bytes"]), (&json!(1), &json!(7)));
    let claimed = site.admin().post("/api/v1/videos/claim", json!({})).await.data();
    assert_eq!((&claimed["claimed"], &claimed["ownerless"]), (&json!(1), &json!(0)));
    let of_later = format!("/admin/quotas/{}/ledger", later["uid"].as_str().expect("uid"));
    let ledger = site.admin().get(&of_later).await.data();
    assert_eq!((&ledger["items"][0]["cause"], &ledger["items"][0]["delta"]), (&json!("claim"), &json!(7)));
    assert_eq!(drift(&site), 0);
}

#[tokio::test]
async fn an_import_reads_files_up_to_its_limit() {
    let media = Media::new();
    let site = Site::with(&format!("{}[limits]\nimport_files = 3\n", media.settings())).await;
    for n in 0..4 {
        media.file(&format!("kim/{n}.mp4"), 1);
    }
    let first = site.admin().post("/api/v1/videos/import", json!({"limit": 100})).await.data();
    assert_eq!((&first["imported"], &first["next"]), (&json!(3), &json!("kim/2.mp4")));
    let rest = site.admin().post("/api/v1/videos/import", json!({"after": first["next"]})).await.data();
    assert_eq!((&rest["imported"], &rest["next"]), (&json!(1), &Value::Null));
    let foreign = site.client(&["videos:read"]).await.post("/api/v1/videos/import", json!({})).await;
    assert_eq!(foreign.is(32_505_000).word(), "scope_not_allowed");
}
