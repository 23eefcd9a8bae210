//! The console: its pages, over HTTP and in a real browser.

mod audit;
mod base_path;
mod browser;
mod catalog;
mod clicks;
mod clients;
mod connections;
mod cross_site;
mod grants;
mod grid;
mod import;
mod invitations;
mod jobs;
mod journeys;
mod keyboard;
mod keys;
mod mappings;
mod me;
mod members;
mod organization_settings;
mod pages;
mod payloads;
mod plugins;
mod roles;
mod script;
mod search;
mod sessions_end;
mod sign_in;
mod site;
mod site_members;
mod site_settings;
mod tasks;
mod usage;
mod videos;
mod webhooks;
mod weight;
mod why;

use roster::console::pages::{Area, Page, all};
use serde_json::json;

use crate::harness::browser::Browser as Chromium;
use crate::harness::console::Browser;
use crate::harness::organizations::{Member, Organization};
use crate::harness::site::{PASSWORD, Site};
use crate::harness::wasm_fixtures::denying;
use crate::plugins::upload;
use crate::server::tasks::ended;
use crate::videos::jobs::{queue, text};

/// What the pages of an organization are about: things that exist, for the parameters of their addresses.
struct Things {
    organization_id: String,
    uid: String,
    role_id: String,
    webhook_id: String,
    job_id: String,
    video_id: String,
    /// Of the administrator of the site.
    task_id: String,
    client_key: String,
}

impl Things {
    async fn of(organization: &Organization<'_>, member: &Member<'_>) -> Self {
        let role_id = organization.role_id("member").await;
        let webhook = json!({"name": "n8n", "url": "https://hooks.example.org/1", "kinds": ["job.dead"]});
        let webhook = organization.owner().post("/admin/webhooks", webhook).await.data();
        upload(&organization.owner(), "plain", denying("no")).await.done();
        let admin = organization.site.admin();
        let task = ended(&admin, &admin.get("/admin/audit/verify?background=true").await).await;
        let job_id = queue(organization.site, &member.uid, Some(&organization.id), 1).remove(0);
        let job = organization.admin().get(&format!("/api/v1/jobs/{job_id}")).await.data();
        let client = json!({"name": "portal", "scopes": ["members:read"]});
        let client = organization.site.admin().post("/admin/api-clients", client).await.data();
        Self {
            client_key: text(&client["client_key"]),
            organization_id: organization.id.clone(),
            uid: member.uid.clone(),
            role_id,
            webhook_id: text(&webhook["id"]),
            job_id,
            video_id: text(&job["video_id"]),
            task_id: text(&task["id"]),
        }
    }

    /// The address of a page in the organization of this code.
    fn address(&self, page: &Page, org_code: &str) -> String {
        let kinds = [
            ("/roles/", &self.role_id),
            ("/webhooks/", &self.webhook_id),
            ("/jobs/", &self.job_id),
            ("/videos/", &self.video_id),
            ("/tasks/", &self.task_id),
        ];
        let kind = kinds.into_iter().find(|(part, _)| page.path.contains(part));
        let id = kind.map_or(&self.organization_id, |(_, id)| id);
        let path = page
            .path
            .replace("/connections/{name}", "/connections/sftpgo")
            .replace("/plugins/{name}", "/plugins/plain")
            .replace("{org}", org_code)
            .replace("{uid}", &self.uid)
            .replace("{id}", id)
            .replace("{client_key}", &self.client_key);
        assert!(!path.contains('{'), "{path} has a parameter without an example");
        // The pages of one-time links have addresses of their own.
        if ["/setup", "/invitation", "/reset"].contains(&page.path) { path } else { format!("/console{path}") }
    }
}

/// The pages for which somebody has to sign in.
fn closed_pages() -> impl Iterator<Item = &'static Page> {
    all().filter(|page| page.area != Area::Public && page.path != "/")
}

/// The closed pages that are whole pages, not the list of suggestions of a field.
fn whole_pages() -> impl Iterator<Item = &'static Page> {
    closed_pages().filter(|page| !page.path.ends_with("/why/members"))
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
