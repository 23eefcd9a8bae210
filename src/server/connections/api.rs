//! Operations that show and test the connections to external systems.

use std::sync::Arc;

use poem_openapi::param::Path;
use poem_openapi::{Enum, Object, OpenApi};

use super::{ConnectionState, ConnectionStatus, Remedy};
use crate::features::sessions::oidc::Providers;
use crate::kernel::app::{App, Changed, Transaction};
use crate::kernel::audit_log::Entry;
use crate::kernel::authn::caller::MemberCaller;
use crate::kernel::authz;
use crate::kernel::authz::permission::Permission;
use crate::kernel::authz::principal::Identity;
use crate::kernel::error::{Error, ErrorCode, Field, Result};
use crate::kernel::http::{Reply, Tag, ok};
use crate::kernel::ids::Timestamp;
use crate::kernel::outbound::connection::{ConnectionKind, FailureCause};

/// The kind of an external system
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "ConnectionKind", remote = "ConnectionKind")]
enum ConnectionKindName {
    Wordpress,
    Sftpgo,
    /// An OpenID Connect provider
    Oidc,
    Authentik,
    /// The SMTP server
    Mail,
    /// All webhooks together
    Webhooks,
}

/// The state of a connection
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case", rename = "ConnectionState", remote = "ConnectionState")]
enum ConnectionStateName {
    /// The last request succeeded
    Working,
    /// The last request failed
    Failing,
    /// Too many requests failed in a row: none are sent until `paused_until`
    Paused,
    NotConfigured,
    /// No request was sent since the start of the server
    Unknown,
}

/// What to do about a connection, by the cause of its last failure
#[derive(Enum, Debug, Clone, Copy, PartialEq, Eq)]
#[oai(rename_all = "snake_case")]
enum ConnectionRemedy {
    /// Set the settings
    NotConfigured,
    /// Correct the credentials
    Unauthorized,
    /// Give the account the permission
    Forbidden,
    /// Correct the path of the address
    NotFound,
    /// Set the address that it redirects to
    Redirected,
    /// Wait, or raise the limit at the other side
    RateLimited,
    /// See the log of the other side
    ServerError,
    /// Check what answers at the address
    UnexpectedAnswer,
    /// Correct or trust the certificate
    Certificate,
    /// Set the clocks
    Clock,
    /// Correct the name of the host, or the name server
    NameNotResolved,
    /// Start the other side, or correct the port
    Refused,
    /// Check network and firewall
    Unreachable,
    /// Check why it does not answer in time
    Timeout,
}

impl From<Remedy> for ConnectionRemedy {
    fn from(remedy: Remedy) -> Self {
        match remedy {
            Remedy::NotConfigured => Self::NotConfigured,
            Remedy::Cause(cause) => match cause {
                FailureCause::Unauthorized => Self::Unauthorized,
                FailureCause::Forbidden => Self::Forbidden,
                FailureCause::NotFound => Self::NotFound,
                FailureCause::Redirected => Self::Redirected,
                FailureCause::RateLimited => Self::RateLimited,
                FailureCause::ServerError => Self::ServerError,
                FailureCause::UnexpectedAnswer => Self::UnexpectedAnswer,
                FailureCause::Certificate => Self::Certificate,
                FailureCause::Clock => Self::Clock,
                FailureCause::NameNotResolved => Self::NameNotResolved,
                FailureCause::Refused => Self::Refused,
                FailureCause::Unreachable => Self::Unreachable,
                FailureCause::Timeout => Self::Timeout,
            },
        }
    }
}

/// A setting of a connection, without its value
#[derive(Object)]
struct ConnectionSetting {
    name: String,
    is_set: bool,
}

/// A connection to an external system
#[derive(Object)]
#[oai(rename = "Connection")]
struct ConnectionView {
    /// `wordpress`, `sftpgo`, `authentik`, `mail`, `webhooks`, or `oidc-` and the name of the provider in the settings
    name: String,
    kind: ConnectionKindName,
    state: ConnectionStateName,
    /// Host, and the port if the settings name one
    #[oai(nullable)]
    address: Option<String>,
    /// Whether it can be tested: it is configured, and is not the group of webhooks
    is_testable: bool,
    /// Since the start of the server, in Unix milliseconds
    #[oai(nullable)]
    last_success_at: Option<i64>,
    /// The first failure since the last success, in Unix milliseconds
    #[oai(nullable)]
    failing_since: Option<i64>,
    /// The last failure, also if a success followed, in Unix milliseconds
    #[oai(nullable)]
    last_error_at: Option<i64>,
    /// In the words of the other side, of at most 300 characters
    #[oai(nullable)]
    last_error: Option<String>,
    /// The HTTP status of the last failed answer
    #[oai(nullable)]
    http_status: Option<u16>,
    /// Null if it works, or if the cause is not known
    #[oai(nullable)]
    remedy: Option<ConnectionRemedy>,
    /// When requests are sent again, in Unix milliseconds; null unless it is paused
    #[oai(nullable)]
    paused_until: Option<i64>,
    /// Deliveries that wait for it
    waiting: u64,
    /// Deliveries that were given up
    given_up: u64,
    /// Its settings. Values are not shown, because some are secret
    settings: Vec<ConnectionSetting>,
}

