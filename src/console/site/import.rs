//! Imports: members from a spreadsheet, and the videos below the media root. A file is checked first; what was refused is
//! shown with its reason, and as rows to correct and send again.

mod results;
mod videos;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use maud::{Markup, html};
use poem::Response;
use poem::http::header;
use serde_json::Value;

pub use self::results::task_result;
use crate::console::client::{Call, op};
use crate::console::components::{self, Area, Field, Kind, Select, Tone};
use crate::console::form::ONCE;
use crate::console::i18n::{errors, fields, fill, words};
use crate::console::list::grouped;
use crate::console::multipart::Upload;
use crate::console::visit::{Content, View, Visit, is_of_form};
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::units::shown_bytes;

words! {
    Words {
        title: "Import", "匯入";
        members: "Members from a spreadsheet", "從試算表匯入成員";
        about: "A CSV file with a row for each member. The first line names the columns: username, and any of email, display_name, org_code, quota_size, wordpress_id, sftpgo_username. Empty cells change nothing, and a new member needs an email.", "CSV 檔案，每列一位成員。第一行是欄位名稱：必須有 username，可加上 email、display_name、org_code、quota_size、wordpress_id、sftpgo_username。空白的儲存格不會變更資料；新成員必須有 email。";
        limits: "At most {} rows and {} in one file. Each row is imported completely or not at all; importing again what is done changes nothing.", "一個檔案最多 {} 列、{}。每一列完整匯入或完全不匯入；重複匯入已完成的內容不會有任何變更。";
        template: "Download a template", "下載範本";
        file: "File", "檔案";
        encoding: "Encoding", "編碼";
        encoding_hint: "Only for a file without a mark of its own; umlauts or Chinese names look broken if it is wrong.", "只用於沒有標記編碼的檔案；選錯時中文姓名會變成亂碼。";
        welcome: "Send each new member a mail with a link to choose a password", "寄送設定密碼的連結給每位新成員";
        check: "Check first", "先檢查";
        import_at_once: "Import at once", "直接匯入";
        paste: "Paste rows instead", "改為貼上內容";
        rows: "Rows", "內容";
        choose: "Choose a file, or paste rows.", "請選擇檔案，或貼上內容。";
        checked: "What the import would do", "匯入後的結果";
        checked_text: "Rows: {}. New members: {}, changed: {}, as they are: {}, refused: {}. Nothing was written yet.", "共 {} 列：{} 位新成員、{} 位變更、{} 位不變、{} 列有誤。尚未寫入任何資料。";
        all_refused: "No row can be imported. Correct them below and check again.", "沒有可匯入的列。請在下方修正後再檢查一次。";
        import_n: "Import the rows that are right ({})", "匯入正確的列（{}）";
        check_again: "Check again", "再檢查一次";
        correct: "Correct the rows here, or import those that are right.", "可以在此修正，或先匯入正確的列。";
        choose_again: "The file is too long to keep on this page: choose it again to import it.", "檔案太大，無法保留在本頁：請再選擇一次後匯入。";
        other_file: "Another file", "其他檔案";
        videos: "Videos", "影片";
    }
}

const HERE: &str = "/console/site/import";
const OPERATION: &str = "import_users";
/// The most bytes of a file that the page keeps for its import.
const KEPT_BYTES_MAX: usize = 262_144;

const TEMPLATE: &str = "username,email,display_name,org_code,quota_size\nkim,kim@example.org,Kim Lee,,20GB\n";

/// The encodings to choose from, each with the media type that names it.
const ENCODINGS: [(&str, &str, &str); 7] = [
    ("utf-8", "UTF-8", "text/csv; charset=utf-8"),
    ("big5", "Big5", "text/csv; charset=big5"),
    ("gb18030", "GBK, GB 18030", "text/csv; charset=gb18030"),
    ("shift_jis", "Shift JIS", "text/csv; charset=shift_jis"),
    ("euc-kr", "EUC-KR", "text/csv; charset=euc-kr"),
    ("windows-1252", "Windows-1252", "text/csv; charset=windows-1252"),
    ("utf-16le", "UTF-16", "text/csv; charset=utf-16le"),
];

