//! The text before the operations: how to call this API, and every failure.

use crate::kernel::error::ErrorCode;

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

All failures follow, by what they are about: the HTTP status, the word of `detail`, and what `message` says. The search of
this page finds them by either.
";

/// What failures are about, by the scope of their number. The page lists and searches headings, so that each failure is one.
const TOPICS: [(u32, &str); 9] = [
    (10, "Failures of any request"),
    (0, "Failures in any area"),
    (28, "Failures of sign-in"),
    (29, "Failures of members and organizations"),
    (31, "Failures of permissions"),
    (32, "Failures of API clients and keys"),
    (33, "Failures of videos and jobs"),
    (34, "Failures of plugins"),
    (35, "Failures of webhooks and deliveries"),
];

/// The introduction, after the site's own words.
pub(super) fn text(own: &str) -> String {
    let mut text = own.to_owned();
    text.push_str(INTRODUCTION.trim_start_matches('\n'));
    for (scope, topic) in TOPICS {
        text.push_str(&format!("\n# {topic}\n"));
        for cause in ErrorCode::ALL.iter().filter(|cause| cause.scope() == scope) {
            // Without backticks: the page takes the first plain text of a heading as its name.
            text.push_str(&format!("\n### {} {}\n\n{}\n", cause.status(), cause.as_str(), cause.message()));
        }
    }
    text
}
