//! The connections to all external systems: how each is, and its test.
//!
//! **Invariant.** A test changes nothing at the other side, runs outside of any transaction, and ends in time.

pub mod api;

use std::time::{Duration, Instant};

use crate::features::sessions::oidc::Providers;
use crate::features::webhooks;
use crate::integrations::{authentik, mail, sftpgo, wordpress};
use crate::kernel::app::App;
use crate::kernel::config::Config;
use crate::kernel::db::Reader;
use crate::kernel::error::Result;
use crate::kernel::ids::Timestamp;
use crate::kernel::outbound::connection::{
    Connection, ConnectionFailure, ConnectionKind, ConnectionRecord, FailureCause,
};
use crate::kernel::outbox::delivery::{DeliveryState, TargetKind};
use crate::kernel::outbox::delivery_store::{self, FailingDeliveries};

/// How a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    Working,
    Failing,
    /// No requests are sent for a while, because too many failed in a row.
    Paused,
    NotConfigured,
    /// No request was sent since the start of the server.
    Unknown,
}

/// What to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    NotConfigured,
    Cause(FailureCause),
}

/// A connection, and how it is.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    pub connection: Connection,
    pub state: ConnectionState,
    pub succeeded_at: Option<Timestamp>,
    pub failing_since: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    pub last_error: Option<String>,
    /// The HTTP status of the last failed answer.
    pub http_status: Option<u16>,
    /// `None` if it works, or if the cause is not known.
    pub remedy: Option<Remedy>,
    /// Seconds until requests are sent again.
    pub pause_s: Option<u64>,
    /// Deliveries that wait for it.
    pub waiting: u64,
    /// Deliveries that were given up.
    pub given_up: u64,
}

/// What the outbox knows of one kind of target.
#[derive(Debug, Clone, Default)]
struct Deliveries {
    waiting: u64,
    given_up: u64,
    failing: Option<FailingDeliveries>,
}

fn target_of(kind: ConnectionKind) -> Option<TargetKind> {
    match kind {
        ConnectionKind::Wordpress => Some(TargetKind::Wordpress),
        ConnectionKind::Sftpgo => Some(TargetKind::Sftpgo),
        ConnectionKind::Mail => Some(TargetKind::Mail),
        ConnectionKind::Webhooks => Some(TargetKind::Webhook),
        ConnectionKind::Oidc | ConnectionKind::Authentik => None,
    }
}

/// All connections, as the settings describe them. A site without a provider has one that is not configured.
fn connections(config: &Config, providers: &Providers, has_webhooks: bool) -> Vec<Connection> {
    let mut all = vec![wordpress::connection(config), sftpgo::connection(config)];
    let of_providers = providers.connections();
    if of_providers.is_empty() {
        all.push(Connection::new("oidc", ConnectionKind::Oidc, "").setting("oidc", false));
    }
    all.extend(of_providers);
    all.extend([authentik::connection(config), mail::connection(config), webhooks::connection(config, has_webhooks)]);
    all
}

/// Lists all connections with their state.
pub async fn list(app: &App, providers: &Providers) -> Result<Vec<ConnectionStatus>> {
    let read = |r: &Reader<'_>| {
        let pending = delivery_store::count(r, DeliveryState::Pending)?;
        let dead = delivery_store::count(r, DeliveryState::Dead)?;
        let number = |counts: &[(String, i64)], kind: TargetKind| {
            let found = counts.iter().find(|(known, _)| known == kind.as_str());
            found.map_or(0, |(_, count)| u64::try_from(*count).unwrap_or_default())
        };
        let of_kind = |kind: TargetKind| {
            let (waiting, given_up) = (number(&pending.counts, kind), number(&dead.counts, kind));
            let failing = if waiting == 0 { None } else { delivery_store::find_failing(r, kind)? };
            Ok((kind, Deliveries { waiting, given_up, failing }))
        };
        let deliveries = TargetKind::ALL.into_iter().map(of_kind).collect::<Result<Vec<_>>>()?;
        Ok((deliveries, webhooks::has_webhooks(r)?))
    };
    let (deliveries, has_webhooks) = app.read(read).await?;
    let of = |kind: ConnectionKind| {
        let target = target_of(kind)?;
        deliveries.iter().find(|(known, _)| *known == target).map(|(_, found)| found.clone())
    };
    let all = connections(&app.config, providers, has_webhooks).into_iter();
    Ok(all.map(|connection| status(app, &of(connection.kind).unwrap_or_default(), connection)).collect())
}

