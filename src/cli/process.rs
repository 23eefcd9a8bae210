//! Process settings from the operating system: protection of memory, the limit of open files, and the width of the
//! terminal.

use rustix::io::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::listener::SOCKET_CONNECTIONS_MAX;

/// Descriptors for everything except network connections: the local socket, the database, compilers, requests to
/// external systems, and connections that are being refused.
const RESERVED_FILES: u64 = SOCKET_CONNECTIONS_MAX as u64 + 224;

/// Characters per line of standard output: the terminal's width, at most [`LINE_MAX`], or 80 without a terminal.
pub(super) fn terminal_width() -> usize {
    const WIDTH_DEFAULT: usize = 80;
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0).map_or(WIDTH_DEFAULT, |w| w.min(LINE_MAX))
}

/// Longer lines are hard to read.
const LINE_MAX: usize = 100;

/// Disables core dumps of this process. On Linux, also denies tracing and memory access to processes of the same user.
pub(super) fn protect_memory() -> Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Raises the limit of open files as far as needed and allowed. Returns how many of the wanted connections fit in it.
pub(super) fn connections(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(mut files) = current else { return wanted };
    let needed = wanted.saturating_add(RESERVED_FILES);
    if files < needed {
        let raised = maximum.map_or(needed, |hard| hard.min(needed));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok() {
            files = raised;
        }
    }
    let connections = available_for_connections(files, wanted);
    if connections < wanted {
        tracing::warn!(
            wanted,
            connections,
            files,
            "the limit of open files allows fewer connections than limits.connections: raise it (LimitNOFILE, ulimit -n)"
        );
    }
    connections
}

/// How many of the wanted connections fit in `files` descriptors: all but `RESERVED_FILES` are available, and at least
/// half.
fn available_for_connections(files: u64, wanted: u64) -> u64 {
    wanted.min(files - RESERVED_FILES.min(files / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_reserved_for_other_uses_than_connections() {
        assert_eq!(available_for_connections(4_096 + RESERVED_FILES, 4_096), 4_096);
        assert_eq!(available_for_connections(4_095 + RESERVED_FILES, 4_096), 4_095);
        assert_eq!(available_for_connections(1_024, 4_096), 1_024 - RESERVED_FILES);
        assert_eq!(available_for_connections(2 * RESERVED_FILES, 4_096), RESERVED_FILES);
        assert_eq!(available_for_connections(100, 4_096), 50);
    }
}
