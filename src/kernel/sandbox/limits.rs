//! Limits of components, by tier. They are settings; the limits that only protect the compiler are constants in
//! `measure`.

use crate::kernel::config::Config;

/// A set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    Standard,
    /// For big runtimes such as Python; only for organizations that the operator lists in
    /// `plugins.large_organizations`.
    Large,
}

impl Tier {
    pub fn from_is_large(is_large: bool) -> Self {
        if is_large { Self::Large } else { Self::Standard }
    }

    /// The tier of an organization's uploads.
    pub fn of_organization(config: &Config, org_code: &str) -> Self {
        Self::from_is_large(config.plugins_large.iter().any(|named| named == "*" || named == org_code))
    }
}

/// The fuel and the running time of one kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub fuel: u64,
    pub running_ms: u64,
}

/// All limits of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub tier: Tier,
    pub file_bytes: u64,
    pub memory_bytes: u64,
    pub authorize: Budget,
    pub map_roles: Budget,
    pub input_bytes: u64,
    pub output_bytes: u64,
    pub log_lines: u64,
    pub log_bytes: u64,
    pub compile_cpu_s: u64,
    pub compile_bytes: u64,
    pub artifact_bytes: u64,
}

impl Limits {
    pub fn for_tier(config: &Config, tier: Tier) -> Self {
        let is_large = tier == Tier::Large;
        let pick = |standard: u64, large: u64| if is_large { large } else { standard };
        let c = config;
        Self {
            tier,
            file_bytes: pick(c.plugin_file_bytes, c.plugin_large_file_bytes),
            memory_bytes: pick(c.plugin_memory_bytes, c.plugin_large_memory_bytes),
            authorize: Budget {
                fuel: pick(c.plugin_authorize_fuel, c.plugin_large_authorize_fuel),
                running_ms: pick(c.plugin_authorize_ms, c.plugin_large_authorize_ms),
            },
            map_roles: Budget {
                fuel: pick(c.plugin_map_roles_fuel, c.plugin_large_map_roles_fuel),
                running_ms: pick(c.plugin_map_roles_ms, c.plugin_large_map_roles_ms),
            },
            input_bytes: c.plugin_input_bytes,
            output_bytes: c.plugin_output_bytes,
            log_lines: c.plugin_log_lines,
            log_bytes: c.plugin_log_bytes,
            compile_cpu_s: pick(c.plugin_compile_cpu_s, c.plugin_large_compile_cpu_s),
            compile_bytes: pick(c.plugin_compile_bytes, c.plugin_large_compile_bytes),
            artifact_bytes: pick(c.plugin_artifact_bytes, c.plugin_large_artifact_bytes),
        }
    }
}
