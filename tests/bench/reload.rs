//! How long a small change waits while the policy of a site with 200,000 members is compared with its rows.
//!
//! The file is filled by SQL and kept below `target/tmp` for the next run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use roster::kernel::app::{App, Changed, Transaction};
use roster::kernel::audit_log::Entry;
use roster::kernel::authz;
use roster::kernel::authz::principal::Identity;
use roster::kernel::config::Config;
use roster::kernel::ids::MemberId;
use rusqlite::Connection;

use crate::metrics::{Figures, progress};

const MEMBERS: u64 = 200_000;
const ORGANIZATIONS: u64 = 10_000;

pub fn run(figures: &mut Figures) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let directory = filled(&runtime);
    progress("reloads among 200 000 members");
    let (stall, took) = runtime.block_on(reloads(&directory));
    figures.add("write_stall_ms_reload", stall.as_secs_f64() * 1e3);
    figures.add("reload_ms_200k", took.as_secs_f64() * 1e3);
}

/// The longest wait of a change during a reload, and the duration of the reload.
async fn reloads(directory: &Path) -> (Duration, Duration) {
    let app = App::open(Config::of(directory), &roster::server::features::FEATURES).await.expect("open");
    let other = app.clone();
    let began = Instant::now();
    let reload = tokio::spawn(async move { other.reload(None).await.expect("a reload").changed });
    let mut longest = Duration::ZERO;
    while !reload.is_finished() {
        let asked = Instant::now();
        // A change that affects the policy.
        let change = |t: &Transaction<'_>, _: &Identity| {
            let person = authz::store::member_state(t, MemberId(uuid::Uuid::from_u64_pair(0x7000, 0xb000 << 48)))?;
            Ok(Changed::new((), Entry::new("member", "first")).with_policy_changes([person]))
        };
        app.change(&Identity::command_line(), "bench", change).await.expect("a change");
        longest = longest.max(asked.elapsed());
    }
    let took = began.elapsed();
    assert!(!reload.await.expect("its end"), "the policy differed");
    app.close().await;
    (longest, took)
}

/// Returns a data directory with this many members, which the first run creates.
fn filled(runtime: &tokio::runtime::Runtime) -> PathBuf {
    let version = roster::kernel::db::schema::version();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-reload-schema-{version}"));
    let mark = directory.join("filled");
    if mark.exists() {
        return directory;
    }
    progress("filling a site with 200 000 members");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    runtime.block_on(async {
        App::open(Config::of(&directory), &roster::server::features::FEATURES).await.expect("made").close().await
    });
    let file = directory.join("roster.db");
    fill(&Connection::open(&file).expect("the file"));
    // Otherwise the first change that is measured waits until all of this is on the disk.
    std::fs::File::open(&file).and_then(|file| file.sync_all()).expect("synced");
    std::fs::write(mark, "").expect("a mark");
    directory
}

/// Puts every member into one organization with one role, five grants and a session.
fn fill(rows: &Connection) {
    rows.execute_batch(&format!(
        "pragma synchronous = off;
         begin;
         with n (n) as (values (0) union all select n + 1 from n where n < {ORGANIZATIONS} - 1)
         insert into organizations (id, org_code, name, status, created_at, updated_at)
         select unhex(printf('0000000000007000a000%012x', n)), 'o' || n, 'O', 'active', 1, 1 from n;
         insert into roles (id, organization_id, key, display_name, status, is_system, created_at, updated_at)
         select id, id, 'reader', 'R', 'open', 0, 1, 1 from organizations where org_code <> 'platform';
         with n (n) as (values (0) union all select n + 1 from n where n < {MEMBERS} - 1)
         insert into members (id, status, created_at, updated_at)
         select unhex(printf('0000000000007000b000%012x', n)), 'active', 1, 1 from n;
         with n (n) as (values (0) union all select n + 1 from n where n < {MEMBERS} - 1)
         insert into memberships (organization_id, member_id, created_at)
         select unhex(printf('0000000000007000a000%012x', n % {ORGANIZATIONS})),
                unhex(printf('0000000000007000b000%012x', n)), 1
         from n;
         insert into role_assignments (id, organization_id, member_id, role_id, source, created_at, updated_at)
         select member_id, organization_id, member_id, organization_id, 'manual', 1, 1 from memberships;
         with n (n) as (values (0) union all select n + 1 from n where n < 5 * {MEMBERS} - 1)
         insert into grants (id, member_id, scope_type, scope_id, module, action, created_at)
         select unhex(printf('0000000000007000d000%012x', n)),
                unhex(printf('0000000000007000b000%012x', n / 5)), 'project', 'p' || n, 'videos', 'edit', 1
         from n;
         insert into sessions (id, member_id, method, second_factor, refresh_hash, rotated_at, expires_at, ends_at,
                               device, address, created_at)
         select id, id, 'password', 0, randomblob(32), 1, 9000000000000, 9000000000000, '', '', 1 from members;
         commit;
         pragma wal_checkpoint(truncate);"
    ))
    .expect("filled");
}
