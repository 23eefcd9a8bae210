//! Files that are replaced or renamed keep their bytes and jobs.
//!
//! File events are applied as the hooks do, with an application in this process, because no operation does this.

use std::path::Path;

use roster::features::members::{self, NewMember};
use roster::features::quotas::recount::recount;
use roster::features::quotas::{QuotaCheck, QuotaSettings};
use roster::features::videos::path::VideoPath;
use roster::features::videos::{self, Registration, Video};
use roster::kernel::app::tasks::Progress;
use roster::kernel::app::{App, Changed, Transaction};
use roster::kernel::audit_log::Entry;
use roster::kernel::authz::principal::Identity;
use roster::kernel::authz::store::member_state;
use roster::kernel::error::Result;
use roster::kernel::ids::MemberId;

use crate::harness::rows::open_rows;

async fn change<T: Send + 'static>(
    app: &App,
    change: impl FnOnce(&Transaction<'_>, &QuotaSettings, &Identity) -> Result<Changed<T>> + Send + 'static,
) -> Result<T> {
    let rules = QuotaSettings::from_config(&app.config);
    let made = app.change(&Identity::command_line(), "test", move |t, caller| change(t, &rules, caller)).await;
    made.map(|made| made.answer)
}

/// Creates two members.
async fn members(app: &App) -> [MemberId; 2] {
    let named = |name: &str| NewMember { username: Some(name.into()), ..Default::default() };
    let (kim, lee) = (named("kim"), named("lee"));
    let created = change(app, move |t, _, _| {
        let capacity = || members::require_capacity(t.snapshot(), 2);
        let ids = [members::create(t, capacity()?, &kim)?, members::create(t, capacity()?, &lee)?];
        let people = [member_state(t, ids[0])?, member_state(t, ids[1])?];
        Ok(Changed::new(ids, Entry::new("test", "members")).with_policy_changes(people))
    });
    created.await.expect("members")
}

fn videos_with_jobs(data: &Path) -> Vec<String> {
    let rows = open_rows(data);
    let mut jobs = rows.prepare("select v.id from jobs j join videos v on v.number = j.video_number").expect("jobs");
    let ids = jobs.query_map([], |row| row.get(0)).expect("rows");
    ids.map(|id| id.expect("row")).collect()
}

#[tokio::test]
async fn a_replaced_file_is_measured_again_and_a_renamed_one_keeps_its_bytes_and_jobs() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = roster::kernel::config::Config {
        quota_default_bytes: 100,
        ..roster::kernel::config::Config::of(directory.path())
    };
    let app = roster::cli::open(config).await.expect("a site").app;
    let [kim, lee] = members(&app).await;
    let path = |text: &str| VideoPath::stored(text.to_owned());
    let register = async |text: &str, size: i64| -> Video {
        let new =
            Registration { path: path(text), owner: kim, size: Ok(size), fit: QuotaCheck::Enforced, queues_job: true };
        let id =
            change(&app, move |t, rules, caller| videos::register(t, rules, caller, new)).await.expect("a video").id;
        app.read(move |r| videos::get(r, &id)).await.expect("the video")
    };
    let used = async |member| {
        let (rules, snapshot) = (QuotaSettings::from_config(&app.config), app.snapshot());
        app.read(move |r| roster::features::quotas::account(r, &rules, &snapshot, member))
            .await
            .expect("an account")
            .used
    };
    let drift = async || {
        let counted = recount(&app, &Identity::command_line(), false, Progress::none()).await;
        counted.expect("a recount").differences.len()
    };

    let mut video = register("kim/a.mp4", 40).await;
    let other = register("kim/b.mp4", 30).await;
    let former = video.clone();
    let resize = |video: Video, size: i64, fit: QuotaCheck| {
        change(&app, move |t: &Transaction<'_>, rules: &QuotaSettings, caller: &Identity| {
            videos::resize(t, rules, caller, (&video, size, fit))
        })
    };
    let refused = resize(former.clone(), 71, QuotaCheck::Enforced).await.expect_err("too large");
    assert_eq!(refused.code.as_str(), "quota_exceeded");
    assert_eq!(used(kim).await, 70);
    assert_eq!(resize(former.clone(), 60, QuotaCheck::Enforced).await.expect("it fits"), Some(80));
    assert_eq!(used(kim).await, 90);
    video.size = 60;
    resize(video.clone(), 80, QuotaCheck::Skipped).await.expect("it is there");
    assert_eq!(used(kim).await, 110);
    video.size = 80;
    resize(video.clone(), 10, QuotaCheck::Enforced).await.expect("smaller");
    assert_eq!((used(kim).await, drift().await), (40, 0));
    video.size = 10;

    // Over another file: the other video is deleted with its bytes, and the job stays with the moved one.
    let to = path("kim/b.mp4");
    let (from, onto) = (video.clone(), to.clone());
    let id = change(&app, move |t, rules, caller| videos::rename(t, rules, caller, (&from, onto, Some(kim))))
        .await
        .expect("renamed");
    assert_eq!(id, other.id);
    assert!(app.read(move |r| videos::find(r, &video.id)).await.expect("read").is_none());
    assert_eq!((used(kim).await, drift().await), (10, 0));
    let renamed = app.read(move |r| videos::get(r, &id)).await.expect("the video");
    assert_eq!((renamed.path.as_str(), renamed.size, renamed.created_at), ("kim/b.mp4", 10, former.created_at));
    assert_eq!(videos_with_jobs(directory.path()), [renamed.id.as_str()]);

    // Into another folder: the video now belongs to that member.
    let theirs = path("lee/b.mp4");
    change(&app, move |t, rules, caller| videos::rename(t, rules, caller, (&renamed, theirs, Some(lee))))
        .await
        .expect("moved");
    assert_eq!((used(kim).await, used(lee).await, drift().await), (0, 10, 0));
    app.close().await;
}
