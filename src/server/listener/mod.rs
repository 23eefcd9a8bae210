//! The listener: accepts connections, and closes those whose clients are too slow or that exceed a limit.
//!
//! HTTP/1.1 only, so a connection has at most one request at a time. Each connection is a task;
//! `connection::Connection` tracks what it waits for, and `Connections` holds all of them. The network and the local
//! socket of the command line have separate limits, so that many connections on one do not block the other. TLS is
//! below all of this: its handshake runs in the task of its connection, and counts as waiting for the client.

pub mod authority;
mod body;
mod connection;
mod connections;
mod stream;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use body::{Answer, Paced};
use connection::{TimedOut, Timeouts};
use connections::{ConnectionSlot, Connections, counted_address};
use futures_util::FutureExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use poem::endpoint::BoxEndpoint;
use poem::http::uri::Scheme;
use poem::http::{Method, StatusCode};
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Body, Endpoint, Request, Response};
use stream::Stream;
use tls::Tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::kernel::config::Config;
use crate::kernel::error::{Error, ErrorCode};
use crate::kernel::http::failure_body;

/// Most concurrent connections on the local socket. Descriptors are reserved for them.
pub const SOCKET_CONNECTIONS_MAX: usize = 32;
/// How often closed connections are logged, if there are any.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Answers of reads from this size on are replaced by 503 while too many bytes of answers are in flight.
const LONG_ANSWER_BYTES: u64 = 64 * 1024;
/// How long the listener waits after an error of `accept`, at first and at most.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Counts of closed and refused connections since the last report.
#[derive(Debug, Default)]
struct Tally {
    slow_handshakes: AtomicU64,
    slow_heads: AtomicU64,
    slow_bodies: AtomicU64,
    slow_readers: AtomicU64,
    closed_for_others: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
}

impl Tally {
    fn add(&self, count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs all counts in one line, unless all are zero, and resets them.
    fn report(&self, open: usize) {
        let taken = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let (slow_handshakes, slow_heads) = (taken(&self.slow_handshakes), taken(&self.slow_heads));
        let (slow_bodies, slow_readers) = (taken(&self.slow_bodies), taken(&self.slow_readers));
        let (closed_for_others, refused, accept_errors) =
            (taken(&self.closed_for_others), taken(&self.refused), taken(&self.accept_errors));
        let all = [slow_handshakes, slow_heads, slow_bodies, slow_readers, closed_for_others, refused, accept_errors];
        if all == [0; 7] {
            return;
        }
        tracing::warn!(
            slow_handshakes,
            slow_heads,
            slow_bodies,
            slow_readers,
            closed_for_others,
            refused,
            accept_errors,
            open,
            "connections were closed: their clients were too slow, or there was no space for all"
        );
    }
}

/// TLS of the network listener.
pub struct Https {
    pub tls: Arc<Tls>,
    /// The address that is named to clients without TLS.
    pub url: String,
}

/// The server's side of all connections.
pub struct Listener {
    https: Option<Https>,
    endpoint: BoxEndpoint<'static, Response>,
    trusted_proxies: Vec<IpNet>,
    head_bytes_max: usize,
    body_rate_bytes_s: u64,
    timeouts: Timeouts,
    tally: Arc<Tally>,
    is_stopping: Arc<AtomicBool>,
    network: Arc<Connections>,
    socket: Arc<Connections>,
}

impl Listener {
    /// `connections_max`: how many network connections the settings and the system allow.
    pub fn new(
        config: &Config,
        connections_max: usize,
        endpoint: BoxEndpoint<'static, Response>,
        https: Option<Https>,
    ) -> Arc<Self> {
        let number = |setting: u64| usize::try_from(setting).unwrap_or(usize::MAX);
        let answers_max = config.answers_in_flight_max;
        Arc::new(Self {
            https,
            endpoint,
            trusted_proxies: config.trusted_proxies.clone(),
            head_bytes_max: number(config.head_bytes_max),
            body_rate_bytes_s: config.body_rate_bytes_s,
            timeouts: Timeouts {
                handshake: Duration::from_millis(config.handshake_wait_ms),
                head: Duration::from_millis(config.head_wait_ms),
                idle: Duration::from_millis(config.idle_wait_ms),
                write: Duration::from_millis(config.answer_wait_ms),
                write_rate: config.answer_rate_bytes_s,
            },
            tally: Arc::default(),
            is_stopping: Arc::default(),
            network: Connections::new(connections_max, number(config.connections_per_address_max), answers_max),
            socket: Connections::new(SOCKET_CONNECTIONS_MAX, SOCKET_CONNECTIONS_MAX, answers_max),
        })
    }

