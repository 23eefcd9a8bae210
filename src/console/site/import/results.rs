//! What an import did, or would do: counts, refused rows with their reasons, and the rows to correct.

use maud::{Markup, html};
use serde_json::Value;

use super::HERE;
use crate::console::components::{self, Area, Column, Field, Kind, Row, Tone};
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::list::grouped;
use crate::console::visit::Visit;
use crate::kernel::units::shown_bytes;

words! {
    Words {
        done: "Rows: {}. New members: {}, changed: {}, as they were: {}, refused: {}.", "共 {} 列：{} 位新成員、{} 位變更、{} 位不變、{} 列有誤。";
        not_attempted: "Rows that were not attempted: {}. Import the file again: what is done changes nothing.", "尚未處理的列：{}。請再匯入整個檔案；已完成的內容不會有任何變更。";
        refused: "Refused rows", "有誤的列";
        line: "Line", "行";
        who: "Username", "使用者名稱";
        column: "Column", "欄位";
        why: "Why", "原因";
        more_refused: "And {} more: correct these first.", "還有 {} 列：請先修正以上各列。";
        changed: "Changed members", "變更的成員";
        what: "What changes", "變更內容";
        more_changed: "And {} more.", "還有 {} 位。";
        repair: "Correct the refused rows", "修正有誤的列";
        repair_text: "These are the rows that were refused. Correct them here and import them: the others are done.", "以下是有誤的列，請在此修正後匯入；其他列都已完成。";
        repair_file: "Correct these rows in your file and import all of it again: what is done changes nothing.", "請在您的檔案中修正這些列，再匯入整個檔案；已完成的內容不會有任何變更。";
        rows: "Rows", "內容";
        check: "Check first", "先檢查";
        import: "Import these rows", "匯入這些列";
        to_members: "All members", "所有成員";
        new_password: "New members get no password here: each needs a password link from the member's page, or the welcome mail.", "匯入的新成員沒有密碼：請從成員頁面建立密碼連結，或寄送歡迎信。";
        no_role: "They have no role yet:", "新成員還沒有角色：";
        give_role: "give them one in their organization", "請在其組織中授予角色";
        files_done: "Files: {}. New videos: {} ({}), of these without an owner: {}, known before: {}, skipped: {}.", "共 {} 個檔案：{} 部新影片（{}），其中 {} 部沒有擁有者；{} 部先前已登錄，{} 個略過。";
        files_would: "Files: {}. Would become videos: {} ({}), of these without an owner: {}, known before: {}, skipped: {}. Nothing was written yet.", "共 {} 個檔案：{} 個會成為影片（{}），其中 {} 部沒有擁有者；{} 部先前已登錄，{} 個略過。尚未寫入任何資料。";
        claimed: "Given to their owners: {} ({}). Still without an owner, because no member has the folder: {}.", "{} 部影片（{}）已歸還擁有者；{} 部仍沒有擁有者，因為沒有成員使用該資料夾。";
        would_claim: "Would be given to their owners: {} ({}). Still without an owner, because no member has the folder: {}. Nothing was written yet.", "{} 部影片（{}）會歸還擁有者；{} 部仍沒有擁有者，因為沒有成員使用該資料夾。尚未寫入任何資料。";
        claim: "Assign them now", "立即歸還";
        over_quota: "Over their quota now", "已超過配額";
        would_be_over: "Would be over their quota", "將會超過配額";
        and_more: "and {} more", "還有 {} 位";
        go_on: "There are more files: go on after this one", "還有其他檔案：從這裡繼續";
        back: "To the imports", "回到匯入";
    }
}

/// The most rows of a table of a result.
const SHOWN_MAX: usize = 200;
/// The most members that are named as over their quota.
const NAMED_MAX: usize = 20;

/// The numbers of an import of members.
pub(super) struct Counts {
    pub rows: u64,
    pub created: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub failed: u64,
}

