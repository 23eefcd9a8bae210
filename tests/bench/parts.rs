//! The parts of a run. Each can be run alone and has a time limit.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::process;

/// Parts in the order in which they run, with their time limits in seconds. Set-up that several parts need, such as the
/// site, has its own limit.
pub const PARTS: [(&str, u64); 10] = [
    ("decide", 120),
    ("jobs", 300),
    ("reload", 120),
    ("lists", 420),
    ("start", 60),
    ("tls", 90),
    ("reads", 90),
    ("writes", 120),
    ("plugins", 300),
    ("storm", 240),
];
/// The set-up that parts share.
pub const SETTING_UP: (&str, u64) = ("setting up", 180);

/// The part that is running, and its deadline.
static RUNNING: Mutex<Option<(&str, Instant)>> = Mutex::new(None);

/// The parts to run.
pub struct Wanted(Option<String>);

impl Wanted {
    /// All parts, or the one after `--only`.
    pub fn of(arguments: &[String]) -> Result<Self, String> {
        let Some(at) = arguments.iter().position(|argument| argument == "--only") else { return Ok(Self(None)) };
        let names = PARTS.map(|(name, _)| name);
        match arguments.get(at + 1) {
            Some(name) if names.contains(&name.as_str()) => Ok(Self(Some(name.clone()))),
            _ => Err(format!("--only takes one of: {}", names.join(", "))),
        }
    }

    /// Begins a part, if it is to run, and returns whether it is.
    pub fn begin(&self, part: &str) -> bool {
        let is_wanted = self.0.as_ref().is_none_or(|only| only == part);
        if is_wanted {
            let &(name, seconds) = PARTS.iter().find(|(name, _)| *name == part).expect("a part");
            allow(name, seconds);
        }
        is_wanted
    }

    /// Whether any of these parts is to run.
    pub fn any(&self, parts: &[&str]) -> bool {
        self.0.as_ref().is_none_or(|only| parts.contains(&only.as_str()))
    }
}

/// Names the part that runs from now on and sets its deadline.
pub fn allow(what: &'static str, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some((what, until));
}

/// Ends the program and every process that it started when a part exceeds its time limit.
pub fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let running = *RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((what, until)) = running
                && Instant::now() > until
            {
                eprintln!("{what} takes longer than it may");
                process::kill_all();
                std::process::exit(124);
            }
        }
    });
}
