//! All errors of operations, and what clients see of them.
//!
//! One table maps each error code to its number, its word and its message. The HTTP status is computed from the
//! category of the number, so the two cannot disagree. Internal text (a SQLite message, a panic) is in `source`: it
//! goes to the log and never to a client.

use std::borrow::Cow;
use std::num::NonZeroU32;

/// An invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The path of the field: `["body", "key"]`, `["query", "limit"]`, `["header", "X-Tenant-ID"]`.
    pub location: Vec<String>,
    pub message: String,
}

impl Field {
    pub fn body(name: &str, message: impl Into<String>) -> Self {
        Self::at(&["body", name], message)
    }

    pub fn at(location: &[&str], message: impl Into<String>) -> Self {
        Self { location: location.iter().map(|part| (*part).to_owned()).collect(), message: message.into() }
    }

    /// The field as answers show it, with long texts cut: they can be those of a request, and one can be repeated in
    /// each of its fields.
    fn shown(&self) -> Self {
        let location = self.location.iter().map(|part| cut(part, NAME_CHARACTERS_MAX)).collect();
        Self { location, message: cut(&self.message, MESSAGE_CHARACTERS_MAX) }
    }

    /// The field's own name, which is the last part of the location.
    pub fn name(&self) -> &str {
        self.location.last().map_or("", String::as_str)
    }
}

/// The most fields of an error that an answer shows.
const SHOWN_FIELDS_MAX: usize = 100;
/// The most characters of a part of a location, and of a message, that an answer shows.
const NAME_CHARACTERS_MAX: usize = 200;
const MESSAGE_CHARACTERS_MAX: usize = 2_000;

