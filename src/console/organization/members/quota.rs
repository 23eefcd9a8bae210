//! The quota of a member: how full it is, its size, and the ledger of what was stored and deleted.

use futures_util::future::join3;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{MemberTab, address_of, get_user, is_shown_in_form, member_page, name_of};
use crate::console::client::op;
use crate::console::components::{self, Column, Field, Row, Text};
use crate::console::form::Form;
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::list;
use crate::console::visit::{Content, Notice, View, Visit};
use crate::kernel::error::{Error, Result};
use crate::kernel::units::{parse_bytes, shown_bytes};

words! {
    Words {
        stored: "Stored", "已用空間";
        of: "{} of {}, {} free", "{} / {}，剩餘 {}";
        own: "This member has a size of their own.", "此成員使用個別設定的大小。";
        by_default: "This is the default of the organization or the site.", "目前使用組織或網站的預設值。";
        elsewhere: "This member also belongs to other organizations, so the quota is a matter of the site.", "此成員也屬於其他組織，配額由網站管理。";
        change: "Change the size", "變更大小";
        up_to: "Here you can give up to {}, the ceiling of the whole organization. An administrator of the site sets it.", "在此最多可給予 {}，也就是整個組織的儲存上限；上限由站台管理員設定。";
        up_to_default: "The organization has no ceiling: here you can give at most the default size. To give more, an administrator of the site sets a ceiling first.", "此組織沒有儲存上限，在此最多只能給予預設大小。若要給予更多，須先由站台管理員設定上限。";
        up_to_known: "The organization has no ceiling: here you can give at most the default size, {}. To give more, an administrator of the site sets a ceiling first.", "此組織沒有儲存上限，在此最多只能給予預設大小 {}。若要給予更多，須先由站台管理員設定上限。";
        to_ceiling: "Set the ceiling", "設定上限";
        form_hint: "For example 20 GB or 512 MiB. Leave it empty for the default.", "例如 20 GB 或 512 MiB。留空則使用預設值。";
        not_a_size: "This is no size: write a number and a unit, for example 20 GB.", "無法辨識的大小：請輸入數字與單位，例如 20 GB。";
        save: "Save the size", "儲存大小";
        saved: "The quota of {} is {} now.", "{} 的配額現在是 {}。";
        ledger: "Ledger", "用量紀錄";
        at: "Time", "時間";
        cause: "Cause", "原因";
        delta: "Change", "變動";
        after: "In use after it", "變動後用量";
        video: "Video", "影片";
        none: "Nothing was stored yet", "還沒有儲存任何檔案";
        none_text: "Each registered, replaced or deleted video will be a line here.", "登錄、取代或刪除影片時，會在此留下紀錄。";
    }
}

const TAB: MemberTab = MemberTab::Quota;
/// The code of the organization whose members act for the whole site.
const PLATFORM: &str = "platform";

/// Shows the quota and its ledger.
pub async fn show(visit: &Visit) -> Result<View> {
    Ok(page(visit, None).await?.into())
}

async fn page(visit: &Visit, error: Option<&Error>) -> Result<Content> {
    let t = Words::of(visit.language);
    let ledger = visit.find(list::paged(visit, op("list_ledger").at(visit.path("uid"))));
    let user = get_user(visit).await?;
    let (quota, ledger, limit) = join3(find_quota(visit, &user), ledger, limit_of_organization(visit)).await;
    // Its size is then a matter of the site.
    let is_elsewhere = visit.organization().is_some() && belongs_elsewhere(&user);
    let body = html! {
        (components::card(t.stored, stored(visit, &user, quota.as_ref())))
        @if visit.may("update_member_quota") && !is_elsewhere {
            (components::card(t.change, html! {
                @if let Some(ceiling) = limit { (may_give(visit, ceiling, quota.as_ref())) }
                (size_form(visit, quota.as_ref(), error)?)
            }))
        }
        @if let Some(ledger) = ledger {
            h2 { (t.ledger) }
            @if list::items(&ledger).is_empty() { (components::empty(t.none, t.none_text, None)) } @else {
                (table(visit, list::items(&ledger))) (list::pager(visit, &ledger))
            }
        }
    };
    let content = member_page(visit, &user, TAB, body);
    Ok(match error {
        Some(error) => content.status_of(error),
        None => content,
    })
}

