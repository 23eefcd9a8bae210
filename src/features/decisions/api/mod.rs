//! Operations on decisions.

pub mod check;
pub mod log;

/// Examples of this area's schemas, for the document.
pub const EXAMPLES: &[(&str, &str)] = &[log::EXAMPLE];
