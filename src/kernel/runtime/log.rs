//! The log: lines on standard error, written by one thread.
//!
//! **Invariant.** No code waits, fails or panics because it logs: a line is dropped and counted if the queue is full or
//! it cannot be written.
//!
//! There is one log per process, because `tracing` has one subscriber per process.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::kernel::config::{Config, LogFormat, Source};
use crate::kernel::runtime::health;

/// How long `flush` waits at most.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
const FLUSH_PAUSE: Duration = Duration::from_millis(10);
/// Dropped lines are reported in the log itself at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    lines: Lines,
    reload: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    /// The level that was read again since the start, as in `roster.toml`, and where it comes from.
    reread: Mutex<Option<(String, Source)>>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The writer for `tracing`: puts lines into the queue.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Message>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    /// Whether the newest line was dropped.
    is_failing: AtomicBool,
}

impl Counts {
    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.is_failing.store(true, Ordering::Relaxed);
    }
}

/// Starts the log, and logs panics. A second start in one process changes nothing.
pub fn start(config: &Config) -> std::io::Result<()> {
    let (lines, inbox) = Lines::new(config.log_queue_max);
    let counts = lines.counts.clone();
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter_of(config))
        .with_writer(lines.clone())
        // The internal error log prints to standard error, and panics if that fails.
        .log_internal_errors(false);
    let reload: Box<dyn Fn(EnvFilter) -> bool + Send + Sync> = match config.log_format {
        LogFormat::Text => {
            let text = base.with_ansi(false).with_filter_reloading();
            let handle = text.reload_handle();
            if text.try_init().is_err() {
                return Ok(());
            }
            Box::new(move |filter| handle.reload(filter).is_ok())
        }
        LogFormat::Json => {
            let json = base.json().with_filter_reloading();
            let handle = json.reload_handle();
            if json.try_init().is_err() {
                return Ok(());
            }
            Box::new(move |filter| handle.reload(filter).is_ok())
        }
    };
    health::spawn("log", move || write_lines(&inbox, &mut std::io::stderr(), &counts))?;
    // The default hook writes to standard error directly, and can block.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), "{panic}");
    }));
    let _ = LOG.set(Log { lines, reload, reread: Mutex::default() });
    Ok(())
}

fn filter_of(config: &Config) -> EnvFilter {
    let level = if config.debug { "debug" } else { &config.log_level };
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Applies the log level of these settings; returns whether the log was started.
pub fn reload(config: &Config) -> bool {
    let Some(log) = LOG.get() else { return false };
    let level = config.in_force().into_iter().find(|setting| !setting.needs_restart());
    *log.reread.lock().unwrap_or_else(PoisonError::into_inner) = level.map(|level| (level.value, level.source));
    (log.reload)(filter_of(config))
}

/// The log level that was read again since the start, as in `roster.toml`, and where it comes from.
pub fn reread_level() -> Option<(String, Source)> {
    LOG.get().and_then(|log| log.reread.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// The number of lines that were dropped since the start.
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.lines.counts.dropped.load(Ordering::Relaxed))
}

/// Whether the newest line was dropped.
pub fn is_failing() -> bool {
    LOG.get().is_some_and(|log| log.lines.counts.is_failing.load(Ordering::Relaxed))
}

/// Waits until all lines logged so far are written, up to about two seconds.
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let (done, is_done) = sync_channel(1);
    let began = Instant::now();
    while log.lines.queue.try_send(Message::Flush(done.clone())).is_err() {
        if began.elapsed() > FLUSH_WAIT {
            return;
        }
        std::thread::sleep(FLUSH_PAUSE);
    }
    // A log that cannot be written must not keep the process from ending.
    let _ = is_done.recv_timeout(FLUSH_WAIT);
}

impl Lines {
    fn new(waiting_max: u64) -> (Self, Receiver<Message>) {
        let (queue, inbox) = sync_channel(usize::try_from(waiting_max).unwrap_or(usize::MAX));
        (Self { queue, counts: Arc::default() }, inbox)
    }
}

impl Write for Lines {
    /// Queues a line. `tracing` writes one whole line per call.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.queue.try_send(Message::Line(line.to_vec())).is_err() {
            self.counts.drop_line();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_lines(inbox: &Receiver<Message>, target: &mut impl Write, counts: &Counts) {
    let (mut reported, mut reported_at): (u64, Option<Instant>) = (0, None);
    let mut is_partial = false;
    for message in inbox {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(done) => {
                // The caller may have stopped waiting.
                let _ = done.try_send(());
                continue;
            }
        };
        // A line that was written in part is ended, so that the next one starts on its own line.
        let written = if is_partial { target.write_all(b"\n").map_err(|_| 0) } else { Ok(()) };
        match written.and_then(|()| write_line(target, &line)) {
            Ok(()) => {
                is_partial = false;
                counts.is_failing.store(false, Ordering::Relaxed);
            }
            Err(bytes) => {
                is_partial |= bytes > 0;
                counts.drop_line();
                continue;
            }
        }
        let dropped = counts.dropped.load(Ordering::Relaxed);
        if dropped > reported && reported_at.is_none_or(|at| at.elapsed() > REPORT_EVERY) {
            (reported, reported_at) = (dropped, Some(Instant::now()));
            tracing::warn!(dropped, "log lines could not be written and were dropped");
        }
    }
}

/// Writes a line. Fails with the number of bytes that were written.
fn write_line(target: &mut impl Write, line: &[u8]) -> Result<(), usize> {
    let mut done = 0;
    while done < line.len() {
        match target.write(&line[done..]) {
            Ok(0) => return Err(done),
            Ok(bytes) => done += bytes,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(done),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a disk with space for some bytes.
    struct Disk {
        written: Vec<u8>,
        space: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = bytes.len().min(self.space);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.space -= taken;
            self.written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_queued_up_to_the_limit_and_dropped_one_past_it() {
        let (mut lines, _inbox) = Lines::new(3);
        for _ in 0..3 {
            lines.write_all(b"line\n").unwrap();
        }
        assert_eq!(lines.counts.dropped.load(Ordering::Relaxed), 0);
        lines.write_all(b"line\n").unwrap();
        assert_eq!(lines.counts.dropped.load(Ordering::Relaxed), 1);
        assert!(lines.counts.is_failing.load(Ordering::Relaxed));
    }

    #[test]
    fn a_partially_written_line_is_counted_and_ended() {
        let counts = Counts::default();
        let mut disk = Disk { written: Vec::new(), space: 7 };
        let send = |disk: &mut Disk, texts: &[&str]| {
            let (lines, inbox) = Lines::new(10);
            texts.iter().for_each(|text| lines.clone().write_all(text.as_bytes()).unwrap());
            drop(lines);
            write_lines(&inbox, disk, &counts);
        };
        send(&mut disk, &["one\n", "two is long\n", "three\n"]);
        assert_eq!(disk.written, b"one\ntwo");
        assert_eq!(counts.dropped.load(Ordering::Relaxed), 2);
        disk.space = 100;
        send(&mut disk, &["four\n"]);
        assert!(!counts.is_failing.load(Ordering::Relaxed));
    }
}
