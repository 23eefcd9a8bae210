//! Every hostile guest ends with its named error, and components of the wrong form are refused.

use serde_json::json;

use super::{End, PluginFolder, causes, corpus};
use crate::harness::{site, wasm_fixtures};

/// Runs a closure for each item, several at a time.
fn for_each<T: Sync>(all: &[T], what: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    what(one);
                }
            });
        }
    });
}

#[test]
fn every_hostile_guest_ends_with_its_named_error() {
    for_each(&corpus(), |guest| {
        let name = &guest.name;
        let bench = PluginFolder::of(&guest.bytes);
        match &guest.end {
            End::Refused(word) => {
                let checked = bench.check();
                assert_eq!(checked["ok"], false, "{name}");
                assert!(causes(&checked).contains(word), "{name}: {checked}");
            }
            End::Call(words) => {
                let checked = bench.check();
                assert_eq!(checked["ok"], true, "{name}: {checked}");
                let vector = if checked["exports"] == json!(["authorizer"]) {
                    json!({"authorize": {"action": "GET", "roles": ["editor"]}, "expect": "allow"})
                } else {
                    json!({"map_roles": {"source": "ldap", "groups": ["a", "b"]}, "expect": {"roles": ["nobody"]}})
                };
                let reports = bench.ask(&json!([vector]));
                let got = &reports[0]["got"];
                let word = match got.as_object().and_then(|got| got.iter().next()) {
                    Some((key, fault)) if key == "fails" => fault.as_str().expect("a word"),
                    Some((key, _)) => key,
                    None => got.as_str().expect("a word"),
                };
                assert!(words.iter().any(|expected| expected == word), "{name} ends in {word}: {}", reports[0]);
            }
        }
        assert_eq!(bench.left_over(), Vec::<String>::new(), "{name}");
    });
}

#[test]
fn a_report_holds_cost_log_and_cause_of_a_failed_call() {
    let bench = PluginFolder::of(&wasm_fixtures::authorizer(
        "(data (i32.const 1024) \"it is late\\07\")",
        "(call $log (i32.const 2) (i32.const 1024) (i32.const 11))
         (if (i32.eqz (local.get $roles_count)) (then (unreachable)))
         (call $deny (i32.const 1024) (i32.const 10))",
    ));
    let reports = bench.ask(&json!([
        {"name": "late", "authorize": {"action": "GET", "roles": ["a"]}, "expect": {"deny": "it is late"}},
        {"name": "early", "authorize": {"action": "GET", "roles": ["a"]}, "expect": {"deny": "it is early"}},
        {"name": "nobody", "authorize": {"action": "GET"}, "expect": "abstain"},
        {"name": "traps", "authorize": {"action": "GET"}, "expect": {"fails": "trap"}},
        {"name": "no mapper", "map_roles": {"source": "ldap"}, "expect": {"roles": []}},
    ]));
    let passed: Vec<_> = reports.iter().map(|report| report["passed"].as_bool().expect("passed")).collect();
    assert_eq!(passed, [true, false, false, true, false]);
    assert_eq!(reports[0]["log"], json!([{"level": "warn", "message": "it is late "}]));
    assert_eq!(reports[0]["fuel"], reports[1]["fuel"], "the same call costs the same");
    assert!(reports[0]["fuel"].as_u64().expect("fuel") > 10);
    assert_eq!(reports[1]["got"], json!({"deny": "it is late"}));
    assert_eq!(reports[2]["fault"]["kind"], "trap");
    assert!(reports[2]["fault"]["message"].as_str().expect("why").contains("unreachable"));
    assert_eq!(reports[4]["got"], json!({"fails": "unavailable"}));
}

