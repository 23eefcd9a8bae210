//! The metrics of a run: their names, their targets, and how they are printed.

use serde_json::{Map, Value, json};

enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

use Wanted::{AtLeast, AtMost};

/// A missed target is marked and is not an error: other programs may load the machine.
const WANTED: &[(&str, Wanted)] = &[
    ("decide_vs_trie_10k", AtMost(4.0)),
    ("claim_us_100k", AtMost(1_000.0)),
    ("claim_us_1m", AtMost(1_000.0)),
    ("write_stall_ms_reload", AtMost(50.0)),
    ("list_p95_ms_", AtMost(25.0)),
    ("deep_page_ratio_", AtMost(2.0)),
    ("group_commit_gain", AtLeast(4.0)),
    ("write_vs_bare", AtLeast(0.12)),
    ("check_vs_bare", AtLeast(0.6)),
    ("tls_check_vs_plain", AtLeast(0.7)),
    ("console_vs_operation", AtMost(1.5)),
    ("console_members_100k_vs_100", AtMost(2.0)),
    ("me_vs_bare", AtLeast(0.35)),
    ("bearer_me_vs_bare", AtLeast(0.35)),
    ("refresh_vs_grant", AtLeast(0.5)),
    ("register_vs_grant", AtLeast(0.5)),
    ("check_with_plugin_vs_bare", AtLeast(0.25)),
    ("hostile_neighbour_p99_ratio", AtMost(2.0)),
    ("hostile_bulk_p99_ratio", AtMost(10.0)),
    ("hostile_batch_p99_ratio", AtMost(10.0)),
    ("plugin_cold_ms", AtMost(5.0)),
    ("storm_p99_ms", AtMost(50.0)),
    ("storm_peak_mb", AtMost(200.0)),
    ("storm_after_mb", AtMost(30.0)),
    ("idle_mb", AtMost(40.0)),
    ("start_ms", AtMost(200.0)),
];

#[derive(Default)]
pub struct Figures {
    all: Map<String, Value>,
}

impl Figures {
    /// Records and prints a metric.
    pub fn add(&mut self, name: &str, value: f64) {
        // A name that ends in `_` stands for all names that begin with it.
        let is_meant = |known: &str| known == name || known.ends_with('_') && name.starts_with(known);
        let wanted = WANTED.iter().find(|(known, _)| is_meant(known)).map(|(_, wanted)| wanted);
        let (is_met, bound) = match wanted {
            Some(AtLeast(least)) => (value >= *least, format!("at least {least}")),
            Some(AtMost(most)) => (value <= *most, format!("at most {most}")),
            None => (true, String::new()),
        };
        let mark = if is_met { "" } else { "   MISSED" };
        println!("{name:<24}{:>12}   {bound}{mark}", shown(value));
        self.all.insert(name.to_owned(), json!(rounded(value)));
    }

    pub fn into_json(self) -> Value {
        Value::Object(self.all)
    }
}

/// Four significant digits are more than repeated runs agree on.
fn rounded(value: f64) -> f64 {
    if value >= 1_000.0 { value.round() } else { format!("{value:.3e}").parse().unwrap_or(value) }
}

fn shown(value: f64) -> String {
    rounded(value).to_string()
}

/// Prints the step that is running.
pub fn progress(text: &str) {
    eprintln!("… {text}");
}
