//! Where things have their page: in an organization, or among the pages of the site.

use super::client::encoded;
use super::pages::{Area, Page, all};
use super::visit::Visit;
use crate::kernel::authz;

/// Kinds of things as the audit log and the search call them, with their page in an organization and that of the site.
const PLACES: [(&[&str], Option<&str>, Option<&str>); 14] = [
    (
        &["member", "user", "password", "password_link", "second_factor"],
        Some("/o/{org}/members/{uid}"),
        Some("/site/members/{uid}"),
    ),
    (&["quota"], Some("/o/{org}/members/{uid}/quota"), Some("/site/members/{uid}/quota")),
    (&["role"], Some("/o/{org}/roles/{id}"), None),
    (&["role_mapping"], Some("/o/{org}/mappings"), None),
    (&["invitation"], Some("/o/{org}/invitations"), None),
    (&["plugin"], Some("/o/{org}/plugins/{name}"), None),
    (&["video"], Some("/o/{org}/videos/{id}"), None),
    (&["job"], Some("/o/{org}/jobs/{id}"), None),
    (&["webhook"], Some("/o/{org}/webhooks/{id}"), Some("/site/webhooks/{id}")),
    (&["delivery"], Some("/o/{org}/deliveries"), Some("/site/deliveries")),
    (&["organization", "organization_quota"], None, Some("/site/organizations/{id}")),
    (&["client", "api_client"], None, Some("/site/clients/{client_key}")),
    (&["catalog"], None, Some("/site/catalog")),
    (&["signing_key"], None, Some("/site/signing-keys")),
];

/// The address of the page of a thing, if there is one that the visitor may open. `code` is the organization in which the
/// thing is; `is_of_site` asks for its page among those of the site first.
pub fn href(visit: &Visit, code: Option<&str>, is_of_site: bool, kind: &str, id: &str) -> Option<String> {
    let (_, inside, of_site) = PLACES.iter().find(|(kinds, ..)| kinds.contains(&kind))?;
    let paths = if is_of_site { [*of_site, *inside] } else { [*inside, *of_site] };
    let mut pages = paths.into_iter().flatten().filter_map(|path| all().find(|page| page.path == path));
    pages.find_map(|page| address(visit, code, page).map(|address| with_id(&address, id)))
}

/// The address of a page as a link, if the visitor may open it. Parameters besides the organization stay.
pub fn address(visit: &Visit, code: Option<&str>, page: &Page) -> Option<String> {
    let is_there = match page.area {
        Area::Organization => code.is_some(),
        Area::Site => visit.is_of_platform(),
        Area::Own => true,
        Area::Public => false,
    };
    // The site's own rights do not depend on an organization.
    let of = code.filter(|_| page.area == Area::Organization);
    let is_open = is_there && page.needs.iter().all(|operation| may_in(visit, of, operation));
    is_open.then(|| visit.href(&format!("/console{}", page.path.replace("{org}", code.unwrap_or_default()))))
}

/// Whether the visitor holds the permission of the operation in this organization, or where the page is. For what is
/// shown; the operation itself decides.
pub fn may_in(visit: &Visit, code: Option<&str>, operation: &str) -> bool {
    let Some(code) = code else { return visit.may(operation) };
    let Ok(known) = visit.operation(operation) else { return false };
    let (Some(permission), Some(identity)) = (known.permission, &visit.identity) else { return true };
    let snapshot = visit.console.app.snapshot();
    let Some(tenant) = snapshot.tenant_named(code) else { return false };
    let mut identity = identity.clone();
    identity.named_tenant = Some(tenant.id);
    authz::require(&snapshot, &identity, permission).is_ok()
}

/// The address with this id as its parameter.
fn with_id(address: &str, id: &str) -> String {
    match (address.find('{'), address.rfind('}')) {
        (Some(begin), Some(end)) => format!("{}{}{}", &address[..begin], encoded(id), &address[end + 1..]),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{PLACES, all, with_id};

    #[test]
    fn every_place_is_a_page_with_at_most_one_id() {
        for path in PLACES.iter().flat_map(|(_, inside, of_site)| [*inside, *of_site]).flatten() {
            assert!(all().any(|page| page.path == path), "{path}");
            assert!(path.replace("{org}", "").matches('{').count() <= 1, "{path}");
        }
        assert_eq!(with_id("/site/members/{uid}/quota", "../a b"), "/site/members/..%2Fa%20b/quota");
        assert_eq!(with_id("/site/catalog", "x"), "/site/catalog");
    }
}
