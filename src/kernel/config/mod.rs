//! Every setting: its name, type, default, bounds and meaning, in one table.
//!
//! Only this module reads the environment and configuration files. Sources by increasing precedence: the default,
//! `roster.toml`, `ROSTER_…` variables, the command line. An unknown key is refused.

mod check;
mod in_force;
pub mod kinds;
pub mod providers;
mod tls;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use in_force::{SettingInfo, Source, Unit};
use ipnet::IpNet;
pub use kinds::network;
use kinds::{Bounds, Levels, Prefix, PublicUrl, Setting, within};
use providers::Provider;
pub use tls::TlsMode;
use toml::Value;

use crate::kernel::nearest::did_you_mean;
use crate::kernel::units;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    StartTls,
    Tls,
    None,
}

/// The language of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    /// Traditional Chinese (`zh-TW`).
    Chinese,
}

macro_rules! settings {
    ($($field:ident $name:literal : $kind:ty = $default:expr, $bounds:expr, $about:literal;)*) => {
        /// All settings of one run.
        #[derive(Debug, Clone)]
        pub struct Config {
            /// The data directory. Not a setting of `roster.toml`, which lies in it.
            pub data: PathBuf,
            /// Where the settings that are not defaults come from, by name.
            pub origins: BTreeMap<&'static str, Source>,
            /// Secrets of internal services, newest first; from the environment or `internal_secret_file`.
            pub internal_secrets: Vec<String>,
            /// Bearer token for `/metrics`; from `metrics_token_file`.
            pub metrics_token: Option<String>,
            /// The providers of `[[oidc]]`.
            pub providers: Vec<Provider>,
            /// Signs WordPress tickets; from `wordpress.ticket_secret_file`.
            pub wordpress_ticket_secret: Option<String>,
            /// From `wordpress.password_file`.
            pub wordpress_password: Option<String>,
            /// From `authentik.token_file`.
            pub authentik_token: Option<String>,
            /// From `mail.password_file`.
            pub mail_password: Option<String>,
            /// From `hooks.sftpgo_key_file`.
            pub hook_sftpgo_key: Option<String>,
            /// From `hooks.wordpress_key_file`.
            pub hook_wordpress_key: Option<String>,
            /// From `sftpgo.secret_file`.
            pub sftpgo_secret: Option<String>,
            $(#[doc = $about] pub $field: $kind,)*
        }

        impl Config {
            /// The defaults for a data directory.
            pub fn of(data: &Path) -> Self {
                Self {
                    data: data.to_owned(),
                    origins: BTreeMap::new(),
                    internal_secrets: Vec::new(),
                    metrics_token: None,
                    providers: Vec::new(),
                    wordpress_ticket_secret: None,
                    wordpress_password: None,
                    authentik_token: None,
                    mail_password: None,
                    hook_sftpgo_key: None,
                    hook_wordpress_key: None,
                    sftpgo_secret: None,
                    $($field: $default,)*
                }
            }

            /// Every setting as it is in force, in the order of the table. Secrets are in files, so none is in it.
            pub fn in_force(&self) -> Vec<SettingInfo> {
                vec![$(SettingInfo {
                    name: $name,
                    kind: <$kind as Setting>::KIND,
                    value_type: <$kind as Setting>::TYPE,
                    choices: <$kind as Setting>::CHOICES,
                    value: self.$field.show(),
                    default: { let value: $kind = $default; value.show() },
                    source: self.origins.get($name).copied().unwrap_or(Source::Default),
                    range: Bounds::<$kind>::range(&($bounds)),
                    about: $about,
                },)*]
            }

            /// The names of all settings.
            const NAMES: &[&str] = &[$($name,)*];

            fn set(&mut self, name: &str, value: &Value, source: Source, faults: &mut Vec<String>) {
                let value = &sized(name, value);
                match name {
                    $($name => match <$kind as Setting>::read(value).and_then(|v| within(v, $bounds)) {
                        Ok(value) => {
                            self.$field = value;
                            self.origins.insert($name, source);
                        }
                        Err(why) => faults.push(format!("{name} {why}")),
                    },)*
                    _ => {
                        let meant = did_you_mean(name, Self::NAMES.iter().copied());
                        faults.push(format!("{name} is not a setting{meant}: see `roster config show`"));
                    }
                }
            }

            fn set_from_environment(&mut self, environment: &BTreeMap<String, String>, faults: &mut Vec<String>) {
                $(if let Some(text) = environment.get(&in_force::variable($name)) {
                    self.set($name, &<$kind as Setting>::of_text(text), Source::Environment, faults);
                })*
            }
        }
    };
}

/// Converts a size with a unit (`20GB`) to a number if the setting counts bytes; returns every other value unchanged.
fn sized(name: &str, value: &Value) -> Value {
    let text = value.as_str().filter(|_| name.ends_with("bytes"));
    let bytes = text.and_then(units::parse_bytes).and_then(|bytes| i64::try_from(bytes).ok());
    bytes.map_or_else(|| value.clone(), Value::Integer)
}

settings! {
    listen "listen": SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8480)), (), "Where the server listens; port 0 takes a free one";
    public_url "public_url": String = String::new(), PublicUrl, "Public address of the site, without a slash at the end; empty means the listening address";
    base_path "base_path": String = "/api/v1".into(), Prefix, "Path of the API below the public address; empty or / behind a proxy that strips the path of public_url";
    debug "debug": bool = false, (), "Adds the internal cause to 500 answers and raises logging; never in production";
    internal_secret_file "internal_secret_file": PathBuf = PathBuf::new(), (), "File with one or two secrets (one a line) for X-Internal-Secret; ROSTER_INTERNAL_SECRET (comma between two) wins";
    encryption_key_file "encryption_key_file": PathBuf = PathBuf::new(), (), "File with the key that the secrets in roster.db are encrypted with, 64 hexadecimal digits; empty means encryption.key in the data directory. It is created with the site";
    metrics_token_file "metrics_token_file": PathBuf = PathBuf::new(), (), "File with the bearer token for /metrics; without one, only the local socket serves it";
    trusted_proxies "trusted_proxies": Vec<IpNet> = Vec::new(), (), "Proxies whose X-Forwarded-For is trusted; it is ignored from any other address";
    tls_mode "tls.mode": TlsMode = TlsMode::Off, (), "TLS on the server itself: off, on this machine or behind a proxy with TLS; files, with the certificate in tls.cert_file; local, with the one that `roster tls local` makes";
    tls_cert_file "tls.cert_file": PathBuf = PathBuf::new(), (), "PEM file with the certificate and its chain; read again every minute and on SIGHUP";
    tls_key_file "tls.key_file": PathBuf = PathBuf::new(), (), "PEM file with the private key of tls.cert_file";
    gateways "gateways": Vec<IpNet> = Vec::new(), (), "Gateways whose X-Tenant-ID and X-UID are trusted without the internal secret";
    docs_title "docs.title": String = "Roster API".into(), (), "Title of the OpenAPI document and of the docs page";
    docs_description "docs.description": String = String::new(), (), "Introduction of the docs, in Markdown; empty means a description of Roster";
    docs_contact_name "docs.contact_name": String = String::new(), (), "Name of the contact for developers who use this API";
    docs_contact_email "docs.contact_email": String = String::new(), (), "E-mail address of docs.contact_name";
    docs_contact_url "docs.contact_url": String = String::new(), (), "A page for developers of this site";
    cors_origins "cors.origins": Vec<String> = Vec::new(), (), "Exact origins that browsers may send requests with credentials from";
    log_format "log.format": LogFormat = LogFormat::Text, (), "Format of log lines";
    log_level "log.level": String = "info".into(), Levels, "error, warn, info, debug or trace, also by target, as in `info,roster=debug`";
    log_queue_max "log.queue": u64 = 4_096, 1..=1_000_000, "Log lines that may wait to be written; more are dropped and counted";
    issuer "auth.issuer": String = String::new(), (), "`iss` of access tokens; empty means the public address";
    audience "auth.audience": String = "roster".into(), (), "`aud` of access tokens";
    access_token_ttl_s "auth.access_token_ttl_s": u64 = 600, 1..=86_400, "Lifetime of an access token, in seconds";
    refresh_grace_s "auth.refresh_grace_s": u64 = 20, 1..=600, "How long a refresh token that was just rotated still returns the same successor, in seconds; for two tabs that refresh at the same time";
    session_idle_s "auth.session_idle_s": u64 = 604_800, 1..=31_536_000, "A session ends if it is not refreshed for this long, in seconds";
    session_ttl_s "auth.session_ttl_s": u64 = 2_592_000, 1..=31_536_000, "A session ends after this long in any case, in seconds";
    signing_key_ttl_s "auth.signing_key_ttl_s": u64 = 7_776_000, 0..=315_360_000, "Age at which a signing key is rotated, in seconds; 0 leaves rotation to `roster signing-key rotate`";
    signing_key_overlap_s "auth.signing_key_overlap_s": u64 = 86_400, 1..=31_536_000, "How long a former signing key is still published and accepted, in seconds; at least the lifetime of an access token";
    slow_window_s "auth.slow_window_s": u64 = 900, 1..=86_400, "Failed sign-ins are counted over this long, in seconds";
    slow_account_failures "auth.slow_account_failures": u64 = 10, 1..=10_000, "Failed sign-ins to one account after which it is slowed down";
    slow_address_failures "auth.slow_address_failures": u64 = 50, 1..=100_000, "Failed sign-ins from one address after which it is slowed down";
    second_factor_wait_s "auth.second_factor_wait_s": u64 = 300, 1..=3_600, "How long a pending sign-in can be completed with its second factor, in seconds";
    second_factor_tries "auth.second_factor_tries": u64 = 5, 1..=100, "Wrong codes after which a pending sign-in must be started again";
    remember_s "signin.remember_s": u64 = 2_592_000, 0..=31_536_000, "How long a device can be remembered after a second factor, in seconds; 0 never remembers one";
    signin_title "signin.title": String = "Roster".into(), (), "Name of the site on its sign-in page";
    signin_order "signin.order": Vec<String> = ["password", "oidc", "wordpress"].map(str::to_owned).to_vec(), (), "Order of the ways to sign in on the sign-in page";
    signin_logo_file "signin.logo_file": PathBuf = PathBuf::new(), (), "File with a picture for the sign-in page: SVG or PNG, of at most 64 KiB";
    signin_request_ttl_s "signin.request_ttl_s": u64 = 1_800, 60..=86_400, "How long a sign-in leads back to the page that asked for it, in seconds";
    signin_password "signin.password": bool = true, (), "Offers the password form on the sign-in page; without it, other ways to sign in remain";
    reset_link_ttl_s "auth.reset_link_ttl_s": u64 = 3_600, 1..=604_800, "Lifetime of a password reset link, in seconds";
    invitation_ttl_s "auth.invitation_ttl_s": u64 = 604_800, 1..=31_536_000, "Lifetime of an invitation, in seconds";
    registration "auth.registration": bool = false, (), "Allows self-registration with an e-mail address that is verified by a code; needs mail";
    email_code_ttl_s "auth.email_code_ttl_s": u64 = 900, 1..=86_400, "Lifetime of the code that verifies an e-mail address, in seconds";
    email_code_tries "auth.email_code_tries": u64 = 3, 1..=20, "Wrong codes after which the code that verifies an e-mail address is void";
    oidc_state_ttl_s "auth.oidc_state_ttl_s": u64 = 600, 1..=3_600, "How long an OIDC sign-in can take from the redirect to the callback, in seconds";
    oidc_keys_ttl_s "auth.oidc_keys_ttl_s": u64 = 3_600, 1..=604_800, "How long a provider's discovery document and keys are cached, in seconds";
    oidc_keys_retry_s "auth.oidc_keys_retry_s": u64 = 10, 1..=3_600, "Shortest time between two fetches of a provider's keys because of an unknown key id, in seconds";
    setup_link_ttl_s "auth.setup_link_ttl_s": u64 = 1_800, 1..=86_400, "Lifetime of the one-time set-up link, in seconds";
    client_rotation_overlap_s "auth.client_rotation_overlap_s": u64 = 86_400, 0..=2_592_000, "How long a client's former secret stays valid after a rotation, in seconds";
    hash_memory_kib "password.memory_kib": u64 = 19_456, 64..=4_194_304, "argon2id memory of a new password hash in KiB";
    hash_iterations "password.iterations": u64 = 2, 1..=100, "argon2id passes of a new password hash";
    hash_parallelism "password.parallelism": u64 = 1, 1..=16, "argon2id lanes of a new password hash";
    hashes_parallel_max "password.parallel_max": u64 = 2, 1..=64, "Most password hashes that are computed at the same time; more wait";
    hash_wait_ms "password.wait_ms": u64 = 5_000, 1..=60_000, "How long a sign-in waits to compute a password hash before it fails with busy, in milliseconds";
    wordpress_url "wordpress.url": String = String::new(), (), "Site Address of WordPress, exactly as in its general settings, but without a slash at the end; https unless it is on this machine";
    wordpress_ticket_secret_file "wordpress.ticket_secret_file": PathBuf = PathBuf::new(), (), "File with the secret that the must-use plugin signs tickets with";
    wordpress_username "wordpress.username": String = String::new(), (), "WordPress administrator whose account is used to read users; empty means that the data which the must-use plugin sends is used";
    wordpress_password_file "wordpress.password_file": PathBuf = PathBuf::new(), (), "File with an application password of wordpress.username";
    wordpress_organization "wordpress.organization": String = String::new(), (), "org_code of the organization that members from WordPress belong to; empty for none";
    authentik_url "authentik.url": String = String::new(), (), "Address of Authentik, for its admin API, without a slash at the end";
    authentik_token_file "authentik.token_file": PathBuf = PathBuf::new(), (), "File with an Authentik API token; its owner must be allowed to view, add and change users";
    mail_host "mail.host": String = String::new(), (), "SMTP server; empty disables mail";
    mail_port "mail.port": u64 = 587, 1..=65_535, "Port of mail.host; mostly 587 for starttls and 465 for tls";
    mail_security "mail.security": MailSecurity = MailSecurity::StartTls, (), "How the connection to mail.host is protected: by STARTTLS, which the server must offer, by TLS from the start, or not at all, which is allowed only for a server on this machine";
    mail_username "mail.username": String = String::new(), (), "Account at the SMTP server; empty for none";
    mail_password_file "mail.password_file": PathBuf = PathBuf::new(), (), "File with the password of mail.username";
    mail_ca_file "mail.ca_file": PathBuf = PathBuf::new(), (), "PEM file with an additional certificate authority for mail.host; the system's are always trusted";
    mail_from "mail.from": String = String::new(), (), "Sender of all mail, like `Roster <roster@example.org>`";
    neighbour_timeout_ms "neighbours.timeout_ms": u64 = 5_000, 10..=120_000, "How long one request to an external system may take, in milliseconds";
    neighbour_answer_bytes "neighbours.answer_bytes": u64 = 1_048_576, 1_024..=67_108_864, "Largest response that is read from an external system, in bytes";
    neighbour_failures "neighbours.failures": u64 = 5, 1..=1_000, "Consecutive failures after which the circuit breaker stops requests to an external system";
    neighbour_pause_s "neighbours.pause_s": u64 = 30, 1..=3_600, "How long no requests are sent to an external system after neighbours.failures, in seconds";
    connection_test_ms "neighbours.test_ms": u64 = 5_000, 10..=60_000, "How long the test of a connection to an external system may take altogether, in milliseconds";
    api_key_notice_s "api_keys.notice_s": u64 = 604_800, 0..=31_536_000, "How long before an API key expires a notice is sent, in seconds";
    body_bytes_max "limits.body_bytes": u64 = 1_048_576, 1_024..=67_108_864, "Largest request body in bytes";
    public_body_bytes_max "limits.public_body_bytes": u64 = 262_144, 1_024..=67_108_864, "Largest request body of an unauthenticated caller, in bytes";
    sign_in_bytes_max "limits.sign_in_bytes": u64 = 16_384, 1_024..=67_108_864, "Largest request body of sign-in: below /auth, and on the set-up, password reset and invitation pages, in bytes";
    bytes_in_flight_max "limits.bytes_in_flight": u64 = 67_108_864, 4_096..=17_179_869_184, "Most bytes of request bodies of all authenticated callers in memory; more fail with busy. One organization or program can use half of it, or the size of one largest body. Unauthenticated callers share another quarter of it, of which one address can use a quarter. When a share is full, the largest incomplete body of the organization, program or address that uses most fails with busy";
    body_nodes_max "limits.body_nodes": u64 = 100_000, 1_000..=10_000_000, "Most values of a JSON body, including those in lists and objects; imported documents have limits.document_nodes";
    catalog_bytes_max "limits.catalog_bytes": u64 = 16_777_216, 1_024..=67_108_864, "Largest catalog or OpenAPI document to import, in bytes";
    catalog_entries_max "limits.catalog_entries": u64 = 20_000, 1..=100_000, "Most permissions in the catalog, all applications together";
    document_depth_max "limits.document_depth": u64 = 64, 4..=127, "Deepest nesting of lists and objects in a catalog or OpenAPI document to import";
    document_nodes_max "limits.document_nodes": u64 = 500_000, 10..=10_000_000, "Most values of a catalog or OpenAPI document to import, with YAML aliases expanded";
    body_wait_ms "limits.body_wait_ms": u64 = 30_000, 10..=600_000, "How long receiving a request body may take, in milliseconds";
    body_rate_bytes_s "limits.body_rate_bytes_s": u64 = 1_024, 1..=1_048_576, "Lowest rate at which a request body must be sent, in bytes per second, measured over each 5 seconds";
    handshake_wait_ms "limits.handshake_wait_ms": u64 = 10_000, 10..=600_000, "How long a TLS handshake may take before the connection is closed, in milliseconds; counted from the connection";
    head_wait_ms "limits.head_wait_ms": u64 = 10_000, 10..=600_000, "How long receiving the head of a request may take before the connection is closed, in milliseconds; counted from the connection or its TLS handshake, or from the first byte on a connection that is kept open";
    head_bytes_max "limits.head_bytes": u64 = 32_768, 8_192..=1_048_576, "Largest head of a request in bytes";
    idle_wait_ms "limits.idle_wait_ms": u64 = 75_000, 10..=3_600_000, "How long a connection may be idle between two requests, in milliseconds";
    answer_wait_ms "limits.answer_wait_ms": u64 = 30_000, 10..=600_000, "How long a client may read nothing of its response, or less than limits.answer_rate_bytes_s, before the connection is closed, in milliseconds";
    answer_rate_bytes_s "limits.answer_rate_bytes_s": u64 = 1_024, 1..=1_048_576, "Lowest rate at which a client must read a response, in bytes per second, measured over each limits.answer_wait_ms";
    answers_in_flight_max "limits.answers_in_flight": u64 = 67_108_864, 1_048_576..=17_179_869_184, "Most bytes of responses that clients have not read yet; above it, connections of clients that read nothing are closed, and if there are none, a long response fails with busy";
    connections_max "limits.connections": u64 = 4_096, 1..=1_000_000, "Most connections over the network. One more closes the connection that has waited longest for its client, of the address with the most connections if it has many; it is answered 503 only if all connections have a request in progress. Lowered, with a log line, if the system allows fewer open files";
    connections_per_address_max "limits.connections_per_address": u64 = 1_024, 1..=1_000_000, "Most connections of one address (an IPv6 /64 network counts as one), but at most a quarter of limits.connections; trusted_proxies are exempt, this machine is not";
    members_max "limits.members": u64 = 1_000_000, 1..=100_000_000, "Most members of the site, without erased ones";
    members_each_max "limits.members_per_organization": u64 = 0, 0..=100_000_000, "Most members that one organization creates or invites, including those who leave it; 0 means half of limits.members once there are several organizations besides `platform`";
    organizations_max "limits.organizations": u64 = 10_000, 1..=1_000_000, "Most organizations of the site";
    roles_max "limits.roles": u64 = 1_000, 5..=100_000, "Most roles of one organization";
    mappings_max "limits.role_mappings": u64 = 10_000, 1..=1_000_000, "Most role mappings of one organization";
    clients_max "limits.api_clients": u64 = 1_000, 1..=100_000, "Most API clients of the site";
    sessions_max "limits.sessions_per_member": u64 = 100, 1..=10_000, "Most sessions of one member; a new one ends the least recently used one";
    api_keys_max "limits.api_keys_per_member": u64 = 100, 1..=10_000, "Most API keys of one member";
    service_keys_max "limits.service_keys": u64 = 1_000, 1..=100_000, "Most API keys of services";
    invitations_max "limits.invitations": u64 = 1_000, 1..=100_000, "Most open invitations of one organization";
    grants_max "limits.grants": u64 = 5_000_000, 1..=100_000_000, "Most direct grants of the site";
    plugins_large "plugins.large_organizations": Vec<String> = Vec::new(), (), "org_code of each organization whose plugins may be big runtimes, such as Python, under the limits of plugins.large; `*` for all";
    plugins_max "plugins.per_organization": u64 = 50, 1..=10_000, "Most plugins of one organization";
    plugin_versions_max "plugins.versions": u64 = 50, 2..=10_000, "Most versions of one plugin";
    plugin_bytes_max "plugins.bytes": u64 = 268_435_456, 1_024..=1_099_511_627_776, "Total bytes of all components of one organization above which uploads are refused";
    plugin_uploads_per_min "plugins.uploads_per_min": u64 = 60, 1..=100_000, "Most plugin uploads of one organization per minute, including refused ones";
    plugin_file_bytes "plugins.file_bytes": u64 = 4_194_304, 1_024..=67_108_864, "Largest component in bytes";
    plugin_memory_bytes "plugins.memory_bytes": u64 = 16_777_216, 65_536..=67_108_864, "Most memory of one call, summed over all memories of the component, in bytes";
    plugin_authorize_fuel "plugins.authorize_fuel": u64 = 20_000_000, 10_000..=10_000_000_000, "Most instructions (fuel) of one authorize call";
    plugin_authorize_ms "plugins.authorize_ms": u64 = 20, 1..=10_000, "How long one authorize call may run, in milliseconds; the time in the queue does not count";
    plugin_map_roles_fuel "plugins.map_roles_fuel": u64 = 50_000_000, 10_000..=10_000_000_000, "Most instructions (fuel) of one map-roles call";
    plugin_map_roles_ms "plugins.map_roles_ms": u64 = 50, 1..=10_000, "How long one map-roles call may run, in milliseconds; the time in the queue does not count";
    plugin_compile_cpu_s "plugins.compile_cpu_s": u64 = 10, 1..=3_600, "Most CPU time for compiling one component, in seconds";
    plugin_compile_bytes "plugins.compile_bytes": u64 = 1_073_741_824, 67_108_864..=68_719_476_736, "Most memory for compiling one component, in bytes";
    plugin_artifact_bytes "plugins.artifact_bytes": u64 = 67_108_864, 65_536..=1_073_741_824, "Largest compiled component in bytes";
    plugin_large_file_bytes "plugins.large.file_bytes": u64 = 25_165_824, 1_024..=67_108_864, "plugins.file_bytes for big runtimes";
    plugin_large_memory_bytes "plugins.large.memory_bytes": u64 = 33_554_432, 65_536..=67_108_864, "plugins.memory_bytes for big runtimes";
    plugin_large_authorize_fuel "plugins.large.authorize_fuel": u64 = 50_000_000, 10_000..=10_000_000_000, "plugins.authorize_fuel for big runtimes";
    plugin_large_authorize_ms "plugins.large.authorize_ms": u64 = 50, 1..=10_000, "plugins.authorize_ms for big runtimes";
    plugin_large_map_roles_fuel "plugins.large.map_roles_fuel": u64 = 100_000_000, 10_000..=10_000_000_000, "plugins.map_roles_fuel for big runtimes";
    plugin_large_map_roles_ms "plugins.large.map_roles_ms": u64 = 100, 1..=10_000, "plugins.map_roles_ms for big runtimes";
    plugin_large_compile_cpu_s "plugins.large.compile_cpu_s": u64 = 60, 1..=3_600, "plugins.compile_cpu_s for big runtimes";
    plugin_large_compile_bytes "plugins.large.compile_bytes": u64 = 2_147_483_648, 67_108_864..=68_719_476_736, "plugins.compile_bytes for big runtimes";
    plugin_large_artifact_bytes "plugins.large.artifact_bytes": u64 = 134_217_728, 65_536..=1_073_741_824, "plugins.artifact_bytes for big runtimes";
    plugin_compile_queue_max "plugins.compile_queue": u64 = 16, 1..=1_000, "Most uploads that are being compiled or wait for it; one is compiled at a time";
    plugin_compile_queue_per_organization "plugins.compile_queue_per_organization": u64 = 8, 1..=1_000, "Most of these uploads of one organization; the queue is fair between organizations by the compile time they have used";
    plugin_input_bytes "plugins.input_bytes": u64 = 65_536, 1_024..=1_048_576, "Longest input of one call, in bytes";
    plugin_output_bytes "plugins.output_bytes": u64 = 262_144, 1_024..=1_048_576, "Most bytes of the result of one call, and of all that it logs";
    plugin_log_lines "plugins.log_lines": u64 = 32, 0..=1_000, "Most log lines kept of one call";
    plugin_log_bytes "plugins.log_bytes": u64 = 4_096, 0..=65_536, "Most bytes of log kept of one call";
    plugin_log_kept "plugins.log_kept": u64 = 500, 1..=100_000, "Most log lines of one plugin kept in memory";
    plugin_calls_max "plugins.calls": u64 = 32, 1..=48, "Most calls that run at the same time, all organizations together";
    plugin_calls_per_organization "plugins.calls_per_organization": u64 = 4, 1..=48, "Most calls of one organization that run at the same time";
    plugin_wait_ms "plugins.wait_ms": u64 = 50, 1..=10_000, "How long a call waits to start before it fails with busy, in milliseconds";
    plugin_fast_us "plugins.fast_us": u64 = 250, 1..=1_000_000, "CPU time of one call, in microseconds, above which calls of its version run on background threads instead of request threads, until it has been fast again";
    plugin_request_us "plugins.request_us": u64 = 1_000, 1..=1_000_000, "Time that all plugins of one request may use on the request's thread, in microseconds; after it, the rest of them run on background threads";
    plugin_failures "plugins.failures": u64 = 10, 1..=10_000, "Failures within plugins.failures_window_s after which a version is quarantined: it is not called, and everything it covers is denied";
    plugin_failures_window_s "plugins.failures_window_s": u64 = 60, 1..=86_400, "Window in which failures of a plugin are counted, in seconds";
    plugin_loaded_bytes "plugins.loaded_bytes": u64 = 268_435_456, 1_024..=1_099_511_627_776, "Most bytes of compiled components in memory, all organizations together; the least recently used is unloaded, and read again when it is called";
    plugin_loaded_bytes_per_organization "plugins.loaded_bytes_per_organization": u64 = 67_108_864, 1_024..=1_099_511_627_776, "Most bytes of compiled components of one organization in memory";
    plugin_cache_bytes "plugins.cache_bytes": u64 = 536_870_912, 0..=1_099_511_627_776, "Most bytes of compiled components on disk, all organizations together; the least recently used is deleted, and compiled again when it is needed";
    plugin_cache_bytes_per_organization "plugins.cache_bytes_per_organization": u64 = 134_217_728, 0..=1_099_511_627_776, "Most bytes of compiled components of one organization on disk";
    media_root "media_root": PathBuf = PathBuf::new(), (), "Folder with one folder of videos per member, named by the SFTPGo username; empty disables measuring";
    quota_default_bytes "quota.default_bytes": u64 = 10_737_418_240, 0..=9_000_000_000_000_000, "Quota of a member unless its organization or an administrator sets another, in bytes";
    reservation_ttl_s "quota.reservation_ttl_s": u64 = 86_400, 1..=2_592_000, "How long a reservation holds its bytes, in seconds";
    reservations_max "quota.reservations": u64 = 100, 1..=100_000, "Most open reservations of one member";
    videos_max "limits.videos": u64 = 10_000_000, 1..=1_000_000_000, "Most videos of the site";
    ignored_names "videos.ignored_names": Vec<String> = IGNORED_NAMES.map(str::to_owned).to_vec(), (), "Names of files and folders that are not videos, at SFTPGo and in `roster video import`: by default hidden files and incomplete uploads. `*` matches any text, case does not matter";
    video_path_bytes_max "limits.video_path_bytes": u64 = 1_024, 64..=4_096, "Longest path of a video in bytes";
    import_files_max "limits.import_files": u64 = 1_000_000, 1..=100_000_000, "Most files that one import of videos reads";
    import_bytes_max "limits.import_bytes": u64 = 8_388_608, 1_024..=67_108_864, "Largest file of members to import, in bytes";
    import_rows_max "limits.import_rows": u64 = 10_000, 1..=1_000_000, "Most members of one import";
    job_lease_s "jobs.lease_s": u64 = 300, 1..=86_400, "How long a worker holds a job without a heartbeat, in seconds";
    job_attempts_max "jobs.attempts": u64 = 5, 1..=1_000, "Attempts after which a job is dead until it is retried by hand";
    job_backoff_s "jobs.backoff_s": u64 = 30, 0..=86_400, "Wait before the second attempt of a job, in seconds; it doubles with each further one";
    job_processors_max "jobs.processors": u64 = 2, 1..=6, "Most processors that can work on one job at the same time";
    job_keep_s "jobs.keep_s": u64 = 2_592_000, 1..=315_360_000, "How long a finished job is kept, in seconds";
    job_wait_s "jobs.wait_s": u64 = 30, 0..=60, "Longest time that a claim waits for a job, in seconds";
    job_waiting_max "jobs.waiting": u64 = 100, 1..=10_000, "Most claims that wait for a job at the same time";
    job_waiting_each_max "jobs.waiting_per_caller": u64 = 50, 1..=10_000, "Most claims of one program, or of all members of one organization, that wait for a job at the same time";
    job_claim_max "jobs.claim": u64 = 20, 1..=1_000, "Most jobs that one claim takes";
    outbox_attempts_max "outbox.attempts": u64 = 24, 1..=1_000, "Attempts after which the delivery of an event to a target is given up until it is retried by hand; with the other defaults they take three days";
    outbox_backoff_s "outbox.backoff_s": u64 = 5, 0..=86_400, "Wait before the second attempt of a delivery, in seconds; it doubles with each further one";
    outbox_backoff_max_s "outbox.backoff_max_s": u64 = 21_600, 1..=604_800, "Longest wait between two attempts of a delivery, in seconds";
    outbox_ttl_s "outbox.ttl_s": u64 = 2_592_000, 60..=315_360_000, "How long a finished delivery, done or given up, is kept, in seconds";
    webhooks_max "limits.webhooks": u64 = 100, 1..=10_000, "Most webhooks of one organization; the webhooks of the site have the same limit";
    webhook_private_hosts "webhooks.private_hosts": Vec<String> = Vec::new(), (), "Hosts on this machine or a private network that webhooks may reach, such as `n8n.lan`, or `127.0.0.1:5678` for one port only";
    webhook_rotation_overlap_s "webhooks.rotation_overlap_s": u64 = 86_400, 0..=2_592_000, "How long a webhook is also signed with the former secret after a rotation, in seconds";
    hook_sftpgo_key_file "hooks.sftpgo_key_file": PathBuf = PathBuf::new(), (), "File with the key that SFTPGo's hooks send as X-Hook-Key, or as the password in the hook's URL";
    hook_wordpress_key_file "hooks.wordpress_key_file": PathBuf = PathBuf::new(), (), "File with the key that the must-use plugin signs its events with";
    hook_age_max_s "hooks.age_max_s": u64 = 300, 1..=86_400, "Greatest age of a signed event from WordPress that is accepted, in seconds";
    sftpgo_url "sftpgo.url": String = String::new(), (), "Address of SFTPGo's REST API including /api/v2, without a slash at the end; empty disables provisioning";
    sftpgo_username "sftpgo.username": String = String::new(), (), "SFTPGo administrator whose token is used; empty if sftpgo.secret_file holds an API key";
    sftpgo_secret_file "sftpgo.secret_file": PathBuf = PathBuf::new(), (), "File with the password of sftpgo.username, or with an API key";
    sftpgo_home "sftpgo.home": String = String::new(), (), "Home folder of an SFTPGo user, such as /srv/media/{username}; empty means the folder with the username in the media root";
    sftpgo_delete "sftpgo.delete": bool = false, (), "Deletes the SFTPGo user of an erased member; otherwise it is disabled";
    sftpgo_reconcile_s "sftpgo.reconcile_s": u64 = 86_400, 60..=2_592_000, "How often SFTPGo's users are compared with the members, in seconds";
    mail_language "mail.language": Language = Language::English, (), "Language of mail";
    decisions_queue_max "decisions.queue": u64 = 4_096, 1..=1_000_000, "Most decisions that wait to be written to the decision log; above it, one of the organization with the most waiting is dropped and counted";
    decisions_rows_max "decisions.rows": u64 = 100_000, 100..=100_000_000, "Most decisions in the decision log; above it, the oldest of the organization with the most are deleted";
    decisions_bytes_max "decisions.bytes": u64 = 268_435_456, 65_536..=1_099_511_627_776, "Most bytes of decisions in the decision log; above it, the oldest of the organization with the most are deleted";
    decisions_ttl_s "decisions.ttl_s": u64 = 2_592_000, 60..=315_360_000, "How long a decision stays in the decision log, in seconds";
    decisions_allow_every "decisions.allow_every": u64 = 100, 0..=1_000_000, "Sampling of allowed decisions: one in this many is logged; 1 for all, 0 for none. Denials, and decisions in which a watched plugin differs, are always logged";
    readers "db.readers": u64 = 4, 1..=64, "Read connections to SQLite";
    read_wait_ms "db.read_wait_ms": u64 = 2_000, 1..=60_000, "How long a read waits for a connection before it fails with busy, in milliseconds";
    read_queue_max "db.read_queue": u64 = 256, 1..=100_000, "Most reads of one caller that wait for a connection; more fail with busy. The queue is fair between organizations, and between the callers of each";
    read_ms_max "db.read_ms": u64 = 10_000, 10..=600_000, "How long one read for a caller may take before it is interrupted and fails with busy, in milliseconds";
    write_queue_max "db.write_queue": u64 = 1_024, 1..=100_000, "Most changes that wait for the writer";
    write_wait_ms "db.write_wait_ms": u64 = 2_000, 1..=60_000, "How long a change waits for a free slot in the writer's queue before it fails with busy, in milliseconds";
    write_batch_max "db.write_batch": u64 = 256, 1..=10_000, "Most changes in one commit";
    tasks_kept_max "tasks.kept": u64 = 1_000, 1..=100_000, "Most background tasks that are kept, running and finished; above it, the oldest finished one of the organization or program with the most is dropped, and if all of them run, a new one fails with busy";
    tasks_running_max "tasks.running": u64 = 4, 1..=1_000, "Most background tasks of one organization or program that run at the same time";
    task_ttl_s "tasks.ttl_s": u64 = 3_600, 1..=604_800, "How long a finished background task is kept, in seconds";
    task_bytes_max "tasks.bytes": u64 = 67_108_864, 1_024..=17_179_869_184, "Most bytes of the results of background tasks in memory; above it, the oldest finished one of the organization or program with the most bytes is dropped, and a single longer result is not kept";
    policy_reload_gap_s "limits.policy_reload_gap_s": u64 = 60, 0..=86_400, "Shortest time between two policy reloads of one organization, in seconds; within it, a reload returns the last result again. 0 for no limit";
    idempotency_ttl_s "limits.idempotency_ttl_s": u64 = 86_400, 1..=604_800, "How long an Idempotency-Key is stored, in seconds";
}

