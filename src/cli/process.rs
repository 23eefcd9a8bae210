//! What the program asks of the system for its own process: memory that nobody else reads, descriptors, and the width of
//! its terminal.

use rustix::io::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::listener::SOCKET_CONNECTIONS_MAX;

/// Descriptors for all but connections over the network: the local socket, the database, compilers, requests to other
/// systems, and connections that are just being refused.
const KEPT: u64 = SOCKET_CONNECTIONS_MAX as u64 + 224;

/// How many characters a line on standard output takes: the terminal's width, at most [`LINE_MAX`], and 80 where there is
/// no terminal.
pub(super) fn terminal_width() -> usize {
    const WIDTH_DEFAULT: usize = 80;
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0).map_or(WIDTH_DEFAULT, |w| w.min(LINE_MAX))
}

/// Longer lines are hard to read.
const LINE_MAX: usize = 100;

/// From now on no dump of this process is written, and no process of the same user may trace it or read its memory.
pub(super) fn close_memory() -> Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// How many connections there can be, with the system's limit of open files raised as far as it goes and is needed.
pub(super) fn connections(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(mut files) = current else { return wanted };
    let needed = wanted.saturating_add(KEPT);
    if files < needed {
        let raised = maximum.map_or(needed, |hard| hard.min(needed));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok() {
            files = raised;
        }
    }
    let connections = within(files, wanted);
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

/// Of so many files so many are connections. Where there are few, half of them.
fn within(files: u64, wanted: u64) -> u64 {
    wanted.min(files - KEPT.min(files / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_back_for_all_but_connections() {
        assert_eq!(within(4_096 + KEPT, 4_096), 4_096);
        assert_eq!(within(4_095 + KEPT, 4_096), 4_095);
        assert_eq!(within(1_024, 4_096), 1_024 - KEPT);
        assert_eq!(within(2 * KEPT, 4_096), KEPT);
        assert_eq!(within(100, 4_096), 50);
    }
}
