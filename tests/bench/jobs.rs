//! The cost of a claim for the writer, with a hundred thousand and with a million jobs in the queues.
//!
//! The two files are filled by SQL and kept below `target/tmp` for the next run. A tenth of the members is suspended, a
//! tenth of the organizations is inactive, and a third of the jobs waits for the steps after `cut`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use roster::features::jobs::{self, ClaimRequest, Processor, RetrySettings};
use roster::kernel::app::App;
use roster::kernel::authz::principal::Identity;
use roster::kernel::config::Config;
use rusqlite::Connection;

use crate::metrics::{Figures, progress};

/// Jobs per member.
const JOBS_EACH: u64 = 5;
const ORGANIZATIONS: u64 = 10_000;
const WARM_UP: u32 = 100;
const CLAIMS: u32 = 500;

pub fn run(figures: &mut Figures) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for (name, jobs) in [("claim_us_100k", 100_000), ("claim_us_1m", 1_000_000)] {
        let directory = filled(&runtime, jobs);
        progress(&format!("claims among {jobs} jobs"));
        let took = runtime.block_on(claims(&directory));
        figures.add(name, took.as_secs_f64() * 1e6 / f64::from(CLAIMS));
        // Removes the leases, so that the next run finds none that have expired.
        let rows = Connection::open(directory.join("roster.db")).expect("the file");
        rows.execute("update jobs set state = 'done' where state = 'leased'", []).expect("done");
    }
}

/// The writer's time for claims, each with its queues, its job and its audit row, without the commit.
async fn claims(directory: &Path) -> Duration {
    let app = App::open(Config::of(directory), &roster::server::features::FEATURES).await.expect("open");
    let rules = RetrySettings::from_config(&app.config);
    let mut took = Duration::ZERO;
    for n in 0..WARM_UP + CLAIMS {
        let wish = ClaimRequest {
            count: 1,
            processors: (n % 2 == 0).then(|| vec![Processor::Asr, Processor::Yolo]),
            lease_s: 86_400,
            worker: "bench".into(),
        };
        let claim = move |t: &roster::kernel::app::Transaction<'_>, _: &Identity| {
            let began = Instant::now();
            let claimed = jobs::claim(t, &wish, rules)?;
            Ok(claimed.map(|jobs| (jobs.len(), began.elapsed())))
        };
        let (count, one) = app.change(&Identity::command_line(), "job.claim", claim).await.expect("a claim").answer;
        assert_eq!(count, 1, "a claim found nothing");
        took += if n < WARM_UP { Duration::ZERO } else { one };
    }
    app.close().await;
    took
}

/// Returns a data directory with this many jobs, which the first run creates.
fn filled(runtime: &tokio::runtime::Runtime, jobs: u64) -> PathBuf {
    let version = roster::kernel::db::schema::version();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-jobs-{jobs}-schema-{version}"));
    let mark = directory.join("filled");
    if mark.exists() {
        return directory;
    }
    progress(&format!("filling the queues with {jobs} jobs"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    runtime.block_on(async {
        App::open(Config::of(&directory), &roster::server::features::FEATURES).await.expect("made").close().await
    });
    fill(&Connection::open(directory.join("roster.db")).expect("the file"), jobs);
    std::fs::write(mark, "").expect("a mark");
    directory
}

fn fill(rows: &Connection, jobs: u64) {
    let steps = |first: &str, rest: &str| {
        let step = |name: &str, state: &str| format!(r#"{{"processor":"{name}","state":"{state}"}}"#);
        let first = ["asr", "cut"].map(|name| step(name, first));
        let rest = ["yolo", "ocr", "face", "pose"].map(|name| step(name, rest));
        format!("[{},{}]", first.join(","), rest.join(","))
    };
    let (new, cut) = (steps("ready", "waiting"), steps("completed", "ready"));
    let members = jobs / JOBS_EACH;
    rows.execute_batch(&format!(
        "pragma synchronous = off;
         begin;
         with n (n) as (values (0) union all select n + 1 from n where n < {ORGANIZATIONS} - 1)
         insert into organizations (id, org_code, name, status, created_at, updated_at)
         select unhex(printf('0000000000007000a000%012x', n)), 'o' || n, 'O', iif(n % 10 = 0, 'inactive', 'active'), 1, 1
         from n;
         with n (n) as (values (0) union all select n + 1 from n where n < {members} - 1)
         insert into members (id, status, created_at, updated_at)
         select unhex(printf('0000000000007000b000%012x', n)), iif(n % 10 = 5, 'suspended', 'active'), 1, 1 from n;
         with n (n) as (values (0) union all select n + 1 from n where n < {jobs} - 1)
         insert into videos (number, id, path, member_id, organization_id, size, created_at, updated_at)
         select n + 1, printf('%016x', n), 'u/' || n || '.mp4', unhex(printf('0000000000007000b000%012x', n % {members})),
                unhex(printf('0000000000007000a000%012x', n % {members} % {ORGANIZATIONS})), 0, 1, 1
         from n;
         insert into jobs (video_number, id, member_id, organization_id, kind, state, run_at, steps, ready, created_at,
                           updated_at)
         select number, unhex(printf('0000000000007000c000%012x', number)), member_id, organization_id,
                'auto_ingestion', 'queued', number, iif(number % 3 = 0, '{cut}', '{new}'), iif(number % 3 = 0, 60, 3), 1, 1
         from videos;
         insert into job_queues (member_id, organization_id, ready, state, turn, since)
         select member_id, organization_id, ready, 'open', 0, min(run_at)
         from jobs
         group by member_id, organization_id, ready;
         commit;
         pragma wal_checkpoint(truncate);"
    ))
    .expect("filled");
}
