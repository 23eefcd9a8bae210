//! What settings must be to each other.

use super::Config;

impl Config {
    /// What may be sent fits into the bytes in flight.
    pub(super) fn check_bodies(&self, faults: &mut Vec<String>) {
        let large = if self.plugins_large.is_empty() { 0 } else { self.plugin_large_file_bytes };
        for (name, bytes) in [
            ("limits.body_bytes", self.body_bytes_max),
            ("limits.catalog_bytes", self.catalog_bytes_max),
            ("limits.import_bytes", self.import_bytes_max),
            ("plugins.file_bytes", self.plugin_file_bytes),
            ("plugins.large.file_bytes", large),
            ("four times limits.public_body_bytes", self.public_body_bytes_max.saturating_mul(4)),
        ] {
            if bytes > self.bytes_in_flight_max {
                faults.push(format!("limits.bytes_in_flight must not be less than {name}, which is {bytes}"));
            }
        }
    }
}
