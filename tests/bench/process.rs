//! A server in a process of its own, which ends with this one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The ids of all running processes.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Ends every process that was started, for an exit of this program that runs no destructors.
pub fn kill_all() {
    for id in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = Command::new("kill").arg("-KILL").arg(id.to_string()).status();
    }
}

/// Longest wait for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Process {
    child: Child,
    log: PathBuf,
    pub address: SocketAddr,
    /// From before the process is spawned until its `listening` line.
    pub started_in: Duration,
}

impl Process {
    /// Starts a program that prints its address on its first line.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let stderr = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let began = Instant::now();
        let mut child = command.spawn().expect("a process");
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(child.id());
        let stdout = child.stdout.take().expect("its output");
        let (said, saying) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = said.send((line, began.elapsed()));
        });
        let (line, started_in) = saying.recv_timeout(PATIENCE).unwrap_or_default();
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(address) = ready["listening"].as_str().and_then(|text| text.parse().ok()) else {
            let _ = child.kill();
            panic!("no server: {line:?}: {}", std::fs::read_to_string(log).unwrap_or_default());
        };
        Self { child, log: log.to_owned(), address, started_in }
    }

    /// Resident memory in MB of 1,000,000 bytes.
    pub fn resident_mb(&self) -> f64 {
        resident_mb(&self.child.id().to_string())
    }

    /// Peak resident memory in MB.
    pub fn peak_mb(&self) -> f64 {
        memory_mb(&self.child.id().to_string(), "VmHWM:")
    }

    /// Stops it with SIGTERM, as an operator does.
    pub fn stop(mut self) {
        let kill = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().expect("kill");
        assert!(kill.success());
        let began = Instant::now();
        loop {
            match self.child.try_wait().expect("its status") {
                Some(status) => return assert!(status.success(), "{status}: {}", self.logged()),
                None if began.elapsed() > PATIENCE => panic!("the server does not stop: {}", self.logged()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Ends the server even when the benchmark panics.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let id = self.child.id();
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|running| *running != id);
    }
}

/// Resident memory of a process (`self` is this one).
pub fn resident_mb(id: &str) -> f64 {
    memory_mb(id, "VmRSS:")
}

fn memory_mb(id: &str, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1_024.0 / 1e6
}