#[test]
fn check_runs_the_vectors_that_a_component_carries() {
    let component = wasm_fixtures::denying("closed");
    let right = b"- {name: closed, authorize: {action: GET}, expect: {deny: closed}}\n";
    let with = |text: &[u8]| roster::kernel::sandbox::vectors::replace_vectors(&component, text).expect("a section");
    let checked = PluginFolder::of(&with(right)).check();
    assert_eq!((&checked["ok"], &checked["vectors"][0]["passed"]), (&json!(true), &json!(true)));
    let wrong = b"- {name: open, authorize: {action: GET}, expect: allow}\n";
    let bench = PluginFolder::of(&with(wrong));
    let checked = bench.check();
    assert_eq!(checked["ok"], false);
    assert_eq!(checked["problems"], json!([r#"plugin_vectors_failed: open: expected "allow", got {"deny":"closed"}"#]));
    assert_eq!(bench.run(&["test", "plugin.wasm"]).status.code(), Some(1));
    let section = [&component[..], &[0, 19, 14], b"roster:vectors", b"nons"].concat();
    assert_eq!(causes(&PluginFolder::of(&section).check()), ["plugin_vectors"]);
}

#[test]
fn a_component_of_another_major_is_refused_and_one_of_another_minor_runs() {
    let guest = wasm_fixtures::denying("closed");
    let of_version = |version: &str| {
        let mut bytes = guest.clone();
        for at in 0..bytes.len() - 6 {
            if &bytes[at..at + 6] == b"@1.0.0" {
                bytes[at + 1..at + 6].copy_from_slice(version.as_bytes());
            }
        }
        PluginFolder::of(&bytes)
    };
    for version in ["0.9.0", "2.0.0"] {
        let checked = of_version(version).check();
        assert_eq!(causes(&checked), ["plugin_major"]);
        let problem = checked["problems"][0].as_str().expect("a sentence");
        assert!(problem.contains(version) && problem.contains("this host has version 1.0.0"), "{problem}");
    }
    for version in ["1.0.1", "1.1.0", "1.9.0"] {
        let reports = of_version(version).ask(&json!([{"authorize": {"action": "GET"}, "expect": {"deny": "closed"}}]));
        assert_eq!(reports[0]["passed"], true, "{version}: {}", reports[0]);
    }
}

#[test]
fn refusals_name_what_is_missing_and_what_to_do() {
    let problem = |name: &str| {
        let guest = corpus().into_iter().find(|guest| guest.name == name).expect("a guest");
        PluginFolder::of(&guest.bytes).check()["problems"][0].as_str().expect("a sentence").to_owned()
    };
    let network = problem("wasi-network");
    assert!(network.contains("wasi:sockets/tcp@0.2.0") && network.contains("WASI stubbed"), "{network}");
    assert!(problem("newer-host-function").contains("`now`"));
    assert!(problem("core-module").contains("roster plugin pack"));
}

#[test]
fn bytes_that_are_not_a_component_are_refused() {
    let elf = std::fs::read(site::binary()).expect("this program")[..100_000].to_vec();
    let mut random = vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0];
    random.extend((0..8_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8));
    let too_large = [wasm_fixtures::allowing(), vec![0; 4_194_304]].concat();
    let guest = wasm_fixtures::allowing();
    let truncated = guest[..guest.len() * 2 / 3].to_vec();
    let cases = [
        (Vec::new(), "not_a_component"),
        (b"(component)".to_vec(), "not_a_component"),
        (elf, "not_a_component"),
        (random, "plugin_malformed"),
        (truncated, "plugin_malformed"),
        (too_large, "plugin_too_large"),
    ];
    for_each(&cases, |(bytes, cause)| {
        assert_eq!(causes(&PluginFolder::of(bytes).check()), [*cause], "{} bytes", bytes.len());
    });
}

#[test]
fn thousands_of_imports_are_counted_and_not_listed() {
    let imports: String = (0..3_000).map(|n| format!("(import \"f{n}\" (func))")).collect();
    let checked = PluginFolder::of(&wat::parse_str(format!("(component {imports})")).expect("text")).check();
    assert_eq!(causes(&checked), ["plugin_imports", "plugin_exports", "plugin_too_complex"]);
    assert!(checked["problems"][0].as_str().expect("a sentence").len() < 1_000);
}