fn status(app: &App, deliveries: &Deliveries, connection: Connection) -> ConnectionStatus {
    let record = app.outbound.records.get(&connection.name);
    let pause_s = app.outbound.pause_s(&connection.url);
    let failing = deliveries.failing.as_ref().filter(|failing| is_newer(failing, &record, connection.kind));
    let state = match () {
        () if !connection.is_configured => ConnectionState::NotConfigured,
        () if pause_s.is_some() => ConnectionState::Paused,
        () if record.failing_since.is_some() || failing.is_some() => ConnectionState::Failing,
        () if record.succeeded_at.is_some() => ConnectionState::Working,
        () => ConnectionState::Unknown,
    };
    let is_bad = matches!(state, ConnectionState::Failing | ConnectionState::Paused);
    let failure = record.failure.as_ref();
    // After a restart only the outbox remembers.
    let remembered = failing.filter(|_| record.failing_since.is_none());
    let remedy = match (state, failure) {
        (ConnectionState::NotConfigured, _) => Some(Remedy::NotConfigured),
        (_, Some((_, failure))) if is_bad && remembered.is_none() => Some(Remedy::Cause(failure.cause)),
        _ => None,
    };
    ConnectionStatus {
        state,
        succeeded_at: record.succeeded_at,
        failing_since: record.failing_since.or(remembered.map(|failing| failing.since)),
        failed_at: remembered.map(|failing| failing.failed_at).or(failure.map(|(at, _)| *at)),
        last_error: match remembered {
            Some(failing) => failing.last_error.clone(),
            None => failure.map(|(_, failure)| failure.message.clone()),
        },
        http_status: failure.filter(|_| remembered.is_none()).and_then(|(_, failure)| failure.status),
        remedy,
        pause_s,
        waiting: deliveries.waiting,
        given_up: deliveries.given_up,
        connection,
    }
}

/// Whether failing deliveries say more than the record. Webhooks go to many places, so a success of one does not end the
/// failure of another.
fn is_newer(failing: &FailingDeliveries, record: &ConnectionRecord, kind: ConnectionKind) -> bool {
    kind == ConnectionKind::Webhooks || record.succeeded_at.is_none_or(|at| at < failing.failed_at)
}

/// Tests a connection that is configured, and records the outcome. Also returns how long it took.
pub async fn test(
    app: &App,
    providers: &Providers,
    connection: &Connection,
) -> (std::result::Result<(), ConnectionFailure>, Duration) {
    let (started, most_ms) = (Instant::now(), app.config.connection_test_ms);
    let tested = tokio::time::timeout(Duration::from_millis(most_ms), attempt(app, providers, connection)).await;
    let outcome = tested.unwrap_or_else(|_| {
        Err(ConnectionFailure::new(FailureCause::Timeout, format!("it did not answer within {most_ms} ms")))
    });
    app.outbound.records.record(&connection.name, &outcome);
    (outcome, started.elapsed())
}

async fn attempt(
    app: &App,
    providers: &Providers,
    connection: &Connection,
) -> std::result::Result<(), ConnectionFailure> {
    match connection.kind {
        ConnectionKind::Wordpress => wordpress::test(app).await,
        ConnectionKind::Sftpgo => sftpgo::test(app).await,
        ConnectionKind::Oidc => providers.test(app, &connection.name).await,
        ConnectionKind::Authentik => authentik::test(app).await,
        ConnectionKind::Mail => mail::test(app).await,
        // Each has a test of its own, which the operation says before.
        ConnectionKind::Webhooks => Ok(()),
    }
}
