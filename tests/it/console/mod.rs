//! The console: its pages, over HTTP and in a real browser.

mod base_path;
mod browser;
mod cross_site;
mod grid;
mod invitations;
mod journeys;
mod keyboard;
mod mappings;
mod me;
mod members;
mod pages;
mod payloads;
mod roles;
mod script;
mod sessions_end;
mod sign_in;
mod site;
mod weight;
mod why;

use roster::console::pages::{Area, Page, all};

use crate::harness::browser::Browser as Chromium;
use crate::harness::console::Browser;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{PASSWORD, Site};

/// What the pages of an organization are about: things that exist, for the parameters of their addresses.
struct Things {
    organization_id: String,
    uid: String,
    role_id: String,
}

impl Things {
    async fn of(organization: &Organization<'_>, member: &Member<'_>) -> Self {
        let role_id = organization.role_id("member").await;
        Self { organization_id: organization.id.clone(), uid: member.uid.clone(), role_id }
    }

    /// The address of a page in the organization of this code.
    fn address(&self, page: &Page, org_code: &str) -> String {
        let id = if page.path.contains("/roles/") { &self.role_id } else { &self.organization_id };
        let path = page.path.replace("{org}", org_code).replace("{uid}", &self.uid).replace("{id}", id);
        assert!(!path.contains('{'), "{path} has a parameter without an example");
        // The pages of one-time links have addresses of their own.
        if ["/setup", "/invitation", "/reset"].contains(&page.path) { path } else { format!("/console{path}") }
    }
}

/// The pages for which somebody has to sign in.
fn closed_pages() -> impl Iterator<Item = &'static Page> {
    all().filter(|page| page.area != Area::Public && page.path != "/")
}

/// The closed pages that are whole pages: neither a redirect nor the list of suggestions of a field.
fn whole_pages() -> impl Iterator<Item = &'static Page> {
    closed_pages().filter(|page| page.path != "/o/{org}" && !page.path.ends_with("/why/members"))
}

async fn signed_in(site: &Site, login: &str) -> Browser {
    let browser = site.visitor();
    browser.sign_in(login, PASSWORD).await;
    browser
}

/// Signs in with Chromium.
async fn sign_in(browser: &Chromium, site: &Site, login: &str) {
    browser.open(&format!("{}/console/sign-in", site.url)).await;
    browser.fill("login", login).await;
    browser.fill("password", PASSWORD).await;
    browser.submit("Sign in").await;
}
