//! The pages of a member's own data: `/console/me/…`. Every signed-in member sees all of them.

mod join;
mod keys;
mod overview;
mod profile;
mod rights;
mod security;
mod sessions;
mod tasks;
mod videos;

use serde_json::Value;

use super::client::Call;
use super::form;
use super::i18n::errors;
use super::pages::{Area, Group, Page, page};
use super::visit::Visit;
use crate::kernel::authz;
use crate::kernel::error::{Error, Field};
use crate::kernel::units;

pub(super) use overview::register_command;

pub const PAGES: &[Page] = &[
    Page {
        path: "/me",
        area: Area::Own,
        needs: &[],
        uses: &["get_me", "get_my_quota", "list_videos", "list_my_activity"],
        entry: Some((Group::Own, |l| l.pick("Overview", "總覽"))),
        get: page!(overview::show),
        post: None,
    },
    Page {
        path: "/me/profile",
        area: Area::Own,
        needs: &[],
        uses: &["get_me", "update_me"],
        entry: Some((Group::Own, |l| l.pick("Profile", "個人資料"))),
        get: page!(profile::show),
        post: Some(page!(profile::save)),
    },
    Page {
        path: "/me/security",
        area: Area::Own,
        needs: &[],
        uses: &[
            "get_my_second_factor",
            "list_my_trusted_devices",
            "change_my_password",
            "begin_my_second_factor",
            "confirm_my_second_factor",
            "renew_my_recovery_codes",
            "remove_my_second_factor",
            "delete_my_trusted_device",
        ],
        entry: Some((Group::Own, |l| l.pick("Security", "安全性"))),
        get: page!(security::show),
        post: Some(page!(security::act)),
    },
    Page {
        path: "/me/sessions",
        area: Area::Own,
        needs: &[],
        uses: &["list_my_sessions", "end_my_session", "end_my_sessions"],
        entry: Some((Group::Own, |l| l.pick("Sessions", "工作階段"))),
        get: page!(sessions::list),
        post: Some(page!(sessions::act)),
    },
    Page {
        path: "/me/keys",
        area: Area::Own,
        needs: &[],
        uses: &["list_my_api_keys", "create_my_api_key", "rotate_my_api_key", "delete_my_api_key"],
        entry: Some((Group::Own, |l| l.pick("API keys", "API 金鑰"))),
        get: page!(keys::list),
        post: Some(page!(keys::act)),
    },
    Page {
        path: "/me/videos",
        area: Area::Own,
        needs: &[],
        uses: &["list_videos", "list_jobs", "get_video", "transfer_video", "delete_video", "list_users"],
        entry: Some((Group::Own, |l| l.pick("Videos", "影片"))),
        get: page!(videos::list),
        post: Some(page!(videos::act)),
    },
    Page {
        path: "/me/rights",
        area: Area::Own,
        needs: &[],
        uses: &["get_my_permissions", "get_my_rights", "list_roles"],
        entry: Some((Group::Own, |l| l.pick("Rights", "權限"))),
        get: page!(rights::show),
        post: None,
    },
    Page {
        path: "/me/tasks",
        area: Area::Own,
        needs: &[],
        uses: &["list_tasks"],
        entry: Some((Group::Own, |l| l.pick("Tasks", "背景工作"))),
        get: page!(tasks::list),
        post: None,
    },
    Page {
        path: "/me/tasks/{id}",
        area: Area::Own,
        needs: &[],
        uses: &["get_task", "cancel_task"],
        entry: None,
        get: page!(tasks::one),
        post: Some(page!(tasks::act)),
    },
    Page {
        path: "/me/join",
        area: Area::Own,
        needs: &[],
        uses: &["accept_my_invitation", "get_me"],
        entry: None,
        get: page!(join::form),
        post: Some(page!(join::accept)),
    },
];

/// The most that a quota can be, which means that there is no limit.
const NO_LIMIT_BYTES: i64 = 9_000_000_000_000_000;

/// The answer of an operation, for a part of a page that is left out when it fails.
async fn part(visit: &Visit, call: Call) -> Option<Value> {
    visit.call(call).await.ok().map(|answer| answer.data)
}

/// Whether the visitor holds the permission of the operation in this organization. For what is shown.
fn may_in(visit: &Visit, organization: &str, operation: &str) -> bool {
    let snapshot = visit.console.app.snapshot();
    let tenant = snapshot.tenant_named(organization).map(|tenant| tenant.id);
    let permission = visit.operation(operation).ok().and_then(|known| known.permission);
    let (Some(identity), Some(_), Some(permission)) = (&visit.identity, tenant, permission) else { return false };
    let mut identity = identity.clone();
    identity.named_tenant = tenant;
    authz::require(&snapshot, &identity, permission).is_ok()
}

/// The organizations of the visitor.
fn organizations(visit: &Visit) -> &[Value] {
    visit.me()["organizations"].as_array().map_or(&[], Vec::as_slice)
}

/// The rows of an answer.
fn items(data: &Value) -> &[Value] {
    data["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A text of an answer; empty if there is none.
fn text<'d>(data: &'d Value, name: &str) -> &'d str {
    data[name].as_str().unwrap_or_default()
}

/// A number of an answer as a size.
fn size(data: &Value, name: &str) -> String {
    units::shown_bytes(data[name].as_i64().unwrap_or_default())
}

/// A moment of an answer.
fn moment(data: &Value, name: &str) -> i64 {
    data[name].as_i64().unwrap_or_default()
}

/// The error as a fault of this field, unless it names fields already.
pub(super) fn at_field(mut error: Error, name: &str) -> Error {
    if error.fields.is_empty() {
        let message = error.message().to_owned();
        error.fields.push(Field::body(name, message));
    }
    error
}

/// The messages about a field that no operation has under this name.
pub(super) fn faults(visit: &Visit, error: Option<&Error>, name: &str) -> Vec<String> {
    let all = error.iter().flat_map(|error| &error.fields).filter(|field| field.name() == name);
    all.map(|field| errors::field_message(&field.message, visit.language)).collect()
}

/// The key of a form: kept when the form is shown again, so that sending it twice does one thing.
pub(super) fn once(visit: &Visit) -> String {
    visit.submitted(form::ONCE).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}

/// The address of the API as programs see it.
pub(super) fn api_address(visit: &Visit) -> String {
    format!("{}{}", visit.public_url(), visit.config().base_path)
}
