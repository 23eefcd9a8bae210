//! The benchmark: one run on one machine. Its metrics are ratios within the run, so that they can be compared across
//! machines.
//!
//! In memory, it compares `decide` with a bare trie. Over HTTP, it compares each operation with a handler that does
//! nothing, behind the same server and driven by the same client with the same requests. The two sides alternate and
//! the best round of each counts, so that load on the machine affects both. `tests/bench/run` builds and starts it: all
//! parts, or with `--only` one [part](parts).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot be set up must stop")]

mod bare;
mod decide;
mod driver;
mod jobs;
mod lists;
mod metrics;
mod pages;
mod parts;
mod plugins;
mod process;
mod reload;
mod site;
mod storm;
#[path = "../it/harness/storm_clients.rs"]
mod storm_clients;
mod tls;
#[allow(dead_code, reason = "the tests use more of them")]
#[path = "../it/harness/wasm_fixtures.rs"]
mod wasm_fixtures;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use driver::{Make, Measured};
use metrics::{Figures, progress};
use parts::Wanted;
use process::Process;
use site::Site;

const IN_FLIGHT: usize = 64;
/// Many short rounds: other load on the machine then falls on both sides, and some rounds are free of it.
const ROUNDS: usize = 6;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(bare::ARGUMENT) => bare::serve(Path::new(&arguments[1])),
        Some(decide::MILLION_ARGUMENT) => decide::million(),
        // `cargo bench` adds an argument of its own.
        _ => return start(&arguments),
    }
    ExitCode::SUCCESS
}

fn start(arguments: &[String]) -> ExitCode {
    let wanted = match Wanted::of(arguments) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    parts::watch();
    let (figures, failed) = run(&wanted);
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", figures.into_json());
    }
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("{failed} requests failed");
    ExitCode::FAILURE
}

/// Returns the metrics and the number of failed requests.
fn run(wanted: &Wanted) -> (Figures, u64) {
    let mut figures = Figures::default();
    if wanted.begin("decide") {
        decide::run(&mut figures);
    }
    if wanted.begin("jobs") {
        jobs::run(&mut figures);
    }
    if wanted.begin("reload") {
        reload::run(&mut figures);
    }
    if wanted.begin("lists") {
        lists::run(&mut figures);
    }
    if !wanted.any(&["start", "tls", "reads", "writes", "plugins", "storm"]) {
        return (figures, 0);
    }
    let (what, seconds) = parts::SETTING_UP;
    parts::allow(what, seconds);
    let directory = tempfile::tempdir().expect("a directory");
    let site = Site::make(&directory.path().join("site"));
    if wanted.begin("start") {
        site.start(&mut figures);
    }
    if wanted.begin("tls") && !tls::run(&site, directory.path(), &mut figures) {
        return (figures, 1);
    }
    parts::allow(what, seconds);
    let server = site.launch_settled();
    let bare = bare::start(directory.path());
    let mut stand = Comparison { site: &site, server: &server, bare: &bare, figures, failed: 0 };
    if wanted.begin("reads") {
        stand.reads();
    }
    if wanted.begin("writes") {
        stand.figures.add("fsync_us", fsync_us(directory.path()));
        stand.writes();
    }
    // Last, because activating plugins changes what every later check costs.
    let is_with_plugins = wanted.begin("plugins");
    if is_with_plugins {
        plugins::calls(&mut stand.figures);
        plugins::install(&site, stand.server);
        stand.reads_with_plugin();
    }
    let (failed, mut figures) = (stand.failed, stand.figures);
    let server = if is_with_plugins {
        plugins::hostile(&site, &server, &mut figures);
        plugins::cold(&site, server, &mut figures)
    } else {
        server
    };
    if failed > 0 {
        eprintln!("{}", server.logged());
    }
    server.stop();
    if wanted.begin("storm") {
        let failed_in_storm = storm::run(&site, &mut figures);
        return (figures, failed + failed_in_storm);
    }
    (figures, failed)
}

/// The two servers that are compared.
struct Comparison<'a> {
    site: &'a Site,
    server: &'a Process,
    bare: &'a Process,
    figures: Figures,
    failed: u64,
}

