//! Sign-in, sessions, and the ways to get a first password.

pub mod oidc;
mod other_members;
pub mod passwords;
mod refresh;
mod registration;
pub mod second_factor;
mod setup;
mod sign_in;