impl Counts {
    pub(super) fn of(found: &Value) -> Self {
        let length = |name: &str| found[name].as_array().map_or(0, |all| all.len() as u64);
        let number = |name: &str| found[name].as_u64().unwrap_or_default();
        Self {
            rows: number("rows"),
            created: length("created"),
            changed: length("changed"),
            unchanged: number("unchanged"),
            failed: length("failed"),
        }
    }
}

/// The result of a finished task of this page's operations.
pub fn task_result(visit: &Visit, task: &Value) -> Markup {
    let result = &task["result"];
    if result.is_null() {
        return html! {};
    }
    match task["operation"].as_str() {
        Some("import_users") => imported_users(visit, result),
        Some("import_videos") => imported_videos(visit, result),
        _ => html! {},
    }
}

fn imported_users(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let counts = Counts::of(found);
    let n = |number: u64| grouped(number);
    let text = fill(
        t.done,
        &[&n(counts.rows), &n(counts.created), &n(counts.changed), &n(counts.unchanged), &n(counts.failed)],
    );
    let left = number(found, "not_attempted");
    let tone = match (counts.failed, counts.failed == counts.rows) {
        (0, _) => Tone::Ok,
        (_, false) => Tone::Warn,
        (_, true) => Tone::Bad,
    };
    html! {
        (components::notice(tone, &text, None))
        @if left > 0 { p { (fill(t.not_attempted, &[&n(left)])) } }
        (failed_table(visit, found))
        @if counts.failed > 0 { (repair(visit, found["failed_csv"].as_str())) }
        (changed_table(visit, found))
        @if counts.created > 0 {
            p class="hint" { (t.new_password) }
            p class="hint" { (t.no_role) " " a href=(visit.href("/console/site/members?sort=-created_at")) { (t.give_role) } }
        }
        (components::actions(html! {
            (components::link_button(&visit.href("/console/site/members?sort=-created_at"), t.to_members))
            (components::link_button(&visit.href(HERE), t.back))
        }))
    }
}

/// The rows that were refused, in a field to correct and send again.
fn repair(visit: &Visit, rows: Option<&str>) -> Markup {
    let t = Words::of(visit.language);
    let Some(rows) = rows else { return html! { p { (t.repair_file) } } };
    let about = Field::new("text", t.rows);
    let lines = u32::try_from(rows.lines().count()).unwrap_or(u32::MAX).clamp(4, 20);
    let area = Area { name: "text", value: rows, rows: lines, is_required: true, is_code: true, ..Area::default() };
    html! {
        h2 { (t.repair) }
        p { (t.repair_text) }
        form method="post" action=(visit.href(HERE)) data-guard {
            (components::field(&about, components::textarea_input(&about, &area)))
            (super::once())
            (components::actions(html! {
                (components::button_named("act", "import", t.import, Kind::Main))
                (components::button_named("act", "check", t.check, Kind::Plain))
            }))
        }
    }
}

/// A row for each fault.
pub(super) fn failed_table(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let failed = found["failed"].as_array().map_or(&[][..], Vec::as_slice);
    if failed.is_empty() {
        return html! {};
    }
    let columns = [Column::number(t.line), Column::new(t.who), Column::new(t.column), Column::new(t.why)];
    let mut rows = Vec::new();
    for one in failed.iter().take(SHOWN_MAX) {
        let line = one["line"].as_u64().or_else(|| one["row"].as_u64()).unwrap_or_default();
        for fault in one["fields"].as_array().into_iter().flatten() {
            let text = |name: &str| fault[name].as_str().unwrap_or_default();
            rows.push(Row {
                cells: vec![
                    html! { (grouped(line)) },
                    html! { (components::shortened(one["username"].as_str().unwrap_or("–"))) },
                    html! { (fields::label(text("field"), visit.language)) },
                    html! { (components::shortened(&errors::field_message(text("message"), visit.language))) },
                ],
                ..Row::default()
            });
        }
    }
    html! {
        h2 { (t.refused) }
        (components::table(t.refused, &columns, rows))
        @if failed.len() > SHOWN_MAX { p class="hint" { (fill(t.more_refused, &[&(failed.len() - SHOWN_MAX)])) } }
    }
}

