//! The search: pages, actions, and things that the visitor may open. It is a page, and with script a dialog on every
//! other page. For fields with suggestions it answers options.

use maud::{Markup, html};
use poem::Response;
use serde_json::Value;

use super::client::{encoded, op};
use super::components::{self, Field, Select};
use super::i18n::{Language, actions as audit_actions, fill, permissions, roles as role_names, words};
use super::layout::POLICY;
use super::list;
use super::pages::{Area, Page, Title, all, page};
use super::things::{self, may_in};
use super::visit::{Content, View, Visit};
use crate::kernel::error::Result;

words! {
    Words {
        title: "Search", "搜尋";
        search: "Pages, actions, people and things", "頁面、操作、人員與項目";
        place: "In", "範圍";
        whole_site: "The whole site", "整個站台";
        pages: "Pages", "頁面";
        actions: "Actions", "操作";
        begin: "Type at least two characters of a name, e-mail, key or path. Below are all pages that you may open.", "請輸入姓名、電子郵件、代碼或路徑的至少兩個字元。以下是您可以開啟的所有頁面。";
        nothing: "Nothing was found", "找不到符合的項目";
        nothing_text: "Try another part of the name, or another organization. Only what you may see is searched.", "請改搜名稱的其他部分，或切換組織。只會搜尋您有權查看的項目。";
        found: "{} found", "找到 {} 項";
        members: "Members", "成員";
        organizations: "Organizations", "組織";
        roles: "Roles", "角色";
        permissions: "Permissions", "權限";
        plugins: "Plugins", "外掛";
        videos: "Videos", "影片";
        webhooks: "Webhooks", "Webhook";
        clients: "API clients", "API 用戶端";
    }
}

pub const PAGES: &[Page] =
    &[Page { path: PATH, area: Area::Own, needs: &[], uses: &["search"], entry: None, get: page!(show), post: None }];

/// The address of the search below `/console`.
pub const PATH: &str = "/search";
/// The id of the part that is replaced while somebody types.
const REGION: &str = "found";
/// Shorter texts are looked for in pages and actions only.
const CHARS_MIN: usize = 2;
/// The same limit as that of the operation.
const CHARS_MAX: usize = 200;
/// A visitor with more organizations finds only the pages of one.
const OWN_MAX: usize = 5;

/// What can be done on a page: the page, what follows its address, the operation, and the text.
const ACTIONS: [(&str, &str, &str, Title); 33] = [
    ("/o/{org}/invitations", "", "create_invitation", |l| l.pick("Invite somebody", "邀請他人加入")),
    ("/o/{org}/members/new", "", "create_member", |l| l.pick("New member", "新增成員")),
    ("/o/{org}/roles/new", "", "create_role", |l| l.pick("New role", "新增角色")),
    ("/o/{org}/plugins", "", "upload_plugin", |l| l.pick("Upload a plugin", "上傳外掛")),
    ("/o/{org}/webhooks", "", "create_webhook", |l| l.pick("New webhook", "新增 Webhook")),
    ("/o/{org}/audit", "?export=1", "export_audit", |l| l.pick("Export the audit log", "匯出稽核紀錄")),
    ("/site/organizations", "", "create_organization", |l| l.pick("New organization", "新增組織")),
    ("/site/import", "", "import_users", |l| l.pick("Import members", "匯入成員")),
    ("/site/clients", "", "create_api_client", |l| l.pick("New API client", "新增 API 用戶端")),
    ("/site/catalog", "", "import_catalog", |l| l.pick("Import a permission catalog", "匯入權限目錄")),
    ("/me/keys", "", "create_my_api_key", |l| l.pick("New API key for yourself", "為自己建立 API 金鑰")),
    ("/me/security", "", "change_my_password", |l| l.pick("Change your password", "變更密碼")),
    ("/me/sessions", "", "end_my_sessions", |l| l.pick("Sign out everywhere", "登出所有裝置")),
    // What is done in a list, or on the page of one of its rows.
    ("/o/{org}/members", "", "deactivate_member", |l| l.pick("Suspend a member", "將成員停權")),
    ("/o/{org}/members", "", "unlink_member", |l| l.pick("Remove a member from the organization", "將成員移出組織")),
    ("/o/{org}/members", "", "delete_member", |l| l.pick("Erase a member", "永久刪除成員")),
    ("/o/{org}/members", "", "reset_second_factor", |l| l.pick("Reset a second factor", "重設第二因素驗證")),
    ("/o/{org}/members", "", "end_member_sessions", |l| l.pick("End the sessions of a member", "結束成員的工作階段")),
    ("/o/{org}/invitations", "", "delete_invitation", |l| l.pick("Revoke an invitation", "撤銷邀請")),
    ("/o/{org}/plugins", "", "roll_back_plugin", |l| l.pick("Roll back a plugin", "復原外掛")),
    ("/o/{org}/videos", "", "transfer_video", |l| l.pick("Transfer a video", "移轉影片")),
    ("/o/{org}/videos", "", "delete_video", |l| l.pick("Delete a video", "刪除影片")),
    ("/o/{org}/jobs", "", "retry_job", |l| l.pick("Retry a job", "重試工作")),
    ("/o/{org}/deliveries", "", "retry_delivery", |l| l.pick("Deliver an event again", "重新傳送事件")),
    ("/o/{org}/webhooks", "", "rotate_webhook", |l| l.pick("Rotate the secret of a webhook", "輪替 Webhook 的密鑰")),
    ("/site/members", "", "deactivate_member", |l| l.pick("Suspend a member", "將成員停權")),
    ("/site/members", "", "delete_user", |l| l.pick("Erase a member", "永久刪除成員")),
    ("/site/clients", "", "rotate_api_client", |l| {
        l.pick("Rotate the secret of an API client", "輪替 API 用戶端的密鑰")
    }),
    ("/site/keys", "", "rotate_api_key", |l| l.pick("Rotate a service key", "輪替服務金鑰")),
    ("/site/grants", "", "revoke_right", |l| l.pick("Revoke a direct grant", "撤銷直接授權")),
    ("/site/settings", "", "rotate_encryption_key", |l| l.pick("Rotate the encryption key", "輪替加密金鑰")),
    ("/site/signing-keys", "", "rotate_signing_key", |l| l.pick("Rotate the signing key", "輪替簽署金鑰")),
    ("/me/keys", "", "rotate_my_api_key", |l| l.pick("Rotate an API key of yours", "輪替自己的 API 金鑰")),
];

