//! Forms with files (`multipart/form-data`). They are read only for visitors who may perform the operation that takes the
//! file, and up to that operation's limit. A file is a slice of the body, so it is in memory once.

use poem::http::header;

use super::visit::Visit;
use crate::kernel::app::LargeBody;
use crate::kernel::error::{Error, ErrorCode, Result};
use crate::kernel::intake::{self, BodyPart, Limit};
use crate::kernel::sandbox::inspect;

/// The operations whose pages take files, and the bodies that they accept.
const FILES: [(&str, LargeBody); 3] = [
    ("upload_plugin", LargeBody::Component),
    ("import_catalog", LargeBody::Catalog),
    ("import_users", LargeBody::Users),
];

/// The most bytes of the other fields of a form with a file.
const FIELDS_BYTES_MAX: u64 = 64 * 1_024;
/// The most fields of a form with a file.
const PARTS_MAX: usize = 64;
/// The most bytes before the content of a field.
const HEAD_BYTES_MAX: usize = 4 * 1_024;

/// A file of a submitted form.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The name of the form's field.
    pub field: String,
    /// The name of the file on the visitor's machine.
    pub name: String,
    content: BodyPart,
}

impl Upload {
    pub fn bytes(&self) -> &[u8] {
        self.content.bytes()
    }

    /// The content, counted as in flight for as long as it is kept.
    pub(super) fn part(&self) -> &BodyPart {
        &self.content
    }
}

/// What was submitted.
#[derive(Default)]
pub(super) struct Read {
    pub form: Vec<(String, String)>,
    pub files: Vec<Upload>,
    /// The body was not read, because its file is too large; only for components and catalogs, whose pages show it.
    pub refused: Option<Error>,
}

/// Whether the form is sent as `multipart/form-data`.
pub(super) fn is_multipart(visit: &Visit) -> bool {
    content_type(visit).to_ascii_lowercase().starts_with("multipart/form-data")
}

fn content_type(visit: &Visit) -> &str {
    visit.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads the fields and files of the submitted form. The visitor is known and may see the page by now.
pub(super) async fn read(visit: &Visit) -> Result<Read> {
    let app = &visit.console.app;
    let mut operations = visit.page.needs.iter().chain(visit.page.uses);
    let found = operations.find_map(|id| FILES.iter().find(|(operation, _)| operation == id));
    let (operation, large) = *found.ok_or(ErrorCode::MediaType)?;
    let identity = visit.identity.as_ref().ok_or(ErrorCode::MediaType)?;
    let snapshot = app.snapshot();
    let bytes_max = match app.large_body_bytes_max(&snapshot, identity, large) {
        Ok(bytes_max) => bytes_max,
        Err(refused) => {
            app.log_failure(&refused, &visit.context);
            app.record_denial(&visit.context, operation, refused.code.as_str()).await?;
            return Err(refused);
        }
    };
    let boundary = boundary(content_type(visit)).ok_or_else(|| malformed("it names no boundary"))?;
    let limit = Limit::Large(bytes_max.saturating_add(FIELDS_BYTES_MAX));
    let party = visit.context.party(&snapshot);
    drop(snapshot);
    let mut read = Read::default();
    let body = match visit.context.body.read_part(limit, party).await {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(read),
        // The page tells what to do.
        Err(refused) if (refused.code, large) == (ErrorCode::TooLarge, LargeBody::Component) => {
            read.refused = Some(inspect::too_large(bytes_max));
            return Ok(read);
        }
        Err(refused) if (refused.code, large) == (ErrorCode::TooLarge, LargeBody::Catalog) => {
            read.refused = Some(intake::too_large(bytes_max));
            return Ok(read);
        }
        Err(refused) => return Err(refused),
    };
    let parts = body.intake().parse_long(body.bytes().len(), || parts(body.bytes(), &boundary)).await?;
    let mut bytes = 0;
    for Part { field, file, content } in parts {
        match file {
            // A file field without a chosen file.
            Some(name) if name.is_empty() && content.is_empty() => {}
            Some(name) => read.files.push(Upload { field, name, content: body.part(content) }),
            None => {
                bytes += content.len() as u64;
                if bytes > FIELDS_BYTES_MAX {
                    return Err(ErrorCode::TooLarge.into());
                }
                let text = std::str::from_utf8(content).map_err(|_| malformed("a field is not UTF-8"))?;
                read.form.push((field, text.to_owned()));
            }
        }
    }
    Ok(read)
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorCode::MalformedBody).with_message(format!("the form could not be read: {what}"))
}

/// A field of the form.
#[derive(Debug, PartialEq)]
struct Part<'b> {
    field: String,
    /// The name of the file, if it is one.
    file: Option<String>,
    content: &'b [u8],
}

