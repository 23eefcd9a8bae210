//! Compiling, which is the one thing in the sandbox that can be attacked: in a child process of the same program, under
//! limits of the system, one at a time.
//!
//! **Invariant.** Nothing is ever loaded as code but what this program compiled itself: it comes from the child, or from
//! the cache, which checks it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::engine::{self, Space};
use super::guest;
use super::inspect;
use super::limits::Limits;
use crate::kernel::error::{Error, ErrorCode, Result};

/// The hidden command that the child process is started with.
pub const COMMAND: &str = "compile-plugin";
/// All that the child has of an environment. Or the allocator takes a gigabyte before there is a limit, and what is
/// allocated within it never counts.
pub const ENVIRONMENT: [(&str, &str); 1] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
/// Wall clock of the child, in processor times: it may have to share the machine.
const WALL_TIMES: u64 = 3;
/// What the child says of a failure is read this far.
const STDERR_BYTES_MAX: u64 = 4_096;
/// And told this far.
const SAID_BYTES_MAX: usize = 1_024;
const DESCRIPTORS_MAX: u64 = 16;
/// How much the child yields to the rest of the machine.
const NICE: i32 = 10;
/// How the child ends when the component is not valid; 2 stands for every other refusal.
const MALFORMED: u8 = 3;
const PANICKED: i32 = 101;

/// There is nobody to tell that this failed.
fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The child process: a component on standard input, its artifact on standard output.
pub fn child(cpu_s: u64, data_bytes: u64, artifact_bytes: u64, space: &str) -> ExitCode {
    let failed = |text: String| {
        complain(&text);
        ExitCode::from(2)
    };
    if let Err(e) = confine(cpu_s, data_bytes, artifact_bytes) {
        return failed(format!("the compiler's limits cannot be set: {e}"));
    }
    let mut component = Vec::new();
    if let Err(e) = std::io::stdin().lock().read_to_end(&mut component) {
        return failed(e.to_string());
    }
    if let Err(e) = inspect::validate(&component) {
        complain(&e);
        return ExitCode::from(MALFORMED);
    }
    let compiled = engine::compiler(Space::of(space)).and_then(|engine| engine.precompile_component(&component));
    match compiled {
        Ok(artifact) if artifact.len() as u64 > artifact_bytes => {
            failed(format!("compiled it has {} bytes, and {artifact_bytes} are allowed", artifact.len()))
        }
        Ok(artifact) => match std::io::stdout().lock().write_all(&artifact) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => failed(e.to_string()),
        },
        Err(e) => failed(format!("{e:#}")),
    }
}

/// Closes the file descriptors that this process inherited.
#[expect(unsafe_code, reason = "the one place that closes what it did not open: the process has just begun")]
fn close_inherited() {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    // Without such a folder there is nothing to go by; then the limits still hold.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inherited: Vec<i32> = names.filter(|number| *number > 2).collect();
    // The folder itself was among them, and is closed by now.
    let open = |number: &i32| std::fs::symlink_metadata(format!("{folder}/{number}")).is_ok();
    for number in inherited.into_iter().filter(open) {
        // SAFETY: it is open, and nothing of this process uses it: it has just begun.
        unsafe { rustix::io::close(number) }
    }
}

fn confine(cpu_s: u64, data_bytes: u64, artifact_bytes: u64) -> rustix::io::Result<()> {
    close_inherited();
    let limit = |resource: Resource, most: u64| {
        let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
    };
    limit(Resource::Core, 0)?;
    // It opens nothing and starts nobody.
    limit(Resource::Nofile, DESCRIPTORS_MAX)?;
    limit(Resource::Nproc, 0)?;
    limit(Resource::Fsize, artifact_bytes)?;
    // One second more to be killed than to be warned.
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_s), maximum: Some(cpu_s + 1) })?;
    limit(Resource::Data, data_bytes)?;
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        rustix::thread::set_no_new_privs(true)?;
    }
    rustix::process::nice(NICE).map(drop)
}