/// A link of the answer.
struct Hit {
    href: String,
    text: String,
    detail: Option<String>,
}

/// Where pages and actions are offered.
struct Place<'p> {
    code: Option<&'p str>,
    /// Only the pages of this organization are offered, and their titles name it.
    only: Option<&'p str>,
}

impl Place<'_> {
    fn has(&self, page: &Page) -> bool {
        self.only.is_none() || page.area == Area::Organization
    }
}

/// The organizations of the visitor: code and name.
fn own(visit: &Visit) -> Vec<(&str, &str)> {
    let all = visit.me()["organizations"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter_map(|one| Some((one["org_code"].as_str()?, one["name"].as_str()?))).collect()
}

/// The organization that is searched; if the address names none, also the visitor's others.
fn places<'v>(visit: &'v Visit, code: Option<&'v str>, wanted: &str) -> Vec<Place<'v>> {
    let mut places = vec![Place { code, only: None }];
    let own = own(visit);
    if visit.query("org").is_none() && !wanted.is_empty() && own.len() <= OWN_MAX {
        let others = own.into_iter().filter(|(known, _)| Some(*known) != code);
        places.extend(others.map(|(known, name)| Place { code: Some(known), only: Some(name) }));
    }
    places
}

/// The organization to search: that of the address. Without one, administrators of the site search all of it, and others
/// their first organization.
fn place(visit: &Visit) -> Option<&str> {
    let own = || visit.me()["organizations"][0]["org_code"].as_str();
    visit.query("org").or_else(|| if visit.is_of_platform() { None } else { own() })
}

/// Shows what was found.
pub async fn show(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let code = place(visit);
    let text: String = visit.query("q").unwrap_or_default().trim().chars().take(CHARS_MAX).collect();
    let found = if text.chars().count() < CHARS_MIN || visit.query("kind") == Some("action") {
        Value::Null
    } else {
        visit.call_in(code, op("search").query("q", &text)).await?.data
    };
    if visit.query("as") == Some("options") {
        return Ok(options(match visit.query("kind") {
            Some("action") => audited(visit, &text),
            kind => suggestions(visit, kind, list::items(&found)),
        }));
    }
    let body = html! {
        (form(visit, t, code, &text))
        (components::region(REGION, None, results(visit, t, code, &text, list::items(&found))))
    };
    Ok(Content::new(t.title, body).into())
}

fn form(visit: &Visit, t: &Words, code: Option<&str>, text: &str) -> Markup {
    let mut places = own(visit);
    if visit.is_of_platform() {
        places.insert(0, ("", t.whole_site));
    }
    // Administrators of the site also come from organizations that are not their own.
    let code = code.unwrap_or_default();
    if places.iter().all(|(known, _)| *known != code) {
        places.push((code, code));
    }
    let about = Field::new("org", t.place);
    let select = Select { name: "org", options: &places, chosen: code, is_required: false };
    components::filter_bar(
        &visit.here(),
        Some(REGION),
        html! {
            (components::search_field("q", text, t.search))
            @if places.len() > 1 { (components::field(&about, components::select_input(&about, &select))) }
        },
        visit.frame().search,
    )
}

fn results(visit: &Visit, t: &Words, code: Option<&str>, text: &str, items: &[Value]) -> Markup {
    let wanted = text.to_lowercase();
    let places = places(visit, code, &wanted);
    let pages = places.iter().flat_map(|place| pages(visit, place, &wanted)).collect();
    let actions = places.iter().flat_map(|place| actions(visit, place, &wanted)).collect();
    let mut groups: Vec<(&str, Vec<Hit>)> = vec![(t.pages, pages), (t.actions, actions)];
    for (kind, title) in kinds(t) {
        let of_kind = items.iter().filter(|item| item["kind"] == kind);
        groups.push((title, of_kind.filter_map(|item| hit(visit, code, item)).collect()));
    }
    let count: usize = groups.iter().map(|(_, hits)| hits.len()).sum();
    if count == 0 {
        return components::empty(t.nothing, t.nothing_text, None);
    }
    html! {
        @if text.is_empty() { p { (t.begin) } } @else { p class="quiet" data-announce { (fill(t.found, &[&count])) } }
        @for (title, hits) in groups.iter().filter(|(_, hits)| !hits.is_empty()) {
            h2 { (title) }
            ul class="results" {
                @for hit in hits {
                    li { a href=(hit.href) { (hit.text) } @if let Some(detail) = &hit.detail { " " small { (detail) } } }
                }
            }
        }
    }
}

/// The kinds of things as the operation names them, with their titles.
fn kinds(t: &Words) -> [(&'static str, &'static str); 8] {
    [
        ("member", t.members),
        ("organization", t.organizations),
        ("role", t.roles),
        ("permission", t.permissions),
        ("plugin", t.plugins),
        ("video", t.videos),
        ("webhook", t.webhooks),
        ("api_client", t.clients),
    ]
}

/// Whether a text of the console fits, in any language.
fn fits(title: Title, wanted: &str) -> bool {
    Language::ALL.into_iter().any(|language| title(language).to_lowercase().contains(wanted))
}

/// The pages of the navigation.
fn pages(visit: &Visit, place: &Place<'_>, wanted: &str) -> Vec<Hit> {
    let entries = all().filter_map(|page| Some((page, page.entry?.1)));
    let fitting = entries.filter(|(_, title)| fits(*title, wanted));
    fitting.filter_map(|(page, title)| of_page(visit, place, page, "", title)).collect()
}

fn actions(visit: &Visit, place: &Place<'_>, wanted: &str) -> Vec<Hit> {
    let fitting =
        ACTIONS.iter().filter(|(.., operation, title)| fits(*title, wanted) && may_in(visit, place.code, operation));
    let found = fitting.filter_map(|(path, rest, _, title)| {
        let page = all().find(|page| page.path == *path)?;
        of_page(visit, place, page, rest, *title)
    });
    found.collect()
}

fn of_page(visit: &Visit, place: &Place<'_>, page: &Page, rest: &str, title: Title) -> Option<Hit> {
    if !place.has(page) {
        return None;
    }
    let href = format!("{}{rest}", things::address(visit, place.code, page)?);
    let title = title(visit.language);
    if let Some(name) = place.only {
        return Some(Hit { href, text: format!("{title} · {name}"), detail: None });
    }
    let detail = match page.area {
        Area::Organization => place.code.map(str::to_owned),
        Area::Site => Some(visit.frame().site.to_owned()),
        Area::Own | Area::Public => None,
    };
    Some(Hit { href, text: title.to_owned(), detail })
}

fn text<'i>(item: &'i Value, name: &str) -> &'i str {
    item[name].as_str().unwrap_or_default()
}

