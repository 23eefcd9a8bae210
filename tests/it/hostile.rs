//! Guests that mean harm: each ends in its named error. What bounds them are their limits, never a clock of the test.
//!
//! `hostile/*.wat` say in their comments what they are (`authorizer` or `role-mapper`: what stands before the functions of
//! `guests`, and the body; `module WORLD`: all of a core module; `component`: as it is) and how they end: `ends` with a
//! fault of a call, or an answer; or `refused` with the word of a cause.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{guests, site};

pub struct Hostile {
    pub name: String,
    pub bytes: Vec<u8>,
    pub end: End,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// One of these faults, or answers.
    Call(Vec<String>),
    Refused(String),
}

/// The corpus of the folder.
pub fn corpus() -> Vec<Hostile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/hostile");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).expect("folder").map(|f| f.expect("file").path()).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> Hostile {
    let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).expect("text");
    let kinds = [";; authorizer, ", ";; role-mapper, ", ";; module ", ";; component, "];
    let line = text.lines().find(|line| kinds.iter().any(|kind| line.starts_with(kind))).expect("what it is");
    let (kind, end) = line.trim_start_matches(";; ").split_once(", ").expect("how it ends");
    let (before, body) = text.split_once("\n;; body\n").unwrap_or((&text, ""));
    let bytes = match kind.split_once(' ') {
        Some(("module", world)) => guests::component(world, &text),
        _ if kind == "authorizer" => guests::authorizer(before, body),
        _ if kind == "role-mapper" => guests::role_mapper(before, body),
        _ => wat::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")),
    };
    let end = match end.split_once(": ").expect("how it ends") {
        ("ends", words) => End::Call(words.split(' ').map(str::to_owned).collect()),
        ("refused", word) => End::Refused(word.to_owned()),
        other => panic!("{name}: {other:?}"),
    };
    Hostile { name, bytes, end }
}

/// A folder with a component, for commands that are run in it.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn of(component: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("plugin.wasm"), component).expect("written");
        Self { folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(site::binary());
        command.current_dir(self.folder.path()).arg("plugin").args(arguments).arg("--json");
        command.stdin(Stdio::null()).output().expect("roster plugin")
    }

    fn check(&self) -> Value {
        let output = self.run(&["check", "plugin.wasm"]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(i32::from(answer["ok"] != true)), "{answer}");
        answer
    }

    /// The reports of test vectors.
    fn ask(&self, vectors: &Value) -> Vec<Value> {
        std::fs::write(self.folder.path().join("vectors.json"), vectors.to_string()).expect("written");
        let output = self.run(&["test", "plugin.wasm", "vectors.json"]);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(i32::from(answer["ok"] != true)), "{answer}");
        answer["items"].as_array().expect("reports").clone()
    }

    /// What is there beside what was put there.
    fn left_over(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("folder");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !["plugin.wasm", "vectors.json", "vectors.yaml"].contains(&name.as_str())).collect()
    }
}

/// The first word of each problem.
fn causes(checked: &Value) -> Vec<String> {
    let problems = checked["problems"].as_array().expect("problems").iter();
    problems.map(|text| text.as_str().expect("text").split(':').next().expect("a word").to_owned()).collect()
}

/// Runs one thing for each, some at a time.
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
fn every_hostile_guest_ends_in_its_named_error() {
    for_each(&corpus(), |guest| {
        let name = &guest.name;
        let bench = Bench::of(&guest.bytes);
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
fn a_report_says_what_a_call_cost_and_logged_and_why_it_failed() {
    let bench = Bench::of(&guests::authorizer(
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
    let component = guests::denying("closed");
    let right = b"- {name: closed, authorize: {action: GET}, expect: {deny: closed}}\n";
    let with = |text: &[u8]| roster::sandbox::vectors::put_into(&component, text).expect("a section");
    let checked = Bench::of(&with(right)).check();
    assert_eq!((&checked["ok"], &checked["vectors"][0]["passed"]), (&json!(true), &json!(true)));
    let wrong = b"- {name: open, authorize: {action: GET}, expect: allow}\n";
    let bench = Bench::of(&with(wrong));
    let checked = bench.check();
    assert_eq!(checked["ok"], false);
    assert_eq!(checked["problems"], json!([r#"plugin_vectors_failed: open: expected "allow", got {"deny":"closed"}"#]));
    assert_eq!(bench.run(&["test", "plugin.wasm"]).status.code(), Some(1));
    let section = [&component[..], &[0, 19, 14], b"roster:vectors", b"nons"].concat();
    assert_eq!(causes(&Bench::of(&section).check()), ["plugin_vectors"]);
}

#[test]
fn a_component_of_another_major_is_refused_and_one_of_another_minor_runs() {
    let guest = guests::denying("closed");
    let of_version = |version: &str| {
        let mut bytes = guest.clone();
        for at in 0..bytes.len() - 6 {
            if &bytes[at..at + 6] == b"@1.0.0" {
                bytes[at + 1..at + 6].copy_from_slice(version.as_bytes());
            }
        }
        Bench::of(&bytes)
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
        Bench::of(&guest.bytes).check()["problems"][0].as_str().expect("a sentence").to_owned()
    };
    let network = problem("wasi-network");
    assert!(network.contains("wasi:sockets/tcp@0.2.0") && network.contains("WASI stubbed"), "{network}");
    assert!(problem("newer-host-function").contains("`now`"));
    assert!(problem("core-module").contains("roster plugin pack"));
}

#[test]
fn what_is_no_component_is_refused() {
    let elf = std::fs::read(site::binary()).expect("this program")[..100_000].to_vec();
    let mut random = vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0];
    random.extend((0..8_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8));
    let too_large = [guests::allowing(), vec![0; 4_194_304]].concat();
    let guest = guests::allowing();
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
        assert_eq!(causes(&Bench::of(bytes).check()), [*cause], "{} bytes", bytes.len());
    });
}

#[test]
fn thousands_of_imports_are_counted_and_not_listed() {
    let imports: String = (0..3_000).map(|n| format!("(import \"f{n}\" (func))")).collect();
    let checked = Bench::of(&wat::parse_str(format!("(component {imports})")).expect("text")).check();
    assert_eq!(causes(&checked), ["plugin_imports", "plugin_exports", "plugin_too_complex"]);
    assert!(checked["problems"][0].as_str().expect("a sentence").len() < 1_000);
}

/// Types within types, so deep that whoever follows them runs out of stack.
fn nested_types(depth: usize) -> Vec<u8> {
    let mut one = vec![1];
    one.extend([0x42, 1, 1].repeat(depth));
    one.extend([0x42, 0]);
    let mut bytes = vec![0, b'a', b's', b'm', 0x0d, 0, 1, 0, 7];
    let mut length = one.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(one);
    bytes.extend(
        &wat::parse_str("(component (instance $a) (export \"roster:policy/authorizer@1.0.0\" (instance $a)))")
            .expect("text")[8..],
    );
    bytes
}

#[test]
fn types_nested_a_million_deep_harm_the_child_only() {
    let checked = Bench::of(&nested_types(1_000_000)).check();
    assert_eq!(causes(&checked), ["plugin_compile"], "{checked}");
    let checked = Bench::of(&nested_types(3)).check();
    assert_eq!(causes(&checked), ["plugin_exports"], "{checked}");
}