/// Compiles a component in a child process.
pub async fn compile(component: &[u8], limits: &Limits, space: Space) -> Result<Vec<u8>> {
    let spawned = tokio::process::Command::new(program()?)
        .arg(COMMAND)
        .args([limits.compile_cpu_s.to_string(), limits.compile_bytes.to_string(), limits.artifact_bytes.to_string()])
        .arg(space.as_str())
        .env_clear()
        .envs(ENVIRONMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|e| Error::internal(format!("the compiler cannot be started: {e}")))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A child that was killed does not read to the end; its status says why.
            let _ = stdin.write_all(component).await;
        }
    };
    let talk = async {
        let ((), artifact, said, status) =
            tokio::join!(feed, read_to(stdout, limits.artifact_bytes), read_to(stderr, STDERR_BYTES_MAX), child.wait());
        (artifact, said, status)
    };
    let wall = Duration::from_secs(limits.compile_cpu_s.saturating_mul(WALL_TIMES));
    let (artifact, said, status) = tokio::time::timeout(wall, talk).await.map_err(|_| too_expensive(limits))?;
    let status = status.map_err(|e| Error::internal(format!("the compiler was lost: {e}")))?;
    if status.success() {
        return Ok(artifact);
    }
    Err(refusal(status, &guest::plain(&String::from_utf8_lossy(&said), SAID_BYTES_MAX), limits))
}

/// Why the child gave no artifact.
fn refusal(status: ExitStatus, said: &str, limits: &Limits) -> Error {
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == XCPU || signal == KILL => too_expensive(limits),
        (Some(_), _) => refused(format!(
            "needs more than the {} bytes of memory it may have, or goes deeper than there is stack",
            limits.compile_bytes
        )),
        (None, Some(code)) if code == i32::from(MALFORMED) => Error::new(ErrorCode::PluginMalformed)
            .with_message(format!("the component is not valid WebAssembly: {said}")),
        (None, Some(PANICKED)) => {
            tracing::error!(said, "the compiler panicked over a component");
            refused("made the compiler fail: please report this, with the component".into())
        }
        _ => refused(format!("is not taken: {said}")),
    }
}

const XCPU: i32 = rustix::process::Signal::XCPU.as_raw();
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

fn refused(why: String) -> Error {
    Error::new(ErrorCode::PluginCompile).with_message(format!("compiling the component {why}"))
}

fn too_expensive(limits: &Limits) -> Error {
    refused(format!("takes longer than the {} s of processor time it may have", limits.compile_cpu_s))
}

async fn read_to(pipe: Option<impl tokio::io::AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What cannot be read is missing, and the status says why.
        let _ = pipe.take(bytes_max).read_to_end(&mut bytes).await;
    }
    bytes
}

/// This very program, even when another one has taken its place on disk since.
fn program() -> Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    crate::kernel::config::own_program()
        .map_err(|e| Error::internal(format!("this program does not know where it is: {e}")))
}

/// What this process's own compiler made, as code.
#[expect(unsafe_code, reason = "the one place where bytes become code: the caller compiled them, or checked their MAC")]
pub fn component_of(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: every caller has the artifact from its own child process, or from the cache with the right MAC over this
    // very buffer; no tenant can make either.
    unsafe { Component::deserialize(engine, artifact) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_the_child_has_its_cause() {
        let limits = Limits::for_tier(
            &crate::kernel::config::Config::of(std::path::Path::new("")),
            crate::kernel::sandbox::Tier::Standard,
        );
        let cause = |status: i32| {
            let error = refusal(ExitStatus::from_raw(status), "why", &limits);
            (error.cause, error.message().to_owned())
        };
        let time = "compiling the component takes longer than the 10 s of processor time it may have";
        for signal in [XCPU, KILL] {
            assert_eq!(cause(signal), (ErrorCode::PluginCompile, time.to_owned()));
        }
        for (status, words) in [(6, "1073741824 bytes of memory"), (101 << 8, "please report this"), (2 << 8, "why")] {
            let (cause, message) = cause(status);
            assert!(cause == ErrorCode::PluginCompile && message.contains(words), "{message}");
        }
        assert_eq!(cause(3 << 8).0, ErrorCode::PluginMalformed);
    }
}
