//! Pages of the site, for its administrators, and the page of addresses that do not exist.

mod first_steps;
mod organizations;

use crate::console::i18n::site::FirstSteps;
use crate::console::pages::{Area, Group, Page, page};
use crate::console::visit::{View, Visit};
use crate::kernel::error::{ErrorCode, Result};

pub const PAGES: &[Page] = &[
    Page {
        path: "/site/first-steps",
        area: Area::Site,
        needs: &["list_organizations", "create_organization"],
        uses: &["get_permission_catalog", "list_invitations", "list_users", "import_catalog"],
        entry: Some((Group::Site, |language| FirstSteps::of(language).entry)),
        get: page!(first_steps::show),
        post: Some(page!(first_steps::act)),
    },
    Page {
        path: "/site/organizations",
        area: Area::Site,
        needs: &["list_organizations"],
        uses: &["create_organization"],
        entry: Some((Group::Site, |language| language.pick("Organizations", "組織"))),
        get: page!(organizations::list),
        post: Some(page!(organizations::create)),
    },
    Page {
        path: "/site/organizations/{id}",
        area: Area::Site,
        needs: &["get_organization"],
        uses: &["update_organization", "activate_organization", "deactivate_organization"],
        entry: None,
        get: page!(organizations::show),
        post: Some(page!(organizations::act)),
    },
];

/// Stands for every address that is no page.
pub static NOT_FOUND: Page =
    Page { path: "", area: Area::Public, needs: &[], uses: &[], entry: None, get: page!(not_found), post: None };

async fn not_found(_: &Visit) -> Result<View> {
    Err(ErrorCode::RouteNotFound.into())
}
