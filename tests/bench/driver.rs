//! The client of the benchmark: HTTP/1.1 over kept-alive connections, all on one thread, like `wrk -t1 -c64`.
//!
//! The same code drives the server under test and the bare handler, so that the client's own cost counts for both. It
//! reads only as much of a response as it needs to find the next one, and requires every response to be 200.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Warm-up before the measurement, so that caches and pools are in their steady state.
const WARM_UP: Duration = Duration::from_millis(250);
const MEASURED: Duration = Duration::from_secs(1);
/// Longest wait for anything that takes seconds at most, so that a server that hangs does not hang the benchmark.
const PATIENCE: Duration = Duration::from_secs(60);
/// Larger than any response head that is expected.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Writes the request with this number into the empty buffer. The second argument is the previous response on the same
/// connection.
pub type Make<'a> = &'a dyn Fn(u64, &[u8], &mut Vec<u8>);

/// A server, and how it is reached.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// Trusts the certificate for `localhost`.
    pub tls: Option<TlsConnector>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

/// The result of a run of requests.
#[derive(Debug, Default)]
pub struct Measured {
    pub per_s: f64,
    /// The 99th percentile of the latency.
    pub p99_us: f64,
    /// The number of requests answered 200, warm-up included.
    pub answered: u64,
    pub failed: u64,
    /// The message of the first failure.
    pub complaint: Option<String>,
    /// The last response on each connection.
    pub last: Vec<Vec<u8>>,
}

/// A request as text; `headers` are whole lines.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = match method {
        "GET" => String::new(),
        _ => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{headers}{length}\r\n{body}").into_bytes()
}

/// Keeps this many requests in flight during the warm-up and the measured time.
///
/// `first` stands in for the responses before the first requests: one per connection, or none.
pub fn measure(target: impl Into<Target>, in_flight: usize, first: &[Vec<u8>], make: Make<'_>) -> Measured {
    let target = &target.into();
    let began = Instant::now();
    let (from, until) = (began + WARM_UP, began + WARM_UP + MEASURED);
    let (next, took_us) = (&Cell::new(0), &RefCell::new(Vec::<u32>::new()));
    let measured = &RefCell::new(Measured::default());
    let client = |index: usize| async move {
        let mut connection = Connection::open(target).await?;
        connection.buffer.extend(first.get(index).into_iter().flatten());
        let mut request = Vec::new();
        while Instant::now() < until {
            request.clear();
            make(next.replace(next.get() + 1), connection.body(), &mut request);
            let asked = Instant::now();
            let status = connection.exchange(&request).await?;
            if status != 200 {
                let text = String::from_utf8_lossy(connection.body()).into_owned();
                note(measured, format!("status {status}: {text}"));
                continue;
            }
            measured.borrow_mut().answered += 1;
            let now = Instant::now();
            if now >= from && now < until {
                took_us.borrow_mut().push(u32::try_from((now - asked).as_micros()).unwrap_or(u32::MAX));
            }
        }
        Ok(connection.body().to_vec())
    };
    let clients = (0..in_flight).map(|index| async move {
        client(index).await.unwrap_or_else(|broken| {
            note(measured, broken);
            Vec::new()
        })
    });
    let last = block_on(join_all(clients));
    let mut took_us = took_us.take();
    took_us.sort_unstable();
    let p99_us = took_us.get(took_us.len() * 99 / 100).map_or(f64::MAX, |us| f64::from(*us));
    Measured { per_s: took_us.len() as f64 / MEASURED.as_secs_f64(), p99_us, last, ..measured.take() }
}

/// Makes the same request repeatedly, one at a time, and reconnects when the server has closed the connection. The time
/// to reconnect is part of the result.
pub fn one_after_another(address: SocketAddr, request: &[u8], goes_on: impl Fn() -> bool) -> Measured {
    let measured = RefCell::new(Measured::default());
    let mut took_us = Vec::new();
    runtime().block_on(async {
        let mut open = None;
        while goes_on() {
            let asked = Instant::now();
            let answer = async {
                match open.take() {
                    Some(connection) => match exchanged(connection, request).await {
                        Err(_) => opened(address, request).await,
                        answered => answered,
                    },
                    None => opened(address, request).await,
                }
            };
            match tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time") {
                Ok((connection, 200)) => {
                    took_us.push(asked.elapsed().as_micros() as f64);
                    open = Some(connection);
                }
                Ok((_, status)) => note(&measured, format!("status {status}")),
                Err(broken) => note(&measured, broken),
            }
        }
    });
    took_us.sort_unstable_by(f64::total_cmp);
    let p99_us = took_us.get(took_us.len() * 99 / 100).copied().unwrap_or(f64::MAX);
    Measured { p99_us, answered: took_us.len() as u64, ..measured.into_inner() }
}

