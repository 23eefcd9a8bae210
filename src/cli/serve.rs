//! `roster serve`: starts the server, runs its background tasks, and stops it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use poem::listener::{Acceptor, Listener, TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::{Common, EXIT_NEEDS_OPERATOR, Failed, Site, data_dir, memory, open, process};
use crate::features::{api_clients, api_keys, jobs, members, quotas, sessions};
use crate::integrations::sftpgo;
use crate::kernel::app::watch::{self, supervise};
use crate::kernel::app::{App, keys};
use crate::kernel::config::Config;
use crate::kernel::error::ErrorCode;
use crate::kernel::runtime::health::Fault;
use crate::kernel::runtime::log;
use crate::server::listener::tls::Tls;
use crate::server::{deliver, listener};

/// How long requests may finish after a stop signal.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How often last-use times are written.
const FLUSH_EVERY: Duration = Duration::from_secs(60);
/// How often expired rows are deleted, and the policy snapshot is compared with the rows and repaired.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// How often expired leases of jobs are collected. Every claim does so too.
const LEASES_EVERY: Duration = Duration::from_secs(5);

const OPEN_WITHOUT_TLS: &str = "other computers reach this server without TLS, so passwords and tokens can be read on the \
    way: set tls.mode (`roster help tls`), or put a proxy with TLS in front and set public_url and trusted_proxies";

/// Runs the server until a stop signal. Returns exit status 78 if the database is lost or damaged.
pub async fn run(common: &Common, listen: Option<SocketAddr>) -> Result<ExitCode, Failed> {
    process::protect_memory().map_err(|e| Failed(format!("the memory of the server cannot be protected: {e}")))?;
    data_dir::create(&common.data)?;
    let mut lock = data_dir::lock_to_serve(&common.data).await?;
    let config = common.load(listen)?;
    log::start(&config)?;
    for name in Config::unknown_variables() {
        tracing::warn!(name, "this variable names no setting and is ignored");
    }
    if config.is_open_without_tls() {
        tracing::warn!(listen = %config.listen, "{OPEN_WITHOUT_TLS}");
    }
    let tls = Tls::open(&config).map_err(Failed)?;
    let address = config.listen;
    let connections_max = process::connections(config.connections_max);
    let Site { app, endpoint } = match open(config).await {
        Err(e) if matches!(e.code, ErrorCode::DatabaseLost | ErrorCode::DatabaseDamaged) => {
            log::flush();
            super::fail(&e.into(), common.json);
            return Ok(ExitCode::from(EXIT_NEEDS_OPERATOR));
        }
        opened => opened?,
    };
    app.health().watch(lock.watched_file(), LOCK_LOST);
    // Frees the many small allocations of reading the document, the policy and the settings.
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
    let reloader = reload_on_hangup(common, &app, listen, tls.clone())?;
    app.sweep_plugins().await;
    let compiling = (!app.ready_cached_plugins().await).then(|| tokio::spawn(load_plugins_in_force(app.clone())));
    // Rows that expired while the server was down are deleted before the first request.
    purge_expired(&app).await;
    if let Err(e) = lock.announce(&socket) {
        // Commands also try the default socket paths.
        tracing::warn!(error = %e, "roster.lock cannot be written");
    }
    let url = url_of(&app.config, bound, tls.as_deref());
    announce(common, &app, bound, &url).await;
    let tasks = tasks(&app);
    let looking = tls.clone().map(|tls| tokio::spawn(tls.watch(app.health().clone())));
    let connections_max = usize::try_from(connections_max).unwrap_or(usize::MAX);
    let https = tls.map(|tls| listener::Https { tls, url });
    let listener = listener::Listener::new(&app.config, connections_max, endpoint, https);
    tokio::select! {
        () = listener.run(tcp, unix, stop, STOP_WAIT) => {}
        // On this thread, whose heap holds the allocations of the start.
        () = memory::keep_small(&app) => {}
    }
    tasks.iter().chain(&compiling).chain(&looking).chain([&reloader]).for_each(JoinHandle::abort);
    finish(&app, &mut lock).await;
    remove_stale(&socket)?;
    data_dir::remove_short(&socket)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the last-use times of API clients and API keys.
async fn flush_last_used(app: &App) -> crate::kernel::error::Result<()> {
    api_keys::flush_last_used(app).await?;
    api_clients::flush_last_used(app).await
}

/// The failure to listen on an address. If the address is in use, suggests the next port.
fn not_listening(address: SocketAddr, error: &std::io::Error) -> Failed {
    let next = address.port().checked_add(1).map(|port| SocketAddr::new(address.ip(), port));
    let suggestion = match next.filter(|_| error.kind() == std::io::ErrorKind::AddrInUse) {
        Some(next) => format!(": another program uses it. Stop that program, or try --listen {next}"),
        None => String::new(),
    };
    Failed(format!("{address} cannot be listened on: {error}{suggestion}"))
}

/// Ends the tasks, writes pending last-use times and denials, and closes the files.
async fn finish(app: &App, lock: &mut data_dir::Lock) {
    app.stop_tasks().await;
    for flushed in [flush_last_used(app).await, app.flush_denials().await] {
        if let Err(e) = flushed {
            tracing::warn!(error = %e, "the last use times and counts of denials were not written");
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
        supervise(app, task_fault("mark", "mark_failed"), watch::run_mark_task),
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

/// Handles SIGHUP: reads the certificate and the settings again, and applies those settings that can change while the
/// server runs, which is the log level. Without a handler the signal would kill the server.
fn reload_on_hangup(
    common: &Common,
    app: &Arc<App>,
    listen: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
) -> Result<JoinHandle<()>, Failed> {
    let mut hangup =
        signal(SignalKind::hangup()).map_err(|e| Failed(format!("the signal handler cannot be installed: {e}")))?;
    let (common, app) = (common.clone(), app.clone());
    Ok(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Some(tls) = &tls {
                tls.refresh(app.health()).await;
            }
            match common.load(listen) {
                Ok(config) => {
                    log::reload(&config);
                    tracing::info!(level = config.log_level, "the settings were read again");
                    let before = app.config.shown();
                    let changed = before.into_iter().zip(config.shown()).filter(|(old, new)| old.1 != new.1);
                    for ((name, _), _) in changed.filter(|((name, _), _)| *name != "log.level") {
                        tracing::warn!(setting = name, "this setting has changed and needs a restart");
                    }
                }
                Err(Failed(why)) => tracing::error!("the settings were not applied: {why}"),
            }
        }
    }))
}

/// Removes a socket that a killed server left behind.
fn remove_stale(socket: &PathBuf) -> Result<(), Failed> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failed(format!("{} cannot be removed: {e}", socket.display())))
        }
        _ => Ok(()),
    }
}

