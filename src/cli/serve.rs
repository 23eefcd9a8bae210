//! `roster serve`: the server, from lock to last commit.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use poem::listener::{Acceptor, Listener, TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Common, Failed, Site, directory, open, process};
use crate::app::{App, keys};
use crate::config::{Config, LogFormat};
use crate::connect::{deliver, sftpgo};
use crate::routes::listener;
use crate::videos::jobs;
use crate::{clients, members, sessions, videos};

/// How long requests may finish after a stop signal.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How often last use is written.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// How often old answers are forgotten, and the policy is compared with the rows.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// How often leases of jobs are looked at that ran out; every claim looks too.
const LEASES_EVERY: Duration = Duration::from_secs(5);

pub async fn run(common: &Common, listen: Option<SocketAddr>) -> Result<(), Failed> {
    process::close_memory().map_err(|e| Failed(format!("the memory of the server cannot be closed to others: {e}")))?;
    directory::create(&common.data)?;
    let mut lock = match directory::lock(&common.data)? {
        directory::Owner::Us(lock) => lock,
        directory::Owner::Server(_) => {
            return Err(Failed(format!(
                "another Roster serves {} already: stop it, or use another --data",
                common.data.display()
            )));
        }
    };
    let config = common.load(listen)?;
    log_to_stderr(&config);
    for name in Config::unknown_variables() {
        tracing::warn!(name, "this variable names no setting and is ignored");
    }
    let address = config.listen;
    let public_url = config.public_url.clone();
    let connections_max = process::connections(config.connections_max);
    let Site { app, endpoint } = open(config).await?;
    give_memory_back();
    let socket = directory::socket_path(&common.data)?;
    remove_stale(&socket)?;
    let unix = UnixListener::bind(socket.clone())
        .with_permissions(std::fs::Permissions::from_mode(0o600))
        .into_acceptor()
        .await;
    let unix = unix.map_err(|e| Failed(format!("{} cannot be opened: {e}", socket.display())))?;
    let tcp = TcpListener::bind(address)
        .into_acceptor()
        .await
        .map_err(|e| Failed(format!("{address} cannot be listened on: {e}")))?;
    let bound = tcp.local_addr().first().and_then(|addr| addr.as_socket_addr().copied()).unwrap_or(address);
    let stop = stop_signal(app.clone())?;
    app.sweep_plugins().await;
    let compiling = (!app.ready_cached_plugins().await).then(|| tokio::spawn(ready_plugins(app.clone())));
    // What ended while nothing ran ends before anybody asks.
    end_what_is_over(&app).await;
    lock.announce(&socket)?;
    announce(common, &app, bound, &public_url).await?;
    let upkeep = tokio::spawn(keep_up(app.clone()));
    let deliverer = tokio::spawn(deliver::run(app.clone()));
    let comparer = tokio::spawn(sftpgo::reconcile::run(app.clone()));
    let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
    listener::Listener::new(&app.config, connections_max, endpoint).run(tcp, unix, stop, STOP_WAIT).await;
    upkeep.abort();
    deliverer.abort();
    if let Some(compiling) = compiling {
        compiling.abort();
    }
    comparer.abort();
    for flushed in [clients::flush_last_used(&app).await, app.flush_denials().await] {
        if let Err(e) = flushed {
            tracing::warn!(error = %e, "the last figures were not written");
        }
    }
    app.close().await;
    lock.announce(Path::new(""))?;
    remove_stale(&socket)?;
    directory::remove_short(&socket)?;
    Ok(())
}

/// The document, the policy and the settings were read in many small pieces, which nobody needs again. An idle server
/// allocates too little for its allocator to notice that they are free.
#[expect(unsafe_code, reason = "a function of C without conditions: it collects what this thread has freed")]
fn give_memory_back() {
    unsafe { libmimalloc_sys::mi_collect(true) }
}

fn remove_stale(socket: &PathBuf) -> Result<(), Failed> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failed(format!("{} cannot be removed: {e}", socket.display())))
        }
        _ => Ok(()),
    }
}

fn log_to_stderr(config: &Config) {
    let level = if config.debug { "debug" } else { &config.log_level };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (a test) keeps the first one's log.
    let _ = match config.log_format {
        LogFormat::Text => base.with_ansi(false).try_init(),
        LogFormat::Json => base.json().try_init(),
    };
}

/// Says where the server listens, and how the first administrator is made.
async fn announce(common: &Common, app: &Arc<App>, bound: SocketAddr, public_url: &str) -> Result<(), Failed> {
    let url = if public_url.is_empty() { format!("http://{bound}") } else { public_url.to_owned() };
    // Set once, here.
    let _ = app.url.set(url.clone());
    let setup_url = if members::is_set_up(app).await? {
        None
    } else {
        Some(format!("{url}/setup?token={}", app.new_setup_token().await?))
    };
    if common.json {
        let mut line = serde_json::json!({"listening": bound.to_string()});
        if let Some(setup_url) = setup_url {
            line["setup_url"] = setup_url.into();
        }
        println!("{line}");
        return Ok(());
    }
    println!("Roster {} serves {} on {url}", env!("CARGO_PKG_VERSION"), common.data.display());
    println!("API documentation: {url}{}/docs", app.config.base_path);
    if let Some(setup_url) = setup_url {
        println!(
            "\nMake the first administrator within {} minutes:\n  {setup_url}",
            app.config.setup_link_ttl_s.div_ceil(60)
        );
        println!("(`roster setup-link` prints a new link; `roster init` does the same without a browser.)");
    }
    Ok(())
}

/// Hears the signals that stop the server, from now on: before anybody is told that it runs.
fn stop_signal(app: Arc<App>) -> Result<impl Future<Output = ()>, Failed> {
    let heard = |kind: SignalKind| signal(kind).map_err(|e| Failed(format!("signals cannot be heard: {e}")));
    let (mut interrupt, mut terminate) = (heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        app.stop_waiting();
    })
}

/// What must be compiled first does not keep the server from starting; who asks it in the meantime waits for it.
async fn ready_plugins(app: Arc<App>) {
    app.ready_plugins().await;
}

/// Each part by itself: what fails keeps nothing else from being done.
async fn end_what_is_over(app: &App) {
    let parts = [
        ("requests", app.forget_old_requests().await),
        ("sessions", sessions::tidy(app).await),
        ("signing keys", keys::tend(app).await),
        ("API keys", clients::keys::tend(app).await),
        ("password hashes", members::password::recount(app).await),
        ("jobs", jobs::forget_done(app).await),
        ("videos", videos::tend(app).await),
        ("deliveries", deliver::tidy(app).await),
    ];
    for (part, done) in parts {
        if let Err(e) = done {
            tracing::warn!(error = %e, part, "upkeep failed and will be tried again");
        }
    }
}

async fn keep_up(app: Arc<App>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    let mut leases = tokio::time::interval(LEASES_EVERY);
    // The first tick is immediate; there is nothing to do yet.
    flush.tick().await;
    tidy.tick().await;
    loop {
        let outcome = tokio::select! {
            _ = flush.tick() => match clients::flush_last_used(&app).await {
                Ok(()) => app.flush_denials().await,
                failed => failed,
            },
            _ = tidy.tick() => {
                end_what_is_over(&app).await;
                app.reload().await.map(drop)
            }
            _ = leases.tick() => jobs::tend(&app).await,
        };
        if let Err(e) = outcome {
            tracing::warn!(error = %e, "upkeep failed and will be tried again");
        }
    }
}
