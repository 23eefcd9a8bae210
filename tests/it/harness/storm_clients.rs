//! The clients of the load test: half heads, slow bodies, HTTP/2 and large bodies without authentication, more than
//! there is space for; and authenticated callers, each of whom repeats a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

const HALF_HEADS: usize = 1_100;
const SLOW_BODIES: usize = 200;
const H2_CONNECTIONS: usize = 20;
const H2_STREAMS_EACH: u32 = 1_000;
const LARGE_BODIES: usize = 60;
const LARGE_BYTES: usize = 8 * 1024 * 1024;
/// Longer than any response that a caller reads.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Callers that repeat one request, each on a connection of its own.
#[derive(Clone)]
pub struct Asked {
    pub what: &'static str,
    pub callers: usize,
    /// All bytes of the request.
    pub request: Arc<Vec<u8>>,
    /// Whether they read the responses. Otherwise they keep sending until the server accepts nothing more.
    pub read: bool,
}

/// How often each kind of caller got a response with this status and error code.
pub type Answers = BTreeMap<(&'static str, u16, String), u64>;

/// Sends these bytes on a new connection, and reads until the server closes it.
async fn send(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let (mut from, mut to) = stream.split();
    // The server may close the connection at any moment, as it should.
    let _ = to.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = from.read_to_end(&mut answer).await;
}

/// The preface of HTTP/2 and the beginnings of several requests.
fn h2_requests() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for n in 0..H2_STREAMS_EACH {
        bytes.extend_from_slice(&[0, 0, 3, 1, 4]);
        bytes.extend_from_slice(&(2 * n + 1).to_be_bytes());
        bytes.extend_from_slice(&[0x83, 0x84, 0x86]);
    }
    bytes
}

fn large_body() -> Vec<u8> {
    let head = format!(
        "PUT /api/v1/permissions/catalog HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {LARGE_BYTES}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + LARGE_BYTES, b' ');
    bytes
}

/// All load until the deadline. Each unauthenticated client that was disconnected connects again at least once.
pub fn start(address: SocketAddr, until: Instant, asked: &[Asked]) -> JoinSet<Answers> {
    let half = b"GET / HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    let slow =
        b"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{";
    let mut all = JoinSet::new();
    for (count, bytes) in [
        (HALF_HEADS, half),
        (SLOW_BODIES, slow.to_vec()),
        (H2_CONNECTIONS, h2_requests()),
        (LARGE_BODIES, large_body()),
    ] {
        let bytes = Arc::new(bytes);
        for _ in 0..count {
            let bytes = bytes.clone();
            all.spawn(async move {
                send(address, &bytes).await;
                send(address, &bytes).await;
                while Instant::now() < until {
                    send(address, &bytes).await;
                }
                Answers::new()
            });
        }
    }
    ask(&mut all, address, until, asked);
    all
}

/// The authenticated callers only.
pub fn ask(all: &mut JoinSet<Answers>, address: SocketAddr, until: Instant, asked: &[Asked]) {
    for asked in asked {
        for _ in 0..asked.callers {
            let asked = asked.clone();
            all.spawn(async move {
                let mut answers = Answers::new();
                while Instant::now() < until {
                    // A connection ends when the server closes it, or at the deadline.
                    let _ = timeout_at(until.into(), on_a_connection(address, &asked, &mut answers)).await;
                }
                answers
            });
        }
    }
}

async fn on_a_connection(address: SocketAddr, asked: &Asked, answers: &mut Answers) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    loop {
        if asked.read {
            let (mut from, mut to) = stream.split();
            // The response may come before the whole request is sent.
            let (sent, answer) = tokio::join!(to.write_all(&asked.request), read_answer(&mut from));
            let (status, word) = answer?;
            *answers.entry((asked.what, status, word)).or_default() += 1;
            sent?;
        } else {
            stream.write_all(&asked.request).await?;
        }
    }
}

/// Reads a response to its end. Returns its status and the error code of a failure.
async fn read_answer(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u16, String)> {
    let broken = |what: &str| std::io::Error::other(what.to_owned());
    let (mut answer, mut end) = (Vec::new(), None);
    while end.is_none_or(|end| answer.len() < end) {
        if from.read_buf(&mut answer).await? == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Err(broken("the answer does not end"));
        }
        if end.is_none()
            && let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            end = Some(head + 4 + length.ok_or_else(|| broken("an answer without a length"))?);
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| broken("no status"))?;
    let word = text.split_once(r#""detail":""#).and_then(|(_, rest)| rest.split('"').next());
    Ok((status, word.filter(|_| status >= 400).unwrap_or_default().to_owned()))
}

/// The responses of all callers together.
pub fn summed(all: impl IntoIterator<Item = Answers>) -> Answers {
    let mut sum = Answers::new();
    for (answer, times) in all.into_iter().flatten() {
        *sum.entry(answer).or_default() += times;
    }
    sum
}

/// Responses that no client may get under load.
pub fn faults(answers: &Answers) -> Vec<String> {
    let is_named = |status: u16, word: &str| status == 503 && ["busy", "compiler_busy"].contains(&word);
    let faults = answers.iter().filter(|((_, status, word), _)| *status >= 500 && !is_named(*status, word));
    faults.map(|((what, status, word), times)| format!("{what}: {times} × {status} {word}")).collect()
}

/// Raises the limit on open files, because the clients need many too.
pub fn raise_open_files() {
    const FILES: u64 = 4_096;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|files| files < FILES) {
        let current = Some(maximum.map_or(FILES, |hard| hard.min(FILES)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("open files");
    }
}
