//! The table of all pages: addresses, navigation, and what each page needs. Routes, rights and tests follow from it.

use super::i18n::Language;
use super::visit::{View, Visit};
use super::{me, organization, search, sign_in, site};
use crate::kernel::authn::caller::BoxFuture;

/// Renders a page or performs its form.
pub type Handler = for<'v> fn(&'v Visit) -> BoxFuture<'v, View>;

/// A text in the language of the visitor.
pub type Title = fn(Language) -> &'static str;

/// A page.
pub struct Page {
    /// The address below `/console`, with parameters in braces.
    pub path: &'static str,
    pub area: Area,
    /// The operations without whose permissions the page is refused, and not shown in the navigation.
    pub needs: &'static [&'static str],
    /// The other operations that the page calls.
    pub uses: &'static [&'static str],
    /// The entry in the navigation: group and text.
    pub entry: Option<(Group, Title)>,
    pub get: Handler,
    pub post: Option<Handler>,
}

impl Page {
    /// The methods of the page, for the `Allow` header.
    pub const fn methods(&self) -> &'static str {
        if self.post.is_some() { "GET, HEAD, POST" } else { "GET, HEAD" }
    }
}

/// Who may see a page, and in which part of the address it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Everybody, signed in or not.
    Public,
    /// Every signed-in member.
    Own,
    /// Below `/console/o/{org}`: members of the organization and administrators of the site.
    Organization,
    /// Below `/console/site`.
    Site,
}

/// A heading of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Own,
    /// The overview of the organization.
    Organization,
    People,
    Rights,
    /// Videos, jobs, usage.
    Content,
    /// Webhooks and their deliveries.
    Integration,
    /// The audit log and the settings of the organization.
    Administration,
    Site,
}

impl Group {
    /// In the order of the navigation.
    pub const ALL: [Self; 8] = [
        Self::Own,
        Self::Organization,
        Self::People,
        Self::Rights,
        Self::Content,
        Self::Integration,
        Self::Administration,
        Self::Site,
    ];
}

/// Turns an `async fn(&Visit) -> Result<View>` into a [`Handler`].
macro_rules! page {
    ($handler:path) => {
        |visit| Box::pin($handler(visit))
    };
}
pub(super) use page;

/// All pages.
pub fn all() -> impl Iterator<Item = &'static Page> {
    [sign_in::PAGES, me::PAGES, search::PAGES, organization::PAGES, site::PAGES].into_iter().flatten()
}