/// Whether the member belongs to several organizations, so that this one does not see the size.
fn belongs_elsewhere(user: &Value) -> bool {
    user["organization_id"].is_null() && user["quota_used"] == 0 && user["quota_size"] == 0
}

/// The ceiling of the organization, up to which its pages can give; `None` where nothing limits what is given.
async fn limit_of_organization(visit: &Visit) -> Option<Option<i64>> {
    let here = visit.organization().filter(|here| here.code != PLATFORM)?;
    let usage = visit.find(op("get_usage").query("limit", 1)).await?;
    let own = usage["organizations"].as_array()?.iter().find(|one| one["organization_id"] == here.id.as_str())?;
    Some(own["size"].as_i64())
}

/// How much can be given here, and who can change that.
fn may_give(visit: &Visit, ceiling: Option<i64>, quota: Option<&Value>) -> Markup {
    let t = Words::of(visit.language);
    let default = quota.filter(|quota| quota["own_size"].is_null()).and_then(|quota| quota["size"].as_i64());
    let text = match (ceiling, default) {
        (Some(ceiling), _) => fill(t.up_to, &[&shown_bytes(ceiling)]),
        (None, Some(default)) => fill(t.up_to_known, &[&shown_bytes(default)]),
        (None, None) => t.up_to_default.to_owned(),
    };
    html! {
        p {
            (text)
            @if visit.may("update_organization_quota") {
                " " a href=(visit.in_organization("usage")) { (t.to_ceiling) }
            }
        }
    }
}

/// The row of the member in the list of quotas, which tells its own size apart from the default.
async fn find_quota(visit: &Visit, user: &Value) -> Option<Value> {
    let keyword = ["username", "email"].iter().find_map(|key| user[*key].as_str())?;
    let found = visit.find(op("list_quotas").query("keyword", keyword).query("limit", 200).query("offset", 0)).await?;
    list::items(&found).iter().find(|row| row["uid"] == user["id"]).cloned()
}

fn stored(visit: &Visit, user: &Value, quota: Option<&Value>) -> Markup {
    let t = Words::of(visit.language);
    let bytes = |key: &str| user[key].as_i64().unwrap_or_default();
    let (used, size) = (bytes("quota_used"), bytes("quota_size"));
    if belongs_elsewhere(user) {
        return html! { p { (t.elsewhere) } };
    }
    let free = quota.and_then(|quota| quota["free"].as_i64()).unwrap_or_else(|| (size - used).max(0));
    let text = fill(t.of, &[&shown_bytes(used), &shown_bytes(size), &shown_bytes(free)]);
    html! {
        p { (components::meter(t.stored, used.unsigned_abs(), Some(size.unsigned_abs()), &text)) }
        @if let Some(quota) = quota {
            p class="hint" { @if quota["own_size"].is_null() { (t.by_default) } @else { (t.own) } }
        }
    }
}

fn size_form(visit: &Visit, quota: Option<&Value>, error: Option<&Error>) -> Result<Markup> {
    let t = Words::of(visit.language);
    let own = quota.and_then(|quota| quota["own_size"].as_i64()).map(exact_bytes).unwrap_or_default();
    let form = Form::new(visit, "update_member_quota")?.error(error);
    // Not a number of bytes, as the operation takes it, but a size with a unit.
    let of_size = error.into_iter().flat_map(|error| &error.fields).filter(|field| field.name() == "size");
    let faults: Vec<String> = of_size.map(|field| errors::field_message(&field.message, visit.language)).collect();
    let label = fields::label("size", visit.language);
    let about = Field::new("size", &label).mark(visit.frame().optional).hint(t.form_hint).faults(&faults);
    let value = if error.is_some() { visit.submitted("size").unwrap_or_default() } else { &own };
    let text = Text { name: "size", value, autocomplete: Some("off"), maxlength: Some(40), ..Text::default() };
    Ok(form.wrap(&visit.here(), components::text_field(&about, &text), t.save))
}

