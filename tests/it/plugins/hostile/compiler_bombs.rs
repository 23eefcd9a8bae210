//! Components that are expensive to compile.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use roster::kernel::sandbox::compile;

use super::{PluginFolder, causes};
use crate::harness::{site, wasm_fixtures};

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
pub fn with_an_export(component: &[u8]) -> Vec<u8> {
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

pub fn bombs() -> [(&'static str, Vec<u8>); 3] {
    [
        ("1 000 nested loops", bomb(&[nested_loops(1_000)])),
        ("49 000 locals", bomb(&[many_locals(49_000, 3_000)])),
        ("262 144 functions", bomb(&vec![vec![0, 0x0b]; 262_144])),
    ]
}

/// The most expensive component that the limits accept.
pub fn adversarial() -> Vec<u8> {
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