/// Prints where the server listens and, if there is no administrator yet, the set-up link.
async fn announce(common: &Common, app: &Arc<App>, bound: SocketAddr, url: &str) {
    // This is the only place that sets it.
    let _ = app.url.set(url.to_owned());
    let setup_url = setup_url(app, url).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, "the set-up link could not be created: `roster setup-link` tries again");
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
    let is_plain = app.config.public_url.is_empty() && !app.config.is_https();
    if is_plain && bound.ip().is_unspecified() {
        say!("On this computer also: http://localhost:{}", bound.port());
    }
    if is_plain && !bound.ip().is_loopback() {
        say!(
            "Browsers keep sessions over https only: set tls.mode (`roster help tls`), or put a proxy in front of Roster \
             and set public_url."
        );
    }
    say!("API documentation: {url}{}/docs", app.config.base_path);
    if let Some(setup_url) = setup_url {
        let minutes = app.config.setup_link_ttl_s.div_ceil(60);
        say!("\nCreate the first administrator within {minutes} minutes:");
        // Over plain http from another machine, browsers would drop the session.
        if is_plain && !bound.ip().is_loopback() {
            let port = bound.port();
            say!("  {}", setup_url.replacen(url, &format!("http://localhost:{port}"), 1));
            let (place, end) = match bound.ip().is_unspecified() {
                true => {
                    let here = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port);
                    ("on this computer, or from another one through a tunnel", here)
                }
                false => ("through a tunnel", bound),
            };
            let host = reachable(bound).ip();
            say!("Open it {place}: ssh -L {port}:{end} USER@{host}");
        } else {
            say!("  {setup_url}");
        }
        say!("(`roster setup-link` prints a new link; `roster init` does the same without a browser.)");
    }
}

