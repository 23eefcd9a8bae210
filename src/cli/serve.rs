//! `roster serve`: the server, from lock to last commit.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use poem::listener::{Acceptor, Listener, TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::{Common, Failed, NEEDS_A_PERSON, Site, data_dir, memory, open, process};
use crate::features::{api_clients, api_keys, jobs, members, quotas, sessions};
use crate::integrations::sftpgo;
use crate::kernel::app::watch::{self, supervise};
use crate::kernel::app::{App, keys};
use crate::kernel::config::Config;
use crate::kernel::error::ErrorCode;
use crate::kernel::runtime::health::Fault;
use crate::kernel::runtime::log;
use crate::server::{deliver, listener};

/// How long requests may finish after a stop signal.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How often last use is written.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// How often old answers are forgotten, and the policy is compared with the rows.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// How often leases of jobs are looked at that ran out; every claim looks too.
const LEASES_EVERY: Duration = Duration::from_secs(5);

pub async fn run(common: &Common, listen: Option<SocketAddr>) -> Result<ExitCode, Failed> {
    process::close_memory().map_err(|e| Failed(format!("the memory of the server cannot be closed to others: {e}")))?;
    data_dir::create(&common.data)?;
    let mut lock = data_dir::lock_to_serve(&common.data).await?;
    let config = common.load(listen)?;
    log::start(&config)?;
    for name in Config::unknown_variables() {
        tracing::warn!(name, "this variable names no setting and is ignored");
    }
    let address = config.listen;
    let public_url = config.public_url.clone();
    let connections_max = process::connections(config.connections_max);
    let Site { app, endpoint } = match open(config).await {
        Err(e) if matches!(e.cause, ErrorCode::DatabaseLost | ErrorCode::DatabaseDamaged) => {
            log::flush();
            super::fail(&e.into(), common.json);
            return Ok(ExitCode::from(NEEDS_A_PERSON));
        }
        opened => opened?,
    };
    app.health().watch(lock.place(), LOCK_LOST);
    // The document, the policy and the settings were read in many small pieces, which nobody needs again.
    memory::collect();
    let socket = data_dir::socket_path(&common.data)?;
    remove_stale(&socket)?;
    let unix = UnixListener::bind(socket.clone())
        .with_permissions(std::fs::Permissions::from_mode(0o600))
        .into_acceptor()
        .await;
    let unix = unix.map_err(|e| Failed(format!("{} cannot be opened: {e}", socket.display())))?;
    let tcp = TcpListener::bind(address).into_acceptor().await.map_err(|e| not_listening(address, &e))?;
    let bound = tcp.local_addr().first().and_then(|addr| addr.as_socket_addr().copied()).unwrap_or(address);
    let stop = stop_signal(app.clone())?;
    let reloader = reload_on_hangup(common, &app, listen)?;
    app.sweep_plugins().await;
    let compiling = (!app.ready_cached_plugins().await).then(|| tokio::spawn(ready_plugins(app.clone())));
    // Rows that expired while the server was down are deleted before the first request.
    end_what_is_over(&app).await;
    if let Err(e) = lock.announce(&socket) {
        // Commands look at the usual place too.
        tracing::warn!(error = %e, "roster.lock cannot be written");
    }
    announce(common, &app, bound, &public_url).await;
    let tasks = tasks(&app);
    let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
    let listener = listener::Listener::new(&app.config, connections_max, endpoint);
    tokio::select! {
        () = listener.run(tcp, unix, stop, STOP_WAIT) => {}
        // On this thread, whose heap has what was loaded at the start.
        () = memory::keep_small(&app) => {}
    }
    tasks.iter().chain(&compiling).chain([&reloader]).for_each(JoinHandle::abort);
    finish(&app, &mut lock).await;
    remove_stale(&socket)?;
    data_dir::remove_short(&socket)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes when clients and keys were last used.
async fn flush_last_used(app: &App) -> crate::kernel::error::Result<()> {
    api_keys::flush_last_used(app).await?;
    api_clients::flush_last_used(app).await
}

/// Why nothing listens at this address; where it is taken, which one to try.
fn not_listening(address: SocketAddr, error: &std::io::Error) -> Failed {
    let next = address.port().checked_add(1).map(|port| SocketAddr::new(address.ip(), port));
    let mapper_answers = match next.filter(|_| error.kind() == std::io::ErrorKind::AddrInUse) {
        Some(next) => format!(": another program has it. Stop that one, or try --listen {next}"),
        None => String::new(),
    };
    Failed(format!("{address} cannot be listened on: {error}{mapper_answers}"))
}

/// Writes what is left, and closes the files.
async fn finish(app: &App, lock: &mut data_dir::Lock) {
    for flushed in [flush_last_used(app).await, app.flush_denials().await] {
        if let Err(e) = flushed {
            tracing::warn!(error = %e, "the last figures were not written");
        }
    }
    app.close().await;
    if let Err(e) = lock.announce(Path::new("")) {
        tracing::warn!(error = %e, "roster.lock cannot be written");
    }
}

/// The background tasks.
fn tasks(app: &Arc<App>) -> [JoinHandle<()>; 5] {
    [
        supervise(app, task_fault("upkeep", "upkeep_failed"), scheduler),
        supervise(app, task_fault("deliveries", "deliveries_failed"), deliver::run),
        supervise(app, task_fault("sftpgo", "sftpgo_failed"), sftpgo::reconcile::run),
        supervise(app, task_fault("mark", "mark_failed"), watch::keep_mark),
        supervise(app, task_fault("pages", "pages_failed"), watch::check_pages),
    ]
}

const LOCK_LOST: Fault = Fault {
    part: "lock",
    word: "lock_lost",
    message: "the file roster.lock was removed or replaced while Roster runs: restart Roster",
    is_fatal: false,
};

const fn task_fault(part: &'static str, word: &'static str) -> Fault {
    Fault { part, word, message: "this task failed and was restarted: see the log", is_fatal: false }
}

/// SIGHUP takes over what can change while the server runs, which is the level of the log. Without a handler it would
/// end the server in the middle of its work.
fn reload_on_hangup(common: &Common, app: &Arc<App>, listen: Option<SocketAddr>) -> Result<JoinHandle<()>, Failed> {
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| Failed(format!("signals cannot be heard: {e}")))?;
    let (common, app) = (common.clone(), app.clone());
    Ok(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match common.load(listen) {
                Ok(config) => {
                    log::reload(&config);
                    tracing::info!(level = config.log_level, "the settings were read again");
                    let before = app.config.shown();
                    let changed = before.into_iter().zip(config.shown()).filter(|(old, new)| old.1 != new.1);
                    for ((name, _), _) in changed.filter(|((name, _), _)| *name != "log.level") {
                        tracing::warn!(setting = name, "this setting has changed and takes a restart");
                    }
                }
                Err(Failed(why)) => tracing::error!("nothing was taken over: {why}"),
            }
        }
    }))
}

