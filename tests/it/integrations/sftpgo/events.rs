//! Events of SFTPGo as real clients cause them: unusual names, files in other file systems, aborted uploads, clocks
//! that differ.

use roster::kernel::ids::Timestamp;
use serde_json::{Value, json};

use super::accounts::{event, kim, paths, size, tell, to, used};
use crate::harness::callers::Reply;
use crate::harness::counterparts::Sftpgo;
use crate::harness::site::Site;

async fn site_with(more: &str) -> (Sftpgo, Site) {
    let sftpgo = Sftpgo::start(&[]);
    let site = Site::with(&format!("{}{more}\n", sftpgo.settings())).await;
    (sftpgo, site)
}

fn media_root(media: &tempfile::TempDir) -> String {
    std::fs::create_dir_all(media.path().join("kim")).expect("a folder");
    format!("media_root = {:?}", media.path())
}

fn ignored(why: &str) -> Value {
    json!({"status": "ignored", "reason": why})
}

const OK: &str = r#"{"status":"ok"}"#;
const NO_VIDEO: &str = "files with this name are not videos";

/// Names that no video can have.
fn odd_names() -> Vec<String> {
    vec![
        "/a\nb.mp4".into(),
        "/a\\b.mp4".into(),
        "/a\u{fffd}.mp4".into(),
        format!("/{}.mp4", "n".repeat(1_100)),
        "/..".into(),
    ]
}

#[tokio::test]
async fn events_of_unknown_accounts_are_ignored() {
    let (_sftpgo, site) = site_with("").await;
    kim(&site, 1_000).await;
    let names = odd_names().into_iter().chain(["/Icon\r".into(), "/a.mp4".into(), String::new()]);
    for name in names {
        for username in ["stranger", "../kim", "a\\b", ".", "\u{fffd}", "a\nb"] {
            for action in ["pre-upload", "upload", "rename", "copy", "delete", "rmdir"] {
                let more = json!({"username": username, "virtual_target_path": name, "file_size": "odd"});
                let reply = tell(&site, event(action, &name, 1, more)).await;
                let told = (reply.status, &reply.body);
                assert_eq!(told, (200, &ignored("no member has this name")), "{action} {username:?} {name:?}");
            }
        }
    }
    assert_eq!(paths(&site).await, [""; 0]);
}

