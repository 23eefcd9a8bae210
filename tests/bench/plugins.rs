//! Plugins: the cost of a call, its effect on a check, and how far one organization's plugin slows down another
//! organization.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::driver;
use crate::metrics::{Figures, progress};
use crate::process::Process;
use crate::site::{self, Setup, Site};
use crate::{ROUNDS, wasm_fixtures};

/// The example plugin that is called: it reads its facts, computes the hour, and does not deny.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/business-hours/business-hours.wasm");
/// A Wednesday, ten o'clock in the time zone of the example.
const DURING_BUSINESS_MS: i64 = 1_741_140_000_000;
/// Hostile calls at the same time: as many as one organization may have.
const HOSTILE_CALLS: usize = 4;

/// Plugins of one organization, questions per request, and iterations of a loop that takes a little less than
/// `plugins.fast_us`.
const MANY_PLUGINS: usize = 20;
const MANY_QUESTIONS: usize = 100;
const LOOPS_BELOW_FAST: u32 = 40_000;

/// Measures the cost of a call, in a process of its own.
pub fn calls(figures: &mut Figures) {
    progress("calls of a plugin");
    let output = Command::new(site::binary()).args(["plugin", "bench", EXAMPLE, "--json"]).output().expect("a run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |name: &str| measured["authorize"][name].as_f64().expect("a figure");
    figures.add("plugin_call_us_p50", of("p50_us"));
    figures.add("plugin_call_us_p99", of("p99_us"));
}

/// Activates the example in the organization of the other measurements.
pub fn install(site: &Site, server: &Process) {
    let setup = site.setup(server.address);
    setup.put_in_force("business-hours", &std::fs::read(EXAMPLE).expect("the example"));
}

/// An organization whose plugin uses as many resources as its limits allow.
struct Hostile {
    setup: Setup,
    headers: String,
    uid: String,
    /// Questions per request.
    questions: usize,
}

impl Hostile {
    fn of(site: &Site, server: &Process) -> Self {
        let setup = site.setup(server.address).in_organization("hostile");
        let uid = setup.member_with_role("h0");
        Self { headers: format!("{}{}", site.client, setup.tenant()), uid, setup, questions: 1 }
    }

    fn request(&self, request: &mut Vec<u8>) {
        let question = json!({"uid": self.uid, "method": "GET", "path": "/videos/1"});
        let body = match self.questions {
            1 => question.to_string(),
            many => json!({"questions": vec![question; many]}).to_string(),
        };
        request.extend(driver::request("POST", site::CHECK, &self.headers, &body));
    }
}

fn of(body: &str) -> Vec<u8> {
    wasm_fixtures::authorizer("(table $t 15000 funcref) (global $left (mut i32) (i32.const 0))", body)
}

fn looping(times: u32, body: &str) -> String {
    format!(
        "(global.set $left (i32.const {times}))
         (loop $again
           {body}
           (global.set $left (i32.sub (global.get $left) (i32.const 1)))
           (br_if $again (global.get $left)))
         (call $allow)"
    )
}

/// Guests that run long bulk instructions, and a loop that stays just below its limits. Except for the first they stay
/// within their fuel and answer `allow`, so that no call counts as a failure.
fn bulk() -> [(&'static str, Vec<u8>); 6] {
    [
        (
            "fills what it may not",
            of("(drop (memory.grow (i32.const 200)))
                (memory.fill (i32.const 131072) (i32.const 7) (i32.const 13000000)) (call $allow)"),
        ),
        (
            "fills all it may",
            of("(drop (memory.grow (i32.const 150)))
                (memory.fill (i32.const 131072) (i32.const 7) (i32.const 9800000)) (call $allow)"),
        ),
        (
            "touches every page",
            of("(local $at i32) (drop (memory.grow (i32.const 250)))
                (local.set $at (i32.const 131072))
                (loop $next
                  (i32.store8 (local.get $at) (i32.const 7))
                  (local.set $at (i32.add (local.get $at) (i32.const 4096)))
                  (br_if $next (i32.lt_u (local.get $at) (i32.const 16000000))))
                (call $allow)"),
        ),
        (
            "copies",
            of(&format!(
                "(drop (memory.grow (i32.const 60))) {}",
                looping(7, "(memory.copy (i32.const 2000000) (i32.const 0) (i32.const 1900000))")
            )),
        ),
        ("fills a table", of(&looping(150, "(table.fill $t (i32.const 0) (ref.null func) (i32.const 15000))"))),
        ("loops just short enough", of(&looping(2_000_000, ""))),
    ]
}

/// A question that both the role and the plugin allow.
pub fn check_request(site: &Site, n: u64, request: &mut Vec<u8>) {
    let uid = site.uid(n);
    let body =
        format!(r#"{{"uid":"{uid}","method":"GET","path":"/videos/{n}","context":{{"now_ms":{DURING_BUSINESS_MS}}}}}"#);
    request.extend(driver::request("POST", site::CHECK, &site.client_in_tenant, &body));
}

/// Measures the first check after a restart, when the compiled component comes from the cache.
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

/// Measures the tail latency of another organization's checks beside guests that do not end and guests that run bulk
/// instructions, against the same checks alone.
pub fn hostile(site: &Site, server: &Process, figures: &mut Figures) {
    let hostile = Hostile::of(site, server);
    hostile.setup.put_in_force("hostile", &wasm_fixtures::looping());
    let (alone, ratio) = beside(site, server, &hostile, "a hostile organization", ROUNDS);
    figures.add("hostile_neighbour_p99_ratio", ratio);
    figures.add("honest_p99_us", alone);
    let mut worst = 0.0_f64;
    for (name, guest) in bulk() {
        hostile.setup.put_in_force("hostile", &guest);
        let (_, ratio) = beside(site, server, &hostile, name, ROUNDS / 2);
        progress(&format!("one that {name}: {ratio:.2}"));
        worst = worst.max(ratio);
    }
    figures.add("hostile_bulk_p99_ratio", worst);
    // Each call is fast enough to run on the request's thread, and each request makes thousands of calls.
    let name = "many plugins and many questions";
    for n in 0..MANY_PLUGINS {
        hostile.setup.put_in_force(&format!("hostile{n}"), &of(&looping(LOOPS_BELOW_FAST, "")));
    }
    hostile.setup.put_in_force("hostile", &of(&looping(LOOPS_BELOW_FAST, "")));
    let (_, ratio) = beside(site, server, &Hostile { questions: MANY_QUESTIONS, ..hostile }, name, ROUNDS / 2);
    figures.add("hostile_batch_p99_ratio", ratio);
}

/// The 99th percentile of the other organization's checks alone, and its ratio beside the hostile guests.
fn beside(site: &Site, server: &Process, hostile: &Hostile, name: &str, rounds: usize) -> (f64, f64) {
    const ONE: usize = 1;
    let honest = |n: u64, _: &[u8], request: &mut Vec<u8>| check_request(site, n, request);
    let (mut alone, mut beside) = (f64::MAX, f64::MAX);
    for round in 0..rounds {
        progress(&format!("{name}, round {} of {rounds}", round + 1));
        alone = alone.min(driver::measure(server.address, ONE, &[], &honest).p99_us);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let ask = |_: u64, _: &[u8], request: &mut Vec<u8>| hostile.request(request);
                let mut answered = 0;
                while !is_over.load(Ordering::Relaxed) {
                    answered += driver::measure(server.address, HOSTILE_CALLS, &[], &ask).answered;
                }
                answered
            });
            beside = beside.min(driver::measure(server.address, ONE, &[], &honest).p99_us);
            is_over.store(true, Ordering::Relaxed);
            assert!(asking.join().expect("the hostile ones") > 0, "no guest was running");
        });
    }
    (alone, beside / alone)
}
