//! Hostile guests: each ends with its named error. Limits of the sandbox end them, never a timer of the test.
//!
//! The comments of `hostile/*.wat` say what kind of text follows (`authorizer` or `role-mapper`: what precedes the
//! functions of `wasm_fixtures`, and the body; `module WORLD`: a whole core module; `component`: as it is) and how it
//! ends: `ends` with a fault of a call or an answer, or `refused` with an error code.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use roster::kernel::sandbox::compile;
use serde_json::{Value, json};

use super::{site, wasm_fixtures};
use crate::plugins::{activate, upload};
use crate::site::{Organization, Site};

pub struct Hostile {
    pub name: String,
    pub bytes: Vec<u8>,
    pub end: End,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// One of these faults or answers.
    Call(Vec<String>),
    Refused(String),
}

/// Reads the guests of the folder.
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
        Some(("module", world)) => wasm_fixtures::component(world, &text),
        _ if kind == "authorizer" => wasm_fixtures::authorizer(before, body),
        _ if kind == "role-mapper" => wasm_fixtures::role_mapper(before, body),
        _ => wat::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")),
    };
    let end = match end.split_once(": ").expect("how it ends") {
        ("ends", words) => End::Call(words.split(' ').map(str::to_owned).collect()),
        ("refused", word) => End::Refused(word.to_owned()),
        other => panic!("{name}: {other:?}"),
    };
    Hostile { name, bytes, end }
}

/// A folder with a component, in which commands are run.
struct PluginFolder {
    folder: tempfile::TempDir,
}

impl PluginFolder {
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

    /// Files in the folder that the test did not put there.
    fn left_over(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("folder");
        let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| !["plugin.wasm", "vectors.json", "vectors.yaml"].contains(&name.as_str())).collect()
    }
}

/// The error code of each problem.
fn causes(checked: &Value) -> Vec<String> {
    let problems = checked["problems"].as_array().expect("problems").iter();
    problems.map(|text| text.as_str().expect("text").split(':').next().expect("a word").to_owned()).collect()
}

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

/// Types nested so deep that a recursive walk runs out of stack.
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
fn types_nested_a_million_deep_crash_the_child_process_only() {
    let checked = PluginFolder::of(&nested_types(1_000_000)).check();
    assert_eq!(causes(&checked), ["plugin_compile"], "{checked}");
    let checked = PluginFolder::of(&nested_types(3)).check();
    assert_eq!(causes(&checked), ["plugin_exports"], "{checked}");
}

// ── bombs for the compiler ──

/// An integer in the encoding of WebAssembly.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A component of one core module with these bodies, each of a function without parameters and results.
fn bomb(bodies: &[Vec<u8>]) -> Vec<u8> {
    let count = leb(bodies.len());
    let types = section(1, &[1, 0x60, 0, 0]);
    let functions = section(3, &[&count[..], &vec![0; bodies.len()]].concat());
    let bodies: Vec<u8> = bodies.iter().flat_map(|body| [leb(body.len()), body.clone()].concat()).collect();
    let code = section(10, &[count, bodies].concat());
    let module = [b"\0asm\x01\0\0\0", &types[..], &functions, &code].concat();
    [b"\0asm\x0d\0\x01\0", &section(1, &module)[..]].concat()
}

/// The same with an export, so that only its cost can be wrong with it.
fn with_an_export(component: &[u8]) -> Vec<u8> {
    let exporting = "(component (instance $a) (export \"roster:policy/authorizer@1.0.0\" (instance $a)))";
    [component, &wat::parse_str(exporting).expect("text")[8..]].concat()
}

/// Nested loops, each of which increments local 0 until it wraps.
fn nested_loops(depth: usize) -> Vec<u8> {
    let step = [0x20, 0, 0x41, 1, 0x6a, 0x21, 0, 0x20, 0, 0x0d, 0, 0x0b];
    [&[1, 1, 0x7f][..], &[3, 0x40].repeat(depth), &step.repeat(depth), &[0x0b]].concat()
}

/// Loops one after another, over this many locals.
fn many_locals(locals: usize, loops: usize) -> Vec<u8> {
    let step = |n: usize| {
        let (from, to) = (leb(n % locals), leb(n * 7 % locals));
        [&[3, 0x40, 0x20][..], &from, &[0x41, 1, 0x6a, 0x21], &to, &[0x20], &from, &[0x0d, 0, 0x0b]].concat()
    };
    [vec![1], leb(locals), vec![0x7f], (0..loops).flat_map(step).collect(), vec![0x0b]].concat()
}