fn remove_stale(socket: &PathBuf) -> Result<(), Failed> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failed(format!("{} cannot be removed: {e}", socket.display())))
        }
        _ => Ok(()),
    }
}

/// Says where the server listens, and how the first administrator is made.
async fn announce(common: &Common, app: &Arc<App>, bound: SocketAddr, public_url: &str) {
    let url = if public_url.is_empty() { format!("http://{}", reachable(bound)) } else { public_url.to_owned() };
    // Set once, here.
    let _ = app.url.set(url.clone());
    let setup_url = setup_url(app, &url).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, "there is no set-up link: `roster setup-link` tries again");
        None
    });
    if common.json {
        let mut line = serde_json::json!({"listening": bound.to_string(), "url": url});
        if let Some(setup_url) = setup_url {
            line["setup_url"] = setup_url.into();
        }
        say!("{line}");
        return;
    }
    say!("Roster {} serves {} on {url}", env!("CARGO_PKG_VERSION"), common.data.display());
    if public_url.is_empty() && bound.ip().is_unspecified() {
        say!("On this computer also: http://localhost:{}", bound.port());
    }
    if public_url.is_empty() && !bound.ip().is_loopback() {
        say!("Browsers keep a sign-in over https only: put a proxy before it, and set public_url.");
    }
    say!("API documentation: {url}{}/docs", app.config.base_path);
    if let Some(setup_url) = setup_url {
        say!(
            "\nMake the first administrator within {} minutes:\n  {setup_url}",
            app.config.setup_link_ttl_s.div_ceil(60)
        );
        say!("(`roster setup-link` prints a new link; `roster init` does the same without a browser.)");
    }
}

/// Where others reach what listens at this address: one that stands for all of this computer's is none to go to.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Of an address that only examples have: nothing is sent, the system only says what it would send from.
    let own = |(here, there): (&str, &str)| {
        let socket = std::net::UdpSocket::bind(here).ok()?;
        socket.connect(there).ok()?;
        socket.local_addr().ok().map(|own| own.ip()).filter(|own| !own.is_unspecified())
    };
    let routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let taken = if bound.is_ipv4() { &routes[..1] } else { &routes[..] };
    let own = taken.iter().copied().find_map(own).unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(own, bound.port())
}

async fn setup_url(app: &App, url: &str) -> crate::kernel::error::Result<Option<String>> {
    if members::is_set_up(app).await? {
        return Ok(None);
    }
    Ok(Some(format!("{url}/setup?token={}", app.new_setup_token().await?)))
}

/// Installs the handlers of stop signals. Called before the server announces that it runs.
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
        ("requests of erased members", app.forget_erased().await),
        ("sessions", sessions::purge_expired(app).await),
        ("signing keys", keys::maintain(app).await),
        ("API keys", api_keys::maintain(app).await),
        ("password hashes", members::password::recount(app).await),
        ("jobs", jobs::forget_done(app).await),
        ("videos", quotas::maintain(app).await),
        ("deliveries", deliver::purge_expired(app).await),
        ("sftpgo", sftpgo::tidy(app).await),
    ];
    for (part, done) in parts {
        if let Err(e) = done {
            tracing::warn!(error = %e, part, "upkeep failed and will be tried again");
        }
    }
}

async fn scheduler(app: Arc<App>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    let mut leases = tokio::time::interval(LEASES_EVERY);
    // The first tick is immediate; there is nothing to do yet.
    flush.tick().await;
    tidy.tick().await;
    loop {
        let outcome = tokio::select! {
            _ = flush.tick() => match flush_last_used(&app).await {
                Ok(()) => app.flush_denials().await,
                failed => failed,
            },
            _ = tidy.tick() => {
                end_what_is_over(&app).await;
                app.reload(None).await.map(drop)
            }
            _ = leases.tick() => jobs::maintain(&app).await,
        };
        if let Err(e) = outcome {
            tracing::warn!(error = %e, "upkeep failed and will be tried again");
        }
    }
}
