//! Authentication: credentials, and the caller that they identify.

pub mod caller;
pub mod cookie;
pub mod key_store;
pub mod login_throttle;
pub mod token;
pub mod verified;
