//! Compiles components. The compiler is the attack surface of the sandbox, so it runs in a child process of the same
//! program, under resource limits, one at a time.
//!
//! **Invariant.** Only code that this program compiled itself is loaded: it comes from the child process, or from the
//! cache, which checks its MAC.

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

/// The hidden command of the child process.
pub const COMMAND: &str = "compile-plugin";
/// The whole environment of the child. Without it the allocator commits a gigabyte before the limits are set, and
/// allocations within that never count.
pub const ENVIRONMENT: [(&str, &str); 1] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
/// The wall time limit of the child, as a multiple of its CPU time limit, because it shares the machine.
const WALL_TIME_FACTOR: u64 = 3;
/// Most bytes that are read of the child's error output.
const STDERR_BYTES_MAX: u64 = 4_096;
/// Most bytes of that output in a message.
const OUTPUT_SHOWN_BYTES_MAX: usize = 1_024;
const DESCRIPTORS_MAX: u64 = 16;
/// The nice value of the child.
const NICE: i32 = 10;
/// The exit code of the child for an invalid component; 2 is that of every other failure.
const MALFORMED: u8 = 3;
const PANICKED: i32 = 101;

/// Writes a message to standard error. A failure to do so cannot be reported and is ignored.
fn write_error(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The main function of the child process: reads a component from standard input, and writes its artifact to standard
/// output.
pub fn run_child(cpu_s: u64, data_bytes: u64, artifact_bytes: u64, space: &str) -> ExitCode {
    let failed = |text: String| {
        write_error(&text);
        ExitCode::from(2)
    };
    let Some(space) = Space::of(space) else {
        return failed(format!("{space:?} is not a kind of address space"));
    };
    if let Err(e) = confine(cpu_s, data_bytes, artifact_bytes) {
        return failed(format!("the compiler's limits cannot be set: {e}"));
    }
    let mut component = Vec::new();
    if let Err(e) = std::io::stdin().lock().read_to_end(&mut component) {
        return failed(e.to_string());
    }
    if let Err(e) = inspect::validate(&component) {
        write_error(&e);
        return ExitCode::from(MALFORMED);
    }
    let compiled = engine::compiler(space).and_then(|engine| engine.precompile_component(&component));
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
#[expect(unsafe_code, reason = "closes descriptors that it did not open: the process has just begun")]
fn close_inherited() {
    let folder = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    // Without this folder the open descriptors are not known; the limits still apply.
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inherited: Vec<i32> = names.filter(|number| *number > 2).collect();
    // The descriptor of the folder itself was among them, and is closed by now.
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
    // The child opens no files and starts no processes.
    limit(Resource::Nofile, DESCRIPTORS_MAX)?;
    limit(Resource::Nproc, 0)?;
    limit(Resource::Fsize, artifact_bytes)?;
    // SIGXCPU at the soft limit, SIGKILL one second later.
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
            // A killed child does not read to the end; its exit status has the reason.
            let _ = stdin.write_all(component).await;
        }
    };
    let exchange = async {
        let ((), artifact, said, status) =
            tokio::join!(feed, read_to(stdout, limits.artifact_bytes), read_to(stderr, STDERR_BYTES_MAX), child.wait());
        (artifact, said, status)
    };
    let wall_time_max = Duration::from_secs(limits.compile_cpu_s.saturating_mul(WALL_TIME_FACTOR));
    let (artifact, said, status) =
        tokio::time::timeout(wall_time_max, exchange).await.map_err(|_| too_expensive(limits))?;
    let status = status.map_err(|e| Error::internal(format!("the compiler was lost: {e}")))?;
    if status.success() {
        return Ok(artifact);
    }
    Err(refusal(status, &guest::plain(&String::from_utf8_lossy(&said), OUTPUT_SHOWN_BYTES_MAX), limits))
}

/// Converts a failure of the child to an error.
fn refusal(status: ExitStatus, said: &str, limits: &Limits) -> Error {
    match (status.signal(), status.code()) {
        (Some(signal), _) if signal == XCPU || signal == KILL => too_expensive(limits),
        (Some(_), _) => refused(format!(
            "needs more than the {} bytes of memory that are allowed, or overflows the stack",
            limits.compile_bytes
        )),
        (None, Some(code)) if code == i32::from(MALFORMED) => Error::new(ErrorCode::PluginMalformed)
            .with_message(format!("the component is not valid WebAssembly: {said}")),
        (None, Some(PANICKED)) => {
            tracing::error!(said, "the compiler panicked over a component");
            refused("made the compiler panic: please report this, with the component".into())
        }
        _ => refused(format!("failed: {said}")),
    }
}

const XCPU: i32 = rustix::process::Signal::XCPU.as_raw();
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

fn refused(reason: String) -> Error {
    Error::new(ErrorCode::PluginCompile).with_message(format!("compiling the component {reason}"))
}

fn too_expensive(limits: &Limits) -> Error {
    refused(format!("takes longer than the {} s of CPU time that are allowed", limits.compile_cpu_s))
}

async fn read_to(pipe: Option<impl tokio::io::AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // If reading fails, the output is cut, and the exit status has the reason.
        let _ = pipe.take(bytes_max).read_to_end(&mut bytes).await;
    }
    bytes
}

/// The executable of this process, even if the file on disk was replaced since.
fn program() -> Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    crate::kernel::config::current_executable()
        .map_err(|e| Error::internal(format!("the path of this program is not known: {e}")))
}

/// Loads an artifact of this program's compiler as code.
#[expect(unsafe_code, reason = "loads bytes as code: the caller compiled them, or checked their MAC")]
pub fn component_of(engine: &Engine, artifact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: every caller has the artifact from its own child process, or from the cache after a check of the MAC of
    // this buffer; no tenant can create either.
    unsafe { Component::deserialize(engine, artifact) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_status_of_the_child_has_an_error() {
        let limits = Limits::for_tier(
            &crate::kernel::config::Config::of(std::path::Path::new("")),
            crate::kernel::sandbox::Tier::Standard,
        );
        let cause = |status: i32| {
            let error = refusal(ExitStatus::from_raw(status), "why", &limits);
            (error.code, error.message().to_owned())
        };
        let time = "compiling the component takes longer than the 10 s of CPU time that are allowed";
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