/// The boundary that the content type names.
fn boundary(content_type: &str) -> Option<String> {
    let parameters = content_type.split(';').skip(1).map(str::trim);
    let value =
        parameters.filter_map(|one| one.split_once('=')).find(|(name, _)| name.eq_ignore_ascii_case("boundary"));
    let text = value?.1.trim_matches('"');
    let is_valid = (1..=70).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_valid.then(|| text.to_owned())
}

/// Splits the body at its boundaries.
fn parts<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<Part<'b>>> {
    let opening = format!("--{boundary}");
    let delimiter = format!("\r\n{opening}");
    let mut rest = body.strip_prefix(opening.as_bytes()).ok_or_else(|| malformed("its boundary is missing"))?;
    let mut found = Vec::new();
    while !rest.starts_with(b"--") {
        if found.len() >= PARTS_MAX {
            return Err(Error::new(ErrorCode::TooLarge).with_message("the form has too many fields"));
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(|| malformed("a field has no beginning"))?;
        let head_end = position(&rest[..rest.len().min(HEAD_BYTES_MAX)], b"\r\n\r\n");
        let head_end = head_end.ok_or_else(|| malformed("a field has no content"))?;
        let head = std::str::from_utf8(&rest[..head_end]).map_err(|_| malformed("a name is not UTF-8"))?;
        rest = &rest[head_end + 4..];
        // An empty content is followed by its delimiter at once.
        let end = position(rest, delimiter.as_bytes()).ok_or_else(|| malformed("it is incomplete"))?;
        let (field, file) = names(head).ok_or_else(|| malformed("a field has no name"))?;
        found.push(Part { field, file, content: &rest[..end] });
        rest = &rest[end + delimiter.len()..];
    }
    Ok(found)
}

/// Where `wanted`, which begins with a carriage return, first stands.
fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\r')?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The name of the field and of the file, of the headers of a part.
fn names(head: &str) -> Option<(String, Option<String>)> {
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let parameters = disposition.trim().strip_prefix("form-data")?;
    Some((parameter(parameters, "name")?, parameter(parameters, "filename")))
}

/// A quoted parameter. Browsers write quotes and line ends in it as `%22`, `%0D` and `%0A`.
fn parameter(mut parameters: &str, wanted: &str) -> Option<String> {
    loop {
        let (name, rest) = parameters.trim_start_matches([';', ' ']).split_once("=\"")?;
        let (value, rest) = rest.split_once('"')?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"));
        }
        parameters = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::{PARTS_MAX, Part, boundary, parts};
    use crate::kernel::error::ErrorCode;

    fn part<'b>(field: &str, file: Option<&str>, content: &'b [u8]) -> Part<'b> {
        Part { field: field.to_owned(), file: file.map(str::to_owned), content }
    }

    #[test]
    fn fields_and_files_are_read_as_browsers_send_them() {
        let body = b"--XX\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nhours\r\n--XX\r\n\
            content-disposition: form-data; name=\"component\"; filename=\"a%22; name=\xe5\x81\x9c.wasm\"\r\nContent-Type: application/wasm\r\n\r\n\
            \0asm\r\n--X\r\r\n-\r\n--XX\r\nContent-Disposition: form-data; name=\"none\"; filename=\"\"\r\n\r\n\r\n--XX--\r\n";
        let read = parts(body, "XX").expect("a form");
        assert_eq!(
            read,
            [
                part("name", None, b"hours"),
                part("component", Some("a\"; name=停.wasm"), b"\0asm\r\n--X\r\r\n-"),
                part("none", Some(""), b""),
            ]
        );
        assert_eq!(parts(b"--XX--", "XX").expect("an empty form"), []);
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            &b""[..],
            b"--X",
            b"--XX",
            b"--XX\r\n",
            b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n",
            b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--X",
            b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--XX",
            b"--XX\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\nb\r\n--XX--",
            b"--XX\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nb\r\n--XX--",
            b"--XX\r\nContent-Type: text/plain\r\n\r\nb\r\n--XX--",
            b"--XX\r\nContent-Disposition: form-data; name=\"\xff\"\r\n\r\nb\r\n--XX--",
        ] {
            let refused = parts(body, "XX").expect_err("not a form");
            assert_eq!(refused.code, ErrorCode::MalformedBody, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_number_of_fields_is_limited() {
        let field = "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n";
        let form = |count: usize| format!("{}--XX--", field.repeat(count));
        assert_eq!(parts(form(PARTS_MAX).as_bytes(), "XX").expect("at the limit").len(), PARTS_MAX);
        assert_eq!(parts(form(PARTS_MAX + 1).as_bytes(), "XX").expect_err("past it").code, ErrorCode::TooLarge);
    }

    #[test]
    fn the_boundary_is_named_by_the_content_type() {
        for (text, found) in [
            ("multipart/form-data; boundary=----WebKit7", Some("----WebKit7")),
            ("multipart/form-data; charset=utf-8; Boundary=\"a b\"", None),
            ("multipart/form-data; Boundary=\"ab\"", Some("ab")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
        ] {
            assert_eq!(boundary(text).as_deref(), found, "{text}");
        }
    }
}