impl Comparison<'_> {
    fn reads(&mut self) {
        let site = self.site;
        let check = |n: u64, _: &[u8], request: &mut Vec<u8>| site::check_request(site, n, request);
        self.answers(&check, r#""allow":true"#);
        let (ours, bare) = self.side_by_side("check", &check);
        self.figures.add("check_vs_bare", ours / bare);
        self.figures.add("check_per_s", ours);
        self.figures.add("bare_post_per_s", bare);
        for (path, needle, ratio, absolute) in [
            (site::MY_PERMISSIONS, r#""videos.read":"open""#, "me_vs_bare", "me_per_s"),
            (site::ME, r#""username":"u0""#, "bearer_me_vs_bare", "bearer_me_per_s"),
        ] {
            let whole = driver::request("GET", path, &site.bearer, "");
            let make = |_: u64, _: &[u8], request: &mut Vec<u8>| request.extend_from_slice(&whole);
            self.answers(&make, needle);
            let (ours, bare) = self.side_by_side(path, &make);
            self.figures.add(ratio, ours / bare);
            self.figures.add(absolute, ours);
            if path == site::ME {
                self.figures.add("bare_per_s", bare);
            }
        }
    }

    fn reads_with_plugin(&mut self) {
        let site = self.site;
        let check = |n: u64, _: &[u8], request: &mut Vec<u8>| plugins::check_request(site, n, request);
        self.answers(&check, r#""allow":true"#);
        let (ours, bare) = self.side_by_side("check with a plugin", &check);
        self.figures.add("check_with_plugin_vs_bare", ours / bare);
        self.figures.add("check_with_plugin_per_s", ours);
    }

    fn writes(&mut self) {
        let (mut many, mut one, mut bare, mut refreshed, mut answered) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64, 0);
        let (mut registered, mut videos) = (0.0_f64, 0);
        let site = self.site;
        let refresh = |_: u64, last: &[u8], request: &mut Vec<u8>| site::refresh_request(last, request);
        let mut sessions = site::sessions(self.server.address, IN_FLIGHT);
        for round in 0..ROUNDS {
            progress(&format!("grants, registrations and refreshes, round {} of {ROUNDS}", round + 1));
            let make = |series: usize| {
                move |n: u64, _: &[u8], request: &mut Vec<u8>| site::grant_request(site, series, n, request)
            };
            bare = bare.max(self.measured(self.bare.address, IN_FLIGHT, &[], &make(2 * round)).per_s);
            let at_64 = self.measured(self.server.address, IN_FLIGHT, &[], &make(2 * round));
            let at_1 = self.measured(self.server.address, 1, &[], &make(2 * round + 1));
            answered += at_64.answered + at_1.answered;
            (many, one) = (many.max(at_64.per_s), one.max(at_1.per_s));
            let register = |n: u64, _: &[u8], request: &mut Vec<u8>| site::register_request(site, round, n, request);
            let registrations = self.measured(self.server.address, IN_FLIGHT, &[], &register);
            registered = registered.max(registrations.per_s);
            videos += registrations.answered;
            let chain = self.measured(self.server.address, IN_FLIGHT, &sessions, &refresh);
            refreshed = refreshed.max(chain.per_s);
            sessions = chain.last;
        }
        // Each answered request has its row and its audit row: otherwise the run did not measure writes.
        assert_eq!(self.site.granted(), (answered, answered), "grants and their audit rows");
        assert_eq!(self.site.registered(), [videos; 3], "videos, their jobs, and their bytes");
        self.figures.add("group_commit_gain", many / one);
        self.figures.add("write_vs_bare", many / bare);
        self.figures.add("refresh_vs_grant", refreshed / many);
        self.figures.add("refreshes_64_per_s", refreshed);
        self.figures.add("register_vs_grant", registered / many);
        self.figures.add("registrations_64_per_s", registered);
        self.figures.add("grants_64_per_s", many);
        self.figures.add("grants_1_per_s", one);
    }

    /// The best rate of the server and of the bare handler, measured in alternating rounds.
    fn side_by_side(&mut self, name: &str, make: Make<'_>) -> (f64, f64) {
        let (mut ours, mut bare) = (0.0_f64, 0.0_f64);
        for round in 0..ROUNDS {
            progress(&format!("{name}, round {} of {ROUNDS}", round + 1));
            bare = bare.max(self.measured(self.bare.address, IN_FLIGHT, &[], make).per_s);
            ours = ours.max(self.measured(self.server.address, IN_FLIGHT, &[], make).per_s);
        }
        (ours, bare)
    }

    fn measured(&mut self, address: SocketAddr, in_flight: usize, first: &[Vec<u8>], make: Make<'_>) -> Measured {
        let measured = driver::measure(address, in_flight, first, make);
        self.failed += measured.failed;
        if let Some(complaint) = &measured.complaint {
            eprintln!("{} requests failed, the first one: {complaint}", measured.failed);
        }
        measured
    }

    /// Asserts that the server's response is the expected one, so that the right operation is measured.
    fn answers(&self, make: Make<'_>, needle: &str) {
        let mut request = Vec::new();
        make(0, &[], &mut request);
        let body = driver::all(self.server.address, &[request]).remove(0);
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains(needle), "{text}");
    }
}

/// Duration of an `fsync` of one page on this disk. The longer it is, the more group commit gains.
fn fsync_us(directory: &Path) -> f64 {
    use std::io::Write;
    const TIMES: u32 = 50;
    let mut file = std::fs::File::create(directory.join("fsync")).expect("a file");
    let began = Instant::now();
    for _ in 0..TIMES {
        file.write_all(&[7; 4_096]).expect("written");
        file.sync_data().expect("synced");
    }
    began.elapsed().as_micros() as f64 / f64::from(TIMES)
}