/// A size in the largest unit that loses nothing: `20 GB`, `512 MiB`, `1234567`.
pub fn exact_bytes(bytes: i64) -> String {
    const UNITS: [(&str, i64); 8] = [
        ("TB", 1_000_000_000_000),
        ("TiB", 1 << 40),
        ("GB", 1_000_000_000),
        ("GiB", 1 << 30),
        ("MB", 1_000_000),
        ("MiB", 1 << 20),
        ("KB", 1_000),
        ("KiB", 1 << 10),
    ];
    let whole = UNITS.iter().find(|(_, size)| bytes != 0 && bytes % size == 0);
    whole.map_or_else(|| bytes.to_string(), |(unit, size)| format!("{} {unit}", bytes / size))
}

fn table(visit: &Visit, entries: &[Value]) -> Markup {
    let t = Words::of(visit.language);
    let columns = [
        Column::new(t.at),
        Column::new(t.cause),
        Column::number(t.delta),
        Column::number(t.after),
        Column::new(t.video),
    ];
    let row = |entry: &Value| {
        let bytes = |key: &str| entry[key].as_i64().unwrap_or_default();
        let sign = if bytes("delta") > 0 { "+" } else { "" };
        Row {
            cells: vec![
                components::time(bytes("at")),
                html! { (fields::value(entry["cause"].as_str().unwrap_or_default(), visit.language)) },
                html! { (sign) (shown_bytes(bytes("delta"))) },
                html! { (shown_bytes(bytes("used_after"))) },
                html! { @if let Some(uuid) = entry["uuid"].as_str() { code { (uuid) } } @else { "–" } },
            ],
            ..Row::default()
        }
    };
    components::table(t.ledger, &columns, entries.iter().map(row).collect())
}

/// Changes the size; its Undo sets the former one.
pub async fn act(visit: &Visit) -> Result<View> {
    let t = Words::of(visit.language);
    let user = get_user(visit).await?;
    let former = find_quota(visit, &user).await.map(|quota| quota["own_size"].clone());
    let size = match visit.submitted("size").map(str::trim) {
        None | Some("") => Value::Null,
        Some(text) => match parse_bytes(text) {
            Some(bytes) => json!(bytes),
            None => return Ok(page(visit, Some(&Error::field("size", t.not_a_size))).await?.into()),
        },
    };
    match visit.call(op("update_member_quota").at(visit.path("uid")).body(&json!({"size": size}))).await {
        Ok(answer) => {
            let size = shown_bytes(answer.data["size"].as_i64().unwrap_or_default());
            let notice = Notice::new(fill(t.saved, &[&name_of(&user), &size]));
            let address = address_of(visit, TAB);
            Ok(View::Redirect(
                address.clone(),
                Some(match former {
                    Some(former) => {
                        let text = former.as_i64().map(|bytes| bytes.to_string()).unwrap_or_default();
                        notice.with_undo(address, &[("act", "update"), ("size", &text)])
                    }
                    None => notice,
                }),
            ))
        }
        Err(error) if is_shown_in_form(visit, "update_member_quota", &error) => {
            Ok(page(visit, Some(&error)).await?.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::exact_bytes;
    use crate::kernel::units::parse_bytes;

    #[test]
    fn sizes_are_written_without_loss() {
        for (bytes, text) in
            [(0, "0"), (20_000_000_000, "20 GB"), (1 << 30, "1 GiB"), (512 << 20, "512 MiB"), (1_234_567, "1234567")]
        {
            assert_eq!(exact_bytes(bytes), text);
            assert_eq!(parse_bytes(text), Some(bytes.unsigned_abs()));
        }
    }
}