/// The sources of settings that the command line selects.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub data: PathBuf,
    /// A settings file other than `roster.toml` in the data directory; it must exist.
    pub file: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads all sources. Fails with the list of all faults.
    pub fn load(sources: &Sources) -> Result<Self, Vec<String>> {
        let mut config = Self::of(&sources.data);
        let mut faults = Vec::new();
        config.read_file(sources, &mut faults);
        #[expect(clippy::disallowed_methods, reason = "only this module reads the environment")]
        let environment = own_variables(std::env::vars_os());
        config.set_from_environment(&environment, &mut faults);
        if let Some(listen) = sources.listen {
            config.listen = listen;
            config.origins.insert("listen", Source::CommandLine);
        }
        config.read_secrets(&environment, &mut faults);
        config.check(&mut faults);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    fn read_file(&mut self, sources: &Sources, faults: &mut Vec<String>) {
        let path = sources.file.clone().unwrap_or_else(|| sources.data.join(FILE_NAME));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && sources.file.is_none() => return,
            Err(e) => return faults.push(format!("{} cannot be read: {e}", path.display())),
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => return faults.push(format!("{} is not TOML{}", path.display(), not_toml(&text, &e))),
        };
        self.set_all(&table, faults);
    }

    fn set_all(&mut self, table: &toml::Table, faults: &mut Vec<String>) {
        for (name, value) in flattened("", table) {
            match name.as_str() {
                "oidc" => self.providers = providers::read(&value, faults),
                _ => self.set(&name, &value, Source::File, faults),
            }
        }
    }

    fn read_secrets(&mut self, environment: &BTreeMap<String, String>, faults: &mut Vec<String>) {
        let secrets = |text: &str, separator: char| -> Vec<String> {
            text.split(separator).map(str::trim).filter(|secret| !secret.is_empty()).map(str::to_owned).collect()
        };
        let secret_file = |name: &str, path: &Path, faults: &mut Vec<String>| {
            let read = std::fs::read_to_string(path).map(|text| secrets(&text, '\n'));
            match &read {
                Err(e) => faults.push(format!("{name}: {} cannot be read: {e}", path.display())),
                Ok(none) if none.is_empty() => {
                    faults.push(format!("{name}: {} is empty: put the secret in it", path.display()))
                }
                Ok(_) => {}
            }
            read.unwrap_or_default()
        };
        if let Some(text) = environment.get("ROSTER_INTERNAL_SECRET") {
            self.internal_secrets = secrets(text, ',');
            self.origins.insert("internal_secret_file", Source::Environment);
        } else if !self.internal_secret_file.as_os_str().is_empty() {
            self.internal_secrets = secret_file("internal_secret_file", &self.internal_secret_file, faults);
        }
        if self.internal_secrets.len() > 2 {
            faults.push("at most two internal secrets can be valid at a time".into());
        }
        if self.internal_secrets.iter().any(|secret| secret.len() < INTERNAL_SECRET_BYTES_MIN) {
            faults.push(format!("an internal secret must have at least {INTERNAL_SECRET_BYTES_MIN} characters: try `openssl rand -hex 32`"));
        }
        let mut one = |name: &str, path: &Path| match path.as_os_str().is_empty() {
            true => None,
            false => secret_file(name, path, faults).into_iter().next(),
        };
        self.metrics_token = one("metrics_token_file", &self.metrics_token_file);
        self.wordpress_ticket_secret = one("wordpress.ticket_secret_file", &self.wordpress_ticket_secret_file);
        self.wordpress_password = one("wordpress.password_file", &self.wordpress_password_file);
        self.authentik_token = one("authentik.token_file", &self.authentik_token_file);
        self.mail_password = one("mail.password_file", &self.mail_password_file);
        self.hook_sftpgo_key = one("hooks.sftpgo_key_file", &self.hook_sftpgo_key_file);
        self.hook_wordpress_key = one("hooks.wordpress_key_file", &self.hook_wordpress_key_file);
        self.sftpgo_secret = one("sftpgo.secret_file", &self.sftpgo_secret_file);
        for provider in &mut self.providers {
            let name = format!("oidc {}: client_secret_file", provider.name);
            provider.client_secret = one(&name, &provider.client_secret_file);
        }
    }

    /// Whether WordPress is configured with an administrator account for its API.
    pub fn has_wordpress_administrator(&self) -> bool {
        !self.wordpress_url.is_empty() && !self.wordpress_username.is_empty() && self.wordpress_password.is_some()
    }

    /// Whether SFTPGo accounts are provisioned.
    pub fn has_sftpgo(&self) -> bool {
        !self.sftpgo_url.is_empty()
    }

    /// The `iss` of access tokens.
    pub fn issuer(&self) -> String {
        if self.issuer.is_empty() { self.public_url() } else { self.issuer.clone() }
    }

    /// The path of the public address: empty, or with a leading slash. It is not empty if a proxy serves this site
    /// below a path.
    pub fn public_path(&self) -> &str {
        let below_scheme = self.public_url.split_once("://").map_or(&*self.public_url, |(_, rest)| rest);
        below_scheme.find('/').map_or("", |at| &below_scheme[at..])
    }

    /// The path of the API for browsers, which the paths of operations are appended to.
    pub fn api_path(&self) -> String {
        format!("{}{}", self.public_path(), self.base_path)
    }

    pub fn public_url(&self) -> String {
        let listening = || format!("{}://{}", self.scheme(), self.listen);
        if self.public_url.is_empty() { listening() } else { self.public_url.clone() }
    }

    /// The `ROSTER_…` variables that name no setting, because of a typing error or because they are for another
    /// program; each with a "did you mean" suggestion, if any.
    pub fn unknown_variables() -> Vec<String> {
        const OTHERS: [&str; 3] = ["ROSTER_DATA", "ROSTER_CONFIG", "ROSTER_INTERNAL_SECRET"];
        let known: Vec<String> = Self::described().iter().map(|setting| setting.variable()).collect();
        #[expect(clippy::disallowed_methods, reason = "only this module reads the environment")]
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        names
            .filter(|name| name.starts_with("ROSTER_") && !OTHERS.contains(&name.as_str()) && !known.contains(name))
            .map(|name| format!("{name}{}", did_you_mean(&name, known.iter().map(String::as_str))))
            .collect()
    }

    pub fn database_file(&self) -> PathBuf {
        self.data.join("roster.db")
    }

    pub fn encryption_key_file(&self) -> PathBuf {
        let set = &self.encryption_key_file;
        if set.as_os_str().is_empty() { self.data.join("encryption.key") } else { set.clone() }
    }
}