/// What the page shows above its forms.
enum Above<'e> {
    Nothing,
    /// Why the form was refused.
    Refused(&'e Error),
    /// What became of the form.
    Result(Markup),
}

/// Shows the forms, or answers with the template.
pub async fn show(visit: &Visit) -> Result<View> {
    if visit.query("template").is_none() {
        return Ok(page(visit, &Above::Nothing).into());
    }
    let response = Response::builder()
        .content_type("text/csv; charset=utf-8")
        .header(header::CONTENT_DISPOSITION, "attachment; filename=\"members.csv\"")
        .header(header::CACHE_CONTROL, "no-store")
        .body(TEMPLATE);
    Ok(View::Response(Box::new(response)))
}

fn page(visit: &Visit, above: &Above<'_>) -> Content {
    let t = Words::of(visit.language);
    let config = visit.config();
    let limits = fill(t.limits, &[&grouped(config.import_rows_max), &shown_bytes(to_i64(config.import_bytes_max))]);
    let is_result = matches!(above, Above::Result(_));
    let template = format!("{}?template=1", visit.here());
    let members = html! {
        p { (t.about) }
        p class="hint" { (limits) " " a href=(template) download { (t.template) } }
        (file_form(visit))
        details open[visit.submitted("text").is_some() && !is_result] {
            summary { (t.paste) }
            (text_form(visit, visit.submitted("text").filter(|_| !is_result).unwrap_or_default()))
        }
    };
    let body = html! {
        @match above {
            Above::Nothing => {},
            Above::Refused(error) => (refused(visit, error)),
            Above::Result(result) => (result),
        }
        (components::card(if is_result { t.other_file } else { t.members }, members))
        @if visit.may("import_videos") || visit.may("claim_videos") {
            (components::card(t.videos, videos::forms(visit)))
        }
    };
    let content = Content::new(t.title, body);
    match above {
        Above::Refused(error) => content.status_of(error),
        _ => content,
    }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Why a file cannot be read, with all faults of its header.
fn refused(visit: &Visit, error: &Error) -> Markup {
    let sentence = |field: &crate::kernel::error::Field| {
        let message = errors::field_message(&field.message, visit.language);
        match field.name() {
            "body" | "text" | "document" => message,
            column => format!("{}: {message}", fields::label(column, visit.language)),
        }
    };
    html! {
        @if error.fields.is_empty() {
            (components::notice(Tone::Bad, &errors::sentence(error, visit.language), None))
        } @else {
            (components::faults_summary(
                visit.frame().faults_title,
                &error.fields.iter().map(|field| (String::new(), sentence(field))).collect::<Vec<_>>(),
            ))
        }
        (crate::console::layout::details(visit, error))
    }
}

fn file_form(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    let about = Field::new("document", t.file);
    let options: Vec<(&str, &str)> = ENCODINGS.iter().map(|(value, text, _)| (*value, *text)).collect();
    let encoding = Field::new("encoding", t.encoding).hint(t.encoding_hint);
    let chosen = visit.submitted("encoding").unwrap_or("utf-8");
    let select = Select { name: "encoding", options: &options, chosen, is_required: true };
    html! {
        form method="post" action=(visit.here()) enctype="multipart/form-data" data-drop {
            (components::field(&about, components::file_input(&about, "document", ".csv,.tsv,.txt,text/csv", true)))
            (components::field(&encoding, components::select_input(&encoding, &select)))
            (welcome(visit, "welcome"))
            (buttons(visit))
            // After the buttons, so that it counts only for a dropped file, which no button sends.
            (components::hidden_input("act", "check"))
        }
    }
}

fn text_form(visit: &Visit, text: &str) -> Markup {
    let t = Words::of(visit.language);
    let about = Field::new("text", t.rows);
    let area = Area {
        name: "text",
        value: text,
        rows: 8,
        is_required: true,
        placeholder: Some(TEMPLATE),
        is_code: true,
        ..Area::default()
    };
    html! {
        form method="post" action=(visit.here()) data-guard {
            (components::field(&about, components::textarea_input(&about, &area)))
            (welcome(visit, "welcome-rows"))
            (buttons(visit))
        }
    }
}

/// The choice of a welcome mail, if the site can send mail.
fn welcome(visit: &Visit, id: &str) -> Markup {
    let t = Words::of(visit.language);
    let is_on = visit.submitted("welcome").is_some();
    html! {
        @if !visit.config().mail_host.is_empty() {
            (components::checkbox(&Field::new(id, t.welcome), "welcome", "true", is_on))
        }
    }
}

fn buttons(visit: &Visit) -> Markup {
    let t = Words::of(visit.language);
    components::actions(html! {
        (once())
        (components::button_named("act", "check", t.check, Kind::Main))
        (components::button_named("act", "import", t.import_at_once, Kind::Plain))
    })
}

/// The key of a form, so that sending it twice starts one import.
fn once() -> Markup {
    components::hidden_input(ONCE, &uuid::Uuid::now_v7().to_string())
}

/// Performs what the submitted button says.
pub async fn act(visit: &Visit) -> Result<View> {
    match visit.submitted("act") {
        Some("check") => check(visit).await,
        Some("import") => import(visit).await,
        Some("videos_check" | "videos" | "claim_check" | "claim") => videos::act(visit).await,
        _ => Err(ErrorCode::BadInput.into()),
    }
}

/// The rows that were sent.
enum Source<'v> {
    File(&'v Upload, &'static str),
    Text(&'v str),
    /// A file in another encoding that the page kept.
    Kept(Vec<u8>, &'static str),
}

impl<'v> Source<'v> {
    fn of(visit: &'v Visit) -> Result<Self> {
        let encoding = visit.submitted("encoding").unwrap_or("utf-8");
        let media = ENCODINGS.iter().find(|(value, ..)| *value == encoding).map(|(.., media)| *media);
        let media = media.ok_or(ErrorCode::BadInput)?;
        if let Some(file) = visit.file("document") {
            return Ok(Self::File(file, media));
        }
        if let Some(kept) = visit.submitted("kept") {
            let bytes = URL_SAFE_NO_PAD.decode(kept).map_err(|_| Error::from(ErrorCode::BadInput))?;
            return Ok(Self::Kept(bytes, media));
        }
        match visit.submitted("text") {
            Some(text) => Ok(Self::Text(text)),
            None => Err(Error::field("document", Words::of(visit.language).choose)),
        }
    }

    /// The call with the rows as its body.
    fn call(&self) -> Call {
        match self {
            Self::File(file, media) => op(OPERATION).file(media, file),
            Self::Text(text) => op(OPERATION).bytes(ENCODINGS[0].2, text.as_bytes().to_vec()),
            Self::Kept(bytes, media) => op(OPERATION).bytes(media, bytes.clone()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::File(file, _) => file.bytes(),
            Self::Text(text) => text.as_bytes(),
            Self::Kept(bytes, _) => bytes,
        }
    }

    /// The text, if it is in the encoding of the page.
    fn text(&self) -> Option<&str> {
        let is_utf_8 = match self {
            Self::Text(_) => true,
            Self::File(_, media) | Self::Kept(_, media) => *media == ENCODINGS[0].2,
        };
        let text = std::str::from_utf8(self.bytes()).ok().filter(|text| is_utf_8 && !text.contains('\0'))?;
        Some(text.strip_prefix('\u{feff}').unwrap_or(text))
    }
}

/// Shows what the import would do.
async fn check(visit: &Visit) -> Result<View> {
    let checked = match Source::of(visit) {
        Ok(source) => visit.call(source.call().query("dry_run", true)).await.map(|answer| (source, answer.data)),
        Err(error) => Err(error),
    };
    match checked {
        Ok((source, found)) => Ok(page(visit, &Above::Result(checked_result(visit, &source, &found))).into()),
        Err(error) if is_of_form(&error) => Ok(page(visit, &Above::Refused(&error)).into()),
        Err(error) => Err(error),
    }
}

/// The answer of a dry run, with the rows to correct, and the button that imports them.
fn checked_result(visit: &Visit, source: &Source<'_>, found: &Value) -> Markup {
    let t = Words::of(visit.language);
    let counts = results::Counts::of(found);
    let n = |number: u64| grouped(number);
    let text = fill(
        t.checked_text,
        &[&n(counts.rows), &n(counts.created), &n(counts.changed), &n(counts.unchanged), &n(counts.failed)],
    );
    let right = counts.rows - counts.failed.min(counts.rows);
    let tone = if counts.failed == 0 { Tone::Ok } else { Tone::Warn };
    let (kept, is_kept) = kept(visit, source, counts.failed > 0);
    let body = html! {
        (components::notice(tone, &text, None))
        (results::failed_table(visit, found))
        (results::changed_table(visit, found))
        @if is_kept {
            form method="post" action=(visit.here()) {
                (kept)
                (once())
                @if visit.submitted("welcome").is_some() { (components::hidden_input("welcome", "true")) }
                @if right == 0 { p { (t.all_refused) } }
                (components::actions(html! {
                    @if right > 0 {
                        (components::button_named("act", "import", &fill(t.import_n, &[&n(right)]), Kind::Main))
                    }
                    @if counts.failed > 0 {
                        (components::button_named("act", "check", t.check_again, Kind::Plain))
                    }
                }))
            }
        } @else { p { (t.choose_again) } }
    };
    components::card(t.checked, body)
}

/// The fields that hold the rows until they are imported, and whether they can.
fn kept(visit: &Visit, source: &Source<'_>, is_editable: bool) -> (Markup, bool) {
    let t = Words::of(visit.language);
    let bytes = source.bytes();
    // In a form each byte other than letters and digits becomes three.
    let form_bytes_max = visit.config().body_bytes_max.saturating_sub(8_192);
    let sent: u64 = bytes.iter().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum();
    let fits = bytes.len() <= KEPT_BYTES_MAX && sent <= form_bytes_max;
    let about = Field::new("kept-text", t.rows).hint(t.correct);
    match source.text() {
        _ if !fits => (html! {}, false),
        Some(text) if is_editable => {
            let area = Area { name: "text", value: text, rows: 12, is_code: true, ..Area::default() };
            (components::field(&about, components::textarea_input(&about, &area)), true)
        }
        Some(text) => (components::hidden_input("text", text), true),
        None => {
            let encoding = visit.submitted("encoding").unwrap_or("utf-8");
            let inner = html! {
                (components::hidden_input("kept", &URL_SAFE_NO_PAD.encode(bytes)))
                (components::hidden_input("encoding", encoding))
            };
            (inner, true)
        }
    }
}

/// Starts the import, and leads to its progress.
async fn import(visit: &Visit) -> Result<View> {
    let started = match Source::of(visit) {
        Ok(source) => {
            let call = source.call().query("background", true).once(visit.submitted(ONCE));
            visit.call(call.query_some("welcome", visit.submitted("welcome"))).await
        }
        Err(error) => Err(error),
    };
    match started {
        Ok(task) => Ok(to_task(&task.data)),
        Err(error) if is_of_form(&error) => Ok(page(visit, &Above::Refused(&error)).into()),
        Err(error) => Err(error),
    }
}

/// The page of a task.
fn to_task(task: &Value) -> View {
    View::Redirect(format!("/console/me/tasks/{}", task["id"].as_str().unwrap_or_default()), None)
}
