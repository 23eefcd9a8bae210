//! The text before the operations: how to call this API, and every failure.

use crate::kernel::error::Cause;

const INTRODUCTION: &str = "
# Calling

All paths lie below the address of the server shown here; `/auth`, `/me`, `/admin` and `/internal` answer at the root too.
Bodies are JSON in UTF-8. Times are Unix milliseconds, sizes are bytes, ids are UUIDs. Fields and query parameters that an
operation does not have are refused.

Who calls is said by one of these; each operation lists which it takes:

| Credential | Who calls |
| --- | --- |
| `Authorization: Bearer …` | a member, with the access token of `POST /auth/login` or of another sign-in |
| a session cookie | the same member in a browser; sign in with `\"cookies\": true` |
| `X-Client-Key` and `X-API-Key` | a program, within the scopes of its API client |
| `X-API-Key: muser_…` | a member or a service, within what its API key may do |
| `X-Internal-Secret` | another service of this site |

A member of several organizations names one with `X-Tenant-ID`, by its id or its code.

# Answers

A success is `{\"code\": 102000, \"message\": \"ok\", \"data\": …}`. Lists take `limit`, and answer `items` and `total`.

A failure is `{\"code\": …, \"message\": …, \"detail\": …, \"request_id\": …}`. `detail` is a stable word for programs, `message` says
what to do next, `fields` lists all bad fields of the request at once, and the log of the server has more under the
`request_id`. The number in `code` is scope × 1 000 000 + category × 1 000 + detail, where the category fixes the HTTP status.

Edits take `If-Match` with the `ETag` that was read, and are refused with 412 when somebody else was faster. Requests that
create something take an `Idempotency-Key`: sent again with the same key, they happen once.

# Failures

| `detail` | HTTP | What it says |
| --- | --- | --- |
";

/// The introduction, after the site's own words.
pub(super) fn text(own: &str) -> String {
    let mut text = own.to_owned();
    text.push_str(INTRODUCTION.trim_start_matches('\n'));
    for cause in Cause::ALL {
        let row = format!("| `{}` | {} | {} |\n", cause.word(), cause.status(), cause.message());
        text.push_str(&row);
    }
    text
}
