//! Credentials of programs: API keys and API clients.

pub mod clients;
pub mod given;
pub mod keys;
