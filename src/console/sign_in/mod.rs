//! The pages for people who are not signed in: sign-in with its second step, registration, forgotten passwords, and the
//! pages of one-time links. They call the operations that every client calls; there is no other way to a session.
//!
//! **Invariant.** Where a sign-in leads is an address of this site that this site has signed (`onward.rs`). Neither a
//! password nor a code is shown again.

mod forgot;
mod invitation;
mod login;
mod onward;
mod parts;
mod provider;
pub(super) mod qr;
mod register;
mod reset;
mod second_factor;
mod setup;
mod sign_out;
mod wordpress;
mod words;

use super::pages::{Area, Page, page};
use super::visit::{View, Visit};
use crate::kernel::error::Result;

pub use onward::{interrupted, signed_return};

/// A public page without an entry in the navigation.
const fn public(path: &'static str, uses: &'static [&'static str], get: super::pages::Handler) -> Page {
    Page { path, area: Area::Public, needs: &[], uses, entry: None, get, post: None }
}

/// The operations of the second step, which follows every first step.
const STEPS: [&str; 2] = ["answer_second_factor", "enrol_second_factor"];

pub const PAGES: &[Page] = &[
    Page { area: Area::Own, ..public("/", &["get_me"], page!(super::home)) },
    Page { post: Some(page!(super::set_preferences)), ..public("/preferences", &[], page!(preferences)) },
    Page { post: Some(page!(login::submit)), ..public("/sign-in", &["login", STEPS[1]], page!(login::form)) },
    Page {
        post: Some(page!(second_factor::answer)),
        ..public("/sign-in/second-factor", &[STEPS[0]], page!(second_factor::start_again))
    },
    Page {
        post: Some(page!(second_factor::finish_enrolment)),
        ..public("/sign-in/enrol", &STEPS, page!(second_factor::start_again))
    },
    public("/sign-in/oidc/{name}", &["get_oidc_url"], page!(provider::start)),
    public("/sign-in/oidc/{name}/callback", &["exchange_oidc_code", STEPS[1]], page!(provider::callback)),
    Page {
        post: Some(page!(wordpress::submit)),
        ..public(
            "/sign-in/wordpress",
            &["login_with_wordpress", "login_with_wordpress_ticket", STEPS[1]],
            page!(wordpress::form),
        )
    },
    Page { post: Some(page!(sign_out::submit)), ..public("/sign-out", &["logout"], page!(sign_out::form)) },
    Page { post: Some(page!(forgot::submit)), ..public("/forgot", &["forgot_password"], page!(forgot::form)) },
    Page { post: Some(page!(register::submit)), ..public("/register", &["register"], page!(register::form)) },
    Page {
        post: Some(page!(register::verify)),
        ..public("/register/verify", &["verify_registration"], page!(register::verify_form))
    },
    Page { post: Some(page!(setup::submit)), ..public("/setup", &["login"], page!(setup::form)) },
    Page {
        post: Some(page!(invitation::submit)),
        ..public("/invitation", &["accept_invitation", "accept_my_invitation", STEPS[1]], page!(invitation::form))
    },
    Page { post: Some(page!(reset::submit)), ..public("/reset", &["login", STEPS[1]], page!(reset::form)) },
];

/// Language and theme are set with a form of the frame; this address has no page of its own.
async fn preferences(_: &Visit) -> Result<View> {
    Ok(View::Redirect("/console".to_owned(), None))
}
