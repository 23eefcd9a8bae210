//! Latency of one member's requests while others load the server, and how much memory stays in use afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::metrics::{Figures, progress};
use crate::process::Process;
use crate::site::{self, Site};
use crate::storm_clients::{self, Asked};
use crate::{driver, wasm_fixtures};

/// The server's limit on open files: fewer than there are clients.
const FILES: u32 = 1_024;
/// The shortest measured time.
const MEASURED: Duration = Duration::from_secs(60);
/// Time after the load until the memory is measured again.
const CALM: Duration = Duration::from_secs(60);

/// All the load that one organization makes; its lists cover all members.
fn stormers(site: &Site, server: &Process) -> Vec<Asked> {
    let setup = site.setup(server.address).in_organization("storming");
    let uid = setup.member_with_role("storming");
    setup.put_in_force("endless", &wasm_fixtures::looping());
    let (own, all) = (setup.administrator(), &site.client);
    let check = json!({"uid": uid, "method": "GET", "path": "/videos/1"}).to_string();
    let long = json!({"username": "x".repeat(900_000)}).to_string();
    let list = "/admin/members?keyword=9&limit=200";
    let asked = |what, callers, request, read| Asked { what, callers, request: Arc::new(request), read };
    vec![
        asked("lists", 24, driver::request("GET", list, all, ""), true),
        asked("deep lists", 8, driver::request("GET", "/admin/members?offset=9000&limit=200", all, ""), true),
        asked("audit", 8, driver::request("GET", "/admin/audit?limit=200", &own, ""), true),
        asked("hostile plugin", 8, driver::request("POST", site::CHECK, &own, &check), true),
        asked("jobs", 110, driver::request("POST", "/api/v1/jobs/claim", all, r#"{"wait_s":1}"#), true),
        asked("reloads", 2, driver::request("POST", "/api/v1/permissions/policy/reload", &own, ""), true),
        asked("bodies", 8, driver::request("POST", "/admin/members", &own, &long), true),
        asked("unread docs", 60, driver::request("GET", "/api/v1/docs", "", ""), false),
        asked("unread lists", 30, driver::request("GET", list, all, ""), false),
    ]
}

/// Returns the number of failed requests.
pub fn run(site: &Site, figures: &mut Figures) -> u64 {
    let server = site.launch_with_files(FILES);
    let request = driver::request("GET", site::ME, &site.bearer, "");
    let make = |_: u64, _: &[u8], buffer: &mut Vec<u8>| buffer.extend_from_slice(&request);
    let stormers = stormers(site, &server);
    // Memory that requests need in general is allocated before the load begins.
    driver::measure(server.address, 64, &[], &make);
    let before = server.resident_mb();
    progress("a storm");
    storm_clients::raise_open_files();
    let (address, until) = (server.address, Instant::now() + MEASURED);
    let storm = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { storm_clients::start(address, until, &stormers).join_all().await })
    });
    let asked = driver::one_after_another(address, &request, || Instant::now() < until || !storm.is_finished());
    let answers = storm_clients::summed(storm.join().expect("a storm"));
    figures.add("storm_p99_ms", asked.p99_us / 1e3);
    figures.add("storm_peak_mb", server.peak_mb());
    progress("calm");
    std::thread::sleep(CALM);
    figures.add("storm_after_mb", server.resident_mb() - before);
    if let Some(complaint) = &asked.complaint {
        eprintln!("{} requests failed in the storm, the first one: {complaint}", asked.failed);
    }
    let faults = storm_clients::faults(&answers);
    if !faults.is_empty() {
        eprintln!("who stormed was answered: {}", faults.join("; "));
    }
    server.stop();
    asked.failed + faults.len() as u64
}
