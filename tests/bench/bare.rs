//! The baseline of the HTTP measurements: a poem handler that does nothing, behind the same listener and runtime as
//! Roster (`src/cli/serve.rs`, `src/cli/mod.rs`), so that a ratio shows what Roster adds and not how a socket is
//! opened.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use poem::listener::{Acceptor, Listener as _, TcpListener, UnixListener};
use poem::{EndpointExt, Route, handler};
use roster::kernel::config::Config;
use roster::server::listener::Listener;

use crate::process::Process;
use crate::site;

/// The argument that makes this program the bare server.
pub const ARGUMENT: &str = "--bare";

#[handler]
fn bare() -> &'static str {
    "ok"
}

/// Starts the bare server in a process of its own.
pub fn start(directory: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(ARGUMENT).arg(directory.join("bare.sock"));
    Process::start(&mut command, &directory.join("bare.log"))
}

/// Serves until the parent closes standard input. This also happens when the parent crashes.
pub fn serve(socket: &Path) {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let unix = UnixListener::bind(socket.to_owned()).into_acceptor().await.expect("a socket");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let tcp = TcpListener::bind(address).into_acceptor().await.expect("a port");
        let bound = tcp.local_addr().first().and_then(|addr| addr.as_socket_addr().copied()).expect("an address");
        let routes = site::PATHS.iter().fold(Route::new(), |routes, path| routes.at(*path, bare));
        println!("{}", serde_json::json!({"listening": bound.to_string()}));
        let config = Config::of(socket);
        let connections = usize::try_from(config.connections_max).expect("a number");
        let stop = std::future::pending();
        let listener = Listener::new(&config, connections, routes.map_to_response().boxed(), None);
        listener.run(tcp, unix, stop, Duration::ZERO).await;
    });
}
