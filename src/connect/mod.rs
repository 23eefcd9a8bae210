//! The neighbours: what Roster asks of other services of the site, and what it tells them.

pub mod authentik;
pub mod mail;
pub mod wordpress;
