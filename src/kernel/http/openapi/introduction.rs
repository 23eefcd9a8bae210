//! The introduction of the OpenAPI document: how to call this API, and every failure.

use crate::kernel::error::ErrorCode;

const INTRODUCTION: &str = "
# Calling

All paths are relative to the server address shown here; `/auth`, `/me`, `/admin` and `/internal` are also served at the
root. Bodies are JSON in UTF-8. Times are Unix milliseconds, sizes are bytes, ids are UUIDs. Unknown fields and query
parameters are refused.

The caller authenticates with one of these credentials; each operation lists the ones that it accepts:

| Credential | Caller |
| --- | --- |
| `Authorization: Bearer …` | a member, with the access token of `POST /auth/login` or of another sign-in |
| a session cookie | the same member in a browser; sign in with `\"cookies\": true` |
| `X-Client-Key` and `X-API-Key` | a program, limited to the scopes of its API client |
| `X-API-Key: muser_…` | a member or a service, limited to the scopes of its API key |
| `X-Internal-Secret` | another service of this site |

A member of several organizations selects one with `X-Tenant-ID`, by its id or its code.

# Responses

A success is `{\"code\": 102000, \"message\": \"ok\", \"data\": …}`. Lists take `limit`, and return `items` and `total`.

A failure is `{\"code\": …, \"message\": …, \"detail\": …, \"request_id\": …}`. `detail` is a stable identifier for programs, `message`
says what to do next, `fields` lists all invalid fields of the request, and the log of the server has more under the
`request_id`. `code` is scope × 1 000 000 + category × 1 000 + detail, and the category determines the HTTP status.

Updates take `If-Match` with the `ETag` that was read, and fail with 412 if the resource has changed since. Requests that
create a resource take an `Idempotency-Key`: a request that is repeated with the same key is executed once.

# Failures

All failures by topic, with their HTTP status, `detail` and `message`. The search of this page finds them by `detail` and
by `message`.
";

/// The topics of failures, by the scope of their code. Each failure is a heading, because the page lists and searches
/// headings.
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

/// The introduction, after the description that the site has configured.
pub(super) fn text(own: &str) -> String {
    let mut text = own.to_owned();
    text.push_str(INTRODUCTION.trim_start_matches('\n'));
    for (scope, topic) in TOPICS {
        text.push_str(&format!("\n# {topic}\n"));
        for cause in ErrorCode::ALL.iter().filter(|cause| cause.scope() == scope) {
            // Without backticks, because the page takes the first plain text of a heading as its name.
            text.push_str(&format!("\n### {} {}\n\n{}\n", cause.status(), cause.as_str(), cause.message()));
        }
    }
    text
}