fn cut(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

macro_rules! error_codes {
    ($($name:ident $scope:literal $category:literal $word:literal $message:literal;)*) => {
        /// The cause of an error, independent of HTTP. A new one is added only where clients must act differently.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $(#[doc = $message] $name,)* }

        impl ErrorCode {
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The scope in the number; 0 means the scope of the requested API area.
            pub const fn scope(self) -> u32 { match self { $(ErrorCode::$name => $scope,)* } }
            /// The category in the number, which determines the HTTP status.
            pub const fn category(self) -> u32 { match self { $(ErrorCode::$name => $category,)* } }
            /// The stable word of the envelope's `detail`.
            pub const fn as_str(self) -> &'static str { match self { $(ErrorCode::$name => $word,)* } }
            /// The default message.
            pub const fn message(self) -> &'static str { match self { $(ErrorCode::$name => $message,)* } }
        }
    };
}

error_codes! {
    BadInput 10 101 "bad_input" "the request is not valid: see `fields`";
    MalformedBody 10 101 "malformed_body" "the body is not valid JSON";
    RoleKey 31 101 "role_key" "a role key has 2 to 64 characters of a-z 0-9 _ . -, begins with a letter, and is not `system.…` or `platform_…`";
    AmbiguousCatalog 31 101 "ambiguous_catalog" "the catalog cannot be imported: see `fields`";
    RouteNotFound 10 301 "route_not_found" "there is nothing at this address";
    NotFound 0 301 "not_found" "no such resource";
    MethodNotAllowed 10 105 "method_not_allowed" "this URL does not support that method: see the Allow header";
    RequestTimeout 10 109 "request_timeout" "the request took too long to arrive";
    TooLarge 10 113 "too_large" "the body is larger than this operation accepts";
    MediaType 10 115 "media_type" "this operation requires another Content-Type: application/json, unless it is documented otherwise";

    Unauthenticated 0 501 "unauthenticated" "sign in, or send a credential that this operation accepts";
    MissingBearer 28 501 "missing_bearer_token" "send `Authorization: Bearer <access token>`";
    InvalidBearer 28 501 "invalid_bearer_token" "the access token is no longer valid: sign in again";
    InvalidLogin 28 501 "invalid_login" "no such login, or the password is wrong";
    InvalidRefresh 28 501 "invalid_refresh_token" "the refresh token is no longer valid: sign in again";
    RefreshReused 28 501 "refresh_token_reused" "this refresh token was used before, so its session was ended: sign in again";
    SecondFactorRequired 28 501 "second_factor_required" "a second factor is needed: send its code with the `challenge` to /auth/second-factor";
    EnrolmentRequired 28 501 "second_factor_enrolment_required" "your organization requires a second factor: send the `challenge` to /auth/second-factor/enrol";
    InvalidChallenge 28 501 "invalid_challenge" "this sign-in expired or failed too often: sign in again";
    InvalidCode 28 501 "invalid_code" "this code is wrong, or was used before";
    InvalidLink 28 501 "invalid_link" "this link was used, revoked or has expired: ask for a new one";
    InvalidTicket 28 501 "invalid_ticket" "this ticket is not valid, too old, or was used before: sign in at WordPress again";
    InvalidState 28 501 "invalid_state" "this sign-in has expired, was completed, or was started elsewhere: sign in again";
    OidcRefused 28 501 "oidc_refused" "the provider did not confirm this sign-in: sign in again";
    InvalidKey 32 501 "invalid_key" "this API key is no longer valid";
    WrongPassword 28 101 "wrong_password" "the current password is wrong";
    RegistrationClosed 28 605 "registration_closed" "people cannot register themselves here: ask for an invitation";
    UnknownProvider 28 301 "unknown_provider" "no provider of this name is configured";
    TooManyFailures 28 604 "too_many_failures" "too many failed attempts: wait as long as Retry-After says";
    CrossSite 28 505 "cross_site" "this request came from another site: cookies are not accepted from there";
    WrongHost 28 505 "wrong_host" "cookies are accepted only at the public URL of this site";
    SessionNotFound 28 301 "session_not_found" "there is no such session";
    SecondFactorOn 28 309 "second_factor_on" "a second factor is set up already: remove it first";
    SecondFactorOff 28 309 "second_factor_off" "no second factor is set up";
    SecondFactorKept 28 309 "second_factor_kept" "your organization requires a second factor, so it cannot be removed";
    MailNotConfigured 28 605 "mail_not_configured" "set mail.host and mail.from to send mail";
    WordPressNotConfigured 28 605 "wordpress_not_configured" "set wordpress.url to sign in with WordPress";
    AuthentikNotConfigured 29 605 "authentik_not_configured" "set authentik.url and authentik.token_file";
    ExternalSystemFailed 0 602 "neighbour_failed" "an external system failed or gave an unexpected answer: try again later";
    InvitationNotFound 29 301 "invitation_not_found" "there is no such invitation";
    InvitationAccepted 29 309 "invitation_accepted" "this invitation was accepted already";
    ApiKeyNotFound 32 301 "api_key_not_found" "there is no such API key";
    ApiKeyExists 32 303 "api_key_exists" "this key is known already";
    EmergencyKey 32 309 "emergency_key" "an emergency key works once and is not rotated: create a new one";
    SetupToken 28 501 "setup_token" "this set-up link was used or has expired: run `roster setup-link` for a new one";
    SetupDone 28 309 "setup_done" "the first administrator exists already: sign in, or use the command line";
    InvalidInternalSecret 29 501 "invalid_internal_secret" "X-Internal-Secret is wrong";
    InternalSecretNotConfigured 29 605 "internal_secret_not_configured" "set ROSTER_INTERNAL_SECRET or internal_secret_file to use /internal";
    InvalidClient 32 501 "invalid_client" "X-Client-Key names no active client";
    ClientExpired 32 501 "client_expired" "this client has expired";
    InvalidApiKey 32 501 "invalid_api_key" "X-API-Key is not this client's secret";

    Forbidden 0 505 "forbidden" "you lack the permission for this";
    NotHeld 0 505 "not_held" "you cannot grant rights that you do not hold yourself";
    NotAMember 0 505 "not_a_member" "you belong to no organization";
    OriginNotAllowed 32 505 "origin_not_allowed" "this client may not be used from that Origin";
    IpNotAllowed 32 505 "ip_not_allowed" "this client may not be used from that address";
    PathNotAllowed 32 505 "path_not_allowed" "this client may not be used for that path";
    ScopeNotAllowed 32 505 "scope_not_allowed" "this client's scopes do not cover this operation";
    RateLimited 32 604 "rate_limited" "too many requests: wait as long as Retry-After says";

    MemberNotFound 29 301 "member_not_found" "there is no such member";
    UserNotFound 29 301 "user_not_found" "there is no such member";
    OrganizationNotFound 29 301 "organization_not_found" "there is no such organization";
    MemberExists 29 303 "member_exists" "a member with this identity exists already";
    WordPressIdExists 29 303 "wordpress_id_exists" "a member with this wordpress_id exists already";
    SftpgoNameExists 29 303 "sftpgo_username_exists" "a member with this SFTPGo name exists already";
    EmailExists 29 303 "email_exists" "a member with this e-mail exists already";
    UsernameExists 29 303 "username_exists" "a member with this username exists already";
    OrganizationExists 29 303 "organization_exists" "an organization with this code exists already";
    SiteFull 29 309 "site_full" "the site has as many members as limits.members allows";
    LastAdministrator 29 309 "last_administrator" "this is the last active platform administrator: add another one first";
    BuiltInOrganization 29 309 "built_in_organization" "the organization `platform` is built in and stays active";
    MemberNotActive 29 309 "member_not_active" "this member is not active: activate it first";
    MemberDeleted 29 309 "member_deleted" "this member was deleted and cannot be changed";

    UnknownTenant 31 501 "unknown_tenant" "you belong to no organization of this name: see X-Tenant-ID";
    RoleNotFound 31 301 "role_not_found" "there is no such role";
    PermissionNotFound 31 301 "permission_not_found" "there is no such permission";
    AssignmentNotFound 31 301 "assignment_not_found" "this member does not hold that role";
    MappingNotFound 31 301 "mapping_not_found" "there is no such role mapping";
    SubjectNotFound 31 301 "subject_not_found" "there is no such member in this organization";
    RoleExists 31 303 "role_exists" "a role with this key exists";
    RoleAlreadyAssigned 31 303 "role_already_assigned" "the member holds this role from this source already";
    PermissionExists 31 303 "permission_exists" "a permission of another application has this name";
    CatalogOfAnother 31 309 "catalog_of_another_document" "the entries of this application come from another document";
    SystemRole 31 309 "system_role" "a system role cannot be changed in this way";
    LastOwner 31 309 "last_owner" "this is the last owner of the organization: add another one first";
    RoleInUse 31 312 "role_in_use" "the role is still assigned to members or used by a mapping";
    EpochNotReached 31 606 "epoch_not_reached" "this policy epoch is not in effect on this server yet";

    ClientNotFound 32 301 "client_not_found" "there is no such API client";

    PluginName 34 101 "plugin_name" "a plugin's name has 1 to 63 characters of a-z 0-9 -, and begins with a letter";
    PluginTooLarge 34 101 "plugin_too_large" "the component is larger than plugins.file_bytes allows; organizations in plugins.large_organizations have plugins.large.file_bytes";
    NotAComponent 34 101 "not_a_component" "this is not a WebAssembly component: pack a core module with `roster plugin pack`";
    PluginMalformed 34 101 "plugin_malformed" "the component is not valid WebAssembly";
    PluginImports 34 101 "plugin_imports" "the component imports an interface that plugins cannot use: only `roster:policy/host` and types are allowed";
    PluginExports 34 101 "plugin_exports" "the component exports neither `roster:policy/authorizer` nor `roster:policy/role-mapper`, or not as `plugins/wit` defines them";
    PluginMajor 34 101 "plugin_major" "the component was built for another major version of `roster:policy`";
    PluginTooComplex 34 101 "plugin_too_complex" "the component exceeds a limit of the compiler";
    PluginCompile 34 101 "plugin_compile" "the component could not be compiled within its limits";
    PluginStart 34 101 "plugin_start" "the component fails at its start";
    PluginVectors 34 101 "plugin_vectors" "the test vectors are not valid";
    PluginInput 34 101 "plugin_input" "the input does not match the plugin: see `fields`";
    PluginNotFound 34 301 "plugin_not_found" "there is no such plugin";
    PluginVersionNotFound 34 301 "plugin_version_not_found" "the plugin has no such version";
    PluginsFull 34 309 "plugins_full" "the organization has as many plugins, or the plugin as many versions, as the settings allow: delete some";
    PluginInForce 34 309 "plugin_in_force" "this plugin or version is in force, or kept for a rollback: deactivate the plugin first";
    PluginVectorsFailed 34 309 "plugin_vectors_failed" "this version failed its own test vectors, so it cannot be activated";
    NothingToRollBack 34 309 "nothing_to_roll_back" "no version was enforced before this one: deactivate the plugin instead";
    OwnerNeeded 34 505 "owner_needed" "only an owner of the organization may do this, because it can grant every right";
    UploadsLimited 34 604 "uploads_limited" "too many uploads: wait as long as Retry-After says";
    CompilerBusy 34 606 "compiler_busy" "too many components wait for the compiler: try again";

    VideoPath 33 101 "video_path" "a video's path is `username/…` below the media root, without `..`, empty parts or control characters";
    FileChanged 33 309 "file_changed" "the file changed while it was measured: try again when it is complete";
    NotAFile 33 101 "not_a_file" "this is not a regular file below the media root";
    FileNotFound 33 301 "file_not_found" "there is no such file below the media root";
    MediaRootNotConfigured 33 605 "media_root_not_configured" "set media_root to measure files";
    VideoNotFound 33 301 "video_not_found" "there is no such video";
    VideoIdTaken 33 303 "video_id_taken" "another path already has the uuid of this one: rename the file";
    OwnerNotFound 33 301 "owner_not_found" "no member has this SFTPGo name: it is the member's sftpgo_username";
    NotYourFolder 33 505 "not_your_folder" "the path is in another member's folder";
    VideosFull 33 309 "videos_full" "the site has as many videos as limits.videos allows";
    QuotaExceeded 33 506 "quota_exceeded" "this does not fit into the quota: delete something, or ask an administrator for more";
    OrganizationQuotaExceeded 33 506 "organization_quota_exceeded" "this does not fit into the organization's quota: delete something, or ask its administrators";
    ReservationNotFound 33 301 "reservation_not_found" "there is no such reservation";
    ReservationOver 33 309 "reservation_over" "this reservation was committed or released, or has expired";
    ReservationsFull 33 309 "reservations_full" "there are as many open reservations as quota.reservations allows: commit or release some";
    JobNotFound 33 301 "job_not_found" "there is no such job";
    LeaseLost 33 309 "lease_lost" "you no longer have this job: its lease ended, or it was given to another worker";
    StepState 33 309 "step_state" "this change of the step's state is not possible: see its state and `needs`";
    ProcessorsBusy 33 309 "processors_busy" "as many processors of this job are running as jobs.processors allows: report the result of one first";
    JobNotDead 33 309 "job_not_dead" "only a dead job can be retried";
    MemberSuspended 33 505 "member_suspended" "this member is suspended";
    HookKey 33 501 "hook_key" "send the hook's key as X-Hook-Key, or the internal secret";
    HookSignature 33 501 "hook_signature" "the signature of this hook is wrong, or too old";
    WebhookNotFound 35 301 "webhook_not_found" "there is no such webhook";
    WebhookUrl 35 101 "webhook_url" "a webhook's URL is http or https, and its host has no private or link-local address unless webhooks.private_hosts names the host";
    WebhooksFull 35 309 "webhooks_full" "there are as many webhooks as limits.webhooks allows";
    DeliveryNotFound 35 301 "delivery_not_found" "there is no such delivery";
    ConnectionNotFound 35 301 "connection_not_found" "there is no such connection";
    DeliveryDone 35 309 "delivery_done" "this delivery was already delivered";
    TaskNotFound 35 301 "task_not_found" "there is no such task: finished ones are kept for tasks.ttl_s, and a restart forgets all";
    TasksLimited 35 604 "tasks_limited" "as many tasks of your organization run as tasks.running allows: wait until one ends, or cancel one";
    TaskCancelled 35 309 "task_cancelled" "this task was cancelled";
    SftpgoNotConfigured 35 605 "sftpgo_not_configured" "set sftpgo.url and sftpgo.secret_file";

    IdempotencyKeyReused 10 309 "idempotency_key_reused" "this Idempotency-Key was used for another request";
    SecretNotKept 32 309 "secret_not_kept" "this request was answered before, and its secret is shown only once: rotate to get a new one";
    VersionStale 10 310 "version_stale" "it was changed since you read it: read it again, then repeat the change";

    Database 0 201 "database" "a database error occurred: nothing was changed";
    DatabaseFull 0 201 "database_full" "the disk is full or fails: nothing was changed, reading still works";
    DatabaseReadOnly 0 201 "database_read_only" "the database cannot be written: nothing was changed, reading still works";
    DatabaseDamaged 0 201 "database_damaged" "the file roster.db is damaged: stop Roster and restore a backup; the log says more";
    DatabaseLost 0 201 "database_lost" "roster.db or its -wal was moved, replaced or deleted while Roster runs: nothing was changed; put it back, or stop Roster and restore a backup";
    Internal 0 601 "internal" "internal error: the server log has the details under this request_id";
    NotConfigured 0 605 "not_configured" "this feature is not configured";
    Busy 35 606 "busy" "the server is busy: try again";
}

impl ErrorCode {
    /// The HTTP status of the category.
    pub const fn status(self) -> u16 {
        match self.category() {
            101 => 400,
            105 => 405,
            109 => 408,
            113 => 413,
            115 => 415,
            301 => 404,
            303 | 309 | 312 => 409,
            310 => 412,
            501 => 401,
            505 | 506 => 403,
            602 => 502,
            604 => 429,
            605 => 501,
            606 => 503,
            _ => 500,
        }
    }
}

/// An error with the details for the response and for the log.
#[derive(Debug, Clone)]
pub struct Error {
    pub code: ErrorCode,
    pub fields: Vec<Field>,
    /// Seconds after which the client can retry.
    pub retry_after_s: Option<NonZeroU32>,
    /// Additional response headers (`RateLimit`, `Allow`, `ETag`).
    pub headers: Vec<(&'static str, String)>,
    /// The internal cause, for the log only.
    pub source: Option<Cow<'static, str>>,
    /// A message that replaces the default message of the cause.
    pub message: Option<Cow<'static, str>>,
    /// The challenge token for the next step of a sign-in.
    pub challenge: Option<Box<str>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(cause: ErrorCode) -> Self {
        Self {
            code: cause,
            fields: Vec::new(),
            retry_after_s: None,
            headers: Vec::new(),
            source: None,
            message: None,
            challenge: None,
        }
    }

    /// `bad_input` with all invalid fields.
    pub fn fields(fields: Vec<Field>) -> Self {
        Self { fields, ..Self::new(ErrorCode::BadInput) }
    }

    /// `bad_input` with one invalid field of the body.
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![Field::body(name, message)])
    }

    /// `bad_input` with an invalid header.
    pub fn header_field(name: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![Field::at(&["header", name], message)])
    }

    pub fn internal(source: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::Internal).with_source(source)
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Cow<'static, str>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = NonZeroU32::new(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge.into());
        self
    }

    pub fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.code.message())
    }

    /// The fields as an answer shows them.
    pub fn shown_fields(&self) -> impl Iterator<Item = Field> {
        self.fields.iter().take(SHOWN_FIELDS_MAX).map(Field::shown)
    }

    /// Whether the caller lacks a right (category 505).
    pub fn is_denial(&self) -> bool {
        self.code.category() == 505
    }
}

