//! The operation that imports users with quotas and external names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use poem_openapi::param::Query;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object, OpenApi};
use serde_json::Value;

use super::require_site;
use crate::features::members::require_may_touch;
use crate::features::provisioning::import::{self, COLUMNS, Plan, Row, RowFault, RowOutcome};
use crate::features::provisioning::{self, spreadsheet};
use crate::features::quotas::QuotaSettings;
use crate::kernel::app::tasks::{BUSY_PAUSES, Progress, TaskKind};
use crate::kernel::app::{App, Changed, LargeBody, Transaction};
use crate::kernel::authn::caller::AdminCaller;
use crate::kernel::authz::deferred_grant::Grantor;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::body::require_media_type;
use crate::kernel::http::{Tag, TaskReply, request_validator};
use crate::kernel::ids::MemberId;

/// One user to import; absent fields stay unchanged, or get their default for a new user
#[derive(Object)]
struct ImportUser {
    /// Identifies the member
    username: String,
    /// Required for a new member
    email: Option<String>,
    display_name: Option<String>,
    /// The number of the WordPress account
    wordpress_id: Option<i64>,
    /// In bytes
    quota_size: Option<i64>,
    /// The username when absent; never changed
    sftpgo_username: Option<String>,
    /// The organization that the user joins
    org_code: Option<String>,
}

/// Users to import; in `text/csv` the first line has the field names
#[derive(Object)]
struct ImportUsers {
    users: Vec<ImportUser>,
}

/// A row that created or changed a user
#[derive(Object)]
struct ImportedRow {
    /// Counted from 1, without a header
    row: u64,
    /// At most 200 characters of it
    username: String,
    /// Null for a new user in a dry run
    #[oai(nullable)]
    id: Option<MemberId>,
    /// The fields that differ
    fields: Vec<String>,
}

/// An error of a row
#[derive(Object)]
#[oai(rename = "RowFault")]
struct RowError {
    /// The column
    field: String,
    message: String,
}

/// A row that was not applied
#[derive(Object)]
struct FailedRow {
    /// Counted from 1, without a header
    row: u64,
    /// The line of the file on which it starts; null for JSON
    #[oai(nullable)]
    line: Option<u64>,
    /// At most 200 characters of it; null if the row has none, or was too long to be read
    #[oai(nullable)]
    username: Option<String>,
    fields: Vec<RowError>,
}

/// The result of an import or its dry run
#[derive(Object, Default)]
struct ImportDifference {
    dry_run: bool,
    /// The rows that were looked at
    rows: u64,
    /// The rows after the one at which the import was cancelled or failed
    not_attempted: u64,
    created: Vec<ImportedRow>,
    changed: Vec<ImportedRow>,
    unchanged: u64,
    /// Rows that were not applied; they do not stop the others
    failed: Vec<FailedRow>,
    /// The failed rows as CSV, to be corrected and imported again; null without any, if they are longer than 256 KiB, or if
    /// one of them was too long to be read
    #[oai(nullable)]
    failed_csv: Option<String>,
}
crate::document! {
    "ImportUsers": r#"{"users":[{"username":"kim","email":"kim@example.org","wordpress_id":17,"quota_size":10737418240,"org_code":"acme"}]}"#;
}

pub struct Api {
    pub app: Arc<App>,
}

#[OpenApi(prefix_path = "/admin/users/import", tag = "Tag::Members")]
impl Api {
    /// Import users
    ///
    /// From CSV or JSON. Each row is applied completely or not at all, and a failing row does not stop the others;
    /// repeating a completed import changes nothing. A member is found by its username if the site assigned it, or if
    /// the row also has the member's WordPress number or SFTPGo username; a row with a username that somebody else
    /// chose fails. New members get no password and no API key here.
    ///
    /// If the caller loses the permission or the credential meanwhile, or the server fails, the import stops with that
    /// error. Its message says how many rows were written before, and a task has their result; import the file again for
    /// the rest.
    #[oai(path = "/", method = "post", operation_id = "import_users")]
    async fn import_users(
        &self,
        caller: AdminCaller,
        /// Reports what would happen without changing anything
        dry_run: Query<Option<bool>>,
        /// Send each new member a mail with a one-time link
        welcome: Query<Option<bool>>,
        /// Answers 202 with a task as soon as the request is checked, and does the work in the background
        background: Query<Option<bool>>,
        file: UsersFile,
    ) -> TaskReply<ImportDifference> {
        let bytes = self.app.read_large_body(&caller, LargeBody::Users).await?.clone();
        let (dry_run, welcome) = (dry_run.0.unwrap_or(false), welcome.0.unwrap_or(false));
        let rows_max = self.app.config.import_rows_max;
        let read = move || file.rows(&bytes, rows_max);
        let rows = tokio::task::spawn_blocking(read).await.map_err(|e| Error::internal(e.to_string()))??;
        let (api, caller) = (Self { app: self.app.clone() }, caller.0);
        let by = caller.clone();
        let work = move |progress| async move { api.import(&by, rows, (dry_run, welcome), &progress).await };
        Ok(self.app.perform(&caller, IMPORT, background.0 == Some(true), work).await?)
    }
}

