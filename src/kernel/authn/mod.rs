//! Who is calling: credentials, and the caller that they prove.

pub mod caller;
pub mod cookie;
pub mod key_store;
pub mod slowdown;
pub mod token;
pub mod verified;
