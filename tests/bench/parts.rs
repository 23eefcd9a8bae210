//! What a run is made of: parts that can be asked for alone, each with a time that it may take.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::process;

/// In the order in which they run, with seconds. What several need, such as the site, has a time of its own.
pub const PARTS: [(&str, u64); 9] = [
    ("decide", 120),
    ("jobs", 300),
    ("reload", 120),
    ("lists", 420),
    ("start", 60),
    ("reads", 90),
    ("writes", 120),
    ("plugins", 300),
    ("storm", 240),
];
/// Making what parts share.
pub const SETTING_UP: (&str, u64) = ("setting up", 180);

/// The part that runs, and until when it may.
static RUNNING: Mutex<Option<(&str, Instant)>> = Mutex::new(None);

/// Which parts are wanted.
pub struct Wanted(Option<String>);

impl Wanted {
    /// All, or the one after `--only`.
    pub fn of(arguments: &[String]) -> Result<Self, String> {
        let Some(at) = arguments.iter().position(|argument| argument == "--only") else { return Ok(Self(None)) };
        let names = PARTS.map(|(name, _)| name);
        match arguments.get(at + 1) {
            Some(name) if names.contains(&name.as_str()) => Ok(Self(Some(name.clone()))),
            _ => Err(format!("--only takes one of: {}", names.join(", "))),
        }
    }

    /// Begins a part, if it is wanted.
    pub fn begin(&self, part: &str) -> bool {
        let is_wanted = self.0.as_ref().is_none_or(|only| only == part);
        if is_wanted {
            let &(name, seconds) = PARTS.iter().find(|(name, _)| *name == part).expect("a part");
            allow(name, seconds);
        }
        is_wanted
    }

    /// Is any of these wanted?
    pub fn any(&self, parts: &[&str]) -> bool {
        self.0.as_ref().is_none_or(|only| parts.contains(&only.as_str()))
    }
}

/// From now on this runs, and may for so long.
pub fn allow(what: &'static str, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some((what, until));
}

/// Ends the program, with all that it started, when a part takes too long.
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