const IMPORT: TaskKind = TaskKind { operation: "import_users", steps: &["rows"] };

impl Api {
    /// Imports the rows. If it is cancelled, the result has only the rows that were looked at.
    async fn import(
        &self,
        caller: &Identity,
        rows: Vec<Row>,
        (dry_run, welcome): (bool, bool),
        progress: &Progress,
    ) -> Result<ImportDifference> {
        /// Concurrent changes share commits.
        const AT_ONCE: usize = 64;
        progress.step(IMPORT.steps[0]);
        progress.of(rows.len() as u64);
        let planned = progress.unless_cancelled(self.plan_rows(rows)).await?;
        if dry_run {
            progress.advance(planned.len() as u64);
            return Ok(difference(true, planned.into_iter().map(|(row, plan)| (row, predicted(plan)))));
        }
        let total = planned.len() as u64;
        let is_stopped = AtomicBool::new(false);
        let goes_on = |_: &(Row, Plan)| !is_stopped.load(Ordering::Relaxed) && !progress.is_cancelled();
        let next = planned.into_iter().take_while(goes_on);
        let write = |(row, plan)| self.write(caller, (row, plan), welcome, progress);
        let mut writes = stream::iter(next).map(write).buffered(AT_ONCE);
        let (mut written, mut error): (Vec<(Row, RowOutcome)>, Option<Error>) = (Vec::new(), None);
        // After an error no other row begins, but those that wait for the writer are waited for: they may be committed.
        while let Some(attempt) = writes.next().await {
            match attempt {
                Ok(row) => {
                    progress.advance(1);
                    written.push(row);
                }
                Err(stopped) => {
                    is_stopped.store(true, Ordering::Relaxed);
                    error = error.or(Some(stopped).filter(|stopped| stopped.code != ErrorCode::TaskCancelled));
                }
            }
        }
        drop(writes);
        let mut found = difference(false, written.into_iter());
        found.not_attempted = total.saturating_sub(found.rows);
        match error {
            Some(error) => Err(self.stopped(caller, error, found, progress).await),
            None => Ok(found),
        }
    }

    /// The error that stopped the import, which tells what was done before. A task keeps that as its result.
    async fn stopped(&self, caller: &Identity, error: Error, found: ImportDifference, progress: &Progress) -> Error {
        self.app.record_lost_credential(&caller.context, IMPORT.operation, &error).await;
        let written = found.created.len() + found.changed.len();
        if written == 0 {
            return error;
        }
        let total = found.rows + found.not_attempted;
        let message = format!("{} ({written} of {total} rows were written before)", error.message());
        progress.fail(error.with_message(message), &found)
    }

    /// Plans all rows against the present state.
    async fn plan_rows(&self, rows: Vec<Row>) -> Result<Vec<(Row, Plan)>> {
        let (snapshot, rules) = (self.app.snapshot(), QuotaSettings::from_config(&self.app.config));
        self.app
            .read(move |r| {
                let mut repeated = import::find_duplicates(&rows);
                rows.into_iter()
                    .map(|row| {
                        let plan = match repeated.remove(&row.number) {
                            Some(faults) => Plan::Failed(faults),
                            None => import::plan(r, &snapshot, &rules, &row)?,
                        };
                        Ok((row, plan))
                    })
                    .collect()
            })
            .await
    }

