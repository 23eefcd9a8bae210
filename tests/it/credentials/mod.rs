//! Credentials of programs: API keys and API clients.

mod clients;
mod given;
pub mod keys;