/// The members that change, with the fields that differ.
pub(super) fn changed_table(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let changed = found["changed"].as_array().map_or(&[][..], Vec::as_slice);
    if changed.is_empty() {
        return html! {};
    }
    let columns = [Column::new(t.who), Column::new(t.what)];
    let row = |one: &Value| {
        let names = one["fields"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names: Vec<String> = names.map(|name| fields::label(name, visit.language)).collect();
        let id = one["id"].as_str().unwrap_or_default();
        Row {
            cells: vec![
                html! { (components::shortened(one["username"].as_str().unwrap_or_default())) },
                html! { (names.join(visit.language.pick(", ", "、"))) },
            ],
            href: Some(visit.href(&format!("/console/site/members/{id}"))),
            ..Row::default()
        }
    };
    html! {
        h2 { (t.changed) }
        (components::table(t.changed, &columns, changed.iter().take(SHOWN_MAX).map(row).collect()))
        @if changed.len() > SHOWN_MAX { p class="hint" { (fill(t.more_changed, &[&(changed.len() - SHOWN_MAX)])) } }
    }
}

fn number(found: &Value, name: &str) -> u64 {
    found[name].as_u64().unwrap_or_default()
}

fn size(found: &Value) -> String {
    shown_bytes(found["bytes"].as_i64().unwrap_or_default())
}

/// The counts of an import of videos, and who is over the quota by it.
pub(super) fn videos_counts(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let n = |name: &str| grouped(number(found, name));
    let sentence = if found["dry_run"] == true { t.files_would } else { t.files_done };
    let counts = [n("looked_at"), n("imported"), size(found), n("ownerless"), n("already_exist"), n("skipped")];
    let [looked, new, bytes, ownerless, known, skipped] = &counts;
    let text = fill(sentence, &[looked, new, bytes, ownerless, known, skipped]);
    html! { (components::notice(Tone::Ok, &text, None)) (over_quota(visit, found)) }
}

fn imported_videos(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    html! {
        (videos_counts(visit, found))
        @if let Some(next) = found["next"].as_str() {
            @let after = crate::console::client::encoded(next);
            p { a href=(visit.href(&format!("{HERE}?after={after}#prefix"))) { (t.go_on) } ": " code { (next) } }
        }
        (components::actions(components::link_button(&visit.href(HERE), t.back)))
    }
}

/// The answer of assigning videos without an owner, or of looking at them.
pub(super) fn claimed_videos(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let is_dry = found["dry_run"] == true;
    let (claimed, ownerless) = (number(found, "claimed"), number(found, "ownerless"));
    let sentence = if is_dry { t.would_claim } else { t.claimed };
    let text = fill(sentence, &[&grouped(claimed), &size(found), &grouped(ownerless)]);
    html! {
        (components::notice(Tone::Ok, &text, None))
        (over_quota(visit, found))
        @if is_dry && claimed > 0 && visit.may("claim_videos") {
            form method="post" action=(visit.href(HERE)) {
                (super::once())
                (components::actions(components::button_named("act", "claim", t.claim, Kind::Main)))
            }
        }
    }
}

/// The members that are over their quota, as links.
fn over_quota(visit: &Visit, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let all: Vec<&str> = found["over_quota"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if all.is_empty() {
        return html! {};
    }
    let title = if found["dry_run"] == true { t.would_be_over } else { t.over_quota };
    html! {
        h2 { (title) }
        ul {
            @for id in all.iter().take(NAMED_MAX) {
                li { a href=(visit.href(&format!("/console/site/members/{id}/quota"))) { code { (id) } } }
            }
            @if all.len() > NAMED_MAX { li { (fill(t.and_more, &[&(all.len() - NAMED_MAX)])) } }
        }
    }
}