    /// Applies a row after planning it again. Fails with what stops the whole import: an ended credential, a lost
    /// permission, an internal error.
    async fn write(
        &self,
        caller: &Identity,
        (row, plan): (Row, Plan),
        welcome: bool,
        progress: &Progress,
    ) -> Result<(Row, RowOutcome)> {
        if !matches!(plan, Plan::Create(_) | Plan::Change(..)) {
            return Ok((row, predicted(plan)));
        }
        // Whether the caller can still import, whatever becomes of this row.
        let may_import = Arc::new(AtomicBool::new(false));
        let attempt = || {
            let write = self.writing(row.clone(), welcome, may_import.clone());
            self.app.change(caller, "user.import", write)
        };
        let refused = match progress.repeat_while_busy(&BUSY_PAUSES, attempt).await {
            Ok(done) => return Ok((row, done.answer)),
            Err(refused) => refused,
        };
        let is_denial = refused.is_denial();
        let stops = refused.code == ErrorCode::TaskCancelled
            || refused.code.status() == 401
            || refused.code.status() >= 500
            || (is_denial && !may_import.load(Ordering::Relaxed));
        if stops {
            return Err(refused);
        }
        // The row is about somebody whom this caller cannot change: the others are not.
        if is_denial {
            self.app.record_denial(&caller.context, IMPORT.operation, refused.code.as_str()).await?;
        }
        let faults = match refused.fields.is_empty() {
            true => vec![Field::body("row", refused.message())],
            false => refused.fields,
        };
        Ok((row, RowOutcome::Failed(faults)))
    }

    /// The change that applies a row. It sets `may_import` once it knows that the caller can import.
    fn writing(
        &self,
        row: Row,
        welcome: bool,
        may_import: Arc<AtomicBool>,
    ) -> impl FnOnce(&Transaction<'_>, &Identity) -> Result<Changed<RowOutcome>> + Send + use<> {
        let (rules, members_max) = (QuotaSettings::from_config(&self.app.config), self.app.config.members_max);
        move |t: &Transaction<'_>, caller: &Identity| {
            let reach = require_site(t, caller, Permission::USER_IMPORT, false)?;
            may_import.store(true, Ordering::Relaxed);
            match import::plan(t, t.snapshot(), &rules, &row)? {
                Plan::Create(mut new) => {
                    require_site(t, caller, Permission::USER_IMPORT, new.quota_size.is_some())?;
                    new.welcome = welcome.then(|| Grantor::from_caller(caller));
                    let created = provisioning::create_user(t, &rules, &new, members_max)?;
                    Ok(created.map(|id| RowOutcome::Created(Some(id))))
                }
                Plan::Change(user, edit, fields) => {
                    require_site(t, caller, Permission::USER_IMPORT, fields.contains(&"quota_size"))?;
                    let id = user.member.id;
                    require_may_touch(t, caller, reach, id, provisioning::touch_of(&fields))?;
                    let changed = provisioning::update_user(t, &rules, reach, &user, &edit)?;
                    Ok(changed.map(|fields| RowOutcome::Changed(id, fields)))
                }
                other => Ok(Changed::unchanged(predicted(other))),
            }
        }
    }
}

fn predicted(plan: Plan) -> RowOutcome {
    match plan {
        Plan::Create(_) => RowOutcome::Created(None),
        Plan::Change(user, _, fields) => RowOutcome::Changed(user.member.id, fields),
        Plan::Unchanged => RowOutcome::Unchanged,
        Plan::Failed(faults) => RowOutcome::Failed(faults),
    }
}

fn difference(dry_run: bool, rows: impl Iterator<Item = (Row, RowOutcome)>) -> ImportDifference {
    let mut found = ImportDifference { dry_run, ..ImportDifference::default() };
    let mut failed = Vec::new();
    for (row, outcome) in rows {
        found.rows += 1;
        let (number, line, username) = (row.number as u64, row.line, row.username().map(import::cut));
        let imported = |id: Option<MemberId>, fields: Vec<&str>| ImportedRow {
            row: number,
            username: username.clone().unwrap_or_default(),
            id,
            fields: fields.into_iter().map(str::to_owned).collect(),
        };
        match outcome {
            RowOutcome::Created(id) => found.created.push(imported(id, Vec::new())),
            RowOutcome::Changed(id, fields) => found.changed.push(imported(Some(id), fields)),
            RowOutcome::Unchanged => found.unchanged += 1,
            RowOutcome::Failed(faults) => {
                let fault = |fault: Field| RowError { field: fault.name().to_owned(), message: fault.message };
                let fields = faults.into_iter().map(fault).collect();
                found.failed.push(FailedRow { row: number, line, username: username.clone(), fields });
                failed.push(row);
            }
        }
    }
    found.failed_csv = spreadsheet::write_csv(&failed);
    found
}