fn bombs() -> [(&'static str, Vec<u8>); 3] {
    [
        ("1 000 nested loops", bomb(&[nested_loops(1_000)])),
        ("49 000 locals", bomb(&[many_locals(49_000, 3_000)])),
        ("262 144 functions", bomb(&vec![vec![0, 0x0b]; 262_144])),
    ]
}

/// The most expensive component that the limits accept.
fn adversarial() -> Vec<u8> {
    let bodies: Vec<Vec<u8>> = (0..32).map(|_| many_locals(512, 7_800)).collect();
    assert!(bodies[0].len() <= 131_072);
    with_an_export(&bomb(&bodies))
}

/// Runs the compiler directly, with these limits on seconds and bytes.
fn compile_directly(component: &[u8], cpu_s: u64, data_bytes: u64, artifact_bytes: u64) -> (ExitStatus, usize) {
    let mut child = Command::new(site::binary())
        .args([compile::COMMAND.to_owned(), cpu_s.to_string(), data_bytes.to_string(), artifact_bytes.to_string()])
        .arg("roomy")
        .env_clear()
        .envs(compile::ENVIRONMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the compiler");
    // It may exit before it has read everything.
    let _ = child.stdin.take().expect("stdin").write_all(component);
    let output = child.wait_with_output().expect("an end");
    (output.status, output.stdout.len())
}

const XCPU: i32 = 24;
const KILL: i32 = 9;
const ABRT: i32 = 6;
const GIB: u64 = 1 << 30;

#[test]
fn bombs_are_refused_before_they_are_compiled() {
    for (name, component) in bombs() {
        let checked = PluginFolder::of(&with_an_export(&component)).check();
        assert_eq!(causes(&checked)[0], "plugin_too_complex", "{name}: {checked}");
    }
}

#[test]
fn compiler_bombs_that_pass_inspection_end_at_the_compiler_s_limits() {
    let [loops, locals, functions] = bombs().map(|(_, component)| component);
    for component in [loops, functions] {
        let (status, artifact) = compile_directly(&component, 1, GIB, GIB);
        assert!(matches!(status.signal(), Some(XCPU | KILL)), "{status:?}");
        assert_eq!(artifact, 0);
    }
    let (status, artifact) = compile_directly(&locals, 60, GIB / 8, GIB);
    assert_eq!((status.signal(), artifact), (Some(ABRT), 0));
    let small = wasm_fixtures::allowing();
    let (status, artifact) = compile_directly(&small, 10, GIB / 16, GIB);
    assert!(status.success() && artifact > 0, "an honest plugin needs the least that can be set: {status:?}");
    assert!(compile_directly(&small, 10, GIB, artifact as u64).0.success(), "an artifact at the limit");
    assert_eq!(compile_directly(&small, 10, GIB, artifact as u64 - 1).0.code(), Some(2), "and one past it");
    assert_eq!(compile_directly(b"\0asm\x0d\0\x01\0\x01", 10, GIB, GIB).0.code(), Some(3), "an invalid limit");
}

#[test]
fn the_most_expensive_accepted_component_ends_at_the_compiler_s_limits() {
    let checked = PluginFolder::of(&adversarial()).check();
    // Whether ten seconds are enough depends on the machine; if they are, the component is refused because it exports
    // nothing to call.
    assert!([["plugin_compile"], ["plugin_exports"]].iter().any(|causes_| causes(&checked) == *causes_), "{checked}");
}

// ── limited resources ──

#[test]
fn plugins_run_with_little_address_space() {
    let bench = PluginFolder::of(&wasm_fixtures::denying("closed"));
    std::fs::write(
        bench.folder.path().join("vectors.yaml"),
        "- {authorize: {action: GET}, expect: {deny: closed}}\n".repeat(20),
    )
    .expect("written");
    let output = Command::new("sh")
        .current_dir(bench.folder.path())
        .args(["-c", "ulimit -v 6000000; exec \"$0\" plugin test plugin.wasm vectors.yaml --json"])
        .arg(site::binary())
        .output()
        .expect("roster plugin test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// ── the server ──

/// Waits until the condition holds.
pub async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process of the system whose command line contains these words.
fn process(of: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
    let command = |path: &PathBuf| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    processes.into_iter().find(|path| of(&command(path).replace('\0', " ")))
}

fn parent(process: &Path) -> Option<String> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().to_owned())
}

#[tokio::test]
async fn the_compiler_process_inherits_nothing_and_ends_with_the_server() {
    let mut site = Site::start().await;
    let token = site.organization("acme").await.owner_token;
    let path = site.path().display().to_string();
    let server = process(|command| command.contains("serve") && command.contains(&path)).expect("the server");
    let pid = server.file_name().expect("a number").to_string_lossy().into_owned();
    let (url, http) = (site.url.clone(), site.http.clone());
    let uploading = tokio::spawn(async move {
        let request = http.post(format!("{url}/api/v1/plugins?name=bomb")).bearer_auth(token);
        request.header("content-type", "application/wasm").body(adversarial()).send().await
    });
    let child = until("the compiler runs", || {
        let child = process(|command| command.contains(compile::COMMAND))
            .filter(|child| parent(child).as_ref() == Some(&pid))?;
        // A confined process has completed its set-up.
        let limits = std::fs::read_to_string(child.join("limits")).ok()?;
        let cpu = limits.lines().find(|line| line.starts_with("Max cpu time"))?.to_owned();
        (!cpu.contains("unlimited")).then_some(child)
    })
    .await;
    let environment = std::fs::read_to_string(child.join("environ")).expect("its environment");
    let expected: String = compile::ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
    assert_eq!(environment, expected);
    let mut open: Vec<_> = std::fs::read_dir(child.join("fd"))
        .expect("its descriptors")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    site.kill();
    until("the compiler is gone", || {
        let state = std::fs::read_to_string(child.join("status")).unwrap_or_default();
        (state.is_empty() || state.contains("State:\tZ")).then_some(())
    })
    .await;
    assert!(uploading.await.expect("a task").is_err());
    site.start_again();
}

/// Syncs a member with the roles of one external key.
async fn sync(organization: &Organization<'_>, uid: &str, key: &str) -> Value {
    let body = json!({"source": "ldap", "external_keys": [key]});
    organization.owner().post(&format!("/api/v1/permissions/users/{uid}/roles/sync"), body).await.data()
}

#[tokio::test]
async fn a_server_and_another_tenant_withstand_all_hostile_guests() {
    let site = Site::with("[plugins]\nper_organization = 200\nuploads_per_min = 10000\ncompile_cpu_s = 2").await;
    site.import(json!([{"name": "doc"}, {"name": "doc.read", "parent": "doc"}])).await;
    let (acme, north) = (site.organization("acme").await, site.organization("north").await);
    let question = |uid: &str| json!({"uid": uid, "permission": "doc.read"});
    acme.role("film", &[]).await;
    let staff = json!({"external_source": "ldap", "external_key": "staff", "internal_role_key": "film"});
    acme.admin().put("/api/v1/permissions/role-mappings", staff).await.done();
    let member = acme.member_with(&["doc.read"]).await.uid;
    let north_member = north.member_with(&["doc.read"]).await.uid;
    upload(&north.owner(), "closed", wasm_fixtures::denying("closed")).await.done();
    activate(&north.owner(), "closed", json!({"version": 1, "mode": "enforce"})).await.done();

    let owner = acme.owner();
    let mut guests = corpus();
    guests.push(Hostile { name: "adversarial".into(), bytes: adversarial(), end: End::Refused(String::new()) });
    guests.extend(bombs().map(|(name, component)| Hostile {
        name: format!("bomb-{}", name.replace(' ', "-")),
        bytes: with_an_export(&component),
        end: End::Refused("plugin_too_complex".into()),
    }));
    for guest in guests {
        let name = &guest.name;
        let uploaded = upload(&owner, name, guest.bytes).await;
        match &guest.end {
            // Which of its limits it reaches depends on the machine.
            End::Refused(word) if word.is_empty() => drop(uploaded.is(34_101_000).word()),
            End::Refused(word) => assert_eq!(uploaded.is(34_101_000).word(), word, "{name}"),
            End::Call(words) => {
                let is_authorizer = uploaded.data()["exports"] == json!(["authorizer"]);
                // A mapper that removes roles has no visible effect on a member without roles.
                assert_eq!(sync(&acme, &member, "staff").await["failed"], Value::Null, "before {name}");
                activate(&owner, name, json!({"version": 1, "mode": "enforce"})).await.done();
                if is_authorizer {
                    let decision = acme.check(question(&member)).await;
                    let expected = words.contains(&"allow".to_owned());
                    assert_eq!(decision["allow"], expected, "{name}: {decision}");
                    assert_eq!(decision["reason"] == "plugin_failed", !expected, "{name}: {decision}");
                } else {
                    let synced = sync(&acme, &member, "nobody").await;
                    let is_failed = !words.contains(&"roles".to_owned());
                    assert_eq!(synced["failed"] == true, is_failed, "{name}: {synced}");
                    let (kept, removed) =
                        if is_failed { (json!(["film"]), json!([])) } else { (json!([]), json!(["film"])) };
                    assert_eq!((&synced["kept"], &synced["removed"]), (&kept, &removed), "{name}: {synced}");
                }
                let seen = owner.get(&format!("/api/v1/plugins/{name}")).await.data();
                let figures = &seen["activations"][0]["figures"];
                // The time limit of the call, plus the delay with which a busy machine notices it.
                let bound_ms = if is_authorizer { 5 * 20 } else { 5 * 50 } + 5_000;
                assert!(
                    figures["duration_us_max"].as_u64().is_some_and(|us| us <= bound_ms * 1_000),
                    "{name}: {figures}"
                );
                owner.post(&format!("/api/v1/plugins/{name}/deactivate"), json!({})).await.done();
            }
        }
        // The other organization's plugin still decides, and so does this organization's base policy.
        assert_eq!(north.check(question(&north_member)).await["reason"], "plugin_denied", "beside {name}");
        assert_eq!(acme.check(question(&member)).await["allow"], true, "after {name}");
    }
}

/// The guest of the corpus with this name.
fn guest(name: &str) -> Vec<u8> {
    corpus().into_iter().find(|guest| guest.name == name).expect("a guest").bytes
}

/// The metrics of the plugin that is enforced under this name.
async fn figures(organization: &Organization<'_>, name: &str) -> (Value, bool) {
    let activation =
        organization.owner().get(&format!("/api/v1/plugins/{name}")).await.data()["activations"][0].clone();
    (activation["figures"].clone(), activation["quarantined"] == true)
}

#[tokio::test]
async fn slow_plugins_run_in_the_background_and_end_in_quarantine() {
    const CALLS: u64 = 12;
    let site = Site::start().await;
    site.import(json!([{"name": "doc"}, {"name": "doc.read", "parent": "doc"}])).await;
    let acme = site.organization("acme").await;
    let member = acme.member_with(&["doc.read"]).await.uid;
    let question = json!({"uid": member, "permission": "doc.read"});
    let slow = ["memory-filled-within-its-fuel", "memory-touched-page-by-page", "loop-just-short-enough"];
    let costly = ["memory-grown-and-filled", "memory-copied-again-and-again", "table-filled-again-and-again"];
    for name in slow.into_iter().chain(costly) {
        upload(&acme.owner(), name, guest(name)).await.done();
        activate(&acme.owner(), name, json!({"version": 1, "mode": "enforce"})).await.done();
        for _ in 0..CALLS {
            let decision = acme.check(question.clone()).await;
            assert_eq!(decision["allow"], slow.contains(&name), "{name}: {decision}");
        }
        let (figures, is_quarantined) = figures(&acme, name).await;
        let (calls, behind) = (&figures["calls"], (&figures["slow"], &figures["aside"]));
        if slow.contains(&name) {
            assert_eq!((calls, is_quarantined), (&json!({"allow": CALLS}), false), "{name}");
            assert_eq!(behind, (&json!(CALLS), &json!(CALLS)), "{name}");
        } else {
            assert_eq!((calls, is_quarantined), (&json!({"fuel": 10, "quarantined": CALLS - 10}), true), "{name}");
            assert_eq!(figures["aside"], 10, "{name}");
        }
        acme.owner().post(&format!("/api/v1/plugins/{name}/deactivate"), json!({})).await.done();
    }
    assert!(site.metric("roster_plugin_slow_calls_total") >= 3 * CALLS);
}

#[tokio::test]
async fn an_upload_waits_for_at_most_one_compiler_bomb_of_another_organization() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let site =
        Site::with("[plugins]\ncompile_cpu_s = 4\ncompile_queue_per_organization = 3\nuploads_per_min = 100000").await;
    let (acme, north) = (site.organization("acme").await, site.organization("north").await);
    let ended = Arc::new(AtomicUsize::new(0));
    let bombing: Vec<_> = (0..3)
        .map(|n| {
            let request = site.http.post(format!("{}/api/v1/plugins?name=bomb{n}", site.url));
            let request = request.bearer_auth(&acme.owner_token).header("content-type", "application/wasm");
            let (request, ended) = (request.body(adversarial()), ended.clone());
            tokio::spawn(async move {
                loop {
                    let again = request.try_clone().expect("a request");
                    let answer = again.send().await.expect("an answer");
                    // The fourth upload may have found a free slot for a moment.
                    if answer.status() != 503 {
                        ended.fetch_add(1, Ordering::SeqCst);
                        return answer.status();
                    }
                }
            })
        })
        .collect();
    // It is refused before inspection when all slots of the organization are taken.
    let nonsense = [&wasm_fixtures::allowing()[..8], b"nonsense"].concat();
    while upload(&acme.owner(), "fourth", nonsense.clone()).await.word() != "compiler_busy" {
        assert_eq!(ended.load(Ordering::SeqCst), 0, "the bombs are too small");
    }
    upload(&north.owner(), "closed", wasm_fixtures::denying("closed")).await.done();
    assert!(ended.load(Ordering::SeqCst) <= 1, "it waited behind {ended:?}");
    for bomb in bombing {
        assert_eq!(bomb.await.expect("a task").as_u16(), 400);
    }
}