impl From<ConnectionStatus> for ConnectionView {
    fn from(found: ConnectionStatus) -> Self {
        let ms = |at: Option<Timestamp>| at.map(|at| at.0);
        let until = found.pause_s.map(|s| Timestamp::now().plus_ms(i64::try_from(s * 1_000).unwrap_or(i64::MAX)));
        let connection = found.connection;
        let settings = connection.settings.iter();
        Self {
            address: connection.address(),
            is_testable: connection.is_configured && connection.kind != ConnectionKind::Webhooks,
            settings: settings.map(|one| ConnectionSetting { name: one.name.clone(), is_set: one.is_set }).collect(),
            name: connection.name,
            kind: connection.kind.into(),
            state: found.state.into(),
            last_success_at: ms(found.succeeded_at),
            failing_since: ms(found.failing_since),
            last_error_at: ms(found.failed_at),
            last_error: found.last_error,
            http_status: found.http_status,
            remedy: found.remedy.map(ConnectionRemedy::from),
            paused_until: ms(until),
            waiting: found.waiting,
            given_up: found.given_up,
        }
    }
}

/// All connections
#[derive(Object)]
struct Connections {
    items: Vec<ConnectionView>,
}

/// The result of a connection test
#[derive(Object)]
struct ConnectionTest {
    ok: bool,
    duration_ms: u64,
    /// The connection after the test. Its `last_error` and `remedy` say why the test failed
    connection: ConnectionView,
}

crate::document! {
    test_connection: [ConnectionNotFound, NotConfigured];
}

pub struct Api {
    pub app: Arc<App>,
    pub providers: Arc<Providers>,
}

#[OpenApi(prefix_path = "/admin/connections", tag = "Tag::System")]
impl Api {
    /// List the connections to external systems
    ///
    /// WordPress, SFTPGo, each OpenID Connect provider, Authentik, the SMTP server, and all webhooks together: how the
    /// last requests went since the start of the server, what waits, and what to do. Sends no request.
    #[oai(path = "/", method = "get", operation_id = "list_connections")]
    async fn list_connections(&self, caller: MemberCaller) -> Reply<Connections> {
        authz::require(&self.app.snapshot(), &caller, Permission::CONNECTION_LIST)?;
        let found = super::list(&self.app, &self.providers).await?;
        Ok(ok(Connections { items: found.into_iter().map(ConnectionView::from).collect() }))
    }

    /// Test a connection
    ///
    /// Sends requests that change nothing, within `neighbours.test_ms`: WordPress shows its own account, SFTPGo its
    /// version and a user, a provider its discovery document and keys, Authentik the owner of the token; the SMTP server
    /// gets no mail. It is tested also while it is paused, and a success ends the pause. Each webhook has a test of its
    /// own (`test_webhook`).
    #[oai(path = "/:name/test", method = "post", operation_id = "test_connection")]
    async fn test_connection(&self, caller: MemberCaller, name: Path<String>) -> Reply<ConnectionTest> {
        authz::require(&self.app.snapshot(), &caller, Permission::CONNECTION_TEST)?;
        let found = self.find(&name.0).await?.connection;
        if found.kind == ConnectionKind::Webhooks {
            let message = "has no test: test each webhook";
            return Err(Error::fields(vec![Field::at(&["path", "name"], message)]).into());
        }
        if !found.is_configured {
            return Err(ErrorCode::NotConfigured.into());
        }
        let entry = Entry::new("connection", &found.name);
        let record = move |t: &Transaction<'_>, caller: &Identity| {
            authz::require(t.snapshot(), caller, Permission::CONNECTION_TEST)?;
            Ok(Changed::new((), entry))
        };
        self.app.change(&caller, "connection.test", record).await?;
        let (outcome, duration) = super::test(&self.app, &self.providers, &found).await;
        Ok(ok(ConnectionTest {
            ok: outcome.is_ok(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            connection: self.find(&found.name).await?.into(),
        }))
    }
}

impl Api {
    async fn find(&self, name: &str) -> Result<ConnectionStatus> {
        let all = super::list(&self.app, &self.providers).await?;
        let found = all.into_iter().find(|status| status.connection.name == name);
        found.ok_or_else(|| ErrorCode::ConnectionNotFound.into())
    }
}
