//! Plugins: what a call costs, what it does to a check, and what a hostile organization does to an honest one.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::driver;
use crate::figures::{Figures, progress};
use crate::process::Process;
use crate::site::{self, Site};
use crate::{ROUNDS, guests};

/// The example that is asked: it reads its facts, computes the hour, and has nothing to say against it.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/business-hours/business-hours.wasm");
/// A Wednesday, ten o'clock in the example's office.
const DURING_BUSINESS_MS: i64 = 1_741_140_000_000;
/// Guests that never end, as many as one organization may run.
const SPINNERS: usize = 4;

/// What a call costs, in a process of its own.
pub fn calls(figures: &mut Figures) {
    progress("calls of a plugin");
    let output = Command::new(site::binary()).args(["plugin", "bench", EXAMPLE, "--json"]).output().expect("a run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |name: &str| measured["authorize"][name].as_f64().expect("a figure");
    figures.add("plugin_call_us_p50", of("p50_us"));
    figures.add("plugin_call_us_p99", of("p99_us"));
}

/// Puts the example in force in the organization of the other measurements, and a guest that never ends in another one.
pub fn install(site: &Site, server: &Process) -> Hostile {
    let setup = site.setup(server.address);
    setup.put_in_force("business-hours", &std::fs::read(EXAMPLE).expect("the example"));
    let other = setup.in_organization("hostile");
    other.put_in_force("spinner", &guests::looping());
    let uid = other.member_with_role();
    Hostile { headers: format!("{}{}", site.client, other.tenant()), uid }
}

/// An organization whose plugin never ends.
pub struct Hostile {
    headers: String,
    uid: String,
}

impl Hostile {
    fn request(&self, request: &mut Vec<u8>) {
        let body = json!({"uid": self.uid, "method": "GET", "path": "/videos/1"}).to_string();
        request.extend(driver::request("POST", site::CHECK, &self.headers, &body));
    }
}

/// A question that the role allows and the plugin as well.
pub fn check_request(site: &Site, n: u64, request: &mut Vec<u8>) {
    let uid = site.uid(n);
    let body =
        format!(r#"{{"uid":"{uid}","method":"GET","path":"/videos/{n}","context":{{"now_ms":{DURING_BUSINESS_MS}}}}}"#);
    request.extend(driver::request("POST", site::CHECK, &site.client_in_tenant, &body));
}

/// The first check after a restart: the compiled component comes from the cache.
pub fn cold(site: &Site, mut server: Process, figures: &mut Figures) -> Process {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        server.stop();
        server = site.launch();
        let mut request = Vec::new();
        check_request(site, 0, &mut request);
        let began = Instant::now();
        let body = driver::all(server.address, &[request]).remove(0);
        best = best.min(began.elapsed().as_secs_f64() * 1e3);
        assert!(String::from_utf8_lossy(&body).contains(r#""allow":true"#));
    }
    figures.add("plugin_cold_ms", best);
    server
}

/// The slow end of an honest organization's checks beside guests that never end, against the same alone.
pub fn hostile(site: &Site, server: &Process, hostile: &Hostile, figures: &mut Figures) {
    const ONE: usize = 1;
    let honest = |n: u64, _: &[u8], request: &mut Vec<u8>| check_request(site, n, request);
    let (mut alone, mut beside) = (f64::MAX, f64::MAX);
    for round in 0..ROUNDS {
        progress(&format!("a hostile neighbour, round {} of {ROUNDS}", round + 1));
        alone = alone.min(driver::measure(server.address, ONE, &[], &honest).p99_us);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let spinning = scope.spawn(|| {
                let spin = |_: u64, _: &[u8], request: &mut Vec<u8>| hostile.request(request);
                let mut denied = 0;
                while !is_over.load(Ordering::Relaxed) {
                    denied += driver::measure(server.address, SPINNERS, &[], &spin).answered;
                }
                denied
            });
            beside = beside.min(driver::measure(server.address, ONE, &[], &honest).p99_us);
            is_over.store(true, Ordering::Relaxed);
            assert!(spinning.join().expect("the spinners") > 0, "no guest was running");
        });
    }
    figures.add("hostile_neighbour_p99_ratio", beside / alone);
    figures.add("honest_p99_us", alone);
}