/// The number of threads that the machine can run in parallel.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// The path of the running executable.
pub fn current_executable() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// Files that operating systems create, and names that clients give to incomplete uploads.
const IGNORED_NAMES: [&str; 11] = [
    ".*",
    "*.part",
    "*.partial",
    "*.filepart",
    "*.crdownload",
    "*.download",
    "*.tmp",
    "*~",
    "Thumbs.db",
    "desktop.ini",
    "Icon\r",
];

pub const FILE_NAME: &str = "roster.toml";

/// The `ROSTER_…` variables. `DEBUG` is an alias of `ROSTER_DEBUG` if that is not set; it is ignored if its value is
/// not a boolean, because it is then meant for another program.
fn own_variables(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let mut own: BTreeMap<String, String> = all
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with("ROSTER_") || name == "DEBUG")
        .collect();
    if let Some(plain) = own.remove("DEBUG").filter(|text| bool::read(&bool::of_text(text)).is_ok()) {
        own.entry(in_force::variable("debug")).or_insert(plain);
    }
    own
}

/// An internal secret gives access to every member. This limit only refuses careless ones; `openssl rand -hex 32` makes
/// a good one.
const INTERNAL_SECRET_BYTES_MIN: usize = 8;

/// `roster.toml` as `init` writes it: every setting with its default, commented out.
pub fn template() -> String {
    let mut text =
        String::from("# Settings of this Roster. Every line shows a default; take the # away to change one.\n");
    for setting in Config::described() {
        text.push_str(&format!("\n# {}\n# {} = {}\n", setting.about, setting.name, setting.default));
    }
    text.push_str(providers::TEMPLATE);
    text
}

