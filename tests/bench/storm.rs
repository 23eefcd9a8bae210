//! A member who is served while others are in the way: how long answers take, and what of the memory stays taken.

use std::time::{Duration, Instant};

use crate::figures::{Figures, progress};
use crate::site::{self, Site};
use crate::{driver, storm_clients};

/// Descriptors of the server: fewer than there are clients.
const FILES: u32 = 1_024;
/// The least time that is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// After the storm, until the memory is looked at again.
const CALM: Duration = Duration::from_secs(60);

/// Answers how many requests failed.
pub fn run(site: &Site, figures: &mut Figures) -> u64 {
    let server = site.launch_with_files(FILES);
    let request = driver::request("GET", site::ME, &site.bearer, "");
    let make = |_: u64, _: &[u8], buffer: &mut Vec<u8>| buffer.extend_from_slice(&request);
    // What requests need is there before the storm, too.
    driver::measure(server.address, 64, &[], &make);
    let before = server.resident_mb();
    progress("a storm");
    storm_clients::raise_open_files();
    let address = server.address;
    let storm = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { storm_clients::start(address).join_all().await });
    });
    let until = Instant::now() + MEASURED;
    let asked = driver::one_after_another(address, &request, || Instant::now() < until || !storm.is_finished());
    storm.join().expect("a storm");
    figures.add("storm_p99_ms", asked.p99_us / 1e3);
    figures.add("storm_peak_mb", server.peak_mb());
    progress("calm");
    std::thread::sleep(CALM);
    figures.add("storm_after_mb", server.resident_mb() - before);
    if let Some(complaint) = &asked.complaint {
        eprintln!("{} requests failed in the storm, the first one: {complaint}", asked.failed);
    }
    server.stop();
    asked.failed
}