/// The name of a thing in the reader's language.
fn name<'i>(visit: &Visit, item: &'i Value) -> &'i str {
    match text(item, "kind") {
        "role" => role_names::name(text(item, "name"), text(item, "detail"), visit.language),
        _ => text(item, "name"),
    }
}

/// A thing with its page, if the visitor may open that. `searched` is the organization that was searched.
fn hit(visit: &Visit, searched: Option<&str>, item: &Value) -> Option<Hit> {
    let (id, kind) = (text(item, "id"), text(item, "kind"));
    let code = item["org_code"].as_str().or(searched);
    let page = |path: &str| all().find(|page| page.path == path).and_then(|page| things::address(visit, code, page));
    let href = match kind {
        "organization" => page("/o/{org}")?,
        "permission" => match page("/o/{org}/grid") {
            Some(grid) => format!("{grid}?q={}", encoded(id)),
            None => format!("{}?q={}", page("/site/catalog")?, encoded(id)),
        },
        _ => things::href(visit, code, searched.is_none(), kind, id)?,
    };
    let meaning = permissions::meaning(id, visit.language).filter(|_| kind == "permission");
    let detail = meaning.or(item["detail"].as_str());
    // On the whole site, what tells things of organizations apart. Permissions are the same in all.
    let of = code.filter(|_| searched.is_none() && !["organization", "permission"].contains(&kind));
    let parts: Vec<&str> = detail.into_iter().chain(of).collect();
    let detail = Some(parts.join(" · ")).filter(|detail| !detail.is_empty());
    Some(Hit { href, text: name(visit, item).to_owned(), detail })
}