async fn opened(address: SocketAddr, request: &[u8]) -> Result<(Connection, u16), String> {
    exchanged(Connection::open(&address.into()).await?, request).await
}

async fn exchanged(mut connection: Connection, request: &[u8]) -> Result<(Connection, u16), String> {
    let status = connection.exchange(request).await?;
    Ok((connection, status))
}

fn note(measured: &RefCell<Measured>, complaint: String) {
    let mut measured = measured.borrow_mut();
    measured.failed += 1;
    measured.complaint.get_or_insert(complaint);
}

/// Makes all these requests, 64 at a time, and returns the response bodies in the same order. Used for set-up.
pub fn all(address: SocketAddr, requests: &[Vec<u8>]) -> Vec<Vec<u8>> {
    const IN_FLIGHT: usize = 64;
    let next = Cell::new(0);
    let bodies = RefCell::new(vec![Vec::new(); requests.len()]);
    let client = || async {
        let mut connection = Connection::open(&address.into()).await.expect("a connection");
        while let Some(request) = requests.get(next.get()) {
            let index = next.replace(next.get() + 1);
            let status = connection.exchange(request).await.expect("an answer");
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(connection.body()));
            bodies.borrow_mut()[index] = connection.body().to_vec();
        }
    };
    block_on(join_all((0..IN_FLIGHT.min(requests.len())).map(|_| client())));
    bodies.into_inner()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    runtime().block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("answers in time") })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

enum Stream {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn open(target: &Target) -> std::io::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &target.tls else { return Ok(Self::Plain(stream)) };
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        Ok(Self::Secured(Box::new(tls.connect(name, stream).await?)))
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Secured(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn read(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Secured(stream) => stream.read_buf(buffer).await,
        }
    }
}

struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    /// Where the body of the last response begins.
    body_at: usize,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self, String> {
        let stream = Stream::open(target).await.map_err(|e| format!("no connection: {e}"))?;
        Ok(Self { stream, buffer: Vec::with_capacity(HEAD_BYTES_MAX), body_at: 0 })
    }

    /// The body of the last response.
    fn body(&self) -> &[u8] {
        &self.buffer[self.body_at..]
    }

    /// Makes one request and returns its status.
    async fn exchange(&mut self, request: &[u8]) -> Result<u16, String> {
        self.stream.write(request).await.map_err(|e| format!("cannot write: {e}"))?;
        self.buffer.clear();
        let head = loop {
            self.fill().await?;
            match head(&self.buffer)? {
                Some(head) => break head,
                None if self.buffer.len() > HEAD_BYTES_MAX => return Err("the head of an answer does not end".into()),
                None => {}
            }
        };
        let end = head.bytes + head.body_bytes;
        while self.buffer.len() < end {
            self.fill().await?;
        }
        if self.buffer.len() > end {
            return Err("an answer is longer than it says".into());
        }
        self.body_at = head.bytes;
        Ok(head.status)
    }

    async fn fill(&mut self) -> Result<(), String> {
        match self.stream.read(&mut self.buffer).await {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(_) => Ok(()),
            Err(e) => Err(format!("cannot read: {e}")),
        }
    }
}

struct Head {
    status: u16,
    bytes: usize,
    body_bytes: usize,
}

/// The head of a response, once all of it has been read. The response must state the length of its body.
fn head(received: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&received[..end]).map_err(|e| e.to_string())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| format!("not an answer: {text}"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())
    });
    let body_bytes = length.flatten().ok_or_else(|| format!("an answer without a plain length: {text}"))?;
    Ok(Some(Head { status, bytes: end + 4, body_bytes }))
}