#[tokio::test]
async fn a_name_that_no_video_can_have_is_refused_before_and_after_an_upload() {
    let (_sftpgo, site) = site_with("").await;
    kim(&site, 1_000).await;
    for name in odd_names() {
        for action in ["pre-upload", "upload"] {
            let reply = tell(&site, event(action, &name, 1, size(100))).await;
            assert_eq!(reply.is(33_101_000).word(), "video_path", "{action} {name:?}");
        }
        for action in ["delete", "rmdir"] {
            assert_eq!(tell(&site, event(action, &name, 2, json!({}))).await.body, ignored(NO_VIDEO), "{name:?}");
        }
        assert_eq!(tell(&site, event("upload", &name, 3, json!({"status": 2}))).await.status, 200, "{name:?}");
        tell(&site, event("upload", "/good.mp4", 4, size(1))).await;
        tell(&site, event("rename", "/good.mp4", 5, to(&name))).await.is(33_101_000);
    }
    assert_eq!((used(&site).await, paths(&site).await), (1, vec!["kim/good.mp4".into()]));

    // A file renamed from such a name is a new video.
    let renamed = |bytes: i64| json!({"virtual_target_path": "/b.mp4", "file_size": bytes});
    assert_eq!(tell(&site, event("rename", "/a\\b.mp4", 6, renamed(7))).await.body.to_string(), OK);
    assert_eq!(tell(&site, event("copy", "/a\u{fffd}b.mp4", 7, renamed(9))).await.body.to_string(), OK);
    let unknown = tell(&site, event("rename", "/a\\b.mp4", 8, to("/c.mp4"))).await;
    assert_eq!(unknown.body, ignored("nothing is known of the file"));
    assert_eq!((used(&site).await, paths(&site).await), (10, vec!["kim/b.mp4".into(), "kim/good.mp4".into()]));
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn hidden_and_temporary_files_are_not_videos_until_they_are_renamed() {
    let (_sftpgo, site) = site_with("").await;
    kim(&site, 1_000).await;
    let names = ["/._a.mp4", "/.DS_Store", "/Icon\r", "/x/.trash/a.mp4", "/Thumbs.db", "/a.crdownload", "/A.FILEPART"];
    for (at, name) in (1..).zip(names) {
        for action in ["pre-upload", "upload"] {
            let reply = tell(&site, event(action, name, at, size(10))).await;
            assert_eq!((reply.status, &reply.body), (200, &ignored(NO_VIDEO)), "{action} {name:?}");
        }
    }
    assert_eq!((used(&site).await, paths(&site).await, site.count("jobs")), (0, vec![], 0));

    for (at, temporary) in (20..).step_by(2).zip(["/clip.mp4.1a2b3c4d.partial", "/.clip.mp4.AbC123", "/clip.part"]) {
        tell(&site, event("upload", temporary, at, size(10))).await;
        tell(&site, event("rename", temporary, at + 1, to("/clip.mp4"))).await;
        assert_eq!((paths(&site).await, site.count("jobs")), (vec!["kim/clip.mp4".into()], 1), "{temporary}");
    }
    // A rename in the same moment as its upload.
    let told = |action: &str, path: &str, more: Value| {
        let mut told = event(action, path, 1_800_000_000_000_000_000, more);
        told["session_id"] = json!(path);
        told
    };
    tell(&site, told("upload", "/b.mp4.partial", size(10))).await;
    tell(&site, told("rename", "/b.mp4.partial", json!({"virtual_target_path": "/b.mp4", "file_size": 10}))).await;
    assert_eq!((used(&site).await, site.count("jobs")), (20, 2));
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn the_settings_determine_which_names_are_ignored() {
    let media = tempfile::tempdir().expect("a directory");
    let more = format!("{}\nvideos.ignored_names = [\"*.draft\", \"old\"]", media_root(&media));
    let (_sftpgo, site) = site_with(&more).await;
    kim(&site, 1_000).await;
    tell(&site, event("upload", "/.a.mp4", 1, size(1))).await;
    tell(&site, event("upload", "/a.mp4.Draft", 2, size(1))).await;
    tell(&site, event("upload", "/old/a.mp4", 3, size(1))).await;
    assert_eq!(paths(&site).await, ["kim/.a.mp4"]);

    std::fs::create_dir(media.path().join("kim/old")).expect("a folder");
    for name in [".b.mp4", "b.draft", "old/b.mp4", "c.part"] {
        std::fs::write(media.path().join("kim").join(name), "12").expect("written");
    }
    let imported = site.command(&["video", "import"]);
    assert_eq!((&imported["imported"], &imported["skipped"]), (&json!(2), &json!(2)));
    assert_eq!(paths(&site).await, ["kim/.a.mp4", "kim/.b.mp4", "kim/c.part"]);
}

#[tokio::test]
async fn files_in_another_file_system_are_not_looked_up_on_the_local_disk() {
    let media = tempfile::tempdir().expect("a directory");
    let (_sftpgo, site) = site_with(&media_root(&media)).await;
    kim(&site, 1_000).await;
    for (at, (name, more)) in (1..).zip([
        ("/s3.mp4", json!({"fs_provider": 1})),
        ("/crypt.mp4", json!({"fs_provider": 4})),
        ("/shared/v.mp4", json!({"fs_provider": 0, "path": "/mnt/pool/v.mp4"})),
        ("/nowhere.mp4", json!({"path": null})),
    ]) {
        let with = |status: i64, at: i64| {
            let mut event = event("upload", name, at, json!({"status": status, "file_size": 100}));
            event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            event
        };
        tell(&site, with(1, at)).await;
        let failed = tell(&site, with(2, at + 100)).await;
        assert_eq!(failed.body, ignored("the file cannot be measured"), "{name}");
    }
    assert_eq!((used(&site).await, paths(&site).await.len()), (400, 4));
    // In the home folder a file that is not on the disk counts as deleted.
    tell(&site, event("upload", "/home.mp4", 200, size(50))).await;
    tell(&site, event("upload", "/home.mp4", 201, json!({"status": 2, "fs_provider": 0}))).await;
    assert_eq!((used(&site).await, paths(&site).await.len()), (400, 4));
}

#[tokio::test]
async fn the_rest_of_an_aborted_upload_counts_and_gets_a_job_when_it_is_complete() {
    let media = tempfile::tempdir().expect("a directory");
    let (_sftpgo, site) = site_with(&media_root(&media)).await;
    kim(&site, 1_000).await;
    let lies = |name: &str, bytes: usize| {
        std::fs::write(media.path().join("kim").join(name), "x".repeat(bytes)).expect("written");
    };
    let aborted = async |name: &str, at: i64| -> String {
        let more = json!({"status": 2, "file_size": 500, "path": "/srv/media/stranger/x"});
        tell(&site, event("upload", name, at, more)).await.body.to_string()
    };
    lies("r.mp4", 500);
    assert_eq!(aborted("/r.mp4", 1).await, OK);
    assert_eq!((used(&site).await, paths(&site).await, site.count("jobs")), (500, vec!["kim/r.mp4".into()], 0));
    // Aborted again, renamed, and then uploaded completely.
    lies("r.mp4", 600);
    assert_eq!(aborted("/r.mp4", 2).await, OK);
    assert_eq!(tell(&site, event("rename", "/r.mp4", 3, to("/s.mp4"))).await.body.to_string(), OK);
    assert_eq!((used(&site).await, site.count("jobs")), (600, 0));
    tell(&site, event("upload", "/s.mp4", 4, size(700))).await;
    tell(&site, event("upload", "/s.mp4", 5, size(700))).await;
    assert_eq!((used(&site).await, paths(&site).await, site.count("jobs")), (700, vec!["kim/s.mp4".into()], 1));
    // The file exists, so its bytes count even beyond the quota; under a temporary name it is not a video.
    lies("t.mp4", 400);
    assert_eq!(aborted("/t.mp4", 6).await, OK);
    lies("u.mp4.part", 400);
    aborted("/u.mp4.part", 7).await;
    assert_eq!((used(&site).await, site.count("jobs")), (1_100, 1));
    assert_eq!(site.command(&["quota", "recount"])["drift"], 0);
}

#[tokio::test]
async fn events_are_ordered_by_the_clock_of_sftpgo() {
    let (_sftpgo, site) = site_with("").await;
    kim(&site, 1_000).await;
    let late = ignored("a later event for this path was handled before");
    let now_ns = Timestamp::now().0 * 1_000_000;
    let in_ms = |ms: i64| now_ns + ms * 1_000_000;
    for (n, ahead_ms) in [200_i64, 3_600_000, 23 * 3_600_000].into_iter().enumerate() {
        let name = format!("/p{n}.mp4");
        tell(&site, event("delete", &name, in_ms(ahead_ms + 5), json!({}))).await;
        assert_eq!(tell(&site, event("upload", &name, in_ms(ahead_ms), size(1))).await.body, late, "{ahead_ms}");
    }
    assert_eq!(paths(&site).await, [""; 0]);
    // A time more than a day ahead is ignored: the later event is newer.
    for (at, action) in [(in_ms(400 * 86_400_000), "delete"), (in_ms(300 * 86_400_000), "upload")] {
        tell(&site, event(action, "/q.mp4", at, size(1))).await;
    }
    assert_eq!(paths(&site).await, ["kim/q.mp4"]);
}

#[tokio::test]
async fn a_member_with_a_full_quota_may_overwrite_a_video_but_not_upload_a_new_one() {
    let (_sftpgo, site) = site_with("").await;
    kim(&site, 1_000).await;
    tell(&site, event("upload", "/r.mp4", 1, size(1_000))).await;
    let pre = async |name: &str| -> Reply {
        tell(&site, event("pre-upload", name, 2, json!({"file_size": 1_000, "open_flags": 577}))).await
    };

    assert_eq!(pre("/r.mp4").await.body.to_string(), OK);
    assert_eq!(tell(&site, event("upload", "/r.mp4", 3, size(1_000))).await.body.to_string(), OK);
    assert_eq!(pre("/new.mp4").await.is(33_506_000).word(), "quota_exceeded");
    tell(&site, event("upload", "/r.mp4", 4, size(1_001))).await.is(33_506_000);
    tell(&site, event("upload", "/new.mp4", 5, size(1))).await.is(33_506_000);
    assert_eq!(used(&site).await, 1_000);
}

#[tokio::test]
async fn a_suspended_member_starts_no_upload() {
    let (_sftpgo, site) = site_with("").await;
    let uid = kim(&site, 1_000).await;
    site.admin().post(&format!("/admin/members/{uid}/deactivate"), json!({})).await.done();
    let refused = tell(&site, event("pre-upload", "/a.mp4", 1, json!({}))).await;
    assert_eq!((refused.status, refused.word()), (403, "member_suspended"));
}
