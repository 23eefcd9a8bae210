//! The permission check and the decision log.

pub mod check;
pub mod log;

/// Examples of the schemas of this feature, for the OpenAPI document.
pub const EXAMPLES: &[(&str, &str)] = &[log::EXAMPLE];