    /// Serves until `stop` completes. Running requests may then finish within `stop_wait`.
    pub async fn run<N, S>(self: &Arc<Self>, network: N, socket: S, stop: impl Future<Output = ()>, stop_wait: Duration)
    where
        N: Acceptor + 'static,
        S: Acceptor + 'static,
    {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().accept(network, self.network.clone()));
        tasks.spawn(self.clone().accept(socket, self.socket.clone()));
        tasks.spawn(self.clone().watch());
        tokio::select! {
            () = stop => {}
            // These tasks end only if they fail, and the server needs all of them.
            Some(ended) = tasks.join_next() => tracing::error!(?ended, "the listener failed"),
        }
        tasks.shutdown().await;
        self.is_stopping.store(true, Ordering::Release);
        tokio::join!(self.network.end(stop_wait), self.socket.end(stop_wait));
        self.report();
    }

    /// Accepts connections. Does not return. Waits after an error such as a lack of descriptors.
    async fn accept<A: Acceptor + 'static>(self: Arc<Self>, mut acceptor: A, connections: Arc<Connections>) {
        let is_plain = self.https.is_none() || Arc::ptr_eq(&connections, &self.socket);
        let mut backoff = ACCEPT_BACKOFF_MIN;
        loop {
            match acceptor.accept().await {
                Ok((io, local, remote, scheme)) => {
                    backoff = ACCEPT_BACKOFF_MIN;
                    let address = self.address(&remote);
                    let (slot, closed) = connections.admit(address).await;
                    self.tally.closed_for_others.fetch_add(closed as u64, Ordering::Relaxed);
                    match slot {
                        Some(slot) if is_plain => {
                            tokio::spawn(self.clone().serve_plain(io, (local, remote, scheme), slot));
                        }
                        Some(slot) => {
                            tokio::spawn(self.clone().serve_secured(io, (local, remote, Scheme::HTTPS), slot));
                        }
                        None if is_plain => self.refuse(io),
                        // An answer would need a handshake.
                        None => self.tally.add(&self.tally.refused),
                    }
                }
                Err(e) if is_connection_error(&e) => {}
                Err(e) => {
                    self.tally.add(&self.tally.accept_errors);
                    tracing::debug!(error = %e, "no connection can be accepted");
                    if connections.close_one() {
                        self.tally.add(&self.tally.closed_for_others);
                    }
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                }
            }
        }
    }

    /// The address that a connection counts for: its peer, or none for trusted proxies, which carry many clients.
    fn address(&self, remote: &RemoteAddr) -> Option<IpAddr> {
        let peer = remote.as_socket_addr()?.ip().to_canonical();
        let is_proxy = self.trusted_proxies.iter().any(|network| network.contains(&peer));
        (!is_proxy).then(|| counted_address(peer))
    }

    /// Answers 503 `busy` and closes the connection, as far as that is possible without waiting.
    fn refuse(&self, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        self.tally.add(&self.tally.refused);
        let (request_id, body) = busy_body();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nx-request-id: {request_id}\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        // Closing a socket with unread input resets the connection, and the client would lose the answer.
        let _ = io.read(&mut [0; 8 * 1024]).now_or_never();
        let _ = io.write_all(answer.as_bytes()).now_or_never();
    }

    fn stream<I>(&self, io: I, slot: &ConnectionSlot) -> Stream<I> {
        Stream {
            inner: io,
            connection: slot.connection.clone(),
            is_stopping: self.is_stopping.clone(),
            dropped: None,
            first: None,
        }
    }

    async fn serve_plain<I>(self: Arc<Self>, io: I, peers: (LocalAddr, RemoteAddr, Scheme), slot: ConnectionSlot)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve(self.stream(io, &slot), peers, &slot).await;
    }

    /// Completes the TLS handshake, and serves the connection. The tracked stream is below TLS, so that the time limits
    /// are about bytes of the network.
    async fn serve_secured<I>(self: Arc<Self>, io: I, peers: (LocalAddr, RemoteAddr, Scheme), slot: ConnectionSlot)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(https) = &self.https else { return };
        let connection = &slot.connection;
        connection.begins_handshake();
        let mut handshake = Box::pin(https.tls.secure(self.stream(io, &slot), &https.url));
        let secured = loop {
            tokio::select! {
                secured = &mut handshake => break secured,
                () = connection.woken() => {}
            }
            if connection.is_closed() {
                return;
            }
        };
        drop(handshake);
        match secured {
            Ok(Some(stream)) => {
                connection.ended_handshake(Instant::now());
                self.serve(stream, peers, &slot).await;
            }
            Ok(None) => {}
            Err(e) => tracing::debug!(error = %e, peer = %peers.1, "a handshake failed"),
        }
    }

    /// Serves one connection until it ends.
    async fn serve<I>(&self, stream: I, peers: (LocalAddr, RemoteAddr, Scheme), slot: &ConnectionSlot)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = &slot.connection;
        let answer = service_fn(|request| self.answer(request, peers.clone(), slot));
        // `Connection` enforces the timeout of the head, like all other timeouts.
        let mut http = pin!(
            http1::Builder::new()
                .header_read_timeout(None::<Duration>)
                .max_buf_size(self.head_bytes_max)
                .serve_connection(TokioIo::new(stream), answer)
        );
        loop {
            tokio::select! {
                ended = http.as_mut() => {
                    if let Err(e) = ended {
                        tracing::debug!(error = %e, peer = %peers.1, "a connection failed");
                    }
                    return;
                }
                () = connection.woken() => {}
            }
            if connection.is_closed() {
                return;
            }
            http.as_mut().graceful_shutdown();
        }
    }

    /// Processes one request.
    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        (local, remote, scheme): (LocalAddr, RemoteAddr, Scheme),
        slot: &ConnectionSlot,
    ) -> Result<hyper::Response<Answer>, Infallible> {
        let connection = &slot.connection;
        if !connection.has_request(Instant::now()) {
            // The connection is closed, so its task is about to end.
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let is_read = parts.method == Method::GET;
        let body = if body.is_end_stream() {
            Body::empty()
        } else {
            let paced = Paced::new(body, connection.clone(), self.tally.clone(), self.body_rate_bytes_s);
            Body::from(BoxBody::new(paced))
        };
        let request = Request::from_parts((parts, local, remote, scheme).into(), body);
        let mut response: hyper::Response<BoxBody<Bytes, io::Error>> = self.endpoint.get_response(request).await.into();
        let bytes = response.body().size_hint().lower();
        match slot.hold_answer(bytes) {
            Some(closed) => {
                self.tally.slow_readers.fetch_add(closed as u64, Ordering::Relaxed);
            }
            // Answers to changes are always sent, and so are short ones.
            None if !is_read || bytes < LONG_ANSWER_BYTES => {}
            None => {
                connection.release_answers();
                self.tally.add(&self.tally.refused);
                response = busy().into();
            }
        }
        Ok(response.map(|inner| Answer { inner, connection: connection.clone() }))
    }

    /// Closes connections that are past their deadline, and logs how many.
    async fn watch(self: Arc<Self>) {
        let mut check = tokio::time::interval(self.timeouts.check_interval());
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reported = Instant::now();
        loop {
            check.tick().await;
            let now = Instant::now();
            for connections in [&self.network, &self.socket] {
                connections.close_late(now, &self.timeouts, |kind| match kind {
                    TimedOut::Handshake => self.tally.add(&self.tally.slow_handshakes),
                    TimedOut::Head => self.tally.add(&self.tally.slow_heads),
                    TimedOut::Write => self.tally.add(&self.tally.slow_readers),
                    // These are normal.
                    TimedOut::Silent | TimedOut::Idle | TimedOut::Linger => {}
                });
            }
            if now.saturating_duration_since(reported) >= REPORT_EVERY {
                reported = now;
                self.report();
            }
        }
    }

    fn report(&self) {
        self.tally.report(self.network.count() + self.socket.count());
    }
}

/// A new request id, and the body of a 503 `busy` answer with it.
fn busy_body() -> (String, String) {
    let request_id = uuid::Uuid::now_v7().to_string();
    let body = failure_body(&Error::new(ErrorCode::Busy), 35, &request_id, false).to_string();
    (request_id, body)
}

/// The answer that replaces one above the limit of bytes in flight.
fn busy() -> Response {
    let (request_id, body) = busy_body();
    let answer = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).content_type("application/json");
    answer.header("x-request-id", request_id).header("retry-after", 1).body(body)
}

/// Whether an error of `accept` concerns that one connection only, so that the next one can be accepted at once.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}
