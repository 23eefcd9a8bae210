//! The console: its pages, over HTTP and in a real browser.

mod browser;
mod grid;
mod invitations;
mod journeys;
mod mappings;
mod me;
mod members;
mod pages;
mod roles;
mod sign_in;
mod site;
mod why;
