//! The clients of a storm: half heads, slow bodies, HTTP/2 and large bodies of nobody, more than there is space for.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const HALF_HEADS: usize = 1_100;
const SLOW_BODIES: usize = 200;
const H2_CONNECTIONS: usize = 20;
const H2_STREAMS_EACH: u32 = 1_000;
const LARGE_BODIES: usize = 60;
const LARGE_BYTES: usize = 8 * 1024 * 1024;

/// Sends these bytes on a connection of its own, and reads until the server has enough of it.
async fn send(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let (mut from, mut to) = stream.split();
    // The server may close at any moment: that is what is wanted of it.
    let _ = to.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = from.read_to_end(&mut answer).await;
}

/// The preface of HTTP/2 and the beginnings of so many requests.
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

/// Everybody who is in the way. Who was closed comes back once.
pub fn start(address: SocketAddr) -> JoinSet<()> {
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
            });
        }
    }
    all
}

/// Asks for something, reads that the answer began, and no more. Its socket takes little at a time.
pub async fn reader_who_stops(address: SocketAddr, path: &str, encoding: &str) -> TcpStream {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    let mut stream = socket.connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: {encoding}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut began = [0; 15];
    stream.read_exact(&mut began).await.expect("an answer");
    assert_eq!(&began, b"HTTP/1.1 200 OK");
    stream
}

/// The clients need open files too.
pub fn raise_open_files() {
    const FILES: u64 = 4_096;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|files| files < FILES) {
        let current = Some(maximum.map_or(FILES, |hard| hard.min(FILES)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("open files");
    }
}