/// The URL of the site: the public one, or else one at which this server answers. A certificate of our own authority is
/// valid only for its hosts, so the first of them is used.
fn url_of(config: &Config, bound: SocketAddr, tls: Option<&Tls>) -> String {
    if !config.public_url.is_empty() {
        return config.public_url.clone();
    }
    let (scheme, port) = (config.scheme(), bound.port());
    match tls.and_then(Tls::host).filter(|_| !bound.ip().is_loopback()) {
        Some(host) if host.contains(':') => format!("{scheme}://[{host}]:{port}"),
        Some(host) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{}", reachable(bound)),
    }
}

/// An address at which other computers reach a server that listens on `bound`. For an unspecified address (`0.0.0.0`),
/// an address of this computer.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Connecting a UDP socket sends nothing: it only makes the system choose a source address. The destinations are
    // reserved for documentation.
    let source_address = |(local, destination): (&str, &str)| {
        let socket = std::net::UdpSocket::bind(local).ok()?;
        socket.connect(destination).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
    };
    let routes = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let usable = if bound.is_ipv4() { &routes[..1] } else { &routes[..] };
    let ip = usable.iter().copied().find_map(source_address).unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(ip, bound.port())
}

/// The URL with a new set-up token; `None` if there is an administrator already.
async fn setup_url(app: &App, url: &str) -> crate::kernel::error::Result<Option<String>> {
    if members::is_set_up(app).await? {
        return Ok(None);
    }
    Ok(Some(format!("{url}/setup?token={}", app.new_setup_token().await?)))
}

/// Installs handlers for SIGINT and SIGTERM, and returns a future that completes on the first of them. Called before
/// the server announces that it runs.
fn stop_signal(app: Arc<App>) -> Result<impl Future<Output = ()>, Failed> {
    let handler =
        |kind: SignalKind| signal(kind).map_err(|e| Failed(format!("the signal handler cannot be installed: {e}")));
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        app.begin_shutdown();
    })
}

/// Compiles plugins that are not in the cache. The server starts meanwhile; a request that needs such a plugin waits
/// for it.
async fn load_plugins_in_force(app: Arc<App>) {
    app.ready_plugins().await;
}

/// Deletes expired rows of all features. A failure of one part is logged, and the others run.
async fn purge_expired(app: &App) {
    app.tasks.forget_old();
    let parts = [
        ("requests", app.forget_old_requests().await),
        ("requests of erased members", app.forget_erased().await),
        ("sessions", sessions::purge_expired(app).await),
        ("signing keys", keys::maintain(app).await),
        ("API keys", api_keys::maintain(app).await),
        ("password hashes", members::password::reload_hash_kinds(app).await),
        ("jobs", jobs::delete_done(app).await),
        ("videos", quotas::maintain(app).await),
        ("deliveries", deliver::purge_expired(app).await),
        ("sftpgo", sftpgo::purge_expired(app).await),
    ];
    for (part, done) in parts {
        if let Err(e) = done {
            tracing::warn!(error = %e, part, "upkeep failed and will be tried again");
        }
    }
}

/// Runs the periodic tasks. Does not return.
async fn scheduler(app: Arc<App>) {
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    let mut purge = tokio::time::interval(PURGE_EVERY);
    let mut leases = tokio::time::interval(LEASES_EVERY);
    // The first tick is immediate; there is nothing to do yet.
    flush.tick().await;
    purge.tick().await;
    loop {
        let result = tokio::select! {
            _ = flush.tick() => match flush_last_used(&app).await {
                Ok(()) => app.flush_denials().await,
                failed => failed,
            },
            _ = purge.tick() => {
                purge_expired(&app).await;
                app.reload(None).await.map(drop)
            }
            _ = leases.tick() => jobs::maintain(&app).await,
        };
        if let Err(e) = result {
            tracing::warn!(error = %e, "upkeep failed and will be tried again");
        }
    }
}
