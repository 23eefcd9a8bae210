//! Server-rendered pages: the set-up page, the invitation page, the password reset page, and the manual.

pub mod invitation;
pub mod manual;
pub mod page;
pub mod reset;
pub mod setup;