/// Describes a TOML syntax error: its line, column and cause. A duplicate key is named.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let span = error.span().unwrap_or_default();
    let before = text.get(..span.start).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    let is_twice = error.message().contains("duplicate key");
    let key = text.get(span).filter(|key| is_twice && !key.contains('\n'));
    let key = key.map_or_else(String::new, |key| format!(" `{}`", key.trim()));
    format!(" at line {line}, column {column}: {}{key}", error.message())
}

fn flattened(prefix: &str, table: &toml::Table) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => all.extend(flattened(&name, inner)),
            other => all.push((name, other.clone())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let mut config = Config::of(Path::new("data"));
        let mut faults = Vec::new();
        let table = text.parse::<toml::Table>().expect("the test's own TOML");
        config.set_all(&table, &mut faults);
        config.check(&mut faults);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    #[test]
    fn the_template_sets_nothing_and_would_set_the_defaults() {
        let settings = template().replace(crate::kernel::config::providers::TEMPLATE, "");
        let active = settings
            .lines()
            .filter(|line| line.starts_with("# ") && line.contains(" = "))
            .map(|l| &l[2..])
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(read(&template()).expect("template").shown(), Config::of(Path::new("data")).shown());
        assert_eq!(read(&active).expect("uncommented").shown(), Config::of(Path::new("data")).shown());
    }

    #[test]
    fn load_reports_all_faults() {
        let faults = read("listne = 1\nlisten = \"here\"\nauth.access_token_ttl_s = 0\ncors.origins = [\"*\"]")
            .expect_err("four faults");
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("did you mean listen?")), "{faults:?}");
    }

    #[test]
    fn ineffective_and_incomplete_settings_are_refused() {
        for (line, why) in [
            ("log.level = \"verbose\"", "log.level has \"verbose\", which is not a level: use one of error, warn,"),
            ("log.level = \"warning\"", "log.level has \"warning\", which is not a level (did you mean warn?)"),
            ("log.level = \"info,roster=debg\"", "log.level has \"debg\", which is not a level (did you mean debug?)"),
            ("log.level = \"\"", "log.level has \"\""),
            (
                "public_url = \"roster.example.org\"",
                "public_url must begin with https:// or http://, as in https://roster.example.org",
            ),
            ("public_url = \"https://\"", "public_url must"),
            ("public_url = \"https://a b\"", "public_url must be an address"),
            ("public_url = \"https://a.example.org/\"", "public_url must not end with a slash"),
            ("mail.host = \"mail.example.org\"", "mail.from is missing: it goes together with mail.host"),
            ("mail.from = \"a@example.org\"", "mail.host is missing: it goes together with mail.from"),
            ("wordpress.username = \"kim\"", "wordpress.password_file is missing"),
        ] {
            let faults = read(line).expect_err(line);
            assert!(faults.iter().any(|fault| fault.starts_with(why)), "{line}: {faults:?}");
        }
        for line in ["log.level = \"INFO, roster=debug\"", "log.level = \"off\"", "public_url = \"http://[::1]:80/id\""]
        {
            assert!(read(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_position_and_a_duplicate_key() {
        for (text, why) in [
            ("debug = true\nlisten = \n", " at line 2, column "),
            ("debug = true\n\nlisten = \"a\"\nlisten = \"b\"\n", " at line 4, column 1: duplicate key `listen`"),
        ] {
            let message = not_toml(text, &text.parse::<toml::Table>().expect_err("no TOML"));
            assert!(message.starts_with(why), "{message}");
        }
    }

    #[test]
    fn contradictory_sftpgo_settings_are_refused() {
        let faults =
            read("media_root = \"media\"\nsftpgo.url = \"http://127.0.0.1/api/v2\"\nsftpgo.home = \"/srv/media\"")
                .expect_err("three faults");
        assert_eq!(faults.len(), 3, "{faults:?}");
        let mut config = read("media_root = \"/srv\"\nsftpgo.home = \"/srv/{username}\"").expect("settings");
        for (characters, count) in [(31, 1), (32, 0)] {
            config.hook_sftpgo_key = Some("k".repeat(characters));
            let mut faults = Vec::new();
            config.check(&mut faults);
            assert_eq!(faults.len(), count, "{faults:?}");
        }
    }

    #[test]
    fn a_base_path_is_a_prefix_that_the_router_takes() {
        for (set, kept) in [("", ""), ("/", ""), ("/api/v1", "/api/v1"), ("/a-b._~/9", "/a-b._~/9"), ("/mex", "/mex")] {
            assert_eq!(read(&format!("base_path = {set:?}")).expect(set).base_path, kept);
        }
        for (set, why) in [
            ("api", "must begin with a slash, as in /api/v1"),
            ("/api/", "must not end with a slash"),
            ("//", "must not end with a slash"),
            ("//api", "must not contain an empty segment, . or .."),
            ("/api//v1", "must not contain an empty segment, . or .."),
            ("/api/../v1", "must not contain an empty segment, . or .."),
            ("/.", "must not contain an empty segment, . or .."),
            ("/:tenant", "contains ':': its segments can contain only letters, digits, - . _ and ~"),
            ("/a*", "contains '*': its segments can contain only letters, digits, - . _ and ~"),
            ("/a{b}", "contains '{': its segments can contain only letters, digits, - . _ and ~"),
            ("/a<b>", "contains '<': its segments can contain only letters, digits, - . _ and ~"),
            ("/a%20b", "contains '%': its segments can contain only letters, digits, - . _ and ~"),
            ("/a?b", "contains '?': its segments can contain only letters, digits, - . _ and ~"),
            ("https://a.example.org", "must begin with a slash, as in /api/v1"),
            ("/me", "must not begin with /me: this path is reserved"),
            ("/console/api", "must not begin with /console: this path is reserved"),
            ("/.well-known", "must not begin with /.well-known: this path is reserved"),
        ] {
            assert_eq!(read(&format!("base_path = {set:?}")).expect_err(set), [format!("base_path {why}")]);
        }
    }

    #[test]
    fn the_api_path_is_the_path_of_the_public_address_and_the_base_path() {
        for (public_url, base_path, api_path) in [
            ("", "/api/v1", "/api/v1"),
            ("https://a.example.org", "/api/v1", "/api/v1"),
            ("https://a.example.org:8443/id", "/api/v1", "/id/api/v1"),
            ("https://a.example.org/api/v1", "/", "/api/v1"),
            ("https://a.example.org", "", ""),
        ] {
            let config = read(&format!("public_url = {public_url:?}\nbase_path = {base_path:?}")).expect("settings");
            assert_eq!(config.api_path(), api_path);
        }
    }

    #[test]
    fn debug_is_an_alias_of_roster_debug_if_it_is_a_boolean() {
        for (variables, is_on) in [
            (&[("DEBUG", "1")][..], true),
            (&[("DEBUG", "true")], true),
            (&[("DEBUG", "0")], false),
            (&[("DEBUG", "app:*")], false),
            (&[("DEBUG", "")], false),
            (&[("DEBUG", "1"), ("ROSTER_DEBUG", "0")], false),
            (&[("DEBUG", "0"), ("ROSTER_DEBUG", "1")], true),
            (&[("debug", "1"), ("XDEBUG", "1")], false),
        ] {
            let environment = own_variables(variables.iter().map(|(name, value)| (name.into(), value.into())));
            let (mut config, mut faults) = (Config::of(Path::new("data")), Vec::new());
            config.set_from_environment(&environment, &mut faults);
            assert!(faults.is_empty(), "{faults:?}");
            assert_eq!(config.debug, is_on, "{variables:?}");
        }
    }

    #[test]
    fn only_settings_of_bytes_accept_units() {
        assert_eq!(read("quota.default_bytes = \"20GB\"").expect("a size").quota_default_bytes, 20_000_000_000);
        assert_eq!(read("limits.body_bytes = \"1MiB\"").expect("a size").body_bytes_max, 1_048_576);
        for wrong in
            ["quota.default_bytes = \"20 apples\"", "auth.session_ttl_s = \"20B\"", "limits.body_bytes = \"1TB\""]
        {
            assert_eq!(read(wrong).expect_err(wrong).len(), 1);
        }
    }

    #[test]
    fn numbers_are_accepted_up_to_their_bounds() {
        assert!(read("auth.access_token_ttl_s = 1").is_ok());
        assert!(read("auth.access_token_ttl_s = 86400").is_ok());
        assert!(read("auth.access_token_ttl_s = 86401").is_err());
    }
}