/// An answer of suggestions for a field.
fn options(options: Markup) -> View {
    let response = Response::builder()
        .content_type("text/html; charset=utf-8")
        .header("Content-Security-Policy", POLICY)
        .header("Cache-Control", "no-store")
        .body(options.into_string());
    View::Response(Box::new(response))
}

/// The things as suggestions: members by a login, others by their id.
fn suggestions(visit: &Visit, wanted: Option<&str>, items: &[Value]) -> Markup {
    let fitting = items.iter().filter(|item| wanted.is_none_or(|kind| text(item, "kind") == kind));
    html! {
        @for item in fitting {
            @let (name, detail) = (name(visit, item), text(item, "detail"));
            option value=(value(item)) { (name) @if !detail.is_empty() && detail != name { " · " (detail) } }
        }
    }
}

/// The actions of the audit log as suggestions, by their words in both languages.
fn audited(visit: &Visit, wanted: &str) -> Markup {
    const SUGGESTIONS: usize = 12;
    let wanted = wanted.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&wanted);
    let fitting = audit_actions::all().filter(|action| {
        has(action) || Language::ALL.into_iter().any(|language| has(&audit_actions::text(action, language)))
    });
    html! {
        @for action in fitting.take(SUGGESTIONS) { option value=(audit_actions::text(action, visit.language)) { (action) } }
    }
}

/// What a field holds for a thing. The detail of a member is a login, which people can read.
fn value(item: &Value) -> &str {
    let login = item["detail"].as_str().filter(|_| text(item, "kind") == "member");
    login.unwrap_or_else(|| text(item, "id"))
}

/// The address of the search in the organization of the page.
fn address(visit: &Visit) -> (String, Option<&str>) {
    (visit.href("/console/search"), visit.organization().map(|here| here.code.as_str()))
}

/// The keys that open the search, as the keyboard of the visitor names them.
fn keys(visit: &Visit) -> &'static str {
    let agent = visit.headers.get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if ["Mac", "iPhone", "iPad"].iter().any(|device| agent.contains(device)) { "⌘K" } else { "Ctrl K" }
}

/// The button of the search, in the bar of every page.
pub fn button(visit: &Visit) -> Markup {
    let (title, (address, code)) = (Words::of(visit.language).title, address(visit));
    let href = code.map_or_else(|| address.clone(), |code| format!("{address}?org={}", encoded(code)));
    html! {
        a class="button quiet" href=(href) data-palette aria-keyshortcuts="Control+K Meta+K" {
            (components::icon(components::Icon::Search)) span { (title) } kbd class="needs-script" aria-hidden="true" { (keys(visit)) }
        }
    }
}

/// The dialog of the search, on every page but its own. It is last, since its field has a name that others have too.
pub fn palette(visit: &Visit) -> Markup {
    let (t, (address, code)) = (Words::of(visit.language), address(visit));
    html! {
        @if visit.page.path != PATH {
            dialog id="palette" aria-label=(t.title) {
                form method="get" action=(address) role="search" aria-label=(t.title) data-live=(REGION) {
                    @if let Some(code) = code { (components::hidden_input("org", code)) }
                    (components::search_field("q", "", t.search))
                }
                (components::region(REGION, None, html! {}))
            }
        }
    }
}