/// The file of an import.
pub enum UsersFile {
    Json,
    /// With the encoding from `charset`, if any.
    Csv(Option<&'static encoding_rs::Encoding>),
}

impl UsersFile {
    fn rows(&self, bytes: &[u8], rows_max: u64) -> Result<Vec<Row>> {
        if let Self::Csv(encoding) = self {
            return spreadsheet::read_csv(bytes, *encoding, rows_max);
        }
        let value = request_validator::parse(bytes)?;
        let message = "must be an array of users";
        let users = value.get("users").and_then(Value::as_array).ok_or_else(|| Error::field("users", message))?;
        spreadsheet::require_rows(users.len(), rows_max)?;
        let mut faults = Vec::new();
        let mut rows = Vec::new();
        for (n, user) in users.iter().enumerate() {
            rows.push(row_of(n + 1, user, &mut faults));
            if faults.len() >= FAULTS_MAX {
                break;
            }
        }
        if faults.is_empty() { Ok(rows) } else { Err(Error::fields(faults)) }
    }
}

/// The maximum number of errors listed for one file.
const FAULTS_MAX: usize = 100;

fn row_of(number: usize, user: &Value, faults: &mut Vec<Field>) -> Row {
    let index = (number - 1).to_string();
    let mut fault = |field: &str, message: String| {
        if faults.len() < FAULTS_MAX {
            faults.push(Field::at(&["body", "users", &index, field], message));
        }
    };
    let Some(user) = user.as_object() else {
        fault("", "must be an object".into());
        return Row::default();
    };
    let mut cells = Vec::new();
    for (name, value) in user {
        let Some(column) = COLUMNS.iter().find(|column| *column == name) else {
            fault(&import::cut(name), format!("is not a field: they are {}", COLUMNS.join(", ")));
            continue;
        };
        match value {
            Value::Null => {}
            Value::String(text) => cells.push((*column, Some(text.clone()))),
            Value::Number(number) => cells.push((*column, Some(number.to_string()))),
            _ => fault(column, "must be text or a number".into()),
        }
    }
    let is_long = |value: &Value| value.as_str().is_some_and(|text| text.len() > spreadsheet::CELL_BYTES_MAX);
    if user.values().any(is_long) { Row::dropped(number, RowFault::LongCell) } else { Row::of(number, cells) }
}

impl<'a> ApiExtractor<'a> for UsersFile {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut poem_openapi::registry::Registry) {
        <ImportUsers as poem_openapi::types::Type>::register(registry);
    }

    fn request_meta() -> Option<poem_openapi::registry::MetaRequest> {
        let media = |content_type, schema| poem_openapi::registry::MetaMediaType { content_type, schema };
        Some(poem_openapi::registry::MetaRequest {
            description: Some(
                "Members as JSON, or as CSV with the names of the fields in the first line. Commas, semicolons, tabs or `|` \
                 separate cells; the text is UTF-8, what its byte order mark says, or what `charset` says (`text/csv; \
                 charset=big5`). `quota_size` may have a unit there: `10GB` (10^9 bytes each), `10GiB` (2^30)",
            ),
            content: vec![
                media("application/json", <ImportUsers as poem_openapi::types::Type>::schema_ref()),
                media("text/csv", <String as poem_openapi::types::Type>::schema_ref()),
            ],
            required: true,
        })
    }

    async fn from_request(
        request: &'a poem::Request,
        _: &mut poem::RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        const MESSAGE: &str = "send the members as text/csv or application/json";
        require_media_type(request, &["text/csv", "application/json"], MESSAGE)?;
        if require_media_type(request, &["text/csv"], MESSAGE).is_err() {
            return Ok(Self::Json);
        }
        let parameters = request.content_type().unwrap_or_default().split(';').skip(1);
        let charset = parameters
            .filter_map(|one| one.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
        let encoding = charset.map(|(_, name)| spreadsheet::encoding(name.trim().trim_matches('"'))).transpose()?;
        Ok(Self::Csv(encoding))
    }
}
