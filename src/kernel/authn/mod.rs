//! Authentication: checks credentials and identifies the caller.

pub mod caller;
pub mod cookie;
pub mod failed_sign_ins;
pub mod key_store;
pub mod login_throttle;
pub mod token;