impl From<ErrorCode> for Error {
    fn from(cause: ErrorCode) -> Self {
        Self::new(cause)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message())?;
        for field in &self.fields {
            write!(f, "; {}: {}", field.location.join("."), field.message)?;
        }
        // The source is left out if the message already contains it.
        match &self.source {
            Some(source) if !self.message().contains(source.as_ref() as &str) => write!(f, " ({source})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// The eight-digit number of an error in an area of the API.
///
/// A code with scope 0 takes the scope of the area. In the permission area every error except invalid input has scope
/// 31: the gateway definition specifies these numbers, and gateways compare them.
pub fn code(cause: ErrorCode, area: u32) -> u32 {
    const INPUT: u32 = 10;
    const PERMISSIONS: u32 = 31;
    let scope = match cause.scope() {
        0 => area,
        INPUT => INPUT,
        _ if area == PERMISSIONS => PERMISSIONS,
        scope => scope,
    };
    scope * 1_000_000 + cause.category() * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_match_the_gateway_definition() {
        assert_eq!(code(ErrorCode::Unauthenticated, 31), 31_501_000);
        assert_eq!(code(ErrorCode::InvalidBearer, 31), 31_501_000);
        assert_eq!(code(ErrorCode::Database, 31), 31_201_000);
        assert_eq!(code(ErrorCode::Internal, 31), 31_601_000);
        assert_eq!(code(ErrorCode::NotConfigured, 31), 31_605_000);
        assert_eq!(code(ErrorCode::BadInput, 31), 10_101_000);
        assert_eq!(code(ErrorCode::RoleKey, 31), 31_101_000);
        assert_eq!(code(ErrorCode::RoleExists, 31), 31_303_000);
        assert_eq!(code(ErrorCode::SystemRole, 31), 31_309_000);
        assert_eq!(code(ErrorCode::RoleInUse, 31), 31_312_000);
        assert_eq!(code(ErrorCode::Forbidden, 31), 31_505_000);
    }

    #[test]
    fn the_permission_area_has_only_its_own_scope_and_that_of_input() {
        for cause in ErrorCode::ALL {
            let scope = code(*cause, 31) / 1_000_000;
            assert_eq!(scope, if cause.scope() == 10 { 10 } else { 31 }, "{cause:?}");
        }
    }

    #[test]
    fn answers_show_as_much_of_fields_as_the_limits_and_not_more() {
        let (name, message) = ("é".repeat(NAME_CHARACTERS_MAX), "x".repeat(MESSAGE_CHARACTERS_MAX));
        let most = Field::body(&name, message.as_str());
        let more = Field::body(&format!("{name}x"), format!("{message}x"));
        let shown: Vec<Field> = Error::fields(vec![most.clone(), more]).shown_fields().collect();
        assert_eq!(shown, [most.clone(), Field::body(&format!("{name}…"), format!("{message}…"))]);
        for (count, expected) in [(SHOWN_FIELDS_MAX, SHOWN_FIELDS_MAX), (SHOWN_FIELDS_MAX + 1, SHOWN_FIELDS_MAX)] {
            assert_eq!(Error::fields(vec![most.clone(); count]).shown_fields().count(), expected);
        }
    }

    #[test]
    fn words_are_unique() {
        let mut words: Vec<_> = ErrorCode::ALL.iter().map(|cause| cause.as_str()).collect();
        words.sort_unstable();
        let all = words.len();
        words.dedup();
        assert_eq!(words.len(), all);
    }
}
