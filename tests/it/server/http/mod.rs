//! HTTP behaviour around the operations.

mod addresses;
mod body_limits;
mod browsers;
mod documents;
mod envelope;
mod idempotency;
mod logs;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::harness::site::Site;

/// A response read from a socket, without an HTTP client.
pub struct Plain {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Plain {
    pub fn header(&self, name: &str) -> Option<&str> {
        let line =
            self.head.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.trim())
    }
}

/// Sends these bytes and reads one response with a JSON body or without a body.
pub fn exchange(stream: &mut TcpStream, request: &[u8]) -> Plain {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("time-out");
    stream.write_all(request).expect("a request");
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("a plain head");
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
    let mut answer = Plain { status, head, body: Value::Null };
    let length = answer.header("content-length").map_or(0, |text| text.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    answer.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    answer
}

pub fn connect(site: &Site) -> TcpStream {
    TcpStream::connect(site.url.strip_prefix("http://").expect("http")).expect("a connection")
}

pub fn head(request_line: &str, headers: &str) -> Vec<u8> {
    format!("{request_line} HTTP/1.1\r\nhost: site\r\n{headers}\r\n").into_bytes()
}
