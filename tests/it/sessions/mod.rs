//! Sign-in, sessions, and the ways to get a first password.

pub mod oidc;
pub mod passwords;
pub mod refresh;
pub mod registration;
pub mod second_factor;
pub mod setup;
pub mod sign_in;
